package rpc

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
)

func (a *API) chainMethods() []jsonrpc.Method {
	return []jsonrpc.Method{
		{Category: "blockchain", Name: "getblockchaininfo", Run: run(a.getBlockchainInfo),
			Doc: "Returns an object containing various state info regarding blockchain processing."},
		{Category: "blockchain", Name: "getblockcount", Run: run(func(call) (any, error) {
			return a.chain.Tip().Height, nil
		}), Doc: "Returns the height of the most-work fully-validated chain."},
		{Category: "blockchain", Name: "getbestblockhash", Run: run(func(call) (any, error) {
			return a.chain.Tip().Hash, nil
		}), Doc: "Returns the hash of the best (tip) block in the most-work fully-validated chain."},
		{Category: "blockchain", Name: "getblockhash", Params: "height:I", Run: run(a.getBlockHash),
			Doc: "Returns hash of block in best-block-chain at height provided."},
		{Category: "blockchain", Name: "getdifficulty", Run: run(func(call) (any, error) {
			return bitcoin.Difficulty(a.chain.Tip().Header.Bits), nil
		}), Doc: "Returns the proof-of-work difficulty as a multiple of the minimum difficulty."},
		{Category: "blockchain", Name: "getchaintips", Run: run(a.getChainTips),
			Doc: "Return information about all known tips in the block tree."},
		{Category: "blockchain", Name: "getdeploymentinfo", Params: "blockhash:h?",
			Run: run(a.getDeploymentInfo),
			Doc: "Returns an object containing various state info regarding deployments."},
		{Category: "blockchain", Name: "getchaintxstats", Params: "nblocks:I? blockhash:h?",
			Run: run(a.getChainTxStats),
			Doc: "Compute statistics about the total number and rate of transactions in the chain."},
		{Category: "blockchain", Name: "preciousblock", Params: "blockhash:h", Run: a.precious,
			Doc: "Treats a block as if it were received before others with the same work."},
		{Category: "hidden", Name: "invalidateblock", Params: "blockhash:h", Run: a.invalidate,
			Doc: "Permanently marks a block as invalid, as if it violated a consensus rule."},
		{Category: "hidden", Name: "reconsiderblock", Params: "blockhash:h", Run: a.reconsider,
			Doc: "Removes invalidity status of a block, its ancestors and its descendants."},
		{Category: "blockchain", Name: "waitfornewblock", Params: "timeout:I? current_tip:h?",
			Run: a.waitForNewBlock, Doc: "Waits for any new block and returns useful info about it."},
		{Category: "blockchain", Name: "waitforblock", Params: "blockhash:h timeout:I?",
			Run: a.waitForBlock, Doc: "Waits for a specific new block and returns useful info about it."},
		{Category: "blockchain", Name: "waitforblockheight", Params: "height:I timeout:I?",
			Run: a.waitForHeight, Doc: "Waits for (at least) block height."},
		{Category: "blockchain", Name: "gettxout", Params: "txid:h n:U include_mempool:b?",
			Run: run(a.getTxOut), Doc: "Returns details about an unspent transaction output."},
		{Category: "blockchain", Name: "getchainstates", Run: run(a.getChainStates),
			Doc: "Return information about chainstates."},
	}
}

func bitsHex(bits uint32) string { return fmt.Sprintf("%08x", bits) }

func target(bits uint32) string {
	t, _, _ := bitcoin.CompactToTarget(bits)
	return t.String()
}

func (a *API) initialDownload() bool { return a.p2p != nil && a.p2p.InitialDownload() }

func (a *API) getBlockchainInfo(call) (any, error) {
	tip, best := a.chain.Tip(), a.chain.BestHeader()
	o := object{
		{"chain", a.net.Name}, {"blocks", tip.Height}, {"headers", best.Height},
		{"bestblockhash", tip.Hash}, {"bits", bitsHex(tip.Header.Bits)},
		{"target", target(tip.Header.Bits)}, {"difficulty", bitcoin.Difficulty(tip.Header.Bits)},
		{"time", tip.Header.Time}, {"mediantime", tip.Median},
		{"verificationprogress", a.chain.Progress(tip.Hash)},
		{"initialblockdownload", a.initialDownload()},
		{"chainwork", tip.Work.String()},
	}
	size := int64(0)
	if a.cfg.Files != nil {
		size = a.cfg.Files.BlockBytes()
	}
	o.Set("size_on_disk", size)
	a.setPruning(&o)
	if a.net.Name == "signet" {
		o.Set("signet_challenge", jsonrpc.Hex(a.net.SignetChallenge))
	}
	o.Set("warnings", a.warnings())
	return o, nil
}

func (a *API) getBlockHash(c call) (any, error) {
	h := c.Int(0, 0)
	e, ok := a.chain.AtHeight(bitcoin.Height(min(max(h, -1), math.MaxInt32)))
	if h < 0 || !ok {
		return nil, fail(jsonrpc.InvalidParameter, "Block height out of range")
	}
	return e.Hash, nil
}

func (a *API) getChainTips(call) (any, error) {
	out := []any{}
	for _, t := range a.chain.Tips() {
		out = append(out, object{{"height", t.Height}, {"hash", t.Hash}, {"branchlen", t.BranchLen},
			{"status", string(t.Status)}})
	}
	return out, nil
}

func (a *API) getDeploymentInfo(c call) (any, error) {
	e := a.chain.Tip()
	if c.Has(0) {
		var err error
		if e, err = a.lookup(c.Hash(0)); err != nil {
			return nil, err
		}
	}
	return a.deploymentInfo(e)
}

// deploymentInfo describes the rules that the block after one has to meet.
func (a *API) deploymentInfo(e chain.Entry) (any, error) {
	s, ok := a.chain.State(e.Hash)
	if !ok {
		return nil, fail(jsonrpc.InvalidAddressOrKey, "Block not found")
	}
	flags := consensus.ScriptFlags(a.net, e.Height+1, bitcoin.Hash{})
	if e.Height > 0 {
		flags = consensus.ScriptFlags(a.net, e.Height, e.Hash)
	}
	var deployments object
	for _, b := range []struct {
		name   string
		height bitcoin.Height
	}{{"bip34", a.net.BIP34Height}, {"bip66", a.net.BIP66Height}, {"bip65", a.net.BIP65Height},
		{"csv", a.net.CSVHeight}, {"segwit", a.net.SegwitHeight}} {
		// A buried rule that never comes is not shown.
		if b.height < math.MaxInt32 {
			deployments.Set(b.name, object{{"type", "buried"}, {"active", e.Height+1 >= b.height},
				{"height", b.height}})
		}
	}
	for id := range bitcoin.NumDeployments {
		if d := a.deployment(&s, id); d != nil {
			deployments.Set(id.String(), d)
		}
	}
	return object{{"hash", e.Hash}, {"height", e.Height}, {"script_flags", flags.Names()},
		{"deployments", deployments}}, nil
}

// deployment describes one that is decided by version bits.
func (a *API) deployment(s *consensus.State, id bitcoin.DeploymentID) any {
	d := a.net.Deployments[id]
	if d.Timeout == 0 && d.Start == bitcoin.NeverActive && id != bitcoin.TestDummy {
		return nil
	}
	info := s.Activation(id)
	var o object
	signalling := info.Stage == consensus.Started || info.Stage == consensus.LockedIn
	if signalling {
		o.Set("bit", int(d.Bit))
	}
	o.Set("start_time", d.Start).Set("timeout", d.Timeout)
	o.Set("min_activation_height", d.MinActivationHeight)
	o.Set("status", info.Stage.String())
	o.Set("since", info.Since)
	o.Set("status_next", info.Next.String())
	if signalling {
		stats := object{{"period", info.Period}, {"elapsed", info.Elapsed}, {"count", info.Count}}
		if info.Threshold > 0 {
			stats.Set("threshold", info.Threshold).Set("possible", info.Possible)
		}
		o.Set("statistics", stats)
		o.Set("signalling", a.signalling(s, d, info))
	}
	out := object{{"type", "bip9"}}
	if since, known := s.ActiveSince(id); known {
		out.Set("height", since)
	}
	out.Set("active", info.Next == consensus.Active)
	out.Set("bip9", o)
	return out
}

// signalling draws which blocks of the period have signalled.
func (a *API) signalling(s *consensus.State, d bitcoin.Deployment, info consensus.Activation) string {
	out := make([]byte, 0, info.Elapsed)
	for _, e := range a.chain.Path(s.Hash, s.Height-info.Elapsed+1, int(info.Elapsed)) {
		if consensus.Signals(e.Header.Version, d.Bit) {
			out = append(out, '#')
		} else {
			out = append(out, '-')
		}
	}
	return string(out)
}

func (a *API) getChainTxStats(c call) (any, error) {
	e := a.chain.Tip()
	if c.Has(1) {
		var err error
		if e, err = a.lookup(c.Hash(1)); err != nil {
			return nil, err
		}
		if !e.Active {
			return nil, fail(jsonrpc.InvalidParameter, "Block is not in main chain")
		}
	}
	month := int64(30 * 24 * time.Hour / a.net.TargetSpacing)
	count := max(0, min(month, int64(e.Height)-1))
	if c.Has(0) {
		count = c.Int(0, 0)
		if count < 0 || count > 0 && count >= int64(e.Height) {
			return nil, fail(jsonrpc.InvalidParameter,
				"Invalid block count: should be between 0 and the block's height - 1")
		}
	}
	past, ok := a.chain.Ancestor(e.Hash, e.Height-bitcoin.Height(count))
	if !ok {
		return nil, fail(jsonrpc.InternalError, "Block not found")
	}
	o := object{{"time", e.Header.Time}}
	if e.ChainTxs > 0 {
		o.Set("txcount", e.ChainTxs)
	}
	o.Set("window_final_block_hash", e.Hash).Set("window_final_block_height", e.Height)
	o.Set("window_block_count", count)
	if count > 0 {
		interval := int64(e.Median) - int64(past.Median)
		o.Set("window_interval", interval)
		if e.ChainTxs > 0 && past.ChainTxs > 0 {
			txs := e.ChainTxs - past.ChainTxs
			o.Set("window_tx_count", txs)
			if interval > 0 {
				o.Set("txrate", float64(txs)/float64(interval))
			}
		}
	}
	return o, nil
}

func (a *API) precious(ctx context.Context, c call) (any, error) {
	return nil, a.move(a.chain.Precious(ctx, c.Hash(0)))
}

func (a *API) invalidate(ctx context.Context, c call) (any, error) {
	if _, err := a.lookup(c.Hash(0)); err != nil {
		return nil, err
	}
	return nil, a.move(a.chain.Invalidate(ctx, c.Hash(0)))
}

func (a *API) reconsider(ctx context.Context, c call) (any, error) {
	if _, err := a.lookup(c.Hash(0)); err != nil {
		return nil, err
	}
	return nil, a.move(a.chain.Reconsider(ctx, c.Hash(0)))
}

// move turns the error of a change of the chain into one for the caller.
func (a *API) move(err error) error {
	switch {
	case err == nil:
		return nil
	case isUnknown(err):
		return fail(jsonrpc.InvalidAddressOrKey, "Block not found")
	}
	return fail(jsonrpc.DatabaseError, "%v", err)
}

// wait returns the tip once a condition holds for it, or when the time is over: 0 is no limit.
func (a *API) wait(ctx context.Context, c call, ms int64, done func(chain.Entry) bool) (any, error) {
	if ms < 0 {
		return nil, fail(jsonrpc.MiscError, "Negative timeout")
	}
	wake := make(chan struct{}, 1)
	forget := a.chain.OnTip(func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	defer forget()
	var over <-chan time.Time
	if ms > 0 {
		t := time.NewTimer(time.Duration(min(ms, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond)
		defer t.Stop()
		over = t.C
	}
	for {
		tip := a.chain.Tip()
		answer := object{{"hash", tip.Hash}, {"height", tip.Height}}
		if done(tip) {
			return answer, nil
		}
		select {
		case <-wake:
		case <-over:
			return answer, nil
		case <-ctx.Done():
			return answer, nil
		}
	}
}

func (a *API) waitForNewBlock(ctx context.Context, c call) (any, error) {
	from := a.chain.Tip().Hash
	if c.Has(1) {
		from = c.Hash(1)
	}
	return a.wait(ctx, c, c.Int(0, 0), func(e chain.Entry) bool { return e.Hash != from })
}

func (a *API) waitForBlock(ctx context.Context, c call) (any, error) {
	want := c.Hash(0)
	return a.wait(ctx, c, c.Int(1, 0), func(e chain.Entry) bool { return e.Hash == want })
}

func (a *API) waitForHeight(ctx context.Context, c call) (any, error) {
	want := c.Int(0, 0)
	return a.wait(ctx, c, c.Int(1, 0), func(e chain.Entry) bool { return int64(e.Height) >= want })
}

func (a *API) getTxOut(c call) (any, error) {
	n := c.Int(1, 0)
	if n < 0 || n > math.MaxUint32 {
		return nil, fail(jsonrpc.MiscError, "JSON integer out of range")
	}
	out := bitcoin.OutPoint{TxID: c.Hash(0), Index: uint32(n)}
	inPool := c.Bool(2, true)
	tip := a.chain.Tip()
	coin, err := a.chain.Coin(out, inPool)
	if err != nil {
		return nil, err
	}
	if coin.IsSpent() {
		return nil, nil
	}
	confirmations := tip.Height - coin.Height + 1
	if coin.Height > tip.Height {
		confirmations = 0
	}
	return object{{"bestblock", tip.Hash}, {"confirmations", confirmations}, {"value", coin.Out.Value},
		{"scriptPubKey", a.scriptJSON(coin.Out.Script, true)}, {"coinbase", coin.Coinbase}}, nil
}

func (a *API) getChainStates(call) (any, error) {
	list := []any{}
	for _, s := range a.chain.Chainstates() {
		tip := s.Tip
		o := object{{"blocks", tip.Height}, {"bestblockhash", tip.Hash}, {"bits", bitsHex(tip.Header.Bits)},
			{"target", target(tip.Header.Bits)}, {"difficulty", bitcoin.Difficulty(tip.Header.Bits)},
			{"verificationprogress", a.chain.Progress(tip.Hash)}, {"coins_db_cache_bytes", s.DBCacheBytes},
			{"coins_tip_cache_bytes", s.CacheBytes}}
		if s.Base != (bitcoin.Hash{}) {
			o.Set("snapshot_blockhash", s.Base)
		}
		o.Set("validated", s.Validated)
		list = append(list, o)
	}
	return object{{"headers", a.chain.BestHeader().Height}, {"chainstates", list}}, nil
}
