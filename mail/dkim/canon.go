package dkim

import (
	"bytes"
	"io"
	"strings"

	"github.com/tallypost/tallypost/mail"
)

// canon is a canonicalization of RFC 6376, section 3.4.
type canon uint8

const (
	simple canon = iota
	relaxed
	canons // their number
)

func (c canon) String() string {
	if c == relaxed {
		return "relaxed"
	}
	return "simple"
}

// parseCanon reads c=: header and body, simple where not given.
func parseCanon(s string) (header, body canon, ok bool) {
	h, b, two := strings.Cut(s, "/")
	if header, ok = canonNamed(h); !ok || !two {
		return header, simple, ok
	}
	body, ok = canonNamed(b)
	return header, body, ok
}

func canonNamed(s string) (canon, bool) {
	switch strings.ToLower(s) {
	case "simple":
		return simple, true
	case "relaxed":
		return relaxed, true
	}
	return simple, false
}

// appendField appends the canonical form of a field with its final CRLF.
func appendField(dst, raw []byte, c canon) []byte {
	if c == relaxed {
		return appendRelaxed(dst, raw)
	}
	return appendSimple(dst, raw)
}

// appendSimple appends the field as it is, with CRLF where mail in store has a bare LF (RFC 6376,
// section 3.4.1).
func appendSimple(dst, raw []byte) []byte {
	for {
		i := bytes.IndexByte(raw, '\n')
		if i < 0 {
			break
		}
		line := raw[:i]
		if i > 0 && line[i-1] == '\r' {
			line = line[:i-1]
		}
		dst = append(append(dst, line...), '\r', '\n')
		raw = raw[i+1:]
	}
	if len(raw) > 0 { // a header section that ends without a line end
		dst = append(append(dst, raw...), '\r', '\n')
	}
	return dst
}

// appendRelaxed appends name in lower case, colon and unfolded value; runs of white space become
// one space, those at the ends and around the colon go (RFC 6376, section 3.4.2).
func appendRelaxed(dst, raw []byte) []byte {
	colon := bytes.IndexByte(raw, ':')
	if colon < 0 {
		return dst
	}
	for _, c := range bytes.TrimRight(raw[:colon], " \t") {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	dst = append(dst, ':')
	space, start := false, len(dst)
	value := raw[colon+1:]
	for i, c := range value {
		switch {
		case c == ' ' || c == '\t':
			space = true
			continue
		case c == '\n', c == '\r' && i+1 < len(value) && value[i+1] == '\n':
			continue
		case space && len(dst) > start:
			dst = append(dst, ' ')
		}
		space = false
		dst = append(dst, c)
	}
	return append(dst, '\r', '\n')
}

// headerSource picks fields by name, from the last one up, and keeps canonical forms so that
// several signatures share the work. It is used by one goroutine.
type headerSource struct {
	fields []mail.Field
	hashes []uint32 // of the names in lower case, to compare quickly
	forms  [canons][]span
	buf    []byte // canonical forms
	taken  []taken
	// scratch is for the field of the signature at hand.
	scratch []byte
}

// taken is the field that a name in h= stands for; limit is -1 where there is none (left).
type taken struct {
	hash  uint32
	limit int
}

// span is a part of headerSource.buf; end 0 means not made yet.
type span struct{ start, end int }

func newHeaderSource(h mail.Header) *headerSource {
	s := &headerSource{fields: h.Fields, hashes: make([]uint32, len(h.Fields))}
	size := 0
	for i, f := range h.Fields {
		size += len(f.Raw)
		colon := bytes.IndexByte(f.Raw, ':')
		s.hashes[i] = nameHash(bytes.TrimRight(f.Raw[:colon], " \t"))
	}
	// Canonical fields are seldom longer than raw ones; of a large header few are signed.
	s.buf = make([]byte, 0, min(size, 4096))
	s.taken = make([]taken, 0, 32)
	return s
}

// nameHash is FNV-1a over the name in lower case.
func nameHash[T string | []byte](name T) uint32 {
	h := uint32(2166136261)
	for i := 0; i < len(name); i++ {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		h = (h ^ uint32(c)) * 16777619
	}
	return h
}

// before returns the index of the last field of this name before index limit, or -1.
func (s *headerSource) before(name string, hash uint32, limit int) int {
	for i := limit - 1; i >= 0; i-- {
		if s.hashes[i] == hash && s.fields[i].Is(name) {
			return i
		}
	}
	return -1
}

// count returns how many fields of this name there are.
func (s *headerSource) count(name string) int {
	n, hash := 0, nameHash(name)
	for i := range s.fields {
		if s.hashes[i] == hash && s.fields[i].Is(name) {
			n++
		}
	}
	return n
}

// form returns the canonical form of a field.
func (s *headerSource) form(i int, c canon) []byte {
	if s.forms[c] == nil {
		s.forms[c] = make([]span, len(s.fields))
	}
	f := &s.forms[c][i]
	if f.end == 0 {
		f.start = len(s.buf)
		s.buf = appendField(s.buf, s.fields[i].Raw, c)
		f.end = len(s.buf)
	}
	return s.buf[f.start:f.end]
}

// write hashes the fields named in h=, each occurrence of a name one field further up (RFC 6376,
// section 5.4.2). Names without a field (left) count as empty.
func (s *headerSource) write(h io.Writer, names []string, c canon) {
	s.taken = s.taken[:0]
	for _, name := range names {
		t := taken{nameHash(name), len(s.fields)}
		for i := len(s.taken) - 1; i >= 0; i-- {
			if s.taken[i].hash == t.hash {
				t.limit = s.taken[i].limit // go on above the field that the name took before
				break
			}
		}
		t.limit = s.before(name, t.hash, t.limit)
		s.taken = append(s.taken, t)
		if t.limit >= 0 {
			h.Write(s.form(t.limit, c))
		}
	}
}
