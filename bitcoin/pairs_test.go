package bitcoin

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestHashPairs holds what this processor does against the plain way, for all counts up to some and
// for many nodes.
func TestHashPairs(t *testing.T) {
	r := rand.NewChaCha8([32]byte{1})
	for round := range 300 {
		n := round
		if round >= 100 {
			n = 4 * round
		}
		nodes := make([]Hash, n)
		for i := range nodes {
			r.Read(nodes[i][:])
		}
		want := slices.Clone(nodes)
		hashPairsGeneric(want)
		hashPairs(nodes)
		for i := range n / 2 {
			if nodes[i] != want[i] {
				t.Fatalf("pair %d of %d: %v, want %v", i, n/2, nodes[i], want[i])
			}
		}
		if n%2 == 1 && nodes[n-1] != want[n-1] {
			t.Fatalf("the last of %d nodes was touched", n)
		}
	}
}

func BenchmarkHashPairs(b *testing.B) {
	nodes := make([]Hash, 1024)
	for name, hash := range map[string]func([]Hash){"best": hashPairs, "generic": hashPairsGeneric} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(32 << 10)
			for b.Loop() {
				hash(nodes)
			}
		})
	}
}
