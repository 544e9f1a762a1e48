package chain

import (
	"testing"
	"time"
)

// TestProgress: close to the end blocks count, and at the end it is 1 whatever the miner said of the time; far
// from it, time does.
func TestProgress(t *testing.T) {
	s := newStory(t)
	s.next("a1", "a2", "a3", "a4")
	s.add("a1", "a2", "a3", "a4")
	at := func(name string) float64 { return s.Progress(s.hash(name)) }
	s.clock.Set(time.Unix(int64(s.Tip().Header.Time)+3600, 0))
	if p := at("a4"); p != 1 {
		t.Errorf("an hour after the tip: %v", p)
	}
	if p, q := at("a2"), at("a3"); !(0 < p && p < q && q < 1) {
		t.Errorf("one and two blocks from the tip: %v, %v", q, p)
	}
	near := at("a4")
	s.clock.Set(time.Unix(int64(s.Tip().Header.Time)+48*3600, 0))
	if p := at("a4"); p >= near || p <= 0 {
		t.Errorf("two days after the tip: %v", p)
	}
}
