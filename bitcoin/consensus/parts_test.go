package consensus

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
)

// TestOutpoints compares the table with a map, many outpoints of one transaction among them.
func TestOutpoints(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for _, n := range []int{0, 1, 2, 3, 100, 5000} {
		table, positions := newOutpoints(n), map[bitcoin.OutPoint]int{}
		for len(positions) < n {
			out := bitcoin.OutPoint{Index: uint32(r.IntN(n))}
			out.TxID[5] = byte(r.IntN(3))
			want, there := positions[out]
			if table.find(&out) >= 0 != there {
				t.Fatalf("find %v: %v", out, !there)
			}
			got, fresh := table.add(&out)
			if !there {
				want = len(positions)
				positions[out] = want
			}
			if got != want || fresh == there {
				t.Fatalf("add %v: %d, %v; want %d", out, got, fresh, want)
			}
		}
		for i, out := range table.list {
			if positions[out] != i {
				t.Fatalf("position %d: %v", i, out)
			}
		}
	}
}

// TestSpendsTwice compares both ways of looking with a map.
func TestSpendsTwice(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for range 2000 {
		ins := make([]bitcoin.TxIn, 1+r.IntN(40))
		seen, want := map[bitcoin.OutPoint]bool{}, false
		for i := range ins {
			ins[i].PrevOut.Index = uint32(r.IntN(len(ins) * len(ins)))
			want = want || seen[ins[i].PrevOut]
			seen[ins[i].PrevOut] = true
		}
		if spendsTwice(ins) != want {
			t.Fatalf("%v: %v", ins, !want)
		}
	}
}

// TestSources has a block with one transaction twice. It cannot be valid, but what comes after is
// resolved rightly.
func TestSources(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 3)
	one, two, three := spendTo(g.spare[0], opTrue), spend(g.spare[1]), spend(g.spare[2])
	twice := spend(outputOf(one, 0), outputOf(three, 0), g.spare[1])
	b := g.next("twice", with(one, two, one, three, twice)).block
	c, err := NewCandidate(g.net, b, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := []source{0, 1, sourceMissing, 2, sourceInside + 1, sourceInside + 4, sourceMissing}
	if !slices.Equal(c.sources, want) {
		t.Errorf("sources %x, want %x", c.sources, want)
	}
	outs := []bitcoin.OutPoint{g.spare[0].OutPoint, g.spare[1].OutPoint, g.spare[2].OutPoint}
	if !slices.Equal(c.Outside(), outs) || c.Block() != b || c.Hash() != b.Hash() {
		t.Errorf("block %v needs %v", c.Hash(), c.Outside())
	}
}

func TestFormatMoney(t *testing.T) {
	for amount, want := range map[bitcoin.Amount]string{
		0: "0.00", 1: "0.00000001", 10: "0.0000001", 1_000_000: "0.01", 10_000_000: "0.10",
		100_000_000: "1.00", 123_456_789: "1.23456789", 2_099_999_997_690_000: "20999999.9769",
		1_000_000_000: "10.00",
	} {
		if got := formatMoney(amount); got != want {
			t.Errorf("%d: %s, want %s", amount, got, want)
		}
	}
}

func TestErrorText(t *testing.T) {
	bare := &Error{KindConsensus, "bad-txns-vin-empty", ""}
	if bare.Error() != "bad-txns-vin-empty" {
		t.Error(bare)
	}
	long := &Error{KindConsensus, "bad-cb-amount", "coinbase pays too much (actual=2 vs limit=1)"}
	if long.Error() != "bad-cb-amount, coinbase pays too much (actual=2 vs limit=1)" {
		t.Error(long)
	}
}

// TestExplanations are those that Core's log and RPC show after the reason.
func TestExplanations(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 4)
	first, second := g.take(), g.take()
	over := spend(first)
	over.Out[0].Value += bitcoin.Coin / 4
	early := spend(g.out(g.blocks["mature.50"].block, 0, 0))
	locked := spend(first)
	locked.Version, locked.In[0].Sequence = 2, 5000
	gone := spend(second)
	gone.In[0].PrevOut.Index = 5
	for name, row := range map[string]struct {
		tx   *bitcoin.Tx
		want string
	}{
		"over": {over, "bad-txns-in-belowout, value in (50.00) < value out (50.25)" +
			" in transaction " + over.TxID().String()},
		"early": {early, "bad-txns-premature-spend-of-coinbase, tried to spend coinbase at" +
			" depth 53 in transaction " + early.TxID().String()},
		"locked": {locked, "bad-txns-nonfinal, contains a non-BIP68-final transaction " +
			locked.TxID().String()},
		"gone": {gone, "bad-txns-inputs-missingorspent, CheckTxInputs: inputs missing/spent" +
			" in transaction " + gone.TxID().String()},
	} {
		g.next(name, with(row.tx))
		if err := judge(g, g.on.block); err == nil || err.Error() != row.want {
			t.Errorf("%s: %v\nwant %s", name, err, row.want)
		}
		g.goTo("mature.102")
	}
	g.next("coinbase", func(d *draft) { fees(d, 7) })
	want := "bad-cb-amount, coinbase pays too much (actual=5000000007 vs limit=5000000000)"
	if err := judge(g, g.on.block); err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
	g.goTo("mature.102")
	none := spend(first)
	none.Out = nil
	g.next("no outputs", with(none))
	want = "bad-txns-vout-empty, Transaction check failed (tx hash " + none.TxID().String() + ") "
	if err := judge(g, g.on.block); err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}
