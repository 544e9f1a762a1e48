package dmarc

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
)

// seen is a message from example.com that passed by its own signature.
func seen(t testing.TB, record, domain string) *Seen {
	t.Helper()
	r, err := ParseRecord(record)
	if err != nil {
		t.Fatal(err)
	}
	return &Seen{
		Verdict: Verdict{Result: Pass, Author: domain, Domain: domain, Record: r, Published: r.Policy,
			Policy: r.Policy, DKIM: Alignment{Aligned: true, Domain: domain}},
		Source:       netip.MustParseAddr("192.0.2.1"),
		EnvelopeFrom: domain,
		SPF:          SPF{"none", domain},
		DKIM:         []DKIM{{"pass", domain, "s"}},
		Applied:      PolicyNone,
	}
}

const wanted = "v=DMARC1; p=reject; rua=mailto:r@example.com"

func TestCollectorCounts(t *testing.T) {
	c := NewCollector(CollectorConfig{Receiver: "mx.example"})
	other := seen(t, wanted, "example.com")
	other.Source = netip.MustParseAddr("2001:db8::1")
	for range 3 {
		c.Add(seen(t, wanted, "example.com"))
	}
	c.Add(other)
	c.Add(seen(t, wanted, "example.net"))
	c.Add(seen(t, "v=DMARC1; p=reject", "nobody-asks.example"))
	unknown := seen(t, wanted, "example.org")
	unknown.Verdict.Result = TempError
	c.Add(unknown)

	due := c.Take(time.Unix(0, 0), time.Unix(1, 0))
	if len(due) != 2 || due[0].Report.Published.Domain != "example.com" ||
		due[1].Report.Published.Domain != "example.net" || due[0].To[0].Address.Local != "r" {
		t.Fatalf("%+v", due)
	}
	rows := due[0].Report.Rows
	if len(rows) != 2 || rows[0].Count != 3 || rows[1].Count != 1 {
		t.Errorf("%+v", rows)
	}
	if left := c.Take(time.Unix(0, 0), time.Unix(1, 0)); len(left) != 0 {
		t.Errorf("taken twice: %v", left)
	}
}

// TestDisposition is RFC 9990, section 3.1.1.8: what was done, and why if not what was asked for.
func TestDisposition(t *testing.T) {
	for _, row := range []struct {
		name, record string
		result       Result
		applied      Policy
		override     *Reason
		want, reason string
	}{
		{"pass under enforcement", wanted, Pass, PolicyNone, nil, "pass", ""},
		{"pass without", "v=DMARC1; p=none; rua=mailto:r@a.example", Pass, PolicyNone, nil, "none", ""},
		{"as asked", wanted, Fail, PolicyReject, nil, "reject", ""},
		{"milder by local policy", wanted, Fail, PolicyQuarantine, nil, "quarantine", "local_policy"},
		{"milder for a reason", wanted, Fail, PolicyNone, &Reason{Type: "mailing_list"}, "none",
			"mailing_list"},
		{"test mode", "v=DMARC1; p=reject; t=y; rua=mailto:r@a.example", Fail, PolicyQuarantine, nil,
			"quarantine", "policy_test_mode"},
	} {
		s := seen(t, row.record, "example.com")
		s.Verdict.Result, s.Applied, s.Override = row.result, row.applied, row.override
		if s.Verdict.Record.Testing {
			s.Verdict.Policy = s.Verdict.Published.Milder()
		}
		e := s.row().Evaluated
		reason := ""
		if len(e.Reasons) > 0 {
			reason = e.Reasons[0].Type
		}
		if e.Disposition != row.want || reason != row.reason {
			t.Errorf("%s: %s %q, want %s %q", row.name, e.Disposition, reason, row.want, row.reason)
		}
	}
}

// TestSignatureOrder is RFC 9990, section 3.1.3.
func TestSignatureOrder(t *testing.T) {
	s := seen(t, wanted, "example.com")
	s.Verdict.DKIM.Domain = "m.example.com"
	s.DKIM = []DKIM{{"fail", "example.com", "f"}, {"pass", "example.net", "o"},
		{"pass", "m.example.com", "r"}, {"Pass", "Example.com", "s"}}
	var order []string
	for _, d := range s.row().Auth.DKIM {
		order = append(order, d.Selector)
	}
	if got := strings.Join(order, ""); got != "srof" {
		t.Errorf("order %q", got)
	}
	s.DKIM = make([]DKIM, 500)
	if n := len(s.row().Auth.DKIM); n != maxSigned {
		t.Errorf("%d signatures", n)
	}
}

func TestCollectorIsBounded(t *testing.T) {
	c := NewCollector(CollectorConfig{MaxDomains: 2, MaxRows: 3})
	for i := range 10 {
		s := seen(t, wanted, "example.com")
		s.Source = netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
		c.Add(s)
		c.Add(seen(t, wanted, fmt.Sprintf("d%d.example", i)))
	}
	due := c.Take(time.Unix(0, 0), time.Unix(1, 0))
	if len(due) != 2 {
		t.Fatalf("%d domains", len(due))
	}
	r := due[1].Report
	if len(r.Rows) != 3 || len(r.Metadata.Errors) != 1 || !strings.HasPrefix(r.Metadata.Errors[0], "7 messages are not") {
		t.Errorf("%d rows, errors %q", len(r.Rows), r.Metadata.Errors)
	}
}

// TestCollectorTotal: all reports together stay within the memory, over a restart too.
func TestCollectorTotal(t *testing.T) {
	c := NewCollector(CollectorConfig{MaxTotal: 3})
	add := func(host byte, domain string) {
		s := seen(t, wanted, domain)
		s.Source = netip.AddrFrom4([4]byte{192, 0, 2, host})
		c.Add(s)
	}
	for i := range byte(2) {
		add(i, "a.example")
		add(i, "b.example")
	}
	var saved strings.Builder
	if err := c.Save(&saved); err != nil {
		t.Fatal(err)
	}
	if err := c.Load(strings.NewReader(saved.String())); err != nil {
		t.Fatal(err)
	}
	add(0, "a.example") // counted in its row
	add(9, "a.example") // a further row
	add(0, "c.example") // nothing to report but that
	rows := 0
	due := c.Take(time.Unix(0, 0), time.Unix(1, 0))
	for _, d := range due {
		rows += len(d.Report.Rows)
	}
	if len(due) != 2 || rows != 3 {
		t.Errorf("%d reports with %d rows, want 2 with 3", len(due), rows)
	}
	add(9, "a.example")
	if due := c.Take(time.Unix(0, 0), time.Unix(1, 0)); len(due) != 1 {
		t.Errorf("%d reports on the next day, want 1", len(due))
	}
}

func TestCollectorSaves(t *testing.T) {
	c := NewCollector(CollectorConfig{Receiver: "mx.example"})
	s := seen(t, wanted+"; sp=x; t=y; fo=1; ruf=mailto:f@example.com", "example.com")
	c.Add(s)
	c.Add(s)
	var b bytes.Buffer
	if err := c.Save(&b); err != nil {
		t.Fatal(err)
	}
	d := NewCollector(CollectorConfig{Receiver: "mx.example"})
	if err := d.Load(&b); err != nil {
		t.Fatal(err)
	}
	c.Add(s)
	d.Add(s)
	begin, end := time.Unix(0, 0), time.Unix(1, 0)
	want, got := c.Take(begin, end), d.Take(begin, end)
	if fmt.Sprintf("%+v %+v", want[0].Report, want[0].To) != fmt.Sprintf("%+v %+v", got[0].Report, got[0].To) {
		t.Errorf("before\n%+v\nafter\n%+v", want[0], got[0])
	}
	if n := got[0].Report.Rows[0].Count; n != 3 {
		t.Errorf("count %d", n)
	}
	for _, bad := range []string{"", "{}", `{"Version":2}`, `{"Version":1,"Buckets":3}`} {
		if err := d.Load(strings.NewReader(bad)); err == nil {
			t.Errorf("loaded %q", bad)
		}
	}
	if err := d.Load(strings.NewReader(`{"Version":1,"Buckets":{"a":null,"b":{}}}`)); err != nil {
		t.Error(err)
	}
	d.Add(s)
}

func TestDestinations(t *testing.T) {
	z := dns.MustZone(map[string][]string{
		"_dmarc.example.com":                                  {"TXT v=DMARC1; p=none"},
		"_dmarc.psd.example":                                  {"TXT v=DMARC1; psd=y"},
		"blue.example.com._report._dmarc.red.example.net":     {"TXT v=DMARC1"},
		"blue.example.com._report._dmarc.over.example.net":    {"TXT v=DMARC1; rua=mailto:x@over.example.net"},
		"blue.example.com._report._dmarc.away.example.net":    {"TXT v=DMARC1; rua=mailto:x@victim.example"},
		"blue.example.com._report._dmarc.text.example.net":    {"TXT hello"},
		"*._report._dmarc.any.example.net":                    {"TXT v=DMARC1"},
		"blue.example.com._report._dmarc.two.example.net":     {"TXT other", "TXT v=DMARC1;"},
		"a.psd.example._report._dmarc.unrelated.example":      {"TXT v=DMARC1"},
		"blue.example.com._report._dmarc.fails.example.net":   {"TXT v=DMARC1"},
		"blue.example.com._report._dmarc.partner.example.com": {"TXT nothing"},
	})
	z.Fail("blue.example.com._report._dmarc.fails.example.net", dns.ServFail)
	rows := []struct {
		domain, place string
		want          string // address
		err           error
	}{
		{"blue.example.com", "mailto:r@blue.example.com", "r@blue.example.com", nil},
		{"blue.example.com", "mailto:r@example.com", "r@example.com", nil},
		{"example.com", "mailto:r@x.example.com", "r@x.example.com", nil},
		{"blue.example.com", "mailto:reports@red.example.net", "reports@red.example.net", nil},
		{"blue.example.com", "mailto:reports@over.example.net", "x@over.example.net", nil},
		{"blue.example.com", "mailto:reports@any.example.net", "reports@any.example.net", nil},
		{"blue.example.com", "mailto:reports@two.example.net", "reports@two.example.net", nil},
		{"blue.example.com", "mailto:reports@away.example.net", "", ErrNotWanted},
		{"blue.example.com", "mailto:reports@text.example.net", "", ErrNotWanted},
		{"blue.example.com", "mailto:victim@example.org", "", ErrNotWanted},
		{"blue.example.com", "mailto:reports@fails.example.net", "", dns.ErrTemporary},
		{"a.psd.example", "mailto:r@b.psd.example", "", ErrNotWanted},
		{"a.psd.example", "mailto:r@psd.example", "", ErrNotWanted},
		{strings.Repeat("long-label.", 20) + "example", "mailto:r@any.example.net", "", ErrNotWanted},
	}
	for _, row := range rows {
		place, err := parseURI(row.place)
		if err != nil {
			t.Fatal(err)
		}
		d := Destinations(t.Context(), z, row.domain, []URI{place})
		if len(d) != 1 || !errors.Is(d[0].Err, row.err) ||
			row.err == nil && (d[0].Err != nil || d[0].URI.Address.String() != row.want) {
			t.Errorf("%s to %s: %+v; want %q, %v", row.domain, row.place, d, row.want, row.err)
		}
	}
	twice, err := ParseRecord("v=DMARC1; rua=mailto:a@example.com,mailto:a@example.com,https://x.example")
	if err != nil {
		t.Fatal(err)
	}
	if d := Destinations(t.Context(), z, "example.com", twice.Aggregate); len(d) != 2 || d[0].Err != nil ||
		d[1].Err == nil {
		t.Errorf("an address twice, and a scheme that is not ours: %+v", d)
	}
}
