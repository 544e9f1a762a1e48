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

// meter measures many senders against one rate, by the generic cell rate algorithm (ITU-T I.371): for
// each it keeps one time, until which its use so far is paid for. A whole Count may come at once, then
// more as time passes. It remembers at most maxMetered senders: who has not sent for Per is as good as
// new and forgotten first.
type meter[K comparable] struct {
	rate Rate

	mu   sync.Mutex
	paid map[K]int64 // guarded by mu; nanoseconds since 1970
}

// maxMetered bounds the memory of one meter: about 4 MiB at 80 octets an entry.
const maxMetered = 50_000

func newMeter[K comparable](r Rate) *meter[K] {
	return &meter[K]{rate: r, paid: make(map[K]int64)}
}

// take counts n for a sender. It returns zero where that is within the rate, else how long to wait, and
// then it counts nothing.
func (m *meter[K]) take(k K, n int64, now time.Time) time.Duration {
	if m.rate.Count <= 0 {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	paid, over := m.spend(k, n, now)
	if over > 0 {
		return over
	}
	if len(m.paid) >= maxMetered {
		m.forget(now.UnixNano())
	}
	m.paid[k] = paid
	return 0
}

// peek returns what take would, and counts nothing in any case.
func (m *meter[K]) peek(k K, n int64, now time.Time) time.Duration {
	if m.rate.Count <= 0 {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, over := m.spend(k, n, now)
	return max(over, 0)
}

// spend returns until when the use would be paid for, and by how much that is too late. mu is held.
func (m *meter[K]) spend(k K, n int64, now time.Time) (paid int64, over time.Duration) {
	if n > m.rate.Count {
		// More at once than is allowed in the whole period: it will never fit, and the product of
		// the two may overflow.
		return 0, m.rate.Per
	}
	paid = max(m.paid[k], now.UnixNano())
	paid += int64(float64(m.rate.Per) / float64(m.rate.Count) * float64(n))
	return paid, time.Duration(paid-now.UnixNano()) - m.rate.Per
}

// forget drops who is paid up; if nobody is, an arbitrary tenth, so that a flood of addresses costs
// the flooder his record and us nothing. mu is held.
func (m *meter[K]) forget(now int64) {
	for k, paid := range m.paid {
		if paid <= now {
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

// count is how many are open for a key.
func (c *counter[K]) count(k K) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open[k]
}

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
