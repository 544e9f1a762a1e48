package tlspolicy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// Mode is how serious a domain is about its policy (RFC 8461, section 5).
type Mode string

// The modes.
const (
	ModeNone    Mode = "none"    // no policy any more
	ModeTesting Mode = "testing" // report failures, deliver nevertheless
	ModeEnforce Mode = "enforce" // do not deliver to what fails
)

// Limits of RFC 8461, section 3.2, and on what strangers publish.
const (
	maxPolicy = 64 << 10               // octets
	maxAge    = 31557600 * time.Second // a year: "maximum value of 31557600"
	maxRecord = 4 << 10                // octets of a TXT record
	maxMX     = 100                    // servers in a policy
)

// STSPolicy is an MTA-STS policy.
type STSPolicy struct {
	Mode   Mode
	MX     []string // names of servers; "*." before one stands for one label
	MaxAge time.Duration
	// Lines are the fields that are known, as published, for reports.
	Lines []string
}

// ParseSTSPolicy reads a policy (RFC 8461, section 3.2). Unknown fields are ignored, and of a
// field that comes again, but mx, the first counts.
func ParseSTSPolicy(text string) (*STSPolicy, error) {
	if len(text) > maxPolicy {
		return nil, fmt.Errorf("MTA-STS policy of %d octets, the limit is %d", len(text), maxPolicy)
	}
	p := new(STSPolicy)
	seen := make(map[string]bool)
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimRight(strings.TrimSuffix(line, "\r"), " \t")
		if line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isFieldName(name) {
			return nil, fmt.Errorf("MTA-STS policy: line %.60q is no field", line)
		}
		if seen[name] && name != "mx" {
			continue
		}
		seen[name] = true
		if err := p.set(name, strings.Trim(value, " \t")); err != nil {
			return nil, fmt.Errorf("MTA-STS policy: %w", err)
		}
		if slices.Contains(knownFields, name) {
			p.Lines = append(p.Lines, line)
		}
	}
	for _, must := range []string{"version", "mode", "max_age"} {
		if !seen[must] {
			return nil, fmt.Errorf("MTA-STS policy: no %s", must)
		}
	}
	if len(p.MX) == 0 && p.Mode != ModeNone {
		return nil, errors.New("MTA-STS policy: no mx")
	}
	return p, nil
}

var knownFields = []string{"version", "mode", "mx", "max_age"}

func (p *STSPolicy) set(name, value string) error {
	switch name {
	case "version":
		if value != "STSv1" {
			return fmt.Errorf("version %.20q is not STSv1", value)
		}
	case "mode":
		p.Mode = Mode(value)
		if p.Mode != ModeNone && p.Mode != ModeTesting && p.Mode != ModeEnforce {
			return fmt.Errorf("mode %.20q", value)
		}
	case "max_age":
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || len(value) > 10 {
			return fmt.Errorf("max_age %.20q is no number of seconds", value)
		}
		// Who wants more than the largest value has that one: refusing would leave him without any.
		p.MaxAge = min(time.Duration(n)*time.Second, maxAge)
	case "mx":
		mx := strings.ToLower(value)
		d, err := mail.ParseDomain(strings.TrimPrefix(mx, "*."))
		if err != nil || !d.IsASCII() || mx == "" || mx[0] == '[' || strings.HasSuffix(mx, ".") {
			return fmt.Errorf("mx %.60q is no name of a server", value)
		}
		if p.MX = append(p.MX, mx); len(p.MX) > maxMX {
			return fmt.Errorf("more than %d mx", maxMX)
		}
	}
	return nil
}

// isFieldName: a letter or digit, then up to 31 of those, '_', '-' and '.'.
func isFieldName(s string) bool {
	if len(s) > 32 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if !isLetterOrDigit(s[i]) && (i == 0 || strings.IndexByte("_-.", s[i]) < 0) {
			return false
		}
	}
	return s != ""
}

// Matches says whether a server is in the policy: by its name, or by a pattern whose "*" is
// exactly one label (RFC 8461, section 4.1).
func (p *STSPolicy) Matches(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	_, parent, _ := strings.Cut(host, ".")
	for _, mx := range p.MX {
		if suffix, wild := strings.CutPrefix(mx, "*."); mx == host || wild && parent == suffix {
			return host != ""
		}
	}
	return false
}

// Text is the policy as a domain of ours publishes it at
// https://mta-sts.DOMAIN/.well-known/mta-sts.txt, as text/plain.
func (p *STSPolicy) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: STSv1\r\nmode: %s\r\n", p.Mode)
	for _, mx := range p.MX {
		fmt.Fprintf(&b, "mx: %s\r\n", mx)
	}
	fmt.Fprintf(&b, "max_age: %d\r\n", int(p.MaxAge.Seconds()))
	return b.String()
}

// Record is the TXT record to be published at _mta-sts.DOMAIN beside the policy: its id changes
// with it.
func (p *STSPolicy) Record() string {
	sum := sha256.Sum256([]byte(p.Text()))
	return "v=STSv1; id=" + hex.EncodeToString(sum[:10]) + ";"
}

func (p *STSPolicy) applied(domain mail.Domain) Applied {
	return Applied{Type: PolicySTS, Domain: domain.ASCII(), Strings: p.Lines, MX: p.MX}
}

// ErrNoSTS is the error for text that is no MTA-STS record.
var ErrNoSTS = errors.New("no MTA-STS record")

// ParseSTSRecord reads a TXT record of _mta-sts.DOMAIN (RFC 8461, section 3.1) and returns its id.
func ParseSTSRecord(s string) (id string, err error) {
	if len(s) > maxRecord {
		return "", fmt.Errorf("%w: longer than %d octets", ErrNoSTS, maxRecord)
	}
	fields := strings.Split(s, ";")
	if strings.TrimRight(fields[0], " \t") != "v=STSv1" {
		return "", fmt.Errorf("%w: does not begin with v=STSv1", ErrNoSTS)
	}
	for i, f := range fields[1:] {
		f = strings.Trim(f, " \t")
		if f == "" && i == len(fields)-2 {
			continue // the delimiter at the end
		}
		name, value, ok := strings.Cut(f, "=")
		switch {
		case !ok || !isFieldName(name) || value == "":
			return "", fmt.Errorf("%w: %.60q is no field", ErrNoSTS, f)
		case name == "id" && id != "":
			return "", fmt.Errorf("%w: two ids", ErrNoSTS)
		case name == "id" && !isID(value):
			return "", fmt.Errorf("%w: id %.40q is not 1 to 32 letters and digits", ErrNoSTS, value)
		case name == "id":
			id = value
		}
	}
	if id == "" {
		return "", fmt.Errorf("%w: no id", ErrNoSTS)
	}
	return id, nil
}

func isID(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isLetterOrDigit(s[i]) {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 32
}

func isLetterOrDigit(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}
