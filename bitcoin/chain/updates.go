package chain

import (
	"fmt"
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
)

// Cursor is how far a follower of the chain has come: the last block that it has taken in. The zero
// Cursor is before the genesis block.
type Cursor struct {
	Hash   bitcoin.Hash
	Height bitcoin.Height
}

// Updates lead from a cursor towards the tip.
type Updates struct {
	Reverted []Entry // blocks to take back, the last one first
	Applied  []Entry // blocks to take in, in their order
	Next     Cursor  // where the follower is after both
	Behind   int     // blocks that are still to come
}

// UpdatesSince returns what a follower must take back and take in to come from its cursor to the
// best chain, at most max blocks of both together. It answers with nothing where the follower is
// at the tip. The error wraps ErrUnknownBlock where the cursor's block is unknown: the follower
// belongs to another chain.
func (c *Chain) UpdatesSince(cursor Cursor, max int) (Updates, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.updates(c.tip(), cursor, max)
}

// ValidatedSince is UpdatesSince for who needs every block from the first one on, in order: the best chain
// is followed where all of it was validated here, else its history, as far as that has come.
func (c *Chain) ValidatedSince(cursor Cursor, max int) (Updates, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.updates(c.validated().tip(), cursor, max)
}

// ValidatedTip returns the end of what ValidatedSince follows.
func (c *Chain) ValidatedTip() Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entry(c.validated().tip())
}

// validated returns the chainstate that was built on blocks alone, as far as we know. The caller holds mu.
func (c *Chain) validated() *chainstate {
	if c.history != nil {
		return c.history
	}
	return c.main
}

// Detours returns the tips that what ValidatedSince follows has left, the first one first, but for those before
// a number of them. Who wants to see every block that was ever connected, even if it comes late, goes to each by
// UpdatesTo before it goes on; who only wants to be where the chain is need not.
func (c *Chain) Detours(before int) []Cursor {
	c.mu.Lock()
	defer c.mu.Unlock()
	if before >= len(c.detours) {
		return nil
	}
	return slices.Clone(c.detours[before:])
}

// UpdatesTo is UpdatesSince towards a block that was the tip once.
func (c *Chain) UpdatesTo(to, cursor Cursor, max int) (Updates, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.tree.find(&to.Hash)
	if n == none {
		return Updates{Next: cursor}, fmt.Errorf("%w: %v", ErrUnknownBlock, to.Hash)
	}
	return c.updates(n, cursor, max)
}

// detour notes that a tip is left, unless one that builds on it was the last one to be left. The caller holds
// mu.
func (c *Chain) detour(n node) {
	if last := len(c.detours) - 1; last >= 0 {
		if left := c.tree.find(&c.detours[last].Hash); left != none && c.tree.isAncestor(n, left) {
			return
		}
	}
	h := c.tree.at(n)
	c.detours = append(c.detours, Cursor{h.hash, h.height})
}

// updates leads to a block. The caller holds mu.
func (c *Chain) updates(to node, cursor Cursor, max int) (Updates, error) {
	u := Updates{Next: cursor}
	height, end := bitcoin.Height(-1), c.tree.at(to).height
	if cursor != (Cursor{}) {
		n := c.tree.find(&cursor.Hash)
		if n == none {
			return u, fmt.Errorf("%w: %v", ErrUnknownBlock, cursor.Hash)
		}
		fork := c.tree.fork(n, to)
		for ; n != fork && len(u.Reverted) < max; n = c.tree.at(n).parent {
			u.Reverted = append(u.Reverted, c.entry(n))
		}
		u.Next = Cursor{c.tree.at(n).hash, c.tree.at(n).height}
		height = c.tree.at(fork).height
		if n != fork {
			u.Behind = int(end - height)
			return u, nil
		}
	}
	count := min(max-len(u.Reverted), int(end-height))
	u.Behind = int(end-height) - count
	if count > 0 {
		u.Applied = make([]Entry, count)
		n := c.tree.ancestor(to, height+bitcoin.Height(count))
		u.Next = Cursor{c.tree.at(n).hash, c.tree.at(n).height}
		for i := range u.Applied {
			u.Applied[count-1-i] = c.entry(n)
			n = c.tree.at(n).parent
		}
	}
	return u, nil
}
