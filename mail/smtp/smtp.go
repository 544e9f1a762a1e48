// Package smtp speaks the protocol by which mail servers hand messages to each other: one command
// or one reply a line, the message after them.
//
// It keeps RFC 5321 as server and as client, with PIPELINING (RFC 2920), SIZE (RFC 1870), 8BITMIME
// (RFC 6152), SMTPUTF8 (RFC 6531), CHUNKING and BINARYMIME (RFC 3030), DSN (RFC 3461),
// ENHANCEDSTATUSCODES (RFC 2034), STARTTLS (RFC 3207), REQUIRETLS (RFC 8689), LIMITS (RFC 9422),
// FUTURERELEASE (RFC 4865), AUTH (RFC 4954), LMTP (RFC 2033), and, from trusted addresses only, the
// PROXY protocol and XCLIENT.
//
// Where it cannot be sure where a command or a message ends, it closes the connection and reads
// nothing of what is left: only CRLF "." CRLF ends DATA, bare CR, bare LF and NUL are refused or
// mended and never passed on, and octets that came too early are never taken for commands.
//
// It has no policy: whom to accept, what to answer and where to keep a message is decided by the
// Session of a server and by the caller of a client. It looks up nothing, dials nobody and retries
// nothing.
package smtp

import (
	"time"

	"github.com/tallypost/tallypost/mail"
)

// MailParams are the parameters of MAIL. The zero value means that the client gave none.
type MailParams struct {
	Size       int64         // declared octets (RFC 1870); 0 where the client did not say
	Body       mail.BodyType // empty is 7BIT
	SMTPUTF8   bool          // RFC 6531
	RequireTLS bool          // RFC 8689
	Ret        mail.Ret      // RFC 3461
	EnvID      string        // RFC 3461, decoded, printable ASCII
	// Auth is the AUTH parameter (RFC 4954, section 5), decoded; "<>" says that the client does not
	// know who submitted the message. It is a claim: trust it only from those who may make it.
	Auth      string
	HoldUntil time.Time // FUTURERELEASE; zero: at once
}

// Envelope returns the envelope, without recipients, that MAIL began.
func (p MailParams) Envelope(from mail.Address) mail.Envelope {
	return mail.Envelope{
		From: from, Body: p.Body, SMTPUTF8: p.SMTPUTF8, RequireTLS: p.RequireTLS,
		Ret: p.Ret, EnvID: p.EnvID, HoldUntil: p.HoldUntil,
	}
}
