// Package zmq is the publishing side of ZeroMQ: it sends messages to whoever subscribed to their topic, as a
// socket of the kind PUB does (ZMTP 3.0 and the subscription commands of 3.1: RFC 23, 29, 37), over TCP or a Unix
// socket, without security.
//
// A subscriber that does not keep up loses messages; so does one that comes late. Nothing is ever waited for.
// What they may send is bounded, and so is what is kept for each.
package zmq

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	maxSubscribers = 1000
	// handshakeTimeout is how long a subscriber has for its greeting (libzmq's ZMQ_HANDSHAKE_IVL).
	handshakeTimeout = 30 * time.Second
	// maxQueued bounds the octets that are kept for a subscriber, whatever its high water mark.
	maxQueued = 256 << 20
	// maxHWM stands for a mark of none.
	maxHWM = 1_000_000
)

// Publisher is a socket of the kind PUB.
type Publisher struct {
	hwm int
	log *slog.Logger
	l   net.Listener

	mu   sync.Mutex // guards what follows
	subs map[*subscriber]bool
}

// subscriber is one connection.
type subscriber struct {
	conn   net.Conn
	wake   chan struct{} // has room for one
	topics topics        // guarded by Publisher.mu, as what follows
	queue  [][]byte      // messages in frames
	bytes  int
	ready  bool
	closed bool
}

// Listen opens a socket at tcp://host:port, where "*" is every address, or ipc://path. hwm is how many messages
// are kept for a subscriber, 0 for as many as there are.
func Listen(address string, hwm int, log *slog.Logger) (*Publisher, error) {
	network, at, ok := strings.Cut(address, "://")
	if !ok {
		return nil, fmt.Errorf("zmq: %q is neither tcp://host:port nor ipc://path", address)
	}
	switch network {
	case "tcp":
		at = strings.Replace(at, "*:", ":", 1)
	case "ipc":
		network = "unix"
		if st, err := os.Lstat(at); err == nil && st.Mode().Type() == fs.ModeSocket {
			os.Remove(at) // one that a dead program left
		}
	default:
		return nil, fmt.Errorf("zmq: %q is neither tcp://host:port nor ipc://path", address)
	}
	l, err := net.Listen(network, at)
	if err != nil {
		return nil, fmt.Errorf("zmq: %w", err)
	}
	if hwm <= 0 {
		hwm = maxHWM
	}
	return &Publisher{hwm: hwm, log: log, l: l, subs: make(map[*subscriber]bool)}, nil
}

// Addr is where the socket listens.
func (p *Publisher) Addr() net.Addr { return p.l.Addr() }

// Close ends a socket that was not run.
func (p *Publisher) Close() error { return p.l.Close() }

// Run takes subscribers until ctx ends.
func (p *Publisher) Run(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { p.l.Close() })()
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		c, err := p.l.Accept()
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				p.log.Warn("zmq: no more subscribers are taken", "err", err)
			}
			return
		}
		s := &subscriber{conn: c, wake: make(chan struct{}, 1), topics: topics{}}
		if !p.enter(s) {
			c.Close()
			continue
		}
		conns.Go(func() {
			defer p.leave(s)
			defer context.AfterFunc(ctx, func() { c.Close() })()
			var writing sync.WaitGroup
			defer writing.Wait()
			defer p.end(s)
			if err := p.serve(s, &writing); ctx.Err() == nil {
				p.log.Debug("zmq: a subscriber goes: "+err.Error(), "cat", "zmq")
			}
		})
	}
}

func (p *Publisher) enter(s *subscriber) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.subs) >= maxSubscribers {
		return false
	}
	p.subs[s] = true
	return true
}

func (p *Publisher) leave(s *subscriber) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.subs, s)
}

// end ends the connection and its writer.
func (p *Publisher) end(s *subscriber) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.closed = true
	s.conn.Close()
	s.nudge()
}

func (s *subscriber) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// serve speaks with a subscriber until it goes; the error says why.
func (p *Publisher) serve(s *subscriber, writing *sync.WaitGroup) error {
	if err := s.conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	if _, err := s.conn.Write(greeting()); err != nil {
		return err
	}
	in := bufio.NewReader(s.conn)
	if err := readGreeting(in); err != nil {
		return err
	}
	if _, err := s.conn.Write(ready()); err != nil {
		return err
	}
	flags, body, err := readFrame(in)
	if err != nil {
		return err
	}
	name, meta, ok := command(body)
	if kind := socketType(meta); flags&flagCommand == 0 || !ok || name != "READY" || kind != "SUB" && kind != "XSUB" {
		return fmt.Errorf("%w of a subscriber: %q, %q", errProtocol, name, kind)
	}
	if err := s.conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	p.mu.Lock()
	s.ready = true
	p.mu.Unlock()
	writing.Go(func() { p.write(s) })
	for {
		flags, body, err := readFrame(in)
		if err != nil {
			return err
		}
		if err := p.heard(s, flags, body); err != nil {
			return err
		}
	}
}

// heard deals with a frame of a subscriber.
func (p *Publisher) heard(s *subscriber, flags byte, body []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if flags&flagCommand == 0 {
		if len(body) > 0 && body[0] <= 1 && flags&flagMore == 0 {
			return s.topics.change(body[0] == 1, body[1:])
		}
		return nil // what users of XSUB say to each other
	}
	name, rest, ok := command(body)
	switch {
	case !ok:
		return errProtocol
	case name == "SUBSCRIBE" || name == "CANCEL":
		return s.topics.change(name == "SUBSCRIBE", rest)
	case name == "PING" && len(rest) >= 2 && len(rest) <= 2+maxPing: // its time to live, and what is to come back
		s.put(appendCommand(nil, "PONG", rest[2:]), maxHWM)
	case name == "ERROR":
		return fmt.Errorf("%w with us: it says %q", errProtocol, rest)
	}
	return nil
}

// put queues octets for a subscriber, if there is room; with mu held.
func (s *subscriber) put(b []byte, most int) {
	if len(s.queue) >= most || s.bytes+len(b) > maxQueued || s.closed {
		return
	}
	s.queue = append(s.queue, b)
	s.bytes += len(b)
	s.nudge()
}

// Publish sends a message, whose first part is the topic, to its subscribers.
func (p *Publisher) Publish(parts ...[]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var frames []byte
	for s := range p.subs {
		if !s.ready || !s.topics.wants(parts[0]) {
			continue
		}
		if frames == nil {
			frames = appendMessage(nil, parts)
		}
		s.put(frames, p.hwm)
	}
}

// write sends what is queued for a subscriber until it ends.
func (p *Publisher) write(s *subscriber) {
	for range s.wake {
		for {
			p.mu.Lock()
			if s.closed {
				p.mu.Unlock()
				return
			}
			if len(s.queue) == 0 {
				p.mu.Unlock()
				break
			}
			b := s.queue[0]
			s.queue = s.queue[1:]
			s.bytes -= len(b)
			p.mu.Unlock()
			if _, err := s.conn.Write(b); err != nil {
				s.conn.Close() // the reader notices
				return
			}
		}
	}
}
