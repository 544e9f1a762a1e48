package dkim

import (
	"context"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
)

// TestReplace: what is signed is the header as it was changed after the signing began.
func TestReplace(t *testing.T) {
	private, err := GenerateEd25519()
	if err != nil {
		t.Fatal(err)
	}
	record, err := Record(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	zone := dns.MustZone(map[string][]string{"s._domainkey.a.example": {"TXT " + record}})
	signer, err := NewSigner(SignConfig{Keys: []Key{{Domain: "a.example", Selector: "s", Private: private}}})
	if err != nil {
		t.Fatal(err)
	}
	parse := func(text string) mail.Header {
		h, err := mail.ParseHeader([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	const before = "From: ann@a.example\r\nSubject: one\r\n\r\n"
	const after = "From: ann@a.example\r\nSubject: [spam] one\r\n\r\n"
	g, err := signer.Begin(parse(before), time.Unix(1e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	g.Write([]byte("body\r\n"))
	if err := g.Replace(parse(after)); err != nil {
		t.Fatal(err)
	}
	fields, err := g.Finish()
	if err != nil {
		t.Fatal(err)
	}
	for header, want := range map[string]State{after: Pass, before: Fail} {
		v := NewVerifier(context.Background(), zone, parse(string(fields)+header), time.Unix(1e9, 0),
			VerifyConfig{})
		v.Write([]byte("body\r\n"))
		if r := v.Finish(); len(r) != 1 || r[0].State != want {
			t.Errorf("%q: %+v, want %s", header, r, want)
		}
	}
	if err := g.Replace(parse("Subject: x\r\n\r\n")); err == nil {
		t.Error("a header without From is signed")
	}
}
