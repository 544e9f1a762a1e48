package durable

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// bufferBytes is how much is collected before it is written without waiting for a commit. It bounds
// what the log holds in memory at twice this and one record.
const bufferBytes = 1 << 20

// fullRetry is how long a commit waits for room before it tries again to write.
const fullRetry = 200 * time.Millisecond

// Log is an append-only log in segments. All methods may be called by several goroutines.
type Log struct {
	cfg Config
	dir vfs.File

	// committing is held by Commit: commits reach the disk one after the other.
	committing sync.Mutex
	// writing is held while the buffer is written to the file and while the segment changes. It is
	// taken before mu.
	writing sync.Mutex
	idle    []byte // guarded by writing; the buffer not in use
	// slotting is held while a slot is made.
	slotting sync.Mutex

	mu      sync.Mutex
	live    map[uint32]*segment // guarded by mu; by number, the current one included
	free    []*segment          // guarded by mu; slots ready for use
	cur     *segment            // guarded by mu; nil until the first record
	last    uint32              // guarded by mu; number of the latest segment
	lastEnd uint32              // guarded by mu; where it ended, if there is no current one
	slots   int                 // guarded by mu; the next slot to be made
	making  bool                // guarded by mu; a goroutine makes a free slot
	buf     []byte              // guarded by mu; records that are not written yet
	bufAt   uint32              // guarded by mu; offset of buf in cur
	seq     uint64              // guarded by mu; of the last commit record
	flushed Pos                 // guarded by mu; all before is in the file
	synced  Pos                 // guarded by mu; all before is on stable storage
	err     error               // guarded by mu; why the log is broken

	stop   chan struct{}  // closed by Close
	makers sync.WaitGroup // the goroutine that makes slots
}

// segment is a slot and what it holds.
type segment struct {
	header
	file vfs.File
	name string
	end  uint32 // guarded by Log.mu; where the next record goes
	pins int    // guarded by Log.mu
	done bool   // guarded by Log.mu; to be freed when the last pin is gone
}

// MaxRecord is the most octets that one Append takes.
func (l *Log) MaxRecord() int { return l.cfg.SegmentBytes/2 - commitHeader - recordHeader }

// Append adds a data record made of the parts put together. It promises nothing before a Commit
// that begins later has returned. The segment is pinned for the caller: Unpin it when the record is
// no longer wanted, or something else keeps the segment. It returns ErrFull where there is no room.
func (l *Log) Append(parts ...[]byte) (Extent, error) {
	pcrc, n := payloadCRC(parts...)
	if n > l.MaxRecord() {
		return Extent{}, fmt.Errorf("record of %d octets, the limit is %d", n, l.MaxRecord())
	}
	for {
		l.mu.Lock()
		switch {
		case l.err != nil:
			err := l.err
			l.mu.Unlock()
			return Extent{}, err
		case !l.fits(n) || len(l.free) == 0:
			// Without a free slot there would be no room for the commit: data gives way.
			l.mu.Unlock()
			if err := l.rotate(n, 1); err != nil {
				return Extent{}, err
			}
		case len(l.buf) >= bufferBytes:
			l.mu.Unlock()
			if err := l.flush(true); err != nil {
				return Extent{}, err
			}
		default:
			pos := l.put(kindData, n, pcrc, parts...)
			l.cur.pins++
			l.mu.Unlock()
			return Extent{pos, uint32(n)}, nil
		}
	}
}

// Commit adds a commit record and returns when it, and all that was appended before, is on stable
// storage. ErrFull means that nothing has happened; after any other error the log is broken and
// whether the record will be found again is unknown.
func (l *Log) Commit(payload []byte) (Mark, error) {
	l.committing.Lock()
	defer l.committing.Unlock()
	seg, mark, err := l.putCommit(payload)
	if err != nil {
		return Mark{}, err
	}
	if err := l.flushAnyway(); err != nil {
		return Mark{}, err
	}
	l.mu.Lock()
	written := l.flushed
	l.mu.Unlock()
	if err := seg.file.SyncData(); err != nil {
		return Mark{}, l.fail(fmt.Errorf("sync of %s: %w", seg.name, err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if written.Segment() != seg.number {
		written = mark.Pos // of the segment after it nothing was synced
	}
	l.synced = max(l.synced, written)
	return mark, l.err
}

// putCommit adds the record; before it, in records of their own, those parts of the payload that
// one record has no room for.
func (l *Log) putCommit(payload []byte) (*segment, Mark, error) {
	limit := l.MaxRecord() - commitHeader
	number := uint32(0)
	for ; len(payload) > limit; number++ {
		var head [partHeader]byte
		binary.LittleEndian.PutUint32(head[:], number)
		if _, _, err := l.putAnyway(kindPart, head[:], payload[:limit]); err != nil {
			return nil, Mark{}, err
		}
		payload = payload[limit:]
	}
	var head [commitHeader]byte
	l.mu.Lock()
	binary.LittleEndian.PutUint64(head[:], l.seq+1)
	binary.LittleEndian.PutUint64(head[8:], uint64(l.synced))
	binary.LittleEndian.PutUint32(head[16:], number)
	l.mu.Unlock()
	seg, end, err := l.putAnyway(kindCommit, head[:], payload)
	if err != nil {
		return nil, Mark{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	return seg, Mark{end, l.seq}, nil
}

// putAnyway adds a record, in the reserve if need be, and returns its segment and end.
func (l *Log) putAnyway(kind byte, parts ...[]byte) (*segment, Pos, error) {
	pcrc, n := payloadCRC(parts...)
	for {
		l.mu.Lock()
		if l.err != nil {
			err := l.err
			l.mu.Unlock()
			return nil, 0, err
		}
		if l.fits(n) {
			l.put(kind, n, pcrc, parts...)
			seg, end := l.cur, at(l.cur.number, l.cur.end)
			l.mu.Unlock()
			return seg, end, nil
		}
		l.mu.Unlock()
		if err := l.rotate(n, 0); err != nil {
			return nil, 0, err
		}
	}
}

// fits reports whether a record goes into the current segment. mu is held.
func (l *Log) fits(n int) bool {
	return l.cur != nil && int(l.cur.end)+recordSize(n) <= int(l.cur.size)
}

// put adds a record that fits to the buffer. mu is held.
func (l *Log) put(kind byte, n int, pcrc uint32, parts ...[]byte) Pos {
	pos := at(l.cur.number, l.cur.end)
	start := len(l.buf)
	l.buf = append(l.buf, make([]byte, recordHeader)...)
	putRecordHeader(l.buf[start:], l.cur.salt, pos, kind, n, pcrc)
	for _, p := range parts {
		l.buf = append(l.buf, p...)
	}
	l.buf = append(l.buf, make([]byte, recordSize(n)-recordHeader-n)...)
	l.cur.end += uint32(recordSize(n))
	return pos
}

// flush writes the buffer to the file. Where there is no room it returns ErrFull and keeps the
// buffer. With nudge it has the system begin to put it on the disk, so that the next sync is short.
func (l *Log) flush(nudge bool) error {
	l.writing.Lock()
	l.mu.Lock()
	seg, b, off := l.cur, l.buf, l.bufAt
	if seg == nil || len(b) == 0 || l.err != nil {
		err := l.err
		l.mu.Unlock()
		l.writing.Unlock()
		return err
	}
	l.buf, l.bufAt = l.idle[:0], off+uint32(len(b))
	l.mu.Unlock()

	_, err := seg.file.WriteAt(b, int64(off))
	if err == nil {
		l.mu.Lock()
		l.flushed = at(seg.number, off+uint32(len(b)))
		l.mu.Unlock()
		l.idle = shrink(b)
		l.writing.Unlock()
		if nudge {
			if _, err := seg.file.SyncTo(int64(off) + int64(len(b))); err != nil {
				return l.fail(fmt.Errorf("sync of %s: %w", seg.name, err))
			}
		}
		return nil
	}
	if IsFull(err) {
		l.mu.Lock()
		l.idle = l.buf[:0:0]
		l.buf, l.bufAt = append(b, l.buf...), off
		l.mu.Unlock()
		l.writing.Unlock()
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	l.writing.Unlock()
	return l.fail(fmt.Errorf("write to %s: %w", seg.name, err))
}

// shrink gives a buffer back for reuse unless one big record made it large.
func shrink(b []byte) []byte {
	if cap(b) > 4*bufferBytes {
		return nil
	}
	return b[:0]
}

// flushAnyway writes the buffer and waits for room for as long as it takes: the record has its
// place in the log, and those before and after it depend on it.
func (l *Log) flushAnyway() error {
	for warned := false; ; warned = true {
		err := l.flush(false)
		if err == nil || !IsFull(err) {
			return err
		}
		if !warned {
			l.cfg.Log.Error("disk is full: waiting for room", "dir", l.cfg.Dir, "err", err)
		}
		select {
		case <-time.After(fullRetry):
		case <-l.stop:
			return l.fail(ErrFull)
		}
	}
}

// fail makes the first error final.
func (l *Log) fail(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken(err)
}

// Pin keeps a segment from being used again until Unpin. It returns false where there is no such
// segment.
func (l *Log) Pin(number uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	seg := l.live[number]
	if seg == nil || seg.done {
		return false
	}
	seg.pins++
	return true
}

// Unpin ends one Pin, or that of one Append.
func (l *Log) Unpin(number uint32) {
	l.mu.Lock()
	if l.live == nil { // closed
		l.mu.Unlock()
		return
	}
	seg := l.live[number]
	if seg == nil || seg.pins == 0 {
		panic(fmt.Sprintf("durable: segment %d is unpinned too often", number))
	}
	seg.pins--
	surplus := l.release(seg)
	l.mu.Unlock()
	l.remove(surplus)
}

// Free says that nothing in a segment is wanted any more, nor will be read by a later Open: it is
// used again once it has no pins. The current segment can not be freed.
func (l *Log) Free(number uint32) {
	l.mu.Lock()
	seg := l.live[number]
	if seg == nil || seg == l.cur {
		l.mu.Unlock()
		return
	}
	seg.done = true
	surplus := l.release(seg)
	l.mu.Unlock()
	l.remove(surplus)
}

// Read returns the payload of a record that was committed, in buf if it has room. The segment must
// be pinned or otherwise known to stay.
func (l *Log) Read(e Extent, buf []byte) ([]byte, error) {
	l.mu.Lock()
	seg := l.live[e.Pos.Segment()]
	l.mu.Unlock()
	if seg == nil {
		return nil, fmt.Errorf("record at %v: %w: segment is missing", e.Pos, ErrCorrupt)
	}
	n := recordHeader + int(e.Len)
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := seg.file.ReadAt(buf, int64(e.Pos.Offset())); err != nil {
		return nil, fmt.Errorf("record at %v in %s: %w", e.Pos, seg.name, err)
	}
	r, ok := parseRecordHeader(buf, seg.salt, e.Pos, recordSize(int(e.Len)))
	if !ok || r.n != int(e.Len) {
		return nil, fmt.Errorf("record at %v in %s: %w", e.Pos, seg.name, ErrCorrupt)
	}
	if crc, _ := payloadCRC(buf[recordHeader:]); crc != r.pcrc {
		return nil, fmt.Errorf("record at %v in %s: %w", e.Pos, seg.name, ErrCorrupt)
	}
	return buf[recordHeader:], nil
}

// SegmentInfo is a segment in use.
type SegmentInfo struct {
	Number  uint32
	Bytes   int64 // that it takes on disk
	Current bool
	Pinned  bool
}

// Segments lists the segments in use, in no order.
func (l *Log) Segments() []SegmentInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]SegmentInfo, 0, len(l.live))
	for _, s := range l.live {
		list = append(list, SegmentInfo{s.number, int64(s.size), s == l.cur, s.pins > 0})
	}
	return list
}

// Close gives up what was not committed.
func (l *Log) Close() error {
	l.fail(fmt.Errorf("closed"))
	close(l.stop)
	l.makers.Wait()
	l.committing.Lock()
	defer l.committing.Unlock()
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	for _, s := range l.live {
		if e := s.file.Close(); err == nil {
			err = e
		}
	}
	for _, s := range l.free {
		if e := s.file.Close(); err == nil {
			err = e
		}
	}
	l.live, l.free, l.cur = nil, nil, nil
	if e := l.dir.Close(); err == nil {
		err = e
	}
	return err
}
