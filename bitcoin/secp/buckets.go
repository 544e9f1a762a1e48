package secp

// term is a short multiple of a point.
type term struct {
	point affine
	times short
}

// sumOfTerms adds up many terms by buckets (Pippenger). The numbers are cut into windows of some
// bits, with signs; for each window every point goes into the bucket of its digit, so that the
// digits are multiplied not for each point but once for each bucket.
func sumOfTerms(terms []term) jacobian {
	width := bucketWidth(len(terms))
	windows := (digitCount + width - 1) / width
	digits := make([]int16, windows*len(terms))
	for i := range terms {
		terms[i].times.window(digits[i*windows:(i+1)*windows], width)
	}
	buckets := make([]jacobian, 1<<(width-1))
	sum := jacobian{infinity: true}
	for w := windows - 1; w >= 0; w-- {
		for range width {
			sum.double(&sum)
		}
		for i := range buckets {
			buckets[i].infinity = true
		}
		for i := range terms {
			switch d := digits[i*windows+w]; {
			case d > 0:
				b := &buckets[d-1]
				b.addAffine(b, &terms[i].point)
			case d < 0:
				b := &buckets[-d-1]
				negative := terms[i].point
				negative.negate()
				b.addAffine(b, &negative)
			}
		}
		window := weigh(buckets)
		sum.add(&sum, &window)
	}
	return sum
}

// weigh returns the sum of (i+1) times bucket i: the sum of all sums from i upwards.
func weigh(buckets []jacobian) jacobian {
	upwards, sum := jacobian{infinity: true}, jacobian{infinity: true}
	for i := len(buckets) - 1; i >= 0; i-- {
		upwards.add(&upwards, &buckets[i])
		sum.add(&sum, &upwards)
	}
	return sum
}

// window writes a number in digits of width bits between -2^(width-1) and 2^(width-1).
func (k *short) window(digits []int16, width int) {
	carry := 0
	for w := range digits {
		d := carry
		if w*width < 64*len(k.digits) {
			d += int(k.bits(w*width, width))
		}
		carry = 0
		if d > 1<<(width-1) {
			d -= 1 << width
			carry = 1
		}
		if k.negative {
			d = -d
		}
		digits[w] = int16(d)
	}
}

// bucketWidth returns the width of windows that costs the fewest additions: n for the points of a
// window, and two for each of its buckets, which cost a quarter more.
func bucketWidth(n int) int {
	best, least := 0, 0
	for width := 3; width <= 14; width++ {
		windows := (digitCount + width - 1) / width
		cost := windows * (4*n + 5*2<<(width-1))
		if best == 0 || cost < least {
			best, least = width, cost
		}
	}
	return best
}
