package bitcoind

import (
	"testing"
	"time"
)

// TestMeter: half a percent a second, three blocks a second; what was more than half a minute ago does not count,
// nor what another piece of work did.
func TestMeter(t *testing.T) {
	var m meter
	now := time.Unix(1_700_000_000, 0)
	step := func(doing string, fraction, blocks float64) Status {
		now = now.Add(time.Second)
		s := Status{Doing: doing, Fraction: fraction}
		m.add(&s, now, blocks)
		return s
	}
	if s := step("a", 0.1, 50); s.Rate != 0 || s.Left != 0 {
		t.Errorf("a rate out of one measurement: %+v", s)
	}
	step("a", 0.1, 1050)
	var s Status
	for i := range 40 {
		s = step("a", 0.1+float64(i)*0.005, 1050+3*float64(i))
	}
	if s.Rate < 2.99 || s.Rate > 3.01 || s.Left.Round(time.Second) != 141*time.Second {
		t.Errorf("rate %v, left %v", s.Rate, s.Left)
	}
	if s := step("b", 0.5, 7); s.Rate != 0 || s.Left != 0 {
		t.Errorf("the rate of what was before: %+v", s)
	}
	if s := step("b", 0.4, 3); s.Rate != 0 || s.Left != 0 {
		t.Errorf("backwards: %+v", s)
	}
}

func TestStatusLine(t *testing.T) {
	for _, c := range []struct {
		s    Status
		want string
	}{
		{Status{Fraction: -1}, ""},
		{Status{Doing: "Loading block index…", Fraction: -1}, "Loading block index…"},
		{Status{Doing: "Synchronizing blocks", Fraction: 0.1234, Height: 100, Headers: 900, Rate: 35.4,
			Left: 2*time.Hour + 5*time.Minute + 10*time.Second, In: 3, Out: 5},
			"Synchronizing blocks  12.3%  height 100 of 900  35 blocks/s  2h5m left  8 peers"},
		{Status{Doing: "Importing blocks", Detail: "blk00001.dat", Height: 9, Headers: 9, Rate: 0.25},
			"Importing blocks  0.0%  height 9  0.2 blocks/s  0 peers  blk00001.dat"},
	} {
		if got := c.s.String(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestRound(t *testing.T) {
	for want, d := range map[string]time.Duration{"0s": time.Millisecond, "59s": 59400 * time.Millisecond,
		"9m59s": 599 * time.Second, "10m": 601 * time.Second, "1h0m": time.Hour, "23h59m": 24*time.Hour - time.Minute,
		"1d0h": 24 * time.Hour, "3d4h": 76*time.Hour + time.Minute} {
		if got := round(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
