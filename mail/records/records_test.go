package records

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/dkim"
	"github.com/tallypost/tallypost/mail/keyring"
	"github.com/tallypost/tallypost/mail/tlspolicy"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func newCertificate(t *testing.T) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"mx.example.org"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newSite(t *testing.T) *Site {
	t.Helper()
	private, err := dkim.GenerateEd25519()
	if err != nil {
		t.Fatal(err)
	}
	return &Site{Domain: "example.org", Host: "mx.example.org",
		Keys: []keyring.Key{{Key: dkim.Key{Domain: "example.org", Selector: "s", Private: private},
			Algorithm: "ed25519", State: keyring.State{Signs: true, Published: now}}},
		Reports:      []mail.Address{{Local: "tally,reports", Domain: "example.org"}, {Local: "r", Domain: "watch.example"}},
		STS:          &tlspolicy.STSPolicy{Mode: tlspolicy.ModeEnforce, MX: []string{"mx.example.org"}, MaxAge: time.Hour},
		Certificates: []*x509.Certificate{newCertificate(t)},
		ImplicitTLS:  465, StartTLS: 587}
}

// publish puts the lines as they are printed into a zone, with what they leave open.
func publish(t *testing.T, list []Record) *dns.Zone {
	t.Helper()
	var b strings.Builder
	for _, r := range list {
		if !strings.HasPrefix(r.Line(), ";") {
			b.WriteString(r.Line() + "\n")
		}
	}
	b.WriteString("mx.example.org. IN A 192.0.2.25\n25.2.0.192.in-addr.arpa. IN PTR mx.example.org.\n")
	zone, err := dns.ParseZone("example.org", b.String())
	if err != nil {
		t.Fatalf("%v in\n%s", err, b.String())
	}
	return zone
}

// TestAsPrinted: who publishes what is printed has everything that a stranger's server looks for.
func TestAsPrinted(t *testing.T) {
	list, err := newSite(t).Records()
	if err != nil {
		t.Fatal(err)
	}
	c := Checker{Resolver: publish(t, list), Now: now}
	var seen []string
	for _, f := range c.Check(t.Context(), list) {
		seen = append(seen, f.Type)
		want := Good
		if f.Type == "SRV" {
			want = Unchecked
		}
		if f.Status != want {
			t.Errorf("%s: %s %s", f.Line(), f.Status, f.Words)
		}
	}
	if got := strings.Join(seen, " "); got != "MX A PTR TXT TXT TXT TXT TXT TXT CNAME TXT TLSA SRV SRV" {
		t.Errorf("records of the types %s", got)
	}
}

// TestNothingThere: a domain without records, and a name server that does not answer.
func TestNothingThere(t *testing.T) {
	list, err := newSite(t).Records()
	if err != nil {
		t.Fatal(err)
	}
	zone := new(dns.Zone)
	for _, f := range (&Checker{Resolver: zone, Now: now}).Check(t.Context(), list) {
		if f.Status == Good || f.Status == Wrong {
			t.Errorf("%s: %s %s", f.Line(), f.Status, f.Words)
		}
	}
	for _, r := range list {
		zone.Fail(r.Name, dns.ServFail)
	}
	for _, f := range (&Checker{Resolver: zone, Now: now}).Check(t.Context(), list) {
		if f.Status != Unknown && f.Status != Unchecked {
			t.Errorf("%s: %s %s", f.Line(), f.Status, f.Words)
		}
	}
}

// TestBroken breaks one record at a time.
func TestBroken(t *testing.T) {
	site := newSite(t)
	list, err := site.Records()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name string
		set  []string
		want string // the finding for the first record of that name that is not good
	}{
		{"example.org", []string{"MX 10 other.example", "TXT v=spf1 mx -all"}, "wrong: mail goes to other.example"},
		{"example.org", []string{"MX 10 mx.example.org", "TXT v=spf1 -all"},
			`wrong: fail for mail from 192.0.2.25: "-all" of example.org`},
		{"example.org", []string{"MX 10 mx.example.org", "TXT v=spf1 mx -al"},
			`wrong: permerror for mail from 192.0.2.25: record of example.org: "-al": unknown mechanism`},
		{"example.org", []string{"MX 10 mx.example.org", "TXT v=spf1 mx", "TXT v=spf1 mx"}, "wrong: permerror"},
		{"example.org", []string{"MX 10 mx.example.org"}, "missing"},
		{"25.2.0.192.in-addr.arpa", []string{"PTR host25.isp.example"}, "wrong: 192.0.2.25 is called host25.isp.example"},
		{"25.2.0.192.in-addr.arpa", nil, "missing: 192.0.2.25 has no name"},
		{"s._domainkey.example.org", []string{"TXT v=DKIM1; k=ed25519; p="}, "wrong: key was withdrawn"},
		{"_dmarc.example.org", []string{"TXT v=DMARC1; p=none", "TXT v=DMARC1; p=none"}, "wrong: more than one"},
		{"_dmarc.example.org", []string{"TXT v=DMARC1; p=whatever"}, "wrong: v=DMARC1; p=whatever"},
		{"_dmarc.example.org", []string{"TXT hello"}, "missing"},
		{"example.org._report._dmarc.watch.example", nil, "missing"},
		{"_smtp._tls.example.org", []string{"TXT v=TLSRPTv1; rua=mailto:a@b.example", "TXT v=TLSRPTv1; rua=mailto:a@b.example"},
			"wrong: no TLSRPT record: 2 of them"},
		{"_mta-sts.example.org", []string{"TXT v=STSv1; id=2019"}, "wrong: id 2019 is that of another policy"},
		{"mta-sts.example.org", nil, "missing"},
		{"_25._tcp.mx.example.org", []string{"TLSA 3 1 1 " + strings.Repeat("00", 32)}, "wrong: no record fits"},
	} {
		zone := publish(t, list)
		zone.Set(row.name, row.set...)
		got := ""
		for _, f := range (&Checker{Resolver: zone, Now: now}).Check(t.Context(), list) {
			if f.Status != Good && f.Status != Unchecked && got == "" {
				got = strings.TrimSuffix(fmt.Sprintf("%s: %s", f.Status, f.Words), ": ")
			}
		}
		if !strings.HasPrefix(got, row.want) || row.want == "missing" && got != row.want {
			t.Errorf("%s %q: %q, want %q", row.name, row.set, got, row.want)
		}
	}
}

func TestDNSSEC(t *testing.T) {
	site := newSite(t)
	list, err := site.Records()
	if err != nil {
		t.Fatal(err)
	}
	zone := publish(t, list)
	words := func() string {
		for _, f := range (&Checker{Resolver: zone, Now: now}).Check(context.Background(), list) {
			if f.Type == "TLSA" {
				return f.Words
			}
		}
		return ""
	}
	if got := words(); !strings.HasPrefix(got, "but DNSSEC does not vouch") {
		t.Error(got)
	}
	zone.Sign("example.org", true)
	if got := words(); got != "vouched for by DNSSEC" {
		t.Error(got)
	}
}

// TestLongText: a record longer than 255 octets is cut into strings that receivers join.
func TestLongText(t *testing.T) {
	r := Record{Name: "s._domainkey.example.org", Type: "TXT", Value: strings.Repeat("x", 300)}
	want := `s._domainkey.example.org. IN TXT "` + strings.Repeat("x", 255) + `" "` + strings.Repeat("x", 45) + `"`
	if r.Line() != want {
		t.Error(r.Line())
	}
}

// TestHostIsDomain: a server named as its domain has no SPF record twice.
func TestHostIsDomain(t *testing.T) {
	list, err := (&Site{Domain: "example.org", Host: "example.org"}).Records()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, r := range list {
		if strings.HasPrefix(r.Value, "v=spf1") {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d SPF records", n)
	}
}
