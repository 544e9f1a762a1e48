package queue_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/durable"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

// events returns everything the ledger has in a store, in order.
func events(t testing.TB, store queue.Store) (list []map[string]any) {
	t.Helper()
	err := queue.JournalSection(store).Scan([]byte("e"), nil, func(_, value []byte) bool {
		var e map[string]any
		if err := json.Unmarshal(value, &e); err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// check wants a store to be consistent, and the ledger to have an entry for each index without a
// gap.
func check(store queue.Store) error {
	next := uint64(0)
	err := queue.JournalSection(store).Scan([]byte("e"), nil, func(key, _ []byte) bool {
		if string(key) != string(ledgerKey(next)) {
			next = 1 << 40
			return false
		}
		next++
		return true
	})
	if err != nil || next == 1<<40 {
		return fmt.Errorf("the log has gaps (%w)", err)
	}
	return queue.Check(store, func(index uint64) (mail.EventKind, mail.ID, error) {
		e, err := entry(store, index)
		return e.Kind, e.ID, err
	})
}

func entry(store queue.Store, index uint64) (e mail.Event, err error) {
	b, err := queue.JournalSection(store).Get(ledgerKey(index))
	if err == nil {
		err = json.Unmarshal(b, &e)
	}
	return e, err
}

// world is what lasts when the server crashes: what senders were promised and what recipients got.
type world struct {
	mu    sync.Mutex
	acked map[mail.ID]acked
	got   map[string]int // deliveries by "text recipient"
}

type acked struct {
	receipt queue.Receipt
	text    string
	to      []string
}

func newWorld() *world {
	return &world{acked: make(map[mail.ID]acked), got: make(map[string]int)}
}

func (w *world) submit(q *queue.Queue, text string, to ...string) error {
	receipt, err := submit(q, envelope("sender@local.example", to...), text)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acked[receipt.ID] = acked{receipt, trace + text, to}
	return nil
}

// Deliver takes mail for good@, puts off the first attempt for slow@, and refuses bad@.
func (w *world) deliver(_ context.Context, d *queue.Delivery) []queue.Result {
	text := make([]byte, d.Size)
	if n, err := d.Body.ReadAt(text, 0); n < len(text) {
		return same(d, later(fmt.Sprint("body: ", err)))
	}
	results := make([]queue.Result, len(d.Envelope.Recipients))
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, to := range d.Envelope.Recipients {
		switch {
		case to.Address.Local == "bad":
			results[i] = queue.Result{Outcome: queue.Failed, Status: "5.1.1", Reply: "550 5.1.1 no such user"}
		case to.Address.Local == "slow" && d.Attempt < 3:
			results[i] = later(fmt.Sprintf("450 4.2.0 attempt %d", d.Attempt))
		default:
			w.got[string(text)+" "+to.Address.String()]++
			results[i] = queue.Result{Outcome: queue.Delivered, Status: "2.0.0", Reply: "250 ok"}
		}
	}
	return results
}

// live opens the queue of a disk and has f use it while it runs.
func (w *world) live(fs vfs.FS, f func(q *queue.Queue, clk *clock.Mock)) (err error) {
	store, err := queue.OpenDisk(queue.DiskConfig{
		Dir: "/spool/queue", FS: fs, SegmentBytes: 64 << 10, CacheBytes: 1 << 20,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := check(store); err != nil {
		return fmt.Errorf("after start: %w", err)
	}
	ledger, err := openLedger(queue.JournalSection(store))
	if err != nil {
		return err
	}
	clk := clock.NewMock(start)
	q, err := queue.Open(queue.Config{}, store, ledger, &postman{deliver: w.deliver}, scribe{}, clk, quiet())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- q.Run(ctx) }()
	f(q, clk)
	cancel()
	if err := <-done; err != nil {
		return err
	}
	if err := check(store); err != nil {
		return fmt.Errorf("after the end: %w", err)
	}
	return nil
}

// work sends messages through the queue: several at a time, of all sizes, to all kinds of
// recipients.
func (w *world) work(q *queue.Queue, clk *clock.Mock) {
	var wg sync.WaitGroup
	for n, m := range []struct {
		size int
		to   []string
	}{
		{100, []string{"good@example.com"}},
		{3000, []string{"slow@example.com", "good@example.net"}},
		{90 << 10, []string{"good@example.com", "bad@example.com", "slow@example.net"}},
		{500, []string{"bad@example.net"}},
		{20 << 10, []string{"slow@example.com"}},
		{10, []string{"good@local.example"}},
	} {
		text := strings.Repeat(fmt.Sprintf("message %d\r\n", n), m.size/11+1)
		wg.Go(func() { w.submit(q, text, m.to...) })
		if n%2 == 1 {
			wg.Wait()
		}
	}
	drain(q, clk, 1)
}

// drain moves the clock until the queue is empty, or broken, but not beyond a day after the start,
// or two in a later life: what is put off in the first must be due in the next, and nothing may
// expire.
func drain(q *queue.Queue, clk *clock.Mock, days int) bool {
	for range 20000 {
		if q.Accepting() != nil {
			return false
		}
		s := q.Stats()
		if s.Messages == 0 {
			return true
		}
		next, ok := clk.Next()
		if ok && s.States[queue.StateDue]+s.States[queue.StateActive] == 0 && next.Sub(start) < time.Duration(days)*24*time.Hour {
			clk.Set(next)
		}
		time.Sleep(50 * time.Microsecond)
	}
	return false
}

// promises checks that every acknowledged message is there, its log entry where the sender was
// told, and after the queue has run to its end that every recipient got it, or the sender a report.
func (w *world) promises(fs vfs.FS) error {
	empty, left := false, ""
	err := w.live(fs, func(q *queue.Queue, clk *clock.Mock) {
		for id := range w.acked {
			if _, err := q.Show(context.Background(), id); err != nil {
				return
			}
		}
		if empty = drain(q, clk, 2); !empty {
			list, _ := q.List(context.Background(), queue.Selector{}, 3)
			b, _ := json.Marshal(list)
			left = fmt.Sprintf("at %v: %+v %s", clk.Now(), q.Stats(), b)
		}
	})
	if err != nil {
		return err
	}
	if !empty {
		return fmt.Errorf("the queue did not come to an end: %s", left)
	}
	for id, m := range w.acked {
		for _, to := range m.to {
			n := w.got[m.text+" "+to]
			if bad := strings.HasPrefix(to, "bad"); bad && !w.reported(id) || !bad && n == 0 {
				return fmt.Errorf("message %v to %s was acknowledged and came nowhere\n%s", id, to, w.story(fs, id))
			}
		}
	}
	return w.entries(fs)
}

// story is what the store knows of a message, for who has to find out what happened.
func (w *world) story(fs vfs.FS, id mail.ID) (story string) {
	w.live(fs, func(q *queue.Queue, _ *clock.Mock) {
		x, err := q.Show(context.Background(), id)
		b, _ := json.MarshalIndent(x, "", "  ")
		story = fmt.Sprintf("%s %v", b, err)
	})
	return story
}

func (w *world) reported(id mail.ID) bool {
	for text := range w.got {
		if strings.Contains(text, fmt.Sprintf("<report-%v-0@", id)) {
			return true
		}
	}
	return false
}

// entries wants the log entry of each acknowledged message where its receipt says.
func (w *world) entries(fs vfs.FS) error {
	store, err := queue.OpenDisk(queue.DiskConfig{Dir: "/spool/queue", FS: fs, SegmentBytes: 64 << 10})
	if err != nil {
		return err
	}
	defer store.Close()
	for id, m := range w.acked {
		e, err := entry(store, m.receipt.Index)
		if err != nil || e.ID != id || e.Kind != mail.SubmissionAcceptance {
			return fmt.Errorf("entry %d is %v of %v (%v), the receipt promised the acceptance of %v",
				m.receipt.Index, e.Kind, e.ID, err, id)
		}
	}
	return nil
}

// churn sends so much that segments are used again, with some messages that stay and have to be
// moved.
func (w *world) churn(q *queue.Queue, clk *clock.Mock) {
	for n := range 40 {
		to := "good@example.com"
		if n%8 == 1 {
			to = "slow@example.com"
		}
		w.submit(q, strings.Repeat(fmt.Sprintf("message %d\r\n", n), 2000), to)
	}
	drain(q, clk, 1)
}

// TestCrash cuts the power before each operation on the disk while mail goes through the queue,
// with nothing, half or all of what was not synced kept, and wants every promise to hold. Of the
// long scenario it takes a part, another for each kind of loss; TALLYPOST_CRASH=all takes every
// operation.
func TestCrash(t *testing.T) {
	all := os.Getenv("TALLYPOST_CRASH") == "all"
	for _, scenario := range []struct {
		name     string
		do       func(*world, *queue.Queue, *clock.Mock)
		messages int
		step     int
	}{{"mixed", (*world).work, 6, 3}, {"churn", (*world).churn, 40, 29}} {
		count := durable.NewFaults(nil)
		w := newWorld()
		if err := w.live(count, w.bind(scenario.do)); err != nil {
			t.Fatal(err)
		}
		if len(w.acked) != scenario.messages {
			t.Fatalf("%d messages of %d were acknowledged", len(w.acked), scenario.messages)
		}
		step := scenario.step
		if all {
			step = 1
		}
		t.Logf("%s: %d operations", scenario.name, count.Ops())
		for n, keep := range []int{0, 100, 50} {
			t.Run(fmt.Sprintf("%s/keep%d", scenario.name, keep), func(t *testing.T) {
				t.Parallel()
				for cut := 1 + n%step; cut <= count.Ops(); cut += step {
					crashOnce(t, cut, keep, scenario.do)
				}
			})
		}
	}
}

func (w *world) bind(do func(*world, *queue.Queue, *clock.Mock)) func(*queue.Queue, *clock.Mock) {
	return func(q *queue.Queue, clk *clock.Mock) { do(w, q, clk) }
}

func crashOnce(t *testing.T, cut, keep int, do func(*world, *queue.Queue, *clock.Mock)) {
	fs := durable.NewFaults(nil)
	fs.CutPower(cut, keep, uint64(cut))
	w := newWorld()
	w.live(fs, w.bind(do))
	if fs.Image() == nil {
		return // fewer operations this time
	}
	if err := w.promises(durable.NewFaults(fs.Image())); err != nil {
		t.Errorf("cut before operation %d, %d %% kept: %v", cut, keep, err)
	}
}
