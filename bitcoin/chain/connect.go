package chain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// connect judges the block that follows the head of a chainstate, on the way to another, and starts its
// scripts. A block that is not valid is marked so, once it is certain that those before it are. The
// caller is the mover.
func (c *Chain) connect(s *chainstate, n, to node) error {
	candidate, err := s.loader.take(c, s.coins, n, to)
	if err != nil {
		return c.halt(failure("Failed to read block.", fmt.Errorf("block %v: %w", c.hashOf(n), err)))
	}
	before := c.headState(s)
	state, diff, err := consensus.Connect(before, candidate, &view{c: c, s: s, on: n})
	if invalid := (*consensus.Error)(nil); errors.As(err, &invalid) {
		return c.reject(s, n, invalid)
	}
	if err != nil {
		return c.halt(err)
	}
	b := &pending{n: n, candidate: candidate, state: state, diff: diff}
	checks := c.checks(s, b)
	if len(checks) == 0 && s.pipe.len() == 0 {
		return c.publish(s, b)
	}
	s.pipe.push(b, c.runner, checks)
	return nil
}

// reject marks a block that could not be connected, if those before it turn out to be valid; else
// it is the first of those that is marked.
func (c *Chain) reject(s *chainstate, n node, reason *consensus.Error) error {
	if err := c.drain(s); err != nil {
		return err
	}
	defer c.tipWakes.wake()
	c.mu.Lock()
	certain := s.tip() == c.tree.at(n).parent
	c.mu.Unlock()
	if !certain {
		return nil
	}
	return c.failed(s, n, reason)
}

// failed notes that a block on the way of a chainstate is not valid. In history that condemns the snapshot.
func (c *Chain) failed(s *chainstate, n node, reason *consensus.Error) error {
	c.mu.Lock()
	c.markFailed(n, reason)
	c.mu.Unlock()
	if s == c.main {
		return nil
	}
	c.cfg.Log.Error("[snapshot] a block before the snapshot's is not valid", "err", reason)
	return c.rejectSnapshot()
}

// drain waits for all scripts of a chainstate that are running, and publishes or forgets their blocks.
func (c *Chain) drain(s *chainstate) error {
	for s.pipe.len() > 0 {
		<-s.pipe.first().done
		if err := c.settle(s); err != nil {
			return err
		}
	}
	return nil
}

// settle makes the first block of the pipe the tip, or if its scripts failed, forgets all that are
// there and marks it.
func (c *Chain) settle(s *chainstate) error {
	b := s.pipe.first()
	if b.err == nil {
		if err := c.publish(s, b); err != nil {
			return err
		}
		s.pipe.pop()
		return nil
	}
	invalid, ok := b.err.(*consensus.Error)
	if !ok {
		return c.halt(b.err)
	}
	s.abort()
	defer c.tipWakes.wake()
	return c.failed(s, b.n, invalid)
}

// publish makes a block the tip of a chainstate, whose scripts have passed.
func (c *Chain) publish(s *chainstate, b *pending) error {
	block := b.candidate.Block()
	c.mu.Lock()
	h, own := c.tree.at(b.n), c.tree.ownBody(b.n)
	file, undone := own.file, h.status&blockstore.HaveUndo == 0
	c.mu.Unlock()
	var undo blockstore.Pos
	if undone {
		var err error
		if undo, err = c.store.WriteUndo(file, block, b.diff.Undo); err != nil {
			return c.halt(failure("System error while saving block to disk", err))
		}
	}
	c.mu.Lock()
	if undone {
		own.undo = undo.Offset
	}
	h.status |= blockstore.HaveUndo | blockstore.Verified
	c.touch(b.n)
	s.coins.Apply(b.diff, h.hash)
	c.states.put(b.n, &b.state)
	s.active = append(s.active, b.n)
	c.forgetReady(b.n)
	if s == c.main {
		c.followTip(b)
	} else {
		c.followHistory(b)
	}
	quiet := c.reorganizing
	c.changed()
	c.mu.Unlock()
	if !quiet {
		c.tipWakes.wake()
	}
	return c.maybeFlush(s)
}

// followTip does what goes with a new tip of the best chain. The caller holds mu.
func (c *Chain) followTip(b *pending) {
	block, height := b.candidate.Block(), c.tree.at(b.n).height
	c.pool.Connected(block, c.cfg.Clock.Now())
	c.lost.remove(block)
	c.candidates.trim(b.n)
	if c.cfg.StopAt > 0 && height >= c.cfg.StopAt && !c.isStopped() {
		close(c.stopped)
	}
	c.logTip("", c.main, b)
}

// logTip tells of a new tip (Bitcoin Core validation.cpp, UpdateTipLog). The caller holds mu.
func (c *Chain) logTip(prefix string, s *chainstate, b *pending) {
	if !c.cfg.Log.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	h := c.tree.at(b.n)
	used, _ := s.coins.CacheUsage()
	c.cfg.Log.Info(fmt.Sprintf(prefix+"UpdateTip: new best=%v height=%d version=0x%08x log2_work=%f tx=%d "+
		"date='%s' progress=%f cache=%.1fMiB(%dtxo)", h.hash, h.height, uint32(h.version),
		h.work.log2(), c.tree.body(b.n).chainTxs,
		isoTime(h.time), c.progressAt(b.n),
		float64(used)/(1<<20), s.coins.CacheCoins()),
		"unlimited", true) // a line a block, in the initial download too
}

// isoTime writes the time of a block for the log.
func isoTime(t uint32) string { return time.Unix(int64(t), 0).UTC().Format(time.RFC3339) }

// Progress is how much of all transactions that there will have been by now is verified up to a block
// (Bitcoin Core validation.cpp, GuessVerificationProgress).
func (c *Chain) Progress(hash bitcoin.Hash) float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.tree.find(&hash); n != none {
		return c.progressAt(n)
	}
	return 0
}

// progressAt is Progress for who holds mu.
func (c *Chain) progressAt(n node) float64 {
	done, s := float64(c.tree.body(n).chainTxs), c.cfg.Network.TxStats
	if done == 0 {
		return 0
	}
	h, now := c.tree.at(n), c.cfg.Clock.Now().Unix()
	at := int64(h.time)
	if behind := int64(c.tree.at(c.best).height - h.height); max(now-at, at-now) <= 2*3600 && behind >= 0 {
		// So close to the end blocks count, not what miners say of the time: it ends at 1.
		at = now - behind*int64(c.cfg.Network.TargetSpacing/time.Second)
	}
	total := float64(s.Count) + float64(now-s.Time)*s.Rate
	if done > float64(s.Count) {
		total = done + float64(now-at)*s.Rate
	}
	return max(0, min(done/total, 1))
}

// checks returns the scripts of a block that must be run.
func (c *Chain) checks(s *chainstate, b *pending) []consensus.Check {
	c.mu.Lock()
	defer c.mu.Unlock()
	must, reason := c.assumeValid(b.n).Verify(&b.state)
	if s.assumed == nil || reason != *s.assumed {
		s.assumed = &reason
		text := fmt.Sprintf("Disabling script verification at block #%d (%v).", b.state.Height, b.state.Hash)
		if must {
			text = fmt.Sprintf("Enabling script verification at block #%d (%v): %s.", b.state.Height,
				b.state.Hash, reason)
		}
		c.cfg.Log.Info(text)
	}
	if !must {
		return nil
	}
	checks := b.diff.Checks()
	if c.pool.Len() == 0 || s != c.main {
		return checks
	}
	left := checks[:0]
	for _, check := range checks { // the mempool has run most of them
		e := c.pool.GetWitness(check.Tx.WTxID())
		if e == nil || e.Verified() != check.Flags {
			left = append(left, check)
		}
	}
	return left
}

// assumeValid gathers what decides whether scripts must be run. The caller holds mu.
func (c *Chain) assumeValid(n node) consensus.AssumeValid {
	a := consensus.AssumeValid{
		Configured: *c.cfg.AssumeValid != bitcoin.Hash{},
		MinWork:    *c.cfg.MinimumChainWork,
	}
	if !a.Configured {
		return a
	}
	best := c.tree.at(c.best)
	a.BestWork, a.BestBits = best.work.uint256(), best.bits
	if assumed := c.tree.find(c.cfg.AssumeValid); assumed != none {
		a.Known, a.Height = true, c.tree.at(assumed).height
		a.Ancestor = c.tree.isAncestor(n, assumed)
		a.InBest = c.tree.isAncestor(n, c.best)
	}
	return a
}

// markFailed marks a block as not valid and keeps the reason. The caller holds mu.
func (c *Chain) markFailed(n node, reason *consensus.Error) {
	if len(c.failures) >= maxFailures {
		clear(c.failures)
	}
	c.failures[n] = reason
	c.cfg.Log.Warn(fmt.Sprintf("Block validation error: %v", reason))
	c.logInvalid(n)
	c.fail(n)
	c.changed()
}

// maxFailures is how many reasons are kept.
const maxFailures = 1000

// fail marks a block as not valid, and what follows it. The caller holds mu.
func (c *Chain) fail(n node) {
	c.tree.at(n).status |= blockstore.Failed
	c.touch(n)
	c.forgetReady(n)
	c.noteInvalid(n)
	c.failChildren(n)
	c.findBest()
}

// failChildren marks what follows a block that is not valid. The caller holds mu.
func (c *Chain) failChildren(n node) {
	height := c.tree.at(n).height
	for later := n + 1; later < node(c.tree.n); later++ { // children come after their parents
		h := c.tree.at(later)
		if h.height > height && c.tree.at(h.parent).status&blockstore.Invalid != 0 &&
			h.status&blockstore.Invalid != blockstore.FailedChild {
			h.status = h.status&^blockstore.Failed | blockstore.FailedChild
			c.touch(later)
			if c.tree.body(later).chainTxs != 0 { // mere headers say little
				c.noteInvalid(later)
			}
		}
	}
}

// findBest looks for the best header among all. The caller holds mu.
func (c *Chain) findBest() {
	c.best = c.tip()
	for n := range node(c.tree.n) {
		h := c.tree.at(n)
		if h.status&blockstore.Invalid == 0 && h.work.cmp(c.tree.at(c.best).work) > 0 {
			c.best = n
		}
	}
}

// headState returns the State of the last block of a chainstate that is connected.
func (c *Chain) headState(s *chainstate) consensus.State {
	if n := s.pipe.len(); n > 0 {
		return s.pipe.blocks[n-1].state
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state(s.tip())
}

func (c *Chain) hashOf(n node) bitcoin.Hash {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tree.at(n).hash
}

// halt is stop for who does not hold mu.
func (c *Chain) halt(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stop(err)
}

// view is what the mover judges a block by: the coins of a chainstate with those of its pipe, and the
// branch that the block is on.
type view struct {
	c  *Chain
	s  *chainstate
	on node
}

// Coins is as consensus.View has it.
func (v *view) Coins(outs []bitcoin.OutPoint, coins []consensus.Coin) error {
	overlay := v.s.pipe.overlay
	if len(overlay) == 0 {
		return v.s.coins.Coins(outs, coins)
	}
	var rest []bitcoin.OutPoint
	var at []int
	for i := range outs {
		if change, ok := overlay[outs[i]]; ok {
			coins[i] = change.coin
		} else {
			rest, at = append(rest, outs[i]), append(at, i)
		}
	}
	found := make([]consensus.Coin, len(rest))
	if err := v.s.coins.Coins(rest, found); err != nil {
		return err
	}
	for i, coin := range found {
		coins[at[i]] = coin
	}
	return nil
}

// MedianTimePast is as consensus.View has it.
func (v *view) MedianTimePast(height bitcoin.Height) (uint32, error) {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	return v.c.tree.median(v.c.tree.ancestor(v.on, height)), nil
}
