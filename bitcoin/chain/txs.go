package chain

import (
	"context"
	"errors"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/mempool"
)

// TxOptions say how to take a transaction.
type TxOptions struct {
	// Test judges the transaction and does not take it in (testmempoolaccept).
	Test bool
	// MaxRate, where not 0, refuses a transaction that pays more for its size.
	MaxRate mempool.FeeRate
	// Time, where not zero, is when the transaction arrived.
	Time time.Time

	untrimmed bool // the caller brings the mempool back to its limit
}

// TxResult tells of a transaction that was accepted.
type TxResult struct {
	Fee      bitcoin.Amount // with what Prioritise added: Modified
	Modified bitcoin.Amount
	VSize    int
	Replaced []*bitcoin.Tx // that had to leave
}

// AddTx takes a transaction into the mempool, if policy allows. The error is a *mempool.Error if it
// does not. While blocks are being exchanged for others it waits.
func (c *Chain) AddTx(ctx context.Context, tx *bitcoin.Tx, opts TxOptions) (TxResult, error) {
	for {
		result, err := c.addTx(ctx, tx, opts)
		if !errors.Is(err, mempool.ErrRulesChanged) {
			return result, err
		}
	}
}

func (c *Chain) addTx(ctx context.Context, tx *bitcoin.Tx, opts TxOptions) (TxResult, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waitSettled()
	tip := c.poolTip()
	attempt, err := c.pool.Begin(tx, tip, mempool.Options{MaxRate: opts.MaxRate, Time: opts.Time,
		Untrimmed: opts.untrimmed})
	if err != nil {
		return TxResult{}, err
	}
	c.mu.Unlock()
	err = attempt.RunScripts(ctx, c.runner)
	c.mu.Lock()
	if err != nil {
		return TxResult{}, err
	}
	if opts.Test {
		return txResult(attempt), nil
	}
	c.waitSettled()
	if err := c.pool.Commit(attempt, c.poolTip()); err != nil {
		return TxResult{}, err
	}
	c.mu.Unlock()
	c.txWakes.wake()
	c.mu.Lock()
	return txResult(attempt), nil
}

// waitSettled waits until the pool fits the tip again. The caller holds mu.
func (c *Chain) waitSettled() {
	for c.reorganizing {
		c.settled.Wait()
	}
}

func txResult(a *mempool.Attempt) TxResult {
	e := a.Entry()
	r := TxResult{Fee: e.Fee, Modified: e.ModifiedFee(), VSize: e.VSize()}
	for _, old := range a.Replaces() {
		r.Replaced = append(r.Replaced, old.Tx)
	}
	return r
}

// Mempool calls f with the mempool and the tip that it belongs to. f must be short, must not keep
// anything but transactions, and must not call the Chain.
func (c *Chain) Mempool(f func(p *mempool.Pool, tip *consensus.State)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waitSettled()
	tip := c.state(c.tip())
	f(c.pool, &tip)
}

// Coin returns an unspent output; the zero Coin where there is none. With the mempool what it
// creates counts as unspent, at the height after the tip, and what it spends as spent.
func (c *Chain) Coin(out bitcoin.OutPoint, withMempool bool) (consensus.Coin, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if withMempool {
		if c.pool.Spender(out) != nil {
			return consensus.Coin{}, nil
		}
		if e := c.pool.Get(out.TxID); e != nil {
			if int64(out.Index) >= int64(len(e.Tx.Out)) {
				return consensus.Coin{}, nil
			}
			return consensus.Coin{Out: e.Tx.Out[out.Index],
				Origin: consensus.Origin{Height: bitcoin.Height(len(c.main.active))}}, nil
		}
	}
	var coin [1]consensus.Coin
	err := c.main.coins.Peek([]bitcoin.OutPoint{out}, coin[:])
	return coin[0], err
}

// poolTip returns what transactions are judged on. The caller holds mu.
func (c *Chain) poolTip() *mempool.Tip {
	return &mempool.Tip{
		State: c.state(c.tip()),
		View:  poolView{c},
		Now:   c.cfg.Clock.Now(),
	}
}

// poolView is what the mempool reads of the chain. The caller holds mu.
type poolView struct{ c *Chain }

// Coins, and the methods below, are as mempool.View has them.
func (v poolView) Coins(outs []bitcoin.OutPoint, coins []consensus.Coin) error {
	return v.c.main.coins.Peek(outs, coins)
}

// MedianTimePast is that of a block of the best chain.
func (v poolView) MedianTimePast(height bitcoin.Height) (uint32, error) {
	return v.c.tree.median(v.c.main.active[height]), nil
}

// Cached reports whether an output is unspent, as far as the cache knows.
func (v poolView) Cached(out bitcoin.OutPoint) bool { return v.c.main.coins.Cached(out) }
