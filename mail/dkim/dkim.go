// Package dkim signs messages for a domain and verifies the signatures of others, so that a
// receiver knows which domain answers for a message.
//
// It keeps RFC 6376 with RFC 8301 (no SHA-1, no key below 1024 bits) and RFC 8463 (Ed25519), and
// ARC (RFC 8617) for messages that were changed on the way. Header and body pass once, however many
// signatures there are: Verifier and Signing take the header first, then the body as it streams by,
// and share the hash of the body and the canonical form of the header between all signatures.
//
// VerifyDKIM2 is for the draft that may follow DKIM.
//
// The package does not decide what a signature is worth: DMARC and reputation do. A valid ARC chain
// says who handled a message and what they claim; it is never a reason to accept it.
package dkim

import (
	"strconv"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// State is the outcome of one signature, in the words of RFC 8601, section 2.7.1.
type State string

// The states.
const (
	None      State = "none"      // there is no signature
	Pass      State = "pass"      // it verified
	Fail      State = "fail"      // the message was changed, or the signature has expired
	Policy    State = "policy"    // it may be right, but we do not take its kind: l=, a short key
	PermError State = "permerror" // it or its key is malformed, withdrawn or absent
	TempError State = "temperror" // its key could not be looked up now
)

// Limits on what one message may make us do. Signatures beyond a limit are not looked at.
const (
	DefaultMaxSignatures = 8
	maxLookups           = 24   // names asked for one message, ARC included
	maxConcurrent        = 4    // lookups at a time
	maxSignatureField    = 16e3 // octets of one signature field
	maxTags              = 40
	maxSignedFields      = 500 // names in h=
	maxKeyRecords        = 8   // TXT records tried under one name
	minRSABits           = 1024
	maxRSABits           = 4096
	maxARCSets           = 50 // RFC 8617, section 4.2.1
)

// clockSkew is how far in the future a signature may have been made.
const clockSkew = time.Hour

// Result is what became of one signature.
type Result struct {
	State     State
	Domain    mail.Domain // d=, the domain that answers; empty if it could not be read
	Selector  string      // s=
	Identity  string      // i=, "@" and the domain if not given
	Algorithm string      // a=
	Reason    string      // why it is not Pass; empty for Pass
	Testing   bool        // the key says that its domain is only trying DKIM out (t=y)
	KeyBits   int
	Signed    time.Time // t=; zero: not said
	Expires   time.Time // x=; zero: never
	Headers   []string  // h= as written: the names of the fields it covers
	// B is the start of the signature, enough to tell several apart (RFC 6008).
	B string
	// Record is the key record as it was found, Authenticated whether DNSSEC vouches for it.
	Record        string
	Authenticated bool
}

// AuthResult returns the result as Authentication-Results has it.
func (r Result) AuthResult() mail.AuthResult {
	a := mail.AuthResult{Method: "dkim", Result: string(r.State), Comment: r.Reason}
	if r.State == Pass && r.KeyBits > 0 {
		a.Comment = strconv.Itoa(r.KeyBits) + "-bit key"
	}
	if r.Testing {
		a.Comment += ", testing"
	}
	for _, p := range []mail.AuthProp{
		{Type: "header", Name: "d", Value: r.Domain.ASCII()},
		{Type: "header", Name: "i", Value: r.Identity},
		{Type: "header", Name: "s", Value: r.Selector},
		{Type: "header", Name: "a", Value: r.Algorithm},
		{Type: "header", Name: "b", Value: r.B},
	} {
		if p.Value != "" {
			a.Props = append(a.Props, p)
		}
	}
	return a
}

// problem is why a signature is not Pass: a state and words for the log and Authentication-Results.
type problem struct {
	state State
	words string
}

func (p *problem) Error() string { return p.words }

func permError(words string) *problem { return &problem{PermError, words} }
