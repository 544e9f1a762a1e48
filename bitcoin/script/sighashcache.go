package script

import (
	"bytes"
	"slices"
)

// sighashCache keeps the hashes that signatures of one input sign, so that a script with many
// signatures does not hash the transaction anew for each (CVE-2025-46598). For each of the six ways
// in which a hash type can choose parts of the transaction it remembers the last script code, its
// hash, and, where the preimage was long, the state of SHA-256 before the hash type: other hash
// types of the same way differ only after it. The two kinds of scripts before taproot share it,
// since no input runs both.
type sighashCache [6]struct {
	set      bool
	hashType byte
	code     []byte // what was hashed: a part of the script, or own
	own      []byte // a copy of a script code that does not last
	hash     [32]byte
	state    []byte // empty where there is none
}

func (c *sighashCache) reset() {
	for i := range c {
		c[i].set = false
	}
}

func sighashClass(t SigHash) int {
	class := 0
	switch {
	case t.single():
		class = 2
	case t.none():
		class = 1
	}
	if t.alone() {
		class += 3
	}
	return class
}

// ecdsaHash returns what an ECDSA signature of the input signs (Bitcoin Core
// script/interpreter.cpp, SignatureHash).
func (v *Verifier) ecdsaHash(scriptCode []byte, hashType byte, r rules) [32]byte {
	t := SigHash(hashType)
	if r == base && singleOutOfRange(v.spend.tx, v.index, t) {
		return [32]byte{1}
	}
	e := &v.sighashes[sighashClass(t)]
	known := e.set && bytes.Equal(e.code, scriptCode)
	switch {
	case known && e.hashType == hashType:
		return e.hash
	case known && len(e.state) != 0:
		v.hash.load(e.state)
		v.hash.uint32(uint32(t))
		e.hash, e.hashType = v.hash.double(), hashType
		return e.hash
	}
	e.state = e.state[:0]
	if r == witnessV0 { // its preimage is never longer than the script
		e.hash = v.witnessHash(scriptCode, t)
	} else {
		e.state = v.legacyHash(scriptCode, t, e.state)
		e.hash = v.hash.double()
	}
	if len(v.code) != 0 && len(scriptCode) != 0 && &v.code[0] == &scriptCode[0] {
		e.own = append(e.own[:0], scriptCode...)
		scriptCode = e.own
	}
	e.set, e.hashType, e.code = true, hashType, scriptCode
	return e.hash
}

// legacyHash leaves the preimage in v.hash. Where it is so long that it had to be streamed the
// state before the hash type is appended to state.
func (v *Verifier) legacyHash(scriptCode []byte, t SigHash, state []byte) []byte {
	h := &v.hash
	if len(v.spend.blank) != 0 && !t.single() && !t.none() && !t.alone() {
		h.legacyAll(v.spend, v.index, scriptCode)
	} else {
		h.legacy(v.spend.tx, v.index, scriptCode, t)
	}
	if h.streaming {
		state = h.save(slices.Grow(state, stateSize))
	}
	h.uint32(uint32(t))
	return state
}
