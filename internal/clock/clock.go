// Package clock tells the time and wakes who waits: from the machine's clock, or from one that a test or
// a lab sets by hand.
//
// Everything in the product that waits takes a Clock, so that days of retries run in milliseconds and
// setmocktime governs a node. It does not do time zones or formatting.
package clock

import (
	"context"
	"sync"
	"time"
)

// Clock is the source of time for one node.
type Clock interface {
	// Now returns the current time.
	Now() time.Time
	// After returns a channel that receives once d has passed, and a function that gives the timer up
	// early. A d of zero or less fires at once.
	After(d time.Duration) (<-chan time.Time, func())
}

// Real is the machine's clock.
type Real struct{}

// Now returns time.Now().
func (Real) Now() time.Time { return time.Now() }

// After is time.NewTimer.
func (Real) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// Sleep waits for d on the clock, or until ctx ends; then it returns ctx's error.
func Sleep(ctx context.Context, c Clock, d time.Duration) error {
	fired, stop := c.After(d)
	defer stop()
	select {
	case <-fired:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Mock is a clock that stands still until Set or Advance moves it.
type Mock struct {
	mu     sync.Mutex
	now    time.Time           // guarded by mu
	timers map[*mockTimer]bool // guarded by mu; those that have not fired
	change chan struct{}       // guarded by mu; closed when a timer is added
}

type mockTimer struct {
	at time.Time
	c  chan time.Time
}

// NewMock returns a clock that stands at now.
func NewMock(now time.Time) *Mock {
	return &Mock{now: now, timers: make(map[*mockTimer]bool), change: make(chan struct{})}
}

// Now returns the time the clock stands at.
func (m *Mock) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// After is as Clock has it.
func (m *Mock) After(d time.Duration) (<-chan time.Time, func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := &mockTimer{at: m.now.Add(d), c: make(chan time.Time, 1)}
	if d <= 0 {
		t.c <- m.now
		return t.c, func() {}
	}
	m.timers[t] = true
	close(m.change)
	m.change = make(chan struct{})
	return t.c, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.timers, t)
	}
}

// Set moves the clock to now and fires what is due. Going back fires nothing.
func (m *Mock) Set(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = now
	for t := range m.timers {
		if !t.at.After(now) {
			delete(m.timers, t)
			t.c <- now
		}
	}
}

// Advance moves the clock by d.
func (m *Mock) Advance(d time.Duration) { m.Set(m.Now().Add(d)) }

// Next returns when the earliest timer is due; false where nobody waits.
func (m *Mock) Next() (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var at time.Time
	for t := range m.timers {
		if at.IsZero() || t.at.Before(at) {
			at = t.at
		}
	}
	return at, !at.IsZero()
}

// Wait returns when at least n timers wait, so that a test knows that the code under test has got there,
// or when ctx ends.
func (m *Mock) Wait(ctx context.Context, n int) error {
	for {
		m.mu.Lock()
		have, change := len(m.timers), m.change
		m.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
