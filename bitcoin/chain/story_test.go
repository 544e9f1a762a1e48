package chain

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/mempool"
	"github.com/tallypost/tallypost/internal/clock"
)

// story is a chain that is fed by a generator of blocks with names.
type story struct {
	*Chain
	gen   *chaintest.Gen
	t     testing.TB
	cfg   Config
	fs    vfs.FS
	small bool // block files
	store *blockstore.Store
	clock *clock.Mock
}

// asked is the source of blocks that the node wants.
var asked = Source{Requested: true, WorkChecked: true}

func newStory(t testing.TB) *story {
	t.Helper()
	net := bitcoin.Regtest()
	mock := clock.NewMock(time.Unix(int64(net.Genesis.Header.Time)+3600, 0))
	s := &story{gen: chaintest.New(t, net), t: t, clock: mock, fs: vfs.NewMem(),
		cfg: Config{Network: net, Clock: mock}}
	s.open()
	t.Cleanup(func() { s.close() })
	return s
}

// newMature is a story on a chain m.0 to m.100+n-1, n of whose coinbases can be spent.
func newMature(t testing.TB, n int) *story {
	t.Helper()
	s := newStory(t)
	for _, b := range s.gen.Run("m", n+100) {
		s.mustAdd(b)
	}
	return s
}

func (s *story) open() {
	s.t.Helper()
	var err error
	s.store, err = blockstore.Open(blockstore.Config{Network: s.cfg.Network, FS: s.fs, Dir: "data",
		CacheBytes: 4 << 20, SmallFiles: s.small, Pruned: s.cfg.Prune != 0})
	if err != nil {
		s.t.Fatal(err)
	}
	if s.Chain, err = New(s.cfg, s.store); err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) close() {
	s.t.Helper()
	if err := errors.Join(s.Chain.Close(), s.store.Close()); err != nil {
		s.t.Error(err)
	}
}

// restart closes the chain and opens it again.
func (s *story) restart() {
	s.t.Helper()
	s.close()
	s.open()
}

// crash opens the chain again without closing it first: what was not flushed may be lost.
func (s *story) crash() {
	s.t.Helper()
	if err := s.store.Close(); err != nil {
		s.t.Fatal(err)
	}
	s.open()
}

// next makes blocks, each on the one before.
func (s *story) next(names ...string) {
	s.t.Helper()
	for _, name := range names {
		s.gen.Next(name)
	}
}

func (s *story) mustAdd(b *bitcoin.Block) {
	s.t.Helper()
	if _, err := s.Add(context.Background(), b, asked); err != nil {
		s.t.Fatalf("block %s: %v", s.gen.Name(b.Hash()), err)
	}
}

// add takes blocks in and wants no complaint.
func (s *story) add(names ...string) {
	s.t.Helper()
	for _, name := range names {
		s.mustAdd(s.gen.Block(name))
	}
}

// headers takes the headers of blocks in.
func (s *story) headers(names ...string) {
	s.t.Helper()
	for _, name := range names {
		if _, err := s.AddHeaders([]bitcoin.Header{s.gen.Block(name).Header}, true); err != nil {
			s.t.Fatalf("header %s: %v", name, err)
		}
	}
}

// reject wants a block to be refused.
func (s *story) reject(name, reason string) {
	s.t.Helper()
	_, err := s.Add(context.Background(), s.gen.Block(name), asked)
	s.expectReason(name, err, reason)
}

func (s *story) expectReason(name string, err error, reason string) {
	s.t.Helper()
	var e *consensus.Error
	if !errors.As(err, &e) || e.Reason != reason {
		s.t.Errorf("block %s: %v, want %s", name, err, reason)
	}
}

func (s *story) invalidate(name string) {
	s.t.Helper()
	s.must(s.Invalidate(context.Background(), s.hash(name)))
}

func (s *story) reconsider(name string) {
	s.t.Helper()
	s.must(s.Reconsider(context.Background(), s.hash(name)))
}

func (s *story) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) hash(name string) bitcoin.Hash {
	s.t.Helper()
	return s.gen.Block(name).Hash()
}

func (s *story) expectTip(name string) {
	s.t.Helper()
	if got := s.gen.Name(s.Tip().Hash); got != name {
		s.t.Fatalf("tip is %s, want %s", got, name)
	}
	s.expectCoins()
}

func (s *story) expectTips(want map[string]TipStatus) {
	s.t.Helper()
	got := make(map[string]TipStatus)
	for _, tip := range s.Tips() {
		got[s.gen.Name(tip.Hash)] = tip.Status
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.t.Errorf("tips %v, want %v", got, want)
	}
}

func (s *story) expectPool(txs ...*bitcoin.Tx) {
	s.t.Helper()
	s.Mempool(func(p *mempool.Pool, _ *consensus.State) {
		if p.Len() != len(txs) {
			s.t.Errorf("%d transactions in the mempool, want %d", p.Len(), len(txs))
		}
		for i, tx := range txs {
			if p.Get(tx.TxID()) == nil {
				s.t.Errorf("transaction %d of %d is not in the mempool", i, len(txs))
			}
		}
	})
}

// accept takes a transaction in and wants no complaint.
func (s *story) accept(txs ...*bitcoin.Tx) {
	s.t.Helper()
	for i, tx := range txs {
		if _, err := s.AddTx(context.Background(), tx, TxOptions{}); err != nil {
			s.t.Fatalf("transaction %d: %v", i, err)
		}
	}
}

// expectCoins compares the coins with those that the blocks of the active chain leave, worked out
// one by one.
func (s *story) expectCoins() {
	s.t.Helper()
	want := make(map[bitcoin.OutPoint]bitcoin.Amount)
	all := make(map[bitcoin.OutPoint]bool)
	for height := bitcoin.Height(1); height <= s.Tip().Height; height++ {
		e, ok := s.AtHeight(height)
		if !ok {
			s.t.Fatalf("no block of height %d", height)
		}
		b, err := s.Block(e.Hash)
		if err != nil {
			s.t.Fatal(err)
		}
		for i := range b.Txs {
			tx := &b.Txs[i]
			for j := range tx.In {
				delete(want, tx.In[j].PrevOut)
			}
			for j := range tx.Out {
				out := bitcoin.OutPoint{TxID: tx.TxID(), Index: uint32(j)}
				if len(tx.Out[j].Script) > 0 && tx.Out[j].Script[0] != 0x6a {
					want[out], all[out] = tx.Out[j].Value, true
				}
			}
		}
	}
	for out := range all {
		coin, err := s.Coin(out, false)
		if err != nil {
			s.t.Fatal(err)
		}
		if value, there := want[out]; there == coin.IsSpent() || value != coin.Out.Value {
			s.t.Errorf("coin %v:%d is of %v, want %v", out.TxID, out.Index, coin.Out.Value, value)
		}
	}
}

// unlock returns a transaction like one of chaintest.Spend whose script fails.
func unlock(fee bitcoin.Amount, from chaintest.Output) *bitcoin.Tx {
	tx := chaintest.Spend(fee, from)
	tx.In[0].Witness = [][]byte{{0x52}}
	return tx
}
