package dkim

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"
)

// bodyHash canonicalizes a body as it streams by and hashes it (RFC 6376, sections 3.4.3 and
// 3.4.4). Bare LF counts as a line end, as mail in store has it; a bare CR is an octet like others.
type bodyHash struct {
	canon canon
	h     hash.Hash
	out   []byte // canonical octets on their way to h

	crlfs int  // line ends held back: those at the end of the body count as one, or none
	space bool // relaxed: white space held back, which at the end of a line is nothing
	cr    bool // the last octet was a CR, which may begin a line end
	any   bool // something other than line ends was written
}

// bodyPool keeps hashes with their buffers: one or two are needed for each message.
var bodyPool = sync.Pool{New: func() any {
	return &bodyHash{h: sha256.New(), out: make([]byte, 0, 4096)}
}}

func newBodyHash(c canon) *bodyHash {
	b := bodyPool.Get().(*bodyHash)
	b.h.Reset()
	*b = bodyHash{canon: c, h: b.h, out: b.out[:0]}
	return b
}

// release gives the hash back. It must not be used after.
func (b *bodyHash) release() { bodyPool.Put(b) }

// Write takes the next octets of the body.
func (b *bodyHash) Write(p []byte) (int, error) {
	if b.canon == relaxed {
		b.relaxed(p)
	} else {
		b.simple(p)
	}
	return len(p), nil
}

func (b *bodyHash) simple(p []byte) {
	for len(p) > 0 {
		if b.cr {
			b.cr = false
			if p[0] != '\n' {
				b.text([]byte{'\r'})
			}
		}
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			if p[len(p)-1] == '\r' {
				b.cr = true
				p = p[:len(p)-1]
			}
			b.text(p)
			return
		}
		line := p[:i]
		if i > 0 && line[i-1] == '\r' {
			line = line[:i-1]
		}
		b.text(line)
		b.crlfs++
		p = p[i+1:]
	}
}

// relaxed goes by lines: most need no change and are taken whole.
func (b *bodyHash) relaxed(p []byte) {
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			b.words(p)
			return
		}
		line := p[:i]
		if i > 0 && line[i-1] == '\r' {
			line = line[:i-1]
		}
		if n := len(line); n > 0 && !b.cr && !b.space && line[n-1] != ' ' && isPlain(line) {
			b.text(line)
			b.crlfs++
		} else {
			b.words(p[:i+1])
		}
		p = p[i+1:]
	}
}

// isPlain reports whether white space in a line is single spaces only, and there is no CR. It looks
// at eight octets at a time: this is where the time goes that hashing does not take.
func isPlain(line []byte) bool {
	const spaces, tabs, crs = 0x2020202020202020, 0x0909090909090909, 0x0d0d0d0d0d0d0d0d
	last := uint64(0) // 0x80 if the octet before was a space
	for len(line) >= 8 {
		w := binary.LittleEndian.Uint64(line)
		s := zeros(w ^ spaces)
		if s&(s<<8|last)|zeros(w^tabs)|zeros(w^crs) != 0 {
			return false
		}
		last = s >> 56
		line = line[8:]
	}
	for _, c := range line {
		space := uint64(0)
		if c == ' ' {
			space = 0x80
		}
		if space&last != 0 || c == '\t' || c == '\r' {
			return false
		}
		last = space
	}
	return true
}

// zeros returns a word with the top bit set in each octet that is zero in w.
func zeros(w uint64) uint64 {
	const low = 0x7f7f7f7f7f7f7f7f
	return ^(w&low + low | w | low)
}

// words goes by runs of octets that stay as they are.
func (b *bodyHash) words(p []byte) {
	for i := 0; i < len(p); {
		c := p[i]
		if b.cr {
			b.cr = false
			if c != '\n' {
				b.text([]byte{'\r'})
			}
		}
		switch c {
		case ' ', '\t':
			b.space = true
			i++
		case '\r':
			b.cr = true
			i++
		case '\n':
			b.space = false
			b.crlfs++
			i++
		default:
			start := i
			for i < len(p) && !isFWS(p[i]) {
				i++
			}
			b.text(p[start:i])
		}
	}
}

// text writes octets that are no line end, and before them what was held back.
func (b *bodyHash) text(p []byte) {
	if len(p) == 0 {
		return
	}
	for ; b.crlfs > 0; b.crlfs-- {
		b.put("\r\n")
	}
	if b.space {
		b.space = false
		b.put(" ")
	}
	b.any = true
	if len(b.out)+len(p) > cap(b.out) {
		b.flush()
		if len(p) >= cap(b.out) {
			b.h.Write(p)
			return
		}
	}
	b.out = append(b.out, p...)
}

func (b *bodyHash) put(s string) {
	if len(b.out)+len(s) > cap(b.out) {
		b.flush()
	}
	b.out = append(b.out, s...)
}

func (b *bodyHash) flush() {
	b.h.Write(b.out)
	b.out = b.out[:0]
}

// sum ends the body and returns its hash. A simple body has at least one line end, a relaxed one
// none if it is empty.
func (b *bodyHash) sum() []byte {
	if b.cr {
		b.cr = false
		b.text([]byte{'\r'})
	}
	if b.any || b.canon == simple {
		b.put("\r\n")
	}
	b.flush()
	return b.h.Sum(nil)
}

// bodyHashes are the hashes of one body that signatures ask for, each made once.
type bodyHashes [canons]*bodyHash

func (b *bodyHashes) want(c canon) {
	if b[c] == nil {
		b[c] = newBodyHash(c)
	}
}

// sums ends the body and returns the hashes that were asked for.
func (b *bodyHashes) sums() (sums [canons][]byte) {
	for c, h := range b {
		if h != nil {
			sums[c] = h.sum()
		}
	}
	b.release()
	return sums
}

func (b *bodyHashes) release() {
	for c, h := range b {
		if h != nil {
			h.release()
			b[c] = nil
		}
	}
}

func (b *bodyHashes) Write(p []byte) (int, error) {
	for _, h := range b {
		if h != nil {
			h.Write(p)
		}
	}
	return len(p), nil
}
