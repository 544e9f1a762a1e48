package secp

import (
	"encoding/binary"
	"math/big"
	"math/rand/v2"
	"testing"
)

var (
	bigN   = new(big.Int).SetBytes(order[:])
	big256 = new(big.Int).Lsh(big.NewInt(1), 256)
	bigP   = new(big.Int).Sub(big256, big.NewInt(1<<32+977)) // as SEC 2 writes it
)

func toBig(x [4]uint64) *big.Int {
	var b [32]byte
	for i := range x {
		binary.BigEndian.PutUint64(b[24-8*i:], x[i])
	}
	return new(big.Int).SetBytes(b[:])
}

func fromBig(x *big.Int) (z [4]uint64) {
	var b [32]byte
	x.FillBytes(b[:])
	for i := range z {
		z[i] = binary.BigEndian.Uint64(b[24-8*i:])
	}
	return z
}

// edges are numbers about which carries can go wrong: about zero, the modulus, its half, fold,
// powers of two and 2^256.
func edges(m *big.Int) []*big.Int {
	var out []*big.Int
	about := func(x *big.Int) {
		for d := int64(-2); d <= 2; d++ {
			if y := new(big.Int).Add(x, big.NewInt(d)); y.Sign() >= 0 && y.Cmp(big256) < 0 {
				out = append(out, y)
			}
		}
	}
	about(new(big.Int))
	about(m)
	about(big256)
	about(new(big.Int).Rsh(m, 1))
	about(new(big.Int).Sub(big256, m))
	about(new(big.Int).Lsh(new(big.Int).Sub(big256, m), 1))
	about(new(big.Int).Sub(m, new(big.Int).Sub(big256, m)))
	for _, bit := range []uint{32, 33, 64, 65, 128, 129, 192, 255} {
		about(new(big.Int).Lsh(big.NewInt(1), bit))
		about(new(big.Int).Sub(big256, new(big.Int).Lsh(big.NewInt(1), bit)))
	}
	return out
}

// operands are the edges and random numbers, some with long runs of equal bits.
func operands(m *big.Int, random int) [][4]uint64 {
	var out [][4]uint64
	for _, x := range edges(m) {
		out = append(out, fromBig(x))
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range random {
		var x [4]uint64
		for i := range x {
			switch r.IntN(4) {
			case 0:
				x[i] = ^uint64(0)
			case 1:
			case 2:
				x[i] = ^uint64(0) << r.IntN(64)
			default:
				x[i] = r.Uint64()
			}
		}
		out = append(out, x)
	}
	return out
}

// same reports whether a field element is a number modulo p, and its normal form right.
func same(got field, want *big.Int) bool {
	got.normalize()
	return toBig(got).Cmp(new(big.Int).Mod(want, bigP)) == 0
}

// TestField compares every operation with math/big, in all ways in which arguments can overlap.
func TestField(t *testing.T) {
	all := operands(bigP, 60)
	two := big.NewInt(2)
	halfOf := new(big.Int).ModInverse(two, bigP)
	for _, a := range all {
		x, bx := field(a), toBig(a)
		var z field
		z.square(&x)
		if !same(z, new(big.Int).Mul(bx, bx)) {
			t.Fatalf("%x squared is %x", x, z)
		}
		z = x
		z.squares(&z, 3)
		if !same(z, new(big.Int).Exp(bx, big.NewInt(8), bigP)) {
			t.Fatalf("%x to the 8 is %x", x, z)
		}
		if z.half(&x); !same(z, new(big.Int).Mul(bx, halfOf)) {
			t.Fatalf("half of %x is %x", x, z)
		}
		if z.negate(&x); !same(z, new(big.Int).Neg(bx)) {
			t.Fatalf("minus %x is %x", x, z)
		}
		if x.isZero() != (new(big.Int).Mod(bx, bigP).Sign() == 0) {
			t.Fatalf("%x is zero: %v", x, x.isZero())
		}
		if x.overflows() != (bx.Cmp(bigP) >= 0) {
			t.Fatalf("%x overflows: %v", x, x.overflows())
		}
		for _, b := range all {
			y, by := field(b), toBig(b)
			for _, op := range []struct {
				name string
				do   func(z, x, y *field)
				want *big.Int
			}{
				{"+", (*field).add, new(big.Int).Add(bx, by)},
				{"-", (*field).sub, new(big.Int).Sub(bx, by)},
				{"-2*", (*field).subTwice, new(big.Int).Sub(bx, new(big.Int).Mul(by, two))},
				{"*", (*field).mul, new(big.Int).Mul(bx, by)},
			} {
				var z field
				op.do(&z, &x, &y)
				left, right := x, y
				op.do(&left, &left, &y)
				op.do(&right, &x, &right)
				if !same(z, op.want) || left != z || right != z {
					t.Fatalf("%x %s %x is %x, %x or %x, want %x", x, op.name, y, z, left, right,
						op.want)
				}
			}
			if x.equal(&y) != same(x, by) {
				t.Fatalf("%x equals %x: %v", x, y, x.equal(&y))
			}
		}
	}
}

func TestFieldBytes(t *testing.T) {
	for _, a := range operands(bigP, 20) {
		var b [32]byte
		toBig(a).FillBytes(b[:])
		var x field
		if ok := x.setBytes(&b); ok != (toBig(a).Cmp(bigP) < 0) || x != field(a) || x.bytes() != b {
			t.Errorf("%x: %x, %v", b, x, ok)
		}
	}
}

func TestSqrt(t *testing.T) {
	for _, a := range operands(bigP, 100) {
		x := field(a)
		var root, again field
		ok := root.sqrt(&x)
		bx := new(big.Int).Mod(toBig(a), bigP)
		if want := big.Jacobi(bx, bigP) >= 0; ok != want {
			t.Errorf("%x is a square: %v, want %v", x, ok, want)
		}
		if again.square(&root); ok && !again.equal(&x) {
			t.Errorf("%x: %x squared is %x", x, root, again)
		}
	}
}

// TestInvert compares inverses with math/big, modulo both numbers.
func TestInvert(t *testing.T) {
	for name, m := range map[string]struct {
		modulus
		big *big.Int
	}{"p": {fieldModulus, bigP}, "n": {scalarModulus, bigN}} {
		for _, a := range operands(m.big, 3000) {
			bx := new(big.Int).Mod(toBig(a), m.big)
			want := new(big.Int)
			if bx.Sign() != 0 {
				want.ModInverse(bx, m.big)
			}
			if got := m.invert(fromBig(bx)); toBig(got).Cmp(want) != 0 {
				t.Fatalf("1/%x modulo %s is %x, want %x", bx, name, got, want)
			}
		}
	}
}

// TestScalar compares every operation with math/big.
func TestScalar(t *testing.T) {
	var all []scalar
	for _, a := range operands(bigN, 40) {
		var z scalar
		var b [32]byte
		toBig(a).FillBytes(b[:])
		if ok := z.setBytes(&b); ok != (toBig(a).Cmp(bigN) < 0) {
			t.Errorf("%x is below n: %v", a, ok)
		}
		if toBig(z).Cmp(new(big.Int).Mod(toBig(a), bigN)) != 0 {
			t.Errorf("%x modulo n is %x", a, z)
		}
		all = append(all, z)
	}
	halfN := new(big.Int).Rsh(bigN, 1)
	mod := func(x *big.Int) *big.Int { return x.Mod(x, bigN) }
	for _, x := range all {
		bx := toBig(x)
		negative := x
		if negative.negate(); toBig(negative).Cmp(mod(new(big.Int).Neg(bx))) != 0 {
			t.Fatalf("minus %x is %x", x, negative)
		}
		if x.isHigh() != (bx.Cmp(halfN) > 0) {
			t.Fatalf("%x is high: %v", x, x.isHigh())
		}
		for _, y := range all {
			by := toBig(y)
			var sum, product scalar
			sum.add(&x, &y)
			product.mul(&x, &y)
			if toBig(sum).Cmp(mod(new(big.Int).Add(bx, by))) != 0 {
				t.Fatalf("%x + %x is %x", x, y, sum)
			}
			if toBig(product).Cmp(mod(new(big.Int).Mul(bx, by))) != 0 {
				t.Fatalf("%x * %x is %x", x, y, product)
			}
			if x.below(&y) != (bx.Cmp(by) < 0) {
				t.Fatalf("%x is below %x: %v", x, y, x.below(&y))
			}
		}
	}
}

func (k *short) big() *big.Int {
	z := toBig([4]uint64{k.digits[0], k.digits[1], k.digits[2]})
	if k.negative {
		z.Neg(z)
	}
	return z
}

// TestEndomorphism checks the constants: lambda is a cube root of 1 modulo n, beta one modulo p,
// and they belong together; and that halves are short.
func TestEndomorphism(t *testing.T) {
	three := big.NewInt(3)
	if l := toBig(lambda); new(big.Int).Exp(l, three, bigN).Cmp(big.NewInt(1)) != 0 ||
		l.Cmp(big.NewInt(1)) == 0 {
		t.Error("lambda is no root")
	}
	if b := toBig(beta); new(big.Int).Exp(b, three, bigP).Cmp(big.NewInt(1)) != 0 ||
		b.Cmp(big.NewInt(1)) == 0 {
		t.Error("beta is no root")
	}
	sum := generatorMultiple(&lambda)
	point := sum.affine()
	var x field
	x.mul(&generator.x, &beta)
	if !point.x.equal(&x) || !point.y.equal(&generator.y) {
		t.Error("lambda·G is not (beta·x, y)")
	}
	limit := new(big.Int).Lsh(big.NewInt(1), 128)
	for _, a := range operands(bigN, 3000) {
		k := scalar(fromBig(new(big.Int).Mod(toBig(a), bigN)))
		k1, k2 := k.split()
		got := new(big.Int).Mul(k2.big(), toBig(lambda))
		got.Add(got, k1.big()).Mod(got, bigN)
		if got.Cmp(toBig(k)) != 0 {
			t.Fatalf("%x is split into %v and %v", k, k1, k2)
		}
		for _, half := range []*big.Int{k1.big(), k2.big()} {
			if half.Abs(half).Cmp(limit) >= 0 {
				t.Fatalf("%x: half of %d bits", k, half.BitLen())
			}
		}
	}
}

// TestRecode adds the digits up again, for each width that is used, and looks at their form.
func TestRecode(t *testing.T) {
	var shorts []short
	for _, a := range operands(bigN, 300) {
		for _, negative := range []bool{false, true} {
			shorts = append(shorts, short{[3]uint64{a[0], a[1], a[2] & 1}, negative}) // 129 bits
			shorts = append(shorts, short{[3]uint64{a[0], a[1]}, negative})
		}
	}
	for _, k := range shorts {
		if k.big().BitLen() > 128 {
			continue // more than the endomorphism and coefficients of batches ever make
		}
		for _, width := range []int{pointWidth, generatorWidth} {
			var r recoded
			r.recode(&k, width)
			sum, last := new(big.Int), -width
			for i, d := range r.digits {
				if d == 0 {
					continue
				}
				if d&1 == 0 || int(d) >= 1<<(width-1) || int(d) <= -(1<<(width-1)) ||
					i-last < width ||
					i >= r.length {
					t.Fatalf("%v: digit %d at %d, after one at %d", k, d, i, last)
				}
				last = i
				sum.Add(sum, new(big.Int).Lsh(big.NewInt(int64(d)), uint(i)))
			}
			if sum.Cmp(k.big()) != 0 {
				t.Fatalf("%v: digits of %d bits give %x", k, width, sum)
			}
		}
		for width := 3; width <= 14; width++ {
			digits := make([]int16, (digitCount+width-1)/width)
			k.window(digits, width)
			sum := new(big.Int)
			for i, d := range digits {
				if int(d) > 1<<(width-1) || int(d) < -(1<<(width-1)) {
					t.Fatalf("%v: digit %d of %d bits", k, d, width)
				}
				sum.Add(sum, new(big.Int).Lsh(big.NewInt(int64(d)), uint(i*width)))
			}
			if sum.Cmp(k.big()) != 0 {
				t.Fatalf("%v: windows of %d bits give %x", k, width, sum)
			}
		}
	}
}
