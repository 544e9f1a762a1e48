package node

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/mail/account"
)

// runNode runs a node of x.test with the account ada@x.test, as the configuration text adds to small, and
// returns the address of its port for other servers.
func runNode(t *testing.T, text string) string {
	t.Helper()
	cfg, err := load(t, small+text)
	if err != nil {
		t.Fatal(err)
	}
	cfg.SMTP.Listen, cfg.DNS.Servers = []string{"127.0.0.1:0"}, []string{"127.0.0.1:1"}
	cfg.Submission.Listen, cfg.Submission.ListenTLS = nil, nil
	cfg.DataDir, cfg.DKIM.Sign = t.TempDir(), "never"
	cfg.Mailbox.Root = filepath.Join(cfg.DataDir, "mail")
	accounts, err := OpenAccounts(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := accounts.Add(account.Account{Address: addr(t, "ada@x.test")}); err != nil {
		t.Fatal(err)
	}
	n, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	at := n.servers[0].listeners[0].Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return at
}

// client is one connection in the clear.
type client struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func dial(t *testing.T, at string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return &client{t, conn, bufio.NewReader(conn)}
}

// say sends a line and wants a reply that begins with a code and has some words.
func (c *client) say(line, code string, words ...string) string {
	c.t.Helper()
	if line != "" {
		fmt.Fprintf(c.conn, "%s\r\n", line)
	}
	var reply strings.Builder
	for {
		s, err := c.in.ReadString('\n')
		reply.WriteString(s)
		if err != nil {
			c.t.Fatalf("%s: %v after %q", line, err, reply.String())
		}
		if len(s) > 3 && s[3] != '-' {
			break
		}
	}
	for _, w := range append(words, code) {
		if !strings.Contains(reply.String(), w) {
			c.t.Errorf("%s: %q has no %q", line, reply.String(), w)
		}
	}
	return reply.String()
}

// TestProxies: what HAProxy says of a client decides what it may do.
func TestProxies(t *testing.T) {
	at := runNode(t, "[smtp]\nproxies = [\"127.0.0.0/8\"]\nrelay_from = [\"192.0.2.0/24\"]\n")
	for _, c := range []struct{ header, code, words string }{
		{"PROXY TCP4 192.0.2.7 127.0.0.1 9999 25\r\n", "250", ""},
		{"PROXY TCP4 198.51.100.7 127.0.0.1 9999 25\r\n", "550", "does not relay for you"},
	} {
		d := dial(t, at)
		fmt.Fprint(d.conn, c.header)
		d.say("", "220")
		d.say("EHLO c.test", "250")
		d.say("MAIL FROM:<>", "250")
		d.say("RCPT TO:<u@y.test>", c.code, c.words)
	}
}

// TestXClient: a server in front of this one says who the client is.
func TestXClient(t *testing.T) {
	at := runNode(t, "[smtp]\nxclient = [\"127.0.0.1/32\"]\nrelay_from = [\"192.0.2.0/24\"]\n")
	d := dial(t, at)
	d.say("", "220")
	d.say("EHLO c.test", "250", "XCLIENT NAME ADDR")
	d.say("XCLIENT ADDR=192.0.2.7 NAME=c.test", "220")
	d.say("EHLO c.test", "250")
	d.say("MAIL FROM:<>", "250")
	d.say("RCPT TO:<u@y.test>", "250")

	d = dial(t, runNode(t, ""))
	d.say("", "220")
	if strings.Contains(d.say("EHLO c.test", "250"), "XCLIENT") {
		t.Error("XCLIENT is offered to a stranger")
	}
	d.say("XCLIENT ADDR=192.0.2.7", "550")
}

// TestBinaryMIME: only who asks for it has to take binary parts.
func TestBinaryMIME(t *testing.T) {
	d := dial(t, runNode(t, "[smtp]\nbinarymime = true\n"))
	d.say("", "220")
	d.say("EHLO c.test", "250", "BINARYMIME")
	d.say("MAIL FROM:<> BODY=BINARYMIME", "250")
	d.say("RCPT TO:<ada@x.test>", "250")
	text := "Content-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\na\nb\rc\x00"
	fmt.Fprintf(d.conn, "BDAT %d LAST\r\n%s", len(text), text)
	d.say("", "250", "queued")
}
