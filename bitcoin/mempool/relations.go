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

// maxReplacedClusters is how many clusters a replacement may conflict with (Bitcoin Core
// policy/rbf.h, MAX_REPLACEMENT_CANDIDATES).
const maxReplacedClusters = 100

// plan is what becomes of the pool when a transaction enters.
type plan struct {
	children []*Entry   // that are here already; only a transaction from a block has any
	leaving  []*Entry   // replaced, with their descendants
	old      []*cluster // that go
	fresh    []*cluster // that come in their place
}

// checkRelations judges what a transaction does to others in the pool, and plans it.
func (p *Pool) checkRelations(a *Attempt) error {
	e := a.entry
	conflicts := p.conflicts(a.tx)
	suffix := ""
	if !a.opts.FromBlock {
		sibling, err := p.checkTRUC(e, conflicts)
		if err != nil {
			return err
		}
		if sibling != nil {
			conflicts = append(conflicts, sibling)
			suffix = " (including sibling eviction)"
		}
	}
	if err := p.checkReplacement(a, conflicts, suffix); err != nil {
		return err
	}
	if a.opts.MaxRate > 0 && cmpProducts(int64(e.ModifiedFee()), 1000,
		int64(a.opts.MaxRate), int64(e.VSize())) > 0 {
		return &Error{Kind: MempoolPolicy, Reason: "max feerate exceeded"}
	}
	if !p.cfg.AcceptNonStandard {
		return p.checkDustSpent(e)
	}
	return nil
}

// conflicts returns the transactions that spend what a transaction spends.
func (p *Pool) conflicts(tx *bitcoin.Tx) (conflicts []*Entry) {
	for i := range tx.In {
		other := p.spends[tx.In[i].PrevOut]
		if other != nil && !slices.Contains(conflicts, other) {
			conflicts = append(conflicts, other)
		}
	}
	return conflicts
}

// checkReplacement judges whether a transaction pays for those that it conflicts with, and plans
// the clusters (Bitcoin Core validation.cpp, ReplacementChecks; policy/rbf.cpp).
func (p *Pool) checkReplacement(a *Attempt, conflicts []*Entry, suffix string) error {
	e := a.entry
	if n := len(clustersOf(conflicts)); n > maxReplacedClusters {
		return &Error{Kind: MempoolPolicy, Reason: "too many potential replacements" + suffix,
			Debug: fmt.Sprintf("rejecting replacement %v; too many conflicting clusters (%d > %d)",
				e.TxID, n, maxReplacedClusters)}
	}
	a.plan = plan{leaving: descendants(conflicts...), children: p.children(e.Tx)}
	if len(conflicts) > 0 {
		if debug := p.paysFor(e, a.plan.leaving); debug != "" {
			return &Error{Kind: Reconsiderable, Reason: "insufficient fee" + suffix, Debug: debug,
				Paid: e.price()}
		}
	}
	p.planClusters(&a.plan, e)
	if !a.opts.FromBlock && !p.withinLimits(a.plan.fresh) {
		return &Error{Kind: MempoolPolicy, Reason: "too-large-cluster"}
	}
	if len(conflicts) > 0 && !improves(diagram(a.plan.fresh), diagram(a.plan.old)) {
		return &Error{Kind: Reconsiderable, Reason: "replacement-failed", Paid: e.price(),
			Debug: "insufficient feerate: does not improve feerate diagram"}
	}
	for _, ancestor := range closure(e.parents, func(e *Entry) []*Entry { return e.parents }) {
		if slices.Contains(conflicts, ancestor) {
			return &Error{Kind: Consensus, Reason: "bad-txns-spends-conflicting-tx",
				Debug: fmt.Sprintf("%v spends conflicting transaction %v", e.TxID, ancestor.TxID)}
		}
	}
	return nil
}

// paysFor returns what is wrong if a transaction pays less than those that leave for it, or not
// enough more for its own relay (BIP 125, rules 3 and 4).
func (p *Pool) paysFor(e *Entry, leaving []*Entry) (debug string) {
	var old bitcoin.Amount
	for _, l := range leaving {
		old += l.ModifiedFee()
	}
	fee := e.ModifiedFee()
	if fee < old {
		return fmt.Sprintf("rejecting replacement %v, less fees than conflicting txs; %s < %s",
			e.TxID, fee.Money(), old.Money())
	}
	if relay := p.cfg.IncrementalFee.Fee(e.VSize()); fee-old < relay {
		return fmt.Sprintf("rejecting replacement %v, not enough additional fees to relay; %s < %s",
			e.TxID, (fee - old).Money(), relay.Money())
	}
	return ""
}

// planClusters works out which clusters go and which come if an entry enters.
func (p *Pool) planClusters(pl *plan, e *Entry) {
	pl.old = clustersOf(slices.Concat(pl.leaving, e.parents, pl.children))
	leaving := make(map[*Entry]bool, len(pl.leaving))
	for _, l := range pl.leaving {
		leaving[l] = true
	}
	var members []*Entry
	for _, c := range pl.old {
		for _, member := range c.txs {
			if !leaving[member] {
				members = append(members, member)
			}
		}
	}
	pl.fresh = order(append(members, e), relations{e, pl.children})
}

// children returns the transactions of the pool that spend outputs of a transaction.
func (p *Pool) children(tx *bitcoin.Tx) (children []*Entry) {
	id := tx.TxID()
	for i := range tx.Out {
		child := p.spends[bitcoin.OutPoint{TxID: id, Index: uint32(i)}]
		if child != nil && !slices.Contains(children, child) {
			children = append(children, child)
		}
	}
	return children
}

func clustersOf(entries []*Entry) (clusters []*cluster) {
	seen := make(map[*cluster]bool)
	for _, e := range entries {
		if !seen[e.cluster] {
			seen[e.cluster] = true
			clusters = append(clusters, e.cluster)
		}
	}
	return clusters
}

func (p *Pool) withinLimits(clusters []*cluster) bool {
	for _, c := range clusters {
		if p.tooLarge(c) {
			return false
		}
	}
	return true
}

func (p *Pool) tooLarge(c *cluster) bool {
	return len(c.txs) > p.cfg.MaxClusterCount ||
		c.weight() > int64(p.cfg.MaxClusterVSize)*bitcoin.WitnessScale
}

// checkDustSpent wants a transaction to spend all dust of its parents in the pool: nobody else will
// (Bitcoin Core policy/ephemeral_policy.cpp).
func (p *Pool) checkDustSpent(e *Entry) error {
	for _, parent := range e.parents {
		for i := range parent.Tx.Out {
			out := bitcoin.OutPoint{TxID: parent.TxID, Index: uint32(i)}
			if p.isDust(&parent.Tx.Out[i]) && !spendsOutput(e.Tx, out) {
				return &Error{Kind: MempoolPolicy, Reason: "missing-ephemeral-spends",
					Debug: fmt.Sprintf("tx %v (wtxid=%v) did not spend parent's ephemeral dust",
						e.TxID, e.WTxID)}
			}
		}
	}
	return nil
}

func spendsOutput(tx *bitcoin.Tx, out bitcoin.OutPoint) bool {
	return slices.ContainsFunc(tx.In, func(in bitcoin.TxIn) bool { return in.PrevOut == out })
}

// checkTRUC judges the family of a transaction by its version (Bitcoin Core policy/truc_policy.cpp,
// SingleTRUCChecks). If its parent has a child already, that sibling may be replaced by it.
func (p *Pool) checkTRUC(e *Entry, conflicts []*Entry) (sibling *Entry, err error) {
	debug := trucInheritance(e)
	if debug == "" && e.Tx.Version == trucVersion {
		debug = trucSize(e)
	}
	if debug == "" && e.Tx.Version == trucVersion && len(e.parents) == 1 {
		sibling, debug = trucSibling(e, conflicts)
	}
	if debug != "" && sibling == nil {
		return nil, &Error{Kind: MempoolPolicy, Reason: "TRUC-violation", Debug: debug}
	}
	return sibling, nil
}

func trucInheritance(e *Entry) (debug string) {
	for _, parent := range e.parents {
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
		return fmt.Sprintf("version=3 tx %v (wtxid=%v) is too big: %d > %d virtual bytes",
			e.TxID, e.WTxID, size, trucMaxSize)
	case len(e.parents)+1 > trucGeneration,
		len(e.parents) == 1 && len(e.parents[0].parents) > 0:
		return fmt.Sprintf("tx %v (wtxid=%v) would have too many ancestors", e.TxID, e.WTxID)
	case len(e.parents) == 1 && size > trucMaxChild:
		return fmt.Sprintf("version=3 child tx %v (wtxid=%v) is too big: %d > %d virtual bytes",
			e.TxID, e.WTxID, size, trucMaxChild)
	}
	return ""
}

// trucSibling looks for another child of the only parent, which is one too many unless it is
// replaced anyway. The debug text is there even if the sibling could be evicted.
func trucSibling(e *Entry, conflicts []*Entry) (sibling *Entry, debug string) {
	parent := e.parents[0]
	others := descendants(parent.children...)
	if len(others) == 0 || slices.ContainsFunc(others, func(other *Entry) bool {
		return slices.Contains(conflicts, other)
	}) {
		return nil, ""
	}
	// More than one child, or a grandchild, is there only after a reorganisation.
	if len(others) == 1 && len(others[0].parents) == 1 && len(parent.parents) == 0 {
		sibling = others[0]
	}
	return sibling, fmt.Sprintf("tx %v (wtxid=%v) would exceed descendant count limit",
		parent.TxID, parent.WTxID)
}
