package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/internal/node"
	"github.com/tallypost/tallypost/internal/web"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/account"
)

// demo is two sites, the zone that both ask, and what the steps hand on to each other.
type demo struct {
	out     io.Writer
	dir     string
	message []byte
	began   time.Time

	a, b    *demoSite
	port    int // of both servers, for other servers
	zone    *dns.Zone
	stopDNS func() error

	id        mail.ID // of the message at a.test
	messageID string
	letter    string // its file in Bob's Maildir
}

// demoSite is a server of the demonstration, running in a process of its own.
type demoSite struct {
	domain, ip string
	user       mail.Address
	password   string
	cfg        node.Config
	config     string // file
	dir        string
	cmd        *exec.Cmd
	client     *web.Client
}

// build sets up zone, configurations and accounts, and starts both servers.
func (d *demo) build(ctx context.Context) error {
	// Each server has an address of its own on loopback, so that both can use one port, as port 25.
	var err error
	if d.port, err = freePort("127.0.0.2", "127.0.0.3"); err != nil {
		return err
	}
	d.zone = dns.MustZone(map[string][]string{
		"a.test":      {"MX 10 mx.a.test.", "TXT \"v=spf1 ip4:127.0.0.1 -all\""},
		"mx.a.test":   {"A 127.0.0.2"},
		"b.test":      {"MX 10 dead.b.test.", "MX 20 mx.b.test."},
		"dead.b.test": {"A 127.0.0.4"},
		"mx.b.test":   {"A 127.0.0.3"},
		// What leaves on loopback leaves from here.
		"out.a.test":             {"A 127.0.0.1"},
		"1.0.0.127.in-addr.arpa": {"PTR out.a.test."},
	})
	server, err := dns.Listen("127.0.0.1:0", d.zone)
	if err != nil {
		return err
	}
	dnsCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- server.Run(dnsCtx) }()
	d.stopDNS = func() error { cancel(); return <-done }

	for _, s := range []struct {
		into             **demoSite
		domain, ip, user string
	}{{&d.a, "a.test", "127.0.0.2", "alice"}, {&d.b, "b.test", "127.0.0.3", "bob"}} {
		site, err := d.newSite(s.domain, s.ip, s.user, server.Addr().String())
		if err != nil {
			return err
		}
		*s.into = site
		if err := site.start(ctx); err != nil {
			return err
		}
		fmt.Fprintf(d.out, "%s: %s:%d, submission %s, account %s\n", site.cfg.Hostname, site.ip, d.port,
			site.cfg.Submission.Listen[0], site.user)
	}
	fmt.Fprintf(d.out, "DNS zone at %s; data in %s\n", server.Addr(), d.dir)
	return nil
}

// freePort returns a port that is free on all of the addresses.
func freePort(ips ...string) (int, error) {
	for range 20 {
		first, err := net.Listen("tcp", net.JoinHostPort(ips[0], "0"))
		if err != nil {
			return 0, err
		}
		port := first.Addr().(*net.TCPAddr).Port
		free := true
		for _, ip := range ips[1:] {
			l, err := net.Listen("tcp", net.JoinHostPort(ip, fmt.Sprint(port)))
			if err != nil {
				free = false
				continue
			}
			l.Close()
		}
		first.Close()
		if free {
			return port, nil
		}
	}
	return 0, errors.New("no port is free on " + strings.Join(ips, " and "))
}

// newSite writes the configuration of a server and makes its account.
func (d *demo) newSite(domain, ip, user, resolver string) (*demoSite, error) {
	s := &demoSite{domain: domain, ip: ip, user: mail.Address{Local: user, Domain: mail.Domain(domain)},
		dir: filepath.Join(d.dir, domain)}
	ports := make([]int, 2)
	for i := range ports {
		var err error
		if ports[i], err = freePort(ip); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	s.config = filepath.Join(s.dir, "tallypost.toml")
	text := fmt.Sprintf(`hostname = "mx.%s"
domains = [%q]
data_dir = "data"

[smtp]
listen = ["%s:%d"]

[submission]
listen = ["%s:%d"]
listen_tls = ["%s:%d"]

[dns]
servers = [%q]

[relay]
port = %d

[queue]
min_backoff = "1s"
max_backoff = "5s"
`, domain, domain, ip, d.port, ip, ports[0], ip, ports[1], resolver, d.port)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	var err error
	if s.cfg, err = node.Load(s.config); err != nil {
		return nil, err
	}
	s.client = web.NewClient(s.cfg.DataDir)
	return s, s.addAccount()
}

func (s *demoSite) addAccount() error {
	accounts, err := node.OpenAccounts(s.cfg)
	if err != nil {
		return err
	}
	s.password = strings.ToLower(rand.Text()[:16])
	cred, err := account.NewCredential(s.password)
	if err != nil {
		return err
	}
	acc := account.Account{Address: s.user, Credential: cred}
	err = accounts.Add(acc)
	if errors.Is(err, account.ErrExists) { // --dir of an earlier run
		return accounts.Change(s.user, func(a *account.Account) error { a.Credential = cred; return nil })
	}
	return err
}

// start runs the server as a process and returns when it listens.
func (s *demoSite) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(self, "serve", "--config", s.config)
	s.cmd.Stderr = log
	s.cmd.SysProcAttr = childAttr()
	if err := s.cmd.Start(); err != nil {
		return err
	}
	exited := make(chan error, 1)
	go func() { exited <- s.cmd.Wait() }()
	for range 400 {
		if s.listens() {
			return nil
		}
		select {
		case err := <-exited:
			out, _ := os.ReadFile(log.Name())
			return fmt.Errorf("%s did not start: %w\n%s", s.cfg.Hostname, err, bytes.TrimSpace(out))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(25 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s does not listen after 10 seconds", s.cfg.Hostname)
}

func (s *demoSite) listens() bool {
	for _, addr := range []string{s.cfg.SMTP.Listen[0], s.cfg.Submission.Listen[0]} {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return false
		}
		c.Close()
	}
	return true
}

// signal sends the server's process a signal and waits for its end.
func (s *demoSite) signal(sig syscall.Signal) error {
	if s == nil || s.cmd == nil || s.cmd.Process == nil {
		return nil
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		return nil // it has ended
	}
	for range 600 {
		if s.cmd.Process.Signal(syscall.Signal(0)) != nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.cmd.Process.Kill()
	return fmt.Errorf("%s did not stop within 12 seconds", s.cfg.Hostname)
}

// stop ends both servers and the zone.
func (d *demo) stop() error {
	err := errors.Join(d.a.signal(syscall.SIGTERM), d.b.signal(syscall.SIGTERM))
	if d.stopDNS != nil {
		err = errors.Join(err, d.stopDNS())
	}
	return err
}

// invite prints commands that work as pasted.
func (d *demo) invite() {
	host, port, _ := net.SplitHostPort(d.a.cfg.Submission.Listen[0])
	self, err := os.Executable()
	if err != nil {
		self = "./tallypost"
	}
	fmt.Fprintf(d.out, `
The servers stay up until you press Ctrl-C. Try:

swaks --server %s --port %s --tls --auth PLAIN --auth-user %s --auth-password %s --from %s --to %s
openssl s_client -quiet -crlf -starttls smtp -connect %s
openssl s_client -quiet -crlf -connect %s
ls -l %s
%s trace %s --config %s
%s log audit --config %s
`, host, port, d.a.user, d.a.password, d.a.user, d.b.user,
		d.b.cfg.SMTP.Listen[0], d.a.cfg.Submission.ListenTLS[0],
		filepath.Join(d.b.cfg.Mailbox.Root, d.b.domain, d.b.user.Local, "Maildir/new"),
		self, d.b.user, d.b.config, self, d.b.config)
}
