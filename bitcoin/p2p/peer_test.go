package p2p_test

import (
	"context"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
	"github.com/tallypost/tallypost/bitcoin/p2p"
	"github.com/tallypost/tallypost/bitcoin/wire"
	"github.com/tallypost/tallypost/internal/memnet"
)

// patience is how long a test waits for what should come at once.
const patience = 30 * time.Second

// stranger is a peer that says what a test wants.
type stranger struct {
	t    testing.TB
	conn *wire.Conn
	got  chan wire.Message // closed when the connection ends
	next uint64            // nonce of pings
}

// connect connects a stranger to the first node, without a word.
func (l *lab) connect(from byte) *stranger {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	host := l.net.Host(netip.AddrFrom4([4]byte{12, 9, from, 1}))
	c, err := host.DialContext(ctx, "tcp", l.nodes[0].host.String()+":18444")
	if err != nil {
		l.t.Fatal(err)
	}
	s := &stranger{t: l.t, got: make(chan wire.Message, 10_000),
		conn: wire.NewConn(c, true, wire.Config{Magic: bitcoin.Regtest().Magic})}
	if err := s.conn.Handshake(); err != nil {
		l.t.Fatal(err)
	}
	go func() {
		defer close(s.got)
		for {
			f, err := s.conn.ReadFrame()
			if err != nil {
				return
			}
			if m, err := wire.Parse(f.Command, f.Payload); err == nil {
				s.got <- m
			}
		}
	}()
	l.t.Cleanup(func() { c.Close() })
	return s
}

// greeted is connect with the handshake done.
func (l *lab) greeted(from byte, change ...func(*wire.Version)) *stranger {
	l.t.Helper()
	s := l.connect(from)
	v := &wire.Version{Protocol: wire.ProtocolVersion, Services: wire.ServiceNetwork | wire.ServiceWitness,
		Time: time.Now().Unix(), Nonce: uint64(from) + 1, UserAgent: "/stranger/", Relay: true}
	for _, f := range change {
		f(v)
	}
	s.send(v, &wire.WTxIDRelay{}, &wire.SendAddrV2{}, &wire.VerAck{})
	expect[*wire.VerAck](s)
	return s
}

func (s *stranger) send(list ...wire.Message) {
	s.t.Helper()
	for _, m := range list {
		if _, err := s.conn.WriteMessage(m); err != nil {
			s.t.Logf("%s was not sent: %v", m.Command(), err)
			return
		}
	}
}

// expect waits for a message of a kind and skips others.
func expect[M wire.Message](s *stranger) (m M) {
	s.t.Helper()
	late := time.After(patience)
	for {
		select {
		case got, ok := <-s.got:
			if !ok {
				s.t.Fatalf("the connection ended, want a %T", m)
			}
			if m, ok := got.(M); ok {
				return m
			}
		case <-late:
			s.t.Fatalf("no %T came", m)
		}
	}
}

// sync returns what came until the node had dealt with all that was sent.
func (s *stranger) sync() (list []wire.Message) {
	s.t.Helper()
	s.next++
	s.send(&wire.Ping{Nonce: s.next})
	late := time.After(patience)
	for {
		select {
		case m, ok := <-s.got:
			if !ok {
				s.t.Fatal("the connection ended, want a pong")
			}
			if p, ok := m.(*wire.Pong); ok && p.Nonce == s.next {
				return list
			}
			list = append(list, m)
		case <-late:
			s.t.Fatal("no pong came")
		}
	}
}

// dropped waits until the node ends the connection.
func (s *stranger) dropped() {
	s.t.Helper()
	late := time.After(patience)
	for {
		select {
		case _, ok := <-s.got:
			if !ok {
				return
			}
		case <-late:
			s.t.Fatal("the connection lasts")
		}
	}
}

func count[M wire.Message](list []wire.Message) (n int) {
	for _, m := range list {
		if _, ok := m.(M); ok {
			n++
		}
	}
	return n
}

// claim is a message that says it has so many items and ends there.
func claim(command string, before []byte, items uint64) wire.Message {
	return &wire.Raw{Name: command, Payload: bitcoin.AppendCompactSize(before, items)}
}

// What no honest peer sends ends the connection, before memory is taken for it.
func TestMoreThanAllowedEndsTheConnection(t *testing.T) {
	l := newLab(t, 1, memnet.Link{}, false)
	version := []byte{0, 0, 0, 0}
	for i, m := range []wire.Message{
		claim("inv", nil, wire.MaxInv+1), claim("getdata", nil, wire.MaxInv+1),
		claim("headers", nil, wire.MaxHeaders+1), claim("addr", nil, wire.MaxAddrs+1),
		claim("addrv2", nil, wire.MaxAddrs+1), claim("getheaders", version, wire.MaxLocator+1),
		claim("getblocks", version, wire.MaxLocator+1),
		&wire.FilterAdd{Element: []byte{1}}, // filters are not served here
		&wire.MemPool{}, &wire.WTxIDRelay{}, &wire.SendAddrV2{},
	} {
		s := l.greeted(byte(i + 1))
		s.send(m)
		s.dropped()
	}
	l.greeted(200).sync()
}

func TestOversizedFrameEndsTheConnection(t *testing.T) {
	l := newLab(t, 1, memnet.Link{}, false)
	s := l.greeted(1)
	head := append([]byte(nil), l.nodes[0].chain.Network().Magic[:]...)
	head = append(head, "block\x00\x00\x00\x00\x00\x00\x00"...)
	head = append(head, 0x01, 0x09, 0x3d, 0x00, 1, 2, 3, 4) // 4,000,001 octets
	s.conn.Write(head)
	s.dropped()
	l.greeted(2).sync()
}

// CVE-2024-52912 of Core before 0.21: the time of a version message overflowed.
func TestAnyTimeInVersion(t *testing.T) {
	l := newLab(t, 1, memnet.Link{}, false)
	for i, at := range []int64{math.MinInt64, -1, 0, math.MaxInt32, math.MaxUint32, math.MaxInt64} {
		l.greeted(byte(i+1), func(v *wire.Version) { v.Time = at }).sync()
	}
	for _, p := range l.nodes[0].p2p.Peers() {
		if p.TimeOffset < -100*365*24*time.Hour || p.TimeOffset > 100*365*24*time.Hour {
			t.Errorf("time offset %v", p.TimeOffset)
		}
	}
}

// CVE-2024-52915 and others: an inv makes us ask once, whatever it holds.
func TestInvOfManyBlocksAsksOnce(t *testing.T) {
	l := newLab(t, 1, memnet.Link{}, false)
	l.mine(0, 1)
	s := l.greeted(1)
	expect[*wire.GetHeaders](s) // of the sync
	s.send(&wire.Headers{})
	items := make([]wire.Inventory, wire.MaxInv)
	for i := range items {
		items[i] = wire.Inventory{Type: wire.InvBlock, Hash: bitcoin.Hash{byte(i), byte(i >> 8), 9}}
	}
	s.send(&wire.Inv{Items: items})
	list := s.sync()
	if got := count[*wire.GetHeaders](list); got != 1 || count[*wire.GetData](list) != 0 {
		t.Errorf("%d getheaders, %d getdata", got, count[*wire.GetData](list))
	}
}

func TestGetDataOfWhatIsNotThere(t *testing.T) {
	l := newLab(t, 1, memnet.Link{}, false)
	l.mine(0, 1)
	s := l.greeted(1)
	items := make([]wire.Inventory, wire.MaxInv)
	for i := range items {
		items[i] = wire.Inventory{Type: wire.InvWTx, Hash: bitcoin.Hash{byte(i), byte(i >> 8), 9}}
	}
	s.send(&wire.GetData{Items: items})
	if m := expect[*wire.NotFound](s); len(m.Items) != wire.MaxInv {
		t.Errorf("%d not found", len(m.Items))
	}
	s.sync()
}

// One peer may tell of one address, then of one in ten seconds.
func TestAddressesAreLimited(t *testing.T) {
	l := newLab(t, 1, memnet.Link{}, false)
	s := l.greeted(1)
	addrs := make([]wire.KnownAddr, wire.MaxAddrs)
	for i := range addrs {
		addrs[i] = wire.KnownAddr{Time: uint32(time.Now().Unix()), Services: wire.ServiceNetwork,
			AddrPort: wire.AddrPortFrom(netip.AddrPortFrom(netip.AddrFrom4([4]byte{8, byte(i), byte(i >> 8), 1}), 8333))}
	}
	s.send(&wire.AddrV2Msg{Addrs: addrs})
	s.sync()
	p := l.nodes[0].p2p.Peers()[0]
	if p.AddrProcessed < 1 || p.AddrProcessed > 4 || p.AddrProcessed+p.AddrLimited != wire.MaxAddrs {
		t.Errorf("%d processed, %d limited", p.AddrProcessed, p.AddrLimited)
	}
}

// lowHeaders returns headers with proof of work that follow the genesis block.
func lowHeaders(net *bitcoin.Network, count int) []bitcoin.Header {
	list := make([]bitcoin.Header, count)
	prev := net.Genesis.Header
	for i := range list {
		list[i] = bitcoin.Header{Version: 4, PrevBlock: prev.Hash(), Time: prev.Time + 1, Bits: prev.Bits}
		chaintest.Solve(net, &list[i])
		prev = list[i]
	}
	return list
}

// Headers of a chain with too little work are not kept, however many come.
func TestLowWorkHeadersLeaveNoTrace(t *testing.T) {
	net := bitcoin.Regtest()
	l := newLab(t, 1, memnet.Link{}, false, func(cfg *p2p.Config) {
		cfg.MinimumWork = bitcoin.Work(net.Genesis.Header.Bits).MulUint32(100_000)
	})
	list := lowHeaders(net, wire.MaxHeaders+10)
	s := l.greeted(1)
	expect[*wire.GetHeaders](s)
	s.send(&wire.Headers{Headers: list[:wire.MaxHeaders]})
	m := expect[*wire.GetHeaders](s)
	if want := list[wire.MaxHeaders-1].Hash(); len(m.Hashes) == 0 || m.Hashes[0] != want {
		t.Error("not asked for what follows")
	}
	s.send(&wire.Headers{Headers: list[wire.MaxHeaders:]})
	s.sync()
	if best := l.nodes[0].chain.BestHeader(); best.Height != 0 {
		t.Errorf("a header of height %d was kept", best.Height)
	}
	if _, ok := l.nodes[0].chain.Lookup(list[0].Hash()); ok {
		t.Error("the first header was kept")
	}
}

// nextBlock returns a block that follows a node's tip, and is not given to it.
func (l *lab) nextBlock(i int) *bitcoin.Block {
	l.t.Helper()
	g := chaintest.New(l.t, l.nodes[i].chain.Network())
	b := g.Next("next")
	if b.Header.PrevBlock != l.nodes[i].chain.Tip().Hash {
		l.t.Fatal("the node is not at the genesis block")
	}
	return b
}

// A block that was tampered with says nothing of the one it was made of: that is still taken from others.
func TestMutatedBlockHindersNobody(t *testing.T) {
	l := newLab(t, 1, memnet.Link{}, false)
	good := l.nextBlock(0)
	tx := &good.Txs[0]
	bad := bitcoin.Block{Header: good.Header, Txs: []bitcoin.Tx{
		{Version: tx.Version, In: tx.In, Out: tx.Out, LockTime: tx.LockTime + 1}}}
	liar, honest := l.greeted(1), l.greeted(2)
	liar.send(&wire.Block{Block: &bad})
	liar.dropped()
	honest.send(&wire.Block{Block: good})
	honest.sync()
	l.expectTip(good.Hash(), l.nodes...)
}

// CVE-2024-35202: transactions for a compact block that came a second time ended the node.
func TestBlockTransactionsTwice(t *testing.T) {
	l := newLab(t, 1, memnet.Link{}, false)
	src := chain.Source{Requested: true, WorkChecked: true}
	g := chaintest.New(t, l.nodes[0].chain.Network())
	if _, err := l.nodes[0].chain.Add(context.Background(), g.Next("first"), src); err != nil {
		t.Fatal(err)
	}
	block := g.Next("second")
	s := l.greeted(1)
	m := wire.NewCmpctBlock(block, 1)
	m.Prefilled, m.ShortIDs = nil, make([]wire.ShortID, 1) // the coinbase is not told, and its id is wrong
	s.send(&wire.Headers{Headers: []bitcoin.Header{block.Header}})
	s.sync()
	s.send(m)
	s.sync()
	other := &bitcoin.Tx{Version: 2, In: []bitcoin.TxIn{{Script: []byte{1, 1}}}, Out: []bitcoin.TxOut{{Value: 1}}}
	answer := &wire.BlockTxn{Block: block.Hash(), Txs: []bitcoin.Tx{*other}}
	for range 3 {
		s.send(answer)
	}
	other2 := l.greeted(2)
	other2.send(&wire.Block{Block: block})
	other2.sync()
	l.expectTip(block.Hash(), l.nodes...)
}

func TestTransactionWhereNoneAreWanted(t *testing.T) {
	l := newLab(t, 1, memnet.Link{}, false, func(cfg *p2p.Config) { cfg.BlocksOnly = true })
	s := l.greeted(1)
	s.send(&wire.Inv{Items: []wire.Inventory{{Type: wire.InvWTx, Hash: bitcoin.Hash{1}}}})
	s.dropped()
}

// Whatever a peer sends, others are served.
func FuzzPeer(f *testing.F) {
	for _, m := range []wire.Message{&wire.Ping{Nonce: 1}, &wire.GetAddr{}, &wire.Headers{}, &wire.SendHeaders{},
		&wire.GetHeaders{}, &wire.SendCmpct{Announce: true, Version: 2}, &wire.FeeFilter{Rate: 1},
		&wire.GetBlockTxn{}, &wire.MemPool{}} {
		f.Add(m.Command(), m.Append(nil), m.Command(), m.Append(nil))
	}
	f.Fuzz(func(t *testing.T, first string, a []byte, second string, b []byte) {
		if len(first) > 12 || len(second) > 12 {
			return
		}
		l := newLab(t, 1, memnet.Link{}, false)
		s := l.greeted(1)
		s.send(&wire.Raw{Name: first, Payload: a}, &wire.Raw{Name: second, Payload: b})
		l.greeted(2).sync()
	})
}
