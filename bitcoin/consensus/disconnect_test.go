package consensus

import (
	"errors"
	"maps"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// connected returns a chain whose tip spends coins from before and of itself, and one output within
// itself.
func connected(t *testing.T) (g *generator, e *entry, inside, before, left output) {
	g = newMature(t, bitcoin.Regtest(), 2)
	before = g.take()
	first := spendTo(before, opTrue, []byte{byte(script.OpReturn)})
	inside, left = outputOf(first, 1), outputOf(first, 0)
	g.next("tip", with(first, spend(inside)))
	g.accept()
	return g, g.node.tip(), inside, before, left
}

// TestDisconnectUnclean spoils the coins or the undo data in one way each. The reversal then still
// says what to do, but that something was wrong.
func TestDisconnectUnclean(t *testing.T) {
	for _, row := range []struct {
		name  string
		clean bool
		spoil func(g *generator, undo Spent, inside, before, left output)
	}{
		{"nothing", true, func(*generator, Spent, output, output, output) {}},
		{"created coin missing", false, func(g *generator, _ Spent, _, _, left output) {
			delete(g.coins, left.OutPoint)
		}},
		{"created coin of another amount", false, func(g *generator, _ Spent, _, _, left output) {
			coin := g.coins[left.OutPoint]
			coin.Out.Value++
			g.coins[left.OutPoint] = coin
		}},
		{"created coin of another script", false, func(g *generator, _ Spent, _, _, left output) {
			coin := g.coins[left.OutPoint]
			coin.Out.Script = witnessTrue
			g.coins[left.OutPoint] = coin
		}},
		{"created coin of another height", false, func(g *generator, _ Spent, _, _, left output) {
			coin := g.coins[left.OutPoint]
			coin.Height++
			g.coins[left.OutPoint] = coin
		}},
		{"created coin of a coinbase", false, func(g *generator, _ Spent, _, _, left output) {
			coin := g.coins[left.OutPoint]
			coin.Coinbase = true
			g.coins[left.OutPoint] = coin
		}},
		{"spent coin still there", false, func(g *generator, undo Spent, _, before, _ output) {
			g.coins[before.OutPoint] = undo.Coin(0)
		}},
		{"coin spent inside there", false, func(g *generator, undo Spent, inside, _, _ output) {
			g.coins[inside.OutPoint] = undo.Coin(1)
		}},
		{"undo has another amount", false, func(_ *generator, undo Spent, _, _, _ output) {
			undo.Outs[1].Value++
		}},
		{"undo has another height", false, func(_ *generator, undo Spent, _, _, _ output) {
			undo.Origins[1].Height--
		}},
	} {
		g, e, inside, before, left := connected(t)
		row.spoil(g, e.undo, inside, before, left)
		reversal, err := Disconnect(e.state, e.block, e.undo, g)
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		if reversal.Clean != row.clean {
			t.Errorf("%s: clean is %v", row.name, reversal.Clean)
		}
		restored := maps.Collect(reversal.Restored())
		removed := map[bitcoin.OutPoint]bool{}
		for out := range reversal.Removed() {
			removed[out] = true
		}
		if len(restored) != 1 || restored[before.OutPoint].Origin != (Origin{1, true}) {
			t.Errorf("%s: restores %v", row.name, restored)
		}
		if len(removed) != 3 || !removed[left.OutPoint] || removed[inside.OutPoint] {
			t.Errorf("%s: removes %v", row.name, removed)
		}
	}
}

// TestDisconnectRefuses what are not the block's undo data, and a block that is not the State's.
func TestDisconnectRefuses(t *testing.T) {
	g, e, _, _, _ := connected(t)
	if _, err := Disconnect(e.parent.state, e.block, e.undo, g); err == nil {
		t.Error("a block above the tip is taken back")
	}
	for name, undo := range map[string]Spent{
		"fewer":           e.undo.Part(0, 1),
		"none":            {},
		"without origins": {Outs: e.undo.Outs},
		"without heights": {Outs: e.undo.Outs, Origins: make([]Origin, 2)},
	} {
		if _, err := Disconnect(e.state, e.block, undo, g); err == nil {
			t.Errorf("undo data %s: taken", name)
		}
	}
}

// TestDisconnectOverwritten: of the two blocks of 2010 whose coinbases came again the coin is gone,
// and all is well.
func TestDisconnectOverwritten(t *testing.T) {
	g := newGenerator(t, bitcoin.Regtest())
	g.next("1")
	c, err := NewCandidate(g.net, g.on.block, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		height bitcoin.Height
		hash   string
		clean  bool
	}{
		{91_722, overwritten1, true}, {91_812, overwritten2, true},
		{91_812, overwritten1, false}, {91_842, overwriting2, false}, {91_880, overwriting1, false},
	} {
		hash, err := bitcoin.ParseHash(row.hash)
		if err != nil {
			t.Fatal(err)
		}
		candidate := *c
		candidate.hash = hash
		reversal, err := Disconnect(State{Height: row.height, Hash: hash}, &candidate, Spent{}, g)
		if err != nil || reversal.Clean != row.clean {
			t.Errorf("height %d, block %s: clean is not %v, %v",
				row.height, row.hash, row.clean, err)
		}
	}
}

// brokenView fails from some call on.
type brokenView struct {
	View
	good int
}

var errDisk = errors.New("input/output error")

func (v *brokenView) Coins(outs []bitcoin.OutPoint, coins []Coin) error {
	if v.good--; v.good < 0 {
		return errDisk
	}
	return v.View.Coins(outs, coins)
}

func (v *brokenView) MedianTimePast(height bitcoin.Height) (uint32, error) {
	if v.good--; v.good < 0 {
		return 0, errDisk
	}
	return v.View.MedianTimePast(height)
}

// TestViewErrors: an error of the View is passed on, and is no verdict on the block.
func TestViewErrors(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 1)
	tx := spend(g.take())
	tx.Version, tx.In[0].Sequence = 2, 1<<22
	g.next("time lock", with(tx))
	c, err := NewCandidate(g.net, g.on.block, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := g.node.tip().state
	for good := range 4 {
		_, _, err := Connect(s, c, &brokenView{g, good})
		var e *Error
		if good == 3 {
			expectError(t, err, 0, "")
		} else if !errors.Is(err, errDisk) || errors.As(err, &e) {
			t.Errorf("call %d fails: %v", good, err)
		}
	}
	g.accept()
	e := g.node.tip()
	for good := range 2 {
		_, err := Disconnect(e.state, e.block, e.undo, &brokenView{g, good})
		if !errors.Is(err, errDisk) {
			t.Errorf("disconnect, call %d fails: %v", good, err)
		}
	}
}

// TestConnectWants the block that follows.
func TestConnectWants(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 1)
	g.next("next")
	c, err := NewCandidate(g.net, g.on.block, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = Connect(g.node.tip().parent.state, c, g)
	expectError(t, err, KindMissingPrev, "prev-blk-not-found")
}
