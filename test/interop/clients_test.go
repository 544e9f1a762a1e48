package interop

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
)

// promise is the reply to a message that was accepted.
var promise = regexp.MustCompile(`250 2\.0\.0 ([0-9A-Z]{13}) queued log=mx\.local\.test/tlog#(\d+)`)

func TestSwaks(t *testing.T) {
	swaks := need(t, "swaks")
	s := newSite(t, new(dns.Zone), "", "")
	host, port, _ := net.SplitHostPort(s.submit)
	_, tlsPort, _ := net.SplitHostPort(s.tls)
	_, mxPort, _ := net.SplitHostPort(s.smtp)
	n := 0
	for _, c := range []struct {
		name string
		args []string
	}{
		{"another server", []string{"--port", mxPort, "--from", "ada@elsewhere.test"}},
		{"another server, STARTTLS", []string{"--port", mxPort, "--from", "ada@elsewhere.test", "--tls"}},
		{"null reverse path", []string{"--port", mxPort, "--from", "<>", "--tls"}},
		{"another server, pipelining", []string{"--port", mxPort, "--from", "ada@elsewhere.test", "--pipeline"}},
		{"submission, PLAIN", []string{"--port", port, "--from", user, "--tls", "--auth", "PLAIN",
			"--auth-user", user, "--auth-password", s.password}},
		{"submission, LOGIN", []string{"--port", port, "--from", user, "--tls", "--auth", "LOGIN",
			"--auth-user", user, "--auth-password", s.password}},
		{"submission, TLS from the start", []string{"--port", tlsPort, "--from", user, "--tls-on-connect",
			"--auth", "PLAIN", "--auth-user", user, "--auth-password", s.password}},
	} {
		n++
		args := append([]string{"--server", host, "--to", user, "--body", fmt.Sprintf("body %d\n.dot", n)}, c.args...)
		out, err := exec.Command(swaks, args...).CombinedOutput()
		if err != nil || !promise.Match(out) {
			t.Errorf("%s: %v\n%s", c.name, err, out)
		}
	}
	all := strings.Join(s.awaitLetters(n), "\n----\n")
	for i := 1; i <= n; i++ {
		if !strings.Contains(all, fmt.Sprintf("body %d\n.dot\n", i)) {
			t.Errorf("message %d did not arrive whole", i)
		}
	}
	for name, args := range map[string][]string{
		"relay for strangers":       {"--port", mxPort, "--from", "a@b.test", "--to", "x@elsewhere.test"},
		"unknown mailbox":           {"--port", mxPort, "--from", "a@b.test", "--to", "nobody@local.test"},
		"submission without log-in": {"--port", port, "--from", user, "--to", user, "--tls"},
		"submission without TLS":    {"--port", port, "--from", user, "--to", user, "--auth", "PLAIN", "--auth-user", user, "--auth-password", s.password},
		"wrong password":            {"--port", port, "--from", user, "--to", user, "--tls", "--auth", "PLAIN", "--auth-user", user, "--auth-password", "no"},
		"somebody else's address": {"--port", port, "--from", "other@local.test", "--to", user, "--tls",
			"--auth", "PLAIN", "--auth-user", user, "--auth-password", s.password},
	} {
		if out, err := exec.Command(swaks, append([]string{"--server", host}, args...)...).CombinedOutput(); err == nil {
			t.Errorf("%s: accepted\n%s", name, out)
		}
	}
}

// smtplibScript sends what the command line says, with Python's own client.
const smtplibScript = `
import smtplib, ssl, sys
from email.message import EmailMessage
host, port, user, password = sys.argv[1:5]
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
m = EmailMessage()
m["From"], m["To"], m["Subject"] = user, user, "Grüße aus Python"
m.set_content("Zeile eins\n.\n.Zeile mit Punkt\n" + "lang " * 2000 + "\n")
m.add_attachment(bytes(range(256)) * 400, maintype="application", subtype="octet-stream", filename="bytes.bin")
with smtplib.SMTP(host, int(port)) as s:
    s.ehlo()
    assert s.has_extn("starttls") and s.has_extn("pipelining") and s.has_extn("smtputf8"), s.esmtp_features
    s.starttls(context=context)
    s.ehlo()
    assert "PLAIN" in s.esmtp_features["auth"], s.esmtp_features
    s.login(user, password)
    assert s.send_message(m) == {}
    s.rset()
    code, text = s.docmd("NOOP")
    assert code == 250, (code, text)
    code, text = s.docmd("NONSENSE")
    assert code == 500, (code, text)
    assert s.send_message(m) == {}
`

func TestSmtplib(t *testing.T) {
	python := need(t, "python3")
	s := newSite(t, new(dns.Zone), "", "")
	script := filepath.Join(s.dir, "send.py")
	if err := os.WriteFile(script, []byte(smtplibScript), 0o644); err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(s.submit)
	if out, err := exec.Command(python, script, host, port, user, s.password).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, l := range s.awaitLetters(2) {
		for _, want := range []string{"\n.\n", "\n.Zeile mit Punkt\n", "bytes.bin", "Return-Path: <" + user + ">\n",
			"with ESMTPSA id "} {
			if !strings.Contains(l, want) {
				t.Errorf("the letter lacks %q", want)
			}
		}
	}
}

func TestOpenSSLClient(t *testing.T) {
	openssl := need(t, "openssl")
	s := newSite(t, new(dns.Zone), "", "")
	for _, c := range []struct{ name, addr, version string }{
		{"TLS 1.3 by STARTTLS", s.smtp, "-tls1_3"},
		{"TLS 1.2 by STARTTLS", s.smtp, "-tls1_2"},
		{"TLS from the start", s.tls, ""},
	} {
		args := []string{"s_client", "-quiet", "-crlf", "-connect", c.addr}
		if c.version != "" {
			args = append(args, "-starttls", "smtp", c.version)
		}
		cmd := exec.Command(openssl, args...)
		// Whoever does not wait for the reply to EHLO is refused, so the lines are typed one by one.
		typed, keys := io.Pipe()
		cmd.Stdin = typed
		go func() {
			defer keys.Close()
			for _, line := range []string{"EHLO client.test\n", "QUIT\n"} {
				time.Sleep(500 * time.Millisecond)
				io.WriteString(keys, line)
			}
		}()
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "221 2.0.0") {
			t.Errorf("%s: %v\n%s", c.name, err, out)
		}
	}
}
