package index

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
)

// The keys of the index of filters.
//
//	'b' hash[32]   filter hash[32] filter header[32] file[4] offset[4] size[4]
//	'p'            file[4] offset[4]: where the next filter goes
const (
	keyFilter   = 'b'
	keyPosition = 'p'
)

// filterRecord is what the database knows of a filter.
type filterRecord struct {
	hash, header bitcoin.Hash
	pos          position
	size         uint32
}

func (r *filterRecord) append(dst []byte) []byte {
	dst = append(append(dst, r.hash[:]...), r.header[:]...)
	dst = r.pos.append(dst)
	return binary.BigEndian.AppendUint32(dst, r.size)
}

func parseFilterRecord(b []byte) (r filterRecord, ok bool) {
	if len(b) != 76 {
		return r, false
	}
	copy(r.hash[:], b)
	copy(r.header[:], b[32:])
	r.pos = parsePosition(b[64:])
	r.size = binary.BigEndian.Uint32(b[72:])
	return r, true
}

// FilterIndex has the basic filters of blocks, those of blocks that were taken back too. It serves BIP 157.
type FilterIndex struct {
	Index
	files *filterFiles
}

// FilterName is what Core calls the index of basic filters.
const FilterName = "basic block filter index"

func openFilters(cfg Config) (*FilterIndex, error) {
	dir := cfg.FS.PathJoin(cfg.Dir, "blockfilter", "basic")
	x := &FilterIndex{Index: Index{name: FilterName, cfg: cfg}}
	if cfg.Wipe {
		if err := cfg.FS.RemoveAll(dir); err != nil {
			return nil, fmt.Errorf("empty %s: %w", dir, err)
		}
	}
	if err := cfg.FS.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	x.files = &filterFiles{fs: cfg.FS, dir: dir}
	return x, x.open(cfg.FS.PathJoin(dir, "db"), &filterKeeper{x: x})
}

// filterKeeper makes filters.
type filterKeeper struct {
	x      *FilterIndex
	at     bitcoin.Hash // the block whose header is the last one
	header bitcoin.Hash
	next   position
}

func (*filterKeeper) needs() needs                         { return needs{undo: true} }
func (k *filterKeeper) revert(*pebble.Batch, *block) error { return nil }
func (k *filterKeeper) sync() error                        { return k.x.files.sync() }
func (k *filterKeeper) close() error                       { return k.x.files.close() }

func (k *filterKeeper) load(at chain.Cursor) error {
	v, err := get(k.x.db, []byte{keyPosition})
	if err != nil {
		return err
	}
	if v != nil {
		if len(v) != 8 {
			return errors.New("the position of the next filter is not well-formed")
		}
		k.next = parsePosition(v)
	}
	k.at, k.header = at.Hash, bitcoin.Hash{}
	if at == (chain.Cursor{}) {
		return nil
	}
	r, err := k.x.record(at.Hash)
	k.header = r.header
	return err
}

func (k *filterKeeper) apply(b *pebble.Batch, blk *block) error {
	if prev := blk.Header.PrevBlock; blk.Height > 0 && prev != k.at { // blocks were taken back
		r, err := k.x.record(prev)
		if err != nil {
			return err
		}
		k.header = r.header
	}
	filter := EncodeFilter(blk.Hash, Elements(blk.body, blk.spent))
	pos, next, err := k.x.files.write(k.next, blk.Hash, filter)
	if err != nil {
		return err
	}
	r := filterRecord{hash: FilterHash(filter), pos: pos, size: uint32(len(filter))}
	r.header = FilterHeader(r.hash, k.header)
	k.at, k.header, k.next = blk.Hash, r.header, next
	if err := b.Set(hashKey(keyFilter, blk.Hash), r.append(nil), nil); err != nil {
		return err
	}
	return b.Set([]byte{keyPosition}, next.append(nil), nil)
}

func (x *FilterIndex) record(block bitcoin.Hash) (filterRecord, error) {
	return readRecord(&x.Index, keyFilter, block, parseFilterRecord)
}

// Read returns the filter of a block. The error is ErrNotFound where there is none.
func (x *FilterIndex) Read(block bitcoin.Hash) ([]byte, error) {
	r, err := x.record(block)
	if err != nil {
		return nil, err
	}
	filter, err := x.files.read(r.pos, block, r.size)
	if err == nil && FilterHash(filter) != r.hash {
		err = errors.New("checksum mismatch in filter")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: filter of block %v: %w", x.name, block, err)
	}
	return filter, nil
}

// Filter, FilterHash and FilterHeader are as p2p.Filters has them; what cannot be read is not there.
func (x *FilterIndex) Filter(block bitcoin.Hash) ([]byte, bool) {
	filter, err := x.Read(block)
	if err != nil && !errors.Is(err, ErrNotFound) {
		x.cfg.Log.Error(err.Error())
	}
	return filter, err == nil
}

// FilterHash returns the hash of a block's filter.
func (x *FilterIndex) FilterHash(block bitcoin.Hash) (bitcoin.Hash, bool) {
	r, err := x.record(block)
	return r.hash, err == nil
}

// FilterHeader returns the header of a block's filter.
func (x *FilterIndex) FilterHeader(block bitcoin.Hash) (bitcoin.Hash, bool) {
	r, err := x.record(block)
	return r.header, err == nil
}
