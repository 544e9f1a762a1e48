package script

import (
	"encoding/binary"
	"math/bits"
)

// ripemd160 returns the RIPEMD-160 of b (Dobbertin, Bosselaers and Preneel, 1996, appendix A). It
// is here because the standard library has none, and golang.org/x/crypto's is frozen and makes an
// object for each hash.
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

// The functions of the five rounds; the right line has them the other way round.
func ripemd1(x, y, z uint32) uint32 { return x ^ y ^ z }
func ripemd2(x, y, z uint32) uint32 { return z ^ x&(y^z) }
func ripemd3(x, y, z uint32) uint32 { return (x | ^y) ^ z }
func ripemd4(x, y, z uint32) uint32 { return y ^ z&(x^y) }
func ripemd5(x, y, z uint32) uint32 { return x ^ (y | ^z) }

// ripemdStep mixes the round's function f and the word x, to which the round's constant was added,
// into a and rotates c.
func ripemdStep(a, c, e, f, x uint32, rotate int) (uint32, uint32) {
	return bits.RotateLeft32(a+f+x, rotate) + e, bits.RotateLeft32(c, 10)
}

// ripemdBlock hashes a block in two lines of 80 steps, each in five rounds. The steps are written
// out, left and right by turns, so that the five words of a line change names instead of places.
func ripemdBlock(state *[5]uint32, block *[64]byte) {
	var x [16]uint32
	for i := range x {
		x[i] = binary.LittleEndian.Uint32(block[4*i:])
	}
	la, lb, lc, ld, le := state[0], state[1], state[2], state[3], state[4]
	ra, rb, rc, rd, re := la, lb, lc, ld, le

	// Round 1.
	la, lc = ripemdStep(la, lc, le, ripemd1(lb, lc, ld), x[0], 11)
	ra, rc = ripemdStep(ra, rc, re, ripemd5(rb, rc, rd), x[5]+0x50a28be6, 8)
	le, lb = ripemdStep(le, lb, ld, ripemd1(la, lb, lc), x[1], 14)
	re, rb = ripemdStep(re, rb, rd, ripemd5(ra, rb, rc), x[14]+0x50a28be6, 9)
	ld, la = ripemdStep(ld, la, lc, ripemd1(le, la, lb), x[2], 15)
	rd, ra = ripemdStep(rd, ra, rc, ripemd5(re, ra, rb), x[7]+0x50a28be6, 9)
	lc, le = ripemdStep(lc, le, lb, ripemd1(ld, le, la), x[3], 12)
	rc, re = ripemdStep(rc, re, rb, ripemd5(rd, re, ra), x[0]+0x50a28be6, 11)
	lb, ld = ripemdStep(lb, ld, la, ripemd1(lc, ld, le), x[4], 5)
	rb, rd = ripemdStep(rb, rd, ra, ripemd5(rc, rd, re), x[9]+0x50a28be6, 13)
	la, lc = ripemdStep(la, lc, le, ripemd1(lb, lc, ld), x[5], 8)
	ra, rc = ripemdStep(ra, rc, re, ripemd5(rb, rc, rd), x[2]+0x50a28be6, 15)
	le, lb = ripemdStep(le, lb, ld, ripemd1(la, lb, lc), x[6], 7)
	re, rb = ripemdStep(re, rb, rd, ripemd5(ra, rb, rc), x[11]+0x50a28be6, 15)
	ld, la = ripemdStep(ld, la, lc, ripemd1(le, la, lb), x[7], 9)
	rd, ra = ripemdStep(rd, ra, rc, ripemd5(re, ra, rb), x[4]+0x50a28be6, 5)
	lc, le = ripemdStep(lc, le, lb, ripemd1(ld, le, la), x[8], 11)
	rc, re = ripemdStep(rc, re, rb, ripemd5(rd, re, ra), x[13]+0x50a28be6, 7)
	lb, ld = ripemdStep(lb, ld, la, ripemd1(lc, ld, le), x[9], 13)
	rb, rd = ripemdStep(rb, rd, ra, ripemd5(rc, rd, re), x[6]+0x50a28be6, 7)
	la, lc = ripemdStep(la, lc, le, ripemd1(lb, lc, ld), x[10], 14)
	ra, rc = ripemdStep(ra, rc, re, ripemd5(rb, rc, rd), x[15]+0x50a28be6, 8)
	le, lb = ripemdStep(le, lb, ld, ripemd1(la, lb, lc), x[11], 15)
	re, rb = ripemdStep(re, rb, rd, ripemd5(ra, rb, rc), x[8]+0x50a28be6, 11)
	ld, la = ripemdStep(ld, la, lc, ripemd1(le, la, lb), x[12], 6)
	rd, ra = ripemdStep(rd, ra, rc, ripemd5(re, ra, rb), x[1]+0x50a28be6, 14)
	lc, le = ripemdStep(lc, le, lb, ripemd1(ld, le, la), x[13], 7)
	rc, re = ripemdStep(rc, re, rb, ripemd5(rd, re, ra), x[10]+0x50a28be6, 14)
	lb, ld = ripemdStep(lb, ld, la, ripemd1(lc, ld, le), x[14], 9)
	rb, rd = ripemdStep(rb, rd, ra, ripemd5(rc, rd, re), x[3]+0x50a28be6, 12)
	la, lc = ripemdStep(la, lc, le, ripemd1(lb, lc, ld), x[15], 8)
	ra, rc = ripemdStep(ra, rc, re, ripemd5(rb, rc, rd), x[12]+0x50a28be6, 6)

	// Round 2.
	le, lb = ripemdStep(le, lb, ld, ripemd2(la, lb, lc), x[7]+0x5a827999, 7)
	re, rb = ripemdStep(re, rb, rd, ripemd4(ra, rb, rc), x[6]+0x5c4dd124, 9)
	ld, la = ripemdStep(ld, la, lc, ripemd2(le, la, lb), x[4]+0x5a827999, 6)
	rd, ra = ripemdStep(rd, ra, rc, ripemd4(re, ra, rb), x[11]+0x5c4dd124, 13)
	lc, le = ripemdStep(lc, le, lb, ripemd2(ld, le, la), x[13]+0x5a827999, 8)
	rc, re = ripemdStep(rc, re, rb, ripemd4(rd, re, ra), x[3]+0x5c4dd124, 15)
	lb, ld = ripemdStep(lb, ld, la, ripemd2(lc, ld, le), x[1]+0x5a827999, 13)
	rb, rd = ripemdStep(rb, rd, ra, ripemd4(rc, rd, re), x[7]+0x5c4dd124, 7)
	la, lc = ripemdStep(la, lc, le, ripemd2(lb, lc, ld), x[10]+0x5a827999, 11)
	ra, rc = ripemdStep(ra, rc, re, ripemd4(rb, rc, rd), x[0]+0x5c4dd124, 12)
	le, lb = ripemdStep(le, lb, ld, ripemd2(la, lb, lc), x[6]+0x5a827999, 9)
	re, rb = ripemdStep(re, rb, rd, ripemd4(ra, rb, rc), x[13]+0x5c4dd124, 8)
	ld, la = ripemdStep(ld, la, lc, ripemd2(le, la, lb), x[15]+0x5a827999, 7)
	rd, ra = ripemdStep(rd, ra, rc, ripemd4(re, ra, rb), x[5]+0x5c4dd124, 9)
	lc, le = ripemdStep(lc, le, lb, ripemd2(ld, le, la), x[3]+0x5a827999, 15)
	rc, re = ripemdStep(rc, re, rb, ripemd4(rd, re, ra), x[10]+0x5c4dd124, 11)
	lb, ld = ripemdStep(lb, ld, la, ripemd2(lc, ld, le), x[12]+0x5a827999, 7)
	rb, rd = ripemdStep(rb, rd, ra, ripemd4(rc, rd, re), x[14]+0x5c4dd124, 7)
	la, lc = ripemdStep(la, lc, le, ripemd2(lb, lc, ld), x[0]+0x5a827999, 12)
	ra, rc = ripemdStep(ra, rc, re, ripemd4(rb, rc, rd), x[15]+0x5c4dd124, 7)
	le, lb = ripemdStep(le, lb, ld, ripemd2(la, lb, lc), x[9]+0x5a827999, 15)
	re, rb = ripemdStep(re, rb, rd, ripemd4(ra, rb, rc), x[8]+0x5c4dd124, 12)
	ld, la = ripemdStep(ld, la, lc, ripemd2(le, la, lb), x[5]+0x5a827999, 9)
	rd, ra = ripemdStep(rd, ra, rc, ripemd4(re, ra, rb), x[12]+0x5c4dd124, 7)
	lc, le = ripemdStep(lc, le, lb, ripemd2(ld, le, la), x[2]+0x5a827999, 11)
	rc, re = ripemdStep(rc, re, rb, ripemd4(rd, re, ra), x[4]+0x5c4dd124, 6)
	lb, ld = ripemdStep(lb, ld, la, ripemd2(lc, ld, le), x[14]+0x5a827999, 7)
	rb, rd = ripemdStep(rb, rd, ra, ripemd4(rc, rd, re), x[9]+0x5c4dd124, 15)
	la, lc = ripemdStep(la, lc, le, ripemd2(lb, lc, ld), x[11]+0x5a827999, 13)
	ra, rc = ripemdStep(ra, rc, re, ripemd4(rb, rc, rd), x[1]+0x5c4dd124, 13)
	le, lb = ripemdStep(le, lb, ld, ripemd2(la, lb, lc), x[8]+0x5a827999, 12)
	re, rb = ripemdStep(re, rb, rd, ripemd4(ra, rb, rc), x[2]+0x5c4dd124, 11)

	// Round 3.
	ld, la = ripemdStep(ld, la, lc, ripemd3(le, la, lb), x[3]+0x6ed9eba1, 11)
	rd, ra = ripemdStep(rd, ra, rc, ripemd3(re, ra, rb), x[15]+0x6d703ef3, 9)
	lc, le = ripemdStep(lc, le, lb, ripemd3(ld, le, la), x[10]+0x6ed9eba1, 13)
	rc, re = ripemdStep(rc, re, rb, ripemd3(rd, re, ra), x[5]+0x6d703ef3, 7)
	lb, ld = ripemdStep(lb, ld, la, ripemd3(lc, ld, le), x[14]+0x6ed9eba1, 6)
	rb, rd = ripemdStep(rb, rd, ra, ripemd3(rc, rd, re), x[1]+0x6d703ef3, 15)
	la, lc = ripemdStep(la, lc, le, ripemd3(lb, lc, ld), x[4]+0x6ed9eba1, 7)
	ra, rc = ripemdStep(ra, rc, re, ripemd3(rb, rc, rd), x[3]+0x6d703ef3, 11)
	le, lb = ripemdStep(le, lb, ld, ripemd3(la, lb, lc), x[9]+0x6ed9eba1, 14)
	re, rb = ripemdStep(re, rb, rd, ripemd3(ra, rb, rc), x[7]+0x6d703ef3, 8)
	ld, la = ripemdStep(ld, la, lc, ripemd3(le, la, lb), x[15]+0x6ed9eba1, 9)
	rd, ra = ripemdStep(rd, ra, rc, ripemd3(re, ra, rb), x[14]+0x6d703ef3, 6)
	lc, le = ripemdStep(lc, le, lb, ripemd3(ld, le, la), x[8]+0x6ed9eba1, 13)
	rc, re = ripemdStep(rc, re, rb, ripemd3(rd, re, ra), x[6]+0x6d703ef3, 6)
	lb, ld = ripemdStep(lb, ld, la, ripemd3(lc, ld, le), x[1]+0x6ed9eba1, 15)
	rb, rd = ripemdStep(rb, rd, ra, ripemd3(rc, rd, re), x[9]+0x6d703ef3, 14)
	la, lc = ripemdStep(la, lc, le, ripemd3(lb, lc, ld), x[2]+0x6ed9eba1, 14)
	ra, rc = ripemdStep(ra, rc, re, ripemd3(rb, rc, rd), x[11]+0x6d703ef3, 12)
	le, lb = ripemdStep(le, lb, ld, ripemd3(la, lb, lc), x[7]+0x6ed9eba1, 8)
	re, rb = ripemdStep(re, rb, rd, ripemd3(ra, rb, rc), x[8]+0x6d703ef3, 13)
	ld, la = ripemdStep(ld, la, lc, ripemd3(le, la, lb), x[0]+0x6ed9eba1, 13)
	rd, ra = ripemdStep(rd, ra, rc, ripemd3(re, ra, rb), x[12]+0x6d703ef3, 5)
	lc, le = ripemdStep(lc, le, lb, ripemd3(ld, le, la), x[6]+0x6ed9eba1, 6)
	rc, re = ripemdStep(rc, re, rb, ripemd3(rd, re, ra), x[2]+0x6d703ef3, 14)
	lb, ld = ripemdStep(lb, ld, la, ripemd3(lc, ld, le), x[13]+0x6ed9eba1, 5)
	rb, rd = ripemdStep(rb, rd, ra, ripemd3(rc, rd, re), x[10]+0x6d703ef3, 13)
	la, lc = ripemdStep(la, lc, le, ripemd3(lb, lc, ld), x[11]+0x6ed9eba1, 12)
	ra, rc = ripemdStep(ra, rc, re, ripemd3(rb, rc, rd), x[0]+0x6d703ef3, 13)
	le, lb = ripemdStep(le, lb, ld, ripemd3(la, lb, lc), x[5]+0x6ed9eba1, 7)
	re, rb = ripemdStep(re, rb, rd, ripemd3(ra, rb, rc), x[4]+0x6d703ef3, 7)
	ld, la = ripemdStep(ld, la, lc, ripemd3(le, la, lb), x[12]+0x6ed9eba1, 5)
	rd, ra = ripemdStep(rd, ra, rc, ripemd3(re, ra, rb), x[13]+0x6d703ef3, 5)

	// Round 4.
	lc, le = ripemdStep(lc, le, lb, ripemd4(ld, le, la), x[1]+0x8f1bbcdc, 11)
	rc, re = ripemdStep(rc, re, rb, ripemd2(rd, re, ra), x[8]+0x7a6d76e9, 15)
	lb, ld = ripemdStep(lb, ld, la, ripemd4(lc, ld, le), x[9]+0x8f1bbcdc, 12)
	rb, rd = ripemdStep(rb, rd, ra, ripemd2(rc, rd, re), x[6]+0x7a6d76e9, 5)
	la, lc = ripemdStep(la, lc, le, ripemd4(lb, lc, ld), x[11]+0x8f1bbcdc, 14)
	ra, rc = ripemdStep(ra, rc, re, ripemd2(rb, rc, rd), x[4]+0x7a6d76e9, 8)
	le, lb = ripemdStep(le, lb, ld, ripemd4(la, lb, lc), x[10]+0x8f1bbcdc, 15)
	re, rb = ripemdStep(re, rb, rd, ripemd2(ra, rb, rc), x[1]+0x7a6d76e9, 11)
	ld, la = ripemdStep(ld, la, lc, ripemd4(le, la, lb), x[0]+0x8f1bbcdc, 14)
	rd, ra = ripemdStep(rd, ra, rc, ripemd2(re, ra, rb), x[3]+0x7a6d76e9, 14)
	lc, le = ripemdStep(lc, le, lb, ripemd4(ld, le, la), x[8]+0x8f1bbcdc, 15)
	rc, re = ripemdStep(rc, re, rb, ripemd2(rd, re, ra), x[11]+0x7a6d76e9, 14)
	lb, ld = ripemdStep(lb, ld, la, ripemd4(lc, ld, le), x[12]+0x8f1bbcdc, 9)
	rb, rd = ripemdStep(rb, rd, ra, ripemd2(rc, rd, re), x[15]+0x7a6d76e9, 6)
	la, lc = ripemdStep(la, lc, le, ripemd4(lb, lc, ld), x[4]+0x8f1bbcdc, 8)
	ra, rc = ripemdStep(ra, rc, re, ripemd2(rb, rc, rd), x[0]+0x7a6d76e9, 14)
	le, lb = ripemdStep(le, lb, ld, ripemd4(la, lb, lc), x[13]+0x8f1bbcdc, 9)
	re, rb = ripemdStep(re, rb, rd, ripemd2(ra, rb, rc), x[5]+0x7a6d76e9, 6)
	ld, la = ripemdStep(ld, la, lc, ripemd4(le, la, lb), x[3]+0x8f1bbcdc, 14)
	rd, ra = ripemdStep(rd, ra, rc, ripemd2(re, ra, rb), x[12]+0x7a6d76e9, 9)
	lc, le = ripemdStep(lc, le, lb, ripemd4(ld, le, la), x[7]+0x8f1bbcdc, 5)
	rc, re = ripemdStep(rc, re, rb, ripemd2(rd, re, ra), x[2]+0x7a6d76e9, 12)
	lb, ld = ripemdStep(lb, ld, la, ripemd4(lc, ld, le), x[15]+0x8f1bbcdc, 6)
	rb, rd = ripemdStep(rb, rd, ra, ripemd2(rc, rd, re), x[13]+0x7a6d76e9, 9)
	la, lc = ripemdStep(la, lc, le, ripemd4(lb, lc, ld), x[14]+0x8f1bbcdc, 8)
	ra, rc = ripemdStep(ra, rc, re, ripemd2(rb, rc, rd), x[9]+0x7a6d76e9, 12)
	le, lb = ripemdStep(le, lb, ld, ripemd4(la, lb, lc), x[5]+0x8f1bbcdc, 6)
	re, rb = ripemdStep(re, rb, rd, ripemd2(ra, rb, rc), x[7]+0x7a6d76e9, 5)
	ld, la = ripemdStep(ld, la, lc, ripemd4(le, la, lb), x[6]+0x8f1bbcdc, 5)
	rd, ra = ripemdStep(rd, ra, rc, ripemd2(re, ra, rb), x[10]+0x7a6d76e9, 15)
	lc, le = ripemdStep(lc, le, lb, ripemd4(ld, le, la), x[2]+0x8f1bbcdc, 12)
	rc, re = ripemdStep(rc, re, rb, ripemd2(rd, re, ra), x[14]+0x7a6d76e9, 8)

	// Round 5.
	lb, ld = ripemdStep(lb, ld, la, ripemd5(lc, ld, le), x[4]+0xa953fd4e, 9)
	rb, rd = ripemdStep(rb, rd, ra, ripemd1(rc, rd, re), x[12], 8)
	la, lc = ripemdStep(la, lc, le, ripemd5(lb, lc, ld), x[0]+0xa953fd4e, 15)
	ra, rc = ripemdStep(ra, rc, re, ripemd1(rb, rc, rd), x[15], 5)
	le, lb = ripemdStep(le, lb, ld, ripemd5(la, lb, lc), x[5]+0xa953fd4e, 5)
	re, rb = ripemdStep(re, rb, rd, ripemd1(ra, rb, rc), x[10], 12)
	ld, la = ripemdStep(ld, la, lc, ripemd5(le, la, lb), x[9]+0xa953fd4e, 11)
	rd, ra = ripemdStep(rd, ra, rc, ripemd1(re, ra, rb), x[4], 9)
	lc, le = ripemdStep(lc, le, lb, ripemd5(ld, le, la), x[7]+0xa953fd4e, 6)
	rc, re = ripemdStep(rc, re, rb, ripemd1(rd, re, ra), x[1], 12)
	lb, ld = ripemdStep(lb, ld, la, ripemd5(lc, ld, le), x[12]+0xa953fd4e, 8)
	rb, rd = ripemdStep(rb, rd, ra, ripemd1(rc, rd, re), x[5], 5)
	la, lc = ripemdStep(la, lc, le, ripemd5(lb, lc, ld), x[2]+0xa953fd4e, 13)
	ra, rc = ripemdStep(ra, rc, re, ripemd1(rb, rc, rd), x[8], 14)
	le, lb = ripemdStep(le, lb, ld, ripemd5(la, lb, lc), x[10]+0xa953fd4e, 12)
	re, rb = ripemdStep(re, rb, rd, ripemd1(ra, rb, rc), x[7], 6)
	ld, la = ripemdStep(ld, la, lc, ripemd5(le, la, lb), x[14]+0xa953fd4e, 5)
	rd, ra = ripemdStep(rd, ra, rc, ripemd1(re, ra, rb), x[6], 8)
	lc, le = ripemdStep(lc, le, lb, ripemd5(ld, le, la), x[1]+0xa953fd4e, 12)
	rc, re = ripemdStep(rc, re, rb, ripemd1(rd, re, ra), x[2], 13)
	lb, ld = ripemdStep(lb, ld, la, ripemd5(lc, ld, le), x[3]+0xa953fd4e, 13)
	rb, rd = ripemdStep(rb, rd, ra, ripemd1(rc, rd, re), x[13], 6)
	la, lc = ripemdStep(la, lc, le, ripemd5(lb, lc, ld), x[8]+0xa953fd4e, 14)
	ra, rc = ripemdStep(ra, rc, re, ripemd1(rb, rc, rd), x[14], 5)
	le, lb = ripemdStep(le, lb, ld, ripemd5(la, lb, lc), x[11]+0xa953fd4e, 11)
	re, rb = ripemdStep(re, rb, rd, ripemd1(ra, rb, rc), x[0], 15)
	ld, la = ripemdStep(ld, la, lc, ripemd5(le, la, lb), x[6]+0xa953fd4e, 8)
	rd, ra = ripemdStep(rd, ra, rc, ripemd1(re, ra, rb), x[3], 13)
	lc, le = ripemdStep(lc, le, lb, ripemd5(ld, le, la), x[15]+0xa953fd4e, 5)
	rc, re = ripemdStep(rc, re, rb, ripemd1(rd, re, ra), x[9], 11)
	lb, ld = ripemdStep(lb, ld, la, ripemd5(lc, ld, le), x[13]+0xa953fd4e, 6)
	rb, rd = ripemdStep(rb, rd, ra, ripemd1(rc, rd, re), x[11], 11)

	*state = [5]uint32{
		state[1] + lc + rd, state[2] + ld + re, state[3] + le + ra, state[4] + la + rb,
		state[0] + lb + rc,
	}
}
