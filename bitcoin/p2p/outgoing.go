package p2p

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tallypost/tallypost/bitcoin/wire"
)

// The numbers of connections (Bitcoin Core net.h).
const (
	maxFull          = 8
	maxBlockRelay    = 2
	maxFeelers       = 1
	maxManual        = 8
	feelerEvery      = 2 * time.Minute
	feelerNoise      = time.Second
	extraBlockRelay  = 5 * time.Minute
	extraNetwork     = 5 * time.Minute
	maxAnchors       = 2
	connectPause     = 500 * time.Millisecond
	addedRetry       = time.Minute
	staleCheckEvery  = 10 * time.Minute
	extraCheckEvery  = 45 * time.Second
	minimumConnected = 30 * time.Second
)

// networks are those that we connect to, where they are reached.
func networks() []wire.Net {
	return []wire.Net{wire.NetIPv4, wire.NetIPv6, wire.NetTorV3, wire.NetI2P, wire.NetCJDNS}
}

// sleep waits, and reports whether the context lasts.
func (n *Node) sleep(ctx context.Context, d time.Duration) bool {
	due, stop := n.clock.After(d)
	select {
	case <-due:
		return ctx.Err() == nil
	case <-ctx.Done():
		stop()
		return false
	}
}

// specifiedLoop connects to the nodes of -connect, and to no others.
func (n *Node) specifiedLoop(ctx context.Context) {
	for round := 0; ; round++ {
		for _, name := range n.cfg.Connect {
			n.open(ctx, call{typ: Manual, name: name, v2: n.cfg.V2})
			for range min(round, 10) {
				if !n.sleep(ctx, connectPause) {
					return
				}
			}
		}
		if !n.sleep(ctx, connectPause) {
			return
		}
	}
}

// wanted is a node that the operator wants to be connected to.
type wanted struct {
	name string
	v2   bool
}

func (n *Node) addedNodes() []wanted {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.added)
}

// addedLoop connects to the nodes of -addnode.
func (n *Node) addedLoop(ctx context.Context) {
	for {
		tried := false
		for _, w := range n.addedNodes() {
			if at := n.numeric(w.name); at.Valid() && n.connectedToPort(at) || n.connectedToName(w.name) {
				continue
			}
			if n.manual() >= maxManual {
				break
			}
			tried = true
			n.open(ctx, call{typ: Manual, name: w.name, v2: w.v2})
			if !n.sleep(ctx, connectPause) {
				return
			}
		}
		wait := 2 * time.Second
		if tried {
			wait = addedRetry
		}
		if !n.sleep(ctx, wait) {
			return
		}
	}
}

func (n *Node) manual() (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers {
		if !p.closing && p.typ == Manual {
			count++
		}
	}
	return count
}

// connecter is the state of connectLoop.
type connecter struct {
	n           *Node
	start       time.Time
	nextFeeler  time.Time
	nextExtra   time.Time
	nextNetwork time.Time
	seeds       []string // of -seednode that were not asked yet
	seedTime    time.Time
	anchors     []wire.KnownAddr
	fixed       bool // the network's fixed seeds may still be needed
}

// connectLoop keeps the number of connections of our own choice (Bitcoin Core net.cpp,
// ThreadOpenConnections).
func (n *Node) connectLoop(ctx context.Context) {
	now := n.clock.Now()
	s := connecter{n: n, start: now, seedTime: now, seeds: slices.Clone(n.cfg.Seeds), fixed: !n.cfg.NoFixedSeeds,
		nextFeeler: now.Add(exponential(feelerEvery)), nextExtra: now.Add(exponential(extraBlockRelay)),
		nextNetwork: now.Add(exponential(extraNetwork))}
	rand.Shuffle(len(s.seeds), func(i, j int) { s.seeds[i], s.seeds[j] = s.seeds[j], s.seeds[i] })
	s.loadAnchors()
	if !s.fixed {
		n.infof("Fixed seeds are disabled")
	}
	ask := n.book.Size() == 0
	for {
		if ask {
			s.askSeedNode()
		}
		n.fetchAddrs(ctx)
		if !n.sleep(ctx, connectPause) {
			return
		}
		s.fallBack()
		if n.active.Load() {
			s.turn(ctx)
		}
		ask = len(s.seeds) > 0 && n.fullPeers() < seedsEnough && n.clock.Now().After(s.seedTime.Add(nextSeedNode))
		if ask {
			s.seedTime = n.clock.Now()
		}
	}
}

// askSeedNode queues the next node of -seednode.
func (s *connecter) askSeedNode() {
	if len(s.seeds) == 0 {
		return
	}
	seed := s.seeds[len(s.seeds)-1]
	s.seeds = s.seeds[:len(s.seeds)-1]
	s.n.addFetch(seed)
	if s.n.book.Size() == 0 {
		s.n.infof("Empty addrman, adding seednode (%s) to addrfetch", seed)
	} else {
		s.n.infof("Couldn't connect to peers from addrman after %d seconds. Adding seednode (%s) to addrfetch",
			int(nextSeedNode.Seconds()), seed)
	}
}

// chosen is what stands already of the connections of our choice.
type chosen struct {
	full, relay int
	groups      map[string]bool  // neighbourhoods of IPv4 and IPv6 that we have somebody in
	private     int              // in networks whose addresses say nothing of neighbourhoods
	perNet      map[wire.Net]int // full and manual ones
}

func (n *Node) chosenPeers() chosen {
	c := chosen{groups: map[string]bool{}, perNet: map[wire.Net]int{}}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers {
		switch {
		case p.closing:
			continue
		case p.typ == OutboundFull:
			c.full++
		case p.typ == BlockRelayOnly:
			c.relay++
		case p.typ != Manual:
			continue
		}
		if p.typ != BlockRelayOnly {
			c.perNet[p.addr.Net]++
		}
		switch p.addr.Net {
		case wire.NetTorV3, wire.NetI2P, wire.NetCJDNS:
			c.private++
		default:
			c.groups[string(n.book.Group(p.addr.Addr))] = true
		}
	}
	return c
}

// turn makes at most one connection.
func (s *connecter) turn(ctx context.Context) {
	n, now := s.n, s.n.clock.Now()
	have := n.chosenPeers()
	typ, only, ok := s.want(&have, now)
	if !ok {
		return
	}
	n.book.ResolveCollisions(now)
	at, ok := s.choose(typ, only, &have, now)
	if !ok {
		return
	}
	if typ == Feeler {
		// Not at the very time that somebody may have us look.
		if !n.sleep(ctx, rand.N(feelerNoise)) {
			return
		}
		n.debugf("Making feeler connection to %s", at.AddrPort)
	}
	if only != wire.NetNone {
		n.debugf("Making network specific connection to %s on %s.", at.AddrPort, only)
	}
	n.open(ctx, call{typ: typ, addr: at, v2: n.cfg.V2 && at.Services.Has(wire.ServiceP2PV2),
		count: len(have.groups)+have.private >= min(n.cfg.MaxConnections-1, 2)})
}

// want returns what kind of connection is missing, and of which network if of one.
func (s *connecter) want(have *chosen, now time.Time) (typ ConnType, only wire.Net, ok bool) {
	n := s.n
	mostFull := min(maxFull, n.cfg.MaxConnections)
	mostRelay := min(maxBlockRelay, n.cfg.MaxConnections-mostFull)
	n.mu.Lock()
	another, extra := n.tryAnother, n.extraRelay
	room := n.automatic() < min(n.cfg.MaxConnections, mostFull+mostRelay+maxFeelers)
	n.mu.Unlock()
	switch {
	case !room:
		return 0, 0, false
	case len(s.anchors) > 0 && have.relay < mostRelay:
		return BlockRelayOnly, 0, true
	case have.full < mostFull:
		return OutboundFull, 0, true
	case have.relay < mostRelay:
		return BlockRelayOnly, 0, true
	case another:
		return OutboundFull, 0, true
	case now.After(s.nextExtra) && extra:
		// To see every few minutes whether somebody knows of more work than our peers tell us.
		s.nextExtra = now.Add(exponential(extraBlockRelay))
		return BlockRelayOnly, 0, true
	case now.After(s.nextFeeler):
		s.nextFeeler = now.Add(exponential(feelerEvery))
		return Feeler, 0, true
	case have.full == mostFull && mostFull == maxFull && now.After(s.nextNetwork):
		if only, ok = s.missingNetwork(have); ok {
			s.nextNetwork = now.Add(exponential(extraNetwork))
			return OutboundFull, only, true
		}
	}
	return 0, 0, false
}

// missingNetwork returns a network that is reached but in which we have nobody.
func (s *connecter) missingNetwork(have *chosen) (wire.Net, bool) {
	list := networks()
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	counts := s.n.book.Counts()
	for _, net := range list {
		if s.n.reachable(net) && have.perNet[net] == 0 && counts[net].New+counts[net].Tried > 0 {
			return net, true
		}
	}
	return 0, false
}

// choose returns an address to connect to: in a neighbourhood where we have nobody yet.
func (s *connecter) choose(typ ConnType, only wire.Net, have *chosen, now time.Time) (wire.KnownAddr, bool) {
	n := s.n
	if typ == BlockRelayOnly && len(s.anchors) > 0 {
		for len(s.anchors) > 0 {
			a := s.anchors[len(s.anchors)-1]
			s.anchors = s.anchors[:len(s.anchors)-1]
			if a.Valid() && !n.isOwn(a.AddrPort) && n.reachable(a.Net) &&
				a.Services.Has(n.wantedServices(a.Services)) && !have.groups[string(n.book.Group(a.Addr))] {
				n.debugf("Trying to make an anchor connection to %s", a.AddrPort)
				return a, true
			}
		}
		return wire.KnownAddr{}, false
	}
	nets := slices.DeleteFunc(networks(), func(net wire.Net) bool { return !n.reachable(net) })
	if only != wire.NetNone {
		nets = []wire.Net{only}
	}
	if len(nets) == 0 {
		return wire.KnownAddr{}, false
	}
	for tries := 1; tries <= 100; tries++ {
		a, lastTry, ok := s.candidate(typ, nets, now)
		if !ok {
			return a, false
		}
		switch {
		case typ != Feeler && have.groups[string(n.book.Group(a.Addr))]:
		case !a.Valid() || n.isOwn(a.AddrPort):
			return a, false
		case !n.reachable(a.Net):
		case now.Sub(lastTry) < 10*time.Minute && tries < 30:
		case typ != Feeler && !a.Services.Has(n.wantedServices(a.Services)):
		case typ == Feeler && !mayServeBlocks(a.Services):
		case tries < 50 && (a.Net == wire.NetIPv4 || a.Net == wire.NetIPv6) && BadPort(a.Port):
		case n.isAdded(a.Addr):
			n.debugf("Not making automatic %s connection to %s peer selected for manual (addnode) connection: %s",
				typ, a.Net, a.AddrPort)
		default:
			return a, true
		}
	}
	return wire.KnownAddr{}, false
}

// candidate draws an address from the book. A feeler goes to one in tried whose place another wants.
func (s *connecter) candidate(typ ConnType, nets []wire.Net, now time.Time) (wire.KnownAddr, time.Time, bool) {
	book := s.n.book
	if typ == Feeler {
		if e, ok := book.TriedCollision(); ok {
			if !s.n.connectedToAddr(e.Addr) {
				return e.KnownAddr, e.LastTry, true
			}
			book.Good(e.AddrPort, now) // it works: we are connected to it
		}
	}
	e, ok := book.Select(typ == Feeler, now, nets...)
	return e.KnownAddr, e.LastTry, ok
}

// BadPort reports whether a port is another service's, which somebody may want us to call: no automatic
// connections are made to it (Bitcoin Core netbase.cpp, IsBadPort).
func BadPort(port uint16) bool {
	switch port {
	case 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103,
		104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513,
		514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719,
		1720, 1723, 2049, 3306, 3389, 3659, 4045, 5060, 5061, 5432, 5900, 6000, 6566, 6665, 6666, 6667, 6668,
		6669, 6697, 10080, 27017:
		return true
	}
	return false
}
