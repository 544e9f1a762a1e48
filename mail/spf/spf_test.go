package spf

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
)

var host = netip.MustParseAddr("192.0.2.1")

func query(domain string) Query {
	return Query{IP: host, Local: "ann", Domain: domain, Helo: "mx.a.test", Receiver: "mx.here.test",
		Now: time.Unix(1_000_000_000, 0)}
}

// TestLimits: what a record can make us ask is bounded (RFC 7208, section 4.6.4).
func TestLimits(t *testing.T) {
	z := dns.MustZone(map[string][]string{
		"circle.test": {"TXT v=spf1 include:circle.test -all"},
		"again.test":  {"TXT v=spf1 redirect=again.test"},
		"void2.test":  {"TXT v=spf1 a:x1.test a:x2.test ip4:192.0.2.1 -all"},
		"void3.test":  {"TXT v=spf1 a:x1.test exists:x2.test mx:x3.test ip4:192.0.2.1 -all"},
		"ten.test":    {"TXT v=spf1" + strings.Repeat(" a:other.test", 10) + " +all"},
		"eleven.test": {"TXT v=spf1" + strings.Repeat(" a:other.test", 11) + " +all"},
		"other.test":  {"A 203.0.113.1"},
		"mx11.test":   append(exchangers(11), "TXT v=spf1 mx -all"),
		"mx10.test":   append(exchangers(10), "TXT v=spf1 mx -all"),
		"long.test":   {"TXT v=spf1" + strings.Repeat(" ip4:203.0.113.1", 501)},
		"huge.test": {"TXT v=spf1 exists:" + strings.Repeat("%{l}.", 60) + "x.test -all",
			"A 203.0.113.1"},
	})
	for i := range 20 {
		z.Set(fmt.Sprintf("mx%d.hosts.test", i), "A 203.0.113.1")
	}
	for _, c := range []struct {
		domain string
		want   Result
		reason string
		most   int // questions
	}{
		{"circle.test", PermError, "more than 10 terms that ask the DNS", 11},
		{"again.test", PermError, "more than 10 terms that ask the DNS", 11},
		{"void2.test", Pass, `"ip4:192.0.2.1" of void2.test`, 3},
		{"void3.test", PermError, "more than 2 questions that find nothing", 4},
		{"ten.test", Pass, `"+all" of ten.test`, 11},
		{"eleven.test", PermError, "more than 10 terms", 11},
		{"mx11.test", PermError, "mx11.test has more than 10 exchangers", 2},
		{"mx10.test", Fail, `"-all" of mx10.test`, 12},
		{"long.test", PermError, "record of long.test: more than 500 terms", 1},
		{"huge.test", Fail, `"-all" of huge.test`, 2}, // cut on the left, as section 7.3 has it
	} {
		got := Check(context.Background(), z, query(c.domain))
		if got.Result != c.want || !strings.HasPrefix(got.Reason, c.reason) || got.Questions > c.most {
			t.Errorf("%s: %+v, want %s (%s) with at most %d questions", c.domain, got, c.want, c.reason,
				c.most)
		}
	}
}

func exchangers(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("MX 10 mx%d.hosts.test", i))
	}
	return out
}

// TestOutcomes of single records, beside what the suite has.
func TestOutcomes(t *testing.T) {
	for _, c := range []struct {
		record, ip string
		want       Result
	}{
		{"v=spf1", "192.0.2.1", Neutral},
		{"V=SPF1 IP4:192.0.2.1 -ALL", "192.0.2.1", Pass},
		{"v=spf1 ip4:192.0.2.1 -all", "::ffff:192.0.2.1", Pass}, // section 5: mapped addresses are IPv4
		{"v=spf1 ip6:::ffff:192.0.2.1 -all", "192.0.2.1", Fail},
		{"v=spf1 ip6:2001:db8::/32 -all", "2001:db8::1", Pass},
		{"v=spf1 ip4:192.0.2.0/24 -all", "2001:db8::1", Fail},
		{"v=spf1 a//64 -all", "2001:db8::ffff", Pass},
		{"v=spf1 a/24//128 -all", "2001:db8::ffff", Fail},
		{"v=spf1 a/24//128 -all", "192.0.2.200", Pass},
		{"v=spf1 ?ip4:192.0.2.1 -all", "192.0.2.1", Neutral},
		{"v=spf1 ~all", "192.0.2.1", SoftFail},
		{"v=spf1 mx -all", "192.0.2.9", Fail}, // the null MX
		{"v=spf1 all redirect=nowhere.test", "192.0.2.1", Pass},
		// One fault voids all of it (section 4.6).
		{"v=spf1 +all moo", "192.0.2.1", PermError},
		{"v=spf1 +all ip4:192.0.2.1/33", "192.0.2.1", PermError},
		{"v=spf1 +all a:x.test/08", "192.0.2.1", PermError},
		{"v=spf1 all:x.test", "192.0.2.1", PermError},
		{"v=spf1 +all include", "192.0.2.1", PermError},
		{"v=spf1 +all exists:", "192.0.2.1", PermError},
		{"v=spf1 +all ip4:1.2.3", "192.0.2.1", PermError},
		{"v=spf1 +all ip4:01.2.3.4", "192.0.2.1", PermError},
		{"v=spf1 +all ip6:fe80::1%eth0", "192.0.2.1", PermError},
		{"v=spf1 +all a:%{d0}.test", "192.0.2.1", PermError},
		{"v=spf1 +all a:%{c}.test", "192.0.2.1", PermError}, // only for explanations
		{"v=spf1 +all a:%{d", "192.0.2.1", PermError},
		{"v=spf1 +all a:%", "192.0.2.1", PermError},
		{"v=spf1 +all redirect=a.test redirect=a.test", "192.0.2.1", PermError},
		{"v=spf1 -", "192.0.2.1", PermError},
		{"v=spf1 include:none.test", "192.0.2.1", PermError},
		{"v=spf1 redirect=none.test", "192.0.2.1", PermError},
		{"v=spf1 include:broken.test", "192.0.2.1", TempError},
		{"v=spf1 a:broken.test", "192.0.2.1", TempError},
		{"v=spf1 mx:broken.test", "192.0.2.1", TempError},
		{"v=spf1 exists:broken.test", "192.0.2.1", TempError},
		{"v=spf1 ptr:broken.test", "192.0.2.1", Neutral}, // section 5.5: no match
		{"v=spf2.0/pra -all", "192.0.2.1", None},
		{"v=spf10 -all", "192.0.2.1", None},
	} {
		z := dns.MustZone(map[string][]string{"a.test": {"MX 0 .", "A 192.0.2.1", "AAAA 2001:db8::1"}})
		z.Set("a.test", "MX 0 .", "A 192.0.2.1", "AAAA 2001:db8::1", "TXT "+c.record)
		z.Fail("broken.test", dns.ServFail)
		q := query("a.test")
		q.IP = netip.MustParseAddr(c.ip)
		if got := Check(context.Background(), z, q); got.Result != c.want || got.Reason == "" && c.want != None {
			t.Errorf("%s for %s: %+v, want %s", c.record, c.ip, got, c.want)
		}
	}
}

// TestNoDomain: what cannot have a record has none, and nobody is asked (section 4.3).
func TestNoDomain(t *testing.T) {
	z := dns.MustZone(nil)
	for _, d := range []string{"", "localhost", "a..test", ".test", strings.Repeat("x", 64) + ".test",
		strings.Repeat("x.", 130) + "test"} {
		if got := Check(context.Background(), z, query(d)); got.Result != None || got.Questions != 0 {
			t.Errorf("%q: %+v", d, got)
		}
	}
	if got := Check(context.Background(), z, Query{Domain: "a.test"}); got.Result != None {
		t.Errorf("without an address: %+v", got)
	}
}

// TestExplanation: the owner's words, if they can be shown (section 6.2).
func TestExplanation(t *testing.T) {
	for text, want := range map[string]string{
		"%{i} may not, ask %{r} at %{t}": "192.0.2.1 may not, ask mx.here.test at 1000000000",
		"see http://a.test/?%{S}":        "see http://a.test/?ann%40a.test",
		"100%% no":                       "100% no",
		"no %{x}":                        "",
		"no %":                           "",
		"two\r\n250 lines":               "",
		"h\u00e9":                        "",
		strings.Repeat("x", 401):         "",
		"%{h}":                           "",
	} {
		z := dns.MustZone(map[string][]string{"a.test": {"TXT v=spf1 -all exp=e.a.test"}})
		z.Set("e.a.test", "TXT "+text)
		q := query("a.test")
		if text == "%{h}" { // what a stranger says may not end a line either
			q.Helo = "x\r\n250 ok"
		}
		if got := Check(context.Background(), z, q); got.Result != Fail || got.Explanation != want {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

func FuzzRecord(f *testing.F) {
	for _, s := range []string{"v=spf1 a/24//64 mx:%{d2r.-} -all", "v=spf1 ip4:192.0.2.0/24 exp=%{l}.x.test",
		"v=spf1 redirect=_spf.%{o}", "v=spf1 exists:%{ir}.%{v}._spf.%{d}", "v=spf1 ptr ?all unknown=%%"} {
		f.Add(s, "ann")
	}
	z := dns.MustZone(map[string][]string{"a.test": {"A 192.0.2.1", "MX 10 a.test"}})
	f.Fuzz(func(t *testing.T, record, local string) {
		if !isRecord(record) {
			return
		}
		rec, err := parseRecord(record)
		if err != nil {
			return
		}
		q := query("a.test")
		q.Local = local
		c := &check{ctx: context.Background(), dns: z, q: q}
		for _, d := range rec.directives {
			if c.matches(d, "a.test"); c.questions > 200 {
				t.Fatalf("%d questions", c.questions)
			}
			if d.spec != "" {
				if name, err := c.expandDomain(d.spec, "a.test"); err == nil && len(name) > maxName {
					t.Fatalf("name of %d octets", len(name))
				}
			}
		}
		if s := c.explanation(explain{rec.exp, "a.test"}); strings.ContainsAny(s, "\r\n\x00") {
			t.Fatalf("%q", s)
		}
	})
}

// BenchmarkCheck evaluates a record as large providers have them, with answers from memory.
func BenchmarkCheck(b *testing.B) {
	z := dns.MustZone(map[string][]string{
		"a.test":      {"TXT v=spf1 include:_spf.a.test include:_spf.b.test ~all"},
		"_spf.a.test": {"TXT v=spf1 ip4:198.51.100.0/24 ip4:203.0.113.0/24 ip6:2001:db8::/32 ~all"},
		"_spf.b.test": {"TXT v=spf1 ip4:192.0.2.0/28 ~all"},
	})
	b.ReportAllocs()
	for b.Loop() {
		if got := Check(context.Background(), z, query("a.test")); got.Result != Pass {
			b.Fatal(got)
		}
	}
}
