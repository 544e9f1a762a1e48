package blockstore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

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
	write := c.writeBatch
	if len(refs) > c.batch {
		write = c.writeTables
	}
	err := c.store.guard(func() error {
		return write(func(put putCoin) error {
			return c.sorted(refs, begin, put)
		})
	})
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

// sorted calls put for the changed coins by their keys, which tables must be written in.
func (c *Coins) sorted(refs []ref, begin [257]int, put putCoin) error {
	type keyed struct {
		key uint64 // the first octets
		ref
	}
	var bucket []keyed
	var key [coinKeySize]byte
	var value []byte
	for first := range 256 {
		bucket = bucket[:0]
		for _, r := range refs[begin[first]:begin[first+1]] {
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
func (c *Coins) writeBatch(coins func(putCoin) error) error {
	batch := c.db.NewBatch()
	defer batch.Close()
	if err := batch.Set([]byte{keyBest}, c.best[:], nil); err != nil {
		return err
	}
	err := coins(func(key, value []byte) error {
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

// writeTables writes many coins as tables and has the database take them all in with one change of
// its manifest.
func (c *Coins) writeTables(coins func(putCoin) error) error {
	t := tables{coins: c}
	err := t.put([]byte{keyBest}, c.best[:])
	if err == nil {
		err = coins(t.put)
	}
	if err == nil {
		err = t.finish()
	}
	if err != nil {
		return err
	}
	return c.db.Ingest(context.Background(), t.paths)
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
	paths []string
	w     *sstable.Writer
	size  int
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
	path := fs.PathJoin(t.coins.leftovers(), fmt.Sprintf("%06d.sst", len(t.paths)))
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
