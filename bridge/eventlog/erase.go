package eventlog

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/tallypost/tallypost/mail"
)

// Kinds of events that only the log itself knows.
const (
	// LegalHold: nothing of a message may be erased until LegalHoldRelease.
	LegalHold mail.EventKind = "LegalHold"
	// LegalHoldRelease: it may be again.
	LegalHoldRelease mail.EventKind = "LegalHoldRelease"
)

// Reason is why the private half of an event was erased.
type Reason string

// The reasons for an erasure.
const (
	OnRequest      Reason = "request"   // the person concerned asked for it (GDPR, article 17)
	RetentionEnded Reason = "retention" // the time for which it was to be kept is over
	OnOrder        Reason = "order"     // a court or authority ordered it
)

func (r Reason) check() error {
	switch r {
	case OnRequest, RetentionEnded, OnOrder:
		return nil
	}
	return fmt.Errorf("erasure for %q: the reason must be request, retention or order", string(r))
}

// Erase returns the event that erases the private half of an entry, salt and event, once it is
// recorded (queue.Record): both happen in one write. What is left is the entry, a random string
// that still has its place in the tree, and the Erasure event, which names index and reason and
// nothing else. Copies that were given away are out of reach, and the store frees the octets on its
// disk only when it next compacts them.
//
// Only events about a message can be erased. ErrHeld is returned for one under legal hold,
// ErrErased for one that was erased before. A hold that is set after Erase has returned comes too
// late.
func (l *Log) Erase(index uint64, why Reason) (mail.Event, error) {
	if err := why.check(); err != nil {
		return mail.Event{}, err
	}
	p, err := l.Event(index)
	if err != nil {
		return mail.Event{}, err
	}
	ev, err := readHead(p.Canonical)
	if err != nil {
		return mail.Event{}, fmt.Errorf("entry %d: %w", index, err)
	}
	if !ofMessage(ev.Kind, ev.ID) {
		return mail.Event{},
			fmt.Errorf("entry %d is of kind %s: only events about a message can be erased",
				index, ev.Kind)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[ev.ID] {
		return mail.Event{}, fmt.Errorf("entry %d of message %v: %w", index, ev.ID, ErrHeld)
	}
	l.erasing[index] = ev.ID
	return mail.Event{Kind: mail.Erasure, Time: l.cfg.Clock.Now(), Note: erasureNote(index, why)},
		nil
}

// head is what the log itself reads of an event.
type head struct {
	Kind mail.EventKind `json:"kind"`
	ID   mail.ID        `json:"id"`
	Note string         `json:"note"`
}

func readHead(canonical []byte) (h head, err error) {
	err = json.Unmarshal(canonical, &h)
	return h, err
}

// ofMessage reports whether an event is one of a message's own: listed by Find, to be shown as
// evidence, and to be erased. What the log records about holding and erasing is not.
func ofMessage(kind mail.EventKind, id mail.ID) bool {
	return id != 0 && kind != LegalHold && kind != LegalHoldRelease && kind != mail.Erasure
}

func erasureNote(index uint64, why Reason) string {
	return fmt.Sprintf("index %d reason %s", index, why)
}

// parseErasure reads what erasureNote wrote.
func parseErasure(note string) (index uint64, why Reason, err error) {
	if _, err := fmt.Sscanf(note, "index %d reason %s", &index, &why); err == nil {
		if erasureNote(index, why) == note && why.check() == nil {
			return index, why, nil
		}
	}
	return 0, "", fmt.Errorf("note %q of an erasure is not its index and reason", note)
}

// Hold returns the event that puts a message under legal hold, once it is recorded. From the call
// on nothing of the message can be erased, even if the event is never recorded, until the log is
// opened anew. The note says what the hold is for, best as a reference to a file: it can not be
// erased.
func (l *Log) Hold(id mail.ID, note string) (mail.Event, error) {
	ev, err := l.holdEvent(LegalHold, id, note)
	if err != nil {
		return mail.Event{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[id] = true
	return ev, nil
}

// Release returns the event that ends a legal hold, once it is recorded.
func (l *Log) Release(id mail.ID, note string) (mail.Event, error) {
	if !l.Held(id) {
		return mail.Event{}, fmt.Errorf("message %v is not under legal hold", id)
	}
	return l.holdEvent(LegalHoldRelease, id, note)
}

func (l *Log) holdEvent(kind mail.EventKind, id mail.ID, note string) (mail.Event, error) {
	if strings.TrimSpace(note) == "" {
		return mail.Event{}, fmt.Errorf("%s of message %v needs a note", kind, id)
	}
	indexes, err := l.Find(id)
	if err != nil {
		return mail.Event{}, err
	}
	if len(indexes) == 0 {
		return mail.Event{}, fmt.Errorf("message %v: %w", id, ErrNotFound)
	}
	return mail.Event{Kind: kind, Time: l.cfg.Clock.Now(), ID: id, Note: note}, nil
}

// Held reports whether a message is under legal hold.
func (l *Log) Held(id mail.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held[id]
}

func (l *Log) readHolds() (map[mail.ID]bool, error) {
	held := make(map[mail.ID]bool)
	err := l.section.Scan([]byte{spaceHold}, nil, func(key, _ []byte) bool {
		if id, ok := keyNumber(key, 0); ok {
			held[mail.ID(id)] = true
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("read legal holds: %w", err)
	}
	return held, nil
}
