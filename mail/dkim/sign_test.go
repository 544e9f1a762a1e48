package dkim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
)

var bothKeys = []Key{
	{Domain: "example.org", Selector: "r2026", Private: rsaKey},
	{Domain: "bücher.example", Selector: "e2026", Private: edKey},
}

func keyZone(t testing.TB, keys ...Key) *dns.Zone {
	t.Helper()
	z := new(dns.Zone)
	for _, k := range keys {
		if err := z.Set(RecordName(k.Domain, k.Selector), "TXT "+record(t, k.Private)); err != nil {
			t.Fatal(err)
		}
	}
	return z
}

func signer(t testing.TB, cfg SignConfig) *Signer {
	t.Helper()
	s, err := NewSigner(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSignAndVerify: messages of many kinds, two keys, both verify.
func TestSignAndVerify(t *testing.T) {
	s := signer(t, SignConfig{Keys: bothKeys, Expire: 7 * 24 * time.Hour})
	zone := keyZone(t, bothKeys...)
	for _, msg := range []string{
		message,
		"From: a@b\r\n\r\n",
		"From: a@b\r\n",
		"From: a@b",
		"from : a@b\r\n\r\nx",
		"From: a@b\r\nSubject: gr\xc3\xbc\xc3\x9fe\r\n\r\n\xff\xfe 8-bit \r\n.\r\n",
		"From: a@b\r\nList-Id: <l>\r\nReferences: <a>\r\n <b>\r\nTo: x\r\nTo: y\r\n\r\n\r\n\r\n",
		"From: a@b\nTo: c\n\nbare LF\n",
		"From: a@b\r\n" + strings.Repeat("To: x\r\n", 600) + "\r\nbody\r\n",
	} {
		fields, err := s.Sign([]byte(msg), now)
		if err != nil {
			t.Errorf("%.60q: %v", msg, err)
			continue
		}
		for line := range strings.SplitSeq(string(fields), "\r\n") {
			if len(line) > 78 || strings.ContainsAny(line, "\r\n") {
				t.Errorf("%.60q: line %q", msg, line)
			}
		}
		got, _ := verify(t, zone, string(fields)+msg, now.Add(time.Hour), 0, VerifyConfig{})
		if len(got) != 2 || got[0].State != Pass || got[1].State != Pass ||
			got[0].Algorithm != "rsa-sha256" || got[1].Algorithm != "ed25519-sha256" {
			t.Errorf("%.60q: %+v in\n%s", msg, got, fields)
		}
		if got[0].Signed.Unix() != now.Unix() || got[0].Expires.Sub(got[0].Signed) != 7*24*time.Hour {
			t.Errorf("signed %v, expires %v", got[0].Signed, got[0].Expires)
		}
		got, _ = verify(t, zone, string(fields)+msg, now.Add(8*24*time.Hour), 0, VerifyConfig{})
		if got[0].State != Fail || got[1].State != Fail {
			t.Errorf("%.60q after its time: %+v", msg, got)
		}
	}
}

// TestNothingCanBeAdded is RFC 6376, section 8.15: fields that a reader shows are signed once more
// than they are there.
func TestNothingCanBeAdded(t *testing.T) {
	s := signer(t, SignConfig{Keys: bothKeys[:1]})
	zone := keyZone(t, bothKeys...)
	msg := "From: ann@example.org\r\nSubject: x\r\nList-Id: <l>\r\n\r\nhello\r\n"
	fields, err := s.Sign([]byte(msg), now)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		added string
		want  State
	}{
		{"", Pass},
		{"Received: by x\r\n", Pass},
		{"X-Spam: yes\r\n", Pass},
		{"Subject: y\r\n", Fail},
		{"From: b@example.com\r\n", Fail},
		{"Reply-To: b@example.com\r\n", Fail},
		{"Content-Type: text/html\r\n", Fail},
		{"MIME-Version: 1.0\r\n", Fail},
		{"Message-ID: <x@y>\r\n", Fail},
		{"Date: x\r\n", Fail},
		{"Cc: x\r\n", Fail},
		{"In-Reply-To: x\r\n", Fail},
		{"References: x\r\n", Fail},
		{"List-Id: <m>\r\n", Fail},        // was there: no second one
		{"List-Unsubscribe: x\r\n", Pass}, // was not there: a list may add it
		{"Sender: list@example.com\r\n", Pass},
	} {
		for _, whole := range []string{string(fields) + c.added + msg, c.added + string(fields) + msg,
			string(fields) + strings.Replace(msg, "\r\n\r\n", "\r\n"+c.added+"\r\n", 1)} {
			if got, _ := verify(t, zone, whole, now, 0, VerifyConfig{}); got[0].State != c.want {
				t.Errorf("%q: %+v, want %s", c.added, got[0], c.want)
			}
		}
	}
	if strings.Contains(string(fields), "l=") || strings.Contains(string(fields), "x=") {
		t.Errorf("l= or x= in %s", fields)
	}
}

func TestCannotSign(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]Key{
		"no key":       {Domain: "a.example", Selector: "s"},
		"no domain":    {Selector: "s", Private: edKey},
		"literal":      {Domain: "[192.0.2.1]", Selector: "s", Private: edKey},
		"no selector":  {Domain: "a.example", Private: edKey},
		"bad selector": {Domain: "a.example", Selector: "a;b", Private: edKey},
		"P-256":        {Domain: "a.example", Selector: "s", Private: ec},
	} {
		if _, err := NewSigner(SignConfig{Keys: []Key{k}}); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := NewSealer(k); err == nil {
			t.Errorf("%s: accepted for ARC", name)
		}
	}
	if _, err := NewSigner(SignConfig{}); err == nil {
		t.Error("no keys: accepted")
	}
	if _, err := NewSigner(SignConfig{Keys: bothKeys, Expire: -1}); err == nil {
		t.Error("negative expiry: accepted")
	}
	s := signer(t, SignConfig{Keys: bothKeys})
	for _, msg := range []string{"", "To: x\r\n\r\n", "From: a\r\nFrom: b\r\n\r\n", "no header"} {
		if _, err := s.Sign([]byte(msg), now); err == nil {
			t.Errorf("%q: signed", msg)
		}
	}
}

// TestKeysAsText: written, read again, and the forms of other tools.
func TestKeysAsText(t *testing.T) {
	ed, err := GenerateEd25519()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []Key{bothKeys[0], {"a.example", "s", ed}} {
		text, err := MarshalKey(k.Private)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseKey(text)
		if err != nil || record(t, back) != record(t, k.Private) {
			t.Errorf("%T: %v", k.Private, err)
		}
	}
	old := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY",
		Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)})
	if back, err := ParseKey(old); err != nil || record(t, back) != record(t, rsaKey) {
		t.Errorf("PKCS #1: %v", err)
	}
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ecText, err := MarshalKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"nothing": nil, "no PEM": []byte("hello"), "P-256": ecText,
		"damaged":       pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}),
		"damaged PKCS1": pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: []byte("x")})} {
		if _, err := ParseKey(text); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := Record(ec.Public()); err == nil {
		t.Error("record for P-256")
	}
}

func TestGeneratedRSAKeySigns(t *testing.T) {
	private, err := GenerateRSA()
	if err != nil {
		t.Fatal(err)
	}
	k := Key{"example.org", "s", private}
	fields, err := signer(t, SignConfig{Keys: []Key{k}}).Sign([]byte(message), now)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := verify(t, keyZone(t, k), string(fields)+message, now, 0, VerifyConfig{})
	if got[0].State != Pass || got[0].KeyBits != 2048 {
		t.Errorf("%+v", got[0])
	}
}

// TestZoneLine: the record survives a zone file, in strings of at most 255 octets.
func TestZoneLine(t *testing.T) {
	text := record(t, rsaKey)
	line := ZoneLine("bücher.example", "r1", text)
	if !strings.HasPrefix(line, "r1._domainkey.xn--bcher-kva.example. IN TXT ( \"v=DKIM1; k=rsa; p=") {
		t.Errorf("%s", line)
	}
	zone, err := dns.ParseZone(".", line+"\n")
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := zone.TXT(t.Context(), "r1._domainkey.xn--bcher-kva.example")
	if err != nil || len(got) != 1 || got[0] != text {
		t.Errorf("%q, %v, want %q", got, err, text)
	}
	for _, n := range []int{0, 1, 255, 256, 510, 511} {
		parts := RecordStrings(strings.Repeat("x", n))
		if len(parts) != max(1, (n+254)/255) || len(strings.Join(parts, "")) != n {
			t.Errorf("%d octets in %d strings", n, len(parts))
		}
	}
}

// TestSealedThreeTimes: three hops, each with a changed message, and the chain holds until somebody
// touches what the last one sealed.
func TestSealedThreeTimes(t *testing.T) {
	keys := []Key{{"one.example", "a", rsaKey}, {"two.example", "b", edKey},
		{"three.example", "c", rsa1024}}
	zone := keyZone(t, keys...)
	msg := message
	for i, k := range keys {
		s, err := NewSealer(k)
		if err != nil {
			t.Fatal(err)
		}
		_, v := verify(t, zone, msg, now, 0, VerifyConfig{})
		msg += "footer of a list\r\n" // the hop changes the message
		h, err := mail.ParseHeader([]byte(msg))
		if err != nil {
			t.Fatal(err)
		}
		found := mail.AuthResults{ServID: string(k.Domain),
			Results: []mail.AuthResult{{Method: "dkim", Result: "pass"}}}
		g, err := s.Begin(h, v.ARC(), found, now)
		if err != nil {
			t.Fatal(err)
		}
		g.Write([]byte(msg[h.Len:]))
		set, err := g.Finish()
		if err != nil {
			t.Fatal(err)
		}
		msg = string(set) + msg
		_, v = verify(t, zone, msg, now, 0, VerifyConfig{})
		arc := v.ARC()
		if arc.State != Pass || len(arc.Sets) != i+1 || arc.Sets[i].Sealer != k.Domain ||
			arc.Sets[0].Results.ServID != "one.example" || len(arc.Sets[i].Results.Results) != 1 {
			t.Fatalf("after hop %d: %+v in\n%s", i+1, arc, msg)
		}
	}
	_, v := verify(t, zone, msg, now, 0, VerifyConfig{})
	if a := v.ARC().AuthResult(); a.Result != "pass" || a.Comment != "i=3 of three.example" {
		t.Errorf("%+v", a)
	}
	for _, c := range []struct {
		name, old, new, reason string
	}{
		{"body", "Bye", "bye", "message signature 3"},
		{"oldest results", "i=1; one.example", "i=1; xne.example", "seal 3"},
		{"a set taken away", "ARC-Authentication-Results: i=2", "X: i=2", "not complete"},
		{"a field twice", "From: Ann", "ARC-Authentication-Results: i=2; x\r\nFrom: Ann",
			"two ARC fields"},
		{"a gap", "i=3", "i=5", "not complete"},
		{"too many", "From: Ann", "ARC-Seal: i=51; a=b\r\nFrom: Ann", "without a valid instance"},
		{"cv", "cv=pass; d=three", "cv=none; d=three", "wrong cv"},
		{"given up", "cv=pass; d=three", "cv=fail; d=three", "a sealer found"},
	} {
		bent := strings.ReplaceAll(msg, c.old, c.new)
		if c.name == "a gap" {
			bent = strings.Replace(msg, c.old, c.new, 1)
		}
		_, v := verify(t, zone, bent, now, 0, VerifyConfig{})
		if arc := v.ARC(); arc.State != Fail || !strings.Contains(arc.Reason, c.reason) {
			t.Errorf("%s: %+v, want %q", c.name, arc, c.reason)
		}
	}
	zone.Fail(RecordName("two.example", "b"), dns.ServFail)
	_, v = verify(t, zone, msg, now, 0, VerifyConfig{})
	if v.ARC().State != TempError || v.ARC().AuthResult().Result != "fail" {
		t.Errorf("key of the second hop not there now: %+v", v.ARC())
	}
	_, v = verify(t, zone, msg, now, 0, VerifyConfig{SkipARC: true})
	if v.ARC().State != None {
		t.Errorf("skipped: %+v", v.ARC())
	}
}

// TestChainNotContinued is RFC 8617, section 5.1.2.
func TestChainNotContinued(t *testing.T) {
	s, err := NewSealer(bothKeys[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		header string
		found  ARCResult
	}{
		"ended": {"ARC-Seal: i=1; a=rsa-sha256; cv=fail; d=a.example; s=b; b=AAAA\r\n",
			ARCResult{State: Fail}},
		"full":      {"ARC-Authentication-Results: i=50; x\r\n", ARCResult{State: Fail}},
		"temporary": {"", ARCResult{State: TempError}},
	} {
		h, err := mail.ParseHeader([]byte(c.header + message))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Begin(h, c.found, mail.AuthResults{ServID: "x"}, now); err != ErrNoSeal {
			t.Errorf("%s: %v, want ErrNoSeal", name, err)
		}
	}
}
