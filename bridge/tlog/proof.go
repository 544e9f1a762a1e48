package tlog

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// maxHashes is the greatest number of hashes in a proof: a path has one for each level of the tree,
// and a consistency proof one more.
const maxHashes = 63

// TileReader returns the hashes of a tile: at least Width of them.
type TileReader func(t Tile) ([]byte, error)

// LeafReader returns the hash of a leaf.
type LeafReader func(index uint64) (Hash, error)

// Root returns the root that a tree had at a size.
func Root(size uint64, read TileReader) (Hash, error) {
	if err := checkSize(size); err != nil {
		return Hash{}, err
	}
	return tlog.TreeHash(int64(size), hashes(read))
}

// ProveInclusion returns the proof that the tree of a size has a leaf at an index (RFC 6962,
// section 2.1.1), from the leaf's sibling up.
func ProveInclusion(index, size uint64, read TileReader) ([]Hash, error) {
	if err := checkSize(size); err != nil {
		return nil, err
	}
	if index >= size {
		return nil, fmt.Errorf("no leaf %d in a tree of size %d", index, size)
	}
	return tlog.ProveRecord(int64(size), int64(index), hashes(read))
}

// ProveConsistency returns the proof that the tree of the newer size begins with the tree of the
// older one (RFC 6962, section 2.1.2). It is empty where the older tree is, and where the sizes are
// equal.
func ProveConsistency(older, newer uint64, read TileReader) ([]Hash, error) {
	if err := checkSize(newer); err != nil {
		return nil, err
	}
	if older > newer {
		return nil, fmt.Errorf("a tree of size %d does not begin with one of size %d", newer, older)
	}
	if older == 0 {
		return nil, nil
	}
	return tlog.ProveTree(int64(newer), int64(older), hashes(read))
}

// VerifyInclusion returns an error unless proof shows that the tree of this size and root has the
// leaf at the index.
func VerifyInclusion(leaf Hash, index uint64, proof []Hash, size uint64, root Hash) error {
	if err := checkSize(size); err != nil {
		return err
	}
	if index >= size {
		return fmt.Errorf("index %d is not in a tree of size %d", index, size)
	}
	if tlog.CheckRecord(proof, int64(size), root, int64(index), leaf) != nil {
		return fmt.Errorf("inclusion proof of %d hashes does not lead from leaf %v at index %d"+
			" to root %v of size %d", len(proof), leaf, index, root, size)
	}
	return nil
}

// VerifyConsistency returns an error unless proof shows that the newer tree begins with the older
// one.
func VerifyConsistency(older uint64, olderRoot Hash, newer uint64, newerRoot Hash,
	proof []Hash) error {
	if err := checkSize(newer); err != nil {
		return err
	}
	failed := fmt.Errorf("consistency proof of %d hashes does not lead from root %v of size %d"+
		" to root %v of size %d", len(proof), olderRoot, older, newerRoot, newer)
	switch {
	case older > newer:
		return fmt.Errorf("a tree of size %d does not begin with one of size %d", newer, older)
	case newer == 0, older == 0:
		// Every tree begins with the empty one; there is nothing to prove and so no hash to send.
		if len(proof) != 0 || olderRoot != EmptyRoot() || newer == 0 && newerRoot != EmptyRoot() {
			return failed
		}
		return nil
	}
	if tlog.CheckTree(proof, int64(newer), newerRoot, int64(older), olderRoot) != nil {
		return failed
	}
	return nil
}

// hashes lets x/mod read hashes by their place in its own order of storage. A tile is read once for
// each proof.
func hashes(read TileReader) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]Hash, error) {
		got := make([]Hash, len(indexes))
		type place struct {
			level int
			n     int64
		}
		seen := make(map[place][]byte)
		for i, x := range indexes {
			t := tlog.TileForIndex(TileHeight, x)
			data := seen[place{t.L, t.N}]
			if len(data) < t.W*HashSize {
				var err error
				want := Tile{Level: t.L, N: uint64(t.N), Width: t.W}
				if data, err = read(want); err != nil {
					return nil, err
				}
				if len(data) < t.W*HashSize {
					return nil, errors.New(want.Path() + " is shorter than asked for")
				}
				seen[place{t.L, t.N}] = data
			}
			h, err := tlog.HashFromTile(t, data, x)
			if err != nil {
				return nil, err
			}
			got[i] = h
		}
		return got, nil
	})
}
