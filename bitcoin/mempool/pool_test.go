package mempool

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

func TestRefusals(t *testing.T) {
	for _, row := range []struct {
		name, want string
		change     func(*bitcoin.Tx)
	}{
		{"a version nobody knows", "version", func(tx *bitcoin.Tx) { tx.Version = 4 }},
		{"no outputs", "bad-txns-vout-empty", func(tx *bitcoin.Tx) { tx.Out = nil }},
		{"an odd output", "scriptpubkey", func(tx *bitcoin.Tx) { tx.Out[0].Script = []byte{0x51, 0x51, 0x87} }},
		{"a script that does things in the input", "scriptsig-not-pushonly",
			func(tx *bitcoin.Tx) { tx.In[0].Script = []byte{0x76} }},
		{"a large input script", "scriptsig-size",
			func(tx *bitcoin.Tx) { tx.In[0].Script = make([]byte, 1651) }},
		{"two outputs of dust", "dust", func(tx *bitcoin.Tx) {
			tx.Out[0].Value = 1
			tx.Out = append(tx.Out, tx.Out[0])
		}},
		{"dust and a fee", "dust, tx with dust output must be 0-fee",
			func(tx *bitcoin.Tx) { tx.Out[0].Value = 1 }},
		{"too small", "tx-size-small", func(tx *bitcoin.Tx) {
			tx.Out = []bitcoin.TxOut{{Script: []byte{0x6a, 0x01, 0x00}}}
		}},
		{"a lock time that has not come", "non-final", func(tx *bitcoin.Tx) {
			tx.LockTime, tx.In[0].Sequence = 1000, 0
		}},
		{"a relative lock time that has not come", "non-BIP68-final",
			func(tx *bitcoin.Tx) { tx.In[0].Sequence = 100 }},
		{"an output that is not there", "bad-txns-inputs-missingorspent",
			func(tx *bitcoin.Tx) { tx.In[0].PrevOut.Index = 9999 }},
		{"more out than in", "bad-txns-in-belowout, value in (1.00) < value out (1.00000001)",
			func(tx *bitcoin.Tx) { tx.Out[0].Value = bitcoin.Coin + 1 }},
		{"no fee", "min relay fee not met, 0 < 10", func(tx *bitcoin.Tx) { tx.Out[0].Value = bitcoin.Coin }},
		{"a witness where none belongs", "bad-witness-nonstandard",
			func(tx *bitcoin.Tx) { tx.In[0].Witness = [][]byte{make([]byte, 100), {0x51}} }},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t, Config{})
			tx := pay(1000, 1, w.coin())
			tx = tx.Clone()
			row.change(tx)
			tx = changed(tx, func(*bitcoin.Tx) {})
			w.refuse(tx, row.want)
			if w.Len() != 0 {
				t.Error("it is in the pool")
			}
		})
	}
}

func TestKnownAlready(t *testing.T) {
	w := newWorld(t, Config{})
	tx := pay(1000, 1, w.coin())
	w.accept(tx)
	w.refuse(tx, "txn-already-in-mempool")
	w.refuse(changed(tx, func(tx *bitcoin.Tx) { tx.In[0].Witness = [][]byte{{0x52}} }),
		"txn-same-nonwitness-data-in-mempool")
}

func TestReplacement(t *testing.T) {
	w := newWorld(t, Config{})
	coin, other := w.coin(), w.coin()
	old := w.accept(pay(1000, 1, coin))
	child := w.accept(pay(5000, 1, chaintest.OutputOf(old.Tx, 0)))
	less := pay(5999, 1, coin)
	w.refuse(less, fmt.Sprintf("insufficient fee, rejecting replacement %v, less fees than conflicting txs; "+
		"0.00005999 < 0.00006", less.TxID()))
	same := pay(6001, 1, coin)
	w.refuse(same, fmt.Sprintf("insufficient fee, rejecting replacement %v, not enough additional fees to "+
		"relay; 0.00000001 < 0.0000001", same.TxID()))
	// More fee at a worse rate: the child alone pays better than this.
	large := changed(pay(7000, 40, coin, other), func(*bitcoin.Tx) {})
	w.refuse(large, "replacement-failed, insufficient feerate: does not improve feerate diagram")
	inner := pay(9000, 1, coin, chaintest.OutputOf(child.Tx, 0))
	w.refuse(inner, fmt.Sprintf("bad-txns-spends-conflicting-tx, %v spends conflicting transaction %v",
		inner.TxID(), old.TxID))
	better := w.accept(pay(9000, 1, coin))
	if w.Len() != 1 || w.Get(better.TxID) == nil {
		t.Errorf("%d transactions are left, want the replacement alone", w.Len())
	}
	if err := w.try(pay(20000, 1, coin), Options{NoReplacement: true}); err == nil ||
		err.Error() != "bip125-replacement-disallowed" {
		t.Errorf("where none may be replaced: %v", err)
	}
}

func TestClusterLimits(t *testing.T) {
	w := newWorld(t, Config{MaxClusterCount: 3})
	root := w.accept(pay(1000, 3, w.coin()))
	w.accept(pay(1000, 1, chaintest.OutputOf(root.Tx, 0)))
	w.accept(pay(1000, 1, chaintest.OutputOf(root.Tx, 1)))
	w.refuse(pay(1000, 1, chaintest.OutputOf(root.Tx, 2)), "too-large-cluster")
	w.refuse(pay(1000, 1, chaintest.OutputOf(root.Tx, 2), w.coin()), "too-large-cluster")
	// One that replaces a member is no more than before.
	w.accept(pay(3000, 1, chaintest.OutputOf(root.Tx, 1)))
	// Two clusters cannot be joined beyond the limit.
	other := w.accept(pay(1000, 2, w.coin()))
	w.refuse(pay(1000, 1, chaintest.OutputOf(other.Tx, 0), chaintest.OutputOf(root.Tx, 2)),
		"too-large-cluster")
}

func TestTRUC(t *testing.T) {
	w := newWorld(t, Config{})
	v3 := func(tx *bitcoin.Tx) *bitcoin.Tx { return changed(tx, func(tx *bitcoin.Tx) { tx.Version = 3 }) }
	parent := w.accept(v3(pay(1000, 3, w.coin())))
	two := pay(1000, 1, chaintest.OutputOf(parent.Tx, 0))
	w.refuse(two, fmt.Sprintf("TRUC-violation, non-version=3 tx %v (wtxid=%v) cannot spend from version=3 "+
		"tx %v (wtxid=%v)", two.TxID(), two.WTxID(), parent.TxID, parent.WTxID))
	big := v3(pay(90000, 40, chaintest.OutputOf(parent.Tx, 0)))
	w.refuse(big, fmt.Sprintf("TRUC-violation, version=3 child tx %v (wtxid=%v) is too big: %d > 1000 "+
		"virtual bytes", big.TxID(), big.WTxID(), big.VSize()))
	child := w.accept(v3(pay(1000, 1, chaintest.OutputOf(parent.Tx, 0))))
	grandchild := v3(pay(1000, 1, chaintest.OutputOf(child.Tx, 0)))
	w.refuse(grandchild, fmt.Sprintf("TRUC-violation, tx %v (wtxid=%v) would have too many ancestors",
		grandchild.TxID(), grandchild.WTxID()))
	poor := v3(pay(1000, 1, chaintest.OutputOf(parent.Tx, 1)))
	w.refuse(poor, fmt.Sprintf("insufficient fee (including sibling eviction), rejecting replacement %v, "+
		"not enough additional fees to relay; 0.00 < 0.0000001", poor.TxID()))
	w.accept(v3(pay(3000, 1, chaintest.OutputOf(parent.Tx, 1)))) // its sibling has to go
	if w.Get(child.TxID) != nil {
		t.Error("both children are there")
	}
}

func TestEphemeralDust(t *testing.T) {
	w := newWorld(t, Config{MinRelayFee: -1})
	parent := changed(pay(0, 2, w.coin()), func(tx *bitcoin.Tx) {
		tx.Out[0].Value += tx.Out[1].Value
		tx.Out[1].Value = 0
	})
	leaves := pay(1000, 1, chaintest.OutputOf(parent, 0))
	sweeps := pay(1000, 1, chaintest.OutputOf(parent, 0), chaintest.OutputOf(parent, 1))
	missing := fmt.Sprintf("tx %v (wtxid=%v) did not spend parent's ephemeral dust", leaves.TxID(),
		leaves.WTxID())
	if err := w.tryPackage(Options{}, parent, leaves); err == nil || err.Error() != "unspent-dust" ||
		err.(*PackageError).Err.Error() != "missing-ephemeral-spends, "+missing {
		t.Errorf("a package that leaves dust: %v", err)
	}
	if err := w.tryPackage(Options{}, parent, sweeps); err != nil || w.Len() != 2 {
		t.Errorf("a package that spends it: %v", err)
	}
	if !w.Dusty(parent.TxID()) || w.Dusty(sweeps.TxID()) {
		t.Error("which of them has dust is not known")
	}
	leaves = pay(5000, 1, chaintest.OutputOf(parent, 0)) // it could replace the other
	w.refuse(leaves, fmt.Sprintf("missing-ephemeral-spends, tx %v (wtxid=%v) did not spend parent's "+
		"ephemeral dust", leaves.TxID(), leaves.WTxID()))
}

func TestPackages(t *testing.T) {
	w := newWorld(t, Config{})
	v3 := func(tx *bitcoin.Tx) *bitcoin.Tx { return changed(tx, func(tx *bitcoin.Tx) { tx.Version = 3 }) }
	coin := w.coin()
	old := w.accept(pay(500, 1, coin))
	parent := v3(pay(0, 1, coin))
	child := v3(pay(400, 1, chaintest.OutputOf(parent, 0)))
	rich := v3(pay(5000, 1, chaintest.OutputOf(parent, 0)))
	w.refuse(parent, "min relay fee not met, 0 < 10")
	if err := w.tryPackage(Options{NoReplacement: true}, parent, rich); err == nil ||
		err.(*PackageError).Err.Reason != "bip125-replacement-disallowed" {
		t.Errorf("in a test of a package: %v", err)
	}
	err := w.tryPackage(Options{}, parent, child)
	if want := "package RBF failed: insufficient anti-DoS fees, rejecting replacement " +
		child.TxID().String() + ", less fees than conflicting txs; 0.000004 < 0.000005"; err == nil ||
		err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := w.tryPackage(Options{}, parent, rich); err != nil {
		t.Fatal(err)
	}
	if w.Len() != 2 || w.Get(old.TxID) != nil {
		t.Error("the package did not replace the old transaction")
	}
	chunk := w.Chunk(w.Get(parent.TxID()))
	if chunk.Fee != 5000 {
		t.Errorf("the parent is mined for %d, want 5000 with its child", chunk.Fee)
	}
}

func TestPackageForm(t *testing.T) {
	w := newWorld(t, Config{})
	a := pay(1000, 2, w.coin())
	b := pay(1000, 1, chaintest.OutputOf(a, 0))
	c := pay(1000, 1, chaintest.OutputOf(a, 0), w.coin())
	many := make([]*bitcoin.Tx, 26)
	for i := range many {
		many[i] = pay(1000, 1, w.coin())
	}
	var heavy []*bitcoin.Tx
	for range 5 {
		heavy = append(heavy, pay(1000, 600, w.coin()))
	}
	for _, row := range []struct {
		want string
		txs  []*bitcoin.Tx
	}{
		{"package-too-many-transactions", many},
		{"package-too-large", heavy},
		{"package-contains-duplicates", []*bitcoin.Tx{a, a}},
		{"package-not-sorted", []*bitcoin.Tx{b, a}},
		{"conflict-in-package", []*bitcoin.Tx{a, b, c}},
	} {
		if err := CheckPackage(row.txs); err == nil || err.Error() != row.want {
			t.Errorf("got %v, want %s", err, row.want)
		}
	}
	if err := CheckPackage([]*bitcoin.Tx{a, b}); err != nil {
		t.Error(err)
	}
	if !IsChildWithParentsTree([]*bitcoin.Tx{a, b}) || IsChildWithParents([]*bitcoin.Tx{many[0], b}) {
		t.Error("a child with its parent is not told from others")
	}
}

func TestExpiry(t *testing.T) {
	w := newWorld(t, Config{Expiry: 2 * time.Hour})
	old := w.accept(pay(1000, 1, w.coin()))
	w.now = w.now.Add(time.Hour)
	child := w.accept(pay(1000, 1, chaintest.OutputOf(old.Tx, 0)))
	young := w.accept(pay(1000, 1, w.coin()))
	w.now = w.now.Add(time.Hour + time.Second)
	w.Limit(w.now)
	w.check()
	if w.Get(old.TxID) != nil || w.Get(child.TxID) != nil || w.Get(young.TxID) == nil {
		t.Error("not just the old transaction and its child have expired")
	}
}

// small is a pool that is full after a few dozen transactions.
var small = Config{MaxClusterVSize: 2500, MaxBytes: 100_000}

func TestFullPool(t *testing.T) {
	w := newWorld(t, small)
	var cheap *Entry
	for fee := bitcoin.Amount(100); w.MinFee(w.now) == 0; fee += 10 {
		e := w.accept(pay(fee, 1, w.coin()))
		if cheap == nil {
			cheap = e
		}
	}
	if w.Get(cheap.TxID) != nil {
		t.Error("the cheapest is still there")
	}
	least := w.MinFee(w.now)
	if want := Rate(cheap.Fee, cheap.VSize()) + 100; least < want {
		t.Errorf("the least rate is %d, want %d above what was evicted", least, want)
	}
	tx := pay(20, 1, w.coin())
	w.refuse(tx, fmt.Sprintf("mempool min fee not met, 20 < %d", least.Fee(tx.VSize())))
	w.now = w.now.Add(time.Hour)
	if w.MinFee(w.now) != least {
		t.Error("the least rate fell before a block came")
	}
	w.mine(nil)
	w.now = w.now.Add(12 * time.Hour)
	if got := w.MinFee(w.now); got < least/2-1 || got > least/2+1 {
		t.Errorf("after half a day: %d, want about half of %d", got, least)
	}
	w.now = w.now.Add(100 * time.Hour)
	if got := w.MinFee(w.now); got != 0 {
		t.Errorf("after days: %d", got)
	}
}

// unmine takes a block of entries back, of which the pool may have descendants, and brings them in again.
func (w *world) unmine(entries []*Entry) {
	w.Helper()
	for _, e := range entries {
		for i := range e.Tx.Out {
			delete(w.coins, bitcoin.OutPoint{TxID: e.TxID, Index: uint32(i)})
		}
	}
	for _, e := range entries {
		for i := range e.Tx.In {
			if out := e.Tx.In[i].PrevOut; out.TxID[0] == 1 && out.TxID[1] == 0 { // made by coin
				w.coins[out] = consensus.Coin{Out: bitcoin.TxOut{Value: bitcoin.Coin,
					Script: chaintest.Anyone()}, Origin: consensus.Origin{Height: 1}}
			}
		}
		a, err := w.Begin(e.Tx, w.tip(), Options{FromBlock: true})
		if err != nil {
			w.Fatal(err)
		}
		a.passed = a.flags
		if err := w.Commit(a, w.tip()); err != nil {
			w.Fatal(err)
		}
	}
}

func TestReorganization(t *testing.T) {
	w := newWorld(t, Config{})
	parent := w.accept(pay(1000, 2, w.coin()))
	w.mine([]*Entry{parent})
	left := w.accept(pay(1000, 1, chaintest.OutputOf(parent.Tx, 0)))
	right := w.accept(pay(9000, 1, chaintest.OutputOf(parent.Tx, 1)))
	w.unmine([]*Entry{parent})
	w.check()
	back := w.Get(parent.TxID)
	if len(back.Children()) != 2 || left.cluster != right.cluster || w.Chunk(back).Fee != 10_000 {
		t.Errorf("%d children, chunk of %d: the parent is not where it belongs",
			len(back.Children()), w.Chunk(back).Fee)
	}
	w.Forget(parent.Tx)
	w.check()
	if w.Len() != 0 {
		t.Errorf("%d are left of a transaction that is not valid any more", w.Len())
	}
}

// TestClusterTooLargeAfterReorganization: what was mined as it may be comes back as it may not.
func TestClusterTooLargeAfterReorganization(t *testing.T) {
	w := newWorld(t, Config{})
	from := w.coin()
	var chain []*Entry
	for range 3 {
		var part []*Entry
		for range 40 {
			e := w.accept(pay(1000, 1, from))
			part, from = append(part, e), chaintest.OutputOf(e.Tx, 0)
		}
		w.mine(part)
		chain = append(chain, part...)
	}
	last := w.accept(pay(1000, 1, from))
	w.unmine(chain)
	if n := len(w.Get(chain[0].TxID).cluster.txs); n != 121 {
		t.Fatalf("a cluster of %d, want 121", n)
	}
	if err := w.Reorganized(0, w.tip()); err != nil {
		t.Fatal(err)
	}
	w.check()
	if w.Len() != MaxClusterCount || w.Get(chain[63].TxID) == nil || w.Get(last.TxID) != nil {
		t.Errorf("%d are left, want the first %d", w.Len(), MaxClusterCount)
	}
}

func TestPrioritise(t *testing.T) {
	w := newWorld(t, Config{})
	tx := pay(0, 1, w.coin())
	w.Prioritise(tx.TxID(), 1000)
	e := w.accept(tx)
	if e.Fee != 0 || e.ModifiedFee() != 1000 || w.Chunk(e).Fee != 1000 {
		t.Errorf("fee %d, modified %d, chunk %d", e.Fee, e.ModifiedFee(), w.Chunk(e).Fee)
	}
	if sum := w.Prioritise(tx.TxID(), math.MaxInt64); sum != math.MaxInt64 {
		t.Errorf("the sum went round: %d", sum)
	}
	if w.Prioritise(tx.TxID(), -math.MaxInt64); len(w.Deltas()) != 0 {
		t.Errorf("nothing was added, and yet %v", w.Deltas())
	}
	w.check()
}

// TestRandomLife puts a small pool through all that can happen to it, in no order, and checks after each
// step that it is what its entries say.
func TestRandomLife(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 9))
			cfg := small
			cfg.MaxClusterCount = 6 + r.IntN(59)
			l := life{world: newWorld(t, cfg), Rand: r}
			for range 40 {
				l.outs = append(l.outs, l.coin())
			}
			for range 600 {
				l.step()
			}
			t.Logf("%v", l.counts)
			if l.counts.accepted < 100 || l.counts.packages < 5 || l.counts.mined < 20 ||
				l.counts.refused < 50 {
				t.Errorf("too little happened: %+v", l.counts)
			}
		})
	}
}

type life struct {
	*world
	*rand.Rand
	outs   []chaintest.Output // that were made, spent or not
	counts struct{ accepted, refused, packages, mined int }
}

func (l *life) tx(fees int, must ...chaintest.Output) *bitcoin.Tx {
	from := must
	for range 1 + l.IntN(3) {
		if out := l.outs[len(l.outs)-1-l.IntN(min(len(l.outs), 60))]; !hasOut(from, out) {
			from = append(from, out)
		}
	}
	tx := pay(bitcoin.Amount(l.IntN(fees)), 1+l.IntN(3), from...)
	if l.IntN(5) == 0 {
		tx = changed(tx, func(tx *bitcoin.Tx) { tx.Version = 3 })
	}
	return tx
}

func hasOut(list []chaintest.Output, out chaintest.Output) bool {
	for i := range list {
		if list[i].OutPoint == out.OutPoint {
			return true
		}
	}
	return false
}

func (l *life) step() {
	if l.IntN(3) == 0 {
		l.outs = append(l.outs, l.coin())
	}
	switch n := l.IntN(100); {
	case n < 70:
		l.add(l.tx(4000))
	case n < 85:
		parent := changed(l.tx(200), func(tx *bitcoin.Tx) { tx.Version = 3 })
		child := changed(l.tx(9000, chaintest.OutputOf(parent, 0)), func(tx *bitcoin.Tx) { tx.Version = 3 })
		if l.tryPackage(Options{}, parent, child) == nil {
			l.counts.packages++
			l.remember(parent)
			l.remember(child)
		}
	case n < 90:
		l.mineSome()
	case n < 95:
		for _, e := range l.entries {
			l.Prioritise(e.TxID, bitcoin.Amount(l.IntN(4000)-2000))
			break
		}
		l.check()
	default:
		l.now = l.now.Add(time.Duration(l.IntN(100)) * time.Hour)
		l.Limit(l.now)
		l.check()
	}
}

func (l *life) add(tx *bitcoin.Tx) {
	if l.try(tx, Options{}) != nil {
		l.counts.refused++
		return
	}
	l.counts.accepted++
	l.remember(tx)
}

func (l *life) remember(tx *bitcoin.Tx) {
	for i := range tx.Out {
		l.outs = append(l.outs, chaintest.OutputOf(tx, i))
	}
}

func (l *life) mineSome() {
	picked := l.Select(Room{Weight: 2000 + l.Int64N(40000), SigOpsCost: consensus.MaxBlockSigOpsCost,
		Height: l.state.Height + 1, Median: l.state.MedianTimePast()})
	last := math.Inf(1)
	for _, e := range picked {
		rate := float64(l.Chunk(e).Fee) / float64(l.Chunk(e).Weight)
		if rate > last+1e-9 {
			l.Fatal("a chunk that pays better was taken later")
		}
		last = rate
	}
	l.counts.mined += len(picked)
	l.mine(picked)
}

func TestEventsAndSequence(t *testing.T) {
	w := newWorld(t, Config{})
	coin := w.coin()
	a := w.accept(pay(1000, 1, coin))
	b := w.accept(pay(5000, 1, coin))
	w.mine([]*Entry{b})
	list, next, complete := w.EventsSince(0, 10)
	var said []string
	for _, e := range list {
		said = append(said, fmt.Sprint(e.Sequence, " ", e.TxID == a.TxID, " ", e.Reason))
	}
	want := "1 true added, 2 true replaced, 3 false added, 4 false block"
	if got := strings.Join(said, ", "); got != want || next != 5 || !complete {
		t.Errorf("%s; next %d, complete %v", got, next, complete)
	}
}

// BenchmarkAccept measures what acceptance costs apart from scripts: transactions that stand alone, and
// chains as long as a cluster may be.
func BenchmarkAccept(b *testing.B) {
	for _, chain := range []int{1, 2, 25, 64} {
		b.Run(fmt.Sprintf("chains of %d", chain), func(b *testing.B) {
			w := newWorld(b, Config{})
			const n = 6400
			txs := make([]*bitcoin.Tx, 0, n)
			for len(txs) < n {
				from := w.coin()
				for range chain {
					tx := pay(1000, 1, from)
					txs = append(txs, tx)
					from = chaintest.OutputOf(tx, 0)
				}
			}
			tip := w.tip()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%n == 0 {
					b.StopTimer()
					w.Pool, _ = New(Config{})
					b.StartTimer()
				}
				a, err := w.Begin(txs[i%n], tip, Options{})
				if err != nil {
					b.Fatal(err)
				}
				a.passed = a.flags // the scripts are not what is measured
				if err := w.Commit(a, tip); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
