package mempool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// View is what the pool reads of the chain.
type View interface {
	consensus.View

	// Cached reports whether an output is unspent, as far as that is known without asking the disk.
	Cached(out bitcoin.OutPoint) bool
}

// Tip is the chain that transactions are judged on.
type Tip struct {
	State consensus.State // of its last block
	View  View            // the coins as that block left them
	Now   time.Time
}

func (t *Tip) nextHeight() bitcoin.Height { return t.State.Height + 1 }

// flags returns the rules for scripts in the next block.
func (t *Tip) flags() script.Flags {
	return consensus.ScriptFlags(t.State.Network, t.nextHeight(), bitcoin.Hash{})
}

// Options say how to judge a transaction.
type Options struct {
	// FromBlock: the transaction comes from a block that was taken back, so limits of fee and
	// memory do not hold.
	FromBlock bool
	// MaxRate, where not 0, refuses a transaction that pays more: its owner may have erred.
	MaxRate FeeRate
	// NoReplacement refuses a transaction that conflicts with others of the pool.
	NoReplacement bool
	// Untrimmed lets the pool grow over its limit: the caller calls Limit later.
	Untrimmed bool
	// Time, where not zero, is when the transaction is to count as having arrived.
	Time time.Time

	inPackage bool // it is judged by what its package pays, and may not evict a sibling
}

// Attempt is a transaction on its way in.
type Attempt struct {
	tx    *bitcoin.Tx
	opts  Options
	entry *Entry
	spent consensus.Spent
	with  []*Attempt // earlier transactions of its package
	plan  plan

	conflicts []*Entry // transactions of the pool that spend the same, or the sibling
	sibling   bool     // one is evicted though it spends something else
	tip       bitcoin.Hash
	changes   uint64       // of the pool when it was judged
	passed    script.Flags // the rules of blocks that its scripts obey; 0 before RunScripts
	flags     script.Flags // those of the next block
}

// Entry returns what the transaction will be in the pool.
func (a *Attempt) Entry() *Entry { return a.entry }

// Replaces returns the transactions that would have to leave.
func (a *Attempt) Replaces() []*Entry { return a.plan.leaving }

// Begin judges a transaction by everything but its scripts, the cheapest first (Bitcoin Core
// validation.cpp, MemPoolAccept::PreChecks and what follows it). It changes nothing. The error is
// an *Error, unless the View failed.
func (p *Pool) Begin(tx *bitcoin.Tx, tip *Tip, opts Options) (*Attempt, error) {
	a := &Attempt{tx: tx, opts: opts}
	if err := p.checkForm(tx, tip); err != nil {
		return nil, err
	}
	if err := p.checkContext(a, tip); err != nil {
		return nil, err
	}
	return a, p.checkRelations(a)
}

// checkForm judges what does not depend on coins.
func (p *Pool) checkForm(tx *bitcoin.Tx, tip *Tip) error {
	if err := consensus.CheckTransaction(tx); err != nil {
		return fromRules(err)
	}
	if tx.IsCoinbase() {
		return &Error{Kind: Consensus, Reason: "coinbase"}
	}
	if !p.cfg.AcceptNonStandard {
		if reason := p.checkStandard(tx); reason != "" {
			return &Error{Kind: NotStandard, Reason: reason}
		}
	}
	if tx.BaseSize() < MinBaseSize {
		return &Error{Kind: NotStandard, Reason: "tx-size-small"}
	}
	return nil
}

// checkContext judges a transaction by coins, pool and tip (Bitcoin Core validation.cpp, PreChecks).
func (p *Pool) checkContext(a *Attempt, tip *Tip) error {
	a.tip, a.changes, a.flags = tip.State.Hash, p.changes, tip.flags()
	if !consensus.IsFinal(a.tx, tip.nextHeight(), int64(tip.State.MedianTimePast())) {
		return &Error{Kind: PrematureSpend, Reason: "non-final"}
	}
	if err := p.checkKnown(a.tx); err != nil {
		return err
	}
	a.conflicts = p.conflicts(a.tx)
	if a.opts.NoReplacement && len(a.conflicts) > 0 {
		return &Error{Kind: MempoolPolicy, Reason: "bip125-replacement-disallowed"}
	}
	if err := p.fetch(a, tip); err != nil {
		return err
	}
	if err := p.checkInputs(a, tip); err != nil {
		return err
	}
	if err := p.checkFee(a, tip); err != nil {
		return err
	}
	if a.opts.FromBlock {
		return nil
	}
	sibling, err := p.checkTRUC(a.entry, a.conflicts, !a.opts.inPackage && !a.opts.NoReplacement)
	if err != nil {
		return err
	}
	if a.sibling = sibling != nil; a.sibling {
		a.conflicts = append(a.conflicts, sibling)
	}
	return nil
}

func (p *Pool) checkKnown(tx *bitcoin.Tx) error {
	switch {
	case p.byWTxID[tx.WTxID()] != nil:
		return &Error{Kind: Conflict, Reason: "txn-already-in-mempool"}
	case p.entries[tx.TxID()] != nil:
		return &Error{Kind: Conflict, Reason: "txn-same-nonwitness-data-in-mempool"}
	}
	return nil
}

// fetch finds the coins that a transaction spends, in the chain and in the pool, and makes its
// entry. An output of the pool counts as created by the next block.
func (p *Pool) fetch(a *Attempt, tip *Tip) error {
	tx := a.tx
	a.spent = consensus.NewSpent(len(tx.In))
	txid := tx.TxID()
	a.entry = &Entry{Tx: tx, TxID: txid, WTxID: tx.WTxID(),
		Time: tip.Now, Height: tip.State.Height, Delta: p.deltas[txid]}
	if !a.opts.Time.IsZero() {
		a.entry.Time = a.opts.Time
	}
	if !a.opts.FromBlock {
		a.entry.Sequence = p.sequence
	}
	outs, at := p.fetching.outs[:0], p.fetching.at[:0]
	for i := range tx.In {
		out := tx.In[i].PrevOut
		parent := a.inside(out.TxID)
		if parent == nil {
			if parent = p.entries[out.TxID]; parent == nil {
				outs, at = append(outs, out), append(at, i)
				continue
			}
			if !slices.Contains(a.entry.parents, parent) {
				a.entry.parents = append(a.entry.parents, parent)
			}
		}
		if int64(out.Index) >= int64(len(parent.Tx.Out)) {
			return missingInputs()
		}
		a.spent.Set(i, &consensus.Coin{Out: parent.Tx.Out[out.Index],
			Origin: consensus.Origin{Height: tip.nextHeight()}})
	}
	coins := append(p.fetching.coins[:0], make([]consensus.Coin, len(outs))...)
	p.fetching.outs, p.fetching.at, p.fetching.coins = outs, at, coins
	if err := tip.View.Coins(outs, coins); err != nil {
		return fmt.Errorf("coins of transaction %v: %w", txid, err)
	}
	for i := range coins {
		if coins[i].IsSpent() {
			return p.missing(tx, tip)
		}
		a.spent.Set(at[i], &coins[i])
		a.entry.coinbase = a.entry.coinbase || coins[i].Coinbase
	}
	return nil
}

// inside returns an earlier transaction of the package, or nil.
func (a *Attempt) inside(txid bitcoin.Hash) *Entry {
	for _, other := range a.with {
		if other.entry.TxID == txid {
			return other.entry
		}
	}
	return nil
}

// missing tells why an input is missing: perhaps because the transaction has been mined.
func (p *Pool) missing(tx *bitcoin.Tx, tip *Tip) error {
	id := tx.TxID()
	for i := range tx.Out {
		if tip.View.Cached(bitcoin.OutPoint{TxID: id, Index: uint32(i)}) {
			return &Error{Kind: Conflict, Reason: "txn-already-known"}
		}
	}
	return missingInputs()
}

func missingInputs() error {
	return &Error{Kind: MissingInputs, Reason: "bad-txns-inputs-missingorspent"}
}

// checkInputs judges a transaction by what it spends.
func (p *Pool) checkInputs(a *Attempt, tip *Tip) error {
	tx, e := a.tx, a.entry
	var err error
	if e.lock, err = locks(tx, a.spent.Origins, tip); err != nil {
		return err
	}
	if !e.lock.Allows(tip.nextHeight(), tip.State.MedianTimePast()) {
		return &Error{Kind: PrematureSpend, Reason: "non-BIP68-final"}
	}
	if e.Fee, err = consensus.CheckInputs(tx, a.spent, tip.nextHeight()); err != nil {
		return fromRules(err)
	}
	if !p.cfg.AcceptNonStandard {
		if !inputsStandard(tx, a.spent.Outs) {
			return &Error{Kind: InputsNotStandard, Reason: "bad-txns-nonstandard-inputs"}
		}
		if !witnessStandard(tx, a.spent.Outs) {
			return &Error{Kind: WitnessMutated, Reason: "bad-witness-nonstandard"}
		}
	}
	e.SigOpsCost = script.SigOpCost(tx, a.spent.Outs, script.StandardFlags)
	e.Weight = max(int64(tx.Weight()), int64(e.SigOpsCost)*int64(p.cfg.BytesPerSigOp))
	return nil
}

// locks returns the relative lock of a transaction that spends coins of these origins.
func locks(tx *bitcoin.Tx, origins []consensus.Origin, tip *Tip) (lock, error) {
	sequence, err := consensus.SequenceLocks(tx, origins, tip.View)
	if err != nil {
		return lock{}, fmt.Errorf("lock times of transaction %v: %w", tx.TxID(), err)
	}
	l := lock{SequenceLock: sequence}
	for i := range origins {
		if origins[i].Height <= tip.State.Height {
			l.depends = max(l.depends, origins[i].Height)
		}
	}
	return l, nil
}

// checkFee judges what a transaction pays.
func (p *Pool) checkFee(a *Attempt, tip *Tip) error {
	e := a.entry
	if !p.cfg.AcceptNonStandard && (e.Fee != 0 || e.ModifiedFee() != 0) && p.hasDust(a.tx) {
		return &Error{Kind: NotStandard, Reason: "dust",
			Debug: "tx with dust output must be 0-fee"}
	}
	if e.SigOpsCost > MaxSigOpsCost {
		return &Error{Kind: NotStandard, Reason: "bad-txns-too-many-sigops",
			Debug: fmt.Sprint(e.SigOpsCost)}
	}
	if a.opts.FromBlock {
		return nil
	}
	fee, size := e.ModifiedFee(), e.VSize()
	relay := p.cfg.MinRelayFee.Fee(size)
	if e.Tx.Version != trucVersion && fee < relay {
		return &Error{Kind: MempoolPolicy, Reason: "min relay fee not met",
			Debug: fmt.Sprintf("%d < %d", fee, relay)}
	}
	if a.opts.inPackage {
		return nil
	}
	return p.checkRate(e.price(), tip)
}

// checkRate judges what a transaction or a package pays by the least that is taken (Bitcoin Core
// validation.cpp, CheckFeeRate).
func (p *Pool) checkRate(paid Price, tip *Tip) error {
	size := paid.vsize()
	if least := p.MinFee(tip.Now).Fee(size); least > 0 && paid.Fee < least {
		return &Error{Kind: Reconsiderable, Reason: "mempool min fee not met", Paid: paid,
			Debug: fmt.Sprintf("%d < %d", paid.Fee, least)}
	}
	if relay := p.cfg.MinRelayFee.Fee(size); paid.Fee < relay {
		return &Error{Kind: Reconsiderable, Reason: "min relay fee not met", Paid: paid,
			Debug: fmt.Sprintf("%d < %d", paid.Fee, relay)}
	}
	return nil
}

// RunScripts runs the scripts, as policy wants them and then as the next block would. It touches
// nothing of the pool, so it needs no lock.
func (a *Attempt) RunScripts(ctx context.Context, runner consensus.ScriptRunner) error {
	check := consensus.Check{Tx: a.tx, Spent: a.spent.Outs, To: len(a.tx.In)}
	for _, flags := range [...]script.Flags{script.StandardFlags, a.flags} {
		check.Flags = flags
		err := runner.Run(ctx, []consensus.Check{check})
		var e *consensus.Error
		if errors.As(err, &e) {
			return a.scriptError(e)
		}
		if err != nil {
			return err
		}
	}
	a.passed = a.flags
	return nil
}

func (a *Attempt) scriptError(e *consensus.Error) error {
	kind := NotStandard
	if lacksWitness(a.tx, a.spent.Outs) {
		kind = WitnessStripped
	}
	reason := "mempool" + strings.TrimPrefix(e.Reason, "block")
	return &Error{Kind: kind, Reason: reason, Debug: e.Debug}
}

// Commit takes a transaction in whose scripts have passed. If pool or tip have changed since Begin
// it is judged anew, scripts excepted: what they depend on cannot change, but for the rules of the
// next block. ErrRulesChanged asks for a new Begin.
func (p *Pool) Commit(a *Attempt, tip *Tip) error {
	if a.changes != p.changes || a.tip != tip.State.Hash {
		if err := p.checkContext(a, tip); err != nil {
			return err
		}
		if err := p.checkRelations(a); err != nil {
			return err
		}
	}
	if a.passed != a.flags {
		return ErrRulesChanged
	}
	e := a.entry
	e.verified = a.passed
	a.plan.arrange()
	p.insert(&a.plan)
	if a.opts.FromBlock || a.opts.Untrimmed {
		return nil
	}
	p.Limit(tip.Now)
	if p.entries[e.TxID] != e {
		return &Error{Kind: Reconsiderable, Reason: "mempool full", Paid: e.price()}
	}
	return nil
}

// ErrRulesChanged: a block has come since Begin after which other rules hold for scripts, or
// RunScripts was not called.
var ErrRulesChanged = errors.New("the rules for scripts have changed")
