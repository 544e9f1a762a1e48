package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// A message is collected in memory up to bufferBytes, most need no more, behind room for the trace
// fields: so that both are one piece in the store and one in memory for the first attempt. A small
// buffer comes first, because connections are many.
const (
	prefixRoom  = 4 << 10
	smallBuffer = prefixRoom + 12<<10
	largeBuffer = prefixRoom + 64<<10
)

var errOver = errors.New("queue: message was committed or aborted")

// Incoming is a message being received. One goroutine uses it at a time.
type Incoming struct {
	q    *Queue
	id   mail.ID
	buf  []byte // prefixRoom, then octets that are not in body yet
	body Body   // nil while all is in buf
	size int64
	over bool
}

// buffers are the buffers of messages being received, by size.
type buffers struct{ small, large sync.Pool }

func (p *buffers) get(size int) []byte {
	pool := &p.large
	if size == smallBuffer {
		pool = &p.small
	}
	if b, ok := pool.Get().(*[]byte); ok {
		return (*b)[:prefixRoom]
	}
	return make([]byte, prefixRoom, size)
}

func (p *buffers) put(b []byte) {
	switch cap(b) {
	case smallBuffer:
		p.small.Put(&b)
	case largeBuffer:
		p.large.Put(&b)
	}
}

// NewMessage begins a message. Nothing is known of it to anybody before Commit.
func (q *Queue) NewMessage() *Incoming {
	return &Incoming{q: q, id: q.ids.Next(q.clk.Now()), buf: q.buffers.get(smallBuffer)}
}

// ID is the name the message will have.
func (m *Incoming) ID() mail.ID { return m.id }

// Size is the number of octets written so far.
func (m *Incoming) Size() int64 { return m.size }

// Write takes octets of the message as received. After an error the message can only be aborted;
// ErrFull is one of them.
func (m *Incoming) Write(p []byte) (n int, err error) {
	if m.over {
		return 0, errOver
	}
	for len(p) > 0 {
		if len(m.buf) == cap(m.buf) {
			if err := m.grow(); err != nil {
				return n, err
			}
		}
		c := copy(m.buf[len(m.buf):cap(m.buf)], p)
		m.buf = m.buf[:len(m.buf)+c]
		m.size += int64(c)
		n += c
		p = p[c:]
	}
	return n, nil
}

// grow takes a larger buffer, or puts what it holds into the store.
func (m *Incoming) grow() error {
	if cap(m.buf) < largeBuffer {
		large := m.q.buffers.get(largeBuffer)
		large = append(large, m.buf[prefixRoom:]...)
		m.q.buffers.put(m.buf)
		m.buf = large
		return nil
	}
	if m.body == nil {
		body, err := m.q.newBody(m.id)
		if err != nil {
			return err
		}
		m.body = body
	}
	if _, err := m.body.Write(m.buf[prefixRoom:]); err != nil {
		return m.q.noteBroken(err)
	}
	m.buf = m.buf[:prefixRoom]
	return nil
}

// Commit makes the message the queue's: when it returns without error the message with prefix in
// front, its envelope and its log entry are on stable storage. The event is the acceptance; ID,
// Time, From, To and Size are filled in where they are unset. If ctx ends first, whether the
// message was accepted is unknown.
func (m *Incoming) Commit(ctx context.Context, prefix []byte, env mail.Envelope,
	ev mail.Event) (Receipt, error) {
	if m.over {
		return Receipt{}, errOver
	}
	q := m.q
	if len(env.Recipients) == 0 {
		return Receipt{}, errors.New("queue: message without recipients")
	}
	if err := m.seal(prefix); err != nil {
		return Receipt{}, err
	}
	if ev.Size == 0 {
		ev.Size = m.size
	}
	msg := q.compose(m.id, env, &ev, m.size+int64(len(prefix)))
	o := msg.accept(ev, m.body)
	if o.bytes > maxOpBytes {
		return Receipt{}, fmt.Errorf("queue: message with %d recipients is too large",
			len(env.Recipients))
	}
	m.over = true
	m.keep(msg, len(prefix))
	q.mu.Lock()
	q.admit(msg)
	q.mu.Unlock()

	done := make(chan error, 1)
	o.done = func(err error) {
		done <- err // who waits is told first
		if err == nil {
			q.accepted(msg)
		}
	}
	q.committer.push(o)
	if err := wait(ctx, done); err != nil {
		return Receipt{}, err
	}
	return Receipt{ID: m.id, Index: o.indexes[0], Origin: q.journal.Origin()}, nil
}

// wait returns what comes of an op, or the error of ctx if that ends first.
func wait(ctx context.Context, done <-chan error) error {
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// seal ends the body. A small one is one piece, its trace fields included.
func (m *Incoming) seal(prefix []byte) error {
	whole := m.body == nil && len(prefix) <= prefixRoom
	if m.body == nil {
		body, err := m.q.newBody(m.id)
		if err != nil {
			return err
		}
		m.body = body
	}
	octets := m.buf[prefixRoom:]
	if whole {
		copy(m.buf[prefixRoom-len(prefix):], prefix)
		octets, prefix = m.buf[prefixRoom-len(prefix):], nil
	}
	if _, err := m.body.Write(octets); err != nil {
		return m.q.noteBroken(err)
	}
	return m.q.noteBroken(m.body.Seal(prefix))
}

// keep leaves the message in memory for the first attempt, if it is whole there and there is room.
func (m *Incoming) keep(msg *message, prefix int) {
	q := m.q
	size := int64(cap(m.buf))
	whole := m.size <= int64(len(m.buf)-prefixRoom) && prefix <= prefixRoom
	q.mu.Lock()
	defer q.mu.Unlock()
	if !whole || q.cached+size > q.cfg.CacheBytes {
		q.buffers.put(m.buf)
	} else {
		q.cached += size
		msg.body, msg.buf, msg.cost = m.buf[prefixRoom-prefix:], m.buf, size
	}
	m.buf = nil
}

// Abort gives the message up. It does nothing after Commit.
func (m *Incoming) Abort() {
	if m.over {
		return
	}
	m.over = true
	if m.body != nil {
		m.body.Abort()
	}
	m.q.buffers.put(m.buf)
	m.buf = nil
}

// compose makes the message of an envelope and of the event of its acceptance, which it completes.
func (q *Queue) compose(id mail.ID, env mail.Envelope, ev *mail.Event, size int64) *message {
	now := q.clk.Now()
	ev.ID = id
	if ev.Time.IsZero() {
		ev.Time = now
	}
	if ev.From == nil {
		ev.From = &env.From
	}
	if ev.To == nil {
		ev.To = make([]mail.Address, len(env.Recipients))
		for i := range env.Recipients {
			ev.To[i] = env.Recipients[i].Address
		}
	}
	h := &head{size: size, arrived: now.UTC().Truncate(time.Microsecond), envelope: env, event: *ev}
	due := micros(now)
	if env.HoldUntil.After(now) {
		due = micros(env.HoldUntil)
	}
	return newMessage(id, h, due, q.deliverer.Route)
}

// admit counts a message that is about to be accepted. mu is held.
func (q *Queue) admit(m *message) {
	m.users++
	q.resident[m.id] = m
	q.messages++
	for i := range m.rcpts {
		q.count(&m.rcpts[i], +1)
	}
}

// accepted begins the delivery of a message that is on stable storage.
func (q *Queue) accepted(m *message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.offer(m, q.clk.Now())
	q.let(m)
	q.dispatch()
}

// Record enters an event into the log that is not about a message of the queue, and returns its
// index when it is on stable storage.
func (q *Queue) Record(ctx context.Context, ev mail.Event) (uint64, error) {
	if ev.Time.IsZero() {
		ev.Time = q.clk.Now()
	}
	o := new(op)
	o.event(ev)
	if err := q.commitAndWait(ctx, o); err != nil {
		return 0, err
	}
	return o.indexes[0], nil
}
