package tlspolicy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/internal/vectors"
	"github.com/tallypost/tallypost/mail"
)

// TestWildReports reads what others send, and what we write of it.
func TestWildReports(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(vectors.Path(t, "mail/tlsrpt"), "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		read := Read
		if filepath.Ext(file) == ".eml" {
			read = ReadMail
		}
		r, err := read(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r.Organization == "" || r.Range.End.Before(r.Range.Start) || r.Policies[0].Policy.Type == "" ||
			r.Policies[0].Summary.Successful+r.Policies[0].Summary.Failed == 0 {
			t.Errorf("%s: %+v", name, r)
		}
		packed, err := r.JSON()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Read(packed)
		if err != nil || !reflect.DeepEqual(r, again) {
			t.Errorf("%s, written and read: %v\n%+v\n%+v", name, err, r, again)
		}
	}
}

// TestExample is the report in RFC 8460, appendix B.
func TestExample(t *testing.T) {
	r, err := Read(vectors.Read(t, "mail/tlsrpt/rfc8460.json"))
	if err != nil {
		t.Fatal(err)
	}
	p := r.Policies[0]
	if r.Organization != "Company-X" || r.ID != "5065427c-23d3-47ca-b6e0-946ea0e8c4be" ||
		!r.Range.End.Equal(time.Date(2016, 4, 1, 23, 59, 59, 0, time.UTC)) || r.Domain != "company-y.example" {
		t.Errorf("%+v", r)
	}
	if p.Policy.Type != PolicySTS || len(p.Policy.Strings) != 4 || p.Policy.MX[0] != "*.mail.company-y.example" ||
		p.Summary != (Summary{5326, 303}) || len(p.Details) != 3 {
		t.Errorf("%+v", p)
	}
	if d := p.Details[1]; d.Type != StartTLSNotSupported || d.ReceivingIP != "203.0.113.56" || d.Sessions != 200 {
		t.Errorf("%+v", d)
	}
}

func TestReadRefuses(t *testing.T) {
	whole := `{"report-id":"1","date-range":{"start-datetime":"2026-01-01T00:00:00Z",` +
		`"end-datetime":"2026-01-02"},"policies":[{"policy":{"policy-type":"sts","mx-host":null},` +
		`"summary":{"total-successful-session-count":"7","total-failure-session-count":null}}]}`
	r, err := Read([]byte("\xef\xbb\xbf " + whole))
	if err != nil || r.Policies[0].Summary.Successful != 7 {
		t.Fatal(r, err)
	}
	for _, row := range []struct{ name, text, want string }{
		{"empty", "", "no TLS report"},
		{"other JSON", `{"a":1}`, "no TLS report"},
		{"cut short", whole[:len(whole)-4], "unexpected end"},
		{"no id", strings.Replace(whole, `"1"`, `""`, 1), "no report-id"},
		{"no dates", strings.Replace(whole, `"date-range"`, `"x"`, 1), "no date-range"},
		{"bad date", strings.Replace(whole, "2026-01-02", "yesterday", 1), `"YESTERDAY" is no date`},
		{"no policies", `{"report-id":"1","date-range":{"start-datetime":"2026-01-01T00:00:00Z",` +
			`"end-datetime":"2026-01-02"},"policies":[]}`, "no policies"},
		{"bad count", strings.Replace(whole, `"7"`, "-7", 1), `"-7" is no count`},
		{"fraction", strings.Replace(whole, `"7"`, "7.5", 1), `"7.5" is no count`},
		{"many policies", strings.Replace(whole, `"policies":[`, `"policies":[`+
			strings.Repeat("{},", maxPolicies), 1), "more than"},
	} {
		if _, err := Read([]byte(row.text)); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q in it", row.name, err, row.want)
		}
	}
	large := append(bytes.Repeat([]byte(" "), maxReport), whole...)
	if _, err := Read(large); !errors.Is(err, mail.ErrTooLarge) {
		t.Errorf("large: %v", err)
	}
}

// enforced is a decision under an enforced MTA-STS policy.
func enforced(domain string) *Decision {
	return &Decision{Level: WebPKI, domain: domain, host: "mx." + domain,
		Applied: []Applied{{Type: PolicySTS, Domain: domain, Strings: Texts{"version: STSv1"}, MX: Texts{"mx." + domain}}}}
}

func session(d *Decision, f *Failure) *Session {
	return &Session{Decision: d, Failure: f, SendingIP: netip.MustParseAddr("192.0.2.1"),
		ReceivingIP: netip.MustParseAddr("2001:db8::1"), ReceivingHost: d.host}
}

func TestCollector(t *testing.T) {
	c := NewCollector(CollectorConfig{Organization: "We", Contact: "tls@we.example", Submitter: "we.example"})
	d := enforced("example.com")
	expiry := &Failure{Type: CertificateExpired, Policy: PolicySTS, Enforced: true, Err: errors.New("expired\r\nyesterday")}
	for range 3 {
		c.Add(session(d, nil))
	}
	c.Add(session(d, expiry))
	c.Add(session(d, expiry))
	c.Add(session(d, d.Plaintext()))

	both := enforced("example.net")
	both.Applied = append(both.Applied,
		Applied{Type: PolicyTLSA, Domain: "mx.example.net", Strings: Texts{"3 1 1 00"}})
	c.Add(session(both, nil))
	c.Add(session(both, &Failure{Type: ValidationFailure, Policy: PolicyTLSA, Enforced: true, Err: errors.New("x")}))

	none := &Decision{domain: "example.org", host: "mx.example.org",
		Applied:  []Applied{{Type: NoPolicy, Domain: "example.org"}},
		Troubles: []*Failure{{Type: STSFetchError, Policy: PolicySTS, Err: errors.New("404")}}}
	c.Add(session(none, nil))
	c.Add(session(none, none.Plaintext()))
	c.Add(session(none, &Failure{Type: DNSSECInvalid, Policy: PolicyTLSA, Enforced: true, Err: errors.New("x")}))

	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	reports := c.Take(start, start.Add(24*time.Hour-time.Second))
	var got []string
	for _, r := range reports {
		for _, p := range r.Policies {
			s := fmt.Sprintf("%s %s %d/%d", r.Domain, p.Policy.Type, p.Summary.Successful, p.Summary.Failed)
			for _, f := range p.Details {
				s += fmt.Sprintf(" %s=%d", f.Type, f.Sessions)
			}
			got = append(got, s)
		}
	}
	want := []string{
		"example.com sts 3/3 certificate-expired=2 starttls-not-supported=1",
		"example.net sts 1/0", // not the one that DANE refused
		"example.net tlsa 1/1 validation-failure=1",
		"example.org no-policy-found 1/1 starttls-not-supported=1",
		"example.org sts 0/3 sts-policy-fetch-error=3",
		"example.org tlsa 0/1 dnssec-invalid=1",
		"mx.example.net tlsa 1/1 validation-failure=1",
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("counted\n%s\nwant\n%s", g, w)
	}
	if code := reports[0].Policies[0].Details[0].ReasonCode; code != "expired  yesterday" {
		t.Errorf("reason %q", code)
	}
	if left := c.Take(start, start); len(left) != 0 {
		t.Errorf("taken twice: %v", left)
	}
}

func TestCollectorIsBounded(t *testing.T) {
	c := NewCollector(CollectorConfig{MaxDomains: 2, MaxDetails: 3})
	for i := range 100 {
		c.Add(session(enforced(fmt.Sprintf("d%d.example", i)), nil))
		d := enforced("d0.example")
		d.Applied[0].Strings = Texts{fmt.Sprint(i)}
		c.Add(session(d, &Failure{Type: ValidationFailure, Policy: PolicySTS, Err: fmt.Errorf("%d", i)}))
	}
	reports := c.Take(now, now)
	details := 0
	for _, p := range reports[0].Policies {
		details += len(p.Details)
	}
	if len(reports) != 2 || len(reports[0].Policies) != maxVariants || details != 3 {
		t.Errorf("%d domains, %d policies, %d details", len(reports), len(reports[0].Policies), details)
	}
}

func TestCollectorSaves(t *testing.T) {
	c := NewCollector(CollectorConfig{})
	d := enforced("example.com")
	c.Add(session(d, d.Plaintext()))
	var b bytes.Buffer
	if err := c.Save(&b); err != nil {
		t.Fatal(err)
	}
	e := NewCollector(CollectorConfig{})
	if err := e.Load(&b); err != nil {
		t.Fatal(err)
	}
	c.Add(session(d, d.Plaintext()))
	e.Add(session(d, d.Plaintext()))
	want, got := c.Take(now, now), e.Take(now, now)
	if !reflect.DeepEqual(want, got) || got[0].Policies[0].Details[0].Sessions != 2 {
		t.Errorf("before\n%+v\nafter\n%+v", want[0], got[0])
	}
	for _, bad := range []string{"", "{}", `{"Version":2}`, `{"Version":1,"Domains":{"a":null}}`,
		`{"Version":1,"Domains":{"a":{"Policies":{"x":null}}}}`,
		`{"Version":1,"Domains":{"a":{"Policies":{"x":{"Details":{"y":null}}}}}}`} {
		if err := e.Load(strings.NewReader(bad)); err == nil {
			t.Errorf("loaded %q", bad)
		}
	}
}

// someReport is what a Collector makes of one failure.
func someReport(t testing.TB) *Report {
	t.Helper()
	c := NewCollector(CollectorConfig{Organization: "We", Contact: "tls@we.example", Submitter: "we.example"})
	d := enforced("example.com")
	c.Add(session(d, d.Plaintext()))
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	return c.Take(start, start.Add(24*time.Hour-time.Second))[0]
}

func TestReportMail(t *testing.T) {
	r := someReport(t)
	msg, err := r.Mail(mail.Address{Local: "tls", Domain: "we.example"},
		mail.Address{Local: "r", Domain: "example.com"}, "we.example", now)
	if err != nil {
		t.Fatal(err)
	}
	h, err := mail.ParseHeader(msg)
	if err != nil {
		t.Fatal(err)
	}
	// RFC 8460, section 5.3
	for name, want := range map[string]string{
		"TLS-Report-Domain":    "example.com",
		"TLS-Report-Submitter": "we.example",
		"Subject": "Report Domain: example.com Submitter: we.example " +
			"Report-ID: <2026-11-01_example.com@we.example>",
		"Content-Type": `multipart/report; report-type="tlsrpt"; boundary=`,
	} {
		if got := h.Get(name); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !Waived(h) {
		t.Error("the report itself depends on TLS")
	}
	parts := mail.Leaves(msg)
	if len(parts) != 2 || parts[1].Type != "application/tlsrpt+gzip" ||
		parts[1].Name != "we.example!example.com!1793491200!1793577599.json.gz" {
		t.Errorf("parts %+v", parts)
	}
	again, err := ReadMail(msg)
	if err != nil || !reflect.DeepEqual(r, again) {
		t.Errorf("%v\n%+v\n%+v", err, r, again)
	}
}

func TestPost(t *testing.T) {
	status := http.StatusCreated
	var got *Report
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		b, err := io.ReadAll(req.Body)
		if err != nil || req.Method != "POST" || req.Header.Get("Content-Type") != "application/tlsrpt+gzip" {
			t.Errorf("%s %v, %v", req.Method, req.Header, err)
		}
		if got, err = Read(b); err != nil {
			t.Error(err)
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
	}))
	defer server.Close()
	r := someReport(t)
	if err := r.Post(t.Context(), server.Client(), server.URL); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("%v, %+v", err, got)
	}
	for _, status = range []int{http.StatusFound, http.StatusTeapot} {
		if err := r.Post(t.Context(), server.Client(), server.URL); err == nil {
			t.Errorf("%d is success", status)
		}
	}
}

func TestParseRecord(t *testing.T) {
	for text, want := range map[string]string{
		// RFC 8460, section 3.1
		"v=TLSRPTv1;rua=mailto:reports@example.com":                        "reports@example.com",
		"v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt":          "https://reporting.example.com/v1/tlsrpt",
		"v=TLSRPTv1; x=y; rua = mailto:a@a.example , https://b.example/ ;": "a@a.example https://b.example/",
		"v=TLSRPTv1; rua=ftp://x.example,mailto:a%2Bb@a.example":           "a+b@a.example",
		"v=TLSRPTv1; rua=" + strings.Repeat("mailto:a@a.example,", 20):     strings.Repeat(" a@a.example", maxPlaces)[1:],

		"":                                      "",
		"v=TLSRPTv1":                            "",
		"v=TLSRPTv1;":                           "",
		"v=TLSRPTv2; rua=mailto:a@a.example":    "",
		"v=tlsrptv1; rua=mailto:a@a.example":    "",
		"rua=mailto:a@a.example; v=TLSRPTv1":    "",
		"v=TLSRPTv1; rua=":                      "",
		"v=TLSRPTv1; rua=http://a.example":      "",
		"v=TLSRPTv1; rua=https://u:p@a.example": "",
		"v=TLSRPTv1; rua=mailto:a@[192.0.2.1]":  "",
		"v=TLSRPTv1; rua=mailto:a@a.example; rua=mailto:b@a.example":          "",
		"v=TLSRPTv1;; rua=mailto:a@a.example":                                 "",
		"v=TLSRPTv1; what":                                                    "",
		"v=TLSRPTv1; rua=mailto:a@a.example" + strings.Repeat(" ", maxRecord): "",
	} {
		places, err := ParseRecord(text)
		var got []string
		for _, p := range places {
			got = append(got, p.HTTPS+p.Mail.String())
		}
		if s := strings.Join(got, " "); s != want || (err == nil) != (want != "") {
			t.Errorf("%.80q: %q, %v; want %q", text, s, err, want)
		}
		if err != nil && !errors.Is(err, ErrNoRecord) {
			t.Errorf("%.80q: %v", text, err)
		}
	}
}

func TestLookupRecord(t *testing.T) {
	z := dns.MustZone(map[string][]string{
		"_smtp._tls.one.example":  {"TXT other", "TXT v=TLSRPTv1; rua=mailto:a@one.example"},
		"_smtp._tls.two.example":  {"TXT v=TLSRPTv1; rua=mailto:a@a.example", "TXT v=TLSRPTv1; rua=mailto:b@a.example"},
		"_smtp._tls.bad.example":  {"TXT v=TLSRPTv1; rua=x"},
		"_smtp._tls.text.example": {"TXT hello"},
		"_smtp._tls.down.example": {"TXT v=TLSRPTv1; rua=mailto:a@a.example"},
	})
	z.Fail("_smtp._tls.down.example", dns.ServFail)
	for domain, want := range map[string]error{
		"one.example": nil, "two.example": ErrNoRecord, "bad.example": ErrNoRecord, "text.example": ErrNoRecord,
		"none.example": ErrNoRecord, "down.example": dns.ErrTemporary,
	} {
		places, err := LookupRecord(t.Context(), z, domain)
		if !errors.Is(err, want) || (want == nil) != (len(places) == 1 && err == nil) {
			t.Errorf("%s: %v, %v; want %v", domain, places, err, want)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add("v=TLSRPTv1; rua=mailto:a@a.example,https://b.example/")
	f.Fuzz(func(t *testing.T, s string) {
		places, err := ParseRecord(s)
		if (err == nil) != (len(places) > 0) || len(places) > maxPlaces {
			t.Errorf("%v, %v", places, err)
		}
	})
}

func FuzzRead(f *testing.F) {
	packed, err := someReport(f).JSON()
	if err != nil {
		f.Fatal(err)
	}
	plain, err := mail.Unpack(packed, maxReport)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Add(plain)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Read(b)
		if err != nil {
			return
		}
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatalf("cannot be written: %v", err)
		}
		if _, err := Read(text); err != nil {
			t.Fatalf("cannot be read again: %v\n%s", err, text)
		}
	})
}
