package interop

import (
	"fmt"
	"net"
	"net/smtp"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/test/peer"
)

// gtube is the text that every filter takes for spam: the Generic Test for Unsolicited Bulk Email.
const gtube = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

// startRspamd starts rspamd as a milter that judges by itself, with one of its modules and without the
// network, and returns its address and its process group.
func startRspamd(t *testing.T) (addr string, group int) {
	t.Helper()
	rspamd := need(t, "rspamd")
	dir, addr := t.TempDir(), freeAddr(t)
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("tlds", "com\norg\ntest\n") // its own list takes it a minute to read for the first time
	write("rspamd.conf", fmt.Sprintf(`options {
  pidfile = "%[1]s/pid"; cache_file = "%[1]s/cache"; history_file = "%[1]s/history"; stats_file = "%[1]s/stats";
  control_socket = "%[1]s/control mode=0600"; tempdir = "%[1]s"; hs_cache_dir = "%[1]s/"; url_tld = "%[1]s/tlds";
  filters = ""; disable_hyperscan = true; enable_test_patterns = true;
  dns { nameserver = ["127.0.0.1:9"]; timeout = 1s; retransmits = 1; }
}
logging { type = "file"; filename = "%[1]s/log"; level = "info"; }
worker "rspamd_proxy" {
  bind_socket = "%[2]s"; milter = yes; count = 1; timeout = 60s;
  upstream "local" { default = yes; self_scan = yes; }
}
modules { path = "/usr/share/rspamd/plugins/milter_headers.lua"; }
milter_headers { skip_local = false; use = ["x-spamd-bar", "x-spam-status"]; }
actions { reject = 15; add_header = 6; }
`, dir, addr))
	cmd := exec.Command(rspamd, "-f", "-c", filepath.Join(dir, "rspamd.conf"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Getuid() == 0 { // it refuses to be root
		nobody, err := osuser.Lookup("nobody")
		if err != nil {
			t.Skip("rspamd cannot run: there is no user nobody")
		}
		uid, _ := strconv.Atoi(nobody.Uid)
		gid, _ := strconv.Atoi(nobody.Gid)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	var words strings.Builder
	cmd.Stdout, cmd.Stderr = &words, &words
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("rspamd: %s%s", words.String(), tail(string(log), 5000))
		}
	})
	for range 6 { // it reads rules for a while
		if err := peer.Await(addr); err == nil {
			return addr, cmd.Process.Pid
		}
	}
	t.Fatal("rspamd does not listen")
	return "", 0
}

// filterSection configures a filter; the timeout is for each answer.
func filterSection(name, addr, timeout string, failClosed bool) string {
	return fmt.Sprintf("[[intake.filter]]\nname = %q\naddress = %q\ntimeout = %q\nfail_closed = %v\ninbound = true\n",
		name, addr, timeout, failClosed)
}

// offer sends a text from a stranger and returns the refusal.
func (s *site) offer(text string) error {
	s.t.Helper()
	c, err := smtp.Dial(s.smtp)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	if err := c.Mail("ada@elsewhere.test"); err != nil {
		return err
	}
	if err := c.Rcpt(user); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "From: ada@elsewhere.test\r\nTo: %s\r\nSubject: s\r\n\r\n%s\r\n", user, text)
	return w.Close()
}

// TestRspamd: a message passes with the fields that rspamd adds, the test pattern is refused, and a filter
// that hangs lets mail pass or wait as it is configured.
func TestRspamd(t *testing.T) {
	addr, group := startRspamd(t)
	open := newSite(t, new(dns.Zone), filterSection("rspamd", addr, "3s", false), "")
	closed := newSite(t, new(dns.Zone), filterSection("rspamd", addr, "3s", true), "")
	for _, s := range []*site{open, closed} {
		if err := s.offer("hello"); err != nil {
			t.Fatal(err)
		}
		letter := s.awaitLetters(1)[0]
		for _, want := range []string{`(?m)^X-Spamd-Bar: `, `(?m)^X-Spam-Status: No, score=`, `(?m)^hello$`} {
			if !regexp.MustCompile(want).MatchString(letter) {
				t.Errorf("no %s in\n%s", want, letter)
			}
		}
		if err := s.offer(gtube); err == nil || !strings.Contains(err.Error(), "Gtube pattern") {
			t.Errorf("the test pattern: %v, want rspamd's refusal", err)
		}
	}
	if err := syscall.Kill(-group, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := open.offer("passes"); err != nil {
		t.Errorf("the filter hangs, fail_closed = false: %v", err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("%v until the message passed, want about the timeout of 3s", took)
	}
	letters := open.awaitLetters(2)
	letter := letters[slices.IndexFunc(letters, func(l string) bool { return strings.Contains(l, "passes") })]
	if strings.Contains(letter, "X-Spamd-Bar") ||
		!regexp.MustCompile(`(?s)X-Tallypost-Verdict:.*rspamd`).MatchString(letter) {
		t.Errorf("the verdict does not say that the filter was not asked:\n%s", letter)
	}
	err := closed.offer("waits")
	if err == nil || !strings.HasPrefix(err.Error(), "451") || !strings.Contains(err.Error(), "rspamd") {
		t.Errorf("the filter hangs, fail_closed = true: %v, want 451", err)
	}
	if err := syscall.Kill(-group, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// It is left alone for ten seconds after it failed.
	if !eventually(60*time.Second, func() bool { return closed.offer("hello again") == nil }) {
		t.Errorf("the filter goes on, but mail is still refused: %v", closed.offer("hello again"))
	}
}

// TestOpenDKIMAsFilter: OpenDKIM verifies what comes in and says so in a field.
func TestOpenDKIMAsFilter(t *testing.T) {
	opendkim := need(t, "opendkim")
	addr := freeAddr(t)
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "opendkim.conf")
	if err := os.WriteFile(conf, []byte("Mode v\nAlwaysAddARHeader yes\nAuthservID opendkim.test\n"+
		"TrustAnchorFile /dev/null\nNameservers 127.0.0.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(opendkim, "-f", "-x", conf, "-p", "inet:"+port+"@"+host)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if err := peer.Await(addr); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, new(dns.Zone), filterSection("opendkim", addr, "20s", true), "")
	if err := s.offer("hello"); err != nil {
		t.Fatal(err)
	}
	if letter := s.awaitLetters(1)[0]; !strings.Contains(letter, "Authentication-Results: opendkim.test; dkim=none") {
		t.Errorf("no result of OpenDKIM's in\n%s", letter)
	}
	cmd.Process.Kill()
	var refusal error
	if !eventually(30*time.Second, func() bool { refusal = s.offer("waits"); return refusal != nil }) ||
		!strings.HasPrefix(refusal.Error(), "451") {
		t.Errorf("nobody listens, fail_closed = true: %v, want 451", refusal)
	}
}
