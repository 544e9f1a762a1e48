package script

import (
	"bytes"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
)

// BenchmarkOverhead866342 runs the scripts of a block with an engine that says yes: interpreter and
// hashing.
func BenchmarkOverhead866342(b *testing.B) {
	block := readBlock866342(b)
	v := &Verifier{Engine: instant{}}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		block.verify(b, v, MandatoryFlags)
	}
}

// BenchmarkQuadraticHashing verifies one input of a transaction as large as a block, whose script
// checks 190 signatures with all hash types (CVE-2025-46598).
func BenchmarkQuadraticHashing(b *testing.B) {
	tx := wideTx(20_000, 1_000)
	sig := append(parseOrPanic("0x3006020101020101"), 0)
	var script []byte
	pub := bytes.Repeat([]byte{2}, 33)
	for i := range 60 {
		sig[len(sig)-1] = byte(i)
		script = append(AppendPush(AppendPush(script, sig), pub), byte(OpCheckSig), byte(OpDrop))
	}
	spent := make([]bitcoin.TxOut, len(tx.In))
	spent[5].Script = append(script, byte(Op1))
	var s Spending
	s.Init(tx, spent)
	v := &Verifier{Engine: instant{}}
	b.ReportAllocs()
	for b.Loop() {
		if code := v.verify(&s, 5, 0); code != OK {
			b.Fatal(code.Name())
		}
	}
}

func parseOrPanic(text string) []byte {
	s, err := Parse(text)
	if err != nil {
		panic(err)
	}
	return s
}

func BenchmarkHash160(b *testing.B) {
	key := make([]byte, 33)
	for b.Loop() {
		Hash160(key)
	}
}
