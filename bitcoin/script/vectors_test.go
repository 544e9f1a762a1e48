package script

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/secp"
	"github.com/tallypost/tallypost/internal/vectors"
)

func readJSON(t testing.TB, name string, into any) {
	t.Helper()
	if err := json.Unmarshal(vectors.Read(t, name), into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return b
}

func parse(t testing.TB, text string) []byte {
	t.Helper()
	b, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parseFlags(t testing.TB, names string) Flags {
	t.Helper()
	f, err := ParseFlags(names)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func parseTx(t testing.TB, digits string) *bitcoin.Tx {
	t.Helper()
	tx, err := bitcoin.ParseTx(unhex(t, digits))
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// trim takes away flags that lack what they need, fill adds it.
func trim(f Flags) Flags {
	if f&VerifyP2SH == 0 {
		f &^= VerifyWitness
	}
	if f&VerifyWitness == 0 {
		f &^= VerifyCleanStack
	}
	return f
}

func fill(f Flags) Flags {
	if f&VerifyCleanStack != 0 {
		f |= VerifyWitness
	}
	if f&VerifyWitness != 0 {
		f |= VerifyP2SH
	}
	return f
}

func randomFlags(r *rand.Rand) Flags { return Flags(r.Uint64()) & allFlags }

// spendingOf makes the transactions that Core's script tests run in: one that has only the output,
// and one that only spends it.
func spendingOf(scriptSig, scriptPubKey []byte, witness [][]byte, value bitcoin.Amount) *Spending {
	credit := &bitcoin.Tx{
		Version: 1,
		In: []bitcoin.TxIn{{
			PrevOut:  bitcoin.OutPoint{Index: 0xffffffff},
			Script:   []byte{0, 0},
			Sequence: sequenceFinal,
		}},
		Out: []bitcoin.TxOut{{Value: value, Script: scriptPubKey}},
	}
	spend := &bitcoin.Tx{
		Version: 1,
		In: []bitcoin.TxIn{{
			PrevOut:  bitcoin.OutPoint{TxID: credit.TxID()},
			Script:   scriptSig,
			Sequence: sequenceFinal,
			Witness:  witness,
		}},
		Out: []bitcoin.TxOut{{Value: value}},
	}
	s := new(Spending)
	s.Init(spend, credit.Out)
	return s
}

// scriptTest is a row of script_tests.json.
type scriptTest struct {
	name                    string
	witness                 [][]byte
	value                   bitcoin.Amount
	scriptSig, scriptPubKey []byte
	flags                   Flags
	want                    string
}

func readScriptTests(t testing.TB) []scriptTest {
	var rows [][]json.RawMessage
	readJSON(t, "bitcoin/core/script_tests.json", &rows)
	var tests []scriptTest
	for _, row := range rows {
		if len(row) == 1 {
			continue // a comment
		}
		tests = append(tests, readScriptTest(t, row))
	}
	return tests
}

func readScriptTest(t testing.TB, row []json.RawMessage) (test scriptTest) {
	raw, _ := json.Marshal(row)
	test.name = string(raw)
	var output [32]byte
	if row[0][0] == '[' {
		output = readScriptWitness(t, row[0], &test)
		row = row[1:]
	}
	var words [4]string
	for i := range words {
		if err := json.Unmarshal(row[i], &words[i]); err != nil {
			t.Fatal(err)
		}
	}
	test.scriptSig = parse(t, words[0])
	if words[1] == "0x51 0x20 #TAPROOTOUTPUT#" {
		test.scriptPubKey = PayToWitness(1, output[:])
	} else {
		test.scriptPubKey = parse(t, words[1])
	}
	test.flags = fill(parseFlags(t, words[2]))
	test.want = words[3]
	return test
}

// readScriptWitness reads the items of a witness and the value of the output. #SCRIPT# stands
// before a script in words, #CONTROLBLOCK# for the control block of a tree that has only this leaf.
func readScriptWitness(t testing.TB, raw json.RawMessage, test *scriptTest) (output [32]byte) {
	var items []any
	if err := json.Unmarshal(raw, &items); err != nil {
		t.Fatal(err)
	}
	last := len(items) - 1
	test.value = bitcoin.Amount(math.Round(items[last].(float64) * float64(bitcoin.Coin)))
	for _, item := range items[:last] {
		word := item.(string)
		if text, ok := strings.CutPrefix(word, "#SCRIPT#"); ok {
			test.witness = append(test.witness, parse(t, text))
		} else if word == "#CONTROLBLOCK#" {
			leaf := TapLeafHash(leafTapscript, test.witness[len(test.witness)-1])
			internal := testKey(t, 0).PublicKey().XOnly()
			q, odd, err := secp.TaprootOutput(&internal, leaf[:])
			if err != nil {
				t.Fatal(err)
			}
			control := append([]byte{leafTapscript}, internal[:]...)
			if odd {
				control[0]++
			}
			test.witness, output = append(test.witness, control), q
		} else {
			test.witness = append(test.witness, unhex(t, word))
		}
	}
	return output
}

// testKey returns the keys of Core's script tests: numbers of which only the last octet is not
// zero.
func testKey(t testing.TB, n byte) *secp.PrivateKey {
	t.Helper()
	k, err := secp.ParsePrivateKey(&[32]byte{31: n + 1})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// testName is how script_tests.json writes an outcome.
func testName(c Code) string {
	name := strings.TrimPrefix(c.Name(), "SCRIPT_ERR_")
	if c == ErrSigNullFail {
		return "NULLFAIL"
	}
	return name
}

// TestScriptVectors runs Core's script_tests.json: the outcome must be the named one, and flags
// that are taken from what passes or added to what fails must not change whether it passes.
func TestScriptVectors(t *testing.T) {
	tests := readScriptTests(t)
	if len(tests) != 1213 {
		t.Errorf("%d rows, want 1213", len(tests))
	}
	r := rand.New(rand.NewPCG(1, 2))
	v := new(Verifier)
	for _, test := range tests {
		s := spendingOf(test.scriptSig, test.scriptPubKey, test.witness, test.value)
		code := v.verify(s, 0, test.flags)
		if testName(code) != test.want {
			t.Errorf("%v, want %s: %s", testName(code), test.want, test.name)
			continue
		}
		for range 16 {
			extra := randomFlags(r)
			flags := test.flags | extra
			if test.want == "OK" {
				flags = test.flags &^ extra
			}
			if !flags.Consistent() {
				continue
			}
			if code := v.verify(s, 0, flags); (code == OK) != (test.want == "OK") {
				t.Errorf("%v with flags %v: %s", code.Name(), flags, test.name)
			}
		}
	}
}

// txTest is a row of tx_valid.json or tx_invalid.json.
type txTest struct {
	name  string
	tx    *bitcoin.Tx
	spent []bitcoin.TxOut
	flags string
}

func readTxTests(t testing.TB, name string) []txTest {
	var rows [][]json.RawMessage
	readJSON(t, name, &rows)
	var tests []txTest
	for _, row := range rows {
		if len(row) != 3 {
			continue // a comment
		}
		raw, _ := json.Marshal(row)
		var inputs [][]any
		var digits string
		test := txTest{name: string(raw)}
		for i, into := range []any{&inputs, &digits, &test.flags} {
			if err := json.Unmarshal(row[i], into); err != nil {
				t.Fatalf("%s: %v", raw, err)
			}
		}
		test.tx = parseTx(t, digits)
		outputs := make(map[bitcoin.OutPoint]bitcoin.TxOut)
		for _, in := range inputs {
			id, err := bitcoin.ParseHash(in[0].(string))
			if err != nil {
				t.Fatal(err)
			}
			out := bitcoin.TxOut{Script: parse(t, in[2].(string))}
			if len(in) > 3 {
				out.Value = bitcoin.Amount(in[3].(float64))
			}
			outputs[bitcoin.OutPoint{TxID: id, Index: uint32(int64(in[1].(float64)))}] = out
		}
		for i := range test.tx.In {
			out, ok := outputs[test.tx.In[i].PrevOut]
			if !ok && test.flags != "BADTX" {
				t.Fatalf("%s: no output for input %d", raw, i)
			}
			test.spent = append(test.spent, out)
		}
		tests = append(tests, test)
	}
	return tests
}

func (test *txTest) passes(v *Verifier, flags Flags) bool {
	return v.VerifyTx(test.tx, test.spent, flags) == nil
}

// TestTxValid runs Core's tx_valid.json, where the flags are those that must not be set: with all
// others the transaction is valid, with fewer too, and with any one more it is not.
func TestTxValid(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	v := &Verifier{Cache: NewSigCache(1<<20, [32]byte{})}
	tests := readTxTests(t, "bitcoin/core/tx_valid.json")
	if len(tests) != 121 {
		t.Errorf("%d rows, want 121", len(tests))
	}
	for _, test := range tests {
		excluded := parseFlags(t, test.flags)
		flags := allFlags &^ excluded
		if !flags.Consistent() {
			t.Fatalf("flags are not consistent: %s", test.name)
		}
		if !test.passes(v, flags) {
			t.Errorf("fails: %s", test.name)
		}
		for bit := range flagNames {
			if fewer := trim(flags &^ (1 << bit)); !test.passes(v, fewer) {
				t.Errorf("fails without %s: %s", flagNames[bit], test.name)
			}
			if fewer := trim(flags &^ randomFlags(r)); !test.passes(v, fewer) {
				t.Errorf("fails with %v: %s", fewer, test.name)
			}
			if less := trim(excluded &^ (1 << bit)); less != excluded && test.passes(v,
				allFlags&^less) {
				t.Errorf("passes with %s too: %s", flagNames[bit], test.name)
			}
		}
	}
}

// TestTxInvalid runs Core's tx_invalid.json: with the flags, and with more, the transaction is not
// valid, and with any one less it is. Rows marked BADTX break rules outside of scripts, which
// package consensus tests.
func TestTxInvalid(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	v := &Verifier{Cache: NewSigCache(1<<20, [32]byte{})}
	tests := readTxTests(t, "bitcoin/core/tx_invalid.json")
	if len(tests) != 93 {
		t.Errorf("%d rows, want 93", len(tests))
	}
	for _, test := range tests {
		if test.flags == "BADTX" {
			continue
		}
		flags := parseFlags(t, test.flags)
		if test.passes(v, flags) {
			t.Errorf("passes: %s", test.name)
		}
		for bit := range flagNames {
			if more := fill(flags | 1<<bit); test.passes(v, more) {
				t.Errorf("passes with %v: %s", more, test.name)
			}
			if more := fill(flags | randomFlags(r)); test.passes(v, more) {
				t.Errorf("passes with %v: %s", more, test.name)
			}
			if less := trim(flags &^ (1 << bit)); less != flags && !test.passes(v, less) {
				t.Errorf("fails without %s too: %s", flagNames[bit], test.name)
			}
		}
	}
}

// TestSigHashVectors runs Core's sighash.json: random transactions and scripts, hash types of 32
// bits.
func TestSigHashVectors(t *testing.T) {
	var rows [][]any
	readJSON(t, "bitcoin/core/sighash.json", &rows)
	n := 0
	for _, row := range rows {
		if len(row) != 5 {
			continue
		}
		n++
		tx := parseTx(t, row[0].(string))
		code := unhex(t, row[1].(string))
		input, hashType := int(row[2].(float64)), SigHash(int32(row[3].(float64)))
		sum := LegacySigHash(tx, input, code, hashType)
		if got := bitcoin.Hash(sum).String(); got != row[4] {
			t.Errorf("row %d: %s, want %s", n, got, row[4])
		}
		// The same hash by way of the encoding that inputs share.
		if !hashType.single() && !hashType.none() && !hashType.alone() {
			var s Spending
			s.Init(tx, make([]bitcoin.TxOut, len(tx.In)))
			var h hasher
			h.legacyAll(&s, input, code)
			h.uint32(uint32(hashType))
			if got := h.double(); got != sum {
				t.Errorf("row %d: shared encoding gives %x, want %x", n, got, sum)
			}
		}
	}
	if n != 500 {
		t.Errorf("%d rows, want 500", n)
	}
}
