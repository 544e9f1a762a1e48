package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// loadBatch is how many entries of the due index are read at a time.
const loadBatch = 256

// loadLoop brings what has become due from the store into memory, until ctx ends.
func (q *Queue) loadLoop(ctx context.Context) {
	for ctx.Err() == nil {
		now := q.clk.Now()
		q.mu.Lock()
		q.retryReports(now)
		name, from, wait := q.nextDue(now)
		q.mu.Unlock()
		if wait != 0 {
			q.sleep(ctx, wait)
			continue
		}
		if err := q.loadDue(name, from, now); err != nil {
			q.fail(fmt.Errorf("read what is due: %w", err))
			return
		}
	}
}

// forever is a wait that only a wake-up ends.
const forever time.Duration = -1

// nextDue takes the route with the earliest entry that is due now out of what is expected; or it
// returns how long there is none. mu is held.
func (q *Queue) nextDue(now time.Time) (name Route, from moment, wait time.Duration) {
	wait = forever
	if !q.reportsAt.IsZero() {
		wait = max(1, q.reportsAt.Sub(now))
	}
	if len(q.due) == 0 {
		return "", moment{}, wait
	}
	r := q.due[0]
	if d := time.UnixMicro(r.next.due).Sub(now); d > 0 {
		if wait == forever || d < wait {
			wait = d
		}
		return "", moment{}, wait
	}
	from = r.next
	q.take(r)
	return r.name, from, 0
}

// sleep waits for a time, or for a wake-up.
func (q *Queue) sleep(ctx context.Context, d time.Duration) {
	var fired <-chan time.Time
	if d != forever {
		timer, stop := q.clk.After(d)
		defer stop()
		fired = timer
	}
	select {
	case <-fired:
	case <-q.loaderWake:
	case <-ctx.Done():
	}
}

// loadDue reads the due index of a route from a place on and has what is due wait for its turn. It
// stops where there is no more room, or at what is due later; entries that come meanwhile are
// expected anew.
func (q *Queue) loadDue(name Route, from moment, now time.Time) error {
	var entries []moment
	var rest *moment
	err := q.store.Scan(dueKey(name, from), dueEnd(name), func(key, _ []byte) bool {
		e := dueMoment(key)
		if len(entries) == loadBatch || e.due > micros(now) {
			rest = &e
			return false
		}
		entries = append(entries, e)
		return true
	})
	if err != nil {
		return err
	}
	for _, e := range entries {
		if full, err := q.loadEntry(name, e, now); full || err != nil {
			return err
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	r := q.route(name)
	if rest != nil {
		q.expect(r, *rest)
	}
	q.dismiss(r, now)
	return nil
}

// loadEntry brings one message into memory and has it wait for its turn. Where there is no room for
// it the route waits for that, and full is true.
func (q *Queue) loadEntry(name Route, e moment, now time.Time) (full bool, err error) {
	m, err := q.hold(e.id)
	if errors.Is(err, ErrNotFound) {
		return false, nil // settled since
	}
	if errors.Is(err, errRecord) {
		q.log.Error("message is damaged and stays as it is", "msg", e.id, "err", err)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	defer q.let(m)
	if name == routeReports {
		q.reportIfOwed(m)
		return false, nil
	}
	at := q.activate(m, now, func(t *recipient) bool { return t.stored == name })
	if at != nil {
		r := q.route(name)
		q.expect(r, e)
		q.park(r, at)
	}
	q.dispatch()
	return at != nil, nil
}

// activate makes jobs of the recipients of a message that are due and that f picks. Where a route
// has no room its recipients wait on disk, and the route is returned. mu is held.
func (q *Queue) activate(m *message, now time.Time, f func(*recipient) bool) (full *route) {
	at := micros(now)
	var jobs []*job
	last := make(map[Route]*job) // the job of a route that may have room for one more
	for i := range m.rcpts {
		t := &m.rcpts[i]
		if t.status != pending || t.phase != idle || t.due > at || !f(t) {
			continue
		}
		j := last[t.route]
		if j == nil || len(j.which) == q.cfg.MaxRecipientsPerDelivery {
			j = &job{msg: m, route: q.route(t.route)}
			last[t.route] = j
			jobs = append(jobs, j)
		}
		j.which = append(j.which, i)
	}
	for _, j := range jobs {
		if q.hasRoom(j.route) {
			q.enqueue(j)
		} else {
			full = j.route
		}
	}
	return full
}

// offer makes jobs of what is due of a message, and has the loader expect the rest. mu is held.
func (q *Queue) offer(m *message, now time.Time) {
	q.activate(m, now, func(*recipient) bool { return true })
	for i := range m.rcpts {
		if t := &m.rcpts[i]; t.phase == idle && t.status == pending {
			q.expect(q.route(t.stored), moment{t.due, m.id})
		}
	}
}

// hold returns a message of the queue and keeps it in memory until let.
func (q *Queue) hold(id mail.ID) (*message, error) {
	q.mu.Lock()
	for {
		m := q.resident[id]
		if m == nil {
			break
		}
		if !m.loading {
			m.users++
			q.mu.Unlock()
			return m, nil
		}
		q.loaded.Wait()
	}
	m := &message{id: id, loading: true, users: 1}
	q.resident[id] = m
	q.mu.Unlock()

	read, err := q.read(id)
	q.mu.Lock()
	defer q.mu.Unlock()
	defer q.loaded.Broadcast()
	if err != nil {
		delete(q.resident, id)
		return nil, err
	}
	read.users = 1
	*m = *read
	return m, nil
}

// let ends one hold. mu is held.
func (q *Queue) let(m *message) {
	m.users--
	if m.users > 0 {
		return
	}
	delete(q.resident, m.id)
	q.cached -= m.cost
	if m.buf != nil {
		q.buffers.put(m.buf)
	}
	m.body, m.buf, m.cost = nil, nil, 0
}

// read reads a message from the store.
func (q *Queue) read(id mail.ID) (*message, error) {
	var pages [][]byte
	from := statesKey(id, 0)
	err := q.store.Scan(from, prefixEnd(idKey(spaceStates, id)), func(_, value []byte) bool {
		pages = append(pages, append([]byte(nil), value...))
		return true
	})
	if err != nil {
		return nil, err
	}
	if len(pages) == 0 {
		return nil, fmt.Errorf("message %v: %w", id, ErrNotFound)
	}
	h, err := q.store.Get(historyKey(id, 0))
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("head of %v is missing: %w", id, errRecord)
	}
	if err != nil {
		return nil, err
	}
	m, err := decodeMessage(id, h, pages)
	if err != nil {
		return nil, err
	}
	for i := range m.rcpts {
		m.rcpts[i].route = q.deliverer.Route(m.envelope.Recipients[i].Address)
	}
	return m, nil
}
