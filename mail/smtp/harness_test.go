package smtp

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// recorder is a session that accepts what its name does not forbid and writes down what it was
// told. Local parts have a meaning: "unknown" is refused, "later" is deferred, "broken" fails with
// an error that the client must not see, "panic" panics.
type recorder struct {
	mu     sync.Mutex
	events []string // guarded by mu

	noRead  bool  // Data returns without reading
	refuse  error // what Data answers after reading
	reply   Reply // what it answers otherwise
	each    bool  // implements EachSession, in wrapper
	onData  func(r io.Reader)
	greeter error
}

func (s *recorder) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, fmt.Sprintf(format, args...))
}

// take returns what was noted since the last call.
func (s *recorder) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.events
	s.events = nil
	return e
}

func (s *recorder) Mail(_ context.Context, from mail.Address, p MailParams) error {
	if err := verdict(from); err != nil {
		return err
	}
	s.note("mail <%s>%s", from, describe(p))
	return nil
}

func describe(p MailParams) string {
	var b strings.Builder
	if p.Size != 0 {
		fmt.Fprintf(&b, " size=%d", p.Size)
	}
	if p.Body != "" {
		fmt.Fprintf(&b, " body=%s", p.Body)
	}
	if p.SMTPUTF8 {
		b.WriteString(" smtputf8")
	}
	if p.RequireTLS {
		b.WriteString(" requiretls")
	}
	if p.Ret != "" {
		fmt.Fprintf(&b, " ret=%s", p.Ret)
	}
	if p.EnvID != "" {
		fmt.Fprintf(&b, " envid=%q", p.EnvID)
	}
	if p.Auth != "" {
		fmt.Fprintf(&b, " auth=%q", p.Auth)
	}
	if !p.HoldUntil.IsZero() {
		fmt.Fprintf(&b, " hold=%s", p.HoldUntil.UTC().Format(time.RFC3339))
	}
	return b.String()
}

func (s *recorder) Rcpt(_ context.Context, to mail.Recipient) error {
	if err := verdict(to.Address); err != nil {
		return err
	}
	var b strings.Builder
	if to.Notify != 0 {
		fmt.Fprintf(&b, " notify=%d", to.Notify)
	}
	if to.ORcpt != "" {
		fmt.Fprintf(&b, " orcpt=%q", to.ORcpt)
	}
	s.note("rcpt <%s>%s", to.Address, b.String())
	return nil
}

func verdict(a mail.Address) error {
	switch a.Local {
	case "unknown":
		return &Reply{Code: 550, Enhanced: "5.1.1", Text: "no such user"}
	case "later":
		return &Reply{Code: 450, Enhanced: "4.2.1", Text: "mailbox busy"}
	case "inject":
		return &Reply{Code: 550, Enhanced: "5.7.1", Text: "no\r\n250 2.0.0 yes\x00\u2028"}
	case "broken":
		return errors.New("secret detail of the database")
	case "panic":
		panic("secret panic")
	}
	return nil
}

func (s *recorder) Data(_ context.Context, r io.Reader) (Reply, error) {
	if s.onData != nil {
		s.onData(r)
	}
	if !s.noRead {
		b, err := io.ReadAll(r)
		if err != nil {
			s.note("data %q then %v", b, err)
			return Reply{}, err
		}
		s.note("data %q", b)
	}
	return s.reply, s.refuse
}

func (s *recorder) Reset()  { s.note("reset") }
func (s *recorder) Logout() { s.note("logout") }

// eachRecorder answers for each recipient: "full" has no room.
type eachRecorder struct {
	*recorder
	rcpts []string
}

func (s *eachRecorder) Rcpt(ctx context.Context, to mail.Recipient) error {
	err := s.recorder.Rcpt(ctx, to)
	if err == nil {
		s.rcpts = append(s.rcpts, to.Address.Local)
	}
	return err
}

func (s *eachRecorder) DataEach(ctx context.Context, r io.Reader) ([]Reply, error) {
	if _, err := s.Data(ctx, r); err != nil {
		return nil, err
	}
	replies := make([]Reply, len(s.rcpts))
	for i, name := range s.rcpts {
		if name == "full" {
			replies[i] = Reply{Code: 452, Enhanced: "4.2.2", Text: "mailbox full"}
		}
	}
	s.rcpts = nil
	return replies, nil
}

// config is a server configuration for tests with sessions that record into rec.
func config(rec *recorder) Config {
	return Config{
		Hostname: "mx.example.com",
		NewSession: func(_ context.Context, c *Conn) (Session, error) {
			if rec.greeter != nil {
				return nil, rec.greeter
			}
			if rec.each {
				return &eachRecorder{recorder: rec}, nil
			}
			return rec, nil
		},
		CommandTimeout: 5 * time.Second, DataTimeout: 5 * time.Second, Grace: time.Second,
	}
}

// start serves cfg on loopback until the test ends and returns the address.
func start(t testing.TB, cfg Config) string {
	t.Helper()
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, s)
}

func serve(t testing.TB, s *Server) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return ln.Addr().String()
}

// talk is a client that follows a script of lines:
//
//	c: EHLO x      send the line with CRLF
//	c> "a\nb"      send the octets of the Go string, nothing more
//	s: 250 *       read a line that looks like this; '*' is any text
//	s: ...         read lines up to the last one of a reply
//	s: EOF         the server has closed the connection
//	= rcpt <a@b>   the session noted this next; '*' is any text
//	tls            do the handshake
//	wait           give the server a moment to read what was sent before
type talk struct {
	t    testing.TB
	rec  *recorder
	conn net.Conn
	in   *bufio.Reader
}

func dial(t testing.TB, addr string, rec *recorder) *talk {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return newTalk(t, conn, rec)
}

func newTalk(t testing.TB, conn net.Conn, rec *recorder) *talk {
	t.Cleanup(func() { conn.Close() })
	return &talk{t: t, rec: rec, conn: conn, in: bufio.NewReader(conn)}
}

func (k *talk) follow(script string) {
	k.t.Helper()
	for n, line := range strings.Split(script, "\n") {
		line = strings.TrimLeft(line, "\t ")
		if line == "" || line[0] == '#' {
			continue
		}
		if err := k.step(line); err != nil {
			k.t.Fatalf("line %d %q: %v", n+1, line, err)
		}
	}
}

func (k *talk) step(line string) error {
	verb, arg, _ := strings.Cut(line, " ")
	switch verb {
	case "c:":
		_, err := io.WriteString(k.conn, arg+"\r\n")
		return err
	case "c>":
		octets, err := strconv.Unquote(arg)
		if err == nil {
			_, err = io.WriteString(k.conn, octets)
		}
		return err
	case "s:":
		return k.expect(arg)
	case "=":
		return k.expectEvent(arg)
	case "tls":
		c := tls.Client(k.conn, &tls.Config{InsecureSkipVerify: true})
		k.conn, k.in = c, bufio.NewReader(c)
		return c.Handshake()
	case "wait":
		time.Sleep(30 * time.Millisecond)
		return nil
	}
	return errors.New("no such step")
}

func (k *talk) expect(want string) error {
	for {
		got, err := k.in.ReadString('\n')
		if want == "EOF" {
			if err == nil {
				return fmt.Errorf("got %q", got)
			}
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				return err
			}
			return nil
		}
		if err != nil {
			return err
		}
		if len(got) > maxReplyLine {
			return fmt.Errorf("line of %d octets", len(got))
		}
		got = strings.TrimSuffix(got, "\r\n")
		if want == "..." {
			if len(got) > 3 && got[3] == '-' {
				continue
			}
			return nil
		}
		if !like(want, got) {
			return fmt.Errorf("got %q", got)
		}
		return nil
	}
}

func (k *talk) expectEvent(want string) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		k.rec.mu.Lock()
		if len(k.rec.events) > 0 {
			got := k.rec.events[0]
			k.rec.events = k.rec.events[1:]
			k.rec.mu.Unlock()
			if !like(want, got) {
				return fmt.Errorf("the session noted %q", got)
			}
			return nil
		}
		k.rec.mu.Unlock()
		if time.Now().After(deadline) {
			return errors.New("the session noted nothing")
		}
		time.Sleep(time.Millisecond)
	}
}

// like reports whether got is pattern with any text for each '*'.
func like(pattern, got string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == got
	}
	if !strings.HasPrefix(got, parts[0]) {
		return false
	}
	got = got[len(parts[0]):]
	for i, p := range parts[1:] {
		if i == len(parts)-2 {
			return strings.HasSuffix(got, p)
		}
		at := strings.Index(got, p)
		if at < 0 {
			return false
		}
		got = got[at+len(p):]
	}
	return true
}

// serverTLS is the configuration of a server with a certificate of its own making for
// mx.example.com, and clientTLS of a client that trusts it.
var serverTLS, clientTLS = func() (*tls.Config, *tls.Config) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mx.example.com"},
		DNSNames: []string{"mx.example.com"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: pool, ServerName: "mx.example.com"}
}()

// scripted is a server that follows a script of lines and then closes the connection; it returns
// the client's end:
//
//	s: 250 OK      send the line with CRLF
//	s> "a\nb"      send the octets of the Go string; %nonce% is SCRAM's nonce of the client with more
//	c: EHLO *      read a line that looks like this; '*' is any text
//	c> "a\nb"      read exactly these octets
//	close          close the connection
//	wait           wait until the client closes it
func scripted(t testing.TB, script string) net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		conn, err := ln.Accept()
		ln.Close()
		if err == nil {
			conn.SetDeadline(time.Now().Add(30 * time.Second))
			err = play(conn, script)
			conn.Close()
		}
		ended <- err
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		if err := <-ended; err != nil {
			t.Errorf("server: %v", err)
		}
	})
	return conn
}

func play(conn net.Conn, script string) error {
	in := bufio.NewReader(conn)
	nonce := ""
	for n, line := range strings.Split(script, "\n") {
		line = strings.TrimLeft(line, "\t ")
		verb, arg, _ := strings.Cut(line, " ")
		var err error
		switch verb {
		case "s:":
			_, err = io.WriteString(conn, arg+"\r\n")
		case "s>":
			octets, _ := strconv.Unquote(arg)
			_, err = io.WriteString(conn, withNonce(octets, nonce))
		case "c:":
			var got string
			got, err = in.ReadString('\n')
			if got = strings.TrimSuffix(got, "\r\n"); err == nil && !like(arg, got) {
				err = fmt.Errorf("got %q", got)
			}
			if _, token, ok := strings.Cut(got, "AUTH SCRAM-SHA-256 "); ok {
				first, _ := base64.StdEncoding.DecodeString(token)
				_, nonce, _ = strings.Cut(string(first), ",r=")
			}
		case "c>":
			octets, _ := strconv.Unquote(arg)
			got := make([]byte, len(octets))
			if _, err = io.ReadFull(in, got); string(got) != octets {
				err = fmt.Errorf("got %q, %v", got, err)
			}
		case "close":
			return nil
		case "wait":
			var rest []byte
			if rest, err = io.ReadAll(in); len(rest) > 0 {
				err = fmt.Errorf("got %q", rest)
			}
		}
		if err != nil {
			return fmt.Errorf("line %d %q: %w", n+1, line, err)
		}
	}
	return nil
}

// withNonce puts the client's nonce, and some more, into a challenge in base64.
func withNonce(line, nonce string) string {
	token, ok := strings.CutPrefix(strings.TrimSuffix(line, "\r\n"), "334 ")
	b, err := base64.StdEncoding.DecodeString(token)
	if !ok || err != nil {
		return line
	}
	return "334 " + b64(strings.ReplaceAll(string(b), "%nonce%", nonce+"more")) + "\r\n"
}

// played is a connection whose client is a recording: no kernel, no other goroutine.
type played struct {
	net.Conn
	steps [][]byte
	at    int
	left  int // how often to begin again behind the first step
}

func (p *played) Read(b []byte) (int, error) {
	if p.at == len(p.steps) {
		if p.left--; p.left <= 0 {
			return 0, io.EOF
		}
		p.at = 1
	}
	n := copy(b, p.steps[p.at])
	if n < len(p.steps[p.at]) {
		panic("steps must fit the buffer")
	}
	p.at++
	return n, nil
}

func (p *played) Write(b []byte) (int, error)      { return len(b), nil }
func (p *played) SetReadDeadline(time.Time) error  { return nil }
func (p *played) SetWriteDeadline(time.Time) error { return nil }
func (p *played) Close() error                     { return nil }
func (p *played) RemoteAddr() net.Addr             { return nil }
func (p *played) LocalAddr() net.Addr              { return nil }
