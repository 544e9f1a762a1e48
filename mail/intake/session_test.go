package intake

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/account"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/srs"
)

// TestRecipients: who is a recipient, and what is said of who is not.
func TestRecipients(t *testing.T) {
	p := newPort(t, nil)
	p.addAlias("team@here.example", "ada@here.example", "bob@here.example", "eve@there.example")
	p.addAlias("circle@here.example", "circle2@here.example")
	p.addAlias("circle2@here.example", "circle@here.example")
	for _, c := range []struct {
		to, reply string
		rcpts     []string
	}{
		{"ada@here.example", "250", []string{"ada@here.example"}},
		{"ADA+lists@HERE.example", "250", []string{"ada@here.example"}},
		{"sales@here.example", "250", []string{"ada@here.example"}},
		{"team@here.example", "250", []string{"ada@here.example", "bob@here.example", "eve@there.example"}},
		{"postmaster", "250", []string{"ada@here.example"}}, // RFC 5321, section 4.5.1
		{"PostMaster@here.example", "250", []string{"ada@here.example"}},
		{"abuse@here.example", "250", []string{"ada@here.example"}},         // RFC 2142
		{"Postmaster@mx.here.example", "250", []string{"ada@here.example"}}, // as our reports have it
		{"ada@mx.here.example", "550 5.7.1", nil},
		{"postmaster@[198.51.100.25]", "250", []string{"ada@here.example"}},
		{"bob@[IPv6:::ffff:198.51.100.25]", "250", []string{"bob@here.example"}},
		{"nobody@[198.51.100.25]", "550 5.1.1 <nobody@[198.51.100.25]>: no such mailbox here", nil},
		{"ada@[198.51.100.26]", "550 5.7.1", nil},
		{"nobody@here.example", "550 5.1.1 <nobody@here.example>: no such mailbox here", nil},
		{"x@there.example", "550 5.7.1 <x@there.example>: this server does not relay for you: " +
			"there.example is not a domain of its own", nil},
		{"x%there.example@here.example", "550 5.1.1", nil}, // the percent hack
		{`"x@there.example"@here.example`, "550 5.1.1", nil},
		{"circle@here.example", "451 4.3.5", nil},
	} {
		wants(t, c.to, p.send(letter{to: []string{c.to}}), c.reply)
		if c.rcpts == nil {
			continue
		}
		if got := p.last().rcpts(); c.rcpts[0] != "" && !slices.Equal(got, c.rcpts[:1]) &&
			!slices.Equal(p.accepted(), c.rcpts) {
			t.Errorf("%s: goes to %v", c.to, got)
		}
		if got := p.accepted(); !slices.Equal(got, c.rcpts) {
			t.Errorf("%s: accepted for %v, want %v", c.to, got, c.rcpts)
		}
		for range len(domains(c.rcpts)) - 1 {
			p.last()
		}
	}
}

// accepted returns the recipients of the last acceptance.
func (p *port) accepted() (out []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ev := range slices.Backward(p.events) {
		if ev.Kind == mail.ReceivedFromNonERDS || ev.Kind == mail.SubmissionAcceptance {
			for _, a := range ev.To {
				out = append(out, a.String())
			}
			return out
		}
	}
	return nil
}

func domains(addrs []string) map[string]bool {
	out := make(map[string]bool)
	for _, a := range addrs {
		out[string(at(a).Domain)] = true
	}
	return out
}

// TestEachOnce: however many addresses lead to a mailbox, it gets one copy, and who asked for whom is
// kept.
func TestEachOnce(t *testing.T) {
	p := newPort(t, nil)
	got := p.take(letter{to: []string{"sales@here.example", "ada@here.example", "bob@here.example",
		"Ada@here.example"}})
	if r := got.rcpts(); !slices.Equal(r, []string{"ada@here.example", "bob@here.example"}) {
		t.Errorf("goes to %v", r)
	}
	if o := got.env.Recipients[0].ORcpt; o != "rfc822;sales@here.example" { // RFC 3461, section 5.2.7
		t.Errorf("original recipient %q", o)
	}
	if f := got.fields("Received"); strings.Contains(f[0], "for ") {
		t.Errorf("recipients are shown to each other: %s", f[0])
	}
	one := p.take(letter{to: []string{"sales@here.example"}})
	if f := one.fields("Received"); !strings.Contains(f[0], "\tfor <sales@here.example>;") {
		t.Errorf("Received: %s", f[0])
	}
}

// TestRelaying: only clients of RelayFrom send to the world, and nobody looks at what they send.
func TestRelaying(t *testing.T) {
	p := newPort(t, func(s *setup) {
		s.RelayFrom = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	})
	l := letter{ip: bareHost, from: "app@here.example", to: []string{"x@there.example"}}
	got := p.take(l)
	if got.verdict() != "" || got.fields("Authentication-Results") != nil {
		t.Errorf("a friend's message was judged:\n%s", got.text)
	}
	if n := p.zone.Asked("", ""); n != 0 {
		t.Errorf("%d questions for it", n)
	}
	l.ip = "203.0.114.7"
	wants(t, "stranger", p.send(l), "550 5.7.1")
}

// TestSubmissionPort: nothing without a log-in.
func TestSubmissionPort(t *testing.T) {
	p := newPort(t, func(s *setup) { s.server.Submission = true })
	wants(t, "no log-in", p.send(letter{}), "530 5.7.0 log in first")
	c, _ := p.from(bareHost)
	c.say("EHLO x")
	wants(t, "AUTH", c.say("AUTH PLAIN %s", plain("ada@here.example", password)), "235")
	wants(t, "another's name", c.say("MAIL FROM:<bob@here.example>"),
		"553 5.7.1 <bob@here.example> is not an address of the account ada@here.example")
	wants(t, "own", c.say("MAIL FROM:<ada@here.example>"), "250")
	c.say("RSET")
	if err := p.in.accounts.Remove(at("ada@here.example")); err != nil {
		t.Fatal(err)
	}
	wants(t, "closed", c.say("MAIL FROM:<ada@here.example>"), "535 5.7.8 the account")
}

// TestSRS: a report on a message that we forwarded goes to who sent that message, and nothing else
// does.
func TestSRS(t *testing.T) {
	rw, err := srs.New(srs.Config{Domain: "here.example", Secrets: [][]byte{[]byte("a long secret")}})
	if err != nil {
		t.Fatal(err)
	}
	p := newPort(t, func(s *setup) { s.SRS = rw })
	alias, err := rw.Forward(at("Zoe@there.example"), noon)
	if err != nil {
		t.Fatal(err)
	}
	old, _ := rw.Forward(at("zoe@there.example"), noon.Add(-40*24*time.Hour))
	forged := strings.Replace(alias.String(), "there", "their", 1)
	got := p.take(letter{null: true, to: []string{alias.String()}, text: bareText})
	if to := got.env.Recipients[0]; to.Address != at("Zoe@there.example") ||
		to.Notify != mail.NotifyNever || to.ORcpt != "rfc822;"+alias.String() {
		t.Errorf("goes to %+v", to)
	}
	for what, c := range map[string]struct{ from, to, want string }{
		"another first forwarder": {"", "SRS1=abcd=x.example==efgh=ij=y.example=z@here.example", "550 5.1.1"},
		"forged":                  {"", forged, "550 5.1.1"},
		"too old":                 {"", old.String(), "550 5.1.6 ... has expired"},
		"no report":               {"ann@good.example", alias.String(), "550 5.7.1 ... only delivery reports"},
		"a daemon":                {"MAILER-DAEMON@good.example", alias.String(), "250"},
	} {
		wants(t, what, p.send(letter{from: c.from, null: c.from == "", to: []string{c.to}, text: bareText}), c.want)
	}
}

// TestBackup: of a domain that we are a backup for, recipients of its list are taken and no others.
func TestBackup(t *testing.T) {
	file := filepath.Join(t.TempDir(), "recipients")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# people\nzoe\nYan@other.example\n\n")
	p := newPort(t, func(s *setup) {
		s.Backups = []Backup{{Domain: "other.example", Recipients: file}}
	})
	to := func(s string) string { return p.send(letter{to: []string{s}}) }
	wants(t, "listed", to("Zoe@other.example"), "250")
	wants(t, "listed", to("yan@other.example"), "250")
	wants(t, "not listed", to("xenia@other.example"), "550 5.1.1 <xenia@other.example>: no such mailbox")
	write("xenia\n")
	wants(t, "too soon", to("xenia@other.example"), "550")
	p.clock.Advance(recipientsCheck)
	wants(t, "new list", to("xenia@other.example"), "250")
	wants(t, "gone", to("zoe@other.example"), "550")
	write("what is this\n")
	p.clock.Advance(recipientsCheck)
	wants(t, "broken list, the old one serves", to("xenia@other.example"), "250")
	if p.log.has("ERROR", "list of recipients", "line 1") == 0 {
		t.Error("nobody was told")
	}
	// A list for a domain of our own, or one that cannot be read, is a mistake.
	for _, b := range []Backup{{"here.example", file}, {"other.example", file + ".gone"},
		{"other.example", file}} {
		if _, err := New(Config{Backups: []Backup{b}}, p.in.accounts, nil, "", p.zone, p.clock,
			p.in.log); err == nil || !strings.Contains(err.Error(), "recipients of "+string(b.Domain)) {
			t.Errorf("%+v: %v", b, err)
		}
	}
}

func TestParseRecipients(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "map[]",
		"a\r\nB@x.example\n#c\n":    "map[a:true b:true]",
		" \"odd one\"@x.example \n": "map[odd one:true]",
		"a#b\n":                     "map[a#b:true]",
		"ok\na@y.example":           "line 2: a@y.example is not an address of x.example",
		"ok\n\n@x.example":          "line 3: ",
		strings.Repeat("x", 70000):  "bufio.Scanner: token too long",
	} {
		m, err := parseRecipients([]byte(text), "x.example")
		got := fmt.Sprint(m)
		if err != nil {
			got = err.Error()
		}
		wants(t, text[:min(len(text), 20)], got, want)
	}
}

// full is a store without room, or one that has failed.
type full struct {
	queue.Store
	mu  sync.Mutex
	err error // guarded by mu
}

func (f *full) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *full) NewBody(id mail.ID) (queue.Body, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	return f.Store.NewBody(id)
}

// TestQueueFaults: what the queue cannot take is deferred in the session, and nothing is lost.
func TestQueueFaults(t *testing.T) {
	store := &full{Store: queue.NewMemory()}
	p := newPort(t, func(s *setup) { s.store = store })
	c, _ := p.from(goodHost)
	c.say("EHLO mx.good.example")
	// begin brings a transaction to DATA before the fault.
	begin := func() {
		c.say("MAIL FROM:<ann@good.example>")
		c.say("RCPT TO:<ada@here.example>")
		wants(t, "DATA", c.say("DATA"), "354")
	}
	large := plainText + strings.Repeat(strings.Repeat("x", 70)+"\n", 5000)
	for what, f := range map[string]struct {
		err        error
		text, want string
	}{
		"full at the end":    {queue.ErrFull, plainText, "452 4.3.1 no room for further messages"},
		"full on the way":    {queue.ErrFull, large, "452 4.3.1 no room"},
		"a fault of our own": {errDisk, plainText, "451 4.3.0 local error"},
		"and one on the way": {errDisk, large, "451 4.3.0 local error"},
		"stopped in between": {queue.ErrStopped, plainText, "421 4.3.2 shutting down"},
	} {
		begin()
		store.fail(f.err)
		wants(t, what, c.say("%s.", strings.ReplaceAll(f.text, "\n", "\r\n")), f.want)
		if f.want[:3] == "421" {
			c, _ = p.from(goodHost)
			c.say("EHLO mx.good.example")
		} else if f.err == queue.ErrFull {
			wants(t, what+", the next", c.say("MAIL FROM:<ann@good.example>"), "452 4.3.1")
		}
		store.fail(nil)
	}
	wants(t, "there is room again", c.send(letter{text: large}), "250 2.0.0")
	if got := p.last(); len(got.text) < len(large) {
		t.Errorf("%d octets of %d arrived", len(got.text), len(large))
	}
	if n := len(p.letters); n != 1 {
		t.Errorf("%d messages arrived", n)
	}
	wants(t, "broken", queueReply(fmt.Errorf("x: %w", queue.ErrBroken)).Error(), "421 4.3.0 storage has")
}

// TestThousands of recipients in one transaction, pipelined.
func TestThousands(t *testing.T) {
	p := newPort(t, func(s *setup) {
		s.RelayFrom = []netip.Prefix{netip.MustParsePrefix(bareHost + "/32")}
		s.server.MaxRecipients = 5000
	})
	var b strings.Builder
	b.WriteString("MAIL FROM:<app@here.example>\r\n")
	for i := range 5000 {
		fmt.Fprintf(&b, "RCPT TO:<user%d@there.example>\r\n", i)
	}
	b.WriteString("RCPT TO:<onemore@there.example>\r\nDATA\r\n")
	c, _ := p.from(bareHost)
	c.say("EHLO x")
	go c.write(b.String())
	for i := range 5001 {
		wants(t, "accepted "+fmt.Sprint(i), c.reply(), "250")
	}
	wants(t, "one more", c.reply(), "452 4.5.3")
	wants(t, "DATA", c.reply(), "354")
	c.write("Subject: x\r\n\r\n.\r\n")
	wants(t, "message", c.reply(), "250 2.0.0")
	if n := len(p.accepted()); n != 5000 {
		t.Errorf("accepted for %d", n)
	}
}

// TestRefusedRecipients: a dictionary attack ends, and its numbers are in the digest.
func TestRefusedRecipients(t *testing.T) {
	p := newPort(t, func(s *setup) { s.Limits.RefusedRate = Rate{3, time.Hour} })
	c, _ := p.from(bareHost)
	c.say("EHLO x")
	c.say("MAIL FROM:<a@bare.example>")
	for i := range 3 {
		wants(t, "unknown", c.say("RCPT TO:<user%d@here.example>", i), "550 5.1.1")
	}
	wants(t, "one too many", c.say("RCPT TO:<user9@here.example>"),
		"421 4.7.0 too many refused recipients from 203.0.113.7, try again in 20 minutes")
	wants(t, "and the connection ends", c.reply(), "EOF")
	if n := p.zone.Asked("", ""); n != 0 {
		t.Errorf("%d questions about who has no recipient", n)
	}
	ev, ok := p.in.digest.take(noon.Add(time.Hour))
	if want := "refused from 2026-11-22T12:00:00Z to 2026-11-22T13:00:00Z: " +
		"rcpt 421 4.7.0 x1, rcpt 550 5.1.1 x3"; !ok || ev.Note != want {
		t.Errorf("digest %q, want %q", ev.Note, want)
	}
}

func plain(user, pass string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + pass))
}

// TestFullMailbox: mail that has no room is refused in the session and not returned later, to whoever was
// named as its sender.
func TestFullMailbox(t *testing.T) {
	var room atomic.Int64
	p := newPort(t, func(s *setup) {
		s.Room = func(acc *account.Account, size int64) bool {
			return acc.Address.Local != "ada" || size <= room.Load()
		}
	})
	p.addAlias("team@here.example", "ada@here.example", "bob@here.example")
	const full = "452 4.2.2 <ada@here.example>: mailbox is full"
	for _, c := range []struct {
		name string
		room int64
		l    letter
		want string
	}{
		{"no room at all", 0, letter{}, full},
		{"less than MAIL announces", 100, letter{params: "SIZE=101"}, full},
		{"less than comes", 100, letter{}, full},
		{"to a sub-address", 0, letter{to: []string{"ada+x@here.example"}}, "452 4.2.2 <ada+x@here.example>: mailbox"},
		{"one of several has room", 0, letter{to: []string{"team@here.example"}}, "250"},
		{"another's", 0, letter{to: []string{"bob@here.example"}}, "250"},
		{"enough", 100_000, letter{params: "SIZE=200"}, "250"},
	} {
		room.Store(c.room)
		wants(t, c.name, p.send(c.l), c.want)
	}
}

// heavy is a Weigher who likes nothing.
type heavy struct{}

func (heavy) Weigh(context.Context, *Letter) []Reason {
	return []Reason{{Name: "heavy", Words: "as lead", Points: 20}}
}

// TestPostmasterHears: postmasters get what would be refused for its points; nobody else becomes one by what the
// client claims of the original recipient.
func TestPostmasterHears(t *testing.T) {
	p := newPort(t, func(s *setup) { s.Weighers = []Weigher{heavy{}} })
	const spam = "550 5.7.1 the message looks like spam: score="
	for _, c := range []struct {
		name string
		to   []string
		want string
	}{
		{"a mailbox", []string{"TO:<ada@here.example>"}, spam},
		{"the postmaster", []string{"TO:<postmaster>"}, "250"},
		{"abuse", []string{"TO:<Abuse@here.example>"}, "250"},
		{"both", []string{"TO:<postmaster>", "TO:<ada@here.example>"}, spam},
		{"a claim", []string{"TO:<ada@here.example> ORCPT=rfc822;postmaster@here.example"}, spam},
		{"an alias", []string{"TO:<sales@here.example>"}, spam},
	} {
		d, _ := p.from(goodHost)
		d.say("EHLO mx.good.example")
		d.say("MAIL FROM:<ann@good.example>")
		for _, to := range c.to {
			wants(t, c.name, d.say("RCPT %s", to), "250")
		}
		d.say("DATA")
		d.write(strings.ReplaceAll(plainText, "\n", "\r\n") + ".\r\n")
		wants(t, c.name, d.reply(), c.want)
		d.conn.Close()
	}
}

// TestLoopIsNotReturned: whoever writes Delivered-To into a message has it refused, and not returned to whom he
// names as its sender.
func TestLoopIsNotReturned(t *testing.T) {
	p := newPort(t, nil)
	text := "Delivered-To: Ada@here.example\n" + plainText
	wants(t, "alone", p.send(letter{text: text}), "554 5.4.6 mail loop: <ada@here.example> has had the message before")
	wants(t, "another's", p.send(letter{text: text, to: []string{"bob@here.example"}}), "250")
	p.last()
	got := p.take(letter{text: text, to: []string{"bob@here.example", "ada@here.example"}})
	for _, to := range got.env.Recipients {
		if silent := to.Notify == mail.NotifyNever; silent != (to.Address.Local == "ada") {
			t.Errorf("%s is to have reports: %v", to.Address, !silent)
		}
	}
}
