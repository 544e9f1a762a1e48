package p2p_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/miner"
	"github.com/tallypost/tallypost/bitcoin/p2p"
	"github.com/tallypost/tallypost/bitcoin/wire"
	"github.com/tallypost/tallypost/internal/memnet"
)

// lab is a network of nodes in memory, which end with the test.
type lab struct {
	t       testing.TB
	net     *memnet.Network
	nodes   []*labNode
	ctx     context.Context
	running sync.WaitGroup
	stores  []*blockstore.Store
}

type labNode struct {
	host  netip.Addr
	chain *chain.Chain
	p2p   *p2p.Node
}

// newLab runs so many nodes, each of which is told of the one before it and of a few others.
func newLab(t testing.TB, count int, link memnet.Link, v2 bool, set ...func(*p2p.Config)) *lab {
	t.Helper()
	l := &lab{t: t, net: memnet.New(memnet.Config{Seed: 1, Link: link})}
	ctx, cancel := context.WithCancel(context.Background())
	l.ctx = ctx
	t.Cleanup(func() {
		cancel()
		l.running.Wait()
		for _, s := range l.stores {
			s.Close()
		}
	})
	links := make([]map[int]bool, count)
	for i := range count {
		links[i] = make(map[int]bool)
		cfg := p2p.Config{V2: v2,
			Services: wire.ServiceNetwork | wire.ServiceWitness | wire.ServiceNetworkLimited}
		for _, j := range []int{i - 1, i / 2, i - 3} {
			if j >= 0 && j < i {
				cfg.Connect = append(cfg.Connect, fmt.Sprintf("10.0.%d.1:18444", j))
				links[i][j], links[j][i] = true, true
			}
		}
		for _, f := range set {
			f(&cfg)
		}
		l.nodes = append(l.nodes, l.add(netip.AddrFrom4([4]byte{10, 0, byte(i), 1}), cfg, chain.Config{}))
	}
	for i, n := range l.nodes {
		l.await(func() bool { return n.talking() >= len(links[i]) }, func() string {
			return fmt.Sprintf("%v has %d peers, want %d", n.host, n.talking(), len(links[i]))
		})
	}
	return l
}

// talking returns how many peers have answered a ping: only who is past the handshake is told of new blocks, and
// with an old tip a node asks nobody by itself but the first of its peers, which may know as little.
func (n *labNode) talking() (count int) {
	for _, p := range n.p2p.Peers() {
		if p.Ping > 0 {
			count++
		}
	}
	return count
}

// add runs a node at an address.
func (l *lab) add(host netip.Addr, cfg p2p.Config, rules chain.Config) *labNode {
	l.t.Helper()
	n := &labNode{host: host}
	if rules.Network == nil {
		rules.Network = bitcoin.Regtest()
	}
	store, err := blockstore.Open(blockstore.Config{Network: rules.Network})
	if err != nil {
		l.t.Fatal(err)
	}
	l.stores = append(l.stores, store)
	if n.chain, err = chain.New(rules, store); err != nil {
		l.t.Fatal(err)
	}
	listener, err := l.net.Host(host).Listen(18444)
	if err != nil {
		l.t.Fatal(err)
	}
	cfg.Chain, cfg.Listen = n.chain, []p2p.Listen{{Listener: listener}}
	cfg.Dial, cfg.ConnectOnly, cfg.UserAgent = l.net.Host(host).DialContext, true, "/lab/"
	n.p2p = p2p.New(cfg)
	l.running.Go(func() { n.p2p.Run(l.ctx) })
	return n
}

// mine makes blocks on a node, for a key of its own so that branches differ.
func (l *lab) mine(i, count int) bitcoin.Hash {
	l.t.Helper()
	c := l.nodes[i].chain
	for range count {
		now := time.Now()
		tmpl, err := miner.NewTemplate(c, miner.Options{Coinbase: []byte{0x51, byte(i) + 1, 0x75}[:1]}, now)
		if err != nil {
			l.t.Fatal(err)
		}
		tmpl.Block.Txs[0].In[0].Script = append(tmpl.Block.Txs[0].In[0].Script, 1, byte(i))
		tmpl.Commit(c.Network())
		tries := uint64(1 << 20)
		if !miner.Solve(context.Background(), c.Network(), &tmpl.Block.Header, &tries) {
			l.t.Fatal("no proof of work found")
		}
		b, err := bitcoin.ParseBlock(tmpl.Block.Append(nil))
		if err != nil {
			l.t.Fatal(err)
		}
		src := chain.Source{Requested: true, WorkChecked: true}
		if outcome, err := c.Add(context.Background(), b, src); err != nil || outcome != chain.Connected {
			l.t.Fatalf("block of our own: %v, %v", outcome, err)
		}
	}
	return c.Tip().Hash
}

// expectTip waits until all of the nodes have the tip.
func (l *lab) expectTip(want bitcoin.Hash, nodes ...*labNode) {
	l.t.Helper()
	for _, n := range nodes {
		l.await(func() bool { return n.chain.Tip().Hash == want }, func() string {
			tip := n.chain.Tip()
			return fmt.Sprintf("node %v is at %d %v, want %v", n.host, tip.Height, tip.Hash, want)
		})
	}
}

// await waits until something is so; else tells how things are.
func (l *lab) await(is func() bool, how func() string) {
	l.t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatal(how())
		}
	}
}

func TestTwoNodesSync(t *testing.T) {
	for _, v2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("v2=%v", v2), func(t *testing.T) {
			l := newLab(t, 2, memnet.Link{}, v2)
			l.expectTip(l.mine(0, 40), l.nodes...)
			l.expectTip(l.mine(1, 3), l.nodes...)
			for _, p := range l.nodes[1].p2p.Peers() {
				if p.V2 != v2 || p.UserAgent != "/lab/" {
					t.Errorf("peer %+v", p)
				}
			}
		})
	}
}

func TestFiveNodesWithLatencyAndLoss(t *testing.T) {
	l := newLab(t, 5, memnet.Link{Latency: 5 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.01}, true)
	l.expectTip(l.mine(2, 30), l.nodes...)
	l.expectTip(l.mine(4, 5), l.nodes...)
}

func TestTwentyNodes(t *testing.T) {
	l := newLab(t, 20, memnet.Link{Latency: time.Millisecond}, false)
	l.expectTip(l.mine(7, 10), l.nodes...)
	l.expectTip(l.mine(19, 1), l.nodes...)
}

// Two halves that cannot reach each other mine apart; healed, the one with less work gives in.
func TestPartitionHeals(t *testing.T) {
	l := newLab(t, 4, memnet.Link{Latency: time.Millisecond}, false)
	l.expectTip(l.mine(0, 5), l.nodes...)
	var left, right []netip.Addr
	for i, n := range l.nodes {
		if i < 2 {
			left = append(left, n.host)
		} else {
			right = append(right, n.host)
		}
	}
	l.net.Partition(left, right)
	l.expectTip(l.mine(0, 2), l.nodes[:2]...)
	best := l.mine(3, 4)
	l.expectTip(best, l.nodes[2:]...)
	l.net.Heal()
	l.expectTip(best, l.nodes...)
}
