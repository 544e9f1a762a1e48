package p2p

import (
	"math/rand/v2"

	"github.com/tallypost/tallypost/bitcoin/wire"
)

// reconcileVersion is the version of BIP 330 that we offer.
const reconcileVersion = 1

// reconcileState is how far a peer and we have agreed to reconcile transactions (BIP 330). So far that is
// all that is done about it, here as in Bitcoin Core (node/txreconciliation.cpp): transactions go by inv.
type reconcileState uint8

const (
	reconcileNot     reconcileState = iota
	reconcileOffered                // we sent our salt
	reconcileAgreed
)

// offerReconcile offers reconciliation to who relays transactions with us both ways; with mu held.
func (n *Node) offerReconcile(p *Peer) {
	if !n.cfg.Reconcile || p.common < wire.WTxIDRelayVersion || !p.txRelay || !p.relayTxs ||
		p.typ == AddrFetch || n.cfg.BlocksOnly {
		return
	}
	n.debugIn("txreconciliation", "Pre-register peer=%d", p.id)
	p.reconcile = reconcileOffered
	p.push(&wire.SendTxRcncl{Version: reconcileVersion, Salt: rand.Uint64()})
}

// onSendTxRcncl takes a peer's offer; with mu held.
func (n *Node) onSendTxRcncl(p *Peer, m *wire.SendTxRcncl) {
	drop := func(why string) {
		n.debugf("%s, disconnecting peer=%d", why, p.id)
		p.close()
	}
	switch {
	case !n.cfg.Reconcile:
		n.debugf("sendtxrcncl from peer=%d ignored, as our node does not have txreconciliation enabled", p.id)
	case p.handshaken:
		drop("sendtxrcncl received after verack")
	case n.refusesTxs(p):
		drop("sendtxrcncl received to which we indicated no tx relay")
	case !p.txRelay || !p.relayTxs:
		drop("sendtxrcncl received which indicated no tx relay to us")
	case p.reconcile == reconcileNot:
		n.debugf("Ignore unexpected txreconciliation signal from peer=%d", p.id)
	case p.reconcile == reconcileAgreed:
		drop("txreconciliation protocol violation (sendtxrcncl received from already registered peer)")
	case m.Version < 1:
		drop("txreconciliation protocol violation")
	default:
		n.debugIn("txreconciliation", "Register peer=%d (inbound=%d)", p.id, btoi(p.typ == Inbound))
		p.reconcile = reconcileAgreed
	}
}

// settleReconcile forgets an offer that was not taken up before verack; with mu held.
func (n *Node) settleReconcile(p *Peer) {
	if p.reconcile == reconcileNot || p.reconcile == reconcileAgreed && p.wtxidRelay {
		return
	}
	n.debugIn("txreconciliation", "Forget txreconciliation state of peer=%d", p.id)
	p.reconcile = reconcileNot
}
