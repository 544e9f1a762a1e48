// Package intake decides what to accept from whom, and hands what was accepted to the queue.
//
// A Session is asked by the SMTP server at each command: who may send from this address, is that
// recipient ours or may this client relay, is the message fit to be kept. The message streams once, from
// the connection into the queue, through everything that wants to see it; then the trace fields are put in
// front of it and the queue's promise becomes the reply. A refusal is always given in the session, in
// words that the sender can act on, never by a later bounce. The package neither speaks SMTP nor delivers.
package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/account"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/smtp"
)

// Config is the policy.
type Config struct {
	Hostname string // of Received
	// RelayFrom are the addresses whose clients may send to any domain without logging in.
	RelayFrom []netip.Prefix
	// DMARC says whether the wishes of DMARC are heeded.
	DMARC      DMARCMode
	Thresholds Thresholds
	Limits     Limits
	// MaxHops is the number of Received fields from which a message is taken to be in a loop. 0: 50.
	MaxHops int
}

// Intake makes sessions.
type Intake struct {
	cfg      Config
	accounts account.Resolver
	queue    *queue.Queue
	resolver dns.Resolver
	origin   string // of the log
	limits   *limiter
	clock    clock.Clock
	log      *slog.Logger
}

// New returns an Intake that puts accepted messages into q; origin is the name of q's log.
func New(cfg Config, accounts account.Resolver, q *queue.Queue, origin string, resolver dns.Resolver,
	clk clock.Clock, log *slog.Logger) *Intake {
	if cfg.MaxHops == 0 {
		cfg.MaxHops = 50
	}
	if cfg.DMARC == "" {
		cfg.DMARC = DMARCEnforce
	}
	cfg.Thresholds.fill()
	in := &Intake{cfg: cfg, accounts: accounts, queue: q, origin: origin, resolver: resolver, clock: clk, log: log}
	in.limits = newLimiter(cfg.Limits, in.mayRelay, clk.Now)
	return in
}

// mayRelay reports whether an address is one of Config.RelayFrom.
func (in *Intake) mayRelay(ip netip.Addr) bool {
	for _, p := range in.cfg.RelayFrom {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// Admit is a server's smtp.Config.Admit.
func (in *Intake) Admit(ctx context.Context, remote netip.AddrPort) (leave func(), err error) {
	return in.limits.admit(ctx, remote)
}

// OnAuth is a server's smtp.Config.OnAuth.
func (in *Intake) OnAuth(_ context.Context, c *smtp.Conn, a smtp.AuthAttempt) {
	if a.Err != nil {
		in.limits.authFails.take(network(c.RemoteIP()), 1, in.clock.Now())
		in.log.Warn("log-in failed", "user", a.User, "mechanism", a.Mechanism, "peer", c.RemoteIP(), "err", a.Err)
	}
}

// NewSession is a server's smtp.Config.NewSession.
func (in *Intake) NewSession(_ context.Context, c *smtp.Conn) (smtp.Session, error) {
	return &session{in: in, conn: c}, nil
}

// Password is a server's smtp.Config.Password.
func (in *Intake) Password(_ context.Context, _ *smtp.Conn, user, password string) (string, error) {
	acc, ok := in.accounts.Login(user)
	if !ok {
		// As much work as for a user that exists, so that time does not tell the two apart.
		decoy.Matches(password)
		return "", errLogin
	}
	if !acc.Credential.Matches(password) {
		return "", errLogin
	}
	return acc.Address.String(), nil
}

var errLogin = errors.New("no such user or wrong password")

// decoy is a credential that no password matches but each costs the usual work.
var decoy = account.Credential{Salt: make([]byte, 16), Iterations: account.Iterations}

// Scram is a server's smtp.Config.Scram.
func (in *Intake) Scram(_ context.Context, _ *smtp.Conn, user string) (smtp.ScramKeys, error) {
	acc, ok := in.accounts.Login(user)
	if !ok {
		return smtp.ScramKeys{}, smtp.ErrNoUser
	}
	c := acc.Credential
	return smtp.ScramKeys{Account: acc.Address.String(), Salt: c.Salt, Iterations: c.Iterations,
		StoredKey: c.StoredKey, ServerKey: c.ServerKey}, nil
}

// session is the smtp.Session of one connection.
type session struct {
	in   *Intake
	conn *smtp.Conn

	env   mail.Envelope   // of the transaction
	seen  map[string]bool // recipients in env, so that each gets one copy
	asked []mail.Address  // recipients as the client named them
}

func refuse(code int, enhanced, format string, args ...any) *smtp.Reply {
	return &smtp.Reply{Code: code, Enhanced: enhanced, Text: fmt.Sprintf(format, args...)}
}

// trusted reports whether the client may send to the world: it logged in, or its address may relay.
func (s *session) trusted() bool {
	return s.conn.Account() != "" || s.in.mayRelay(s.conn.RemoteIP())
}

// Mail begins a transaction.
func (s *session) Mail(_ context.Context, from mail.Address, p smtp.MailParams) error {
	if s.conn.Submission() && !s.trusted() {
		return refuse(530, "5.7.0", "log in first: this port takes mail from accounts only")
	}
	if name := s.conn.Account(); name != "" {
		acc, ok := s.in.accounts.Login(name)
		if !ok {
			return refuse(535, "5.7.8", "the account %s has been closed", name)
		}
		if !from.IsNull() && !s.in.accounts.MaySendAs(acc, from) {
			return refuse(553, "5.7.1", "<%s> is not an address of the account %s", from, name)
		}
	}
	if err := s.in.limits.message(s.conn.RemoteIP(), s.conn.Account()); err != nil {
		return err
	}
	s.env = p.Envelope(from)
	s.seen = make(map[string]bool)
	return nil
}

// Rcpt adds the mailboxes, or the addresses elsewhere, that a recipient leads to.
func (s *session) Rcpt(_ context.Context, to mail.Recipient) error {
	addr := to.Address
	if addr.Domain == "" { // postmaster, RFC 5321, section 4.5.1
		addr.Domain = s.in.postmasterDomain()
	}
	if err := s.in.limits.recipient(s.conn.Account()); err != nil {
		return err
	}
	if !s.in.accounts.IsLocal(addr.Domain) {
		if !s.trusted() {
			if err := s.in.limits.refusal(s.conn.RemoteIP()); err != nil {
				return err
			}
			return refuse(550, "5.7.1", "<%s>: this server does not relay for you: %s is not a domain of its own",
				to.Address, addr.Domain)
		}
		s.add(to)
		return nil
	}
	targets, err := s.in.accounts.Resolve(addr)
	if errors.Is(err, account.ErrAliasLoop) {
		s.in.log.Error("alias cannot be followed", "address", addr, "err", err)
		return refuse(451, "4.3.5", "<%s>: the aliases of this address lead nowhere, its postmaster knows", to.Address)
	}
	if err != nil {
		if err := s.in.limits.refusal(s.conn.RemoteIP()); err != nil {
			return err
		}
		return refuse(550, "5.1.1", "<%s>: no such mailbox here", to.Address)
	}
	if to.ORcpt == "" && (len(targets) > 1 || targets[0].Address != addr) {
		kind := "rfc822;"
		if !addr.IsASCII() {
			kind = "utf-8;"
		}
		to.ORcpt = kind + addr.String()
	}
	for _, t := range targets {
		to.Address = t.Address
		s.add(to)
	}
	s.asked = append(s.asked, addr)
	return nil
}

func (in *Intake) postmasterDomain() mail.Domain {
	accounts, _ := in.accounts.List()
	if len(accounts) == 0 {
		return mail.Domain(in.cfg.Hostname)
	}
	return accounts[0].Address.Domain
}

func (s *session) add(to mail.Recipient) {
	key := strings.ToLower(to.Address.String())
	if !s.seen[key] {
		s.seen[key] = true
		s.env.Recipients = append(s.env.Recipients, to)
	}
}

// Reset forgets the transaction.
func (s *session) Reset() { s.env, s.seen, s.asked = mail.Envelope{}, nil, nil }

// Logout has nothing to do.
func (s *session) Logout() {}
