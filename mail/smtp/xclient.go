package smtp

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// trustedXClient reports whether the host at the other end of the socket, whatever it said of
// itself, may speak for others (Postfix's XCLIENT_README).
func (c *Conn) trustedXClient() bool { return trusts(c.v.cfg.XClient, c.x.sock.RemoteAddr()) }

// xclient answers XCLIENT: the session begins anew with the attributes of another client.
func (c *Conn) xclient(arg string) {
	switch {
	case !c.trustedXClient():
		c.fault(550, "5.7.0", "XCLIENT is not for you")
		return
	case !c.inStep("XCLIENT"):
		return
	case c.tx.open:
		c.fault(503, "5.5.1", "a transaction is open, say RSET to give it up")
		return
	}
	a, ok := parseXClient(arg, addrPort(c.remote), addrPort(c.local))
	if !ok {
		c.fault(501, "5.5.4", "malformed XCLIENT attribute")
		return
	}
	if c.session != nil {
		c.session.Logout()
		c.session = nil
	}
	if c.leave != nil {
		c.leave()
		c.leave = nil
	}
	if a.src.IsValid() {
		c.remote = net.TCPAddrFromAddrPort(a.src)
	}
	if a.dst.IsValid() {
		c.local = net.TCPAddrFromAddrPort(a.dst)
	}
	c.helo, c.esmtp, c.account = cleanHelo(a.helo), a.esmtp, a.login
	if err := c.admit(); err != nil {
		c.refuseConn(err)
		return
	}
	if err := c.newSession(); err != nil {
		c.refuseConn(err)
		return
	}
	c.greet()
}

// xclientAttrs is what XCLIENT said; empty where it said nothing.
type xclientAttrs struct {
	src, dst    netip.AddrPort
	helo, login string
	esmtp       bool
}

// parseXClient reads the attributes; src and dst are what they change.
func parseXClient(arg string, src, dst netip.AddrPort) (a xclientAttrs, ok bool) {
	a.src, a.dst = src, dst
	for word := range strings.FieldsSeq(arg) {
		key, value, found := strings.Cut(word, "=")
		value, err := decodeXtext(value)
		if !found || err != nil {
			return a, false
		}
		if value == "[UNAVAILABLE]" || value == "[TEMPUNAVAIL]" {
			continue
		}
		if !a.set(strings.ToUpper(key), value) {
			return a, false
		}
	}
	return a, arg != ""
}

func (a *xclientAttrs) set(key, value string) (ok bool) {
	switch key {
	case "NAME", "REVERSE_NAME": // names are for the policy to look up
		return true
	case "ADDR":
		a.src, ok = withAddr(a.src, value)
	case "PORT":
		a.src, ok = withPort(a.src, value)
	case "DESTADDR":
		a.dst, ok = withAddr(a.dst, value)
	case "DESTPORT":
		a.dst, ok = withPort(a.dst, value)
	case "PROTO":
		a.esmtp = strings.EqualFold(value, "ESMTP")
		ok = a.esmtp || strings.EqualFold(value, "SMTP")
	case "HELO":
		a.helo, ok = value, len(value) <= 255
	case "LOGIN":
		a.login, ok = value, len(value) <= 255
	}
	return ok
}

func withAddr(ap netip.AddrPort, value string) (netip.AddrPort, bool) {
	if len(value) > 5 && strings.EqualFold(value[:5], "IPV6:") {
		value = value[5:]
	}
	ip, err := netip.ParseAddr(value)
	return netip.AddrPortFrom(ip.Unmap(), ap.Port()), err == nil && ip.Zone() == ""
}

func withPort(ap netip.AddrPort, value string) (netip.AddrPort, bool) {
	n, err := strconv.ParseUint(value, 10, 16)
	return netip.AddrPortFrom(ap.Addr(), uint16(n)), err == nil
}
