package mail

import (
	"encoding/xml"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/internal/vectors"
)

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]string{
		"ada@example.org":        "ada@example.org",
		"Ada@EXAMPLE.org":        "Ada@example.org",
		"ada@example.org.":       "!",
		`"ada"@example.org`:      "ada@example.org",
		`"a b"@example.org`:      `"a b"@example.org`,
		`"a\"b\\c"@example.org`:  `"a\"b\\c"@example.org`,
		`"a@b"@example.org`:      `"a@b"@example.org`,
		"postmaster":             "postmaster",
		"ada@[192.0.2.1]":        "ada@[192.0.2.1]",
		"ada@[ipv6:2001:DB8::1]": "ada@[IPv6:2001:db8::1]",
		"δοκιμή@παράδειγμα.δοκιμή":           "δοκιμή@παράδειγμα.δοκιμή",
		"a@under_score.example.org":          "a@under_score.example.org",
		strings.Repeat("v", 100) + "@x.test": strings.Repeat("v", 100) + "@x.test",

		"": "!", "ada": "!", "@example.org": "!", "ada@": "!", "a b@example.org": "!",
		"ada@-x.org": "!", "ada@x-.org": "!", "ada@x..org": "!", ".ada@x.org": "!", "ada.@x.org": "!",
		"a..b@x.org": "!", `"ada@x.org`: "!", `"a"b@x.org`: "!", `""@x.org`: "!", `"a\`: "!", "ada@x.o rg": "!",
		"ada@[192.0.2.1": "!", "ada@[2001:db8::1]": "!", "ada@[IPv6:192.0.2.1]": "!", "ada@[IPv6:fe80::1%eth0]": "!",
		"ada\r\n@x.org": "!", "ada@x.org\r\nRCPT": "!", "\xff@x.org": "!", "ada@\xff.org": "!",
		"ada@" + strings.Repeat("x", 64) + ".org":      "!",
		"ada@" + strings.Repeat("x.", 128) + "org":     "!",
		strings.Repeat("v", MaxLocalPart+1) + "@x.org": "!",
	} {
		a, err := ParseAddress(in)
		if got := a.String(); err == nil && got != want || (err != nil) != (want == "!") {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

// TestIsEmail: an address is taken exactly where the suite calls it fit for an envelope.
func TestIsEmail(t *testing.T) {
	var suite struct {
		Tests []struct {
			ID        string `xml:"id,attr"`
			Address   string `xml:"address"`
			Category  string `xml:"category"`
			Diagnosis string `xml:"diagnosis"`
		} `xml:"test"`
	}
	if err := xml.Unmarshal(vectors.Read(t, "mail/address/isemail-two-thirds.xml"), &suite); err != nil {
		t.Fatal(err)
	}
	if len(suite.Tests) < 100 {
		t.Fatalf("%d tests", len(suite.Tests))
	}
	differ := map[string]string{
		"ISEMAIL_RFC5322_LOCAL_TOOLONG":  "longer than 64 octets: taken, see MaxLocalPart",
		"ISEMAIL_RFC5322_TOOLONG":        "longer than 254 octets: taken likewise",
		"ISEMAIL_RFC5321_IPV6DEPRECATED": "'::' for a single group: taken, RFC 5952 only advises against it",
	}
	for _, c := range suite.Tests {
		// The suite writes control characters as the symbols of U+2400.
		in := strings.Map(func(r rune) rune {
			if 0x2400 <= r && r <= 0x2421 {
				return r - 0x2400
			}
			return r
		}, c.Address)
		want := c.Category == "ISEMAIL_VALID_CATEGORY" || c.Category == "ISEMAIL_DNSWARN" ||
			c.Category == "ISEMAIL_RFC5321" || differ[c.Diagnosis] != ""
		if _, err := ParseAddress(in); (err == nil) != want {
			t.Errorf("#%s %q: %v; the suite says %s", c.ID, in, err, c.Diagnosis)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"ada@example.org", `"a b"@x`, "a@[IPv6:::1]", "δ@παράδειγμα.δοκιμή", "a@xn--a.b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		again, err := ParseAddress(a.String())
		if err != nil || again != a {
			t.Errorf("%q is %q; read again %q, %v", s, a, again, err)
		}
		if strings.ContainsAny(a.String(), "\r\n\x00") {
			t.Errorf("%q has a line end or NUL", a)
		}
	})
}

func TestWire(t *testing.T) {
	a, err := ParseAddress("ada@bücher.example")
	if err != nil {
		t.Fatal(err)
	}
	if got := a.Wire(false); got != "ada@xn--bcher-kva.example" {
		t.Errorf("without SMTPUTF8: %s", got)
	}
	if got := a.Wire(true); got != "ada@bücher.example" {
		t.Errorf("with SMTPUTF8: %s", got)
	}
}
