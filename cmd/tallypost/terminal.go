package main

import (
	"io"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// shown is a terminal, or a pager, to which words of strangers are written: replies of other servers, names,
// addresses, reports. What would steer the terminal, or turn the text around, is written as in a Go string:
// "\x1b[2J". Lines and tabs stay.
type shown struct{ w io.Writer }

// Write writes text of which no rune goes on in the next call.
func (s shown) Write(p []byte) (int, error) {
	out := make([]byte, 0, len(p))
	for rest := p; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		switch {
		case r == utf8.RuneError && n == 1:
			out = append(append(out, `\x`...), hex[rest[0]>>4], hex[rest[0]&15])
		case r == '\n' || r == '\t' || unicode.IsPrint(r):
			out = append(out, rest[:n]...)
		default:
			quoted := strconv.QuoteRune(r)
			out = append(out, quoted[1:len(quoted)-1]...)
		}
		rest = rest[n:]
	}
	_, err := s.w.Write(out)
	return len(p), err
}

const hex = "0123456789abcdef"
