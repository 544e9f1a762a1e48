package queue_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/durable"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

var ctx = context.Background()

func ptr[T any](v T) *T { return &v }

// deferredRig is a queue with four messages that were put off once, and whose next attempt
// succeeds.
func deferredRig(t *testing.T) (*rig, *recorder, []mail.ID) {
	post := newRecorder(later("450 1"), later("450 1"), later("450 1"), later("450 1"), later("450 1"),
		queue.Result{Outcome: queue.Delivered, Reply: "250 ok"})
	r := newRig(t, queue.Config{}, nil, &post.postman)
	r.run()
	var ids []mail.ID
	for n, env := range []mail.Envelope{
		envelope("alice@example.org", "bob@example.com"),
		envelope("alice@example.org", "bob@example.net", "carol@example.com"),
		envelope("dave@example.org", "Carol@example.com"),
		envelope("", "bob@example.com"),
	} {
		ids = append(ids, r.submit(env, text).ID)
		post.wait(t, []int{1, 3, 4, 5}[n])
	}
	eventually(t, "all is put off", func() bool { return r.q.Stats().States[queue.StateDeferred] == 5 })
	return r, post, ids
}

func TestSelectors(t *testing.T) {
	r, _, ids := deferredRig(t)
	for _, row := range []struct {
		name string
		sel  queue.Selector
		want []int
	}{
		{"all", queue.Selector{}, []int{0, 1, 2, 3}},
		{"id", queue.Selector{ID: ids[2]}, []int{2}},
		{"no such id", queue.Selector{ID: 5}, nil},
		{"sender", queue.Selector{Sender: ptr(addr("alice@example.org"))}, []int{0, 1}},
		{"sender in capitals", queue.Selector{Sender: ptr(addr("ALICE@example.org"))}, []int{0, 1}},
		{"null sender", queue.Selector{Sender: &mail.Address{}}, []int{3}},
		{"recipient", queue.Selector{Recipient: ptr(addr("bob@example.com"))}, []int{0, 3}},
		{"recipient in another case", queue.Selector{Recipient: ptr(addr("carol@example.com"))}, []int{1, 2}},
		{"a sender is no recipient", queue.Selector{Recipient: ptr(addr("alice@example.org"))}, nil},
		{"destination", queue.Selector{Destination: "example.net"}, []int{1}},
		{"route", queue.Selector{Route: "smtp:example.com"}, []int{0, 1, 2, 3}},
		{"state", queue.Selector{State: queue.StateHeld}, nil},
		{"sender and destination", queue.Selector{Sender: ptr(addr("alice@example.org")), Destination: "example.com"}, []int{0, 1}},
	} {
		list, err := r.q.List(ctx, row.sel, 0)
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
		}
		var got []int
		for _, m := range list {
			got = append(got, slices.Index(ids, m.ID))
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: messages %v, want %v", row.name, got, row.want)
		}
	}
	if list, _ := r.q.List(ctx, queue.Selector{}, 2); len(list) != 2 || list[0].ID != ids[0] {
		t.Errorf("limit of 2: %d messages", len(list))
	}
	for name, f := range map[string]func(context.Context, queue.Selector) (int, error){
		"retry": r.q.Retry, "hold": r.q.Hold, "release": r.q.Release, "drop": r.q.Drop,
	} {
		if n, err := f(ctx, queue.Selector{}); n != 0 || !errors.Is(err, queue.ErrSelector) {
			t.Errorf("%s of nothing in particular: %d, %v", name, n, err)
		}
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := r.q.List(stopped, queue.Selector{}, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("list after the caller gave up: %v", err)
	}
}

func TestRetry(t *testing.T) {
	r, post, ids := deferredRig(t)
	if n, err := r.q.Retry(ctx, queue.Selector{Destination: "example.net"}); n != 1 || err != nil {
		t.Errorf("retry: %d, %v", n, err)
	}
	if got := post.wait(t, 6)[5]; got.id != ids[1] || got.to[0] != "bob@example.net" || got.attempt != 2 {
		t.Errorf("attempt %+v", got)
	}
	if n, err := r.q.Retry(ctx, queue.Selector{All: true}); n != 4 || err != nil {
		t.Errorf("retry of all: %d, %v", n, err)
	}
	eventually(t, "the end", r.empty)
	if now := r.clk.Now(); now != start {
		t.Errorf("it took until %v", now)
	}
}

func TestHoldAndRelease(t *testing.T) {
	r, post, ids := deferredRig(t)
	if n, err := r.q.Hold(ctx, queue.Selector{ID: ids[0]}); n != 1 || err != nil {
		t.Errorf("hold: %d, %v", n, err)
	}
	if n, err := r.q.Hold(ctx, queue.Selector{Recipient: ptr(addr("carol@example.com")), ID: ids[1]}); n != 1 || err != nil {
		t.Errorf("hold of one recipient: %d, %v", n, err)
	}
	if n, _ := r.q.Retry(ctx, queue.Selector{ID: ids[0]}); n != 0 {
		t.Errorf("retry of what is held: %d", n)
	}
	r.restart()
	r.advance("the others are delivered", func() bool { return r.q.Stats().Messages == 2 })
	r.clk.Set(start.Add(10 * 24 * time.Hour))
	time.Sleep(time.Millisecond)
	if s := r.q.Stats(); s.States[queue.StateHeld] != 2 || s.Messages != 2 {
		t.Errorf("held mail does not expire: %+v", s)
	}
	n := len(post.all())
	if got, err := r.q.Release(ctx, queue.Selector{All: true}); got != 2 || err != nil {
		t.Errorf("release: %d, %v", got, err)
	}
	eventually(t, "the end", r.empty)
	if got := len(post.all()); got != n+2 {
		t.Errorf("%d attempts after release, want 2", got-n)
	}
}

// Release ends what the sender asked for, Retry does not (RFC 4865).
func TestReleaseFuture(t *testing.T) {
	post := newRecorder()
	r := newRig(t, queue.Config{}, nil, &post.postman)
	r.run()
	env := envelope("a@example.org", "b@example.com")
	env.HoldUntil = start.Add(48 * time.Hour)
	r.submit(env, text)
	if n, err := r.q.Retry(ctx, queue.Selector{All: true}); n != 0 || err != nil {
		t.Errorf("retry: %d, %v", n, err)
	}
	if n, err := r.q.Release(ctx, queue.Selector{All: true}); n != 1 || err != nil {
		t.Errorf("release: %d, %v", n, err)
	}
	eventually(t, "the end", r.empty)
}

func TestDrop(t *testing.T) {
	r, post, ids := deferredRig(t)
	if n, err := r.q.Drop(ctx, queue.Selector{Recipient: ptr(addr("carol@example.com"))}); n != 2 || err != nil {
		t.Errorf("drop: %d, %v", n, err)
	}
	if s := r.q.Stats(); s.Messages != 3 || s.States[queue.StateDeferred] != 3 {
		t.Errorf("after the drop: %+v", s)
	}
	eventually(t, "the end of the dropped message", func() bool {
		x, err := r.q.Show(ctx, ids[2])
		if err != nil || x.Recipients[0].State != queue.StateDropped {
			t.Fatalf("dropped message: %+v, %v", x, err)
		}
		return x.Done // its body goes in a commit of its own
	})
	r.advance("the others are delivered", r.empty)
	r.stop()
	for _, s := range post.all()[5:] {
		if slices.Contains(s.to, "carol@example.com") || slices.Contains(s.to, "Carol@example.com") {
			t.Errorf("attempt for who was dropped: %+v", s)
		}
	}
	if kinds := r.kinds(ids[2]); kinds[len(kinds)-1] != "RelayToNonERDSFailure" {
		t.Errorf("log of the dropped message: %v", kinds)
	}
	if err := check(r.store); err != nil {
		t.Error(err)
	}
}

// What the operator says while an attempt is under way holds when it has ended.
func TestOrdersDuringAnAttempt(t *testing.T) {
	for _, row := range []struct {
		name   string
		order  func(*queue.Queue, context.Context, queue.Selector) (int, error)
		result queue.Result
		want   queue.State
	}{
		{"drop, then put off", (*queue.Queue).Drop, later("450"), queue.StateDropped},
		{"drop, then delivered", (*queue.Queue).Drop, queue.Result{Outcome: queue.Delivered}, queue.StateDelivered},
		{"hold, then put off", (*queue.Queue).Hold, later("450"), queue.StateHeld},
		{"hold, then delivered", (*queue.Queue).Hold, queue.Result{Outcome: queue.Delivered}, queue.StateDelivered},
	} {
		begun, release := make(chan bool), make(chan bool)
		post := &postman{deliver: func(_ context.Context, d *queue.Delivery) []queue.Result {
			close(begun)
			<-release
			return same(d, row.result)
		}}
		r := newRig(t, queue.Config{}, nil, post)
		r.run()
		id := r.submit(envelope("a@example.org", "b@example.com"), text).ID
		<-begun
		if n, err := row.order(r.q, ctx, queue.Selector{ID: id}); n != 1 || err != nil {
			t.Errorf("%s: %d, %v", row.name, n, err)
		}
		close(release)
		eventually(t, row.name, func() bool {
			x, err := r.q.Show(ctx, id)
			return err == nil && x.Recipients[0].State == row.want
		})
		r.stop()
		if err := check(r.store); err != nil {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

// Held and released while it waits for its turn.
func TestHoldWhileWaiting(t *testing.T) {
	release := make(chan bool)
	post := &postman{deliver: func(_ context.Context, d *queue.Delivery) []queue.Result {
		<-release
		return fine(d)
	}}
	r := newRig(t, queue.Config{Concurrency: 1}, nil, post)
	r.run()
	r.submit(envelope("a@example.org", "b@example.com"), text)
	waits := r.submit(envelope("a@example.org", "b@example.com"), text).ID
	stays := r.submit(envelope("a@example.org", "b@example.com"), text).ID
	sel := queue.Selector{ID: waits}
	for range 3 {
		if n, err := r.q.Hold(ctx, sel); n != 1 || err != nil {
			t.Errorf("hold: %d, %v", n, err)
		}
		if n, err := r.q.Release(ctx, sel); n != 1 || err != nil {
			t.Errorf("release: %d, %v", n, err)
		}
	}
	r.q.Hold(ctx, queue.Selector{ID: stays})
	close(release)
	eventually(t, "the others", func() bool { return r.q.Stats().Messages == 1 })
	x, _ := r.q.Show(ctx, stays)
	if x.Recipients[0].State != queue.StateHeld {
		t.Errorf("held message: %+v", x.Recipients)
	}
	r.q.Release(ctx, queue.Selector{ID: stays})
	eventually(t, "the end", r.empty)
}

func TestTrace(t *testing.T) {
	r, _, ids := deferredRig(t)
	r.advance("the end", r.empty)
	r.restart()
	for _, row := range []struct {
		what string
		want []int
	}{
		{ids[1].String(), []int{1}},
		{strings.ToLower(ids[1].String()), []int{1}},
		{"<" + ids[0].String() + "@test.example>", []int{0}},
		{ids[0].String() + "@test.example", []int{0}},
		{"alice@example.org", []int{1, 0}},
		{"<Alice@EXAMPLE.org>", []int{1, 0}},
		{"bob@example.com", []int{3, 0}},
		{"nobody@example.com", nil},
		{"0000000000007", nil},
		{"", nil},
		{"what is this", nil},
	} {
		list, err := r.q.Trace(ctx, row.what, 0)
		if err != nil {
			t.Errorf("%q: %v", row.what, err)
		}
		var got []int
		for _, m := range list {
			got = append(got, slices.Index(ids, m.ID))
			if !m.Done || len(m.Attempts) < 2 || m.Attempts[0].Reply != "450 1" {
				t.Errorf("%q: %+v", row.what, m)
			}
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("trace of %q: %v, want %v", row.what, got, row.want)
		}
	}
	if list, _ := r.q.Trace(ctx, "alice@example.org", 1); len(list) != 1 || list[0].ID != ids[1] {
		t.Errorf("limit of 1: %v", list)
	}
}

// Everything that the command line prints is JSON that can be read again.
func TestJSON(t *testing.T) {
	r, _, ids := deferredRig(t)
	x, err := r.q.Show(ctx, ids[1])
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	var again queue.Message
	if err := json.Unmarshal(b, &again); err != nil {
		t.Fatalf("%v of %s", err, b)
	}
	if fmt.Sprint(again.Recipients[0].State, again.Attempts[0].Outcome, again.Attempts[0].Reply, again.ID) !=
		fmt.Sprint(x.Recipients[0].State, x.Attempts[0].Outcome, x.Attempts[0].Reply, x.ID) {
		t.Errorf("%+v\nbecame\n%+v", x, again)
	}
	for _, want := range []string{`"outcome":"deferred"`, `"state":"deferred"`, `"from":"alice@example.org"`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in %s", want, b)
		}
	}
	if b, err := json.Marshal(r.q.Stats()); err != nil || !strings.Contains(string(b), `"deferred":5`) {
		t.Errorf("stats %s, %v", b, err)
	}
	var sel queue.Selector
	if err := json.Unmarshal([]byte(`{"id":"`+ids[0].String()+`","sender":"","state":"held"}`), &sel); err != nil ||
		sel.ID != ids[0] || sel.Sender == nil || !sel.Sender.IsNull() {
		t.Errorf("selector %+v, %v", sel, err)
	}
}

// History is kept for Config.Retain after the last thing happened, and then goes, with all that
// leads to it.
func TestRetain(t *testing.T) {
	r, _, ids := deferredRig(t)
	if err := r.q.Forget(ctx, ids[3]); err == nil {
		t.Error("a message of the queue was forgotten")
	}
	r.q.Hold(ctx, queue.Selector{ID: ids[3]})
	r.advance("the others are delivered", func() bool { return r.q.Stats().Messages == 1 })
	eventually(t, "a message is forgotten", func() bool { return r.q.Forget(ctx, ids[0]) == nil })
	if _, err := r.q.Show(ctx, ids[0]); !errors.Is(err, queue.ErrNotFound) {
		t.Errorf("forgotten message: %v", err)
	}
	r.clk.Set(start.Add(29 * 24 * time.Hour))
	time.Sleep(time.Millisecond)
	if _, err := r.q.Show(ctx, ids[1]); err != nil {
		t.Errorf("after 29 days: %v", err)
	}
	r.clk.Set(start.Add(31 * 24 * time.Hour))
	eventually(t, "old history goes", func() bool {
		_, err := r.q.Show(ctx, ids[1])
		return errors.Is(err, queue.ErrNotFound)
	})
	if list, err := r.q.Trace(ctx, "alice@example.org", 0); len(list) != 0 || err != nil {
		t.Errorf("trace of what was forgotten: %v, %v", list, err)
	}
	if x, err := r.q.Show(ctx, ids[3]); err != nil || len(x.Attempts) == 0 {
		t.Errorf("history of a held message: %+v, %v", x, err)
	}
	r.stop()
	if err := check(r.store); err != nil {
		t.Error(err)
	}
}

func TestRetainNothing(t *testing.T) {
	post := newRecorder(later("450"), queue.Result{Outcome: queue.Delivered})
	r := newRig(t, queue.Config{Retain: -1}, nil, &post.postman)
	r.run()
	id := r.submit(envelope("a@example.org", "b@example.com"), text).ID
	r.advance("the end", r.empty)
	r.stop()
	if _, err := r.q.Show(ctx, id); !errors.Is(err, queue.ErrNotFound) {
		t.Errorf("history: %v", err)
	}
	n := 0
	r.store.Scan([]byte("a"), []byte("i"), func(key, _ []byte) bool {
		t.Logf("%q", key)
		n++
		return true
	})
	if n > 0 {
		t.Errorf("%d keys are left", n)
	}
}

// Orders about thousands of recipients come in portions, and all arrive.
func TestOrdersForThousands(t *testing.T) {
	post := newRecorder(later("450"))
	r := newRig(t, queue.Config{Concurrency: 1}, openDisk(t, durable.NewFaults(nil)), &post.postman)
	env := envelope("a@example.org")
	for i := range 2200 {
		to := addr(fmt.Sprintf("u%d@d%d.example", i, i%7))
		env.Recipients = append(env.Recipients, mail.Recipient{Address: to})
	}
	env.HoldUntil = start.Add(time.Hour)
	r.run()
	r.submit(env, text)
	all := queue.Selector{All: true}
	if n, err := r.q.Hold(ctx, all); n != 2200 || err != nil {
		t.Errorf("hold: %d, %v", n, err)
	}
	if n, err := r.q.Drop(ctx, queue.Selector{Destination: "d3.example"}); n != 314 || err != nil {
		t.Errorf("drop of one destination: %d, %v", n, err)
	}
	r.restart()
	if n, err := r.q.Drop(ctx, all); n != 2200-314 || err != nil {
		t.Errorf("drop: %d, %v", n, err)
	}
	if !r.empty() || len(post.all()) != 0 {
		t.Errorf("%d attempts, %+v", len(post.all()), r.q.Stats())
	}
	r.stop()
	if err := check(r.store); err != nil {
		t.Error(err)
	}
	if n := len(r.events()); n != 2201 {
		t.Errorf("%d log entries, want 2201", n)
	}
}
