package mempool

import (
	"container/heap"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// insert carries out a plan: what leaves, leaves, and what enters, enters.
func (p *Pool) insert(pl *plan) {
	for _, leaving := range pl.leaving {
		p.logReplaced(leaving, pl.entering)
		p.unlink(leaving, Replaced)
	}
	for _, e := range pl.entering {
		p.link(e)
	}
	for _, x := range pl.edges {
		x.parent.children = append(x.parent.children, x.child)
		x.child.parents = append(x.child.parents, x.parent)
	}
	p.swapClusters(pl.old, pl.fresh)
	for _, e := range pl.entering {
		p.happened(e, Added)
	}
}

// logReplaced says which transaction leaves for which (Bitcoin Core validation.cpp, FinalizeSubpackage).
func (p *Pool) logReplaced(old *Entry, entering []*Entry) {
	if !p.cfg.Log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	var paid bitcoin.Amount
	size := 0
	for _, e := range entering {
		paid += e.ModifiedFee()
		size += e.VSize()
	}
	by := fmt.Sprintf("New package with %d txs, fees=%d, vsize=%d", len(entering), paid, size)
	if len(entering) == 1 {
		by = fmt.Sprintf("New tx %v (wtxid=%v, fees=%d, vsize=%d)", entering[0].TxID, entering[0].WTxID,
			paid, size)
	}
	p.cfg.Log.Debug(fmt.Sprintf("replacing mempool tx %v (wtxid=%v, fees=%d, vsize=%d). %s",
		old.TxID, old.WTxID, old.Fee, old.VSize(), by), "cat", "mempool")
}

// link puts an entry into everything but its cluster.
func (p *Pool) link(e *Entry) {
	for _, parent := range e.parents {
		parent.children = append(parent.children, e)
	}
	p.entries[e.TxID], p.byWTxID[e.WTxID] = e, e
	for i := range e.Tx.In {
		p.spends[e.Tx.In[i].PrevOut] = e
	}
	if len(p.entries) == 1 || e.Time.Before(p.oldest) {
		p.oldest = e.Time
	}
	p.count(e, 1)
}

// unlink takes an entry out of everything but its cluster.
func (p *Pool) unlink(e *Entry, reason Reason) {
	delete(p.entries, e.TxID)
	delete(p.byWTxID, e.WTxID)
	for i := range e.Tx.In {
		delete(p.spends, e.Tx.In[i].PrevOut)
	}
	for _, parent := range e.parents {
		parent.children = without(parent.children, e)
	}
	for _, child := range e.children {
		child.parents = without(child.parents, e)
	}
	p.clearUnbroadcast(e, " before confirmation that txn was sent out")
	p.count(e, -1)
	p.happened(e, reason)
}

// without returns a list without an entry. It is a new one: iterations may go on over the old.
func without(list []*Entry, e *Entry) []*Entry {
	at := slices.Index(list, e)
	return append(slices.Clone(list[:at]), list[at+1:]...)
}

func (p *Pool) count(e *Entry, sign int64) {
	p.usage += sign * e.usage()
	p.vsize += sign * int64(e.VSize())
	p.fees += bitcoin.Amount(sign) * e.Fee
}

// swapClusters puts clusters in the place of others.
func (p *Pool) swapClusters(old, fresh []*cluster) {
	for _, c := range old {
		heap.Remove(&p.clusters, c.at)
	}
	for _, c := range fresh {
		for rank, e := range c.txs {
			e.cluster, e.rank = c, rank
		}
		heap.Push(&p.clusters, c)
	}
}

// removal is an entry that leaves, and why.
type removal struct {
	*Entry
	reason Reason
}

// remove takes entries out, none twice, and puts what is left of their clusters in order.
func (p *Pool) remove(removals []removal) {
	entries := make([]*Entry, len(removals))
	for i, r := range removals {
		entries[i] = r.Entry
	}
	old := p.clustersOf(entries)
	for _, r := range removals {
		p.unlink(r.Entry, r.reason)
		r.slot = gone
	}
	fresh := make([]*cluster, 0, len(old))
	for _, c := range old {
		if left := remaining(nil, c.txs); len(left) > 0 {
			fresh = append(fresh, arrange(left, nil)...)
		}
	}
	unnumber(entries)
	p.swapClusters(old, fresh)
}

// remaining appends those of the transactions that are not marked as gone.
func remaining(to, txs []*Entry) []*Entry {
	for _, e := range txs {
		if e.slot != gone {
			to = append(to, e)
		}
	}
	return to
}

// removeAll removes entries and all that depend on them for one reason.
func (p *Pool) removeAll(entries []*Entry, reason Reason) {
	all := p.descendants(entries...)
	removals := make([]removal, len(all))
	for i, e := range all {
		removals[i] = removal{e, reason}
	}
	p.remove(removals)
}

// Connected removes the transactions of a block that became the tip, and those that spend what it
// spends.
func (p *Pool) Connected(b *bitcoin.Block, now time.Time) {
	defer p.blockCame(now)
	if len(p.entries) == 0 && len(p.deltas) == 0 {
		return
	}
	gone := make(map[*Entry]bool)
	mined := make([]*Entry, len(b.Txs))
	for i := range b.Txs[1:] {
		id := b.Txs[i+1].TxID()
		delete(p.deltas, id)
		if e := p.entries[id]; e != nil && !gone[e] {
			gone[e], mined[i+1] = true, e
		}
	}
	// In the order of the block, as those who follow the pool are told of it.
	var removals []removal
	for i := range b.Txs[1:] {
		if e := mined[i+1]; e != nil {
			removals = append(removals, removal{e, Block})
		}
		for _, e := range p.conflicts(&b.Txs[i+1]) {
			if gone[e] {
				continue // mined as well
			}
			for _, d := range p.descendants(e) {
				if !gone[d] {
					gone[d] = true
					delete(p.deltas, d.TxID)
					removals = append(removals, removal{d, Conflicts})
				}
			}
		}
	}
	p.remove(removals)
}

// Forget removes what depends on a transaction that was in a block of the old branch and did not
// come back into the pool; it is there itself only if it had come back before.
func (p *Pool) Forget(tx *bitcoin.Tx) {
	if e := p.entries[tx.TxID()]; e != nil {
		p.removeAll([]*Entry{e}, Reorg)
		return
	}
	p.removeAll(p.children(tx.TxID(), len(tx.Out)), Reorg)
}

// Reorganized removes what cannot be in the next block any more after the chain has gone back to
// the height of a fork and forward again, and cuts down clusters that grew too large because mined
// transactions came back.
func (p *Pool) Reorganized(fork bitcoin.Height, tip *Tip) error {
	var unfit []*Entry
	for _, e := range p.entries {
		fit, err := p.stillFits(e, fork, tip)
		if err != nil {
			return err
		}
		if !fit {
			unfit = append(unfit, e)
		}
	}
	p.removeAll(unfit, Reorg)
	for _, c := range slices.Clone(p.clusters) {
		for p.tooLarge(c) {
			c = p.shrink(c)
		}
	}
	p.Limit(tip.Now)
	return nil
}

func (p *Pool) stillFits(e *Entry, fork bitcoin.Height, tip *Tip) (bool, error) {
	median := tip.State.MedianTimePast()
	if !consensus.IsFinal(e.Tx, tip.nextHeight(), int64(median)) {
		return false, nil
	}
	if e.lock.depends > fork || e.coinbase {
		fits, err := p.refetch(e, tip)
		if err != nil || !fits {
			return false, err
		}
	}
	return e.lock.Allows(tip.nextHeight(), median), nil
}

// refetch looks anew at the coins that an entry spends: they may be younger now.
func (p *Pool) refetch(e *Entry, tip *Tip) (fits bool, err error) {
	a := Attempt{tx: e.Tx}
	if err = p.fetch(&a, tip); err != nil {
		return false, ignoreRefusal(err)
	}
	if e.lock, err = locks(e.Tx, a.spent.Origins, tip); err != nil {
		return false, err
	}
	_, err = consensus.CheckInputs(e.Tx, a.spent, tip.nextHeight())
	return err == nil, ignoreRefusal(fromRules(err))
}

// ignoreRefusal returns an error only if it is not about the transaction.
func ignoreRefusal(err error) error {
	if _, refused := err.(*Error); refused {
		return nil
	}
	return err
}

// shrink removes the last transaction of a cluster, which nothing depends on, and returns the
// largest of what is left.
func (p *Pool) shrink(c *cluster) *cluster {
	last := c.txs[len(c.txs)-1]
	rest := c.txs[:len(c.txs)-1]
	p.removeAll([]*Entry{last}, SizeLimit)
	largest := rest[0].cluster
	for _, e := range rest {
		if e.cluster.weight > largest.weight {
			largest = e.cluster
		}
	}
	return largest
}

// Limit removes what has waited too long, and the worst chunks until the rest fits into memory.
func (p *Pool) Limit(now time.Time) {
	p.expire(now.Add(-p.cfg.Expiry))
	removed, best := 0, FeeRate(0)
	for p.usage > p.cfg.MaxBytes && len(p.clusters) > 0 {
		c := p.clusters[0]
		worst := *c.last()
		best = max(best, p.raiseFloor(worst.Price))
		removed += worst.to - worst.from
		p.removeAll(c.txs[worst.from:worst.to], SizeLimit)
	}
	if removed > 0 {
		p.cfg.Log.Debug(fmt.Sprintf("Removed %d txn, rolling minimum fee bumped to %v", removed, best),
			"cat", "mempool")
	}
}

func (p *Pool) expire(before time.Time) {
	if len(p.entries) == 0 || !p.oldest.Before(before) {
		return
	}
	var expired []*Entry
	oldest := time.Time{}
	for _, e := range p.entries {
		if e.Time.Before(before) {
			expired = append(expired, e)
		} else if oldest.IsZero() || e.Time.Before(oldest) {
			oldest = e.Time
		}
	}
	p.oldest = oldest
	p.removeAll(expired, Expired)
}
