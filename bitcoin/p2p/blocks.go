package p2p

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

// onBlock takes a block in. The peer's next message waits until the block has been judged as far as it
// can be.
func (n *Node) onBlock(ctx context.Context, p *Peer, b *bitcoin.Block) {
	hash := b.Hash()
	n.debugf("received block %s peer=%d", hash, p.id)
	prev, known := n.chain.Lookup(b.Header.PrevBlock)
	if known && consensus.IsMutated(b, prev.Height+1 >= n.net.SegwitHeight) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.debugf("Block mutated: %s", mutation(b, prev.Height+1 >= n.net.SegwitHeight))
		n.debugf("Received mutated block from peer=%d", p.id)
		n.misbehave(p, "mutated block")
		n.releaseBlock(hash, p)
		return
	}
	if known && n.onBody(p, b, hash) {
		return
	}
	n.mu.Lock()
	requested := len(n.blocks.inFlight[hash]) > 0
	n.noteSource(hash, blockSource{peer: p.id, mayPunish: true})
	worth := known && prev.Work.Add(bitcoin.Work(b.Header.Bits)).Cmp(n.workThreshold()) >= 0
	n.mu.Unlock()
	n.takeBlock(ctx, p, b, chain.Source{Requested: requested, WorkChecked: worth})
}

// mutation says in Core's words what shows that a block was tampered with.
func mutation(b *bitcoin.Block, segwit bool) string {
	root, duplicate := b.MerkleRoot()
	switch {
	case root != b.Header.MerkleRoot:
		return "bad-txnmrklroot, hashMerkleRoot mismatch"
	case duplicate:
		return "bad-txns-duplicate, duplicate transaction"
	case len(b.Txs) == 0 || !b.Txs[0].IsCoinbase():
		return "no coinbase"
	case !segwit || consensus.WitnessCommitment(&b.Txs[0]) < 0:
		return "unexpected-witness, unexpected witness data found"
	case len(b.Txs[0].In[0].Witness) != 1 || len(b.Txs[0].In[0].Witness[0]) != 32:
		return "bad-witness-nonce-size, invalid witness reserved value size"
	}
	return "bad-witness-merkle-match, witness merkle commitment mismatch"
}

// noteSource remembers who sent a block first; with mu held.
func (n *Node) noteSource(hash bitcoin.Hash, s blockSource) {
	if _, ok := n.blocks.sources[hash]; !ok {
		n.blocks.sources[hash] = s
	}
}

// takeBlock stores a block, relays it at once where that is right, and has it judged.
func (n *Node) takeBlock(ctx context.Context, p *Peer, b *bitcoin.Block, src chain.Source) {
	hash := b.Hash()
	e, fresh, err := n.chain.Accept(b, src)
	// Only now: in between nobody else is to be asked for it.
	n.mu.Lock()
	n.releaseBlock(hash, p)
	n.mu.Unlock()
	if err != nil {
		if e := new(consensus.Error); errors.As(err, &e) && e.Kind == consensus.KindLowWork {
			n.debugf("AcceptBlockHeader: not adding new block header %s, missing anti-dos proof-of-work "+
				"validation", hash)
		}
		n.debugf("AcceptBlockHeader: Consensus::ContextualCheckBlockHeader: %s, %v", hash, err)
		n.debugf("ProcessNewBlock: AcceptBlock FAILED (%v)", err)
		n.blockFailed(p, hash, err)
		return
	}
	n.mu.Lock()
	if fresh {
		p.lastBlock = n.clock.Now()
		n.relayEarly(b, e)
	} else {
		delete(n.blocks.sources, hash)
	}
	n.mu.Unlock()
	_, err = n.chain.Activate(ctx, hash)
	if err != nil {
		n.blockFailed(p, hash, err)
		return
	}
	n.nudge()
}

func (n *Node) blockFailed(p *Peer, hash bitcoin.Hash, err error) {
	var e *consensus.Error
	if !errors.As(err, &e) {
		if !errors.Is(err, context.Canceled) {
			n.log.Error("a block could not be processed", "hash", hash, "err", err)
		}
		return
	}
	if e.Kind == consensus.KindInvalidPrev {
		n.blameAncestor(hash)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.debugf("ConnectTip: %s failed, %s", hash, e.Error())
	if e.Kind == consensus.KindConsensus {
		n.infof("Block validation error: %s", e.Error())
	}
	n.judged(hash, err)
}

// blameAncestor tells why a block is not valid that another one, which made its branch the best, was built
// on: its sender is punished for it too.
func (n *Node) blameAncestor(hash bitcoin.Hash) {
	e, ok := n.chain.Lookup(hash)
	for ok && !e.Active && e.Status&blockstore.Failed == 0 {
		e, ok = n.chain.Lookup(e.Header.PrevBlock)
	}
	if !ok || e.Active {
		return
	}
	_, err := n.chain.Activate(context.Background(), e.Hash)
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ours := n.blocks.sources[e.Hash]; ours && err != nil {
		n.debugf("ConnectBlock %s failed: %s", e.Hash, err)
		n.judged(e.Hash, err)
	}
}

// judged tells that a block was found to be valid, or not: who sent it is thanked or punished. With mu held.
func (n *Node) judged(hash bitcoin.Hash, err error) {
	s, ok := n.blocks.sources[hash]
	if !ok {
		return
	}
	delete(n.blocks.sources, hash)
	p := n.peers[s.peer]
	switch {
	case p == nil:
	case err != nil && s.mayPunish:
		n.punishBlock(p, err, s.viaCompact, "invalid block received")
	case err == nil && !n.initialDownload() && n.onlyInFlight(hash):
		n.wantCompactFrom(p)
	}
}

// onlyInFlight reports whether no other block is being fetched, so that its sender was the fastest.
func (n *Node) onlyInFlight(hash bitcoin.Hash) bool {
	return len(n.blocks.inFlight) == 0 || len(n.blocks.inFlight) == 1 && len(n.blocks.inFlight[hash]) > 0
}

// wantCompactFrom asks a peer that was first with a block to announce the next ones by compact block; three
// peers do so, one of them at least outbound (Core's MaybeSetPeerAsAnnouncingHeaderAndIDs).
func (n *Node) wantCompactFrom(p *Peer) {
	if n.cfg.BlocksOnly || !p.providesCompact {
		return
	}
	list := n.blocks.highBand
	if i := slices.Index(list, p.id); i >= 0 {
		n.blocks.highBand = append(slices.Delete(list, i, i+1), p.id)
		return
	}
	list = slices.DeleteFunc(list, func(id PeerID) bool { return n.peers[id] == nil })
	outbound := 0
	for _, id := range list {
		if n.peers[id].typ != Inbound {
			outbound++
		}
	}
	if p.typ == Inbound && len(list) >= 3 && outbound == 1 && n.peers[list[0]].typ != Inbound {
		list[0], list[1] = list[1], list[0] // the last outbound one stays
	}
	if len(list) >= 3 {
		old := n.peers[list[0]]
		old.push(&wire.SendCmpct{Version: wire.CmpctBlockVersion})
		old.weWantCompact = false
		list = list[1:]
	}
	p.push(&wire.SendCmpct{Announce: true, Version: wire.CmpctBlockVersion})
	p.weWantCompact = true
	n.blocks.highBand = append(list, p.id)
}

// relayEarly sends a block that follows the tip to who asked for compact blocks, before its scripts have
// run: its proof of work was enough to have it (BIP 152, "Pre-Validation Relay"). With mu held.
func (n *Node) relayEarly(b *bitcoin.Block, e chain.Entry) {
	if e.Header.PrevBlock != n.chain.Tip().Hash || n.initialDownload() {
		return
	}
	n.recent = newRecent(b)
	prev, _ := n.chain.Lookup(e.Header.PrevBlock)
	for _, p := range n.peers {
		if p.handshaken && p.wantsCompact && !n.hasHeader(p, e) && n.hasHeader(p, prev) {
			n.debugf("PeerManager::NewPoWValidBlock sending header-and-ids %s to peer=%d", e.Hash, p.id)
			p.push(n.recent.compact)
			p.bestSent = e.Hash
		}
	}
}

func newRecent(b *bitcoin.Block) *recentBlock {
	return &recentBlock{block: b, hash: b.Hash(), compact: wire.NewCmpctBlock(b, rand.Uint64())}
}

// onCmpctBlock deals with a compact block (BIP 152; Bitcoin Core net_processing.cpp, ProcessMessage).
func (n *Node) onCmpctBlock(ctx context.Context, p *Peer, m *wire.CmpctBlock) {
	hash := m.Header.Hash()
	n.mu.Lock()
	prev, known := n.chain.Lookup(m.Header.PrevBlock)
	if !known {
		if !n.initialDownload() {
			n.askHeaders(p, n.chain.Locator(n.chain.BestHeader().Hash))
		}
		n.mu.Unlock()
		return
	}
	if prev.Work.Add(bitcoin.Work(m.Header.Bits)).Cmp(n.workThreshold()) < 0 {
		n.debugf("Ignoring low-work compact block from peer %d", p.id)
		n.mu.Unlock()
		return
	}
	_, had := n.chain.Lookup(hash)
	e, err := n.chain.AddHeaders([]bitcoin.Header{m.Header}, true)
	if err != nil {
		n.punishBlock(p, err, true, "invalid header via cmpctblock")
		n.mu.Unlock()
		return
	}
	if !had {
		n.debugf("Saw new cmpctblock header hash=%s height=%d peer=%d", hash, e.Height, p.id)
	}
	if e.Work.Cmp(n.chain.Tip().Work) > 0 && !had {
		p.lastAnnounced = n.clock.Now()
	}
	n.updateBest(p, hash)
	next := n.placeCompact(p, m, e)
	n.mu.Unlock()
	switch {
	case next.asHeader:
		n.onHeaders(ctx, p, []bitcoin.Header{m.Header}, true)
	case next.partial != nil:
		n.finishCompact(ctx, p, hash, next.partial, nil)
	case next.block != nil:
		n.mu.Lock()
		n.noteSource(hash, blockSource{peer: p.id, viaCompact: true})
		n.mu.Unlock()
		n.takeBlock(ctx, p, next.block, chain.Source{Requested: true, WorkChecked: true})
		if e, ok := n.chain.Lookup(hash); ok && e.Status&blockstore.HaveData != 0 {
			n.mu.Lock()
			n.releaseBlock(hash, nil)
			n.mu.Unlock()
		}
	}
}

// compactNext is what a compact block leads to.
type compactNext struct {
	asHeader bool           // treat it as an announcement by header
	partial  *wire.Partial  // nothing is missing: finish it
	block    *bitcoin.Block // it was put together on the side
}

// placeCompact decides what to do with a compact block whose header is good; with mu held.
func (n *Node) placeCompact(p *Peer, m *wire.CmpctBlock, e chain.Entry) (next compactNext) {
	requests := n.blocks.inFlight[e.Hash]
	first := len(requests) == 0 || requests[0].peer == p
	ours := slices.ContainsFunc(requests, func(r *blockRequest) bool { return r.peer == p })
	tip := n.chain.Tip()
	askWhole := func() {
		p.push(&wire.GetData{Items: []wire.Inventory{{Type: fetchType(p), Hash: e.Hash}}})
	}
	switch {
	case e.Status&blockstore.HaveData != 0:
		return
	case e.Work.Cmp(tip.Work) <= 0 || e.Txs != 0:
		if ours { // it was asked for: it has to come whole
			askWhole()
		}
		return
	case len(requests) == 0 && !n.canDirectFetch():
		return
	case e.Height > tip.Height+2:
		if ours {
			askWhole()
			return
		}
		next.asHeader = true
		return
	}
	if !(len(requests) < maxCompactPerHash && len(p.inFlight) < maxInFlight || ours) {
		return n.buildAside(m)
	}
	r, fresh := n.requestBlock(p, e)
	if !fresh && r.partial != nil {
		n.debugf("Peer sent us compact block we were already syncing!")
		return
	}
	partial, err := wire.NewPartial(m)
	if errors.Is(err, wire.ErrCompactInvalid) {
		n.releaseBlock(e.Hash, p)
		n.misbehave(p, "invalid compact block")
		return
	}
	if err != nil {
		if first {
			askWhole()
		} else {
			n.releaseBlock(e.Hash, p)
		}
		return
	}
	r.partial = partial
	n.offerAll(partial)
	missing := partial.Missing()
	switch {
	case len(missing) == 0:
		next.partial = partial
	case first, p.weWantCompact && (p.typ != Inbound || n.outboundInFlight(e.Hash) ||
		len(requests) < maxCompactPerHash-1):
		p.push(&wire.GetBlockTxn{Block: e.Hash, Indexes: missing})
	default:
		n.releaseBlock(e.Hash, p)
	}
	return next
}

func (n *Node) outboundInFlight(hash bitcoin.Hash) bool {
	return slices.ContainsFunc(n.blocks.inFlight[hash], func(r *blockRequest) bool {
		return r.peer.typ != Inbound
	})
}

// buildAside tries to put a block together that is being fetched from others.
func (n *Node) buildAside(m *wire.CmpctBlock) (next compactNext) {
	partial, err := wire.NewPartial(m)
	if err != nil {
		return next
	}
	n.offerAll(partial)
	if len(partial.Missing()) > 0 {
		return next
	}
	if b, err := partial.Fill(nil); err == nil {
		next.block = b
	}
	return next
}

// offerAll offers a compact block what transactions there are.
func (n *Node) offerAll(partial *wire.Partial) {
	for _, tx := range n.pool.all(nil) {
		if !partial.Offer(tx.tx) {
			return
		}
	}
	for _, tx := range n.extra {
		if !partial.Offer(tx) {
			return
		}
	}
}

// onBlockTxn completes a compact block.
func (n *Node) onBlockTxn(ctx context.Context, p *Peer, m *wire.BlockTxn) {
	n.mu.Lock()
	var partial *wire.Partial
	for _, r := range n.blocks.inFlight[m.Block] {
		if r.peer != p {
			continue
		}
		partial = r.partial
		if r.collided {
			// What was missing came, and did not fit: more of it cannot help.
			n.releaseBlock(m.Block, p)
			n.misbehave(p, "previous compact block reconstruction attempt failed")
			n.mu.Unlock()
			return
		}
	}
	n.mu.Unlock()
	if partial == nil {
		n.debugf("Peer %d sent us block transactions for block we weren't expecting", p.id)
		return
	}
	n.finishCompact(ctx, p, m.Block, partial, m.Txs)
}

// finishCompact fills in what was missing and takes the block in (Core's ProcessCompactBlockTxns).
func (n *Node) finishCompact(ctx context.Context, p *Peer, hash bitcoin.Hash, partial *wire.Partial,
	missing []bitcoin.Tx) {
	b, err := partial.Fill(missing)
	prev, _ := n.chain.Lookup(partial.Header().PrevBlock)
	if err == nil && consensus.IsMutated(b, prev.Height+1 >= n.net.SegwitHeight) {
		err = wire.ErrCompactFailed
	}
	n.mu.Lock()
	if errors.Is(err, wire.ErrCompactInvalid) {
		n.releaseBlock(hash, p)
		n.misbehave(p, "invalid compact block/non-matching block transactions")
		n.mu.Unlock()
		return
	}
	if err != nil {
		n.compactCollided(p, hash)
		n.mu.Unlock()
		return
	}
	n.noteSource(hash, blockSource{peer: p.id, viaCompact: true})
	n.mu.Unlock()
	n.takeBlock(ctx, p, b, chain.Source{Requested: true, WorkChecked: true})
	n.mu.Lock()
	n.releaseBlock(hash, nil)
	n.mu.Unlock()
}

// compactCollided asks for the whole block where short ids collided, unless others are at it.
func (n *Node) compactCollided(p *Peer, hash bitcoin.Hash) {
	list := n.blocks.inFlight[hash]
	if len(list) > 0 && list[0].peer == p {
		list[0].partial, list[0].collided = nil, true
		p.push(&wire.GetData{Items: []wire.Inventory{{Type: fetchType(p), Hash: hash}}})
		return
	}
	n.releaseBlock(hash, p)
	n.debugf("Peer %d sent us a compact block but it failed to reconstruct, waiting on first download "+
		"to complete", p.id)
}
