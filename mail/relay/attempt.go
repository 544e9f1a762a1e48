package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/smtp"
)

// attempt is one Deliver: what each recipient has come to so far, and who may still take it.
type attempt struct {
	r     *Relay
	d     *queue.Delivery
	dest  *destination
	place place
	body  source

	results []queue.Result
	ranks   []rank
	open    []int // recipients that another host may still take

	demands   []hostDemand
	used      []target // addresses that were tried
	late      []target // to be tried when nothing else has helped: they failed of late
	addresses int      // how many were connected to
	sessions  int      // how many dealt with the message and left something open
	no6       bool     // the site does not want our IPv6 address
	again     bool     // another connection to the host at hand will do
	sevenBit  *sevenBit

	taught    lesson // that the site asked for
	stumbled  string // what a server said that could not go on
	spoke     bool   // a server dealt with the message
	delivered bool   // for somebody
	looked    lookup // what looking up hosts has come to, where it failed
	self      bool   // a host was ourselves
}

// maxSessions is how many hosts an attempt puts a message to that the one before did not settle.
const (
	maxSessions   = 3
	maxReconnects = 10
)

func newAttempt(r *Relay, d *queue.Delivery) *attempt {
	n := len(d.Envelope.Recipients)
	a := &attempt{r: r, d: d, body: source{r: d.Body}, results: make([]queue.Result, n),
		ranks: make([]rank, n), open: make([]int, n)}
	for i := range a.open {
		a.open[i] = i
	}
	return a
}

// source is the message, and why it could not be read.
type source struct {
	r   io.ReaderAt
	err error
}

// ReadAt is as io.ReaderAt has it; the errors of the end are none.
func (s *source) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.r.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// run tries hosts, the best first, until every recipient is settled or nothing is left to try.
func (a *attempt) run(ctx context.Context) {
	for _, tier := range a.dest.tiers {
		a.reuse(ctx, tier)
		if a.over(ctx) {
			break
		}
		l := a.r.lookup(ctx, a.dest, tier)
		if l.self {
			a.self = true
			break // and with it all that are no better than we are
		}
		if l.err != nil {
			a.looked.err, a.looked.passing = l.err, a.looked.passing || l.passing
		}
		a.dial(ctx, a.sift(l.targets))
		if a.self || a.over(ctx) {
			break
		}
	}
	a.dial(ctx, a.late)
	a.finish(ctx)
}

// over reports whether there is nothing left to do, or to do it with.
func (a *attempt) over(ctx context.Context) bool {
	return len(a.open) == 0 || ctx.Err() != nil || a.sessions >= maxSessions ||
		a.addresses >= a.r.cfg.MaxAddresses
}

// sift leaves out addresses of a version of IP that leads nowhere where there are others, and puts
// off those that failed of late.
func (a *attempt) sift(targets []target) []target {
	now := a.r.clock.Now()
	down := func(t target) bool {
		return t.path == "" && (a.r.families.down(t.addr.Addr(), now) || a.no6 && t.addr.Addr().Is6())
	}
	if slices.ContainsFunc(targets, func(t target) bool { return !down(t) }) {
		targets = slices.DeleteFunc(targets, down)
	}
	first := targets[:0]
	for _, t := range targets {
		if a.r.memory.get(t).shunUntil.After(now) {
			a.late = append(a.late, t)
			continue
		}
		first = append(first, t)
	}
	return first
}

// reuse puts the message to sessions that wait at hosts of a tier. One that turns out to be dead is
// no try.
func (a *attempt) reuse(ctx context.Context, tier []string) {
	want := approval{a.dest.domain, a.d.Envelope.RequireTLS}
	var unfit []*session
	at := func(c *session) bool {
		here := slices.Contains(tier, c.target.host) && c.target.addr.Port() == a.dest.port
		return (here || c.target.path != "") && !slices.Contains(a.used, c.target)
	}
	for !a.over(ctx) {
		c := a.place.take(func(c *session) bool { return at(c) && slices.Contains(c.approved, want) })
		if c == nil {
			if c = a.place.take(at); c == nil {
				break
			}
			if !a.approve(ctx, c, want) {
				unfit = append(unfit, c)
				continue
			}
		}
		alive, asked := c.alive(ctx, a.r.clock.Now())
		if !alive {
			a.r.quit(c)
			continue
		}
		a.again = false
		if a.use(ctx, c, !asked) && !a.again {
			a.used = append(a.used, c.target)
		}
	}
	for _, c := range unfit {
		a.place.keep(c)
	}
}

// approve reports whether a session that was made for another domain will do.
func (a *attempt) approve(ctx context.Context, c *session, want approval) bool {
	if t := a.dest.transport; t != nil && want.requireTLS && !t.verified() {
		return false // nobody has looked at its certificate
	}
	d := a.demand(ctx, c.target.host)
	if d.barred() != nil {
		return false
	}
	seen, err := d.metBy(c.client)
	if err != nil {
		return false
	}
	a.r.tell(d, c, seen)
	c.approve(want)
	return true
}

// dial puts the message to new sessions.
func (a *attempt) dial(ctx context.Context, targets []target) {
	for _, t := range targets {
		if a.over(ctx) {
			return
		}
		if slices.Contains(a.used, t) || a.no6 && t.path == "" && t.addr.Addr().Is6() {
			continue
		}
		a.used = append(a.used, t)
		a.addresses++
		for again := 0; again < maxReconnects; again++ {
			before := len(a.open)
			if !a.connect(ctx, t) || len(a.open) == 0 || again > 0 && len(a.open) == before {
				break
			}
		}
		if a.self {
			return
		}
	}
}

// connect puts the message to a new session at an address. It reports whether another one there
// will do for those that are still open.
func (a *attempt) connect(ctx context.Context, t target) (again bool) {
	d := a.demand(ctx, t.host)
	a.place.makeRoom()
	c, err := a.r.open(ctx, a.dest, t, d)
	if err != nil {
		a.unreached(ctx, t, err)
		return false
	}
	c.approve(approval{a.dest.domain, a.d.Envelope.RequireTLS})
	a.again = false
	a.use(ctx, c, false)
	return a.again
}

// use puts the open recipients to a session and gives it back. It reports false where a session
// that may be stale was no longer there, and nothing has come of it.
func (a *attempt) use(ctx context.Context, c *session, stale bool) bool {
	env := a.d.Envelope
	env.Recipients = make([]mail.Recipient, len(a.open))
	for i, j := range a.open {
		env.Recipients[i] = a.d.Envelope.Recipients[j]
	}
	replies, err := a.send(ctx, c, &env)
	c.sent++
	c.used = a.r.clock.Now()
	if stale && hungUp(replies, err) && ctx.Err() == nil && a.body.err == nil {
		c.client.Close()
		return false
	}
	a.judge(ctx, c, replies, err)
	a.place.keep(c)
	return true
}

// hungUp reports whether a server ended the connection without a word on the message, or with 421
// for the time it has waited.
func hungUp(replies []smtp.Result, err error) bool {
	for _, r := range replies {
		idle := r.Stage == smtp.AtMail && r.Reply.Code == 421
		if !idle && (r.Stage != smtp.NotSent || err == nil || isCapability(err)) {
			return false
		}
	}
	said, heard := replyIn(err)
	return !heard || said.Code == 421
}

// replyIn returns the reply among the errors.
func replyIn(err error) (*smtp.Reply, bool) {
	if err == nil {
		return nil, false
	}
	said := new(smtp.Reply)
	return said, errors.As(err, &said)
}

// send sends the message, made 7-bit where the server takes nothing else.
func (a *attempt) send(ctx context.Context, c *session, env *mail.Envelope) ([]smtp.Result, error) {
	replies, err := c.client.Send(ctx, env, &a.body, a.d.Size)
	if !errors.Is(err, smtp.ErrNeeds8BitMIME) && !errors.Is(err, smtp.ErrNeedsBinary) {
		return replies, err
	}
	if a.sevenBit == nil {
		a.sevenBit = toSevenBit(&a.body, a.d.Size)
	}
	if a.sevenBit.err != nil {
		return replies, fmt.Errorf("%w; %w", err, a.sevenBit.err)
	}
	env.Body = mail.Body7Bit
	return c.client.Send(ctx, env, a.sevenBit.body, a.sevenBit.size)
}
