// Package script decides whether a transaction input may spend the output it names: the conditions
// that whoever made the output wrote into its script, run as Bitcoin Core runs them, from the first
// scripts to tapscript.
//
// A Spending holds a transaction with the outputs it spends and the hashes its inputs share; a
// Verifier, one for each goroutine, runs the scripts. Rules are chosen by Flags, outcomes are
// Codes: both bear Core's names. BIPs 16, 65, 66, 112, 141, 143, 147, 340, 341 and 342 are the
// consensus rules; the flags beyond them are Core's relay policy. Signature hashes, counting of
// signature operations, the standard forms of output scripts, a builder and a disassembler are here
// too.
//
// Which flags hold at which height is for package consensus; limits of relay beyond the
// interpreter's, such as sizes and dust, are the mempool's.
package script

import "encoding/binary"

// The limits of scripts (Bitcoin Core script/script.h).
const (
	MaxElementSize     = 520    // octets of a stack item pushed by a script
	MaxOps             = 201    // operations other than pushes, before tapscript
	MaxMultisigKeys    = 20     // keys of OP_CHECKMULTISIG
	MaxScriptSize      = 10_000 // octets of a script, before tapscript
	MaxStackSize       = 1000   // items on both stacks together
	LockTimeThreshold  = 500_000_000
	sigopWeight        = 50 // BIP 342, "Resource limits": weight that each signature check uses up
	weightAllowance    = 50 // and what every input has beside the weight of its witness
	annexTag           = 0x50
	leafMask           = 0xfe
	leafTapscript      = 0xc0
	controlBase        = 33
	controlNode        = 32
	maxControlNodes    = 128
	sequenceFinal      = 0xffffffff
	sequenceDisable    = 1 << 31 // BIP 68: the sequence number is no lock time
	sequenceTypeFlag   = 1 << 22 // BIP 68: it counts 512 seconds, not blocks
	sequenceMask       = 0x0000ffff
	witnessKeyHashSize = 20
	witnessScriptSize  = 32
	taprootSize        = 32
)

// IsPayToPubKeyHash reports whether the script is OP_DUP OP_HASH160 <20 octets> OP_EQUALVERIFY
// OP_CHECKSIG.
func IsPayToPubKeyHash(script []byte) bool {
	return len(script) == 25 && script[0] == byte(OpDup) && script[1] == byte(OpHash160) &&
		script[2] == 20 && script[23] == byte(OpEqualVerify) && script[24] == byte(OpCheckSig)
}

// IsPayToScriptHash reports whether the script has the form of BIP 16: OP_HASH160 <20 octets>
// OP_EQUAL.
func IsPayToScriptHash(script []byte) bool {
	return len(script) == 23 && script[0] == byte(OpHash160) && script[1] == 20 &&
		script[22] == byte(OpEqual)
}

// IsPayToTaproot reports whether the script is a version 1 witness program of 32 octets (BIP 341).
func IsPayToTaproot(script []byte) bool {
	return len(script) == 34 && script[0] == byte(Op1) && script[1] == taprootSize
}

// IsPayToAnchor reports whether the script is OP_1 <4e73>, which everybody can spend (BIP 433).
func IsPayToAnchor(script []byte) bool {
	version, program, ok := WitnessProgram(script)
	return ok && isAnchorProgram(version, program)
}

func isAnchorProgram(version int, program []byte) bool {
	return version == 1 && len(program) == 2 && program[0] == 0x4e && program[1] == 0x73
}

// WitnessProgram returns the version and the program of a script that has the form of BIP 141: a
// small number and one push of 2 to 40 octets. The program is a part of the script.
func WitnessProgram(script []byte) (version int, program []byte, ok bool) {
	if len(script) < 4 || len(script) > 42 || int(script[1])+2 != len(script) {
		return 0, nil, false
	}
	switch first := Op(script[0]); {
	case first == Op0:
		return 0, script[2:], true
	case first >= Op1 && first <= Op16:
		return int(first-Op1) + 1, script[2:], true
	}
	return 0, nil, false
}

// IsUnspendable reports whether no input can ever spend the script, so that it needs no place among
// the coins.
func IsUnspendable(script []byte) bool {
	return len(script) > 0 && script[0] == byte(OpReturn) || len(script) > MaxScriptSize
}

// IsPushOnly reports whether the script does nothing but push. OP_RESERVED counts as a push, as in
// Core; to run it fails.
func IsPushOnly(script []byte) bool {
	for len(script) > 0 {
		op, _, rest, ok := Next(script)
		if !ok || op > Op16 {
			return false
		}
		script = rest
	}
	return true
}

// HasValidOps reports whether the script can be cut into operations that exist, none of which
// pushes more than MaxElementSize.
func HasValidOps(script []byte) bool {
	for len(script) > 0 {
		op, data, rest, ok := Next(script)
		if !ok || op > OpNop10 || len(data) > MaxElementSize {
			return false
		}
		script = rest
	}
	return true
}

// LastPush returns the data of the last operation of a script that does nothing but push: the
// redeem script, where the script spends a pay-to-script-hash output. It is nil where the last
// operation is a number.
func LastPush(script []byte) (data []byte, ok bool) {
	for len(script) > 0 {
		var op Op
		if op, data, script, ok = Next(script); !ok || op > Op16 {
			return nil, false
		}
	}
	return data, true
}

// Next cuts the first operation off a script, with the data it pushes. It answers false at the end
// of the script and where the script ends in the middle of a push. data and rest are parts of the
// script.
func Next(script []byte) (op Op, data, rest []byte, ok bool) {
	start, end, ok := step(script, 0)
	if !ok {
		return OpInvalid, nil, nil, false
	}
	return Op(script[0]), script[start:end:end], script[end:], true
}

// step finds the data of the operation at pc: script[start:end]. The next operation is at end.
// Where the script ends within the operation, end is where Core's GetScriptOp leaves its pointer,
// which hashes can show.
func step(script []byte, pc int) (start, end int, ok bool) {
	if pc >= len(script) {
		return pc, pc, false
	}
	op := Op(script[pc])
	pc++
	if op > OpPushData4 {
		return pc, pc, true
	}
	size, left := int(op), len(script)-pc
	switch op {
	case OpPushData1:
		if left < 1 {
			return pc, pc, false
		}
		size, pc = int(script[pc]), pc+1
	case OpPushData2:
		if left < 2 {
			return pc, pc, false
		}
		size, pc = int(script[pc])|int(script[pc+1])<<8, pc+2
	case OpPushData4:
		if left < 4 {
			return pc, pc, false
		}
		long := binary.LittleEndian.Uint32(script[pc:])
		pc += 4
		if uint64(long) > uint64(len(script)-pc) { // an int of 32 bits could not hold it
			return pc, pc, false
		}
		size = int(long)
	}
	if size > len(script)-pc {
		return pc, pc, false
	}
	return pc, pc + size, true
}
