package blockstore

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math/bits"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// cache holds coins, and what is to become of them in the database. It is a table of eight octets a
// slot, whose entries point to pieces of an arena; the whole outpoint is compared, and the hash is
// seeded, so that nobody can make coins that meet in it.
//
// An entry is one of:
//
//	clean         as the database has it
//	dirty         new or changed, and perhaps in the database
//	dirty, fresh  new, and certainly not in the database: if it is spent it is simply forgotten
//	spent, dirty  to be deleted from the database
//	spent         known not to be there
type cache struct {
	seed maphash.Seed
	table
	arena arena
	dirty int // entries that are dirty
}

// A coin in the arena: outpoint[36] code[4] value[8] flags[1] zero[1] length[2] script[length].
const (
	atIndex   = 32
	atCode    = 36
	atValue   = 40
	atFlags   = 48
	atLength  = 50
	atScript  = 52
	spentSize = atValue + 9 // what is kept of a coin that is spent
)

type flags uint8

const (
	dirty flags = 1 << iota
	fresh
	spent
)

// newCache returns a cache whose table has room for about what fits into the memory.
func newCache(budget int64) *cache {
	return &cache{seed: maphash.MakeSeed(), table: newTable(tableWidth(budget))}
}

// tableWidth returns the width of a table that the memory for coins is enough for.
func tableWidth(budget int64) uint {
	const typical = 88 // octets that most coins take, their slot apart
	return uint(bits.Len64(uint64(max(budget, 1<<16) / typical * 5 / 4)))
}

// bytes is the memory that the coins take, with a part of the table.
func (c *cache) bytes() int64 { return c.arena.bytes + 10*int64(c.used) }

// hash returns the hash of an outpoint. Eight outputs in a row of one transaction belong into slots
// that one line of the processor's cache holds: they are made together, and often spent so.
func (c *cache) hash(out *bitcoin.OutPoint) uint32 {
	const golden = 0x9e3779b97f4a7c15 // spreads the further outputs
	h := maphash.Bytes(c.seed, out.TxID[:]) + uint64(out.Index>>3)
	return uint32(h*golden>>32) ^ out.Index&7
}

// find returns the slot of an outpoint, or the one that is free for it and false.
func (c *cache) find(out *bitcoin.OutPoint, hash uint32) (at int, ok bool) {
	for at = c.home(hash); ; at = c.after(at) {
		s := c.table.at(at)
		if s == 0 {
			return at, false
		}
		if s.hash() == hash && c.isKey(s.ref(), out) {
			return at, true
		}
	}
}

func (c *cache) isKey(r ref, out *bitcoin.OutPoint) bool {
	p := c.arena.at(r)
	return binary.LittleEndian.Uint32(p[atIndex:]) == out.Index && bytes.Equal(p[:32], out.TxID[:])
}

// lookup returns a coin's place in memory, or nil.
func (c *cache) lookup(out *bitcoin.OutPoint) []byte {
	at, ok := c.find(out, c.hash(out))
	if !ok {
		return nil
	}
	return c.arena.at(c.table.at(at).ref())
}

// coinSize is the size of a coin's piece.
func coinSize(p []byte) int {
	if flags(p[atFlags])&spent != 0 {
		return spentSize
	}
	return atScript + int(binary.LittleEndian.Uint16(p[atLength:]))
}

// coinAt returns a coin whose script is in the arena.
func coinAt(p []byte) consensus.Coin {
	if flags(p[atFlags])&spent != 0 {
		return consensus.Coin{}
	}
	n := int(binary.LittleEndian.Uint16(p[atLength:]))
	return consensus.Coin{
		Out: bitcoin.TxOut{
			Value:  bitcoin.Amount(binary.LittleEndian.Uint64(p[atValue:])),
			Script: p[atScript : atScript+n : atScript+n],
		},
		Origin: codeOrigin(uint64(binary.LittleEndian.Uint32(p[atCode:]))),
	}
}

// put writes a coin into a new piece.
func (c *cache) put(out *bitcoin.OutPoint, coin *consensus.Coin, f flags) ref {
	n := len(coin.Out.Script)
	size := atScript + n
	if f&spent != 0 {
		size = spentSize
	}
	r := c.arena.alloc(size)
	p := c.arena.at(r)
	copy(p, out.TxID[:])
	binary.LittleEndian.PutUint32(p[atIndex:], out.Index)
	binary.LittleEndian.PutUint32(p[atCode:], uint32(originCode(coin.Origin)))
	p[atFlags] = byte(f)
	if f&spent == 0 {
		binary.LittleEndian.PutUint64(p[atValue:], uint64(coin.Out.Value))
		binary.LittleEndian.PutUint16(p[atLength:], uint16(n))
		copy(p[atScript:size], coin.Out.Script)
	}
	if f&dirty != 0 {
		c.dirty++
	}
	return r
}

// drop gives back a coin's piece.
func (c *cache) drop(r ref) {
	p := c.arena.at(r)
	if flags(p[atFlags])&dirty != 0 {
		c.dirty--
	}
	c.arena.release(r, coinSize(p))
}

// fill enters what the database has; a coin that is there already, perhaps changed, stays.
func (c *cache) fill(out *bitcoin.OutPoint, coin *consensus.Coin) {
	hash := c.hash(out)
	at, ok := c.find(out, hash)
	if ok {
		return
	}
	var f flags
	if coin.IsSpent() {
		f = spent
	}
	c.enter(at, newSlot(hash, c.put(out, coin, f)))
}

// add enters a new coin. overwrite says that there may be one with this outpoint in the database.
func (c *cache) add(out *bitcoin.OutPoint, coin *consensus.Coin, overwrite bool) {
	hash := c.hash(out)
	at, ok := c.find(out, hash)
	f := dirty
	if !ok {
		if !overwrite {
			f |= fresh
		}
		c.enter(at, newSlot(hash, c.put(out, coin, f)))
		return
	}
	old := c.table.at(at).ref()
	switch was := flags(c.arena.at(old)[atFlags]); {
	case was&fresh != 0, was == spent: // the database has none
		f |= fresh
	}
	c.drop(old)
	c.table.set(at, newSlot(hash, c.put(out, coin, f)))
}

// spend takes a coin away. One that is not in the cache is deleted from the database.
func (c *cache) spend(out *bitcoin.OutPoint) {
	hash := c.hash(out)
	at, ok := c.find(out, hash)
	if !ok {
		c.enter(at, newSlot(hash, c.put(out, &consensus.Coin{}, spent|dirty)))
		return
	}
	old := c.table.at(at).ref()
	if flags(c.arena.at(old)[atFlags])&fresh != 0 {
		c.drop(old)
		c.remove(at)
		return
	}
	c.drop(old)
	c.table.set(at, newSlot(hash, c.put(out, &consensus.Coin{}, spent|dirty)))
}

// dirtyRefs returns where all coins are that the database does not have as they are, sorted by the
// first octet of the transaction, and where those of each octet begin.
func (c *cache) dirtyRefs() (refs []ref, begin [257]int) {
	for i := range c.len() {
		if s := c.table.at(i); s != 0 && c.isDirty(s.ref()) {
			begin[int(c.arena.at(s.ref())[0])+1]++
		}
	}
	for i := range 256 {
		begin[i+1] += begin[i]
	}
	refs = make([]ref, begin[256])
	next := begin
	for i := range c.len() {
		if s := c.table.at(i); s != 0 && c.isDirty(s.ref()) {
			first := c.arena.at(s.ref())[0]
			refs[next[first]] = s.ref()
			next[first]++
		}
	}
	return refs, begin
}

func (c *cache) isDirty(r ref) bool { return flags(c.arena.at(r)[atFlags])&dirty != 0 }

// settle makes everything clean, after it was written.
func (c *cache) settle(refs []ref) {
	for _, r := range refs {
		p := c.arena.at(r)
		p[atFlags] &^= byte(dirty | fresh)
	}
	c.dirty = 0
}

// sweep forgets what is of no use once everything is clean: coins that are spent, and the oldest
// ones until the rest takes at most keep octets. Young coins are the most likely to be spent.
func (c *cache) sweep(keep int64) {
	oldest := c.cutoff(keep)
	kept := make([]slot, 0, c.used)
	for i := range c.len() {
		s := c.table.at(i)
		if s == 0 {
			continue
		}
		p := c.arena.at(s.ref())
		if f := flags(p[atFlags]); f&spent != 0 || height(p) < oldest {
			c.drop(s.ref())
			continue
		}
		kept = append(kept, s)
	}
	c.refill(kept)
}

func height(p []byte) uint32 { return binary.LittleEndian.Uint32(p[atCode:]) >> 1 }

// cutoff returns the height from which on coins take at most keep octets together.
func (c *cache) cutoff(keep int64) uint32 {
	const step = 1 << 7 // blocks
	var sizes []int64   // by height / step
	for i := range c.len() {
		s := c.table.at(i)
		if s == 0 {
			continue
		}
		p := c.arena.at(s.ref())
		if flags(p[atFlags])&spent != 0 {
			continue
		}
		at := int(height(p) / step)
		for len(sizes) <= at {
			sizes = append(sizes, 0)
		}
		_, size := class(coinSize(p))
		sizes[at] += int64(size) + 10
	}
	var sum int64
	for at := len(sizes) - 1; at >= 0; at-- {
		if sum += sizes[at]; sum > keep {
			return uint32(at+1) * step
		}
	}
	return 0
}

// reset forgets everything.
func (c *cache) reset() {
	c.refill(nil)
	c.dirty = 0
	c.arena.reset()
}

// free gives the memory back; the cache cannot be used any more.
func (c *cache) free() {
	c.table.free()
	c.arena.reset()
}
