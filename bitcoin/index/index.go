package index

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// Config of indexes. Chain and Dir are needed.
type Config struct {
	Chain      *chain.Chain
	Dir        string       // Core's indexes directory
	FS         vfs.FS       // nil: the machine's
	Log        *slog.Logger // nil: none
	CacheBytes int64        // for each database; 0: 8 MiB
	Wipe       bool         // begin anew
}

const (
	// batchBlocks is how many blocks are taken in at most before they are made durable together.
	batchBlocks = 64
	// batchBytes is the size of a batch after which no further block is added to it.
	batchBytes = 16 << 20
	// logInterval is how often a long synchronisation says where it is (Core's SYNC_LOG_INTERVAL).
	logInterval = 30 * time.Second
)

// block is what indexes are made from.
type block struct {
	chain.Entry
	body  *bitcoin.Block
	raw   []byte
	spent consensus.Spent
}

// keeper is what makes one index out of blocks. Its methods are called by one goroutine.
type keeper interface {
	// load sets it to where it was at a cursor, which may lie before the last one.
	load(at chain.Cursor) error
	// apply adds to the batch what comes with a block.
	apply(b *pebble.Batch, blk *block) error
	// revert adds to the batch what changes when a block is taken back.
	revert(b *pebble.Batch, blk *block) error
	// sync makes durable what is not in the database, before a batch is.
	sync() error
	// close gives back what is not the database.
	close() error
	// needs tells what it reads of blocks that are taken in, and of those that are taken back.
	needs() needs
}

type needs struct{ undo, reverted bool }

// Index is one index. It is made by Open and kept by Run.
type Index struct {
	name  string
	cfg   Config
	db    *pebble.DB
	keep  keeper
	fault *fault

	mu      sync.Mutex    // guards what follows
	cursor  chain.Cursor  // of what is stored
	synced  bool          // it has been at the tip once
	visited int           // of the tips that the chain has left
	changed chan struct{} // closed with every change
}

// Status is how far an index has come.
type Status struct {
	Name   string
	Synced bool
	Height bitcoin.Height // of the last block taken in; 0 where there is none
}

// open opens the database and goes to where the index was.
func (x *Index) open(dir string, with keeper) error {
	x.changed = make(chan struct{})
	x.fault = newFault()
	db, err := openDB(&x.cfg, dir, x.cfg.Wipe, x.fault)
	if err != nil {
		return err
	}
	x.db = db
	x.keep = with
	err = x.begin()
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", x.name, err), x.close())
	}
	return nil
}

// begin finds the last block of the index that the chain knows.
func (x *Index) begin() error {
	at, err := readCursor(x.db)
	if err != nil {
		return err
	}
	for at != (chain.Cursor{}) {
		// A header may be known whose block was lost.
		if e, ok := x.cfg.Chain.Lookup(at.Hash); ok && (e.Active || e.Status&blockstore.HaveData != 0) {
			break
		}
		if at.Height == 0 {
			return fmt.Errorf("best block of %s not found. Please rebuild the index.", x.name)
		}
		hash, ok, err := hashAt(x.db, at.Height-1)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("best block of %s not found. Please rebuild the index.", x.name)
		}
		at = chain.Cursor{Hash: hash, Height: at.Height - 1}
	}
	if err := x.keep.load(at); err != nil {
		return err
	}
	x.cursor = at
	x.synced = at.Hash == x.cfg.Chain.ValidatedTip().Hash
	x.visited = len(x.cfg.Chain.Detours(0))
	x.lock(at)
	return nil
}

// lock keeps the blocks from being pruned that are still to be taken in.
func (x *Index) lock(at chain.Cursor) { x.cfg.Chain.LockPruning(x.name, at.Height) }

func (x *Index) close() error {
	var err error
	if x.keep != nil {
		err = x.keep.close()
	}
	if x.db == nil {
		return err
	}
	return errors.Join(err, x.fault.guard(x.db.Close))
}

// Status returns how far the index has come.
func (x *Index) Status() Status {
	x.mu.Lock()
	defer x.mu.Unlock()
	return Status{Name: x.name, Synced: x.synced, Height: x.cursor.Height}
}

// Wait waits until the index has taken in what the chain has now, if it has been at the tip once: else it
// returns false at once (Core's BlockUntilSyncedToCurrentChain).
func (x *Index) Wait(ctx context.Context) bool {
	for {
		tip := x.cfg.Chain.ValidatedTip()
		x.mu.Lock()
		at, synced, visited, changed := x.cursor, x.synced, x.visited, x.changed
		x.mu.Unlock()
		if !synced {
			return false
		}
		if at.Hash == tip.Hash && len(x.cfg.Chain.Detours(visited)) == 0 {
			return !x.cfg.Chain.BackgroundSync() // else it has all that was validated, and not the tip
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

func (x *Index) set(at chain.Cursor, synced bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cursor = at
	x.synced = x.synced || synced
	close(x.changed)
	x.changed = make(chan struct{})
}

// run follows the chain until ctx ends.
func (x *Index) run(ctx context.Context) error {
	wake := make(chan struct{}, 1)
	defer x.cfg.Chain.OnTip(func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})()
	announced, logged := false, time.Now()
	for ctx.Err() == nil {
		more, err := x.step(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", x.name, err)
		}
		if more {
			if time.Since(logged) > logInterval {
				logged = time.Now()
				x.cfg.Log.Info(fmt.Sprintf("Syncing %s with block chain from height %d", x.name,
					x.Status().Height))
			}
			continue
		}
		if !announced {
			announced = true
			x.cfg.Log.Info(fmt.Sprintf("%s is enabled at height %d", x.name, x.Status().Height))
		}
		select {
		case <-wake:
		case <-ctx.Done():
		}
	}
	return nil
}

// step takes in some blocks; more is false at the tip.
func (x *Index) step(ctx context.Context) (more bool, err error) {
	x.mu.Lock()
	from := x.cursor
	x.mu.Unlock()
	u, detour, err := x.updates(from)
	if err != nil {
		return false, err
	}
	if len(u.Reverted)+len(u.Applied) == 0 {
		x.set(from, true)
		return false, nil
	}
	b := x.db.NewBatch()
	at := from
	for _, e := range u.Reverted {
		if at, err = x.takeBack(b, e); err != nil {
			return false, errors.Join(err, b.Close())
		}
	}
	for _, e := range u.Applied {
		if ctx.Err() != nil || b.Len() > batchBytes {
			break
		}
		if err := x.takeIn(b, e); err != nil {
			return false, errors.Join(err, b.Close())
		}
		at = chain.Cursor{Hash: e.Hash, Height: e.Height}
	}
	if at == from {
		return false, b.Close()
	}
	if err := x.commit(b, at); err != nil {
		return false, err
	}
	x.lock(at)
	x.set(at, at == u.Next && u.Behind == 0 && !detour)
	return true, nil
}

// updates returns the next blocks on the way to the tip. It leads over the tips that the chain has left
// meanwhile: of their blocks, too, somebody may ask.
func (x *Index) updates(from chain.Cursor) (u chain.Updates, detour bool, err error) {
	for {
		x.mu.Lock()
		visited := x.visited
		x.mu.Unlock()
		left := x.cfg.Chain.Detours(visited)
		if len(left) == 0 {
			u, err = x.cfg.Chain.ValidatedSince(from, batchBlocks)
			return u, false, err
		}
		u, err = x.cfg.Chain.UpdatesTo(left[0], from, batchBlocks)
		if err != nil || len(u.Reverted)+len(u.Applied) > 0 && x.have(u.Applied) {
			return u, true, err
		}
		x.mu.Lock()
		x.visited++
		x.mu.Unlock()
	}
}

// have reports whether blocks are here, with what the index needs of them.
func (x *Index) have(blocks []chain.Entry) bool {
	want := blockstore.HaveData
	for _, e := range blocks {
		if e.Status&want == 0 || x.keep.needs().undo && e.Height > 0 && e.Status&blockstore.HaveUndo == 0 {
			return false
		}
	}
	return true
}

func (x *Index) takeBack(b *pebble.Batch, e chain.Entry) (chain.Cursor, error) {
	blk := &block{Entry: e}
	if x.keep.needs().reverted {
		var err error
		if blk, err = x.read(e, false); err != nil {
			return chain.Cursor{}, err
		}
	}
	if err := x.keep.revert(b, blk); err != nil {
		return chain.Cursor{}, fmt.Errorf("take back block %v: %w", e.Hash, err)
	}
	return chain.Cursor{Hash: e.Header.PrevBlock, Height: e.Height - 1}, nil
}

func (x *Index) takeIn(b *pebble.Batch, e chain.Entry) error {
	blk, err := x.read(e, x.keep.needs().undo)
	if err != nil {
		return err
	}
	if err := x.keep.apply(b, blk); err != nil {
		return fmt.Errorf("take in block %v: %w", e.Hash, err)
	}
	return b.Set(heightKey(keyHeight, e.Height), e.Hash[:], nil)
}

func (x *Index) commit(b *pebble.Batch, at chain.Cursor) error {
	if err := b.Set([]byte{keyCursor}, cursorBytes(at), nil); err != nil {
		return err
	}
	if err := x.keep.sync(); err != nil {
		return err
	}
	return x.fault.guard(func() error { return b.Commit(pebble.Sync) })
}

// read reads a block and, if that is wanted, what it spends.
func (x *Index) read(e chain.Entry, undo bool) (*block, error) {
	raw, err := x.cfg.Chain.RawBlock(e.Hash)
	if err != nil {
		return nil, fmt.Errorf("Failed to read block %v from disk: %w", e.Hash, err)
	}
	body, err := bitcoin.ParseBlock(raw)
	if err != nil {
		return nil, fmt.Errorf("Failed to read block %v from disk: %w", e.Hash, err)
	}
	blk := &block{Entry: e, body: body, raw: raw}
	if undo && e.Height > 0 {
		if blk.spent, err = x.cfg.Chain.Undo(e.Hash); err != nil {
			return nil, fmt.Errorf("Failed to read undo block data %v from disk: %w", e.Hash, err)
		}
		inputs := 0
		for i := 1; i < len(body.Txs); i++ {
			inputs += len(body.Txs[i].In)
		}
		if inputs != blk.spent.Len() {
			return nil, fmt.Errorf("%w: block %v has %d inputs and undo data for %d", blockstore.ErrCorrupt,
				e.Hash, inputs, blk.spent.Len())
		}
	}
	return blk, nil
}

// Available returns the height of the first block that the index has yet to take in, and whether those
// from there on are here: on a pruned node they may be gone.
func (x *Index) Available() (from bitcoin.Height, ok bool) {
	tip := x.cfg.Chain.ValidatedTip()
	x.mu.Lock()
	at := x.cursor
	x.mu.Unlock()
	if at != (chain.Cursor{}) {
		fork, ok := x.cfg.Chain.Fork(at.Hash, tip.Hash)
		if !ok {
			return 0, false
		}
		from = fork.Height + 1
	}
	for next := from; next <= tip.Height; {
		path := x.cfg.Chain.Path(tip.Hash, next, 2000)
		if !x.have(path) {
			return from, false
		}
		next += bitcoin.Height(len(path))
	}
	return from, true
}

// Wanted says which indexes there are to be.
type Wanted struct{ Tx, Filters, CoinStats bool }

// Set are the indexes of a node; those that are not wanted are nil.
type Set struct {
	Tx        *TxIndex
	Filters   *FilterIndex
	CoinStats *CoinStatsIndex
}

// Open opens indexes. It starts nothing.
func Open(cfg Config, w Wanted) (*Set, error) {
	fillConfig(&cfg)
	s := &Set{}
	var err error
	if w.Tx {
		if s.Tx, err = openTxIndex(cfg); err != nil {
			return nil, err
		}
	}
	if w.CoinStats {
		if s.CoinStats, err = openCoinStats(cfg); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	if w.Filters {
		if s.Filters, err = openFilters(cfg); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// All returns the indexes that there are, in the order in which Core lists them.
func (s *Set) All() (list []*Index) {
	if s == nil {
		return nil
	}
	if s.Tx != nil {
		list = append(list, &s.Tx.Index)
	}
	if s.CoinStats != nil {
		list = append(list, &s.CoinStats.Index)
	}
	if s.Filters != nil {
		list = append(list, &s.Filters.Index)
	}
	return list
}

// Run keeps the indexes up with the chain until ctx ends or one of them fails.
func (s *Set) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	list := s.All()
	errs := make([]error, len(list))
	for i, x := range list {
		wg.Go(func() {
			x.cfg.Log.Info(x.name + " thread start")
			defer x.cfg.Log.Info(x.name + " thread exit")
			if errs[i] = x.run(ctx); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Close closes the indexes; Run must have ended.
func (s *Set) Close() error {
	var errs []error
	for _, x := range s.All() {
		errs = append(errs, x.close())
	}
	return errors.Join(errs...)
}
