package p2p

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

const (
	addrRate        = 0.1 // addresses a second that a peer may tell us
	addrEvery       = 30 * time.Second
	localAddrEvery  = 24 * time.Hour
	addrCacheTime   = 21 * time.Hour // and up to 6 more
	maxAddrPercent  = 23
	relayFreshness  = 10 * time.Minute
	addrTimePenalty = 2 * time.Hour
)

// addrCache is what getaddr is answered with for a while, so that nobody can watch the book change.
type addrCache struct {
	addrs []wire.KnownAddr
	until time.Time
}

// setupAddrRelay begins to exchange addresses with a peer, unless nobody shall learn of it.
func (n *Node) setupAddrRelay(p *Peer) bool {
	if p.typ == BlockRelayOnly {
		return false
	}
	if !p.addrRelay {
		p.addrRelay = true
		p.addrKnown = newRecentSet(5000)
	}
	return true
}

func addrID(a *wire.AddrPort) (h bitcoin.Hash) {
	b := append(a.Bytes(), byte(a.Net), byte(a.Port>>8), byte(a.Port))
	return bitcoin.DoubleHash(b)
}

// onAddrs takes addresses that a peer tells, at the rate that it has coming.
func (n *Node) onAddrs(p *Peer, addrs []wire.KnownAddr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.setupAddrRelay(p) {
		n.debugf("ignoring addr message from %s peer=%d", p.typ, p.id)
		return
	}
	now := n.clock.Now()
	if p.addrTokens < wire.MaxAddrs {
		p.addrTokens = min(p.addrTokens+max(0, now.Sub(p.addrStamp).Seconds())*addrRate, wire.MaxAddrs)
	}
	p.addrStamp = now
	limited := !p.perms.Has(PermAddr)
	processed, over := int64(0), int64(0)
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	var good []wire.KnownAddr
	for i := range addrs {
		if p.addrTokens < 1 {
			if limited {
				over++
				continue
			}
		} else {
			p.addrTokens--
		}
		a := addrs[i]
		if !mayServeBlocks(a.Services) {
			continue
		}
		seen := unix(a.Time)
		if a.Time <= 100_000_000 || seen.After(now.Add(10*time.Minute)) {
			a.Time = uint32(now.Add(-5 * 24 * time.Hour).Unix())
			seen = unix(a.Time)
		}
		p.addrKnown.add(addrID(&a.AddrPort))
		if n.bans.Discouraged(a.Addr) || n.bans.Banned(a.Addr, now) {
			continue
		}
		processed++
		if seen.After(now.Add(-relayFreshness)) && !p.getAddrSent && len(addrs) <= 10 && a.Routable() {
			n.relayAddr(p, a)
		}
		if n.reachable(a.Net) {
			good = append(good, a)
		}
	}
	p.addrProcessed += processed
	p.addrLimited += over
	n.debugf("Received addr: %d addresses (%d processed, %d rate-limited) from peer=%d",
		len(addrs), processed, over, p.id)
	n.book.Add(good, p.addr.Addr, addrTimePenalty, now)
	if len(addrs) < wire.MaxAddrs {
		p.getAddrSent = false
	}
	if p.typ == AddrFetch && len(addrs) > 1 {
		n.debugf("addrfetch connection completed, disconnecting peer=%d", p.id)
		p.close()
	}
}

func mayServeBlocks(s wire.Services) bool {
	return s&(wire.ServiceNetwork|wire.ServiceNetworkLimited) != 0
}

// reachable reports whether we connect to the network by ourselves.
func (n *Node) reachable(net wire.Net) bool {
	switch net {
	case wire.NetTorV3, wire.NetI2P:
		if n.Proxy(net) == "" {
			return false
		}
	case wire.NetCJDNS:
		if !n.cfg.CJDNS {
			return false
		}
	}
	return n.cfg.OnlyNets == nil || slices.Contains(n.cfg.OnlyNets, net)
}

// relayAddr passes an address on to one or two peers: for a day the same ones, whoever sends it, so that it
// does not run round in circles.
func (n *Node) relayAddr(from *Peer, a wire.KnownAddr) {
	id := addrID(&a.AddrPort)
	day := uint64(n.clock.Now().Unix()+int64(id[0])*3600) / 86400
	reach := 1
	if n.reachable(a.Net) || id[1]&1 == 1 {
		reach = 2
	}
	type pick struct {
		p     *Peer
		score uint64
	}
	var best []pick
	for _, p := range n.peers {
		if p == from || !p.addrRelay || !p.handshaken || !accepts(p, &a) {
			continue
		}
		var key [48]byte
		copy(key[:], id[:])
		for i := range 8 {
			key[32+i], key[40+i] = byte(day>>(8*i)), byte(uint64(p.id)>>(8*i))
		}
		best = append(best, pick{p, bitcoin.SipHash(n.keys[0], n.keys[1], key[:])})
	}
	slices.SortFunc(best, func(x, y pick) int {
		switch {
		case x.score > y.score:
			return -1
		case x.score < y.score:
			return 1
		}
		return 0
	})
	for _, b := range best[:min(reach, len(best))] {
		n.queueAddr(b.p, a)
	}
}

func accepts(p *Peer, a *wire.KnownAddr) bool { return p.wantsAddrV2 || a.V1Compatible() }

// queueAddr queues an address for a peer that does not know it yet.
func (n *Node) queueAddr(p *Peer, a wire.KnownAddr) {
	if !a.Valid() || p.addrKnown.has(addrID(&a.AddrPort)) || !accepts(p, &a) {
		return
	}
	if len(p.addrsToSend) >= wire.MaxAddrs {
		p.addrsToSend[rand.IntN(len(p.addrsToSend))] = a
	} else {
		p.addrsToSend = append(p.addrsToSend, a)
	}
}

// addrsDue sends queued addresses when it is time, and now and then our own.
func (n *Node) addrsDue(p *Peer, now time.Time) {
	if !p.addrRelay {
		return
	}
	n.announceOwn(p, now)
	if !p.nextAddr.Before(now) {
		return
	}
	p.nextAddr = now.Add(exponential(addrEvery))
	list := p.addrsToSend[:0:0]
	for i := range p.addrsToSend {
		if id := addrID(&p.addrsToSend[i].AddrPort); !p.addrKnown.has(id) {
			p.addrKnown.add(id)
			list = append(list, p.addrsToSend[i])
		}
	}
	p.addrsToSend = nil
	if len(list) > 0 {
		p.pushAddrs(list)
	}
}

// announceOwn tells the peer about once a day where we are: the first time at once and alone, for with other
// addresses it could be too much for a peer that has just connected.
func (n *Node) announceOwn(p *Peer, now time.Time) {
	if n.cfg.NoListen || n.initialDownload() || !p.nextLocal.Before(now) {
		return
	}
	first := p.nextLocal.IsZero()
	if !first {
		p.addrKnown.reset()
	}
	if own, ok := n.ownAddr(p); ok {
		n.debugf("Advertising address %s to peer=%d", own, p.id)
		a := wire.KnownAddr{Time: uint32(now.Unix()), Services: n.services(p), AddrPort: own}
		switch {
		case !first:
			n.queueAddr(p, a)
		case accepts(p, &a):
			p.pushAddrs([]wire.KnownAddr{a})
		}
	}
	p.nextLocal = now.Add(exponential(localAddrEvery))
}

func (p *Peer) pushAddrs(list []wire.KnownAddr) {
	if p.wantsAddrV2 {
		p.push(&wire.AddrV2Msg{Addrs: list})
	} else {
		p.push(&wire.AddrMsg{Addrs: list})
	}
}

// onGetAddr answers with addresses, once for each connection, and only who came to us: else one could
// plant an address and see where it comes out.
func (n *Node) onGetAddr(p *Peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p.typ != Inbound {
		n.debugf("Ignoring \"getaddr\" from %s connection. peer=%d", p.typ, p.id)
		return
	}
	n.setupAddrRelay(p)
	if p.getAddrSeen {
		n.debugf("Ignoring repeated \"getaddr\". peer=%d", p.id)
		return
	}
	p.getAddrSeen = true
	p.addrsToSend = nil
	now := n.clock.Now()
	var addrs []wire.KnownAddr
	if p.perms.Has(PermAddr) {
		addrs = n.book.Addrs(wire.MaxAddrs, maxAddrPercent, wire.NetNone, false, now)
	} else {
		addrs = n.cachedAddrs(p, now)
	}
	for _, a := range addrs {
		if !n.bans.Banned(a.Addr, now) && !n.bans.Discouraged(a.Addr) {
			n.queueAddr(p, a)
		}
	}
}

func (n *Node) cachedAddrs(p *Peer, now time.Time) []wire.KnownAddr {
	// By network and by our own address: else who reaches us by two could tell that they are one node.
	key := p.network().String() + " " + p.bindAddr
	c := n.getAddrs[key]
	if c.until.Before(now) {
		c.addrs = n.book.Addrs(wire.MaxAddrs, maxAddrPercent, wire.NetNone, false, now)
		c.until = now.Add(addrCacheTime + rand.N(6*time.Hour))
		n.getAddrs[key] = c
	}
	return c.addrs
}

// groupOf is the neighbourhood of an address under our secret key.
func (n *Node) groupOf(a wire.Addr) uint64 {
	return bitcoin.SipHash(n.keys[0], n.keys[1], n.book.Group(a))
}
