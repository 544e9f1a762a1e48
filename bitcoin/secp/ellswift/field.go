package ellswift

import "github.com/decred/dcrd/dcrec/secp256k1/v4"

// fe is an element of the field over which secp256k1 is defined, always normalised: the formulas
// below can then be written down as the BIP has them.
type fe = secp256k1.FieldVal

func feInt(n uint16) (z fe) {
	z.SetInt(n)
	return z
}

// feBytes reads 32 octets modulo the order of the field.
func feBytes(b []byte) (z fe) {
	z.SetByteSlice(b)
	z.Normalize()
	return z
}

func add(a, b fe) (z fe) {
	z.Add2(&a, &b).Normalize()
	return z
}

func neg(a fe) (z fe) {
	z.NegateVal(&a, 1).Normalize()
	return z
}

func sub(a, b fe) fe { return add(a, neg(b)) }

func mul(a, b fe) (z fe) {
	z.Mul2(&a, &b).Normalize()
	return z
}

func square(a fe) (z fe) {
	z.SquareVal(&a).Normalize()
	return z
}

// div returns a / b; b must not be zero.
func div(a, b fe) fe { return mul(a, *b.Inverse().Normalize()) }

// half returns a / 2.
func half(a fe) fe { return mul(a, inverseOf2) }

// root returns the square root a^((p+1)/4), and false where a is no square.
func root(a fe) (z fe, ok bool) {
	ok = z.SquareRootVal(&a)
	z.Normalize()
	return z, ok
}

// curve returns x^3 + 7, the square of y for a point with this x.
func curve(x fe) fe { return add(mul(square(x), x), seven) }

// onCurve reports whether there is a point with this x coordinate.
func onCurve(x fe) bool {
	_, ok := root(curve(x))
	return ok
}

// Constants; no function changes them.
var (
	seven = feInt(7)

	inverseOf2 = div(feInt(1), feInt(2))

	// rootMinus3 is the square root of -3 that BIP 324 calls c.
	rootMinus3, _ = root(neg(feInt(3)))
)
