package dkim

import (
	"bytes"
	"crypto/sha256"
	"hash"
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

func newBodyHash(c canon) *bodyHash {
	return &bodyHash{canon: c, h: sha256.New(), out: make([]byte, 0, 4096)}
}

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

// relaxed goes by runs of octets that stay as they are.
func (b *bodyHash) relaxed(p []byte) {
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

func (b *bodyHashes) Write(p []byte) (int, error) {
	for _, h := range b {
		if h != nil {
			h.Write(p)
		}
	}
	return len(p), nil
}
