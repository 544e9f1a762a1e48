package chain

import (
	"context"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/mempool"
	"github.com/tallypost/tallypost/internal/clock"
)

// story is a chain that is fed by a generator.
type story struct {
	*chaintest.Gen
	*Chain
	t     testing.TB
	store *blockstore.Store
	clock *clock.Mock
}

func newStory(t testing.TB) *story {
	t.Helper()
	net := bitcoin.Regtest()
	store, err := blockstore.Open(blockstore.Config{Network: net})
	if err != nil {
		t.Fatal(err)
	}
	s := &story{Gen: chaintest.New(t, net), t: t, store: store,
		clock: clock.NewMock(time.Unix(1_400_000_000, 0))}
	cfg := Config{Network: net, Clock: s.clock}
	if s.Chain, err = New(cfg, store); err != nil {
		t.Fatal(err)
	}
	return s
}

// add takes a block in and wants no complaint.
func (s *story) add(names ...string) {
	s.t.Helper()
	for _, name := range names {
		_, err := s.Add(context.Background(), s.Gen.Block(name), Source{true, true})
		if err != nil {
			s.t.Fatalf("block %s: %v", name, err)
		}
	}
}

// headers takes the headers of blocks in.
func (s *story) headers(names ...string) {
	s.t.Helper()
	for _, name := range names {
		if _, err := s.AddHeaders([]bitcoin.Header{s.Gen.Block(name).Header}, true); err != nil {
			s.t.Fatalf("header %s: %v", name, err)
		}
	}
}

func (s *story) expectTip(name string) {
	s.t.Helper()
	if got := s.Name(s.Tip().Hash); got != name {
		s.t.Fatalf("tip is %s, want %s", got, name)
	}
}

// genesis -> a1 -> a2
//
//	\-> b1 -> b2 -> b3
func TestMoreWorkWins(t *testing.T) {
	s := newStory(t)
	s.Next("a1")
	s.Next("a2")
	s.add("a1", "a2")
	s.Goto("genesis")
	s.Next("b1")
	s.Next("b2")
	s.Next("b3")
	s.headers("b1", "b2")
	s.add("b2", "b1")
	s.expectTip("a2")
	s.add("b3")
	s.expectTip("b3")
}

func TestTransactionIsMined(t *testing.T) {
	s := newStory(t)
	for _, b := range s.Run("m", 101) {
		if _, err := s.Add(context.Background(), b, Source{true, true}); err != nil {
			t.Fatal(err)
		}
	}
	tx := chaintest.Spend(1000, s.Coinbase("m.0"))
	if _, err := s.AddTx(context.Background(), tx, TxOptions{}); err != nil {
		t.Fatal(err)
	}
	s.expectPool(1)
	s.Next("with", chaintest.With(tx))
	s.add("with")
	s.expectPool(0)
}

func (s *story) expectPool(n int) {
	s.t.Helper()
	s.Mempool(func(p *mempool.Pool, _ *consensus.State) {
		if p.Len() != n {
			s.t.Errorf("%d transactions in the mempool, want %d", p.Len(), n)
		}
	})
}
