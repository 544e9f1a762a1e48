package secp

import "github.com/decred/dcrd/dcrec/secp256k1/v4"

// plain is the engine as the library's own functions make it, which Decred is compared with.
type plain struct{ Decred }

func (plain) VerifyECDSA(key []byte, digest *[32]byte, rs *[64]byte) bool {
	var q secp256k1.JacobianPoint
	if !parsePoint(key, &q) {
		return false
	}
	var r, w, u1, u2 secp256k1.ModNScalar
	if r.SetByteSlice(rs[:32]) || w.SetByteSlice(rs[32:]) || r.IsZero() || w.IsZero() {
		return false
	}
	u1.SetBytes(digest)
	w.InverseNonConst()
	u1.Mul(&w)
	u2.Mul2(&r, &w)
	var sum, a, b secp256k1.JacobianPoint
	secp256k1.ScalarBaseMultNonConst(&u1, &a)
	secp256k1.ScalarMultNonConst(&u2, &q, &b)
	secp256k1.AddNonConst(&a, &b, &sum)
	if infinite(&sum) {
		return false
	}
	sum.ToAffine()
	x := sum.X.Bytes()
	var reduced secp256k1.ModNScalar
	reduced.SetBytes(x) // the x coordinate may exceed the order
	return reduced.Equals(&r)
}

func (plain) VerifySchnorr(key *[32]byte, msg []byte, sig *[64]byte) bool {
	var p, a, b, sum secp256k1.JacobianPoint
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
	secp256k1.ScalarBaseMultNonConst(&s, &a)
	secp256k1.ScalarMultNonConst(&e, &p, &b)
	secp256k1.AddNonConst(&a, &b, &sum)
	if infinite(&sum) {
		return false
	}
	sum.ToAffine()
	return !sum.Y.IsOdd() && sum.X.Equals(&r)
}

func (plain) VerifyTweak(output *[32]byte, odd bool, internal, tweak *[32]byte) bool {
	var p secp256k1.JacobianPoint
	if !liftX(internal, &p) || !addTweak(&p, tweak) {
		return false
	}
	return *p.X.Bytes() == *output && p.Y.IsOdd() == odd
}
