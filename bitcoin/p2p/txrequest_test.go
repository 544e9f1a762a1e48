package p2p

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
)

// asks returns the transactions that are to be asked of a peer, as due has them after advance.
func asks(r *txRequests, id PeerID, now time.Time) (list []bitcoin.Hash) {
	r.advance(now)
	for _, o := range r.due(id) {
		list = append(list, o.hash)
	}
	return list
}

// ask asks a peer for a transaction that is due.
func ask(t *testing.T, r *txRequests, id PeerID, now time.Time) {
	t.Helper()
	r.advance(now)
	list := r.due(id)
	if len(list) != 1 {
		t.Fatalf("peer %d is to be asked for %d transactions, want 1", id, len(list))
	}
	r.ask(list[0], now.Add(getDataTimeout))
}

func TestTxRequestsAskOneAtATime(t *testing.T) {
	r, h := newTxRequests([2]uint64{1, 2}), bitcoin.Hash{7}
	r.add(2, h, true, false, noon.Add(nonPreferredWait))
	r.add(1, h, true, true, noon)
	if len(asks(r, 2, noon)) != 0 {
		t.Error("a peer was asked before its time")
	}
	ask(t, r, 1, noon)
	if len(asks(r, 2, noon.Add(10*time.Second))) != 0 {
		t.Error("two peers asked at a time")
	}
	after := noon.Add(getDataTimeout)
	ask(t, r, 2, after)
	r.add(1, h, true, true, after) // it announces again what it did not give
	r.answered(2, h)
	if len(asks(r, 1, after.Add(time.Hour))) != 0 || len(r.byHash)+len(r.byPeer)+len(r.times) != 0 {
		t.Errorf("after all have answered: %d, %d, %d left", len(r.byHash), len(r.byPeer), len(r.times))
	}
}

func TestTxRequestsPreferWhoIsPreferred(t *testing.T) {
	r, h := newTxRequests([2]uint64{1, 2}), bitcoin.Hash{7}
	for id := range PeerID(20) {
		r.add(id, h, true, id == 13, noon)
	}
	ask(t, r, 13, noon)
	r.forgetPeer(13)
	next := 0
	for id := range PeerID(20) {
		next += len(asks(r, id, noon))
	}
	if next != 1 {
		t.Errorf("%d peers are to be asked in place of one that left", next)
	}
	if got := len(r.candidates(h)); got != 19 {
		t.Errorf("%d candidates", got)
	}
}

// Each step of a random life leaves what the comments promise.
func FuzzTxRequests(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0x41, 0x82, 0xc3, 0x10, 0x20})
	f.Fuzz(func(t *testing.T, steps []byte) {
		r, now := newTxRequests([2]uint64{3, 4}), noon
		for _, s := range steps {
			id, hash := PeerID(s&3), bitcoin.Hash{s >> 2 & 3}
			switch s >> 4 {
			case 0, 1, 2, 3, 4, 5:
				r.add(id, hash, s&16 != 0, s&32 != 0, now.Add(time.Duration(s&7)*time.Second))
			case 6, 7:
				now = now.Add(time.Duration(s&15) * 10 * time.Second)
				r.advance(now)
			case 8, 9, 10:
				for _, o := range r.due(id) {
					r.ask(o, now.Add(getDataTimeout))
				}
			case 11, 12:
				r.answered(id, hash)
			case 13, 14:
				r.forgetHash(hash)
			default:
				r.forgetPeer(id)
			}
			checkTxRequests(t, r)
		}
	})
}

func checkTxRequests(t *testing.T, r *txRequests) {
	t.Helper()
	all, timed := 0, 0
	for hash, list := range r.byHash {
		chosen, ready, open := 0, 0, 0
		for _, o := range list {
			all++
			if r.byPeer[o.peer] == nil || r.byPeer[o.peer].all[hash] != o {
				t.Fatal("an offer that its peer does not have")
			}
			chosen += btoi(o.state == offerBest || o.state == offerAsked)
			ready += btoi(o.state == offerReady)
			open += btoi(o.state != offerDone)
			timed += btoi(o.state == offerDelayed || o.state == offerAsked)
		}
		if chosen > 1 || ready > 0 && chosen == 0 || open == 0 {
			t.Fatalf("%d chosen, %d ready, %d open", chosen, ready, open)
		}
	}
	for id, p := range r.byPeer {
		all -= len(p.all)
		best, asked := 0, 0
		for _, o := range p.all {
			best += btoi(o.state == offerBest)
			asked += btoi(o.state == offerAsked)
		}
		if best != len(p.best) || asked != p.asked || len(p.all) == 0 {
			t.Fatalf("peer %d: %d best, %d asked, %d in all", id, best, asked, len(p.all))
		}
	}
	if all != 0 || timed != len(r.times) {
		t.Fatalf("%d offers more by hash than by peer; %d timed, %d in the heap", all, timed, len(r.times))
	}
}

// orphanTx returns a transaction that spends an output of a parent.
func orphanTx(parent bitcoin.Hash, index uint32, size int) *bitcoin.Tx {
	return &bitcoin.Tx{Version: 2,
		In:  []bitcoin.TxIn{{PrevOut: bitcoin.OutPoint{TxID: parent, Index: index}}},
		Out: []bitcoin.TxOut{{Value: 1, Script: make([]byte, size)}}}
}

func quietly(string, ...any) {}

func TestOrphansAreOnTheirPeersAccount(t *testing.T) {
	o := newOrphanage(quietly)
	honest := orphanTx(bitcoin.Hash{9}, 1<<20, 1)
	o.add(honest, 1)
	for i := range uint32(50) {
		o.add(orphanTx(bitcoin.Hash{9}, i, 90_000), 2)
	}
	if !o.has(honest.WTxID()) {
		t.Error("a flood of one peer displaced another peer's orphan")
	}
	if w := o.accounts[2].weight; w > 2*orphanPeerWeight {
		t.Errorf("one peer's orphans weigh %d", w)
	}
	o.forgetPeer(2)
	if o.len() != 1 || len(o.spends) != 1 || len(o.accounts) != 1 {
		t.Errorf("%d orphans, %d outpoints, %d accounts left", o.len(), len(o.spends), len(o.accounts))
	}
}

func TestOrphansByCountAndInputs(t *testing.T) {
	o := newOrphanage(quietly)
	honest := orphanTx(bitcoin.Hash{9}, 1<<20, 1)
	o.add(honest, 1)
	for i := range uint32(400) {
		tx := orphanTx(bitcoin.Hash{8}, i<<8, 1)
		for j := range uint32(99) { // ten times as costly as one with a single input
			tx.In = append(tx.In, bitcoin.TxIn{PrevOut: bitcoin.OutPoint{TxID: bitcoin.Hash{8}, Index: i<<8 | j + 1}})
		}
		o.add(tx, 2)
	}
	if cost := o.offers + o.inputs; cost > maxOrphanLatency || !o.has(honest.WTxID()) {
		t.Errorf("the orphans cost %d, the honest one there: %v", cost, o.has(honest.WTxID()))
	}
}

func TestOrphanStaysWhileOnePeerHasIt(t *testing.T) {
	o := newOrphanage(quietly)
	tx := orphanTx(bitcoin.Hash{9}, 0, 1)
	o.add(tx, 1)
	o.addAnnouncer(tx.WTxID(), 2)
	o.forgetPeer(1)
	if !o.hasFrom(tx.WTxID(), 2) || o.hasFrom(tx.WTxID(), 1) {
		t.Error("the orphan is not on the account of the peer that is left")
	}
	if !o.remove(tx.WTxID()) || o.weight != 0 || o.offers != 0 || len(o.spends) != 0 {
		t.Errorf("weight %d, %d offers left", o.weight, o.offers)
	}
}

// An orphan is tried again once for each parent that comes, by one peer, whoever leaves.
func TestOrphanIsTriedOnce(t *testing.T) {
	o := newOrphanage(quietly)
	parent := orphanTx(bitcoin.Hash{1}, 0, 1)
	child := orphanTx(parent.TxID(), 0, 1)
	o.add(child, 1)
	o.addAnnouncer(child.WTxID(), 2)
	o.parentCame(parent)
	o.parentCame(parent)
	if o.waiting != 1 {
		t.Fatalf("%d are to be tried", o.waiting)
	}
	if tx, _ := o.retryAny(); tx != child {
		t.Error("the child is not tried again")
	}
	if tx, _ := o.retryAny(); tx != nil || o.waiting != 0 {
		t.Error("it is tried twice")
	}
	if list := o.childrenFrom(parent.TxID(), 2); len(list) != 1 || list[0] != child {
		t.Errorf("children %v", list)
	}
}

func TestPairHashDoesNotDependOnOrder(t *testing.T) {
	a, b := orphanTx(bitcoin.Hash{1}, 0, 1), orphanTx(bitcoin.Hash{2}, 0, 1)
	p, q := txPair{parent: a, child: b}, txPair{parent: b, child: a}
	if p.hash() != q.hash() {
		t.Error("a pair has two names")
	}
	// The sum over wtxids as numbers: the greater last octet comes second.
	x, y := a.WTxID(), b.WTxID()
	if binary.LittleEndian.Uint64(x[24:]) > binary.LittleEndian.Uint64(y[24:]) {
		x, y = y, x
	}
	if want := bitcoin.DoubleHash(append(append([]byte(nil), x[:]...), y[:]...)); p.hash() != want {
		t.Error("not the hash of the sorted wtxids")
	}
}
