package consensus

import "fmt"

// Kind says what follows from an Error: for whom brought the block, and for its header.
type Kind uint8

// The kinds are those of Bitcoin Core, consensus/validation.h.
const (
	// KindConsensus: the block or transaction breaks a rule and always will.
	KindConsensus Kind = iota + 1
	// KindInvalidHeader: the header breaks a rule; the block need not be fetched.
	KindInvalidHeader
	// KindMutated: the transactions are not those that the header commits to. The same header may
	// come with the right ones, so it must not be marked as invalid.
	KindMutated
	// KindTimeFuture: the time of the header lies too far ahead; later the same header may be
	// right.
	KindTimeFuture
	// KindMissingPrev: the block does not follow the one it was judged against, or that is not
	// known.
	KindMissingPrev
	// KindMissingInputs: a transaction spends an output that does not exist or is spent. Inside a
	// block that is KindConsensus.
	KindMissingInputs
	// KindPrematureSpend: a transaction is right, but not yet. Inside a block that is
	// KindConsensus.
	KindPrematureSpend

	// The last ones are for who keeps the chain; nothing here returns them.

	// KindInvalidPrev: an ancestor of the block is not valid.
	KindInvalidPrev
	// KindCachedInvalid: the block was found to be not valid before.
	KindCachedInvalid
	// KindLowWork: the header may be on a chain with too little work to be kept.
	KindLowWork
)

// Error tells why a header, block or transaction is not valid.
type Error struct {
	Kind   Kind
	Reason string // Core's reject reason, such as "bad-cb-amount"
	Debug  string // Core's explanation, or empty
}

// Error returns reason and explanation as Core joins them in its log and its RPC errors.
func (e *Error) Error() string {
	if e.Debug == "" {
		return e.Reason
	}
	return e.Reason + ", " + e.Debug
}

// invalid returns an Error of KindConsensus; the explanation is a format.
func invalid(reason, debug string, args ...any) error {
	return &Error{Kind: KindConsensus, Reason: reason, Debug: fmt.Sprintf(debug, args...)}
}
