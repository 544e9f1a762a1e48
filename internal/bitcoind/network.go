package bitcoind

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tallypost/tallypost/bitcoin/p2p"
	"github.com/tallypost/tallypost/bitcoin/p2p/addrbook"
	"github.com/tallypost/tallypost/bitcoin/wire"
	"github.com/tallypost/tallypost/internal/bitcoind/options"
)

const (
	socksPort = "9050" // of Tor
	samPort   = "7656" // of an I2P router
	unixAddr  = "unix:"

	maxUnixPath = 107 // octets of sockaddr_un.sun_path without the last
)

// interactNetwork lets settings of the network imply others (Core's InitParameterInteraction).
func interactNetwork(o *options.Options, imply func(because, name, value string)) {
	if len(o.List("bind")) > 0 {
		imply("-bind set", "listen", "1")
	}
	if len(o.List("whitebind")) > 0 {
		imply("-whitebind set", "listen", "1")
	}
	if len(o.List("connect")) > 0 || o.Negated("connect") || o.Int("maxconnections", 125) <= 0 {
		imply("-connect or -maxconnections=0 set", "dnsseed", "0")
		imply("-connect or -maxconnections=0 set", "listen", "0")
	}
	if p := o.String("proxy", ""); p != "" && p != "0" {
		// To protect privacy.
		imply("-proxy set", "listen", "0")
		imply("-proxy set", "natpmp", "0")
		imply("-proxy set", "discover", "0")
	}
	if !o.Bool("listen", true) {
		imply("-listen=0", "natpmp", "0")
		imply("-listen=0", "discover", "0")
		imply("-listen=0", "listenonion", "0")
		imply("-listen=0", "i2pacceptincoming", "0")
	}
	if len(o.List("externalip")) > 0 {
		imply("-externalip set", "discover", "0")
	}
	if nets := o.List("onlynet"); len(nets) > 0 && !slices.ContainsFunc(nets, func(s string) bool {
		n, ok := netByName(s)
		return ok && (n == wire.NetIPv4 || n == wire.NetIPv6)
	}) {
		imply("-onlynet excludes IPv4 and IPv6", "dnsseed", "0")
	}
}

// checkPorts refuses addresses whose port is none, of all options that take one (Core's
// CheckHostPortOptions).
func checkPorts(o *options.Options) error {
	for _, opt := range []struct {
		name         string
		unix, suffix bool // a socket's path, or =network behind the address, is good too
	}{{"i2psam", false, false}, {"onion", true, false}, {"proxy", true, true}, {"bind", false, true},
		{"rpcbind", false, false}, {"torcontrol", false, false}, {"whitebind", false, false},
		{"zmqpubhashblock", true, false}, {"zmqpubhashtx", true, false}, {"zmqpubrawblock", true, false},
		{"zmqpubrawtx", true, false}, {"zmqpubsequence", true, false}} {
		for _, s := range o.List(opt.name) {
			addr := s
			if i := strings.LastIndexByte(s, '='); opt.suffix && i >= 0 {
				addr = s[:i]
			}
			if opt.unix && strings.HasPrefix(s, unixAddr) || portFits(addr) {
				continue
			}
			return fmt.Errorf("Invalid port specified in -%s: '%s'", opt.name, s)
		}
	}
	return nil
}

// portFits reports whether what stands behind the last colon can be a port, if anything does (Core's
// SplitHostPort).
func portFits(addr string) bool {
	colon := strings.LastIndexByte(addr, ':')
	bracketed := strings.HasPrefix(addr, "[") && colon > 0 && addr[colon-1] == ']'
	if colon < 0 || !bracketed && strings.LastIndexByte(addr[:colon], ':') >= 0 {
		return true // an address of IPv6 alone
	}
	port, err := strconv.ParseUint(addr[colon+1:], 10, 16)
	return err == nil && port != 0
}

// networks reads which networks are reached, and by which proxies.
func (c *Config) networks(o *options.Options) error {
	p := &c.P2P
	if err := checkPorts(o); err != nil {
		return err
	}
	for _, s := range o.List("onlynet") {
		n, ok := netByName(s)
		if !ok {
			return fmt.Errorf("Unknown network specified in -onlynet: '%s'", s)
		}
		p.OnlyNets = append(p.OnlyNets, n)
	}
	only := func(n wire.Net) bool { return slices.Contains(p.OnlyNets, n) }
	if p.CJDNS = o.Bool("cjdnsreachable", false); !p.CJDNS && only(wire.NetCJDNS) {
		return errors.New("Outbound connections restricted to CJDNS (-onlynet=cjdns) but -cjdnsreachable is " +
			"not provided")
	}
	if o.Bool("dnsseed", false) && p.OnlyNets != nil && !only(wire.NetIPv4) && !only(wire.NetIPv6) {
		return errors.New("Incompatible options: -dnsseed=1 was explicitly specified, but -onlynet forbids " +
			"connections to IPv4/IPv6")
	}
	if o.Bool("forcednsseed", false) && !o.Bool("dnsseed", true) {
		return errors.New("Cannot set -forcednsseed to true when setting -dnsseed to false.")
	}
	p.NoDNS = !o.Bool("dns", true)
	p.ProxyRandomize = o.Bool("proxyrandomize", true)
	p.Proxies = map[wire.Net]string{}
	for _, step := range []func(*options.Options) error{c.proxies, c.onion, c.i2p, c.external, c.asmap} {
		if err := step(o); err != nil {
			return err
		}
	}
	return nil
}

// proxies reads -proxy, each of which may be for one network.
func (c *Config) proxies(o *options.Options) error {
	p := &c.P2P
	for _, s := range o.List("proxy") {
		addr, network := s, ""
		if i := strings.LastIndexByte(s, '='); i >= 0 {
			if addr, network = s[:i], strings.ToLower(s[i+1:]); network == "" {
				return fmt.Errorf("Invalid -proxy address or hostname, ends with '=': '%s'", s)
			}
		}
		at := ""
		if addr != "" && addr != "0" {
			var err error
			if at, err = serverAddr(addr, socksPort); err != nil {
				return fmt.Errorf("Invalid -proxy address or hostname: '%s'", addr)
			}
		}
		nets := []wire.Net{wire.NetIPv4, wire.NetIPv6, wire.NetTorV3, wire.NetCJDNS}
		switch network {
		case "", "ipv4", "ipv6":
			p.NameProxy = at
		}
		if network != "" {
			n, ok := netByName(network)
			if !ok || n == wire.NetI2P || network == "tor" {
				return fmt.Errorf("Unrecognized network in -proxy='%s': '%s'", s, network)
			}
			nets = []wire.Net{n}
		}
		for _, n := range nets {
			p.Proxies[n] = at
		}
	}
	return nil
}

// onion reads -onion, a proxy for Tor alone, or none.
func (c *Config) onion(o *options.Options) error {
	p := &c.P2P
	only := slices.Contains(p.OnlyNets, wire.NetTorV3)
	switch s := o.String("onion", ""); {
	case s == "0" || o.Negated("onion"):
		delete(p.Proxies, wire.NetTorV3)
		if only {
			return errors.New("Outbound connections restricted to Tor (-onlynet=onion) but the proxy for " +
				"reaching the Tor network is explicitly forbidden: -onion=0")
		}
	case s != "":
		at, err := serverAddr(s, socksPort)
		if err != nil {
			return fmt.Errorf("Invalid -onion address or hostname: '%s'", s)
		}
		p.Proxies[wire.NetTorV3] = at
	}
	if p.Proxies[wire.NetTorV3] == "" && only && !o.Bool("listenonion", true) {
		return errors.New("Outbound connections restricted to Tor (-onlynet=onion) but the proxy for " +
			"reaching the Tor network is not provided: none of -proxy, -onion or -listenonion is given")
	}
	return nil
}

// i2p reads where the router of I2P is.
func (c *Config) i2p(o *options.Options) error {
	p := &c.P2P
	s := o.String("i2psam", "")
	if s == "" {
		if slices.Contains(p.OnlyNets, wire.NetI2P) {
			return errors.New("Outbound connections restricted to i2p (-onlynet=i2p) but -i2psam is not provided")
		}
		return nil
	}
	at, err := serverAddr(s, samPort)
	if err != nil {
		return fmt.Errorf("Invalid -i2psam address or hostname: '%s'", s)
	}
	p.Proxies[wire.NetI2P] = at
	if o.Bool("i2pacceptincoming", true) {
		p.I2PKeyFile = filepath.Join(c.DataDir, "i2p_private_key")
	}
	return nil
}

// external reads our own addresses.
func (c *Config) external(o *options.Options) error {
	p := &c.P2P
	p.Discover = o.Bool("discover", true)
	p.Port = c.listenPort(o)
	for _, s := range o.List("externalip") {
		host, port := s, p.Port
		if h, ps, err := net.SplitHostPort(s); err == nil {
			host = h
			n, err := strconv.ParseUint(ps, 10, 16)
			if err != nil {
				return fmt.Errorf("Cannot resolve -externalip address: '%s'", s)
			}
			port = uint16(n)
		}
		a, err := wire.ParseAddr(strings.Trim(host, "[]"))
		if err != nil || !a.Valid() {
			return fmt.Errorf("Cannot resolve -externalip address: '%s'", s)
		}
		p.External = append(p.External, wire.AddrPort{Addr: a, Port: port})
	}
	return nil
}

// listenPort is the port by which nodes reach us: the first one that is bound to, or -port (Core's
// GetListenPort).
func (c *Config) listenPort(o *options.Options) uint16 {
	for _, s := range o.List("bind") {
		if ap, err := netip.ParseAddrPort(s); err == nil && ap.Port() != 0 {
			return ap.Port()
		}
	}
	for _, s := range o.List("whitebind") {
		if perms, ap, err := p2p.ParseWhitebind(s); err == nil && !perms.Has(p2p.PermNoBan) {
			return ap.Port()
		}
	}
	return c.port(o)
}

// asmap reads the map of autonomous systems.
func (c *Config) asmap(o *options.Options) error {
	c.Book.CheckEvery = int(o.Int("checkaddrman", 0))
	if o.Negated("asmap") || !o.Has("asmap") {
		c.BookNotes = append(c.BookNotes, "Using /16 prefix for IP bucketing")
		return nil
	}
	file := o.String("asmap", "")
	if file == "" {
		return errors.New("-asmap requires a file path. Use -asmap=<file>.")
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(c.DataDir, file)
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("Could not find asmap file %q", file)
	}
	if err == nil {
		c.Book.Map, err = addrbook.ParseASMap(data)
	}
	if err != nil {
		return fmt.Errorf("Could not parse asmap file %q", file)
	}
	c.BookNotes = append(c.BookNotes, fmt.Sprintf("Opened asmap file %q (%d bytes) from disk", file, len(data)),
		fmt.Sprintf("Using asmap version %s for IP bucketing", c.Book.Map.Version()))
	return nil
}

// parseByteUnits reads a number of octets with a unit, or in the default one: small letters are powers of
// 1000, capital ones of 1024 (Core's ParseByteUnits).
func parseByteUnits(s string, unit byte) (int64, bool) {
	if s != "" && (s[len(s)-1] < '0' || s[len(s)-1] > '9') {
		unit, s = s[len(s)-1], s[:len(s)-1]
	}
	factor := int64(1)
	switch i := strings.IndexByte("kmgt", unit|0x20); {
	case i < 0:
		return 0, false
	case unit&0x20 != 0:
		factor = int64(math.Pow10(3 * (i + 1)))
	default:
		factor <<= 10 * (i + 1)
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/factor || s[0] == '+' {
		return 0, false
	}
	return n * factor, true
}

func netByName(s string) (wire.Net, bool) {
	for _, n := range []wire.Net{wire.NetIPv4, wire.NetIPv6, wire.NetTorV3, wire.NetI2P, wire.NetCJDNS} {
		if n.String() == strings.ToLower(s) || strings.ToLower(s) == "tor" && n == wire.NetTorV3 {
			return n, true
		}
	}
	return 0, false
}

// serverAddr completes the address of a proxy. A name is resolved now, so that one that leads nowhere is
// noticed.
func serverAddr(s, defaultPort string) (string, error) {
	if path, ok := strings.CutPrefix(s, unixAddr); ok {
		if path == "" || len(path) > maxUnixPath {
			return "", errors.New("no path that a socket can have")
		}
		return s, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = strings.Trim(s, "[]"), defaultPort
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return "", errors.New("invalid port")
	}
	if _, err := netip.ParseAddr(host); err != nil {
		if strings.Contains(host, "..") {
			return "", errors.New("no hostname")
		}
		addrs, err := net.LookupHost(host)
		if err != nil {
			return "", err
		}
		host = addrs[0]
	}
	return net.JoinHostPort(host, port), nil
}

func (c *Config) port(o *options.Options) uint16 {
	return uint16(o.Int("port", int64(c.Network.Port)))
}

// binds reads where to listen for peers.
func (c *Config) binds(o *options.Options) error {
	if p := o.Int("port", int64(c.Network.Port)); p < 1 || p > math.MaxUint16 {
		return fmt.Errorf("Invalid port specified in -port: '%s'", o.String("port", ""))
	}
	if !o.Bool("listen", true) {
		switch {
		case len(o.List("bind"))+len(o.List("whitebind")) > 0:
			return errors.New("Cannot set -bind or -whitebind together with -listen=0")
		case o.Bool("listenonion", true):
			return errors.New("Cannot set -listen=0 together with -listenonion=1")
		}
		return nil
	}
	port := c.port(o)
	for _, s := range o.List("bind") {
		addr, onion := strings.CutSuffix(s, "=onion")
		def := port
		if onion {
			def++
		}
		ap, err := parseBind(addr, def)
		if err != nil {
			return fmt.Errorf("Cannot resolve -bind address: '%s'", s)
		}
		c.Binds = append(c.Binds, Bind{Addr: ap, Onion: onion})
		if !onion {
			c.warnBadPort("-bind", ap.Port())
		}
	}
	for _, s := range o.List("whitebind") {
		perms, ap, err := p2p.ParseWhitebind(s)
		if err != nil {
			return err
		}
		c.Binds = append(c.Binds, Bind{Addr: ap, Permissions: perms})
	}
	if len(c.Binds) == 0 {
		if o.Has("port") {
			c.warnBadPort("-port", port)
		}
		c.Binds = []Bind{
			{Addr: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port+1), Onion: true},
			{Addr: netip.AddrPortFrom(netip.IPv6Unspecified(), port), Optional: true},
			{Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), port)},
		}
		c.P2P.Interfaces = interfaceAddrs(c.P2P.Port)
		return nil
	}
	return c.checkBinds()
}

// checkBinds refuses one address for two purposes, and notes those that nodes may know us by.
func (c *Config) checkBinds() error {
	seen := map[netip.AddrPort]bool{}
	for _, b := range c.Binds {
		at := wire.AddrPortFrom(b.Addr)
		if seen[b.Addr] {
			return fmt.Errorf("Duplicate binding configuration for address %s. Please check your -bind, "+
				"-bind=...=onion and -whitebind settings.", at)
		}
		seen[b.Addr] = true
		if !b.Onion && !b.Permissions.Has(p2p.PermNoBan) {
			c.P2P.Bound = append(c.P2P.Bound, at)
		}
	}
	return nil
}

// warnBadPort says that nobody will connect to a port.
func (c *Config) warnBadPort(option string, port uint16) {
	if p2p.BadPort(port) {
		c.Aloud = append(c.Aloud, fmt.Sprintf("%s request to listen on port %d. This port is considered "+
			"\"bad\" and thus it is unlikely that any peer will connect to it. See doc/p2p-bad-ports.md for "+
			"details and a full list.", option, port))
	}
}

// interfaceAddrs returns the addresses of this machine, with a port.
func interfaceAddrs(port uint16) (list []wire.AddrPort) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil // none to tell of
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			list = append(list, wire.AddrPort{Addr: wire.AddrFromIP(p.Addr().Unmap()), Port: port})
		}
	}
	return list
}

func parseBind(s string, def uint16) (netip.AddrPort, error) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap, nil
	}
	host := strings.Trim(s, "[]")
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	return netip.AddrPortFrom(ip, def), err
}
