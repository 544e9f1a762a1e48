package queue

import (
	"bytes"
	"fmt"
	"sort"
	"sync"

	"github.com/tallypost/tallypost/mail"
)

// Memory is a Store that forgets everything with the process: for tests and the lab.
type Memory struct {
	mu     sync.RWMutex
	keys   []string // guarded by mu; sorted
	values map[string][]byte
	bodies map[mail.ID][]byte // guarded by mu; the slices never change
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{values: make(map[string][]byte), bodies: make(map[mail.ID][]byte)}
}

type memoryBody struct {
	bytes.Buffer
	id     mail.ID
	prefix []byte
}

func (b *memoryBody) Seal(prefix []byte) error {
	b.prefix = bytes.Clone(prefix)
	return nil
}

func (b *memoryBody) Abort() {}

// NewBody is as Store has it.
func (m *Memory) NewBody(id mail.ID) (Body, error) { return &memoryBody{id: id}, nil }

// Commit is as Store has it.
func (m *Memory) Commit(g *Group) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range g.Bodies {
		body, ok := b.(*memoryBody)
		if !ok {
			return fmt.Errorf("body of type %T is not of this store", b)
		}
		m.bodies[body.id] = append(body.prefix, body.Bytes()...)
	}
	for _, w := range g.Writes {
		m.write(string(w.Key), w.Value)
	}
	for _, id := range g.Drop {
		delete(m.bodies, id)
	}
	return nil
}

func (m *Memory) write(key string, value []byte) {
	_, have := m.values[key]
	i := sort.SearchStrings(m.keys, key)
	switch {
	case value == nil && have:
		m.keys = append(m.keys[:i], m.keys[i+1:]...)
		delete(m.values, key)
	case value != nil:
		if !have {
			m.keys = append(m.keys, "")
			copy(m.keys[i+1:], m.keys[i:])
			m.keys[i] = key
		}
		m.values[key] = bytes.Clone(value)
	}
}

// OpenBody is as Store has it.
func (m *Memory) OpenBody(id mail.ID) (BodyReader, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	body, ok := m.bodies[id]
	if !ok {
		return nil, fmt.Errorf("body of %v: %w", id, ErrNotFound)
	}
	return memoryReader{bytes.NewReader(body)}, nil
}

type memoryReader struct{ *bytes.Reader }

func (memoryReader) Close() error { return nil }

// Get is as Store has it.
func (m *Memory) Get(key []byte) ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	v, ok := m.values[string(key)]
	if !ok {
		return nil, ErrNotFound
	}
	return append([]byte{}, v...), nil
}

// Scan is as Store has it. It sees each key as it is when its turn comes.
func (m *Memory) Scan(from, to []byte, fn func(key, value []byte) bool) error {
	next := string(from)
	for {
		m.mu.RLock()
		i := sort.SearchStrings(m.keys, next)
		if i == len(m.keys) || to != nil && m.keys[i] >= string(to) {
			m.mu.RUnlock()
			return nil
		}
		key, value := m.keys[i], m.values[m.keys[i]]
		m.mu.RUnlock()
		if !fn([]byte(key), value) {
			return nil
		}
		next = key + "\x00"
	}
}

// Close is as Store has it. What was committed can still be read.
func (m *Memory) Close() error { return nil }
