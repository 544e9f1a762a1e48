package spf

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/internal/vectors"
)

// suite is one document of the suite of RFC 7208.
type suite struct {
	zone  *dns.Zone
	tests []suiteTest
}

type suiteTest struct {
	name, helo, host, from string
	want                   []string
	explanation            string
}

// readSuite reads the suite: of YAML just what it uses.
func readSuite(t *testing.T) (out []suite) {
	t.Helper()
	text := string(vectors.Read(t, "mail/spf/rfc7208-tests.yml"))
	for doc := range strings.SplitSeq(text, "\n---\n") {
		if strings.HasPrefix(doc, "#") {
			continue // what stands before the first
		}
		tests, zone, found := strings.Cut(doc, "\nzonedata:\n")
		if !found {
			t.Fatal("a document without a zone")
		}
		s := suite{zone: new(dns.Zone)}
		for line := range strings.SplitSeq(tests, "\n") {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			value = strings.TrimSpace(value)
			switch indent := len(line) - len(strings.TrimLeft(line, " ")); {
			case indent == 2 && value == "" && strings.HasSuffix(line, ":"):
				s.tests = append(s.tests, suiteTest{name: key})
			case indent == 4 && len(s.tests) > 0:
				c := &s.tests[len(s.tests)-1]
				switch key {
				case "helo":
					c.helo = scalar(value)
				case "host":
					c.host = scalar(value)
				case "mailfrom":
					c.from = scalar(value)
				case "result":
					c.want = flow(value)
				case "explanation":
					c.explanation = scalar(value)
				}
			}
		}
		readZone(t, s.zone, zone)
		out = append(out, s)
	}
	return out
}

// readZone reads the records. A name that has SPF records and no TXT record has them as TXT, for the
// type SPF is no more.
func readZone(t *testing.T, z *dns.Zone, text string) {
	names := []string{}
	records := make(map[string][][2]string)
	for line := range strings.SplitSeq(text, "\n") {
		if strings.TrimSpace(line) == "" || strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		if rest, ok := strings.CutPrefix(line, "    - "); ok {
			kind, value, _ := strings.Cut(rest, ":")
			name := names[len(names)-1]
			records[name] = append(records[name], [2]string{kind, strings.TrimSpace(value)})
			continue
		}
		names = append(names, scalar(strings.TrimSuffix(strings.TrimSpace(line), ":")))
	}
	for _, name := range names {
		var set []string
		hasTXT := slices.ContainsFunc(records[name], func(r [2]string) bool { return r[0] == "TXT" })
		for _, r := range records[name] {
			switch kind, value := r[0], r[1]; kind {
			case "TIMEOUT":
				// Beside a TXT record it is the type SPF that nobody answers for.
				if !slices.ContainsFunc(records[name], isTXT) {
					z.Fail(name, dns.Timeout)
				}
			case "CNAMELOOP":
				z.Fail(name, dns.ServFail)
			case "SPF", "TXT":
				if kind == "SPF" && hasTXT || value == "NONE" {
					continue
				}
				set = append(set, "TXT "+strings.Join(flow(value), ""))
			case "MX":
				mx := flow(value)
				if mx[1] == "" {
					mx[1] = "."
				}
				set = append(set, "MX "+mx[0]+" "+mx[1])
			default:
				set = append(set, kind+" "+scalar(value))
			}
		}
		z.Set(strings.ReplaceAll(name, " ", `\032`), set...) // as a zone file has it
	}
}

func isTXT(r [2]string) bool { return r[0] == "TXT" && r[1] != "NONE" }

// flow reads a scalar or a list in brackets.
func flow(s string) (out []string) {
	if !strings.HasPrefix(s, "[") {
		return []string{scalar(s)}
	}
	for item := range strings.SplitSeq(strings.Trim(s, "[] "), ",") {
		out = append(out, scalar(strings.TrimSpace(item)))
	}
	return out
}

// scalar reads a value: in double quotes with escapes, in single quotes, or as it is.
func scalar(s string) string {
	switch {
	case strings.HasPrefix(s, `"`):
		v, err := strconv.Unquote(strings.NewReplacer(`\0`, `\x00`, `\x`, `\x`).Replace(s))
		if err != nil {
			panic(s + ": " + err.Error())
		}
		return v
	case strings.HasPrefix(s, "'"):
		return strings.ReplaceAll(strings.Trim(s, "'"), "''", "'")
	}
	return s
}

// TestRFC7208 runs the suite of the SPF community: all of it.
func TestRFC7208(t *testing.T) {
	pass, all := 0, 0
	for _, s := range readSuite(t) {
		for _, c := range s.tests {
			all++
			local, domain, found := strings.Cut(c.from, "@")
			switch {
			case c.from == "":
				domain = c.helo
			case !found:
				local, domain = "", c.from
			}
			got := Check(context.Background(), s.zone, Query{IP: netip.MustParseAddr(c.host), Local: local,
				Domain: domain, Helo: c.helo})
			want := strings.TrimPrefix(c.explanation, "DEFAULT")
			switch {
			case !slices.Contains(c.want, string(got.Result)):
				t.Errorf("%s: %s (%s), want %v", c.name, got.Result, got.Reason, c.want)
			case c.explanation != "" && !strings.EqualFold(got.Explanation, want):
				t.Errorf("%s: explanation %q, want %q", c.name, got.Explanation, want)
			default:
				pass++
			}
		}
	}
	if all != 203 || pass != all {
		t.Errorf("%d of %d cases, want 203 of 203", pass, all)
	}
}
