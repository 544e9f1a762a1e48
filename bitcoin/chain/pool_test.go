package chain

import (
	"context"
	"errors"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
	"github.com/tallypost/tallypost/bitcoin/mempool"
)

func TestTransactionIsMined(t *testing.T) {
	s := newMature(t, 2)
	tx := chaintest.Spend(1000, s.gen.Coinbase("m.0"))
	child := chaintest.Spend(1000, chaintest.OutputOf(tx, 0))
	rival := chaintest.Spend(500, s.gen.Coinbase("m.1"))
	s.accept(tx, child, rival)
	other := chaintest.Spend(400, s.gen.Coinbase("m.1"))
	s.gen.Next("with", chaintest.With(tx, other))
	s.add("with")
	s.expectPool(child) // tx was mined, rival spends what other has spent
}

//	m.102 -> a1 (tx, child) -> a2 (late)
//	     \-> b1 (tx)        -> b2        -> b3
//
// child and late come back; what spends a coinbase of the old branch does not.
func TestTransactionsComeBackInReorganization(t *testing.T) {
	s := newMature(t, 3)
	tx := chaintest.Spend(1000, s.gen.Coinbase("m.0"))
	child := chaintest.Spend(1000, chaintest.OutputOf(tx, 0))
	late := chaintest.Spend(2000, s.gen.Coinbase("m.1"))
	grandchild := chaintest.Spend(1000, chaintest.OutputOf(child, 0))
	s.gen.Next("a1", chaintest.With(tx, child))
	s.gen.Next("a2", chaintest.With(late))
	s.add("a1", "a2")
	s.accept(grandchild)
	s.gen.Goto("m.102")
	s.gen.Next("b1", chaintest.With(tx))
	s.next("b2", "b3")
	s.add("b1", "b2")
	s.expectPool(grandchild)
	s.add("b3")
	s.expectPool(child, grandchild, late)
	s.gen.Next("b4", chaintest.With(child, grandchild, late))
	s.add("b4")
	s.expectPool()
	s.invalidate("b1")
	s.expectTip("a2")
	s.expectPool(grandchild)
}

// A coin of height h may be spent in block h+100. Going back makes the spend premature.
func TestImmatureSpendLeavesThePool(t *testing.T) {
	s := newMature(t, 1)
	tx := chaintest.Spend(1000, s.gen.Coinbase("m.2"))
	_, err := s.AddTx(context.Background(), tx, TxOptions{})
	expectRefused(t, err, mempool.PrematureSpend, "bad-txns-premature-spend-of-coinbase")
	s.next("last")
	s.add("last")
	s.accept(tx)
	s.invalidate("last")
	s.expectPool()
}

// The script of a transaction that the pool has verified is not run again in a block. It must be
// noticed all the same where a block has another witness for it.
func TestWitnessOfABlockIsChecked(t *testing.T) {
	s := newMature(t, 1)
	s.accept(chaintest.Spend(1000, s.gen.Coinbase("m.0")))
	s.gen.Next("bad", chaintest.With(unlock(1000, s.gen.Coinbase("m.0"))))
	s.reject("bad", "block-script-verify-flag-failed (Witness program hash mismatch)")
}

func TestCoinWithMempool(t *testing.T) {
	s := newMature(t, 1)
	out := s.gen.Coinbase("m.0")
	tx := chaintest.Spend(1000, out)
	s.accept(tx)
	for _, row := range []struct {
		out     bitcoin.OutPoint
		mempool bool
		height  bitcoin.Height // 0: no coin
	}{
		{out.OutPoint, false, 1},
		{out.OutPoint, true, 0},
		{bitcoin.OutPoint{TxID: tx.TxID()}, false, 0},
		{bitcoin.OutPoint{TxID: tx.TxID()}, true, 102},
		{bitcoin.OutPoint{TxID: tx.TxID(), Index: 1}, true, 0},
	} {
		coin, err := s.Coin(row.out, row.mempool)
		if err != nil || coin.Height != row.height {
			t.Errorf("%v:%d with mempool %v: height %d, %v", row.out.TxID, row.out.Index, row.mempool,
				coin.Height, err)
		}
	}
}

func expectRefused(t *testing.T, err error, kind mempool.Kind, reason string) {
	t.Helper()
	var e *mempool.Error
	if !errors.As(err, &e) || e.Kind != kind || e.Reason != reason {
		t.Errorf("error %v, want %s of kind %d", err, reason, kind)
	}
}
