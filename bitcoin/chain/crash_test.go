package chain

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/durable"
)

// crashStory is what goes on until the power is cut:
//
//	m.102 -> a1 -> a2 -> a3
//	      \-> b1 -> b2 -> b3 -> b4
//
// with spends in each, a flush after a2, saved records after a3 and b2, and a flush at the end. With a
// cache that holds nothing all is flushed after each block that is connected, also in the middle of
// the reorganisation.
type crashStory struct {
	t     *testing.T
	gen   *chaintest.Gen
	base  *vfs.MemFS // the chain up to m.102
	cache int64      // octets
	order []string
}

func newCrashStory(t *testing.T, cache int64) *crashStory {
	t.Helper()
	net := bitcoin.Regtest()
	c := &crashStory{t: t, gen: chaintest.New(t, net), base: vfs.NewCrashableMem(), cache: cache}
	store, chain, err := c.open(c.base)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range c.gen.Run("m", 103) {
		if _, err := chain.Add(context.Background(), b, asked); err != nil {
			t.Fatal(err)
		}
	}
	if err := chain.Close(); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	c.branch("a", 3)
	c.branch("b", 4)
	return c
}

func (c *crashStory) branch(name string, n int) {
	c.gen.Goto("m.102")
	from := c.gen.Coinbase("m.0")
	for i := range n {
		tx := chaintest.Spend(bitcoin.Amount(name[0]), from)
		from = chaintest.OutputOf(tx, 0)
		block := name + string(rune('1'+i))
		c.gen.Next(block, chaintest.With(tx))
		c.order = append(c.order, block)
	}
}

func (c *crashStory) open(fs vfs.FS) (*blockstore.Store, *Chain, error) {
	net := bitcoin.Regtest()
	store, err := blockstore.Open(blockstore.Config{Network: net, FS: fs, Dir: "data",
		CacheBytes: c.cache})
	if err != nil {
		return nil, nil, err
	}
	mock := clock.NewMock(time.Unix(int64(net.Genesis.Header.Time)+3600, 0))
	chain, err := New(Config{Network: net, Clock: mock}, store)
	if err != nil {
		store.Close()
		return nil, nil, err
	}
	return store, chain, nil
}

// run goes on until the power is cut, and tells the last tip that was flushed for certain.
func (c *crashStory) run(fs vfs.FS) (flushed string, err error) {
	flushed = "m.102"
	store, chain, err := c.open(fs)
	if err != nil {
		return flushed, err
	}
	defer store.Close()
	ctx := context.Background()
	for _, name := range c.order {
		if _, err := chain.Add(ctx, c.gen.Block(name), asked); err != nil {
			return flushed, err
		}
		switch name {
		case "a2", "b4":
			if err := chain.Flush(ctx); err != nil {
				return flushed, err
			}
			flushed = name
		case "a3", "b2":
			if err := chain.save(); err != nil {
				return flushed, err
			}
		}
		if c.cache == noCache && (name[0] == 'a' || name == "b4") {
			flushed = name
		}
	}
	return flushed, chain.Close()
}

// check opens what the disk held, and wants a chain that is whole and goes on.
func (c *crashStory) check(image *vfs.MemFS, flushed string) {
	c.t.Helper()
	store, chain, err := c.open(image)
	if err != nil {
		c.t.Errorf("open: %v", err)
		return
	}
	s := &story{Chain: chain, gen: c.gen, t: c.t, store: store}
	tip := s.Tip()
	if ok := c.atLeast(s.gen.Name(tip.Hash), flushed); !ok {
		c.t.Errorf("tip %s, flushed was %s", s.gen.Name(tip.Hash), flushed)
	}
	s.expectCoins()
	for _, name := range c.order {
		if _, err := chain.Add(context.Background(), c.gen.Block(name), asked); err != nil {
			c.t.Errorf("block %s: %v", name, err)
		}
	}
	if name := s.gen.Name(s.Tip().Hash); name != "b4" {
		c.t.Errorf("tip is %s in the end", name)
	}
	s.expectCoins()
	s.close()
}

// atLeast reports whether a tip may be found after a flush was acknowledged: that one, one that was
// flushed after it, or with a cache that holds nothing one in the middle of the reorganisation.
func (c *crashStory) atLeast(tip, flushed string) bool {
	if c.cache == noCache && flushed == "a3" && tip[0] == 'b' {
		return true
	}
	var later []string
	switch {
	case c.cache == noCache:
		later = []string{"m.102", "a1", "a2", "a3", "b4"}
	default:
		later = []string{"m.102", "a2", "b4"}
	}
	return slices.Contains(later[slices.Index(later, flushed):], tip)
}

const (
	roomy   = 1 << 20
	noCache = 1 // of which no octet is left for coins
)

// TestCrashAtEveryChange cuts the power before each operation that changes something on the disk,
// with none, half or all of what was not synced being there afterwards. The chain must open with
// the coins of its tip, no flush that was acknowledged may be lost, and all blocks must lead to the
// same end. Short tests cut before every fifth.
func TestCrashAtEveryChange(t *testing.T) {
	for _, cache := range []int64{roomy, noCache} {
		for _, keep := range []int{0, 50, 100} {
			t.Run(fmt.Sprintf("cache %d keep %d", cache, keep), func(t *testing.T) {
				t.Parallel()
				newCrashStory(t, cache).cutEverywhere(keep)
			})
		}
	}
}

func (c *crashStory) cutEverywhere(keep int) {
	stride := 1
	if testing.Short() {
		stride = 5
	}
	for cut := 1; ; cut += stride {
		fs := durable.NewFaults(c.base.CrashClone(vfs.CrashCloneCfg{}))
		fs.CutPower(cut, keep, uint64(cut))
		flushed, err := c.run(fs)
		image := fs.Image()
		if image == nil {
			if err != nil || flushed != "b4" {
				c.t.Fatalf("without a power cut: %s, %v", flushed, err)
			}
			c.t.Logf("%d operations", cut-1)
			return
		}
		c.check(image, flushed)
		if c.t.Failed() {
			c.t.Fatalf("cut %d, keep %d", cut, keep)
		}
	}
}

// TestFailedSyncStopsTheChain: after it nothing is believed, and after opening again all is as of
// the last flush.
func TestFailedSyncStopsTheChain(t *testing.T) {
	for _, part := range []string{"blk00000.dat", "rev00000.dat", "index", "chainstate"} {
		t.Run(part, func(t *testing.T) {
			c := newCrashStory(t, roomy)
			fs := durable.NewFaults(c.base.CrashClone(vfs.CrashCloneCfg{}))
			store, chain, err := c.open(fs)
			if err != nil {
				t.Fatal(err)
			}
			ctx := context.Background()
			if _, err := chain.Add(ctx, c.gen.Block("a1"), asked); err != nil {
				t.Fatal(err)
			}
			fs.FailSync(part)
			if err := chain.Flush(ctx); err == nil {
				t.Error("flush did not fail")
			}
			if chain.Fatal() == nil {
				t.Error("the chain goes on")
			}
			if _, err := chain.Add(ctx, c.gen.Block("a2"), asked); err == nil {
				t.Error("a block was taken after the failure")
			}
			image := fs.Clone(0, 1)
			store.Close()
			c.check(image, "m.102")
		})
	}
}
