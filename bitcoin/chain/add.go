package chain

import (
	"context"
	"errors"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// Source says where a block comes from, as far as it matters for taking it.
type Source struct {
	// Requested: we asked for it, or it is our own. Any other block is taken only if it could soon
	// become the tip.
	Requested bool
	// WorkChecked: its header may be added though it is new; see AddHeaders.
	WorkChecked bool
}

// Outcome is what became of a block that is not known to be invalid.
type Outcome uint8

// The outcomes.
const (
	// Ignored: the block was here before, or nobody asked for it and it is of no use now.
	Ignored Outcome = iota
	// Stored: the block is on disk. It is on no better chain, or blocks before it are missing.
	Stored
	// Connected: the block was stored and is, or was for a moment, part of the best chain: all its
	// rules have been checked.
	Connected
)

// Add takes a block in and returns when it has been judged as far as it can be now (Bitcoin Core
// validation.cpp, ProcessNewBlock): it is Accept and then Activate. Several Adds at once are
// verified at once. When ctx ends early the block stays where it is, and the next Add or Activate
// goes on.
func (c *Chain) Add(ctx context.Context, b *bitcoin.Block, src Source) (Outcome, error) {
	_, fresh, err := c.Accept(b, src)
	if err != nil {
		return Ignored, err
	}
	connected, err := c.Activate(ctx, b.Hash())
	switch {
	case err != nil:
		return Stored, err
	case !fresh:
		return Ignored, nil
	case connected:
		return Connected, nil
	}
	return Stored, nil
}

// Accept checks a block as far as that goes without the coins and stores it; the tip stays. It is
// for who wants to do something between that and Activate: a block that follows the tip and whose
// proof of work and Merkle root are right is worth relaying at once (BIP 152). fresh is false for
// Ignored.
func (c *Chain) Accept(b *bitcoin.Block, src Source) (entry Entry, fresh bool, err error) {
	candidate, err := consensus.NewCandidate(c.cfg.Network, b, 0)
	if err != nil {
		// The header is not marked: should there be a way to tamper with blocks that nobody knows
		// yet, it must not keep the true block out.
		return Entry{}, false, err
	}
	return c.accept(candidate, src, nil)
}

// accept is Accept for a block that was checked by itself, and may stand in the files already.
func (c *Chain) accept(
	candidate *consensus.Candidate, src Source, at *blockstore.Pos,
) (entry Entry, fresh bool, err error) {
	b := candidate.Block()
	c.mu.Lock()
	if c.fatal != nil {
		defer c.mu.Unlock()
		return Entry{}, false, c.fatal
	}
	best := c.best
	n, err := c.acceptHeader(&b.Header, candidate.Hash(), src.WorkChecked)
	if err != nil {
		defer c.mu.Unlock()
		return Entry{}, false, err
	}
	if !c.wanted(n, src.Requested) {
		defer c.mu.Unlock()
		return c.entry(n), false, nil
	}
	state := c.state(c.tree.at(n).parent)
	woken := best != c.best
	defer func() { // after mu was given up
		if woken {
			c.tipWakes.wake()
		}
	}()
	c.mu.Unlock()
	err = consensus.CheckBlockAt(state, b)
	c.mu.Lock()
	defer c.mu.Unlock()
	if invalid, ok := err.(*consensus.Error); ok {
		if invalid.Kind != consensus.KindMutated {
			c.markFailed(n, invalid)
			woken = true
		}
		return Entry{}, false, err
	}
	if !c.wanted(n, src.Requested) { // it came by another way meanwhile
		return c.entry(n), false, nil
	}
	if err := c.storeBlock(n, candidate, at); err != nil {
		return Entry{}, false, err
	}
	return c.entry(n), true, nil
}

// wanted reports whether to store a block (Bitcoin Core validation.cpp, AcceptBlock). The caller
// holds mu.
func (c *Chain) wanted(n node, requested bool) bool {
	h, tip := c.tree.at(n), c.tree.at(c.tip())
	switch {
	case h.status&blockstore.HaveData != 0, c.cfg.HeadersOnly:
		return false
	case requested:
		return true
	case c.tree.body(n).txs != 0: // pruned
		return false
	case h.work.cmp(tip.work) < 0:
		return false
	case h.height > tip.height+MinBlocksToKeep:
		// Blocks far out of order would keep the files that they are in from being pruned.
		return false
	}
	return h.work.uint256().Cmp(*c.cfg.MinimumChainWork) >= 0
}

// storeBlock writes a block to the files, unless it stands there, and notes that it is here. The
// caller holds mu.
func (c *Chain) storeBlock(n node, candidate *consensus.Candidate, at *blockstore.Pos) error {
	b, height := candidate.Block(), c.tree.at(n).height
	var pos blockstore.Pos
	if at != nil {
		pos = *at
		c.store.Adopt(pos, b.Size(), height, b.Header.Time)
	} else {
		var err error
		if pos, err = c.store.WriteBlock(b, height); err != nil {
			return c.stop(failure("System error while saving block to disk", err))
		}
		c.unflushed += b.Size()
	}
	c.received(n, len(b.Txs), pos)
	c.keepReady(n, candidate)
	close(c.news)
	c.news = make(chan struct{})
	c.changed()
	return nil
}

// maxReady is how many octets of blocks are kept in memory between Accept and Activate.
const maxReady = 32 << 20

// keepReady keeps a block that will soon be connected, if there is room. Half of it is for blocks that
// can be connected now. The caller holds mu.
func (c *Chain) keepReady(n node, candidate *consensus.Candidate) {
	room := maxReady
	if c.tree.body(n).chainTxs == 0 { // blocks before it are missing, though they may be on their way
		room /= 2
	}
	size := candidate.Block().Size()
	if c.readyBytes+size > room {
		c.forgetLosers()
	}
	if c.readyBytes+size <= room {
		c.ready[n] = candidate
		c.readyBytes += size
	}
}

// forgetLosers makes room by forgetting blocks at heights that every chainstate has passed: others took
// their places. Should they ever be needed they are read back. The caller holds mu.
func (c *Chain) forgetLosers() {
	passed := c.tree.at(c.tip()).height
	for _, s := range c.chainstates() {
		passed = min(passed, c.tree.at(s.tip()).height)
	}
	if passed == c.losersAt {
		return
	}
	c.losersAt = passed
	for n := range c.ready {
		if c.tree.at(n).height <= passed {
			c.forgetReady(n)
		}
	}
}

// forgetReady is the opposite. The caller holds mu.
func (c *Chain) forgetReady(n node) {
	if candidate := c.ready[n]; candidate != nil {
		c.readyBytes -= candidate.Block().Size()
		delete(c.ready, n)
	}
}

// received notes where a block stands. If all blocks before it have been here it may become the
// tip, and so may those that waited for it (Bitcoin Core validation.cpp,
// ReceivedBlockTransactions). The caller holds mu.
func (c *Chain) received(n node, txs int, pos blockstore.Pos) {
	own := c.tree.ownBody(n)
	own.txs, own.file, own.data, own.undo = uint32(txs), pos.File, pos.Offset, 0
	h := c.tree.at(n)
	h.status = h.status&^blockstore.NoWitness | blockstore.HaveData
	if h.height < c.cfg.Network.SegwitHeight {
		h.status |= blockstore.NoWitness
	}
	c.touch(n)
	parent := h.parent
	if c.tree.body(parent).chainTxs == 0 {
		c.unlinked[parent] = append(c.unlinked[parent], n)
		return
	}
	c.link(n)
}

// link counts the transactions up to blocks that have all their ancestors here now, which makes them
// candidates. The caller holds mu.
func (c *Chain) link(nodes ...node) {
	queue, n := nodes, none
	for len(queue) > 0 {
		n, queue = queue[0], queue[1:]
		own := c.tree.ownBody(n)
		own.chainTxs = c.tree.body(c.tree.at(n).parent).chainTxs + uint64(own.txs)
		own.sequence = c.sequence
		c.sequence++
		c.nominate(n)
		queue = append(queue, c.unlinked[n]...)
		delete(c.unlinked, n)
	}
}

// nominate makes a block a candidate if it is no worse than the tip. The caller holds mu.
func (c *Chain) nominate(n node) {
	if tip := c.tip(); n == tip || c.tree.better(n, tip) || c.tree.at(n).work == c.tree.at(tip).work {
		c.candidates.add(n)
	}
}

// Failure is what stops a chain, by the words of Bitcoin Core and with its cause.
type Failure struct {
	Text string
	Err  error
}

// Error returns both.
func (f *Failure) Error() string { return f.Text + ": " + f.Err.Error() }

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// failure returns an error with Core's words for it; a full disk has its own.
func failure(text string, err error) error {
	if errors.Is(err, blockstore.ErrFull) {
		text = "Disk space is too low!"
	}
	return &Failure{text, err}
}

// stop notes a failure of this node, after which the chain stays as it is. The caller holds mu.
func (c *Chain) stop(err error) error {
	if c.fatal == nil {
		c.fatal = err
		c.cfg.Log.Error("chain stopped", "err", err)
		close(c.halted)
	}
	return err
}
