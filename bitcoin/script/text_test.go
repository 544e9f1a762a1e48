package script

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
)

// TestDecodeScriptVectors compares form and text with what Core's decodescript says.
func TestDecodeScriptVectors(t *testing.T) {
	var rows [][]json.RawMessage
	readJSON(t, "bitcoin/core/rpc_decodescript.json", &rows)
	for _, row := range rows {
		var script digits
		var want struct{ Asm, Type string }
		if err := json.Unmarshal(row[0], &script); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(row[1], &want); err != nil {
			t.Fatal(err)
		}
		if got := Asm(script, false); got != want.Asm {
			t.Errorf("%x: %q, want %q", script, got, want.Asm)
		}
		if got, _ := Solve(script); string(got) != want.Type {
			t.Errorf("%x: %q, want %q", script, got, want.Type)
		}
	}
}

func TestAsm(t *testing.T) {
	sig := "304502207fa7a6d1e0ee81132a269ad84e68d695483745cde8b541e3bf630749894e342a" +
		"022100c1f7ab20e13e22fb95281a870f3dcf38d782e53023ee313d741ad0cfbc0c5090"
	signed := func(hashType string) []byte { return AppendPush(nil, unhex(t, sig+hashType)) }
	for _, c := range []struct {
		script    []byte
		sigHashes bool
		want      string
	}{
		{nil, false, ""},
		{parse(t, "0 1 16 -1 NOP DUP 0xb1 0xb2"), false,
			"0 1 16 -1 OP_NOP OP_DUP OP_CHECKLOCKTIMEVERIFY OP_CHECKSEQUENCEVERIFY"},
		{[]byte{0xba, 0xbb, 0xff}, false, "OP_CHECKSIGADD OP_UNKNOWN OP_INVALIDOPCODE"},
		{parse(t, "0x04 0xffffffff 0x05 0xffffffffff"), false, "-2147483647 ffffffffff"},
		{[]byte{1, 0x80}, false, "0"},
		{[]byte{byte(Op1), 75, 1}, false, "1 [error]"},
		{signed("01"), false, sig + "01"},
		{signed("01"), true, sig + "[ALL]"},
		{signed("82"), true, sig + "[NONE|ANYONECANPAY]"},
		{signed("83"), true, sig + "[SINGLE|ANYONECANPAY]"},
		{signed("80"), true, sig + "80"},
		{signed("00"), true, sig + "00"},
		{append([]byte{byte(OpReturn)}, signed("01")...), true, "OP_RETURN " + sig + "01"},
	} {
		if got := Asm(c.script, c.sigHashes); got != c.want {
			t.Errorf("%x: %q, want %q", c.script, got, c.want)
		}
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"  1\t\n2 ", "5152"},
		{"-1 0 16 17 -2", "4f006001110182"},
		{"255 256 4294967295", "02ff0002000105ffffffff00"},
		{"DUP OP_HASH160 0x14 CHECKSIG", "76a914ac"},
		{"RESERVED", "50"},
		{"'abc' ''", "0361626300"},
		{"0x4c01", "4c01"},
	} {
		got, err := Parse(c.text)
		if err != nil || hex.EncodeToString(got) != c.want {
			t.Errorf("%q: %x, %v; want %s", c.text, got, err, c.want)
		}
	}
	for _, text := range []string{"4294967296", "-4294967296", "0x", "0x1", "0xzz", "FOO",
		"PUSHDATA1", "1NEGATE",
		"'abc", "CHECKSIGADD", "+1", "99999999999999999999"} {
		if got, err := Parse(text); err == nil {
			t.Errorf("%q: %x", text, got)
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		n    int64
		want string
	}{
		{0, ""}, {1, "01"}, {-1, "81"}, {127, "7f"}, {-127, "ff"}, {128, "8000"}, {-128, "8080"},
		{255, "ff00"}, {256, "0001"}, {-255, "ff80"}, {32767, "ff7f"}, {32768, "008000"},
		{math.MaxInt32, "ffffff7f"}, {math.MinInt32, "0000008080"}, {math.MaxInt64,
			"ffffffffffffff7f"},
		{math.MinInt64, "000000000000008080"},
	} {
		got := AppendNum(nil, c.n)
		if hex.EncodeToString(got) != c.want {
			t.Errorf("%d: %x, want %s", c.n, got, c.want)
		}
		if len(got) <= 8 {
			if n, err := DecodeNum(got, true, 8); n != c.n || err != nil {
				t.Errorf("%x: %d, %v", got, n, err)
			}
		}
	}
	for _, c := range []struct {
		in      string
		minimal bool
		size    int
		want    int64
		err     error
	}{
		{"0000", false, 4, 0, nil},
		{"0000", true, 4, 0, ErrNumNotMinimal},
		{"80", false, 4, 0, nil},
		{"80", true, 4, 0, ErrNumNotMinimal},
		{"0080", true, 4, 0, ErrNumNotMinimal},
		{"0100", true, 4, 0, ErrNumNotMinimal},
		{"0100", false, 4, 1, nil},
		{"8000", true, 4, 128, nil},
		{"0000000000", false, 4, 0, ErrNumOverflow},
		{"ffffffffff", false, 5, -(1<<39 - 1), nil},
	} {
		got, err := DecodeNum(unhex(t, c.in), c.minimal, c.size)
		if got != c.want || err != c.err {
			t.Errorf("%s: %d, %v; want %d, %v", c.in, got, err, c.want, c.err)
		}
	}
}

// TestStandardPush: what the builder pushes is the shortest push there is.
func TestStandardPush(t *testing.T) {
	for _, n := range []int{0, 1, 75, 76, 255, 256, 520, 65535, 65536} {
		data := bytes.Repeat([]byte{0x55}, n)
		script := AppendPush(nil, data)
		op, got, rest, ok := Next(script)
		if !ok || len(rest) != 0 || !bytes.Equal(got, data) || !isMinimalPush(op, data) ||
			!IsPushOnly(script) {
			t.Errorf("%d octets: %v, %d left, %v", n, op, len(rest), ok)
		}
	}
	for n := int64(-1000); n < 70000; n += 7 {
		op, data, _, ok := Next(AppendInt(nil, n))
		if !ok || op <= OpPushData4 && !isMinimalPush(op, data) {
			t.Errorf("%d: %v %x", n, op, data)
		}
	}
}

func TestForms(t *testing.T) {
	short, long := bytes.Repeat([]byte{2}, 33), append([]byte{4}, make([]byte, 64)...)
	hybrid := append([]byte{6}, make([]byte, 64)...)
	other, hash := append([]byte{5}, short[1:]...), bytes.Repeat([]byte{9}, 20)
	script := func(b *Builder) []byte { return b.Script() }
	numbered := func(n int, parts ...[]byte) [][]byte {
		return append(append([][]byte{{byte(n)}}, parts...), []byte{byte(len(parts))})
	}
	twenty := make([][]byte, 20)
	for i := range twenty {
		twenty[i] = short
	}
	for _, c := range []struct {
		name   string
		script []byte
		want   Type
		parts  [][]byte
	}{
		{"key", script(new(Builder).Push(short).Op(OpCheckSig)), PubKey, [][]byte{short}},
		{"long key", script(new(Builder).Push(long).Op(OpCheckSig)), PubKey, [][]byte{long}},
		{"hybrid key", script(new(Builder).Push(hybrid).Op(OpCheckSig)), PubKey, [][]byte{hybrid}},
		{"key of another form", script(new(Builder).Push(other).Op(OpCheckSig)), NonStandard, nil},
		{"hash of a key", PayToPubKeyHash([20]byte(hash)), PubKeyHash, [][]byte{hash}},
		{"hash of a script", PayToScriptHash([20]byte(hash)), ScriptHash, [][]byte{hash}},
		{"data", script(new(Builder).Op(OpReturn).Push(hash).Int(5)), NullData, nil},
		{"no data", []byte{byte(OpReturn)}, NullData, nil},
		{"data that runs", script(new(Builder).Op(OpReturn, OpNop)), NonStandard, nil},
		{"data cut off", []byte{byte(OpReturn), 5}, NonStandard, nil},
		{"1 of 2", Multisig(1, [][]byte{short, long}), BareMultisig, numbered(1, short, long)},
		{"20 of 20", Multisig(20, twenty), BareMultisig, numbered(20, twenty...)},
		{"0 of 1", Multisig(0, [][]byte{short}), NonStandard, nil},
		{"2 of 1", Multisig(2, [][]byte{short}), NonStandard, nil},
		{"1 of 21", Multisig(1, append(twenty, short)), NonStandard, nil},
		{"1 of 2 with a key missing", parse(t, "1 0x21 0x"+hexOf(short)+" 2 CHECKMULTISIG"),
			NonStandard, nil},
		{"1 of 1 with more after", append(Multisig(1, [][]byte{short}), byte(OpCheckMultisig)),
			NonStandard, nil},
		{"numbers not minimal", parse(t, "0x01 0x01 0x21 0x"+hexOf(short)+" 1 CHECKMULTISIG"),
			NonStandard, nil},
		{"witness 0 of 20", PayToWitness(0, hash), WitnessV0KeyHash, [][]byte{hash}},
		{"witness 0 of 32", PayToWitness(0, short[:32]), WitnessV0ScriptHash, [][]byte{short[:32]}},
		{"witness 0 of 21", PayToWitness(0, short[:21]), NonStandard, nil},
		{"witness 1 of 32", PayToWitness(1, short[:32]), WitnessV1Taproot, [][]byte{short[:32]}},
		{"witness 1 of 33", PayToWitness(1, short), WitnessUnknown, [][]byte{{1}, short}},
		{"witness 16 of 2", PayToWitness(16, short[:2]), WitnessUnknown, [][]byte{{16}, short[:2]}},
		{"witness 16 of 1", PayToWitness(16, short[:1]), NonStandard, nil},
		{"witness 1 of 41", PayToWitness(1, make([]byte, 41)), NonStandard, nil},
		{"anchor", PayToWitness(1, []byte{0x4e, 0x73}), Anchor, nil},
		{"empty", nil, NonStandard, nil},
	} {
		got, parts := Solve(c.script)
		if got != c.want || !slices.EqualFunc(parts, c.parts, bytes.Equal) {
			t.Errorf("%s: %s %x, want %s %x", c.name, got, parts, c.want, c.parts)
		}
	}
}

func TestPredicates(t *testing.T) {
	for _, c := range []struct {
		script                          string
		pushOnly, validOps, unspendable bool
	}{
		{"", true, true, false},
		{"51", true, true, false},
		{"50", true, true, false},
		{"61", false, true, false},
		{"01", false, false, false},
		{"4c", false, false, false},
		{"4d0100", false, false, false},
		{"4e01000000", false, false, false},
		{"6a", false, true, true},
		{"6a01", false, false, true},
		{"b9", false, true, false},
		{"ba", false, false, false},
		{"4d0902" + strings.Repeat("00", 521), true, false, false},
		{"4d0802" + strings.Repeat("00", 520), true, true, false},
		{strings.Repeat("00", MaxScriptSize), true, true, false},
		{strings.Repeat("00", MaxScriptSize+1), true, true, true},
	} {
		s := unhex(t, c.script)
		if got := IsPushOnly(s); got != c.pushOnly {
			t.Errorf("%.20s: push only %v", c.script, got)
		}
		if got := HasValidOps(s); got != c.validOps {
			t.Errorf("%.20s: valid operations %v", c.script, got)
		}
		if got := IsUnspendable(s); got != c.unspendable {
			t.Errorf("%.20s: unspendable %v", c.script, got)
		}
	}
}

func TestSigOps(t *testing.T) {
	key := bytes.Repeat([]byte{2}, 33)
	two := Multisig(1, [][]byte{key, key})
	mixed := append(append([]byte(nil), two...), parse(t, "IF CHECKSIG ENDIF")...)
	for _, c := range []struct {
		script        []byte
		legacy, exact int
	}{
		{nil, 0, 0},
		{two, 20, 2},
		{mixed, 21, 3},
		{parse(t, "CHECKSIG CHECKSIGVERIFY CHECKMULTISIG CHECKMULTISIGVERIFY"), 42, 42},
		{parse(t, "0 CHECKMULTISIG"), 20, 20},
		{parse(t, "16 CHECKMULTISIGVERIFY"), 20, 16},
		{parse(t, "0x01 0x02 CHECKMULTISIG"), 20, 20},
		{append(parse(t, "CHECKSIG"), 75, byte(OpCheckSig)), 1, 1}, // up to where it can be read
	} {
		if a, b := SigOps(c.script, false), SigOps(c.script, true); a != c.legacy || b != c.exact {
			t.Errorf("%x: %d and %d, want %d and %d", c.script, a, b, c.legacy, c.exact)
		}
	}
	pay := PayToScriptHash(Hash160(mixed))
	if n := SpentSigOps(AppendPush([]byte{byte(Op0)}, mixed), pay); n != 3 {
		t.Errorf("redeem script: %d, want 3", n)
	}
	if n := SpentSigOps(append(AppendPush(nil, mixed), byte(OpNop)), pay); n != 0 {
		t.Errorf("input that is not push only: %d, want 0", n)
	}
	if n := SpentSigOps(nil, two); n != 2 {
		t.Errorf("bare: %d, want 2", n)
	}
}

// TestSigOpCost counts as BIP 141 does: four outside, one inside of a witness.
func TestSigOpCost(t *testing.T) {
	key := bytes.Repeat([]byte{2}, 33)
	two := Multisig(1, [][]byte{key, key})
	sum := sha256.Sum256(two)
	keyProgram, scriptProgram := PayToWitness(0, make([]byte, 20)), PayToWitness(0, sum[:])
	wrap := func(program []byte) ([]byte, []byte) {
		return AppendPush(nil, program), PayToScriptHash(Hash160(program))
	}
	wrappedKeySig, wrappedKey := wrap(keyProgram)
	wrappedScriptSig, wrappedScript := wrap(scriptProgram)
	const flags = VerifyP2SH | VerifyWitness
	for _, c := range []struct {
		name     string
		sig, pay []byte
		witness  [][]byte
		flags    Flags
		want     int
	}{
		{"bare multisig is counted where it is made", parse(t, "0 0"), two, nil, flags, 0},
		{"P2SH", AppendPush(parse(t, "0 0"), two), PayToScriptHash(Hash160(two)), nil, flags, 8},
		{"P2SH before BIP 16", AppendPush(parse(t, "0 0"), two),
			PayToScriptHash(Hash160(two)), nil, 0, 0},
		{"P2WPKH", nil, keyProgram, [][]byte{nil, nil}, flags, 1},
		{"P2WPKH before BIP 141", nil, keyProgram, [][]byte{nil, nil}, VerifyP2SH, 0},
		{"version 1", nil, PayToWitness(1, make([]byte, 20)), [][]byte{nil, nil}, flags, 0},
		{"P2SH-P2WPKH", wrappedKeySig, wrappedKey, [][]byte{nil, nil}, flags, 1},
		{"P2WSH", nil, scriptProgram, [][]byte{nil, nil, two}, flags, 2},
		{"P2WSH without witness", nil, scriptProgram, nil, flags, 0},
		{"P2SH-P2WSH", wrappedScriptSig, wrappedScript, [][]byte{nil, nil, two}, flags, 2},
		{"in the input", parse(t, "CHECKSIG"), []byte{byte(Op1)}, nil, flags, 4},
	} {
		s := spendingOf(c.sig, c.pay, c.witness, 0)
		if got := SigOpCost(s.tx, s.spent, c.flags); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	coinbase := &bitcoin.Tx{
		In: []bitcoin.TxIn{{
			PrevOut: bitcoin.OutPoint{Index: 0xffffffff},
			Script:  parse(t, "CHECKSIG"),
			Witness: [][]byte{two},
		}},
		Out: []bitcoin.TxOut{{Script: two}},
	}
	if got := SigOpCost(coinbase, nil, flags); got != 84 {
		t.Errorf("coinbase: %d, want 84", got)
	}
}

func TestFlagNames(t *testing.T) {
	f := parseFlags(t, "WITNESS,P2SH")
	if f != VerifyP2SH|VerifyWitness || f.String() != "P2SH,WITNESS" {
		t.Errorf("%x %v", uint64(f), f)
	}
	if got := (VerifyP2SH | 1<<40).String(); got != "P2SH,0x10000000000" {
		t.Error(got)
	}
	if parseFlags(t, "NONE") != 0 || parseFlags(t, "") != 0 {
		t.Error("no flags")
	}
	if _, err := ParseFlags("P2SH,FOO"); err == nil {
		t.Error("FOO is a flag")
	}
	// Core's numbers, which its tools print.
	for f, bit := range map[Flags]int{VerifyP2SH: 0, VerifyCleanStack: 8, VerifyWitness: 11,
		VerifyTaproot:                        17,
		VerifyDiscourageUpgradablePubKeyType: 20} {
		if f != 1<<bit {
			t.Errorf("%v is not bit %d", f, bit)
		}
	}
	if len(flagNames) != 21 || allFlags != 1<<21-1 {
		t.Errorf("%d names, flags %x", len(flagNames), uint64(allFlags))
	}
}

func TestCodes(t *testing.T) {
	seen := map[string]bool{}
	for c := range codes {
		if c.Name() == "SCRIPT_ERR_" || c.String() == "" || seen[c.Name()] {
			t.Errorf("%d: %q %q", c, c.Name(), c)
		}
		seen[c.Name()] = true
	}
	if codes != 54 || ErrEvalFalse != 2 || ErrSigFindAndDelete != 53 {
		t.Errorf("%d outcomes", codes)
	}
	if ErrSigNullFail.String() != "Signature must be zero for failed CHECK(MULTI)SIG operation" {
		t.Error(ErrSigNullFail)
	}
	if Code(200).Name() != "SCRIPT_ERR_UNKNOWN_ERROR" || Code(200).String() != "unknown error" {
		t.Error("beyond the last")
	}
}

// TestRIPEMD160 has the messages of the paper's appendix, and lengths about the edges of blocks.
func TestRIPEMD160(t *testing.T) {
	eighty, million := strings.Repeat("1234567890", 8), strings.Repeat("a", 1_000_000)
	for message, want := range map[string]string{
		"":               "9c1185a5c5e9fc54612808977ee8f548b2258d31",
		"a":              "0bdc9d2d256b3ee9daae347be6f4dc835a467ffe",
		"abc":            "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc",
		"message digest": "5d0689ef49d2fae572b881b123a85ffa21595f36",
		"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq": "12a053384a9c0c88e405a06c27dcf49ada62eb2b",
		eighty:  "9b752e45573d4b39f4dbd3323cab82bf63326bfb",
		million: "52783243c1697bdbe16d37f97f68f08325dc1528",
	} {
		if got := ripemd160([]byte(message)); hex.EncodeToString(got[:]) != want {
			t.Errorf("%.30q: %x, want %s", message, got, want)
		}
	}
}
