package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tallypost/tallypost/mail/smtp"
)

// connect returns a session with a host: one that is kept, or a new one.
func (r *Relay) connect(ctx context.Context, h host) (*smtp.Client, error) {
	if c := r.pool.take(h); c != nil {
		if err := c.Reset(ctx); err == nil {
			return c, nil
		}
		c.Close()
	}
	c, err := r.open(ctx, h, true)
	var tlsFailed *tlsError
	if errors.As(err, &tlsFailed) {
		// RFC 7435: encryption that cannot be had is no reason to keep the mail back where nothing
		// demands it.
		r.log.Info("TLS failed, going on without", "host", h.name, "addr", h.addr, "err", err)
		return r.open(ctx, h, false)
	}
	return c, err
}

// tlsError is a failure of STARTTLS or of the handshake.
type tlsError struct{ err error }

func (e *tlsError) Error() string { return e.err.Error() }
func (e *tlsError) Unwrap() error { return e.err }

// open makes a new session.
func (r *Relay) open(ctx context.Context, h host, encrypt bool) (*smtp.Client, error) {
	dialCtx, cancel := context.WithTimeout(ctx, r.cfg.ConnectTimeout)
	defer cancel()
	conn, err := r.cfg.Dial(dialCtx, "tcp", h.addr.String())
	if err != nil {
		return nil, err
	}
	c := smtp.NewClient(conn, smtp.ClientConfig{Hello: r.cfg.Hostname, Clock: r.clock})
	if err := c.Hello(ctx); err != nil {
		return nil, errors.Join(err, ignore(c.Close()))
	}
	if !encrypt || !c.Extensions().StartTLS {
		return c, nil
	}
	// Opportunistic: there is no name to hold the certificate against that an attacker could not have
	// put into the MX record.
	cfg := &tls.Config{ServerName: h.name, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
	if err := c.StartTLS(ctx, cfg); err != nil {
		c.Close()
		return nil, &tlsError{fmt.Errorf("%s [%s]: %w", h.name, h.addr, err)}
	}
	return c, nil
}

// ignore drops the error of closing a connection that has failed already.
func ignore(error) error { return nil }

// release keeps the session for the next message, or ends it.
func (r *Relay) release(ctx context.Context, h host, c *smtp.Client) {
	if !c.Reusable() || !r.pool.keep(h, c, r.cfg.IdleTimeout) {
		if c.Reusable() {
			c.Quit(ctx)
			return
		}
		c.Close()
	}
}

// Limits on connections that are kept.
const (
	maxIdlePerHost = 20
	maxIdle        = 500
)

// pool keeps sessions that wait for the next message.
type pool struct {
	mu     sync.Mutex
	idle   map[string][]*idleConn // guarded by mu, and what follows
	count  int
	closed bool
}

type idleConn struct {
	client *smtp.Client
	expire *time.Timer
}

func (h host) key() string { return h.name + " " + h.addr.String() }

// take returns the session used last, or nil.
func (p *pool) take(h host) *smtp.Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[h.key()]
	for len(list) > 0 {
		c := list[len(list)-1]
		list = list[:len(list)-1]
		p.set(h, list)
		p.count--
		if c.expire.Stop() {
			return c.client
		}
	}
	return nil
}

func (p *pool) set(h host, list []*idleConn) {
	if len(list) == 0 {
		delete(p.idle, h.key())
		return
	}
	p.idle[h.key()] = list
}

// keep takes a session over, unless there are enough.
func (p *pool) keep(h host, c *smtp.Client, idle time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[h.key()]
	if p.closed || p.count >= maxIdle || len(list) >= maxIdlePerHost {
		return false
	}
	ic := &idleConn{client: c}
	ic.expire = time.AfterFunc(idle, func() { p.expire(h, ic) })
	p.count++
	p.idle[h.key()] = append(list, ic)
	return true
}

// expire ends a session that nobody took.
func (p *pool) expire(h host, ic *idleConn) {
	p.mu.Lock()
	list := p.idle[h.key()]
	for i, c := range list {
		if c == ic {
			p.set(h, append(list[:i:i], list[i+1:]...))
			p.count--
			break
		}
	}
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	ic.client.Quit(ctx)
}

func (p *pool) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, list := range p.idle {
		for _, c := range list {
			if c.expire.Stop() {
				c.client.Close()
			}
		}
	}
	clear(p.idle)
	return nil
}
