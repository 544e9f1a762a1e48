package eventlog

import (
	"fmt"
	"testing"

	"github.com/tallypost/tallypost/mail/queue"
)

// BenchmarkAppend is the cost of a leaf, canonical event and all, by the size of the group.
func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 20, 100} {
		b.Run(fmt.Sprintf("group=%d", n), func(b *testing.B) {
			w := newBench(b)
			group := events(0, n)
			b.ReportAllocs()
			done := 0
			for b.Loop() {
				if _, _, err := w.log.Append(group); err != nil {
					b.Fatal(err)
				}
				w.log.Committed()
				done += n
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(done), "ns/leaf")
		})
	}
}

func BenchmarkCanonical(b *testing.B) {
	ev := event(2)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ev.Canonical(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkProve(b *testing.B) {
	w := newBench(b)
	for range 100 {
		w.Add(events(len(w.events), 1000)...)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.log.Prove(50_000); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	w := newBench(b)
	for range 65 {
		w.Add(events(len(w.events), 1000)...)
	}
	for b.Loop() {
		if _, err := Open(w.cfg, w.store); err != nil {
			b.Fatal(err)
		}
	}
}

var (
	_ queue.Journal = (*Log)(nil)
	_ Section       = queue.Section(nil)
)
