package script

// Type is the standard form of an output script, by Core's name.
type Type string

// The forms (Bitcoin Core script/solver.cpp, GetTxnOutputType).
const (
	NonStandard         Type = "nonstandard"
	PubKey              Type = "pubkey"
	PubKeyHash          Type = "pubkeyhash"
	ScriptHash          Type = "scripthash"
	BareMultisig        Type = "multisig"
	NullData            Type = "nulldata"
	Anchor              Type = "anchor"
	WitnessV0KeyHash    Type = "witness_v0_keyhash"
	WitnessV0ScriptHash Type = "witness_v0_scripthash"
	WitnessV1Taproot    Type = "witness_v1_taproot"
	WitnessUnknown      Type = "witness_unknown"
)

// Solve recognises the form of an output script and returns what it holds: the key, the hash or the
// witness program; for multisig the number of signatures, the keys and their number; for an unknown
// witness the version and the program. The parts are parts of the script, numbers excepted.
func Solve(script []byte) (Type, [][]byte) {
	if IsPayToScriptHash(script) {
		return ScriptHash, [][]byte{script[2:22]}
	}
	if version, program, ok := WitnessProgram(script); ok {
		return solveWitness(script, version, program)
	}
	if len(script) >= 1 && Op(script[0]) == OpReturn && IsPushOnly(script[1:]) {
		return NullData, nil
	}
	if key, ok := payToPubKey(script); ok {
		return PubKey, [][]byte{key}
	}
	if IsPayToPubKeyHash(script) {
		return PubKeyHash, [][]byte{script[3:23]}
	}
	if required, keys, ok := ParseMultisig(script); ok {
		parts := append([][]byte{{byte(required)}}, keys...)
		return BareMultisig, append(parts, []byte{byte(len(keys))})
	}
	return NonStandard, nil
}

func solveWitness(script []byte, version int, program []byte) (Type, [][]byte) {
	switch {
	case version == 0 && len(program) == witnessKeyHashSize:
		return WitnessV0KeyHash, [][]byte{program}
	case version == 0 && len(program) == witnessScriptSize:
		return WitnessV0ScriptHash, [][]byte{program}
	case version == 0:
		return NonStandard, nil
	case version == 1 && len(program) == taprootSize:
		return WitnessV1Taproot, [][]byte{program}
	case IsPayToAnchor(script):
		return Anchor, nil
	}
	return WitnessUnknown, [][]byte{{byte(version)}, program}
}

// payToPubKey matches <key> OP_CHECKSIG.
func payToPubKey(script []byte) (key []byte, ok bool) {
	n := len(script)
	if n != 35 && n != 67 || int(script[0]) != n-2 || Op(script[n-1]) != OpCheckSig {
		return nil, false
	}
	key = script[1 : n-1]
	return key, hasKeySize(key)
}

// ParseMultisig matches OP_n <key>... OP_m OP_CHECKMULTISIG with up to MaxMultisigKeys keys, of
// which only the size is looked at.
func ParseMultisig(script []byte) (required int, keys [][]byte, ok bool) {
	if len(script) == 0 || Op(script[len(script)-1]) != OpCheckMultisig {
		return 0, nil, false
	}
	op, data, rest, ok := Next(script)
	if !ok {
		return 0, nil, false
	}
	if required, ok = smallNumber(op, data, 1); !ok {
		return 0, nil, false
	}
	for {
		op, data, rest, ok = Next(rest)
		if !ok || !hasKeySize(data) {
			break
		}
		keys = append(keys, data)
	}
	n, valid := smallNumber(op, data, required)
	return required, keys, ok && valid && n == len(keys) && len(rest) == 1
}

// smallNumber reads a number from least to MaxMultisigKeys from an operation that pushes it
// minimally.
func smallNumber(op Op, data []byte, least int) (n int, ok bool) {
	switch {
	case op >= Op1 && op <= Op16:
		n = int(op-Op1) + 1
	case op > Op0 && op <= OpPushData4 && isMinimalPush(op, data):
		v, err := DecodeNum(data, true, numSize)
		if err != nil {
			return 0, false
		}
		n = int(v)
	default:
		return 0, false
	}
	return n, n >= least && n <= MaxMultisigKeys
}
