package interop

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// talk is a conversation with a server, octet by octet, for what no well-behaved client sends.
type talk struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

// dial connects and reads the greeting.
func dial(t *testing.T, addr string) *talk {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(60 * time.Second))
	k := &talk{t: t, conn: conn, r: bufio.NewReader(conn)}
	k.expect("220")
	return k
}

// startTLS continues within TLS, and says EHLO again.
func (k *talk) startTLS() *talk {
	k.t.Helper()
	k.say("STARTTLS", "220")
	conn := tls.Client(k.conn, &tls.Config{InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		k.t.Fatal(err)
	}
	k.conn, k.r = conn, bufio.NewReader(conn)
	k.say("EHLO client.test", "250")
	return k
}

// logIn authenticates with PLAIN (RFC 4616).
func (k *talk) logIn(user, password string) {
	k.t.Helper()
	k.say("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+password)), "235")
}

// write sends octets as they are.
func (k *talk) write(raw string) {
	k.t.Helper()
	if _, err := k.conn.Write([]byte(raw)); err != nil {
		k.t.Fatalf("write %.60q: %v", raw, err)
	}
}

// reply reads a reply of one or more lines; where the connection ends before it does, err says how.
func (k *talk) reply() (string, error) {
	var b strings.Builder
	for {
		line, err := k.r.ReadString('\n')
		b.WriteString(line)
		if err != nil || len(line) < 4 || line[3] != '-' {
			return b.String(), err
		}
	}
}

// expect reads a reply that is to begin with a code.
func (k *talk) expect(code string) string {
	k.t.Helper()
	got, err := k.reply()
	if err != nil || !strings.HasPrefix(got, code) {
		k.t.Fatalf("reply %q, %v, want %s", got, err, code)
	}
	return got
}

// say sends a line and expects a reply.
func (k *talk) say(line, code string) string {
	k.t.Helper()
	k.write(line + "\r\n")
	got, err := k.reply()
	if err != nil || !strings.HasPrefix(got, code) {
		k.t.Fatalf("%.100s: reply %q, %v, want %s", line, got, err, code)
	}
	return got
}

// rest returns every octet the server still sends until it closes the connection or is silent for a while.
func (k *talk) rest(patience time.Duration) string {
	var b strings.Builder
	buf := make([]byte, 4096)
	for {
		k.conn.SetReadDeadline(time.Now().Add(patience))
		n, err := k.r.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			return b.String()
		}
	}
}

// letter is a message with its envelope, as one client hands it over.
type letter struct {
	from   string
	params string // of MAIL
	to     []string
	notify string // parameters of each RCPT
	text   string // with CRLF
}

// post hands letters to a server over one connection with DATA.
func post(t *testing.T, addr string, letters ...letter) {
	t.Helper()
	k := dial(t, addr)
	k.say("EHLO client.test", "250")
	for _, l := range letters {
		k.hand(l)
	}
	k.say("QUIT", "221")
}

// hand sends one letter and returns the reply.
func (k *talk) hand(l letter) string {
	k.t.Helper()
	k.say(strings.TrimSpace(fmt.Sprintf("MAIL FROM:<%s> %s", l.from, l.params)), "250")
	for _, to := range l.to {
		k.say(strings.TrimSpace(fmt.Sprintf("RCPT TO:<%s> %s", to, l.notify)), "250")
	}
	k.say("DATA", "354")
	text := strings.ReplaceAll(l.text, "\r\n.", "\r\n..")
	return k.say(text+".", "250")
}

func hostPort(t *testing.T, addr string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}
