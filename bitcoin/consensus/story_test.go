package consensus

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// The stories of Bitcoin Core's feature_block.py, told anew: each begins on a fresh chain with
// coinbases that may be spent. In the drawings, (n) is a block that spends coinbase n.

// fees lets the coinbase take the whole of what the block's transactions leave, and more.
func fees(d *draft, amount bitcoin.Amount) { d.Txs[0].Out[0].Value += amount }

func TestReorganisation(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 10)
	out := g.spare
	next := func(name string, coinbase int) { g.next(name, with(spend(out[coinbase]))) }

	//	1 (0) -> 2 (1)
	//	     \-> 3 (1)    the first seen wins
	next("1", 0)
	g.accept()
	next("2", 1)
	g.accept()
	g.goTo("1")
	g.next("3", with(spendTo(out[1], opTrue)))
	g.side()
	onlyIn3 := g.out(g.on.block, 1, 1)

	//	1 (0) -> 2 (1) -> 5 (2) -> 6 (3)
	//	     \-> 3 (1) -> 4 (2)
	next("4", 2)
	g.accept()
	g.goTo("2")
	next("5", 2)
	g.side()
	g.expectTip("4")
	next("6", 3)
	g.accept()

	//	5 (2) -> 6 (3)
	//	     \-> 7 (2) -> 8 (4)    spends again what 5 has spent
	g.goTo("5")
	g.next("7", with(spendTo(out[2], opTrue)))
	g.side()
	next("8", 4)
	expectError(t, g.submit(g.on.block), KindConsensus, "bad-txns-inputs-missingorspent")
	g.expectTip("6")
	next("8a", 5)
	expectError(t, g.submit(g.on.block), KindInvalidPrev, "bad-prevblk")

	//	5 (2) -> 6 (3)
	//	     \-> 12 (3) -> 13 (4) -> 14 (5, pays itself too much)
	g.goTo("5")
	next("12", 3)
	g.side()
	first := *g.on
	next("13", 4)
	second := *g.on
	g.next("14", with(spend(out[5])), func(d *draft) { fees(d, 1) })
	third := *g.on
	fresh := g.index
	for _, b := range []named{third, second} { // they come before their parents
		delete(fresh, b.block.Hash())
		delete(fresh, first.block.Hash())
		expectError(t, g.submit(b.block), KindMissingPrev, "prev-blk-not-found")
	}
	if err := g.submit(first.block); err != nil {
		t.Fatal(err)
	}
	if err := g.submit(second.block); err != nil {
		t.Fatal(err)
	}
	g.expectTip("13")
	expectError(t, g.submit(third.block), KindConsensus, "bad-cb-amount")
	g.expectTip("13")

	//	13 -> 17 (an output of 3)
	//	  \-> 18 (an output of 3) -> 19 (5)
	g.goTo("13")
	g.next("17", with(spend(onlyIn3)))
	g.reject(KindConsensus, "bad-txns-inputs-missingorspent")
	g.goTo("12")
	g.next("18", with(spend(onlyIn3)))
	g.side()
	next("19", 5)
	expectError(t, g.submit(g.on.block), KindConsensus, "bad-txns-inputs-missingorspent")
	g.expectTip("13")

	//	13 -> 37 (an output, and the same again)
	//	  \-> 38 (what 37 made of it)
	g.goTo("13")
	g.next("37", with(spend(out[6]), spendTo(out[6], opTrue)))
	of37 := g.out(g.on.block, 1, 0)
	g.reject(KindConsensus, "bad-txns-inputs-missingorspent")
	g.next("38", with(spend(of37)))
	g.reject(KindConsensus, "bad-txns-inputs-missingorspent")
}

func TestImmatureCoinbase(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 3)
	young := g.out(g.blocks["mature.3"].block, 0, 0) // 99 deep in the next block
	g.next("99 deep", with(spend(young)))
	g.reject(KindConsensus, "bad-txns-premature-spend-of-coinbase")
	g.next("between")
	g.accept()
	g.next("100 deep", with(spend(young)))
	g.accept()

	// On a fork that is one block shorter the same coinbase is too young again.
	g.goTo("mature.101")
	g.next("fork", with(spend(young)))
	g.side()
	g.next("fork.1")
	g.side()
	g.next("fork.2")
	expectError(t, g.submit(g.on.block), KindConsensus, "bad-txns-premature-spend-of-coinbase")
	g.expectTip("100 deep")
}

// TestFutureBlock: a block from the future is refused, and welcome when its time has come.
func TestFutureBlock(t *testing.T) {
	g := newGenerator(t, bitcoin.Regtest())
	g.next("early", func(d *draft) { d.Header.Time = uint32(g.now.Add(3 * time.Hour).Unix()) })
	expectError(t, g.submit(g.on.block), KindTimeFuture, "time-too-new")
	g.now = g.now.Add(time.Hour)
	g.accept()
}

// TestMedianTime: eleven blocks long a time may go back to just after the median.
func TestMedianTime(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 1)
	median := g.node.tip().state.MedianTimePast()
	g.next("at the median", func(d *draft) { d.Header.Time = median })
	g.reject(KindInvalidHeader, "time-too-old")
	g.next("after it", func(d *draft) { d.Header.Time = median + 1 })
	g.accept()
}

// TestSpendWithinBlock: chains of spends inside a block leave nothing but their ends.
func TestSpendWithinBlock(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 2)
	before := len(g.coins)
	first := spendTo(g.take(), opTrue, []byte{byte(script.OpReturn)})
	second := spend(outputOf(first, 0))
	third := spend(outputOf(second, 0), outputOf(first, 1))
	g.next("chain", with(first, second, third))
	g.accept()
	if got := len(g.coins) - before; got != 1 { // the coinbase's, and one for one
		t.Errorf("%d more coins", got)
	}
	if _, there := g.coins[outputOf(third, 0).OutPoint]; !there {
		t.Error("the end of the chain is no coin")
	}
	if n := g.node.tip().undo.Len(); n != 4 {
		t.Errorf("undo data of %d inputs, want 4", n)
	}
}

// TestDeadCode: invalid operations that are not run do no harm, nor do outputs that nobody can
// spend.
func TestDeadCode(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 3)
	dead := new(script.Builder).Op(script.OpIf).Raw([]byte{0xff}).
		Op(script.OpElse, script.Op1, script.OpEndIf)
	tx := spendTo(g.take(), dead.Script())
	claim := spend(outputOf(tx, 1))
	claim.In[0].Script = []byte{byte(script.Op0)}
	g.next("not run", with(tx, claim))
	g.accept()
	tx = spendTo(g.take(), dead.Script())
	claim = spend(outputOf(tx, 1))
	claim.In[0].Script = []byte{byte(script.Op1)}
	g.next("run", with(tx, claim))
	g.reject(KindConsensus, "block-script-verify-flag-failed (Opcode missing or not understood)")

	data := []byte{byte(script.OpReturn)}
	tx = spendTo(g.out(g.blocks["not run"].block, 1, 0), data, data, opTrue, opTrue)
	g.next("84", with(tx, spendTo(outputOf(tx, 0), data), spend(outputOf(tx, 3))))
	g.accept()
	g.goTo("not run")
	g.next("85")
	g.side()
	g.next("86")
	g.accept()
	g.goTo("84")
	g.next("87")
	g.side()
	g.next("88")
	g.accept()
	g.next("89", with(spend(outputOf(tx, 1))))
	g.reject(KindConsensus, "bad-txns-inputs-missingorspent")
}

// TestLongReorganisation goes from one branch to another and back over some hundred full-grown
// blocks.
func TestLongReorganisation(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 3)
	const length = 150
	from := g.on.name
	for _, branch := range []string{"a", "b"} {
		g.goTo(from)
		last := g.spare[0]
		for i := range length {
			tx := spendTo(last, opTrue, bytes.Repeat([]byte{0}, 5000))
			inner := spend(outputOf(tx, 0), outputOf(tx, 1))
			last = outputOf(inner, 0)
			g.next(fmt.Sprint(branch, i), with(tx, inner))
			if branch == "a" {
				g.accept()
			} else {
				g.side()
			}
		}
	}
	g.next("b on top")
	g.accept()
	g.goTo(fmt.Sprint("a", length-1))
	g.next("a on top")
	g.side()
	g.next("a wins")
	g.accept()
}
