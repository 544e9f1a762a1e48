package addrbook

import "fmt"

// begin takes the book for one operation and returns what ends it. On some of them, as often as the
// configuration says, the book is checked before and after.
func (b *Book) begin() (end func()) {
	b.mu.Lock()
	if b.cfg.CheckEvery <= 0 {
		return b.mu.Unlock
	}
	b.mustBeSound()
	return func() {
		defer b.mu.Unlock()
		b.mustBeSound()
	}
}

func (b *Book) mustBeSound() {
	if b.cfg.CheckEvery > 1 && b.rng.IntN(b.cfg.CheckEvery) != 0 {
		return
	}
	size := fmt.Sprintf("CheckAddrman: new %d, tried %d, total %d", b.newCount, b.triedCount, len(b.random))
	b.debugf("%s started", size)
	if code := b.check(); code != 0 {
		// Our own tables contradict each other: whatever is read from them is wrong.
		panic(fmt.Sprintf("ADDRMAN CONSISTENCY CHECK FAILED!!! err=%d", code))
	}
	b.debugf("CheckAddrman: completed")
}

func (b *Book) debugf(format string, args ...any) {
	if b.cfg.Debugf != nil {
		b.cfg.Debugf(format, args...)
	}
}

// check returns 0, or the number that Core gives to what is wrong (addrman.cpp, CheckAddrman).
func (b *Book) check() int {
	if len(b.random) != b.triedCount+b.newCount {
		return -7
	}
	inNew, inTried := map[int64]int{}, map[int64]bool{}
	for id, e := range b.entries {
		if code := b.checkEntry(id, e); code != 0 {
			return code
		}
		if e.tried {
			inTried[id] = true
		} else {
			inNew[id] = e.refs
		}
	}
	switch {
	case len(inTried) != b.triedCount:
		return -9
	case len(inNew) != b.newCount:
		return -10
	}
	if code := b.checkPlaces(inNew, inTried); code != 0 {
		return code
	}
	switch {
	case len(inTried) > 0:
		return -13
	case len(inNew) > 0:
		return -15
	case b.key == [32]byte{}:
		return -16
	}
	return b.checkCounts()
}

func (b *Book) checkEntry(id int64, e *Entry) int {
	switch {
	case e.tried && e.LastSuccess.Unix() <= 0:
		return -1
	case e.tried && e.refs != 0:
		return -2
	case e.refs < 0 || e.refs > newBucketsPerAddr:
		return -3
	case !e.tried && e.refs == 0:
		return -4
	}
	if known, ok := b.byAddr[e.AddrPort]; !ok || known != id {
		return -5
	}
	if e.pos < 0 || e.pos >= len(b.random) || b.random[e.pos] != id {
		return -14
	}
	return 0
}

// checkPlaces strikes out what has its places.
func (b *Book) checkPlaces(inNew map[int64]int, inTried map[int64]bool) int {
	for bucket := range b.tried {
		for pos, id := range b.tried[bucket] {
			switch {
			case id == -1:
			case !inTried[id]:
				return -11
			case b.triedBucket(b.entries[id]) != bucket:
				return -17
			case b.position(b.entries[id], false, bucket) != pos:
				return -18
			default:
				delete(inTried, id)
			}
		}
	}
	for bucket := range b.newTable {
		for pos, id := range b.newTable[bucket] {
			if id == -1 {
				continue
			}
			if inNew[id] == 0 {
				return -12
			}
			if b.position(b.entries[id], true, bucket) != pos {
				return -19
			}
			if inNew[id]--; inNew[id] == 0 {
				delete(inNew, id)
			}
		}
	}
	return 0
}

func (b *Book) checkCounts() int {
	sums := map[byte]Counts{}
	for _, e := range b.entries {
		c := sums[byte(e.Net)]
		if e.tried {
			c.Tried++
		} else {
			c.New++
		}
		sums[byte(e.Net)] = c
	}
	for n, c := range b.counts {
		if sums[byte(n)] != *c {
			return -21
		}
		delete(sums, byte(n))
	}
	if len(sums) > 0 {
		return -20
	}
	return 0
}
