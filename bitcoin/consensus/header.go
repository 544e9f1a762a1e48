package consensus

import (
	"fmt"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
)

const (
	// MaxFutureTime is how far a header's time may lie ahead (Bitcoin Core chain.h,
	// MAX_FUTURE_BLOCK_TIME).
	MaxFutureTime = 2 * time.Hour
	// maxTimewarp is how many seconds the first header of a retarget period may lie before the last
	// one of the period before (BIP 94, "Time Warp Fix").
	maxTimewarp = 600
)

// CheckHeader judges a header with this hash as the successor of a State.
func CheckHeader(s State, h *bitcoin.Header, hash bitcoin.Hash, now time.Time) error {
	if err := checkProofOfWork(s.Network, h, hash); err != nil {
		return err
	}
	if h.PrevBlock != s.Hash {
		return &Error{KindMissingPrev, "prev-blk-not-found", ""}
	}
	return CheckHeaderAt(s, h, now)
}

// checkProofOfWork judges the hash of a header by the target that the header claims.
func checkProofOfWork(net *bitcoin.Network, h *bitcoin.Header, hash bitcoin.Hash) error {
	if !bitcoin.MeetsTarget(hash, h.Bits, net.PowLimit) {
		return invalidHeader("high-hash", "proof of work failed")
	}
	return nil
}

// CheckHeaderAt judges what a header owes to its place as the successor of a State (Bitcoin Core
// validation.cpp, ContextualCheckBlockHeader). Alone it is for a block that is still to be mined.
func CheckHeaderAt(s State, h *bitcoin.Header, now time.Time) error {
	if h.Bits != s.NextBits(h.Time) {
		return invalidHeader("bad-diffbits", "incorrect proof of work")
	}
	if h.Time <= s.MedianTimePast() {
		return invalidHeader("time-too-old", "block's timestamp is too early")
	}
	first := (s.Height+1)%s.Network.RetargetInterval() == 0
	if s.Network.EnforceBIP94 && first && int64(h.Time) < int64(s.Header.Time)-maxTimewarp {
		return invalidHeader("time-timewarp-attack",
			"block's timestamp is too early on diff adjustment block")
	}
	if time.Unix(int64(h.Time), 0).After(now.Add(MaxFutureTime)) {
		return &Error{KindTimeFuture, "time-too-new", "block timestamp too far in the future"}
	}
	if h.Version < s.minVersion() {
		return invalidHeader(fmt.Sprintf("bad-version(0x%08x)", uint32(h.Version)),
			fmt.Sprintf("rejected nVersion=0x%08x block", uint32(h.Version)))
	}
	return nil
}

// minVersion returns the least version of the next header. BIP 34, 66 and 65 were activated by
// miners who raised it, which made the older versions invalid.
func (s *State) minVersion() int32 {
	height := s.Height + 1
	switch net := s.Network; {
	case height >= net.BIP65Height:
		return 4
	case height >= net.BIP66Height:
		return 3
	case height >= net.BIP34Height:
		return 2
	}
	return -1 << 31
}

func invalidHeader(reason, debug string) error { return &Error{KindInvalidHeader, reason, debug} }

// NextBits returns the compact target of the next header, were its time this (Bitcoin Core pow.cpp,
// GetNextWorkRequired).
func (s *State) NextBits(when uint32) uint32 {
	net := s.Network
	switch {
	case (s.Height+1)%net.RetargetInterval() == 0:
		return s.retarget()
	case !net.AllowMinDifficulty:
		return s.Header.Bits
	case int64(when) > int64(s.Header.Time)+2*int64(net.TargetSpacing.Seconds()):
		return bitcoin.TargetToCompact(net.PowLimit)
	}
	return s.hardBits
}

// retarget returns the target of the period that begins. The time that the ending one took counts
// from its first header to its last, one block too few, which is what makes the time warp possible.
func (s *State) retarget() uint32 {
	net := s.Network
	if net.NoRetargeting {
		return s.Header.Bits
	}
	from := s.Header.Bits
	if net.EnforceBIP94 {
		from = s.first.bits // an easy last block must not make the whole period easy
	}
	timespan := int64(net.TargetTimespan.Seconds())
	took := int64(s.Header.Time) - int64(s.first.time)
	return scale(net, from, max(timespan/4, min(took, timespan*4)))
}

// scale returns the target times seconds over the timespan aimed at, but not easier than the limit.
func scale(net *bitcoin.Network, bits uint32, seconds int64) uint32 {
	target, _, _ := bitcoin.CompactToTarget(bits)
	timespan := bitcoin.Uint256{uint64(net.TargetTimespan.Seconds())}
	target = target.MulUint32(uint32(seconds)).Div(timespan)
	if target.Cmp(net.PowLimit) > 0 {
		target = net.PowLimit
	}
	return bitcoin.TargetToCompact(target)
}

// PermittedTransition reports whether a header at the height can have the target now where the
// header before has old, whatever their times. It is for a first look at headers whose predecessors
// are not kept (Bitcoin Core pow.cpp, PermittedDifficultyTransition).
func PermittedTransition(net *bitcoin.Network, height bitcoin.Height, old, now uint32) bool {
	if net.AllowMinDifficulty {
		return true
	}
	if height%net.RetargetInterval() != 0 {
		return old == now
	}
	timespan := int64(net.TargetTimespan.Seconds())
	target, _, _ := bitcoin.CompactToTarget(now)
	easiest, _, _ := bitcoin.CompactToTarget(scale(net, old, timespan*4))
	hardest, _, _ := bitcoin.CompactToTarget(scale(net, old, timespan/4))
	return target.Cmp(easiest) <= 0 && target.Cmp(hardest) >= 0
}
