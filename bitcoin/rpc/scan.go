package rpc

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/index"
	"github.com/tallypost/tallypost/bitcoin/mempool"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
)

func (a *API) scanMethods() []jsonrpc.Method {
	return []jsonrpc.Method{
		{Category: "blockchain", Name: "scanblocks",
			Params: "action:s scanobjects[]:a? start_height:I? stop_height:I? filtertype:s? options:o? " +
				"options.filter_false_positives:b?", Run: a.scanBlocks,
			Doc: "Return relevant blockhashes for given descriptors (requires blockfilterindex). This call " +
				"may take several minutes. Make sure to use no RPC timeout (bitcoin-cli -rpcclienttimeout=0)"},
		{Category: "blockchain", Name: "getdescriptoractivity",
			Params: "blockhashes:a scanobjects[]:a include_mempool:b?",
			Usage:  `["blockhash",...] [scanobjects,...] ( include_mempool )`,
			Run:    a.getDescriptorActivity,
			Doc: "Get spend and receive activity associated with a set of descriptors for a set of blocks. " +
				"This command pairs well with the `relevant_blocks` output of `scanblocks()`."},
	}
}

// errAborted ends a scan that somebody does not want to go on.
var errAborted = errors.New("scan aborted")

// scan is a long search, of which there is one at a time.
type scan struct {
	mu      sync.Mutex // guards what follows
	running bool
	aborted bool
	now     scanStatus
}

type scanStatus struct {
	percent int
	height  bitcoin.Height
}

func (s *scan) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running {
		return fail(jsonrpc.InvalidParameter, `Scan already in progress, use action "abort" or "status"`)
	}
	s.running, s.aborted, s.now = true, false, scanStatus{}
	return nil
}

func (s *scan) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = false
}

// at notes how far the scan is, and reports whether it is to go on.
func (s *scan) at(percent int, h bitcoin.Height) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = scanStatus{percent, h}
	return !s.aborted
}

func (s *scan) status() (scanStatus, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now, s.running
}

// stop ends the scan, and reports whether there was one.
func (s *scan) stop() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborted = true
	return s.running
}

func (a *API) scanBlocks(ctx context.Context, c call) (any, error) {
	switch action := c.String(0, ""); action {
	case "status":
		if s, ok := a.blockScan.status(); ok {
			return object{{"progress", s.percent}, {"current_height", s.height}}, nil
		}
		return nil, nil
	case "abort":
		return a.blockScan.stop(), nil
	case "start":
	default:
		return nil, fail(jsonrpc.InvalidParameter, "Invalid action '%s'", action)
	}
	if err := a.blockScan.begin(); err != nil {
		return nil, err
	}
	defer a.blockScan.end()
	x, err := a.filters(c.String(4, "basic"))
	if err != nil {
		return nil, err
	}
	from, to, err := a.scanRange(c)
	if err != nil {
		return nil, err
	}
	if !c.Has(1) {
		return nil, fail(jsonrpc.TypeError, "JSON value of type null is not of expected type array")
	}
	wanted, err := a.scanObjects(c.Array(1))
	if err != nil {
		return nil, err
	}
	b := blockScan{api: a, x: x, wanted: wanted, from: from.Height, to: to}
	for s := range wanted {
		b.elements = append(b.elements, []byte(s))
	}
	exact, _ := c.Object(5).Get("filter_false_positives").(bool)
	completed, err := b.run(ctx, exact)
	if err != nil {
		return nil, err
	}
	return object{{"from_height", b.from}, {"to_height", b.last}, {"relevant_blocks", b.found},
		{"completed", completed}}, nil
}

// scanRange reads which blocks are to be searched.
func (a *API) scanRange(c call) (from, to chain.Entry, err error) {
	at := func(i int) (chain.Entry, bool) {
		h := c.Int(i, -1)
		if h < 0 || h > 1<<31-1 {
			return chain.Entry{}, false
		}
		return a.chain.AtHeight(bitcoin.Height(h))
	}
	from, _ = a.chain.AtHeight(0)
	to = a.chain.Tip()
	ok := true
	if c.Has(2) {
		if from, ok = at(2); !ok {
			return from, to, fail(jsonrpc.MiscError, "Invalid start_height")
		}
	}
	if c.Has(3) {
		if to, ok = at(3); !ok || to.Height < from.Height {
			return from, to, fail(jsonrpc.MiscError, "Invalid stop_height")
		}
	}
	return from, to, nil
}

// blockScan searches filters.
type blockScan struct {
	api      *API
	x        *index.FilterIndex
	wanted   map[string]string
	elements [][]byte
	from     bitcoin.Height
	to       chain.Entry
	last     bitcoin.Height // searched
	found    []bitcoin.Hash
}

func (b *blockScan) run(ctx context.Context, exact bool) (completed bool, err error) {
	const portion = 1000
	b.last, b.found = b.from, []bitcoin.Hash{}
	for next := b.from; next <= b.to.Height; {
		path := b.api.chain.Path(b.to.Hash, next, portion)
		for _, e := range path {
			done := 100
			if all := b.to.Height - b.from; all > 0 {
				done = int(int64(e.Height-b.from) * 100 / int64(all))
			}
			if !b.api.blockScan.at(done, e.Height) || ctx.Err() != nil {
				return false, nil
			}
			if err := b.block(ctx, e, exact); err != nil {
				return false, err
			}
			b.last = e.Height
		}
		next += bitcoin.Height(len(path))
	}
	return true, nil
}

func (b *blockScan) block(ctx context.Context, e chain.Entry, exact bool) error {
	filter, err := b.x.Read(e.Hash)
	if errors.Is(err, index.ErrNotFound) { // not indexed yet
		return nil
	}
	if err != nil {
		return fail(jsonrpc.InternalError, "%v", err)
	}
	match, err := index.MatchFilter(filter, e.Hash, b.elements)
	if err != nil || !match {
		return err
	}
	if exact {
		blk, err := b.api.parsedBlock(ctx, e)
		if err != nil {
			return err
		}
		undo, err := b.api.spentBy(e)
		if err != nil {
			return err
		}
		has := func(s []byte) bool { _, ok := b.wanted[string(s)]; return ok }
		if !slices.ContainsFunc(index.Elements(blk, undo), has) {
			return nil
		}
	}
	b.found = append(b.found, e.Hash)
	return nil
}

func (a *API) getDescriptorActivity(ctx context.Context, c call) (any, error) {
	var blocks []chain.Entry
	for _, v := range c.Array(0) {
		h, err := jsonrpc.ParseHash(v, "blockhash")
		if err != nil {
			return nil, err
		}
		e, err := a.lookup(h)
		if err != nil {
			return nil, err
		}
		if !e.Active {
			return nil, fail(jsonrpc.InvalidParameter, "Block is not in main chain")
		}
		blocks = append(blocks, e)
	}
	slices.SortFunc(blocks, func(a, b chain.Entry) int { return int(a.Height) - int(b.Height) })
	blocks = slices.CompactFunc(blocks, func(a, b chain.Entry) bool { return a.Hash == b.Hash })
	wanted, err := a.scanObjects(c.Array(1))
	if err != nil {
		return nil, err
	}
	f := activity{api: a, wanted: wanted, events: []any{}}
	for i := range blocks {
		if err := f.block(ctx, &blocks[i]); err != nil {
			return nil, err
		}
	}
	if c.Bool(2, true) {
		if err := f.mempool(); err != nil {
			return nil, err
		}
	}
	return object{{"activity", f.events}}, nil
}

// activity gathers where some scripts receive and spend.
type activity struct {
	api    *API
	wanted map[string]string
	events []any
}

func (f *activity) block(ctx context.Context, e *chain.Entry) error {
	b, err := f.api.parsedBlock(ctx, *e)
	if err != nil {
		return err
	}
	undo, err := f.api.spentBy(*e)
	if err != nil {
		return err
	}
	at := 0
	for i := range b.Txs {
		tx := &b.Txs[i]
		if i > 0 {
			for j := range tx.In {
				f.spend(tx, j, &undo.Outs[at+j], e)
			}
			at += len(tx.In)
		}
		f.receive(tx, e)
	}
	return nil
}

func (f *activity) mempool() error {
	var txs []*bitcoin.Tx
	f.api.withPool(func(p *mempool.Pool) {
		for _, e := range p.Sorted() {
			txs = append(txs, e.Tx)
		}
	})
	byID := map[bitcoin.Hash]*bitcoin.Tx{}
	for _, tx := range txs {
		byID[tx.TxID()] = tx
	}
	for _, tx := range txs {
		for j := range tx.In {
			out := tx.In[j].PrevOut
			if parent := byID[out.TxID]; parent != nil && int(out.Index) < len(parent.Out) {
				f.spend(tx, j, &parent.Out[out.Index], nil)
				continue
			}
			coin, err := f.api.chain.Coin(out, false)
			if err != nil {
				return err
			}
			if !coin.IsSpent() { // else a block took both of them meanwhile
				f.spend(tx, j, &coin.Out, nil)
			}
		}
		f.receive(tx, nil)
	}
	return nil
}

func (f *activity) event(kind string, amount bitcoin.Amount, in *chain.Entry) object {
	o := object{{"type", kind}, {"amount", amount}}
	if in != nil {
		o.Set("blockhash", in.Hash).Set("height", in.Height)
	}
	return o
}

func (f *activity) spend(tx *bitcoin.Tx, input int, out *bitcoin.TxOut, in *chain.Entry) {
	if _, ok := f.wanted[string(out.Script)]; !ok {
		return
	}
	prev := tx.In[input].PrevOut
	o := f.event("spend", out.Value, in)
	o.Set("spend_txid", tx.TxID()).Set("spend_vin", input)
	o.Set("prevout_txid", prev.TxID).Set("prevout_vout", prev.Index)
	f.events = append(f.events, *o.Set("prevout_spk", f.api.scriptJSON(out.Script, true)))
}

func (f *activity) receive(tx *bitcoin.Tx, in *chain.Entry) {
	for j := range tx.Out {
		if _, ok := f.wanted[string(tx.Out[j].Script)]; !ok {
			continue
		}
		o := f.event("receive", tx.Out[j].Value, in)
		o.Set("txid", tx.TxID()).Set("vout", j)
		f.events = append(f.events, *o.Set("output_spk", f.api.scriptJSON(tx.Out[j].Script, true)))
	}
}
