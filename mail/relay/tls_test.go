package relay

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/mail/tlspolicy"
)

// storeOf is an STS store with one policy that is never fetched again.
func (w *world) storeOf(domain string, mode tlspolicy.Mode, mx ...string) *tlspolicy.STS {
	w.t.Helper()
	store := tlspolicy.NewMemoryStore(10)
	p := tlspolicy.STSPolicy{Mode: mode, MX: mx, MaxAge: 24 * time.Hour}
	if err := store.SaveSTS(domain, &tlspolicy.CachedPolicy{ID: "1", Policy: p, Fetched: time.Now()}); err != nil {
		w.t.Fatal(err)
	}
	return tlspolicy.NewSTS(tlspolicy.STSConfig{Resolver: w.zone, Store: store})
}

// sessionLog collects what is reported of connections.
type sessionLog struct{ sessions []*tlspolicy.Session }

func (l *sessionLog) add(s *tlspolicy.Session) { l.sessions = append(l.sessions, s) }

// results are the result types of the failures, "" for success.
func (l *sessionLog) results() (out []string) {
	for _, s := range l.sessions {
		kind := ""
		if s.Failure != nil {
			kind = string(s.Failure.Type)
		}
		out = append(out, kind)
	}
	l.sessions = nil
	return out
}

// TestTLS: what goes over which connection, with two hosts of which the second is always in order.
func TestTLS(t *testing.T) {
	const (
		good      = "good"      // a certificate for the host, by a known authority
		wrongName = "wrongName" // for another one
		self      = "self"      // by nobody known
		none      = "none"      // no STARTTLS
		refuses   = "refuses"   // STARTTLS is offered and then refused
		breaks    = "breaks"    // offered, and the handshake fails
		old       = "old"       // TLS 1.1 at most
	)
	const waive = "TLS-Required: No\r\nFrom: a@us.example\r\n\r\nhello\r\n"
	for _, tt := range []struct {
		name    string
		policy  string // "", "enforce", "testing", "dane", "dane+enforce", "unlisted", "unsigned"
		server  string // the first host
		message message
		want    string
		took    string // "tls", "clear" of the first host, "second", or nothing
		report  []string
	}{
		{"opportunistic, good", "", good, message{}, "delivered 2.0.0", "tls", []string{""}},
		{"opportunistic, any certificate", "", self, message{}, "delivered 2.0.0", "tls", []string{""}},
		{"opportunistic, none", "", none, message{}, "delivered 2.0.0", "clear", []string{"starttls-not-supported"}},
		{"opportunistic, refused", "", refuses, message{}, "delivered 2.0.0", "clear", []string{"starttls-not-supported"}},
		{"opportunistic, broken", "", breaks, message{}, "delivered 2.0.0", "clear", []string{"validation-failure"}},
		{"opportunistic, TLS 1.1", "", old, message{}, "delivered 2.0.0", "clear", []string{"validation-failure"}},

		{"MTA-STS, good", "enforce", good, message{}, "delivered 2.0.0", "tls", []string{""}},
		{"MTA-STS, wrong name", "enforce", wrongName, message{}, "delivered 2.0.0", "second", []string{"certificate-host-mismatch", ""}},
		{"MTA-STS, unknown authority", "enforce", self, message{}, "delivered 2.0.0", "second", []string{"certificate-not-trusted", ""}},
		{"MTA-STS, none", "enforce", none, message{}, "delivered 2.0.0", "second", []string{"starttls-not-supported", ""}},
		{"MTA-STS, refused", "enforce", refuses, message{}, "delivered 2.0.0", "second", []string{"validation-failure", ""}},
		{"MTA-STS, broken", "enforce", breaks, message{}, "delivered 2.0.0", "second", []string{"validation-failure", ""}},
		{"MTA-STS, host not in the policy", "unlisted", good, message{}, "deferred 4.7.5 protection demanded", "",
			[]string{"validation-failure", "validation-failure"}},
		{"MTA-STS in testing, wrong name", "testing", wrongName, message{}, "delivered 2.0.0", "tls", []string{"certificate-host-mismatch"}},
		{"MTA-STS in testing, none", "testing", none, message{}, "delivered 2.0.0", "clear", []string{"starttls-not-supported"}},
		{"MTA-STS, waived by the sender", "enforce", none, message{text: waive}, "delivered 2.0.0", "clear", nil},
		{"MTA-STS, waived, not in the policy", "unlisted", self, message{text: waive}, "delivered 2.0.0", "tls", nil},

		{"DANE, good", "dane", self, message{}, "delivered 2.0.0", "tls", []string{""}},
		{"DANE, another key", "dane other", good, message{}, "delivered 2.0.0", "second", []string{"validation-failure", ""}},
		{"DANE, none", "dane", none, message{}, "delivered 2.0.0", "second", []string{"starttls-not-supported", ""}},
		{"DANE over MTA-STS", "dane+enforce", self, message{}, "delivered 2.0.0", "tls", []string{""}},
		{"DANE without DNSSEC is none", "unsigned", none, message{}, "delivered 2.0.0", "clear", []string{"starttls-not-supported"}},

		{"REQUIRETLS, good", "enforce", good, message{requireTLS: true}, "delivered 2.0.0", "tls", []string{""}},
		{"REQUIRETLS, wins over the field", "enforce", none, message{requireTLS: true, text: waive}, "delivered 2.0.0", "second",
			[]string{"starttls-not-supported", ""}},
		{"REQUIRETLS without a policy", "", good, message{requireTLS: true}, "failed 5.7.30 protection demanded", "",
			[]string{"validation-failure", "validation-failure"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, nil, func(w *world) {
				ca := w.authority()
				say, cfg := answers{}, ca.server(t, "mx1.example")
				switch tt.server {
				case wrongName:
					cfg = ca.server(t, "other.example")
				case self:
					cfg = newAuthority(t).server(t, "mx1.example")
				case none:
					cfg = nil
				case refuses:
					say["STARTTLS"] = "454 4.7.0 TLS not available"
				case breaks:
					say["STARTTLS"] = "220 go on\nthis is no TLS at all"
				case old:
					cfg.MaxVersion = tls.VersionTLS11
					cfg.MinVersion = tls.VersionTLS10
				}
				required := func(r *remote) {
					if r.tls != nil {
						r.caps = append(r.caps, "REQUIRETLS")
					}
				}
				first, second := w.pair(say, func(r *remote) { r.tls = cfg }, required)
				w.zone.Set("mx1.example", "A 192.0.2.1")
				w.zone.Set("mx2.example", "A 192.0.2.2")
				second.tls = ca.server(t, "mx2.example")
				required(second)
				pcfg := tlspolicy.Config{Resolver: w.zone, Roots: ca.pool()}
				switch tt.policy {
				case "enforce", "dane+enforce":
					pcfg.STS = w.storeOf("d.example", tlspolicy.ModeEnforce, "mx1.example", "mx2.example")
				case "testing":
					pcfg.STS = w.storeOf("d.example", tlspolicy.ModeTesting, "*.example")
				case "unlisted":
					pcfg.STS = w.storeOf("d.example", tlspolicy.ModeEnforce, "mx3.example")
				}
				w.zone.Sign(".", tt.policy != "unsigned")
				if tt.policy != "unsigned" && !strings.HasPrefix(tt.policy, "dane") {
					w.zone.Sign(".", false)
				}
				record := "TLSA 3 1 1 " + strings.Repeat("ab", 32)
				if cfg != nil && tt.policy != "dane other" {
					record = tlsa(t, cfg)
				}
				if strings.HasPrefix(tt.policy, "dane") || tt.policy == "unsigned" {
					w.zone.Set("_25._tcp.mx1.example", record)
				}
				log := new(sessionLog)
				w.cfg.Policies, w.cfg.Report = tlspolicy.New(pcfg), log.add
				w.open()
				if tt.server == breaks {
					say["STARTTLS"] = "220 go on\nthis is no TLS at all"
				}
				got := w.send(tt.message, "u@d.example")
				w.expect(got, tt.want)
				took := ""
				switch {
				case len(first.got()) == 1 && got[0].Peer.TLSVersion == "":
					took = "clear"
				case len(second.got()) == 1:
					took = "second"
				case got[0].Peer != nil && got[0].Peer.TLSVersion != "":
					took = "tls"
					if p := got[0].Peer; p.TLSVersion != "TLS 1.3" || p.Cipher == "" || len(p.CertSHA256) != 64 {
						t.Errorf("peer %+v", p)
					}
				}
				if took != tt.took {
					t.Errorf("went %q, want %q: %s", took, tt.took, got[0].Reply)
				}
				if r := log.results(); !slices.Equal(r, tt.report) {
					t.Errorf("reported %q, want %q", r, tt.report)
				}
			})
		})
	}
}

// TestNeverInTheClear: whatever a server of a protected domain does, no message text goes over the wire
// unencrypted.
func TestNeverInTheClear(t *testing.T) {
	for _, say := range []answers{
		{"STARTTLS": "454 no"}, {"STARTTLS": "CLOSE"}, {"STARTTLS": "RESET"}, {"STARTTLS": "500 what"},
		{"EHLO": "250 remote"}, {"EHLO": "502 no", "HELO": "250 ok"}, {"STARTTLS": "220 ok\n250 injected"},
	} {
		bubble(t, nil, func(w *world) {
			ca := w.authority()
			r := w.remote("mx1.example", "192.0.2.1", say, func(r *remote) { r.tls = ca.server(t, "mx1.example") })
			w.mx("d.example", "10 mx1.example")
			w.cfg.Policies = tlspolicy.New(tlspolicy.Config{Resolver: w.zone, Roots: ca.pool(),
				STS: w.storeOf("d.example", tlspolicy.ModeEnforce, "mx1.example")})
			w.open()
			got := w.deliver("u@d.example")
			if got[0].Outcome.String() != "deferred" || !got[0].Unreachable || r.count("MAIL") > 0 {
				t.Errorf("%v: %+v", say, got[0])
			}
		})
	}
}

// TestRequireTLSExtension: a message that requires TLS does not go to a server that will not require it
// further on, and comes back if no other does (RFC 8689, section 4.2.1).
func TestRequireTLSExtension(t *testing.T) {
	bubble(t, nil, func(w *world) {
		ca := w.authority()
		crypt := func(host string) func(*remote) { return func(r *remote) { r.tls = ca.server(t, host) } }
		w.remote("mx1.example", "192.0.2.1", nil, crypt("mx1.example"))
		second := w.remote("mx2.example", "192.0.2.2", nil, crypt("mx2.example"))
		w.mx("d.example", "10 mx1.example", "20 mx2.example")
		w.cfg.Policies = tlspolicy.New(tlspolicy.Config{Resolver: w.zone, Roots: ca.pool(),
			STS: w.storeOf("d.example", tlspolicy.ModeEnforce, "*.example")})
		w.open()
		w.expect(w.deliver("u@d.example"), "delivered 2.0.0")
		// The connection that is kept does not do.
		w.expect(w.send(message{requireTLS: true}, "u@d.example"), "failed 5.7.30 protection demanded")
		second.caps = []string{"REQUIRETLS"}
		w.expect(w.send(message{requireTLS: true}, "u@d.example"), "delivered 2.0.0")
		if len(second.got()) != 1 {
			t.Error("not to the host that offers it")
		}
	})
}

// TestSharedConnectionIsJudgedAnew: two domains share a host, and one of them demands more of it than the
// connection made for the other shows.
func TestSharedConnectionIsJudgedAnew(t *testing.T) {
	bubble(t, nil, func(w *world) {
		ca := w.authority()
		r := w.remote("mx1.example", "192.0.2.1", nil, func(r *remote) { r.tls = newAuthority(t).server(t, "mx1.example") })
		w.mx("lax.example", "10 mx1.example")
		w.mx("d.example", "10 mx1.example")
		log := new(sessionLog)
		w.cfg.Report = log.add
		w.cfg.Policies = tlspolicy.New(tlspolicy.Config{Resolver: w.zone, Roots: ca.pool(),
			STS: w.storeOf("d.example", tlspolicy.ModeEnforce, "mx1.example")})
		w.open()
		w.expect(w.deliver("u@lax.example"), "delivered 2.0.0")
		w.expect(w.deliver("u@d.example"), "deferred 4.7.5 protection demanded")
		w.expect(w.deliver("u@lax.example"), "delivered 2.0.0")
		if n, _ := r.connections(); n != 2 {
			t.Errorf("%d connections", n)
		}
		r.tls = ca.server(t, "mx1.example")
		time.Sleep(time.Minute)
		log.results()
		w.expect(w.deliver("u@d.example"), "delivered 2.0.0")
		w.expect(w.deliver("u@lax.example"), "delivered 2.0.0")
		w.expect(w.deliver("u@d.example"), "delivered 2.0.0")
		if n, _ := r.connections(); n != 3 {
			t.Errorf("%d connections", n)
		}
		// One connection, counted once for each domain that used it.
		if got := log.results(); !slices.Equal(got, []string{"", ""}) {
			t.Errorf("reported %q", got)
		}
	})
}

// TestBarredHostIsNotReused: a connection that is up for one domain is none for another whose policy does not
// have the host.
func TestBarredHostIsNotReused(t *testing.T) {
	bubble(t, nil, func(w *world) {
		ca := w.authority()
		r := w.remote("mx1.example", "192.0.2.1", nil, func(r *remote) { r.tls = ca.server(t, "mx1.example") })
		w.mx("lax.example", "10 mx1.example")
		w.mx("d.example", "10 mx1.example")
		w.cfg.Policies = tlspolicy.New(tlspolicy.Config{Resolver: w.zone, Roots: ca.pool(),
			STS: w.storeOf("d.example", tlspolicy.ModeEnforce, "mx9.example")})
		w.open()
		w.expect(w.deliver("u@lax.example"), "delivered 2.0.0")
		w.expect(w.deliver("u@d.example"), "deferred 4.7.5 protection demanded")
		if n := len(r.got()); n != 1 {
			t.Errorf("%d messages arrived", n)
		}
	})
}

// TestBrokenTLSIsRemembered for a while, so that not each message makes two connections.
func TestBrokenTLSIsRemembered(t *testing.T) {
	bubble(t, func(c *Config) { c.MaxIdle = -1 }, func(w *world) {
		r, _ := w.pair(answers{"STARTTLS": "CLOSE"}, func(r *remote) { r.tls = w.authority().server(t, "mx1.example") })
		for _, want := range []int{2, 3, 4} {
			w.expect(w.deliver("u@d.example"), "delivered 2.0.0")
			if n, _ := r.connections(); n != want {
				t.Errorf("%d connections, want %d", n, want)
			}
		}
		time.Sleep(clearTime)
		w.expect(w.deliver("u@d.example"), "delivered 2.0.0")
		if n, _ := r.connections(); n != 6 {
			t.Errorf("%d connections, want 6: TLS is not tried again", n)
		}
	})
}

// TestProviderNeedsTLS: at a provider known to offer TLS nothing is sent without.
func TestProviderNeedsTLS(t *testing.T) {
	bubble(t, nil, func(w *world) {
		r := w.remote("aspmx.l.google.com", "192.0.2.1", nil)
		w.mx("d.example", "10 aspmx.l.google.com")
		got := w.deliver("u@d.example")
		w.expect(got, "deferred 4.7.4 protection demanded")
		if r.count("MAIL") > 0 || !strings.Contains(got[0].Reply, "google is known to offer TLS") {
			t.Errorf("result %+v", got[0])
		}
		// Unless the sender does not mind.
		w.expect(w.send(message{text: "TLS-Required: No\r\n\r\nhello\r\n"}, "u@d.example"), "delivered 2.0.0")
	})
}

// TestSTSOverHTTPS fetches a policy as it is done in the world, and acts on it.
func TestSTSOverHTTPS(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		rw.Header().Set("Content-Type", "text/plain")
		rw.Write([]byte("version: STSv1\r\nmode: enforce\r\nmx: mx1.example\r\nmax_age: 86400\r\n"))
	}))
	defer srv.Close()
	w := newWorld(t)
	client := srv.Client()
	client.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", srv.Listener.Addr().String())
	}
	client.Transport.(*http.Transport).TLSClientConfig.ServerName = "example.com" // as the certificate has it
	sts := tlspolicy.NewSTS(tlspolicy.STSConfig{Resolver: w.zone, Client: client})
	w.cfg.Policies = tlspolicy.New(tlspolicy.Config{Resolver: w.zone, STS: sts, Roots: w.authority().pool()})
	w.zone.Set("_mta-sts.d.example", "TXT v=STSv1; id=1;")
	w.open()
	w.pair(nil)
	w.expect(w.deliver("u@d.example"), "deferred 4.7.5 protection demanded")
}
