package secp

import (
	"bytes"
	"encoding/binary"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// The tests here run our engine beside decred's library.

func (p *jacobian) decred() (q secp256k1.JacobianPoint) {
	if p.infinity {
		return q
	}
	a := p.affine()
	x, y := a.x.bytes(), a.y.bytes()
	q.X.SetBytes(&x)
	q.Y.SetBytes(&y)
	q.Z.SetInt(1)
	return q
}

func samePoint(p *jacobian, q *secp256k1.JacobianPoint) bool {
	if infinite(q) {
		return p.infinity
	}
	if p.infinity {
		return false
	}
	r := p.decred()
	return r.EquivalentNonConst(q)
}

func decredScalar(k scalar) *secp256k1.ModNScalar {
	var b [32]byte
	toBig(k).FillBytes(b[:])
	z := new(secp256k1.ModNScalar)
	z.SetBytes(&b)
	return z
}

// randomized gives a point another z.
func (p *jacobian) randomized(r *rand.Rand) jacobian {
	z := field{r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64()}
	q := *p
	var zz field
	zz.square(&z)
	q.x.mul(&q.x, &zz)
	zz.mul(&zz, &z)
	q.y.mul(&q.y, &zz)
	q.z.mul(&q.z, &z)
	return q
}

// TestPoints adds and doubles every pair of some points, with the sums that formulas get wrong:
// equal points, opposite ones, infinity.
func TestPoints(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	points := []jacobian{{infinity: true}}
	for _, k := range []uint64{1, 2, 3, 7, 1 << 40} {
		p := generatorMultiple(&scalar{k})
		a := p.affine()
		opposite := a
		opposite.negate()
		points = append(points, a.jacobian(), opposite.jacobian(), p.randomized(r))
	}
	for i := range points {
		a := &points[i]
		da := a.decred()
		var got jacobian
		var want secp256k1.JacobianPoint
		got.double(a)
		secp256k1.DoubleNonConst(&da, &want)
		if !samePoint(&got, &want) {
			t.Errorf("twice point %d", i)
		}
		got = *a
		if got.double(&got); !samePoint(&got, &want) {
			t.Errorf("twice point %d, in place", i)
		}
		for j := range points {
			b := &points[j]
			db := b.decred()
			secp256k1.AddNonConst(&da, &db, &want)
			if got.add(a, b); !samePoint(&got, &want) {
				t.Errorf("points %d and %d", i, j)
			}
			got = *a
			if got.add(&got, b); !samePoint(&got, &want) {
				t.Errorf("points %d and %d, in place", i, j)
			}
			if b.infinity {
				continue
			}
			flat := b.affine()
			if got.addAffine(a, &flat); !samePoint(&got, &want) {
				t.Errorf("points %d and %d, affine", i, j)
			}
			got = *a
			if got.addAffine(&got, &flat); !samePoint(&got, &want) {
				t.Errorf("points %d and %d, affine, in place", i, j)
			}
		}
	}
}

// scalars are numbers about which the splitting and the digits can go wrong.
func scalars(random int) (all []scalar) {
	for _, a := range operands(bigN, random) {
		all = append(all, scalar(fromBig(new(big.Int).Mod(toBig(a), bigN))))
	}
	negative := lambda
	negative.negate()
	square := lambda
	square.mul(&square, &lambda)
	return append(all, lambda, negative, square, minusB1, b2)
}

// TestMultiples compares multiples of the generator and sums of multiples with decred's.
func TestMultiples(t *testing.T) {
	all := scalars(60)
	r := rand.New(rand.NewPCG(3, 3))
	for _, k := range all {
		var want secp256k1.JacobianPoint
		secp256k1.ScalarBaseMultNonConst(decredScalar(k), &want)
		if got := generatorMultiple(&k); !samePoint(&got, &want) {
			t.Errorf("%x·G", k)
		}
		// Points that are themselves small multiples meet those of the tables.
		for _, q := range []scalar{{1}, {2}, orderMinus(1), lambda, {r.Uint64(), r.Uint64()}} {
			point := generatorMultiple(&q)
			flat := point.affine()
			g := all[r.IntN(len(all))]
			got := sumOfMultiples(&g, &flat, &k)
			var sum scalar
			sum.mul(&q, &k)
			sum.add(&sum, &g)
			secp256k1.ScalarBaseMultNonConst(decredScalar(sum), &want)
			if !samePoint(&got, &want) {
				t.Errorf("%x·G + %x·(%x·G)", g, k, q)
			}
		}
	}
}

func orderMinus(n int64) scalar {
	return scalar(fromBig(new(big.Int).Sub(bigN, big.NewInt(n))))
}

// TestGeneratorTables checks every point of both tables.
func TestGeneratorTables(t *testing.T) {
	tables := generatorMultiples()
	for i := range tables.plain {
		k := scalar{uint64(2*i + 1)}
		var want secp256k1.JacobianPoint
		secp256k1.ScalarBaseMultNonConst(decredScalar(k), &want)
		if got := tables.plain[i].jacobian(); !samePoint(&got, &want) {
			t.Fatalf("%d·G", 2*i+1)
		}
		k.mul(&k, &lambda)
		secp256k1.ScalarBaseMultNonConst(decredScalar(k), &want)
		if got := tables.lambdas[i].jacobian(); !samePoint(&got, &want) {
			t.Fatalf("%d·lambda·G", 2*i+1)
		}
	}
	base := scalar{1}
	factor := scalar{1 << windowWidth}
	for w := range generatorWindows() {
		for d := range windowTable {
			k := scalar{uint64(d + 1)}
			k.mul(&k, &base)
			var want secp256k1.JacobianPoint
			secp256k1.ScalarBaseMultNonConst(decredScalar(k), &want)
			if got := generatorWindows()[w][d].jacobian(); !samePoint(&got, &want) {
				t.Fatalf("%d·2^%d·G", d+1, w*windowWidth)
			}
		}
		base.mul(&base, &factor)
	}
}

// TestSumOfTerms compares buckets with the plain sum, with points that meet in a bucket: the same,
// the opposite.
func TestSumOfTerms(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for _, n := range []int{1, 2, 3, 10, 50, 200, 700} {
		var terms []term
		var total scalar
		for i := range n {
			k := scalar{uint64(1 + r.IntN(4))}
			if i%3 == 0 {
				k = scalar{r.Uint64(), r.Uint64(), r.Uint64()}
			}
			times := scalar{r.Uint64(), r.Uint64()}
			if i%5 == 0 {
				times = scalar{uint64(r.IntN(3))}
			}
			if i%2 == 0 {
				times.negate()
			}
			point := generatorMultiple(&k)
			terms = append(terms, term{point.affine(), times.short()})
			k.mul(&k, &times)
			total.add(&total, &k)
		}
		got := sumOfTerms(terms)
		var want secp256k1.JacobianPoint
		secp256k1.ScalarBaseMultNonConst(decredScalar(total), &want)
		if !samePoint(&got, &want) {
			t.Errorf("%d terms", n)
		}
	}
}

// TestBatchSizes verifies batches on both sides of where buckets begin, breaks one signature at
// each place, and wants the batch to name it.
func TestBatchSizes(t *testing.T) {
	for _, n := range []int{0, 1, 2, leastBatch - 1, leastBatch, leastBatch + 1, 2 * leastBatch} {
		if testing.Short() && n > leastBatch {
			break
		}
		all := schnorrSignatures(t, n)
		var b Batch
		for i := range all {
			b.Add(100+i, &all[i].Key, &all[i].Message, &all[i].Signature)
		}
		if tag, ok := b.Verify(Native{}); !ok {
			t.Errorf("%d signatures: %d fails", n, tag)
		}
		for i := range all {
			good := b.items[i]
			b.items[i].Signature[40] ^= 1
			if tag, ok := b.Verify(Native{}); ok || tag != 100+i {
				t.Errorf("%d signatures: %d was broken, tag %d, %v", n, i, tag, ok)
			}
			b.items[i] = good
			b.items[i].Message[3] ^= 1
			if tag, ok := b.Verify(Native{}); ok || tag != 100+i {
				t.Errorf("%d signatures: message %d was changed, tag %d, %v", n, i, tag, ok)
			}
			b.items[i] = good
		}
		b.Reset()
		if _, ok := b.Verify(Native{}); !ok || b.Len() != 0 {
			t.Error("an empty batch fails")
		}
	}
}

// TestBatchIsSalted: two wrong signatures whose errors cancel out without coefficients must fail.
func TestBatchIsSalted(t *testing.T) {
	all := schnorrSignatures(t, 2*leastBatch)
	shift := func(sig *[64]byte, by int64) {
		s := new(big.Int).SetBytes(sig[32:])
		s.Add(s, big.NewInt(by)).Mod(s, bigN).FillBytes(sig[32:])
	}
	shift(&all[3].Signature, 1)
	shift(&all[9].Signature, -1)
	if (Native{}).VerifySchnorrBatch(all, new([32]byte)) {
		t.Error("errors cancel out")
	}
	seed := [32]byte{1}
	if a, b := batchCoefficient(&seed, 1), batchCoefficient(&seed, 2); a == b || a[2]|a[3] != 0 {
		t.Errorf("coefficients %x and %x", a, b)
	}
	if batchSeed(all, &[32]byte{1}) == batchSeed(all, &[32]byte{2}) {
		t.Error("the salt does not count")
	}
}

// question asks an engine something that is true or false.
type question struct {
	kind     byte
	key      []byte
	digest   [32]byte
	sig      [64]byte
	internal [32]byte
}

func (q *question) ask(e Engine) bool {
	x := [32]byte(append(q.key, make([]byte, 32)...))
	switch q.kind {
	case 0:
		return e.VerifyECDSA(q.key, &q.digest, &q.sig)
	case 1:
		return e.VerifySchnorr(&x, q.digest[:], &q.sig)
	}
	return e.VerifyTweak(&x, q.sig[0]&1 != 0, &q.internal, &q.digest)
}

// draw makes a question, mostly one that is true, then perhaps changes a bit of it.
func draw(t testing.TB, r *rand.Rand) (q question) {
	number := func() (b [32]byte) {
		switch r.IntN(4) {
		case 0:
			all := edges(bigN)
			all[r.IntN(len(all))].FillBytes(b[:])
		default:
			for i := 0; i < 32; i += 8 {
				binary.LittleEndian.PutUint64(b[i:], r.Uint64())
			}
		}
		return b
	}
	secret := number()
	k, err := ParsePrivateKey(&secret)
	if err != nil {
		k = key(t, byte(1+r.IntN(255)))
	}
	q.digest, q.internal = number(), number()
	pub := k.PublicKey()
	q.kind = byte(r.IntN(3))
	switch q.kind {
	case 0:
		q.sig = k.SignECDSA(&q.digest, false)
		if r.IntN(4) == 0 { // high s
			s := new(big.Int).Sub(bigN, new(big.Int).SetBytes(q.sig[32:]))
			s.FillBytes(q.sig[32:])
		}
		q.key = publicForm(r, pub)
	case 1:
		x := pub.XOnly()
		q.key = x[:]
		if q.sig, err = k.SignSchnorr(q.digest[:], new([32]byte)); err != nil {
			t.Fatal(err)
		}
	case 2:
		q.internal = pub.XOnly()
		even, err := LiftX(&q.internal)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := even.AddTweak(&q.digest); err == nil {
			x := out.XOnly()
			q.key = x[:]
			if out.Odd() {
				q.sig[0] = 1
			}
		}
	}
	if r.IntN(2) == 0 && len(q.key) > 0 {
		part := [][]byte{q.key, q.digest[:], q.sig[:], q.internal[:]}[r.IntN(4)]
		part[r.IntN(len(part))] ^= 1 << r.IntN(8)
	}
	return q
}

func publicForm(r *rand.Rand, k PublicKey) []byte {
	c, u := k.Compressed(), k.Uncompressed()
	switch r.IntN(4) {
	case 0:
		return u[:]
	case 1:
		u[0] = 6 + u[64]&1
		return u[:]
	}
	return c[:]
}

// TestEnginesAgree asks all engines the same.
func TestEnginesAgree(t *testing.T) {
	n := 3000
	if testing.Short() {
		n = 300
	}
	r := rand.New(rand.NewPCG(5, 5))
	right := map[byte]int{}
	for range n {
		q := draw(t, r)
		want := q.ask(Decred{})
		for name, e := range engines {
			if got := q.ask(e); got != want {
				t.Errorf("%s says %v, decred %v: %+v", name, got, want, q)
			}
		}
		if want {
			right[q.kind]++
		}
	}
	for kind := range byte(3) {
		if right[kind] < n/10 {
			t.Errorf("of kind %d only %d of %d were valid", kind, right[kind], n)
		}
	}
}

// FuzzEngines lets the engines answer about any octets.
func FuzzEngines(f *testing.F) {
	r := rand.New(rand.NewPCG(6, 6))
	for range 6 {
		q := draw(f, r)
		f.Add(q.kind, q.key, q.digest[:], q.sig[:], q.internal[:])
	}
	f.Fuzz(func(t *testing.T, kind byte, key, digest, sig, internal []byte) {
		q := question{kind: kind % 3, key: bytes.Clone(key)}
		copy(q.digest[:], digest)
		copy(q.sig[:], sig)
		copy(q.internal[:], internal)
		want := q.ask(plain{})
		for name, e := range engines {
			if got := q.ask(e); got != want {
				t.Errorf("%s says %v, the library %v: %+v", name, got, want, q)
			}
		}
	})
}

// TestSplitSchnorr: what is not below p or n is refused, not reduced.
func TestSplitSchnorr(t *testing.T) {
	for _, c := range []struct {
		name string
		r, s *big.Int
		ok   bool
	}{
		{"highest", new(big.Int).Sub(bigP, big.NewInt(1)), new(big.Int).Sub(bigN, big.NewInt(1)),
			true},
		{"r is p", bigP, big.NewInt(1), false},
		{"s is n", big.NewInt(1), bigN, false},
		{"s is n + 1", big.NewInt(1), new(big.Int).Add(bigN, big.NewInt(1)), false},
		{"r is p + 1", new(big.Int).Add(bigP, big.NewInt(1)), big.NewInt(1), false},
	} {
		var sig [64]byte
		c.r.FillBytes(sig[:32])
		c.s.FillBytes(sig[32:])
		var r field
		var s scalar
		if got := splitSchnorr(&sig, &r, &s); got != c.ok {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
