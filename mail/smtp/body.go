package smtp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Stray says what to do with a message in which a CR or LF stands alone (RFC 5321, section 2.3.8:
// they "MUST NOT" be sent). Neither ever ends a message, whatever is chosen here.
type Stray uint8

const (
	// RejectStray refuses the message, at its true end.
	RejectStray Stray = iota
	// MendStray makes CRLF of a bare LF and a space of a bare CR. It breaks signatures over them.
	MendStray
)

var (
	crlf       = []byte("\r\n")
	space      = []byte(" ")
	errAborted = errors.New("the client gave the transaction up")
	errFraming = errors.New("no telling where the next command begins")
)

// body reads one message off a wire: what comes after DATA without the dots, or chunks of BDAT. It
// is what a Session reads; Read and WriteTo hand out slices of the wire's buffer. The message has
// only arrived when they have reported its end: an error before is either a refusal, which the
// client will hear once the message is read over, or the loss of the connection.
type body struct {
	x     *wire
	stray Stray
	limit int64 // octets the message may have
	spare int64 // octets over and above that are read before the connection is given up

	dots bool // DATA
	bol  bool // the next octet is the first of a line, so that a dot there has a meaning

	left   int64        // octets left of this chunk of BDAT
	last   bool         // there is no chunk after it
	more   func() error // answers the chunk and reads the next BDAT
	binary bool
	heldCR bool // the last chunk ended in CR, which was not handed out

	mend int // octets at the head of the buffer that are being mended

	cur     []byte // handed out by chunk, not yet by Read
	n       int64  // octets read, with what was thrown away
	lines   int64
	done    bool   // the true end has been read
	refusal *Reply // the message cannot be accepted, whatever the session says
	err     error  // the connection or the transaction is lost
}

// Read hands out the next octets of the message.
func (b *body) Read(p []byte) (int, error) {
	if len(b.cur) == 0 {
		cur, err := b.chunk()
		if err != nil {
			return 0, err
		}
		b.cur = cur
	}
	n := copy(p, b.cur)
	b.cur = b.cur[n:]
	return n, nil
}

// WriteTo writes the rest of the message to w, from the buffer it was received in.
func (b *body) WriteTo(w io.Writer) (sum int64, err error) {
	for {
		if len(b.cur) == 0 {
			if b.cur, err = b.chunk(); err != nil {
				if err == io.EOF {
					err = nil
				}
				return sum, err
			}
		}
		n, err := w.Write(b.cur)
		sum += int64(n)
		b.cur = b.cur[n:]
		if err != nil {
			return sum, err
		}
	}
}

// chunk returns the next piece of the message, valid until the next call, or io.EOF.
func (b *body) chunk() ([]byte, error) {
	for {
		switch {
		case b.err != nil:
			return nil, b.err
		case b.refusal != nil:
			return nil, b.refusal
		case b.done:
			return nil, io.EOF
		}
		if p := b.scan(); len(p) > 0 && b.refusal == nil {
			return p, nil
		}
	}
}

// finish reads over what is left of the message, to its true end, or of the chunk if that is
// enough.
func (b *body) finish(onlyChunk bool) error {
	for !b.done && b.err == nil && !(onlyChunk && !b.dots && b.left == 0) {
		if b.refusal == nil {
			b.scan()
		} else {
			b.skip()
		}
		if b.n-b.limit > b.spare {
			b.err = errFraming
		}
	}
	return b.err
}

// scan consumes some of the wire and returns a piece of content; none where it had to wait, or
// found the end or a fault.
func (b *body) scan() []byte {
	p := b.scanRun()
	b.n += int64(len(p))
	if b.n > b.limit && b.refusal == nil && !b.done {
		b.refusal = tooBig(b.limit)
	}
	return p
}

func (b *body) scanRun() []byte {
	if b.heldCR && b.left == 0 && b.last {
		return b.strayCR()
	}
	run, start, ok := b.window()
	switch {
	case !ok:
		return nil
	case b.binary:
		b.consume(len(run))
		return run
	case b.heldCR:
		return b.afterHeldCR(run)
	case b.mend > 0:
		return b.mended(run[:b.mend], 0)
	}
	end, lines, clean := survey(run[start:], b.dots)
	end += start
	if end == start {
		return b.loneCR(run, start)
	}
	if !clean {
		b.mend = end
		return b.mended(run[:end], start)
	}
	b.consume(end)
	b.lines += int64(lines)
	b.bol = run[end-1] == '\n'
	return run[start:end]
}

// window returns the octets of the buffer that belong to the message and how many of them to read
// over at their beginning: a dot. It is not ok where there are none yet, or no more.
func (b *body) window() (run []byte, start int, ok bool) {
	if !b.dots {
		return b.chunkWindow()
	}
	in := b.x.buffered()
	switch {
	case len(in) == 0:
		b.fill()
		return nil, 0, false
	case !b.bol || in[0] != '.':
		return in, 0, true
	case len(in) < 2 || in[1] == '\r' && len(in) < 3:
		b.fill()
		return nil, 0, false
	case in[1] == '\r' && in[2] == '\n':
		// RFC 5321, section 4.1.1.4: nothing but this ends the message, and only at the beginning
		// of a line that follows a CRLF.
		b.x.r += 3
		b.done = true
		return nil, 0, false
	}
	return in, 1, true // RFC 5321, section 4.5.2
}

func (b *body) chunkWindow() (run []byte, start int, ok bool) {
	if b.left == 0 {
		b.endChunk()
		return nil, 0, false
	}
	in := b.x.buffered()
	if len(in) == 0 {
		b.fill()
		return nil, 0, false
	}
	if int64(len(in)) > b.left {
		in = in[:b.left]
	}
	return in, 0, true
}

func (b *body) endChunk() {
	if b.last {
		b.done = true
		return
	}
	if err := b.more(); err != nil {
		if err == io.EOF { // of the connection, which is not the end of the message
			err = io.ErrUnexpectedEOF
		}
		b.err = err
	}
}

// afterHeldCR returns what became of the CR that ended the last chunk.
func (b *body) afterHeldCR(run []byte) []byte {
	if run[0] != '\n' {
		return b.strayCR()
	}
	b.heldCR = false
	b.consume(1)
	b.lines++
	return crlf
}

// strayCR deals with a CR at the end of a chunk that turned out to stand alone.
func (b *body) strayCR() []byte {
	b.heldCR = false
	if b.stray == RejectStray {
		b.refuse('\r')
		return nil
	}
	return space
}

// consume takes n octets off the wire.
func (b *body) consume(n int) {
	b.x.r += n
	if !b.dots {
		b.left -= int64(n)
	}
}

// fill waits for more octets of the message.
func (b *body) fill() {
	if err := b.x.fill(); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		b.err = err
	}
}

// survey looks at text of which the octet before is no CR. It returns how much of it can be handed
// out at once: with stopAtDot not further than to a line that begins with a dot, and never a CR at
// the very end, of which nobody knows yet whether it stands alone. It counts the line ends in that
// part and says whether the part has nothing but CRLF for line ends, and no NUL.
func survey(text []byte, stopAtDot bool) (end, lines int, clean bool) {
	end, clean = len(text), true
	if end > 0 && text[end-1] == '\r' {
		end--
	}
	for i := 0; i < end; {
		j := bytes.IndexByte(text[i:end], '\n')
		if j < 0 {
			break
		}
		i += j + 1
		if i < 2 || text[i-2] != '\r' {
			clean = false
			continue
		}
		lines++
		if stopAtDot && i < end && text[i] == '.' {
			end = i
		}
	}
	text = text[:end]
	if bytes.Count(text, crlf[:1]) != lines || bytes.IndexByte(text, 0) >= 0 {
		clean = false
	}
	return end, lines, clean
}

// loneCR deals with a window that holds nothing but a CR (after a dot to be read over, if start is
// 1).
func (b *body) loneCR(run []byte, start int) []byte {
	if b.dots || int64(len(run)) < b.left {
		b.fill()
		return nil
	}
	b.consume(len(run))
	b.heldCR = true
	return nil
}

// mended deals with a run that has a stray CR or LF or a NUL in it: it refuses the message, or hands
// out what is before the first of them, or what that is made into. b.mend remembers how much of the
// run is left for the next calls, so that each octet is looked at once however many are wrong.
func (b *body) mended(run []byte, start int) []byte {
	at := start + firstStray(run[start:])
	if at < len(run) && (b.stray == RejectStray || run[at] == 0) {
		b.lines += int64(bytes.Count(run[start:at], crlf))
		b.refuse(run[at])
		b.mend = 0
		b.skipRun(run)
		return nil
	}
	b.bol = false
	if at > start {
		b.lines += int64(bytes.Count(run[start:at], crlf))
		b.bol = at == len(run) && run[at-1] == '\n'
		b.consume(at)
		b.mend -= at
		return run[start:at]
	}
	b.consume(at + 1)
	b.mend -= at + 1
	if run[at] == '\n' {
		b.lines++
		return crlf
	}
	run[at] = ' '
	return run[at : at+1]
}

// firstStray returns the index of the first octet of text that is a CR or LF alone, or NUL.
func firstStray(text []byte) int {
	for i, c := range text {
		switch c {
		case 0:
			return i
		case '\n':
			if i == 0 || text[i-1] != '\r' {
				return i
			}
		case '\r':
			if i+1 == len(text) || text[i+1] != '\n' {
				return i
			}
		}
	}
	return len(text)
}

func (b *body) refuse(c byte) {
	what := "a bare LF"
	switch c {
	case 0:
		what = "a NUL"
	case '\r':
		what = "a bare CR"
	}
	b.refusal = &Reply{Code: 550, Enhanced: "5.6.0", Text: fmt.Sprintf(
		"line %d of the message has %s in it; lines must end in CRLF (RFC 5321, section 2.3.8)",
		b.lines+1, what)}
}

// skip reads over some of the message without looking at more than where it ends.
func (b *body) skip() {
	if run, _, ok := b.window(); ok {
		b.skipRun(run)
	}
}

func (b *body) skipRun(run []byte) {
	if !b.dots {
		b.consume(len(run))
		b.n += int64(len(run))
		return
	}
	end, _, _ := survey(run, true)
	if end == 0 { // "\r", or a dot that is read over before it
		b.fill()
		return
	}
	b.consume(end)
	b.n += int64(end)
	b.bol = end >= 2 && run[end-1] == '\n' && run[end-2] == '\r'
}
