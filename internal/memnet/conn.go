package memnet

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
)

// Host is one address of a Network, for those who dial and listen there.
type Host struct {
	n    *Network
	addr netip.Addr
}

// Host returns the host of an address. Nothing needs to be set up for it.
func (n *Network) Host(addr netip.Addr) *Host { return &Host{n, addr} }

// Addr is the address of the host.
func (h *Host) Addr() netip.Addr { return h.addr }

// Listener is a net.Listener.
type Listener struct {
	n     *Network
	addr  netip.AddrPort
	queue chan *Conn
	once  sync.Once
	done  chan struct{}
}

// Listen listens on a port of the host; 0 picks one.
func (h *Host) Listen(port uint16) (net.Listener, error) {
	return h.n.Listen(netip.AddrPortFrom(h.addr, port).String())
}

// Listen listens on an address and port, "10.0.0.1:25"; port 0 picks one.
func (n *Network) Listen(addr string) (net.Listener, error) {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: err}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if at.Port() == 0 {
		at = n.freePort(at.Addr())
	}
	if n.listeners[at] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: tcpAddr(at), Err: syscall.EADDRINUSE}
	}
	l := &Listener{n: n, addr: at, queue: make(chan *Conn, n.cfg.Backlog), done: make(chan struct{})}
	n.listeners[at] = l
	return l, nil
}

// freePort is called with mu held. Ports of dials may come again after 16,384 others, as they do.
func (n *Network) freePort(host netip.Addr) netip.AddrPort {
	for {
		at := netip.AddrPortFrom(host, 49152+n.ports[host]%16384)
		n.ports[host]++
		if n.listeners[at] == nil {
			return at
		}
	}
}

func tcpAddr(a netip.AddrPort) *net.TCPAddr { return net.TCPAddrFromAddrPort(a) }

// Accept waits for a connection.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
	default:
		select {
		case c := <-l.queue:
			return c, nil
		case <-l.done:
		}
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
}

// Close ends Accept and resets connections that nobody has accepted.
func (l *Listener) Close() error {
	err := error(&net.OpError{Op: "close", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed})
	l.once.Do(func() {
		l.n.mu.Lock()
		delete(l.n.listeners, l.addr)
		l.n.mu.Unlock()
		close(l.done)
		for {
			select {
			case c := <-l.queue:
				c.Reset()
				c.Close()
				continue
			default:
			}
			break
		}
		err = nil
	})
	return err
}

// Addr is where the listener listens.
func (l *Listener) Addr() net.Addr { return tcpAddr(l.addr) }

// DialContext is as that of net.Dialer; the address must be one and not a name.
func (h *Host) DialContext(ctx context.Context, _, addr string) (net.Conn, error) {
	return h.Dial(ctx, addr)
}

// Dial connects to an address and port. It takes a round trip of the link; where nobody answers it
// tries again after 1, 2, 4... seconds, until ctx ends or Config.ConnectTimeout is over.
func (h *Host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	c, err := h.n.dial(ctx, h.addr, to)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: tcpAddr(to), Err: err}
	}
	return c, nil
}

func (n *Network) dial(ctx context.Context, from netip.Addr, to netip.AddrPort) (*Conn, error) {
	there, back := pair{from, to.Addr()}, pair{to.Addr(), from}
	dice := n.chance(there)
	giveUp := n.cfg.Clock.Now().Add(n.cfg.ConnectTimeout)
	for rto := connectRTO; ; rto *= 2 {
		n.mu.Lock()
		out, in := n.wire(there).Link, n.wire(back).Link
		n.mu.Unlock()
		lost := out.Loss > 0 && dice.Float64() < out.Loss || in.Loss > 0 && dice.Float64() < in.Loss
		wait := rto
		if open, _ := n.passes(there); open && !lost {
			trip := out.delay(dice) + in.delay(dice)
			if err := sleep(ctx, n.cfg.Clock, trip); err != nil {
				return nil, err
			}
			c, err := n.connect(there, to, dice)
			if c != nil || err != nil {
				return c, err
			}
			wait -= trip
		}
		wait = min(wait, giveUp.Sub(n.cfg.Clock.Now()))
		if err := sleep(ctx, n.cfg.Clock, wait); err != nil {
			return nil, err
		}
		if !n.cfg.Clock.Now().Before(giveUp) {
			return nil, syscall.ETIMEDOUT
		}
	}
}

func sleep(ctx context.Context, c clock.Clock, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	return clock.Sleep(ctx, c, d)
}

// connect makes the two ends and hands one to the listener. It returns neither a connection nor an
// error where nobody answers: the way was cut meanwhile, or the backlog is full.
func (n *Network) connect(way pair, to netip.AddrPort, dice *rand.Rand) (*Conn, error) {
	if open, _ := n.passes(way); !open {
		return nil, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.listeners[to]
	if l == nil {
		return nil, syscall.ECONNREFUSED
	}
	from := n.freePort(way.from)
	up := newPipe(n, way, fork(dice))
	down := newPipe(n, pair{way.to, way.from}, fork(dice))
	dialed := &Conn{n: n, in: down, out: up, local: tcpAddr(from), remote: tcpAddr(to)}
	accepted := &Conn{n: n, in: up, out: down, local: tcpAddr(to), remote: tcpAddr(from)}
	select {
	case l.queue <- accepted:
	default:
		return nil, nil
	}
	n.conns[dialed], n.conns[accepted] = true, true
	return dialed, nil
}

// fork makes each direction's chance its own: who writes first must not matter.
func fork(dice *rand.Rand) *rand.Rand {
	return rand.New(rand.NewPCG(dice.Uint64(), dice.Uint64()))
}

// Conn is one end of a connection: a net.Conn with the half-close of net.TCPConn.
type Conn struct {
	n             *Network
	in, out       *pipe
	local, remote *net.TCPAddr
}

// Read reads what has arrived. After the other end was reset, what was under way is lost.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.in.read(b)
	return n, c.wrap("read", err)
}

// Write returns when everything is in the buffer.
func (c *Conn) Write(b []byte) (int, error) {
	n, reset, err := c.out.write(b)
	if !reset.IsZero() {
		f := fate{at: reset, remote: err == nil}
		c.out.doom(fate{}, f)
		c.in.doom(f, fate{})
		if err != nil { // dealt by the link, to both ends
			c.out.doom(f, fate{})
			c.in.doom(fate{}, f)
		}
	}
	return n, c.wrap("write", err)
}

func (c *Conn) wrap(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// Close closes the end. What was written still arrives; but if something had been sent to this end
// that nobody read, the other end is reset, as TCP does (RFC 1122, section 4.2.2.13).
func (c *Conn) Close() error {
	if !c.forget() {
		return c.wrap("close", net.ErrClosed)
	}
	unread := c.in.stop()
	c.out.end(true)
	if !unread.IsZero() {
		c.resetPeer(unread)
	}
	return nil
}

// forget takes the end out of the Network, once.
func (c *Conn) forget() bool {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	open := c.n.conns[c]
	delete(c.n.conns, c)
	return open
}

// CloseWrite sends the end of the stream; reading goes on.
func (c *Conn) CloseWrite() error {
	c.out.end(false)
	return nil
}

// Reset drops the connection: this end fails from now on, the other as soon as it hears of it.
func (c *Conn) Reset() {
	f := fate{at: c.n.cfg.Clock.Now()}
	c.in.doom(f, fate{})
	c.out.doom(fate{}, f)
	c.resetPeer(f.at)
}

// resetPeer sends a reset to the other end, at a time that may have passed.
func (c *Conn) resetPeer(at time.Time) {
	if now := c.n.cfg.Clock.Now(); at.Before(now) {
		at = now
	}
	c.n.mu.Lock()
	at = at.Add(c.n.wire(c.out.way).Latency)
	c.n.mu.Unlock()
	f := fate{at: at, remote: true}
	c.out.doom(f, fate{})
	c.in.doom(fate{}, f)
}

// LocalAddr is a *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is a *net.TCPAddr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines, by the Network's clock.
func (c *Conn) SetDeadline(t time.Time) error {
	c.in.limit(&c.in.rlimit, t)
	c.out.limit(&c.out.wlimit, t)
	return nil
}

// SetReadDeadline sets the deadline of reads; zero is none.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.limit(&c.in.rlimit, t)
	return nil
}

// SetWriteDeadline sets the deadline of writes; zero is none.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.out.limit(&c.out.wlimit, t)
	return nil
}
