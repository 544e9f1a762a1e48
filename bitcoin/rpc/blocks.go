package rpc

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/descriptor"
	"github.com/tallypost/tallypost/bitcoin/p2p"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
	"github.com/tallypost/tallypost/bitcoin/script"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

func (a *API) blockMethods() []jsonrpc.Method {
	return []jsonrpc.Method{
		{Category: "blockchain", Name: "getblock", Params: "blockhash:h verbosity|verbose:v?",
			Run: a.getBlock, Doc: "Returns a block: its octets in hexadecimal (verbosity 0), with the " +
				"ids of its transactions (1), the transactions (2), or also what they spend (3)."},
		{Category: "blockchain", Name: "getblockheader", Params: "blockhash:s verbose:b?",
			Run: run(a.getBlockHeader), Doc: "Returns a block header, described or in hexadecimal."},
		{Category: "blockchain", Name: "gettxoutproof", Params: "txids:a blockhash:h?",
			Usage: `["txid",...] ( "blockhash" )`,
			Run:   a.getTxOutProof,
			Doc:   "Returns a hex-encoded proof that \"txid\" was included in a block."},
		{Category: "blockchain", Name: "verifytxoutproof", Params: "proof:s", Run: run(a.verifyTxOutProof),
			Doc: "Verifies that a proof points to a transaction in a block, returning the transaction it " +
				"commits to."},
		{Category: "blockchain", Name: "getblockfrompeer", Params: "blockhash:h peer_id:i",
			Run: run(a.getBlockFromPeer), Doc: "Attempt to fetch block from a given peer."},
	}
}

func isUnknown(err error) bool { return errors.Is(err, chain.ErrUnknownBlock) }

// headerJSON describes a block header.
func (a *API) headerJSON(e chain.Entry) object {
	tip := a.chain.Tip()
	confirmations := -1
	next, hasNext := chain.Entry{}, false
	if e.Active {
		confirmations = int(tip.Height-e.Height) + 1
		if next, hasNext = a.chain.AtHeight(e.Height + 1); hasNext && next.Header.PrevBlock != e.Hash {
			hasNext = false
		}
	}
	h := &e.Header
	o := object{{"hash", e.Hash}, {"confirmations", confirmations}, {"height", e.Height},
		{"version", int64(h.Version)}, {"versionHex", fmt.Sprintf("%08x", uint32(h.Version))},
		{"merkleroot", h.MerkleRoot}, {"time", h.Time}, {"mediantime", e.Median}, {"nonce", h.Nonce},
		{"bits", bitsHex(h.Bits)}, {"target", target(h.Bits)}, {"difficulty", bitcoin.Difficulty(h.Bits)},
		{"chainwork", e.Work.String()}, {"nTx", e.Txs}}
	if e.Height > 0 {
		o.Set("previousblockhash", h.PrevBlock)
	}
	if hasNext {
		o.Set("nextblockhash", next.Hash)
	}
	return o
}

func (a *API) getBlockHeader(c call) (any, error) {
	h, err := jsonrpc.ParseHash(c.String(0, ""), "hash") // as Core calls it in its errors
	if err != nil {
		return nil, err
	}
	e, err := a.lookup(h)
	if err != nil {
		return nil, err
	}
	if !c.Bool(1, true) {
		b := e.Header.Bytes()
		return jsonrpc.Hex(b[:]), nil
	}
	return a.headerJSON(e), nil
}

// verbosity reads an argument that was once a bool.
func verbosity(v any, def int64) (int64, error) {
	switch v := v.(type) {
	case nil:
		return def, nil
	case bool:
		if v {
			return 1, nil
		}
		return 0, nil
	}
	n, ok := jsonInt(v)
	if !ok && jsonrpc.TypeName(v) != "number" {
		return 0, fail(jsonrpc.TypeError, "JSON value of type %s is not of expected type number",
			jsonrpc.TypeName(v))
	}
	if !ok || n != int64(int32(n)) {
		return 0, fail(jsonrpc.MiscError, "JSON integer out of range")
	}
	return n, nil
}

// blockBytes returns the octets of a block. A node that keeps headers alone asks its peers for it.
func (a *API) blockBytes(ctx context.Context, e chain.Entry) ([]byte, error) {
	raw, err := a.chain.RawBlock(e.Hash)
	if a.p2p == nil || !a.chain.HeadersOnly() || !errors.Is(err, chain.ErrNoData) {
		return raw, err
	}
	b, err := a.p2p.FetchBody(ctx, e)
	if err != nil {
		return nil, err
	}
	return b.Append(nil), nil
}

// rawBlock returns the octets of a block, or an error for the caller.
func (a *API) rawBlock(ctx context.Context, e chain.Entry) ([]byte, error) {
	b, err := a.blockBytes(ctx, e)
	switch {
	case errors.Is(err, p2p.ErrNoBlock):
		return nil, fail(jsonrpc.MiscError, "Block not available (%v)", err)
	case errors.Is(err, chain.ErrPruned):
		return nil, fail(jsonrpc.MiscError, "Block not available (pruned data)")
	case errors.Is(err, chain.ErrNoData):
		return nil, fail(jsonrpc.MiscError, "Block not available (not fully downloaded)")
	case err != nil:
		return nil, fail(jsonrpc.MiscError, "Block not found on disk")
	}
	return b, nil
}

func (a *API) getBlock(ctx context.Context, c call) (any, error) {
	v, err := verbosity(c.Any(1), 1)
	if err != nil {
		return nil, err
	}
	e, err := a.lookup(c.Hash(0))
	if err != nil {
		return nil, err
	}
	raw, err := a.rawBlock(ctx, e)
	if err != nil {
		return nil, err
	}
	if v <= 0 {
		return jsonrpc.Hex(raw), nil
	}
	b, err := bitcoin.ParseBlock(raw)
	if err != nil {
		return nil, fail(jsonrpc.MiscError, "Block not found on disk")
	}
	return a.blockJSON(e, b, v)
}

func (a *API) blockJSON(e chain.Entry, b *bitcoin.Block, v int64) (any, error) {
	e.Txs = uint32(len(b.Txs)) // not known of a header alone
	o := a.headerJSON(e)
	o.Set("strippedsize", b.BaseSize()).Set("size", b.Size()).Set("weight", b.Weight())
	txs := make([]any, 0, len(b.Txs))
	if v == 1 {
		for i := range b.Txs {
			txs = append(txs, b.Txs[i].TxID())
		}
		return *o.Set("tx", txs), nil
	}
	var undo *consensus.Spent
	if e.Status&blockstore.HaveUndo != 0 {
		u, err := a.chain.Undo(e.Hash)
		if err != nil {
			return nil, fail(jsonrpc.InternalError, "Undo data expected but can't be read. This could be "+
				"due to disk corruption or a conflict with a pruning event.")
		}
		undo = &u
	}
	at := 0
	for i := range b.Txs {
		tx := &b.Txs[i]
		var spent *consensus.Spent
		if undo != nil && i > 0 {
			part := undo.Part(at, at+len(tx.In))
			at += len(tx.In)
			spent = &part
		}
		txs = append(txs, a.txJSON(tx, true, spent, v >= 3))
	}
	return *o.Set("tx", txs), nil
}

// saneScripts reports whether all scripts can be cut into operations: a transaction read in the wrong form
// seldom has such (Core's CheckTxScriptsSanity).
func saneScripts(tx *bitcoin.Tx) bool {
	if !tx.IsCoinbase() {
		for i := range tx.In {
			if !script.HasValidOps(tx.In[i].Script) || len(tx.In[i].Script) > 10_000 {
				return false
			}
		}
	}
	for i := range tx.Out {
		if !script.HasValidOps(tx.Out[i].Script) || len(tx.Out[i].Script) > 10_000 {
			return false
		}
	}
	return true
}

// scriptJSON describes an output script, by known scripts whose hashes it may contain too.
func (a *API) scriptJSON(s []byte, withHex bool, known ...[]byte) object {
	o := object{{"asm", script.Asm(s, false)}, {"desc", descriptor.Infer(a.net, s, known...)}}
	if withHex {
		o.Set("hex", jsonrpc.Hex(s))
	}
	kind, _ := script.Solve(s)
	if addr, ok := a.net.Address(s); ok && kind != script.PubKey {
		o.Set("address", addr)
	}
	o.Set("type", string(kind))
	return o
}

// txJSON describes a transaction; with what it spends, if that is known, its fee, and the coins themselves
// if asked for.
func (a *API) txJSON(tx *bitcoin.Tx, withHex bool, spent *consensus.Spent, prevouts bool) object {
	o := object{{"txid", tx.TxID()}, {"hash", tx.WTxID()}, {"version", tx.Version}, {"size", tx.Size()},
		{"vsize", tx.VSize()}, {"weight", tx.Weight()}, {"locktime", tx.LockTime}}
	ins := make([]any, 0, len(tx.In))
	var sum bitcoin.Amount
	for i := range tx.In {
		var coin *consensus.Coin
		if spent != nil {
			c := spent.Coin(i)
			coin = &c
			sum += c.Out.Value
		}
		if !prevouts {
			coin = nil
		}
		ins = append(ins, a.inputJSON(tx, i, coin))
	}
	o.Set("vin", ins)
	outs := make([]any, 0, len(tx.Out))
	for i := range tx.Out {
		sum -= tx.Out[i].Value
		outs = append(outs, object{{"value", tx.Out[i].Value}, {"n", i},
			{"scriptPubKey", a.scriptJSON(tx.Out[i].Script, true)}})
	}
	o.Set("vout", outs)
	if spent != nil {
		o.Set("fee", sum)
	}
	if withHex {
		o.Set("hex", jsonrpc.Hex(tx.Append(nil)))
	}
	return o
}

func (a *API) inputJSON(tx *bitcoin.Tx, i int, coin *consensus.Coin) object {
	in := &tx.In[i]
	var o object
	if tx.IsCoinbase() {
		o.Set("coinbase", jsonrpc.Hex(in.Script))
	} else {
		o.Set("txid", in.PrevOut.TxID).Set("vout", in.PrevOut.Index)
		o.Set("scriptSig", object{{"asm", script.Asm(in.Script, true)}, {"hex", jsonrpc.Hex(in.Script)}})
	}
	if len(in.Witness) > 0 {
		items := make([]any, len(in.Witness))
		for j, w := range in.Witness {
			items[j] = jsonrpc.Hex(w)
		}
		o.Set("txinwitness", items)
	}
	if coin != nil {
		o.Set("prevout", object{{"generated", coin.Coinbase}, {"height", coin.Height},
			{"value", coin.Out.Value}, {"scriptPubKey", a.scriptJSON(coin.Out.Script, true)}})
	}
	o.Set("sequence", in.Sequence)
	return o
}

func (a *API) getTxOutProof(ctx context.Context, c call) (any, error) {
	list := c.Array(0)
	if len(list) == 0 {
		return nil, fail(jsonrpc.InvalidParameter, "Parameter 'txids' cannot be empty")
	}
	want := map[bitcoin.Hash]bool{}
	for _, v := range list {
		h, err := jsonrpc.ParseHash(v, "txid")
		if err != nil {
			return nil, err
		}
		if want[h] {
			return nil, fail(jsonrpc.InvalidParameter, "Invalid parameter, duplicated txid: %v", v)
		}
		want[h] = true
	}
	e, err := a.blockOf(ctx, c, want)
	if err != nil {
		return nil, err
	}
	b, err := a.parsedBlock(ctx, e)
	if err != nil {
		return nil, err
	}
	found := 0
	m := wire.NewMerkleBlock(b, func(tx *bitcoin.Tx) bool {
		if want[tx.TxID()] {
			found++
			return true
		}
		return false
	})
	if found != len(want) {
		return nil, fail(jsonrpc.InvalidAddressOrKey, "Not all transactions found in specified or retrieved block")
	}
	return jsonrpc.Hex(m.Append(nil)), nil
}

// maxOutputs is more than any transaction has (Core's MAX_OUTPUTS_PER_BLOCK).
const maxOutputs = 4_000_000 / (9 * bitcoin.WitnessScale)

// blockOf returns the block that a proof is about: the one that is named, that of an unspent output, or the
// one that the index of transactions knows.
func (a *API) blockOf(ctx context.Context, c call, want map[bitcoin.Hash]bool) (chain.Entry, error) {
	if c.Has(1) {
		return a.lookup(c.Hash(1))
	}
	if a.txIndex() == nil {
		for txid := range want {
			for i := range uint32(maxOutputs) {
				if i%1000 == 0 && ctx.Err() != nil {
					break
				}
				coin, err := a.chain.Coin(bitcoin.OutPoint{TxID: txid, Index: i}, false)
				if err == nil && !coin.IsSpent() {
					if e, ok := a.chain.AtHeight(coin.Height); ok {
						return e, nil
					}
				}
			}
		}
		return chain.Entry{}, fail(jsonrpc.InvalidAddressOrKey, "Transaction not yet in block")
	}
	a.txIndex().Wait(ctx)
	for txid := range want {
		hash, _, err := a.txIndex().Find(txid)
		if err == nil {
			if e, ok := a.chain.Lookup(hash); ok {
				return e, nil
			}
		}
	}
	return chain.Entry{}, fail(jsonrpc.InvalidAddressOrKey, "Transaction not yet in block")
}

func (a *API) verifyTxOutProof(c call) (any, error) {
	b, err := hex.DecodeString(c.String(0, ""))
	if err != nil {
		return nil, fail(jsonrpc.InvalidParameter, "proof must be hexadecimal string (not '%s')", c.String(0, ""))
	}
	m, err := wire.ParseMerkleBlock(b)
	if errors.Is(err, bitcoin.ErrEndOfData) {
		return nil, fail(jsonrpc.MiscError, "DataStream::read(): end of data: iostream error")
	}
	if err != nil {
		return nil, fail(jsonrpc.MiscError, "%v", err)
	}
	root, matches, err := m.Extract()
	out := []any{}
	if err != nil || root != m.Header.MerkleRoot {
		return out, nil
	}
	e, ok := a.chain.Lookup(m.Header.Hash())
	if !ok || !e.Active || e.Txs == 0 {
		return nil, fail(jsonrpc.InvalidAddressOrKey, "Block not found in chain")
	}
	if e.Txs == m.Leaves { // a node taken for a leaf would make another number
		for _, match := range matches {
			out = append(out, match.ID)
		}
	}
	return out, nil
}

func (a *API) getBlockFromPeer(c call) (any, error) {
	e, ok := a.chain.Lookup(c.Hash(0))
	if !ok {
		return nil, fail(jsonrpc.MiscError, "Block header missing")
	}
	// Fetching blocks before the node has seen them would keep their files from being pruned.
	if target, _ := a.chain.Pruning(); target != 0 && e.Height > a.chain.Tip().Height {
		return nil, fail(jsonrpc.MiscError, "In prune mode, only blocks that the node has already synced "+
			"previously can be fetched from a peer")
	}
	if e.Status&blockstore.HaveData != 0 {
		return nil, fail(jsonrpc.MiscError, "Block already downloaded")
	}
	if err := a.p2p.FetchBlock(peerID(c.Int(1, -1)), e.Hash); err != nil {
		return nil, fail(jsonrpc.MiscError, "%v", err)
	}
	return object{}, nil
}
