package mempool

import "math/bits"

// graph is a cluster of at most MaxClusterCount transactions, in an order that is allowed, as sets of
// positions.
type graph struct {
	n         int
	price     [MaxClusterCount]Price
	parents   [MaxClusterCount]uint64
	ancestors [MaxClusterCount]uint64 // itself included
}

// fill describes numbered transactions with parents before children.
func (g *graph) fill(txs []*Entry, extra []edge) {
	g.n = len(txs)
	for _, x := range extra {
		if x.parent.slot > 0 && x.child.slot > 0 {
			g.parents[x.child.slot-1] |= 1 << (x.parent.slot - 1)
		}
	}
	for i, e := range txs {
		g.price[i] = e.price()
		for _, parent := range e.parents {
			if parent.slot > 0 {
				g.parents[i] |= 1 << (parent.slot - 1)
			}
		}
		g.ancestors[i] = 1 << i
		for set := g.parents[i]; set != 0; set &= set - 1 {
			g.ancestors[i] |= g.ancestors[bits.TrailingZeros64(set)]
		}
	}
}

func (g *graph) all() uint64 { return uint64(1)<<(g.n-1)<<1 - 1 }

func (g *graph) sum(set uint64) (sum Price) {
	for ; set != 0; set &= set - 1 {
		sum = sum.add(g.price[bits.TrailingZeros64(set)])
	}
	return sum
}

// linearize returns the transactions in the order in which they pay best.
func (g *graph) linearize(txs []*Entry) []*Entry {
	order := g.byAncestors()
	if g.n > 2 { // with two there is nothing left to choose
		order = g.improve(order)
	}
	out := make([]*Entry, g.n)
	for i, at := range order {
		out[i] = txs[at]
	}
	return out
}

// byAncestors returns the positions in a good order: again and again the best paying transaction is
// taken, counted together with its ancestors that are not taken yet.
func (g *graph) byAncestors() []int {
	var sums [MaxClusterCount]Price // of the ancestors that are left
	for i := range g.n {
		sums[i] = g.sum(g.ancestors[i])
	}
	out := make([]int, 0, g.n)
	for left := g.all(); left != 0; {
		best := -1
		for todo := left; todo != 0; todo &= todo - 1 {
			i := bits.TrailingZeros64(todo)
			if best < 0 || sums[i].Cmp(sums[best]) > 0 {
				best = i
			}
		}
		taken := g.ancestors[best] & left
		left &^= taken
		for set := taken; set != 0; set &= set - 1 {
			out = append(out, bits.TrailingZeros64(set))
		}
		for todo := left; todo != 0; todo &= todo - 1 {
			i := bits.TrailingZeros64(todo)
			sums[i] = sums[i].sub(g.sum(g.ancestors[i] & taken))
		}
	}
	return out
}
