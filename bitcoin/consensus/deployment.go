package consensus

import (
	"math/bits"

	"github.com/tallypost/tallypost/bitcoin"
)

// Stage is where the activation of a rule by version bits stands (BIP 9, "States").
type Stage uint8

// The stages, in their order. Which one a block is in depends on the blocks of the periods before
// its own only.
const (
	Defined  Stage = iota // not begun: the genesis block's stage
	Started               // miners may signal
	LockedIn              // enough did
	Active                // the rule binds
	Failed                // the time ran out
)

// String returns the stage as getdeploymentinfo writes it.
func (t Stage) String() string {
	return [...]string{"defined", "started", "locked_in", "active", "failed"}[t]
}

const (
	// VersionTopBits mark a header version whose other bits are signals (BIP 9, "Bit flags").
	VersionTopBits = 0x20000000
	versionTopMask = 0xe0000000
	versionBits    = 29
)

// Signals reports whether a header of this version signals the bit.
func Signals(version int32, bit uint8) bool {
	return uint32(version)&versionTopMask == VersionTopBits && version>>bit&1 != 0
}

// tally is the stage that a block is in and the signals of its period, the block's own included.
type tally struct {
	stage Stage
	count uint16 // a period has some 2,000 blocks
}

// count fills in the tallies of a header; before is the State of its parent.
func (s *State) count(before *State) {
	net := s.Network
	for id := range net.Deployments {
		d, t := &net.Deployments[id], &s.deployments[id]
		if s.Height%d.Period == 0 {
			if stage := before.StageAfter(bitcoin.DeploymentID(id)); stage != t.stage {
				t.stage, s.since[id] = stage, s.Height
			}
			t.count = 0
		}
		if Signals(s.Header.Version, d.Bit) {
			t.count++
		}
	}
	s.countUnknown(before)
}

// StageAfter returns the stage of a deployment for the block that follows.
func (s *State) StageAfter(id bitcoin.DeploymentID) Stage {
	return s.deployments[id].after(s, &s.Network.Deployments[id])
}

// after returns the stage that follows the one of s, which changes between periods only (Bitcoin
// Core versionbits.cpp, GetStateFor).
func (t tally) after(s *State, d *bitcoin.Deployment) Stage {
	switch d.Start {
	case bitcoin.AlwaysActive:
		return Active
	case bitcoin.NeverActive:
		return Failed
	}
	if (s.Height+1)%d.Period != 0 || s.Height < 0 {
		return t.stage
	}
	switch t.stage {
	case Defined:
		if int64(s.MedianTimePast()) >= d.Start {
			return Started
		}
	case Started:
		if bitcoin.Height(t.count) >= d.Threshold {
			return LockedIn
		}
		if int64(s.MedianTimePast()) >= d.Timeout {
			return Failed
		}
	case LockedIn:
		if s.Height+1 >= d.MinActivationHeight {
			return Active
		}
	}
	return t.stage
}

// BlockVersion returns the version that the next header should have: all deployments that may be
// signalled, signalled.
func (s *State) BlockVersion() int32 {
	version := int32(VersionTopBits)
	for id := range s.deployments {
		version |= s.signal(bitcoin.DeploymentID(id), s.StageAfter(bitcoin.DeploymentID(id)))
	}
	return version
}

// signal returns the bit of a deployment in a stage where it is signalled, else 0.
func (s *State) signal(id bitcoin.DeploymentID, stage Stage) int32 {
	if stage == Started || stage == LockedIn {
		return 1 << s.Network.Deployments[id].Bit
	}
	return 0
}

// Activation is where a deployment stands at a block, as getdeploymentinfo reports it.
type Activation struct {
	Stage Stage          // of the block
	Next  Stage          // of the block that follows
	Since bitcoin.Height // the first block in Stage

	// Signals in the block's period up to the block; of interest in the stages Started and
	// LockedIn. In the latter there is no threshold to reach any more, and Threshold is 0.
	Elapsed, Count, Period, Threshold bitcoin.Height
	Possible                          bool // enough can still signal
}

// Activation returns where a deployment stands at the block of the State (Bitcoin Core
// versionbits.cpp, VersionBitsCache::Info).
func (s *State) Activation(id bitcoin.DeploymentID) Activation {
	d := &s.Network.Deployments[id]
	a := Activation{
		Stage:     s.deployments[id].stage,
		Next:      s.StageAfter(id),
		Since:     s.since[id],
		Elapsed:   s.Height%d.Period + 1,
		Count:     bitcoin.Height(s.deployments[id].count),
		Period:    d.Period,
		Threshold: d.Threshold,
	}
	a.Possible = d.Period-d.Threshold >= a.Elapsed-a.Count
	if a.Stage == LockedIn {
		a.Threshold, a.Possible = 0, false
	}
	return a
}

// ActiveSince returns the first block that the rule binds, if that is known at the block of the
// State.
func (s *State) ActiveSince(id bitcoin.DeploymentID) (height bitcoin.Height, known bool) {
	switch a := s.Activation(id); {
	case a.Stage == Active:
		return a.Since, true
	case a.Next == Active:
		return s.Height + 1, true
	}
	return 0, false
}

// unknownDeployment holds the terms on which signals that nobody here knows are watched.
func unknownDeployment(net *bitcoin.Network) bitcoin.Deployment {
	d := bitcoin.Deployment{Timeout: bitcoin.NoTimeout, Period: 2016, Threshold: 1815}
	if net.Name != "main" {
		d.Period = net.RetargetInterval()
		d.Threshold = d.Period * 3 / 4
	}
	return d
}

// countUnknown fills in the tallies of the bits that no known deployment explains (Bitcoin Core
// versionbits.cpp, WarningBitsConditionChecker).
func (s *State) countUnknown(before *State) {
	d := unknownDeployment(s.Network)
	if s.Height%d.Period == 0 {
		for bit := range s.unknown {
			s.unknown[bit] = tally{stage: before.unknown[bit].after(before, &d)}
		}
	}
	version := uint32(s.Header.Version)
	if s.Height < s.Network.MinBIP9WarningHeight || version&versionTopMask != VersionTopBits {
		return
	}
	for id := range s.deployments {
		version &^= uint32(s.signal(bitcoin.DeploymentID(id), s.deployments[id].stage))
	}
	for signals := version &^ versionTopMask; signals != 0; signals &= signals - 1 {
		s.unknown[bits.TrailingZeros32(signals)].count++
	}
}

// UnknownActivations returns the bits by which miners have locked in or activated rules that are
// not known here: this node no longer judges as they do.
func (s *State) UnknownActivations() (lockedIn, active []int) {
	d := unknownDeployment(s.Network)
	for bit := range s.unknown {
		switch s.unknown[bit].after(s, &d) {
		case LockedIn:
			lockedIn = append(lockedIn, bit)
		case Active:
			active = append(active, bit)
		}
	}
	return lockedIn, active
}
