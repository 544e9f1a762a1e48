package chain

import (
	"context"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// pipe holds the blocks behind the tip that are connected, as far as coins go, while their scripts
// are running: each builds on the one before it and on its coins, which are kept here and not yet in
// the store. So a block whose scripts fail is forgotten with all that follow it, and nothing needs
// to be put back. The mover owns it.
type pipe struct {
	blocks  []*pending
	weight  int
	overlay map[bitcoin.OutPoint]change
	serial  uint64 // of the next block
}

// pending is a block whose scripts are running.
type pending struct {
	n         node
	candidate *consensus.Candidate
	state     consensus.State // after the block
	diff      *consensus.Diff
	serial    uint64
	cancel    context.CancelFunc
	done      chan struct{} // closed when the scripts have ended
	err       error         // of the scripts; to be read after done
}

// change is what a block of the pipe does to a coin; the zero Coin is one that was spent.
type change struct {
	coin   consensus.Coin
	serial uint64 // of the block
}

const (
	// maxPending and maxPendingWeight bound the blocks whose scripts run at once: enough that no
	// processor waits while one long script ends, and little enough to fit into memory.
	maxPending       = 32
	maxPendingWeight = 6 * consensus.MaxBlockWeight
)

func (p *pipe) len() int        { return len(p.blocks) }
func (p *pipe) first() *pending { return p.blocks[0] }
func (p *pipe) full() bool      { return len(p.blocks) >= maxPending || p.weight >= maxPendingWeight }

// ready reports whether the scripts of the first block have ended.
func (p *pipe) ready() bool {
	if len(p.blocks) == 0 {
		return false
	}
	select {
	case <-p.blocks[0].done:
		return true
	default:
		return false
	}
}

// push adds a block and starts its scripts.
func (p *pipe) push(b *pending, runner consensus.ScriptRunner, checks []consensus.Check) {
	if p.overlay == nil {
		p.overlay = make(map[bitcoin.OutPoint]change)
	}
	p.serial++
	b.serial = p.serial
	p.blocks = append(p.blocks, b)
	p.weight += b.candidate.Block().Weight()
	var ctx context.Context
	ctx, b.cancel = context.WithCancel(context.Background())
	b.done = make(chan struct{})
	go func() {
		defer close(b.done)
		b.err = runner.Run(ctx, checks)
	}()
	for out := range b.diff.Spent() { // meanwhile
		p.overlay[out] = change{serial: b.serial}
	}
	for out, coin := range b.diff.Created() {
		p.overlay[out] = change{coin, b.serial}
	}
}

// pop takes the first block out, whose scripts have ended; its coins go to the store.
func (p *pipe) pop() {
	b := p.blocks[0]
	b.cancel()
	p.blocks[0] = nil
	p.blocks = p.blocks[1:]
	p.weight -= b.candidate.Block().Weight()
	if len(p.blocks) == 0 {
		clear(p.overlay)
		return
	}
	for out := range b.diff.Spent() {
		p.forget(out, b.serial)
	}
	for out := range b.diff.Created() {
		p.forget(out, b.serial)
	}
}

// forget removes a change of a block, unless a later one has changed the coin again.
func (p *pipe) forget(out bitcoin.OutPoint, serial uint64) {
	if p.overlay[out].serial == serial {
		delete(p.overlay, out)
	}
}

// clear ends all scripts, waits for that, and forgets all blocks.
func (p *pipe) clear() {
	for _, b := range p.blocks {
		b.cancel()
	}
	for _, b := range p.blocks {
		<-b.done
	}
	p.blocks, p.weight = nil, 0
	clear(p.overlay)
}
