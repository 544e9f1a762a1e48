package intake

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	netsmtp "net/smtp"
	"net/textproto"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/account"
	"github.com/tallypost/tallypost/mail/dkim"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/smtp"
)

// office is an Intake behind a real submission server, with a queue in memory whose mail arrives
// at once.
type office struct {
	t     testing.TB
	in    *Intake
	zone  *dns.Zone
	clock *clock.Mock
	addr  string

	mu      sync.Mutex
	letters []letterSent
	events  []mail.Event
	arrived chan struct{}
}

// letterSent is a message as it left.
type letterSent struct {
	env  mail.Envelope
	text []byte
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const password = "correct horse"

// newOffice starts the server. Ada has an alias and may use a sub-address; Bob has nothing but
// his name.
func newOffice(t testing.TB, change func(*Config)) *office {
	t.Helper()
	o := &office{t: t, zone: new(dns.Zone), clock: clock.NewMock(noon), arrived: make(chan struct{}, 1000)}
	log := slog.New(slog.DiscardHandler)
	q, err := queue.Open(queue.Config{}, queue.NewMemory(), o, o, nil, clock.Real{}, log)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Hostname: "mx.here.example"}
	if change != nil {
		change(&cfg)
	}
	o.in, err = New(cfg, o.accounts(), q, "here.example/log", o.zone, o.clock, log)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := smtp.NewServer(smtp.Config{Hostname: "mx.here.example", NewSession: o.in.NewSession,
		Submission: cfg.RelayFrom == nil, Password: o.in.Password, PlaintextAuth: true})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.addr = l.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- q.Run(ctx) }()
	go func() { done <- srv.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
	})
	return o
}

func (o *office) accounts() account.Resolver {
	o.t.Helper()
	accounts, err := account.Open(filepath.Join(o.t.TempDir(), "accounts.json"))
	if err != nil {
		o.t.Fatal(err)
	}
	cred, err := account.NewCredential(password)
	if err != nil {
		o.t.Fatal(err)
	}
	err = errors.Join(
		accounts.Add(account.Account{Address: at("ada@here.example"), Credential: cred}),
		accounts.Add(account.Account{Address: at("bob@here.example"), Credential: cred}),
		accounts.AddAlias(account.Alias{Address: at("sales@here.example"), Targets: []mail.Address{at("ada@here.example")}}))
	if err != nil {
		o.t.Fatal(err)
	}
	return account.Resolver{Accounts: accounts, Local: map[mail.Domain]bool{"here.example": true}, Separator: "+"}
}

func at(s string) mail.Address {
	a, err := mail.ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

// The office is the queue's Journal and its Deliverer.

func (o *office) Append(events []mail.Event) (indexes []uint64, writes []queue.Write, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range events {
		indexes = append(indexes, uint64(len(o.events)))
		o.events = append(o.events, e)
	}
	return indexes, nil, nil
}

// event returns an event of the log: the queue may be writing the next one.
func (o *office) event(i int) mail.Event {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.events[i]
}

func (o *office) Committed()     {}
func (o *office) Origin() string { return "here.example/log" }

func (o *office) Route(to mail.Address) queue.Route { return queue.Route(to.Domain) }

func (o *office) Deliver(_ context.Context, d *queue.Delivery) []queue.Result {
	text, err := io.ReadAll(io.NewSectionReader(d.Body, 0, d.Size))
	if err != nil {
		panic(err)
	}
	o.mu.Lock()
	o.letters = append(o.letters, letterSent{d.Envelope, text})
	o.mu.Unlock()
	select {
	case o.arrived <- struct{}{}:
	case <-o.t.Context().Done():
	}
	out := make([]queue.Result, len(d.Envelope.Recipients))
	for i := range out {
		out[i] = queue.Result{Outcome: queue.Delivered, Status: "2.0.0", Reply: "250 2.0.0 taken"}
	}
	return out
}

// dial opens a session; without user it is one of a host that may relay.
func (o *office) dial(user string) (*netsmtp.Client, error) {
	conn, err := net.Dial("tcp", o.addr)
	if err != nil {
		return nil, err
	}
	c, err := netsmtp.NewClient(conn, "localhost")
	if err == nil && user != "" {
		err = c.Auth(netsmtp.PlainAuth("", user, password, "localhost"))
	}
	return c, err
}

// submit sends a message and returns the refusal. Lines of text end in LF.
func (o *office) submit(user, from, text string, to ...string) error {
	o.t.Helper()
	c, err := o.dial(user)
	if err != nil {
		o.t.Fatal(err)
	}
	defer c.Close()
	if err := c.Mail(from); err != nil {
		return err
	}
	for _, s := range to {
		if err := c.Rcpt(s); err != nil {
			return err
		}
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, strings.ReplaceAll(text, "\n", "\r\n")); err != nil {
		return err
	}
	return w.Close()
}

// accept sends a message of Ada's that must be taken, and returns it as it left.
func (o *office) accept(text string) letterSent {
	o.t.Helper()
	if err := o.submit("ada@here.example", "ada@here.example", text, "carl@there.example"); err != nil {
		o.t.Fatalf("%v\n%s", err, text)
	}
	return o.last()
}

// last waits for a message to arrive and returns it.
func (o *office) last() letterSent {
	o.t.Helper()
	select {
	case <-o.arrived:
	case <-time.After(30 * time.Second):
		o.t.Fatal("nothing arrived")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.letters[len(o.letters)-1]
}

// refuse sends a message of Ada's that must be refused with this code and words.
func (o *office) refuse(want, text string) {
	o.t.Helper()
	err := o.submit("ada@here.example", "ada@here.example", text, "carl@there.example")
	var reply *textproto.Error
	if !errors.As(err, &reply) || !strings.HasPrefix(fmt.Sprint(reply.Code, " ", reply.Msg), want) {
		o.t.Errorf("%v, want %q for\n%s", err, want, text)
	}
}

func (l letterSent) header(t testing.TB) mail.Header {
	t.Helper()
	h, err := mail.ParseHeader(l.text)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

const whole = "From: Ada <ada@here.example>\nTo: carl@there.example\nSubject: s\n" +
	"Date: Sun, 22 Nov 2026 12:00:00 +0000\nMessage-ID: <1@here.example>\n\nhello\n"

func TestWhoTheMessageIsFrom(t *testing.T) {
	o := newOffice(t, nil)
	with := func(from string) string { return strings.Replace(whole, "From: Ada <ada@here.example>", from, 1) }
	for _, from := range []string{
		"From: ada@here.example",
		"From: Ada <ADA@HERE.example>",
		"From: ada+lists@here.example",
		"From: sales@here.example",
		"From: ada@here.example\nSender: sales@here.example",
		"From: ada@here.example, sales@here.example\nSender: ada@here.example",
		`From: "bob@here.example" <ada@here.example>`, // a name may be anything
	} {
		o.accept(with(from))
	}
	for from, want := range map[string]string{
		"From: bob@here.example":                          "550 5.7.1 From: <bob@here.example> is not an address of the account ada@here.example",
		"From: carl@there.example":                        "550 5.7.1 From: <carl@there.example>",
		"From: ada@here.example, bob@here.example":        "550 5.7.1 From: <bob@here.example>",
		"From: Team: ada@here.example, x@there.example;":  "550 5.7.1 From: <x@there.example>",
		"From: ada@here.example\nFrom: ada@here.example":  "550 5.6.0 more than one From field",
		"From: ada@here.example\nFROM : bob@here.example": "550 5.6.0 more than one From field",
		"From:":     "550 5.6.0 malformed From field",
		"From: ada": "550 5.6.0 malformed From field",
		"From: ada@here.example\nSender: bob@here.example":                           "550 5.7.1 Sender: <bob@here.example>",
		"From: ada@here.example\nSender: x":                                          "550 5.6.0 Sender: one address",
		"From: ada@here.example\nSender: ada@here.example\nSender: ada@here.example": "550 5.6.0 the message has 2 Sender",
		// The author of a message that is sent on again is somebody else; who passes it on says
		// so in Resent-From, but readers see From.
		"From: bob@here.example\nResent-From: ada@here.example": "550 5.7.1 From: <bob@here.example>",
	} {
		o.refuse(want, with(from))
	}
	if err := o.submit("ada@here.example", "bob@here.example", whole, "carl@there.example"); err == nil ||
		!strings.Contains(err.Error(), "5.7.1") {
		t.Errorf("MAIL FROM of somebody else: %v", err)
	}
}

func TestWhatIsAdded(t *testing.T) {
	o := newOffice(t, nil)
	got := o.accept("To: x@there.example\n\nhello\n")
	h := got.header(t)
	if h.Get("From") != "<ada@here.example>" || h.Get("Date") != "Sun, 22 Nov 2026 12:00:00 +0000" ||
		!strings.HasSuffix(h.Get("Message-ID"), "@mx.here.example>") {
		t.Errorf("added:\n%s", got.text)
	}
	if ev := o.event(0); ev.MessageID != h.Get("Message-ID") || ev.MessageID == "" {
		t.Errorf("the log has Message-ID %q, the message %q", ev.MessageID, h.Get("Message-ID"))
	}
	got = o.accept(strings.Replace(whole, "From: Ada <ada@here.example>",
		"From: ada@here.example, sales@here.example", 1))
	if s := got.header(t).Get("Sender"); s != "<ada@here.example>" {
		t.Errorf("Sender of a message of two authors: %q", s)
	}
	got = o.accept(whole)
	for _, name := range []string{"From", "Sender", "Date", "Message-ID", "DKIM-Signature"} {
		want := 1
		if name == "Sender" || name == "DKIM-Signature" {
			want = 0
		}
		if n := len(got.header(t).All(name)); n != want {
			t.Errorf("%d %s fields, want %d", n, name, want)
		}
	}
}

// TestHiddenRecipients: RFC 5322, section 3.6.3. The log commits to what went on.
func TestHiddenRecipients(t *testing.T) {
	o := newOffice(t, nil)
	bcc := "Bcc: dora@there.example,\n\temil@there.example\nReturn-Path: <x@y.example>\nresent-bcc: f@there.example\n"
	got := o.accept(bcc + whole)
	if strings.Contains(string(got.text), "dora") || strings.Contains(string(got.text), "f@there.example") ||
		strings.Contains(string(got.text), "x@y.example") {
		t.Errorf("left with:\n%s", got.text)
	}
	ev, want := o.event(0), strings.ReplaceAll(whole, "\n", "\r\n")
	sum := sha256.Sum256([]byte(want))
	if ev.Size != int64(len(want)) || ev.SHA256 != hex.EncodeToString(sum[:]) || ev.Note != "" {
		t.Errorf("event %+v, want the %d octets that went on", ev, len(want))
	}
	if !strings.HasSuffix(string(got.text), want) {
		t.Error("the message does not end in what the log has")
	}
}

// keys makes keys of both algorithms for a domain, by selector, and publishes them.
func (o *office) keys(d mail.Domain) map[string]dkim.Key {
	o.t.Helper()
	keys := make(map[string]dkim.Key)
	for selector, generate := range map[string]func() (crypto.Signer, error){
		"rsa": dkim.GenerateRSA, "ed25519": dkim.GenerateEd25519} {
		private, err := generate()
		if err != nil {
			o.t.Fatal(err)
		}
		record, err := dkim.Record(private.Public())
		if err != nil {
			o.t.Fatal(err)
		}
		o.zone.Set(dkim.RecordName(d, selector), "TXT "+record)
		keys[selector] = dkim.Key{Domain: d, Selector: selector, Private: private}
	}
	return keys
}

// signer signs with both.
func (o *office) signer(d mail.Domain) *dkim.Signer {
	o.t.Helper()
	keys := o.keys(d)
	s, err := dkim.NewSigner(dkim.SignConfig{Keys: []dkim.Key{keys["rsa"], keys["ed25519"]}})
	if err != nil {
		o.t.Fatal(err)
	}
	return s
}

// newSigningOffice is an office that signs.
func newSigningOffice(t testing.TB, change func(*Config)) *office {
	t.Helper()
	var signer *dkim.Signer
	o := newOffice(t, func(cfg *Config) {
		cfg.Signer = func(d mail.Domain) *dkim.Signer {
			if d != "here.example" {
				return nil
			}
			return signer
		}
		if change != nil {
			change(cfg)
		}
	})
	signer = o.signer("here.example")
	return o
}

// verify returns the results of a message's signatures as "ed25519=pass rsa=pass".
func (o *office) verify(text []byte) string {
	o.t.Helper()
	h, err := mail.ParseHeader(text)
	if err != nil {
		o.t.Fatal(err)
	}
	v := dkim.NewVerifier(o.t.Context(), o.zone, h, o.clock.Now(), dkim.VerifyConfig{})
	v.Write(text[h.Len:])
	var out []string
	for _, r := range v.Finish() {
		out = append(out, r.Selector+"="+string(r.State))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestSignature(t *testing.T) {
	o := newSigningOffice(t, nil)
	for name, text := range map[string]string{
		"whole":                 whole,
		"fields are added":      "Subject: s\n\nhello\n",
		"empty body":            strings.TrimSuffix(whole, "hello\n"),
		"without body":          strings.TrimSuffix(whole, "\nhello\n"),
		"hidden recipients":     "Bcc: x@there.example\n" + whole,
		"dots and space":        whole + "..\n.x  y \t z \n\n\n",
		"large":                 whole + strings.Repeat("0123456789 abcdef\n", 20_000),
		"line that is no field": "From: ada@here.example\nthis is no field\n\nhello\n",
	} {
		if got := o.verify(o.accept(text).text); got != "ed25519=pass rsa=pass" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestSignatureCovers: RFC 6376, section 8.15: what is added to a signed message breaks the
// signature.
func TestSignatureCovers(t *testing.T) {
	o := newSigningOffice(t, nil)
	text := string(o.accept("List-Unsubscribe: <https://x.example/>\nList-Unsubscribe-Post: " +
		"List-Unsubscribe=One-Click\n" + whole).text)
	for _, row := range []struct{ name, from, to string }{
		{"another subject in front", "Subject: s\r\n", "Subject: other\r\nSubject: s\r\n"},
		{"another author behind", "To: carl", "From: bank@there.example\r\nTo: carl"},
		{"a reply address", "Subject: s\r\n", "Reply-To: x@there.example\r\nSubject: s\r\n"},
		{"the way to unsubscribe", "https://x.example", "https://y.example"},
		{"the one click", "List-Unsubscribe=One-Click", "List-Unsubscribe=No"},
		{"the body", "hello", "hallo"},
		{"the date", "12:00:00 +0000\r\nMessage-ID", "12:00:01 +0000\r\nMessage-ID"},
	} {
		if !strings.Contains(text, row.from) {
			t.Fatalf("%s: %q is not in\n%s", row.name, row.from, text)
		}
		if got := o.verify([]byte(strings.Replace(text, row.from, row.to, 1))); got != "ed25519=fail rsa=fail" {
			t.Errorf("%s: %s", row.name, got)
		}
	}
}

// TestOneSignatureForAll: a message to many is signed once, and each of them can verify it.
func TestOneSignatureForAll(t *testing.T) {
	o := newSigningOffice(t, nil)
	err := o.submit("ada@here.example", "ada@here.example", whole, "a@one.example", "b@two.example", "c@three.example")
	if err != nil {
		t.Fatal(err)
	}
	first := o.last().text
	for range 2 {
		if got := o.last().text; string(got) != string(first) {
			t.Error("two recipients got two different messages")
		}
	}
	if got := o.verify(first); got != "ed25519=pass rsa=pass" {
		t.Error(got)
	}
}

// TestHostThatMayRelay: it answers for its users itself; what it sends by our name is signed, and
// stays as it is otherwise.
func TestHostThatMayRelay(t *testing.T) {
	o := newSigningOffice(t, func(cfg *Config) {
		cfg.RelayFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	for _, row := range []struct{ name, from, text, want string }{
		{"ours", "robot@here.example", whole, "ed25519=pass rsa=pass"},
		{"of another domain, envelope of ours", "ada@here.example",
			strings.Replace(whole, "ada@here.example", "x@there.example", 1), "ed25519=pass rsa=pass"},
		{"of another domain", "x@there.example", strings.Replace(whole, "ada@here.example", "x@there.example", 1), ""},
		{"of two authors", "x@there.example", "From: ada@here.example\n" + whole, ""},
		{"of nobody", "x@there.example", "Subject: s\n\nhello\n", ""},
	} {
		if err := o.submit("", row.from, row.text, "carl@there.example"); err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		got := o.last()
		if s := o.verify(got.text); s != row.want {
			t.Errorf("%s: signatures %q, want %q", row.name, s, row.want)
		}
		if len(got.header(t).All("Date")) != 1 || len(got.header(t).All("Message-ID")) != 1 {
			t.Errorf("%s: not complete:\n%s", row.name, got.text)
		}
	}
}

func TestAddressesOfReports(t *testing.T) {
	o := newOffice(t, func(cfg *Config) {
		cfg.Takes = func(a mail.Address) bool { return a == at("reports@here.example") }
	})
	for to, taken := range map[string]bool{"reports@here.example": true, "nobody@here.example": false} {
		err := o.submit("ada@here.example", "ada@here.example", whole, to)
		if (err == nil) != taken {
			t.Errorf("%s: %v", to, err)
		}
	}
	if got := o.last().env.Recipients; len(got) != 1 || got[0].Address != at("reports@here.example") {
		t.Errorf("delivered to %v", got)
	}
}

// TestReportsAreNotReported: two servers would else tell each other for ever that they had told each other.
func TestReportsAreNotReported(t *testing.T) {
	o := newOffice(t, func(cfg *Config) {
		cfg.Takes = func(a mail.Address) bool { return a.Local == "reports" }
	})
	for to, want := range map[string]bool{"reports@here.example": true, "ada@here.example": false,
		"reports@here.example ada@here.example": false} {
		var env mail.Envelope
		for _, s := range strings.Fields(to) {
			env.Recipients = append(env.Recipients, mail.Recipient{Address: at(s)})
		}
		if got := o.in.isReport(env); got != want {
			t.Errorf("to %s: %v, want %v", to, got, want)
		}
	}
}
