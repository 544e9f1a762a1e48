package relay

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

// ledger is a journal that only counts.
type ledger struct{ n uint64 }

func (l *ledger) Append(events []mail.Event) (indexes []uint64, writes []queue.Write, err error) {
	for range events {
		indexes = append(indexes, l.n)
		l.n++
	}
	return indexes, nil, nil
}

func (l *ledger) Committed()     {}
func (l *ledger) Origin() string { return "test.example/log" }

// TestUnderTheQueue: hundreds of messages for dozens of domains of one site, which is slow, and for a while says
// that it gets too much. It never has more connections than it may, other mail does not wait for it, and
// everything arrives once.
func TestUnderTheQueue(t *testing.T) {
	bubble(t, func(c *Config) { c.MaxConnections, c.IdleTimeout = 8, time.Minute }, func(w *world) {
		slow := w.remote("mx1.example", "192.0.2.1", answers{"greeting": "421 4.7.0 too many connections"})
		other := w.remote("mx2.example", "192.0.2.2", nil)
		w.mx("other.example", "10 mx2.example")
		for i := range 30 {
			w.mx(fmt.Sprintf("d%d.example", i), "10 mx1.example")
		}
		q, err := queue.Open(queue.Config{}, queue.NewMemory(), &ledger{}, w.relay, nil, clock.Real{},
			slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := q.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		submit := func(to string) {
			m := q.NewMessage()
			io.WriteString(m, "Subject: "+to+"\r\n\r\nhello\r\n")
			env := mail.Envelope{From: parse("a@us.example"), Recipients: []mail.Recipient{{Address: parse(to)}}}
			if _, err := m.Commit(ctx, nil, env, mail.Event{}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 300 {
			submit(fmt.Sprintf("u%d@d%d.example", i/30, i%30))
		}
		submit("u@other.example")
		time.Sleep(time.Second)
		if n := len(other.got()); n != 1 {
			t.Errorf("the mail for another site waits: %d", n)
		}
		time.Sleep(10 * time.Minute)
		slow.set("greeting", "220 hello")
		slow.set(".", "SLOW 250 ok")
		begun := time.Now()
		for q.Stats().Messages > 0 && time.Since(begun) < 24*time.Hour {
			time.Sleep(time.Minute)
		}
		// A minute for each message and 8 at a time are 40 minutes; the rest is waiting for turns.
		if took := time.Since(begun); took > 3*time.Hour {
			t.Errorf("%d messages are left after %v", q.Stats().Messages, took)
		}
		seen := make(map[string]bool)
		for _, m := range slow.got() {
			if seen[m] {
				t.Errorf("twice: %q", m)
			}
			seen[m] = true
		}
		if _, most := slow.connections(); len(seen) != 300 || most > 9 { // one may be about to close
			t.Errorf("%d of 300 arrived, %d connections at a time", len(seen), most)
		}
		cancel()
		wg.Wait()
	})
}
