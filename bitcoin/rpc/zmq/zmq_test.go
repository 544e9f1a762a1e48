package zmq

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// open runs a publisher and returns a way to connect to it.
func open(t *testing.T, address string, hwm int) (*Publisher, func() net.Conn) {
	t.Helper()
	p, err := Listen(address, hwm, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { p.Run(ctx); close(ended) }()
	t.Cleanup(func() { stop(); <-ended })
	return p, func() net.Conn {
		c, err := net.Dial(p.Addr().Network(), p.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(30 * time.Second))
		t.Cleanup(func() { c.Close() })
		return c
	}
}

// subscribe does the handshake of a subscriber and sends what it wants, and waits until that was taken in.
func subscribe(t *testing.T, c net.Conn, frames ...[]byte) *bufio.Reader {
	t.Helper()
	c.Write(greeting())
	c.Write(bytes.Replace(ready(), []byte("PUB"), []byte("SUB"), 1))
	for _, f := range frames {
		c.Write(f)
	}
	c.Write(appendCommand(nil, "PING", []byte{0, 0, 'x'}))
	in := bufio.NewReader(c)
	if err := readGreeting(in); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"READY", "PONG"} {
		flags, body, err := readFrame(in)
		name, rest, _ := command(body)
		if err != nil || flags != flagCommand || name != want || name == "PONG" && string(rest) != "x" {
			t.Fatalf("%s: got %d %q, %v", want, flags, body, err)
		}
	}
	return in
}

func message(t *testing.T, in *bufio.Reader) (parts []string) {
	t.Helper()
	for {
		flags, body, err := readFrame(in)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, string(body))
		if flags&flagMore == 0 {
			return parts
		}
	}
}

func sub(topic string) []byte { return appendFrame(nil, 0, append([]byte{1}, topic...)) }

// TestPublish: each subscriber has the topics that it wants, by message or by command, until it does not.
func TestPublish(t *testing.T) {
	for _, address := range []string{"tcp://127.0.0.1:0", "ipc://" + filepath.Join(t.TempDir(), "socket")} {
		p, connect := open(t, address, 1000)
		a, b := connect(), connect()
		inA := subscribe(t, a, sub("hashtx"), sub("hash"), appendFrame(nil, 0, []byte("\x00hash")))
		inB := subscribe(t, b, appendCommand(nil, "SUBSCRIBE", nil))
		p.Publish([]byte("hashblock"), []byte("1"))
		p.Publish([]byte("hashtx"), []byte("2"), bytes.Repeat([]byte("y"), 300))
		if got := message(t, inA); len(got) != 3 || got[0] != "hashtx" || got[1] != "2" || len(got[2]) != 300 {
			t.Errorf("%s: a got %q", address, got)
		}
		for _, want := range []string{"hashblock", "hashtx"} {
			if got := message(t, inB); got[0] != want {
				t.Errorf("%s: b got %q, want %s", address, got, want)
			}
		}
	}
}

// TestSlow: who does not read loses messages above the mark, and nobody waits for it.
func TestSlow(t *testing.T) {
	p, connect := open(t, "tcp://127.0.0.1:0", 10)
	c := connect()
	in := subscribe(t, c, sub(""))
	big := make([]byte, 1<<20)
	for i := range 200 {
		p.Publish([]byte("t"), fmt.Appendf(nil, "%03d", i), big)
	}
	flags, body, err := readFrame(in)
	if err != nil || flags != flagMore || string(body) != "t" {
		t.Fatalf("%d %q %v", flags, body, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.subs {
		if len(s.queue) > 10 {
			t.Errorf("%d messages are kept", len(s.queue))
		}
	}
}

// TestStrangers: who does not speak the protocol, or asks for too much, is hung up on.
func TestStrangers(t *testing.T) {
	many := []byte{}
	for i := range maxTopics + 1 {
		many = append(many, sub(fmt.Sprint(i))...)
	}
	sub3 := append(greeting(), bytes.Replace(ready(), []byte("PUB"), []byte("SUB"), 1)...)
	old := greeting()
	old[10] = 2
	curve := greeting()
	copy(curve[12:], "CURVE")
	for name, say := range map[string][]byte{
		"HTTP": []byte("GET / HTTP/1.1\r\n\r\n"), "old": old, "security": curve,
		"another publisher": append(greeting(), ready()...), "no READY": append(greeting(), sub("x")...),
		"bad flags":       append(bytes.Clone(sub3), 0x80, 0),
		"a frame too big": append(bytes.Clone(sub3), flagLong, 1, 0, 0, 0, 0, 0, 0, 0),
		"many topics":     append(bytes.Clone(sub3), many...), "a long topic": append(bytes.Clone(sub3), sub(string(make([]byte, 300)))...),
		"a broken command": append(bytes.Clone(sub3), flagCommand, 1, 9),
	} {
		_, connect := open(t, "tcp://127.0.0.1:0", 1)
		c := connect()
		go c.Write(say)
		in := bufio.NewReader(c)
		for {
			if _, err := in.ReadByte(); err != nil {
				if e, ok := err.(net.Error); ok && e.Timeout() {
					t.Errorf("%s: the connection goes on", name)
				}
				break
			}
		}
	}
	for _, address := range []string{"127.0.0.1:1", "udp://127.0.0.1:1", "tcp://nowhere", "ipc:///nonexistent/x"} {
		if p, err := Listen(address, 1, slog.New(slog.DiscardHandler)); err == nil {
			p.Close()
			t.Errorf("%s is taken", address)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(append(greeting(), ready()...))
	f.Add(append(sub("hash"), appendCommand(nil, "PING", []byte{0, 0, 1})...))
	f.Fuzz(func(t *testing.T, b []byte) {
		readGreeting(bytes.NewReader(b))
		in := bufio.NewReader(bytes.NewReader(b))
		p := &Publisher{}
		s := &subscriber{topics: topics{}, wake: make(chan struct{}, 1)}
		for {
			flags, body, err := readFrame(in)
			if err != nil {
				return
			}
			_, meta, _ := command(body)
			socketType(meta)
			if p.heard(s, flags, body) != nil {
				return
			}
			if len(s.topics) > maxTopics || len(body) > maxFrame {
				t.Fatal("beyond the limits")
			}
		}
	})
}
