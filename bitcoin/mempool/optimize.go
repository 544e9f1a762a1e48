package mempool

import "math/bits"

// splits is a division of a graph into chunks that a good order is refined with: a spanning forest. Some
// dependencies are active; what they connect is one chunk. A chunk whose upper part pays better than its
// lower part is cut apart at the dependency between them, and parts are joined to what must come with
// them. When no cut helps any more, the order is the best that there is (Bitcoin Core
// cluster_linearize.h, "spanning-forest linearization"; the idea and its proof are P. Wuille's).
type splits struct {
	*graph
	children [MaxClusterCount]uint64
	active   [MaxClusterCount]uint64 // neighbours by active dependencies
	chunk    [MaxClusterCount]uint64 // the chunk of a transaction
	sum      [MaxClusterCount]Price  // of the chunk, at its first transaction
	budget   int                     // cuts that may still be looked at
}

// maxCuts bounds the work for one cluster. Clusters of 64 that were made up to be hard need a few
// thousand, all others much less; what is left when it runs out is a good order all the same.
const maxCuts = 5000

// improve returns an order of positions at least as good as one that is given.
func (g *graph) improve(order []int) []int {
	s := splits{graph: g, budget: maxCuts}
	for i := range g.n {
		for set := g.parents[i]; set != 0; set &= set - 1 {
			s.children[bits.TrailingZeros64(set)] |= 1 << i
		}
		s.chunk[i], s.sum[i] = 1<<i, g.price[i]
	}
	for _, i := range order {
		s.joinUp(1 << i)
	}
	for s.cutOnce() {
	}
	return s.order(order)
}

func first(set uint64) int { return bits.TrailingZeros64(set) }

func (s *splits) paid(chunk uint64) Price { return s.sum[first(chunk)] }

func (s *splits) set(chunk uint64, p Price) {
	for rest := chunk; rest != 0; rest &= rest - 1 {
		s.chunk[first(rest)] = chunk
	}
	s.sum[first(chunk)] = p
}

// needs returns the transactions outside a chunk that it spends from; neededBy those that spend from it.
func (s *splits) needs(chunk uint64) (set uint64) {
	for rest := chunk; rest != 0; rest &= rest - 1 {
		set |= s.parents[first(rest)]
	}
	return set &^ chunk
}

func (s *splits) neededBy(chunk uint64) (set uint64) {
	for rest := chunk; rest != 0; rest &= rest - 1 {
		set |= s.children[first(rest)]
	}
	return set &^ chunk
}

// join makes one chunk of two, the first of which has a parent of the second, by a dependency that
// becomes active.
func (s *splits) join(upper, lower uint64) uint64 {
	paid := s.paid(upper).add(s.paid(lower))
	for rest := lower; rest != 0; rest &= rest - 1 {
		child := first(rest)
		if both := s.parents[child] & upper; both != 0 {
			parent := first(both)
			s.active[parent] |= 1 << child
			s.active[child] |= 1 << parent
			break
		}
	}
	s.set(upper|lower, paid)
	return upper | lower
}

// joinUp joins a chunk to those that it needs as long as one of them pays less, the worst first.
func (s *splits) joinUp(chunk uint64) uint64 {
	for {
		worst := uint64(0)
		for needs := s.needs(chunk); needs != 0; {
			c := s.chunk[first(needs)]
			needs &^= c
			if s.paid(c).Cmp(s.paid(chunk)) < 0 && (worst == 0 || s.paid(c).Cmp(s.paid(worst)) < 0) {
				worst = c
			}
		}
		if worst == 0 {
			return chunk
		}
		chunk = s.join(worst, chunk)
	}
}

// joinDown joins a chunk to those that need it as long as one of them pays more, the best first.
func (s *splits) joinDown(chunk uint64) uint64 {
	for {
		best := uint64(0)
		for needed := s.neededBy(chunk); needed != 0; {
			c := s.chunk[first(needed)]
			needed &^= c
			if s.paid(c).Cmp(s.paid(chunk)) > 0 && (best == 0 || s.paid(c).Cmp(s.paid(best)) > 0) {
				best = c
			}
		}
		if best == 0 {
			return chunk
		}
		chunk = s.join(chunk, best)
	}
}

// cutOnce looks at all active dependencies, and cuts those that hold a chunk together of which the upper
// part pays better. It reports whether there was one and there is budget to look again.
func (s *splits) cutOnce() (again bool) {
	for parent := range s.n {
		for rest := s.active[parent] & s.children[parent]; rest != 0; rest &= rest - 1 {
			child := first(rest)
			if s.active[parent]&(1<<child) == 0 {
				continue // cut meanwhile
			}
			if s.budget--; s.budget < 0 {
				return false
			}
			s.active[parent] &^= 1 << child
			s.active[child] &^= 1 << parent
			upper, lower := s.reach(parent), s.reach(child)
			up, low := s.graph.sum(upper), s.graph.sum(lower)
			if up.Cmp(low) <= 0 {
				s.active[parent] |= 1 << child
				s.active[child] |= 1 << parent
				continue
			}
			again = true
			s.set(upper, up)
			s.set(lower, low)
			if s.needs(upper)&lower != 0 { // it needs the other part as well: they stay one
				s.join(lower, upper)
				s.joinUp(s.chunk[parent])
				continue
			}
			s.joinUp(upper)
			s.joinDown(s.chunk[child])
		}
	}
	return again
}

// reach returns what active dependencies connect with a transaction.
func (s *splits) reach(i int) uint64 {
	set, todo := uint64(1)<<i, uint64(1)<<i
	for todo != 0 {
		j := first(todo)
		todo &= todo - 1
		more := s.active[j] &^ set
		set |= more
		todo |= more
	}
	return set
}

// order returns the best chunks first, each in the order that was given.
func (s *splits) order(given []int) []int {
	out := make([]int, 0, s.n)
	for left := s.all(); left != 0; {
		best := uint64(0)
		for rest := left; rest != 0; {
			c := s.chunk[first(rest)]
			rest &^= c
			if s.needs(c)&left == 0 && (best == 0 || s.paid(c).Cmp(s.paid(best)) > 0) {
				best = c
			}
		}
		if best == 0 { // chunks that need one another: cannot be, but must not hang
			best = left
		}
		left &^= best
		for _, i := range given {
			if best&(1<<i) != 0 {
				out = append(out, i)
			}
		}
	}
	return out
}
