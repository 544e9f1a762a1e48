package dsn

import (
	"bytes"
	"fmt"
	"mime/quotedprintable"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits on the lines we write (RFC 5322, section 2.1.1). maxToken leaves room below 998 octets for
// the name of a field; a longer run without a space, which only an attacker writes, is broken by
// force.
const (
	softLine = 76
	maxLine  = 998
	maxToken = 900
	// maxReply bounds the remote's words in a report: no honest reply of RFC 5321 is longer.
	maxReply = 8 << 10
)

// ascii reports whether s can be written where only US-ASCII may stand.
func ascii[T string | []byte](s T) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// clean makes one line of text harmless: controls and what turns the direction of writing become
// '?', white space a space, octets that are no UTF-8 become \x{HEX}. Nothing of it can end a line.
func clean(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x{%02X}`, s[0])
		case r == '\t' || r == '\n' || r == '\r':
			b.WriteByte(' ')
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == 0x2028 || r == 0x2029:
			b.WriteByte('?')
		default:
			b.WriteRune(r)
		}
		s = s[n:]
	}
	return b.String()
}

// escape writes what is beyond ASCII as RFC 6533, section 3, has it: \x{HEXPOINT}.
func escape(s string) string {
	if ascii(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if r < 0x80 {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\x{%X}`, r)
		}
	}
	return b.String()
}

// field writes "name: value", cleaned and folded. Each LF in value is folded where it stands, so
// that a reply keeps its lines; utf8ok says that the field may hold more than ASCII.
func field(b *bytes.Buffer, name, value string, utf8ok bool) {
	b.WriteString(name)
	b.WriteByte(':')
	col, fresh := len(name)+1, true
	for line := range strings.SplitSeq(strings.TrimSpace(value), "\n") {
		line = strings.Trim(clean(line), " ")
		if line == "" {
			continue // a line of white space alone is obsolete syntax (RFC 5322, section 4.2)
		}
		if !utf8ok {
			line = escape(line)
		}
		for i, w := range strings.Split(line, " ") {
			// The first word stays beside the name: some parsers take "To:" at a line's end for
			// empty.
			newLine := !fresh && (i == 0 || w != "" && col+1+len(w) > softLine)
			col = word(b, w, col, newLine)
			fresh = false
		}
	}
	b.WriteString("\r\n")
}

// word writes a space and a word, first a line end if newLine is set, and returns the column it
// ended in.
func word(b *bytes.Buffer, w string, col int, newLine bool) int {
	for {
		if newLine {
			b.WriteString("\r\n")
			col = 0
		}
		head := w
		if len(head) > maxToken {
			head = w[:cutRune(w, maxToken)]
		}
		b.WriteByte(' ')
		b.WriteString(head)
		col += 1 + len(head)
		if w = w[len(head):]; w == "" {
			return col
		}
		newLine = true
	}
}

// cutRune returns the greatest length up to n that does not split a character.
func cutRune(s string, n int) int {
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return n
}

// quotable writes text whose lines end in CRLF as quoted-printable.
func quotable(b *bytes.Buffer, text []byte) {
	w := quotedprintable.NewWriter(b)
	w.Write(text) // a bytes.Buffer does not fail
	w.Close()
}

// longLine reports whether a line of text is longer than RFC 5322 allows.
func longLine(text []byte) bool {
	for len(text) > 0 {
		i := bytes.IndexByte(text, '\n')
		if i < 0 {
			i = len(text)
		}
		if i > maxLine {
			return true
		}
		text = text[min(i+1, len(text)):]
	}
	return false
}

// unescape undoes \x{HEXPOINT} of RFC 6533, section 3.
func unescape(s string) string {
	if !strings.Contains(s, `\x{`) {
		return s
	}
	var b strings.Builder
	for {
		i := strings.Index(s, `\x{`)
		if i < 0 {
			break
		}
		hex, rest, ok := strings.Cut(s[i+3:], "}")
		r, err := strconv.ParseUint(hex, 16, 32)
		if !ok || err != nil || !utf8.ValidRune(rune(r)) || r < 0x20 {
			b.WriteString(s[:i+3])
			s = s[i+3:]
			continue
		}
		b.WriteString(s[:i])
		b.WriteRune(rune(r))
		s = rest
	}
	b.WriteString(s)
	return b.String()
}
