package bitcoind

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/internal/clock"
)

// Status is how far the node has come.
type Status struct {
	Doing    string        // what it has to do before it is of use, or beside that; empty: nothing
	Detail   string        // a file's name and the like
	Fraction float64       // of it that is done, from 0 to 1; negative where that cannot be said
	Rate     float64       // blocks a second, as of late
	Left     time.Duration // until it is done, at that rate; 0 where unknown

	Height  bitcoin.Height // of the tip
	Headers bitcoin.Height // of the best header
	Tip     bitcoin.Hash
	TipTime time.Time
	Synced  bool // the initial download is over
	In, Out int  // peers, by who connected
}

// String returns the status as one line, empty where there is nothing to tell of.
func (s *Status) String() string {
	if s.Doing == "" {
		return ""
	}
	var b strings.Builder
	b.WriteString(s.Doing)
	if s.Fraction >= 0 {
		fmt.Fprintf(&b, "  %.1f%%  height %d", 100*s.Fraction, s.Height)
		if s.Headers > s.Height {
			fmt.Fprintf(&b, " of %d", s.Headers)
		}
		if s.Rate > 0 {
			fmt.Fprintf(&b, "  %.*f blocks/s", decimals(s.Rate), s.Rate)
		}
		if s.Left > 0 {
			fmt.Fprintf(&b, "  %s left", round(s.Left))
		}
		fmt.Fprintf(&b, "  %d peers", s.In+s.Out)
	}
	if s.Detail != "" {
		b.WriteString("  " + s.Detail)
	}
	return b.String()
}

// decimals is how many digits behind the point a rate is worth.
func decimals(rate float64) int {
	if rate < 10 {
		return 1
	}
	return 0
}

// round returns a time in two units at most, as "2d3h", "3h5m" or "40s".
func round(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= day:
		d = d.Round(time.Hour)
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		d = d.Round(time.Minute)
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= 10*time.Minute:
		return fmt.Sprintf("%dm", d.Round(time.Minute)/time.Minute)
	}
	return d.Round(time.Second).String()
}

// meter tells how fast something goes by what it was over the last half minute.
type meter struct {
	what    string
	samples []sample // the oldest first
}

type sample struct {
	at       time.Time
	fraction float64
	blocks   float64
}

// meterSpan is over which time rates are taken: long enough to even out large blocks, short enough to
// follow what the machine does.
const meterSpan = 30 * time.Second

// add notes where things are, and sets rate and time left.
func (m *meter) add(s *Status, now time.Time, blocks float64) {
	if m.what != s.Doing {
		m.what, m.samples = s.Doing, nil
	}
	for len(m.samples) > 1 && now.Sub(m.samples[0].at) > meterSpan {
		m.samples = m.samples[1:]
	}
	m.samples = append(m.samples, sample{now, s.Fraction, blocks})
	first := m.samples[0]
	took := now.Sub(first.at).Seconds()
	if took <= 0 {
		return
	}
	s.Rate = max(blocks-first.blocks, 0) / took
	if gained := s.Fraction - first.fraction; gained > 0 && s.Fraction < 1 {
		s.Left = time.Duration(min((1-s.Fraction)/gained*took, 1<<32) * float64(time.Second))
	}
}

// Status returns how far the node has come. It may be called at any time.
func (n *Node) Status() Status {
	if s := n.status.Load(); s != nil {
		return *s
	}
	return Status{Doing: "Starting", Fraction: -1}
}

// show makes a status the one that is shown.
func (n *Node) show(s Status) {
	n.status.Store(&s)
	n.cfg.Line.Set(s.String())
}

const (
	// progressInterval is how often it is told in the log how far an import has come.
	progressInterval = 10 * time.Second
	// showInterval is how often it is looked how far the node has come.
	showInterval = 500 * time.Millisecond
)

// watchProgress looks how far the node has come, and tells, until the context ends.
func (n *Node) watchProgress(ctx context.Context) {
	var m meter
	var told time.Time
	busy := false
	for {
		now := time.Now()
		s, importing := n.measure(now, &m)
		n.show(s)
		if busy && s.Synced && s.Doing == "" {
			n.unwind(ctx)
		}
		busy = !s.Synced || s.Doing != ""
		if told.IsZero() || s.Doing == "" {
			told = now
		}
		if importing && now.Sub(told) >= progressInterval {
			n.log.Info(s.String())
			told = now
		}
		if clock.Sleep(ctx, clock.Real{}, showInterval) != nil {
			s.Doing, s.Detail, s.Fraction = "Shutting down", "", -1
			n.show(s)
			return
		}
	}
}

// unwind gives the memory back to the system that catching up took: the collector would keep as much again as
// is in use, for a next time that does not come.
func (n *Node) unwind(ctx context.Context) {
	if n.chain.HeadersOnly() { // what is to be written is little, and would take memory again
		if err := n.chain.Flush(ctx); err != nil && ctx.Err() == nil {
			n.fail(err)
			return
		}
	}
	debug.FreeOSMemory()
}

// measure looks how far the node has come. importing says that only the log tells of it, or of an index;
// blocks from peers have a line each in the log.
func (n *Node) measure(now time.Time, m *meter) (s Status, importing bool) {
	tip, best := n.chain.Tip(), n.chain.BestHeader()
	s = Status{Fraction: -1, Height: tip.Height, Headers: best.Height, Tip: tip.Hash,
		TipTime: time.Unix(int64(tip.Header.Time), 0), Synced: !n.p2p.InitialDownload()}
	s.In, s.Out = n.p2p.Counts()
	if p := n.chain.Importing(); p != nil && p.Total > 0 {
		s.Doing, s.Detail = "Importing blocks", p.Name
		s.Fraction = float64(p.Done) / float64(p.Total)
		m.add(&s, now, float64(p.Blocks))
		return s, true
	}
	if !s.Synced && n.syncing(&s, best, now) {
		blocks := s.Height
		if s.Height >= best.Height {
			blocks = s.Headers // the rate is that of headers
		}
		m.add(&s, now, float64(blocks))
		return s, false
	}
	for _, x := range n.indexes.All() {
		if i := x.Status(); !i.Synced && tip.Height > 0 {
			s.Doing = "Building " + i.Name
			s.Fraction = float64(i.Height) / float64(tip.Height)
			m.add(&s, now, float64(i.Height))
			return s, true
		}
	}
	return s, false
}

// syncing says what the initial download is at; false where it waits for nothing that can be measured.
func (n *Node) syncing(s *Status, best chain.Entry, now time.Time) bool {
	if best.Height > s.Height { // the blocks of known headers
		s.Doing, s.Fraction = "Synchronizing blocks", float64(s.Height)/float64(best.Height)
		if n.cfg.Network.TxStats.Count > 0 {
			s.Fraction = n.chain.Progress(s.Tip)
		}
		return true
	}
	if s.In+s.Out == 0 {
		s.Doing = "Looking for peers"
		return false
	}
	s.Doing = "Synchronizing headers"
	spacing := n.cfg.Network.TargetSpacing
	since := time.Unix(int64(best.Header.Time), 0)
	for _, p := range n.p2p.Peers() {
		if p.PresyncHeight > s.Headers {
			s.Doing, s.Headers = "Pre-synchronizing headers", p.PresyncHeight
			since = time.Unix(int64(n.cfg.Network.Genesis.Header.Time), 0).
				Add(time.Duration(s.Headers) * spacing)
		}
	}
	missing := max(now.Sub(since), 0) / spacing
	s.Fraction = float64(s.Headers) / float64(max(int64(s.Headers)+int64(missing), 1))
	return true
}
