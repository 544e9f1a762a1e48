package bitcoin

import (
	"slices"
	"strings"
)

const (
	bech32Digits   = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
	bech32Most     = 90 // characters, for which two errors are located for certain
	bech32Checksum = 6  // characters
)

// Bech32Variant tells the checksums of BIP 173 and BIP 350 apart: it is the remainder that a valid
// string leaves.
type Bech32Variant uint32

// The two variants.
const (
	Bech32  Bech32Variant = 1
	Bech32m Bech32Variant = 0x2bc830a3
)

// EncodeBech32 writes values of 5 bits after a human-readable part, which is in lower case.
func EncodeBech32(variant Bech32Variant, hrp string, values []byte) string {
	remainder := bech32Remainder(hrp, append(slices.Clone(values), make([]byte, bech32Checksum)...))
	remainder ^= uint32(variant)
	var s strings.Builder
	s.WriteString(hrp)
	s.WriteByte('1')
	for _, v := range values {
		s.WriteByte(bech32Digits[v])
	}
	for i := range bech32Checksum {
		s.WriteByte(bech32Digits[remainder>>(5*(bech32Checksum-1-i))&31])
	}
	return s.String()
}

// DecodeBech32 reads what EncodeBech32 wrote, in one case or the other. An error is an
// *AddressError that says, in Core's words, what is wrong and where.
func DecodeBech32(s string) (hrp string, values []byte, variant Bech32Variant, err error) {
	hrp, values, err = bech32Values(s)
	if err != nil {
		return "", nil, 0, err
	}
	switch variant = Bech32Variant(bech32Remainder(hrp, values)); variant {
	case Bech32, Bech32m:
		return hrp, values[:len(values)-bech32Checksum], variant, nil
	}
	return "", nil, 0, bech32Locate(len(s), values, uint32(variant))
}

// bech32Values takes the string apart and turns characters into values, checksum included.
func bech32Values(s string) (hrp string, values []byte, err error) {
	if len(s) > bech32Most {
		e := &AddressError{Message: "Bech32 string too long"}
		for i := bech32Most; i < len(s); i++ {
			e.Locations = append(e.Locations, i)
		}
		return "", nil, e
	}
	if bad := bech32BadCharacters(s); bad != nil {
		return "", nil, &AddressError{"Invalid character or mixed case", bad}
	}
	separator := strings.LastIndexByte(s, '1')
	if separator < 0 {
		return "", nil, &AddressError{Message: "Missing separator"}
	}
	if separator == 0 || separator+bech32Checksum >= len(s) {
		return "", nil, &AddressError{"Invalid separator position", []int{separator}}
	}
	lower := strings.ToLower(s)
	for i := separator + 1; i < len(s); i++ {
		v := strings.IndexByte(bech32Digits, lower[i])
		if v < 0 {
			return "", nil, &AddressError{"Invalid Base 32 character", []int{i}}
		}
		values = append(values, byte(v))
	}
	return lower[:separator], values, nil
}

// bech32BadCharacters returns where a character is not printable or of the other case than the
// first letter.
func bech32BadCharacters(s string) (bad []int) {
	var lower, upper bool
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z':
			if upper {
				bad = append(bad, i)
			} else {
				lower = true
			}
		case c >= 'A' && c <= 'Z':
			if lower {
				bad = append(bad, i)
			} else {
				upper = true
			}
		case c < 33 || c > 126:
			bad = append(bad, i)
		}
	}
	return bad
}

// bech32Step multiplies a remainder of six 5-bit coefficients by x, modulo the generator of BIP
// 173.
func bech32Step(c uint32) uint32 {
	top := c >> 25
	c = c & 0x1ffffff << 5
	for i, g := range [5]uint32{0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3} {
		if top>>i&1 != 0 {
			c ^= g
		}
	}
	return c
}

// bech32Remainder returns the remainder of the human-readable part, expanded as BIP 173 says, and
// the values.
func bech32Remainder(hrp string, values []byte) uint32 {
	c := uint32(1)
	for i := range len(hrp) {
		c = bech32Step(c) ^ uint32(hrp[i]>>5)
	}
	c = bech32Step(c)
	for i := range len(hrp) {
		c = bech32Step(c) ^ uint32(hrp[i]&31)
	}
	for _, v := range values {
		c = bech32Step(c) ^ uint32(v)
	}
	return c
}

// bech32Locate says where one or two characters are wrong. The code has distance 5 over the
// characters of an address, so that at most one set of two errors explains a remainder. Nothing is
// said about what would be right: who believed it could send to a stranger. Of the two variants the
// one with fewer errors is meant.
func bech32Locate(length int, values []byte, remainder uint32) error {
	best := &AddressError{Message: "Invalid checksum"}
	for _, variant := range []Bech32Variant{Bech32, Bech32m} {
		places := bech32Errors(len(values), remainder^uint32(variant))
		if len(places) == 0 || best.Locations != nil && len(places) >= len(best.Locations) {
			continue
		}
		best.Message = "Invalid Bech32 checksum"
		if variant == Bech32m {
			best.Message = "Invalid Bech32m checksum"
		}
		best.Locations = nil
		for _, p := range places {
			best.Locations = append(best.Locations, length-1-p)
		}
	}
	return best
}

// bech32Errors returns the one or two places, counted from the right, largest first, at which
// values could be changed to leave no remainder; nil where there are none.
func bech32Errors(n int, remainder uint32) []int {
	place := make(map[uint32]int, 31*n) // what one error leaves: where it is
	power := uint32(1)                  // x to the power of p
	var powers []uint32
	for p := range n {
		powers = append(powers, power)
		for e := uint32(1); e < 32; e++ {
			place[bech32Scale(power, e)] = p
		}
		power = bech32Step(power)
	}
	if p, ok := place[remainder]; ok {
		return []int{p}
	}
	for p := n - 1; p >= 0; p-- {
		for e := uint32(1); e < 32; e++ {
			if q, ok := place[remainder^bech32Scale(powers[p], e)]; ok && q != p {
				return []int{p, q}
			}
		}
	}
	return nil
}

// bech32Scale multiplies each of six coefficients by e, in the field of 32 elements with a^5 = a^3
// + 1.
func bech32Scale(c, e uint32) (product uint32) {
	for ; e != 0; e >>= 1 {
		if e&1 != 0 {
			product ^= c
		}
		top := c >> 4 & 0x02108421 // coefficients that leave the field when doubled
		c = c&^(0x02108421<<4)<<1 ^ top*0b01001
	}
	return product
}

// regroup turns groups of so many bits into groups of another size. Where it fills up, the last
// group is completed with zeros, else what is left over must be less than a group, and zero.
func regroup(in []byte, from, to uint, fill bool) (out []byte, ok bool) {
	var acc, bits uint
	for _, v := range in {
		acc = acc<<from | uint(v)
		for bits += from; bits >= to; {
			bits -= to
			out = append(out, byte(acc>>bits&(1<<to-1)))
		}
		acc &= 1<<bits - 1
	}
	if fill && bits > 0 {
		return append(out, byte(acc<<(to-bits)&(1<<to-1))), true
	}
	return out, fill || bits < from && acc == 0
}
