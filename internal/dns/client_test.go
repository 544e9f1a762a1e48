package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

// start runs a Server for z until the test ends.
func start(t testing.TB, z *Zone) *Server {
	t.Helper()
	s, err := Listen("127.0.0.1:0", z)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

func serveZone(t testing.TB, z *Zone, cfg Config) *Client {
	t.Helper()
	if cfg.Servers == nil {
		cfg.Servers = []string{start(t, z).Addr().String()}
	}
	return newTestClient(t, cfg)
}

func newTestClient(t testing.TB, cfg Config) *Client {
	t.Helper()
	c, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// answering runs a server over UDP that answers as reply says, with as many packets.
func answering(t *testing.T, reply func(req *miekg.Msg) [][]byte) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			req := new(miekg.Msg)
			if req.Unpack(buf[:n]) == nil {
				for _, p := range reply(req) {
					conn.WriteTo(p, from)
				}
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return conn.LocalAddr().String()
}

func pack(t *testing.T, m *miekg.Msg) []byte {
	b, err := m.Pack()
	if err != nil {
		t.Error(err)
	}
	return b
}

func mustRR(t *testing.T, s string) miekg.RR {
	t.Helper()
	rr, err := miekg.NewRR(s)
	if err != nil {
		t.Fatal(err)
	}
	return rr
}

func TestClientCaches(t *testing.T) {
	z, now := testZone(t), time.Now()
	c := serveZone(t, z, Config{Now: func() time.Time { return now }, MaxNegativeTTL: 20 * time.Second})
	ask := func(name string, want int) {
		t.Helper()
		c.TXT(t.Context(), name)
		if n := z.Asked(name, "TXT"); n != want {
			t.Errorf("%s: the server was asked %d times, want %d", name, n, want)
		}
	}
	ask("example.org", 1)
	ask("example.org", 1)
	ask("none.example.org", 1)
	ask("none.example.org", 1)
	ask("none.example.net", 1)
	ask("none.example.net", 2) // no SOA: not to be kept (RFC 2308, section 5)
	now = now.Add(20 * time.Second)
	ask("none.example.org", 2) // the cap, before the SOA's 30 s
	ask("example.org", 1)
	now = now.Add(40 * time.Second)
	ask("example.org", 2)
}

func TestClientFailuresAreNotKept(t *testing.T) {
	z := testZone(t)
	c := serveZone(t, z, Config{Attempts: 1})
	z.Fail("example.org", ServFail)
	if _, _, err := c.MX(t.Context(), "example.org"); !errors.Is(err, ErrTemporary) {
		t.Fatal(err)
	}
	z.Fail("example.org", Works)
	if _, _, err := c.MX(t.Context(), "example.org"); err != nil {
		t.Error(err)
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache(10_000, time.Now)
	rr := mustRR(t, "example.org. 60 TXT x")
	for i := range 1000 {
		c.put(question{fmt.Sprintf("n%d.", i), miekg.TypeTXT}, &answer{records: []miekg.RR{rr}}, time.Minute)
	}
	if c.size > 10_000 || len(c.entries) != c.recent.Len() || len(c.entries) == 0 {
		t.Errorf("size %d, %d entries, %d in the list", c.size, len(c.entries), c.recent.Len())
	}
	if c.get(question{"n999.", miekg.TypeTXT}) == nil || c.get(question{"n0.", miekg.TypeTXT}) != nil {
		t.Error("not the oldest was dropped")
	}
}

// TestClientTruncated: an answer that does not fit UDP comes over TCP.
func TestClientTruncated(t *testing.T) {
	z := new(Zone)
	for i := range 40 {
		if err := z.Add("", fmt.Sprintf("big.example. TXT %d%s\n", i, strings.Repeat("x", 200))); err != nil {
			t.Fatal(err)
		}
	}
	txts, _, err := serveZone(t, z, Config{}).TXT(t.Context(), "big.example")
	if err != nil || len(txts) != 40 {
		t.Errorf("%d records, %v; want 40", len(txts), err)
	}
	if n := z.Asked("big.example", "TXT"); n != 2 {
		t.Errorf("asked %d times, want twice", n)
	}
}

func TestClientCapsRecords(t *testing.T) {
	z := new(Zone)
	for i := range 150 {
		if err := z.Add("", fmt.Sprintf("many.example. MX %d mx%d.example.\n", 1000-i, i)); err != nil {
			t.Fatal(err)
		}
	}
	mxs, _, err := serveZone(t, z, Config{}).MX(t.Context(), "many.example")
	if err != nil || len(mxs) != maxRecords || mxs[0].Preference != 851 {
		t.Errorf("%d exchangers, first %v, %v; want the %d best", len(mxs), mxs[:1], err, maxRecords)
	}
}

// TestClientBelievesAD: only from a loopback address or where the configuration says so.
func TestClientBelievesAD(t *testing.T) {
	for _, row := range []struct {
		addr  string
		trust bool
		want  bool
	}{
		{"127.0.0.1:53", false, true},
		{"[::1]:53", false, true},
		{"::ffff:127.0.0.1", false, true},
		{"192.0.2.1", false, false},
		{"192.0.2.1", true, true},
	} {
		s, err := parseServer(row.addr, row.trust)
		if err != nil || s.trusted != row.want {
			t.Errorf("%s: trusted %v, %v; want %v", row.addr, s.trusted, err, row.want)
		}
	}
	z := testZone(t)
	z.Sign(".", true)
	c := serveZone(t, z, Config{})
	c.servers[0].trusted = false
	if _, auth, err := c.MX(t.Context(), "example.org"); auth || err != nil {
		t.Errorf("AD of a server that is not trusted: %v, %v", auth, err)
	}
}

// TestClientIgnoresForgeries: packets with a wrong id or question, or garbage, come before the
// answer.
func TestClientIgnoresForgeries(t *testing.T) {
	addr := answering(t, func(req *miekg.Msg) [][]byte {
		forged := func(change func(m *miekg.Msg)) []byte {
			m := new(miekg.Msg)
			m.SetReply(req)
			m.Answer = []miekg.RR{mustRR(t, req.Question[0].Name+" 60 TXT forged")}
			change(m)
			return pack(t, m)
		}
		return [][]byte{
			{1, 2, 3},
			forged(func(m *miekg.Msg) { m.Id++ }),
			forged(func(m *miekg.Msg) { m.Response = false }),
			forged(func(m *miekg.Msg) { m.Question = nil }),
			forged(func(m *miekg.Msg) { m.Question[0].Name = "other.example." }),
			forged(func(m *miekg.Msg) { m.Question[0].Qtype = miekg.TypeMX }),
			forged(func(m *miekg.Msg) { m.Answer[0].(*miekg.TXT).Txt[0] = "true" }),
		}
	})
	c := newTestClient(t, Config{Servers: []string{addr}})
	txts, _, err := c.TXT(t.Context(), "example.org")
	if err != nil || len(txts) != 1 || txts[0] != "true" {
		t.Errorf("TXT = %q, %v; want the answer with our id and question", txts, err)
	}
}

// TestClientIgnoresStrayRecords: what the answer holds beside the chain from our question is not
// ours.
func TestClientIgnoresStrayRecords(t *testing.T) {
	addr := answering(t, func(req *miekg.Msg) [][]byte {
		m := new(miekg.Msg)
		m.SetReply(req)
		m.Answer = []miekg.RR{
			mustRR(t, "bank.example. 60 MX 0 evil.example."),
			mustRR(t, "example.org. 60 MX 5 mx.example.org."),
		}
		return [][]byte{pack(t, m)}
	})
	c := newTestClient(t, Config{Servers: []string{addr}})
	mxs, _, err := c.MX(t.Context(), "example.org")
	if err != nil || len(mxs) != 1 || mxs[0].Host != "mx.example.org" {
		t.Errorf("MX = %v, %v", mxs, err)
	}
}

// TestClientWithoutEDNS: a server that answers FORMERR to EDNS0 is asked without (RFC 6891,
// section 7).
func TestClientWithoutEDNS(t *testing.T) {
	addr := answering(t, func(req *miekg.Msg) [][]byte {
		m := new(miekg.Msg)
		if req.IsEdns0() != nil {
			m.SetRcode(req, miekg.RcodeFormatError)
			m.Question = nil
		} else {
			m.SetReply(req)
			m.Answer = []miekg.RR{mustRR(t, "example.org. 60 MX 5 mx.example.org.")}
		}
		return [][]byte{pack(t, m)}
	})
	c := newTestClient(t, Config{Servers: []string{addr}, Attempts: 1})
	if mxs, _, err := c.MX(t.Context(), "example.org"); err != nil || len(mxs) != 1 {
		t.Errorf("MX = %v, %v", mxs, err)
	}
}

// TestClientFollowsAlias: a server that answers with an alias alone is asked for where it leads.
func TestClientFollowsAlias(t *testing.T) {
	var asked atomic.Int32
	addr := answering(t, func(req *miekg.Msg) [][]byte {
		asked.Add(1)
		m := new(miekg.Msg)
		m.SetReply(req)
		switch name := req.Question[0].Name; name {
		case "a.example.":
			m.Answer = []miekg.RR{mustRR(t, "a.example. 60 CNAME b.example.")}
		case "b.example.":
			m.Answer = []miekg.RR{mustRR(t, "b.example. 60 TXT found")}
		default: // without end
			m.Answer = []miekg.RR{mustRR(t, name+" 60 CNAME x"+name)}
		}
		return [][]byte{pack(t, m)}
	})
	c := newTestClient(t, Config{Servers: []string{addr}, Attempts: 1})
	if txts, _, err := c.TXT(t.Context(), "a.example"); err != nil || txts[0] != "found" {
		t.Errorf("TXT = %q, %v", txts, err)
	}
	asked.Store(0)
	if _, _, err := c.TXT(t.Context(), "x.test"); !errors.Is(err, ErrTemporary) {
		t.Errorf("endless chain: %v", err)
	}
	if n := asked.Load(); n > maxAliases+1 {
		t.Errorf("endless chain took %d questions", n)
	}
}

// TestClientNextServer: a silent server costs its time-out once, not for each question.
func TestClientNextServer(t *testing.T) {
	var silent atomic.Int32
	dead := answering(t, func(*miekg.Msg) [][]byte { silent.Add(1); return nil })
	live := start(t, testZone(t)).Addr().String()
	c := newTestClient(t, Config{Servers: []string{dead, live}, Timeout: time.Second})
	for _, name := range []string{"example.org", "null.example.org"} {
		if _, _, err := c.MX(t.Context(), name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := silent.Load(); n != 1 {
		t.Errorf("the silent server was asked %d times", n)
	}
}

// TestClientSharesQuestions: many who ask the same at once cause one exchange, and one who gives
// up does not end it for the others.
func TestClientSharesQuestions(t *testing.T) {
	var asked atomic.Int32
	release := make(chan struct{})
	addr := answering(t, func(req *miekg.Msg) [][]byte {
		asked.Add(1)
		<-release
		m := new(miekg.Msg)
		m.SetReply(req)
		m.Answer = []miekg.RR{mustRR(t, "example.org. 60 MX 5 mx.example.org.")}
		return [][]byte{pack(t, m)}
	})
	c := newTestClient(t, Config{Servers: []string{addr}, Timeout: 10 * time.Second})
	first, giveUp := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, _, err := c.MX(first, "example.org"); !errors.Is(err, context.Canceled) {
			t.Errorf("who gave up: %v", err)
		}
	})
	for asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	for range 20 {
		wg.Go(func() {
			if _, _, err := c.MX(t.Context(), "example.org"); err != nil {
				t.Error(err)
			}
		})
	}
	for waiting := 0; waiting < 21; time.Sleep(time.Millisecond) {
		c.flights.mu.Lock()
		waiting = c.flights.under[question{"example.org.", miekg.TypeMX}].waiters
		c.flights.mu.Unlock()
	}
	giveUp()
	time.Sleep(5 * time.Millisecond)
	close(release)
	wg.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
}

func TestClientCancelAndClose(t *testing.T) {
	silent := answering(t, func(*miekg.Msg) [][]byte { return nil })
	c := newTestClient(t, Config{Servers: []string{silent}, Timeout: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, _, err := c.MX(ctx, "example.org"); !errors.Is(err, context.DeadlineExceeded) ||
		!errors.Is(err, ErrTemporary) {
		t.Errorf("after the deadline: %v", err)
	}
	failed := make(chan error)
	go func() { _, _, err := c.MX(context.Background(), "example.org"); failed <- err }()
	time.Sleep(5 * time.Millisecond)
	c.Close()
	if err := <-failed; !errors.Is(err, ErrTemporary) {
		t.Errorf("closed while asking: %v", err)
	}
	if _, _, err := c.MX(context.Background(), "example.org"); !errors.Is(err, ErrTemporary) {
		t.Errorf("closed before asking: %v", err)
	}
}

func TestConfigRefuses(t *testing.T) {
	for _, bad := range []string{"dns.example.org", "dns.example.org:53", ""} {
		if _, err := NewClient(Config{Servers: []string{bad}}); err == nil {
			t.Errorf("took %q for a server", bad)
		}
	}
	if _, err := Listen("0.0.0.0:0", new(Zone)); err == nil {
		t.Error("Server listens on every address")
	}
}

func TestServerTimeoutKeepsSilent(t *testing.T) {
	z := testZone(t)
	z.Fail("example.org", Timeout)
	c := serveZone(t, z, Config{Timeout: 300 * time.Millisecond, Attempts: 2})
	if _, _, err := c.MX(t.Context(), "example.org"); !errors.Is(err, ErrTemporary) {
		t.Errorf("silent server: %v", err)
	}
	if n := z.Asked("example.org", "MX"); n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
}

func FuzzReply(f *testing.F) {
	m := new(miekg.Msg)
	m.SetQuestion("example.org.", miekg.TypeMX)
	r := new(miekg.Msg)
	r.SetReply(m)
	r.Answer = []miekg.RR{&miekg.CNAME{Hdr: miekg.RR_Header{Name: "example.org.", Rrtype: miekg.TypeCNAME,
		Class: miekg.ClassINET}, Target: "example.org."}}
	b, err := r.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 2 { // the id is not what is sought here
			b[0], b[1] = byte(m.Id>>8), byte(m.Id)
		}
		if reply := parseReply(b, m); reply != nil {
			walk(reply.Answer, "example.org.", miekg.TypeMX)
		}
	})
}

func BenchmarkClientCached(b *testing.B) {
	c := serveZone(b, testZone(b), Config{})
	for b.Loop() {
		if _, _, err := c.MX(b.Context(), "example.org"); err != nil {
			b.Fatal(err)
		}
	}
}
