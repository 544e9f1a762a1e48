package smtp

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The waiting of these tests is done in virtual time, with the default times of RFC 5321.

// inMemory starts a session over a pipe and returns the client's end, and a function that waits for
// the end of the session.
func inMemory(t *testing.T, rec *recorder) (*talk, func()) {
	cfg := config(rec)
	cfg.CommandTimeout, cfg.DataTimeout = 0, 0
	return inMemoryOf(t, cfg, rec)
}

func inMemoryOf(t *testing.T, cfg Config, rec *recorder) (*talk, func()) {
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	ended := make(chan struct{})
	v := &serving{Server: s, ctx: context.Background()}
	go func() {
		newConn(v, far).serve()
		close(ended)
	}()
	return newTalk(t, near, rec), func() {
		near.Close()
		<-ended
	}
}

func within(t *testing.T, got, least, most time.Duration) {
	t.Helper()
	if got < least || got > most {
		t.Errorf("after %v, want %v to %v", got, least, most)
	}
}

func TestCommandTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, end := inMemory(t, &recorder{})
		defer end()
		k.follow(hello)
		since := time.Now()
		k.follow("s: 421 4.4.2 *\ns: EOF")
		within(t, time.Since(since), 5*time.Minute, 6*time.Minute)
	})
}

// drip writes s again and again with pauses, until that fails; it returns a function that waits for
// that.
func drip(conn net.Conn, s string, pause time.Duration) (wait func()) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if _, err := io.WriteString(conn, s); err != nil {
				return
			}
			time.Sleep(pause)
		}
	}()
	return func() { <-ended }
}

// TestSlowCommand sends a command octet by octet: that wins no time.
func TestSlowCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, end := inMemory(t, &recorder{})
		defer end()
		k.follow(hello)
		since := time.Now()
		defer drip(k.conn, "N", time.Minute)()
		k.follow("s: 421 4.4.2 *\ns: EOF")
		within(t, time.Since(since), 5*time.Minute, 6*time.Minute)
	})
}

// TestSlowButSteady takes half an hour for a message, which is allowed: each block comes in time. A
// server with one deadline for the whole message loses it.
func TestSlowButSteady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		k, end := inMemory(t, rec)
		defer end()
		k.follow(begin + "c: DATA\ns: 354 *")
		for range 30 {
			time.Sleep(time.Minute)
			k.follow("c: " + strings.Repeat("x", 4000))
		}
		k.follow("c: .\ns: 250 2.0.0 OK\nc: NOOP\ns: 250 *")
	})
}

// TestSlowloris sends a message so slowly that it is an attack. What comes after the connection was
// given up is never taken for commands: go-smtp#196.
func TestSlowloris(t *testing.T) {
	for _, chunked := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			rec := &recorder{}
			k, end := inMemory(t, rec)
			defer end()
			k.follow(begin)
			if chunked {
				k.follow("c: BDAT 1000000 LAST")
			} else {
				k.follow("c: DATA\ns: 354 *")
			}
			since := time.Now()
			defer drip(k.conn, "RSET\r\n", time.Second)()
			k.follow("s: 421 4.4.2 you send too slowly*\ns: EOF\n= data * then *\n= reset\n= logout")
			within(t, time.Since(since), 3*time.Minute, 6*time.Minute)
		})
	}
}

// TestSlowSession takes long over a message that the client sends as fast as it can: that is not the
// client's fault.
func TestSlowSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{onData: func(r io.Reader) {
			io.CopyN(io.Discard, r, 5)
			time.Sleep(10 * time.Minute)
		}}
		k, end := inMemory(t, rec)
		defer end()
		k.conn.SetDeadline(time.Time{})
		k.follow(begin + "c: DATA\ns: 354 *\nc: " + strings.Repeat("x", 3*inSize) + "\nc: .")
		k.follow("s: 250 2.0.0 OK")
	})
}

// TestClientDoesNotRead sends commands and reads no replies.
func TestClientDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		k, end := inMemory(t, rec)
		k.follow(hello)
		since := time.Now()
		k.conn.SetDeadline(time.Time{})
		for {
			if _, err := io.WriteString(k.conn, "NOOP\r\n"); err != nil {
				break
			}
		}
		within(t, time.Since(since), 5*time.Minute, 6*time.Minute)
		end()
		k.follow("= logout")
	})
}

// TestClientPatience is RFC 5321, section 4.5.3.2: how long a client waits for what.
func TestClientPatience(t *testing.T) {
	for _, tt := range []struct {
		name    string
		replies []string // the last one never comes
		want    time.Duration
		cfg     ClientConfig
	}{
		{"greeting", []string{""}, 5 * time.Minute, ClientConfig{}},
		{"EHLO", []string{"220 hello\r\n", ""}, 5 * time.Minute, ClientConfig{}},
		{"MAIL", []string{"220 hello\r\n", "250 hello\r\n", ""}, 5 * time.Minute, ClientConfig{}},
		{"RCPT", []string{"220 hello\r\n", "250 hello\r\n", "250 OK\r\n", ""}, 5 * time.Minute, ClientConfig{}},
		{"DATA", []string{"220 hello\r\n", "250 hello\r\n", "250 OK\r\n", "250 OK\r\n", ""}, 2 * time.Minute, ClientConfig{}},
		{"end of data", []string{"220 hello\r\n", "250 hello\r\n", "250 OK\r\n", "250 OK\r\n", "354 go on\r\n", ""},
			10 * time.Minute, ClientConfig{}},
		{"own choice", []string{""}, time.Second, ClientConfig{GreetingTimeout: time.Second}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				go playReplies(far, tt.replies)
				tt.cfg.Hello = "client.example.org"
				c := NewClient(near, tt.cfg)
				defer c.Close()
				since := time.Now()
				ctx := context.Background()
				err := c.Hello(ctx)
				if err == nil {
					msg := "x\r\n"
					_, err = c.Send(ctx, envelope(t, "a@example.org", "b@example.com"), strings.NewReader(msg), 3)
				}
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("got %v", err)
				}
				within(t, time.Since(since), tt.want, tt.want*5/4)
				if c.Reusable() {
					t.Error("still reusable")
				}
			})
		})
	}
}

// playReplies answers whatever comes with one reply after the other, and then not at all.
func playReplies(conn net.Conn, replies []string) {
	buf := make([]byte, 4<<10)
	for i, r := range replies {
		if i > 0 {
			if _, err := conn.Read(buf); err != nil {
				return
			}
		}
		if r != "" {
			io.WriteString(conn, r)
		}
	}
	io.Copy(io.Discard, conn)
}

// TestContextEndsWait ends a wait that would take long.
func TestContextEndsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		go io.Copy(io.Discard, far)
		c := NewClient(near, ClientConfig{Hello: "client.example.org"})
		defer far.Close()
		defer c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		since := time.Now()
		if err := c.Hello(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		within(t, time.Since(since), time.Second, 2*time.Second)
	})
}
