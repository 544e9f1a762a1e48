package p2p

import (
	"context"
	"errors"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

const (
	headersResponseTime = 2 * time.Minute // after which headers are asked for again
	maxToAnnounce       = 8               // headers in one announcement
	staleRelayAge       = 30 * 24 * time.Hour
)

// askHeaders sends a getheaders unless one is under way; with mu held.
func (n *Node) askHeaders(p *Peer, locator []bitcoin.Hash) bool {
	now := n.clock.Now()
	if now.Sub(p.lastGetHeaders) <= headersResponseTime {
		return false
	}
	p.push(&wire.GetHeaders{Locator: wire.Locator{Version: wire.ProtocolVersion, Hashes: locator}})
	p.lastGetHeaders = now
	return true
}

// workThreshold is the work below which a chain of headers is not kept: that of a chain a day behind ours,
// or the minimum for the network (Core's GetAntiDoSWorkThreshold).
func (n *Node) workThreshold() bitcoin.Uint256 {
	tip := n.chain.Tip()
	near := bitcoin.Work(tip.Header.Bits).MulUint32(144)
	if near.Cmp(tip.Work) > 0 {
		near = tip.Work
	}
	near = tip.Work.Sub(near)
	if n.cfg.MinimumWork.Cmp(near) > 0 {
		return n.cfg.MinimumWork
	}
	return near
}

// onHeaders deals with headers that a peer sent, be they an answer or an announcement (Bitcoin Core
// net_processing.cpp, ProcessHeadersMessage).
func (n *Node) onHeaders(ctx context.Context, p *Peer, headers []bitcoin.Header, viaCompact bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(headers) == 0 {
		p.presync, p.lastGetHeaders = nil, time.Time{}
		return
	}
	if !n.checkHeaders(p, headers) {
		return
	}
	full := len(headers) == wire.MaxHeaders
	headers, workChecked := n.continuePresync(p, headers, full)
	if len(headers) == 0 {
		return
	}
	inPresync := p.presync != nil
	start, known := n.chain.Lookup(headers[0].PrevBlock)
	if !known {
		best := n.chain.BestHeader()
		if n.askHeaders(p, n.chain.Locator(best.Hash)) {
			n.debugf("received header %s: missing prev block %s, sending getheaders (%d) to end (peer=%d)",
				headers[0].Hash(), headers[0].PrevBlock, best.Height, p.id)
		}
		n.updateBest(p, headers[len(headers)-1].Hash())
		return
	}
	p.lastGetHeaders = time.Time{}
	last, lastKnown := n.chain.Lookup(headers[len(headers)-1].Hash())
	if lastKnown && n.isAncestorOfBest(last) || p.perms.Has(PermNoBan) {
		workChecked = true
	}
	if !workChecked && n.lowWork(p, start, headers, full) {
		return
	}
	entry, err := n.chain.AddHeaders(headers, true)
	if err != nil {
		n.debugf("AcceptBlockHeader: Consensus::ContextualCheckBlockHeader: %s, %v",
			firstUnknown(n.chain, headers), err)
		n.punishBlock(p, err, viaCompact, "invalid header received")
		return
	}
	if !lastKnown {
		n.debugf("Saw new header hash=%s height=%d peer=%d", entry.Hash, entry.Height, p.id)
	}
	n.reportHeaders("Synchronizing", entry.Height, entry.Header.Time)
	if full && !inPresync && n.askHeaders(p, n.chain.Locator(entry.Hash)) {
		n.debugf("more getheaders (%d) to end to peer=%d (startheight:%d)", entry.Height, p.id,
			p.startHeight)
	}
	n.receivedHeaders(p, entry, !lastKnown, full)
	n.directFetch(p, entry)
}

// firstUnknown returns the hash of the first header that was not taken.
func firstUnknown(c *chain.Chain, headers []bitcoin.Header) (h bitcoin.Hash) {
	for i := range headers {
		h = headers[i].Hash()
		if _, ok := c.Lookup(h); !ok {
			break
		}
	}
	return h
}

// reportHeaders logs how far headers have come, while the node catches up.
func (n *Node) reportHeaders(what string, height bitcoin.Height, at uint32) {
	if !n.initialDownload() {
		return
	}
	left := max(0, n.clock.Now().Sub(unix(at))/n.net.TargetSpacing)
	progress := 100 * float64(height) / float64(max(1, int64(height)+int64(left)))
	n.infof("%s blockheaders, height: %d (~%.2f%%)", what, height, progress)
}

// checkHeaders looks at proof of work and order.
func (n *Node) checkHeaders(p *Peer, headers []bitcoin.Header) bool {
	for i := range headers {
		h := headers[i].Hash()
		if !bitcoin.MeetsTarget(h, headers[i].Bits, n.net.PowLimit) {
			n.misbehave(p, "header with invalid proof of work")
			return false
		}
		if i+1 < len(headers) && headers[i+1].PrevBlock != h {
			n.misbehave(p, "non-continuous headers sequence")
			return false
		}
	}
	return true
}

// continuePresync gives headers to a presync that is under way, and returns those that may be kept.
func (n *Node) continuePresync(p *Peer, headers []bitcoin.Header, full bool) ([]bitcoin.Header, bool) {
	if p.presync == nil {
		return headers, false
	}
	s := p.presync
	release, more, err := s.add(headers, full)
	if err != nil {
		p.presync = nil
		n.debugf("Initial headers sync aborted with peer=%d: %v", p.id, err)
		return headers, false
	}
	p.lastGetHeaders = time.Time{}
	if more && !s.again {
		n.reportHeaders("Pre-synchronizing", s.height, s.last.Time)
	}
	if more {
		locator := append([]bitcoin.Hash{s.locatorHash()}, n.chain.Locator(s.start.hash)...)
		n.askHeaders(p, locator)
	} else {
		p.presync = nil
	}
	return release, true
}

// lowWork begins a presync where the chain has too little work so far; true where the headers are not to
// be looked at any more.
func (n *Node) lowWork(p *Peer, start chain.Entry, headers []bitcoin.Header, full bool) bool {
	total := start.Work
	for i := range headers {
		total = total.Add(bitcoin.Work(headers[i].Bits))
	}
	threshold := n.workThreshold()
	if total.Cmp(threshold) >= 0 {
		return false
	}
	if !full {
		n.debugf("Ignoring low-work chain (height=%d) from peer=%d", int(start.Height)+len(headers), p.id)
		return true
	}
	p.presync = newPresync(n.net, chainStart{start.Hash, start.Height, start.Work, start.Header.Bits,
		start.Median}, threshold, n.clock.Now())
	n.debugf("Initial headers sync started with peer=%d: height=%d, max_commitments=%d, min_work=%s",
		p.id, start.Height, p.presync.maxBits, threshold)
	n.continuePresync(p, headers, full)
	return true
}

// isAncestorOfBest reports whether a block is on the chain of the best header or of the tip.
func (n *Node) isAncestorOfBest(e chain.Entry) bool {
	if e.Active {
		return true
	}
	a, ok := n.chain.Ancestor(n.chain.BestHeader().Hash, e.Height)
	return ok && a.Hash == e.Hash
}

// punishBlock judges a peer by what was wrong with a block or header that it sent (Core's
// MaybePunishNodeForBlock).
func (n *Node) punishBlock(p *Peer, err error, viaCompact bool, text string) {
	var e *consensus.Error
	if !errors.As(err, &e) {
		return
	}
	bad := false
	switch e.Kind {
	case consensus.KindConsensus, consensus.KindMutated:
		bad = !viaCompact
	case consensus.KindCachedInvalid:
		// Peers that came to us may be of another opinion, and tell us of it once.
		bad = p.typ != Inbound && !viaCompact
	case consensus.KindInvalidHeader, consensus.KindInvalidPrev, consensus.KindMissingPrev:
		bad = true
	}
	if bad {
		n.misbehave(p, "%s: %s", text, e.Error())
	} else {
		n.debugf("%s: %s, peer=%d", text, e.Error(), p.id)
	}
}

// updateBest notes that the peer has a block, known to us or not.
func (n *Node) updateBest(p *Peer, hash bitcoin.Hash) {
	n.settleUnknown(p)
	e, ok := n.chain.Lookup(hash)
	if !ok {
		p.unknownBest = hash
		return
	}
	n.setBest(p, e)
}

// settleUnknown looks whether the block that the peer told of is known by now.
func (n *Node) settleUnknown(p *Peer) {
	if p.unknownBest == (bitcoin.Hash{}) {
		return
	}
	if e, ok := n.chain.Lookup(p.unknownBest); ok {
		n.setBest(p, e)
		p.unknownBest = bitcoin.Hash{}
	}
}

func (n *Node) setBest(p *Peer, e chain.Entry) {
	if !p.hasBest || e.Work.Cmp(p.best.Work) >= 0 {
		p.best, p.hasBest = e, true
	}
}

// receivedHeaders notes what the headers say about the peer (Core's UpdatePeerStateForReceivedHeaders).
func (n *Node) receivedHeaders(p *Peer, last chain.Entry, fresh, more bool) {
	n.updateBest(p, last.Hash)
	tip := n.chain.Tip()
	if fresh && last.Work.Cmp(tip.Work) > 0 {
		p.lastAnnounced = n.clock.Now()
	}
	if n.initialDownload() && !more && p.hasBest && p.best.Work.Cmp(n.cfg.MinimumWork) < 0 &&
		p.outboundOrBlockRelay() {
		n.infof("outbound peer headers chain has insufficient work, disconnecting peer=%d", p.id)
		p.close()
		return
	}
	if p.typ == OutboundFull && p.hasBest && n.blocks.protected < 4 &&
		p.best.Work.Cmp(tip.Work) >= 0 && !p.chainSync.protect {
		n.debugf("Protecting outbound peer=%d from eviction", p.id)
		p.chainSync.protect = true
		n.blocks.protected++
	}
}

// canDirectFetch reports whether we are so close to the tip that new blocks are fetched at once.
func (n *Node) canDirectFetch() bool {
	return n.clock.Now().Sub(unix(n.chain.Tip().Header.Time)) < 20*n.net.TargetSpacing
}

// directFetch asks for the blocks up to a header that was just announced.
func (n *Node) directFetch(p *Peer, last chain.Entry) {
	tip := n.chain.Tip()
	if n.chain.HeadersOnly() || !n.canDirectFetch() || last.Status&blockstore.Invalid != 0 || tip.Work.Cmp(last.Work) > 0 {
		return
	}
	fork, ok := n.chain.Fork(last.Hash, tip.Hash)
	var fetch []chain.Entry
	if ok && last.Height-fork.Height <= downloadWindow {
		for _, e := range n.chain.Path(last.Hash, fork.Height+1, downloadWindow) {
			if e.Status&blockstore.HaveData == 0 && len(n.blocks.inFlight[e.Hash]) == 0 &&
				n.servesWitness(p, e) {
				fetch = append(fetch, e)
			}
		}
	}
	if !ok || last.Height-fork.Height > downloadWindow || len(fetch) > maxInFlight+1 {
		n.debugf("Large reorg, won't direct fetch to %s (%d)", last.Hash, last.Height)
		return
	}
	var items []wire.Inventory
	for _, e := range fetch[:min(len(fetch), maxInFlight-len(p.inFlight))] {
		n.requestBlock(p, e)
		n.debugf("Requesting block %s from  peer=%d", e.Hash, p.id)
		items = append(items, wire.Inventory{Type: fetchType(p), Hash: e.Hash})
	}
	if len(items) == 0 {
		return
	}
	if len(items) > 1 {
		n.debugf("Downloading blocks toward %s (%d) via headers direct fetch", last.Hash, last.Height)
	}
	prev, _ := n.chain.Lookup(last.Header.PrevBlock)
	whole := prev.Height == 0 || prev.Status&blockstore.Verified != 0
	if !n.cfg.BlocksOnly && p.providesCompact && whole && len(items) == 1 && len(n.blocks.inFlight) == 1 {
		items[0].Type = wire.InvCmpctBlock
	}
	p.push(&wire.GetData{Items: items})
}

// servesWitness reports whether the peer can give us the block with its witnesses, if it has any.
func (n *Node) servesWitness(p *Peer, e chain.Entry) bool {
	return e.Height < n.net.SegwitHeight || p.services.Has(wire.ServiceWitness)
}

func fetchType(p *Peer) wire.InvType {
	if p.services.Has(wire.ServiceWitness) {
		return wire.InvWitnessBlock
	}
	return wire.InvBlock
}

// onGetHeaders serves headers of the best chain.
func (n *Node) onGetHeaders(p *Peer, m *wire.GetHeaders) {
	n.mu.Lock()
	defer n.mu.Unlock()
	tip := n.chain.Tip()
	if tip.Work.Cmp(n.cfg.MinimumWork) < 0 && !p.perms.Has(PermDownload) {
		n.debugf("Ignoring getheaders from peer=%d because active chain has too little work; "+
			"sending empty response", p.id)
		p.push(&wire.Headers{})
		return
	}
	if len(m.Hashes) == 0 {
		e, ok := n.chain.Lookup(m.Stop)
		if !ok || !n.mayServe(e) {
			return
		}
	}
	headers := n.chain.HeadersAfter(m.Hashes, m.Stop, wire.MaxHeaders)
	// What follows is new to the peer: it is announced again (see Core's comment there).
	p.bestSent = tip.Hash
	if len(headers) > 0 {
		p.bestSent = headers[len(headers)-1].Hash()
	}
	p.push(&wire.Headers{Headers: headers})
}

// mayServe reports whether giving a block away tells nothing of which branches we have seen.
func (n *Node) mayServe(e chain.Entry) bool {
	if e.Active {
		return true
	}
	best := n.chain.BestHeader()
	return e.Status&blockstore.Verified != 0 && e.Status&blockstore.Invalid == 0 &&
		unix(best.Header.Time).Sub(unix(e.Header.Time)) < staleRelayAge &&
		consensus.EquivalentTime(n.net, best.Work, e.Work, best.Header.Bits) <
			int64(staleRelayAge/time.Second)
}

// onGetBlocks announces blocks of the best chain.
func (n *Node) onGetBlocks(p *Peer, m *wire.GetBlocks) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range n.chain.HashesAfter(m.Hashes, m.Stop, 500) {
		if h == m.Stop {
			break
		}
		p.announceInv = append(p.announceInv, h)
		if len(p.announceInv) == 500 {
			p.continueHash = h
		}
	}
}
