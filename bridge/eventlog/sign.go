package eventlog

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tallypost/tallypost/bridge/tlog"
)

// LastSigned remembers the last signed checkpoint of a log, apart from the store that the log is
// in.
type LastSigned interface {
	// Load returns what was saved last, nil if nothing was.
	Load() ([]byte, error)
	// Save returns when the checkpoint is on stable storage in place of the last.
	Save(checkpoint []byte) error
}

// signed is a checkpoint with its signature.
type signed struct {
	tlog.Checkpoint
	text []byte // nil: nothing was signed yet
	at   time.Time
}

// loadSigned compares the tree with the last checkpoint that was signed.
func (l *Log) loadSigned() error {
	if l.cfg.LastSigned == nil {
		return nil
	}
	text, err := l.cfg.LastSigned.Load()
	if err != nil {
		return fmt.Errorf("last signed checkpoint: %w", err)
	}
	if text == nil {
		return nil
	}
	c, err := tlog.OpenCheckpoint(text, l.Verifier())
	if err != nil {
		return fmt.Errorf("last signed checkpoint: %w", err)
	}
	if size := l.committed.Size(); c.Size > size {
		return fmt.Errorf("%w: a checkpoint of size %d was signed, the store has %d entries:"+
			" bring back the newer data, or begin a new log with a new key and origin",
			ErrRolledBack, c.Size, size)
	}
	root, err := tlog.Root(c.Size, l.tiles(&l.committed))
	if err != nil {
		return err
	}
	if root != c.Root {
		return fmt.Errorf("%w: at size %d the signed root is %v, that of the store %v:"+
			" bring back the data that was signed, or begin a new log with a new key and origin",
			ErrRolledBack, c.Size, c.Root, root)
	}
	l.signed = signed{Checkpoint: c, text: text}
	return nil
}

// Checkpoint returns a signed checkpoint of the log: of all that is on stable storage, or of what
// was a short while ago (Config.SignEvery).
func (l *Log) Checkpoint() ([]byte, error) {
	s, err := l.checkpoint(0)
	return slices.Clone(s.text), err
}

// checkpoint returns a signed checkpoint of at least so many entries.
func (l *Log) checkpoint(atLeast uint64) (signed, error) {
	l.signing.Lock()
	defer l.signing.Unlock()
	edge, now, last := l.snapshot(), l.cfg.Clock.Now(), l.signed
	if last.text != nil && last.Size >= atLeast {
		age := now.Sub(last.at)
		if last.Size == edge.Size() || age >= 0 && age < l.cfg.SignEvery {
			return last, nil
		}
	}
	switch size := edge.Size(); {
	case size < atLeast:
		return signed{}, fmt.Errorf("entry %d of a log of size %d: %w", atLeast-1, size,
			ErrNotFound)
	case size < last.Size:
		return signed{}, fmt.Errorf("%w: size %d after %d", ErrRolledBack, size, last.Size)
	}
	c := tlog.Checkpoint{Origin: l.Origin(), Size: edge.Size(), Root: edge.Root()}
	text, err := c.Sign(l.cfg.Signer)
	if err != nil {
		return signed{}, fmt.Errorf("sign checkpoint: %w", err)
	}
	if l.cfg.LastSigned != nil {
		if err := l.cfg.LastSigned.Save(text); err != nil {
			return signed{}, fmt.Errorf("save signed checkpoint: %w", err)
		}
	}
	l.signed = signed{Checkpoint: c, text: text, at: now}
	return l.signed, nil
}

// Prove returns the proofs that entries are in the log, all under one checkpoint, which is signed
// anew if the last one does not cover them.
func (l *Log) Prove(indexes ...uint64) ([]*tlog.Proof, error) {
	if len(indexes) == 0 {
		return nil, errors.New("no entry to prove")
	}
	s, err := l.checkpoint(slices.Max(indexes) + 1)
	if err != nil {
		return nil, err
	}
	edge := l.snapshot()
	proofs := make([]*tlog.Proof, len(indexes))
	for i, index := range indexes {
		hashes, err := tlog.ProveInclusion(index, s.Size, l.tiles(&edge))
		if err != nil {
			return nil, fmt.Errorf("prove entry %d: %w", index, err)
		}
		leaf, err := l.leafHash(index)
		if err != nil {
			return nil, err
		}
		// A proof that does not hold would be found out far away and long after.
		if err := tlog.VerifyInclusion(leaf, index, hashes, s.Size, s.Root); err != nil {
			return nil, fmt.Errorf("prove entry %d: the store is damaged: %w", index, err)
		}
		proofs[i] = &tlog.Proof{Index: index, Hashes: hashes, Checkpoint: slices.Clone(s.text)}
	}
	return proofs, nil
}

// ProveConsistency returns the proof that the log at the newer size begins with the log at the
// older one.
func (l *Log) ProveConsistency(older, newer uint64) ([]tlog.Hash, error) {
	edge := l.snapshot()
	if newer > edge.Size() {
		return nil, fmt.Errorf("size %d of a log of size %d: %w", newer, edge.Size(), ErrNotFound)
	}
	proof, err := tlog.ProveConsistency(older, newer, l.tiles(&edge))
	if err != nil {
		return nil, fmt.Errorf("prove that size %d goes on from %d: %w", newer, older, err)
	}
	return proof, nil
}
