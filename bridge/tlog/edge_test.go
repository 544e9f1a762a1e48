package tlog

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

// naive is the tree as RFC 6962, section 2.1, defines it, without any cleverness.
type naive []Hash

func (n naive) root() Hash {
	switch len(n) {
	case 0:
		return EmptyRoot()
	case 1:
		return n[0]
	}
	k := 1
	for 2*k < len(n) {
		k *= 2
	}
	return NodeHash(n[:k].root(), n[k:].root())
}

// tile returns the hashes of a tile by the definition of C2SP tlog-tiles: MTH(D[...]) one by one.
func (n naive) tile(t Tile) []byte {
	span := 1 << (TileHeight * t.Level)
	var data []byte
	for i := range t.Width {
		at := (int(t.N)*TileWidth + i) * span
		h := n[at : at+span].root()
		data = append(data, h[:]...)
	}
	return data
}

// grown is a tree that was grown through an Edge, with the tiles it gave off.
type grown struct {
	edge   Edge
	full   map[Tile][]byte
	leaves naive
}

func leafAt(i int) Hash {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(i))
	return LeafHash(b[:])
}

func (g *grown) add(n int) {
	if g.full == nil {
		g.full = make(map[Tile][]byte)
	}
	for range n {
		h := leafAt(len(g.leaves))
		g.leaves = append(g.leaves, h)
		g.edge.Append(h, func(t Tile, data []byte) {
			if g.full[t] != nil {
				panic("tile " + t.Path() + " given off twice")
			}
			g.full[t] = data
		})
	}
}

// read is a TileReader over the tree.
func (g *grown) read(t Tile) ([]byte, error) {
	if data := g.full[Tile{t.Level, t.N, TileWidth}]; data != nil {
		return data, nil
	}
	if p, data := g.edge.Partial(t.Level); p.N == t.N && p.Width >= t.Width {
		return data, nil
	}
	return nil, fmt.Errorf("no %s", t.Path())
}

func (g *grown) leaf(i uint64) (Hash, error) { return g.leaves[i], nil }

// TestKnownRoots has the tree that the tests of Certificate Transparency use.
func TestKnownRoots(t *testing.T) {
	leaves := []string{"", "00", "10", "2021", "3031", "40414243", "5051525354555657",
		"606162636465666768696a6b6c6d6e6f"}
	roots := []string{
		"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
		"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
		"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
		"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
		"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	}
	var e Edge
	if got := e.Root(); got.String() != "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" {
		t.Errorf("root of the empty tree is %v", got)
	}
	for i, l := range leaves {
		data, err := hex.DecodeString(l)
		if err != nil {
			t.Fatal(err)
		}
		e.Append(LeafHash(data), nil)
		if got := e.Root(); hex.EncodeToString(got[:]) != roots[i] {
			t.Errorf("root of %d leaves is %x, want %s", i+1, got, roots[i])
		}
	}
}

func TestEdgeAgainstDefinition(t *testing.T) {
	var g grown
	for size := range 1100 {
		if got, want := g.edge.Root(), g.leaves.root(); got != want {
			t.Fatalf("size %d: root %v, want %v", size, got, want)
		}
		got, err := Root(uint64(size), g.read)
		if err != nil || got != g.leaves.root() {
			t.Fatalf("size %d: root from tiles %v, %v", size, got, err)
		}
		g.add(1)
	}
	checkTiles(t, &g)
}

// TestRandomGrowth grows trees past the second tile level in groups of random sizes.
func TestRandomGrowth(t *testing.T) {
	for seed := range uint64(3) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var g grown
		type snapshot struct {
			edge Edge
			root Hash
		}
		var snapshots []snapshot
		limit := []int{700, 3_000, 66_500}[seed]
		for len(g.leaves) < limit {
			g.add(1 + rnd.IntN(limit/20))
			snapshots = append(snapshots, snapshot{g.edge, g.edge.Root()})
		}
		if got := g.edge.Root(); got != g.leaves.root() {
			t.Fatalf("seed %d: root %v, want %v", seed, got, g.leaves.root())
		}
		for _, s := range snapshots {
			want := g.leaves[:s.edge.Size()].root()
			if got := s.edge.Root(); got != s.root || got != want {
				t.Errorf("seed %d: snapshot of size %d changed its root", seed, s.edge.Size())
			}
		}
		checkTiles(t, &g)
	}
}

func checkTiles(t *testing.T, g *grown) {
	t.Helper()
	size, wantFull := len(g.leaves), 0
	for level, n := 0, size; n > 0; level, n = level+1, n/TileWidth {
		wantFull += n / TileWidth
		p, data := g.edge.Partial(level)
		if p.Width != n%TileWidth || p.N != uint64(n/TileWidth) {
			t.Errorf("level %d of size %d: partial tile %+v", level, size, p)
		}
		if !bytes.Equal(data, g.leaves.tile(p)) {
			t.Errorf("%s of size %d is wrong", p.Path(), size)
		}
	}
	if len(g.full) != wantFull {
		t.Errorf("size %d: %d full tiles, want %d", size, len(g.full), wantFull)
	}
	for tile, data := range g.full {
		if !bytes.Equal(data, g.leaves.tile(tile)) {
			t.Errorf("%s of size %d is wrong", tile.Path(), size)
		}
	}
}

func TestRestoreEdge(t *testing.T) {
	var g grown
	sizes := []int{0, 1, 2, 255, 256, 257, 511, 512, 513, 65535, 65536, 65537, 65792, 66000}
	for _, size := range sizes {
		g.add(size - len(g.leaves))
		e, err := RestoreEdge(uint64(size), g.read, g.leaf)
		if err != nil {
			t.Fatal(err)
		}
		if e.Size() != uint64(size) || e.Root() != g.edge.Root() {
			t.Errorf("size %d: restored size %d, root %v, want %v", size, e.Size(), e.Root(),
				g.edge.Root())
		}
		// The restored edge goes on as the other would have.
		for i := range 300 {
			e.Append(leafAt(size+i), func(Tile, []byte) {})
		}
		rest := g.edge
		for i := range 300 {
			rest.Append(leafAt(size+i), func(Tile, []byte) {})
		}
		if e.Root() != rest.Root() {
			t.Errorf("size %d: restored edge grows another tree", size)
		}
	}
}

func TestRestoreEdgeRefuses(t *testing.T) {
	var g grown
	g.add(600)
	failed := errors.New("failed")
	if _, err := RestoreEdge(MaxSize+1, g.read, g.leaf); err == nil {
		t.Error("size over the limit accepted")
	}
	noTile := func(Tile) ([]byte, error) { return nil, failed }
	if _, err := RestoreEdge(600, noTile, g.leaf); err != failed {
		t.Errorf("error %v, want that of the tile", err)
	}
	noLeaf := func(uint64) (Hash, error) { return Hash{}, failed }
	if _, err := RestoreEdge(600, g.read, noLeaf); err != failed {
		t.Errorf("error %v, want that of the leaf", err)
	}
	short := func(t Tile) ([]byte, error) { return make([]byte, TileBytes-1), nil }
	if _, err := RestoreEdge(600, short, g.leaf); err == nil {
		t.Error("short tile accepted")
	}
}

func BenchmarkEdgeAppend(b *testing.B) {
	b.ReportAllocs()
	var e Edge
	h := leafAt(1)
	full := func(Tile, []byte) {}
	for b.Loop() {
		e.Append(h, full)
	}
}

func BenchmarkEdgeRoot(b *testing.B) {
	b.ReportAllocs()
	var e Edge
	for range 65535 {
		e.Append(Hash{1}, func(Tile, []byte) {})
	}
	for b.Loop() {
		e.Root()
	}
}
