package consensus

import (
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
)

// State is what the headers up to a block say about the block that comes next. It is a value:
// copying it makes a fork, and the State of any known block is had by applying the headers from an
// earlier State on.
type State struct {
	Network *bitcoin.Network
	Height  bitcoin.Height
	Hash    bitcoin.Hash
	Header  bitcoin.Header
	Work    bitcoin.Uint256 // of all headers up to this one

	proof    bitcoin.Uint256    // the work of this header
	times    [medianSpan]uint32 // of the last headers, each at its height modulo medianSpan
	first    period             // the first header of this retarget period
	hardBits uint32             // the target that an easy block on a test network leaves in force
	bip34    bool               // the known block is the ancestor at BIP34Height

	deployments [bitcoin.NumDeployments]tally
	since       [bitcoin.NumDeployments]bitcoin.Height // the first block in that stage
	unknown     [versionBits]tally                     // signals for deployments not known here
}

// period is what the next retarget needs of the first header of a period.
type period struct{ time, bits uint32 }

// medianSpan is the number of headers whose median time counts (Bitcoin Core chain.h,
// nMedianTimeSpan).
const medianSpan = 11

// Genesis returns the State of the first block of a network.
func Genesis(net *bitcoin.Network) State {
	before := State{Network: net, Height: -1}
	return before.Apply(&net.Genesis.Header, net.Genesis.Hash())
}

// Apply returns the State after a header with this hash that has passed CheckHeader.
func (s *State) Apply(h *bitcoin.Header, hash bitcoin.Hash) State {
	next := *s
	next.Height++
	next.Hash, next.Header = hash, *h
	if h.Bits != s.Header.Bits { // it seldom differs, and takes a long division
		next.proof = bitcoin.Work(h.Bits)
	}
	next.Work = s.Work.Add(next.proof)
	next.times[next.Height%medianSpan] = h.Time
	first := next.Height%s.Network.RetargetInterval() == 0
	if first {
		next.first = period{h.Time, h.Bits}
	}
	if first || h.Bits != bitcoin.TargetToCompact(s.Network.PowLimit) {
		next.hardBits = h.Bits
	}
	if next.Height == s.Network.BIP34Height {
		next.bip34 = hash == s.Network.BIP34Hash
	}
	next.count(s)
	return next
}

// MedianTimePast returns the median of the times of this header and the ten before it, which the
// next header's must exceed and which lock times are held against (BIP 113).
func (s *State) MedianTimePast() uint32 {
	times := s.times
	window := times[:min(int(s.Height)+1, medianSpan)]
	slices.Sort(window)
	return window[len(window)/2]
}

// Subsidy returns what the coinbase of a block at the height may create, fees apart (Bitcoin Core
// validation.cpp, GetBlockSubsidy).
func Subsidy(net *bitcoin.Network, height bitcoin.Height) bitcoin.Amount {
	return 50 * bitcoin.Coin >> (height / net.SubsidyInterval) // in Go 0 for 64 halvings and more
}
