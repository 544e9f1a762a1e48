package p2p

import (
	"context"
	"slices"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

// The numbers of Core's node/txdownloadman.h and node/txdownloadman_impl.h.
const (
	maxAnnounced     = 5000 // transactions that one peer may have announced and not given
	maxAsked         = 100  // that are asked of one peer before it has to wait
	nonPreferredWait = 2 * time.Second
	txidWait         = 2 * time.Second
	overloadWait     = 2 * time.Second
	getDataTimeout   = time.Minute
	maxRejects       = 120_000
	maxConfirmed     = 48_000 // of about 24 hours
)

// Transactions for compact blocks that were lately not accepted.
const (
	maxExtraForCompact = 100     // Core's -blockreconstructionextratxn
	maxExtraOctets     = 100_000 // of one, about
)

// txDownload is what is known of transactions that peers offer (Bitcoin Core node/txdownloadman_impl.cpp).
// Node.mu guards it.
type txDownload struct {
	requests   *txRequests
	orphans    *orphanage
	rejects    *recentSet // not accepted; until the tip changes
	cheap      *recentSet // not accepted alone, perhaps with a child: wtxids, and hashes of such pairs
	confirmed  *recentSet // of the last blocks
	wtxidPeers int
}

func newTxDownload(key [2]uint64, debugf func(string, ...any)) txDownload {
	return txDownload{requests: newTxRequests(key), orphans: newOrphanage(debugf),
		rejects: newRecentSet(maxRejects), cheap: newRecentSet(maxRejects),
		confirmed: newRecentSet(maxConfirmed)}
}

// refusesTxs reports whether the peer must not send transactions.
func (n *Node) refusesTxs(p *Peer) bool {
	return p.typ == BlockRelayOnly || p.typ == Feeler || n.cfg.BlocksOnly && !p.perms.Has(PermRelay)
}

// haveTx reports whether a transaction need not be fetched. A txid is looked for among the wtxids of orphans
// too: they are the same where there is no witness.
func (n *Node) haveTx(id bitcoin.Hash, wtxid, withCheap bool) bool {
	return n.txs.orphans.has(id) || withCheap && n.txs.cheap.has(id) || n.txs.confirmed.has(id) ||
		n.txs.rejects.has(id) || n.pool.has(id, wtxid)
}

// onInv deals with what a peer says it has.
func (n *Node) onInv(p *Peer, m *wire.Inv) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var best *bitcoin.Hash
	initial, now := n.initialDownload(), n.clock.Now()
	for i := range m.Items {
		item := &m.Items[i]
		// A peer that speaks of wtxids does so always, and one that does not never.
		if item.Type == wire.InvTx && p.wtxidRelay || item.Type == wire.InvWTx && !p.wtxidRelay {
			continue
		}
		switch {
		case item.Type == wire.InvBlock:
			_, have := n.chain.Lookup(item.Hash)
			n.debugf("got inv: %s  %s peer=%d", item, haveOrNew(have), p.id)
			n.updateBest(p, item.Hash)
			if !have && len(n.blocks.inFlight[item.Hash]) == 0 && !n.chain.Loading() {
				best = &item.Hash
			}
		case item.IsTx():
			if n.refusesTxs(p) {
				n.debugf("transaction (%s) inv sent in violation of protocol, disconnecting peer=%d",
					item.Hash, p.id)
				p.close()
				return
			}
			p.known.add(item.Hash)
			if !initial {
				have := n.txAnnounced(p, item.Hash, item.Type == wire.InvWTx, now)
				n.debugf("got inv: %s  %s peer=%d", item, haveOrNew(have), p.id)
			}
		default:
			n.debugf("Unknown inv type \"%s\" received from peer=%d", item, p.id)
		}
	}
	if best != nil {
		n.blockAnnounced(p, *best)
	}
}

func haveOrNew(have bool) string {
	if have {
		return "have"
	}
	return "new"
}

// blockAnnounced asks for the headers up to a block: with one getheaders, whatever the inv held, and before
// the sync of one new peer for each block.
func (n *Node) blockAnnounced(p *Peer, hash bitcoin.Hash) {
	if !p.syncStarted && (p.invTriggered || hash == n.blocks.lastInvSync) {
		return
	}
	header := n.chain.BestHeader()
	if n.askHeaders(p, n.chain.Locator(header.Hash)) {
		n.debugf("getheaders (%d) %s to peer=%d", header.Height, hash, p.id)
	}
	if !p.syncStarted {
		p.invTriggered = true
		n.blocks.lastInvSync = hash
	}
}

// delay is how long a peer is not asked for what it announces.
func (n *Node) delay(p *Peer, byTxid bool) (d time.Duration) {
	if !p.preferred {
		d += nonPreferredWait
	}
	if byTxid && n.txs.wtxidPeers > 0 {
		d += txidWait
	}
	if _, asked := n.txs.requests.count(p.id); asked >= maxAsked && !p.perms.Has(PermRelay) {
		d += overloadWait
	}
	return d
}

// txAnnounced notes that a peer has a transaction; have says that it need not be fetched.
func (n *Node) txAnnounced(p *Peer, hash bitcoin.Hash, wtxid bool, now time.Time) (have bool) {
	if e := n.txs.orphans.byID[hash]; wtxid && e != nil {
		// The peer should have its parents too.
		missing := n.missingParents(e.tx)
		if len(missing) > 0 && n.resolveBy(p, hash, missing, now) {
			n.txs.orphans.addAnnouncer(hash, p.id)
		}
		return true
	}
	if n.haveTx(hash, wtxid, true) {
		return true
	}
	if all, _ := n.txs.requests.count(p.id); all < maxAnnounced || p.perms.Has(PermRelay) {
		n.txs.requests.add(p.id, hash, wtxid, p.preferred, now.Add(n.delay(p, !wtxid)))
	}
	return false
}

// uniqueParents returns the txids of what a transaction spends.
func uniqueParents(tx *bitcoin.Tx) []bitcoin.Hash {
	list := make([]bitcoin.Hash, 0, len(tx.In))
	for i := range tx.In {
		list = append(list, tx.In[i].PrevOut.TxID)
	}
	slices.SortFunc(list, func(a, b bitcoin.Hash) int { return slices.Compare(a[:], b[:]) })
	return slices.Compact(list)
}

// missingParents returns the parents that have to be fetched. One that paid too little alone is wanted: with
// this child it may pay enough.
func (n *Node) missingParents(tx *bitcoin.Tx) []bitcoin.Hash {
	return slices.DeleteFunc(uniqueParents(tx), func(id bitcoin.Hash) bool {
		return n.haveTx(id, false, false)
	})
}

// resolveBy notes that a peer which has an orphan should have its parents; false where the peer has it noted
// already, or too much.
func (n *Node) resolveBy(p *Peer, wtxid bitcoin.Hash, parents []bitcoin.Hash, now time.Time) bool {
	if n.txs.orphans.hasFrom(wtxid, p.id) {
		return false
	}
	if all, _ := n.txs.requests.count(p.id); all+len(parents) > maxAnnounced && !p.perms.Has(PermRelay) {
		return false
	}
	// The parents may be under way, announced by their wtxids: give them a moment.
	ready := now.Add(n.delay(p, true))
	for _, parent := range parents {
		n.txs.requests.add(p.id, parent, false, p.preferred, ready)
	}
	n.debugIn("txpackages", "added peer=%d as a candidate for resolving orphan %s", p.id, wtxid)
	return true
}

// txsDue returns what transactions to ask of a peer now.
func (n *Node) txsDue(p *Peer, now time.Time) (items []wire.Inventory) {
	for _, o := range n.txs.requests.advance(now) {
		n.debugf("timeout of inflight %s %s from peer=%d", txKind(o.wtxid), o.hash, o.peer)
	}
	for _, o := range n.txs.requests.due(p.id) {
		if n.haveTx(o.hash, o.wtxid, false) {
			n.txs.requests.forgetHash(o.hash)
			continue
		}
		n.debugf("Requesting %s %s peer=%d", txKind(o.wtxid), o.hash, p.id)
		n.txs.requests.ask(o, now.Add(getDataTimeout))
		t := wire.InvTx
		switch {
		case o.wtxid:
			t = wire.InvWTx
		case p.services.Has(wire.ServiceWitness):
			t = wire.InvWitnessTx
		}
		items = append(items, wire.Inventory{Type: t, Hash: o.hash})
	}
	return items
}

func txKind(wtxid bool) string {
	if wtxid {
		return "wtx"
	}
	return "tx"
}

func (n *Node) onNotFound(p *Peer, m *wire.NotFound) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(m.Items) > maxAnnounced+maxInFlight {
		return
	}
	for _, item := range m.Items {
		if item.IsTx() {
			n.txs.requests.answered(p.id, item.Hash)
		} else {
			p.noBody(item.Hash)
		}
	}
}

// onTx deals with a transaction that a peer sent.
func (n *Node) onTx(ctx context.Context, p *Peer, tx *bitcoin.Tx) {
	n.mu.Lock()
	if n.refusesTxs(p) {
		n.debugf("transaction sent in violation of protocol, disconnecting peer=%d", p.id)
		p.close()
		n.mu.Unlock()
		return
	}
	if n.initialDownload() {
		n.mu.Unlock()
		return // it cannot be judged yet, and to send it is no offence
	}
	txid, wtxid := tx.TxID(), tx.WTxID()
	if p.wtxidRelay {
		p.known.add(wtxid)
	} else {
		p.known.add(txid)
	}
	n.txs.requests.answered(p.id, txid)
	n.txs.requests.answered(p.id, wtxid)
	have := n.haveTx(wtxid, true, false)
	cheap := !have && n.txs.cheap.has(wtxid)
	var pair *txPair
	if have || cheap {
		n.forceRelay(p, txid, wtxid)
	}
	if cheap {
		n.debugIn("txpackages", "found tx %s (wtxid=%s) in reconsiderable rejects, looking for child in "+
			"orphanage", txid, wtxid)
		pair = n.findPair(tx, p.id)
	}
	n.mu.Unlock()
	if !have && !cheap {
		pair = n.tryTx(ctx, p, tx)
	}
	if pair != nil {
		n.tryPair(ctx, pair)
	}
}

// forceRelay announces a transaction that is not new, for a peer that is allowed to want that.
func (n *Node) forceRelay(p *Peer, txid, wtxid bitcoin.Hash) {
	if !p.perms.Has(PermForceRelay) {
		return
	}
	if _, ok := n.pool.get(txid, false); !ok {
		n.infof("Not relaying non-mempool transaction %s (wtxid=%s) from forcerelay peer=%d", txid, wtxid, p.id)
		return
	}
	n.infof("Force relaying tx %s (wtxid=%s) from peer=%d", txid, wtxid, p.id)
	n.relay(txid, wtxid)
}

// tryTx offers a transaction to the pool. With a child that it may enter the pool with, it returns both.
func (n *Node) tryTx(ctx context.Context, p *Peer, tx *bitcoin.Tx) *txPair {
	verdict := n.pool.submit(ctx, tx)
	n.mu.Lock()
	defer n.mu.Unlock()
	if verdict.accepted {
		n.accepted(p.id, tx, verdict.replaced)
		p.lastTx = n.clock.Now()
		return nil
	}
	return n.refused(p.id, tx, verdict, true)
}

// retryOrphans tries the orphans again whose parents have come and which are on this peer's account.
func (n *Node) retryOrphans(ctx context.Context, p *Peer) {
	for ctx.Err() == nil {
		n.mu.Lock()
		tx := n.txs.orphans.retry(p.id)
		n.mu.Unlock()
		if tx == nil {
			return
		}
		n.retryOrphan(ctx, p.id, tx)
	}
}

// orphanLoop does so for all peers: one that has nothing to say does not come to it.
func (n *Node) orphanLoop(ctx context.Context) {
	for {
		select {
		case <-n.orphanWork:
		case <-ctx.Done():
			return
		}
		for ctx.Err() == nil {
			n.mu.Lock()
			tx, id := n.txs.orphans.retryAny()
			n.mu.Unlock()
			if tx == nil {
				break
			}
			n.retryOrphan(ctx, id, tx)
		}
	}
}

func (n *Node) retryOrphan(ctx context.Context, id PeerID, tx *bitcoin.Tx) {
	verdict := n.pool.submit(ctx, tx)
	n.mu.Lock()
	defer n.mu.Unlock()
	txid, wtxid := tx.TxID(), tx.WTxID()
	switch {
	case verdict.accepted:
		n.debugIn("txpackages", "   accepted orphan tx %s (wtxid=%s)", txid, wtxid)
		n.accepted(id, tx, verdict.replaced)
	case !verdict.missingInputs:
		n.debugIn("txpackages", "   invalid orphan tx %s (wtxid=%s) from peer=%d. %v", txid, wtxid, id, verdict.err)
		n.refused(id, tx, verdict, false)
	}
}

// accepted deals with a transaction that is in the pool now; with mu held.
func (n *Node) accepted(id PeerID, tx *bitcoin.Tx, replaced []*bitcoin.Tx) {
	n.txs.requests.forgetTx(tx)
	n.txs.orphans.parentCame(tx)
	n.txs.orphans.remove(tx.WTxID())
	count, octets := n.pool.size()
	n.debugIn("mempool", "AcceptToMemoryPool: peer=%d: accepted %s (wtxid=%s) (poolsz %d txn, %d kB)", id,
		tx.TxID(), tx.WTxID(), count, octets/1000)
	n.relay(tx.TxID(), tx.WTxID())
	for _, old := range replaced {
		n.addExtra(old)
	}
	if n.txs.orphans.waiting > 0 {
		select {
		case n.orphanWork <- struct{}{}:
		default:
		}
	}
}

// refused remembers what the pool did not take, so that it is not fetched again, and keeps what lacks its
// parents; with mu held. fresh says that it was judged for the first time.
func (n *Node) refused(id PeerID, tx *bitcoin.Tx, v txVerdict, fresh bool) (pair *txPair) {
	txid, wtxid := tx.TxID(), tx.WTxID()
	n.debugIn("mempoolrej", "%s (wtxid=%s) from peer=%d was not accepted: %v", txid, wtxid, id, v.err)
	t := &n.txs
	switch {
	case v.fault:
		return nil
	case v.missingInputs:
		if fresh && !t.rejects.has(wtxid) {
			n.keepOrphan(id, tx)
		}
		return nil
	case v.stripped:
		// Its txid says nothing of the one with the witness, and that is its wtxid.
		t.orphans.remove(wtxid)
		return nil
	case v.tooCheap:
		t.cheap.add(wtxid)
		if fresh {
			n.debugIn("txpackages", "tx %s (wtxid=%s) failed but reconsiderable, looking for child in orphanage",
				txid, wtxid)
			pair = n.findPair(tx, id)
		}
	default:
		// The wtxid only: the same transaction with another witness may be right.
		t.rejects.add(wtxid)
	}
	t.requests.forgetHash(wtxid)
	if v.anyWitness && txid != wtxid {
		t.rejects.add(txid)
		t.requests.forgetHash(txid)
	}
	if fresh {
		n.addExtra(tx)
	}
	if t.orphans.remove(wtxid) {
		n.debugIn("txpackages", "   removed orphan tx %s (wtxid=%s)", txid, wtxid)
	}
	return pair
}

// addExtra keeps a transaction that was not accepted for compact blocks.
func (n *Node) addExtra(tx *bitcoin.Tx) {
	if tx.Size() > maxExtraOctets {
		return
	}
	if len(n.extra) >= maxExtraForCompact {
		n.extra = append(n.extra[:0], n.extra[1:]...)
	}
	n.extra = append(n.extra, tx)
}

// keepOrphan keeps a transaction whose parents are not known, and asks who has it for them; with mu held.
func (n *Node) keepOrphan(id PeerID, tx *bitcoin.Tx) {
	txid, wtxid := tx.TxID(), tx.WTxID()
	if n.rejectedParents(tx) {
		n.debugIn("mempool", "not keeping orphan with rejected parents %s (wtxid=%s)", txid, wtxid)
		// No witness makes up for its parents.
		n.txs.rejects.add(txid)
		n.txs.rejects.add(wtxid)
		n.txs.requests.forgetTx(tx)
		n.addExtra(tx)
		return
	}
	parents := n.missingParents(tx)
	if p := n.peers[id]; p != nil {
		for _, parent := range parents {
			p.known.add(parent)
		}
	}
	if !n.txs.orphans.has(wtxid) {
		n.addExtra(tx)
	}
	from := append([]PeerID{id}, n.txs.requests.candidates(txid)...)
	if txid != wtxid {
		from = append(from, n.txs.requests.candidates(wtxid)...)
	}
	now := n.clock.Now()
	for _, id := range from {
		if p := n.peers[id]; p != nil && !p.closing && n.resolveBy(p, wtxid, parents, now) {
			n.txs.orphans.add(tx, id)
		}
	}
	n.txs.requests.forgetTx(tx)
}

// rejectedParents reports whether a parent was refused: but of those that pay too little one may be, as the
// child may pay for it.
func (n *Node) rejectedParents(tx *bitcoin.Tx) bool {
	cheap := 0
	for _, parent := range uniqueParents(tx) {
		if n.txs.rejects.has(parent) {
			return true
		}
		if n.txs.cheap.has(parent) && !n.pool.has(parent, false) {
			cheap++
		}
	}
	return cheap > 1
}

// tipChanged forgets what was refused: by the new tip it may be right. With mu held.
func (t *txDownload) tipChanged() {
	t.rejects.reset()
	t.cheap.reset()
}

// confirm deals with the transactions of a new block; with mu held.
func (t *txDownload) confirm(b *bitcoin.Block) {
	t.orphans.forBlock(b)
	for i := range b.Txs {
		tx := &b.Txs[i]
		t.confirmed.add(tx.TxID())
		t.confirmed.add(tx.WTxID())
		t.requests.forgetTx(tx)
	}
}
