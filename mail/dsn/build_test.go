package dsn

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	netmail "net/mail"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/mail"
)

var arrived = time.Date(2026, 11, 20, 8, 30, 0, 0, time.FixedZone("", 3600))

const originalText = "Received: from client by mx.example.org for <ben@example.net>;\r\n" +
	"\tFri, 20 Nov 2026 08:30:00 +0100\r\n" +
	"Message-ID: <abc.1@example.org>\r\n" +
	"From: Ann <ann@example.org>\r\n" +
	"To: ben@example.net\r\n" +
	"Bcc: secret@example.com\r\n" +
	"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n" +
	"Date: Fri, 20 Nov 2026 08:29:59 +0100\r\n" +
	"\r\n" +
	"Hello Ben\r\n"

func addr(t testing.TB, s string) mail.Address {
	t.Helper()
	a, err := mail.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// report returns a report of a failure about ben@example.net, for tests to bend.
func report(t testing.TB) *Report {
	r := &Report{
		Host: "mx.example.org", Now: arrived.Add(time.Hour), Arrived: arrived,
		Envelope: mail.Envelope{From: addr(t, "ann@example.org"), EnvID: "QQ314159"},
		Recipients: []Recipient{{
			Recipient: mail.Recipient{Address: addr(t, "ben@example.net"), ORcpt: "rfc822;Ben@example.net"},
			Action:    Failed, Status: "5.1.1", Remote: "mx.example.net",
			Reply:       "550-5.1.1 no such user here\n550 5.1.1 see https://example.net/help",
			LastAttempt: arrived.Add(time.Hour),
		}},
	}
	r.setMessage(originalText)
	return r
}

func (r *Report) setMessage(s string) {
	r.Message, r.Size = strings.NewReader(s), int64(len(s))
}

// parts reads a built notification with the standard library's parser, not ours.
type parts struct {
	env    mail.Envelope
	raw    []byte
	header netmail.Header
	kinds  []string
	texts  []string
}

func build(t testing.TB, r *Report) parts {
	t.Helper()
	env, msg, err := r.Build()
	if err != nil {
		t.Fatal(err)
	}
	p := parts{env: env, raw: msg}
	m, err := netmail.ReadMessage(bytes.NewReader(msg))
	if err != nil {
		t.Fatalf("%v in\n%s", err, msg)
	}
	p.header = m.Header
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Fatalf("Content-Type %q: %v", m.Header.Get("Content-Type"), err)
	}
	for mr := multipart.NewReader(m.Body, params["boundary"]); ; {
		part, err := mr.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, msg)
		}
		b, err := io.ReadAll(part)
		if err != nil {
			t.Fatalf("%v in\n%s", err, msg)
		}
		kind, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type"))
		p.kinds, p.texts = append(p.kinds, kind), append(p.texts, string(b))
	}
	checkLines(t, msg)
	return p
}

// checkLines holds every report to RFC 5322, section 2.1.1, and RFC 5321, section 2.3.8.
func checkLines(t testing.TB, msg []byte) {
	t.Helper()
	for line := range bytes.SplitSeq(bytes.TrimSuffix(msg, []byte("\r\n")), []byte("\r\n")) {
		if len(line) > maxLine || bytes.ContainsAny(line, "\r\n\x00") {
			t.Errorf("line that must not leave: %.100q", line)
		}
	}
}

func TestReportOfFailure(t *testing.T) {
	p := build(t, report(t))
	want := []string{"text/plain", "message/delivery-status", "text/rfc822-headers"}
	if strings.Join(p.kinds, " ") != strings.Join(want, " ") {
		t.Fatalf("parts %q, want %q", p.kinds, want)
	}
	for name, want := range map[string]string{
		"From":           "Mail Delivery System <MAILER-DAEMON@mx.example.org>",
		"To":             "<ann@example.org>",
		"Auto-Submitted": "auto-replied",
		"In-Reply-To":    "<abc.1@example.org>",
		"References":     "<abc.1@example.org>",
		"Date":           "Fri, 20 Nov 2026 09:30:00 +0100",
		"Mime-Version":   "1.0",
	} {
		if got := p.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if id := p.header.Get("Message-Id"); messageID(id) == "" {
		t.Errorf("Message-ID %q is not one", id)
	}
	status := "Original-Envelope-Id: QQ314159\r\n" +
		"Reporting-MTA: dns; mx.example.org\r\n" +
		"Arrival-Date: Fri, 20 Nov 2026 08:30:00 +0100\r\n" +
		"\r\n" +
		"Original-Recipient: rfc822; Ben@example.net\r\n" +
		"Final-Recipient: rfc822; ben@example.net\r\n" +
		"Action: failed\r\n" +
		"Status: 5.1.1\r\n" +
		"Remote-MTA: dns; mx.example.net\r\n" +
		"Diagnostic-Code: smtp; 550-5.1.1 no such user here\r\n" +
		" 550 5.1.1 see https://example.net/help\r\n" +
		"Last-Attempt-Date: Fri, 20 Nov 2026 09:30:00 +0100\r\n"
	if p.texts[1] != status {
		t.Errorf("status part:\n%s\nwant:\n%s", p.texts[1], status)
	}
	for _, want := range []string{"ben@example.net", "The mailbox does not exist.", "Subject: Grüße",
		"The server mx.example.net said:", "550-5.1.1 no such user here\r\n"} {
		if !strings.Contains(p.texts[0], want) {
			t.Errorf("human part lacks %q:\n%s", want, p.texts[0])
		}
	}
	env := p.env
	if !env.From.IsNull() || len(env.Recipients) != 1 || env.SMTPUTF8 || env.Body != "" ||
		env.Recipients[0].Address != addr(t, "ann@example.org") ||
		env.Recipients[0].Notify != mail.NotifyNever {
		t.Errorf("envelope %+v", env)
	}
}

// TestOurWords: what we say about a server is not put into its mouth.
func TestOurWords(t *testing.T) {
	r := report(t)
	to := &r.Recipients[0]
	to.Ours, to.Status = true, "5.4.7"
	to.Reply = "451 4.4.1 mx.example.net [192.0.2.1]: connection refused"
	p := build(t, r)
	if !strings.Contains(p.texts[1], "Remote-MTA: dns; mx.example.net\r\n"+
		"Diagnostic-Code: X-Tallypost; 451 4.4.1 mx.example.net [192.0.2.1]:\r\n connection refused\r\n") {
		t.Errorf("status part:\n%s", p.texts[1])
	}
	if !strings.Contains(p.texts[0], "While talking to mx.example.net:") || strings.Contains(p.texts[0], "said:") {
		t.Errorf("human part:\n%s", p.texts[0])
	}
}

func TestNoReportAboutNullPath(t *testing.T) {
	r := report(t)
	r.Envelope.From = mail.Address{}
	if _, _, err := r.Build(); !errors.Is(err, ErrNullPath) {
		t.Errorf("error %v, want ErrNullPath", err)
	}
}

func TestNothingToReport(t *testing.T) {
	for name, bend := range map[string]func(*Report){
		"no host":        func(r *Report) { r.Host = "" },
		"no recipients":  func(r *Report) { r.Recipients = nil },
		"no action":      func(r *Report) { r.Recipients[0].Action = "" },
		"unknown action": func(r *Report) { r.Recipients[0].Action = "bounced\r\nX: y" },
	} {
		r := report(t)
		bend(r)
		if _, msg, err := r.Build(); err == nil {
			t.Errorf("%s: built\n%s", name, msg)
		}
	}
}

// TestDue is RFC 3461, section 5.2.
func TestDue(t *testing.T) {
	for _, c := range []struct {
		a    Action
		n    mail.Notify
		want bool
	}{
		{Failed, 0, true}, {Delayed, 0, true}, {Delivered, 0, false}, {Relayed, 0, false},
		{Failed, mail.NotifyNever, false}, {Delayed, mail.NotifyNever, false},
		{Failed, mail.NotifySuccess, false}, {Delivered, mail.NotifySuccess, true},
		{Relayed, mail.NotifySuccess, true}, {Expanded, mail.NotifySuccess, true},
		{Delayed, mail.NotifyFailure, false}, {Delayed, mail.NotifyDelay, true}, {"odd", 0, false},
	} {
		if got := Due(c.a, c.n); got != c.want {
			t.Errorf("Due(%s, %b) = %v", c.a, c.n, got)
		}
	}
}

// TestRecipientsStayApart: a report about one recipient names no other, whatever the trace fields
// say.
func TestRecipientsStayApart(t *testing.T) {
	r := report(t)
	r.Envelope.Recipients = []mail.Recipient{{Address: addr(t, "secret@example.com")}}
	r.Envelope.Ret = mail.RetFull
	r.setMessage("Received: by a for <secret@example.com>; today\r\n" +
		"Received: from b\r\n\tFOR secret@example.com\r\n\tfor <ben@example.net>; today\r\n" +
		"Delivered-To: secret@example.com\r\nbcc: secret@example.com\r\n" +
		"X-Original-To: secret@example.com\r\nTo: ben@example.net\r\n\r\nHello\r\n")
	p := build(t, r)
	if bytes.Contains(p.raw, []byte("secret")) {
		t.Errorf("the other recipient is named:\n%s", p.raw)
	}
	want := "Received: by a for <hidden>; today\r\n" +
		"Received: from b\r\n\tFOR <hidden>\r\n\tfor <ben@example.net>; today\r\n" +
		"To: ben@example.net\r\n\r\nHello\r\n"
	if p.kinds[2] != "message/rfc822" || p.texts[2] != want {
		t.Errorf("returned %s:\n%s\nwant:\n%s", p.kinds[2], p.texts[2], want)
	}
}

// TestReturnedPart: what comes back, by RET, size, content and extensions.
func TestReturnedPart(t *testing.T) {
	eight := "From: a\r\n\r\ngr\xfc\xdfe\r\n"
	for _, c := range []struct {
		name, text, kind string
		bend             func(*Report)
		body             mail.BodyType
	}{
		{"RET=HDRS", originalText, "text/rfc822-headers", func(r *Report) { r.Envelope.Ret = mail.RetHeaders }, ""},
		{"RET=FULL", originalText, "message/rfc822", nil, ""},
		{"too large", originalText, "text/rfc822-headers", func(r *Report) { r.MaxReturn = 100 }, ""},
		{"delay", originalText, "text/rfc822-headers",
			func(r *Report) { r.Recipients[0].Action = Delayed }, ""},
		{"REQUIRETLS", originalText, "text/rfc822-headers",
			func(r *Report) { r.Envelope.RequireTLS = true }, ""},
		{"8-bit body", eight, "message/rfc822", nil, mail.Body8BitMIME},
		{"8-bit header", "Subject: gr\xc3\xbc\r\n\r\nx\r\n", "text/rfc822-headers", nil, ""},
		{"8-bit header of SMTPUTF8", "Subject: gr\xc3\xbc\r\n\r\nx\r\n", "message/global",
			func(r *Report) { r.Envelope.SMTPUTF8 = true }, mail.Body8BitMIME},
		{"global header only", "Subject: gr\xc3\xbc\r\n\r\nx\r\n", "message/global-headers",
			func(r *Report) { r.Envelope.SMTPUTF8, r.Envelope.Ret = true, mail.RetHeaders }, ""},
		{"NUL", "From: a\r\n\r\na\x00b\r\n", "text/rfc822-headers", nil, ""},
		{"bare LF", "From: a\r\n\r\na\nb\r\n", "text/rfc822-headers", nil, ""},
		{"bare CR", "From: a\r\n\r\na\rb\r\n", "text/rfc822-headers", nil, ""},
		{"long line", "From: a\r\n\r\n" + strings.Repeat("x", 999) + "\r\n", "text/rfc822-headers", nil, ""},
		{"long header line", "From: a\r\nX: " + strings.Repeat("x", 999) + "\r\n\r\n", "text/rfc822-headers",
			nil, ""},
		{"broken header", "From: a\r\nno field\r\n\r\nx", "text/rfc822-headers", nil, ""},
		{"empty message", "", "message/rfc822", nil, ""},
		{"no line end", "From: a\r\n\r\nx", "message/rfc822", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := report(t)
			r.Envelope.Ret = mail.RetFull
			r.setMessage(c.text)
			if c.bend != nil {
				c.bend(r)
			}
			p := build(t, r)
			if len(p.kinds) != 3 || p.kinds[2] != c.kind {
				t.Errorf("parts %q, want a third of %s", p.kinds, c.kind)
			}
			if p.env.Body != c.body || p.env.RequireTLS != r.Envelope.RequireTLS {
				t.Errorf("envelope %+v, want body %q", p.env, c.body)
			}
		})
	}
}

func TestHeaderLongerThanReturned(t *testing.T) {
	r := report(t)
	r.setMessage("From: a\r\nX: 1\r\nY: " + strings.Repeat("y\r\n ", maxHeader/4) + "\r\n\r\nbody")
	if p := build(t, r); p.texts[2] != "From: a\r\nX: 1\r\n" {
		t.Errorf("returned %.200q", p.texts[2])
	}
}

func TestUnreadableMessage(t *testing.T) {
	r := report(t)
	r.Size++ // the store lost an octet
	r.Envelope.Ret = mail.RetFull
	if _, _, err := r.Build(); err == nil {
		t.Error("no error although the message is shorter than its size")
	}
	r.Message = nil
	if p := build(t, r); len(p.kinds) != 2 {
		t.Errorf("parts %q, want two where there is no message", p.kinds)
	}
}

// TestInternationalReport is RFC 6533.
func TestInternationalReport(t *testing.T) {
	r := report(t)
	r.Envelope.SMTPUTF8 = true
	r.Recipients[0].Address = addr(t, "δοκιμή@παράδειγμα.example")
	r.Recipients[0].ORcpt = "utf-8;δοκιμή@παράδειγμα.example"
	p := build(t, r)
	if p.kinds[1] != "message/global-delivery-status" || !p.env.SMTPUTF8 ||
		p.env.Body != mail.Body8BitMIME {
		t.Errorf("parts %q, envelope %+v", p.kinds, p.env)
	}
	if want := "Final-Recipient: utf-8; δοκιμή@παράδειγμα.example\r\n"; !strings.Contains(p.texts[1], want) {
		t.Errorf("no %q in\n%s", want, p.texts[1])
	}

	r.Envelope.SMTPUTF8 = false // a legacy sender: all of it in ASCII
	p = build(t, r)
	if p.kinds[1] != "message/delivery-status" || p.env.SMTPUTF8 || !ascii(p.raw) {
		t.Errorf("parts %q, envelope %+v, in\n%s", p.kinds, p.env, p.raw)
	}
	want := `Final-Recipient: utf-8;
 \x{3B4}\x{3BF}\x{3BA}\x{3B9}\x{3BC}\x{3AE}@xn--hxajbheg2az3al.example`
	if !strings.Contains(strings.ReplaceAll(p.texts[1], "\r\n", "\n"), want) {
		t.Errorf("no %q in\n%s", want, p.texts[1])
	}
}

// TestInjection: whatever strangers chose, the report has the same fields and parts.
func TestInjection(t *testing.T) {
	evil := "x\r\nBcc: victim@example.com\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<script>\x00\x1b[2J\u202e" +
		strings.Repeat("long", 600) + "\r.\n.\n\xff"
	r := report(t)
	r.Envelope.EnvID = evil
	r.Envelope.Ret = mail.RetFull
	r.Contact = evil
	rcpt := &r.Recipients[0]
	rcpt.ORcpt, rcpt.Reply, rcpt.Remote = "rfc822;"+evil, "550 "+evil, evil
	rcpt.Status = "5.1.1\r\nX: y"
	r.Recipients = append(r.Recipients, Recipient{
		Recipient: mail.Recipient{Address: addr(t, "cy@example.net"), ORcpt: "evil type" + evil},
		Action:    Failed, Status: "2.0.0", Reply: evil,
	})
	r.setMessage("Message-ID: <a@b>" + strings.Repeat("z", 2000) + "\r\nSubject: =?utf-8?q?a=0D=0ABcc:_v?=\r\n" +
		"Date: a\rb\r\nReceived: for\xc4\xb0\r\n\r\nbody\r\n")
	p := build(t, r)
	if len(p.kinds) != 3 {
		t.Fatalf("parts %q", p.kinds)
	}
	if p.header.Get("Bcc") != "" || p.header.Get("References") != "" {
		t.Errorf("header %v", p.header)
	}
	if bytes.ContainsAny(p.raw, "\x00\x1b") || bytes.Contains(p.raw, []byte("\u202e")) {
		t.Error("controls in the report")
	}
	var names []string
	for line := range strings.SplitSeq(p.texts[1], "\r\n") {
		if line != "" && line[0] != ' ' {
			name, _, _ := strings.Cut(line, ":")
			names = append(names, name)
		} else if line != "" && strings.TrimSpace(line) == "" {
			t.Errorf("line of white space alone: %q", line)
		}
	}
	want := "Original-Envelope-Id Reporting-MTA Arrival-Date " +
		"Original-Recipient Final-Recipient Action Status Remote-MTA Diagnostic-Code Last-Attempt-Date " +
		"Final-Recipient Action Status Diagnostic-Code"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("fields %s\nwant   %s\nin\n%s", got, want, p.texts[1])
	}
	if n := strings.Count(p.texts[1], "Status: 5.0.0\r\n"); n != 2 {
		t.Errorf("%d general codes for two bad ones", n)
	}
}

// TestActionsTogether: one report may hold every action; each status fits its action.
func TestActionsTogether(t *testing.T) {
	r := report(t)
	base := r.Recipients[0]
	r.Recipients = nil
	for _, c := range []struct {
		a              Action
		status, expect string
	}{
		{Failed, "4.4.7", "4.4.7"}, {Delayed, "4.4.1", "4.4.1"}, {Delayed, "5.1.1", "4.0.0"},
		{Delivered, "2.1.5", "2.1.5"}, {Relayed, "5.0.0", "2.0.0"}, {Expanded, "", "2.0.0"},
		{Failed, "5.1", "5.0.0"}, {Failed, "5.1000.1", "5.0.0"}, {Failed, "5.x.1", "5.0.0"},
	} {
		rcpt := base
		rcpt.Action, rcpt.Status, rcpt.RetryUntil = c.a, c.status, arrived.Add(120*time.Hour)
		if got := rcpt.status(); got != c.expect {
			t.Errorf("status %q of %s: %q, want %q", c.status, c.a, got, c.expect)
		}
		r.Recipients = append(r.Recipients, rcpt)
	}
	p := build(t, r)
	if n := strings.Count(p.texts[1], "Will-Retry-Until: Wed, 25 Nov 2026 08:30:00 +0100"); n != 2 {
		t.Errorf("%d times Will-Retry-Until, want 2:\n%s", n, p.texts[1])
	}
	for _, title := range sectionTitle {
		if strings.Count(p.texts[0], title) != 1 {
			t.Errorf("human part has not once %q", title)
		}
	}
	for i, want := range []string{"could not be delivered", "delayed", "passed on", "delivered"} {
		r.Recipients = []Recipient{{Action: []Action{Failed, Delayed, Relayed, Delivered}[i]}}
		if got := r.subject(); !strings.Contains(got, want) {
			t.Errorf("subject %q, want %q in it", got, want)
		}
	}
}

// TestOwnWords: what no SMTP server said is not given out as smtp (RFC 3464, section 2.3.6).
func TestOwnWords(t *testing.T) {
	for _, c := range []struct{ remote, reply, want string }{
		{"mx.example.net", "550 no", "smtp; 550 no"},
		{"mx.example.net", "connection reset", "X-Tallypost; connection reset"},
		{"", "550 no", "X-Tallypost; 550 no"},
		{"mx.example.net", "5500", "X-Tallypost; 5500"},
		{"mx.example.net", "450", "smtp; 450"},
	} {
		r := report(t)
		r.Recipients[0].Remote, r.Recipients[0].Reply = c.remote, c.reply
		if p := build(t, r); !strings.Contains(p.texts[1], "Diagnostic-Code: "+c.want+"\r\n") {
			t.Errorf("%q from %q: no %q in\n%s", c.reply, c.remote, c.want, p.texts[1])
		}
	}
}

func BenchmarkBuild(b *testing.B) {
	r := report(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := r.Build(); err != nil {
			b.Fatal(err)
		}
	}
}
