package p2p_test

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/p2p"
	"github.com/tallypost/tallypost/bitcoin/wire"
	"github.com/tallypost/tallypost/internal/memnet"
)

// dump writes the coins of a node's tip, and returns them with what a network would say of them.
func (n *labNode) dump(t *testing.T) (file []byte, known bitcoin.Snapshot) {
	t.Helper()
	coins, err := n.chain.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	sum, err := coins.Dump(t.Context(), &b)
	if err := errors.Join(err, coins.Close()); err != nil {
		t.Fatal(err)
	}
	tip := n.chain.Tip()
	return b.Bytes(), bitcoin.Snapshot{Height: tip.Height, Block: tip.Hash, CoinsHash: sum.Hash,
		ChainTxs: tip.ChainTxs}
}

// TestSyncFromSnapshot: a node that begins at a snapshot fetches what follows it and what comes before, offers
// no old blocks until it has these, and then all.
func TestSyncFromSnapshot(t *testing.T) {
	l := newLab(t, 1, memnet.Link{}, true)
	l.mine(0, 60)
	file, known := l.nodes[0].dump(t)
	best := l.mine(0, 20)

	net := *bitcoin.Regtest()
	net.Snapshots = []bitcoin.Snapshot{known}
	all := wire.ServiceNetwork | wire.ServiceWitness | wire.ServiceNetworkLimited
	n := l.add(netip.MustParseAddr("10.9.0.1"), p2p.Config{V2: true, Services: all}, chain.Config{Network: &net})
	l.running.Go(func() { n.chain.Run(l.ctx) })
	for _, e := range l.nodes[0].chain.Path(best, 1, 100) {
		if _, err := n.chain.AddHeaders([]bitcoin.Header{e.Header}, true); err != nil {
			t.Fatal(err)
		}
	}
	r := bytes.NewReader(file)
	head, err := blockstore.ReadSnapshotHead(r, &net)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.chain.LoadSnapshot(t.Context(), head, r); err != nil {
		t.Fatal(err)
	}
	if s := n.p2p.Services(); s.Has(wire.ServiceNetwork) || !s.Has(wire.ServiceNetworkLimited) {
		t.Errorf("services %v", s)
	}
	between := p2p.Config{V2: true, Services: all, Connect: []string{"10.0.0.1:18444", "10.9.0.1:18444"}}
	l.add(netip.MustParseAddr("10.9.0.2"), between, chain.Config{})
	l.expectTip(best, n)
	for deadline := time.Now().Add(time.Minute); n.chain.BackgroundSync(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			tip, _, _ := n.chain.Background()
			t.Fatalf("the history is at %d", tip.Height)
		}
	}
	if s := n.p2p.Services(); !s.Has(wire.ServiceNetwork) {
		t.Errorf("services %v afterwards", s)
	}
	late := p2p.Config{V2: true, Services: all, Connect: []string{"10.9.0.1:18444"}}
	l.expectTip(best, l.add(netip.MustParseAddr("10.9.0.3"), late, chain.Config{}))
}
