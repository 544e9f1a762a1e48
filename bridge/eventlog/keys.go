package eventlog

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tallypost/tallypost/bridge/tlog"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

// The first octet of a key says what it is; see the comment of the package.
const (
	spaceState   = 's'
	spaceEntry   = 'e'
	spacePrivate = 'p'
	spaceMessage = 'm'
	spaceTile    = 't'
	spaceHold    = 'h'
)

const stateVersion = 1

func appendKey(dst []byte, space byte, numbers ...uint64) []byte {
	dst = append(dst, space)
	for _, n := range numbers {
		dst = binary.BigEndian.AppendUint64(dst, n)
	}
	return dst
}

func entryKey(index uint64) []byte   { return appendKey(nil, spaceEntry, index) }
func privateKey(index uint64) []byte { return appendKey(nil, spacePrivate, index) }
func holdKey(id mail.ID) []byte      { return appendKey(nil, spaceHold, uint64(id)) }

func messageKey(id mail.ID, index uint64) []byte {
	return appendKey(nil, spaceMessage, uint64(id), index)
}

func tileKey(level int, n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{spaceTile, byte(level)}, n)
}

// keyNumber returns the number of a key in which it is the i-th; false for a key that is too short.
func keyNumber(key []byte, i int) (uint64, bool) {
	if at := 1 + 8*i; len(key) >= at+8 {
		return binary.BigEndian.Uint64(key[at:]), true
	}
	return 0, false
}

func appendState(dst []byte, size uint64, origin string) []byte {
	dst = append(dst, stateVersion)
	dst = binary.BigEndian.AppendUint64(dst, size)
	return append(dst, origin...)
}

// readState returns the size of the log in the section, 0 for a new one.
func (l *Log) readState() (uint64, error) {
	state, err := l.section.Get([]byte{spaceState})
	if errors.Is(err, queue.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read state: %w", err)
	}
	if len(state) < 9 || state[0] != stateVersion {
		return 0,
			fmt.Errorf("state %x is not of version %d: written by a newer version, or damaged",
				state, stateVersion)
	}
	if origin := string(state[9:]); origin != l.Origin() {
		return 0,
			fmt.Errorf("the store has the log %q, the key is for %q: use the key of that log,"+
				" or an empty store", origin, l.Origin())
	}
	return binary.BigEndian.Uint64(state[1:]), nil
}

// fullTile reads a full tile.
func (l *Log) fullTile(t tlog.Tile) ([]byte, error) {
	data, err := l.section.Get(tileKey(t.Level, t.N))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", tlog.Tile{Level: t.Level, N: t.N,
			Width: tlog.TileWidth}.Path(), err)
	}
	if len(data) != tlog.TileBytes {
		return nil, fmt.Errorf("%s has %d octets, want %d", t.Path(), len(data), tlog.TileBytes)
	}
	return data, nil
}

// readEntry reads an entry and checks that it is one.
func (l *Log) readEntry(index uint64) ([]byte, tlog.Entry, error) {
	text, err := l.section.Get(entryKey(index))
	if err != nil {
		return nil, tlog.Entry{}, fmt.Errorf("entry %d: %w", index, err)
	}
	e, err := tlog.ParseEntry(text)
	if err != nil {
		return nil, tlog.Entry{}, fmt.Errorf("entry %d: %w", index, err)
	}
	return text, e, nil
}

func (l *Log) leafHash(index uint64) (tlog.Hash, error) {
	text, _, err := l.readEntry(index)
	if err != nil {
		return tlog.Hash{}, err
	}
	return tlog.LeafHash(text), nil
}

// tiles reads the tiles of a committed tree: full ones from the store, the others from memory.
func (l *Log) tiles(edge *tlog.Edge) tlog.TileReader {
	return func(t tlog.Tile) ([]byte, error) {
		p, data := edge.Partial(t.Level)
		switch {
		case t.N < p.N:
			return l.fullTile(t)
		case t.N == p.N && t.Width <= p.Width:
			return data, nil
		}
		return nil, fmt.Errorf("%s: %w", t.Path(), ErrNotFound)
	}
}
