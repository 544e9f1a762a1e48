package chain

import (
	"fmt"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
)

// After a snapshot was loaded there are two chainstates:
//
//	genesis ------> history ....... base ------> main
//
// Main was built on the coins of the snapshot, as of its base, and is the tip. History connects the blocks
// before the base as they come, with all rules, and ends there: then its coins must be those that the
// network's parameters have for the base, and with that all of main is validated. Until then main cannot go
// back below the base, for what would be needed to take those blocks back is not there.

// ErrAssumed: the block lies below a snapshot whose history has not been validated yet.
var ErrAssumed = fmt.Errorf("blocks up to that of a snapshot cannot be taken back before its background " +
	"validation has ended")

// findSnapshot returns what the network says of the snapshot that the store has coins of; nil where it has
// none (Bitcoin Core node/blockstorage.cpp, LoadBlockIndex).
func (c *Chain) findSnapshot() (*bitcoin.Snapshot, error) {
	coins, base := c.store.Assumed()
	if coins == nil || c.cfg.HeadersOnly {
		return nil, nil
	}
	if s := c.cfg.Network.Snapshot(base); s != nil {
		return s, nil
	}
	text := fmt.Sprintf("Assumeutxo data not found for the given blockhash '%v'.", base)
	c.cfg.Log.Error(text)
	return nil, &Failure{text, ErrNoTip}
}

// resumeHistory makes two chainstates of the coins that the store has, once the tree is there.
func (c *Chain) resumeHistory(snapshot *bitcoin.Snapshot) error {
	base := c.tree.find(&snapshot.Block)
	if base == none {
		return fmt.Errorf("%w: the block of the snapshot, %v, is not in the index", ErrNoTip, snapshot.Block)
	}
	coins, _ := c.store.Assumed()
	c.history, c.main = c.main, &chainstate{coins: coins, base: base}
	c.behind.Store(true)
	return c.store.SplitFiles(snapshot.Height)
}

// beginHistory sees to what follows from the blocks that the chainstates have.
func (c *Chain) beginHistory() {
	if c.history != nil && c.history.tip() == c.main.base {
		close(c.atBase)
	}
	c.rebalance()
}

// stepHistory brings the history forward, or back from a branch that the snapshot is not on. The caller is
// the mover.
func (c *Chain) stepHistory() (idle bool, err error) {
	s := c.history
	c.mu.Lock()
	next, to := c.nextOfHistory()
	back := next == none && s.pipe.len() == 0 && c.strayed()
	stopped := c.isStopped()
	c.mu.Unlock()
	switch {
	case stopped:
	case next != none && !s.pipe.full():
		return false, c.connect(s, next, to)
	case back:
		if err := c.disconnectHistory(); err != nil {
			return false, c.halt(&Failure{"Failed to disconnect block.", err})
		}
		return false, nil
	}
	return true, nil
}

// nextOfHistory returns the block that follows the head of the history towards the base, and the last one
// after it that is here and worth loading already; none where the next is missing, or there is none. The
// caller is the mover and holds mu.
func (c *Chain) nextOfHistory() (next, to node) {
	head, base := c.history.head(), c.main.base
	next, to = none, none
	if !c.tree.isAncestor(head, base) {
		return next, to
	}
	height := c.tree.at(head).height
	last := min(height+1+loadAhead, c.tree.at(base).height)
	for height++; height <= last; height++ {
		n := c.tree.ancestor(base, height)
		if s := c.tree.at(n).status; s&blockstore.HaveData == 0 || s&blockstore.Invalid != 0 {
			break
		}
		if next == none {
			next = n
		}
		to = n
	}
	return next, to
}

// strayed reports whether the history is on another branch than the base, and enough blocks of the base's
// are here that they have more work: before that there is nothing to go to. The caller holds mu.
func (c *Chain) strayed() bool {
	tip, base := c.history.tip(), c.main.base
	if c.tree.isAncestor(tip, base) {
		return false
	}
	best := c.tree.fork(tip, base)
	for height := c.tree.at(best).height + 1; height <= c.tree.at(base).height; height++ {
		n := c.tree.ancestor(base, height)
		if s := c.tree.at(n).status; s&blockstore.HaveData == 0 || s&blockstore.Invalid != 0 {
			break
		}
		best = n
	}
	return c.tree.at(best).work.cmp(c.tree.at(tip).work) > 0
}

// disconnectHistory takes the last block of the history back. The caller is the mover.
func (c *Chain) disconnectHistory() error {
	s := c.history
	n := s.tip()
	_, reversal, err := c.reversal(s, n)
	if err != nil {
		return fmt.Errorf("disconnect block %v: %w", c.hashOf(n), err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.takenBack(s, n, reversal)
	c.changed()
	return nil
}

// historyLogInterval is how many blocks of history there are between two that are told of (Bitcoin Core
// validation.cpp, UpdateTip).
const historyLogInterval = 2000

// followHistory does what goes with a new last block of the history. The caller holds mu.
func (c *Chain) followHistory(b *pending) {
	if c.tree.at(b.n).height%historyLogInterval == 0 {
		c.logTip("[background validation] ", c.history, b)
	}
	if b.n == c.main.base {
		close(c.atBase)
	}
}

// historyDone reports whether the history has come to the base, so that the snapshot can be validated.
func (c *Chain) historyDone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.history != nil && c.history.tip() == c.main.base
}

// BackgroundSync reports whether blocks before the best chain's last ones are still to be fetched and
// validated, since that was built on a snapshot: the node cannot serve them.
func (c *Chain) BackgroundSync() bool { return c.behind.Load() }

// Background returns the last block of the history and the snapshot's, up to which it goes; ok is false
// where there is none.
func (c *Chain) Background() (tip, base Entry, ok bool) {
	if !c.BackgroundSync() {
		return tip, base, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.history == nil {
		return tip, base, false
	}
	return c.entry(c.history.tip()), c.entry(c.main.base), true
}

// Chainstate tells of one of the chainstates.
type Chainstate struct {
	Tip        Entry
	Base       bitcoin.Hash // of the snapshot that it was built on; zero: none
	Validated  bool         // all its blocks were
	CacheBytes int64        // that its coins may take in memory
	// DBCacheBytes is the memory of the databases, which all chainstates share.
	DBCacheBytes int64
}

// Chainstates returns the chainstates that there are: the history, if there is one, and the best chain's.
func (c *Chain) Chainstates() (list []Chainstate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.chainstates() {
		_, limit := s.coins.CacheUsage()
		one := Chainstate{Tip: c.entry(s.tip()), CacheBytes: limit, DBCacheBytes: c.store.DBCache()}
		if s.base != none {
			one.Base = c.tree.at(s.base).hash
		}
		one.Validated = s.base == none || c.history == nil
		list = append([]Chainstate{one}, list...)
	}
	return list
}
