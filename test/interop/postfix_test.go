package interop

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/mail/queue"
)

// TestNextHop submits mail to the node, which finds another server by MX, past one that is dead, hands over
// by STARTTLS, and can tell afterwards what the other said.
func TestNextHop(t *testing.T) {
	swaks := need(t, "swaks")
	forOthers(t, func(t *testing.T, start func(otherConfig) *other) {
		o := start(otherConfig{})
		s := startSite(t, siteConfig{zone: zoneOf(t, o), relay: portOf(t, o)})
		host, port := hostPort(t, s.submit)
		out, err := exec.Command(swaks, "--server", host, "--port", port, "--tls", "--auth", "PLAIN",
			"--auth-user", user, "--auth-password", s.password, "--from", user, "--to", "box@remote.test",
			"--header", "Message-Id: <hop@local.test>", "--body", "first\n.\n..third").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if !eventually(20*time.Second, func() bool { return len(o.letters()) > 0 }) {
			t.Fatalf("no letter at %s; the queue:\n%s", o.name, s.run("queue", "list"))
		}
		got := o.letters()[0]
		for _, want := range []string{"first\n.\n..third\n", "TLS", "by mx.local.test with ESMTPSA"} {
			if !strings.Contains(got, want) {
				t.Errorf("the letter lacks %q:\n%s", want, got)
			}
		}
		var r queue.Recipient
		eventually(5*time.Second, func() bool {
			trace := s.trace("<hop@local.test>")
			if len(trace) != 1 || len(trace[0].Recipients) != 1 {
				t.Fatalf("trace: %+v", trace)
			}
			r = trace[0].Recipients[0]
			return r.State == queue.StateDelivered
		})
		if r.State != queue.StateDelivered || r.Last == nil || r.Last.Peer == nil {
			t.Fatalf("trace: %+v", r)
		}
		if p := r.Last.Peer; p.Name != "mx.remote.test" || p.TLSVersion != "TLS 1.3" || p.CertSHA256 == "" {
			t.Errorf("peer: %+v", p)
		}
		words := map[string]string{"Postfix": "queued as", "Exim": "OK id="}[o.name]
		if !strings.Contains(r.Last.Reply, words) {
			t.Errorf("the words of %s are lost: %q", o.name, r.Last.Reply)
		}
	})
}

// TestPostfixUnderLoad has Postfix relay from many sessions at a time.
func TestPostfixUnderLoad(t *testing.T) {
	source := need(t, "smtp-source")
	s := startSite(t, siteConfig{})
	o := startPostfix(t, otherConfig{smarthost: s.smtp})
	const n = 50
	out, err := exec.Command(source, "-s", "10", "-m", fmt.Sprint(n), "-l", "20000", "-f", "ada@elsewhere.test",
		"-t", user, o.addr).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, l := range s.awaitLetters(n) {
		if !strings.Contains(l, "by postfix.test (Postfix)") || !strings.Contains(l, "with ESMTPS id") {
			t.Fatalf("not by way of Postfix, or not encrypted:\n%.800s", l)
		}
	}
	if !eventually(5*time.Second, func() bool { return strings.Count(o.log(), "status=sent (250 2.0.0 ") >= n }) {
		t.Errorf("Postfix did not log %d promises", n)
	}
}
