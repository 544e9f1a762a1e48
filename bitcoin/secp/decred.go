package secp

import (
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// Decred is the engine on decred's secp256k1, the library that btcd uses: its field and its scalars,
// proven by years of use, in a shorter chain of steps than its own (see sumOfProducts). It is the one
// that others are compared with, and itself compared with the library's functions. Its batches are
// loops.
type Decred struct{}

var _ Engine = Decred{}

// VerifyECDSA checks that r is the x coordinate of (e·G + r·Q) / s modulo the order (SEC 1, section
// 4.1.4).
func (Decred) VerifyECDSA(key []byte, digest *[32]byte, rs *[64]byte) bool {
	var q secp256k1.JacobianPoint
	if !parsePoint(key, &q) {
		return false
	}
	var r, w, u1, u2 secp256k1.ModNScalar
	if r.SetByteSlice(rs[:32]) || w.SetByteSlice(rs[32:]) || r.IsZero() || w.IsZero() {
		return false
	}
	u1.SetBytes(digest)
	invertScalar(&w)
	u1.Mul(&w)
	u2.Mul2(&r, &w)

	var sum secp256k1.JacobianPoint
	sumOfProducts(&sum, &u1, &u2, &q)
	return !infinite(&sum) && hasX(&sum, (*[32]byte)(rs[:32]))
}

// hasX reports whether the x coordinate of a point is r modulo n, without dividing by z². r is below
// n; the x coordinate may not be.
func hasX(p *secp256k1.JacobianPoint, r *[32]byte) bool {
	var x, zz, scaled secp256k1.FieldVal
	x.SetBytes(r)
	zz.SquareVal(&p.Z)
	if scaled.Mul2(&x, &zz).Normalize().Equals(&p.X) {
		return true
	}
	if x.IsGtOrEqPrimeMinusOrder() {
		return false
	}
	x.Add(&libraryOrder)
	return scaled.Mul2(&x, &zz).Normalize().Equals(&p.X)
}

// VerifySchnorr checks that s·G - e·P has the x coordinate r and an even y coordinate.
func (Decred) VerifySchnorr(key *[32]byte, msg []byte, sig *[64]byte) bool {
	var p, sum secp256k1.JacobianPoint
	if !liftX(key, &p) {
		return false
	}
	var r secp256k1.FieldVal
	var s, e secp256k1.ModNScalar
	if r.SetByteSlice(sig[:32]) || s.SetByteSlice(sig[32:]) {
		return false
	}
	challenge := taggedHash(&challengeTag, sig[:32], key[:], msg)
	e.SetBytes(&challenge)
	e.Negate()
	sumOfProducts(&sum, &s, &e, &p)
	if infinite(&sum) {
		return false
	}
	flatten(&sum)
	return !sum.Y.IsOdd() && sum.X.Equals(&r)
}

// VerifySchnorrBatch verifies one after the other.
func (d Decred) VerifySchnorrBatch(batch []SchnorrSignature, _ *[32]byte) bool {
	for i := range batch {
		b := &batch[i]
		if !d.VerifySchnorr(&b.Key, b.Message[:], &b.Signature) {
			return false
		}
	}
	return true
}

// VerifyTweak computes the tweaked point and compares both coordinates.
func (Decred) VerifyTweak(output *[32]byte, odd bool, internal, tweak *[32]byte) bool {
	var p secp256k1.JacobianPoint
	if !liftX(internal, &p) || !addTweak(&p, tweak) {
		return false
	}
	return *p.X.Bytes() == *output && p.Y.IsOdd() == odd
}

// addTweak adds tweak·G to a point and makes the sum affine. It answers false where the tweak is
// not below the order or the sum is at infinity.
func addTweak(p *secp256k1.JacobianPoint, tweak *[32]byte) bool {
	var t secp256k1.ModNScalar
	if t.SetBytes(tweak) != 0 {
		return false
	}
	var a, sum secp256k1.JacobianPoint
	secp256k1.ScalarBaseMultNonConst(&t, &a)
	secp256k1.AddNonConst(&a, p, &sum)
	if infinite(&sum) {
		return false
	}
	flatten(&sum)
	p.Set(&sum)
	return true
}

func infinite(p *secp256k1.JacobianPoint) bool {
	return p.X.IsZero() && p.Y.IsZero() || p.Z.IsZero()
}

// liftX sets p to the point with even y coordinate that has this x coordinate (BIP 340, lift_x).
func liftX(x *[32]byte, p *secp256k1.JacobianPoint) bool {
	if p.X.SetBytes(x) != 0 || !secp256k1.DecompressY(&p.X, false, &p.Y) {
		return false
	}
	p.Y.Normalize()
	p.Z.SetInt(1)
	return true
}

// parsePoint reads a public key in any form that libsecp256k1 parses: 02 or 03 and x; 04, x and y;
// or 06 or 07, x and y, where the last bit of the prefix is the oddness of y.
func parsePoint(key []byte, p *secp256k1.JacobianPoint) bool {
	p.Z.SetInt(1)
	switch {
	case len(key) == 33 && (key[0] == 2 || key[0] == 3):
		if p.X.SetByteSlice(key[1:33]) || !secp256k1.DecompressY(&p.X, key[0] == 3, &p.Y) {
			return false
		}
		p.Y.Normalize()
		return true
	case len(key) == 65 && (key[0] == 4 || key[0] == 6 || key[0] == 7):
		if p.X.SetByteSlice(key[1:33]) || p.Y.SetByteSlice(key[33:65]) {
			return false
		}
		if key[0] != 4 && p.Y.IsOdd() != (key[0] == 7) {
			return false
		}
		return onCurve(p)
	}
	return false
}

// onCurve reports whether y² = x³ + 7 for an affine point with normalised coordinates.
func onCurve(p *secp256k1.JacobianPoint) bool {
	var left, right secp256k1.FieldVal
	left.SquareVal(&p.Y).Normalize()
	right.SquareVal(&p.X).Mul(&p.X).AddInt(7).Normalize()
	return left.Equals(&right)
}
