package p2p

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/proxy"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/p2p/addrbook"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

// The numbers of connections (Bitcoin Core net.h).
const (
	maxFull          = 8
	maxBlockRelay    = 2
	maxFeelers       = 1
	maxManual        = 8
	feelerEvery      = 2 * time.Minute
	extraBlockRelay  = 5 * time.Minute
	maxAnchors       = 2
	addedRetry       = time.Minute
	staleCheckEvery  = 10 * time.Minute
	extraCheckEvery  = 45 * time.Second
	minimumConnected = 30 * time.Second
)

// parseConn returns the address and port of a connection's other end.
func parseConn(a net.Addr) (wire.AddrPort, bool) {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return wire.AddrPort{}, false
	}
	return wire.AddrPortFrom(netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())), true
}

// acceptConn takes a connection in, if there is room and nothing against it.
func (n *Node) acceptConn(ctx context.Context, c net.Conn, l Listen) {
	addr, ok := parseConn(c.RemoteAddr())
	if !ok {
		c.Close()
		return
	}
	perms := n.permissions(addr.Addr, l.Permissions, true)
	now := n.clock.Now()
	if !n.active.Load() {
		n.debugf("connection from %s dropped: not accepting new connections", addr)
		c.Close()
		return
	}
	if n.bans.Banned(addr.Addr, now) && !perms.Has(PermNoBan) {
		n.debugf("connection from %s dropped (banned)", addr)
		c.Close()
		return
	}
	n.mu.Lock()
	inbound := 0
	for _, p := range n.peers {
		if p.typ == Inbound {
			inbound++
		}
	}
	room := n.maxInbound()
	discouraged := n.bans.Discouraged(addr.Addr) && !perms.Has(PermNoBan)
	if discouraged && inbound+1 >= room {
		n.mu.Unlock()
		n.debugf("connection from %s dropped (discouraged)", addr)
		c.Close()
		return
	}
	if inbound >= room && !n.evict() {
		n.mu.Unlock()
		n.debugf("failed to find an eviction candidate - connection dropped (full)")
		c.Close()
		return
	}
	n.mu.Unlock()
	p := n.addPeer(ctx, c, Inbound, addr, "", perms, n.cfg.V2, l.Onion)
	if p != nil {
		n.debugf("connection from %s accepted", addr)
	}
}

// maxInbound is how many peers may come to us: what is left of all connections.
func (n *Node) maxInbound() int {
	full := min(maxFull, n.cfg.MaxConnections)
	relay := min(maxBlockRelay, n.cfg.MaxConnections-full)
	return max(0, n.cfg.MaxConnections-full-relay-maxFeelers)
}

// permissions returns what a peer with an address may do.
func (n *Node) permissions(a wire.Addr, base Permissions, in bool) Permissions {
	p := base &^ permImplicit
	implicit := base&permImplicit != 0
	if ip, ok := a.IP(); ok {
		for _, w := range n.cfg.Whitelist {
			if w.Subnet.Contains(ip) && (in && w.In || !in && w.Out) {
				p |= w.Permissions &^ permImplicit
				implicit = implicit || w.Permissions&permImplicit != 0
			}
		}
	}
	if implicit {
		p |= PermNoBan | PermMempool | PermRelay
	}
	return p
}

// evict drops an inbound peer for a new one; with mu held.
func (n *Node) evict() bool {
	var cs []Candidate
	for _, p := range n.sortedPeers() {
		if p.closing {
			continue
		}
		cs = append(cs, Candidate{
			ID: p.id, Connected: p.connected, MinPing: p.pingMin, LastBlock: p.lastBlock, LastTx: p.lastTx,
			RelevantServices: p.manyServices, RelayTxs: p.relayTxs, Bloom: p.bloomLoaded, Group: p.group,
			PreferEvict: n.bans.Discouraged(p.addr.Addr), Local: p.addr.Local(), Network: p.network(),
			NoBan: p.perms.Has(PermNoBan), Outbound: p.typ != Inbound,
		})
	}
	id, ok := SelectEvict(cs)
	if !ok {
		return false
	}
	n.debugf("selected %s connection for eviction, disconnecting peer=%d", n.peers[id].typ, id)
	n.peers[id].close()
	delete(n.peers, id)
	return true
}

// open connects to an address, or to what a name leads to, and begins to talk.
func (n *Node) open(ctx context.Context, typ ConnType, addr wire.AddrPort, name string, v2 bool) bool {
	if !n.active.Load() {
		return false
	}
	if name == "" && (n.bans.Banned(addr.Addr, n.clock.Now()) || n.bans.Discouraged(addr.Addr)) {
		return false
	}
	n.debugf("trying %s connection (%s) to %s", map[bool]string{true: "v2", false: "v1"}[v2], typ,
		nameOr(name, addr))
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ConnectTimeout)
	defer cancel()
	target, at, err := n.resolve(ctx, addr, name)
	if err != nil {
		n.debugf("not connecting to %s: %v", name, err)
		return false
	}
	if n.connectedTo(at, name) {
		return false
	}
	n.book.Attempt(at, n.groupsConnected() >= min(n.cfg.MaxConnections-1, 2), n.clock.Now())
	c, err := n.dial(ctx, at.Addr, target)
	if err != nil {
		n.debugf("connect() to %s failed: %v", target, err)
		return false
	}
	if got, ok := parseConn(c.RemoteAddr()); ok && !at.Valid() {
		at = got
	}
	perms := n.permissions(at.Addr, 0, false)
	return n.addPeer(context.WithoutCancel(ctx), c, typ, at, name, perms, v2, false) != nil
}

func nameOr(name string, addr wire.AddrPort) string {
	if name != "" {
		return name
	}
	return addr.String()
}

// resolve returns what to dial for an address or a name.
func (n *Node) resolve(ctx context.Context, addr wire.AddrPort, name string) (string, wire.AddrPort, error) {
	if name == "" {
		return addr.String(), addr, nil
	}
	host, port := splitPort(name, n.net.Port)
	if a, err := wire.ParseAddr(host); err == nil {
		at := wire.AddrPort{Addr: a, Port: port}
		return at.String(), at, nil
	}
	target := net.JoinHostPort(host, strconv.Itoa(int(port)))
	if n.cfg.NameProxy != "" {
		return target, wire.AddrPort{Port: port}, nil
	}
	ips, err := n.lookup(ctx, host)
	if err != nil {
		return "", wire.AddrPort{}, err
	}
	if len(ips) == 0 {
		return "", wire.AddrPort{}, errors.New("the name has no address")
	}
	ip, _ := netip.AddrFromSlice(ips[rand.IntN(len(ips))])
	at := wire.AddrPortFrom(netip.AddrPortFrom(ip.Unmap(), port))
	return at.String(), at, nil
}

func (n *Node) lookup(ctx context.Context, host string) ([]net.IP, error) {
	if n.cfg.Resolve != nil {
		return n.cfg.Resolve(ctx, host)
	}
	return net.DefaultResolver.LookupIP(ctx, "ip", host)
}

// splitPort cuts the port off a name, or takes the default.
func splitPort(name string, def uint16) (string, uint16) {
	if host, port, err := net.SplitHostPort(name); err == nil {
		if p, err := strconv.ParseUint(port, 10, 16); err == nil {
			return host, uint16(p)
		}
	}
	return strings.Trim(name, "[]"), def
}

func (n *Node) dial(ctx context.Context, a wire.Addr, target string) (net.Conn, error) {
	server := n.cfg.Proxies[a.Net]
	if !a.Valid() {
		server = n.cfg.NameProxy
	}
	if server == "" {
		if a.Net == wire.NetTorV3 || a.Net == wire.NetI2P {
			return nil, errors.New("no proxy for this network")
		}
		return n.cfg.Dial(ctx, "tcp", target)
	}
	// A user of its own for each connection keeps them on circuits of their own (Tor's stream isolation).
	user := strconv.FormatUint(rand.Uint64(), 16)
	d, err := proxy.SOCKS5("tcp", server, &proxy.Auth{User: user, Password: user}, dialer(n.cfg.Dial))
	if err != nil {
		return nil, err
	}
	return d.(proxy.ContextDialer).DialContext(ctx, "tcp", target)
}

type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

func (d dialer) Dial(network, addr string) (net.Conn, error) {
	return d(context.Background(), network, addr)
}

func (d dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return d(ctx, network, addr)
}

// connectedTo reports whether there is a connection to an address or name.
func (n *Node) connectedTo(at wire.AddrPort, name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers {
		if !p.closing && (name != "" && p.addrName == name || p.addr == at && at.Valid()) {
			return true
		}
	}
	return false
}

// groupsConnected is in how many neighbourhoods we have chosen peers.
func (n *Node) groupsConnected() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	groups := map[uint64]bool{}
	for _, p := range n.peers {
		if p.outboundOrBlockRelay() {
			groups[p.group] = true
		}
	}
	return len(groups)
}

// connectLoop keeps the number of connections.
func (n *Node) connectLoop(ctx context.Context) {
	s := connecter{n: n, nextFeeler: n.clock.Now().Add(exponential(feelerEvery)),
		nextExtra: n.clock.Now().Add(exponential(extraBlockRelay)), addedAt: map[string]time.Time{}}
	s.loadAnchors()
	for ctx.Err() == nil {
		s.turn(ctx)
		due, stop := n.clock.After(500 * time.Millisecond)
		select {
		case <-due:
		case <-ctx.Done():
			stop()
		}
	}
}

// connecter is the state of connectLoop.
type connecter struct {
	n          *Node
	nextFeeler time.Time
	nextExtra  time.Time
	addedAt    map[string]time.Time // last tries of what the operator wants
	seedsAsked bool
	anchors    []wire.AddrPort
}

// turn makes at most one connection of our own choice, after those that the operator wants.
func (s *connecter) turn(ctx context.Context) {
	n := s.n
	if !n.active.Load() {
		return
	}
	wanted := n.addedNodes()
	if n.cfg.ConnectOnly {
		wanted = append(wanted, n.cfg.Connect...)
	}
	now := n.clock.Now()
	for _, name := range wanted {
		last, tried := s.addedAt[name]
		if _, at, err := n.resolveLocal(name); err == nil && n.connectedTo(at, name) {
			continue
		}
		if !tried || now.Sub(last) >= addedRetry || now.Before(last) {
			s.addedAt[name] = now
			n.open(ctx, Manual, wire.AddrPort{}, name, n.cfg.V2)
		}
	}
	if n.cfg.ConnectOnly {
		return
	}
	s.bootstrap(ctx)
	typ, ok := s.want(now)
	if !ok {
		return
	}
	if at, ok := s.choose(typ, now); ok {
		n.open(ctx, typ, at.AddrPort, "", n.cfg.V2 && at.Services.Has(wire.ServiceP2PV2))
	}
}

// resolveLocal resolves a name that is an address.
func (n *Node) resolveLocal(name string) (string, wire.AddrPort, error) {
	host, port := splitPort(name, n.net.Port)
	a, err := wire.ParseAddr(host)
	if err != nil {
		return name, wire.AddrPort{}, nil
	}
	return name, wire.AddrPort{Addr: a, Port: port}, nil
}

func (n *Node) addedNodes() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.added)
}

// bootstrap asks seeds for addresses, once, where the book has none.
func (s *connecter) bootstrap(ctx context.Context) {
	n := s.n
	if s.seedsAsked {
		return
	}
	s.seedsAsked = true
	for _, name := range n.cfg.Seeds {
		n.open(ctx, AddrFetch, wire.AddrPort{}, name, n.cfg.V2)
	}
	if !n.cfg.DNSSeed || n.book.Size() >= 1000 {
		return
	}
	names := n.cfg.DNSSeeds
	if names == nil {
		names = n.net.DNSSeeds
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return
		}
		n.askSeed(ctx, name)
	}
}

// askSeed takes the addresses that a DNS seed knows with the services that we want.
func (n *Node) askSeed(ctx context.Context, name string) {
	n.infof("Loading addresses from DNS seed %s", name)
	if n.cfg.NameProxy != "" {
		n.open(ctx, AddrFetch, wire.AddrPort{}, name, n.cfg.V2)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	ips, err := n.lookup(ctx, "x9."+name) // of nodes with all blocks and witnesses
	if err != nil {
		n.debugf("DNS seed %s: %v", name, err)
		return
	}
	var found []wire.KnownAddr
	now := n.clock.Now()
	for _, b := range ips[:min(len(ips), 32)] {
		ip, ok := netip.AddrFromSlice(b)
		if !ok {
			continue
		}
		age := 3*24*time.Hour + rand.N(4*24*time.Hour)
		found = append(found, wire.KnownAddr{Time: uint32(now.Add(-age).Unix()),
			Services: wire.ServiceNetwork | wire.ServiceWitness,
			AddrPort: wire.AddrPortFrom(netip.AddrPortFrom(ip.Unmap(), n.net.Port))})
	}
	n.book.Add(found, wire.InternalAddr(name), 0, now)
}

// want returns what kind of connection is missing.
func (s *connecter) want(now time.Time) (ConnType, bool) {
	n := s.n
	n.mu.Lock()
	defer n.mu.Unlock()
	full, relay := 0, 0
	for _, p := range n.peers {
		switch p.typ {
		case OutboundFull:
			full++
		case BlockRelayOnly:
			relay++
		}
	}
	mostFull := min(maxFull, n.cfg.MaxConnections)
	mostRelay := min(maxBlockRelay, n.cfg.MaxConnections-mostFull)
	stale := n.tipStale(now)
	switch {
	case len(s.anchors) > 0 && relay < mostRelay:
		return BlockRelayOnly, true
	case full < mostFull || stale && full == mostFull:
		return OutboundFull, true
	case relay < mostRelay:
		return BlockRelayOnly, true
	case now.After(s.nextExtra):
		s.nextExtra = now.Add(exponential(extraBlockRelay))
		return BlockRelayOnly, true
	case now.After(s.nextFeeler):
		s.nextFeeler = now.Add(exponential(feelerEvery))
		return Feeler, true
	}
	return 0, false
}

// tipStale reports whether no block has come for so long that our peers may keep them from us; with mu held.
func (n *Node) tipStale(now time.Time) bool {
	return now.Sub(n.tipSeen) > 3*n.net.TargetSpacing*10 && len(n.blocks.inFlight) == 0
}

// choose returns an address to connect to: in a neighbourhood where we have nobody yet.
func (s *connecter) choose(typ ConnType, now time.Time) (wire.KnownAddr, bool) {
	n := s.n
	if typ == BlockRelayOnly && len(s.anchors) > 0 {
		a := s.anchors[0]
		s.anchors = s.anchors[1:]
		n.infof("Trying to make an anchor connection to %s", a)
		return wire.KnownAddr{AddrPort: a}, true
	}
	n.book.ResolveCollisions(now)
	groups := map[string]bool{}
	n.mu.Lock()
	for _, p := range n.peers {
		if p.outboundOrBlockRelay() || p.typ == Manual {
			groups[string(addrbook.Group(p.addr.Addr))] = true
		}
	}
	n.mu.Unlock()
	var nets []wire.Net
	for _, net := range []wire.Net{wire.NetIPv4, wire.NetIPv6, wire.NetTorV3, wire.NetI2P, wire.NetCJDNS} {
		if n.reachable(net) {
			nets = append(nets, net)
		}
	}
	for tries := range 100 {
		e, ok := n.book.TriedCollision()
		if typ != Feeler || !ok {
			e, ok = n.book.Select(typ == Feeler, now, nets...)
		}
		if !ok {
			return wire.KnownAddr{}, false
		}
		switch {
		case typ != Feeler && groups[string(addrbook.Group(e.Addr))]:
		case !e.Valid() || e.Addr.Local() || n.isOwn(e.AddrPort):
		case now.Sub(e.LastTry) < 10*time.Minute && tries < 30:
		case typ != Feeler && !e.Services.Has(n.wantedServices(e.Services)):
		case e.Port == 0:
		default:
			return e.KnownAddr, true
		}
	}
	return wire.KnownAddr{}, false
}

func (n *Node) isOwn(a wire.AddrPort) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	l, ok := n.local[a.Addr]
	return ok && l.port == a.Port
}

// saveAnchors writes the addresses of the block-relay-only peers: after a restart they are asked first, so
// that whoever made us restart cannot have us all for himself. The file is Core's anchors.dat.
func (n *Node) saveAnchors() {
	if n.cfg.AnchorsFile == "" {
		return
	}
	list := n.anchors[:min(len(n.anchors), maxAnchors)]
	data := append([]byte(nil), n.net.Magic[:]...)
	data = bitcoin.AppendCompactSize(data, uint64(len(list)))
	for _, a := range list {
		data = addrbook.AppendDisk(data, wire.KnownAddr{AddrPort: a,
			Services: wire.ServiceNetwork | wire.ServiceWitness})
	}
	sum := bitcoin.DoubleHash(data)
	if err := writeFile(n.cfg.AnchorsFile, append(data, sum[:]...)); err != nil {
		n.log.Warn("anchors could not be written", "err", err)
		return
	}
	n.infof("DumpAnchors: Flush %d outbound block-relay-only peer addresses to anchors.dat completed",
		len(list))
}

// loadAnchors reads the anchors and deletes their file: a crash is not to repeat itself.
func (s *connecter) loadAnchors() {
	n := s.n
	if n.cfg.AnchorsFile == "" || n.cfg.ConnectOnly {
		return
	}
	data, err := os.ReadFile(n.cfg.AnchorsFile)
	if err != nil {
		return
	}
	os.Remove(n.cfg.AnchorsFile)
	list, err := parseAnchors(data, n.net.Magic)
	if err != nil {
		n.log.Warn("anchors could not be read", "err", err)
		return
	}
	s.anchors = list[:min(len(list), maxAnchors)]
	n.infof("%d block-relay-only anchors will be tried for connections.", len(s.anchors))
}

func parseAnchors(data []byte, magic [4]byte) ([]wire.AddrPort, error) {
	if len(data) < 37 || !bytes.Equal(data[:4], magic[:]) {
		return nil, errors.New("not an anchors file of this network")
	}
	body := data[:len(data)-32]
	if sum := bitcoin.DoubleHash(body); !bytes.Equal(sum[:], data[len(data)-32:]) {
		return nil, errors.New("checksum mismatch, data corrupted")
	}
	addrs, err := addrbook.ParseDisk(body[4:], 100)
	var out []wire.AddrPort
	for _, a := range addrs {
		out = append(out, a.AddrPort)
	}
	return out, err
}
