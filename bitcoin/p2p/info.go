package p2p

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/p2p/addrbook"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

// PeerInfo is what there is to tell of a peer.
type PeerInfo struct {
	ID                        PeerID
	Addr, AddrBind, AddrLocal string
	Network                   wire.Net
	System                    uint32 // autonomous system, 0 where unknown
	Type                      ConnType
	Services                  wire.Services
	RelayTxs                  bool
	LastInvSequence           uint64
	InvToSend                 int
	LastSend, LastRecv        time.Time
	LastTx, LastBlock         time.Time
	BytesSent, BytesRecv      int64
	Connected                 time.Time
	TimeOffset                time.Duration
	Ping, MinPing, PingWait   time.Duration // 0 where unknown
	Version                   int32
	UserAgent                 string
	HighBandwidthTo           bool
	HighBandwidthFrom         bool
	StartHeight               int32
	PresyncHeight             bitcoin.Height // -1 where there is none
	SyncedHeaders             bitcoin.Height // -1 where unknown
	SyncedBlocks              bitcoin.Height
	InFlight                  []bitcoin.Height
	AddrRelay                 bool
	AddrProcessed             int64
	AddrLimited               int64
	Permissions               Permissions
	FeeFilter                 bitcoin.Amount
	SentPer, RecvPer          MsgCount
	Transport                 string
	Session                   [32]byte
	V2                        bool
}

// Peers returns what there is to tell of all peers.
func (n *Node) Peers() []PeerInfo {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []PeerInfo
	for _, p := range n.sortedPeers() {
		if !p.closing {
			out = append(out, n.info(p))
		}
	}
	return out
}

func (n *Node) info(p *Peer) PeerInfo {
	i := PeerInfo{
		ID: p.id, Addr: p.nameOrAddr(), AddrBind: p.bindAddr, Network: p.network(), Type: p.typ,
		System:   n.book.System(p.addr.Addr),
		Services: p.services, RelayTxs: p.relayTxs, InvToSend: len(p.toSend),
		LastSend: unixTime(&p.raw.lastSend), LastRecv: unixTime(&p.raw.lastRecv), LastTx: p.lastTx,
		LastBlock: p.lastBlock,
		BytesSent: p.raw.sent.Load(), BytesRecv: p.raw.received.Load(), Connected: p.connected,
		TimeOffset: p.timeOffset,
		Ping:       p.pingLast, Version: p.version, UserAgent: p.userAgent, HighBandwidthTo: p.weWantCompact,
		HighBandwidthFrom: p.wantsCompact, StartHeight: p.startHeight, PresyncHeight: -1,
		SyncedHeaders: -1, SyncedBlocks: -1, AddrRelay: p.addrRelay, AddrProcessed: p.addrProcessed,
		AddrLimited: p.addrLimited, Permissions: p.perms, FeeFilter: p.feeFilter,
		SentPer: copyCount(p.sentPer), RecvPer: copyCount(p.recvPer), Transport: p.transport,
		Session: p.session, V2: p.transport == "v2",
	}
	if p.txRelay {
		i.LastInvSequence = p.lastInvSeq
	}
	if p.addrLocal.Valid() {
		i.AddrLocal = p.addrLocal.String()
	}
	if p.pingMin < math.MaxInt64 {
		i.MinPing = p.pingMin
	}
	if p.pingNonce != 0 {
		i.PingWait = n.clock.Now().Sub(p.pingStart)
	}
	if p.presync != nil && !p.presync.again {
		i.PresyncHeight = p.presync.height
	}
	if p.hasBest {
		i.SyncedHeaders = p.best.Height
	}
	if e, ok := n.chain.Lookup(p.common2); ok {
		i.SyncedBlocks = e.Height
	}
	for _, r := range p.inFlight {
		i.InFlight = append(i.InFlight, r.entry.Height)
	}
	return i
}

// unixTime returns a time that is kept in seconds, the zero Time for 0.
func unixTime(seconds *atomic.Int64) time.Time {
	if s := seconds.Load(); s != 0 {
		return time.Unix(s, 0)
	}
	return time.Time{}
}

func copyCount(m MsgCount) MsgCount {
	out := make(MsgCount, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// Counts returns the number of connections that came to us and that we made.
func (n *Node) Counts() (in, out int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers {
		if p.closing {
			continue
		}
		if p.typ == Inbound {
			in++
		} else {
			out++
		}
	}
	return in, out
}

// Totals returns the octets received and sent.
func (n *Node) Totals() (received, sent int64) { return n.received.Load(), n.sent.Load() }

// Active reports whether the network is on.
func (n *Node) Active() bool { return n.active.Load() }

// SetActive turns the network on or off; then all connections end.
func (n *Node) SetActive(on bool) {
	n.active.Store(on)
	n.infof("SetNetworkActive: %v", on)
	if on {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers {
		p.close()
	}
}

// Ping sends a ping to all peers.
func (n *Node) Ping() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers {
		p.pingQueued = true
	}
	n.nudge()
}

// The ways in which the operator's wishes fail.
var (
	ErrAlreadyAdded = errors.New("Node already added")
	ErrNotAdded     = errors.New("Node has not been added.")
	ErrNotConnected = errors.New("Node not found in connected nodes")
	ErrFull         = errors.New("Already at capacity for specified connection type.")
)

// AddNode keeps a connection to a node from now on.
func (n *Node) AddNode(name string, v2 bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := n.numeric(name)
	for _, w := range n.added {
		if w.name == name || at.Valid() && n.numeric(w.name) == at {
			return ErrAlreadyAdded
		}
	}
	n.added = append(n.added, wanted{name, v2})
	return nil
}

// RemoveNode ends what AddNode began; the connection stays.
func (n *Node) RemoveNode(name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := slices.IndexFunc(n.added, func(w wanted) bool { return w.name == name })
	if i < 0 {
		return ErrNotAdded
	}
	n.added = slices.Delete(n.added, i, i+1)
	return nil
}

// TryNode connects to a node once.
func (n *Node) TryNode(ctx context.Context, name string, v2 bool) bool {
	return n.open(ctx, call{typ: Manual, name: name, v2: v2})
}

// Added is a node that the operator wants.
type Added struct {
	Name      string
	Connected bool
	Addr      string
	Inbound   bool
}

// AddedNodes returns the nodes that the operator wants.
func (n *Node) AddedNodes() []Added {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []Added
	for _, w := range n.added {
		a := Added{Name: w.name}
		at := n.numeric(w.name)
		for _, p := range n.peers {
			if !p.closing && (p.addrName == w.name || at.Valid() && p.addr == at) {
				a.Connected, a.Addr, a.Inbound = true, p.addr.String(), p.typ == Inbound
			}
		}
		out = append(out, a)
	}
	return out
}

// AddConnection opens a connection of a type; it is for tests.
func (n *Node) AddConnection(ctx context.Context, name string, typ ConnType, v2 bool) error {
	full, relay := 0, 0
	n.mu.Lock()
	for _, p := range n.peers {
		switch p.typ {
		case OutboundFull:
			full++
		case BlockRelayOnly:
			relay++
		}
	}
	n.mu.Unlock()
	mostFull := min(maxFull, n.cfg.MaxConnections)
	if typ == OutboundFull && full >= mostFull ||
		typ == BlockRelayOnly && relay >= min(maxBlockRelay, n.cfg.MaxConnections-mostFull) {
		return ErrFull
	}
	n.open(ctx, call{typ: typ, name: name, v2: v2})
	return nil
}

// Disconnect ends the connection of an address, with port, or of all ports of an address.
func (n *Node) Disconnect(addr string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	found := false
	for _, p := range n.peers {
		host := p.addr.Addr.String()
		if !p.closing && (p.addr.String() == addr || p.addrName == addr || host == addr ||
			"["+host+"]" == addr) {
			p.close()
			found = true
		}
	}
	if !found {
		return ErrNotConnected
	}
	return nil
}

// DisconnectID ends the connection of a peer.
func (n *Node) DisconnectID(id PeerID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[id]
	if p == nil || p.closing {
		return ErrNotConnected
	}
	p.close()
	return nil
}

// DisconnectBanned ends the connections of addresses that are banned by now.
func (n *Node) DisconnectBanned() {
	now := n.clock.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers {
		if n.bans.Banned(p.addr.Addr, now) {
			p.close()
		}
	}
}

// Bans returns the bans.
func (n *Node) Bans() *Bans { return n.bans }

// Book returns the address book.
func (n *Node) Book() *addrbook.Book { return n.book }

// Services returns what we offer: no old blocks while those before a snapshot are still to come.
func (n *Node) Services() wire.Services {
	s := n.cfg.Services
	if n.chain.BackgroundSync() {
		s = s&^wire.ServiceNetwork | wire.ServiceNetworkLimited
	}
	return s
}

// UserAgent returns what we call ourselves.
func (n *Node) UserAgent() string { return n.cfg.UserAgent }

// RelaysTxs reports whether transactions are relayed at all.
func (n *Node) RelaysTxs() bool { return !n.cfg.BlocksOnly }

// Locals are our own addresses with their scores.
func (n *Node) Locals() map[wire.AddrPort]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := map[wire.AddrPort]int{}
	for a, l := range n.local {
		out[wire.AddrPort{Addr: a, Port: l.port}] = l.score
	}
	return out
}

// Reachable reports whether we connect to a network by ourselves.
func (n *Node) Reachable(net wire.Net) bool { return n.reachable(net) }

// Proxy returns the SOCKS5 server of a network.
func (n *Node) Proxy(net wire.Net) string {
	if net == wire.NetTorV3 {
		if p := n.onionProxy.Load(); p != nil {
			return *p
		}
	}
	return n.cfg.Proxies[net]
}

// SetOnionProxy says by which SOCKS5 server nodes of Tor are reached from now on.
func (n *Node) SetOnionProxy(addr string) { n.onionProxy.Store(&addr) }

// AddOwn notes an address of ours that nodes reach us by, RemoveOwn that they do not any longer.
func (n *Node) AddOwn(at wire.AddrPort) { n.addLocal(at, localManual) }

// RemoveOwn forgets an address of ours.
func (n *Node) RemoveOwn(at wire.AddrPort) { n.forgetLocal(at) }

// Isolates reports whether each connection by the proxy of a network has a name of its own there.
func (n *Node) Isolates(net wire.Net) bool {
	return n.cfg.ProxyRandomize && n.Proxy(net) != "" && net != wire.NetI2P
}

// SendRaw sends a message of any kind to a peer; it is for tests.
func (n *Node) SendRaw(id PeerID, name string, payload []byte) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[id]
	if p == nil {
		return false
	}
	p.push(&wire.Raw{Name: name, Payload: payload})
	return true
}

// FetchBlock asks a peer for a block whose header is known.
func (n *Node) FetchBlock(id PeerID, hash bitcoin.Hash) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[id]
	if p == nil {
		return errors.New("Peer does not exist")
	}
	e, ok := n.chain.Lookup(hash)
	if !ok {
		return errors.New("Block header missing")
	}
	if !p.services.Has(wire.ServiceWitness) {
		return errors.New("Pre-SegWit peer")
	}
	n.releaseBlock(hash, nil)
	n.requestBlock(p, e)
	n.debugf("Requesting block %s from peer=%d", hash, id)
	p.push(&wire.GetData{Items: []wire.Inventory{{Type: wire.InvWitnessBlock, Hash: hash}}})
	return nil
}

// ConnTypeByName returns the type that Core calls so.
func ConnTypeByName(name string) (ConnType, bool) {
	for t := Inbound; t <= AddrFetch; t++ {
		if strings.EqualFold(t.String(), name) {
			return t, true
		}
	}
	return 0, false
}

// OrphanInfo is an orphan and who told of it.
type OrphanInfo struct {
	Tx    *bitcoin.Tx
	Peers []PeerID
}

// Orphans returns the transactions whose parents are not known.
func (n *Node) Orphans() []OrphanInfo {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []OrphanInfo
	for _, o := range n.txs.orphans.byID {
		i := OrphanInfo{Tx: o.tx}
		for id := range o.by {
			i.Peers = append(i.Peers, id)
		}
		slices.Sort(i.Peers)
		out = append(out, i)
	}
	return out
}
