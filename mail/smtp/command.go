package smtp

import (
	"errors"
	"strings"

	"github.com/tallypost/tallypost/mail"
)

// Limits on command lines, in octets with CRLF.
const (
	// RFC 5321, section 4.5.3.1.4, has 512; the extensions offered here add up to about 1,400 for
	// RCPT with ORCPT of 500 characters and for MAIL.
	maxCommandLine = 2048
	// RFC 4954, section 4: "the maximum line length ... is 12288 octets".
	maxAuthLine = 12288
	// maxSkippedLine is how much of a longer line is read over to its end.
	maxSkippedLine = 64 << 10
)

// verb is the first word of a command line, in upper case.
type verb [16]byte

// parseVerb splits a command line, without its line end, at its first space. A verb too long to be
// one that anybody knows comes back as the zero verb.
func parseVerb(line []byte) (v verb, n int, arg []byte) {
	i := 0
	for i < len(line) && line[i] != ' ' {
		if i < len(v) {
			c := line[i]
			if 'a' <= c && c <= 'z' {
				c -= 'a' - 'A'
			}
			v[i] = c
		}
		i++
	}
	n = i
	if n > len(v) {
		v, n = verb{}, 0
	}
	for i < len(line) && line[i] == ' ' {
		i++
	}
	return v, n, line[i:]
}

// checkLine returns the command line without its CRLF. Whatever else has a CR, LF or NUL in it is
// refused: somebody might have counted it as a line end.
func checkLine(line []byte) ([]byte, error) {
	n := len(line)
	if n < 2 || line[n-2] != '\r' {
		return nil, errBareLF
	}
	line = line[:n-2]
	for _, c := range line {
		if c < ' ' && c != '\t' || c == 0x7f {
			return nil, errControl
		}
	}
	return line, nil
}

var (
	errBareLF  = errors.New("line ends in a bare LF, it must end in CRLF")
	errControl = errors.New("control character in a command")
)

var errPath = errors.New("want an address in angle brackets")

// parsePath reads a reverse path or forward path of RFC 5321, section 4.1.2, at the head of s and
// returns what follows it. A source route is read over (RFC 5321, appendix C: "SHOULD be ignored").
func parsePath(s string) (addr mail.Address, rest string, err error) {
	if s == "" || s[0] != '<' {
		return mail.Address{}, "", errPath
	}
	end := pathEnd(s)
	if end < 0 {
		return mail.Address{}, "", errPath
	}
	path, rest := s[1:end], s[end+1:]
	if rest != "" && rest[0] != ' ' {
		return mail.Address{}, "", errPath
	}
	if path == "" {
		return mail.Address{}, rest, nil
	}
	if path[0] == '@' {
		if path, err = skipRoute(path); err != nil {
			return mail.Address{}, "", err
		}
	}
	addr, err = mail.ParseAddress(path)
	return addr, rest, err
}

// pathEnd returns the index of the '>' that ends the path, which is not one inside a quoted local
// part.
func pathEnd(s string) int {
	quoted := false
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			quoted = !quoted
		case '\\':
			if quoted {
				i++
			}
		case '>':
			if !quoted {
				return i
			}
		}
	}
	return -1
}

// skipRoute cuts "@a.example,@b.example:" off a path.
func skipRoute(path string) (string, error) {
	route, rest, ok := strings.Cut(path, ":")
	if !ok || rest == "" {
		return "", errors.New("source route without a mailbox")
	}
	for hop := range strings.SplitSeq(route, ",") {
		name, at := strings.CutPrefix(hop, "@")
		if !at || name == "" || strings.ContainsAny(name, "@\"<> ") {
			return "", errors.New("malformed source route")
		}
	}
	return rest, nil
}

// cutKeyword cuts a keyword such as "FROM:" off s, in any case, and the spaces after it, which RFC
// 5321 forbids but some clients send.
func cutKeyword(s, keyword string) (string, bool) {
	if len(s) < len(keyword) || !strings.EqualFold(s[:len(keyword)], keyword) {
		return "", false
	}
	return strings.TrimLeft(s[len(keyword):], " "), true
}
