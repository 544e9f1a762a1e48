package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// naiveConnect judges the coins of a block as one would by hand: transaction by transaction on a
// set that changes with each, as Bitcoin Core does. It returns the first wrong thing, and the set
// after the block.
func naiveConnect(
	s State, b *bitcoin.Block, before map[bitcoin.OutPoint]Coin,
) (after map[bitcoin.OutPoint]Coin, reason string) {
	height := s.Height + 1
	coins := maps.Clone(before)
	for i := range b.Txs {
		for j := range b.Txs[i].Out {
			if _, there := coins[outputOf(&b.Txs[i], j).OutPoint]; there {
				return nil, "bad-txns-BIP30"
			}
		}
	}
	var fees bitcoin.Amount
	for i := range b.Txs {
		tx := &b.Txs[i]
		var in, out bitcoin.Amount
		if i > 0 {
			for j := range tx.In {
				if _, there := coins[tx.In[j].PrevOut]; !there {
					return nil, "bad-txns-inputs-missingorspent"
				}
			}
			for j := range tx.In {
				coin := coins[tx.In[j].PrevOut]
				if coin.Coinbase && height-coin.Height < 100 {
					return nil, "bad-txns-premature-spend-of-coinbase"
				}
				in += coin.Out.Value
			}
		}
		for j := range tx.Out {
			out += tx.Out[j].Value
		}
		if i > 0 {
			if in < out {
				return nil, "bad-txns-in-belowout"
			}
			fees += in - out
			for j := range tx.In {
				coin := coins[tx.In[j].PrevOut]
				if tx.Version >= 2 && tx.In[j].Sequence < 1<<16 &&
					coin.Height+bitcoin.Height(tx.In[j].Sequence) > height {
					return nil, "bad-txns-nonfinal"
				}
			}
			for j := range tx.In {
				delete(coins, tx.In[j].PrevOut)
			}
		}
		for j := range tx.Out {
			s := tx.Out[j].Script
			if !bytes.HasPrefix(s, []byte{byte(script.OpReturn)}) && len(s) <= 10_000 {
				coins[outputOf(tx, j).OutPoint] = Coin{tx.Out[j], Origin{height, i == 0}}
			}
		}
	}
	var paid bitcoin.Amount
	for j := range b.Txs[0].Out {
		paid += b.Txs[0].Out[j].Value
	}
	if paid > fees+Subsidy(s.Network, height) {
		return nil, "bad-cb-amount"
	}
	return coins, ""
}

// randomTxs makes transactions that spend coins from the pool and each other's outputs, mostly
// rightly.
func randomTxs(r *rand.Rand, pool []output, immature output, mistakes float64) []*bitcoin.Tx {
	var txs []*bitcoin.Tx
	wrong := func() bool { return r.Float64() < mistakes }
	pick := func() output {
		at := r.IntN(len(pool))
		out := pool[at]
		if !wrong() { // else it is there to be spent again
			pool = append(pool[:at:at], pool[at+1:]...)
		}
		return out
	}
	for range r.IntN(12) {
		if len(pool) < 4 {
			break
		}
		tx := spend(pick())
		for range r.IntN(3) {
			more := pick()
			if spends(tx, more) {
				continue
			}
			tx.In = append(tx.In, bitcoin.TxIn{PrevOut: more.OutPoint, Sequence: 0xffffffff})
			tx.Out[0].Value += more.Value
		}
		if wrong() {
			tx.In[0].PrevOut.Index += uint32(r.IntN(3))
		}
		if wrong() {
			tx.Out[0].Value += bitcoin.Amount(r.IntN(3))
		}
		if wrong() {
			tx.In = append(tx.In, bitcoin.TxIn{PrevOut: immature.OutPoint, Sequence: 0xffffffff})
		}
		if r.IntN(3) == 0 || wrong() {
			tx.Version = 2
			tx.In[0].Sequence = uint32(r.IntN(2))
			if wrong() {
				tx.In[0].Sequence = uint32(r.IntN(10))
			}
		}
		tx.LockTime = uint32(r.IntN(100)) // for another txid, should the inputs come again
		for range r.IntN(4) {
			value := tx.Out[0].Value / 2
			tx.Out[0].Value -= value
			tx.Out = append(tx.Out, bitcoin.TxOut{Value: value, Script: opTrue})
		}
		if r.IntN(4) == 0 {
			tx.Out = append(tx.Out, bitcoin.TxOut{Script: []byte{byte(script.OpReturn)}})
		}
		if r.IntN(30) == 0 {
			tx.Out = append(tx.Out, bitcoin.TxOut{Script: make([]byte, 10_001)})
		}
		txs = append(txs, tx)
		for j := range tx.Out {
			if tx.Out[j].Value > 0 || wrong() {
				pool = append(pool, outputOf(tx, j))
			}
		}
	}
	if len(txs) > 1 && wrong() {
		i, j := r.IntN(len(txs)), r.IntN(len(txs))
		txs[i], txs[j] = txs[j], txs[i]
	}
	return txs
}

func spends(tx *bitcoin.Tx, out output) bool {
	for i := range tx.In {
		if tx.In[i].PrevOut == out.OutPoint {
			return true
		}
	}
	return false
}

// TestAgainstModel gives random blocks, right and wrong ones, to Connect and to the naive model:
// both must give the same reason, or the same coins. Taking a block back must give the coins of
// before.
func TestAgainstModel(t *testing.T) {
	reasons := map[string]int{}
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 3))
		g := newMature(t, bitcoin.Regtest(), 20)
		for round := range 60 {
			var pool []output
			for out, coin := range g.coins {
				if !coin.Coinbase || g.on.height+1-coin.Height >= CoinbaseMaturity {
					pool = append(pool, output{out, coin.Out})
				}
			}
			// A map has no order that a seed could repeat.
			slices.SortFunc(pool, func(a, b output) int {
				return bytes.Compare(a.OutPoint.Append(nil), b.OutPoint.Append(nil))
			})
			immature := g.out(g.on.block, 0, 0)
			txs := randomTxs(r, pool, immature, []float64{0, 0.03}[r.IntN(2)])
			b := g.next(fmt.Sprint(seed, ".", round), with(txs...), func(d *draft) {
				fees(d, bitcoin.Amount(r.IntN(2)*r.IntN(2)))
			})
			before := maps.Clone(g.coins)
			want, reason := naiveConnect(g.node.tip().state, b.block, before)
			reasons[reason]++
			err := g.submit(b.block)
			var e *Error
			if errors.As(err, &e) && e.Reason == "bad-txns-inputs-duplicate" {
				g.goTo(g.parent(b).name)
				continue // of which the model knows nothing
			}
			expectError(t, err, KindConsensus, reason)
			if reason != "" {
				want = before
				g.goTo(g.parent(b).name)
			}
			if !equalCoins(g.coins, want) {
				t.Fatalf("block %s (%q) leaves other coins than in the model", b.name, reason)
			}
			if reason == "" && r.IntN(3) == 0 {
				g.node.tip().failed = true
				g.disconnect()
				if !equalCoins(g.coins, before) {
					t.Fatalf("taking back block %s does not restore the coins", b.name)
				}
				g.goTo(g.parent(b).name)
			}
			if t.Failed() {
				t.Fatalf("seed %d, round %d", seed, round)
			}
		}
	}
	for _, reason := range []string{"", "bad-txns-inputs-missingorspent",
		"bad-txns-premature-spend-of-coinbase", "bad-txns-in-belowout", "bad-txns-nonfinal",
		"bad-cb-amount"} {
		if reasons[reason] == 0 {
			t.Errorf("no random block gives %q: %v", reason, reasons)
		}
	}
}

func equalCoins(a, b map[bitcoin.OutPoint]Coin) bool {
	return maps.EqualFunc(a, b, func(x, y Coin) bool { return x.equal(&y.Out, y.Origin) })
}
