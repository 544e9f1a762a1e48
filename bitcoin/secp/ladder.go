package secp

import (
	"sync"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// What Decred adds to decred's library is the order in which its operations are done. The library
// computes g·G and k·Q apart, the second with digits of one bit, and brings every number into its normal
// form after each step. Here both are one sum with one chain of doublings and digits of several bits
// (multiply.go tells how such a sum is made), and only the result is brought into that form. The numbers
// and what is done with them are the library's FieldVal and ModNScalar throughout.
//
// A FieldVal grows where others are added to it: its magnitude says how many times the prime it may
// reach. A product takes factors of a magnitude up to 8 and is of magnitude 1 again. The remarks at the
// ends of lines are magnitudes.

// flat is a point of the curve other than infinity, by coordinates of magnitude 1.
type flat struct{ x, y secp256k1.FieldVal }

// The greatest magnitudes that a point has between the steps of a sum.
const (
	magnitudeX = 6
	magnitudeY = 4
	magnitudeZ = 2
)

// sumOfProducts sets sum to g·G + k·q, normal. q is affine and normal.
func sumOfProducts(sum *secp256k1.JacobianPoint, g, k *secp256k1.ModNScalar, q *secp256k1.JacobianPoint) {
	if ladder(sum, g, k, q) {
		return
	}
	var a, b secp256k1.JacobianPoint
	secp256k1.ScalarBaseMultNonConst(g, &a)
	secp256k1.ScalarMultNonConst(k, q, &b)
	secp256k1.AddNonConst(&a, &b, sum)
}

// ladder is sumOfProducts where no addition meets two points that are equal or opposite, and the sum
// is not infinity; else it answers false. It need not look for such pairs: where an addition meets
// one, it multiplies z by zero, and zero it stays to the end. Only somebody who chose a key for it gets
// there.
func ladder(sum *secp256k1.JacobianPoint, g, k *secp256k1.ModNScalar, q *secp256k1.JacobianPoint) bool {
	k1, k2, ok := splitScalar(k)
	if !ok {
		return false
	}
	g1, g2 := halves(g)
	var plain, lambdas [pointTable]flat
	var scale, y, z secp256k1.FieldVal
	oddProducts(&plain, &lambdas, &scale, q)
	tables := libraryTables()
	terms := [4]ladderTerm{
		{table: plain[:]}, {table: lambdas[:]},
		{table: tables.low[:], own: true}, {table: tables.high[:], own: true},
	}
	terms[0].digits.recode(&k1, pointWidth)
	terms[1].digits.recode(&k2, pointWidth)
	terms[2].digits.recode(&g1, generatorWidth)
	terms[3].digits.recode(&g2, generatorWidth)
	empty := true
	for i := digitCount - 1; i >= 0; i-- {
		if !empty {
			double(sum)
		}
		for t := range terms {
			digit := terms[t].digits.digits[i]
			if digit == 0 {
				continue
			}
			p := pick(terms[t].table, digit, &y)
			switch {
			case empty:
				terms[t].start(sum, p, &y, &scale)
			case terms[t].own:
				addFlat(sum, &p.x, &y, z.Mul2(&sum.Z, &scale), nil)
			default:
				addFlat(sum, &p.x, &y, &sum.Z, nil)
			}
			empty = false
		}
	}
	if empty {
		return false
	}
	sum.X.Normalize()
	sum.Y.Normalize()
	sum.Z.Mul(&scale).Normalize()
	return !sum.Z.IsZero()
}

// ladderTerm is one of the multiples that a ladder adds up.
type ladderTerm struct {
	digits recoded
	table  []flat
	own    bool // the table is of our own curve, not of the one with scaled coordinates
}

// start sets sum to the first point, on the curve with scaled coordinates.
func (t *ladderTerm) start(sum *secp256k1.JacobianPoint, p *flat, y, scale *secp256k1.FieldVal) {
	sum.X, sum.Y = p.x, *y
	sum.Z.SetInt(1)
	if t.own {
		var power secp256k1.FieldVal
		sum.X.Mul(power.SquareVal(scale))
		sum.Y.Mul(power.Mul(scale))
	}
}

// pick returns the point that a table has for a digit other than 0, all but its y coordinate, which
// depends on the sign: that has a magnitude of 2.
func pick(table []flat, digit int16, y *secp256k1.FieldVal) *flat {
	if digit < 0 {
		p := &table[-digit>>1]
		y.NegateVal(&p.y, 1)
		return p
	}
	p := &table[digit>>1]
	y.Set(&p.y)
	return p
}

// double sets p to 2p.
//
//	t = 2y²: x' = 9x⁴ - 4tx, y' = 3x²(6tx - 9x⁴) - 2t², z' = 2yz
func double(p *secp256k1.JacobianPoint) {
	var l, ll, t, tx secp256k1.FieldVal
	p.Z.Mul(&p.Y).MulInt(2)          // 2
	l.SquareVal(&p.X).MulInt(3)      // 3
	ll.SquareVal(&l)                 // 1
	t.SquareVal(&p.Y).MulInt(2)      // 2
	tx.Mul2(&t, &p.X)                // 1
	t.Square().MulInt(2).Negate(2)   // 3
	p.X.Set(&tx).MulInt(4).Negate(4) // 5
	p.X.Add(&ll)                     // 6
	tx.MulInt(6)                     // 6
	tx.Add(ll.Negate(1))             // 8
	p.Y.Mul2(&tx, &l).Add(&t)        // 4
}

// addFlat adds the point (x2, y2), where z is p's z coordinate or, if the point is of the curve whose
// coordinates are larger by the square and the cube of some number, that times the number. ratio, if
// any, is set to what p's z coordinate was multiplied by. x2 and y2 may have magnitudes of 8.
//
//	h = x2·z² - x, r = y2·z³ - y: x' = r² - h³ - 2xh², y' = r(xh² - x') - yh³, z' = zh
func addFlat(p *secp256k1.JacobianPoint, x2, y2, z, ratio *secp256k1.FieldVal) {
	var zz, h, r, hh, v, x secp256k1.FieldVal
	zz.SquareVal(z)
	h.NegateVal(&p.X, magnitudeX) // 7
	x.Mul2(x2, &zz)               // 1
	h.Add(&x)                     // 8
	r.Mul2(y2, &zz).Mul(z)        // 1
	x.NegateVal(&p.Y, magnitudeY) // 5
	r.Add(&x)                     // 6
	p.Z.Mul(&h)                   // 1
	if ratio != nil {
		ratio.Set(&h)
	}
	hh.SquareVal(&h)             // 1
	h.Mul(&hh)                   // 1: h³
	v.Mul2(&p.X, &hh)            // 1
	p.Y.Mul(&h).Negate(1)        // 2: -yh³
	h.Add(&v).Add(&v).Negate(3)  // 4
	p.X.SquareVal(&r).Add(&h)    // 5
	x.NegateVal(&p.X, 5).Add(&v) // 7
	p.Y.Add(x.Mul(&r))           // 3
}

// oddProducts sets plain to q, 3q, 5q ... 15q and lambdas to the same times lambda, all on the curve
// whose coordinates are larger by the square and the cube of scale: there no inverse is needed to
// bring them to one z. See fillOdd.
func oddProducts(plain, lambdas *[pointTable]flat, scale *secp256k1.FieldVal, q *secp256k1.JacobianPoint) {
	twice := *q
	double(&twice)
	step := flat{twice.X, twice.Y} // magnitudes 6 and 4
	var square, cube secp256k1.FieldVal
	square.SquareVal(&twice.Z)
	cube.Mul2(&square, &twice.Z)
	var p secp256k1.JacobianPoint
	p.X.Mul2(&q.X, &square)
	p.Y.Mul2(&q.Y, &cube)
	p.Z.SetInt(1)
	var ratios [pointTable]secp256k1.FieldVal // magnitude 8
	plain[0] = flat{p.X, p.Y}
	for i := 1; i < pointTable; i++ {
		addFlat(&p, &step.x, &step.y, &p.Z, &ratios[i])
		plain[i] = flat{p.X, p.Y} // magnitudes 5 and 3
	}
	scale.Mul2(&twice.Z, &p.Z)
	// Bring all to the z of the last one.
	const last = pointTable - 1
	plain[last].x.Normalize()
	plain[last].y.Normalize()
	lambdas[last].x.Mul2(&plain[last].x, &libraryBeta)
	lambdas[last].y = plain[last].y
	var ratio secp256k1.FieldVal
	ratio.SetInt(1)
	for i := last - 1; i >= 0; i-- {
		ratio.Mul(&ratios[i+1])
		square.SquareVal(&ratio)
		plain[i].x.Mul(&square)
		plain[i].y.Mul(square.Mul(&ratio))
		lambdas[i].x.Mul2(&plain[i].x, &libraryBeta)
		lambdas[i].y = plain[i].y
	}
}

// lazyTables are the odd multiples of G and of 2^128·G.
type lazyTables struct{ low, high [generatorTable]flat }

// libraryTables are made at first use.
var libraryTables = sync.OnceValue(func() *lazyTables {
	t := new(lazyTables)
	var one, shift secp256k1.ModNScalar
	one.SetInt(1)
	shift.SetByteSlice(append([]byte{1}, make([]byte, 16)...))
	fillLibrary(t.low[:], &one)
	fillLibrary(t.high[:], &shift)
	return t
})

// fillLibrary sets the table to k·G, 3k·G, 5k·G and so on, all by the library.
func fillLibrary(table []flat, k *secp256k1.ModNScalar) {
	points := make([]secp256k1.JacobianPoint, len(table))
	products := make([]secp256k1.FieldVal, len(table)) // of all z before
	var twice secp256k1.JacobianPoint
	secp256k1.ScalarBaseMultNonConst(k, &points[0])
	secp256k1.DoubleNonConst(&points[0], &twice)
	products[0].SetInt(1)
	for i := 1; i < len(points); i++ {
		secp256k1.AddNonConst(&points[i-1], &twice, &points[i])
		products[i].Mul2(&products[i-1], &points[i-1].Z)
	}
	var inverse, z, square secp256k1.FieldVal
	last := len(points) - 1
	inverse.Mul2(&products[last], &points[last].Z).Inverse()
	for i := last; i >= 0; i-- { // inverse is that of all z up to i
		z.Mul2(&inverse, &products[i])
		inverse.Mul(&points[i].Z)
		square.SquareVal(&z)
		table[i].x.Mul2(&points[i].X, &square).Normalize()
		table[i].y.Mul2(&points[i].Y, square.Mul(&z)).Normalize()
	}
}

var (
	libraryOne                               = libraryScalar(scalar{1})
	libraryOrder                             = libraryField(orderDigits)
	libraryBeta                              = libraryField(beta)
	libraryLambda, libraryMinusB1, libraryB2 = libraryScalar(lambda), libraryScalar(minusB1), libraryScalar(b2)
)

func libraryField(x field) (z secp256k1.FieldVal) {
	b := x.bytes()
	z.SetBytes(&b)
	return z
}

func libraryScalar(x scalar) (z secp256k1.ModNScalar) {
	digits := field(x)
	b := digits.bytes()
	z.SetBytes(&b)
	return z
}

// invertScalar sets w, which is not 0, to its inverse. Our own arithmetic finds it; it counts only if the
// library's product of both is 1. The library's way to it is that of math/big.
func invertScalar(w *secp256k1.ModNScalar) {
	var product secp256k1.ModNScalar
	inverse := libraryScalar(scalarModulus.invert(ownScalar(w)))
	if product.Mul2(w, &inverse).Equals(&libraryOne) {
		w.Set(&inverse)
		return
	}
	w.InverseNonConst()
}

// flatten gives a point, which is normal and not infinity, a z of 1, as ToAffine does. It finds the
// inverse as invertScalar does.
func flatten(p *secp256k1.JacobianPoint) {
	var z field
	var inverse, square secp256k1.FieldVal
	z.setBytes(p.Z.Bytes())
	inverse = libraryField(fieldModulus.invert(z))
	if square.Mul2(&inverse, &p.Z).Normalize(); !square.IsOne() {
		p.ToAffine()
		return
	}
	square.SquareVal(&inverse)
	p.X.Mul(&square).Normalize()
	p.Y.Mul(square.Mul(&inverse)).Normalize()
	p.Z.SetInt(1)
}

func ownScalar(k *secp256k1.ModNScalar) (z scalar) {
	b := k.Bytes()
	z.setBytes(&b)
	return z
}

// halves returns the lower and the upper 128 bits.
func halves(k *secp256k1.ModNScalar) (low, high short) {
	z := ownScalar(k)
	return short{digits: [3]uint64{z[0], z[1]}}, short{digits: [3]uint64{z[2], z[3]}}
}

// splitScalar returns k1 and k2 with k1 + k2·lambda = k: that they are is the library's arithmetic,
// that they are short is checked. See scalar.split.
func splitScalar(k *secp256k1.ModNScalar) (k1, k2 short, ok bool) {
	z := ownScalar(k)
	c1 := libraryScalar(roundedTop(multiply(z, estimate1)))
	c2 := libraryScalar(roundedTop(multiply(z, estimate2)))
	var first, second, rest secp256k1.ModNScalar
	first.Mul2(&c1, &libraryMinusB1)
	second.Mul2(&c2, &libraryB2).Negate().Add(&first)  // k2 = -c1·b1 - c2·b2
	rest.Mul2(&second, &libraryLambda).Negate().Add(k) // k1 = k - k2·lambda
	k1, ok1 := shortScalar(&rest)
	k2, ok2 := shortScalar(&second)
	return k1, k2, ok1 && ok2
}

func shortScalar(k *secp256k1.ModNScalar) (s short, ok bool) {
	magnitude := *k
	s.negative = k.IsOverHalfOrder()
	if s.negative {
		magnitude.Negate()
	}
	z := ownScalar(&magnitude)
	s.digits = [3]uint64{z[0], z[1], z[2]}
	return s, z[3] == 0 && z[2] <= 1
}
