package chain

import (
	"errors"
	"fmt"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

type status = blockstore.Status

// Errors that callers branch on.
var (
	// ErrUnknownBlock: there is no header with this hash.
	ErrUnknownBlock = errors.New("block not found")
	// ErrNoData: the header is known, the block has never been here.
	ErrNoData = errors.New("block not downloaded")
	// ErrPruned: the block has been here and was deleted.
	ErrPruned = errors.New("block pruned")
	// ErrNoUndo: the block is here, but was never connected, or its undo data are pruned.
	ErrNoUndo = errors.New("no undo data")
)

// Entry is what the chain knows of a block at the moment of asking.
type Entry struct {
	Hash     bitcoin.Hash
	Height   bitcoin.Height
	Header   bitcoin.Header
	Work     bitcoin.Uint256 // of all headers up to this one
	Median   uint32          // median time past
	Status   blockstore.Status
	Active   bool   // part of the best chain
	Txs      uint32 // transactions of the block; 0 where it has never been here
	ChainTxs uint64 // transactions up to here; 0 where some block on the way has never been here
	File     int32  // number of the blk and rev files that have it, if Status says so
}

// entry returns the Entry of a node. The caller holds mu.
func (c *Chain) entry(n node) Entry {
	h, b := c.tree.at(n), c.tree.body(n)
	return Entry{
		Hash:     h.hash,
		Height:   h.height,
		Header:   c.tree.header(n),
		Work:     h.work.uint256(),
		Median:   c.tree.median(n),
		Status:   h.status &^ unsaved,
		Active:   c.isActive(n),
		Txs:      b.txs,
		ChainTxs: b.chainTxs,
		File:     b.file,
	}
}

// Tip returns the last block of the best chain.
func (c *Chain) Tip() Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entry(c.tip())
}

// BestHeader returns the header with most work that is not known to be invalid. Its block may be
// missing.
func (c *Chain) BestHeader() Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entry(c.best)
}

// Lookup returns the block with a hash.
func (c *Chain) Lookup(hash bitcoin.Hash) (Entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.maybeEntry(c.tree.find(&hash))
}

// AtHeight returns the block of the best chain at a height.
func (c *Chain) AtHeight(height bitcoin.Height) (Entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if height < 0 || int(height) >= len(c.main.active) {
		return Entry{}, false
	}
	return c.entry(c.main.active[height]), true
}

// Ancestor returns the ancestor of a block at a height; a block is its own.
func (c *Chain) Ancestor(hash bitcoin.Hash, height bitcoin.Height) (Entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.maybeEntry(c.tree.ancestor(c.tree.find(&hash), height))
}

// Fork returns the last block that is common to the branches of two.
func (c *Chain) Fork(a, b bitcoin.Hash) (Entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x, y := c.tree.find(&a), c.tree.find(&b)
	if x == none || y == none {
		return Entry{}, false
	}
	return c.entry(c.tree.fork(x, y)), true
}

// Path returns up to max blocks on the way to the one with this hash, from a height upwards: what
// to fetch next, for instance.
func (c *Chain) Path(hash bitcoin.Hash, from bitcoin.Height, max int) []Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.tree.find(&hash)
	if n == none || from < 0 || from > c.tree.at(n).height || max <= 0 {
		return nil
	}
	last := min(int(c.tree.at(n).height), int(from)+max-1)
	path := make([]Entry, last-int(from)+1)
	n = c.tree.ancestor(n, bitcoin.Height(last))
	for i := len(path) - 1; i >= 0; i-- {
		path[i] = c.entry(n)
		n = c.tree.at(n).parent
	}
	return path
}

func (c *Chain) maybeEntry(n node) (Entry, bool) {
	if n == none {
		return Entry{}, false
	}
	return c.entry(n), true
}

// State returns what the headers up to a block say about its successor: difficulty, versions,
// deployments, median time.
func (c *Chain) State(hash bitcoin.Hash) (consensus.State, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.tree.find(&hash)
	if n == none {
		return consensus.State{}, false
	}
	return c.state(n), true
}

// RawBlock returns the octets of a block. The error wraps ErrUnknownBlock, ErrNoData or ErrPruned
// where there is none to return.
func (c *Chain) RawBlock(hash bitcoin.Hash) ([]byte, error) {
	pos, err := c.position(hash)
	if err != nil {
		if reindexing, _ := c.store.Reindexing(); reindexing && hash == c.cfg.Network.Genesis.Hash() {
			return c.cfg.Network.Genesis.Append(nil), nil // its place in the files is not known yet
		}
		return nil, err
	}
	return c.store.ReadBlock(pos, hash)
}

// Block returns a block, parsed; the errors are those of RawBlock.
func (c *Chain) Block(hash bitcoin.Hash) (*bitcoin.Block, error) {
	raw, err := c.RawBlock(hash)
	if err != nil {
		return nil, err
	}
	return bitcoin.ParseBlock(raw)
}

// position returns where a block stands, if it is here.
func (c *Chain) position(hash bitcoin.Hash) (blockstore.Pos, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.tree.find(&hash)
	if n == none {
		return blockstore.Pos{}, fmt.Errorf("%w: %v", ErrUnknownBlock, hash)
	}
	b := c.tree.body(n)
	switch {
	case c.tree.at(n).status&blockstore.HaveData != 0:
		return blockstore.Pos{File: b.file, Offset: b.data}, nil
	case b.txs != 0:
		return blockstore.Pos{}, fmt.Errorf("%w: %v", ErrPruned, hash)
	}
	return blockstore.Pos{}, fmt.Errorf("%w: %v", ErrNoData, hash)
}

// Undo returns the coins that a block spends, one for each input but the coinbase's. The error
// wraps ErrUnknownBlock or ErrNoUndo where there are none to return.
func (c *Chain) Undo(hash bitcoin.Hash) (consensus.Spent, error) {
	c.mu.Lock()
	n := c.tree.find(&hash)
	if n == none {
		c.mu.Unlock()
		return consensus.Spent{}, fmt.Errorf("%w: %v", ErrUnknownBlock, hash)
	}
	h, b := c.tree.at(n), c.tree.body(n)
	if h.parent == none {
		c.mu.Unlock()
		return consensus.Spent{}, nil
	}
	if h.status&blockstore.HaveUndo == 0 {
		c.mu.Unlock()
		return consensus.Spent{}, fmt.Errorf("%w: %v", ErrNoUndo, hash)
	}
	pos, prev := blockstore.Pos{File: b.file, Offset: b.undo}, c.tree.at(h.parent).hash
	c.mu.Unlock()
	return c.store.ReadUndo(pos, prev)
}
