// Package relay hands messages to the servers of other domains.
//
// The servers of a domain are its MX hosts in order of preference, or the domain's own host (RFC
// 5321, section 5), or a server that the configuration names. What DANE, MTA-STS, REQUIRETLS and
// "TLS-Required" demand of the connection is met or the message is not sent over it; otherwise TLS
// is used where it can be had. Connections are kept for further messages, and shared by all domains
// with the same servers; how many there are at a time follows what these servers put up with. Every
// reply is passed on word for word, together with what it means: slow down, try the next server,
// come again later, or give up.
//
// The package does not keep messages, decide when the next attempt is due, or write bounces: the
// queue does. It resolves names and dials, but listens to nobody.
package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/tlspolicy"
)

// Config says how mail leaves. Hostname must be set.
type Config struct {
	Hostname string // what we call ourselves
	Port     int    // of MX hosts; 0: 25

	// Routes are the domains whose mail goes elsewhere than to their MX hosts: "example.org" that
	// domain, ".example.org" all below it, "*" every other (a smarthost). The zero Transport is the
	// way by MX, an exception from a wider entry.
	Routes map[string]Transport
	// Self are the addresses this server listens on for mail: an MX host that has one is ourselves. An
	// unspecified address stands for all of this machine.
	Self []netip.AddrPort

	// Policies says what protection a connection to an MX host needs. nil: DANE, and no MTA-STS.
	Policies *tlspolicy.Policies
	// Report, if set, hears of every connection to an MX host and what became of its TLS (RFC 8460).
	Report func(*tlspolicy.Session)
	// Roots are the authorities that certificates of a Transport are verified by. nil: the system's.
	Roots *x509.CertPool

	// MaxConnections is the most to one site at a time; they begin at 3 and adapt. 0: 20.
	MaxConnections int
	// MaxMessages is the most sent over one connection. 0: 100.
	MaxMessages int
	// MaxAddresses is the most that are tried in one attempt. 0: 5.
	MaxAddresses int
	// MaxIdle is the most connections that wait for a message, all sites together. 0: 200; negative:
	// none is kept.
	MaxIdle int
	// ConnectTimeout is for one address. 0: 30 seconds.
	ConnectTimeout time.Duration
	// IdleTimeout is how long a connection is kept for the next message. 0: 10 seconds.
	IdleTimeout time.Duration
	// SiteWait is how long an attempt may wait for a connection of its site to become free, before
	// the message is given back to the queue. 0: 20 seconds.
	SiteWait time.Duration
	// NoIPv6 leaves IPv6 alone. Without it, IPv6 that leads nowhere is noticed and avoided.
	NoIPv6 bool

	// Dial opens connections. nil: net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

func (c *Config) fill() {
	setDefault(&c.Port, 25)
	setDefault(&c.MaxConnections, 20)
	setDefault(&c.MaxMessages, 100)
	setDefault(&c.MaxAddresses, 5)
	setDefault(&c.MaxIdle, 200)
	setDefault(&c.ConnectTimeout, 30*time.Second)
	setDefault(&c.IdleTimeout, 10*time.Second)
	setDefault(&c.SiteWait, 20*time.Second)
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Relay is a queue.Deliverer for other domains. Its methods may be called from many goroutines.
type Relay struct {
	cfg      Config
	resolver dns.Resolver
	policies *tlspolicy.Policies
	clock    clock.Clock
	log      *slog.Logger

	routes   map[string]*transport // of Config.Routes; nil entries lead to MX hosts
	vias     map[queue.Route]*transport
	sessions tls.ClientSessionCache // a resumed handshake saves both ends most of its work
	own      ownAddresses
	families families
	memory   memory

	mu      sync.Mutex       // a site's comes after it
	sites   map[string]*site // guarded by mu
	idle    atomic.Int64     // connections that wait, of all sites
	sweeps  atomic.Bool      // the sweeper runs
	closing chan struct{}
	closed  atomic.Bool    // set with mu held
	tasks   sync.WaitGroup // the sweeper, and those who say QUIT
}

// New returns a relay; Close ends its connections.
func New(cfg Config, resolver dns.Resolver, clk clock.Clock, log *slog.Logger) (*Relay, error) {
	cfg.fill()
	r := &Relay{
		cfg: cfg, resolver: resolver, policies: cfg.Policies, clock: clk, log: log,
		sessions: tls.NewLRUClientSessionCache(256),
		sites:    make(map[string]*site),
		closing:  make(chan struct{}),
	}
	r.own.listed = cfg.Self
	r.memory.hosts = make(map[string]hostMemory)
	if r.policies == nil {
		r.policies = tlspolicy.New(tlspolicy.Config{Resolver: resolver, Now: clk.Now})
	}
	if err := r.readRoutes(); err != nil {
		return nil, err
	}
	return r, nil
}

// Close ends the connections that are kept for further messages. Attempts under way go on, and keep
// none.
func (r *Relay) Close() error {
	r.mu.Lock()
	if r.closed.Swap(true) {
		r.mu.Unlock()
		return nil
	}
	close(r.closing)
	var idle []*session
	for _, s := range r.sites {
		s.mu.Lock()
		idle = append(idle, s.idle...)
		r.idle.Add(int64(-len(s.idle)))
		s.idle = nil
		s.mu.Unlock()
	}
	r.mu.Unlock()
	for _, s := range idle {
		s.client.Close()
	}
	r.tasks.Wait()
	return nil
}

// Route is as queue.Deliverer has it: "smtp:" and the domain, "smtp:via:" or "lmtp:" and a server.
func (r *Relay) Route(to mail.Address) queue.Route {
	if t := r.transportOf(to.Domain); t != nil {
		return t.route
	}
	return queue.Route(routeMX + to.Domain.ASCII())
}

// The forms of a route. No domain begins with "via:".
const (
	routeMX   = "smtp:"
	routeVia  = "smtp:via:"
	routeLMTP = "lmtp:"
)

// Deliver is as queue.Deliverer has it: one attempt, at one or more servers of one destination. A
// message for which there is no place among the connections of a site comes back Busy.
func (r *Relay) Deliver(ctx context.Context, d *queue.Delivery) []queue.Result {
	a := newAttempt(r, d)
	ctx, cancel := r.within(ctx, attemptTime(d.Size))
	defer cancel()
	dest, verdict := r.destination(ctx, d.Route)
	if verdict != nil {
		a.settleAll(*verdict)
		return a.results
	}
	place, verdict := r.enter(ctx, dest, d.ID)
	if verdict != nil {
		a.settleAll(*verdict)
		return a.results
	}
	a.dest, a.place = dest, place
	defer func() {
		a.sevenBit.close()
		place.leave(a.lesson())
	}()
	a.run(ctx)
	return a.results
}

// attemptTime bounds one attempt, however slowly a server answers: each single wait has its own
// limit.
func attemptTime(size int64) time.Duration {
	const slowest = 1 << 10 // octets a second
	return 30*time.Minute + time.Duration(size/slowest)*time.Second
}

// within returns a context that ends after d on the relay's clock.
func (r *Relay) within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, real := r.clock.(clock.Real); real {
		return context.WithTimeout(ctx, d)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	fired, stop := r.clock.After(d)
	go func() {
		defer stop()
		select {
		case <-fired:
			cancel(context.DeadlineExceeded)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

// failed is the result where we found out ourselves that a message cannot be delivered.
func failed(class Class, status, format string, args ...any) *queue.Result {
	return &queue.Result{Outcome: queue.Failed, Status: status, Class: string(class),
		Reply: "550 " + status + " " + fmt.Sprintf(format, args...)}
}

// deferred is the result where no server could be spoken to.
func deferred(class Class, status, format string, args ...any) *queue.Result {
	return &queue.Result{Outcome: queue.Deferred, Status: status, Class: string(class),
		Unreachable: true, Reply: "451 " + status + " " + fmt.Sprintf(format, args...)}
}

// domainOf returns the domain of a route by MX.
func domainOf(route queue.Route) (mail.Domain, error) {
	return mail.ParseDomain(strings.TrimPrefix(string(route), routeMX))
}
