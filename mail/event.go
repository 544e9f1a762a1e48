package mail

import "time"

// EventKind is the name of an event as ETSI EN 319 522-1, clause 6, has it, or one of our own for what
// the standard has no name for. A kind never promises more than its name: we are no accredited service.
type EventKind string

// The events that become leaves of the log.
const (
	// SubmissionAcceptance: a message of one of our accounts was accepted (A.1).
	SubmissionAcceptance EventKind = "SubmissionAcceptance"
	// ReceivedFromNonERDS: a message from another server was accepted (F.3).
	ReceivedFromNonERDS EventKind = "ReceivedFromNonERDS"
	// ContentConsignment: the message was put into the recipient's mailbox (D.1).
	ContentConsignment EventKind = "ContentConsignment"
	// ContentConsignmentFailure: it could not be, and will not be tried again (D.2).
	ContentConsignmentFailure EventKind = "ContentConsignmentFailure"
	// RelayToNonERDS: the next server answered that it took the message (F.1).
	RelayToNonERDS EventKind = "RelayToNonERDS"
	// RelayToNonERDSFailure: it did not, and will not be tried again (F.2).
	RelayToNonERDSFailure EventKind = "RelayToNonERDSFailure"

	// Erasure: the private half of an earlier event was erased on request.
	Erasure EventKind = "Erasure"
	// KeyNotice: the log has a new signing key.
	KeyNotice EventKind = "KeyNotice"
	// AnchorNotice: a checkpoint of the log was anchored.
	AnchorNotice EventKind = "AnchorNotice"
	// Digest: what strangers provoked in an hour without being accepted, in numbers.
	Digest EventKind = "Digest"
)

// Event is one thing that happened to a message, complete enough to convince a third party. It is
// private: the log has only a commitment to it.
type Event struct {
	Kind EventKind `json:"kind"`
	Time time.Time `json:"time"`

	ID        ID        `json:"id,omitempty"`         // queue id
	MessageID string    `json:"message_id,omitempty"` // Message-ID header field, with its brackets
	From      *Address  `json:"from,omitempty"`       // reverse path; the null path is ""
	To        []Address `json:"to,omitempty"`
	Size      int64     `json:"size,omitempty"` // octets of the message as received
	// SHA256 is the hex digest of the octets that came after DATA or BDAT: dot-stuffing removed, CRLF
	// kept, none of our trace fields.
	SHA256 string `json:"sha256,omitempty"`

	Peer  *Peer  `json:"peer,omitempty"`
	Reply string `json:"reply,omitempty"` // the words of whoever decided, verbatim, lines joined by LF
	Note  string `json:"note,omitempty"`  // for the kinds that are not about a message
}

// Peer is what we know of the other end of a connection.
type Peer struct {
	Name       string `json:"name,omitempty"`        // MX host we looked up, or name the client gave in EHLO
	Addr       string `json:"addr,omitempty"`        // IP address
	Account    string `json:"account,omitempty"`     // who authenticated, if anybody
	TLSVersion string `json:"tls_version,omitempty"` // "TLS 1.3"; empty for plaintext
	Cipher     string `json:"cipher,omitempty"`
	CertSHA256 string `json:"cert_sha256,omitempty"` // hex digest of the peer's leaf certificate
}

// Canonical returns the octets a commitment is made of. They are kept and shown as they are: a verifier
// hashes them and never encodes anew.
func (e Event) Canonical() ([]byte, error) {
	return e.AppendCanonical(nil)
}
