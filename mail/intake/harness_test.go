package intake

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/internal/memnet"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/account"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/smtp"
)

// port is an Intake behind a real server for other servers, in a network in memory: clients have the
// addresses a test gives them. What is accepted arrives at once in office.letters.
type port struct {
	*office
	net *memnet.Network
	log *logbook
}

// The addresses of the tests. good.example has all its papers; bare.example publishes nothing.
const (
	ourHost  = "198.51.100.25"
	goodHost = "192.0.2.1"
	bareHost = "203.0.113.7"
)

// world is the zone the tests begin with.
func world() map[string][]string {
	return map[string][]string{
		"good.example":           {"TXT v=spf1 ip4:192.0.2.1 -all", "MX 10 mx.good.example"},
		"_dmarc.good.example":    {"TXT v=DMARC1; p=reject"},
		"quar.example":           {"TXT v=spf1 -all"},
		"_dmarc.quar.example":    {"TXT v=DMARC1; p=quarantine"},
		"look.example":           {"TXT v=spf1 -all"},
		"_dmarc.look.example":    {"TXT v=DMARC1; p=none"},
		"mx.good.example":        {"A 192.0.2.1"},
		"1.2.0.192.in-addr.arpa": {"PTR mx.good.example"},
		"bare.example":           {"MX 10 mx.bare.example"},
	}
}

// setup is what a test may change of a port.
type setup struct {
	Config
	server smtp.Config
	store  queue.Store
}

func newPort(t testing.TB, change func(*setup)) *port {
	t.Helper()
	p := &port{office: &office{t: t, zone: dns.MustZone(world()), clock: clock.NewMock(noon),
		arrived: make(chan struct{}, 100_000)}, net: memnet.New(memnet.Config{}), log: new(logbook)}
	log := slog.New(p.log)
	s := setup{Config: Config{Hostname: "mx.here.example", Limits: DefaultLimits()},
		store: queue.NewMemory(), server: smtp.Config{Hostname: "mx.here.example"}}
	if change != nil {
		change(&s)
	}
	q, err := queue.Open(queue.Config{}, s.store, p, p, nil, clock.Real{}, log)
	if err != nil {
		t.Fatal(err)
	}
	if p.in, err = New(s.Config, p.accounts(), q, "here.example/log", p.zone, p.clock, log); err != nil {
		t.Fatal(err)
	}
	s.server.NewSession, s.server.Admit, s.server.Log = p.in.NewSession, p.in.Admit, log
	if s.server.Password = nil; s.server.Submission {
		s.server.Password, s.server.OnAuth, s.server.PlaintextAuth = p.in.Password, p.in.OnAuth, true
	}
	srv, err := smtp.NewServer(s.server)
	if err != nil {
		t.Fatal(err)
	}
	l, err := p.net.Listen(ourHost + ":25")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	queueCtx, stopQueue := context.WithCancel(context.Background())
	served, queued := make(chan error, 2), make(chan error, 1)
	go func() { queued <- q.Run(queueCtx) }()
	go func() { served <- srv.Serve(ctx, l) }()
	go func() { served <- p.in.Run(ctx) }()
	for errors.Is(q.Accepting(), queue.ErrStopped) { // until it runs
		time.Sleep(time.Millisecond)
	}
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-served, <-served); err != nil {
			t.Error(err)
		}
		stopQueue()
		if err := <-queued; err != nil && !errors.Is(err, errDisk) {
			t.Error(err)
		}
	})
	return p
}

// errDisk is the fault of a store in a test.
var errDisk = errors.New("disk on fire")

// call is one connection of a client.
type call struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// from connects from an address and reads the greeting.
func (p *port) from(ip string) (*call, string) {
	p.t.Helper()
	conn, err := p.net.Host(netip.MustParseAddr(ip)).Dial(context.Background(), ourHost+":25")
	if err != nil {
		p.t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(60 * time.Second))
	c := &call{t: p.t, conn: conn, r: bufio.NewReader(conn)}
	p.t.Cleanup(func() { conn.Close() })
	return c, c.reply()
}

// reply reads a reply: its lines, joined by LF. The end of the connection is "EOF".
func (c *call) reply() string {
	c.t.Helper()
	var out []string
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || len(out) == 0 {
				return "EOF"
			}
			c.t.Fatal(err)
		}
		line = strings.TrimRight(line, "\r\n")
		out = append(out, line)
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(out, "\n")
		}
	}
}

// say sends a line and returns the reply.
func (c *call) say(format string, args ...any) string {
	c.t.Helper()
	c.write(fmt.Sprintf(format, args...) + "\r\n")
	return c.reply()
}

func (c *call) write(s string) {
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Fatal(err)
	}
}

// letter is what a test sends. Zero fields take what nobody objects to.
type letter struct {
	ip, helo, from string
	null           bool   // the reverse path is null
	params         string // of MAIL
	to             []string
	text           string // lines end in LF
}

const plainText = "From: Ann <ann@good.example>\nTo: ada@here.example\nSubject: hello\n" +
	"Date: Sun, 22 Nov 2026 12:00:00 +0000\nMessage-ID: <1@good.example>\n\nHello.\n"

// bareText is of somebody without DMARC.
const bareText = "From: bob@bare.example\nSubject: hello\n\nHello.\n"

func (l *letter) fill() {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&l.ip, goodHost)
	set(&l.helo, "mx.good.example")
	set(&l.from, "ann@good.example")
	set(&l.text, plainText)
	if l.to == nil {
		l.to = []string{"ada@here.example"}
	}
	if l.null {
		l.from = ""
	}
}

// send sends a letter and returns the reply that decided about it: the first refusal, or the last.
func (p *port) send(l letter) string {
	p.t.Helper()
	l.fill()
	c, greeting := p.from(l.ip)
	defer c.conn.Close()
	if greeting[0] != '2' {
		return greeting
	}
	return c.send(l)
}

// send sends a letter over a connection that was greeted.
func (c *call) send(l letter) string {
	c.t.Helper()
	l.fill()
	lines := []string{"EHLO " + l.helo, "MAIL FROM:<" + l.from + "> " + l.params}
	for _, to := range l.to {
		lines = append(lines, "RCPT TO:<"+to+">")
	}
	for _, line := range append(lines, "DATA") {
		if r := c.say("%s", strings.TrimSpace(line)); r[0] != '2' && r[0] != '3' {
			return r
		}
	}
	c.write(strings.ReplaceAll(l.text, "\n", "\r\n") + ".\r\n")
	return c.reply()
}

// take sends a letter that must be accepted, and returns it as it arrived.
func (p *port) take(l letter) letterSent {
	p.t.Helper()
	if r := p.send(l); !strings.HasPrefix(r, "250 2.0.0 ") {
		p.t.Fatalf("refused: %s", r)
	}
	return p.last()
}

// note returns the note of the last acceptance.
func (p *port) note() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ev := range slices.Backward(p.events) {
		if ev.Kind == mail.ReceivedFromNonERDS || ev.Kind == mail.SubmissionAcceptance {
			return ev.Note
		}
	}
	return ""
}

// fields returns the fields of a name of a letter that arrived, unfolded.
func (l letterSent) fields(name string) []string {
	h, err := mail.ParseHeader(l.text)
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, f := range h.All(name) {
		out = append(out, f.Value())
	}
	return out
}

func (l letterSent) verdict() string { return strings.Join(l.fields(VerdictField), " | ") }

func (l letterSent) rcpts() (out []string) {
	for _, to := range l.env.Recipients {
		out = append(out, to.Address.String())
	}
	return out
}

// wants fails where a reply does not begin with a text, or where that has "..." in it, with the parts
// in their order.
func wants(t testing.TB, what, got, want string) {
	t.Helper()
	rest := got
	for i, part := range strings.Split(want, "...") {
		j := strings.Index(rest, part)
		if j < 0 || i == 0 && j != 0 {
			t.Errorf("%s: %q, want %q", what, got, want)
			return
		}
		rest = rest[j+len(part):]
	}
}

// logbook is a slog.Handler that keeps what it is told.
type logbook struct {
	mu    sync.Mutex
	lines []string
}

func (l *logbook) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (l *logbook) WithAttrs([]slog.Attr) slog.Handler               { return l }
func (l *logbook) WithGroup(string) slog.Handler                    { return l }

func (l *logbook) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", r.Level, r.Message)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
		return true
	})
	if strings.HasPrefix(r.Message, "panic") {
		fmt.Println(b.String())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, b.String())
	return nil
}

// has reports how often a line has all of the words.
func (l *logbook) has(words ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			n++
		}
	}
	return n
}

// addAlias adds an alias while the server runs.
func (p *port) addAlias(from string, to ...string) {
	p.t.Helper()
	a := account.Alias{Address: at(from)}
	for _, s := range to {
		a.Targets = append(a.Targets, at(s))
	}
	if err := p.in.accounts.AddAlias(a); err != nil {
		p.t.Fatal(err)
	}
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

var bareAddr = netip.MustParseAddr(bareHost)
