package chain

import (
	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// loader reads, parses and checks blocks by themselves, and fetches the coins that they spend, while
// those before them are connected. The mover owns it.
type loader struct {
	loads map[node]*load
}

// load is a block that is being loaded.
type load struct {
	done      chan struct{}
	candidate *consensus.Candidate
	err       error
}

// loadAhead is how many blocks are loaded before they are needed.
const loadAhead = 6

// take returns the block n, on the way to another, and begins to load those after it.
func (l *loader) take(c *Chain, coins *blockstore.Coins, n, to node) (*consensus.Candidate, error) {
	c.mu.Lock()
	ahead := make([]node, 0, loadAhead)
	last := min(c.tree.at(to).height, c.tree.at(n).height+loadAhead)
	for at := c.tree.ancestor(to, last); at != n; at = c.tree.at(at).parent {
		ahead = append(ahead, at)
	}
	c.mu.Unlock()
	own := l.loads[n]
	if own == nil {
		own = &load{}
		own.run(c, nil, n)
	}
	delete(l.loads, n)
	for i := len(ahead) - 1; i >= 0; i-- {
		if l.loads[ahead[i]] == nil {
			l.begin(c, coins, ahead[i])
		}
	}
	if own.done != nil {
		<-own.done
	}
	return own.candidate, own.err
}

func (l *loader) begin(c *Chain, coins *blockstore.Coins, n node) {
	if l.loads == nil {
		l.loads = make(map[node]*load)
	}
	if len(l.loads) > 2*loadAhead { // left over from another branch
		l.clear()
	}
	ahead := &load{done: make(chan struct{})}
	l.loads[n] = ahead
	go func() {
		defer close(ahead.done)
		ahead.run(c, coins, n)
	}()
}

// clear waits for what is being loaded, and forgets it.
func (l *loader) clear() {
	for _, one := range l.loads {
		<-one.done
	}
	clear(l.loads)
}

// run loads a block, and if coins are given, into their cache what it spends.
func (l *load) run(c *Chain, coins *blockstore.Coins, n node) {
	if l.candidate, l.err = c.candidate(n); l.err == nil && coins != nil {
		l.err = coins.Prefetch(l.candidate.Outside())
	}
}

// candidate returns a block that was accepted, from memory or disk.
func (c *Chain) candidate(n node) (*consensus.Candidate, error) {
	c.mu.Lock()
	candidate := c.ready[n]
	b := c.tree.body(n)
	pos, hash := blockstore.Pos{File: b.file, Offset: b.data}, c.tree.at(n).hash
	c.mu.Unlock()
	if candidate != nil {
		return candidate, nil
	}
	raw, err := c.store.ReadBlock(pos, hash)
	if err != nil {
		return nil, err
	}
	block, err := bitcoin.ParseBlock(raw)
	if err != nil {
		return nil, err
	}
	return consensus.NewCandidate(c.cfg.Network, block, 0)
}
