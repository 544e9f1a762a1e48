package dsn

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/vectors"
	"github.com/tallypost/tallypost/mail"
)

// TestReadsOwnReports: what Build says, Parse understands.
func TestReadsOwnReports(t *testing.T) {
	r := report(t)
	r.Recipients[0].Status = "5.2.2"
	r.Recipients = append(r.Recipients, Recipient{
		Recipient: mail.Recipient{Address: addr(t, "δοκιμή@example.net"), ORcpt: "utf-8;δ@example.net"},
		Action:    Delayed, Status: "4.4.1", Reply: "no answer for 4 h", RetryUntil: arrived.Add(100 * time.Hour),
	})
	for _, global := range []bool{false, true} {
		r.Envelope.SMTPUTF8 = global
		_, msg, err := r.Build()
		if err != nil {
			t.Fatal(err)
		}
		n, err := Parse(msg)
		if err != nil {
			t.Fatal(err)
		}
		if n.Kind != Status || n.EnvID != "QQ314159" || n.ReportingMTA != "mx.example.org" ||
			!n.Arrived.Equal(arrived) || n.MessageID() != "<abc.1@example.org>" ||
			!strings.Contains(n.Text, "The recipient's mailbox is full.") {
			t.Errorf("read %+v", n)
		}
		want := []Outcome{
			{Original: "Ben@example.net", Final: "ben@example.net", Action: Failed, Status: "5.2.2",
				Remote: "mx.example.net", LastAttempt: arrived.Add(time.Hour),
				Diagnostic: "550-5.1.1 no such user here 550 5.1.1 see https://example.net/help"},
			{Original: "δ@example.net", Final: "δοκιμή@example.net", Action: Delayed, Status: "4.4.1",
				Diagnostic: "no answer for 4 h", RetryUntil: arrived.Add(100 * time.Hour)},
		}
		if len(n.Recipients) != len(want) {
			t.Fatalf("%d recipients, want %d", len(n.Recipients), len(want))
		}
		for i, got := range n.Recipients {
			if !got.LastAttempt.Equal(want[i].LastAttempt) || !got.RetryUntil.Equal(want[i].RetryUntil) {
				t.Errorf("times of %+v", got)
			}
			got.LastAttempt, got.RetryUntil = want[i].LastAttempt, want[i].RetryUntil
			if got != want[i] {
				t.Errorf("recipient %+v\nwant      %+v", got, want[i])
			}
		}
	}
}

// wrap puts fields into the status part of a report.
func wrap(status string) string {
	return "From: mailer-daemon@x\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\n\n" +
		"--b\n\nsorry\n--b\nContent-Type: message/delivery-status\n\n" + status + "\n--b--\n"
}

// TestStatusPart: RFC 3464, section 2, and the ways servers stray from it.
func TestStatusPart(t *testing.T) {
	for _, c := range []struct{ name, status, want string }{
		{"plain", "Reporting-MTA: dns; a\n\nFinal-Recipient: rfc822;u@x\nAction: failed\nStatus: 5.1.1\n",
			"u@x failed 5.1.1"},
		{"two", "Reporting-MTA: dns; a\n\nFinal-Recipient: rfc822;u@x\nAction: failed\nStatus: 5.1.1\n\n" +
			"Final-Recipient: rfc822;v@x\nAction: delayed\nStatus: 4.2.2\n", "u@x failed 5.1.1, v@x delayed 4.2.2"},
		{"original after final", "Final-Recipient: rfc822;u@x\nOriginal-Recipient: rfc822;o@x\nAction: failed\n" +
			"Status: 5.1.1\n", "u@x failed 5.1.1"},
		{"address last", "Action: failed\nStatus: 5.1.1\nFinal-Recipient: rfc822;u@x\n\n" +
			"Action: failed\nStatus: 5.2.2\nFinal-Recipient: rfc822;v@x\n", "u@x failed 5.1.1, v@x failed 5.2.2"},
		{"empty line inside", "Final-Recipient: rfc822;u@x\nAction: failed\n\nStatus: 5.1.1\n", "u@x failed 5.1.1"},
		{"no empty line between", "Reporting-MTA: dns; a\nFinal-Recipient: rfc822;u@x\nAction: failed\nStatus: 5.1.1\n" +
			"Final-Recipient: rfc822;v@x\nAction: failed\nStatus: 5.1.2\n", "u@x failed 5.1.1, v@x failed 5.1.2"},
		{"no type", "Final-Recipient: u@x\nAction: failed\nStatus: 5.1.1\n", "u@x failed 5.1.1"},
		{"brackets and comments", "Final-Recipient: RFC822; <u@x> (U)\nAction: failed (bad luck)\n" +
			"Status: 5.1.1 (no such user)\n", "u@x failed 5.1.1"},
		{"only original", "Original-Recipient: rfc822;o@x\nAction: failed\nStatus: 5.1.1\n", "o@x failed 5.1.1"},
		{"code only in the words", "Final-Recipient: rfc822;u@x\nAction: failed\nDiagnostic-Code: smtp; 550 5.7.1 no\n",
			"u@x failed 5.7.1 guessed"},
		{"better code in the words", "Final-Recipient: rfc822;u@x\nAction: failed\nStatus: 5.0.0\n" +
			"Diagnostic-Code: smtp; 552 mailbox full\n", "u@x failed 5.2.2 guessed"},
		{"the code of another class does not count", "Final-Recipient: rfc822;u@x\nAction: failed\nStatus: 5.0.0\n" +
			"Diagnostic-Code: smtp; 450 4.2.2 full\n", "u@x failed 5.0.0"},
		{"no action", "Final-Recipient: rfc822;u@x\nStatus: 2.1.5\n", "u@x delivered 2.1.5 guessed"},
		{"nothing but a name", "Final-Recipient: rfc822;u@x\n", "u@x failed 5.0.0 guessed"},
		{"line that is no field", "rubbish\nFinal-Recipient: rfc822;u@x\nmore\nAction: failed\nStatus: 5.1.1\n",
			"u@x failed 5.1.1"},
		{"escaped UTF-8 (RFC 6533)", "Final-Recipient: utf-8; \\x{3B4}@x\nAction: failed\nStatus: 5.1.1\n",
			"δ@x failed 5.1.1"},
		{"version is no code", "Final-Recipient: rfc822;u@x\nAction: failed\nDiagnostic-Code: x; host 5.1.1.7 mta 4.2.10.1\n",
			"u@x failed 5.0.0 guessed"},
	} {
		n, err := Parse([]byte(wrap(c.status)))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var got []string
		for _, o := range n.Recipients {
			s := o.Final + " " + string(o.Action) + " " + o.Status
			if o.Guessed {
				s += " guessed"
			}
			got = append(got, s)
		}
		if n.Kind != Status || strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %s %q, want %q", c.name, n.Kind, got, c.want)
		}
	}
}

// TestNotReports: mail between people is no report, whatever it talks about.
func TestNotReports(t *testing.T) {
	for _, msg := range []string{
		"", "\r\n", "no header at all",
		"From: Ann <ann@example.org>\nTo: b@example.org\nSubject: Fwd: Undelivered Mail\n\n" +
			"> <c@example.org>: 550 5.1.1 unknown\n",
		"From: Ann <ann@example.org>\nSubject: hello\n\nNothing failed. Write to c@example.org\n",
		"From: MAILER-DAEMON@x\nSubject: greetings\n\nAll is well with c@example.org.\n",
	} {
		if n, err := Parse([]byte(msg)); !errors.Is(err, ErrNotReport) {
			t.Errorf("%q: %s, %v, want ErrNotReport", msg, n.Kind, err)
		}
	}
	n, err := Parse([]byte("From: a@x\nAuto-Submitted: auto-replied\nSubject: Away\n\nBack on Monday\n"))
	if err != nil || n.Kind != Reply {
		t.Errorf("an automatic reply: %v, %v", n.Kind, err)
	}
}

// TestBudgets: a hostile report costs no more than its size.
func TestBudgets(t *testing.T) {
	var b strings.Builder
	for range 3000 {
		b.WriteString("Final-Recipient: rfc822;u@x\nAction: failed\nStatus: 5.1.1\n\n")
	}
	if n, err := Parse([]byte(wrap(b.String()))); err != nil || len(n.Recipients) != maxRecipients {
		t.Errorf("%d recipients, %v", len(n.Recipients), err)
	}
	deep := "From: postmaster\nContent-Type: multipart/mixed; boundary=b\n\n"
	deep += strings.Repeat("--b\nContent-Type: multipart/mixed; boundary=b\n\n", 20000)
	start := time.Now()
	Parse([]byte(deep))
	if d := time.Since(start); d > 30*time.Second {
		t.Errorf("%v for nested parts", d)
	}
}

// notRead are the files of the sisimai set that Parse does not take for reports, with the reason.
var notRead = map[string]string{
	"not/is-not-bounce-01.eml":   "mail between people",
	"not/is-not-bounce-02.eml":   "mail between people",
	"bsd/lhost-sendmail-14.eml":  "a bounce that a person forwarded",
	"err/make-test-36.eml":       "a bounce that a person forwarded",
	"bsd/lhost-fml-02.eml":       "a mailing list answers a stranger",
	"bsd/lhost-fml-03.eml":       "a mailing list answers a stranger",
	"bsd/lhost-amazonses-09.eml": "JSON of Amazon SNS, not mail to a sender",
	"bsd/lhost-amazonses-10.eml": "JSON of Amazon SNS, not mail to a sender",
	"bsd/lhost-amazonses-11.eml": "JSON of Amazon SNS, not mail to a sender",
	"bsd/lhost-amazonses-12.eml": "JSON of Amazon SNS, not mail to a sender",
	"bsd/lhost-amazonses-13.eml": "JSON of Amazon SNS, not mail to a sender",
	"bsd/lhost-kddi-01.eml":      "Japanese words from no-reply@, no address, no code",
	"bsd/lhost-kddi-02.eml":      "Japanese words from no-reply@, no address, no code",
	"bsd/lhost-kddi-03.eml":      "Japanese words from no-reply@, no address, no code",
	"dos/lhost-kddi-01.eml":      "Japanese words from no-reply@, no address, no code",
	"mac/lhost-kddi-01.eml":      "Japanese words from no-reply@, no address, no code",
}

// TestBouncesOfTheWorld reads the 832 bounces of about a hundred kinds of servers.
func TestBouncesOfTheWorld(t *testing.T) {
	var total, kinds, fully, general = 0, map[Kind]int{}, 0, 0
	eachBounce(t, func(name string, msg []byte) {
		total++
		n, err := Parse(msg)
		if reason, ok := notRead[name]; ok != (err != nil) {
			t.Errorf("%s: %v; the list of exceptions has %q", name, err, reason)
		}
		if err != nil {
			return
		}
		kinds[n.Kind]++
		if n.Kind == Abuse || n.Kind == Reply {
			return
		}
		whole := len(n.Recipients) > 0
		for _, o := range n.Recipients {
			if o.Final == "" || o.Action == "" || !validStatus(o.Status) {
				t.Errorf("%s: %+v", name, o)
			}
			if strings.HasSuffix(o.Status, ".0.0") {
				whole = false
			}
		}
		if whole {
			fully++
		} else {
			general++
		}
	})
	t.Logf("%d mails: %d by RFC 3464, %d without rule, %d abuse reports, %d automatic replies, %d not read; "+
		"%d with recipient, action and a specific code, %d with a general code",
		total, kinds[Status], kinds[Bounce], kinds[Abuse], kinds[Reply], len(notRead), fully, general)
	if total != 832 || fully < 690 || kinds[Abuse] != 18 {
		t.Errorf("worse than it was: %d mails, %d fully, %v", total, fully, kinds)
	}
}

func eachBounce(t testing.TB, f func(name string, msg []byte)) {
	t.Helper()
	gz, err := gzip.NewReader(bytes.NewReader(vectors.Read(t, "mail/bounce/sisimai-set-of-emails.tar.gz")))
	if err != nil {
		t.Fatal(err)
	}
	for tr := tar.NewReader(gz); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		name, ok := strings.CutPrefix(h.Name, "set-of-emails/maildir/")
		if !ok || !strings.HasSuffix(name, ".eml") {
			continue
		}
		msg, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		f(name, msg)
	}
}

// TestAbuseReports compares with what another parser made of five reports (RFC 5965, RFC 6591).
func TestAbuseReports(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(vectors.Path(t, "mail/bounce/arf"), "*.eml"))
	if err != nil || len(files) != 5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		msg, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n, err := Parse(msg)
		if err != nil || n.Kind != Abuse {
			t.Errorf("%s: %v", file, err)
			continue
		}
		checkFeedback(t, file, n.Feedback)
	}
}

func checkFeedback(t *testing.T, file string, fb *Feedback) {
	var want struct {
		Type     string   `json:"feedback_type"`
		Arrived  int64    `json:"arrival_date"`
		Auth     []string `json:"authentication_results"`
		N        int      `json:"incidents"`
		EnvID    string   `json:"original_envelope_id"`
		From     string   `json:"original_mail_from"`
		To       string   `json:"original_rcpt_to"`
		Domains  []string `json:"reported_domain"`
		URIs     []string `json:"reported_uri"`
		MTA      string   `json:"reporting_mta"`
		IP       string   `json:"source_ip"`
		UA       string   `json:"user_agent"`
		Failure  string   `json:"auth_failure"`
		Domain   string   `json:"dkim_domain"`
		Identity string   `json:"dkim_identity"`
		Selector string   `json:"dkim_selector"`
	}
	b, err := os.ReadFile(strings.TrimSuffix(file, ".eml") + ".json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	arrived := int64(0)
	if !fb.Arrived.IsZero() {
		arrived = fb.Arrived.Unix()
	}
	// 002 says -0400 (EDT) where its date is EDT alone; both parsers agree on the instant.
	ip := ""
	if fb.SourceIP.IsValid() {
		ip = fb.SourceIP.String()
	}
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	plain := func(s string) string { return strings.Trim(strings.ToLower(strings.ReplaceAll(s, "-", "")), "<>") }
	for _, c := range [][3]string{
		{"type", plain(fb.Type), plain(want.Type)},
		{"envelope id", fb.EnvID, want.EnvID},
		{"from", fb.MailFrom, plain(want.From)},
		{"to", strings.Join(fb.RcptTo, " "), plain(want.To)},
		{"domains", strings.Join(fb.Domains, " "), strings.Join(want.Domains, " ")},
		{"uris", strings.Join(fb.URIs, " "), strings.Join(want.URIs, " ")},
		{"mta", fb.ReportingMTA, want.MTA},
		{"ip", ip, want.IP},
		{"agent", fb.UserAgent, want.UA},
		{"domain", fb.DKIMDomain, want.Domain},
		{"identity", fb.DKIMIdentity, want.Identity},
		{"selector", fb.DKIMSelector, want.Selector},
		{"results", squeeze(strings.Join(fb.AuthResults, "|")), squeeze(strings.Join(want.Auth, "|"))},
	} {
		if c[1] != c[2] {
			t.Errorf("%s: %s %q, want %q", filepath.Base(file), c[0], c[1], c[2])
		}
	}
	if want.Failure != "Unspecified" && plain(fb.AuthFailure) != plain(want.Failure) {
		t.Errorf("%s: auth failure %q, want %q", file, fb.AuthFailure, want.Failure)
	}
	if arrived != want.Arrived || fb.Incidents != want.N || fb.Version != "1" {
		t.Errorf("%s: arrived %d, want %d; incidents %d", file, arrived, want.Arrived, fb.Incidents)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(wrap("Final-Recipient: rfc822;u@x\nAction: failed\nStatus: 5.1.1\n")))
	f.Add([]byte("From: MAILER-DAEMON\n\n<a@b.example>:\n550 5.1.1 unknown\n"))
	f.Add([]byte("Content-Type: multipart/report; boundary=\"x\"\n\n--x\nContent-Type: message/feedback-report\n\nVersion: 1\n--x--"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		n, err := Parse(msg)
		if err != nil {
			return
		}
		for _, o := range n.Recipients {
			if o.Final == "" || o.Action == "" || !validStatus(o.Status) {
				t.Errorf("incomplete %+v", o)
			}
		}
		if (n.Kind == Abuse) != (n.Feedback != nil) {
			t.Errorf("kind %s, feedback %v", n.Kind, n.Feedback)
		}
	})
}

// FuzzBuild: no reply, envelope id or header breaks the frame of a report.
func FuzzBuild(f *testing.F) {
	f.Add("550 no\nX: y", "id", "rfc822;a@b", "Subject: x\r\n\r\nbody", true)
	f.Add("\r\n--x\r\n", "\xff", "utf-8;\\x{41}", "Message-ID: <a@b>\n\n", false)
	f.Fuzz(func(t *testing.T, reply, envID, orcpt, msg string, utf8 bool) {
		r := report(t)
		r.Envelope.EnvID, r.Envelope.SMTPUTF8, r.Envelope.Ret = envID, utf8, mail.RetFull
		r.Recipients[0].Reply, r.Recipients[0].ORcpt, r.Recipients[0].Remote = reply, orcpt, reply
		r.setMessage(msg)
		p := build(t, r)
		if len(p.kinds) != 3 {
			t.Errorf("parts %q", p.kinds)
		}
		n, err := Parse(p.raw)
		if err != nil || n.Kind != Status || len(n.Recipients) != 1 ||
			n.Recipients[0].Final != "ben@example.net" || n.Recipients[0].Status != "5.1.1" {
			t.Errorf("read back %+v, %v from\n%s", n, err, p.raw)
		}
	})
}
