package script

import (
	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

// Verifier runs scripts. It holds the memory that they run in, so that verifying an input allocates
// nothing: a goroutine makes one and uses it for many inputs. The zero value is ready.
type Verifier struct {
	// Engine checks signatures; nil means secp.Default.
	Engine secp.Engine

	// Cache, where not nil, is asked before a signature is checked and told of those that were
	// valid. Many Verifiers may share one.
	Cache *SigCache

	// Batch, where not nil, takes Schnorr signatures instead of checking them, under the tag Tag.
	// An input that passes is then valid if its signatures in the batch are: to fail one always
	// fails the script.
	Batch *secp.Batch
	Tag   int

	// The input at hand; spend is nil where a script runs without a transaction.
	spend *Spending
	index int
	flags Flags

	stack, alt [][]byte
	saved      [][]byte // the stack after the scriptSig, for BIP 16
	values     arena

	// What a tapscript carries along (Core's ScriptExecutionData).
	leaf         Leaf
	annexed      bool
	annexHash    [32]byte
	weightLeft   int
	singleOutput [32]byte // see outputHash
	outputHashed bool

	sighashes sighashCache
	hash      hasher
	code      []byte // script code without a signature, see withoutPush
	push      []byte // the push that is searched there
	implied   []byte // the script of a witness key hash

	// Arguments of Engine, which would else move to the heap for each call.
	digest, key [32]byte
	ecdsa       [64]byte
	schnorr     [64]byte
}

// VerifyInput reports whether an input may spend its output: it returns nil or an *Error. Flags
// that are not Consistent are a fault of the caller, so it panics (Bitcoin Core
// script/interpreter.cpp, VerifyScript).
func (v *Verifier) VerifyInput(s *Spending, input int, flags Flags) error {
	if code := v.verify(s, input, flags); code != OK {
		return &Error{Code: code, Input: input}
	}
	return nil
}

// VerifyTx prepares a transaction and verifies all its inputs.
func (v *Verifier) VerifyTx(tx *bitcoin.Tx, spent []bitcoin.TxOut, flags Flags) error {
	var s Spending
	s.Init(tx, spent)
	for i := range tx.In {
		if err := v.VerifyInput(&s, i, flags); err != nil {
			return err
		}
	}
	return nil
}

// Eval runs a script on an empty stack without a transaction, so that no signature and no lock time
// is valid, and returns what it leaves on the stack, bottom first. The stack is good until the next
// call.
func (v *Verifier) Eval(script []byte, flags Flags) ([][]byte, Code) {
	v.begin(nil, 0, flags)
	code := v.run(script, base)
	return v.stack, code
}

// Release lets go of the transactions that the Verifier has worked on. Whoever keeps one while
// there is nothing to do calls it.
func (v *Verifier) Release() {
	for _, items := range [3][][]byte{v.stack, v.alt, v.saved} {
		clear(items[:cap(items)])
	}
	v.spend = nil
	for i := range v.sighashes {
		v.sighashes[i].set, v.sighashes[i].code = false, nil
	}
}

func (v *Verifier) begin(s *Spending, input int, flags Flags) {
	if !flags.Consistent() {
		panic("script: inconsistent flags " + flags.String())
	}
	v.spend, v.index, v.flags = s, input, flags
	v.stack = v.stack[:0]
	v.values.reset()
	v.annexed, v.outputHashed = false, false
	v.sighashes.reset()
}

func (v *Verifier) verify(s *Spending, input int, flags Flags) Code {
	v.begin(s, input, flags)
	in, spent := &s.tx.In[input], &s.spent[input]
	code := v.verifyScript(in.Script, spent.Script, in.Witness)
	if cap(v.stack) > keepStack { // a witness of many items, which only a failing one has
		v.stack = nil
	}
	return code
}

// keepStack is the largest stack that is kept for the next input.
const keepStack = 4 * MaxStackSize

func (v *Verifier) verifyScript(scriptSig, scriptPubKey []byte, witness [][]byte) Code {
	if v.flags&VerifySigPushOnly != 0 && !IsPushOnly(scriptSig) {
		return ErrSigPushOnly
	}
	// One after the other on the same stack, not joined into one script (CVE-2010-5141).
	if code := v.run(scriptSig, base); code != OK {
		return code
	}
	redeem := v.flags&VerifyP2SH != 0 && IsPayToScriptHash(scriptPubKey)
	if redeem {
		v.saved = append(v.saved[:0], v.stack...)
	}
	if code := v.runToTrue(scriptPubKey); code != OK {
		return code
	}

	hadWitness := false
	if v.flags&VerifyWitness != 0 {
		if version, program, ok := WitnessProgram(scriptPubKey); ok {
			hadWitness = true
			if len(scriptSig) != 0 {
				return ErrWitnessMalleated
			}
			if code := v.verifyProgram(witness, version, program, false); code != OK {
				return code
			}
		}
	}
	if redeem {
		wrapped, code := v.verifyRedeem(scriptSig, witness)
		if code != OK {
			return code
		}
		hadWitness = wrapped
	}

	// A witness program leaves what its witness left, which is clean by consensus.
	if v.flags&VerifyCleanStack != 0 && !hadWitness && len(v.stack) != 1 {
		return ErrCleanStack
	}
	if v.flags&VerifyWitness != 0 && !hadWitness && len(witness) != 0 {
		return ErrWitnessUnexpected
	}
	return OK
}

// runToTrue runs a script and asks for a true item on top of the stack.
func (v *Verifier) runToTrue(script []byte) Code {
	if code := v.run(script, base); code != OK {
		return code
	}
	if len(v.stack) == 0 || !isTrue(v.top(1)) {
		return ErrEvalFalse
	}
	return OK
}

// verifyRedeem runs the script that a pay-to-script-hash output names, and the witness program it
// may be.
func (v *Verifier) verifyRedeem(scriptSig []byte, witness [][]byte) (hadWitness bool, code Code) {
	if !IsPushOnly(scriptSig) {
		return false, ErrSigPushOnly
	}
	// The stack was not empty, or the output's script would have failed.
	v.stack = append(v.stack[:0], v.saved...)
	redeem := v.pop()
	if code := v.runToTrue(redeem); code != OK {
		return false, code
	}
	if v.flags&VerifyWitness == 0 {
		return false, OK
	}
	version, program, ok := WitnessProgram(redeem)
	if !ok {
		return false, OK
	}
	v.push = AppendPush(v.push[:0], redeem)
	if string(scriptSig) != string(v.push) { // exactly one push, or others could change the txid
		return true, ErrWitnessMalleatedP2SH
	}
	return true, v.verifyProgram(witness, version, program, true)
}
