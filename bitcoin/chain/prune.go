package chain

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
)

// Pruning by the words of Bitcoin Core (node/blockstorage.h).
const (
	// PruneManual as Config.Prune deletes nothing but what PruneTo says (Core's -prune=1).
	PruneManual = math.MaxInt64
	// MinPruneTarget is the least that a node should be told to keep, in octets: the last 288 blocks, with
	// their undo data and some that are stale (Bitcoin Core validation.h, MIN_DISK_SPACE_FOR_BLOCK_FILES).
	MinPruneTarget = 550 << 20

	// pruneLockBuffer is how many blocks below a lock are kept for a reorganisation.
	pruneLockBuffer = 10
	// pruneBuffer is what may be allocated before it is looked again whether to prune.
	pruneBuffer = 17 << 20
	// averageBlock is how much is expected of each block of the initial download.
	averageBlock = 1_000_000
)

// ErrNotPruning: the node keeps all blocks.
var ErrNotPruning = errors.New("node is not in prune mode")

// Pruning returns the octets that blocks and undo data may take (0: any; or PruneManual), and whether
// block files were ever deleted.
func (c *Chain) Pruning() (target int64, ever bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cfg.Prune, c.pruned
}

// PruneAfterHeight is the height up to which nothing is pruned.
func (c *Chain) PruneAfterHeight() bitcoin.Height {
	if c.cfg.FastPrune {
		return min(c.cfg.Network.PruneAfterHeight, fastPruneAfter)
	}
	return c.cfg.Network.PruneAfterHeight
}

// fastPruneAfter is PruneAfterHeight with -fastprune (Bitcoin Core kernel/chainparams.cpp).
const fastPruneAfter = 100

// LockPruning keeps the blocks from a height on from being pruned, and a few before them, for a
// follower of that name who has not taken them in yet. A later call moves the lock; a reorganisation
// moves it back.
func (c *Chain) LockPruning(name string, from bitcoin.Height) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pruneLocks[name] = from
}

// UnlockPruning takes a lock away.
func (c *Chain) UnlockPruning(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pruneLocks, name)
}

// Prune deletes the oldest block files if all take more than they may.
func (c *Chain) Prune(ctx context.Context) error {
	if c.cfg.Prune == 0 {
		return nil
	}
	return c.alone(ctx, c.pruneAll)
}

// PruneTo deletes the block files whose blocks are all of this height or below, as far as they are
// not needed (Core's pruneblockchain). Those of the history are not the best chain's to delete.
func (c *Chain) PruneTo(ctx context.Context, height bitcoin.Height) error {
	if c.cfg.Prune == 0 {
		return ErrNotPruning
	}
	return c.alone(ctx, func() error { return c.pruneFiles(c.main, height) })
}

// PruneHeight returns the height of the last block of the best chain whose data or undo data are
// missing; pruned is false where none is (Bitcoin Core rpc/blockchain.cpp, GetPruneHeight).
func (c *Chain) PruneHeight() (height bitcoin.Height, pruned bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	const have = blockstore.HaveData | blockstore.HaveUndo
	for at := len(c.main.active) - 1; at > 0; at-- { // the first block has no undo data
		if c.tree.at(c.main.active[at]).status&have != have {
			return bitcoin.Height(at), true
		}
	}
	return 0, false
}

// EarliestAtLeast returns the first block of the best chain by which some block up to it had at least
// a time.
func (c *Chain) EarliestAtLeast(time int64) (Entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.main.active {
		if int64(c.tree.at(n).time) >= time {
			return c.entry(n), true
		}
	}
	return Entry{}, false
}

// maybePrune prunes if files have grown since it was done last. The caller is the mover.
func (c *Chain) maybePrune() error {
	if c.cfg.Prune == 0 || c.cfg.Prune == PruneManual || !c.store.TakeGrown() {
		return nil
	}
	return c.pruneAll()
}

// pruneAll prunes for each chainstate. The caller is the mover.
func (c *Chain) pruneAll() error {
	for _, s := range c.chainstates() {
		if err := c.pruneFiles(s, 0); err != nil {
			return err
		}
	}
	return nil
}

// pruneFiles forgets the blocks of some files of a chainstate, makes that durable, and only then deletes the
// files. upTo is for a manual prune, else 0. The caller is the mover.
func (c *Chain) pruneFiles(s *chainstate, upTo bitcoin.Height) error {
	if reindexing, err := c.store.Reindexing(); err != nil || reindexing {
		return err
	}
	c.mu.Lock()
	numbers := c.filesToPrune(s, upTo)
	if len(numbers) == 0 {
		c.mu.Unlock()
		return nil
	}
	c.forgetFiles(numbers)
	first := !c.pruned
	c.pruned = true
	c.mu.Unlock()
	if first {
		if err := c.store.SetFlag(flagPruned, true); err != nil {
			return c.halt(err)
		}
	}
	if err := c.flushAll(); err != nil {
		return err
	}
	if err := c.store.Delete(numbers); err != nil { // they are tried again at the next start
		c.cfg.Log.Warn("pruned block files could not be deleted", "err", err)
	}
	return nil
}

// flagPruned says that block files were deleted.
const flagPruned = "prunedblockfiles"

// filesToPrune chooses files (Bitcoin Core node/blockstorage.cpp, FindFilesToPrune and
// FindFilesToPruneManual). The caller holds mu.
func (c *Chain) filesToPrune(s *chainstate, upTo bitcoin.Height) (numbers []int32) {
	tip := bitcoin.Height(len(s.active) - 1)
	first, role := bitcoin.Height(0), "normal"
	switch {
	case c.history == nil:
	case s == c.main: // the history's files are its own
		first, role = c.tree.at(s.base).height+1, "assumedvalid"
	default:
		role = "background"
	}
	last := c.lockedTo(tip) // the indexes will want main's blocks too, later
	manual := upTo > 0
	if manual {
		last = min(last, upTo)
	} else if tip <= c.PruneAfterHeight() {
		return nil
	}
	last = min(last, max(0, tip-MinBlocksToKeep))
	infos := c.store.Files()
	usage, buffer := int64(0), int64(pruneBuffer)
	for _, info := range infos {
		usage += int64(info.Size) + int64(info.UndoSize)
	}
	before := usage
	target := c.cfg.Prune
	if c.history != nil && target != PruneManual { // each has its half, and what a node needs at least
		target = max(min(MinPruneTarget, target), target/2)
	}
	if best := c.tree.at(c.best).height; !manual && usage+buffer >= target && best > tip && c.initialDownload() {
		// Each prune writes all coins: while there is much to come it is done seldom, but thoroughly.
		buffer += averageBlock * int64(best-tip)
	}
	for number, info := range infos {
		switch {
		case info.Size == 0, info.FirstHeight < first, info.LastHeight > last,
			c.store.Growing(int32(number)):
			continue
		case !manual && (target == PruneManual || usage+buffer < target):
			continue
		}
		numbers = append(numbers, int32(number))
		usage -= int64(info.Size) + int64(info.UndoSize)
	}
	if manual {
		c.cfg.Log.Info(fmt.Sprintf("[%s] Prune (Manual): prune_height=%d removed %d blk/rev pairs",
			role, last, len(numbers)))
	} else {
		c.cfg.Log.Debug(fmt.Sprintf("[%s] target=%dMiB actual=%dMiB diff=%dMiB min_height=%d "+
			"max_prune_height=%d removed %d blk/rev pairs", role, target>>20, usage>>20,
			(target-usage)>>20, first, last, len(numbers)), "cat", "prune", "was", before>>20)
	}
	return numbers
}

// lockedTo returns the last height that those who follow the chain let be pruned. The caller holds mu.
func (c *Chain) lockedTo(tip bitcoin.Height) bitcoin.Height {
	last, limiting := tip, ""
	for name, from := range c.pruneLocks {
		if lock := from - pruneLockBuffer - 1; lock < last {
			last, limiting = max(1, lock), name
		}
	}
	if limiting != "" {
		c.cfg.Log.Debug(fmt.Sprintf("%s limited pruning to height %d", limiting, last), "cat", "prune")
	}
	return last
}

// forgetFiles notes that the blocks of files are not here any more. The caller holds mu.
func (c *Chain) forgetFiles(numbers []int32) {
	gone := make(map[int32]bool, len(numbers))
	for _, number := range numbers {
		gone[number] = true
		c.store.Forget(number)
	}
	const have = blockstore.HaveData | blockstore.HaveUndo
	for n := range node(c.tree.n) {
		if c.tree.at(n).status&have == 0 || !gone[c.tree.body(n).file] {
			continue
		}
		own := c.tree.ownBody(n)
		own.file, own.data, own.undo = 0, 0, 0
		c.tree.at(n).status &^= have
		c.touch(n)
		c.forgetReady(n)
	}
}
