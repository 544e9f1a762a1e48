package intake

import (
	"bytes"
	"mime"
	"strings"

	"github.com/tallypost/tallypost/mail"
)

// Limits on the tree of parts of one message. People's messages have a dozen parts and four levels; those
// of programs a few hundred. Beyond these numbers a message is made to exhaust whoever reads it (Postfix
// stops at 100 levels, too).
const (
	maxMIMEParts  = 10_000
	maxMIMELevels = 100
	// maxPartHeader is how much of a part's header is looked at, in octets.
	maxPartHeader = 64 << 10
	// maxBoundary is twice what RFC 2046, section 5.1.1, allows.
	maxBoundary = 140
)

// mimeScan is a witness that counts the parts of a message and how deep they lie in each other, and refuses
// a message that has too many. It looks for the lines that begin with "--" and, behind those that are a
// boundary, for the field Content-Type; all else passes by at the speed of a search. What it holds is
// bounded by the limits above.
type mimeScan struct {
	open  []mimeLevel // none: nothing more can follow
	parts int

	bol    bool   // the next octet begins a line
	inLine bool   // line is being collected
	line   []byte // of a line that may be a boundary, or is of a header, the beginning
	inHead bool
	header []byte // of a part, what came so far
}

// mimeLevel is a multipart, or a message, that the next line may belong to.
type mimeLevel struct {
	boundary string // empty: a message
	digest   bool   // its parts are messages if they do not say otherwise
}

// begin looks at the type of the message.
func (m *mimeScan) begin(h mail.Header) error {
	m.bol = true
	return m.enter(h.Get("Content-Type"))
}

// enter begins a part of a type.
func (m *mimeScan) enter(contentType string) error {
	kind, params, _ := mime.ParseMediaType(contentType)
	if n := len(m.open); kind == "" && n > 0 && m.open[n-1].digest {
		kind = "message/rfc822" // RFC 2046, section 5.1.5
	}
	switch b := params["boundary"]; {
	case strings.HasPrefix(kind, "multipart/") && b != "":
		m.open = append(m.open, mimeLevel{boundary: b[:min(len(b), maxBoundary)],
			digest: kind == "multipart/digest"})
	case kind == "message/rfc822" || kind == "message/global":
		m.open = append(m.open, mimeLevel{})
		m.inHead = true
	}
	if len(m.open) > maxMIMELevels {
		return refuse(554, "5.6.0", "the message has parts in parts, more than %d deep", maxMIMELevels)
	}
	return nil
}

// Write takes the body.
func (m *mimeScan) Write(p []byte) (int, error) {
	n := len(p)
	for len(m.open) > 0 && len(p) > 0 {
		var err error
		if p, err = m.step(p); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// step takes some of p and returns the rest.
func (m *mimeScan) step(p []byte) ([]byte, error) {
	if m.bol && (m.inHead || p[0] == '-') {
		m.inLine, m.line = true, m.line[:0]
	}
	if m.inLine {
		end := bytes.IndexByte(p, '\n') + 1
		if end == 0 {
			m.keep(p)
			m.bol = false
			return nil, nil
		}
		m.keep(p[:end])
		m.inLine, m.bol = false, true
		return p[end:], m.endLine()
	}
	i := bytes.Index(p, []byte("\n-"))
	if i < 0 {
		m.bol = p[len(p)-1] == '\n'
		return nil, nil
	}
	m.bol = true
	return p[i+1:], nil
}

// maxLine is what is kept of a line that may be a boundary: that, four dashes and some white space.
const maxLine = maxBoundary + 64

// keep keeps what is to be looked at of a line.
func (m *mimeScan) keep(p []byte) {
	m.line = append(m.line, p[:min(len(p), maxLine-len(m.line))]...)
	if m.inHead {
		m.header = append(m.header, p[:min(len(p), maxPartHeader-len(m.header))]...)
	}
}

// endLine looks at a whole line.
func (m *mimeScan) endLine() error {
	if m.isBoundary() {
		m.header = m.header[:0]
		if m.parts++; m.parts > maxMIMEParts {
			return refuse(554, "5.6.0", "the message has more than %d parts", maxMIMEParts)
		}
		return nil
	}
	if m.inHead && len(bytes.TrimRight(m.line, "\r\n")) == 0 {
		return m.endHead()
	}
	return nil
}

// isBoundary reports whether the line is the boundary of a multipart that is open, and ends what is open
// inside that.
func (m *mimeScan) isBoundary() bool {
	if len(m.line) < 3 || m.line[0] != '-' || m.line[1] != '-' {
		return false
	}
	text := bytes.TrimRight(m.line[2:], " \t\r\n")
	for i := len(m.open) - 1; i >= 0; i-- {
		b := m.open[i].boundary
		if b == "" || len(text) < len(b) || string(text[:len(b)]) != b {
			continue
		}
		rest := string(text[len(b):])
		if rest == "" || len(b) == maxBoundary && rest != "--" { // that one was cut
			m.open, m.inHead = m.open[:i+1], true
			return true
		}
		if rest == "--" {
			m.open, m.inHead = m.open[:i], false
			return true
		}
	}
	return false
}

// endHead reads the header of a part.
func (m *mimeScan) endHead() error {
	m.inHead = false
	h, _ := mail.ParseHeader(m.header)
	m.header = m.header[:0]
	return m.enter(h.Get("Content-Type"))
}
