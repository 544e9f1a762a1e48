package index

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
)

// The keys of the index of transactions.
//
//	't' txid[32]    height[4] offset[4]: the block that 'h' names and where in it the transaction begins
//	't' txid[32]    hash[32] offset[4]: the same of a block that was taken back
const keyTx = 't'

// TxIndex finds the block of a transaction. The coinbase of the genesis block, which nobody can spend, is not
// in it.
type TxIndex struct{ Index }

func openTxIndex(cfg Config) (*TxIndex, error) {
	x := &TxIndex{Index{name: "txindex", cfg: cfg}}
	return x, x.open(cfg.FS.PathJoin(cfg.Dir, "txindex"), (*txKeeper)(&x.Index))
}

// txKeeper makes the index of transactions. All its state is in the database.
type txKeeper Index

func (*txKeeper) needs() needs            { return needs{reverted: true} }
func (*txKeeper) load(chain.Cursor) error { return nil }
func (*txKeeper) sync() error             { return nil }
func (*txKeeper) close() error            { return nil }

// offsets calls f with where each transaction of a block begins.
func offsets(b *bitcoin.Block, f func(txid bitcoin.Hash, offset int) error) error {
	at := bitcoin.HeaderSize + bitcoin.CompactSizeLen(uint64(len(b.Txs)))
	for i := range b.Txs {
		if err := f(b.Txs[i].TxID(), at); err != nil {
			return err
		}
		at += b.Txs[i].Size()
	}
	return nil
}

func (*txKeeper) apply(b *pebble.Batch, blk *block) error {
	if blk.Height == 0 {
		return nil
	}
	var value [8]byte
	binary.BigEndian.PutUint32(value[:], uint32(blk.Height))
	return offsets(blk.body, func(txid bitcoin.Hash, offset int) error {
		binary.BigEndian.PutUint32(value[4:], uint32(offset))
		return b.Set(hashKey(keyTx, txid), value[:], nil)
	})
}

// revert names the block by its hash, for another one is going to have its height.
func (*txKeeper) revert(b *pebble.Batch, blk *block) error {
	value := append(blk.Hash[:], 0, 0, 0, 0)
	return offsets(blk.body, func(txid bitcoin.Hash, offset int) error {
		binary.BigEndian.PutUint32(value[32:], uint32(offset))
		return b.Set(hashKey(keyTx, txid), value, nil)
	})
}

// ErrNotFound is the error of what is not in an index.
var ErrNotFound = errors.New("not in the index")

// Find returns the block of a transaction, the last one that had it. The error is ErrNotFound where there is
// none.
func (x *TxIndex) Find(txid bitcoin.Hash) (block bitcoin.Hash, offset int, err error) {
	s := x.db.NewSnapshot()
	defer s.Close()
	v, err := get(s, hashKey(keyTx, txid))
	if err != nil {
		return block, 0, err
	}
	switch len(v) {
	case 0:
		return block, 0, ErrNotFound
	case 36:
		return bitcoin.Hash(v[:32]), int(binary.BigEndian.Uint32(v[32:])), nil
	case 8:
		height := bitcoin.Height(binary.BigEndian.Uint32(v))
		hash, ok, err := hashAt(s, height)
		if err == nil && !ok {
			err = fmt.Errorf("txindex has no block at height %d", height)
		}
		return hash, int(binary.BigEndian.Uint32(v[4:])), err
	}
	return block, 0, errors.New("txindex: an entry is not well-formed")
}

// Tx returns a transaction and its block.
func (x *TxIndex) Tx(txid bitcoin.Hash) (*bitcoin.Tx, bitcoin.Hash, error) {
	hash, offset, err := x.Find(txid)
	if err != nil {
		return nil, hash, err
	}
	raw, err := x.cfg.Chain.RawBlock(hash)
	if err != nil {
		return nil, hash, err
	}
	// The entry of a block that a crash took from the chain may name the height of another.
	if offset < len(raw) {
		if tx, _, err := bitcoin.ParseTxPrefix(raw[offset:]); err == nil && tx.TxID() == txid {
			return tx, hash, nil
		}
	}
	return nil, hash, ErrNotFound
}
