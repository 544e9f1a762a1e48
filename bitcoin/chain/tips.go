package chain

import (
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
)

// TipStatus is the state of a branch by the word of Core's getchaintips.
type TipStatus string

// The states of a branch.
const (
	TipActive       TipStatus = "active"        // the best chain
	TipValidFork    TipStatus = "valid-fork"    // fully validated, but not the best
	TipValidHeaders TipStatus = "valid-headers" // all blocks are here, not all were ever connected
	TipHeadersOnly  TipStatus = "headers-only"  // not all blocks are here
	TipInvalid      TipStatus = "invalid"       // has an invalid block
)

// BranchTip is the end of a branch.
type BranchTip struct {
	Hash      bitcoin.Hash
	Height    bitcoin.Height
	BranchLen int // blocks since the fork with the best chain
	Status    TipStatus
}

// Tips returns the ends of all branches, the highest first.
func (c *Chain) Tips() []BranchTip {
	c.mu.Lock()
	defer c.mu.Unlock()
	var tips []BranchTip
	for _, n := range c.leaves() {
		h := c.tree.at(n)
		fork := c.tree.fork(n, c.tip())
		tips = append(tips, BranchTip{
			Hash:      h.hash,
			Height:    h.height,
			BranchLen: int(h.height - c.tree.at(fork).height),
			Status:    c.tipStatus(n),
		})
	}
	slices.SortStableFunc(tips, func(a, b BranchTip) int { return int(b.Height - a.Height) })
	return tips
}

// leaves returns the blocks off the best chain that nothing follows, and the tip. The caller holds
// mu.
func (c *Chain) leaves() []node {
	leaves := []node{c.tip()}
	followed := make([]bool, c.tree.n)
	for n := node(c.tree.n - 1); n > 0; n-- { // children come after their parents
		if c.isActive(n) {
			continue
		}
		followed[c.tree.at(n).parent] = true
		if !followed[n] {
			leaves = append(leaves, n)
		}
	}
	return leaves
}

func (c *Chain) tipStatus(n node) TipStatus {
	status := c.tree.at(n).status
	switch {
	case c.isActive(n):
		return TipActive
	case status&blockstore.Invalid != 0:
		return TipInvalid
	case c.tree.body(n).chainTxs == 0:
		return TipHeadersOnly
	case status&blockstore.Verified != 0:
		return TipValidFork
	}
	return TipValidHeaders
}
