package chain

import (
	"context"
	"errors"
	"fmt"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
)

// ErrGenesis: the first block is beyond doubt.
var ErrGenesis = errors.New("the genesis block cannot be invalid")

// preciousCount numbers the blocks that were called precious since the tip last had more work.
type preciousCount struct {
	work work
	next int32
}

// Invalidate marks a block as not valid, as if it broke a rule, and leaves its branch for the best
// other one (Core's invalidateblock). It is undone by Reconsider only.
func (c *Chain) Invalidate(ctx context.Context, hash bitcoin.Hash) error {
	return c.remark(ctx, hash, func(n node) error {
		if n == c.main.active[0] {
			return ErrGenesis
		}
		if c.history != nil && c.tree.isAncestor(n, c.main.base) {
			return ErrAssumed
		}
		if c.cfg.HeadersOnly {
			c.failHeader(n)
			return nil
		}
		for c.isActive(n) {
			last := c.tip()
			c.mu.Unlock()
			err := c.disconnect()
			c.mu.Lock()
			if err != nil {
				return err
			}
			// Marked at once: should it end here, what is left is a chain whose blocks are here.
			c.tree.at(last).status |= blockstore.Failed
			c.touch(last)
		}
		c.fail(n)
		return nil
	})
}

// Reconsider takes back that a block, its ancestors and what follows it were found to be not valid
// (Core's reconsiderblock).
func (c *Chain) Reconsider(ctx context.Context, hash bitcoin.Hash) error {
	return c.remark(ctx, hash, func(n node) error {
		for other := range node(c.tree.n) {
			h := c.tree.at(other)
			if h.status&blockstore.Invalid != 0 &&
				(c.tree.isAncestor(n, other) || c.tree.isAncestor(other, n)) {
				h.status &^= blockstore.Invalid
				delete(c.failures, other)
				c.touch(other)
			}
		}
		c.findBest()
		c.findInvalid()
		if c.cfg.HeadersOnly {
			c.follow()
		}
		return nil
	})
}

// Precious treats a block as if it had been here before all others with the same work (Core's
// preciousblock).
func (c *Chain) Precious(ctx context.Context, hash bitcoin.Hash) error {
	return c.remark(ctx, hash, func(n node) error {
		tip := c.tree.at(c.tip()).work
		if c.tree.at(n).work.cmp(tip) < 0 {
			return nil
		}
		if c.precious.next == 0 || tip.cmp(c.precious.work) > 0 {
			c.precious.next = -1
		}
		c.precious.work = tip
		c.tree.ownBody(n).sequence = c.precious.next
		c.precious.next--
		return nil
	})
}

// remark changes what is thought of a block, and lets the chain follow. change is called with mu
// held, by the mover.
func (c *Chain) remark(ctx context.Context, hash bitcoin.Hash, change func(node) error) error {
	err := c.alone(ctx, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		n := c.tree.find(&hash)
		if n == none {
			return fmt.Errorf("%w: %v", ErrUnknownBlock, hash)
		}
		err := change(n)
		c.renominate()
		return err
	})
	if err != nil {
		return err
	}
	c.tipWakes.wake()
	_, err = c.Activate(ctx, bitcoin.Hash{})
	return err
}
