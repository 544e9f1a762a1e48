package script

import (
	"fmt"
	"slices"
	"strings"
)

// Flags chooses the rules that scripts are held to. Each is a soft fork: what passes with a flag
// passes without it. The bits are Core's (Bitcoin Core script/interpreter.h,
// script_verify_flag_name).
type Flags uint64

// The flags. Those of StandardFlags that are not of MandatoryFlags are relay policy, never rules
// for blocks.
const (
	VerifyP2SH                               Flags = 1 << iota // BIP 16
	VerifyStrictEnc                                            // known hash types and keys
	VerifyDERSig                                               // BIP 66
	VerifyLowS                                                 // BIP 146, "LOW_S"
	VerifyNullDummy                                            // BIP 147
	VerifySigPushOnly                                          // BIP 62, rule 2
	VerifyMinimalData                                          // BIP 62, rules 3 and 4
	VerifyDiscourageUpgradableNops                             // OP_NOP1, OP_NOP4 to OP_NOP10
	VerifyCleanStack                                           // BIP 62, rule 6; needs WITNESS
	VerifyCheckLockTimeVerify                                  // BIP 65
	VerifyCheckSequenceVerify                                  // BIP 112
	VerifyWitness                                              // BIPs 141 and 143; needs P2SH
	VerifyDiscourageUpgradableWitnessProgram                   // witness versions without meaning
	VerifyMinimalIf                                            // arguments of OP_IF in witness v0
	VerifyNullFail                                             // BIP 146, "NULLFAIL"
	VerifyWitnessPubKeyType                                    // compressed keys in witness v0
	VerifyConstScriptCode                                      // no OP_CODESEPARATOR in base
	VerifyTaproot                                              // BIPs 341 and 342
	VerifyDiscourageUpgradableTaprootVersion                   // leaf versions without meaning
	VerifyDiscourageOpSuccess                                  // BIP 342's OP_SUCCESSx
	VerifyDiscourageUpgradablePubKeyType                       // keys without meaning in tapscript

	allFlags = 1<<iota - 1
)

// MandatoryFlags are the rules of consensus today: what breaks them is invalid in a block too.
// StandardFlags are what a node asks of transactions that it relays (Bitcoin Core policy/policy.h).
const (
	MandatoryFlags = VerifyP2SH | VerifyDERSig | VerifyNullDummy | VerifyCheckLockTimeVerify |
		VerifyCheckSequenceVerify | VerifyWitness | VerifyTaproot
	StandardFlags = MandatoryFlags | VerifyStrictEnc | VerifyMinimalData |
		VerifyDiscourageUpgradableNops | VerifyCleanStack | VerifyMinimalIf | VerifyNullFail |
		VerifyLowS |
		VerifyDiscourageUpgradableWitnessProgram | VerifyWitnessPubKeyType | VerifyConstScriptCode |
		VerifyDiscourageUpgradableTaprootVersion | VerifyDiscourageOpSuccess |
		VerifyDiscourageUpgradablePubKeyType
)

// flagNames are Core's names in the order of the bits.
var flagNames = [...]string{
	"P2SH", "STRICTENC", "DERSIG", "LOW_S", "NULLDUMMY", "SIGPUSHONLY", "MINIMALDATA",
	"DISCOURAGE_UPGRADABLE_NOPS", "CLEANSTACK", "CHECKLOCKTIMEVERIFY", "CHECKSEQUENCEVERIFY",
	"WITNESS", "DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM", "MINIMALIF", "NULLFAIL",
	"WITNESS_PUBKEYTYPE",
	"CONST_SCRIPTCODE", "TAPROOT", "DISCOURAGE_UPGRADABLE_TAPROOT_VERSION", "DISCOURAGE_OP_SUCCESS",
	"DISCOURAGE_UPGRADABLE_PUBKEYTYPE",
}

// Names returns Core's names of the flags, sorted; bits without a name come last as a number.
func (f Flags) Names() []string {
	var names []string
	for bit, name := range flagNames {
		if f&(1<<bit) != 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if rest := f &^ allFlags; rest != 0 {
		names = append(names, fmt.Sprintf("0x%08x", uint64(rest)))
	}
	return names
}

// String returns the names with commas between.
func (f Flags) String() string { return strings.Join(f.Names(), ",") }

// ParseFlags reads names with commas between. The empty string and NONE are no flags.
func ParseFlags(s string) (Flags, error) {
	var f Flags
	if s == "" || s == "NONE" {
		return 0, nil
	}
	for _, name := range strings.Split(s, ",") {
		bit := slices.Index(flagNames[:], name)
		if bit < 0 {
			return 0, fmt.Errorf("unknown script verification flag %q", name)
		}
		f |= 1 << bit
	}
	return f, nil
}

// Consistent reports whether every flag comes with those it needs: WITNESS with P2SH, since else
// adding P2SH to WITNESS would make invalid scripts valid, and CLEANSTACK with both. Core asserts
// it.
func (f Flags) Consistent() bool {
	if f&VerifyCleanStack != 0 && f&VerifyWitness == 0 {
		return false
	}
	return f&VerifyWitness == 0 || f&VerifyP2SH != 0
}
