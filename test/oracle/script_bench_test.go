package oracle

import (
	"encoding/hex"
	"encoding/json"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
	"github.com/tallypost/tallypost/bitcoin/secp"
	"github.com/tallypost/tallypost/internal/vectors"
)

// scriptBlock is block 866342 with the outputs it spends, as both sides hold it: 7,972 inputs,
// nearly a third of them taproot.
type scriptBlock struct {
	ours  *bitcoin.Block
	spent [][]bitcoin.TxOut // for each transaction; none for the coinbase

	theirs  []*wire.MsgTx
	outputs *txscript.MultiPrevOutFetcher
}

func readScriptBlock(b *testing.B) *scriptBlock {
	b.Helper()
	raw := vectors.Read(b, "bitcoin/blocks/0866342.bin")
	var coins []struct {
		TxOut struct {
			Value        int64
			ScriptPubKey string `json:"script_pubkey"`
		}
	}
	if err := json.Unmarshal(vectors.Read(b, "bitcoin/blocks/0866342.spent_utxos.json"),
		&coins); err != nil {
		b.Fatal(err)
	}
	block, err := bitcoin.ParseBlock(raw)
	if err != nil {
		b.Fatal(err)
	}
	s := &scriptBlock{
		ours:    block,
		spent:   make([][]bitcoin.TxOut, len(block.Txs)),
		outputs: txscript.NewMultiPrevOutFetcher(nil),
	}
	for i := range block.Txs {
		tx := toWire(b, block.Txs[i].Append(nil))
		s.theirs = append(s.theirs, tx)
		if i == 0 {
			continue
		}
		for _, in := range tx.TxIn {
			pkScript, err := hex.DecodeString(coins[0].TxOut.ScriptPubKey)
			if err != nil {
				b.Fatal(err)
			}
			value := coins[0].TxOut.Value
			s.spent[i] = append(s.spent[i], bitcoin.TxOut{Value: bitcoin.Amount(value),
				Script: pkScript})
			s.outputs.AddPrevOut(in.PreviousOutPoint, wire.NewTxOut(value, pkScript))
			coins = coins[1:]
		}
	}
	return s
}

// verifyOurs runs the scripts of one transaction.
func (s *scriptBlock) verifyOurs(b *testing.B, v *script.Verifier, spending *script.Spending,
	tx int) {
	spending.Init(&s.ours.Txs[tx], s.spent[tx])
	for i := range s.spent[tx] {
		if err := v.VerifyInput(spending, i, script.MandatoryFlags); err != nil {
			b.Fatal(err)
		}
	}
}

// verifyTheirs does the same the way btcd's blockchain package does it.
func (s *scriptBlock) verifyTheirs(b *testing.B, cache *txscript.SigCache, tx int) {
	const flags = txscript.ScriptBip16 | txscript.ScriptVerifyDERSignatures |
		txscript.ScriptStrictMultiSig | txscript.ScriptVerifyCheckLockTimeVerify |
		txscript.ScriptVerifyCheckSequenceVerify | txscript.ScriptVerifyWitness |
		txscript.ScriptVerifyTaproot
	msg := s.theirs[tx]
	hashes := txscript.NewTxSigHashes(msg, s.outputs)
	for i, in := range msg.TxIn {
		out := s.outputs.FetchPrevOutput(in.PreviousOutPoint)
		vm, err := txscript.NewEngine(out.PkScript, msg, i, flags, cache, hashes, out.Value,
			s.outputs)
		if err != nil {
			b.Fatal(err)
		}
		if err := vm.Execute(); err != nil {
			b.Fatal(err)
		}
	}
}

// report adds allocations for each transaction and time for each input.
func (s *scriptBlock) report(b *testing.B, before *runtime.MemStats) {
	var after runtime.MemStats
	runtime.ReadMemStats(&after)
	n := float64(b.N * (len(s.ours.Txs) - 1))
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/n, "allocs/tx")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/7972, "ns/input")
}

func (s *scriptBlock) run(b *testing.B, verify func(tx int)) {
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		for tx := 1; tx < len(s.ours.Txs); tx++ {
			verify(tx)
		}
	}
	s.report(b, &before)
}

// BenchmarkScripts866342 runs all scripts of the block, signatures included, on one core.
// "same-library" verifies with the library that btcd uses, which is the default; "native" with our
// own engine.
func BenchmarkScripts866342(b *testing.B) {
	s := readScriptBlock(b)
	for _, c := range []struct {
		name   string
		engine secp.Engine
	}{{"native", secp.Native{}}, {"same-library", secp.Decred{}}} {
		b.Run("tallypost/"+c.name, func(b *testing.B) {
			v := script.Verifier{Engine: c.engine}
			var spending script.Spending
			s.run(b, func(tx int) { s.verifyOurs(b, &v, &spending, tx) })
		})
	}
	b.Run("tallypost/native-batch", func(b *testing.B) {
		v := script.Verifier{Engine: secp.Native{}, Batch: new(secp.Batch)}
		var spending script.Spending
		s.run(b, func(tx int) {
			s.verifyOurs(b, &v, &spending, tx)
			if tx == len(s.ours.Txs)-1 {
				if _, ok := v.Batch.Verify(secp.Native{}); !ok {
					b.Fatal("batch fails")
				}
				v.Batch.Reset()
			}
		})
	})
	b.Run("btcd", func(b *testing.B) {
		s.run(b, func(tx int) { s.verifyTheirs(b, nil, tx) })
	})
}

// valid is an engine that says yes: what is left is the interpreter and the hashing.
type valid struct{}

func (valid) VerifyECDSA([]byte, *[32]byte, *[64]byte) bool              { return true }
func (valid) VerifySchnorr(*[32]byte, []byte, *[64]byte) bool            { return true }
func (valid) VerifySchnorrBatch([]secp.SchnorrSignature, *[32]byte) bool { return true }
func (valid) VerifyTweak(*[32]byte, bool, *[32]byte, *[32]byte) bool     { return true }

// listing is an engine that says yes and remembers the keys.
type listing struct {
	valid
	ecdsa   [][]byte
	schnorr [][32]byte
	tweaks  []struct{ output, internal, tweak [32]byte }
}

func (l *listing) VerifyECDSA(key []byte, _ *[32]byte, _ *[64]byte) bool {
	l.ecdsa = append(l.ecdsa, key)
	return true
}

func (l *listing) VerifySchnorr(key *[32]byte, _ []byte, _ *[64]byte) bool {
	l.schnorr = append(l.schnorr, *key)
	return true
}

func (l *listing) VerifyTweak(output *[32]byte, _ bool, internal, tweak *[32]byte) bool {
	l.tweaks = append(l.tweaks,
		struct{ output, internal, tweak [32]byte }{*output, *internal, *tweak})
	return true
}

// BenchmarkScriptOverhead866342 leaves the signatures out: ours by an engine that says yes, btcd's by
// a cache that knows every signature. btcd still parses every key before it asks its cache, and checks
// the commitments of taproot: "btcd-keys" is how long that takes its library, to be taken off.
func BenchmarkScriptOverhead866342(b *testing.B) {
	s := readScriptBlock(b)
	b.Run("tallypost", func(b *testing.B) {
		v := script.Verifier{Engine: valid{}}
		var spending script.Spending
		s.run(b, func(tx int) { s.verifyOurs(b, &v, &spending, tx) })
	})
	b.Run("btcd", func(b *testing.B) {
		cache := txscript.NewSigCache(20_000)
		for tx := 1; tx < len(s.theirs); tx++ {
			s.verifyTheirs(b, cache, tx)
		}
		s.run(b, func(tx int) { s.verifyTheirs(b, cache, tx) })
	})
	b.Run("btcd-keys", func(b *testing.B) {
		keys := new(listing)
		v := script.Verifier{Engine: keys}
		var spending script.Spending
		for tx := 1; tx < len(s.theirs); tx++ {
			s.verifyOurs(b, &v, &spending, tx)
		}
		b.ResetTimer()
		for range b.N {
			for _, key := range keys.ecdsa {
				if _, err := btcec.ParsePubKey(key); err != nil {
					b.Fatal(err)
				}
			}
			for i := range keys.schnorr {
				if _, err := schnorr.ParsePubKey(keys.schnorr[i][:]); err != nil {
					b.Fatal(err)
				}
			}
			for i := range keys.tweaks {
				k := &keys.tweaks[i]
				(secp.Decred{}).VerifyTweak(&k.output, false, &k.internal, &k.tweak)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/7972, "ns/input")
	})
}

// BenchmarkScriptsParallel866342 spreads the transactions of the block over all cores.
func BenchmarkScriptsParallel866342(b *testing.B) {
	s := readScriptBlock(b)
	spread := func(b *testing.B, worker func() func(tx int)) {
		b.ReportAllocs()
		b.ResetTimer()
		for range b.N {
			var next atomic.Int64
			var wait sync.WaitGroup
			for range runtime.GOMAXPROCS(0) {
				wait.Go(func() {
					verify := worker()
					for tx := int(next.Add(1)); tx < len(s.theirs); tx = int(next.Add(1)) {
						verify(tx)
					}
				})
			}
			wait.Wait()
		}
	}
	b.Run("tallypost", func(b *testing.B) {
		spread(b, func() func(tx int) {
			v, spending := new(script.Verifier), new(script.Spending)
			return func(tx int) { s.verifyOurs(b, v, spending, tx) }
		})
	})
	b.Run("btcd", func(b *testing.B) {
		spread(b, func() func(tx int) { return func(tx int) { s.verifyTheirs(b, nil, tx) } })
	})
}
