package smtp

import (
	"errors"
	"strings"
	"unicode/utf8"
)

var errXtext = errors.New("not xtext of printable characters")

// decodeXtext decodes xtext (RFC 3461, section 4). What decodes to anything but printable ASCII is
// refused: the values end up in header fields of reports.
func decodeXtext(s string) (string, error) {
	if strings.IndexByte(s, '+') < 0 {
		for i := 0; i < len(s); i++ {
			if s[i] <= ' ' || s[i] > '~' || s[i] == '=' {
				return "", errXtext
			}
		}
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '+':
			if i+2 >= len(s) {
				return "", errXtext
			}
			hi, lo := upperHex(s[i+1]), upperHex(s[i+2])
			if hi < 0 || lo < 0 {
				return "", errXtext
			}
			c = byte(hi<<4 | lo)
			if c < ' ' || c > '~' {
				return "", errXtext
			}
			i += 2
		case c <= ' ' || c > '~' || c == '=':
			return "", errXtext
		}
		b = append(b, c)
	}
	return string(b), nil
}

// appendXtext appends s as xtext. Only printable ASCII may be given to it.
func appendXtext(dst []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c > '~' || c == '+' || c == '=' {
			dst = append(dst, '+', hex[c>>4], hex[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}

func upperHex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// decodeUTF8Addr decodes utf-8-addr-xtext and utf-8-addr-unitext (RFC 6533, section 3), of which
// the second is the first with the characters above ASCII written as they are.
func decodeUTF8Addr(s string) (string, error) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\':
			r, n := unicodeChar(s[i:])
			if n == 0 {
				return "", errXtext
			}
			b = utf8.AppendRune(b, r)
			i += n - 1
			continue
		case c <= ' ' || c == 0x7f || c == '+' || c == '=':
			return "", errXtext
		}
		b = append(b, c)
	}
	if !utf8.Valid(b) {
		return "", errXtext
	}
	return string(b), nil
}

// unicodeChar reads "\x{HEX}" at the head of s and returns the character and the length of its
// encoding, 0 where it is none.
func unicodeChar(s string) (rune, int) {
	end := strings.IndexByte(s, '}')
	if !strings.HasPrefix(s, `\x{`) || end < 5 || end > 9 {
		return 0, 0
	}
	var r rune
	for _, c := range []byte(s[3:end]) {
		v := upperHex(c)
		if v < 0 {
			return 0, 0
		}
		r = r<<4 | rune(v)
	}
	if r < ' ' || r == 0x7f || !utf8.ValidRune(r) || r >= 0x80 && r < 0xa0 {
		return 0, 0
	}
	return r, end + 1
}

// appendUTF8Addr appends an address for ORCPT: as it is for a peer with SMTPUTF8, else in ASCII
// with "\x{HEX}" for what is not.
func appendUTF8Addr(dst []byte, s string, smtputf8 bool) []byte {
	const hex = "0123456789ABCDEF"
	for _, r := range s {
		switch {
		case r > '~' && smtputf8:
			dst = utf8.AppendRune(dst, r)
		case r <= ' ' || r > '~' || r == '+' || r == '=' || r == '\\':
			dst = append(dst, '\\', 'x', '{')
			digits := 2
			for v := r >> 8; v > 0; v >>= 4 {
				digits++
			}
			for i := digits - 1; i >= 0; i-- {
				dst = append(dst, hex[r>>(4*i)&15])
			}
			dst = append(dst, '}')
		default:
			dst = append(dst, byte(r))
		}
	}
	return dst
}
