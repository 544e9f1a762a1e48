// Package bitcoin holds the nouns of the Bitcoin half: hash, amount, transaction, header, block,
// network, address, with their encodings and the Merkle root.
//
// A block or transaction is parsed once, without copying, into slices of the buffer it came in;
// txids and wtxids are hashed while parsing. No limit here is below what consensus allows: the size
// of the buffer is the bound. Rules of validity are not here: see packages script and consensus.
package bitcoin

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Hash is a double SHA-256 in the order it is computed and sent. It is shown in reverse, as Core
// shows it.
type Hash [32]byte

// DoubleHash returns SHA-256(SHA-256(b)).
func DoubleHash(b []byte) Hash {
	first := sha256.Sum256(b)
	return sha256.Sum256(first[:])
}

// String returns the hash in Core's display order: reversed, hexadecimal.
func (h Hash) String() string {
	for i, j := 0, len(h)-1; i < j; i, j = i+1, j-1 {
		h[i], h[j] = h[j], h[i]
	}
	return hex.EncodeToString(h[:])
}

// ParseHash reads what String wrote: 64 hexadecimal digits.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if len(s) != 2*len(h) {
		return h, fmt.Errorf("hash %q: length %d, want %d", s, len(s), 2*len(h))
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil {
		return Hash{}, fmt.Errorf("hash %q: %w", s, err)
	}
	for i, j := 0, len(h)-1; i < j; i, j = i+1, j-1 {
		h[i], h[j] = h[j], h[i]
	}
	return h, nil
}

// Amount is a number of satoshis.
type Amount int64

// Satoshis in a bitcoin, and the sum that no amount may exceed (Bitcoin Core consensus/amount.h).
const (
	Coin     Amount = 100_000_000
	MaxMoney Amount = 21_000_000 * Coin
)

// Valid reports whether the amount lies between 0 and MaxMoney (Core's MoneyRange).
func (a Amount) Valid() bool { return a >= 0 && a <= MaxMoney }

// Height is the position of a block in a chain; the genesis block has height 0.
type Height int32
