package p2p

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

const (
	// filterWitnesses is the most peers that are asked for the hash of one filter.
	filterWitnesses = 3
	// filterTimeout is how long a peer has for an answer about filters.
	filterTimeout = 30 * time.Second
)

// Errors of FetchFilter.
var (
	ErrNoFilters = errors.New("no connected peer serves block filters")
	ErrDisagree  = errors.New("peers disagree about a block filter")
)

// FetchedFilter is the basic filter of a block as peers have it (BIP 158).
type FetchedFilter struct {
	Filter []byte
	Header bitcoin.Hash // of the chain of filter headers
	Peers  int          // who vouched for it
}

// filterQuestion is what a peer was asked about filters, and where the answer goes.
type filterQuestion struct {
	block  bitcoin.Hash
	answer chan wire.Message // has room for the one answer
}

// FetchFilter asks peers that serve them for the basic filter of a block (BIP 157), for a node that has not
// the block itself. Up to three are asked what its hash is; where they differ it is nobody's word that counts,
// and the error wraps ErrDisagree. The filter is then taken from one of them and must have that hash. So the
// filter is right if at least one of those who were asked is honest.
func (n *Node) FetchFilter(ctx context.Context, e chain.Entry) (FetchedFilter, error) {
	peers, questions := n.askFilterHash(e)
	if len(peers) == 0 {
		return FetchedFilter{}, ErrNoFilters
	}
	claims := map[*Peer]filterClaim{}
	for i, p := range peers {
		m, err := n.filterAnswer(ctx, p, questions[i])
		if err != nil {
			return FetchedFilter{}, err
		}
		if h, ok := m.(*wire.CFHeaders); ok && len(h.Hashes) == 1 {
			claims[p] = filterClaim{h.PrevHeader, h.Hashes[0]}
		}
	}
	claim, err := agreed(e, claims)
	if err != nil {
		return FetchedFilter{}, err
	}
	for p := range claims {
		q := n.askFilter(p, e)
		if q == nil {
			continue
		}
		m, err := n.filterAnswer(ctx, p, q)
		if err != nil {
			return FetchedFilter{}, err
		}
		if f, ok := m.(*wire.CFilter); ok && bitcoin.DoubleHash(f.Filter) == claim.hash {
			return FetchedFilter{f.Filter, claim.header(), len(claims)}, nil
		}
	}
	return FetchedFilter{}, fmt.Errorf("%w: nobody gave the filter of block %v", ErrNoFilters, e.Hash)
}

// filterClaim is what a peer says: the filter header of the block before, and the hash of this one's filter.
type filterClaim struct{ prev, hash bitcoin.Hash }

// header is that of the chain of filter headers at the block (BIP 157, "Filter Headers").
func (c filterClaim) header() bitcoin.Hash {
	return bitcoin.DoubleHash(append(append([]byte(nil), c.hash[:]...), c.prev[:]...))
}

// agreed returns what all say who said anything.
func agreed(e chain.Entry, claims map[*Peer]filterClaim) (claim filterClaim, err error) {
	if len(claims) == 0 {
		return claim, fmt.Errorf("%w: nobody answered for block %v", ErrNoFilters, e.Hash)
	}
	first := true
	for _, c := range claims {
		if !first && c != claim {
			return claim, fmt.Errorf("%w: that of block %v", ErrDisagree, e.Hash)
		}
		claim, first = c, false
	}
	return claim, nil
}

// askFilterHash sends the question for the hash of a block's filter to some peers.
func (n *Node) askFilterHash(e chain.Entry) (peers []*Peer, questions []*filterQuestion) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.sortedPeers() {
		if len(peers) == filterWitnesses {
			break
		}
		q := n.question(p, e)
		if q == nil {
			continue
		}
		p.push(&wire.GetCFHeaders{FilterRange: filterRangeOf(e)})
		peers, questions = append(peers, p), append(questions, q)
	}
	return peers, questions
}

// askFilter sends the question for a block's filter; nil where the peer cannot be asked.
func (n *Node) askFilter(p *Peer, e chain.Entry) *filterQuestion {
	n.mu.Lock()
	defer n.mu.Unlock()
	q := n.question(p, e)
	if q != nil {
		p.push(&wire.GetCFilters{FilterRange: filterRangeOf(e)})
	}
	return q
}

func filterRangeOf(e chain.Entry) wire.FilterRange {
	return wire.FilterRange{Type: wire.BasicFilter, Start: uint32(e.Height), Stop: e.Hash}
}

// question notes that a peer is asked; nil where it serves no filters, or is being asked already. With mu
// held.
func (n *Node) question(p *Peer, e chain.Entry) *filterQuestion {
	if !p.handshaken || p.closing || p.filterQuestion != nil ||
		!p.services.Has(wire.ServiceCompactFilters) || !n.hasHeader(p, e) {
		return nil
	}
	p.filterQuestion = &filterQuestion{block: e.Hash, answer: make(chan wire.Message, 1)}
	return p.filterQuestion
}

// filterAnswer waits for what a peer says; nil where it says nothing in time. The error is the context's.
func (n *Node) filterAnswer(ctx context.Context, p *Peer, q *filterQuestion) (m wire.Message, err error) {
	due, stop := n.clock.After(filterTimeout)
	defer stop()
	select {
	case m = <-q.answer:
	case <-due:
	case <-p.done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if p.filterQuestion == q {
		p.filterQuestion = nil
	}
	return m, err
}

// onFilterAnswer hands an answer to who waits for it. What nobody asked for is ignored.
func (n *Node) onFilterAnswer(p *Peer, m wire.Message, kind uint8, block bitcoin.Hash) {
	n.mu.Lock()
	defer n.mu.Unlock()
	q := p.filterQuestion
	if q == nil || kind != wire.BasicFilter || block != q.block {
		return
	}
	p.filterQuestion = nil
	q.answer <- m
}
