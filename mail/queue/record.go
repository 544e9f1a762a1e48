package queue

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// recordVersion is that of every record below. The whole queue has one version, under keyVersion: a
// newer program upgrades, an older one refuses.
const recordVersion = 1

// head is what does not change about a message: its record is written at acceptance, and is the
// first of its history.
type head struct {
	index    uint64    // of the acceptance in the log
	size     int64     // octets, trace fields included
	arrived  time.Time // when it was accepted
	envelope mail.Envelope
	// event is the acceptance; From and To are left out, for they are in the envelope.
	event mail.Event
}

// headIndexAt is where the index lies in the record of a head: it is known only when the rest is
// written.
const headIndexAt = 1

func putIndex(b []byte, index uint64) { binary.BigEndian.PutUint64(b, index) }

func (h *head) append(b []byte) []byte {
	w := writer{append(b, recordVersion)}
	w.fixed64(h.index)
	w.uint(uint64(h.size))
	w.time(h.arrived)
	w.envelope(&h.envelope)
	e := &h.event
	w.string(string(e.Kind))
	w.time(e.Time)
	w.string(e.MessageID)
	w.uint(uint64(e.Size))
	w.string(e.SHA256)
	w.peer(e.Peer)
	w.string(e.Reply)
	w.string(e.Note)
	return w.b
}

func decodeHead(id mail.ID, b []byte) (*head, error) {
	r := reader{b: b}
	r.version(recordVersion)
	h := &head{index: r.fixed64(), size: int64(r.uint()), arrived: r.time()}
	h.envelope = r.envelope()
	h.event = mail.Event{
		Kind:      mail.EventKind(r.string()),
		Time:      r.time(),
		ID:        id,
		MessageID: r.string(),
		Size:      int64(r.uint()),
		SHA256:    r.string(),
		Peer:      r.peer(),
		Reply:     r.string(),
		Note:      r.string(),
	}
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("head of %v: %w", id, err)
	}
	return h, nil
}

const (
	envelopeSMTPUTF8 = 1 << iota
	envelopeRequireTLS
)

func (w *writer) envelope(e *mail.Envelope) {
	w.address(e.From)
	w.string(string(e.Body))
	var flags byte
	if e.SMTPUTF8 {
		flags |= envelopeSMTPUTF8
	}
	if e.RequireTLS {
		flags |= envelopeRequireTLS
	}
	w.byte(flags)
	w.string(string(e.Ret))
	w.string(e.EnvID)
	w.time(e.HoldUntil)
	w.uint(uint64(len(e.Recipients)))
	for _, to := range e.Recipients {
		w.address(to.Address)
		w.byte(byte(to.Notify))
		w.string(to.ORcpt)
	}
}

func (r *reader) envelope() mail.Envelope {
	e := mail.Envelope{From: r.address(), Body: mail.BodyType(r.string())}
	flags := r.byte()
	e.SMTPUTF8 = flags&envelopeSMTPUTF8 != 0
	e.RequireTLS = flags&envelopeRequireTLS != 0
	e.Ret = mail.Ret(r.string())
	e.EnvID = r.string()
	e.HoldUntil = r.time()
	e.Recipients = make([]mail.Recipient, r.count(4))
	for i := range e.Recipients {
		e.Recipients[i] = mail.Recipient{
			Address: r.address(),
			Notify:  mail.Notify(r.byte()),
			ORcpt:   r.string(),
		}
	}
	return e
}

// status is where a recipient stands, as far as it is kept.
type status uint8

const (
	pending status = iota
	held
	delivered
	failed
	dropped
)

func (s status) settled() bool { return s >= delivered }

// owed is a report that the sender is to get about a recipient.
type owed uint8

const (
	owesNothing owed = iota
	owesFailure
	owesDelay
	owesSuccess
)

// recipient is the state of one recipient.
type recipient struct {
	status   status
	owes     owed
	toldLate bool // the delay warning was sent
	attempts uint32
	due      int64 // microseconds; of the next attempt
	stored   Route // under which the due index has it
	last     *outcome

	route Route // as the Deliverer says now; only in memory
	phase phase // only in memory
	drop  bool  // to be dropped when the attempt under way has ended; only in memory
}

// phase is how far a recipient is on the way to an attempt.
type phase uint8

const (
	idle    phase = iota
	waiting       // in a job that waits for its turn
	running       // in an attempt
)

// outcome is what one attempt, or several in a row, gave for some recipients of a message.
type outcome struct {
	seq         uint32 // names its record in the history
	first, last int64  // microseconds
	count       uint32
	route       Route
	untried     bool
	result      Result
}

const (
	resultRelayed = 1 << iota
	resultUnreachable
	resultExpired
	resultUntried
)

func (w *writer) outcome(o *outcome) {
	w.uint(uint64(o.seq))
	w.uint(uint64(o.first))
	w.uint(uint64(max(0, o.last-o.first))) // a clock may have been set back
	w.uint(uint64(o.count))
	w.string(string(o.route))
	r := &o.result
	w.byte(byte(r.Outcome))
	var flags byte
	for i, set := range []bool{r.Relayed, r.Unreachable, r.Expired, o.untried} {
		if set {
			flags |= 1 << i
		}
	}
	w.byte(flags)
	w.string(r.Status)
	w.string(r.Reply)
	w.peer(r.Peer)
	w.string(r.Class)
}

func (r *reader) outcome() *outcome {
	o := &outcome{seq: uint32(r.uint()), first: r.micros()}
	o.last = o.first + r.micros()
	o.count = uint32(r.uint())
	o.route = Route(r.string())
	o.result.Outcome = Outcome(r.byte())
	if o.result.Outcome > Dropped {
		r.fail()
	}
	flags := r.byte()
	o.result.Relayed = flags&resultRelayed != 0
	o.result.Unreachable = flags&resultUnreachable != 0
	o.result.Expired = flags&resultExpired != 0
	o.untried = flags&resultUntried != 0
	o.result.Status = r.string()
	o.result.Reply = r.string()
	o.result.Peer = r.peer()
	o.result.Class = r.string()
	return o
}

// pageRecipients is how many recipients share a record: a message with thousands is not written
// whole each time that one is settled.
const pageRecipients = 64

// appendPage writes the states of some recipients. Routes and outcomes stand once, however many
// share them.
func appendPage(b []byte, rcpts []recipient) []byte {
	w := writer{append(b, recordVersion)}
	var routes []Route
	var outcomes []*outcome
	routeAt, outcomeAt := make([]int, len(rcpts)), make([]int, len(rcpts))
	for i := range rcpts {
		routeAt[i], routes = place(routes, rcpts[i].stored)
		if rcpts[i].last != nil {
			outcomeAt[i], outcomes = place(outcomes, rcpts[i].last)
			outcomeAt[i]++
		}
	}
	w.uint(uint64(len(routes)))
	for _, route := range routes {
		w.string(string(route))
	}
	w.uint(uint64(len(outcomes)))
	for _, o := range outcomes {
		w.outcome(o)
	}
	w.uint(uint64(len(rcpts)))
	for i := range rcpts {
		t := &rcpts[i]
		w.byte(byte(t.status))
		w.byte(byte(t.owes))
		w.bool(t.toldLate)
		w.uint(uint64(t.attempts))
		w.uint(uint64(t.due))
		w.uint(uint64(routeAt[i]))
		w.uint(uint64(outcomeAt[i]))
	}
	return w.b
}

// place returns where x stands in a list, and the list with x in it.
func place[T comparable](list []T, x T) (int, []T) {
	for i := range list {
		if list[i] == x {
			return i, list
		}
	}
	return len(list), append(list, x)
}

func decodePage(b []byte) ([]recipient, error) {
	r := reader{b: b}
	r.version(recordVersion)
	routes := make([]Route, r.count(1))
	for i := range routes {
		routes[i] = Route(r.string())
	}
	outcomes := make([]*outcome, r.count(12))
	for i := range outcomes {
		outcomes[i] = r.outcome()
	}
	rcpts := make([]recipient, r.count(7))
	if len(rcpts) > pageRecipients {
		return nil, errRecord
	}
	for i := range rcpts {
		t := &rcpts[i]
		t.status, t.owes, t.toldLate = status(r.byte()), owed(r.byte()), r.bool()
		t.attempts, t.due = uint32(r.uint()), r.micros()
		route, last := r.uint(), r.uint()
		if r.err != nil || t.status > dropped || t.owes > owesSuccess ||
			route >= uint64(len(routes)) || last > uint64(len(outcomes)) {
			return nil, errRecord
		}
		t.stored = routes[route]
		t.route = t.stored
		if last > 0 {
			t.last = outcomes[last-1]
		}
	}
	return rcpts, r.end()
}

// historyEntry is one record of the history: an outcome, whom it was for, and the indexes of its
// log entries.
type historyEntry struct {
	outcome
	rcpts   []int    // numbers of recipients in the envelope
	indexes []uint64 // as many as rcpts, or none
}

// append also returns where the indexes lie: they are known only when the rest is written.
func (h *historyEntry) append(b []byte) (record []byte, indexesAt int) {
	w := writer{append(b, recordVersion)}
	w.outcome(&h.outcome)
	w.uint(uint64(len(h.rcpts)))
	for _, n := range h.rcpts {
		w.uint(uint64(n))
	}
	w.uint(uint64(len(h.indexes)))
	indexesAt = len(w.b)
	for _, n := range h.indexes {
		w.fixed64(n)
	}
	return w.b, indexesAt
}

func decodeHistory(b []byte) (*historyEntry, error) {
	r := reader{b: b}
	r.version(recordVersion)
	h := &historyEntry{outcome: *r.outcome()}
	h.rcpts = make([]int, r.count(1))
	for i := range h.rcpts {
		h.rcpts[i] = int(r.uint() & (1<<31 - 1))
	}
	h.indexes = make([]uint64, r.count(8))
	for i := range h.indexes {
		h.indexes[i] = r.fixed64()
	}
	if len(h.indexes) != 0 && len(h.indexes) != len(h.rcpts) {
		r.fail()
	}
	return h, r.end()
}
