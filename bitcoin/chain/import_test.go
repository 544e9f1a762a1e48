package chain

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
)

// newForked is a story on m.0 to m.109 with a branch a of 3 blocks with spends, and a shorter one b.
func newForked(t *testing.T) *story {
	s := newMature(t, 10)
	for branch, n := range map[string]int{"a": 3, "b": 2} {
		s.gen.Goto("m.109")
		for i := range n {
			tx := chaintest.Spend(bitcoin.Amount(branch[0]), s.gen.Coinbase(fmt.Sprint("m.", i)))
			name := fmt.Sprint(branch, i)
			s.gen.Next(name, chaintest.With(tx))
			s.add(name)
		}
	}
	s.expectTip("a2")
	return s
}

// TestReindex makes the index anew, wipes the coins alone, and goes on where a reindex was broken
// off.
func TestReindex(t *testing.T) {
	s := newForked(t)
	reopen := func(cfg blockstore.Config) {
		t.Helper()
		cfg.Network, cfg.FS, cfg.Dir, cfg.CacheBytes = s.cfg.Network, s.fs, "data", 4<<20
		var err error
		if s.store, err = blockstore.Open(cfg); err != nil {
			t.Fatal(err)
		}
		if s.Chain, err = New(s.cfg, s.store); err != nil {
			t.Fatal(err)
		}
	}
	s.close()
	reopen(blockstore.Config{WipeCoins: true})
	s.expectTip("genesis")
	s.must(s.wait())
	s.expectTip("a2")

	s.close()
	reopen(blockstore.Config{WipeIndex: true})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Reindex(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("broken off: %v", err)
	}
	s.close()
	reopen(blockstore.Config{})
	s.must(s.Reindex(context.Background()))
	s.expectTip("a2")
	s.expectTips(map[string]TipStatus{"a2": TipActive, "b1": TipValidHeaders})
	if again, err := s.store.Reindexing(); again || err != nil {
		t.Errorf("still reindexing: %v, %v", again, err)
	}
	s.gen.Goto("a2")
	s.next("c")
	s.add("c")
	s.restart()
	s.expectTip("c")
}

// TestImport takes in the block directory of another node, and bootstrap files with a good deal of
// rubbish between the blocks.
func TestImport(t *testing.T) {
	from := newForked(t)
	from.must(from.Flush(context.Background()))
	names := []string{"genesis"}
	for i := range 110 {
		names = append(names, fmt.Sprint("m.", i))
	}
	names = append(names, "b0", "b1", "a0", "a1", "a2")
	plain := bootstrap(from, names, false)
	backwards := append([]string(nil), names...)
	for i, j := 0, len(names)-1; i < j; i, j = i+1, j-1 {
		backwards[i], backwards[j] = names[j], names[i]
	}
	for name, path := range map[string]string{
		"directory":    "data/blocks",
		"one file":     "data/blocks/blk00000.dat",
		"bootstrap":    write(from, "bootstrap.dat", plain),
		"backwards":    write(from, "backwards.dat", bootstrap(from, backwards, false)),
		"with rubbish": write(from, "rubbish.dat", bootstrap(from, names, true)),
	} {
		t.Run(name, func(t *testing.T) {
			to := &story{gen: from.gen, t: t, cfg: from.cfg, fs: from.fs, clock: from.clock}
			var err error
			to.store, err = blockstore.Open(blockstore.Config{Network: to.cfg.Network, FS: to.fs,
				Dir: "to/" + strings.ReplaceAll(name, " ", "-"), CacheBytes: 4 << 20})
			if err != nil {
				t.Fatal(err)
			}
			if to.Chain, err = New(to.cfg, to.store); err != nil {
				t.Fatal(err)
			}
			defer to.close()
			to.must(to.Import(context.Background(), path))
			to.expectTip("a2")
			to.must(to.Import(context.Background(), path)) // nothing new
			to.expectTip("a2")
			if to.Importing() != nil {
				t.Error("still importing")
			}
		})
	}
	if err := from.Import(context.Background(), "nowhere"); err == nil {
		t.Error("a missing file was imported")
	}
}

// bootstrap puts blocks into one file. Rubbish is what a search for blocks must not stumble over.
func bootstrap(s *story, names []string, rubbish bool) []byte {
	var file []byte
	magic := s.cfg.Network.Magic[:]
	for i, name := range names {
		raw := s.gen.Block(name).Append(nil)
		if rubbish {
			switch i % 5 {
			case 0: // magic and a size, but no block
				file = append(append(file, magic...), 100, 0, 0, 0)
			case 1: // a block whose end is missing, the next one right behind it
				file = append(append(file, magic...), 0, 1, 0, 0)
				file = append(file, raw[:90]...)
			case 2:
				file = append(file, bytes.Repeat([]byte{0}, 5000)...)
			case 3:
				file = append(file, magic[:3]...)
			}
		}
		file = append(file, magic...)
		file = binary.LittleEndian.AppendUint32(file, uint32(len(raw)))
		file = append(file, raw...)
	}
	return append(file, magic...)
}

func write(s *story, name string, b []byte) string {
	s.t.Helper()
	f, err := s.fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := f.Write(b); err != nil {
		s.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		s.t.Fatal(err)
	}
	return name
}
