package chain

import (
	"fmt"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// AddHeaders takes headers that follow one another into the tree and returns the last one that is
// in it, known before or not; it stops at the first that is not valid (Bitcoin Core validation.cpp,
// ProcessNewBlockHeaders). workChecked says that the chain they belong to is known to have enough
// work to be worth the memory: whoever gets headers from strangers has seen to that. Without it no
// new header is taken.
func (c *Chain) AddHeaders(headers []bitcoin.Header, workChecked bool) (Entry, error) {
	c.mu.Lock()
	before, last := c.best, none
	var err error
	for i := range headers {
		hash := headers[i].Hash()
		var n node
		if n, err = c.acceptHeader(&headers[i], hash, workChecked); err != nil {
			break
		}
		last = n
	}
	var entry Entry
	if last != none {
		entry = c.entry(last)
	}
	news := c.best != before
	c.mu.Unlock()
	if news {
		c.tipWakes.wake()
	}
	return entry, err
}

// acceptHeader returns the node of a header, which is added if it is new and valid. The caller
// holds mu.
func (c *Chain) acceptHeader(h *bitcoin.Header, hash bitcoin.Hash, workChecked bool) (node, error) {
	if n := c.tree.find(&hash); n != none {
		if c.tree.at(n).status&blockstore.Invalid != 0 {
			return none, &consensus.Error{Kind: consensus.KindCachedInvalid, Reason: "duplicate-invalid",
				Debug: fmt.Sprintf("block %v was previously marked invalid", hash)}
		}
		return n, nil
	}
	if !bitcoin.MeetsTarget(hash, h.Bits, c.cfg.Network.PowLimit) {
		return none, &consensus.Error{Kind: consensus.KindInvalidHeader, Reason: "high-hash",
			Debug: "proof of work failed"}
	}
	parent := c.tree.find(&h.PrevBlock)
	if parent == none {
		return none, &consensus.Error{Kind: consensus.KindMissingPrev, Reason: "prev-blk-not-found"}
	}
	if c.tree.at(parent).status&blockstore.Invalid != 0 {
		return none, &consensus.Error{Kind: consensus.KindInvalidPrev, Reason: "bad-prevblk"}
	}
	state := c.state(parent)
	if err := consensus.CheckHeaderAt(state, h, c.cfg.Clock.Now()); err != nil {
		return none, err
	}
	if !workChecked {
		return none, &consensus.Error{Kind: consensus.KindLowWork, Reason: "too-little-chainwork"}
	}
	n := c.tree.add(h, &hash, parent)
	next := state.Apply(h, hash)
	c.states.put(n, &next)
	c.touch(n)
	if c.tree.at(n).work.cmp(c.tree.at(c.best).work) > 0 {
		c.best = n
		if c.cfg.HeadersOnly {
			c.follow()
		}
	}
	return n, nil
}

// follow makes the best header the tip, where headers are all there is. The caller holds mu.
func (c *Chain) follow() {
	h := int(c.tree.at(c.best).height)
	if len(c.main.active) > h+1 {
		c.main.active = c.main.active[:h+1]
	}
	for len(c.main.active) < h+1 {
		c.main.active = append(c.main.active, none)
	}
	for n := c.best; c.main.active[h] != n; n, h = c.tree.at(n).parent, h-1 {
		c.main.active[h] = n
	}
	c.changed()
}

// failHeader is Invalidate where headers are all there is. The caller holds mu.
func (c *Chain) failHeader(n node) {
	if c.isActive(n) {
		c.main.active = c.main.active[:c.tree.at(n).height]
	}
	c.fail(n)
	c.follow()
}
