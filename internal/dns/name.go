package dns

import (
	"fmt"
	"strings"

	miekg "github.com/miekg/dns"
)

// Limits of RFC 1035, section 2.3.4, for a name without its final dot.
const (
	maxName  = 253
	maxLabel = 63
)

// canonical returns the presentation form of a name that was given as raw text: lower case,
// absolute, odd octets escaped. What mail hands us comes from strangers (a DKIM selector, the
// macros of an SPF record), so a backslash in it is an octet like any other and never an escape.
//
// A name that cannot be in the domain name system does not exist: the error is ErrNXDomain, as
// RFC 7208, section 4.3, has it too.
func canonical(name string) (string, error) {
	s := strings.TrimSuffix(name, ".")
	if s == "" {
		return ".", nil
	}
	if len(s) > maxName {
		return "", fmt.Errorf("name of %d octets, longer than %d: %w", len(s), maxName, ErrNXDomain)
	}
	plain, label := true, 0
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '.' {
			if label == 0 || label > maxLabel {
				return "", fmt.Errorf("name %q, label of %d octets: %w", name, label, ErrNXDomain)
			}
			label = 0
			continue
		}
		label++
		plain = plain && isPlain(s[i])
	}
	if plain {
		return s + ".", nil
	}
	wire := make([]byte, 0, len(s)+2)
	for label := range strings.SplitSeq(s, ".") {
		wire = append(wire, byte(len(label)))
		wire = append(wire, label...)
	}
	presentation, _, err := miekg.UnpackDomainName(append(wire, 0), 0)
	if err != nil {
		return "", fmt.Errorf("name %q: %w: %w", name, ErrNXDomain, err)
	}
	return miekg.CanonicalName(presentation), nil
}

// normal returns the canonical form of a name in presentation form, whichever way its odd octets
// are escaped.
func normal(presentation string) (string, error) {
	if !strings.Contains(presentation, `\`) {
		return miekg.CanonicalName(presentation), nil
	}
	var wire [256]byte
	n, err := miekg.PackDomainName(miekg.Fqdn(presentation), wire[:], 0, nil, false)
	if err != nil {
		return "", err
	}
	s, _, err := miekg.UnpackDomainName(wire[:n], 0)
	return miekg.CanonicalName(s), err
}

// isPlain says whether an octet needs neither lower-casing nor an escape.
func isPlain(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '*'
}

// hostname turns the presentation form into what this package returns: lower case, no final dot.
func hostname(presentation string) string {
	return strings.TrimSuffix(miekg.CanonicalName(presentation), ".")
}

// isHostname says whether a name has only the characters of host names (and the underscore): a PTR
// record is written by whoever has the address, and its name ends in header fields.
func isHostname(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c != '.' && (!isPlain(c) || c == '*') {
			return false
		}
	}
	return s != ""
}
