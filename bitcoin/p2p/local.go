package p2p

import (
	"math/rand/v2"

	"github.com/tallypost/tallypost/bitcoin/wire"
)

// How we know an address of our own, the better the higher (Core's LOCAL_*).
const (
	localIf     = 1 // of an interface
	localBind   = 2 // that we listen at
	localManual = 4 // the operator says so
)

type localAddr struct {
	port  uint16
	score int
}

// addLocal notes an address of our own, if nodes can reach us by it.
func (n *Node) addLocal(at wire.AddrPort, score int) bool {
	at.Addr = n.Flip(at.Addr)
	if !at.Routable() || !n.cfg.Discover && score < localManual || !n.reachable(at.Net) {
		return false
	}
	n.infof("AddLocal(%s,%d)", at, score)
	n.mu.Lock()
	defer n.mu.Unlock()
	l, known := n.local[at.Addr]
	if known && score < l.score {
		return true
	}
	n.local[at.Addr] = localAddr{port: at.Port, score: score + btoi(known)}
	return true
}

func (n *Node) forgetLocal(at wire.AddrPort) {
	n.infof("RemoveLocal(%s)", at)
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.local, at.Addr)
}

// seenLocal notes that a peer reached us by one of our addresses; with mu held.
func (n *Node) seenLocal(a wire.AddrPort) {
	if l, ok := n.local[a.Addr]; ok {
		l.score++
		n.local[a.Addr] = l
	}
}

// ownAddr returns our address as this peer should know it (Bitcoin Core net.cpp, GetLocalAddrForPeer); with
// mu held.
func (n *Node) ownAddr(p *Peer) (wire.AddrPort, bool) {
	best, score := n.bestLocal(p)
	// What the peer says of us may be better than what we know.
	if n.cfg.Discover && p.addr.Routable() && p.addrLocal.Routable() && n.reachable(p.addrLocal.Net) {
		odds := 2
		if score > localManual {
			odds = 8
		}
		if !best.Routable() || rand.IntN(odds) == 0 {
			port := best.Port
			if p.typ == Inbound {
				port = p.addrLocal.Port // the peer reached us by it
			}
			best = wire.AddrPort{Addr: p.addrLocal.Addr, Port: port}
		}
	}
	return best, best.Routable()
}

// bestLocal returns the address of ours by which the peer reaches us best.
func (n *Node) bestLocal(p *Peer) (best wire.AddrPort, score int) {
	best.Port, score = n.cfg.Port, -1
	reach := -1
	theirs := p.network()
	for a, l := range n.local {
		// Addresses of networks that hide who we are must not be tied to others of ours.
		if a.Net != theirs && (private(a.Net) || private(theirs)) {
			continue
		}
		r := reachability(a, p.addr.Addr)
		if r > reach || r == reach && l.score > score {
			best, score, reach = wire.AddrPort{Addr: a, Port: l.port}, l.score, r
		}
	}
	return best, score
}

func private(n wire.Net) bool { return n == wire.NetTorV3 || n == wire.NetI2P }

// How well one address reaches another (Bitcoin Core netaddress.cpp, GetReachabilityFrom).
const (
	reachNot = iota
	reachDefault
	reachTeredo
	reachWeakIPv6
	reachIPv4
	reachStrongIPv6
	reachPrivate
)

// isTeredo reports whether an address is one of RFC 4380, 2001::/32.
func isTeredo(a wire.Addr) bool {
	b := a.Bytes()
	return a.Net == wire.NetIPv6 && b[0] == 0x20 && b[1] == 0x01 && b[2] == 0 && b[3] == 0
}

// reachability says how well a peer reaches our address.
func reachability(ours, theirs wire.Addr) int {
	_, linked := ours.LinkedIPv4()
	tunnel := linked && ours.Net == wire.NetIPv6 && !isTeredo(ours)
	switch {
	case !ours.Routable():
		return reachNot
	case isTeredo(theirs) && isTeredo(ours):
		return reachTeredo
	case isTeredo(theirs) && ours.Net == wire.NetIPv6:
		return reachWeakIPv6
	case private(theirs.Net) || theirs.Net == wire.NetCJDNS:
		if ours.Net == theirs.Net {
			return reachPrivate
		}
		if ours.Net == wire.NetIPv4 && theirs.Net == wire.NetTorV3 {
			return reachIPv4 // by an exit
		}
	case ours.Net == wire.NetIPv4:
		return reachIPv4
	case theirs.Net == wire.NetIPv4 && theirs.Routable():
	case isTeredo(ours):
		return reachTeredo
	case theirs.Net == wire.NetIPv6 && theirs.Routable() && ours.Net == wire.NetIPv6:
		if tunnel {
			return reachWeakIPv6
		}
		return reachStrongIPv6
	case theirs.Routable():
	case ours.Net == wire.NetIPv6:
		return reachWeakIPv6
	case ours.Net == wire.NetTorV3:
		return reachPrivate
	}
	return reachDefault
}
