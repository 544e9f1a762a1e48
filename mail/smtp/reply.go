package smtp

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxReplyLine is the longest line of a reply, code and CRLF included (RFC 5321, section
// 4.5.3.1.5).
const maxReplyLine = 512

// Reply is what a server answers. As an error it is a refusal, sent to the client as it is.
type Reply struct {
	Code     int    // "550": RFC 5321, section 4.2
	Enhanced string // "5.1.1": RFC 3463; empty where there is none
	Text     string // lines separated by LF, without the codes
	// Raw is the reply as a client received it: every line without its CRLF, joined by LF. A server
	// does not look at it.
	Raw string
}

// Error returns the reply as one would read it in a log: with its codes, lines joined by LF.
func (r *Reply) Error() string { return r.String() }

// String returns the reply as received, or as it would be sent, lines joined by LF.
func (r Reply) String() string {
	if r.Raw != "" {
		return r.Raw
	}
	b := string(appendReply(nil, r.Code, r.Enhanced, r.Text, true))
	return strings.ReplaceAll(strings.TrimSuffix(b, "\r\n"), "\r\n", "\n")
}

// Positive reports whether the reply says yes: 2yz, or 3yz that asks to go on.
func (r Reply) Positive() bool { return r.Code >= 200 && r.Code < 400 }

// Temporary reports whether the reply is a refusal that may pass (4yz).
func (r Reply) Temporary() bool { return r.Code/100 == 4 }

// Permanent reports whether the reply is a refusal for good (5yz).
func (r Reply) Permanent() bool { return r.Code/100 == 5 }

// appendReply appends the lines of a reply to dst. Whatever the text holds, it cannot become a
// further line of the dialogue: control characters are replaced, lines are wrapped below
// maxReplyLine.
func appendReply(dst []byte, code int, enhanced, text string, utf8ok bool) []byte {
	if enhanced != "" && !validEnhanced(code, enhanced) {
		enhanced = defaultEnhanced(code)
	}
	room := maxReplyLine - len("250 ") - len("\r\n")
	if enhanced != "" {
		room -= len(enhanced) + 1
	}
	text = strings.TrimSuffix(text, "\n")
	for {
		line, rest, more := strings.Cut(text, "\n")
		for len(line) > room {
			cut := wrapAt(line, room)
			dst = appendReplyLine(dst, code, '-', enhanced, line[:cut], utf8ok)
			line = strings.TrimPrefix(line[cut:], " ")
		}
		sep := byte(' ')
		if more {
			sep = '-'
		}
		dst = appendReplyLine(dst, code, sep, enhanced, line, utf8ok)
		if !more {
			return dst
		}
		text = rest
	}
}

// wrapAt returns where to break a line that is longer than room: at a space, or else between
// characters.
func wrapAt(line string, room int) int {
	if i := strings.LastIndexByte(line[:room], ' '); i > room/2 {
		return i
	}
	for i := room; i > room-utf8.UTFMax; i-- {
		if utf8.RuneStart(line[i]) {
			return i
		}
	}
	return room
}

func appendReplyLine(dst []byte, code int, sep byte, enhanced, line string, utf8ok bool) []byte {
	dst = strconv.AppendInt(dst, int64(code), 10)
	dst = append(dst, sep)
	if enhanced != "" {
		dst = append(dst, enhanced...)
		dst = append(dst, ' ')
	}
	dst = appendClean(dst, line, utf8ok)
	return append(dst, '\r', '\n')
}

// appendClean appends s with control characters, and octets that the client did not agree to see
// (RFC 6531, section 3.7.4.2), replaced.
func appendClean(dst []byte, s string, utf8ok bool) []byte {
	if utf8ok && !utf8.ValidString(s) {
		utf8ok = false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\t' || c == '\r':
			dst = append(dst, ' ')
		case c < ' ' || c == 0x7f || c >= 0x80 && !utf8ok:
			dst = append(dst, '?')
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// validEnhanced reports whether an enhanced status code is well-formed and of the class of the
// reply (RFC 2034, section 4).
func validEnhanced(code int, s string) bool {
	class, rest, ok := strings.Cut(s, ".")
	subject, detail, ok2 := strings.Cut(rest, ".")
	return ok && ok2 && len(class) == 1 && int(class[0]-'0') == code/100 &&
		isShortNumber(subject) && isShortNumber(detail)
}

func isShortNumber(s string) bool {
	if s == "" || len(s) > 3 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// defaultEnhanced is the code that says no more than the class of the reply.
func defaultEnhanced(code int) string {
	switch code / 100 {
	case 2:
		return "2.0.0"
	case 4:
		return "4.0.0"
	case 5:
		return "5.0.0"
	}
	return ""
}
