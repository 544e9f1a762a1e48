// Package dsn writes and reads the reports that tell a sender what became of a message.
//
// Report is a delivery status notification by RFC 3461 to 3464: a part in plain words for a person,
// a part of fields for a program, and the message or its header. Addresses beyond ASCII make it one
// of RFC 6533. Everything that strangers chose (addresses, the remote server's words, the header of
// the message) is written so that it cannot start a field, a line or a part of its own.
//
// Parse reads what other servers send: reports by the book, bounces that follow no rule, and abuse
// reports (RFC 5965). The package does not decide who is due a report when, and sends nothing.
package dsn

import (
	"errors"
	"io"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// Action is what was done for one recipient (RFC 3464, section 2.3.3).
type Action string

// The actions.
const (
	Failed    Action = "failed"    // not delivered, and not to be tried again
	Delayed   Action = "delayed"   // not delivered yet, still being tried
	Delivered Action = "delivered" // in the mailbox
	Relayed   Action = "relayed"   // taken by a server that will not report success
	Expanded  Action = "expanded"  // delivered to a list or several addresses
)

// Due reports whether a recipient's NOTIFY asks for a report of this action (RFC 3461, section
// 5.2).
func Due(a Action, n mail.Notify) bool {
	if n&mail.NotifyNever != 0 {
		return false
	}
	switch a {
	case Failed:
		return n.OnFailure()
	case Delayed:
		return n.OnDelay()
	case Delivered, Relayed, Expanded:
		return n.OnSuccess()
	}
	return false
}

// DefaultMaxReturn is the largest message that a report returns whole, in octets. A report is mail
// that nobody asked for by size; 64 KiB hold every text and spare the sender his own attachments.
const DefaultMaxReturn = 64 << 10

// ErrNullPath is returned for a message with the null reverse path: there is nobody to tell, and a
// report about a report would loop (RFC 5321, section 4.5.5).
var ErrNullPath = errors.New("no report about a message with the null reverse path")

// Report is what one notification says of one message.
type Report struct {
	// Host is the name of this server, without which there is no report.
	Host mail.Domain
	// Now is the date of the report, Arrived the time when the message was accepted here.
	Now, Arrived time.Time
	// Envelope is that of the message: From is who is told; RET, ENVID, SMTPUTF8 and REQUIRETLS
	// shape the report. Its Recipients are not looked at.
	Envelope mail.Envelope
	// Recipients are those this report is about. No other recipient of the message is named in it.
	Recipients []Recipient
	// Message is the message as accepted, of Size octets. nil leaves the third part out.
	Message io.ReaderAt
	Size    int64
	// MaxReturn is the largest message that is returned whole when the sender asked for it;
	// DefaultMaxReturn if zero.
	MaxReturn int64
	// Contact is an address or a page that a person can turn to; it ends the part in plain words.
	// Empty says nothing.
	Contact string
}

// Recipient is what became of one recipient.
type Recipient struct {
	// Recipient has the address as it was used last, and ORCPT and NOTIFY as the sender gave them.
	mail.Recipient
	Action Action
	// Status is the enhanced status code of RFC 3463. One that does not fit the action, or is none,
	// is replaced by the general code of the action.
	Status string
	// Remote is the name of the server that spoke; empty where none was reached or it is ours.
	Remote string
	// Ours says that Reply is our own sentence although Remote was reached.
	Ours bool
	// Reply is what was said, verbatim, lines joined by LF: "550 5.1.1 no such user"; or our own
	// sentence where no server spoke.
	Reply       string
	LastAttempt time.Time // zero: not said
	RetryUntil  time.Time // for Delayed: when it will fail; zero: not said
}
