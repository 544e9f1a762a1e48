package chain

import (
	"fmt"

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
	return c.updates(c.main, cursor, max)
}

// ValidatedSince is UpdatesSince for who needs every block from the first one on, in order: the best chain
// is followed where all of it was validated here, else its history, as far as that has come.
func (c *Chain) ValidatedSince(cursor Cursor, max int) (Updates, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.updates(c.validated(), cursor, max)
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

// updates is UpdatesSince along a chainstate. The caller holds mu.
func (c *Chain) updates(s *chainstate, cursor Cursor, max int) (Updates, error) {
	u := Updates{Next: cursor}
	height := bitcoin.Height(-1)
	if cursor != (Cursor{}) {
		n := c.tree.find(&cursor.Hash)
		if n == none {
			return u, fmt.Errorf("%w: %v", ErrUnknownBlock, cursor.Hash)
		}
		for ; !s.has(&c.tree, n) && len(u.Reverted) < max; n = c.tree.at(n).parent {
			u.Reverted = append(u.Reverted, c.entry(n))
		}
		u.Next = Cursor{c.tree.at(n).hash, c.tree.at(n).height}
		height = c.tree.at(n).height
		if !s.has(&c.tree, n) {
			fork := c.tree.fork(n, s.tip())
			u.Behind = len(s.active) - 1 - int(c.tree.at(fork).height)
			return u, nil
		}
	}
	for height+1 < bitcoin.Height(len(s.active)) && len(u.Reverted)+len(u.Applied) < max {
		height++
		e := c.entry(s.active[height])
		u.Applied = append(u.Applied, e)
		u.Next = Cursor{e.Hash, e.Height}
	}
	u.Behind = len(s.active) - 1 - int(height)
	return u, nil
}
