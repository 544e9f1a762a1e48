package spf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tallypost/tallypost/internal/dns"
)

// maxName is the longest name in the DNS, in octets.
const maxName = 253

var errMacro = errors.New("malformed macro")

// macro is one expansion in braces: "%{d2r.-}".
type macro struct {
	letter  byte // in lower case
	escape  bool // it was in upper case: as in an URL
	keep    int  // labels from the right; 0: all
	reverse bool
	split   string // characters that divide
}

// cutMacro reads what stands at a "%" at the start of s. Where it is no macro in braces, literal is what it
// means.
func cutMacro(s string) (m macro, literal, rest string, err error) {
	if len(s) < 2 {
		return m, "", "", errMacro
	}
	switch s[1] {
	case '%':
		return m, "%", s[2:], nil
	case '_':
		return m, " ", s[2:], nil
	case '-':
		return m, "%20", s[2:], nil
	case '{':
	default:
		return m, "", "", errMacro
	}
	end := strings.IndexByte(s, '}')
	if end < 3 {
		return m, "", "", errMacro
	}
	body := s[2:end]
	m.letter = body[0] | 0x20
	m.escape = body[0] >= 'A' && body[0] <= 'Z'
	if strings.IndexByte("slodiphcrtv", m.letter) < 0 {
		return m, "", "", errMacro
	}
	body = body[1:]
	digits := len(body) - len(strings.TrimLeft(body, "0123456789"))
	if digits > 0 {
		if m.keep, err = strconv.Atoi(body[:digits]); err != nil || m.keep == 0 {
			return m, "", "", errMacro
		}
	}
	if body = body[digits:]; body != "" && body[0]|0x20 == 'r' {
		m.reverse, body = true, body[1:]
	}
	if m.split = body; strings.Trim(body, ".-+,/_=") != "" {
		return m, "", "", errMacro
	}
	if m.split == "" {
		m.split = "."
	}
	return m, "", s[end+1:], nil
}

// checkMacros checks a macro-string (section 7.1). The letters c, r and t, and spaces, are for
// explanations only.
func checkMacros(s string, explains bool) error {
	for s != "" {
		if s[0] == '%' {
			m, literal, rest, err := cutMacro(s)
			if err != nil {
				return err
			}
			if literal == "" && !explains && strings.IndexByte("crt", m.letter) >= 0 {
				return errMacro
			}
			s = rest
			continue
		}
		if s[0] < ' ' || s[0] > '~' || s[0] == ' ' && !explains {
			return fmt.Errorf("octet %#x", s[0])
		}
		s = s[1:]
	}
	return nil
}

// checkDomainSpec checks a domain-spec: a macro-string that ends in a macro, or in a dot and a label that
// can be a top-level one.
func checkDomainSpec(s string) error {
	if err := checkMacros(s, false); err != nil {
		return err
	}
	if strings.HasSuffix(s, "}") || strings.HasSuffix(s, "%%") || strings.HasSuffix(s, "%_") ||
		strings.HasSuffix(s, "%-") {
		return nil
	}
	name := strings.TrimSuffix(s, ".")
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 || !isTopLabel(name[dot+1:]) {
		return errors.New("malformed domain")
	}
	return nil
}

// isTopLabel reports whether a label is of letters, digits and hyphens inside, and not of digits alone.
func isTopLabel(s string) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	digits := true
	for _, c := range []byte(s) {
		isDigit := c >= '0' && c <= '9'
		if !isDigit && c != '-' && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
		digits = digits && isDigit
	}
	return !digits
}

// expandDomain returns the name that a domain-spec means. One that is too long loses labels on the left
// (section 7.3).
func (c *check) expandDomain(spec, domain string) (string, error) {
	name, err := c.expand(spec, domain)
	if err != nil {
		return "", err
	}
	name = strings.TrimSuffix(name, ".")
	for len(name) > maxName {
		_, rest, found := strings.Cut(name, ".")
		if !found {
			return "", permerror("expansion of %.80q is too long", spec)
		}
		name = rest
	}
	return name, nil
}

// maxExpansion bounds what a macro-string can grow to, in octets.
const maxExpansion = 4096

// expand returns a macro-string with its macros replaced (section 7.3).
func (c *check) expand(s, domain string) (string, error) {
	if strings.IndexByte(s, '%') < 0 {
		return s, nil
	}
	var b strings.Builder
	for s != "" {
		i := strings.IndexByte(s, '%')
		if i < 0 {
			i = len(s)
		}
		b.WriteString(s[:i])
		if s = s[i:]; s == "" {
			break
		}
		m, literal, rest, err := cutMacro(s)
		if err != nil { // it was checked when it was read
			return "", permerror("%.80q: %v", s, err)
		}
		if s = rest; literal == "" {
			literal = m.apply(c.value(m.letter, domain))
		}
		if b.WriteString(literal); b.Len() > maxExpansion {
			return "", permerror("expansion is longer than %d octets", maxExpansion)
		}
	}
	return b.String(), nil
}

// value is what a letter stands for.
func (c *check) value(letter byte, domain string) string {
	switch q := &c.q; letter {
	case 's':
		return q.Local + "@" + q.Domain
	case 'l':
		return q.Local
	case 'o':
		return q.Domain
	case 'd':
		return domain
	case 'i':
		return c.dotted()
	case 'p':
		return c.hostName(domain)
	case 'v':
		if q.IP.Is4() {
			return "in-addr"
		}
		return "ip6"
	case 'h':
		return q.Helo
	case 'c':
		return q.IP.String()
	case 'r':
		if q.Receiver != "" {
			return q.Receiver
		}
	case 't':
		return strconv.FormatInt(q.Now.Unix(), 10)
	}
	return "unknown"
}

// dotted is the address with dots: IPv4 as usual, of IPv6 each hex digit.
func (c *check) dotted() string {
	if c.q.IP.Is4() {
		return c.q.IP.String()
	}
	const hex = "0123456789abcdef"
	b := make([]byte, 0, 63)
	for i, octet := range c.q.IP.As16() {
		if i > 0 {
			b = append(b, '.')
		}
		b = append(b, hex[octet>>4], '.', hex[octet&15])
	}
	return string(b)
}

// apply does what the macro says to a value.
func (m macro) apply(v string) string {
	if m.keep > 0 || m.reverse || m.split != "." {
		parts := strings.FieldsFunc(v, func(r rune) bool { return strings.ContainsRune(m.split, r) })
		if m.reverse {
			slices.Reverse(parts)
		}
		if m.keep > 0 && m.keep < len(parts) {
			parts = parts[len(parts)-m.keep:]
		}
		v = strings.Join(parts, ".")
	}
	if m.escape {
		v = escapeURL(v)
	}
	return v
}

// escapeURL escapes all but the unreserved characters of RFC 3986, section 2.3.
func escapeURL(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

// explanation returns the text that an owner wants to be shown (section 6.2). Whatever is wrong with it, the
// result stands without.
func (c *check) explanation(ex explain) string {
	if ex.spec == "" {
		return ""
	}
	name, err := c.expandDomain(ex.spec, ex.domain)
	if err != nil || name == "" {
		return ""
	}
	c.questions++
	txts, _, err := c.dns.TXT(c.ctx, name)
	if err != nil || len(txts) != 1 || checkMacros(txts[0], true) != nil {
		return ""
	}
	text, err := c.expand(txts[0], ex.domain)
	if err != nil || len(text) > maxExplanation {
		return ""
	}
	for _, b := range []byte(text) { // a macro may stand for anything
		if b < ' ' || b > '~' {
			return ""
		}
	}
	return text
}

// hostName is the confirmed name of the host: the domain itself if it has that, else one below it, else any
// (section 7.3).
func (c *check) hostName(domain string) string {
	best, rank := "unknown", 0
	for _, name := range c.validated() {
		r := 1
		if strings.EqualFold(name, domain) {
			r = 3
		} else if isBelow(name, domain) {
			r = 2
		}
		if r > rank {
			best, rank = name, r
		}
	}
	return best
}

// validated returns the names of the host that lead back to it (section 5.5).
func (c *check) validated() []string {
	if c.named {
		return c.names
	}
	c.named = true
	c.questions++
	names, _, err := c.dns.PTR(c.ctx, c.q.IP)
	if err != nil {
		return nil
	}
	for _, name := range names[:min(len(names), maxHosts)] {
		addrs, err := c.addrs(c.ctx, name)
		if err == nil && slices.Contains(addrs, c.q.IP) {
			c.names = append(c.names, name)
		}
	}
	return c.names
}

// addrs returns the addresses of a name that are of the host's family; none is no error.
func (c *check) addrs(ctx context.Context, name string) ([]netip.Addr, error) {
	c.questions++
	if c.q.IP.Is4() {
		return dns.V4(ctx, c.dns, name)
	}
	return dns.V6(ctx, c.dns, name)
}

// isBelow reports whether a name is below a domain.
func isBelow(name, domain string) bool {
	n := len(name) - len(domain)
	return n > 0 && name[n-1] == '.' && strings.EqualFold(name[n:], domain)
}
