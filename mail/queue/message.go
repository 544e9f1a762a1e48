package queue

import (
	"fmt"
	"slices"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// message is a message of the queue in memory. Whoever uses one counts in users; there is at most
// one for an id, and what the store has of it is this or will be when all ops are committed.
//
// head and id do not change; all else is guarded by Queue.mu.
type message struct {
	id mail.ID
	*head
	rcpts   []recipient
	nextSeq uint32 // of the next record of the history
	owing   int    // recipients of which a report is owed

	loading   bool   // the store is being read: only users means anything
	users     int    // jobs, ops that are not committed, and whoever else wants it to stay
	jobs      int    // queued or running
	reporting bool   // a goroutine writes reports
	body      []byte // the message, while it is in memory
	buf       []byte // what body lies in, if that goes back to Queue.buffers
	cost      int64  // its share of Queue.cached
}

// Limits on the history of a message: past maxHistory records attempts that were put off take the
// place of the one before, whatever was said.
const maxHistory = 100

// newMessage returns a message whose recipients are due at a time.
func newMessage(id mail.ID, h *head, due int64, route func(mail.Address) Route) *message {
	m := &message{id: id, head: h, nextSeq: 1, rcpts: make([]recipient, len(h.envelope.Recipients))}
	for i := range m.rcpts {
		r := route(h.envelope.Recipients[i].Address)
		m.rcpts[i] = recipient{due: due, stored: r, route: r}
	}
	return m
}

// accept returns the op by which a message becomes the queue's.
func (m *message) accept(ev mail.Event, body Body) *op {
	o := &op{bodies: []Body{body}}
	o.event(ev)
	o.set(historyKey(m.id, 0), m.head.append(make([]byte, 0, 320)))
	o.patches = append(o.patches, patch{write: 0, at: headIndexAt, event: 0})
	for page := range m.pages() {
		o.set(statesKey(m.id, page), m.page(page))
	}
	for _, e := range m.entries(nil) {
		o.set(e.key(m.id), present)
	}
	if m.event.MessageID != "" {
		o.set(hashIDKey(spaceMessageID, m.event.MessageID, m.id), present)
	}
	for _, a := range m.addresses() {
		o.set(addressKey(a, m.id), present)
	}
	return o
}

// addresses returns those under which the message is found.
func (m *message) addresses() []mail.Address {
	list := make([]mail.Address, 0, 1+len(m.envelope.Recipients))
	if !m.envelope.From.IsNull() {
		list = append(list, m.envelope.From)
	}
	for i := range m.envelope.Recipients {
		list = append(list, m.envelope.Recipients[i].Address)
	}
	return list
}

func (m *message) pages() int { return (len(m.rcpts) + pageRecipients - 1) / pageRecipients }

func (m *message) page(n int) []byte {
	from := n * pageRecipients
	return appendPage(make([]byte, 0, 96), m.rcpts[from:min(from+pageRecipients, len(m.rcpts))])
}

// entry is an entry of the due index, but for the id.
type entry struct {
	route Route
	due   int64
}

func (e entry) key(id mail.ID) []byte { return dueKey(e.route, moment{e.due, id}) }

// entries returns the entries that recipients (nil: all) are to have in the due index, each once.
func (m *message) entries(which []int) (list []entry) {
	var seen map[entry]bool
	if n := len(which); n > 64 || which == nil && len(m.rcpts) > 64 {
		seen = make(map[entry]bool)
	}
	add := func(t *recipient) {
		e := entry{t.stored, t.due}
		switch {
		case t.status != pending || seen[e]:
		case seen != nil:
			seen[e] = true
			list = append(list, e)
		default:
			_, list = place(list, e)
		}
	}
	if which != nil {
		for _, i := range which {
			add(&m.rcpts[i])
		}
		return list
	}
	for i := range m.rcpts {
		add(&m.rcpts[i])
	}
	if m.owing > 0 {
		list = append(list, entry{routeReports, 0})
	}
	return list
}

func (m *message) hasEntry(e entry) bool {
	for i := range m.rcpts {
		t := &m.rcpts[i]
		if t.status == pending && t.due == e.due && t.stored == e.route {
			return true
		}
	}
	return false
}

func (m *message) done() bool {
	if m.owing > 0 {
		return false
	}
	for i := range m.rcpts {
		if !m.rcpts[i].status.settled() {
			return false
		}
	}
	return true
}

// alter changes recipients by f, and adds to an op what the store has to write for it. When the
// last recipient is settled and nothing is owed that is the end of the message.
func (q *Queue) alter(o *op, m *message, which []int, f func(i int, t *recipient)) {
	if len(which) == 0 || m.done() {
		return
	}
	before, owed := m.entries(which), m.owing
	for _, i := range which {
		t := &m.rcpts[i]
		q.count(t, -1)
		if t.owes != owesNothing {
			m.owing--
		}
		f(i, t)
		t.stored = t.route
		if t.owes != owesNothing {
			m.owing++
		}
		q.count(t, +1)
	}
	for _, e := range before {
		if !m.hasEntry(e) {
			o.delete(e.key(m.id))
		}
	}
	if owed > 0 && m.owing == 0 {
		o.delete(entry{routeReports, 0}.key(m.id))
	}
	if m.done() {
		q.finish(o, m)
		return
	}
	for _, e := range m.entries(which) {
		o.set(e.key(m.id), present)
	}
	if owed == 0 && m.owing > 0 {
		o.set(entry{routeReports, 0}.key(m.id), present)
	}
	last := -1
	for _, i := range which {
		if page := i / pageRecipients; page != last {
			o.set(statesKey(m.id, page), m.page(page))
			last = page
		}
	}
}

// finish removes a message of which nothing is left to do. Its history stays for Config.Retain.
func (q *Queue) finish(o *op, m *message) {
	for page := range m.pages() {
		o.delete(statesKey(m.id, page))
	}
	o.drop = append(o.drop, m.id)
	q.messages--
	if q.cfg.Retain < 0 {
		q.forget(o, m.id, m.head, m.nextSeq)
	}
}

// forget removes the history of a message, and the ways to find it.
func (q *Queue) forget(o *op, id mail.ID, h *head, seqs uint32) {
	for seq := range seqs {
		o.delete(historyKey(id, seq))
	}
	if h.event.MessageID != "" {
		o.delete(hashIDKey(spaceMessageID, h.event.MessageID, id))
	}
	m := message{head: h}
	for _, a := range m.addresses() {
		o.delete(addressKey(a, id))
	}
}

// news is what an attempt gave, or a word of the operator in place of one.
type news struct {
	which   []int // recipients
	results []Result
	route   Route
	untried bool // no attempt was made
	now     time.Time
}

// note puts news into the state of recipients and into the history. What is final gets an event.
func (q *Queue) note(o *op, m *message, n *news) {
	states := make(map[int]*outcome, len(n.which))
	dues := q.judge(m, n)
	for _, g := range groupResults(n.which, n.results) {
		out := m.outcome(g.which, g.result, n)
		for _, i := range g.which {
			states[i] = out
		}
		q.record(o, m, g.which, out, n.now)
	}
	k := -1
	q.alter(o, m, n.which, func(i int, t *recipient) {
		k++
		t.due = dues[k]
		q.settle(m, t, i, states[i], n.now)
	})
}

// resultGroup is the recipients for which an attempt gave the same.
type resultGroup struct {
	result Result
	which  []int
}

func groupResults(which []int, results []Result) (groups []resultGroup) {
next:
	for k, i := range which {
		for g := range groups {
			if sameResult(&groups[g].result, &results[k]) {
				groups[g].which = append(groups[g].which, i)
				continue next
			}
		}
		groups = append(groups, resultGroup{results[k], []int{i}})
	}
	return groups
}

func sameResult(a, b *Result) bool {
	x, y := *a, *b
	x.Peer, y.Peer = nil, nil
	if x != y || (a.Peer == nil) != (b.Peer == nil) {
		return false
	}
	return a.Peer == nil || *a.Peer == *b.Peer
}

// outcome returns what is noted of a result: the outcome before, counted once more, if nothing else
// was said to the same recipients; else a new one.
func (m *message) outcome(which []int, r Result, n *news) *outcome {
	at := micros(n.now)
	last := m.sharedOutcome(which)
	again := last != nil && r.Outcome == Deferred && last.untried == n.untried &&
		(sameResult(&last.result, &r) || m.nextSeq > maxHistory+uint32(len(m.rcpts)))
	if again {
		out := *last
		out.count++
		out.last, out.result, out.route = at, r, n.route
		return &out
	}
	m.nextSeq++
	return &outcome{
		seq: m.nextSeq - 1, first: at, last: at, count: 1,
		route: n.route, untried: n.untried, result: r,
	}
}

// sharedOutcome returns the last outcome of these recipients if they and nobody else have it.
func (m *message) sharedOutcome(which []int) *outcome {
	last := m.rcpts[which[0]].last
	if last == nil {
		return nil
	}
	for _, i := range which {
		if m.rcpts[i].last != last {
			return nil
		}
	}
	n := 0
	for i := range m.rcpts {
		if m.rcpts[i].last == last {
			n++
		}
	}
	if n != len(which) {
		return nil
	}
	return last
}

// record enters an outcome into the history and, if it is final, into the log.
func (q *Queue) record(o *op, m *message, which []int, out *outcome, now time.Time) {
	h := historyEntry{outcome: *out, rcpts: which}
	final := out.result.Outcome != Deferred
	if final {
		h.indexes = make([]uint64, len(which))
	}
	value, at := h.append(make([]byte, 0, 160))
	o.set(historyKey(m.id, out.seq), value)
	if !final {
		return
	}
	for k, i := range which {
		n := o.event(mail.Event{
			Kind:      outcomeKind(out.result.Outcome, out.route),
			Time:      now,
			ID:        m.id,
			MessageID: m.event.MessageID,
			From:      &m.envelope.From,
			To:        []mail.Address{m.envelope.Recipients[i].Address},
			SHA256:    m.event.SHA256,
			Peer:      out.result.Peer,
			Reply:     out.result.Reply,
		})
		o.patches = append(o.patches, patch{write: len(o.writes) - 1, at: at + 8*k, event: n})
	}
}

func outcomeKind(o Outcome, r Route) mail.EventKind {
	switch {
	case o == Delivered && r.Local():
		return mail.ContentConsignment
	case o == Delivered:
		return mail.RelayToNonERDS
	case r.Local():
		return mail.ContentConsignmentFailure
	}
	return mail.RelayToNonERDSFailure
}

// settle changes the state of one recipient after an attempt.
func (q *Queue) settle(m *message, t *recipient, i int, out *outcome, now time.Time) {
	t.last = out
	if !out.untried {
		t.attempts++
	}
	to := &m.envelope.Recipients[i]
	report := !m.envelope.From.IsNull() && q.report != nil
	switch out.result.Outcome {
	case Delivered:
		t.status = delivered
		if t.owes = owesNothing; report && to.Notify.OnSuccess() && !out.result.Relayed {
			t.owes = owesSuccess
		}
	case Failed:
		t.status = failed
		if t.owes = owesNothing; report && to.Notify.OnFailure() {
			t.owes = owesFailure
		}
	case Dropped:
		t.status, t.owes = dropped, owesNothing
	case Deferred:
		late := q.cfg.DelayWarning >= 0 && now.Sub(m.begun()) >= q.cfg.DelayWarning
		if report && late && to.Notify.OnDelay() && !t.toldLate {
			t.owes, t.toldLate = owesDelay, true
		}
	}
}

// begun is when the age of a message begins: at acceptance, or at its release (RFC 4865).
func (m *message) begun() time.Time {
	if m.envelope.HoldUntil.After(m.arrived) {
		return m.envelope.HoldUntil
	}
	return m.arrived
}

// decodeMessage makes a message of its records.
func decodeMessage(id mail.ID, headRecord []byte, pages [][]byte) (*message, error) {
	h, err := decodeHead(id, headRecord)
	if err != nil {
		return nil, err
	}
	m := &message{id: id, head: h, nextSeq: 1}
	for n, page := range pages {
		rcpts, err := decodePage(page)
		if err != nil {
			return nil, fmt.Errorf("states of %v, page %d: %w", id, n, err)
		}
		m.rcpts = append(m.rcpts, rcpts...)
	}
	if len(m.rcpts) != len(h.envelope.Recipients) {
		return nil, fmt.Errorf("%v has states of %d recipients, and %d recipients: %w", id,
			len(m.rcpts), len(h.envelope.Recipients), errRecord)
	}
	for i := range m.rcpts {
		t := &m.rcpts[i]
		if t.last != nil {
			m.nextSeq = max(m.nextSeq, t.last.seq+1)
		}
		if t.owes != owesNothing {
			m.owing++
		}
	}
	m.shareOutcomes()
	return m, nil
}

// shareOutcomes makes recipients on different pages that have one outcome share it, as they did
// when it was written: a coalesced attempt compares by identity.
func (m *message) shareOutcomes() {
	if len(m.rcpts) <= pageRecipients {
		return
	}
	bySeq := make(map[uint32]*outcome)
	for i := range m.rcpts {
		t := &m.rcpts[i]
		if t.last == nil {
			continue
		}
		if o := bySeq[t.last.seq]; o != nil {
			t.last = o
		} else {
			bySeq[t.last.seq] = t.last
		}
	}
}

// all returns the numbers of all recipients of which f holds.
func (m *message) all(f func(t *recipient) bool) []int {
	var list []int
	for i := range m.rcpts {
		if f(&m.rcpts[i]) {
			list = append(list, i)
		}
	}
	return slices.Clip(list)
}
