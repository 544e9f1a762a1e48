package rpc

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/index"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
)

func (a *API) indexMethods() []jsonrpc.Method {
	return []jsonrpc.Method{
		{Category: "util", Name: "getindexinfo", Params: "index_name:s?", Run: run(a.getIndexInfo),
			Doc: "Returns the status of one or all available indices currently running in the node."},
		{Category: "blockchain", Name: "getblockfilter", Params: "blockhash:h filtertype:s?",
			Run: a.getBlockFilter, Doc: "Retrieve a BIP 157 content filter for a particular block."},
		{Category: "blockchain", Name: "getblockstats", Params: "hash_or_height:v stats:a?",
			Run: a.getBlockStats, Doc: "Compute per block statistics for a given window. All amounts " +
				"are in satoshis. It won't work for some heights with pruning."},
	}
}

func (a *API) getIndexInfo(c call) (any, error) {
	out := object{}
	for _, x := range a.cfg.Indexes.All() {
		s := x.Status()
		if c.Has(0) && c.String(0, "") != "" && c.String(0, "") != s.Name {
			continue
		}
		out.Set(s.Name, object{{"synced", s.Synced}, {"best_block_height", s.Height}})
	}
	return out, nil
}

// txIndex and its kin return an index, or nil.
func (a *API) txIndex() *index.TxIndex {
	if a.cfg.Indexes == nil {
		return nil
	}
	return a.cfg.Indexes.Tx
}

func (a *API) filterIndex() *index.FilterIndex {
	if a.cfg.Indexes == nil {
		return nil
	}
	return a.cfg.Indexes.Filters
}

func (a *API) coinStatsIndex() *index.CoinStatsIndex {
	if a.cfg.Indexes == nil {
		return nil
	}
	return a.cfg.Indexes.CoinStats
}

// filters returns the index of a type of filters.
func (a *API) filters(kind string) (*index.FilterIndex, error) {
	if kind != "basic" {
		return nil, fail(jsonrpc.InvalidAddressOrKey, "Unknown filtertype")
	}
	x := a.filterIndex()
	if x == nil {
		return nil, fail(jsonrpc.MiscError, "Index is not enabled for filtertype %s", kind)
	}
	return x, nil
}

// filtersOfPeers reports whether filters are those that peers have: the node has no blocks to make its own of.
func (a *API) filtersOfPeers() bool {
	return a.p2p != nil && a.filterIndex() == nil && a.chain.HeadersOnly()
}

// fetchedFilter is getblockfilter where filters are those that peers have. The header of the filter is what
// up to three peers agree on.
func (a *API) fetchedFilter(ctx context.Context, hash bitcoin.Hash) (any, error) {
	e, err := a.lookup(hash)
	if err != nil {
		return nil, err
	}
	f, err := a.p2p.FetchFilter(ctx, e)
	if err != nil {
		return nil, fail(jsonrpc.MiscError, "Filter not found. %v", err)
	}
	return object{{"filter", jsonrpc.Hex(f.Filter)}, {"header", f.Header}}, nil
}

func (a *API) getBlockFilter(ctx context.Context, c call) (any, error) {
	if c.String(1, "basic") == "basic" && a.filtersOfPeers() {
		return a.fetchedFilter(ctx, c.Hash(0))
	}
	x, err := a.filters(c.String(1, "basic"))
	if err != nil {
		return nil, err
	}
	e, err := a.lookup(c.Hash(0))
	if err != nil {
		return nil, err
	}
	ready := x.Wait(ctx)
	filter, err := x.Read(e.Hash)
	header, ok := x.FilterHeader(e.Hash)
	if err != nil || !ok {
		code, text := missingFilter(e, ready)
		return nil, fail(code, "%s", text)
	}
	return object{{"filter", jsonrpc.Hex(filter)}, {"header", header}}, nil
}

// missingFilter says why there is no filter of a block.
func missingFilter(e chain.Entry, ready bool) (jsonrpc.Code, string) {
	const text = "Filter not found."
	switch {
	case !e.Active && !connected(e):
		return jsonrpc.InvalidAddressOrKey, text + " Block was not connected to active chain."
	case !ready:
		return jsonrpc.MiscError, text + " Block filters are still in the process of being indexed."
	}
	return jsonrpc.InternalError, text + " This error is unexpected and indicates index corruption."
}

// connected reports whether a block has been part of the best chain.
func connected(e chain.Entry) bool { return e.Status&blockstore.Verified != 0 }

// txByID returns a transaction of the mempool or, with an index, of the chain, and then its block (Core's
// GetTransaction).
func (a *API) txByID(txid bitcoin.Hash) (tx *bitcoin.Tx, block bitcoin.Hash, err error) {
	if tx := a.poolTx(txid); tx != nil {
		return tx, block, nil
	}
	x := a.txIndex()
	if x == nil {
		return nil, block, nil
	}
	tx, block, err = x.Tx(txid)
	if errors.Is(err, index.ErrNotFound) {
		err = nil
	}
	return tx, block, err
}

// hashOrHeight returns the block that an argument names by its hash, or by its height on the best chain.
func (a *API) hashOrHeight(v any) (chain.Entry, error) {
	if _, isNumber := v.(json.Number); !isNumber {
		h, err := jsonrpc.ParseHash(v, "hash_or_height")
		if err != nil {
			return chain.Entry{}, err
		}
		return a.lookup(h)
	}
	h, ok := jsonInt(v)
	tip := a.chain.Tip().Height
	switch {
	case !ok || h > 1<<31-1 || h < -1<<31:
		return chain.Entry{}, fail(jsonrpc.MiscError, "JSON integer out of range")
	case h < 0:
		return chain.Entry{}, fail(jsonrpc.InvalidParameter, "Target block height %d is negative", h)
	case h > int64(tip):
		return chain.Entry{}, fail(jsonrpc.InvalidParameter, "Target block height %d after current tip %d", h, tip)
	}
	e, ok := a.chain.AtHeight(bitcoin.Height(h))
	if !ok {
		return e, fail(jsonrpc.InvalidAddressOrKey, "Block not found")
	}
	return e, nil
}
