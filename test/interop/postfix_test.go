package interop

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail/queue"
)

// mailboxPostfix is a Postfix that delivers mail for remote.test into a Maildir of its own.
func mailboxPostfix(t *testing.T) (addr string, letters func() []string) {
	boxes, err := os.MkdirTemp("", "tallypost-boxes-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(boxes) })
	if err := os.Chmod(boxes, 0o777); err != nil {
		t.Fatal(err)
	}
	cert, key := certificate(t, "mx.remote.test")
	p := newPostfix(t, map[string]string{
		"virtual_mailbox_domains": "remote.test", "virtual_mailbox_maps": "static:box/", "virtual_mailbox_base": boxes,
		"virtual_uid_maps": "static:65534", "virtual_gid_maps": "static:65534", "virtual_minimum_uid": "1",
		"smtpd_tls_security_level": "may", "smtpd_tls_cert_file": cert, "smtpd_tls_key_file": key,
		"smtpd_tls_received_header": "yes", "message_size_limit": "52428800", "mailbox_size_limit": "0", "virtual_mailbox_limit": "0",
	})
	return p.Addr, func() []string {
		files, err := filepath.Glob(filepath.Join(boxes, "box/new/*"))
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
}

// certificate writes a certificate signed by itself, for Postfix.
func certificate(t *testing.T, name string) (cert, key string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "tallypost-cert-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	cmd := exec.Command(need(t, "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
		"-subj", "/CN="+name, "-addext", "subjectAltName=DNS:"+name, "-keyout", key, "-out", cert)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return cert, key
}

// TestPostfixAsNextHop submits mail to the node, which finds Postfix by MX, past one that is dead, and
// hands over by STARTTLS.
func TestPostfixAsNextHop(t *testing.T) {
	addr, letters := mailboxPostfix(t)
	host, port, _ := net.SplitHostPort(addr)
	zone := dns.MustZone(map[string][]string{
		"remote.test":      {"MX 10 dead.remote.test.", "MX 20 mx.remote.test."},
		"dead.remote.test": {"A 127.0.0.77"},
		"mx.remote.test":   {"A " + host},
	})
	s := newSite(t, zone, "port = "+port, "")
	submitHost, submitPort, _ := net.SplitHostPort(s.submit)
	out, err := exec.Command(need(t, "swaks"), "--server", submitHost, "--port", submitPort, "--tls", "--auth", "PLAIN",
		"--auth-user", user, "--auth-password", s.password, "--from", user, "--to", "box@remote.test",
		"--header", "Message-Id: <hop@local.test>", "--body", "first\n.\n..third").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got []string
	for range 400 {
		if got = letters(); len(got) > 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if len(got) != 1 {
		t.Fatalf("%d letters at Postfix; the queue:\n%s", len(got), s.run("queue", "list"))
	}
	for _, want := range []string{"first\n.\n..third\n", "using TLSv1.3", "by mx.local.test with ESMTPSA"} {
		if !strings.Contains(got[0], want) {
			t.Errorf("the letter lacks %q:\n%s", want, got[0])
		}
	}
	trace := s.trace("<hop@local.test>")
	if len(trace) != 1 || len(trace[0].Recipients) != 1 {
		t.Fatalf("trace: %+v", trace)
	}
	r := trace[0].Recipients[0]
	if r.State != queue.StateDelivered || r.Last == nil || r.Last.Peer == nil {
		t.Fatalf("trace: %+v", r)
	}
	if p := r.Last.Peer; p.Name != "mx.remote.test" || p.TLSVersion != "TLS 1.3" || p.CertSHA256 == "" {
		t.Errorf("peer: %+v", p)
	}
	if !strings.Contains(r.Last.Reply, "queued as") {
		t.Errorf("Postfix's words are lost: %q", r.Last.Reply)
	}
}

// TestPostfixAsSender has Postfix relay everything to the node.
func TestPostfixAsSender(t *testing.T) {
	s := newSite(t, new(dns.Zone), "", "")
	host, port, _ := net.SplitHostPort(s.smtp)
	p := newPostfix(t, map[string]string{"relayhost": fmt.Sprintf("[%s]:%s", host, port),
		"smtp_tls_security_level": "may", "message_size_limit": "52428800"})
	source := need(t, "smtp-source")
	const n = 50
	out, err := exec.Command(source, "-s", "10", "-m", fmt.Sprint(n), "-l", "20000", "-f", "ada@elsewhere.test",
		"-t", user, p.Addr).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, l := range s.awaitLetters(n) {
		if !strings.Contains(l, "by postfix.test (Postfix)") || !strings.Contains(l, "with ESMTPS id") {
			t.Fatalf("not by way of Postfix, or not encrypted:\n%.800s", l)
		}
	}
	if log := p.Log(); strings.Count(log, "status=sent (250 2.0.0 ") < n {
		t.Errorf("Postfix did not log %d promises:\n%s", n, log)
	}
}
