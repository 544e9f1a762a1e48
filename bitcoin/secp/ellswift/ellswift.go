// Package ellswift writes the public keys of a handshake as 64 octets that look random:
// ElligatorSwift, as BIP 324 uses it, so that an onlooker cannot tell an encrypted Bitcoin
// connection by its first octets.
//
// Every string of 64 octets decodes to the x coordinate of a point of secp256k1, and every x
// coordinate has about 2^256 encodings, of which one is drawn at random. The arithmetic is that of
// decred's secp256k1 library and does not run in constant time: keys here live as long as one
// handshake and are never used again.
package ellswift

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// Encoding is an x coordinate written as two field elements, u and t.
type Encoding [64]byte

// ErrOffCurve says that there is no point with this x coordinate.
var ErrOffCurve = errors.New("x coordinate is not on the curve")

// Decode returns the x coordinate that an encoding stands for (BIP 324, "XSwiftEC").
func (e *Encoding) Decode() [32]byte {
	x := decode(feBytes(e[:32]), feBytes(e[32:]))
	return *x.Bytes()
}

// Encode draws an encoding of an x coordinate (BIP 324, "XElligatorSwift").
func Encode(x *[32]byte, random io.Reader) (e Encoding, err error) {
	fx := feBytes(x[:])
	if !onCurve(fx) {
		return e, ErrOffCurve
	}
	for {
		var draw [33]byte
		if _, err := io.ReadFull(random, draw[:]); err != nil {
			return e, fmt.Errorf("draw an encoding: %w", err)
		}
		u := feBytes(draw[:32])
		if u.IsZero() {
			continue
		}
		if t, ok := encode(fx, u, draw[32]&7); ok {
			u.PutBytesUnchecked(e[:32])
			t.PutBytesUnchecked(e[32:])
			return e, nil
		}
	}
}

// decode maps (u, t) to the x coordinate of a point: the first of three candidates that is one.
// That one of them always is makes the map whole.
func decode(u, t fe) fe {
	if u.IsZero() {
		u = feInt(1)
	}
	if t.IsZero() {
		t = feInt(1)
	}
	g := curve(u)
	if s := add(g, square(t)); s.IsZero() {
		t = add(t, t)
	}
	x := div(sub(g, square(t)), add(t, t))
	y := div(add(x, t), mul(rootMinus3, u))
	first := add(u, mul(feInt(4), square(y)))
	if onCurve(first) {
		return first
	}
	xy := div(x, y)
	second := half(sub(neg(xy), u))
	if onCurve(second) {
		return second
	}
	return half(sub(xy, u))
}

// encode is the inverse of decode for given x and u. Of the up to eight values of t it returns the
// one that the three bits of which name; ok is false where there is none of that name.
func encode(x, u fe, which byte) (t fe, ok bool) {
	g := curve(u)
	var s, v fe
	if which&2 == 0 {
		if onCurve(neg(add(x, u))) {
			return t, false // decode would stop at an earlier candidate
		}
		v = x
		s = neg(div(g, add(square(u), mul(v, add(u, v)))))
	} else {
		s = sub(x, u)
		if s.IsZero() {
			return t, false
		}
		inner := add(mul(feInt(4), g), mul(mul(feInt(3), s), square(u)))
		r, ok := root(mul(neg(s), inner))
		if !ok || which&1 != 0 && r.IsZero() {
			return t, false
		}
		v = half(sub(div(r, s), u))
	}
	w, ok := root(s)
	if !ok {
		return t, false
	}
	c := rootMinus3
	if which&1 == 0 {
		c = neg(c)
	}
	t = mul(w, add(half(mul(u, add(feInt(1), c))), v))
	if which&5 == 0 || which&5 == 5 {
		t = neg(t)
	}
	return t, true
}

// Key is a key pair for one handshake.
type Key struct {
	secret secp256k1.ModNScalar
	public Encoding
}

// GenerateKey draws a key pair.
func GenerateKey(random io.Reader) (*Key, error) {
	for {
		var b [32]byte
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return nil, fmt.Errorf("draw a key: %w", err)
		}
		k := new(Key)
		if k.secret.SetBytes(&b) != 0 || k.secret.IsZero() {
			continue
		}
		var p secp256k1.JacobianPoint
		secp256k1.ScalarBaseMultNonConst(&k.secret, &p)
		p.ToAffine()
		var err error
		k.public, err = Encode(p.X.Bytes(), random)
		return k, err
	}
}

// NewKey returns a key pair that was made elsewhere. The encoding must be one of the secret's
// public key.
func NewKey(secret *[32]byte, public *Encoding) (*Key, error) {
	k := &Key{public: *public}
	if k.secret.SetBytes(secret) != 0 || k.secret.IsZero() {
		return nil, errors.New("secret key out of range")
	}
	var p secp256k1.JacobianPoint
	secp256k1.ScalarBaseMultNonConst(&k.secret, &p)
	p.ToAffine()
	if *p.X.Bytes() != public.Decode() {
		return nil, errors.New("encoding is not of this key")
	}
	return k, nil
}

// Public returns the encoded public key.
func (k *Key) Public() Encoding { return k.public }

// Secret returns the secret that both sides of a handshake share (BIP 324, "Shared secret
// computation"). The initiator is whoever opened the connection.
func (k *Key) Secret(theirs *Encoding, initiator bool) [32]byte {
	x := decode(feBytes(theirs[:32]), feBytes(theirs[32:]))
	y, _ := root(curve(x)) // decode returns only points; the sign of y does not change the result
	var p, shared secp256k1.JacobianPoint
	p.X, p.Y, p.Z = x, y, feInt(1)
	secp256k1.ScalarMultNonConst(&k.secret, &p, &shared)
	shared.ToAffine()
	first, second := theirs, &k.public
	if initiator {
		first, second = second, first
	}
	tag := sha256.Sum256([]byte("bip324_ellswift_xonly_ecdh"))
	h := sha256.New()
	h.Write(tag[:])
	h.Write(tag[:])
	h.Write(first[:])
	h.Write(second[:])
	h.Write(shared.X.Bytes()[:])
	return [32]byte(h.Sum(nil))
}
