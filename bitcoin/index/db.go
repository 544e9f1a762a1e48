package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
)

// dbVersion is the format of all indexes. A greater one is of a newer program.
const dbVersion = 1

// The keys that all indexes have; see the package's comment.
const (
	keyVersion = 'v'
	keyCursor  = 'c'
	keyHeight  = 'h'
)

// ErrNewer is the error of an index that a newer version of the program made.
var ErrNewer = errors.New("the index was made by a newer version of this program")

// openDB opens the database of an index, and makes it if need be; wipe empties it first.
func openDB(cfg *Config, dir string, wipe bool, broken *fault) (*pebble.DB, error) {
	if wipe {
		cfg.Log.Info(fmt.Sprintf("Wiping LevelDB in %s (Pebble)", dir)) // what tools look for, and what it is
		if err := cfg.FS.RemoveAll(dir); err != nil {
			return nil, fmt.Errorf("empty %s: %w", dir, err)
		}
	}
	if err := cfg.FS.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	cfg.Log.Info(fmt.Sprintf("Opening LevelDB in %s (Pebble)", dir))
	cache := pebble.NewCache(cfg.CacheBytes)
	defer cache.Unref()
	o := &pebble.Options{
		FS: cfg.FS, Cache: cache, FormatMajorVersion: pebble.FormatNewest, MemTableSize: 4 << 20,
		MaxOpenFiles: 64, Logger: dbLog{cfg.Log, broken},
		// Whoever was reading has it as an error; by default his goroutine would end without a word.
		EventListener: &pebble.EventListener{DataCorruption: func(info pebble.DataCorruptionInfo) {
			cfg.Log.Error("database of an index is damaged", "file", info.Path, "err", info.Details)
		}},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	opened := make(chan *pebble.DB, 1)
	err := broken.guard(func() error {
		db, err := pebble.Open(dir, o)
		opened <- db
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open index %s: %w", dir, err)
	}
	db := <-opened
	v, err := get(db, []byte{keyVersion})
	switch {
	case err != nil:
	case v == nil:
		err = db.Set([]byte{keyVersion}, []byte{dbVersion}, pebble.Sync)
	case len(v) != 1 || v[0] > dbVersion:
		err = fmt.Errorf("%s: %w", dir, ErrNewer)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	cfg.Log.Info("Opened LevelDB successfully (Pebble)")
	return db, nil
}

// get returns a copy of a value, or nil.
func get(r pebble.Reader, key []byte) ([]byte, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return append([]byte{}, v...), nil
}

func readCursor(r pebble.Reader) (chain.Cursor, error) {
	b, err := get(r, []byte{keyCursor})
	if err != nil || b == nil {
		return chain.Cursor{}, err
	}
	if len(b) != 36 {
		return chain.Cursor{}, errors.New("the index's cursor is not well-formed")
	}
	return chain.Cursor{Hash: bitcoin.Hash(b[:32]), Height: bitcoin.Height(binary.BigEndian.Uint32(b[32:]))}, nil
}

func cursorBytes(c chain.Cursor) []byte {
	return binary.BigEndian.AppendUint32(append([]byte{}, c.Hash[:]...), uint32(c.Height))
}

func heightKey(kind byte, h bitcoin.Height) []byte {
	return binary.BigEndian.AppendUint32([]byte{kind}, uint32(h))
}

func hashKey(kind byte, h bitcoin.Hash) []byte { return append([]byte{kind}, h[:]...) }

// hashAt returns the block that was last taken in at a height.
func hashAt(r pebble.Reader, h bitcoin.Height) (hash bitcoin.Hash, ok bool, err error) {
	b, err := get(r, heightKey(keyHeight, h))
	if err != nil || len(b) != 32 {
		return hash, false, err
	}
	return bitcoin.Hash(b), true, nil
}

// dbLog is the log of a database.
type dbLog struct {
	log   *slog.Logger
	fault *fault
}

// Infof drops what would fill the log.
func (dbLog) Infof(string, ...any) {}

// Errorf logs.
func (l dbLog) Errorf(format string, args ...any) {
	l.log.Warn("database of an index", "err", fmt.Sprintf(format, args...))
}

// Fatalf is called where the database cannot go on, and must not return: the goroutine ends, and whoever
// waits for it learns of the fault.
func (l dbLog) Fatalf(format string, args ...any) {
	l.fault.set(fmt.Errorf("database of an index: "+format, args...))
	runtime.Goexit()
}

// fault is what broke a database.
type fault struct {
	once sync.Once
	done chan struct{}
	err  error // set before done is closed
}

func newFault() *fault { return &fault{done: make(chan struct{})} }

func (f *fault) set(err error) {
	f.once.Do(func() {
		f.err = err
		close(f.done)
	})
}

// guard runs a function that writes to a database, or gives it up when the database breaks meanwhile. What
// the function uses is its own from then on.
func (f *fault) guard(write func() error) error {
	done := make(chan error, 1)
	go func() { done <- write() }()
	select {
	case err := <-done:
		return err
	case <-f.done:
		return f.err
	}
}

func fillConfig(cfg *Config) {
	if cfg.FS == nil {
		cfg.FS = vfs.Default
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.CacheBytes <= 0 {
		cfg.CacheBytes = 8 << 20
	}
}

// readRecord returns what an index has of a block under a kind of key. The error is ErrNotFound where it has
// nothing.
func readRecord[R any](x *Index, kind byte, block bitcoin.Hash, parse func([]byte) (R, bool)) (r R, err error) {
	v, err := get(x.db, hashKey(kind, block))
	if err != nil {
		return r, err
	}
	if v == nil {
		return r, ErrNotFound
	}
	r, ok := parse(v)
	if !ok {
		return r, fmt.Errorf("%s: the record of block %v is not well-formed", x.name, block)
	}
	return r, nil
}
