package script

import (
	"crypto/sha256"
	"errors"

	"github.com/tallypost/tallypost/bitcoin"
)

// SigHash is the hash type of a signature: which parts of the transaction it signs.
type SigHash uint32

// The hash types (Bitcoin Core script/interpreter.h). SigHashDefault is taproot's: all, without an
// octet.
const (
	SigHashDefault      SigHash = 0
	SigHashAll          SigHash = 1
	SigHashNone         SigHash = 2
	SigHashSingle       SigHash = 3
	SigHashAnyoneCanPay SigHash = 0x80
)

// single and none report whether a hash type of the times before taproot signs one output or none:
// five bits count, and what they do not name signs all. alone reports whether it signs one input.
func (t SigHash) single() bool { return t&0x1f == SigHashSingle }
func (t SigHash) none() bool   { return t&0x1f == SigHashNone }
func (t SigHash) alone() bool  { return t&SigHashAnyoneCanPay != 0 }

func sha256Sum(b *[32]byte) [32]byte { return sha256.Sum256(b[:]) }

// LegacySigHash returns what a signature of a script before BIP 143 signs. All 32 bits of the hash
// type are hashed, though a signature can only name eight.
func LegacySigHash(tx *bitcoin.Tx, input int, scriptCode []byte, t SigHash) [32]byte {
	if singleOutOfRange(tx, input, t) {
		return [32]byte{1}
	}
	var h hasher
	h.legacy(tx, input, scriptCode, t)
	h.uint32(uint32(t))
	return h.double()
}

// singleOutOfRange reports whether SIGHASH_SINGLE names an output that does not exist. Such
// signatures sign the number 1, for ever, since the first release did.
func singleOutOfRange(tx *bitcoin.Tx, input int, t SigHash) bool {
	return t.single() && input >= len(tx.Out)
}

// legacy appends the transaction as it is hashed before BIP 143, all but the hash type (Bitcoin
// Core script/interpreter.cpp, CTransactionSignatureSerializer).
func (h *hasher) legacy(tx *bitcoin.Tx, input int, scriptCode []byte, t SigHash) {
	h.reset()
	h.uint32(tx.Version)
	if t.alone() {
		h.size(1)
		h.legacyInput(tx, input, scriptCode)
	} else {
		h.size(len(tx.In))
		for i := range tx.In {
			if i == input {
				h.legacyInput(tx, input, scriptCode)
				continue
			}
			h.room()
			h.outPoint(&tx.In[i].PrevOut)
			h.size(0)
			if t.single() || t.none() {
				h.uint32(0)
			} else {
				h.uint32(tx.In[i].Sequence)
			}
		}
	}
	h.legacyOutputs(tx, input, t)
	h.uint32(tx.LockTime)
}

func (h *hasher) legacyInput(tx *bitcoin.Tx, input int, scriptCode []byte) {
	h.room()
	h.outPoint(&tx.In[input].PrevOut)
	h.scriptCode(scriptCode)
	h.room()
	h.uint32(tx.In[input].Sequence)
}

func (h *hasher) legacyOutputs(tx *bitcoin.Tx, input int, t SigHash) {
	h.room()
	switch {
	case t.none():
		h.size(0)
	case t.single():
		h.size(input + 1)
		for range input { // outputs before that of the input are blank: value -1, no script
			h.room()
			h.uint64(^uint64(0))
			h.size(0)
		}
		h.output(&tx.Out[input])
	default:
		h.size(len(tx.Out))
		for i := range tx.Out {
			h.output(&tx.Out[i])
		}
	}
	h.room()
}

// legacyAll appends the same as legacy does for a hash type that signs all inputs and outputs, from
// the encoding that Init made.
func (h *hasher) legacyAll(s *Spending, input int, scriptCode []byte) {
	h.reset()
	script := s.firstInput + input*inputSize + 36
	h.bytes(s.blank[:script])
	h.room()
	h.scriptCode(scriptCode)
	h.bytes(s.blank[script+1:])
}

// scriptCode appends the script and its length, both without OP_CODESEPARATORs. A script that ends
// within a push is hashed only as far as Core's pointer gets, while the length counts all of it.
func (h *hasher) scriptCode(script []byte) {
	separators := 0
	for pc := 0; ; {
		_, next, ok := step(script, pc)
		if !ok {
			break
		}
		if Op(script[pc]) == OpCodeSeparator {
			separators++
		}
		pc = next
	}
	h.size(len(script) - separators)
	from, pc := 0, 0
	for {
		_, next, ok := step(script, pc)
		if ok && Op(script[pc]) == OpCodeSeparator {
			h.bytes(script[from:pc])
			from = next
		}
		pc = next
		if !ok {
			break
		}
	}
	if from < len(script) {
		h.bytes(script[from:pc])
	}
}

// WitnessSigHash returns what a signature of a version 0 witness program signs (BIP 143).
func (s *Spending) WitnessSigHash(input int, scriptCode []byte, t SigHash) [32]byte {
	var v Verifier
	v.spend, v.index = s, input
	return v.witnessHash(scriptCode, t)
}

func (v *Verifier) witnessHash(scriptCode []byte, t SigHash) [32]byte {
	s, in := v.spend, &v.spend.tx.In[v.index]
	s.mustHave(s.segwit)
	var prevouts, sequences, outputs [32]byte
	if !t.alone() {
		prevouts = s.doublePrevouts
		if !t.single() && !t.none() {
			sequences = s.doubleSequences
		}
	}
	switch {
	case t.single() && v.index < len(s.tx.Out):
		outputs = sha256Sum(v.outputHash())
	case !t.single() && !t.none():
		outputs = s.doubleOutputs
	}
	h := &v.hash
	h.reset()
	h.uint32(s.tx.Version)
	h.hash32(&prevouts)
	h.hash32(&sequences)
	h.outPoint(&in.PrevOut)
	h.varBytes(scriptCode)
	h.room()
	h.uint64(uint64(s.spent[v.index].Value))
	h.uint32(in.Sequence)
	h.hash32(&outputs)
	h.uint32(s.tx.LockTime)
	h.uint32(uint32(t))
	return h.double()
}

// outputHash returns the SHA-256 of the output with the input's number. It may be long and be asked
// for by many signatures, so it is kept while the input is verified.
func (v *Verifier) outputHash() *[32]byte {
	if !v.outputHashed {
		v.hash.reset()
		v.hash.output(&v.spend.tx.Out[v.index])
		v.singleOutput, v.outputHashed = v.hash.sum(), true
	}
	return &v.singleOutput
}

// Leaf is what a signature in a tapscript signs beside the transaction (BIP 342, "Common signature
// message extension").
type Leaf struct {
	Hash          [32]byte // of the script and its version
	CodeSeparator uint32   // position of the last OP_CODESEPARATOR that ran, or NoCodeSeparator
}

// NoCodeSeparator stands in a Leaf where no OP_CODESEPARATOR ran.
const NoCodeSeparator = 0xffffffff

// ErrSigHash says that a hash type does not exist in taproot, or names an output that does not
// exist.
var ErrSigHash = errors.New("invalid taproot signature hash type")

// TaprootSigHash returns what a signature of a taproot input signs (BIP 341). annex is nil without
// one; leaf is nil for a spend by key.
func (s *Spending) TaprootSigHash(
	input int, t SigHash, annex []byte, leaf *Leaf,
) ([32]byte, error) {
	var v Verifier
	v.spend, v.index = s, input
	v.setAnnex(annex)
	if leaf != nil {
		v.leaf = *leaf
	}
	sum, ok := v.taprootHash(byte(t), leaf != nil)
	if !ok || t > 0xff {
		return sum, ErrSigHash
	}
	return sum, nil
}

func (v *Verifier) setAnnex(annex []byte) {
	v.annexed = annex != nil
	if v.annexed {
		v.hash.reset()
		v.hash.varBytes(annex)
		v.annexHash = v.hash.sum()
	}
}

func (v *Verifier) taprootHash(hashType byte, tapscript bool) (sum [32]byte, ok bool) {
	s, in := v.spend, &v.spend.tx.In[v.index]
	t := SigHash(hashType)
	if t&^SigHashAnyoneCanPay > SigHashSingle || t == SigHashAnyoneCanPay {
		return sum, false
	}
	if singleOutOfRange(s.tx, v.index, t) {
		return sum, false
	}
	s.mustHave(s.taproot)
	var single *[32]byte
	if t.single() {
		single = v.outputHash()
	}
	h := &v.hash
	h.reset()
	h.bytes(tapSigHashTag[:])
	h.octet(0) // epoch
	h.octet(hashType)
	h.uint32(s.tx.Version)
	h.uint32(s.tx.LockTime)
	if !t.alone() {
		h.hash32(&s.prevouts)
		h.hash32(&s.amounts)
		h.hash32(&s.scripts)
		h.hash32(&s.sequences)
	}
	if !t.single() && !t.none() {
		h.hash32(&s.outputs)
	}
	h.octet(spendType(v.annexed, tapscript))
	if t.alone() {
		h.outPoint(&in.PrevOut)
		h.output(&s.spent[v.index])
		h.room()
		h.uint32(in.Sequence)
	} else {
		h.uint32(uint32(v.index))
	}
	if v.annexed {
		h.hash32(&v.annexHash)
	}
	if single != nil {
		h.hash32(single)
	}
	if tapscript {
		h.hash32(&v.leaf.Hash)
		h.octet(0) // key version
		h.uint32(v.leaf.CodeSeparator)
	}
	return h.sum(), true
}

// spendType is twice the extension flag, which is 1 for tapscript, plus 1 for an annex.
func spendType(annexed, tapscript bool) byte {
	var b byte
	if tapscript {
		b = 2
	}
	if annexed {
		b++
	}
	return b
}
