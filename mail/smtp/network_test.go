package smtp

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	stdsmtp "net/smtp"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/memnet"
)

// TestOverMemnet sends over an in-memory network with latency, on which nothing is a socket of the
// kernel.
func TestOverMemnet(t *testing.T) {
	n := memnet.New(memnet.Config{})
	server, sender := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	n.SetLink(server, sender, memnet.Link{Latency: time.Millisecond})
	rec := &recorder{}
	cfg := config(rec)
	cfg.TLS = serverTLS
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := n.Host(server).Listen(25)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln) }()
	conn, err := n.Host(sender).Dial(background(t), "10.0.0.1:25")
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(conn, ClientConfig{Hello: "client.example.org"})
	defer c.Close()
	if err := c.Hello(background(t)); err != nil {
		t.Fatal(err)
	}
	for _, overTLS := range []bool{false, true} {
		if overTLS {
			if err := c.StartTLS(background(t), clientTLS); err != nil {
				t.Fatal(err)
			}
		}
		r := send(t, c, envelope(t, "a@example.org", "b@example.com", "unknown@example.com"), "x\r\n")
		if !r[0].Accepted() || r[1].Stage != AtRcpt {
			t.Error(outcome(r))
		}
	}
	if p := c.Peer(); p.Addr != "10.0.0.1" || p.TLSVersion == "" {
		t.Errorf("peer %+v", p)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// TestStandardLibrary sends with net/smtp.
func TestStandardLibrary(t *testing.T) {
	rec := &recorder{}
	cfg := config(rec)
	logins(&cfg, rec)
	cfg.TLS, cfg.PlaintextAuth = serverTLS, false
	c, err := stdsmtp.Dial(start(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.StartTLS(&tls.Config{RootCAs: clientTLS.RootCAs, ServerName: "mx.example.com"}); err != nil {
		t.Fatal(err)
	}
	// Its PlainAuth insists on the name that was dialled.
	if err := c.Auth(stdsmtp.PlainAuth("", "alice", "secret", "127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	if err := c.Mail("a@example.org"); err != nil {
		t.Fatal(err)
	}
	if err := c.Rcpt("b@example.com"); err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(w, ".dot\r\n")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Quit(); err != nil {
		t.Fatal(err)
	}
	k := &talk{t: t, rec: rec}
	k.follow(`
		= password "alice" "secret"
		= attempt PLAIN "alice" "alice@example.com" false
		= mail <a@example.org> body=8BITMIME smtputf8
		= rcpt <b@example.com>
		= data ".dot\r\n"
		= reset
		= logout`)
}
