package chainfile

import (
	"bytes"
	"context"
	"os"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
)

// TestChains makes small ones of all kinds, twice alike, and has a node take them in.
func TestChains(t *testing.T) {
	for name, build := range map[string]func(dir string) (*File, error){
		"scripts":  func(dir string) (*File, error) { return Scripts(dir, 60) },
		"coins":    func(dir string) (*File, error) { return Coins(dir, 9000, 300) },
		"payments": func(dir string) (*File, error) { return Payments(dir, 3, 20) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file, err := build(dir)
			if err != nil {
				t.Fatal(err)
			}
			again, err := build(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if again.Tip != file.Tip || !bytes.Equal(read(t, again.Path), read(t, file.Path)) {
				t.Error("two chains of one kind differ")
			}
			cached, err := build(dir)
			if err != nil || *cached != *file {
				t.Errorf("cached: %+v, %v; want %+v", cached, err, file)
			}
			check(t, file)
		})
	}
	if _, err := Coins(t.TempDir(), 10, 20); err == nil {
		t.Error("more spends than coins")
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// check imports a file with all its scripts and looks where that leads.
func check(t *testing.T, file *File) {
	t.Helper()
	net := bitcoin.Regtest()
	store, err := blockstore.Open(blockstore.Config{Network: net, Dir: t.TempDir(),
		CacheBytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	c, err := chain.New(chain.Config{Network: net}, store)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	paths := []string{file.Path}
	if file.Tail != "" {
		paths = append(paths, file.Tail)
	}
	blocks := 0
	for _, path := range paths {
		if err := c.Import(ctx, path); err != nil {
			t.Fatal(err)
		}
		if err := Blocks(path, func([]byte) error { blocks++; return nil }); err != nil {
			t.Error(err)
		}
	}
	tip := c.Tip()
	if tip.Hash.String() != file.Tip || int(tip.Height) != file.Blocks || blocks != file.Blocks {
		t.Errorf("tip %d %v, %d blocks in files; want %d %s", tip.Height, tip.Hash, blocks,
			file.Blocks, file.Tip)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
