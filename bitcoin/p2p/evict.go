package p2p

import (
	"cmp"
	"slices"
	"time"

	"github.com/tallypost/tallypost/bitcoin/wire"
)

// Candidate is an inbound peer that may have to go for a new one.
type Candidate struct {
	ID               PeerID
	Connected        time.Time
	MinPing          time.Duration // best round trip; the longest duration if none is known
	LastBlock        time.Time     // when it last sent a block that was new
	LastTx           time.Time     // when it last sent a transaction that was accepted
	RelevantServices bool
	RelayTxs         bool
	Bloom            bool
	Group            uint64 // of its neighbourhood, under a secret key
	PreferEvict      bool
	Local            bool
	Network          wire.Net // by which it came
	NoBan            bool
	Outbound         bool
}

// SelectEvict returns which inbound peer to drop for a new one; ok is false where all are protected. Each
// protection is a quality that an attacker cannot have many times at once (Bitcoin Core node/eviction.cpp,
// SelectNodeToEvict).
func SelectEvict(cs []Candidate) (victim PeerID, ok bool) {
	cs = slices.DeleteFunc(slices.Clone(cs), func(c Candidate) bool { return c.NoBan || c.Outbound })
	all := func(*Candidate) bool { return true }
	// A secret key chooses the groups.
	cs = protect(cs, 4, func(a, b *Candidate) int { return cmp.Compare(a.Group, b.Group) }, all)
	// Nearness cannot be faked.
	cs = protect(cs, 8, func(a, b *Candidate) int { return cmp.Compare(b.MinPing, a.MinPing) }, all)
	// New transactions and blocks are work.
	cs = protect(cs, 4, byTx, all)
	cs = protect(cs, 8, byBlockRelay, func(c *Candidate) bool { return !c.RelayTxs && c.RelevantServices })
	cs = protect(cs, 4, byBlock, all)
	cs = protectByRatio(cs)
	if len(cs) == 0 {
		return 0, false
	}
	if slices.ContainsFunc(cs, func(c Candidate) bool { return c.PreferEvict }) {
		cs = slices.DeleteFunc(cs, func(c Candidate) bool { return !c.PreferEvict })
	}
	return youngestOfLargestGroup(cs), true
}

// protect sorts the candidates and removes those of the last n for which the condition holds.
func protect(cs []Candidate, n int, order func(a, b *Candidate) int,
	which func(*Candidate) bool) []Candidate {
	slices.SortStableFunc(cs, func(a, b Candidate) int { return order(&a, &b) })
	from := len(cs) - min(n, len(cs))
	kept := cs[:from]
	for i := from; i < len(cs); i++ {
		if !which(&cs[i]) {
			kept = append(kept, cs[i])
		}
	}
	return kept
}

func byUptime(a, b *Candidate) int { return b.Connected.Compare(a.Connected) }

func byTx(a, b *Candidate) int {
	return cmp.Or(a.LastTx.Compare(b.LastTx), compareBool(a.RelayTxs, b.RelayTxs),
		compareBool(b.Bloom, a.Bloom), byUptime(a, b))
}

func byBlock(a, b *Candidate) int {
	return cmp.Or(a.LastBlock.Compare(b.LastBlock),
		compareBool(a.RelevantServices, b.RelevantServices), byUptime(a, b))
}

func byBlockRelay(a, b *Candidate) int {
	return cmp.Or(compareBool(b.RelayTxs, a.RelayTxs), byBlock(a, b))
}

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// protectByRatio protects half of the candidates: those that are connected longest, and for up to half of
// that half those of networks that do badly otherwise, for they are slow.
func protectByRatio(cs []Candidate) []Candidate {
	before := len(cs)
	total := before / 2
	type network struct {
		member func(*Candidate) bool
		count  int
	}
	of := func(n wire.Net) func(*Candidate) bool {
		return func(c *Candidate) bool { return c.Network == n }
	}
	networks := []network{{member: of(wire.NetCJDNS)}, {member: of(wire.NetI2P)},
		{member: func(c *Candidate) bool { return c.Local }}, {member: of(wire.NetTorV3)}}
	for i := range networks {
		for j := range cs {
			if networks[i].member(&cs[j]) {
				networks[i].count++
			}
		}
	}
	slices.SortStableFunc(networks, func(a, b network) int { return cmp.Compare(a.count, b.count) })
	for most := total / 2; before-len(cs) < most; {
		left, some := 0, false
		for _, n := range networks {
			if n.count > 0 {
				left++
			}
		}
		if left == 0 {
			break
		}
		each := max((most-(before-len(cs)))/left, 1)
		for i := range networks {
			n := &networks[i]
			if n.count == 0 {
				continue
			}
			had := len(cs)
			cs = protect(cs, each, func(a, b *Candidate) int {
				return cmp.Or(compareBool(n.member(a), n.member(b)), byUptime(a, b))
			}, n.member)
			if gone := had - len(cs); gone > 0 {
				some = true
				n.count -= gone
				if before-len(cs) >= most {
					break
				}
			}
		}
		if !some {
			break
		}
	}
	return protect(cs, total-(before-len(cs)), byUptime, func(*Candidate) bool { return true })
}

// youngestOfLargestGroup returns the newest peer of the neighbourhood with most peers; of groups of one
// size that with the newest peer counts.
func youngestOfLargestGroup(cs []Candidate) PeerID {
	slices.SortStableFunc(cs, func(a, b Candidate) int { return byUptime(&a, &b) })
	groups := map[uint64][]*Candidate{}
	var best []*Candidate
	for i := range cs {
		g := append(groups[cs[i].Group], &cs[i])
		groups[cs[i].Group] = g
	}
	for i := range cs { // in order, so that the answer does not depend on a map's
		g := groups[cs[i].Group]
		if len(g) > len(best) || len(g) == len(best) && g[0].Connected.After(best[0].Connected) {
			best = g
		}
	}
	return best[0].ID
}
