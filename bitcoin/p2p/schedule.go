package p2p

import (
	"time"

	"github.com/tallypost/tallypost/bitcoin/wire"
)

// schedule is when the tasks of the node are due.
type schedule struct {
	rebroadcast time.Time
	stale       time.Time
	extra       time.Time
	bans        time.Time
	systems     time.Time
}

// MockForward makes the scheduled tasks due that much earlier (Core's mockscheduler).
func (n *Node) MockForward(d time.Duration) {
	n.schedSkip.Add(int64(d))
	n.nudge()
}

// scheduled runs tasks that are due; with mu held.
func (n *Node) scheduled() {
	now := n.clock.Now().Add(time.Duration(n.schedSkip.Load()))
	s := &n.tasks
	if n.book.Mapped() && now.After(s.systems) {
		s.systems = now.Add(systemsCheckEvery)
		n.checkSystems()
	}
	if s.rebroadcast.IsZero() {
		s.rebroadcast = rebroadcastTime(now)
		s.extra, s.stale = now.Add(extraCheckEvery), now.Add(staleCheckEvery)
		s.bans = now.Add(dumpBansInterval)
		return
	}
	if now.After(s.rebroadcast) {
		s.rebroadcast = rebroadcastTime(now)
		n.rebroadcast()
	}
	if now.After(s.extra) {
		s.extra = now.Add(extraCheckEvery)
		n.evictExtra()
		n.checkStaleTip(now)
	}
	if now.After(s.bans) {
		s.bans = now.Add(dumpBansInterval)
		if err := n.bans.Flush(n.clock.Now()); err != nil {
			n.log.Error("bans could not be written", "err", err)
		}
	}
}

// systemsCheckEvery is how often the log says how well the map knows the addresses.
const systemsCheckEvery = 24 * time.Hour

// checkSystems tells how many addresses of the book the map knows.
func (n *Node) checkSystems() {
	systems := map[uint32]bool{}
	total, unknown := 0, 0
	for _, net := range []wire.Net{wire.NetIPv4, wire.NetIPv6} {
		for _, a := range n.book.Addrs(0, 0, net, true, n.clock.Now()) {
			total++
			if system := n.book.System(a.Addr); system != 0 {
				systems[system] = true
			} else {
				unknown++
			}
		}
	}
	n.infof("ASMap Health Check: %d clearnet peers are mapped to %d ASNs with %d peers being unmapped", total,
		len(systems), unknown)
}

// checkStaleTip allows for one more full peer where no block has come for so long that our peers may keep
// them from us (Bitcoin Core net_processing.cpp, CheckForStaleTipAndEvictPeers).
func (n *Node) checkStaleTip(now time.Time) {
	if now.After(n.tasks.stale) {
		stale := now.Sub(n.tipSeen) > 3*n.net.TargetSpacing && len(n.blocks.inFlight) == 0
		switch {
		case stale && n.active.Load() && !n.cfg.ConnectOnly:
			n.infof("Potential stale tip detected, will try using extra outbound peer (last tip update: "+
				"%d seconds ago)", int(now.Sub(n.tipSeen).Seconds()))
			n.setTryAnother(true)
		case n.tryAnother:
			n.setTryAnother(false)
		}
		n.tasks.stale = now.Add(staleCheckEvery)
	}
	if !n.caughtUp && n.canDirectFetch() {
		n.debugf("enabling extra block-relay-only peers")
		n.extraRelay, n.caughtUp = true, true
	}
}

func (n *Node) setTryAnother(yes bool) {
	n.tryAnother = yes
	n.debugf("setting try another outbound peer=%v", yes)
}

// evictExtra drops what is more than the connections that we keep (Bitcoin Core net_processing.cpp,
// EvictExtraOutboundPeers).
func (n *Node) evictExtra() {
	var relay, full []*Peer
	perNet := map[wire.Net]int{} // full and manual ones
	for _, p := range n.sortedPeers() {
		if p.closing {
			continue
		}
		if p.typ == OutboundFull || p.typ == Manual {
			perNet[p.addr.Net]++
		}
		switch {
		case !p.handshaken:
		case p.typ == BlockRelayOnly:
			relay = append(relay, p)
		case p.typ == OutboundFull:
			full = append(full, p)
		}
	}
	mostFull := min(maxFull, n.cfg.MaxConnections)
	if len(relay) > min(maxBlockRelay, n.cfg.MaxConnections-mostFull) {
		n.evictRelay(relay)
	}
	if len(full) > mostFull {
		n.evictFull(full, perNet)
	}
}

// evictRelay drops the youngest block-relay-only peer, unless the one before it gave us a block less lately.
func (n *Node) evictRelay(relay []*Peer) {
	victim := relay[len(relay)-1]
	if len(relay) > 1 {
		if before := relay[len(relay)-2]; victim.lastBlock.After(before.lastBlock) {
			victim = before
		}
	}
	if n.clock.Now().Sub(victim.connected) < minimumConnected || len(victim.inFlight) > 0 {
		n.debugf("keeping block-relay-only peer=%d chosen for eviction (connect time: %d, blocks_in_flight: %d)",
			victim.id, victim.connected.Unix(), len(victim.inFlight))
		return
	}
	n.debugf("disconnecting extra block-relay-only peer=%d (last block received at time %d)", victim.id,
		unixOrZero(victim.lastBlock))
	victim.close()
}

// evictFull drops the full peer that announced a block the longest ago, of those that come late the newest,
// but not the only one of its network.
func (n *Node) evictFull(full []*Peer, perNet map[wire.Net]int) {
	var worst *Peer
	for _, p := range full {
		if p.chainSync.protect || perNet[p.addr.Net] < 2 {
			continue
		}
		if worst == nil || !p.lastAnnounced.After(worst.lastAnnounced) {
			worst = p
		}
	}
	if worst == nil {
		return
	}
	if n.clock.Now().Sub(worst.connected) <= minimumConnected || len(worst.inFlight) > 0 {
		n.debugf("keeping outbound peer=%d chosen for eviction (connect time: %d, blocks_in_flight: %d)",
			worst.id, worst.connected.Unix(), len(worst.inFlight))
		return
	}
	n.debugf("disconnecting extra outbound peer=%d (last block announcement received at time %d)", worst.id,
		unixOrZero(worst.lastAnnounced))
	worst.close()
	n.setTryAnother(false) // once is enough, until the tip is stale again
}

func unixOrZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}
