package blockstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// Snapshot is all coins as they were when it was made.
type Snapshot struct {
	Best  bitcoin.Hash // the block as of which they are
	coins *Coins
	db    *pebble.Snapshot
}

// Snapshot returns the coins as of the last Flush. It must be closed.
func (c *Coins) Snapshot() (*Snapshot, error) {
	s := &Snapshot{coins: c, db: c.db.NewSnapshot()}
	best, err := get(s.db, []byte{keyBest})
	if err != nil {
		s.Close()
		return nil, c.store.explain(c.dir, err)
	}
	copy(s.Best[:], best)
	return s, nil
}

// Close lets the snapshot go.
func (s *Snapshot) Close() error { return s.db.Close() }

// All calls f for each coin, in the order of transaction ids as octets and of outputs, until it
// returns an error or ctx ends. The coin's script is good until f returns.
func (s *Snapshot) All(
	ctx context.Context, f func(bitcoin.OutPoint, *consensus.Coin) error,
) error {
	return s.From(ctx, bitcoin.Hash{}, f)
}

// From is All from a transaction id on.
func (s *Snapshot) From(
	ctx context.Context, txid bitcoin.Hash, f func(bitcoin.OutPoint, *consensus.Coin) error,
) error {
	it, err := s.db.NewIter(&pebble.IterOptions{
		LowerBound: append([]byte{keyCoin}, txid[:]...), UpperBound: []byte{keyCoin + 1},
	})
	if err != nil {
		return s.coins.store.explain(s.coins.dir, err)
	}
	defer it.Close()
	const interval = 1 << 12 // coins between two looks at ctx
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		if n++; n%interval == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return s.coins.store.explain(s.coins.dir, err)
		}
		key := it.Key()
		d := decoder{b: value}
		coin := d.coin()
		if len(key) != coinKeySize || d.err != nil {
			return fmt.Errorf("%w: coin %x in %s", ErrCorrupt, bytes.Clone(key), s.coins.dir)
		}
		out := bitcoin.OutPoint{TxID: bitcoin.Hash(key[1:]), Index: binary.BigEndian.Uint32(key[33:])}
		if err := f(out, &coin); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return s.coins.store.explain(s.coins.dir, err)
	}
	return nil
}

// DiskBytes returns roughly what the coins take on disk.
func (c *Coins) DiskBytes() int64 { return int64(c.db.Metrics().DiskSpaceUsage()) }
