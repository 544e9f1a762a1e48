package p2p

import "time"

// schedule is when the tasks of the node are due.
type schedule struct {
	rebroadcast time.Time
	stale       time.Time
	extra       time.Time
	bans        time.Time
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
	}
	if now.After(s.bans) {
		s.bans = now.Add(dumpBansInterval)
		if err := n.bans.Flush(n.clock.Now()); err != nil {
			n.log.Error("bans could not be written", "err", err)
		}
	}
}

// evictExtra drops what is more than the connections that we keep: of block-relay-only peers the youngest,
// unless the one before it gave us a block less lately; of full ones that which announced a block the
// longest ago (Bitcoin Core net_processing.cpp, EvictExtraOutboundPeers).
func (n *Node) evictExtra() {
	now := n.clock.Now()
	var relay, full []*Peer
	for _, p := range n.sortedPeers() {
		switch {
		case p.closing:
		case p.typ == BlockRelayOnly:
			relay = append(relay, p)
		case p.typ == OutboundFull:
			full = append(full, p)
		}
	}
	if len(relay) > maxBlockRelay {
		young, before := relay[len(relay)-1], relay[len(relay)-2]
		victim := young
		if young.lastBlock.After(before.lastBlock) {
			victim = before
		}
		if now.Sub(victim.connected) > minimumConnected && len(victim.inFlight) == 0 {
			n.debugf("disconnecting extra block-relay-only peer=%d", victim.id)
			victim.close()
		}
	}
	if len(full) <= maxFull {
		return
	}
	var worst *Peer
	for _, p := range full {
		if p.chainSync.protect {
			continue
		}
		if worst == nil || p.lastAnnounced.Before(worst.lastAnnounced) ||
			p.lastAnnounced.Equal(worst.lastAnnounced) && p.id > worst.id {
			worst = p
		}
	}
	if worst != nil && now.Sub(worst.connected) > minimumConnected && len(worst.inFlight) == 0 {
		n.debugf("disconnecting extra outbound peer=%d", worst.id)
		worst.close()
	}
}
