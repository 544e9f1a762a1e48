package chain

import "testing"

// TestReadyBlocks: blocks that came before their parents are kept in memory until they are connected, and
// those that lost are forgotten when there is no room for others.
func TestReadyBlocks(t *testing.T) {
	s := newStory(t)
	s.next("a.1", "a.2", "a.3", "a.4")
	s.gen.Goto("a.1")
	s.next("b.2")
	s.headers("a.1", "a.2", "a.3", "a.4")
	expect := func(when string, names ...string) {
		t.Helper()
		s.mu.Lock()
		defer s.mu.Unlock()
		size := 0
		for _, name := range names {
			hash := s.hash(name)
			if s.ready[s.tree.find(&hash)] == nil {
				t.Errorf("%s %s is not kept", when, name)
			}
			size += s.gen.Block(name).Size()
		}
		if len(s.ready) != len(names) || s.readyBytes != size {
			t.Errorf("%s %d blocks of %d octets are kept, want %d of %d", when, len(s.ready), s.readyBytes,
				len(names), size)
		}
	}
	s.add("a.4", "a.3")
	expect("before their parents", "a.4", "a.3")
	s.add("a.1", "a.2")
	expect("when they are connected")
	s.add("b.2")
	expect("on a branch that lost", "b.2")
	s.next("b.3", "b.4", "b.5", "b.6")
	s.headers("b.3", "b.4", "b.5", "b.6")
	s.add("b.6")
	expect("while others are missing", "b.2", "b.6")
	s.mu.Lock()
	s.readyBytes += maxReady // as if there was much more
	s.forgetLosers()
	s.readyBytes -= maxReady
	s.mu.Unlock()
	expect("without room", "b.6")
	s.add("b.3", "b.4", "b.5")
	s.expectTip("b.6")
	expect("in the end")
}
