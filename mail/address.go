package mail

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// Limits in octets. RFC 5321, section 4.5.3.1, has 64 for the local part and asks to take more where
// possible: reverse paths of mailing lists and big senders, which carry the recipient's address, often do.
const (
	MaxLocalPart = 255
	MaxDomain    = 255
)

// Domain is a domain name in its canonical form: lower case, no trailing dot, U-labels in NFC, or an
// address literal in brackets ("[192.0.2.1]", "[IPv6:2001:db8::1]"). The zero value is no domain.
type Domain string

// ParseDomain returns the canonical form of a domain name or address literal (RFC 5321, section 4.1.2).
// A name with U-labels (RFC 5890) is kept as such; ASCII gives its A-labels.
func ParseDomain(s string) (Domain, error) {
	if s == "" {
		return "", errors.New("empty domain")
	}
	if s[0] == '[' {
		return parseLiteral(s)
	}
	if !utf8.ValidString(s) {
		return "", errors.New("domain is not valid UTF-8")
	}
	s = strings.TrimSuffix(s, ".")
	if isASCII(s) {
		s = lowerASCII(s)
	} else {
		u, err := idna.Lookup.ToUnicode(norm.NFC.String(s))
		if err != nil {
			return "", fmt.Errorf("domain %q: %w", s, err)
		}
		if _, err := idna.Lookup.ToASCII(u); err != nil {
			return "", fmt.Errorf("domain %q: %w", s, err)
		}
		s = u
	}
	if len(s) > MaxDomain {
		return "", fmt.Errorf("domain is longer than %d octets", MaxDomain)
	}
	for rest := s; ; {
		label, tail, more := strings.Cut(rest, ".")
		if err := checkLabel(label); err != nil {
			return "", fmt.Errorf("domain %q: %w", s, err)
		}
		if !more {
			return Domain(s), nil
		}
		rest = tail
	}
}

// checkLabel allows letters, digits, hyphens inside, and underscores: RFC 5321 has no underscore, but
// hosts that greet with one exist and their mail is wanted.
func checkLabel(label string) error {
	if label == "" {
		return errors.New("empty label")
	}
	if len(label) > 63 && isASCII(label) {
		return errors.New("label is longer than 63 octets")
	}
	if label[0] == '-' || label[len(label)-1] == '-' {
		return errors.New("label begins or ends with a hyphen")
	}
	for i := 0; i < len(label); i++ {
		c := label[i]
		if c >= 0x80 || c == '-' || c == '_' || isAlnum(c) {
			continue
		}
		return fmt.Errorf("character %q in a label", c)
	}
	return nil
}

func parseLiteral(s string) (Domain, error) {
	if len(s) < 3 || s[len(s)-1] != ']' {
		return "", errors.New("address literal without closing bracket")
	}
	inner := s[1 : len(s)-1]
	v6 := len(inner) > 5 && strings.EqualFold(inner[:5], "IPv6:")
	if v6 {
		inner = inner[5:]
	}
	ip, err := netip.ParseAddr(inner)
	if err != nil || ip.Zone() != "" || ip.Is4() == v6 {
		return "", fmt.Errorf("address literal %q is not an IPv4 address or IPv6: and an IPv6 address", s)
	}
	if v6 {
		return Domain("[IPv6:" + ip.String() + "]"), nil
	}
	return Domain("[" + ip.String() + "]"), nil
}

// Literal returns the address of an address literal, and whether the domain is one.
func (d Domain) Literal() (netip.Addr, bool) {
	s := string(d)
	if len(s) < 3 || s[0] != '[' {
		return netip.Addr{}, false
	}
	ip, err := netip.ParseAddr(strings.TrimPrefix(s[1:len(s)-1], "IPv6:"))
	return ip, err == nil
}

// IsASCII reports whether the domain has no U-label.
func (d Domain) IsASCII() bool { return isASCII(string(d)) }

// ASCII returns the domain with U-labels turned to A-labels, as DNS wants it. Address literals are
// returned as they are.
func (d Domain) ASCII() string {
	if d.IsASCII() {
		return string(d)
	}
	a, err := idna.Lookup.ToASCII(string(d))
	if err != nil {
		// Only reached by a Domain that ParseDomain did not make.
		return string(d)
	}
	return a
}

// String returns the domain as it is written in an address.
func (d Domain) String() string { return string(d) }

// Address is a mailbox of RFC 5321, section 4.1.2: local part (unquoted, case kept) and domain.
// The zero value is the null reverse path "<>". The local part alone, without domain, is only valid for
// "postmaster" (RFC 5321, section 4.5.1).
type Address struct {
	Local  string
	Domain Domain
}

// ParseAddress reads "local@domain", with a quoted or dot-string local part, UTF-8 allowed (RFC 6531).
// It takes no display name, comment or angle brackets.
func ParseAddress(s string) (Address, error) {
	local, rest, err := cutLocal(s)
	if err != nil {
		return Address{}, fmt.Errorf("address %q: %w", s, err)
	}
	if rest == "" {
		if strings.EqualFold(local, "postmaster") {
			return Address{Local: local}, nil
		}
		return Address{}, fmt.Errorf("address %q: no @", s)
	}
	if strings.HasSuffix(rest, ".") {
		return Address{}, fmt.Errorf("address %q: domain ends in a dot", s)
	}
	d, err := ParseDomain(rest[1:])
	if err != nil {
		return Address{}, fmt.Errorf("address %q: %w", s, err)
	}
	if n := len(local); n > MaxLocalPart {
		return Address{}, fmt.Errorf("address %q: local part of %d octets, the limit is %d", s, n, MaxLocalPart)
	}
	return Address{Local: local, Domain: d}, nil
}

// cutLocal splits the unquoted local part from what follows it, which begins with '@' or is empty.
func cutLocal(s string) (local, rest string, err error) {
	if s == "" {
		return "", "", errors.New("empty")
	}
	if !utf8.ValidString(s) {
		return "", "", errors.New("not valid UTF-8")
	}
	if s[0] != '"' {
		at := strings.LastIndexByte(s, '@')
		if at < 0 {
			at = len(s)
		}
		local, rest = s[:at], s[at:]
		return local, rest, checkDotString(local)
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '"':
			if rest := s[i+1:]; rest != "" && rest[0] != '@' {
				return "", "", errors.New("text after the quoted local part")
			}
			if b.Len() == 0 {
				return "", "", errors.New("empty quoted local part")
			}
			return b.String(), s[i+1:], nil
		case c == '\\':
			i++
			if i == len(s) || s[i] < 0x20 || s[i] > 0x7e {
				return "", "", errors.New("bad quoted pair in local part")
			}
			b.WriteByte(s[i])
		case c < 0x20 || c == 0x7f:
			return "", "", errors.New("control character in local part")
		default:
			b.WriteByte(c)
		}
	}
	return "", "", errors.New("quoted local part without closing quote")
}

func checkDotString(s string) error {
	if s == "" {
		return errors.New("empty local part")
	}
	if s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return errors.New("local part with a dot at an end or two in a row")
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c != '.' && !isAtext(c) {
			return fmt.Errorf("character %q in an unquoted local part", c)
		}
	}
	return nil
}

// IsNull reports whether the address is the null reverse path.
func (a Address) IsNull() bool { return a == Address{} }

// IsASCII reports whether the address can travel without SMTPUTF8 (RFC 6531): an ASCII local part. The
// domain can always be sent as A-labels.
func (a Address) IsASCII() bool { return isASCII(a.Local) }

// String returns the address in the form of RFC 5321, quoted where it must be; "" for the null path.
func (a Address) String() string {
	if a.IsNull() {
		return ""
	}
	local := QuoteLocal(a.Local)
	if a.Domain == "" {
		return local
	}
	return local + "@" + string(a.Domain)
}

// Wire returns the address for a peer: with U-labels where the peer offers SMTPUTF8, else A-labels.
func (a Address) Wire(smtputf8 bool) string {
	if smtputf8 || a.Domain == "" {
		return a.String()
	}
	return QuoteLocal(a.Local) + "@" + a.Domain.ASCII()
}

// MarshalText and UnmarshalText make an Address a JSON string.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what MarshalText wrote; empty text is the null path.
func (a *Address) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*a = Address{}
		return nil
	}
	*a, err = ParseAddress(string(b))
	return err
}

// QuoteLocal returns a local part as it is written in an address: quoted only where RFC 5321 demands it.
func QuoteLocal(local string) string {
	if checkDotString(local) == nil {
		return local
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(local); i++ {
		if local[i] == '"' || local[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(local[i])
	}
	b.WriteByte('"')
	return b.String()
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func lowerASCII(s string) string { return strings.ToLower(s) }

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// isAtext follows RFC 5322, section 3.2.3, and RFC 6532 for octets of UTF-8.
func isAtext(c byte) bool {
	return c >= 0x80 || isAlnum(c) || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}
