package p2p

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

// wantedServices are those that a peer we choose must offer.
func (n *Node) wantedServices(theirs wire.Services) wire.Services {
	// Close to the tip a pruned node is as good (Core's GetDesirableServiceFlags).
	if theirs.Has(wire.ServiceNetworkLimited) &&
		n.clock.Now().Sub(unix(n.chain.Tip().Header.Time)) < 144*n.net.TargetSpacing {
		return wire.ServiceNetworkLimited | wire.ServiceWitness
	}
	return wire.ServiceNetwork | wire.ServiceWitness
}

// pushVersion sends our version; with mu held.
func (n *Node) pushVersion(p *Peer) {
	if p.sentVersion {
		return
	}
	p.sentVersion = true
	p.nonce = rand.Uint64()
	if p.typ != Inbound {
		n.nonces[p.nonce] = true
	}
	you := wire.AddrPort{}
	if p.addr.Routable() && p.addr.V1Compatible() && p.typ != Inbound {
		you = p.addr
	}
	services := n.services(p)
	relay := !n.cfg.BlocksOnly && p.typ != BlockRelayOnly && p.typ != Feeler ||
		p.perms.Has(PermRelay) && p.typ != BlockRelayOnly && p.typ != Feeler
	height := n.chain.Tip().Height
	p.push(&wire.Version{
		Protocol: wire.ProtocolVersion, Services: services, Time: n.clock.Now().Unix(),
		You: you, YouServices: p.services, MeServices: services, Nonce: p.nonce,
		UserAgent: n.cfg.UserAgent, StartHeight: int32(height), Relay: relay,
	})
	n.debugf("send version message: version %d, blocks=%d, txrelay=%d, peer=%d",
		wire.ProtocolVersion, height, btoi(relay), p.id)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// services returns what we offer to a peer.
func (n *Node) services(p *Peer) wire.Services {
	s := n.Services()
	if p.perms.Has(PermBloom) {
		s |= wire.ServiceBloom
	}
	return s
}

// greet deals with the messages of the handshake; done is false where the message is another. With mu held.
func (n *Node) greet(p *Peer, m wire.Message) (done bool) {
	if v, ok := m.(*wire.Version); ok {
		n.onVersion(p, v)
		return true
	}
	if p.version == 0 {
		n.debugf("non-version message before version handshake. Message \"%s\" from peer=%d",
			m.Command(), p.id)
		return true
	}
	switch m := m.(type) {
	case *wire.VerAck:
		n.onVerAck(p)
	case *wire.WTxIDRelay:
		if n.late(p, "wtxidrelay") {
			break
		}
		if p.common < wire.WTxIDRelayVersion {
			n.debugf("ignoring wtxidrelay due to old common version=%d from peer=%d", p.common, p.id)
		} else if p.wtxidRelay {
			n.debugf("ignoring duplicate wtxidrelay from peer=%d", p.id)
		} else {
			p.wtxidRelay = true
		}
	case *wire.SendAddrV2:
		if !n.late(p, "sendaddrv2") {
			p.wantsAddrV2 = true
		}
	case *wire.SendTxRcncl:
		n.onSendTxRcncl(p, m)
	case *wire.SendHeaders:
		p.prefersHeaders = true
	case *wire.SendCmpct:
		if m.Version == wire.CmpctBlockVersion {
			p.providesCompact, p.wantsCompact = true, m.Announce
		}
	default:
		if p.handshaken {
			return false
		}
		n.debugf("Unsupported message \"%s\" prior to verack from peer=%d", m.Command(), p.id)
	}
	return true
}

// late reports whether a message that belongs between version and verack came after: the peer goes then.
func (n *Node) late(p *Peer, command string) bool {
	if p.handshaken {
		n.debugf("%s received after verack, disconnecting peer=%d", command, p.id)
		p.close()
	}
	return p.handshaken
}

func (n *Node) onVersion(p *Peer, v *wire.Version) {
	if p.version != 0 {
		n.debugf("redundant version message from peer=%d", p.id)
		return
	}
	if p.typ != Inbound {
		n.book.SetServices(p.addr, v.Services)
	}
	expects := p.typ == OutboundFull || p.typ == BlockRelayOnly || p.typ == AddrFetch
	all := v.Services.Has(n.wantedServices(v.Services))
	if expects && !all {
		n.debugf("peer does not offer the expected services (%08x offered, %08x expected), "+
			"disconnecting peer=%d", uint64(v.Services), uint64(n.wantedServices(v.Services)), p.id)
		p.close()
		return
	}
	if v.Protocol < wire.MinPeerVersion {
		n.debugf("peer using obsolete version %d, disconnecting peer=%d", v.Protocol, p.id)
		p.close()
		return
	}
	if p.typ == Inbound && n.nonces[v.Nonce] {
		n.infof("connected to self at %s, disconnecting", p.addr)
		p.close()
		return
	}
	if p.typ == Inbound {
		if v.You.Routable() {
			n.seenLocal(v.You)
		}
		n.pushVersion(p)
	}
	p.version, p.common = v.Protocol, min(v.Protocol, wire.ProtocolVersion)
	if p.common >= wire.WTxIDRelayVersion {
		p.push(&wire.WTxIDRelay{})
		p.push(&wire.SendAddrV2{})
	}
	p.manyServices, p.services = all, v.Services
	p.addrLocal, p.userAgent, p.startHeight = v.You, sanitize(v.UserAgent), v.StartHeight
	if p.typ != BlockRelayOnly && p.typ != Feeler &&
		(v.Relay || n.services(p).Has(wire.ServiceBloom)) {
		p.txRelay, p.relayTxs = true, v.Relay
	}
	n.offerReconcile(p)
	p.push(&wire.VerAck{})
	p.preferred = (p.typ != Inbound || p.perms.Has(PermNoBan)) && p.typ != AddrFetch && p.servesBlocks()
	if p.preferred {
		n.blocks.preferred++
	}
	if p.typ != Inbound && n.setupAddrRelay(p) {
		p.push(&wire.GetAddr{})
		p.getAddrSent = true
		p.addrTokens += wire.MaxAddrs
	}
	if p.typ != Inbound {
		n.book.Good(p.addr, n.clock.Now())
	}
	p.timeOffset = time.Duration(clampTime(v.Time)-n.clock.Now().Unix()) * time.Second
	n.debugf("receive version message: %s: version %d, blocks=%d, us=%s, txrelay=%d, peer=%d%s",
		p.userAgent, p.version, p.startHeight, v.You, btoi(v.Relay), p.id, n.mappedSystem(p))
	if p.typ == Feeler {
		n.debugf("feeler connection completed, disconnecting peer=%d", p.id)
		p.close()
	}
}

// mappedSystem names the autonomous system of a peer, for the log.
func (n *Node) mappedSystem(p *Peer) string {
	if system := n.book.System(p.addr.Addr); system != 0 {
		return fmt.Sprintf(", mapped_as=%d", system)
	}
	return ""
}

// clampTime keeps a peer's time where arithmetic is safe (the overflow fixed in Core 0.21).
func clampTime(t int64) int64 { return max(0, min(t, math.MaxUint32)) }

// sanitize keeps the characters of a user agent that harm no log (Core's SanitizeString).
func sanitize(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x80 && (r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' ||
			strings.ContainsRune(" .,;-_/:?@()", r)) {
			return r
		}
		return -1
	}, s)
}

func (n *Node) onVerAck(p *Peer) {
	if p.handshaken {
		n.debugf("ignoring redundant verack message from peer=%d", p.id)
		return
	}
	if p.common >= wire.ShortIDsVersion {
		p.push(&wire.SendCmpct{Version: wire.CmpctBlockVersion})
	}
	if p.txRelay {
		p.nextInv = n.clock.Now()
		p.lastInvSeq = n.pool.sequence()
	}
	n.settleReconcile(p)
	p.handshaken = true
	if p.wtxidRelay {
		n.txs.wtxidPeers++
	}
	say := n.infof
	if p.typ == Inbound { // which others can make happen often
		say = n.debugf
	}
	say("New %s peer connected: transport: %s, version: %d, blocks=%d peer=%d%s", p.typ, p.transport,
		p.version, p.startHeight, p.id, n.mappedSystem(p))
}

// handshakeFailed deals with a transport that did not come about: a peer that speaks only v1 is called again.
func (n *Node) handshakeFailed(ctx context.Context, p *Peer, err error) {
	if transportFault(err) {
		n.debugf("%v, peer=%d", err, p.id)
	} else {
		n.debugf("V2 handshake failed peer=%d: %v", p.id, err)
	}
	if p.typ == Inbound || !errors.Is(err, wire.ErrNotV2) {
		return
	}
	n.debugf("retrying with v1 transport protocol for peer=%d", p.id)
	again := call{typ: p.typ, addr: wire.KnownAddr{AddrPort: p.addr}, name: p.addrName}
	n.mu.Lock()
	p.close()
	n.mu.Unlock()
	n.group.Go(func() { n.open(ctx, again) })
}

func unix(t uint32) time.Time { return time.Unix(int64(t), 0) }

// handle deals with one message.
func (n *Node) handle(ctx context.Context, p *Peer, f wire.Frame) {
	n.debugf("received: %s (%d bytes) peer=%d", sanitize(f.Command), len(f.Payload), p.id)
	m, err := wire.Parse(f.Command, f.Payload)
	if errors.Is(err, bitcoin.ErrTrailingData) {
		m, err = parsePrefix(f)
	}
	var excess *wire.ExcessError
	switch {
	case errors.As(err, &excess):
		n.mu.Lock()
		defer n.mu.Unlock()
		if p.version == 0 {
			return
		}
		if strings.HasPrefix(excess.Text, "get") && strings.Contains(excess.Text, "locator") {
			n.debugf("%s, disconnecting peer=%d", excess.Text, p.id)
			p.close()
			return
		}
		n.misbehave(p, "%s", excess.Text)
		return
	case err != nil:
		n.debugf("ProcessMessages(%s, %d bytes): Exception '%s' caught (%v), peer=%d",
			sanitize(f.Command), len(f.Payload), exception(err), err, p.id)
		return
	}
	n.mu.Lock()
	done := n.greet(p, m)
	closing := p.closing
	n.mu.Unlock()
	if !done && !closing {
		n.dispatch(ctx, p, m)
	}
}

// parsePrefix reads a block or transaction that more octets follow than belong to it. Core looks at no more
// than it needs, and judges what it read: so must we, or we would ask another peer for the same again.
func parsePrefix(f wire.Frame) (wire.Message, error) {
	switch f.Command {
	case "block":
		b, _, err := bitcoin.ParseBlockPrefix(f.Payload)
		return &wire.Block{Block: b}, err
	case "tx":
		tx, _, err := bitcoin.ParseTxPrefix(f.Payload)
		return &wire.Tx{Tx: tx}, err
	}
	return nil, bitcoin.ErrTrailingData
}

// exception says in Core's words what is wrong with an encoding.
func exception(err error) string {
	switch {
	case errors.Is(err, bitcoin.ErrNonCanonical):
		return "non-canonical ReadCompactSize()"
	case errors.Is(err, bitcoin.ErrSizeTooLarge):
		return "ReadCompactSize(): size too large"
	case errors.Is(err, bitcoin.ErrSuperfluous):
		return "Superfluous witness record"
	case errors.Is(err, bitcoin.ErrUnknownTxFlags):
		return "Unknown transaction optional data"
	case errors.Is(err, bitcoin.ErrEndOfData):
		return "DataStream::read(): end of data"
	}
	return "malformed message"
}

// whileLoading drops what makes no sense while blocks are taken in from files: it comes again later.
func (n *Node) whileLoading(p *Peer, m wire.Message) (dropped bool) {
	switch m.(type) {
	case *wire.Headers, *wire.Block, *wire.CmpctBlock, *wire.BlockTxn, *wire.GetHeaders:
	default:
		return false
	}
	if !n.chain.Loading() {
		return false
	}
	if m.Command() == "getheaders" {
		n.debugf("Ignoring getheaders from peer=%d while importing/reindexing", p.id)
	} else {
		n.debugf("Unexpected %s message received from peer %d", m.Command(), p.id)
	}
	return true
}

// dispatch deals with a message of a peer that has been greeted.
func (n *Node) dispatch(ctx context.Context, p *Peer, m wire.Message) {
	if n.whileLoading(p, m) {
		return
	}
	switch m := m.(type) {
	case *wire.Ping:
		if p.common >= wire.PongVersion && !m.Old {
			p.push(&wire.Pong{Nonce: m.Nonce})
		}
	case *wire.Pong:
		n.onPong(p, m)
	case *wire.Headers:
		n.onHeaders(ctx, p, m.Headers, false)
	case *wire.GetHeaders:
		n.onGetHeaders(p, m)
	case *wire.GetBlocks:
		n.onGetBlocks(p, m)
	case *wire.Inv:
		n.onInv(p, m)
	case *wire.GetData:
		n.onGetData(ctx, p, m.Items)
	case *wire.NotFound:
		n.onNotFound(p, m)
	case *wire.Block:
		n.onBlock(ctx, p, m.Block)
	case *wire.CmpctBlock:
		n.onCmpctBlock(ctx, p, m)
	case *wire.GetBlockTxn:
		n.onGetBlockTxn(p, m)
	case *wire.BlockTxn:
		n.onBlockTxn(ctx, p, m)
	case *wire.Tx:
		n.onTx(ctx, p, m.Tx)
	case *wire.AddrMsg:
		n.onAddrs(p, m.Addrs)
	case *wire.AddrV2Msg:
		n.onAddrs(p, m.Addrs)
	case *wire.GetAddr:
		n.onGetAddr(p)
	default:
		n.dispatchRest(p, m)
	}
}

// dispatchRest deals with filters and fees.
func (n *Node) dispatchRest(p *Peer, m wire.Message) {
	switch m := m.(type) {
	case *wire.FeeFilter:
		n.mu.Lock()
		defer n.mu.Unlock()
		if m.Rate.Valid() && p.txRelay {
			p.feeFilter = m.Rate
			n.debugf("received: feefilter of %s BTC/kvB from peer=%d", m.Rate, p.id)
		}
	case *wire.MemPool:
		n.onMemPool(p)
	case *wire.FilterLoad, *wire.FilterAdd, *wire.FilterClear:
		n.onFilter(p, m)
	case *wire.GetCFilters:
		n.onGetCFilters(p, m)
	case *wire.GetCFHeaders:
		n.onGetCFHeaders(p, m)
	case *wire.GetCFCheckpt:
		n.onGetCFCheckpt(p, m)
	case *wire.CFHeaders:
		n.onFilterAnswer(p, m, m.Type, m.Stop)
	case *wire.CFilter:
		n.onFilterAnswer(p, m, m.Type, m.Block)
	default:
		n.debugf("Unknown command \"%s\" from peer=%d", sanitize(m.Command()), p.id)
	}
}

func (n *Node) onPong(p *Peer, m *wire.Pong) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var problem string
	finish := false
	switch {
	case m.Short:
		problem, finish = "Short payload", true
	case p.pingNonce == 0:
		problem = "Unsolicited pong without ping"
	case m.Nonce == p.pingNonce:
		finish = true
		if d := n.clock.Now().Sub(p.pingStart); d >= 0 {
			p.pingLast, p.pingMin = d, min(p.pingMin, d)
		} else {
			problem = "Timing mishap"
		}
	case m.Nonce == 0:
		problem, finish = "Nonce zero", true
	default:
		problem = "Nonce mismatch"
	}
	if problem != "" {
		n.debugf("pong peer=%d: %s, %x expected, %x received, %d bytes", p.id, problem, p.pingNonce,
			m.Nonce, 8)
	}
	if finish {
		p.pingNonce = 0
	}
}
