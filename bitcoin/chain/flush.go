package chain

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/internal/clock"
)

const (
	// saveInterval is how often the index is made durable while Run runs: after a crash no block
	// that is older needs to be fetched again, only connected.
	saveInterval = 10 * time.Second
	// saveBytes is after how many octets of blocks it is done in any case.
	saveBytes = 256 << 20
	// coinsInterval is how often the coins are written if the cache is never full; up to a fifth is
	// added by chance, so that many nodes do not do it at once.
	coinsInterval = 50 * time.Minute
)

// Run makes durable what has changed, from time to time, until ctx ends, and validates a snapshot once that
// can be done. Without it only Flush, Close, a full cache of coins and many blocks do the one, and
// ValidateSnapshot the other.
func (c *Chain) Run(ctx context.Context) error {
	for {
		if err := c.pause(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		due := coinsInterval + rand.N(coinsInterval/5)
		c.mu.Lock()
		coins := c.cfg.Clock.Now().Sub(c.flushed) > due
		c.mu.Unlock()
		err := c.save()
		if coins && err == nil {
			err = c.Flush(ctx)
		}
		if c.historyDone() && err == nil {
			_, err = c.ValidateSnapshot(ctx)
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// Flush makes everything durable: all blocks, and the coins as of the tip.
func (c *Chain) Flush(ctx context.Context) error { return c.alone(ctx, c.flushAll) }

// pause waits until it is time to save; an error is a failure of the chain.
func (c *Chain) pause(ctx context.Context) error {
	sleep, awake := context.WithCancel(ctx)
	defer awake()
	c.mu.Lock()
	atBase := c.atBase
	c.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-c.halted:
			awake()
		case <-atBase:
			awake()
		case <-sleep.Done():
		}
	}()
	clock.Sleep(sleep, c.cfg.Clock, saveInterval)
	awake()
	<-done
	return c.Fatal()
}

// Snapshot makes everything durable and returns all coins as of the tip, which stay as they are while
// the chain goes on. It must be closed.
func (c *Chain) Snapshot(ctx context.Context) (snapshot *blockstore.Snapshot, err error) {
	err = c.alone(ctx, func() error {
		if err := c.flushAll(); err != nil {
			return err
		}
		snapshot, err = c.main.coins.Snapshot()
		return err
	})
	return snapshot, err
}

// Close makes everything durable and ends what is under way. No other method may be called then.
// The store stays open. A chain that has stopped is still sound, unless it was the store that failed.
func (c *Chain) Close() error {
	c.abort()
	return c.flushAll()
}

// maybeFlush writes if there is much to write after a block of a chainstate. The caller is the mover.
func (c *Chain) maybeFlush(s *chainstate) error {
	if err := c.maybePrune(); err != nil {
		return err
	}
	if s.coins.Full() {
		return c.write(s)
	}
	c.mu.Lock()
	much := c.unflushed > saveBytes
	c.mu.Unlock()
	if much {
		return c.save()
	}
	return nil
}

// flushAll writes everything. The caller is the mover.
func (c *Chain) flushAll() error { return c.write(c.chainstates()...) }

// save makes the index durable, but not the coins: the chain goes on meanwhile.
func (c *Chain) save() error { return c.write() }

// write makes the index durable, and the coins of some chainstates.
func (c *Chain) write(states ...*chainstate) error {
	c.flushing.Lock() // an older record must not be written after a newer one
	defer c.flushing.Unlock()
	c.mu.Lock()
	if errors.Is(c.fatal, blockstore.ErrBroken) {
		defer c.mu.Unlock()
		return c.fatal
	}
	records := make([]blockstore.Record, len(c.dirty))
	for i, n := range c.dirty {
		c.tree.at(n).status &^= unsaved
		records[i] = c.record(n)
	}
	c.dirty = c.dirty[:0]
	c.unflushed = 0
	var coins []*blockstore.Coins
	for _, s := range states {
		c.flushed = c.cfg.Clock.Now()
		coins = append(coins, s.coins)
	}
	c.mu.Unlock()
	if err := c.store.Flush(records, coins...); err != nil {
		return c.halt(failure("System error while flushing", err))
	}
	return nil
}
