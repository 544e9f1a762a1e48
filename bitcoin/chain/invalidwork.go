package chain

import (
	"fmt"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
)

// forkWarningBlocks is by how many blocks an invalid branch must be ahead before people are told (Bitcoin
// Core validation.cpp, CheckForkWarningConditions).
const forkWarningBlocks = 6

// LargeInvalidFork reports whether some branch that is not valid by this node's rules has far more work than
// the best chain: the node's data may be damaged, or its rules others than everybody's.
func (c *Chain) LargeInvalidFork() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bestInvalid == none {
		return false
	}
	tip := c.tree.at(c.tip())
	limit, proof := tip.work, makeWork(bitcoin.Work(tip.bits))
	for range forkWarningBlocks {
		limit = limit.add(proof)
	}
	return c.tree.at(c.bestInvalid).work.cmp(limit) > 0
}

// noteInvalid remembers a block that is not valid if none has more work. The caller holds mu.
func (c *Chain) noteInvalid(n node) {
	if c.bestInvalid == none || c.tree.at(n).work.cmp(c.tree.at(c.bestInvalid).work) > 0 {
		c.bestInvalid = n
	}
}

// findInvalid looks for the block with the most work among those that are not valid. The caller holds mu.
func (c *Chain) findInvalid() {
	c.bestInvalid = none
	for n := range node(c.tree.n) {
		if c.tree.at(n).status&blockstore.Invalid != 0 {
			c.noteInvalid(n)
		}
	}
}

// logInvalid tells of a block that is not valid. The caller holds mu.
func (c *Chain) logInvalid(n node) {
	for _, of := range []struct {
		what string
		n    node
	}{{"invalid block", n}, {" current best", c.tip()}} {
		h := c.tree.at(of.n)
		c.cfg.Log.Info(fmt.Sprintf("InvalidChainFound: %s=%v  height=%d  log2_work=%f  date=%s", of.what, h.hash,
			h.height, h.work.log2(), isoTime(h.time)))
	}
}
