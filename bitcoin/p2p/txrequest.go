package p2p

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

const (
	maxAnnounced     = 5000 // transactions that one peer may have announced and not given
	maxAsked         = 100  // that are asked of one peer before it has to wait
	nonPreferredWait = 2 * time.Second
	txidWait         = 2 * time.Second
	overloadWait     = 2 * time.Second
	getDataTimeout   = time.Minute
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// txOffer is a transaction that one peer has announced.
type txOffer struct {
	peer      *Peer
	wtxid     bool
	preferred bool
	ready     time.Time // not to be asked before
	expires   time.Time // if asked
	asked     bool
	order     uint64
}

// txRequests decides of whom to ask which transaction when: one peer at a time for each, outbound peers
// first, the next when one does not answer (Bitcoin Core txrequest.h). It has no lock: Node.mu guards it.
type txRequests struct {
	byHash map[bitcoin.Hash][]*txOffer
	byPeer map[PeerID]map[bitcoin.Hash]*txOffer
	next   uint64
}

func newTxRequests() *txRequests {
	return &txRequests{byHash: map[bitcoin.Hash][]*txOffer{},
		byPeer: map[PeerID]map[bitcoin.Hash]*txOffer{}}
}

// announced notes that a peer has a transaction. slowTxid says that others may announce it by wtxid.
func (r *txRequests) announced(p *Peer, hash bitcoin.Hash, wtxid, slowTxid bool, now time.Time) {
	mine := r.byPeer[p.id]
	if mine == nil {
		mine = map[bitcoin.Hash]*txOffer{}
		r.byPeer[p.id] = mine
	}
	if mine[hash] != nil || len(mine) >= maxAnnounced && !p.perms.Has(PermRelay) {
		return
	}
	o := &txOffer{peer: p, wtxid: wtxid, preferred: p.preferred, ready: now, order: r.next}
	r.next++
	if !o.preferred {
		o.ready = o.ready.Add(nonPreferredWait)
	}
	if !wtxid && slowTxid {
		o.ready = o.ready.Add(txidWait)
	}
	asked := 0
	for _, other := range mine {
		if other.asked {
			asked++
		}
	}
	if asked >= maxAsked && !p.perms.Has(PermRelay) {
		o.ready = o.ready.Add(overloadWait)
	}
	mine[hash] = o
	r.byHash[hash] = append(r.byHash[hash], o)
}

// due returns what to ask of a peer now.
func (r *txRequests) due(p *Peer, now time.Time) (items []wire.Inventory) {
	type item struct {
		hash  bitcoin.Hash
		order uint64
	}
	var list []item
	for hash, o := range r.byPeer[p.id] {
		if o.asked && !now.Before(o.expires) {
			r.answered(p.id, hash)
			continue
		}
		if !o.asked && !o.ready.After(now) && r.chosen(hash, now) == o {
			list = append(list, item{hash, o.order})
		}
	}
	slices.SortFunc(list, func(a, b item) int { return cmp.Compare(a.order, b.order) })
	for _, it := range list {
		o := r.byPeer[p.id][it.hash]
		o.asked, o.expires = true, now.Add(getDataTimeout)
		t := wire.InvWitnessTx
		if o.wtxid {
			t = wire.InvWTx
		} else if !p.services.Has(wire.ServiceWitness) {
			t = wire.InvTx
		}
		items = append(items, wire.Inventory{Type: t, Hash: it.hash})
	}
	return items
}

// chosen returns who is to be asked for a transaction: nobody while an answer is due.
func (r *txRequests) chosen(hash bitcoin.Hash, now time.Time) *txOffer {
	var best *txOffer
	for _, o := range r.byHash[hash] {
		switch {
		case o.asked && now.Before(o.expires):
			return nil
		case o.asked || o.ready.After(now):
		case best == nil, o.preferred && !best.preferred:
			best = o
		}
	}
	return best
}

// answered notes that a peer gave a transaction, or has it not.
func (r *txRequests) answered(id PeerID, hash bitcoin.Hash) {
	o := r.byPeer[id][hash]
	if o == nil {
		return
	}
	delete(r.byPeer[id], hash)
	list := slices.DeleteFunc(r.byHash[hash], func(x *txOffer) bool { return x == o })
	if len(list) == 0 {
		delete(r.byHash, hash)
	} else {
		r.byHash[hash] = list
	}
}

func (r *txRequests) forgetHash(hash bitcoin.Hash) {
	for _, o := range r.byHash[hash] {
		delete(r.byPeer[o.peer.id], hash)
	}
	delete(r.byHash, hash)
}

func (r *txRequests) forgetTx(tx *bitcoin.Tx) {
	r.forgetHash(tx.TxID())
	r.forgetHash(tx.WTxID())
}

func (r *txRequests) forgetBlock(b *bitcoin.Block) {
	for i := range b.Txs {
		r.forgetTx(&b.Txs[i])
	}
}

func (r *txRequests) forgetPeer(id PeerID) {
	for hash := range r.byPeer[id] {
		r.answered(id, hash)
	}
	delete(r.byPeer, id)
}

const (
	maxOrphanWeight  = 404_000 // of one peer
	maxOrphans       = 3000    // announcements, of all peers
	maxOrphansPerTx  = 100     // that one transaction makes us look at
	maxOneOrphanSize = 400_000 // weight
)

// orphan is a transaction whose parents are not known, and who told us of it.
type orphan struct {
	tx    *bitcoin.Tx
	peers map[PeerID]bool
	first PeerID
	order uint64
}

// orphanage keeps orphans, each peer on its own account: the peer that takes most makes room (Bitcoin Core
// node/txorphanage.cpp). It has no lock: Node.mu guards it.
type orphanage struct {
	byID    map[bitcoin.Hash]*orphan // by wtxid
	spends  map[bitcoin.OutPoint]map[*orphan]bool
	weights map[PeerID]int
	counts  map[PeerID]int
	total   int // announcements
	next    uint64
}

func newOrphanage() *orphanage {
	return &orphanage{byID: map[bitcoin.Hash]*orphan{}, weights: map[PeerID]int{},
		counts: map[PeerID]int{}, spends: map[bitcoin.OutPoint]map[*orphan]bool{}}
}

func (o *orphanage) len() int { return len(o.byID) }

func (o *orphanage) has(wtxid bitcoin.Hash) bool { return o.byID[wtxid] != nil }

// add keeps an orphan; kept is false where it is too large or was there.
func (o *orphanage) add(tx *bitcoin.Tx, from PeerID) (kept bool) {
	if tx.Weight() > maxOneOrphanSize {
		return false
	}
	if o.has(tx.WTxID()) {
		o.addAnnouncer(tx.WTxID(), from)
		return false
	}
	e := &orphan{tx: tx, peers: map[PeerID]bool{}, first: from, order: o.next}
	o.next++
	o.byID[tx.WTxID()] = e
	for i := range tx.In {
		out := tx.In[i].PrevOut
		if o.spends[out] == nil {
			o.spends[out] = map[*orphan]bool{}
		}
		o.spends[out][e] = true
	}
	o.addAnnouncer(tx.WTxID(), from)
	o.trim()
	return o.has(tx.WTxID())
}

// addAnnouncer notes that another peer has an orphan too.
func (o *orphanage) addAnnouncer(wtxid bitcoin.Hash, id PeerID) {
	e := o.byID[wtxid]
	if e == nil || e.peers[id] {
		return
	}
	e.peers[id] = true
	o.weights[id] += e.tx.Weight()
	o.counts[id]++
	o.total++
}

// trim makes room at the expense of the peer that takes most of its share, its oldest orphans first.
func (o *orphanage) trim() {
	for {
		var worst PeerID
		score := 0.0
		share := max(1, maxOrphans/max(1, len(o.counts)))
		for id, c := range o.counts {
			s := max(float64(c)/float64(share), float64(o.weights[id])/maxOrphanWeight)
			if s > score || s == score && id < worst {
				worst, score = id, s
			}
		}
		sum := 0
		for _, w := range o.weights {
			sum += w
		}
		if o.total <= maxOrphans && sum <= maxOrphanWeight*max(1, len(o.counts)) {
			return
		}
		var oldest *orphan
		for _, e := range o.byID {
			if e.peers[worst] && (oldest == nil || e.order < oldest.order) {
				oldest = e
			}
		}
		o.leave(oldest, worst)
	}
}

// leave takes a peer off an orphan, and the orphan away once it has none.
func (o *orphanage) leave(e *orphan, id PeerID) {
	if !e.peers[id] {
		return
	}
	delete(e.peers, id)
	o.weights[id] -= e.tx.Weight()
	o.counts[id]--
	o.total--
	if o.counts[id] == 0 {
		delete(o.counts, id)
		delete(o.weights, id)
	}
	if len(e.peers) == 0 {
		o.erase(e)
	}
}

func (o *orphanage) erase(e *orphan) {
	delete(o.byID, e.tx.WTxID())
	for i := range e.tx.In {
		out := e.tx.In[i].PrevOut
		delete(o.spends[out], e)
		if len(o.spends[out]) == 0 {
			delete(o.spends, out)
		}
	}
}

func (o *orphanage) remove(wtxid bitcoin.Hash) {
	e := o.byID[wtxid]
	if e == nil {
		return
	}
	for id := range e.peers {
		o.leave(e, id)
	}
}

func (o *orphanage) forgetPeer(id PeerID) {
	for _, e := range o.byID {
		o.leave(e, id)
	}
}

// children returns the orphans that spend a transaction, the oldest first.
func (o *orphanage) children(tx *bitcoin.Tx) []*orphan {
	found := map[*orphan]bool{}
	for i := range tx.Out {
		for e := range o.spends[bitcoin.OutPoint{TxID: tx.TxID(), Index: uint32(i)}] {
			found[e] = true
		}
	}
	list := make([]*orphan, 0, len(found))
	for e := range found {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b *orphan) int { return cmp.Compare(a.order, b.order) })
	return list
}

// forBlock takes away the orphans that a block has, or that spend what it spends, and returns how many.
func (o *orphanage) forBlock(b *bitcoin.Block) (count int) {
	for i := range b.Txs {
		for j := range b.Txs[i].In {
			for e := range o.spends[b.Txs[i].In[j].PrevOut] {
				o.remove(e.tx.WTxID())
				count++
			}
		}
	}
	return count
}
