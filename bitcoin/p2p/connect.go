package p2p

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tallypost/tallypost/bitcoin/p2p/proxy"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

// maxResolved bounds the addresses that a name leads to.
const maxResolved = 256

// errNoAddress says that a name leads nowhere.
var errNoAddress = errors.New("the name has no address")

// call is a connection that is to be made.
type call struct {
	typ   ConnType
	addr  wire.KnownAddr // where name is empty
	name  string         // an address or name of the operator's
	v2    bool
	count bool // a failure says something about the address, not only about our own line
}

func (c *call) String() string {
	if c.name != "" {
		return c.name
	}
	return c.addr.AddrPort.String()
}

// open connects to an address, or to what a name leads to, and begins to talk (Bitcoin Core net.cpp,
// OpenNetworkConnection and ConnectNode).
func (n *Node) open(ctx context.Context, c call) bool {
	if !n.active.Load() || ctx.Err() != nil || !n.mayCall(&c) {
		return false
	}
	transport, hours := "v1", 0.0
	if c.v2 {
		transport = "v2"
	}
	if c.name == "" {
		hours = n.clock.Now().Sub(unix(c.addr.Time)).Hours()
	}
	n.debugf("trying %s connection (%s) to %s, lastseen=%.1fhrs", transport, c.typ, &c, hours)
	targets, err := n.targets(ctx, &c)
	if err != nil {
		n.debugf("Not connecting to %s: %v", &c, err)
		return false
	}
	for _, at := range targets {
		if c.name != "" && at.Valid() && n.connectedToPort(at) {
			n.infof("Not opening a connection to %s, already connected to %s", c.name, at)
			return false
		}
	}
	for _, at := range targets {
		conn, err := n.dial(ctx, &c, at)
		if at.Valid() && !errors.Is(err, proxy.ErrUnreachable) && ctx.Err() == nil {
			n.book.Attempt(at, c.count, n.clock.Now())
		}
		if err != nil {
			n.callFailed(&c, at, err)
			continue
		}
		perms := Permissions(0)
		if c.typ == Manual {
			perms = n.permissions(at.Addr, 0, false)
		}
		return n.addPeer(context.WithoutCancel(ctx), conn.Conn, c.typ, at, c.name, perms, c.v2, false,
			conn.bound) != nil
	}
	return false
}

// mayCall reports whether there is nothing against a connection: it is not there, and we chose nobody who is
// banned. Of an operator's name it is known later where it leads.
func (n *Node) mayCall(c *call) bool {
	if c.name != "" {
		return !n.connectedToName(c.name)
	}
	now := n.clock.Now()
	return !n.isOwn(c.addr.AddrPort) && !n.bans.Banned(c.addr.Addr, now) && !n.bans.Discouraged(c.addr.Addr) &&
		!n.connectedToAddr(c.addr.Addr)
}

func (n *Node) callFailed(c *call, at wire.AddrPort, err error) {
	switch {
	case at.Net == wire.NetI2P:
		n.log.Debug(err.Error(), "cat", "i2p")
	case c.typ == Manual:
		n.infof("connect() to %s failed: %v", &callTarget{c, at}, err)
	default:
		n.debugf("connect() to %s failed: %v", &callTarget{c, at}, err)
	}
}

// callTarget is what is dialed for a call, for the log.
type callTarget struct {
	c  *call
	at wire.AddrPort
}

func (t *callTarget) String() string {
	if t.at.Valid() {
		return t.at.String()
	}
	return t.c.String()
}

// targets returns the addresses to try. One that is not valid stands for a name that the proxy resolves.
func (n *Node) targets(ctx context.Context, c *call) ([]wire.AddrPort, error) {
	if c.name == "" {
		return []wire.AddrPort{c.addr.AddrPort}, nil
	}
	if at := n.numeric(c.name); at.Addr != (wire.Addr{}) {
		if !at.Valid() {
			return nil, errNoAddress
		}
		return []wire.AddrPort{at}, nil
	}
	host, port := n.splitPort(c.name)
	if n.cfg.NameProxy != "" {
		return []wire.AddrPort{{Port: port}}, nil
	}
	if n.cfg.NoDNS {
		return nil, errNoAddress
	}
	ips, err := n.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	rand.Shuffle(len(ips), func(i, j int) { ips[i], ips[j] = ips[j], ips[i] })
	var out []wire.AddrPort
	for _, b := range ips[:min(len(ips), maxResolved)] {
		ip, _ := netip.AddrFromSlice(b)
		if at := (wire.AddrPort{Addr: n.Flip(wire.AddrFromIP(ip.Unmap())), Port: port}); at.Valid() {
			out = append(out, at)
		}
	}
	if len(out) == 0 {
		return nil, errNoAddress
	}
	return out, nil
}

// Flip makes an address of CJDNS of one of IPv6 that looks so, where CJDNS is reached (Core's
// MaybeFlipIPv6toCJDNS).
func (n *Node) Flip(a wire.Addr) wire.Addr {
	if b := a.Bytes(); n.cfg.CJDNS && a.Net == wire.NetIPv6 && b[0] == 0xfc {
		a, _ = wire.NewAddr(wire.NetCJDNS, b)
	}
	return a
}

func (n *Node) lookup(ctx context.Context, host string) ([]net.IP, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	if n.cfg.Resolve != nil {
		return n.cfg.Resolve(ctx, host)
	}
	return net.DefaultResolver.LookupIP(ctx, "ip", host)
}

// splitPort cuts the port off a name, or takes the default of its network.
func (n *Node) splitPort(name string) (string, uint16) {
	if host, port, err := net.SplitHostPort(name); err == nil {
		if p, err := strconv.ParseUint(port, 10, 16); err == nil {
			return host, uint16(p)
		}
	}
	if strings.HasSuffix(strings.ToLower(name), ".b32.i2p") {
		return name, 0 // I2P has no ports
	}
	return strings.Trim(name, "[]"), n.net.Port
}

// numeric returns the address that a name is, if it is one; the zero AddrPort otherwise.
func (n *Node) numeric(name string) wire.AddrPort {
	host, port := n.splitPort(name)
	a, ok := numericAddr(host)
	if !ok {
		return wire.AddrPort{}
	}
	return wire.AddrPort{Addr: n.Flip(a), Port: port}
}

// numericAddr reads an address, also one of IPv4 in the short forms that systems have always taken, as 127.1
// for 127.0.0.1.
func numericAddr(host string) (wire.Addr, bool) {
	if a, err := wire.ParseAddr(host); err == nil {
		return a, true
	}
	parts := strings.Split(host, ".")
	if len(parts) > 3 {
		return wire.Addr{}, false
	}
	var n uint64
	for i, part := range parts {
		bits := 8
		if i+1 == len(parts) {
			bits = 8 * (4 - i)
		}
		v, err := strconv.ParseUint(part, 0, bits)
		if err != nil || strings.HasPrefix(part, "+") || strings.Contains(part, "_") {
			return wire.Addr{}, false
		}
		n |= v << (8*(3-i) - (bits - 8))
	}
	return wire.AddrFromIP(netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})), true
}

// dialed is a connection, and our address at it if it is not the connection's.
type dialed struct {
	net.Conn
	bound string
}

// dial connects to an address, or to a call's name by a proxy.
func (n *Node) dial(ctx context.Context, c *call, at wire.AddrPort) (dialed, error) {
	server := n.cfg.NameProxy
	host, port := n.splitPort(c.name)
	if at.Valid() {
		server, host, port = "", at.Addr.String(), at.Port
		if at.Routable() { // what is near is not reached by way of others
			server = n.Proxy(at.Net)
		}
	}
	switch {
	case server != "" && at.Net == wire.NetI2P:
		return n.dialI2P(ctx, at)
	case server != "":
		n.log.Debug("Using proxy: "+server+" to connect to "+net.JoinHostPort(host, strconv.Itoa(int(port))),
			"cat", "proxy")
		s := proxy.SOCKS5{Server: server, Dial: n.dialWithin}
		if n.cfg.ProxyRandomize {
			s.User = n.isolation()
			s.Password = s.User
		}
		conn, err := s.Connect(ctx, host, port)
		return dialed{Conn: conn}, err
	case at.Net == wire.NetTorV3 || at.Net == wire.NetI2P || !at.Valid():
		return dialed{}, errors.New("no proxy for this network")
	}
	conn, err := n.dialWithin(ctx, "tcp", at.String())
	return dialed{Conn: conn}, err
}

// dialWithin connects within -timeout.
func (n *Node) dialWithin(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ConnectTimeout)
	defer cancel()
	return n.cfg.Dial(ctx, network, addr)
}

// isolation returns a name that no other connection has, for a circuit of its own.
func (n *Node) isolation() string {
	return strconv.FormatUint(n.keys[0]^n.keys[1], 16) + "-" + strconv.FormatInt(n.circuits.Add(1)-1, 10)
}

// anyPeer reports whether the condition holds for a peer whose connection is not ending.
func (n *Node) anyPeer(which func(*Peer) bool) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers {
		if !p.closing && which(p) {
			return true
		}
	}
	return false
}

func (n *Node) connectedToPort(at wire.AddrPort) bool {
	return n.anyPeer(func(p *Peer) bool { return p.addr == at })
}

// connectedToAddr does not look at ports: one host behind two is not two peers.
func (n *Node) connectedToAddr(a wire.Addr) bool {
	return n.anyPeer(func(p *Peer) bool { return p.addr.Addr == a })
}

func (n *Node) connectedToName(name string) bool {
	return n.anyPeer(func(p *Peer) bool { return p.nameOrAddr() == name })
}

func (p *Peer) nameOrAddr() string {
	if p.addrName != "" {
		return p.addrName
	}
	return p.addr.String()
}

func (n *Node) isOwn(a wire.AddrPort) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	l, ok := n.local[a.Addr]
	return ok && l.port == a.Port
}

// isAdded reports whether the operator wants a node by this address.
func (n *Node) isAdded(a wire.Addr) bool {
	return slices.ContainsFunc(n.addedNodes(), func(w wanted) bool {
		at := n.numeric(w.name)
		return at.Valid() && at.Addr == a
	})
}
