package blockstore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/internal/durable"
)

func open(t testing.TB, cfg Config) *Store {
	t.Helper()
	if cfg.Network == nil {
		cfg.Network = bitcoin.Regtest()
	}
	if cfg.CacheBytes == 0 {
		cfg.CacheBytes = 4 << 20
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestBlocksComeBack writes blocks and undo data, opens the store again and reads them.
func TestBlocksComeBack(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain %v", plain), func(t *testing.T) {
			fs := vfs.NewMem()
			cfg := Config{FS: fs, Dir: "data", NoXOR: plain}
			s := open(t, cfg)
			g := chaintest.New(t, s.cfg.Network)
			blocks := g.Run("b", 110)
			spend := chaintest.Spend(7, g.Coinbase("b.0"), g.Coinbase("b.1"))
			blocks = append(blocks, g.Next("spend", chaintest.With(spend)))
			undo := consensus.NewSpent(2)
			undo.Set(0, &consensus.Coin{Out: blocks[0].Txs[0].Out[0],
				Origin: consensus.Origin{Height: 1, Coinbase: true}})
			undo.Set(1, &consensus.Coin{Out: blocks[1].Txs[0].Out[0],
				Origin: consensus.Origin{Height: 2, Coinbase: true}})
			records := writeBlocks(t, s, blocks, undo)
			if err := s.Flush(records); err != nil {
				t.Fatal(err)
			}
			closeStore(t, s)

			s = open(t, cfg)
			defer closeStore(t, s)
			i := 0
			err := s.Records(func(r *Record) error {
				if *r != records[i] {
					t.Errorf("record %d is %+v, want %+v", i, r, records[i])
				}
				raw, err := s.ReadBlock(r.DataPos(), r.Hash)
				if err != nil || !bytes.Equal(raw, blocks[i].Append(nil)) {
					t.Errorf("block %d: %v", i, err)
				}
				i++
				return nil
			})
			if err != nil || i != len(blocks) {
				t.Errorf("%d records, %v", i, err)
			}
			last := records[len(records)-1]
			got, err := s.ReadUndo(last.UndoPos(), last.Header.PrevBlock)
			if err != nil || got.Len() != 2 || !equalCoins(got.Coin(0), undo.Coin(0)) ||
				!equalCoins(got.Coin(1), undo.Coin(1)) {
				t.Errorf("undo data %+v, %v", got, err)
			}
			if _, err := s.ReadUndo(last.UndoPos(), last.Hash); !errors.Is(err, ErrCorrupt) {
				t.Errorf("undo data of another block: %v", err)
			}
			info := s.Files()
			if len(info) != 1 || info[0].Blocks != 111 || info[0].LastHeight != 111 {
				t.Errorf("files %+v", info)
			}
		})
	}
}

// writeBlocks writes blocks of heights from 1 on, the last of them with undo data.
func writeBlocks(t *testing.T, s *Store, blocks []*bitcoin.Block, undo consensus.Spent) []Record {
	t.Helper()
	var records []Record
	for i, b := range blocks {
		r := Record{Header: b.Header, Hash: b.Hash(), Height: bitcoin.Height(i + 1),
			Status: HaveData, Txs: uint32(len(b.Txs))}
		pos, err := s.WriteBlock(b, r.Height)
		if err != nil {
			t.Fatal(err)
		}
		r.File, r.Data = pos.File, pos.Offset
		if i == len(blocks)-1 {
			up, err := s.WriteUndo(r.File, b, undo)
			if err != nil {
				t.Fatal(err)
			}
			r.Undo = up.Offset
			r.Status |= HaveUndo
		}
		records = append(records, r)
	}
	return records
}

// TestCoinsComeBack flushes few and many coins, both ways of writing, and reads them after opening
// again.
func TestCoinsComeBack(t *testing.T) {
	for _, n := range []uint64{10, 2*batchCoins + 10} { // half of them are spent
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			fs := vfs.NewMem()
			cfg := Config{FS: fs, Dir: "data", CacheBytes: 32 << 20}
			s := open(t, cfg)
			addCoins(s.coins, 0, n, bitcoin.Hash{1})
			flushCoins(t, s)
			spendCoins(s.coins, 0, n/2)
			addCoins(s.coins, n, n+5, bitcoin.Hash{2})
			expectCoins(t, s.coins, n/2, n+5)
			flushCoins(t, s)
			expectCoins(t, s.coins, n/2, n+5)
			closeStore(t, s)

			s = open(t, cfg)
			defer closeStore(t, s)
			if best := s.coins.Best(); best != (bitcoin.Hash{2}) {
				t.Errorf("best block %v", best)
			}
			expectCoins(t, s.coins, n/2, n+5)
		})
	}
}

func addCoins(c *Coins, from, to uint64, best bitcoin.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := from; n < to; n++ {
		out, coin := testOut(n), testCoin(n, 1)
		c.cache.add(&out, &coin, false)
	}
	c.best = best
}

func spendCoins(c *Coins, from, to uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := from; n < to; n++ {
		out := testOut(n)
		c.cache.spend(&out)
	}
}

func flushCoins(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Flush(nil, s.coins); err != nil {
		t.Fatal(err)
	}
}

// expectCoins wants the coins from one number to another to be there, and no other.
func expectCoins(t *testing.T, c *Coins, from, to uint64) {
	t.Helper()
	outs := make([]bitcoin.OutPoint, to+100)
	for n := range outs {
		outs[n] = testOut(uint64(n))
	}
	coins := make([]consensus.Coin, len(outs))
	for _, read := range []func([]bitcoin.OutPoint, []consensus.Coin) error{c.Peek, c.Coins, c.Coins} {
		if err := read(outs, coins); err != nil {
			t.Fatal(err)
		}
		for n, coin := range coins {
			var want consensus.Coin
			if n := uint64(n); n >= from && n < to {
				want = testCoin(n, 1)
			}
			if !equalCoins(coin, want) {
				t.Fatalf("coin %d is of height %d and value %d, want %d and %d",
					n, coin.Height, coin.Out.Value, want.Height, want.Out.Value)
			}
		}
	}
}

// TestOpenRefuses has directories that must not be used.
func TestOpenRefuses(t *testing.T) {
	rows := map[string]struct {
		prepare func(t *testing.T, fs *vfs.MemFS)
		cfg     Config
		want    error
		text    string
	}{
		"locked": {prepare: func(t *testing.T, fs *vfs.MemFS) {
			s := open(t, Config{FS: fs, Dir: "data"})
			t.Cleanup(func() { closeStore(t, s) })
		}, want: ErrLocked, text: "Cannot obtain a lock on directory data."},
		"another network": {prepare: func(t *testing.T, fs *vfs.MemFS) {
			closeStore(t, open(t, Config{FS: fs, Dir: "data"}))
		}, cfg: Config{Network: bitcoin.Signet()}, want: ErrForeign, text: "of another network"},
		"Core's index": {prepare: func(t *testing.T, fs *vfs.MemFS) {
			makeFile(t, fs, "data/blocks/index/CURRENT", "MANIFEST-000002\n")
		}, want: ErrForeign, text: "holds a LevelDB database"},
		"short key": {prepare: func(t *testing.T, fs *vfs.MemFS) {
			makeFile(t, fs, "data/blocks/xor.dat", "1234567")
		}, want: ErrCorrupt, text: "xor.dat has 7 octets"},
		"key not wanted": {prepare: func(t *testing.T, fs *vfs.MemFS) {
			makeFile(t, fs, "data/blocks/xor.dat", "12345678")
		}, cfg: Config{NoXOR: true}, text: "can not be disabled"},
		"short block file": {prepare: func(t *testing.T, fs *vfs.MemFS) {
			withBlocks(t, fs)
			makeFile(t, fs, "data/blocks/blk00000.dat", "short")
		}, want: ErrCorrupt, text: "the index knows of"},
		"no undo file": {prepare: func(t *testing.T, fs *vfs.MemFS) {
			withBlocks(t, fs)
			if err := fs.Remove("data/blocks/rev00000.dat"); err != nil {
				t.Fatal(err)
			}
		}, want: ErrCorrupt, text: "rev00000.dat"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			row.prepare(t, fs)
			cfg := row.cfg
			cfg.FS, cfg.Dir = fs, "data"
			if cfg.Network == nil {
				cfg.Network = bitcoin.Regtest()
			}
			s, err := Open(cfg)
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			if row.want != nil && !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.text) ||
				strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want %v with %q", err, row.want, row.text)
			}
		})
	}
}

func withBlocks(t *testing.T, fs vfs.FS) {
	t.Helper()
	s := open(t, Config{FS: fs, Dir: "data"})
	defer closeStore(t, s)
	g := chaintest.New(t, s.cfg.Network)
	if err := s.Flush(writeBlocks(t, s, g.Run("b", 3), consensus.Spent{})); err != nil {
		t.Fatal(err)
	}
}

func makeFile(t *testing.T, fs vfs.FS, path, content string) {
	t.Helper()
	if err := fs.MkdirAll(fs.PathDir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestXOR compares the fast way with the definition, at all offsets.
func TestXOR(t *testing.T) {
	key := xorKey{1, 2, 3, 4, 5, 6, 7, 8}
	for offset := range int64(20) {
		for size := range 30 {
			b := bytes.Repeat([]byte{0x80}, size)
			key.apply(b, offset)
			for i, c := range b {
				if c != 0x80^key[(offset+int64(i))%8] {
					t.Fatalf("octet %d of %d at offset %d", i, size, offset)
				}
			}
		}
	}
}

// TestFullDisk wants an error that says so, and nothing lost of what was flushed.
func TestFullDisk(t *testing.T) {
	for _, full := range []durable.Fullness{durable.NoNewBlocks, durable.NoWrites} {
		fs := durable.NewFaults(nil)
		s := open(t, Config{FS: fs, Dir: "data"})
		addCoins(s.coins, 0, 100, bitcoin.Hash{1})
		flushCoins(t, s)
		addCoins(s.coins, 100, 200, bitcoin.Hash{2})
		fs.SetFull(full)
		err := s.Flush(nil, s.coins)
		if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "Disk space is too low!") {
			t.Errorf("flush on a full disk: %v", err)
		}
		fs.SetFull(durable.Roomy)
		image := fs.Clone(50, 1)
		s.Close()
		s = open(t, Config{FS: image, Dir: "data"})
		if s.coins.Best() != (bitcoin.Hash{1}) {
			t.Errorf("best block %v", s.coins.Best())
		}
		expectCoins(t, s.coins, 0, 100)
		closeStore(t, s)
	}
}

// TestCrashAtEveryChange cuts the power before each operation of a story that writes blocks and
// flushes coins both ways, with none, half and all of what was not synced on the disk. The store
// must open, and be as of one of the flushes.
func TestCrashAtEveryChange(t *testing.T) {
	stride := 1
	if testing.Short() {
		stride = 7
	}
	for _, keep := range []int{0, 50, 100} {
		for cut := 1; ; cut += stride {
			fs := durable.NewFaults(nil)
			fs.CutPower(cut, keep, uint64(cut))
			done, err := crashStory(t, fs)
			image := fs.Image()
			if image == nil {
				if err != nil {
					t.Fatalf("without a power cut: %v", err)
				}
				break
			}
			if err == nil && done < len(crashSteps) {
				t.Fatalf("cut %d: nothing noticed", cut)
			}
			checkAfterCrash(t, image, done)
			if t.Failed() {
				t.Fatalf("cut %d, keep %d", cut, keep)
			}
		}
	}
}

// crashStory returns how many flushes were acknowledged.
func crashStory(t *testing.T, fs vfs.FS) (flushes int, err error) {
	s, err := Open(Config{Network: bitcoin.Regtest(), FS: fs, Dir: "data", CacheBytes: 1 << 20})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	s.coins.batch = crashTables
	g := chaintest.New(t, s.cfg.Network)
	for i, n := range crashSteps {
		b := g.Next(fmt.Sprint(i))
		pos, err := s.WriteBlock(b, bitcoin.Height(i+1))
		if err != nil {
			return i, err
		}
		undo, err := s.WriteUndo(pos.File, b, consensus.Spent{})
		if err != nil {
			return i, err
		}
		r := Record{Header: b.Header, Hash: b.Hash(), Height: bitcoin.Height(i + 1), Txs: 1,
			Status: HaveData | HaveUndo, File: pos.File, Data: pos.Offset, Undo: undo.Offset}
		from, before := crashCoins(i)
		spendCoins(s.coins, from, before/2)
		addCoins(s.coins, before, n, b.Hash())
		if err := s.Flush([]Record{r}, s.coins); err != nil {
			return i, err
		}
	}
	return len(crashSteps), nil
}

// crashSteps are the numbers of coins up to which each step adds what is missing, after it has spent
// half of what the step before had; more than crashTables are written as tables.
var crashSteps = []uint64{20, 300, 320}

const crashTables = 100

func checkAfterCrash(t *testing.T, image *vfs.MemFS, flushes int) {
	t.Helper()
	s, err := Open(Config{Network: bitcoin.Regtest(), FS: image, Dir: "data", CacheBytes: 1 << 20})
	if err != nil {
		t.Errorf("open after a crash: %v", err)
		return
	}
	defer closeStore(t, s)
	var hashes []bitcoin.Hash
	err = s.Records(func(r *Record) error {
		hashes = append(hashes, r.Hash)
		if _, err := s.ReadBlock(r.DataPos(), r.Hash); err != nil {
			return err
		}
		_, err := s.ReadUndo(r.UndoPos(), r.Header.PrevBlock)
		return err
	})
	if err != nil || len(hashes) < flushes {
		t.Errorf("%d records after %d flushes: %v", len(hashes), flushes, err)
	}
	at := slices.Index(hashes, s.coins.Best()) + 1 // flushes that the coins are of
	if at < flushes || at == 0 && s.coins.Best() != (bitcoin.Hash{}) {
		t.Errorf("coins as of flush %d, want at least %d", at, flushes)
	}
	from, to := crashCoins(at)
	expectCoins(t, s.coins, from, to)
}

// crashCoins returns which coins are there after so many steps.
func crashCoins(steps int) (from, to uint64) {
	if steps > 0 {
		to = crashSteps[steps-1]
	}
	if steps > 1 {
		from = crashSteps[steps-2] / 2
	}
	return from, to
}
