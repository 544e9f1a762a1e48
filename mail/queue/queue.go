// Package queue keeps accepted messages until each recipient's fate is settled.
//
// A message is accepted when its body, its state and its log entry are on stable storage under one
// sync that everybody who waits shares; only then does Commit return. From there each recipient has
// a state of its own: due at a time, delivered, failed, held. Attempts are spaced by RFC 5321,
// section 4.5.4.1; every outcome is kept with the words of whoever decided it. The package does not
// speak SMTP, know what a mailbox is or sign anything: Deliverer, Store and Journal do.
package queue

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// Journal is the log that accepted messages and final outcomes are entered into.
//
// Only the committer calls it, never two at a time, in the order in which the entries become
// durable.
type Journal interface {
	// Append gives each event the next index of the log and returns the writes that must become
	// durable together with whatever the events are about. An error is fatal for the queue: nothing
	// of the group is committed and no further group is tried.
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

// Route is where an address leads: "local", "lmtp:" and a server, or "smtp:" and a domain. It is
// stable for an address as long as the configuration is.
type Route string

// Local reports whether what the route takes ends in a mailbox here, as opposed to another mail
// server: it decides between ContentConsignment and RelayToNonERDS in the log.
func (r Route) Local() bool { return !strings.HasPrefix(string(r), "smtp:") }

// Delivery is one attempt to hand over one message to the recipients that share a route.
type Delivery struct {
	ID       mail.ID
	Envelope mail.Envelope // Recipients are those of this attempt only
	Route    Route
	Arrived  time.Time
	Attempt  int   // 1 for the first
	Size     int64 // octets of Body, trace fields included
	// Body is the message with its trace fields, CRLF line ends, not dot-stuffed. It may be read
	// from several goroutines; it is valid until Deliver returns.
	Body io.ReaderAt
}

// Outcome is what became of one recipient in one attempt.
type Outcome uint8

// String returns the outcome in one word.
func (o Outcome) String() string {
	switch o {
	case Deferred:
		return "deferred"
	case Delivered:
		return "delivered"
	case Failed:
		return "failed"
	case Dropped:
		return "dropped"
	}
	return fmt.Sprintf("outcome %d", uint8(o))
}

// MarshalText makes an Outcome a JSON string.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (o *Outcome) UnmarshalText(b []byte) error {
	for c := Deferred; c <= Dropped; c++ {
		if c.String() == string(b) {
			*o = c
			return nil
		}
	}
	return fmt.Errorf("unknown outcome %q", b)
}

// The outcomes.
const (
	Deferred  Outcome = iota // to be tried again
	Delivered                // handed over: in the mailbox, or taken by the next server
	Failed                   // refused for good
	Dropped                  // removed by the operator; a Deliverer does not say so
)

// Result is the outcome of one attempt for one recipient.
type Result struct {
	Outcome Outcome `json:"outcome"`
	Status  string  `json:"status,omitempty"` // enhanced status code of RFC 3463, "5.1.1"
	// Reply is what the decider said, verbatim, lines joined by LF: "550 5.1.1 no such user". Where
	// no peer spoke it is our own sentence.
	Reply string     `json:"reply,omitempty"`
	Peer  *mail.Peer `json:"peer,omitempty"` // who spoke; nil for a mailbox, or nobody
	// Class is what the reply means, in one or two words for people: "mailbox full". It is the
	// Deliverer's reading; empty where there is nothing to say beyond the outcome.
	Class string `json:"class,omitempty"`
	// RetryAfter is the least time to wait before the next attempt; zero leaves it to the queue.
	RetryAfter time.Duration `json:"-"`
	// Busy says that no attempt was made, for want of a place: nobody was asked, nothing is learned
	// of the route, and RetryAfter alone says when to come again. All results of an attempt have
	// it, or none.
	Busy bool `json:"-"`
	// Relayed says that the next server took over the duty to report (RFC 3461, section 5.2.1): no
	// success report is due from us.
	Relayed bool `json:"relayed,omitempty"`
	// Unreachable says that the route as a whole failed, whatever the recipient: no server could be
	// looked up, connected to or spoken with, or it takes no mail for now (421, TLS policy). The
	// queue then slows the route down, and may spare other messages the attempt.
	Unreachable bool `json:"unreachable,omitempty"`
	// Expired says that the queue gave up because of the age of the message: the words are those of
	// the last attempt. The queue sets it.
	Expired bool `json:"expired,omitempty"`
}

// Receipt is what Commit promises for.
type Receipt struct {
	ID    mail.ID `json:"id"`
	Index uint64  `json:"index"` // of the acceptance in the log
	// Origin is the name of the log: a reply says "log=<origin>#<index>".
	Origin string `json:"origin"`
}

// Reporter writes the delivery status notifications that the queue sends back (RFC 3461, RFC 3464).
// It is called by several goroutines.
type Reporter interface {
	// Report returns the notification and its envelope: null reverse path, one recipient. An error
	// means that no report can be made; it is logged and the recipients count as reported.
	Report(r *Report) (mail.Envelope, []byte, error)
}

// ReportKind says what a report is about.
type ReportKind uint8

// The kinds of report.
const (
	ReportFailure ReportKind = iota // given up
	ReportDelay                     // not delivered so far, still being tried
	ReportSuccess                   // delivered, or relayed to a server that will not report
)

// Report is what a delivery status notification tells of one message.
type Report struct {
	Kind     ReportKind
	ID       mail.ID       // of the message reported on
	Envelope mail.Envelope // of that message, all its recipients
	Arrived  time.Time
	Now      time.Time
	// Recipients are those reported on, a part of the envelope's.
	Recipients []ReportedRecipient
	// Body is the message, trace fields included, for RET=FULL or RET=HDRS; it is valid until
	// Report returns. It is nil where the body could not be read.
	Body io.ReaderAt
	Size int64
}

// ReportedRecipient is one recipient of a report.
type ReportedRecipient struct {
	mail.Recipient
	Route       Route
	Result      Result // of the last attempt
	LastAttempt time.Time
	Attempts    int
	// WillRetryUntil is when the queue will give up; zero unless the report is of a delay.
	WillRetryUntil time.Time
}
