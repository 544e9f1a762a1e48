package consensus

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

// ScriptFlags returns the rules that the scripts of a block are held to (Bitcoin Core
// validation.cpp, GetBlockScriptFlags). BIPs 16, 141 and 341 bind all blocks, also those from
// before, with the exception of the few that break them.
func ScriptFlags(net *bitcoin.Network, height bitcoin.Height, hash bitcoin.Hash) script.Flags {
	flags := script.VerifyP2SH | script.VerifyWitness | script.VerifyTaproot
	for i := range net.ScriptExceptions {
		if e := &net.ScriptExceptions[i]; e.Block == hash {
			flags = 0
			if e.P2SH {
				flags |= script.VerifyP2SH
			}
			if e.Witness {
				flags |= script.VerifyWitness
			}
		}
	}
	if height >= net.BIP66Height {
		flags |= script.VerifyDERSig
	}
	if height >= net.BIP65Height {
		flags |= script.VerifyCheckLockTimeVerify
	}
	if height >= net.CSVHeight {
		flags |= script.VerifyCheckSequenceVerify
	}
	if height >= net.SegwitHeight {
		flags |= script.VerifyNullDummy
	}
	return flags
}

// Check is the scripts of a transaction's inputs from one up to another. It stays good for as long
// as one likes, whatever happens to the coins.
type Check struct {
	Tx       *bitcoin.Tx
	Spent    []bitcoin.TxOut // by all inputs
	Flags    script.Flags
	From, To int
}

// inputsPerCheck is where a transaction is cut, so that many may work on one with thousands of
// inputs.
const inputsPerCheck = 64

// Checks returns the script checks of the block in the order of its inputs. What is known to have
// passed with the same flags may be left out; all of them may, where AssumeValid says so.
func (d *Diff) Checks() []Check {
	txs := d.candidate.block.Txs
	checks := make([]Check, 0, len(txs)+len(d.Undo.Outs)/inputsPerCheck)
	for i, first := range d.candidate.inputs() {
		n := len(txs[i].In)
		spent := d.Undo.Outs[first : first+n : first+n]
		for from := 0; from < n; from += inputsPerCheck {
			to := min(from+inputsPerCheck, n)
			checks = append(checks, Check{&txs[i], spent, d.flags, from, to})
		}
	}
	return checks
}

// RunChecks runs checks with a zero ScriptRunner but for the number of its workers.
func RunChecks(ctx context.Context, workers int, checks []Check) error {
	return ScriptRunner{Workers: workers}.Run(ctx, checks)
}

// ScriptRunner runs script checks. The zero value is ready; Runs may go on at the same time.
type ScriptRunner struct {
	Workers int              // goroutines that run scripts; less than 1 means 1
	Engine  secp.Engine      // that verifies signatures; nil means secp.Default
	Cache   *script.SigCache // of valid signatures; may be nil
}

// Run runs checks and returns an *Error for the first input, in their order, whose script fails,
// whichever fails first in time; or the context's error. All its goroutines have ended when it
// returns: what they read belongs to the caller again.
func (r ScriptRunner) Run(ctx context.Context, checks []Check) error {
	job := scriptJob{checks: checks}
	job.first.Store(int64(len(checks)))
	var wg sync.WaitGroup
	for range min(r.Workers, len(checks)) - 1 {
		wg.Go(func() { job.work(ctx, r) })
	}
	job.work(ctx, r)
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	return job.failure()
}

// scriptJob is what the workers of a Run share.
type scriptJob struct {
	checks []Check
	next   atomic.Int64 // check that nobody has begun
	first  atomic.Int64 // first check that is known to fail

	mu   sync.Mutex // guards what follows
	fail *script.Error
	at   int // check of fail
}

// work runs checks until none is left that could come before a failure.
func (j *scriptJob) work(ctx context.Context, r ScriptRunner) {
	verifier := script.Verifier{Engine: r.Engine, Cache: r.Cache}
	var spending script.Spending
	for ctx.Err() == nil {
		i := j.next.Add(1) - 1
		if i >= int64(len(j.checks)) || i > j.first.Load() {
			return
		}
		check := &j.checks[i]
		if spending.Tx() != check.Tx {
			spending.Init(check.Tx, check.Spent)
		}
		if err := check.run(&verifier, &spending); err != nil {
			j.failed(int(i), err)
		}
	}
}

func (c *Check) run(v *script.Verifier, s *script.Spending) *script.Error {
	for input := c.From; input < c.To; input++ {
		if err := v.VerifyInput(s, input, c.Flags); err != nil {
			return err.(*script.Error)
		}
	}
	return nil
}

// failed keeps the failure of a check if it is the first so far.
func (j *scriptJob) failed(at int, err *script.Error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fail == nil || at < j.at {
		j.fail, j.at = err, at
		j.first.Store(int64(at))
	}
}

// failure returns the first failure in Core's words.
func (j *scriptJob) failure() error {
	if j.fail == nil {
		return nil
	}
	tx := j.checks[j.at].Tx
	from := tx.In[j.fail.Input].PrevOut
	return invalid("block-script-verify-flag-failed ("+j.fail.Code.String()+")",
		"input %d of %v (wtxid %v), spending %v:%d",
		j.fail.Input, tx.TxID(), tx.WTxID(), from.TxID, from.Index)
}
