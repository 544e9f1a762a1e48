package secp

import (
	"fmt"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// SignRecoverable returns a signature from which the key can be recovered: 27 plus the number of the nonce's
// point, 4 more for a compressed key, then r and s.
func (k *PrivateKey) SignRecoverable(digest *[32]byte, compressed bool) (sig [65]byte) {
	copy(sig[:], ecdsa.SignCompact(secp256k1.NewPrivateKey(&k.d), digest[:], compressed))
	return sig
}

// Recover returns the key that made a signature, and whether it is meant compressed.
func Recover(sig *[65]byte, digest *[32]byte) (key PublicKey, compressed bool, err error) {
	pub, compressed, err := ecdsa.RecoverCompact(sig[:], digest[:])
	if err != nil {
		return key, false, fmt.Errorf("recover a key: %w", ErrKey)
	}
	key, err = ParsePublicKey(pub.SerializeCompressed())
	return key, compressed, err
}
