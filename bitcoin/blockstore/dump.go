package blockstore

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// snapshotMagic and snapshotVersion begin a file of coins (Bitcoin Core node/utxo_snapshot.h).
const (
	snapshotMagic   = "utxo\xff"
	snapshotVersion = 2
)

// Dumped tells of coins that were written.
type Dumped struct {
	Coins uint64
	Hash  bitcoin.Hash // of all of them, Core's hash_serialized_3
}

// Dump writes all coins in the form that Core's loadtxoutset takes (Bitcoin Core rpc/blockchain.cpp,
// WriteUTXOSnapshot):
//
//	magic[5] version[2] network[4] block[32] coins[8]
//	then for each transaction: txid[32] outputs[compact] (index[compact] coin)*
//
// The coins are gone through twice: how many there are stands before them.
func (s *Snapshot) Dump(ctx context.Context, to io.Writer) (Dumped, error) {
	sum, err := s.Sum(ctx)
	if err != nil {
		return sum, err
	}
	d := dumper{w: bufio.NewWriterSize(to, 1<<20)}
	head := binary.LittleEndian.AppendUint16([]byte(snapshotMagic), snapshotVersion)
	head = append(append(head, s.coins.store.cfg.Network.Magic[:]...), s.Best[:]...)
	if _, err := d.w.Write(binary.LittleEndian.AppendUint64(head, sum.Coins)); err != nil {
		return sum, err
	}
	err = s.All(ctx, func(out bitcoin.OutPoint, coin *consensus.Coin) error {
		if d.outputs > 0 && d.txid != out.TxID {
			if err := d.flush(); err != nil {
				return err
			}
		}
		d.add(out, coin)
		return nil
	})
	if err == nil && d.outputs > 0 {
		err = d.flush()
	}
	if err == nil {
		err = d.w.Flush()
	}
	if err == nil && d.written != sum.Coins {
		err = fmt.Errorf("%w: %d coins, then %d", ErrCorrupt, sum.Coins, d.written)
	}
	return sum, err
}

// Sum counts and hashes all coins (Bitcoin Core kernel/coinstats.cpp, HASH_SERIALIZED).
func (s *Snapshot) Sum(ctx context.Context) (sum Dumped, err error) {
	h := sha256.New()
	var buf []byte
	err = s.All(ctx, func(out bitcoin.OutPoint, coin *consensus.Coin) error {
		sum.Coins++
		buf = binary.LittleEndian.AppendUint32(out.Append(buf[:0]), uint32(originCode(coin.Origin)))
		buf = coin.Out.Append(buf)
		h.Write(buf)
		return nil
	})
	first := h.Sum(nil)
	sum.Hash = sha256.Sum256(first)
	return sum, err
}

// dumper gathers the coins of one transaction.
type dumper struct {
	w       *bufio.Writer
	txid    bitcoin.Hash
	outputs uint64
	coins   []byte
	head    []byte
	written uint64
}

func (d *dumper) add(out bitcoin.OutPoint, coin *consensus.Coin) {
	d.txid = out.TxID
	d.outputs++
	d.coins = bitcoin.AppendCompactSize(d.coins, uint64(out.Index))
	d.coins = appendCoin(d.coins, coin)
}

func (d *dumper) flush() error {
	d.head = bitcoin.AppendCompactSize(append(d.head[:0], d.txid[:]...), d.outputs)
	if _, err := d.w.Write(d.head); err != nil {
		return err
	}
	_, err := d.w.Write(d.coins)
	d.written += d.outputs
	d.outputs, d.coins = 0, d.coins[:0]
	return err
}
