package intake

import (
	"sync"
	"time"
)

// Rate is a number of things in a time. The zero value is no limit.
type Rate struct {
	Count int64
	Per   time.Duration
}

// meter measures many senders against one rate, by the generic cell rate algorithm (ITU-T I.371): for each it
// keeps one time, until which its use so far is paid for. A whole Count may come at once, then more as time
// passes. It remembers at most maxMetered senders: who has not sent for Per is as good as new and
// forgotten first.
type meter[K comparable] struct {
	rate Rate

	mu   sync.Mutex
	paid map[K]time.Time // guarded by mu
}

// maxMetered bounds the memory of one meter: about 10 MiB at 100 octets an entry.
const maxMetered = 100_000

func newMeter[K comparable](r Rate) *meter[K] {
	return &meter[K]{rate: r, paid: make(map[K]time.Time)}
}

// take counts n for a sender. It returns zero where that is within the rate, else how long to wait, and then
// it counts nothing.
func (m *meter[K]) take(k K, n int64, now time.Time) time.Duration {
	if m.rate.Count <= 0 {
		return 0
	}
	each := m.rate.Per / time.Duration(m.rate.Count)
	cost := time.Duration(n) * each
	if n > m.rate.Count {
		// More at once than is allowed in the whole period: it will never fit, and the product may overflow.
		return m.rate.Per
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	paid := m.paid[k]
	if paid.Before(now) {
		paid = now
	}
	paid = paid.Add(cost)
	if over := paid.Sub(now) - m.rate.Per; over > 0 {
		return over
	}
	if len(m.paid) >= maxMetered {
		m.forget(now)
	}
	m.paid[k] = paid
	return 0
}

// forget drops who is paid up; if nobody is, an arbitrary tenth, so that a flood of addresses costs the
// flooder his record and us nothing.
func (m *meter[K]) forget(now time.Time) {
	for k, paid := range m.paid {
		if !paid.After(now) {
			delete(m.paid, k)
		}
	}
	for k := range m.paid {
		if len(m.paid) < maxMetered-maxMetered/10 {
			return
		}
		delete(m.paid, k)
	}
}

// counter counts what is open at a time for each key.
type counter[K comparable] struct {
	mu   sync.Mutex
	open map[K]int // guarded by mu
}

func newCounter[K comparable]() *counter[K] { return &counter[K]{open: make(map[K]int)} }

// enter counts one more, unless there are max already; max of zero or less is no limit.
func (c *counter[K]) enter(k K, max int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if max > 0 && c.open[k] >= max {
		return false
	}
	c.open[k]++
	return true
}

func (c *counter[K]) leave(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[k]--; c.open[k] <= 0 {
		delete(c.open, k)
	}
}
