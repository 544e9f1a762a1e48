package mempool

import (
	"context"
	"fmt"
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// Limits of packages (Bitcoin Core policy/packages.h).
const (
	// MaxPackageCount is the largest number of transactions in a package.
	MaxPackageCount = 25
	// MaxPackageWeight is their largest weight.
	MaxPackageWeight = 404_000
)

// PackageError tells why a package was not accepted.
type PackageError struct {
	Reason string // Core's, such as "package-not-sorted", or "transaction failed"
	Debug  string
	// Tx is the transaction whose fault it is, and Err what is wrong with it; Err is nil where the
	// package as a whole breaks policy.
	Tx  *bitcoin.Tx
	Err *Error
	// Includes says that Err is about what all transactions pay together.
	Includes bool
}

// Error returns reason and explanation as Core joins them.
func (e *PackageError) Error() string {
	if e.Debug == "" {
		return e.Reason
	}
	return e.Reason + ", " + e.Debug
}

func badPackage(reason string) error { return &PackageError{Reason: reason} }

// CheckPackage judges the form of a package: few and small enough, no two the same or spending the
// same, parents before children (Bitcoin Core policy/packages.cpp, IsWellFormedPackage). The error is
// a *PackageError.
func CheckPackage(txs []*bitcoin.Tx) error {
	if len(txs) > MaxPackageCount {
		return badPackage("package-too-many-transactions")
	}
	weight, later := 0, make(map[bitcoin.Hash]bool, len(txs))
	for _, tx := range txs {
		weight += tx.Weight()
		later[tx.TxID()] = true
	}
	switch {
	case len(txs) > 1 && weight > MaxPackageWeight:
		return badPackage("package-too-large")
	case len(later) != len(txs):
		return badPackage("package-contains-duplicates")
	}
	spent := make(map[bitcoin.OutPoint]bool)
	for _, tx := range txs {
		for i := range tx.In {
			if later[tx.In[i].PrevOut.TxID] {
				return badPackage("package-not-sorted")
			}
		}
		delete(later, tx.TxID())
	}
	for _, tx := range txs {
		if len(tx.In) == 0 {
			return badPackage("conflict-in-package")
		}
		for i := range tx.In {
			if spent[tx.In[i].PrevOut] {
				return badPackage("conflict-in-package")
			}
		}
		for i := range tx.In { // a transaction that spends an output twice is refused by itself
			spent[tx.In[i].PrevOut] = true
		}
	}
	return nil
}

// IsChildWithParents reports whether the last transaction of a package spends from all others.
func IsChildWithParents(txs []*bitcoin.Tx) bool {
	if len(txs) < 2 {
		return false
	}
	child := txs[len(txs)-1]
	return !slices.ContainsFunc(txs[:len(txs)-1], func(tx *bitcoin.Tx) bool {
		return !spendsFrom(child, tx.TxID())
	})
}

// IsChildWithParentsTree reports whether, besides, no parent spends from another.
func IsChildWithParentsTree(txs []*bitcoin.Tx) bool {
	if !IsChildWithParents(txs) {
		return false
	}
	parents := txs[:len(txs)-1]
	for _, tx := range parents {
		for _, other := range parents {
			if spendsFrom(other, tx.TxID()) {
				return false
			}
		}
	}
	return true
}

// PackageAttempt is a package on its way in: transactions that are judged together and enter together.
type PackageAttempt struct {
	txs      []*bitcoin.Tx
	opts     Options
	attempts []*Attempt
	plan     plan
	paid     Price // of all, by their virtual sizes
}

// BeginPackage judges transactions, none of which is in the pool, by everything but their scripts
// (Bitcoin Core validation.cpp, AcceptMultipleTransactionsInternal). With NoReplacement each must pay
// enough by itself and none may conflict with the pool; without, it is what all pay together that
// counts, for each of them. The error is a *PackageError, unless the View failed.
func (p *Pool) BeginPackage(txs []*bitcoin.Tx, tip *Tip, opts Options) (*PackageAttempt, error) {
	if err := CheckPackage(txs); err != nil {
		return nil, err
	}
	opts.inPackage = !opts.NoReplacement
	pa := &PackageAttempt{txs: txs, opts: opts}
	for _, tx := range txs {
		if err := p.checkForm(tx, tip); err != nil {
			return nil, failed(tx, err)
		}
		// The rest of the checks goes on before the next transaction is looked at, as in Core.
		if err := p.join(pa, tx, tip); err != nil {
			return nil, err
		}
	}
	return pa, p.checkTogether(pa, tip)
}

// join judges one transaction by what comes before it in the package.
func (p *Pool) join(pa *PackageAttempt, tx *bitcoin.Tx, tip *Tip) error {
	a := &Attempt{tx: tx, opts: pa.opts, with: pa.attempts}
	if err := p.checkContext(a, tip); err != nil {
		return failed(tx, err)
	}
	if a.opts.exceedsMaxRate(a.entry) {
		return failed(tx, errMaxRate())
	}
	pa.attempts = append(pa.attempts, a)
	return nil
}

// failed says that a transaction failed its package, if that is what the error means.
func failed(tx *bitcoin.Tx, err error) error {
	if e, ok := err.(*Error); ok {
		return &PackageError{Reason: "transaction failed", Tx: tx, Err: e}
	}
	return err
}

// checkTogether judges the package as a whole, and plans it.
func (p *Pool) checkTogether(pa *PackageAttempt, tip *Tip) error {
	pa.paid = Price{}
	for i, a := range pa.attempts {
		if debug := checkPackageTRUC(pa.attempts, i); debug != "" {
			return &PackageError{Reason: "TRUC-violation", Debug: debug}
		}
		size := int64(a.entry.VSize()) * bitcoin.WitnessScale
		pa.paid = pa.paid.add(Price{a.entry.ModifiedFee(), size})
	}
	if pa.opts.inPackage {
		if err := p.checkRate(pa.paid, tip); err != nil {
			e := failed(pa.txs[len(pa.txs)-1], err).(*PackageError)
			e.Includes = true
			return e
		}
	}
	if err := p.planPackage(pa); err != nil {
		return err
	}
	if p.cfg.AcceptNonStandard {
		return nil
	}
	for i, a := range pa.attempts {
		if err := p.checkDustSpent(a.entry, a.parentsInside()...); err != nil {
			return &PackageError{Reason: "unspent-dust", Tx: pa.txs[i], Err: err.(*Error)}
		}
	}
	return nil
}

// parentsInside returns the entries of the package that a transaction spends from.
func (a *Attempt) parentsInside() (parents []*Entry) {
	for _, other := range a.with {
		if spendsFrom(a.tx, other.entry.TxID) {
			parents = append(parents, other.entry)
		}
	}
	return parents
}

// planPackage plans how the package enters, and judges whether it pays for what it replaces.
func (p *Pool) planPackage(pa *PackageAttempt) error {
	var conflicts, entering []*Entry
	var edges []edge
	ancestors := false
	for _, a := range pa.attempts {
		for _, c := range a.conflicts {
			if !slices.Contains(conflicts, c) {
				conflicts = append(conflicts, c)
			}
		}
		ancestors = ancestors || len(a.entry.parents) > 0
		entering = append(entering, a.entry)
		for _, parent := range a.parentsInside() {
			edges = append(edges, edge{parent, a.entry})
		}
	}
	pa.plan = p.newPlan(entering, p.descendants(conflicts...), edges)
	if len(conflicts) > 0 {
		if err := p.checkPackageReplacement(pa, conflicts, ancestors); err != nil {
			return err
		}
	}
	if pa.plan.tooLarge(p) {
		return badPackage("too-large-cluster")
	}
	return nil
}

// checkPackageReplacement judges whether one parent and one child pay together for what they replace
// (Bitcoin Core validation.cpp, PackageMempoolChecks).
func (p *Pool) checkPackageReplacement(pa *PackageAttempt, conflicts []*Entry, ancestors bool) error {
	const failed = "package RBF failed: "
	switch {
	case len(pa.txs) != 2 || !IsChildWithParents(pa.txs):
		return badPackage(failed + "package must be 1-parent-1-child")
	case ancestors:
		return badPackage(failed + "new transaction cannot have mempool ancestors")
	}
	parent, child := pa.attempts[0].entry, pa.attempts[1].entry
	if debug := p.tooManyConflicts(child, conflicts); debug != "" {
		return &PackageError{Reason: failed + "too many potential replacements", Debug: debug}
	}
	if debug := p.paysFor(child.TxID, pa.paid, pa.plan.leaving); debug != "" {
		return &PackageError{Reason: failed + "insufficient anti-DoS fees", Debug: debug}
	}
	own := Price{parent.ModifiedFee(), int64(parent.VSize()) * bitcoin.WitnessScale}
	if pa.paid.Cmp(own) <= 0 {
		return &PackageError{Reason: failed + "package feerate is less than or equal to parent feerate",
			Debug: fmt.Sprintf("package feerate %v <= parent feerate is %v", pa.paid.Rate(), own.Rate())}
	}
	if pa.plan.tooLarge(p) {
		return badPackage("too-large-cluster")
	}
	if !pa.plan.improves() {
		return badPackage(failed + "insufficient feerate: does not improve feerate diagram")
	}
	return nil
}

// RunScripts runs the scripts of all transactions. It touches nothing of the pool, so it needs no
// lock.
func (pa *PackageAttempt) RunScripts(ctx context.Context, runner consensus.ScriptRunner) error {
	for i, a := range pa.attempts {
		if err := a.RunScripts(ctx, runner); err != nil {
			return failed(pa.txs[i], err)
		}
	}
	return nil
}

// CommitPackage takes the transactions in, all or none. See Commit.
func (p *Pool) CommitPackage(pa *PackageAttempt, tip *Tip) error {
	first := pa.attempts[0]
	if first.changes != p.changes || first.tip != tip.State.Hash {
		for i, a := range pa.attempts {
			if err := p.checkContext(a, tip); err != nil {
				return failed(pa.txs[i], err)
			}
		}
		if err := p.checkTogether(pa, tip); err != nil {
			return err
		}
	}
	for _, a := range pa.attempts {
		if a.passed != a.flags {
			return ErrRulesChanged
		}
		a.entry.verified = a.passed
	}
	pa.plan.arrange()
	p.insert(&pa.plan)
	if !pa.opts.Untrimmed {
		p.Limit(tip.Now)
	}
	return nil
}

// Outcome tells what a transaction of the package pays: by itself where NoReplacement was asked for,
// else by what all pay together.
type Outcome struct {
	Entry    *Entry
	Rate     FeeRate
	Includes []bitcoin.Hash // wtxids of the transactions whose fees and sizes make up Rate
}

// Outcomes returns one Outcome for each transaction.
func (pa *PackageAttempt) Outcomes() []Outcome {
	list := make([]Outcome, len(pa.attempts))
	for i, a := range pa.attempts {
		e := a.entry
		list[i] = Outcome{e, Rate(e.ModifiedFee(), e.VSize()), []bitcoin.Hash{e.WTxID}}
	}
	if !pa.opts.inPackage {
		return list
	}
	all := make([]bitcoin.Hash, len(list))
	for i := range list {
		all[i] = list[i].Entry.WTxID
	}
	for i := range list {
		list[i].Rate, list[i].Includes = pa.paid.Rate(), all
	}
	return list
}

// Replaces returns the transactions that would have to leave.
func (pa *PackageAttempt) Replaces() []*Entry { return pa.plan.leaving }
