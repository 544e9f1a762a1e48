package chain

import (
	"context"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
)

// newSpending is a story whose last blocks spend coins.
func newSpending(t *testing.T) *story {
	s := newMature(t, 8)
	for i := range 8 {
		name := fmt.Sprint("s", i)
		s.gen.Next(name, chaintest.With(chaintest.Spend(bitcoin.Amount(i), s.gen.Coinbase(fmt.Sprint("m.", i)))))
		s.add(name)
	}
	return s
}

func (s *story) expectVerified(level, blocks int, want Verification) {
	s.t.Helper()
	got, err := s.Verify(context.Background(), level, blocks, nil)
	if err != nil || got != want {
		s.t.Errorf("level %d, %d blocks: %d, %v; want %d", level, blocks, got, err, want)
	}
}

// TestVerify looks at a chain that is in order at every level, and changes nothing.
func TestVerify(t *testing.T) {
	s := newSpending(t)
	for level := -1; level <= 5; level++ {
		for _, blocks := range []int{-1, 0, 1, 6, 1000} {
			s.expectVerified(level, blocks, VerifySound)
		}
	}
	s.expectTip("s7")
	last := 0
	_, err := s.Verify(context.Background(), 4, 0, func(percent int) {
		if percent <= last || percent > 99 {
			t.Errorf("%d %% after %d %%", percent, last)
		}
		last = percent
	})
	if err != nil || last < 90 {
		t.Errorf("progress ended at %d %%: %v", last, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if got, err := s.Verify(ctx, 4, 0, nil); got != VerifyCancelled || err != nil {
		t.Errorf("broken off: %d, %v", got, err)
	}
}

// overwrite changes octets of a file.
func (s *story) overwrite(name string, at int64) {
	s.t.Helper()
	f, err := s.fs.OpenReadWrite("data/blocks/"+name, vfs.WriteCategoryUnspecified)
	s.must(err)
	_, err = f.WriteAt([]byte("spoilt spoilt spoilt spoilt"), at)
	s.must(err)
	s.must(f.Close())
}

// TestVerifyFinds what was changed behind the node's back, at the level that looks at it and not below.
func TestVerifyFinds(t *testing.T) {
	position := func(s *story, name string) *body {
		s.mu.Lock()
		defer s.mu.Unlock()
		h := s.gen.Block(name).Hash()
		return s.tree.body(s.tree.find(&h))
	}
	for _, c := range []struct {
		what  string
		spoil func(*story)
		level int // at which it is found
	}{
		{"header", func(s *story) { s.overwrite("blk00000.dat", int64(position(s, "s5").data)+10) }, 0},
		{"transactions", func(s *story) { s.overwrite("blk00000.dat", int64(position(s, "s5").data)+89) }, 1},
		{"undo data", func(s *story) { s.overwrite("rev00000.dat", int64(position(s, "s5").undo)+5) }, 2},
		{"coins", func(s *story) { // as if one block had not been connected
			h := s.hash("s5")
			_, reversal, err := s.reversal(s.main, s.tree.find(&h))
			s.must(err)
			s.main.coins.Revert(reversal, s.Tip().Hash)
		}, 3},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := newSpending(t)
			s.must(s.Flush(context.Background()))
			c.spoil(s)
			for level := range 5 {
				want := VerifySound
				if level >= c.level {
					want = VerifyCorrupt
				}
				s.expectVerified(level, 6, want)
			}
			s.expectVerified(4, 1, VerifySound) // the last block is in order
		})
	}
}
