package addrbook

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

// The format of peers.dat (Bitcoin Core addrman_impl.h, Format).
const (
	fileFormat                = 4 // V4_MULTIPORT
	formatMarked              = 1 // the number of buckets has a mark
	formatMap                 = 2 // the map's version is there
	formatBIP155              = 3
	incompatibilityBase       = 32
	addrV2Disk          int32 = 1 << 29
	diskVersion         int32 = 220000
)

// ErrVersion says that a file is of a format that is newer than what can be read.
var ErrVersion = errors.New("unsupported format of addrman database")

// Marshal returns the book as peers.dat holds it, for a network with this magic.
func (b *Book) Marshal(magic [4]byte) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	le := binary.LittleEndian
	out := append([]byte(nil), magic[:]...)
	out = append(out, fileFormat, incompatibilityBase+fileFormat)
	out = append(out, b.key[:]...)
	out = le.AppendUint32(out, uint32(b.newCount))
	out = le.AppendUint32(out, uint32(b.triedCount))
	out = le.AppendUint32(out, newBuckets^1<<30)
	ids := make([]int64, 0, len(b.entries))
	for id := range b.entries {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	index := make(map[int64]uint32, b.newCount)
	for _, id := range ids {
		if e := b.entries[id]; e.refs > 0 {
			index[id] = uint32(len(index))
			out = appendEntry(out, e)
		}
	}
	for _, id := range ids {
		if e := b.entries[id]; e.tried {
			out = appendEntry(out, e)
		}
	}
	for i := range b.newTable {
		at := len(out)
		out = le.AppendUint32(out, 0)
		n := uint32(0)
		for _, id := range b.newTable[i] {
			if id != -1 {
				out = le.AppendUint32(out, index[id])
				n++
			}
		}
		le.PutUint32(out[at:], n)
	}
	version := b.cfg.Map.Version()
	out = append(out, version[:]...)
	sum := bitcoin.DoubleHash(out)
	return append(out, sum[:]...)
}

func appendEntry(out []byte, e *Entry) []byte {
	out = AppendDisk(out, e.KnownAddr)
	out = appendAddr(out, e.Source)
	out = binary.LittleEndian.AppendUint64(out, uint64(max(0, e.LastSuccess.Unix())))
	return binary.LittleEndian.AppendUint32(out, uint32(e.attempts))
}

func appendAddr(out []byte, a wire.Addr) []byte {
	id, b := byte(a.Net), a.Bytes()
	if a.Net == wire.NetInternal || a.Net == wire.NetNone {
		id, b = byte(wire.NetIPv6), addrBytes(a)
		b = append(b, make([]byte, 16-len(b))...)
	}
	out = append(out, id)
	return append(bitcoin.AppendCompactSize(out, uint64(len(b))), b...)
}

// reader reads peers.dat; after an error it reads zeros.
type reader struct {
	b   []byte
	old bool // addresses are as before BIP 155: formats below 3
	err error
}

var errEnd = errors.New("AutoFile::read: end of file: iostream error")

func (r *reader) take(n int) []byte {
	if r.err != nil || n > len(r.b) {
		if r.err == nil {
			r.err = errEnd
		}
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }

func (r *reader) size() uint64 {
	if r.err != nil {
		return 0
	}
	n, size, err := bitcoin.ReadCompactSize(r.b)
	if err != nil {
		r.err = err
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) addr() (a wire.Addr) {
	if r.old {
		return wire.AddrFromIP(netip.AddrFrom16([16]byte(r.take(16))))
	}
	return r.addrV2()
}

func (r *reader) addrV2() (a wire.Addr) {
	net := wire.Net(r.take(1)[0])
	n := r.size()
	if n > 512 {
		r.err = errors.New("Address too long")
		return a
	}
	b := r.take(int(n))
	a, ok := wire.NewAddr(net, b)
	if !ok || r.err != nil {
		return wire.Addr{}
	}
	return a
}

func (r *reader) known() (a wire.KnownAddr) {
	v2 := int32(r.u32())&addrV2Disk != 0
	if v2 && r.old && r.err == nil {
		r.err = errors.New("Unsupported CAddress disk format version")
	}
	a.Time = r.u32()
	if v2 {
		a.Services = wire.Services(r.size())
		a.Addr = r.addrV2()
	} else {
		a.Services = wire.Services(binary.LittleEndian.Uint64(r.take(8)))
		a.Addr = wire.AddrFromIP(netip.AddrFrom16([16]byte(r.take(16))))
	}
	a.Port = binary.BigEndian.Uint16(r.take(2))
	return a
}

func (r *reader) entry() *Entry {
	e := &Entry{KnownAddr: r.known()}
	e.Source = r.addr()
	e.LastSuccess = time.Unix(int64(binary.LittleEndian.Uint64(r.take(8))&math.MaxInt64), 0)
	e.attempts = int(int32(r.u32()))
	return e
}

// Unmarshal reads what Marshal, or Core, wrote. An error is in Core's words.
func Unmarshal(data []byte, magic [4]byte, cfg Config) (*Book, error) {
	r := &reader{b: data}
	if got := r.take(4); r.err == nil && [4]byte(got) != magic {
		return nil, errors.New("Invalid network magic number")
	}
	b := New(cfg)
	if err := b.read(r); err != nil {
		return nil, err
	}
	sum := bitcoin.DoubleHash(data[:len(data)-len(r.b)])
	got := r.take(32)
	if r.err != nil {
		return nil, r.err
	}
	if [32]byte(got) != sum {
		return nil, errors.New("Checksum mismatch, data corrupted")
	}
	if code := b.check(); code != 0 {
		return nil, fmt.Errorf("Corrupt data. Consistency check failed with code %d: iostream error", code)
	}
	return b, nil
}

func (b *Book) read(r *reader) error {
	format, compat := r.take(1)[0], r.take(1)[0]
	if r.err != nil {
		return r.err
	}
	if compat < incompatibilityBase {
		return fmt.Errorf("Corrupted addrman database: The compat value (%d) is lower than the "+
			"expected minimum value %d.: iostream error", compat, incompatibilityBase)
	}
	if lowest := compat - incompatibilityBase; lowest > fileFormat {
		return fmt.Errorf("%w: Unsupported format of addrman database: %d. It is compatible with formats "+
			">=%d, but the maximum supported by this version of Bitcoin Core is %d.",
			ErrVersion, format, lowest, fileFormat)
	}
	r.old = format < formatBIP155
	copy(b.key[:], r.take(32))
	inNew, inTried, buckets := int32(r.u32()), int32(r.u32()), r.u32()
	if format >= formatMarked {
		buckets ^= 1 << 30
	}
	if r.err != nil {
		return r.err
	}
	if inNew < 0 || inNew > newBuckets*bucketSize {
		return fmt.Errorf("Corrupt AddrMan serialization: nNew=%d, should be in [0, %d]: iostream error",
			inNew, newBuckets*bucketSize)
	}
	if inTried < 0 || inTried > triedBuckets*bucketSize {
		return fmt.Errorf("Corrupt AddrMan serialization: nTried=%d, should be in [0, %d]: iostream error",
			inTried, triedBuckets*bucketSize)
	}
	fresh := make([]*Entry, 0, min(int(inNew), len(r.b)))
	ids := make([]int64, 0, cap(fresh))
	for range inNew {
		e := r.entry()
		if r.err != nil {
			return r.err
		}
		id := int64(-1)
		if _, twice := b.byAddr[e.AddrPort]; !twice && e.Valid() {
			id = b.insert(e)
		}
		fresh, ids = append(fresh, e), append(ids, id)
	}
	for range inTried {
		e := r.entry()
		if r.err != nil {
			return r.err
		}
		b.restoreTried(e)
	}
	return b.readBuckets(r, int32(buckets), format >= formatMap, fresh, ids)
}

func (b *Book) restoreTried(e *Entry) {
	bucket := b.triedBucket(e)
	pos := b.position(e, false, bucket)
	if _, twice := b.byAddr[e.AddrPort]; twice || !e.Valid() || b.tried[bucket][pos] != -1 {
		return
	}
	id := b.insert(e)
	b.newCount--
	b.count(e.Net).New--
	e.tried = true
	b.tried[bucket][pos] = id
	b.triedCount++
	b.count(e.Net).Tried++
}

// readBuckets puts the new addresses back into their places, or, where those are taken or the number of
// buckets is another, into the one that their source gives them. Those without a place go.
func (b *Book) readBuckets(r *reader, buckets int32, mapped bool, fresh []*Entry, ids []int64) error {
	type pair struct{ bucket, index int }
	var pairs []pair
	for bucket := range buckets {
		n := int32(r.u32())
		for range n {
			i := int(int32(r.u32()))
			if r.err != nil {
				return r.err
			}
			if i >= 0 && i < len(fresh) {
				pairs = append(pairs, pair{int(bucket), i})
			}
		}
		if r.err != nil {
			return r.err
		}
	}
	var version [32]byte
	if mapped {
		version = [32]byte(r.take(32))
	}
	sameMap := version == [32]byte(b.cfg.Map.Version())
	if r.err != nil {
		return r.err
	}
	for _, p := range pairs {
		e, id := fresh[p.index], ids[p.index]
		if id == -1 || e.refs >= newBucketsPerAddr {
			continue
		}
		bucket := p.bucket
		if buckets != newBuckets || !sameMap ||
			b.newTable[bucket][b.position(e, true, bucket)] != -1 {
			bucket = b.newBucket(e, e.Source)
		}
		if place := &b.newTable[bucket][b.position(e, true, bucket)]; *place == -1 {
			*place = id
			e.refs++
		}
	}
	for i, e := range fresh {
		if ids[i] != -1 && e.refs == 0 {
			b.remove(ids[i])
		}
	}
	return nil
}

// AppendDisk appends an address as it stands in peers.dat and anchors.dat.
func AppendDisk(out []byte, a wire.KnownAddr) []byte {
	le := binary.LittleEndian
	out = le.AppendUint32(out, uint32(diskVersion|addrV2Disk))
	out = le.AppendUint32(out, a.Time)
	out = bitcoin.AppendCompactSize(out, uint64(a.Services))
	out = appendAddr(out, a.Addr)
	return binary.BigEndian.AppendUint16(out, a.Port)
}

// ParseDisk reads a list of at most so many addresses: their number, then what AppendDisk wrote.
func ParseDisk(data []byte, most int) ([]wire.KnownAddr, error) {
	r := &reader{b: data}
	n := r.size()
	if n > uint64(most) {
		return nil, fmt.Errorf("%d addresses where %d are allowed", n, most)
	}
	var out []wire.KnownAddr
	for range n {
		a := r.known()
		if r.err != nil {
			return nil, r.err
		}
		out = append(out, a)
	}
	return out, r.err
}
