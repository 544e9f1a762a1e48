package milter

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// Verdict is what a filter wants to be done.
type Verdict uint8

// The verdicts. At Rcpt, Reject and TempFail are about the recipient; at Connect and Helo all are about
// the connection.
const (
	Continue Verdict = iota
	Accept           // without further questions
	Reject           // for good
	TempFail         // for now
	Discard          // take it and throw it away
)

// String returns the verdict in one word.
func (v Verdict) String() string {
	switch v {
	case Continue:
		return "continue"
	case Accept:
		return "accept"
	case Reject:
		return "reject"
	case TempFail:
		return "tempfail"
	case Discard:
		return "discard"
	}
	return "unknown"
}

// Answer is what a filter said to a step. The zero value is to go on.
type Answer struct {
	Verdict Verdict
	// Code, Status and Text are the reply for Reject and TempFail, in the filter's own words where it has
	// some: 550, "5.7.1", lines separated by LF. Status may be empty. A Code of 421 wants the
	// connection closed.
	Code         int
	Status, Text string
}

// Kind is what a Change is.
type Kind uint8

// The kinds of change.
const (
	AddHeader    Kind = iota // at the end of the header
	InsertHeader             // as number Index of the header, from 0
	ChangeHeader             // number Index of the fields of this name, from 1; without a Value it goes
	Quarantine               // keep the message from its recipients; Value says why
	Unasked                  // something that was not offered; Name says what
)

// Change is something that a filter wants to be changed at the end of a message.
type Change struct {
	Kind  Kind
	Index int
	Name  string
	// Value is what follows the colon, with CRLF and white space where it is folded. It ends no line.
	Value string
}

// Limits on the changes of one message.
const (
	maxChanges     = 200
	maxChangeBytes = 1 << 20
	maxName        = 256
)

// parseAnswer reads the packets that end a step.
func parseAnswer(code byte, data []byte) (Answer, error) {
	switch code {
	case 'c', 's':
		return Answer{}, nil
	case 'a':
		return Answer{Verdict: Accept}, nil
	case 'd':
		return Answer{Verdict: Discard}, nil
	case 'r':
		return Answer{Verdict: Reject, Code: 550, Status: "5.7.1",
			Text: "the message is not wanted here"}, nil
	case 't':
		return Answer{Verdict: TempFail, Code: 451, Status: "4.7.1",
			Text: "the message cannot be checked now, try again later"}, nil
	case 'f', '4': // SMFIR_CONN_FAIL, SMFIR_SHUTDOWN
		return Answer{Verdict: TempFail, Code: 421, Status: "4.7.0",
			Text: "the service is not available now"}, nil
	case 'y':
		return parseReply(string(bytes.TrimRight(data, "\x00")))
	}
	return Answer{}, fmt.Errorf("filter: unknown answer %q", code)
}

// parseReply reads a reply as it goes over SMTP, several lines perhaps. Percent signs are doubled, for
// Sendmail takes it for a format.
func parseReply(s string) (Answer, error) {
	var a Answer
	var text []string
	for line := range strings.SplitSeq(strings.ReplaceAll(s, "%%", "%"), "\n") {
		line = strings.TrimRight(line, "\r")
		code, ok := replyCode(line)
		if !ok || a.Code != 0 && code != a.Code {
			return Answer{}, fmt.Errorf("filter: malformed reply %.100q", s)
		}
		a.Code = code
		line = strings.TrimLeft(line[3:], " -")
		if word, rest, _ := strings.Cut(line, " "); isStatus(word, code) {
			a.Status, line = word, rest
		}
		text = append(text, line)
	}
	a.Text = strings.Join(text, "\n")
	if a.Verdict = Reject; a.Code < 500 {
		a.Verdict = TempFail
	}
	return a, nil
}

// replyCode reads the three digits of a refusal.
func replyCode(line string) (int, bool) {
	if len(line) < 3 || len(line) > 3 && line[3] != ' ' && line[3] != '-' {
		return 0, false
	}
	n := 0
	for _, c := range []byte(line[:3]) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return n, n >= 400 && n <= 599
}

// isStatus reports whether a word is an enhanced status code (RFC 3463) of the class of a code.
func isStatus(word string, code int) bool {
	parts := strings.Split(word, ".")
	if len(parts) != 3 || len(parts[0]) != 1 || int(parts[0][0]-'0') != code/100 {
		return false
	}
	for _, p := range parts[1:] {
		if len(p) < 1 || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return false
		}
	}
	return true
}

// unasked are changes that were not offered. Those of the body are an error: the filter has passed
// another message than the one there is.
var unasked = map[byte]string{'+': "add a recipient", '2': "add a recipient",
	'-': "remove a recipient", 'e': "change the sender", 'l': "name macros"}

// parseChange reads a packet that asks for a change; false for one that is none. With lead, values have
// the white space after the colon.
func parseChange(code byte, data []byte, lead bool) (c Change, ok bool, err error) {
	switch code {
	case 'h':
		c.Kind = AddHeader
	case 'i':
		c.Kind = InsertHeader
	case 'm':
		c.Kind = ChangeHeader
	case 'q':
		reason, _, _ := strings.Cut(string(data), "\x00")
		return Change{Kind: Quarantine, Value: oneLine(reason)}, true, nil
	case 'b':
		return c, true, fmt.Errorf("filter: replaces the body, which was not offered")
	default:
		what, found := unasked[code]
		return Change{Kind: Unasked, Name: what}, found, nil
	}
	if code != 'h' {
		if len(data) < 4 {
			return c, true, fmt.Errorf("filter: change without an index")
		}
		n := binary.BigEndian.Uint32(data)
		if n > 1<<16 {
			return c, true, fmt.Errorf("filter: change of field number %d", n)
		}
		c.Index, data = int(n), data[4:]
	}
	name, rest, found := strings.Cut(string(data), "\x00")
	value, _, ended := strings.Cut(rest, "\x00")
	if !found || !ended || !isFieldName(name) {
		return c, true, fmt.Errorf("filter: malformed change of a field %.60q", name)
	}
	c.Name, c.Value = name, foldValue(value, lead)
	return c, true, nil
}

func isFieldName(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == ':' {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

// foldValue makes a value out of what a filter sent: lines end in LF there, or in CRLF. Each further line
// begins with white space, and a line of nothing else is left out, so that the value ends neither the
// field nor the header.
func foldValue(s string, lead bool) string {
	if s == "" {
		return ""
	}
	var b strings.Builder
	if !lead {
		b.WriteByte(' ')
	}
	first := true
	for line := range strings.SplitSeq(s, "\n") {
		line = strings.ReplaceAll(strings.TrimSuffix(line, "\r"), "\r", " ")
		if !first && strings.Trim(line, " \t") == "" {
			continue
		}
		if !first {
			b.WriteString("\r\n")
			if line[0] != ' ' && line[0] != '\t' {
				b.WriteByte('\t')
			}
		}
		first = false
		b.WriteString(line)
	}
	return b.String()
}

func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
