package p2p

import (
	"cmp"
	"container/heap"
	"encoding/binary"
	"slices"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
)

// offerState is how far an offer has come:
//
//	delayed -> ready <-> best -> asked -> done
//
// Of the offers of one transaction at most one is best or asked. Once all are done, they are forgotten.
type offerState uint8

const (
	offerDelayed offerState = iota // its time has not come
	offerReady
	offerBest // the one to ask now
	offerAsked
	offerDone // answered, or not in time
)

// txOffer is a transaction that one peer has announced.
type txOffer struct {
	hash      bitcoin.Hash
	peer      PeerID
	wtxid     bool
	preferred bool
	rank      uint64    // among those that are or are not preferred; no peer can foresee it
	when      time.Time // until when it is delayed or asked
	order     uint64
	state     offerState
	at        int // in txRequests.times, -1 if not there
}

// better reports whether o is to be asked before q.
func (o *txOffer) better(q *txOffer) bool {
	if o.preferred != q.preferred {
		return o.preferred
	}
	return o.rank > q.rank
}

// peerOffers are the offers of one peer.
type peerOffers struct {
	all   map[bitcoin.Hash]*txOffer
	best  map[*txOffer]bool
	asked int
}

// txRequests decides of whom to ask which transaction when: one peer at a time for each, preferred ones
// first, the next when one does not answer. Whoever announces first gains nothing by it, and who does not
// answer can do so once for each transaction (Bitcoin Core txrequest.h). It has no lock: Node.mu guards it.
// Each operation takes time that grows with the logarithm of the offers, and with the peers that offer a
// transaction.
type txRequests struct {
	key    [2]uint64
	byHash map[bitcoin.Hash][]*txOffer
	byPeer map[PeerID]*peerOffers
	times  offerHeap // of those that are delayed or asked
	next   uint64
}

func newTxRequests(key [2]uint64) *txRequests {
	return &txRequests{key: key, byHash: map[bitcoin.Hash][]*txOffer{}, byPeer: map[PeerID]*peerOffers{}}
}

// count returns the offers of a peer, and how many are asked.
func (r *txRequests) count(id PeerID) (all, asked int) {
	if p := r.byPeer[id]; p != nil {
		return len(p.all), p.asked
	}
	return 0, 0
}

// add notes that a peer has a transaction, and is not to be asked for it before a time.
func (r *txRequests) add(id PeerID, hash bitcoin.Hash, wtxid, preferred bool, ready time.Time) {
	p := r.byPeer[id]
	if p == nil {
		p = &peerOffers{all: map[bitcoin.Hash]*txOffer{}, best: map[*txOffer]bool{}}
		r.byPeer[id] = p
	}
	if p.all[hash] != nil {
		return
	}
	o := &txOffer{hash: hash, peer: id, wtxid: wtxid, preferred: preferred, when: ready, order: r.next}
	o.rank = bitcoin.SipHash(r.key[0], r.key[1], binary.LittleEndian.AppendUint64(hash[:], uint64(id)))
	r.next++
	p.all[hash] = o
	r.byHash[hash] = append(r.byHash[hash], o)
	heap.Push(&r.times, o)
}

// set moves an offer to another state and keeps what is counted.
func (r *txRequests) set(o *txOffer, state offerState) {
	p := r.byPeer[o.peer]
	switch o.state {
	case offerBest:
		delete(p.best, o)
	case offerAsked:
		p.asked--
	}
	if o.at >= 0 && (o.state == offerDelayed || o.state == offerAsked) {
		heap.Remove(&r.times, o.at)
	}
	o.state = state
	switch state {
	case offerBest:
		p.best[o] = true
	case offerAsked:
		p.asked++
		heap.Push(&r.times, o)
	}
}

// choose makes the best of what is ready for a transaction the one to ask, unless one is asked.
func (r *txRequests) choose(hash bitcoin.Hash) {
	var best, now *txOffer
	for _, o := range r.byHash[hash] {
		switch o.state {
		case offerAsked:
			return
		case offerBest:
			now = o
			fallthrough
		case offerReady:
			if best == nil || o.better(best) {
				best = o
			}
		}
	}
	if best == now {
		return
	}
	if now != nil {
		r.set(now, offerReady)
	}
	r.set(best, offerBest)
}

// advance makes ready whose time has come, and gives up on who did not answer in time; it returns those.
func (r *txRequests) advance(now time.Time) (late []*txOffer) {
	for len(r.times) > 0 && !r.times[0].when.After(now) {
		o := r.times[0]
		if o.state == offerAsked {
			late = append(late, o)
			r.finish(o)
			continue
		}
		r.set(o, offerReady)
		r.choose(o.hash)
	}
	return late
}

// due returns what to ask of a peer now, in the order in which it was announced.
func (r *txRequests) due(id PeerID) (list []*txOffer) {
	p := r.byPeer[id]
	if p == nil || len(p.best) == 0 {
		return nil
	}
	for o := range p.best {
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b *txOffer) int { return cmp.Compare(a.order, b.order) })
	return list
}

// ask notes that a peer is asked for what due returned, and until when it may answer.
func (r *txRequests) ask(o *txOffer, until time.Time) {
	o.when = until
	r.set(o, offerAsked)
}

// answered notes that a peer gave a transaction, or has it not.
func (r *txRequests) answered(id PeerID, hash bitcoin.Hash) {
	if p := r.byPeer[id]; p != nil && p.all[hash] != nil {
		r.finish(p.all[hash])
	}
}

// finish is done with an offer. It is kept while others may follow, so that the peer is not asked again.
func (r *txRequests) finish(o *txOffer) {
	if o.state != offerDone {
		r.set(o, offerDone)
	}
	for _, other := range r.byHash[o.hash] {
		if other.state != offerDone {
			r.choose(o.hash)
			return
		}
	}
	r.forgetHash(o.hash)
}

// forgetHash forgets all offers of a transaction.
func (r *txRequests) forgetHash(hash bitcoin.Hash) {
	for _, o := range r.byHash[hash] {
		if o.state != offerDone {
			r.set(o, offerDone)
		}
		p := r.byPeer[o.peer]
		if delete(p.all, hash); len(p.all) == 0 {
			delete(r.byPeer, o.peer)
		}
	}
	delete(r.byHash, hash)
}

func (r *txRequests) forgetTx(tx *bitcoin.Tx) {
	r.forgetHash(tx.TxID())
	r.forgetHash(tx.WTxID())
}

// forgetPeer forgets all offers of a peer; others are asked in its place.
func (r *txRequests) forgetPeer(id PeerID) {
	p := r.byPeer[id]
	if p == nil {
		return
	}
	for hash, o := range p.all {
		r.finish(o)
		list := slices.DeleteFunc(r.byHash[hash], func(x *txOffer) bool { return x == o })
		if len(list) == 0 {
			delete(r.byHash, hash)
		} else {
			r.byHash[hash] = list
		}
	}
	delete(r.byPeer, id)
}

// candidates returns the peers that have a transaction and can still be asked for it.
func (r *txRequests) candidates(hash bitcoin.Hash) (list []PeerID) {
	for _, o := range r.byHash[hash] {
		if o.state != offerDone {
			list = append(list, o.peer)
		}
	}
	return list
}

// offerHeap has the offer whose time comes first at its top.
type offerHeap []*txOffer

func (h offerHeap) Len() int           { return len(h) }
func (h offerHeap) Less(i, j int) bool { return h[i].when.Before(h[j].when) }
func (h offerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *offerHeap) Push(x any) {
	o := x.(*txOffer)
	o.at = len(*h)
	*h = append(*h, o)
}

func (h *offerHeap) Pop() any {
	old := *h
	o := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	o.at = -1
	return o
}
