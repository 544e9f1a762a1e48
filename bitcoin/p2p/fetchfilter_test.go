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

// filtersOf serves filters that are made of the block hash and a word: what is in them does not matter to
// who asks for them.
type filtersOf struct {
	word string // of the filter
	says string // of which the hash is given
}

func (f filtersOf) Filter(h bitcoin.Hash) ([]byte, bool) {
	return append([]byte(f.word), h[:]...), true
}
func (f filtersOf) FilterHash(h bitcoin.Hash) (bitcoin.Hash, bool) {
	return bitcoin.DoubleHash(append([]byte(f.says), h[:]...)), true
}
func (f filtersOf) FilterHeader(h bitcoin.Hash) (bitcoin.Hash, bool) {
	return bitcoin.DoubleHash(append([]byte("header "+f.says), h[:]...)), true
}

// TestFetchFilter asks one, two and three peers, some of which lie.
func TestFetchFilter(t *testing.T) {
	truth := filtersOf{"true", "true"}
	for _, c := range []struct {
		name    string
		servers []p2p.Filters
		peers   int
		err     error
	}{
		{"nobody serves", []p2p.Filters{nil, nil}, 0, p2p.ErrNoFilters},
		{"one", []p2p.Filters{nil, truth}, 1, nil},
		{"three", []p2p.Filters{truth, truth, truth}, 3, nil},
		{"one lies about the hash", []p2p.Filters{truth, filtersOf{"false", "false"}}, 0, p2p.ErrDisagree},
		{"one gives another filter", []p2p.Filters{filtersOf{"false", "true"}, truth}, 2, nil},
		{"the only one gives another filter", []p2p.Filters{filtersOf{"false", "true"}}, 0, p2p.ErrNoFilters},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, 1, memnet.Link{}, true)
			tip := l.mine(0, 3)
			for i, f := range c.servers {
				s := l.join(netip.AddrFrom4([4]byte{10, 1, byte(i), 1}), f, "10.0.0.1:18444")
				l.expectTip(tip, s)
			}
			var addrs []string
			for i := range c.servers {
				addrs = append(addrs, netip.AddrFrom4([4]byte{10, 1, byte(i), 1}).String()+":18444")
			}
			asker := l.join(netip.MustParseAddr("10.2.0.1"), nil, addrs...)
			l.expectTip(tip, asker)
			asker.expectHeaders(t, len(c.servers), 3)
			e, _ := asker.chain.Lookup(tip)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			got, err := asker.p2p.FetchFilter(ctx, e)
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if c.err != nil {
				return
			}
			filter, _ := truth.Filter(tip)
			hash, _ := truth.FilterHash(tip)
			prev, _ := truth.FilterHeader(e.Header.PrevBlock)
			header := bitcoin.DoubleHash(append(hash[:], prev[:]...))
			if !bytes.Equal(got.Filter, filter) || got.Header != header || got.Peers != c.peers {
				t.Errorf("got %q, header %v, %d peers", got.Filter, got.Header, got.Peers)
			}
		})
	}
}

// expectHeaders waits until so many peers are known to have the header at a height.
func (n *labNode) expectHeaders(t *testing.T, peers int, height bitcoin.Height) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		have := 0
		for _, p := range n.p2p.Peers() {
			if p.SyncedHeaders >= height {
				have++
			}
		}
		if have >= peers {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d peers are known to have the header", have, peers)
		}
	}
}

// join adds a node that serves filters, if there are any, and connects to the others.
func (l *lab) join(host netip.Addr, filters p2p.Filters, to ...string) *labNode {
	services := wire.ServiceNetwork | wire.ServiceWitness | wire.ServiceNetworkLimited
	if filters != nil {
		services |= wire.ServiceCompactFilters
	}
	return l.add(host, p2p.Config{Filters: filters, Services: services, Connect: to, V2: true}, chain.Config{})
}
