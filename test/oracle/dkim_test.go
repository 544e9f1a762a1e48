package oracle

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"testing"
	"time"

	peer "github.com/emersion/go-msgauth/dkim"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/dkim"
)

// messages makes random messages of the kinds that differ between implementations: folding, white space
// in odd places, several fields of a name, 8-bit octets, empty bodies, no final line end.
type messages struct{ *mathrand.Rand }

func (m messages) pick(from ...string) string { return from[m.IntN(len(from))] }

func (m messages) text(n int) string {
	var b strings.Builder
	for range m.IntN(n + 1) {
		b.WriteString(m.pick("a", "Word", " ", "  ", "\t", " \t ", ".", "=", "\xff", "ü", ";", "x y", ":"))
	}
	return b.String()
}

func (m messages) field() string {
	name := m.pick("To", "to", "Subject", "SUBJECT", "Date", "Received", "X-Odd", "Message-ID", "Cc",
		"Content-Type", "List-Id")
	v := m.pick(" ", "", "\t", "  ") + m.text(12)
	for range m.IntN(3) {
		v += "\r\n" + m.pick(" ", "\t", "  \t") + "f" + m.text(8) // a folded line holds something
	}
	return name + ":" + v + "\r\n"
}

func (m messages) message() []byte {
	var b strings.Builder
	from := m.IntN(5)
	for i := range 5 {
		if i == from {
			b.WriteString(m.pick("From: ", "from:", "FROM:  ") + "ann@example.org\r\n")
		}
		if m.IntN(3) > 0 {
			b.WriteString(m.field())
		}
	}
	b.WriteString("\r\n")
	for range m.IntN(8) {
		b.WriteString(m.pick("", "", " ", "\t ", m.text(20), m.text(300)) + "\r\n")
	}
	b.WriteString(m.pick("", "no line end", " ", "\r\n\r\n", "text \t"))
	return []byte(b.String())
}

// bend changes one octet, or a line, of a message.
func (m messages) bend(msg []byte) []byte {
	msg = bytes.Clone(msg)
	switch i := m.IntN(len(msg)); m.IntN(4) {
	case 0:
		if c := msg[i]; c != '\r' && c != '\n' && c != ':' {
			msg[i] = m.pick("x", "y", " ")[0]
		}
	case 1:
		msg = append(msg, m.pick("\r\n", "PS\r\n", " ")...)
	case 2:
		msg = append([]byte(m.pick("X-New: 1\r\n", "Subject: new\r\n", "Received: x\r\n")), msg...)
	case 3:
		msg = bytes.Replace(msg, []byte(" "), []byte("  "), 1)
	}
	return msg
}

type dkimKeys struct {
	keys []dkim.Key
	zone *dns.Zone
}

func newDKIMKeys(t testing.TB) dkimKeys {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, e, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k := dkimKeys{zone: new(dns.Zone)}
	for sel, private := range map[string]crypto.Signer{"r": r, "e": e} {
		k.keys = append(k.keys, dkim.Key{Domain: "example.org", Selector: sel, Private: private})
		record, err := dkim.Record(private.Public())
		if err != nil {
			t.Fatal(err)
		}
		if err := k.zone.Set(dkim.RecordName("example.org", sel), "TXT "+record); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

// ours verifies with our implementation and says for each signature whether it passed, and why not.
func (k dkimKeys) ours(t testing.TB, msg []byte) (pass []bool, why []string) {
	t.Helper()
	h, err := mail.ParseHeader(msg)
	if err != nil {
		t.Fatalf("%v in %q", err, msg)
	}
	v := dkim.NewVerifier(context.Background(), k.zone, h, time.Now(), dkim.VerifyConfig{})
	v.Write(msg[h.Len:])
	for _, r := range v.Finish() {
		pass, why = append(pass, r.State == dkim.Pass), append(why, r.Reason)
	}
	return pass, why
}

// theirs verifies with go-msgauth.
func (k dkimKeys) theirs(t testing.TB, msg []byte) (pass []bool, why []string) {
	t.Helper()
	results, err := peer.VerifyWithOptions(bytes.NewReader(msg), &peer.VerifyOptions{
		LookupTXT: func(name string) ([]string, error) {
			txt, _, err := k.zone.TXT(context.Background(), name)
			return txt, err
		}})
	if err != nil {
		t.Fatalf("%v in %q", err, msg)
	}
	for _, r := range results {
		pass, why = append(pass, r.Err == nil), append(why, fmt.Sprint(r.Err))
	}
	return pass, why
}

// TestDKIMSignedByUs: go-msgauth verifies what we sign, and rejects what we reject of it when bent.
func TestDKIMSignedByUs(t *testing.T) {
	k := newDKIMKeys(t)
	s, err := dkim.NewSigner(dkim.SignConfig{Keys: k.keys, Expire: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	m := messages{mathrand.New(mathrand.NewPCG(6376, 1))}
	bentPasses := 0
	for range 200 {
		msg := m.message()
		fields, err := s.Sign(msg, time.Now())
		if err != nil {
			t.Fatalf("%v in %q", err, msg)
		}
		msg = append(fields, msg...)
		for _, check := range []func(testing.TB, []byte) ([]bool, []string){k.ours, k.theirs} {
			if pass, why := check(t, msg); len(pass) != 2 || !pass[0] || !pass[1] {
				t.Fatalf("%v %v for %q", pass, why, msg)
			}
		}
		bent := m.bend(msg)
		if _, err := mail.ParseHeader(bent); err != nil {
			continue
		}
		us, why := k.ours(t, bent)
		them, whyThem := k.theirs(t, bent)
		if fmt.Sprint(us) != fmt.Sprint(them) {
			t.Errorf("bent: we say %v %v, go-msgauth says %v %v of %q", us, why, them, whyThem, bent)
		}
		if len(us) > 0 && us[0] {
			bentPasses++
		}
	}
	if bentPasses == 0 {
		t.Error("no bent message passed: the bending is too rough to tell anything")
	}
}

// TestDKIMSignedByThem: we verify what go-msgauth signs, in all its canonicalizations.
func TestDKIMSignedByThem(t *testing.T) {
	k := newDKIMKeys(t)
	m := messages{mathrand.New(mathrand.NewPCG(6376, 2))}
	canons := []peer.Canonicalization{peer.CanonicalizationSimple, peer.CanonicalizationRelaxed}
	for i := range 400 {
		msg := m.message()
		key := k.keys[i%2]
		var out bytes.Buffer
		if err := peer.Sign(&out, bytes.NewReader(msg), &peer.SignOptions{
			Domain: string(key.Domain), Selector: key.Selector, Signer: key.Private,
			HeaderCanonicalization: canons[i/2%2], BodyCanonicalization: canons[i/4%2],
		}); err != nil {
			t.Fatalf("%v in %q", err, msg)
		}
		signed := out.Bytes()
		us, why := k.ours(t, signed)
		them, _ := k.theirs(t, signed)
		if len(us) != 1 || us[0] != them[0] {
			t.Errorf("%v/%v: we say %v %v, go-msgauth says %v of %q", canons[i/2%2], canons[i/4%2],
				us, why, them, signed)
		}
		bent := m.bend(signed)
		if _, err := mail.ParseHeader(bent); err != nil {
			continue
		}
		us, why = k.ours(t, bent)
		them, whyThem := k.theirs(t, bent)
		if fmt.Sprint(us) != fmt.Sprint(them) {
			t.Errorf("bent: we say %v %v, go-msgauth says %v %v of %q", us, why, them, whyThem, bent)
		}
	}
}
