package tlog

import (
	"bytes"
	"strings"
	"testing"
)

func TestTilePath(t *testing.T) {
	for _, row := range []struct {
		path string
		tile Tile
	}{
		// The examples of C2SP tlog-tiles.
		{"tile/0/x001/x234/067", Tile{0, 1234067, 256}},
		{"tile/0/000", Tile{0, 0, 256}},
		{"tile/0/273.p/112", Tile{0, 273, 112}},
		{"tile/1/001.p/17", Tile{1, 1, 17}},
		{"tile/2/000.p/1", Tile{2, 0, 1}},
		{"tile/7/000.p/255", Tile{7, 0, 255}},
		{"tile/entries/000", Tile{EntryLevel, 0, 256}},
		{"tile/entries/x001/000.p/3", Tile{EntryLevel, 1000, 3}},
		{"tile/63/999", Tile{63, 999, 256}},
	} {
		if got := row.tile.Path(); got != row.path {
			t.Errorf("%+v has path %s, want %s", row.tile, got, row.path)
		}
		if got, err := ParseTilePath(row.path); err != nil || got != row.tile {
			t.Errorf("%s read as %+v, %v", row.path, got, err)
		}
	}
}

func TestParseTilePathRefuses(t *testing.T) {
	for _, path := range []string{
		"", "tile", "tile/", "tile/0", "tile/0/", "tile//000", "checkpoint", "/tile/0/000",
		"tile/0/000/",
		"tile/00/000", "tile/+1/000", "tile/-1/000", "tile/64/000", "tile/data/000", "tile/8/0/000",
		"tile/0/0", "tile/0/00", "tile/0/0000", "tile/0/x000/001", "tile/0/001/002", "tile/0/x001",
		"tile/0/000.p", "tile/0/000.p/", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01",
		"tile/0/000.p/-1", "tile/0/000.p/1/2", "tile/0/../000",
		"tile/0/x001/x000/x000/x000/x000/x000/x000",
		"tile/0/x999/x999/x999/x999/x999/x999/999", "tile/Entries/000", "tile/entries/entries/000",
		"tile/0/" + strings.Repeat("x001/", 20) + "001",
	} {
		if got, err := ParseTilePath(path); err == nil {
			t.Errorf("%q read as %+v", path, got)
		}
	}
}

func FuzzTilePath(f *testing.F) {
	f.Add("tile/0/x001/x234/067")
	f.Add("tile/entries/x001/000.p/3")
	f.Fuzz(func(t *testing.T, path string) {
		if tile, err := ParseTilePath(path); err == nil && tile.Path() != path {
			t.Errorf("%q read as %+v, whose path is %q", path, tile, tile.Path())
		}
	})
}

func TestBundle(t *testing.T) {
	var bundle []byte
	entries := [][]byte{[]byte("one"), {}, bytes.Repeat([]byte("x"), 65535)}
	for _, e := range entries {
		var err error
		if bundle, err = AppendToBundle(bundle, e); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ParseBundle(bundle)
	if err != nil || len(got) != 3 {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	for i := range got {
		if !bytes.Equal(got[i], entries[i]) {
			t.Errorf("entry %d differs", i)
		}
	}
	if _, err := AppendToBundle(nil, make([]byte, 65536)); err == nil {
		t.Error("entry of 65536 octets bundled")
	}
	for _, bad := range [][]byte{
		{0}, {0, 1}, {0, 2, 'x'}, append(bundle[:5:5], 0), make([]byte, 2*257),
	} {
		if _, err := ParseBundle(bad); err == nil {
			t.Errorf("bundle of %d octets accepted", len(bad))
		}
	}
}
