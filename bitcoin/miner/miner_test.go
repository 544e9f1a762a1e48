package miner

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/internal/clock"
)

// mine is a chain with coinbases that can be spent, and a clock.
type mine struct {
	*chain.Chain
	t     testing.TB
	gen   *chaintest.Gen
	clock *clock.Mock
}

func newMine(t testing.TB, mature int) *mine {
	t.Helper()
	net := bitcoin.Regtest()
	m := &mine{t: t, gen: chaintest.New(t, net),
		clock: clock.NewMock(time.Unix(int64(net.Genesis.Header.Time)+36000, 0))}
	store, err := blockstore.Open(blockstore.Config{Network: net, FS: vfs.NewMem(), Dir: "data",
		CacheBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if m.Chain, err = chain.New(chain.Config{Network: net, Clock: m.clock}, store); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(m.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	for _, b := range m.gen.Run("m", mature+100) {
		m.add(b)
	}
	return m
}

func (m *mine) add(b *bitcoin.Block) {
	m.t.Helper()
	outcome, err := m.Add(context.Background(), b, chain.Source{Requested: true, WorkChecked: true})
	if err != nil || outcome != chain.Connected {
		m.t.Fatalf("block %v: outcome %d, %v", b.Hash(), outcome, err)
	}
}

func (m *mine) offer(txs ...*bitcoin.Tx) {
	m.t.Helper()
	for _, tx := range txs {
		if _, err := m.AddTx(context.Background(), tx, chain.TxOptions{}); err != nil {
			m.t.Fatal(err)
		}
	}
}

func (m *mine) template(opts Options) *Template {
	m.t.Helper()
	t, err := NewTemplate(m.Chain, opts, m.clock.Now())
	if err != nil {
		m.t.Fatal(err)
	}
	return t
}

// solved finds the proof of work and gives the block as it comes from outside.
func (m *mine) solved(t *Template) *bitcoin.Block {
	m.t.Helper()
	tries := uint64(1 << 20)
	if !Solve(context.Background(), m.Network(), &t.Block.Header, &tries) {
		m.t.Fatal("no proof of work found")
	}
	b, err := bitcoin.ParseBlock(t.Block.Append(nil))
	if err != nil {
		m.t.Fatal(err)
	}
	return b
}

func TestTemplateIsMined(t *testing.T) {
	m := newMine(t, 2)
	one := chaintest.Spend(3000, m.gen.Coinbase("m.0"))
	child := chaintest.Spend(9000, chaintest.OutputOf(one, 0))
	other := chaintest.Spend(1000, m.gen.Coinbase("m.1"))
	m.offer(one, child, other)
	tmpl := m.template(Options{Coinbase: chaintest.Anyone()})
	height := m.Tip().Height + 1
	cb := &tmpl.Block.Txs[0]
	if want := consensus.Subsidy(m.Network(), height) + 13_000; cb.Out[0].Value != want {
		t.Errorf("the reward is %d, want %d", cb.Out[0].Value, want)
	}
	if cb.LockTime != uint32(height-1) || cb.In[0].Sequence == 0xffffffff {
		t.Error("the lock time of the coinbase does not keep it unique")
	}
	if got := fmt.Sprint(tmpl.Fees); got != "[0.00003000 0.00009000 0.00001000]" {
		t.Errorf("fees %s: the pair that pays best comes first", got)
	}
	want := int64(DefaultReservedWeight + one.Weight() + child.Weight() + other.Weight())
	if tmpl.Weight != want || len(tmpl.Commitment) == 0 {
		t.Errorf("weight %d, want %d; commitment %x", tmpl.Weight, want, tmpl.Commitment)
	}
	b := m.solved(tmpl)
	if err := Check(context.Background(), m.Chain, b, 0, m.clock.Now()); err != nil {
		t.Error(err)
	}
	m.add(b)
	if tmpl := m.template(Options{}); len(tmpl.Fees) != 0 {
		t.Errorf("%d transactions are to be mined again", len(tmpl.Fees))
	}
}

func TestTemplateOptions(t *testing.T) {
	m := newMine(t, 2)
	cheap := chaintest.Spend(100, m.gen.Coinbase("m.0"))
	dear := chaintest.Spend(50_000, m.gen.Coinbase("m.1"))
	m.offer(cheap, dear)
	for _, row := range []struct {
		name string
		opts Options
		want int
	}{
		{"all", Options{MinRate: -1}, 2},
		{"none", Options{NoTxs: true}, 0},
		{"what pays enough", Options{MinRate: 2000}, 1},
		{"what there is room for", Options{MaxWeight: DefaultReservedWeight + dear.Weight() + 1}, 1},
		{"no room", Options{MaxWeight: DefaultReservedWeight + 10}, 0},
	} {
		if got := len(m.template(row.opts).Fees); got != row.want {
			t.Errorf("%s: %d transactions, want %d", row.name, got, row.want)
		}
	}
	if v := m.template(Options{Version: 77}).Block.Header.Version; v != 77 {
		t.Errorf("version %d, want 77", v)
	}
}

func TestCheck(t *testing.T) {
	m := newMine(t, 1)
	ctx := context.Background()
	for _, row := range []struct {
		want string
		skip consensus.Skip
		wear func(*bitcoin.Block)
	}{
		{"bad-cb-amount", 0, func(b *bitcoin.Block) { b.Txs[0].Out[0].Value++ }},
		{"bad-cb-height", 0, func(b *bitcoin.Block) { b.Txs[0].In[0].Script[1]++ }},
		{"time-too-old", 0, func(b *bitcoin.Block) { b.Header.Time = m.Network().Genesis.Header.Time }},
		{"bad-diffbits", 0, func(b *bitcoin.Block) { b.Header.Bits-- }},
		{"bad-txnmrklroot", consensus.SkipProofOfWork, func(b *bitcoin.Block) { b.Header.MerkleRoot[0]++ }},
	} {
		tmpl := m.template(Options{Coinbase: chaintest.Anyone()})
		row.wear(tmpl.Block)
		if row.skip == 0 {
			root, _ := tmpl.Block.Clone().MerkleRoot()
			tmpl.Block.Header.MerkleRoot = root
		}
		b, err := bitcoin.ParseBlock(tmpl.Block.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		if row.skip == 0 {
			b.Header.MerkleRoot, _ = b.MerkleRoot()
		}
		err = Check(ctx, m.Chain, b, consensus.SkipProofOfWork, m.clock.Now())
		var e *consensus.Error
		if !errors.As(err, &e) || e.Reason != row.want {
			t.Errorf("got %v, want %s", err, row.want)
		}
	}
	stale := m.solved(m.template(Options{Coinbase: chaintest.Anyone()}))
	m.add(m.solved(m.template(Options{Coinbase: []byte{0x51}})))
	if err := Check(ctx, m.Chain, stale, 0, m.clock.Now()); !errors.Is(err, ErrTipChanged) {
		t.Errorf("a block that comes too late: %v", err)
	}
}

// TestMinTime: the first block of a period may not be much older than the last of the one before.
func TestMinTime(t *testing.T) {
	net := bitcoin.Regtest()
	s := consensus.Genesis(net)
	for s.Height < net.RetargetInterval()-1 {
		h := s.Header
		h.PrevBlock, h.Time = s.Hash, s.Header.Time+1
		if s.Height == net.RetargetInterval()-2 {
			h.Time += 7000
		}
		s = s.Apply(&h, h.Hash())
	}
	if got, want := MinTime(&s), s.Header.Time-maxTimeWarp; got != want {
		t.Errorf("first of a period: %d, want %d", got, want)
	}
	h := s.Header
	h.PrevBlock = s.Hash
	next := s.Apply(&h, h.Hash())
	if got, want := MinTime(&next), next.MedianTimePast()+1; got != want {
		t.Errorf("any other: %d, want %d", got, want)
	}
	var header bitcoin.Header
	UpdateTime(&header, &s, time.Unix(0, 0))
	if header.Time != s.Header.Time-maxTimeWarp {
		t.Errorf("with a clock that is wrong: %d", header.Time)
	}
}

func TestSolveEnds(t *testing.T) {
	net := bitcoin.Mainnet()
	h := net.Genesis.Header
	h.Nonce = 0
	tries := uint64(5000)
	if Solve(context.Background(), net, &h, &tries) || tries != 0 {
		t.Errorf("%d tries are left", tries)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	tries = 1 << 40
	if Solve(ctx, net, &h, &tries) {
		t.Error("found where nobody looks any more")
	}
}
