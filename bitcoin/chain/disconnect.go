package chain

import (
	"context"
	"fmt"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/mempool"
)

// disconnect takes the tip back. The caller is the mover, and the pipe is empty. After an error the tip
// is as it was.
func (c *Chain) disconnect() error {
	c.mu.Lock()
	n := c.tip()
	c.mu.Unlock()
	block, reversal, err := c.reversal(c.main, n)
	if err != nil {
		return fmt.Errorf("disconnect block %v: %w", c.hashOf(n), err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	parent := c.tree.at(n).parent
	if !c.reorganizing {
		c.reorganizing = true
		c.lost.fork, c.lost.work = c.tree.at(parent).height, c.tree.at(n).work
	}
	c.lost.fork = min(c.lost.fork, c.tree.at(parent).height)
	c.takenBack(c.main, n, reversal)
	c.candidates.add(n)
	c.lost.add(block)
	c.changed()
	return nil
}

// takenBack makes the parent of a chainstate's tip its tip. The caller holds mu.
func (c *Chain) takenBack(s *chainstate, n node, reversal *consensus.Reversal) {
	parent := c.tree.at(c.tree.at(n).parent)
	s.coins.Revert(reversal, parent.hash)
	s.active = s.active[:len(s.active)-1]
	if s != c.validated() {
		return
	}
	c.detour(n)
	for name, height := range c.pruneLocks { // a follower must be able to go back with us
		if height <= parent.height {
			continue
		}
		c.pruneLocks[name] = parent.height
		c.cfg.Log.Debug(fmt.Sprintf("%s prune lock moved back to %d", name, parent.height), "cat", "prune")
	}
}

// reversal returns what takes a block back that is the tip of a chainstate.
func (c *Chain) reversal(s *chainstate, n node) (*bitcoin.Block, *consensus.Reversal, error) {
	candidate, err := c.candidate(n)
	if err != nil {
		return nil, nil, err
	}
	block := candidate.Block()
	c.mu.Lock()
	state, b := c.state(n), c.tree.body(n)
	pos := blockstore.Pos{File: b.file, Offset: b.undo}
	c.mu.Unlock()
	undo, err := c.store.ReadUndo(pos, block.Header.PrevBlock)
	if err != nil {
		return nil, nil, err
	}
	reversal, err := consensus.Disconnect(state, candidate, undo, &view{c: c, s: s, on: n})
	if err != nil {
		return nil, nil, err
	}
	if !reversal.Clean {
		return nil, nil, fmt.Errorf("%w: coins are not as block %v left them: "+
			"start with -reindex-chainstate", blockstore.ErrCorrupt, candidate.Hash())
	}
	return block, reversal, nil
}

// lost are the transactions of blocks that were taken back, until they are in the pool again or in
// other blocks.
type lost struct {
	fork   bitcoin.Height // the lowest that the tip has been
	work   work           // of the old branch
	blocks [][]*bitcoin.Tx
	bytes  int
	gone   []*bitcoin.Tx // too many: not to come back
}

// maxLost is how many octets of transactions come back into the pool (Bitcoin Core validation.cpp,
// MAX_DISCONNECTED_TX_POOL_BYTES).
const maxLost = 20_000_000

// add notes the transactions of a block that was the tip. Where there are too many, those of the
// first blocks, which were the last of the old branch, do not come back.
func (l *lost) add(b *bitcoin.Block) {
	var txs []*bitcoin.Tx
	for i := range b.Txs[1:] {
		tx := &b.Txs[i+1]
		txs = append(txs, tx)
		l.bytes += tx.Size()
	}
	l.blocks = append(l.blocks, txs)
	for l.bytes > maxLost && len(l.blocks) > 0 {
		for _, tx := range l.blocks[0] {
			l.bytes -= tx.Size()
		}
		l.gone = append(l.gone, l.blocks[0]...)
		l.blocks = l.blocks[1:]
	}
}

// remove forgets the transactions of a block of the new branch.
func (l *lost) remove(b *bitcoin.Block) {
	if len(l.blocks) == 0 && len(l.gone) == 0 {
		return
	}
	mined := make(map[bitcoin.Hash]bool, len(b.Txs))
	for i := range b.Txs {
		mined[b.Txs[i].TxID()] = true
	}
	for i, txs := range l.blocks {
		l.blocks[i] = notIn(txs, mined)
	}
	l.gone = notIn(l.gone, mined)
}

func notIn(txs []*bitcoin.Tx, mined map[bitcoin.Hash]bool) []*bitcoin.Tx {
	left := txs[:0]
	for _, tx := range txs {
		if !mined[tx.TxID()] {
			left = append(left, tx)
		}
	}
	return left
}

// settlePool puts what was in the old branch and is not in the new one back into the pool, and
// removes from it what cannot be mined any more (Bitcoin Core validation.cpp,
// MaybeUpdateMempoolForReorg). The caller is the mover and does not hold mu.
func (c *Chain) settlePool() error {
	c.mu.Lock()
	if !c.reorganizing {
		c.mu.Unlock()
		return nil
	}
	back := c.lost
	c.lost = lost{}
	c.mu.Unlock()
	for i := len(back.blocks) - 1; i >= 0; i-- { // the oldest first
		for _, tx := range back.blocks[i] {
			if err := c.restore(tx); err != nil {
				return c.halt(err)
			}
		}
	}
	c.mu.Lock()
	for _, tx := range back.gone {
		c.pool.Forget(tx)
	}
	unread := c.pool.Reorganized(back.fork, c.poolTip())
	c.reorganizing = false
	c.settled.Broadcast()
	c.changed()
	c.mu.Unlock()
	c.tipWakes.wake()
	c.txWakes.wake()
	if unread != nil {
		return c.halt(unread)
	}
	return nil
}

// restore puts a transaction of a block that was taken back into the pool, or removes what depends
// on it. An error is this node's.
func (c *Chain) restore(tx *bitcoin.Tx) error {
	err := c.tryRestore(tx)
	if err == nil {
		return nil
	}
	if _, refused := err.(*mempool.Error); !refused {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pool.Forget(tx)
	return nil
}

func (c *Chain) tryRestore(tx *bitcoin.Tx) error {
	tx = tx.Detach() // one transaction must not keep its whole block in memory
	c.mu.Lock()
	attempt, err := c.pool.Begin(tx, c.poolTip(), mempool.Options{FromBlock: true})
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if err := attempt.RunScripts(context.Background(), c.runner); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pool.Commit(attempt, c.poolTip())
}
