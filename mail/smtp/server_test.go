package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// hello is a greeting and EHLO.
const hello = `
	s: 220 mx.example.com ESMTP ready
	c: EHLO client.example.org
	s: ...
`

// begin is hello and a transaction up to DATA.
const begin = hello + `
	c: MAIL FROM:<a@example.org>
	s: 250 2.1.0 OK
	c: RCPT TO:<b@example.com>
	s: 250 2.1.5 OK
	= mail <a@example.org>
	= rcpt <b@example.com>
`

type dialogue struct {
	name   string
	set    func(*Config, *recorder)
	script string
}

func runDialogues(t *testing.T, table []dialogue) {
	for _, tt := range table {
		t.Run(tt.name, func(t *testing.T) {
			rec := &recorder{}
			cfg := config(rec)
			if tt.set != nil {
				tt.set(&cfg, rec)
			}
			dial(t, start(t, cfg), rec).follow(tt.script)
		})
	}
}

// TestRFC5321 has a dialogue for what each section demands of a server.
func TestRFC5321(t *testing.T) {
	runDialogues(t, []dialogue{
		{"2.3.8 lines end in CRLF", nil, hello + `
			c> "NOOP\n"
			s: 500 5.5.2 *
			s: EOF`},
		{"2.4 verbs and keywords in any case", nil, `
			s: 220 *
			c: eHlO client.example.org
			s: ...
			c: mail from:<A@Example.ORG>
			s: 250 *
			c: rCPT tO:<B@example.com>
			s: 250 *
			= mail <A@example.org>
			= rcpt <B@example.com>`},
		{"3.1 refusal at the greeting", func(_ *Config, rec *recorder) {
			rec.greeter = &Reply{Code: 554, Enhanced: "5.7.1", Text: "not you"}
		}, `
			s: 554 5.7.1 not you
			c: EHLO client.example.org
			s: 503 5.5.1 *
			c: QUIT
			s: 221 *
			s: EOF`},
		{"3.1 temporary refusal closes", func(_ *Config, rec *recorder) {
			rec.greeter = &Reply{Code: 421, Enhanced: "4.7.0", Text: "too many connections"}
		}, `
			s: 421 4.7.0 too many connections
			s: EOF`},
		{"3.1 internal error at the greeting", func(_ *Config, rec *recorder) {
			rec.greeter = errors.New("secret")
		}, `
			s: 451 4.3.0 local error, try again later`},
		{"3.3 no valid recipients", nil, hello + `
			c: MAIL FROM:<a@example.org>
			s: 250 *
			c: DATA
			s: 503 5.5.1 say RCPT first
			c: RCPT TO:<unknown@example.com>
			s: 550 5.1.1 no such user
			c: DATA
			s: 554 5.5.1 no valid recipients`},
		{"3.5.3 VRFY does not tell", nil, hello + `
			c: VRFY somebody
			s: 252 2.5.2 *
			c: VRFY
			s: 501 5.5.4 *
			c: EXPN list
			s: 502 5.5.1 *`},
		{"4.1.1.1 HELO", nil, `
			s: 220 *
			c: MAIL FROM:<a@example.org>
			s: 503 5.5.1 *
			c: HELO
			s: 501 5.5.4 *
			c: HELO client.example.org
			s: 250 mx.example.com
			c: MAIL FROM:<a@example.org> SIZE=10
			s: 501 5.5.4 *
			c: MAIL FROM:<a@example.org>
			s: 250 2.1.0 OK`},
		{"4.1.1.1 EHLO again is RSET", nil, begin + `
			c: EHLO client.example.org
			= reset
			s: ...
			c: DATA
			s: 503 5.5.1 say MAIL first`},
		{"4.1.1.1 what is offered", nil, `
			s: 220 *
			c: EHLO client.example.org
			s: 250-mx.example.com
			s: 250-PIPELINING
			s: 250-8BITMIME
			s: 250-SMTPUTF8
			s: 250-CHUNKING
			s: 250-DSN
			s: 250-SIZE 52428800
			s: 250-LIMITS RCPTMAX=1000
			s: 250 ENHANCEDSTATUSCODES`},
		{"4.1.1.2 nested MAIL", nil, begin + `
			c: MAIL FROM:<two@example.org>
			s: 503 5.5.1 *
			c: DATA
			s: 354 *
			c: .
			s: 250 *
			= data ""
			= reset`},
		{"4.1.1.2 syntax of the reverse path", nil, hello + `
			c: MAIL
			s: 501 5.5.2 *
			c: MAIL FROM
			s: 501 5.5.2 *
			c: MAIL FROM:a@example.org
			s: 501 5.1.7 *
			c: MAIL FROM:<a@example.org
			s: 501 5.1.7 *
			c: MAIL FROM:<a@b@c>
			s: 501 5.1.7 *
			c: MAIL FROM:<a@example.org>SIZE=1
			s: 501 5.1.7 *
			c: MAIL FROM:<a@example.org> FOO=1
			s: 555 5.5.4 *
			c: MAIL FROM:<a@example.org> SIZE=1 SIZE=1
			s: 501 5.5.4 *
			c: MAIL FROM: <a@example.org>
			s: 250 *`},
		{"4.1.1.3 RCPT", nil, hello + `
			c: RCPT TO:<b@example.com>
			s: 503 5.5.1 *
			c: MAIL FROM:<>
			s: 250 *
			c: RCPT TO:<>
			s: 501 5.1.3 *
			c: RCPT TO:b
			s: 501 5.1.3 *
			c: RCPT TO:<later@example.com>
			s: 450 4.2.1 mailbox busy
			c: RCPT TO:<b@example.com> FOO
			s: 555 5.5.4 *`},
		{"4.1.1.3 source routes are ignored", nil, hello + `
			c: MAIL FROM:<@one.example,@two.example:a@example.org>
			s: 250 *
			c: RCPT TO:<@one.example:"b:c"@example.com>
			s: 250 *
			c: RCPT TO:<@one.example>
			s: 501 5.1.3 *
			= mail <a@example.org>
			= rcpt <"b:c"@example.com>`},
		{"4.1.1.5 RSET", nil, begin + `
			c: RSET x
			s: 501 5.5.4 *
			c: RSET
			s: 250 2.0.0 OK
			= reset
			c: RCPT TO:<c@example.com>
			s: 503 *`},
		{"4.1.1.9 NOOP and 4.1.1.8 HELP", nil, begin + `
			c: NOOP whatever
			s: 250 2.0.0 OK
			c: HELP
			s: 214 2.0.0 *
			c: DATA
			s: 354 *`},
		{"4.1.1.10 QUIT", nil, begin + `
			c: QUIT now
			s: 501 *
			c: QUIT
			s: 221 2.0.0 *
			s: EOF
			= reset
			= logout`},
		{"4.1.2 quoted local parts and literals", nil, hello + `
			c: MAIL FROM:<"a > b\" c"@[IPv6:2001:db8::1]>
			s: 250 *
			c: RCPT TO:<b@[192.0.2.1]>
			s: 250 *
			= mail <"a > b\" c"@[IPv6:2001:db8::1]>
			= rcpt <b@[192.0.2.1]>`},
		{"4.1.4 command not known", nil, hello + `
			c: STARTTLSxyz
			s: 500 5.5.1 *
			c: FROBNICATE-WITH-A-VERY-LONG-VERB
			s: 500 5.5.1 *
			c:
			s: 500 5.5.1 *`},
		{"4.5.1 postmaster without a domain", nil, hello + `
			c: MAIL FROM:<>
			s: 250 *
			c: RCPT TO:<PostMaster>
			s: 250 *`},
		{"4.5.2 transparency", nil, begin + `
			c: DATA
			s: 354 *
			c> "..\r\n.x\r\n...\r\na.b\r\n.\r\n"
			s: 250 2.0.0 OK
			= data ".\r\nx\r\n..\r\na.b\r\n"`},
		{"4.5.3.1.4 command line too long", nil, hello + `
			c: NOOP ` + strings.Repeat("x", 3000) + `
			s: 500 5.5.6 *
			s: EOF`},
		{"8-bit and control characters in commands", nil, hello + `
			c> "NOOP \x00\r\n"
			s: 500 5.5.2 *
			c> "MAIL FROM:<a@example.org>\rRCPT TO:<b@example.com>\r\n"
			s: 500 5.5.2 *
			c> "MAIL FROM:<\xff@example.org>\r\n"
			s: 501 5.1.7 *`},
		{"several messages", nil, begin + `
			c> "DATA\r\n"
			s: 354 *
			c: .
			s: 250 *
			= data ""
			= reset
			c> "MAIL FROM:<>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
			s: 250 *
			s: 250 *
			s: 354 *
			c: .
			s: 250 *`},
		{"HTTP", nil, `
			s: 220 *
			c> "POST / HTTP/1.1\r\nHost: mx.example.com\r\n\r\nEHLO x\r\n"
			s: 554 5.7.0 *
			s: EOF`},
	})
}

// TestExtensions has the dialogues of what is beyond RFC 5321.
func TestExtensions(t *testing.T) {
	noon := time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)
	runDialogues(t, []dialogue{
		{"RFC 2920 pipelining", nil, hello + `
			c> "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nRCPT TO:<unknown@example.com>\r\nDATA\r\n"
			s: 250 2.1.0 OK
			s: 250 2.1.5 OK
			s: 550 5.1.1 no such user
			s: 354 *
			c> "\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<Postmaster>\r\nDATA\r\n"
			s: 250 2.0.0 OK
			s: 250 2.1.0 OK
			s: 250 2.1.5 OK
			s: 354 *
			c> ".\r\nQUIT\r\n"
			s: 250 2.0.0 OK
			s: 221 *
			= mail <a@example.org>
			= rcpt <b@example.com>
			= data "\r\n"
			= reset
			= mail <>
			= rcpt <Postmaster>
			= data ""
			= reset
			= logout`},
		{"RFC 1870 SIZE", func(c *Config, _ *recorder) { c.MaxSize = 1000 }, hello + `
			c: MAIL FROM:<a@example.org> SIZE=1001
			s: 552 5.3.4 *
			c: MAIL FROM:<a@example.org> SIZE=99999999999999999999
			s: 552 5.3.4 *
			c: MAIL FROM:<a@example.org> SIZE=x
			s: 501 5.5.4 *
			c: MAIL FROM:<a@example.org> SIZE=
			s: 501 5.5.4 *
			c: MAIL FROM:<a@example.org> SIZE=1000
			s: 250 *
			= mail <a@example.org> size=1000`},
		{"RFC 1870 too large, told at the true end", func(c *Config, _ *recorder) { c.MaxSize = 1000 }, begin + `
			c: DATA
			s: 354 *
			c> "` + strings.Repeat(strings.Repeat("x", 98)+`\r\n`, 11) + `MAIL FROM:<evil@example.org>\r\n.\r\nNOOP\r\n"
			s: 552 5.3.4 *
			s: 250 2.0.0 OK
			= data * then 552 5.3.4 *
			= reset`},
		{"RFC 6152 8BITMIME", nil, hello + `
			c: MAIL FROM:<a@example.org> BODY=8bitmime
			s: 250 *
			= mail <a@example.org> body=8BITMIME
			c: RSET
			s: 250 *
			= reset
			c: MAIL FROM:<a@example.org> BODY=7BIT
			s: 250 *
			= mail <a@example.org> body=7BIT
			c: RSET
			s: 250 *
			c: MAIL FROM:<a@example.org> BODY=9BIT
			s: 501 5.5.4 *
			c: MAIL FROM:<a@example.org> BODY=BINARYMIME
			s: 501 5.5.4 *`},
		{"RFC 6531 SMTPUTF8", nil, hello + `
			c: MAIL FROM:<jörg@example.org>
			s: 553 5.6.7 *
			c: MAIL FROM:<a@bücher.example>
			s: 553 5.6.7 *
			c: MAIL FROM:<jörg@example.org> SMTPUTF8=1
			s: 501 5.5.4 *
			c: MAIL FROM:<jörg@bücher.example> SMTPUTF8
			s: 250 *
			c: RCPT TO:<δοκιμή@example.com>
			s: 250 *
			c: RSET
			s: 250 *
			c: MAIL FROM:<a@example.org>
			s: 250 *
			c: RCPT TO:<δοκιμή@example.com>
			s: 553 5.6.7 *
			= mail <jörg@bücher.example> smtputf8
			= rcpt <δοκιμή@example.com>
			= reset
			= mail <a@example.org>`},
		{"RFC 3030 chunks", nil, hello + `
			c> "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nBDAT 5\r\n.\r\nabBDAT 3\r\nc\r\nNOOP\r\nBDAT 0 LAST\r\nQUIT\r\n"
			s: 250 2.1.0 OK
			s: 250 2.1.5 OK
			s: 250 2.0.0 5 octets so far
			s: 250 2.0.0 8 octets so far
			s: 250 2.0.0 OK
			s: 250 2.0.0 OK
			s: 221 *
			= mail <a@example.org>
			= rcpt <b@example.com>
			= data ".\r\nabc\r\n"
			= reset
			= logout`},
		{"RFC 3030 CR and LF in two chunks", nil, begin + `
			c> "BDAT 2\r\na\rBDAT 2 last\r\n\nb"
			s: 250 *
			s: 250 2.0.0 OK
			= data "a\r\nb"`},
		{"RFC 3030 bare CR at the end of a chunk", nil, begin + `
			c> "BDAT 2\r\na\rBDAT 2 LAST\r\nb\nNOOP\r\n"
			s: 250 *
			s: 550 5.6.0 *
			s: 250 2.0.0 OK`},
		{"RFC 3030 bare CR at the very end", nil, begin + `
			c> "BDAT 2 LAST\r\na\rNOOP\r\n"
			s: 550 5.6.0 *
			s: 250 2.0.0 OK`},
		{"RFC 3030 refused chunks are read over", nil, hello + `
			c> "BDAT 6\r\nQUIT\r\nNOOP\r\n"
			s: 503 5.5.1 *
			s: 250 2.0.0 OK
			c> "MAIL FROM:<a@example.org>\r\nRCPT TO:<unknown@example.com>\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n"
			s: 250 *
			s: 550 *
			s: 554 5.5.1 no valid recipients
			s: 250 2.0.0 OK`},
		{"RFC 3030 after a failed chunk the others are read over", func(_ *Config, rec *recorder) {
			rec.noRead, rec.refuse = true, &Reply{Code: 554, Enhanced: "5.7.1", Text: "spam"}
		}, begin + `
			c> "BDAT 6\r\nQUIT\r\nBDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n"
			s: 554 5.7.1 spam
			s: 503 5.5.1 *
			s: 503 5.5.1 *
			s: 250 2.0.0 OK`},
		{"RFC 3030 RSET between chunks", nil, begin + `
			c> "BDAT 3\r\nabcRSET\r\nNOOP\r\n"
			s: 250 *
			s: 250 2.0.0 OK
			s: 250 2.0.0 OK
			= data "abc" then the client gave the transaction up
			= reset`},
		{"RFC 3030 DATA between chunks", nil, begin + `
			c> "BDAT 3\r\nabcDATA\r\nBDAT 0 LAST\r\n"
			s: 250 *
			s: 503 5.5.1 *
			s: 250 2.0.0 OK
			= data "abc"`},
		{"RFC 3030 no room", func(c *Config, _ *recorder) { c.MaxSize = 10 }, begin + `
			c> "BDAT 8\r\n12345678BDAT 3 LAST\r\n901NOOP\r\n"
			s: 250 *
			s: 552 5.3.4 *
			s: 250 2.0.0 OK`},
		{"RFC 3030 BINARYMIME", func(c *Config, _ *recorder) { c.BinaryMIME = true }, hello + `
			c: MAIL FROM:<a@example.org> BODY=BINARYMIME
			s: 250 *
			c: RCPT TO:<b@example.com>
			s: 250 *
			= mail <a@example.org> body=BINARYMIME
			= rcpt <b@example.com>
			c: DATA
			s: 503 5.5.1 *
			c> "BDAT 6 LAST\r\n\r\x00\n.\r\n"
			s: 250 2.0.0 OK
			= data "\r\x00\n.\r\n"`},
		{"RFC 3461 DSN", nil, hello + `
			c: MAIL FROM:<a@example.org> RET=HDRS ENVID=a+2Bb+20c
			s: 250 *
			c: RCPT TO:<b@example.com> NOTIFY=SUCCESS,delay ORCPT=rfc822;b+2Bc@example.com
			s: 250 *
			c: RCPT TO:<b@example.com> NOTIFY=NEVER ORCPT=utf-8;\x{48}\x{F6}b@example.com
			s: 250 *
			= mail <a@example.org> ret=HDRS envid="a+b c"
			= rcpt <b@example.com> notify=10 orcpt="rfc822;b+c@example.com"
			= rcpt <b@example.com> notify=1 orcpt="utf-8;Höb@example.com"
			c: RCPT TO:<b@example.com> NOTIFY=NEVER,SUCCESS
			s: 501 5.5.4 *
			c: RCPT TO:<b@example.com> NOTIFY=
			s: 501 5.5.4 *
			c: RCPT TO:<b@example.com> ORCPT=b@example.com
			s: 501 5.5.4 *
			c: RCPT TO:<b@example.com> ORCPT=rfc822;b+0D+0Ac
			s: 501 5.5.4 *
			c: RSET
			s: 250 *
			c: MAIL FROM:<a@example.org> RET=SOME
			s: 501 5.5.4 *
			c: MAIL FROM:<a@example.org> ENVID=+0A
			s: 501 5.5.4 *`},
		{"RFC 8689 REQUIRETLS needs TLS", nil, hello + `
			c: MAIL FROM:<a@example.org> REQUIRETLS
			s: 555 5.5.4 *`},
		{"RFC 8689 REQUIRETLS", func(c *Config, _ *recorder) { c.TLS, c.ImplicitTLS = serverTLS, true }, `
			tls` + hello + `
			c: MAIL FROM:<a@example.org> REQUIRETLS
			s: 250 *
			= mail <a@example.org> requiretls`},
		{"RFC 9422 LIMITS", func(c *Config, _ *recorder) { c.MaxRecipients, c.MaxMessages = 100, 1 }, hello + `
			c> "MAIL FROM:<a@example.org>\r\n` + strings.Repeat(`RCPT TO:<b@example.com>\r\n`, 101) + `"
			` + strings.Repeat("s: 250 *\n", 101) + `
			s: 452 4.5.3 *
			c: RSET
			s: 250 *
			c: MAIL FROM:<a@example.org>
			s: 421 4.5.0 *
			s: EOF`},
		{"RFC 4865 FUTURERELEASE", func(c *Config, _ *recorder) {
			c.MaxHold, c.Clock = time.Hour, stopped{noon}
		}, `
			s: 220 *
			c: EHLO client.example.org
			` + strings.Repeat("s: 250-*\n", 8) + `
			s: 250-FUTURERELEASE 3600 2030-01-02T13:00:00Z
			s: ...
			c: MAIL FROM:<a@example.org> HOLDFOR=60
			s: 250 *
			= mail <a@example.org> hold=2030-01-02T12:01:00Z
			c: RSET
			s: 250 *
			= reset
			c: MAIL FROM:<a@example.org> HOLDUNTIL=2030-01-02t12:30:00z
			s: 250 *
			= mail <a@example.org> hold=2030-01-02T12:30:00Z
			c: RSET
			s: 250 *
			c: MAIL FROM:<a@example.org> HOLDFOR=3601
			s: 501 5.5.4 *
			c: MAIL FROM:<a@example.org> HOLDUNTIL=2030-01-02T13:00:01Z
			s: 501 5.5.4 *
			c: MAIL FROM:<a@example.org> HOLDFOR=1 HOLDUNTIL=2030-01-02T12:30:00Z
			s: 501 5.5.4 *`},
		{"RFC 4865 not offered", nil, hello + `
			c: MAIL FROM:<a@example.org> HOLDFOR=60
			s: 555 5.5.4 *`},
		{"RFC 4954 the AUTH parameter", nil, hello + `
			c: MAIL FROM:<a@example.org> AUTH=e+3Dmc2@example.com
			s: 250 *
			= mail <a@example.org> auth="e=mc2@example.com"`},
	})
}

// stopped is a clock that always says the same, for what does not wait.
type stopped struct{ now time.Time }

func (s stopped) Now() time.Time { return s.now }
func (s stopped) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// TestReplies is about what a client hears of errors.
func TestReplies(t *testing.T) {
	runDialogues(t, []dialogue{
		{"a session's error stays secret", nil, hello + `
			c: MAIL FROM:<broken@example.org>
			s: 451 4.3.0 local error, try again later`},
		{"a session's text is one reply", nil, hello + `
			c: MAIL FROM:<inject@example.org>
			s: 550-5.7.1 no 
			s: 550 5.7.1 250 2.0.0 yes????
			c: NOOP
			s: 250 2.0.0 OK`},
		{"a panic ends the connection", nil, hello + `
			c: MAIL FROM:<panic@example.org>
			s: 421 4.3.0 internal error, *
			s: EOF
			= logout`},
		{"a refusal of the message", func(_ *Config, rec *recorder) {
			rec.refuse = &Reply{Code: 554, Text: "spam"}
		}, begin + `
			c: DATA
			s: 354 *
			c> "x\r\n.\r\nNOOP\r\n"
			s: 554 5.0.0 spam
			s: 250 2.0.0 OK`},
		{"a refusal in the Reply", func(_ *Config, rec *recorder) {
			rec.reply = Reply{Code: 451, Enhanced: "4.3.1", Text: "disk full"}
		}, begin + `
			c: DATA
			s: 354 *
			c: .
			s: 451 4.3.1 disk full`},
		{"an early refusal comes at the true end", func(_ *Config, rec *recorder) {
			rec.noRead, rec.refuse = true, &Reply{Code: 554, Enhanced: "5.7.1", Text: "spam"}
		}, begin + `
			c: DATA
			s: 354 *
			c> "MAIL FROM:<evil@example.org>\r\n"
			c> "RSET\r\n.\r\nNOOP\r\n"
			s: 554 5.7.1 spam
			s: 250 2.0.0 OK
			= reset`},
		{"a reply of the session's own", func(_ *Config, rec *recorder) {
			rec.reply = Reply{Code: 250, Enhanced: "2.0.0", Text: "QUEUEID queued\nthank you"}
		}, begin + `
			c: DATA
			s: 354 *
			c: .
			s: 250-2.0.0 QUEUEID queued
			s: 250 2.0.0 thank you`},
		{"421 from a session closes", func(_ *Config, rec *recorder) {
			rec.refuse = &Reply{Code: 421, Enhanced: "4.3.2", Text: "going down"}
		}, begin + `
			c: DATA
			s: 354 *
			c: .
			s: 421 4.3.2 going down
			s: EOF`},
		{"too many errors", func(c *Config, _ *recorder) { c.MaxErrors = 3 }, hello + `
			c> "FOO\r\nFOO\r\nFOO\r\nNOOP\r\n"
			s: 500 *
			s: 500 *
			s: 500 *
			s: 421 4.7.0 too many errors*
			s: EOF`},
		{"dead recipients are no errors", func(c *Config, _ *recorder) { c.MaxErrors = 3 }, hello + `
			c: MAIL FROM:<>
			s: 250 *
			c> "` + strings.Repeat(`RCPT TO:<unknown@example.com>\r\n`, 10) + `"
			` + strings.Repeat("s: 550 5.1.1 *\n", 10) + `
			c: RCPT TO:<b@example.com>
			s: 250 *`},
		{"idle commands", func(c *Config, _ *recorder) { c.MaxErrors = 2 }, hello + `
			c> "` + strings.Repeat(`NOOP\r\n`, 20) + `"
			` + strings.Repeat("s: 250 *\n", 9) + `
			s: 421 4.7.0 too many commands*
			s: EOF`},
	})
}

// TestOutOfStep is about clients, or those who forge their octets, that do not wait where they must
// (RFC 2920, section 3.1).
func TestOutOfStep(t *testing.T) {
	withTLS := func(c *Config, _ *recorder) { c.TLS = serverTLS }
	runDialogues(t, []dialogue{
		{"EHLO", nil, `
			s: 220 *
			c> "EHLO x\r\nMAIL FROM:<a@example.org>\r\n"
			s: 554 5.5.0 *
			s: EOF`},
		{"HELO", nil, `
			s: 220 *
			c: HELO x
			s: 250 *
			c> "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\n"
			s: 250 *
			s: 554 5.5.0 *
			s: EOF
			= mail <a@example.org>
			= reset
			= logout`},
		{"HELO, behind the message", nil, `
			s: 220 *
			c: HELO x
			s: 250 *
			c: MAIL FROM:<a@example.org>
			s: 250 *
			c: RCPT TO:<b@example.com>
			s: 250 *
			c: DATA
			s: 354 *
			c> "x\r\n.\r\nMAIL FROM:<evil@example.org>\r\nRCPT TO:<b@example.com>\r\n"
			s: 250 *
			s: 554 5.5.0 *
			s: EOF`},
		{"DATA", nil, begin + `
			c> "DATA\r\nx\r\n.\r\n"
			s: 554 5.5.0 *
			s: EOF
			= reset
			= logout`},
		{"STARTTLS", withTLS, hello + `
			c> "STARTTLS\r\nMAIL FROM:<evil@example.org>\r\n"
			s: 554 5.5.0 *
			s: EOF
			= logout`},
		{"AUTH", func(c *Config, _ *recorder) {
			c.PlaintextAuth = true
			c.Password = func(context.Context, *Conn, string, string) (string, error) { return "x", nil }
		}, hello + `
			c> "AUTH PLAIN AGEAYg==\r\nNOOP\r\n"
			s: 554 5.5.0 *
			s: EOF`},
		{"an answer to AUTH", func(c *Config, _ *recorder) {
			c.PlaintextAuth = true
			c.Password = func(context.Context, *Conn, string, string) (string, error) { return "x", nil }
		}, hello + `
			c: AUTH LOGIN
			s: 334 VXNlcm5hbWU6
			c> "YQ==\r\nYg==\r\n"
			s: 554 5.5.0 *
			s: EOF`},
		{"before the greeting", func(c *Config, _ *recorder) { c.GreetDelay = 100 * time.Millisecond }, `
			c: EHLO x
			s: 554 5.5.0 *
			s: EOF`},
		{"patience with the greeting", func(c *Config, _ *recorder) { c.GreetDelay = 20 * time.Millisecond }, hello + `
			c: NOOP
			s: 250 *`},
		{"malformed BDAT", nil, begin + `
			c> "BDAT 22 FIRST\r\nMAIL FROM:<evil@x.example>"
			s: 501 5.5.4 *
			s: EOF
			= reset
			= logout`},
		{"BDAT without a number", nil, begin + `
			c: BDAT LAST
			s: 501 5.5.4 *
			s: EOF`},
		{"BDAT with a number nobody can count to", nil, begin + `
			c: BDAT 99999999999999999999 LAST
			s: 501 5.5.4 *
			s: EOF`},
		{"malformed BDAT after a good one", nil, begin + `
			c> "BDAT 1\r\nxBDAT -1\r\nNOOP\r\n"
			s: 250 *
			s: 421 4.7.0 *
			s: EOF`},
		{"TLS where there is none", nil, `
			s: 220 *
			c> "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n"
			s: 500 5.5.2 *
			s: EOF`},
	})
}

func TestStartTLS(t *testing.T) {
	runDialogues(t, []dialogue{
		{"upgrade forgets", func(c *Config, _ *recorder) { c.TLS = serverTLS }, hello + `
			c: STARTTLS now
			s: 501 *
			c: STARTTLS
			s: 220 2.0.0 *
			tls
			c: MAIL FROM:<a@example.org>
			s: 503 5.5.1 say EHLO first
			c: EHLO client.example.org
			` + strings.Repeat("s: 250-*\n", 7) + `
			s: 250-LIMITS *
			s: 250-REQUIRETLS
			s: 250 ENHANCEDSTATUSCODES
			c: STARTTLS
			s: 503 5.5.1 *
			c: MAIL FROM:<a@example.org>
			s: 250 *`},
		{"not in a transaction", func(c *Config, _ *recorder) { c.TLS = serverTLS }, begin + `
			c: STARTTLS
			s: 503 5.5.1 *`},
		{"not configured", nil, hello + `
			c: STARTTLS
			s: 502 5.5.1 *`},
		{"demanded", func(c *Config, _ *recorder) { c.TLS, c.RequireTLS = serverTLS, true }, hello + `
			c: MAIL FROM:<a@example.org>
			s: 530 5.7.0 *`},
		{"pipelined over TLS", func(c *Config, _ *recorder) { c.TLS, c.ImplicitTLS = serverTLS, true }, `
			tls` + hello + `
			c> "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nRCPT TO:<c@example.com>\r\nRCPT TO:<unknown@example.com>\r\nDATA\r\n"
			s: 250 *
			s: 250 *
			s: 250 *
			s: 550 *
			s: 354 *
			c> "x\r\n.\r\nQUIT\r\n"
			s: 250 2.0.0 OK
			s: 221 *
			s: EOF`},
	})
}

// TestProtocolWord is RFC 3848 and RFC 6531, section 4.3.
func TestProtocolWord(t *testing.T) {

	for _, tt := range []struct {
		want                           string
		esmtp, lmtp, utf8, tls, authed bool
	}{
		{"SMTP", false, false, false, false, false},
		{"ESMTP", true, false, false, false, false},
		{"ESMTPS", true, false, false, true, false},
		{"ESMTPSA", true, false, false, true, true},
		{"ESMTPA", true, false, false, false, true},
		{"UTF8SMTPSA", true, false, true, true, true},
		{"LMTP", true, true, false, false, false},
		{"UTF8LMTPS", true, true, true, true, false},
	} {
		c := &Conn{v: &serving{Server: &Server{cfg: Config{LMTP: tt.lmtp}}}, esmtp: tt.esmtp}
		c.tx.smtputf8 = tt.utf8
		if tt.tls {
			c.state = &tls.ConnectionState{}
		}
		if tt.authed {
			c.account = "x"
		}
		if got := c.Protocol(); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

// TestLMTP is RFC 2033: a reply for each recipient after the message.
func TestLMTP(t *testing.T) {
	lmtp := func(each bool) func(*Config, *recorder) {
		return func(c *Config, rec *recorder) { c.LMTP, rec.each = true, each }
	}
	const rcpts = `
		s: 220 mx.example.com LMTP ready
		c: EHLO x
		s: 500 5.5.1 *
		c: LHLO x
		s: ...
		c> "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nRCPT TO:<unknown@example.com>\r\nRCPT TO:<full@example.com>\r\n"
		s: 250 *
		s: 250 *
		s: 550 *
		s: 250 *`
	runDialogues(t, []dialogue{
		{"a reply for each", lmtp(true), rcpts + `
			c: DATA
			s: 354 *
			c: .
			s: 250 2.0.0 OK
			s: 452 4.2.2 mailbox full
			c: QUIT
			s: 221 *`},
		{"chunks", lmtp(true), rcpts + `
			c> "BDAT 1\r\nxBDAT 0 LAST\r\nNOOP\r\n"
			s: 250 2.0.0 1 octets so far
			s: 250 2.0.0 OK
			s: 452 4.2.2 mailbox full
			s: 250 2.0.0 OK`},
		{"a session that has one answer for all", lmtp(false), rcpts + `
			c> "DATA\r\n"
			s: 354 *
			c> ".\r\nNOOP\r\n"
			s: 250 2.0.0 OK
			s: 250 2.0.0 OK
			s: 250 2.0.0 OK`},
		{"a message that is refused", lmtp(true), rcpts + `
			c: DATA
			s: 354 *
			c> "\n.\r\n\r\n.\r\nNOOP\r\n"
			s: 550 5.6.0 *
			s: 550 5.6.0 *
			s: 250 2.0.0 OK`},
	})
}

func TestXClient(t *testing.T) {
	trust := func(c *Config, rec *recorder) {
		c.XClient = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		session := c.NewSession
		c.NewSession = func(ctx context.Context, conn *Conn) (Session, error) {
			rec.note("from %s to %s helo=%s account=%s", conn.RemoteAddr(), conn.LocalAddr(), conn.Helo(), conn.Account())
			return session(ctx, conn)
		}
	}
	runDialogues(t, []dialogue{
		{"not trusted", nil, hello + `
			c: XCLIENT ADDR=192.0.2.7
			s: 550 5.7.0 *`},
		{"a new client", trust, hello + `
			= from 127.0.0.1:* to 127.0.0.1:* helo= account=
			c: XCLIENT ADDR=IPV6:2001:db8::1 PORT=77 NAME=[UNAVAILABLE] HELO=you.example LOGIN=al+20ice PROTO=ESMTP DESTADDR=192.0.2.1 DESTPORT=25
			s: 220 mx.example.com *
			= logout
			= from [2001:db8::1]:77 to 192.0.2.1:25 helo=you.example account=al ice
			c: EHLO you.example
			s: ...
			c: MAIL FROM:<a@example.org>
			s: 250 *`},
		{"malformed", trust, hello + `
			c: XCLIENT
			s: 501 *
			c: XCLIENT ADDR
			s: 501 *
			c: XCLIENT ADDR=one.two
			s: 501 *
			c: XCLIENT HELO=a+0D+0Ab
			s: 501 *
			c: XCLIENT SHOE=size
			s: 501 *`},
		{"not in a transaction", trust, hello + `
			c: MAIL FROM:<a@example.org>
			s: 250 *
			c: XCLIENT ADDR=192.0.2.7
			s: 503 *`},
	})
}

func TestProxyHeader(t *testing.T) {
	trust := func(c *Config, rec *recorder) {
		c.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		session := c.NewSession
		c.NewSession = func(ctx context.Context, conn *Conn) (Session, error) {
			rec.note("from %s to %s", conn.RemoteAddr(), conn.LocalAddr())
			return session(ctx, conn)
		}
	}
	const v2 = `\r\n\r\n\x00\r\nQUIT\n`
	runDialogues(t, []dialogue{
		{"version 1", trust, `
			c> "PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\r\n"
			s: 220 *
			= from 192.0.2.7:56324 to 198.51.100.1:25`},
		{"version 1, IPv6", trust, `
			c> "PROXY TCP6 2001:db8::7 2001:db8::1 56324 25\r\n"
			s: 220 *
			= from [2001:db8::7]:56324 to [2001:db8::1]:25`},
		{"version 1, unknown", trust, `
			c> "PROXY UNKNOWN\r\n"
			s: 220 *
			= from 127.0.0.1:*`},
		{"version 2 in pieces", trust, `
			c> "\r\n\r\n\x00\r\nQU"
			wait
			c> "IT\n\x21\x11\x00\x0f\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x00\x19\x04\x00"
			wait
			c> "\x00"
			s: 220 *
			= from 192.0.2.7:56324 to 198.51.100.1:25`},
		{"version 2, local", trust, `
			c> "` + v2 + `\x20\x00\x00\x00"
			s: 220 *
			= from 127.0.0.1:*`},
		{"none from a proxy", trust, `
			c: EHLO x
			s: EOF`},
		{"version 2, wrong version", trust, `
			c> "` + v2 + `\x31\x11\x00\x00"
			s: EOF`},
		{"version 2, too short for its addresses", trust, `
			c> "` + v2 + `\x21\x11\x00\x04abcd"
			s: EOF`},
		{"too long", trust, `
			c> "PROXY TCP4 ` + strings.Repeat("x", 120) + `"
			s: EOF`},
		{"talk behind it before the greeting", trust, `
			c> "PROXY UNKNOWN\r\nEHLO x\r\n"
			s: 554 5.5.0 *
			s: EOF`},
		{"from a stranger", nil, `
			s: 220 *
			c> "PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\r\n"
			s: 500 5.5.1 *`},
		{"before TLS", func(c *Config, rec *recorder) {
			trust(c, rec)
			c.TLS, c.ImplicitTLS = serverTLS, true
		}, `
			c> "PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\r\n"
			tls
			s: 220 *
			= from 192.0.2.7:56324 to 198.51.100.1:25`},
	})
}

// TestProxyHeaderWithTLS sends the header and the first octets of TLS in one piece.
func TestProxyHeaderWithTLS(t *testing.T) {
	rec := &recorder{}
	cfg := config(rec)
	cfg.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	cfg.TLS, cfg.ImplicitTLS = serverTLS, true
	k := dial(t, start(t, cfg), rec)
	k.conn = &prefixed{Conn: k.conn, prefix: "PROXY UNKNOWN\r\n"}
	k.follow("tls\ns: 220 *")
}

// prefixed puts a prefix before what is written first.
type prefixed struct {
	net.Conn
	prefix string
}

func (p *prefixed) Write(b []byte) (int, error) {
	n, err := p.Conn.Write(append([]byte(p.prefix), b...))
	n -= len(p.prefix)
	p.prefix = ""
	return n, err
}

// TestAdmit is about connections that are turned away before anything else.
func TestAdmit(t *testing.T) {
	left := make(chan netip.AddrPort, 2)
	cfg := config(&recorder{})
	admitted := 0
	cfg.Admit = func(_ context.Context, remote netip.AddrPort) (func(), error) {
		if admitted++; admitted > 1 {
			return nil, &Reply{Code: 421, Enhanced: "4.7.0", Text: "one is enough"}
		}
		return func() { left <- remote }, nil
	}
	addr := start(t, cfg)
	one := dial(t, addr, nil)
	one.follow("s: 220 *")
	dial(t, addr, nil).follow("s: 421 4.7.0 one is enough\ns: EOF")
	one.conn.Close()
	if got := <-left; got.String() != one.conn.LocalAddr().String() {
		t.Errorf("%v left, want %v", got, one.conn.LocalAddr())
	}
}

// TestShutdown ends Serve while one connection waits for a command and another is in a message.
func TestShutdown(t *testing.T) {
	rec := &recorder{}
	cfg := config(rec)
	cfg.Grace = 5 * time.Second
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln) }()
	idle, busy := dial(t, ln.Addr().String(), rec), dial(t, ln.Addr().String(), rec)
	idle.follow(hello)
	busy.follow(begin + "c: DATA\ns: 354 *\nc: half of it\nwait")
	cancel()
	idle.follow("s: 421 4.3.2 *\ns: EOF")
	busy.follow("c: the rest\nc: .\ns: 250 2.0.0 OK\ns: 421 4.3.2 *\ns: EOF")
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("still listening")
	}
}

// TestShutdownGrace closes a connection that does not come to an end.
func TestShutdownGrace(t *testing.T) {
	rec := &recorder{}
	cfg := config(rec)
	cfg.Grace = 50 * time.Millisecond
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln) }()
	k := dial(t, ln.Addr().String(), rec)
	k.follow(begin + "c: DATA\ns: 354 *\nc: half of it")
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
	k.follow("= data * then *\n= reset\n= logout")
}

// TestServeFails returns what the listener failed with.
func TestServeFails(t *testing.T) {
	s, err := NewServer(config(&recorder{}))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := s.Serve(context.Background(), ln); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestConfig(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no host name":         func(c *Config) { c.Hostname = "" },
		"no session":           func(c *Config) { c.NewSession = nil },
		"implicit without TLS": func(c *Config) { c.ImplicitTLS = true },
		"demanded without TLS": func(c *Config) { c.RequireTLS = true },
		"too few recipients":   func(c *Config) { c.MaxRecipients = 99 },
	} {
		cfg := config(&recorder{})
		change(&cfg)
		if _, err := NewServer(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestHeloIsClean is about what a session may put in a header field.
func TestHeloIsClean(t *testing.T) {
	for in, want := range map[string]string{
		"mail.example.org":   "mail.example.org",
		"[IPv6:2001:db8::1]": "[IPv6:2001:db8::1]",
		"a(b)c;\"d\\":        "a?b?c??d?",
		"bücher":             "b?cher",
	} {
		if got := cleanHelo(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// oneWriter counts writes on a connection that is no socket of the kernel.
type oneWriter struct {
	net.Conn
	writes *int
}

func (o oneWriter) Write(b []byte) (int, error) {
	*o.writes++
	return o.Conn.Write(b)
}

// TestOneWritePerGroup wants a pipelined group to be answered with one write, and EHLO too.
func TestOneWritePerGroup(t *testing.T) {
	s, err := NewServer(config(&recorder{}))
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	writes := 0
	v := &serving{Server: s, ctx: context.Background()}
	ended := make(chan struct{})
	go func() {
		newConn(v, oneWriter{far, &writes}).serve()
		close(ended)
	}()
	buf := make([]byte, 64<<10)
	for _, send := range []string{"", "EHLO x\r\n",
		"MAIL FROM:<a@example.org>\r\n" + strings.Repeat("RCPT TO:<b@example.com>\r\n", 20) + "DATA\r\n",
		"x\r\n.\r\nQUIT\r\n"} {
		if send != "" {
			if _, err := io.WriteString(near, send); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := near.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	near.Close()
	<-ended
	if writes != 4 {
		t.Errorf("%d writes, want 4", writes)
	}
}
