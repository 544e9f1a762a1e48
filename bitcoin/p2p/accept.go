package p2p

import (
	"context"
	"net"
	"net/netip"

	"github.com/tallypost/tallypost/bitcoin/wire"
)

// parseConn returns the address and port of a connection's other end.
func parseConn(a net.Addr) (wire.AddrPort, bool) {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return wire.AddrPort{}, false
	}
	return wire.AddrPortFrom(netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())), true
}

// acceptConn takes a connection in, by whatever address it comes from.
func (n *Node) acceptConn(ctx context.Context, c net.Conn, l Listen) {
	addr, ok := parseConn(c.RemoteAddr())
	if !ok {
		c.Close()
		return
	}
	addr.Addr = n.Flip(addr.Addr)
	n.takeConn(ctx, c, addr, l)
}

// takeConn takes a connection in, if there is room and nothing against it.
func (n *Node) takeConn(ctx context.Context, c net.Conn, addr wire.AddrPort, l Listen) {
	perms := n.permissions(addr.Addr, l.Permissions, true)
	now := n.clock.Now()
	if !n.active.Load() {
		n.debugf("connection from %s dropped: not accepting new connections", addr)
		c.Close()
		return
	}
	if n.bans.Banned(addr.Addr, now) && !perms.Has(PermNoBan) {
		n.debugf("connection from %s dropped (banned)", addr)
		c.Close()
		return
	}
	n.mu.Lock()
	inbound := 0
	for _, p := range n.peers {
		if p.typ == Inbound {
			inbound++
		}
	}
	room := n.maxInbound()
	discouraged := n.bans.Discouraged(addr.Addr) && !perms.Has(PermNoBan)
	if discouraged && inbound+1 >= room {
		n.mu.Unlock()
		n.debugf("connection from %s dropped (discouraged)", addr)
		c.Close()
		return
	}
	if inbound >= room && !n.evict() {
		n.mu.Unlock()
		n.debugf("failed to find an eviction candidate - connection dropped (full)")
		c.Close()
		return
	}
	n.mu.Unlock()
	p := n.addPeer(ctx, c, Inbound, addr, "", perms, n.cfg.V2, l.Onion, l.bound)
	if p != nil {
		n.debugf("connection from %s accepted", addr)
	}
}

// maxInbound is how many peers may come to us: what is left of all connections.
func (n *Node) maxInbound() int {
	full := min(maxFull, n.cfg.MaxConnections)
	relay := min(maxBlockRelay, n.cfg.MaxConnections-full)
	return max(0, n.cfg.MaxConnections-full-relay-maxFeelers)
}

// permissions returns what a peer with an address may do.
func (n *Node) permissions(a wire.Addr, base Permissions, in bool) Permissions {
	p := base &^ permImplicit
	implicit := base&permImplicit != 0
	if ip, ok := a.IP(); ok {
		for _, w := range n.cfg.Whitelist {
			if w.Subnet.Contains(ip) && (in && w.In || !in && w.Out) {
				p |= w.Permissions &^ permImplicit
				implicit = implicit || w.Permissions&permImplicit != 0
			}
		}
	}
	if implicit {
		p |= n.cfg.Implicit
	}
	return p
}

// evict drops an inbound peer for a new one; with mu held.
func (n *Node) evict() bool {
	var cs []Candidate
	for _, p := range n.sortedPeers() {
		if p.closing {
			continue
		}
		cs = append(cs, Candidate{
			ID: p.id, Connected: p.connected, MinPing: p.pingMin, LastBlock: p.lastBlock, LastTx: p.lastTx,
			RelevantServices: p.manyServices, RelayTxs: p.relayTxs, Bloom: p.bloomLoaded, Group: p.group,
			PreferEvict: n.bans.Discouraged(p.addr.Addr), Local: p.addr.Local(), Network: p.network(),
			NoBan: p.perms.Has(PermNoBan), Outbound: p.typ != Inbound,
		})
	}
	id, ok := SelectEvict(cs)
	if !ok {
		return false
	}
	n.debugf("selected %s connection for eviction, disconnecting peer=%d", n.peers[id].typ, id)
	n.peers[id].close()
	delete(n.peers, id)
	return true
}
