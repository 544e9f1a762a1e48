package mempool

import (
	"errors"

	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// Kind says what a refusal means for whoever brought the transaction, and for it.
type Kind uint8

// The kinds are those of Bitcoin Core, consensus/validation.h, TxValidationResult.
const (
	// Consensus: no block can ever have it.
	Consensus Kind = iota + 1
	// InputsNotStandard: what it spends is not standard; another witness would not help.
	InputsNotStandard
	// NotStandard: it is not what is relayed here.
	NotStandard
	// MissingInputs: it spends outputs that are not known, or spent; it may be an orphan.
	MissingInputs
	// PrematureSpend: it may be right later.
	PrematureSpend
	// WitnessMutated: its witness is not standard, which may be somebody else's doing.
	WitnessMutated
	// WitnessStripped: its witness is missing.
	WitnessStripped
	// Conflict: it, or one with the same txid, is in the mempool or the chain.
	Conflict
	// MempoolPolicy: it breaks a limit of the mempool, or does not pay for what it would replace.
	MempoolPolicy
	// Reconsiderable: it pays too little, but together with a child it may pay enough.
	Reconsiderable
)

// Error tells why a transaction was not accepted.
type Error struct {
	Kind   Kind
	Reason string // Core's reject reason, such as "min relay fee not met"
	Debug  string // Core's explanation, or empty

	// Of Reconsiderable, what the transaction pays.
	Paid Price
}

// Error returns reason and explanation as Core joins them.
func (e *Error) Error() string {
	if e.Debug == "" {
		return e.Reason
	}
	return e.Reason + ", " + e.Debug
}

// fromRules turns what package consensus says of a transaction into an *Error; other errors are
// left as they are.
func fromRules(err error) error {
	var e *consensus.Error
	if !errors.As(err, &e) {
		return err
	}
	kind := Consensus
	switch e.Kind {
	case consensus.KindMissingInputs:
		kind = MissingInputs
	case consensus.KindPrematureSpend:
		kind = PrematureSpend
	}
	return &Error{Kind: kind, Reason: e.Reason, Debug: e.Debug}
}
