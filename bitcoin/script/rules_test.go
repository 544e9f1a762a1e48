package script

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"sync"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

// TestArena runs a tapscript that computes far more items than the arena holds, while the stacks
// are as full as they may be, and compares each with the plain computation.
func TestArena(t *testing.T) {
	var b Builder
	sum := []byte{1, 2, 3}
	b.Push(sum)
	const height = 900
	for range height { // a pile of hashes that must stay as they are while items are moved
		b.Op(OpDup, OpSha256)
	}
	const rounds = 5000
	for range rounds {
		b.Op(OpHash256)
	}
	b.Op(OpToAltStack)
	want := make([][]byte, 0, height)
	for range height {
		want = append(want, sum)
		h := sha256.Sum256(sum)
		sum = h[:]
	}
	for range rounds {
		h := bitcoin.DoubleHash(sum)
		sum = h[:]
	}
	b.Op(OpFromAltStack).Push(sum).Op(OpEqualVerify)
	for i := len(want) - 1; i >= 0; i-- {
		b.Push(want[i]).Op(OpEqualVerify)
	}
	b.Op(Op1)
	v := new(Verifier)
	s := spendTaproot(t, leafTapscript, b.Script())
	if got := v.verify(s, 0, MandatoryFlags); got != OK {
		t.Error(got.Name())
	}
	if len(v.values.half)+len(v.values.spare) != 2*arenaSize {
		t.Errorf("the arena has %d octets", len(v.values.half)+len(v.values.spare))
	}
}

// TestLimits stands on both sides of each limit of BIP 342 and of the rules before.
func TestLimits(t *testing.T) {
	repeat := func(op Op, n int, tail ...Op) []byte {
		s := bytes.Repeat([]byte{byte(op)}, n)
		for _, op := range tail {
			s = append(s, byte(op))
		}
		return s
	}
	inWitness := func(script []byte, items ...[]byte) *Spending {
		sum := sha256.Sum256(script)
		witness := append(append([][]byte(nil), items...), script)
		return spendingOf(nil, PayToWitness(0, sum[:]), witness, 0)
	}
	bare := func(script []byte, items ...[]byte) *Spending {
		var scriptSig []byte
		for _, item := range items {
			scriptSig = AppendPush(scriptSig, item)
		}
		return spendingOf(scriptSig, script, nil, 0)
	}
	tap := func(script []byte, items ...[]byte) *Spending {
		return spendTaproot(t, leafTapscript, script, items...)
	}
	type maker func(script []byte, items ...[]byte) *Spending
	long := func(n int) []byte { return bytes.Repeat([]byte{1}, n) }
	for _, c := range []struct {
		name   string
		make   maker
		script []byte
		items  [][]byte
		want   Code
	}{
		{"201 operations", bare, repeat(OpNop, 201, Op1), nil, OK},
		{"202 operations", bare, repeat(OpNop, 202, Op1), nil, ErrOpCount},
		{"202 operations in a witness", inWitness, repeat(OpNop, 202, Op1), nil, ErrOpCount},
		{"202 operations in a tapscript", tap, repeat(OpNop, 202, Op1), nil, OK},
		{"operations that do not run count", bare, parse(t, "0 IF "+words("NOP", 200)+" ENDIF 1"),
			nil, ErrOpCount},
		{"OP_RESERVED does not count", bare, parse(t, "0 IF "+words("RESERVED", 300)+" ENDIF 1"),
			nil, OK},
		{"keys of a multisig count", bare, parse(t, words("NOP", 181)+" 0 0 "+words("0", 20)+
			" 20 CHECKMULTISIG"), nil, ErrOpCount},
		{"and one less", bare, parse(t, words("NOP", 180)+" 0 0 "+
			words("0", 20)+" 20 CHECKMULTISIG"), nil, OK},
		{"1000 items", bare, repeat(Op1, 1000), nil, OK},
		{"1001 items", bare, repeat(Op1, 1001), nil, ErrStackSize},
		{"1000 items on two stacks", bare, append(repeat(OpToAltStack, 1), repeat(Op1, 999)...),
			[][]byte{{1}}, OK},
		{"1001 items on two stacks", bare, append(repeat(OpToAltStack, 1), repeat(Op1, 1000)...),
			[][]byte{{1}}, ErrStackSize},
		{"1001 items that 3DUP made", bare, repeat(Op1, 998, Op3Dup), nil, ErrStackSize},
		{"1000 items to begin with", tap, append(repeat(OpDrop, 999), byte(OpNot)),
			make([][]byte, 1000), OK},
		{"1001 items to begin with", tap, append(repeat(OpDrop, 1000), byte(OpNot)),
			make([][]byte, 1001), ErrStackSize},
		{"item of 520", inWitness, parse(t, "DROP 1"), [][]byte{long(520)}, OK},
		{"item of 521", inWitness, parse(t, "DROP 1"), [][]byte{long(521)}, ErrPushSize},
		{"item of 521 in a tapscript", tap, parse(t, "DROP 1"), [][]byte{long(521)}, ErrPushSize},
		{"push of 520", bare, append(AppendPush(nil, long(520)), byte(Op1)), nil, OK},
		{"push of 521", bare, append(AppendPush(nil, long(521)), byte(Op1)), nil, ErrPushSize},
		{"push of 521 that does not run", bare,
			parse(t, "0 IF 0x4d 0x0902 0x"+hexOf(long(521))+" ENDIF 1"), nil, ErrPushSize},
		{"21 keys", bare, parse(t, "0 0 "+words("0", 21)+" 21 CHECKMULTISIG"), nil, ErrPubKeyCount},
		{"-1 keys", bare, parse(t, "0 0 -1 CHECKMULTISIG"), nil, ErrPubKeyCount},
		{"more signatures than keys", bare, parse(t, "0 0 0 2 0 1 CHECKMULTISIG"), nil,
			ErrSigCount},
		{"no dummy", bare, parse(t, "0 0 CHECKMULTISIG"), nil, ErrInvalidStackOperation},
		{"a dummy", bare, parse(t, "0 0 0 CHECKMULTISIG"), nil, OK},
		{"a dummy that is not empty", bare, parse(t, "1 0 0 CHECKMULTISIG"), nil, ErrSigNullDummy},
		{"multisig in a tapscript", tap, parse(t, "0 0 0 CHECKMULTISIG"), nil,
			ErrTapscriptCheckMultisig},
		{"CHECKSIGADD before", inWitness,
			[]byte{byte(Op0), byte(Op0), byte(Op0), byte(OpCheckSigAdd)}, nil, ErrBadOpcode},
		{"two items left", tap, parse(t, "1 1"), nil, ErrCleanStack},
		{"false left", tap, parse(t, "0"), nil, ErrEvalFalse},
		{"negative zero left", tap, parse(t, "0x01 0x80"), nil, ErrEvalFalse},
		{"OP_IF of 2", tap, parse(t, "IF 1 ENDIF"), [][]byte{{2}}, ErrTapscriptMinimalIf},
		{"OP_IF of 2 in a witness", inWitness, parse(t, "IF 1 ENDIF"), [][]byte{{2}}, OK},
		{"OP_IF of nothing", bare, parse(t, "IF 1 ENDIF"), nil, ErrUnbalancedConditional},
		{"OP_ELSE alone", bare, parse(t, "1 ELSE"), nil, ErrUnbalancedConditional},
		{"OP_ENDIF alone", bare, parse(t, "1 ENDIF"), nil, ErrUnbalancedConditional},
		{"OP_IF without end", bare, parse(t, "1 1 IF"), nil, ErrUnbalancedConditional},
		{"OP_VERIF that does not run", bare, parse(t, "1 0 IF VERIF ENDIF"), nil, ErrBadOpcode},
		{"OP_VER that does not run", bare, parse(t, "1 0 IF VER ENDIF"), nil, OK},
		{"many OP_ELSEs", bare, parse(t, "0 IF 0 ELSE 1 ELSE 0 ELSE 1 ENDIF"), nil, OK},
		{"OP_CAT that does not run", bare, parse(t, "1 0 IF CAT ENDIF"), nil, ErrDisabledOpcode},
		{"OP_CAT in a tapscript", tap, parse(t, "CAT"), nil, OK},
		{"OP_SUCCESS before a cut push", tap, []byte{byte(OpCat), 75}, nil, OK},
		{"a cut push before OP_SUCCESS", tap, []byte{75, byte(OpCat)}, nil, ErrBadOpcode},
	} {
		expect(t, c.name, c.make(c.script, c.items...), MandatoryFlags, c.want)
	}
}

func words(word string, n int) string { return string(bytes.Repeat([]byte(word+" "), n)) }

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var s []byte
	for _, octet := range b {
		s = append(s, digits[octet>>4], digits[octet&15])
	}
	return string(s)
}

// TestOpSuccess lists BIP 342's OP_SUCCESSx.
func TestOpSuccess(t *testing.T) {
	in := func(op, from, to int) bool { return op >= from && op <= to }
	for op := range 256 {
		want := op == 80 || op == 98 || in(op, 126, 129) || in(op, 131, 134) || in(op, 137, 138) ||
			in(op, 141, 142) || in(op, 149, 153) || in(op, 187, 254)
		if got := isSuccess(Op(op)); got != want {
			t.Errorf("%d: %v", op, got)
		}
	}
	for _, name := range []string{"CAT", "SUBSTR", "LEFT", "RIGHT", "INVERT", "AND", "OR", "XOR",
		"2MUL", "2DIV", "MUL", "DIV", "MOD", "LSHIFT", "RSHIFT"} {
		if op := Op(parse(t, name)[0]); !isDisabled(op) {
			t.Errorf("%s is not disabled", name)
		}
	}
	disabled := 0
	for op := range 256 {
		if isDisabled(Op(op)) {
			disabled++
		}
	}
	if disabled != 15 {
		t.Errorf("%d operations are disabled, want 15", disabled)
	}
}

// TestValidationWeight spends the budget of BIP 342: 50 for each signature that is not empty, of
// the weight of the witness and 50 more.
func TestValidationWeight(t *testing.T) {
	for _, c := range []struct {
		checks, padding int
		want            Code
	}{
		{1, 0, OK},
		{20, 0, ErrTapscriptValidationWeight},
		{20, 500, OK},
	} {
		// A key of unknown kind makes every signature valid, and counts.
		var b Builder
		for range c.checks {
			b.Op(OpDup).Int(1).Op(OpCheckSigVerify)
		}
		b.Op(OpDrop)
		if c.padding > 0 {
			b.Push(bytes.Repeat([]byte{1}, min(c.padding, 500))).Op(OpDrop)
			b.Push(bytes.Repeat([]byte{1}, min(c.padding, 500))).Op(OpDrop)
		}
		b.Op(Op1)
		s := spendTaproot(t, leafTapscript, b.Script(), []byte{1})
		weight := witnessSize(s.tx.In[0].Witness) + 50
		if fits := weight >= 50*c.checks; fits != (c.want == OK) {
			t.Fatalf("weight %d does not test %d checks", weight, c.checks)
		}
		expect(t, "budget", s, MandatoryFlags, c.want)
	}
	if n := witnessSize([][]byte{nil, make([]byte, 300)}); n != 1+1+3+300 {
		t.Errorf("size of a witness: %d", n)
	}
}

// TestTaprootForms breaks one thing per row of a spend by key and a spend by script.
func TestTaprootForms(t *testing.T) {
	internal := testKey(t, 1)
	pub := internal.PublicKey().XOnly()
	script := []byte{byte(Op1)}
	leaf := TapLeafHash(leafTapscript, script)
	output, odd, err := secp.TaprootOutput(&pub, leaf[:])
	if err != nil {
		t.Fatal(err)
	}
	control := append([]byte{leafTapscript}, pub[:]...)
	if odd {
		control[0]++
	}
	pay := PayToWitness(1, output[:])
	with := func(witness ...[]byte) *Spending { return spendingOf(nil, pay, witness, 0) }
	signing := with()
	signing.InitForSigning(signing.tx, signing.spent)
	key, err := internal.TapTweak(leaf[:])
	if err != nil {
		t.Fatal(err)
	}
	sign := func(hashType SigHash, annex []byte) []byte {
		digest, err := signing.TaprootSigHash(0, hashType, annex, nil)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := key.SignSchnorr(digest[:], new([32]byte))
		if err != nil {
			t.Fatal(err)
		}
		return sig[:]
	}
	annex := []byte{annexTag, 1, 2}
	sig := sign(SigHashDefault, nil)
	typed := func(hashType SigHash) []byte { return append(sign(hashType, nil), byte(hashType)) }
	for _, c := range []struct {
		name string
		s    *Spending
		want Code
	}{
		{"key", with(sig), OK},
		{"key with a type", with(typed(SigHashAll)), OK},
		{"key with SINGLE|ANYONECANPAY", with(typed(SigHashSingle | SigHashAnyoneCanPay)), OK},
		{"key with the type that is default", with(append(sig[:64:64], 0)), ErrSchnorrSigHashType},
		{"key with another type", with(append(sig[:64:64], 1)), ErrSchnorrSig},
		{"key with a type that is not", with(append(sig[:64:64], 4)), ErrSchnorrSigHashType},
		{"key with ANYONECANPAY alone", with(append(sig[:64:64], 0x80)), ErrSchnorrSigHashType},
		{"key with 63 octets", with(sig[:63]), ErrSchnorrSigSize},
		{"key with nothing", with(nil), ErrSchnorrSigSize},
		{"key with an annex", with(sign(SigHashDefault, annex), annex), OK},
		{"key with an annex not signed", with(sig, annex), ErrSchnorrSig},
		{"an annex alone is a signature", with(annex), ErrSchnorrSigSize},
		{"no witness", with(), ErrWitnessProgramWitnessEmpty},
		{"script", with(script, control), OK},
		{"script with an annex", with(script, control, annex), OK},
		{"script with two annexes", with(script, control, annex, annex),
			ErrTaprootWrongControlSize},
		{"another script", with([]byte{byte(Op2)}, control), ErrWitnessProgramMismatch},
		{"parity", with(script, append([]byte{control[0] ^ 1}, control[1:]...)),
			ErrWitnessProgramMismatch},
		{"control of 32", with(script, control[:32]), ErrTaprootWrongControlSize},
		{"control of 34", with(script, append(control[:33:33], 0)), ErrTaprootWrongControlSize},
		{"control with a node more", with(script, append(control[:33:33], make([]byte, 32)...)),
			ErrWitnessProgramMismatch},
		{"control with 128 nodes", with(script, append(control[:33:33], make([]byte, 32*128)...)),
			ErrWitnessProgramMismatch},
		{"control with 129 nodes", with(script, append(control[:33:33], make([]byte, 32*129)...)),
			ErrTaprootWrongControlSize},
		{"control empty", with(script, nil), ErrTaprootWrongControlSize},
	} {
		expect(t, c.name, c.s, MandatoryFlags, c.want)
	}
	wrapped := spendingOf(AppendPush(nil, pay), PayToScriptHash(Hash160(pay)), [][]byte{sig}, 0)
	expect(t, "within P2SH it has no meaning", wrapped, MandatoryFlags, OK)
	expect(t, "and is discouraged", wrapped, StandardFlags, ErrDiscourageUpgradableWitnessProgram)
}

// TestAnchor: OP_1 <4e73> is spent by nobody's signature, and is the one program without meaning
// that relay does not discourage; within P2SH it is.
func TestAnchor(t *testing.T) {
	anchor := PayToWitness(1, []byte{0x4e, 0x73})
	if !IsPayToAnchor(anchor) {
		t.Fatalf("%x is no anchor", anchor)
	}
	expect(t, "bare", spendingOf(nil, anchor, nil, 0), StandardFlags, OK)
	expect(t, "bare with a witness", spendingOf(nil, anchor, [][]byte{{1}}, 0), StandardFlags, OK)
	expect(t, "with a scriptSig", spendingOf([]byte{byte(Op1)}, anchor, nil, 0), StandardFlags,
		ErrWitnessMalleated)
	wrapped := spendingOf(AppendPush(nil, anchor), PayToScriptHash(Hash160(anchor)), nil, 0)
	expect(t, "wrapped", wrapped, StandardFlags, ErrDiscourageUpgradableWitnessProgram)
	expect(t, "another program", spendingOf(nil, PayToWitness(1, []byte{0x4e, 0x74}), nil, 0),
		StandardFlags, ErrDiscourageUpgradableWitnessProgram)
	expect(t, "another version", spendingOf(nil, PayToWitness(2, []byte{0x4e, 0x73}), nil, 0),
		StandardFlags, ErrDiscourageUpgradableWitnessProgram)
}

// TestFalseProgram: a witness program is run as a script first, so one of zeros alone is false.
func TestFalseProgram(t *testing.T) {
	expect(t, "zeros", spendingOf(nil, PayToWitness(0, make([]byte, 20)), nil, 0), MandatoryFlags,
		ErrEvalFalse)
	expect(t, "zeros of version 1", spendingOf(nil, PayToWitness(1, make([]byte, 32)),
		[][]byte{{1}}, 0),
		MandatoryFlags, ErrEvalFalse)
}

// TestLockTime stands on both sides of each condition of BIP 65.
func TestLockTime(t *testing.T) {
	for _, c := range []struct {
		name     string
		want     int64 // in the script
		have     uint32
		sequence uint32
		code     Code
	}{
		{"equal", 100, 100, 0, OK},
		{"later", 100, 101, 0, OK},
		{"earlier", 100, 99, 0, ErrUnsatisfiedLockTime},
		{"final input", 100, 100, sequenceFinal, ErrUnsatisfiedLockTime},
		{"time and height", LockTimeThreshold, LockTimeThreshold - 1, 0, ErrUnsatisfiedLockTime},
		{"height and time", LockTimeThreshold - 1, LockTimeThreshold, 0, ErrUnsatisfiedLockTime},
		{"time", LockTimeThreshold, LockTimeThreshold, 0, OK},
		{"after 2038", 1 << 31, 1 << 31, 0, OK},
		{"the end of time", 1<<32 - 1, 1<<32 - 1, 0, OK},
		{"after the end of time", 1 << 32, 1<<32 - 1, 0, ErrUnsatisfiedLockTime},
		{"negative", -1, 100, 0, ErrNegativeLockTime},
		{"six octets", 1 << 40, 100, 0, ErrUnknownError},
	} {
		script := AppendPush(nil, AppendNum(nil, c.want))
		s := spendingOf(nil, append(script, byte(OpCheckLockTimeVerify)), nil, 0)
		s.tx.LockTime, s.tx.In[0].Sequence = c.have, c.sequence
		expect(t, c.name, s, MandatoryFlags, c.code)
	}
	nothing := spendingOf(nil, []byte{byte(OpCheckLockTimeVerify)}, nil, 0)
	expect(t, "no argument", nothing, MandatoryFlags, ErrInvalidStackOperation)
	expect(t, "no rule", nothing, VerifyP2SH, ErrEvalFalse)
}

// TestSequence stands on both sides of each condition of BIP 112.
func TestSequence(t *testing.T) {
	for _, c := range []struct {
		name string
		want int64
		have uint32
		code Code
	}{
		{"equal", 10, 10, OK},
		{"later", 10, 11, OK},
		{"earlier", 10, 9, ErrUnsatisfiedLockTime},
		{"no lock asked", sequenceDisable | 10, 0, OK},
		{"no lock had", 10, sequenceDisable | 10, ErrUnsatisfiedLockTime},
		{"blocks asked, time had", 10, sequenceTypeFlag | 10, ErrUnsatisfiedLockTime},
		{"time asked, blocks had", sequenceTypeFlag | 10, 10, ErrUnsatisfiedLockTime},
		{"time", sequenceTypeFlag | 10, sequenceTypeFlag | 10, OK},
		{"other bits do not count", 10, 10 | 1<<30 | 1<<16, OK},
		{"other bits asked do not count", 10 | 1<<30 | 1<<16, 10, OK},
		{"negative", -1, 10, ErrNegativeLockTime},
		{"beyond 32 bits, no lock", 1<<32 | sequenceDisable, 0, OK},
	} {
		script := AppendPush(nil, AppendNum(nil, c.want))
		s := spendingOf(nil, append(script, byte(OpCheckSequenceVerify)), nil, 0)
		s.tx.Version, s.tx.In[0].Sequence = 2, c.have
		expect(t, c.name, s, MandatoryFlags, c.code)
	}
}

// TestInconsistentFlags: to ask for a rule without what it needs is a fault of the program.
func TestInconsistentFlags(t *testing.T) {
	for _, f := range []Flags{VerifyWitness, VerifyCleanStack, VerifyCleanStack | VerifyP2SH} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%v: no panic", f)
				}
			}()
			new(Verifier).verify(spendingOf(nil, []byte{byte(Op1)}, nil, 0), 0, f)
		}()
	}
}

func TestVerifyInputError(t *testing.T) {
	err := new(Verifier).VerifyInput(spendingOf(nil, []byte{byte(OpReturn)}, nil, 0), 0, 0)
	var failure *Error
	if !errors.As(err, &failure) || failure.Code != ErrOpReturn || failure.Input != 0 {
		t.Fatalf("%#v", err)
	}
	if got := err.Error(); got != "input 0: OP_RETURN was encountered" {
		t.Errorf("%q", got)
	}
}

func TestEval(t *testing.T) {
	v := new(Verifier)
	stack, code := v.Eval(parse(t, "1 2 ADD 0x02 0xbeef"), 0)
	if code != OK || len(stack) != 2 || !bytes.Equal(stack[0], []byte{3}) || !bytes.Equal(stack[1],
		[]byte{0xbe, 0xef}) {
		t.Errorf("%x, %s", stack, code.Name())
	}
	pub := testKey(t, 0).PublicKey().Compressed()
	script := new(Builder).Push([]byte{1}).Push(pub[:]).Op(OpCheckSig).Script()
	if stack, code = v.Eval(script, 0); code != OK || isTrue(stack[0]) {
		t.Errorf("a signature of nothing: %x, %s", stack, code.Name())
	}
	if _, code = v.Eval(parse(t, "1 CHECKLOCKTIMEVERIFY"),
		MandatoryFlags); code != ErrUnsatisfiedLockTime {
		t.Error(code.Name())
	}
	v.Release()
}

// TestSigCache: what was valid is not checked again, and nothing else is taken for it.
func TestSigCache(t *testing.T) {
	key := testKey(t, 3)
	pub := key.PublicKey().Compressed()
	script := append(AppendPush(nil, pub[:]), byte(OpCheckSig))
	s := spendingOf(nil, script, nil, 0)
	digest := LegacySigHash(s.tx, 0, script, SigHashAll)
	rs := key.SignECDSA(&digest, false)
	s.tx.In[0].Script = AppendPush(nil, append(secp.AppendDER(nil, &rs), byte(SigHashAll)))
	engine := &counting{Engine: secp.Default()}
	v := &Verifier{Engine: engine, Cache: NewSigCache(1<<16, [32]byte{1})}
	for range 3 {
		expect2(t, v, s, OK)
	}
	if engine.calls != 1 {
		t.Errorf("%d signatures checked, want 1", engine.calls)
	}
	s.tx.In[0].Script[20] ^= 1
	expect2(t, v, s, ErrEvalFalse)
	expect2(t, v, s, ErrEvalFalse)
	if engine.calls != 3 {
		t.Errorf("%d signatures checked, want 3: invalid ones are not kept", engine.calls)
	}
}

func expect2(t *testing.T, v *Verifier, s *Spending, want Code) {
	t.Helper()
	if got := v.verify(s, 0, VerifyP2SH); got != want {
		t.Errorf("%s, want %s", got.Name(), want.Name())
	}
}

type counting struct {
	secp.Engine
	calls int
}

func (c *counting) VerifyECDSA(key []byte, digest *[32]byte, rs *[64]byte) bool {
	c.calls++
	return c.Engine.VerifyECDSA(key, digest, rs)
}

// TestSigCacheDisplaces: a full cache takes new entries and forgets the oldest of the bucket.
func TestSigCacheDisplaces(t *testing.T) {
	c := NewSigCache(1, [32]byte{})
	var ids [cacheWays + 1][32]byte
	for i := range ids {
		ids[i] = [32]byte{31: byte(i + 1)}
		c.add(&ids[i])
	}
	if c.has(&ids[0]) {
		t.Error("the oldest is still there")
	}
	for i := 1; i < len(ids); i++ {
		if !c.has(&ids[i]) {
			t.Errorf("entry %d is gone", i)
		}
	}
}

// TestSharedSpending verifies the inputs of one transaction from many goroutines that share its
// hashes and a cache; the race detector looks on.
func TestSharedSpending(t *testing.T) {
	b := readBlock866342(t)
	widest := 1
	for i := range b.Txs {
		if i > 0 && len(b.Txs[i].In) > len(b.Txs[widest].In) && len(b.Txs[i].In) < 80 {
			widest = i
		}
	}
	var s Spending
	s.Init(&b.Txs[widest], b.spent[widest])
	cache := NewSigCache(1<<16, [32]byte{3})
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			v := &Verifier{Cache: cache}
			for i := range s.tx.In {
				if err := v.VerifyInput(&s, i, MandatoryFlags); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
}

// TestNoAllocation: verifying an input allocates nothing, whatever its form; the engine's own
// doings apart.
func TestNoAllocation(t *testing.T) {
	key := testKey(t, 1)
	pub := key.PublicKey().Compressed()
	x := key.PublicKey().XOnly()
	sig := append(secp.AppendDER(nil, &[64]byte{31: 1, 63: 1}), byte(SigHashAll))
	schnorr := bytes.Repeat([]byte{1}, 64)
	multisig := Multisig(2, [][]byte{pub[:], pub[:]})
	sum := sha256.Sum256(multisig)
	push := func(items ...[]byte) (s []byte) {
		for _, item := range items {
			s = AppendPush(s, item)
		}
		return s
	}
	tapscript := append(AppendPush(nil, x[:]), byte(OpCheckSig))
	for name, s := range map[string]*Spending{
		"P2PKH": spendingOf(push(sig, pub[:]), PayToPubKeyHash(Hash160(pub[:])), nil, 0),
		"P2SH multisig": spendingOf(push(nil, sig, sig, multisig),
			PayToScriptHash(Hash160(multisig)),
			nil, 0),
		"P2WPKH": spendingOf(nil, witnessOf(Hash160(pub[:])), [][]byte{sig, pub[:]}, 0),
		"P2WSH multisig": spendingOf(nil, PayToWitness(0, sum[:]), [][]byte{nil, sig, sig,
			multisig},
			0),
		"P2TR by key":    spendingOf(nil, PayToWitness(1, x[:]), [][]byte{schnorr}, 0),
		"P2TR by script": spendTaproot(t, leafTapscript, tapscript, schnorr),
	} {
		v := &Verifier{Engine: instant{}}
		spent := append([]bitcoin.TxOut(nil), s.spent...)
		n := testing.AllocsPerRun(100, func() {
			s.Init(s.tx, spent)
			if code := v.verify(s, 0, StandardFlags); code != OK {
				t.Fatalf("%s: %s", name, code.Name())
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func witnessOf(hash [20]byte) []byte { return PayToWitness(0, hash[:]) }
