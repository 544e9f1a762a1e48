package queue

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// State is where a recipient of a message stands.
type State string

// The states of a recipient.
const (
	StateDue       State = "due"       // waits for its turn
	StateActive    State = "active"    // an attempt is under way
	StateDeferred  State = "deferred"  // waits for the time of its next attempt
	StateHeld      State = "held"      // waits for Release
	StateDelivered State = "delivered" // settled: handed over
	StateFailed    State = "failed"    // settled: refused or given up
	StateDropped   State = "dropped"   // settled: removed by the operator
)

// ErrSelector: an empty Selector was given to what changes messages, without All.
var ErrSelector = errors.New("nothing selected: name an id, sender, recipient, destination, " +
	"route or state, or ask for all")

// Selector picks recipients of messages: those that have all that is set. The zero value picks all,
// which List takes and the others refuse unless All is set.
type Selector struct {
	ID          mail.ID       `json:"id,omitempty"`
	Sender      *mail.Address `json:"sender,omitempty"`
	Recipient   *mail.Address `json:"recipient,omitempty"`
	Destination mail.Domain   `json:"destination,omitempty"` // domain of the recipient
	Route       Route         `json:"route,omitempty"`
	State       State         `json:"state,omitempty"`
	All         bool          `json:"all,omitempty"`
}

// Message is a message of the queue, or one that was.
type Message struct {
	ID         mail.ID       `json:"id"`
	Arrived    time.Time     `json:"arrived"`
	Size       int64         `json:"size"` // trace fields included
	Envelope   mail.Envelope `json:"envelope"`
	Accepted   mail.Event    `json:"accepted"` // the event of acceptance
	Index      uint64        `json:"index"`    // of the acceptance in the log
	Recipients []Recipient   `json:"recipients,omitempty"`
	// Attempts is the history, in order of time; only Show and Trace fill it.
	Attempts []Attempt `json:"attempts,omitempty"`
	// Done says that every recipient is settled and the body is gone.
	Done bool `json:"done"`
}

// Recipient is a recipient's state.
type Recipient struct {
	Address  mail.Address `json:"address"`
	State    State        `json:"state"`
	Route    Route        `json:"route,omitempty"`
	Attempts int          `json:"attempts"`
	Due      time.Time    `json:"due,omitzero"`   // of the next attempt
	Last     *Attempt     `json:"last,omitempty"` // what the last attempt gave
}

// Attempt is what one attempt gave for some recipients, or several attempts in a row that gave the
// same.
type Attempt struct {
	Time  time.Time `json:"time"`          // of the first
	Last  time.Time `json:"last,omitzero"` // of the last, if there were several
	Count int       `json:"count"`
	Route Route     `json:"route"`
	// Untried says that no attempt was made, because the route had failed just before, for other
	// mail, with these words.
	Untried bool `json:"untried,omitempty"`
	Result
	Recipients []mail.Address `json:"recipients"`
	// Indexes are those of the log entries, one for each of Recipients; none where it was deferred.
	Indexes []uint64 `json:"indexes,omitempty"`
}

// ids calls f with the ids of the messages that a selector may pick, oldest first, until f returns
// false.
func (q *Queue) eachID(sel Selector, f func(mail.ID) bool) error {
	if sel.ID != 0 {
		f(sel.ID)
		return nil
	}
	space, from := byte(spaceStates), []byte{spaceStates}
	if a := sel.Recipient; a != nil {
		space, from = spaceAddress, hashKey(spaceAddress, a.String())
	} else if a := sel.Sender; a != nil && !a.IsNull() {
		space, from = spaceAddress, hashKey(spaceAddress, a.String())
	}
	var last mail.ID
	return q.store.Scan(from, prefixEnd(from), func(key, _ []byte) bool {
		id := keyID(key)
		if space == spaceAddress {
			id = keyID(key[8:])
		}
		if id == last {
			return true
		}
		last = id
		return f(id)
	})
}

// each calls f with the messages that a selector picks something of, and the numbers of the
// recipients picked, oldest first, until f returns false. mu is held during f.
func (q *Queue) each(ctx context.Context, sel Selector,
	f func(m *message, which []int) bool) error {
	var ids []mail.ID // collected first: a long scan would keep old files of the store
	err := q.eachID(sel, func(id mail.ID) bool {
		ids = append(ids, id)
		return true
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return err
		}
		m, err := q.hold(id)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if errors.Is(err, errRecord) {
			q.log.Error("message is damaged and stays as it is", "msg", id, "err", err)
			continue
		}
		if err != nil {
			return err
		}
		q.mu.Lock()
		which := q.pick(m, sel)
		more := len(which) == 0 || f(m, which)
		q.let(m)
		q.mu.Unlock()
		if !more {
			return nil
		}
	}
	return nil
}

// pick returns the recipients of a message that a selector picks. mu is held.
func (q *Queue) pick(m *message, sel Selector) (which []int) {
	if sel.Sender != nil && !sameAddress(*sel.Sender, m.envelope.From) {
		return nil
	}
	for i := range m.rcpts {
		t, to := &m.rcpts[i], m.envelope.Recipients[i].Address
		switch {
		case sel.Recipient != nil && !sameAddress(*sel.Recipient, to):
		case sel.Destination != "" && sel.Destination != to.Domain:
		case sel.Route != "" && sel.Route != t.route:
		case sel.State != "" && sel.State != t.state():
		default:
			which = append(which, i)
		}
	}
	return which
}

// sameAddress compares as people do: RFC 5321 lets only the last server tell cases of a local part
// apart, and the operator looks for what was meant.
func sameAddress(a, b mail.Address) bool {
	return a.Domain == b.Domain && strings.EqualFold(a.Local, b.Local)
}

func (t *recipient) state() State {
	switch t.status {
	case held:
		return StateHeld
	case delivered:
		return StateDelivered
	case failed:
		return StateFailed
	case dropped:
		return StateDropped
	}
	switch t.phase {
	case waiting:
		return StateDue
	case running:
		return StateActive
	}
	return StateDeferred
}

// List returns the messages of the queue that the selector picks, oldest first, at most limit (0:
// all).
func (q *Queue) List(ctx context.Context, sel Selector, limit int) ([]Message, error) {
	var list []Message
	err := q.each(ctx, sel, func(m *message, which []int) bool {
		list = append(list, m.export())
		return len(list) != limit
	})
	return list, err
}

// export returns a message as the outside sees it, without its history. mu is held.
func (m *message) export() Message {
	x := m.head.export(m.id)
	for i := range m.rcpts {
		t := &m.rcpts[i]
		r := Recipient{
			Address:  m.envelope.Recipients[i].Address,
			State:    t.state(),
			Route:    t.route,
			Attempts: int(t.attempts),
		}
		if t.status == pending {
			r.Due = fromMicros(t.due)
		}
		if t.last != nil {
			a := t.last.export()
			a.Recipients = []mail.Address{r.Address}
			r.Last = &a
		}
		x.Recipients = append(x.Recipients, r)
	}
	return x
}

func (h *head) export(id mail.ID) Message {
	x := Message{
		ID: id, Arrived: h.arrived, Size: h.size, Envelope: h.envelope,
		Accepted: h.event, Index: h.index,
	}
	x.Accepted.From = &h.envelope.From
	x.Accepted.To = make([]mail.Address, len(h.envelope.Recipients))
	for i := range h.envelope.Recipients {
		x.Accepted.To[i] = h.envelope.Recipients[i].Address
	}
	return x
}

func (o *outcome) export() Attempt {
	a := Attempt{
		Time: fromMicros(o.first), Count: int(o.count), Route: o.route, Untried: o.untried,
		Result: o.result,
	}
	if o.count > 1 {
		a.Last = fromMicros(o.last)
	}
	return a
}

// actRecipients is how many recipients are altered by one op: each may have a log entry, and a
// group has a limit.
const actRecipients = 500

// act alters what a selector picks of what is not settled, and returns how many recipients that
// were, when the change is on stable storage. f alters the recipients and returns their number; mu
// is held.
func (q *Queue) act(ctx context.Context, sel Selector,
	f func(o *op, m *message, which []int) []int) (int, error) {
	if sel == (Selector{}) {
		return 0, ErrSelector
	}
	n := 0
	var last chan error
	err := q.each(ctx, sel, func(m *message, which []int) bool {
		for some := range slices.Chunk(which, actRecipients) {
			o := new(op)
			done := make(chan error, 1)
			o.done = func(err error) { done <- err }
			altered := f(o, m, some)
			n += len(altered)
			if len(o.writes) > 0 {
				q.commit(o, m, altered)
				last = done // ops are committed in order
			}
		}
		return true
	})
	if last == nil || err != nil {
		return n, err
	}
	return n, wait(ctx, last)
}

// those returns the recipients among which f holds for.
func (m *message) those(which []int, f func(t *recipient) bool) (list []int) {
	for _, i := range which {
		if f(&m.rcpts[i]) {
			list = append(list, i)
		}
	}
	return list
}

// Retry makes what the selector picks due now, and returns how many recipients that are. What the
// sender asked to be held (RFC 4865) is not: that takes Release.
func (q *Queue) Retry(ctx context.Context, sel Selector) (int, error) {
	now := q.clk.Now()
	return q.act(ctx, sel, func(o *op, m *message, which []int) []int {
		if m.envelope.HoldUntil.After(now) {
			return nil
		}
		return q.rush(o, m, which, now, pending)
	})
}

// Release ends Hold, and a hold that the sender asked for (RFC 4865).
func (q *Queue) Release(ctx context.Context, sel Selector) (int, error) {
	now := q.clk.Now()
	return q.act(ctx, sel, func(o *op, m *message, which []int) []int {
		n := q.rush(o, m, which, now, held)
		if m.envelope.HoldUntil.After(now) {
			n = append(n, q.rush(o, m, which, now, pending)...)
		}
		return n
	})
}

// rush makes recipients of one status due now, and their routes alive.
func (q *Queue) rush(o *op, m *message, which []int, now time.Time, from status) []int {
	which = m.those(which, func(t *recipient) bool {
		return t.status == from && (t.phase == idle || from == held)
	})
	q.alter(o, m, which, func(_ int, t *recipient) {
		t.status, t.due = pending, micros(now)
		q.route(t.route).deadUntil = time.Time{}
	})
	q.offer(m, now)
	q.dispatch()
	return which
}

// Hold keeps what the selector picks from being tried or expiring until Release. An attempt under
// way goes on; if it is put off, the recipient is held then.
func (q *Queue) Hold(ctx context.Context, sel Selector) (int, error) {
	return q.act(ctx, sel, func(o *op, m *message, which []int) []int {
		which = m.those(which, func(t *recipient) bool { return t.status == pending })
		q.alter(o, m, which, func(_ int, t *recipient) { t.status = held })
		return which
	})
}

// droppedResult is what the history says of Drop.
var droppedResult = Result{Outcome: Dropped, Reply: "removed from the queue by the operator"}

// Drop removes what the selector picks without any report to the sender. An attempt under way goes
// on; if it is put off, the recipient is dropped then.
func (q *Queue) Drop(ctx context.Context, sel Selector) (int, error) {
	now := q.clk.Now()
	return q.act(ctx, sel, func(o *op, m *message, which []int) []int {
		which = m.those(which, func(t *recipient) bool { return !t.status.settled() })
		byRoute := make(map[Route][]int)
		for _, i := range which {
			if t := &m.rcpts[i]; t.phase == running {
				t.drop = true
			} else {
				byRoute[t.route] = append(byRoute[t.route], i)
			}
		}
		for route, some := range byRoute {
			results := make([]Result, len(some))
			for k := range results {
				results[k] = droppedResult
			}
			q.note(o, m, &news{some, results, route, true, now})
		}
		return which
	})
}
