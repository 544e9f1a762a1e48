package p2p

import (
	"math/rand/v2"
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
)

// The limits of orphans (Bitcoin Core node/txorphanage.h).
const (
	maxOneOrphanWeight = 400_000 // of a standard transaction
	orphanPeerWeight   = 404_000 // that each peer has a right to
	maxOrphanLatency   = 3000    // what all may cost to go through; see orphan.latency
)

// orphan is a transaction whose parents are not known, and who told us of it.
type orphan struct {
	tx    *bitcoin.Tx
	wtxid bitcoin.Hash
	by    map[PeerID]*orphanOffer
}

// orphanOffer is an orphan on the account of one peer that told us of it.
type orphanOffer struct {
	orphan *orphan
	peer   PeerID
	order  uint64
	retry  bool // it is this peer's turn to have the orphan tried again
}

// latency is what an orphan costs to go through: one for itself, one for every ten inputs.
func (o *orphan) latency() int { return 1 + len(o.tx.In)/10 }

// orphanAccount is what is kept for a peer.
type orphanAccount struct {
	offers  []*orphanOffer // the oldest first
	weight  int
	latency int
}

// orphanage keeps orphans, each on the account of all peers that told of it: when there are too many, the
// peer that goes beyond its right by most makes room, so that a flood of one displaces nobody else's
// (Bitcoin Core node/txorphanage.cpp). It has no lock: Node.mu guards it.
type orphanage struct {
	debugf   func(format string, args ...any)
	byID     map[bitcoin.Hash]*orphan // by wtxid
	spends   map[bitcoin.OutPoint]map[*orphan]bool
	accounts map[PeerID]*orphanAccount
	offers   int // of all peers
	weight   int // of the orphans, each counted once
	inputs   int // of the orphans' latencies, what is beyond one
	waiting  int // offers that are to be tried again
	next     uint64
}

func newOrphanage(debugf func(format string, args ...any)) *orphanage {
	return &orphanage{debugf: debugf, byID: map[bitcoin.Hash]*orphan{},
		spends: map[bitcoin.OutPoint]map[*orphan]bool{}, accounts: map[PeerID]*orphanAccount{}}
}

func (o *orphanage) len() int { return len(o.byID) }

func (o *orphanage) has(wtxid bitcoin.Hash) bool { return o.byID[wtxid] != nil }

func (o *orphanage) hasFrom(wtxid bitcoin.Hash, id PeerID) bool {
	e := o.byID[wtxid]
	return e != nil && e.by[id] != nil
}

// add keeps an orphan on a peer's account; fresh is false where it was there by somebody, or is too large.
func (o *orphanage) add(tx *bitcoin.Tx, from PeerID) (fresh bool) {
	wtxid := tx.WTxID()
	if w := tx.Weight(); w > maxOneOrphanWeight {
		o.debugf("ignoring large orphan tx (size: %d, txid: %s, wtxid: %s)", w, tx.TxID(), wtxid)
		return false
	}
	if o.has(wtxid) {
		o.addAnnouncer(wtxid, from)
		return false
	}
	e := &orphan{tx: tx, wtxid: wtxid, by: map[PeerID]*orphanOffer{}}
	o.byID[wtxid] = e
	o.weight += tx.Weight()
	o.inputs += e.latency() - 1
	for i := range tx.In {
		out := tx.In[i].PrevOut
		if o.spends[out] == nil {
			o.spends[out] = map[*orphan]bool{}
		}
		o.spends[out][e] = true
	}
	o.offer(e, from)
	o.debugf("stored orphan tx %s (wtxid=%s), weight: %d (mapsz %d outsz %d)", tx.TxID(), wtxid, tx.Weight(),
		len(o.byID), len(o.spends))
	o.trim()
	return o.has(wtxid)
}

// addAnnouncer puts an orphan on the account of another peer too.
func (o *orphanage) addAnnouncer(wtxid bitcoin.Hash, id PeerID) {
	e := o.byID[wtxid]
	if e == nil || e.by[id] != nil {
		return
	}
	o.offer(e, id)
	o.debugf("added peer=%d as announcer of orphan tx %s (wtxid=%s)", id, e.tx.TxID(), wtxid)
	o.trim()
}

func (o *orphanage) offer(e *orphan, id PeerID) {
	a := o.accounts[id]
	if a == nil {
		a = new(orphanAccount)
		o.accounts[id] = a
	}
	offer := &orphanOffer{orphan: e, peer: id, order: o.next}
	o.next++
	e.by[id] = offer
	a.offers = append(a.offers, offer)
	a.weight += e.tx.Weight()
	a.latency += e.latency()
	o.offers++
}

// excess is by how much a peer goes beyond its right, 1 being all of it.
func (o *orphanage) excess(a *orphanAccount) float64 {
	share := max(1, maxOrphanLatency/max(1, len(o.accounts)))
	return max(float64(a.latency)/float64(share), float64(a.weight)/orphanPeerWeight)
}

func (o *orphanage) full() bool {
	return o.offers+o.inputs > maxOrphanLatency || o.weight > orphanPeerWeight*max(1, len(o.accounts))
}

// trim makes room at the expense of the peer that goes beyond its right by most, the oldest orphans first,
// but those that are to be tried again last.
func (o *orphanage) trim() {
	if !o.full() {
		return
	}
	before, removed := o.len(), 0
	for o.full() {
		worst, most := PeerID(0), -1.0
		for id, a := range o.accounts {
			if x := o.excess(a); x > most || x == most && id < worst {
				worst, most = id, x
			}
		}
		a := o.accounts[worst]
		i := max(0, slices.IndexFunc(a.offers, func(x *orphanOffer) bool { return !x.retry }))
		o.leave(a.offers[i])
		removed++
	}
	o.debugf("orphanage overflow, removed %d tx (%d announcements)", before-o.len(), removed)
}

// leave takes an orphan off a peer's account, and away once it is on none.
func (o *orphanage) leave(offer *orphanOffer) {
	e, a := offer.orphan, o.accounts[offer.peer]
	if offer.retry {
		o.waiting--
	}
	delete(e.by, offer.peer)
	i, _ := slices.BinarySearchFunc(a.offers, offer.order, func(x *orphanOffer, order uint64) int {
		return int(x.order) - int(order)
	})
	a.offers = slices.Delete(a.offers, i, i+1)
	a.weight -= e.tx.Weight()
	a.latency -= e.latency()
	o.offers--
	if len(a.offers) == 0 {
		delete(o.accounts, offer.peer)
	}
	if len(e.by) > 0 {
		return
	}
	delete(o.byID, e.wtxid)
	o.weight -= e.tx.Weight()
	o.inputs -= e.latency() - 1
	for i := range e.tx.In {
		out := e.tx.In[i].PrevOut
		if delete(o.spends[out], e); len(o.spends[out]) == 0 {
			delete(o.spends, out)
		}
	}
}

// remove takes an orphan away; found is false where there is none.
func (o *orphanage) remove(wtxid bitcoin.Hash) (found bool) {
	e := o.byID[wtxid]
	if e == nil {
		return false
	}
	for _, offer := range e.by {
		o.leave(offer)
	}
	o.trim() // with fewer peers there is less room
	return true
}

func (o *orphanage) forgetPeer(id PeerID) {
	a := o.accounts[id]
	if a == nil {
		return
	}
	before := o.len()
	for len(a.offers) > 0 {
		o.leave(a.offers[len(a.offers)-1])
	}
	if gone := before - o.len(); gone > 0 {
		o.debugf("Erased %d orphan transaction(s) from peer=%d", gone, id)
	}
	o.trim()
}

// parentCame has the orphans tried again that spend a transaction: each by one of the peers that told of it,
// chosen so that none can keep it from being tried.
func (o *orphanage) parentCame(tx *bitcoin.Tx) {
	for i := range tx.Out {
		for e := range o.spends[bitcoin.OutPoint{TxID: tx.TxID(), Index: uint32(i)}] {
			var list []*orphanOffer
			for _, offer := range e.by {
				if offer.retry {
					list = nil
					break
				}
				list = append(list, offer)
			}
			if len(list) == 0 {
				continue // it is to be tried already
			}
			offer := list[rand.IntN(len(list))]
			offer.retry = true
			o.waiting++
			o.debugf("added %s (wtxid=%s) to peer %d workset", e.tx.TxID(), e.wtxid, offer.peer)
		}
	}
}

// retry returns the oldest orphan that a peer is to have tried again, once.
func (o *orphanage) retry(id PeerID) *bitcoin.Tx {
	if a := o.accounts[id]; a != nil && o.waiting > 0 {
		for _, offer := range a.offers {
			if offer.retry {
				offer.retry = false
				o.waiting--
				return offer.orphan.tx
			}
		}
	}
	return nil
}

// retryAny is retry for whichever peer has one; with it comes the peer.
func (o *orphanage) retryAny() (*bitcoin.Tx, PeerID) {
	for id := range o.accounts {
		if o.waiting == 0 {
			break
		}
		if tx := o.retry(id); tx != nil {
			return tx, id
		}
	}
	return nil, 0
}

// childrenFrom returns the orphans of a peer that spend a transaction, the newest first.
func (o *orphanage) childrenFrom(txid bitcoin.Hash, id PeerID) (list []*bitcoin.Tx) {
	a := o.accounts[id]
	if a == nil {
		return nil
	}
	for _, offer := range slices.Backward(a.offers) {
		tx := offer.orphan.tx
		if slices.ContainsFunc(tx.In, func(in bitcoin.TxIn) bool { return in.PrevOut.TxID == txid }) {
			list = append(list, tx)
		}
	}
	return list
}

// forBlock takes away the orphans that a block has, or that spend what it spends.
func (o *orphanage) forBlock(b *bitcoin.Block) {
	count := 0
	for i := range b.Txs {
		for j := range b.Txs[i].In {
			for e := range o.spends[b.Txs[i].In[j].PrevOut] {
				for _, offer := range e.by {
					o.leave(offer)
				}
				count++
			}
		}
	}
	if count > 0 {
		o.debugf("Erased %d orphan transaction(s) included or conflicted by block", count)
	}
	o.trim()
}
