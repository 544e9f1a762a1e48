package bitcoin

// CompactToTarget expands the compact form of a target as it stands in a header (Bitcoin Core
// arith_uint256.cpp, SetCompact). The top octet is the length of the number in octets, the other
// three its first digits, of which the top bit is a sign. A target that is negative, overflows or
// is zero can be met by no block.
func CompactToTarget(bits uint32) (target Uint256, negative, overflow bool) {
	size := bits >> 24
	word := bits & 0x007fffff
	if size <= 3 {
		word >>= 8 * (3 - size)
		target[0] = uint64(word)
	} else {
		target = Uint256{uint64(word)}.Lsh(uint(8 * (size - 3)))
	}
	negative = word != 0 && bits&0x00800000 != 0
	overflow = word != 0 && (size > 34 || word > 0xff && size > 33 || word > 0xffff && size > 32)
	return target, negative, overflow
}

// TargetToCompact returns the compact form of a target, which keeps its first three octets (Core's
// GetCompact).
func TargetToCompact(target Uint256) uint32 {
	size := uint32(target.BitLen()+7) / 8
	var word uint32
	if size <= 3 {
		word = uint32(target[0]) << (8 * (3 - size))
	} else {
		word = uint32(target.Rsh(uint(8 * (size - 3)))[0])
	}
	if word&0x00800000 != 0 { // would read as a sign
		word >>= 8
		size++
	}
	return word | size<<24
}

// Work returns the expected number of hashes that a block with this compact target takes, 2^256 /
// (target + 1); 0 for a target that no block can meet (Core's GetBlockProof).
func Work(bits uint32) Uint256 {
	target, negative, overflow := CompactToTarget(bits)
	if negative || overflow || target.IsZero() {
		return Uint256{}
	}
	// 2^256 does not fit, but 2^256 / (t+1) = (2^256 - t - 1) / (t+1) + 1.
	one := Uint256{1}
	return target.Not().Div(target.Add(one)).Add(one)
}

// MeetsTarget reports whether the hash meets the compact target and the target is not easier than
// the limit (Core's CheckProofOfWork).
func MeetsTarget(h Hash, bits uint32, limit Uint256) bool {
	target, negative, overflow := CompactToTarget(bits)
	if negative || overflow || target.IsZero() || target.Cmp(limit) > 0 {
		return false
	}
	return Uint256FromHash(h).Cmp(target) <= 0
}

// Difficulty returns how much harder the compact target is than that of the first block, as Core
// shows it.
func Difficulty(bits uint32) float64 {
	shift := int(bits >> 24)
	d := float64(0x0000ffff) / float64(bits&0x00ffffff)
	for ; shift < 29; shift++ {
		d *= 256
	}
	for ; shift > 29; shift-- {
		d /= 256
	}
	return d
}
