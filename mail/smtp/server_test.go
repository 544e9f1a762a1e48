package smtp

import (
	"testing"
)

// hello is a greeting and EHLO.
const hello = `
	s: 220 mx.example.com ESMTP ready
	c: EHLO client.example.org
	s: ...
`

func TestDialogue(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"a message", hello + `
			c: MAIL FROM:<a@example.org>
			s: 250 2.1.0 OK
			= mail <a@example.org>
			c: RCPT TO:<b@example.com>
			s: 250 2.1.5 OK
			= rcpt <b@example.com>
			c: DATA
			s: 354 *
			c> "Subject: x\r\n\r\n..two\r\n.one\r\n.\r\n"
			s: 250 2.0.0 OK
			= data "Subject: x\r\n\r\n.two\r\none\r\n"
			= reset
			c: QUIT
			s: 221 2.0.0 *
			s: EOF
			= logout`},
		{"pipelined", hello + `
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
		{"chunks", hello + `
			c> "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nBDAT 5\r\n.\r\nabBDAT 3\r\nc\r\nBDAT 0 LAST\r\nQUIT\r\n"
			s: 250 2.1.0 OK
			s: 250 2.1.5 OK
			s: 250 2.0.0 5 octets so far
			s: 250 2.0.0 8 octets so far
			s: 250 2.0.0 OK
			s: 221 *
			= mail <a@example.org>
			= rcpt <b@example.com>
			= data ".\r\nabc\r\n"
			= reset
			= logout`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rec := &recorder{}
			dial(t, start(t, config(rec)), rec).follow(tt.script)
		})
	}
}
