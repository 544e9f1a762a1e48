package mempool

import (
	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// The bounds of what is standard (Bitcoin Core policy/policy.h).
const (
	// MaxWeight is the largest weight of a transaction.
	MaxWeight = 400_000
	// MinBaseSize is the least size without witnesses: one of 64 octets could pass for a node of
	// the Merkle tree (CVE-2017-12842).
	MinBaseSize = 65
	// MaxSigOpsCost is the largest cost of the signature checks in a transaction.
	MaxSigOpsCost = consensus.MaxBlockSigOpsCost / 5

	minVersion         = 1
	maxVersion         = 3
	maxScriptSig       = 1650 // octets: a 15-of-15 multisig redeem script with its signatures
	maxMultisigKeys    = 3
	maxRedeemSigOps    = 15
	maxLegacySigOps    = 2500 // of a transaction's scripts outside of witnesses (BIP 54)
	maxWitnessScript   = 3600
	maxWitnessItems    = 100
	maxWitnessItemSize = 80
	maxDust            = 1
	annexTag           = 0x50
	leafMask           = 0xfe
	leafTapscript      = 0xc0
)

// checkStandard judges the form of a transaction (Bitcoin Core policy/policy.cpp, IsStandardTx).
func (p *Pool) checkStandard(tx *bitcoin.Tx) (reason string) {
	switch {
	case tx.Version < minVersion || tx.Version > maxVersion:
		return "version"
	case tx.Weight() > MaxWeight: // signature hashes take time by size times inputs
		return "tx-size"
	}
	for i := range tx.In {
		if len(tx.In[i].Script) > maxScriptSig {
			return "scriptsig-size"
		}
		if !script.IsPushOnly(tx.In[i].Script) {
			return "scriptsig-not-pushonly"
		}
	}
	carry, dust := p.cfg.MaxDataCarrier, 0
	for i := range tx.Out {
		out := &tx.Out[i]
		form, parts := script.Solve(out.Script)
		switch {
		case form == script.NonStandard, form == script.BareMultisig && !smallMultisig(parts):
			return "scriptpubkey"
		case form == script.NullData && len(out.Script) > carry:
			return "datacarrier"
		case form == script.NullData:
			carry -= len(out.Script)
		case form == script.BareMultisig && p.cfg.RefuseBareMultisig:
			return "bare-multisig"
		}
		if p.isDust(out) {
			dust++
		}
	}
	if dust > maxDust {
		return "dust"
	}
	return ""
}

// smallMultisig reports whether a multisig output has at most three keys.
func smallMultisig(parts [][]byte) bool {
	required, keys := parts[0][0], parts[len(parts)-1][0]
	return keys >= 1 && keys <= maxMultisigKeys && required >= 1 && required <= keys
}

// isDust reports whether an output is worth less than what it takes to spend it.
func (p *Pool) isDust(out *bitcoin.TxOut) bool {
	return out.Value < DustLimit(out, p.cfg.DustRelayFee)
}

// DustLimit returns the least value at which an output is not dust: what it costs at a rate to make
// it and to spend it with a key (Bitcoin Core policy/policy.cpp, GetDustThreshold).
func DustLimit(out *bitcoin.TxOut, rate FeeRate) bitcoin.Amount {
	if script.IsUnspendable(out.Script) {
		return 0
	}
	const input, signature = 32 + 4 + 1 + 4, 107
	size := out.Size() + input
	if _, _, ok := script.WitnessProgram(out.Script); ok {
		size += signature / bitcoin.WitnessScale
	} else {
		size += signature
	}
	return rate.Fee(size)
}

// Dusty reports whether an unconfirmed transaction has dust that policy lets pass only where it pays no fee:
// then it must not count as paying one either.
func (p *Pool) Dusty(txid bitcoin.Hash) bool {
	e := p.entries[txid]
	return e != nil && !p.cfg.AcceptNonStandard && p.hasDust(e.Tx)
}

func (p *Pool) hasDust(tx *bitcoin.Tx) bool {
	for i := range tx.Out {
		if p.isDust(&tx.Out[i]) {
			return true
		}
	}
	return false
}

// inputsStandard judges what a transaction spends, witnesses apart (Bitcoin Core policy/policy.cpp,
// AreInputsStandard): forms that are known, and not too many signature checks.
func inputsStandard(tx *bitcoin.Tx, spent []bitcoin.TxOut) bool {
	sigOps := 0
	for i := range tx.In {
		sigOps += script.SigOps(tx.In[i].Script, true)
		sigOps += script.SpentSigOps(tx.In[i].Script, spent[i].Script)
		if sigOps > maxLegacySigOps {
			return false
		}
	}
	for i := range tx.In {
		switch form, _ := script.Solve(spent[i].Script); form {
		case script.NonStandard, script.WitnessUnknown:
			return false
		case script.ScriptHash:
			redeem, ok := redeemScript(tx.In[i].Script)
			if !ok || script.SigOps(redeem, true) > maxRedeemSigOps {
				return false
			}
		}
	}
	return true
}

// redeemScript returns the script that a pay-to-script-hash input reveals: what its scriptSig, run
// by itself, leaves on top of the stack.
func redeemScript(scriptSig []byte) (redeem []byte, ok bool) {
	stack, code := new(script.Verifier).Eval(scriptSig, 0)
	if code != script.OK || len(stack) == 0 {
		return nil, false
	}
	return stack[len(stack)-1], true
}

// witnessStandard judges the witnesses of a transaction (Bitcoin Core policy/policy.cpp,
// IsWitnessStandard): none where none belongs, and small ones where they are scripts.
func witnessStandard(tx *bitcoin.Tx, spent []bitcoin.TxOut) bool {
	for i := range tx.In {
		if witness := tx.In[i].Witness; len(witness) > 0 &&
			!inputWitnessStandard(&tx.In[i], spent[i].Script) {
			return false
		}
	}
	return true
}

func inputWitnessStandard(in *bitcoin.TxIn, to []byte) bool {
	if script.IsPayToAnchor(to) {
		return false
	}
	nested := script.IsPayToScriptHash(to)
	if nested {
		var ok bool
		if to, ok = redeemScript(in.Script); !ok {
			return false
		}
	}
	version, program, ok := script.WitnessProgram(to)
	switch {
	case !ok:
		return false
	case version == 0 && len(program) == 32:
		return scriptWitnessStandard(in.Witness)
	case version == 1 && len(program) == 32 && !nested:
		return taprootWitnessStandard(in.Witness)
	}
	return true
}

func scriptWitnessStandard(witness [][]byte) bool {
	last := len(witness) - 1
	if len(witness[last]) > maxWitnessScript || last > maxWitnessItems {
		return false
	}
	return smallItems(witness[:last])
}

func taprootWitnessStandard(witness [][]byte) bool {
	last := witness[len(witness)-1]
	if len(witness) >= 2 && len(last) > 0 && last[0] == annexTag {
		return false // nobody knows what an annex means
	}
	if len(witness) < 2 {
		return true // a signature
	}
	if len(last) == 0 { // the control block
		return false
	}
	return last[0]&leafMask != leafTapscript || smallItems(witness[:len(witness)-2])
}

func smallItems(items [][]byte) bool {
	for _, item := range items {
		if len(item) > maxWitnessItemSize {
			return false
		}
	}
	return true
}

// lacksWitness reports whether a transaction without witnesses spends a witness program that needs
// one, so that its failure may be the fault of whoever stripped it (Bitcoin Core policy/policy.cpp,
// SpendsNonAnchorWitnessProg).
func lacksWitness(tx *bitcoin.Tx, spent []bitcoin.TxOut) bool {
	if tx.HasWitness() {
		return false
	}
	for i := range tx.In {
		to := spent[i].Script
		if script.IsPayToScriptHash(to) {
			to, _ = redeemScript(tx.In[i].Script)
		} else if script.IsPayToAnchor(to) {
			continue
		}
		if _, _, ok := script.WitnessProgram(to); ok {
			return true
		}
	}
	return false
}
