package queue_test

import (
	"bytes"
	"context"
	"encoding/binary"
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

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// ledger is a Journal that keeps each event whole, under its index.
type ledger struct {
	section   queue.Section
	mu        sync.Mutex
	next      uint64
	committed uint64
}

func openLedger(section queue.Section) (*ledger, error) {
	l := &ledger{section: section}
	err := section.Scan([]byte("e"), nil, func(key, _ []byte) bool {
		l.next = binary.BigEndian.Uint64(key[1:]) + 1
		return true
	})
	l.committed = l.next
	return l, err
}

func ledgerKey(index uint64) []byte { return binary.BigEndian.AppendUint64([]byte("e"), index) }

func (l *ledger) Append(events []mail.Event) (indexes []uint64, writes []queue.Write, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		b, err := e.Canonical()
		if err != nil {
			return nil, nil, err
		}
		indexes = append(indexes, l.next)
		writes = append(writes, queue.Write{Key: ledgerKey(l.next), Value: b})
		l.next++
	}
	return indexes, writes, nil
}

func (l *ledger) Committed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.committed = l.next
}

func (l *ledger) Origin() string { return "test.example/log" }

// postman is a Deliverer that does what a test says.
type postman struct {
	deliver func(ctx context.Context, d *queue.Delivery) []queue.Result
	route   func(to mail.Address) queue.Route
}

func (p *postman) Route(to mail.Address) queue.Route {
	if p.route != nil {
		return p.route(to)
	}
	if to.Domain == "local.example" {
		return "local"
	}
	return queue.Route("smtp:" + string(to.Domain))
}

func (p *postman) Deliver(ctx context.Context, d *queue.Delivery) []queue.Result {
	if p.deliver == nil {
		return same(d, queue.Result{Outcome: queue.Delivered, Status: "2.0.0", Reply: "250 ok"})
	}
	return p.deliver(ctx, d)
}

// same gives every recipient one result.
func same(d *queue.Delivery, r queue.Result) []queue.Result {
	results := make([]queue.Result, len(d.Envelope.Recipients))
	for i := range results {
		results[i] = r
	}
	return results
}

func later(words string) queue.Result {
	return queue.Result{Outcome: queue.Deferred, Status: "4.2.0", Reply: words}
}

// scribe is a Reporter whose reports are easily read.
type scribe struct{}

func (scribe) Report(r *queue.Report) (mail.Envelope, []byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Message-ID: <report-%v-%d@test.example>\r\n\r\nkind %d\r\n", r.ID, r.Kind, r.Kind)
	for _, to := range r.Recipients {
		fmt.Fprintf(&b, "%v: %s %s (%d attempts)\r\n", to.Address, to.Result.Status, to.Result.Reply, to.Attempts)
	}
	if r.Body != nil {
		text, err := io.ReadAll(io.NewSectionReader(r.Body, 0, r.Size))
		if err != nil {
			return mail.Envelope{}, nil, err
		}
		b.Write(text)
	}
	env := mail.Envelope{Recipients: []mail.Recipient{{Address: r.Envelope.From, Notify: mail.NotifyNever}}}
	return env, b.Bytes(), nil
}

func addr(s string) mail.Address {
	a, err := mail.ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

func envelope(from string, to ...string) mail.Envelope {
	env := mail.Envelope{}
	if from != "" {
		env.From = addr(from)
	}
	for _, s := range to {
		env.Recipients = append(env.Recipients, mail.Recipient{Address: addr(s)})
	}
	return env
}

// rig is a queue under test, and its parts.
type rig struct {
	t      testing.TB
	cfg    queue.Config
	store  queue.Store
	ledger *ledger
	post   *postman
	clk    *clock.Mock
	q      *queue.Queue

	stop func()
	err  error // of Run, after stop
}

// newRig opens a queue over a store; nil for one in memory. The clock stands still.
func newRig(t testing.TB, cfg queue.Config, store queue.Store, post *postman) *rig {
	t.Helper()
	if store == nil {
		store = queue.NewMemory()
	}
	r := &rig{t: t, cfg: cfg, store: store, post: post, clk: clock.NewMock(start)}
	r.open()
	return r
}

func (r *rig) open() {
	r.t.Helper()
	var err error
	if r.ledger, err = openLedger(queue.JournalSection(r.store)); err != nil {
		r.t.Fatal(err)
	}
	r.q, err = queue.Open(r.cfg, r.store, r.ledger, r.post, scribe{}, r.clk, quiet())
	if err != nil {
		r.t.Fatal(err)
	}
}

// run runs the queue until stop, or the end of the test.
func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	q := r.q
	go func() {
		r.err = q.Run(ctx)
		close(done)
	}()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			<-done
		})
	}
	r.t.Cleanup(r.stop)
}

// restart ends the queue and opens another over the same store.
func (r *rig) restart() {
	r.t.Helper()
	if r.stop != nil {
		r.stop()
	}
	r.open()
	r.run()
}

// submit accepts a message.
func (r *rig) submit(env mail.Envelope, text string) queue.Receipt {
	r.t.Helper()
	receipt, err := submit(r.q, env, text)
	if err != nil {
		r.t.Fatalf("submit: %v", err)
	}
	return receipt
}

const trace = "Received: by test.example\r\n"

func submit(q *queue.Queue, env mail.Envelope, text string) (queue.Receipt, error) {
	m := q.NewMessage()
	if _, err := io.WriteString(m, text); err != nil {
		m.Abort()
		return queue.Receipt{}, err
	}
	ev := mail.Event{Kind: mail.SubmissionAcceptance, MessageID: "<" + m.ID().String() + "@test.example>"}
	receipt, err := m.Commit(context.Background(), []byte(trace), env, ev)
	m.Abort()
	return receipt, err
}

// events returns everything the journal has in the store.
func (r *rig) events() (list []map[string]any) {
	r.t.Helper()
	return events(r.t, r.store)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// eventually waits until f holds.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for range 30_000 {
		if f() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("not within half a minute: %s", what)
}
