package bitcoind

import (
	"sync/atomic"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
)

// mockable is the machine's clock, whose hands can be held (setmocktime). Timers go on by the machine's:
// who waits looks at the hands again, ten times a second or so, and sees what is due by them.
type mockable struct {
	clock.Real
	held atomic.Int64 // seconds since 1970; 0 lets it run
}

// Now returns the time that is shown.
func (m *mockable) Now() time.Time {
	if s := m.held.Load(); s != 0 {
		return time.Unix(s, 0)
	}
	return m.Real.Now()
}

// mocked returns the time at which the hands are held, if they are.
func (m *mockable) mocked() (time.Time, bool) {
	s := m.held.Load()
	return time.Unix(s, 0), s != 0
}

// SetMock holds the hands, or lets them go where t is zero.
func (m *mockable) SetMock(t time.Time) {
	if t.IsZero() {
		m.held.Store(0)
	} else {
		m.held.Store(t.Unix())
	}
}
