package bitcoin

// OutPoint names an output of an earlier transaction.
type OutPoint struct {
	TxID  Hash
	Index uint32
}

// IsNull reports whether the outpoint is the one of a coinbase input.
func (o OutPoint) IsNull() bool { return o.TxID == Hash{} && o.Index == 0xffffffff }

// TxIn is an input. Its slices point into the buffer that the transaction was parsed from.
type TxIn struct {
	PrevOut  OutPoint
	Script   []byte // scriptSig
	Sequence uint32
	Witness  [][]byte // stack items, bottom first; nil without witness
}

// TxOut is an output.
type TxOut struct {
	Value  Amount
	Script []byte // scriptPubKey
}

// Tx is a transaction. One that came from a parser is immutable and carries its hashes; one built by hand
// computes them at each call.
type Tx struct {
	Version  uint32 // unsigned, as BIP 68 compares it
	In       []TxIn
	Out      []TxOut
	LockTime uint32

	// Set by the parser, else zero.
	txid, wtxid Hash
	size        int // octets with witness
	baseSize    int // octets without
}

// Header is a block header, 80 octets on the wire.
type Header struct {
	Version    int32
	PrevBlock  Hash
	MerkleRoot Hash
	Time       uint32 // seconds since 1970
	Bits       uint32 // target in compact form
	Nonce      uint32
}

// Block is a header and its transactions. One that came from a parser is immutable and shares its buffer.
type Block struct {
	Header Header
	Txs    []Tx

	hash Hash   // set by the parser, else zero
	raw  []byte // the buffer it was parsed from, if it was
}
