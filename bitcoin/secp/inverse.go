package secp

import "math/bits"

// Inverses are computed by division steps ("Fast constant-time gcd computation and modular
// inversion", Bernstein and Yang, 2019), 62 at a time: a step needs but the last bits of f and g,
// so a matrix for 62 steps is made from their last digits, and then applied to the long numbers at
// once. The number of rounds depends on the number that is inverted: this is for verification, not
// for secrets.

// modulus is an odd modulus with its inverse modulo 2^62.
type modulus struct {
	m       long
	inverse uint64
}

// long is a signed number of five digits of 62 bits, the least first; the last holds the sign.
type long [5]int64

const mask62 = 1<<62 - 1

var (
	fieldModulus  = makeModulus(prime)
	scalarModulus = makeModulus(orderDigits)
)

func makeModulus(m [4]uint64) modulus {
	// Newton's iteration doubles the bits that are right; m is its own inverse modulo 8.
	inverse := m[0]
	for range 5 {
		inverse *= 2 - m[0]*inverse
	}
	return modulus{toLong(m), inverse & mask62}
}

func toLong(x [4]uint64) long {
	return long{
		int64(x[0] & mask62),
		int64((x[0]>>62 | x[1]<<2) & mask62),
		int64((x[1]>>60 | x[2]<<4) & mask62),
		int64((x[2]>>58 | x[3]<<6) & mask62),
		int64(x[3] >> 56),
	}
}

// digits is the way back, for a number that is not negative and has normal digits.
func (x *long) digits() [4]uint64 {
	return [4]uint64{
		uint64(x[0]) | uint64(x[1])<<62,
		uint64(x[1])>>2 | uint64(x[2])<<60,
		uint64(x[2])>>4 | uint64(x[3])<<58,
		uint64(x[3])>>6 | uint64(x[4])<<56,
	}
}

// invert returns 1/x, or 0 for 0. x must be below the modulus.
func (m *modulus) invert(x [4]uint64) [4]uint64 {
	f, g := m.m, toLong(x)
	d, e := long{}, long{1} // d·x = f and e·x = g, modulo m, throughout
	eta := int64(-1)
	for g != (long{}) {
		var t steps
		eta, t = divide(eta, uint64(f[0]), uint64(g[0]))
		d, e = t.applyModulo(m, &d, &e)
		f, g = t.apply(&f, &g)
	}
	// f is now 1 or -1, or the modulus for x = 0, where d is 0.
	d.normalize(m, f[4] < 0)
	return d.digits()
}

// steps is the matrix of 62 division steps, times 2^62.
type steps struct{ u, v, q, r int64 }

// divide makes 62 division steps. Where g is even a step halves it; else it puts g in the place of
// f, if eta says so, and makes g even by adding f as often as it takes; several bits of g are
// cleared at once.
func divide(eta int64, f, g uint64) (int64, steps) {
	t := steps{1, 0, 0, 1}
	for left := 62; ; {
		zeros := min(bits.TrailingZeros64(g), left)
		g >>= zeros
		t.u <<= zeros
		t.v <<= zeros
		eta -= int64(zeros)
		if left -= zeros; left == 0 {
			return eta, t
		}
		if eta < 0 {
			eta = -eta
			f, g = g, -f
			t = steps{t.q, t.r, -t.u, -t.v}
		}
		// Adding f w times clears the last bits of g: w = -g/f modulo 2^n. No more bits than may be
		// cleared before the next exchange, and at most six: f·(f²-2) is -1/f modulo 64.
		n := min(int(eta)+1, left, 6)
		w := f * g * (f*f - 2) & (1<<n - 1)
		g += f * w
		t.q += t.u * int64(w)
		t.r += t.v * int64(w)
	}
}

// wide is a signed number of 128 bits.
type wide struct {
	hi int64
	lo uint64
}

// addMul adds a·b.
func (s *wide) addMul(a, b int64) {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	hi -= uint64(b)&uint64(a>>63) + uint64(a)&uint64(b>>63) // as signed numbers
	var c uint64
	s.lo, c = bits.Add64(s.lo, lo, 0)
	s.hi += int64(hi + c)
}

// low takes the last 62 bits off.
func (s *wide) low() int64 {
	digit := int64(s.lo & mask62)
	s.lo = s.lo>>62 | uint64(s.hi)<<2
	s.hi >>= 62
	return digit
}

// apply returns (u·f + v·g)/2^62 and (q·f + r·g)/2^62; both divisions leave no rest.
func (t *steps) apply(f, g *long) (f2, g2 long) {
	var a, b wide
	for i := range f {
		a.addMul(t.u, f[i])
		a.addMul(t.v, g[i])
		b.addMul(t.q, f[i])
		b.addMul(t.r, g[i])
		if i == 0 {
			a.low()
			b.low()
			continue
		}
		f2[i-1], g2[i-1] = a.low(), b.low()
	}
	f2[4], g2[4] = int64(a.lo), int64(b.lo)
	return f2, g2
}

// applyModulo does the same to d and e modulo m: multiples of m that make the division leave no
// rest are added. Both stay between -2m and m.
func (t *steps) applyModulo(m *modulus, d, e *long) (d2, e2 long) {
	// Adding m where a number is negative brings it from (-2m, m) into (-m, m).
	negD, negE := d[4]>>63, e[4]>>63
	md := t.u&negD + t.v&negE
	me := t.q&negD + t.r&negE
	var a, b wide
	a.addMul(t.u, d[0])
	a.addMul(t.v, e[0])
	b.addMul(t.q, d[0])
	b.addMul(t.r, e[0])
	md -= int64((m.inverse*a.lo + uint64(md)) & mask62)
	me -= int64((m.inverse*b.lo + uint64(me)) & mask62)
	a.addMul(md, m.m[0])
	b.addMul(me, m.m[0])
	a.low()
	b.low()
	for i := 1; i < len(d); i++ {
		a.addMul(t.u, d[i])
		a.addMul(t.v, e[i])
		a.addMul(md, m.m[i])
		b.addMul(t.q, d[i])
		b.addMul(t.r, e[i])
		b.addMul(me, m.m[i])
		d2[i-1], e2[i-1] = a.low(), b.low()
	}
	d2[4], e2[4] = int64(a.lo), int64(b.lo)
	return d2, e2
}

// normalize brings a number from (-2m, m), or its negative if asked, into [0, m).
func (x *long) normalize(m *modulus, negate bool) {
	x.addIfNegative(m)
	if negate {
		for i := range x {
			x[i] = -x[i]
		}
	}
	x.carry()
	x.addIfNegative(m)
}

func (x *long) addIfNegative(m *modulus) {
	negative := x[4] >> 63
	for i := range x {
		x[i] += m.m[i] & negative
	}
	x.carry()
}

func (x *long) carry() {
	for i := range 4 {
		x[i+1] += x[i] >> 62
		x[i] &= mask62
	}
}
