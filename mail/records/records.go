// Package records says which DNS records the mail of a domain needs, and compares them with what
// the DNS has.
//
// The records are those by which others find the domain's server (MX, A, AAAA, PTR), know its
// mail from forged mail (SPF, RFC 7208; DKIM, RFC 6376; DMARC, RFC 9989), speak TLS with it and
// only with it (MTA-STS, RFC 8461; TLSA, RFC 7672), and tell its owner what they saw (TLSRPT, RFC
// 8460). Records prints, Check compares by asking as a stranger's server would: what counts is
// not that a record looks as printed but that it does its work. The package changes nothing in
// the DNS.
package records

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/dkim"
	"github.com/tallypost/tallypost/mail/keyring"
	"github.com/tallypost/tallypost/mail/tlspolicy"
)

// Site is what the records follow from. Domain and Host are needed.
type Site struct {
	Domain mail.Domain // whose mail this is
	Host   mail.Domain // the server's name
	Keys   []keyring.Key
	// Reports are where others are to send DMARC and TLS reports; none: nowhere.
	Reports []mail.Address
	// STS is the policy that https://mta-sts.DOMAIN/.well-known/mta-sts.txt has; nil: there is
	// none.
	STS *tlspolicy.STSPolicy
	// Certificates are those the server shows: with a TLSA record senders hold it to their keys.
	Certificates []*x509.Certificate
	// Submission are the ports of submission with TLS from the start, and with STARTTLS; 0: none.
	ImplicitTLS, StartTLS uint16
}

// Need says what happens without a record.
type Need string

// The needs.
const (
	Required    Need = "required"    // mail does not arrive, or is refused
	Recommended Need = "recommended" // mail arrives less well, or less safely
	Optional    Need = "optional"
)

// Record is one record to publish.
type Record struct {
	Name string `json:"name"` // absolute, in A-labels, without final dot
	Type string `json:"type"`
	// Value is the data as in a zone file; the text of a TXT record stands without quotes. Empty:
	// the program cannot know it.
	Value string `json:"value,omitempty"`
	Need  Need   `json:"need"`
	Why   string `json:"why"` // in a sentence

	check func(ctx context.Context, c *Checker) (Status, string)
}

// Line is the record as a line of a zone file; a comment where the value is not known.
func (r Record) Line() string {
	value := r.Value
	switch {
	case value == "":
		return "; " + r.Name + ". IN " + r.Type + " ..."
	case r.Type == "TXT":
		var b strings.Builder
		for i, s := range dkim.RecordStrings(value) {
			if i > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(`"` + s + `"`)
		}
		value = b.String()
	}
	return r.Name + ". IN " + r.Type + " " + value
}

// Records returns the records to publish, those that are needed most first.
func (s *Site) Records() ([]Record, error) {
	domain, host := s.Domain.ASCII(), s.Host.ASCII()
	out := []Record{
		{Name: domain, Type: "MX", Value: "10 " + host + ".", Need: Required,
			Why: "mail for the domain goes to this server", check: s.checkMX},
		{Name: host, Type: "A", Need: Required,
			Why: "the public address of this server; AAAA for IPv6", check: s.checkAddress},
		{Name: "the address, in in-addr.arpa or ip6.arpa", Type: "PTR", Need: Required,
			Why: "must be " + host + ": large receivers refuse senders without; whoever gave you the " +
				"address sets it", check: s.checkPTR},
		{Name: domain, Type: "TXT", Value: "v=spf1 mx -all", Need: Required,
			Why: "only the servers of the MX record send in the domain's name (SPF)", check: s.checkSPF},
	}
	if host != domain {
		out = append(out, Record{Name: host, Type: "TXT", Value: "v=spf1 a -all", Need: Recommended,
			Why:   "the same for the server's own name, which speaks for reports (SPF of HELO)",
			check: s.checkHostSPF})
	}
	keys, err := s.keyRecords()
	if err != nil {
		return nil, err
	}
	out = append(out, keys...)
	out = append(out, s.dmarcRecords()...)
	out = append(out, s.tlsRecords()...)
	return append(out, s.clientRecords()...), nil
}

// keyRecords are those of DKIM. A retired key's stays for as long as its signatures travel.
func (s *Site) keyRecords() (out []Record, err error) {
	for _, k := range s.Keys {
		text, err := dkim.Record(k.Private.Public())
		if err != nil {
			return nil, err
		}
		r := Record{Name: dkim.RecordName(k.Domain, k.Selector), Type: "TXT", Value: text, Need: Required,
			Why: "key of the signatures on outgoing mail (DKIM, " + k.Algorithm + "); " + k.Status(),
			check: func(ctx context.Context, c *Checker) (Status, string) {
				return s.checkKey(ctx, c, k)
			}}
		if k.Algorithm != "rsa" {
			r.Need = Recommended // not all receivers know it, and those who do know the other
		}
		if !k.Retired.IsZero() && !k.Signs {
			r.Need = Optional
		}
		out = append(out, r)
	}
	return out, nil
}

func (s *Site) dmarcRecords() (out []Record) {
	domain := s.Domain.ASCII()
	value := "v=DMARC1; p=quarantine"
	if len(s.Reports) > 0 {
		value += "; rua=" + s.places()
	}
	out = append(out, Record{Name: "_dmarc." + domain, Type: "TXT", Value: value, Need: Required,
		Why: "what receivers do with forged mail (DMARC); raise to p=reject once the reports show no " +
			"mail of yours that fails", check: s.checkDMARC})
	for _, a := range s.Reports {
		if a.Domain != s.Domain { // RFC 9990, section 4: the place agrees
			out = append(out, Record{Name: domain + "._report._dmarc." + a.Domain.ASCII(), Type: "TXT",
				Value: "v=DMARC1", Need: Recommended, check: s.checkAgreement(a),
				Why: a.Domain.ASCII() + " agrees to take the DMARC reports"})
		}
	}
	return out
}

// places are the URIs of Reports.
func (s *Site) places() string {
	var out []string
	for _, a := range s.Reports {
		out = append(out, "mailto:"+mailtoAddress(a))
	}
	return strings.Join(out, ",")
}

// mailtoAddress escapes what separates in a record or in a URI (RFC 6068).
func mailtoAddress(a mail.Address) string {
	return strings.NewReplacer("%", "%25", ",", "%2C", ";", "%3B", "!", "%21", "?", "%3F", " ", "%20",
		"&", "%26", "#", "%23", `"`, "%22").Replace(a.Wire(false))
}

func (s *Site) tlsRecords() (out []Record) {
	domain, host := s.Domain.ASCII(), s.Host.ASCII()
	if len(s.Reports) > 0 {
		out = append(out, Record{Name: "_smtp._tls." + domain, Type: "TXT", Need: Recommended,
			Value: "v=TLSRPTv1; rua=" + s.places(), check: s.checkTLSRPT,
			Why: "where senders report connections whose encryption failed (TLSRPT)"})
	}
	if s.STS != nil {
		out = append(out, Record{Name: "mta-sts." + domain, Type: "CNAME", Value: host + ".",
			Need: Recommended, Why: "where the MTA-STS policy is fetched from", check: s.checkSTSHost},
			Record{Name: "_mta-sts." + domain, Type: "TXT", Value: s.STS.Record(), Need: Recommended,
				Why: "senders must use TLS to the servers of the policy (MTA-STS)", check: s.checkSTS})
	}
	var seen []string
	for _, cert := range s.Certificates {
		// 3 1 1, "DANE-EE, SPKI, SHA-256": RFC 7672, section 3.1, recommends it.
		value := fmt.Sprintf("3 1 1 %x", sha256.Sum256(cert.RawSubjectPublicKeyInfo))
		if !slices.Contains(seen, value) {
			seen = append(seen, value)
			out = append(out, Record{Name: "_25._tcp." + host, Type: "TLSA", Value: value, Need: Optional,
				Why: "senders hold the server to this key (DANE): only if DNSSEC signs the zone, and never " +
					"without the record of a key that is in use",
				check: s.checkTLSA(cert)})
		}
	}
	return out
}

// clientRecords lead people's programs to submission (RFC 6186, RFC 8314).
func (s *Site) clientRecords() (out []Record) {
	for _, one := range []struct {
		service string
		port    uint16
	}{{"_submissions", s.ImplicitTLS}, {"_submission", s.StartTLS}} {
		if one.port != 0 {
			out = append(out, Record{Name: one.service + "._tcp." + s.Domain.ASCII(), Type: "SRV",
				Value: fmt.Sprintf("0 1 %d %s.", one.port, s.Host.ASCII()), Need: Optional,
				Why: "mail programs find the server by themselves"})
		}
	}
	return out
}

// Status says whether a record does its work.
type Status string

// The statuses.
const (
	Good      Status = "good"
	Missing   Status = "missing"
	Wrong     Status = "wrong"     // something else is there
	Unknown   Status = "unknown"   // the question could not be answered now
	Unchecked Status = "unchecked" // this program does not know how
)

// Finding is what Check found out about a record.
type Finding struct {
	Record
	Status Status `json:"status"`
	Words  string `json:"words,omitempty"` // what is there, or what is wrong
}

// Checker asks. Resolver and Now are needed.
type Checker struct {
	Resolver dns.Resolver
	Now      time.Time // at which signatures are tried
	// STS fetches the MTA-STS policy as senders do; nil leaves that out.
	STS *tlspolicy.STS
}

// Check looks every record up.
func (c *Checker) Check(ctx context.Context, list []Record) []Finding {
	var out []Finding
	for _, r := range list {
		f := Finding{Record: r, Status: Unchecked}
		if r.check != nil {
			f.Status, f.Words = r.check(ctx, c)
		}
		out = append(out, f)
	}
	return out
}

// absent turns an error of a look-up into a status.
func absent(err error) (Status, string) {
	if errors.Is(err, dns.ErrNotFound) {
		return Missing, ""
	}
	return Unknown, err.Error()
}
