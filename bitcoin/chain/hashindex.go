package chain

import (
	"hash/maphash"

	"github.com/tallypost/tallypost/bitcoin"
)

// hashIndex finds the node of a block hash. It keeps four octets a slot, the hashes being in the
// tree; the seed keeps whoever can make blocks cheaply from making them meet.
type hashIndex struct {
	slots []node // node + 1; 0 is free
	used  int
	seed  maphash.Seed
}

// minSlots is the size of an index for the first headers; it is a power of two, as all sizes are.
const minSlots = 1 << 10

// find returns the node of a hash, or none.
func (x *hashIndex) find(t *tree, hash *bitcoin.Hash) node {
	if len(x.slots) == 0 {
		return none
	}
	_, n := x.seek(t, hash)
	return n
}

// add enters a node whose hash is not in the index.
func (x *hashIndex) add(t *tree, n node) {
	if 4*x.used >= 3*len(x.slots) {
		x.grow(t)
	}
	slot, _ := x.seek(t, &t.at(n).hash)
	x.slots[slot] = n + 1
	x.used++
}

// seek returns the slot and the node of a hash, or the slot that is free for it and none.
func (x *hashIndex) seek(t *tree, hash *bitcoin.Hash) (slot uint64, n node) {
	mask := uint64(len(x.slots) - 1)
	for slot = maphash.Bytes(x.seed, hash[:]) & mask; x.slots[slot] != 0; slot = (slot + 1) & mask {
		if n := x.slots[slot] - 1; t.at(n).hash == *hash {
			return slot, n
		}
	}
	return slot, none
}

func (x *hashIndex) grow(t *tree) {
	if len(x.slots) == 0 {
		x.seed = maphash.MakeSeed()
	}
	old := x.slots
	x.slots = make([]node, max(minSlots, 2*len(old)))
	for _, n := range old {
		if n != 0 {
			slot, _ := x.seek(t, &t.at(n-1).hash)
			x.slots[slot] = n
		}
	}
}
