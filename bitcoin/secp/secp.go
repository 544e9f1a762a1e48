// Package secp verifies and makes the signatures of Bitcoin: ECDSA and BIP 340 Schnorr over the
// curve secp256k1, with the tweaks of BIP 341.
//
// It takes what stands in scripts and transactions (serialised keys, lax DER) and answers as
// Bitcoin Core's CPubKey and XOnlyPubKey do. What does the arithmetic is an Engine; all engines
// answer alike, and a faster one is proven by running it beside the others through the same tests.
//
// Which encodings of a signature a script may carry (BIP 66, low S, hash types) is for package
// script. Signing is deterministic but not hardened against somebody who can measure this process
// to the nanosecond.
package secp

import (
	"crypto/sha256"
	"errors"
)

// Engine does the arithmetic of verification. Its methods may be called from many goroutines. They
// keep no argument, and none of them panics, whatever the octets are.
type Engine interface {
	// VerifyECDSA reports whether rs, that is r and s of 32 octets each, signs the digest under the
	// serialised key: compressed, uncompressed or hybrid. s may lie in either half of the range.
	VerifyECDSA(key []byte, digest *[32]byte, rs *[64]byte) bool

	// VerifySchnorr reports whether sig signs msg under the x-only key (BIP 340, "Verification").
	VerifySchnorr(key *[32]byte, msg []byte, sig *[64]byte) bool

	// VerifySchnorrBatch reports whether all signatures are valid (BIP 340, "Batch verification").
	// salt must be one that whoever made the signatures could not foresee.
	VerifySchnorrBatch(batch []SchnorrSignature, salt *[32]byte) bool

	// VerifyTweak reports whether output is the x coordinate, and odd the oddness of the y
	// coordinate, of the even point with x coordinate internal plus tweak times the generator.
	VerifyTweak(output *[32]byte, odd bool, internal, tweak *[32]byte) bool
}

// SchnorrSignature is a signature of BIP 340 with the key and the 32-octet message it is said to
// sign.
type SchnorrSignature struct {
	Key, Message [32]byte
	Signature    [64]byte
}

// ErrKey says that octets are no public or private key.
var ErrKey = errors.New("not a secp256k1 key")

// VerifyECDSA reports whether the DER signature, parsed as laxly as Core does, signs the digest
// under the serialised key (Core pubkey.cpp, CPubKey::Verify).
func VerifyECDSA(e Engine, key []byte, digest *[32]byte, der []byte) bool {
	rs, ok := ParseDER(der)
	return ok && e.VerifyECDSA(key, digest, &rs)
}

// TapTweak returns the hash by which BIP 341 tweaks an internal key. root is the Merkle root of the
// script tree, or empty where there are no scripts.
func TapTweak(internal *[32]byte, root []byte) [32]byte {
	return taggedHash(&tapTweakTag, internal[:], root)
}

// VerifyTapTweak reports whether the output key commits to the internal key and the Merkle root
// (BIP 341, "Script validation rules"; Core pubkey.cpp, XOnlyPubKey::CheckTapTweak).
func VerifyTapTweak(e Engine, output, internal, root *[32]byte, odd bool) bool {
	tweak := TapTweak(internal, root[:])
	return e.VerifyTweak(output, odd, internal, &tweak)
}

// The tags of BIP 340 and BIP 341, each as the 64 octets that a tagged hash starts with.
var (
	challengeTag = Tag("BIP0340/challenge")
	nonceTag     = Tag("BIP0340/nonce")
	auxTag       = Tag("BIP0340/aux")
	batchTag     = Tag("BIP0340/batch")
	tapTweakTag  = Tag("TapTweak")
)

// Tag returns SHA-256(name) twice: what every hash tagged with the name starts with (BIP 340,
// "Design").
func Tag(name string) [64]byte {
	h := sha256.Sum256([]byte(name))
	var tag [64]byte
	copy(tag[:32], h[:])
	copy(tag[32:], h[:])
	return tag
}

// taggedHash hashes the parts after the tag. Short messages are put together on the stack, so that
// none of the hashes of a verification allocates.
func taggedHash(tag *[64]byte, parts ...[]byte) [32]byte {
	var buf [224]byte
	n := copy(buf[:], tag[:])
	for i, p := range parts {
		if len(p) > len(buf)-n {
			return taggedHashLong(buf[:n], parts[i:])
		}
		n += copy(buf[n:], p)
	}
	return sha256.Sum256(buf[:n])
}

func taggedHashLong(head []byte, parts [][]byte) [32]byte {
	h := sha256.New()
	h.Write(append([]byte(nil), head...))
	for _, p := range parts {
		h.Write(append([]byte(nil), p...))
	}
	return [32]byte(h.Sum(nil))
}
