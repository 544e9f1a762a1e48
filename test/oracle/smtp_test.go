package oracle

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/smtp"
)

// inbox is what both servers deliver into.
type inbox struct {
	mu   sync.Mutex
	got  []string // guarded by mu; "from > to,to: message"
	auth string   // guarded by mu
}

func (b *inbox) put(from string, to []string, msg []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, fmt.Sprintf("%s > %s: %s", from, strings.Join(to, ","), msg))
}

func (b *inbox) take() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	got := b.got
	b.got = nil
	return got
}

// ourSession is a session of our server.
type ourSession struct {
	box  *inbox
	from string
	to   []string
}

func (s *ourSession) Mail(_ context.Context, from mail.Address, _ smtp.MailParams) error {
	s.from = from.String()
	return nil
}

func (s *ourSession) Rcpt(_ context.Context, to mail.Recipient) error {
	if to.Address.Local == "unknown" {
		return &smtp.Reply{Code: 550, Enhanced: "5.1.1", Text: "no such user"}
	}
	s.to = append(s.to, to.Address.String())
	return nil
}

func (s *ourSession) Data(_ context.Context, r io.Reader) (smtp.Reply, error) {
	b, err := io.ReadAll(r)
	if err == nil {
		s.box.put(s.from, s.to, b)
	}
	return smtp.Reply{}, err
}

func (s *ourSession) Reset()  { s.to = nil }
func (s *ourSession) Logout() {}

// theirSession is a session of go-smtp's.
type theirSession struct{ ourSession }

func (s *theirSession) Mail(from string, _ *gosmtp.MailOptions) error {
	s.from = from
	return nil
}

func (s *theirSession) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	if strings.HasPrefix(to, "unknown@") {
		return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	}
	s.to = append(s.to, to)
	return nil
}

func (s *theirSession) Data(r io.Reader) error {
	_, err := s.ourSession.Data(context.Background(), r)
	return err
}

func (s *theirSession) Logout() error            { return nil }
func (s *theirSession) AuthMechanisms() []string { return []string{sasl.Plain, sasl.Login} }

func (s *theirSession) Auth(mech string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "alice" || password != "secret" {
			return errors.New("no")
		}
		s.box.mu.Lock()
		defer s.box.mu.Unlock()
		s.box.auth = user
		return nil
	}), nil
}

// ourServer serves until the test ends and returns the address.
func ourServer(t testing.TB, box *inbox, change func(*smtp.Config)) string {
	cfg := smtp.Config{
		Hostname: "mx.example.com", TLS: serverTLS(t),
		NewSession: func(context.Context, *smtp.Conn) (smtp.Session, error) { return &ourSession{box: box}, nil },
		Password: func(_ context.Context, _ *smtp.Conn, user, password string) (string, error) {
			if user != "alice" || password != "secret" {
				return "", errors.New("no")
			}
			return user, nil
		},
	}
	if change != nil {
		change(&cfg)
	}
	s, err := smtp.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln := listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// theirServer is go-smtp with all its extensions.
func theirServer(t testing.TB, box *inbox, change func(*gosmtp.Server)) string {
	s := gosmtp.NewServer(gosmtp.BackendFunc(func(*gosmtp.Conn) (gosmtp.Session, error) {
		return &theirSession{ourSession{box: box}}, nil
	}))
	s.Domain, s.TLSConfig, s.MaxMessageBytes, s.MaxRecipients = "mx.example.com", serverTLS(t), 50<<20, 1000
	s.EnableSMTPUTF8, s.EnableDSN, s.EnableBINARYMIME, s.EnableREQUIRETLS = true, true, true, true
	s.AllowInsecureAuth = true
	s.MaxLineLength = 1 << 20 // its limit for commands holds for messages too
	if change != nil {
		change(s)
	}
	ln := listen(t)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ln) }()
	t.Cleanup(func() {
		s.Close()
		<-ended
	})
	return ln.Addr().String()
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func serverTLS(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"mx.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// untrusting is for clients of servers whose certificate nobody signed.
var untrusting = &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example.com"}

var smtpMessages = []string{
	"Subject: x\r\n\r\nhello\r\n",
	"Subject: dots\r\n\r\n.\r\n..\r\n.x\r\n\r\n.\r\n",
	"Subject: long\r\n\r\n" + strings.Repeat(".0123456789", 20000) + "\r\n",
	"Subject: many\r\n\r\n" + strings.Repeat(".line\r\n\r\n", 30000),
}

// TestGoSMTPClient sends with go-smtp's client to our server.
func TestGoSMTPClient(t *testing.T) {
	box := &inbox{}
	addr := ourServer(t, box, nil)
	c, err := gosmtp.DialStartTLS(addr, untrusting)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, ext := range []string{"PIPELINING", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN", "SIZE", "LIMITS", "REQUIRETLS",
		"ENHANCEDSTATUSCODES", "AUTH"} {
		if ok, _ := c.Extension(ext); !ok {
			t.Errorf("%s is not offered", ext)
		}
	}
	if err := c.Auth(sasl.NewPlainClient("", "alice", "wrong")); err == nil {
		t.Error("wrong password accepted")
	}
	if err := c.Auth(sasl.NewLoginClient("alice", "secret")); err != nil {
		t.Errorf("AUTH LOGIN: %v", err)
	}
	for _, msg := range smtpMessages {
		if err := c.Mail("a@example.org", &gosmtp.MailOptions{Size: int64(len(msg)), Return: gosmtp.DSNReturnHeaders,
			EnvelopeID: "an=id", RequireTLS: true, UTF8: true}); err != nil {
			t.Fatal(err)
		}
		if err := c.Rcpt("b@example.com", &gosmtp.RcptOptions{Notify: []gosmtp.DSNNotify{gosmtp.DSNNotifyDelayed},
			OriginalRecipientType: gosmtp.DSNAddressTypeRFC822, OriginalRecipient: "o@example.com"}); err != nil {
			t.Fatal(err)
		}
		var refused *gosmtp.SMTPError
		if err := c.Rcpt("unknown@example.com", nil); !errors.As(err, &refused) || refused.Code != 550 ||
			refused.EnhancedCode != (gosmtp.EnhancedCode{5, 1, 1}) {
			t.Errorf("unknown recipient: %v", err)
		}
		w, err := c.Data()
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, msg)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got := box.take(); len(got) != 1 || got[0] != "a@example.org > b@example.com: "+msg {
			t.Errorf("message of %d octets did not come through", len(msg))
		}
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
}

// TestGoSMTPClientOfLMTP does so with LMTP.
func TestGoSMTPClientOfLMTP(t *testing.T) {
	box := &inbox{}
	addr := ourServer(t, box, func(c *smtp.Config) { c.LMTP = true })
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := gosmtp.NewClientLMTP(conn)
	defer c.Close()
	if err := errors.Join(c.Hello("client.example.org"), c.Mail("a@example.org", nil), c.Rcpt("b@example.com", nil),
		c.Rcpt("c@example.com", nil)); err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "x\r\n")
	if replies, err := w.CloseWithLMTPResponse(); err != nil || len(replies) != 2 {
		t.Fatalf("%d replies, %v", len(replies), err)
	}
	if got := box.take(); len(got) != 1 || got[0] != "a@example.org > b@example.com,c@example.com: x\r\n" {
		t.Errorf("got %q", got)
	}
}

// TestGoSMTPServer sends with our client to go-smtp's server.
func TestGoSMTPServer(t *testing.T) {
	for name, cfg := range map[string]smtp.ClientConfig{
		"all": {}, "no chunking": {NoChunking: true}, "no pipelining": {NoPipelining: true},
		"neither": {NoChunking: true, NoPipelining: true},
	} {
		t.Run(name, func(t *testing.T) {
			box := &inbox{}
			conn, err := net.Dial("tcp", theirServer(t, box, nil))
			if err != nil {
				t.Fatal(err)
			}
			cfg.Hello = "client.example.org"
			c := smtp.NewClient(conn, cfg)
			defer c.Close()
			ctx := context.Background()
			if err := errors.Join(c.Hello(ctx), c.StartTLS(ctx, untrusting)); err != nil {
				t.Fatal(err)
			}
			if err := c.Auth(ctx, "alice", "wrong"); err == nil {
				t.Error("wrong password accepted")
			}
			if err := c.Auth(ctx, "alice", "secret"); err != nil {
				t.Error(err)
			}
			for _, msg := range smtpMessages {
				sendOurs(t, c, box, msg)
			}
			if err := c.Quit(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

func sendOurs(t *testing.T, c *smtp.Client, box *inbox, msg string) {
	t.Helper()
	env := &mail.Envelope{From: mail.Address{Local: "a", Domain: "example.org"}, RequireTLS: true, SMTPUTF8: true,
		Ret: mail.RetHeaders, EnvID: "an=id"}
	for _, local := range []string{"b", "unknown", "c"} {
		env.Recipients = append(env.Recipients, mail.Recipient{Address: mail.Address{Local: local, Domain: "example.com"},
			Notify: mail.NotifyFailure | mail.NotifyDelay, ORcpt: "rfc822;o@example.com"})
	}
	results, err := c.Send(context.Background(), env, strings.NewReader(msg), int64(len(msg)))
	if err != nil {
		t.Fatalf("message of %d octets: %v", len(msg), err)
	}
	if !results[0].Accepted() || !results[2].Accepted() || results[1].Stage != smtp.AtRcpt ||
		results[1].Reply.String() != "550 5.1.1 no such user" {
		t.Errorf("results %+v", results)
	}
	if got := box.take(); len(got) != 1 || got[0] != "a@example.org > b@example.com,c@example.com: "+msg {
		t.Errorf("message of %d octets did not come through", len(msg))
	}
}

// TestGoSMTPServerOfLMTP does so with LMTP.
func TestGoSMTPServerOfLMTP(t *testing.T) {
	box := &inbox{}
	conn, err := net.Dial("tcp", theirServer(t, box, func(s *gosmtp.Server) { s.LMTP = true }))
	if err != nil {
		t.Fatal(err)
	}
	c := smtp.NewClient(conn, smtp.ClientConfig{Hello: "client.example.org", LMTP: true})
	defer c.Close()
	if err := c.Hello(context.Background()); err != nil {
		t.Fatal(err)
	}
	env := &mail.Envelope{From: mail.Address{Local: "a", Domain: "example.org"}}
	for _, local := range []string{"b", "unknown", "c"} {
		env.Recipients = append(env.Recipients, mail.Recipient{Address: mail.Address{Local: local, Domain: "example.com"}})
	}
	results, err := c.Send(context.Background(), env, strings.NewReader("x\r\n"), 3)
	if err != nil {
		t.Fatal(err)
	}
	if !results[0].Accepted() || results[1].Stage != smtp.AtRcpt || !results[2].Accepted() {
		t.Errorf("results %+v", results)
	}
}

// BenchmarkSMTPServer sends messages over loopback to both servers with the same client, which does
// next to nothing but system calls. Both sessions throw the message away.
func BenchmarkSMTPServer(b *testing.B) {
	for _, size := range []int{1 << 10, 10 << 10, 100 << 10} {
		msg := []byte("Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("0123456789", 7)+"\r\n", size/72))
		for name, addr := range map[string]string{
			"tallypost": ourServer(b, &inbox{}, func(c *smtp.Config) {
				c.NewSession = func(context.Context, *smtp.Conn) (smtp.Session, error) { return &oursDiscard{}, nil }
			}),
			"go-smtp": theirServer(b, &inbox{}, func(s *gosmtp.Server) {
				s.Backend = gosmtp.BackendFunc(func(*gosmtp.Conn) (gosmtp.Session, error) { return &theirsDiscard{}, nil })
			}),
		} {
			b.Run(fmt.Sprintf("%s/%dKiB", name, size>>10), func(b *testing.B) { blastSMTP(b, addr, msg) })
		}
	}
}

type oursDiscard struct{ ourSession }

func (*oursDiscard) Data(_ context.Context, r io.Reader) (smtp.Reply, error) {
	_, err := io.Copy(io.Discard, r)
	return smtp.Reply{}, err
}

type theirsDiscard struct{ theirSession }

func (*theirsDiscard) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

func blastSMTP(b *testing.B, addr string, msg []byte) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, 4<<10)
	await := func(want string) {
		for got := buf[:0]; !bytes.Contains(got, []byte(want)); {
			n, err := conn.Read(buf)
			if err != nil {
				b.Fatal(err)
			}
			got = buf[:n]
		}
	}
	await("220 ")
	io.WriteString(conn, "EHLO c\r\n")
	await("250 ")
	head := []byte("MAIL FROM:<alice@example.org>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n")
	body := append(bytes.Clone(msg), ".\r\n"...)
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		conn.Write(head)
		await("354 ")
		conn.Write(body)
		await("250 2.0.0")
	}
}
