package reporting

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/vectors"
	"github.com/tallypost/tallypost/mail"
)

func newInbox(t *testing.T) *Inbox {
	return NewInbox(filepath.Join(t.TempDir(), "received"), "mx.us.example", clock.NewMock(start))
}

func add(t *testing.T, b *Inbox, id mail.ID, text string) Received {
	t.Helper()
	r, err := b.Add(id, address("dmarc-reports@us.example"), strings.NewReader(text), int64(len(text)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const dmarcXML = `<?xml version="1.0"?>
<feedback><report_metadata><org_name>Them</org_name><email>x@them.example</email><report_id>17</report_id>
<date_range><begin>1795219200</begin><end>1795305599</end></date_range></report_metadata>
<policy_published><domain>us.example</domain><p>none</p></policy_published>
<record><row><source_ip>192.0.2.1</source_ip><count>5</count><policy_evaluated><disposition>none</disposition>
<dkim>pass</dkim><spf>fail</spf></policy_evaluated></row><identifiers><header_from>us.example</header_from>
</identifiers><auth_results/></record>
<record><row><source_ip>198.51.100.2</source_ip><count>2</count><policy_evaluated><disposition>reject</disposition>
<dkim>fail</dkim><spf>fail</spf></policy_evaluated></row><identifiers><header_from>us.example</header_from>
</identifiers><auth_results/></record></feedback>
`

const tlsJSON = `{"organization-name":"Them","date-range":{"start-datetime":"2026-11-21T00:00:00Z",
"end-datetime":"2026-11-21T23:59:59Z"},"contact-info":"x@them.example","report-id":"18","policies":[{"policy":
{"policy-type":"sts","policy-string":[],"policy-domain":"us.example","mx-host":"mx.us.example"},"summary":
{"total-successful-session-count":40,"total-failure-session-count":3},"failure-details":[{"result-type":
"certificate-expired","receiving-mx-hostname":"mx.us.example","failed-session-count":3}]}]}
`

// carry puts a file into a message with the results of our own checks on top.
func carry(results, kind, content string) string {
	return strings.ReplaceAll("Return-Path: <>\n"+results+"From: <noreply@them.example>\nSubject: Report\n"+
		"MIME-Version: 1.0\nContent-Type: "+kind+"\n\n", "\n", "\r\n") + content
}

func TestReportsReceived(t *testing.T) {
	b := newInbox(t)
	ours := "Authentication-Results: mx.us.example; dkim=pass header.d=them.example;\n" +
		"\tdkim=fail header.d=other.example; dmarc=pass header.from=them.example\n"
	d := add(t, b, 1, carry(ours, "text/xml", dmarcXML))
	if d.Error != "" || d.Kind != "dmarc" || d.Org != "Them" || d.ReportID != "17" || d.Domain != "us.example" ||
		d.Good != 5 || d.Bad != 2 || len(d.Vouched) != 1 || d.Vouched[0] != "them.example" ||
		d.Begin.Unix() != 1795219200 || len(d.Details) != 2 {
		t.Fatalf("%+v", d)
	}
	want := Detail{2, false, "198.51.100.2", "from us.example: dkim=fail spf=fail disposition=reject"}
	if d.Details[0] != want { // what is bad comes first
		t.Errorf("%+v, want %+v", d.Details[0], want)
	}
	r := add(t, b, 2, carry("", "application/tlsrpt+json", tlsJSON))
	if r.Error != "" || r.Kind != "tls" || r.Good != 40 || r.Bad != 3 || len(r.Vouched) != 0 ||
		r.Details[0] != (Detail{3, false, "mx.us.example", "certificate-expired under sts of us.example"}) {
		t.Errorf("%+v", r)
	}
	list, err := b.List()
	if err != nil || len(list) != 2 || list[0].ReportID != "18" || list[1].ReportID != "17" {
		t.Errorf("list %+v, %v", list, err)
	}
}

// TestWhoVouches: only the topmost field of our own counts.
func TestWhoVouches(t *testing.T) {
	b := newInbox(t)
	for i, row := range []struct{ results, want string }{
		{"", ""},
		{"Authentication-Results: mx.them.example; dkim=pass header.d=them.example\n", ""},
		{"Authentication-Results: mx.us.example; dkim=fail header.d=them.example\n" +
			"Authentication-Results: mx.us.example; dkim=pass header.d=them.example\n", ""},
		{"Authentication-Results: MX.us.example; dmarc=pass header.from=Them.example\n", "them.example"},
		{"Authentication-Results: mx.us.example; spf=pass smtp.mailfrom=them.example\n", ""},
		{"Authentication-Results: mx.us.example; dkim=pass header.d=a.example; dkim=pass header.d=b.example\n",
			"a.example b.example"},
	} {
		r := add(t, b, mail.ID(i), carry(row.results, "text/xml", dmarcXML))
		if got := strings.Join(r.Vouched, " "); got != row.want {
			t.Errorf("%s: vouched for by %q, want %q", row.results, got, row.want)
		}
	}
}

func TestReportsThatCannotBeRead(t *testing.T) {
	b := newInbox(t)
	for i, row := range []struct{ name, text, want string }{
		{"chat", carry("", "text/plain", "hello\r\n"), ErrNoReport.Error()},
		{"empty", "", ErrNoReport.Error()},
		{"broken XML", carry("", "text/xml", dmarcXML[:300]), "DMARC aggregate report: line "},
		{"broken JSON", carry("", "application/json", tlsJSON[:300]), "TLS report: "},
		{"too large", carry("", "text/plain", strings.Repeat("x", maxMessage)), "octets, more than"},
	} {
		r := add(t, b, mail.ID(i), row.text)
		if !strings.Contains(r.Error, row.want) {
			t.Errorf("%s: %q, want %q", row.name, r.Error, row.want)
		}
		kept, err := os.ReadFile(b.path(r) + ".eml")
		if err != nil || !bytes.Equal(kept, []byte(row.text[:min(len(row.text), maxRaw)])) {
			t.Errorf("%s: %d octets were kept, %v", row.name, len(kept), err)
		}
	}
}

// TestInboxIsBounded: what nobody vouches for drives out its like only.
func TestInboxIsBounded(t *testing.T) {
	b := newInbox(t)
	ours := "Authentication-Results: mx.us.example; dkim=pass header.d=them.example\n"
	add(t, b, 1, carry(ours, "text/xml", dmarcXML))
	for i := range maxOther + 2 {
		text := carry("", "text/xml", dmarcXML)
		if i == 0 {
			text = carry("", "text/plain", "hello\r\n")
		}
		add(t, b, mail.ID(i+2), text)
	}
	list, err := b.List()
	if err != nil || len(list) != maxOther+1 || list[maxOther].ID != mail.ID(1).String() ||
		list[maxOther-1].ID != mail.ID(4).String() {
		t.Errorf("%d reports, %v", len(list), err)
	}
	if names, _ := filepath.Glob(filepath.Join(b.dir, "*")); len(names) != maxOther+1 {
		t.Errorf("%d files", len(names))
	}
}

func TestManyLines(t *testing.T) {
	record := dmarcXML[strings.Index(dmarcXML, "<record>"):strings.Index(dmarcXML, "</feedback>")]
	text := strings.Replace(dmarcXML, "</feedback>", strings.Repeat(record, 100)+"</feedback>", 1)
	r := add(t, newInbox(t), 1, carry("", "text/xml", text))
	if len(r.Details) != maxSources || r.Good != 505 || r.Bad != 202 || len(r.Notes) != 1 ||
		r.Notes[0] != "102 further lines were left out" {
		t.Errorf("%d details, %d good, %d bad, notes %q", len(r.Details), r.Good, r.Bad, r.Notes)
	}
}

// TestFolderThatCannotBeWritten is an error, for then the message must wait in the queue.
func TestFolderThatCannotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := NewInbox(filepath.Join(file, "received"), "mx.us.example", clock.NewMock(start))
	_, err := b.Add(1, address("a@us.example"), strings.NewReader("x"), 1)
	var disk *os.PathError
	if !errors.As(err, &disk) {
		t.Errorf("%v, want an error of the disk", err)
	}
}

// TestRealReports: reports as they came from the world are told apart and read.
func TestRealReports(t *testing.T) {
	b := newInbox(t)
	for kind, dir := range map[string]string{"dmarc": "mail/dmarc/aggregate-parsedmarc", "tls": "mail/tlsrpt"} {
		names, err := filepath.Glob(filepath.Join(vectors.Path(t, dir), "*.eml"))
		if err != nil || len(names) == 0 {
			t.Fatalf("no reports in %s: %v", dir, err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			r := add(t, b, 1, string(text))
			if r.Error != "" || r.Kind != kind || r.Domain == "" || r.Begin.IsZero() {
				t.Errorf("%s: %s", filepath.Base(name), fmt.Sprintf("%+v", r))
			}
		}
	}
}
