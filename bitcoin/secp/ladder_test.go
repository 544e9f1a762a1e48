package secp

import (
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// librarySum is g·G + k·q by the library's own functions.
func librarySum(g, k *secp256k1.ModNScalar, q *secp256k1.JacobianPoint) (sum secp256k1.JacobianPoint) {
	var a, b secp256k1.JacobianPoint
	secp256k1.ScalarBaseMultNonConst(g, &a)
	secp256k1.ScalarMultNonConst(k, q, &b)
	secp256k1.AddNonConst(&a, &b, &sum)
	return sum
}

// sameLibraryPoint compares normal points, of which either may be infinity.
func sameLibraryPoint(p, q *secp256k1.JacobianPoint) bool {
	if infinite(p) || infinite(q) {
		return infinite(p) == infinite(q)
	}
	return p.EquivalentNonConst(q)
}

func isNormal(p *secp256k1.JacobianPoint) bool {
	q := *p
	q.X.Normalize()
	q.Y.Normalize()
	q.Z.Normalize()
	return q == *p
}

// meetingScalars are numbers whose points meet those of the ladder's tables: small, near the order,
// times lambda, times 2^128, and sums of such.
func meetingScalars() (all []scalar) {
	shift := scalar{0, 0, 1}
	for _, base := range []scalar{{1}, lambda, shift} {
		for _, times := range []uint64{0, 1, 3, 16, 2047} {
			k := scalar{times}
			k.mul(&k, &base)
			all = append(all, k)
			k.negate()
			all = append(all, k)
		}
	}
	both := lambda
	both.add(&both, &shift)
	return append(all, both)
}

// TestLadder compares sums with the library's. Where the key is a small multiple of the generator, or
// lambda or 2^128 times that, points meet within the sum; then the ladder must know that it failed.
func TestLadder(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	random := func() scalar {
		k := scalar{r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64() >> 1}
		return k
	}
	met := 0
	check := func(g, k, q scalar) {
		t.Helper()
		lg, lk := decredScalar(g), decredScalar(k)
		var point, got secp256k1.JacobianPoint
		secp256k1.ScalarBaseMultNonConst(decredScalar(q), &point)
		if infinite(&point) {
			return
		}
		point.ToAffine()
		want := librarySum(lg, lk, &point)
		if ladder(&got, lg, lk, &point) {
			if infinite(&want) || !sameLibraryPoint(&got, &want) || !isNormal(&got) {
				t.Errorf("ladder: %x·G + %x·(%x·G)", g, k, q)
			}
		} else {
			met++
		}
		sumOfProducts(&got, lg, lk, &point)
		if !sameLibraryPoint(&got, &want) || !isNormal(&got) {
			t.Errorf("%x·G + %x·(%x·G)", g, k, q)
		}
	}
	meeting := meetingScalars()
	if testing.Short() {
		meeting = meeting[:16]
	}
	for _, q := range meeting {
		for _, k := range meeting {
			check(scalar{}, k, q)
			check(random(), k, q)
			var opposite scalar // the sum is infinity
			opposite.mul(&k, &q)
			opposite.negate()
			check(opposite, k, q)
			check(meeting[r.IntN(len(meeting))], k, q)
		}
	}
	if met == 0 {
		t.Error("no points met")
	}
	all := scalars(40)
	met = 0
	for range 300 {
		check(all[r.IntN(len(all))], all[r.IntN(len(all))], random())
		check(random(), random(), random())
	}
	if met > 100 { // zeros are among the chosen ones
		t.Errorf("the ladder gave up %d times", met)
	}
}

// FuzzLadder compares sums of any three numbers.
func FuzzLadder(f *testing.F) {
	for _, k := range meetingScalars() {
		b := field(k)
		octets := b.bytes()
		f.Add(octets[:], octets[:], octets[:])
	}
	f.Fuzz(func(t *testing.T, g, k, q []byte) {
		var lg, lk, lq secp256k1.ModNScalar
		lg.SetByteSlice(g)
		lk.SetByteSlice(k)
		lq.SetByteSlice(q)
		var point, got secp256k1.JacobianPoint
		secp256k1.ScalarBaseMultNonConst(&lq, &point)
		if infinite(&point) {
			return
		}
		point.ToAffine()
		want := librarySum(&lg, &lk, &point)
		sumOfProducts(&got, &lg, &lk, &point)
		if !sameLibraryPoint(&got, &want) {
			t.Errorf("%v·G + %v·(%v·G)", lg, lk, lq)
		}
	})
}

// grown returns a number with every word as large as one of the magnitude can be, which stands for the
// same modulo the prime.
func grown(x secp256k1.FieldVal, magnitude uint32) secp256k1.FieldVal {
	x.Normalize()
	if magnitude > 1 {
		var zero, primes secp256k1.FieldVal
		x.Add(primes.NegateVal(&zero, magnitude-2)) // negating adds the prime once more than that
	}
	return x
}

// TestMagnitudes doubles and adds points whose numbers are as large as the remarks there allow.
func TestMagnitudes(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	for range 200 {
		var k, l secp256k1.ModNScalar
		k.SetInt(r.Uint32() | 1)
		l.SetInt(r.Uint32() | 1)
		var p, q, want secp256k1.JacobianPoint
		secp256k1.ScalarBaseMultNonConst(&k, &p)
		secp256k1.ScalarBaseMultNonConst(&l, &q)
		q.ToAffine()
		large := secp256k1.MakeJacobianPoint(new(grown(p.X, magnitudeX)), new(grown(p.Y, magnitudeY)),
			new(grown(p.Z, magnitudeZ)))
		check := func(what string, got secp256k1.JacobianPoint) {
			t.Helper()
			got.X.Normalize()
			got.Y.Normalize()
			got.Z.Normalize()
			if !got.EquivalentNonConst(&want) {
				t.Errorf("%s %v and %v", what, k, l)
			}
		}
		secp256k1.DoubleNonConst(&p, &want)
		got := large
		double(&got)
		check("double", got)
		secp256k1.AddNonConst(&p, &q, &want)
		x, y := grown(q.X, 8), grown(q.Y, 8)
		got = large
		var ratio, z secp256k1.FieldVal
		addFlat(&got, &x, &y, &got.Z, &ratio)
		check("add", got)
		z.Mul2(&large.Z, &ratio).Normalize()
		if got.Z.Normalize(); !z.Equals(&got.Z) {
			t.Errorf("ratio of z for %v and %v", k, l)
		}
	}
}

// TestLibraryTables checks every point of both tables, with coordinates of magnitude 1.
func TestLibraryTables(t *testing.T) {
	check := func(table []flat, base *secp256k1.ModNScalar) {
		t.Helper()
		for i := range table {
			var k secp256k1.ModNScalar
			k.SetInt(uint32(2*i + 1)).Mul(base)
			var want secp256k1.JacobianPoint
			secp256k1.ScalarBaseMultNonConst(&k, &want)
			want.ToAffine()
			if !table[i].x.Equals(&want.X) || !table[i].y.Equals(&want.Y) {
				t.Fatalf("%v·G", k)
			}
		}
	}
	tables := libraryTables()
	var base secp256k1.ModNScalar
	check(tables.low[:], base.SetInt(1))
	check(tables.high[:], decredScalar(scalar{0, 0, 1}))
}

// TestSplitScalar holds the halves to what they are halves of, and to their length.
func TestSplitScalar(t *testing.T) {
	for _, k := range append(scalars(200), meetingScalars()...) {
		k1, k2, ok := splitScalar(decredScalar(k))
		if !ok {
			t.Errorf("%x is not split", k)
		}
		sum := new(big.Int).Mul(shortBig(k2), toBig(lambda))
		sum.Add(sum, shortBig(k1)).Mod(sum, bigN)
		if sum.Cmp(toBig(k)) != 0 {
			t.Errorf("%x is split into %v and %v", k, k1, k2)
		}
	}
}

func shortBig(s short) *big.Int {
	z := toBig([4]uint64{s.digits[0], s.digits[1], s.digits[2]})
	if s.negative {
		z.Neg(z)
	}
	return z
}

// TestLibraryInverses compares what stands for the library's inverses with them.
func TestLibraryInverses(t *testing.T) {
	for _, k := range scalars(100) {
		if k.isZero() {
			continue
		}
		got, want := decredScalar(k), decredScalar(k)
		invertScalar(got)
		if want.InverseNonConst(); !got.Equals(want) {
			t.Errorf("1/%x", k)
		}
		var p secp256k1.JacobianPoint
		secp256k1.ScalarBaseMultNonConst(decredScalar(k), &p)
		q := p
		flatten(&p)
		if q.ToAffine(); p != q {
			t.Errorf("%x·G is not flat", k)
		}
	}
}
