package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/tallypost/tallypost/mail/smtp"
	"github.com/tallypost/tallypost/mail/tlspolicy"
)

// connectError is a connection that did not come about.
type connectError struct{ err error }

func (e *connectError) Error() string { return e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }

// errLoop is the error for a server that is this one.
var errLoop = errors.New("the server greets with our own name")

// open makes a session that meets the demand. TLS that fails where none is demanded is gone
// without, on another connection: encryption that cannot be had is no reason to keep the mail back
// (RFC 7435).
func (r *Relay) open(ctx context.Context, dest *destination, t target,
	d *demand) (*session, error) {
	if err := d.barred(); err != nil {
		r.tell(d, &session{target: t}, d.decision.Failure)
		return nil, err
	}
	now := r.clock.Now()
	clear := !d.must && r.memory.get(t).clearUntil.After(now)
	s, err := r.dial(ctx, dest, t, d, clear)
	var unencrypted *handshakeError
	if !errors.As(err, &unencrypted) || d.must || ctx.Err() != nil {
		return s, err
	}
	r.log.Info("TLS failed, going on without", "host", t.host, "addr", t, "err", err)
	if s, err = r.dial(ctx, dest, t, d, true); err == nil {
		r.memory.update(t, now, func(h *hostMemory) { h.clearUntil = now.Add(clearTime) })
	}
	return s, err
}

// dial connects, introduces us, encrypts and logs in, as far as these are due.
func (r *Relay) dial(ctx context.Context, dest *destination, t target, d *demand,
	clear bool) (*session, error) {
	conn, err := r.socket(ctx, dest, t)
	if err != nil {
		return nil, &connectError{err}
	}
	s := &session{target: t, born: r.clock.Now(), limit: r.cfg.MaxMessages}
	if a, ok := conn.LocalAddr().(*net.TCPAddr); ok {
		s.local = a.AddrPort().Addr()
	}
	if dest.provider != nil && dest.provider.messages > 0 {
		s.limit = min(s.limit, dest.provider.messages)
	}
	if d.implicit {
		if conn, err = r.implicit(ctx, conn, d); err != nil {
			return nil, err
		}
	}
	lmtp := dest.transport != nil && dest.transport.LMTP
	s.client = smtp.NewClient(conn,
		smtp.ClientConfig{Hello: r.cfg.Hostname, LMTP: lmtp, Clock: r.clock})
	if err := r.begin(ctx, dest, s, d, clear); err != nil {
		s.client.Close()
		return nil, err
	}
	peer := s.client.Peer()
	peer.Name = t.host
	if t.path != "" {
		peer.Addr = t.path
	}
	s.peer = &peer
	return s, nil
}

// socket connects to an address.
func (r *Relay) socket(ctx context.Context, dest *destination, t target) (net.Conn, error) {
	network := "tcp"
	if t.path != "" {
		network = "unix"
	}
	ctx, cancel := r.within(ctx, r.cfg.ConnectTimeout)
	defer cancel()
	conn, err := r.cfg.Dial(ctx, network, t.String())
	if t.path != "" {
		return conn, err
	}
	now := r.clock.Now()
	if ctx.Err() == nil || errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		if r.families.learn(t.addr.Addr(), err, now) {
			r.log.Warn("this version of IP leads nowhere, doing without for a while", "addr", t, "err", err,
				"for", familyRest)
		}
	}
	if err == nil {
		r.memory.forgive(t, now)
	}
	return conn, err
}

// implicit puts TLS over a connection before anything is said.
func (r *Relay) implicit(ctx context.Context, conn net.Conn, d *demand) (net.Conn, error) {
	ctx, cancel := r.within(ctx, handshakeTime)
	defer cancel()
	c := tls.Client(conn, d.config)
	if err := c.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, &handshakeError{fmt.Errorf("TLS handshake: %w", err)}
	}
	return c, nil
}

// handshakeTime bounds TLS that comes before the greeting; StartTLS has the client's own limits.
const handshakeTime = 2 * time.Minute

// handshakeError is TLS that did not come about: STARTTLS was refused, or the handshake failed.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// begin brings a new connection to where a message can be sent.
func (r *Relay) begin(ctx context.Context, dest *destination, s *session, d *demand,
	clear bool) error {
	c := s.client
	if err := c.Hello(ctx); err != nil {
		return err
	}
	if dest.transport == nil && strings.EqualFold(greetingName(c), r.cfg.Hostname) {
		return errLoop
	}
	if d.config != nil && !d.implicit && !clear && c.Extensions().StartTLS {
		if err := r.encrypt(ctx, s, d); err != nil {
			return err
		}
	}
	seen, err := d.metBy(c)
	if err != nil || !clear { // else the handshake that failed was reported
		r.tell(d, s, seen)
	}
	if err != nil {
		return err
	}
	if dest.transport != nil {
		return dest.transport.logIn(ctx, s)
	}
	return nil
}

// encrypt does STARTTLS. A server that offers it and then says that it cannot is gone on with in
// the clear, where that is allowed.
func (r *Relay) encrypt(ctx context.Context, s *session, d *demand) error {
	err := s.client.StartTLS(ctx, d.config)
	if err == nil || s.client.TLS() != nil { // an error after the handshake is not one of TLS
		return err
	}
	var refused *smtp.Reply
	if errors.As(err, &refused) && s.client.Reusable() && !d.must {
		r.log.Info("server refuses STARTTLS, going on without", "host", s.target.host, "addr", s.target,
			"reply", refused)
		return nil
	}
	r.tell(d, s, handshakeFailure(err))
	var policy *tlspolicy.Failure
	switch {
	case errors.As(err, &policy):
		return unmet(policy, "7.5")
	case d.must:
		return &protectionError{status: "7.5", err: err}
	}
	return &handshakeError{err}
}

// handshakeFailure is what a report says of TLS that failed.
func handshakeFailure(err error) *tlspolicy.Failure {
	var f *tlspolicy.Failure
	if errors.As(err, &f) {
		return f
	}
	return &tlspolicy.Failure{Type: tlspolicy.ValidationFailure, Err: err}
}

// tell reports a connection to an MX host, and what became of its TLS (RFC 8460).
func (r *Relay) tell(d *demand, s *session, failure *tlspolicy.Failure) {
	if r.cfg.Report == nil || d.decision == nil || d.waived {
		return
	}
	report := &tlspolicy.Session{Decision: d.decision, Failure: failure, SendingIP: s.local,
		ReceivingIP: s.target.addr.Addr(), ReceivingHost: s.target.host}
	if s.client != nil {
		report.Helo = greetingName(s.client)
	}
	r.cfg.Report(report)
}

// greetingName is the name a server greets with (RFC 5321, section 4.2).
func greetingName(c *smtp.Client) string {
	name, _, _ := strings.Cut(c.Greeting().Text, " ")
	name, _, _ = strings.Cut(name, "\n")
	return name
}
