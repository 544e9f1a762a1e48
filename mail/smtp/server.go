package smtp

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/mail"
)

// Config says how a server speaks. The zero value of a field is its default; Hostname and
// NewSession must be set. Its functions are called by the goroutines of many connections at a time.
type Config struct {
	Hostname string // what it calls itself in the greeting and the reply to EHLO

	// NewSession is called before the greeting. With an error the connection is refused in its
	// words, if it is a *Reply.
	NewSession func(ctx context.Context, c *Conn) (Session, error)
	// Admit is called as soon as the client's address is known, before any TLS: nil admits all. If
	// it admits, leave (which may be nil) is called when the connection has ended.
	Admit func(ctx context.Context, remote netip.AddrPort) (leave func(), err error)

	TLS         *tls.Config // nil: no TLS is offered
	ImplicitTLS bool        // the connection begins with TLS (RFC 8314, section 3)
	RequireTLS  bool        // no MAIL and no AUTH before TLS
	Submission  bool        // this is a submission port (RFC 6409): only noted, see Conn.Submission
	LMTP        bool        // speak LMTP (RFC 2033); the Session should implement EachSession

	// Password checks what a client gave with PLAIN or LOGIN and returns the account it opens. A
	// *Reply as error is sent as it is, any other becomes 535. nil: these mechanisms are not
	// offered.
	Password func(ctx context.Context, c *Conn, user, password string) (account string, err error)
	// Scram returns what is stored for a user of SCRAM-SHA-256; ErrNoUser where there is none. nil:
	// the mechanism is not offered.
	Scram func(ctx context.Context, c *Conn, user string) (ScramKeys, error)
	// OnAuth, if set, hears of every attempt to authenticate after its end.
	OnAuth func(ctx context.Context, c *Conn, a AuthAttempt)
	// PlaintextAuth allows AUTH without TLS. Passwords then travel in the clear.
	PlaintextAuth bool

	MaxSize       int64         // octets of a message; default 50 MiB
	MaxRecipients int           // of one transaction (LIMITS RCPTMAX, RFC 9422); default 1000
	MaxMessages   int           // transactions of one connection (LIMITS MAILMAX); default no limit
	MaxErrors     int           // senseless commands before the connection ends; default 20
	MaxHold       time.Duration // offer FUTURERELEASE up to this; default: not offered
	Stray         Stray         // messages with a bare CR or LF; default: refused
	BinaryMIME    bool          // offer BINARYMIME: the Session takes messages that have no lines

	CommandTimeout time.Duration // wait for a command; default 5 minutes (RFC 5321, 4.5.3.2.7)
	// DataTimeout is the window in which a client that sends a message must send MinRate octets a
	// second on average; default 3 minutes (RFC 5321, 4.5.3.2.5).
	DataTimeout time.Duration
	MinRate     int           // default 32 octets a second
	GreetDelay  time.Duration // wait so long for clients that talk before the greeting; default 0
	Grace       time.Duration // for transactions under way when Serve is to end; default 10 seconds

	Proxies []netip.Prefix // these begin each connection with a PROXY header; nobody else may
	XClient []netip.Prefix // these may use XCLIENT

	Log   *slog.Logger // default: nothing is logged
	Clock clock.Clock  // default: the machine's
}

func (c *Config) validate() error {
	if c.Hostname == "" || c.NewSession == nil {
		return errors.New("smtp: Config wants Hostname and NewSession")
	}
	if c.ImplicitTLS && c.TLS == nil || c.RequireTLS && c.TLS == nil {
		return errors.New("smtp: Config demands TLS and has no TLS configuration")
	}
	setDefault(&c.MaxSize, 50<<20)
	setDefault(&c.MaxRecipients, 1000)
	setDefault(&c.MaxErrors, 20)
	setDefault(&c.CommandTimeout, 5*time.Minute)
	setDefault(&c.DataTimeout, 3*time.Minute)
	setDefault(&c.MinRate, 32)
	setDefault(&c.Grace, 10*time.Second)
	if c.MaxRecipients < 100 {
		return fmt.Errorf("smtp: MaxRecipients %d: RFC 5321, section 4.5.3.1.8, wants at least 100",
			c.MaxRecipients)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = clock.Real{}
	}
	return nil
}

func setDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// Session decides about the transactions of one connection. Its methods are called one at a time. A
// *Reply as error is sent as it is; any other error is logged and answered with 451, its text kept
// from the client. ctx ends when the server's grace has ended.
type Session interface {
	// Mail begins a transaction.
	Mail(ctx context.Context, from mail.Address, p MailParams) error
	// Rcpt adds a recipient to it.
	Rcpt(ctx context.Context, to mail.Recipient) error
	// Data takes the message, for the recipients that Rcpt did not refuse. r is also an
	// io.WriterTo, which copies less. Only where r has been read to its end may the session answer
	// with success; an error of r is to be returned, bare or wrapped. Nothing may be read from r
	// after Data has returned. The zero Reply is "250 2.0.0 OK".
	Data(ctx context.Context, r io.Reader) (Reply, error)
	// Reset ends a transaction that Mail began: after Data, or without it.
	Reset()
	// Logout ends the session. The connection may be gone already.
	Logout()
}

// EachSession is a Session that answers for each recipient by itself, as LMTP does after the
// message.
type EachSession interface {
	Session
	// DataEach is Data with one reply for each recipient that was accepted, in their order.
	DataEach(ctx context.Context, r io.Reader) ([]Reply, error)
}

// Server answers connections by a Config. It may serve several listeners.
type Server struct {
	cfg    Config
	ehlo   string      // lines of the reply to EHLO that are always the same
	tls    *tls.Config // cfg.TLS, which tells each connection its certificate
	secret [32]byte    // for the salt of users that do not exist
}

// NewServer checks the configuration and returns a server for it.
func NewServer(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, ehlo: ehloLines(&cfg), tls: noteLeaf(cfg.TLS)}
	rand.Read(s.secret[:])
	return s, nil
}

// serving is one call of Serve.
type serving struct {
	*Server
	ctx  context.Context // of the sessions: outlives Serve's by the grace
	stop atomic.Bool     // every connection ends at its next command

	mu    sync.Mutex
	conns map[*Conn]struct{} // guarded by mu
	wg    sync.WaitGroup
}

// Serve answers the connections of ln until ctx ends. Then it accepts no more, answers each
// connection with 421 at its next command, closes those that have not ended after the grace, and
// returns when all are gone. It closes ln. The error is nil after ctx has ended, else what the
// listener failed with.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	v := &serving{Server: s, ctx: hard, conns: make(map[*Conn]struct{})}
	stopListening := context.AfterFunc(ctx, func() { ln.Close() })
	err := v.accept(ctx, ln)
	stopListening()
	ln.Close()
	v.drain(cut)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// accept starts a goroutine for each connection; drain waits for them.
func (v *serving) accept(ctx context.Context, ln net.Listener) error {
	var pause time.Duration
	for {
		sock, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return err
			}
			// Out of descriptors, or a connection reset before we took it: both pass.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			v.cfg.Log.Warn("accept failed", "err", err, "pause", pause)
			if clock.Sleep(ctx, v.cfg.Clock, pause) != nil {
				return err
			}
			continue
		}
		pause = 0
		c := newConn(v, sock)
		v.mu.Lock()
		v.conns[c] = struct{}{}
		v.mu.Unlock()
		v.wg.Go(func() {
			c.serve()
			v.mu.Lock()
			delete(v.conns, c)
			v.mu.Unlock()
		})
	}
}

// drain stops the connections, and closes those that do not end within the grace.
func (v *serving) drain(cut func()) {
	v.stop.Store(true)
	v.each((*Conn).wakeUp)
	ended := make(chan struct{})
	go func() {
		v.wg.Wait()
		close(ended)
	}()
	late, giveUp := v.cfg.Clock.After(v.cfg.Grace)
	defer giveUp()
	select {
	case <-ended:
		return
	case <-late:
	}
	cut()
	v.each(func(c *Conn) { c.x.sock.Close() })
	<-ended
}

func (v *serving) each(do func(*Conn)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for c := range v.conns {
		do(c)
	}
}
