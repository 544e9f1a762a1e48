package mempool

import (
	"fmt"
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
)

// Limits of transactions of version 3, which stay small and simple so that they can always be
// replaced (BIP 431, TRUC).
const (
	trucVersion    = 3
	trucMaxSize    = 10_000
	trucMaxChild   = 1_000
	trucGeneration = 2 // transactions in a row
)

// checkTRUC judges the family of a transaction by its version (Bitcoin Core policy/truc_policy.cpp,
// SingleTRUCChecks). If its parent has a child already, that sibling may be replaced by it, where
// evict allows it.
func (p *Pool) checkTRUC(e *Entry, conflicts []*Entry, evict bool) (sibling *Entry, err error) {
	debug := trucInheritance(e, e.parents)
	if debug == "" && e.Tx.Version == trucVersion {
		debug = trucSize(e)
	}
	if debug == "" && e.Tx.Version == trucVersion && len(e.parents) == 1 {
		sibling, debug = p.trucSibling(e, conflicts)
	}
	if debug != "" && (sibling == nil || !evict) {
		return nil, errTRUC(debug)
	}
	return sibling, nil
}

func errTRUC(debug string) *Error {
	return &Error{Kind: MempoolPolicy, Reason: "TRUC-violation", Debug: debug}
}

func trucInheritance(e *Entry, parents []*Entry) (debug string) {
	for _, parent := range parents {
		child, from := "non-version=3", "version=3"
		if e.Tx.Version == trucVersion {
			child, from = from, child
		}
		if (e.Tx.Version == trucVersion) != (parent.Tx.Version == trucVersion) {
			return fmt.Sprintf("%s tx %v (wtxid=%v) cannot spend from %s tx %v (wtxid=%v)",
				child, e.TxID, e.WTxID, from, parent.TxID, parent.WTxID)
		}
	}
	return ""
}

func trucSize(e *Entry) (debug string) {
	switch size := e.VSize(); {
	case size > trucMaxSize:
		return tooBig(e, "version=3 tx", trucMaxSize)
	case len(e.parents)+1 > trucGeneration,
		len(e.parents) == 1 && len(e.parents[0].parents) > 0:
		return tooManyAncestors(e)
	case len(e.parents) == 1 && size > trucMaxChild:
		return tooBig(e, "version=3 child tx", trucMaxChild)
	}
	return ""
}

// trucSibling looks for another child of the only parent, which is one too many unless it is
// replaced anyway. The debug text is there even if the sibling could be evicted.
func (p *Pool) trucSibling(e *Entry, conflicts []*Entry) (sibling *Entry, debug string) {
	parent := e.parents[0]
	others := p.descendants(parent.children...)
	if len(others) == 0 || slices.ContainsFunc(others, func(other *Entry) bool {
		return slices.Contains(conflicts, other)
	}) {
		return nil, ""
	}
	// More than one child, or a grandchild, is there only after a reorganisation.
	if len(others) == 1 && len(others[0].parents) == 1 && len(parent.parents) == 0 {
		sibling = others[0]
	}
	return sibling, tooManyDescendants(parent)
}

// checkPackageTRUC judges the family of a transaction among those that come with it; what it would do
// to the mempool has been judged by checkTRUC (Bitcoin Core policy/truc_policy.cpp,
// PackageTRUCChecks).
func checkPackageTRUC(attempts []*Attempt, at int) (debug string) {
	a := attempts[at]
	e := a.entry
	var inside []*Entry
	for _, other := range attempts[:at] {
		if spendsFrom(e.Tx, other.entry.TxID) {
			inside = append(inside, other.entry)
		}
	}
	if e.Tx.Version != trucVersion {
		return trucInheritance(e, inside)
	}
	parents := append(slices.Clip(e.parents), inside...)
	switch size := e.VSize(); {
	case len(parents)+1 > trucGeneration,
		len(e.parents) > 0 && len(e.parents[0].parents)+len(inside)+2 > trucGeneration:
		return tooManyAncestors(e)
	case len(parents) == 0:
		return ""
	case size > trucMaxChild:
		return tooBig(e, "version=3 child tx", trucMaxChild)
	}
	if debug := trucInheritance(e, parents); debug != "" {
		return debug
	}
	parent := parents[0]
	for i, other := range attempts {
		if i == at {
			continue
		}
		for j := range other.tx.In {
			switch other.tx.In[j].PrevOut.TxID {
			case parent.TxID:
				return tooManyDescendants(parent)
			case e.TxID:
				return tooManyAncestors(other.entry)
			}
		}
	}
	if len(parent.children) > 0 {
		return tooManyDescendants(parent)
	}
	return ""
}

func spendsFrom(tx *bitcoin.Tx, txid bitcoin.Hash) bool {
	return slices.ContainsFunc(tx.In, func(in bitcoin.TxIn) bool { return in.PrevOut.TxID == txid })
}

func tooBig(e *Entry, what string, limit int) string {
	return fmt.Sprintf("%s %v (wtxid=%v) is too big: %d > %d virtual bytes",
		what, e.TxID, e.WTxID, e.VSize(), limit)
}

func tooManyAncestors(e *Entry) string {
	return fmt.Sprintf("tx %v (wtxid=%v) would have too many ancestors", e.TxID, e.WTxID)
}

func tooManyDescendants(e *Entry) string {
	return fmt.Sprintf("tx %v (wtxid=%v) would exceed descendant count limit", e.TxID, e.WTxID)
}
