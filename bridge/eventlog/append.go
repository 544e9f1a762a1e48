package eventlog

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"github.com/tallypost/tallypost/bridge/tlog"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

// leafBytes is about what the keys and values of one event take; it only sizes a buffer.
const leafBytes = 896

// Append gives each event the next index and returns the writes that make them part of the log. It
// reads nothing. The slices in the writes are not touched again.
//
// The group is part of the tree from here on, for the next Append to build on, but nobody sees it
// before Committed. If it is never committed, the log must be opened anew. After an error nothing
// has changed.
func (l *Log) Append(events []mail.Event) ([]uint64, []queue.Write, error) {
	if len(events) == 0 {
		return nil, nil, nil
	}
	g := group{
		edge:   l.appended,
		arena:  make([]byte, 0, len(events)*leafBytes),
		writes: make([]queue.Write, 0, 3*len(events)+2),
	}
	var after tlog.Block
	if l.cfg.Beacon != nil {
		if block, ok := l.cfg.Beacon(); ok {
			after = block
		}
	}
	salts := make([]byte, len(events)*tlog.SaltSize)
	rand.Read(salts)
	indexes := make([]uint64, len(events))
	for i := range events {
		indexes[i] = g.edge.Size()
		salt := [tlog.SaltSize]byte(salts[i*tlog.SaltSize:])
		if err := g.add(&events[i], salt, after); err != nil {
			return nil, nil, fmt.Errorf("event log: entry %d: %w", indexes[i], err)
		}
		l.applyKind(&g, &events[i], indexes[i])
	}
	g.put([]byte{spaceState}, appendState(nil, g.edge.Size(), l.Origin()))
	l.appended = g.edge
	l.holds = append(l.holds, g.holds...)
	l.erased = append(l.erased, g.erased...)
	return indexes, g.writes, nil
}

// Committed says that everything appended so far is on stable storage.
func (l *Log) Committed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.committed = l.appended
	for _, h := range l.holds {
		if h.held {
			l.held[h.id] = true
		} else {
			delete(l.held, h.id)
		}
	}
	for _, index := range l.erased {
		delete(l.erasing, index)
	}
	l.holds, l.erased = l.holds[:0], l.erased[:0]
}

// group is what one call of Append makes.
type group struct {
	edge   tlog.Edge
	arena  []byte // keys and values, one behind the other: else an event costs six allocations
	writes []queue.Write
	holds  []holdChange
	erased []uint64
}

// holdChange is a legal hold set or released.
type holdChange struct {
	id   mail.ID
	held bool
}

func (g *group) put(key, value []byte) {
	g.writes = append(g.writes, queue.Write{Key: key, Value: value})
}

// add enters an event: entry, private half, and its place among the events of its message.
func (g *group) add(ev *mail.Event, salt [tlog.SaltSize]byte, after tlog.Block) error {
	if err := tlog.CheckKind(ev.Kind); err != nil {
		return err
	}
	index := g.edge.Size()
	private, err := ev.AppendCanonical(append(g.arena, salt[:]...))
	if err != nil {
		return err
	}
	private = g.cut(private)
	g.put(g.cut(appendKey(g.arena, spacePrivate, index)), private)

	entry := tlog.Entry{Kind: ev.Kind, After: after, Commitment: tlog.Commit(salt,
		private[tlog.SaltSize:])}
	text := g.cut(entry.AppendTo(g.arena))
	g.put(g.cut(appendKey(g.arena, spaceEntry, index)), text)

	if ofMessage(ev.Kind, ev.ID) {
		g.put(g.cut(appendKey(g.arena, spaceMessage, uint64(ev.ID), index)), []byte{})
	}
	g.edge.Append(tlog.LeafHash(text), func(t tlog.Tile, data []byte) {
		g.put(tileKey(t.Level, t.N), data)
	})
	return nil
}

// cut takes the arena with something appended, keeps it, and returns what was appended.
func (g *group) cut(arena []byte) []byte {
	from := len(g.arena)
	g.arena = arena
	return arena[from:len(arena):len(arena)]
}

// applyKind adds the writes of events that change the log's own state.
func (l *Log) applyKind(g *group, ev *mail.Event, index uint64) {
	switch ev.Kind {
	case LegalHold:
		g.put(holdKey(ev.ID), binary.BigEndian.AppendUint64(nil, index))
		g.holds = append(g.holds, holdChange{ev.ID, true})
	case LegalHoldRelease:
		g.put(holdKey(ev.ID), nil)
		g.holds = append(g.holds, holdChange{ev.ID, false})
	case mail.Erasure:
		l.applyErasure(g, ev, index)
	}
}

// applyErasure erases what Erase was called for, and nothing else: an event made in another way is
// no way round a legal hold. One that is recorded twice, or is not true, is just an entry; Audit
// finds the latter.
func (l *Log) applyErasure(g *group, ev *mail.Event, index uint64) {
	target, _, err := parseErasure(ev.Note)
	if err != nil {
		return
	}
	l.mu.Lock()
	id, ok := l.erasing[target]
	l.mu.Unlock()
	if !ok {
		return
	}
	g.put(privateKey(target), binary.BigEndian.AppendUint64(nil, index))
	g.put(messageKey(id, target), nil)
	g.erased = append(g.erased, target)
}
