package chain

import (
	"context"
	"errors"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/mempool"
)

// PackageOptions say how to take a package.
type PackageOptions struct {
	// Test judges the transactions together, as they are, and takes none in (testmempoolaccept).
	Test bool
	// MaxRate, where not 0, refuses transactions that pay more for their size.
	MaxRate mempool.FeeRate
}

// PackageState says what became of a transaction of a package.
type PackageState uint8

// The states (Bitcoin Core validation.h, MempoolAcceptResult::ResultType).
const (
	Unjudged     PackageState = iota // something else failed before
	Accepted                         // or would be, in a test
	Refused                          // see PackageTx.Err
	Present                          // it was in the mempool
	OtherWitness                     // one with the same txid was; see PackageTx.Other
)

// PackageTx tells of a transaction of a package.
type PackageTx struct {
	State PackageState
	Err   *mempool.Error // of Refused
	Fee   bitcoin.Amount // of Accepted and Present, as the next
	VSize int
	Other bitcoin.Hash // of OtherWitness: the wtxid of the one in the mempool
	// Of Accepted and of those Refused because they pay too little: the rate that counted, and the
	// wtxids of the transactions whose fees and sizes it is made of.
	Rate     mempool.FeeRate
	Includes []bitcoin.Hash
}

// PackageResult tells what became of a package.
type PackageResult struct {
	Err      *mempool.PackageError // nil: all are in the mempool, or would be
	Txs      []PackageTx           // in the order of the package
	Replaced []*bitcoin.Tx         // that had to leave
}

// refuse notes why a transaction is refused.
func (r *PackageResult) refuse(i int, err *mempool.Error, includes ...bitcoin.Hash) {
	t := PackageTx{State: Refused, Err: err}
	if err.Kind == mempool.Reconsiderable {
		t.Rate, t.Includes = err.Paid.Rate(), includes
	}
	r.Txs[i] = t
}

// fail notes why the package failed, and of which transaction that tells.
func (r *PackageResult) fail(err *mempool.PackageError, txs []*bitcoin.Tx) {
	r.Err = err
	for i, tx := range txs {
		if tx != err.Tx {
			continue
		}
		includes := []bitcoin.Hash{tx.WTxID()}
		if err.Includes {
			includes = includes[:0]
			for _, other := range txs {
				includes = append(includes, other.WTxID())
			}
		}
		r.refuse(i, err.Err, includes...)
	}
}

// AddPackage takes a child and its parents into the mempool, as far as policy allows: each by itself,
// and those that pay too little by themselves together (Bitcoin Core validation.cpp, AcceptPackage).
// The error is this node's.
func (c *Chain) AddPackage(ctx context.Context, txs []*bitcoin.Tx, opts PackageOptions) (
	PackageResult, error) {
	r := PackageResult{Txs: make([]PackageTx, len(txs))}
	if opts.Test {
		err := c.addTogether(ctx, txs, opts, indexes(len(txs)), &r)
		return r, err
	}
	err := mempool.CheckPackage(txs)
	if err == nil && len(txs) > 1 && !mempool.IsChildWithParents(txs) {
		err = &mempool.PackageError{Reason: "package-not-child-with-parents"}
	}
	if errors.As(err, &r.Err) {
		return r, nil
	}
	together, err := c.addEach(ctx, txs, opts, &r)
	if err != nil {
		return r, err
	}
	switch {
	case r.Err != nil || len(together) == 0:
	case len(together) == 1: // it is judged
		tx := txs[together[0]]
		r.Err = &mempool.PackageError{Reason: "transaction failed", Tx: tx, Err: r.Txs[together[0]].Err}
	default:
		if err := c.addTogether(ctx, txs, opts, together, &r); err != nil {
			return r, err
		}
	}
	c.trim(txs, &r)
	c.txWakes.wake()
	return r, nil
}

func indexes(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// addEach offers each transaction by itself. It returns those which may be taken together with others.
func (c *Chain) addEach(ctx context.Context, txs []*bitcoin.Tx, opts PackageOptions,
	r *PackageResult) (together []int, err error) {
	for i, tx := range txs {
		if c.present(tx, &r.Txs[i]) {
			continue
		}
		result, err := c.AddTx(ctx, tx, TxOptions{MaxRate: opts.MaxRate, untrimmed: true})
		var e *mempool.Error
		switch {
		case err == nil:
			r.Txs[i] = PackageTx{State: Accepted, Fee: result.Fee, VSize: result.VSize,
				Rate: mempool.Rate(result.Modified, result.VSize), Includes: []bitcoin.Hash{tx.WTxID()}}
			r.Replaced = append(r.Replaced, result.Replaced...)
		case !errors.As(err, &e):
			return nil, err
		case len(txs) > 1 && (e.Kind == mempool.Reconsiderable || e.Kind == mempool.MissingInputs):
			together = append(together, i)
			r.refuse(i, e, tx.WTxID())
		default:
			r.Err = &mempool.PackageError{Reason: "transaction failed", Tx: tx, Err: e}
			r.refuse(i, e, tx.WTxID())
		}
	}
	return together, nil
}

// present looks whether the mempool has a transaction, be it with another witness.
func (c *Chain) present(tx *bitcoin.Tx, t *PackageTx) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.pool.GetWitness(tx.WTxID()); e != nil {
		*t = PackageTx{State: Present, Fee: e.Fee, VSize: e.VSize()}
		return true
	}
	if e := c.pool.Get(tx.TxID()); e != nil {
		*t = PackageTx{State: OtherWitness, Other: e.WTxID}
		return true
	}
	return false
}

// addTogether offers some of the transactions as one.
func (c *Chain) addTogether(ctx context.Context, txs []*bitcoin.Tx, opts PackageOptions, which []int,
	r *PackageResult) error {
	some := make([]*bitcoin.Tx, len(which))
	for i, at := range which {
		some[i] = txs[at]
	}
	part := PackageResult{Txs: make([]PackageTx, len(some))}
	for {
		err := c.tryTogether(ctx, some, opts, &part)
		if errors.Is(err, mempool.ErrRulesChanged) {
			continue
		}
		var e *mempool.PackageError
		if errors.As(err, &e) {
			part.fail(e, some)
		} else if err != nil {
			return err
		}
		break
	}
	r.Err = part.Err
	r.Replaced = append(r.Replaced, part.Replaced...)
	for i, at := range which {
		if part.Txs[i].State != Unjudged {
			r.Txs[at] = part.Txs[i]
		}
	}
	return nil
}

func (c *Chain) tryTogether(ctx context.Context, txs []*bitcoin.Tx, opts PackageOptions,
	r *PackageResult) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waitSettled()
	attempt, err := c.pool.BeginPackage(txs, c.poolTip(),
		mempool.Options{MaxRate: opts.MaxRate, NoReplacement: opts.Test, Untrimmed: true})
	if err != nil {
		return err
	}
	c.mu.Unlock()
	err = attempt.RunScripts(ctx, c.runner)
	c.mu.Lock()
	var failed *mempool.PackageError
	if err != nil && !(opts.Test && errors.As(err, &failed)) {
		return err
	}
	if !opts.Test {
		c.waitSettled()
		if err := c.pool.CommitPackage(attempt, c.poolTip()); err != nil {
			return err
		}
	}
	for i, o := range attempt.Outcomes() {
		if failed != nil && txs[i] == failed.Tx {
			return err // those before it have passed
		}
		r.Txs[i] = PackageTx{State: Accepted, Fee: o.Entry.Fee, VSize: o.Entry.VSize(), Rate: o.Rate,
			Includes: o.Includes}
	}
	for _, old := range attempt.Replaces() {
		r.Replaced = append(r.Replaced, old.Tx)
	}
	return nil
}

// trim brings the mempool back to its limit, and corrects what was said of transactions that fell
// victim to that.
func (c *Chain) trim(txs []*bitcoin.Tx, r *PackageResult) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waitSettled()
	c.pool.Limit(c.cfg.Clock.Now())
	for i, tx := range txs {
		t := &r.Txs[i]
		if t.State == Refused || t.State == Unjudged || c.pool.Get(tx.TxID()) != nil {
			continue
		}
		full := &mempool.Error{Kind: mempool.MempoolPolicy, Reason: "mempool full"}
		r.Err = &mempool.PackageError{Reason: "transaction failed", Tx: tx, Err: full}
		r.refuse(i, full)
	}
}
