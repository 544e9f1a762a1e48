package bitcoin

import (
	"encoding/binary"
	"slices"
)

// OutPoint names an output of an earlier transaction.
type OutPoint struct {
	TxID  Hash
	Index uint32
}

// IsNull reports whether the outpoint is the one of a coinbase input.
func (o OutPoint) IsNull() bool { return o.TxID == Hash{} && o.Index == 0xffffffff }

// Append appends the 36 octets of the outpoint to dst.
func (o OutPoint) Append(dst []byte) []byte {
	return binary.LittleEndian.AppendUint32(append(dst, o.TxID[:]...), o.Index)
}

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

// Append appends the output as it stands in a transaction.
func (o *TxOut) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(o.Value))
	dst = AppendCompactSize(dst, uint64(len(o.Script)))
	return append(dst, o.Script...)
}

// Size returns the octets that Append writes.
func (o *TxOut) Size() int { return 8 + varBytesLen(o.Script) }

// Tx is a transaction. One that came from a parser is immutable and carries its encoding and its
// hashes; one built by hand computes them at each call. To change a parsed one, change its Clone.
type Tx struct {
	Version  uint32 // unsigned, as BIP 68 compares it
	In       []TxIn
	Out      []TxOut
	LockTime uint32

	// Set by the parser, else zero.
	txid, wtxid Hash
	raw         []byte // the encoding, with witness
	baseSize    int    // octets without witness
}

// WitnessScale is how much more an octet outside the witness weighs than one inside it (BIP 141).
const WitnessScale = 4

// TxID returns the hash of the transaction without its witnesses.
func (tx *Tx) TxID() Hash {
	if tx.raw != nil {
		return tx.txid
	}
	return DoubleHash(tx.AppendBase(make([]byte, 0, tx.BaseSize())))
}

// WTxID returns the hash of the transaction with its witnesses (BIP 141); without any it equals
// TxID. The coinbase has one too, though the witness commitment counts it as zero.
func (tx *Tx) WTxID() Hash {
	if tx.raw != nil {
		return tx.wtxid
	}
	return DoubleHash(tx.Append(make([]byte, 0, tx.Size())))
}

// HasWitness reports whether any input has a witness.
func (tx *Tx) HasWitness() bool {
	if tx.raw != nil {
		return tx.baseSize != len(tx.raw)
	}
	return slices.ContainsFunc(tx.In, func(in TxIn) bool { return len(in.Witness) > 0 })
}

// IsCoinbase reports whether the transaction has the form of a coinbase: one input that spends
// nothing.
func (tx *Tx) IsCoinbase() bool { return len(tx.In) == 1 && tx.In[0].PrevOut.IsNull() }

// BaseSize returns the octets of the transaction without witnesses.
func (tx *Tx) BaseSize() int {
	if tx.raw != nil {
		return tx.baseSize
	}
	n := 8 + CompactSizeLen(uint64(len(tx.In))) + CompactSizeLen(uint64(len(tx.Out)))
	for i := range tx.In {
		n += 40 + varBytesLen(tx.In[i].Script)
	}
	for i := range tx.Out {
		n += tx.Out[i].Size()
	}
	return n
}

// Size returns the octets of the transaction with witnesses.
func (tx *Tx) Size() int {
	if tx.raw != nil {
		return len(tx.raw)
	}
	n := tx.BaseSize()
	if !tx.HasWitness() {
		return n
	}
	n += 2
	for i := range tx.In {
		n += CompactSizeLen(uint64(len(tx.In[i].Witness)))
		for _, item := range tx.In[i].Witness {
			n += varBytesLen(item)
		}
	}
	return n
}

// Weight returns the weight of BIP 141: three times the base size plus the size.
func (tx *Tx) Weight() int { return (WitnessScale-1)*tx.BaseSize() + tx.Size() }

// VSize returns a quarter of the weight, rounded up.
func (tx *Tx) VSize() int { return (tx.Weight() + WitnessScale - 1) / WitnessScale }

// Append appends the encoding with witnesses (BIP 144) to dst; without any it is that of
// AppendBase.
func (tx *Tx) Append(dst []byte) []byte {
	if tx.raw != nil {
		return append(dst, tx.raw...)
	}
	if !tx.HasWitness() {
		return tx.AppendBase(dst)
	}
	dst = binary.LittleEndian.AppendUint32(dst, tx.Version)
	dst = append(dst, 0, 1)
	dst = tx.appendInOut(dst)
	for i := range tx.In {
		dst = AppendCompactSize(dst, uint64(len(tx.In[i].Witness)))
		for _, item := range tx.In[i].Witness {
			dst = AppendCompactSize(dst, uint64(len(item)))
			dst = append(dst, item...)
		}
	}
	return binary.LittleEndian.AppendUint32(dst, tx.LockTime)
}

// AppendBase appends the encoding without witnesses to dst.
func (tx *Tx) AppendBase(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, tx.Version)
	dst = tx.appendInOut(dst)
	return binary.LittleEndian.AppendUint32(dst, tx.LockTime)
}

func (tx *Tx) appendInOut(dst []byte) []byte {
	dst = AppendCompactSize(dst, uint64(len(tx.In)))
	for i := range tx.In {
		in := &tx.In[i]
		dst = in.PrevOut.Append(dst)
		dst = AppendCompactSize(dst, uint64(len(in.Script)))
		dst = append(dst, in.Script...)
		dst = binary.LittleEndian.AppendUint32(dst, in.Sequence)
	}
	dst = AppendCompactSize(dst, uint64(len(tx.Out)))
	for i := range tx.Out {
		dst = tx.Out[i].Append(dst)
	}
	return dst
}

// Clone returns a transaction that may be changed: inputs, outputs and witness stacks are its own,
// the octets of scripts and witness items are shared, encoding and hashes are computed anew.
func (tx *Tx) Clone() *Tx {
	c := &Tx{
		Version:  tx.Version,
		In:       slices.Clone(tx.In),
		Out:      slices.Clone(tx.Out),
		LockTime: tx.LockTime,
	}
	for i := range c.In {
		c.In[i].Witness = slices.Clone(c.In[i].Witness)
	}
	return c
}

// Detach returns the transaction on memory of its own. One that was parsed as a part of something larger,
// a block or a message, keeps all of that in memory for as long as it lives.
func (tx *Tx) Detach() *Tx {
	if tx.raw == nil {
		return tx
	}
	own, err := ParseTx(tx.Append(make([]byte, 0, len(tx.raw))))
	if err != nil { // parsed without witness, where it has no inputs
		return tx
	}
	return own
}

// OutputSum returns the sum of the outputs; ok is false where one of them or the sum leaves the
// range of money.
func (tx *Tx) OutputSum() (sum Amount, ok bool) {
	for i := range tx.Out {
		if v := tx.Out[i].Value; !v.Valid() || !(sum + v).Valid() {
			return 0, false
		}
		sum += tx.Out[i].Value
	}
	return sum, true
}

// varBytesLen returns the octets of b with its length before it.
func varBytesLen(b []byte) int { return CompactSizeLen(uint64(len(b))) + len(b) }
