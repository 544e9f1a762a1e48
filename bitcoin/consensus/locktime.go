package consensus

import "github.com/tallypost/tallypost/bitcoin"

// LockTimeThreshold divides lock times that are heights from those that are times (Bitcoin Core
// script/script.h, LOCKTIME_THRESHOLD).
const LockTimeThreshold = 500_000_000

// Sequence numbers as relative lock times (BIP 68, "Specification").
const (
	sequenceFinal       = 0xffffffff
	sequenceDisableFlag = 1 << 31
	sequenceTimeFlag    = 1 << 22
	sequenceMask        = 0x0000ffff
	sequenceGranularity = 9 // time locks count units of 512 seconds
)

// IsFinal reports whether a transaction's lock time allows it in a block of this height, where now
// is the time that lock times are held against: the median of the blocks before, or until BIP 113
// the time of the block itself.
func IsFinal(tx *bitcoin.Tx, height bitcoin.Height, now int64) bool {
	if tx.LockTime == 0 {
		return true
	}
	limit := now
	if tx.LockTime < LockTimeThreshold {
		limit = int64(height)
	}
	if int64(tx.LockTime) < limit {
		return true
	}
	for i := range tx.In {
		if tx.In[i].Sequence != sequenceFinal {
			return false
		}
	}
	return true
}

// A SequenceLock is what the relative lock times of a transaction's inputs amount to: the last
// height and the last median time at which it may not be in a block yet. -1 binds nothing.
type SequenceLock struct {
	Height bitcoin.Height
	Time   int64
}

// Medians tells the median time past of the blocks before the one that is judged, on its own
// branch.
type Medians interface {
	MedianTimePast(bitcoin.Height) (uint32, error)
}

// SequenceLocks returns the relative lock of a transaction whose inputs spend coins of these
// origins. An output that is in no block yet counts as created by the next one. The rule holds from
// the activation of BIP 68 on. The version has no sign: one that was meant as negative binds too.
func SequenceLocks(tx *bitcoin.Tx, origins []Origin, past Medians) (SequenceLock, error) {
	lock := SequenceLock{Height: -1, Time: -1}
	if tx.Version < 2 {
		return lock, nil
	}
	for i := range tx.In {
		sequence := tx.In[i].Sequence
		if sequence&sequenceDisableFlag != 0 {
			continue
		}
		height, span := origins[i].Height, sequence&sequenceMask
		if sequence&sequenceTimeFlag == 0 {
			lock.Height = max(lock.Height, height+bitcoin.Height(span)-1)
			continue
		}
		// A time lock counts from the earliest time that the block of the output could have had:
		// the median before it.
		from, err := past.MedianTimePast(max(height-1, 0))
		if err != nil {
			return lock, err
		}
		lock.Time = max(lock.Time, int64(from)+int64(span)<<sequenceGranularity-1)
	}
	return lock, nil
}

// Allows reports whether the lock lets the transaction into a block of this height, the median time
// past of the block before being median.
func (l SequenceLock) Allows(height bitcoin.Height, median uint32) bool {
	return l.Height < height && l.Time < int64(median)
}
