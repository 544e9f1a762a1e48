package tlog

import "fmt"

// maxLevels is the number of tile levels of a tree of 2^64 leaves.
const maxLevels = 8

// Edge is the right edge of a tree: of each level the tile that is not full yet. That is all it
// takes to add leaves and to know the root. The zero value is the empty tree.
//
// A copy of an Edge is a snapshot of the tree, and cheap: copies share their tiles, in which hashes
// are only ever added, behind the width that the snapshot knows. So a snapshot may be read while
// another copy grows, but only one of all copies may grow.
type Edge struct {
	size  uint64
	tiles [maxLevels]*[TileBytes]byte
}

// Size returns the number of leaves.
func (e *Edge) Size() uint64 { return e.size }

// Append adds a leaf. For each tile that it completes full is called, lower levels first; the
// tile's data will not change any more and may be kept.
func (e *Edge) Append(leaf Hash, full func(t Tile, data []byte)) {
	h, n := leaf, e.size // n is the index of h in its level
	for level := range maxLevels {
		at := n % TileWidth
		if at == 0 {
			// Not cleared and used again: snapshots and stores may still hold the last one.
			e.tiles[level] = new([TileBytes]byte)
		}
		tile := e.tiles[level]
		copy(tile[at*HashSize:], h[:])
		if at != TileWidth-1 {
			break
		}
		n /= TileWidth
		full(Tile{Level: level, N: n, Width: TileWidth}, tile[:])
		h = TileRoot(tile[:])
	}
	e.size++
}

// Partial returns the tile of a level that is not full, and its data. An empty tile has width 0.
func (e *Edge) Partial(level int) (Tile, []byte) {
	if level < 0 || level >= maxLevels {
		return Tile{Level: level}, nil
	}
	n := e.size >> (TileHeight * level)
	t := Tile{Level: level, N: n / TileWidth, Width: int(n % TileWidth)}
	if t.Width == 0 {
		return t, nil
	}
	return t, e.tiles[level][: t.Width*HashSize : t.Width*HashSize]
}

// Root returns the root of the tree.
func (e *Edge) Root() Hash {
	if e.size == 0 {
		return EmptyRoot()
	}
	// The tree is a row of perfect subtrees, one for each bit of its size, the greatest on the
	// left. Going from right to left, each is joined with all that is on its right.
	var right Hash
	found := false
	for level := range maxLevels {
		t, data := e.Partial(level)
		for end, k := t.Width, 1; end > 0; k *= 2 {
			if end&k == 0 {
				continue
			}
			left := TileRoot(data[(end-k)*HashSize : end*HashSize])
			if end -= k; found {
				left = NodeHash(left, right)
			}
			right, found = left, true
		}
	}
	return right
}

// RestoreEdge rebuilds the edge of a tree of a known size: from the full tiles whose parent is not
// full yet, and from the entries behind the last full tile of level 0. It calls tile up to 255
// times for each level and leaf up to 255 times.
func RestoreEdge(size uint64, tile TileReader, leaf LeafReader) (Edge, error) {
	e := Edge{size: size}
	if err := checkSize(size); err != nil {
		return Edge{}, err
	}
	for level := range maxLevels {
		count := size >> (TileHeight * level)
		first, width := count-count%TileWidth, int(count%TileWidth)
		if width == 0 {
			continue
		}
		e.tiles[level] = new([TileBytes]byte)
		for i := range width {
			h, err := restoreHash(level, first+uint64(i), tile, leaf)
			if err != nil {
				return Edge{}, err
			}
			copy(e.tiles[level][i*HashSize:], h[:])
		}
	}
	return e, nil
}

func restoreHash(level int, n uint64, tile TileReader, leaf LeafReader) (Hash, error) {
	if level == 0 {
		return leaf(n)
	}
	t := Tile{Level: level - 1, N: n, Width: TileWidth}
	data, err := tile(t)
	if err != nil {
		return Hash{}, err
	}
	if len(data) != TileBytes {
		return Hash{}, fmt.Errorf("%s has %d octets, want %d", t.Path(), len(data), TileBytes)
	}
	return TileRoot(data), nil
}
