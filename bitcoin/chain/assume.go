package chain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// LoadSnapshot makes the coins of a file, as of a block that the network's parameters have their hash of,
// the best chain's; the blocks up to it are validated afterwards, as they come. The head of the file was
// read, its coins follow. The block's header must be known. It returns the block; errors that are not the
// disk's are by the words of Bitcoin Core (validation.cpp, ActivateSnapshot and
// PopulateAndValidateSnapshot). After an error, also where ctx ends early, all is as before.
func (c *Chain) LoadSnapshot(
	ctx context.Context, head blockstore.SnapshotHead, coins io.Reader,
) (Entry, error) {
	l, err := c.beginLoad(head)
	if err != nil {
		return Entry{}, err
	}
	defer c.endLoad()
	if l.coins, err = c.store.BeginAssumed(); err != nil {
		return Entry{}, err
	}
	err = l.populate(ctx, coins)
	if err == nil {
		err = c.alone(ctx, l.activate)
	}
	if err != nil {
		return Entry{}, l.drop(err)
	}
	c.tipWakes.wake()
	entry, _ := c.Lookup(head.Base)
	return entry, nil
}

// snapshotLoad is the load of a snapshot that is under way.
type snapshotLoad struct {
	c     *Chain
	head  blockstore.SnapshotHead
	known *bitcoin.Snapshot // what the network's parameters say of it
	base  node
	coins *blockstore.Coins
}

// beginLoad looks whether a snapshot can be loaded, and makes room for it.
func (c *Chain) beginLoad(head blockstore.SnapshotHead) (*snapshotLoad, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &snapshotLoad{c: c, head: head, known: c.cfg.Network.Snapshot(head.Base),
		base: c.tree.find(&head.Base)}
	switch {
	case c.fatal != nil:
		return nil, c.fatal
	case c.cfg.HeadersOnly:
		return nil, errors.New("a node that keeps headers only has no coins")
	case c.main.base != none || c.loading:
		return nil, errors.New("Can't activate a snapshot-based chainstate more than once")
	case l.known == nil:
		var heights []string
		for _, s := range c.cfg.Network.Snapshots {
			heights = append(heights, strconv.Itoa(int(s.Height)))
		}
		return nil, fmt.Errorf("assumeutxo block hash in snapshot metadata not recognized (hash: %v). The "+
			"following snapshot heights are available: %s", head.Base, strings.Join(heights, ", "))
	case l.base == none:
		return nil, fmt.Errorf("The base block header (%v) must appear in the headers chain. Make sure all "+
			"headers are syncing, and call loadtxoutset again", head.Base)
	}
	if err := l.stillFits(); err != nil {
		return nil, err
	}
	c.loading = true
	c.main.coins.SetLimit(c.store.CacheLimit() / 100) // the snapshot has the rest until it is loaded
	return l, nil
}

// stillFits reports whether the snapshot goes with what we know of headers and transactions. The caller
// holds mu.
func (l *snapshotLoad) stillFits() error {
	c := l.c
	switch {
	case c.tree.at(l.base).status&blockstore.Invalid != 0:
		return fmt.Errorf("The base block header (%v) is part of an invalid chain", l.head.Base)
	case !c.tree.isAncestor(l.base, c.best):
		return errors.New("A forked headers-chain with more work than the chain with the snapshot base block " +
			"header exists. Please proceed to sync without AssumeUtxo.")
	case c.pool.Len() > 0:
		return errors.New("Can't activate a snapshot when mempool not empty")
	}
	return nil
}

func (c *Chain) endLoad() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loading = false
	c.rebalance()
}

// drop removes what was loaded, and returns why.
func (l *snapshotLoad) drop(reason error) error {
	if err := l.c.store.DropAssumed(l.coins); err != nil {
		l.c.halt(&Failure{"Failed to remove snapshot chainstate dir (chainstate_snapshot). Manually remove " +
			"it before restarting.", err})
	}
	return reason
}

// populationFailed puts an error of populate into Core's frame.
func populationFailed(err error) error { return fmt.Errorf("Population failed: %w", err) }

// populate reads the coins, makes them durable and compares their hash. The chain goes on meanwhile.
func (l *snapshotLoad) populate(ctx context.Context, r io.Reader) error {
	c := l.c
	c.mu.Lock()
	better := c.tree.better(l.base, c.tip())
	c.mu.Unlock()
	if !better {
		return populationFailed(errors.New("Work does not exceed active chainstate"))
	}
	if err := l.read(ctx, r); err != nil {
		return populationFailed(err)
	}
	sum, err := sumOf(ctx, l.coins)
	switch {
	case ctx.Err() != nil:
		return populationFailed(errors.New("Aborting after an interrupt was requested"))
	case err != nil:
		return populationFailed(err)
	case sum.Hash != l.known.CoinsHash:
		return populationFailed(fmt.Errorf("Bad snapshot content hash: expected %v, got %v",
			l.known.CoinsHash, sum.Hash))
	}
	used, _ := l.coins.CacheUsage()
	c.cfg.Log.Info(fmt.Sprintf("[snapshot] validated snapshot (%.2f MB)", float64(used)/1e6))
	return nil
}

// loadLogInterval is how many coins there are between two words about how far a load has come.
const loadLogInterval = 1_000_000

func (l *snapshotLoad) read(ctx context.Context, r io.Reader) error {
	c, read := l.c, uint64(0)
	c.cfg.Log.Info(fmt.Sprintf("[snapshot] loading %d coins from snapshot %v", l.head.Coins, l.head.Base))
	err := blockstore.ReadSnapshotCoins(ctx, r, l.head, l.known.Height,
		func(out bitcoin.OutPoint, coin *consensus.Coin) error {
			full := l.coins.Load(out, coin)
			if read++; read%loadLogInterval == 0 {
				used, _ := l.coins.CacheUsage()
				c.cfg.Log.Info(fmt.Sprintf("[snapshot] %d coins loaded (%.2f%%, %.2f MB)", read,
					100*float64(read)/float64(l.head.Coins), float64(used)/1e6))
			}
			if !full {
				return nil
			}
			c.cfg.Log.Info("[snapshot] flushing coins cache")
			return l.coins.FlushLoaded(bitcoin.Hash{})
		})
	if err != nil {
		return err
	}
	used, _ := l.coins.CacheUsage()
	c.cfg.Log.Info(fmt.Sprintf("[snapshot] loaded %d (%.2f MB) coins from snapshot %v", l.head.Coins,
		float64(used)/1e6, l.head.Base))
	return l.coins.FlushLoaded(l.head.Base)
}

// sumOf counts and hashes coins as they were at the last flush.
func sumOf(ctx context.Context, coins *blockstore.Coins) (sum blockstore.Dumped, err error) {
	s, err := coins.Snapshot()
	if err != nil {
		return sum, err
	}
	sum, err = s.Sum(ctx)
	return sum, errors.Join(err, s.Close())
}

// activate makes the chain go on from the snapshot. The caller is the mover.
func (l *snapshotLoad) activate() error {
	c := l.c
	c.mu.Lock()
	err := l.stillFits()
	if err == nil && !c.tree.better(l.base, c.tip()) {
		err = errors.New("work does not exceed active chainstate")
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if err := c.flushAll(); err != nil { // the index must know the block before the coins count
		return err
	}
	if err := c.store.KeepAssumed(l.coins, l.head.Base); err != nil {
		return c.halt(failure("System error while flushing", err))
	}
	if err := c.store.SplitFiles(l.known.Height); err != nil {
		return c.halt(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	main := &chainstate{coins: l.coins, base: l.base, active: make([]node, l.known.Height+1)}
	for n := l.base; n != none; n = c.tree.at(n).parent {
		main.active[c.tree.at(n).height] = n
	}
	c.history, c.main = c.main, main
	c.behind.Store(true)
	c.tree.ownBody(l.base).chainTxs = l.known.ChainTxs
	c.link(c.takeUnlinked(l.base)...)
	c.renominate()
	c.rebalance()
	if c.history.tip() == c.main.base {
		close(c.atBase)
	}
	c.changed()
	used, _ := l.coins.CacheUsage()
	c.cfg.Log.Info(fmt.Sprintf("[snapshot] successfully activated snapshot %v", l.head.Base))
	c.cfg.Log.Info(fmt.Sprintf("[snapshot] (%.2f MB)", float64(used)/1e6))
	return nil
}

// takeUnlinked returns the blocks that have waited for one, which wait no longer. The caller holds mu.
func (c *Chain) takeUnlinked(parent node) []node {
	waited := c.unlinked[parent]
	delete(c.unlinked, parent)
	return waited
}

// ValidateSnapshot compares the coins of the history with what the network's parameters have for the
// snapshot's block, once the history has come there: then the chain built on the snapshot is fully
// validated and the history ends. done is false where there is nothing to compare yet. The chain goes on
// meanwhile; where ctx ends early the comparison is made another time. A *Failure says that the snapshot
// was wrong: its coins are put aside, and the next start goes on from the history (Bitcoin Core
// validation.cpp, MaybeCompleteSnapshotValidation).
func (c *Chain) ValidateSnapshot(ctx context.Context) (done bool, err error) {
	if !c.historyDone() {
		return false, nil
	}
	var coins *blockstore.Snapshot
	err = c.alone(ctx, func() (err error) {
		if err := c.flushAll(); err != nil {
			return err
		}
		coins, err = c.history.coins.Snapshot()
		return err
	})
	if err != nil {
		return false, err
	}
	c.cfg.Log.Info("[snapshot] computing UTXO stats for background chainstate to validate snapshot - this " +
		"could take a few minutes")
	sum, err := coins.Sum(ctx)
	if err := errors.Join(err, coins.Close()); err != nil {
		return false, err
	}
	_, base, _ := c.Background()
	if want := c.cfg.Network.Snapshot(base.Hash).CoinsHash; sum.Hash != want {
		c.cfg.Log.Warn(fmt.Sprintf("[snapshot] hash mismatch: actual=%v, expected=%v", sum.Hash, want))
		return false, c.alone(ctx, c.rejectSnapshot)
	}
	c.cfg.Log.Info(fmt.Sprintf("[snapshot] snapshot beginning at %v has been fully validated", base.Hash))
	return true, c.alone(ctx, c.endHistory)
}

// endHistory leaves the chain with the one chainstate that was built on a snapshot. The caller is the mover.
func (c *Chain) endHistory() error {
	c.history.abort()
	c.mu.Lock()
	c.history, c.atBase = nil, nil
	c.behind.Store(false)
	c.cfg.Log.Info("[snapshot] allocating all cache to the snapshot chainstate")
	c.rebalance()
	c.renominate()
	c.changed()
	c.mu.Unlock()
	if err := c.store.Retire(); err != nil {
		return c.halt(failure("System error while flushing", err))
	}
	if c.cfg.Prune == 0 {
		c.cfg.Log.Info("[snapshot] re-enabling NODE_NETWORK services")
	}
	c.cfg.Log.Info("[snapshot] restarting indexes")
	c.tipWakes.wake()
	return nil
}

// rejectSnapshot leaves the chain with its history, which is all that is true, and stops it: whatever was
// done on the snapshot's word is not to be believed. The caller is the mover.
func (c *Chain) rejectSnapshot() error {
	c.abort()
	c.mu.Lock()
	tip, base := c.tree.at(c.tip()).height, c.tree.at(c.main.base).height
	c.main, c.history, c.atBase = c.history, nil, nil
	c.behind.Store(false)
	c.changed()
	c.mu.Unlock()
	text := fmt.Sprintf("Tallypost failed to validate the -assumeutxo snapshot state. This indicates a "+
		"hardware problem, or a bug in the software, or a bad software modification that allowed an invalid "+
		"snapshot to be loaded. As a result of this, the node will shut down and stop using any state that was "+
		"built on the snapshot, resetting the chain height from %d to %d. On the next restart, the node will "+
		"resume syncing from %d without using any snapshot data. Please report this incident, including how "+
		"you obtained the snapshot. The invalid snapshot chainstate will be left on disk in case it is helpful "+
		"in diagnosing the issue that caused this error.", tip, base, base)
	c.cfg.Log.Error("[snapshot] !!! " + text)
	c.cfg.Log.Error("[snapshot] deleting snapshot, reverting to validated chain, and stopping node")
	if err := c.store.RejectAssumed(); err != nil {
		text += "\n" + err.Error()
	}
	return c.halt(&Failure{text, errBadSnapshot})
}

var errBadSnapshot = errors.New("the snapshot does not agree with the blocks before it")
