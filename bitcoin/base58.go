package bitcoin

import (
	"bytes"
	"slices"
	"strings"
)

const base58Digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// EncodeBase58 writes b as a number with the 58 digits; each leading zero octet becomes a 1.
func EncodeBase58(b []byte) string {
	number := bytes.TrimLeft(b, "\x00")
	var digits []byte // least significant first
	for _, octet := range number {
		carry := int(octet)
		for i := range digits {
			carry += int(digits[i]) << 8
			digits[i] = byte(carry % 58)
			carry /= 58
		}
		for ; carry > 0; carry /= 58 {
			digits = append(digits, byte(carry%58))
		}
	}
	for range len(b) - len(number) {
		digits = append(digits, 0)
	}
	slices.Reverse(digits)
	for i, d := range digits {
		digits[i] = base58Digits[d]
	}
	return string(digits)
}

// DecodeBase58 reads what EncodeBase58 wrote, with spaces around it allowed. It fails on other
// characters and on more than most octets, which bounds the work.
func DecodeBase58(s string, most int) (b []byte, ok bool) {
	s = strings.Trim(s, spaces)
	number := strings.TrimLeft(s, "1")
	zeros := len(s) - len(number)
	for i := range len(number) {
		carry := strings.IndexByte(base58Digits, number[i])
		if carry < 0 || zeros+len(b) > most {
			return nil, false
		}
		for j := range b { // least significant first
			carry += int(b[j]) * 58
			b[j] = byte(carry)
			carry >>= 8
		}
		if carry > 0 {
			b = append(b, byte(carry))
		}
	}
	if zeros+len(b) > most {
		return nil, false
	}
	b = append(b, make([]byte, zeros)...)
	slices.Reverse(b)
	return b, true
}

// EncodeBase58Check writes b and the first four octets of its double hash.
func EncodeBase58Check(b []byte) string {
	sum := DoubleHash(b)
	return EncodeBase58(append(slices.Clone(b), sum[:4]...))
}

// DecodeBase58Check reads what EncodeBase58Check wrote, at most so many octets, and checks the sum.
func DecodeBase58Check(s string, most int) (b []byte, ok bool) {
	b, ok = DecodeBase58(s, most+4)
	if !ok || len(b) < 4 {
		return nil, false
	}
	b, sum := b[:len(b)-4], b[len(b)-4:]
	want := DoubleHash(b)
	if !bytes.Equal(sum, want[:4]) {
		return nil, false
	}
	return b, true
}
