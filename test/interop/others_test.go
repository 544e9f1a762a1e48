package interop

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/test/peer"
)

// other is a running server that we did not write.
type other struct {
	name    string
	addr    string
	letters func() []string // that it has delivered for remote.test
	log     func() string
}

// otherConfig says what another server is to do. It keeps mail for remote.test in any case, offers TLS, and
// takes what it is sent on loopback for every destination.
type otherConfig struct {
	addr      string            // empty: a free one
	smarthost string            // takes all other mail, host and port
	noDSN     bool              // does not offer DSN (RFC 3461)
	noBDAT    bool              // neither offers nor uses CHUNKING (RFC 3030)
	gullible  bool              // takes line ends for what they are not, as far as it still can be told to
	refuses   string            // a recipient for whom it says 550
	defers    string            // one for whom it says 451
	main      map[string]string // further settings of Postfix
	user      string            // logs in at the smarthost, with TLS from the first octet on
	password  string
}

// extensionsSeen is how the log of another server shows that a client made use of its extensions. Postfix
// counts the commands of a session: BDAT, and more messages than greetings. Exim marks what came with
// pipelining by L (without by "L-"), with BDAT by K.
var extensionsSeen = map[string][]*regexp.Regexp{
	"Postfix": {regexp.MustCompile(`starttls=1 mail=([2-9]|\d\d).* bdat=`)},
	"Exim":    {regexp.MustCompile(`<= .* L\.? X=TLS1\.3:\S+ .* K `)},
}

// forOthers runs a test with each of the other servers, as a subtest beside the others.
func forOthers(t *testing.T, test func(t *testing.T, start func(otherConfig) *other)) {
	t.Helper()
	for _, o := range []struct {
		name  string
		start func(*testing.T, otherConfig) *other
	}{{"Postfix", startPostfix}, {"Exim", startExim}} {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			test(t, func(cfg otherConfig) *other { t.Helper(); return o.start(t, cfg) })
		})
	}
}

// What the other servers say to recipients that they do not want, as far as they let us choose.
const refusal, deferral = "nobody of that name", "come later"

func orNobody(address string) string {
	if address == "" {
		return "nobody@invalid"
	}
	return address
}

// openFolder returns a temporary folder that other users can reach: those of t.TempDir they can not.
func openFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tallypost-peer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func startPostfix(t *testing.T, cfg otherConfig) *other {
	t.Helper()
	boxes := openFolder(t)
	if err := os.Chmod(boxes, 0o777); err != nil {
		t.Fatal(err)
	}
	cert, key := certificate(t, "mx.remote.test")
	main := map[string]string{
		"virtual_mailbox_domains": "remote.test", "virtual_mailbox_maps": "static:box/",
		"virtual_mailbox_base": boxes, "virtual_uid_maps": "static:65534", "virtual_gid_maps": "static:65534",
		"virtual_minimum_uid": "1", "virtual_mailbox_limit": "0",
		"smtpd_tls_security_level": "may", "smtpd_tls_cert_file": cert, "smtpd_tls_key_file": key,
		"smtpd_tls_received_header": "yes", "smtp_tls_security_level": "may",
		"message_size_limit": "52428800", "mailbox_size_limit": "0",
		// Else lines of more than 998 octets are broken on their way out.
		"smtp_line_length_limit": "0",
		// Else a client waits a second for each refusal.
		"smtpd_error_sleep_time": "0",
		// Else 300 recipients come in transactions of 50.
		"default_destination_recipient_limit": "1000",
	}
	if cfg.smarthost != "" {
		host, port := hostPort(t, cfg.smarthost)
		main["relayhost"] = "[" + host + "]:" + port
	}
	if cfg.user != "" {
		main["smtp_sasl_auth_enable"], main["smtp_sasl_security_options"] = "yes", "noanonymous"
		main["smtp_sasl_password_maps"] = "static:" + cfg.user + ":" + cfg.password
		main["smtp_tls_wrappermode"], main["smtp_tls_security_level"] = "yes", "encrypt"
	}
	var discard []string
	if cfg.noDSN {
		discard = append(discard, "dsn")
	}
	if cfg.noBDAT {
		discard = append(discard, "chunking")
	}
	main["smtpd_discard_ehlo_keywords"] = strings.Join(discard, " ")
	if cfg.gullible {
		main["smtpd_forbid_bare_newline"], main["smtpd_forbid_unauth_pipelining"] = "no", "no"
	}
	main["smtpd_recipient_restrictions"] = fmt.Sprintf("check_recipient_access inline:{{%s=550 5.1.1 %s},"+
		"{%s=451 4.2.1 %s}}, permit_mynetworks, reject", orNobody(cfg.refuses), refusal, orNobody(cfg.defers), deferral)
	for k, v := range cfg.main {
		main[k] = v
	}
	p := newPostfix(t, cfg.addr, main)
	return &other{name: "Postfix", addr: p.Addr, log: p.Log,
		letters: func() []string { return readMaildir(t, filepath.Join(boxes, "box")) }}
}

// newPostfix starts a Postfix of the test's own.
func newPostfix(t *testing.T, addr string, main map[string]string) *peer.Postfix {
	t.Helper()
	if addr == "" {
		addr = freeAddr(t)
	}
	p, err := peer.StartPostfix(peer.PostfixConfig{Dir: openFolder(t), Addr: addr, Main: main})
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
			t.Logf("Postfix's log:\n%s", tail(p.Log(), 20_000))
		}
	})
	return p
}

func startExim(t *testing.T, cfg otherConfig) *other {
	t.Helper()
	cert, key := certificate(t, "mx.remote.test")
	for _, f := range []string{filepath.Dir(cert), cert, key} {
		if err := os.Chmod(f, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := peer.EximConfig{Dir: openFolder(t), Addr: cfg.addr, Cert: cert, Key: key,
		MailDomains: []string{"remote.test"}, Smarthost: cfg.smarthost,
		// Else a message with a longer line is returned.
		Transport: []string{"message_linelength_limit = 10000000", "max_rcpt = 1000"},
		User:      cfg.user, Password: cfg.password, NoDSN: cfg.noDSN}
	if c.Addr == "" {
		c.Addr = freeAddr(t)
	}
	if cfg.noBDAT {
		c.Main = append(c.Main, "chunking_advertise_hosts =")
		c.Transport = append(c.Transport, "hosts_try_chunking =")
	}
	if cfg.gullible {
		c.Main = append(c.Main, "smtp_enforce_sync = false")
	}
	if cfg.refuses != "" {
		c.RCPT = append(c.RCPT, "deny recipients = "+cfg.refuses+"\n       message = "+refusal)
	}
	if cfg.defers != "" {
		c.RCPT = append(c.RCPT, "defer recipients = "+cfg.defers+"\n       message = "+deferral)
	}
	if cfg.user != "" {
		c.Transport = append(c.Transport, "protocol = smtps")
	}
	e, err := peer.StartExim(c)
	if errors.Is(err, peer.ErrAbsent) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("Exim's log:\n%s", tail(e.Log(), 20_000))
		}
	})
	return &other{name: "Exim", addr: e.Addr, log: e.Log,
		letters: func() []string { return readMaildir(t, e.Boxes()) }}
}

// certificate writes a certificate signed by itself.
func certificate(t *testing.T, name string) (cert, key string) {
	t.Helper()
	dir := openFolder(t)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	cmd := exec.Command(need(t, "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt",
		"ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN="+name, "-addext",
		"subjectAltName=DNS:"+name, "-keyout", key, "-out", cert)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return cert, key
}
