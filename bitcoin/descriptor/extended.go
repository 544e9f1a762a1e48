package descriptor

import (
	"crypto/hmac"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

// hardened is the bit of a child's number that says that only the secret key leads to it (BIP 32).
const hardened = 1 << 31

// ErrHardened is the error of a hardened child of a public key.
var ErrHardened = errors.New("Cannot derive script without private keys")

// Extended is an extended key of BIP 32, public or secret.
type Extended struct {
	depth  byte
	parent [4]byte
	child  uint32
	chain  [32]byte
	public secp.PublicKey
	secret *secp.PrivateKey // nil: it is public
}

// ParseExtended reads an extended key, as "xpub…" or "xprv…" on the main network.
func ParseExtended(net *bitcoin.Network, s string) (*Extended, error) {
	b, ok := bitcoin.DecodeBase58Check(s, 78)
	if !ok || len(b) != 78 {
		return nil, errors.New("not an extended key")
	}
	k := &Extended{depth: b[4], parent: [4]byte(b[5:9]), child: binary.BigEndian.Uint32(b[9:13]),
		chain: [32]byte(b[13:45])}
	if k.depth == 0 && (k.child != 0 || k.parent != [4]byte{}) {
		return nil, errors.New("an extended key without a parent that names one")
	}
	var err error
	switch [4]byte(b[:4]) {
	case net.ExtPublicPrefix:
		k.public, err = secp.ParsePublicKey(b[45:])
	case net.ExtSecretPrefix:
		if b[45] != 0 {
			return nil, errors.New("an extended secret key of 33 octets")
		}
		secret := [32]byte(b[46:])
		if k.secret, err = secp.ParsePrivateKey(&secret); err == nil {
			k.public = k.secret.PublicKey()
		}
	default:
		return nil, errors.New("an extended key of another network")
	}
	return k, err
}

// Public returns the extended key without what is secret.
func (k *Extended) Public() *Extended {
	p := *k
	p.secret = nil
	return &p
}

// String returns the key as ParseExtended reads it.
func (k *Extended) String(net *bitcoin.Network) string {
	prefix := net.ExtPublicPrefix
	key := k.public.Compressed()
	if k.secret != nil {
		prefix = net.ExtSecretPrefix
		secret := k.secret.Bytes()
		key = [33]byte(append([]byte{0}, secret[:]...))
	}
	b := append(prefix[:], k.depth)
	b = binary.BigEndian.AppendUint32(append(b, k.parent[:]...), k.child)
	return bitcoin.EncodeBase58Check(append(append(b, k.chain[:]...), key[:]...))
}

// fingerprint is by what the children of a key name it.
func (k *Extended) fingerprint() (f [4]byte) {
	key := k.public.Compressed()
	h := script.Hash160(key[:])
	copy(f[:], h[:])
	return f
}

// Child derives a child (BIP 32, CKDpriv and CKDpub). The error is ErrHardened where that needs the secret
// key.
func (k *Extended) Child(i uint32) (*Extended, error) {
	if k.depth == 255 {
		return nil, errors.New("an extended key has at most 255 ancestors")
	}
	mac := hmac.New(sha512.New, k.chain[:])
	if i >= hardened {
		if k.secret == nil {
			return nil, ErrHardened
		}
		secret := k.secret.Bytes()
		mac.Write([]byte{0})
		mac.Write(secret[:])
	} else {
		key := k.public.Compressed()
		mac.Write(key[:])
	}
	mac.Write(binary.BigEndian.AppendUint32(nil, i))
	sum := mac.Sum(nil)
	child := &Extended{depth: k.depth + 1, parent: k.fingerprint(), child: i, chain: [32]byte(sum[32:])}
	tweak := [32]byte(sum[:32])
	var err error
	if k.secret == nil {
		child.public, err = k.public.AddTweak(&tweak)
	} else if child.secret, err = k.secret.AddTweak(&tweak); err == nil {
		child.public = child.secret.PublicKey()
	}
	if err != nil {
		return nil, fmt.Errorf("child %d: %w", i, err)
	}
	return child, nil
}
