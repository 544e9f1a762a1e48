package blockstore

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/tallypost/tallypost/bitcoin"
)

// The keys of the index; numbers in them are big-endian, so that they are in order.
//
//	'v'                      kind, version and magic, see versionKey
//	'b' height[4] hash[32]   a Record: header[80] status[2] txs[4] file[4] data[4] undo[4]
//	'f' number[4]            a FileInfo: seven numbers[4]
//	'F' name                 a flag that is set
const (
	keyRecord = 'b'
	keyFile   = 'f'
	keyFlag   = 'F'

	recordKeySize = 1 + 4 + 32
	recordSize    = bitcoin.HeaderSize + 2 + 4*4
)

// flagReindexing says that the index is being made anew from the block files.
const flagReindexing = "reindexing"

func recordKey(dst []byte, r *Record) []byte {
	dst = append(dst, keyRecord)
	dst = binary.BigEndian.AppendUint32(dst, uint32(r.Height))
	return append(dst, r.Hash[:]...)
}

func appendRecord(dst []byte, r *Record) []byte {
	dst = r.Header.Append(dst)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(r.Status))
	dst = binary.LittleEndian.AppendUint32(dst, r.Txs)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(r.File))
	dst = binary.LittleEndian.AppendUint32(dst, r.Data)
	return binary.LittleEndian.AppendUint32(dst, r.Undo)
}

func parseRecord(key, value []byte) (r Record, err error) {
	if len(key) != recordKeySize || len(value) != recordSize {
		return r, fmt.Errorf("%w: record of %d and %d octets in the block index",
			ErrCorrupt, len(key), len(value))
	}
	r.Height = bitcoin.Height(binary.BigEndian.Uint32(key[1:]))
	r.Hash = bitcoin.Hash(key[5:])
	if r.Header, err = bitcoin.ParseHeader(value[:bitcoin.HeaderSize]); err != nil {
		return r, err
	}
	rest := value[bitcoin.HeaderSize:]
	r.Status = Status(binary.LittleEndian.Uint16(rest))
	r.Txs = binary.LittleEndian.Uint32(rest[2:])
	r.File = int32(binary.LittleEndian.Uint32(rest[6:]))
	r.Data = binary.LittleEndian.Uint32(rest[10:])
	r.Undo = binary.LittleEndian.Uint32(rest[14:])
	return r, nil
}

// Records calls f for each block of the index, by height, until it returns an error.
func (s *Store) Records(f func(*Record) error) error {
	return s.scanIndex(keyRecord, func(key, value []byte) error {
		r, err := parseRecord(key, value)
		if err != nil {
			return err
		}
		return f(&r)
	})
}

// scanIndex calls f for each key that begins with an octet, in their order.
func (s *Store) scanIndex(first byte, f func(key, value []byte) error) error {
	it, err := s.index.NewIter(&pebble.IterOptions{
		LowerBound: []byte{first}, UpperBound: []byte{first + 1},
	})
	if err != nil {
		return fmt.Errorf("read the block index: %w", err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return s.explain(s.indexDir(), err)
		}
		if err := f(it.Key(), value); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return s.explain(s.indexDir(), err)
	}
	return nil
}

// writeRecords makes records durable, with the sizes of the files that have grown.
func (s *Store) writeRecords(records []Record) error {
	infos := s.files.takeDirty()
	if len(records)+len(infos) == 0 {
		return nil
	}
	// Batches are made and closed where they are written: that may be given up, see guard.
	err := s.guard(func() error { return s.commitParts(records, infos) })
	if err != nil {
		return fmt.Errorf("write the block index: %w", err)
	}
	return nil
}

// batchRecords is how many records of headers are written in one batch: a database keeps the memory of its
// largest one.
const batchRecords = 20_000

// commitParts writes what tells of data in files as a whole; headers alone, each behind its parent, in parts
// of which some may be missing after a crash.
func (s *Store) commitParts(records []Record, infos map[int32]FileInfo) error {
	whole := len(records)
	for whole > 0 && records[whole-1].Status&(HaveData|HaveUndo) == 0 {
		whole--
	}
	for whole = min(whole+batchRecords, len(records)); whole < len(records); whole = min(batchRecords, len(records)) {
		if err := s.commitRecords(records[:whole], infos, pebble.NoSync); err != nil {
			return err
		}
		records, infos = records[whole:], nil
	}
	return s.commitRecords(records, infos, pebble.Sync)
}

func (s *Store) commitRecords(records []Record, infos map[int32]FileInfo, durable *pebble.WriteOptions) error {
	batch := s.index.NewBatchWithSize(len(records)*(recordKeySize+recordSize+8) + 1024)
	defer batch.Close()
	var key, value []byte
	for i := range records {
		key = recordKey(key[:0], &records[i])
		value = appendRecord(value[:0], &records[i])
		if err := batch.Set(key, value, nil); err != nil {
			return err
		}
	}
	for number, info := range infos {
		key = binary.BigEndian.AppendUint32(append(key[:0], keyFile), uint32(number))
		if err := batch.Set(key, info.append(nil), nil); err != nil {
			return err
		}
	}
	return batch.Commit(durable)
}

// Flag reports whether a flag is set.
func (s *Store) Flag(name string) (bool, error) {
	value, err := get(s.index, append([]byte{keyFlag}, name...))
	return value != nil, err
}

// SetFlag sets or clears a flag, durably.
func (s *Store) SetFlag(name string, to bool) error {
	key := append([]byte{keyFlag}, name...)
	err := s.guard(func() error {
		if to {
			return s.index.Set(key, []byte{1}, pebble.Sync)
		}
		return s.index.Delete(key, pebble.Sync)
	})
	return s.fault.set(err)
}

// Reindexing reports whether the index is being made anew, or was when the program ended.
func (s *Store) Reindexing() (bool, error) { return s.Flag(flagReindexing) }

// Reindexed notes that all block files have been read.
func (s *Store) Reindexed() error { return s.SetFlag(flagReindexing, false) }
