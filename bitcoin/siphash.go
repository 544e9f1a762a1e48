package bitcoin

import (
	"encoding/binary"
	"math/bits"
)

// SipHash returns the SipHash-2-4 of b under a key of two words. Whoever does not know the key
// cannot aim at collisions: short transaction ids (BIP 152), block filters (BIP 158) and tables
// that strangers fill use it.
func SipHash(k0, k1 uint64, b []byte) uint64 {
	s := newSip(k0, k1)
	n := len(b)
	for ; len(b) >= 8; b = b[8:] {
		s.word(binary.LittleEndian.Uint64(b))
	}
	last := uint64(n) << 56
	for i, c := range b {
		last |= uint64(c) << (8 * i)
	}
	s.word(last)
	return s.sum()
}

// SipHash returns the SipHash-2-4 of the hash's 32 octets.
func (h *Hash) SipHash(k0, k1 uint64) uint64 {
	s := newSip(k0, k1)
	s.word(binary.LittleEndian.Uint64(h[0:]))
	s.word(binary.LittleEndian.Uint64(h[8:]))
	s.word(binary.LittleEndian.Uint64(h[16:]))
	s.word(binary.LittleEndian.Uint64(h[24:]))
	s.word(32 << 56)
	return s.sum()
}

// sip is the state of SipHash: four words that mix.
type sip struct{ v0, v1, v2, v3 uint64 }

func newSip(k0, k1 uint64) sip {
	return sip{
		k0 ^ 0x736f6d6570736575,
		k1 ^ 0x646f72616e646f6d,
		k0 ^ 0x6c7967656e657261,
		k1 ^ 0x7465646279746573,
	}
}

func (s *sip) round() {
	s.v0 += s.v1
	s.v1 = bits.RotateLeft64(s.v1, 13) ^ s.v0
	s.v0 = bits.RotateLeft64(s.v0, 32)
	s.v2 += s.v3
	s.v3 = bits.RotateLeft64(s.v3, 16) ^ s.v2
	s.v0 += s.v3
	s.v3 = bits.RotateLeft64(s.v3, 21) ^ s.v0
	s.v2 += s.v1
	s.v1 = bits.RotateLeft64(s.v1, 17) ^ s.v2
	s.v2 = bits.RotateLeft64(s.v2, 32)
}

func (s *sip) word(m uint64) {
	s.v3 ^= m
	s.round()
	s.round()
	s.v0 ^= m
}

func (s *sip) sum() uint64 {
	s.v2 ^= 0xff
	for range 4 {
		s.round()
	}
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3
}
