package addrbook

import (
	"crypto/sha256"
	"errors"
	"math/bits"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

// ASMap says which autonomous system an IP address belongs to: addresses of one system are likely in one
// hand, however far their numbers lie apart. It is a program for a small machine that follows the bits of
// an address (Bitcoin Core util/asmap.cpp):
//
//	RETURN n   the system is n
//	JUMP n     if the next bit of the address is 1, skip n bits of the program
//	MATCH b    if the next bits of the address are not b, the system is the default
//	DEFAULT n  n is the default from here on
//
// A nil ASMap knows of no system. It does not change, so that many goroutines may use it.
type ASMap struct {
	code    []byte // the lowest bit of an octet comes first
	version bitcoin.Hash
}

// The instructions of the program.
const (
	asReturn = iota
	asJump
	asMatch
	asDefault
)

// addrBits is the length of the addresses that the program is for: those of IPv6, and those of IPv4 in them.
const addrBits = 128

// errBadMap says that a file is no map, or one that could lead astray.
var errBadMap = errors.New("the map of autonomous systems is not well-formed")

// noNumber stands for a number that goes beyond the end of the program.
const noNumber = 1<<32 - 1

// ParseASMap reads a file such as Core's -asmap takes. What it returns has been checked: no address leads it
// past its end or around in circles.
func ParseASMap(file []byte) (*ASMap, error) {
	m := &ASMap{code: file}
	if !m.sane() {
		return nil, errBadMap
	}
	// Core hashes its vector of bits, each as an octet of its own.
	h := sha256.New()
	h.Write(bitcoin.AppendCompactSize(nil, uint64(8*len(file))))
	var octets [8]byte
	for _, b := range file {
		for i := range octets {
			octets[i] = b >> i & 1
		}
		h.Write(octets[:])
	}
	m.version = sha256.Sum256(h.Sum(nil))
	return m, nil
}

// Version names the map, and is zero where there is none: a book that was filed with another one has its
// addresses in other buckets.
func (m *ASMap) Version() bitcoin.Hash {
	if m == nil {
		return bitcoin.Hash{}
	}
	return m.version
}

// System returns the number of the autonomous system of an address, 0 where it is not known or the address
// is none of IPv4 or IPv6.
func (m *ASMap) System(a wire.Addr) uint32 {
	if c := class(a); m == nil || c != 1 && c != 2 {
		return 0
	}
	ip := [16]byte{10: 0xff, 11: 0xff}
	if v4, ok := a.LinkedIPv4(); ok {
		copy(ip[12:], v4[:])
	} else {
		copy(ip[:], a.Bytes())
	}
	return m.run(&ip)
}

// run lets the program follow an address.
func (m *ASMap) run(ip *[16]byte) (system uint32) {
	r := asReader{code: m.code}
	at := 0
	next := func() int {
		b := int(ip[at/8] >> (7 - at%8) & 1)
		at++
		return b
	}
	for !r.end() {
		switch r.instruction() {
		case asReturn:
			return r.system()
		case asJump:
			skip := r.jump()
			if at == addrBits || int64(skip) >= int64(r.left()) {
				return 0 // not in a map that is sane
			}
			if next() == 1 {
				r.at += int(skip)
			}
		case asMatch:
			pattern := r.match()
			n := bits.Len32(pattern) - 1
			if pattern == noNumber || at+n > addrBits {
				return 0
			}
			for i := n - 1; i >= 0; i-- {
				if next() != int(pattern>>i&1) {
					return system
				}
			}
		case asDefault:
			system = r.system()
		default:
			return 0
		}
	}
	return 0
}

// asTarget is where a jump leads, and how many bits of the address are left there.
type asTarget struct{ at, left int }

// sane reports whether every address leads to an answer, and the map has nothing that none leads to.
func (m *ASMap) sane() bool {
	r := asReader{code: m.code}
	var targets []asTarget // the nearest one last
	left, before, partial := addrBits, asJump, false
	for !r.end() {
		if k := len(targets); k > 0 && r.at >= targets[k-1].at {
			return false // a jump into an instruction
		}
		op := r.instruction()
		switch op {
		case asReturn:
			if before == asDefault || r.system() == noNumber {
				return false
			}
			k := len(targets)
			if k == 0 {
				return r.padding()
			}
			if r.at != targets[k-1].at {
				return false // what follows is never reached
			}
			left, targets = targets[k-1].left, targets[:k-1]
			op = asJump
		case asJump:
			skip := r.jump()
			if skip == noNumber || int64(skip) > int64(r.left()) || left == 0 {
				return false
			}
			left--
			to := r.at + int(skip)
			if k := len(targets); k > 0 && to >= targets[k-1].at {
				return false // jumps that cross
			}
			targets = append(targets, asTarget{to, left})
		case asMatch:
			pattern := r.match()
			n := bits.Len32(pattern) - 1
			// Of matches in a row only one may have less than eight bits.
			if before != asMatch {
				partial = false
			}
			if pattern == noNumber || n < 8 && partial || left < n {
				return false
			}
			partial = n < 8
			left -= n
		case asDefault:
			if before == asDefault || r.system() == noNumber {
				return false
			}
		default:
			return false
		}
		before = op
	}
	return false
}

// asReader reads the program.
type asReader struct {
	code []byte
	at   int // bits
}

func (r *asReader) left() int { return 8*len(r.code) - r.at }

func (r *asReader) end() bool { return r.left() == 0 }

func (r *asReader) bit() uint32 {
	b := uint32(r.code[r.at/8] >> (r.at % 8) & 1)
	r.at++
	return b
}

// padding reports whether only what fills the last octet is left.
func (r *asReader) padding() bool {
	if r.left() > 7 {
		return false
	}
	for !r.end() {
		if r.bit() != 0 {
			return false
		}
	}
	return true
}

func (r *asReader) instruction() int {
	n := r.number(0, 0, 0, 1)
	if n == noNumber {
		return -1
	}
	return int(n)
}

func (r *asReader) system() uint32 { return r.number(1, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24) }

func (r *asReader) match() uint32 { return r.number(2, 1, 2, 3, 4, 5, 6, 7, 8) }

func (r *asReader) jump() uint32 {
	return r.number(17, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
		27, 28, 29, 30)
}

// number reads a number of at least lowest: one bits up to the class whose width it has, a zero but in the
// last class, and then that many bits, the highest first.
func (r *asReader) number(lowest uint32, widths ...int) uint32 {
	n := lowest
	for i, w := range widths {
		more := uint32(0)
		if i+1 < len(widths) {
			if r.end() {
				return noNumber
			}
			more = r.bit()
		}
		if more == 1 {
			n += 1 << w
			continue
		}
		if r.left() < w {
			return noNumber
		}
		for b := w - 1; b >= 0; b-- {
			n += r.bit() << b
		}
		return n
	}
	return noNumber
}
