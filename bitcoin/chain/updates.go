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
	u := Updates{Next: cursor}
	height := bitcoin.Height(-1)
	if cursor != (Cursor{}) {
		n := c.tree.find(&cursor.Hash)
		if n == none {
			return u, fmt.Errorf("%w: %v", ErrUnknownBlock, cursor.Hash)
		}
		for ; !c.isActive(n) && len(u.Reverted) < max; n = c.tree.at(n).parent {
			u.Reverted = append(u.Reverted, c.entry(n))
		}
		u.Next = Cursor{c.tree.at(n).hash, c.tree.at(n).height}
		height = c.tree.at(n).height
		if !c.isActive(n) {
			fork := c.tree.fork(n, c.tip())
			u.Behind = len(c.main.active) - 1 - int(c.tree.at(fork).height)
			return u, nil
		}
	}
	for height+1 < bitcoin.Height(len(c.main.active)) && len(u.Reverted)+len(u.Applied) < max {
		height++
		e := c.entry(c.main.active[height])
		u.Applied = append(u.Applied, e)
		u.Next = Cursor{e.Hash, e.Height}
	}
	u.Behind = len(c.main.active) - 1 - int(height)
	return u, nil
}
