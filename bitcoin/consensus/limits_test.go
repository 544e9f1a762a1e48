package consensus

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
)

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
			g.reject(KindConsensus, scriptFails+"(Push value size limit exceeded)")
		} else {
			g.accept()
			g.forget()
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
		g.forget()
	}
	for _, op := range []script.Op{script.OpCheckSig, script.OpCheckSigVerify} {
		pass(op.String(), output(ops(op, legacy)))
		fail(op.String()+" and one", output(ops(op, legacy+1)))
	}
	for _, op := range []script.Op{script.OpCheckMultisig, script.OpCheckMultisigVerify} {
		pass(op.String(), output(ops(op, legacy/20)))
		fail(op.String()+" and one", output(append(ops(op, legacy/20), byte(script.OpCheckSig))))
		// Outside of redeem scripts the number of keys before the operation does not count.
		ofOne := bytes.Repeat([]byte{byte(script.Op1), byte(op)}, legacy/20)
		fail(op.String()+" of 1", output(append(ofOne, byte(script.OpCheckSig))))
	}

	// Pushed octets are no operations. A push that the script is too short for ends the count.
	push := func(size uint32, before, after int) []byte {
		s := append(sigOps(before), byte(script.OpPushData4))
		s = binary.LittleEndian.AppendUint32(s, size)
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
			tx.In = append(tx.In, bitcoin.TxIn{PrevOut: outputOf(make, i+1).OutPoint,
				Sequence: 0xffffffff, Script: script.AppendPush(nil, redeem(each))})
		}
		tx.Out = append(tx.Out, bitcoin.TxOut{Script: sigOps(more)})
		return with(tx)
	}
	pass("P2SH", spendAll(legacy-each*outputs))
	fail("P2SH and one", spendAll(legacy-each*outputs+1))
	inCoinbase := change(func(b *bitcoin.Block) { b.Txs[0].Out[0].Script = sigOps(1) })
	fail("P2SH and one in the coinbase", spendAll(legacy-each*outputs), inCoinbase)
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
