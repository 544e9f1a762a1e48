package tor

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
)

const (
	// maxLine bounds a line of a reply, in octets, and maxLines the lines of one: the protocol has no limits of
	// its own, and none of the replies that are asked for here comes near.
	maxLine  = 100_000
	maxLines = 1000

	codeOK           = 250
	codeUnrecognized = 510
)

// errReply says that what came is no reply.
var errReply = errors.New("the server does not speak Tor's control protocol")

// reply is what a server says to a command (control-spec, section 2.3).
type reply struct {
	code  int
	lines []string // behind code and separator
}

// readReply reads a reply. Asynchronous events, which nobody asked for, are passed over.
func readReply(r *bufio.Reader) (reply, error) {
	var p reply
	for {
		line, err := readLine(r)
		if err != nil {
			return p, err
		}
		if len(line) < 4 {
			continue
		}
		if _, err := fmt.Sscanf(line[:3], "%3d", &p.code); err != nil || len(p.lines) == maxLines {
			return p, errReply
		}
		p.lines = append(p.lines, line[4:])
		if line[3] != ' ' {
			continue
		}
		if p.code < 600 {
			return p, nil
		}
		p = reply{}
	}
}

// readLine reads a line without its end.
func readLine(r *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine:
			return "", fmt.Errorf("%w: a line of more than %d octets", errReply, maxLine)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil:
			return "", err
		}
		return strings.TrimRight(string(line), "\r\n"), nil
	}
}

// mapping reads the arguments of a reply line, KEY=value or KEY="quoted value" with single spaces between; nil
// where it cannot be read. What follows without a key is somebody else's business (control-spec, sections 2.1,
// 2.3, 3.21, 3.24 and 3.27).
func mapping(s string) map[string]string {
	out := map[string]string{}
	for s != "" {
		i := strings.IndexAny(s, "= ")
		if i < 0 { // the line ends within a key
			return nil
		}
		if s[i] == ' ' {
			break
		}
		key := s[:i]
		var value string
		if s = s[i+1:]; strings.HasPrefix(s, `"`) {
			var ok bool
			if value, s, ok = quoted(s[1:]); !ok {
				return nil
			}
		} else {
			value, s = s, ""
			if i := strings.IndexByte(value, ' '); i >= 0 {
				value, s = value[:i], value[i:]
			}
		}
		out[key] = value
		s = strings.TrimPrefix(s, " ")
	}
	return out
}

// quoted reads a quoted string behind its first quote. Escapes are those of C, as control-spec, section 2.1.1,
// asks controllers to read them.
func quoted(s string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], true
		case s[i] != '\\':
			b.WriteByte(s[i])
			continue
		}
		if i++; i == len(s) {
			break
		}
		switch c := s[i]; {
		case c == 'n':
			b.WriteByte('\n')
		case c == 't':
			b.WriteByte('\t')
		case c == 'r':
			b.WriteByte('\r')
		case isOctal(c):
			// Up to three digits, of which the first of three is at most 3.
			value, digits := 0, 0
			for digits < 3 && i+digits < len(s) && isOctal(s[i+digits]) && (digits < 2 || c <= '3') {
				value = value*8 + int(s[i+digits]-'0')
				digits++
			}
			b.WriteByte(byte(value))
			i += digits - 1
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

func isOctal(c byte) bool { return '0' <= c && c <= '7' }
