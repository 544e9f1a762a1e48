package smtp

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/mail"
)

func connect(t testing.TB, addr string, cfg ClientConfig) *Client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Hello == "" {
		cfg.Hello = "client.example.org"
	}
	c := NewClient(conn, cfg)
	t.Cleanup(func() { c.Close() })
	if err := c.Hello(background(t)); err != nil {
		t.Fatal(err)
	}
	return c
}

func background(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func address(t testing.TB, s string) mail.Address {
	t.Helper()
	if s == "" {
		return mail.Address{}
	}
	a, err := mail.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func envelope(t testing.TB, from string, to ...string) *mail.Envelope {
	t.Helper()
	env := &mail.Envelope{From: address(t, from)}
	for _, s := range to {
		env.Recipients = append(env.Recipients, mail.Recipient{Address: address(t, s)})
	}
	return env
}

func send(t testing.TB, c *Client, env *mail.Envelope, msg string) []Result {
	t.Helper()
	results, err := c.Send(background(t), env, strings.NewReader(msg), int64(len(msg)))
	if err != nil {
		t.Fatalf("Send: %v", err)
	}
	return results
}

func TestSendToOurServer(t *testing.T) {
	const msg = "Subject: x\r\n\r\n.dot\r\n..\r\nend"
	const want = "data 250 2.0.0 OK, rcpt 550 5.1.1 no such user"
	for _, tt := range []struct {
		name string
		cfg  ClientConfig
		tls  bool
	}{
		{"all", ClientConfig{}, false},
		{"no chunking", ClientConfig{NoChunking: true}, false},
		{"no pipelining", ClientConfig{NoPipelining: true}, false},
		{"neither", ClientConfig{NoPipelining: true, NoChunking: true}, false},
		{"tls", ClientConfig{}, true},
		{"tls, neither", ClientConfig{NoPipelining: true, NoChunking: true}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rec := &recorder{}
			cfg := config(rec)
			cfg.TLS = serverTLS
			c := connect(t, start(t, cfg), tt.cfg)
			if tt.tls {
				if err := c.StartTLS(background(t), clientTLS); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				env := envelope(t, "a@example.org", "b@example.com", "unknown@example.com")
				if got := outcome(send(t, c, env, msg)); got != want {
					t.Errorf("got %s", got)
				}
				got := strings.Join(rec.take(), "\n")
				if !strings.Contains(got, fmt.Sprintf("data %q", msg+"\r\n")) {
					t.Errorf("server saw %s", got)
				}
			}
			results := send(t, c, envelope(t, "a@example.org", "unknown@example.com"), msg)
			if results[0].Stage != AtRcpt {
				t.Errorf("results %+v", results)
			}
			results = send(t, c, envelope(t, "unknown@example.org", "b@example.com"), msg)
			if results[0].Stage != AtMail {
				t.Errorf("results %+v", results)
			}
			if err := c.Quit(background(t)); err != nil {
				t.Errorf("Quit: %v", err)
			}
		})
	}
}

func TestAuth(t *testing.T) {
	for _, mechs := range []string{"SCRAM-SHA-256-PLUS SCRAM-SHA-256", "SCRAM-SHA-256",
		"PLAIN", "LOGIN"} {
		t.Run(mechs, func(t *testing.T) {
			cfg := config(&recorder{})
			cfg.TLS = serverTLS
			cfg.Password = func(_ context.Context, _ *Conn, user, password string) (string, error) {
				if user == "us,er" && password == "se=cret" {
					return "account", nil
				}
				return "", ErrNoUser
			}
			cfg.Scram = func(_ context.Context, _ *Conn, user string) (ScramKeys, error) {
				if user != "us,er" {
					return ScramKeys{}, ErrNoUser
				}
				return keysOf("se=cret"), nil
			}
			addr := start(t, cfg)
			for _, tt := range []struct {
				user, password string
				ok             bool
			}{{"us,er", "se=cret", true}, {"us,er", "wrong", false}, {"other", "se=cret", false}} {
				c := connect(t, addr, ClientConfig{})
				if err := c.StartTLS(background(t), clientTLS); err != nil {
					t.Fatal(err)
				}
				c.ext.Auth = strings.Fields(mechs)
				if mechs == "SCRAM-SHA-256" {
					// As a client that cannot bind; one that can takes this for an attack, as it
					// should.
					c.state = nil
					c.cfg.PlaintextAuth = true
				}
				if err := c.Auth(background(t), tt.user, tt.password); (err == nil) != tt.ok {
					t.Errorf("%s %s: %v", tt.user, tt.password, err)
				}
			}
		})
	}
}
