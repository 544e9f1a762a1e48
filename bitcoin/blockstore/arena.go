package blockstore

import "encoding/binary"

// arena hands out pieces of memory, by position instead of pointer: the collector has nothing to
// follow, and a position takes four octets. Pieces that are given back are used again for others of
// the same size.
type arena struct {
	regions []region
	pages   [][]byte // all of the regions
	free    []byte   // what is left of the last region
	next    uint32   // first free octet of the last page, in units
	heads   [classes]ref
	bytes   int64 // in pieces that are in use
}

// ref is the position of a piece, in units of eight octets; 0 is none.
type ref uint32

const (
	unit      = 8
	pageBytes = 1 << 20
	pageUnits = pageBytes / unit

	// regionBytes is what is asked of the system at once.
	regionBytes = 4 * hugePage

	// Pieces are of one of so many sizes: in steps of 8 octets up to 256, of 64 up to 1,024, and of
	// 1,024 up to what the longest script needs.
	classes = 32 + 12 + 10
)

// class returns the size class of a piece for n octets, and what pieces of it take.
func class(n int) (c, size int) {
	switch {
	case n <= 256:
		c = (n + 7) / 8
		return c - 1, 8 * c
	case n <= 1024:
		c = (n - 256 + 63) / 64
		return 31 + c, 256 + 64*c
	}
	c = (n - 1024 + 1023) / 1024
	return 43 + c, 1024 + 1024*c
}

// alloc returns a piece for n octets; what is in it is left over from earlier uses.
func (a *arena) alloc(n int) ref {
	c, size := class(n)
	a.bytes += int64(size)
	if r := a.heads[c]; r != 0 {
		a.heads[c] = ref(binary.NativeEndian.Uint32(a.at(r)))
		return r
	}
	if len(a.pages) == 0 || int(a.next)+size/unit > pageUnits {
		a.pages = append(a.pages, a.page())
		a.next = 0
		if len(a.pages) == 1 {
			a.next = 1 // position 0 is none
		}
	}
	r := ref(uint32(len(a.pages)-1)*pageUnits + a.next)
	a.next += uint32(size / unit)
	return r
}

// page returns memory for one more page.
func (a *arena) page() []byte {
	if len(a.free) == 0 {
		a.regions = append(a.regions, newRegion(regionBytes))
		a.free = a.regions[len(a.regions)-1].b
	}
	p := a.free[:pageBytes:pageBytes]
	a.free = a.free[pageBytes:]
	return p
}

// release gives back a piece that was allocated for n octets.
func (a *arena) release(r ref, n int) {
	c, size := class(n)
	a.bytes -= int64(size)
	binary.NativeEndian.PutUint32(a.at(r), uint32(a.heads[c]))
	a.heads[c] = r
}

// at returns the memory from a position to the end of its page.
func (a *arena) at(r ref) []byte {
	return a.pages[r/pageUnits][r%pageUnits*unit:]
}

// reset gives everything back.
func (a *arena) reset() {
	for i := range a.regions {
		a.regions[i].free()
	}
	*a = arena{}
}
