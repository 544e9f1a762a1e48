package memnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"

	"github.com/tallypost/tallypost/internal/clock"
)

var (
	hostA = netip.MustParseAddr("10.0.0.1")
	hostB = netip.MustParseAddr("10.0.0.2")
	hostC = netip.MustParseAddr("2001:db8::3")
)

// connect opens a connection from hostA to port 25 of hostB and returns both ends.
func connect(t testing.TB, n *Network) (a, b *Conn) {
	t.Helper()
	l, err := n.Host(hostB).Listen(25)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := n.Host(hostA).Dial(context.Background(), "10.0.0.2:25")
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*Conn), s.(*Conn)
}

func send(t testing.TB, c net.Conn, s string) {
	t.Helper()
	if n, err := io.WriteString(c, s); n != len(s) || err != nil {
		t.Fatalf("wrote %d of %d: %v", n, len(s), err)
	}
}

func expect(t testing.TB, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v; want %q", b, err, want)
	}
}

// took runs f and returns the time it took by the bubble's clock.
func took(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// TestConn is the conformance suite of x/net for net.Conn.
func TestConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		a, b := connect(t, New(Config{}))
		return a, b, func() { a.Close(); b.Close() }, nil
	})
}

func TestAddresses(t *testing.T) {
	a, b := connect(t, New(Config{}))
	if a.RemoteAddr().String() != "10.0.0.2:25" || b.LocalAddr().String() != "10.0.0.2:25" {
		t.Errorf("listener's end: %v, %v", a.RemoteAddr(), b.LocalAddr())
	}
	if a.LocalAddr().String() != b.RemoteAddr().String() || a.LocalAddr().(*net.TCPAddr).Port < 49152 {
		t.Errorf("dialer's end: %v, %v", a.LocalAddr(), b.RemoteAddr())
	}
}

func TestHalfClose(t *testing.T) {
	a, b := connect(t, New(Config{}))
	send(t, a, "question")
	a.CloseWrite()
	if got, err := io.ReadAll(b); string(got) != "question" || err != nil {
		t.Fatalf("read %q, %v", got, err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write after CloseWrite: %v", err)
	}
	send(t, b, "answer")
	b.Close()
	if got, err := io.ReadAll(a); string(got) != "answer" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Config{Link: Link{Latency: 50 * time.Millisecond}})
		var a, b *Conn
		if d := took(func() { a, b = connect(t, n) }); d != 100*time.Millisecond {
			t.Errorf("dial took %v, want a round trip", d)
		}
		send(t, a, "ping")
		if d := took(func() { expect(t, b, "ping") }); d != 50*time.Millisecond {
			t.Errorf("segment took %v", d)
		}
		a.Close()
		if d := took(func() { expectEOF(t, b) }); d != 50*time.Millisecond {
			t.Errorf("end of stream took %v", d)
		}
	})
}

func expectEOF(t testing.TB, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("read %d, %v; want EOF", n, err)
	}
}

// TestBandwidth: two connections share the wire; 2 MiB at 1 MiB/s take two seconds.
func TestBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Config{Link: Link{Bandwidth: 1 << 20}})
		d := took(func() {
			var wg sync.WaitGroup
			for range 2 {
				a, b := connect(t, n)
				wg.Go(func() { a.Write(make([]byte, 1<<20)); a.Close() })
				wg.Go(func() {
					if k, err := io.Copy(io.Discard, b); k != 1<<20 || err != nil {
						t.Errorf("%d octets, %v", k, err)
					}
				})
			}
			wg.Wait()
		})
		if d < 1999*time.Millisecond || d > 2001*time.Millisecond {
			t.Errorf("took %v, want 2 s", d)
		}
	})
}

// arrivals writes 200 segments over a bad link and returns when each came.
func arrivals(t *testing.T, seed uint64) (at []time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Config{Seed: seed, Link: Link{Latency: 10 * time.Millisecond,
			Jitter: 20 * time.Millisecond, Loss: 0.1}})
		a, b := connect(t, n)
		start := time.Now()
		go func() {
			for i := range 200 {
				fmt.Fprintf(a, "%04d", i)
				time.Sleep(time.Millisecond)
			}
		}()
		for i := range 200 {
			expect(t, b, fmt.Sprintf("%04d", i))
			at = append(at, time.Since(start))
		}
	})
	return at
}

func TestSeedDecidesLoss(t *testing.T) {
	first, again, other := arrivals(t, 1), arrivals(t, 1), arrivals(t, 2)
	if !slices.Equal(first, again) {
		t.Error("one seed, two runs, different times")
	}
	if slices.Equal(first, other) {
		t.Error("two seeds, same times")
	}
	if first[199] < 400*time.Millisecond {
		t.Errorf("200 segments with 10%% loss took %v: nothing was sent again", first[199])
	}
}

func TestLossDelaysDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Config{Link: Link{Loss: 1}})
		n.Host(hostB).Listen(25)
		var err error
		d := took(func() { _, err = n.Host(hostA).Dial(t.Context(), "10.0.0.2:25") })
		if !errors.Is(err, syscall.ETIMEDOUT) || d != 2*time.Minute {
			t.Errorf("dial over a dead link: %v after %v", err, d)
		}
		var ne net.Error
		if !errors.As(err, &ne) || !ne.Timeout() {
			t.Errorf("%v is no time-out", err)
		}
	})
}

func TestDialFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Config{Link: Link{Latency: time.Second}})
		h := n.Host(hostA)
		var err error
		d := took(func() { _, err = h.Dial(t.Context(), "10.0.0.2:25") })
		if !errors.Is(err, syscall.ECONNREFUSED) || d != 2*time.Second {
			t.Errorf("no listener: %v after %v", err, d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		d = took(func() { _, err = h.DialContext(ctx, "tcp", "10.0.0.2:25") })
		if !errors.Is(err, context.DeadlineExceeded) || d != 1500*time.Millisecond {
			t.Errorf("deadline: %v after %v", err, d)
		}
		for _, bad := range []string{"", "10.0.0.2", "mx.example.org:25"} {
			if _, err := h.Dial(t.Context(), bad); err == nil {
				t.Errorf("dialled %q", bad)
			}
		}
		if _, err := h.Listen(80); err != nil {
			t.Error(err)
		}
		if _, err := h.Listen(80); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("second listener: %v", err)
		}
	})
}

func TestBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Config{Backlog: 2})
		l, err := n.Host(hostB).Listen(0)
		if err != nil {
			t.Fatal(err)
		}
		dial := func() time.Duration {
			return took(func() {
				if _, err := n.Host(hostA).Dial(t.Context(), l.Addr().String()); err != nil {
					t.Error(err)
				}
			})
		}
		for range 2 {
			if dial() != 0 {
				t.Error("a dial within the backlog waited")
			}
		}
		time.AfterFunc(1500*time.Millisecond, func() { l.Accept() })
		if d := dial(); d != 3*time.Second {
			t.Errorf("dial beyond the backlog took %v, want the tries at 1 and 3 s", d)
		}
		l.Close()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept after Close: %v", err)
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second Close: %v", err)
		}
	})
}

// TestCuts: each way to separate two hosts stalls what is under way and what is new, and mends.
func TestCuts(t *testing.T) {
	for name, row := range map[string]struct{ cut, mend func(n *Network) }{
		"cut":       {func(n *Network) { n.Cut(hostB, hostA) }, func(n *Network) { n.Mend(hostA, hostB) }},
		"partition": {func(n *Network) { n.Partition([]netip.Addr{hostA}) }, func(n *Network) { n.Partition() }},
		"unplug":    {func(n *Network) { n.Unplug(hostB) }, func(n *Network) { n.Plug(hostB) }},
		"heal":      {func(n *Network) { n.Unplug(hostB); n.Cut(hostA, hostB) }, (*Network).Heal},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := New(Config{Link: Link{Latency: 10 * time.Millisecond}})
				a, b := connect(t, n)
				l, err := n.Host(hostB).Listen(80)
				if err != nil {
					t.Fatal(err)
				}
				send(t, a, "under way")
				row.cut(n)
				time.AfterFunc(10*time.Second, func() { row.mend(n) })
				b.SetReadDeadline(time.Now().Add(5 * time.Second))
				if _, err := b.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("read through the cut: %v", err)
				}
				b.SetReadDeadline(time.Time{})
				if d := took(func() { expect(t, b, "under way") }); d != 5*time.Second {
					t.Errorf("stalled for %v", d)
				}
				row.cut(n)
				time.AfterFunc(10*time.Second, func() { row.mend(n) })
				d := took(func() {
					if _, err := n.Host(hostA).Dial(t.Context(), l.Addr().String()); err != nil {
						t.Error(err)
					}
				})
				if d != 15*time.Second+20*time.Millisecond {
					t.Errorf("dial took %v, want the fifth try", d)
				}
			})
		})
	}
}

func TestOthersPassACut(t *testing.T) {
	n := New(Config{})
	n.Partition([]netip.Addr{hostA, hostB}, []netip.Addr{hostC})
	a, b := connect(t, n)
	send(t, a, "x")
	expect(t, b, "x")
	n.Unplug(hostA)
	l, err := n.Host(hostA).Listen(1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Host(hostA).Dial(t.Context(), l.Addr().String()); err != nil {
		t.Errorf("an unplugged host does not reach itself: %v", err)
	}
}

func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Config{Link: Link{Latency: 10 * time.Millisecond}})
		a, b := connect(t, n)
		send(t, a, "lost")
		time.Sleep(time.Second)
		n.Reset(hostA, hostB)
		if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write at the end that was reset: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
		if _, err := b.Read(make([]byte, 9)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read at the other end: %v", err)
		}
		if err := a.Close(); err != nil {
			t.Errorf("Close after a reset: %v", err)
		}
	})
}

// TestCloseUnread: an end closed over unread octets resets the other; the reply sent before is lost
// too.
func TestCloseUnread(t *testing.T) {
	a, b := connect(t, New(Config{}))
	send(t, a, "QUIT\r\n")
	send(t, b, "221 bye\r\n")
	b.Close()
	if _, err := a.Read(make([]byte, 9)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v; want a reset", err)
	}
}

// TestWriteToClosed: the first write cannot know, the second fails.
func TestWriteToClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := connect(t, New(Config{Link: Link{Latency: 10 * time.Millisecond}}))
		send(t, b, "221 bye\r\n")
		b.Close()
		time.Sleep(time.Second)
		send(t, a, "x")
		expect(t, a, "221 bye\r\n")
		time.Sleep(20 * time.Millisecond)
		if _, err := a.Write([]byte("y")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("second write: %v", err)
		}
	})
}

func TestKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Config{})
		a, b := connect(t, n)
		l, err := n.Host(hostB).Listen(80)
		if err != nil {
			t.Fatal(err)
		}
		n.Unplug(hostA)
		n.Kill(hostB)
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept on a dead host: %v", err)
		}
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read on a dead host: %v", err)
		}
		a.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the reset passed the cut: %v", err)
		}
		n.Plug(hostA)
		a.SetReadDeadline(time.Time{})
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after the cut: %v", err)
		}
		if _, err := n.Host(hostA).Dial(t.Context(), "10.0.0.2:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial to a dead process: %v", err)
		}
	})
}

func TestLinkResets(t *testing.T) {
	n := New(Config{})
	a, b := connect(t, n)
	n.SetLink(hostA, hostB, Link{Reset: 1})
	if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("write: %v", err)
	}
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read at the other end: %v", err)
	}
}

// TestBufferIsBounded: small writes are charged for what they take.
func TestBufferIsBounded(t *testing.T) {
	for _, size := range []int{1, 1000, 1 << 20} {
		synctest.Test(t, func(t *testing.T) {
			n := New(Config{BufferBytes: 64 << 10, Link: Link{Latency: time.Second, Bandwidth: 1 << 20}})
			a, _ := connect(t, n)
			a.SetWriteDeadline(time.Now().Add(time.Minute))
			total := 0
			var err error
			for err == nil {
				var k int
				k, err = a.Write(make([]byte, size))
				total += k
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) || total > 64<<10 || total < 900 {
				t.Errorf("writes of %d: %d octets taken, %v", size, total, err)
			}
		})
	}
}

// TestMockClock: a network in a lab moves when the lab says so.
func TestMockClock(t *testing.T) {
	mock := clock.NewMock(time.Unix(1_700_000_000, 0))
	n := New(Config{Clock: mock, Link: Link{Latency: time.Hour}})
	l, err := n.Host(hostB).Listen(25)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if mock.Wait(context.Background(), 1) == nil {
			mock.Advance(2 * time.Hour)
		}
	}()
	a, err := n.Host(hostA).Dial(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	send(t, a, "slow")
	go func() {
		if mock.Wait(context.Background(), 1) == nil {
			mock.Advance(time.Hour)
		}
	}()
	expect(t, b, "slow")
}

// TestMesh: twenty nodes, each connected to each other, with cuts while they talk; everything
// arrives.
func TestMesh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const nodes, octets = 20, 50_000
		n := New(Config{Seed: 7, Link: Link{Latency: 30 * time.Millisecond,
			Jitter: 10 * time.Millisecond, Loss: 0.01, Bandwidth: 10 << 20}})
		var hosts []netip.Addr
		for i := range nodes {
			hosts = append(hosts, netip.AddrFrom4([4]byte{10, 0, 1, byte(i + 1)}))
		}
		var wg sync.WaitGroup
		for _, h := range hosts {
			l, err := n.Host(h).Listen(8333)
			if err != nil {
				t.Fatal(err)
			}
			for range nodes - 1 {
				wg.Go(func() {
					c, err := l.Accept()
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					if _, err := io.Copy(c, c); err != nil {
						t.Error(err)
					}
				})
			}
		}
		for i, h := range hosts {
			for j := range hosts {
				if i != j {
					wg.Go(func() { echo(t, n.Host(h), hosts[j], octets) })
				}
			}
		}
		time.Sleep(100 * time.Millisecond)
		n.Partition(hosts[:10], hosts[10:])
		time.Sleep(30 * time.Second)
		n.Heal()
		wg.Wait()
	})
}

// echo sends octets to a host that returns them.
func echo(t *testing.T, from *Host, to netip.Addr, octets int) {
	c, err := from.Dial(t.Context(), netip.AddrPortFrom(to, 8333).String())
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	sent := bytes.Repeat([]byte{to.As4()[3]}, octets)
	go func() {
		c.Write(sent)
		c.(*Conn).CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%v to %v: %d octets came back, %v", from.Addr(), to, len(got), err)
	}
}

func BenchmarkThroughput(b *testing.B) {
	x, y := connect(b, New(Config{}))
	go io.Copy(io.Discard, y)
	buf := make([]byte, 32<<10)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if _, err := x.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPingPong(b *testing.B) {
	x, y := connect(b, New(Config{}))
	go io.Copy(y, y)
	buf := make([]byte, 64)
	for b.Loop() {
		if _, err := x.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(x, buf); err != nil {
			b.Fatal(err)
		}
	}
}
