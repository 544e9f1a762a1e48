// Package dmarc says whether the domain in a message's From field stands behind the message, and
// what its owner wants done where it does not (RFC 9989); and it reads and writes the reports that
// tell the owner (RFC 9990, and RFC 7489 as received).
//
// The policy is found by walking up the domain name system, at most eight questions for a name,
// without any list of public suffixes. The package does not decide what becomes of a message, does
// not check SPF or DKIM itself, and sends nothing: Evaluate gives a Verdict, a Collector gives
// Reports.
package dmarc

import (
	"fmt"

	"github.com/tallypost/tallypost/mail"
)

// Result is the outcome of DMARC for a message, in the words of RFC 8601, section 2.7, as RFC 9989
// extends it.
type Result string

// The results.
const (
	None      Result = "none"      // no record applies: DMARC says nothing
	Pass      Result = "pass"      // an aligned identifier was authenticated
	Fail      Result = "fail"      // none was
	TempError Result = "temperror" // a question to the DNS went unanswered
	PermError Result = "permerror" // there is a record, but no sense in it
)

// Policy is what the owner of a domain asks for mail that fails.
type Policy string

// The policies, from the mildest. The empty one is that of a tag that is absent.
const (
	PolicyNone       Policy = "none"
	PolicyQuarantine Policy = "quarantine"
	PolicyReject     Policy = "reject"
)

// Milder is the policy one level below, as a domain in test mode asks for (RFC 9989, section 4.7,
// "t").
func (p Policy) Milder() Policy {
	if p == PolicyReject {
		return PolicyQuarantine
	}
	return PolicyNone
}

// SPF is the result of the check of MAIL FROM. Only that identity counts for DMARC, but where the
// path was null it is the one SPF made of the HELO name (RFC 9989, section 4.4.2).
type SPF struct {
	Result string // "pass", "softfail" and so on: RFC 8601, section 2.7.2
	Domain string // the domain that was checked
}

// DKIM is the result of one signature.
type DKIM struct {
	Result   string // "pass", "fail" and so on: RFC 8601, section 2.7.1
	Domain   string // the d tag
	Selector string // the s tag
}

const pass = "pass"

// Alignment says whether a mechanism authenticated the author's domain.
type Alignment struct {
	Aligned bool
	Domain  string // the aligned domain, or the first one that was authenticated and is not aligned
	Strict  bool   // the record demands that it be identical
	// Err is the question that went unanswered where alignment could not be told.
	Err error
}

// Verdict is what DMARC says of one message.
type Verdict struct {
	Result Result
	Author string // the author's domain, with A-labels
	// Domain is where the record was found: Author, its organizational domain or a public suffix.
	Domain string
	Record *Record // nil where there is none
	// Published is the policy that the record asks for, for this author; Tag says which tag has it.
	Published Policy
	Tag       string // "p", "sp" or "np"
	// Policy is Published, one level lower where the record is in test mode.
	Policy Policy
	// Organization is the author's organizational domain; empty where it was not needed.
	Organization string
	SPF, DKIM    Alignment
	Explain      string // one sentence for the operator and the sender
	Questions    int    // put to the DNS
}

// Wants is what the owner asks to be done with this message: Policy if it failed, else none.
func (v *Verdict) Wants() Policy {
	if v.Result == Fail {
		return v.Policy
	}
	return PolicyNone
}

// asciiName returns a domain as the DNS knows it, in lower case, and whether it is one.
func asciiName(s string) (string, error) {
	d, err := mail.ParseDomain(s)
	if err != nil {
		return "", err
	}
	if _, literal := d.Literal(); literal {
		return "", fmt.Errorf("%s is an address and no domain", d)
	}
	return d.ASCII(), nil
}
