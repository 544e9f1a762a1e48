package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/tallypost/tallypost/bitcoin"
)

// CmpctBlockVersion is the version of BIP 152 that is in use: short ids from wtxids.
const CmpctBlockVersion = 2

const shortIDSize = 6

// ShortID is a transaction id cut to six octets for one block.
type ShortID uint64

// Prefilled is a transaction that a compact block carries whole, as always the coinbase.
type Prefilled struct {
	Skip uint16 // places between the one before and this
	Tx   *bitcoin.Tx
}

// CmpctBlock announces a block by short ids (BIP 152), in the belief that the receiver has nearly
// all of its transactions.
type CmpctBlock struct {
	Header    bitcoin.Header
	Nonce     uint64
	ShortIDs  []ShortID
	Prefilled []Prefilled
}

// NewCmpctBlock returns the compact form of a block, which has at least a coinbase: that it carries
// whole. The nonce must be random: it keeps others from making transactions whose short ids
// collide.
func NewCmpctBlock(block *bitcoin.Block, nonce uint64) *CmpctBlock {
	m := &CmpctBlock{
		Header:    block.Header,
		Nonce:     nonce,
		ShortIDs:  make([]ShortID, len(block.Txs)-1),
		Prefilled: []Prefilled{{Tx: &block.Txs[0]}},
	}
	key := m.Key()
	for i := range m.ShortIDs {
		m.ShortIDs[i] = key.ShortID(block.Txs[i+1].WTxID())
	}
	return m
}

// Command returns "cmpctblock".
func (*CmpctBlock) Command() string { return "cmpctblock" }

// Append appends the payload.
func (m *CmpctBlock) Append(dst []byte) []byte {
	dst = m.Header.Append(dst)
	dst = binary.LittleEndian.AppendUint64(dst, m.Nonce)
	dst = bitcoin.AppendCompactSize(dst, uint64(len(m.ShortIDs)))
	for _, id := range m.ShortIDs {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(id))
		dst = binary.LittleEndian.AppendUint16(dst, uint16(id>>32))
	}
	dst = bitcoin.AppendCompactSize(dst, uint64(len(m.Prefilled)))
	for i := range m.Prefilled {
		dst = bitcoin.AppendCompactSize(dst, uint64(m.Prefilled[i].Skip))
		dst = m.Prefilled[i].Tx.Append(dst)
	}
	return dst
}

// leastTx is the shortest encoding of a transaction: nothing but version, two counts and lock time.
const leastTx = 10

func parseCmpctBlock(d *decoder) Message {
	m := &CmpctBlock{Header: d.header(), Nonce: d.uint64()}
	if n := d.count(shortIDSize); n > 0 {
		m.ShortIDs = make([]ShortID, n)
	}
	for i := range m.ShortIDs {
		b := d.take(shortIDSize)
		low, high := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:])
		m.ShortIDs[i] = ShortID(low) | ShortID(high)<<32
	}
	if n := d.count(1 + leastTx); n > 0 {
		m.Prefilled = make([]Prefilled, n)
	}
	for i := range m.Prefilled {
		m.Prefilled[i] = Prefilled{Skip: d.index(), Tx: d.tx()}
	}
	if len(m.ShortIDs)+len(m.Prefilled) > math.MaxUint16 {
		d.fail(errors.New("indexes overflowed 16 bits"))
	}
	return m
}

// index reads a CompactSize that must fit 16 bits.
func (d *decoder) index() uint16 {
	n := d.size()
	if n > math.MaxUint16 {
		d.fail(errors.New("CompactSize exceeds limit of type"))
		return 0
	}
	return uint16(n)
}

// ShortIDKey is what the short ids of one compact block are made with.
type ShortIDKey struct{ k0, k1 uint64 }

// Key returns the key of the block's short ids: from the hash of header and nonce (BIP 152, "Short
// transaction IDs").
func (m *CmpctBlock) Key() ShortIDKey {
	sum := sha256.Sum256(binary.LittleEndian.AppendUint64(m.Header.Append(nil), m.Nonce))
	return ShortIDKey{binary.LittleEndian.Uint64(sum[:]), binary.LittleEndian.Uint64(sum[8:])}
}

// ShortID returns the short id of a transaction.
func (k ShortIDKey) ShortID(wtxid bitcoin.Hash) ShortID {
	return ShortID(wtxid.SipHash(k.k0, k.k1) & 0xffffffffffff)
}

// GetBlockTxn asks for transactions of a block by their place in it.
type GetBlockTxn struct {
	Block   bitcoin.Hash
	Indexes []uint16 // rising
}

// Command returns "getblocktxn".
func (*GetBlockTxn) Command() string { return "getblocktxn" }

// Append appends the payload: each place as the number of places skipped.
func (m *GetBlockTxn) Append(dst []byte) []byte {
	dst = append(dst, m.Block[:]...)
	dst = bitcoin.AppendCompactSize(dst, uint64(len(m.Indexes)))
	next := 0
	for _, i := range m.Indexes {
		dst = bitcoin.AppendCompactSize(dst, uint64(int(i)-next))
		next = int(i) + 1
	}
	return dst
}

func parseGetBlockTxn(d *decoder) Message {
	m := &GetBlockTxn{Block: d.hash()}
	if n := d.count(1); n > 0 {
		m.Indexes = make([]uint16, n)
	}
	next := 0
	for i := range m.Indexes {
		next += d.size()
		if next > math.MaxUint16 {
			d.fail(errors.New("differential value overflow"))
			break
		}
		m.Indexes[i] = uint16(next)
		next++
	}
	return m
}

// BlockTxn carries what a getblocktxn asked for, in its order.
type BlockTxn struct {
	Block bitcoin.Hash
	Txs   []bitcoin.Tx
}

// Command returns "blocktxn".
func (*BlockTxn) Command() string { return "blocktxn" }

// Append appends the payload.
func (m *BlockTxn) Append(dst []byte) []byte {
	dst = append(dst, m.Block[:]...)
	dst = bitcoin.AppendCompactSize(dst, uint64(len(m.Txs)))
	for i := range m.Txs {
		dst = m.Txs[i].Append(dst)
	}
	return dst
}

func parseBlockTxn(d *decoder) Message {
	m := &BlockTxn{Block: d.hash()}
	n := d.count(leastTx)
	if d.err != nil {
		return m
	}
	txs, used, err := bitcoin.ParseTxs(d.b, n)
	if err != nil {
		d.fail(err)
		return m
	}
	m.Txs, d.b = txs, d.b[used:]
	return m
}

// The two ways in which a compact block does not lead to a block.
var (
	// ErrCompactInvalid says that the peer sent what no honest peer sends.
	ErrCompactInvalid = errors.New("invalid compact block")
	// ErrCompactFailed says that short ids collided, which happens: ask for the whole block.
	ErrCompactFailed = errors.New("compact block: short ids collide")
)

// mostBlockTxs is the number of transactions that fit a block: 4,000,000 weight units, and 40 for
// the shortest transaction (Core's MAX_BLOCK_WEIGHT / MIN_SERIALIZABLE_TRANSACTION_WEIGHT).
const mostBlockTxs = 4_000_000 / (4 * leastTx)

// Partial is a block in the making from a compact one: first offer it what transactions there are,
// then ask the peer for the Missing and Fill them in. It is owned by one goroutine.
type Partial struct {
	header  bitcoin.Header
	key     ShortIDKey
	txs     []*bitcoin.Tx // nil while missing
	place   map[ShortID]uint16
	offered []bool // places that an offer has met
	met     int    // places that an offer fills
}

// NewPartial begins with what the compact block carries itself. The error is ErrCompactInvalid or
// ErrCompactFailed (Core blockencodings.cpp, InitData).
func NewPartial(m *CmpctBlock) (*Partial, error) {
	n := len(m.ShortIDs) + len(m.Prefilled)
	if n == 0 || n > mostBlockTxs || m.Header == (bitcoin.Header{}) {
		return nil, fmt.Errorf("%w: %d transactions", ErrCompactInvalid, n)
	}
	p := &Partial{
		header:  m.Header,
		key:     m.Key(),
		txs:     make([]*bitcoin.Tx, n),
		place:   make(map[ShortID]uint16, len(m.ShortIDs)),
		offered: make([]bool, n),
	}
	last := -1
	for i, pre := range m.Prefilled {
		last += int(pre.Skip) + 1
		if len(pre.Tx.In) == 0 && len(pre.Tx.Out) == 0 || last > math.MaxUint16 ||
			last > len(m.ShortIDs)+i {
			return nil, fmt.Errorf("%w: transaction at place %d", ErrCompactInvalid, last)
		}
		p.txs[last] = pre.Tx
	}
	place := 0
	for _, id := range m.ShortIDs {
		for p.txs[place] != nil {
			place++
		}
		p.place[id] = uint16(place)
		place++
	}
	if len(p.place) != len(m.ShortIDs) {
		return nil, ErrCompactFailed
	}
	return p, nil
}

// Offer gives the block a transaction that may be in it, from the mempool or elsewhere, and reports
// whether more are wanted. Where two offered transactions have the short id of one place, that
// place is asked for.
func (p *Partial) Offer(tx *bitcoin.Tx) (more bool) {
	wtxid := tx.WTxID()
	place, ok := p.place[p.key.ShortID(wtxid)]
	switch {
	case !ok:
	case !p.offered[place]:
		p.txs[place] = tx
		p.offered[place] = true
		p.met++
	case p.txs[place] != nil && p.txs[place].WTxID() != wtxid:
		p.txs[place] = nil
		p.met--
	}
	return p.met < len(p.place)
}

// Missing returns the places that no transaction was found for: what to ask with GetBlockTxn.
func (p *Partial) Missing() (indexes []uint16) {
	for i, tx := range p.txs {
		if tx == nil {
			indexes = append(indexes, uint16(i))
		}
	}
	return indexes
}

// Header returns the header of the block.
func (p *Partial) Header() bitcoin.Header { return p.header }

// Fill puts what was missing into its places and returns the block, which is then used up. The
// error is ErrCompactInvalid where the peer sent too few or too many, and ErrCompactFailed where
// the Merkle root is not that of the header. Whether witnesses were changed on the way, and the
// rest, is for consensus to say.
func (p *Partial) Fill(missing []bitcoin.Tx) (*bitcoin.Block, error) {
	if p.txs == nil {
		return nil, fmt.Errorf("%w: filled twice", ErrCompactInvalid)
	}
	block := &bitcoin.Block{Header: p.header, Txs: make([]bitcoin.Tx, len(p.txs))}
	for i, tx := range p.txs {
		if tx == nil {
			if len(missing) == 0 {
				return nil, fmt.Errorf("%w: transactions missing", ErrCompactInvalid)
			}
			tx, missing = &missing[0], missing[1:]
		}
		block.Txs[i] = *tx
	}
	p.txs = nil
	if len(missing) > 0 {
		return nil, fmt.Errorf("%w: %d transactions too many", ErrCompactInvalid, len(missing))
	}
	if root, mutated := block.MerkleRoot(); mutated || root != p.header.MerkleRoot {
		return nil, ErrCompactFailed
	}
	return block, nil
}
