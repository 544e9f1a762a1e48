package chain

import (
	"context"
	"fmt"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// Activate makes the best chain whose blocks are here the active one, and tells what became of the
// block with this hash: whether it has been connected, or why it is not valid. The zero hash asks
// about none. When ctx ends early the chain stops at a block that it has fully checked, and the
// context's error is returned.
func (c *Chain) Activate(ctx context.Context, hash bitcoin.Hash) (connected bool, err error) {
	c.moving.Lock()
	err = c.activate(ctx)
	c.moving.Unlock()
	if err != nil || hash == (bitcoin.Hash{}) {
		return false, err
	}
	return c.fate(hash)
}

// fate returns what is known of a block after activation.
func (c *Chain) fate(hash bitcoin.Hash) (connected bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.tree.find(&hash)
	if n == none {
		return false, fmt.Errorf("%w: %v", ErrUnknownBlock, hash)
	}
	switch status := c.tree.at(n).status; {
	case c.failures[n] != nil:
		return false, c.failures[n]
	case status&blockstore.FailedChild != 0:
		return false, &consensus.Error{Kind: consensus.KindInvalidPrev, Reason: "bad-prevblk"}
	case status&blockstore.Failed != 0:
		return false, &consensus.Error{Kind: consensus.KindCachedInvalid, Reason: "duplicate-invalid"}
	default:
		return status&blockstore.Verified != 0, nil
	}
}

// activate moves the tip until no better one is to be had. The caller holds moving.
func (c *Chain) activate(ctx context.Context) error {
	moved := false
	defer func() {
		if moved {
			c.tipWakes.wake()
		}
	}()
	for ctx.Err() == nil {
		c.mu.Lock()
		to := c.mostWork()
		if c.fatal != nil || to == c.tip() {
			err := c.fatal
			c.mu.Unlock()
			return err
		}
		err := c.reorganize(ctx, to)
		c.mu.Unlock()
		moved = true
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// mostWork returns the best candidate that is not known to be invalid and whose blocks are here, or
// the tip (Bitcoin Core validation.cpp, FindMostWorkChain). The caller holds mu.
func (c *Chain) mostWork() node {
	for {
		best := c.candidates.top()
		if best == none || !c.tree.better(best, c.tip()) {
			return c.tip()
		}
		at := best
		for ; !c.isActive(at); at = c.tree.at(at).parent {
			s := c.tree.at(at).status
			if s&blockstore.Invalid != 0 || s&blockstore.HaveData == 0 {
				break
			}
		}
		if c.isActive(at) {
			return best
		}
		c.rejectBranch(best, at)
	}
}

// rejectBranch takes the candidate best out of the running, whose ancestor at is invalid or
// missing. The caller holds mu.
func (c *Chain) rejectBranch(best, at node) {
	c.candidates.drop()
	invalid := c.tree.at(at).status&blockstore.Invalid != 0
	for n := best; n != at; n = c.tree.at(n).parent {
		if invalid {
			c.tree.at(n).status |= blockstore.FailedChild
			c.touch(n)
		} else { // when the missing block comes it may be tried again
			parent := c.tree.at(n).parent
			c.unlinked[parent] = append(c.unlinked[parent], n)
		}
	}
}

// reorganize goes back to where the branch of a block begins, then along it. The caller holds
// moving and mu.
func (c *Chain) reorganize(ctx context.Context, to node) error {
	fork := c.tree.fork(to, c.tip())
	for c.tip() != fork {
		if err := c.disconnectTip(); err != nil {
			return c.stop(err)
		}
	}
	for height := c.tree.at(fork).height + 1; height <= c.tree.at(to).height; height++ {
		n := c.tree.ancestor(to, height)
		err := c.connectTip(ctx, n)
		if e, ok := err.(*consensus.Error); ok {
			c.failures[n] = e
			c.fail(n)
			return nil
		}
		if err != nil {
			return c.stop(err)
		}
	}
	return nil
}

func (c *Chain) connectTip(ctx context.Context, n node) error {
	h, b := c.tree.at(n), c.tree.ownBody(n)
	raw, err := c.store.ReadBlock(blockstore.Pos{File: b.file, Offset: b.data}, h.hash)
	if err != nil {
		return err
	}
	block, err := bitcoin.ParseBlock(raw)
	if err != nil {
		return err
	}
	candidate, err := consensus.NewCandidate(c.cfg.Network, block, 0)
	if err != nil {
		return err
	}
	state, diff, err := consensus.Connect(c.state(h.parent), candidate, view{c, h.parent})
	if err != nil {
		return err
	}
	if err := c.runner.Run(ctx, diff.Checks()); err != nil {
		return err
	}
	pos, err := c.store.WriteUndo(b.file, block, diff.Undo)
	if err != nil {
		return err
	}
	b.undo = pos.Offset
	h.status |= blockstore.HaveUndo | blockstore.Verified
	c.touch(n)
	c.coins.Apply(diff, h.hash)
	c.states.put(n, &state)
	c.active = append(c.active, n)
	c.pool.Connected(block, c.cfg.Clock.Now())
	return nil
}

func (c *Chain) disconnectTip() error {
	n := c.tip()
	h, b := c.tree.at(n), c.tree.body(n)
	raw, err := c.store.ReadBlock(blockstore.Pos{File: b.file, Offset: b.data}, h.hash)
	if err != nil {
		return err
	}
	block, err := bitcoin.ParseBlock(raw)
	if err != nil {
		return err
	}
	candidate, err := consensus.NewCandidate(c.cfg.Network, block, 0)
	if err != nil {
		return err
	}
	parent := c.tree.at(h.parent).hash
	undo, err := c.store.ReadUndo(blockstore.Pos{File: b.file, Offset: b.undo}, parent)
	if err != nil {
		return err
	}
	reversal, err := consensus.Disconnect(c.state(n), candidate, undo, view{c, n})
	if err != nil {
		return err
	}
	c.coins.Revert(reversal, parent)
	c.active = c.active[:len(c.active)-1]
	c.candidates.add(n)
	return nil
}

// fail marks a block as not valid, and what follows it. The caller holds mu.
func (c *Chain) fail(n node) {
	c.tree.at(n).status |= blockstore.Failed
	c.touch(n)
	for later := n + 1; later < node(c.tree.n); later++ {
		if c.tree.isAncestor(n, later) {
			c.tree.at(later).status |= blockstore.FailedChild
			c.touch(later)
		}
	}
	c.findBest()
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

// view is what a block is judged by: the coins, and the branch up to a block. The caller holds mu.
type view struct {
	c  *Chain
	on node
}

func (v view) Coins(outs []bitcoin.OutPoint, coins []consensus.Coin) error {
	return v.c.coins.Coins(outs, coins)
}

func (v view) MedianTimePast(height bitcoin.Height) (uint32, error) {
	return v.c.tree.median(v.c.tree.ancestor(v.on, height)), nil
}
