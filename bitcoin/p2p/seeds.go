package p2p

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/tallypost/tallypost/bitcoin/wire"
)

// The times and numbers of seeding (Bitcoin Core net.cpp, ThreadDNSAddressSeed).
const (
	seedsAtOnce     = 3                // DNS seeds asked before we see what came of it
	seedsWaitFew    = 11 * time.Second // while the book holds few addresses
	seedsWaitMany   = 5 * time.Minute
	seedsManyAddrs  = 1000 // addresses in the book that are many
	seedsEnough     = 2    // full outbound peers with which no seed is needed
	seedNodeTimeout = 30 * time.Second
	nextSeedNode    = 10 * time.Second
	fixedSeedsAfter = time.Minute
	lookupTimeout   = 10 * time.Second
	maxPerSeed      = 32 // addresses that one seed may tell, so that none has the book for itself
)

// seedServices are those of the nodes that seeds are asked for.
const seedServices = wire.ServiceNetwork | wire.ServiceWitness

// seedLoop asks DNS seeds for addresses, if they are needed: each question tells somebody of us, and each
// answer lets a seed choose our peers.
func (n *Node) seedLoop(ctx context.Context) {
	peers := 0
	if len(n.cfg.Seeds) > 0 {
		var ok bool
		if peers, ok = n.waitForSeedNodes(ctx); !ok {
			return
		}
	}
	seeds := slices.Clone(n.cfg.DNSSeeds)
	if seeds == nil {
		seeds = slices.Clone(n.net.DNSSeeds)
	}
	rand.Shuffle(len(seeds), func(i, j int) { seeds[i], seeds[j] = seeds[j], seeds[i] })
	now := 0
	if n.cfg.ForceDNSSeed || n.book.Size() == 0 {
		now = len(seeds)
	}
	if peers >= seedsEnough && now == 0 {
		n.infof("Skipping DNS seeds. Enough peers have been found")
		return
	}
	wait := seedsWaitFew
	if n.book.Size() >= seedsManyAddrs {
		wait = seedsWaitMany
	}
	found := 0
	for _, seed := range seeds {
		if now == 0 {
			now = seedsAtOnce
			if n.book.Size() > 0 && !n.waitForPeers(ctx, wait, found) {
				return
			}
		}
		if !n.waitActive(ctx) {
			return
		}
		found += n.askSeed(ctx, seed)
		now--
	}
	n.infof("%d addresses found from DNS seeds", found)
}

// waitForSeedNodes gives the nodes of -seednode a while before the DNS seeds are asked.
func (n *Node) waitForSeedNodes(ctx context.Context) (peers int, ok bool) {
	start := n.clock.Now()
	n.infof("-seednode enabled. Trying the provided seeds for %d seconds before defaulting to the dnsseeds.",
		int(seedNodeTimeout.Seconds()))
	for n.sleep(ctx, 500*time.Millisecond) {
		if n.clock.Now().After(start.Add(seedNodeTimeout)) {
			n.infof("Couldn't connect to enough peers via seed nodes. Handing fetch logic to the DNS seeds.")
			return peers, true
		}
		if peers = n.fullPeers(); peers >= seedsEnough {
			n.infof("P2P peers available. Finished fetching data from seed nodes.")
			return peers, true
		}
	}
	return peers, false
}

// waitForPeers waits whether the addresses that are there bring peers; false where no seed is needed.
func (n *Node) waitForPeers(ctx context.Context, wait time.Duration, found int) bool {
	n.infof("Waiting %d seconds before querying DNS seeds.", int(wait.Seconds()))
	for wait > 0 {
		step := min(seedsWaitFew, wait)
		if !n.sleep(ctx, step) {
			return false
		}
		wait -= step
		if n.fullPeers() < seedsEnough {
			continue
		}
		if found > 0 {
			n.infof("%d addresses found from DNS seeds", found)
			n.infof("P2P peers available. Finished DNS seeding.")
		} else {
			n.infof("P2P peers available. Skipped DNS seeding.")
		}
		return false
	}
	return true
}

func (n *Node) waitActive(ctx context.Context) bool {
	if n.active.Load() {
		return ctx.Err() == nil
	}
	n.infof("Waiting for network to be reactivated before querying DNS seeds.")
	for !n.active.Load() {
		if !n.sleep(ctx, time.Second) {
			return false
		}
	}
	return true
}

// fullPeers is the number of peers of our choice with which all is relayed.
func (n *Node) fullPeers() (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers {
		if p.handshaken && !p.closing && p.typ == OutboundFull {
			count++
		}
	}
	return count
}

// askSeed puts the addresses into the book that a DNS seed knows with the services that we want, and returns
// their number. A seed that does not answer is asked as a node.
func (n *Node) askSeed(ctx context.Context, seed string) (found int) {
	n.infof("Loading addresses from DNS seed %s", seed)
	if n.cfg.NameProxy != "" {
		n.addFetch(seed)
		return 0
	}
	host := fmt.Sprintf("x%x.%s", uint64(seedServices), seed)
	ips, err := n.lookup(ctx, host)
	if err != nil || len(ips) == 0 {
		n.addFetch(seed)
		return 0
	}
	var list []wire.KnownAddr
	now := n.clock.Now()
	for _, b := range ips[:min(len(ips), maxPerSeed)] {
		ip, ok := netip.AddrFromSlice(b)
		if !ok {
			continue
		}
		age := 3*24*time.Hour + rand.N(4*24*time.Hour) // nobody has seen them
		list = append(list, wire.KnownAddr{Time: uint32(now.Add(-age).Unix()), Services: seedServices,
			AddrPort: wire.AddrPortFrom(netip.AddrPortFrom(ip.Unmap(), n.net.Port))})
	}
	n.book.Add(list, wire.InternalAddr(host), 0, now)
	return len(list)
}

// addFetch queues a node to be asked for addresses.
func (n *Node) addFetch(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fetches = append(n.fetches, name)
}

// fetchAddrs connects to the next node that is to be asked for addresses, if there is room for it.
func (n *Node) fetchAddrs(ctx context.Context) {
	n.mu.Lock()
	room := n.automatic() < min(n.cfg.MaxConnections, maxFull+maxBlockRelay+maxFeelers)
	name := ""
	if len(n.fetches) > 0 {
		name, n.fetches = n.fetches[0], n.fetches[1:]
	}
	n.mu.Unlock()
	if name != "" && room {
		n.open(ctx, call{typ: AddrFetch, name: name, v2: n.cfg.V2})
	}
}

// automatic is the number of connections that we made by ourselves; with mu held.
func (n *Node) automatic() (count int) {
	for _, p := range n.peers {
		if !p.closing && p.typ != Inbound && p.typ != Manual {
			count++
		}
	}
	return count
}
