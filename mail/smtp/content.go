package smtp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// facts is what a client must know of a message before it sends it.
type facts struct {
	size     int64 // octets, with the CRLF that is missing at the end
	open     bool  // the last line has no CRLF
	eightBit bool
	header8  bool  // and some of that before the body
	bad      bool  // a CR or LF stands alone, or there is a NUL
	badAt    int64 // the first of them
}

// inspect reads a message through.
func inspect(body io.ReaderAt, size int64) (facts, error) {
	b := bufferPool.Get().(*buffers)
	defer bufferPool.Put(b)
	f := facts{size: size}
	inHeader := true
	var tail [4]byte // last octets before the piece, of which the very last may be a CR
	for off := int64(0); off < size; {
		n, err := readAt(body, b.in[4:], off, size)
		if err != nil {
			return f, err
		}
		copy(b.in[:4], tail[:])
		piece := b.in[4 : 4+n]
		header := 0
		if inHeader {
			header = n
			if i := bytes.Index(b.in[:4+n], []byte("\r\n\r\n")); i >= 0 {
				header, inHeader = max(i, 0), false
			}
		}
		if at := eightBitAt(piece); at < n {
			f.eightBit = true
			f.header8 = f.header8 || at < header
		}
		if !f.bad && isBad(piece, tail[3]) {
			f.bad, f.badAt = true, off+badAt(piece, tail[3])
		}
		copy(tail[:], b.in[n:n+4])
		off += int64(n)
	}
	f.open = size > 0 && tail[3] != '\n'
	if !f.bad && tail[3] == '\r' {
		f.bad, f.badAt = true, size-1
	}
	if f.open {
		f.size += 2
	}
	return f, nil
}

// isBad reports whether a CR or LF stands alone in piece, before being the octet ahead of it, or a
// NUL is in it. A CR at the end is left to the next piece.
func isBad(piece []byte, before byte) bool {
	if before == '\r' && piece[0] != '\n' || bytes.IndexByte(piece, 0) >= 0 {
		return true
	}
	pairs := 0
	if before == '\r' {
		piece = piece[1:]
	}
	for i := 0; ; pairs++ {
		j := bytes.IndexByte(piece[i:], '\n')
		if j < 0 {
			break
		}
		i += j + 1
		if i < 2 || piece[i-2] != '\r' {
			return true
		}
	}
	if bytes.HasSuffix(piece, crlf[:1]) {
		pairs++
	}
	return bytes.Count(piece, crlf[:1]) != pairs
}

// badAt returns where the first octet is for which isBad says yes: -1 is the octet ahead.
func badAt(piece []byte, before byte) int64 {
	switch {
	case before != '\r':
		return int64(firstStray(piece))
	case piece[0] != '\n':
		return -1
	}
	return 1 + int64(firstStray(piece[1:]))
}

// eightBitAt returns the index of the first octet above 127, or the length of p.
func eightBitAt(p []byte) int {
	i := 0
	for ; i+8 <= len(p); i += 8 {
		if binary.LittleEndian.Uint64(p[i:])&0x8080808080808080 != 0 {
			break
		}
	}
	for ; i < len(p); i++ {
		if p[i] >= 0x80 {
			return i
		}
	}
	return i
}

// readAt fills p from off, not further than size.
func readAt(body io.ReaderAt, p []byte, off, size int64) (int, error) {
	p = p[:min(int64(len(p)), size-off)]
	n, err := body.ReadAt(p, off)
	if n < len(p) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return n, fmt.Errorf("read message at octet %d: %w", off+int64(n), err)
	}
	return n, nil
}

// outflow collects a message into large writes.
type outflow struct {
	x *wire
	b *buffers
	n int
}

// newOutflow begins with what is pending on x.
func newOutflow(x *wire) (*outflow, error) {
	if len(x.out) > inSize/2 {
		if err := x.flush(); err != nil {
			return nil, err
		}
	}
	o := &outflow{x: x, b: bufferPool.Get().(*buffers)}
	o.n = copy(o.b.in[:], x.out)
	x.out = x.out[:0]
	return o, nil
}

func (o *outflow) add(p []byte) error {
	for len(p) > 0 {
		if o.n == len(o.b.in) {
			if err := o.flush(); err != nil {
				return err
			}
		}
		n := copy(o.b.in[o.n:], p)
		o.n, p = o.n+n, p[n:]
	}
	return nil
}

func (o *outflow) flush() error {
	err := o.x.send(o.b.in[:o.n])
	o.n = 0
	return err
}

// writeChunk writes BDAT and the message (RFC 3030, section 2).
func (t *sending) writeChunk() error {
	t.c.x.write(fmt.Sprintf("BDAT %d LAST\r\n", t.facts.size))
	return t.pour((*outflow).add, "")
}

// writeDots writes the message with a dot before each line that begins with one, and the dot that
// ends it (RFC 5321, section 4.5.2).
func (t *sending) writeDots() error {
	bol := true
	return t.pour(func(o *outflow, piece []byte) error {
		for len(piece) > 0 {
			if bol && piece[0] == '.' {
				if err := o.add(piece[:1]); err != nil {
					return err
				}
			}
			n := untilDotLine(piece)
			bol = piece[n-1] == '\n'
			if err := o.add(piece[:n]); err != nil {
				return err
			}
			piece = piece[n:]
		}
		return nil
	}, ".\r\n")
}

// untilDotLine returns how much of piece comes before the next line that begins with a dot.
func untilDotLine(piece []byte) int {
	if i := bytes.Index(piece, []byte("\n.")); i >= 0 {
		return i + 1
	}
	return len(piece)
}

// pour writes the message through put, and then the end.
func (t *sending) pour(put func(*outflow, []byte) error, end string) error {
	t.c.x.patience = t.c.cfg.BlockTimeout
	o, err := newOutflow(&t.c.x)
	if err != nil {
		return err
	}
	defer bufferPool.Put(o.b)
	src := bufferPool.Get().(*buffers)
	defer bufferPool.Put(src)
	size := t.facts.size
	if t.facts.open {
		size -= 2
		end = "\r\n" + end
	}
	for off := int64(0); off < size; {
		n, err := readAt(t.body, src.in[:], off, size)
		if err != nil {
			return err
		}
		if err := put(o, src.in[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
	if err := o.add([]byte(end)); err != nil {
		return err
	}
	t.whole = true // add has left the last octet to flush
	return o.flush()
}
