package tlspolicy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
)

// PolicyType is the kind of a policy in a report (RFC 8460, section 4.4).
type PolicyType string

// The kinds.
const (
	PolicyTLSA PolicyType = "tlsa"
	PolicySTS  PolicyType = "sts"
	NoPolicy   PolicyType = "no-policy-found"
)

// ResultType is what failed, in the words of RFC 8460, section 4.3.
type ResultType string

// The failures.
const (
	StartTLSNotSupported    ResultType = "starttls-not-supported"
	CertificateHostMismatch ResultType = "certificate-host-mismatch"
	CertificateExpired      ResultType = "certificate-expired"
	CertificateNotTrusted   ResultType = "certificate-not-trusted"
	ValidationFailure       ResultType = "validation-failure"
	TLSAInvalid             ResultType = "tlsa-invalid"
	DNSSECInvalid           ResultType = "dnssec-invalid"
	DANERequired            ResultType = "dane-required"
	STSFetchError           ResultType = "sts-policy-fetch-error"
	STSPolicyInvalid        ResultType = "sts-policy-invalid"
	STSWebPKIInvalid        ResultType = "sts-webpki-invalid"
)

// Limits on a report of somebody else's.
const (
	maxReport   = 25 << 20 // octets of JSON, after unpacking
	maxPolicies = 10_000
	maxDetails  = 100_000
	maxText     = 1000 // octets of one value
)

// ErrNoReport is the error for what holds no TLS report.
var ErrNoReport = errors.New("no TLS report (RFC 8460)")

// Report is a TLS report: how one sender's connections to the servers of a domain went in some
// time.
type Report struct {
	Organization string         `json:"organization-name"`
	Range        DateRange      `json:"date-range"`
	Contact      string         `json:"contact-info"`
	ID           string         `json:"report-id"`
	Policies     []PolicyResult `json:"policies"`
	// Domain is the one the report is about, and goes to; in a report that was read, the first that
	// has a policy.
	Domain string `json:"-"`
}

// DateRange is the time a report is about.
type DateRange struct {
	Start time.Time `json:"start-datetime"`
	End   time.Time `json:"end-datetime"`
}

// PolicyResult is what came of the connections under one policy.
type PolicyResult struct {
	Policy  Applied         `json:"policy"`
	Summary Summary         `json:"summary"`
	Details []FailureDetail `json:"failure-details,omitempty"`
}

// Applied is a policy as it was found.
type Applied struct {
	Type    PolicyType `json:"policy-type"`
	Strings Texts      `json:"policy-string,omitempty"`
	Domain  string     `json:"policy-domain"`
	MX      Texts      `json:"mx-host,omitempty"`
}

// Summary counts connections.
type Summary struct {
	Successful Count `json:"total-successful-session-count"`
	Failed     Count `json:"total-failure-session-count"`
}

// FailureDetail is a number of connections that failed in one way.
type FailureDetail struct {
	Type         ResultType `json:"result-type"`
	SendingIP    string     `json:"sending-mta-ip,omitempty"`
	ReceivingMX  string     `json:"receiving-mx-hostname,omitempty"`
	ReceivingEHL string     `json:"receiving-mx-helo,omitempty"`
	ReceivingIP  string     `json:"receiving-ip,omitempty"`
	Sessions     Count      `json:"failed-session-count"`
	Information  string     `json:"additional-information,omitempty"`
	ReasonCode   string     `json:"failure-reason-code,omitempty"`
}

// Texts is a list of texts; a single text stands for a list of one, as the example in RFC 8460
// has it.
type Texts []string

// UnmarshalJSON takes a list, a text or null.
func (l *Texts) UnmarshalJSON(b []byte) error {
	if bytes.HasPrefix(b, []byte("[")) {
		return json.Unmarshal(b, (*[]string)(l))
	}
	var s *string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if *l = nil; s != nil && *s != "" {
		*l = Texts{*s}
	}
	return nil
}

// Count is a number that some write as a text.
type Count uint64

// UnmarshalJSON takes a number, a text of digits or null.
func (c *Count) UnmarshalJSON(b []byte) error {
	var n uint32
	if string(b) == "null" {
		return nil
	}
	if err := json.Unmarshal(bytes.Trim(b, `"`), &n); err != nil {
		return fmt.Errorf("%.40q is no count", b)
	}
	*c = Count(n)
	return nil
}

// UnmarshalJSON takes the forms of a date that are in use, one without zone as UTC.
func (r *DateRange) UnmarshalJSON(b []byte) error {
	var texts struct {
		Start string `json:"start-datetime"`
		End   string `json:"end-datetime"`
	}
	if err := json.Unmarshal(b, &texts); err != nil {
		return err
	}
	var err error
	if r.Start, err = parseDate(texts.Start); err != nil {
		return err
	}
	r.End, err = parseDate(texts.End)
	return err
}

func parseDate(s string) (time.Time, error) {
	s = strings.ToUpper(strings.TrimSpace(s))
	const noZone = "2006-01-02T15:04:05"
	for _, layout := range []string{time.RFC3339, noZone, time.DateTime, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%.40q is no date", s)
}

// ReadMail finds the report in a message, in whichever part and packing it is.
func ReadMail(msg []byte) (*Report, error) { return mail.FindLeaf(msg, maxReport, Read, ErrNoReport) }

// Read reads a report as a file: JSON, or packed by gzip or zip.
func Read(b []byte) (*Report, error) {
	b, err := mail.Unpack(b, maxReport)
	if err != nil {
		return nil, fmt.Errorf("TLS report: %w", err)
	}
	b = bytes.TrimSpace(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")))
	if !bytes.HasPrefix(b, []byte("{")) || !bytes.Contains(b, []byte(`"policies"`)) {
		return nil, fmt.Errorf("%w: not JSON with policies", ErrNoReport)
	}
	r := new(Report)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("TLS report: %w", err)
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("TLS report: %w", err)
	}
	return r, nil
}

func (r *Report) check() error {
	switch {
	case r.ID == "":
		return errors.New("no report-id")
	case r.Range.Start.IsZero() || r.Range.End.IsZero():
		return errors.New("no date-range")
	case len(r.Policies) == 0:
		return errors.New("no policies")
	case len(r.Policies) > maxPolicies:
		return fmt.Errorf("more than %d policies", maxPolicies)
	}
	r.Domain = r.firstDomain()
	details := 0
	texts := []*string{&r.Organization, &r.Contact, &r.ID}
	for i := range r.Policies {
		p := &r.Policies[i]
		texts = append(texts, (*string)(&p.Policy.Type), &p.Policy.Domain)
		for j := range p.Details {
			f := &p.Details[j]
			texts = append(texts, (*string)(&f.Type), &f.SendingIP, &f.ReceivingMX, &f.ReceivingEHL,
				&f.ReceivingIP, &f.Information, &f.ReasonCode)
		}
		details += len(p.Details)
	}
	if details > maxDetails {
		return fmt.Errorf("more than %d failure-details", maxDetails)
	}
	for _, t := range texts {
		if len(*t) > maxText {
			*t = strings.ToValidUTF8((*t)[:maxText], "")
		}
	}
	return nil
}

// firstDomain prefers one of mail to the name of a server, which TLSA policies have.
func (r *Report) firstDomain() string {
	for _, p := range r.Policies {
		if p.Policy.Type != PolicyTLSA {
			return p.Policy.Domain
		}
	}
	return r.Policies[0].Policy.Domain
}

// appliedTLSA is the form of TLSA records in a report: "usage selector matching data", the octets
// in hex.
// The domain of such a policy is the name that the records stand at (RFC 8460, section 1.1).
func appliedTLSA(host, base string, records []dns.TLSA) Applied {
	a := Applied{Type: PolicyTLSA, Domain: base, MX: Texts{host}}
	for _, r := range records {
		a.Strings = append(a.Strings,
			fmt.Sprintf("%d %d %d %x", r.Usage, r.Selector, r.MatchingType, r.Data))
	}
	return a
}

// Session is one attempt to use a server, as it is counted.
type Session struct {
	Decision *Decision
	// Failure is why the connection was not protected as a policy wants, or not used; nil for
	// success.
	Failure   *Failure
	SendingIP netip.Addr
	// ReceivingIP and ReceivingHost are the server's; Helo is how it greets.
	ReceivingIP         netip.Addr
	ReceivingHost, Helo string
}
