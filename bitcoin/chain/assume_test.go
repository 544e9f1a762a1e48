package chain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
)

// assumed is a story on a network that vouches for the coins as of the block s4:
//
//	m.0 -> … -> m.102 -> s1 -> s2 -> s3 -> s4 -> t1 -> t2 -> t3
//	                 \-> f1 -> f2 -> f3
//
// with a spend in each s and t. It has the headers up to t3 and no block.
type assumed struct {
	*story
	file    []byte // the coins as of s4
	history []string
	tail    []string
}

// newAssumed makes the file from a chain that has the blocks; falsify may change its coins before that, and
// the network vouches for what comes out.
func newAssumed(t testing.TB, falsify func(*blockstore.Coins)) *assumed {
	t.Helper()
	src := newMature(t, 3)
	a := &assumed{}
	for i := range 103 {
		a.history = append(a.history, fmt.Sprintf("m.%d", i))
	}
	a.story = newStory(t)
	a.gen = src.gen
	from := a.gen.Coinbase("m.0")
	spend := func(name string) {
		tx := chaintest.Spend(bitcoin.Amount(len(name)), from)
		from = chaintest.OutputOf(tx, 0)
		a.gen.Next(name, chaintest.With(tx))
	}
	for _, name := range []string{"s1", "s2", "s3", "s4"} {
		spend(name)
		src.add(name)
		a.history = append(a.history, name)
	}
	a.vouch(src, "s4", falsify)
	for _, name := range []string{"t1", "t2", "t3"} {
		spend(name)
		a.tail = append(a.tail, name)
	}
	a.gen.Goto("m.102")
	a.next("f1", "f2", "f3")
	a.headers(a.history...)
	a.headers(a.tail...)
	return a
}

// vouch makes the file and the network's word for it, and begins the chain that knows of it.
func (a *assumed) vouch(src *story, block string, falsify func(*blockstore.Coins)) {
	a.t.Helper()
	if falsify != nil {
		falsify(src.main.coins)
		a.must(src.main.coins.FlushLoaded(src.hash(block)))
	}
	coins, err := src.Snapshot(context.Background())
	a.must(err)
	var file bytes.Buffer
	dumped, err := coins.Dump(context.Background(), &file)
	a.must(errors.Join(err, coins.Close()))
	a.file = file.Bytes()
	a.close()
	net := *bitcoin.Regtest()
	net.Snapshots = []bitcoin.Snapshot{{Height: a.gen.Height(block), Block: a.hash(block),
		CoinsHash: dumped.Hash, ChainTxs: src.Tip().ChainTxs}}
	a.cfg.Network = &net
	a.open()
}

// load reads the file, or another, as loadtxoutset does.
func (a *assumed) load(file []byte) error {
	r := bytes.NewReader(file)
	head, err := blockstore.ReadSnapshotHead(r, a.cfg.Network)
	if err != nil {
		return err
	}
	_, err = a.LoadSnapshot(context.Background(), head, r)
	return err
}

// finish is what a node does at its start once a snapshot is valid.
func (a *assumed) finish() (done bool) {
	a.t.Helper()
	done, err := a.ValidateSnapshot(context.Background())
	a.must(err)
	if done {
		a.must(errors.Join(a.Close(), a.store.Promote()))
		a.Chain, err = New(a.cfg, a.store)
		a.must(err)
	}
	return done
}

// expect wants the tips of the chainstates, the history's first.
func (a *assumed) expect(tips ...string) {
	a.t.Helper()
	var got []string
	list := a.Chainstates()
	for _, s := range list {
		got = append(got, a.gen.Name(s.Tip.Hash))
		if validated := s.Base == (bitcoin.Hash{}) || len(list) == 1; s.Validated != validated {
			a.t.Errorf("chainstate at %s: validated is %v", a.gen.Name(s.Tip.Hash), s.Validated)
		}
	}
	if !slices.Equal(got, tips) {
		a.t.Fatalf("chainstates at %v, want %v", got, tips)
	}
	if behind := a.BackgroundSync(); behind != (len(tips) > 1) {
		a.t.Errorf("background sync is %v", behind)
	}
}

func (a *assumed) expectDirs(names ...string) {
	a.t.Helper()
	list, err := a.fs.List("data")
	a.must(err)
	list = slices.DeleteFunc(list, func(name string) bool { return !strings.HasPrefix(name, "chainstate") })
	slices.Sort(list)
	if !slices.Equal(list, names) {
		a.t.Errorf("directories %v, want %v", list, names)
	}
}

// TestSnapshot goes all the way, with a restart after each step: coins are loaded, the tip goes on from them,
// the history comes as it comes, both agree, and one is left.
func TestSnapshot(t *testing.T) {
	a := newAssumed(t, nil)
	a.must(a.load(a.file))
	a.expect("genesis", "s4")
	step := func(tips ...string) {
		t.Helper()
		a.expect(tips...)
		a.restart()
		a.expect(tips...)
	}
	step("genesis", "s4")
	if e, _ := a.Lookup(a.hash("s4")); e.ChainTxs != 112 || e.Txs != 0 {
		t.Errorf("s4 has %d transactions, %d up to it", e.Txs, e.ChainTxs)
	}
	a.add("t1", "t2")
	step("genesis", "t2")
	slices.Reverse(a.history[50:60])
	a.add(a.history[:50]...)
	step("m.49", "t2")
	a.add(a.history[50:59]...)
	step("m.49", "t2")
	a.add(a.history[59])
	step("m.59", "t2")
	a.add("s4", "t3") // out of their order
	step("m.59", "t3")
	a.add(a.history[60:106]...)
	step("s4", "t3")
	if done, err := a.ValidateSnapshot(context.Background()); !done || err != nil {
		t.Fatalf("validated is %v, %v", done, err)
	}
	a.expect("t3")
	a.expectTip("t3")
	a.expectDirs("chainstate", "chainstate_snapshot")
	a.restart()
	if !a.finish() {
		t.Fatal("the start does not see that all is validated")
	}
	step("t3")
	a.expectDirs("chainstate")
	a.expectTip("t3")
	if a.Chainstates()[0].Base != (bitcoin.Hash{}) {
		t.Error("a snapshot is left")
	}
}

// TestSnapshotRunValidates: Run sees that the history has come to its end.
func TestSnapshotRunValidates(t *testing.T) {
	a := newAssumed(t, nil)
	a.must(a.load(a.file))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	woken := make(chan struct{}, 1)
	defer a.OnTip(func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	})()
	a.add(a.history...)
	for a.BackgroundSync() {
		<-woken
	}
	cancel()
	a.must(<-ended)
	a.expect("s4")
}

// TestSnapshotFromOtherBranch: the history leaves its branch once that of the snapshot has more work.
func TestSnapshotFromOtherBranch(t *testing.T) {
	a := newAssumed(t, nil)
	a.add(a.history[:103]...)
	a.add("f1", "f2")
	a.must(a.load(a.file))
	a.expect("f2", "s4")
	a.restart()
	a.add("s1", "s2")
	a.expect("f2", "s4")
	a.add("s3")
	a.expect("s3", "s4")
	a.add("s4")
	a.expect("s4", "s4")
	if !a.finish() {
		t.Fatal("not validated")
	}
	a.add(a.tail...)
	a.expectTip("t3")
}

// TestSnapshotHoldsTheBranch: while the history lasts no branch is followed that leaves below the snapshot,
// and nobody can take its blocks back; then both go.
func TestSnapshotHoldsTheBranch(t *testing.T) {
	a := newAssumed(t, nil)
	a.add(a.history[:103]...)
	a.must(a.load(a.file))
	a.gen.Goto("f3")
	a.next("f4", "f5")
	a.add("f1", "f2", "f3", "f4", "f5")
	a.expect("m.102", "s4")
	a.restart()
	a.expect("m.102", "s4")
	for _, name := range []string{"s4", "s2", "m.5"} {
		if err := a.Invalidate(context.Background(), a.hash(name)); !errors.Is(err, ErrAssumed) {
			t.Errorf("invalidate %s: %v", name, err)
		}
	}
	a.add(a.history[103:]...)
	if done, err := a.ValidateSnapshot(context.Background()); !done || err != nil {
		t.Fatalf("validated is %v, %v", done, err)
	}
	_, err := a.Activate(context.Background(), bitcoin.Hash{})
	a.must(err)
	a.expectTip("f5")
	a.invalidate("f1")
	a.expectTip("s4")
}

// TestSnapshotFollowers: who wants every block gets those of the history first, and then the others.
func TestSnapshotFollowers(t *testing.T) {
	a := newAssumed(t, nil)
	a.add(a.history[:10]...)
	a.must(a.load(a.file))
	a.add(a.tail...)
	var at Cursor
	var seen []string
	follow := func() {
		for {
			u, err := a.ValidatedSince(at, 7)
			a.must(err)
			if len(u.Applied)+len(u.Reverted) == 0 {
				return
			}
			if len(u.Reverted) > 0 {
				t.Errorf("%d blocks are taken back", len(u.Reverted))
			}
			for _, e := range u.Applied {
				seen = append(seen, a.gen.Name(e.Hash))
			}
			at = u.Next
		}
	}
	follow()
	if last := seen[len(seen)-1]; last != "m.9" || a.gen.Name(a.ValidatedTip().Hash) != "m.9" {
		t.Errorf("followed up to %s", last)
	}
	a.add(a.history[10:]...)
	follow()
	a.finish()
	follow()
	want := append(append([]string{"genesis"}, a.history...), a.tail...)
	if !slices.Equal(seen, want) {
		t.Errorf("seen %v", seen)
	}
}

// TestSnapshotVerify: both chainstates are looked at again, as far as there are blocks.
func TestSnapshotVerify(t *testing.T) {
	a := newAssumed(t, nil)
	a.must(a.load(a.file))
	a.add("t1", "t2", "s4")
	a.add(a.history[:30]...)
	ctx := context.Background()
	if result, err := a.Verify(ctx, 4, 10, nil); result != VerifyNoData || err != nil {
		t.Errorf("main: %v, %v", result, err)
	}
	if result, err := a.VerifyHistory(ctx, 4, 10); result != VerifySound || err != nil {
		t.Errorf("history: %v, %v", result, err)
	}
	a.add(a.history[30:]...)
	if result, err := a.VerifyHistory(ctx, 4, 10); result != VerifySound || err != nil {
		t.Errorf("history: %v, %v", result, err)
	}
	a.finish()
	if result, err := a.Verify(ctx, 4, 10, nil); result != VerifySound || err != nil {
		t.Errorf("one: %v, %v", result, err)
	}
	if result, err := a.VerifyHistory(ctx, 4, 10); result != VerifySound || err != nil {
		t.Errorf("no history: %v, %v", result, err)
	}
}

// TestSnapshotPrune: old and new blocks are in files of their own, and each chainstate deletes its.
func TestSnapshotPrune(t *testing.T) {
	a := newAssumed(t, nil)
	a.close()
	a.small, a.cfg.Prune, a.cfg.FastPrune = true, PruneManual, true
	a.open()
	a.add(a.history[:5]...)
	a.must(a.load(a.file))
	a.add("t1")
	a.restart()
	a.add(a.history[5:40]...)
	a.add("t2", "t3")
	for _, name := range append(slices.Clone(a.history[:40]), a.tail...) {
		e, ok := a.Lookup(a.hash(name))
		if old := name[0] == 'm'; !ok || old != (e.File == 0) {
			t.Errorf("block %s is in file %d", name, e.File)
		}
	}
	a.gen.Goto("t3")
	for _, b := range a.gen.Run("u", 700) {
		a.mustAdd(b)
	}
	expectFiles := func(want ...string) {
		t.Helper()
		files := a.files()
		slices.Sort(files)
		if !slices.Equal(files, want) {
			t.Errorf("files %v, want %v", files, want)
		}
	}
	a.must(a.PruneTo(context.Background(), 500))
	expectFiles("00000.dat", "00002.dat", "00003.dat")
	a.add(a.history[40:]...)
	a.finish()
	a.expect("u.699")
	a.must(a.PruneTo(context.Background(), 500))
	expectFiles("00002.dat", "00003.dat")
}
