package tlog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/internal/vectors"
)

// tesseraKey is the published key of the log in tessera's testdata.
const tesseraKey = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"

// TestTesseraLog opens every checkpoint of a log that tessera made, rebuilds each tree from the
// entries, and compares every tile and bundle.
func TestTesseraLog(t *testing.T) {
	dir := vectors.Path(t, "bridge/tlog/tessera_testdata_log")
	v, err := ParseVerifier(tesseraKey)
	if err != nil {
		t.Fatal(err)
	}
	last, err := OpenCheckpoint(vectors.Read(t, "bridge/tlog/tessera_testdata_log/checkpoint"), v)
	if err != nil {
		t.Fatal(err)
	}
	read := func(tile Tile) ([]byte, error) { return readWider(dir, tile) }
	bundle, err := read(Tile{EntryLevel, 0, int(last.Size)})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := ParseBundle(bundle)
	if err != nil || uint64(len(entries)) != last.Size {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	var e Edge
	var again []byte
	for size := range len(entries) + 1 {
		signed, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("checkpoint.%d", size)))
		if errors.Is(err, fs.ErrNotExist) && size == 0 {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		c, err := OpenCheckpoint(signed, v)
		if err != nil {
			t.Fatalf("checkpoint %d: %v", size, err)
		}
		if c.Root != e.Root() || c.Size != uint64(size) {
			t.Errorf("checkpoint %d: %+v, our root is %v", size, c, e.Root())
		}
		checkTesseraTiles(t, dir, &e, again)
		for index := range c.Size {
			proof, err := ProveInclusion(index, c.Size, read)
			if err == nil {
				err = VerifyInclusion(LeafHash(entries[index]), index, proof, c.Size, c.Root)
			}
			if err != nil {
				t.Errorf("checkpoint %d, leaf %d: %v", size, index, err)
			}
		}
		proof, err := ProveConsistency(c.Size, last.Size, read)
		if err == nil {
			err = VerifyConsistency(c.Size, c.Root, last.Size, last.Root, proof)
		}
		if err != nil {
			t.Errorf("checkpoint %d to %d: %v", size, last.Size, err)
		}
		if size < len(entries) {
			e.Append(LeafHash(entries[size]), nil)
			again, _ = AppendToBundle(again, entries[size])
		}
	}
}

func checkTesseraTiles(t *testing.T, dir string, e *Edge, bundle []byte) {
	t.Helper()
	p, data := e.Partial(0)
	if p.Width == 0 {
		return
	}
	want, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(p.Path())))
	if err != nil || !bytes.Equal(data, want) {
		t.Errorf("%s differs (%v)", p.Path(), err)
	}
	p.Level = EntryLevel
	want, err = os.ReadFile(filepath.Join(dir, filepath.FromSlash(p.Path())))
	if err != nil || !bytes.Equal(bundle, want) {
		t.Errorf("%s differs (%v)", p.Path(), err)
	}
}

// readWider reads a tile or, where the log has no such, a wider one.
func readWider(dir string, tile Tile) ([]byte, error) {
	for ; tile.Width <= TileWidth; tile.Width++ {
		data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(tile.Path())))
		if !errors.Is(err, fs.ErrNotExist) {
			return data, err
		}
	}
	return nil, fmt.Errorf("no tile %d of level %d", tile.N, tile.Level)
}

func TestSampleProof(t *testing.T) {
	v, err := ParseVerifier(strings.TrimSpace(string(vectors.Read(t, "bridge/tlog/sample.vkey"))))
	if err != nil {
		t.Fatal(err)
	}
	text := vectors.Read(t, "bridge/tlog/sample.tlog-proof")
	p, err := ParseProof(text)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p.Marshal(), text) {
		t.Errorf("wrote %q", p.Marshal())
	}
	if !bytes.Equal(p.Checkpoint, vectors.Read(t, "bridge/tlog/sample.checkpoint")) {
		t.Error("checkpoint differs from sample.checkpoint")
	}
	leaf := LeafHash(vectors.Read(t, "bridge/tlog/sample.entry"))
	c, err := p.Verify(leaf, v)
	if err != nil || c.Size != 13 || p.Index != 7 {
		t.Errorf("%+v, %v", c, err)
	}
	leaf[0] ^= 1
	if _, err := p.Verify(leaf, v); err == nil {
		t.Error("proof holds for another leaf")
	}
}
