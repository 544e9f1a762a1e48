package relay

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/mail/queue"
)

// many delivers to n domains of one site at a time, and returns the results.
func (w *world) many(n int) []queue.Result {
	w.t.Helper()
	out := make([]queue.Result, n)
	var wg sync.WaitGroup
	for i := range n {
		domain := fmt.Sprintf("d%d.example", i)
		w.mx(domain, "10 mx1.example")
		wg.Go(func() { out[i] = w.deliver("u@" + domain)[0] })
	}
	wg.Wait()
	return out
}

func outcomes(results []queue.Result) map[string]int {
	out := make(map[string]int)
	for _, r := range results {
		out[brief(r)]++
	}
	return out
}

// TestConcurrencyGrows: a site begins with few connections, whatever number of domains it has, and gets more
// as it takes the mail.
func TestConcurrencyGrows(t *testing.T) {
	bubble(t, func(c *Config) { c.MaxConnections, c.IdleTimeout = 6, time.Minute }, func(w *world) {
		r := w.remote("mx1.example", "192.0.2.1", answers{".": "SLOW 250 ok"})
		w.cfg.SiteWait = time.Hour
		w.open()
		got := outcomes(w.many(firstPlaces))
		if _, most := r.connections(); most != firstPlaces || got["delivered 2.0.0"] != firstPlaces {
			t.Fatalf("%d connections at a time, %v", most, got)
		}
		w.many(20)
		if _, most := r.connections(); most != 6 {
			t.Errorf("%d connections at a time, want the most", most)
		}
		if s := w.relay.Sites()[0]; s.Limit != 6 || s.Busy != 0 {
			t.Errorf("site %+v", s)
		}
	})
}

// TestNoPlace: attempts wait for a place a while and then go back, and no more than some wait.
func TestNoPlace(t *testing.T) {
	bubble(t, nil, func(w *world) {
		w.remote("mx1.example", "192.0.2.1", answers{".": "SLOW SLOW 250 ok"})
		begun := time.Now()
		got := outcomes(w.many(firstPlaces + maxWaiting + 10))
		if got["delivered 2.0.0"] != firstPlaces || got["deferred 4.4.5 rate limited (busy)"] != maxWaiting+10 {
			t.Errorf("%v", got)
		}
		if took := time.Since(begun); took < 2*time.Minute || took > 3*time.Minute {
			t.Errorf("took %v", took)
		}
		res := w.relay.Sites()[0]
		if res.Waiting != 0 || res.Busy != 0 {
			t.Errorf("site %+v", res)
		}
	})
}

// TestBusyResult: a message for which there is no place comes again soon, and its route is not to blame.
func TestBusyResult(t *testing.T) {
	bubble(t, func(c *Config) { c.MaxConnections, c.SiteWait = 1, time.Second }, func(w *world) {
		w.remote("mx1.example", "192.0.2.1", answers{"MAIL": "SLOW 250 ok"})
		for _, r := range w.many(2) {
			if r.Busy && (r.RetryAfter < minRetry || r.RetryAfter > 2*minRetry || r.Unreachable || !strings.Contains(r.Reply, "all 1 connections to mx1.example are in use")) {
				t.Errorf("result %+v", r)
			}
		}
	})
}

// TestSlowDown: what a site gets after it said that it is too much, once for all who were told so.
func TestSlowDown(t *testing.T) {
	bubble(t, func(c *Config) { c.SiteWait = time.Hour }, func(w *world) {
		r := w.remote("mx1.example", "192.0.2.1", nil)
		w.many(60)
		before := w.relay.Sites()[0].Limit
		if before < 6 {
			t.Fatalf("limit %d", before)
		}
		const words = "421 4.7.0 Too many connections, slow down"
		r.set("MAIL", words)
		got := w.many(before)
		for _, res := range got {
			if brief(res) != "deferred 4.7.0 rate limited" && !res.Busy || !res.Unreachable {
				t.Errorf("result %+v", res)
			}
		}
		s := w.relay.Sites()[0]
		if s.Limit != before/2 || s.Why != words || time.Until(s.Paused) != firstPause || s.Idle != 0 {
			t.Errorf("site %+v", s)
		}
		// In the pause nobody asks, and everybody hears why.
		conns, _ := r.connections()
		res := w.deliver("u@d1.example")[0]
		if !res.Busy || res.RetryAfter != firstPause || !strings.Contains(res.Reply, words) {
			t.Errorf("result %+v", res)
		}
		if n, _ := r.connections(); n != conns {
			t.Error("asked in the pause")
		}
		// Each time it is said again the pause doubles, up to a limit.
		pause := firstPause
		for range 8 {
			time.Sleep(pause)
			w.expect(w.deliver("u@d1.example"), "deferred 4.7.0 rate limited")
			s = w.relay.Sites()[0]
			pause = time.Until(s.Paused)
		}
		if pause != maxSlowPause || s.Limit != 1 {
			t.Errorf("site %+v, pause %v", s, pause)
		}
		if !w.relay.Resume(s.Name) || w.relay.Resume("nobody") {
			t.Error("Resume")
		}
		r.set("MAIL", "250 ok")
		w.expect(w.deliver("u@d1.example"), "delivered 2.0.0")
		if s = w.relay.Sites()[0]; s.Limit != 2 || !s.Paused.IsZero() {
			t.Errorf("site %+v", s)
		}
	})
}

// TestPauseOfProvider: some say, in their own way, for how long they want to see nothing.
func TestPauseOfProvider(t *testing.T) {
	bubble(t, nil, func(w *world) {
		r := w.remote("mta5.am0.yahoodns.net", "192.0.2.1", answers{
			"greeting": "421 4.7.0 [TSS04] Messages from 192.0.2.250 temporarily deferred due to unexpected volume or user complaints"})
		w.mx("yahoo.example", "1 mta5.am0.yahoodns.net")
		w.mx("aol.example", "1 mta5.am0.yahoodns.net")
		w.expect(w.deliver("u@yahoo.example"), "deferred 4.7.0 rate limited")
		res := w.deliver("u@aol.example")[0]
		if !res.Busy || res.RetryAfter != 2*time.Hour {
			t.Errorf("another domain of the provider: %+v", res)
		}
		time.Sleep(2 * time.Hour)
		r.set("greeting", "220 hello")
		w.expect(w.deliver("u@aol.example"), "delivered 2.0.0")
	})
}

// TestPauseIsOneCut: attempts that are under way when a site asks for a pause all hear it, and slow it down once.
func TestPauseIsOneCut(t *testing.T) {
	bubble(t, func(c *Config) { c.SiteWait = time.Hour }, func(w *world) {
		r := w.remote("mx1.example", "192.0.2.1", nil)
		w.many(60)
		before := w.relay.Sites()[0].Limit
		r.set("MAIL", "SLOW 550 Ip frequency limited")
		w.many(before)
		if s := w.relay.Sites()[0]; s.Limit != before/2 || time.Until(s.Paused) != time.Hour {
			t.Errorf("limit was %d, site %+v", before, s)
		}
	})
}

// TestStumble: one bad host is no reason to slow down as long as the other takes the mail.
func TestStumble(t *testing.T) {
	bubble(t, nil, func(w *world) {
		first, _ := w.pair(answers{"greeting": "421 busy"})
		for range 20 {
			w.expect(w.deliver("u@d.example"), "delivered 2.0.0")
			if s := w.relay.Sites()[0]; s.Limit < firstPlaces {
				t.Errorf("site %+v", s)
			}
			time.Sleep(time.Minute)
		}
		if s := w.relay.Sites()[0]; s.Limit < firstPlaces || !s.Paused.IsZero() {
			t.Errorf("site %+v", s)
		}
		if n, _ := first.connections(); n > 6 {
			t.Errorf("%d connections to the host that turns us away", n)
		}
	})
}

// TestDeadSite: where nothing answers, the domains of a site do not each wait for it. The pause is shorter
// than the queue's shortest wait.
func TestDeadSite(t *testing.T) {
	bubble(t, nil, func(w *world) {
		w.zone.Set("mx1.example", "A 192.0.2.1")
		for range 10 {
			for _, r := range w.many(5) {
				if r.Outcome != queue.Deferred || !r.Unreachable && !r.Busy {
					t.Errorf("result %+v", r)
				}
			}
			if s := w.relay.Sites()[0]; time.Until(s.Paused) > maxPause {
				t.Errorf("site %+v", s)
			}
			time.Sleep(time.Minute)
		}
		if n := len(w.dialled()); n > 15 {
			t.Errorf("%d connections tried", n)
		}
	})
}

// TestProviderLimits: what is known of a provider holds for all who are with it, whatever their host is called.
func TestProviderLimits(t *testing.T) {
	bubble(t, func(c *Config) { c.SiteWait = time.Hour }, func(w *world) {
		var remotes []*remote
		var wg sync.WaitGroup
		for i := range 40 {
			host := fmt.Sprintf("d%d-example.mail.protection.outlook.com", i)
			remotes = append(remotes, w.remote(host, fmt.Sprintf("192.0.2.%d", i+1), answers{".": "SLOW 250 ok"}))
			w.mx(fmt.Sprintf("d%d.example", i), "0 "+host)
		}
		for i := range 20 {
			wg.Go(func() { w.deliver(fmt.Sprintf("u@d%d.example", i)) })
		}
		most := 0
		for range 60 {
			time.Sleep(10 * time.Second)
			open := 0
			for _, r := range remotes {
				r.mu.Lock()
				open += r.open
				r.mu.Unlock()
			}
			most = max(most, open)
		}
		wg.Wait()
		if s := w.relay.Sites(); len(s) != 1 || s[0].Name != "office365" || s[0].Max != 5 || most > 5 {
			t.Errorf("sites %+v, %d connections at a time", s, most)
		}
	})
}

// TestSitesAreForgotten: a site that nobody has needed for long makes room.
func TestSitesAreForgotten(t *testing.T) {
	bubble(t, nil, func(w *world) {
		for i := range manySites {
			p, verdict := w.relay.enter(context.Background(), &destination{site: fmt.Sprint(i)}, 1)
			if verdict != nil {
				t.Fatal(verdict)
			}
			p.leave(lesson{})
		}
		time.Sleep(siteMemory + time.Second)
		w.pair(nil)
		w.expect(w.deliver("u@d.example"), "delivered 2.0.0")
		if n := len(w.relay.Sites()); n != 1 {
			t.Errorf("%d sites", n)
		}
	})
}

// TestIdleLimits: the connections that wait are bounded in number, and a new one to a site takes the place of
// one that waits.
func TestIdleLimits(t *testing.T) {
	bubble(t, func(c *Config) { c.MaxIdle, c.IdleTimeout = 3, time.Hour }, func(w *world) {
		for i := range 5 {
			host := fmt.Sprintf("mx%d.example", i)
			w.remote(host, fmt.Sprintf("192.0.2.%d", i+1), nil)
			w.mx(fmt.Sprintf("d%d.example", i), "10 "+host)
			w.expect(w.deliver(fmt.Sprintf("u@d%d.example", i)), "delivered 2.0.0")
		}
		idle := 0
		for _, s := range w.relay.Sites() {
			idle += s.Idle
		}
		if idle != 3 {
			t.Errorf("%d connections wait", idle)
		}
	})
	bubble(t, func(c *Config) { c.MaxConnections, c.IdleTimeout = 1, time.Hour }, func(w *world) {
		a := w.remote("a.mail.protection.outlook.com", "192.0.2.1", nil)
		w.remote("b.mail.protection.outlook.com", "192.0.2.2", nil)
		w.mx("a.example", "0 a.mail.protection.outlook.com")
		w.mx("b.example", "0 b.mail.protection.outlook.com")
		w.expect(w.deliver("u@a.example"), "delivered 2.0.0")
		w.expect(w.deliver("u@b.example"), "delivered 2.0.0")
		time.Sleep(time.Second)
		if n := a.count("QUIT"); n != 1 {
			t.Error("two connections to a site that may have one")
		}
	})
}

// TestClose: no connection and no goroutine is left, and none is kept afterwards.
func TestClose(t *testing.T) {
	bubble(t, nil, func(w *world) {
		r, _ := w.pair(answers{".": "SLOW 250 ok"})
		w.expect(w.deliver("u@d.example"), "delivered 2.0.0")
		var wg sync.WaitGroup
		wg.Go(func() { w.expect(w.deliver("u@d.example"), "delivered 2.0.0") })
		time.Sleep(time.Second)
		w.relay.Close()
		w.relay.Close()
		wg.Wait()
		time.Sleep(time.Second)
		if r.mu.Lock(); r.open != 0 {
			t.Errorf("%d connections are left", r.open)
		}
		r.mu.Unlock()
	})
}

// TestMockClock: the relay also runs by a clock that is set by hand.
func TestMockClock(t *testing.T) {
	w := newWorld(t)
	w.block[us] = errBlackHole
	w.zone.Set("d.example", "A "+us.String())
	clk := clock.NewMock(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
	w.open()
	w.relay.Close()
	w.relay.clock = clk
	done := make(chan []queue.Result)
	go func() { done <- w.deliver("u@d.example") }()
	if err := clk.Wait(context.Background(), 2); err != nil {
		t.Fatal(err)
	}
	clk.Advance(w.relay.cfg.ConnectTimeout)
	w.expect(<-done, "deferred 4.4.1 unreachable")
}
