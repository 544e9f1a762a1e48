package p2p

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

// PeerID numbers the peers of a Node in the order in which they came.
type PeerID int64

// ConnType is why a connection is there.
type ConnType uint8

// The types of connections (Bitcoin Core node/connection_types.h).
const (
	Inbound        ConnType = iota
	OutboundFull            // all is relayed
	Manual                  // asked for by the operator
	Feeler                  // to see whether an address works
	BlockRelayOnly          // no transactions or addresses: nobody learns of it by them
	AddrFetch               // for addresses, then closed
)

// String returns Core's name.
func (t ConnType) String() string {
	return [...]string{"inbound", "outbound-full-relay", "manual", "feeler", "block-relay-only",
		"addr-fetch"}[t]
}

// MsgCount are the octets that a command took.
type MsgCount map[string]int64

// Peer is the other end of a connection. Its fields are guarded by Node.mu, but those of the first group,
// which do not change.
type Peer struct {
	id        PeerID
	n         *Node
	typ       ConnType
	addr      wire.AddrPort
	addrName  string // what the operator called it
	bindAddr  string
	onion     bool // came to our Tor port
	perms     Permissions
	group     uint64
	connected time.Time
	raw       *countedConn
	conn      *wire.Conn
	done      chan struct{} // closed when the connection is to end

	out outbox

	closing    bool
	transport  string // "detecting", "v1", "v2"
	session    [32]byte
	sentPer    MsgCount
	recvPer    MsgCount
	misbehaved bool

	// version handshake
	version      int32 // theirs, 0 until it came
	common       int32
	services     wire.Services
	userAgent    string
	startHeight  int32
	timeOffset   time.Duration
	addrLocal    wire.AddrPort
	sentVersion  bool
	nonce        uint64
	handshaken   bool
	wtxidRelay   bool
	wantsAddrV2  bool
	preferred    bool // for downloads
	manyServices bool // all that we want
	reconcile    reconcileState

	// ping
	pingNonce  uint64
	pingStart  time.Time
	pingLast   time.Duration
	pingMin    time.Duration
	pingQueued bool

	// headers and blocks
	syncStarted      bool
	headersTimeout   time.Time // zero: none
	lastGetHeaders   time.Time
	presync          *presync
	best             chain.Entry // the block with most work that the peer is known to have
	hasBest          bool
	unknownBest      bitcoin.Hash
	common2          bitcoin.Hash // last block that we share, for downloads
	bestSent         bitcoin.Hash // last header that we announced
	invTriggered     bool
	prefersHeaders   bool
	sentSendHeaders  bool
	announceHeaders  []bitcoin.Hash
	announceInv      []bitcoin.Hash
	continueHash     bitcoin.Hash // of getblocks
	inFlight         []*blockRequest
	downloadingSince time.Time
	stallingSince    time.Time
	lastBlock        time.Time
	lastAnnounced    time.Time
	chainSync        chainSync
	providesCompact  bool
	wantsCompact     bool // high bandwidth: it asked us
	weWantCompact    bool // high bandwidth: we asked it

	filterQuestion *filterQuestion // that waits for an answer
	bodyQuestion   *bodyQuestion   // likewise

	// transactions
	txRelay     bool // the structure exists: transactions may be announced
	relayTxs    bool // the peer wants them
	bloom       *wire.Bloom
	bloomLoaded bool
	known       *recentSet
	toSend      map[bitcoin.Hash]bool // wtxids
	nextInv     time.Time
	lastInvSeq  uint64
	sendMempool bool
	feeFilter   bitcoin.Amount
	feeSent     bitcoin.Amount
	nextFee     time.Time
	lastTx      time.Time

	// addresses
	addrRelay     bool
	addrKnown     *recentSet
	addrsToSend   []wire.KnownAddr
	nextAddr      time.Time
	nextLocal     time.Time
	addrTokens    float64
	addrStamp     time.Time
	addrProcessed int64
	addrLimited   int64
	getAddrSent   bool
	getAddrSeen   bool
}

// chainSync is the time that an outbound peer has to show a chain as good as ours.
type chainSync struct {
	deadline time.Time
	work     chain.Entry
	asked    bool
	protect  bool
}

// close ends the connection; with Node.mu held.
func (p *Peer) close() {
	if p.closing {
		return
	}
	p.closing = true
	close(p.done)
	p.out.mu.Lock()
	p.out.closed = true
	p.out.cond.Broadcast()
	p.out.mu.Unlock()
	p.raw.Close()
}

// addPeer makes a peer of a connection and starts its goroutines.
func (n *Node) addPeer(ctx context.Context, c net.Conn, typ ConnType, addr wire.AddrPort, name string,
	perms Permissions, v2, onion bool, bound string) *Peer {
	now := n.clock.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		c.Close()
		return nil
	}
	p := &Peer{
		id: n.nextID, n: n, typ: typ, addr: addr, addrName: name, onion: onion, perms: perms,
		bindAddr: c.LocalAddr().String(), group: n.groupOf(addr.Addr), connected: now,
		raw: &countedConn{Conn: c, n: n}, done: make(chan struct{}), transport: "v1",
		sentPer: MsgCount{}, recvPer: MsgCount{}, pingMin: math.MaxInt64,
		known: newRecentSet(50_000), toSend: map[bitcoin.Hash]bool{}, addrStamp: now, addrTokens: 1,
		lastInvSeq: 1, startHeight: -1,
	}
	if v2 {
		p.transport = "detecting"
	}
	if bound != "" {
		p.bindAddr = bound
	}
	p.out.cond = sync.NewCond(&p.out.mu)
	n.nextID++
	n.peers[p.id] = p
	p.conn = wire.NewConn(p.raw, typ != Inbound, wire.Config{
		Magic: n.net.Magic, V2: v2, Reserve: n.memory.reserve, Release: n.memory.release,
	})
	n.debugf("Added connection peer=%d", p.id)
	n.group.Go(func() { p.run(ctx) })
	return p
}

// run is the life of a peer.
func (p *Peer) run(ctx context.Context) {
	defer p.n.removePeer(p)
	defer func() {
		if e := recover(); e != nil {
			p.n.log.Error("panic while serving a peer", "peer", p.id, "panic", e)
		}
	}()
	if p.typ != Inbound && p.transport == "detecting" {
		p.n.debugf("start sending v2 handshake to peer=%d", p.id)
	}
	// The ticker watches the time that the peer takes.
	if err := p.conn.Handshake(); err != nil {
		p.n.handshakeFailed(ctx, p, err)
		return
	}
	p.n.mu.Lock()
	p.transport = "v1"
	if p.conn.V2() {
		p.transport, p.session = "v2", p.conn.SessionID()
	}
	if p.typ != Inbound {
		p.n.pushVersion(p)
	}
	p.n.mu.Unlock()
	var writer sync.WaitGroup
	writer.Go(p.writeLoop)
	p.readLoop(ctx)
	p.n.mu.Lock()
	p.close()
	p.n.mu.Unlock()
	writer.Wait()
}

func (p *Peer) writeLoop() {
	for {
		p.out.mu.Lock()
		for len(p.out.queue) == 0 && !p.out.closed {
			p.out.cond.Wait()
		}
		if p.out.closed {
			p.out.mu.Unlock()
			return
		}
		m := p.out.queue[0]
		p.out.queue[0] = nil
		p.out.queue = p.out.queue[1:]
		p.out.mu.Unlock()
		if p.n.cfg.CaptureDir != "" {
			p.capture("msgs_sent.dat", m.Command(), m.Append(nil))
		}
		octets, err := p.conn.WriteMessage(m)
		if !p.conn.V2() { // 24 octets are the frame's
			p.n.debugf("sending %s (%d bytes) peer=%d", m.Command(), octets-24, p.id)
		}
		p.out.mu.Lock()
		p.out.octets -= messageCost(m)
		p.out.cond.Broadcast()
		p.out.mu.Unlock()
		p.n.mu.Lock()
		p.sentPer[m.Command()] += int64(octets)
		if err != nil {
			p.close()
		}
		p.n.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (p *Peer) readLoop(ctx context.Context) {
	for ctx.Err() == nil {
		f, err := p.conn.ReadFrame()
		var reject *wire.RejectError
		switch {
		case errors.As(err, &reject):
			p.n.debugf("%s peer=%d", reject.Text, p.id)
			p.n.countRecv(p, "*other*", reject.Size)
			continue
		case err != nil:
			p.n.readFailed(p, err)
			return
		}
		name := f.Command
		if !wire.Known(name) {
			name = "*other*"
		}
		p.n.countRecv(p, name, f.Size)
		if !p.take(ctx, f) {
			return
		}
	}
}

// take deals with a message once the peer has taken what it was sent; false where the connection is to end.
func (p *Peer) take(ctx context.Context, f wire.Frame) bool {
	defer p.n.memory.release(f.Reserved)
	if !p.waitRoom() {
		return false
	}
	p.capture("msgs_recv.dat", f.Command, f.Payload)
	p.n.handle(ctx, p, f)
	p.n.retryOrphans(ctx, p)
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	p.n.sendDue(p)
	return !p.closing
}

func (n *Node) countRecv(p *Peer, name string, octets int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p.recvPer[name] += int64(octets)
}

func (n *Node) readFailed(p *Peer, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case p.closing:
	case transportFault(err):
		n.debugf("%v, peer=%d", err, p.id)
	default:
		n.debugf("socket closed, disconnecting peer=%d: %v", p.id, err)
	}
}

// transportFault reports whether a peer broke the rules of framing, in which case the error says so in Core's
// words.
func transportFault(err error) bool {
	text := err.Error()
	return strings.HasPrefix(text, "V2 transport error") || strings.HasPrefix(text, "Header error")
}

// removePeer forgets a peer and what was asked of it.
func (n *Node) removePeer(p *Peer) {
	n.mu.Lock()
	p.close()
	delete(n.peers, p.id)
	delete(n.nonces, p.nonce)
	n.releaseBlocks(p)
	n.txs.requests.forgetPeer(p.id)
	n.txs.orphans.forgetPeer(p.id)
	if p.handshaken && p.wtxidRelay {
		n.txs.wtxidPeers--
	}
	if p.preferred {
		n.blocks.preferred--
	}
	if p.syncStarted {
		n.blocks.syncing--
	}
	if p.chainSync.protect {
		n.blocks.protected--
	}
	n.mu.Unlock()
	if p.handshaken && p.typ != BlockRelayOnly && p.typ != Inbound && !p.misbehaved {
		// Not of block-relay-only peers: the book would tell others of them.
		n.book.Connected(p.addr, n.clock.Now())
	}
	n.debugf("Cleared nodestate for peer=%d", p.id)
	n.nudge()
}

// misbehave notes that a peer did what no honest one does; at the next turn it is gone. With mu held.
func (n *Node) misbehave(p *Peer, format string, args ...any) {
	p.misbehaved = true
	n.debugf("Misbehaving: peer=%d: %s", p.id, fmt.Sprintf(format, args...))
}

// punish ends the connection of a peer that misbehaved, if we may; with mu held.
func (n *Node) punish(p *Peer) bool {
	if !p.misbehaved || p.closing {
		return false
	}
	switch {
	case p.perms.Has(PermNoBan):
		p.misbehaved = false
		n.log.Warn(fmt.Sprintf("Warning: not punishing noban peer %d!", p.id))
		return false
	case p.typ == Manual:
		p.misbehaved = false
		n.log.Warn(fmt.Sprintf("Warning: not punishing manually connected peer %d!", p.id))
		return false
	case p.addr.Local():
		// All peers by Tor look like this one.
		n.debugf("Warning: disconnecting but not discouraging %s peer %d!", netName(p), p.id)
	default:
		n.debugf("Disconnecting and discouraging peer %d!", p.id)
		n.bans.Discourage(p.addr.Addr)
	}
	p.close()
	return true
}

func netName(p *Peer) string {
	if p.onion {
		return "onion"
	}
	return "local"
}

// sortedPeers returns the peers in their order; with mu held.
func (n *Node) sortedPeers() []*Peer {
	out := make([]*Peer, 0, len(n.peers))
	for _, p := range n.peers {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *Peer) int { return cmp.Compare(a.id, b.id) })
	return out
}

func (p *Peer) outboundOrBlockRelay() bool { return p.typ == OutboundFull || p.typ == BlockRelayOnly }

func (p *Peer) servesBlocks() bool {
	return p.services&(wire.ServiceNetwork|wire.ServiceNetworkLimited) != 0
}

func (p *Peer) limited() bool {
	return !p.services.Has(wire.ServiceNetwork) && p.services.Has(wire.ServiceNetworkLimited)
}

// network is by which the peer is connected; NetNone where it is near.
func (p *Peer) network() wire.Net {
	switch {
	case p.onion:
		return wire.NetTorV3
	case !p.addr.Routable():
		return wire.NetNone
	}
	return p.addr.Net
}
