package smtp

import (
	"strings"
	"testing"
	"time"
)

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
			c.Password = anybody
		}, hello + `
			c> "AUTH PLAIN AGEAYg==\r\nNOOP\r\n"
			s: 554 5.5.0 *
			s: EOF`},
		{"an answer to AUTH", func(c *Config, _ *recorder) {
			c.PlaintextAuth = true
			c.Password = anybody
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
