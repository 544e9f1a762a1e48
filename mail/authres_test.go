package mail

import (
	"reflect"
	"strings"
	"testing"
)

func TestAuthResultsWritten(t *testing.T) {
	for _, c := range []struct {
		name string
		a    AuthResults
		want string
	}{
		{"nothing was checked", AuthResults{ServID: "mx.example.org"}, "mx.example.org; none"},
		{"spf and dkim", AuthResults{"mx.example.org", []AuthResult{
			{Method: "spf", Result: "pass", Props: []AuthProp{{"smtp", "mailfrom", "ann@example.net"}}},
			{Method: "dkim", Result: "fail", Comment: "expired", Reason: `it's "old"`, Props: []AuthProp{
				{"header", "d", "example.net"}, {"header", "i", "@example.net"},
				{"header", "b", "ab/d+f=="}, {"header", "s", "sel"}}},
		}}, "mx.example.org;\r\n\tspf=pass smtp.mailfrom=ann@example.net;\r\n" +
			"\tdkim=fail (expired) reason=\"it's \\\"old\\\"\" header.d=example.net\r\n" +
			"\t header.i=@example.net header.b=\"ab/d+f==\" header.s=sel"},
		{"what strangers choose", AuthResults{"mx", []AuthResult{{Method: "spf", Result: "fail",
			Comment: "); dkim=pass (\\", Reason: "\"; dkim=pass\r\nX: y",
			Props: []AuthProp{{"smtp", "helo", "a; dkim=pass"}, {"smtp", "mailfrom", "a\r\n\tb\x00@c"},
				{"s.x=y;", "", ""}}}}},
			"mx;\r\n\tspf=fail (\\); dkim=pass \\(\\\\) reason=\"\\\"; dkim=pass??X: y\"\r\n" +
				"\t smtp.helo=\"a; dkim=pass\" smtp.mailfrom=\"a???b?@c\" sxy.x=\"\""},
		{"UTF-8", AuthResults{"mx", []AuthResult{{Method: "spf", Result: "pass",
			Props: []AuthProp{{"smtp", "mailfrom", "δ@example.org"}, {"smtp", "helo", "a\u202eb\xff"}}}}},
			"mx;\r\n\tspf=pass smtp.mailfrom=δ@example.org smtp.helo=\"a?b?\""},
	} {
		if got := c.a.Value(); got != c.want {
			t.Errorf("%s:\n%q, want\n%q", c.name, got, c.want)
		}
		if got := string(c.a.Field()); got != "Authentication-Results: "+c.want+"\r\n" {
			t.Errorf("%s: field %q", c.name, got)
		}
	}
	long := AuthResults{"mx", []AuthResult{{Method: "spf", Result: "pass",
		Props: []AuthProp{{"smtp", "helo", strings.Repeat("x", 5000)}}}}}
	for line := range strings.SplitSeq(long.Value(), "\r\n") {
		if len(line) > 998 {
			t.Errorf("line of %d octets", len(line))
		}
	}
}

// TestAuthResultsRead: examples of RFC 8601, appendix B, and its grammar bent.
func TestAuthResultsRead(t *testing.T) {
	for _, c := range []struct {
		value, want string // want as Value would write it, folds as spaces; "!" for an error
	}{
		{"example.org 1; none", "example.org; none"},
		{"example.org;", "example.org; none"},
		{"example.com; spf=pass smtp.mailfrom=example.net",
			"example.com; spf=pass smtp.mailfrom=example.net"},
		{"example.com;\r\n  auth=pass (cram-md5) smtp.auth=sender@example.net;\r\n" +
			"  spf=pass smtp.mailfrom=example.net",
			"example.com; auth=pass (cram-md5) smtp.auth=sender@example.net; " +
				"spf=pass smtp.mailfrom=example.net"},
		{"foo.example.net (foobar) 1 (baz);\r\n" +
			" dkim (Because I like it) / 1 (One yay) = (wait for it) fail\r\n" +
			" policy (A dot can go here) . (like that) expired\r\n" +
			" (this surprised me) = (as I wasn't expecting it) 1362471462",
			"foo.example.net; dkim=fail policy.expired=1362471462"},
		{`mx; dkim=fail reason="bad \"sig\"" header.i="a b"@x.org`,
			`mx; dkim=fail reason="bad \"sig\"" header.i="a b@x.org"`},
		{`"mx.example.org"; DKIM=PASS`, "mx.example.org; dkim=pass"},
		{"mx; dkim=pass action=none header.d=x", "mx; dkim=pass header.d=x"},
		{"mx; dkim=neutral (no (nested) end) header.d=x",
			`mx; dkim=neutral (no \(nested\) end) header.d=x`},
		{"", "!"},
		{"; spf=pass", "!"},
		{"mx spf=pass", "!"},
		{"mx; spf", "!"},
		{"mx; spf=", "!"},
		{"mx; spf=pass smtp", "!"},
		{"mx; spf=pass smtp.mailfrom", "!"},
		{"mx; spf=pass smtp.mailfrom=", "!"},
		{"mx; spf=pass mailfrom=x", "!"},
		{"mx; spf=pass (", "!"},
		{`mx; spf=pass reason="`, "!"},
		{"mx" + strings.Repeat("(", 50) + strings.Repeat(")", 50) + "; none", "!"},
		{"mx" + strings.Repeat("; a=b", maxAuthResults+1), "!"},
	} {
		a, err := ParseAuthResults(c.value)
		got := "!"
		if err == nil {
			got = strings.Join(strings.Fields(a.Value()), " ")
		}
		if got != c.want {
			t.Errorf("%q: %s, %v, want %s", c.value, got, err, c.want)
		}
	}
}

// TestForgedAuthResults is RFC 8601, section 5.
func TestForgedAuthResults(t *testing.T) {
	for _, c := range []struct {
		field string
		want  bool
	}{
		{"Authentication-Results: mx.example.org; spf=pass", true},
		{"authentication-results : MX.Example.ORG; spf=pass", true},
		{"Authentication-Results: mx.example.org.; spf=pass", true},
		{"Authentication-Results: (hi) \"mx.example.org\" 1; spf=pass", true},
		{"Authentication-Results: mx.example.org/1; spf=pass", true},
		{"Authentication-Results:\r\n\tmx.example.org;\r\n\tspf=pass", true},
		{"Authentication-Results: mx.example.org", true},
		{"Authentication-Results: xn--bcher-kva.example; none", true},
		{"Authentication-Results: bücher.example; none", true},
		{"Authentication-Results: other.example.org; spf=pass", false},
		{"Authentication-Results: mx.example.org.evil.example; spf=pass", false},
		{"Authentication-Results: other; spf=pass (mx.example.org)", false},
		{"Authentication-Results: ; spf=pass", true},          // cannot be read
		{"Authentication-Results: (mx.example.org", true},     // cannot be read
		{"ARC-Authentication-Results: mx.example.org", false}, // another field
	} {
		h, err := ParseHeader([]byte(c.field + "\r\n\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got := h.Fields[0].BearsAuthServID("mx.example.org", "bücher.example"); got != c.want {
			t.Errorf("%q: %v", c.field, got)
		}
	}
}

// FuzzAuthResults: what is read can be written, and reads the same; no field grows a result.
func FuzzAuthResults(f *testing.F) {
	f.Add("mx; spf=pass (c) smtp.mailfrom=a@b; dkim=fail reason=\"x\"")
	f.Add("foo (x) 1; dkim / 1 = fail policy . expired = 1")
	f.Fuzz(func(t *testing.T, value string) {
		a, err := ParseAuthResults(value)
		if err != nil {
			return
		}
		b, err := ParseAuthResults(a.Value())
		if err != nil {
			t.Fatalf("wrote %q: %v", a.Value(), err)
		}
		if len(a.Results) != len(b.Results) {
			t.Fatalf("wrote %q: %d results, were %d", a.Value(), len(b.Results), len(a.Results))
		}
		c, err := ParseAuthResults(b.Value())
		if err != nil || !reflect.DeepEqual(strings.Fields(b.Value()), strings.Fields(c.Value())) {
			t.Errorf("%q became %q, %v", b.Value(), c.Value(), err)
		}
	})
}
