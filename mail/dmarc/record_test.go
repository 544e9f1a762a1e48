package dmarc

import (
	"errors"
	"strings"
	"testing"
)

func TestParseRecord(t *testing.T) {
	rows := []struct {
		name, text string
		want       string // describe's form; "" is ErrNoRecord
		faults     int
	}{
		// RFC 9989, appendix B.2
		{"monitoring", "v=DMARC1; p=none; rua=mailto:dmarc-feedback@example.com",
			"p=none rua=dmarc-feedback@example.com", 0},
		{"failure reports", "v=DMARC1; p=none; rua=mailto:dmarc-feedback@example.com; " +
			"ruf=mailto:auth-reports@thirdparty.example.net",
			"p=none rua=dmarc-feedback@example.com ruf=auth-reports@thirdparty.example.net", 0},
		{"report permission", "v=DMARC1;", "p=none", 0},
		{"testing", "v=DMARC1; p=quarantine; rua=mailto:dmarc-feedback@example.com," +
			"mailto:tld-test@thirdparty.example.net; t=y",
			"p=quarantine t rua=dmarc-feedback@example.com rua=tld-test@thirdparty.example.net", 0},

		{"all tags in any order", "v=DMARC1;np=reject;fo=1:d:s;ruf=mailto:f@a.example;aspf=s;adkim=s;" +
			"psd=n;t=n;sp=quarantine;p=none", "p=none sp=quarantine np=reject psd=n adkim aspf fo=1:d:s " +
			"ruf=f@a.example", 0},
		{"spaces", " v = DMARC1 ; \t p = Reject ;; ", "p=reject", 0},
		{"upper case tags", "V=DMARC1; P=REJECT; SP=None", "p=reject sp=none", 0},
		{"unknown tags", "v=DMARC1; p=reject; pct=5; rf=x; ri=86400; zz=1", "p=reject", 0},
		{"size limits", "v=DMARC1; rua=mailto:a@a.example!10m, mailto:b%21c@a.example!5",
			"p=none rua=a@a.example rua=b!c@a.example", 0},
		{"other schemes", "v=DMARC1; rua=https://r.example/x,mailto:a@a.example", "p=none " +
			"rua=https://r.example/x rua=a@a.example", 0},
		{"options without ruf", "v=DMARC1; fo=1", "p=none", 0},
		{"bad options", "v=DMARC1; fo=0:1; ruf=mailto:a@a.example", "p=none ruf=a@a.example", 1},
		{"repeated options", "v=DMARC1; fo=d:d; ruf=mailto:a@a.example", "p=none ruf=a@a.example", 1},
		{"repeated tag", "v=DMARC1; p=reject; p=none", "p=reject", 1},
		{"no value", "v=DMARC1; p=reject; adkim; aspf=; t=yes; psd=x", "p=reject", 4},
		{"bad policy", "v=DMARC1; p=rejct; sp=reject", "unusable p=none", 1},
		{"bad policy, reports wanted", "v=DMARC1; p=reject; sp=x; rua=mailto:a@a.example",
			"p=none rua=a@a.example", 1},
		{"bad address", "v=DMARC1; rua=a@a.example,mailto:,mailto:x,mailto:x@[192.0.2.1],,http:,%zz",
			"p=none", 7},
		{"too many addresses", "v=DMARC1; rua=" + strings.Repeat("mailto:a@a.example,", 20) + "x",
			"p=none" + strings.Repeat(" rua=a@a.example", maxURIs), 1},
		{"semicolon in text", "v=DMARC1; p=none; n=a; b", "p=none", 1},

		{"empty", "", "", 0},
		{"no version", "p=reject", "", 0},
		{"version later", "p=reject; v=DMARC1", "", 0},
		{"other version", "v=DMARC2; p=reject", "", 0},
		{"version in lower case", "v=dmarc1; p=reject", "", 0},
		{"no separator", "v=DMARC1 p=reject", "", 0},
		{"SPF", "v=spf1 -all", "", 0},
		{"too long", "v=DMARC1; p=none;" + strings.Repeat(" ", maxRecord), "", 0},
	}
	for _, row := range rows {
		r, err := ParseRecord(row.text)
		if row.want == "" {
			if !errors.Is(err, ErrNoRecord) {
				t.Errorf("%s: %v, want ErrNoRecord", row.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		if got := describe(r); got != row.want || len(r.Faults) != row.faults {
			t.Errorf("%s: %s, faults %q; want %s and %d faults", row.name, got, r.Faults, row.want, row.faults)
		}
	}
}

// describe writes a record without its defaults.
func describe(r *Record) string {
	var parts []string
	add := func(yes bool, s string) {
		if yes {
			parts = append(parts, s)
		}
	}
	add(!r.Usable(), "unusable")
	add(true, "p="+string(r.Policy))
	add(r.Subdomains != "", "sp="+string(r.Subdomains))
	add(r.NonExistent != "", "np="+string(r.NonExistent))
	add(r.PSD != PSDUnknown, "psd="+string(r.PSD))
	add(r.Testing, "t")
	add(r.StrictDKIM, "adkim")
	add(r.StrictSPF, "aspf")
	add(r.FailureOptions != "0", "fo="+r.FailureOptions)
	for _, u := range r.Aggregate {
		add(true, "rua="+u.describe())
	}
	for _, u := range r.Failure {
		add(true, "ruf="+u.describe())
	}
	return strings.Join(parts, " ")
}

func (u URI) describe() string {
	if !u.Address.IsNull() {
		return u.Address.String()
	}
	return u.Raw
}

// TestFaultsAreOneLine: what a stranger publishes ends in replies and header fields of ours.
func TestFaultsAreOneLine(t *testing.T) {
	r, err := ParseRecord("v=DMARC1; p=x\r\nBcc: y; t=\x00; a\nb; fo=\r; rua=\r\nx; psd=1\n2; psd=3; \n=4; \n=5")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Faults {
		if strings.ContainsAny(f, "\r\n\x00") {
			t.Errorf("fault %q", f)
		}
	}
	if len(r.Faults) < 6 {
		t.Errorf("faults %q", r.Faults)
	}
}

func TestURIHost(t *testing.T) {
	for raw, want := range map[string]string{
		"mailto:a@Example.ORG":          "example.org",
		"mailto:a@bücher.example":       "xn--bcher-kva.example",
		"https://R.example:8443/dmarc":  "r.example",
		"mailto:a@a.example?subject=hi": "a.example",
	} {
		u, err := parseURI(raw)
		if err != nil || u.Host() != want {
			t.Errorf("%s: host %q, %v; want %q", raw, u.Host(), err, want)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add("v=DMARC1; p=reject; sp=x; rua=mailto:a%40b@example.org!10m,https://x; fo=1:d; t=y; psd=n")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRecord(s)
		if err != nil {
			if !errors.Is(err, ErrNoRecord) {
				t.Errorf("error of another kind: %v", err)
			}
			return
		}
		if len(r.Faults) > maxFaults || len(r.Aggregate) > maxURIs || len(r.Failure) > maxURIs {
			t.Error("over a limit")
		}
		for _, u := range append(r.Aggregate, r.Failure...) {
			u.Host()
		}
	})
}
