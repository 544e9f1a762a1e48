package queue

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// Limits of one group. A group takes what waits, up to these; with little load that is one message,
// and nobody waits for company.
const (
	groupOps   = 1024
	groupBytes = 1 << 20
	// maxOpBytes is the most that one operation writes, bodies aside: it bounds the number of
	// recipients.
	maxOpBytes = 4 << 20
)

// fullRetry is how long the committer waits before it tries again a group for which there was no
// room.
const fullRetry = 200 * time.Millisecond

// op is what is committed whole or not at all: the acceptance of a message, the outcome of an
// attempt, a word of the operator.
type op struct {
	events  []mail.Event
	writes  []Write
	patches []patch
	bodies  []Body
	drop    []mail.ID
	bytes   int

	indexes []uint64 // of the events; set when it is done
	// done is called once, by the committer when the op is on stable storage, or by anybody with
	// the error that keeps it from ever being so. With an error it must take no lock.
	done func(error)
}

// patch is a place in a value where the index of an event belongs.
type patch struct {
	write, at, event int
}

func (o *op) set(key, value []byte) {
	o.writes = append(o.writes, Write{key, value})
	o.bytes += len(key) + len(value)
}

func (o *op) delete(key []byte) {
	o.writes = append(o.writes, Write{Key: key})
	o.bytes += len(key)
}

// event adds an event and returns its number in the op.
func (o *op) event(ev mail.Event) int {
	o.events = append(o.events, ev)
	return len(o.events) - 1
}

// committer is the one place that writes to the Store and asks the Journal.
type committer struct {
	store   Store
	journal Journal
	log     *slog.Logger

	mu     sync.Mutex
	ops    []*op         // guarded by mu; in the order of their commits
	err    error         // guarded by mu; why nothing more is taken
	closed bool          // guarded by mu; run returns when ops is empty
	wake   chan struct{} // has a token when there is something to do
	quit   chan struct{} // closed by close

	// Of run alone.
	events []mail.Event
	group  Group
}

func newCommitter(store Store, journal Journal, log *slog.Logger) *committer {
	return &committer{
		store: store, journal: journal, log: log,
		wake: make(chan struct{}, 1),
		quit: make(chan struct{}),
	}
}

// push hands an op to the committer. It does not block: those who push wait for what they pushed,
// or are few.
func (c *committer) push(o *op) {
	c.mu.Lock()
	err := c.err
	if err == nil && c.closed {
		err = ErrStopped
	}
	if err == nil {
		c.ops = append(c.ops, o)
	}
	c.mu.Unlock()
	if err != nil {
		o.done(err)
		return
	}
	c.signal()
}

func (c *committer) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// close has run return when everything pushed so far is committed.
func (c *committer) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		close(c.quit)
	}
	c.signal()
}

// run commits until close, or until the store or the journal fails; then it returns why.
func (c *committer) run() error {
	for {
		ops, closed := c.take()
		if len(ops) == 0 {
			if closed {
				return nil
			}
			<-c.wake
			continue
		}
		if err := c.commit(ops); err != nil {
			c.fail(ops, err)
			return err
		}
		for i, o := range ops {
			ops[i] = nil
			o.done(nil)
		}
	}
}

// take returns the ops of the next group.
func (c *committer) take() (ops []*op, closed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, bytes := 0, 0
	for n < len(c.ops) && n < groupOps && (n == 0 || bytes+c.ops[n].bytes <= groupBytes) {
		bytes += c.ops[n].bytes
		n++
	}
	ops = c.ops[:n:n]
	c.ops = c.ops[n:]
	if len(c.ops) == 0 {
		c.ops = nil
	}
	return ops, c.closed
}

func (c *committer) fail(ops []*op, err error) {
	if !errors.Is(err, ErrBroken) {
		err = fmt.Errorf("%w: %w", ErrBroken, err)
	}
	c.log.Error("the queue stops: it can not commit", "err", err)
	c.mu.Lock()
	c.err = err
	ops = append(ops, c.ops...)
	c.ops = nil
	c.mu.Unlock()
	for _, o := range ops {
		o.done(err)
	}
}

// commit makes one group durable.
func (c *committer) commit(ops []*op) error {
	c.events = c.events[:0]
	for _, o := range ops {
		c.events = append(c.events, o.events...)
	}
	var indexes []uint64
	var entries []Write
	if len(c.events) > 0 {
		var err error
		if indexes, entries, err = c.journal.Append(c.events); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		if len(indexes) != len(c.events) {
			return fmt.Errorf("journal gave %d indexes for %d events", len(indexes), len(c.events))
		}
	}
	c.collect(ops, indexes, entries)
	if err := c.storeGroup(); err != nil {
		return err
	}
	if len(c.events) > 0 {
		c.journal.Committed()
	}
	return nil
}

// collect makes the group of the ops and the journal's writes.
func (c *committer) collect(ops []*op, indexes []uint64, entries []Write) {
	g := &c.group
	g.Writes, g.Bodies, g.Drop = g.Writes[:0], g.Bodies[:0], g.Drop[:0]
	for _, o := range ops {
		o.indexes, indexes = indexes[:len(o.events):len(o.events)], indexes[len(o.events):]
		for _, p := range o.patches {
			putIndex(o.writes[p.write].Value[p.at:], o.indexes[p.event])
		}
		g.Writes = append(g.Writes, o.writes...)
		g.Bodies = append(g.Bodies, o.bodies...)
		g.Drop = append(g.Drop, o.drop...)
	}
	for _, e := range entries {
		g.Writes = append(g.Writes, Write{journalKey(e.Key), e.Value})
	}
}

// storeGroup commits the group. The Journal has numbered its events already, so where there is no
// room for it the same group is tried until there is.
func (c *committer) storeGroup() error {
	for warned := false; ; warned = true {
		err := c.store.Commit(&c.group)
		if !errors.Is(err, ErrFull) || errors.Is(err, ErrBroken) {
			return err
		}
		if !warned {
			c.log.Error("the queue waits: no room on the disk", "err", err)
		}
		select {
		case <-time.After(fullRetry):
		case <-c.quit:
			return fmt.Errorf("stopped while there was no room: %w", err)
		}
	}
}

// accepting returns why nothing is taken.
func (c *committer) accepting() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil && c.closed {
		return ErrStopped
	}
	return c.err
}
