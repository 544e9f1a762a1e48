package chain

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/mempool"
)

func TestPackageEnters(t *testing.T) {
	s := newMature(t, 3)
	poor := chaintest.Spend(0, s.gen.Coinbase("m.0"))
	poor.Version = 3
	rich := chaintest.Spend(1000, s.gen.Coinbase("m.1"))
	child := chaintest.Spend(1000, chaintest.OutputOf(poor, 0))
	child.Version = 3
	ctx := context.Background()
	for _, row := range []struct {
		name   string
		test   bool
		txs    []*bitcoin.Tx
		want   string // "" if all is well
		states []PackageState
	}{
		{"in a test each must pay for itself", true, []*bitcoin.Tx{poor, child}, "transaction failed",
			[]PackageState{Refused, Unjudged}},
		{"strangers", false, []*bitcoin.Tx{rich, child}, "package-not-child-with-parents",
			[]PackageState{Unjudged, Unjudged}},
		{"one that pays nothing", false, []*bitcoin.Tx{poor}, "transaction failed",
			[]PackageState{Refused}},
		{"a child that pays", false, []*bitcoin.Tx{poor, child}, "", []PackageState{Accepted, Accepted}},
		{"again", false, []*bitcoin.Tx{poor, child}, "", []PackageState{Present, Present}},
	} {
		r, err := s.AddPackage(ctx, row.txs, PackageOptions{Test: row.test})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Err; (got == nil) != (row.want == "") || got != nil && got.Error() != row.want {
			t.Errorf("%s: got %v, want %q", row.name, got, row.want)
		}
		for i, want := range row.states {
			if r.Txs[i].State != want {
				t.Errorf("%s: transaction %d is %d, want %d", row.name, i, r.Txs[i].State, want)
			}
		}
	}
	s.Mempool(func(p *mempool.Pool, _ *consensus.State) {
		if p.Len() != 2 {
			t.Errorf("%d transactions, want 2", p.Len())
		}
	})
}

func TestMempoolOverRestart(t *testing.T) {
	s := newMature(t, 3)
	tx := chaintest.Spend(1000, s.gen.Coinbase("m.0"))
	child := chaintest.Spend(1000, chaintest.OutputOf(tx, 0))
	s.accept(tx, child)
	s.Mempool(func(p *mempool.Pool, _ *consensus.State) {
		p.MarkUnbroadcast(child.TxID())
		p.Prioritise(tx.TxID(), 500)
		p.Prioritise(bitcoin.Hash{7}, 9)
	})
	path := filepath.Join(t.TempDir(), "mempool.dat")
	s.must(s.SaveMempool(path, false))
	s.restart()
	all := ImportOptions{Deltas: true, Unbroadcast: true}
	s.must(s.LoadMempool(context.Background(), path, all))
	s.Mempool(func(p *mempool.Pool, _ *consensus.State) {
		e := p.Get(tx.TxID())
		if p.Len() != 2 || e == nil || e.ModifiedFee() != 1500 || p.Deltas()[bitcoin.Hash{7}] != 9 ||
			!p.Get(child.TxID()).Unbroadcast() {
			t.Error("the mempool is not as it was")
		}
	})
	if err := s.LoadMempool(context.Background(), path+".none", all); err == nil {
		t.Error("a file that is not there was read")
	}
	if err := s.SaveMempool(filepath.Join(path, "no", "directory"), false); err == nil {
		t.Error("written where nothing can be")
	}
}
