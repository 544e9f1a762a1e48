package rpc

import (
	"context"
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
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
		{Category: "blockchain", Name: "getmempoolcluster", Params: "txid:h",
			Run: run(a.getMempoolCluster), Doc: "Returns mempool data for given cluster."},
		{Category: "hidden", Name: "getmempoolfeeratediagram", Run: run(a.getMempoolDiagram),
			Doc: "Returns the feerate diagram for the whole mempool."},
		{Category: "blockchain", Name: "getmempoolancestors", Params: "txid:h verbose:b?",
			Run: a.relatives((*mempool.Pool).Ancestors),
			Doc: "If txid is in the mempool, returns all in-mempool ancestors."},
		{Category: "blockchain", Name: "getmempooldescendants", Params: "txid:h verbose:b?",
			Run: a.relatives((*mempool.Pool).Descendants),
			Doc: "If txid is in the mempool, returns all in-mempool descendants."},
		{Category: "blockchain", Name: "gettxspendingprevout", Params: "outputs:a",
			Usage: `[{"txid":"hex","vout":n},...]`,
			Run:   run(a.getTxSpendingPrevout),
			Doc:   "Scans the mempool to find transactions spending any of the given outputs."},
		{Category: "blockchain", Name: "savemempool", Run: run(a.saveMempool),
			Doc: "Dumps the mempool to disk. It will fail until the previous dump is fully loaded."},
		{Category: "blockchain", Name: "importmempool", Params: "filepath:s options:o? " +
			"options.use_current_time:b? options.apply_fee_delta_priority:b? options.apply_unbroadcast_set:b?",
			Run: a.importMempool,
			Doc: "Import a mempool.dat file and attempt to add its contents to the mempool."},
		{Category: "hidden", Name: "getorphantxs", Params: "verbosity:v?", Run: run(a.getOrphanTxs),
			Doc: "Shows transactions in the tx orphanage."},
	}
}

func (a *API) getMempoolInfo(call) (any, error) {
	var o object
	now := a.now()
	loaded := a.mempoolLoaded()
	a.withPool(func(p *mempool.Pool) {
		cfg := p.Config()
		relay := bitcoin.Amount(max(cfg.MinRelayFee, 0))
		o = object{
			{"loaded", loaded}, {"size", p.Len()}, {"bytes", p.VSize()}, {"usage", p.Usage()},
			{"total_fee", p.Fees()}, {"maxmempool", cfg.MaxBytes},
			{"mempoolminfee", max(bitcoin.Amount(p.MinFee(now)), relay)}, {"minrelaytxfee", relay},
			{"incrementalrelayfee", bitcoin.Amount(max(cfg.IncrementalFee, 0))},
			{"unbroadcastcount", p.Unbroadcast()}, {"fullrbf", true},
			{"permitbaremultisig", !cfg.RefuseBareMultisig},
			{"maxdatacarriersize", max(cfg.MaxDataCarrier, 0)},
			{"limitclustercount", cfg.MaxClusterCount}, {"limitclustersize", cfg.MaxClusterVSize},
		}
	})
	return o, nil
}

func (a *API) mempoolLoaded() bool { return a.cfg.Loaded == nil || a.cfg.Loaded() }

func (a *API) saveMempool(call) (any, error) {
	if !a.mempoolLoaded() {
		return nil, fail(jsonrpc.MiscError, "The mempool was not loaded yet")
	}
	if err := a.chain.SaveMempool(a.cfg.MempoolFile, a.cfg.PlainMempool); err != nil {
		return nil, fail(jsonrpc.MiscError, "Unable to dump mempool to disk")
	}
	return object{{"filename", a.cfg.MempoolFile}}, nil
}

func (a *API) importMempool(ctx context.Context, c call) (any, error) {
	if a.initialDownload() {
		return nil, fail(jsonrpc.InInitialDownload,
			"Can only import the mempool after the block download and sync is done.")
	}
	opts := chain.ImportOptions{CurrentTime: true}
	for _, o := range []struct {
		name string
		to   *bool
	}{{"use_current_time", &opts.CurrentTime}, {"apply_fee_delta_priority", &opts.Deltas},
		{"apply_unbroadcast_set", &opts.Unbroadcast}} {
		switch v := c.Object(1).Get(o.name).(type) {
		case nil:
		case bool:
			*o.to = v
		default:
			return nil, fail(jsonrpc.TypeError, "JSON value of type %s is not of expected type bool",
				jsonrpc.TypeName(v))
		}
	}
	if err := a.chain.LoadMempool(ctx, c.String(0, ""), opts); err != nil {
		return nil, fail(jsonrpc.MiscError, "Unable to import mempool file, see debug.log for details.")
	}
	return object{}, nil
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
		out = listing(p, p.Sorted(), verbose)
		if sequence {
			out = object{{"txids", out}, {"mempool_sequence", p.Sequence()}}
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

func (a *API) getMempoolCluster(c call) (out any, err error) {
	err = errNotInPool
	a.withPool(func(p *mempool.Pool) {
		e := p.Get(c.Hash(0))
		if e == nil {
			return
		}
		var weight int64
		count, chunks := 0, []any{}
		for ch := range p.Chunks(e) {
			weight += ch.Weight
			count += len(ch.Txs)
			txs := make([]any, 0, len(ch.Txs))
			for _, e := range ch.Txs {
				txs = append(txs, e.TxID)
			}
			chunks = append(chunks,
				object{{"chunkfee", ch.Fee}, {"chunkweight", ch.Weight}, {"txs", txs}})
		}
		out, err = object{{"clusterweight", weight}, {"txcount", count}, {"chunks", chunks}}, nil
	})
	return out, err
}

func (a *API) getMempoolDiagram(call) (any, error) {
	out := []any{}
	a.withPool(func(p *mempool.Pool) {
		for _, sum := range p.Diagram() {
			out = append(out, object{{"weight", sum.Weight}, {"fee", sum.Fee}})
		}
	})
	return out, nil
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
		if err := checkMembers(o, member{"txid", "string"}, member{"vout", "number"}); err != nil {
			return nil, err
		}
		h, err := jsonrpc.ParseHash(o.Get("txid"), "txid")
		if err != nil {
			return nil, err
		}
		n, ok := jsonInt(o.Get("vout"))
		if !ok {
			return nil, fail(jsonrpc.MiscError, "JSON integer out of range")
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

// member is a member that an object must have, and of which type.
type member struct{ name, kind string }

// checkMembers wants an object to have certain members and no others (Core's RPCTypeCheckObj).
func checkMembers(o object, members ...member) error {
	if err := haveMembers(o, members...); err != nil {
		return err
	}
	for _, have := range o {
		if !slices.ContainsFunc(members, func(m member) bool { return m.name == have.Name }) {
			return fail(jsonrpc.TypeError, "Unexpected key %s", have.Name)
		}
	}
	return nil
}

func haveMembers(o object, members ...member) error {
	for _, m := range members {
		v := o.Get(m.name)
		if !o.Has(m.name) || v == nil {
			return fail(jsonrpc.TypeError, "Missing %s", m.name)
		}
		if kind := jsonrpc.TypeName(v); kind != m.kind {
			return fail(jsonrpc.TypeError, "JSON value of type %s for field %s is not of expected type %s",
				kind, m.name, m.kind)
		}
	}
	return nil
}

func (a *API) getOrphanTxs(c call) (any, error) {
	if _, isBool := c.Any(0).(bool); isBool {
		return nil, fail(jsonrpc.TypeError, "Verbosity was boolean but only integer allowed")
	}
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
