package p2p

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tallypost/tallypost/bitcoin/wire"
)

// fallBack takes the network's fixed seeds into the book where some network that can be reached has no address
// there, and nothing else brings any: at once where nobody is to be asked, else after a minute (Bitcoin Core
// net.cpp, ThreadOpenConnections).
func (s *connecter) fallBack() {
	n := s.n
	if !s.fixed {
		return
	}
	counts := n.book.Counts()
	empty := slices.DeleteFunc(networks(), func(net wire.Net) bool {
		c := counts[net]
		return !n.reachable(net) || c.New+c.Tried > 0
	})
	now := n.clock.Now()
	switch {
	case len(empty) == 0:
		return
	case now.Sub(s.start) > fixedSeedsAfter:
		n.infof("Adding fixed seeds as 60 seconds have passed and addrman is empty for at least one reachable " +
			"network")
	case !n.cfg.DNSSeed && len(n.cfg.Seeds) == 0 && len(n.addedNodes()) == 0:
		n.infof("Adding fixed seeds as -dnsseed=0 (or IPv4/IPv6 connections are disabled via -onlynet) and neither " +
			"-addnode nor -seednode are provided")
	default:
		return
	}
	s.fixed = false
	addrs, err := wire.ParseAddrs([]byte(n.net.FixedSeeds))
	if err != nil {
		n.log.Warn("the network's fixed seeds cannot be read", "err", err)
	}
	var list []wire.KnownAddr
	for _, a := range addrs {
		if slices.Contains(empty, a.Net) {
			// Old enough that whatever is heard of them is newer.
			age := 7*24*time.Hour + rand.N(7*24*time.Hour)
			list = append(list, wire.KnownAddr{Time: uint32(now.Add(-age).Unix()), Services: seedServices, AddrPort: a})
			n.debugf("Added hardcoded seed: %s", a)
		}
	}
	n.book.Add(list, wire.InternalAddr("fixedseeds"), 0, now)
	n.infof("Added %d fixed seeds from reachable networks.", len(list))
}
