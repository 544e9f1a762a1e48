package descriptor

import (
	"fmt"
	"strings"
)

const (
	inputCharset = "0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyz" +
		"ABCDEFGH`#\"\\ "
	sumCharset = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
)

// Checksum returns the eight characters that follow the # (BIP 380). ok is false where the text has
// characters that no descriptor has.
func Checksum(s string) (sum string, ok bool) {
	polymod := func(c uint64, v int) uint64 {
		top := c >> 35
		c = (c&0x7ffffffff)<<5 ^ uint64(v)
		for i, g := range []uint64{0xf5dee51989, 0xa9fdca3312, 0x1bab10e32d, 0x3706b1677a, 0x644d626ffd} {
			if top>>i&1 == 1 {
				c ^= g
			}
		}
		return c
	}
	c, group, count := uint64(1), 0, 0
	for i := range len(s) {
		pos := strings.IndexByte(inputCharset, s[i])
		if pos < 0 {
			return "", false
		}
		c = polymod(c, pos&31)
		group = group*3 + pos>>5
		if count++; count == 3 {
			c, group, count = polymod(c, group), 0, 0
		}
	}
	if count > 0 {
		c = polymod(c, group)
	}
	for range 8 {
		c = polymod(c, 0)
	}
	c ^= 1
	out := make([]byte, 8)
	for i := range out {
		out[i] = sumCharset[c>>(5*(7-i))&31]
	}
	return string(out), true
}

// WithChecksum appends the checksum to a descriptor that has none.
func WithChecksum(s string) string {
	sum, _ := Checksum(s)
	return s + "#" + sum
}

// CutChecksum checks the checksum of a descriptor and cuts it off. Where it is not needed it may be missing.
func CutChecksum(s string, needed bool) (string, error) {
	body, sum, given := strings.Cut(s, "#")
	if strings.Contains(sum, "#") {
		return "", fmt.Errorf("Multiple '#' symbols")
	}
	if !given && needed {
		return "", fmt.Errorf("Missing checksum")
	}
	if given && len(sum) != 8 {
		return "", fmt.Errorf("Expected 8 character checksum, not %d characters", len(sum))
	}
	want, ok := Checksum(body)
	if !ok {
		return "", fmt.Errorf("Invalid characters in payload")
	}
	if given && sum != want {
		return "", fmt.Errorf("Provided checksum '%s' does not match computed checksum '%s'", sum, want)
	}
	return body, nil
}
