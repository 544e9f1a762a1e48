package durable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Open opens the log in a directory, or begins one, and calls fn with what was committed after the
// mark from, in order. The payload is valid during the call only; an error of fn ends Open. What
// lies behind the last commit is forgotten.
func Open(cfg Config, from Mark, fn func(m Mark, payload []byte) error) (*Log, error) {
	cfg.fill()
	if cfg.SegmentBytes < minSegmentSize || cfg.SegmentBytes > maxSegmentSize {
		return nil, fmt.Errorf("segments of %d octets, want %d to %d", cfg.SegmentBytes,
			minSegmentSize, maxSegmentSize)
	}
	l := &Log{cfg: cfg, live: make(map[uint32]*segment), seq: from.Seq, stop: make(chan struct{})}
	if err := makeDir(cfg.FS, cfg.Dir); err != nil {
		return nil, err
	}
	dir, err := cfg.FS.OpenDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	l.dir = dir
	err = l.openSlots()
	if err == nil {
		err = l.replay(from, fn)
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("log in %s: %w", cfg.Dir, err)
	}
	return l, nil
}

// makeDir makes a directory, and puts its name and those of the directories above it on stable
// storage: any of them may be new, if only from a start that was cut short.
func makeDir(fs vfs.FS, dir string) error {
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for {
		parent := fs.PathDir(dir)
		if parent == dir {
			return nil
		}
		d, err := fs.OpenDir(parent)
		if errors.Is(err, os.ErrPermission) {
			return nil // What we may not read we did not make.
		}
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
		dir = parent
	}
}

// openSlots opens every slot of the directory and sorts them into segments and free slots.
func (l *Log) openSlots() error {
	names, err := l.cfg.FS.List(l.cfg.Dir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, base := range names {
		slot, ok := parseSlot(base)
		if !ok {
			continue
		}
		l.slots = max(l.slots, slot)
		if err := l.openSlot(l.cfg.FS.PathJoin(l.cfg.Dir, base)); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) openSlot(name string) error {
	f, err := l.cfg.FS.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	seg := &segment{file: f, name: name}
	var b [segmentHeader]byte
	if _, err = f.ReadAt(b[:], 0); err == nil || errors.Is(err, io.EOF) {
		seg.header, err = parseHeader(b[:])
	}
	info, statErr := f.Stat()
	if err = errors.Join(err, statErr); err != nil {
		f.Close()
		return fmt.Errorf("%s: %w", name, err)
	}
	switch {
	case seg.number == 0 && info.Size() != int64(l.cfg.SegmentBytes):
		// A slot that was not finished, or one of a size no longer wanted.
		return errors.Join(f.Close(), l.cfg.FS.Remove(name))
	case seg.number == 0:
		seg.size = uint32(l.cfg.SegmentBytes)
		l.free = append(l.free, seg)
	case l.live[seg.number] != nil:
		f.Close()
		return fmt.Errorf("%s and %s: both are segment %d: %w", l.live[seg.number].name, name,
			seg.number, ErrCorrupt)
	default:
		l.live[seg.number] = seg
		l.last = max(l.last, seg.number)
	}
	return nil
}

// replay reads what was committed after a mark and finds the end of the log.
func (l *Log) replay(from Mark, fn func(Mark, []byte) error) error {
	for n, seg := range l.live {
		if next := l.live[n+1]; next != nil {
			seg.end = next.prevEnd
		} else {
			seg.end = seg.size
		}
	}
	pos := from.Pos
	if pos == 0 && l.last > 0 {
		pos = at(1, segmentHeader)
	}
	if pos.Segment() > l.last {
		return fmt.Errorf("segment %d is missing: the log ends with %d: %w", pos.Segment(), l.last,
			ErrCorrupt)
	}
	parts := new(partList)
	for n := pos.Segment(); n > 0 && n <= l.last; n++ {
		seg := l.live[n]
		if seg == nil {
			return fmt.Errorf("segment %d is missing: the log goes on to %d: %w", n, l.last,
				ErrCorrupt)
		}
		if n > pos.Segment() {
			pos = at(n, segmentHeader)
		}
		if err := l.replaySegment(seg, pos, parts, fn); err != nil {
			return err
		}
	}
	return l.settleTail()
}

// replaySegment reads one segment from pos on. On return seg.end of the last one is behind its last
// commit.
func (l *Log) replaySegment(seg *segment, pos Pos, parts *partList,
	fn func(Mark, []byte) error) error {
	final := seg.number == l.last
	r := newScanner(seg, pos)
	end := pos
	for {
		kind, payload, err := r.next()
		if err != nil {
			return err
		}
		if kind == 0 {
			break
		}
		switch kind {
		case kindPart:
			parts.add(payload)
		case kindCommit:
			end = r.pos
			if err := l.replayCommit(end, payload, parts, fn); err != nil {
				return fmt.Errorf("%s: %w", seg.name, err)
			}
		}
	}
	if !final {
		if r.pos.Offset() != seg.end {
			return fmt.Errorf("%s: bad record at %v, but the segment was synced up to %v: %w",
				seg.name, r.pos, at(seg.number, seg.end), ErrCorrupt)
		}
		return nil
	}
	if seq, synced, ok := r.laterCommit(); ok && synced > r.pos {
		return fmt.Errorf("%s: bad record at %v, but commit %d behind it says that the log was "+
			"synced up to %v: %w", seg.name, r.pos, seq, synced, ErrCorrupt)
	}
	if r.pos > end {
		l.cfg.Log.Info("end of the log forgotten: it was not committed", "file", seg.name,
			"from", end, "to", r.pos)
	}
	seg.end = end.Offset()
	l.lastEnd = seg.end
	return nil
}

// replayCommit takes in one commit, with the parts before it.
func (l *Log) replayCommit(end Pos, payload []byte, parts *partList,
	fn func(Mark, []byte) error) error {
	seq, synced := commitFields(payload)
	if seq != l.seq+1 {
		return fmt.Errorf("commit %d, which ends at %v, follows commit %d: %w", seq, end, l.seq,
			ErrCorrupt)
	}
	whole, ok := parts.join(binary.LittleEndian.Uint32(payload[16:]), payload[commitHeader:])
	if !ok {
		return fmt.Errorf("commit %d, which ends at %v, lacks parts: %w", seq, end, ErrCorrupt)
	}
	l.seq = seq
	l.synced = max(l.synced, synced)
	return fn(Mark{end, seq}, whole)
}

// partList is the parts of a commit, as far as they were read.
type partList struct {
	n       uint32
	payload []byte
}

// add takes a part. One with the number 0 begins anew; one out of turn ends what there was.
func (p *partList) add(record []byte) {
	number := binary.LittleEndian.Uint32(record)
	if number != p.n {
		p.n, p.payload = 0, nil
	}
	if number == p.n {
		p.n++
		p.payload = append(p.payload, record[partHeader:]...)
	}
}

// join returns what so many parts and the rest are together, and forgets the parts.
func (p *partList) join(n uint32, rest []byte) (whole []byte, ok bool) {
	whole, ok = rest, true
	if n > 0 {
		whole, ok = append(p.payload, rest...), n == p.n
	}
	p.n, p.payload = 0, nil
	return whole, ok
}

func commitFields(payload []byte) (seq uint64, synced Pos) {
	return binary.LittleEndian.Uint64(payload), Pos(binary.LittleEndian.Uint64(payload[8:]))
}

// settleTail writes what of the last segment may never have reached the disk once more, and syncs
// it: after a sync that failed, pages of the cache are clean that the disk never saw. The next
// record begins a new segment, so that nothing behind the end is ever read.
func (l *Log) settleTail() error {
	seg := l.live[l.last]
	if seg == nil {
		return nil
	}
	start := uint32(0)
	if l.synced.Segment() == l.last {
		start = l.synced.Offset()
	}
	if start >= seg.end {
		return nil
	}
	b := make([]byte, seg.end-start)
	if _, err := seg.file.ReadAt(b, int64(start)); err != nil {
		return fmt.Errorf("%s: %w", seg.name, err)
	}
	if _, err := seg.file.WriteAt(b, int64(start)); err != nil {
		return fmt.Errorf("%s: %w", seg.name, err)
	}
	if err := seg.file.SyncData(); err != nil {
		return fmt.Errorf("sync of %s: %w", seg.name, err)
	}
	l.synced = at(l.last, seg.end)
	return nil
}

// scanner reads the records of one segment in order.
type scanner struct {
	seg    *segment
	pos    Pos
	window []byte // octets of the file from base on
	base   uint32
	buf    []byte
}

const scanWindow = 256 << 10

func newScanner(seg *segment, pos Pos) *scanner {
	return &scanner{seg: seg, pos: pos, buf: make([]byte, scanWindow)}
}

// at returns n octets of the segment from off on, or fewer at the end of the file.
func (s *scanner) at(off uint32, n int) ([]byte, error) {
	if off >= s.base && int(off-s.base)+n <= len(s.window) {
		return s.window[off-s.base:][:n], nil
	}
	if n > len(s.buf) {
		s.buf = make([]byte, n)
	}
	got, err := s.seg.file.ReadAt(s.buf, int64(off))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", s.seg.name, err)
	}
	s.window, s.base = s.buf[:got], off
	return s.window[:min(n, got)], nil
}

// record returns the valid record that begins at off; kind is 0 where there is none.
func (s *scanner) record(off uint32) (kind byte, payload []byte, err error) {
	limit := int(s.seg.end) - int(off)
	if limit < recordHeader {
		return 0, nil, nil
	}
	b, err := s.at(off, recordHeader)
	if err != nil || len(b) < recordHeader {
		return 0, nil, err
	}
	r, ok := parseRecordHeader(b, s.seg.salt, at(s.seg.number, off), limit)
	if !ok {
		return 0, nil, nil
	}
	b, err = s.at(off, recordHeader+r.n)
	if err != nil || len(b) < recordHeader+r.n {
		return 0, nil, err
	}
	payload = b[recordHeader:]
	if crc, _ := payloadCRC(payload); crc != r.pcrc {
		return 0, nil, nil
	}
	return r.kind, payload, nil
}

// next returns the record at pos and moves behind it; kind is 0 where there is none.
func (s *scanner) next() (kind byte, payload []byte, err error) {
	kind, payload, err = s.record(s.pos.Offset())
	if kind != 0 {
		s.pos += Pos(recordSize(len(payload)))
	}
	return kind, payload, err
}

// laterCommit looks for a valid commit record behind the invalid record at pos, and returns the
// last: it knows best up to where the log was synced.
func (s *scanner) laterCommit() (seq uint64, synced Pos, ok bool) {
	for off := s.pos.Offset() + 8; int(off)+recordHeader <= int(s.seg.end); off += 8 {
		kind, payload, err := s.record(off)
		if err != nil {
			return seq, synced, ok
		}
		if kind == kindCommit {
			seq, synced = commitFields(payload)
			ok = true
		}
	}
	return seq, synced, ok
}
