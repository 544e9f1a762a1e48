package mempool

import (
	"math"
	"time"
)

// floor is the rate below which nothing enters: a little above what was evicted last, halved again
// and again as time passes (Bitcoin Core txmempool.cpp, GetMinFee).
type floor struct {
	rate    float64
	updated time.Time
	decays  bool // a block has come since something was evicted
}

// halfLife is the time in which the floor falls by half while the pool is full.
const halfLife = 12 * time.Hour

// MinFee returns the least rate at which a transaction enters the pool now, because of what was
// evicted; the MinRelayFee of the Config counts besides.
func (p *Pool) MinFee(now time.Time) FeeRate {
	f := &p.floor
	if !f.decays || f.rate == 0 {
		return FeeRate(math.Round(f.rate))
	}
	if passed := now.Sub(f.updated); passed > 10*time.Second {
		half := halfLife
		switch {
		case p.usage < p.cfg.MaxBytes/4:
			half /= 4
		case p.usage < p.cfg.MaxBytes/2:
			half /= 2
		}
		f.rate /= math.Exp2(passed.Seconds() / half.Seconds())
		f.updated = now
		if f.rate < float64(p.cfg.IncrementalFee)/2 {
			f.rate = 0
			return 0
		}
	}
	return max(FeeRate(math.Round(f.rate)), p.cfg.IncrementalFee)
}

// raiseFloor notes what the transactions paid that were evicted, and returns the least rate that follows.
func (p *Pool) raiseFloor(evicted Price) FeeRate {
	rate := Rate(evicted.Fee, evicted.vsize()) + p.cfg.IncrementalFee
	if float64(rate) > p.floor.rate {
		p.floor.rate, p.floor.decays = float64(rate), false
	}
	return rate
}

// blockCame lets the floor fall from now on.
func (p *Pool) blockCame(now time.Time) { p.floor.updated, p.floor.decays = now, true }

// clusterHeap has the cluster on top whose last chunk pays worst: what is evicted first.
type clusterHeap []*cluster

// Len, Less, Swap, Push and Pop are for container/heap.
func (h clusterHeap) Len() int { return len(h) }

func (h clusterHeap) Less(i, j int) bool {
	return h[i].last().Cmp(h[j].last().Price) < 0
}

func (h clusterHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push adds a cluster.
func (h *clusterHeap) Push(x any) {
	c := x.(*cluster)
	c.at = len(*h)
	*h = append(*h, c)
}

// Pop removes the last cluster.
func (h *clusterHeap) Pop() any {
	old := *h
	c := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return c
}
