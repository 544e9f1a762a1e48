package relay

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"strings"

	"github.com/tallypost/tallypost/mail"
)

// sevenBit is a message without octets above 127, for a server that offers neither 8BITMIME nor
// BINARYMIME (RFC 6152, section 3: convert, or give up).
//
// Text becomes quoted-printable and everything else base64, part by part; what is 7-bit already
// stays as it is, octet by octet. A message that somebody signed is not touched: a receiver that
// finds the signature broken does worse than one that finds no message. Nor is one whose header has
// 8-bit text, for which there is no such form, or whose parts cannot be told apart.
type sevenBit struct {
	body *spool
	size int64
	err  error // why it cannot be had
}

// Limits on the parts of a message that is converted.
const (
	maxPartDepth   = 20
	maxParts       = 10_000
	maxPartHeader  = 256 << 10
	maxMemoryBytes = 1 << 20 // a larger result lies in a file that has no name
)

var (
	errSigned    = errors.New("it cannot be made 7-bit without breaking its signature")
	errHeader8   = errors.New("it has 8-bit text in a header")
	errStructure = errors.New("it cannot be made 7-bit: its parts cannot be told apart")
)

// toSevenBit converts a message.
func toSevenBit(body io.ReaderAt, size int64) *sevenBit {
	survey := &converter{}
	if err := survey.run(body, size, io.Discard); err != nil {
		return &sevenBit{err: err}
	}
	out := new(spool)
	work := &converter{found: survey.found, write: true}
	if err := errors.Join(work.run(body, size, out), out.end()); err != nil {
		return &sevenBit{err: errors.Join(err, out.Close())}
	}
	return &sevenBit{body: out, size: out.size}
}

func (s *sevenBit) close() {
	if s != nil && s.body != nil {
		s.body.Close()
	}
}

// converter reads a message through twice: first to find out what each part has in it, for that
// must be said in the header that comes before; then to write it anew.
type converter struct {
	r     *bufio.Reader
	w     io.Writer
	found []content // of each part, in order
	part  int
	write bool

	marks  []string // boundaries of the multiparts that the part at hand is in, outermost first
	signed bool     // the part at hand is in a signed one
	whole  bool     // what next returned begins a line
	begins bool     // what it returns next will
}

// content is what a part has in it.
type content struct{ eight, stray bool }

func (c *converter) run(body io.ReaderAt, size int64, w io.Writer) error {
	c.r = bufio.NewReaderSize(io.NewSectionReader(body, 0, size), 64<<10)
	c.w, c.begins = w, true
	_, err := c.entity(0, "")
	return err
}

// next returns the next line with its end, or the next piece of one that is very long; nil at the
// end. It is valid until the one after.
func (c *converter) next() ([]byte, error) {
	l, err := c.r.ReadSlice('\n')
	c.whole, c.begins = c.begins, bytes.HasSuffix(l, []byte("\n"))
	if len(l) > 0 && (err == nil || errors.Is(err, bufio.ErrBufferFull) || err == io.EOF) {
		return l, nil
	}
	if err == io.EOF {
		return nil, nil
	}
	return nil, err
}

// mark says which boundary a line is: its depth among the marks, and whether it is the last of its
// multipart; depth -1 for any other line.
func (c *converter) mark(line []byte) (depth int, last bool) {
	if !c.whole || !bytes.HasPrefix(line, []byte("--")) {
		return -1, false
	}
	text := string(bytes.TrimRight(line[2:], " \t\r\n"))
	for i := len(c.marks) - 1; i >= 0; i-- {
		if text == c.marks[i] {
			return i, false
		}
		if text == c.marks[i]+"--" {
			return i, true
		}
	}
	return -1, false
}

// ended is where an entity ended: at the boundary of that depth, or, -1, at the end of the message.
type ended struct {
	depth int
	last  bool
	// line is the boundary with the line end before it, which belongs to it (RFC 2046, section 5.1.1).
	line []byte
}

// entity converts a header and what belongs to it. inside is the type of the multipart it is a part
// of.
func (c *converter) entity(depth int, inside string) (ended, error) {
	if depth > maxPartDepth || c.part > maxParts {
		return ended{}, errStructure
	}
	raw, end, err := c.header()
	if err != nil {
		return ended{}, err
	}
	h, err := mail.ParseHeader(raw)
	if err != nil || h.Len != len(raw) {
		return ended{}, errStructure
	}
	if depth == 0 && (len(h.All("DKIM-Signature")) > 0 || len(h.All("ARC-Message-Signature")) > 0) {
		return ended{}, errSigned
	}
	kind, boundary := kindOf(h, inside)
	switch {
	case end != nil: // a header without a body
		return *end, c.emit(raw)
	case strings.HasPrefix(kind, "multipart/"):
		return c.multipart(depth, h, kind, boundary)
	case kind == "message/rfc822" || kind == "message/global":
		if err := c.emit(relabel(h, "", false)); err != nil {
			return ended{}, err
		}
		return c.entity(depth+1, kind)
	}
	return c.leaf(h, kind, depth == 0)
}

// header reads a header section with its empty line. Where a boundary comes first it returns that.
func (c *converter) header() (raw []byte, end *ended, err error) {
	for {
		line, err := c.next()
		if err != nil {
			return nil, nil, err
		}
		if line == nil {
			return raw, &ended{depth: -1}, nil
		}
		if d, last := c.mark(line); d >= 0 {
			return raw, &ended{d, last, bytes.Clone(line)}, nil
		}
		if has8Bit(line) {
			return nil, nil, errHeader8
		}
		if raw = append(raw, line...); len(raw) > maxPartHeader {
			return nil, nil, errStructure
		}
		if c.whole && len(bytes.TrimRight(line, "\r\n")) == 0 {
			return raw, nil, nil
		}
	}
}

// kindOf returns the media type of an entity and the boundary of a multipart.
func kindOf(h mail.Header, inside string) (kind, boundary string) {
	value := h.Get("Content-Type")
	kind, params, err := mime.ParseMediaType(value)
	if err != nil {
		kind, _, _ = strings.Cut(value, ";")
		kind = strings.ToLower(strings.TrimSpace(kind))
	}
	if kind == "" && inside == "multipart/digest" {
		return "message/rfc822", "" // RFC 2046, section 5.1.5
	}
	if !strings.Contains(kind, "/") {
		return "text/plain", ""
	}
	return kind, params["boundary"]
}

// multipart converts the parts of a multipart one by one.
func (c *converter) multipart(depth int, h mail.Header, kind, boundary string) (ended, error) {
	if boundary == "" {
		return ended{}, errStructure
	}
	if err := c.emit(relabel(h, "", false)); err != nil {
		return ended{}, err
	}
	was := c.signed
	c.signed = was || kind == "multipart/signed" || kind == "multipart/encrypted"
	c.marks = append(c.marks, boundary)
	mine := len(c.marks) - 1
	end, err := c.plain() // the preamble
	for err == nil && end.depth == mine && !end.last {
		if err = c.emit(end.line); err == nil {
			end, err = c.entity(depth+1, kind)
		}
	}
	c.marks, c.signed = c.marks[:mine], was
	if err != nil || end.depth != mine {
		return end, err
	}
	if err := c.emit(end.line); err != nil {
		return ended{}, err
	}
	return c.plain() // the epilogue
}

// plain passes on what stands around parts. Nobody reads it, but it must be 7-bit.
func (c *converter) plain() (ended, error) {
	for {
		line, err := c.next()
		if err != nil || line == nil {
			return ended{depth: -1}, err
		}
		if d, last := c.mark(line); d >= 0 {
			return ended{d, last, bytes.Clone(line)}, nil
		}
		if has8Bit(line) {
			return ended{}, errStructure
		}
		if err := c.emit(line); err != nil {
			return ended{}, err
		}
	}
}

// leaf converts the body of a part that has no parts.
func (c *converter) leaf(h mail.Header, kind string, root bool) (ended, error) {
	if !c.write {
		return c.survey(h, kind)
	}
	f := c.found[c.part]
	c.part++
	switch {
	case !f.eight && !f.stray:
		if err := c.emit(relabel(h, "", root)); err != nil {
			return ended{}, err
		}
		return c.body(c.emit)
	case strings.HasPrefix(kind, "text/") && !f.stray:
		if err := c.emit(relabel(h, "quoted-printable", root)); err != nil {
			return ended{}, err
		}
		q := quotedprintable.NewWriter(c.w)
		end, err := c.body(func(p []byte) error { _, err := q.Write(p); return err })
		return end, errors.Join(err, q.Close())
	}
	if err := c.emit(relabel(h, "base64", root)); err != nil {
		return ended{}, err
	}
	b := base64.NewEncoder(base64.StdEncoding, &folder{w: c.w})
	end, err := c.body(func(p []byte) error { _, err := b.Write(p); return err })
	return end, errors.Join(err, b.Close())
}

// survey finds out what a part has in it, and whether it can be encoded if it must.
func (c *converter) survey(h mail.Header, kind string) (ended, error) {
	var f content
	cr := false // the octet before is one
	end, err := c.body(func(p []byte) error {
		f.eight = f.eight || has8Bit(p)
		for _, b := range p {
			f.stray = f.stray || b == 0 || cr != (b == '\n')
			cr = b == '\r'
		}
		return nil
	})
	f.stray = f.stray || cr
	c.found = append(c.found, f)
	c.part++
	if err != nil || !f.eight && !f.stray {
		return end, err
	}
	switch encoding := strings.ToLower(h.Get("Content-Transfer-Encoding")); {
	case c.signed:
		err = errSigned
	case strings.HasPrefix(kind, "message/"):
		err = fmt.Errorf("%w: 8-bit text in %s, which must not be encoded", errStructure, kind)
	case encoding != "" && encoding != "7bit" && encoding != "8bit" && encoding != "binary":
		err = fmt.Errorf("%w: 8-bit text in a part that is %q already", errStructure, encoding)
	}
	return end, err
}

// body hands the body of a part to put, up to the boundary or the end of the message.
func (c *converter) body(put func([]byte) error) (ended, error) {
	var held []byte // the end of the line before
	for {
		line, err := c.next()
		if err != nil {
			return ended{}, err
		}
		if line == nil {
			return ended{depth: -1}, put(held)
		}
		if d, last := c.mark(line); d >= 0 {
			return ended{d, last, append(bytes.Clone(held), line...)}, nil
		}
		if err := put(held); err != nil {
			return ended{}, err
		}
		text := bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		if len(text) == len(line)-1 && line[len(text)] == '\r' {
			text = line // a CR at the end of a piece
		}
		if err := put(text); err != nil {
			return ended{}, err
		}
		held = append(held[:0], line[len(text):]...)
	}
}

func (c *converter) emit(p []byte) error {
	_, err := c.w.Write(p)
	return err
}
