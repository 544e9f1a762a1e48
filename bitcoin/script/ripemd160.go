package script

import (
	"encoding/binary"
	"math/bits"
)

// ripemd160 returns the RIPEMD-160 of b (Dobbertin, Bosselaers and Preneel, 1996, appendix A). It
// is here because the standard library has none, and golang.org/x/crypto's is frozen and makes an
// object per hash.
func ripemd160(b []byte) [20]byte {
	state := [5]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0}
	length := uint64(len(b))
	for ; len(b) >= 64; b = b[64:] {
		ripemdBlock(&state, (*[64]byte)(b))
	}
	var last [128]byte
	n := copy(last[:], b)
	last[n] = 0x80
	end := 64
	if n+9 > 64 {
		end = 128
	}
	binary.LittleEndian.PutUint64(last[end-8:], length*8)
	for i := 0; i < end; i += 64 {
		ripemdBlock(&state, (*[64]byte)(last[i:]))
	}
	var sum [20]byte
	for i, word := range state {
		binary.LittleEndian.PutUint32(sum[4*i:], word)
	}
	return sum
}

// The order in which the two lines take the words of a block, and by how much they rotate, five
// rounds of sixteen steps each. Word and rotation stand together: word in the high half, rotation
// in the low half.
var ripemdLeft, ripemdRight = ripemdSteps(
	[80]byte{
		0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
		7, 4, 13, 1, 10, 6, 15, 3, 12, 0, 9, 5, 2, 14, 11, 8,
		3, 10, 14, 4, 9, 15, 8, 1, 2, 7, 0, 6, 13, 11, 5, 12,
		1, 9, 11, 10, 0, 8, 12, 4, 13, 3, 7, 15, 14, 5, 6, 2,
		4, 0, 5, 9, 7, 12, 2, 10, 14, 1, 3, 8, 11, 6, 15, 13,
	}, [80]byte{
		11, 14, 15, 12, 5, 8, 7, 9, 11, 13, 14, 15, 6, 7, 9, 8,
		7, 6, 8, 13, 11, 9, 7, 15, 7, 12, 15, 9, 11, 7, 13, 12,
		11, 13, 6, 7, 14, 9, 13, 15, 14, 8, 13, 6, 5, 12, 7, 5,
		11, 12, 14, 15, 14, 15, 9, 8, 9, 14, 5, 6, 8, 6, 5, 12,
		9, 15, 5, 11, 6, 8, 13, 12, 5, 12, 13, 14, 11, 8, 5, 6,
	}), ripemdSteps(
	[80]byte{
		5, 14, 7, 0, 9, 2, 11, 4, 13, 6, 15, 8, 1, 10, 3, 12,
		6, 11, 3, 7, 0, 13, 5, 10, 14, 15, 8, 12, 4, 9, 1, 2,
		15, 5, 1, 3, 7, 14, 6, 9, 11, 8, 12, 2, 10, 0, 4, 13,
		8, 6, 4, 1, 3, 11, 15, 0, 5, 12, 2, 13, 9, 7, 10, 14,
		12, 15, 10, 4, 1, 5, 8, 7, 6, 2, 13, 14, 0, 3, 9, 11,
	}, [80]byte{
		8, 9, 9, 11, 13, 15, 15, 5, 7, 7, 8, 11, 14, 14, 12, 6,
		9, 13, 15, 7, 12, 8, 9, 11, 7, 7, 12, 7, 6, 15, 13, 11,
		9, 7, 15, 11, 8, 6, 6, 14, 12, 13, 5, 14, 13, 13, 7, 5,
		15, 5, 8, 11, 14, 14, 6, 14, 6, 9, 12, 9, 12, 5, 15, 8,
		8, 5, 12, 9, 12, 5, 14, 6, 8, 13, 6, 5, 15, 13, 11, 11,
	})

type ripemdStep struct{ word, rotate uint8 }

func ripemdSteps(words, rotations [80]byte) (steps [80]ripemdStep) {
	for i := range steps {
		steps[i] = ripemdStep{words[i], rotations[i]}
	}
	return steps
}

// ripemdLine is one of the two lines: five words that rotate through a step.
type ripemdLine struct{ a, b, c, d, e uint32 }

// step mixes a word of the block and the round's function of b, c and d into the line.
func (l *ripemdLine) step(f, x, k uint32, rotate uint8) {
	t := bits.RotateLeft32(l.a+f+x+k, int(rotate)) + l.e
	l.a, l.e, l.d, l.c, l.b = l.e, l.d, bits.RotateLeft32(l.c, 10), l.b, t
}

func ripemdBlock(state *[5]uint32, block *[64]byte) {
	var x [16]uint32
	for i := range x {
		x[i] = binary.LittleEndian.Uint32(block[4*i:])
	}
	l := ripemdLine{state[0], state[1], state[2], state[3], state[4]}
	r := l
	for i := 0; i < 16; i++ {
		p, q := ripemdLeft[i], ripemdRight[i]
		l.step(l.b^l.c^l.d, x[p.word&15], 0, p.rotate)
		r.step(r.b^(r.c|^r.d), x[q.word&15], 0x50a28be6, q.rotate)
	}
	for i := 16; i < 32; i++ {
		p, q := ripemdLeft[i], ripemdRight[i]
		l.step(l.b&l.c|^l.b&l.d, x[p.word&15], 0x5a827999, p.rotate)
		r.step(r.b&r.d|r.c&^r.d, x[q.word&15], 0x5c4dd124, q.rotate)
	}
	for i := 32; i < 48; i++ {
		p, q := ripemdLeft[i], ripemdRight[i]
		l.step((l.b|^l.c)^l.d, x[p.word&15], 0x6ed9eba1, p.rotate)
		r.step((r.b|^r.c)^r.d, x[q.word&15], 0x6d703ef3, q.rotate)
	}
	for i := 48; i < 64; i++ {
		p, q := ripemdLeft[i], ripemdRight[i]
		l.step(l.b&l.d|l.c&^l.d, x[p.word&15], 0x8f1bbcdc, p.rotate)
		r.step(r.b&r.c|^r.b&r.d, x[q.word&15], 0x7a6d76e9, q.rotate)
	}
	for i := 64; i < 80; i++ {
		p, q := ripemdLeft[i], ripemdRight[i]
		l.step(l.b^(l.c|^l.d), x[p.word&15], 0xa953fd4e, p.rotate)
		r.step(r.b^r.c^r.d, x[q.word&15], 0, q.rotate)
	}
	state[0], state[1], state[2], state[3], state[4] = state[1]+l.c+r.d, state[2]+l.d+r.e,
		state[3]+l.e+r.a, state[4]+l.a+r.b, state[0]+l.b+r.c
}
