package script

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

// The faults that other implementations had, or have, in their interpreters: each left a test here.

// spendTaproot returns a spend of an output whose only leaf is the script.
func spendTaproot(t testing.TB, leafVersion byte, script []byte, items ...[]byte) *Spending {
	t.Helper()
	internal := testKey(t, 0).PublicKey().XOnly()
	leaf := TapLeafHash(leafVersion, script)
	output, odd, err := secp.TaprootOutput(&internal, leaf[:])
	if err != nil {
		t.Fatal(err)
	}
	control := append([]byte{leafVersion}, internal[:]...)
	if odd {
		control[0]++
	}
	witness := append(append([][]byte(nil), items...), script, control)
	return spendingOf(nil, PayToWitness(1, output[:]), witness, 0)
}

func expect(t *testing.T, name string, s *Spending, flags Flags, want Code) {
	t.Helper()
	if got := new(Verifier).verify(s, 0, flags); got != want {
		t.Errorf("%s: %s, want %s", name, got.Name(), want.Name())
	}
}

// TestLongWitnessItem: btcd refused witness items beyond 11,000 octets and stopped at block 757,922
// (CVE-2022-44797). A tapscript may be as long as a block.
func TestLongWitnessItem(t *testing.T) {
	for _, n := range []int{MaxScriptSize, 11_001, 1 << 20, 3_900_000} {
		script := bytes.Repeat([]byte{byte(OpNop)}, n)
		script[n-1] = byte(Op1)
		expect(t, "nops", spendTaproot(t, leafTapscript, script), MandatoryFlags, OK)
	}
	// Before tapscript the limit is MaxScriptSize, for what runs as for what a hash names.
	long := bytes.Repeat([]byte{byte(OpReserved)}, MaxScriptSize+1)
	sum := sha256.Sum256(long)
	p2wsh := spendingOf(nil, PayToWitness(0, sum[:]), [][]byte{long}, 0)
	expect(t, "witness script", p2wsh, MandatoryFlags, ErrScriptSize)
	expect(t, "output script", spendingOf(nil, long, nil, 0), MandatoryFlags, ErrScriptSize)
	expect(t, "input script", spendingOf(long, nil, nil, 0), MandatoryFlags, ErrScriptSize)
}

// TestManyWitnessItems: btcd refused more than 500,000 items and stopped at block 761,249. An
// OP_SUCCESS overrides even the limit of the stack.
func TestManyWitnessItems(t *testing.T) {
	items := make([][]byte, 500_002)
	success := []byte{byte(OpReserved)}
	expect(t, "OP_SUCCESS80", spendTaproot(t, leafTapscript, success, items...), MandatoryFlags, OK)
	expect(t, "OP_1", spendTaproot(t, leafTapscript, []byte{byte(Op1)}, items...), MandatoryFlags,
		ErrStackSize)
	expect(t, "unknown leaf", spendTaproot(t, 0xc2, []byte{byte(Op1)}, items...), MandatoryFlags,
		OK)

	script := []byte{byte(Op1)}
	sum := sha256.Sum256(script)
	v := new(Verifier)
	s := spendingOf(nil, PayToWitness(0, sum[:]), append(items, script), 0)
	if got := v.verify(s, 0, MandatoryFlags); got != ErrStackSize {
		t.Errorf("witness script: %s", got.Name())
	}
	if cap(v.stack) > keepStack {
		t.Errorf("a stack of %d items is kept", cap(v.stack))
	}
	// Without an operation nothing looks at the size of the stack, only at what is left.
	sum = sha256.Sum256(nil)
	s = spendingOf(nil, PayToWitness(0, sum[:]), append(items, nil), 0)
	expect(t, "empty witness script", s, MandatoryFlags, ErrCleanStack)
}

// TestVersionIsUnsigned: btcd compared the version as a signed number, so that "negative" ones
// escaped relative lock times (CVE-2024-34478).
func TestVersionIsUnsigned(t *testing.T) {
	for _, c := range []struct {
		version uint32
		want    Code
	}{
		{0, ErrUnsatisfiedLockTime},
		{1, ErrUnsatisfiedLockTime},
		{2, OK},
		{0x7fffffff, OK},
		{0x80000000, OK},
		{0xffffffff, OK},
	} {
		s := spendingOf(nil, []byte{byte(Op5), byte(OpCheckSequenceVerify)}, nil, 0)
		s.tx.Version, s.tx.In[0].Sequence = c.version, 5
		expect(t, "version", s, MandatoryFlags, c.want)
	}
}

// TestRemovesWholePushesOnly: btcd removed every push that contained the signature
// (CVE-2024-38365). Only an operation that pushes just the signature goes, where an operation
// begins.
func TestRemovesWholePushesOnly(t *testing.T) {
	sig := bytes.Repeat([]byte{0x30}, 9)
	push := AppendPush(nil, sig)
	longer := AppendPush(nil, append([]byte{1}, sig...))
	quoted := AppendPush(nil, push)
	pushData1 := append([]byte{byte(OpPushData1), 9}, sig...)
	nop := []byte{byte(OpNop)}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, c := range []struct {
		name         string
		script, want []byte
		found        bool
	}{
		{"nothing", nop, nop, false},
		{"alone", push, nil, true},
		{"twice in a row", join(push, push), nil, true},
		{"between", join(nop, push, nop), join(nop, nop), true},
		{"in a longer push", join(longer, nop), join(longer, nop), false},
		{"its push in a push", join(quoted, nop), join(quoted, nop), false},
		{"pushed in another way", join(pushData1, nop), join(pushData1, nop), false},
		{"both", join(quoted, push, longer), join(quoted, longer), true},
		{"cut off", push[:9], push[:9], false},
		{"after the end of operations", join([]byte{75}, push), join([]byte{75}, push), false},
	} {
		var v Verifier
		got, found := v.withoutPush(c.script, push)
		if !bytes.Equal(got, c.want) || found != c.found {
			t.Errorf("%s: %x, %v; want %x, %v", c.name, got, found, c.want, c.found)
		}
		v.flags = 0
		if got, code := v.withoutSig(c.script, sig); !bytes.Equal(got, c.want) || code != OK {
			t.Errorf("%s: %x, %v", c.name, got, code)
		}
		v.flags = VerifyConstScriptCode
		if _, code := v.withoutSig(c.script, sig); (code == ErrSigFindAndDelete) != c.found {
			t.Errorf("%s: with CONST_SCRIPTCODE %v", c.name, code.Name())
		}
	}
}

// TestRemovalKeepsLongerPush has a script that pushes what contains a signature: the signature
// holds only if that push stays in what is signed.
func TestRemovalKeepsLongerPush(t *testing.T) {
	key := testKey(t, 2)
	pub := key.PublicKey().Compressed()
	// SIGHASH_SINGLE without an output signs the number 1: such a signature does not depend on the
	// script, so the script can contain it.
	one := [32]byte{1}
	rs := key.SignECDSA(&one, false)
	single := append(secp.AppendDER(nil, &rs), byte(SigHashSingle))
	for _, c := range []struct {
		name string
		junk []byte
	}{
		{"push that contains it", AppendPush(nil, append([]byte{7}, single...))},
		{"push of its push", AppendPush(nil, AppendPush(nil, single))},
		{"push of it", AppendPush(nil, single)},
	} {
		// junk single all -- : two signatures, of which the second signs the script with what is
		// left of it.
		b := new(Builder).Raw(c.junk).Op(OpDrop)
		b.Push(pub[:]).Op(OpCheckSigVerify).Push(pub[:]).Op(OpCheckSig)
		s := spendingOf(nil, b.Script(), nil, 0)
		s.tx.Out = nil
		s.Init(s.tx, s.spent)
		digest := LegacySigHash(s.tx, 0, b.Script(), SigHashAll)
		rs := key.SignECDSA(&digest, false)
		all := append(secp.AppendDER(nil, &rs), byte(SigHashAll))
		s.tx.In[0].Script = AppendPush(AppendPush(nil, single), all)
		expect(t, c.name, s, MandatoryFlags, OK)
	}
}

// TestNestedWitnessProgram: btcd looked for the program behind the first octet of the scriptSig
// instead of in its last push, and took other pushes before it (its pull request 2485).
func TestNestedWitnessProgram(t *testing.T) {
	script := []byte{byte(Op1)}
	sum := sha256.Sum256(script)
	program := PayToWitness(0, sum[:])
	pay := PayToScriptHash(Hash160(program))
	witness := [][]byte{script}
	plain := AppendPush(nil, program)
	for _, c := range []struct {
		name      string
		scriptSig []byte
		want      Code
	}{
		{"one push", plain, OK},
		{"a push before", append([]byte{byte(Op1)}, plain...), ErrWitnessMalleatedP2SH},
		{"the same push twice", append(plain[:len(plain):len(plain)], plain...),
			ErrWitnessMalleatedP2SH},
		{"a longer push", append([]byte{byte(OpPushData1), byte(len(program))}, program...),
			ErrWitnessMalleatedP2SH},
	} {
		expect(t, c.name, spendingOf(c.scriptSig, pay, witness, 0), MandatoryFlags, c.want)
		if n := WitnessSigOps(c.scriptSig, pay, [][]byte{{byte(OpCheckSig)}},
			MandatoryFlags); n != 1 {
			t.Errorf("%s: %d signature operations, want 1", c.name, n)
		}
	}
	runs := append(plain[:len(plain):len(plain)], byte(OpNop))
	expect(t, "no push only", spendingOf(runs, pay, witness, 0), MandatoryFlags, ErrSigPushOnly)
}

// TestEmptySignatureAndKey: the form of the key counts even where the signature is empty and fails
// anyway (btcd's pull request 2485).
func TestEmptySignatureAndKey(t *testing.T) {
	script := new(Builder).Push([]byte{9, 9}).Op(OpCheckSig, OpNot).Script()
	empty := []byte{byte(Op0)}
	expect(t, "base", spendingOf(empty, script, nil, 0), MandatoryFlags, OK)
	expect(t, "STRICTENC", spendingOf(empty, script, nil, 0), VerifyStrictEnc, ErrPubKeyType)
	sum := sha256.Sum256(script)
	s := spendingOf(nil, PayToWitness(0, sum[:]), [][]byte{nil, script}, 0)
	expect(t, "witness", s, MandatoryFlags, OK)
	expect(t, "WITNESS_PUBKEYTYPE", s, MandatoryFlags|VerifyWitnessPubKeyType, ErrWitnessPubKeyType)
	// In a tapscript too, for a key of no octets.
	script = new(Builder).Op(Op0, OpCheckSig, OpNot).Script()
	expect(t, "tapscript", spendTaproot(t, leafTapscript, script, nil), MandatoryFlags,
		ErrTapscriptEmptyPubKey)
}

// TestConstScriptCodeInDeadBranch: OP_CODESEPARATOR is refused where it does not run, too.
func TestConstScriptCodeInDeadBranch(t *testing.T) {
	script := parse(t, "0 IF CODESEPARATOR ENDIF 1")
	expect(t, "without", spendingOf(nil, script, nil, 0), MandatoryFlags, OK)
	expect(t, "base", spendingOf(nil, script, nil, 0), StandardFlags, ErrOpCodeSeparator)
	sum := sha256.Sum256(script)
	s := spendingOf(nil, PayToWitness(0, sum[:]), [][]byte{script}, 0)
	expect(t, "witness", s, StandardFlags, OK)
}

// TestPushData4: gocoin cut the length of OP_PUSHDATA4 to 16 bits.
func TestPushData4(t *testing.T) {
	for _, c := range []struct {
		size uint32
		data int
		want Code
	}{
		{3, 3, OK},
		{520, 520, OK},
		{521, 521, ErrPushSize},
		{1<<16 + 3, 3, ErrBadOpcode},
		{1 << 31, 3, ErrBadOpcode},
		{1<<32 - 1, 3, ErrBadOpcode},
		{4, 3, ErrBadOpcode},
	} {
		script := binary.LittleEndian.AppendUint32([]byte{byte(OpPushData4)}, c.size)
		script = append(script, bytes.Repeat([]byte{1}, c.data)...)
		expect(t, "length", spendingOf(nil, script, nil, 0), MandatoryFlags, c.want)
	}
	expect(t, "no length", spendingOf(nil, []byte{byte(Op1), byte(OpPushData4), 1, 0, 0}, nil, 0),
		MandatoryFlags, ErrBadOpcode)
}

// TestNotEqualZeroOperand: gocoin took operands of more than four octets for OP_0NOTEQUAL.
func TestNotEqualZeroOperand(t *testing.T) {
	for _, op := range []Op{Op0NotEqual, OpNot, OpAbs, OpNegate, Op1Add, Op1Sub} {
		four := new(Builder).Push([]byte{1, 0, 0, 0x40}).Op(op, OpDrop, Op1).Script()
		five := new(Builder).Push([]byte{1, 0, 0, 0x40, 0}).Op(op, OpDrop, Op1).Script()
		expect(t, op.String(), spendingOf(nil, four, nil, 0), MandatoryFlags, OK)
		expect(t, op.String(), spendingOf(nil, five, nil, 0), MandatoryFlags, ErrUnknownError)
	}
}

// wideTx has inputs and outputs enough that its hash takes a while.
func wideTx(inputs, outputs int) *bitcoin.Tx {
	tx := &bitcoin.Tx{Version: 2}
	for i := range inputs {
		tx.In = append(tx.In, bitcoin.TxIn{PrevOut: bitcoin.OutPoint{Index: uint32(i)},
			Sequence: uint32(i)})
	}
	for i := range outputs {
		tx.Out = append(tx.Out, bitcoin.TxOut{Value: bitcoin.Amount(i),
			Script: bytes.Repeat([]byte{1}, i%70)})
	}
	return tx
}

// TestSigHashCache (CVE-2025-46598): however many signatures a script has, a transaction is hashed
// but once for each of six ways, and the hashes are those of the plain computation.
func TestSigHashCache(t *testing.T) {
	for _, size := range []int{2, 60, 600} {
		tx := wideTx(size, size)
		var s Spending
		s.Init(tx, make([]bitcoin.TxOut, size))
		codes := [][]byte{{byte(OpCheckSig)}, {byte(OpCodeSeparator), byte(OpCheckSig)}, nil}
		var v Verifier
		v.begin(&s, 1, 0)
		hashed := 0
		for range 3 {
			for _, code := range codes {
				for hashType := range 256 {
					e := &v.sighashes[sighashClass(SigHash(hashType))]
					if !e.set || !bytes.Equal(e.code, code) {
						hashed++
					}
					got := v.ecdsaHash(code, byte(hashType), base)
					if want := LegacySigHash(tx, 1, code, SigHash(hashType)); got != want {
						t.Fatalf("size %d, hash type %x: %x, want %x", size, hashType, got, want)
					}
				}
			}
		}
		if hashed != 3*len(codes)*6 {
			t.Errorf("hashed %d times, want %d", hashed, 3*len(codes)*6)
		}
		// Where a preimage is long its state is kept, so that another hash type costs nothing.
		for _, t2 := range []SigHash{SigHashAll, SigHashNone, SigHashSingle,
			SigHashAll | SigHashAnyoneCanPay} {
			if e := &v.sighashes[sighashClass(t2)]; size == 600 &&
				!long(t2) != (len(e.state) == 0) {
				t.Errorf("hash type %x keeps a state of %d octets", uint32(t2), len(e.state))
			}
		}
	}
}

// long reports whether the preimage of input 1 of 600 is long: SINGLE alone blanks outputs after
// the first two, but has all inputs.
func long(t SigHash) bool { return !(t.alone() && t.single()) }

// TestSigHashCacheOfRemoved: a script code without a signature lies in memory that is used again,
// so the cache must not keep a reference to it.
func TestSigHashCacheOfRemoved(t *testing.T) {
	tx := wideTx(3, 3)
	var s Spending
	s.Init(tx, make([]bitcoin.TxOut, 3))
	var v Verifier
	v.begin(&s, 0, 0)
	sig := bytes.Repeat([]byte{5}, 9)
	script := func(tail Op) []byte {
		return append(AppendPush(nil, sig), byte(tail),
			byte(OpCheckSig))
	}
	for _, tail := range []Op{OpNop, OpNop1, OpNop, OpNop4} {
		code, _ := v.withoutSig(script(tail), sig)
		want := LegacySigHash(tx, 0, []byte{byte(tail), byte(OpCheckSig)}, SigHashAll)
		if got := v.ecdsaHash(code, byte(SigHashAll), base); got != want {
			t.Errorf("%v: %x, want %x", tail, got, want)
		}
	}
}

// TestScriptIsNotChanged: running a script changes neither the transaction nor what it spends.
func TestScriptIsNotChanged(t *testing.T) {
	script := parse(t,
		"2DUP SWAP ROT TUCK 2SWAP 3DUP 2ROT ROLL 1ADD HASH160 DROP DROP DROP DROP DROP 2DROP 1")
	items := [][]byte{{3}, {2}, {1}, {4}, {}, {1, 2, 3}}
	s := spendTaproot(t, leafTapscript, script, items...)
	before, out := s.tx.Append(nil), append([]byte(nil), s.spent[0].Script...)
	new(Verifier).verify(s, 0, MandatoryFlags)
	if !bytes.Equal(s.tx.Append(nil), before) || !bytes.Equal(s.spent[0].Script, out) {
		t.Error("changed")
	}
}
