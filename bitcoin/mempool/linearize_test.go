package mempool

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
)

// randomGraph returns a connected graph whose transactions spend from earlier ones.
func randomGraph(r *rand.Rand, n int) *graph {
	g := &graph{n: n}
	for i := range n {
		g.price[i] = Price{bitcoin.Amount(r.IntN(50)), 1 + r.Int64N(20)}
		for j := range i {
			if r.IntN(i) < 2 {
				g.parents[i] |= 1 << j
			}
		}
		if i > 0 && g.parents[i] == 0 {
			g.parents[i] = 1 << r.IntN(i)
		}
		g.ancestors[i] = 1 << i
		for set := g.parents[i]; set != 0; set &= set - 1 {
			g.ancestors[i] |= g.ancestors[bits.TrailingZeros64(set)]
		}
	}
	return g
}

// pricesOf returns the chunks of an order, after a check that it is one.
func pricesOf(t *testing.T, g *graph, order []int) []Price {
	t.Helper()
	var done uint64
	c := &cluster{}
	for _, i := range order {
		if g.ancestors[i]&^done != 1<<i || done&(1<<i) != 0 {
			t.Fatalf("order %v: %d comes before what it needs, or twice", order, i)
		}
		done |= 1 << i
		c.txs = append(c.txs, &Entry{Fee: g.price[i].Fee, Weight: g.price[i].Weight})
	}
	if done != g.all() {
		t.Fatalf("order %v leaves some of %d out", order, g.n)
	}
	c.cut()
	return diagram([]*cluster{c})
}

// bestByTrying finds the best chunks by looking at every set of transactions: again and again the set
// without missing parents that pays best, the largest such.
func bestByTrying(g *graph) (chunks []Price) {
	for left := g.all(); left != 0; {
		best, bestPrice := uint64(0), Price{}
		for set := left; set != 0; set = (set - 1) & left {
			closed := true
			for rest := set; rest != 0; rest &= rest - 1 {
				closed = closed && g.ancestors[bits.TrailingZeros64(rest)]&left&^set == 0
			}
			if !closed {
				continue
			}
			p := g.sum(set)
			if c := p.Cmp(bestPrice); best == 0 || c > 0 || c == 0 && p.Weight > bestPrice.Weight {
				best, bestPrice = set, p
			}
		}
		left &^= best
		chunks = append(chunks, bestPrice)
	}
	return chunks
}

func TestLinearizationIsBest(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 3000 {
		g := randomGraph(r, 2+r.IntN(9))
		got := pricesOf(t, g, g.improve(g.byAncestors()))
		want := bestByTrying(g)
		if improves(want, got) || improves(got, want) || total(got) != total(want) {
			t.Fatalf("round %d: chunks %v, best are %v; prices %v, parents %b",
				round, got, want, g.price[:g.n], g.parents[:g.n])
		}
	}
}

func total(list []Price) (sum Price) {
	for _, p := range list {
		sum = sum.add(p)
	}
	return sum
}

// TestLargeLinearizations: no brute force can tell the best, but none may be worse than where it began.
func TestLargeLinearizations(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		g := randomGraph(r, 20+r.IntN(45))
		before := g.byAncestors()
		after := g.improve(slices.Clone(before))
		if improves(pricesOf(t, g, before), pricesOf(t, g, after)) {
			t.Fatalf("%d transactions: the order got worse", g.n)
		}
	}
}

func TestDiagramsCompared(t *testing.T) {
	for _, row := range []struct {
		name     string
		new, old []Price
		improves bool
	}{
		{"the same", []Price{{10, 10}}, []Price{{10, 10}}, false},
		{"more fee", []Price{{11, 10}}, []Price{{10, 10}}, true},
		{"less fee", []Price{{9, 10}}, []Price{{10, 10}}, false},
		{"more fee for more weight at a worse rate", []Price{{15, 20}}, []Price{{10, 10}}, false},
		{"more at a better rate", []Price{{30, 20}}, []Price{{10, 10}}, true},
		{"better first, worse behind", []Price{{10, 5}, {0, 5}}, []Price{{10, 10}}, true},
		{"lower in the middle", []Price{{20, 20}}, []Price{{15, 10}, {4, 10}}, false},
		{"as much in less weight", []Price{{10, 5}}, []Price{{10, 10}}, true},
		{"in place of nothing", []Price{{1, 1}}, nil, true},
		{"crossing", []Price{{10, 10}, {1, 10}}, []Price{{9, 10}, {3, 10}}, false},
	} {
		if got := improves(row.new, row.old); got != row.improves {
			t.Errorf("%s: improves %v", row.name, got)
		}
	}
}

func BenchmarkLinearize(b *testing.B) {
	for _, n := range []int{2, 8, 25, 64} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := rand.New(rand.NewPCG(5, uint64(n)))
			graphs := make([]*graph, 16)
			for i := range graphs {
				graphs[i] = randomGraph(r, n)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				g := graphs[i%len(graphs)]
				g.improve(g.byAncestors())
			}
		})
	}
}
