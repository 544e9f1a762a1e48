package queue_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

// gauge measures how many attempts run at a time, by route.
type gauge struct {
	mu        sync.Mutex
	now, most map[queue.Route]int
	done      map[queue.Route]int
}

func newGauge() *gauge {
	return &gauge{
		now: make(map[queue.Route]int), most: make(map[queue.Route]int), done: make(map[queue.Route]int),
	}
}

func (g *gauge) enter(r queue.Route) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now[r]++
	g.most[r] = max(g.most[r], g.now[r])
}

func (g *gauge) leave(r queue.Route) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now[r]--
	g.done[r]++
}

func (g *gauge) count(m *map[queue.Route]int, r queue.Route) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return (*m)[r]
}

func fine(d *queue.Delivery) []queue.Result {
	return same(d, queue.Result{Outcome: queue.Delivered, Reply: "250 ok"})
}

// A route to another server begins with five attempts at a time and works its way up to the limit;
// one into mailboxes has the limit at once.
func TestConcurrency(t *testing.T) {
	g := newGauge()
	post := &postman{deliver: func(_ context.Context, d *queue.Delivery) []queue.Result {
		g.enter(d.Route)
		defer g.leave(d.Route)
		time.Sleep(5 * time.Millisecond)
		return fine(d)
	}}
	r := newRig(t, queue.Config{Concurrency: 8, LocalConcurrency: 12}, nil, post)
	first := make(chan bool)
	for range 300 {
		go func() {
			<-first
			submit(r.q, envelope("a@example.org", "b@example.com"), text)
			submit(r.q, envelope("a@example.org", "b@local.example"), text)
		}()
	}
	close(first)
	r.run()
	eventually(t, "all is delivered", func() bool {
		return g.count(&g.done, "local") == 300 && g.count(&g.done, "smtp:example.com") == 300
	})
	if n := g.count(&g.most, "smtp:example.com"); n != 8 {
		t.Errorf("at most %d attempts at a time to another server, want 8", n)
	}
	if n := g.count(&g.most, "local"); n != 12 {
		t.Errorf("at most %d attempts at a time into mailboxes, want 12", n)
	}
}

func TestFirstConcurrency(t *testing.T) {
	g := newGauge()
	release := make(chan bool)
	post := &postman{deliver: func(_ context.Context, d *queue.Delivery) []queue.Result {
		g.enter(d.Route)
		<-release
		return fine(d)
	}}
	r := newRig(t, queue.Config{}, nil, post)
	r.run()
	for range 30 {
		r.submit(envelope("a@example.org", "b@example.com"), text)
	}
	eventually(t, "first attempts", func() bool { return g.count(&g.now, "smtp:example.com") == 5 })
	time.Sleep(5 * time.Millisecond)
	if n := g.count(&g.most, "smtp:example.com"); n != 5 {
		t.Errorf("%d attempts at once to a server we know nothing of, want 5", n)
	}
	close(release)
	eventually(t, "the end", r.empty)
}

// A destination that never answers holds up nobody else's mail.
func TestSlowRouteStarvesNobody(t *testing.T) {
	g := newGauge()
	block := make(chan bool)
	post := &postman{deliver: func(_ context.Context, d *queue.Delivery) []queue.Result {
		if d.Route == "smtp:slow.example" {
			<-block
		}
		g.leave(d.Route)
		return fine(d)
	}}
	// Far less room in memory than there is mail for the slow route.
	r := newRig(t, queue.Config{MaxActive: 50}, nil, post)
	r.run()
	for range 400 {
		r.submit(envelope("a@example.org", "b@slow.example"), text)
	}
	for i := range 100 {
		r.submit(envelope("a@example.org", fmt.Sprintf("b@quick%d.example", i%10)), text)
	}
	eventually(t, "the others' mail", func() bool { return r.q.Stats().Messages == 400 })
	close(block)
	eventually(t, "the slow route's mail", r.empty)
	if n := g.count(&g.done, "smtp:slow.example"); n != 400 {
		t.Errorf("%d of 400 delivered", n)
	}
}

// Whatever does not fit into memory is found on disk, in any mixture of routes, and each message
// once.
func TestMoreThanMemory(t *testing.T) {
	var mu sync.Mutex
	seen := make(map[mail.ID]int)
	post := &postman{deliver: func(_ context.Context, d *queue.Delivery) []queue.Result {
		mu.Lock()
		defer mu.Unlock()
		seen[d.ID]++
		return fine(d)
	}}
	for _, active := range []int{1, 2, 7, 100} {
		clear(seen)
		r := newRig(t, queue.Config{MaxActive: active, Concurrency: 2, MaxDeliveries: 3}, nil, post)
		const n = 300
		env := envelope("a@example.org", "x@y.example")
		env.HoldUntil = start.Add(time.Minute)
		var ids []mail.ID
		r.run()
		for i := range n {
			env.Recipients[0].Address.Domain = mail.Domain(fmt.Sprintf("d%d.example", i%40))
			ids = append(ids, r.submit(env, text).ID)
		}
		r.restart()
		r.advance("all is delivered", r.empty)
		r.stop()
		for _, id := range ids {
			if seen[id] != 1 {
				t.Fatalf("room for %d: message %v was delivered %d times", active, id, seen[id])
			}
		}
	}
}

func TestMaxDeliveries(t *testing.T) {
	var now, most atomic.Int32
	post := &postman{deliver: func(_ context.Context, d *queue.Delivery) []queue.Result {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		time.Sleep(200 * time.Microsecond)
		return fine(d)
	}}
	r := newRig(t, queue.Config{MaxDeliveries: 4}, nil, post)
	r.run()
	for i := range 100 {
		r.submit(envelope("a@example.org", fmt.Sprintf("b@d%d.example", i)), text)
	}
	eventually(t, "the end", r.empty)
	if n := most.Load(); n > 4 {
		t.Errorf("%d attempts at a time, want at most 4", n)
	}
}

func unreachable() queue.Result {
	return queue.Result{Outcome: queue.Deferred, Status: "4.4.1", Reply: "connect to mx.example.com: timed out",
		Unreachable: true}
}

// When a whole round of attempts did not reach the server, the mail that waits is put off with the
// same words and without an attempt; later one is made, and success brings the route back.
func TestDeadRoute(t *testing.T) {
	var tries atomic.Int32
	var alive atomic.Bool
	post := &postman{deliver: func(_ context.Context, d *queue.Delivery) []queue.Result {
		tries.Add(1)
		if alive.Load() {
			return fine(d)
		}
		return same(d, unreachable())
	}}
	r := newRig(t, queue.Config{}, nil, post)
	for range 200 {
		go submit(r.q, envelope("a@example.org", "b@example.com"), text)
	}
	r.run()
	var list []queue.Message
	eventually(t, "all is put off", func() bool {
		var err error
		list, err = r.q.List(context.Background(), queue.Selector{}, 0)
		return err == nil && len(list) == 200 && !slices.ContainsFunc(list, func(m queue.Message) bool {
			return m.Recipients[0].State != queue.StateDeferred || m.Recipients[0].Last == nil
		})
	})
	if n := tries.Load(); n > 20 {
		t.Errorf("%d attempts on a server that is down, for 200 messages", n)
	}
	s := r.q.Stats().Routes[0]
	if s.DeadUntil.IsZero() || s.Reply != unreachable().Reply || s.Concurrency != 1 {
		t.Errorf("route %+v", s)
	}
	untried := 0
	for _, m := range list {
		last := m.Recipients[0].Last
		if last.Reply != unreachable().Reply {
			t.Fatalf("put off with %+v", last)
		}
		if last.Untried {
			untried++
			if m.Recipients[0].Attempts != 0 {
				t.Error("an attempt that was not made is counted")
			}
		}
	}
	if untried < 180 {
		t.Errorf("only %d were spared an attempt", untried)
	}
	alive.Store(true)
	r.clk.Advance(6 * time.Minute)
	eventually(t, "a server that came back gets its mail", r.empty)
}

// Refused recipients say nothing against the route.
func TestRefusalsDoNotKillTheRoute(t *testing.T) {
	post := newRecorder(later("450 4.2.1 mailbox busy"))
	r := newRig(t, queue.Config{}, nil, &post.postman)
	r.run()
	for range 100 {
		r.submit(envelope("", "b@example.com"), text)
	}
	post.wait(t, 100)
	if s := r.q.Stats().Routes[0]; !s.DeadUntil.IsZero() {
		t.Errorf("route %+v", s)
	}
}

// RetryAfter is kept to, and never beyond the age at which the message is given up.
func TestRetryAfter(t *testing.T) {
	for _, row := range []struct{ after, want time.Duration }{
		{0, 5 * time.Minute}, {2 * time.Minute, 5 * time.Minute}, {3 * time.Hour, 3 * time.Hour},
		{30 * 24 * time.Hour, 5 * 24 * time.Hour},
	} {
		post := newRecorder(queue.Result{Outcome: queue.Deferred, RetryAfter: row.after})
		r := newRig(t, queue.Config{}, nil, &post.postman)
		r.run()
		r.submit(envelope("a@example.org", "b@example.com"), text)
		eventually(t, "put off", func() bool { return r.q.Stats().States[queue.StateDeferred] == 1 && len(post.all()) == 1 })
		list, err := r.q.List(context.Background(), queue.Selector{}, 0)
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		if d := list[0].Recipients[0].Due.Sub(start); d < row.want*8/10 || d > row.want*12/10 {
			t.Errorf("RetryAfter %v: due after %v, want about %v", row.after, d, row.want)
		}
		r.stop()
	}
}

// Where the Deliverer routes otherwise after a restart, what is on disk follows.
func TestRoutesChange(t *testing.T) {
	post := newRecorder(later("450 later"))
	r := newRig(t, queue.Config{}, nil, &post.postman)
	r.run()
	for i := range 20 {
		r.submit(envelope("a@example.org", fmt.Sprintf("b@d%d.example", i)), text)
	}
	post.wait(t, 20)
	r.stop()
	after := newRecorder()
	after.route = func(mail.Address) queue.Route { return "smtp:smarthost.example" }
	r.post = &after.postman
	r.restart()
	r.advance("all is delivered", r.empty)
	for _, s := range after.all() {
		if s.route != "smtp:smarthost.example" {
			t.Errorf("delivered by %v", s.route)
		}
	}
	eventually(t, "old routes are forgotten", func() bool { return len(r.q.Stats().Routes) == 0 })
}
