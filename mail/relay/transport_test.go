package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/smtp"
)

// TestRoutes: which server a domain's mail goes to, by the configuration.
func TestRoutes(t *testing.T) {
	r, err := New(Config{Hostname: "us.example", Routes: map[string]Transport{
		"*":                   {Address: "smart.example", User: "u", Password: "p"},
		"Direct.Example":      {},
		".inside.example":     {Address: "10.0.0.1:2525"},
		"top.inside.example":  {Address: "[2001:db8::1]:26"},
		"also.inside.example": {Address: "10.0.0.1:2525", TLS: TLSOpportunistic},
		"box.example":         {Address: "unix:/run/dovecot/lmtp", LMTP: true},
		"other.example":       {Address: "dovecot.example", LMTP: true},
		"bücher.example":      {Address: "ssl.example", TLS: TLSImplicit, User: "u", Password: "p"},
	}}, dns.MustZone(nil), clock.Real{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for domain, want := range map[string]queue.Route{
		"example.org":           "smtp:via:smart.example:587",
		"direct.example":        "smtp:direct.example",
		"sub.direct.example":    "smtp:via:smart.example:587",
		"inside.example":        "smtp:via:smart.example:587",
		"a.inside.example":      "smtp:via:10.0.0.1:2525",
		"a.b.inside.example":    "smtp:via:10.0.0.1:2525",
		"top.inside.example":    "smtp:via:[2001:db8::1]:26",
		"box.example":           "lmtp:unix:/run/dovecot/lmtp",
		"other.example":         "lmtp:dovecot.example:24",
		"xn--bcher-kva.example": "smtp:via:ssl.example:465",
		"[192.0.2.1]":           "smtp:via:smart.example:587",
	} {
		if got := r.Route(parse("u@" + domain)); got != want {
			t.Errorf("%s: %s, want %s", domain, got, want)
		}
	}
}

func TestRoutesByMX(t *testing.T) {
	r, err := New(Config{Hostname: "us.example"}, dns.MustZone(nil), clock.Real{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]queue.Route{
		"u@Example.ORG": "smtp:example.org", "u@bücher.example": "smtp:xn--bcher-kva.example",
		"u@[192.0.2.1]": "smtp:[192.0.2.1]", "u@[IPv6:2001:db8::1]": "smtp:[IPv6:2001:db8::1]",
	} {
		if got := r.Route(parse(addr)); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
		if got := r.Route(parse(addr)); got.Local() {
			t.Errorf("%s is local", got)
		}
	}
}

func TestBadRoutes(t *testing.T) {
	for name, routes := range map[string]map[string]Transport{
		"is no port":              {"*": {Address: "host:99999"}},
		"socket":                  {"*": {Address: "unix:"}},
		"unknown mode":            {"*": {Address: "host.example", TLS: "maybe"}},
		"a password needs TLS":    {"*": {Address: "host.example", TLS: TLSEncrypt, User: "u", Password: "p"}},
		"password without a user": {"*": {Address: "host.example", Password: "p"}},
		`route of "exa mple"`:     {"exa mple": {Address: "host.example"}},
		"with different settings": {"a.example": {Address: "host.example"}, "b.example": {Address: "host.example", TLS: TLSEncrypt}},
		`route of "c.example"`:    {"c.example": {Address: "-bad-.example:25"}},
	} {
		_, err := New(Config{Hostname: "us.example", Routes: routes}, dns.MustZone(nil), clock.Real{}, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLostRoute: a message that waits for a server which is no longer configured.
func TestLostRoute(t *testing.T) {
	bubble(t, nil, func(w *world) {
		env := mail.Envelope{Recipients: []mail.Recipient{{Address: parse("u@d.example")}}}
		got := w.relay.Deliver(context.Background(), &queue.Delivery{Envelope: env, Route: "smtp:via:gone.example:25"})
		w.expect(got, "deferred 4.3.5 our configuration")
	})
}

// keeper is an smtp.Session that keeps what it gets.
type keeper struct {
	*shelf
	conn *smtp.Conn
	line string
}

type shelf struct {
	mu   sync.Mutex
	kept []string // guarded by mu
}

func (s *shelf) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kept
	s.kept = nil
	return k
}

func (k *keeper) Mail(_ context.Context, from mail.Address, p smtp.MailParams) error {
	k.line = fmt.Sprintf("%s<%s", k.conn.Account(), from)
	return nil
}

func (k *keeper) Rcpt(_ context.Context, to mail.Recipient) error {
	k.line += ">" + to.Address.String()
	return nil
}

func (k *keeper) Data(_ context.Context, r io.Reader) (smtp.Reply, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return smtp.Reply{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept = append(k.kept, fmt.Sprintf("%s %d", k.line, len(b)))
	return smtp.Reply{}, nil
}

func (k *keeper) Reset()  {}
func (k *keeper) Logout() {}

// eachKeeper refuses the local part "full" after the message, as LMTP can.
type eachKeeper struct{ *keeper }

func (k eachKeeper) DataEach(ctx context.Context, r io.Reader) ([]smtp.Reply, error) {
	if _, err := k.Data(ctx, r); err != nil {
		return nil, err
	}
	var out []smtp.Reply
	for _, to := range strings.Split(k.line, ">")[1:] {
		reply := smtp.Reply{Code: 250, Enhanced: "2.0.0", Text: "saved"}
		if strings.HasPrefix(to, "full@") {
			reply = smtp.Reply{Code: 452, Enhanced: "4.2.2", Text: "quota exceeded"}
		}
		out = append(out, reply)
	}
	return out, nil
}

// serve runs our own server on a listener until the test ends.
func serve(t testing.TB, ln net.Listener, cfg smtp.Config) *shelf {
	t.Helper()
	s := new(shelf)
	cfg.Hostname = "server.example"
	cfg.Grace = time.Millisecond
	cfg.NewSession = func(_ context.Context, c *smtp.Conn) (smtp.Session, error) {
		k := &keeper{shelf: s, conn: c}
		if cfg.LMTP {
			return eachKeeper{k}, nil
		}
		return k, nil
	}
	srv, err := smtp.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestSmarthost: log-in, TLS from the start or by STARTTLS, and what happens where they do not work.
func TestSmarthost(t *testing.T) {
	for _, tt := range []struct {
		name     string
		route    Transport
		implicit bool   // the server begins with TLS
		cert     string // name in the certificate; empty: no TLS
		trusted  bool
		want     string
		got      string
	}{
		{"STARTTLS and log-in", Transport{Address: "smart.example:587", User: "u", Password: "secret"}, false, "smart.example", true,
			"delivered 2.0.0", "account<a@us.example>u@d.example 29"},
		{"implicit", Transport{Address: "smart.example:465", User: "u", Password: "secret"}, true, "smart.example", true,
			"delivered 2.0.0", "account<a@us.example>u@d.example 29"},
		{"wrong password", Transport{Address: "smart.example:587", User: "u", Password: "wrong"}, false, "smart.example", true,
			"deferred 4.7.8 our configuration", ""},
		{"wrong certificate", Transport{Address: "smart.example:587", User: "u", Password: "secret"}, false, "else.example", true,
			"deferred 4.7.5 protection demanded", ""},
		{"untrusted, implicit", Transport{Address: "smart.example:465", User: "u", Password: "secret"}, true, "smart.example", false,
			"deferred 4.7.5 protection demanded", ""},
		{"no TLS for the password", Transport{Address: "smart.example:587", User: "u", Password: "secret"}, false, "", true,
			"deferred 4.7.4 protection demanded", ""},
		{"no password, any TLS", Transport{Address: "smart.example"}, false, "else.example", false,
			"delivered 2.0.0", "<a@us.example>u@d.example 29"},
		{"no password, none", Transport{Address: "smart.example"}, false, "", false,
			"delivered 2.0.0", "<a@us.example>u@d.example 29"},
		{"TLS not wanted", Transport{Address: "smart.example", TLS: TLSNone}, false, "smart.example", true,
			"delivered 2.0.0", "<a@us.example>u@d.example 29"},
		{"any certificate, but TLS", Transport{Address: "smart.example", TLS: TLSEncrypt}, false, "", false,
			"deferred 4.7.4 protection demanded", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, nil, func(w *world) {
				cfg := smtp.Config{ImplicitTLS: tt.implicit}
				if tt.cert != "" {
					cfg.TLS = w.authority().server(t, tt.cert)
				}
				cfg.Password = func(_ context.Context, _ *smtp.Conn, user, password string) (string, error) {
					if user == "u" && password == "secret" {
						return "account", nil
					}
					return "", errors.New("no")
				}
				w.cfg.Routes = map[string]Transport{"*": tt.route}
				w.cfg.Roots = newAuthority(t).pool()
				if tt.trusted {
					w.cfg.Roots = w.authority().pool()
				}
				w.open()
				w.zone.Set("smart.example", "A 192.0.2.1")
				port := w.relay.routes["*"].port
				ln, err := w.net.Listen(netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), port).String())
				if err != nil {
					t.Fatal(err)
				}
				shelf := serve(w.t, ln, cfg)
				res := w.deliver("u@d.example")
				w.expect(res, tt.want)
				if kept := strings.Join(shelf.take(), "|"); kept != tt.got {
					t.Errorf("server has %q, want %q", kept, tt.got)
				}
				if tt.got != "" && tt.route.TLS != TLSNone && (res[0].Peer.TLSVersion != "") != (tt.cert != "") {
					t.Errorf("peer %+v", res[0].Peer)
				}
				if tt.got == "" {
					if !res[0].Unreachable {
						t.Errorf("result %+v", res[0])
					}
					return
				}
				// The next one, for another domain, takes the same way.
				w.expect(w.deliver("u@e.example"), "delivered 2.0.0")
				if n := len(w.dialled()); n != 1 {
					t.Errorf("%d connections", n)
				}
				w.relay.Close()
			})
		})
	}
}

// TestSmarthostWantsLogin: a smarthost that asks for a password is a fault of the configuration, and no
// reason to return anybody's mail.
func TestSmarthostWantsLogin(t *testing.T) {
	bubble(t, func(c *Config) { c.Routes = map[string]Transport{"*": {Address: "smart.example"}} }, func(w *world) {
		w.remote("smart.example", "192.0.2.1", answers{"MAIL": "530 5.7.0 Authentication required"})
		w.expect(w.deliver("u@d.example"), "deferred 4.7.0 our configuration")
	})
}

// TestSmarthostRequireTLS: RFC 8689, section 4.2.1, for a next hop by configuration.
func TestSmarthostRequireTLS(t *testing.T) {
	for _, tt := range []struct {
		name, cert, caps, want string
	}{
		{"all is there", "smart.example", "REQUIRETLS", "delivered 2.0.0"},
		{"no extension", "smart.example", "", "failed 5.7.30 protection demanded"},
		{"wrong certificate", "else.example", "REQUIRETLS", "deferred 4.7.5 protection demanded"},
		{"no TLS", "", "", "deferred 4.7.4 protection demanded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(c *Config) { c.Routes = map[string]Transport{"*": {Address: "smart.example"}} }, func(w *world) {
				w.cfg.Roots = w.authority().pool()
				w.open()
				w.remote("smart.example", "192.0.2.1", nil, func(r *remote) {
					if tt.cert != "" {
						r.tls = w.authority().server(t, tt.cert)
					}
					if tt.caps != "" {
						r.caps = []string{tt.caps}
					}
				})
				w.expect(w.deliver("u@d.example"), "delivered 2.0.0")
				w.expect(w.send(message{requireTLS: true}, "u@d.example"), tt.want)
			})
		})
	}
}

// TestLMTP delivers to a mailbox server over a socket and over TCP: each recipient has its own reply.
func TestLMTP(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			at, route := "127.0.0.1:0", ""
			if network == "unix" {
				at = filepath.Join(t.TempDir(), "lmtp")
				route = "unix:" + at
			}
			ln, err := net.Listen(network, at)
			if err != nil {
				t.Fatal(err)
			}
			if network == "tcp" {
				route = ln.Addr().String()
			}
			shelf := serve(t, ln, smtp.Config{LMTP: true})
			w := newWorld(t)
			w.cfg.Dial = nil
			w.cfg.Routes = map[string]Transport{"d.example": {Address: route, LMTP: true}}
			w.open()
			for range 2 {
				got := w.deliver("a@d.example", "full@d.example", "b@d.example")
				w.expect(got, "delivered 2.0.0", "deferred 4.2.2 mailbox full", "delivered 2.0.0")
				if got[0].Relayed || got[0].Peer == nil || got[0].Reply != "250 2.0.0 saved" {
					t.Errorf("result %+v", got[0])
				}
			}
			if kept := shelf.take(); len(kept) != 2 || kept[0] != "<a@us.example>a@d.example>full@d.example>b@d.example 29" {
				t.Errorf("kept %q", kept)
			}
			if r := w.relay.Route(parse("a@d.example")); !r.Local() {
				t.Errorf("route %s is not local", r)
			}
			if network == "unix" {
				if s := w.relay.Sites()[0]; s.Name != "lmtp:"+route || s.Idle != 1 {
					t.Errorf("site %+v", s)
				}
			}
			w.relay.Close()
		})
	}
}

// TestLMTPDown: a mailbox server that is away is waited for.
func TestLMTPDown(t *testing.T) {
	w := newWorld(t)
	w.cfg.Dial = nil
	w.cfg.Routes = map[string]Transport{"d.example": {Address: "unix:" + filepath.Join(t.TempDir(), "none"), LMTP: true}}
	w.open()
	got := w.deliver("a@d.example")
	w.expect(got, "deferred 4.4.1 unreachable")
	if !got[0].Unreachable {
		t.Errorf("result %+v", got[0])
	}
}
