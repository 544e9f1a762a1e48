// Package interop runs the real binary against the programs of others: Postfix, swaks, Python's smtplib,
// OpenSSL. A peer that is not installed skips its tests with a line. Everything is on loopback.
package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
}

const user = "user@local.test"

// freeAddr returns an address of loopback on which nobody listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
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

// newSite configures a node and starts it; extra is appended to its [relay] section.
func newSite(t *testing.T, zone *dns.Zone, relay string, top string) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), smtp: freeAddr(t), submit: freeAddr(t), tls: freeAddr(t)}
	s.config = filepath.Join(s.dir, "tallypost.toml")
	text := fmt.Sprintf(`hostname = "mx.local.test"
domains = ["local.test"]
data_dir = "data"
%s
[smtp]
listen = [%q]
[submission]
listen = [%q]
listen_tls = [%q]
[dns]
servers = [%q]
[queue]
min_backoff = "500ms"
max_backoff = "1s"
[relay]
%s
`, top, s.smtp, s.submit, s.tls, serveZone(t, zone), relay)
	if err := os.WriteFile(s.config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	s.password = strings.TrimSpace(s.run("account", "add", user, "--generate"))
	s.start()
	t.Cleanup(func() {
		s.cmd.Process.Signal(syscall.SIGTERM)
		s.cmd.Wait()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			t.Logf("the node's log:\n%s", log)
		}
	})
	return s
}

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
	for _, addr := range []string{s.smtp, s.submit, s.tls} {
		if err := peer.Await(addr); err != nil {
			out, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			s.t.Fatalf("%v\n%s", err, out)
		}
	}
}

// kill ends the process as a power cut would, as far as a process can.
func (s *site) kill() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
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

// letters returns the content of every message in the account's inbox.
func (s *site) letters() []string {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "data/mail/local.test/user/Maildir/new/*"))
	if err != nil {
		s.t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			s.t.Fatal(err)
		}
		out = append(out, string(b))
	}
	return out
}

// awaitLetters waits until the inbox has n messages and returns them.
func (s *site) awaitLetters(n int) []string {
	s.t.Helper()
	for range 600 {
		if got := s.letters(); len(got) >= n {
			return got
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Fatalf("%d messages in the inbox after 30 seconds, want %d; the queue:\n%s",
		len(s.letters()), n, s.run("queue", "list"))
	return nil
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

// newPostfix starts a Postfix of the test's own.
func newPostfix(t *testing.T, main map[string]string) *peer.Postfix {
	t.Helper()
	dir, err := os.MkdirTemp("", "tallypost-postfix-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p, err := peer.StartPostfix(peer.PostfixConfig{Dir: dir, Addr: freeAddr(t), Main: main})
	if errors.Is(err, peer.ErrAbsent) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("Postfix's log:\n%s", p.Log())
		}
	})
	return p
}
