package bitcoin

import (
	"encoding/binary"
	"math/big"
	"math/bits"
)

// Uint256 is an unsigned number of 256 bits, the least significant 64 first. It wraps as Core's
// arith_uint256 does: targets and sums of work are such numbers.
type Uint256 [4]uint64

// Uint256FromHash reads a hash as the little-endian number that proof of work compares.
func Uint256FromHash(h Hash) Uint256 {
	var x Uint256
	for i := range x {
		x[i] = binary.LittleEndian.Uint64(h[8*i:])
	}
	return x
}

// ParseUint256 reads 64 hexadecimal digits, the most significant first.
func ParseUint256(s string) (Uint256, error) {
	h, err := ParseHash(s)
	return Uint256FromHash(h), err
}

// Hash returns the number as 32 octets, little-endian.
func (x Uint256) Hash() Hash {
	var h Hash
	for i := range x {
		binary.LittleEndian.PutUint64(h[8*i:], x[i])
	}
	return h
}

// String returns 64 hexadecimal digits, the most significant first.
func (x Uint256) String() string { return x.Hash().String() }

// IsZero reports whether x is 0.
func (x Uint256) IsZero() bool { return x == Uint256{} }

// Cmp returns -1, 0 or 1 where x is smaller than, equal to or greater than y.
func (x Uint256) Cmp(y Uint256) int {
	for i := 3; i >= 0; i-- {
		if x[i] != y[i] {
			if x[i] < y[i] {
				return -1
			}
			return 1
		}
	}
	return 0
}

// BitLen returns the number of bits that x needs; 0 needs none.
func (x Uint256) BitLen() int {
	for i := 3; i >= 0; i-- {
		if x[i] != 0 {
			return 64*i + bits.Len64(x[i])
		}
	}
	return 0
}

// Add returns x + y modulo 2^256.
func (x Uint256) Add(y Uint256) (sum Uint256) {
	var carry uint64
	for i := range x {
		sum[i], carry = bits.Add64(x[i], y[i], carry)
	}
	return sum
}

// Sub returns x - y modulo 2^256.
func (x Uint256) Sub(y Uint256) (diff Uint256) {
	var borrow uint64
	for i := range x {
		diff[i], borrow = bits.Sub64(x[i], y[i], borrow)
	}
	return diff
}

// Not returns the complement of x, 2^256 - 1 - x.
func (x Uint256) Not() Uint256 { return Uint256{^x[0], ^x[1], ^x[2], ^x[3]} }

// Lsh returns x shifted left by n bits.
func (x Uint256) Lsh(n uint) (z Uint256) {
	words, n := int(n/64), n%64
	for i := 3; i >= words; i-- {
		z[i] = x[i-words] << n
		if i > words && n > 0 {
			z[i] |= x[i-words-1] >> (64 - n)
		}
	}
	return z
}

// Rsh returns x shifted right by n bits.
func (x Uint256) Rsh(n uint) (z Uint256) {
	words, n := int(n/64), n%64
	for i := 0; i+words < 4; i++ {
		z[i] = x[i+words] >> n
		if i+words < 3 && n > 0 {
			z[i] |= x[i+words+1] << (64 - n)
		}
	}
	return z
}

// MulUint32 returns x * m modulo 2^256. The retarget relies on the wrap: Core multiplies by the
// timespan before it divides.
func (x Uint256) MulUint32(m uint32) (z Uint256) {
	var carry uint64
	for i := range x {
		hi, lo := bits.Mul64(x[i], uint64(m))
		var c uint64
		z[i], c = bits.Add64(lo, carry, 0)
		carry = hi + c
	}
	return z
}

// Div returns the quotient x / y. It panics where y is 0.
func (x Uint256) Div(y Uint256) (q Uint256) {
	n := (y.BitLen() + 63) / 64 // words of the divisor
	if n == 0 {
		panic("bitcoin: division by zero")
	}
	if n == 1 {
		var rem uint64
		for i := 3; i >= 0; i-- {
			q[i], rem = bits.Div64(rem, x[i], y[0])
		}
		return q
	}
	// Knuth, The Art of Computer Programming, volume 2, section 4.3.1, algorithm D: the divisor's
	// top bit is set first, so that a guessed digit is at most two too large.
	s := uint(bits.LeadingZeros64(y[n-1]))
	v := y.Lsh(s)
	u := [5]uint64{4: x[3] >> 1 >> (63 - s)}
	shifted := x.Lsh(s)
	copy(u[:], shifted[:])
	for j := 4 - n; j >= 0; j-- {
		q[j] = divDigit(u[j:j+n+1], v[:n])
	}
	return q
}

// divDigit subtracts from u, which has a word more than v, as many v as it holds and returns their
// number. u holds fewer than 2^64 of them.
func divDigit(u, v []uint64) uint64 {
	n := len(v)
	guess := ^uint64(0)
	if u[n] < v[n-1] {
		var rem uint64
		guess, rem = bits.Div64(u[n], u[n-1], v[n-1])
		for {
			hi, lo := bits.Mul64(guess, v[n-2])
			if hi < rem || hi == rem && lo <= u[n-2] {
				break
			}
			guess--
			if rem += v[n-1]; rem < v[n-1] {
				break // rem no longer fits a word: the guess is right
			}
		}
	}
	var borrow, carry uint64
	for i := range v {
		hi, lo := bits.Mul64(guess, v[i])
		var c, b uint64
		lo, c = bits.Add64(lo, carry, 0)
		carry = hi + c
		u[i], b = bits.Sub64(u[i], lo, borrow)
		borrow = b
	}
	u[n], borrow = bits.Sub64(u[n], carry, borrow)
	for borrow != 0 { // one too many was taken: give it back
		guess--
		var c uint64
		for i := range v {
			u[i], c = bits.Add64(u[i], v[i], c)
		}
		u[n], c = bits.Add64(u[n], 0, c)
		borrow -= c
	}
	return guess
}

// Float64 returns the nearest number that a float64 holds; for difficulty and display.
func (x Uint256) Float64() float64 {
	f, factor := 0.0, 1.0
	for i := range x {
		f += factor * float64(x[i])
		factor *= 1 << 64
	}
	return f
}

// Big returns x as a big.Int, for code that is not hot.
func (x Uint256) Big() *big.Int {
	h := x.Hash()
	for i, j := 0, len(h)-1; i < j; i, j = i+1, j-1 {
		h[i], h[j] = h[j], h[i]
	}
	return new(big.Int).SetBytes(h[:])
}
