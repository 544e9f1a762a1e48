package chain

import (
	"context"
	"errors"
	"fmt"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// The chain is moved by whoever waits for it to move, one at a time and step by step: who has the
// role of the mover makes a step (see step), gives the role back, and leaves when the block that it
// cares about has been judged, if somebody else waits who goes on; else when there is nothing left
// to do. Only the mover changes tip and coins.

// Activate makes the best chain whose blocks are here the active one, and tells what became of the
// block with this hash: whether it has been connected, or why it is not valid. It returns when that
// is decided and nothing is left to do but what other calls will; with the zero hash, when nothing
// is left at all. When ctx ends early the chain stays at a block that it has fully checked, and the
// context's error is returned.
func (c *Chain) Activate(ctx context.Context, hash bitcoin.Hash) (connected bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := none
	if hash != (bitcoin.Hash{}) {
		if n = c.tree.find(&hash); n == none {
			return false, fmt.Errorf("%w: %v", ErrUnknownBlock, hash)
		}
	}
	c.waiting++
	defer c.leave()
	for {
		decided, connected, invalid := c.fate(n)
		if decided && c.waiting > 1 {
			return connected, invalid
		}
		idle, err := c.moveOn(ctx)
		if err != nil && decided && c.fatal == nil {
			return connected, invalid
		}
		if err != nil {
			return false, err
		}
		if idle {
			_, connected, invalid := c.fate(n)
			return connected, invalid
		}
	}
}

// fate tells whether a block has been judged, or cannot be as things are. The caller holds mu.
func (c *Chain) fate(n node) (decided, connected bool, err error) {
	if n == none {
		return false, false, nil
	}
	h := c.tree.at(n)
	switch {
	case c.failures[n] != nil:
		return true, false, c.failures[n]
	case h.status&blockstore.FailedChild != 0:
		return true, false, &consensus.Error{Kind: consensus.KindInvalidPrev, Reason: "bad-prevblk"}
	case h.status&blockstore.Failed != 0:
		return true, false, cachedInvalid(h.hash)
	case h.status&blockstore.Verified != 0:
		return true, true, nil
	case c.tree.body(n).chainTxs == 0, h.work.cmp(c.tree.at(c.tip()).work) < 0:
		return true, false, nil // not all blocks before it are here; or on a branch that lost
	}
	return false, false, nil
}

func cachedInvalid(hash bitcoin.Hash) error {
	return &consensus.Error{Kind: consensus.KindCachedInvalid, Reason: "duplicate-invalid",
		Debug: fmt.Sprintf("block %v was previously marked invalid", hash)}
}

// moveOn makes a step, or waits for the one who does. It is idle where there was nothing to do. The
// caller holds mu, which is given up meanwhile.
func (c *Chain) moveOn(ctx context.Context) (idle bool, err error) {
	if err := errors.Join(c.fatal, ctx.Err()); err != nil {
		return false, err
	}
	if !c.moving {
		c.moving = true
		c.mu.Unlock()
		idle, err = c.step(ctx)
		c.mu.Lock()
		c.moving = false
		c.changed()
		return idle, err
	}
	changes := c.changes
	c.mu.Unlock()
	defer c.mu.Lock()
	select {
	case <-changes:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// changed wakes all who wait for the mover or for a change of what is known. The caller holds mu.
func (c *Chain) changed() {
	close(c.changes)
	c.changes = make(chan struct{})
}

// leave is called by who does not care any more how the chain moves on. The last one ends what is
// under way, for nobody would see to it. The caller holds mu.
func (c *Chain) leave() {
	c.waiting--
	if c.waiting > 0 || c.moving {
		return
	}
	c.moving = true
	c.mu.Unlock()
	c.abort()
	c.settlePool()
	c.mu.Lock()
	c.moving = false
	c.changed()
}

// alone runs a function as the mover, with nothing under way. The caller does not hold mu.
func (c *Chain) alone(ctx context.Context, f func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting++
	defer c.leave()
	for c.moving {
		if _, err := c.moveOn(ctx); err != nil { // waits, since somebody is moving
			return err
		}
	}
	if c.fatal != nil {
		return c.fatal
	}
	c.moving = true
	c.mu.Unlock()
	err := c.drainAll()
	if err == nil {
		err = f()
	}
	c.mu.Lock()
	c.moving = false
	c.changed()
	return err
}

// step does the next thing that brings the chain forward, and if there is none, its history; the caller is
// the mover.
func (c *Chain) step(ctx context.Context) (idle bool, err error) {
	if c.main.pipe.ready() {
		return false, c.settle(c.main)
	}
	if c.history != nil && c.history.pipe.ready() {
		return false, c.settle(c.history)
	}
	c.mu.Lock()
	news := c.news
	head := c.main.head()
	to := c.mostWork()
	if c.reorganizing && c.tree.at(c.tip()).work.cmp(c.lost.work) > 0 {
		to = head // the new branch is ahead of the old one: settle the pool before more
	}
	if c.isStopped() || c.stopsAt(head) {
		to = head
	}
	next := none
	if to != head && c.tree.isAncestor(head, to) {
		next = c.tree.ancestor(to, c.tree.at(head).height+1)
	}
	c.mu.Unlock()
	running := c.main.pipe.len() > 0
	switch {
	case next != none && !c.main.pipe.full():
		return false, c.connect(c.main, next, to)
	case running:
	case to != head:
		if err := c.disconnect(); err != nil {
			return false, c.halt(&Failure{"Failed to disconnect block.", err})
		}
		return false, nil
	case c.reorganizing:
		return false, c.settlePool()
	}
	if c.history != nil {
		if idle, err := c.stepHistory(); err != nil || !idle {
			return false, err
		}
		running = running || c.history.pipe.len() > 0
	}
	if running {
		c.await(ctx, news)
	}
	return !running, nil
}

// await waits until some scripts have run, or there is something else to do. The caller is the mover.
func (c *Chain) await(ctx context.Context, news <-chan struct{}) {
	var done [2]<-chan struct{}
	for i, s := range c.chainstates() {
		if s.pipe.len() > 0 {
			done[i] = s.pipe.first().done
		}
	}
	select {
	case <-done[0]:
	case <-done[1]:
	case <-news:
	case <-ctx.Done():
	}
}

// stopsAt reports whether a block whose scripts are running is the last one to be connected. The caller
// is the mover and holds mu.
func (c *Chain) stopsAt(head node) bool {
	return c.cfg.StopAt > 0 && c.main.pipe.len() > 0 && c.tree.at(head).height >= c.cfg.StopAt
}

// mostWork returns the best candidate that is not known to be invalid and whose blocks are here, or
// the tip (Bitcoin Core validation.cpp, FindMostWorkChain). The caller holds mu.
func (c *Chain) mostWork() node {
	for {
		best := c.candidates.top()
		if best == none || !c.tree.better(best, c.tip()) {
			return c.tip()
		}
		if c.history != nil && !c.tree.isAncestor(c.main.base, best) {
			c.candidates.drop() // there is no way back yet below the snapshot's block
			continue
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
			c.noteInvalid(n)
		} else { // when the missing block comes it may be tried again
			parent := c.tree.at(n).parent
			c.unlinked[parent] = append(c.unlinked[parent], n)
		}
	}
}
