package consensus

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// The stories of Bitcoin Core's feature_block.py, told anew: each begins on a fresh chain with
// coinbases that may be spent. In the drawings, (n) is a block that spends coinbase n.

// fees lets the coinbase take the whole of what the block's transactions leave, and more.
func fees(d *draft, amount bitcoin.Amount) { d.Txs[0].Out[0].Value += amount }

func TestReorganisation(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 10)
	out := g.spare
	next := func(name string, coinbase int) { g.next(name, with(spend(out[coinbase]))) }

	//	1 (0) -> 2 (1)
	//	     \-> 3 (1)    the first seen wins
	next("1", 0)
	g.accept()
	next("2", 1)
	g.accept()
	g.goTo("1")
	g.next("3", with(spendTo(out[1], opTrue)))
	g.side()
	onlyIn3 := g.out(g.on.block, 1, 1)

	//	1 (0) -> 2 (1) -> 5 (2) -> 6 (3)
	//	     \-> 3 (1) -> 4 (2)
	next("4", 2)
	g.accept()
	g.goTo("2")
	next("5", 2)
	g.side()
	g.expectTip("4")
	next("6", 3)
	g.accept()

	//	5 (2) -> 6 (3)
	//	     \-> 7 (2) -> 8 (4)    spends again what 5 has spent
	g.goTo("5")
	g.next("7", with(spendTo(out[2], opTrue)))
	g.side()
	next("8", 4)
	expectError(t, g.submit(g.on.block), KindConsensus, "bad-txns-inputs-missingorspent")
	g.expectTip("6")
	next("8a", 5)
	expectError(t, g.submit(g.on.block), KindInvalidPrev, "bad-prevblk")

	//	5 (2) -> 6 (3)
	//	     \-> 12 (3) -> 13 (4) -> 14 (5, pays itself too much)
	g.goTo("5")
	next("12", 3)
	g.side()
	first := *g.on
	next("13", 4)
	second := *g.on
	g.next("14", with(spend(out[5])), func(d *draft) { fees(d, 1) })
	third := *g.on
	fresh := g.index
	for _, b := range []named{third, second} { // they come before their parents
		delete(fresh, b.block.Hash())
		delete(fresh, first.block.Hash())
		expectError(t, g.submit(b.block), KindMissingPrev, "prev-blk-not-found")
	}
	if err := g.submit(first.block); err != nil {
		t.Fatal(err)
	}
	if err := g.submit(second.block); err != nil {
		t.Fatal(err)
	}
	g.expectTip("13")
	expectError(t, g.submit(third.block), KindConsensus, "bad-cb-amount")
	g.expectTip("13")

	//	13 -> 17 (an output of 3)
	//	  \-> 18 (an output of 3) -> 19 (5)
	g.goTo("13")
	g.next("17", with(spend(onlyIn3)))
	g.reject(KindConsensus, "bad-txns-inputs-missingorspent")
	g.goTo("12")
	g.next("18", with(spend(onlyIn3)))
	g.side()
	next("19", 5)
	expectError(t, g.submit(g.on.block), KindConsensus, "bad-txns-inputs-missingorspent")
	g.expectTip("13")

	//	13 -> 37 (an output, and the same again)
	//	  \-> 38 (what 37 made of it)
	g.goTo("13")
	g.next("37", with(spend(out[6]), spendTo(out[6], opTrue)))
	of37 := g.out(g.on.block, 1, 0)
	g.reject(KindConsensus, "bad-txns-inputs-missingorspent")
	g.next("38", with(spend(of37)))
	g.reject(KindConsensus, "bad-txns-inputs-missingorspent")
}

func TestImmatureCoinbase(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 3)
	young := g.out(g.blocks["mature.3"].block, 0, 0) // 99 deep in the next block, 100 in the one after
	g.next("99 deep", with(spend(young)))
	g.reject(KindConsensus, "bad-txns-premature-spend-of-coinbase")
	g.next("between")
	g.accept()
	g.next("100 deep", with(spend(young)))
	g.accept()

	// On a fork that is one block shorter the same coinbase is too young again.
	g.goTo("mature.101")
	g.next("fork", with(spend(young)))
	g.side()
	g.next("fork.1")
	g.side()
	g.next("fork.2")
	expectError(t, g.submit(g.on.block), KindConsensus, "bad-txns-premature-spend-of-coinbase")
	g.expectTip("100 deep")
}

// TestWeightLimits: a block may weigh 4,000,000, with or without witnesses.
func TestWeightLimits(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 3)
	fill := func(weight int, witness bool) func(*draft) {
		return func(d *draft) {
			tx := spend(g.spare[0])
			if !witness {
				with(tx)(d)
				// A script of this size has a length of 5 octets, not of 1 as the one there.
				room := (weight-d.Weight())/bitcoin.WitnessScale - 4
				d.Txs[1].Out[0].Script = make([]byte, room+1)
				return
			}
			tx.Out[0].Script = witnessTrue
			with(tx, spend(outputOf(tx, 0)))(d)
			d.Txs[2].In[0].Witness = [][]byte{make([]byte, 100_000), opTrue}
			d.commit()
			d.Txs[2].In[0].Witness[0] = make([]byte, 100_000+weight-d.Weight())
		}
	}
	for _, witness := range []bool{false, true} {
		name := fmt.Sprintf("witness %v", witness)
		g.next("full, "+name, fill(MaxBlockWeight, witness))
		if got := g.on.block.Weight(); got != MaxBlockWeight {
			t.Fatalf("weight %d", got)
		}
		if witness { // the item is larger than a stack allows, but the size is right
			g.reject(KindConsensus, "block-script-verify-flag-failed (Push value size limit exceeded)")
		} else {
			g.accept()
			g.node.tip().failed = true
			g.disconnect()
			g.goTo("mature.101")
		}
	}
	g.next("4 more", fill(MaxBlockWeight+4, false))
	g.reject(KindConsensus, "bad-blk-length")
	g.next("1 more", fill(MaxBlockWeight+1, true))
	g.reject(KindConsensus, "bad-blk-weight")
}

func TestCoinbaseScript(t *testing.T) {
	g := newGenerator(t, bitcoin.Regtest())
	g.next("100 octets", change(func(b *bitcoin.Block) {
		s := make([]byte, 100)
		copy(s, script.AppendInt(nil, 1))
		b.Txs[0].In[0].Script = s
	}))
	g.accept()
	// Heights up to 16 are pushed by one octet, so that the least coinbase has another.
	for height := int64(2); height < 20; height++ {
		g.next(fmt.Sprint(height), change(func(b *bitcoin.Block) {
			b.Txs[0].In[0].Script = append(script.AppendInt(nil, height), 0)
		}))
		g.accept()
	}
}

// ops is a script of n times the same operation.
func ops(op script.Op, n int) []byte { return bytes.Repeat([]byte{byte(op)}, n) }

// redeem is a script that counts n signature operations, runs none and is satisfied. With a number
// before them those of several keys count as many.
func redeem(n int) []byte {
	many := bytes.Repeat([]byte{byte(script.Op16), byte(script.OpCheckMultisig)}, n/16)
	return new(script.Builder).Op(script.Op0, script.OpIf).Raw(many).Raw(sigOps(n%16)).
		Op(script.OpEndIf, script.Op1).Script()
}

// TestSigOpLimits fills a block with signature operations of each sort up to the limit and one past
// it.
func TestSigOpLimits(t *testing.T) {
	const legacy = MaxBlockSigOpsCost / bitcoin.WitnessScale
	g := newMature(t, bitcoin.Regtest(), 2)
	output := func(script []byte) func(*draft) { return with(spendTo(g.spare[0], script)) }
	fail := func(name string, steps ...func(*draft)) {
		g.next(name, steps...)
		g.reject(KindConsensus, "bad-blk-sigops")
	}
	pass := func(name string, steps ...func(*draft)) {
		g.next(name, steps...)
		g.accept()
		g.node.tip().failed = true
		g.disconnect()
		g.goTo(g.parent(g.on).name)
	}
	for _, op := range []script.Op{script.OpCheckSig, script.OpCheckSigVerify} {
		pass(op.String(), output(ops(op, legacy)))
		fail(op.String()+" and one", output(ops(op, legacy+1)))
	}
	for _, op := range []script.Op{script.OpCheckMultisig, script.OpCheckMultisigVerify} {
		pass(op.String(), output(ops(op, legacy/20)))
		fail(op.String()+" and one", output(append(ops(op, legacy/20), byte(script.OpCheckSig))))
		// Outside of redeem scripts the number of keys before the operation does not count.
		fail(op.String()+" of 1", output(append(bytes.Repeat([]byte{byte(script.Op1), byte(op)}, legacy/20),
			byte(script.OpCheckSig))))
	}

	// Pushed octets are no operations. A push that the script is too short for ends the count.
	push := func(size uint32, before, after int) []byte {
		s := append(sigOps(before), byte(script.OpPushData4), byte(size), byte(size>>8), byte(size>>16), byte(size>>24))
		return append(s, sigOps(after)...)
	}
	fail("after a push of 521", output(push(521, legacy, 522)))
	pass("within a push of 521", output(push(521, legacy, 521)))
	fail("before a push past the end", output(push(0xfffffffe, legacy+1, 0)))
	pass("after a push past the end", output(push(0xffffffff, legacy, 500)))

	testP2SHSigOps(g, legacy, pass, fail)
	testWitnessSigOps(g, pass, fail)
}

// testP2SHSigOps spends outputs with 400 operations in each redeem script.
func testP2SHSigOps(g *generator, legacy int, pass, fail func(string, ...func(*draft))) {
	const each, outputs = 400, 50
	hash := script.Hash160(redeem(each))
	to := script.PayToScriptHash(hash)
	make := spendTo(g.take(), slicesRepeat(to, outputs)...)
	g.next("P2SH outputs", with(make))
	g.accept()
	spendAll := func(more int) func(*draft) {
		tx := spend(outputOf(make, 0))
		for i := range outputs {
			tx.In = append(tx.In, bitcoin.TxIn{PrevOut: outputOf(make, i+1).OutPoint, Sequence: 0xffffffff,
				Script: script.AppendPush(nil, redeem(each))})
		}
		tx.Out = append(tx.Out, bitcoin.TxOut{Script: sigOps(more)})
		return with(tx)
	}
	pass("P2SH", spendAll(legacy-each*outputs))
	fail("P2SH and one", spendAll(legacy-each*outputs+1))
	fail("P2SH and one in the coinbase", spendAll(legacy-each*outputs), change(func(b *bitcoin.Block) {
		b.Txs[0].Out[0].Script = sigOps(1)
	}))
}

// TestSigOpsBeforeBIP16: in the one block that breaks BIP 16 redeem scripts count nothing.
func TestSigOpsBeforeBIP16(t *testing.T) {
	tx := &bitcoin.Tx{In: []bitcoin.TxIn{{Script: script.AppendPush(nil, sigOps(3))}}}
	spent := []bitcoin.TxOut{{Script: script.PayToScriptHash(script.Hash160(sigOps(3)))}}
	for flags, want := range map[script.Flags]int{0: 0, script.VerifyP2SH: 12} {
		if got := inputSigOpsCost(tx, spent, flags); got != want {
			t.Errorf("flags %v: cost %d, want %d", flags, got, want)
		}
	}
}

// testWitnessSigOps does the same with witness scripts, whose operations cost a quarter, bare and
// within P2SH, and with a witness key hash.
func testWitnessSigOps(g *generator, pass, fail func(string, ...func(*draft))) {
	const each, outputs = 2000, 20
	hash := sha256.Sum256(redeem(each))
	program := script.PayToWitness(0, hash[:])
	nested := script.PayToScriptHash(script.Hash160(program))
	scripts := append(slicesRepeat(program, outputs), slicesRepeat(nested, outputs)...)
	make := spendTo(g.take(), append(scripts, opTrue)...)
	g.next("witness outputs", with(make))
	g.accept()
	spendAll := func(more int) func(*draft) {
		tx := spend(outputOf(make, 0))
		for i := range 2 * outputs {
			in := bitcoin.TxIn{PrevOut: outputOf(make, i+1).OutPoint, Sequence: 0xffffffff,
				Witness: [][]byte{redeem(each)}}
			if i >= outputs {
				in.Script = script.AppendPush(nil, program)
			}
			tx.In = append(tx.In, in)
		}
		tx.Out = append(tx.Out, bitcoin.TxOut{Script: sigOps(more)})
		return with(tx)
	}
	pass("witness", spendAll(0))
	fail("witness and one", spendAll(1))
}

func slicesRepeat(script []byte, n int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = script
	}
	return all
}

// TestFutureBlock: a block from the future is refused, and welcome when its time has come.
func TestFutureBlock(t *testing.T) {
	g := newGenerator(t, bitcoin.Regtest())
	g.next("early", func(d *draft) { d.Header.Time = uint32(g.now.Add(3 * time.Hour).Unix()) })
	expectError(t, g.submit(g.on.block), KindTimeFuture, "time-too-new")
	g.now = g.now.Add(time.Hour)
	g.accept()
}

// TestMedianTime: eleven blocks long a time may go back to just after the median.
func TestMedianTime(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 1)
	median := g.node.tip().state.MedianTimePast()
	g.next("at the median", func(d *draft) { d.Header.Time = median })
	g.reject(KindInvalidHeader, "time-too-old")
	g.next("after it", func(d *draft) { d.Header.Time = median + 1 })
	g.accept()
}

// TestMerkleMalleability: the list of a block can be lengthened so that the root stays
// (CVE-2012-2459). That must be told apart from an invalid block, for the right list is welcome
// afterwards.
func TestMerkleMalleability(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 4)
	chain := func(n int) []*bitcoin.Tx {
		txs := []*bitcoin.Tx{spend(g.spare[0])}
		for len(txs) < n {
			txs = append(txs, spend(outputOf(txs[len(txs)-1], 0)))
		}
		return txs
	}
	repeat := func(from int) func(*draft) {
		return change(func(b *bitcoin.Block) { b.Txs = append(b.Txs, b.Txs[from:]...) })
	}
	//	coinbase, 1, 2                 has the root of  coinbase, 1, 2, 2
	//	coinbase, 1, 2, 3, 4, 5        has that of      coinbase, 1, 2, 3, 4, 5, 4, 5
	for _, test := range []struct{ txs, from int }{{2, 2}, {5, 4}} {
		name := fmt.Sprint(test.txs, " transactions")
		seal := func(d *draft) { d.finish(); d.asIs = true }
		g.nonce = 0
		g.next(name+", some twice", with(chain(test.txs)...), seal, repeat(test.from))
		tampered := *g.on
		if !IsMutated(g.on.block, true) {
			t.Errorf("%s: not seen to be mutated", name)
		}
		g.reject(KindMutated, "bad-txns-duplicate")
		g.nonce = 0
		g.next(name, with(chain(test.txs)...))
		if g.on.block.Hash() != tampered.block.Hash() {
			t.Fatal("the blocks have different hashes")
		}
		if IsMutated(g.on.block, true) {
			t.Errorf("%s: mutated", name)
		}
		g.accept()
		g.node.tip().failed = true
		g.disconnect()
		g.goTo("mature.102")
	}
}

// TestWitnessMalleability: whoever passes a block on can spoil its witnesses, and its weight by
// them. Neither may make the block invalid.
func TestWitnessMalleability(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 4)
	for i, row := range []struct {
		want  string
		spoil func(b *bitcoin.Block)
	}{
		{"bad-witness-merkle-match", func(b *bitcoin.Block) { b.Txs[2].In[0].Witness[0] = []byte{0} }},
		{"bad-witness-merkle-match", func(b *bitcoin.Block) {
			b.Txs[2].In[0].Witness = append(b.Txs[2].In[0].Witness, make([]byte, MaxBlockWeight))
		}},
		{"bad-witness-nonce-size", func(b *bitcoin.Block) {
			b.Txs[0].In[0].Witness = append(b.Txs[0].In[0].Witness, make([]byte, MaxBlockWeight))
		}},
		{"bad-witness-nonce-size", func(b *bitcoin.Block) { b.Txs[0].In[0].Witness = nil }},
	} {
		g.nonce = 0
		g.next(fmt.Sprint("spoilt ", i), validBlock(g), finished, change(row.spoil))
		if !IsMutated(g.on.block, true) {
			t.Errorf("row %d: not seen to be mutated", i)
		}
		g.reject(KindMutated, row.want)
	}
	g.nonce = 0
	g.next("whole", validBlock(g))
	if g.on.block.Hash() != g.blocks["spoilt 0"].block.Hash() {
		t.Fatal("the spoilt blocks have other hashes")
	}
	g.accept()
}

// TestIsMutated64: a transaction of 64 octets may be a node of the tree, in a block that has no
// coinbase.
func TestIsMutated64(t *testing.T) {
	tx := bitcoin.Tx{In: make([]bitcoin.TxIn, 1), Out: []bitcoin.TxOut{{Script: make([]byte, 4)}}}
	if tx.BaseSize() != 64 {
		t.Fatalf("size %d", tx.BaseSize())
	}
	seal := func(txs ...bitcoin.Tx) *bitcoin.Block {
		b := &bitcoin.Block{Txs: txs}
		b.Header.MerkleRoot, _ = b.MerkleRoot()
		return b
	}
	longer := tx
	longer.Out = []bitcoin.TxOut{{Script: make([]byte, 5)}}
	coinbase := longer
	coinbase.In = []bitcoin.TxIn{{PrevOut: bitcoin.OutPoint{Index: 0xffffffff}}}
	for _, row := range []struct {
		name  string
		block *bitcoin.Block
		want  bool
	}{
		{"64 octets, no coinbase", seal(longer, tx), true},
		{"65 octets, no coinbase", seal(longer), false},
		{"64 octets after a coinbase", seal(coinbase, tx), false},
		{"no transaction", seal(), false},
		{"wrong root", &bitcoin.Block{Txs: []bitcoin.Tx{coinbase}}, true},
	} {
		if got := IsMutated(row.block, true); got != row.want {
			t.Errorf("%s: %v", row.name, got)
		}
	}
	withWitness := coinbase
	withWitness.In = []bitcoin.TxIn{{PrevOut: coinbase.In[0].PrevOut, Witness: [][]byte{{1}}}}
	if !IsMutated(seal(withWitness), false) {
		t.Error("a witness before segwit is no mutation")
	}
}

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

// TestLockTimes has transactions that just may and just may not be in the block.
func TestLockTimes(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 4)
	height := uint32(g.on.height + 1)
	median := g.node.tip().state.MedianTimePast()
	for i, row := range []struct {
		lock, sequence uint32
		final          bool
	}{
		{0, 0, true},
		{height - 1, 0, true},
		{height, 0, false},
		{height, 0xffffffff, true},
		{LockTimeThreshold - 1, 0, false},
		{LockTimeThreshold, 0, true},
		{median - 1, 0, true},
		{median, 0, false}, // though the block's own time is later (BIP 113)
		{0xffffffff, 0xfffffffe, false},
		{0xffffffff, 0xffffffff, true},
	} {
		tx := spend(g.spare[0], g.spare[1])
		tx.LockTime = row.lock
		tx.In[1].Sequence = row.sequence
		g.next(fmt.Sprint("row ", i), with(tx))
		if !row.final {
			g.reject(KindConsensus, "bad-txns-nonfinal")
			continue
		}
		g.accept()
		g.node.tip().failed = true
		g.disconnect()
		g.goTo("mature.102")
	}
}

// TestLockTimeBeforeBIP113: until BIP 113 the block's own time counts.
func TestLockTimeBeforeBIP113(t *testing.T) {
	net := bitcoin.Regtest()
	net.CSVHeight = 1000
	g := newMature(t, net, 2)
	tx := spend(g.spare[0])
	tx.In[0].Sequence = 0
	tx.LockTime = g.on.block.Header.Time
	tx.Version = 2
	tx.In[0].Sequence = 5000 // nor does BIP 68 bind
	g.next("time of the block", with(tx))
	g.accept()
}

// medians is a chain of which only the times are known: block h has median 1,000·h.
type medians struct{}

func (medians) MedianTimePast(height bitcoin.Height) (uint32, error) {
	return uint32(1000 * height), nil
}

// TestSequenceLocks is BIP 68, "Specification", case by case.
func TestSequenceLocks(t *testing.T) {
	const byTime, disabled = 1 << 22, 1 << 31
	for _, row := range []struct {
		name      string
		version   uint32
		sequences []uint32
		created   []bitcoin.Height
		want      SequenceLock
	}{
		{"version 1", 1, []uint32{10}, []bitcoin.Height{100}, SequenceLock{-1, -1}},
		{"version 0", 0, []uint32{10}, []bitcoin.Height{100}, SequenceLock{-1, -1}},
		{"version -1", 0xffffffff, []uint32{10}, []bitcoin.Height{100}, SequenceLock{109, -1}},
		{"disabled", 2, []uint32{disabled | 10}, []bitcoin.Height{100}, SequenceLock{-1, -1}},
		{"no lock", 2, []uint32{0}, []bitcoin.Height{100}, SequenceLock{99, -1}},
		{"height", 2, []uint32{1}, []bitcoin.Height{100}, SequenceLock{100, -1}},
		{"bits without meaning", 2, []uint32{0x7fbf0001}, []bitcoin.Height{100}, SequenceLock{100, -1}},
		{"time from the median before", 2, []uint32{byTime}, []bitcoin.Height{100}, SequenceLock{-1, 98_999}},
		{"time", 2, []uint32{byTime | 3}, []bitcoin.Height{100}, SequenceLock{-1, 99_000 + 3*512 - 1}},
		{"greatest", 2, []uint32{0xffff, byTime | 0xffff}, []bitcoin.Height{1, 1},
			SequenceLock{0xffff, 0xffff*512 - 1}},
		{"several", 2, []uint32{5, 1, byTime | 1, byTime, disabled}, []bitcoin.Height{10, 20, 30, 40, 50},
			SequenceLock{20, 38_999}},
	} {
		tx := &bitcoin.Tx{Version: row.version}
		var origins []Origin
		for i := range row.sequences {
			tx.In = append(tx.In, bitcoin.TxIn{Sequence: row.sequences[i]})
			origins = append(origins, Origin{Height: row.created[i]})
		}
		got, err := SequenceLocks(tx, origins, medians{})
		if err != nil || got != row.want {
			t.Errorf("%s: %v, %v; want %v", row.name, got, err, row.want)
		}
	}
	lock := SequenceLock{Height: 100, Time: 5000}
	for _, row := range []struct {
		height bitcoin.Height
		median uint32
		want   bool
	}{{101, 5001, true}, {100, 5001, false}, {101, 5000, false}} {
		if got := lock.Allows(row.height, row.median); got != row.want {
			t.Errorf("height %d, median %d: %v", row.height, row.median, got)
		}
	}
	if !(SequenceLock{-1, -1}).Allows(0, 0) {
		t.Error("no lock does not allow")
	}
}

// TestRelativeLocksInBlocks has coins that are just old enough, of before and of the block itself.
func TestRelativeLocksInBlocks(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 2)
	old := g.take() // of height 1, 101 or more deep
	locked := func(from output, sequence uint32) *bitcoin.Tx {
		tx := spend(from)
		tx.Version, tx.In[0].Sequence = 2, sequence
		return tx
	}
	g.next("102 blocks", with(locked(old, 102)))
	g.reject(KindConsensus, "bad-txns-nonfinal")
	g.next("101 blocks", with(locked(old, 101)))
	g.accept()
	fresh := g.out(g.on.block, 1, 0)
	inside := locked(fresh, 0x80000005)
	g.next("of this block, 1", with(inside, locked(outputOf(inside, 0), 1)))
	g.reject(KindConsensus, "bad-txns-nonfinal")
	g.next("of this block, 0", with(inside, locked(outputOf(inside, 0), 0)))
	g.accept()

	// Medians rise by a second with each block, as times do: 512 s take 512 blocks, or one late
	// time to become the median.
	coin := g.out(g.on.block, 2, 0)
	before := g.chain[g.on.height-1].state.MedianTimePast()
	for i := 0; g.node.tip().state.MedianTimePast() < before+511; i++ {
		g.next(fmt.Sprint("late ", i), func(d *draft) {
			if i == 0 {
				d.Header.Time = before + 511 - 5 + 1 // five blocks later this time, and 4 s, is the median
			}
		})
		g.accept()
	}
	g.next("511 s", with(locked(coin, 1<<22|1)))
	g.reject(KindConsensus, "bad-txns-nonfinal")
	g.next("one more")
	g.accept()
	g.next("512 s", with(locked(coin, 1<<22|1)))
	g.accept()
}

// TestSpendWithinBlock: chains of spends inside a block leave nothing but their ends.
func TestSpendWithinBlock(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 2)
	before := len(g.coins)
	first := spendTo(g.take(), opTrue, []byte{byte(script.OpReturn)})
	second := spend(outputOf(first, 0))
	third := spend(outputOf(second, 0), outputOf(first, 1))
	g.next("chain", with(first, second, third))
	g.accept()
	if got := len(g.coins) - before; got != 1 { // the coinbase's, and one for one
		t.Errorf("%d more coins", got)
	}
	if _, there := g.coins[outputOf(third, 0).OutPoint]; !there {
		t.Error("the end of the chain is no coin")
	}
	if n := g.node.tip().undo.Len(); n != 4 {
		t.Errorf("undo data of %d inputs, want 4", n)
	}
}

// TestSubsidyAndFees: 1 satoshi decides.
func TestSubsidyAndFees(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 3)
	pay := spend(g.take())
	pay.Out[0].Value -= 9
	g.next("10 of 9", with(pay), func(d *draft) { fees(d, 10) })
	g.reject(KindConsensus, "bad-cb-amount")
	g.next("9 of 9", with(pay), func(d *draft) { fees(d, 9) })
	g.accept()
	g.next("less than allowed", func(d *draft) { fees(d, -bitcoin.Coin) })
	g.accept()
}

// TestHalving crosses regtest's first one.
func TestHalving(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 50) // up to height 149
	g.next("150", func(d *draft) { d.Txs[0].Out[0].Value = 50 * bitcoin.Coin })
	g.reject(KindConsensus, "bad-cb-amount")
	g.next("150 at half", func(d *draft) { d.Txs[0].Out[0].Value = 25 * bitcoin.Coin })
	g.accept()
}

// TestDeadCode: invalid operations that are not run do no harm, nor do outputs that nobody can
// spend.
func TestDeadCode(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 3)
	dead := new(script.Builder).Op(script.OpIf).Raw([]byte{0xff}).Op(script.OpElse, script.Op1, script.OpEndIf)
	tx := spendTo(g.take(), dead.Script())
	claim := spend(outputOf(tx, 1))
	claim.In[0].Script = []byte{byte(script.Op0)}
	g.next("not run", with(tx, claim))
	g.accept()
	tx = spendTo(g.take(), dead.Script())
	claim = spend(outputOf(tx, 1))
	claim.In[0].Script = []byte{byte(script.Op1)}
	g.next("run", with(tx, claim))
	g.reject(KindConsensus, "block-script-verify-flag-failed (Opcode missing or not understood)")

	data := []byte{byte(script.OpReturn)}
	tx = spendTo(g.out(g.blocks["not run"].block, 1, 0), data, data, opTrue, opTrue)
	g.next("84", with(tx, spendTo(outputOf(tx, 0), data), spend(outputOf(tx, 3))))
	g.accept()
	g.goTo("not run")
	g.next("85")
	g.side()
	g.next("86")
	g.accept()
	g.goTo("84")
	g.next("87")
	g.side()
	g.next("88")
	g.accept()
	g.next("89", with(spend(outputOf(tx, 1))))
	g.reject(KindConsensus, "bad-txns-inputs-missingorspent")
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
			}, KindConsensus, "block-script-verify-flag-failed (Dummy CHECKMULTISIG argument must be zero)"},
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
		g.node.tip().failed = true
		g.disconnect()
		g.goTo(g.parent(g.on).name)
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
	g.next("104 with witness", validBlock(g))
	g.reject(KindMutated, "unexpected-witness")
	g.next("104")
	g.accept()
	g.next("105 with witness", validBlock(g))
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
		{1, "", always}, {363_724, "", always}, {363_725, "", der}, {388_380, "", der}, {388_381, "", cltv},
		{419_327, "", cltv}, {419_328, "", csv}, {481_823, "", csv}, {481_824, "", segwit},
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

// TestLongReorganisation goes from one branch to another and back over some hundred full-grown
// blocks.
func TestLongReorganisation(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 3)
	const length = 150
	from := g.on.name
	for _, branch := range []string{"a", "b"} {
		g.goTo(from)
		last := g.spare[0]
		for i := range length {
			tx := spendTo(last, opTrue, bytes.Repeat([]byte{0}, 5000))
			inner := spend(outputOf(tx, 0), outputOf(tx, 1))
			last = outputOf(inner, 0)
			g.next(fmt.Sprint(branch, i), with(tx, inner))
			if branch == "a" {
				g.accept()
			} else {
				g.side()
			}
		}
	}
	g.next("b on top")
	g.accept()
	g.goTo(fmt.Sprint("a", length-1))
	g.next("a on top")
	g.side()
	g.next("a wins")
	g.accept()
}
