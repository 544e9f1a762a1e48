package script

import "github.com/tallypost/tallypost/bitcoin"

// SigOps counts the signature operations of a script without running it. accurate counts the keys
// of a OP_CHECKMULTISIG by the small number before it, as redeem scripts and witness scripts are
// counted; else each counts as MaxMultisigKeys (Bitcoin Core script/script.cpp, GetSigOpCount).
func SigOps(script []byte, accurate bool) int {
	n := 0
	last := OpInvalid
	for pc := 0; pc < len(script); {
		op := Op(script[pc])
		_, next, ok := step(script, pc)
		if !ok {
			break
		}
		switch op {
		case OpCheckSig, OpCheckSigVerify:
			n++
		case OpCheckMultisig, OpCheckMultisigVerify:
			if accurate && last >= Op1 && last <= Op16 {
				n += int(last-Op1) + 1
			} else {
				n += MaxMultisigKeys
			}
		}
		last, pc = op, next
	}
	return n
}

// SpentSigOps counts accurately the signature operations that an input may run outside of a witness
// by way of the script it spends: those of the redeem script, where that is the form, else of the
// script itself.
func SpentSigOps(scriptSig, scriptPubKey []byte) int {
	if !IsPayToScriptHash(scriptPubKey) {
		return SigOps(scriptPubKey, true)
	}
	redeem, ok := LastPush(scriptSig)
	if !ok {
		return 0
	}
	return SigOps(redeem, true)
}

// LegacySigOps counts the signature operations in all scripts of a transaction, as they were
// counted before BIP 16.
func LegacySigOps(tx *bitcoin.Tx) int {
	n := 0
	for i := range tx.In {
		n += SigOps(tx.In[i].Script, false)
	}
	for i := range tx.Out {
		n += SigOps(tx.Out[i].Script, false)
	}
	return n
}

// WitnessSigOps counts the signature operations of a version 0 witness program (Bitcoin Core
// script/interpreter.cpp, CountWitnessSigOps). Other versions have none; BIP 342 limits them
// otherwise.
func WitnessSigOps(scriptSig, scriptPubKey []byte, witness [][]byte, flags Flags) int {
	if flags&VerifyWitness == 0 {
		return 0
	}
	program := scriptPubKey
	if IsPayToScriptHash(scriptPubKey) {
		redeem, ok := LastPush(scriptSig)
		if !ok {
			return 0
		}
		program = redeem
	}
	version, hash, ok := WitnessProgram(program)
	switch {
	case !ok || version != 0:
		return 0
	case len(hash) == witnessKeyHashSize:
		return 1
	case len(hash) == witnessScriptSize && len(witness) > 0:
		return SigOps(witness[len(witness)-1], true)
	}
	return 0
}

// SigOpCost returns what a transaction counts against the limit of a block: four for each signature
// operation outside of witnesses and one for each inside (BIP 141, "Sigops"). spent holds the
// output that each input spends; of a coinbase transaction it is not read.
func SigOpCost(tx *bitcoin.Tx, spent []bitcoin.TxOut, flags Flags) int {
	cost := LegacySigOps(tx) * bitcoin.WitnessScale
	if len(tx.In) == 1 && tx.In[0].PrevOut.IsNull() {
		return cost
	}
	for i := range tx.In {
		in, script := &tx.In[i], spent[i].Script
		if flags&VerifyP2SH != 0 && IsPayToScriptHash(script) {
			cost += SpentSigOps(in.Script, script) * bitcoin.WitnessScale
		}
		cost += WitnessSigOps(in.Script, script, in.Witness, flags)
	}
	return cost
}
