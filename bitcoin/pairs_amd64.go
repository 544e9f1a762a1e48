//go:build !purego

package bitcoin

import "math/bits"

// hashTwoPairs hashes, so many times, two pairs of nodes at src to two nodes at dst, which may lie
// before src or at it. It needs the SHA extensions.
//
//go:noescape
func hashTwoPairs(dst, src *byte, times int, tables *pairTables)

// cpuHasSHA reports whether the processor has the SHA extensions, SSSE3 and SSE4.1.
func cpuHasSHA() bool

var hasSHA = cpuHasSHA()

// hashPairs writes the double hash of each pair of nodes over the first half of nodes.
func hashPairs(nodes []Hash) {
	if !hasSHA {
		hashPairsGeneric(nodes)
		return
	}
	if twos := len(nodes) / 4; twos > 0 {
		hashTwoPairs(&nodes[0][0], &nodes[0][0], twos, &pairTable)
	}
	if len(nodes)%4 >= 2 {
		last := len(nodes) / 4 * 4
		nodes[last/2] = hashPair(&nodes[last], &nodes[last+1])
	}
}

// pairTables is what hashTwoPairs reads; it knows the places.
type pairTables struct {
	k       [64]uint32 // round constants
	padding [64]uint32 // the same plus the schedule of the block that pads 64 octets
	state   [8]uint32  // before any message, in the order F E B A, H G D C
	swap    [16]byte   // turns four words from big-endian
	tail    [8]uint32  // the words that pad 32 octets
}

var pairTable = newPairTables()

func newPairTables() (t pairTables) {
	t.k = roundConstants
	var w [64]uint32
	w[0], w[15] = 1<<31, 512
	for i := 16; i < len(w); i++ {
		a, b := w[i-15], w[i-2]
		s0 := bits.RotateLeft32(a, -7) ^ bits.RotateLeft32(a, -18) ^ a>>3
		s1 := bits.RotateLeft32(b, -17) ^ bits.RotateLeft32(b, -19) ^ b>>10
		w[i] = w[i-16] + s0 + w[i-7] + s1
	}
	for i := range w {
		t.padding[i] = w[i] + t.k[i]
	}
	const a, b, c, d = 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a
	const e, f, g, h = 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19
	t.state = [8]uint32{f, e, b, a, h, g, d, c}
	for i := range t.swap {
		t.swap[i] = byte(i ^ 3)
	}
	t.tail = [8]uint32{0: 1 << 31, 7: 256}
	return t
}

// roundConstants are those of FIPS 180-4, section 4.2.2: the fractions of the cube roots of the
// first 64 primes.
var roundConstants = [64]uint32{
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
}
