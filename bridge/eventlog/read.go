package eventlog

import (
	"encoding/binary"
	"fmt"

	"github.com/tallypost/tallypost/bridge/tlog"
	"github.com/tallypost/tallypost/mail"
)

// Private is the half of an event that is not in the log.
type Private struct {
	Salt      [tlog.SaltSize]byte
	Canonical []byte // the octets of mail.Event.Canonical, as they were when the event was entered
}

func (l *Log) checkIndex(index uint64) error {
	if size := l.Size(); index >= size {
		return fmt.Errorf("entry %d of a log of size %d: %w", index, size, ErrNotFound)
	}
	return nil
}

// Entry returns the text of an entry.
func (l *Log) Entry(index uint64) ([]byte, error) {
	if err := l.checkIndex(index); err != nil {
		return nil, err
	}
	text, _, err := l.readEntry(index)
	return text, err
}

// Event returns the private half of an entry, checked against the entry; ErrErased where there is
// none any more.
func (l *Log) Event(index uint64) (Private, error) {
	if err := l.checkIndex(index); err != nil {
		return Private{}, err
	}
	return l.event(index)
}

func (l *Log) event(index uint64) (Private, error) {
	_, entry, err := l.readEntry(index)
	if err != nil {
		return Private{}, err
	}
	value, err := l.section.Get(privateKey(index))
	if err != nil {
		return Private{}, fmt.Errorf("private half of entry %d: %w", index, err)
	}
	p, tombstone, err := parsePrivate(value)
	if err != nil {
		return Private{}, fmt.Errorf("private half of entry %d: %w", index, err)
	}
	if p == nil {
		return Private{}, fmt.Errorf("entry %d: %w, see entry %d", index, ErrErased, tombstone)
	}
	if !entry.Commits(p.Salt, p.Canonical) {
		return Private{}, fmt.Errorf("private half of entry %d is not the one it commits to", index)
	}
	return *p, nil
}

// parsePrivate splits a private half, or returns nil and the index of the Erasure event.
func parsePrivate(value []byte) (p *Private, tombstone uint64, err error) {
	switch {
	case len(value) == 8:
		return nil, binary.BigEndian.Uint64(value), nil
	case len(value) <= tlog.SaltSize:
		return nil, 0, fmt.Errorf("%d octets, want a salt of %d and an event", len(value),
			tlog.SaltSize)
	}
	return &Private{
		Salt:      [tlog.SaltSize]byte(value),
		Canonical: value[tlog.SaltSize:],
	}, 0, nil
}

// Find returns the indexes of the events of a message, in order, without those that were erased and
// those about legal holds.
func (l *Log) Find(id mail.ID) ([]uint64, error) {
	size := l.Size()
	var indexes []uint64
	err := l.section.Scan(appendKey(nil, spaceMessage, uint64(id)), nil, func(key, _ []byte) bool {
		// The section may be ahead of Committed by a group.
		if index, ok := keyNumber(key, 1); ok && index < size {
			indexes = append(indexes, index)
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("events of message %v: %w", id, err)
	}
	return indexes, nil
}

// Tile returns a tile or entry bundle of the committed tree, as it is to be served under its path.
// A full tile answers for a part of it too.
func (l *Log) Tile(t tlog.Tile) ([]byte, error) {
	if t.Width < 1 || t.Width > tlog.TileWidth || t.Level < tlog.EntryLevel || t.Level >= 8 ||
		t.N > tlog.MaxSize/tlog.TileWidth {
		return nil, fmt.Errorf("tile %d of level %d and width %d: %w", t.N, t.Level, t.Width,
			ErrNotFound)
	}
	if t.Level == tlog.EntryLevel {
		return l.bundle(t)
	}
	edge := l.snapshot()
	data, err := l.tiles(&edge)(t)
	if err != nil {
		return nil, err
	}
	return append([]byte(nil), data[:t.Width*tlog.HashSize]...), nil
}

func (l *Log) bundle(t tlog.Tile) ([]byte, error) {
	first := t.N * tlog.TileWidth
	if end := first + uint64(t.Width); end > l.Size() {
		return nil, fmt.Errorf("%s: %w", t.Path(), ErrNotFound)
	}
	var bundle []byte
	for i := range uint64(t.Width) {
		text, _, err := l.readEntry(first + i)
		if err != nil {
			return nil, err
		}
		if bundle, err = tlog.AppendToBundle(bundle, text); err != nil {
			return nil, err
		}
	}
	return bundle, nil
}
