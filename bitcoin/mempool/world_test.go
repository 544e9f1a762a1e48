package mempool

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// world is a pool with a chain that is only a tip and a set of coins.
type world struct {
	testing.TB
	*Pool
	coins map[bitcoin.OutPoint]consensus.Coin
	state consensus.State
	now   time.Time
	made  uint64 // coins
}

func newWorld(t testing.TB, cfg Config) *world {
	t.Helper()
	net := bitcoin.Regtest()
	w := &world{TB: t, coins: make(map[bitcoin.OutPoint]consensus.Coin), state: consensus.Genesis(net)}
	w.now = time.Unix(int64(w.state.Header.Time), 0).Add(time.Hour)
	w.nextHeader()
	var err error
	if w.Pool, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) nextHeader() {
	h := w.state.Header
	h.PrevBlock, h.Time = w.state.Hash, uint32(w.now.Unix())
	w.state = w.state.Apply(&h, h.Hash())
}

// Coins, MedianTimePast and Cached are as View has them.
func (w *world) Coins(outs []bitcoin.OutPoint, coins []consensus.Coin) error {
	for i := range outs {
		coins[i] = w.coins[outs[i]]
	}
	return nil
}

func (w *world) MedianTimePast(bitcoin.Height) (uint32, error) { return w.state.MedianTimePast(), nil }

func (w *world) Cached(out bitcoin.OutPoint) bool {
	_, ok := w.coins[out]
	return ok
}

func (w *world) tip() *Tip { return &Tip{State: w.state, View: w, Now: w.now} }

// coin returns a new coin that anybody can spend.
func (w *world) coin() chaintest.Output {
	w.made++
	out := bitcoin.OutPoint{Index: uint32(w.made)}
	out.TxID[0], out.TxID[31] = 1, byte(w.made)
	c := consensus.Coin{Out: bitcoin.TxOut{Value: bitcoin.Coin, Script: chaintest.Anyone()},
		Origin: consensus.Origin{Height: 1}}
	w.coins[out] = c
	return chaintest.Output{OutPoint: out, TxOut: c.Out}
}

// pay spends outputs to a number of others, of about equal value.
func pay(fee bitcoin.Amount, outs int, from ...chaintest.Output) *bitcoin.Tx {
	tx := chaintest.Spend(fee, from...).Clone()
	all := tx.Out[0]
	tx.Out = nil
	for range outs {
		tx.Out = append(tx.Out, bitcoin.TxOut{Value: all.Value / bitcoin.Amount(outs), Script: all.Script})
	}
	tx.Out[0].Value += all.Value % bitcoin.Amount(outs)
	return reparse(tx)
}

// changed returns a transaction that differs in something.
func changed(tx *bitcoin.Tx, change func(*bitcoin.Tx)) *bitcoin.Tx {
	c := tx.Clone()
	change(c)
	return reparse(c)
}

// reparse makes ids agree with what a transaction has become.
func reparse(tx *bitcoin.Tx) *bitcoin.Tx {
	parsed, err := bitcoin.ParseTx(tx.Append(nil))
	if err != nil {
		panic(err)
	}
	return parsed
}

// try offers a transaction.
func (w *world) try(tx *bitcoin.Tx, opts Options) error {
	w.Helper()
	a, err := w.Begin(tx, w.tip(), opts)
	if err == nil {
		err = a.RunScripts(context.Background(), consensus.ScriptRunner{})
	}
	if err == nil {
		err = w.Commit(a, w.tip())
	}
	w.expectRefusal(err)
	return err
}

// tryPackage offers transactions together.
func (w *world) tryPackage(opts Options, txs ...*bitcoin.Tx) error {
	w.Helper()
	a, err := w.BeginPackage(txs, w.tip(), opts)
	if err == nil {
		err = a.RunScripts(context.Background(), consensus.ScriptRunner{})
	}
	if err == nil && !opts.NoReplacement {
		err = w.CommitPackage(a, w.tip())
	}
	w.expectRefusal(err)
	return err
}

// expectRefusal wants an error to be about the transaction, if there is one.
func (w *world) expectRefusal(err error) {
	w.Helper()
	var e *Error
	var pe *PackageError
	if err != nil && !errors.As(err, &e) && !errors.As(err, &pe) {
		w.Fatal(err)
	}
	w.check()
}

// accept wants a transaction to be taken.
func (w *world) accept(tx *bitcoin.Tx) *Entry {
	w.Helper()
	if err := w.try(tx, Options{}); err != nil {
		w.Fatalf("refused: %v", err)
	}
	return w.Get(tx.TxID())
}

// refuse wants a transaction to be refused, for a reason.
func (w *world) refuse(tx *bitcoin.Tx, want string) {
	w.Helper()
	if err := w.try(tx, Options{}); err == nil || err.Error() != want {
		w.Errorf("got %v, want %q", err, want)
	}
}

// mine connects a block of entries.
func (w *world) mine(entries []*Entry) {
	w.Helper()
	b := &bitcoin.Block{Txs: make([]bitcoin.Tx, 1, 1+len(entries))}
	w.now = w.now.Add(10 * time.Minute)
	w.nextHeader()
	for _, e := range entries {
		b.Txs = append(b.Txs, *e.Tx)
		for i := range e.Tx.In {
			if !w.Cached(e.Tx.In[i].PrevOut) {
				w.Fatalf("%v is mined before what it spends", e.TxID)
			}
			delete(w.coins, e.Tx.In[i].PrevOut)
		}
		for i := range e.Tx.Out {
			w.coins[bitcoin.OutPoint{TxID: e.TxID, Index: uint32(i)}] = consensus.Coin{
				Out: e.Tx.Out[i], Origin: consensus.Origin{Height: w.state.Height}}
		}
	}
	w.Connected(b, w.now)
	w.check()
}

// check holds the pool against what follows from its entries alone.
func (w *world) check() {
	w.Helper()
	var usage, vsize int64
	var fees bitcoin.Amount
	unsent := 0
	seen := make(map[*cluster]bool)
	for id, e := range w.entries {
		if e.TxID != id || w.byWTxID[e.WTxID] != e {
			w.Fatalf("%v is listed as another", e.TxID)
		}
		usage, vsize, fees = usage+e.usage(), vsize+int64(e.VSize()), fees+e.Fee
		if e.unbroadcast {
			unsent++
		}
		var parents []*Entry
		for i := range e.Tx.In {
			out := e.Tx.In[i].PrevOut
			if w.spends[out] != e {
				w.Fatalf("%v does not count as spending %v", e.TxID, out)
			}
			if p := w.entries[out.TxID]; p != nil && !slices.Contains(parents, p) {
				parents = append(parents, p)
			} else if p == nil && !w.Cached(out) {
				w.Fatalf("%v spends what is not there", e.TxID)
			}
		}
		if !sameSet(parents, e.parents) || !sameSet(w.children(e.TxID, len(e.Tx.Out)), e.children) {
			w.Fatalf("%v has wrong parents or children", e.TxID)
		}
		if e.slot != noSlot || e.cluster.txs[e.rank] != e || w.clusters[e.cluster.at] != e.cluster {
			w.Fatalf("%v is not where it says", e.TxID)
		}
		for _, p := range parents {
			if p.cluster != e.cluster || p.rank > e.rank {
				w.Fatalf("%v comes before its parent or in another cluster", e.TxID)
			}
		}
		seen[e.cluster] = true
	}
	if usage != w.usage || vsize != w.vsize || fees != w.fees || unsent != w.unsent ||
		len(w.entries) != len(w.byWTxID) || len(seen) != len(w.clusters) {
		w.Fatal("sums are wrong")
	}
	for c := range seen {
		w.checkCluster(c)
	}
	if w.usage > w.cfg.MaxBytes {
		w.Fatalf("%d octets of %d", w.usage, w.cfg.MaxBytes)
	}
}

func (w *world) checkCluster(c *cluster) {
	w.Helper()
	if groups := components(slices.Clone(c.txs), nil); len(groups) != 1 {
		w.Fatalf("a cluster of %d in %d parts", len(c.txs), len(groups))
	}
	var weight int64
	at := 0
	for i, ch := range c.chunks {
		var sum Price
		for _, e := range c.txs[ch.from:ch.to] {
			sum = sum.add(e.price())
		}
		if ch.from != at || sum != ch.Price || i > 0 && ch.Cmp(c.chunks[i-1].Price) > 0 {
			w.Fatalf("chunk %d of %d is wrong", i, len(c.chunks))
		}
		at, weight = ch.to, weight+ch.Weight
	}
	if at != len(c.txs) || weight != c.weight || w.tooLarge(c) {
		w.Fatal("a cluster is cut wrongly or too large")
	}
	if parent := (c.at - 1) / 2; c.at > 0 && w.clusters.Less(c.at, parent) {
		w.Fatal("the heap of clusters is out of order")
	}
}

func sameSet(a, b []*Entry) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(e *Entry) bool { return !slices.Contains(b, e) })
}
