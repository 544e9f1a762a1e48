package queue

import (
	"context"
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

// Selector picks recipients of messages: those that have all that is set. The zero value picks all, which
// List takes and the others refuse unless All is set.
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

// Attempt is what one attempt gave for some recipients, or several attempts in a row that gave the same.
type Attempt struct {
	Time  time.Time `json:"time"`          // of the first
	Last  time.Time `json:"last,omitzero"` // of the last, if there were several
	Count int       `json:"count"`
	Route Route     `json:"route"`
	Result
	Recipients []mail.Address `json:"recipients"`
	// Indexes are those of the log entries, one for each of Recipients; none where it was deferred.
	Indexes []uint64 `json:"indexes,omitempty"`
}

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
	Concurrency int       `json:"concurrency"` // the most attempts at a time, as of now
	DeadUntil   time.Time `json:"dead_until,omitzero"`
	Reply       string    `json:"reply,omitempty"` // why, where it is dead
}

// List returns the messages of the queue that the selector picks, oldest first, at most limit (0: all).
func (q *Queue) List(ctx context.Context, sel Selector, limit int) ([]Message, error) {
	return nil, errUnwritten
}

// Show returns a message with its history, as long as that is kept.
func (q *Queue) Show(ctx context.Context, id mail.ID) (Message, error) {
	return Message{}, errUnwritten
}

// Trace returns the messages that a queue id, a Message-ID (with or without brackets) or an address of
// sender or recipient names, newest first, at most limit (0: 100), with their history.
func (q *Queue) Trace(ctx context.Context, what string, limit int) ([]Message, error) {
	return nil, errUnwritten
}

// Retry makes what the selector picks due now, and returns how many recipients that are.
func (q *Queue) Retry(ctx context.Context, sel Selector) (int, error) { return 0, errUnwritten }

// Hold keeps what the selector picks from being tried or expiring until Release.
func (q *Queue) Hold(ctx context.Context, sel Selector) (int, error) { return 0, errUnwritten }

// Release ends Hold, and a hold that the sender asked for (RFC 4865).
func (q *Queue) Release(ctx context.Context, sel Selector) (int, error) { return 0, errUnwritten }

// Drop removes what the selector picks without any report to the sender.
func (q *Queue) Drop(ctx context.Context, sel Selector) (int, error) { return 0, errUnwritten }

// Stats counts.
func (q *Queue) Stats() Stats { return Stats{} }
