package secp

import (
	"bytes"
	"encoding/csv"
	"encoding/hex"
	"math/big"
	"testing"

	"github.com/tallypost/tallypost/internal/vectors"
)

// engines are all engines, which must answer alike.
var engines = map[string]Engine{
	"decred": Decred{},
	"plain":  plain{},
	"native": Native{},
}

func forEachEngine(t *testing.T, test func(t *testing.T, e Engine)) {
	for name, e := range engines {
		t.Run(name, func(t *testing.T) { test(t, e) })
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return b
}

// TestBIP340Vectors runs the csv file of BIP 340: signing where there is a secret key, and
// verification.
func TestBIP340Vectors(t *testing.T) {
	rows, err := csv.NewReader(bytes.NewReader(vectors.Read(t,
		"bitcoin/core/bip340_test_vectors.csv"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 20 {
		t.Errorf("%d rows, want 19 and a header", len(rows))
	}
	forEachEngine(t, func(t *testing.T, e Engine) {
		for _, row := range rows[1:] {
			index, secret, key, aux := row[0], row[1], [32]byte(unhex(t, row[2])), row[3]
			msg, sig, want := unhex(t, row[4]), [64]byte(unhex(t, row[5])), row[6] == "TRUE"
			if got := e.VerifySchnorr(&key, msg, &sig); got != want {
				t.Errorf("row %s (%s): %v, want %v", index, row[7], got, want)
			}
			if len(msg) == 32 {
				checkInBatch(t, e, index, SchnorrSignature{key, [32]byte(msg), sig}, want)
			}
			if secret == "" {
				continue
			}
			k, err := ParsePrivateKey((*[32]byte)(unhex(t, secret)))
			if err != nil {
				t.Fatal(err)
			}
			if got := k.PublicKey().XOnly(); got != key {
				t.Errorf("row %s: public key %x, want %x", index, got, key)
			}
			got, err := k.SignSchnorr(msg, (*[32]byte)(unhex(t, aux)))
			if err != nil || got != sig {
				t.Errorf("row %s: signature %x (%v), want %x", index, got, err, sig)
			}
		}
	})
}

// checkInBatch puts a signature between two good ones.
func checkInBatch(t *testing.T, e Engine, index string, s SchnorrSignature, want bool) {
	t.Helper()
	k := key(t, 7)
	var b Batch
	for tag := 1; tag <= 3; tag++ {
		if tag == 2 {
			b.Add(tag, &s.Key, &s.Message, &s.Signature)
			continue
		}
		msg := [32]byte{byte(tag)}
		sig, err := k.SignSchnorr(msg[:], new([32]byte))
		if err != nil {
			t.Fatal(err)
		}
		pub := k.PublicKey().XOnly()
		b.Add(tag, &pub, &msg, &sig)
	}
	if got := e.VerifySchnorrBatch(b.items, &b.Salt); got != want {
		t.Errorf("row %s: in a batch %v, want %v", index, got, want)
	}
	if tag, ok := b.Verify(e); ok != want || !ok && tag != 2 {
		t.Errorf("row %s: batch says %v, tag %d", index, ok, tag)
	}
}

// key returns a private key that is a small number.
func key(t testing.TB, n byte) *PrivateKey {
	t.Helper()
	k, err := ParsePrivateKey(&[32]byte{31: n})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestPrivateKeyRange holds keys to 1 <= d < n.
func TestPrivateKeyRange(t *testing.T) {
	highest := order
	highest[31]--
	for _, c := range []struct {
		name string
		key  [32]byte
		ok   bool
	}{
		{"zero", [32]byte{}, false},
		{"one", [32]byte{31: 1}, true},
		{"order - 1", highest, true},
		{"order", order, false},
		{"all ones", [32]byte(bytes.Repeat([]byte{0xff}, 32)), false},
	} {
		if _, err := ParsePrivateKey(&c.key); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := key(t, 1).AddTweak(&highest); err == nil {
		t.Error("1 + (n-1): the sum is zero, no key")
	}
	if _, err := key(t, 1).AddTweak(&order); err == nil {
		t.Error("tweak of n is out of range")
	}
	if _, err := key(t, 1).PublicKey().AddTweak(&highest); err == nil {
		t.Error("G + (n-1)·G is infinity, no key")
	}
}

// TestTweaksAgree adds the same tweak to both halves of a key.
func TestTweaksAgree(t *testing.T) {
	tweak := [32]byte{1, 2, 3}
	k, err := key(t, 9).AddTweak(&tweak)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := key(t, 9).PublicKey().AddTweak(&tweak)
	if err != nil {
		t.Fatal(err)
	}
	if k.PublicKey() != pub {
		t.Errorf("private half gives %x, public half %x", k.PublicKey().Compressed(),
			pub.Compressed())
	}
}

// TestPublicKeyForms parses every form of keys and of nearly keys. Core accepts hybrid keys whose
// prefix tells the oddness of y rightly.
func TestPublicKeyForms(t *testing.T) {
	odd, even := key(t, 1).PublicKey(), key(t, 2).PublicKey() // y of G is even, that of 2G too
	if odd.Odd() == even.Odd() {
		even = key(t, 1).PublicKey()
		for n := byte(2); even.Odd() == odd.Odd(); n++ {
			odd = key(t, n).PublicKey()
		}
	}
	if even.Odd() {
		odd, even = even, odd
	}
	prefixed := func(prefix byte, k PublicKey) []byte {
		b := k.Uncompressed()
		b[0] = prefix
		return b[:]
	}
	short := func(prefix byte, k PublicKey) []byte {
		b := k.Compressed()
		b[0] = prefix
		return b[:]
	}
	wrongY := odd.Uncompressed()
	wrongY[64] ^= 1
	notOnCurve := short(2, PublicKey{x: [32]byte{31: 5}}) // 5³+7 is no square
	for _, c := range []struct {
		name string
		key  []byte
		ok   bool
	}{
		{"compressed even", short(2, even), true},
		{"compressed odd", short(3, odd), true},
		{"compressed, the other y", short(3, even), true},
		{"uncompressed", prefixed(4, odd), true},
		{"hybrid even", prefixed(6, even), true},
		{"hybrid odd", prefixed(7, odd), true},
		{"hybrid even, y odd", prefixed(6, odd), false},
		{"hybrid odd, y even", prefixed(7, even), false},
		{"prefix 5", prefixed(5, odd), false},
		{"prefix 2 with both coordinates", prefixed(2, even), false},
		{"prefix 4 with one coordinate", short(4, even), false},
		{"not on the curve", notOnCurve, false},
		{"y not on the curve", wrongY[:], false},
		{"x not below p", short(2, PublicKey{x: [32]byte(bytes.Repeat([]byte{0xff}, 32))}), false},
		{"empty", nil, false},
		{"infinity", []byte{0}, false},
		{"one octet short", short(2, even)[:32], false},
		{"one octet long", append(short(2, even), 0), false},
	} {
		if _, err := ParsePublicKey(c.key); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		// The engines parse on their own: a key that parses verifies a signature made for it.
		for name, e := range engines {
			if got := verifiesSomething(t, e, c.key); got != c.ok {
				t.Errorf("%s: engine %s verifies: %v, want %v", c.name, name, got, c.ok)
			}
		}
	}
}

// verifiesSomething makes a signature that the key verifies, without knowing the private key:
// choose R = a·Q + b·G, r = x(R), s = r/a, digest = r·b/a.
func verifiesSomething(t *testing.T, e Engine, pub []byte) bool {
	k, err := ParsePublicKey(pub)
	if err != nil {
		// The arithmetic below is not possible; any signature must fail.
		return e.VerifyECDSA(pub, &[32]byte{1}, &[64]byte{31: 1, 63: 1})
	}
	sum, err := k.AddTweak(&[32]byte{31: 5}) // a = 1, b = 5
	if err != nil {
		t.Fatal(err)
	}
	n := new(big.Int).SetBytes(order[:])
	r := new(big.Int).SetBytes(sum.x[:])
	r.Mod(r, n)
	var rs [64]byte
	r.FillBytes(rs[:32])
	r.FillBytes(rs[32:])
	var digest [32]byte
	new(big.Int).Mod(r.Mul(r, big.NewInt(5)), n).FillBytes(digest[:])
	return e.VerifyECDSA(pub, &digest, &rs)
}

// TestECDSAEdges breaks one thing per row of a good signature.
func TestECDSAEdges(t *testing.T) {
	k := key(t, 3)
	pub := k.PublicKey().Compressed()
	digest := [32]byte{1, 2, 3, 4}
	good := k.SignECDSA(&digest, false)
	n := new(big.Int).SetBytes(order[:])
	with := func(r, s *big.Int) (rs [64]byte) {
		r.FillBytes(rs[:32])
		s.FillBytes(rs[32:])
		return rs
	}
	r, s := new(big.Int).SetBytes(good[:32]), new(big.Int).SetBytes(good[32:])
	negS := new(big.Int).Sub(n, s)
	plus := func(x *big.Int, d int64) *big.Int { return new(big.Int).Add(x, big.NewInt(d)) }
	zero, one := new(big.Int), big.NewInt(1)
	rows := []struct {
		name string
		rs   [64]byte
		ok   bool
	}{
		{"good", good, true},
		{"high s", with(r, negS), true},
		{"r zero", with(zero, s), false},
		{"s zero", with(r, zero), false},
		{"both zero", with(zero, zero), false},
		{"r is n", with(n, s), false},
		{"s is n", with(r, n), false},
		{"r one more", with(plus(r, 1), s), false},
		{"s one more", with(r, plus(s, 1)), false},
		{"r negated", with(new(big.Int).Sub(n, r), s), false},
		{"both one", with(one, one), false},
		{"exchanged", with(s, r), false},
		{"n - 1", with(plus(n, -1), plus(n, -1)), false},
	}
	forEachEngine(t, func(t *testing.T, e Engine) {
		for _, c := range rows {
			if got := e.VerifyECDSA(pub[:], &digest, &c.rs); got != c.ok {
				t.Errorf("%s: %v, want %v", c.name, got, c.ok)
			}
		}
		other := digest
		other[31] ^= 1
		if e.VerifyECDSA(pub[:], &other, &good) {
			t.Error("another digest verifies")
		}
		another := key(t, 4).PublicKey().Compressed()
		if e.VerifyECDSA(another[:], &digest, &good) {
			t.Error("another key verifies")
		}
	})
}

// TestECDSALargeX has r + n as x coordinate of R: r alone does not tell which of the two it is, and
// the verifier must try both (the x coordinate exceeds n with odds of 2^-128, so nature never shows
// it).
func TestECDSALargeX(t *testing.T) {
	// The least x above n that is on the curve; R has this x coordinate.
	n := new(big.Int).SetBytes(order[:])
	var point PublicKey
	for d := int64(1); ; d++ {
		var x [32]byte
		new(big.Int).Add(n, big.NewInt(d)).FillBytes(x[:])
		var err error
		if point, err = LiftX(&x); err == nil {
			break
		}
	}
	// With s = r and digest zero, R = Q must hold: the key is R itself.
	r := new(big.Int).Sub(new(big.Int).SetBytes(point.x[:]), n)
	var rs [64]byte
	r.FillBytes(rs[:32])
	r.FillBytes(rs[32:])
	pub := point.Compressed()
	forEachEngine(t, func(t *testing.T, e Engine) {
		if !e.VerifyECDSA(pub[:], new([32]byte), &rs) {
			t.Error("R with x = r + n does not verify")
		}
	})
}

// TestECDSAInfinity has u1·G + u2·Q at infinity, which no signature may have.
func TestECDSAInfinity(t *testing.T) {
	// Q = d·G and digest = -r·d make u1 + u2·d zero, whatever s is.
	n := new(big.Int).SetBytes(order[:])
	r := big.NewInt(12345)
	digest := new(big.Int).Mul(r, big.NewInt(3))
	digest.Sub(n, digest)
	var e32 [32]byte
	digest.FillBytes(e32[:])
	var rs [64]byte
	r.FillBytes(rs[:32])
	rs[63] = 7
	pub := key(t, 3).PublicKey().Compressed()
	forEachEngine(t, func(t *testing.T, e Engine) {
		if e.VerifyECDSA(pub[:], &e32, &rs) {
			t.Error("infinity verifies")
		}
	})
}

// TestSchnorrEdges breaks one thing per row; the rules are those of BIP 340, "Verification".
func TestSchnorrEdges(t *testing.T) {
	k := key(t, 5)
	pub := k.PublicKey().XOnly()
	msg := [32]byte{9, 8, 7}
	good, err := k.SignSchnorr(msg[:], &[32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	n := new(big.Int).SetBytes(order[:])
	s := new(big.Int).SetBytes(good[32:])
	change := func(f func(sig *[64]byte)) [64]byte {
		sig := good
		f(&sig)
		return sig
	}
	rows := []struct {
		name string
		sig  [64]byte
		ok   bool
	}{
		{"good", good, true},
		{"s negated", change(func(sig *[64]byte) { new(big.Int).Sub(n, s).FillBytes(sig[32:]) }),
			false},
		{"s is n", change(func(sig *[64]byte) { n.FillBytes(sig[32:]) }), false},
		{"s all ones", change(func(sig *[64]byte) {
			copy(sig[32:], bytes.Repeat([]byte{0xff}, 32))
		}), false},
		{"s zero", change(func(sig *[64]byte) { clear(sig[32:]) }), false},
		{"r is p", change(func(sig *[64]byte) { bigP.FillBytes(sig[:32]) }), false},
		{"r zero", change(func(sig *[64]byte) { clear(sig[:32]) }), false},
		{"r all ones", change(func(sig *[64]byte) {
			copy(sig[:32], bytes.Repeat([]byte{0xff}, 32))
		}), false},
		{"one bit of r", change(func(sig *[64]byte) { sig[31] ^= 1 }), false},
		{"one bit of s", change(func(sig *[64]byte) { sig[63] ^= 1 }), false},
	}
	forEachEngine(t, func(t *testing.T, e Engine) {
		for _, c := range rows {
			if got := e.VerifySchnorr(&pub, msg[:], &c.sig); got != c.ok {
				t.Errorf("%s: %v, want %v", c.name, got, c.ok)
			}
			checkInBatch(t, e, c.name, SchnorrSignature{pub, msg, c.sig}, c.ok)
		}
		badKey := [32]byte{31: 5} // not the x coordinate of a point
		if e.VerifySchnorr(&badKey, msg[:], &good) {
			t.Error("a key off the curve verifies")
		}
	})
}
