package chain

import (
	"context"
	"testing"
)

// genesis -> a1 -> a2 -> a3
//
//	\-> b1 -> b2 -> b3 -> b4
//
// Where headers are all there is, the tip goes to the most work without any block, to another
// branch too, and is there again after a restart. What was never judged by the rules is judged when
// the same directory is used by a node that keeps blocks.
func TestHeadersOnly(t *testing.T) {
	s := newStory(t)
	s.close()
	s.cfg.HeadersOnly = true
	s.open()
	expectTip := func(name string) { // that of story looks at coins
		t.Helper()
		if tip := s.Tip().Hash; tip != s.hash(name) {
			t.Fatalf("the tip is %s, want %s", s.gen.Name(tip), name)
		}
	}
	follow := &follower{t: t, max: 2}
	pull := func() {
		t.Helper()
		for follow.pull(s) {
		}
		if tip := s.Tip(); follow.blocks[len(follow.blocks)-1] != tip.Hash {
			t.Errorf("a follower ends at %v", follow.blocks)
		}
	}
	s.next("a1", "a2", "a3")
	s.headers("a1", "a2", "a3")
	expectTip("a3")
	pull()
	s.gen.Goto("genesis")
	s.next("b1", "b2", "b3", "b4")
	s.headers("b1", "b2", "b3")
	expectTip("a3")
	s.headers("b4")
	expectTip("b4")
	pull()
	if outcome, err := s.Add(context.Background(), s.gen.Block("a1"), asked); outcome != Ignored || err != nil {
		t.Errorf("a block: %v, %v", outcome, err)
	}
	s.invalidate("b2")
	expectTip("a3")
	pull()
	s.restart()
	expectTip("a3")
	s.reconsider("b2")
	expectTip("b4")
	pull()
	s.invalidate("a2")
	expectTip("b4")

	s.close()
	s.cfg.HeadersOnly = false
	s.open()
	s.expectTip("genesis")
	s.add("b1", "b2", "b3", "b4")
	s.expectTip("b4")
}
