package peer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// EximVariable names the environment variable with the path of the exim4 program. Debian's package cannot
// be installed beside Postfix, so the program is unpacked somewhere and started from there.
const EximVariable = "TALLYPOST_EXIM"

// Exim is a running instance.
type Exim struct {
	// Addr is where it listens: host and port.
	Addr string
	Dir  string // exim.conf, spool, log

	bin string
	cmd *exec.Cmd
}

// EximConfig says how an instance differs from Exim's defaults.
type EximConfig struct {
	Dir         string   // an empty folder that the Debian-exim user can reach
	Addr        string   // an address of loopback, host and port
	Main        []string // further lines of the main section
	RCPT        []string // statements that judge a recipient before all are accepted
	Cert, Key   string   // PEM files; empty: no TLS is offered
	NoDSN       bool     // does not offer DSN (RFC 3461)
	MailDomains []string // domains whose mail, for any mailbox, goes to the Maildir Dir/box
	// Smarthost takes all other mail, host and port; empty: there is none, such mail is refused.
	Smarthost string
	// Transport are further lines of the transport to the smarthost, such as "protocol = smtps".
	Transport []string
	// User and Password log in at the smarthost.
	User, Password string
}

// StartExim starts an instance; Stop ends it. It needs root, as Exim does.
func StartExim(cfg EximConfig) (*Exim, error) {
	bin := os.Getenv(EximVariable)
	if bin == "" {
		bin = "exim4"
	}
	path, err := exec.LookPath(bin)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: exim4 is neither installed nor named by %s", ErrAbsent, EximVariable)
	}
	if os.Getuid() != 0 {
		return nil, fmt.Errorf("%w: exim4 can be started by root only", ErrAbsent)
	}
	e := &Exim{Addr: cfg.Addr, Dir: cfg.Dir, bin: path}
	if err := e.configure(cfg); err != nil {
		return nil, err
	}
	// Without the libraries or the user that it was built for it does not even tell its version.
	if out, err := exec.Command(path, "-C", "/dev/null", "-bV").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s -bV: %w: %s", ErrAbsent, path, err, out)
	}
	// -q1s: a queue run every second, as a test wants no longer wait.
	e.cmd = e.Command("-bdf", "-q1s")
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var said strings.Builder
	e.cmd.Stderr = &said
	if err := e.cmd.Start(); err != nil {
		return nil, err
	}
	if err := Await(cfg.Addr); err != nil {
		err = errors.Join(err, e.Stop())
		return nil, fmt.Errorf("exim4: %w: %s%s", err, said.String(), e.Log())
	}
	return e, nil
}

func (e *Exim) file() string { return filepath.Join(e.Dir, "exim.conf") }

// Boxes returns the Maildir of EximConfig.MailDomains.
func (e *Exim) Boxes() string { return filepath.Join(e.Dir, "box") }

func (e *Exim) configure(cfg EximConfig) error {
	for _, dir := range []string{"spool", "log", "box"} {
		if err := os.Mkdir(filepath.Join(cfg.Dir, dir), 0o777); err != nil {
			return err
		}
		// The mask may have taken bits away, and Exim works as two other users.
		if err := os.Chmod(filepath.Join(cfg.Dir, dir), 0o777); err != nil {
			return err
		}
	}
	// Exim believes only a configuration that root alone can write, and reads it as another user too.
	return os.WriteFile(e.file(), []byte(e.text(cfg)), 0o644)
}

// text returns exim.conf. Every check of who may send is off: only loopback can reach it.
func (e *Exim) text(cfg EximConfig) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("exim_path = %s", e.bin)
	line("spool_directory = %s/spool", cfg.Dir)
	line("log_file_path = %s/log/%%s", cfg.Dir)
	line("pid_file_path = %s/pid", cfg.Dir)
	host, port, _ := strings.Cut(cfg.Addr, ":")
	line("local_interfaces = %s.%s", host, port)
	line("primary_hostname = exim.test")
	line("keep_environment =")
	// The receiving process is the Exim user, whom -C costs the privilege that a delivery would want
	// back: so that user does it all.
	line("deliver_drop_privilege")
	line("rfc1413_hosts =")
	line("host_lookup =")
	line("log_selector = -queue_run +smtp_protocol_error +smtp_syntax_error +pipelining +tls_cipher")
	line("smtp_accept_max = 200")
	line("smtp_accept_max_per_connection = 100000")
	line("smtp_accept_queue_per_connection = 100000")
	line("message_size_limit = 50M")
	line("recipients_max = 5000")
	line("dsn_advertise_hosts = %s", ifElse(cfg.NoDSN, "", "*"))
	line("smtputf8_advertise_hosts = *")
	line("acl_smtp_rcpt = all")
	line("tls_advertise_hosts = %s", ifElse(cfg.Cert != "", "*", ""))
	if cfg.Cert != "" {
		line("tls_certificate = %s\ntls_privatekey = %s", cfg.Cert, cfg.Key)
	}
	for _, l := range cfg.Main {
		line("%s", l)
	}
	line("begin acl\nall:")
	for _, l := range append(cfg.RCPT, "accept") {
		line("  %s", l)
	}
	line("begin routers")
	if len(cfg.MailDomains) > 0 {
		line("boxes:\n  driver = accept\n  domains = %s\n  transport = maildir", strings.Join(cfg.MailDomains, " : "))
	}
	if cfg.Smarthost != "" {
		host, port, _ := strings.Cut(cfg.Smarthost, ":")
		line("smarthost:\n  driver = manualroute\n  route_list = * %s::%s byname\n  self = send\n"+
			"  transport = remote", host, port)
	}
	line("begin transports")
	line("maildir:\n  driver = appendfile\n  directory = %s\n  maildir_format\n  create_directory\n"+
		"  return_path_add\n  envelope_to_add\n  mode = 0644", e.Boxes())
	line("remote:\n  driver = smtp\n  tls_verify_hosts =\n  tls_try_verify_hosts =\n  hosts_try_dane =")
	if cfg.User != "" {
		line("  hosts_require_auth = *")
	}
	for _, l := range cfg.Transport {
		line("  %s", l)
	}
	line("begin retry\n* * F,1h,1s")
	if cfg.User != "" {
		line("begin authenticators\nplain:\n  driver = plaintext\n  public_name = PLAIN\n"+
			"  client_send = ^%s^%s", cfg.User, cfg.Password)
	}
	return b.String()
}

func ifElse(cond bool, yes, no string) string {
	if cond {
		return yes
	}
	return no
}

// Command runs the program on this instance: Command("-bp").
func (e *Exim) Command(args ...string) *exec.Cmd {
	return exec.Command(e.bin, append([]string{"-C", e.file()}, args...)...)
}

// Log returns what the instance has logged so far: main log, rejects and panics.
func (e *Exim) Log() string {
	var b strings.Builder
	for _, name := range []string{"main", "reject", "panic"} {
		if text, err := os.ReadFile(filepath.Join(e.Dir, "log", name)); err == nil && len(text) > 0 {
			fmt.Fprintf(&b, "-- %slog\n%s", name, text)
		}
	}
	return b.String()
}

// Stop ends the instance and the deliveries that it has under way.
func (e *Exim) Stop() error {
	group := -e.cmd.Process.Pid
	if err := syscall.Kill(group, syscall.SIGTERM); err != nil {
		return fmt.Errorf("exim4: %w", err)
	}
	done := make(chan struct{})
	go func() { e.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
	}
	// What ignores the polite signal is gone with this one; none left is as good.
	if err := syscall.Kill(group, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("exim4: %w", err)
	}
	<-done
	return nil
}
