package secp

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// PrivateKey is a number between 1 and the order of the group, that number excluded.
type PrivateKey struct{ d secp256k1.ModNScalar }

// ParsePrivateKey reads a key of 32 octets, big-endian.
func ParsePrivateKey(b *[32]byte) (*PrivateKey, error) {
	var k PrivateKey
	if k.d.SetBytes(b) != 0 || k.d.IsZero() {
		return nil, fmt.Errorf("private key: %w", ErrKey)
	}
	return &k, nil
}

// Bytes returns the 32 octets that ParsePrivateKey reads.
func (k *PrivateKey) Bytes() [32]byte { return k.d.Bytes() }

// PublicKey returns the key times the generator.
func (k *PrivateKey) PublicKey() PublicKey {
	p := baseMult(&k.d)
	return publicKey(&p)
}

// baseMult returns k·G, affine.
func baseMult(k *secp256k1.ModNScalar) (p secp256k1.JacobianPoint) {
	secp256k1.ScalarBaseMultNonConst(k, &p)
	p.ToAffine()
	return p
}

// AddTweak returns the key plus the tweak, as BIP 32 derives children.
func (k *PrivateKey) AddTweak(tweak *[32]byte) (*PrivateKey, error) {
	var sum PrivateKey
	if sum.d.SetBytes(tweak) != 0 {
		return nil, fmt.Errorf("tweak: %w", ErrKey)
	}
	if sum.d.Add(&k.d).IsZero() {
		return nil, fmt.Errorf("tweak: %w", ErrKey)
	}
	return &sum, nil
}

// TapTweak returns the key that signs for the taproot output of this internal key (BIP 341,
// taproot_tweak_seckey). root is the Merkle root of the script tree, or empty without scripts.
func (k *PrivateKey) TapTweak(root []byte) (*PrivateKey, error) {
	pub := k.PublicKey()
	even := *k
	if pub.Odd() {
		even.d.Negate()
	}
	tweak := TapTweak(&pub.x, root)
	return even.AddTweak(&tweak)
}

// SignECDSA returns r and s of 32 octets each; AppendDER encodes them. The nonce is that of RFC
// 6979, s is low. Where lowR is set, nonces are tried until r is short too, as Core's wallet does
// to save an octet (Core key.cpp, CKey::Sign).
func (k *PrivateKey) SignECDSA(digest *[32]byte, lowR bool) [64]byte {
	key := k.d.Bytes()
	var extra []byte
	for count := uint32(1); ; count++ {
		nonce := secp256k1.NonceRFC6979(key[:], digest[:], extra, nil, 0)
		rs, ok := k.signECDSA(digest, nonce)
		if ok && (!lowR || rs[0] < 0x80) {
			return rs
		}
		extra = make([]byte, 32)
		binary.LittleEndian.PutUint32(extra, count)
	}
}

func (k *PrivateKey) signECDSA(
	digest *[32]byte, nonce *secp256k1.ModNScalar,
) (rs [64]byte, ok bool) {
	point := baseMult(nonce)
	var r, s, inverse secp256k1.ModNScalar
	r.SetBytes(point.X.Bytes())
	s.SetBytes(digest)
	s.Add(new(secp256k1.ModNScalar).Mul2(&r, &k.d))
	s.Mul(inverse.InverseValNonConst(nonce)) // s = (e + r·d) / nonce
	if r.IsZero() || s.IsZero() {
		return rs, false
	}
	if s.IsOverHalfOrder() {
		s.Negate()
	}
	r.PutBytesUnchecked(rs[:32])
	s.PutBytesUnchecked(rs[32:])
	return rs, true
}

// errNonce cannot be met by anybody who does not search for it for longer than the universe has
// lasted.
var errNonce = errors.New("sign: the nonce is zero")

// SignSchnorr returns the signature of BIP 340, "Default Signing". aux is fresh randomness, or zero
// where none is to be had.
func (k *PrivateKey) SignSchnorr(msg []byte, aux *[32]byte) ([64]byte, error) {
	var sig [64]byte
	pub := k.PublicKey()
	d := k.d
	if pub.Odd() {
		d.Negate()
	}
	masked := taggedHash(&auxTag, aux[:])
	for i, b := range d.Bytes() {
		masked[i] ^= b
	}
	seed := taggedHash(&nonceTag, masked[:], pub.x[:], msg)
	var nonce secp256k1.ModNScalar
	nonce.SetBytes(&seed)
	if nonce.IsZero() {
		return sig, errNonce
	}
	point := baseMult(&nonce)
	if point.Y.IsOdd() {
		nonce.Negate()
	}
	copy(sig[:32], point.X.Bytes()[:])
	challenge := taggedHash(&challengeTag, sig[:32], pub.x[:], msg)
	var s secp256k1.ModNScalar
	s.SetBytes(&challenge)
	s.Mul(&d).Add(&nonce) // s = nonce + e·d
	s.PutBytesUnchecked(sig[32:])
	if !Default().VerifySchnorr(&pub.x, msg, &sig) {
		return sig, errors.New("sign: the signature does not verify: a fault of this machine")
	}
	return sig, nil
}
