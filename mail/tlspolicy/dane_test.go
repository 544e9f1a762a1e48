package tlspolicy

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
)

// TestUsable is RFC 7672, section 3.1, and RFC 7671, section 9.
func TestUsable(t *testing.T) {
	ca := newAuthority(t, nil, nil)
	leaf := ca.issue(nil, "mx.example").Leaf
	short := tlsa(3, 1, 1, leaf)
	short.Data = short.Data[:31]
	rows := []struct {
		name    string
		records []dns.TLSA
		want    int
	}{
		{"EE", []dns.TLSA{tlsa(3, 0, 0, leaf), tlsa(3, 0, 1, leaf), tlsa(3, 1, 0, leaf)}, 3},
		{"TA", []dns.TLSA{tlsa(2, 0, 1, ca.cert), tlsa(2, 1, 2, ca.cert)}, 2},
		{"PKIX usages", []dns.TLSA{tlsa(0, 0, 1, leaf), tlsa(1, 1, 1, leaf)}, 0},
		{"unknown usage, selector, type", []dns.TLSA{tlsa(4, 0, 1, leaf), tlsa(3, 2, 1, leaf),
			{Usage: 3, MatchingType: 3, Data: make([]byte, 32)}}, 0},
		{"wrong length", []dns.TLSA{short, {Usage: 3, MatchingType: 2, Data: make([]byte, 32)}}, 0},
		{"no certificate, no key", []dns.TLSA{{Usage: 3, Data: []byte("x")},
			{Usage: 3, Selector: 1, Data: []byte("x")}}, 0},
		{"weaker digest beside a stronger", []dns.TLSA{tlsa(3, 1, 1, leaf), tlsa(3, 1, 2, leaf)}, 1},
		{"weaker digest of another selector", []dns.TLSA{tlsa(3, 0, 1, leaf), tlsa(3, 1, 2, leaf)}, 2},
		{"weaker digest beside a broken stronger",
			[]dns.TLSA{tlsa(3, 1, 1, leaf), {Usage: 3, Selector: 1, MatchingType: 2}}, 1},
	}
	for _, row := range rows {
		if got := usable(row.records); len(got) != row.want {
			t.Errorf("%s: %d usable, want %d", row.name, len(got), row.want)
		}
	}
}

func TestCheckDANE(t *testing.T) {
	root := newAuthority(t, nil, nil)
	ca := newAuthority(t, root, nil)
	other := newAuthority(t, nil, nil)
	good := ca.issue(nil, "mx.example.com")
	old := ca.issue(expired, "mx.example.com")
	wild := ca.issue(nil, "*.example.com")
	foreign := ca.issue(nil, "mx.example.net")
	domain := ca.issue(nil, "example.com")
	common := ca.issue(func(c *x509.Certificate) { c.Subject.CommonName = "mx.example.com" })
	forged := other.issue(nil, "mx.example.com") // by another authority, shown with ours
	forged.Certificate = append(forged.Certificate[:1], ca.cert.Raw)
	full := good
	full.Certificate = append(full.Certificate, root.cert.Raw)
	alone := good
	alone.Certificate = alone.Certificate[:1]
	oldCA := newAuthority(t, nil, expired)
	underOld := oldCA.issue(nil, "mx.example.com")
	notCA := newAuthority(t, root, func(c *x509.Certificate) { c.IsCA = false })
	underNotCA := notCA.issue(nil, "mx.example.com")
	underNotCA.Certificate = append(underNotCA.Certificate, root.cert.Raw)

	rows := []struct {
		name   string
		server tls.Certificate
		record dns.TLSA
		want   ResultType // "" for success
	}{
		{"3 0 0", good, tlsa(3, 0, 0, good.Leaf), ""},
		{"3 0 1", good, tlsa(3, 0, 1, good.Leaf), ""},
		{"3 1 1", good, tlsa(3, 1, 1, good.Leaf), ""},
		{"3 1 2", good, tlsa(3, 1, 2, good.Leaf), ""},
		{"3 1 0", good, tlsa(3, 1, 0, good.Leaf), ""},
		{"EE of another", good, tlsa(3, 1, 1, old.Leaf), ValidationFailure},
		{"EE, expired", old, tlsa(3, 1, 1, old.Leaf), ""},
		{"EE, other name", foreign, tlsa(3, 1, 1, foreign.Leaf), ""},
		{"EE that is the authority's", good, tlsa(3, 1, 1, ca.cert), ValidationFailure},
		{"2 0 1", good, tlsa(2, 0, 1, ca.cert), ""},
		{"2 1 1", good, tlsa(2, 1, 1, ca.cert), ""},
		{"2 1 1, root in the chain", full, tlsa(2, 1, 1, root.cert), ""},
		{"2 1 1, root not in the chain", good, tlsa(2, 1, 1, root.cert), ValidationFailure},
		{"2 0 0, authority only in the record", alone, tlsa(2, 0, 0, ca.cert), ""},
		{"TA of another", good, tlsa(2, 1, 1, other.cert), ValidationFailure},
		{"TA that is the server's", good, tlsa(2, 1, 1, good.Leaf), ValidationFailure},
		{"TA, forged", forged, tlsa(2, 1, 1, ca.cert), CertificateNotTrusted},
		{"TA, expired", old, tlsa(2, 1, 1, ca.cert), CertificateExpired},
		{"TA expired itself", underOld, tlsa(2, 1, 1, oldCA.cert), CertificateExpired},
		{"TA, above what is no authority", underNotCA, tlsa(2, 1, 1, root.cert), CertificateNotTrusted},
		{"TA, wildcard", wild, tlsa(2, 1, 1, ca.cert), ""},
		{"TA, name of the domain", domain, tlsa(2, 1, 1, ca.cert), ""},
		{"TA, other name", foreign, tlsa(2, 1, 1, ca.cert), CertificateHostMismatch},
		{"TA, common name", common, tlsa(2, 1, 1, ca.cert), ""},
	}
	for _, row := range rows {
		d := &Decision{Level: DANE, host: "mx.example.com", names: []string{"mx.example.com", "example.com"},
			records: []dns.TLSA{row.record}, now: func() time.Time { return now }}
		f := d.Check(tls.ConnectionState{PeerCertificates: chainOf(t, row.server)})
		switch {
		case row.want == "" && f != nil:
			t.Errorf("%s: %s, %v", row.name, f.Type, f)
		case row.want != "" && (f == nil || f.Type != row.want || !f.Enforced):
			t.Errorf("%s: %+v, want %s", row.name, f, row.want)
		}
	}
	d := &Decision{Level: DANE, records: []dns.TLSA{tlsa(3, 1, 1, good.Leaf), tlsa(3, 1, 1, old.Leaf)}}
	if f := d.Check(tls.ConnectionState{PeerCertificates: chainOf(t, old)}); f != nil {
		t.Errorf("second record: %v", f)
	}
	if f := d.Check(tls.ConnectionState{}); f == nil {
		t.Error("no certificate is no failure")
	}
}

// handshake connects a client with cfg to a server with a certificate, and returns the client's
// error.
func handshake(t testing.TB, cfg *tls.Config, server tls.Certificate) error {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go func() {
		s := tls.Server(b, &tls.Config{Certificates: []tls.Certificate{server}})
		s.Handshake()
		b.Close()
	}()
	return tls.Client(a, cfg).HandshakeContext(context.Background())
}

// TestOpenSSL takes certificate and TLSA data from OpenSSL.
func TestOpenSSL(t *testing.T) {
	dir := t.TempDir()
	key, cert := filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem")
	openssl(t, nil, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert,
		"-days", "30", "-subj", "/CN=mx.example.com", "-addext", "subjectAltName=DNS:mx.example.com")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	der := openssl(t, nil, "x509", "-in", cert, "-outform", "DER")
	spki := openssl(t, openssl(t, nil, "x509", "-in", cert, "-noout", "-pubkey"),
		"pkey", "-pubin", "-outform", "DER")
	for _, row := range []struct {
		selector, matching uint8
		data               []byte
	}{
		{0, 0, der},
		{0, 1, openssl(t, der, "dgst", "-sha256", "-binary")},
		{0, 2, openssl(t, der, "dgst", "-sha512", "-binary")},
		{1, 0, spki},
		{1, 1, openssl(t, spki, "dgst", "-sha256", "-binary")},
		{1, 2, openssl(t, spki, "dgst", "-sha512", "-binary")},
	} {
		record := dns.TLSA{Usage: 3, Selector: row.selector, MatchingType: row.matching, Data: row.data}
		d := &Decision{Level: DANE, host: "mx.example.com", records: usable([]dns.TLSA{record}), now: time.Now}
		if err := handshake(t, d.TLSConfig(nil), pair); err != nil {
			t.Errorf("3 %d %d: %v", row.selector, row.matching, err)
		}
	}
}

func openssl(t testing.TB, stdin []byte, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl")
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out
}

// TestAgainstOpenSSL asks OpenSSL's client for its verdict on the same chains and records.
func TestAgainstOpenSSL(t *testing.T) {
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl")
	}
	current := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	past := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
	ca := newAuthority(t, nil, current)
	other := newAuthority(t, nil, current)
	good := ca.issue(current, "mx.example.com")
	old := ca.issue(past, "mx.example.com")
	foreign := ca.issue(current, "mx.example.net")
	forged := other.issue(current, "mx.example.com")
	forged.Certificate = append(forged.Certificate[:1], ca.cert.Raw)
	for _, row := range []struct {
		name   string
		server tls.Certificate
		record dns.TLSA
	}{
		{"EE", good, tlsa(3, 1, 1, good.Leaf)},
		{"EE, expired", old, tlsa(3, 1, 1, old.Leaf)},
		{"EE, other name", foreign, tlsa(3, 0, 2, foreign.Leaf)},
		{"EE of another", good, tlsa(3, 1, 1, old.Leaf)},
		{"TA", good, tlsa(2, 1, 1, ca.cert)},
		{"TA, whole", good, tlsa(2, 0, 0, ca.cert)},
		{"TA, expired", old, tlsa(2, 1, 1, ca.cert)},
		{"TA, other name", foreign, tlsa(2, 1, 1, ca.cert)},
		{"TA, forged", forged, tlsa(2, 1, 1, ca.cert)},
		{"TA of another", good, tlsa(2, 1, 1, other.cert)},
	} {
		d := &Decision{Level: DANE, host: "mx.example.com", names: []string{"mx.example.com"},
			records: usable([]dns.TLSA{row.record}), now: time.Now}
		ours := handshake(t, d.TLSConfig(nil), row.server) == nil
		theirs := sClient(t, path, row.server, row.record)
		if ours != theirs {
			t.Errorf("%s: we say %v, OpenSSL says %v", row.name, ours, theirs)
		}
	}
}

// sClient reports whether openssl s_client verifies a server by a TLSA record.
func sClient(t *testing.T, openssl string, server tls.Certificate, r dns.TLSA) bool {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{server}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.Accept(); err == nil {
			c.(*tls.Conn).Handshake()
			c.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	args := []string{"s_client", "-connect", l.Addr().String(), "-verify_return_error",
		"-dane_tlsa_domain", "mx.example.com", "-dane_tlsa_rrdata",
		fmt.Sprintf("%d %d %d %s", r.Usage, r.Selector, r.MatchingType, hex.EncodeToString(r.Data))}
	if r.Usage == usageEE {
		args = append(args, "-dane_ee_no_namechecks")
	}
	cmd := exec.CommandContext(ctx, openssl, args...)
	out, err := cmd.CombinedOutput()
	l.Close()
	<-done
	verified := strings.Contains(string(out), "Verification: OK")
	if !verified && !strings.Contains(string(out), "verify error") &&
		!strings.Contains(string(out), "certificate verify failed") {
		t.Fatalf("openssl says neither: %v\n%s", err, out)
	}
	return verified
}

// TestHandshakeLevels runs each level through a real handshake.
func TestHandshakeLevels(t *testing.T) {
	ca := newAuthority(t, nil, nil)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	good, wrong := ca.issue(nil, "mx.example.com"), newAuthority(t, nil, nil).issue(nil, "mx.example.com")
	other := ca.issue(nil, "mx.example.net")
	rows := []struct {
		name   string
		d      Decision
		server tls.Certificate
		want   ResultType
	}{
		{"opportunistic", Decision{}, wrong, ""},
		{"encrypted", Decision{Level: Encrypted}, wrong, ""},
		{"webpki", Decision{Level: WebPKI}, good, ""},
		{"webpki, other authority", Decision{Level: WebPKI}, wrong, CertificateNotTrusted},
		{"webpki, other name", Decision{Level: WebPKI}, other, CertificateHostMismatch},
		{"webpki in testing mode", Decision{testing: true}, other, ""},
		{"dane", Decision{Level: DANE, records: []dns.TLSA{tlsa(3, 1, 1, wrong.Leaf)}}, wrong, ""},
		{"dane, other certificate", Decision{Level: DANE, records: []dns.TLSA{tlsa(3, 1, 1, wrong.Leaf)}},
			good, ValidationFailure},
		{"not to be used", Decision{Failure: &Failure{Type: DNSSECInvalid, Err: os.ErrInvalid}}, good,
			DNSSECInvalid},
	}
	for _, row := range rows {
		row.d.host, row.d.roots, row.d.now = "mx.example.com", roots, func() time.Time { return now }
		cfg := row.d.TLSConfig(&tls.Config{Rand: rand.Reader})
		err := handshake(t, cfg, row.server)
		f, _ := err.(*Failure)
		if row.want == "" && err != nil || row.want != "" && (f == nil || f.Type != row.want) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
	testing := Decision{testing: true, host: "mx.example.com", roots: roots,
		now: func() time.Time { return now }}
	f := testing.Check(tls.ConnectionState{PeerCertificates: chainOf(t, other)})
	if f == nil || f.Enforced || f.Type != CertificateHostMismatch {
		t.Errorf("what testing mode reports: %+v", f)
	}
}

func BenchmarkCheckDANE(b *testing.B) {
	ca := newAuthority(b, nil, nil)
	leaf := ca.issue(nil, "mx.example.com")
	cs := tls.ConnectionState{PeerCertificates: chainOf(b, leaf)}
	for name, r := range map[string]dns.TLSA{"EE": tlsa(3, 1, 1, leaf.Leaf), "TA": tlsa(2, 1, 1, ca.cert)} {
		b.Run(name, func(b *testing.B) {
			d := &Decision{Level: DANE, host: "mx.example.com", names: []string{"mx.example.com"},
				records: []dns.TLSA{r}, now: func() time.Time { return now }}
			for b.Loop() {
				if f := d.Check(cs); f != nil {
					b.Fatal(f)
				}
			}
		})
	}
}

// FuzzTLSA: records are made by strangers, and so are certificates.
func FuzzTLSA(f *testing.F) {
	ca := newAuthority(f, nil, nil)
	leaf := ca.issue(nil, "mx.example.com")
	f.Add(uint8(2), uint8(0), uint8(0), ca.cert.Raw)
	f.Add(uint8(3), uint8(1), uint8(1), tlsa(3, 1, 1, leaf.Leaf).Data)
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Leaf.Raw})
	f.Add(uint8(2), uint8(1), uint8(0), block)
	chain := chainOf(f, leaf)
	f.Fuzz(func(t *testing.T, usage, selector, matching uint8, data []byte) {
		r := dns.TLSA{Usage: usage, Selector: selector, MatchingType: matching, Data: data}
		d := &Decision{Level: DANE, host: "mx.example.com", names: []string{"mx.example.com"},
			records: usable([]dns.TLSA{r}), now: func() time.Time { return now }}
		if d.Check(tls.ConnectionState{PeerCertificates: chain}) == nil && !vouches(r, chain[0]) &&
			!vouches(r, chain[1]) {
			t.Error("accepted by a record that is for neither certificate")
		}
	})
}
