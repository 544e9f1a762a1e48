package rpc

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/mempool"
	"github.com/tallypost/tallypost/bitcoin/miner"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
)

// getBlockTemplate serves BIP 22, 23 and 145: a block to work on, or a judgement of one that is proposed.
func (a *API) getBlockTemplate(ctx context.Context, c call) (any, error) {
	req := c.Object(0)
	mode := "template"
	switch m := req.Get("mode").(type) {
	case nil:
	case string:
		mode = m
	default:
		return nil, fail(jsonrpc.InvalidParameter, "Invalid mode")
	}
	if mode == "proposal" {
		return a.proposal(ctx, req)
	}
	if mode != "template" {
		return nil, fail(jsonrpc.InvalidParameter, "Invalid mode")
	}
	var rules []string
	if list, ok := req.Get("rules").([]any); ok {
		for _, v := range list {
			s, ok := v.(string)
			if !ok {
				return nil, fail(jsonrpc.TypeError, "JSON value of type %s is not of expected type string",
					jsonrpc.TypeName(v))
			}
			rules = append(rules, s)
		}
	}
	if a.net.Name == "main" {
		if in, out := a.p2p.Counts(); in+out == 0 {
			return nil, fail(jsonrpc.ClientNotConnected, "Bitcoin Core is not connected!")
		}
		if a.initialDownload() {
			return nil, fail(jsonrpc.InInitialDownload,
				"Bitcoin Core is in initial sync and waiting for blocks...")
		}
	}
	if v := req.Get("longpollid"); v != nil {
		if err := a.longPoll(ctx, v); err != nil {
			return nil, err
		}
	}
	if a.net.SignetChallenge != nil && !slices.Contains(rules, "signet") {
		return nil, fail(jsonrpc.InvalidParameter, "getblocktemplate must be called with the signet rule "+
			`set (call with {"rules": ["segwit", "signet"]})`)
	}
	if !slices.Contains(rules, "segwit") {
		return nil, fail(jsonrpc.InvalidParameter, "getblocktemplate must be called with the segwit rule "+
			`set (call with {"rules": ["segwit"]})`)
	}
	t, changes, err := a.work.get(a.chain.Tip().Hash, a.poolChanges(), a.now(), func() (*miner.Template, error) {
		return a.template(a.cfg.Mining)
	})
	if err != nil {
		return nil, err
	}
	header := t.Block.Header
	miner.UpdateTime(&header, &t.State, a.now())
	return a.templateJSON(t, &header, changes), nil
}

// work is the template that getblocktemplate gives out again and again, for it takes time to make: only
// another tip, or other transactions after some seconds, bring a new one (Bitcoin Core rpc/mining.cpp,
// getblocktemplate). The zero value has none.
type work struct {
	mu       sync.Mutex // guards all below
	template *miner.Template
	changes  uint64 // of the mempool, before the template was made
	made     int64  // in seconds since 1970
}

// workSeconds is how old a template is at least that is replaced because the mempool has changed.
const workSeconds = 5

// get returns the template, which must not be changed, and the changes of the mempool that it goes back
// to. It makes a new one if need be.
func (w *work) get(tip bitcoin.Hash, changes uint64, now time.Time, build func() (*miner.Template, error)) (
	*miner.Template, uint64, error,
) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.template
	if t == nil || t.State.Hash != tip || changes != w.changes && now.Unix()-w.made > workSeconds {
		w.template = nil
		t, err := build()
		if err != nil {
			return nil, 0, err
		}
		w.template, w.changes, w.made = t, changes, now.Unix()
	}
	return w.template, w.changes, nil
}

// last returns the changes of the mempool that the template goes back to.
func (w *work) last() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changes
}

func (a *API) poolChanges() (n uint64) {
	a.withPool(func(p *mempool.Pool) { n = p.Changes() })
	return n
}

// longPoll waits until the tip is another than the one of the id, or the mempool has changed for a minute.
func (a *API) longPoll(ctx context.Context, v any) error {
	tip := a.chain.Tip().Hash
	changes := a.work.last()
	if s, ok := v.(string); ok {
		h, err := jsonrpc.ParseHash(s[:min(64, len(s))], "longpollid")
		if err != nil {
			return err
		}
		tip = h
		changes, _ = strconv.ParseUint(s[64:], 10, 64)
	}
	wake := make(chan struct{}, 1)
	defer a.chain.OnTip(func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})()
	wait := time.Minute
	for a.chain.Tip().Hash == tip {
		timer := time.NewTimer(wait)
		select {
		case <-wake:
			timer.Stop()
		case <-timer.C:
			if a.poolChanges() != changes {
				return nil
			}
			wait = 10 * time.Second
		case <-ctx.Done():
			timer.Stop()
			return fail(jsonrpc.ClientNotConnected, "Shutting down")
		}
	}
	return nil
}

func (a *API) proposal(ctx context.Context, req object) (any, error) {
	data, ok := req.Get("data").(string)
	if !ok {
		return nil, fail(jsonrpc.TypeError, "Missing data String key for proposal")
	}
	b, err := decodeBlock(data)
	if err != nil {
		return nil, err
	}
	if e, ok := a.chain.Lookup(b.Hash()); ok {
		switch {
		case e.Status&blockstore.Verified != 0:
			return "duplicate", nil
		case e.Status&blockstore.Invalid != 0:
			return "duplicate-invalid", nil
		}
		return "duplicate-inconclusive", nil
	}
	if b.Header.PrevBlock != a.chain.Tip().Hash {
		return "inconclusive-not-best-prevblk", nil
	}
	if err := miner.Check(ctx, a.chain, b, consensus.SkipProofOfWork, a.now()); err != nil {
		return rejectReason(err)
	}
	return nil, nil
}

func (a *API) templateJSON(t *miner.Template, h *bitcoin.Header, changes uint64) object {
	b, s := t.Block, &t.State
	height := s.Height + 1
	segwit := height >= a.net.SegwitHeight
	scale := 1
	if !segwit {
		scale = bitcoin.WitnessScale
	}
	index := map[bitcoin.Hash]int{}
	txs := []any{}
	for i := range b.Txs {
		tx := &b.Txs[i]
		index[tx.TxID()] = i
		if i == 0 {
			continue
		}
		depends := []any{}
		for j := range tx.In {
			if at, ok := index[tx.In[j].PrevOut.TxID]; ok {
				depends = append(depends, at)
			}
		}
		txs = append(txs, object{{"data", jsonrpc.Hex(tx.Append(nil))}, {"txid", tx.TxID()},
			{"hash", tx.WTxID()}, {"depends", depends}, {"fee", int64(t.Fees[i-1])},
			{"sigops", t.SigOpsCost[i-1] / scale}, {"weight", tx.Weight()}})
	}
	rules, available := []string{"csv"}, object{}
	if segwit {
		rules = append(rules, "!segwit")
	}
	if a.net.SignetChallenge != nil {
		rules = append(rules, "!signet")
	}
	for id := range bitcoin.NumDeployments {
		switch s.StageAfter(id) {
		case consensus.Started, consensus.LockedIn:
			available.Set(id.String(), int(a.net.Deployments[id].Bit))
		case consensus.Active:
			rules = append(rules, id.String())
		}
	}
	mintime := int64(miner.MinTime(s))
	o := object{
		{"capabilities", []string{"proposal"}}, {"version", int64(h.Version)}, {"rules", rules},
		{"vbavailable", available}, {"vbrequired", 0}, {"previousblockhash", h.PrevBlock},
		{"transactions", txs}, {"coinbaseaux", object{}}, {"coinbasevalue", int64(b.Txs[0].Out[0].Value)},
		{"longpollid", s.Hash.String() + strconv.FormatUint(changes, 10)},
		{"target", target(h.Bits)}, {"mintime", mintime},
		{"mutable", []string{"time", "transactions", "prevblock"}}, {"noncerange", "00000000ffffffff"},
		{"sigoplimit", consensus.MaxBlockSigOpsCost / scale}, {"sizelimit", 4_000_000 / scale},
	}
	if segwit {
		o.Set("weightlimit", consensus.MaxBlockWeight)
	}
	o.Set("curtime", h.Time).Set("bits", bitsHex(h.Bits)).Set("height", height)
	if a.net.SignetChallenge != nil {
		o.Set("signet_challenge", jsonrpc.Hex(a.net.SignetChallenge))
	}
	if len(t.Commitment) > 0 {
		o.Set("default_witness_commitment", jsonrpc.Hex(t.Commitment))
	}
	return o
}
