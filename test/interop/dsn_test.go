package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// readReportScript takes a report apart with Python's own parser, as JSON.
const readReportScript = `
import email, email.policy, json, sys
m = email.message_from_file(open(sys.argv[1], encoding="utf-8", errors="surrogateescape"), policy=email.policy.default)
parts = list(m.iter_parts())
out = {"type": m.get_content_type(), "report": m.get_param("report-type", ""), "from": m["Return-Path"] or m["Return-path"],
       "parts": [p.get_content_type() for p in parts], "text": parts[0].get_content(),
       "defects": [str(d) for p in m.walk() for d in p.defects], "auto": m["Auto-Submitted"] or ""}
blocks = parts[1].get_payload()
out["message"] = {k.lower(): v for k, v in blocks[0].items()}
out["recipients"] = [{k.lower(): v for k, v in b.items()} for b in blocks[1:] if b.keys()]
original = parts[2].get_payload()
if isinstance(original, list):
    original = original[0].as_string()
out["original"] = original
json.dump(out, sys.stdout)
`

// report is a delivery status notification (RFC 3464), as Python's email package reads it.
type report struct {
	Type, Report, From, Text, Original, Auto string
	Parts, Defects                           []string
	Message                                  map[string]string
	Recipients                               []map[string]string
}

// readReport has Python read a letter that must be a report.
func readReport(t *testing.T, letter string) report {
	t.Helper()
	dir := t.TempDir()
	script, file := filepath.Join(dir, "read.py"), filepath.Join(dir, "letter")
	for name, text := range map[string]string{script: readReportScript, file: letter} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(need(t, "python3"), script, file).CombinedOutput()
	var r report
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil {
		t.Fatalf("Python reads no report: %v\n%s\n%s", err, out, letter)
	}
	if r.Type != "multipart/report" || r.Report != "delivery-status" || len(r.Parts) != 3 ||
		!strings.HasSuffix(r.Parts[1], "delivery-status") || len(r.Defects) > 0 {
		t.Errorf("no sound report: %s; report-type=%s, parts %q, defects %q", r.Type, r.Report, r.Parts, r.Defects)
	}
	return r
}

// expectRecipient holds the fields of the only recipient in a report against what they begin with.
func (r report) expectRecipient(t *testing.T, want map[string]string) {
	t.Helper()
	if len(r.Recipients) != 1 {
		t.Fatalf("%d recipients in the report, want 1: %q", len(r.Recipients), r.Recipients)
	}
	for field, value := range want {
		if got := strings.Replace(r.Recipients[0][field], "; ", ";", 1); !strings.HasPrefix(strings.ToLower(got), strings.ToLower(value)) {
			t.Errorf("%s: %q, want %q", field, got, value)
		}
	}
}

// awaitReport waits for a letter in the inbox that is a report, and was not returned before.
func (s *site) awaitReport() report {
	s.t.Helper()
	var found string
	if !eventually(30*time.Second, func() bool {
		for _, l := range s.letters() {
			if strings.Contains(l, "report-type") && !s.reports[l] {
				found = l
			}
		}
		return found != ""
	}) {
		s.t.Fatalf("no report in the inbox; the queue:\n%s%s", s.run("queue", "list"), s.run("trace", user))
	}
	s.reports[found] = true
	return readReport(s.t, found)
}

// asked is a letter whose sender wants to know everything.
func asked(from, to, notify string) letter {
	return letter{from: from, params: "RET=HDRS ENVID=case+2B7", to: []string{to},
		notify: "NOTIFY=" + notify + " ORCPT=rfc822;First.Name@origin.test",
		text: fmt.Sprintf("Date: %s\r\nMessage-ID: <asked@local.test>\r\nFrom: %s\r\nTo: %s\r\nSubject: question\r\n\r\nbody\r\n",
			time.Now().Format(time.RFC1123Z), from, to)}
}

// TestReportsOfOurs has the node tell of what became of mail at another server.
func TestReportsOfOurs(t *testing.T) {
	forOthers(t, func(t *testing.T, start func(otherConfig) *other) {
		o := start(otherConfig{noDSN: true, refuses: "gone@remote.test", defers: "late@remote.test"})
		s := startSite(t, siteConfig{zone: zoneOf(t, o), smtp: trustLoopback, relay: portOf(t, o),
			queue: `delay_warning = "2s"
expire = "6s"`})
		common := map[string]string{"original-recipient": "rfc822;First.Name@origin.test", "remote-mta": "dns;mx.remote.test"}
		reportOf := func(to, notify string) report {
			post(t, s.smtp, asked(user, to, notify))
			r := s.awaitReport()
			if r.From != "<>" || !strings.HasPrefix(r.Auto, "auto-") {
				t.Errorf("a report from %q, Auto-Submitted: %q, may be answered by another", r.From, r.Auto)
			}
			if r.Message["original-envelope-id"] != "case+7" || !strings.HasPrefix(r.Message["reporting-mta"], "dns;") {
				t.Errorf("about the message: %q", r.Message)
			}
			if !strings.Contains(r.Original, "Subject: question") || strings.Contains(r.Original, "body") {
				t.Errorf("RET=HDRS wants the header back, not %q", r.Original)
			}
			if !strings.Contains(r.Text, to) {
				t.Errorf("people do not learn that it is about %s:\n%s", to, r.Text)
			}
			r.expectRecipient(t, common)
			return r
		}
		reportOf("gone@remote.test", "FAILURE").expectRecipient(t, map[string]string{"action": "failed",
			"final-recipient": "rfc822;gone@remote.test", "status": "5.", "diagnostic-code": "smtp;550"})
		reportOf("box@remote.test", "SUCCESS").expectRecipient(t, map[string]string{"action": "relayed",
			"final-recipient": "rfc822;box@remote.test", "status": "2."})
		reportOf("late@remote.test", "DELAY,FAILURE").expectRecipient(t, map[string]string{"action": "delayed",
			"final-recipient": "rfc822;late@remote.test", "status": "4.", "diagnostic-code": "smtp;451"})
		s.awaitReport().expectRecipient(t, map[string]string{"action": "failed", "status": "5.4.7"})
		post(t, s.smtp, asked(user, "gone@remote.test", "NEVER"), asked("", "gone@remote.test", "FAILURE"))
		eventually(10*time.Second, func() bool { return strings.Contains(s.run("queue", "list"), "nothing waits") })
		if got := len(s.letters()); got != 4 {
			t.Errorf("%d letters in the inbox: NOTIFY=NEVER and the null sender are to have no report", got)
		}
	})
}

// TestReportsOfOthers has what a sender asked for pass through the node to another server, and the other's
// answer come back.
func TestReportsOfOthers(t *testing.T) {
	forOthers(t, func(t *testing.T, start func(otherConfig) *other) {
		cfg := otherConfig{addr: freeAddr(t)}
		host, port := hostPort(t, cfg.addr)
		zone := zoneOf(t, &other{addr: host + ":" + port})
		s := startSite(t, siteConfig{zone: zone, smtp: trustLoopback, relay: "port = " + port})
		cfg.smarthost = s.smtp
		o := start(cfg)
		for _, c := range []struct {
			name, addr string // and whom the letter is handed to
			to         string
			want       map[string]string
		}{
			{"delivered by the other", s.smtp, "box@remote.test", map[string]string{"action": "delivered", "status": "2."}},
			{"refused by us", o.addr, "nobody@local.test", map[string]string{"action": "failed", "status": "5.",
				"diagnostic-code": "smtp;550"}},
			{"delivered by us for the other", o.addr, user, map[string]string{"action": "delivered", "status": "2.",
				"final-recipient": "rfc822;" + user}},
		} {
			post(t, c.addr, asked(user, c.to, "SUCCESS,FAILURE"))
			r := s.awaitReport()
			// Exim gives the id back as it was written in the command, not as what that means.
			if id := r.Message["original-envelope-id"]; id != "case+7" && id != "case+2B7" {
				t.Errorf("%s: the envelope id is lost: %q", c.name, r.Message)
			}
			r.expectRecipient(t, c.want)
			r.expectRecipient(t, map[string]string{"original-recipient": "rfc822;First.Name@origin.test"})
		}
	})
}
