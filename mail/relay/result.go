package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/smtp"
)

// rank says how much a result is worth beside another for the same recipient.
type rank uint8

const (
	unknown   rank = iota
	incapable      // this host cannot take the message; another may
	reached        // no server could be spoken to: there may be one later
	spoken         // a server's word on the message
)

// settle gives a recipient a result, unless it has a better one.
func (a *attempt) settle(i int, r rank, res queue.Result) {
	if r >= a.ranks[i] {
		a.results[i], a.ranks[i] = res, r
	}
}

// settleAll gives every recipient the same result.
func (a *attempt) settleAll(res queue.Result) {
	for i := range a.results {
		a.settle(i, reached, res)
	}
	a.open = nil
}

// judge turns what a server said into results, and leaves open what another may take.
func (a *attempt) judge(ctx context.Context, c *session, replies []smtp.Result, err error) {
	recipients := a.open
	a.open = nil
	said, heard := replyIn(err) // on the message as a whole, before the connection broke
	for k, i := range recipients {
		reply := &replies[k].Reply
		switch {
		case replies[k].Accepted():
			a.spoke, a.delivered = true, true
			a.settle(i, spoken, queue.Result{Outcome: queue.Delivered, Status: statusOf(reply, ""),
				Reply: reply.String(), Peer: c.peer, Relayed: c.client.Extensions().DSN && !a.lmtp()})
		case replies[k].Stage != smtp.NotSent:
			a.refused(i, c, reply, replies[k].Stage)
		case heard && !said.Positive():
			a.refused(i, c, said, smtp.AtData)
		case errors.Is(err, smtp.ErrNoMoreMessages):
			a.again = true
			a.open = append(a.open, i)
			a.settle(i, unknown, *deferred(RateLimited, "4.4.5",
				"%s takes no more messages on one connection", c.target.host))
		default:
			a.unsent(ctx, i, c, err, replies[k].Unsure)
		}
	}
	if len(a.open) > 0 && !a.again {
		a.sessions++
	}
}

func (a *attempt) lmtp() bool { return a.dest.transport != nil && a.dest.transport.LMTP }

// refused settles a recipient that a server refused.
func (a *attempt) refused(i int, c *session, reply *smtp.Reply, stage smtp.Stage) {
	m := read(reply, false, a.dest.providerName())
	if a.dest.transport != nil && stage != smtp.AtData && (reply.Code == 530 || reply.Code/10 == 53) {
		m = meaning{class: Configuration, passes: true, slow: true}
	}
	res := queue.Result{Outcome: queue.Failed, Status: statusOf(reply, m.class), Reply: reply.String(),
		Peer: c.peer, Class: string(m.class), RetryAfter: m.wait, Unreachable: m.slow}
	worth := spoken
	if m.passes {
		res.Outcome = queue.Deferred
		if reply.Code/100 == 5 {
			res.Status = "4" + res.Status[1:]
		}
	}
	switch {
	case m.ipv4 && c.target.path == "" && c.target.addr.Addr().Is6():
		a.no6, worth = true, incapable
		a.open = append(a.open, i)
		a.shun(c.target, shunSixTime)
	case m.again && res.Outcome == queue.Deferred:
		a.again = true
		a.open = append(a.open, i)
	case m.next && res.Outcome == queue.Deferred:
		a.open = append(a.open, i)
	}
	if m.slow || m.again {
		c.limit = 0 // not to be kept
	}
	a.settle(i, worth, res)
	a.spoke = true
	a.learn(m, reply.String(), c.target)
}

// learn notes what a refusal says of the site. A server that stumbles is no reason to slow down as
// long as another one takes the message.
func (a *attempt) learn(m meaning, words string, t target) {
	switch {
	case m.slow && (m.class == RateLimited || m.class == Blocked || m.class == Configuration):
		a.taught.trouble, a.taught.slow, a.taught.why = true, m.class == RateLimited, words
		a.taught.pause = max(a.taught.pause, m.pause)
	case m.slow:
		a.stumbled = words
	}
	if m.class == Blocked || m.class == Unauthenticated {
		a.place.warn(m.class, t, words)
	}
}

// unsent settles a recipient that the server did not decide on: the message cannot go to it as it
// is, or the connection broke. If the server may have the message then, it is not put to another at once.
func (a *attempt) unsent(ctx context.Context, i int, c *session, err error, unsure bool) {
	if err == nil {
		err = errors.New("the server did not say")
	}
	status, class := capability(err)
	switch {
	case a.body.err != nil:
		res := deferred(Configuration, "4.3.0",
			"the message cannot be read from the queue: %v", a.body.err)
		res.Unreachable = false
		a.settle(i, spoken, *res)
	case status != "":
		a.spoke = true
		a.open = append(a.open, i)
		res := failed(class, status, "not sent to %s: %v", c.target.title(), err)
		res.Peer = c.peer
		a.settle(i, incapable, *res)
	case ctx.Err() != nil:
		a.settle(i, reached, *brokenOff(ctx))
	default:
		a.shun(c.target, stallShuns)
		how := "before it answered, so it may have the message"
		if !unsure {
			how = "before it had the message"
			a.open = append(a.open, i)
		}
		res := deferred(ConnectionLost, "4.4.2", "the connection to %s was lost %s: %v",
			c.target.title(), how, err)
		res.Peer, res.Unreachable = c.peer, false
		a.settle(i, spoken, *res)
	}
}

func (a *attempt) shun(t target, d time.Duration) {
	now := a.r.clock.Now()
	a.r.memory.update(t, now, func(h *hostMemory) { h.shunUntil = now.Add(d) })
}

// capabilities are the errors of a message that one server cannot take as it is.
var capabilities = []struct {
	err    error
	status string
	class  Class
}{
	{smtp.ErrNeeds8BitMIME, "5.6.3", Incapable}, {smtp.ErrNeedsBinary, "5.6.3", Incapable},
	{smtp.ErrNeedsSMTPUTF8, "5.6.7", Incapable}, {smtp.ErrNeedsTLS, "5.7.30", TLSRequired},
	{smtp.ErrTooLarge, "5.3.4", TooLarge}, {smtp.ErrMalformed, "5.6.0", Protocol},
	{smtp.ErrAddress, "5.1.3", Protocol}, {smtp.ErrNeedsHold, "5.3.3", Incapable},
}

func capability(err error) (status string, class Class) {
	for _, c := range capabilities {
		if errors.Is(err, c.err) {
			return c.status, c.class
		}
	}
	return "", ""
}

func isCapability(err error) bool {
	status, _ := capability(err)
	return status != "" || errors.Is(err, smtp.ErrNoMoreMessages)
}

// statusOf returns the enhanced status code of a reply, or the one that its class stands for.
func statusOf(r *smtp.Reply, class Class) string {
	if r.Enhanced != "" {
		return r.Enhanced
	}
	return string('0'+rune(r.Code/100)) + "." + class.detail()
}

// unreached settles the open recipients, for now, where no session came about.
func (a *attempt) unreached(ctx context.Context, t target, err error) {
	if ctx.Err() != nil {
		a.settleOpen(reached, *brokenOff(ctx))
		return
	}
	res := queue.Result{Outcome: queue.Deferred, Unreachable: true, Peer: peerOf(t)}
	worth := reached
	var (
		protection *protectionError
		said       *smtp.Reply
		login      *loginError
		handshake  *handshakeError
		connection *connectError
	)
	switch {
	case errors.Is(err, errLoop):
		a.self = true
		return
	case errors.As(err, &protection):
		res.Class, res.Status = string(TLSRequired), "4."+protection.status
		if protection.permanent {
			res.Outcome, res.Status = queue.Failed, "5."+protection.status
			res.Unreachable, worth = false, incapable
		}
	case errors.As(err, &login):
		res.Class, res.Status = string(Configuration), "4.7.8"
		a.taught = lesson{trouble: true, pause: loginPause, why: err.Error()}
		a.r.log.Error("cannot log in", "server", t.title(), "err", err)
	case errors.As(err, &said):
		a.turnedAway(t, said)
		return
	case errors.As(err, &handshake):
		res.Class, res.Status = string(TLSRequired), "4.7.5"
	case errors.As(err, &connection):
		res.Class, res.Status = string(Unreachable), "4.4.1"
		a.shun(t, shunTime)
	default:
		res.Class, res.Status = string(Unreachable), "4.4.2"
		a.shun(t, shunTime)
	}
	code := "451"
	if res.Outcome == queue.Failed {
		code = "550"
	}
	res.Reply = fmt.Sprintf("%s %s %s: %v", code, res.Status, t.title(), err)
	a.settleOpen(worth, res)
}

const (
	loginPause  = 10 * time.Minute // long enough not to be locked out for guessing
	busyTime    = 5 * time.Minute  // for which others are tried before a host that turned us away
	shunSixTime = 24 * time.Hour   // for which IPv4 goes first where our IPv6 address is not liked
)

// Ours reports whether the reply of a result is this server's own sentence about a server that did not decide:
// it could not be reached, or hung up, or cannot take the message. What a server itself said is not changed.
func Ours(r *queue.Result) bool {
	if r.Peer == nil {
		return true
	}
	_, words, _ := strings.Cut(r.Reply, " ")
	_, words, _ = strings.Cut(words, " ")
	about := r.Peer.Name + " [" + r.Peer.Addr + "]"
	if r.Peer.Name == "" {
		about = r.Peer.Addr
	}
	for _, begin := range [...]string{about + ": ", "not sent to " + about, "the connection to " + about} {
		if strings.HasPrefix(words, begin) {
			return true
		}
	}
	return false
}

// turnedAway settles the open recipients, for now, where a server refused the connection in words.
func (a *attempt) turnedAway(t target, said *smtp.Reply) {
	m := read(said, true, a.dest.providerName())
	res := queue.Result{Outcome: queue.Failed, Status: statusOf(said, m.class), Reply: said.String(),
		Peer: peerOf(t), Class: string(m.class), RetryAfter: m.wait}
	worth := incapable
	if m.passes {
		res.Outcome, res.Unreachable, worth = queue.Deferred, true, reached
		res.Status = "4" + res.Status[1:]
	}
	if m.ipv4 && t.path == "" && t.addr.Addr().Is6() {
		a.no6, m.next = true, true
		a.shun(t, shunSixTime)
	} else {
		a.shun(t, busyTime)
	}
	a.settleOpen(worth, res)
	a.learn(m, said.String(), t)
	if !m.next {
		a.open = nil
	}
}

func peerOf(t target) *mail.Peer {
	if t.path != "" {
		return &mail.Peer{Addr: t.path}
	}
	return &mail.Peer{Name: t.host, Addr: t.addr.Addr().String()}
}

func (a *attempt) settleOpen(r rank, res queue.Result) {
	for _, i := range a.open {
		a.settle(i, r, res)
	}
}

// brokenOff is the result where time ran out, or this server is being stopped.
func brokenOff(ctx context.Context) *queue.Result {
	res := deferred(Unreachable, "4.4.1", "the attempt was broken off: %v", context.Cause(ctx))
	res.Unreachable = errors.Is(context.Cause(ctx), context.DeadlineExceeded)
	return res
}

// finish gives a result to recipients for which there was no host to ask.
func (a *attempt) finish(ctx context.Context) {
	if !slices.Contains(a.ranks, unknown) {
		return
	}
	var res *queue.Result
	name := a.dest.name()
	switch {
	case ctx.Err() != nil:
		res = brokenOff(ctx)
	case a.looked.passing:
		res = deferred(Unreachable, "4.4.3",
			"the addresses of %s cannot be looked up: %v", name, a.looked.err)
	case a.self:
		res = failed(Loop, "5.4.6",
			"the best mail server of %s that answers is this one, which does not take its mail", name)
	case a.looked.err != nil:
		res = failed(NoSuchDomain, "5.4.4", "no mail server of %s has an address: %v", name, a.looked.err)
	default:
		res = failed(NoSuchDomain, "5.4.4", "no mail server of %s has an address that can be used", name)
	}
	for i, r := range a.ranks {
		if r == unknown && a.results[i].Reply == "" {
			a.results[i] = *res
		}
	}
}

// lesson is what the site is to learn from the attempt.
func (a *attempt) lesson() lesson {
	l := a.taught
	switch {
	case l.trouble:
	case a.delivered:
		l.good = true
	case a.stumbled != "":
		l.trouble, l.why = true, a.stumbled
	case a.spoke:
		l.good = true
	case a.addresses > 0 && a.ranks[0] == reached && a.results[0].Unreachable:
		l.trouble, l.why = true, a.results[0].Reply
	}
	return l
}

// name is what a destination is called in words for people.
func (d *destination) name() string {
	if d.transport != nil {
		return d.transport.place()
	}
	return string(d.domain)
}

func (d *destination) providerName() string {
	if d.provider == nil {
		return ""
	}
	return d.provider.name
}
