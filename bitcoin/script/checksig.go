package script

import (
	"bytes"

	"github.com/tallypost/tallypost/bitcoin/secp"
)

// checkSig runs OP_CHECKSIG and OP_CHECKSIGVERIFY: signature key -- bool.
func (v *Verifier) checkSig(op Op, f *frame) Code {
	if len(v.stack) < 2 {
		return ErrInvalidStackOperation
	}
	valid, code := v.evalSig(v.top(2), v.top(1), f)
	if code != OK {
		return code
	}
	v.drop(2)
	v.pushBool(valid)
	if op == OpCheckSigVerify {
		return v.verifyTop(ErrCheckSigVerify)
	}
	return OK
}

// checkSigAdd runs OP_CHECKSIGADD: signature n key -- n or n+1 (BIP 342).
func (v *Verifier) checkSigAdd(f *frame) Code {
	if f.rules != tapscript {
		return ErrBadOpcode
	}
	if len(v.stack) < 3 {
		return ErrInvalidStackOperation
	}
	n, ok := v.num(2, numSize)
	if !ok {
		return ErrUnknownError
	}
	valid, code := v.evalSig(v.top(3), v.top(1), f)
	if code != OK {
		return code
	}
	v.drop(3)
	if valid {
		n++
	}
	v.pushNum(n)
	return OK
}

func (v *Verifier) evalSig(sig, key []byte, f *frame) (valid bool, code Code) {
	if f.rules == tapscript {
		return v.evalTapscriptSig(sig, key)
	}
	scriptCode := f.script[f.codeStart:]
	if f.rules == base {
		if scriptCode, code = v.withoutSig(scriptCode, sig); code != OK {
			return false, code
		}
	}
	valid, code = v.evalECDSA(sig, key, scriptCode, f.rules)
	if code == OK && !valid && v.flags&VerifyNullFail != 0 && len(sig) != 0 {
		code = ErrSigNullFail
	}
	return valid, code
}

// withoutSig removes a signature from the script that it signs, as every script before BIP 143 has
// it. Only whole operations that push just the signature go, not pushes that contain it
// (CVE-2024-38365 of btcd).
func (v *Verifier) withoutSig(scriptCode, sig []byte) ([]byte, Code) {
	v.push = AppendPush(v.push[:0], sig)
	if !bytes.Contains(scriptCode, v.push) { // so it is, unless somebody plays
		return scriptCode, OK
	}
	var found bool
	scriptCode, found = v.withoutPush(scriptCode, v.push)
	if found && v.flags&VerifyConstScriptCode != 0 {
		return nil, ErrSigFindAndDelete
	}
	return scriptCode, OK
}

// withoutPush removes an encoding wherever an operation begins with it (Core's FindAndDelete). The
// result lies in v.code; scriptCode may lie there already.
func (v *Verifier) withoutPush(scriptCode, push []byte) (result []byte, found bool) {
	result = v.code[:0]
	if cap(result) < len(scriptCode) {
		result = make([]byte, 0, MaxScriptSize)
	}
	from, pc := 0, 0
	for ok := true; ok; {
		result = append(result, scriptCode[from:pc]...)
		for bytes.HasPrefix(scriptCode[pc:], push) {
			pc += len(push)
			found = true
		}
		from = pc
		_, pc, ok = step(scriptCode, pc)
	}
	result = append(result, scriptCode[from:]...)
	v.code = result
	return result, found
}

// evalECDSA checks the encodings and then the signature.
func (v *Verifier) evalECDSA(sig, key, scriptCode []byte, r rules) (valid bool, code Code) {
	if code := checkSignatureEncoding(sig, v.flags); code != OK {
		return false, code
	}
	if code := checkKeyEncoding(key, v.flags, r); code != OK {
		return false, code
	}
	return v.verifyECDSA(sig, key, scriptCode, r), OK
}

// verifyECDSA is Core's CheckECDSASignature.
func (v *Verifier) verifyECDSA(sig, key, scriptCode []byte, r rules) bool {
	if len(sig) == 0 || !hasKeySize(key) || v.spend == nil {
		return false
	}
	hashType := sig[len(sig)-1]
	var ok bool
	if v.ecdsa, ok = secp.ParseDER(sig[:len(sig)-1]); !ok {
		return false
	}
	v.digest = v.ecdsaHash(scriptCode, hashType, r)
	if v.Cache != nil && v.Cache.hasECDSA(&v.digest, key, &v.ecdsa) {
		return true
	}
	if !v.engine().VerifyECDSA(key, &v.digest, &v.ecdsa) {
		return false
	}
	if v.Cache != nil {
		v.Cache.addECDSA(&v.digest, key, &v.ecdsa)
	}
	return true
}

func (v *Verifier) engine() secp.Engine {
	if v.Engine == nil {
		return secp.Default()
	}
	return v.Engine
}

// checkMultisig runs OP_CHECKMULTISIG and OP_CHECKMULTISIGVERIFY: dummy signature... n key... m --
// bool. Each signature must be by a key after that of the signature before it; signatures and keys
// are tried from the top of the stack downwards.
func (v *Verifier) checkMultisig(op Op, f *frame) Code {
	if f.rules == tapscript {
		return ErrTapscriptCheckMultisig
	}
	keys, sigs, code := v.multisigCounts(f)
	if code != OK {
		return code
	}
	firstKey, firstSig := 2, keys+3
	scriptCode := f.script[f.codeStart:]
	if f.rules == base {
		for i := range sigs {
			if scriptCode, code = v.withoutSig(scriptCode, v.top(firstSig+i)); code != OK {
				return code
			}
		}
	}
	valid := true
	for key, sig := 0, 0; valid && sig < sigs; key++ {
		ok, code := v.evalECDSA(v.top(firstSig+sig), v.top(firstKey+key), scriptCode, f.rules)
		if code != OK {
			return code
		}
		if ok {
			sig++
		}
		valid = sigs-sig <= keys-key-1 // else too few keys are left, and no more is tried
	}
	if !valid && v.flags&VerifyNullFail != 0 {
		for i := range sigs {
			if len(v.top(firstSig+i)) != 0 {
				return ErrSigNullFail
			}
		}
	}
	v.drop(keys + sigs + 2)
	// One item more than needed is taken, a fault of the first release that is now a rule.
	if dummy := v.pop(); len(dummy) != 0 && v.flags&VerifyNullDummy != 0 {
		return ErrSigNullDummy
	}
	v.pushBool(valid)
	if op == OpCheckMultisigVerify {
		return v.verifyTop(ErrCheckMultisigVerify)
	}
	return OK
}

// multisigCounts reads the numbers of keys and signatures and makes sure that all of them are
// there.
func (v *Verifier) multisigCounts(f *frame) (keys, sigs int, code Code) {
	if len(v.stack) < 1 {
		return 0, 0, ErrInvalidStackOperation
	}
	n, ok := v.num(1, numSize)
	if !ok {
		return 0, 0, ErrUnknownError
	}
	if n < 0 || n > MaxMultisigKeys {
		return 0, 0, ErrPubKeyCount
	}
	keys = int(n)
	if f.ops += keys; f.ops > MaxOps {
		return 0, 0, ErrOpCount
	}
	if len(v.stack) < keys+2 {
		return 0, 0, ErrInvalidStackOperation
	}
	if n, ok = v.num(keys+2, numSize); !ok {
		return 0, 0, ErrUnknownError
	}
	if n < 0 || n > int64(keys) {
		return 0, 0, ErrSigCount
	}
	sigs = int(n)
	if len(v.stack) < keys+sigs+3 {
		return 0, 0, ErrInvalidStackOperation
	}
	return keys, sigs, OK
}

// evalTapscriptSig checks a signature in a tapscript (BIP 342, "Rules for signature opcodes"). Keys
// of unknown length make every signature valid that is not empty.
func (v *Verifier) evalTapscriptSig(sig, key []byte) (valid bool, code Code) {
	if len(sig) != 0 {
		if v.weightLeft -= sigopWeight; v.weightLeft < 0 {
			return false, ErrTapscriptValidationWeight
		}
	}
	switch len(key) {
	case 0:
		return false, ErrTapscriptEmptyPubKey
	case 32:
		if len(sig) == 0 {
			return false, OK
		}
		code = v.verifySchnorr(sig, key, true)
	default:
		if v.flags&VerifyDiscourageUpgradablePubKeyType != 0 {
			code = ErrDiscourageUpgradablePubKeyType
		}
	}
	return len(sig) != 0, code
}

// verifySchnorr is Core's CheckSchnorrSignature. key has 32 octets.
func (v *Verifier) verifySchnorr(sig, key []byte, inTapscript bool) Code {
	hashType := byte(SigHashDefault)
	switch len(sig) {
	case 64:
	case 65:
		if hashType = sig[64]; hashType == byte(SigHashDefault) {
			return ErrSchnorrSigHashType
		}
	default:
		return ErrSchnorrSigSize
	}
	if v.spend == nil {
		return ErrSchnorrSig
	}
	var ok bool
	if v.digest, ok = v.taprootHash(hashType, inTapscript); !ok {
		return ErrSchnorrSigHashType
	}
	v.key, v.schnorr = [32]byte(key), [64]byte(sig)
	if v.Cache != nil && v.Cache.hasSchnorr(&v.digest, &v.key, &v.schnorr) {
		return OK
	}
	if v.Batch != nil {
		v.Batch.Add(v.Tag, &v.key, &v.digest, &v.schnorr)
		return OK
	}
	if !v.engine().VerifySchnorr(&v.key, v.digest[:], &v.schnorr) {
		return ErrSchnorrSig
	}
	if v.Cache != nil {
		v.Cache.addSchnorr(&v.digest, &v.key, &v.schnorr)
	}
	return OK
}
