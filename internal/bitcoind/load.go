package bitcoind

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
)

// DatabaseError says that blocks or coins cannot be used as they are on disk, and what helps. Its text is
// Core's, which stands alone on standard error (Bitcoin Core init.cpp, AppInitMain).
type DatabaseError struct {
	Text  string
	Cause error // nil: the text says all
}

// Error returns the text, with the cause.
func (e *DatabaseError) Error() string {
	text := e.Text
	if e.Cause != nil {
		text += ": " + oneLine(e.Cause.Error())
	}
	return ": " + text + ".\nPlease restart with -reindex or -reindex-chainstate to recover."
}

// Unwrap returns the cause.
func (e *DatabaseError) Unwrap() error { return e.Cause }

// fatalText is what is said of a failure that ends a running node.
const fatalText = "A fatal internal error occurred, see debug.log for details: "

// Report returns what is to be printed on standard error for an error of New or Run.
func Report(err error) string {
	var database *DatabaseError
	var failure *chain.Failure
	switch {
	case errors.As(err, &database):
		return database.Error()
	case errors.As(err, &failure):
		return "Error: " + fatalText + failure.Text
	}
	return "Error: " + err.Error()
}

// load opens the store and the chain in it, and looks whether the last blocks are in order.
func (n *Node) load(ctx context.Context) error {
	n.warmup("Loading block index…")
	n.logChoices()
	s := &n.cfg.Storage
	err := n.openChain(ctx, s.Reindex)
	var database *DatabaseError
	if !errors.As(err, &database) || s.Reindex || !s.ReindexAfterFailure {
		return err
	}
	n.log.Warn("The databases are made anew.", "err", err)
	return n.openChain(ctx, true)
}

// logChoices tells what was chosen that matters for what is on disk.
func (n *Node) logChoices() {
	assumed, work := n.cfg.Network.AssumeValid, n.cfg.Network.MinimumChainWork
	if n.cfg.AssumeValid != nil {
		assumed = *n.cfg.AssumeValid
	}
	if n.cfg.MinimumWork != nil {
		work = *n.cfg.MinimumWork
	}
	if assumed == (bitcoin.Hash{}) {
		n.log.Info("Validating signatures for all blocks.")
	} else {
		n.log.Info(fmt.Sprintf("Assuming ancestors of block %v have valid signatures.", assumed))
	}
	n.log.Info(fmt.Sprintf("Setting nMinimumChainWork=%v", work))
	if work.Cmp(n.cfg.Network.MinimumChainWork) < 0 {
		n.log.Warn(fmt.Sprintf("nMinimumChainWork set below default value of %v",
			n.cfg.Network.MinimumChainWork))
	}
	s := &n.cfg.Storage
	switch {
	case s.Prune == chain.PruneManual:
		n.log.Info("Block pruning enabled. Use RPC call pruneblockchain(height) to manually prune block " +
			"and undo files.")
	case s.Prune > 0:
		n.log.Info(fmt.Sprintf("Prune configured to target %d MiB on disk for block and undo files.",
			s.Prune>>20))
	}
	n.log.Info(fmt.Sprintf("Using %.1f MiB for databases and the in-memory UTXO set",
		float64(s.CacheBytes)/(1<<20)))
}

// openChain opens everything. After an error nothing is open.
func (n *Node) openChain(ctx context.Context, reindex bool) (err error) {
	defer func() {
		if err != nil && n.store != nil {
			err = firstOf(err, n.store.Close())
			n.store, n.chain = nil, nil
		}
	}()
	if err := n.openStore(reindex); err != nil {
		return err
	}
	if err := n.newChain(); err != nil {
		return err
	}
	if err := n.finishSnapshot(ctx); err != nil {
		return err
	}
	tip := n.chain.Tip()
	n.log.Info(fmt.Sprintf("Loaded best chain: hashBestChain=%v height=%d date=%s progress=%f", tip.Hash,
		tip.Height, time.Unix(int64(tip.Header.Time), 0).UTC().Format(time.RFC3339),
		n.chain.Progress(tip.Hash)))
	return n.verify(ctx)
}

// newChain makes the chain that the store holds. Its errors are told by Core's words.
func (n *Node) newChain() (err error) {
	n.chain, err = chain.New(chain.Config{
		Network: n.cfg.Network, Clock: n.clock, Log: n.log, MinimumChainWork: n.cfg.MinimumWork,
		AssumeValid: n.cfg.AssumeValid, MaxTipAge: n.cfg.MaxTipAge, ScriptWorkers: n.cfg.Workers,
		Mempool: n.cfg.Mempool, Prune: n.cfg.Storage.Prune, FastPrune: n.cfg.Storage.SmallFiles,
		StopAt: n.cfg.Storage.StopAt, HeadersOnly: n.cfg.Storage.HeadersOnly, SigCacheBytes: n.cfg.Storage.SigCacheBytes,
	}, n.store)
	failure := new(chain.Failure)
	switch {
	case errors.As(err, &failure):
		return failure
	case errors.Is(err, chain.ErrWrongGenesis):
		return chain.ErrWrongGenesis
	case errors.Is(err, chain.ErrNoTip):
		n.log.Error("the databases do not fit", "err", err)
		return &DatabaseError{Text: "Error initializing block database"}
	case errors.Is(err, chain.ErrUnprune):
		return &DatabaseError{Text: chain.ErrUnprune.Error()}
	case errors.Is(err, chain.ErrNoWitness):
		return &DatabaseError{Text: fmt.Sprintf("Witness data for blocks after height %d requires "+
			"validation. Please restart with -reindex.", n.cfg.Network.SegwitHeight)}
	case err != nil:
		return &DatabaseError{"Error loading block database", err}
	}
	return nil
}

// finishSnapshot looks whether all blocks before a snapshot were validated by the last run: then the coins
// built on it take the place of those built on blocks alone (Bitcoin Core node/chainstate.cpp,
// LoadChainstate). That is done here, where nobody uses either, and not when the validation ends.
func (n *Node) finishSnapshot(ctx context.Context) error {
	done, err := n.chain.ValidateSnapshot(ctx)
	failure := new(chain.Failure)
	switch {
	case errors.As(err, &failure):
		n.log.Error("UTXO snapshot failed to validate. Restart to resume normal initial block download, or " +
			"try loading a different snapshot.")
		return failure
	case err != nil || !done:
		return err
	}
	n.log.Info("[snapshot] cleaning up unneeded background chainstate, then reinitializing")
	if err := firstOf(n.chain.Close(), n.store.Promote()); err != nil {
		return fmt.Errorf("Background chainstate cleanup failed unexpectedly: %w", err)
	}
	return n.newChain()
}

// openStore opens the store. Its errors are told by Core's words where Core has any.
func (n *Node) openStore(reindex bool) error {
	s := &n.cfg.Storage
	store, err := blockstore.Open(blockstore.Config{
		Network: n.cfg.Network, Dir: n.cfg.DataDir, BlocksDir: s.BlocksDir, CacheBytes: s.CacheBytes,
		NoXOR: s.NoXOR, SmallFiles: s.SmallFiles, WipeIndex: reindex, WipeCoins: s.ReindexCoin,
		Pruned: s.Prune != 0, Log: n.log,
	})
	switch {
	case err == nil:
		n.store = store
		return nil
	case errors.Is(err, blockstore.ErrFull):
		n.log.Error("no room", "err", err)
		return fmt.Errorf("Disk space is low for %q", n.cfg.DataDir)
	case errors.Is(err, blockstore.ErrLocked), errors.Is(err, blockstore.ErrForeign):
		return errors.New(oneLine(err.Error()))
	case errors.Is(err, blockstore.ErrIndex):
		return &DatabaseError{"Error opening block database", err}
	case errors.Is(err, blockstore.ErrFiles):
		return &DatabaseError{"Error loading block database", err}
	case errors.Is(err, blockstore.ErrCoins):
		return &DatabaseError{"Error opening coins database", err}
	}
	return errors.New(oneLine(err.Error()))
}

// verify looks again at the last blocks (Bitcoin Core node/chainstate.cpp, VerifyLoadedChainstate).
func (n *Node) verify(ctx context.Context) error {
	n.warmup("Verifying blocks…")
	s := &n.cfg.Storage
	tip := n.chain.Tip()
	if tip.Height > 0 && int64(tip.Header.Time) > n.clock.Now().Unix()+maxFuture {
		return &DatabaseError{Text: "The block database contains a block which appears to be from the " +
			"future. This may be due to your computer's date and time being set incorrectly. Only rebuild " +
			"the block database if you are sure that your computer's date and time are correct"}
	}
	if s.HeadersOnly { // blocks and coins that are here are of another time
		n.log.Info("Block index and chainstate loaded")
		return nil
	}
	if _, ever := n.chain.Pruning(); ever && s.CheckBlocks > chain.MinBlocksToKeep {
		n.log.Warn(fmt.Sprintf("pruned datadir may not have more than %d blocks; only checking available "+
			"blocks", chain.MinBlocksToKeep))
	}
	result, err := n.chain.VerifyHistory(ctx, s.CheckLevel, s.CheckBlocks)
	if err == nil && result != chain.VerifyCorrupt && result != chain.VerifyCancelled {
		before := result
		result, err = n.chain.Verify(ctx, s.CheckLevel, s.CheckBlocks, nil)
		if before == chain.VerifyNoMemory && err == nil && result == chain.VerifySound {
			result = before
		}
	}
	switch {
	case err != nil:
		return &DatabaseError{"Error loading databases", err}
	case result == chain.VerifyCancelled:
		return context.Canceled
	case result == chain.VerifyCorrupt:
		return &DatabaseError{Text: "Corrupted block database detected"}
	case result == chain.VerifyNoMemory && s.CheckAll:
		return errors.New("Insufficient dbcache for block verification")
	}
	n.log.Info("Block index and chainstate loaded")
	return nil
}

// maxFuture is how many seconds a block may be ahead of the clock.
const maxFuture = 2 * 60 * 60

// initLoad takes blocks in from files, and then what needs them: what Core's thread of this name does
// (Bitcoin Core init.cpp and node/blockstorage.cpp, ImportBlocks). Calls and peers are served meanwhile.
func (n *Node) initLoad(ctx context.Context, loaded func()) {
	n.log.Info("initload thread start")
	defer n.log.Info("initload thread exit")
	err := n.importBlocks(ctx)
	loaded()
	switch {
	case ctx.Err() != nil:
		n.log.Info("Interrupt requested. Exit block importing.")
		return
	case err != nil:
		n.fail(err)
		return
	case n.cfg.Storage.StopAfter:
		n.log.Info("Stopping after block import")
		n.stop()
		return
	}
	n.loadMempool(ctx)
}

func (n *Node) importBlocks(ctx context.Context) error {
	if err := n.chain.Reindex(ctx); err != nil {
		return fmt.Errorf("reindex: %w", err)
	}
	for _, path := range n.cfg.Storage.LoadBlocks {
		if _, err := os.Stat(path); err != nil {
			n.log.Warn("Could not open blocks file " + path)
			continue
		}
		if err := n.chain.Import(ctx, path); err != nil {
			return fmt.Errorf("System error while loading external block file: %w", err)
		}
	}
	_, err := n.chain.Activate(ctx, bitcoin.Hash{})
	return err
}

// fail ends the node for an error that it cannot go on with.
func (n *Node) fail(err error) {
	n.mu.Lock()
	if n.failure == nil {
		n.failure = err
	}
	n.mu.Unlock()
	n.stop()
}

// firstOf returns the first error: what comes after it mostly comes of it.
func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
