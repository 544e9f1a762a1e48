package smtp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// greets is the beginning of a server's script with these extensions.
func greets(extensions ...string) string {
	script := "s: 220 mx.example.com hello\nc: EHLO client.example.org\n"
	lines := append([]string{"mx.example.com"}, extensions...)
	for i, e := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		script += "s: 250" + sep + e + "\n"
	}
	return script
}

// client says hello to a server that follows the script.
func client(t *testing.T, cfg ClientConfig, script string) *Client {
	t.Helper()
	cfg.Hello = "client.example.org"
	c := NewClient(scripted(t, script), cfg)
	t.Cleanup(func() { c.Close() })
	if err := c.Hello(background(t)); err != nil {
		t.Fatal(err)
	}
	return c
}

// outcome writes results in short: "AtRcpt 550" and so on.
func outcome(results []Result) string {
	var b strings.Builder
	for i, r := range results {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString([]string{"-", "mail ", "rcpt ", "data "}[r.Stage])
		if r.Unsure {
			b.WriteString("?")
		}
		if r.Stage != NotSent {
			b.WriteString(strings.ReplaceAll(r.Reply.String(), "\n", "/"))
		}
	}
	return b.String()
}

// TestSendDialogue has the server's side of transactions.
func TestSendDialogue(t *testing.T) {
	const pipelined = `c> "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nRCPT TO:<c@example.com>\r\nDATA\r\n"
		`
	for _, tt := range []struct {
		name, script string
		want         string // outcome
		fails        bool   // with an error, too
		reusable     bool
	}{
		{"RFC 2920 one group", greets("PIPELINING") + pipelined + `
			s: 250 OK
			s: 250 OK
			s: 450-4.2.0 mailbox
			s: 450 4.2.0 busy
			s: 354 go on
			c> "Subject: x\r\n\r\n..dot\r\n.\r\n"
			s: 250 2.0.0 taken`,
			"data 250 2.0.0 taken, rcpt 450-4.2.0 mailbox/450 4.2.0 busy", false, true},
		{"RFC 2920 no recipient and 354 all the same", greets("PIPELINING") + pipelined + `
			s: 250 OK
			s: 550 no
			s: 551 no
			s: 354 go on
			c> ".\r\n"
			s: 554 no recipients`,
			"rcpt 550 no, rcpt 551 no", false, true},
		{"RFC 2920 no recipient", greets("PIPELINING") + pipelined + `
			s: 250 OK
			s: 550 no
			s: 551 no
			s: 554 no valid recipients`,
			"rcpt 550 no, rcpt 551 no", false, true},
		{"MAIL refused in a group", greets("PIPELINING") + pipelined + `
			s: 550-5.7.1 go
			s: 550 5.7.1 away
			s: 503 no
			s: 503 no
			s: 503 no`,
			"mail 550-5.7.1 go/550 5.7.1 away, mail 550-5.7.1 go/550 5.7.1 away", false, true},
		{"DATA refused", greets("PIPELINING") + pipelined + `
			s: 250 OK
			s: 250 OK
			s: 250 OK
			s: 451 4.3.1 disk full`,
			"data 451 4.3.1 disk full, data 451 4.3.1 disk full", false, true},
		{"one by one", greets("SIZE 1000") + `
			c: MAIL FROM:<a@example.org> SIZE=20
			s: 250 OK
			c: RCPT TO:<b@example.com>
			s: 250 OK
			c: RCPT TO:<c@example.com>
			s: 550 no
			c: DATA
			s: 354 go on
			c> "Subject: x\r\n\r\n..dot\r\n.\r\n"
			s: 250 taken`,
			"data 250 taken, rcpt 550 no", false, true},
		{"one by one, MAIL refused", greets() + `
			c: MAIL FROM:<a@example.org>
			s: 421 too busy`,
			"mail 421 too busy, mail 421 too busy", false, false},
		{"one by one, all recipients refused", greets() + `
			c: MAIL FROM:<a@example.org>
			s: 250 OK
			c: RCPT TO:<b@example.com>
			s: 550 no
			c: RCPT TO:<c@example.com>
			s: 551 no`,
			"rcpt 550 no, rcpt 551 no", false, true},
		{"RFC 3030 one group with the message", greets("PIPELINING", "CHUNKING") + `
			c> "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nRCPT TO:<c@example.com>\r\nBDAT 20 LAST\r\nSubject: x\r\n\r\n.dot\r\n"
			s: 250 OK
			s: 250 OK
			s: 550 no
			s: 250 taken`,
			"data 250 taken, rcpt 550 no", false, true},
		{"RFC 3030 no recipient", greets("PIPELINING", "CHUNKING") + `
			c> "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nRCPT TO:<c@example.com>\r\nBDAT 20 LAST\r\nSubject: x\r\n\r\n.dot\r\n"
			s: 250 OK
			s: 550 no
			s: 550 no
			s: 554 no recipients`,
			"rcpt 550 no, rcpt 550 no", false, true},
		{"RFC 3030 without pipelining", greets("CHUNKING") + `
			c: MAIL FROM:<a@example.org>
			s: 250 OK
			c: RCPT TO:<b@example.com>
			s: 250 OK
			c: RCPT TO:<c@example.com>
			s: 250 OK
			c> "BDAT 20 LAST\r\nSubject: x\r\n\r\n.dot\r\n"
			s: 554 5.7.1 spam`,
			"data 554 5.7.1 spam, data 554 5.7.1 spam", false, true},
		{"421 in between", greets() + `
			c: MAIL FROM:<a@example.org>
			s: 250 OK
			c: RCPT TO:<b@example.com>
			s: 421 4.3.2 shutting down`,
			"rcpt 421 4.3.2 shutting down, -", true, false},
		{"connection lost before the message is answered", greets("PIPELINING") + pipelined + `
			s: 250 OK
			s: 250 OK
			s: 550 no
			s: 354 go on
			c> "Subject: x\r\n\r\n..dot\r\n.\r\n"
			close`,
			"-?, rcpt 550 no", true, false},
		{"connection lost after DATA", greets("PIPELINING") + pipelined + `
			s: 250 OK
			s: 250 OK
			s: 550 no
			close`,
			"-, rcpt 550 no", true, false},
		{"malformed reply", greets() + `
			c: MAIL FROM:<a@example.org>
			s: 25 OK`,
			"-, -", true, false},
		{"codes that change within a reply", greets() + `
			c: MAIL FROM:<a@example.org>
			s: 250-OK
			s: 550 not OK`,
			"-, -", true, false},
		{"a reply without text", greets() + `
			c: MAIL FROM:<a@example.org>
			s: 550`,
			"mail 550, mail 550", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := client(t, ClientConfig{}, tt.script+"\nwait")
			const msg = "Subject: x\r\n\r\n.dot\r\n"
			results, err := c.Send(background(t), envelope(t, "a@example.org", "b@example.com", "c@example.com"),
				strings.NewReader(msg), int64(len(msg)))
			if (err != nil) != tt.fails {
				t.Errorf("error %v", err)
			}
			if got := outcome(results); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if c.Reusable() != tt.reusable {
				t.Errorf("reusable %v", c.Reusable())
			}
		})
	}
}

// TestRSETBeforeNext gives up a transaction that a refusal left open.
func TestRSETBeforeNext(t *testing.T) {
	const rset = "\nc: RSET\ns: 250 OK\n"
	for _, tt := range []struct{ name, extension, group, first, second, want string }{
		{"DATA", "SIZE", `c> "MAIL FROM:<a@example.org> SIZE=3\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"`,
			"s: 250 OK\ns: 250 OK\ns: 451 later",
			"s: 250 OK\ns: 250 OK\ns: 354 go on\nc> \"x\\r\\n.\\r\\n\"\ns: 250 OK", "data 451 later"},
		{"RFC 3030 no recipient", "CHUNKING",
			`c> "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nBDAT 3 LAST\r\nx\r\n"`,
			"s: 250 OK\ns: 550 no\ns: 503 no recipient", "s: 250 OK\ns: 250 OK\ns: 250 OK", "rcpt 550 no"},
		{"RFC 3030 message refused", "CHUNKING",
			`c> "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nBDAT 3 LAST\r\nx\r\n"`,
			"s: 250 OK\ns: 250 OK\ns: 451 later", "s: 250 OK\ns: 250 OK\ns: 250 OK", "data 451 later"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := client(t, ClientConfig{}, greets("PIPELINING", tt.extension)+"\n"+tt.group+"\n"+tt.first+rset+
				tt.group+"\n"+tt.second+"\nc: QUIT\ns: 221 bye")
			env := envelope(t, "a@example.org", "b@example.com")
			if got := outcome(send(t, c, env, "x\r\n")); got != tt.want {
				t.Error(got)
			}
			if got := outcome(send(t, c, env, "x\r\n")); got != "data 250 OK" {
				t.Error(got)
			}
			if err := c.Quit(background(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLimits is RFC 9422 and the older way to say that there are too many recipients.
func TestLimits(t *testing.T) {
	const group = `c> "MAIL FROM:<a@example.org>\r\nRCPT TO:<1@example.com>\r\nRCPT TO:<2@example.com>\r\nDATA\r\n"
		s: 250 OK
		s: 250 OK
		s: 250 OK
		s: 354 go on
		c> ".\r\n"
		s: 250 first
		`
	const rest = `c> "MAIL FROM:<a@example.org>\r\nRCPT TO:<3@example.net>\r\nDATA\r\n"
		s: 250 OK
		s: 250 OK
		s: 354 go on
		c> ".\r\n"
		s: 250 second`
	three := envelope(t, "a@example.org", "1@example.com", "2@example.com", "3@example.net")
	for name, script := range map[string]string{
		"RCPTMAX":       greets("PIPELINING", "LIMITS RCPTMAX=2 FOO=3 MAILMAX=2") + group + rest,
		"RCPTDOMAINMAX": greets("PIPELINING", "LIMITS RCPTDOMAINMAX=1") + group + rest,
		"452": greets("PIPELINING") + `
			c> "MAIL FROM:<a@example.org>\r\nRCPT TO:<1@example.com>\r\nRCPT TO:<2@example.com>\r\nRCPT TO:<3@example.net>\r\nDATA\r\n"
			s: 250 OK
			s: 250 OK
			s: 250 OK
			s: 452 4.5.3 too many
			s: 354 go on
			c> ".\r\n"
			s: 250 first
			` + rest,
	} {
		t.Run(name, func(t *testing.T) {
			c := client(t, ClientConfig{}, script)
			if got := outcome(send(t, c, three, "")); got != "data 250 first, data 250 first, data 250 second" {
				t.Error(got)
			}
		})
	}
	t.Run("MAILMAX", func(t *testing.T) {
		c := client(t, ClientConfig{}, greets("PIPELINING", "LIMITS RCPTMAX=2 MAILMAX=1")+group+"wait")
		results, err := c.Send(background(t), three, strings.NewReader(""), 0)
		if !errors.Is(err, ErrNoMoreMessages) || c.Reusable() ||
			outcome(results) != "data 250 first, data 250 first, -" {
			t.Errorf("%s, %v", outcome(results), err)
		}
	})
}

// TestCannotSend is about messages that a server cannot take: nothing is sent.
func TestCannotSend(t *testing.T) {
	binary := func(e *mail.Envelope) { e.Body = mail.BodyBinaryMIME }
	utf8 := func(e *mail.Envelope) { e.SMTPUTF8 = true }
	utf8From := func(e *mail.Envelope) { e.From.Local = "ä" }
	utf8To := func(e *mail.Envelope) { e.Recipients[0].Address.Local = "ä" }
	requireTLS := func(e *mail.Envelope) { e.RequireTLS = true }
	hold := func(e *mail.Envelope) { e.HoldUntil = time.Now().Add(time.Hour) }
	evilTo := func(e *mail.Envelope) { e.Recipients[0].Address.Local = "a>\r\nDATA" }
	filler := strings.Repeat("x", inSize-5)
	plain := "Subject: x\r\n\r\nx\r\n"
	for _, tt := range []struct {
		name   string
		offers string
		change func(*mail.Envelope)
		msg    string
		want   error
	}{
		{"bare LF", "", nil, "a\nb\r\n", ErrMalformed},
		{"bare LF first", "", nil, "\nb\r\n", ErrMalformed},
		{"bare CR", "", nil, "a\rb\r\n", ErrMalformed},
		{"bare CR at the end", "", nil, "a\r", ErrMalformed},
		{"two CR", "", nil, "a\r\r\n", ErrMalformed},
		{"LF.CRLF", "CHUNKING", nil, "a\n.\r\nb", ErrMalformed},
		{"NUL", "CHUNKING", nil, "a\x00\r\n", ErrMalformed},
		{"bare CR between two pieces", "", nil, filler + "\rx\r\n", ErrMalformed},
		{"bare LF between two pieces", "", nil, filler + "x\nx\r\n", ErrMalformed},
		{"8-bit", "", nil, plain + "ä\r\n", ErrNeeds8BitMIME},
		{"8-bit far behind", "", nil, strings.Repeat(plain, 5000) + "\xff\r\n", ErrNeeds8BitMIME},
		{"binary", "BINARYMIME", binary, "\x00", ErrNeedsBinary},
		{"binary without BINARYMIME", "CHUNKING", binary, "a\nb", ErrNeedsBinary},
		{"too large", "SIZE 10", nil, plain, ErrTooLarge},
		{"header in UTF-8", "8BITMIME", utf8, "Subject: ä\r\n\r\n", ErrNeedsSMTPUTF8},
		{"sender in UTF-8", "8BITMIME", utf8From, plain, ErrNeedsSMTPUTF8},
		{"recipient in UTF-8", "8BITMIME", utf8To, plain, ErrNeedsSMTPUTF8},
		{"REQUIRETLS not offered", "", requireTLS, plain, ErrNeedsTLS},
		{"REQUIRETLS over plaintext", "REQUIRETLS", requireTLS, plain, ErrNeedsTLS},
		{"FUTURERELEASE", "", hold, plain, ErrNeedsHold},
		{"FUTURERELEASE not so long", "FUTURERELEASE 60 2030-01-01T00:00:00Z", hold, plain, ErrNeedsHold},
		{"address with a line end", "", evilTo, plain, ErrAddress},
		{"shorter than said", "", nil, "", io.ErrUnexpectedEOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			offers := []string{tt.offers}
			if tt.offers == "" {
				offers = nil
			}
			c := client(t, ClientConfig{}, greets(offers...)+"wait")
			env := envelope(t, "a@example.org", "b@example.com")
			if tt.change != nil {
				tt.change(env)
			}
			size := int64(len(tt.msg))
			if tt.want == io.ErrUnexpectedEOF {
				size++
			}
			results, err := c.Send(background(t), env, strings.NewReader(tt.msg), size)
			if !errors.Is(err, tt.want) || outcome(results) != "-" {
				t.Errorf("%s, %v", outcome(results), err)
			}
			if !c.Reusable() {
				t.Error("not reusable")
			}
		})
	}
}

// TestParameters is about what goes with MAIL and RCPT to servers of different offers.
func TestParameters(t *testing.T) {
	env := func() *mail.Envelope {
		return &mail.Envelope{
			From: mail.Address{Local: "a", Domain: "bücher.example"}, Ret: mail.RetHeaders, EnvID: "id+1=x",
			Recipients: []mail.Recipient{
				{Address: mail.Address{Local: "b c", Domain: "example.com"},
					Notify: mail.NotifySuccess | mail.NotifyDelay, ORcpt: "rfc822;b c@example.com"},
				{Address: mail.Address{Local: "d", Domain: "example.com"},
					Notify: mail.NotifyNever, ORcpt: "utf-8;ä\\@example.com"},
			},
		}
	}
	for _, tt := range []struct {
		name, offers string
		change       func(*mail.Envelope)
		msg          string
		want         string // Go string of the group
	}{
		{"nothing offered but PIPELINING", "PIPELINING", nil, "x\r\n",
			`MAIL FROM:<a@xn--bcher-kva.example>\r\nRCPT TO:<\"b c\"@example.com>\r\nRCPT TO:<d@example.com>\r\nDATA\r\n`},
		{"DSN", "PIPELINING\nDSN\nSIZE\n8BITMIME", nil, "\xe4\r\n",
			`MAIL FROM:<a@xn--bcher-kva.example> SIZE=3 BODY=8BITMIME RET=HDRS ENVID=id+2B1+3Dx\r\n` +
				`RCPT TO:<\"b c\"@example.com> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+20c@example.com\r\n` +
				`RCPT TO:<d@example.com> NOTIFY=NEVER ORCPT=utf-8;\\x{E4}\\x{5C}@example.com\r\nDATA\r\n`},
		{"SMTPUTF8", "PIPELINING\nDSN\nSMTPUTF8\n8BITMIME", func(e *mail.Envelope) { e.SMTPUTF8 = true }, "x\r\n",
			`MAIL FROM:<a@bücher.example> SMTPUTF8 RET=HDRS ENVID=id+2B1+3Dx\r\n` +
				`RCPT TO:<\"b c\"@example.com> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+20c@example.com\r\n` +
				`RCPT TO:<d@example.com> NOTIFY=NEVER ORCPT=utf-8;ä\\x{5C}@example.com\r\nDATA\r\n`},
		{"null path", "PIPELINING", func(e *mail.Envelope) {
			e.From, e.Recipients = mail.Address{}, e.Recipients[1:]
		}, "x\r\n",
			`MAIL FROM:<>\r\nRCPT TO:<d@example.com>\r\nDATA\r\n`},
		{"ORCPT of no type, or one that is none", "PIPELINING\nDSN", func(e *mail.Envelope) {
			e.From, e.Ret, e.EnvID = mail.Address{}, "", ""
			e.Recipients = e.Recipients[1:]
			e.Recipients[0].Notify, e.Recipients[0].ORcpt = 0, "rfc822 x\r\n;d"
		}, "x\r\n",
			`MAIL FROM:<>\r\nRCPT TO:<d@example.com>\r\nDATA\r\n`},
		{"FUTURERELEASE", "PIPELINING\nFUTURERELEASE 99999999 2099-01-01T00:00:00Z", func(e *mail.Envelope) {
			e.From, e.Recipients = mail.Address{}, e.Recipients[1:]
			e.HoldUntil = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
		}, "x\r\n",
			`MAIL FROM:<> HOLDUNTIL=2030-01-02T03:04:05Z\r\nRCPT TO:<d@example.com>\r\nDATA\r\n`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := env()
			if tt.change != nil {
				tt.change(e)
			}
			c := client(t, ClientConfig{Clock: stopped{time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}},
				greets(strings.Split(tt.offers, "\n")...)+`
				c> "`+tt.want+`"
				s: 250 OK
				`+strings.Repeat("s: 250 OK\n", len(e.Recipients))+`
				s: 354 go on
				c: *
				c: .
				s: 250 OK`)
			send(t, c, e, tt.msg)
		})
	}
}

// TestRequireTLSIsSent is RFC 8689 with our server.
func TestRequireTLSIsSent(t *testing.T) {
	rec := &recorder{}
	cfg := config(rec)
	cfg.TLS = serverTLS
	c := connect(t, start(t, cfg), ClientConfig{})
	if err := c.StartTLS(background(t), clientTLS); err != nil {
		t.Fatal(err)
	}
	env := envelope(t, "a@example.org", "b@example.com")
	env.RequireTLS = true
	send(t, c, env, "x\r\n")
	if got := rec.take(); got[0] != "mail <a@example.org> size=3 requiretls" {
		t.Error(got)
	}
	p := c.Peer()
	if p.Addr != "127.0.0.1" || p.TLSVersion != "TLS 1.3" || p.Cipher == "" || len(p.CertSHA256) != 64 {
		t.Errorf("peer %+v", p)
	}
}

// TestLargeMessage is larger than what is sent without waiting for the recipients, and than any
// buffer.
func TestLargeMessage(t *testing.T) {
	msg := strings.Repeat(".a line that begins with a dot\r\n..\r\n"+strings.Repeat("y", 1000)+"\r\n", 1000)
	for name, cfg := range map[string]ClientConfig{"bdat": {}, "data": {NoChunking: true}} {
		t.Run(name, func(t *testing.T) {
			rec := &recorder{noRead: true}
			var got bytes.Buffer
			rec.onData = func(r io.Reader) { io.Copy(&got, r) }
			c := connect(t, start(t, config(rec)), cfg)
			if r := send(t, c, envelope(t, "a@example.org", "b@example.com"), msg); !r[0].Accepted() {
				t.Error(outcome(r))
			}
			if got.String() != msg {
				t.Errorf("message of %d octets came as %d", len(msg), got.Len())
			}
			if r := send(t, c, envelope(t, "a@example.org", "unknown@example.com"), msg); r[0].Stage != AtRcpt {
				t.Error(outcome(r))
			}
		})
	}
}

// TestManyRecipients has more of them than commands may be under way, and all replies are told
// apart.
func TestManyRecipients(t *testing.T) {
	c := connect(t, start(t, config(&recorder{})), ClientConfig{})
	env := envelope(t, "a@example.org")
	for i := range 2500 {
		to := "b@example.com"
		if i%7 == 3 {
			to = "unknown@example.com"
		}
		env.Recipients = append(env.Recipients, mail.Recipient{Address: address(t, to)})
	}
	for i, r := range send(t, c, env, "x\r\n") {
		if r.Accepted() != (i%7 != 3) {
			t.Fatalf("recipient %d: %s", i, outcome([]Result{r}))
		}
	}
}

// TestLastWords hears why a server closes the connection in the middle of a message.
func TestLastWords(t *testing.T) {
	c := client(t, ClientConfig{NoChunking: true}, greets("PIPELINING")+`
		c> "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
		s: 250 OK
		s: 250 OK
		s: 354 go on
		s: 552 5.3.4 too big`)
	msg := strings.Repeat(strings.Repeat("x", 998)+"\r\n", 20000)
	results, err := c.Send(background(t), envelope(t, "a@example.org", "b@example.com"),
		strings.NewReader(msg), int64(len(msg)))
	var r *Reply
	if err == nil && results[0].Reply.Code != 552 || err != nil && errors.As(err, &r) && r.Code != 552 {
		t.Errorf("%s, %v", outcome(results), err)
	}
	if c.Reusable() {
		t.Error("reusable")
	}
}

// TestReplyLimits is about servers that do not stop.
func TestReplyLimits(t *testing.T) {
	for name, script := range map[string]string{
		"one line":   `s> "250-` + strings.Repeat("x", 70000) + `\r\n"`,
		"many lines": strings.Repeat("s: 250-and so on\n", 5000),
		"no end":     `s> "250 ` + strings.Repeat("x", 40000) + `"`,
	} {
		conn := scripted(t, "s: 220 hello\nc: EHLO *\n"+script)
		c := NewClient(conn, ClientConfig{Hello: "client.example.org"})
		if err := c.Hello(background(t)); err == nil {
			t.Errorf("%s: accepted", name)
		}
		c.Close()
	}
}

// TestGreetings keeps the words of a server that does not want us.
func TestGreetings(t *testing.T) {
	for script, want := range map[string]string{
		"s: 554-5.7.1 you are\ns: 554 5.7.1 on a list":                     "554-5.7.1 you are\n554 5.7.1 on a list",
		"s: 421 4.7.0 later":                                               "421 4.7.0 later",
		"s: 220 hello\nc: EHLO *\ns: 421 4.7.0 later":                      "421 4.7.0 later",
		"s: 220 hello\nc: EHLO *\ns: 550 no\nc: HELO *\ns: 550 no, really": "550 no, really",
	} {
		c := NewClient(scripted(t, script), ClientConfig{Hello: "client.example.org"})
		err := c.Hello(background(t))
		var r *Reply
		if !errors.As(err, &r) || r.String() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		c.Close()
	}
	c := client(t, ClientConfig{}, `
		s: 220-hello
		s: 220 you
		c: EHLO *
		s: 502 what
		c: HELO client.example.org
		s: 250 hello`)
	if c.esmtp || c.Greeting().Text != "hello\nyou" {
		t.Errorf("greeting %+v", c.Greeting())
	}
}

// TestInjectedBeforeTLS is the client's side of CVE-2011-0411: what came in the clear behind the
// reply to STARTTLS must not be read as if it had come over TLS.
func TestInjectedBeforeTLS(t *testing.T) {
	c := client(t, ClientConfig{}, greets("STARTTLS")+`
		c: STARTTLS
		s> "220 go on\r\n250-mx.example.com\r\n250 AUTH PLAIN\r\n"
		wait`)
	if err := c.StartTLS(background(t), clientTLS); !errors.Is(err, errUnasked) {
		t.Errorf("got %v", err)
	}
	if c.Reusable() {
		t.Error("reusable")
	}
}

func TestStartTLSRefused(t *testing.T) {
	c := client(t, ClientConfig{}, greets("STARTTLS")+`
		c: STARTTLS
		s: 454 4.7.0 not now
		wait`)
	var r *Reply
	if err := c.StartTLS(background(t), clientTLS); !errors.As(err, &r) || r.Code != 454 {
		t.Errorf("got %v", err)
	}
	c = client(t, ClientConfig{}, greets()+"wait")
	if err := c.StartTLS(background(t), clientTLS); !errors.Is(err, ErrNoStartTLS) {
		t.Errorf("got %v", err)
	}
	if err := c.Auth(background(t), "a", "b"); !errors.Is(err, ErrNoAuth) {
		t.Errorf("Auth over plaintext: %v", err)
	}
}

// TestTLSNotTrusted fails the handshake with a server whose certificate is another's.
func TestTLSNotTrusted(t *testing.T) {
	cfg := config(&recorder{})
	cfg.TLS = serverTLS
	c := connect(t, start(t, cfg), ClientConfig{})
	other := clientTLS.Clone()
	other.ServerName = "other.example.com"
	if err := c.StartTLS(background(t), other); err == nil {
		t.Error("accepted")
	}
	if c.Reusable() {
		t.Error("reusable")
	}
}

// TestUnaskedReply does not take what a server said in the meantime for an answer.
func TestUnaskedReply(t *testing.T) {
	c := client(t, ClientConfig{}, greets()+"s: 421 4.4.2 idle too long")
	for c.Reusable() {
		time.Sleep(time.Millisecond)
	}
	var r *Reply
	err := c.Noop(background(t))
	if !errors.Is(err, errUnasked) || !errors.As(err, &r) || r.Code != 421 {
		t.Errorf("got %v", err)
	}
}

func TestClosedMeanwhile(t *testing.T) {
	c := client(t, ClientConfig{}, greets())
	for c.Reusable() {
		time.Sleep(time.Millisecond)
	}
	if err := c.Noop(background(t)); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}

// TestLMTPClient is RFC 2033 with our server.
func TestLMTPClient(t *testing.T) {
	rec := &recorder{each: true}
	cfg := config(rec)
	cfg.LMTP = true
	c := connect(t, start(t, cfg), ClientConfig{LMTP: true})
	for range 2 {
		env := envelope(t, "", "b@example.com", "unknown@example.com", "full@example.com")
		want := "data 250 2.0.0 OK, rcpt 550 5.1.1 no such user, data 452 4.2.2 mailbox full"
		if got := outcome(send(t, c, env, "x\r\n")); got != want {
			t.Error(got)
		}
	}
}

// TestCancelledContext has a context that ended before.
func TestCancelledContext(t *testing.T) {
	near, _ := net.Pipe()
	c := NewClient(near, ClientConfig{Hello: "client.example.org"})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := c.Hello(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
