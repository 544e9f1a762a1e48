package chain

import "github.com/tallypost/tallypost/bitcoin/blockstore"

// chainstate is the coins as of a block, the blocks up to it, and what is under way to bring both
// further. Tree, script runner and store are the Chain's.
type chainstate struct {
	coins  *blockstore.Coins
	active []node // blocks by height; guarded by Chain.mu and changed by the mover alone
	pipe   pipe   // the mover's; see move.go
	loader loader // the mover's
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
