package queue

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tallypost/tallypost/mail"
)

// Check wants everything in a store to agree: each message has a head and its states, the due index
// says what the states say and no more, each live message has its body and no other body is there,
// whoever is in the address and Message-ID indexes is in the history, and the other way round.
// logged returns the kind and the message of the log entry of an index.
func Check(store Store, logged func(index uint64) (mail.EventKind, mail.ID, error)) error {
	c := checker{
		store: store, logged: logged,
		live: make(map[mail.ID][][]byte), heads: make(map[mail.ID]*head), want: make(map[string]bool),
	}
	var errs []error
	for _, step := range []func() error{c.history, c.states, c.indexes, c.bodies} {
		errs = append(errs, step())
	}
	return errors.Join(errs...)
}

type checker struct {
	store  Store
	logged func(uint64) (mail.EventKind, mail.ID, error)
	live   map[mail.ID][][]byte
	heads  map[mail.ID]*head
	want   map[string]bool // keys without values that there have to be
	errs   []error
}

func (c *checker) errorf(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

func (c *checker) done(err error) error {
	errs := append(c.errs, err)
	c.errs = nil
	return errors.Join(errs...)
}

func (c *checker) space(space byte, f func(key, value []byte)) error {
	return c.store.Scan([]byte{space}, []byte{space + 1}, func(key, value []byte) bool {
		f(bytes.Clone(key), bytes.Clone(value))
		return true
	})
}

// history wants each final outcome to be in the log, as what it was.
func (c *checker) history() error {
	return c.done(c.space(spaceHistory, func(key, value []byte) {
		id := keyID(key)
		h := c.heads[id]
		if h == nil {
			h, err := decodeHead(id, value)
			if err != nil {
				c.errorf("%v: %w", id, err)
				return
			}
			c.heads[id] = h
			c.inLog(h.index, h.event.Kind, id)
			c.want[string(hashIDKey(spaceMessageID, h.event.MessageID, id))] = true
			m := message{head: h}
			for _, a := range m.addresses() {
				c.want[string(addressKey(a, id))] = true
			}
			return
		}
		e, err := decodeHistory(value)
		if err != nil {
			c.errorf("history of %v: %w", id, err)
			return
		}
		for k := range e.indexes {
			c.inLog(e.indexes[k], outcomeKind(e.result.Outcome, e.route), id)
		}
		if (e.result.Outcome != Deferred) != (len(e.indexes) > 0) {
			c.errorf("%v: outcome %v with %d log entries", id, e.result.Outcome, len(e.indexes))
		}
	}))
}

func (c *checker) inLog(index uint64, kind mail.EventKind, id mail.ID) {
	k, i, err := c.logged(index)
	if err != nil || k != kind || i != id {
		c.errorf("%v: entry %d of the log is %v of %v (%v), want %v", id, index, k, i, err, kind)
	}
}

func (c *checker) states() error {
	err := c.space(spaceStates, func(key, value []byte) {
		c.live[keyID(key)] = append(c.live[keyID(key)], value)
	})
	for id, pages := range c.live {
		h := c.heads[id]
		if h == nil {
			c.errorf("%v has states and no head", id)
			continue
		}
		m, err := decodeMessage(id, h.append(nil), pages)
		if err != nil {
			c.errorf("%w", err)
			continue
		}
		if m.done() {
			c.errorf("%v is done and still there", id)
		}
		for _, e := range m.entries(nil) {
			c.want[string(e.key(id))] = true
		}
	}
	return c.done(err)
}

// indexes compares the keys without values with those that there have to be.
func (c *checker) indexes() error {
	var errs []error
	for _, space := range []byte{spaceDue, spaceMessageID, spaceAddress} {
		errs = append(errs, c.space(space, func(key, _ []byte) {
			if !c.want[string(key)] {
				c.errorf("key %q leads nowhere", key)
			}
			delete(c.want, string(key))
		}))
	}
	for key := range c.want {
		c.errorf("key %q is missing", key)
	}
	return c.done(errors.Join(errs...))
}

func (c *checker) bodies() error {
	for id := range c.live {
		r, err := c.store.OpenBody(id)
		if err != nil {
			c.errorf("%v: %w", id, err)
			continue
		}
		text := make([]byte, r.Size())
		if _, err := r.ReadAt(text, 0); err != nil || int64(len(text)) != c.heads[id].size {
			c.errorf("body of %v: %d octets of %d, %v", id, len(text), c.heads[id].size, err)
		}
		r.Close()
	}
	return c.done(c.space(spaceBody, func(key, _ []byte) {
		if id := keyID(key); c.live[id] == nil {
			c.errorf("body of %v belongs to nothing", id)
		}
	}))
}

// SetVersion makes the store seem to be written by another version.
func (s *Disk) SetVersion(v byte) {
	batch := s.index.NewBatch()
	batch.Set(keyDiskVersion, []byte{v}, nil)
	if err := s.index.Apply(batch, pebble.NoSync); err != nil {
		panic(err)
	}
}
