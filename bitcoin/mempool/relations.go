package mempool

import (
	"fmt"
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
)

// maxReplacedClusters is how many clusters a replacement may conflict with (Bitcoin Core
// policy/rbf.h, MAX_REPLACEMENT_CANDIDATES).
const maxReplacedClusters = 100

// plan is what becomes of the pool when transactions enter.
type plan struct {
	entering []*Entry   // parents before children
	edges    []edge     // to those that are here already: only from a transaction of a block
	leaving  []*Entry   // replaced, with their descendants
	old      []*cluster // that go
	fresh    []*cluster // that come in their place; see arrange
}

// newPlan begins a plan: which clusters are touched.
func (p *Pool) newPlan(entering, leaving []*Entry, edges []edge) plan {
	pl := plan{entering: entering, edges: edges, leaving: leaving}
	p.epoch++
	pl.old = p.addClusters(nil, leaving)
	for _, e := range entering {
		pl.old = p.addClusters(pl.old, e.parents)
	}
	for _, x := range edges {
		if c := x.child.cluster; c != nil && c.seen != p.epoch {
			c.seen = p.epoch
			pl.old = append(pl.old, c)
		}
	}
	return pl
}

// arrange works out which clusters come.
func (pl *plan) arrange() {
	if pl.fresh != nil {
		return
	}
	for _, e := range pl.leaving {
		e.slot = gone
	}
	n := len(pl.entering)
	for _, c := range pl.old {
		n += len(c.txs)
	}
	members := make([]*Entry, 0, n)
	for _, c := range pl.old {
		members = remaining(members, c.txs)
	}
	pl.fresh = arrange(append(members, pl.entering...), pl.edges)
	unnumber(pl.leaving)
}

// tooLarge reports whether a plan makes a cluster that is larger than allowed. Where nothing leaves and
// one transaction enters, all that it touches becomes one, so nothing needs to be arranged yet.
func (pl *plan) tooLarge(p *Pool) bool {
	if len(pl.leaving) == 0 && len(pl.entering) == 1 {
		count, weight := 1, pl.entering[0].Weight
		for _, c := range pl.old {
			count += len(c.txs)
			weight += c.weight
		}
		return p.exceeds(count, weight)
	}
	pl.arrange()
	return slices.ContainsFunc(pl.fresh, p.tooLarge)
}

func (p *Pool) tooLarge(c *cluster) bool { return p.exceeds(len(c.txs), c.weight) }

func (p *Pool) exceeds(count int, weight int64) bool {
	return count > p.cfg.MaxClusterCount ||
		weight > int64(p.cfg.MaxClusterVSize)*bitcoin.WitnessScale
}

// improves reports whether miners earn strictly better by the plan.
func (pl *plan) improves() bool {
	pl.arrange()
	return improves(diagram(pl.fresh), diagram(pl.old))
}

// checkRelations judges what a transaction, for which Attempt.conflicts are known, does to others in
// the pool, and plans it.
func (p *Pool) checkRelations(a *Attempt) error {
	e := a.entry
	if err := p.checkReplacement(a); err != nil {
		return err
	}
	if a.opts.exceedsMaxRate(e) {
		return errMaxRate()
	}
	if !p.cfg.AcceptNonStandard {
		return p.checkDustSpent(e)
	}
	return nil
}

func errMaxRate() error { return &Error{Kind: MempoolPolicy, Reason: "max feerate exceeded"} }

func (o *Options) exceedsMaxRate(e *Entry) bool {
	return o.MaxRate > 0 &&
		cmpProducts(int64(e.ModifiedFee()), 1000, int64(o.MaxRate), int64(e.VSize())) > 0
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
func (p *Pool) checkReplacement(a *Attempt) error {
	e, suffix := a.entry, ""
	if a.sibling {
		suffix = " (including sibling eviction)"
	}
	if debug := p.tooManyConflicts(e, a.conflicts); debug != "" {
		return &Error{Kind: MempoolPolicy, Reason: "too many potential replacements" + suffix, Debug: debug}
	}
	a.plan = p.newPlan([]*Entry{e}, p.descendants(a.conflicts...), p.edges(e, a.opts))
	if len(a.conflicts) > 0 {
		if debug := p.paysFor(e.TxID, e.price(), a.plan.leaving); debug != "" {
			return &Error{Kind: Reconsiderable, Reason: "insufficient fee" + suffix, Debug: debug,
				Paid: e.price()}
		}
	}
	if !a.opts.FromBlock && a.plan.tooLarge(p) {
		return &Error{Kind: MempoolPolicy, Reason: "too-large-cluster"}
	}
	if len(a.conflicts) == 0 {
		return nil
	}
	if !a.plan.improves() {
		return &Error{Kind: Reconsiderable, Reason: "replacement-failed", Paid: e.price(),
			Debug: "insufficient feerate: does not improve feerate diagram"}
	}
	for _, ancestor := range p.closure(e.parents, (*Entry).Parents) {
		if slices.Contains(a.conflicts, ancestor) {
			return &Error{Kind: Consensus, Reason: "bad-txns-spends-conflicting-tx",
				Debug: fmt.Sprintf("%v spends conflicting transaction %v", e.TxID, ancestor.TxID)}
		}
	}
	return nil
}

func (p *Pool) tooManyConflicts(e *Entry, conflicts []*Entry) (debug string) {
	if n := len(p.clustersOf(conflicts)); n > maxReplacedClusters {
		return fmt.Sprintf("rejecting replacement %v; too many conflicting clusters (%d > %d)",
			e.TxID, n, maxReplacedClusters)
	}
	return ""
}

// paysFor returns what is wrong if transactions pay less than those that leave for them, or not
// enough more for their own relay (BIP 125, rules 3 and 4).
func (p *Pool) paysFor(txid bitcoin.Hash, paid Price, leaving []*Entry) (debug string) {
	var old bitcoin.Amount
	for _, l := range leaving {
		old += l.ModifiedFee()
	}
	if paid.Fee < old {
		return fmt.Sprintf("rejecting replacement %v, less fees than conflicting txs; %s < %s",
			txid, paid.Fee.Money(), old.Money())
	}
	if relay := p.cfg.IncrementalFee.Fee(paid.vsize()); paid.Fee-old < relay {
		return fmt.Sprintf("rejecting replacement %v, not enough additional fees to relay; %s < %s",
			txid, (paid.Fee - old).Money(), relay.Money())
	}
	return ""
}

// edges returns the links to transactions of the pool that spend outputs of one which enters. Only
// one that was in a block can have any.
func (p *Pool) edges(e *Entry, opts Options) (edges []edge) {
	if !opts.FromBlock {
		return nil
	}
	for _, child := range p.children(e.TxID, len(e.Tx.Out)) {
		edges = append(edges, edge{e, child})
	}
	return edges
}

// children returns the transactions of the pool that spend outputs of a transaction.
func (p *Pool) children(txid bitcoin.Hash, outputs int) (children []*Entry) {
	for i := range outputs {
		child := p.spends[bitcoin.OutPoint{TxID: txid, Index: uint32(i)}]
		if child != nil && !slices.Contains(children, child) {
			children = append(children, child)
		}
	}
	return children
}

// checkDustSpent wants a transaction to spend all dust of its parents: nobody else will. inside are
// parents that come with it (Bitcoin Core policy/ephemeral_policy.cpp).
func (p *Pool) checkDustSpent(e *Entry, inside ...*Entry) error {
	for _, list := range [...][]*Entry{e.parents, inside} {
		for _, parent := range list {
			for i := range parent.Tx.Out {
				out := bitcoin.OutPoint{TxID: parent.TxID, Index: uint32(i)}
				if p.isDust(&parent.Tx.Out[i]) && !spendsOutput(e.Tx, out) {
					return &Error{Kind: MempoolPolicy, Reason: "missing-ephemeral-spends",
						Debug: fmt.Sprintf("tx %v (wtxid=%v) did not spend parent's ephemeral dust",
							e.TxID, e.WTxID)}
				}
			}
		}
	}
	return nil
}

func spendsOutput(tx *bitcoin.Tx, out bitcoin.OutPoint) bool {
	return slices.ContainsFunc(tx.In, func(in bitcoin.TxIn) bool { return in.PrevOut == out })
}
