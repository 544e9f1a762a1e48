package dkim

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const message = "From: Ann <ann@example.org>\r\n" +
	"To: ben@example.net\r\n" +
	"Subject: A  test\r\n of folding\r\n" +
	"Date: Sun, 22 Nov 2026 12:00:00 +0000\r\n" +
	"\r\n" +
	"Hello  Ben \r\n\r\nBye\r\n\r\n\r\n"

// Keys made once: RSA keys take their time.
var (
	rsaKey   = mustRSA(2048)
	rsa1024  = mustRSA(1024)
	_, edKey = mustEd25519()
)

func mustRSA(bits int) *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return k
}

func mustEd25519() (ed25519.PublicKey, ed25519.PrivateKey) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return public, private
}

func record(t testing.TB, private crypto.Signer) string {
	t.Helper()
	r, err := Record(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// craft puts a signature with these tags in front of msg: $bh and $b are filled in, everything else
// is as the test wants it, right or wrong.
func craft(t testing.TB, private crypto.Signer, msg, tags string) string {
	t.Helper()
	h, err := mail.ParseHeader([]byte(msg))
	if err != nil {
		t.Fatal(err)
	}
	empty := strings.Replace(tags, "$b;", ";", 1)
	empty = strings.TrimSuffix(empty, "$b")
	list, err := parseTags(strings.ReplaceAll(empty, "b=;", "b=x;"))
	if err != nil {
		list = tagList{}
	}
	c, _ := list.get("c")
	header, body, _ := parseCanon(c)
	b := newBodyHash(body)
	b.Write([]byte(msg[h.Len:]))
	bh := base64.StdEncoding.EncodeToString(b.sum())
	tags = strings.Replace(tags, "$bh", bh, 1)
	empty = strings.Replace(empty, "$bh", bh, 1)

	hash := sha256.New()
	names, _ := list.get("h")
	var split []string
	for n := range strings.SplitSeq(names, ":") {
		if n = trimFWS(n); n != "" {
			split = append(split, n)
		}
	}
	newHeaderSource(h).write(hash, split, header)
	self := appendField(nil, []byte("DKIM-Signature: "+empty+"\r\n"), header)
	hash.Write(self[:len(self)-2])
	sig, err := Key{Private: private}.sign(hash.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	tags = strings.Replace(tags, "$b", base64.StdEncoding.EncodeToString(sig), 1)
	return "DKIM-Signature: " + tags + "\r\n" + msg
}

const goodTags = "v=1; a=ed25519-sha256; c=relaxed/relaxed; d=example.org; s=sel; " +
	"h=From:To:Subject:Date; bh=$bh; b=$b"

// TestSignatureTags breaks one tag a row (RFC 6376, section 6.1.1).
func TestSignatureTags(t *testing.T) {
	zone := dns.MustZone(map[string][]string{
		"sel._domainkey.example.org": {"TXT " + record(t, edKey)},
		"sel._domainkey.org":         {"TXT " + record(t, edKey)},
	})
	stamp := func(d time.Duration) string { return fmt.Sprint(now.Add(d).Unix()) }
	for _, c := range []struct {
		name, old, new string
		want           State
		reason         string
	}{
		{"as it should be", "", "", Pass, ""},
		{"simple/simple", "c=relaxed/relaxed", "c=simple/simple", Pass, ""},
		{"simple by default", "c=relaxed/relaxed; ", "", Pass, ""},
		{"relaxed header alone", "c=relaxed/relaxed", "c=relaxed", Pass, ""},
		{"upper case in c=", "c=relaxed/relaxed", "c=Relaxed/SIMPLE", Pass, ""},
		{"folded", "; h=", ";\r\n\th = ", Pass, ""},
		{"unknown tag", "v=1;", "v=1; zz=1;", Pass, ""},
		{"final semicolon", "b=$b", "b=$b;", Pass, ""},
		{"b= in the middle", "v=1;", "v=1; b=$b;", PermError, "comes twice"},
		{"h= with an empty name", "h=From:", "h=From::", Pass, ""},
		{"q=dns/txt", "v=1;", "v=1; q=other:dns/txt;", Pass, ""},
		{"i= below d=", "v=1;", "v=1; i=@news.example.org;", Pass, ""},
		{"i= quoted", "v=1;", "v=1; i=a=3Bb@example.org;", Pass, ""},
		{"t= and x=", "v=1;", "v=1; t=" + stamp(-time.Hour) + "; x=" + stamp(time.Hour) + ";", Pass, ""},
		{"t= a little ahead", "v=1;", "v=1; t=" + stamp(time.Minute) + ";", Pass, ""},

		{"no v=", "v=1; ", "", PermError, "version"},
		{"v=2", "v=1;", "v=2;", PermError, "version"},
		{"no a=", "a=ed25519-sha256; ", "", PermError, "no algorithm"},
		{"rsa-sha1", "a=ed25519-sha256", "a=rsa-sha1", PermError, "rsa-sha1"},
		{"unknown a=", "a=ed25519-sha256", "a=ed448-sha512", PermError, "unknown algorithm"},
		{"a= of another key", "a=ed25519-sha256", "a=rsa-sha256", PermError, "another algorithm"},
		{"unknown c=", "c=relaxed/relaxed", "c=nowsp", PermError, "canonicalization"},
		{"unknown body c=", "c=relaxed/relaxed", "c=relaxed/x", PermError, "canonicalization"},
		{"no d=", "d=example.org; ", "", PermError, "d="},
		{"d= is an address", "d=example.org", "d=[192.0.2.1]", PermError, "d="},
		{"no s=", "s=sel; ", "", PermError, "s="},
		{"s= with a space", "s=sel", "s=a b", PermError, "s="},
		{"no h=", "h=From:To:Subject:Date; ", "", PermError, "h="},
		{"h= without From", "h=From:To:Subject:Date", "h=To", PermError, "From is not signed"},
		{"too many names", "h=From", "h=From" + strings.Repeat(":x", maxSignedFields), PermError,
			"too many"},
		{"no bh=", "bh=$bh; ", "", PermError, "bh="},
		{"short bh=", "bh=$bh", "bh=AAAA", PermError, "bh="},
		{"wrong bh=", "bh=$bh", "bh=" + strings.Repeat("A", 43) + "=", Fail, "body hash"},
		{"no b=", "; b=$b", "", PermError, "b="},
		{"empty b=", "b=$b", "b=", PermError, "b="},
		{"b= no base64", "b=$b", "b=???", PermError, "b="},
		{"b= too long", "b=$b", "b=" + strings.Repeat("AAAA", 200), PermError, "b="},
		{"wrong b=", "b=$b", "b=" + strings.Repeat("A", 86) + "==", Fail, "signature did not verify"},
		{"l= of the whole body", "v=1;", "v=1; l=27;", Policy, "l="},
		{"l=0", "v=1;", "v=1; l=0;", Policy, "l="},
		{"i= elsewhere", "v=1;", "v=1; i=a@example.com;", PermError, "i="},
		{"i= above d=", "v=1;", "v=1; i=@org;", PermError, "i="},
		{"i= ends alike", "v=1;", "v=1; i=@badexample.org;", PermError, "i="},
		{"i= without @", "v=1;", "v=1; i=example.org;", PermError, "i="},
		{"q= unknown", "v=1;", "v=1; q=http;", PermError, "query"},
		{"expired", "v=1;", "v=1; x=" + stamp(-time.Second) + ";", Fail, "expired"},
		{"x= before t=", "v=1;", "v=1; t=5; x=5;", PermError, "expires before"},
		{"from the future", "v=1;", "v=1; t=" + stamp(2*time.Hour) + ";", Policy, "future"},
		{"t= no number", "v=1;", "v=1; t=-1;", PermError, "t="},
		{"x= far too long", "v=1;", "v=1; x=9999999999999;", PermError, "x="},
		{"tag twice", "v=1;", "v=1; s=sel;", PermError, "twice"},
		{"tag without value", "v=1;", "v=1; zz;", PermError, "without a value"},
		{"tag with a bad name", "v=1;", "v=1; 1z=2;", PermError, "tag name"},
		{"control in a tag", "v=1;", "v=1; z=a\x01;", PermError, "control"},
		{"field too long", "v=1;", "v=1; z=" + strings.Repeat("x", 17000) + ";", PermError, "too long"},
		{"key name too long", "s=sel", "s=" + strings.Repeat("a.", 125) + "a", PermError,
			"name of the key"},
		{"no such key", "s=sel", "s=other", PermError, "no key at other._domainkey.example.org"},
	} {
		t.Run(c.name, func(t *testing.T) {
			msg := craft(t, edKey, message, strings.Replace(goodTags, c.old, c.new, 1))
			got, _ := verify(t, zone, msg, now, 0, VerifyConfig{})
			if len(got) != 1 || got[0].State != c.want || !strings.Contains(got[0].Reason, c.reason) {
				t.Errorf("%+v, want %s, %q", got, c.want, c.reason)
			}
		})
	}
}

// TestKeyRecords bends the key record (RFC 6376, sections 3.6.1 and 6.1.2).
func TestKeyRecords(t *testing.T) {
	good := record(t, edKey)
	p := good[strings.Index(good, "p="):]
	spki, err := x509.MarshalPKIXPublicKey(edKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		record []string
		want   State
		reason string
	}{
		{"as it should be", []string{good}, Pass, ""},
		{"without v=", []string{"k=ed25519; " + p}, Pass, ""},
		{"with notes and unknown tags", []string{good + "; n=a=20note; zz=1;"}, Pass, ""},
		{"for sha256", []string{good + "; h=sha1 : sha256"}, Pass, ""},
		{"for mail", []string{good + "; s=x:email"}, Pass, ""},
		{"for all services", []string{good + "; s=*"}, Pass, ""},
		{"in test", []string{good + "; t=y"}, Pass, ""},
		{"second of two", []string{"v=spf1 -all", good}, Pass, ""},
		{"other key first", []string{record(t, rsaKey), good}, Pass, ""},
		{"folded key", []string{strings.Replace(good, "p=", "p= ", 1)}, Pass, ""},

		{"another version", []string{"v=DKIM2; k=ed25519; " + p}, PermError, "version"},
		{"v= not first", []string{"k=ed25519; v=DKIM1; " + p}, PermError, "version"},
		{"withdrawn", []string{"v=DKIM1; k=ed25519; p="}, PermError, "withdrawn"},
		{"no p=", []string{"v=DKIM1; k=ed25519"}, PermError, "without a key"},
		{"no base64", []string{"v=DKIM1; k=ed25519; p=???"}, PermError, "base64"},
		{"wrong length", []string{"v=DKIM1; k=ed25519; p=AAAA"}, PermError, "Ed25519"},
		{"wrapped", []string{"v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(spki)},
			PermError, "Ed25519"},
		{"unknown type", []string{"v=DKIM1; k=ed448; " + p}, PermError, "unknown type"},
		{"not for sha256", []string{good + "; h=sha1"}, PermError, "SHA-256"},
		{"not for mail", []string{good + "; s=tlsrpt"}, PermError, "not for mail"},
		{"RSA", []string{record(t, rsaKey)}, PermError, "another algorithm"},
		{"Ed25519 in SPKI as RSA", []string{"v=DKIM1; p=" + base64.StdEncoding.EncodeToString(spki)},
			PermError, "no RSA key"},
		{"tag twice", []string{good + "; p="}, PermError, "twice"},
		{"no tags", []string{"hello"}, PermError, "without a value"},
		{"another key", []string{"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="},
			Fail, "signature did not verify"},
	} {
		t.Run(c.name, func(t *testing.T) {
			zone := new(dns.Zone)
			for i := range c.record {
				c.record[i] = "TXT " + c.record[i]
			}
			if err := zone.Set("sel._domainkey.example.org", c.record...); err != nil {
				t.Fatal(err)
			}
			got, _ := verify(t, zone, craft(t, edKey, message, goodTags), now, 0, VerifyConfig{})
			if len(got) != 1 || got[0].State != c.want || !strings.Contains(got[0].Reason, c.reason) {
				t.Errorf("%+v, want %s, %q", got, c.want, c.reason)
			}
			if got[0].Testing != (c.name == "in test") {
				t.Errorf("testing is %v", got[0].Testing)
			}
		})
	}
}

// TestStrictIdentity is t=s (RFC 6376, section 3.6.1).
func TestStrictIdentity(t *testing.T) {
	zone := dns.MustZone(map[string][]string{
		"sel._domainkey.example.org": {"TXT " + record(t, edKey) + "; t=y:s"}})
	for identity, want := range map[string]State{"@example.org": Pass, "a@EXAMPLE.org": Pass,
		"@news.example.org": PermError} {
		tags := strings.Replace(goodTags, "v=1;", "v=1; i="+identity+";", 1)
		got, _ := verify(t, zone, craft(t, edKey, message, tags), now, 0, VerifyConfig{})
		if got[0].State != want {
			t.Errorf("i=%s: %+v, want %s", identity, got[0], want)
		}
	}
}

// TestRSAKeyLengths is RFC 8301, section 3.2.
func TestRSAKeyLengths(t *testing.T) {
	pkcs1 := func(n *big.Int) string {
		der := x509.MarshalPKCS1PublicKey(&rsa.PublicKey{N: n, E: rsaKey.E})
		return "v=DKIM1; p=" + base64.StdEncoding.EncodeToString(der)
	}
	for _, c := range []struct {
		name    string
		private *rsa.PrivateKey
		record  string
		want    State
		bits    int
	}{
		{"2048", rsaKey, record(t, rsaKey), Pass, 2048},
		{"1024", rsa1024, record(t, rsa1024), Pass, 1024},
		{"bare PKCS #1", rsaKey, pkcs1(rsaKey.N), Pass, 2048},
		{"512", rsaKey, pkcs1(new(big.Int).Rsh(rsaKey.N, 1536)), Policy, 0},
		{"1023", rsaKey, pkcs1(new(big.Int).Rsh(rsaKey.N, 1025)), Policy, 0},
		{"4097", rsaKey, pkcs1(new(big.Int).Lsh(rsaKey.N, 2049)), Policy, 0},
		{"another", rsaKey, record(t, rsa1024), Fail, 1024},
	} {
		zone := dns.MustZone(map[string][]string{"sel._domainkey.example.org": {"TXT " + c.record}})
		tags := strings.Replace(goodTags, "ed25519-", "rsa-", 1)
		got, _ := verify(t, zone, craft(t, c.private, message, tags), now, 0, VerifyConfig{})
		if got[0].State != c.want || got[0].KeyBits != c.bits {
			t.Errorf("%s: %+v, want %s", c.name, got[0], c.want)
		}
	}
}

// TestChangedMessage changes one thing on the way.
func TestChangedMessage(t *testing.T) {
	zone := keyZone(t, Key{"example.org", "sel", edKey})
	signed := craft(t, edKey, message, goodTags)
	for _, c := range []struct {
		name, old, new string
		want           State
	}{
		{"nothing", "", "", Pass},
		{"white space in the body", "Hello  Ben \r\n", "Hello \t Ben\r\n", Pass},
		{"empty lines at the end", "Bye\r\n\r\n\r\n", "Bye\r\n", Pass},
		{"no line end at all", "Bye\r\n\r\n\r\n", "Bye", Pass},
		{"folding of a field", "Subject: A  test\r\n of", "subject:  A test of", Pass},
		{"a field that is not signed", "\r\n\r\n", "\r\nX-Spam: no\r\n\r\n", Pass},
		{"a letter of the body", "Bye", "bye", Fail},
		{"an empty line inside", "Ben \r\n\r\nBye", "Ben \r\nBye", Fail},
		{"something behind", "Bye\r\n\r\n\r\n", "Bye\r\n\r\n\r\nPS", Fail},
		{"a letter of a field", "A  test", "A rest", Fail},
		{"a field taken away", "To: ben@example.net\r\n", "", Fail},
		{"a field put below", "\r\nDate:", "\r\nSubject: x\r\nDate:", Fail},
		{"a Subject put on top", "From: Ann", "Subject: x\r\nFrom: Ann", Pass}, // not oversigned here
		{"a second From on top", "From: Ann", "From: evil@example.com\r\nFrom: Ann", Policy},
		{"a second From below", "\r\nDate:", "\r\nFrom: x@example.com\r\nDate:", Fail},
		{"a tag of the signature", "h=From:To:Subject:Date", "h=From:To:Subject", Fail},
		{"another domain", "d=example.org", "d=example.com", PermError},
	} {
		msg := strings.Replace(signed, c.old, c.new, 1)
		got, _ := verify(t, zone, msg, now, 0, VerifyConfig{})
		if got[0].State != c.want {
			t.Errorf("%s: %+v, want %s", c.name, got[0], c.want)
		}
	}
}

// TestBodyInPieces: however the body is cut, the result is the same.
func TestBodyInPieces(t *testing.T) {
	zone := keyZone(t, Key{"example.org", "sel", edKey})
	body := "a \r\n\r\n b\t\tc\r\r\n\rd\n\n\ne\r\n" + strings.Repeat("x y\r\n", 2000) +
		"\r\n\r\n \r\n\r"
	for _, c := range []string{"simple/simple", "relaxed/relaxed", "relaxed/simple"} {
		tags := strings.Replace(goodTags, "c=relaxed/relaxed", "c="+c, 1)
		msg := craft(t, edKey, "From: a@b\r\n\r\n"+body, tags)
		for _, step := range []int{1, 2, 3, 5, 4096, 0} {
			if got, _ := verify(t, zone, msg, now, step, VerifyConfig{}); got[0].State != Pass {
				t.Errorf("%s in pieces of %d: %+v", c, step, got[0])
			}
		}
	}
}

// slowZone counts how many lookups run at a time.
type slowZone struct {
	*dns.Zone
	running, most, asked atomic.Int32
	hold                 chan struct{}
}

func (z *slowZone) TXT(ctx context.Context, name string) ([]string, bool, error) {
	z.asked.Add(1)
	n := z.running.Add(1)
	defer z.running.Add(-1)
	for {
		m := z.most.Load()
		if n <= m || z.most.CompareAndSwap(m, n) {
			break
		}
	}
	select {
	case <-z.hold:
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	return z.Zone.TXT(ctx, name)
}

// TestLookups: each name once, a few at a time, before the body is there; and not more than the
// limit.
func TestLookups(t *testing.T) {
	zone := &slowZone{Zone: new(dns.Zone), hold: make(chan struct{})}
	msg := message
	for i := range 12 {
		sel := fmt.Sprintf("sel%d", i/2)
		if err := zone.Set(sel+"._domainkey.example.org", "TXT "+record(t, edKey)); err != nil {
			t.Fatal(err)
		}
		one := craft(t, edKey, message, strings.Replace(goodTags, "s=sel", "s="+sel, 1))
		msg = one[:strings.Index(one, "\r\n")+2] + msg
	}
	h, err := mail.ParseHeader([]byte(msg))
	if err != nil {
		t.Fatal(err)
	}
	v := NewVerifier(context.Background(), zone, h, now, VerifyConfig{MaxSignatures: 11})
	for zone.running.Load() < maxConcurrent {
		time.Sleep(time.Millisecond) // started without a body
	}
	close(zone.hold)
	v.Write([]byte(msg[h.Len:]))
	results := v.Finish()
	if len(results) != 11 || zone.asked.Load() != 6 || zone.most.Load() > maxConcurrent {
		t.Errorf("%d results, %d lookups, %d at a time", len(results), zone.asked.Load(),
			zone.most.Load())
	}
	for i, r := range results {
		if r.State != Pass {
			t.Errorf("signature %d: %+v", i, r)
		}
	}
}

// TestLookupFails tells what will pass from what will not (RFC 6376, section 6.1.2).
func TestLookupFails(t *testing.T) {
	msg := craft(t, edKey, message, goodTags)
	for failure, want := range map[dns.Failure]State{dns.ServFail: TempError, dns.Timeout: TempError,
		dns.NXDomain: PermError} {
		zone := keyZone(t, Key{"example.org", "sel", edKey})
		zone.Fail("sel._domainkey.example.org", failure)
		if got, _ := verify(t, zone, msg, now, 0, VerifyConfig{}); got[0].State != want {
			t.Errorf("failure %d: %+v, want %s", failure, got[0], want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	h, _ := mail.ParseHeader([]byte(msg))
	v := NewVerifier(ctx, &slowZone{Zone: new(dns.Zone)}, h, now, VerifyConfig{})
	v.Write([]byte(msg[h.Len:]))
	if got := v.Finish(); got[0].State != TempError {
		t.Errorf("cancelled: %+v, want temperror", got[0])
	}
	v = NewVerifier(context.Background(), &slowZone{Zone: new(dns.Zone)}, h, now, VerifyConfig{})
	v.Close() // returns although the lookup would wait for ever
}

func TestUnsigned(t *testing.T) {
	got, v := verify(t, new(dns.Zone), message, now, 0, VerifyConfig{})
	if len(got) != 0 || v.ARC().State != None {
		t.Errorf("%v, %v", got, v.ARC())
	}
}

// TestAuthenticatedKey: the record and DNSSEC's word on it are kept for evidence.
func TestAuthenticatedKey(t *testing.T) {
	zone := keyZone(t, Key{"example.org", "sel", edKey})
	zone.Sign("example.org", true)
	got, _ := verify(t, zone, craft(t, edKey, message, goodTags), now, 0, VerifyConfig{})
	if !got[0].Authenticated || got[0].Record != record(t, edKey) || got[0].KeyBits != 256 ||
		strings.Join(got[0].Headers, ":") != "From:To:Subject:Date" {
		t.Errorf("%+v", got[0])
	}
}

func TestResultAsAuthResult(t *testing.T) {
	zone := dns.MustZone(map[string][]string{
		"sel._domainkey.example.org": {"TXT " + record(t, edKey) + "; t=y"}})
	msg := craft(t, edKey, message, strings.Replace(goodTags, "v=1;", "v=1; i=\"x\"@example.org;", 1))
	got, _ := verify(t, zone, msg, now, 0, VerifyConfig{})
	a := mail.AuthResults{ServID: "mx", Results: []mail.AuthResult{got[0].AuthResult()}}
	want := "mx; dkim=pass (256-bit key, testing) header.d=example.org " +
		"header.i=\"\\\"x\\\"@example.org\" header.s=sel header.a=ed25519-sha256 header.b="
	if s := strings.Join(strings.Fields(a.Value()), " "); !strings.HasPrefix(s, want) {
		t.Errorf("%s, want %s", s, want)
	}
}

// TestHeaderSelection is RFC 6376, section 5.4.2: from the last field of a name up.
func TestHeaderSelection(t *testing.T) {
	h, err := mail.ParseHeader([]byte("A: 1\r\nB: 2\r\na: 3\r\nA : 4\r\nC: 5\r\n\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	for names, want := range map[string]string{"a": "a:4\r\n", "A:a:a": "a:4\r\na:3\r\na:1\r\n",
		"a:b:a:a:a:c:x:b": "a:4\r\nb:2\r\na:3\r\na:1\r\nc:5\r\n"} {
		var b bytes.Buffer
		newHeaderSource(h).write(&b, strings.Split(names, ":"), relaxed)
		if b.String() != want {
			t.Errorf("%s: %q, want %q", names, b.String(), want)
		}
	}
}

// TestCanonicalForms are the examples of RFC 6376, section 3.4.5, and others.
func TestCanonicalForms(t *testing.T) {
	for _, c := range []struct{ field, simple, relaxed string }{
		{"A: X\r\n", "A: X\r\n", "a:X\r\n"},
		{"B : Y\t\r\n\tZ  \r\n", "B : Y\t\r\n\tZ  \r\n", "b:Y Z\r\n"},
		{"C:\r\n", "C:\r\n", "c:\r\n"},
		{"D:  \r\n \r\n", "D:  \r\n \r\n", "d:\r\n"},
		{"E: a\n b\n", "E: a\r\n b\r\n", "e:a b\r\n"},
		{"F: a\rb", "F: a\rb\r\n", "f:a\rb\r\n"},
		{"G-H: gr\xfc\xdfe\r\n", "G-H: gr\xfc\xdfe\r\n", "g-h:gr\xfc\xdfe\r\n"},
		{"I:J:K\r\n", "I:J:K\r\n", "i:J:K\r\n"},
	} {
		if got := string(appendField(nil, []byte(c.field), simple)); got != c.simple {
			t.Errorf("%q simple: %q, want %q", c.field, got, c.simple)
		}
		if got := string(appendField(nil, []byte(c.field), relaxed)); got != c.relaxed {
			t.Errorf("%q relaxed: %q, want %q", c.field, got, c.relaxed)
		}
	}
	for _, c := range []struct{ body, simple, relaxed string }{
		{" C \r\nD \t E\r\n\r\n\r\n", " C \r\nD \t E\r\n", " C\r\nD E\r\n"},
		{"", "\r\n", ""},
		{"\r\n\r\n", "\r\n", ""},
		{" \t\r\n \r\n", " \t\r\n \r\n", ""},
		{"a", "a\r\n", "a\r\n"},
		{"a\nb\n\n", "a\r\nb\r\n", "a\r\nb\r\n"},
		{"a\rb\r", "a\rb\r\r\n", "a\rb\r\r\n"},
		{"a \r b", "a \r b\r\n", "a \r b\r\n"},
		{"\r\n\r\na\r\n", "\r\n\r\na\r\n", "\r\n\r\na\r\n"},
	} {
		for canon, want := range map[canon]string{simple: c.simple, relaxed: c.relaxed} {
			b := newBodyHash(canon)
			b.Write([]byte(c.body))
			if sum := sha256.Sum256([]byte(want)); !bytes.Equal(b.sum(), sum[:]) {
				t.Errorf("body %q %s: not the hash of %q", c.body, canon, want)
			}
		}
	}
}

// Resolver methods that DKIM does not need.
var _ dns.Resolver = (*slowZone)(nil)

func (z *slowZone) PTR(ctx context.Context, ip netip.Addr) ([]string, bool, error) {
	return nil, false, dns.ErrNotFound
}
