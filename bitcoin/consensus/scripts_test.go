package consensus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// manyChecks returns checks of transactions with so many inputs each, of which those in fail do not
// pass.
func manyChecks(txs, inputs int, fail map[[2]int]bool) []Check {
	var checks []Check
	for i := range txs {
		tx := &bitcoin.Tx{In: make([]bitcoin.TxIn, inputs), Out: make([]bitcoin.TxOut, 1)}
		spent := make([]bitcoin.TxOut, inputs)
		for j := range tx.In {
			tx.In[j].PrevOut.Index = uint32(1000*i + j)
			if spent[j].Script = opTrue; fail[[2]int{i, j}] {
				spent[j].Script = []byte{byte(script.OpReturn)}
			}
		}
		for from := 0; from < inputs; from += inputsPerCheck {
			checks = append(checks, Check{tx, spent, 0, from, min(from+inputsPerCheck, inputs)})
		}
	}
	return checks
}

// TestRunChecks: whatever the number of workers and whoever is faster, the first failing input is
// named.
func TestRunChecks(t *testing.T) {
	for _, row := range []struct {
		name  string
		fail  map[[2]int]bool
		index int // of the outpoint named, or -1
	}{
		{"none", nil, -1},
		{"one", map[[2]int]bool{{7, 3}: true}, 7003},
		{"several", map[[2]int]bool{{19, 0}: true, {2, 140}: true, {2, 139}: true, {3, 0}: true},
			2139},
		{"last", map[[2]int]bool{{19, 149}: true}, 19149},
		{"first", map[[2]int]bool{{0, 0}: true, {0, 149}: true, {19, 149}: true}, 0},
	} {
		checks := manyChecks(20, 150, row.fail)
		for _, workers := range []int{-1, 0, 1, 2, 7, 1000} {
			for range 20 {
				mine := slices.Clone(checks)
				err := RunChecks(context.Background(), workers, mine)
				clear(mine) // a worker that is still at it would race with this
				if row.index < 0 {
					expectError(t, err, 0, "")
					continue
				}
				expectError(t, err, KindConsensus, scriptFails+"(OP_RETURN was encountered)")
				if !strings.HasSuffix(err.Error(), fmt.Sprintf(":%d", row.index)) {
					t.Fatalf("%s, %d workers: %v, want outpoint %d",
						row.name, workers, err, row.index)
				}
			}
		}
	}
	if err := RunChecks(context.Background(), 3, nil); err != nil {
		t.Error(err)
	}
}

// TestRunChecksCancelled: a context that ends is no verdict on the block.
func TestRunChecksCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	checks := manyChecks(20, 10, map[[2]int]bool{{0, 0}: true})
	if err := RunChecks(ctx, 2, checks); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestScriptError has Core's explanation: which input of which transaction spends what.
func TestScriptError(t *testing.T) {
	checks := manyChecks(1, 3, map[[2]int]bool{{0, 2}: true})
	tx := checks[0].Tx
	tx.In[0].Witness = [][]byte{{1}} // sets the wtxid apart
	want := fmt.Sprintf("block-script-verify-flag-failed (OP_RETURN was encountered), input 2"+
		" of %v (wtxid %v), spending %064d:2", tx.TxID(), tx.WTxID(), 0)
	if err := RunChecks(context.Background(), 1, checks); err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}

// TestChecksCoverEveryInput of a block, each once.
func TestChecksCoverEveryInput(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 2)
	many := spendTo(g.take(), slicesRepeat(opTrue, 3*inputsPerCheck)...)
	var outs []output
	for i := range many.Out {
		outs = append(outs, outputOf(many, i))
	}
	all := spend(outs...)
	g.next("many", with(many, all, spend(outputOf(all, 0))))
	c, err := NewCandidate(g.net, g.on.block, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, diff, err := Connect(g.node.tip().state, c, g)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[bitcoin.OutPoint]int{}
	for _, check := range diff.Checks() {
		if len(check.Spent) != len(check.Tx.In) || check.To-check.From > inputsPerCheck {
			t.Errorf("inputs %d to %d of %d with %d coins",
				check.From, check.To, len(check.Tx.In), len(check.Spent))
		}
		for _, in := range check.Tx.In[check.From:check.To] {
			seen[in.PrevOut]++
		}
	}
	for _, in := range inputsOf(g.on.block) {
		if seen[in.PrevOut] != 1 {
			t.Errorf("input %v is in %d checks", in.PrevOut, seen[in.PrevOut])
		}
	}
	if len(seen) != diff.Undo.Len() {
		t.Errorf("%d inputs in checks, %d in the block", len(seen), diff.Undo.Len())
	}
}
