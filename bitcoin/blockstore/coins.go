package blockstore

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// The keys of the coins' database.
//
//	'v'                        kind, version and magic, see versionKey
//	'B'                        hash[32] of the block as of which the coins are
//	'C' txid[32] index[4]      a coin as Core's chainstate has it; the index is big-endian
const (
	keyBest = 'B'
	keyCoin = 'C'

	coinKeySize = 1 + 32 + 4
)

const (
	// parallelReads is how many coins are read from disk at once: a disk answers many questions in
	// about the time of one.
	parallelReads = 16
	// readsPerWorker is how many coins are worth a goroutine.
	readsPerWorker = 32
	// readsPerIterator is how many coins are worth an iterator, which then asks for each in less time.
	readsPerIterator = 8
	// lastOverwriting is the height of the last block whose coinbase overwrote an older coin (BIP 30).
	lastOverwriting = 91_880
	// maxCache is what the positions of an arena reach.
	maxCache = 28 << 30
)

// Coins are the unspent outputs as of a block: a database, and a cache of what was changed since it
// was written or read. Any goroutine may read; one at a time may change.
type Coins struct {
	store *Store
	db    *pebble.DB
	dir   string
	limit int64 // of the cache, in octets
	batch int   // see batchCoins

	mu    sync.Mutex   // guards all below
	cache *cache       //
	best  bitcoin.Hash // the block as of which the coins are
}

// openCoins opens the coins in a directory.
func (s *Store) openCoins(name string, wipe bool) (*Coins, error) {
	c := &Coins{store: s, dir: s.fs.PathJoin(s.cfg.Dir, name), batch: batchCoins}
	c.limit = s.CacheLimit()
	c.cache = newCache(c.limit)
	var err error
	if c.db, err = s.openDB(c.dir, coinsDB, wipe); err != nil {
		return nil, err
	}
	if err := c.removeLeftovers(); err != nil {
		return nil, err
	}
	best, err := get(c.db, []byte{keyBest})
	if err != nil {
		return nil, s.explain(c.dir, err)
	}
	if best != nil && len(best) != len(c.best) {
		return nil, fmt.Errorf("%w: best block of %d octets in %s", ErrCorrupt, len(best), c.dir)
	}
	copy(c.best[:], best)
	return c, nil
}

func (c *Coins) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.store.fault.err() == nil { // else a write that was given up may still read the cache
		c.cache.free()
		c.cache = newCache(0) // whoever still asks finds nothing
	}
	return c.store.closeDB(c.db)
}

// Best returns the block as of which the coins are; the zero hash where there is none yet.
func (c *Coins) Best() bitcoin.Hash {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.best
}

// CacheUsage returns the octets that the cache takes, and how many it may take.
func (c *Coins) CacheUsage() (used, limit int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cache.bytes(), c.limit
}

// CacheCoins returns the number of coins in the cache, those that were spent included.
func (c *Coins) CacheCoins() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cache.used
}

// SetLimit changes how many octets the cache may take, up to what Config.CacheBytes allows for all coins
// together. What is too much now goes with the next Flush.
func (c *Coins) SetLimit(octets int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = min(octets, maxCache)
	c.cache.bound(tableWidth(c.limit))
}

// CacheLimit returns how many octets all caches of coins may take together.
func (s *Store) CacheLimit() int64 { return min(s.cfg.CacheBytes*7/8, maxCache) }

// DBCache returns how many octets of the databases are kept in memory.
func (s *Store) DBCache() int64 { return min(s.cfg.CacheBytes/8, 64<<20) }

// Load enters a coin of a snapshot, into coins that BeginAssumed has returned. Once the cache is full it is
// time for FlushLoaded.
func (c *Coins) Load(out bitcoin.OutPoint, coin *consensus.Coin) (full bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cache.add(&out, coin, true)
	return c.full()
}

// FlushLoaded writes what was loaded since the last one, as part of the coins as of a block; the zero hash
// says that they are not all there yet.
func (c *Coins) FlushLoaded(block bitcoin.Hash) error {
	c.mu.Lock()
	c.best = block
	c.mu.Unlock()
	err := c.store.fault.set(c.flush())
	if err == nil && block == (bitcoin.Hash{}) { // no coin of a file comes twice: room for the next ones
		c.mu.Lock()
		defer c.mu.Unlock()
		c.cache.reset()
	}
	return err
}

// Full reports whether the cache is full, so that it is time for a Flush.
func (c *Coins) Full() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.full()
}

func (c *Coins) full() bool { return c.cache.bytes() > c.limit || c.cache.crowded() }

// Coins sets coins[i] to the unspent output at outs[i], or to the zero Coin. What had to be read
// from disk stays in the cache.
func (c *Coins) Coins(outs []bitcoin.OutPoint, coins []consensus.Coin) error {
	return c.read(outs, coins, true)
}

// Peek is Coins for who asks on behalf of strangers: what it reads from disk is not kept.
func (c *Coins) Peek(outs []bitcoin.OutPoint, coins []consensus.Coin) error {
	return c.read(outs, coins, false)
}

// Prefetch reads coins into the cache that will be asked for soon.
func (c *Coins) Prefetch(outs []bitcoin.OutPoint) error {
	c.mu.Lock()
	var misses []int
	for i := range outs {
		if c.cache.lookup(&outs[i]) == nil {
			misses = append(misses, i)
		}
	}
	c.mu.Unlock()
	if len(misses) == 0 {
		return nil
	}
	missing := make([]bitcoin.OutPoint, len(misses))
	for i, at := range misses {
		missing[i] = outs[at]
	}
	return c.Coins(missing, make([]consensus.Coin, len(missing)))
}

// Cached reports whether an output is unspent, as far as the cache knows.
func (c *Coins) Cached(out bitcoin.OutPoint) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.cache.lookup(&out)
	return p != nil && flags(p[atFlags])&spent == 0
}

func (c *Coins) read(outs []bitcoin.OutPoint, coins []consensus.Coin, keep bool) error {
	c.mu.Lock()
	misses := c.readCache(outs, coins)
	c.mu.Unlock()
	if len(misses) == 0 {
		return nil
	}
	if err := c.readDB(outs, coins, misses); err != nil {
		return err
	}
	if !keep {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range misses {
		if !coins[i].IsSpent() && !c.full() {
			c.cache.fill(&outs[i], &coins[i])
		}
	}
	return nil
}

// readCache sets the coins that are in the cache and returns the positions of the others. Scripts
// are copied, for the cache may use their memory for other coins.
func (c *Coins) readCache(outs []bitcoin.OutPoint, coins []consensus.Coin) (misses []int) {
	const typical = 34
	scripts := make([]byte, 0, typical*len(outs))
	for i := range outs {
		p := c.cache.lookup(&outs[i])
		if p == nil {
			misses = append(misses, i)
			continue
		}
		coins[i] = coinAt(p)
		if script := coins[i].Out.Script; script != nil {
			from := len(scripts)
			scripts = append(scripts, script...)
			coins[i].Out.Script = scripts[from:len(scripts):len(scripts)]
		}
	}
	return misses
}

// readDB sets the coins at some positions from the database, many at once, and brings the positions into
// the order of the keys.
func (c *Coins) readDB(outs []bitcoin.OutPoint, coins []consensus.Coin, at []int) error {
	slices.SortFunc(at, func(i, j int) int { return compareOuts(&outs[i], &outs[j]) })
	workers := min(parallelReads, (len(at)+readsPerWorker-1)/readsPerWorker)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		part := at[len(at)*w/workers : len(at)*(w+1)/workers]
		work := func() { errs[w] = c.readSome(outs, coins, part) }
		if w == workers-1 {
			work() // the last part is done here
		} else {
			wg.Go(work)
		}
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// readSome reads coins, whose positions are sorted by their keys. A key is its own prefix for the
// database: what SeekPrefixGE finds is the coin itself.
func (c *Coins) readSome(outs []bitcoin.OutPoint, coins []consensus.Coin, at []int) error {
	if len(at) < readsPerIterator {
		return c.readEach(outs, coins, at)
	}
	it, err := c.db.NewIter(&pebble.IterOptions{KeyTypes: pebble.IterKeyTypePointsOnly})
	if err != nil {
		return c.store.explain(c.dir, err)
	}
	defer it.Close()
	var key [coinKeySize]byte
	for _, i := range at {
		coins[i] = consensus.Coin{}
		if !it.SeekPrefixGE(coinKey(&key, &outs[i])) {
			if err := it.Error(); err != nil {
				return c.store.explain(c.dir, err)
			}
			continue
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return c.store.explain(c.dir, err)
		}
		if err := c.decode(&outs[i], &coins[i], value); err != nil {
			return err
		}
	}
	return nil
}

// readEach reads a few coins.
func (c *Coins) readEach(outs []bitcoin.OutPoint, coins []consensus.Coin, at []int) error {
	var key [coinKeySize]byte
	for _, i := range at {
		value, closer, err := c.db.Get(coinKey(&key, &outs[i]))
		if err == pebble.ErrNotFound {
			coins[i] = consensus.Coin{}
			continue
		}
		if err != nil {
			return c.store.explain(c.dir, err)
		}
		err = c.decode(&outs[i], &coins[i], value)
		closer.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// decode sets a coin to what the database has of it.
func (c *Coins) decode(out *bitcoin.OutPoint, coin *consensus.Coin, value []byte) error {
	d := decoder{b: value}
	*coin = d.coin()
	if d.err != nil {
		return fmt.Errorf("%w: coin %v:%d: %w", ErrCorrupt, out.TxID, out.Index, d.err)
	}
	return nil
}

// compareOuts orders outpoints as their keys are ordered.
func compareOuts(a, b *bitcoin.OutPoint) int {
	if x := bytes.Compare(a.TxID[:], b.TxID[:]); x != 0 {
		return x
	}
	return cmp.Compare(a.Index, b.Index)
}

func coinKey(key *[coinKeySize]byte, out *bitcoin.OutPoint) []byte {
	key[0] = keyCoin
	copy(key[1:], out.TxID[:])
	binary.BigEndian.PutUint32(key[33:], out.Index)
	return key[:]
}

// Apply changes the coins as a block does, which becomes the best. Nothing is written.
func (c *Coins) Apply(d *consensus.Diff, block bitcoin.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for out := range d.Spent() {
		c.cache.spend(&out)
	}
	for out, coin := range d.Created() {
		c.cache.add(&out, &coin, coin.Coinbase && coin.Height <= lastOverwriting)
	}
	c.best = block
}

// Revert changes the coins as taking a block back does; its parent becomes the best.
func (c *Coins) Revert(r *consensus.Reversal, parent bitcoin.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for out := range r.Removed() {
		c.cache.spend(&out)
	}
	for out, coin := range r.Restored() {
		c.cache.add(&out, &coin, true)
	}
	c.best = parent
}
