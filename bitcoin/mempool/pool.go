// Package mempool keeps the transactions that are in no block yet, those that are worth relaying
// and mining by the policy of Bitcoin Core 31: standard in form, final, paying enough, and replaced
// by what pays better.
//
// A Pool is a set of clusters, each a set of transactions connected by spending one another, kept
// in the order in which they would be mined. Mining takes the best chunks of all clusters, eviction
// the worst, and a replacement must make what a miner earns strictly better.
//
// A transaction goes this way; only the middle step takes long, and it needs no lock:
//
//	Begin(tx, tip, options)   everything but the scripts
//	Attempt.RunScripts(...)   as policy wants them, then as a block would
//	Commit(attempt, tip)      once more what may have changed meanwhile; then it is in
//
// A Pool has no lock and no goroutine: chain.Chain owns it and guards it. Not here: transactions
// whose inputs are unknown (p2p keeps orphans), packages, fee estimation, the block itself (miner).
package mempool

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// Config of a Pool; the zero value has Core's defaults.
type Config struct {
	// MaxBytes is the memory that transactions may take (Core's -maxmempool). 0: 300 MB.
	MaxBytes int64
	// Expiry is how long a transaction may wait (Core's -mempoolexpiry). 0: two weeks.
	Expiry time.Duration
	// MinRelayFee is the least rate that is accepted (Core's -minrelaytxfee). 0: 100, or
	// IncrementalFee if that is more; negative: none.
	MinRelayFee FeeRate
	// IncrementalFee is the rate at which a replacement pays for itself, and by which the least
	// rate rises above what was evicted (Core's -incrementalrelayfee). 0: 100; negative: none.
	IncrementalFee FeeRate
	// DustRelayFee is the rate at which spending an output must be worth it (Core's -dustrelayfee).
	// 0: 3000; negative: none.
	DustRelayFee FeeRate
	// MaxDataCarrier is how many octets of OP_RETURN outputs a transaction may have (Core's
	// -datacarriersize). 0: 100,000; negative: none.
	MaxDataCarrier int
	// RefuseBareMultisig refuses outputs that are multisig without a hash (Core's
	// -permitbaremultisig=0).
	RefuseBareMultisig bool
	// AcceptNonStandard skips what is asked beyond consensus and fees (Core's -acceptnonstdtxn).
	AcceptNonStandard bool
	// MaxClusterCount and MaxClusterVSize bound the transactions that hang together (Core's
	// -limitclustercount and -limitclustersize). 0: 64 and 101,000 virtual bytes.
	MaxClusterCount int
	MaxClusterVSize int
	// BytesPerSigOp is the size that a signature check counts for at least (Core's
	// -bytespersigop). 0: 20; negative: none.
	BytesPerSigOp int
	// Log gets what replacements and evictions do, in Core's words. nil: nobody.
	Log *slog.Logger
}

// fill sets defaults: a zero becomes the default, less than zero becomes zero.
func (c *Config) fill() error {
	setDefault(&c.MaxBytes, 300_000_000)
	setDefault(&c.Expiry, 336*time.Hour)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	setDefault(&c.IncrementalFee, 100)
	setDefault(&c.MinRelayFee, max(100, c.IncrementalFee))
	setDefault(&c.DustRelayFee, 3000)
	setDefault(&c.MaxDataCarrier, MaxWeight/bitcoin.WitnessScale)
	setDefault(&c.MaxClusterCount, MaxClusterCount)
	setDefault(&c.MaxClusterVSize, 101_000)
	setDefault(&c.BytesPerSigOp, 20)
	if c.MaxClusterCount > MaxClusterCount || c.MaxClusterCount < 1 {
		return fmt.Errorf("limitclustercount must be between 1 and %d", MaxClusterCount)
	}
	if least := int64(c.MaxClusterVSize) * 40; c.MaxBytes > 0 && c.MaxBytes < least {
		return fmt.Errorf("-maxmempool must be at least %d MB", (least+999_999)/1_000_000)
	}
	return nil
}

// Check reports what is wrong with a configuration.
func (c Config) Check() error { return c.fill() }

func setDefault[T int | int64 | FeeRate | time.Duration](v *T, to T) {
	if *v == 0 {
		*v = to
	}
	*v = max(*v, 0)
}

// Pool is a set of unconfirmed transactions. It has no lock: see the package.
type Pool struct {
	cfg      Config
	entries  map[bitcoin.Hash]*Entry // by txid
	byWTxID  map[bitcoin.Hash]*Entry
	spends   map[bitcoin.OutPoint]*Entry // what each output is spent by
	clusters clusterHeap                 // the one with the worst last chunk on top
	deltas   map[bitcoin.Hash]bitcoin.Amount

	// epoch marks what a walk has seen, with the number of the walk.
	epoch uint64
	// fetching is room for the outputs that fetch asks the chain for.
	fetching struct {
		outs  []bitcoin.OutPoint
		at    []int
		coins []consensus.Coin
	}

	usage    int64
	unsent   int // entries that are unbroadcast
	vsize    int64
	fees     bitcoin.Amount
	sequence uint64
	changes  uint64 // of anything that Begin or Select depend on
	events   events
	oldest   time.Time // no entry is older
	floor    floor
}

// New returns an empty pool.
func New(cfg Config) (*Pool, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	return &Pool{
		cfg:      cfg,
		entries:  make(map[bitcoin.Hash]*Entry),
		byWTxID:  make(map[bitcoin.Hash]*Entry),
		spends:   make(map[bitcoin.OutPoint]*Entry),
		deltas:   make(map[bitcoin.Hash]bitcoin.Amount),
		sequence: 1,
	}, nil
}

// Config returns the pool's configuration with all defaults filled in.
func (p *Pool) Config() Config { return p.cfg }

// Get returns the transaction with a txid, or nil.
func (p *Pool) Get(txid bitcoin.Hash) *Entry { return p.entries[txid] }

// GetWitness returns the transaction with a wtxid, or nil.
func (p *Pool) GetWitness(wtxid bitcoin.Hash) *Entry { return p.byWTxID[wtxid] }

// Spender returns the transaction that spends an output, or nil.
func (p *Pool) Spender(out bitcoin.OutPoint) *Entry { return p.spends[out] }

// All calls yield for each transaction, in no order.
func (p *Pool) All(yield func(*Entry) bool) {
	for _, e := range p.entries {
		if !yield(e) {
			return
		}
	}
}

// Len returns the number of transactions.
func (p *Pool) Len() int { return len(p.entries) }

// Usage returns the memory that the transactions take, roughly, in octets.
func (p *Pool) Usage() int64 { return p.usage }

// VSize returns the sum of the transactions' virtual sizes.
func (p *Pool) VSize() int64 { return p.vsize }

// Fees returns the sum of the transactions' fees.
func (p *Pool) Fees() bitcoin.Amount { return p.fees }

// Sequence returns a number that grows by one with each transaction that enters or leaves.
func (p *Pool) Sequence() uint64 { return p.sequence }

// Changes returns a number that grows with every change of the pool, priorities included.
func (p *Pool) Changes() uint64 { return p.changes }

// Chunk is a part of a cluster: transactions that would be mined together, in order, and what they
// pay.
type Chunk struct {
	Txs []*Entry
	Price
}

// Chunks iterates over the cluster of an entry in the order in which it would be mined. What it yields
// must not be changed or kept.
func (p *Pool) Chunks(e *Entry) func(yield func(Chunk) bool) {
	return func(yield func(Chunk) bool) {
		c := e.cluster
		for _, ch := range c.chunks {
			if !yield(Chunk{c.txs[ch.from:ch.to], ch.Price}) {
				return
			}
		}
	}
}

// Diagram returns what a miner would earn by taking the best chunks of the whole pool one after
// another: the sums from nothing on.
func (p *Pool) Diagram() []Price {
	list := append(make([]Price, 1, 1+len(p.clusters)), diagram(p.clusters)...)
	for i := 1; i < len(list); i++ {
		list[i] = list[i].add(list[i-1])
	}
	return list
}

// Chunk returns what the chunk of an entry pays: the price at which it would be mined.
func (p *Pool) Chunk(e *Entry) Price { return e.cluster.chunkOf(e.rank).Price }

// Ancestors returns the entries of the pool that one depends on, itself included.
func (p *Pool) Ancestors(e *Entry) []*Entry {
	return p.closure([]*Entry{e}, func(e *Entry) []*Entry { return e.parents })
}

// Descendants returns the entries of the pool that depend on one, itself included.
func (p *Pool) Descendants(e *Entry) []*Entry { return p.descendants(e) }

func (p *Pool) descendants(of ...*Entry) []*Entry {
	return p.closure(of, func(e *Entry) []*Entry { return e.children })
}

// closure returns entries and all that can be reached from them, each once.
func (p *Pool) closure(of []*Entry, next func(*Entry) []*Entry) []*Entry {
	if len(of) == 0 {
		return nil
	}
	p.epoch++
	all := make([]*Entry, 0, 2*len(of))
	add := func(more []*Entry) {
		for _, e := range more {
			if e.seen != p.epoch {
				e.seen = p.epoch
				all = append(all, e)
			}
		}
	}
	add(of)
	for i := 0; i < len(all); i++ {
		add(next(all[i]))
	}
	return all
}

// clustersOf returns the clusters of entries, each once.
func (p *Pool) clustersOf(entries []*Entry) []*cluster {
	p.epoch++
	return p.addClusters(nil, entries)
}

// addClusters appends those clusters of entries that this walk has not seen.
func (p *Pool) addClusters(to []*cluster, entries []*Entry) []*cluster {
	for _, e := range entries {
		if e.cluster.seen != p.epoch {
			e.cluster.seen = p.epoch
			to = append(to, e.cluster)
		}
	}
	return to
}

// Less reports whether a would be mined before b: the order in which to announce them.
func (p *Pool) Less(a, b *Entry) bool {
	if a.cluster == b.cluster {
		return a.rank < b.rank
	}
	if c := p.Chunk(a).Cmp(p.Chunk(b)); c != 0 {
		return c > 0
	}
	// Clusters must not be mixed, lest a child comes before its parent.
	x, y := a.cluster.txs[0], b.cluster.txs[0]
	if x.Sequence != y.Sequence {
		return x.Sequence < y.Sequence
	}
	return bytes.Compare(x.WTxID[:], y.WTxID[:]) < 0
}

// Sorted returns all transactions in the order in which they would be mined, parents before children.
func (p *Pool) Sorted() []*Entry {
	list := make([]*Entry, 0, len(p.entries))
	for _, e := range p.entries {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b *Entry) int {
		switch {
		case p.Less(a, b):
			return -1
		case p.Less(b, a):
			return 1
		}
		return 0
	})
	return list
}

// Prioritise adds to what a transaction counts as paying, whether it is here or not; it pays no
// more. The sum of what was added so far is returned.
func (p *Pool) Prioritise(txid bitcoin.Hash, delta bitcoin.Amount) bitcoin.Amount {
	sum := p.deltas[txid] + delta
	if delta > 0 && sum < p.deltas[txid] { // as far as an Amount goes
		sum = math.MaxInt64
	} else if delta < 0 && sum > p.deltas[txid] {
		sum = math.MinInt64
	}
	if sum == 0 {
		delete(p.deltas, txid)
	} else {
		p.deltas[txid] = sum
	}
	if e := p.entries[txid]; e != nil {
		e.Delta = sum
		p.swapClusters([]*cluster{e.cluster}, arrange(slices.Clone(e.cluster.txs), nil))
		p.changes++
	}
	return sum
}

// Deltas returns what Prioritise was told, by txid. The map must not be changed or kept.
func (p *Pool) Deltas() map[bitcoin.Hash]bitcoin.Amount { return p.deltas }

// MarkUnbroadcast notes that a transaction was submitted here and must still reach a peer;
// ClearUnbroadcast that it has.
func (p *Pool) MarkUnbroadcast(txid bitcoin.Hash) { p.setUnbroadcast(p.entries[txid], true) }

// ClearUnbroadcast is the opposite of MarkUnbroadcast.
func (p *Pool) ClearUnbroadcast(txid bitcoin.Hash) { p.clearUnbroadcast(p.entries[txid], "") }

// clearUnbroadcast says so in the log, with Core's words.
func (p *Pool) clearUnbroadcast(e *Entry, how string) {
	if e != nil && e.unbroadcast {
		p.setUnbroadcast(e, false)
		p.cfg.Log.Debug(fmt.Sprintf("Removed %v from set of unbroadcast txns%s", e.TxID, how), "cat", "mempool")
	}
}

func (p *Pool) setUnbroadcast(e *Entry, to bool) {
	if e == nil || e.unbroadcast == to {
		return
	}
	e.unbroadcast = to
	if to {
		p.unsent++
	} else {
		p.unsent--
	}
}

// Unbroadcast returns the number of transactions that were submitted here and that no peer has asked
// for yet.
func (p *Pool) Unbroadcast() int { return p.unsent }
