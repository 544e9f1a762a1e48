package bitcoin

import (
	"math/rand/v2"
	"testing"
)

// TestSipHashVectors has results of the reference implementation for 00, 00 01, 00 01 02 and so on
// under the key 00 to 0f, as in Core's hash_tests.
func TestSipHashVectors(t *testing.T) {
	const k0, k1 = 0x0706050403020100, 0x0f0e0d0c0b0a0908
	want := []uint64{
		0x726fdb47dd0e0e31, 0x74f839c593dc67fd, 0x0d6c8009d9a94f5a, 0x85676696d7fb7e2d,
		0xcf2794e0277187b7, 0x18765564cd99a68d, 0xcbc9466e58fee3ce, 0xab0200f58b01d137,
		0x93f5f5799a932462, 0x9e0082df0ba9e4b0, 0x7a5dbbc594ddb9f3, 0xf4b32f46226bada7,
		0x751e8fbc860ee5fb, 0x14ea5627c0843d90, 0xf723ca908e7af2ee, 0xa129ca6149be45e5,
	}
	var b []byte
	for n, w := range want {
		if got := SipHash(k0, k1, b); got != w {
			t.Errorf("%d octets: %016x, want %016x", n, got, w)
		}
		b = append(b, byte(n))
	}
}

func TestSipHashOfHash(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		var h Hash
		for i := range h {
			h[i] = byte(r.Uint32())
		}
		k0, k1 := r.Uint64(), r.Uint64()
		if a, b := h.SipHash(k0, k1), SipHash(k0, k1, h[:]); a != b {
			t.Fatalf("%v: %016x and %016x", h, a, b)
		}
	}
}

func BenchmarkSipHashOfHash(b *testing.B) {
	h := DoubleHash(nil)
	for b.Loop() {
		h.SipHash(1, 2)
	}
}
