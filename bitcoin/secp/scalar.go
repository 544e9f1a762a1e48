package secp

import (
	"encoding/binary"
	"math/bits"
)

// scalar is a number below the order n of the group, four digits of 64 bits, the least first.
type scalar [4]uint64

// orderDigits is n, and orderFold is 2^256 - n, which fills three digits.
var (
	orderDigits = [4]uint64{
		0xbfd25e8cd0364141, 0xbaaedce6af48a03b, 0xfffffffffffffffe, 0xffffffffffffffff,
	}
	orderFold = [3]uint64{0x402da1732fc9bebf, 0x4551231950b75fc4, 1}
)

// setBytes reads a big-endian number modulo n and reports whether it was below n.
func (z *scalar) setBytes(b *[32]byte) bool {
	for i := range z {
		z[i] = binary.BigEndian.Uint64(b[24-8*i:])
	}
	return !z.subtractOrder()
}

// subtractOrder subtracts n from a number that is not below n, and reports whether it was so.
func (z *scalar) subtractOrder() bool {
	var d scalar
	var borrow uint64
	for i := range z {
		d[i], borrow = bits.Sub64(z[i], orderDigits[i], borrow)
	}
	if borrow != 0 {
		return false
	}
	*z = d
	return true
}

func (z *scalar) isZero() bool { return *z == scalar{} }

// isHigh reports whether the number is above n/2.
func (z *scalar) isHigh() bool {
	negative := *z
	negative.negate()
	for i := 3; i >= 0; i-- {
		if z[i] != negative[i] {
			return z[i] > negative[i]
		}
	}
	return false
}

func (z *scalar) negate() {
	if z.isZero() {
		return
	}
	var borrow uint64
	for i := range z {
		z[i], borrow = bits.Sub64(orderDigits[i], z[i], borrow)
	}
}

func (z *scalar) add(x, y *scalar) {
	var c uint64
	for i := range z {
		z[i], c = bits.Add64(x[i], y[i], c)
	}
	if c == 0 {
		z.subtractOrder()
		return
	}
	// x + y - 2^256, and 2^256 is orderFold: the sum is below n.
	c = 0
	for i := range z {
		var add uint64
		if i < 3 {
			add = orderFold[i]
		}
		z[i], c = bits.Add64(z[i], add, c)
	}
}

// mul sets z to x·y modulo n.
func (z *scalar) mul(x, y *scalar) {
	product := multiply(*x, *y)
	z.reduce(&product)
}

// multiply returns the eight digits of x·y.
func multiply(x, y [4]uint64) (p [8]uint64) {
	for j := range y {
		var carry uint64
		for i := range x {
			hi, lo := bits.Mul64(x[i], y[j])
			var c uint64
			lo, c = bits.Add64(lo, carry, 0)
			hi += c
			p[i+j], c = bits.Add64(p[i+j], lo, 0)
			carry = hi + c
		}
		p[j+4] = carry
	}
	return p
}

// reduce sets z to a number of eight digits modulo n. What exceeds 2^256 comes back times
// orderFold, until nothing does: 512 bits become 386, those 260, those 257.
func (z *scalar) reduce(p *[8]uint64) {
	for p[4]|p[5]|p[6]|p[7] != 0 {
		high := [4]uint64{p[4], p[5], p[6], p[7]}
		clear(p[4:])
		for j, factor := range orderFold {
			var carry uint64
			for i := range high {
				hi, lo := bits.Mul64(high[i], factor)
				var c uint64
				lo, c = bits.Add64(lo, carry, 0)
				hi += c
				p[i+j], c = bits.Add64(p[i+j], lo, 0)
				carry = hi + c
			}
			for i := j + 4; carry != 0; i++ {
				p[i], carry = bits.Add64(p[i], carry, 0)
			}
		}
	}
	*z = scalar(p[:4])
	z.subtractOrder()
}

func (z *scalar) invert(x *scalar) { *z = scalarModulus.invert(*x) }

// The endomorphism of the curve: lambda times a point (x, y) is (beta·x, y), so a scalar k is split
// into two halves of 128 bits, k1 + k2·lambda ("Guide to Elliptic Curve Cryptography", section
// 3.5). (a1, b1) and (a2, b2) are short vectors with a + b·lambda = 0 modulo n; estimate1 and
// estimate2 are b2·2^384/n and -b1·2^384/n, rounded.
var (
	lambda = scalar{
		0xdf02967c1b23bd72, 0x122e22ea20816678, 0xa5261c028812645a, 0x5363ad4cc05c30e0,
	}
	beta = field{
		0xc1396c28719501ee, 0x9cf0497512f58995, 0x6e64479eac3434e9, 0x7ae96a2b657c0710,
	}
	minusB1   = scalar{0x6f547fa90abfe4c3, 0xe4437ed6010e8828}
	b2        = scalar{0xe86c90e49284eb15, 0x3086d221a7d46bcd}
	estimate1 = [4]uint64{
		0xe893209a45dbb031, 0x3daa8a1471e8ca7f, 0xe86c90e49284eb15, 0x3086d221a7d46bcd,
	}
	estimate2 = [4]uint64{
		0x1571b4ae8ac47f71, 0x221208ac9df506c6, 0x6f547fa90abfe4c4, 0xe4437ed6010e8828,
	}
)

// short is a number of at most 129 bits with a sign.
type short struct {
	digits   [3]uint64
	negative bool
}

// split returns k1 and k2 with k1 + k2·lambda = k.
func (z *scalar) split() (k1, k2 short) {
	c1, c2 := roundedTop(multiply(*z, estimate1)), roundedTop(multiply(*z, estimate2))
	var first, second, rest scalar
	first.mul(&c1, &minusB1)
	second.mul(&c2, &b2)
	second.negate()
	second.add(&first, &second) // k2 = -c1·b1 - c2·b2
	rest.mul(&second, &lambda)
	rest.negate()
	rest.add(&rest, z) // k1 = k - k2·lambda
	return rest.short(), second.short()
}

// roundedTop returns p/2^384, rounded.
func roundedTop(p [8]uint64) (z scalar) {
	var c uint64
	z[0], c = bits.Add64(p[6], p[5]>>63, 0)
	z[1] = p[7] + c
	return z
}

// short returns a number that is close to zero or to n.
func (z *scalar) short() short {
	k := *z
	negative := k.isHigh()
	if negative {
		k.negate()
	}
	return short{[3]uint64{k[0], k[1], k[2]}, negative}
}
