package p2p

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/mempool"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

const (
	invTarget          = 14 * 5 // transactions announced per turn to an inbound peer
	invMost            = 1000
	inboundInvEvery    = 5 * time.Second
	outboundInvEvery   = 2 * time.Second
	maxExtraForCompact = 100 // Core's -blockreconstructionextratxn
)

// refusesTxs reports whether the peer must not send transactions.
func (n *Node) refusesTxs(p *Peer) bool {
	return p.typ == BlockRelayOnly || p.typ == Feeler || n.cfg.BlocksOnly && !p.perms.Has(PermRelay)
}

// onInv deals with what a peer says it has.
func (n *Node) onInv(p *Peer, m *wire.Inv) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var best *bitcoin.Hash
	initial := n.initialDownload()
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
			if initial {
				continue
			}
			have := n.knowsTx(item.Hash, item.Type == wire.InvWTx)
			n.debugf("got inv: %s  %s peer=%d", item, haveOrNew(have), p.id)
			if !have {
				n.txs.announced(p, item.Hash, item.Type == wire.InvWTx, n.wtxidPeers() > 0, n.clock.Now())
			}
		default:
			n.debugf("Unknown inv type \"%s\" received from peer=%d", item, p.id)
		}
	}
	if best == nil {
		return
	}
	// One getheaders at most, whatever the inv holds; and before the sync, one new peer for a block.
	if p.syncStarted || !p.invTriggered && *best != n.blocks.lastInvSync {
		header := n.chain.BestHeader()
		if n.askHeaders(p, n.chain.Locator(header.Hash)) {
			n.debugf("getheaders (%d) %s to peer=%d", header.Height, best, p.id)
		}
		if !p.syncStarted {
			p.invTriggered = true
			n.blocks.lastInvSync = *best
		}
	}
}

func haveOrNew(have bool) string {
	if have {
		return "have"
	}
	return "new"
}

func (n *Node) wtxidPeers() (count int) {
	for _, p := range n.peers {
		if p.wtxidRelay {
			count++
		}
	}
	return count
}

// knowsTx reports whether a transaction need not be fetched.
func (n *Node) knowsTx(id bitcoin.Hash, wtxid bool) bool {
	return n.rejects.has(id) || wtxid && n.orphans.has(id) || n.pool.has(id, wtxid)
}

func (n *Node) onNotFound(p *Peer, m *wire.NotFound) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(m.Items) > 5000+maxInFlight {
		return
	}
	for _, item := range m.Items {
		if item.IsTx() {
			n.txs.answered(p.id, item.Hash)
		}
	}
}

// onTx takes a transaction in, and the orphans that waited for it.
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
		return
	}
	txid, wtxid := tx.TxID(), tx.WTxID()
	if p.wtxidRelay {
		p.known.add(wtxid)
	} else {
		p.known.add(txid)
	}
	n.txs.answered(p.id, txid)
	n.txs.answered(p.id, wtxid)
	known := n.rejects.has(wtxid) || n.orphans.has(wtxid) || n.pool.has(wtxid, true)
	if known {
		n.alreadyKnown(p, tx)
		n.mu.Unlock()
		return
	}
	n.mu.Unlock()
	n.tryTx(ctx, p, tx)
}

// alreadyKnown deals with a transaction that came again; with mu held.
func (n *Node) alreadyKnown(p *Peer, tx *bitcoin.Tx) {
	n.orphans.addAnnouncer(tx.WTxID(), p.id)
	if !p.perms.Has(PermForceRelay) {
		return
	}
	if _, ok := n.pool.get(tx.TxID(), false); !ok {
		n.infof("Not relaying non-mempool transaction %s (wtxid=%s) from forcerelay peer=%d",
			tx.TxID(), tx.WTxID(), p.id)
		return
	}
	n.infof("Force relaying tx %s (wtxid=%s) from peer=%d", tx.TxID(), tx.WTxID(), p.id)
	n.relay(tx.TxID(), tx.WTxID())
}

// tryTx offers a transaction to the pool, then those that wait for it, each at most once: the work that one
// message causes is bounded.
func (n *Node) tryTx(ctx context.Context, p *Peer, tx *bitcoin.Tx) {
	work := []*bitcoin.Tx{tx}
	from := map[*bitcoin.Tx]PeerID{tx: p.id}
	for i := 0; i < len(work) && i < maxOrphansPerTx && ctx.Err() == nil; i++ {
		tx := work[i]
		verdict := n.pool.submit(ctx, tx)
		n.mu.Lock()
		if verdict.accepted {
			n.accepted(p, tx, verdict, i > 0)
			for _, o := range n.orphans.children(tx) {
				if _, seen := from[o.tx]; !seen {
					from[o.tx] = o.first
					work = append(work, o.tx)
				}
			}
		} else {
			n.refused(p, tx, verdict, i > 0)
		}
		n.mu.Unlock()
	}
}

func (n *Node) accepted(p *Peer, tx *bitcoin.Tx, v txVerdict, orphan bool) {
	n.txs.forgetTx(tx)
	n.orphans.remove(tx.WTxID())
	n.relay(tx.TxID(), tx.WTxID())
	p.lastTx = n.clock.Now()
	n.log.Debug("AcceptToMemoryPool: peer="+itoa(int64(p.id))+": accepted "+tx.TxID().String()+
		" (wtxid="+tx.WTxID().String()+")", "cat", "mempool")
}

func (n *Node) refused(p *Peer, tx *bitcoin.Tx, v txVerdict, orphan bool) {
	txid, wtxid := tx.TxID(), tx.WTxID()
	if v.missingInputs && !orphan {
		n.keepOrphan(p, tx)
		return
	}
	if v.missingInputs {
		return
	}
	n.debugf("%s (wtxid=%s) from peer=%d was not accepted: %v", txid, wtxid, p.id, v.err)
	n.txs.answered(p.id, wtxid)
	switch {
	case v.alreadyKnown || v.stripped:
	case v.anyWitness:
		n.rejects.add(txid)
		n.txs.forgetHash(txid)
		fallthrough
	default:
		// The wtxid only: the same transaction with another witness may be right.
		n.rejects.add(wtxid)
		n.txs.forgetHash(wtxid)
		n.addExtra(tx)
	}
	n.orphans.remove(wtxid)
}

// addExtra keeps a transaction that was not accepted for compact blocks.
func (n *Node) addExtra(tx *bitcoin.Tx) {
	if tx.Weight() > 400_000 {
		return
	}
	if len(n.extra) >= maxExtraForCompact {
		n.extra = append(n.extra[:0], n.extra[1:]...)
	}
	n.extra = append(n.extra, tx)
}

// keepOrphan keeps a transaction whose parents are not known, and asks its sender for them.
func (n *Node) keepOrphan(p *Peer, tx *bitcoin.Tx) {
	var parents []bitcoin.Hash
	for i := range tx.In {
		parent := tx.In[i].PrevOut.TxID
		if n.rejects.has(parent) {
			n.debugf("not keeping orphan with rejected parents %s (wtxid=%s)", tx.TxID(), tx.WTxID())
			n.rejects.add(tx.TxID())
			n.rejects.add(tx.WTxID())
			n.txs.forgetTx(tx)
			return
		}
		parents = append(parents, parent)
	}
	for _, parent := range parents {
		p.known.add(parent)
		if !n.knowsTx(parent, false) {
			n.txs.announced(p, parent, false, false, n.clock.Now())
		}
	}
	if n.orphans.add(tx, p.id) {
		n.log.Debug("stored orphan tx "+tx.TxID().String()+" (wtxid="+tx.WTxID().String()+
			"), weight: "+itoa(int64(tx.Weight()))+" (mapsz "+itoa(int64(n.orphans.len()))+")",
			"cat", "txpackages")
	}
	n.txs.forgetTx(tx)
	n.addExtra(tx)
}

// RelayTx announces one of our own transactions, until a peer asks for it.
func (n *Node) RelayTx(txid, wtxid bitcoin.Hash) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pool.setUnbroadcast(txid, true)
	n.relay(txid, wtxid)
}

// relay queues a transaction for all who want it; with mu held.
func (n *Node) relay(txid, wtxid bitcoin.Hash) {
	for _, p := range n.peers {
		if !p.txRelay || !p.handshaken {
			continue
		}
		id := txid
		if p.wtxidRelay {
			id = wtxid
		}
		if !p.known.has(id) {
			p.toSend[wtxid] = true
		}
	}
}

// invDue announces transactions when it is time: late and in one go, so that nobody can tell where they
// come from.
func (n *Node) invDue(p *Peer, now time.Time) {
	if !p.txRelay {
		return
	}
	send := p.perms.Has(PermNoBan)
	if now.After(p.nextInv) {
		send = true
		if p.typ == Inbound {
			if !n.inbound.After(now) {
				n.inbound = now.Add(exponential(inboundInvEvery)) // one time for all: spies gain nothing
			}
			p.nextInv = n.inbound
		} else {
			p.nextInv = now.Add(exponential(outboundInvEvery))
		}
	}
	if !send {
		return
	}
	if !p.relayTxs {
		clear(p.toSend)
	}
	var items []wire.Inventory
	if p.sendMempool {
		items = n.wholePool(p)
	}
	items = append(items, n.queued(p)...)
	p.lastInvSeq = n.pool.sequence()
	for len(items) > 0 {
		k := min(len(items), wire.MaxInv)
		p.push(&wire.Inv{Items: items[:k]})
		items = items[k:]
	}
}

func (n *Node) invOf(p *Peer, tx *bitcoin.Tx) wire.Inventory {
	if p.wtxidRelay {
		return wire.Inventory{Type: wire.InvWTx, Hash: tx.WTxID()}
	}
	return wire.Inventory{Type: wire.InvTx, Hash: tx.TxID()}
}

// belowFilter reports whether the peer does not want to hear of a transaction that pays so little.
func belowFilter(p *Peer, t *poolTx) bool {
	return int64(t.fee)*1000 < int64(p.feeFilter)*int64(t.vsize)
}

func (n *Node) wholePool(p *Peer) (items []wire.Inventory) {
	p.sendMempool = false
	for _, t := range n.pool.all(nil) {
		item := n.invOf(p, t.tx)
		delete(p.toSend, t.tx.WTxID())
		if belowFilter(p, &t) || p.bloomLoaded && !p.bloom.Match(t.tx) {
			continue
		}
		p.known.add(item.Hash)
		items = append(items, item)
	}
	return items
}

// queued returns what of the queue is announced this time: the best paying first, parents before children.
func (n *Node) queued(p *Peer) (items []wire.Inventory) {
	if len(p.toSend) == 0 {
		return nil
	}
	most := min(invMost, invTarget+len(p.toSend)/1000*5)
	ids := make([]bitcoin.Hash, 0, len(p.toSend))
	for wtxid := range p.toSend {
		ids = append(ids, wtxid)
	}
	list := n.pool.pick(ids)
	if len(list) < len(ids) { // the others have left the pool
		clear(p.toSend)
		for _, t := range list {
			p.toSend[t.tx.WTxID()] = true
		}
	}
	for _, t := range list {
		if len(items) == most {
			break
		}
		delete(p.toSend, t.tx.WTxID())
		item := n.invOf(p, t.tx)
		if p.known.has(item.Hash) || belowFilter(p, &t) || p.bloomLoaded && !p.bloom.Match(t.tx) {
			continue
		}
		p.known.add(item.Hash)
		items = append(items, item)
	}
	return items
}

// rebroadcast announces our own transactions again that no peer has asked for; every 10 to 15 minutes.
func (n *Node) rebroadcast() {
	for _, t := range n.pool.all((*mempool.Entry).Unbroadcast) {
		n.relay(t.tx.TxID(), t.tx.WTxID())
	}
}

func rebroadcastTime(now time.Time) time.Time {
	return now.Add(10*time.Minute + rand.N(5*time.Minute))
}
