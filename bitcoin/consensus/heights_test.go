package consensus

import (
	"fmt"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// TestBIP30 has a coinbase that comes again, which needs a chain without BIP 34 at the second's
// height.
func TestBIP30(t *testing.T) {
	net := bitcoin.Regtest()
	net.BIP34Height = 2
	g := newGenerator(t, net)
	same := change(func(b *bitcoin.Block) { // as the coinbase of height 105
		b.Txs[0].In[0].Script = script.AppendPush(nil, []byte{105, 0})[:2]
		b.Txs[0].In[0].Script = []byte{1, 105}
		b.Txs[0].Out[0].Value = bitcoin.Coin
	})
	g.next("1", same)
	twin := g.out(g.on.block, 0, 0)
	g.accept()
	for height := 2; height < 104; height++ {
		g.next(fmt.Sprint(height))
		g.accept()
	}
	//	103 -> 104 (nothing) -> 105 (the coinbase again)
	//	   \-> 104 (its coin) -> 105 (the coinbase again)
	g.next("104")
	g.accept()
	g.next("105 twin", same)
	g.reject(KindConsensus, "bad-txns-BIP30")
	g.goTo("103")
	g.next("104 spends it", with(spend(twin)))
	g.side()
	g.next("105 twin again", same)
	g.accept()
	if coin := g.coins[twin.OutPoint]; coin.Height != 105 {
		t.Errorf("the coin is of height %d", coin.Height)
	}
}

// TestBIP30Exceptions: only the two blocks of 2010 may overwrite, and where the block at
// BIP34Height is the known one nothing needs to be looked up, until a height that is decades away.
func TestBIP30Exceptions(t *testing.T) {
	hash := func(s string) bitcoin.Hash {
		h, err := bitcoin.ParseHash(s)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	g := newGenerator(t, bitcoin.Regtest())
	g.next("1")
	c, err := NewCandidate(g.net, g.on.block, 0)
	if err != nil {
		t.Fatal(err)
	}
	taken := g.out(g.on.block, 0, 0)
	g.coins[taken.OutPoint] = Coin{taken.TxOut, Origin{Height: 1}}
	for _, row := range []struct {
		name   string
		height bitcoin.Height // of the block
		hash   bitcoin.Hash
		bip34  bool // the known chain
		want   string
	}{
		{"any block", 1000, bitcoin.Hash{}, false, "bad-txns-BIP30"},
		{"91,842", 91_842, hash(overwriting2), false, ""},
		{"91,880", 91_880, hash(overwriting1), false, ""},
		{"91,842, not the one", 91_842, hash(overwriting1), false, "bad-txns-BIP30"},
		{"91,841, hash of 91,842", 91_841, hash(overwriting2), false, "bad-txns-BIP30"},
		{"after BIP 34", 500_000, bitcoin.Hash{}, true, ""},
		{"after BIP 34, unknown chain", 500_000, bitcoin.Hash{}, false, "bad-txns-BIP30"},
		{"1,983,701", 1_983_701, bitcoin.Hash{}, true, ""},
		{"1,983,702", 1_983_702, bitcoin.Hash{}, true, "bad-txns-BIP30"},
	} {
		candidate := *c
		candidate.hash = row.hash
		s := State{Network: g.net, Height: row.height - 1, bip34: row.bip34}
		expectError(t, checkOverwrite(&s, &candidate, g), KindConsensus, row.want)
	}
}

// TestKnownBIP34Block: State remembers whether the block at BIP34Height is the known one, on each
// branch.
func TestKnownBIP34Block(t *testing.T) {
	net := bitcoin.Regtest()
	net.BIP34Height = 3
	chain := newHeadersOnly(net)
	for i := range 2 {
		chain.grow(1_400_000_000+uint32(i), 4)
	}
	fork := *chain.tip()
	header := bitcoin.Header{PrevBlock: fork.Hash, Time: 1_400_000_100}
	net.BIP34Hash = header.Hash()
	known := fork.Apply(&header, header.Hash())
	header.Time++
	unknown := fork.Apply(&header, header.Hash())
	for range 3 {
		header.Time++
		known, unknown = known.Apply(&header, header.Hash()), unknown.Apply(&header, header.Hash())
	}
	if fork.bip34 || !known.bip34 || unknown.bip34 {
		t.Errorf("known at the fork: %v, after the known block: %v, after another: %v",
			fork.bip34, known.bip34, unknown.bip34)
	}
}

// TestActivationHeights: each rule binds the block at its height, and not the one before.
func TestActivationHeights(t *testing.T) {
	const height = 110
	oldLock := func(g *generator) func(*draft) {
		tx := spend(g.spare[0])
		tx.Version, tx.In[0].Sequence = 2, 5000
		return with(tx)
	}
	for _, row := range []struct {
		name string
		at   func(net *bitcoin.Network) *bitcoin.Height
		step func(g *generator) func(*draft) // what is right before the height
		kind Kind
		want string // and then
	}{
		{"BIP 34, version", func(n *bitcoin.Network) *bitcoin.Height { return &n.BIP34Height },
			func(*generator) func(*draft) { return func(d *draft) { d.Header.Version = 1 } },
			KindInvalidHeader, "bad-version(0x00000001)"},
		{"BIP 34", func(n *bitcoin.Network) *bitcoin.Height { return &n.BIP34Height },
			func(*generator) func(*draft) {
				return func(d *draft) { d.Txs[0].In[0].Script = []byte("no height here") }
			}, KindConsensus, "bad-cb-height"},
		{"BIP 68", func(n *bitcoin.Network) *bitcoin.Height { return &n.CSVHeight }, oldLock,
			KindConsensus, "bad-txns-nonfinal"},
		{"BIP 113", func(n *bitcoin.Network) *bitcoin.Height { return &n.CSVHeight },
			func(g *generator) func(*draft) {
				tx := spend(g.spare[0])
				tx.In[0].Sequence = 0
				tx.LockTime = g.on.block.Header.Time
				return with(tx)
			}, KindConsensus, "bad-txns-nonfinal"},
		{"BIP 147", func(n *bitcoin.Network) *bitcoin.Height { return &n.SegwitHeight },
			func(g *generator) func(*draft) {
				none := []byte{byte(script.Op0), byte(script.Op0), byte(script.OpCheckMultisig)}
				tx := spendTo(g.spare[0], none)
				claim := spend(outputOf(tx, 1))
				claim.In[0].Script = []byte{byte(script.Op1)}
				return with(tx, claim)
			}, KindConsensus, scriptFails + "(Dummy CHECKMULTISIG argument must be zero)"},
	} {
		net := bitcoin.Regtest()
		net.BIP66Height, net.BIP65Height = 1000, 1000
		*row.at(net) = height
		g := newMature(t, net, 2) // up to height 101
		for g.on.height < height-2 {
			g.next(fmt.Sprint(row.name, g.on.height))
			g.accept()
		}
		g.next(row.name+", before", row.step(g))
		g.accept()
		g.forget()
		g.next(row.name + ", last before")
		g.accept()
		g.next(row.name+", at the height", row.step(g))
		g.reject(row.kind, row.want)
	}
}

// TestSegwitActivation: before it no witness may be there, committed to or not; then one that is
// committed to.
func TestSegwitActivation(t *testing.T) {
	net := bitcoin.Regtest()
	net.SegwitHeight = 105
	g := newMature(t, net, 4) // up to height 103
	g.next("104 with witness", validBlock)
	g.reject(KindMutated, "unexpected-witness")
	g.next("104")
	g.accept()
	g.next("105 with witness", validBlock)
	g.accept()
}

// TestScriptRulesByHeight: BIP 16, 141 and 341 hold everywhere; the others where they were
// activated.
func TestScriptRulesByHeight(t *testing.T) {
	net := bitcoin.Mainnet()
	always := script.VerifyP2SH | script.VerifyWitness | script.VerifyTaproot
	der := always | script.VerifyDERSig
	cltv := der | script.VerifyCheckLockTimeVerify
	csv := cltv | script.VerifyCheckSequenceVerify
	segwit := csv | script.VerifyNullDummy
	for _, row := range []struct {
		height bitcoin.Height
		hash   string
		want   script.Flags
	}{
		{1, "", always}, {363_724, "", always}, {363_725, "", der}, {388_380, "", der},
		{388_381, "", cltv}, {419_327, "", cltv}, {419_328, "", csv}, {481_823, "", csv},
		{481_824, "", segwit},
		{170_060, "00000000000002dc756eebf4f49723ed8d30cc28a5f108eb94b1ba88ac4f9c22", 0},
		{692_261, "0000000000000000000f14c35b2d841e986ab5441de8c585d5ffe55ea1e395ad",
			segwit &^ script.VerifyTaproot},
	} {
		var hash bitcoin.Hash
		if row.hash != "" {
			var err error
			if hash, err = bitcoin.ParseHash(row.hash); err != nil {
				t.Fatal(err)
			}
		}
		if got := ScriptFlags(net, row.height, hash); got != row.want {
			t.Errorf("height %d: %v, want %v", row.height, got, row.want)
		}
	}
}
