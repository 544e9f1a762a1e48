package p2p

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

const (
	// bodyTries is the most peers that are asked for one block, one after the other.
	bodyTries = 3
	// bodyTimeout is how long a peer has to send it: 4 MB at 100 kB a second, and some.
	bodyTimeout = time.Minute
)

// ErrNoBlock says that no peer gave a block.
var ErrNoBlock = errors.New("no connected peer gave the block")

// bodyQuestion is a block that a peer was asked for, and where it goes.
type bodyQuestion struct {
	block  bitcoin.Hash
	answer chan *bitcoin.Block // has room for the one answer
}

// FetchBody asks peers for a block of which only the header is kept, and returns it. That it is the block of
// its header is verified, Merkle root and witnesses included; its scripts are not run. Nothing is stored.
func (n *Node) FetchBody(ctx context.Context, e chain.Entry) (*bitcoin.Block, error) {
	var asked []*Peer
	for range bodyTries {
		p, q := n.askBody(e, asked)
		if p == nil {
			break
		}
		asked = append(asked, p)
		b, err := n.bodyAnswer(ctx, p, q)
		if b != nil || err != nil {
			return b, err
		}
	}
	return nil, fmt.Errorf("%w %v: %d were asked", ErrNoBlock, e.Hash, len(asked))
}

// askBody sends the question for a block to a peer that should have it, the one that answers pings fastest.
func (n *Node) askBody(e chain.Entry, not []*Peer) (best *Peer, q *bodyQuestion) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.sortedPeers() {
		if !p.handshaken || p.closing || p.bodyQuestion != nil || slices.Contains(not, p) ||
			!p.services.Has(wire.ServiceWitness) || !p.servesBlocks() || !n.hasHeader(p, e) {
			continue
		}
		if p.limited() && n.chain.Tip().Height-e.Height >= limitedKeepBlocks {
			continue
		}
		if best == nil || p.pingMin < best.pingMin {
			best = p
		}
	}
	if best == nil {
		return nil, nil
	}
	best.bodyQuestion = &bodyQuestion{block: e.Hash, answer: make(chan *bitcoin.Block, 1)}
	best.push(&wire.GetData{Items: []wire.Inventory{{Type: wire.InvWitnessBlock, Hash: e.Hash}}})
	return best, best.bodyQuestion
}

// bodyAnswer waits for the block; nil where it does not come in time. The error is the context's.
func (n *Node) bodyAnswer(ctx context.Context, p *Peer, q *bodyQuestion) (b *bitcoin.Block, err error) {
	due, stop := n.clock.After(bodyTimeout)
	defer stop()
	select {
	case b = <-q.answer:
	case <-due:
	case <-p.done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if p.bodyQuestion == q {
		p.bodyQuestion = nil
	}
	return b, err
}

// onBody hands a block, which is the whole one of its header, to who waits for it; false where nobody does.
func (n *Node) onBody(p *Peer, b *bitcoin.Block, hash bitcoin.Hash) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	q := p.bodyQuestion
	if q == nil || q.block != hash {
		return false
	}
	p.bodyQuestion = nil
	q.answer <- b
	return true
}

// noBody ends the wait for a block that the peer says it does not have; with mu held.
func (p *Peer) noBody(hash bitcoin.Hash) {
	if q := p.bodyQuestion; q != nil && q.block == hash {
		p.bodyQuestion = nil
		q.answer <- nil
	}
}
