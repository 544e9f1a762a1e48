package dmarc

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/tallypost/tallypost/mail"
)

// Limits on a record. A stranger publishes it; the longest in use have some 500 octets.
const (
	maxRecord = 8 << 10 // octets
	maxURIs   = 10      // of each kind; RFC 9990, section 3.5: "up to the Receiver's limits"
	maxFaults = 10
)

// ErrNoRecord is the error for text that is no DMARC record at all: it must be passed over in
// silence.
var ErrNoRecord = errors.New("no DMARC record")

// PSD says what a record claims of its place in the tree of names.
type PSD byte

// The values of the psd tag.
const (
	PSDUnknown PSD = 'u' // the default
	PSDYes     PSD = 'y' // a public suffix
	PSDNo      PSD = 'n' // no public suffix, and the top of its organization
)

// Record is a DMARC policy record (RFC 9989, section 4.7).
type Record struct {
	Policy          Policy // p; none where the tag is absent
	Subdomains      Policy // sp; empty where absent
	NonExistent     Policy // np; empty where absent
	PSD             PSD
	Testing         bool // t=y
	StrictDKIM      bool // adkim=s
	StrictSPF       bool // aspf=s
	Aggregate       []URI
	Failure         []URI
	FailureOptions  string // fo, as published; "0" by default, and where there is no ruf
	invalidPolicies bool
	// Faults are what was ignored, each in a sentence, for reports to the owner.
	Faults []string
}

// URI is where reports are wanted.
type URI struct {
	Raw string // without the size limit of RFC 7489
	// Address is that of a mailto URI; the zero Address for other schemes, which are kept but not
	// used.
	Address mail.Address
}

// Host is the domain of a mailto URI or the host of another.
func (u URI) Host() string {
	if u.Address.Domain != "" {
		return u.Address.Domain.ASCII()
	}
	if parsed, err := url.Parse(u.Raw); err == nil {
		return strings.ToLower(parsed.Hostname())
	}
	return ""
}

// Usable says whether the policies of a record are to be applied: one with an invalid p, sp or np
// only counts, as p=none, where somebody wants reports of it (RFC 9989, section 4.10.1).
func (r *Record) Usable() bool { return !r.invalidPolicies || len(r.Aggregate) > 0 }

// ParseRecord reads a record. Unknown tags, those that RFC 9989 removed, and faults in known ones
// are ignored, the latter with a note; the only error is ErrNoRecord.
func ParseRecord(s string) (*Record, error) {
	if len(s) > maxRecord {
		return nil, fmt.Errorf("%w: longer than %d octets", ErrNoRecord, maxRecord)
	}
	first, rest, _ := strings.Cut(s, ";")
	// "MUST be the first tag in the list. The tag value is case sensitive": RFC 9989, section 4.7.
	name, value, _ := strings.Cut(first, "=")
	if !strings.EqualFold(trim(name), "v") || trim(value) != "DMARC1" {
		return nil, fmt.Errorf("%w: does not begin with v=DMARC1", ErrNoRecord)
	}
	r := &Record{Policy: PolicyNone, PSD: PSDUnknown, FailureOptions: "0"}
	seen := make(map[string]bool)
	for part := range strings.SplitSeq(rest, ";") {
		if part = trim(part); part == "" {
			continue
		}
		name, value, ok := strings.Cut(part, "=")
		name, value = strings.ToLower(trim(name)), trim(value)
		switch {
		case !ok:
			r.fault("%q is no tag with a value", clip(part))
		case seen[name]:
			r.fault("tag %q again", clip(name))
		default:
			seen[name] = true
			r.set(name, value)
		}
	}
	if len(r.Failure) == 0 {
		r.FailureOptions = "0"
	}
	if r.invalidPolicies {
		r.Policy, r.Subdomains, r.NonExistent = PolicyNone, "", ""
	}
	return r, nil
}

func (r *Record) set(name, value string) {
	v := strings.ToLower(value)
	switch name {
	case "p":
		r.setPolicy(&r.Policy, name, v)
	case "sp":
		r.setPolicy(&r.Subdomains, name, v)
	case "np":
		r.setPolicy(&r.NonExistent, name, v)
	case "adkim":
		r.StrictDKIM = r.choice(name, v, "rs") == 's'
	case "aspf":
		r.StrictSPF = r.choice(name, v, "rs") == 's'
	case "t":
		r.Testing = r.choice(name, v, "ny") == 'y'
	case "psd":
		r.PSD = PSD(r.choice(name, v, "uyn"))
	case "fo":
		if validOptions(v) {
			r.FailureOptions = v
		} else {
			r.fault("fo=%q is not valid", clip(value))
		}
	case "rua":
		r.Aggregate = r.uris(name, value)
	case "ruf":
		r.Failure = r.uris(name, value)
	}
}

func (r *Record) setPolicy(p *Policy, name, value string) {
	switch got := Policy(value); got {
	case PolicyNone, PolicyQuarantine, PolicyReject:
		*p = got
	default:
		r.invalidPolicies = true
		r.fault("%s=%q is not valid", name, clip(value))
	}
}

// choice returns the value of a tag with one letter; the first of the letters is the default.
func (r *Record) choice(name, value, letters string) byte {
	if len(value) == 1 && strings.Contains(letters, value) {
		return value[0]
	}
	r.fault("%s=%q is not valid", name, clip(value))
	return letters[0]
}

// validOptions: one of 0 and 1, and d and s, each once (RFC 9989, section 4.8, dmarc-fo). A list of
// d and s alone is taken too: section 4.7 lets any of the values be there.
func validOptions(s string) bool {
	seen := ""
	for o := range strings.SplitSeq(s, ":") {
		o = trim(o)
		if len(o) != 1 || !strings.Contains("01ds", o) || strings.Contains(seen, o) {
			return false
		}
		seen += o
	}
	return !strings.Contains(seen, "0") || !strings.Contains(seen, "1")
}

func (r *Record) uris(name, value string) (out []URI) {
	for s := range strings.SplitSeq(value, ",") {
		u, err := parseURI(trim(s))
		switch {
		case err != nil:
			r.fault("%s: %v", name, err)
		case len(out) == maxURIs:
			r.fault("%s: more than %d addresses", name, maxURIs)
			return out
		default:
			out = append(out, u)
		}
	}
	return out
}

// parseURI ignores the size limit that may stand behind an exclamation mark
// (obs-dmarc-report-size).
func parseURI(s string) (URI, error) {
	if i := strings.LastIndexByte(s, '!'); i >= 0 && isSize(s[i+1:]) {
		s = s[:i]
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" {
		return URI{}, fmt.Errorf("%q is no URI", clip(s))
	}
	if u.Scheme != "mailto" {
		if u.Host == "" {
			return URI{}, fmt.Errorf("%q has no host", clip(s))
		}
		return URI{Raw: s}, nil
	}
	to, err := url.PathUnescape(u.Opaque)
	if err != nil {
		return URI{}, fmt.Errorf("%q is no URI", clip(s))
	}
	a, err := mail.ParseAddress(to)
	if err != nil || a.Domain == "" {
		return URI{}, fmt.Errorf("%q is no address", clip(s))
	}
	if _, literal := a.Domain.Literal(); literal {
		return URI{}, fmt.Errorf("%q has no domain", clip(s))
	}
	return URI{Raw: s, Address: a}, nil
}

func isSize(s string) bool {
	digits := strings.TrimRight(strings.ToLower(s), "kmgt")
	if len(s)-len(digits) > 1 || digits == "" {
		return false
	}
	return strings.Trim(digits, "0123456789") == ""
}

func (r *Record) fault(format string, args ...any) {
	if len(r.Faults) < maxFaults {
		r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
	}
}

// clip shortens what a stranger wrote before it goes into a sentence of ours.
func clip(s string) string {
	const most = 60
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

func trim(s string) string { return strings.Trim(s, " \t\r\n") }
