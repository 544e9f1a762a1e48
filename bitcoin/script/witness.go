package script

import (
	"crypto/sha256"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

// verifyProgram runs what a witness program asks for (BIP 141; Bitcoin Core script/interpreter.cpp,
// VerifyWitnessProgram).
func (v *Verifier) verifyProgram(witness [][]byte, version int, program []byte, inP2SH bool) Code {
	switch {
	case version == 0:
		return v.verifyV0(witness, program)
	case version == 1 && len(program) == taprootSize && !inP2SH:
		if v.flags&VerifyTaproot == 0 {
			return OK
		}
		return v.verifyTaproot(witness, program)
	case !inP2SH && isAnchorProgram(version, program):
		return OK
	case v.flags&VerifyDiscourageUpgradableWitnessProgram != 0:
		return ErrDiscourageUpgradableWitnessProgram
	}
	return OK // of a version yet to be defined
}

func (v *Verifier) verifyV0(witness [][]byte, program []byte) Code {
	switch len(program) {
	case witnessScriptSize:
		if len(witness) == 0 {
			return ErrWitnessProgramWitnessEmpty
		}
		last := len(witness) - 1
		script := witness[last]
		if sha256.Sum256(script) != [32]byte(program) {
			return ErrWitnessProgramMismatch
		}
		return v.runWitness(witness[:last], script, witnessV0)
	case witnessKeyHashSize:
		if len(witness) != 2 {
			return ErrWitnessProgramMismatch
		}
		s := append(v.implied[:0], byte(OpDup), byte(OpHash160), witnessKeyHashSize)
		v.implied = append(append(s, program...), byte(OpEqualVerify), byte(OpCheckSig))
		return v.runWitness(witness, v.implied, witnessV0)
	}
	return ErrWitnessProgramWrongLength
}

// runWitness runs a script on the items of a witness; exactly one true item must be left.
func (v *Verifier) runWitness(items [][]byte, script []byte, r rules) Code {
	if r == tapscript && len(items) > MaxStackSize {
		return ErrStackSize
	}
	for _, item := range items {
		if len(item) > MaxElementSize {
			return ErrPushSize
		}
	}
	v.stack = append(v.stack[:0], items...)
	v.values.reset()
	if code := v.run(script, r); code != OK {
		return code
	}
	if len(v.stack) != 1 {
		return ErrCleanStack
	}
	if !isTrue(v.stack[0]) {
		return ErrEvalFalse
	}
	return OK
}

// verifyTaproot follows BIP 341, "Script validation rules".
func (v *Verifier) verifyTaproot(witness [][]byte, program []byte) Code {
	if len(witness) == 0 {
		return ErrWitnessProgramWitnessEmpty
	}
	stack := witness
	var annex []byte
	if last := stack[len(stack)-1]; len(stack) >= 2 && len(last) > 0 && last[0] == annexTag {
		annex, stack = last, stack[:len(stack)-1]
	}
	v.setAnnex(annex)
	if len(stack) == 1 {
		return v.verifySchnorr(stack[0], program, false)
	}

	n := len(stack)
	control, script := stack[n-1], stack[n-2]
	path := len(control) - controlBase
	if path < 0 || path > controlNode*maxControlNodes || path%controlNode != 0 {
		return ErrTaprootWrongControlSize
	}
	version := control[0] & leafMask
	v.leaf.Hash = v.hash.tapLeaf(version, script)
	if !v.verifyCommitment(control, program) {
		return ErrWitnessProgramMismatch
	}
	if version == leafTapscript {
		v.weightLeft = witnessSize(witness) + weightAllowance
		return v.runTapscript(stack[:n-2], script)
	}
	if v.flags&VerifyDiscourageUpgradableTaprootVersion != 0 {
		return ErrDiscourageUpgradableTaprootVersion
	}
	return OK
}

// verifyCommitment reports whether the output key commits to the leaf by way of the control block.
func (v *Verifier) verifyCommitment(control, program []byte) bool {
	node := v.leaf.Hash
	for path := control[controlBase:]; len(path) > 0; path = path[controlNode:] {
		node = TapBranchHash(&node, (*[32]byte)(path))
	}
	internal := (*[32]byte)(control[1:])
	v.key = [32]byte(program)
	v.digest = secp.TapTweak(internal, node[:])
	return v.engine().VerifyTweak(&v.key, control[0]&1 != 0, internal, &v.digest)
}

// runTapscript looks for an operation that makes the script succeed, which overrides every limit,
// and else runs the script (BIP 342, "Execution").
func (v *Verifier) runTapscript(items [][]byte, script []byte) Code {
	for pc := 0; pc < len(script); {
		op := Op(script[pc])
		_, next, ok := step(script, pc)
		if !ok {
			return ErrBadOpcode
		}
		if isSuccess(op) {
			if v.flags&VerifyDiscourageOpSuccess != 0 {
				return ErrDiscourageOpSuccess
			}
			return OK
		}
		pc = next
	}
	return v.runWitness(items, script, tapscript)
}

// witnessSize returns the octets of a witness as it is encoded in a transaction.
func witnessSize(witness [][]byte) int {
	n := bitcoin.CompactSizeLen(uint64(len(witness)))
	for _, item := range witness {
		n += bitcoin.CompactSizeLen(uint64(len(item))) + len(item)
	}
	return n
}
