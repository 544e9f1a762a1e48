package mempool

import (
	"math/bits"
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
	at     int // position in the heap of clusters
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

// weight returns the weight of the whole cluster.
func (c *cluster) weight() (sum int64) {
	for _, e := range c.txs {
		sum += e.Weight
	}
	return sum
}

// order puts transactions into clusters, given which of them are linked. links returns those that
// one is linked to, be it as a parent or as a child, among others that do not belong; parents those
// that it spends from.
func order(txs []*Entry, links relations) []*cluster {
	member := make(map[*Entry]int, len(txs)) // position among txs, -1 once it is in a cluster
	for i, e := range txs {
		member[e] = i
	}
	var clusters []*cluster
	for _, e := range txs {
		if member[e] < 0 {
			continue
		}
		component := []*Entry{e}
		member[e] = -1
		for i := 0; i < len(component); i++ {
			for _, other := range links.neighbours(component[i]) {
				if at, ok := member[other]; ok && at >= 0 {
					member[other] = -1
					component = append(component, other)
				}
			}
		}
		clusters = append(clusters, newCluster(component, links))
	}
	return clusters
}

// relations tells how transactions are linked, with those of a new one that is not in the pool yet.
type relations struct {
	fresh    *Entry
	children []*Entry // of fresh; its parents are in the entry
}

func (r relations) parents(e *Entry) []*Entry {
	if r.fresh != nil && slices.Contains(r.children, e) {
		return append(slices.Clip(e.parents), r.fresh)
	}
	return e.parents
}

func (r relations) neighbours(e *Entry) []*Entry {
	if e == r.fresh {
		return append(slices.Clip(e.parents), r.children...)
	}
	all := append(slices.Clip(r.parents(e)), e.children...)
	if r.fresh != nil && slices.Contains(r.fresh.parents, e) {
		all = append(all, r.fresh)
	}
	return all
}

// newCluster puts the transactions of one component in order. More than MaxClusterCount cannot be
// put in their best order: they keep an order that is allowed, as one chunk. Only a reorganisation
// makes so many, and they are cut down at once.
func newCluster(txs []*Entry, links relations) *cluster {
	txs = topological(txs, links)
	c := &cluster{txs: txs}
	if len(txs) <= MaxClusterCount {
		c.linearize(links)
		c.cut()
		return c
	}
	whole := chunk{to: len(txs)}
	for _, e := range txs {
		whole.Price = whole.add(e.price())
	}
	c.chunks = []chunk{whole}
	return c
}

// topological returns the transactions with parents before children.
func topological(txs []*Entry, links relations) []*Entry {
	const open, done = 1, 2
	state := make(map[*Entry]int, len(txs))
	for _, e := range txs {
		state[e] = open
	}
	sorted := make([]*Entry, 0, len(txs))
	var visit func(e *Entry)
	visit = func(e *Entry) {
		if state[e] != open {
			return
		}
		state[e] = done
		for _, parent := range links.parents(e) {
			visit(parent)
		}
		sorted = append(sorted, e)
	}
	for _, e := range txs {
		visit(e)
	}
	return sorted
}

// linearize puts the transactions, which are in an order that is allowed, into a good one: again
// and again the best paying transaction is taken, counted together with its ancestors that are not
// taken yet.
func (c *cluster) linearize(links relations) {
	n := len(c.txs)
	if n == 1 {
		return
	}
	ancestors := c.ancestors(links)
	left := uint64(1)<<(n-1)<<1 - 1
	sorted := make([]*Entry, 0, n)
	for left != 0 {
		best, bestPrice := uint64(0), Price{}
		for todo := left; todo != 0; todo &= todo - 1 {
			set := ancestors[bits.TrailingZeros64(todo)] & left
			if p := c.sum(set); best == 0 || p.Cmp(bestPrice) > 0 {
				best, bestPrice = set, p
			}
		}
		left &^= best
		for ; best != 0; best &= best - 1 {
			sorted = append(sorted, c.txs[bits.TrailingZeros64(best)])
		}
	}
	c.txs = sorted
}

// ancestors returns the set of ancestors of each transaction, itself included.
func (c *cluster) ancestors(links relations) []uint64 {
	position := make(map[*Entry]int, len(c.txs))
	for i, e := range c.txs {
		position[e] = i
	}
	sets := make([]uint64, len(c.txs))
	for i, e := range c.txs {
		sets[i] = 1 << i
		for _, parent := range links.parents(e) {
			if at, ok := position[parent]; ok {
				sets[i] |= sets[at]
			}
		}
	}
	return sets
}

func (c *cluster) sum(set uint64) (sum Price) {
	for ; set != 0; set &= set - 1 {
		sum = sum.add(c.txs[bits.TrailingZeros64(set)].price())
	}
	return sum
}

// cut divides the order into chunks: what pays better than what is before it joins that.
func (c *cluster) cut() {
	c.chunks = c.chunks[:0]
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
