package chain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// TestSnapshotRefused breaks one thing in each row: nothing of the snapshot may be left then.
func TestSnapshotRefused(t *testing.T) {
	const coins = 51
	for _, row := range []struct {
		name   string
		before func(*assumed)
		file   func([]byte) []byte
		want   string
	}{
		{"unknown block", nil, func(b []byte) []byte { b[11] ^= 1; return b },
			"The following snapshot heights are available: 107"},
		{"no header", func(a *assumed) { a.fs.RemoveAll("data"); a.open() }, nil,
			"must appear in the headers chain. Make sure all headers are syncing, and call loadtxoutset again"},
		{"invalid block", func(a *assumed) { a.invalidate("s3") }, nil, "is part of an invalid chain"},
		{"other branch", func(a *assumed) {
			a.gen.Goto("f3")
			for i := range 6 {
				a.next(fmt.Sprint("g", i))
			}
			a.headers("f1", "f2", "f3", "g0", "g1", "g2", "g3", "g4", "g5")
		}, nil, "A forked headers-chain with more work"},
		{"mempool", func(a *assumed) {
			a.add(a.history[:103]...)
			a.accept(chaintest.Spend(1000, a.gen.Coinbase("m.1")))
		}, nil, "Can't activate a snapshot when mempool not empty"},
		{"less work", func(a *assumed) { a.add(a.history...); a.add("t1") }, nil,
			"Population failed: Work does not exceed active chainstate"},
		{"same block", func(a *assumed) { a.add(a.history...) }, nil,
			"Population failed: Work does not exceed active chainstate"},
		{"cut", nil, func(b []byte) []byte { return b[:len(b)-1] },
			"Population failed: Bad snapshot format or truncated snapshot"},
		{"other coin", nil, func(b []byte) []byte { b[coins] ^= 1; return b },
			"Population failed: Bad snapshot content hash: expected "},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := newAssumed(t, nil)
			file := bytes.Clone(a.file)
			if row.before != nil {
				if row.name == "no header" {
					a.close()
				}
				row.before(a)
			}
			if row.file != nil {
				file = row.file(file)
			}
			tip := a.gen.Name(a.Tip().Hash)
			if err := a.load(file); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, want %s", err, row.want)
			}
			a.expect(tip)
			a.expectDirs("chainstate")
			a.restart()
			a.expect(tip)
			if row.want != "" && row.file != nil { // and the right one can be loaded
				a.must(a.load(a.file))
				a.expect(tip, "s4")
				if err := a.load(a.file); err == nil || !strings.Contains(err.Error(), "more than once") {
					t.Errorf("a second time: %v", err)
				}
			}
		})
	}
}

// TestSnapshotInterrupted: a load that is broken off leaves nothing.
func TestSnapshotInterrupted(t *testing.T) {
	a := newAssumed(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r := bytes.NewReader(a.file)
	head, err := blockstore.ReadSnapshotHead(r, a.cfg.Network)
	a.must(err)
	if _, err := a.LoadSnapshot(ctx, head, r); err == nil {
		t.Error("it was loaded")
	}
	a.expectDirs("chainstate")
	a.must(a.load(a.file))
	a.expect("genesis", "s4")
}

// falsify adds a coin that nobody made.
func falsify(coins *blockstore.Coins) {
	coins.Load(bitcoin.OutPoint{TxID: bitcoin.Hash{7}}, &consensus.Coin{
		Out: bitcoin.TxOut{Value: 1, Script: chaintest.Anyone()}, Origin: consensus.Origin{Height: 5}})
}

// TestSnapshotWrong: the network vouched for coins that its blocks do not lead to. The chain stops with
// Core's words, and the next start goes on without them.
func TestSnapshotWrong(t *testing.T) {
	a := newAssumed(t, falsify)
	a.must(a.load(a.file))
	a.add(a.history...)
	a.add(a.tail...)
	a.expect("s4", "t3")
	var failure *Failure
	done, err := a.ValidateSnapshot(context.Background())
	if done || !errors.As(err, &failure) || !strings.Contains(failure.Text,
		"failed to validate the -assumeutxo snapshot state") || !strings.Contains(failure.Text,
		"resetting the chain height from 110 to 107. On the next restart, the node will resume syncing from 107") {
		t.Fatalf("%v, %v", done, err)
	}
	if a.Fatal() == nil {
		t.Error("the chain goes on")
	}
	a.restart()
	a.expectDirs("chainstate", "chainstate_snapshot_INVALID")
	a.expect("s4")
	_, err = a.Activate(context.Background(), bitcoin.Hash{})
	a.must(err)
	a.expectTip("t3")
}

// TestSnapshotInvalidHistory: a block before the snapshot's breaks a rule. That condemns the snapshot too.
func TestSnapshotInvalidHistory(t *testing.T) {
	a := newAssumed(t, nil)
	a.gen.Goto("s1")
	bad := chaintest.Spend(10, a.gen.Coinbase("m.1"))
	bad.In[0].Witness = [][]byte{{0x52}}
	a.gen.Next("bad", chaintest.With(bad))
	a.next("x1", "x2", "x3", "x4", "x5", "x6")
	src := newStory(t)
	src.gen = a.gen
	src.add(a.history[:104]...)
	a.vouch(src, "s1", func(*blockstore.Coins) {})
	a.cfg.Network.Snapshots[0].Block, a.cfg.Network.Snapshots[0].Height = a.hash("x1"), a.gen.Height("x1")
	const atBase = 11 // where the file says of which block it is
	hash := a.hash("x1")
	copy(a.file[atBase:], hash[:])
	a.restart()
	a.headers("bad", "x1", "x2", "x3", "x4", "x5", "x6")
	a.must(a.load(a.file))
	a.add(a.history[:104]...)
	a.expect("s1", "x1")
	_, err := a.Add(context.Background(), a.gen.Block("bad"), asked)
	if err == nil || a.Fatal() == nil {
		t.Fatalf("%v, and the chain goes on: %v", err, a.Fatal())
	}
	a.restart()
	a.expectDirs("chainstate", "chainstate_snapshot_INVALID")
	a.expect("s1")
	a.add("s2", "s3", "s4")
	a.expectTip("s4")
}

// TestSnapshotUnknown: coins of a snapshot that nobody vouches for are an error of the start.
func TestSnapshotUnknown(t *testing.T) {
	a := newAssumed(t, nil)
	a.must(a.load(a.file))
	a.must(errors.Join(a.Close(), a.store.Close()))
	cfg := a.cfg
	cfg.Network = bitcoin.Regtest()
	store, err := blockstore.Open(blockstore.Config{Network: cfg.Network, FS: a.fs, Dir: "data"})
	a.must(err)
	var failure *Failure
	_, err = New(cfg, store)
	want := fmt.Sprintf("Assumeutxo data not found for the given blockhash '%v'.", a.hash("s4"))
	if !errors.As(err, &failure) || failure.Text != want {
		t.Errorf("%v", err)
	}
	a.must(store.Close())
	a.open()
	a.expect("genesis", "s4")
}

// TestSnapshotWiped: who makes the coins anew loses those of a snapshot, and can load them again.
func TestSnapshotWiped(t *testing.T) {
	for _, index := range []bool{false, true} {
		a := newAssumed(t, nil)
		a.add(a.history[:20]...)
		a.must(a.load(a.file))
		a.add("t1")
		a.close()
		var err error
		a.store, err = blockstore.Open(blockstore.Config{Network: a.cfg.Network, FS: a.fs, Dir: "data",
			CacheBytes: 4 << 20, WipeIndex: index, WipeCoins: !index})
		a.must(err)
		a.Chain, err = New(a.cfg, a.store)
		a.must(err)
		a.must(a.Reindex(context.Background()))
		_, err = a.Activate(context.Background(), bitcoin.Hash{})
		a.must(err)
		a.expectDirs("chainstate")
		a.expect("m.19")
		a.headers(a.history...)
		a.headers("t1")
		a.must(a.load(a.file))
		a.add("t1")
		a.expect("m.19", "t1")
	}
}
