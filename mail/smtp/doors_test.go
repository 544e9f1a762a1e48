package smtp

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
)

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
			rec.note("from %s to %s helo=%s account=%s",
				conn.RemoteAddr(), conn.LocalAddr(), conn.Helo(), conn.Account())
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
