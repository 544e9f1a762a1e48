package rpc

import (
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/mempool"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
)

func (a *API) mempoolMethods() []jsonrpc.Method {
	return []jsonrpc.Method{
		{Category: "blockchain", Name: "getmempoolinfo", Run: run(a.getMempoolInfo),
			Doc: "Returns details on the active state of the TX memory pool."},
		{Category: "blockchain", Name: "getrawmempool", Params: "verbose:b? mempool_sequence:b?",
			Run: run(a.getRawMempool), Doc: "Returns all transaction ids in memory pool."},
		{Category: "blockchain", Name: "getmempoolentry", Params: "txid:h", Run: run(a.getMempoolEntry),
			Doc: "Returns mempool data for given transaction."},
		{Category: "blockchain", Name: "getmempoolancestors", Params: "txid:h verbose:b?",
			Run: a.relatives((*mempool.Pool).Ancestors),
			Doc: "If txid is in the mempool, returns all in-mempool ancestors."},
		{Category: "blockchain", Name: "getmempooldescendants", Params: "txid:h verbose:b?",
			Run: a.relatives((*mempool.Pool).Descendants),
			Doc: "If txid is in the mempool, returns all in-mempool descendants."},
		{Category: "blockchain", Name: "gettxspendingprevout", Params: "outputs:a",
			Run: run(a.getTxSpendingPrevout),
			Doc: "Scans the mempool to find transactions spending any of the given outputs."},
		{Category: "hidden", Name: "getorphantxs", Params: "verbosity:v?", Run: run(a.getOrphanTxs),
			Doc: "Shows transactions in the tx orphanage."},
	}
}

func (a *API) getMempoolInfo(call) (any, error) {
	var o object
	now := a.now()
	loaded := a.cfg.Loaded == nil || a.cfg.Loaded()
	a.withPool(func(p *mempool.Pool) {
		cfg := p.Config()
		unsent := 0
		p.All(func(e *mempool.Entry) bool {
			if e.Unbroadcast() {
				unsent++
			}
			return true
		})
		relay := bitcoin.Amount(max(cfg.MinRelayFee, 0))
		o = object{
			{"loaded", loaded}, {"size", p.Len()}, {"bytes", p.VSize()}, {"usage", p.Usage()},
			{"total_fee", p.Fees()}, {"maxmempool", cfg.MaxBytes},
			{"mempoolminfee", max(bitcoin.Amount(p.MinFee(now)), relay)}, {"minrelaytxfee", relay},
			{"incrementalrelayfee", bitcoin.Amount(max(cfg.IncrementalFee, 0))},
			{"unbroadcastcount", unsent}, {"fullrbf", true},
			{"permitbaremultisig", !cfg.RefuseBareMultisig},
			{"maxdatacarriersize", max(cfg.MaxDataCarrier, 0)},
			{"limitclustercount", cfg.MaxClusterCount}, {"limitclustersize", cfg.MaxClusterVSize},
			{"optimal", true},
		}
	})
	return o, nil
}

// sums returns the number, size and fees of entries.
func sums(list []*mempool.Entry) (count, size int, fees bitcoin.Amount) {
	for _, e := range list {
		size += e.VSize()
		fees += e.ModifiedFee()
	}
	return len(list), size, fees
}

func entryJSON(p *mempool.Pool, e *mempool.Entry) object {
	dc, ds, df := sums(p.Descendants(e))
	ac, as, af := sums(p.Ancestors(e))
	chunk := p.Chunk(e)
	return object{
		{"vsize", e.VSize()}, {"weight", e.Tx.Weight()}, {"time", e.Time.Unix()}, {"height", e.Height},
		{"descendantcount", dc}, {"descendantsize", ds}, {"ancestorcount", ac}, {"ancestorsize", as},
		{"wtxid", e.WTxID}, {"chunkweight", chunk.Weight},
		{"fees", object{{"base", e.Fee}, {"modified", e.ModifiedFee()}, {"ancestor", af},
			{"descendant", df}, {"chunk", chunk.Fee}}},
		{"depends", ids(e.Parents())}, {"spentby", ids(e.Children())},
		{"bip125-replaceable", replaceable(p, e)}, {"unbroadcast", e.Unbroadcast()},
	}
}

func ids(list []*mempool.Entry) []string {
	out := make([]string, 0, len(list))
	for _, e := range list {
		out = append(out, e.TxID.String())
	}
	slices.Sort(out)
	return out
}

// replaceable reports whether a transaction or one that it depends on signals by BIP 125.
func replaceable(p *mempool.Pool, e *mempool.Entry) bool {
	for _, x := range p.Ancestors(e) {
		for i := range x.Tx.In {
			if x.Tx.In[i].Sequence <= 0xfffffffd {
				return true
			}
		}
	}
	return false
}

// listing returns entries by id, or described.
func listing(p *mempool.Pool, list []*mempool.Entry, verbose bool) any {
	if !verbose {
		out := make([]any, 0, len(list))
		for _, e := range list {
			out = append(out, e.TxID)
		}
		return out
	}
	out := object{}
	for _, e := range list {
		out.Set(e.TxID.String(), entryJSON(p, e))
	}
	return out
}

func (a *API) getRawMempool(c call) (any, error) {
	verbose, sequence := c.Bool(0, false), c.Bool(1, false)
	if verbose && sequence {
		return nil, fail(jsonrpc.InvalidParameter, "Verbose results cannot contain mempool sequence values.")
	}
	var out any
	a.withPool(func(p *mempool.Pool) {
		var list []*mempool.Entry
		p.All(func(e *mempool.Entry) bool {
			list = append(list, e)
			return true
		})
		slices.SortFunc(list, func(x, y *mempool.Entry) int {
			if p.Less(x, y) {
				return -1
			}
			return 1
		})
		out = listing(p, list, verbose)
		if sequence {
			out = object{{"txids", out}, {"mempool_sequence", p.Sequence() + 1}}
		}
	})
	return out, nil
}

var errNotInPool = fail(jsonrpc.InvalidAddressOrKey, "Transaction not in mempool")

func (a *API) getMempoolEntry(c call) (out any, err error) {
	err = errNotInPool
	a.withPool(func(p *mempool.Pool) {
		if e := p.Get(c.Hash(0)); e != nil {
			out, err = entryJSON(p, e), nil
		}
	})
	return out, err
}

func (a *API) relatives(of func(*mempool.Pool, *mempool.Entry) []*mempool.Entry) methodBody {
	return run(func(c call) (out any, err error) {
		err = errNotInPool
		a.withPool(func(p *mempool.Pool) {
			e := p.Get(c.Hash(0))
			if e == nil {
				return
			}
			list := slices.DeleteFunc(slices.Clone(of(p, e)), func(x *mempool.Entry) bool { return x == e })
			out, err = listing(p, list, c.Bool(1, false)), nil
		})
		return out, err
	})
}

func (a *API) getTxSpendingPrevout(c call) (any, error) {
	if len(c.Array(0)) == 0 {
		return nil, fail(jsonrpc.InvalidParameter, "Invalid parameter, outputs are missing")
	}
	var outs []bitcoin.OutPoint
	for _, v := range c.Array(0) {
		o, ok := v.(object)
		if !ok {
			return nil, fail(jsonrpc.TypeError, "JSON value of type %s is not of expected type object",
				jsonrpc.TypeName(v))
		}
		for _, m := range o {
			if m.Name != "txid" && m.Name != "vout" {
				return nil, fail(jsonrpc.TypeError, "Unexpected key %s", m.Name)
			}
		}
		if !o.Has("txid") || !o.Has("vout") {
			missing := "txid"
			if o.Has("txid") {
				missing = "vout"
			}
			return nil, fail(jsonrpc.TypeError, "Missing %s", missing)
		}
		h, err := jsonrpc.ParseHash(o.Get("txid"), "txid")
		if err != nil {
			return nil, err
		}
		n, ok := jsonInt(o.Get("vout"))
		if !ok {
			return nil, fail(jsonrpc.TypeError, "JSON value of type %s for field vout is not of expected "+
				"type number", jsonrpc.TypeName(o.Get("vout")))
		}
		if n < 0 {
			return nil, fail(jsonrpc.InvalidParameter, "Invalid parameter, vout cannot be negative")
		}
		outs = append(outs, bitcoin.OutPoint{TxID: h, Index: uint32(n)})
	}
	result := []any{}
	a.withPool(func(p *mempool.Pool) {
		for _, out := range outs {
			o := object{{"txid", out.TxID}, {"vout", out.Index}}
			if e := p.Spender(out); e != nil {
				o.Set("spendingtxid", e.TxID)
			}
			result = append(result, o)
		}
	})
	return result, nil
}

func (a *API) getOrphanTxs(c call) (any, error) {
	v, err := verbosity(c.Any(0), 0)
	if err != nil {
		return nil, err
	}
	if v < 0 || v > 2 {
		return nil, fail(jsonrpc.InvalidParameter, "Invalid verbosity value %d", v)
	}
	out := []any{}
	if a.p2p == nil {
		return out, nil
	}
	for _, orphan := range a.p2p.Orphans() {
		tx := orphan.Tx
		if v == 0 {
			out = append(out, tx.TxID())
			continue
		}
		from := []any{}
		for _, id := range orphan.Peers {
			from = append(from, int64(id))
		}
		o := object{{"txid", tx.TxID()}, {"wtxid", tx.WTxID()}, {"bytes", tx.Size()},
			{"vsize", tx.VSize()}, {"weight", tx.Weight()}, {"from", from}}
		if v == 2 {
			o.Set("hex", jsonrpc.Hex(tx.Append(nil)))
		}
		out = append(out, o)
	}
	return out, nil
}
