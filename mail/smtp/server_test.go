package smtp

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"
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
			s: 500 5.5.2 *
			c: NOOP ` + strings.Repeat("x", 40_000) + `
			s: 500 5.5.2 *
			c: NOOP
			s: 250 *
			c> "NOOP ` + strings.Repeat("x", 3000) + `\nMAIL FROM:<>\r\n"
			s: 500 5.5.2 line ends in a bare LF*
			s: EOF`},
		{"a command line without end", nil, hello + `
			c> "NOOP ` + strings.Repeat("x", 80_000) + `"
			s: 500 5.5.2 *
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
