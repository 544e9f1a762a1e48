package mail

import "time"

// BodyType is the BODY parameter of MAIL (RFC 6152, RFC 3030).
type BodyType string

// The body types, from the least to the most that a next hop must support.
const (
	Body7Bit       BodyType = "7BIT"
	Body8BitMIME   BodyType = "8BITMIME"
	BodyBinaryMIME BodyType = "BINARYMIME"
)

// Ret says how much of a message a delivery status notification returns (RFC 3461, section 4.3).
type Ret string

// The two values of RET; empty leaves the choice to the server that reports.
const (
	RetFull    Ret = "FULL"
	RetHeaders Ret = "HDRS"
)

// Notify is the set of events a sender wants to be told of for one recipient (RFC 3461, section 4.1).
// The zero value is the default: failure, and delay if the server thinks fit.
type Notify uint8

// NotifyNever excludes the others.
const (
	NotifyNever Notify = 1 << iota
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

// OnSuccess reports whether the sender asked to hear of delivery.
func (n Notify) OnSuccess() bool { return n&NotifySuccess != 0 }

// OnFailure reports whether the sender is to hear of failure.
func (n Notify) OnFailure() bool { return n == 0 || n&NotifyFailure != 0 }

// OnDelay reports whether the sender is to hear of delay.
func (n Notify) OnDelay() bool { return n == 0 || n&NotifyDelay != 0 }

// Envelope is what MAIL and RCPT said of a message (RFC 5321, section 2.3.1), or what we decided for
// one that was made here.
type Envelope struct {
	From       Address     `json:"from"` // null for reports and other automatic mail
	Recipients []Recipient `json:"recipients"`

	Body       BodyType `json:"body,omitempty"`        // empty is 7BIT
	SMTPUTF8   bool     `json:"smtputf8,omitempty"`    // RFC 6531
	RequireTLS bool     `json:"require_tls,omitempty"` // RFC 8689
	Ret        Ret      `json:"ret,omitempty"`         // RFC 3461
	EnvID      string   `json:"env_id,omitempty"`      // RFC 3461, decoded from xtext

	HoldUntil time.Time `json:"hold_until,omitzero"` // FUTURERELEASE, RFC 4865; zero: at once
}

// Recipient is one RCPT of an envelope.
type Recipient struct {
	Address Address `json:"address"`
	Notify  Notify  `json:"notify,omitempty"`
	ORcpt   string  `json:"orcpt,omitempty"` // "rfc822;user@example.org", decoded from xtext
}
