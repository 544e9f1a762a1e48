// Package node is the house: the one place that knows every part, puts them together by a configuration
// and runs them.
//
// New reads and opens, and starts nothing; Run owns every goroutine it starts and returns after all of them
// have ended. Several nodes can live in one process.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tallypost/tallypost/bridge/eventlog"
	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/internal/statusline"
	"github.com/tallypost/tallypost/internal/web"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/account"
	"github.com/tallypost/tallypost/mail/intake"
	"github.com/tallypost/tallypost/mail/keyring"
	"github.com/tallypost/tallypost/mail/mailbox"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/relay"
	"github.com/tallypost/tallypost/mail/reporting"
	"github.com/tallypost/tallypost/mail/reputation"
	"github.com/tallypost/tallypost/mail/smtp"
	"github.com/tallypost/tallypost/mail/srs"
)

// Node is a mail server with its log.
type Node struct {
	cfg   Config
	log   *slog.Logger
	store queue.Store
	queue *queue.Queue
	relay *relay.Relay
	srs   *srs.Rewriter
	boxes *mailbox.Maildirs

	intake  *intake.Intake
	learner *reputation.Learner
	keys    *keyring.Ring
	reports *reporting.Sender
	inbox   *reporting.Inbox
	servers []server
	acme    *acmeCert   // nil: not used
	policy  *policySite // nil: not used
	control web.Control
	bitcoin half
	site    []net.Listener   // of the status page
	line    *statusline.Line // nil: none
	socket  net.Listener
}

// server is an SMTP server and its listeners.
type server struct {
	smtp      *smtp.Server
	listeners []net.Listener
}

// listen is net.Listen with a hint at what is usually the matter.
func listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%w: another program has the port, `ss -ltnp` says which", err)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%w: ports below 1024 need root or the capability CAP_NET_BIND_SERVICE", err)
	}
	return l, err
}

// OpenAccounts opens the accounts of the node that cfg describes.
func OpenAccounts(cfg Config) (account.Resolver, error) {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return account.Resolver{}, err
	}
	accounts, err := account.Open(filepath.Join(cfg.DataDir, "accounts.json"))
	if err != nil {
		return account.Resolver{}, err
	}
	r := account.Resolver{Accounts: accounts, Local: make(map[mail.Domain]bool), Separator: cfg.Mailbox.Separator}
	for _, s := range cfg.Domains {
		d, err := mail.ParseDomain(s)
		if err != nil {
			return account.Resolver{}, err
		}
		r.Local[d] = true
	}
	return r, nil
}

// New opens everything that cfg names, listeners last. Close gives it back where Run is not called.
func New(cfg Config, log *slog.Logger) (n *Node, err error) {
	n = &Node{cfg: cfg, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	accounts, err := OpenAccounts(cfg)
	if err != nil {
		return n, err
	}
	if n.socket, err = web.Listen(cfg.DataDir); err != nil {
		return n, err
	}
	resolver, err := dns.NewClient(dns.Config{Servers: cfg.DNS.Servers, TrustAD: cfg.DNS.TrustAD})
	if err != nil {
		return n, err
	}
	clk := clock.Real{}
	if n.keys, err = OpenKeys(cfg, resolver, clk, log.With("part", "dkim")); err != nil {
		return n, err
	}
	if n.reports, err = openReports(cfg, resolver, n.keys, clk, log.With("part", "reports")); err != nil {
		return n, err
	}
	n.inbox = OpenInbox(cfg, clk)
	n.boxes = mailbox.New(mailbox.Config{Root: cfg.Mailbox.Root, Hostname: cfg.Hostname}, clk)
	if n.srs, err = openSRS(cfg); err != nil {
		return n, err
	}
	n.relay, err = openRelay(cfg, resolver, n.reports.Connected, clk, log.With("part", "relay"))
	if err != nil {
		return n, err
	}
	events, err := n.openQueue(accounts, clk)
	if err != nil {
		return n, err
	}
	n.control = web.Control{Queue: n.queue, Log: &logDoor{events: events, store: n.store, boxes: n.boxes}}
	if n.learner, err = openLearner(cfg, clk, log.With("part", "reputation")); err != nil {
		return n, err
	}
	policy := n.submissionConfig(cfg.intakeConfig())
	policy.Weighers, policy.SampleBytes = []intake.Weigher{weigher{n.learner.History, clk}}, reputationSample
	policy.SRS = n.srs
	if cfg.Mailbox.LMTP == "" {
		policy.Room = func(acc *account.Account, size int64) bool {
			return n.boxes.Room(acc.Address, size, acc.Quota)
		}
	}
	n.intake, err = intake.New(policy, accounts, n.queue, events.Origin(), resolver, clk,
		log.With("part", "intake"))
	if err != nil {
		return n, err
	}
	if n.bitcoin, err = openBitcoin(cfg, log.With("part", "bitcoin")); err != nil {
		return n, fmt.Errorf("bitcoin: %w", err)
	}
	n.control.Bitcoin = n.bitcoin
	for _, addr := range cfg.Web.Listen {
		l, err := listen(addr)
		if err != nil {
			return n, fmt.Errorf("web.listen: %w", err)
		}
		n.site = append(n.site, l)
	}
	return n, n.listen(n.intake)
}

// openQueue opens store, log and queue, which refer to each other in this order.
func (n *Node) openQueue(accounts account.Resolver, clk clock.Clock) (*eventlog.Log, error) {
	var err error
	if n.store, err = queue.OpenDisk(queue.DiskConfig{Dir: filepath.Join(n.cfg.DataDir, "queue"), Log: n.log.With("part", "store")}); err != nil {
		return nil, err
	}
	signer, err := openSigner(n.cfg)
	if err != nil {
		return nil, err
	}
	events, err := eventlog.Open(eventlog.Config{Signer: signer, Clock: clk,
		LastSigned: eventlog.SignedFile(filepath.Join(n.cfg.DataDir, "log.signed"))}, queue.JournalSection(n.store))
	if err != nil {
		return nil, err
	}
	deliver := &deliverer{accounts: accounts, boxes: n.boxes, relay: n.relay, inbox: n.inbox,
		lmtp: n.cfg.Mailbox.LMTP != "", srs: n.srs, clock: clk, since: clk.Now(),
		takesReports: n.cfg.takesReports, log: n.log.With("part", "mailbox")}
	n.queue, err = queue.Open(queue.Config{
		MinBackoff: time.Duration(n.cfg.Queue.MinBackoff), MaxBackoff: time.Duration(n.cfg.Queue.MaxBackoff),
		DelayWarning: time.Duration(n.cfg.Queue.DelayWarning), Expire: time.Duration(n.cfg.Queue.Expire),
		Concurrency: n.cfg.Queue.Concurrency,
	}, n.store, events, deliver, reporter{host: mail.Domain(n.cfg.Hostname), sign: n.keys.Signer}, clk, n.log.With("part", "queue"))
	return events, err
}

// listen makes the SMTP servers and opens their listeners.
func (n *Node) listen(in *intake.Intake) error {
	certs, err := openCertificates(n.cfg, n.log.With("part", "tls"))
	if err != nil {
		return err
	}
	n.acme = certs.acme
	if n.policy, err = openPolicySite(n.cfg, certs, n.log.With("part", "web")); err != nil {
		return err
	}
	base := smtp.Config{
		Hostname: n.cfg.Hostname, NewSession: in.NewSession, TLS: certs.serverTLS(),
		MaxSize: n.cfg.SMTP.MaxSize, MaxRecipients: n.cfg.SMTP.MaxRecipients, Log: n.log.With("part", "smtp"),
		Admit: in.Admit, Proxies: prefixes(n.cfg.SMTP.Proxies), XClient: prefixes(n.cfg.SMTP.XClient),
	}
	submission := base
	submission.Submission, submission.RequireTLS = true, true
	submission.MaxHold = time.Duration(n.cfg.Submission.MaxHold)
	submission.Password, submission.Scram, submission.OnAuth = in.Password, in.Scram, in.OnAuth
	implicit := submission
	implicit.ImplicitTLS = true
	base.BinaryMIME = n.cfg.SMTP.BinaryMIME
	base.GreetDelay = time.Duration(n.cfg.Intake.GreetDelay)
	for _, s := range []struct {
		cfg    smtp.Config
		listen []string
	}{{base, n.cfg.SMTP.Listen}, {submission, n.cfg.Submission.Listen}, {implicit, n.cfg.Submission.ListenTLS}} {
		srv, err := smtp.NewServer(s.cfg)
		if err != nil {
			return err
		}
		one := server{smtp: srv}
		for _, addr := range s.listen {
			l, err := listen(addr)
			if err != nil {
				return err
			}
			one.listeners = append(one.listeners, l)
		}
		n.servers = append(n.servers, one)
	}
	return nil
}

// Run serves until ctx ends, or something fails that the node cannot do without. Servers end first, then
// the queue, so that what they have accepted is settled.
func (n *Node) Run(ctx context.Context) error {
	queueCtx, stopQueue := context.WithCancel(context.WithoutCancel(ctx))
	defer stopQueue()
	queueDone := make(chan error, 1)
	go func() { queueDone <- n.queue.Run(queueCtx) }()

	g, front := errgroup.WithContext(ctx)
	g.Go(func() error { return n.control.Serve(front, n.socket) })
	g.Go(func() error { return n.intake.Run(front) })
	g.Go(func() error { return n.runBitcoin(front) })
	g.Go(func() error { return n.keys.Run(front) })
	g.Go(func() error { return n.learner.Run(front) })
	g.Go(func() error { return n.reports.Run(front, n.queue) })
	if len(n.site) > 0 {
		site := web.Site{Hostname: n.cfg.Hostname, Queue: n.queue, Bitcoin: n.bitcoin, Log: n.log.With("part", "web")}
		g.Go(func() error { return site.Serve(front, n.site) })
	}
	if n.acme != nil {
		g.Go(func() error { return n.acme.run(front) })
	}
	if n.policy != nil {
		g.Go(func() error { return n.policy.serve(front) })
	}
	for _, s := range n.servers {
		for _, l := range s.listeners {
			n.log.Info("listening", "addr", l.Addr())
			g.Go(func() error { return s.smtp.Serve(front, l) })
		}
	}
	g.Go(func() error {
		select {
		case err := <-queueDone:
			queueDone <- err
			return fmt.Errorf("queue: %w", err)
		case <-front.Done():
			return nil
		}
	})
	err := g.Wait()
	stopQueue()
	if qerr := <-queueDone; qerr != nil && !errors.Is(err, qerr) {
		err = errors.Join(err, qerr)
	}
	n.log.Info("stopped", "err", err)
	return errors.Join(err, n.Close())
}

// Close gives back what New opened. After Run there is nothing left to do.
func (n *Node) Close() error {
	var errs []error
	for _, s := range n.servers {
		for _, l := range s.listeners {
			if err := l.Close(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	for _, l := range n.site {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if n.policy != nil {
		errs = append(errs, n.policy.close())
	}
	if n.socket != nil {
		if err := n.socket.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if n.relay != nil {
		errs = append(errs, n.relay.Close())
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	if n.bitcoin != nil {
		n.bitcoin.Close()
	}
	n.site = nil
	n.servers, n.policy, n.socket, n.relay, n.store, n.bitcoin = nil, nil, nil, nil, nil, nil
	return errors.Join(errs...)
}
