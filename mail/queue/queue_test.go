package queue_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

const text = "Subject: hello\r\n\r\nbody\r\n"

// seen is what a postman was handed.
type seen struct {
	id      mail.ID
	text    string
	to      []string
	attempt int
	route   queue.Route
}

// recorder is a postman that gives one answer after the other (the last for ever) and keeps what it
// saw.
type recorder struct {
	postman
	mu   sync.Mutex
	seen []seen
}

func newRecorder(answers ...queue.Result) *recorder {
	r := new(recorder)
	r.deliver = func(_ context.Context, d *queue.Delivery) []queue.Result {
		b, err := io.ReadAll(io.NewSectionReader(d.Body, 0, d.Size))
		if err != nil {
			return same(d, later(err.Error()))
		}
		s := seen{id: d.ID, text: string(b), attempt: d.Attempt, route: d.Route}
		for _, to := range d.Envelope.Recipients {
			s.to = append(s.to, to.Address.String())
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seen = append(r.seen, s)
		if len(answers) == 0 {
			return same(d, queue.Result{Outcome: queue.Delivered, Status: "2.0.0", Reply: "250 ok"})
		}
		a := answers[0]
		if len(answers) > 1 {
			answers = answers[1:]
		}
		return same(d, a)
	}
	return r
}

func (r *recorder) all() []seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]seen(nil), r.seen...)
}

func (r *recorder) wait(t testing.TB, n int) []seen {
	t.Helper()
	eventually(t, fmt.Sprintf("%d attempts", n), func() bool { return len(r.all()) >= n })
	return r.all()
}

func (r *rig) empty() bool { return r.q.Stats().Messages == 0 }

// advance moves the clock to the next time that somebody waits for, until f holds. Before each step
// whoever was woken gets the time to act.
func (r *rig) advance(what string, f func() bool) {
	r.t.Helper()
	for range 3000 {
		for quiet := 0; quiet < 3; quiet++ {
			if f() {
				return
			}
			time.Sleep(20 * time.Microsecond)
			s := r.q.Stats()
			if s.States[queue.StateDue]+s.States[queue.StateActive] > 0 {
				quiet = 0
			}
		}
		if next, ok := r.clk.Next(); ok {
			r.clk.Set(next)
		}
	}
	r.t.Fatalf("did not come: %s (clock at %v)", what, r.clk.Now())
}

// kinds returns the kinds of the events of a message, in order.
func (r *rig) kinds(id mail.ID) (list []string) {
	for _, e := range r.events() {
		if e["id"] == id.String() {
			list = append(list, e["kind"].(string))
		}
	}
	return list
}

func TestAcceptAndDeliver(t *testing.T) {
	post := newRecorder()
	r := newRig(t, queue.Config{}, nil, &post.postman)
	r.run()
	receipt := r.submit(envelope("a@example.org", "b@example.com"), text)
	got := post.wait(t, 1)[0]
	if got.text != trace+text || got.id != receipt.ID || got.attempt != 1 || got.route != "smtp:example.com" {
		t.Errorf("delivered %+v", got)
	}
	eventually(t, "the end of the message", r.empty)
	r.stop()
	if kinds := fmt.Sprint(r.kinds(receipt.ID)); kinds != "[SubmissionAcceptance RelayToNonERDS]" {
		t.Errorf("log: %v", kinds)
	}
	if receipt.Index != 0 || receipt.Origin != "test.example/log" {
		t.Errorf("receipt %+v", receipt)
	}
	x, err := r.q.Show(context.Background(), receipt.ID)
	if err != nil {
		t.Fatal(err)
	}
	if !x.Done || x.Recipients[0].State != queue.StateDelivered || x.Attempts[0].Indexes[0] != 1 ||
		x.Size != int64(len(trace+text)) || x.Accepted.Size != int64(len(text)) {
		t.Errorf("history %+v", x)
	}
	if _, err := r.store.OpenBody(receipt.ID); !errors.Is(err, queue.ErrNotFound) {
		t.Errorf("body is still there: %v", err)
	}
}

// Every size comes out as it went in: in memory, in one piece, in many.
func TestBodySizes(t *testing.T) {
	for _, cache := range []int64{0, -1} {
		post := newRecorder()
		r := newRig(t, queue.Config{CacheBytes: cache}, nil, &post.postman)
		r.run()
		for _, n := range []int{0, 1, 12 << 10, 12<<10 + 1, 64 << 10, 64<<10 + 1, 300 << 10} {
			text := strings.Repeat("0123456789abcde\n", n/16+1)[:n]
			receipt := r.submit(envelope("a@example.org", "b@example.com"), text)
			eventually(t, "delivery", func() bool {
				all := post.all()
				return len(all) > 0 && all[len(all)-1].id == receipt.ID
			})
			if got := post.all(); got[len(got)-1].text != trace+text {
				t.Errorf("message of %d octets, cache of %d: came out as %d", n, cache, len(got[len(got)-1].text))
			}
		}
		r.stop()
	}
}

// step waits until a message is put off, or done, and moves the clock to its next attempt. It
// returns the wait, zero if the message is done.
func (r *rig) step(id mail.ID) (wait time.Duration) {
	r.t.Helper()
	var due time.Time
	eventually(r.t, "the end of an attempt", func() bool {
		x, err := r.q.Show(context.Background(), id)
		if err != nil {
			r.t.Fatal(err)
		}
		due = x.Recipients[0].Due
		return x.Done || x.Recipients[0].State == queue.StateDeferred && due.After(r.clk.Now())
	})
	if due.IsZero() {
		return 0
	}
	wait = due.Sub(r.clk.Now())
	r.clk.Set(due)
	return wait
}

// RFC 5321, section 4.5.4.1: tried again at growing intervals.
func TestBackoff(t *testing.T) {
	post := newRecorder(later("450 4.2.0 later"))
	r := newRig(t, queue.Config{}, nil, &post.postman)
	r.run()
	id := r.submit(envelope("a@example.org", "b@example.com"), text).ID
	for i := range 10 {
		age := r.clk.Now().Sub(start)
		want := min(max(age, 5*time.Minute), 4000*time.Second)
		if wait := r.step(id); wait < want*9/10 || wait > want*11/10 {
			t.Errorf("wait after attempt %d, at the age of %v: %v, want about %v", i+1, age, wait, want)
		}
		post.wait(t, i+2)
	}
}

func TestExpiry(t *testing.T) {
	tests := []struct {
		name    string
		from    string
		notify  mail.Notify
		reports int
	}{
		{"the sender hears of it", "a@local.example", 0, 1},
		{"NOTIFY=NEVER", "a@local.example", mail.NotifyNever, 0},
		{"NOTIFY=FAILURE", "a@local.example", mail.NotifyFailure, 1},
		{"no bounce of a bounce", "", 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inbox := newRecorder()
			post := &postman{deliver: func(ctx context.Context, d *queue.Delivery) []queue.Result {
				if d.Route == "local" {
					return inbox.deliver(ctx, d)
				}
				return same(d, later("451 4.3.2 try later"))
			}}
			r := newRig(t, queue.Config{DelayWarning: -1}, nil, post)
			r.run()
			env := envelope(tt.from, "b@example.com")
			env.Recipients[0].Notify = tt.notify
			receipt := r.submit(env, text)
			for r.step(receipt.ID) > 0 {
			}
			if age := r.clk.Now().Sub(start); age != 5*24*time.Hour {
				t.Errorf("given up after %v", age)
			}
			eventually(t, "the report is delivered", r.empty)
			r.stop()
			got := inbox.all()
			if len(got) != tt.reports {
				t.Fatalf("%d reports, want %d", len(got), tt.reports)
			}
			if tt.reports > 0 && !strings.Contains(got[0].text, "kind 0\r\nb@example.com: 5.4.7 451 4.3.2 try later") {
				t.Errorf("report %q", got[0].text)
			}
			if kinds := r.kinds(receipt.ID); kinds[len(kinds)-1] != "RelayToNonERDSFailure" {
				t.Errorf("log: %v", kinds)
			}
			x, _ := r.q.Show(context.Background(), receipt.ID)
			last := x.Attempts[len(x.Attempts)-1]
			if !last.Expired || last.Reply != "451 4.3.2 try later" {
				t.Errorf("last attempt %+v", last)
			}
			if len(x.Attempts) != 2 || x.Attempts[0].Count < 100 {
				t.Errorf("attempts that gave the same are %d entries, the first counts %d",
					len(x.Attempts), x.Attempts[0].Count)
			}
		})
	}
}

// The sender of a message that is late is told once, and only if it may be.
func TestDelayWarning(t *testing.T) {
	for _, tt := range []struct {
		notify mail.Notify
		want   int
	}{{0, 1}, {mail.NotifyFailure, 0}, {mail.NotifyDelay | mail.NotifyFailure, 1}, {mail.NotifyNever, 0}} {
		inbox := newRecorder()
		var told atomic.Int64
		post := &postman{}
		r := newRig(t, queue.Config{}, nil, post)
		post.deliver = func(ctx context.Context, d *queue.Delivery) []queue.Result {
			if d.Route == "local" {
				told.Store(int64(r.clk.Now().Sub(start)))
				return inbox.deliver(ctx, d)
			}
			return same(d, later("450 4.2.0 later"))
		}
		r.run()
		env := envelope("a@local.example", "b@example.com")
		env.Recipients[0].Notify = tt.notify
		id := r.submit(env, text).ID
		for r.clk.Now().Sub(start) < 12*time.Hour {
			r.step(id)
			eventually(t, "the warning is delivered", func() bool { return r.q.Stats().Messages == 1 })
		}
		r.stop()
		if got := inbox.all(); len(got) != tt.want {
			t.Errorf("NOTIFY %d: %d warnings, want %d", tt.notify, len(got), tt.want)
		}
		at := time.Duration(told.Load())
		// The clock may be one attempt ahead of the report.
		if tt.want > 0 && (at < 4*time.Hour || at > 6*time.Hour+30*time.Minute) {
			t.Errorf("warned after %v", at)
		}
	}
}

// A message that is delivered while the warning that it is late is being written needs none.
func TestDeliveredWhileReporting(t *testing.T) {
	post := newRecorder(later("450 later"), queue.Result{Outcome: queue.Delivered})
	r := newRig(t, queue.Config{DelayWarning: time.Nanosecond, MinBackoff: time.Minute}, nil, &post.postman)
	slow := &slowScribe{begun: make(chan bool), release: make(chan bool)}
	var err error
	if r.q, err = queue.Open(r.cfg, r.store, r.ledger, r.post, slow, r.clk, quiet()); err != nil {
		t.Fatal(err)
	}
	r.run()
	env := envelope("a@local.example", "b@example.com")
	env.HoldUntil = start.Add(time.Second)
	id := r.submit(env, text).ID
	r.clk.Set(start.Add(2 * time.Second))
	<-slow.begun
	r.q.Retry(context.Background(), queue.Selector{ID: id})
	post.wait(t, 2)
	eventually(t, "the message is settled", r.empty)
	close(slow.release)
	r.stop()
	if n := r.q.Stats().Messages; n != 0 || len(post.all()) != 2 {
		t.Errorf("%d messages, %d attempts", n, len(post.all()))
	}
}

// slowScribe is a Reporter that takes its time.
type slowScribe struct {
	scribe
	begun, release chan bool
}

func (s *slowScribe) Report(r *queue.Report) (mail.Envelope, []byte, error) {
	close(s.begun)
	<-s.release
	return s.scribe.Report(r)
}

// RFC 3461, section 5.2.1: a report of success only where it was asked for and nobody else will
// make it.
func TestSuccessReport(t *testing.T) {
	for _, tt := range []struct {
		notify  mail.Notify
		relayed bool
		want    int
	}{{0, false, 0}, {mail.NotifySuccess, false, 1}, {mail.NotifySuccess, true, 0}, {mail.NotifyNever, false, 0}} {
		inbox := newRecorder()
		post := &postman{deliver: func(ctx context.Context, d *queue.Delivery) []queue.Result {
			if d.Route == "local" {
				return inbox.deliver(ctx, d)
			}
			return same(d, queue.Result{Outcome: queue.Delivered, Relayed: tt.relayed, Reply: "250 ok"})
		}}
		r := newRig(t, queue.Config{}, nil, post)
		r.run()
		env := envelope("a@local.example", "b@example.com")
		env.Recipients[0].Notify = tt.notify
		r.submit(env, text)
		eventually(t, "the end", r.empty)
		r.stop()
		if got := inbox.all(); len(got) != tt.want {
			t.Errorf("NOTIFY %d, relayed %v: %d reports, want %d", tt.notify, tt.relayed, len(got), tt.want)
		}
	}
}

// Each recipient has a fate of its own; one report tells of all that failed.
func TestRecipientsApart(t *testing.T) {
	inbox := newRecorder()
	post := &postman{deliver: func(ctx context.Context, d *queue.Delivery) []queue.Result {
		results := make([]queue.Result, len(d.Envelope.Recipients))
		for i, to := range d.Envelope.Recipients {
			switch {
			case d.Route == "local":
				return inbox.deliver(ctx, d)
			case strings.HasPrefix(to.Address.Local, "bad"):
				results[i] = queue.Result{Outcome: queue.Failed, Status: "5.1.1", Reply: "550 5.1.1 no " + to.Address.Local}
			case strings.HasPrefix(to.Address.Local, "slow") && d.Attempt == 1:
				results[i] = later("450 4.2.1 busy")
			default:
				results[i] = queue.Result{Outcome: queue.Delivered, Reply: "250 ok"}
			}
		}
		return results
	}}
	r := newRig(t, queue.Config{}, nil, post)
	r.run()
	receipt := r.submit(envelope("a@local.example", "good@example.com", "bad1@example.com", "slow@example.com",
		"bad2@example.net", "slow@example.net"), text)
	eventually(t, "the report", func() bool { return len(inbox.all()) == 1 })
	report := inbox.all()[0].text
	if !strings.Contains(report, "550 5.1.1 no bad1") || !strings.Contains(report, "550 5.1.1 no bad2") {
		t.Errorf("one report for both: %q", report)
	}
	r.advance("the end", r.empty)
	r.stop()
	x, err := r.q.Show(context.Background(), receipt.ID)
	if err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, to := range x.Recipients {
		states = append(states, fmt.Sprintf("%s %s %d", to.Address, to.State, to.Attempts))
	}
	want := "[good@example.com delivered 1 bad1@example.com failed 1 slow@example.com delivered 2 " +
		"bad2@example.net failed 1 slow@example.net delivered 2]"
	if got := fmt.Sprint(states); got != want {
		t.Errorf("states\n%s\nwant\n%s", got, want)
	}
	if n := len(inbox.all()); n != 1 {
		t.Errorf("%d reports", n)
	}
}

// What the sender asked to be held waits (RFC 4865), across a restart too.
func TestFutureRelease(t *testing.T) {
	post := newRecorder()
	r := newRig(t, queue.Config{}, nil, &post.postman)
	r.run()
	env := envelope("a@example.org", "b@example.com")
	env.HoldUntil = start.Add(36 * time.Hour)
	id := r.submit(env, text).ID
	r.restart()
	if wait := r.step(id); wait != 36*time.Hour || len(post.all()) != 0 {
		t.Errorf("first attempt after %v", wait)
	}
	post.wait(t, 1)
}

// A clock that was set back leads to no id twice.
func TestClockSetBack(t *testing.T) {
	r := newRig(t, queue.Config{}, nil, &postman{})
	r.run()
	last := r.submit(envelope("a@example.org", "b@example.com"), text).ID
	eventually(t, "the end", r.empty)
	r.stop()
	r.clk.Set(start.Add(-time.Hour))
	r.restart()
	if id := r.submit(envelope("a@example.org", "b@example.com"), text).ID; id != last+1 {
		t.Errorf("id %v after %v", id, last)
	}
}

func TestRestart(t *testing.T) {
	post := newRecorder(later("450 later"))
	r := newRig(t, queue.Config{}, nil, &post.postman)
	r.run()
	receipt := r.submit(envelope("a@example.org", "b@example.com", "c@example.net"), text)
	post.wait(t, 2)
	r.restart()
	if s := r.q.Stats(); s.Messages != 1 || s.States[queue.StateDeferred] != 2 || len(s.Routes) != 2 {
		t.Errorf("after a restart: %+v", s)
	}
	r.advance("two further attempts", func() bool { return len(post.all()) >= 4 })
	r.stop()
	for _, s := range post.all()[2:] {
		if s.id != receipt.ID || s.attempt != 2 || s.text != trace+text {
			t.Errorf("after a restart: %+v", s)
		}
	}
}

// A report that was owed when the process died is made by the next.
func TestOwedReportAfterRestart(t *testing.T) {
	inbox := newRecorder()
	store := &fullStore{Store: queue.NewMemory()}
	post := &postman{deliver: func(ctx context.Context, d *queue.Delivery) []queue.Result {
		if d.Route == "local" {
			return inbox.deliver(ctx, d)
		}
		store.full.Store(true)
		return same(d, queue.Result{Outcome: queue.Failed, Status: "5.1.1", Reply: "550 no"})
	}}
	r := newRig(t, queue.Config{}, store, post)
	r.run()
	receipt := r.submit(envelope("a@local.example", "b@example.com"), text)
	eventually(t, "the failure is settled", func() bool { return len(r.kinds(receipt.ID)) == 2 })
	r.stop()
	if s := r.q.Stats(); s.Messages != 1 {
		t.Fatalf("message that owes a report is gone: %+v", s)
	}
	store.full.Store(false)
	r.restart()
	if got := inbox.wait(t, 1)[0]; !strings.Contains(got.text, "550 no") || got.to[0] != "a@local.example" {
		t.Errorf("report %+v", got)
	}
	eventually(t, "the end", r.empty)
}

// fullStore takes no bodies while it is full.
type fullStore struct {
	queue.Store
	full atomic.Bool
}

func (s *fullStore) NewBody(id mail.ID) (queue.Body, error) {
	if s.full.Load() {
		return nil, queue.ErrFull
	}
	return s.Store.NewBody(id)
}

func TestFullStoreAndReports(t *testing.T) {
	inbox := newRecorder()
	store := &fullStore{Store: queue.NewMemory()}
	post := &postman{deliver: func(ctx context.Context, d *queue.Delivery) []queue.Result {
		if d.Route == "local" {
			return inbox.deliver(ctx, d)
		}
		store.full.Store(true)
		return same(d, queue.Result{Outcome: queue.Failed, Reply: "550 no"})
	}}
	r := newRig(t, queue.Config{}, store, post)
	r.run()
	receipt := r.submit(envelope("a@local.example", "b@example.com"), text)
	eventually(t, "the failure is settled", func() bool { return len(r.kinds(receipt.ID)) == 2 })
	if _, err := submit(r.q, envelope("a@example.org", "b@example.com"), text); !errors.Is(err, queue.ErrFull) {
		t.Errorf("submit to a full store: %v", err)
	}
	if err := r.q.Accepting(); !errors.Is(err, queue.ErrFull) {
		t.Errorf("accepting: %v", err)
	}
	store.full.Store(false)
	r.advance("the report", func() bool { return len(inbox.all()) == 1 })
	eventually(t, "the end", r.empty)
}

func TestManyRecipients(t *testing.T) {
	post := newRecorder(later("450 wait"), later("450 wait"), later("450 wait"), queue.Result{Outcome: queue.Delivered})
	r := newRig(t, queue.Config{MaxRecipientsPerDelivery: 100}, nil, &post.postman)
	r.run()
	env := envelope("a@example.org")
	for i := range 250 {
		env.Recipients = append(env.Recipients, mail.Recipient{Address: addr(fmt.Sprintf("u%d@example.com", i))})
	}
	receipt := r.submit(env, text)
	post.wait(t, 3)
	eventually(t, "put off", func() bool { return r.q.Stats().States[queue.StateDeferred] == 250 })
	r.restart()
	r.advance("the end", r.empty)
	r.stop()
	delivered := make(map[string]int)
	for _, s := range post.all()[3:] {
		if len(s.to) > 100 {
			t.Errorf("%d recipients in one attempt", len(s.to))
		}
		for _, to := range s.to {
			delivered[to]++
		}
	}
	if len(delivered) != 250 {
		t.Errorf("%d recipients were delivered to, want 250", len(delivered))
	}
	if n := len(r.kinds(receipt.ID)); n != 251 {
		t.Errorf("%d log entries, want 251", n)
	}
}

func TestRecord(t *testing.T) {
	r := newRig(t, queue.Config{}, nil, &postman{})
	r.run()
	for want := range uint64(3) {
		got, err := r.q.Record(context.Background(), mail.Event{Kind: mail.KeyNotice, Note: "k"})
		if err != nil || got != want {
			t.Errorf("index %d, %v; want %d", got, err, want)
		}
	}
	r.stop()
	if _, err := r.q.Record(context.Background(), mail.Event{Kind: mail.Digest}); !errors.Is(err, queue.ErrStopped) {
		t.Errorf("record after the end: %v", err)
	}
	if _, err := submit(r.q, envelope("a@example.org", "b@example.com"), text); !errors.Is(err, queue.ErrStopped) {
		t.Errorf("submit after the end: %v", err)
	}
	if err := r.q.Accepting(); !errors.Is(err, queue.ErrStopped) {
		t.Errorf("accepting after the end: %v", err)
	}
}

func TestAbort(t *testing.T) {
	r := newRig(t, queue.Config{}, nil, &postman{})
	r.run()
	m := r.q.NewMessage()
	m.Write([]byte(strings.Repeat("x", 200<<10)))
	m.Abort()
	m.Abort()
	if _, err := m.Write([]byte("y")); err == nil {
		t.Error("write after abort")
	}
	if _, err := m.Commit(context.Background(), nil, envelope("a@example.org", "b@example.com"), mail.Event{}); err == nil {
		t.Error("commit after abort")
	}
	if !r.empty() {
		t.Error("an aborted message is in the queue")
	}
	m = r.q.NewMessage()
	if _, err := m.Commit(context.Background(), nil, mail.Envelope{}, mail.Event{}); err == nil {
		t.Error("commit without recipients")
	}
}

// A Deliverer that panics, lies about its results or reads on costs one attempt, and shows nobody
// another's mail.
func TestBadDeliverer(t *testing.T) {
	var kept io.ReaderAt
	n := 0
	post := &postman{deliver: func(_ context.Context, d *queue.Delivery) []queue.Result {
		n++
		switch n {
		case 1:
			panic("oops")
		case 2:
			return nil
		case 3:
			return []queue.Result{{Outcome: queue.Dropped}}
		}
		kept = d.Body
		return same(d, queue.Result{Outcome: queue.Delivered})
	}}
	r := newRig(t, queue.Config{Concurrency: 1}, nil, post)
	r.run()
	r.submit(envelope("a@example.org", "b@example.com"), text)
	r.advance("the end", r.empty)
	r.stop()
	if n != 4 {
		t.Errorf("%d attempts, want 4", n)
	}
	if _, err := kept.ReadAt(make([]byte, 4), 0); err == nil {
		t.Error("the body can be read after Deliver returned")
	}
}

// Run waits for attempts under way, and ends their context after the grace.
func TestGrace(t *testing.T) {
	begun := make(chan bool)
	post := &postman{deliver: func(ctx context.Context, d *queue.Delivery) []queue.Result {
		close(begun)
		<-ctx.Done()
		return same(d, queue.Result{Outcome: queue.Delivered, Reply: "250 at the last moment"})
	}}
	r := newRig(t, queue.Config{Grace: 10 * time.Millisecond}, nil, post)
	r.run()
	r.submit(envelope("a@example.org", "b@example.com"), text)
	<-begun
	r.stop()
	if !r.empty() {
		t.Error("the outcome of the last attempt was not committed")
	}
}

type brokenJournal struct{ *ledger }

func (brokenJournal) Append([]mail.Event) ([]uint64, []queue.Write, error) {
	return nil, nil, errors.New("key is gone")
}

// A journal that fails stops the queue: nothing is accepted without its log entry.
func TestBrokenJournal(t *testing.T) {
	r := newRig(t, queue.Config{}, nil, &postman{})
	q, err := queue.Open(queue.Config{}, r.store, brokenJournal{r.ledger}, r.post, nil, r.clk, quiet())
	if err != nil {
		t.Fatal(err)
	}
	r.q = q
	r.run()
	if _, err := submit(q, envelope("a@example.org", "b@example.com"), text); !errors.Is(err, queue.ErrBroken) {
		t.Errorf("submit: %v", err)
	}
	eventually(t, "the queue broke", func() bool { return errors.Is(q.Accepting(), queue.ErrBroken) })
	r.stop()
	if !errors.Is(r.err, queue.ErrBroken) && (r.err == nil || !strings.Contains(r.err.Error(), "key is gone")) {
		t.Errorf("run: %v", r.err)
	}
}

func TestNewerVersion(t *testing.T) {
	r := newRig(t, queue.Config{}, nil, &postman{})
	r.store.Commit(&queue.Group{Writes: []queue.Write{{Key: []byte("v"), Value: []byte{99}}}})
	_, err := queue.Open(queue.Config{}, r.store, r.ledger, r.post, nil, r.clk, quiet())
	if err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("open: %v", err)
	}
}
