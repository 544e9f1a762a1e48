package p2p

import (
	"slices"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

// The numbers of Core's net_processing.cpp.
const (
	maxInFlight       = 16   // blocks asked of one peer
	downloadWindow    = 1024 // blocks ahead of the last one that is there
	stallingTimeout   = 2 * time.Second
	maxStalling       = 64 * time.Second
	chainSyncTimeout  = 20 * time.Minute
	maxCompactPerHash = 3 // peers from which one compact block is put together
)

// blockRequest is a block that was asked of a peer.
type blockRequest struct {
	entry   chain.Entry
	peer    *Peer
	partial *wire.Partial // of a compact block; nil for a whole one

	collided bool // the compact block came to nothing: the whole one was asked for
}

// blockState is what all peers share about downloads. It is guarded by Node.mu.
type blockState struct {
	inFlight    map[bitcoin.Hash][]*blockRequest
	downloading int // peers that we wait for
	preferred   int // peers that we would rather download from
	syncing     int // peers that sync headers
	protected   int
	stalling    time.Duration
	lastInvSync bitcoin.Hash
	sources     map[bitcoin.Hash]blockSource
	highBand    []PeerID // peers that announce by compact block, the oldest first
}

// blockSource is who sent a block, to be judged once its scripts have run.
type blockSource struct {
	peer       PeerID
	mayPunish  bool
	viaCompact bool
}

func (b *blockState) init() {
	b.inFlight = map[bitcoin.Hash][]*blockRequest{}
	b.sources = map[bitcoin.Hash]blockSource{}
	b.stalling = stallingTimeout
}

// requestBlock notes that a block is asked of a peer; fresh is false where it was before.
func (n *Node) requestBlock(p *Peer, e chain.Entry) (r *blockRequest, fresh bool) {
	for _, r := range n.blocks.inFlight[e.Hash] {
		if r.peer == p {
			return r, false
		}
	}
	r = &blockRequest{entry: e, peer: p}
	n.blocks.inFlight[e.Hash] = append(n.blocks.inFlight[e.Hash], r)
	p.inFlight = append(p.inFlight, r)
	if len(p.inFlight) == 1 {
		p.downloadingSince = n.clock.Now()
		n.blocks.downloading++
	}
	return r, true
}

// releaseBlock forgets that a block was asked for: of one peer, or of all where it is nil.
func (n *Node) releaseBlock(hash bitcoin.Hash, from *Peer) {
	list := n.blocks.inFlight[hash]
	list = slices.DeleteFunc(slices.Clone(list), func(r *blockRequest) bool {
		if from != nil && r.peer != from {
			return false
		}
		q := r.peer
		if q.inFlight[0] == r {
			// The clock of the next one starts now.
			q.downloadingSince = later(q.downloadingSince, n.clock.Now())
		}
		q.inFlight = slices.DeleteFunc(q.inFlight, func(o *blockRequest) bool { return o == r })
		if len(q.inFlight) == 0 {
			n.blocks.downloading--
		}
		q.stallingSince = time.Time{}
		return true
	})
	if len(list) == 0 {
		delete(n.blocks.inFlight, hash)
	} else {
		n.blocks.inFlight[hash] = list
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (n *Node) releaseBlocks(p *Peer) {
	for len(p.inFlight) > 0 {
		n.releaseBlock(p.inFlight[0].entry.Hash, p)
	}
}

// nextBlocks returns up to count blocks to ask of a peer, in order, and the peer for which the window
// cannot move on (Bitcoin Core net_processing.cpp, FindNextBlocksToDownload).
func (n *Node) nextBlocks(p *Peer, count int) (blocks []chain.Entry, staller *Peer) {
	n.settleUnknown(p)
	tip := n.chain.Tip()
	if count <= 0 || !p.hasBest || p.best.Work.Cmp(tip.Work) < 0 || p.best.Work.Cmp(n.cfg.MinimumWork) < 0 {
		return nil, nil
	}
	if _, base, snapshot := n.chain.Background(); snapshot && !n.leadsTo(p, base) {
		// Its chain parts from ours below the snapshot, to where we cannot go back yet.
		n.debugf("Not downloading blocks from peer=%d, which doesn't have the snapshot block in its best "+
			"chain.", p.id)
		return nil, nil
	}
	from, ok := n.chain.Lookup(p.common2)
	if !ok {
		from, _ = n.chain.AtHeight(min(p.best.Height, tip.Height))
	}
	if from, ok = n.chain.Fork(from.Hash, p.best.Hash); !ok {
		return nil, nil
	}
	// What we share lies at least where our chain and the peer's part.
	if fork, ok := n.chain.Fork(tip.Hash, p.best.Hash); ok && fork.Height > from.Height {
		from = fork
	}
	p.common2 = from.Hash
	if from.Hash == p.best.Hash {
		return nil, nil
	}
	windowEnd := from.Height + downloadWindow
	maxHeight := min(p.best.Height, windowEnd+1)
	var waiting *Peer
	for height := from.Height + 1; height <= maxHeight; {
		path := n.chain.Path(p.best.Hash, height, min(int(maxHeight-height)+1, max(count, 128)))
		if len(path) == 0 {
			return blocks, nil
		}
		for _, e := range path {
			switch {
			case e.Status&blockstore.Invalid != 0 || !n.servesWitness(p, e):
				return blocks, nil
			case e.Status&blockstore.HaveData != 0 || e.Active:
				if e.ChainTxs > 0 {
					p.common2 = e.Hash
				}
			case len(n.blocks.inFlight[e.Hash]) > 0:
				if waiting == nil {
					waiting = n.blocks.inFlight[e.Hash][0].peer
				}
			case e.Height > windowEnd:
				if len(blocks) == 0 && waiting != p {
					return nil, waiting
				}
				return blocks, nil
			default:
				// A pruned peer has its last blocks only; those before them will come from others.
				if p.limited() && p.best.Height-e.Height >= limitedKeepBlocks-2 {
					continue
				}
				if blocks = append(blocks, e); len(blocks) == count {
					return blocks, nil
				}
			}
		}
		height += bitcoin.Height(len(path))
	}
	return blocks, nil
}

// leadsTo reports whether the best chain of a peer goes through a block.
func (n *Node) leadsTo(p *Peer, e chain.Entry) bool {
	at, ok := n.chain.Ancestor(p.best.Hash, e.Height)
	return ok && at.Hash == e.Hash
}

// nextHistory returns up to count blocks to ask of a peer of those that the chain lacks before a snapshot
// (Bitcoin Core net_processing.cpp, TryDownloadingHistoricalBlocks). Nobody is waited for: the tip matters
// more.
func (n *Node) nextHistory(p *Peer, count int) (blocks []chain.Entry) {
	tip, base, ok := n.chain.Background()
	if count <= 0 || !ok || p.limited() || !p.hasBest || !n.leadsTo(p, base) {
		return nil
	}
	from, ok := n.chain.Fork(tip.Hash, base.Hash) // the tip may be on another branch
	if !ok {
		return nil
	}
	last := min(base.Height, from.Height+downloadWindow)
	for height := from.Height + 1; height <= last; {
		path := n.chain.Path(base.Hash, height, min(int(last-height)+1, 128))
		if len(path) == 0 {
			return blocks
		}
		for _, e := range path {
			switch {
			case e.Status&blockstore.Invalid != 0 || !n.servesWitness(p, e):
				return blocks
			case e.Status&blockstore.HaveData != 0 || len(n.blocks.inFlight[e.Hash]) > 0:
			default:
				if blocks = append(blocks, e); len(blocks) == count {
					return blocks
				}
			}
		}
		height += bitcoin.Height(len(path))
	}
	return blocks
}

// fetchBlocks asks a peer for what it should give next; with mu held.
func (n *Node) fetchBlocks(p *Peer, syncFrom bool) (items []wire.Inventory) {
	if n.chain.HeadersOnly() || !p.servesBlocks() || !(syncFrom && !p.limited() || !n.initialDownload()) ||
		len(p.inFlight) >= maxInFlight {
		return nil
	}
	room := maxInFlight - len(p.inFlight)
	blocks, staller := n.nextBlocks(p, room)
	blocks = append(blocks, n.nextHistory(p, room-len(blocks))...)
	for _, e := range blocks {
		n.requestBlock(p, e)
		n.debugf("Requesting block %s (%d) peer=%d", e.Hash, e.Height, p.id)
		items = append(items, wire.Inventory{Type: fetchType(p), Hash: e.Hash})
	}
	if len(p.inFlight) == 0 && staller != nil && staller.stallingSince.IsZero() {
		staller.stallingSince = n.clock.Now()
		n.debugf("Stall started peer=%d", staller.id)
	}
	return items
}

// syncFrom reports whether headers and blocks are to be asked of this peer during the initial download.
func (n *Node) syncFrom(p *Peer) bool {
	if p.preferred {
		return true
	}
	return p.servesBlocks() && p.typ != AddrFetch &&
		(n.blocks.preferred == 0 || len(n.blocks.inFlight) == 0)
}

// startSync asks a peer for headers for the first time, one peer at a time until we are close to today.
func (n *Node) startSync(p *Peer, syncFrom bool) {
	if p.syncStarted || !p.servesBlocks() || n.chain.Loading() {
		return
	}
	best := n.chain.BestHeader()
	now := n.clock.Now()
	age := now.Sub(unix(best.Header.Time))
	if !(n.blocks.syncing == 0 && syncFrom || age < 24*time.Hour) {
		return
	}
	// From the one before the best, so that the answer is not empty and says what the peer has.
	start := best
	if prev, ok := n.chain.Lookup(best.Header.PrevBlock); ok {
		start = prev
	}
	if !n.askHeaders(p, n.chain.Locator(start.Hash)) {
		return
	}
	n.debugf("initial getheaders (%d) to peer=%d (startheight:%d)", start.Height, p.id, p.startHeight)
	p.syncStarted = true
	n.blocks.syncing++
	p.headersTimeout = now.Add(15*time.Minute + age/n.net.TargetSpacing*time.Millisecond)
}

// checkDownloads drops a peer that does not deliver; true where it did.
func (n *Node) checkDownloads(p *Peer) bool {
	now := n.clock.Now()
	if !p.stallingSince.IsZero() && p.stallingSince.Before(now.Add(-n.blocks.stalling)) {
		n.infof("Peer is stalling block download, disconnecting peer=%d", p.id)
		if d := min(2*n.blocks.stalling, maxStalling); d != n.blocks.stalling {
			n.blocks.stalling = d
			n.debugf("Increased stalling timeout temporarily to %d seconds", int(d.Seconds()))
		}
		p.close()
		return true
	}
	if len(p.inFlight) > 0 {
		others := n.blocks.downloading - 1
		limit := n.net.TargetSpacing + n.net.TargetSpacing*time.Duration(others)/2
		if now.After(p.downloadingSince.Add(limit)) {
			n.infof("Timeout downloading block %s, disconnecting peer=%d", p.inFlight[0].entry.Hash, p.id)
			p.close()
			return true
		}
	}
	return n.checkHeadersTimeout(p, now)
}

func (n *Node) checkHeadersTimeout(p *Peer, now time.Time) bool {
	if !p.syncStarted || p.headersTimeout.IsZero() {
		return false
	}
	if now.Sub(unix(n.chain.BestHeader().Header.Time)) < 24*time.Hour {
		p.headersTimeout = time.Time{}
		return false
	}
	others := n.blocks.preferred - btoi(p.preferred)
	if !now.After(p.headersTimeout) || n.blocks.syncing != 1 || others < 1 {
		return false
	}
	if p.perms.Has(PermNoBan) {
		n.infof("Timeout downloading headers from noban peer, not disconnecting peer=%d", p.id)
		p.syncStarted = false
		n.blocks.syncing--
		p.headersTimeout = time.Time{}
		return false
	}
	n.infof("Timeout downloading headers, disconnecting peer=%d", p.id)
	p.close()
	return true
}

// considerEviction gives an outbound peer time to show a chain as good as ours, and drops it then (Bitcoin
// Core net_processing.cpp, ConsiderEviction).
func (n *Node) considerEviction(p *Peer) {
	if p.chainSync.protect || !p.outboundOrBlockRelay() || !p.syncStarted {
		return
	}
	now, tip, s := n.clock.Now(), n.chain.Tip(), &p.chainSync
	switch {
	case p.hasBest && p.best.Work.Cmp(tip.Work) >= 0:
		*s = chainSync{protect: s.protect}
	case s.deadline.IsZero() || p.hasBest && p.best.Work.Cmp(s.work.Work) >= 0:
		*s = chainSync{deadline: now.Add(chainSyncTimeout), work: tip}
	case !now.After(s.deadline):
	case s.asked:
		best := "<none>"
		if p.hasBest {
			best = p.best.Hash.String()
		}
		n.infof("Outbound peer has old chain, best known block = %s, disconnecting peer=%d", best, p.id)
		p.close()
	default:
		n.askHeaders(p, n.chain.Locator(s.work.Header.PrevBlock))
		n.debugf("sending getheaders to outbound peer=%d to verify chain work (benchmark blockhash: %s)",
			p.id, s.work.Hash)
		s.asked = true
		s.deadline = now.Add(headersResponseTime)
	}
}

// initialDownload reports whether the node is still catching up with the network. Once it is not, it never
// is again.
func (n *Node) initialDownload() bool {
	if n.synced.Load() {
		return false
	}
	tip := n.chain.Tip()
	if n.chain.Loading() || tip.Work.Cmp(n.cfg.MinimumWork) < 0 ||
		n.clock.Now().Sub(unix(tip.Header.Time)) > n.cfg.MaxTipAge {
		return true
	}
	n.synced.Store(true)
	n.infof("Leaving InitialBlockDownload (latching to false)")
	return false
}

// InitialDownload reports whether the node is still catching up with the network.
func (n *Node) InitialDownload() bool { return n.initialDownload() }
