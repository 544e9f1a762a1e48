package secp

// affine is a point of the curve y² = x³ + 7 by its two coordinates; infinity has none.
type affine struct{ x, y field }

// jacobian is the point (x/z², y/z³), or infinity.
type jacobian struct {
	x, y, z  field
	infinity bool
}

// one is the number 1, generator the point G (SEC 2, section 2.4.1).
var (
	one       = field{1}
	generator = affine{
		field{0x59f2815b16f81798, 0x029bfcdb2dce28d9, 0x55a06295ce870b07, 0x79be667ef9dcbbac},
		field{0x9c47d08ffb10d4b8, 0xfd17b448a6855419, 0x5da4fbfc0e1108a8, 0x483ada7726a3c465},
	}
)

func (p *affine) jacobian() jacobian { return jacobian{x: p.x, y: p.y, z: one} }

func (p *affine) negate() { p.y.negate(&p.y) }

// isOnCurve reports whether y² = x³ + 7.
func (p *affine) isOnCurve() bool {
	var left, right field
	left.square(&p.y)
	right.cubePlus7(&p.x)
	return left.equal(&right)
}

func (z *field) cubePlus7(x *field) {
	var cube field
	cube.square(x)
	cube.mul(&cube, x)
	z.add(&cube, &field{7})
}

// setX sets p to the point with this x coordinate, which must be below the prime, and an odd or
// even y. It reports whether there is one.
func (p *affine) setX(x *[32]byte, odd bool) bool {
	if !p.x.setBytes(x) {
		return false
	}
	p.y.cubePlus7(&p.x)
	if !p.y.sqrt(&p.y) {
		return false
	}
	p.y.normalize()
	if p.y.isOdd() != odd {
		p.negate()
		p.y.normalize()
	}
	return true
}

// parse reads a public key in any form that libsecp256k1 parses: 02 or 03 and x; 04, x and y; or 06
// or 07, x and y, where the last bit of the prefix is the oddness of y.
func (p *affine) parse(key []byte) bool {
	switch {
	case len(key) == 33 && (key[0] == 2 || key[0] == 3):
		return p.setX((*[32]byte)(key[1:]), key[0] == 3)
	case len(key) == 65 && (key[0] == 4 || key[0] == 6 || key[0] == 7):
		if !p.x.setBytes((*[32]byte)(key[1:])) || !p.y.setBytes((*[32]byte)(key[33:])) {
			return false
		}
		if key[0] != 4 && p.y.isOdd() != (key[0] == 7) {
			return false
		}
		return p.isOnCurve()
	}
	return false
}

// affine returns the coordinates, normal, of a point other than infinity.
func (p *jacobian) affine() affine {
	z := p.z
	z.normalize()
	z = fieldModulus.invert(z)
	a := p.scaled(&z)
	a.x.normalize()
	a.y.normalize()
	return a
}

// scaled returns the coordinates of the point, given 1/z.
func (p *jacobian) scaled(inverse *field) (a affine) {
	var square, cube field
	square.square(inverse)
	cube.mul(&square, inverse)
	a.x.mul(&p.x, &square)
	a.y.mul(&p.y, &cube)
	return a
}

// double sets p to 2a. No point of the curve has y = 0.
//
//	l = 3x²/2, t = xy²: x' = l² - 2t, y' = l(t - x') - y⁴, z' = yz
func (p *jacobian) double(a *jacobian) {
	if a.infinity {
		*p = *a
		return
	}
	var l, s, t, x field
	s.square(&a.y)
	t.square(&a.x)
	l.half(&t)
	l.add(&l, &t)
	t.mul(&a.x, &s)
	p.z.mul(&a.y, &a.z)
	x.square(&l)
	x.subTwice(&x, &t)
	p.x = x
	t.sub(&t, &x)
	t.mul(&t, &l)
	s.square(&s)
	p.y.sub(&t, &s)
	p.infinity = false
}

// addAffine sets p to a + b.
//
//	h = x₂z² - x, r = y₂z³ - y: x' = r² - h³ - 2xh², y' = r(xh² - x') - yh³, z' = zh
func (p *jacobian) addAffine(a *jacobian, b *affine) {
	if a.infinity {
		*p = b.jacobian()
		return
	}
	var zz, h, r field
	zz.square(&a.z)
	h.mul(&b.x, &zz)
	r.mul(&a.z, &zz)
	r.mul(&r, &b.y)
	h.sub(&h, &a.x)
	r.sub(&r, &a.y)
	p.finish(a, &h, &r, &a.z)
}

// add sets p to a + b.
func (p *jacobian) add(a, b *jacobian) {
	if a.infinity {
		*p = *b
		return
	}
	if b.infinity {
		*p = *a
		return
	}
	// With a as (x₁z₂², y₁z₂³, z₁z₂) the rest is as for an affine point.
	var zz1, zz2, h, r field
	var c jacobian
	zz1.square(&a.z)
	zz2.square(&b.z)
	c.x.mul(&a.x, &zz2)
	c.y.mul(&a.y, &zz2)
	c.y.mul(&c.y, &b.z)
	c.z.mul(&a.z, &b.z)
	h.mul(&b.x, &zz1)
	r.mul(&b.y, &zz1)
	r.mul(&r, &a.z)
	h.sub(&h, &c.x)
	r.sub(&r, &c.y)
	p.finish(&c, &h, &r, &c.z)
}

// finish is the second half of both additions.
func (p *jacobian) finish(a *jacobian, h, r, z *field) {
	if h.isZero() {
		if r.isZero() {
			p.double(a)
		} else {
			*p = jacobian{infinity: true}
		}
		return
	}
	var hh, hhh, v, x field
	hh.square(h)
	hhh.mul(&hh, h)
	v.mul(&a.x, &hh)
	p.z.mul(z, h)
	x.square(r)
	x.sub(&x, &hhh)
	x.subTwice(&x, &v)
	v.sub(&v, &x)
	v.mul(&v, r)
	hhh.mul(&hhh, &a.y)
	p.x = x
	p.y.sub(&v, &hhh)
	p.infinity = false
}

// toAffine sets out to the coordinates of points none of which is infinity, with one inversion for
// all. products is scratch memory of the same length.
func toAffine(out []affine, points []jacobian, products []field) {
	if len(points) == 0 {
		return
	}
	product := one
	for i := range points { // products[i] is the product of all z before i
		products[i] = product
		product.mul(&product, &points[i].z)
	}
	product.normalize()
	inverse := field(fieldModulus.invert(product))
	for i := len(points) - 1; i >= 0; i-- { // inverse is that of the product up to i
		var z field
		z.mul(&inverse, &products[i])
		inverse.mul(&inverse, &points[i].z)
		out[i] = points[i].scaled(&z)
	}
}
