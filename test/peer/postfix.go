// Package peer starts the servers of others on loopback, for tests and benchmarks: a Postfix of its own
// with a configuration, a queue and a log in a temporary folder. It is for tests only.
package peer

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ErrAbsent says that the peer is not installed here, or cannot be started by this user.
var ErrAbsent = errors.New("peer is absent")

// Postfix is a running instance.
type Postfix struct {
	// Addr is where it listens: host and port.
	Addr string
	Dir  string // configuration in etc, queue in spool, maillog
}

// PostfixConfig says how an instance differs from Postfix's defaults.
type PostfixConfig struct {
	Dir    string            // an empty folder that the postfix user can reach
	Addr   string            // an address of loopback, host and port
	Main   map[string]string // main.cf
	Master []string          // further lines of master.cf
}

// services is a master.cf without chroot, so that nothing of the machine need be copied into the queue.
const services = `pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
showq unix n - n - - showq
flush unix n - n 1000? 0 flush
tlsmgr unix - - n 1000? 1 tlsmgr
proxymap unix - - n - - proxymap
postlog unix-dgram n - n - 1 postlogd
`

// StartPostfix starts an instance; Stop ends it. It needs root, as Postfix does.
func StartPostfix(cfg PostfixConfig) (*Postfix, error) {
	bin, err := exec.LookPath("postfix")
	if err != nil {
		if bin, err = exec.LookPath("/usr/sbin/postfix"); err != nil {
			return nil, fmt.Errorf("%w: postfix is not installed", ErrAbsent)
		}
	}
	if os.Getuid() != 0 {
		return nil, fmt.Errorf("%w: postfix can be started by root only", ErrAbsent)
	}
	p := &Postfix{Addr: cfg.Addr, Dir: cfg.Dir}
	if err := p.configure(cfg); err != nil {
		return nil, err
	}
	if out, err := exec.Command(bin, "-c", p.etc(), "start").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("postfix start: %w: %s%s", err, out, p.Log())
	}
	if err := Await(cfg.Addr); err != nil {
		return nil, errors.Join(fmt.Errorf("postfix: %w: %s", err, p.Log()), p.Stop())
	}
	return p, nil
}

func (p *Postfix) etc() string { return filepath.Join(p.Dir, "etc") }

func (p *Postfix) configure(cfg PostfixConfig) error {
	owner, err := user.Lookup("postfix")
	if err != nil {
		return fmt.Errorf("%w: no user postfix", ErrAbsent)
	}
	uid, err := strconv.Atoi(owner.Uid)
	if err != nil {
		return err
	}
	data := filepath.Join(p.Dir, "data")
	for _, dir := range []string{p.etc(), filepath.Join(p.Dir, "spool"), data} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chown(data, uid, -1); err != nil {
		return err
	}
	main := map[string]string{
		"compatibility_level":                 "3.6",
		"queue_directory":                     filepath.Join(p.Dir, "spool"),
		"data_directory":                      data,
		"maillog_file":                        filepath.Join(p.Dir, "maillog"),
		"maillog_file_prefixes":               p.Dir,
		"myhostname":                          "postfix.test",
		"mydestination":                       "",
		"inet_interfaces":                     "127.0.0.1",
		"inet_protocols":                      "ipv4",
		"mynetworks":                          "127.0.0.0/8",
		"alias_maps":                          "",
		"alias_database":                      "",
		"smtpd_peername_lookup":               "no",
		"smtp_host_lookup":                    "native",
		"disable_dns_lookups":                 "yes",
		"smtputf8_enable":                     "yes",
		"smtpd_client_event_limit_exceptions": "static:all",
	}
	for k, v := range cfg.Main {
		main[k] = v
	}
	var b strings.Builder
	for k, v := range main {
		fmt.Fprintf(&b, "%s = %s\n", k, v)
	}
	if err := os.WriteFile(filepath.Join(p.etc(), "main.cf"), []byte(b.String()), 0o644); err != nil {
		return err
	}
	master := cfg.Addr + " inet n - n - - smtpd\n" + services + strings.Join(append(cfg.Master, ""), "\n")
	return os.WriteFile(filepath.Join(p.etc(), "master.cf"), []byte(master), 0o644)
}

// Command runs a command of Postfix on this instance: Command("postqueue", "-f").
func (p *Postfix) Command(name string, args ...string) *exec.Cmd {
	path, err := exec.LookPath(name)
	if err != nil {
		path = "/usr/sbin/" + name
	}
	return exec.Command(path, append([]string{"-c", p.etc()}, args...)...)
}

// Log returns what the instance has logged so far.
func (p *Postfix) Log() string {
	b, err := os.ReadFile(filepath.Join(p.Dir, "maillog"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// PID returns the master's process id.
func (p *Postfix) PID() (int, error) {
	b, err := os.ReadFile(filepath.Join(p.Dir, "spool", "pid", "master.pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// Stop ends the instance.
func (p *Postfix) Stop() error {
	if out, err := p.Command("postfix", "stop").CombinedOutput(); err != nil {
		return fmt.Errorf("postfix stop: %w: %s", err, out)
	}
	return nil
}

// Await returns when something accepts connections at addr, or with an error after 15 seconds.
func Await(addr string) error {
	deadline := time.Now().Add(15 * time.Second)
	for {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("nobody listens at %s: %w", addr, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
