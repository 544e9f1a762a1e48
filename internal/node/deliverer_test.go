package node

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/account"
	"github.com/tallypost/tallypost/mail/mailbox"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/tlspolicy"
)

// courier is a relay that writes down what it was handed, and has routes for our own domain if lmtp is set.
type courier struct {
	lmtp  bool
	busy  map[string]bool // reverse paths for which it has no place
	calls []string
}

func (c *courier) Route(to mail.Address) queue.Route {
	if c.lmtp && to.Domain == "x.test" {
		return "lmtp:unix:/dovecot"
	}
	return queue.Route("smtp:" + to.Domain)
}

func (c *courier) Deliver(_ context.Context, m *queue.Delivery) []queue.Result {
	line := string(m.Route) + " " + m.Envelope.From.String() + " >"
	results := make([]queue.Result, len(m.Envelope.Recipients))
	for i, to := range m.Envelope.Recipients {
		line += " " + to.Address.String()
		results[i] = queue.Result{Outcome: queue.Delivered, Reply: "250 " + to.Address.String()}
		if c.busy[m.Envelope.From.String()] {
			results[i] = queue.Result{Outcome: queue.Deferred, Reply: "451 busy", Busy: true}
		}
	}
	c.calls = append(c.calls, line)
	return results
}

func addr(t testing.TB, s string) mail.Address {
	t.Helper()
	if s == "" {
		return mail.Address{}
	}
	a, err := mail.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// newDeliverer is one for x.test with the account ada@x.test, and nobody who takes reports.
func newDeliverer(t *testing.T, c *courier) (*deliverer, string) {
	t.Helper()
	dir := t.TempDir()
	accounts, err := account.Open(filepath.Join(dir, "accounts.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := accounts.Add(account.Account{Address: addr(t, "ada@x.test")}); err != nil {
		t.Fatal(err)
	}
	rewriter, err := openSRS(Config{DataDir: dir, Domains: []string{"x.test", "y.test"}})
	if err != nil {
		t.Fatal(err)
	}
	clk := clock.NewMock(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
	root := filepath.Join(dir, "mail")
	return &deliverer{
		accounts: account.Resolver{Accounts: accounts, Local: map[mail.Domain]bool{"x.test": true, "y.test": true}},
		boxes:    mailbox.New(mailbox.Config{Root: root, Hostname: "mx.x.test"}, clk),
		relay:    c, lmtp: c.lmtp, srs: rewriter, clock: clk,
		takesReports: func(mail.Address) bool { return false },
		log:          slog.New(slog.DiscardHandler),
	}, root
}

func (d *deliverer) attempt(t testing.TB, text, from string, to ...mail.Recipient) []queue.Result {
	t.Helper()
	m := &queue.Delivery{ID: 1, Route: d.Route(to[0].Address), Size: int64(len(text)), Body: strings.NewReader(text),
		Envelope: mail.Envelope{From: addr(t, from), Recipients: to}}
	return d.Deliver(context.Background(), m)
}

// TestCutShort: a letter that a process wrote before it was killed is not written again by the next one.
func TestCutShort(t *testing.T) {
	d, root := newDeliverer(t, new(courier))
	for range 2 {
		d.attempt(t, "Subject: x\r\n\r\n", "eve@z.test", mail.Recipient{Address: addr(t, "ada@x.test")})
		d.since = time.Now()
	}
	files, err := filepath.Glob(filepath.Join(root, "x.test/ada/Maildir/new/*"))
	if len(files) != 1 || err != nil {
		t.Errorf("letters: %v, %v", files, err)
	}
}

// TestForwardedSender: SPF of a stranger does not allow us, so what an alias sent elsewhere comes from us; what
// was addressed there does not change, nor does what our own people send.
func TestForwardedSender(t *testing.T) {
	plain := mail.Recipient{Address: addr(t, "b@z.test")}
	same := mail.Recipient{Address: addr(t, "b@z.test"), ORcpt: "rfc822;B@Z.test"}
	alias := mail.Recipient{Address: addr(t, "b@z.test"), ORcpt: "rfc822;list@x.test"}
	further := mail.Recipient{Address: addr(t, "c@z.test"), ORcpt: "rfc822;b@elsewhere.test"}
	namesake := mail.Recipient{Address: addr(t, "b@z.test"), ORcpt: "rfc822;b@x.test"}
	colleague := mail.Recipient{Address: addr(t, "e@z.test"), ORcpt: "RFC822; b@z.test"}
	fax := mail.Recipient{Address: addr(t, "d@z.test"), ORcpt: "x400;whatever"}
	for _, tt := range []struct {
		name, from string
		to         []mail.Recipient
		want       []string // SRS addresses without hash and day
	}{
		{"addressed there", "a@q.test", []mail.Recipient{plain, same, fax}, []string{"smtp:z.test a@q.test > b@z.test b@z.test d@z.test"}},
		{"by an alias", "a@q.test", []mail.Recipient{alias}, []string{"smtp:z.test SRS0=q.test=a@x.test > b@z.test"}},
		{"by an alias of another", "a@q.test", []mail.Recipient{further}, []string{"smtp:z.test SRS0=q.test=a@x.test > c@z.test"}},
		{"of the same name elsewhere", "a@q.test", []mail.Recipient{namesake}, []string{"smtp:z.test SRS0=q.test=a@x.test > b@z.test"}},
		{"of another name there", "a@q.test", []mail.Recipient{colleague}, []string{"smtp:z.test SRS0=q.test=a@x.test > e@z.test"}},
		{"both", "a@q.test", []mail.Recipient{alias, plain, further}, []string{
			"smtp:z.test SRS0=q.test=a@x.test > b@z.test c@z.test", "smtp:z.test a@q.test > b@z.test"}},
		{"our own sender", "ada@y.test", []mail.Recipient{alias, plain}, []string{"smtp:z.test ada@y.test > b@z.test b@z.test"}},
		{"a report", "", []mail.Recipient{alias}, []string{"smtp:z.test  > b@z.test"}},
		{"too long", strings.Repeat("a", 250) + "@q.test", []mail.Recipient{alias},
			[]string{"smtp:z.test " + strings.Repeat("a", 250) + "@q.test > b@z.test"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := new(courier)
			d, _ := newDeliverer(t, c)
			results := d.attempt(t, "\r\n", tt.from, tt.to...)
			for i, call := range c.calls {
				c.calls[i] = withoutHash(call)
			}
			if fmt.Sprint(c.calls) != fmt.Sprint(tt.want) {
				t.Errorf("handed over %q, want %q", c.calls, tt.want)
			}
			for i, r := range results {
				if r.Reply != "250 "+tt.to[i].Address.String() {
					t.Errorf("recipient %d: %q", i, r.Reply)
				}
			}
		})
	}
}

// withoutHash takes hash and day out of an SRS address, which the test does not compute.
func withoutHash(s string) string {
	i := strings.Index(s, "SRS0=")
	if i < 0 {
		return s
	}
	parts := strings.SplitN(s[i:], "=", 4)
	return s[:i] + parts[0] + "=" + parts[3]
}

// TestBusyTogether: an attempt is one or none.
func TestBusyTogether(t *testing.T) {
	c := &courier{busy: map[string]bool{"a@q.test": true}}
	d, _ := newDeliverer(t, c)
	alias := mail.Recipient{Address: addr(t, "b@z.test"), ORcpt: "rfc822;list@x.test"}
	plain := mail.Recipient{Address: addr(t, "c@z.test")}
	for _, r := range d.attempt(t, "\r\n", "a@q.test", alias, plain) {
		if r.Busy {
			t.Errorf("%+v", r)
		}
	}
	for _, r := range d.attempt(t, "\r\n", "a@q.test", plain) {
		if !r.Busy {
			t.Errorf("%+v", r)
		}
	}
}

// TestJunk: the verdict of this server decides, and no other's.
func TestJunk(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		junk       bool
	}{
		{"junk", "X-Tallypost-Verdict: junk; score=7.0;\r\n\tspf=+3.0 (x)\r\nReceived: x\r\n\r\nbody\r\n", true},
		{"junk alone", "x-tallypost-verdict: JUNK\r\n\r\nbody\r\n", true},
		{"good", "X-Tallypost-Verdict: accept; score=0.0\r\nX-Tallypost-Verdict: junk\r\n\r\nbody\r\n", false},
		{"not ours", "Received: x\r\nX-Tallypost-Verdict: junk; score=9\r\n\r\nbody\r\n", false},
		{"in the body", "Received: x\r\n\r\nX-Tallypost-Verdict: junk\r\n", false},
		{"another word", "X-Tallypost-Verdict: junkyard\r\n\r\nbody\r\n", false},
		{"empty", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, root := newDeliverer(t, new(courier))
			r := d.attempt(t, tt.text, "a@q.test", mail.Recipient{Address: addr(t, "ada@x.test")})[0]
			if r.Outcome != queue.Delivered {
				t.Fatalf("%+v", r)
			}
			files, err := filepath.Glob(filepath.Join(root, "x.test", "ada", "Maildir", ".Junk", "new", "*"))
			if err != nil || (len(files) == 1) != tt.junk {
				t.Errorf("%d files in Junk, %v", len(files), err)
			}
		})
	}
}

// TestLoop: a message that comes back to a mailbox it has been in is ended, by Maildir and by LMTP.
func TestLoop(t *testing.T) {
	long := "X-Filler: " + strings.Repeat(strings.Repeat("x", 70)+"\r\n\t", 2000) + "x\r\n"
	for _, tt := range []struct {
		name, text string
		loop       bool
	}{
		{"fresh", "Received: x\r\n\r\nbody\r\n", false},
		{"back", "Received: x\r\nDelivered-To: Ada@X.test\r\n\r\nbody\r\n", true},
		{"deep down", "Received: x\r\n" + long + "delivered-to: ada@x.test\r\n\r\nbody\r\n", true},
		{"another mailbox", "Delivered-To: eve@x.test\r\nDelivered-To: ada@y.test\r\n\r\nbody\r\n", false},
		{"in the body", "Received: x\r\n\r\nDelivered-To: ada@x.test\r\n", false},
		{"folded", "Received: x\r\n Delivered-To: ada@x.test\r\n\r\n", false},
	} {
		for _, lmtp := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, lmtp %v", tt.name, lmtp), func(t *testing.T) {
				c := &courier{lmtp: lmtp}
				d, _ := newDeliverer(t, c)
				r := d.attempt(t, tt.text, "a@q.test", mail.Recipient{Address: addr(t, "ada@x.test")})[0]
				if looped := r.Outcome == queue.Failed && r.Status == "5.4.6"; looped != tt.loop {
					t.Errorf("%+v", r)
				}
				if !tt.loop && lmtp && (len(c.calls) != 1 || c.calls[0] != "lmtp:unix:/dovecot a@q.test > ada@x.test") {
					t.Errorf("handed over %q", c.calls)
				}
			})
		}
	}
}

// TestLoopOfOne: the other recipients of a message that has come back to one of them get it.
func TestLoopOfOne(t *testing.T) {
	c := &courier{lmtp: true}
	d, _ := newDeliverer(t, c)
	got := d.attempt(t, "Delivered-To: ada@x.test\r\n\r\n", "a@q.test", mail.Recipient{Address: addr(t, "eve@x.test")},
		mail.Recipient{Address: addr(t, "ada@x.test")}, mail.Recipient{Address: addr(t, "bob@x.test")})
	if got[0].Outcome != queue.Delivered || got[1].Status != "5.4.6" || got[2].Outcome != queue.Delivered {
		t.Errorf("%+v", got)
	}
	if len(c.calls) != 1 || c.calls[0] != "lmtp:unix:/dovecot a@q.test > eve@x.test bob@x.test" {
		t.Errorf("handed over %q", c.calls)
	}
}

// TestReportsStayHere: addresses for reports are looked after here even where mailboxes are not.
func TestReportsStayHere(t *testing.T) {
	d, _ := newDeliverer(t, &courier{lmtp: true})
	d.takesReports = func(a mail.Address) bool { return a.Local == "reports" }
	if r := d.Route(addr(t, "reports@x.test")); r != local {
		t.Errorf("route %s", r)
	}
	if r := d.Route(addr(t, "ada@x.test")); r != "lmtp:unix:/dovecot" {
		t.Errorf("route %s", r)
	}
}

// TestSRSKey: made once, kept, several of them, and a file that is none is named.
func TestSRSKey(t *testing.T) {
	cfg := Config{DataDir: t.TempDir(), Domains: []string{"x.test"}}
	now := time.Now()
	first, err := openSRS(cfg)
	if err != nil {
		t.Fatal(err)
	}
	sent, err := first.Forward(addr(t, "a@q.test"), now)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cfg.DataDir, srsKeyFile)
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append([]byte(strings.Repeat("ab", 32)+"\n"), b...), 0o600); err != nil {
		t.Fatal(err)
	}
	second, err := openSRS(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := second.Reverse(sent, now); err != nil || back != addr(t, "a@q.test") {
		t.Errorf("after the key changed: %v, %v", back, err)
	}
	for _, bad := range []string{"", "# nothing\n", "no hex\n", "abcd\n"} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openSRS(cfg); err == nil {
			t.Errorf("%q is a key", bad)
		}
	}
}

// TestSTSStore: a policy is found again after a restart, a damaged file is none.
func TestSTSStore(t *testing.T) {
	dir := t.TempDir()
	s, err := openSTSStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := &tlspolicy.CachedPolicy{ID: "1", Fetched: time.Now().UTC(),
		Policy: tlspolicy.STSPolicy{Mode: tlspolicy.ModeEnforce, MX: []string{"*.y.test"}, MaxAge: time.Hour, Lines: []string{"version: STSv1"}}}
	if err := s.SaveSTS("y.test", want); err != nil {
		t.Fatal(err)
	}
	if s, err = openSTSStore(dir); err != nil {
		t.Fatal(err)
	}
	got, err := s.LoadSTS("y.test")
	if err != nil || got == nil || got.ID != want.ID || !got.Fetched.Equal(want.Fetched) || fmt.Sprint(got.Policy) != fmt.Sprint(want.Policy) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := s.LoadSTS("../y.test"); got != nil || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "z.test.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := s.LoadSTS("z.test"); got != nil || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestRelayRoutes: what [relay] and [mailbox] say becomes the relay's routes.
func TestRelayRoutes(t *testing.T) {
	cfg, err := load(t, small+"[relay]\nsmarthost = \"smart.y.test\"\nuser = \"u\"\npassword = \"p\"\n"+
		"[[relay.route]]\ndomains = [\"z.test\", \".z.test\"]\nto = \"10.0.0.1:26\"\n"+
		"[[relay.route]]\ndomains = [\"direct.test\"]\nto = \"mx\"\n[mailbox]\nlmtp = \"unix:/run/lmtp\"\n")
	if err != nil {
		t.Fatal(err)
	}
	r, err := openRelay(cfg, nil, nil, clock.Real{}, slog.New(slog.NewTextHandler(new(bytes.Buffer), nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for to, want := range map[string]queue.Route{
		"a@q.test": "smtp:via:smart.y.test:587", "a@z.test": "smtp:via:10.0.0.1:26", "a@b.z.test": "smtp:via:10.0.0.1:26",
		"a@direct.test": "smtp:direct.test", "a@x.test": "lmtp:unix:/run/lmtp",
	} {
		if got := r.Route(addr(t, to)); got != want {
			t.Errorf("%s: %s, want %s", to, got, want)
		}
	}
	if self := cfg.self(); len(self) != 1 || self[0].String() != "0.0.0.0:25" {
		t.Errorf("self %v", self)
	}
}

// FuzzTop: whatever a header has, what is found in it is what a full parser finds, and not too much.
func FuzzTop(f *testing.F) {
	f.Add("X-Tallypost-Verdict: junk; score=9\r\nDelivered-To: ada@x.test\r\n")
	f.Add("delivered-to : a\r\n Delivered-To: b\r\nDelivered-To:\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		top := parseTop([]byte(text))
		if len(top.deliveredTo) > maxDeliveredTo {
			t.Fatalf("%d of them", len(top.deliveredTo))
		}
		h, err := mail.ParseHeader([]byte(text))
		if err != nil || h.Len != len(text) {
			return
		}
		n := 0
		for _, field := range h.All("Delivered-To") {
			if bytes.HasPrefix(field.Raw[len("Delivered-To"):], []byte(":")) {
				n++
			}
		}
		if n < maxDeliveredTo && n != len(top.deliveredTo) {
			t.Errorf("%q: %q, want %d", text, top.deliveredTo, n)
		}
	})
}
