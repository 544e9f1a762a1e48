package relay

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/internal/memnet"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

// world is a relay in a network in memory, among servers that a test makes. It lives in a synctest bubble:
// waiting costs no time.
type world struct {
	t     *testing.T
	net   *memnet.Network
	zone  *dns.Zone
	cfg   Config
	relay *Relay
	ca    *authority

	mu    sync.Mutex
	dials []string                  // guarded by mu; addresses, in order
	block map[netip.Addr]error      // guarded by mu; dials to these fail
	logs  strings.Builder           // guarded by mu
	conns map[string][]*memnet.Conn // guarded by mu; of the relay, by address
}

var us = netip.MustParseAddr("192.0.2.250")

// bubble runs a test in a world; change may alter the configuration of the relay.
func bubble(t *testing.T, change func(*Config), f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if change != nil {
			change(&w.cfg)
		}
		w.open()
		f(w)
	})
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, net: memnet.New(memnet.Config{}), zone: dns.MustZone(nil), block: make(map[netip.Addr]error),
		conns: make(map[string][]*memnet.Conn)}
	w.cfg = Config{Hostname: "us.example", Dial: w.dial}
	return w
}

// open makes the relay; it ends with the test.
func (w *world) open() {
	w.t.Helper()
	r, err := New(w.cfg, w.zone, clock.Real{}, slog.New(slog.NewTextHandler(w, nil)))
	if err != nil {
		w.t.Fatal(err)
	}
	w.relay = r
	w.t.Cleanup(func() { r.Close() })
}

// Write takes the log.
func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.logs.Write(p)
}

func (w *world) logged() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.logs.String()
}

func (w *world) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	w.dials = append(w.dials, addr)
	at := netip.MustParseAddrPort(addr)
	err := w.block[at.Addr()]
	w.mu.Unlock()
	if err == errBlackHole {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	c, err := w.net.Host(us).Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[addr] = append(w.conns[addr], c.(*memnet.Conn))
	return c, nil
}

var errBlackHole = fmt.Errorf("nobody answers")

// dialled returns the addresses dialled since the last call.
func (w *world) dialled() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.dials
	w.dials = nil
	return d
}

// deliver makes one attempt for recipients of one domain and returns what came of each.
func (w *world) deliver(to ...string) []queue.Result { return w.send(message{}, to...) }

// message is one to be delivered, with what is not the usual.
type message struct {
	text       string
	from       string
	body       mail.BodyType
	requireTLS bool
	ctx        context.Context
	notify     mail.Notify
}

func (w *world) send(m message, to ...string) []queue.Result {
	w.t.Helper()
	if m.text == "" {
		m.text = "From: a@us.example\r\n\r\nhello\r\n"
	}
	if m.from == "" {
		m.from = "a@us.example"
	}
	if m.ctx == nil {
		m.ctx = context.Background()
	}
	env := mail.Envelope{From: parse(m.from), Body: m.body, RequireTLS: m.requireTLS}
	for _, s := range to {
		env.Recipients = append(env.Recipients, mail.Recipient{Address: parse(s), Notify: m.notify})
	}
	results := w.relay.Deliver(m.ctx, &queue.Delivery{ID: 1, Envelope: env, Attempt: 1, Arrived: time.Now(),
		Route: w.relay.Route(env.Recipients[0].Address), Size: int64(len(m.text)), Body: strings.NewReader(m.text)})
	if len(results) != len(to) {
		w.t.Fatalf("%d results for %d recipients", len(results), len(to))
	}
	for _, r := range results {
		if r.Reply == "" || r.Status == "" {
			w.t.Errorf("result without words: %+v", r)
		}
	}
	return results
}

func parse(s string) mail.Address {
	a, err := mail.ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

// brief is a result in one line: "deferred 4.3.0 server trouble".
func brief(r queue.Result) string {
	s := r.Outcome.String() + " " + r.Status
	if r.Class != "" {
		s += " " + r.Class
	}
	if r.Busy {
		s += " (busy)"
	}
	return s
}

// expect compares results with what brief says of them.
func (w *world) expect(got []queue.Result, want ...string) {
	w.t.Helper()
	for i := range got {
		if i >= len(want) || brief(got[i]) != want[i] {
			w.t.Errorf("recipient %d: %s (%q), want %q", i, brief(got[i]), got[i].Reply, want)
		}
	}
}

// answers are what a remote says: by verb, "RCPT " and a local part, "greeting", "." for the end of data. What
// is missing is said with success. "HANG", "CLOSE", "HALF" and "RESET" do that instead; "SLOW " waits a minute before
// what follows it.
type answers map[string]string

// remote is a server that a test has written the words of. It speaks by itself, so that it can do what no
// server should.
type remote struct {
	w    *world
	tls  *tls.Config
	caps []string // beyond the usual
	bare bool     // offer nothing

	mu       sync.Mutex
	say      answers          // guarded by mu, as what follows
	messages []string         // "from>to,to: text"
	conns    int              // connections so far
	open     int              // connections now
	most     int              // at a time
	verbs    map[string]int   // how often each came
	live     map[net.Conn]int // connections that are open
}

// remote starts a server at an address and gives a host that address.
func (w *world) remote(host, addr string, say answers, change ...func(*remote)) *remote {
	w.t.Helper()
	ip := netip.MustParseAddr(addr)
	kind := "A "
	if ip.Is6() {
		kind = "AAAA "
	}
	if err := w.zone.Add(".", host+". "+kind+addr+"\n"); err != nil {
		w.t.Fatal(err)
	}
	return w.listen(netip.AddrPortFrom(ip, 25), say, change...)
}

func (w *world) listen(at netip.AddrPort, say answers, change ...func(*remote)) *remote {
	w.t.Helper()
	if say == nil {
		say = answers{}
	}
	r := &remote{w: w, say: say, verbs: make(map[string]int), live: make(map[net.Conn]int)}
	for _, f := range change {
		f(r)
	}
	ln, err := w.net.Listen(at.String())
	if err != nil {
		w.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { r.serve(c) })
		}
	})
	w.t.Cleanup(func() {
		ln.Close()
		r.mu.Lock()
		for c := range r.live {
			c.Close()
		}
		r.mu.Unlock()
		wg.Wait()
	})
	return r
}

// mx gives a domain its MX records: "10 mx1.example".
func (w *world) mx(domain string, records ...string) {
	w.t.Helper()
	list := make([]string, len(records))
	for i, r := range records {
		list[i] = "MX " + r
	}
	w.zone.Set(domain, list...)
}

func (r *remote) answer(key, otherwise string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok := r.say[key]; ok {
		return s
	}
	return otherwise
}

// set changes an answer.
func (r *remote) set(key, words string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.say[key] = words
}

// got returns the messages taken since the last call.
func (r *remote) got() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.messages
	r.messages = nil
	return m
}

func (r *remote) count(verb string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.verbs[verb]
}

func (r *remote) connections() (all, most int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conns, r.most
}

func (r *remote) serve(c net.Conn) {
	r.mu.Lock()
	r.conns++
	r.open++
	r.most = max(r.most, r.open)
	r.live[c] = 1
	r.mu.Unlock()
	s := &speaker{r: r, raw: c, c: c, in: bufio.NewReader(c)}
	s.talk()
	c.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open--
	delete(r.live, c)
}

// speaker is one connection of a remote.
type speaker struct {
	r    *remote
	raw  net.Conn
	c    net.Conn
	in   *bufio.Reader
	from string
	to   []string
}

// reply says what the answers have for a key. It reports whether to go on.
func (s *speaker) reply(key, otherwise string) (said string, ok bool) {
	said = s.r.answer(key, otherwise)
	for {
		rest, slow := strings.CutPrefix(said, "SLOW ")
		if !slow {
			break
		}
		said = rest
		time.Sleep(time.Minute)
	}
	switch said {
	case "HANG":
		io.Copy(io.Discard, s.in)
		return said, false
	case "CLOSE":
		return said, false
	case "HALF": // nothing more comes, but everything is still read
		s.raw.(*memnet.Conn).CloseWrite()
		io.Copy(io.Discard, s.in)
		return said, false
	case "RESET":
		s.raw.(*memnet.Conn).Reset()
		return said, false
	}
	_, err := io.WriteString(s.c, strings.ReplaceAll(said, "\n", "\r\n")+"\r\n")
	return said, err == nil && !strings.HasPrefix(said, "421")
}

func (s *speaker) talk() {
	if _, ok := s.reply("greeting", "220 remote.example ESMTP"); !ok {
		return
	}
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		verb, arg, _ := strings.Cut(line, " ")
		verb = strings.ToUpper(verb)
		s.r.mu.Lock()
		s.r.verbs[verb]++
		s.r.mu.Unlock()
		if !s.do(verb, arg) {
			return
		}
	}
}

func (s *speaker) do(verb, arg string) bool {
	switch verb {
	case "EHLO", "LHLO":
		caps := []string{"remote.example"}
		s.r.mu.Lock()
		bare := s.r.bare
		s.r.mu.Unlock()
		if !bare {
			caps = append(caps, "PIPELINING", "8BITMIME", "SIZE 50000000", "DSN", "ENHANCEDSTATUSCODES")
		}
		caps = append(caps, s.r.caps...)
		if s.r.tls != nil && s.c == s.raw {
			caps = append(caps, "STARTTLS")
		}
		_, ok := s.reply(verb, "250-"+strings.Join(caps[:len(caps)-1], "\n250-")+"\n250 "+caps[len(caps)-1])
		return ok
	case "STARTTLS":
		said, ok := s.reply(verb, "220 2.0.0 go on")
		if !ok || !strings.HasPrefix(said, "220") {
			return ok
		}
		t := tls.Server(s.raw, s.r.tls)
		if t.Handshake() != nil {
			return false
		}
		s.c, s.in = t, bufio.NewReader(t)
		return true
	case "MAIL":
		s.from, s.to = between(arg), nil
		_, ok := s.reply(verb, "250 2.1.0 ok")
		return ok
	case "RCPT":
		to := between(arg)
		local, _, _ := strings.Cut(to, "@")
		said, ok := s.reply("RCPT "+local, s.r.answer("RCPT", "250 2.1.5 ok"))
		if strings.HasPrefix(said, "250") {
			s.to = append(s.to, to)
		}
		return ok
	case "DATA":
		return s.data()
	case "QUIT":
		s.reply(verb, "221 2.0.0 bye")
		return false
	}
	_, ok := s.reply(verb, "250 2.0.0 ok")
	return ok
}

func (s *speaker) data() bool {
	if len(s.to) == 0 {
		_, ok := s.reply("", "554 5.5.1 no valid recipients")
		return ok
	}
	said, ok := s.reply("DATA", "354 go on")
	if !ok || !strings.HasPrefix(said, "354") {
		return ok
	}
	var text strings.Builder
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			break
		}
		text.WriteString(strings.TrimPrefix(line, "."))
	}
	final := s.r.answer(".", "250 2.0.0 taken")
	if strings.HasPrefix(strings.ReplaceAll(final, "SLOW ", ""), "250") || strings.HasPrefix(final, "TAKE ") {
		s.r.mu.Lock()
		s.r.messages = append(s.r.messages, s.from+">"+strings.Join(s.to, ",")+": "+text.String())
		s.r.mu.Unlock()
	}
	if rest, ok := strings.CutPrefix(final, "TAKE "); ok {
		s.r.set(".", rest)
	}
	_, ok = s.reply(".", "250 2.0.0 taken")
	if strings.HasPrefix(final, "TAKE ") {
		s.r.set(".", final)
	}
	return ok
}

// between returns what stands between the angle brackets of a path.
func between(arg string) string {
	_, rest, _ := strings.Cut(arg, "<")
	path, _, _ := strings.Cut(rest, ">")
	return path
}

// authority makes certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// authority returns that of the world, made at the time of the bubble.
func (w *world) authority() *authority {
	if w.ca == nil {
		w.ca = newAuthority(w.t)
	}
	return w.ca
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// server returns the TLS configuration of a server with these names.
func (a *authority) server(t testing.TB, names ...string) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(1000 * time.Hour), DNSNames: names, KeyUsage: x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key}}}
}

// tlsa returns the record DANE-EE, SPKI, SHA-256 for the certificate of a server.
func tlsa(t testing.TB, cfg *tls.Config) string {
	t.Helper()
	cert, err := x509.ParseCertificate(cfg.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("TLSA 3 1 1 %x", sha256.Sum256(cert.RawSubjectPublicKeyInfo))
}

// sameSet reports whether two lists have the same elements.
func sameSet(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}
