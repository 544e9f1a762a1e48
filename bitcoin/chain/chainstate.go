package chain

import "github.com/tallypost/tallypost/bitcoin/blockstore"

// chainstate is the coins as of a block, the blocks up to it, and what is under way to bring both
// further. Tree, script runner and store are the Chain's.
type chainstate struct {
	coins  *blockstore.Coins
	active []node // blocks by height; guarded by Chain.mu and changed by the mover alone
	pipe   pipe   // the mover's; see move.go
	loader loader // the mover's

	base    node    // the snapshot's block that all this was built on; none: it was built on blocks alone
	assumed *string // why scripts are run, or are not; nil: not said yet; guarded by Chain.mu
}

// tip returns the last block. The caller holds mu, or is the mover.
func (s *chainstate) tip() node { return s.active[len(s.active)-1] }

// has reports whether a block is one of those up to the tip. The caller holds mu.
func (s *chainstate) has(t *tree, n node) bool {
	h := t.at(n).height
	return int(h) < len(s.active) && s.active[h] == n
}

// head returns the last block that is connected, its scripts perhaps still running. The caller is the
// mover and holds mu.
func (s *chainstate) head() node {
	if n := s.pipe.len(); n > 0 {
		return s.pipe.blocks[n-1].n
	}
	return s.tip()
}

// abort ends all scripts that are running, and forgets their blocks. The caller is the mover.
func (s *chainstate) abort() {
	s.pipe.clear()
	s.loader.clear()
}

// chainstates returns those that there are, first the one that tip and mempool follow. The caller is the
// mover, or holds mu.
func (c *Chain) chainstates() []*chainstate {
	if c.history == nil {
		return []*chainstate{c.main}
	}
	return []*chainstate{c.main, c.history}
}

// drainAll is drain for all chainstates.
func (c *Chain) drainAll() error {
	for _, s := range c.chainstates() {
		if err := c.drain(s); err != nil {
			return err
		}
	}
	return nil
}

// abort ends all that is under way. The caller is the mover.
func (c *Chain) abort() {
	for _, s := range c.chainstates() {
		s.abort()
	}
}

// rebalance shares the memory for coins out: most of it to the chainstate that has most to do (Bitcoin Core
// validation.cpp, MaybeRebalanceCaches). The caller holds mu.
func (c *Chain) rebalance() {
	all := c.store.CacheLimit()
	few, most := all/20, all-all/20
	switch {
	case c.history == nil:
		c.main.coins.SetLimit(all)
	case !c.synced:
		c.history.coins.SetLimit(few)
		c.main.coins.SetLimit(most)
	default:
		c.main.coins.SetLimit(few)
		c.history.coins.SetLimit(most)
	}
}
