package chain

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/durable"
)

// assumeCrash is the way of a snapshot until the power is cut: it is loaded as of m.5, the tip goes on to
// m.8, the history comes up to m.5, both are compared, and at the next start one takes the place of the
// other. It begins with m.0 and m.1 and all headers.
type assumeCrash struct {
	t    *testing.T
	gen  *chaintest.Gen
	net  *bitcoin.Network
	file []byte
	base *vfs.MemFS
}

func newAssumeCrash(t *testing.T) *assumeCrash {
	t.Helper()
	src := newStory(t)
	blocks := src.gen.Run("m", 9)
	src.add("m.0", "m.1", "m.2", "m.3", "m.4", "m.5")
	a := &assumed{story: newStory(t)}
	a.gen = src.gen
	a.vouch(src, "m.5", nil)
	c := &assumeCrash{t: t, gen: src.gen, net: a.cfg.Network, file: a.file, base: vfs.NewCrashableMem()}
	s := c.open(c.base)
	s.add("m.0", "m.1")
	for _, b := range blocks {
		s.headers(s.gen.Name(b.Hash()))
	}
	s.must(errors.Join(s.Close(), s.store.Close()))
	return c
}

// tryOpen opens the chain as a node does: what is validated is put in its place first.
func (c *assumeCrash) tryOpen(fs vfs.FS) (*assumed, error) {
	mock := clock.NewMock(time.Unix(int64(c.net.Genesis.Header.Time)+3600, 0))
	s := &story{gen: c.gen, t: c.t, fs: fs, clock: mock, cfg: Config{Network: c.net, Clock: mock}}
	var err error
	if s.store, err = blockstore.Open(blockstore.Config{Network: c.net, FS: fs, Dir: "data",
		CacheBytes: 4 << 20}); err != nil {
		return nil, err
	}
	a := &assumed{story: s, file: c.file}
	err = func() error {
		if s.Chain, err = New(s.cfg, s.store); err != nil {
			return err
		}
		done, err := s.ValidateSnapshot(context.Background())
		if err != nil || !done {
			return err
		}
		if err := errors.Join(s.Close(), s.store.Promote()); err != nil {
			return err
		}
		s.Chain, err = New(s.cfg, s.store)
		return err
	}()
	if err != nil {
		s.store.Close()
		return nil, err
	}
	return a, nil
}

func (c *assumeCrash) open(fs vfs.FS) *assumed {
	c.t.Helper()
	a, err := c.tryOpen(fs)
	if err != nil {
		c.t.Fatalf("open: %v", err)
	}
	return a
}

// run goes on until the power is cut. It tells the last tip that was certainly to stay.
func (c *assumeCrash) run(fs vfs.FS) (certain string, err error) {
	certain = "m.1"
	a, err := c.tryOpen(fs)
	if err != nil {
		return certain, err
	}
	ctx := context.Background()
	err = func() error {
		if err := a.load(c.file); err != nil {
			return err
		}
		certain = "m.5"
		for _, name := range []string{"m.6", "m.7", "flush", "m.2", "m.3", "save", "m.8", "m.4", "m.5"} {
			switch name {
			case "flush":
				if err := a.Flush(ctx); err != nil {
					return err
				}
				certain = "m.7"
			case "save":
				if err := a.save(); err != nil {
					return err
				}
			default:
				if _, err := a.Add(ctx, c.gen.Block(name), asked); err != nil {
					return err
				}
			}
		}
		if done, err := a.ValidateSnapshot(ctx); err != nil || !done {
			return fmt.Errorf("validated is %v: %w", done, err)
		}
		certain = "m.7"
		return a.Close()
	}()
	if err := errors.Join(err, a.store.Close()); err != nil {
		return certain, err
	}
	certain = "m.8"
	if a, err = c.tryOpen(fs); err != nil {
		return certain, err
	}
	return certain, errors.Join(a.Close(), a.store.Close())
}

// check opens what the disk held. It must be one of the states on the way, no older than what was certain,
// and lead to the end.
func (c *assumeCrash) check(image *vfs.MemFS, certain string) {
	c.t.Helper()
	a, err := c.tryOpen(image)
	if err != nil {
		c.t.Errorf("open: %v", err)
		return
	}
	defer func() {
		if err := errors.Join(a.Close(), a.store.Close()); err != nil {
			c.t.Error(err)
		}
	}()
	if tip := a.Tip(); tip.Height < c.gen.Height(certain) {
		c.t.Errorf("tip %s, certain was %s", c.gen.Name(tip.Hash), certain)
	}
	if a.Tip().Height <= c.gen.Height("m.1") { // the snapshot is still to be loaded
		if err := a.load(c.file); err != nil {
			c.t.Errorf("load again: %v", err)
		}
	}
	for i := range 9 {
		if _, err := a.Add(context.Background(), c.gen.Block(fmt.Sprintf("m.%d", i)), asked); err != nil {
			c.t.Errorf("block m.%d: %v", i, err)
		}
	}
	if done, err := a.ValidateSnapshot(context.Background()); err != nil || !done && a.BackgroundSync() {
		c.t.Errorf("validated is %v, %v", done, err)
	}
	a.expectTip("m.8")
	a.expect("m.8")
}

// TestCrashWithSnapshot cuts the power before each operation that changes something on the disk, with none,
// half or all of what was not synced being there afterwards, by turns. Short tests cut before every third.
func TestCrashWithSnapshot(t *testing.T) {
	turn := 1
	if testing.Short() {
		turn = 3
	}
	for i, keep := range []int{0, 50, 100} {
		t.Run(fmt.Sprintf("keep %d", keep), func(t *testing.T) {
			t.Parallel()
			c := newAssumeCrash(t)
			for cut := 1 + i*turn; ; cut += 3 * turn {
				fs := durable.NewFaults(c.base.CrashClone(vfs.CrashCloneCfg{}))
				fs.CutPower(cut, keep, uint64(cut))
				certain, err := c.run(fs)
				image := fs.Image()
				if image == nil {
					if err != nil || certain != "m.8" {
						t.Fatalf("without a power cut: %s, %v", certain, err)
					}
					t.Logf("%d operations", cut-1)
					return
				}
				if c.check(image, certain); t.Failed() {
					t.Fatalf("cut %d, keep %d", cut, keep)
				}
			}
		})
	}
}

// TestCrashOfUnfinishedLoad: what a load leaves that a crash ended is passed over, and the next load begins
// anew.
func TestCrashOfUnfinishedLoad(t *testing.T) {
	c := newAssumeCrash(t)
	a := c.open(c.base)
	coins, err := a.store.BeginAssumed()
	a.must(err)
	falsify(coins)
	a.must(coins.FlushLoaded(bitcoin.Hash{}))
	image := c.base.CrashClone(vfs.CrashCloneCfg{})
	a.must(errors.Join(a.store.DropAssumed(coins), a.Close(), a.store.Close()))
	a = c.open(image)
	a.expectDirs("chainstate", "chainstate_snapshot")
	a.expect("m.1")
	a.must(a.load(c.file))
	a.expect("m.1", "m.5")
	a.must(errors.Join(a.Close(), a.store.Close()))
}
