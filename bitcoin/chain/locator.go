package chain

import "github.com/tallypost/tallypost/bitcoin"

// Locator returns hashes on the way from a block to the genesis block, ever further apart, by which
// a peer finds where its chain and ours part (Bitcoin Core chain.cpp, LocatorEntries). The zero
// hash stands for the tip. It is nil where the block is unknown.
func (c *Chain) Locator(hash bitcoin.Hash) []bitcoin.Hash {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.tip()
	if (hash != bitcoin.Hash{}) {
		n = c.tree.find(&hash)
	}
	var hashes []bitcoin.Hash
	step := bitcoin.Height(1)
	for n != none {
		h := c.tree.at(n)
		hashes = append(hashes, h.hash)
		if h.height == 0 {
			break
		}
		if len(hashes) > 10 {
			step *= 2
		}
		n = c.tree.ancestor(n, max(h.height-step, 0))
	}
	return hashes
}

// FindFork returns the last block of the best chain that a locator's owner has too: the first of
// its blocks that is part of our chain, or our tip if it has a block after that. Without any it is
// the genesis block (Bitcoin Core validation.cpp, FindForkInGlobalIndex).
func (c *Chain) FindFork(locator []bitcoin.Hash) Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entry(c.findFork(locator))
}

func (c *Chain) findFork(locator []bitcoin.Hash) node {
	for i := range locator {
		n := c.tree.find(&locator[i])
		switch {
		case n == none:
		case c.isActive(n):
			return n
		case c.tree.isAncestor(c.tip(), n):
			return c.tip()
		}
	}
	return c.main.active[0]
}

// HeadersAfter returns up to max headers of the best chain that follow the fork with a locator's
// owner, up to and with the block stop: the answer to getheaders. With no locator it is the header
// of stop alone, whether on the best chain or not.
func (c *Chain) HeadersAfter(
	locator []bitcoin.Hash, stop bitcoin.Hash, max int,
) []bitcoin.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	var headers []bitcoin.Header
	for _, n := range c.after(locator, stop, max) {
		headers = append(headers, c.tree.header(n))
	}
	return headers
}

// HashesAfter is HeadersAfter for hashes: the answer to getblocks, but for stop, which it has too.
func (c *Chain) HashesAfter(locator []bitcoin.Hash, stop bitcoin.Hash, max int) []bitcoin.Hash {
	c.mu.Lock()
	defer c.mu.Unlock()
	var hashes []bitcoin.Hash
	for _, n := range c.after(locator, stop, max) {
		hashes = append(hashes, c.tree.at(n).hash)
	}
	return hashes
}

func (c *Chain) after(locator []bitcoin.Hash, stop bitcoin.Hash, max int) []node {
	if len(locator) == 0 {
		if n := c.tree.find(&stop); n != none {
			return []node{n}
		}
		return nil
	}
	from := int(c.tree.at(c.findFork(locator)).height) + 1
	nodes := c.main.active[from:min(len(c.main.active), from+max)]
	for i, n := range nodes {
		if c.tree.at(n).hash == stop {
			return nodes[:i+1]
		}
	}
	return nodes
}
