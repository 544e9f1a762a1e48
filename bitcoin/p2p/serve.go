package p2p

import (
	"context"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

const (
	maxCompactDepth   = 5  // blocks below the tip that are still sent as compact blocks
	maxBlockTxnDepth  = 10 // whose transactions are still sent one by one
	historicalAge     = 7 * 24 * time.Hour
	limitedKeepBlocks = 288
)

// recentBlock is the block that was announced last, kept for those who will ask for it.
type recentBlock struct {
	block   *bitcoin.Block
	hash    bitcoin.Hash
	compact *wire.CmpctBlock
}

// block returns a block that may be served.
func (n *Node) block(hash bitcoin.Hash) *bitcoin.Block {
	n.mu.Lock()
	r := n.recent
	n.mu.Unlock()
	if r != nil && r.hash == hash {
		return r.block
	}
	b, err := n.chain.Block(hash)
	if err != nil {
		return nil
	}
	return b
}

// compactFor returns the compact form of a block; with mu held.
func (n *Node) compactFor(hash bitcoin.Hash) *wire.CmpctBlock {
	if n.recent != nil && n.recent.hash == hash {
		return n.recent.compact
	}
	b, err := n.chain.Block(hash)
	if err != nil {
		return nil
	}
	n.recent = newRecent(b)
	return n.recent.compact
}

// onGetData serves what was asked for, in order: a transaction at once, a block when the peer has taken
// what came before it.
func (n *Node) onGetData(ctx context.Context, p *Peer, items []wire.Inventory) {
	n.followChain(ctx) // what was announced just now may be in a block already
	n.debugf("received getdata (%d invsz) peer=%d", len(items), p.id)
	if len(items) > 0 {
		n.debugf("received getdata for: %s peer=%d", items[0], p.id)
	}
	var missing []wire.Inventory
	for _, item := range items {
		if !p.waitRoom() {
			return
		}
		switch {
		case item.IsTx():
			if !n.serveTx(p, item) {
				missing = append(missing, item)
			}
		case item.IsBlock():
			n.serveBlock(p, item)
		}
	}
	if len(missing) > 0 {
		p.push(&wire.NotFound{Items: missing})
	}
}

// serveTx sends a transaction that the peer can know of: one that we told it of, that entered the pool
// before we last told it anything, or of the last block.
func (n *Node) serveTx(p *Peer, item wire.Inventory) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !p.txRelay {
		return true // nothing is answered to who should not ask
	}
	t, ok := n.pool.get(item.Hash, item.Type == wire.InvWTx)
	var found *bitcoin.Tx
	if ok && t.sequence < p.lastInvSeq {
		found = t.tx
	} else if n.recent != nil {
		for i := range n.recent.block.Txs {
			tx := &n.recent.block.Txs[i]
			if item.Type == wire.InvWTx && tx.WTxID() == item.Hash ||
				item.Type != wire.InvWTx && tx.TxID() == item.Hash {
				found = tx
				break
			}
		}
	}
	if found == nil {
		return false
	}
	p.push(&wire.Tx{Tx: found, NoWitness: item.Type == wire.InvTx})
	n.pool.broadcast(found.TxID())
	return true
}

// serveBlock sends a block in the form that was asked for (Core's ProcessGetBlockData).
func (n *Node) serveBlock(p *Peer, item wire.Inventory) {
	e, ok := n.chain.Lookup(item.Hash)
	if !ok {
		return
	}
	n.mu.Lock()
	if !n.mayServe(e) {
		n.mu.Unlock()
		n.debugf("ProcessGetBlockData: ignoring request from peer=%d for old block that isn't in the "+
			"main chain", p.id)
		return
	}
	tip := n.chain.Tip()
	if n.overUpload(p, e.Header.Time, item) {
		n.debugf("historical block serving limit reached, disconnecting peer=%d", p.id)
		p.close()
		n.mu.Unlock()
		return
	}
	offer := n.Services()
	limited := offer.Has(wire.ServiceNetworkLimited) && !offer.Has(wire.ServiceNetwork)
	if limited && !p.perms.Has(PermNoBan) && tip.Height-e.Height > limitedKeepBlocks+2 {
		n.debugf("Ignore block request below NODE_NETWORK_LIMITED threshold, disconnecting peer=%d", p.id)
		p.close()
		n.mu.Unlock()
		return
	}
	n.mu.Unlock()
	b := n.block(item.Hash)
	if b == nil {
		n.debugf("Block was pruned before it could be read, disconnecting peer=%d", p.id)
		n.mu.Lock()
		p.close()
		n.mu.Unlock()
		return
	}
	n.sendBlock(p, item, b, n.canDirectFetch() && tip.Height-e.Height <= maxCompactDepth)
	n.mu.Lock()
	defer n.mu.Unlock()
	if item.Hash == p.continueHash {
		// The last one that getblocks told of: say what is at the tip, so that the peer asks on.
		p.push(&wire.Inv{Items: []wire.Inventory{{Type: wire.InvBlock, Hash: tip.Hash}}})
		p.continueHash = bitcoin.Hash{}
	}
}

func (n *Node) sendBlock(p *Peer, item wire.Inventory, b *bitcoin.Block, near bool) {
	switch item.Type {
	case wire.InvBlock:
		p.push(&wire.Raw{Name: "block", Payload: b.AppendBase(nil)})
	case wire.InvWitnessBlock:
		p.push(&wire.Block{Block: b})
	case wire.InvFilteredBlock:
		n.sendFiltered(p, b)
	case wire.InvCmpctBlock:
		if !near {
			p.push(&wire.Block{Block: b})
			return
		}
		n.mu.Lock()
		var m *wire.CmpctBlock
		if n.recent != nil && n.recent.hash == item.Hash {
			m = n.recent.compact
		}
		n.mu.Unlock()
		if m == nil {
			m = newRecent(b).compact
		}
		p.push(m)
	}
}

// sendFiltered sends what of a block matches the peer's filter (BIP 37).
func (n *Node) sendFiltered(p *Peer, b *bitcoin.Block) {
	n.mu.Lock()
	filter := p.bloom
	if !p.txRelay || !p.bloomLoaded {
		n.mu.Unlock()
		return
	}
	var matched []*bitcoin.Tx
	m := wire.NewMerkleBlock(b, func(tx *bitcoin.Tx) bool {
		if filter.Match(tx) {
			matched = append(matched, tx)
			return true
		}
		return false
	})
	n.mu.Unlock()
	p.push(m)
	for _, tx := range matched {
		p.push(&wire.Tx{Tx: tx, NoWitness: true})
	}
}

// overUpload reports whether an old block may not be sent any more today; with mu held.
func (n *Node) overUpload(p *Peer, blockTime uint32, item wire.Inventory) bool {
	if p.perms.Has(PermDownload) {
		return false
	}
	if !n.upload.reached(true, n.clock.Now()) {
		return false
	}
	old := unix(n.chain.BestHeader().Header.Time).Sub(unix(blockTime)) > historicalAge
	return old || item.Type == wire.InvFilteredBlock
}

// onGetBlockTxn sends the transactions of a block that a compact block left open.
func (n *Node) onGetBlockTxn(p *Peer, m *wire.GetBlockTxn) {
	e, ok := n.chain.Lookup(m.Block)
	tip := n.chain.Tip()
	b := n.block(m.Block)
	if !ok || b == nil {
		n.debugf("Peer %d sent us a getblocktxn for a block we don't have", p.id)
		return
	}
	if tip.Height-e.Height > maxBlockTxnDepth {
		// The whole block costs the peer more than us; asking for much cheaply is not to be worth it.
		n.debugf("Peer %d sent us a getblocktxn for a block > %d deep", p.id, maxBlockTxnDepth)
		n.serveBlock(p, wire.Inventory{Type: wire.InvWitnessBlock, Hash: m.Block})
		return
	}
	txs := make([]bitcoin.Tx, 0, len(m.Indexes))
	for _, i := range m.Indexes {
		if int(i) >= len(b.Txs) {
			n.mu.Lock()
			n.misbehave(p, "getblocktxn with out-of-bounds tx indices")
			n.mu.Unlock()
			return
		}
		txs = append(txs, b.Txs[i])
	}
	p.push(&wire.BlockTxn{Block: m.Block, Txs: txs})
}

// onMemPool queues all of the pool (BIP 35), for those whom we serve filters or who are allowed.
func (n *Node) onMemPool(p *Peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.services(p).Has(wire.ServiceBloom) && !p.perms.Has(PermMempool) {
		if !p.perms.Has(PermNoBan) {
			n.debugf("mempool request with bloom filters disabled, disconnecting peer=%d", p.id)
			p.close()
		}
		return
	}
	if n.upload.reached(false, n.clock.Now()) && !p.perms.Has(PermMempool) {
		if !p.perms.Has(PermNoBan) {
			n.debugf("mempool request with bandwidth limit reached, disconnecting peer=%d", p.id)
			p.close()
		}
		return
	}
	if p.txRelay {
		p.sendMempool = true
	}
}

// onFilter sets the peer's filter (BIP 37).
func (n *Node) onFilter(p *Peer, m wire.Message) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.services(p).Has(wire.ServiceBloom) {
		n.debugf("%s received despite not offering bloom services, disconnecting peer=%d", m.Command(), p.id)
		p.close()
		return
	}
	switch m := m.(type) {
	case *wire.FilterLoad:
		if len(m.Bits) > wire.MaxBloom || m.Hashes > wire.MaxBloomHashes {
			n.misbehave(p, "too-large bloom filter")
			return
		}
		if p.txRelay {
			b := m.Bloom
			p.bloom, p.bloomLoaded, p.relayTxs = &b, true, true
		}
	case *wire.FilterAdd:
		if len(m.Element) > wire.MaxFilterAdd || p.txRelay && !p.bloomLoaded {
			n.misbehave(p, "bad filteradd message")
		} else if p.bloomLoaded {
			p.bloom.Add(m.Element)
		}
	case *wire.FilterClear:
		if p.txRelay {
			p.bloom, p.bloomLoaded, p.relayTxs = nil, false, true
		}
	}
}
