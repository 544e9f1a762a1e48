package chain

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
)

// newPruned is a story on small block files, with a branch m of n blocks.
func newPruned(t *testing.T, prune int64, n int) *story {
	t.Helper()
	s := newStory(t)
	s.close()
	s.small, s.cfg.Prune, s.cfg.FastPrune = true, prune, true
	s.open()
	for _, b := range s.gen.Run("m", n) {
		s.mustAdd(b)
	}
	return s
}

// files returns the numbers of blk files that are there, and wants rev files beside them and no others.
func (s *story) files() (numbers []string) {
	s.t.Helper()
	names, err := s.fs.List("data/blocks")
	s.must(err)
	undo := map[string]bool{}
	for _, name := range names {
		if number, ok := strings.CutPrefix(name, "rev"); ok {
			undo[number] = true
		}
	}
	for _, name := range names {
		if number, ok := strings.CutPrefix(name, "blk"); ok {
			numbers = append(numbers, number)
			if !undo[number] {
				s.t.Errorf("no undo file beside %s", name)
			}
			delete(undo, number)
		}
	}
	if len(undo) > 0 {
		s.t.Errorf("undo files without block files: %v", undo)
	}
	return numbers
}

func (s *story) expectPruned(height bitcoin.Height, want bool) {
	s.t.Helper()
	if got, pruned := s.PruneHeight(); got != height || pruned != want {
		s.t.Errorf("pruned up to %d (%v), want %d (%v)", got, pruned, height, want)
	}
}

// TestPruneManually deletes files up to a height, never a block too many, and forgets none of them by a
// restart.
func TestPruneManually(t *testing.T) {
	s := newPruned(t, PruneManual, 1400)
	ctx := context.Background()
	tip := s.Tip()
	before := len(s.files())
	if before < 4 {
		t.Fatalf("%d block files, too few for this test", before)
	}
	s.must(s.Prune(ctx)) // nothing is deleted unasked
	s.must(s.PruneTo(ctx, 1))
	s.expectPruned(0, false)
	first := s.store.Files()[0].LastHeight
	s.must(s.PruneTo(ctx, first-1))
	s.expectPruned(0, false)
	s.must(s.PruneTo(ctx, first))
	s.expectPruned(first, true)
	s.must(s.PruneTo(ctx, tip.Height)) // the last 288 blocks stay
	last, _ := s.PruneHeight()
	if last > tip.Height-MinBlocksToKeep || last <= first {
		t.Errorf("pruned up to %d", last)
	}
	left := len(s.files())
	for range 2 {
		e, _ := s.AtHeight(last)
		if _, err := s.Block(e.Hash); !errors.Is(err, ErrPruned) {
			t.Errorf("pruned block: %v", err)
		}
		if _, err := s.Undo(e.Hash); !errors.Is(err, ErrNoUndo) {
			t.Errorf("pruned undo data: %v", err)
		}
		if e.Txs == 0 || e.ChainTxs == 0 {
			t.Errorf("the numbers of transactions are forgotten: %+v", e)
		}
		after, _ := s.AtHeight(last + 1)
		if _, err := s.Block(after.Hash); err != nil {
			t.Errorf("first block that is left: %v", err)
		}
		if now := len(s.files()); now != left || now >= before {
			t.Errorf("%d files, had %d and %d", now, left, before)
		}
		s.restart()
		if s.Tip().Hash != tip.Hash {
			t.Fatal("the tip is another one")
		}
	}
	// A block that is fetched again is here again, without undo data.
	name := fmt.Sprint("m.", last-1)
	s.add(name)
	if _, err := s.Block(s.hash(name)); err != nil {
		t.Errorf("fetched again: %v", err)
	}
	s.expectPruned(last, true)
	s.close()
	s.cfg.Prune = 0
	var err error
	s.store, err = blockstore.Open(blockstore.Config{Network: s.cfg.Network, FS: s.fs, Dir: "data",
		CacheBytes: 4 << 20, SmallFiles: true})
	s.must(err)
	if _, err := New(s.cfg, s.store); !errors.Is(err, ErrUnprune) {
		t.Errorf("opened to keep all blocks: %v", err)
	}
	s.must(s.store.Close())
	s.cfg.Prune = PruneManual
	s.open()
}

// TestPruneLock keeps what a follower has not taken in, and what it may have to take back.
func TestPruneLock(t *testing.T) {
	s := newPruned(t, PruneManual, 1400)
	ctx := context.Background()
	files := s.store.Files()
	s.LockPruning("follower", files[0].LastHeight+pruneLockBuffer)
	s.must(s.PruneTo(ctx, 1000))
	s.expectPruned(0, false)
	s.LockPruning("follower", files[0].LastHeight+pruneLockBuffer+1)
	s.must(s.PruneTo(ctx, 1000))
	s.expectPruned(files[0].LastHeight, true)
	s.UnlockPruning("follower")
	s.must(s.PruneTo(ctx, 1000))
	if last, _ := s.PruneHeight(); last <= files[0].LastHeight {
		t.Errorf("pruned up to %d only", last)
	}
	s.LockPruning("follower", 1500)
	s.invalidate("m.1395")
	s.mu.Lock()
	lock := s.pruneLocks["follower"]
	s.mu.Unlock()
	if lock != 1395 {
		t.Errorf("after a reorganisation the lock is at %d", lock)
	}
}

// TestPruneAutomatically deletes the oldest files while blocks arrive, as soon as all might take too much, and
// no more than that; no block is lost that could still be needed.
func TestPruneAutomatically(t *testing.T) {
	const room = 200_000 // octets that 1,000 blocks do not fit into
	s := newPruned(t, pruneBuffer+room, 0)
	blocks := s.gen.Run("m", 1400)
	most := int64(0)
	for i, b := range blocks {
		s.mustAdd(b)
		last, pruned := s.PruneHeight()
		if pruned && last > bitcoin.Height(i+1)-MinBlocksToKeep {
			t.Fatalf("at height %d all up to %d is pruned", i+1, last)
		}
		if !pruned {
			most = max(most, s.store.Usage())
		}
	}
	last, pruned := s.PruneHeight()
	if usage := s.store.Usage(); !pruned || usage >= most+0x10000 || most > room+0x10000 {
		t.Errorf("pruned up to %d; the files take %d octets, took %d", last, usage, most)
	}
	files := len(s.files())
	s.restart()
	if again, _ := s.PruneHeight(); again != last || len(s.files()) != files {
		t.Errorf("after a restart all up to %d is pruned, before %d", again, last)
	}
	s.must(s.Prune(context.Background()))
	s.expectVerified(4, 0, VerifyNoData)
	if got := s.gen.Name(s.Tip().Hash); got != "m.1399" {
		t.Errorf("the tip is %s", got)
	}
}

// TestPruneLater waits until the chain is high enough.
func TestPruneLater(t *testing.T) {
	s := newPruned(t, 1, fastPruneAfter)
	s.must(s.Prune(context.Background()))
	s.expectPruned(0, false)
	s.gen.Goto(fmt.Sprint("m.", fastPruneAfter-1))
	for _, b := range s.gen.Run("n", 600) {
		s.mustAdd(b)
	}
	if _, pruned := s.PruneHeight(); !pruned {
		t.Error("nothing was pruned")
	}
}

// TestStopAt ends the way of the chain at a height, with scripts of later blocks under way, and only for
// new tips.
func TestStopAt(t *testing.T) {
	s := newStory(t)
	s.close()
	s.cfg.StopAt = 5
	s.open()
	blocks := s.gen.Run("m", 10)
	for i, b := range blocks {
		if i == 4 {
			select {
			case <-s.Stopped():
				t.Error("stopped early")
			default:
			}
		}
		if _, err := s.Add(context.Background(), b, asked); err != nil {
			t.Fatal(err)
		}
	}
	<-s.Stopped()
	s.expectTip("m.4")
	s.restart()
	select {
	case <-s.Stopped():
		t.Error("stopped without a new tip")
	default:
	}
	s.must(s.wait())
	<-s.Stopped()
	s.expectTip("m.5")
}
