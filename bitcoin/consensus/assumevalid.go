package consensus

import (
	"math"

	"github.com/tallypost/tallypost/bitcoin"
)

// AssumeValid is what decides whether the scripts of a block need not be run, because a block that
// others have verified was built on it (Core's -assumevalid). It never saves any other check.
// Whoever keeps the headers fills it in.
type AssumeValid struct {
	Configured bool           // there is such a block
	Known      bool           // its header is known
	Height     bitcoin.Height // of it, if known
	Ancestor   bool           // the block in question is that block or an ancestor of it
	InBest     bool           // and of the best header too

	BestWork bitcoin.Uint256 // of the best header's chain
	BestBits uint32          // target of the best header
	MinWork  bitcoin.Uint256 // -minimumchainwork
}

// burial is how much work, counted in time, must lie on a block before its scripts go unchecked:
// nobody shall be able to make others accept an invalid block by telling them what to assume.
const burial = 2 * 7 * 24 * 60 * 60

// Verify reports whether the scripts of the block of a State must be run, and the reason in the
// words of Core's log.
func (a AssumeValid) Verify(s *State) (must bool, reason string) {
	switch {
	case !a.Configured:
		return true, "assumevalid=0 (always verify)"
	case !a.Known:
		return true, "assumevalid hash not in headers"
	case !a.Ancestor && s.Height > a.Height:
		return true, "block height above assumevalid height"
	case !a.Ancestor:
		return true, "block not in assumevalid chain"
	case !a.InBest:
		return true, "block not in best header chain"
	case a.BestWork.Cmp(a.MinWork) < 0:
		return true, "best header chainwork below minimumchainwork"
	case EquivalentTime(s.Network, a.BestWork, s.Work, a.BestBits) <= burial:
		return true, "block too recent relative to best header"
	}
	return false, ""
}

// EquivalentTime returns the seconds that the network would take, at the difficulty of the compact
// target, for the work by which one chain exceeds another; less than 0 where it is the other way
// round (Bitcoin Core chain.cpp, GetBlockProofEquivalentTime).
func EquivalentTime(net *bitcoin.Network, to, from bitcoin.Uint256, bits uint32) int64 {
	sign, more := int64(1), to.Sub(from)
	if to.Cmp(from) <= 0 {
		sign, more = -1, from.Sub(to)
	}
	seconds := more.MulUint32(uint32(net.TargetSpacing.Seconds())).Div(bitcoin.Work(bits))
	if seconds.BitLen() > 63 {
		return sign * math.MaxInt64
	}
	return sign * int64(seconds[0])
}
