package intake

import (
	"regexp"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/mail"
)

func patterns(t *testing.T, list ...string) (out []Pattern) {
	t.Helper()
	for _, s := range list {
		p, err := ParsePattern(s)
		if err != nil {
			t.Fatal(s, err)
		}
		out = append(out, p)
	}
	return out
}

// TestPatterns: which addresses a pattern names.
func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, addr string
		want          bool
	}{
		{"ann@x.example", "Ann@X.example", true},
		{"ann@x.example", "bob@x.example", false},
		{"ann@x.example", "ann@a.x.example", false},
		{"x.example", "bob@x.example", true},
		{"@x.example", "bob@x.example", true},
		{"x.example", "bob@a.x.example", false},
		{".x.example", "bob@a.x.example", true},
		{".x.example", "bob@a.b.x.example", true},
		{".x.example", "bob@x.example", false},
		{".x.example", "bob@ax.example", false},
		{"<>", "", true},
		{"<>", "a@x.example", false},
		{"x.example", "", false},
	} {
		var a mail.Address
		if c.addr != "" {
			a = at(c.addr)
		}
		if got := patterns(t, c.pattern)[0].matches(a); got != c.want {
			t.Errorf("%s names %s: %v", c.pattern, c.addr, got)
		}
	}
	for _, bad := range []string{"", "@", "a b@x.example", "x..example", "."} {
		if p, err := ParsePattern(bad); err == nil {
			t.Errorf("%q is read as %+v", bad, p)
		}
	}
}

// TestRules: what the operator has decided holds, in the order it was written down.
func TestRules(t *testing.T) {
	p := newPort(t, func(s *setup) {
		s.Weighers = []Weigher{heavy{}}
		s.Rules = []Rule{
			{Senders: patterns(t, "friend@bad.example"), Action: RuleDefer, Text: "later, my friend"},
			{Senders: patterns(t, "bad.example", ".bad.example"), Action: RuleRefuse, Text: "we do not talk to you"},
			{Clients: prefixes(bareHost + "/32"), Senders: patterns(t, "quar.example"), Action: RuleAccept},
			{Recipients: patterns(t, "eve@here.example", "bob@here.example"), Clients: prefixes(bareHost + "/32"),
				Action: RuleRefuse},
			{Senders: patterns(t, "good.example"), Header: regexp.MustCompile(`(?i)^Subject: .*lottery`),
				Action: RuleRefuse},
			{Senders: patterns(t, "good.example"), Header: regexp.MustCompile(`^X-Pet: (cat|dog)$`), Action: RuleJunk},
			{Senders: patterns(t, "ann@good.example"), Action: RuleAccept},
		}
	})
	with := func(field string) string { return field + "\n" + plainText }
	for _, c := range []struct {
		name string
		l    letter
		want string // reply, or the first word of the verdict
	}{
		{"a sender's domain", letter{from: "x@bad.example"}, "550 5.7.1 we do not talk to you"},
		{"a domain below", letter{from: "x@a.bad.example"}, "550 5.7.1 we do not talk to you"},
		{"the first that holds", letter{from: "Friend@bad.example"}, "450 4.7.1 later, my friend"},
		{"to the postmaster", letter{from: "x@bad.example", to: []string{"postmaster"}, text: bareText}, "junk"},
		{"one recipient", letter{ip: bareHost, to: []string{"bob@here.example"}},
			"550 5.7.1 refused by a rule of this server"},
		{"a header", letter{text: strings.Replace(plainText, "hello", "the LOTTERY", 1)},
			"550 5.7.1 refused by a rule"},
		{"a folded header", letter{text: strings.Replace(plainText, "hello", "the\n lottery", 1)},
			"550 5.7.1 refused by a rule"},
		{"a header to the postmaster", letter{to: []string{"abuse@here.example"},
			text: strings.Replace(plainText, "hello", "lottery", 1)}, "junk"},
		{"junk", letter{text: with("X-Pet: dog")}, "550 5.7.1 the message looks like spam"},
		{"welcome", letter{}, "accept"},
		{"who is known by address, whatever DMARC says", letter{ip: bareHost, from: "x@quar.example",
			text: strings.Replace(bareText, "bare", "quar", 1)}, "accept"},
		{"nobody else", letter{ip: bareHost, from: "bob@bare.example", text: bareText},
			"550 5.7.1 the message looks like spam"},
	} {
		got := p.send(c.l)
		if strings.HasPrefix(got, "250 ") {
			got = p.last().verdict()
		}
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestRuleJunk: without points, too, and a rule says so in the verdict.
func TestRuleJunk(t *testing.T) {
	p := newPort(t, func(s *setup) {
		s.Rules = []Rule{{Senders: patterns(t, "good.example"), Action: RuleJunk, Text: "newsletters"}}
	})
	if got := p.take(letter{}).verdict(); !strings.HasPrefix(got, "junk; ") ||
		!strings.Contains(got, "rule=+0.0 (junk: newsletters)") {
		t.Error(got)
	}
}

// TestArchive: a copy of everything, and no report of it.
func TestArchive(t *testing.T) {
	p := newPort(t, func(s *setup) { s.Archive = at("bob+copies@here.example") })
	got := p.take(letter{})
	if rcpts := got.rcpts(); len(rcpts) != 2 || rcpts[1] != "bob@here.example" ||
		got.env.Recipients[1].Notify != mail.NotifyNever || got.env.Recipients[0].Notify != 0 {
		t.Errorf("%v", got.env.Recipients)
	}
	if got := p.take(letter{to: []string{"bob@here.example"}}).rcpts(); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

// TestOurName: a stranger who writes in the name of a domain of ours.
func TestOurName(t *testing.T) {
	p := newPort(t, nil)
	const own = "own=+3.0 (it claims to be of here.example"
	ours := letter{text: strings.ReplaceAll(plainText, "ann@good.example", "bob@here.example")}
	if got := p.take(ours).verdict(); !strings.Contains(got, own) {
		t.Error(got)
	}
	if got := p.take(letter{}).verdict(); strings.Contains(got, "own=") {
		t.Error(got)
	}
	p.zone.Set("_dmarc.here.example", "TXT v=DMARC1; p=none")
	if got := p.take(ours).verdict(); strings.Contains(got, "own=") || !strings.Contains(got, "dmarc=+1.0") {
		t.Error(got)
	}
}
