package blockstore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/tallypost/tallypost/bitcoin"
)

const (
	// batchCoins is how many changed coins go through the log of the database. More are written
	// into tables of its own format, which it then takes in at once: that costs half the writing.
	batchCoins = 50_000
	// tableBytes is the size of such a table.
	tableBytes = 64 << 20
	// tableWriters is how many are written at once, if there are so many processors.
	tableWriters = 4
)

// flush writes what was changed, with the best block, in one step that is there whole or not at
// all after a crash. Then it forgets old coins if the cache is full. The caller makes sure that
// the coins do not change meanwhile.
func (c *Coins) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.store.checkRoom(c.dir, c.cache.arena.bytes); err != nil {
		return err
	}
	refs, begin := c.cache.dirtyRefs()
	all := changes{c, refs, begin}
	write := c.writeBatch
	if len(refs) > c.batch {
		write = c.writeTables
	}
	err := c.store.guard(func() error { return write(&all) })
	if err != nil {
		return fmt.Errorf("write coins: %w", err)
	}
	c.cache.settle(refs)
	keep := c.limit
	if c.full() {
		keep /= 2
	}
	c.cache.sweep(keep)
	return nil
}

// putCoin writes a coin, or where the value is nil deletes it.
type putCoin func(key, value []byte) error

// changes are the changed coins, by the first octet of their transactions.
type changes struct {
	*Coins
	refs  []ref
	begin [257]int // of an octet's coins
}

// sorted calls put for the changed coins whose transactions begin with the octets from one up to
// another, by their keys, which tables must be written in.
func (c *changes) sorted(from, to int, put putCoin) error {
	type keyed struct {
		key uint64 // the first octets
		ref
	}
	var bucket []keyed
	var key [coinKeySize]byte
	var value []byte
	for first := from; first < to; first++ {
		bucket = bucket[:0]
		for _, r := range c.refs[c.begin[first]:c.begin[first+1]] {
			bucket = append(bucket, keyed{binary.BigEndian.Uint64(c.cache.arena.at(r)), r})
		}
		slices.SortFunc(bucket, func(a, b keyed) int {
			if a.key != b.key {
				return cmp.Compare(a.key, b.key)
			}
			return c.compare(a.ref, b.ref)
		})
		for _, k := range bucket {
			p := c.cache.arena.at(k.ref)
			coinKey(&key, &bitcoin.OutPoint{
				TxID:  bitcoin.Hash(p),
				Index: binary.LittleEndian.Uint32(p[atIndex:]),
			})
			value = nil
			if coin := coinAt(p); !coin.IsSpent() {
				value = appendCoin(value, &coin)
			}
			if err := put(key[:], value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Coins) compare(a, b ref) int {
	p, q := c.cache.arena.at(a), c.cache.arena.at(b)
	if x := bytes.Compare(p[:32], q[:32]); x != 0 {
		return x
	}
	return cmp.Compare(binary.LittleEndian.Uint32(p[atIndex:]),
		binary.LittleEndian.Uint32(q[atIndex:]))
}

// writeBatch writes a few coins through the log.
func (c *Coins) writeBatch(all *changes) error {
	batch := c.db.NewBatch()
	defer batch.Close()
	if err := batch.Set([]byte{keyBest}, c.best[:], nil); err != nil {
		return err
	}
	err := all.sorted(0, 256, func(key, value []byte) error {
		if value == nil {
			return batch.Delete(key, nil)
		}
		return batch.Set(key, value, nil)
	})
	if err != nil {
		return err
	}
	return batch.Commit(pebble.Sync)
}

// writeTables writes many coins as tables, on all processors, and has the database take them all in
// with one change of its manifest.
func (c *Coins) writeTables(all *changes) error {
	parts := make([]tables, min(runtime.GOMAXPROCS(0), tableWriters))
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	for i := range parts {
		parts[i] = tables{coins: c, part: i}
		wg.Go(func() {
			errs[i] = parts[i].write(all, 256*i/len(parts), 256*(i+1)/len(parts))
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var paths []string
	for i := range parts {
		paths = append(paths, parts[i].paths...)
	}
	return c.db.Ingest(context.Background(), paths)
}

// leftovers is the directory of tables that are being written.
func (c *Coins) leftovers() string { return c.store.fs.PathJoin(c.dir, "flush") }

func (c *Coins) removeLeftovers() error {
	if err := c.store.fs.RemoveAll(c.leftovers()); err != nil {
		return fmt.Errorf("remove %s: %w", c.leftovers(), err)
	}
	return c.store.makeDir(c.leftovers())
}

// tables writes sorted coins into tables of limited size.
type tables struct {
	coins *Coins
	part  int
	paths []string
	w     *sstable.Writer
	size  int
}

// write writes the coins whose transactions begin with some octets, and in the first part the best block.
func (t *tables) write(all *changes, from, to int) error {
	var err error
	if t.part == 0 {
		err = t.put([]byte{keyBest}, t.coins.best[:])
	}
	if err == nil {
		err = all.sorted(from, to, t.put)
	}
	if err == nil {
		err = t.finish()
	}
	return err
}

func (t *tables) put(key, value []byte) error {
	if t.w == nil {
		if err := t.begin(); err != nil {
			return err
		}
	}
	var err error
	if value == nil {
		err = t.w.Delete(key)
	} else {
		err = t.w.Set(key, value)
	}
	if err != nil {
		return err
	}
	if t.size += len(key) + len(value); t.size > tableBytes {
		return t.finish()
	}
	return nil
}

func (t *tables) begin() error {
	fs := t.coins.store.fs
	path := fs.PathJoin(t.coins.leftovers(), fmt.Sprintf("%d-%06d.sst", t.part, len(t.paths)))
	file, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	options := t.coins.store.options(coinsDB)
	options.EnsureDefaults()
	// Options of the lowest level would mark deletions as having nothing left to delete.
	const level = 0
	t.w = sstable.NewWriter(objstorageprovider.NewFileWritable(file),
		options.MakeWriterOptions(level, t.coins.db.TableFormat()))
	t.paths = append(t.paths, path)
	t.size = 0
	return nil
}

// finish ends a table and makes it durable.
func (t *tables) finish() error {
	if t.w == nil {
		return nil
	}
	err := t.w.Close()
	t.w = nil
	return err
}
