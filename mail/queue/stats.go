package queue

import (
	"cmp"
	"slices"
	"time"
)

// Stats is the queue in numbers.
type Stats struct {
	Messages int           `json:"messages"`
	States   map[State]int `json:"states"` // recipients that are not settled, by state
	Oldest   time.Time     `json:"oldest,omitzero"`
	Routes   []RouteStats  `json:"routes,omitempty"` // the fullest first
}

// RouteStats is one route in numbers.
type RouteStats struct {
	Route       Route     `json:"route"`
	Recipients  int       `json:"recipients"`  // not settled
	Active      int       `json:"active"`      // attempts under way
	Due         int       `json:"due"`         // attempts that wait for their turn in memory
	Concurrency int       `json:"concurrency"` // the most attempts at a time, as of now
	DeadUntil   time.Time `json:"dead_until,omitzero"`
	Reply       string    `json:"reply,omitempty"` // why, where it is dead
}

// Stats counts.
func (q *Queue) Stats() Stats {
	s := Stats{States: make(map[State]int)}
	// Ids begin with the time. An error leaves the time out; what reads next fails aloud.
	q.store.Scan([]byte{spaceStates}, []byte{spaceStates + 1}, func(key, _ []byte) bool {
		s.Oldest = time.UnixMicro(int64(keyID(key) >> 12)).UTC()
		return false
	})
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.clk.Now()
	s.Messages = q.messages
	total := 0
	for _, r := range q.routes {
		total += r.total
		x := RouteStats{
			Route:       r.name,
			Recipients:  r.total,
			Active:      r.running,
			Due:         r.ready.n,
			Concurrency: int(r.limit),
		}
		if r.deadUntil.After(now) {
			x.DeadUntil, x.Reply = r.deadUntil, r.words.Reply
		}
		if r.total > 0 || r.running > 0 {
			s.Routes = append(s.Routes, x)
		}
	}
	for _, m := range q.resident {
		for i := range m.rcpts {
			if state := m.rcpts[i].state(); state == StateDue || state == StateActive {
				s.States[state]++
			}
		}
	}
	s.States[StateHeld] = q.held
	s.States[StateDeferred] = max(0, total-q.held-s.States[StateDue]-s.States[StateActive])
	slices.SortFunc(s.Routes, func(a, b RouteStats) int {
		if a.Recipients != b.Recipients {
			return b.Recipients - a.Recipients
		}
		return cmp.Compare(a.Route, b.Route)
	})
	return s
}
