package addrbook

import (
	"slices"
	"time"
)

// ResolveCollisions decides for the addresses that wait for a place in tried whether its holder goes.
func (b *Book) ResolveCollisions(now time.Time) {
	defer b.begin()()
	for _, id := range sortedKeys(b.collisions) {
		if b.resolve(id, now) {
			delete(b.collisions, id)
		}
	}
}

func (b *Book) resolve(id int64, now time.Time) (done bool) {
	e := b.entries[id]
	if e == nil || !e.Valid() {
		return true
	}
	bucket := b.triedBucket(e)
	holder := b.tried[bucket][b.position(e, false, bucket)]
	if holder == -1 {
		b.good(e.AddrPort, false, now)
		return true
	}
	old := b.entries[holder]
	switch {
	case now.Sub(old.LastSuccess) < replacement:
		return true
	case now.Sub(old.LastTry) < replacement:
		if now.Sub(old.LastTry) <= time.Minute { // time to connect
			return false
		}
	case now.Sub(e.LastSuccess) <= testWindow:
		return false
	}
	b.good(e.AddrPort, false, now)
	return true
}

// TriedCollision returns an address in tried whose place another wants: a feeler should test it.
func (b *Book) TriedCollision() (Entry, bool) {
	defer b.begin()()
	if len(b.collisions) == 0 {
		return Entry{}, false
	}
	ids := sortedKeys(b.collisions)
	id := ids[b.rng.IntN(len(ids))]
	e := b.entries[id]
	if e == nil {
		delete(b.collisions, id)
		return Entry{}, false
	}
	bucket := b.triedBucket(e)
	holder := b.tried[bucket][b.position(e, false, bucket)]
	if holder == -1 {
		return Entry{}, false
	}
	return *b.entries[holder], true
}

func sortedKeys(m map[int64]bool) []int64 {
	ids := make([]int64, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
