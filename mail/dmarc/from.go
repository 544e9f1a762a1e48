package dmarc

import (
	"errors"
	"fmt"
	"mime"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tallypost/tallypost/mail"
)

// Limits on a From field.
const (
	maxFrom     = 64 << 10 // octets
	maxAuthors  = 100      // addresses
	maxComments = 50       // depth of comments within comments
)

// Errors of AuthorOf. RFC 9989, section 11.5: such messages are outside of DMARC and often made to
// evade it, so whoever receives them must decide about them before.
var (
	ErrNoFrom      = errors.New("no From field")
	ErrManyFrom    = errors.New("more than one From field")
	ErrBadFrom     = errors.New("malformed From field")
	ErrManyAuthors = errors.New("addresses of more than one domain in From")
)

// Author is what a From field says of who wrote the message.
type Author struct {
	// Domain is the one domain of all addresses, in ASCII; empty with an error.
	Domain string
	// Domains are all different ones, in the order of their appearance.
	Domains []string
	// Addresses is how many there are.
	Addresses int
	// Mailboxes are the addresses themselves, each as often as it stands there.
	Mailboxes []mail.Address
	// Shown are domains of what looks like an address in a display name or comment: what a reader
	// may take for the author. Those of Domains are not repeated.
	Shown []string
}

// AuthorOf finds the author's domain in a message's header. The error is one of ErrNoFrom,
// ErrManyFrom, ErrBadFrom and ErrManyAuthors; with the last, Author.Domains has the domains.
func AuthorOf(h mail.Header) (Author, error) {
	fields := h.All("From")
	switch len(fields) {
	case 0:
		return Author{}, ErrNoFrom
	case 1:
		return ParseFrom(fields[0].Value())
	}
	return Author{}, fmt.Errorf("%w: %d", ErrManyFrom, len(fields))
}

// ParseFrom reads the unfolded value of a From field: an address list with groups, comments, quoted
// strings, routes and UTF-8, and with what is not allowed but common, as dots and at signs in a
// display name. An address is never taken from an encoded word. What can be read in two ways is
// malformed.
func ParseFrom(value string) (Author, error) {
	var a Author
	if len(value) > maxFrom {
		return a, fmt.Errorf("%w: longer than %d octets", ErrBadFrom, maxFrom)
	}
	if !utf8.ValidString(value) {
		// Raw Latin-1 in a display name; in a domain the replacement is an error.
		value = strings.ToValidUTF8(value, "\ufffd")
	}
	tokens, err := tokenize(value)
	if err != nil {
		return a, fmt.Errorf("%w: %w", ErrBadFrom, err)
	}
	var shown []string
	for len(tokens) > 0 {
		list, rest, group := cutMailbox(tokens)
		tokens = rest
		if group {
			shown = append(shown, looksLike(joined(list, " "))...)
			continue
		}
		if err := a.addMailbox(list, &shown); err != nil {
			return Author{}, fmt.Errorf("%w: %w", ErrBadFrom, err)
		}
		if a.Addresses > maxAuthors {
			return Author{}, fmt.Errorf("%w: more than %d addresses", ErrBadFrom, maxAuthors)
		}
	}
	for _, d := range shown {
		if !slices.Contains(a.Domains, d) && !slices.Contains(a.Shown, d) {
			a.Shown = append(a.Shown, d)
		}
	}
	switch len(a.Domains) {
	case 0:
		return a, fmt.Errorf("%w: no address", ErrBadFrom)
	case 1:
		a.Domain = a.Domains[0]
		return a, nil
	}
	return a, fmt.Errorf("%w: %s", ErrManyAuthors, clip(strings.Join(a.Domains, ", ")))
}

// token is a piece of the field: a special character, or a run of other ones.
type token struct {
	kind byte   // '<', '>', '@', ',', ':', ';', or one of the kinds below
	text string // without quotes and brackets
}

const (
	word    = 'a' // an atom, dots included; obsolete spaces round dots make several
	quoted  = 'q'
	literal = 'l' // a domain literal
	comment = 'c'
)

func tokenize(s string) (tokens []token, err error) {
	for i := 0; i < len(s); {
		var t token
		n := 1
		switch c := s[i]; c {
		case ' ', '\t', '\r', '\n':
			i++
			continue
		case '<', '>', '@', ',', ':', ';':
			t.kind = c
		case '"':
			t.kind = quoted
			t.text, n, err = delimited(s[i:], '"', '"')
		case '(':
			t.kind = comment
			t.text, n, err = delimited(s[i:], '(', ')')
		case '[':
			t.kind = literal
			t.text, n, err = delimited(s[i:], '[', ']')
		case ')', ']', '\\', 0:
			return nil, fmt.Errorf("%q out of place", c)
		default:
			n = strings.IndexAny(s[i:], " \t\r\n<>@,:;\"()[]\\\x00")
			if n < 0 {
				n = len(s) - i
			}
			t = token{word, s[i : i+n]}
		}
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, t)
		i += n
	}
	return tokens, nil
}

// delimited reads a quoted string, comment or literal at the start of s, and returns its content
// and its length with delimiters. Comments nest.
func delimited(s string, open, shut byte) (text string, n int, err error) {
	var b strings.Builder
	depth := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case c == open && (depth == 0 || open == '('):
			if depth++; depth > maxComments {
				return "", 0, errors.New("comments too deep")
			}
		case c == shut:
			if depth--; depth == 0 {
				return b.String(), i + 1, nil
			}
		case c == 0:
			return "", 0, errors.New("a NUL")
		default:
			b.WriteByte(c)
		}
	}
	return "", 0, fmt.Errorf("%q without %q", open, shut)
}

// cutMailbox takes the tokens up to the next comma or semicolon, or up to a colon, which ends the
// name of a group. Inside of angle brackets these belong to a route.
func cutMailbox(tokens []token) (list, rest []token, group bool) {
	angle := false
	for i, t := range tokens {
		switch t.kind {
		case '<':
			angle = true
		case '>':
			angle = false
		case ',', ';', ':':
			if !angle {
				return tokens[:i], tokens[i+1:], t.kind == ':'
			}
		}
	}
	return tokens, nil, false
}

// addMailbox reads one mailbox: name <address>, or an address alone. A piece without address is
// text that somebody did not quote ("Doe, John <john@example.org>").
func (a *Author) addMailbox(list []token, shown *[]string) error {
	var name, addr []token
	bracketed := 0
	angle := false
	for _, t := range list {
		switch {
		case t.kind == comment:
			*shown = append(*shown, looksLike(t.text)...)
		case t.kind == '<':
			if angle {
				return errors.New("'<' in angle brackets")
			}
			angle = true
			bracketed++
		case t.kind == '>':
			if !angle {
				return errors.New("'>' out of place")
			}
			angle = false
		case angle:
			addr = append(addr, t)
		default:
			name = append(name, t)
		}
	}
	switch {
	case angle:
		return errors.New("'<' without '>'")
	case bracketed > 1:
		return errors.New("two addresses in angle brackets without a comma")
	case bracketed == 1:
		*shown = append(*shown, looksLike(joined(name, " "))...)
		return a.addAddress(addr)
	case !slices.ContainsFunc(name, func(t token) bool { return t.kind == '@' }):
		*shown = append(*shown, looksLike(joined(name, " "))...)
		return nil
	}
	return a.addAddress(name)
}

// addAddress reads local part, at sign and domain, of which a route (RFC 5322, section 4.4) may
// stand before.
func (a *Author) addAddress(tokens []token) error {
	if len(tokens) > 0 && tokens[0].kind == '@' {
		i := slices.IndexFunc(tokens, func(t token) bool { return t.kind == ':' })
		tokens = tokens[i+1:]
	}
	at := slices.IndexFunc(tokens, func(t token) bool { return t.kind == '@' })
	if at <= 0 {
		return errors.New("an address without local part and '@'")
	}
	for i, t := range tokens {
		if t.kind == literal && i == at+1 {
			return errors.New("an address literal, which is no domain")
		}
		if t.kind != word && (t.kind != quoted || i > at) && (t.kind != '@' || i != at) {
			return errors.New("an address that can be read in two ways")
		}
	}
	if !dotted(tokens[:at]) || !dotted(tokens[at+1:]) {
		return errors.New("an address with spaces in it")
	}
	name, err := asciiName(joined(tokens[at+1:], ""))
	if err != nil {
		return err
	}
	a.Addresses++
	d, err := mail.ParseDomain(joined(tokens[at+1:], "")) // as written: U-labels stay
	if err != nil {
		d = mail.Domain(name)
	}
	a.Mailboxes = append(a.Mailboxes, mail.Address{Local: joined(tokens[:at], ""), Domain: d})
	if !slices.Contains(a.Domains, name) {
		a.Domains = append(a.Domains, name)
	}
	return nil
}

// dotted says whether the words follow each other with a dot between, as the obsolete syntax lets
// them ("a . b @ example . org").
func dotted(tokens []token) bool {
	for i := 1; i < len(tokens); i++ {
		if !strings.HasSuffix(tokens[i-1].text, ".") && !strings.HasPrefix(tokens[i].text, ".") {
			return false
		}
	}
	return len(tokens) > 0
}

// joined puts the tokens together again, with space between those that are not next to an at sign.
func joined(tokens []token, space string) string {
	var b strings.Builder
	for i, t := range tokens {
		if t.kind == '@' {
			b.WriteByte('@')
			continue
		}
		if i > 0 && tokens[i-1].kind != '@' {
			b.WriteString(space)
		}
		b.WriteString(t.text)
	}
	return b.String()
}

// looksLike finds the domains of what a reader of a display name would take for addresses, in its
// encoded words too.
func looksLike(s string) (domains []string) {
	if strings.Contains(s, "=?") {
		if d, err := new(mime.WordDecoder).DecodeHeader(s); err == nil {
			s = d
		}
	}
	for i := strings.IndexByte(s, '@'); i >= 0 && len(domains) < 10; i = strings.IndexByte(s, '@') {
		s = s[i+1:]
		end := strings.IndexAny(s, " \t\r\n<>()[]\"',;:@/")
		if end < 0 {
			end = len(s)
		}
		d, err := asciiName(strings.TrimRight(s[:end], ".!?"))
		if err == nil && strings.Contains(d, ".") {
			domains = append(domains, d)
		}
	}
	return domains
}
