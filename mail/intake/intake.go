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
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/account"
	"github.com/tallypost/tallypost/mail/dkim"
	"github.com/tallypost/tallypost/mail/dmarc"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/smtp"
	"github.com/tallypost/tallypost/mail/srs"
)

// Config is the policy. Hostname is needed; the rest has defaults.
type Config struct {
	Hostname string // of Received and of Authentication-Results
	// RelayFrom are the addresses whose clients may send to any domain without logging in.
	RelayFrom []netip.Prefix
	// MaxHops is the number of Received fields from which a message is taken to be in a loop. 0: 50.
	MaxHops int
	Limits  Limits // zero: none; see DefaultLimits

	// DMARC says whether the wishes of DMARC are heeded.
	DMARC DMARCMode
	// TrustedSealers are forwarders whose word is taken that a message passed DMARC before they
	// changed it, if an unbroken ARC chain leads to it.
	TrustedSealers []mail.Domain
	// Reports, if set, hears of each message what a report to the owner of its author's domain has.
	Reports func(*dmarc.Seen)

	// Rules are what the operator decides about mail from outside; see Rule.Check.
	Rules      []Rule
	Thresholds Thresholds
	Lists      []List
	Greylist   Greylist
	// Weighers are asked about every message from outside that no rule has refused. SampleBytes is
	// how much of the body they are shown.
	Weighers    []Weigher
	SampleBytes int
	Filters     []Filter

	// Signer returns who signs for a domain of ours; nil, as no Signer at all: nobody does.
	Signer func(mail.Domain) *dkim.Signer
	Bulk   Bulk

	Backups []Backup
	// Takes, if set, names addresses of ours whose mail is a program's: it is accepted whether or not there
	// is an account, and aliases are not followed.
	Takes func(mail.Address) bool
	// Archive, if set, gets a copy of every message that is accepted, and nobody a report about it.
	Archive mail.Address
	// Room, if set, reports whether the mailbox of an account has room for a message. A full one refuses
	// mail in the session: a message that is returned later goes to whoever was named as its sender.
	Room func(acc *account.Account, size int64) bool
	// SRS undoes the rewriting of senders that the relay did. nil: such addresses are not known.
	SRS *srs.Rewriter
}

func (c *Config) fill() {
	if c.MaxHops == 0 {
		c.MaxHops = 50
	}
	if c.DMARC == "" {
		c.DMARC = DMARCEnforce
	}
	c.Thresholds.fill()
	c.Bulk.fill()
}

// Intake makes sessions.
type Intake struct {
	cfg        Config
	accounts   account.Resolver
	queue      *queue.Queue
	resolver   dns.Resolver
	origin     string // of the log
	limits     *limiter
	lists      *lists
	grey       *greylist // nil: off
	sealers    map[mail.Domain]bool
	backups    map[mail.Domain]*recipients
	filters    []*filter
	digest     *digest
	headers    headerBudget
	signing    chan struct{} // holds one for each message that is being signed
	bulk       *meter[[sha256.Size]byte]
	bulkTold   *meter[mail.Address]
	dnsTimeout time.Duration
	clock      clock.Clock
	log        *slog.Logger
}

// New returns an Intake that puts accepted messages into q; origin is the name of q's log. It reads
// the lists of recipients of Config.Backups and the state of the greylist.
func New(cfg Config, accounts account.Resolver, q *queue.Queue, origin string,
	resolver dns.Resolver, clk clock.Clock, log *slog.Logger) (*Intake, error) {
	cfg.fill()
	in := &Intake{cfg: cfg, accounts: accounts, queue: q, origin: origin, resolver: resolver,
		digest: newDigest(clk.Now()), dnsTimeout: dnsTimeout, clock: clk, log: log,
		sealers: make(map[mail.Domain]bool), backups: make(map[mail.Domain]*recipients)}
	in.limits = newLimiter(cfg.Limits, in.mayRelay, clk.Now)
	in.signing = make(chan struct{}, runtime.GOMAXPROCS(0))
	in.bulk = newMeter[[sha256.Size]byte](cfg.Bulk.Recipients)
	in.bulkTold = newMeter[mail.Address](bulkNotice)
	for _, d := range cfg.TrustedSealers {
		in.sealers[d] = true
	}
	var err error
	if in.lists, err = newLists(cfg.Lists, resolver, log); err != nil {
		return nil, err
	}
	for _, b := range cfg.Backups {
		if accounts.IsLocal(b.Domain) {
			return nil, fmt.Errorf("recipients of %s: mail for this domain ends here", b.Domain)
		}
		if in.backups[b.Domain], err = openRecipients(b, clk, log); err != nil {
			return nil, err
		}
	}
	for _, f := range cfg.Filters {
		in.filters = append(in.filters, &filter{Filter: f, clock: clk, log: log})
	}
	if cfg.Greylist.Enabled {
		in.grey = newGreylist(cfg.Greylist)
		in.grey.load(log)
	}
	return in, nil
}

// Times between what Run does.
const (
	digestEvery = time.Hour
	checkEvery  = time.Hour
	checkAgain  = time.Minute // where a list could not be asked
	saveEvery   = 10 * time.Minute
)

// Run keeps up what sessions rely on, until ctx ends: lists are checked, refusals are counted into the log
// every hour, the greylist is saved. It needs the queue to run until it has returned.
func (in *Intake) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	repeat := func(first time.Duration, do func() time.Duration) {
		wg.Go(func() {
			for next := first; clock.Sleep(ctx, in.clock, next) == nil; {
				next = do()
			}
		})
	}
	repeat(digestEvery, func() time.Duration {
		in.record(ctx)
		return digestEvery
	})
	if in.lists.any() {
		repeat(0, func() time.Duration {
			if in.lists.check(ctx) {
				return checkEvery
			}
			return checkAgain
		})
	}
	if in.grey != nil {
		repeat(saveEvery, func() time.Duration {
			in.saveGreylist()
			return saveEvery
		})
	}
	wg.Wait()
	if in.grey != nil {
		in.saveGreylist()
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	in.record(last)
	return nil
}

func (in *Intake) saveGreylist() {
	if err := in.grey.save(); err != nil {
		in.log.Warn("greylist cannot be saved", "err", err)
	}
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
	leave, err = in.limits.admit(ctx, remote)
	if err != nil {
		in.digest.refused("connect", err)
	}
	return leave, err
}

// NewSession is a server's smtp.Config.NewSession.
func (in *Intake) NewSession(_ context.Context, c *smtp.Conn) (smtp.Session, error) {
	if wait := in.limits.patience(); wait > 0 {
		c.Hurry(wait)
	}
	return &session{in: in, conn: c}, nil
}

// Password is a server's smtp.Config.Password.
func (in *Intake) Password(_ context.Context, c *smtp.Conn, user, password string) (string, error) {
	if err := in.limits.mayAuth(c.RemoteIP()); err != nil {
		return "", err
	}
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
func (in *Intake) Scram(_ context.Context, c *smtp.Conn, user string) (smtp.ScramKeys, error) {
	if err := in.limits.mayAuth(c.RemoteIP()); err != nil {
		return smtp.ScramKeys{}, err
	}
	acc, ok := in.accounts.Login(user)
	if !ok {
		return smtp.ScramKeys{}, smtp.ErrNoUser
	}
	c2 := acc.Credential
	return smtp.ScramKeys{Account: acc.Address.String(), Salt: c2.Salt, Iterations: c2.Iterations,
		StoredKey: c2.StoredKey, ServerKey: c2.ServerKey}, nil
}

// OnAuth is a server's smtp.Config.OnAuth.
func (in *Intake) OnAuth(_ context.Context, c *smtp.Conn, a smtp.AuthAttempt) {
	var r *smtp.Reply
	switch {
	case a.Err == nil:
		return
	case errors.As(a.Err, &r) && (r.Code == 454 || r.Code == 501):
		// Nobody looked at the password; or nobody could, or the client gave up.
		in.digest.refused("auth", a.Err)
	default:
		in.limits.authFailed(c.RemoteIP())
		in.digest.count("auth failed")
	}
	in.log.Warn("log-in failed", "user", a.User, "mechanism", a.Mechanism, "peer", c.RemoteIP(),
		"err", a.Err)
}
