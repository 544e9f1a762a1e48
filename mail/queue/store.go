package queue

import (
	"errors"
	"io"

	"github.com/tallypost/tallypost/mail"
)

// Errors that callers branch on.
var (
	// ErrFull: there is no room on the disk for a further message; later there may be (452 4.3.1).
	ErrFull = errors.New("no room in the queue")
	// ErrStopped: the queue does not run, or no longer (421 4.3.2).
	ErrStopped = errors.New("queue is stopped")
	// ErrBroken: the store failed; nothing is accepted until the server was restarted (421 4.3.0).
	ErrBroken = errors.New("queue store failed")
	// ErrNotFound: no such key, message or body.
	ErrNotFound = errors.New("not found")
)

// Store keeps the bodies of messages and a sorted map of keys: the queue's states and, apart from
// them, the Journal's section.
//
// Commit is called by one goroutine at a time; the other methods by any.
type Store interface {
	// NewBody begins a body. What is written to it may lie in memory or on disk, but is promised
	// only by the Commit that names it. It returns ErrFull where a body would not fit.
	NewBody(id mail.ID) (Body, error)
	// Commit makes a group durable, whole or not at all, and returns when it is on stable storage
	// and visible to the methods below. It returns ErrFull where there was no room: then nothing
	// has changed and the same group may be tried again. After any other error nothing is known,
	// and the store refuses all further work.
	Commit(g *Group) error
	// OpenBody returns a committed body, its prefix in front; ErrNotFound where there is none. It
	// stays readable until it is closed, whatever is committed meanwhile.
	OpenBody(id mail.ID) (BodyReader, error)
	// Get returns a copy of the value of a key; ErrNotFound where there is none.
	Get(key []byte) ([]byte, error)
	// Scan calls fn with the keys in [from, to) in order, until fn returns false. Both slices are
	// valid during the call only. Whether it sees a Commit that happens meanwhile is open.
	Scan(from, to []byte, fn func(key, value []byte) bool) error
	// Close gives up everything that was not committed.
	Close() error
}

// Body is a message on its way into the store. One goroutine uses it at a time.
type Body interface {
	// Write takes octets and stores them as one piece, or some large ones: many small writes are
	// dear. It returns ErrFull where they do not fit; the body can then only be aborted.
	io.Writer
	// Seal ends the body and puts prefix in front of all that was written.
	Seal(prefix []byte) error
	// Abort gives the body up. It does nothing after the Commit that named it.
	Abort()
}

// BodyReader reads a committed body.
type BodyReader interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Group is what one Commit makes durable together.
type Group struct {
	Writes []Write // in order: of two of one key the later counts
	Bodies []Body  // new bodies of this store, sealed
	// Drop is bodies of earlier groups that are no longer wanted; one that is not there is no error.
	Drop []mail.ID
}

// Section is the Journal's part of a Store, as of the last Commit.
type Section interface {
	// Get returns a copy of the value of a key; ErrNotFound where there is none.
	Get(key []byte) ([]byte, error)
	// Scan calls fn with the keys that begin with prefix, from the key from (or the first, if nil)
	// on in order, until fn returns false. Both slices are valid during the call only.
	Scan(prefix, from []byte, fn func(key, value []byte) bool) error
}

// JournalSection returns the Journal's section of a store. Its keys can not collide with the
// queue's.
func JournalSection(store Store) Section { return section{store} }

type section struct{ store Store }

func (s section) Get(key []byte) ([]byte, error) { return s.store.Get(journalKey(key)) }

func (s section) Scan(prefix, from []byte, fn func(key, value []byte) bool) error {
	lo := journalKey(prefix)
	hi := prefixEnd(lo)
	if from := journalKey(from); string(from) > string(lo) {
		lo = from
	}
	return s.store.Scan(lo, hi, func(key, value []byte) bool { return fn(key[1:], value) })
}

func journalKey(key []byte) []byte {
	return append(append(make([]byte, 0, len(key)+1), spaceJournal), key...)
}

// prefixEnd returns the first key after all those that begin with prefix, which is not all 0xff.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
