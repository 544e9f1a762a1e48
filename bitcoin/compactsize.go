package bitcoin

import (
	"encoding/binary"
	"errors"
)

// MaxCompactSize is the largest number that Core accepts where a CompactSize counts octets or items
// (Bitcoin Core serialize.h, MAX_SIZE).
const MaxCompactSize = 0x02000000

// The ways in which an encoding can be wrong. Parsers wrap them with the place; the words are
// Core's where Core has words.
var (
	ErrEndOfData      = errors.New("end of data")
	ErrTrailingData   = errors.New("trailing data")
	ErrNonCanonical   = errors.New("non-canonical CompactSize")
	ErrSizeTooLarge   = errors.New("CompactSize: size too large")
	ErrSuperfluous    = errors.New("superfluous witness record")
	ErrUnknownTxFlags = errors.New("unknown transaction optional data")
)

// ReadCompactSize returns the number at the start of b and the octets that it takes. It refuses an
// encoding longer than needed. The number may be any uint64: a caller that counts with it holds it
// against what is left of the buffer.
func ReadCompactSize(b []byte) (n uint64, size int, err error) {
	if len(b) == 0 {
		return 0, 0, ErrEndOfData
	}
	first := b[0]
	if first < 0xfd {
		return uint64(first), 1, nil
	}
	size = 1 + 2<<(first-0xfd)
	if len(b) < size {
		return 0, 0, ErrEndOfData
	}
	least := uint64(0xfd)
	switch first {
	case 0xfd:
		n = uint64(binary.LittleEndian.Uint16(b[1:]))
	case 0xfe:
		n, least = uint64(binary.LittleEndian.Uint32(b[1:])), 1<<16
	default:
		n, least = binary.LittleEndian.Uint64(b[1:]), 1<<32
	}
	if n < least {
		return 0, 0, ErrNonCanonical
	}
	return n, size, nil
}

// AppendCompactSize appends the encoding of n to dst.
func AppendCompactSize(dst []byte, n uint64) []byte {
	switch {
	case n < 0xfd:
		return append(dst, byte(n))
	case n <= 0xffff:
		return binary.LittleEndian.AppendUint16(append(dst, 0xfd), uint16(n))
	case n <= 0xffffffff:
		return binary.LittleEndian.AppendUint32(append(dst, 0xfe), uint32(n))
	}
	return binary.LittleEndian.AppendUint64(append(dst, 0xff), n)
}

// CompactSizeLen returns the octets that AppendCompactSize writes for n.
func CompactSizeLen(n uint64) int {
	switch {
	case n < 0xfd:
		return 1
	case n <= 0xffff:
		return 3
	case n <= 0xffffffff:
		return 5
	}
	return 9
}
