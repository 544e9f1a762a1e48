// Package queue keeps accepted messages until each recipient's fate is settled.
//
// A message is accepted when its body, its state and its log entry are on stable storage under one sync
// that everybody who waits shares; only then does Commit return. From there each recipient has a state
// of its own: due at a time, delivered, failed, held. Attempts are spaced by RFC 5321, section 4.5.4.1;
// every outcome is kept with the words of whoever decided it. The package does not speak SMTP, know what a
// mailbox is or sign anything: Deliverer, Store and Journal do.
package queue

import (
	"context"
	"io"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// Journal is the log that accepted messages and final outcomes are entered into.
//
// Only the committer calls it, never two at a time, in the order in which the entries become durable.
type Journal interface {
	// Append gives each event the next index of the log and returns the writes that must become durable
	// together with whatever the events are about. An error is fatal for the queue: nothing of the group
	// is committed and no further group is tried.
	Append(events []mail.Event) (indexes []uint64, writes []Write, err error)
	// Committed says that everything appended so far is on stable storage.
	Committed()
	// Origin is the name of the log, as the reply to DATA gives it.
	Origin() string
}

// Write is a key of the Journal's own section of the Store, and its new value; a nil Value deletes.
type Write struct {
	Key, Value []byte
}

// Deliverer hands messages over: to a mailbox, or to the next server.
type Deliverer interface {
	// Route says who takes mail for an address. Recipients of one message with one route share an
	// attempt, and Config.Concurrency counts attempts by route. It must not block.
	Route(to mail.Address) Route
	// Deliver makes one attempt and returns one Result per recipient, in their order.
	Deliver(ctx context.Context, d *Delivery) []Result
}

// Route is where an address leads: "local", or "smtp:" and a domain. It is stable for an address as long
// as the configuration is.
type Route string

// Delivery is one attempt to hand over one message to the recipients that share a route.
type Delivery struct {
	ID       mail.ID
	Envelope mail.Envelope // Recipients are those of this attempt only
	Route    Route
	Arrived  time.Time
	Attempt  int   // 1 for the first
	Size     int64 // octets of Body, trace fields included
	// Body is the message with its trace fields, CRLF line ends, not dot-stuffed. It may be read from
	// several goroutines; it is valid until Deliver returns.
	Body io.ReaderAt
}

// Outcome is what became of one recipient in one attempt.
type Outcome uint8

// The outcomes.
const (
	Deferred  Outcome = iota // to be tried again
	Delivered                // handed over: in the mailbox, or taken by the next server
	Failed                   // refused for good
)

// Result is the outcome of one attempt for one recipient.
type Result struct {
	Outcome Outcome
	Status  string // enhanced status code of RFC 3463, "5.1.1"
	// Reply is what the decider said, verbatim, lines joined by LF: "550 5.1.1 no such user". Where no
	// peer spoke it is our own sentence.
	Reply string
	Peer  *mail.Peer // the server that spoke; nil for a mailbox or where none was reached
	// RetryAfter is the least time to wait before the next attempt; zero leaves it to the queue.
	RetryAfter time.Duration
	// Relayed says that the next server took over the duty to report (RFC 3461, section 5.2.1): no
	// success report is due from us.
	Relayed bool
}

// Receipt is what Commit promises for.
type Receipt struct {
	ID    mail.ID
	Index uint64 // of the acceptance in the log
}
