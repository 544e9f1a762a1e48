package dmarc

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/internal/dns"
)

// zone makes a Zone of DMARC records, and of names that merely exist ("name" without text).
func zone(t testing.TB, records map[string]string) *dns.Zone {
	t.Helper()
	z := new(dns.Zone)
	for domain, text := range records {
		name, rr := "_dmarc."+domain, "TXT "+text
		if text == "" {
			name, rr = domain, "A 192.0.2.1"
		}
		if err := z.Set(name, rr); err != nil {
			t.Fatal(err)
		}
	}
	return z
}

func signedBy(domains ...string) (out []DKIM) {
	for _, d := range domains {
		out = append(out, DKIM{Result: "pass", Domain: d, Selector: "s"})
	}
	return out
}

func sentBy(domain string) SPF { return SPF{Result: "pass", Domain: domain} }

// TestOrganization is RFC 9989, sections 4.10.2 and appendix B.4, and what follows from their
// rules.
func TestOrganization(t *testing.T) {
	rows := []struct {
		name    string
		records map[string]string
		domain  string
		want    string
	}{
		{"two records", map[string]string{"mail.example.com": "v=DMARC1", "example.com": "v=DMARC1"},
			"a.mail.example.com", "example.com"},
		{"psd=n stops", map[string]string{"mail.example.com": "v=DMARC1; psd=n", "example.com": "v=DMARC1"},
			"a.mail.example.com", "mail.example.com"},
		{"psd=y above", map[string]string{"com": "v=DMARC1; psd=y"}, "a.mail.example.com", "example.com"},
		{"psd=y one above", map[string]string{"example.com": "v=DMARC1; psd=y"}, "mail.example.com",
			"mail.example.com"},
		{"B.4.1", map[string]string{"example.com": "v=DMARC1", "signing.example.com": "v=DMARC1"},
			"signing.example.com", "example.com"},
		{"B.4.2", map[string]string{"example.com": "v=DMARC1", "signing.example.com": "v=DMARC1"},
			"a.b.c.d.e.f.g.h.i.j.k.example.com", "example.com"},
		{"B.4.3, author", bank, "giant.bank.example", "giant.bank.example"},
		{"B.4.3, path", bank, "mail.giant.bank.example", "giant.bank.example"},
		{"B.4.3, signer", bank, "mail.mega.bank.example", "mega.bank.example"},
		{"the suffix itself", bank, "bank.example", "bank.example"},
		{"nothing", nil, "mail.example.com", "mail.example.com"},
		{"multiple records count for none", map[string]string{"mail.example.com": "v=DMARC1"},
			"x.twice.example.com", "x.twice.example.com"},
		// RFC 9989, section 5.1.8: a record that the short cut passes by.
		{"record not reached", map[string]string{"example.com": "v=DMARC1",
			"b.c.d.e.f.g.example.com": "v=DMARC1; psd=n"}, "mail.a.b.c.d.e.f.g.example.com", "example.com"},
	}
	for _, row := range rows {
		z := zone(t, row.records)
		if err := z.Set("_dmarc.twice.example.com", "TXT v=DMARC1; psd=n", "TXT v=DMARC1; psd=n"); err != nil {
			t.Fatal(err)
		}
		steps, err := newWalker(z).walk(t.Context(), row.domain)
		if err != nil {
			t.Fatal(err)
		}
		if got := organization(row.domain, steps); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}

var bank = map[string]string{
	"bank.example":       "v=DMARC1; p=reject; psd=y",
	"giant.bank.example": "v=DMARC1; p=quarantine",
}

// TestWalkNames is the list of questions in RFC 9989, section 4.10.
func TestWalkNames(t *testing.T) {
	for domain, want := range map[string]string{
		"a.b.c.d.e.f.g.h.i.j.mail.example.com": "a.b.c.d.e.f.g.h.i.j.mail.example.com " +
			"g.h.i.j.mail.example.com h.i.j.mail.example.com i.j.mail.example.com j.mail.example.com " +
			"mail.example.com example.com com",
		"mail.a.b.c.d.e.f.g.example.com": "mail.a.b.c.d.e.f.g.example.com c.d.e.f.g.example.com " +
			"d.e.f.g.example.com e.f.g.example.com f.g.example.com g.example.com example.com com",
		"1.2.3.4.5.6.example.com": "1.2.3.4.5.6.example.com 2.3.4.5.6.example.com 3.4.5.6.example.com " +
			"4.5.6.example.com 5.6.example.com 6.example.com example.com com",
		"example.com": "example.com com",
		"localhost":   "localhost",
	} {
		var got []string
		for name := domain; name != ""; name = next(name) {
			got = append(got, name)
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s:\n%s\nwant\n%s", domain, s, want)
		}
	}
}

func TestEvaluate(t *testing.T) {
	org := map[string]string{
		"example.com":      "v=DMARC1; p=reject; sp=quarantine; np=reject; rua=mailto:r@example.com",
		"sub.example.com":  "v=DMARC1; p=quarantine; adkim=s; aspf=s",
		"test.example.com": "v=DMARC1; p=reject; t=y",
		"bad.example":      "v=DMARC1; p=rejct",
		"www.example.com":  "",
		"psd.example":      "v=DMARC1; p=none; sp=quarantine; np=reject; psd=y",
		"a.psd.example":    "",
		"unit.example.com": "v=DMARC1; p=none; psd=n",
	}
	rows := []struct {
		name   string
		author string
		spf    SPF
		dkim   []DKIM
		want   string // result, policy, tag, domain of the record
	}{
		// RFC 9989, appendix B.1
		{"SPF strict", "example.com", sentBy("example.com"), nil, "pass none p example.com"},
		{"SPF relaxed", "example.com", sentBy("child.example.com"), nil, "pass none p example.com"},
		{"SPF of another", "child.example.com", sentBy("example.net"), nil, "fail reject np example.com"},
		{"DKIM strict", "example.com", SPF{}, signedBy("example.com"), "pass none p example.com"},
		{"DKIM relaxed", "child.example.com", SPF{}, signedBy("example.com"), "pass none sp example.com"},
		{"DKIM of another", "www.example.com", SPF{}, signedBy("example.net"),
			"fail quarantine sp example.com"},
		{"case", "EXAMPLE.com.", sentBy("Example.COM"), nil, "pass none p example.com"},
		{"second signature", "example.com", SPF{}, signedBy("example.net", "m.example.com"),
			"pass none p example.com"},

		{"nothing authenticated", "example.com", SPF{}, nil, "fail reject p example.com"},
		{"SPF did not pass", "example.com", SPF{"softfail", "example.com"},
			[]DKIM{{"fail", "example.com", "s"}}, "fail reject p example.com"},
		{"subdomain that exists", "www.example.com", SPF{}, nil, "fail quarantine sp example.com"},
		{"subdomain that does not", "w.example.com", SPF{}, nil, "fail reject np example.com"},
		{"below a name that exists", "x.www.example.com", SPF{}, nil, "fail reject np example.com"},
		{"own record, strict, identical", "sub.example.com", SPF{}, signedBy("sub.example.com"),
			"pass none p sub.example.com"},
		{"own record, strict, parent", "sub.example.com", sentBy("example.com"),
			signedBy("example.com", "x.sub.example.com"), "fail quarantine p sub.example.com"},
		{"below a record that is not the organization's", "x.sub.example.com", SPF{}, nil,
			"fail reject np example.com"},
		{"test mode", "test.example.com", SPF{}, nil, "fail quarantine p test.example.com"},
		{"test mode, pass", "test.example.com", sentBy("example.com"), nil,
			"pass none p test.example.com"},
		{"unit declared its own organization", "unit.example.com", sentBy("example.com"), nil,
			"fail none p unit.example.com"},
		{"from outside into the unit", "example.com", sentBy("x.unit.example.com"), nil,
			"fail reject p example.com"},
		{"within the unit", "unit.example.com", sentBy("x.unit.example.com"), nil,
			"pass none p unit.example.com"},
		{"public suffix", "a.psd.example", SPF{}, signedBy("b.psd.example"),
			"fail quarantine sp psd.example"},
		{"public suffix, within", "x.a.psd.example", SPF{}, signedBy("y.a.psd.example"),
			"pass none sp psd.example"},
		{"public suffix, no such name", "n.psd.example", SPF{}, nil, "fail reject np psd.example"},
		{"public suffix signs", "a.psd.example", SPF{}, signedBy("psd.example"),
			"fail quarantine sp psd.example"},

		{"no record", "example.net", sentBy("example.net"), nil, "none none  "},
		{"bad record", "bad.example", sentBy("bad.example"), nil, "permerror none  bad.example"},
		{"bad domain", "exa mple.com", sentBy("x"), nil, "permerror none  "},
		{"address literal", "[192.0.2.1]", SPF{}, nil, "permerror none  "},
		{"bad signer", "example.com", sentBy("[192.0.2.1]"), signedBy("", "a..b", "x y"),
			"fail reject p example.com"},
	}
	for _, row := range rows {
		v := Evaluate(t.Context(), zone(t, org), row.author, row.spf, row.dkim)
		if got := fmt.Sprintf("%s %s %s %s", v.Result, v.Wants(), v.Tag, v.Domain); got != row.want {
			t.Errorf("%s: %q, want %q (%s)", row.name, got, row.want, v.Explain)
		}
		if v.Explain == "" {
			t.Errorf("%s: nothing explained", row.name)
		}
	}
}

// TestEvaluateExamples is RFC 9989, appendix B.4.
func TestEvaluateExamples(t *testing.T) {
	simple := map[string]string{"example.com": "v=DMARC1; p=reject", "signing.example.com": "v=DMARC1"}
	v := Evaluate(t.Context(), zone(t, simple), "example.com", sentBy("example.com"),
		signedBy("signing.example.com"))
	if v.Result != Pass || !v.SPF.Aligned || !v.DKIM.Aligned || v.Organization != "example.com" {
		t.Errorf("B.4.1: %+v", v)
	}
	v = Evaluate(t.Context(), zone(t, simple), "a.b.c.d.e.f.g.h.i.j.k.example.com",
		sentBy("example.com"), signedBy("signing.example.com"))
	if v.Result != Pass || !v.SPF.Aligned || !v.DKIM.Aligned || v.Domain != "example.com" {
		t.Errorf("B.4.2: %+v", v)
	}
	v = Evaluate(t.Context(), zone(t, bank), "giant.bank.example", sentBy("mail.giant.bank.example"),
		signedBy("mail.mega.bank.example"))
	if v.Result != Pass || !v.SPF.Aligned || v.DKIM.Aligned || v.Domain != "giant.bank.example" {
		t.Errorf("B.4.3: %+v", v)
	}
}

func TestEvaluateTemporary(t *testing.T) {
	records := map[string]string{"example.com": "v=DMARC1; p=reject; sp=none; np=quarantine"}
	rows := []struct {
		name, fails, author string
		spf                 SPF
		dkim                []DKIM
		want                Result
	}{
		{"own record", "_dmarc.www.example.com", "www.example.com", sentBy("www.example.com"), nil,
			TempError},
		{"record above", "_dmarc.com", "www.example.com", SPF{}, nil, TempError},
		{"not needed", "_dmarc.com", "example.com", SPF{}, signedBy("example.com"), Pass},
		{"alignment", "_dmarc.m.example.com", "example.com", sentBy("m.example.com"), nil, TempError},
		{"alignment, another passes", "_dmarc.m.example.com", "example.com",
			sentBy("m.example.com"), signedBy("n.example.com"), Pass},
		{"organization", "_dmarc.com", "example.com", SPF{}, signedBy("m.example.com"), TempError},
		{"stranger", "_dmarc.com", "example.com", SPF{}, signedBy("m.example.net"), Fail},
		{"existence", "www.example.com", "www.example.com", SPF{}, nil, TempError},
	}
	for _, row := range rows {
		z := zone(t, records)
		z.Fail(row.fails, dns.ServFail)
		v := Evaluate(t.Context(), z, row.author, row.spf, row.dkim)
		if v.Result != row.want {
			t.Errorf("%s: %s, want %s (%s)", row.name, v.Result, row.want, v.Explain)
		}
		if v.Result == TempError && v.Wants() != PolicyNone {
			t.Errorf("%s: temperror asks for %s", row.name, v.Wants())
		}
	}
}

// TestQuestionsAreBounded: what a stranger writes into a message does not decide how much we ask.
func TestQuestionsAreBounded(t *testing.T) {
	deep := strings.Repeat("a.", 100)
	records := map[string]string{"example.com": "v=DMARC1; p=reject; np=none"}
	var below, beside []string
	for i := range 1000 {
		below = append(below, fmt.Sprintf("s%d.%sexample.com", i, deep))
		beside = append(beside, fmt.Sprintf("s%d.example.net", i))
	}
	rows := []struct {
		name, author string
		spf          SPF
		dkim         []DKIM
		most         int
	}{
		{"author signs", "example.com", sentBy("example.com"), signedBy("example.com"), 1},
		{"author sends, others sign", "example.com", sentBy("example.com"), signedBy(beside...), 1},
		{"strangers sign", "example.com", SPF{}, signedBy(beside...), 1},
		{"strangers of the same top", "example.com", SPF{}, signedBy("a.com", "b.com"), 2},
		{"no policy", deep + "example.net", sentBy(deep + "example.org"), signedBy(beside...), 8},
		{"deep", deep + "example.com", sentBy("x." + deep + "example.com"), signedBy(below[:2]...), 12},
		{"many deep", "unit." + deep + "example.com", SPF{}, signedBy(below...), 8 + maxSigners + 1},
	}
	for _, row := range rows {
		z := zone(t, records)
		v := Evaluate(t.Context(), z, row.author, row.spf, row.dkim)
		if n := z.Asked("", ""); n != v.Questions || n > row.most {
			t.Errorf("%s: %d questions, %d counted, want at most %d", row.name, n, v.Questions, row.most)
		}
	}
}

// TestManySigners: those beyond the limit are not looked at, identical ones do not count.
func TestManySigners(t *testing.T) {
	z := zone(t, map[string]string{"example.com": "v=DMARC1; p=reject"})
	signers := slices.Repeat([]string{"a.example.com"}, 500)
	for i := range maxSigners {
		name := fmt.Sprintf("u%d.example.com", i)
		signers = append(signers, name)
		if err := z.Set("_dmarc."+name, "TXT v=DMARC1; psd=n"); err != nil {
			t.Fatal(err)
		}
	}
	if v := Evaluate(t.Context(), z, "example.com", SPF{}, signedBy(signers...)); v.Result != Pass {
		t.Errorf("%s (%s)", v.Result, v.Explain)
	}
	if v := Evaluate(t.Context(), z, "example.com", SPF{},
		signedBy(append(signers[500:], "a.example.com")...)); v.Result != Fail {
		t.Errorf("a signer beyond the limit was looked at: %s (%s)", v.Result, v.Explain)
	}
}

func BenchmarkEvaluate(b *testing.B) {
	records := map[string]string{"example.com": "v=DMARC1; p=reject; sp=none; rua=mailto:r@example.com"}
	for _, row := range []struct {
		name, author string
		spf          SPF
		dkim         []DKIM
	}{
		{"identical", "example.com", sentBy("example.com"), signedBy("example.com")},
		{"relaxed", "www.example.com", sentBy("bounce.example.com"), signedBy("example.com")},
		{"fail", "example.com", sentBy("example.net"), signedBy("example.net", "example.org")},
		{"deepest", strings.Repeat("a.", 60) + "example.com", SPF{},
			signedBy("b."+strings.Repeat("a.", 60)+"example.com", "c."+strings.Repeat("a.", 60)+"example.com")},
	} {
		b.Run(row.name, func(b *testing.B) {
			z := zone(b, records)
			questions := 0
			for b.Loop() {
				questions = Evaluate(b.Context(), z, row.author, row.spf, row.dkim).Questions
			}
			b.ReportMetric(float64(questions), "questions/op")
		})
	}
}
