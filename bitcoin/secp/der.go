package secp

import "bytes"

// ParseDER reads an ECDSA signature into r and s, 32 octets each, as laxly as the block chain
// before BIP 66 demands: lengths longer than needed, padding, negative numbers and octets after the
// end are all accepted (Core pubkey.cpp, ecdsa_signature_parse_der_lax). The length of the sequence
// is read but not believed. Numbers that do not fit below the order of the group come out as zero,
// a signature that nothing verifies.
func ParseDER(sig []byte) (rs [64]byte, ok bool) {
	rest, ok := derSequence(sig)
	if !ok {
		return rs, false
	}
	r, rest, ok := derInteger(rest)
	if !ok {
		return rs, false
	}
	s, _, ok := derInteger(rest)
	if !ok {
		return rs, false
	}
	r, s = bytes.TrimLeft(r, "\x00"), bytes.TrimLeft(s, "\x00")
	if len(r) > 32 || len(s) > 32 {
		return rs, true
	}
	copy(rs[32-len(r):], r)
	copy(rs[64-len(s):], s)
	if bytes.Compare(rs[:32], order[:]) >= 0 || bytes.Compare(rs[32:], order[:]) >= 0 {
		return [64]byte{}, true
	}
	return rs, true
}

// derSequence steps over the tag and the length of a sequence.
func derSequence(b []byte) (rest []byte, ok bool) {
	if len(b) < 2 || b[0] != 0x30 {
		return nil, false
	}
	n, b := int(b[1]), b[2:]
	if n&0x80 != 0 {
		n &= 0x7f
		if n > len(b) {
			return nil, false
		}
		b = b[n:]
	}
	return b, true
}

// derInteger cuts off an integer: tag, length in the short or any long form, content.
func derInteger(b []byte) (content, rest []byte, ok bool) {
	if len(b) < 2 || b[0] != 0x02 {
		return nil, nil, false
	}
	n, b := int(b[1]), b[2:]
	if n&0x80 != 0 {
		digits := n & 0x7f
		if digits > len(b) {
			return nil, nil, false
		}
		length := bytes.TrimLeft(b[:digits], "\x00")
		if len(length) >= 4 { // more than any signature, and it keeps n from overflowing
			return nil, nil, false
		}
		n, b = 0, b[digits:]
		for _, d := range length {
			n = n<<8 | int(d)
		}
	}
	if n > len(b) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// AppendDER appends the strict DER encoding of r and s, 32 octets each, to dst (BIP 66).
func AppendDER(dst []byte, rs *[64]byte) []byte {
	r, s := derContent(rs[:32]), derContent(rs[32:])
	dst = append(dst, 0x30, byte(4+r.size()+s.size()))
	return s.append(r.append(dst))
}

// derNumber is a positive number without leading zeros; pad says that its first bit is set, so that
// DER wants a zero octet before it.
type derNumber struct {
	digits []byte
	pad    int
}

func derContent(b []byte) derNumber {
	b = bytes.TrimLeft(b, "\x00")
	if len(b) == 0 || b[0]&0x80 != 0 {
		return derNumber{b, 1}
	}
	return derNumber{b, 0}
}

func (n derNumber) size() int { return len(n.digits) + n.pad }

func (n derNumber) append(dst []byte) []byte {
	dst = append(dst, 0x02, byte(n.size()))
	if n.pad != 0 {
		dst = append(dst, 0)
	}
	return append(dst, n.digits...)
}

// LowS reports whether s, the second half of rs, is at most half the order of the group: the only
// form that relay policy accepts (BIP 146).
func LowS(rs *[64]byte) bool { return bytes.Compare(rs[32:], halfOrder[:]) <= 0 }

// The order of the group and its half, big-endian (SEC 2, section 2.4.1).
var (
	order = [32]byte{
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe,
		0xba, 0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
	}
	halfOrder = [32]byte{
		0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0x5d, 0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
	}
)
