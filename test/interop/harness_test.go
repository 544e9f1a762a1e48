// Package interop runs the real binary against the programs of others: Postfix, Exim, swaks, msmtp, Python's
// smtplib, OpenSSL. A peer that is not installed skips its tests with a line. Everything is on loopback.
package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/test/peer"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "tallypost-interop-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "tallypost")
		build := exec.Command("go", "build", "-o", binary, "../../cmd/tallypost")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n%s", build, err, out)
			return 1
		}
		return m.Run()
	}())
}

// site is a running node with one domain, local.test, and one account in it.
type site struct {
	t        *testing.T
	dir      string
	config   string
	smtp     string // address of the listener for other servers
	submit   string
	tls      string // submission with TLS from the start
	password string
	cmd      *exec.Cmd
	ended    chan struct{}   // closed when the process is gone
	reports  map[string]bool // letters that awaitReport has returned
}

const user = "user@local.test"

// lastPort is the port that freeAddr gave out last.
var lastPort atomic.Int32

// freeAddr returns an address of loopback on which nobody listens, and that it never returned before: tests
// run side by side. The ports lie below those from which the system takes the near end of connections.
func freeAddr(t *testing.T) string {
	t.Helper()
	const first, last = 10_000, 32_000
	lastPort.CompareAndSwap(0, int32(first+os.Getpid()*97%(last-first)))
	for range last - first {
		addr := fmt.Sprintf("127.0.0.1:%d", first+int(lastPort.Add(1)-first)%(last-first))
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no port of loopback is free")
	return ""
}

// serveZone serves a zone for the time of the test and returns its address.
func serveZone(t *testing.T, zone *dns.Zone) string {
	t.Helper()
	server, err := dns.Listen("127.0.0.1:0", zone)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return server.Addr().String()
}

// siteConfig says how a node differs from the usual one; each text is appended to the section of its name.
type siteConfig struct {
	zone *dns.Zone // nil: one without any name
	dns  string    // address of the DNS server, in place of zone
	dir  string    // empty: a temporary one

	top, smtp, submission, queue, relay string
}

// newSite is startSite where little differs; relay may open further sections.
func newSite(t *testing.T, zone *dns.Zone, relay string, top string) *site {
	t.Helper()
	return startSite(t, siteConfig{zone: zone, relay: relay, top: top})
}

// startSite configures a node and starts it.
func startSite(t *testing.T, cfg siteConfig) *site {
	t.Helper()
	s := prepareSite(t, cfg)
	s.start()
	t.Cleanup(func() {
		s.cmd.Process.Signal(syscall.SIGTERM)
		<-s.ended
		if t.Failed() {
			t.Logf("the node's log:\n%s", tail(s.log(), 20_000))
		}
	})
	return s
}

// prepareSite configures a node and adds its account.
func prepareSite(t *testing.T, cfg siteConfig) *site {
	t.Helper()
	if cfg.dir == "" {
		cfg.dir = t.TempDir()
	}
	if cfg.dns == "" {
		if cfg.zone == nil {
			cfg.zone = new(dns.Zone)
		}
		cfg.dns = serveZone(t, cfg.zone)
	}
	s := &site{t: t, dir: cfg.dir, smtp: freeAddr(t), submit: freeAddr(t), tls: freeAddr(t),
		reports: make(map[string]bool)}
	s.config = filepath.Join(s.dir, "tallypost.toml")
	text := fmt.Sprintf(`hostname = "mx.local.test"
domains = ["local.test"]
data_dir = "data"
%s
[smtp]
listen = [%q]
%s
[submission]
listen = [%q]
listen_tls = [%q]
%s
[dns]
servers = [%q]
[queue]
min_backoff = "500ms"
max_backoff = "1s"
%s
[relay]
%s
`, cfg.top, s.smtp, cfg.smtp, s.submit, s.tls, cfg.submission, cfg.dns, cfg.queue, cfg.relay)
	if err := os.WriteFile(s.config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	s.password = strings.TrimSpace(s.run("account", "add", user, "--generate"))
	return s
}

// log returns what the node has logged so far.
func (s *site) log() string {
	b, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// tail returns the last n octets of a text.
func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// start starts the node's process and waits until it listens.
func (s *site) start() {
	s.t.Helper()
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd = exec.Command(binary, "serve", "--debug", "-c", s.config)
	s.cmd.Stderr = log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd, ended := s.cmd, make(chan struct{})
	s.ended = ended
	go func() { cmd.Wait(); close(ended) }()
	for _, addr := range []string{s.smtp, s.submit, s.tls} {
		if err := peer.Await(addr); err != nil {
			s.t.Fatalf("%v\n%s", err, s.log())
		}
	}
}

// kill ends the process as a power cut would, as far as a process can.
func (s *site) kill() {
	s.cmd.Process.Kill()
	<-s.ended
}

// runs reports whether the process has not ended.
func (s *site) runs() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// run runs a subcommand on the site's configuration and returns what it printed.
func (s *site) run(args ...string) string {
	s.t.Helper()
	cmd := exec.Command(binary, append(args, "-c", s.config)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s%s", cmd, err, out, stderr.String())
	}
	return string(out)
}

// letters returns the content of every message in the account's inbox, and in its folder Junk: the tests
// write like people with something to sell.
func (s *site) letters() []string {
	s.t.Helper()
	box := filepath.Join(s.dir, "data/mail/local.test/user/Maildir")
	return append(readMaildir(s.t, box), readMaildir(s.t, filepath.Join(box, ".Junk"))...)
}

// readMaildir returns the content of every new message of a Maildir.
func readMaildir(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "new/*"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(b))
	}
	return out
}

// awaitLetters waits until the inbox has n messages and returns them.
func (s *site) awaitLetters(n int) []string {
	s.t.Helper()
	var got []string
	if !eventually(30*time.Second, func() bool { got = s.letters(); return len(got) >= n }) {
		s.t.Fatalf("%d messages in the inbox after 30 seconds, want %d; the queue:\n%s",
			len(got), n, s.run("queue", "list"))
	}
	return got
}

// eventually asks again and again, and reports whether the answer was yes within a time.
func eventually(within time.Duration, yes func() bool) bool {
	for end := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
		if yes() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// trace returns what the node knows of a message.
func (s *site) trace(what string) []queue.Message {
	s.t.Helper()
	var list []queue.Message
	if err := json.Unmarshal([]byte(s.run("trace", "--json", what)), &list); err != nil {
		s.t.Fatal(err)
	}
	return list
}

// need skips the test where a program is not installed.
func need(t *testing.T, name string) string {
	t.Helper()
	for _, path := range []string{name, "/usr/sbin/" + name} {
		if p, err := exec.LookPath(path); err == nil {
			return p
		}
	}
	t.Skipf("%s is not installed", name)
	return ""
}
