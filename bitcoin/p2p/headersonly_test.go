package p2p_test

import (
	"net/netip"
	"testing"

	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/p2p"
	"github.com/tallypost/tallypost/internal/memnet"
)

// TestHeadersOnly: a node that keeps headers alone follows the others, and asks for no block.
func TestHeadersOnly(t *testing.T) {
	l := newLab(t, 2, memnet.Link{}, true)
	l.expectTip(l.mine(0, 40), l.nodes...)
	light := l.add(netip.MustParseAddr("10.0.9.1"), p2p.Config{V2: true, BlocksOnly: true,
		Connect: []string{"10.0.0.1:18444", "10.0.1.1:18444"}}, chain.Config{HeadersOnly: true})
	all := append([]*labNode{light}, l.nodes...)
	l.expectTip(l.nodes[0].chain.Tip().Hash, all...)
	l.expectTip(l.mine(1, 3), all...) // and what is announced later
	for _, p := range light.p2p.Peers() {
		if n := p.RecvPer["block"] + p.RecvPer["cmpctblock"]; n != 0 {
			t.Errorf("%d octets of blocks from %v", n, p.Addr)
		}
	}
	if e, err := light.chain.Block(light.chain.Tip().Hash); err == nil {
		t.Errorf("the node has block %v", e.Hash())
	}
}
