package script

import (
	"bytes"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

// FuzzText: what is formatted parses to the same script, and no script makes the readers of scripts
// panic.
func FuzzText(f *testing.F) {
	f.Add([]byte{byte(Op1), byte(OpDup), 2, 1, 2, byte(OpPushData1), 1, 5})
	f.Add([]byte{byte(OpPushData2), 0xff})
	f.Fuzz(func(t *testing.T, script []byte) {
		again, err := Parse(Format(script))
		if err != nil || !bytes.Equal(again, script) {
			t.Errorf("%x: %q: %x, %v", script, Format(script), again, err)
		}
		Asm(script, true)
		Solve(script)
		HasValidOps(script)
		if SigOps(script, true) > SigOps(script, false) {
			t.Errorf("%x: more signature operations counted accurately", script)
		}
		if data, ok := LastPush(script); ok && !bytes.HasSuffix(script, data) {
			t.Errorf("%x: last push %x", script, data)
		}
	})
}

// FuzzNum: a number that is read is written in the same way, if it was minimal, and reads the same.
func FuzzNum(f *testing.F) {
	f.Add([]byte{0xff, 0x80})
	f.Add([]byte{0, 0, 0, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := DecodeNum(b, false, 8)
		if err != nil {
			return
		}
		written := AppendNum(nil, n)
		if _, err := DecodeNum(b, true, 8); (err == nil) != bytes.Equal(written, b) {
			t.Errorf("%x: %d is written %x, minimal: %v", b, n, written, err)
		}
		if again, err := DecodeNum(written, true, 8); err != nil || again != n {
			t.Errorf("%x: %d, again %d (%v)", b, n, again, err)
		}
		if isTrue(b) != (n != 0) {
			t.Errorf("%x: %d, but true: %v", b, n, isTrue(b))
		}
	})
}

// FuzzStrictDER: a strict signature is read by the lax parser, and is what r and s are encoded to.
func FuzzStrictDER(f *testing.F) {
	f.Add([]byte{0x30, 6, 2, 1, 1, 2, 1, 2, 1})
	f.Fuzz(func(t *testing.T, sig []byte) {
		if !IsStrictDER(sig) {
			return
		}
		rs, ok := secp.ParseDER(sig[:len(sig)-1])
		if !ok {
			t.Fatalf("%x is not parsed", sig)
		}
		if der := secp.AppendDER(nil, &rs); rs != [64]byte{} && !bytes.Equal(der,
			sig[:len(sig)-1]) {
			t.Errorf("%x is encoded %x", sig, der)
		}
	})
}

// FuzzVerify runs any scripts under any flags: there must be an outcome, the same one twice, and a
// rule more must not make valid what was not.
func FuzzVerify(f *testing.F) {
	f.Add([]byte{byte(Op1)}, []byte{byte(Op1)}, []byte{}, []byte{}, uint64(0), uint64(1))
	f.Add([]byte{}, PayToWitness(1, make([]byte, 32)), []byte{1}, []byte{0xc0}, uint64(allFlags),
		uint64(0))
	v := &Verifier{Engine: instant{}}
	f.Fuzz(func(t *testing.T, scriptSig, scriptPubKey, item, last []byte, flags, more uint64) {
		var witness [][]byte
		if len(last) > 0 {
			witness = [][]byte{item, item, last}
		}
		s := spendingOf(scriptSig, scriptPubKey, witness, bitcoin.Amount(len(item)))
		f1 := fill(Flags(flags) & allFlags)
		code := v.verify(s, 0, f1)
		if code >= codes {
			t.Fatalf("outcome %d", code)
		}
		if again := v.verify(s, 0, f1); again != code {
			t.Errorf("%s, then %s", code.Name(), again.Name())
		}
		f2 := fill(f1 | Flags(more)&allFlags)
		if other := v.verify(s, 0, f2); code != OK && other == OK {
			t.Errorf("%s with %v, OK with %v", code.Name(), f1, f2)
		}
		// Witness and tapscript by way of a program that fits.
		v.Eval(scriptPubKey, f1)
		v.verify(spendTaproot(t, leafTapscript, scriptPubKey, item, last), 0, f2|MandatoryFlags)
	})
}
