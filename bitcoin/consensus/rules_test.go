package consensus

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// witnessTrue is OP_TRUE behind a witness script hash.
var witnessTrue = func() []byte {
	hash := sha256.Sum256(opTrue)
	return script.PayToWitness(0, hash[:])
}()

// validBlock drafts a block in which there is something to break: transactions that spend coins
// from before, from the block itself, and with a witness.
func validBlock(d *draft) {
	spare := d.g.spare
	many := spendTo(spare[0], opTrue, witnessTrue)
	witness := spend(outputOf(many, 2))
	witness.In[0].Witness = [][]byte{opTrue}
	with(many, witness, spend(outputOf(many, 0), spare[1]),
		spend(spare[2], outputOf(witness, 0)))(d)
}

// sigOps is a script with as many signature operations.
func sigOps(n int) []byte { return bytes.Repeat([]byte{byte(script.OpCheckSig)}, n) }

// late makes a step that breaks the finished block, whose Merkle root and commitment then stay as
// they were. The proof of work is still sought.
func late(corrupt func(*draft)) func(*draft) {
	return func(d *draft) {
		finished(d)
		corrupt(d)
	}
}

// kinds are those of the reasons that say more than that a rule is broken.
var kinds = map[string]Kind{
	"high-hash":                KindInvalidHeader,
	"bad-diffbits":             KindInvalidHeader,
	"time-too-old":             KindInvalidHeader,
	"bad-version(0x00000003)":  KindInvalidHeader,
	"time-too-new":             KindTimeFuture,
	"prev-blk-not-found":       KindMissingPrev,
	"bad-txnmrklroot":          KindMutated,
	"bad-txns-duplicate":       KindMutated,
	"bad-witness-nonce-size":   KindMutated,
	"bad-witness-merkle-match": KindMutated,
	"unexpected-witness":       KindMutated,
}

// What Core says of spent or missing coins and of scripts that fail.
const (
	missing     = "bad-txns-inputs-missingorspent"
	scriptFails = "block-script-verify-flag-failed "
)

// breakages are ways to break one rule each, and some that look so but are right.
var breakages = []struct {
	name    string
	want    string // the reason, or empty
	corrupt func(*draft)
}{
	{"nothing", "", func(*draft) {}},

	// The header.
	{"proof", "high-hash", late(func(d *draft) {
		d.noProof = true
		for bitcoin.MeetsTarget(d.Hash(), d.Header.Bits, d.g.net.PowLimit) {
			d.Header.Nonce++
		}
	})},
	{"target", "bad-diffbits", func(d *draft) { d.Header.Bits-- }},
	{"parent", "prev-blk-not-found", func(d *draft) { d.Header.PrevBlock[9]++ }},
	{"time at the median", "time-too-old", func(d *draft) {
		d.Header.Time = d.g.node.tip().state.MedianTimePast()
	}},
	{"time 2 h 1 s ahead", "time-too-new", func(d *draft) {
		d.Header.Time = uint32(d.g.now.Unix()) + 7201
	}},
	{"version", "bad-version(0x00000003)", func(d *draft) {
		d.Header.Version = 3
	}},

	// The list of transactions.
	{"Merkle root", "bad-txnmrklroot", late(func(d *draft) { d.Header.MerkleRoot[0]++ })},
	{"transaction left out", "bad-txnmrklroot", late(func(d *draft) { d.Txs = d.Txs[:4] })},
	{"transactions swapped", "bad-txnmrklroot", late(func(d *draft) {
		d.Txs[3], d.Txs[4] = d.Txs[4], d.Txs[3]
	})},
	{"last one repeated", "bad-txns-duplicate", late(func(d *draft) {
		d.Txs = append(d.Txs, d.Txs[4]) // five leaves have the root of six, the last repeated
	})},
	{"no transaction", "bad-blk-length", func(d *draft) { d.Txs = nil }},
	{"1,000,001 octets without witnesses", "bad-blk-length", func(d *draft) {
		const more = 4 + 42 // octets for the length of the script, and for the commitment
		d.Txs[1].Out[0].Script = make([]byte, 1_000_001-d.BaseSize()-more)
	}},
	{"no coinbase", "bad-cb-missing", func(d *draft) {
		d.Txs = d.Txs[1:2]
	}},
	{"coinbase not first", "bad-cb-missing", func(d *draft) {
		d.Txs[0], d.Txs[3] = d.Txs[3], d.Txs[0]
	}},
	{"two coinbases", "bad-cb-multiple", func(d *draft) {
		second := d.Txs[0].Clone()
		second.LockTime = 1
		d.Txs = append(d.Txs, *second)
	}},

	// Each transaction by itself.
	{"no inputs and no outputs", "bad-txns-vin-empty", func(d *draft) {
		d.Txs[3].In, d.Txs[3].Out = nil, nil
	}},
	{"no outputs", "bad-txns-vout-empty", func(d *draft) { d.Txs[4].Out = nil }},
	{"negative amount", "bad-txns-vout-negative", func(d *draft) {
		d.Txs[4].Out[0].Value = -1
	}},
	{"amount of more than there is", "bad-txns-vout-toolarge", func(d *draft) {
		d.Txs[4].Out[0].Value = bitcoin.MaxMoney + 1
	}},
	{"amounts of more than there is", "bad-txns-txouttotal-toolarge", func(d *draft) {
		d.Txs[4].Out = []bitcoin.TxOut{{Value: bitcoin.MaxMoney}, {Value: 1}}
	}},
	{"one input twice", "bad-txns-inputs-duplicate", func(d *draft) {
		d.Txs[3].In = append(d.Txs[3].In, d.Txs[3].In[0])
	}},
	{"one of many inputs twice", "bad-txns-inputs-duplicate", func(d *draft) {
		for i := range 40 {
			in := d.Txs[3].In[0]
			in.PrevOut.Index = uint32(i % 39)
			d.Txs[3].In = append(d.Txs[3].In, in)
		}
	}},
	{"null input", "bad-txns-prevout-null", func(d *draft) {
		d.Txs[3].In[1].PrevOut = bitcoin.OutPoint{Index: 0xffffffff}
	}},
	{"coinbase script of 1 octet", "bad-cb-length", func(d *draft) {
		d.Txs[0].In[0].Script = d.Txs[0].In[0].Script[:1]
	}},
	{"coinbase script of 101 octets", "bad-cb-length", func(d *draft) {
		d.Txs[0].In[0].Script = append(d.Txs[0].In[0].Script, make([]byte, 101)...)[:101]
	}},
	{"20,001 signature operations in outputs", "bad-blk-sigops", func(d *draft) {
		d.Txs[4].Out[0].Script = sigOps(20_001)
	}},

	// The place in the chain.
	{"lock time at this height", "bad-txns-nonfinal", func(d *draft) {
		d.Txs[4].LockTime, d.Txs[4].In[0].Sequence = uint32(d.height), 0
	}},
	{"lock time at the median", "bad-txns-nonfinal", func(d *draft) {
		d.Txs[4].LockTime, d.Txs[4].In[0].Sequence = d.g.node.tip().state.MedianTimePast(), 0
	}},
	{"coinbase not final", "bad-txns-nonfinal", func(d *draft) {
		d.Txs[0].LockTime, d.Txs[0].In[0].Sequence = 0xffffffff, 0xfffffffe
	}},
	{"other height in the coinbase", "bad-cb-height", func(d *draft) {
		d.Txs[0].In[0].Script = script.AppendInt(script.AppendInt(nil, int64(d.height)-1), 7)
	}},
	{"height in more octets than needed", "bad-cb-height", func(d *draft) {
		d.Txs[0].In[0].Script = script.AppendPush(nil, []byte{byte(d.height), 0, 0, 0})
	}},
	{"reserved value of 31 octets", "bad-witness-nonce-size", late(func(d *draft) {
		d.Txs[0].In[0].Witness[0] = make([]byte, 31)
	})},
	{"two reserved values", "bad-witness-nonce-size", late(func(d *draft) {
		d.Txs[0].In[0].Witness = append(d.Txs[0].In[0].Witness, make([]byte, 32))
	})},
	{"no reserved value", "bad-witness-nonce-size", late(func(d *draft) {
		d.Txs[0].In[0].Witness = nil
	})},
	{"other reserved value", "bad-witness-merkle-match", late(func(d *draft) {
		d.Txs[0].In[0].Witness[0] = bytes.Repeat([]byte{1}, 32)
	})},
	{"other witness", "bad-witness-merkle-match", late(func(d *draft) {
		d.Txs[2].In[0].Witness = [][]byte{{1}, opTrue}
	})},
	{"witnesses stripped", "bad-witness-merkle-match", late(func(d *draft) {
		d.Txs[2].In[0].Witness = nil
	})},
	{"a later commitment to something else", "bad-witness-merkle-match", func(d *draft) {
		d.commit()
		other := bitcoin.TxOut{Script: append(CommitmentScript(bitcoin.Hash{1}), "and more"...)}
		d.Txs[0].Out = append(d.Txs[0].Out, other)
		d.Header.MerkleRoot, _ = d.MerkleRoot()
		d.asIs = true
	}},
	{"an earlier commitment to something else", "", func(d *draft) {
		d.commit()
		other := bitcoin.TxOut{Script: CommitmentScript(bitcoin.Hash{1})}
		d.Txs[0].Out = append([]bitcoin.TxOut{other}, d.Txs[0].Out...)
	}},
	{"a later output that is too short to commit", "", func(d *draft) {
		d.commit()
		short := bitcoin.TxOut{Script: CommitmentScript(bitcoin.Hash{1})[:37]}
		d.Txs[0].Out = append(d.Txs[0].Out, short)
		d.Header.MerkleRoot, _ = d.MerkleRoot()
		d.asIs = true
	}},
	{"witness that nothing commits to", "unexpected-witness", func(d *draft) {
		d.asIs = true
		d.Header.MerkleRoot, _ = d.MerkleRoot()
	}},
	{"weight of 4,000,001", "bad-blk-weight", func(d *draft) {
		d.Txs[2].In[0].Witness = [][]byte{make([]byte, MaxBlockWeight), opTrue}
		d.commit()
		d.Txs[2].In[0].Witness[0] = make([]byte, 2*MaxBlockWeight+1-d.Weight())
	}},

	// The coins.
	{"input that never was", missing, func(d *draft) {
		d.Txs[3].In[1].PrevOut.TxID[7]++
	}},
	{"input of an output that is not", missing, func(d *draft) {
		d.Txs[3].In[1].PrevOut.Index = 1
	}},
	{"input of an output of this block that is not", missing, func(d *draft) {
		d.Txs[4].In[1].PrevOut.Index = 0xffffffff
	}},
	{"coin spent twice in the block", missing, func(d *draft) {
		d.Txs[4].In[0].PrevOut = d.g.spare[1].OutPoint
	}},
	{"output of the block spent twice", missing, func(d *draft) {
		d.Txs[4].In[0].PrevOut = d.Txs[3].In[0].PrevOut
	}},
	{"output spent before it is created", missing, func(d *draft) {
		d.Txs[1], d.Txs[3] = d.Txs[3], d.Txs[1]
	}},
	{"output of itself", missing, func(d *draft) { d.Txs[4].In[1].PrevOut.TxID = d.Txs[4].TxID() }},
	{"one transaction twice", missing, func(d *draft) { d.Txs[4] = d.Txs[1] }},
	{"OP_RETURN spent", missing, func(d *draft) {
		none := spendTo(d.g.spare[3], []byte{byte(script.OpReturn)})
		with(none, spend(outputOf(none, 1)))(d)
	}},
	{"script of 10,001 octets spent", missing, func(d *draft) {
		none := spendTo(d.g.spare[3], make([]byte, 10_001))
		with(none, spend(outputOf(none, 1)))(d)
	}},
	{"coinbase spent in its block", "bad-txns-premature-spend-of-coinbase", func(d *draft) {
		// Without a witness, for the commitment would change the coinbase.
		d.Txs = d.Txs[:1]
		with(spend(outputOf(&d.Txs[0], 0)))(d)
	}},
	{"coinbase 99 deep", "bad-txns-premature-spend-of-coinbase", func(d *draft) {
		with(spend(d.g.out(d.g.blocks["mature.4"].block, 0, 0)))(d)
	}},
	{"more out than in", "bad-txns-in-belowout", func(d *draft) {
		d.Txs[3].Out[0].Value++
	}},
	{"younger than its relative lock", "bad-txns-nonfinal", func(d *draft) {
		d.Txs[3].Version, d.Txs[3].In[1].Sequence = 2, 103 // the coin has 102 confirmations
	}},
	{"version that looks negative, younger than its lock", "bad-txns-nonfinal", func(d *draft) {
		d.Txs[3].Version, d.Txs[3].In[1].Sequence = 0xffffffff, 103
	}},
	{"younger in time than its relative lock", "bad-txns-nonfinal", func(d *draft) {
		d.Txs[3].Version, d.Txs[3].In[1].Sequence = 2, 1<<22|1
	}},
	{"coinbase of 1 satoshi too much", "bad-cb-amount", func(d *draft) {
		d.Txs[0].Out[0].Value++
	}},

	// Scripts.
	{"script that fails", scriptFails + "(Script evaluated without error but finished with" +
		" a false/empty top stack element)", func(d *draft) {
		never := spendTo(d.g.spare[3], []byte{byte(script.Op0)})
		with(never, spend(outputOf(never, 1)))(d)
	}},
	{"witness program without witness",
		scriptFails + "(Witness program was passed an empty witness)",
		func(d *draft) { d.Txs[2].In[0].Witness = nil }},
	{"witness for what needs none",
		scriptFails + "(Witness provided for non-witness script)",
		func(d *draft) { d.Txs[3].In[0].Witness = [][]byte{opTrue} }},
}

// TestEachRule submits a valid block in which one thing is broken.
func TestEachRule(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 4)
	for _, row := range breakages {
		t.Run(row.name, func(t *testing.T) {
			g.t = t
			b := g.next(row.name, validBlock, row.corrupt)
			kind := KindConsensus
			if special := kinds[row.want]; special != 0 {
				kind = special
			}
			switch {
			case kind == KindMissingPrev:
				expectError(t, g.submit(b.block), kind, row.want)
				g.goTo("mature.102")
			case row.want != "":
				g.reject(kind, row.want)
			default:
				g.accept()
				g.forget()
			}
		})
	}
}

// TestAmountsOfCoins meets coins that no valid chain has: the View is not trusted to keep money in
// range.
func TestAmountsOfCoins(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 3)
	one, two, three := g.take(), g.take(), g.take()
	pay := func(from ...output) *bitcoin.Tx {
		tx := spend(from...)
		tx.Out[0].Value = 0
		return tx
	}
	for _, row := range []struct {
		name, want string
		values     [3]bitcoin.Amount
		txs        []*bitcoin.Tx
	}{
		{"negative", "bad-txns-inputvalues-outofrange", [3]bitcoin.Amount{-1},
			[]*bitcoin.Tx{pay(one)}},
		{"too much", "bad-txns-inputvalues-outofrange", [3]bitcoin.Amount{bitcoin.MaxMoney + 1},
			[]*bitcoin.Tx{pay(one)}},
		{"too much together", "bad-txns-inputvalues-outofrange",
			[3]bitcoin.Amount{bitcoin.MaxMoney, 1}, []*bitcoin.Tx{pay(one, two)}},
		{"too much of fees", "bad-txns-accumulated-fee-outofrange",
			[3]bitcoin.Amount{bitcoin.MaxMoney - 1, 1, 1},
			[]*bitcoin.Tx{pay(one), pay(two), pay(three)}},
		{"as much as there can be", "", [3]bitcoin.Amount{bitcoin.MaxMoney - 1, 1, 0},
			[]*bitcoin.Tx{pay(one), pay(two), pay(three)}},
	} {
		for i, out := range []output{one, two, three} {
			coin := g.coins[out.OutPoint]
			coin.Out.Value = row.values[i]
			g.coins[out.OutPoint] = coin
		}
		b := g.next(row.name, with(row.txs...))
		c, err := NewCandidate(g.net, b.block, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = Connect(g.node.tip().state, c, g)
		expectError(t, err, KindConsensus, row.want)
		g.goTo("mature.101")
	}
}

// TestCheckTransactionSize needs a transaction that is too large for a block, which CheckBlock
// refuses first.
func TestCheckTransactionSize(t *testing.T) {
	tx := &bitcoin.Tx{In: make([]bitcoin.TxIn, 1), Out: []bitcoin.TxOut{{}}}
	tx.In[0].Script = make([]byte, 1_000_000-tx.BaseSize()-4)
	expectError(t, CheckTransaction(tx), 0, "")
	tx.In[0].Script = append(tx.In[0].Script, 0)
	expectError(t, CheckTransaction(tx), KindConsensus, "bad-txns-oversize")
	tx.In[0].Script = nil
	tx.In[0].Witness = [][]byte{make([]byte, 5_000_000)} // which does not count yet
	expectError(t, CheckTransaction(tx), 0, "")
}

// TestReasonsAreTested wants every reason that the package can give in the tests.
func TestReasonsAreTested(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var code, tests strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "_test.go") {
			tests.Write(text)
		} else {
			code.Write(text)
		}
	}
	reasons := regexp.MustCompile(`"((?:bad|time|high|prev|unexpected|block-script)-[-A-Za-z0-9]+)`)
	found := reasons.FindAllStringSubmatch(code.String(), -1)
	for _, reason := range found {
		if !strings.Contains(tests.String(), reason[0]) {
			t.Errorf("no test wants %q", reason[1])
		}
	}
	if len(found) < 30 {
		t.Errorf("only %d reasons found", len(found))
	}
}
