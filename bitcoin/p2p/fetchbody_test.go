package p2p_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/p2p"
	"github.com/tallypost/tallypost/bitcoin/wire"
	"github.com/tallypost/tallypost/internal/memnet"
)

// TestFetchBody: a node that keeps headers alone has each block from its peers, whole, and keeps none of it.
func TestFetchBody(t *testing.T) {
	l := newLab(t, 2, memnet.Link{}, true)
	tip := l.mine(0, 300)
	l.expectTip(tip, l.nodes...)
	light := l.light("10.0.9.1", "10.0.0.1:18444", "10.0.1.1:18444")
	l.expectTip(tip, light)
	light.expectHeaders(t, 2, 300)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for height := bitcoin.Height(1); height <= 300; height += 23 {
		e, _ := light.chain.AtHeight(height)
		got, err := light.p2p.FetchBody(ctx, e)
		if err != nil {
			t.Fatalf("height %d: %v", height, err)
		}
		want, err := l.nodes[0].chain.RawBlock(e.Hash)
		if err != nil || !bytes.Equal(got.Append(nil), want) {
			t.Errorf("height %d: another block (%v)", height, err)
		}
		if _, err := light.chain.RawBlock(e.Hash); !errors.Is(err, chain.ErrNoData) {
			t.Errorf("height %d: it was kept: %v", height, err)
		}
	}
	for _, p := range light.p2p.Peers() {
		if p.BytesRecv == 0 {
			t.Errorf("peer %d gave nothing", p.ID)
		}
	}
	ended, end := context.WithCancel(ctx)
	end()
	e, _ := light.chain.AtHeight(300)
	if _, err := light.p2p.FetchBody(ended, e); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}

// TestFetchBodyNobody: who has only the last blocks is not asked for older ones, and who has none at all is
// not asked.
func TestFetchBodyNobody(t *testing.T) {
	l := newLab(t, 1, memnet.Link{}, true)
	tip := l.mine(0, 300)
	limited := l.add(netip.MustParseAddr("10.1.0.1"), p2p.Config{V2: true, Connect: []string{"10.0.0.1:18444"},
		Services: wire.ServiceNetworkLimited | wire.ServiceWitness}, chain.Config{})
	l.expectTip(tip, limited)
	light := l.light("10.0.9.1", "10.1.0.1:18444")
	l.expectTip(tip, light)
	light.expectHeaders(t, 1, 300)
	for _, c := range []struct {
		height bitcoin.Height
		err    error
	}{{300, nil}, {13, nil}, {12, p2p.ErrNoBlock}, {1, p2p.ErrNoBlock}} {
		e, _ := light.chain.AtHeight(c.height)
		if _, err := light.p2p.FetchBody(t.Context(), e); !errors.Is(err, c.err) {
			t.Errorf("height %d: %v, want %v", c.height, err, c.err)
		}
	}
}

// light adds a node that keeps headers alone.
func (l *lab) light(host string, to ...string) *labNode {
	return l.add(netip.MustParseAddr(host), p2p.Config{V2: true, BlocksOnly: true, Connect: to},
		chain.Config{HeadersOnly: true})
}
