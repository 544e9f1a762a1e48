package bitcoin

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
)

// A transaction or block is parsed in two passes over its buffer. The first, scanner, checks the
// whole encoding and counts; it allocates nothing, so that no lie about a length costs memory. The
// second, arena, cannot fail: it cuts inputs, outputs and witness items from slabs of exactly the
// counted size and hashes each transaction while its octets are in the cache.

// ParseTx reads a transaction that fills b, with or without witnesses (BIP 144; Bitcoin Core
// primitives/transaction.h, UnserializeTransaction). The transaction keeps b: it must not change.
func ParseTx(b []byte) (*Tx, error) {
	tx, n, err := ParseTxPrefix(b)
	if err == nil && n != len(b) {
		return nil, fmt.Errorf("transaction: %w: %d of %d octets used", ErrTrailingData, n, len(b))
	}
	return tx, err
}

// ParseTxPrefix reads the transaction at the start of b and returns the octets that it takes.
func ParseTxPrefix(b []byte) (*Tx, int, error) { return parseTx(b, true) }

// ParseTxNoWitness reads a transaction that fills b in the form from before BIP 144, in which an
// empty list of inputs is just that and not the marker of a witness (Core's TX_NO_WITNESS). Raw
// transactions that have no inputs yet can only be read so.
func ParseTxNoWitness(b []byte) (*Tx, error) {
	tx, n, err := parseTx(b, false)
	if err == nil && n != len(b) {
		return nil, fmt.Errorf("transaction: %w: %d of %d octets used", ErrTrailingData, n, len(b))
	}
	return tx, err
}

func parseTx(b []byte, witness bool) (*Tx, int, error) {
	s := scanner{b: b}
	if err := s.tx(witness); err != nil {
		return nil, 0, fmt.Errorf("transaction: %w at octet %d", err, s.off)
	}
	a := s.arena()
	tx := new(Tx)
	a.tx(tx, witness)
	return tx, s.off, nil
}

// ParseTxs reads n transactions, one behind the other, at the start of b, with one set of slabs for
// all, and returns the octets that they take.
func ParseTxs(b []byte, n int) ([]Tx, int, error) {
	s := scanner{b: b}
	for i := range n {
		if err := s.tx(true); err != nil {
			return nil, 0, fmt.Errorf("transaction %d of %d: %w at octet %d", i, n, err, s.off)
		}
	}
	return s.arena().txs(n), s.off, nil
}

// ParseBlock reads a block that fills b. The block keeps b: it must not change.
func ParseBlock(b []byte) (*Block, error) {
	block, n, err := ParseBlockPrefix(b)
	if err == nil && n != len(b) {
		return nil, fmt.Errorf("block %v: %w: %d of %d octets used",
			block.hash, ErrTrailingData, n, len(b))
	}
	return block, err
}

// ParseBlockPrefix reads the block at the start of b and returns the octets that it takes.
func ParseBlockPrefix(b []byte) (*Block, int, error) {
	s := scanner{b: b}
	txs, err := s.block()
	if err != nil {
		return nil, 0, fmt.Errorf("block: %w at octet %d", err, s.off)
	}
	a := s.arena()
	a.off = HeaderSize + CompactSizeLen(uint64(txs))
	return &Block{
		Header: header([HeaderSize]byte(b)),
		Txs:    a.txs(txs),
		hash:   DoubleHash(b[:HeaderSize]),
		raw:    b[:s.off:s.off],
	}, s.off, nil
}

// scanner is the first pass: it walks over an encoding, checks it and counts what is in it.
type scanner struct {
	b                []byte
	off              int
	ins, outs, items int
}

func (s *scanner) block() (txs int, err error) {
	if err := s.skip(HeaderSize); err != nil {
		return 0, err
	}
	n, err := s.count()
	if err != nil {
		return 0, err
	}
	for range n {
		if err := s.tx(true); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// tx walks over a transaction, step by step as Core's UnserializeTransaction does.
func (s *scanner) tx(witness bool) error {
	if err := s.skip(4); err != nil {
		return err
	}
	ins, err := s.inputs()
	if err != nil {
		return err
	}
	var flags byte
	switch {
	case ins == 0 && witness: // the marker of BIP 144, or no inputs and no outputs at all
		if flags, err = s.octet(); err == nil && flags != 0 {
			if ins, err = s.inputs(); err == nil {
				err = s.outputs()
			}
		}
	default:
		err = s.outputs()
	}
	if err != nil {
		return err
	}
	if flags&1 != 0 {
		if err := s.witnesses(ins); err != nil {
			return err
		}
		flags ^= 1
	}
	if flags != 0 {
		return ErrUnknownTxFlags
	}
	return s.skip(4)
}

func (s *scanner) inputs() (int, error) {
	n, err := s.count()
	if err != nil {
		return 0, err
	}
	for range n {
		if err := s.skip(36); err != nil {
			return 0, err
		}
		if err := s.varBytes(); err != nil {
			return 0, err
		}
		if err := s.skip(4); err != nil {
			return 0, err
		}
	}
	s.ins += n
	return n, nil
}

func (s *scanner) outputs() error {
	n, err := s.count()
	if err != nil {
		return err
	}
	for range n {
		if err := s.skip(8); err != nil {
			return err
		}
		if err := s.varBytes(); err != nil {
			return err
		}
	}
	s.outs += n
	return nil
}

func (s *scanner) witnesses(ins int) error {
	before := s.items
	for range ins {
		n, err := s.count()
		if err != nil {
			return err
		}
		for range n {
			if err := s.varBytes(); err != nil {
				return err
			}
		}
		s.items += n
	}
	if s.items == before {
		return ErrSuperfluous
	}
	return nil
}

// varBytes skips a CompactSize and as many octets.
func (s *scanner) varBytes() error {
	if s.off < len(s.b) && s.b[s.off] < 0xfd {
		return s.skip(1 + int(s.b[s.off]))
	}
	n, err := s.count()
	if err != nil {
		return err
	}
	return s.skip(n)
}

func (s *scanner) count() (int, error) {
	n, size, err := ReadCompactSize(s.b[s.off:])
	if err != nil {
		return 0, err
	}
	if n > MaxCompactSize {
		return 0, ErrSizeTooLarge
	}
	s.off += size
	return int(n), nil
}

func (s *scanner) octet() (byte, error) {
	if err := s.skip(1); err != nil {
		return 0, err
	}
	return s.b[s.off-1], nil
}

func (s *scanner) skip(n int) error {
	if n > len(s.b)-s.off {
		return ErrEndOfData
	}
	s.off += n
	return nil
}

// arena returns the second pass for what was scanned.
func (s *scanner) arena() *arena {
	return &arena{
		b:     s.b,
		ins:   make([]TxIn, s.ins),
		outs:  make([]TxOut, s.outs),
		items: make([][]byte, s.items),
	}
}

// arena is the second pass: it builds transactions from an encoding that the scanner found whole.
type arena struct {
	b     []byte
	off   int
	ins   []TxIn
	outs  []TxOut
	items [][]byte
	sha   hash.Hash // for what exceeds base
	base  [2048]byte
}

func (a *arena) txs(n int) []Tx {
	txs := make([]Tx, n)
	for i := range txs {
		a.tx(&txs[i], true)
	}
	return txs
}

func (a *arena) tx(tx *Tx, witness bool) {
	start := a.off
	tx.Version = a.uint32()
	n := a.count()
	body := start + 4 // inputs and outputs
	var flags byte
	if n == 0 && witness {
		flags = a.b[a.off]
		a.off++
		if flags != 0 {
			body = a.off
			n = a.count()
		}
	}
	a.inputs(tx, n)
	if n != 0 || flags != 0 || !witness {
		a.outputs(tx)
	}
	bodyEnd := a.off
	if flags != 0 {
		a.witnesses(tx.In)
	}
	tx.LockTime = a.uint32()
	tx.raw = a.b[start:a.off:a.off]
	tx.baseSize = len(tx.raw)
	tx.wtxid = DoubleHash(tx.raw)
	tx.txid = tx.wtxid
	if flags != 0 {
		tx.baseSize = 4 + (bodyEnd - body) + 4
		tx.txid = a.baseHash(tx.raw[:4], a.b[body:bodyEnd], a.b[a.off-4:a.off])
	}
}

// baseHash returns the double hash of the three parts that are left when a transaction loses its
// witness. Copying a small one together costs less than three writes to a streaming hash.
func (a *arena) baseHash(version, body, lockTime []byte) Hash {
	if n := len(body) + 8; n <= len(a.base) {
		copy(a.base[:], version)
		copy(a.base[4:], body)
		copy(a.base[4+len(body):], lockTime)
		return DoubleHash(a.base[:n])
	}
	if a.sha == nil {
		a.sha = sha256.New()
	}
	a.sha.Reset()
	a.sha.Write(version)
	a.sha.Write(body)
	a.sha.Write(lockTime)
	return sha256.Sum256(a.sha.Sum(a.base[:0]))
}

func (a *arena) inputs(tx *Tx, n int) {
	tx.In, a.ins = a.ins[:n:n], a.ins[n:]
	for i := range tx.In {
		in := &tx.In[i]
		in.PrevOut.TxID = Hash(a.b[a.off:])
		in.PrevOut.Index = binary.LittleEndian.Uint32(a.b[a.off+32:])
		a.off += 36
		in.Script = a.varBytes()
		in.Sequence = a.uint32()
	}
}

func (a *arena) outputs(tx *Tx) {
	n := a.count()
	tx.Out, a.outs = a.outs[:n:n], a.outs[n:]
	for i := range tx.Out {
		out := &tx.Out[i]
		out.Value = Amount(binary.LittleEndian.Uint64(a.b[a.off:]))
		a.off += 8
		out.Script = a.varBytes()
	}
}

func (a *arena) witnesses(ins []TxIn) {
	for i := range ins {
		n := a.count()
		if n == 0 {
			continue
		}
		stack := a.items[:n:n]
		a.items = a.items[n:]
		for j := range stack {
			stack[j] = a.varBytes()
		}
		ins[i].Witness = stack
	}
}

func (a *arena) varBytes() []byte {
	n := a.count()
	v := a.b[a.off : a.off+n : a.off+n]
	a.off += n
	return v
}

func (a *arena) uint32() uint32 {
	v := binary.LittleEndian.Uint32(a.b[a.off:])
	a.off += 4
	return v
}

func (a *arena) count() int {
	if c := a.b[a.off]; c < 0xfd {
		a.off++
		return int(c)
	}
	n, size, _ := ReadCompactSize(a.b[a.off:])
	a.off += size
	return int(n)
}
