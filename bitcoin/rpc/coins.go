package rpc

import (
	"context"
	"crypto/sha256"
	"encoding/binary"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
)

func (a *API) coinMethods() []jsonrpc.Method {
	return []jsonrpc.Method{
		{Category: "blockchain", Name: "scantxoutset", Params: "action:s scanobjects:a?",
			Run: a.scanTxOutSet,
			Doc: "Scans the unspent transaction output set for entries that match certain descriptors."},
		{Category: "blockchain", Name: "gettxoutsetinfo",
			Params: "hash_type:s? hash_or_height:v? use_index:b?", Run: a.getTxOutSetInfo,
			Doc: "Returns statistics about the unspent transaction output set."},
	}
}

func (a *API) scanTxOutSet(ctx context.Context, c call) (any, error) {
	switch action := c.String(0, ""); action {
	case "status":
		return nil, nil // a scan ends before its call does: none goes on behind another
	case "abort":
		return false, nil
	case "start":
	default:
		return nil, fail(jsonrpc.InvalidParameter, "Invalid action '%s'", action)
	}
	if !c.Has(1) {
		return nil, fail(jsonrpc.MiscError, "scanobjects argument is required for the start action")
	}
	wanted := map[string]string{}
	for _, v := range c.Array(1) {
		text, ok := v.(string)
		if o, isObject := v.(object); isObject {
			if text, ok = o.Get("desc").(string); !ok {
				return nil, fail(jsonrpc.InvalidParameter, "Descriptor needs to be provided in scan object")
			}
		} else if !ok {
			return nil, fail(jsonrpc.InvalidParameter, "Scan object needs to be either a string or an object")
		}
		s, err := descriptorScript(a.net, text, false)
		if err != nil {
			return nil, fail(jsonrpc.InvalidAddressOrKey, "%v", err)
		}
		wanted[string(s)] = inferDescriptor(a.net, s)
	}
	unspents, count := []any{}, 0
	var total bitcoin.Amount
	best, err := a.cfg.Coins.All(ctx, func(out bitcoin.OutPoint, coin consensus.Coin) error {
		count++
		desc, ok := wanted[string(coin.Out.Script)]
		if !ok {
			return nil
		}
		total += coin.Out.Value
		e, _ := a.chain.AtHeight(coin.Height)
		unspents = append(unspents, object{{"txid", out.TxID}, {"vout", out.Index},
			{"scriptPubKey", jsonrpc.Hex(coin.Out.Script)}, {"desc", desc}, {"amount", coin.Out.Value},
			{"coinbase", coin.Coinbase}, {"height", coin.Height}, {"blockhash", e.Hash},
			{"confirmations", 0}})
		return nil
	})
	if err != nil {
		return nil, err
	}
	e, _ := a.chain.Lookup(best)
	for _, u := range unspents {
		o := u.(object)
		o[len(o)-1].Value = int(e.Height) - int(o.Get("height").(bitcoin.Height)) + 1
	}
	return object{{"success", true}, {"txouts", count}, {"height", e.Height}, {"bestblock", best},
		{"unspents", unspents}, {"total_amount", total}}, nil
}

// getTxOutSetInfo counts the coins and hashes them (Bitcoin Core kernel/coinstats.cpp).
func (a *API) getTxOutSetInfo(ctx context.Context, c call) (any, error) {
	kind := c.String(0, "hash_serialized_3")
	switch kind {
	case "hash_serialized_3", "none":
	case "muhash":
		return nil, fail(jsonrpc.MiscError, "muhash is not available without -coinstatsindex")
	default:
		return nil, fail(jsonrpc.InvalidParameter, "'%s' is not a valid hash_type", kind)
	}
	if c.Has(1) {
		return nil, fail(jsonrpc.InvalidParameter, "Querying specific block heights requires coinstatsindex")
	}
	h := sha256.New()
	var txs, outs, size int64
	var total bitcoin.Amount
	var last bitcoin.Hash
	best, err := a.cfg.Coins.All(ctx, func(out bitcoin.OutPoint, coin consensus.Coin) error {
		if outs == 0 || out.TxID != last {
			txs, last = txs+1, out.TxID
		}
		outs++
		size += 32 + 4 + 4 + 8 + 2 + int64(len(coin.Out.Script)) // Core's GetBogoSize
		total += coin.Out.Value
		if kind != "none" {
			code := uint32(coin.Height) << 1
			if coin.Coinbase {
				code |= 1
			}
			b := binary.LittleEndian.AppendUint32(out.Append(nil), code)
			h.Write(coin.Out.Append(b))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	e, _ := a.chain.Lookup(best)
	o := object{{"height", e.Height}, {"bestblock", best}, {"txouts", outs}, {"bogosize", size}}
	if kind != "none" {
		first := h.Sum(nil)
		o.Set("hash_serialized_3", bitcoin.Hash(sha256.Sum256(first)))
	}
	o.Set("total_amount", total).Set("transactions", txs)
	disk := int64(0)
	if a.cfg.Files != nil {
		disk = a.cfg.Files.CoinBytes()
	}
	return *o.Set("disk_size", disk), nil
}
