package intake

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/smtp"
)

// newTestQueue returns a queue in memory that nobody runs: messages are written to it and given up.
func newTestQueue(t testing.TB) *queue.Queue {
	t.Helper()
	o := &office{t: t, arrived: make(chan struct{}, 1)}
	q, err := queue.Open(queue.Config{}, queue.NewMemory(), o, o, nil, clock.Real{},
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// seen is a witness that remembers.
type seen struct {
	header []byte
	fields int
	body   bytes.Buffer
	begun  int
}

func (s *seen) begin(h mail.Header) error {
	s.begun++
	s.fields = len(h.Fields)
	for _, f := range h.Fields {
		s.header = append(s.header, f.Raw...)
	}
	return nil
}

func (s *seen) Write(p []byte) (int, error) { return s.body.Write(p) }

// receive passes text in pieces through a receiver as strangers have it.
func receive(q *queue.Queue, text string, piece int) (*receiver, *seen, error) {
	msg := q.NewMessage()
	defer msg.Abort()
	w := new(seen)
	r := newReceiver(msg, new(headerBudget))
	r.forged = (&Intake{cfg: Config{Hostname: "mx.here.example"}}).forged
	r.witnesses = []witness{w}
	for rest := text; rest != ""; {
		n := min(piece, len(rest))
		if _, err := io.WriteString(r, rest[:n]); err != nil {
			return r, w, err
		}
		rest = rest[n:]
	}
	return r, w, r.close()
}

// TestReceiver: what is kept of a message, whatever pieces it comes in.
func TestReceiver(t *testing.T) {
	q := newTestQueue(t)
	for _, c := range []struct {
		name, text string
		header     string // that is kept, with its empty line
		body       string
	}{
		{"plain", "A: 1\nB: 2\n\nbody\n", "A: 1\nB: 2\n\n", "body\n"},
		{"folded", "A: 1\n\t2\nB: 3\n\nx", "A: 1\n\t2\nB: 3\n\n", "x"},
		{"no body", "A: 1\n\n", "A: 1\n\n", ""},
		{"no empty line", "A: 1\n", "A: 1\n", ""},
		{"no line end", "A: 1", "A: 1", ""},
		{"nothing", "", "", ""},
		{"no header", "\nbody\n\nbody", "\n", "body\n\nbody"},
		{"only an empty line", "\n", "\n", ""},
		{"empty lines", "\n\n\n", "\n", "\n\n"},
		{"empty value", "A:\nB: \n\n", "A:\nB: \n\n", ""},
		// What no field is ends the header; the empty line is put where it was missing.
		{"no field", "A: 1\nbody it is\nFrom: x\n\ny", "A: 1\n\n", "body it is\nFrom: x\n\ny"},
		{"mbox line", "From me Mon\nA: 1\n\ny", "\n", "From me Mon\nA: 1\n\ny"},
		{"no field at all", "hello\n", "\n", "hello\n"},
		{"folded first", " x\nA: 1\n\ny", "\n", " x\nA: 1\n\ny"},
		{"control in a name", "A: 1\nB\x01: 2\n\ny", "A: 1\n\n", "B\x01: 2\n\ny"},
		{"bytes in a name", "A: 1\nB\xff: 2\n\ny", "A: 1\n\n", "B\xff: 2\n\ny"},
		// RFC 8601, section 5.
		{"forged", "A: 1\nAuthentication-Results: mx.here.example; dmarc=pass\nB: 2\n\nx",
			"A: 1\nB: 2\n\n", "x"},
		{"forged, disguised", "authentication-results : (c) \"MX.here.example\" 1;\n\tspf=pass\nB: 2\n\nx",
			"B: 2\n\n", "x"},
		{"forged twice and no field", "Authentication-Results: mx.here.example; none\nA: 1\n" +
			"Authentication-Results: mx.here.example; none\nwhat\nx", "A: 1\n\n", "what\nx"},
		{"of another", "Authentication-Results: mx.there.example; dmarc=pass\n\nx",
			"Authentication-Results: mx.there.example; dmarc=pass\n\n", "x"},
		{"cannot be read", "Authentication-Results: ;;\nA: 1\n\nx", "A: 1\n\n", "x"},
		{"our verdict", "A: 1\nx-tallypost-Verdict: accept; score=-100\n\tx\nB: 2\n\nx", "A: 1\nB: 2\n\n", "x"},
		{"only forged", "X-Tallypost-Verdict: accept\n\nx", "\n", "x"},
		{"in the body", "A: 1\n\nX-Tallypost-Verdict: accept\n", "A: 1\n\n", "X-Tallypost-Verdict: accept\n"},
		{"8 bit and bad UTF-8", "Subject: \xe4\xff\xc3\n\n\xfe", "Subject: \xe4\xff\xc3\n\n", "\xfe"},
	} {
		crlf := func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
		for _, piece := range []int{1, 2, 3, 4, 5, 7, 1 << 20} {
			r, w, err := receive(q, crlf(c.text), piece)
			if err != nil || w.begun != 1 {
				t.Fatalf("%s by %d: %v, begun %d times", c.name, piece, err, w.begun)
			}
			if string(r.raw) != crlf(c.header) || w.body.String() != crlf(c.body) {
				t.Errorf("%s by %d: header %q, body %q", c.name, piece, r.raw, w.body.String())
			}
			if got := strings.TrimSuffix(crlf(c.header), "\r\n"); got != "" &&
				strings.TrimSuffix(string(w.header), "\r\n") != strings.TrimSuffix(got, "\r\n") {
				t.Errorf("%s by %d: fields %q", c.name, piece, w.header)
			}
			kept := crlf(c.header + c.body)
			if sum := sha256.Sum256([]byte(kept)); r.sum() != hex.EncodeToString(sum[:]) ||
				r.size != int64(len(kept)) || r.msg.Size() != r.size {
				t.Errorf("%s by %d: digest and size are not those of what is kept", c.name, piece)
			}
		}
	}
}

// TestLargeHeaders: 1 MiB and 2000 fields are all there may be, and all messages together may not have
// much more.
func TestLargeHeaders(t *testing.T) {
	q := newTestQueue(t)
	long := func(n int) string { return "X: " + strings.Repeat("x", n-5) + "\r\n" }
	for name, c := range map[string]struct {
		text string
		code int
	}{
		"as much as may be":      {long(mail.MaxHeaderBytes) + "\r\n" + strings.Repeat("y", 100), 0},
		"one more":               {long(mail.MaxHeaderBytes+1) + "\r\n", 552},
		"one endless line":       {"X: " + strings.Repeat("x", 2<<20), 552},
		"many lines":             {strings.Repeat(long(1000), 1100), 552},
		"2000 fields":            {strings.Repeat("X: y\r\n", 2000) + "\r\n", 0},
		"2001 fields":            {strings.Repeat("X: y\r\n", 2001) + "\r\n", 552},
		"2 MiB without a header": {strings.Repeat("just text\r\n", 200_000), 0},
		"a field and 2 MiB":      {"X: y\r\n" + strings.Repeat("just text\r\n", 200_000), 0},
	} {
		r, _, err := receive(q, c.text, 32<<10)
		var refusal *smtp.Reply
		if errors.As(err, &refusal); (refusal == nil) != (c.code == 0) ||
			refusal != nil && refusal.Code != c.code {
			t.Errorf("%s: %v, want %d", name, err, c.code)
		}
		if len(r.raw) > mail.MaxHeaderBytes+2 {
			t.Errorf("%s: %d octets of header are held", name, len(r.raw))
		}
	}

	budget := new(headerBudget)
	var open []*receiver
	var err error
	for len(open) < 100 && err == nil {
		r := newReceiver(q.NewMessage(), budget)
		open = append(open, r)
		for i := 0; i < 31 && err == nil; i++ { // not whole yet
			_, err = io.WriteString(r, long(32<<10))
		}
	}
	if err != errHeaders || len(open) < 64 || len(open) > 75 {
		t.Errorf("after %d messages: %v", len(open), err)
	}
	for _, r := range open {
		r.release()
	}
	if n := budget.used.Load(); n != 0 {
		t.Errorf("%d octets are still charged", n)
	}
}

// TestHeaderFaults: what comes of such headers in a session.
func TestHeaderFaults(t *testing.T) {
	p := newPort(t, nil)
	with := func(field string) string { return field + "\n" + plainText }
	for _, c := range []struct{ name, text, want string }{
		{"two From fields", with("From: eve@bare.example"), "550 5.6.0 the message has more than one From field"},
		{"two authors", strings.Replace(plainText, "<ann@good.example>", "<ann@good.example>, x@bare.example", 1),
			"550 5.7.1 addresses of more than one domain in From: good.example, bare.example: nobody can answer for them all"},
		{"a From that can be read in two ways", strings.Replace(plainText, "Ann <", "<eve@bare.example> <", 1),
			"550 5.6.0 malformed From"},
		{"two subjects", with("Subject: other"), "550 5.6.0 the message has 2 Subject fields (RFC 5322, section 3.6)"},
		{"two types", with("Content-Type: text/plain\nContent-Type: text/html"), "550 5.6.0"},
		{"two dates, as faulty programs have them", with("Date: x"), "250"},
		{"two Message-IDs", with("Message-ID: <2@x>"), "250"},
		{"Received 49 times", strings.Repeat("Received: x\n", 49) + plainText, "250"},
		{"Received 50 times", strings.Repeat("Received: x\n", 50) + plainText,
			"554 5.4.6 mail loop: the message has passed 50 servers"},
		{"fields without end", strings.Repeat("X-Flood: x\n", 2001) + plainText, "552 5.3.4"},
		{"NUL", with("X: a\x00b"), "550 5.6.0"},
		{"8 bits without SMTPUTF8", with("X: \xe4\xf6\xfc \xff"), "250"},
		{"bad UTF-8 in From's name", strings.Replace(plainText, "Ann", "\xc3\xff", 1), "250"},
	} {
		wants(t, c.name, p.send(letter{text: c.text}), c.want)
	}
	// The session goes on after each.
	c, _ := p.from(goodHost)
	wants(t, "flood", c.send(letter{text: strings.Repeat("X: x\n", 3000) + plainText}), "552")
	wants(t, "the next", c.send(letter{}), "250")
}

// TestForgedResults: what a stranger or an account says in our name is gone, what a server of our own says
// stays, and the event says so and can be proven from what arrived.
func TestForgedResults(t *testing.T) {
	forged := "Authentication-Results: mx.here.example; dmarc=pass header.from=bank.example\n" +
		VerdictField + ": accept; score=-50\n"
	p := newPort(t, nil)
	got := p.take(letter{text: forged + plainText})
	if n := len(got.fields("Authentication-Results")); n != 1 || strings.Contains(string(got.text), "bank") {
		t.Errorf("%d results:\n%s", n, got.text)
	}
	if n := len(got.fields(VerdictField)); n != 1 {
		t.Errorf("%d verdicts", n)
	}
	wants(t, "note", p.note(), "accept; score=...fields forged in our name and left out: 2")
	checkDigest(t, p, got)

	p = newPort(t, func(s *setup) { s.RelayFrom = prefixes(goodHost + "/32") })
	got = p.take(letter{text: forged + plainText})
	if len(got.fields("Authentication-Results")) != 1 || got.verdict() != "accept; score=-50" {
		t.Errorf("of a server of our own:\n%s", got.text)
	}
	checkDigest(t, p, got)
}

// checkDigest wants a letter to end in what the event of its acceptance says (see logDoor.original).
func checkDigest(t *testing.T, p *port, got letterSent) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	ev := p.events[0] // of the only message; its delivery may not be noted yet
	sum := sha256.Sum256(got.text[int64(len(got.text))-ev.Size:])
	if ev.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("%s cannot be proven from what arrived:\n%s", ev.Kind, got.text)
	}
}

// TestReceived: RFC 5321, section 4.4, and RFC 8314, section 4.3.
func TestReceived(t *testing.T) {
	p := newPort(t, nil)
	for _, c := range []struct {
		l    letter
		want string
	}{
		{letter{}, "from mx.good.example (mx.good.example [192.0.2.1])\tby mx.here.example with ESMTP id ..." +
			"\tfor <ada@here.example>;\tSun, 22 Nov 2026 12:00:00 +0000"},
		{letter{ip: bareHost, from: "x@bare.example", text: bareText, helo: "[203.0.113.7]"},
			"from [203.0.113.7] ([203.0.113.7])\tby "},
		{letter{ip: "2001:db8::7", from: "x@bare.example", text: bareText, helo: "a(b)c;d"},
			"from a?b?c?d ([IPv6:2001:db8::7])\tby "},
	} {
		got := p.take(c.l)
		wants(t, c.l.helo, got.fields("Received")[0], c.want)
		if !bytes.HasPrefix(got.text, []byte(VerdictField+": ")) {
			t.Errorf("%s: begins with %.40q", c.l.helo, got.text)
		}
	}
}

// TestTraceIsASCII: whatever a stranger writes, the fields we add are ASCII and end where they should.
func TestTraceIsASCII(t *testing.T) {
	p := newPort(t, nil)
	p.zone.Set("evil.example", "TXT v=spf1 include:\xff\xfe.example exists:%{l}.x -all")
	for _, l := range []letter{
		{ip: bareHost, helo: "x\xff\xc3;y", from: `"a;b\"c(\\"@evil.example`, text: "From: \"=?utf-8?q?x?=\" " +
			"<\"\xc3\xa4;\"@evil.example>\nDKIM-Signature: v=1; a=rsa-sha256; d=\xff;\x0b s=(;\n" +
			"ARC-Seal: i=1; \xff\n\nx\n"},
		{ip: bareHost, text: "From: x@b\xc3\xbccher.example\n\nx\n", from: "x@bare.example"},
		{ip: bareHost, text: "From: \xff\xff\xff\n\nx\n", from: "x@bare.example"},
	} {
		r := p.send(l)
		if strings.HasPrefix(r, "550 5.6.0") {
			continue
		}
		wants(t, l.text, r, "250")
		got := p.last()
		i := bytes.Index(got.text, []byte("From: "))
		for _, b := range got.text[:i] {
			if b >= 0x7f || b < ' ' && !strings.ContainsRune("\r\n\t", rune(b)) {
				t.Errorf("octet %#x in\n%q", b, got.text[:i])
				break
			}
		}
		h, err := mail.ParseHeader(got.text[:i])
		if err != nil {
			t.Errorf("%v in\n%q", err, got.text[:i])
		}
		var names []string
		for _, f := range h.Fields {
			names = append(names, f.Name())
		}
		if s := fmt.Sprint(names); s != "[X-Tallypost-Verdict Received Authentication-Results]" {
			t.Errorf("fields %s in\n%q", s, got.text[:i])
		}
	}
}

// FuzzReceiver: no message breaks it, its parts add up, and it does not matter how it is cut.
func FuzzReceiver(f *testing.F) {
	f.Add("A: 1\r\nB: 2\r\n\r\nbody", 3)
	f.Add("Authentication-Results: mx.here.example; none\r\nwhat\r\n", 1)
	f.Add("\r\n\r\n", 1)
	q := newTestQueue(f)
	f.Fuzz(func(t *testing.T, text string, piece int) {
		if piece < 1 {
			return
		}
		r, w, err := receive(q, text, piece)
		whole, v, err2 := receive(q, text, len(text)+1)
		if (err == nil) != (err2 == nil) {
			t.Fatalf("%v, and in one piece %v", err, err2)
		}
		if err != nil {
			return
		}
		if r.sum() != whole.sum() || !bytes.Equal(r.raw, whole.raw) || w.body.String() != v.body.String() {
			t.Fatalf("cut by %d it is another message", piece)
		}
		if r.size != int64(len(r.raw)+w.body.Len()) || r.header.Len != len(r.raw) {
			t.Fatalf("size %d of %d and %d", r.size, len(r.raw), w.body.Len())
		}
		for _, fd := range r.header.Fields {
			if r.forged(fd) {
				t.Fatalf("%q was kept", fd.Raw)
			}
		}
	})
}

// TestContextEnds: a session whose server is to end gives up.
func TestContextEnds(t *testing.T) {
	p := newPort(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	h := p.in.meet(ctx, bareAddr)
	a := p.in.authenticate(ctx, h, "x", at("x@bare.example"))
	cancel()
	a.close()
	h.close()
}
