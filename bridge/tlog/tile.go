package tlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	// TileHeight is the number of tree levels in a tile (C2SP tlog-tiles).
	TileHeight = 8
	// TileWidth is the number of hashes in a full tile.
	TileWidth = 1 << TileHeight
	// TileBytes is the size of a full tile.
	TileBytes = TileWidth * HashSize
	// EntryLevel is the level of a Tile that is not hashes but a bundle of entries.
	EntryLevel = -1

	// maxTilePath is longer than the path of any tile of a tree of MaxSize.
	maxTilePath = 64
	// maxBundled is the greatest length of an entry in a bundle, whose prefix has 16 bits.
	maxBundled = 1<<16 - 1
)

// Tile names a tile: Width hashes of a level, from the one with index N*256 on; or, at EntryLevel,
// as many entries.
type Tile struct {
	Level int
	N     uint64
	Width int // 1 to 256; 256 is a full tile
}

// Path returns the path of the tile below the prefix of a log: "tile/0/x001/234",
// "tile/entries/007.p/12".
func (t Tile) Path() string {
	p := tlog.Tile{H: TileHeight, L: t.Level, N: int64(t.N), W: t.Width}.Path()
	_, rest, _ := strings.Cut(p[len("tile/"):], "/") // x/mod has the height in its paths
	if t.Level == EntryLevel {
		rest = "entries" + strings.TrimPrefix(rest, "data")
	}
	return "tile/" + rest
}

// ParseTilePath reads what Path wrote, and nothing else.
func ParseTilePath(path string) (Tile, error) {
	bad := func() (Tile, error) {
		return Tile{}, fmt.Errorf("tile path %.80q is not tile/<level>/<number>[.p/<width>]", path)
	}
	rest, ok := strings.CutPrefix(path, "tile/")
	level, rest, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 || len(path) > maxTilePath || level == "data" {
		return bad()
	}
	if level == "entries" {
		level = "data"
	}
	t, err := tlog.ParseTilePath(fmt.Sprintf("tile/%d/%s/%s", TileHeight, level, rest))
	if err != nil || t.L > 63 || t.N < 0 || t.N > MaxSize/TileWidth {
		return bad()
	}
	return Tile{Level: t.L, N: uint64(t.N), Width: t.W}, nil
}

// TileRoot returns the root of the subtree below a tile or the first part of one: data must be 2^k
// hashes.
func TileRoot(data []byte) Hash {
	if len(data) == HashSize {
		return Hash(data)
	}
	half := len(data) / 2
	return NodeHash(TileRoot(data[:half]), TileRoot(data[half:]))
}

// AppendToBundle appends an entry to an entry bundle: its length in two octets, then itself.
func AppendToBundle(dst, entry []byte) ([]byte, error) {
	if len(entry) > maxBundled {
		return dst, fmt.Errorf("entry of %d octets does not fit a bundle", len(entry))
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(entry)))
	return append(dst, entry...), nil
}

// ParseBundle splits an entry bundle into its entries, which share its memory.
func ParseBundle(data []byte) ([][]byte, error) {
	var entries [][]byte
	for len(data) > 0 {
		if len(entries) == TileWidth {
			return nil, fmt.Errorf("entry bundle has more than %d entries", TileWidth)
		}
		if len(data) < 2 {
			return nil, errors.New("entry bundle ends inside a length")
		}
		n := int(binary.BigEndian.Uint16(data))
		if data = data[2:]; len(data) < n {
			return nil, fmt.Errorf("entry bundle ends inside entry %d", len(entries))
		}
		entries = append(entries, data[:n:n])
		data = data[n:]
	}
	return entries, nil
}
