package signing

import (
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

func secret(t *testing.T, n byte) *secp.PrivateKey {
	t.Helper()
	k, err := secp.ParsePrivateKey(&[32]byte{31: n})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func public(t *testing.T, n byte) []byte {
	b := secret(t, n).PublicKey().Compressed()
	return b[:]
}

func keysOf(t *testing.T, numbers ...byte) *Keys {
	t.Helper()
	k := New()
	for _, n := range numbers {
		if err := k.Add(secret(t, n), true); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

// spend returns a transaction with an input for each script, and what it spends.
func spend(scripts ...[]byte) (*bitcoin.Tx, []bitcoin.TxOut, []bool) {
	tx := &bitcoin.Tx{Version: 2, Out: []bitcoin.TxOut{{Value: 1000, Script: []byte{0x51}}}}
	var spent []bitcoin.TxOut
	var known []bool
	for i, s := range scripts {
		tx.In = append(tx.In, bitcoin.TxIn{PrevOut: bitcoin.OutPoint{TxID: bitcoin.Hash{byte(i + 1)}}})
		spent = append(spent, bitcoin.TxOut{Value: 5000, Script: s})
		known = append(known, true)
	}
	return tx, spent, known
}

func behindWitness(s []byte) []byte {
	h := sha256.Sum256(s)
	return script.PayToWitness(0, h[:])
}

func behindHash(s []byte) []byte { return script.PayToScriptHash(script.Hash160(s)) }

func TestAllForms(t *testing.T) {
	one := public(t, 1)
	hash := script.Hash160(one)
	multi := script.Multisig(2, [][]byte{one, public(t, 2), public(t, 3)})
	payToKey := append(script.AppendPush(nil, one), byte(script.OpCheckSig))
	key := script.PayToWitness(0, hash[:])
	tweaked, err := secret(t, 1).TapTweak(nil)
	if err != nil {
		t.Fatal(err)
	}
	output, raw := tweaked.PublicKey().XOnly(), secret(t, 2).PublicKey().XOnly()
	forms := map[string][]byte{
		"key": payToKey, "key hash": script.PayToPubKeyHash(hash), "multisig": multi,
		"multisig behind a hash": behindHash(multi), "witness key hash": key,
		"the same behind a hash": behindHash(key), "witness multisig": behindWitness(multi),
		"witness key": behindWitness(payToKey), "nested witness": behindHash(behindWitness(multi)),
		"taproot": script.PayToWitness(1, output[:]), "taproot without tweak": script.PayToWitness(1, raw[:]),
		"anchor": {0x51, 0x02, 0x4e, 0x73},
	}
	var names []string
	var scripts [][]byte
	for name, s := range forms {
		names, scripts = append(names, name), append(scripts, s)
	}
	for _, hashType := range []script.SigHash{script.SigHashDefault, script.SigHashAll,
		script.SigHashNone | script.SigHashAnyoneCanPay} {
		tx, spent, known := spend(scripts...)
		keys := keysOf(t, 1, 3, 2)
		for _, s := range [][]byte{multi, payToKey, key} {
			keys.AddScript(s)
		}
		for i, err := range keys.Sign(tx, spent, known, hashType) {
			if err != nil {
				t.Errorf("hash type %d, %s: %v", hashType, names[i], err)
			}
		}
	}
}

// TestTwoSigners: each has one key of a multisig, and adds to what the other did.
func TestTwoSigners(t *testing.T) {
	multi := script.Multisig(2, [][]byte{public(t, 1), public(t, 2), public(t, 3)})
	for name, to := range map[string][]byte{"bare": multi, "behind a hash": behindHash(multi),
		"witness": behindWitness(multi), "nested": behindHash(behindWitness(multi))} {
		tx, spent, known := spend(to)
		first, second := keysOf(t, 3), keysOf(t, 1)
		first.AddScript(multi)
		second.AddScript(multi)
		err := first.Sign(tx, spent, known, script.SigHashAll)[0]
		var e *script.Error
		if !errors.As(err, &e) || e.Code != script.ErrSigNullFail {
			t.Errorf("%s: one signature of two: %v", name, err)
		}
		if err := second.Sign(tx, spent, known, script.SigHashAll)[0]; err != nil {
			t.Errorf("%s: both signatures: %v", name, err)
		}
		before := tx.WTxID()
		if err := keysOf(t).Sign(tx, spent, known, script.SigHashAll)[0]; err != nil || tx.Clone().WTxID() != before {
			t.Errorf("%s: who has no key broke it: %v", name, err)
		}
	}
}

// TestCombine: each signs by himself, and a third puts it together without any key.
func TestCombine(t *testing.T) {
	multi := script.Multisig(2, [][]byte{public(t, 1), public(t, 2), public(t, 3)})
	hash := script.Hash160(public(t, 1))
	tx, spent, known := spend(multi, behindHash(multi), behindWitness(multi), script.PayToWitness(0, hash[:]))
	one, two := tx.Clone(), tx.Clone()
	for i, signed := range []*bitcoin.Tx{one, two} {
		keys := keysOf(t, byte(3-2*i))
		keys.AddScript(multi)
		keys.Sign(signed, spent, known, script.SigHashAll)
	}
	merged := Combine([]*bitcoin.Tx{one, two}, spent)
	if err := new(script.Verifier).VerifyTx(merged, spent, script.StandardFlags); err != nil {
		t.Error(err)
	}
	if err := new(script.Verifier).VerifyTx(Combine([]*bitcoin.Tx{one}, spent), spent,
		script.StandardFlags); err == nil {
		t.Error("one of two signers is enough")
	}
}

func TestWhatCannotBeSigned(t *testing.T) {
	hash := script.Hash160(public(t, 1))
	to := script.PayToPubKeyHash(hash)
	tx, spent, known := spend(to, to)
	known[1] = false
	errs := keysOf(t, 1).Sign(tx, spent, known, script.SigHashAll)
	if errs[0] != nil || !errors.Is(errs[1], ErrMissing) {
		t.Errorf("one input known, one not: %v", errs)
	}
	tx, spent, known = spend(to, to)
	errs = keysOf(t, 1).Sign(tx, spent, known, script.SigHashSingle)
	if errs[0] != nil || errs[1] == nil || len(tx.In[1].Script) != 0 {
		t.Errorf("an input without an output of its own: %v", errs)
	}
	tx, spent, known = spend(to)
	if errs := keysOf(t, 2).Sign(tx, spent, known, script.SigHashAll); errs[0] == nil {
		t.Error("signed with another key")
	}
	// Keys that are not compressed do not sign for witnesses.
	full := secret(t, 1).PublicKey().Uncompressed()
	keys := New()
	if err := keys.Add(secret(t, 1), false); err != nil {
		t.Fatal(err)
	}
	fullHash := script.Hash160(full[:])
	tx, spent, known = spend(script.PayToPubKeyHash(fullHash), script.PayToWitness(0, fullHash[:]))
	if errs := keys.Sign(tx, spent, known, script.SigHashAll); errs[0] != nil || errs[1] == nil {
		t.Errorf("a key of 65 octets: %v", errs)
	}
}
