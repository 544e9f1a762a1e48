package index

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// The parameters of basic filters (BIP 158).
const (
	filterP = 19      // bits of a remainder
	filterM = 784_931 // the inverse of the rate of false matches
)

// errFilter is the error of a filter that is cut off or has more than it says.
var errFilter = errors.New("block filter is not well-formed")

// maxFilterElements bounds what a filter may claim to have: no block has more outputs and inputs.
const maxFilterElements = 4_000_000

// Elements returns what a basic filter of a block holds: the scripts of its outputs, but for empty ones and
// those that begin with OP_RETURN, and the scripts that it spends, but for empty ones.
func Elements(b *bitcoin.Block, spent consensus.Spent) [][]byte {
	var out [][]byte
	for i := range b.Txs {
		for j := range b.Txs[i].Out {
			s := b.Txs[i].Out[j].Script
			if len(s) > 0 && s[0] != byte(script.OpReturn) {
				out = append(out, s)
			}
		}
	}
	for i := range spent.Outs {
		if s := spent.Outs[i].Script; len(s) > 0 {
			out = append(out, s)
		}
	}
	return out
}

func filterKey(block bitcoin.Hash) (k0, k1 uint64) {
	return binary.LittleEndian.Uint64(block[:8]), binary.LittleEndian.Uint64(block[8:16])
}

// hashed returns where in a filter of n elements others would stand, in order and each once.
func hashed(block bitcoin.Hash, elements [][]byte, n uint64) []uint64 {
	k0, k1 := filterKey(block)
	values := make([]uint64, len(elements))
	for i, e := range elements {
		values[i], _ = bits.Mul64(bitcoin.SipHash(k0, k1, e), n*filterM)
	}
	slices.Sort(values)
	return slices.Compact(values)
}

// distinct returns the number of different elements, which it sorts.
func distinct(elements [][]byte) [][]byte {
	slices.SortFunc(elements, slices.Compare[[]byte])
	return slices.CompactFunc(elements, slices.Equal[[]byte])
}

// EncodeFilter makes the Golomb-coded set of elements (BIP 158), whose slice it uses up: their number, and the
// differences of their hashes, the quotient in unary, the remainder in filterP bits.
func EncodeFilter(block bitcoin.Hash, elements [][]byte) []byte {
	elements = distinct(elements)
	n := uint64(len(elements))
	out := bitcoin.AppendCompactSize(nil, n)
	if n == 0 {
		return out
	}
	k0, k1 := filterKey(block)
	values := make([]uint64, n)
	for i, e := range elements {
		values[i], _ = bits.Mul64(bitcoin.SipHash(k0, k1, e), n*filterM)
	}
	slices.Sort(values)
	w := bitWriter{out: out}
	last := uint64(0)
	for _, v := range values {
		d := v - last
		last = v
		for range d >> filterP {
			w.write(1, 1)
		}
		w.write(0, 1)
		w.write(d, filterP)
	}
	return w.flush()
}

// bitWriter writes numbers, their highest bit first.
type bitWriter struct {
	out  []byte
	part byte
	used int // bits of part
}

func (w *bitWriter) write(v uint64, n int) {
	for n > 0 {
		take := min(8-w.used, n)
		chunk := byte(v >> (n - take) & (1<<take - 1))
		w.part |= chunk << (8 - w.used - take)
		w.used += take
		n -= take
		if w.used == 8 {
			w.out = append(w.out, w.part)
			w.part, w.used = 0, 0
		}
	}
}

func (w *bitWriter) flush() []byte {
	if w.used > 0 {
		w.out = append(w.out, w.part)
	}
	return w.out
}

// MatchFilter reports whether any of the elements may be in a filter. An error says that it is no filter.
func MatchFilter(filter []byte, block bitcoin.Hash, elements [][]byte) (bool, error) {
	n, size, err := bitcoin.ReadCompactSize(filter)
	if err != nil || n > maxFilterElements {
		return false, errFilter
	}
	r := bitReader{in: filter[size:]}
	wanted := hashed(block, elements, n)
	value := uint64(0)
	for range n {
		d, ok := r.golomb()
		if !ok {
			return false, errFilter
		}
		value += d
		for len(wanted) > 0 && wanted[0] < value {
			wanted = wanted[1:]
		}
		if len(wanted) == 0 {
			return false, nil
		}
		if wanted[0] == value {
			return true, nil
		}
	}
	return false, nil
}

// CheckFilter reads a filter to its end.
func CheckFilter(filter []byte) (elements int, err error) {
	n, size, err := bitcoin.ReadCompactSize(filter)
	if err != nil || n > maxFilterElements {
		return 0, errFilter
	}
	r := bitReader{in: filter[size:]}
	for range n {
		if _, ok := r.golomb(); !ok {
			return 0, errFilter
		}
	}
	if len(r.in)*8-r.at >= 8 {
		return 0, errFilter
	}
	return int(n), nil
}

// bitReader reads what a bitWriter wrote.
type bitReader struct {
	in []byte
	at int // bits
}

func (r *bitReader) bit() (uint64, bool) {
	if r.at>>3 >= len(r.in) {
		return 0, false
	}
	v := r.in[r.at>>3] >> (7 - r.at&7) & 1
	r.at++
	return uint64(v), true
}

func (r *bitReader) golomb() (uint64, bool) {
	quotient := uint64(0)
	for {
		b, ok := r.bit()
		if !ok {
			return 0, false
		}
		if b == 0 {
			break
		}
		quotient++
	}
	if r.at+filterP > len(r.in)*8 {
		return 0, false
	}
	v := quotient
	for range filterP {
		b, _ := r.bit()
		v = v<<1 | b
	}
	return v, true
}

// FilterHash is the hash of a filter; FilterHeader commits to it and, by the header before, to all filters
// up to it (BIP 157).
func FilterHash(filter []byte) bitcoin.Hash { return bitcoin.DoubleHash(filter) }

// FilterHeader returns the header of a filter.
func FilterHeader(filter, prev bitcoin.Hash) bitcoin.Hash {
	return bitcoin.DoubleHash(append(filter[:], prev[:]...))
}
