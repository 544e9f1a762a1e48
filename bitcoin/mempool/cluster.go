package mempool

import (
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
)

// MaxClusterCount is the largest number of transactions that a cluster can be allowed to have.
const MaxClusterCount = 64

// cluster is a set of transactions connected by spending one another, in the order in which they
// would be mined: parents before children, what pays best first. The order is cut into chunks, each
// of which pays less for its weight than the one before: chunks are what is mined or evicted as
// one. Core describes the idea in txgraph.h; here clusters are small enough to be put in order anew
// whenever they change.
type cluster struct {
	txs    []*Entry
	chunks []chunk
	weight int64  // of all
	at     int    // position in the heap of clusters
	seen   uint64 // see Pool.epoch

	// Most clusters are one transaction: what it takes is here.
	oneTx    [1]*Entry
	oneChunk [1]chunk
}

// chunk is a part of a cluster: its transactions from one up to another.
type chunk struct {
	from, to int
	Price
}

func (c *cluster) last() *chunk { return &c.chunks[len(c.chunks)-1] }

// chunkOf returns the chunk of a transaction of the cluster.
func (c *cluster) chunkOf(rank int) *chunk {
	i, _ := slices.BinarySearchFunc(c.chunks, rank, func(ch chunk, rank int) int {
		return ch.to - 1 - rank
	})
	return &c.chunks[i]
}

// What Entry.slot holds while transactions are being arranged, beside their position.
const (
	noSlot = 0  // it does not take part
	gone   = -1 // it leaves
)

// edge says that one transaction spends from another which does not have it among its parents: it
// came first.
type edge struct{ parent, child *Entry }

// arrange puts transactions into clusters. Their parents count as far as they are among them.
func arrange(txs []*Entry, extra []edge) []*cluster {
	if len(txs) == 1 {
		return []*cluster{single(txs[0])}
	}
	groups := components(txs, extra)
	clusters := make([]*cluster, len(groups))
	for i, group := range groups {
		if len(group) == 1 {
			clusters[i] = single(group[0])
		} else {
			clusters[i] = newCluster(group, extra)
		}
	}
	return clusters
}

func single(e *Entry) *cluster {
	c := &cluster{weight: e.Weight}
	c.oneTx[0] = e
	c.oneChunk[0] = chunk{0, 1, e.price()}
	c.txs, c.chunks = c.oneTx[:], c.oneChunk[:]
	return c
}

// number gives transactions the slots from 1 on.
func number(txs []*Entry) {
	for i, e := range txs {
		e.slot = int32(i + 1)
	}
}

func unnumber(txs []*Entry) {
	for _, e := range txs {
		e.slot = noSlot
	}
}

// components divides transactions into groups that are linked, keeping their order.
func components(txs []*Entry, extra []edge) [][]*Entry {
	number(txs)
	defer unnumber(txs)
	roots := make(forest, len(txs))
	for i := range roots {
		roots[i] = int32(i)
	}
	left := len(txs) // groups
	link := func(a, b int32) {
		if roots.join(a-1, b-1) {
			left--
		}
	}
	for _, e := range txs {
		for _, parent := range e.parents {
			if parent.slot > 0 {
				link(e.slot, parent.slot)
			}
		}
	}
	for _, x := range extra {
		if x.parent.slot > 0 && x.child.slot > 0 {
			link(x.parent.slot, x.child.slot)
		}
	}
	if left == 1 {
		return [][]*Entry{txs}
	}
	groups := make([][]*Entry, 0, left)
	place := make([]int32, len(txs)) // 1 + index of the group of a root
	for i, e := range txs {
		root := roots.find(int32(i))
		if place[root] == 0 {
			groups = append(groups, nil)
			place[root] = int32(len(groups))
		}
		groups[place[root]-1] = append(groups[place[root]-1], e)
	}
	return groups
}

// forest is a union-find structure: each element names one that is nearer to the root of its set.
type forest []int32

func (f forest) find(i int32) int32 {
	for f[i] != i {
		f[i] = f[f[i]]
		i = f[i]
	}
	return i
}

// join unites two sets, unless they are one.
func (f forest) join(a, b int32) bool {
	a, b = f.find(a), f.find(b)
	f[max(a, b)] = min(a, b)
	return a != b
}

// newCluster puts the transactions of one component in order. More than MaxClusterCount cannot be
// put in their best order: they keep an order that is allowed, as one chunk. Only a reorganisation
// makes so many, and they are cut down at once.
func newCluster(txs []*Entry, extra []edge) *cluster {
	number(txs)
	txs = topological(txs, extra)
	number(txs)
	defer unnumber(txs)
	c := &cluster{txs: txs}
	var whole Price
	for _, e := range txs {
		whole = whole.add(e.price())
	}
	c.weight = whole.Weight
	if len(txs) > MaxClusterCount {
		c.chunks = []chunk{{0, len(txs), whole}}
		return c
	}
	var g graph
	g.fill(txs, extra)
	c.txs = g.linearize(txs)
	c.cut()
	return c
}

// topological returns numbered transactions with parents before children: as they are, if they are
// so.
func topological(txs []*Entry, extra []edge) []*Entry {
	sorted := true
	for _, e := range txs {
		for _, parent := range e.parents {
			sorted = sorted && parent.slot < e.slot
		}
	}
	for _, x := range extra {
		sorted = sorted && (x.child.slot <= 0 || x.parent.slot < x.child.slot)
	}
	if sorted {
		return txs
	}
	done := make([]bool, len(txs))
	out := make([]*Entry, 0, len(txs))
	var visit func(e *Entry)
	visit = func(e *Entry) {
		if e.slot <= 0 || done[e.slot-1] {
			return
		}
		done[e.slot-1] = true
		for _, parent := range e.parents {
			visit(parent)
		}
		for _, x := range extra {
			if x.child == e {
				visit(x.parent)
			}
		}
		out = append(out, e)
	}
	for _, e := range txs {
		visit(e)
	}
	return out
}

// cut divides the order into chunks: what pays better than what is before it joins that.
func (c *cluster) cut() {
	c.chunks = make([]chunk, 0, len(c.txs))
	for i, e := range c.txs {
		next := chunk{i, i + 1, e.price()}
		for len(c.chunks) > 0 && next.Cmp(c.last().Price) > 0 {
			before := c.last()
			next = chunk{before.from, next.to, before.add(next.Price)}
			c.chunks = c.chunks[:len(c.chunks)-1]
		}
		c.chunks = append(c.chunks, next)
	}
}

// diagram returns the chunks of clusters, the best first.
func diagram(clusters []*cluster) []Price {
	var all []Price
	for _, c := range clusters {
		for _, ch := range c.chunks {
			all = append(all, ch.Price)
		}
	}
	slices.SortFunc(all, func(a, b Price) int { return b.Cmp(a) })
	return all
}

// improves reports whether a diagram is nowhere below another and somewhere above it: whatever
// part of the weight a miner takes, it brings no less in fees (Bitcoin Core util/feefrac.cpp,
// CompareChunks).
func improves(fresh, old []Price) bool {
	better := false
	var x, y Price // sums up to a corner of each
	for i, j := 0, 0; i < len(fresh) || j < len(old); {
		// The diagram whose next corner comes first is held against the line of the other.
		atNew := j == len(old) || i < len(fresh) && x.Weight+fresh[i].Weight <= y.Weight+old[j].Weight
		var sign int
		if atNew {
			x = x.add(fresh[i])
			i++
			sign = above(x, y, old[j:])
		} else {
			y = y.add(old[j])
			j++
			sign = -above(y, x, fresh[i:])
		}
		if sign < 0 {
			return false
		}
		better = better || sign > 0
	}
	return better
}

// above compares a corner with the line of another diagram, which goes from a corner before it
// along the first chunk of the rest; without a rest it is level.
func above(corner, from Price, rest []Price) int {
	step := Price{corner.Fee - from.Fee, corner.Weight - from.Weight}
	if len(rest) == 0 || step.Weight == 0 {
		return signOf(step.Fee)
	}
	return step.Cmp(rest[0])
}

func signOf(a bitcoin.Amount) int {
	switch {
	case a < 0:
		return -1
	case a > 0:
		return 1
	}
	return 0
}
