// Package chain decides which of all valid chains of blocks is the best one, and keeps the node on
// it: the one with most work, the first seen where two have the same.
//
// It keeps the tree of all headers in memory, blocks and coins in a blockstore.Store, unconfirmed
// transactions in a mempool.Pool. Headers come by AddHeaders, blocks by Add, transactions by AddTx,
// in any order and from any goroutine. Whether they are valid is the judgement of package
// consensus; this one sees to it that each block meets the state that it builds on.
//
// # Threads
//
// All exported methods may be called from any goroutine. One mutex guards tree, tip and mempool; it
// is never held over a read or write of a block, over scripts or over a call to someone else's
// code, with the one exception of the function given to Mempool, which must be short and must not
// call the Chain. Who adds a block moves the chain: Add returns when the block has been judged, so
// call it from several goroutines to have blocks parsed, connected and verified at the same time.
// No goroutine outlives the call that started it, Run excepted.
//
// What methods return is a copy and stays true of the moment of the call. Who follows the chain
// keeps a Cursor, waits to be woken (OnTip) and asks for UpdatesSince: wake-ups carry no data and
// may be fewer than the changes.
//
// # Errors
//
// A block, header or transaction that is not valid gives a *consensus.Error. Any other error is
// about this node: its disk, or the context. After a failed write the Chain moves no further and
// every method that would returns the first failure; Fatal tells of it.
//
// Not here: fetching blocks from peers and the defence against floods of headers (p2p), making
// blocks (miner), the rules (consensus), policy (mempool), indexes that follow the chain (index).
package chain

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/mempool"
	"github.com/tallypost/tallypost/bitcoin/script"
	"github.com/tallypost/tallypost/bitcoin/secp"
	"github.com/tallypost/tallypost/internal/clock"
)

// MinBlocksToKeep is how many blocks below the tip are never pruned, and how far ahead of it a
// block that nobody asked for may be (Bitcoin Core validation.h, MIN_BLOCKS_TO_KEEP).
const MinBlocksToKeep = 288

// Config of a Chain. Network is needed; the rest has defaults.
type Config struct {
	Network *bitcoin.Network
	Clock   clock.Clock  // nil: the machine's
	Log     *slog.Logger // nil: none

	// MinimumChainWork is the work below which a chain is not taken for the network's (Core's
	// -minimumchainwork). nil: the network's.
	MinimumChainWork *bitcoin.Uint256
	// AssumeValid is a block whose ancestors' scripts are not run (Core's -assumevalid). nil: the
	// network's; the zero hash: run all scripts.
	AssumeValid *bitcoin.Hash
	// MaxTipAge is how old the tip may be for the initial download to count as done (Core's
	// -maxtipage). 0: 24 hours.
	MaxTipAge time.Duration
	// ScriptWorkers is the number of goroutines that run scripts (Core's -par). 0: one for each
	// processor.
	ScriptWorkers int
	// SigCacheBytes is the memory for signatures that are known to be valid (Core's
	// -maxsigcachesize). 0: 32 MiB.
	SigCacheBytes int
	// Engine verifies signatures. nil: secp.Default.
	Engine secp.Engine
	// Prune is how many octets blocks and undo data may take: old files are deleted then (Core's
	// -prune, in MiB). 0: all are kept; PruneManual: only PruneTo deletes.
	Prune int64
	// FastPrune lets pruning begin at a lesser height, for tests (Core's -fastprune).
	FastPrune bool
	// StopAt, where not 0, ends the way of the chain at the first new tip of this height or above;
	// Stopped tells of it (Core's -stopatheight).
	StopAt bitcoin.Height
	// HeadersOnly keeps the chain of headers alone: the tip is the best header, no block is taken,
	// no script run, no coin known. What it says rests on proof of work, not on the rules.
	HeadersOnly bool
	// Mempool is for the unconfirmed transactions.
	Mempool mempool.Config
}

func (c *Config) fill() error {
	if c.Network == nil {
		return errors.New("chain: no network")
	}
	if c.Clock == nil {
		c.Clock = clock.Real{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.MinimumChainWork == nil {
		c.MinimumChainWork = &c.Network.MinimumChainWork
	}
	if c.AssumeValid == nil {
		c.AssumeValid = &c.Network.AssumeValid
	}
	if c.MaxTipAge == 0 {
		c.MaxTipAge = 24 * time.Hour
	}
	if c.ScriptWorkers <= 0 {
		c.ScriptWorkers = runtime.GOMAXPROCS(0)
	}
	if c.SigCacheBytes == 0 {
		c.SigCacheBytes = 32 << 20
	}
	return nil
}

// Chain keeps the best chain.
type Chain struct {
	cfg      Config
	store    *blockstore.Store
	tipWakes wakes
	txWakes  wakes
	runner   consensus.ScriptRunner

	// main is the chainstate that tip and mempool follow.
	main *chainstate
	// history validates the chain up to the block of the snapshot that main was built on; nil where there
	// is none, or none any more. Both change with mu held and by the mover.
	history *chainstate
	atBase  chan struct{} // closed when history has come there
	behind  atomic.Bool   // history is there: old blocks are missing

	flushing sync.Mutex // held while the store is flushed; before mu

	mu      sync.Mutex    // guards all below
	moving  bool          // somebody is the mover
	waiting int           // callers who want the chain to move
	changes chan struct{} // closed with every change
	news    chan struct{} // closed when a block has arrived

	tree tree
	best node // the header with most work that is not known to be invalid
	// bestInvalid is the block with most work of those that are known to be invalid, or none.
	bestInvalid node
	candidates  candidates
	unlinked    map[node][]node // blocks that are here before their parents, by parent
	ready       map[node]*consensus.Candidate
	readyBytes  int
	losersAt    bitcoin.Height // see forgetLosers
	failures    map[node]*consensus.Error
	states      states
	dirty       []node // records that the store has not seen
	sequence    int32  // of the next block that arrives
	precious    preciousCount
	synced      bool // the initial download is done; that is so for good
	importing   int  // imports under way
	loading     bool // a snapshot is being loaded
	progress    *ImportProgress
	fatal       error
	halted      chan struct{} // closed with the first failure
	stopped     chan struct{} // closed when the tip has come to StopAt
	pruned      bool          // block files were deleted, once

	unflushed  int // octets of blocks that were written since the index was
	flushed    time.Time
	pruneLocks map[string]bitcoin.Height
	detours    []Cursor // see Detours; a reorganization adds one

	pool *mempool.Pool
	lost lost // see disconnect
	// reorganizing says that blocks were taken back whose transactions are not in the pool again;
	// none can enter meanwhile. settled is for waiting until that is over.
	reorganizing bool
	settled      sync.Cond
}

// New returns the chain that the store holds; a store that is new gets the genesis block. It starts
// nothing.
func New(cfg Config, store *blockstore.Store) (*Chain, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	c := &Chain{
		cfg:        cfg,
		store:      store,
		main:       &chainstate{coins: store.Coins(), base: none},
		atBase:     make(chan struct{}),
		changes:    make(chan struct{}),
		news:       make(chan struct{}),
		unlinked:   make(map[node][]node),
		ready:      make(map[node]*consensus.Candidate),
		failures:   make(map[node]*consensus.Error),
		pruneLocks: make(map[string]bitcoin.Height),
		flushed:    cfg.Clock.Now(),
		sequence:   firstSequence,
		halted:     make(chan struct{}),
		stopped:    make(chan struct{}),
	}
	c.settled.L = &c.mu
	var salt [32]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return nil, err
	}
	c.runner = consensus.ScriptRunner{
		Workers: cfg.ScriptWorkers,
		Engine:  cfg.Engine,
		Cache:   script.NewSigCache(cfg.SigCacheBytes, salt),
	}
	var err error
	if cfg.Mempool.Log == nil {
		cfg.Mempool.Log = cfg.Log
	}
	if c.pool, err = mempool.New(cfg.Mempool); err != nil {
		return nil, err
	}
	if err := c.load(); err != nil {
		return nil, fmt.Errorf("load the chain: %w", err)
	}
	return c, nil
}

// Network returns the network of the chain.
func (c *Chain) Network() *bitcoin.Network { return c.cfg.Network }

// HeadersOnly reports whether the chain of headers is all that is kept.
func (c *Chain) HeadersOnly() bool { return c.cfg.HeadersOnly }

// Fatal returns the failure of this node that stopped the chain, or nil.
func (c *Chain) Fatal() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fatal
}

// Stopped returns a channel that is closed when the tip has come to Config.StopAt.
func (c *Chain) Stopped() <-chan struct{} { return c.stopped }

// isStopped reports whether the tip has come to Config.StopAt. The caller holds mu.
func (c *Chain) isStopped() bool {
	select {
	case <-c.stopped:
		return true
	default:
		return false
	}
}

// InitialDownload reports whether the node is still catching up with the network, as its tip has too
// little work or is too old, or blocks are being imported. Once it is not, it never is again (Bitcoin
// Core validation.cpp, IsInitialBlockDownload).
func (c *Chain) InitialDownload() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.initialDownload()
}

// initialDownload is InitialDownload for who holds mu.
func (c *Chain) initialDownload() bool {
	if c.synced {
		return false
	}
	tip := c.tree.at(c.tip())
	if c.importing > 0 || tip.work.uint256().Cmp(*c.cfg.MinimumChainWork) < 0 ||
		c.cfg.Clock.Now().Sub(time.Unix(int64(tip.time), 0)) > c.cfg.MaxTipAge {
		return true
	}
	c.synced = true
	c.rebalance()
	return false
}

// touch notes that the record of a block has changed. The caller holds mu.
func (c *Chain) touch(n node) {
	if h := c.tree.at(n); h.status&unsaved == 0 {
		h.status |= unsaved
		c.dirty = append(c.dirty, n)
	}
}

// unsaved marks records in memory that the store has not seen. It is never stored.
const unsaved status = 1 << 15

// tip returns the last block of the best chain. The caller holds mu.
func (c *Chain) tip() node { return c.main.tip() }

// isActive reports whether a block is part of the best chain. The caller holds mu.
func (c *Chain) isActive(n node) bool { return c.main.has(&c.tree, n) }

// state returns the State of a block. The caller holds mu.
func (c *Chain) state(n node) consensus.State { return c.states.of(&c.tree, n) }
