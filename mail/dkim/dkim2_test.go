package dkim

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/internal/vectors"
	"github.com/tallypost/tallypost/mail"
)

type dkim2Case struct {
	Name, File string
	MailFrom   string   `json:"mail_from"`
	RcptTo     []string `json:"rcpt_to"`
	Expected   string
	Now        int64
	Strict     bool
}

// path reads an address of a case, with or without brackets.
func path(t *testing.T, s string) mail.Address {
	t.Helper()
	if s = strings.Trim(s, "<>"); s == "" {
		return mail.Address{}
	}
	a, err := mail.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func dkim2Zone(t *testing.T) *dns.Zone {
	t.Helper()
	var records map[string]map[string][][2]string
	if err := json.Unmarshal(vectors.Read(t, "mail/dkim2/dns.json"), &records); err != nil {
		t.Fatal(err)
	}
	z := new(dns.Zone)
	for domain, names := range records {
		for name, rrs := range names {
			if err := z.Set(name+"."+domain, "TXT "+rrs[0][1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	return z
}

// verifyCase verifies a message of the suite with the envelope and the time of its case.
func (c dkim2Case) verify(t *testing.T, z *dns.Zone, msg string) DKIM2Result {
	t.Helper()
	chain := &dkim2Chain{from: path(t, c.MailFrom), now: time.Unix(c.Now, 0), bare: !c.Strict}
	for _, to := range c.RcptTo {
		chain.to = append(chain.to, path(t, to))
	}
	return chain.result(t.Context(), z, []byte(crlf(msg)))
}

func dkim2Cases(t *testing.T) []dkim2Case {
	t.Helper()
	var cases []dkim2Case
	if err := json.Unmarshal(vectors.Read(t, "mail/dkim2/cases.json"), &cases); err != nil {
		t.Fatal(err)
	}
	return cases
}

// TestDKIM2 runs the interoperability cases of the draft.
func TestDKIM2(t *testing.T) {
	zone, cases := dkim2Zone(t), dkim2Cases(t)
	if len(cases) != 47 {
		t.Errorf("%d cases, the suite has 47", len(cases))
	}
	for _, c := range cases {
		if c.Now == 0 {
			c.Now = 1782394396 // one case has no time; its signature was made with the others
		}
		got := c.verify(t, zone, string(vectors.Read(t, "mail/dkim2/expected/"+c.File)))
		if string(got.State) != c.Expected {
			t.Errorf("%s: %s (%s), want %s", c.Name, got.State, got.Reason, c.Expected)
		}
	}
}

func oneCase(t *testing.T, name string) (dkim2Case, string) {
	t.Helper()
	for _, c := range dkim2Cases(t) {
		if c.Name == name {
			return c, string(vectors.Read(t, "mail/dkim2/expected/"+c.File))
		}
	}
	t.Fatalf("no case %s", name)
	return dkim2Case{}, ""
}

// TestDKIM2Bent bends a message of five hops, whose list changed it, and its envelope.
func TestDKIM2Bent(t *testing.T) {
	zone := dkim2Zone(t)
	c, msg := oneCase(t, "interop_brong_chain_hop5")
	whole := c.verify(t, zone, msg)
	if whole.State != Pass || len(whole.Hops) != 5 || whole.Hops[0].Domain != "test1.dkim2.com" ||
		!whole.Hops[1].Changed || whole.Hops[1].To[0].String() != "user@test3.dkim2.com" {
		t.Errorf("%+v", whole)
	}
	for _, b := range []struct {
		name, old, new string
		want           State
		reason         string
	}{
		{"body", "Hi All,", "Hi You,", Fail, "body of instance"},
		{"field", "Thu, 08 Aug 2024", "Fri, 09 Aug 2024", Fail, "header of instance"},
		{"a field put in", "\nFrom: Bron", "\nFrom: evil@example.com\nFrom: Bron", Fail, "header of"},
		{"trace may come", "\nFrom: Bron", "\nX-Spam: no\nReceived: x\nFrom: Bron", Pass, ""},
		{"signature", "i=1; m=1; t=1740000000", "i=1; m=1; t=1740000001", Fail, "signature 1"},
		{"a hop taken out", "DKIM2-Signature: i=2;", "X-Was: i=2;", PermError, "gap"},
		{"an instance taken out", "Message-Instance: m=2;", "X-Was: m=2;", PermError, ""},
		{"a hop twice", "DKIM2-Signature: i=2;", "DKIM2-Signature: i=3;", PermError, "gap"},
		{"a far number", "DKIM2-Signature: i=2;", "DKIM2-Signature: i=99;", PermError, "number in i="},
		{"no signature at all", "DKIM2-Signature", "X-Was", None, ""},
	} {
		if !strings.Contains(msg, b.old) {
			t.Fatalf("%s: nothing to bend", b.name)
		}
		got := c.verify(t, zone, strings.ReplaceAll(msg, b.old, b.new))
		if got.State != b.want || !strings.Contains(got.Reason, b.reason) {
			t.Errorf("%s: %s (%s), want %s, %q", b.name, got.State, got.Reason, b.want, b.reason)
		}
	}
	for name, bend := range map[string]func(*dkim2Case){
		"replayed to another":  func(c *dkim2Case) { c.RcptTo = []string{"victim@example.com"} },
		"replayed to one more": func(c *dkim2Case) { c.RcptTo = append(c.RcptTo, "victim@example.com") },
		"from another":         func(c *dkim2Case) { c.MailFrom = "x@test5.dkim2.com" },
		"from nobody":          func(c *dkim2Case) { c.MailFrom = "<>" },
		"15 days later":        func(c *dkim2Case) { c.Now += 15 * 24 * 3600 },
		"before it was made":   func(c *dkim2Case) { c.Now -= 2 * 24 * 3600 },
	} {
		bent := c
		bend(&bent)
		if got := bent.verify(t, zone, msg); got.State != PermError {
			t.Errorf("%s: %+v, want permerror", name, got)
		}
	}
	zone.Fail("sel3._domainkey.test3.dkim2.com", dns.ServFail)
	if got := c.verify(t, zone, msg); got.State != TempError {
		t.Errorf("a key not there now: %+v", got)
	}
}

// TestRecipes undoes changes of header and body.
func TestRecipes(t *testing.T) {
	const msg = "A: 1\r\nB: x\r\nA: 2\r\nX-Z: y\r\n\r\none\r\ntwo\r\nthree\r\n"
	for _, c := range []struct{ name, recipe, want string }{
		{"nothing", `{}`, "a=2,1 b=x|one,two,three"},
		{"unknown key", `{"z":[1]}`, "a=2,1 b=x|one,two,three"},
		{"field was not there", `{"h":{"B":[]}}`, "a=2,1|one,two,three"},
		{"field was another", `{"h":{"b":[{"d":["y"]}]}}`, "a=2,1 b=y|one,two,three"},
		{"fields are counted from the last", `{"h":{"a":[{"c":[1,1]},{"d":["0"]}]}}`,
			"a=2,0 b=x|one,two,three"},
		{"field was there", `{"h":{"c":[{"d":["new"]}]}}`, "a=2,1 b=x c=new|one,two,three"},
		{"trace is left alone", `{"h":{"x-z":[{"d":["0"]}],"received":[{"d":["0"]}]}}`,
			"a=2,1 b=x|one,two,three"},
		{"lines", `{"b":[{"c":[1,1]},{"d":["1.5"]},{"c":[3,3]}]}`, "a=2,1 b=x|one,1.5,three"},
		{"beyond the end", `{"b":[{"c":[0,99]}]}`, "a=2,1 b=x|one,two,three"},
		{"backwards", `{"b":[{"c":[3,1]}]}`, "a=2,1 b=x|"},
		{"empty body", `{"b":[]}`, "a=2,1 b=x|"},
		{"odd step", `{"b":[{"e":1},{"c":[1]},{"d":["z"]}]}`, "a=2,1 b=x|z"},
		{"lost body", `{"b":null}`, "!"},
		{"no JSON", `{`, "!"},
		{"other JSON", `[]`, "!"},
		{"other steps", `{"b":7}`, "!"},
		{"other step", `{"b":[{"c":["x"]}]}`, "!"},
		{"gigabytes", `{"b":[` + strings.Repeat(`{"c":[1,3]},`, 5000) + `{"c":[1,3]}]}`, "!"},
	} {
		if got := undone(t, msg, c.recipe); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// undone returns the version before, in short, or "!".
func undone(t *testing.T, msg, text string) string {
	t.Helper()
	h, err := mail.ParseHeader([]byte(msg))
	if err != nil {
		t.Fatal(err)
	}
	v := newVersion(h, []byte(msg[h.Len:]))
	r, err := parseRecipe([]byte(text))
	if err == nil {
		err = v.undo(r)
	}
	if err != nil {
		return "!"
	}
	var names []string
	for _, name := range []string{"a", "b", "c", "received", "x-z"} {
		var values []string
		for _, raw := range v.fields[name] {
			values = append(values, strings.TrimSpace(string(rawValue(raw))))
		}
		if values != nil {
			names = append(names, name+"="+strings.Join(values, ","))
		}
	}
	body := strings.TrimSuffix(strings.ReplaceAll(string(v.body), "\r\n", ","), ",")
	return strings.Join(names, " ") + "|" + body
}

// FuzzDKIM2: nothing makes DKIM2 say pass without a key, or use more than its budget.
func FuzzDKIM2(f *testing.F) {
	f.Add("DKIM2-Signature: i=1; m=1; t=1; d=a.b; mf=PD4=; rt=PGFAYj4=; s=s:ed25519-sha256:AAAA\r\n"+
		"Message-Instance: m=1; h=sha256:AAAA:AAAA; r=e30=\r\n\r\n", `{"h":{"a":[{"c":[1,2]}]},"b":[]}`)
	zone := new(dns.Zone)
	f.Fuzz(func(t *testing.T, msg, text string) {
		res := VerifyDKIM2(t.Context(), zone, []byte(msg), mail.Address{}, nil, time.Unix(1, 0))
		if res.State == Pass || res.State == "" {
			t.Errorf("%+v", res)
		}
		h, err := mail.ParseHeader([]byte(msg))
		if err != nil {
			return
		}
		r, err := parseRecipe([]byte(text))
		if err != nil {
			return
		}
		v := newVersion(h, []byte(msg[h.Len:]))
		if v.undo(r) == nil && len(v.body) > len(msg)+len(text)+spareOctets {
			t.Errorf("%d octets from %d and %d", len(v.body), len(msg), len(text))
		}
		v.headerHash()
		v.bodyHash()
	})
}
