package mail

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// Limits on the header section of a message; past either the message is malformed, not merely large.
const (
	MaxHeaderBytes  = 1 << 20
	MaxHeaderFields = 2000
)

// Errors of ParseHeader.
var (
	ErrHeaderTooLarge = errors.New("header section larger than 1 MiB or more than 2000 fields")
	ErrHeaderLine     = errors.New("line in the header section that is no field")
)

// Header is the header section of a message (RFC 5322, section 2.2), kept as the octets it came in.
type Header struct {
	Fields []Field // in order of appearance
	// Len is the number of octets up to the body: the fields and the empty line, if there is one.
	Len int
}

// Field is one header field. Both slices point into the message.
type Field struct {
	Raw  []byte // name, colon, value, folding and final CRLF, as received
	name int    // length of the name
}

// Name returns the field's name as received.
func (f Field) Name() string { return string(f.Raw[:f.name]) }

// Is reports whether the field has this name, in any case.
func (f Field) Is(name string) bool {
	return len(name) == f.name && strings.EqualFold(string(f.Raw[:f.name]), name)
}

// RawValue returns what follows the colon, folded as received, with its final CRLF.
func (f Field) RawValue() []byte {
	return f.Raw[bytes.IndexByte(f.Raw, ':')+1:]
}

// Value returns the value unfolded (RFC 5322, section 2.2.3) and trimmed of white space.
func (f Field) Value() string {
	v := f.RawValue()
	if bytes.IndexByte(v, '\n') < len(v)-1 {
		v = bytes.ReplaceAll(v, []byte("\r\n"), nil)
		v = bytes.ReplaceAll(v, []byte("\n"), nil)
	}
	return string(bytes.Trim(v, " \t\r\n"))
}

// ParseHeader splits the header section at the start of msg. A message without an empty line is all
// header. Lines end in CRLF, or in a bare LF as some mail in store has it. An error comes with the fields
// before it and with Len at the start of the bad line, so that a lenient caller can go on from there.
func ParseHeader(msg []byte) (Header, error) {
	var h Header
	for h.Len < len(msg) {
		rest := msg[h.Len:]
		if n := emptyLine(rest); n > 0 {
			h.Len += n
			return h, nil
		}
		end := fieldEnd(rest)
		if h.Len+end > MaxHeaderBytes || len(h.Fields) == MaxHeaderFields {
			return h, ErrHeaderTooLarge
		}
		name := fieldName(rest[:end])
		if name <= 0 {
			return h, fmt.Errorf("%w: %.60q", ErrHeaderLine, rest[:end])
		}
		h.Fields = append(h.Fields, Field{Raw: rest[:end:end], name: name})
		h.Len += end
	}
	return h, nil
}

func emptyLine(b []byte) int {
	switch {
	case len(b) > 0 && b[0] == '\n':
		return 1
	case len(b) > 1 && b[0] == '\r' && b[1] == '\n':
		return 2
	}
	return 0
}

// fieldEnd returns the length of the field at the start of b, folded lines included.
func fieldEnd(b []byte) int {
	end := 0
	for {
		i := bytes.IndexByte(b[end:], '\n')
		if i < 0 {
			return len(b)
		}
		end += i + 1
		if end == len(b) || b[end] != ' ' && b[end] != '\t' {
			return end
		}
	}
}

// fieldName returns the length of the field's name, or 0 where there is none. White space before the
// colon is obsolete syntax (RFC 5322, section 4.5) and is not part of the name.
func fieldName(b []byte) int {
	colon := bytes.IndexByte(b, ':')
	if colon <= 0 {
		return 0
	}
	n := len(bytes.TrimRight(b[:colon], " \t"))
	for _, c := range b[:n] {
		if c <= ' ' || c >= 0x7f {
			return 0
		}
	}
	return n
}

// Get returns the value of the first field of this name, unfolded; "" where there is none.
func (h Header) Get(name string) string {
	for _, f := range h.Fields {
		if f.Is(name) {
			return f.Value()
		}
	}
	return ""
}

// All returns the fields of this name, in order.
func (h Header) All(name string) []Field {
	var out []Field
	for _, f := range h.Fields {
		if f.Is(name) {
			out = append(out, f)
		}
	}
	return out
}

// DateLayout is how RFC 5322, section 3.3, writes a time, for time.Format.
const DateLayout = "Mon, 02 Jan 2006 15:04:05 -0700"
