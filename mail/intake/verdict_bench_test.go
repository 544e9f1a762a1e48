package intake

import (
	"bytes"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/dkim"
)

// BenchmarkVerdict is what a message of 10 KiB from another server costs, over a connection in memory
// that is kept, into a queue in memory: from a host that nothing is asked about, from one that SPF and
// DMARC vouch for, and with one and two signatures to verify. The differences are the cost of the
// checks; the zone answers at once, so nothing here is time spent waiting for the DNS.
//
//	go test ./mail/intake -run '^$' -bench Verdict
func BenchmarkVerdict(b *testing.B) {
	for _, c := range []struct {
		name    string
		trusted bool
		keys    []string
	}{
		{"no-checks", true, nil},
		{"spf-dmarc", false, nil},
		{"spf-dkim-rsa-dmarc", false, []string{"rsa"}},
		{"spf-dkim-rsa-ed25519-dmarc", false, []string{"rsa", "ed25519"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := newPort(b, func(s *setup) {
				s.Limits = Limits{}
				if c.trusted {
					s.RelayFrom = prefixes(goodHost + "/32")
				}
			})
			text := p.signed(plainText+strings.Repeat("0123456789 abcdefghijklmnopqrstuvwxyz\n", 270), c.keys)
			conn, _ := p.from(goodHost)
			conn.say("EHLO mx.good.example")
			b.SetBytes(int64(len(text)))
			cpu := cpuTime(b)
			for b.Loop() {
				conn.say("MAIL FROM:<ann@good.example>")
				conn.say("RCPT TO:<ada@here.example>")
				conn.say("DATA")
				conn.write(text + ".\r\n")
				if r := conn.reply(); r[0] != '2' {
					b.Fatal(r)
				}
			}
			b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
			results := strings.Join(p.last().fields("Authentication-Results"), " ")
			if passed := strings.Count(results, "=pass"); !c.trusted && passed != 3+len(c.keys) {
				b.Fatalf("%d checks passed, want iprev, spf, dmarc and %d signatures: %s", passed, len(c.keys), results)
			}
		})
	}
}

// signed returns a text of good.example, which ends its lines in LF, as it goes over the wire with
// signatures by keys of these names.
func (p *port) signed(text string, names []string) string {
	p.t.Helper()
	msg := bytes.ReplaceAll([]byte(text), []byte("\n"), []byte("\r\n"))
	if len(names) == 0 {
		return string(msg)
	}
	keys := p.keys("good.example")
	var use []dkim.Key
	for _, name := range names {
		use = append(use, keys[name])
	}
	s, err := dkim.NewSigner(dkim.SignConfig{Keys: use})
	if err != nil {
		p.t.Fatal(err)
	}
	h, err := mail.ParseHeader(msg)
	if err != nil {
		p.t.Fatal(err)
	}
	g, err := s.Begin(h, noon)
	if err != nil {
		p.t.Fatal(err)
	}
	g.Write(msg[h.Len:])
	fields, err := g.Finish()
	if err != nil {
		p.t.Fatal(err)
	}
	return string(fields) + string(msg)
}
