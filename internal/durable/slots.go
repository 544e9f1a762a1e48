package durable

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const slotSuffix = ".seg"

// readySlots is how many free slots are prepared ahead: the next segment, and the reserve.
const readySlots = 2

func slotName(slot int) string { return fmt.Sprintf("%06d%s", slot, slotSuffix) }

func parseSlot(name string) (int, bool) {
	digits, ok := strings.CutSuffix(path.Base(name), slotSuffix)
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(digits)
	return n, err == nil && n > 0
}

// rotate makes room for a record of n octets: if it does not fit it begins a new segment, for which
// it takes a free slot if reserve others remain. Before a segment is begun the one before it is
// synced.
func (l *Log) rotate(n, reserve int) error {
	for {
		l.writing.Lock()
		l.mu.Lock()
		need, fits := reserve, l.fits(n)
		if !fits {
			need++
		}
		if l.err != nil || len(l.free) >= need {
			err := l.err
			if err == nil && !fits {
				err = l.begin()
			}
			l.mu.Unlock()
			l.writing.Unlock()
			return err
		}
		l.mu.Unlock()
		l.writing.Unlock()
		if err := l.makeSlot(need); err != nil {
			return err
		}
	}
}

// begin ends the current segment and begins the next in a free slot. writing and mu are held:
// nobody appends meanwhile, so that all of the segment is in the sync.
func (l *Log) begin() error {
	if cur := l.cur; cur != nil {
		if _, err := cur.file.WriteAt(l.buf, int64(l.bufAt)); err != nil {
			if IsFull(err) {
				return fmt.Errorf("%w: %w", ErrFull, err)
			}
			return l.broken(fmt.Errorf("write to %s: %w", cur.name, err))
		}
		if err := cur.file.SyncData(); err != nil {
			return l.broken(fmt.Errorf("sync of %s: %w", cur.name, err))
		}
		l.lastEnd = cur.end
		l.synced = at(cur.number, cur.end)
	}
	seg := l.free[len(l.free)-1]
	l.free = l.free[:len(l.free)-1]
	l.last++
	seg.header = header{number: l.last, size: seg.size, prevEnd: l.lastEnd, salt: newSalt()}
	seg.end, seg.pins, seg.done = segmentHeader, 0, false
	l.buf, l.bufAt = seg.header.append(l.buf[:0]), 0
	l.live[seg.number] = seg
	l.cur = seg
	l.flushed = at(seg.number, 0)
	if len(l.free) < readySlots && !l.making {
		l.making = true
		l.makers.Add(1)
		go l.keepReady()
	}
	return nil
}

// broken is fail with mu held.
func (l *Log) broken(err error) error {
	if l.err == nil {
		l.err = fmt.Errorf("%w: %w", ErrBroken, err)
	}
	return l.err
}

// keepReady makes free slots in the background until there are enough, or none can be made.
func (l *Log) keepReady() {
	defer l.makers.Done()
	for {
		l.mu.Lock()
		if len(l.free) >= readySlots || l.err != nil {
			l.making = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		if err := l.makeSlot(readySlots); err != nil {
			l.cfg.Log.Warn("no new segment", "dir", l.cfg.Dir, "err", err)
			l.mu.Lock()
			l.making = false
			l.mu.Unlock()
			return
		}
	}
}

// makeSlot makes one free slot unless there are already that many.
func (l *Log) makeSlot(enough int) error {
	l.slotting.Lock()
	defer l.slotting.Unlock()
	l.mu.Lock()
	if len(l.free) >= enough || l.err != nil {
		err := l.err
		l.mu.Unlock()
		return err
	}
	l.slots++
	name := l.cfg.FS.PathJoin(l.cfg.Dir, slotName(l.slots))
	l.mu.Unlock()

	seg, err := createSlot(l.cfg.FS, l.dir, name, l.cfg.SegmentBytes)
	if err != nil {
		l.cfg.FS.Remove(name)
		if IsFull(err) {
			return fmt.Errorf("%w: %w", ErrFull, err)
		}
		// A sync that failed here lost nothing that anybody relies on.
		return fmt.Errorf("new segment %s: %w", name, err)
	}
	l.mu.Lock()
	if len(l.free) < l.cfg.KeepFree {
		l.free, seg = append(l.free, seg), nil
	}
	l.mu.Unlock()
	l.remove(seg)
	return nil
}

// createSlot makes a file of that size whose blocks are allocated, and whose name is on stable
// storage.
func createSlot(fs vfs.FS, dir vfs.File, name string, size int) (*segment, error) {
	f, err := fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	err = fill(f, size)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = dir.Sync()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &segment{header: header{size: uint32(size)}, file: f, name: name}, nil
}

// fill allocates the blocks of a file and sets its size, so that a later sync of its data has no
// metadata to write.
func fill(f vfs.File, size int) error {
	if err := f.Preallocate(0, int64(size)); err != nil && IsFull(err) {
		return err
	} // Otherwise the file system has no such call: its blocks come as they are written.
	_, err := f.WriteAt([]byte{0}, int64(size)-1)
	return err
}

// release turns a segment that is done and has no pins into a free slot, or returns it if there are
// enough of these. mu is held.
func (l *Log) release(seg *segment) (surplus *segment) {
	if !seg.done || seg.pins > 0 {
		return nil
	}
	delete(l.live, seg.number)
	if len(l.free) >= l.cfg.KeepFree || int(seg.size) != l.cfg.SegmentBytes {
		return seg
	}
	l.free = append(l.free, seg)
	return nil
}

// remove deletes the file of a surplus segment. That its name may come back after a crash does no
// harm: it lies before what is read then, and is freed again.
func (l *Log) remove(seg *segment) {
	if seg == nil {
		return
	}
	err := seg.file.Close()
	if err == nil {
		err = l.cfg.FS.Remove(seg.name)
	}
	if err != nil {
		l.cfg.Log.Warn("segment not removed", "file", seg.name, "err", err)
	}
}
