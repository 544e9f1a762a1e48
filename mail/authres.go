package mail

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// AuthResults is the Authentication-Results field (RFC 8601): what one server found out about the
// sender of a message, for readers behind it.
type AuthResults struct {
	ServID  string // authserv-id: the name under which the results can be trusted
	Results []AuthResult
}

// AuthResult is what one method said.
type AuthResult struct {
	Method string // "spf", "dkim", "dmarc", "iprev", "arc", "auth"
	Result string // "pass", "fail", "none", "temperror", ...
	// Comment explains the result in parentheses; Reason does so as reason="...".
	Comment, Reason string
	Props           []AuthProp
}

// AuthProp says on what a result rests: "smtp.mailfrom=example.org".
type AuthProp struct {
	Type, Name, Value string // "smtp", "mailfrom", "example.org"
}

// Limits on Authentication-Results fields that we write and read.
const (
	maxAuthValue   = 320 // a mailbox with a local part of 64 and a domain of 255 octets
	maxAuthResults = 100
	maxComment     = 10 // comments in comments
)

// Value returns the field's value, folded, without a final line end: a line for each result.
// Nothing of it, whatever a stranger chose, can end the field or pass for another result.
func (a AuthResults) Value() string {
	var b strings.Builder
	b.WriteString(authValue(a.ServID))
	if len(a.Results) == 0 {
		b.WriteString("; none")
	}
	for _, r := range a.Results {
		b.WriteString(";\r\n\t")
		col := 8
		put := func(s string) {
			if col > 8 {
				if col+1+len(s) > 78 {
					b.WriteString("\r\n\t")
					col = 7
				}
				b.WriteByte(' ')
				col++
			}
			b.WriteString(s)
			col += len(s)
		}
		put(authToken(r.Method) + "=" + authToken(r.Result))
		if r.Comment != "" {
			put("(" + escapeText(r.Comment, `()\`) + ")")
		}
		if r.Reason != "" {
			put("reason=" + `"` + escapeText(r.Reason, `"\`) + `"`)
		}
		for _, p := range r.Props {
			put(authToken(p.Type) + "." + authToken(p.Name) + "=" + authValue(p.Value))
		}
	}
	return b.String()
}

// Field returns the whole field with its final CRLF.
func (a AuthResults) Field() []byte {
	return []byte("Authentication-Results: " + a.Value() + "\r\n")
}

// authToken keeps what may stand in a keyword of RFC 5321, section 4.1.2.
func authToken(s string) string {
	s = strings.Map(func(c rune) rune {
		if c == '-' || c == '_' || c < 0x80 && isAlnum(byte(c)) {
			return c
		}
		return -1
	}, s)
	if s == "" {
		return "x"
	}
	return s
}

// authValue writes a value of RFC 8601, section 2.2: as it is where that is a token or a plain
// address, else quoted.
func authValue(s string) string {
	plain := s != "" && len(s) <= maxAuthValue && strings.Count(s, "@") <= 1 && utf8.ValidString(s)
	for i := 0; plain && i < len(s); i++ {
		c := s[i]
		plain = isToken(c) || c == '@' || c >= 0x80
	}
	if plain && isPrintable(s) {
		return s
	}
	return `"` + escapeText(s, `"\`) + `"`
}

// isToken follows RFC 2045, section 5.1.
func isToken(c byte) bool {
	return c > ' ' && c < 0x7f && strings.IndexByte(`()<>@,;:\"/[]?=`, c) < 0
}

func isPrintable(s string) bool {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// escapeText puts a backslash before each of special; what cannot be shown becomes '?'.
func escapeText(s, special string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case b.Len() > maxAuthValue:
			return b.String()
		case r == utf8.RuneError || !unicode.IsPrint(r):
			r = '?'
		case r < 0x80 && strings.IndexByte(special, byte(r)) >= 0:
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// BearsAuthServID reports whether the field is an Authentication-Results that claims to come from
// one of the names, or that cannot be read: a server must remove these from what strangers send
// (RFC 8601, section 5), for a reader behind it believes them.
func (f Field) BearsAuthServID(names ...string) bool {
	if !f.Is("Authentication-Results") {
		return false
	}
	p := authParser{s: f.Value()}
	id, err := p.value()
	if err != nil {
		return true
	}
	id, _, _ = strings.Cut(id, "/") // the version was written so before RFC 7001
	for _, name := range names {
		if sameServID(id, name) {
			return true
		}
	}
	return false
}

func sameServID(a, b string) bool {
	da, erra := ParseDomain(a)
	db, errb := ParseDomain(b)
	if erra == nil && errb == nil {
		return strings.EqualFold(da.ASCII(), db.ASCII())
	}
	return strings.EqualFold(a, b)
}

// ParseAuthResults reads the value of an Authentication-Results field. Whether to believe it is the
// caller's to decide by ServID and by who can have put it there.
func ParseAuthResults(value string) (AuthResults, error) {
	a, err := parseAuthResults(value)
	if err != nil {
		return AuthResults{}, fmt.Errorf("authentication results: %w", err)
	}
	return a, nil
}

func parseAuthResults(value string) (a AuthResults, err error) {
	p := authParser{s: value}
	if a.ServID, err = p.value(); err != nil {
		return a, err
	}
	if err = p.space(); err != nil {
		return a, err
	}
	if p.peek() != ';' && p.peek() != 0 {
		if _, err = p.keyword(); err != nil { // version of the format
			return a, err
		}
	}
	for {
		if err = p.space(); err != nil || p.peek() == 0 {
			return a, err
		}
		if p.peek() != ';' {
			return a, errors.New("text where a semicolon must be")
		}
		p.i++
		r, ok, err := p.result()
		if err != nil {
			return a, err
		}
		if len(a.Results) == maxAuthResults {
			return a, errors.New("too many results")
		}
		if ok {
			a.Results = append(a.Results, r)
		}
	}
}

// authParser reads the grammar of RFC 8601, section 2.2. Comments are passed over wherever they may
// stand.
type authParser struct {
	s string
	i int
}

// peek returns the next octet, 0 at the end.
func (p *authParser) peek() byte {
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

// space passes over white space and comments.
func (p *authParser) space() error {
	_, err := p.comment()
	return err
}

// comment passes over white space and comments and returns the text of the last comment.
func (p *authParser) comment() (string, error) {
	text, depth, start := "", 0, 0
	for ; p.i < len(p.s); p.i++ {
		c := p.s[p.i]
		switch {
		case c == '(':
			if depth++; depth == 1 {
				start = p.i + 1
			} else if depth > maxComment {
				return "", errors.New("comments too deep")
			}
		case depth > 0 && c == ')':
			if depth--; depth == 0 {
				text = p.s[start:p.i]
			}
		case depth > 0 && c == '\\':
			p.i++
		case depth == 0 && c != ' ' && c != '\t' && c != '\r' && c != '\n':
			return text, nil
		}
	}
	if depth > 0 {
		return "", errors.New("comment without an end")
	}
	p.i = len(p.s)
	return text, nil
}

// keyword reads a method, result, property type or property name, or a version.
func (p *authParser) keyword() (string, error) {
	if err := p.space(); err != nil {
		return "", err
	}
	start := p.i
	for p.i < len(p.s) && (isAlnum(p.s[p.i]) || p.s[p.i] == '-' || p.s[p.i] == '_') {
		p.i++
	}
	if p.i == start {
		return "", fmt.Errorf("no keyword at %.20q", p.s[start:])
	}
	return strings.ToLower(p.s[start:p.i]), nil
}

// value reads a token, an address or a quoted string.
func (p *authParser) value() (string, error) {
	if err := p.space(); err != nil {
		return "", err
	}
	if p.peek() != '"' {
		start := p.i
		for p.i < len(p.s) && strings.IndexByte(" \t\r\n;()\"", p.s[p.i]) < 0 {
			p.i++
		}
		if p.i == start {
			return "", errors.New("no value")
		}
		// A local part may be quoted: "a b"@example.org is read below, a@"b" is nothing.
		return p.s[start:p.i], nil
	}
	var b strings.Builder
	for p.i++; p.i < len(p.s); p.i++ {
		switch c := p.s[p.i]; c {
		case '"':
			p.i++
			start := p.i
			if p.peek() == '@' {
				for p.i < len(p.s) && strings.IndexByte(" \t\r\n;()\"", p.s[p.i]) < 0 {
					p.i++
				}
			}
			return b.String() + p.s[start:p.i], nil
		case '\\':
			if p.i++; p.i < len(p.s) {
				b.WriteByte(p.s[p.i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", errors.New("quoted string without an end")
}

// result reads one result; false for "none" and for an empty one, as a semicolon at the end leaves.
func (p *authParser) result() (r AuthResult, ok bool, err error) {
	if err = p.space(); err != nil || p.peek() == 0 || p.peek() == ';' {
		return r, false, err
	}
	if r.Method, err = p.keyword(); err != nil {
		return r, false, err
	}
	if err = p.space(); err != nil {
		return r, false, err
	}
	if r.Method == "none" && (p.peek() == 0 || p.peek() == ';') {
		return r, false, nil
	}
	if p.peek() == '/' {
		p.i++
		if _, err = p.keyword(); err != nil {
			return r, false, err
		}
	}
	if err = p.equals(); err != nil {
		return r, false, err
	}
	if r.Result, err = p.keyword(); err != nil {
		return r, false, err
	}
	if r.Comment, err = p.comment(); err != nil {
		return r, false, err
	}
	for p.peek() != 0 && p.peek() != ';' {
		if err = p.property(&r); err != nil {
			return r, false, err
		}
	}
	return r, true, nil
}

func (p *authParser) equals() error {
	if err := p.space(); err != nil {
		return err
	}
	if p.peek() != '=' {
		return fmt.Errorf("no equals sign at %.20q", p.s[p.i:])
	}
	p.i++
	return nil
}

// property reads reason=value or ptype.property=value.
func (p *authParser) property(r *AuthResult) (err error) {
	var prop AuthProp
	if prop.Type, err = p.keyword(); err != nil {
		return err
	}
	if err = p.space(); err != nil {
		return err
	}
	if p.peek() == '.' {
		p.i++
		if prop.Name, err = p.keyword(); err != nil {
			return err
		}
	}
	if err = p.equals(); err != nil {
		return err
	}
	if prop.Value, err = p.value(); err != nil {
		return err
	}
	switch {
	case prop.Name != "":
		r.Props = append(r.Props, prop)
	case prop.Type == "reason":
		r.Reason = prop.Value
	case prop.Type == "action": // a result of RFC 7489's failure reports; nothing rests on it
	default:
		return fmt.Errorf("property %q without a type", prop.Type)
	}
	return p.space()
}
