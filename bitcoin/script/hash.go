package script

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"hash"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

// The tags of BIP 341 and BIP 342, each as the 64 octets that a tagged hash starts with.
var (
	tapLeafTag    = secp.Tag("TapLeaf")
	tapBranchTag  = secp.Tag("TapBranch")
	tapSigHashTag = secp.Tag("TapSighash")
)

// gatherSize is what a hasher puts together before it starts to stream. One pass over octets that
// lie together costs less than many small writes; most preimages end within.
const gatherSize = 4096

// hasher hashes what is appended to it with SHA-256. Its memory is used again after reset.
type hasher struct {
	buf       []byte
	stream    hash.Hash
	streaming bool
}

func (h *hasher) reset() {
	h.buf = h.buf[:0]
	h.streaming = false
}

// flush hands what was gathered to the stream.
func (h *hasher) flush() {
	if !h.streaming {
		if h.stream == nil {
			h.stream = sha256.New()
		}
		h.stream.Reset()
		h.streaming = true
	}
	h.stream.Write(h.buf)
	h.buf = h.buf[:0]
}

// room makes sure that a few fixed fields can be gathered without letting the buffer grow without
// bound.
func (h *hasher) room() {
	if len(h.buf) >= gatherSize {
		h.flush()
	}
}

func (h *hasher) bytes(b []byte) {
	if len(h.buf)+len(b) <= gatherSize {
		h.buf = append(h.buf, b...)
		return
	}
	h.flush()
	if len(b) >= gatherSize {
		h.stream.Write(b)
		return
	}
	h.buf = append(h.buf, b...)
}

// hash32 is bytes for what need not move to the heap.
func (h *hasher) hash32(b *[32]byte) { h.buf = append(h.buf, b[:]...) }

func (h *hasher) octet(b byte)    { h.buf = append(h.buf, b) }
func (h *hasher) uint32(n uint32) { h.buf = binary.LittleEndian.AppendUint32(h.buf, n) }
func (h *hasher) uint64(n uint64) { h.buf = binary.LittleEndian.AppendUint64(h.buf, n) }
func (h *hasher) size(n int)      { h.buf = bitcoin.AppendCompactSize(h.buf, uint64(n)) }

func (h *hasher) varBytes(b []byte) {
	h.size(len(b))
	h.bytes(b)
}

func (h *hasher) outPoint(o *bitcoin.OutPoint) {
	h.buf = append(h.buf, o.TxID[:]...)
	h.uint32(o.Index)
}

func (h *hasher) output(o *bitcoin.TxOut) {
	h.room()
	h.uint64(uint64(o.Value))
	h.varBytes(o.Script)
}

// sum returns the SHA-256 of all that was appended.
func (h *hasher) sum() [32]byte {
	if !h.streaming {
		return sha256.Sum256(h.buf)
	}
	h.flush()
	h.buf = h.stream.Sum(h.buf[:0])
	return [32]byte(h.buf)
}

// double returns the SHA-256 of sum.
func (h *hasher) double() [32]byte {
	first := h.sum()
	return sha256.Sum256(first[:])
}

// stateSize is enough for the marshalled state of crypto/sha256.
const stateSize = 128

// save appends the state of the stream to dst, so that load can go on from there.
func (h *hasher) save(dst []byte) []byte {
	h.flush()
	state, err := h.stream.(encoding.BinaryAppender).AppendBinary(dst)
	if err != nil {
		panic("script: crypto/sha256 does not tell its state: " + err.Error())
	}
	return state
}

func (h *hasher) load(state []byte) {
	h.reset()
	h.flush()
	if err := h.stream.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		panic("script: crypto/sha256 does not take its own state: " + err.Error())
	}
}

// Hash160 returns RIPEMD-160(SHA-256(b)), by which scripts name keys and other scripts.
func Hash160(b []byte) [20]byte {
	first := sha256.Sum256(b)
	return ripemd160(first[:])
}

// TapLeafHash returns the hash of a script and its leaf version in the tree of BIP 341.
func TapLeafHash(version byte, script []byte) [32]byte {
	var h hasher
	return h.tapLeaf(version, script)
}

func (h *hasher) tapLeaf(version byte, script []byte) [32]byte {
	h.reset()
	h.bytes(tapLeafTag[:])
	h.octet(version)
	h.varBytes(script)
	return h.sum()
}

// TapBranchHash returns the hash of two nodes in the tree of BIP 341. Their order does not matter.
func TapBranchHash(a, b *[32]byte) [32]byte {
	var buf [128]byte
	copy(buf[:64], tapBranchTag[:])
	if string(a[:]) > string(b[:]) {
		a, b = b, a
	}
	copy(buf[64:], a[:])
	copy(buf[96:], b[:])
	return sha256.Sum256(buf[:])
}
