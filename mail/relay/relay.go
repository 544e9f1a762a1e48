// Package relay hands messages to the servers of other domains.
//
// The servers of a domain are its MX hosts in order of preference, or the domain's own host (RFC 5321,
// section 5), or one smarthost for all. A connection is encrypted where the server offers it, kept for
// further messages, and closed when it has been idle. What servers say is passed on word for word. The
// package decides what a reply means for a recipient; when to try again is the queue's business.
package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/smtp"
)

// Config says how mail leaves. Hostname must be set.
type Config struct {
	Hostname  string // what we call ourselves
	Port      int    // of other servers; 0: 25
	Smarthost string // host:port that takes all mail; empty: each domain's own servers

	// MaxHosts is the most addresses tried in one attempt. 0: 5.
	MaxHosts int
	// ConnectTimeout is for one address. 0: 30 seconds.
	ConnectTimeout time.Duration
	// IdleTimeout is how long a connection is kept for the next message. 0: 5 seconds.
	IdleTimeout time.Duration
	// Dial opens connections. nil: net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

func (c *Config) fill() {
	if c.Port == 0 {
		c.Port = 25
	}
	if c.MaxHosts == 0 {
		c.MaxHosts = 5
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 30 * time.Second
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = 5 * time.Second
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
}

// Relay is a queue.Deliverer for other domains. Its methods may be called from several goroutines.
type Relay struct {
	cfg      Config
	resolver dns.Resolver
	clock    clock.Clock
	log      *slog.Logger
	pool     pool
}

// New returns a relay; Close ends its connections.
func New(cfg Config, resolver dns.Resolver, clk clock.Clock, log *slog.Logger) *Relay {
	cfg.fill()
	r := &Relay{cfg: cfg, resolver: resolver, clock: clk, log: log}
	r.pool.idle = make(map[string][]*idleConn)
	return r
}

// Close closes the connections that are kept for further messages.
func (r *Relay) Close() error { return r.pool.close() }

// Route is as queue.Deliverer has it: the smarthost is one route, else each domain.
func (r *Relay) Route(to mail.Address) queue.Route {
	if r.cfg.Smarthost != "" {
		return queue.Route("smtp:" + r.cfg.Smarthost)
	}
	return queue.Route("smtp:" + to.Domain.ASCII())
}

// Deliver is as queue.Deliverer has it. Hosts are tried in order until every recipient is settled; one that
// a host defers is put to the next.
func (r *Relay) Deliver(ctx context.Context, d *queue.Delivery) []queue.Result {
	a := &attempt{relay: r, delivery: d, results: make([]queue.Result, len(d.Envelope.Recipients))}
	for i := range d.Envelope.Recipients {
		a.open = append(a.open, i)
	}
	hosts, verdict := r.hosts(ctx, strings.TrimPrefix(string(d.Route), "smtp:"))
	if verdict != nil {
		a.settleAll(*verdict)
		return a.results
	}
	for i, h := range hosts {
		if i == r.cfg.MaxHosts || len(a.open) == 0 || ctx.Err() != nil {
			break
		}
		a.try(ctx, h)
	}
	return a.results
}

// attempt is one Deliver: what each recipient has come to so far.
type attempt struct {
	relay    *Relay
	delivery *queue.Delivery
	results  []queue.Result
	open     []int // indexes of the recipients that another host may still take
}

// settleAll gives every open recipient the same result.
func (a *attempt) settleAll(res queue.Result) {
	for _, i := range a.open {
		a.results[i] = res
	}
}

// try puts the open recipients to one host.
func (a *attempt) try(ctx context.Context, h host) {
	client, err := a.relay.connect(ctx, h)
	if err != nil {
		a.settleAll(unreachable(h, err))
		return
	}
	env := a.delivery.Envelope
	env.Recipients = make([]mail.Recipient, len(a.open))
	for i, j := range a.open {
		env.Recipients[i] = a.delivery.Envelope.Recipients[j]
	}
	replies, err := client.Send(ctx, &env, a.delivery.Body, a.delivery.Size)
	peer := client.Peer()
	peer.Name = h.name
	a.relay.release(ctx, h, client)
	var open []int
	for i, j := range a.open {
		a.results[j] = result(replies[i], err, &peer, client.Extensions().DSN)
		if a.results[j].Outcome == queue.Deferred {
			open = append(open, j)
		}
	}
	a.open = open
}

// result turns what a server said of a recipient into what it means. Where err is set and the server had not
// decided, the recipient shares in what went wrong.
func result(r smtp.Result, err error, peer *mail.Peer, dsn bool) queue.Result {
	res := queue.Result{Peer: peer, Reply: r.Reply.String(), Status: r.Reply.Enhanced}
	switch {
	case r.Accepted():
		res.Outcome, res.Relayed = queue.Delivered, dsn
	case r.Reply.Permanent():
		res.Outcome = queue.Failed
	case r.Reply.Code != 0:
		res.Outcome = queue.Deferred
	default:
		return broken(err, peer)
	}
	if res.Status == "" {
		res.Status = fmt.Sprintf("%d.0.0", r.Reply.Code/100)
	}
	return res
}

// broken is the result where the server did not decide: the connection failed, or the message cannot go to
// this server as it is.
func broken(err error, peer *mail.Peer) queue.Result {
	if err == nil {
		err = errors.New("the server did not say")
	}
	for _, c := range []struct {
		err    error
		status string
	}{
		{smtp.ErrNeeds8BitMIME, "5.6.3"}, {smtp.ErrNeedsBinary, "5.6.3"}, {smtp.ErrNeedsSMTPUTF8, "5.6.7"},
		{smtp.ErrNeedsTLS, "5.7.30"}, {smtp.ErrTooLarge, "5.3.4"}, {smtp.ErrMalformed, "5.6.0"},
	} {
		if errors.Is(err, c.err) {
			return queue.Result{Outcome: queue.Failed, Status: c.status, Peer: peer,
				Reply: fmt.Sprintf("550 %s not sent to %s [%s]: %v", c.status, peer.Name, peer.Addr, err)}
		}
	}
	return queue.Result{Outcome: queue.Deferred, Status: "4.4.2", Peer: peer,
		Reply: fmt.Sprintf("451 4.4.2 connection to %s [%s] was lost: %v", peer.Name, peer.Addr, err)}
}

// unreachable is the result where no session came about. A refusal in the greeting is the server's own word.
func unreachable(h host, err error) queue.Result {
	peer := &mail.Peer{Name: h.name, Addr: h.addr.String()}
	var refused *smtp.Reply
	if errors.As(err, &refused) && refused.Permanent() {
		return queue.Result{Outcome: queue.Failed, Status: "5.3.2", Peer: peer, Reply: refused.String()}
	}
	res := queue.Result{Outcome: queue.Deferred, Status: "4.4.1", Peer: peer, Unreachable: true,
		Reply: fmt.Sprintf("451 4.4.1 %s [%s] cannot be reached: %v", h.name, h.addr, err)}
	if refused != nil {
		res.Reply = refused.String()
	}
	return res
}
