package blockstore

import "encoding/binary"

// table is the index of a cache: slots that are found by open addressing. It doubles when it fills, up to
// a bound: one that is larger than its coins need costs more to look into than to let grow. Where a key
// belongs follows from the hash that its slot holds, so slots are moved without looking at coins.
type table struct {
	region
	width uint // the number of slots is 2^width
	most  uint // greatest width
	used  int
}

// slot is the upper half of a key's hash and the position of its coin; 0 is free.
type slot uint64

func newSlot(hash uint32, r ref) slot { return slot(hash)<<32 | slot(r) }

func (s slot) ref() ref     { return ref(s) }
func (s slot) hash() uint32 { return uint32(s >> 32) }

const (
	slotSize   = 8
	leastWidth = 12
	mostWidth  = 31
)

// newTable returns an empty table that grows to no more than 2^most slots.
func newTable(most uint) table {
	most = min(max(most, 8), mostWidth)
	width := min(most, leastWidth)
	return table{region: newRegion(slotSize << width), width: width, most: most}
}

// bound lets the table grow to another number of slots. It never shrinks.
func (t *table) bound(most uint) { t.most = max(t.width, min(most, mostWidth)) }

// len returns the number of slots.
func (t *table) len() int { return 1 << t.width }

func (t *table) at(i int) slot { return slot(binary.NativeEndian.Uint64(t.b[i*slotSize:])) }

func (t *table) set(i int, s slot) { binary.NativeEndian.PutUint64(t.b[i*slotSize:], uint64(s)) }

// after returns the slot that is searched after another.
func (t *table) after(i int) int { return (i + 1) & (t.len() - 1) }

// home returns where a key belongs. The last three bits of its hash choose among eight slots, which one
// line of the processor's cache holds, the first ones among these lines: see cache.hash.
func (t *table) home(hash uint32) int { return int(hash>>(32-t.width))&^7 | int(hash&7) }

// enter puts an entry into a slot that was found free for it, and lets the table grow.
func (t *table) enter(at int, s slot) {
	t.set(at, s)
	t.used++
	if t.used > t.len()/4*3 && t.width < t.most {
		t.grow()
	}
}

// grow doubles the table. Entries keep their order, so that old and new memory are gone through once.
func (t *table) grow() {
	old := *t
	t.width++
	t.region = newRegion(slotSize << t.width)
	for i := range old.len() {
		if s := old.at(i); s != 0 {
			t.insert(s)
		}
	}
	old.free()
}

// insert puts an entry into the first free slot from its home on.
func (t *table) insert(s slot) {
	at := t.home(s.hash())
	for t.at(at) != 0 {
		at = t.after(at)
	}
	t.set(at, s)
}

// remove empties a slot, and moves entries after it up that would else not be found.
func (t *table) remove(at int) {
	t.used--
	mask := t.len() - 1
	for next := t.after(at); t.at(next) != 0; next = t.after(next) {
		// An entry may move to the gap if that is not before its home.
		home := t.home(t.at(next).hash())
		if (next-home)&mask >= (next-at)&mask {
			t.set(at, t.at(next))
			at = next
		}
	}
	t.set(at, 0)
}

// crowded reports whether the table is so full that finding takes long, and does not grow.
func (t *table) crowded() bool { return t.used > t.len()/8*7 }

// refill makes the table hold these entries and no others.
func (t *table) refill(entries []slot) {
	clear(t.b)
	t.used = len(entries)
	for _, s := range entries {
		t.insert(s)
	}
}
