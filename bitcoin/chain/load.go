package chain

import (
	"errors"
	"fmt"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
)

// load takes the index from the store, or begins it.
func (c *Chain) load() error {
	c.states.init(c.cfg.Network)
	c.candidates.tree = &c.tree
	snapshot, err := c.findSnapshot()
	if err != nil {
		return err
	}
	load := func(r *blockstore.Record) error { return c.loadRecord(r, snapshot) }
	if err := c.store.Records(load); err != nil {
		return err
	}
	if c.tree.n == 0 {
		if err := c.begin(); err != nil {
			return err
		}
	}
	if c.pruned, err = c.store.Flag(flagPruned); err != nil {
		return err
	}
	if c.pruned {
		c.cfg.Log.Info("Loading block index db: Block files have previously been pruned")
	}
	if c.pruned && c.cfg.Prune == 0 {
		return ErrUnprune
	}
	if snapshot != nil {
		if err := c.resumeHistory(snapshot); err != nil {
			return err
		}
	}
	for _, s := range c.chainstates() {
		if err := c.loadTip(s); err != nil {
			return err
		}
	}
	c.beginHistory()
	c.findBest()
	c.findInvalid()
	if c.cfg.HeadersOnly {
		c.follow()
	}
	c.renominate()
	return nil
}

// loadRecord adds a block of the index to the tree; its parent is there.
func (c *Chain) loadRecord(r *blockstore.Record, snapshot *bitcoin.Snapshot) error {
	parent := none
	if c.tree.n > 0 {
		parent = c.tree.find(&r.Header.PrevBlock)
	}
	switch {
	case r.Header.Hash() != r.Hash:
		return fmt.Errorf("%w: record of block %v in the block index", blockstore.ErrCorrupt, r.Hash)
	case c.tree.n == 0 && r.Hash != c.cfg.Network.Genesis.Hash():
		return ErrWrongGenesis
	case c.tree.n > 0 && (parent == none || c.tree.at(parent).height+1 != r.Height):
		return fmt.Errorf("%w: block %v has no parent in the block index", blockstore.ErrCorrupt, r.Hash)
	}
	n := c.tree.add(&r.Header, &r.Hash, parent)
	c.tree.at(n).status = r.Status
	isBase := snapshot != nil && snapshot.Block == r.Hash
	if isBase {
		c.tree.ownBody(n).chainTxs = snapshot.ChainTxs
	}
	if r.Txs == 0 {
		return nil
	}
	own := c.tree.ownBody(n)
	own.txs, own.file, own.data, own.undo = r.Txs, r.File, r.Data, r.Undo
	own.sequence = loadedSequence
	switch {
	case parent == none:
		own.chainTxs = uint64(r.Txs)
	case c.tree.body(parent).chainTxs != 0:
		own.chainTxs = c.tree.body(parent).chainTxs + uint64(r.Txs)
	default:
		c.unlinked[parent] = append(c.unlinked[parent], n)
	}
	return nil
}

// begin writes the first block of a new store. Its coinbase creates no coin.
func (c *Chain) begin() error {
	genesis := c.cfg.Network.Genesis
	hash := genesis.Hash()
	root := c.tree.add(&genesis.Header, &hash, none)
	own := c.tree.ownBody(root)
	own.txs, own.chainTxs = uint32(len(genesis.Txs)), uint64(len(genesis.Txs))
	c.tree.at(root).status = blockstore.Verified
	c.touch(root)
	reindexing, err := c.store.Reindexing()
	if err != nil || reindexing { // the block is in the files
		return err
	}
	pos, err := c.store.WriteBlock(genesis, 0)
	if err != nil {
		return err
	}
	own.file, own.data = pos.File, pos.Offset
	c.tree.at(root).status |= blockstore.HaveData
	return nil
}

// loadTip sets the blocks of a chainstate to where its coins are. A chain of headers begins at the first
// block.
func (c *Chain) loadTip(s *chainstate) error {
	tip := node(0)
	if best := s.coins.Best(); best != (bitcoin.Hash{}) && !c.cfg.HeadersOnly {
		if tip = c.tree.find(&best); tip == none {
			return fmt.Errorf("%w: the coins are those of block %v, which the index does not have",
				ErrNoTip, best)
		}
	}
	s.active = make([]node, c.tree.at(tip).height+1)
	for n := tip; n != none; n = c.tree.at(n).parent {
		s.active[c.tree.at(n).height] = n
		if c.tree.body(n).txs != 0 {
			c.tree.ownBody(n).sequence = activeSequence
		}
	}
	for n := tip; n != none; n = c.tree.at(n).parent {
		h := c.tree.at(n)
		if h.height < c.cfg.Network.SegwitHeight {
			break
		}
		if h.status&blockstore.NoWitness != 0 {
			return ErrNoWitness
		}
	}
	return nil
}

// What can be wrong with a store that is sound by itself.
var (
	// ErrNoTip: the coins belong to a block that the index does not have.
	ErrNoTip = errors.New("index and coins do not belong together")
	// ErrUnprune: blocks were deleted that the node is now to keep.
	ErrUnprune = errors.New("You need to rebuild the database using -reindex to go back to unpruned " +
		"mode.  This will redownload the entire blockchain")
	// ErrNoWitness: blocks were taken by older rules than those of now.
	ErrNoWitness = errors.New("witness data of blocks were not checked")
	// ErrWrongGenesis: the store is that of another network.
	ErrWrongGenesis = errors.New("Incorrect or no genesis block found. Wrong datadir for network?")
)

// The order of arrival of blocks that were here before: of several with the same work, the one that was
// the tip is preferred again (Bitcoin Core chain.h, SEQ_ID_BEST_CHAIN_FROM_DISK and the next).
const (
	activeSequence = 0
	loadedSequence = 1
	firstSequence  = 2 // of blocks that arrive
)

// renominate looks for candidates among all blocks. The caller holds mu.
func (c *Chain) renominate() {
	c.candidates.nodes = nil
	for n := range node(c.tree.n) {
		if c.tree.at(n).status&blockstore.Invalid == 0 && c.tree.body(n).chainTxs != 0 {
			c.nominate(n)
		}
	}
}

// record returns what is to be stored of a block. The caller holds mu.
func (c *Chain) record(n node) blockstore.Record {
	h, b := c.tree.at(n), c.tree.body(n)
	return blockstore.Record{
		Header: c.tree.header(n),
		Hash:   h.hash,
		Height: h.height,
		Status: h.status &^ unsaved,
		Txs:    b.txs,
		File:   b.file,
		Data:   b.data,
		Undo:   b.undo,
	}
}
