package p2p

import (
	"context"
	"math"
	"math/rand/v2"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/mempool"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

const (
	pingInterval     = 2 * time.Minute
	inactiveTimeout  = 20 * time.Minute
	addrFetchTimeout = 5 * time.Minute
)

// sendDue does for one peer what is due (Bitcoin Core net_processing.cpp, SendMessages). With mu held.
func (n *Node) sendDue(p *Peer) {
	if p.closing || n.punish(p) {
		return
	}
	now := n.clock.Now()
	if n.inactive(p, now) {
		p.close()
		return
	}
	if !p.handshaken {
		return
	}
	if p.typ == AddrFetch && now.Sub(p.connected) > addrFetchTimeout {
		n.debugf("addrfetch connection timeout, disconnecting peer=%d", p.id)
		p.close()
		return
	}
	if n.pingDue(p, now) {
		return
	}
	n.addrsDue(p, now)
	n.sendHeadersDue(p)
	from := n.syncFrom(p)
	n.startSync(p, from)
	n.announce(p)
	n.invDue(p, now)
	if n.checkDownloads(p) {
		return
	}
	n.considerEviction(p)
	if p.closing {
		return
	}
	items := n.fetchBlocks(p, from)
	items = append(items, n.txsDue(p, now)...)
	for len(items) > 0 {
		k := min(len(items), 1000)
		p.push(&wire.GetData{Items: items[:k]})
		items = items[k:]
	}
	n.feeFilterDue(p, now)
}

// inactive reports whether a peer has been silent for too long.
func (n *Node) inactive(p *Peer, now time.Time) bool {
	if now.Sub(p.connected) <= n.cfg.PeerTimeout {
		return false
	}
	received, sent := unixTime(&p.raw.lastRecv), unixTime(&p.raw.lastSend)
	switch {
	case p.transport == "detecting":
		n.debugf("V2 handshake timeout, disconnecting peer=%d", p.id)
		return true
	case received.IsZero() || sent.IsZero():
		missing := ""
		if received.IsZero() {
			missing += ", never received from peer"
		}
		if sent.IsZero() {
			missing += ", never sent to peer"
		}
		n.debugf("socket no message in first %d seconds%s, disconnecting peer=%d",
			int(n.cfg.PeerTimeout.Seconds()), missing, p.id)
		return true
	case now.Sub(sent) > inactiveTimeout:
		n.debugf("socket sending timeout: %ds, disconnecting peer=%d", int(now.Sub(sent).Seconds()), p.id)
		return true
	case now.Sub(received) > inactiveTimeout:
		n.debugf("socket receive timeout: %ds, disconnecting peer=%d", int(now.Sub(received).Seconds()), p.id)
		return true
	case !p.handshaken:
		n.debugf("version handshake timeout, disconnecting peer=%d", p.id)
		return true
	}
	return false
}

func (n *Node) pingDue(p *Peer, now time.Time) (dropped bool) {
	if p.pingNonce != 0 && now.Sub(p.connected) > n.cfg.PeerTimeout &&
		now.Sub(p.pingStart) > inactiveTimeout {
		n.debugf("ping timeout: %fs, disconnecting peer=%d", now.Sub(p.pingStart).Seconds(), p.id)
		p.close()
		return true
	}
	if !p.pingQueued && !(p.pingNonce == 0 && now.Sub(p.pingStart) > pingInterval) {
		return false
	}
	p.pingQueued, p.pingStart = false, now
	if p.common >= wire.PongVersion {
		p.pingNonce = rand.Uint64() | 1
		p.push(&wire.Ping{Nonce: p.pingNonce})
	} else {
		p.pingNonce = 0
		p.push(&wire.Ping{Old: true})
	}
	return false
}

// sendHeadersDue asks for announcements by header once we know enough of the peer's chain to use them.
func (n *Node) sendHeadersDue(p *Peer) {
	if p.sentSendHeaders || p.common < wire.SendHeadersVersion {
		return
	}
	if p.hasBest && p.best.Work.Cmp(n.cfg.MinimumWork) > 0 {
		p.push(&wire.SendHeaders{})
		p.sentSendHeaders = true
	}
}

// hasHeader reports whether the peer has a header: it told us of it or we told it.
func (n *Node) hasHeader(p *Peer, e chain.Entry) bool {
	if p.hasBest {
		if a, ok := n.chain.Ancestor(p.best.Hash, e.Height); ok && a.Hash == e.Hash {
			return true
		}
	}
	a, ok := n.chain.Ancestor(p.bestSent, e.Height)
	return ok && a.Hash == e.Hash
}

// announce tells the peer of new blocks: by headers or compact block where it asked so and that works, by
// inv otherwise.
func (n *Node) announce(p *Peer) {
	if len(p.announceHeaders) == 0 && len(p.announceInv) == 0 {
		return
	}
	n.settleUnknown(p)
	headers, best, byInv := n.headersFor(p)
	if !byInv && len(headers) > 0 {
		switch {
		case len(headers) == 1 && p.wantsCompact:
			n.debugf("SendMessages sending header-and-ids %s to peer=%d", best, p.id)
			if m := n.compactFor(best); m != nil {
				p.push(m)
				p.bestSent = best
			}
		case p.prefersHeaders:
			n.debugf("SendMessages: sending header %s to peer=%d", best, p.id)
			p.push(&wire.Headers{Headers: headers})
			p.bestSent = best
		default:
			byInv = true
		}
	}
	if byInv && len(p.announceHeaders) > 0 {
		last := p.announceHeaders[len(p.announceHeaders)-1]
		if e, ok := n.chain.Lookup(last); ok && !n.hasHeader(p, e) {
			p.announceInv = append(p.announceInv, last)
			n.debugf("SendMessages: sending inv peer=%d hash=%s", p.id, last)
		}
	}
	p.announceHeaders = p.announceHeaders[:0]
	var items []wire.Inventory
	for _, h := range p.announceInv {
		items = append(items, wire.Inventory{Type: wire.InvBlock, Hash: h})
	}
	p.announceInv = p.announceInv[:0]
	if len(items) > 0 {
		p.push(&wire.Inv{Items: items})
	}
}

// headersFor returns the headers that are new to the peer and connect to what it has; byInv where an
// announcement by header would not work.
func (n *Node) headersFor(p *Peer) (headers []bitcoin.Header, best bitcoin.Hash, byInv bool) {
	list := p.announceHeaders
	if !p.prefersHeaders && (!p.wantsCompact || len(list) > 1) || len(list) > maxToAnnounce {
		return nil, best, true
	}
	found := false
	for i, h := range list {
		e, ok := n.chain.Lookup(h)
		if !ok || !e.Active || i > 0 && e.Header.PrevBlock != best {
			return nil, best, true
		}
		best = h
		if found {
			headers = append(headers, e.Header)
			continue
		}
		if n.hasHeader(p, e) {
			continue
		}
		prev, ok := n.chain.Lookup(e.Header.PrevBlock)
		if ok && !n.hasHeader(p, prev) {
			return nil, best, true
		}
		found = true
		headers = append(headers, e.Header)
	}
	return headers, best, false
}

// followChain takes notice of changes of the tip: it queues announcements and tells the mempool's helpers.
func (n *Node) followChain(ctx context.Context) {
	n.following.Lock()
	defer n.following.Unlock()
	n.mu.Lock()
	cursor := n.cursor
	n.mu.Unlock()
	if n.chain.Tip().Hash == cursor.Hash {
		return
	}
	// In the middle of a reorganization the tip is where no peer needs to know of it.
	tip := n.settledTip()
	if tip.Hash == cursor.Hash {
		return
	}
	fork, ok := n.chain.Fork(cursor.Hash, tip.Hash)
	if !ok {
		fork = tip
	}
	var blocks []*bitcoin.Block
	fresh := n.chain.Path(tip.Hash, fork.Height+1, math.MaxInt32)
	if len(fresh) <= maxToAnnounce {
		for _, e := range fresh {
			if b := n.block(e.Hash); b != nil {
				blocks = append(blocks, b)
			}
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cursor = chain.Cursor{Hash: tip.Hash, Height: tip.Height}
	n.tipSeen = n.clock.Now()
	if !n.initialDownload() {
		n.txs.tipChanged()
	}
	if fork.Hash != cursor.Hash {
		n.txs.confirmed.reset() // what is not confirmed any more has to be relayed again
	}
	if k := len(blocks); k > 0 && (n.recent == nil || n.recent.hash != tip.Hash) {
		n.recent = newRecent(blocks[k-1]) // one of our own, perhaps
	}
	for _, b := range blocks {
		n.txs.confirm(b)
		n.judged(b.Hash(), nil)
	}
	for i := 0; i < len(fresh) && n.blocks.stalling > stallingTimeout; i++ {
		n.blocks.stalling = max(stallingTimeout, (n.blocks.stalling * 85 / 100).Truncate(time.Second))
		n.debugf("Decreased stalling timeout to %d seconds", int(n.blocks.stalling.Seconds()))
	}
	if n.initialDownload() || n.chain.HeadersOnly() { // whoever hears of a block asks for it
		return
	}
	announce := fresh[max(0, len(fresh)-maxToAnnounce):]
	for _, p := range n.peers {
		for _, e := range announce {
			p.announceHeaders = append(p.announceHeaders, e.Hash)
		}
	}
}

// settledTip returns the tip once the mempool fits it: no reorganization is under way.
func (n *Node) settledTip() (tip chain.Entry) {
	var hash bitcoin.Hash
	n.chain.Mempool(func(_ *mempool.Pool, at *consensus.State) { hash = at.Hash })
	tip, _ = n.chain.Lookup(hash)
	return tip
}

// feeFilterDue tells the peer below which fee we take no transactions, rounded so that the exact value does
// not mark us (BIP 133).
func (n *Node) feeFilterDue(p *Peer, now time.Time) {
	if n.cfg.BlocksOnly || p.common < wire.FeeFilterVersion || p.typ == BlockRelayOnly ||
		p.perms.Has(PermForceRelay) {
		return
	}
	rate := n.minFee()
	if n.initialDownload() {
		rate = maxFilter
	} else if p.feeSent == roundFee(maxFilter) {
		p.nextFee = time.Time{} // the initial download is over: say so at once
	}
	if now.After(p.nextFee) {
		filter := max(roundFee(rate), n.minRelayFee())
		if filter != p.feeSent {
			p.push(&wire.FeeFilter{Rate: filter})
			p.feeSent = filter
		}
		p.nextFee = now.Add(exponential(10 * time.Minute))
	} else if now.Add(5*time.Minute).Before(p.nextFee) &&
		(rate < 3*p.feeSent/4 || rate > 4*p.feeSent/3) {
		p.nextFee = now.Add(rand.N(5 * time.Minute))
	}
}

// maxFilter is the filter of who wants nothing yet (Core's MAX_FILTER_FEERATE).
const maxFilter = 1e7

// roundFee takes a rate to a neighbouring one of a series that grows by a tenth (Core's FeeFilterRounder).
func roundFee(rate bitcoin.Amount) bitcoin.Amount {
	if rate <= 0 {
		return 0
	}
	lower, upper := 0.0, 50.0
	for upper < float64(rate) && upper*1.1 <= maxFilter {
		lower, upper = upper, upper*1.1
	}
	if upper < float64(rate) {
		return bitcoin.Amount(upper)
	}
	if upper > float64(rate) && rand.IntN(3) != 0 {
		return bitcoin.Amount(lower)
	}
	return bitcoin.Amount(upper)
}

// exponential returns a time until the next of events that come this often on average.
func exponential(mean time.Duration) time.Duration {
	return time.Duration(rand.ExpFloat64() * float64(mean))
}
