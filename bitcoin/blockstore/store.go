package blockstore

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/internal/durable"
)

// Errors that callers branch on.
var (
	// ErrLocked: another process has the directory.
	ErrLocked = errors.New("directory is locked")
	// ErrForeign: the directory holds data of another network or another program.
	ErrForeign = errors.New("not our data")
	// ErrCorrupt: what is stored is damaged.
	ErrCorrupt = errors.New("corrupt")
	// ErrBroken: a write failed; only closing the store and opening it again helps.
	ErrBroken = errors.New("block store is broken")
	// ErrFull: there is no room on the disk.
	ErrFull = errors.New("Disk space is too low!")

	// ErrIndex, ErrFiles and ErrCoins tell what cannot be opened: the index of blocks, the files of
	// blocks, or the coins.
	ErrIndex = errors.New("block index")
	ErrFiles = errors.New("block files")
	ErrCoins = errors.New("coins")
)

// Config of a Store. Network is needed.
type Config struct {
	Network *bitcoin.Network
	// Dir is the network's data directory. Empty keeps everything in memory.
	Dir string
	// BlocksDir is where blk and rev files are (Core's -blocksdir, with the network's part). Empty:
	// blocks below Dir.
	BlocksDir string
	FS        vfs.FS // nil: the machine's
	// CacheBytes is the memory for coins and databases (Core's -dbcache). 0: 450 MiB.
	CacheBytes int64
	// NoXOR writes new block files in plain (Core's -blocksxor=0).
	NoXOR bool
	// SmallFiles are block files of 64 KiB, for tests of pruning (Core's -fastprune).
	SmallFiles bool
	// WipeIndex forgets the index of blocks, to be made anew from their files, and the coins
	// (Core's -reindex); WipeCoins the coins only (-reindex-chainstate).
	WipeIndex, WipeCoins bool
	// Pruned says that block files may be missing: those after the first gap are of no use when the
	// index is made anew, and are deleted.
	Pruned bool
	Log    *slog.Logger // nil: none
}

func (c *Config) fill() error {
	if c.Network == nil {
		return errors.New("blockstore: no network")
	}
	if c.FS == nil {
		c.FS = vfs.Default
		if c.Dir == "" {
			c.FS = vfs.NewMem()
		}
	}
	if c.Dir == "" {
		c.Dir = "memory"
	}
	if c.BlocksDir == "" {
		c.BlocksDir = c.FS.PathJoin(c.Dir, "blocks")
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = 450 << 20
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Store keeps blocks, undo data, the index and the coins.
type Store struct {
	cfg   Config
	fs    vfs.FS
	locks []io.Closer
	cache *pebble.Cache // of both databases
	index *pebble.DB
	coins *Coins
	files *files
	fault fault

	assumed *Coins       // built on a snapshot; nil where there are none
	base    bitcoin.Hash // the snapshot's block
}

// Open opens the store of a network, and makes it if need be. The error says what is wrong in one
// line.
func Open(cfg Config) (*Store, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, fs: cfg.FS}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) open() error {
	if err := s.makeDirs(); err != nil {
		return err
	}
	for _, dir := range []string{s.cfg.Dir, s.cfg.BlocksDir} {
		lock, err := s.fs.Lock(s.fs.PathJoin(dir, ".lock"))
		if err != nil {
			return fmt.Errorf("%w: Cannot obtain a lock on directory %s. Tallypost is probably already "+
				"running.", ErrLocked, dir)
		}
		s.locks = append(s.locks, lock)
	}
	for _, dir := range []string{s.cfg.Dir, s.cfg.BlocksDir} {
		if err := s.checkRoom(dir, 0); err != nil {
			return err
		}
	}
	s.cache = pebble.NewCache(s.DBCache())
	if s.cfg.WipeIndex || s.cfg.WipeCoins {
		if err := s.wipeAssumed(); err != nil {
			return err
		}
	}
	if err := s.openIndex(); err != nil {
		return fmt.Errorf("%w: %w", ErrIndex, err)
	}
	key, err := s.openXOR()
	if err != nil {
		return err
	}
	if s.files, err = openFiles(s, key); err != nil {
		return fmt.Errorf("%w: %w", ErrFiles, err)
	}
	if err := s.openAllCoins(); err != nil {
		return fmt.Errorf("%w: %w", ErrCoins, err)
	}
	return nil
}

// openIndex opens the index of blocks, empties it if that is wanted, and then sees to what goes with it.
func (s *Store) openIndex() (err error) {
	if s.index, err = s.openDB(s.indexDir(), indexDB, s.cfg.WipeIndex); err != nil {
		return err
	}
	if s.cfg.WipeIndex {
		if err := s.SetFlag(flagReindexing, true); err != nil {
			return err
		}
		if s.cfg.Pruned {
			if err := s.removeAfterGap(); err != nil {
				return err
			}
		}
	}
	return nil
}

// indexDir is below Dir even where the files of blocks are elsewhere: they may be on a slow disk.
func (s *Store) indexDir() string { return s.fs.PathJoin(s.cfg.Dir, "blocks", "index") }

func (s *Store) makeDirs() error {
	return errors.Join(s.makeDir(s.cfg.Dir), s.makeDir(s.cfg.BlocksDir))
}

// makeDir makes a directory and those above it, durably.
func (s *Store) makeDir(dir string) error {
	if _, err := s.fs.Stat(dir); err == nil {
		return nil
	}
	above := s.fs.PathDir(dir)
	if above != dir && above != "." {
		if err := s.makeDir(above); err != nil {
			return err
		}
	}
	if err := s.fs.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	return s.syncDir(above)
}

// Close closes the store. It does not Flush.
func (s *Store) Close() error {
	var errs []error
	if s.assumed != nil && s.assumed != s.coins {
		errs = append(errs, s.assumed.close())
	}
	if s.coins != nil {
		errs = append(errs, s.coins.close())
	}
	if s.files != nil {
		errs = append(errs, s.files.close())
	}
	if s.index != nil {
		errs = append(errs, s.closeDB(s.index))
	}
	if s.cache != nil {
		s.cache.Unref()
	}
	for _, lock := range s.locks {
		errs = append(errs, lock.Close())
	}
	return errors.Join(errs...)
}

// Coins returns the coins that were built on blocks alone.
func (s *Store) Coins() *Coins { return s.coins }

// Flush makes durable what was written before, then the records, then the coins that are given.
func (s *Store) Flush(records []Record, coins ...*Coins) error {
	if err := s.fault.err(); err != nil {
		return err
	}
	if err := s.checkRoom(s.cfg.Dir, 0); err != nil {
		return err
	}
	if err := s.files.flush(); err != nil {
		return s.fault.set(err)
	}
	if err := s.writeRecords(records); err != nil {
		return s.fault.set(err)
	}
	for _, c := range coins {
		if err := c.flush(); err != nil {
			return s.fault.set(err)
		}
	}
	return nil
}

// minRoom is how much room a disk must have for anything to be written (Bitcoin Core
// util/fs_helpers.cpp, CheckDiskSpace).
const minRoom = 50 << 20

// checkRoom returns an error if a disk has too little room for more octets.
func (s *Store) checkRoom(dir string, more int64) error {
	usage, err := s.fs.GetDiskUsage(dir)
	if errors.Is(err, vfs.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("room on the disk of %s: %w", dir, err)
	}
	if usage.AvailBytes < minRoom+uint64(more) {
		return fmt.Errorf("%w (%s has %d MiB left)", ErrFull, dir, usage.AvailBytes>>20)
	}
	return nil
}

func (s *Store) syncDir(dir string) error {
	d, err := s.fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("open directory %s: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// fault keeps the first failure after which the store must not be used.
type fault struct {
	mu     sync.Mutex
	first  error         // guarded by mu
	broken chan struct{} // guarded by mu; closed once there is a failure
}

// set notes a failure and returns it with ErrBroken.
func (f *fault) set(err error) error {
	if err == nil {
		return nil
	}
	if durable.IsFull(err) && !errors.Is(err, ErrFull) {
		err = fmt.Errorf("%w (%w)", ErrFull, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.first == nil {
		f.first = err
		if !errors.Is(err, ErrBroken) {
			f.first = fmt.Errorf("%w: %w", ErrBroken, err)
		}
		if f.broken != nil {
			close(f.broken)
		}
	}
	return f.first
}

func (f *fault) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.first
}

// happened returns a channel that is closed once there is a failure.
func (f *fault) happened() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken == nil {
		f.broken = make(chan struct{})
		if f.first != nil {
			close(f.broken)
		}
	}
	return f.broken
}

// list returns the names in a directory, sorted.
func (s *Store) list(dir string) ([]string, error) {
	names, err := s.fs.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	slices.Sort(names)
	return names, nil
}
