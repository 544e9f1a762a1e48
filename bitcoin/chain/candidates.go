package chain

import "container/heap"

// candidates are the blocks that could become the tip: all blocks up to them are or were here, none
// is known to be invalid, and they have no less work than the tip. It is a heap whose top is the
// best of them; what has become worse than the tip since may linger at the bottom.
type candidates struct {
	tree    *tree
	nodes   []node
	checked int // twice their number after the last trim
}

// better reports whether a is to be preferred to b as a tip: for its work, then because it was here
// first (Bitcoin Core node/blockstorage.cpp, CBlockIndexWorkComparator).
func (t *tree) better(a, b node) bool {
	if c := t.at(a).work.cmp(t.at(b).work); c != 0 {
		return c > 0
	}
	if x, y := t.body(a).sequence, t.body(b).sequence; x != y {
		return x < y
	}
	return a < b
}

// Len, Less, Swap, Push and Pop are for container/heap.
func (c *candidates) Len() int           { return len(c.nodes) }
func (c *candidates) Less(i, j int) bool { return c.tree.better(c.nodes[i], c.nodes[j]) }
func (c *candidates) Swap(i, j int)      { c.nodes[i], c.nodes[j] = c.nodes[j], c.nodes[i] }
func (c *candidates) Push(x any)         { c.nodes = append(c.nodes, x.(node)) }
func (c *candidates) Pop() any {
	last := c.nodes[len(c.nodes)-1]
	c.nodes = c.nodes[:len(c.nodes)-1]
	return last
}

func (c *candidates) add(n node) { heap.Push(c, n) }
func (c *candidates) drop()      { heap.Pop(c) }

// top returns the best candidate, or none.
func (c *candidates) top() node {
	if len(c.nodes) == 0 {
		return none
	}
	return c.nodes[0]
}

// trim forgets candidates that have become worse than the tip, once there are many.
func (c *candidates) trim(tip node) {
	if len(c.nodes) < c.checked+1024 {
		return
	}
	left := c.nodes[:0]
	for _, n := range c.nodes {
		if c.tree.at(n).work.cmp(c.tree.at(tip).work) >= 0 {
			left = append(left, n)
		}
	}
	c.nodes = left
	c.checked = 2 * len(left)
	heap.Init(c)
}
