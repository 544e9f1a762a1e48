package secp

import "sync"

// A sum of multiples is computed from the top bit down, doubling once for all, with a table of odd
// multiples for each point (Strauss). Scalars are split by the endomorphism, so that 129 doublings
// do for 256 bits, and written with digits that are odd and few: at most one in any w bits.

// The widths of digits. A table for the width w has 2^(w-2) points: 8 for a point that comes once,
// 1,024 for the generator, whose two tables (128 KiB) still lie in a second-level cache.
const (
	pointWidth     = 5
	generatorWidth = 12
	pointTable     = 1 << (pointWidth - 2)
	generatorTable = 1 << (generatorWidth - 2)

	// digitCount is the most digits of a short number: 129 bits, and a carry.
	digitCount = 130
)

// recoded is a short number as a sum of digits: digit i counts 2^i.
type recoded struct {
	digits [digitCount]int16
	length int // digits from here on are zero
}

// recode sets r to a short number in digits of the given width.
func (r *recoded) recode(k *short, width int) {
	*r = recoded{}
	carry := uint64(0)
	for i := 0; i < digitCount; {
		if k.bit(i) == carry {
			i++
			continue
		}
		word := int(k.bits(i, width) + carry)
		carry = uint64(word) >> (width - 1)
		word -= int(carry) << width
		if k.negative {
			word = -word
		}
		r.digits[i] = int16(word)
		r.length = i + 1
		i += width
	}
}

func (k *short) bit(i int) uint64 { return k.digits[i>>6] >> (i & 63) & 1 }

// bits returns width bits from bit i on.
func (k *short) bits(i, width int) uint64 {
	word, shift := i>>6, i&63
	b := k.digits[word] >> shift
	if shift+width > 64 && word+1 < len(k.digits) {
		b |= k.digits[word+1] << (64 - shift)
	}
	return b & (1<<width - 1)
}

// oddMultiples returns p, 3p, 5p ... 15p, and the same times lambda.
func oddMultiples(p *affine) (plain, lambdas [pointTable]affine) {
	var points [pointTable]jacobian
	var products [pointTable]field
	fillOdd(points[:], p)
	toAffine(plain[:], points[:], products[:])
	for i := range plain {
		lambdas[i].x.mul(&plain[i].x, &beta)
		lambdas[i].y = plain[i].y
	}
	return plain, lambdas
}

// fillOdd sets points to p, 3p, 5p and so on. It adds 2p each time, without dividing by its z
// first: on the curve whose coordinates are z² and z³ times ours, 2p is affine, and the sums need
// but z once more in the end.
func fillOdd(points []jacobian, p *affine) {
	start := p.jacobian()
	var double jacobian
	double.double(&start)
	var square, cube field
	square.square(&double.z)
	cube.mul(&square, &double.z)
	points[0] = start
	points[0].x.mul(&p.x, &square)
	points[0].y.mul(&p.y, &cube)
	step := affine{double.x, double.y}
	for i := 1; i < len(points); i++ {
		points[i].addAffine(&points[i-1], &step)
	}
	for i := range points {
		points[i].z.mul(&points[i].z, &double.z)
	}
}

// generatorTables are the odd multiples of the generator, made at first use.
type generatorTables struct{ plain, lambdas [generatorTable]affine }

var generatorMultiples = sync.OnceValue(func() *generatorTables {
	t := new(generatorTables)
	points := make([]jacobian, generatorTable)
	fillOdd(points, &generator)
	toAffine(t.plain[:], points, make([]field, generatorTable))
	for i := range t.plain {
		t.plain[i].x.normalize()
		t.plain[i].y.normalize()
		t.lambdas[i].x.mul(&t.plain[i].x, &beta)
		t.lambdas[i].x.normalize()
		t.lambdas[i].y = t.plain[i].y
	}
	return t
})

// addDigit adds digit times the point that table holds the odd multiples of.
func (p *jacobian) addDigit(digit int16, table []affine) {
	switch {
	case digit > 0:
		p.addAffine(p, &table[digit>>1])
	case digit < 0:
		a := table[-digit>>1]
		a.negate()
		p.addAffine(p, &a)
	}
}

// sumOfMultiples returns g·G + k·q.
func sumOfMultiples(g *scalar, q *affine, k *scalar) jacobian {
	tables := generatorMultiples()
	plain, lambdas := oddMultiples(q)
	g1, g2 := g.split()
	k1, k2 := k.split()
	var r1, r2, s1, s2 recoded
	r1.recode(&g1, generatorWidth)
	r2.recode(&g2, generatorWidth)
	s1.recode(&k1, pointWidth)
	s2.recode(&k2, pointWidth)
	sum := jacobian{infinity: true}
	for i := max(r1.length, r2.length, s1.length, s2.length) - 1; i >= 0; i-- {
		sum.double(&sum)
		sum.addDigit(s1.digits[i], plain[:])
		sum.addDigit(s2.digits[i], lambdas[:])
		sum.addDigit(r1.digits[i], tables.plain[:])
		sum.addDigit(r2.digits[i], tables.lambdas[:])
	}
	return sum
}

// The multiples of the generator alone need no doublings: there is a table for each window of six
// bits.
const (
	windowWidth = 6
	windowCount = (256 + windowWidth - 1) / windowWidth
	windowTable = 1 << (windowWidth - 1)
)

// generatorWindows has in table w the points d·2^(6w)·G, d from 1 to 32 (88 KiB), made at first
// use.
var generatorWindows = sync.OnceValue(func() *[windowCount][windowTable]affine {
	points := make([]jacobian, 0, windowCount*windowTable)
	base := generator.jacobian()
	for range windowCount {
		multiple := jacobian{infinity: true}
		for range windowTable {
			multiple.add(&multiple, &base)
			points = append(points, multiple)
		}
		base.double(&multiple) // twice 32 times the base is the next one
	}
	flat := make([]affine, len(points))
	toAffine(flat, points, make([]field, len(points)))
	tables := new([windowCount][windowTable]affine)
	for i := range flat {
		flat[i].x.normalize()
		flat[i].y.normalize()
		tables[i/windowTable][i%windowTable] = flat[i]
	}
	return tables
})

// generatorMultiple returns k·G.
func generatorMultiple(k *scalar) jacobian {
	tables := generatorWindows()
	sum := jacobian{infinity: true}
	carry := 0
	for w := range tables {
		d := k.bits(w*windowWidth, windowWidth) + carry
		carry = 0
		if d > windowTable {
			d -= 2 * windowTable
			carry = 1
		}
		switch {
		case d > 0:
			sum.addAffine(&sum, &tables[w][d-1])
		case d < 0:
			a := tables[w][-d-1]
			a.negate()
			sum.addAffine(&sum, &a)
		}
	}
	return sum
}

// bits returns width bits from bit i on; beyond the number there are zeros.
func (z *scalar) bits(i, width int) int {
	word, shift := i>>6, i&63
	b := z[word] >> shift
	if shift+width > 64 && word+1 < len(z) {
		b |= z[word+1] << (64 - shift)
	}
	return int(b & (1<<width - 1))
}
