package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/script"
	"github.com/tallypost/tallypost/internal/clock"
)

var all = Wanted{Tx: true, Filters: true, CoinStats: true}

// story is a chain and its indexes on a disk that can lose power.
type story struct {
	t     *testing.T
	gen   *chaintest.Gen
	fs    vfs.FS
	clock *clock.Mock
	store *blockstore.Store
	chain *chain.Chain
	set   *Set
}

func newStory(t *testing.T, fs vfs.FS) *story {
	t.Helper()
	net := bitcoin.Regtest()
	s := &story{t: t, gen: chaintest.New(t, net), fs: fs,
		clock: clock.NewMock(time.Unix(int64(net.Genesis.Header.Time)+3600, 0))}
	s.open()
	t.Cleanup(s.close)
	return s
}

func (s *story) open() {
	s.t.Helper()
	var err error
	if s.store, err = blockstore.Open(blockstore.Config{Network: s.gen.Net, FS: s.fs, Dir: "data",
		CacheBytes: 4 << 20}); err != nil {
		s.t.Fatal(err)
	}
	if s.chain, err = chain.New(chain.Config{Network: s.gen.Net, Clock: s.clock}, s.store); err != nil {
		s.t.Fatal(err)
	}
	if s.set, err = Open(Config{Chain: s.chain, Dir: "data/indexes", FS: s.fs}, all); err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) close() {
	if s.set == nil {
		return
	}
	if err := errors.Join(s.set.Close(), s.chain.Close(), s.store.Close()); err != nil {
		s.t.Error(err)
	}
	s.set = nil
}

func (s *story) add(b *bitcoin.Block) {
	s.t.Helper()
	if _, err := s.chain.Add(context.Background(), b, chain.Source{Requested: true, WorkChecked: true}); err != nil {
		s.t.Fatal(err)
	}
}

// follow lets the indexes come to the tip.
func (s *story) follow() {
	s.t.Helper()
	for _, x := range s.set.All() {
		for more := true; more; {
			var err error
			if more, err = x.step(context.Background()); err != nil {
				s.t.Fatalf("%s: %v", x.name, err)
			}
		}
	}
}

// check holds the indexes against what a walk along the best chain finds.
func (s *story) check() {
	s.t.Helper()
	tip := s.chain.Tip()
	coins := map[bitcoin.OutPoint]consensus.Coin{}
	var header bitcoin.Hash
	var set MuHash
	for _, e := range s.chain.Path(tip.Hash, 0, int(tip.Height)+1) {
		b, err := s.chain.Block(e.Hash)
		if err != nil {
			s.t.Fatal(err)
		}
		spent := walk(coins, &set, b, e.Height)
		for i := range b.Txs {
			txid := b.Txs[i].TxID()
			tx, in, err := s.set.Tx.Tx(txid)
			if e.Height == 0 {
				if err != ErrNotFound {
					s.t.Errorf("the first coinbase: %v", err)
				}
			} else if err != nil || in != e.Hash || tx.TxID() != txid {
				s.t.Fatalf("transaction %v of %s: in %v, %v", txid, s.gen.Name(e.Hash), in, err)
			}
		}
		want := EncodeFilter(e.Hash, Elements(b, consensus.Spent{Outs: spent}))
		header = FilterHeader(FilterHash(want), header)
		if got, err := s.set.Filters.Read(e.Hash); err != nil || !bytes.Equal(got, want) {
			s.t.Fatalf("filter of %s: %x, %v; want %x", s.gen.Name(e.Hash), got, err, want)
		}
		if got, ok := s.set.Filters.FilterHeader(e.Hash); !ok || got != header {
			s.t.Fatalf("filter header of %s: %v, want %v", s.gen.Name(e.Hash), got, header)
		}
		s.checkStats(e, coins, &set)
	}
	var fresh MuHash
	for out, coin := range coins {
		fresh.Insert(AppendCoin(nil, out, &coin))
	}
	if fresh.Sum() != set.Sum() {
		s.t.Error("a set is not what was added and not taken away")
	}
	for _, x := range s.set.All() {
		if st := x.Status(); !st.Synced || st.Height != tip.Height || !x.Wait(context.Background()) {
			s.t.Errorf("%+v, the tip is at %d", st, tip.Height)
		}
	}
}

func (s *story) checkStats(e chain.Entry, coins map[bitcoin.OutPoint]consensus.Coin, set *MuHash) {
	s.t.Helper()
	var want CoinStats
	for _, coin := range coins {
		want.Outputs++
		want.Amount += coin.Out.Value
		want.BogoSize += BogoSize(len(coin.Out.Script))
	}
	got, err := s.set.CoinStats.Stats(e.Hash)
	if err != nil {
		s.t.Fatalf("statistics of %s: %v", s.gen.Name(e.Hash), err)
	}
	if got.Outputs != want.Outputs || got.Amount != want.Amount || got.BogoSize != want.BogoSize ||
		got.MuHash != set.Sum() {
		s.t.Fatalf("statistics of %s: %+v, want %+v", s.gen.Name(e.Hash), got, want)
	}
	if got.Amount+got.Unspendable.Sum() != got.Subsidy {
		s.t.Errorf("%s: %v in coins and %v lost are not the %v that were made", s.gen.Name(e.Hash), got.Amount,
			got.Unspendable.Sum(), got.Subsidy)
	}
}

// walk takes a block into a set of coins and returns what it spends.
func walk(coins map[bitcoin.OutPoint]consensus.Coin, set *MuHash, b *bitcoin.Block, h bitcoin.Height) (
	spent []bitcoin.TxOut,
) {
	for i := range b.Txs {
		tx := &b.Txs[i]
		for j := range tx.In {
			if i > 0 {
				out := tx.In[j].PrevOut
				coin := coins[out]
				spent = append(spent, coin.Out)
				set.Remove(AppendCoin(nil, out, &coin))
				delete(coins, out)
			}
		}
		for j := range tx.Out {
			if h > 0 && !script.IsUnspendable(tx.Out[j].Script) {
				out := bitcoin.OutPoint{TxID: tx.TxID(), Index: uint32(j)}
				coin := consensus.Coin{Out: tx.Out[j], Origin: consensus.Origin{Height: h, Coinbase: i == 0}}
				set.Insert(AppendCoin(nil, out, &coin))
				coins[out] = coin
			}
		}
	}
	return spent
}

// grow adds a branch of blocks with transactions and, in every third, a reward that is not taken.
func (s *story) grow(name, from string, n int, coinbases ...string) {
	s.gen.Goto(from)
	for i := range n {
		var steps []func(*chaintest.Draft)
		if i < len(coinbases) {
			one := chaintest.Spend(bitcoin.Amount(1000+int(name[0])), s.gen.Coinbase(coinbases[i]))
			one.Out = append(one.Out, bitcoin.TxOut{Value: 1, Script: []byte{byte(script.OpReturn), 1, name[0]}})
			one.Out[0].Value--
			two := chaintest.Spend(bitcoin.Amount(name[0]), chaintest.OutputOf(one, 0))
			steps = append(steps, chaintest.With(one, two))
		}
		if i%3 == 2 {
			steps = append(steps, func(d *chaintest.Draft) { d.Block.Txs[0].Out[0].Value -= 7 })
		}
		s.add(s.gen.Next(fmt.Sprint(name, i), steps...))
	}
}

func (s *story) mature() {
	for _, b := range s.gen.Run("m", 105) {
		s.add(b)
	}
}

// m.104 has three branches of growing length; each is the best for a while.
func TestReorganize(t *testing.T) {
	s := newStory(t, vfs.NewMem())
	s.mature()
	s.follow()
	s.check()
	for i, branch := range []string{"a", "b", "c"} {
		s.grow(branch, "m.104", 3+i, "m.1", "m.2")
		if i != 1 { // b has been left before the indexes come to it
			s.follow()
			s.check()
		}
	}
	// What was connected once can be asked for still.
	for _, name := range []string{"a1", "b0", "b3"} {
		stale := s.gen.Block(name).Hash()
		if _, err := s.set.Filters.Read(stale); err != nil {
			t.Errorf("filter of %s, which was taken back: %v", name, err)
		}
		if _, err := s.set.CoinStats.Stats(stale); err != nil {
			t.Errorf("statistics of %s, which was taken back: %v", name, err)
		}
	}
	txid := s.gen.Block("a0").Txs[1].TxID()
	if _, in, err := s.set.Tx.Tx(txid); err != nil || in != s.gen.Block("a0").Hash() {
		t.Errorf("transaction of a block that was taken back: in %v, %v", in, err)
	}
	s.close()
	s.open()
	s.check()
}

// Deeper than the states that are kept, the statistics are counted again from the last one.
func TestDeepReorganization(t *testing.T) {
	s := newStory(t, vfs.NewMem())
	s.mature()
	s.grow("a", "m.104", keptStates+20, "m.1", "m.2")
	s.follow()
	if err := s.chain.Invalidate(context.Background(), s.gen.Block("a0").Hash()); err != nil {
		t.Fatal(err)
	}
	s.follow()
	s.grow("b", "m.104", 2, "m.1")
	s.follow()
	s.check()
}

// TestCrash cuts the power at some point while blocks come and branches change: afterwards the indexes must
// go on with whatever the chain still knows.
func TestCrash(t *testing.T) {
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 1))
		fs := vfs.NewCrashableMem()
		s := newStory(t, fs)
		s.mature()
		if seed%2 == 0 {
			if err := s.chain.Flush(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		s.follow()
		s.grow("a", "m.104", 2+rng.IntN(3), "m.1", "m.2")
		s.follow()
		if seed%3 == 0 {
			s.grow("b", "m.104", 6, "m.1")
			s.follow()
		}
		image := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: int(seed*9) % 100, RNG: rng})
		s.close()
		s.fs = image
		s.open()
		s.follow()
		s.check()
		s.grow("c", s.gen.Name(s.chain.Tip().Hash), 2)
		s.follow()
		s.check()
	}
}

// Run keeps up while blocks come, Wait waits for it.
func TestRun(t *testing.T) {
	s := newStory(t, vfs.NewMem())
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	done := make(chan error, 1)
	run, stop := context.WithCancel(ctx)
	go func() { done <- s.set.Run(run) }()
	s.mature()
	for _, x := range s.set.All() {
		for !x.Wait(ctx) {
			if ctx.Err() != nil {
				t.Fatal(ctx.Err())
			}
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	s.check()
	if !maps.Equal(map[string]bool{"txindex": true, "coinstatsindex": true, FilterName: true}, s.names()) {
		t.Error(s.names())
	}
	for _, x := range s.set.All() {
		if _, ok := x.Available(); !ok {
			t.Errorf("%s: blocks are missing", x.name)
		}
	}
}

func (s *story) names() map[string]bool {
	out := map[string]bool{}
	for _, x := range s.set.All() {
		out[x.Status().Name] = true
	}
	return out
}

// An index of another chain is refused with words, not taken for this one's.
func TestForeignIndex(t *testing.T) {
	s := newStory(t, vfs.NewMem())
	s.mature()
	s.follow()
	s.close()
	other := newStory(t, vfs.NewMem())
	defer other.close()
	if err := other.set.Close(); err != nil {
		t.Fatal(err)
	}
	set, err := Open(Config{Chain: other.chain, Dir: "data/indexes", FS: s.fs}, all)
	if err != nil {
		t.Fatal(err) // both chains begin with the same block: all the rest is taken back
	}
	other.set = set
	other.follow()
	other.check()
}
