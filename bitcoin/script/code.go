package script

import "fmt"

// Code is the outcome of a script, in Core's words (Bitcoin Core script/script_error.h).
type Code uint8

// The outcomes.
const (
	OK Code = iota
	ErrUnknownError
	ErrEvalFalse
	ErrOpReturn
	ErrScriptSize
	ErrPushSize
	ErrOpCount
	ErrStackSize
	ErrSigCount
	ErrPubKeyCount
	ErrVerify
	ErrEqualVerify
	ErrCheckMultisigVerify
	ErrCheckSigVerify
	ErrNumEqualVerify
	ErrBadOpcode
	ErrDisabledOpcode
	ErrInvalidStackOperation
	ErrInvalidAltStackOperation
	ErrUnbalancedConditional
	ErrNegativeLockTime
	ErrUnsatisfiedLockTime
	ErrSigHashType
	ErrSigDER
	ErrMinimalData
	ErrSigPushOnly
	ErrSigHighS
	ErrSigNullDummy
	ErrPubKeyType
	ErrCleanStack
	ErrMinimalIf
	ErrSigNullFail
	ErrDiscourageUpgradableNops
	ErrDiscourageUpgradableWitnessProgram
	ErrDiscourageUpgradableTaprootVersion
	ErrDiscourageOpSuccess
	ErrDiscourageUpgradablePubKeyType
	ErrWitnessProgramWrongLength
	ErrWitnessProgramWitnessEmpty
	ErrWitnessProgramMismatch
	ErrWitnessMalleated
	ErrWitnessMalleatedP2SH
	ErrWitnessUnexpected
	ErrWitnessPubKeyType
	ErrSchnorrSigSize
	ErrSchnorrSigHashType
	ErrSchnorrSig
	ErrTaprootWrongControlSize
	ErrTapscriptValidationWeight
	ErrTapscriptCheckMultisig
	ErrTapscriptMinimalIf
	ErrTapscriptEmptyPubKey
	ErrOpCodeSeparator
	ErrSigFindAndDelete

	codes // their number
)

// codeNames holds for each Code Core's identifier, without the SCRIPT_ERR_ it starts with, and
// Core's sentence for people (script/script_error.cpp, ScriptErrorString).
var codeNames = [codes]struct{ name, text string }{
	OK:              {"OK", "No error"},
	ErrUnknownError: {"UNKNOWN_ERROR", "unknown error"},
	ErrEvalFalse: {"EVAL_FALSE",
		"Script evaluated without error but finished with a false/empty top stack element"},
	ErrOpReturn:   {"OP_RETURN", "OP_RETURN was encountered"},
	ErrScriptSize: {"SCRIPT_SIZE", "Script is too big"},
	ErrPushSize:   {"PUSH_SIZE", "Push value size limit exceeded"},
	ErrOpCount:    {"OP_COUNT", "Operation limit exceeded"},
	ErrStackSize:  {"STACK_SIZE", "Stack size limit exceeded"},
	ErrSigCount: {"SIG_COUNT",
		"Signature count negative or greater than pubkey count"},
	ErrPubKeyCount: {"PUBKEY_COUNT",
		"Pubkey count negative or limit exceeded"},
	ErrVerify: {"VERIFY", "Script failed an OP_VERIFY operation"},
	ErrEqualVerify: {"EQUALVERIFY",
		"Script failed an OP_EQUALVERIFY operation"},
	ErrCheckMultisigVerify: {"CHECKMULTISIGVERIFY",
		"Script failed an OP_CHECKMULTISIGVERIFY operation"},
	ErrCheckSigVerify: {"CHECKSIGVERIFY",
		"Script failed an OP_CHECKSIGVERIFY operation"},
	ErrNumEqualVerify: {"NUMEQUALVERIFY",
		"Script failed an OP_NUMEQUALVERIFY operation"},
	ErrBadOpcode: {"BAD_OPCODE", "Opcode missing or not understood"},
	ErrDisabledOpcode: {"DISABLED_OPCODE",
		"Attempted to use a disabled opcode"},
	ErrInvalidStackOperation: {"INVALID_STACK_OPERATION",
		"Operation not valid with the current stack size"},
	ErrInvalidAltStackOperation: {"INVALID_ALTSTACK_OPERATION",
		"Operation not valid with the current altstack size"},
	ErrUnbalancedConditional: {"UNBALANCED_CONDITIONAL", "Invalid OP_IF construction"},
	ErrNegativeLockTime:      {"NEGATIVE_LOCKTIME", "Negative locktime"},
	ErrUnsatisfiedLockTime: {"UNSATISFIED_LOCKTIME",
		"Locktime requirement not satisfied"},
	ErrSigHashType: {"SIG_HASHTYPE",
		"Signature hash type missing or not understood"},
	ErrSigDER:      {"SIG_DER", "Non-canonical DER signature"},
	ErrMinimalData: {"MINIMALDATA", "Data push larger than necessary"},
	ErrSigPushOnly: {"SIG_PUSHONLY",
		"Only push operators allowed in signatures"},
	ErrSigHighS: {"SIG_HIGH_S",
		"Non-canonical signature: S value is unnecessarily high"},
	ErrSigNullDummy: {"SIG_NULLDUMMY",
		"Dummy CHECKMULTISIG argument must be zero"},
	ErrPubKeyType: {"PUBKEYTYPE",
		"Public key is neither compressed or uncompressed"},
	ErrCleanStack: {"CLEANSTACK",
		"Stack size must be exactly one after execution"},
	ErrMinimalIf: {"MINIMALIF", "OP_IF/NOTIF argument must be minimal"},
	ErrSigNullFail: {"SIG_NULLFAIL",
		"Signature must be zero for failed CHECK(MULTI)SIG operation"},
	ErrDiscourageUpgradableNops: {"DISCOURAGE_UPGRADABLE_NOPS",
		"NOPx reserved for soft-fork upgrades"},
	ErrDiscourageUpgradableWitnessProgram: {"DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM",
		"Witness version reserved for soft-fork upgrades"},
	ErrDiscourageUpgradableTaprootVersion: {"DISCOURAGE_UPGRADABLE_TAPROOT_VERSION",
		"Taproot version reserved for soft-fork upgrades"},
	ErrDiscourageOpSuccess: {"DISCOURAGE_OP_SUCCESS",
		"OP_SUCCESSx reserved for soft-fork upgrades"},
	ErrDiscourageUpgradablePubKeyType: {"DISCOURAGE_UPGRADABLE_PUBKEYTYPE",
		"Public key version reserved for soft-fork upgrades"},
	ErrWitnessProgramWrongLength: {"WITNESS_PROGRAM_WRONG_LENGTH",
		"Witness program has incorrect length"},
	ErrWitnessProgramWitnessEmpty: {"WITNESS_PROGRAM_WITNESS_EMPTY",
		"Witness program was passed an empty witness"},
	ErrWitnessProgramMismatch: {"WITNESS_PROGRAM_MISMATCH",
		"Witness program hash mismatch"},
	ErrWitnessMalleated: {"WITNESS_MALLEATED",
		"Witness requires empty scriptSig"},
	ErrWitnessMalleatedP2SH: {"WITNESS_MALLEATED_P2SH",
		"Witness requires only-redeemscript scriptSig"},
	ErrWitnessUnexpected: {"WITNESS_UNEXPECTED",
		"Witness provided for non-witness script"},
	ErrWitnessPubKeyType: {"WITNESS_PUBKEYTYPE",
		"Using non-compressed keys in segwit"},
	ErrSchnorrSigSize: {"SCHNORR_SIG_SIZE", "Invalid Schnorr signature size"},
	ErrSchnorrSigHashType: {"SCHNORR_SIG_HASHTYPE",
		"Invalid Schnorr signature hash type"},
	ErrSchnorrSig: {"SCHNORR_SIG", "Invalid Schnorr signature"},
	ErrTaprootWrongControlSize: {"TAPROOT_WRONG_CONTROL_SIZE",
		"Invalid Taproot control block size"},
	ErrTapscriptValidationWeight: {"TAPSCRIPT_VALIDATION_WEIGHT",
		"Too much signature validation relative to witness weight"},
	ErrTapscriptCheckMultisig: {"TAPSCRIPT_CHECKMULTISIG",
		"OP_CHECKMULTISIG(VERIFY) is not available in tapscript"},
	ErrTapscriptMinimalIf: {"TAPSCRIPT_MINIMALIF",
		"OP_IF/NOTIF argument must be minimal in tapscript"},
	ErrTapscriptEmptyPubKey: {"TAPSCRIPT_EMPTY_PUBKEY",
		"Empty public key in tapscript"},
	ErrOpCodeSeparator: {"OP_CODESEPARATOR",
		"Using OP_CODESEPARATOR in non-witness script"},
	ErrSigFindAndDelete: {"SIG_FINDANDDELETE",
		"Signature is found in scriptCode"},
}

// Name returns Core's identifier, as SCRIPT_ERR_EVAL_FALSE.
func (c Code) Name() string {
	if c >= codes {
		return "SCRIPT_ERR_UNKNOWN_ERROR"
	}
	return "SCRIPT_ERR_" + codeNames[c].name
}

// String returns Core's sentence, which stands in reject reasons after "script-verify-flag-failed".
func (c Code) String() string {
	if c >= codes {
		return "unknown error"
	}
	return codeNames[c].text
}

// Error says which input of a transaction failed and why.
type Error struct {
	Code  Code
	Input int
}

// Error returns the input's number and Core's sentence.
func (e *Error) Error() string { return fmt.Sprintf("input %d: %v", e.Input, e.Code) }
