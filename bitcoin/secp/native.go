package secp

import (
	"crypto/sha256"
	"encoding/binary"
)

// Native is our own engine, in plain Go: numbers of four digits of 64 bits, the endomorphism of the
// curve, multiples of several points at once, and batches by buckets. On a Zen 4 core it verifies in
// 43 µs, a batch of 512 in 22 µs each, where Decred takes 98 µs, decred's own functions 159 µs, and
// libsecp256k1 51 µs (ECDSA) and 58 µs (Schnorr). It answers as Decred does (engine_test.go).
type Native struct{}

var _ Engine = Native{}

// VerifyECDSA checks that r is the x coordinate of (e·G + r·Q) / s modulo the order (SEC 1, section
// 4.1.4).
func (Native) VerifyECDSA(key []byte, digest *[32]byte, rs *[64]byte) bool {
	var r, s, e scalar
	if !r.setBytes((*[32]byte)(rs[:32])) || !s.setBytes((*[32]byte)(rs[32:])) {
		return false
	}
	if r.isZero() || s.isZero() {
		return false
	}
	var q affine
	if !q.parse(key) {
		return false
	}
	e.setBytes(digest)
	s.invert(&s)
	e.mul(&e, &s)
	s.mul(&s, &r)
	point := sumOfMultiples(&e, &q, &s)
	return !point.infinity && point.hasX(&r)
}

// primeOverOrder is p - n: an x coordinate modulo n may stand for itself, or, if it is below this,
// for itself plus n.
var primeOverOrder = scalar{0x402da1722fc9baee, 0x4551231950b75fc4, 1}

// hasX reports whether the x coordinate of the point is r modulo n, without dividing by z².
func (p *jacobian) hasX(r *scalar) bool {
	x, zz := field(*r), field{}
	zz.square(&p.z)
	var scaled field
	scaled.mul(&x, &zz)
	if scaled.equal(&p.x) {
		return true
	}
	if r[3] != 0 || r[2] > 1 || !r.below(&primeOverOrder) {
		return false
	}
	x.add(&x, (*field)(&orderDigits))
	scaled.mul(&x, &zz)
	return scaled.equal(&p.x)
}

func (z *scalar) below(x *scalar) bool {
	for i := 3; i >= 0; i-- {
		if z[i] != x[i] {
			return z[i] < x[i]
		}
	}
	return false
}

// VerifySchnorr checks that s·G - e·P has the x coordinate r and an even y coordinate.
func (Native) VerifySchnorr(key *[32]byte, msg []byte, sig *[64]byte) bool {
	var r field
	var s scalar
	if !splitSchnorr(sig, &r, &s) {
		return false
	}
	var p affine
	if !p.setX(key, false) {
		return false
	}
	e := schnorrChallenge(key, msg, sig)
	e.negate()
	sum := sumOfMultiples(&s, &p, &e)
	if sum.infinity {
		return false
	}
	point := sum.affine()
	return !point.y.isOdd() && point.x == r
}

// splitSchnorr reads a signature and reports whether r is below p and s below n. To reduce them
// instead would accept two forms of a signature (btcd's issue 2561).
func splitSchnorr(sig *[64]byte, r *field, s *scalar) bool {
	return r.setBytes((*[32]byte)(sig[:32])) && s.setBytes((*[32]byte)(sig[32:]))
}

func schnorrChallenge(key *[32]byte, msg []byte, sig *[64]byte) (e scalar) {
	challenge := taggedHash(&challengeTag, sig[:32], key[:], msg)
	e.setBytes(&challenge)
	return e
}

// VerifyTweak computes the tweaked point and compares both coordinates.
func (Native) VerifyTweak(output *[32]byte, odd bool, internal, tweak *[32]byte) bool {
	var p affine
	var t scalar
	var x field
	if !t.setBytes(tweak) || !x.setBytes(output) || !p.setX(internal, false) {
		return false
	}
	sum := generatorMultiple(&t)
	sum.addAffine(&sum, &p)
	if sum.infinity {
		return false
	}
	point := sum.affine()
	return point.x == x && point.y.isOdd() == odd
}

// leastBatch is the number of signatures from which on buckets are faster than one by one.
const leastBatch = 16

// VerifySchnorrBatch checks that the sum of a·(s·G - R - e·P) over all signatures is infinity,
// where a is 1 for the first and 128 bits that nobody could foresee for each other one: if one
// signature is wrong, the sum is infinity with odds of 2^-128.
func (n Native) VerifySchnorrBatch(batch []SchnorrSignature, salt *[32]byte) bool {
	if len(batch) < leastBatch {
		for i := range batch {
			b := &batch[i]
			if !n.VerifySchnorr(&b.Key, b.Message[:], &b.Signature) {
				return false
			}
		}
		return true
	}
	seed := batchSeed(batch, salt)
	var total scalar // of the generator
	terms := make([]term, 0, 3*len(batch))
	for i := range batch {
		b := &batch[i]
		var s scalar
		var r, p affine
		if !s.setBytes((*[32]byte)(b.Signature[32:])) || !p.setX(&b.Key, false) ||
			!r.setX((*[32]byte)(b.Signature[:32]), false) {
			return false
		}
		a := batchCoefficient(&seed, i)
		e := schnorrChallenge(&b.Key, b.Message[:], &b.Signature)
		s.mul(&s, &a)
		total.add(&total, &s)
		e.mul(&e, &a)
		e1, e2 := e.split()
		lp := p
		lp.x.mul(&lp.x, &beta)
		terms = append(terms, term{r, a.short()}, term{p, e1}, term{lp, e2})
	}
	sum := sumOfTerms(terms)
	total.negate()
	rest := generatorMultiple(&total)
	sum.add(&sum, &rest)
	return sum.infinity
}

// batchSeed hashes the salt and all signatures, so that the coefficients depend on each of them.
func batchSeed(batch []SchnorrSignature, salt *[32]byte) (seed [32]byte) {
	h := sha256.New()
	h.Write(batchTag[:])
	h.Write(salt[:])
	for i := range batch {
		b := &batch[i]
		h.Write(b.Key[:])
		h.Write(b.Message[:])
		h.Write(b.Signature[:])
	}
	h.Sum(seed[:0])
	return seed
}

// batchCoefficient returns 1, or 128 bits of a hash of the seed and the number of the signature.
func batchCoefficient(seed *[32]byte, i int) scalar {
	if i == 0 {
		return scalar{1}
	}
	var buf [40]byte
	copy(buf[:], seed[:])
	binary.LittleEndian.PutUint64(buf[32:], uint64(i))
	sum := sha256.Sum256(buf[:])
	return scalar{binary.LittleEndian.Uint64(sum[:]), binary.LittleEndian.Uint64(sum[8:])}
}
