package relay

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/smtp"
)

// session is a connection to one server. Who took it out of its site owns it.
type session struct {
	client *smtp.Client
	target target
	local  netip.Addr // our end
	peer   *mail.Peer // shared with results: not changed
	limit  int        // messages it may carry
	born   time.Time
	used   time.Time // when it last carried one
	sent   int       // messages so far

	approved []approval
}

// approval says that a connection met the demand of messages of one kind to a domain. It holds as
// long as the connection lasts, which is not much longer than maxAge.
type approval struct {
	domain     mail.Domain
	requireTLS bool
}

const (
	maxAge       = 5 * time.Minute
	maxApprovals = 64
	// probeAfter is the idle time from which on a server is asked whether it is still there before a
	// message is put to it: over TLS one cannot see that it has hung up.
	probeAfter = time.Second
	quitTime   = 2 * time.Second
)

// take takes a session that waits out of a site, the one used last.
func (s *site) take(fits func(*session) bool) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.idle) - 1; i >= 0; i-- {
		if c := s.idle[i]; fits(c) {
			s.idle = slices.Delete(s.idle, i, i+1)
			s.r.idle.Add(-1)
			return c
		}
	}
	return nil
}

// makeRoom ends the session that has waited longest, where a new one would make more connections
// than there are places.
func (s *site) makeRoom() {
	s.mu.Lock()
	var old *session
	if len(s.idle) > 0 && s.busy+len(s.idle) > int(s.limit) {
		old = s.idle[0]
		s.idle = slices.Delete(s.idle, 0, 1)
		s.r.idle.Add(-1)
	}
	s.mu.Unlock()
	if old != nil {
		s.r.quit(old)
	}
}

// keep keeps a session for the next message, or ends it.
func (s *site) keep(c *session) {
	r := s.r
	if !c.client.Reusable() || c.sent >= c.limit || c.used.Sub(c.born) >= maxAge || !s.hold(c) {
		r.quit(c)
		return
	}
	if r.sweeps.CompareAndSwap(false, true) && !r.start(r.sweep) {
		r.sweeps.Store(false)
	}
}

// hold adds a session to those that wait, if it may.
func (s *site) hold(c *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.r.closed.Load() {
		return false
	}
	if s.r.idle.Add(1) > int64(s.r.cfg.MaxIdle) {
		s.r.idle.Add(-1)
		return false
	}
	s.idle = append(s.idle, c)
	return true
}

// start runs f on a goroutine that Close waits for; false after Close.
func (r *Relay) start(f func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed.Load() {
		return false
	}
	r.tasks.Go(f)
	return true
}

// sweep ends sessions that have waited long enough, as long as any wait.
func (r *Relay) sweep() {
	for {
		fired, stop := r.clock.After(r.cfg.IdleTimeout / 2)
		select {
		case <-fired:
		case <-r.closing:
			stop()
			return
		}
		r.sweepOnce(r.clock.Now())
		if r.idle.Load() > 0 {
			continue
		}
		r.sweeps.Store(false)
		if r.idle.Load() == 0 || !r.sweeps.CompareAndSwap(false, true) {
			return // whoever keeps a session now starts another
		}
	}
}

func (r *Relay) sweepOnce(now time.Time) {
	r.mu.Lock()
	sites := make([]*site, 0, len(r.sites))
	for _, s := range r.sites {
		sites = append(sites, s)
	}
	r.mu.Unlock()
	var old []*session
	for _, s := range sites {
		s.mu.Lock()
		n := len(s.idle)
		s.idle = slices.DeleteFunc(s.idle, func(c *session) bool {
			expired := now.Sub(c.used) >= r.cfg.IdleTimeout
			if expired {
				old = append(old, c)
			}
			return expired
		})
		r.idle.Add(int64(len(s.idle) - n))
		s.mu.Unlock()
	}
	for _, c := range old {
		if !r.start(func() { r.quit(c) }) {
			c.client.Close()
		}
	}
}

// quit ends a session politely. It waits for the server's answer, for a little while: one that
// still counts us among its connections might refuse the next.
func (r *Relay) quit(c *session) {
	ctx, cancel := context.WithTimeout(context.Background(), quitTime)
	defer cancel()
	c.client.Quit(ctx)
}

// approve notes that a session met a demand.
func (c *session) approve(a approval) {
	if len(c.approved) < maxApprovals && !slices.Contains(c.approved, a) {
		c.approved = append(c.approved, a)
	}
}

// alive reports whether a session that has waited can still be used, and whether the server itself
// has just said so.
func (c *session) alive(ctx context.Context, now time.Time) (alive, asked bool) {
	switch {
	case !c.client.Reusable():
		return false, false
	case now.Sub(c.used) < probeAfter:
		return true, false
	}
	return c.client.Reset(ctx) == nil, true
}
