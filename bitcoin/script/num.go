package script

import "errors"

// Numbers on the stack are little-endian with the sign in the highest bit of the last octet; zero
// is empty. Operations take operands of at most 4 octets, but give results that may need 5 (Bitcoin
// Core script/script.h, CScriptNum).

// The ways in which a stack item can fail to be a number.
var (
	ErrNumOverflow   = errors.New("script number overflow")
	ErrNumNotMinimal = errors.New("non-minimally encoded script number")
)

// numSize is the number of octets that arithmetic takes; lock times take lockTimeSize, for they
// reach beyond the year 2038.
const (
	numSize      = 4
	lockTimeSize = 5
)

// DecodeNum reads a number of at most size octets, size being at most 8. Where minimal is set it
// may have no octet more than needed.
func DecodeNum(b []byte, minimal bool, size int) (int64, error) {
	if len(b) > size {
		return 0, ErrNumOverflow
	}
	if minimal && !isMinimalNum(b) {
		return 0, ErrNumNotMinimal
	}
	return decodeNum(b), nil
}

// isMinimalNum reports whether the last octet is needed: it is not if it holds but the sign, unless
// the octet before it has its highest bit set, so that the sign has no room there.
func isMinimalNum(b []byte) bool {
	n := len(b)
	return n == 0 || b[n-1]&0x7f != 0 || n > 1 && b[n-2]&0x80 != 0
}

func decodeNum(b []byte) int64 {
	if len(b) == 0 {
		return 0
	}
	var v uint64
	for i, octet := range b {
		v |= uint64(octet) << (8 * i)
	}
	sign := uint64(0x80) << (8 * (len(b) - 1))
	if v&sign != 0 {
		return -int64(v &^ sign)
	}
	return int64(v)
}

// AppendNum appends the encoding of n to dst: none for zero, 9 octets at most.
func AppendNum(dst []byte, n int64) []byte {
	if n == 0 {
		return dst
	}
	magnitude := uint64(n)
	if n < 0 {
		magnitude = -magnitude
	}
	for ; magnitude > 0xff; magnitude >>= 8 {
		dst = append(dst, byte(magnitude))
	}
	last := byte(magnitude)
	var sign byte
	if n < 0 {
		sign = 0x80
	}
	if last&0x80 != 0 {
		return append(dst, last, sign)
	}
	return append(dst, last|sign)
}

// isTrue reports whether a stack item is true: any octet set, but not only the sign (negative
// zero).
func isTrue(b []byte) bool {
	for i, octet := range b {
		if octet != 0 {
			return i != len(b)-1 || octet != 0x80
		}
	}
	return false
}
