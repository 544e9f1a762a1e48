package smtp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestAdmit is about connections that are turned away before anything else.
func TestAdmit(t *testing.T) {
	left := make(chan netip.AddrPort, 2)
	cfg := config(&recorder{})
	var admitted atomic.Int32
	cfg.Admit = func(_ context.Context, remote netip.AddrPort) (func(), error) {
		if admitted.Add(1) > 1 {
			return nil, &Reply{Code: 421, Enhanced: "4.7.0", Text: "one is enough"}
		}
		return func() { left <- remote }, nil
	}
	addr := start(t, cfg)
	one := dial(t, addr, nil)
	one.follow("s: 220 *")
	dial(t, addr, nil).follow("s: 421 4.7.0 one is enough\ns: EOF")
	one.conn.Close()
	if got := <-left; got.String() != one.conn.LocalAddr().String() {
		t.Errorf("%v left, want %v", got, one.conn.LocalAddr())
	}
}

// TestAdmitBeforeTLS says nothing in the clear where TLS comes first.
func TestAdmitBeforeTLS(t *testing.T) {
	cfg := config(&recorder{})
	cfg.TLS, cfg.ImplicitTLS = serverTLS, true
	cfg.Admit = func(context.Context, netip.AddrPort) (func(), error) {
		return nil, &Reply{Code: 421, Enhanced: "4.7.0", Text: "no"}
	}
	dial(t, start(t, cfg), nil).follow("s: EOF")
}

// TestShutdown ends Serve while one connection waits for a command and another is in a message.
func TestShutdown(t *testing.T) {
	rec := &recorder{}
	cfg := config(rec)
	cfg.Grace = 5 * time.Second
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln) }()
	idle, busy := dial(t, ln.Addr().String(), rec), dial(t, ln.Addr().String(), rec)
	idle.follow(hello)
	busy.follow(begin + "c: DATA\ns: 354 *\nc: half of it\nwait")
	cancel()
	idle.follow("s: 421 4.3.2 *\ns: EOF")
	busy.follow("c: the rest\nc: .\ns: 250 2.0.0 OK\ns: 421 4.3.2 *\ns: EOF")
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("still listening")
	}
}

// TestShutdownGrace closes a connection that does not come to an end.
func TestShutdownGrace(t *testing.T) {
	rec := &recorder{}
	cfg := config(rec)
	cfg.Grace = 50 * time.Millisecond
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln) }()
	k := dial(t, ln.Addr().String(), rec)
	k.follow(begin + "c: DATA\ns: 354 *\nc: half of it")
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
	k.follow("= data * then *\n= reset\n= logout")
}

// TestServeFails returns what the listener failed with.
func TestServeFails(t *testing.T) {
	s, err := NewServer(config(&recorder{}))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := s.Serve(context.Background(), ln); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestConfig(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no host name":         func(c *Config) { c.Hostname = "" },
		"no session":           func(c *Config) { c.NewSession = nil },
		"implicit without TLS": func(c *Config) { c.ImplicitTLS = true },
		"demanded without TLS": func(c *Config) { c.RequireTLS = true },
		"too few recipients":   func(c *Config) { c.MaxRecipients = 99 },
	} {
		cfg := config(&recorder{})
		change(&cfg)
		if _, err := NewServer(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestHeloIsClean is about what a session may put in a header field.
func TestHeloIsClean(t *testing.T) {
	for in, want := range map[string]string{
		"mail.example.org":   "mail.example.org",
		"[IPv6:2001:db8::1]": "[IPv6:2001:db8::1]",
		"a(b)c;\"d\\":        "a?b?c??d?",
		"bücher":             "b?cher",
	} {
		if got := cleanHelo(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// oneWriter counts writes on a connection that is no socket of the kernel.
type oneWriter struct {
	net.Conn
	writes *int
}

func (o oneWriter) Write(b []byte) (int, error) {
	*o.writes++
	return o.Conn.Write(b)
}

// TestOneWritePerGroup wants a pipelined group to be answered with one write, and EHLO too.
func TestOneWritePerGroup(t *testing.T) {
	s, err := NewServer(config(&recorder{}))
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	writes := 0
	v := &serving{Server: s, ctx: context.Background()}
	ended := make(chan struct{})
	go func() {
		newConn(v, oneWriter{far, &writes}).serve()
		close(ended)
	}()
	buf := make([]byte, 64<<10)
	for _, send := range []string{"", "EHLO x\r\n",
		"MAIL FROM:<a@example.org>\r\n" + strings.Repeat("RCPT TO:<b@example.com>\r\n", 20) + "DATA\r\n",
		"x\r\n.\r\nQUIT\r\n"} {
		if send != "" {
			if _, err := io.WriteString(near, send); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := near.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	near.Close()
	<-ended
	if writes != 4 {
		t.Errorf("%d writes, want 4", writes)
	}
}
