package addrbook

import (
	"slices"
	"time"

	"github.com/tallypost/tallypost/bitcoin/wire"
)

// Select returns an address to connect to, of one of the networks where any are named, at random but
// rather one that has not failed lately.
func (b *Book) Select(newOnly bool, now time.Time, networks ...wire.Net) (Entry, bool) {
	defer b.begin()()
	inNew, inTried := b.newCount, b.triedCount
	if len(networks) > 0 {
		inNew, inTried = 0, 0
		for _, n := range networks {
			c := b.count(n)
			inNew, inTried = inNew+c.New, inTried+c.Tried
		}
	}
	if newOnly {
		inTried = 0
	}
	if inNew+inTried == 0 {
		return Entry{}, false
	}
	fromTried := inTried > 0 && (inNew == 0 || b.rng.IntN(2) == 0)
	for factor := 1.0; ; {
		id := b.pick(fromTried, networks)
		if id == -1 {
			continue // an empty bucket; the next one is another
		}
		e := b.entries[id]
		if b.rng.Float64() < factor*e.chance(now) {
			return *e, true
		}
		factor *= 1.2
	}
}

func (b *Book) pick(fromTried bool, networks []wire.Net) int64 {
	table := b.newTable[:]
	if fromTried {
		table = b.tried[:]
	}
	bucket := &table[b.rng.IntN(len(table))]
	start := b.rng.IntN(bucketSize)
	for i := range bucketSize {
		id := bucket[(start+i)%bucketSize]
		if id != -1 && (len(networks) == 0 || slices.Contains(networks, b.entries[id].Net)) {
			return id
		}
	}
	return -1
}

// Addrs returns random addresses: at most so many, and at most so many of a hundred, 0 being no limit; of
// one network, if it is not NetNone. Bad ones are left out unless all is set.
func (b *Book) Addrs(most, percent int, network wire.Net, all bool, now time.Time) []wire.KnownAddr {
	defer b.begin()()
	n := len(b.random)
	if percent > 0 {
		n = n * min(percent, 100) / 100
	}
	if most > 0 {
		n = min(n, most)
	}
	out := make([]wire.KnownAddr, 0, n)
	for i := 0; i < len(b.random) && len(out) < n; i++ {
		b.swap(i, i+b.rng.IntN(len(b.random)-i))
		e := b.entries[b.random[i]]
		if (network == wire.NetNone || e.Net == network) && (all || !e.terrible(now)) {
			out = append(out, e.KnownAddr)
		}
	}
	return out
}

// Table returns all places that are taken in new or tried.
func (b *Book) Table(tried bool) []Place {
	b.mu.Lock()
	defer b.mu.Unlock()
	table := b.newTable[:]
	if tried {
		table = b.tried[:]
	}
	var out []Place
	for i := range table {
		for j, id := range table[i] {
			if id != -1 {
				out = append(out, Place{tried, i, j, *b.entries[id]})
			}
		}
	}
	return out
}
