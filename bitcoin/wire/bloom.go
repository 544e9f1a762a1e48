package wire

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/tallypost/tallypost/bitcoin"
)

// BloomUpdate says what a filter learns from a transaction that it matches (BIP 37, "Filter
// matching algorithm").
type BloomUpdate uint8

// The ways to learn.
const (
	BloomUpdateNone   BloomUpdate = 0
	BloomUpdateAll    BloomUpdate = 1 // the outpoint of every output that matches
	BloomUpdatePubKey BloomUpdate = 2 // only of outputs to bare keys and bare multisig
	bloomUpdateMask   BloomUpdate = 3
)

// Bloom is a filter by which a light client says which transactions it wants, without saying
// exactly.
type Bloom struct {
	Bits   []byte
	Hashes uint32 // hash functions
	Tweak  uint32
	Flags  BloomUpdate
}

// NewBloom returns an empty filter for so many elements that matches what is not in it at this
// rate.
func NewBloom(elements int, falsePositives float64, tweak uint32, flags BloomUpdate) *Bloom {
	size := -float64(elements) * math.Log(falsePositives) / (math.Ln2 * math.Ln2)
	n := int(min(size, MaxBloom*8)) / 8
	hashes := min(uint32(float64(n*8)/float64(elements)*math.Ln2), MaxBloomHashes)
	return &Bloom{Bits: make([]byte, n), Hashes: hashes, Tweak: tweak, Flags: flags}
}

// place returns the bit that a hash function gives an element.
func (f *Bloom) place(function uint32, element []byte) (octet int, bit byte) {
	h := murmur3(function*0xfba4c795+f.Tweak, element) % uint32(len(f.Bits)*8)
	return int(h >> 3), 1 << (h & 7)
}

// Add puts an element into the filter.
func (f *Bloom) Add(element []byte) {
	if len(f.Bits) == 0 { // CVE-2013-5700: a division by zero
		return
	}
	for i := range f.Hashes {
		octet, bit := f.place(i, element)
		f.Bits[octet] |= bit
	}
}

// Has reports whether the element is in the filter, or seems to be. A filter without bits has
// everything.
func (f *Bloom) Has(element []byte) bool {
	for i := range f.Hashes {
		if len(f.Bits) == 0 {
			break
		}
		if octet, bit := f.place(i, element); f.Bits[octet]&bit == 0 {
			return false
		}
	}
	return true
}

// Match reports whether the transaction is one that the filter wants, and lets the filter learn
// from it (Core common/bloom.cpp, IsRelevantAndUpdate).
func (f *Bloom) Match(tx *bitcoin.Tx) bool {
	if len(f.Bits) == 0 {
		return true
	}
	txid := tx.TxID()
	found := f.Has(txid[:])
	for i := range tx.Out {
		if !f.hasPush(tx.Out[i].Script) {
			continue
		}
		found = true
		update := f.Flags & bloomUpdateMask
		if update == BloomUpdateAll || update == BloomUpdatePubKey && isBareKeys(tx.Out[i].Script) {
			f.Add(bitcoin.OutPoint{TxID: txid, Index: uint32(i)}.Append(nil))
		}
	}
	if found {
		return true
	}
	for i := range tx.In {
		if f.Has(tx.In[i].PrevOut.Append(nil)) || f.hasPush(tx.In[i].Script) {
			return true
		}
	}
	return false
}

// hasPush reports whether anything that the script pushes is in the filter.
func (f *Bloom) hasPush(script []byte) bool {
	for len(script) > 0 {
		var data []byte
		var ok bool
		if _, data, script, ok = nextOp(script); !ok {
			return false
		}
		if len(data) > 0 && f.Has(data) {
			return true
		}
	}
	return false
}

// nextOp splits the first operation off a script; ok is false where its data are cut short.
func nextOp(script []byte) (op byte, data, rest []byte, ok bool) {
	op, rest = script[0], script[1:]
	size := 0
	switch {
	case op < 0x4c:
		size = int(op)
	case op <= 0x4e: // OP_PUSHDATA1, 2, 4: as many octets of length
		width := 1 << (op - 0x4c)
		if len(rest) < width {
			return op, nil, nil, false
		}
		var length [4]byte
		copy(length[:], rest[:width])
		if n := binary.LittleEndian.Uint32(length[:]); uint64(n) <= uint64(len(rest)) {
			size = int(n)
		} else {
			return op, nil, nil, false
		}
		rest = rest[width:]
	}
	if len(rest) < size {
		return op, nil, nil, false
	}
	return op, rest[:size], rest[size:], true
}

// isBareKeys reports whether the output script is a bare key or a bare multisig, as Core's Solver
// classifies them.
func isBareKeys(script []byte) bool {
	if len(script) == 0 {
		return false
	}
	if last := script[len(script)-1]; last == 0xac { // OP_CHECKSIG
		return int(script[0]) == len(script)-2 && isKey(script[1:len(script)-1])
	} else if last != 0xae { // OP_CHECKMULTISIG
		return false
	}
	op, data, rest, ok := nextOp(script)
	need, isNumber := smallNumber(op, data)
	if !ok || !isNumber || need < 1 {
		return false
	}
	keys := 0
	for len(rest) > 0 {
		if op, data, rest, ok = nextOp(rest); !ok {
			return false
		}
		if !isKey(data) {
			break
		}
		keys++
	}
	count, isNumber := smallNumber(op, data)
	return isNumber && len(rest) == 1 && count == keys && need <= keys
}

// isKey reports whether the octets have the first octet and length of a public key.
func isKey(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	switch b[0] {
	case 2, 3:
		return len(b) == 33
	case 4, 6, 7:
		return len(b) == 65
	}
	return false
}

// smallNumber returns what OP_1 to OP_16, or a minimal push of 17 to 20, puts on the stack: counts
// of a multisig.
func smallNumber(op byte, data []byte) (n int, ok bool) {
	if op >= 0x51 && op <= 0x60 {
		return int(op-0x51) + 1, true
	}
	if op == 1 && len(data) == 1 && data[0] > 16 && data[0] <= 20 {
		return int(data[0]), true
	}
	return 0, false
}

// murmur3 is MurmurHash3 of 32 bits, x86 variant.
func murmur3(seed uint32, b []byte) uint32 {
	const c1, c2 = 0xcc9e2d51, 0x1b873593
	h := seed
	n := uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := binary.LittleEndian.Uint32(b) * c1
		h ^= bits.RotateLeft32(k, 15) * c2
		h = bits.RotateLeft32(h, 13)*5 + 0xe6546b64
	}
	var k uint32
	for i, c := range b {
		k |= uint32(c) << (8 * i)
	}
	h ^= bits.RotateLeft32(k*c1, 15) * c2
	h ^= n
	h ^= h >> 16
	h *= 0x85ebca6b
	h ^= h >> 13
	h *= 0xc2b2ae35
	return h ^ h>>16
}

// FilterLoad sets the filter of a connection (BIP 37).
type FilterLoad struct{ Bloom }

// Command returns "filterload".
func (*FilterLoad) Command() string { return "filterload" }

// Append appends the payload.
func (m *FilterLoad) Append(dst []byte) []byte {
	dst = appendVarBytes(dst, m.Bits)
	dst = binary.LittleEndian.AppendUint32(dst, m.Hashes)
	dst = binary.LittleEndian.AppendUint32(dst, m.Tweak)
	return append(dst, byte(m.Flags))
}

// parseFilterLoad copies the bits: a filter learns, and payloads do not change.
func parseFilterLoad(d *decoder) Message {
	m := &FilterLoad{Bloom{Bits: d.varBytes()}}
	m.Hashes, m.Tweak, m.Flags = d.uint32(), d.uint32(), BloomUpdate(d.uint8())
	if len(m.Bits) > MaxBloom || m.Hashes > MaxBloomHashes {
		d.fail(&ExcessError{"too-large bloom filter"})
		return m
	}
	m.Bits = append([]byte(nil), m.Bits...)
	return m
}

// FilterAdd adds an element to the filter of a connection.
type FilterAdd struct{ Element []byte }

// Command returns "filteradd".
func (*FilterAdd) Command() string { return "filteradd" }

// Append appends the payload.
func (m *FilterAdd) Append(dst []byte) []byte { return appendVarBytes(dst, m.Element) }

func parseFilterAdd(d *decoder) Message {
	m := &FilterAdd{d.varBytes()}
	if len(m.Element) > MaxFilterAdd {
		d.fail(&ExcessError{"bad filteradd message"})
	}
	return m
}

// FilterClear takes the filter of a connection away.
type FilterClear struct{}

// Command returns "filterclear".
func (*FilterClear) Command() string { return "filterclear" }

// Append appends nothing.
func (*FilterClear) Append(dst []byte) []byte { return dst }
