package index

import (
	"crypto/sha256"
	"encoding/binary"
	"math/big"
	"math/bits"
	"slices"

	"golang.org/x/crypto/chacha20"

	"github.com/tallypost/tallypost/bitcoin"
)

const (
	// muhashBytes is the size of an element of MuHash3072's group.
	muhashBytes = 384
	// muhashGap: the group's modulus is 2^3072 minus this.
	muhashGap   = 1_103_717
	muhashWords = muhashBytes * 8 / bits.UintSize
)

// MuHash is the hash of a set, to which elements can be added and from which they can be taken in any order
// (Bitcoin Core crypto/muhash.h: each element is expanded by SHA-256 and ChaCha20 to a number modulo
// 2^3072 - 1103717, and the hash is that of the product). The zero MuHash is that of the empty set.
type MuHash struct {
	num, den     big.Int // 0 stands for 1
	product, out big.Int // room for mul
	in, high     big.Int
}

// Insert adds an element, which must not be there yet.
func (m *MuHash) Insert(element []byte) { m.mul(&m.num, element) }

// Remove takes an element away.
func (m *MuHash) Remove(element []byte) { m.mul(&m.den, element) }

// Combine adds the elements of another set.
func (m *MuHash) Combine(other *MuHash) {
	m.mulNumber(&m.num, &other.num)
	m.mulNumber(&m.den, &other.den)
}

// muhashNumber expands an element: the key stream of ChaCha20 under its SHA-256, little-endian.
func muhashNumber(dst *big.Int, element []byte) {
	key := sha256.Sum256(element)
	var nonce [chacha20.NonceSize]byte
	var stream [muhashBytes]byte
	c, err := chacha20.NewUnauthenticatedCipher(key[:], nonce[:])
	if err != nil {
		panic(err) // the sizes are right
	}
	c.XORKeyStream(stream[:], stream[:])
	setLittleEndian(dst, &stream)
}

func setLittleEndian(dst *big.Int, b *[muhashBytes]byte) {
	words := dst.Bits()
	if cap(words) < muhashWords {
		words = make([]big.Word, muhashWords, muhashWords+2)
	}
	words = words[:muhashWords]
	for i := range words {
		if bits.UintSize == 64 {
			words[i] = big.Word(binary.LittleEndian.Uint64(b[8*i:]))
		} else {
			words[i] = big.Word(binary.LittleEndian.Uint32(b[4*i:]))
		}
	}
	dst.SetBits(words)
}

func (m *MuHash) mul(into *big.Int, element []byte) {
	muhashNumber(&m.in, element)
	m.mulNumber(into, &m.in)
}

// mulNumber multiplies into by x, where 0 stands for 1.
func (m *MuHash) mulNumber(into, x *big.Int) {
	switch {
	case x.Sign() == 0:
	case into.Sign() == 0:
		into.Set(x)
	default:
		m.product.Mul(into, x)
		m.reduce(into, &m.product)
	}
}

// reduce sets into to x modulo the modulus, or to something congruent below 2^3072: as 2^3072 is congruent
// to the gap, what lies above is multiplied by it and added. It may change x.
func (m *MuHash) reduce(into, x *big.Int) {
	gap := big.NewInt(muhashGap)
	for x.BitLen() > muhashBytes*8 {
		words := x.Bits()
		var low, high big.Int
		low.SetBits(words[:muhashWords])
		high.SetBits(words[muhashWords:])
		m.high.Mul(&high, gap)
		m.out.Add(&low, &m.high)
		x.Set(&m.out)
	}
	into.Set(x)
}

func muhashModulus() *big.Int {
	p := new(big.Int).Lsh(big.NewInt(1), muhashBytes*8)
	return p.Sub(p, big.NewInt(muhashGap))
}

// normalize divides, so that there is no denominator left.
func (m *MuHash) normalize() {
	p := muhashModulus()
	one := big.NewInt(1)
	if m.num.Sign() == 0 {
		m.num.Set(one)
	}
	if m.den.Sign() != 0 && m.den.Cmp(one) != 0 {
		if inverse := new(big.Int).ModInverse(&m.den, p); inverse != nil {
			m.product.Mul(&m.num, inverse)
			m.num.Set(&m.product)
		}
	}
	m.den.SetInt64(0)
	m.num.Mod(&m.num, p)
}

// Bytes returns the state of the set, from which Load makes it again.
func (m *MuHash) Bytes() [muhashBytes]byte {
	m.normalize()
	var b [muhashBytes]byte
	m.num.FillBytes(b[:])
	slices.Reverse(b[:])
	return b
}

// Load sets the set to a state that Bytes returned.
func (m *MuHash) Load(state *[muhashBytes]byte) {
	m.den.SetInt64(0)
	setLittleEndian(&m.num, state)
}

// Sum returns the hash of the set.
func (m *MuHash) Sum() bitcoin.Hash {
	b := m.Bytes()
	return sha256.Sum256(b[:])
}
