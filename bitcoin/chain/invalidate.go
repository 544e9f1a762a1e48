package chain

import (
	"context"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
)

// preciousCount numbers the blocks that were called precious since the tip last had more work.
type preciousCount struct {
	work work
	next int32
}

// Invalidate marks a block as not valid, as if it broke a rule, and leaves its branch for the best
// other one. It is undone by Reconsider only.
func (c *Chain) Invalidate(ctx context.Context, hash bitcoin.Hash) error {
	return c.remark(ctx, hash, func(n node) error {
		for c.isActive(n) {
			if err := c.disconnectTip(); err != nil {
				return c.stop(err)
			}
		}
		c.fail(n)
		return nil
	})
}

// Reconsider takes back that a block, its ancestors and what follows it were found to be not valid.
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
		return nil
	})
}

// Precious treats a block as if it had been here before all others with the same work.
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

// remark changes what is thought of a block, and lets the chain follow.
func (c *Chain) remark(ctx context.Context, hash bitcoin.Hash, change func(node) error) error {
	c.moving.Lock()
	defer c.moving.Unlock()
	c.mu.Lock()
	n := c.tree.find(&hash)
	if n == none {
		c.mu.Unlock()
		return ErrUnknownBlock
	}
	err := change(n)
	c.candidates.nodes = nil
	for other := range node(c.tree.n) {
		h := c.tree.at(other)
		if h.status&blockstore.Invalid == 0 && c.tree.body(other).chainTxs != 0 {
			c.nominate(other)
		}
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	c.tipWakes.wake()
	return c.activate(ctx)
}
