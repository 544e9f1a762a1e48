package smtp

import (
	"strings"
	"testing"
	"time"
)

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
