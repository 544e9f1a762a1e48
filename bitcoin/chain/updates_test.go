package chain

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
)

// follower keeps the blocks that it was told of, the way a wallet or an index would.
type follower struct {
	t      *testing.T
	cursor Cursor
	blocks []bitcoin.Hash
	max    int
}

// pull follows the chain by one answer, and checks that each step fits.
func (f *follower) pull(s *story) (more bool) {
	f.t.Helper()
	u, err := s.UpdatesSince(f.cursor, f.max)
	if err != nil {
		f.t.Fatal(err)
	}
	if n := len(u.Reverted) + len(u.Applied); n > f.max {
		f.t.Fatalf("%d updates, asked for %d", n, f.max)
	}
	for _, e := range u.Reverted {
		last := len(f.blocks) - 1
		if last < 0 || f.blocks[last] != e.Hash {
			f.t.Fatalf("revert %v, which is not the last block", s.gen.Name(e.Hash))
		}
		f.blocks = f.blocks[:last]
	}
	for _, e := range u.Applied {
		if int(e.Height) != len(f.blocks) ||
			e.Height > 0 && f.blocks[e.Height-1] != e.Header.PrevBlock {
			f.t.Fatalf("apply %v, which does not follow", s.gen.Name(e.Hash))
		}
		f.blocks = append(f.blocks, e.Hash)
	}
	f.cursor = u.Next
	return len(u.Reverted)+len(u.Applied) > 0
}

// TestUpdatesSince lets followers of different pace watch a chain that grows, forks, is invalidated
// and reconsidered at random. Whatever they are told must fit what they know, and lead to the tip.
func TestUpdatesSince(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	s := newStory(t)
	names := []string{"genesis"}
	followers := []*follower{{t: t, max: 1}, {t: t, max: 2}, {t: t, max: 7}, {t: t, max: 1000}}
	for i := range 400 {
		switch k := rng.IntN(20); {
		case k < 14:
			s.gen.Goto(names[max(0, len(names)-1-rng.IntN(4))])
			name := fmt.Sprint("b", i)
			s.next(name)
			if _, err := s.Add(context.Background(), s.gen.Block(name), asked); err == nil {
				names = append(names, name)
			}
		case k < 16 && len(names) > 1:
			s.invalidate(names[max(1, len(names)-1-rng.IntN(5))])
		case k < 18 && len(names) > 1:
			s.reconsider(names[1+rng.IntN(len(names)-1)])
		}
		for _, f := range followers {
			if rng.IntN(2) == 0 {
				f.pull(s)
			}
		}
	}
	for _, f := range followers {
		for f.pull(s) {
		}
		if tip := s.Tip(); len(f.blocks) != int(tip.Height)+1 || f.blocks[tip.Height] != tip.Hash {
			t.Errorf("follower of pace %d ends with %d blocks, the tip is at %d",
				f.max, len(f.blocks), tip.Height)
		}
	}
	if _, err := s.UpdatesSince(Cursor{Hash: bitcoin.Hash{1}}, 1); !errors.Is(err, ErrUnknownBlock) {
		t.Errorf("cursor of another chain: %v", err)
	}
}

func TestWakeUps(t *testing.T) {
	s := newStory(t)
	woken := 0
	cancel := s.OnTip(func() { woken++ })
	s.next("a1", "a2")
	s.add("a1")
	if woken == 0 {
		t.Error("not woken by a new tip")
	}
	woken = 0
	s.headers("a2")
	if woken == 0 {
		t.Error("not woken by a new best header")
	}
	cancel()
	woken = 0
	s.add("a2")
	if woken != 0 {
		t.Error("woken after cancel")
	}
}

func TestLocator(t *testing.T) {
	s := newStory(t)
	for _, b := range s.gen.Run("a", 50) {
		s.mustAdd(b)
	}
	s.gen.Goto("a.40")
	s.next("b.41", "b.42")
	s.headers("b.41", "b.42")
	var names []string
	for _, hash := range s.Locator(bitcoin.Hash{}) {
		names = append(names, s.gen.Name(hash))
	}
	// eleven blocks in a row, then steps of 2, 4, 8, 16
	want := "[a.49 a.48 a.47 a.46 a.45 a.44 a.43 a.42 a.41 a.40 a.39 a.37 a.33 a.25 a.9 genesis]"
	if fmt.Sprint(names) != want {
		t.Errorf("locator %v,\nwant %v", names, want)
	}
	fork := s.FindFork(s.Locator(s.hash("b.42")))
	if name := s.gen.Name(fork.Hash); name != "a.40" {
		t.Errorf("fork with b.42 at %s", name)
	}
	if e, ok := s.Fork(s.hash("b.42"), s.hash("a.49")); !ok || e.Hash != s.hash("a.40") {
		t.Errorf("fork of b.42 and a.49 at %s", s.gen.Name(e.Hash))
	}
	headers := s.HeadersAfter(s.Locator(s.hash("b.42")), s.hash("a.45"), 2000)
	if len(headers) != 5 || headers[4].Hash() != s.hash("a.45") {
		t.Errorf("%d headers after a.40 up to a.45", len(headers))
	}
	if h := s.HeadersAfter(nil, s.hash("b.41"), 2000); len(h) != 1 || h[0].Hash() != s.hash("b.41") {
		t.Errorf("%d headers without a locator", len(h))
	}
	if h := s.HashesAfter([]bitcoin.Hash{{1}}, bitcoin.Hash{}, 3); len(h) != 3 ||
		h[0] != s.hash("a.0") {
		t.Errorf("%d hashes after an unknown locator", len(h))
	}
	path := s.Path(s.hash("b.42"), 40, 100)
	if len(path) != 4 || path[0].Hash != s.hash("a.39") || path[3].Hash != s.hash("b.42") {
		t.Errorf("path of %d blocks", len(path))
	}
	for height := range bitcoin.Height(43) {
		e, ok := s.Ancestor(s.hash("b.42"), height)
		if !ok || e.Height != height {
			t.Errorf("ancestor at %d: %d, %v", height, e.Height, ok)
		}
	}
}
