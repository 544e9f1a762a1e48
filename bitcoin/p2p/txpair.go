package p2p

import (
	"context"

	"github.com/tallypost/tallypost/bitcoin"
)

// txPair is a transaction that pays too little by itself, and a child of it that may pay for both. Both came
// from one peer: else others could push children to the front with which it fails.
type txPair struct {
	parent, child *bitcoin.Tx
	peer          PeerID
}

// hash names the pair (Bitcoin Core policy/packages.cpp, GetPackageHash): the hash of the sorted wtxids.
func (p *txPair) hash() bitcoin.Hash {
	a, b := p.parent.WTxID(), p.child.WTxID()
	for i := len(a) - 1; i >= 0; i-- { // as numbers, whose last octet counts most
		if a[i] != b[i] {
			if a[i] > b[i] {
				a, b = b, a
			}
			break
		}
	}
	return bitcoin.DoubleHash(append(append([]byte(nil), a[:]...), b[:]...))
}

// findPair returns a transaction with the newest child of it that the same peer gave us, unless the two were
// refused before; with mu held.
func (n *Node) findPair(tx *bitcoin.Tx, id PeerID) *txPair {
	for _, child := range n.txs.orphans.childrenFrom(tx.TxID(), id) {
		pair := &txPair{tx, child, id}
		if !n.txs.cheap.has(pair.hash()) && !n.txs.rejects.has(child.TxID()) {
			return pair
		}
	}
	return nil
}

// tryPair offers two transactions to the pool together.
func (n *Node) tryPair(ctx context.Context, pair *txPair) {
	verdicts, ok := n.pool.submitPair(ctx, pair.parent, pair.child)
	n.mu.Lock()
	defer n.mu.Unlock()
	outcome := "package accepted"
	if !ok {
		outcome = "package rejected"
		n.txs.cheap.add(pair.hash())
	}
	n.debugIn("txpackages", "package evaluation for parent %s (wtxid=%s, sender=%d) + child %s (wtxid=%s, "+
		"sender=%d): %s", pair.parent.TxID(), pair.parent.WTxID(), pair.peer, pair.child.TxID(),
		pair.child.WTxID(), pair.peer, outcome)
	// The child first, so that it is not tried again for its parent's sake.
	for i, tx := range []*bitcoin.Tx{pair.child, pair.parent} {
		switch v := verdicts[1-i]; {
		case v.accepted:
			n.accepted(pair.peer, tx, v.replaced)
		case v.err != nil:
			n.refused(pair.peer, tx, v, false)
		}
	}
}
