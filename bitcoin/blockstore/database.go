package blockstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// dbKind says what a database is for.
type dbKind uint8

const (
	indexDB dbKind = iota + 1
	coinsDB
)

// versionKey holds what a database is, and of which network: kind[1] version[1] magic[4].
var versionKey = []byte{'v'}

// dbVersion is the format of both databases. A greater one is of a newer program.
const dbVersion = 1

// openDB opens a database, and makes it if need be; wipe empties it first.
func (s *Store) openDB(dir string, kind dbKind, wipe bool) (*pebble.DB, error) {
	if err := s.makeDir(dir); err != nil {
		return nil, err
	}
	if err := s.checkDir(dir); err != nil {
		return nil, err
	}
	if wipe {
		s.cfg.Log.Info(fmt.Sprintf("Wiping LevelDB in %s (Pebble)", dir)) // what tools look for, and what it is
		if err := s.empty(dir); err != nil {
			return nil, err
		}
	}
	s.cfg.Log.Info(fmt.Sprintf("Opening LevelDB in %s (Pebble)", dir))
	opened := make(chan *pebble.DB, 1)
	err := s.guard(func() error {
		db, err := pebble.Open(dir, s.options(kind))
		opened <- db
		return err
	})
	if err != nil {
		return nil, s.explain(dir, err)
	}
	db := <-opened
	if err := s.checkVersion(db, dir, kind); err != nil {
		return nil, errors.Join(err, s.closeDB(db))
	}
	s.cfg.Log.Info("Opened LevelDB successfully (Pebble)")
	return db, nil
}

// checkDir looks for the database of another program.
func (s *Store) checkDir(dir string) error {
	names, err := s.list(dir)
	if err != nil {
		return err
	}
	if slices.Contains(names, "CURRENT") {
		return fmt.Errorf("%w: %s holds a LevelDB database, probably Bitcoin Core's: give another "+
			"-datadir and import the blocks with -loadblock", ErrForeign, dir)
	}
	return nil
}

// empty removes the files of a database, and makes sure that none can come back.
func (s *Store) empty(dir string) error {
	names, err := s.list(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := s.fs.RemoveAll(s.fs.PathJoin(dir, name)); err != nil {
			return fmt.Errorf("empty database %s: %w", dir, err)
		}
	}
	return s.syncDir(dir)
}

// explain puts into one line why a database cannot be opened.
func (s *Store) explain(dir string, err error) error {
	if pebble.IsCorruptionError(err) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: database %s: %w", ErrCorrupt, dir, err)
	}
	return fmt.Errorf("open database %s: %w", dir, err)
}

// checkVersion marks a new database, and refuses one that is not of this kind and network.
func (s *Store) checkVersion(db *pebble.DB, dir string, kind dbKind) error {
	want := append([]byte{byte(kind), dbVersion}, s.cfg.Network.Magic[:]...)
	have, err := get(db, versionKey)
	switch {
	case err != nil:
		return s.explain(dir, err)
	case have == nil:
		return s.guard(func() error { return db.Set(versionKey, want, pebble.Sync) })
	case len(have) < 2 || have[0] != byte(kind):
		return fmt.Errorf("%w: database %s is not what belongs there", ErrForeign, dir)
	case have[1] > dbVersion:
		return fmt.Errorf("%w: database %s is of a newer version of this program", ErrForeign, dir)
	case !bytes.Equal(have, want):
		return fmt.Errorf("%w: database %s is of another network. Wrong datadir for network %s?",
			ErrForeign, dir, s.cfg.Network.Name)
	}
	return nil
}

// get returns a copy of a value, or nil.
func get(db pebble.Reader, key []byte) ([]byte, error) {
	value, closer, err := db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return bytes.Clone(value), nil
}

// options are sized by the cache: what a node with a small one has in memory tables is small too.
func (s *Store) options(kind dbKind) *pebble.Options {
	o := &pebble.Options{
		FS:                          dbFS{s.fs, s},
		Cache:                       s.cache,
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      dbLog{s},
		EventListener:               &pebble.EventListener{DataCorruption: s.damaged},
		MemTableSize:                256 << 10,
		MemTableStopWritesThreshold: 4,
		MaxOpenFiles:                64,
	}
	if kind == coinsDB {
		o.MemTableSize = uint64(max(256<<10, min(s.cfg.CacheBytes/32, 64<<20)))
		o.MaxOpenFiles = 500
		o.LBaseMaxBytes = 256 << 20
		o.L0StopWritesThreshold = 1000 // flushes come in large portions, and wait for nobody
		for i := range o.TargetFileSizes {
			o.TargetFileSizes[i] = 32 << 20
		}
		for i := range o.Levels {
			o.Levels[i].BlockSize = 4 << 10 // a coin is read alone: its neighbours are strangers
			o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
			// Keys are hashes and so are most values.
			o.Levels[i].Compression = func() *sstable.CompressionProfile {
				return sstable.NoCompression
			}
		}
	}
	return o
}

// guard runs a function that writes to a database, or gives it up when the store breaks meanwhile:
// see dbFS. What the function uses is its own from then on.
func (s *Store) guard(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-s.fault.happened():
		return s.fault.err()
	}
}

// closeDB closes a database, unless the store is broken.
func (s *Store) closeDB(db *pebble.DB) error {
	if s.fault.err() != nil {
		return nil
	}
	return s.guard(db.Close)
}

// damaged tells that a database holds what it cannot. Whoever was reading has it as an error and gives up; by
// default his goroutine would never return.
func (s *Store) damaged(info pebble.DataCorruptionInfo) {
	s.cfg.Log.Error("database is damaged", "file", info.Path, "err", info.Details)
}

// dbLog is the log of a database.
type dbLog struct{ s *Store }

// Infof drops what would fill the log.
func (dbLog) Infof(string, ...any) {}

// Errorf logs.
func (l dbLog) Errorf(format string, args ...any) {
	l.s.cfg.Log.Warn("database", "err", fmt.Sprintf(format, args...))
}

// Fatalf is called where the database cannot go on. It must not return.
func (l dbLog) Fatalf(format string, args ...any) {
	l.s.broken(fmt.Errorf("database: "+format, args...))
}
