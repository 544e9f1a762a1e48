package reporting

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/dmarc"
	"github.com/tallypost/tallypost/mail/tlspolicy"
)

func TestDMARCReportIsSent(t *testing.T) {
	r := newRig(t)
	r.zone.Set("_dmarc.them.example", "TXT v=DMARC1; p=reject; rua=mailto:agg@them.example")
	r.zone.Set("_dmarc.silent.example", "TXT v=DMARC1; p=reject")
	r.see("them.example", 3)
	r.see("silent.example", 1)
	r.step()
	r.expectPending(0) // the day is not over
	r.nextDay()
	r.expectPending(0)
	got := r.expectLetters(1)[0]
	if !got.env.From.IsNull() || len(got.env.Recipients) != 1 ||
		got.env.Recipients[0] != (mail.Recipient{Address: address("agg@them.example"), Notify: mail.NotifyNever}) {
		t.Errorf("envelope %+v", got.env)
	}
	h := r.verify(got.text)
	if from := h.Get("From"); from != "<postmaster@us.example>" {
		t.Errorf("From: %s", from)
	}
	report, err := dmarc.ReadMail(got.text)
	if err != nil {
		t.Fatal(err)
	}
	m := report.Metadata
	if report.Published.Domain != "them.example" || len(report.Rows) != 1 || report.Rows[0].Count != 3 ||
		m.Org != "us.example" || m.Email != "postmaster@us.example" || m.Generator != "tallypost test" ||
		!m.Range.Begin.Equal(start) || !m.Range.End.Equal(time.Date(2026, 11, 22, 23, 59, 59, 0, time.UTC)) {
		t.Errorf("report %+v", report)
	}
}

// TestOnlyToWhoAgrees: RFC 9990, section 4.
func TestOnlyToWhoAgrees(t *testing.T) {
	r := newRig(t)
	r.zone.Set("_dmarc.them.example",
		"TXT v=DMARC1; p=none; rua=mailto:a@victim.example,mailto:b@agreed.example,mailto:c@them.example")
	r.zone.Set("them.example._report._dmarc.agreed.example", "TXT v=DMARC1")
	r.see("them.example", 1)
	r.nextDay()
	r.expectPending(0)
	var to []string
	for _, l := range r.expectLetters(2) {
		to = append(to, l.env.Recipients[0].Address.String())
	}
	if got := strings.Join(to, " "); got != "b@agreed.example c@them.example" &&
		got != "c@them.example b@agreed.example" {
		t.Errorf("sent to %s", got)
	}
}

func TestReportsWaitForSignature(t *testing.T) {
	r := newRig(t)
	signer := r.signer
	r.signer = nil
	r.zone.Set("_dmarc.them.example", "TXT v=DMARC1; p=none; rua=mailto:c@them.example")
	r.see("them.example", 1)
	r.nextDay()
	r.expectPending(1)
	r.expectLetters(0)
	r.signer = signer
	r.clock.Advance(retryEvery)
	r.step()
	r.expectPending(0)
	r.expectLetters(1)
}

// TestTemporaryFailure: places that have the report do not get it again, and after a day the
// others never do.
func TestTemporaryFailure(t *testing.T) {
	r := newRig(t)
	r.zone.Set("_dmarc.them.example", "TXT v=DMARC1; p=none; rua=mailto:a@slow.example,mailto:c@them.example")
	r.zone.Fail("them.example._report._dmarc.slow.example", dns.ServFail)
	r.see("them.example", 1)
	r.nextDay()
	r.expectPending(1)
	r.expectLetters(1)
	r.clock.Advance(retryEvery)
	r.step()
	r.expectPending(1)
	r.expectLetters(1)
	r.zone.Fail("them.example._report._dmarc.slow.example", dns.Works)
	r.zone.Set("them.example._report._dmarc.slow.example", "TXT v=DMARC1")
	r.clock.Advance(retryEvery)
	r.step()
	r.expectPending(0)
	r.expectLetters(2)

	r.zone.Fail("them.example._report._dmarc.slow.example", dns.ServFail)
	r.see("them.example", 1)
	r.nextDay()
	for range 26 {
		r.clock.Advance(retryEvery)
		r.sendDue(t.Context(), r.clock.Now(), r.queue)
	}
	r.expectPending(0)
	r.expectLetters(3)
}

func TestCountsSurviveRestart(t *testing.T) {
	r := newRig(t)
	r.zone.Set("_dmarc.them.example", "TXT v=DMARC1; p=none; rua=mailto:c@them.example")
	r.zone.Set("_dmarc.others.example", "TXT v=DMARC1; p=none; rua=mailto:c@others.example")
	restart := func() {
		t.Helper()
		if err := r.save(); err != nil {
			t.Fatal(err)
		}
		r.open()
	}
	r.see("them.example", 2)
	restart()
	r.see("them.example", 1)
	r.clock.Set(midnight(r.clock.Now()))
	r.cut(r.clock.Now())
	r.expectPending(1)
	r.see("others.example", 1)
	restart() // with a report pending, and the next day begun
	r.expectPending(1)
	r.clock.Advance(r.Sender.cfg.Spread)
	r.step()
	report, err := dmarc.ReadMail(r.expectLetters(1)[0].text)
	if err != nil {
		t.Fatal(err)
	}
	if report.Published.Domain != "them.example" || report.Rows[0].Count != 3 {
		t.Errorf("report %+v", report)
	}
	restart()
	// The node was down for days: the counts are those of their day.
	r.clock.Advance(72 * time.Hour)
	r.step()
	r.clock.Advance(r.Sender.cfg.Spread)
	r.step()
	if report, err = dmarc.ReadMail(r.expectLetters(2)[1].text); err != nil {
		t.Fatal(err)
	}
	end := time.Date(2026, 11, 23, 23, 59, 59, 0, time.UTC)
	if report.Published.Domain != "others.example" || !report.Metadata.Range.End.Equal(end) {
		t.Errorf("%s until %v", report.Published.Domain, report.Metadata.Range.End)
	}
}

func TestFileThatCannotBeRead(t *testing.T) {
	r := newRig(t)
	for _, content := range []string{"{", `{"version":7}`, `{"version":1,"dmarc":{"Version":5},"tls":{}}`} {
		if err := os.WriteFile(r.path(), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := NewSender(r.cfg, r.zone, r.clock, r.log); err == nil || !strings.Contains(err.Error(), r.path()) {
			t.Errorf("%s: %v, want an error that names the file", content, err)
		}
	}
}

// connect counts a connection to a domain without policies.
func (r *rig) connect(domain mail.Domain, failure *tlspolicy.Failure) {
	r.t.Helper()
	d := tlspolicy.New(tlspolicy.Config{Resolver: r.zone}).Decide(r.t.Context(),
		tlspolicy.Query{Domain: domain, Host: "mx." + string(domain)})
	r.Connected(&tlspolicy.Session{Decision: d, Failure: failure, ReceivingHost: "mx." + string(domain),
		ReceivingIP: netip.MustParseAddr("192.0.2.9")})
}

func TestTLSReportByMail(t *testing.T) {
	r := newRig(t)
	r.zone.Set("_smtp._tls.them.example", "TXT v=TLSRPTv1; rua=mailto:tls@reports.example")
	r.connect("them.example", nil)
	r.connect("them.example", &tlspolicy.Failure{Type: tlspolicy.StartTLSNotSupported, Err: errors.New("none")})
	r.connect("nobody.example", nil)
	r.clock.Set(midnight(r.clock.Now()))
	r.cut(r.clock.Now())
	if err := r.save(); err != nil {
		t.Fatal(err)
	}
	r.open() // a restart between midnight and sending
	r.clock.Advance(r.Sender.cfg.Spread)
	r.step()
	r.expectPending(0)
	got := r.expectLetters(1)[0]
	if to := got.env.Recipients[0].Address.String(); to != "tls@reports.example" {
		t.Errorf("to %s", to)
	}
	h := r.verify(got.text)
	if !strings.HasPrefix(h.Get("Subject"), "Report Domain: them.example ") || h.Get("TLS-Report-Domain") != "them.example" || h.Get("TLS-Report-Submitter") != "us.example" {
		t.Errorf("header:\n%s", got.text[:h.Len])
	}
	report, err := tlspolicy.ReadMail(got.text)
	if err != nil {
		t.Fatal(err)
	}
	p := report.Policies[0]
	if p.Summary != (tlspolicy.Summary{Successful: 1, Failed: 1}) || report.Organization != "us.example" {
		t.Errorf("report %+v", report)
	}
}

func TestTLSReportByHTTPS(t *testing.T) {
	r := newRig(t)
	var bodies []string
	status := http.StatusServiceUnavailable
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		z, err := gzip.NewReader(req.Body)
		if err == nil {
			b, _ := io.ReadAll(z)
			bodies = append(bodies, string(b))
		}
		w.WriteHeader(status)
	}))
	defer srv.Close()
	r.cfg.Client = srv.Client()
	r.open()
	r.zone.Set("_smtp._tls.them.example", "TXT v=TLSRPTv1; rua="+srv.URL+"/v1")
	r.connect("them.example", nil)
	r.nextDay()
	r.expectPending(1)
	status = http.StatusCreated
	r.clock.Advance(retryEvery)
	r.step()
	r.expectPending(0)
	if len(bodies) != 2 || !strings.Contains(bodies[1], `"policy-domain": "them.example"`) {
		t.Errorf("posted %q", bodies)
	}
}

// TestPostGoesToPublicAddressesOnly: a record of a stranger's must not reach what is behind our
// firewall.
func TestPostGoesToPublicAddressesOnly(t *testing.T) {
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	defer srv.Close()
	zone := new(dns.Zone)
	zone.Set("inside.example", "A 127.0.0.1")
	client := PublicClient(zone)
	client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(srv.URL, "https://"))
	for _, host := range []string{"127.0.0.1", "inside.example", "[::ffff:127.0.0.1]"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+host+":"+port, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "is not a public address") {
			t.Errorf("%s: %v", host, err)
		}
	}
	for ip, want := range map[string]bool{"192.0.2.1": true, "10.1.2.3": false, "169.254.169.254": false,
		"100.64.0.1": false, "::1": false, "fd00::1": false, "fe80::1": false, "2001:db8::1": true, "0.0.0.0": false,
		"224.0.0.1": false, "172.16.0.1": false} {
		if got := public(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s is public: %v, want %v", ip, got, want)
		}
	}
}

func TestSwitchedOff(t *testing.T) {
	r := newRig(t)
	r.cfg.DMARC, r.cfg.TLS = false, false
	r.open()
	r.zone.Set("_dmarc.them.example", "TXT v=DMARC1; p=none; rua=mailto:c@them.example")
	r.zone.Set("_smtp._tls.them.example", "TXT v=TLSRPTv1; rua=mailto:tls@them.example")
	r.see("them.example", 1)
	r.connect("them.example", nil)
	r.nextDay()
	r.expectPending(0)
	r.expectLetters(0)
}

// TestRun: the whole of a night by the clock.
func TestRun(t *testing.T) {
	r := newRig(t)
	r.zone.Set("_dmarc.them.example", "TXT v=DMARC1; p=none; rua=mailto:c@them.example")
	r.see("them.example", 1)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, r.queue) }()
	for r.clock.Now().Before(start.Add(14 * time.Hour)) {
		if err := r.clock.Wait(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		next, _ := r.clock.Next()
		r.clock.Set(next)
	}
	r.expectLetters(1)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	r.open()
	r.expectPending(0)
}

func address(s string) mail.Address {
	a, err := mail.ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}
