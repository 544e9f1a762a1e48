package rpc

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/index"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
)

func (a *API) coinMethods() []jsonrpc.Method {
	return []jsonrpc.Method{
		{Category: "blockchain", Name: "scantxoutset", Params: "action:s scanobjects[]:a?",
			Run: a.scanTxOutSet,
			Doc: "Scans the unspent transaction output set for entries that match certain descriptors."},
		{Category: "blockchain", Name: "gettxoutsetinfo",
			Params: "hash_type:s? hash_or_height:v? use_index:b?", Run: a.getTxOutSetInfo,
			Doc: "Returns statistics about the unspent transaction output set. Note this call may take some " +
				"time if you are not using coinstatsindex."},
	}
}

// coinsHash is a hash of all coins, given in their order.
type coinsHash interface {
	add(coin []byte)
	sum() bitcoin.Hash
}

type serializedHash struct{ hash.Hash }

func (h serializedHash) add(coin []byte) { h.Write(coin) }

func (h serializedHash) sum() bitcoin.Hash { return sha256.Sum256(h.Sum(nil)) }

type setHash struct{ *index.MuHash }

func (h setHash) add(coin []byte) { h.Insert(coin) }

func (h setHash) sum() bitcoin.Hash { return h.Sum() }

// hashOfCoins returns the hash that an argument names, nil for none, and what the answer calls it.
func hashOfCoins(kind string) (coinsHash, string, error) {
	switch kind {
	case "hash_serialized_3":
		return serializedHash{sha256.New()}, kind, nil
	case "muhash":
		return setHash{new(index.MuHash)}, kind, nil
	case "none":
		return nil, "", nil
	}
	return nil, "", fail(jsonrpc.InvalidParameter, "'%s' is not a valid hash_type", kind)
}

// getTxOutSetInfo describes the set of coins, from the index where it has what is asked for (Bitcoin Core
// rpc/blockchain.cpp, kernel/coinstats.cpp).
func (a *API) getTxOutSetInfo(ctx context.Context, c call) (any, error) {
	h, name, err := hashOfCoins(c.String(0, "hash_serialized_3"))
	if err != nil {
		return nil, err
	}
	x, useIndex := a.coinStatsIndex(), c.Bool(2, true)
	e := a.chain.Tip()
	if c.Has(1) {
		switch {
		case x == nil:
			return nil, fail(jsonrpc.InvalidParameter,
				"Querying specific block heights requires coinstatsindex")
		case name == "hash_serialized_3":
			return nil, fail(jsonrpc.InvalidParameter,
				"hash_serialized_3 hash type cannot be queried for a specific block")
		case !useIndex:
			return nil, fail(jsonrpc.InvalidParameter,
				"Cannot set use_index to false when querying for a specific block")
		}
		if e, err = a.hashOrHeight(c.Any(1)); err != nil {
			return nil, err
		}
	}
	if x == nil || !useIndex {
		return a.countCoins(ctx, h, name)
	}
	if !x.Wait(ctx) && e.Height > x.Status().Height {
		return nil, fail(jsonrpc.InternalError, "Unable to get data because coinstatsindex is still syncing. "+
			"Current height: %d", x.Status().Height)
	}
	if name == "hash_serialized_3" {
		return a.countCoins(ctx, h, name)
	}
	return a.indexedStats(x, e, name)
}

func (a *API) indexedStats(x *index.CoinStatsIndex, e chain.Entry, name string) (any, error) {
	s, err := x.Stats(e.Hash)
	var before index.CoinStats
	if err == nil && e.Height > 0 {
		before, err = x.Stats(e.Header.PrevBlock)
	}
	if err != nil {
		return nil, fail(jsonrpc.InternalError, "Unable to read UTXO set")
	}
	o := object{{"height", e.Height}, {"bestblock", e.Hash}, {"txouts", s.Outputs}, {"bogosize", s.BogoSize}}
	if name != "" {
		o.Set(name, s.MuHash)
	}
	u, old := s.Unspendable, before.Unspendable
	o.Set("total_amount", s.Amount).Set("total_unspendable_amount", u.Sum())
	o.Set("block_info", object{
		{"prevout_spent", bitcoin.Amount(s.Spent - before.Spent)},
		{"coinbase", bitcoin.Amount(s.Coinbase - before.Coinbase)},
		{"new_outputs_ex_coinbase", bitcoin.Amount(s.Created - before.Created)},
		{"unspendable", u.Sum() - old.Sum()},
		{"unspendables", object{
			{"genesis_block", u.Genesis - old.Genesis}, {"bip30", u.BIP30 - old.BIP30},
			{"scripts", u.Scripts - old.Scripts}, {"unclaimed_rewards", u.Unclaimed - old.Unclaimed}}},
	})
	return o, nil
}

// countCoins goes through all coins.
func (a *API) countCoins(ctx context.Context, h coinsHash, name string) (any, error) {
	var txs, outs int64
	var size uint64
	var total bitcoin.Amount
	var last bitcoin.Hash
	var buf []byte
	best, err := a.cfg.Coins.All(ctx, func(out bitcoin.OutPoint, coin consensus.Coin) error {
		if outs == 0 || out.TxID != last {
			txs, last = txs+1, out.TxID
		}
		outs++
		size += index.BogoSize(len(coin.Out.Script))
		total += coin.Out.Value
		if h != nil {
			buf = index.AppendCoin(buf[:0], out, &coin)
			h.add(buf)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	e, _ := a.chain.Lookup(best)
	o := object{{"height", e.Height}, {"bestblock", best}, {"txouts", outs}, {"bogosize", size}}
	if h != nil {
		o.Set(name, h.sum())
	}
	o.Set("total_amount", total).Set("transactions", txs)
	disk := int64(0)
	if a.cfg.Files != nil {
		disk = a.cfg.Files.CoinBytes()
	}
	return *o.Set("disk_size", disk), nil
}

func (a *API) scanTxOutSet(ctx context.Context, c call) (any, error) {
	switch action := c.String(0, ""); action {
	case "status":
		if s, ok := a.coinScan.status(); ok {
			return object{{"progress", s.percent}}, nil
		}
		return nil, nil
	case "abort":
		return a.coinScan.stop(), nil
	case "start":
	default:
		return nil, fail(jsonrpc.InvalidParameter, "Invalid action '%s'", action)
	}
	if err := a.coinScan.begin(); err != nil {
		return nil, err
	}
	defer a.coinScan.end()
	if c.Len() < 2 {
		return nil, fail(jsonrpc.MiscError, "scanobjects argument is required for the start action")
	}
	if !c.Has(1) {
		return nil, fail(jsonrpc.TypeError, "JSON value of type null is not of expected type array")
	}
	wanted, err := a.scanObjects(c.Array(1))
	if err != nil {
		return nil, err
	}
	unspents, count := []any{}, 0
	var total bitcoin.Amount
	best, err := a.cfg.Coins.All(ctx, func(out bitcoin.OutPoint, coin consensus.Coin) error {
		if count%8192 == 0 {
			// Coins come in the order of their transactions' ids.
			high := int64(out.TxID[0])<<8 | int64(out.TxID[1])
			if !a.coinScan.at(int((high*100+32768)>>16), 0) {
				return errAborted
			}
		}
		count++
		desc, ok := wanted[string(coin.Out.Script)]
		if !ok {
			return nil
		}
		total += coin.Out.Value
		unspents = append(unspents, object{{"txid", out.TxID}, {"vout", out.Index},
			{"scriptPubKey", jsonrpc.Hex(append([]byte(nil), coin.Out.Script...))}, {"desc", desc},
			{"amount", coin.Out.Value}, {"coinbase", coin.Coinbase}, {"height", coin.Height}})
		return nil
	})
	aborted := errors.Is(err, errAborted)
	if err != nil && !aborted {
		return nil, err
	}
	e, _ := a.chain.Lookup(best)
	for i, u := range unspents {
		o := u.(object)
		h := o.Get("height").(bitcoin.Height)
		in, _ := a.chain.Ancestor(best, h)
		unspents[i] = append(o, object{{"blockhash", in.Hash}, {"confirmations", int(e.Height-h) + 1}}...)
	}
	return object{{"success", !aborted}, {"txouts", count}, {"height", e.Height}, {"bestblock", best},
		{"unspents", unspents}, {"total_amount", total}}, nil
}
