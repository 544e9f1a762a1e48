package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

// TLSMode is what TLS a Transport is spoken to with.
type TLSMode string

// The modes. The empty one is TLSVerify where there is a password to protect, TLSImplicit where
// that goes to port 465, TLSNone for a Unix socket, and else TLSOpportunistic.
const (
	TLSNone          TLSMode = "none"
	TLSOpportunistic TLSMode = "opportunistic" // if it is offered, with any certificate
	TLSEncrypt       TLSMode = "encrypt"       // with any certificate
	TLSVerify        TLSMode = "verify"        // with a certificate for the host, by a known authority
	TLSImplicit      TLSMode = "implicit"      // TLSVerify from the first octet on (RFC 8314)
)

// Transport is a server that takes mail whatever the DNS says: a smarthost, the next server inside
// a company, or a mailbox server that speaks LMTP.
type Transport struct {
	// Address is "host", "host:port" or "unix:/path/of/socket"; the port is 25 where none is given, 24
	// for LMTP, 465 with TLSImplicit, and 587 where there is a User. Empty: the MX hosts of the
	// domain.
	Address string
	LMTP    bool // RFC 2033
	TLS     TLSMode
	// User and Password log in, by the strongest of SCRAM-SHA-256(-PLUS), PLAIN and LOGIN that is
	// offered. They never travel without TLS, nor with a certificate that is not the host's.
	User, Password string
}

// transport is a Transport that was read.
type transport struct {
	Transport
	route   queue.Route
	network string // "tcp" or "unix"
	host    string // name or address; empty for "unix"
	addr    string // host:port, or the path of the socket
	port    uint16
}

// readRoutes reads Config.Routes.
func (r *Relay) readRoutes() error {
	r.routes, r.vias = make(map[string]*transport), make(map[queue.Route]*transport)
	for key, t := range r.cfg.Routes {
		name, err := routeKey(key)
		if err != nil {
			return fmt.Errorf("route of %q: %w", key, err)
		}
		if t == (Transport{}) {
			r.routes[name] = nil
			continue
		}
		read, err := t.read()
		if err != nil {
			return fmt.Errorf("route of %q: %w", key, err)
		}
		if known := r.vias[read.route]; known != nil {
			if *known != *read {
				return fmt.Errorf("route of %q: %s is given twice with different settings", key, t.Address)
			}
			read = known
		}
		r.routes[name], r.vias[read.route] = read, read
	}
	return nil
}

// Check reports what is wrong with a transport.
func (t Transport) Check() error {
	_, err := t.read()
	return err
}

func routeKey(key string) (string, error) {
	if key == "*" {
		return key, nil
	}
	name, below := strings.CutPrefix(key, ".")
	d, err := mail.ParseDomain(name)
	if err != nil {
		return "", err
	}
	if below {
		return "." + d.ASCII(), nil
	}
	return d.ASCII(), nil
}

// transportOf returns the transport of a domain: by its name, else by the nearest domain above it;
// nil where its mail goes by MX.
func (r *Relay) transportOf(d mail.Domain) *transport {
	if len(r.routes) == 0 {
		return nil
	}
	name := d.ASCII()
	if t, ok := r.routes[name]; ok {
		return t
	}
	for at := name; name[0] != '['; {
		dot := strings.IndexByte(at, '.')
		if dot < 0 {
			break
		}
		if t, ok := r.routes[at[dot:]]; ok {
			return t
		}
		at = at[dot+1:]
	}
	return r.routes["*"]
}

// read checks a transport and fills in what it leaves open.
func (t Transport) read() (*transport, error) {
	out := &transport{Transport: t}
	if path, ok := strings.CutPrefix(t.Address, "unix:"); ok {
		if path == "" {
			return nil, errors.New(`"unix:" without the path of a socket`)
		}
		out.network, out.addr = "unix", path
		setDefault(&out.TLS, TLSNone)
	} else if err := out.readHost(); err != nil {
		return nil, err
	}
	out.route = queue.Route(routeVia + out.place())
	if t.LMTP {
		out.route = queue.Route(routeLMTP + out.place())
	}
	switch out.TLS {
	case TLSVerify, TLSImplicit, TLSEncrypt, TLSOpportunistic, TLSNone:
	default:
		return nil, fmt.Errorf("unknown mode of TLS %q", out.TLS)
	}
	if t.User != "" && !out.verified() {
		return nil, fmt.Errorf("a password needs TLS with a verified certificate, not %q", out.TLS)
	}
	if t.User == "" && t.Password != "" {
		return nil, errors.New("password without a user")
	}
	return out, nil
}

// readHost reads "host:port" with its defaults.
func (t *transport) readHost() error {
	t.network = "tcp"
	host, port, err := net.SplitHostPort(t.Address)
	if err != nil {
		host, port = strings.Trim(t.Address, "[]"), ""
	}
	if port == "" {
		port = t.defaultPort()
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is no port", port)
	}
	if _, err := netip.ParseAddr(host); err != nil {
		d, err := mail.ParseDomain(host)
		if err != nil {
			return err
		}
		host = d.ASCII()
	}
	t.host, t.port, t.addr = host, uint16(n), net.JoinHostPort(host, port)
	if t.TLS == "" {
		switch {
		case t.User != "" && n == 465:
			t.TLS = TLSImplicit
		case t.User != "":
			t.TLS = TLSVerify
		default:
			t.TLS = TLSOpportunistic
		}
	}
	return nil
}

func (t *transport) defaultPort() string {
	switch {
	case t.LMTP:
		return "24"
	case t.TLS == TLSImplicit:
		return "465"
	case t.User != "":
		return "587"
	}
	return "25"
}

// verified reports whether every connection to the transport shows a certificate for it.
func (t *transport) verified() bool { return t.TLS == TLSVerify || t.TLS == TLSImplicit }

// place names the server in a route.
func (t *transport) place() string {
	if t.network == "unix" {
		return "unix:" + t.addr
	}
	return t.addr
}

// demand is what a connection to the transport must show. A sender that requires TLS wants a name
// and a certificate that are authentic (RFC 8689, section 4.2.1); the name is, for the operator
// gave it.
func (t *transport) demand(r *Relay, requireTLS bool) *demand {
	if t.network == "unix" {
		return &demand{} // nobody is between us
	}
	d := &demand{
		implicit:  t.TLS == TLSImplicit,
		must:      t.TLS != TLSOpportunistic && t.TLS != TLSNone || requireTLS,
		extension: requireTLS && !t.LMTP,
		explain:   fmt.Sprintf("the configuration asks for TLS (%s) with %s", t.TLS, t.addr),
	}
	if t.TLS == TLSNone && !requireTLS {
		return d
	}
	d.config = &tls.Config{
		ServerName:         t.host,
		RootCAs:            r.cfg.Roots,
		MinVersion:         tls.VersionTLS12,
		ClientSessionCache: r.sessions,
		Time:               r.clock.Now,
		InsecureSkipVerify: !t.verified() && !requireTLS,
	}
	return d
}

// logIn authenticates on a new connection.
func (t *transport) logIn(ctx context.Context, s *session) error {
	if t.User == "" {
		return nil
	}
	if err := s.client.Auth(ctx, t.User, t.Password); err != nil {
		return &loginError{err}
	}
	return nil
}

// loginError is a log-in that failed: the fault is in the configuration and not in any message.
type loginError struct{ err error }

func (e *loginError) Error() string { return e.err.Error() }
func (e *loginError) Unwrap() error { return e.err }
