package relay

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

// site is the servers that a set of domains shares: the same MX hosts, or those of one provider.
// Attempts at it take a place each; how many places there are follows what the site puts up with,
// as TCP's window does: one more for each round of successes, half as many after trouble.
type site struct {
	name string
	max  float64
	r    *Relay

	mu      sync.Mutex
	limit   float64          // guarded by mu, as what follows; places
	busy    int              // places taken
	waiting []chan struct{}  // for a place, the longest first; closed when there is one, or a pause
	cut     uint64           // how often the limit was cut
	fails   int              // troubles in a row
	paused  time.Time        // no attempt before
	why     string           // in the words of the site
	idle    []*session       // the one used last comes last
	used    time.Time        // when a place was last given back
	backlog map[mail.ID]bool // messages given back for want of a place, and not seen since
	takes   time.Duration    // an attempt, on average
	warned  time.Time        // when the operator was last told that we are not welcome
	gone    bool             // forgotten: another has the name now
}

const (
	firstPlaces = 3
	// maxWaiting is how many attempts may wait at one site. They occupy places of the queue, which
	// other sites may need.
	maxWaiting = 25
	// minRetry and maxRetry bound when the queue is to bring a message again for which there was no
	// place.
	minRetry, maxRetry = 15 * time.Second, 15 * time.Minute
	maxBacklog         = 10_000

	firstPause = 30 * time.Second
	// maxPause after connections that failed is shorter than the queue's shortest wait: else a message
	// that is due would find the site paused, and wait twice as long.
	maxPause = 4 * time.Minute
	// maxSlowPause is for sites that said that they get too much.
	maxSlowPause = 30 * time.Minute

	warnEvery  = time.Hour
	siteMemory = time.Hour // a site without mail is forgotten
	manySites  = 10_000    // from here on those that are forgotten are looked for
)

// site finds or makes the site of a destination.
func (r *Relay) site(dest *destination) *site {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sites[dest.site]; s != nil {
		return s
	}
	now := r.clock.Now()
	if len(r.sites) >= manySites {
		for name, s := range r.sites {
			if s.forget(now) {
				delete(r.sites, name)
			}
		}
	}
	s := &site{name: dest.site, r: r, max: float64(r.cfg.MaxConnections), used: now,
		backlog: make(map[mail.ID]bool)}
	if p := dest.provider; p != nil && p.connections > 0 {
		s.max = min(s.max, float64(p.connections))
	}
	s.limit = min(s.max, firstPlaces)
	if dest.transport != nil && dest.transport.LMTP {
		s.limit = s.max // ours to begin with
	}
	r.sites[dest.site] = s
	return s
}

// forget reports whether nobody needs the site any more; then nobody enters it.
func (s *site) forget(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = s.busy == 0 && len(s.waiting) == 0 && len(s.idle) == 0 && !s.paused.After(now) &&
		now.Sub(s.used) > siteMemory
	return s.gone
}

// place is the right to one connection of a site.
type place struct {
	*site
	cut   uint64 // site.cut when it was given
	since time.Time
}

// enter takes a place at the site of a destination, waiting for a while. A message for which there
// is none is no attempt: the result says when to come again.
func (r *Relay) enter(ctx context.Context, dest *destination, id mail.ID) (place, *queue.Result) {
	s := r.site(dest)
	s.mu.Lock()
	for s.gone {
		s.mu.Unlock()
		s = r.site(dest)
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	delete(s.backlog, id)
	now := r.clock.Now()
	switch left := s.paused.Sub(now); {
	case left > 0:
		return place{}, s.resting(left)
	case s.busy < int(s.limit) && len(s.waiting) == 0:
		s.busy++
		return place{s, s.cut, now}, nil
	case len(s.waiting) >= maxWaiting:
		return place{}, s.full(id)
	}
	if !s.wait(ctx) {
		return place{}, s.full(id)
	}
	now = r.clock.Now()
	if left := s.paused.Sub(now); left > 0 {
		s.busy--
		return place{}, s.resting(left)
	}
	return place{s, s.cut, now}, nil
}

// wait waits for a place. mu is held, but not while waiting.
func (s *site) wait(ctx context.Context) bool {
	turn := make(chan struct{})
	s.waiting = append(s.waiting, turn)
	s.mu.Unlock()
	fired, stop := s.r.clock.After(s.r.cfg.SiteWait)
	select {
	case <-turn:
	case <-fired:
	case <-ctx.Done():
	}
	stop()
	s.mu.Lock()
	if i := slices.Index(s.waiting, turn); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
		return false
	}
	return true
}

// resting is the result for a message that comes while the site is paused. mu is held.
func (s *site) resting(left time.Duration) *queue.Result {
	res := deferred(RateLimited, "4.4.5", "%s gets no mail from here before %s. It said: %s",
		s.title(), s.paused.UTC().Format(time.RFC3339), s.why)
	res.RetryAfter, res.Busy = left, true
	return res
}

// full is the result for a message that found no place: it is to come again about when those before
// it have been dealt with. Sooner would cost the queue an entry each time. mu is held.
func (s *site) full(id mail.ID) *queue.Result {
	res := deferred(RateLimited, "4.4.5", "all %d connections to %s are in use",
		int(s.limit), s.title())
	if len(s.backlog) < maxBacklog {
		s.backlog[id] = true
	}
	wait := time.Duration(float64(len(s.backlog)) / s.limit * float64(s.takes))
	wait = min(max(wait, minRetry), maxRetry)
	res.RetryAfter = wait + rand.N(wait/2)
	res.Busy, res.Unreachable = true, false
	return res
}

// title is the name of a site for people.
func (s *site) title() string {
	name := strings.TrimPrefix(s.name, routeVia)
	if first, rest, many := strings.Cut(name, ","); many {
		return fmt.Sprintf("%s and %d more", first, 1+strings.Count(rest, ","))
	}
	return name
}

// lesson is what an attempt taught about its site.
type lesson struct {
	good    bool // somebody there dealt with a message
	trouble bool
	pause   time.Duration // that a rule asks for; 0: by the number of troubles
	slow    bool          // the site said that it gets too much
	why     string
}

// leave gives a place back and learns.
func (p place) leave(l lesson) {
	s := p.site
	now := s.r.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy--
	s.used = now
	s.takes += (now.Sub(p.since) - s.takes) / 8
	switch {
	case l.trouble:
		s.trouble(p, l, now)
	case l.good:
		s.fails = 0
		if p.cut == s.cut {
			s.limit = min(s.max, s.limit+1/s.limit)
		}
	}
	// In a pause all are woken, to be told so.
	for len(s.waiting) > 0 && (s.busy < int(s.limit) || s.paused.After(now)) {
		close(s.waiting[0])
		s.waiting = s.waiting[1:]
		s.busy++
	}
}

// trouble halves the number of places, once for all the attempts that were under way: what they
// meet has one cause. mu is held.
func (s *site) trouble(p place, l lesson, now time.Time) {
	if p.cut != s.cut && l.pause == 0 {
		return
	}
	before := s.limit
	if p.cut == s.cut {
		s.cut++
		s.fails++
		s.limit = max(1, s.limit/2)
	}
	pause, most := l.pause, maxPause
	if l.slow {
		most = maxSlowPause
	}
	if pause == 0 && (l.slow || before < 2) {
		pause = min(most, firstPause<<min(s.fails-1, 10))
	}
	if until := now.Add(pause); pause > 0 && until.After(s.paused) {
		s.paused, s.why = until, l.why
	}
	s.r.log.Info("site makes trouble: fewer connections", "site", s.name, "limit", int(s.limit),
		"pause", pause, "reply", l.why)
}

// warn tells the operator that a site will not have us, at most once an hour: no retry mends that.
func (s *site) warn(class Class, t target, words string) {
	now := s.r.clock.Now()
	s.mu.Lock()
	due := now.Sub(s.warned) >= warnEvery
	if due {
		s.warned = now
	}
	s.mu.Unlock()
	if due {
		s.r.log.Warn("servers refuse mail from here", "site", s.name, "host", t.host, "addr", t,
			"class", class, "reply", words)
	}
}

// SiteState is where the relay stands with a site, for people.
type SiteState struct {
	Name    string    `json:"name"`
	Limit   int       `json:"limit"` // connections at a time that it may have now
	Max     int       `json:"max"`
	Busy    int       `json:"busy"`
	Idle    int       `json:"idle"`
	Waiting int       `json:"waiting"`
	Paused  time.Time `json:"paused,omitzero"` // until then it gets no mail
	Why     string    `json:"why,omitempty"`   // in the words of the site
}

// Sites returns the state of all sites that have had mail of late, by name.
func (r *Relay) Sites() []SiteState {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Now()
	out := make([]SiteState, 0, len(r.sites))
	for _, s := range r.sites {
		s.mu.Lock()
		st := SiteState{Name: s.name, Limit: int(s.limit), Max: int(s.max), Busy: s.busy,
			Idle: len(s.idle), Waiting: len(s.waiting)}
		if s.paused.After(now) {
			st.Paused, st.Why = s.paused, s.why
		}
		s.mu.Unlock()
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b SiteState) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Resume ends the pause of a site, and reports whether there is a site of that name.
func (r *Relay) Resume(name string) bool {
	r.mu.Lock()
	s := r.sites[name]
	r.mu.Unlock()
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused, s.fails = time.Time{}, 0
	return true
}
