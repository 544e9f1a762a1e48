package chain

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// genesis -> a1 -> a2
//
//	\-> b1 -> b2 -> b3
func TestMoreWorkWins(t *testing.T) {
	s := newStory(t)
	s.next("a1", "a2")
	s.add("a1", "a2")
	s.gen.Goto("genesis")
	s.next("b1", "b2", "b3")
	s.headers("b1", "b2")
	s.add("b2", "b1") // equal work: the first seen stays
	s.expectTip("a2")
	s.expectTips(map[string]TipStatus{"a2": TipActive, "b2": TipValidHeaders})
	s.add("b3")
	s.expectTip("b3")
	s.expectTips(map[string]TipStatus{"b3": TipActive, "a2": TipValidFork})
	s.restart()
	s.expectTip("b3")
	s.expectTips(map[string]TipStatus{"b3": TipActive, "a2": TipValidFork})
}

//	... m.102 -> a1 -> a2 -> a3
//	         \-> b1 -> b2 -> b3 -> b4
//	         \-> c1 -> ... -> c5
//
// Each branch spends the same coinbase another way, and what it made itself.
func TestReorganizeWithSpends(t *testing.T) {
	s := newMature(t, 3)
	s.must(s.Flush(context.Background()))
	for _, branch := range []struct {
		name   string
		blocks int
	}{{"a", 3}, {"b", 4}, {"c", 5}} {
		s.gen.Goto("m.102")
		from := s.gen.Coinbase("m.1")
		for i := 1; i <= branch.blocks; i++ {
			one := chaintest.Spend(1000, from)
			two := chaintest.Spend(bitcoin.Amount(branch.name[0]), chaintest.OutputOf(one, 0))
			s.gen.Next(fmt.Sprint(branch.name, i), chaintest.With(one, two))
			from = chaintest.OutputOf(two, 0)
			s.add(fmt.Sprint(branch.name, i))
		}
		s.expectTip(fmt.Sprint(branch.name, branch.blocks))
	}
	s.invalidate("c2")
	s.expectTip("b4")
	s.invalidate("b1")
	s.expectTip("a3")
	s.crash()
	s.must(s.wait())
	s.expectTip("m.102") // nothing was flushed after the blocks
}

// wait lets the chain do what it can.
func (s *story) wait() error {
	_, err := s.Activate(context.Background(), bitcoin.Hash{})
	return err
}

// TestCrashLosesOnlyCoins: what the index has need not come again.
func TestCrashLosesOnlyCoins(t *testing.T) {
	s := newMature(t, 1)
	s.must(s.Flush(context.Background()))
	s.next("a1", "a2", "a3")
	s.add("a1", "a2", "a3")
	s.must(s.save())
	s.crash()
	s.expectTip("m.100")
	s.must(s.wait())
	s.expectTip("a3")
}

//	m.100 -> b1 -> bad -> b3 -> b4
//	     \-> c1 -> c2
//
// The scripts of bad fail while those after it are connected already.
func TestScriptFailureTakesBackWhatFollows(t *testing.T) {
	s := newMature(t, 1)
	s.next("b1")
	s.gen.Next("bad", chaintest.With(unlock(1, s.gen.Coinbase("m.0"))))
	s.next("b3")
	s.gen.Next("b4")
	s.headers("b1", "bad", "b3", "b4")
	for _, name := range []string{"b4", "b3", "bad"} { // stored, and all connected when b1 comes
		s.add(name)
	}
	s.add("b1")
	s.must(s.wait())
	s.expectTip("b1")
	const reason = "block-script-verify-flag-failed (Witness program hash mismatch)"
	if _, err := s.Activate(context.Background(), s.hash("bad")); err == nil {
		t.Error("the bad block is not known to be bad")
	} else {
		s.expectReason("bad", err, reason)
	}
	_, err := s.Activate(context.Background(), s.hash("b4"))
	s.expectReason("b4", err, "bad-prevblk")
	s.expectTips(map[string]TipStatus{"b1": TipActive, "b4": TipInvalid})
	s.gen.Goto("m.100")
	s.next("c1", "c2")
	s.add("c1")
	s.expectTip("b1")
	s.add("c2")
	s.expectTip("c2")
	s.restart()
	s.reject("bad", "duplicate-invalid")
	s.gen.Goto("b4")
	s.next("b5")
	s.reject("b5", "bad-prevblk")
}

// TestEachWayToBeWrong breaks one thing a row; the tip stays and a good block goes on.
func TestEachWayToBeWrong(t *testing.T) {
	rows := []struct {
		name, reason string
		step         func(s *story) func(*chaintest.Draft)
		marked       bool // the header is marked as invalid
	}{
		{"amount", "bad-cb-amount", func(*story) func(*chaintest.Draft) {
			return func(d *chaintest.Draft) { d.Txs[0].Out[0].Value++ }
		}, true},
		{"missing coin", "bad-txns-inputs-missingorspent", func(s *story) func(*chaintest.Draft) {
			out := s.gen.Coinbase("m.0")
			out.Index = 7
			return chaintest.With(chaintest.Spend(1, out))
		}, true},
		{"immature", "bad-txns-premature-spend-of-coinbase", func(s *story) func(*chaintest.Draft) {
			return chaintest.With(chaintest.Spend(1, s.gen.Coinbase("m.5")))
		}, true},
		{"script", "block-script-verify-flag-failed (Witness program hash mismatch)",
			func(s *story) func(*chaintest.Draft) {
				return chaintest.With(unlock(1, s.gen.Coinbase("m.0")))
			}, true},
		{"height in coinbase", "bad-cb-height", func(*story) func(*chaintest.Draft) {
			return func(d *chaintest.Draft) { d.Txs[0].In[0].Script = []byte{1, 1, 1, 1} }
		}, true},
		{"Merkle root", "bad-txnmrklroot", func(*story) func(*chaintest.Draft) {
			return func(d *chaintest.Draft) { d.AsIs = true }
		}, false},
		{"stripped witness", "bad-witness-merkle-match", func(s *story) func(*chaintest.Draft) {
			return func(d *chaintest.Draft) {
				chaintest.With(chaintest.Spend(1, s.gen.Coinbase("m.0")))(d)
				chaintest.Finish(d)
				d.Txs[1].In[0].Witness = [][]byte{{1}, {2}}
				d.AsIs = true
			}
		}, false},
	}
	s := newMature(t, 1)
	for i, row := range rows {
		s.gen.Next(row.name, row.step(s))
		s.reject(row.name, row.reason)
		s.expectTip(fmt.Sprint("m.", 100+i))
		e, known := s.Lookup(s.hash(row.name))
		if marked := known && e.Status&blockstore.Failed != 0; marked != row.marked {
			t.Errorf("%s: marked %v, want %v", row.name, marked, row.marked)
		}
		if row.marked {
			s.reject(row.name, "duplicate-invalid")
		}
		s.gen.Goto(fmt.Sprint("m.", 100+i))
		s.next(fmt.Sprint("m.", 101+i))
		s.add(fmt.Sprint("m.", 101+i))
	}
	s.must(s.Close())
	if err := s.Fatal(); err != nil {
		t.Error(err)
	}
}

// genesis -> a1 -> a2 -> a3
//
//	\-> b2 -> b3
func TestInvalidateAndReconsider(t *testing.T) {
	s := newStory(t)
	s.next("a1", "a2", "a3")
	s.add("a1", "a2", "a3")
	s.gen.Goto("a1")
	s.next("b2", "b3")
	s.add("b2", "b3")
	s.expectTip("a3")
	s.invalidate("a2")
	s.expectTip("b3")
	s.expectTips(map[string]TipStatus{"b3": TipActive, "a3": TipInvalid})
	if best := s.gen.Name(s.BestHeader().Hash); best != "b3" {
		t.Errorf("best header is %s", best)
	}
	s.restart()
	s.expectTip("b3")
	s.reconsider("a3") // its ancestors too
	s.expectTip("b3")
	s.expectTips(map[string]TipStatus{"b3": TipActive, "a3": TipValidFork})
	s.must(s.Precious(context.Background(), s.hash("a3")))
	s.expectTip("a3")
	s.must(s.Precious(context.Background(), s.hash("b3")))
	s.expectTip("b3")
	s.must(s.Precious(context.Background(), s.hash("a2"))) // less work: nothing happens
	s.expectTip("b3")
	s.invalidate("a1")
	s.expectTip("genesis")
	s.reconsider("b3") // and with it a1, so that a2 and a3 are children of a valid block again
	s.expectTip("b3")
	if err := s.Invalidate(context.Background(), s.hash("genesis")); !errors.Is(err, ErrGenesis) {
		t.Errorf("invalidate the genesis block: %v", err)
	}
	if err := s.Reconsider(context.Background(), bitcoin.Hash{1}); !errors.Is(err, ErrUnknownBlock) {
		t.Errorf("reconsider an unknown block: %v", err)
	}
}

// genesis -> a1 -> bad1 -> ... -> bad8
//
// What follows an invalid block is told of once it is more than six blocks ahead, also after a restart, and no
// more once it is forgiven.
func TestLargeInvalidFork(t *testing.T) {
	s := newStory(t)
	s.next("a1")
	s.add("a1")
	s.gen.Next("bad1", func(d *chaintest.Draft) { d.Txs[0].Out[0].Value++ })
	names := []string{"bad1"}
	for i := 2; i <= 8; i++ {
		names = append(names, fmt.Sprint("bad", i))
		s.next(names[i-1])
	}
	s.headers(names...)
	woken := make(chan struct{}, 1)
	defer s.OnTip(func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	})()
	for i := len(names) - 1; i > 0; i-- {
		s.add(names[i])
	}
	if s.LargeInvalidFork() {
		t.Error("a warning of blocks that nobody has judged")
	}
	for len(woken) > 0 {
		<-woken
	}
	s.reject("bad1", "bad-cb-amount")
	s.expectTip("a1")
	if !s.LargeInvalidFork() || len(woken) == 0 {
		t.Errorf("no warning of eight blocks, or nobody was woken (%d)", len(woken))
	}
	s.restart()
	if !s.LargeInvalidFork() {
		t.Error("no warning after a restart")
	}
	s.gen.Goto("a1")
	for i := 2; i <= 3; i++ {
		s.next(fmt.Sprint("a", i))
		s.add(fmt.Sprint("a", i))
	}
	if s.LargeInvalidFork() {
		t.Error("a warning of six blocks")
	}
	s.invalidate("a2")
	if !s.LargeInvalidFork() {
		t.Error("no warning of eight blocks once more")
	}
}

// TestUnrequestedBlocks wants blocks that nobody asked for only where they could be of use.
func TestUnrequestedBlocks(t *testing.T) {
	s := newStory(t)
	blocks := s.gen.Run("m", MinBlocksToKeep+3)
	for _, b := range blocks {
		s.headers(s.gen.Name(b.Hash()))
	}
	unasked := Source{WorkChecked: true}
	take := func(name string, want Outcome) {
		t.Helper()
		got, err := s.Add(context.Background(), s.gen.Block(name), unasked)
		if err != nil || got != want {
			t.Errorf("block %s: %v, %v, want %v", name, got, err, want)
		}
	}
	take(fmt.Sprint("m.", MinBlocksToKeep), Ignored) // too far ahead of the tip
	take(fmt.Sprint("m.", MinBlocksToKeep-1), Stored)
	take("m.0", Connected)
	take("m.0", Ignored)
	take("m.1", Connected)
	s.gen.Goto("genesis")
	s.next("b1")
	take("b1", Ignored) // less work than the tip
	s.gen.Goto("m.1")
	s.next("c2")
	work := bitcoin.Uint256{1 << 20}
	s.Chain.cfg.MinimumChainWork = &work
	take("c2", Ignored)
	_, err := s.Add(context.Background(), s.gen.Block("c2"), Source{Requested: true})
	if err != nil {
		t.Error(err) // the header is known
	}
	s.next("c3")
	_, err = s.Add(context.Background(), s.gen.Block("c3"), Source{Requested: true})
	s.expectReason("c3", err, "too-little-chainwork")
}

func TestHeaders(t *testing.T) {
	s := newStory(t)
	s.next("a1", "a2", "a3")
	header := func(name string) bitcoin.Header { return s.gen.Block(name).Header }
	late := header("a1")
	late.Time = uint32(s.clock.Now().Add(3 * time.Hour).Unix())
	chaintest.Solve(s.cfg.Network, &late)
	lazy := header("a1")
	for lazy.Nonce = 0; bitcoin.MeetsTarget(lazy.Hash(), lazy.Bits, s.cfg.Network.PowLimit); {
		lazy.Nonce++
	}
	for _, row := range []struct {
		headers []bitcoin.Header
		reason  string
	}{
		{[]bitcoin.Header{header("a2")}, "prev-blk-not-found"},
		{[]bitcoin.Header{late}, "time-too-new"},
		{[]bitcoin.Header{lazy}, "high-hash"},
		{[]bitcoin.Header{header("a1"), header("a3")}, "prev-blk-not-found"},
	} {
		_, err := s.AddHeaders(row.headers, true)
		s.expectReason(row.reason, err, row.reason)
	}
	if _, err := s.AddHeaders([]bitcoin.Header{header("a2")}, false); err == nil {
		t.Error("a header without work checked was taken")
	}
	last, err := s.AddHeaders([]bitcoin.Header{header("a2"), header("a3")}, true)
	if err != nil || last.Hash != s.hash("a3") || last.Height != 3 {
		t.Errorf("last header %+v, %v", last, err)
	}
	s.expectTips(map[string]TipStatus{"genesis": TipActive, "a3": TipHeadersOnly})
	s.restart() // headers are kept
	if best := s.gen.Name(s.BestHeader().Hash); best != "a3" {
		t.Errorf("best header is %s", best)
	}
}

// TestAddFromManyGoroutines feeds a long chain with spends and a rival branch from many goroutines
// in a random order. All must agree in the end.
func TestAddFromManyGoroutines(t *testing.T) {
	s := newMature(t, 20)
	var names []string
	for i := range 20 {
		name := fmt.Sprint("a.", i)
		one := chaintest.Spend(1, s.gen.Coinbase(fmt.Sprint("m.", i)))
		two := chaintest.Spend(1, chaintest.OutputOf(one, 0))
		s.gen.Next(name, chaintest.With(one, two))
		names = append(names, name)
	}
	s.gen.Goto("a.4")
	for i := range 10 {
		s.gen.Next(fmt.Sprint("b.", i))
		names = append(names, fmt.Sprint("b.", i))
	}
	for _, name := range names {
		s.headers(name)
	}
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	work := make(chan string)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for name := range work {
				if _, err := s.Add(context.Background(), s.gen.Block(name), asked); err != nil {
					t.Errorf("block %s: %v", name, err)
				}
			}
		})
	}
	for _, name := range names {
		work <- name
	}
	close(work)
	wg.Wait()
	s.expectTip("a.19")
	s.restart()
	s.expectTip("a.19")
}

// TestContextEndsActivation: who gives up leaves the chain in order, and the next goes on.
func TestContextEndsActivation(t *testing.T) {
	s := newMature(t, 1)
	s.next("a1", "a2")
	s.headers("a1")
	s.add("a2")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	outcome, err := s.Add(ctx, s.gen.Block("a1"), asked)
	if !errors.Is(err, context.Canceled) || outcome != Stored {
		t.Errorf("%v, %v", outcome, err)
	}
	s.expectTip("m.100")
	s.must(s.wait())
	s.expectTip("a2")
}

func TestStateOfAnyBlock(t *testing.T) {
	s := newStory(t)
	state := consensus.Genesis(s.cfg.Network)
	want := map[bitcoin.Hash]consensus.State{state.Hash: state}
	var headers []bitcoin.Header
	for _, b := range s.gen.Run("m", 2*stateInterval+100) {
		state = state.Apply(&b.Header, b.Hash())
		want[state.Hash] = state
		headers = append(headers, b.Header)
	}
	if _, err := s.AddHeaders(headers, true); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		for range 200 {
			i := rand.IntN(len(headers))
			hash := headers[i].Hash()
			if got, ok := s.State(hash); !ok || got != want[hash] {
				t.Fatalf("state of block %d is not what applying all headers gives", i+1)
			}
			e, _ := s.Lookup(hash)
			if state := want[hash]; e.Median != state.MedianTimePast() || e.Work != state.Work {
				t.Fatalf("block %d: median %d, work %v", i+1, e.Median, e.Work)
			}
		}
	}
	check()
	s.restart()
	check()
}
