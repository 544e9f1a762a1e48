package secp

import (
	"fmt"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// PublicKey is a point of the curve other than infinity.
type PublicKey struct{ x, y [32]byte }

// ParsePublicKey reads a key in compressed, uncompressed or hybrid form and checks that it is on
// the curve.
func ParsePublicKey(b []byte) (PublicKey, error) {
	var p secp256k1.JacobianPoint
	if !parsePoint(b, &p) {
		return PublicKey{}, fmt.Errorf("public key %x: %w", b, ErrKey)
	}
	return publicKey(&p), nil
}

// LiftX returns the key with even y coordinate that has this x coordinate (BIP 340, lift_x).
func LiftX(x *[32]byte) (PublicKey, error) {
	var p secp256k1.JacobianPoint
	if !liftX(x, &p) {
		return PublicKey{}, fmt.Errorf("x-only key %x: %w", *x, ErrKey)
	}
	return publicKey(&p), nil
}

// publicKey takes an affine, normalised point.
func publicKey(p *secp256k1.JacobianPoint) PublicKey {
	return PublicKey{*p.X.Bytes(), *p.Y.Bytes()}
}

func (k *PublicKey) point() (p secp256k1.JacobianPoint) {
	p.X.SetBytes(&k.x)
	p.Y.SetBytes(&k.y)
	p.Z.SetInt(1)
	return p
}

// Odd reports whether the y coordinate is odd.
func (k PublicKey) Odd() bool { return k.y[31]&1 != 0 }

// XOnly returns the x coordinate: the key as BIP 340 writes it.
func (k PublicKey) XOnly() [32]byte { return k.x }

// Compressed returns the 33 octets 02 or 03 and x.
func (k PublicKey) Compressed() [33]byte {
	b := [33]byte{2 + k.y[31]&1}
	copy(b[1:], k.x[:])
	return b
}

// Uncompressed returns the 65 octets 04, x and y.
func (k PublicKey) Uncompressed() [65]byte {
	b := [65]byte{4}
	copy(b[1:], k.x[:])
	copy(b[33:], k.y[:])
	return b
}

// AddTweak returns the key plus tweak times the generator, as BIP 32 derives children.
func (k PublicKey) AddTweak(tweak *[32]byte) (PublicKey, error) {
	p := k.point()
	if !addTweak(&p, tweak) {
		return PublicKey{}, fmt.Errorf("tweak %x: %w", *tweak, ErrKey)
	}
	return publicKey(&p), nil
}

// TaprootOutput returns the output key of BIP 341 for an internal key, and the oddness of its y
// coordinate, which a control block records. root is the Merkle root of the script tree, or empty
// without scripts.
func TaprootOutput(internal *[32]byte, root []byte) (output [32]byte, odd bool, err error) {
	p, err := LiftX(internal)
	if err != nil {
		return output, false, err
	}
	tweak := TapTweak(internal, root)
	q, err := p.AddTweak(&tweak)
	return q.x, q.Odd(), err
}
