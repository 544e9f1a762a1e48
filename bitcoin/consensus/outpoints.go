package consensus

import (
	"hash/maphash"
	"math/bits"

	"github.com/tallypost/tallypost/bitcoin"
)

// outpoints is a list of outpoints, no two alike, that finds the position of each. Beside the list
// it takes a tenth of the memory of a map, and it is seeded, so that nobody can make transactions
// which collide in it.
type outpoints struct {
	list  []bitcoin.OutPoint
	slots []uint32 // position + 1; 0 is free
	shift uint
	seed  maphash.Seed
}

// newOutpoints returns an empty list for at most n outpoints.
func newOutpoints(n int) *outpoints {
	width := uint(bits.Len(uint(2*n))) + 1 // between a quarter and half of the slots stay in use
	return &outpoints{
		list:  make([]bitcoin.OutPoint, 0, n),
		slots: make([]uint32, 1<<width),
		shift: 64 - width,
		seed:  maphash.MakeSeed(),
	}
}

// add appends an outpoint and returns its position; fresh is false where it is on the list already.
func (o *outpoints) add(out *bitcoin.OutPoint) (position int, fresh bool) {
	slot, position := o.seek(out)
	if position >= 0 {
		return position, false
	}
	o.list = append(o.list, *out)
	o.slots[slot] = uint32(len(o.list))
	return len(o.list) - 1, true
}

// find returns the position of an outpoint, or -1.
func (o *outpoints) find(out *bitcoin.OutPoint) int {
	_, position := o.seek(out)
	return position
}

// seek returns where the outpoint stands, or -1 and the slot that is free for it.
func (o *outpoints) seek(out *bitcoin.OutPoint) (slot uint64, position int) {
	const golden = 0x9e3779b97f4a7c15 // spreads the outputs of one transaction
	hash := maphash.Bytes(o.seed, out.TxID[:]) + uint64(out.Index)
	mask := uint64(len(o.slots) - 1)
	for slot = hash * golden >> o.shift; o.slots[slot] != 0; slot = (slot + 1) & mask {
		if at := int(o.slots[slot]) - 1; o.list[at] == *out {
			return slot, at
		}
	}
	return slot, -1
}
