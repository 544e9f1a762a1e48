package tlspolicy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
)

const policyText = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\n" +
	"mx: backupmx.example.com\r\nmax_age: 604800\r\n" // the example of RFC 8461, section 3.2

func TestParseSTSPolicy(t *testing.T) {
	rows := []struct {
		name, text string
		want       string // mode, servers, age; "" for an error
	}{
		{"example", policyText, "enforce [mail.example.com *.example.net backupmx.example.com] 168h0m0s"},
		{"LF and no last line end", "version: STSv1\nmode: testing\nmx: A.example\nmax_age: 5",
			"testing [a.example] 5s"},
		{"spaces", "version:STSv1  \nmode:\tnone\nmax_age:   1 \n\n", "none [] 1s"},
		{"order, unknown fields", "x-1.y_z: a:b\nmax_age: 1\nmx: a.example\nmode: enforce\nversion: STSv1",
			"enforce [a.example] 1s"},
		{"first of a field counts", "version: STSv1\nmode: enforce\nmode: none\nmx: a.example\nmax_age: 9\n" +
			"max_age: 1", "enforce [a.example] 9s"},
		{"longest age", "version: STSv1\nmode: none\nmax_age: 4000000000", "none [] 8766h0m0s"},

		{"empty", "", ""},
		{"HTML", "<html>not found</html>", ""},
		{"no version", strings.Replace(policyText, "version: STSv1\r\n", "", 1), ""},
		{"other version", strings.Replace(policyText, "STSv1", "STSv2", 1), ""},
		{"no mode", strings.Replace(policyText, "mode: enforce\r\n", "", 1), ""},
		{"other mode", strings.Replace(policyText, "enforce", "report", 1), ""},
		{"mode in capitals", strings.Replace(policyText, "enforce", "Enforce", 1), ""},
		{"no age", strings.Replace(policyText, "max_age: 604800\r\n", "", 1), ""},
		{"negative age", strings.Replace(policyText, "604800", "-1", 1), ""},
		{"age of eleven digits", strings.Replace(policyText, "604800", "00000000001", 1), ""},
		{"no server", "version: STSv1\nmode: enforce\nmax_age: 1", ""},
		{"star alone", strings.Replace(policyText, "*.example.net", "*", 1), ""},
		{"star inside", strings.Replace(policyText, "*.example.net", "a.*.example.net", 1), ""},
		{"part of a label", strings.Replace(policyText, "*.example.net", "*mx.example.net", 1), ""},
		{"address", strings.Replace(policyText, "mail.example.com", "[192.0.2.1]", 1), ""},
		{"U-label", strings.Replace(policyText, "mail.example.com", "bücher.example", 1), ""},
		{"no field", policyText + "what\r\n", ""},
		{"many servers", policyText + strings.Repeat("mx: a.example\n", maxMX), ""},
		{"too long", policyText + strings.Repeat(" ", maxPolicy), ""},
	}
	for _, row := range rows {
		p, err := ParseSTSPolicy(row.text)
		if row.want == "" {
			if err == nil {
				t.Errorf("%s: accepted as %+v", row.name, p)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		if got := fmt.Sprintf("%s %v %v", p.Mode, p.MX, p.MaxAge); got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
		again, err := ParseSTSPolicy(p.Text())
		if err != nil || fmt.Sprint(again.Mode, again.MX, again.MaxAge) != fmt.Sprint(p.Mode, p.MX, p.MaxAge) {
			t.Errorf("%s: written and read: %+v, %v", row.name, again, err)
		}
		if _, err := ParseSTSRecord(p.Record()); err != nil {
			t.Errorf("%s: record %q: %v", row.name, p.Record(), err)
		}
	}
}

// TestMatches is RFC 8461, section 4.1.
func TestMatches(t *testing.T) {
	p, err := ParseSTSPolicy(policyText)
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{
		"mail.example.com": true, "MAIL.example.COM.": true, "mx.example.net": true,
		"example.net": false, "a.mx.example.net": false, "other.example.com": false,
		"xmail.example.com": false, "": false, "*.example.net": true,
	} {
		if p.Matches(host) != want {
			t.Errorf("%q: want %v", host, want)
		}
	}
}

func TestParseSTSRecord(t *testing.T) {
	for text, want := range map[string]string{
		"v=STSv1; id=20160831085700Z;":           "20160831085700Z", // RFC 8461, section 3.1
		"v=STSv1;id=a":                           "a",
		"v=STSv1 ; x=y ; id=a; z=1":              "a",
		"v=STSv1; id=" + strings.Repeat("a", 32): strings.Repeat("a", 32),

		"":                                       "",
		"v=STSv1":                                "",
		"v=STSv1;":                               "",
		"v=STSv2; id=a":                          "",
		"id=a; v=STSv1":                          "",
		"v=STSv1; id=":                           "",
		"v=STSv1; id=a-b":                        "",
		"v=STSv1; id=a; id=b":                    "",
		"v=STSv1;; id=a":                         "",
		"v=STSv1; id":                            "",
		"v=STSv1; id=" + strings.Repeat("a", 33): "",
		"v=STSv1; id=a; x=" + strings.Repeat("b", maxRecord): "",
	} {
		id, err := ParseSTSRecord(text)
		if id != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrNoSTS) {
			t.Errorf("%.60q: %q, %v; want %q", text, id, err, want)
		}
	}
}

// site is a web server for mta-sts.example.com, and a zone with the record.
type site struct {
	*STS
	zone    *dns.Zone
	fetched atomic.Int32
	now     time.Time

	mu      sync.Mutex
	handler http.HandlerFunc
}

func (s *site) serve(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handler = h
}

func (s *site) publish(text string) {
	s.serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write([]byte(text))
	})
}

// newSite starts a site with a certificate for a name.
func newSite(t *testing.T, certName string) *site {
	t.Helper()
	s := &site{now: now}
	s.publish(policyText)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fetched.Add(1)
		s.mu.Lock()
		h := s.handler
		s.mu.Unlock()
		if r.Host != "mta-sts.example.com" || r.URL.Path != "/.well-known/mta-sts.txt" {
			http.NotFound(w, r)
			return
		}
		h(w, r)
	}))
	ca := newAuthority(t, nil, nil)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(nil, certName)}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, Time: func() time.Time { return now }},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	s.zone = dns.MustZone(map[string][]string{"_mta-sts.example.com": {"TXT v=STSv1; id=1"}})
	s.STS = NewSTS(STSConfig{Resolver: s.zone, Client: &http.Client{Transport: transport},
		Now: func() time.Time { return s.now }})
	return s
}

func (s *site) expect(t *testing.T, what string, mode Mode, failure ResultType, fetches int32) {
	t.Helper()
	p, f := s.Policy(t.Context(), "example.com")
	got := Mode("")
	if p != nil {
		got = p.Mode
	}
	kind := ResultType("")
	if f != nil {
		kind = f.Type
	}
	if got != mode || kind != failure || s.fetched.Load() != fetches {
		t.Errorf("%s: mode %q, failure %q (%v), %d fetches; want %q, %q, %d", what, got, kind, f,
			s.fetched.Load(), mode, failure, fetches)
	}
}

func TestFetch(t *testing.T) {
	rows := []struct {
		name string
		do   http.HandlerFunc
		want ResultType
	}{
		{"not found", http.NotFound, STSFetchError},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://mta-sts.example.com/.well-known/mta-sts.txt?x", http.StatusFound)
		}, STSFetchError},
		{"type", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.Write([]byte(policyText))
		}, STSFetchError},
		{"no policy", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Write([]byte("hello"))
		}, STSPolicyInvalid},
		{"too large", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Write([]byte(policyText))
			for range 100 {
				w.Write(make([]byte, 10_000))
			}
		}, STSPolicyInvalid},
		{"other success", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(http.StatusNonAuthoritativeInfo)
			w.Write([]byte(policyText))
		}, STSFetchError},
		{"cut short", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Content-Length", "1000")
			w.Write([]byte(policyText))
		}, STSFetchError},
	}
	for _, row := range rows {
		s := newSite(t, "mta-sts.example.com")
		s.serve(row.do)
		s.expect(t, row.name, "", row.want, 1)
	}
	newSite(t, "mta-sts.example.com").expect(t, "good", ModeEnforce, "", 1)
	newSite(t, "example.com").expect(t, "certificate for another name", "", STSWebPKIInvalid, 0)
}

// TestCache is RFC 8461, sections 3.1, 3.3 and 5.1: what is kept counts until it expires.
func TestCache(t *testing.T) {
	s := newSite(t, "mta-sts.example.com")
	s.expect(t, "first", ModeEnforce, "", 1)
	s.expect(t, "again", ModeEnforce, "", 1)

	s.publish(strings.Replace(policyText, "enforce", "testing", 1))
	s.expect(t, "changed, same id", ModeEnforce, "", 1)
	s.zone.Set("_mta-sts.example.com", "TXT v=STSv1; id=2")
	s.expect(t, "changed, new id", ModeTesting, "", 2)

	s.serve(http.NotFound)
	s.zone.Set("_mta-sts.example.com", "TXT v=STSv1; id=3")
	s.expect(t, "cannot be fetched", ModeTesting, STSFetchError, 3)
	s.expect(t, "not tried again at once", ModeTesting, STSFetchError, 3)
	s.now = s.now.Add(fetchAgain)
	s.expect(t, "tried again later", ModeTesting, STSFetchError, 4)

	s.zone.Set("_mta-sts.example.com")
	s.expect(t, "record gone", ModeTesting, "", 4)
	s.zone.Fail("_mta-sts.example.com", dns.ServFail)
	s.expect(t, "record cannot be had", ModeTesting, "", 4)
	s.zone.Fail("_mta-sts.example.com", dns.Works)
	s.zone.Set("_mta-sts.example.com", "TXT v=STSv1; id=2", "TXT v=STSv1; id=3")
	s.expect(t, "two records", ModeTesting, "", 4)

	s.now = s.now.Add(7 * 24 * time.Hour)
	s.expect(t, "expired", "", "", 4)
	s.zone.Set("_mta-sts.example.com", "TXT v=STSv1; id=2")
	s.expect(t, "expired, and cannot be fetched", "", STSFetchError, 5)
	s.publish(policyText)
	s.zone.Set("_mta-sts.example.com", "TXT v=STSv1; id=4")
	s.expect(t, "new", ModeEnforce, "", 6)
	s.now = s.now.Add(refresh)
	s.expect(t, "after a day", ModeEnforce, "", 7)
}

func TestNoRecordNoFetch(t *testing.T) {
	s := newSite(t, "mta-sts.example.com")
	s.zone.Set("_mta-sts.example.com", "TXT other text")
	s.expect(t, "no record", "", "", 0)
	if p, f := s.Policy(t.Context(), "[192.0.2.1]"); p != nil || f != nil {
		t.Errorf("address literal: %v, %v", p, f)
	}
}

// TestOneFetch: many messages to a new domain fetch its policy once, and one that gives up does
// not take the others along.
func TestOneFetch(t *testing.T) {
	s := newSite(t, "mta-sts.example.com")
	release := make(chan struct{})
	s.serve(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
			return
		}
		w.Header().Set("Content-Type", "text/plain")
		w.Write([]byte(policyText))
	})
	ctx, cancel := context.WithCancel(t.Context())
	gaveUp := make(chan *Failure, 1)
	go func() {
		_, f := s.Policy(ctx, "example.com")
		gaveUp <- f
	}()
	for s.fetched.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if p, f := s.Policy(t.Context(), "example.com"); p == nil || f != nil {
				t.Errorf("%v, %v", p, f)
			}
		})
	}
	time.Sleep(10 * time.Millisecond)
	cancel()
	if f := <-gaveUp; f == nil || !errors.Is(f, context.Canceled) {
		t.Errorf("who gave up: %v", f)
	}
	close(release)
	wg.Wait()
	if n := s.fetched.Load(); n != 2 {
		t.Errorf("%d fetches, want the one given up and one more", n)
	}
}

type brokenStore struct{ load, save error }

func (b brokenStore) LoadSTS(string) (*CachedPolicy, error) { return nil, b.load }
func (b brokenStore) SaveSTS(string, *CachedPolicy) error   { return b.save }

func TestBrokenStore(t *testing.T) {
	s := newSite(t, "mta-sts.example.com")
	s.cfg.Store = brokenStore{save: errors.New("disk full")}
	s.expect(t, "cannot be saved", ModeEnforce, STSFetchError, 1)
	s.expect(t, "cannot be saved, again", ModeEnforce, STSFetchError, 2)
	s.cfg.Store = brokenStore{load: errors.New("disk gone")}
	s.expect(t, "cannot be loaded", "", STSFetchError, 2)
}

func TestMemoryStore(t *testing.T) {
	m := NewMemoryStore(2)
	for _, d := range []string{"a", "b", "a", "c"} {
		if p, _ := m.LoadSTS(d); p == nil {
			m.SaveSTS(d, &CachedPolicy{ID: d})
		}
	}
	m.SaveSTS("a", &CachedPolicy{ID: "a2"})
	a, _ := m.LoadSTS("a")
	b, _ := m.LoadSTS("b")
	c, _ := m.LoadSTS("c")
	if a == nil || a.ID != "a2" || b != nil || c == nil {
		t.Errorf("a %v, b %v, c %v; want b forgotten", a, b, c)
	}
}

func TestDecide(t *testing.T) {
	ca := newAuthority(t, nil, nil)
	leaf := ca.issue(nil, "mx.example.com").Leaf
	good := fmt.Sprintf("TLSA 3 1 1 %x", tlsa(3, 1, 1, leaf).Data)
	zone := dns.MustZone(map[string][]string{
		"mail.example.com":              {"A 192.0.2.1"},
		"mx.example.net":                {"A 192.0.2.2"},
		"_25._tcp.mx.example.net":       {good},
		"other.example.com":             {"A 192.0.2.3"},
		"_25._tcp.other.example.com":    {good},
		"unusable.example.net":          {"A 192.0.2.4"},
		"_25._tcp.unusable.example.net": {fmt.Sprintf("TLSA 1 1 1 %x", tlsa(3, 1, 1, leaf).Data)},
		"alias.example.net":             {"CNAME mx.example.net"},
		"half.example.net":              {"CNAME mx.insecure.example"},
		"mx.insecure.example":           {"A 192.0.2.5"},
		"_25._tcp.mx.insecure.example":  {good},
		"_25._tcp.half.example.net":     {good},
		"own.example.net":               {"CNAME mail.example.com"},
		"_25._tcp.own.example.net":      {good},
		"plain.example.net":             {"A 192.0.2.6"},
		"noaddr.example.net":            {"A 192.0.2.7"},
		"notlsa.example.net":            {"A 192.0.2.8"},
		"_2525._tcp.plain.example.net":  {good},
	})
	zone.Sign(".", true)
	zone.Sign("insecure.example", false)
	zone.Fail("noaddr.example.net", dns.ServFail)
	zone.Fail("_25._tcp.notlsa.example.net", dns.Timeout)
	rows := []struct {
		name   string
		policy string // of MTA-STS; "" for none
		q      Query
		want   Level
		fail   ResultType
	}{
		{"nothing", "", Query{Host: "plain.example.net", Secure: true}, Opportunistic, ""},
		{"DANE", "", Query{Host: "mx.example.net", Secure: true}, DANE, ""},
		{"DANE, MX not secure", "", Query{Host: "mx.example.net"}, Opportunistic, ""},
		{"DANE, address not secure", "", Query{Host: "mx.insecure.example", Secure: true}, Opportunistic, ""},
		{"DANE, alias", "", Query{Host: "alias.example.net", Secure: true}, DANE, ""},
		{"DANE, records at the alias", "", Query{Host: "own.example.net", Secure: true}, DANE, ""},
		{"DANE, alias leaves the signed zones", "", Query{Host: "half.example.net", Secure: true},
			Opportunistic, ""},
		{"DANE, other port", "", Query{Host: "plain.example.net", Secure: true, Port: 2525}, DANE, ""},
		{"DANE, unusable", "", Query{Host: "unusable.example.net", Secure: true}, Encrypted, ""},
		{"DANE, no such host", "", Query{Host: "none.example.net", Secure: true}, Opportunistic, ""},
		{"DANE, no answer about the host", "", Query{Host: "noaddr.example.net", Secure: true},
			Opportunistic, DNSSECInvalid},
		{"DANE, no answer about TLSA", "", Query{Host: "notlsa.example.net", Secure: true},
			Opportunistic, DNSSECInvalid},
		{"enforce", "enforce", Query{Host: "mail.example.com"}, WebPKI, ""},
		{"enforce, secure MX", "enforce", Query{Host: "mail.example.com", Secure: true}, WebPKI, ""},
		{"enforce, server not in the policy", "enforce", Query{Host: "other.example.com"}, Opportunistic,
			ValidationFailure},
		{"enforce, not in the policy, DANE", "enforce", Query{Host: "other.example.com", Secure: true},
			Opportunistic, ValidationFailure},
		{"enforce and DANE", "enforce", Query{Host: "mx.example.net", Secure: true}, DANE, ""},
		{"enforce and unusable DANE", "enforce", Query{Host: "unusable.example.net", Secure: true}, WebPKI, ""},
		{"testing", "testing", Query{Host: "mail.example.com"}, Opportunistic, ""},
		{"testing, server not in the policy", "testing", Query{Host: "other.example.com"}, Opportunistic, ""},
		{"none", "none", Query{Host: "other.example.com"}, Opportunistic, ""},

		{"waived", "enforce", Query{Host: "other.example.com", Secure: true, Waived: true}, Opportunistic, ""},
		{"required, nothing authentic", "", Query{Host: "plain.example.net", RequireTLS: true}, Opportunistic,
			ValidationFailure},
		{"required, DNSSEC", "", Query{Host: "plain.example.net", Secure: true, RequireTLS: true}, WebPKI, ""},
		{"required, DANE", "", Query{Host: "mx.example.net", Secure: true, RequireTLS: true}, DANE, ""},
		{"required, unusable DANE", "", Query{Host: "unusable.example.net", Secure: true, RequireTLS: true},
			WebPKI, ""},
		{"required, policy in testing mode", "testing", Query{Host: "mail.example.com", RequireTLS: true},
			WebPKI, ""},
		{"required and waived", "testing", Query{Host: "mail.example.com", RequireTLS: true, Waived: true},
			WebPKI, ""},
	}
	for _, row := range rows {
		row.q.Domain = "example.com"
		cfg := Config{Resolver: zone}
		if row.policy != "" {
			s := newSite(t, "mta-sts.example.com")
			s.publish(strings.Replace(policyText, "enforce", row.policy, 1))
			cfg.STS = s.STS
		}
		d := New(cfg).Decide(t.Context(), row.q)
		fail := ResultType("")
		if d.Failure != nil {
			fail = d.Failure.Type
		}
		if d.Level != row.want || fail != row.fail {
			t.Errorf("%s: %v, failure %q; want %v, %q (%s)", row.name, d.Level, fail, row.want, row.fail, d.Explain)
		}
		if d.Explain == "" || len(d.Applied) == 0 {
			t.Errorf("%s: explained %q, applied %v", row.name, d.Explain, d.Applied)
		}
		if d.NeedsExtension != row.q.RequireTLS || (d.WithoutExtension() != nil) != row.q.RequireTLS {
			t.Errorf("%s: needs the extension: %v", row.name, d.NeedsExtension)
		}
		if f := d.Plaintext(); f == nil || f.Enforced != (row.want > Opportunistic || row.fail != "") {
			t.Errorf("%s: without STARTTLS: %+v", row.name, f)
		}
	}
}

func TestWaived(t *testing.T) {
	for header, want := range map[string]bool{
		"TLS-Required: No\r\n":                     true,
		"tls-required:  no \r\n":                   true,
		"TLS-Required: yes\r\n":                    false,
		"TLS-Required: No, really\r\n":             false,
		"TLS-Required: No\r\nTLS-Required: No\r\n": true,
		"TLS-Required: No\r\nTLS-Required: x\r\n":  false,
		"Subject: TLS-Required: No\r\n":            false,
	} {
		h, err := mail.ParseHeader([]byte(header + "\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		if Waived(h) != want {
			t.Errorf("%q: want %v", header, want)
		}
	}
}

func FuzzSTSPolicy(f *testing.F) {
	f.Add(policyText)
	f.Add("version: STSv1\nmode: none\nmax_age: 1")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseSTSPolicy(s)
		if err != nil {
			return
		}
		if _, err := ParseSTSPolicy(p.Text()); err != nil {
			t.Errorf("cannot be read again: %v\n%s", err, p.Text())
		}
		for _, mx := range p.MX {
			if !p.Matches(mx) {
				t.Errorf("does not match its own %q", mx)
			}
		}
	})
}

func FuzzSTSRecord(f *testing.F) {
	f.Add("v=STSv1; id=20160831085700Z;")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseSTSRecord(s)
		if (err == nil) != (id != "") {
			t.Errorf("%q, %v", id, err)
		}
	})
}
