package dmarc

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/vectors"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/dsn"
)

// readAny reads a report from a file of any kind.
func readAny(t testing.TB, file string) (*Report, error) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Ext(file) == ".eml" {
		return ReadMail(b)
	}
	return Read(b)
}

// TestWildReports: every report seen in the wild is understood, but the one that is no XML.
func TestWildReports(t *testing.T) {
	for _, folder := range []string{"aggregate-parsedmarc", "aggregate_invalid", "mox", "stalwart"} {
		files, err := filepath.Glob(filepath.Join(vectors.Path(t, "mail/dmarc/"+folder), "*"))
		if err != nil || len(files) == 0 {
			t.Fatal(folder, err)
		}
		for _, file := range files {
			if filepath.Ext(file) == ".json" {
				continue
			}
			r, err := readAny(t, file)
			if filepath.Base(file) == "invalid_xml.xml" {
				if err == nil || !strings.Contains(err.Error(), "line 5") {
					t.Errorf("broken XML: %v, want an error that names line 5", err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", filepath.Base(file), err)
				continue
			}
			checkReport(t, filepath.Base(file), r)
		}
	}
}

func checkReport(t *testing.T, name string, r *Report) {
	t.Helper()
	if len(r.Faults) > 0 {
		t.Errorf("%s: %q", name, r.Faults)
	}
	if m := r.Metadata.Range; m.End.Before(m.Begin.Time) {
		t.Errorf("%s: %v to %v", name, m.Begin, m.End)
	}
	for i, row := range r.Rows {
		if row.Count == 0 || !row.Source.IsValid() || row.IDs.HeaderFrom == "" {
			t.Errorf("%s: record %d: %+v", name, i, row)
		}
	}
	text, err := r.XML()
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	again, err := Read(text)
	if err != nil {
		t.Errorf("%s, written and read: %v", name, err)
		return
	}
	again.Namespace = r.Namespace
	if !reflect.DeepEqual(r, again) {
		t.Errorf("%s, written and read, differs:\n%+v\n%+v", name, r, again)
	}
}

// TestAgainstStalwart compares with what another reader made of the same reports.
func TestAgainstStalwart(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(vectors.Path(t, "mail/dmarc/stalwart"), "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var want theirs
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatal(file, err)
		}
		source := strings.TrimSuffix(file, ".json") + ".xml"
		if _, err := os.Stat(source); err != nil {
			source = strings.TrimSuffix(file, ".json") + ".eml"
		}
		r, err := readAny(t, source)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		want.compare(t, filepath.Base(source), r)
	}
}

// theirs is the form of mail-auth's JSON, as far as it says what a report says.
type theirs struct {
	Metadata struct {
		Org     string `json:"org_name"`
		Email   string
		Contact string                     `json:"extra_contact_info"`
		ID      string                     `json:"report_id"`
		Range   struct{ Begin, End int64 } `json:"date_range"`
	} `json:"report_metadata"`
	Published struct {
		Domain, P, SP string
		Testing       bool
	} `json:"policy_published"`
	Record []struct {
		Row struct {
			Source    string `json:"source_ip"`
			Count     int
			Evaluated struct {
				Disposition, DKIM, SPF string
				Reason                 []struct {
					Type    string `json:"type_"`
					Comment string
				}
			} `json:"policy_evaluated"`
		}
		Identifiers struct {
			To     string `json:"envelope_to"`
			From   string `json:"envelope_from"`
			Header string `json:"header_from"`
		}
		Auth struct {
			DKIM []struct {
				Domain, Selector, Result string
				Human                    string `json:"human_result"`
			}
			SPF []struct{ Domain, Scope, Result string }
		} `json:"auth_results"`
	}
}

func (w *theirs) compare(t *testing.T, name string, r *Report) {
	t.Helper()
	same := func(what, got, want string) {
		t.Helper()
		want = strings.ToLower(want)
		switch want {
		case "unspecified":
			want = ""
		case "mailfrom":
			want = "mfrom"
		case "trustedforwarder":
			want = "trusted_forwarder"
		}
		if !strings.EqualFold(got, want) {
			t.Errorf("%s: %s is %q, they have %q", name, what, got, want)
		}
	}
	same("org", r.Metadata.Org, w.Metadata.Org)
	same("email", r.Metadata.Email, w.Metadata.Email)
	same("contact", r.Metadata.Contact, w.Metadata.Contact)
	same("id", r.Metadata.ID, w.Metadata.ID)
	same("domain", r.Published.Domain, w.Published.Domain)
	same("p", string(r.Published.Policy), w.Published.P)
	same("sp", string(r.Published.Sub), w.Published.SP)
	if r.Metadata.Range.Begin.Unix() != w.Metadata.Range.Begin || r.Metadata.Range.End.Unix() != w.Metadata.Range.End {
		t.Errorf("%s: range %v", name, r.Metadata.Range)
	}
	if len(r.Rows) != len(w.Record) {
		t.Errorf("%s: %d records, they have %d", name, len(r.Rows), len(w.Record))
		return
	}
	for i, want := range w.Record {
		row := r.Rows[i]
		same("source", row.Source.String(), want.Row.Source)
		if int(row.Count) != want.Row.Count {
			t.Errorf("%s: count %d, they have %d", name, row.Count, want.Row.Count)
		}
		same("disposition", row.Evaluated.Disposition, want.Row.Evaluated.Disposition)
		same("dkim", row.Evaluated.DKIM, want.Row.Evaluated.DKIM)
		same("spf", row.Evaluated.SPF, want.Row.Evaluated.SPF)
		same("to", row.IDs.EnvelopeTo, want.Identifiers.To)
		same("from", row.IDs.EnvelopeFrom, want.Identifiers.From)
		same("header", row.IDs.HeaderFrom, want.Identifiers.Header)
		if len(row.Auth.DKIM) != len(want.Auth.DKIM) || len(row.Auth.SPF) != len(want.Auth.SPF) ||
			len(row.Evaluated.Reasons) > len(want.Row.Evaluated.Reason) {
			t.Errorf("%s: record %d: %+v", name, i, row)
			continue
		}
		for j, reason := range row.Evaluated.Reasons {
			if theirs := want.Row.Evaluated.Reason[j].Type; theirs != "Other" { // old words are that to them
				same("reason", reason.Type, theirs)
			}
		}
		for j, d := range want.Auth.DKIM {
			same("DKIM domain", row.Auth.DKIM[j].Domain, d.Domain)
			same("DKIM selector", row.Auth.DKIM[j].Selector, d.Selector)
			same("DKIM result", row.Auth.DKIM[j].Result, d.Result)
			same("DKIM text", row.Auth.DKIM[j].Human, d.Human)
		}
		for j, s := range want.Auth.SPF {
			same("SPF domain", row.Auth.SPF[j].Domain, s.Domain)
			same("SPF scope", row.Auth.SPF[j].Scope, s.Scope)
			same("SPF result", row.Auth.SPF[j].Result, s.Result)
		}
	}
}

// TestFailureReports: those are abuse reports in form (RFC 9991), and mail/dsn reads them.
func TestFailureReports(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(vectors.Path(t, "mail/dmarc/failure"), "*.eml"))
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ReadMail(b); !errors.Is(err, ErrNoReport) {
			t.Errorf("%s: %v, want ErrNoReport", filepath.Base(file), err)
		}
		n, err := dsn.Parse(b)
		if strings.HasPrefix(filepath.Base(file), "exim") {
			continue // has no part for machines
		}
		if err != nil || n.Feedback == nil || n.Feedback.Type != "auth-failure" ||
			!n.Feedback.SourceIP.IsValid() {
			t.Errorf("%s: %+v, %v", filepath.Base(file), n, err)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	whole := `<feedback><report_metadata><report_id>1</report_id><date_range><begin>1</begin><end>2</end>` +
		`</date_range></report_metadata><policy_published><domain>a.example</domain></policy_published>` +
		`<record></record></feedback>`
	if _, err := Read([]byte(whole)); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ name, text, want string }{
		{"empty", "", "no DMARC aggregate report"},
		{"no XML", "feedback", "no DMARC aggregate report"},
		{"other XML", "<html><p>feedback</p></html>", "no DMARC aggregate report"},
		{"cut short", whole[:len(whole)-15], "line 1: "},
		{"no domain", strings.Replace(whole, "<domain>a.example</domain>", "", 1), "no domain"},
		{"no range", strings.Replace(whole, "<begin>1", "<begin>yesterday", 1), "no date_range"},
		{"no id", strings.Replace(whole, "<report_id>1", "<report_id>", 1), "no report_id"},
		{"no record", strings.Replace(whole, "<record></record>", "", 1), "no record"},
		{"entity", `<!DOCTYPE x [<!ENTITY a "aaaa">]>` + strings.Replace(whole, "a.example", "&a;", 1),
			"invalid character entity"},
		{"deep", strings.Replace(whole, "<record>", "<record>"+strings.Repeat("<x>", 20_000), 1), "line 1"},
		{"encoding", `<?xml version="1.0" encoding="EBCDIC"?>` + whole, `encoding "ebcdic"`},
	} {
		if _, err := Read([]byte(row.text)); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q in it", row.name, err, row.want)
		}
	}
	if _, err := Read(bytes.Repeat([]byte("<feedback>"), maxReport/10+1)); !errors.Is(err, mail.ErrTooLarge) {
		t.Errorf("large: %v", err)
	}
}

func TestReadLatin1(t *testing.T) {
	r, err := Read([]byte(`<?xml version="1.0" encoding="ISO-8859-1"?><feedback><report_metadata>` +
		"<org_name>B\xfccher</org_name><report_id>1</report_id><date_range><begin>1.5</begin><end>2</end>" +
		`</date_range></report_metadata><policy_published><domain>A.example </domain></policy_published>` +
		`<record></record></feedback>`))
	if err != nil || r.Metadata.Org != "Bücher" || r.Published.Domain != "a.example" ||
		r.Metadata.Range.Begin.Unix() != 1 || len(r.Faults) != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestReportMail(t *testing.T) {
	begin := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	c := NewCollector(CollectorConfig{Org: "Receiver", Email: "postmaster@mail.receiver.example",
		Receiver: "mail.receiver.example", Software: "Tallypost"})
	c.Add(seen(t, "v=DMARC1; p=reject; rua=mailto:r@example.com", "example.com"))
	due := c.Take(begin, begin.Add(24*time.Hour-time.Second))
	msg, err := due[0].Report.Mail(mail.Address{Local: "dmarc", Domain: "mail.receiver.example"},
		due[0].To[0].Address, "mail.receiver.example", begin.Add(25*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	h, err := mail.ParseHeader(msg)
	if err != nil {
		t.Fatal(err)
	}
	if want := "Report Domain: example.com Submitter: mail.receiver.example Report-ID: " +
		"<1793491200-example.com@mail.receiver.example>"; h.Get("Subject") != want {
		t.Errorf("subject %q, want %q", h.Get("Subject"), want)
	}
	parts := mail.Leaves(msg)
	name := "mail.receiver.example!example.com!1793491200!1793577599.xml.gz"
	if len(parts) != 2 || parts[1].Name != name || parts[1].Type != "application/gzip" {
		t.Errorf("parts %+v", parts)
	}
	r, err := ReadMail(msg)
	if err != nil {
		t.Fatal(err)
	}
	if r.Namespace != namespace || r.Published.Discovery != "treewalk" || len(r.Rows) != 1 {
		t.Errorf("%+v", r)
	}
}

func FuzzRead(f *testing.F) {
	r := &Report{Metadata: Metadata{ID: "1", Range: DateRange{Seconds{time.Unix(1, 0)}, Seconds{time.Unix(2, 0)}}},
		Published: Published{Domain: "a.example"}, Rows: []Row{{Count: 1}}}
	text, err := r.XML()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("\x1f\x8b\x08\x00"))
	f.Add([]byte(`<?xml version="1.0" encoding="latin1"?><x:feedback xmlns:x="y"><record><row/></record>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Read(b)
		if err != nil {
			return
		}
		text, err := r.XML()
		if err != nil {
			t.Fatalf("cannot be written: %v", err)
		}
		if _, err := Read(text); err != nil {
			t.Fatalf("cannot be read again: %v\n%s", err, text)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	text, err := os.ReadFile(filepath.Join(vectors.Path(b, "mail/dmarc/aggregate-parsedmarc"),
		"!large-example.com!1711897200!1711983600.xml"))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := Read(text); err != nil {
			b.Fatal(err)
		}
	}
}
