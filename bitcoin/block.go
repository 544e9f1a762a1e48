package bitcoin

import "encoding/binary"

// HeaderSize is the number of octets of a block header.
const HeaderSize = 80

// Header is a block header, 80 octets on the wire.
type Header struct {
	Version    int32
	PrevBlock  Hash
	MerkleRoot Hash
	Time       uint32 // seconds since 1970
	Bits       uint32 // target in compact form
	Nonce      uint32
}

// ParseHeader reads a header of exactly 80 octets.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, ErrEndOfData
	}
	if len(b) > HeaderSize {
		return Header{}, ErrTrailingData
	}
	return header([HeaderSize]byte(b)), nil
}

func header(b [HeaderSize]byte) Header {
	return Header{
		Version:    int32(binary.LittleEndian.Uint32(b[0:])),
		PrevBlock:  Hash(b[4:36]),
		MerkleRoot: Hash(b[36:68]),
		Time:       binary.LittleEndian.Uint32(b[68:]),
		Bits:       binary.LittleEndian.Uint32(b[72:]),
		Nonce:      binary.LittleEndian.Uint32(b[76:]),
	}
}

// Bytes returns the header's 80 octets.
func (h *Header) Bytes() [HeaderSize]byte {
	var b [HeaderSize]byte
	binary.LittleEndian.PutUint32(b[0:], uint32(h.Version))
	copy(b[4:], h.PrevBlock[:])
	copy(b[36:], h.MerkleRoot[:])
	binary.LittleEndian.PutUint32(b[68:], h.Time)
	binary.LittleEndian.PutUint32(b[72:], h.Bits)
	binary.LittleEndian.PutUint32(b[76:], h.Nonce)
	return b
}

// Append appends the header's 80 octets to dst.
func (h *Header) Append(dst []byte) []byte {
	b := h.Bytes()
	return append(dst, b[:]...)
}

// Hash returns the block hash.
func (h *Header) Hash() Hash {
	b := h.Bytes()
	return DoubleHash(b[:])
}

// Block is a header and its transactions. One that came from a parser is immutable and shares its
// buffer.
type Block struct {
	Header Header
	Txs    []Tx

	// Set by the parser, else zero.
	hash Hash
	raw  []byte
}

// Hash returns the hash of the header.
func (b *Block) Hash() Hash {
	if b.raw != nil {
		return b.hash
	}
	return b.Header.Hash()
}

// BaseSize returns the octets of the block without witnesses.
func (b *Block) BaseSize() int {
	n := HeaderSize + CompactSizeLen(uint64(len(b.Txs)))
	for i := range b.Txs {
		n += b.Txs[i].BaseSize()
	}
	return n
}

// Size returns the octets of the block with witnesses.
func (b *Block) Size() int {
	if b.raw != nil {
		return len(b.raw)
	}
	n := HeaderSize + CompactSizeLen(uint64(len(b.Txs)))
	for i := range b.Txs {
		n += b.Txs[i].Size()
	}
	return n
}

// Weight returns the weight of BIP 141: three times the base size plus the size.
func (b *Block) Weight() int { return (WitnessScale-1)*b.BaseSize() + b.Size() }

// Append appends the encoding with witnesses to dst.
func (b *Block) Append(dst []byte) []byte {
	if b.raw != nil {
		return append(dst, b.raw...)
	}
	dst = b.Header.Append(dst)
	dst = AppendCompactSize(dst, uint64(len(b.Txs)))
	for i := range b.Txs {
		dst = b.Txs[i].Append(dst)
	}
	return dst
}

// AppendBase appends the encoding without witnesses to dst.
func (b *Block) AppendBase(dst []byte) []byte {
	dst = b.Header.Append(dst)
	dst = AppendCompactSize(dst, uint64(len(b.Txs)))
	for i := range b.Txs {
		dst = b.Txs[i].AppendBase(dst)
	}
	return dst
}

// Clone returns a block that may be changed: each transaction is a Clone. It is for tests and
// miners.
func (b *Block) Clone() *Block {
	c := &Block{Header: b.Header, Txs: make([]Tx, len(b.Txs))}
	for i := range b.Txs {
		c.Txs[i] = *b.Txs[i].Clone()
	}
	return c
}

// MerkleRoot returns the Merkle root of the txids, and whether the list has the form of
// CVE-2012-2459; see the function of that name.
func (b *Block) MerkleRoot() (root Hash, mutated bool) {
	leaves := make([]Hash, len(b.Txs), len(b.Txs)+1)
	for i := range b.Txs {
		leaves[i] = b.Txs[i].TxID()
	}
	return merkleRoot(leaves)
}

// WitnessMerkleRoot returns the Merkle root of the wtxids, that of the coinbase being zero (BIP
// 141, "Commitment structure").
func (b *Block) WitnessMerkleRoot() Hash {
	leaves := make([]Hash, len(b.Txs), len(b.Txs)+1)
	for i := 1; i < len(b.Txs); i++ {
		leaves[i] = b.Txs[i].WTxID()
	}
	root, _ := merkleRoot(leaves)
	return root
}
