package memnet

import (
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	maxSegment      = 16 << 10 // octets
	segmentOverhead = 64       // octets charged for each segment, so that small ones are bounded too
)

// pipe is one direction of a connection: segments that know when they arrive.
type pipe struct {
	n   *Network
	way pair

	writing sync.Mutex // held through a write; guards dice
	dice    *rand.Rand

	mu       sync.Mutex // guards what follows; never held while waiting
	queue    []segment
	held     int       // octets in queue, overhead included
	last     time.Time // arrival of the last segment: order is kept
	ended    bool      // the writing end will write no more
	wclosed  bool      // the writing end was closed by its owner
	rclosed  bool      // so was the reading end
	rfate    fate
	wfate    fate
	rlimit   time.Time // deadline of reads
	wlimit   time.Time // deadline of writes
	change   chan struct{}
	watchers int
}

type segment struct {
	data []byte // nil: the end of the stream
	at   time.Time
}

// fate is a reset on its way to an end of the pipe. One from the other host does not pass a cut.
type fate struct {
	at     time.Time // zero: none
	remote bool
}

func newPipe(n *Network, way pair, dice *rand.Rand) *pipe {
	return &pipe{n: n, way: way, dice: dice, change: make(chan struct{})}
}

// wake is called with mu held, after every change that somebody may wait for.
func (p *pipe) wake() {
	if p.watchers > 0 {
		close(p.change)
		p.change = make(chan struct{})
		p.watchers = 0
	}
}

// wait returns after a change, after another has opened, or when the clock reaches one of the times
// that are not zero. It is called with mu held, and returns with mu held.
func (p *pipe) wait(now time.Time, other <-chan struct{}, times ...time.Time) {
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	p.watchers++
	change := p.change
	p.mu.Unlock()
	defer p.mu.Lock()
	var fired <-chan time.Time
	if !first.IsZero() {
		var stop func()
		fired, stop = p.n.cfg.Clock.After(first.Sub(now))
		defer stop()
	}
	select {
	case <-change:
	case <-other:
	case <-fired:
	}
}

// passed says whether a time that may be unset has come.
func passed(t, now time.Time) bool { return !t.IsZero() && !now.Before(t) }

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		now := p.n.cfg.Clock.Now()
		open, mended := p.n.passes(p.way)
		switch {
		case p.rclosed:
			return 0, net.ErrClosed
		case passed(p.rfate.at, now) && (open || !p.rfate.remote):
			return 0, syscall.ECONNRESET
		case passed(p.rlimit, now):
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		case !open:
			p.wait(now, mended, p.rlimit)
		case len(p.queue) == 0:
			p.wait(now, nil, p.rlimit, p.rfate.at)
		case p.queue[0].at.After(now):
			p.wait(now, nil, p.queue[0].at, p.rlimit, p.rfate.at)
		default:
			return p.take(b, now)
		}
	}
}

// take moves what has arrived by now into b; the first segment has.
func (p *pipe) take(b []byte, now time.Time) (n int, err error) {
	for n < len(b) && len(p.queue) > 0 && !p.queue[0].at.After(now) {
		s := &p.queue[0]
		if s.data == nil {
			break
		}
		k := copy(b[n:], s.data)
		n += k
		p.held -= k
		if s.data = s.data[k:]; len(s.data) > 0 {
			break
		}
		p.held -= segmentOverhead
		p.queue[0] = segment{}
		if p.queue = p.queue[1:]; len(p.queue) == 0 {
			p.queue = nil // else the array would grow at its end
		}
	}
	if n == 0 {
		return 0, io.EOF // the mark of the end stays in the queue
	}
	p.wake()
	return n, nil
}

// write blocks while the buffer is full. An error that names an instant is for both ends to meet:
// the reset that the link dealt, or the answer of an end that was closed to what came for it.
func (p *pipe) write(b []byte) (n int, reset time.Time, err error) {
	p.writing.Lock()
	defer p.writing.Unlock()
	for {
		part := b[n:min(len(b), n+maxSegment)]
		if err := p.room(len(part)); err != nil || len(part) == 0 {
			return n, reset, err
		}
		at, dealt := p.n.schedule(p.way, len(part), p.dice)
		if dealt {
			return n, p.n.cfg.Clock.Now(), syscall.ECONNRESET
		}
		p.mu.Lock()
		if p.rclosed {
			// Accepted, as the sender cannot know yet; the reset takes the way back.
			reset = at.Add(at.Sub(p.n.cfg.Clock.Now()))
		} else {
			p.push(segment{append([]byte(nil), part...), at})
			p.wake()
		}
		p.mu.Unlock()
		if n += len(part); n == len(b) {
			return n, reset, nil
		}
	}
}

// room waits until n octets may be written.
func (p *pipe) room(n int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		now := p.n.cfg.Clock.Now()
		open, mended := p.n.passes(p.way)
		switch {
		case p.wclosed:
			return net.ErrClosed
		case passed(p.wfate.at, now) && (open || !p.wfate.remote):
			return syscall.ECONNRESET
		case p.ended:
			return syscall.EPIPE
		case passed(p.wlimit, now):
			return os.ErrDeadlineExceeded
		case p.held == 0 || p.held+n+segmentOverhead <= p.n.cfg.BufferBytes:
			return nil
		case !open:
			p.wait(now, mended, p.wlimit)
		default:
			p.wait(now, nil, p.wlimit, p.wfate.at)
		}
	}
}

// push is called with mu held. A small segment joins the one before where it arrives no later.
func (p *pipe) push(s segment) {
	if s.at.Before(p.last) {
		s.at = p.last
	}
	p.last = s.at
	if k := len(p.queue) - 1; k >= 0 && s.data != nil {
		tail := &p.queue[k]
		if !tail.at.Before(s.at) && len(tail.data)+len(s.data) <= maxSegment {
			tail.data = append(tail.data, s.data...)
			p.held += len(s.data)
			return
		}
	}
	p.queue = append(p.queue, s)
	p.held += len(s.data) + segmentOverhead
}

// end sends the end of the stream, once. A write under way returns first.
func (p *pipe) end(closed bool) {
	p.mu.Lock()
	again := p.ended
	p.ended = true
	p.wclosed = p.wclosed || closed
	p.wake()
	p.mu.Unlock()
	if again {
		return
	}
	p.writing.Lock()
	defer p.writing.Unlock()
	at, _ := p.n.schedule(p.way, 0, p.dice)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.rclosed {
		p.push(segment{nil, at})
		p.wake()
	}
}

// stop closes the reading end. Where something was sent that will never be read it returns when
// that arrives or did: the answer to it is a reset.
func (p *pipe) stop() (unread time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) > 0 && p.queue[0].data != nil {
		unread = p.queue[0].at
	}
	p.rclosed = true
	p.queue, p.held = nil, 0
	p.wake()
	return unread
}

// doom resets the reading end, the writing end, or both: a fate without time leaves an end alone.
func (p *pipe) doom(reader, writer fate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range []struct {
		fate *fate
		new  fate
	}{{&p.rfate, reader}, {&p.wfate, writer}} {
		if !f.new.at.IsZero() && (f.fate.at.IsZero() || f.new.at.Before(f.fate.at)) {
			*f.fate = f.new
		}
	}
	p.wake()
}

// limit sets one of the deadlines and wakes who waits.
func (p *pipe) limit(deadline *time.Time, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*deadline = t
	p.wake()
}
