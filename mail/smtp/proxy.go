package smtp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Limits of the PROXY protocol, versions 1 and 2 (haproxy's doc/proxy-protocol.txt, sections 2.1
// and 2.2).
const (
	maxProxyV1 = 107
	proxyV2Len = 16
	maxProxyV2 = 2048 // addresses and TLVs; those in use stay below 536
	proxyWait  = 30 * time.Second
)

var (
	proxyV2Sign = []byte("\r\n\r\n\x00\r\nQUIT\n")
	errProxy    = errors.New("malformed PROXY header")
)

// readProxyHeader reads the PROXY header that the peer must send if it is one of the trusted
// proxies. From anybody else a header is taken for a command, and refused as such.
func (c *Conn) readProxyHeader() error {
	if !trusts(c.v.cfg.Proxies, c.remote) {
		return nil
	}
	patience := c.x.patience
	c.x.patience = min(patience, proxyWait)
	defer func() { c.x.patience, c.x.readBy, c.x.lineBegun = patience, time.Time{}, false }()
	for {
		src, dst, n, err := parseProxy(c.x.buffered())
		if err != nil {
			c.v.cfg.Log.Warn("malformed PROXY header", "peer", c.remote)
			return err
		}
		if n > 0 {
			c.x.r += n
			if src.IsValid() {
				c.remote, c.local = net.TCPAddrFromAddrPort(src), net.TCPAddrFromAddrPort(dst)
			}
			return nil
		}
		if err := c.x.fill(); err != nil {
			return err
		}
		c.x.lineBegun = true
	}
}

func trusts(prefixes []netip.Prefix, a net.Addr) bool {
	if len(prefixes) == 0 {
		return false
	}
	ip := addrPort(a).Addr()
	for _, p := range prefixes {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// parseProxy reads a PROXY header at the head of b and returns its length, 0 where more octets are
// needed. The addresses are not valid where the proxy speaks for itself.
func parseProxy(b []byte) (src, dst netip.AddrPort, n int, err error) {
	if common := min(len(b), len(proxyV2Sign)); bytes.Equal(b[:common], proxyV2Sign[:common]) {
		if len(b) < proxyV2Len {
			return src, dst, 0, nil
		}
		return parseProxyV2(b)
	}
	return parseProxyV1(b)
}

func parseProxyV1(b []byte) (src, dst netip.AddrPort, n int, err error) {
	const begin = "PROXY "
	if common := min(len(b), len(begin)); string(b[:common]) != begin[:common] {
		return src, dst, 0, errProxy
	}
	end := bytes.Index(b, crlf)
	if end < 0 {
		if len(b) >= maxProxyV1 {
			return src, dst, 0, errProxy
		}
		return src, dst, 0, nil
	}
	if end+2 > maxProxyV1 {
		return src, dst, 0, errProxy
	}
	f := strings.Split(string(b[:end]), " ")
	if f[1] == "UNKNOWN" {
		return src, dst, end + 2, nil
	}
	if len(f) != 6 || f[1] != "TCP4" && f[1] != "TCP6" {
		return src, dst, 0, errProxy
	}
	src, ok := proxyAddr(f[2], f[4], f[1] == "TCP4")
	dst, ok2 := proxyAddr(f[3], f[5], f[1] == "TCP4")
	if !ok || !ok2 {
		return src, dst, 0, errProxy
	}
	return src, dst, end + 2, nil
}

func proxyAddr(ip, port string, v4 bool) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(ip)
	p, err2 := strconv.ParseUint(port, 10, 16)
	if err != nil || err2 != nil || a.Is4() != v4 || a.Zone() != "" {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), true
}

func parseProxyV2(b []byte) (src, dst netip.AddrPort, n int, err error) {
	version, command := b[12]>>4, b[12]&15
	family := b[13]
	size := int(binary.BigEndian.Uint16(b[14:]))
	switch {
	case version != 2 || command > 1 || size > maxProxyV2:
		return src, dst, 0, errProxy
	case len(b) < proxyV2Len+size:
		return src, dst, 0, nil
	}
	n = proxyV2Len + size
	if command == 0 { // LOCAL: a health check of the proxy itself
		return src, dst, n, nil
	}
	a := b[proxyV2Len:n]
	var width int
	switch family {
	case 0x11: // TCP over IPv4
		width = 4
	case 0x21: // TCP over IPv6
		width = 16
	case 0x00, 0x31: // unspecified, UNIX stream: nothing to learn
		return src, dst, n, nil
	default:
		return src, dst, 0, errProxy
	}
	if len(a) < 2*width+4 {
		return src, dst, 0, errProxy
	}
	from, _ := netip.AddrFromSlice(a[:width])
	to, _ := netip.AddrFromSlice(a[width : 2*width])
	ports := a[2*width:]
	src = netip.AddrPortFrom(from.Unmap(), binary.BigEndian.Uint16(ports))
	dst = netip.AddrPortFrom(to.Unmap(), binary.BigEndian.Uint16(ports[2:]))
	return src, dst, n, nil
}
