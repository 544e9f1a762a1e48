package p2p

import (
	"context"
	"errors"
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/mempool"
)

// txVerdict is what became of a transaction.
type txVerdict struct {
	accepted      bool
	replaced      []*bitcoin.Tx // by it, if it was accepted
	fault         bool          // ours: it was not judged
	missingInputs bool          // it spends what is not known: its parents may come
	stripped      bool          // it lacks its witness: with it, it may be right
	anyWitness    bool          // no other witness would help
	tooCheap      bool          // with a child it may pay enough
	err           error         // why it was not accepted, in Core's words
}

// poolTx is an unconfirmed transaction.
type poolTx struct {
	tx       *bitcoin.Tx
	fee      bitcoin.Amount
	vsize    int
	sequence uint64 // below that of any later question to the pool
}

// pool is the mempool as relaying sees it. Its methods take the chain's lock for a moment.
type pool struct{ chain *chain.Chain }

// submit offers a transaction that a peer sent.
func (p pool) submit(ctx context.Context, tx *bitcoin.Tx) txVerdict {
	r, err := p.chain.AddTx(ctx, tx, chain.TxOptions{})
	if err == nil {
		return txVerdict{accepted: true, replaced: r.Replaced}
	}
	var e *mempool.Error
	if !errors.As(err, &e) {
		return txVerdict{fault: true, err: err}
	}
	return verdictOf(e)
}

// submitPair offers a transaction and a child of it together; ok says that both are in the pool now. What is
// said of one is zero where nothing is known of it.
func (p pool) submitPair(ctx context.Context, parent, child *bitcoin.Tx) (verdicts [2]txVerdict, ok bool) {
	r, err := p.chain.AddPackage(ctx, []*bitcoin.Tx{parent, child}, chain.PackageOptions{})
	if err != nil {
		return verdicts, false
	}
	for i := range min(len(verdicts), len(r.Txs)) {
		switch t := &r.Txs[i]; t.State {
		case chain.Accepted:
			verdicts[i].accepted = true
			verdicts[i].replaced = r.Replaced
		case chain.Refused:
			verdicts[i] = verdictOf(t.Err)
		case chain.OtherWitness:
			verdicts[i].err = errOtherWitness
		}
	}
	return verdicts, r.Err == nil
}

// errOtherWitness says that the pool has the transaction with another witness.
var errOtherWitness = errors.New("txn-same-nonwitness-data-in-mempool")

// verdictOf says what a reason to refuse means for relaying.
func verdictOf(e *mempool.Error) txVerdict {
	return txVerdict{
		err:           e,
		missingInputs: e.Kind == mempool.MissingInputs,
		stripped:      e.Kind == mempool.WitnessStripped,
		anyWitness:    e.Kind == mempool.InputsNotStandard,
		tooCheap:      e.Kind == mempool.Reconsiderable,
	}
}

// get returns an unconfirmed transaction.
func (p pool) get(id bitcoin.Hash, wtxid bool) (t poolTx, ok bool) {
	p.chain.Mempool(func(m *mempool.Pool, _ *consensus.State) {
		e := m.Get(id)
		if wtxid {
			e = m.GetWitness(id)
		}
		if e != nil {
			t, ok = poolTx{e.Tx, e.Fee, e.VSize(), e.Sequence}, true
		}
	})
	return t, ok
}

// has reports whether the pool has a transaction.
func (p pool) has(id bitcoin.Hash, wtxid bool) bool {
	_, ok := p.get(id, wtxid)
	return ok
}

// size returns the number of transactions, and the memory that they take.
func (p pool) size() (count int, octets int64) {
	p.chain.Mempool(func(m *mempool.Pool, _ *consensus.State) { count, octets = m.Len(), m.Usage() })
	return count, octets
}

// all returns the transactions for which the condition holds, in no order; nil takes all.
func (p pool) all(which func(*mempool.Entry) bool) (list []poolTx) {
	p.chain.Mempool(func(m *mempool.Pool, _ *consensus.State) {
		m.All(func(e *mempool.Entry) bool {
			if which == nil || which(e) {
				list = append(list, poolTx{e.Tx, e.Fee, e.VSize(), e.Sequence})
			}
			return true
		})
	})
	return list
}

// pick returns those of the wtxids that are in the pool, as they are to be announced: what would be mined
// first comes first.
func (p pool) pick(wtxids []bitcoin.Hash) (list []poolTx) {
	p.chain.Mempool(func(m *mempool.Pool, _ *consensus.State) {
		entries := make([]*mempool.Entry, 0, len(wtxids))
		for _, id := range wtxids {
			if e := m.GetWitness(id); e != nil {
				entries = append(entries, e)
			}
		}
		slices.SortFunc(entries, func(a, b *mempool.Entry) int {
			switch {
			case m.Less(a, b):
				return -1
			case m.Less(b, a):
				return 1
			}
			return 0
		})
		for _, e := range entries {
			list = append(list, poolTx{e.Tx, e.Fee, e.VSize(), e.Sequence})
		}
	})
	return list
}

// sequence returns a number above that of all transactions that are in the pool.
func (p pool) sequence() (s uint64) {
	p.chain.Mempool(func(m *mempool.Pool, _ *consensus.State) { s = m.Sequence() })
	return s
}

// minFee returns the rate below which nothing is taken because the pool is full; 0 while there is room.
func (n *Node) minFee() (rate bitcoin.Amount) {
	now := n.clock.Now()
	n.chain.Mempool(func(m *mempool.Pool, _ *consensus.State) {
		rate = bitcoin.Amount(m.MinFee(now))
	})
	return rate
}

// broadcast notes that a peer has asked for a transaction.
func (p pool) broadcast(txid bitcoin.Hash) {
	p.chain.Mempool(func(m *mempool.Pool, _ *consensus.State) { m.ClearUnbroadcast(txid) })
}

// minRelayFee returns the rate of the configuration below which nothing is relayed.
func (n *Node) minRelayFee() (rate bitcoin.Amount) {
	n.chain.Mempool(func(m *mempool.Pool, _ *consensus.State) {
		rate = bitcoin.Amount(max(m.Config().MinRelayFee, 0))
	})
	return rate
}
