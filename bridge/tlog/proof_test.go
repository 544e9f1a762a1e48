package tlog

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestInclusionOfEveryLeaf(t *testing.T) {
	var g grown
	g.add(80)
	for size := 1; size <= 80; size++ {
		root := g.leaves[:size].root()
		for index := range size {
			checkInclusion(t, &g, uint64(index), uint64(size), root)
		}
	}
}

func TestInclusionInBigTrees(t *testing.T) {
	var g grown
	g.add(66_000)
	rnd := rand.New(rand.NewPCG(1, 2))
	sizes := []uint64{255, 256, 257, 511, 512, 513, 65535, 65536, 65537, 66000}
	for range 10 {
		sizes = append(sizes, 1+rnd.Uint64N(66_000))
	}
	for _, size := range sizes {
		root, err := Root(size, g.read)
		if err != nil {
			t.Fatal(err)
		}
		for _, index := range []uint64{0, size / 2, size - 1, rnd.Uint64N(size)} {
			checkInclusion(t, &g, index, size, root)
		}
	}
}

// checkInclusion makes a proof, wants it to hold, and wants it to fail once anything is changed.
func checkInclusion(t *testing.T, g *grown, index, size uint64, root Hash) {
	t.Helper()
	proof, err := ProveInclusion(index, size, g.read)
	if err != nil {
		t.Fatalf("leaf %d of %d: %v", index, size, err)
	}
	leaf := g.leaves[index]
	fails := func(what string, leaf Hash, index uint64, proof []Hash, size uint64, root Hash) {
		if VerifyInclusion(leaf, index, proof, size, root) == nil {
			t.Errorf("leaf %d of %d: holds with %s changed", index, size, what)
		}
	}
	if err := VerifyInclusion(leaf, index, proof, size, root); err != nil {
		t.Errorf("leaf %d of %d: %v", index, size, err)
	}
	other := leaf
	other[0] ^= 1
	fails("leaf", other, index, proof, size, root)
	fails("root", leaf, index, proof, size, other)
	fails("index", leaf, index^1, proof, size, root)
	fails("one hash more", leaf, index, append(proof[:len(proof):len(proof)], Hash{}), size, root)
	for i := range proof {
		proof[i][31] ^= 1
		fails("a hash", leaf, index, proof, size, root)
		proof[i][31] ^= 1
	}
	if len(proof) > 0 {
		fails("one hash less", leaf, index, proof[1:], size, root)
	}
}

func TestConsistency(t *testing.T) {
	var g grown
	g.add(70)
	for newer := range uint64(71) {
		for older := range newer + 1 {
			checkConsistency(t, &g, older, newer)
		}
	}
	g.add(1000)
	for _, older := range []uint64{1, 255, 256, 257, 512, 769, 1069, 1070} {
		checkConsistency(t, &g, older, 1070)
	}
}

func checkConsistency(t *testing.T, g *grown, older, newer uint64) {
	t.Helper()
	was, is := g.leaves[:older].root(), g.leaves[:newer].root()
	proof, err := ProveConsistency(older, newer, g.read)
	if err != nil {
		t.Fatalf("%d to %d: %v", older, newer, err)
	}
	if err := VerifyConsistency(older, was, newer, is, proof); err != nil {
		t.Errorf("%d to %d: %v", older, newer, err)
	}
	bad := was
	bad[0] ^= 1
	if VerifyConsistency(older, bad, newer, is, proof) == nil {
		t.Errorf("%d to %d: holds with another old root", older, newer)
	}
	bad = is
	bad[0] ^= 1
	if older > 0 && VerifyConsistency(older, was, newer, bad, proof) == nil {
		t.Errorf("%d to %d: holds with another new root", older, newer)
	}
	if VerifyConsistency(older, was, newer, is, append(proof[:len(proof):len(proof)], Hash{})) == nil {
		t.Errorf("%d to %d: holds with a hash too many", older, newer)
	}
	for i := range proof {
		proof[i][0] ^= 1
		if VerifyConsistency(older, was, newer, is, proof) == nil {
			t.Errorf("%d to %d: holds with hash %d changed", older, newer, i)
		}
		proof[i][0] ^= 1
	}
}

func TestProofArguments(t *testing.T) {
	var g grown
	g.add(10)
	check := func(name string, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", name, err, want)
		}
	}
	_, err := ProveInclusion(10, 10, g.read)
	check("index past the end", err, "no leaf 10")
	_, err = ProveInclusion(0, MaxSize+1, g.read)
	check("size over the limit", err, "limit")
	_, err = ProveConsistency(11, 10, g.read)
	check("older than new", err, "does not begin")
	_, err = ProveConsistency(1, MaxSize+1, g.read)
	check("size over the limit", err, "limit")
	_, err = Root(1<<63, g.read)
	check("size over the limit", err, "limit")
	check("index past the end", VerifyInclusion(Hash{}, 5, nil, 5, Hash{}), "not in a tree")
	check("size over the limit", VerifyInclusion(Hash{}, 5, nil, 1<<62, Hash{}), "limit")
	check("size over the limit", VerifyConsistency(1, Hash{}, 1<<63, Hash{}, nil), "limit")
	check("older than new", VerifyConsistency(3, Hash{}, 2, Hash{}, nil), "does not begin")
	check("empty trees", VerifyConsistency(0, EmptyRoot(), 0, Hash{}, nil), "does not lead")
	// The greatest tree allowed still ends.
	check("greatest size", VerifyInclusion(Hash{}, MaxSize-1, make([]Hash, 60), MaxSize, Hash{}),
		"does not lead")
	check("greatest size", VerifyConsistency(MaxSize-1, Hash{}, MaxSize, Hash{}, make([]Hash, 61)),
		"does not lead")
	failed := errors.New("failed")
	_, err = ProveInclusion(1, 10, func(Tile) ([]byte, error) { return nil, failed })
	if !errors.Is(err, failed) {
		t.Errorf("error %v, want that of the reader", err)
	}
	_, err = ProveInclusion(1, 10, func(Tile) ([]byte, error) { return make([]byte, 32), nil })
	check("short tile", err, "shorter")
}
