package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin/wire"
)

// serverFor returns what dials a server that is a function.
func serverFor(serve func(c net.Conn)) Dial {
	return func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			serve(theirs)
		}()
		return ours, nil
	}
}

// reply reads a request of some octets and answers.
func reply(c net.Conn, want, answer []byte) bool {
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		return false
	}
	_, err := c.Write(answer)
	return err == nil
}

func TestSOCKS5Connects(t *testing.T) {
	s := SOCKS5{Server: "proxy:9050", User: "ab", Password: "c", Dial: serverFor(func(c net.Conn) {
		ok := reply(c, []byte{5, 2, 0, 2}, []byte{5, 2}) &&
			reply(c, []byte{1, 2, 'a', 'b', 1, 'c'}, []byte{1, 0}) &&
			reply(c, append([]byte{5, 1, 0, 3, 5}, "1.2.3\x20\x8d"...), []byte{5, 0, 0, 1, 9, 9, 9, 9, 0, 1})
		if ok {
			io.WriteString(c, "hello")
		}
	})}
	c, err := s.Connect(context.Background(), "1.2.3", 8333)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, err := io.ReadAll(c); string(b) != "hello" {
		t.Errorf("behind the handshake came %q, %v", b, err)
	}
}

func TestSOCKS5SaysWhatIsWrong(t *testing.T) {
	for _, row := range []struct {
		name   string
		answer []byte // to the first request, and behind it
		want   string
	}{
		{"no SOCKS5", []byte{4, 0}, "Proxy failed to initialize"},
		{"wants what we have not", []byte{5, 2}, "wrong authentication method 02"},
		{"refused", []byte{5, 0, 5, 5, 0, 1}, "connection refused"},
		{"onion gone", []byte{5, 0, 5, 0xf0, 0, 1}, "descriptor can not be found"},
		{"unknown", []byte{5, 0, 5, 0x99, 0, 1}, "unknown (0x99)"},
		{"bad address", []byte{5, 0, 5, 0, 0, 9}, "malformed proxy response"},
		{"cut short", []byte{5, 0, 5, 0}, "EOF"},
	} {
		s := SOCKS5{Dial: serverFor(func(c net.Conn) {
			go io.Copy(io.Discard, c)
			c.Write(row.answer)
		})}
		_, err := s.Connect(context.Background(), "host", 1)
		if err == nil || !strings.Contains(err.Error(), row.want) || errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
	down := SOCKS5{Dial: func(context.Context, string, string) (net.Conn, error) { return nil, io.EOF }}
	if _, err := down.Connect(context.Background(), "host", 1); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a proxy that is down: %v", err)
	}
}

func TestSOCKS5EndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	s := SOCKS5{Dial: serverFor(func(c net.Conn) {
		cancel()
		io.Copy(io.Discard, c)
	})}
	if _, err := s.Connect(ctx, "host", 1); err == nil {
		t.Error("connected to nobody")
	}
}

// router is an I2P router with one session.
type router struct {
	t     *testing.T
	lines chan string
	key   []byte
	calls chan net.Conn // those who wait for a connection
}

func newRouter(t *testing.T) *router {
	return &router{t: t, lines: make(chan string, 100), key: make([]byte, 679), calls: make(chan net.Conn, 10)}
}

func (r *router) serve(c net.Conn) {
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSpace(line)
		r.lines <- line
		key := i2pBase64.EncodeToString(r.key)
		switch word, _, _ := strings.Cut(line, " "); {
		case word == "HELLO":
			io.WriteString(c, "HELLO REPLY RESULT=OK VERSION=3.1\n")
		case word == "DEST":
			io.WriteString(c, "DEST REPLY PUB=x PRIV="+key+"\n")
		case word == "SESSION":
			io.WriteString(c, "SESSION STATUS RESULT=OK DESTINATION="+key+"\n")
		case word == "NAMING":
			io.WriteString(c, "NAMING REPLY RESULT=OK NAME=x VALUE=dest\n")
		case strings.HasPrefix(line, "STREAM CONNECT"):
			io.WriteString(c, "STREAM STATUS RESULT=OK\nhello")
			return
		default:
			io.WriteString(c, "STREAM STATUS RESULT=OK\n")
			r.calls <- c
			<-make(chan bool) // the test ends first
		}
	}
}

func (r *router) sam(keyFile string) *SAM {
	say := func(format string, args ...any) {}
	return &SAM{Router: "router:7656", KeyFile: keyFile, Dial: serverFor(r.serve), Debugf: say, Infof: say}
}

func i2pAddr(b byte) wire.AddrPort {
	a, _ := wire.NewAddr(wire.NetI2P, bytes.Repeat([]byte{b}, 32))
	return wire.AddrPort{Addr: a}
}

func TestSAMConnects(t *testing.T) {
	r := newRouter(t)
	s := r.sam(filepath.Join(t.TempDir(), "key"))
	defer s.Close()
	for range 2 { // the second time in the same session
		c, me, err := s.Connect(context.Background(), i2pAddr(1))
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(c); string(b) != "hello" {
			t.Errorf("of the stream came %q", b)
		}
		if want := destAddr(r.key[:387]); me != want {
			t.Errorf("we are %v, want %v", me, want)
		}
	}
	sessions := 0
	for len(r.lines) > 0 {
		sessions += btoi(strings.HasPrefix(<-r.lines, "SESSION CREATE STYLE=STREAM ID="))
	}
	if sessions != 1 {
		t.Errorf("%d sessions", sessions)
	}
	at := i2pAddr(1)
	at.Port = 8333
	if _, _, err := s.Connect(context.Background(), at); !errors.Is(err, ErrI2PPort) {
		t.Errorf("a port of I2P: %v", err)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestSAMAccepts(t *testing.T) {
	r := newRouter(t)
	s := r.sam("")
	defer s.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, _, err := s.Listen(ctx)
	if err != nil {
		t.Fatal(err)
	}
	dest := bytes.Repeat([]byte{7}, 390)
	go io.WriteString(<-r.calls, i2pBase64.EncodeToString(dest)+"\n")
	peer, err := s.Accept(ctx, c)
	if err != nil || peer != destAddr(dest) {
		t.Errorf("peer %v, %v", peer, err)
	}
	if c, _, err = s.Listen(ctx); err != nil {
		t.Fatal(err)
	}
	go io.WriteString(<-r.calls, "STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"Session was closed\"\n")
	if _, err := s.Accept(ctx, c); err == nil || s.id != "" {
		t.Errorf("a session that the router closed: %v, still %q", err, s.id)
	}
}

func FuzzOwnAddr(f *testing.F) {
	f.Add(make([]byte, 679))
	f.Fuzz(func(t *testing.T, key []byte) { ownAddr(key) })
}

func FuzzSOCKS5Reply(f *testing.F) {
	f.Add([]byte{5, 0, 5, 0, 0, 1, 1, 2, 3, 4, 0, 1})
	f.Fuzz(func(t *testing.T, answers []byte) {
		c := struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(answers), io.Discard}
		if (SOCKS5{}).greet(c) == nil {
			request(c, "host", 1)
		}
	})
}
