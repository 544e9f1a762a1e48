package p2p

import (
	"math/rand/v2"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/mempool"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

const (
	invTarget        = 14 * 5 // transactions announced per turn to an inbound peer
	invMost          = 1000
	inboundInvEvery  = 5 * time.Second
	outboundInvEvery = 2 * time.Second
)

// RelayTx announces a transaction of the mempool. One that is marked there as not broadcast is announced
// again until a peer asks for it.
func (n *Node) RelayTx(txid, wtxid bitcoin.Hash) {
	n.mu.Lock()
	defer n.mu.Unlock()
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
