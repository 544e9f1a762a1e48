package durable

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// commit is what a test's commit record says: a number, and where a data record lies.
type commit struct {
	n    uint32
	data Extent
}

func (c commit) encode() []byte {
	b := binary.LittleEndian.AppendUint32(nil, c.n)
	b = binary.LittleEndian.AppendUint64(b, uint64(c.data.Pos))
	return binary.LittleEndian.AppendUint32(b, c.data.Len)
}

func decodeCommit(b []byte) commit {
	le := binary.LittleEndian
	return commit{le.Uint32(b), Extent{Pos(le.Uint64(b[4:])), le.Uint32(b[12:])}}
}

// dataOf is the data that belongs to commit n: of a length and content that only n has.
func dataOf(n uint32) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	b := make([]byte, 10+r.IntN(700))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func testConfig(fs vfs.FS) Config { return Config{FS: fs, Dir: "/data/log", SegmentBytes: 4096} }

// open opens a log and returns the commits it replayed.
func open(t *testing.T, fs vfs.FS, from Mark) (*Log, []commit) {
	t.Helper()
	l, got, err := tryOpen(fs, from)
	if err != nil {
		t.Fatal(err)
	}
	return l, got
}

func tryOpen(fs vfs.FS, from Mark) (*Log, []commit, error) {
	var got []commit
	l, err := Open(testConfig(fs), from, func(m Mark, payload []byte) error {
		got = append(got, decodeCommit(payload))
		return nil
	})
	return l, got, err
}

// add appends the data of n, and some that nobody wants, and commits it. The segment may change
// anywhere in between.
func add(l *Log, n uint32) (Mark, error) {
	e, err := l.Append(dataOf(n)[:5], dataOf(n)[5:])
	for range n % 3 {
		if _, err := l.Append(make([]byte, 300)); err != nil {
			return Mark{}, err
		}
	}
	if err != nil {
		return Mark{}, err
	}
	return l.Commit(commit{n, e}.encode())
}

func mustAdd(t *testing.T, l *Log, from, to uint32) (last Mark) {
	t.Helper()
	for n := from; n <= to; n++ {
		m, err := add(l, n)
		if err != nil {
			t.Fatalf("commit %d: %v", n, err)
		}
		last = m
	}
	return last
}

// checkRun wants the commits to be first, first+1, ... and the data of each to be there.
func checkRun(l *Log, got []commit, first uint32) error {
	for i, c := range got {
		if c.n != first+uint32(i) {
			return fmt.Errorf("commit %d at place %d of those from %d on", c.n, i, first)
		}
		data, err := l.Read(c.data, nil)
		if err != nil {
			return fmt.Errorf("data of commit %d: %w", c.n, err)
		}
		if !bytes.Equal(data, dataOf(c.n)) {
			return fmt.Errorf("data of commit %d is another's", c.n)
		}
	}
	return nil
}

func TestReplay(t *testing.T) {
	fs := NewFaults(nil)
	l, got := open(t, fs, Mark{})
	if len(got) != 0 {
		t.Fatalf("a new log has %d commits", len(got))
	}
	mustAdd(t, l, 1, 10)
	tenth := mustAdd(t, l, 11, 20)
	mustAdd(t, l, 21, 40)
	if n := len(l.Segments()); n < 3 {
		t.Fatalf("only %d segments: the test needs several", n)
	}
	l.Close()

	for _, row := range []struct {
		from  Mark
		first uint32
	}{{Mark{}, 1}, {tenth, 21}} {
		l, got := open(t, fs, row.from)
		if want := int(40 - row.first + 1); len(got) != want {
			t.Errorf("from %v: %d commits, want %d", row.from.Pos, len(got), want)
		}
		if err := checkRun(l, got, row.first); err != nil {
			t.Error(err)
		}
		l.Close()
	}
}

// A log that was opened again goes on in a new segment, with the next number.
func TestAppendAfterReopen(t *testing.T) {
	fs := NewFaults(nil)
	for i := range uint32(5) {
		l, got := open(t, fs, Mark{})
		if err := checkRun(l, got, 1); err != nil || len(got) != int(i)*3 {
			t.Fatalf("opened for the %d. time: %d commits, %v", i, len(got), err)
		}
		mustAdd(t, l, i*3+1, i*3+3)
		l.Append([]byte("never committed"))
		l.Close()
	}
}

// TestCrash cuts the power before every operation that changes the disk, with nothing, all or some
// of what was not synced kept, and then once more while the log is in use again.
func TestCrash(t *testing.T) {
	const commits = 24
	count := NewFaults(nil)
	l, _ := open(t, count, Mark{})
	mustAdd(t, l, 1, commits)
	l.Close()
	ops := count.Ops()

	for _, keep := range []int{0, 100, 50} {
		for cut := 1; cut <= ops; cut++ {
			fs := NewFaults(nil)
			fs.CutPower(cut, keep, uint64(cut))
			acked := crashRun(fs, 1, commits)
			if fs.Image() == nil {
				continue // the maker of segments was slower this time
			}
			again := NewFaults(fs.Image())
			again.CutPower(cut%17+1, keep, uint64(cut)+1000)
			where := fmt.Sprintf("cut before operation %d, %d %% kept", cut, keep)
			second, err := crashCheck(again, acked)
			if err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			if again.Image() == nil {
				continue
			}
			if _, err := crashCheck(NewFaults(again.Image()), second); err != nil {
				t.Fatalf("%s, then once more: %v", where, err)
			}
		}
	}
}

// crashRun adds commits until something fails and returns the last that was acknowledged.
func crashRun(fs *Faults, from, to uint32) (acked uint32) {
	acked = from - 1
	l, _, err := tryOpen(fs, Mark{})
	if err != nil {
		return acked
	}
	defer l.Close()
	for n := from; n <= to; n++ {
		if _, err := add(l, n); err != nil {
			return acked
		}
		acked = n
	}
	return acked
}

// crashCheck opens a log after a crash, wants all that was acknowledged and at most one commit
// more, adds some and returns the last that was acknowledged. If the power goes while it opens, so
// be it.
func crashCheck(fs *Faults, acked uint32) (uint32, error) {
	l, got, err := tryOpen(fs, Mark{})
	if err != nil {
		if fs.Image() != nil {
			return acked, nil
		}
		return 0, err
	}
	defer l.Close()
	last := uint32(len(got))
	if last < acked || last > acked+1 {
		return 0, fmt.Errorf("%d commits, of which %d were acknowledged", last, acked)
	}
	if err := checkRun(l, got, 1); err != nil {
		return 0, err
	}
	for n := last + 1; n < last+6; n++ {
		if _, err := add(l, n); err != nil {
			return max(n-1, acked), nil
		}
	}
	return last + 5, nil
}

// TestDamage flips one octet of what had been synced.
func TestDamage(t *testing.T) {
	build := func(t *testing.T) (*Faults, *Log, []commit) {
		fs := NewFaults(nil)
		l, _ := open(t, fs, Mark{})
		mustAdd(t, l, 1, 30)
		l.Close()
		l, got := open(t, fs, Mark{})
		return fs, l, got
	}
	tests := []struct {
		name   string
		damage func(t *testing.T, fs *Faults, l *Log, got []commit)
		ok     bool // the log opens
	}{
		{"nothing", func(*testing.T, *Faults, *Log, []commit) {}, true},
		{"data in an early segment", func(t *testing.T, fs *Faults, l *Log, got []commit) {
			flip(t, fs, l, got[1].data.Pos+recordHeader+3)
		}, false},
		{"record header in an early segment", func(t *testing.T, fs *Faults, l *Log, got []commit) {
			flip(t, fs, l, got[1].data.Pos+9)
		}, false},
		{"data in the last segment, synced by what follows", func(t *testing.T, fs *Faults, l *Log, got []commit) {
			if got[len(got)-2].data.Pos.Segment() != l.last {
				t.Fatal("the test needs two commits in the last segment")
			}
			flip(t, fs, l, got[len(got)-2].data.Pos+recordHeader)
		}, false},
		{"a commit left out", func(t *testing.T, fs *Faults, l *Log, got []commit) {
			skipCommit(t, fs, l, got)
		}, false},
		{"the last commit's data: nothing says that it was synced", func(t *testing.T, fs *Faults, l *Log, got []commit) {
			flip(t, fs, l, got[len(got)-1].data.Pos+recordHeader)
		}, true},
		{"header of a segment in the middle", func(t *testing.T, fs *Faults, l *Log, got []commit) {
			flip(t, fs, l, at(2, 9))
		}, false},
		{"segment in the middle removed", func(t *testing.T, fs *Faults, l *Log, got []commit) {
			if err := fs.Remove(l.live[2].name); err != nil {
				t.Fatal(err)
			}
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fs, l, got := build(t)
			tt.damage(t, fs, l, got)
			l.Close()
			l, _, err := tryOpen(fs, Mark{})
			if tt.ok != (err == nil) || err != nil && !errors.Is(err, ErrCorrupt) {
				t.Errorf("open: %v", err)
			}
			if err == nil {
				l.Close()
			}
		})
	}
}

// skipCommit writes a commit with the number after the next, as if one had been lost without trace.
func skipCommit(t *testing.T, fs *Faults, l *Log, got []commit) {
	l.mu.Lock()
	l.seq++
	l.mu.Unlock()
	if _, err := l.Commit(got[0].encode()); err != nil {
		t.Fatal(err)
	}
}

func flip(t *testing.T, fs *Faults, l *Log, pos Pos) {
	t.Helper()
	f, err := fs.OpenReadWrite(l.live[pos.Segment()].name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], int64(pos.Offset())); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], int64(pos.Offset())); err != nil {
		t.Fatal(err)
	}
}

func TestReadDamaged(t *testing.T) {
	fs := NewFaults(nil)
	l, _ := open(t, fs, Mark{})
	defer l.Close()
	e, err := l.Append([]byte("body"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Commit([]byte("0123456789abcdef")); err != nil {
		t.Fatal(err)
	}
	if b, err := l.Read(e, nil); err != nil || string(b) != "body" {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := l.Read(Extent{e.Pos + 8, e.Len}, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("record at a wrong place: %v", err)
	}
	if _, err := l.Read(Extent{e.Pos, e.Len - 1}, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("record of a wrong length: %v", err)
	}
	flip(t, fs, l, e.Pos+recordHeader)
	if _, err := l.Read(e, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("damaged record: %v", err)
	}
}

// A marker that points behind the log, or at a segment that is gone, is no reason to begin afresh.
func TestOpenFromNowhere(t *testing.T) {
	fs := NewFaults(nil)
	l, _ := open(t, fs, Mark{})
	mustAdd(t, l, 1, 3)
	l.Close()
	if _, _, err := tryOpen(fs, Mark{Pos: at(9, segmentHeader), Seq: 3}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("marker behind the log: %v", err)
	}
	if _, _, err := tryOpen(NewFaults(nil), Mark{at(1, 500), 3}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("marker without a log: %v", err)
	}
}

func TestFullDisk(t *testing.T) {
	fs := NewFaults(nil)
	l, _ := open(t, fs, Mark{})
	defer l.Close()
	mustAdd(t, l, 1, 3)
	for l.freeSlots() < readySlots {
		time.Sleep(time.Millisecond)
	}
	fs.SetFull(NoNewBlocks)
	n := uint32(4)
	for ; ; n++ {
		if _, err := add(l, n); err != nil {
			if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			break
		}
	}
	// What is not data, such as the outcome of a delivery, still finds room: in the reserve.
	for range 20 {
		if _, err := l.Commit(commit{n, Extent{}}.encode()); err != nil {
			t.Fatalf("commit with a full disk: %v", err)
		}
	}
	fs.SetFull(Roomy)
	mustAdd(t, l, n, n+20)
}

func (l *Log) freeSlots() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.free)
}

// Where even allocated blocks can not be written, a commit waits until they can.
func TestCommitWaitsForRoom(t *testing.T) {
	fs := NewFaults(nil)
	l, _ := open(t, fs, Mark{})
	mustAdd(t, l, 1, 3)
	fs.SetFull(NoWrites)
	done := make(chan error)
	go func() {
		_, err := add(l, 4)
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("commit on a full disk returned %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	fs.SetFull(Roomy)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	l.Close()
	l, got := open(t, fs, Mark{})
	defer l.Close()
	if err := checkRun(l, got, 1); err != nil || len(got) != 4 {
		t.Errorf("%d commits, %v", len(got), err)
	}
}

func TestCloseWhileFull(t *testing.T) {
	fs := NewFaults(nil)
	l, _ := open(t, fs, Mark{})
	mustAdd(t, l, 1, 1)
	fs.SetFull(NoWrites)
	done := make(chan error)
	go func() {
		_, err := add(l, 2)
		done <- err
	}()
	time.Sleep(5 * time.Millisecond)
	l.Close()
	if err := <-done; !errors.Is(err, ErrBroken) {
		t.Errorf("commit while the log was closed: %v", err)
	}
}

// After a sync that failed nothing is acknowledged, even if later syncs would not fail.
func TestFailedSyncIsFinal(t *testing.T) {
	fs := NewFaults(nil)
	l, _ := open(t, fs, Mark{})
	mustAdd(t, l, 1, 3)
	fs.FailSync(slotSuffix)
	if _, err := add(l, 4); !errors.Is(err, ErrBroken) || !errors.Is(err, ErrSync) {
		t.Fatalf("commit with a failed sync: %v", err)
	}
	fs.FailSync("")
	if _, err := add(l, 5); !errors.Is(err, ErrBroken) {
		t.Fatalf("commit after a failed sync: %v", err)
	}
	l.Close()
	crashed := NewFaults(fs.Clone(0, 0))
	l, got := open(t, crashed, Mark{})
	defer l.Close()
	if err := checkRun(l, got, 1); err != nil || len(got) != 3 {
		t.Errorf("%d commits, %v", len(got), err)
	}
}

func TestFreeAndPin(t *testing.T) {
	fs := NewFaults(nil)
	l, _ := open(t, fs, Mark{})
	e, err := l.Append(dataOf(1))
	if err != nil {
		t.Fatal(err)
	}
	mark := mustAdd(t, l, 2, 60)
	first := e.Pos.Segment()
	l.Free(first)
	if _, err := l.Read(e, nil); err != nil {
		t.Errorf("a pinned segment was freed: %v", err)
	}
	if l.Pin(first) {
		t.Error("a segment that is to be freed was pinned again")
	}
	for _, s := range l.Segments() {
		for s.Number != first && s.Pinned {
			l.Unpin(s.Number)
			s.Pinned = l.pinned(s.Number)
		}
		l.Free(s.Number)
	}
	for l.pinned(first) {
		l.Unpin(first)
	}
	if n := len(l.Segments()); n != 1 {
		t.Errorf("%d segments are left, want the current one", n)
	}
	if n := l.freeSlots(); n != l.cfg.KeepFree {
		t.Errorf("%d free slots, want %d", n, l.cfg.KeepFree)
	}
	names, _ := fs.List(l.cfg.Dir)
	if len(names) != l.cfg.KeepFree+1 {
		t.Errorf("%d files: %v", len(names), names)
	}
	mustAdd(t, l, 61, 90)
	l.Close()
	l2, got := open(t, fs, mark)
	defer l2.Close()
	if err := checkRun(l2, got, 61); err != nil || len(got) != 30 {
		t.Errorf("after slots were used again: %d commits, %v", len(got), err)
	}
}

func (l *Log) pinned(number uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.live[number]
	return s != nil && s.pins > 0
}

// Writers of data and committers run side by side.
func TestConcurrent(t *testing.T) {
	fs := NewFaults(nil)
	l, _ := open(t, fs, Mark{})
	var wg sync.WaitGroup
	for w := range uint32(8) {
		wg.Go(func() {
			for i := range uint32(20) {
				if _, err := add(l, w*20+i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	l.Close()
	l, got := open(t, fs, Mark{})
	defer l.Close()
	seen := make(map[uint32]bool)
	for _, c := range got {
		seen[c.n] = true
		if err := checkRun(l, []commit{c}, c.n); err != nil {
			t.Error(err)
		}
	}
	if len(seen) != 160 {
		t.Errorf("%d commits of 160", len(seen))
	}
}

func TestTooLarge(t *testing.T) {
	l, _ := open(t, NewFaults(nil), Mark{})
	defer l.Close()
	if _, err := l.Append(make([]byte, l.MaxRecord()+1)); err == nil {
		t.Error("a record over the limit was taken")
	}
	if _, err := l.Append(make([]byte, l.MaxRecord())); err != nil {
		t.Error(err)
	}
}

// A commit of any size is one commit, also after one that was given up half way.
func TestLargeCommits(t *testing.T) {
	fs := NewFaults(nil)
	sizes := []int{0, 100, 2000, 2008, 2009, 2100, 9000, 4100, 40000, 3, 70000}
	payload := func(i int) []byte { return bytes.Repeat([]byte{byte(i + 1)}, sizes[i]) }
	l, _ := open2(t, fs)
	for i := range sizes {
		if sizes[i] > 5000 {
			giveUp(t, l, fs)
		}
		if _, err := l.Commit(payload(i)); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	l, got := open2(t, fs)
	defer l.Close()
	if len(got) != len(sizes) {
		t.Fatalf("%d commits, want %d", len(got), len(sizes))
	}
	for i := range sizes {
		if !bytes.Equal(got[i], payload(i)) {
			t.Errorf("commit %d has %d octets, want %d", i, len(got[i]), sizes[i])
		}
	}
}

func open2(t *testing.T, fs vfs.FS) (l *Log, got [][]byte) {
	t.Helper()
	l, err := Open(testConfig(fs), Mark{}, func(_ Mark, payload []byte) error {
		got = append(got, bytes.Clone(payload))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return l, got
}

// giveUp has a commit fail for want of room after some of its parts were written.
func giveUp(t *testing.T, l *Log, fs *Faults) {
	t.Helper()
	fs.SetFull(NoNewBlocks)
	if _, err := l.Commit(make([]byte, 200000)); !errors.Is(err, ErrFull) {
		t.Fatalf("commit of far more than there is room for: %v", err)
	}
	fs.SetFull(Roomy)
}

// FuzzSegment reads a segment that is anything. What it accepts must lie inside it, and the end
// that it finds must be the end again.
func FuzzSegment(f *testing.F) {
	l, _, err := tryOpen(NewFaults(nil), Mark{})
	if err != nil {
		f.Fatal(err)
	}
	for n := range uint32(3) {
		add(l, n)
	}
	seed := make([]byte, 2048)
	l.cur.file.ReadAt(seed, 0)
	l.Close()
	f.Add(seed)
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHeader(b)
		if h.number == 0 || err != nil {
			h = header{number: 1, size: 4096} // and salt 0
		}
		read := func(end uint32) (uint32, uint64) {
			seg := &segment{header: h, file: vfs.NewMemFile(b), end: end}
			l := &Log{cfg: Config{Log: slog.New(slog.DiscardHandler)}, last: h.number}
			err := l.replaySegment(seg, at(h.number, segmentHeader), new(partList), func(m Mark, _ []byte) error {
				if int(m.Pos.Offset()) > len(b)+7 {
					t.Fatalf("a commit that ends at %v, of %d octets", m.Pos, len(b))
				}
				return nil
			})
			if err != nil {
				return 0, 0
			}
			return seg.end, l.seq
		}
		end, seq := read(h.size)
		if end == 0 {
			return
		}
		if end2, seq2 := read(end); end2 != end || seq2 != seq {
			t.Errorf("end at %d after commit %d, then at %d after %d", end, seq, end2, seq2)
		}
	})
}

// FuzzRecordHeader wants what is accepted to be what was written.
func FuzzRecordHeader(f *testing.F) {
	var b [recordHeader]byte
	putRecordHeader(b[:], 7, at(1, 48), kindData, 100, 1)
	f.Add(b[:], uint64(7), uint64(at(1, 48)))
	f.Fuzz(func(t *testing.T, b []byte, salt, pos uint64) {
		if len(b) < recordHeader {
			return
		}
		r, ok := parseRecordHeader(b, salt, Pos(pos), 4096)
		if !ok {
			return
		}
		var again [recordHeader]byte
		putRecordHeader(again[:], salt, Pos(pos), r.kind, r.n, r.pcrc)
		if recordSize(r.n) > 4096 || !bytes.Equal(again[:12], b[:12]) {
			t.Errorf("%+v from %x", r, b)
		}
	})
}

func BenchmarkCommit(b *testing.B) {
	for _, size := range []int{1 << 10, 10 << 10, 100 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			l, err := Open(Config{Dir: b.TempDir()}, Mark{}, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			body := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				e, err := l.Append(body)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := l.Commit(body[:200]); err != nil {
					b.Fatal(err)
				}
				l.Unpin(e.Pos.Segment())
			}
		})
	}
}

// A log whose segments were of another size goes on with those of the new one.
func TestOtherSegmentSize(t *testing.T) {
	fs := NewFaults(nil)
	l, _ := open(t, fs, Mark{})
	mustAdd(t, l, 1, 20)
	l.Close()
	var got []commit
	cfg := testConfig(fs)
	cfg.SegmentBytes = 3 * 4096
	l, err := Open(cfg, Mark{}, func(_ Mark, payload []byte) error {
		got = append(got, decodeCommit(payload))
		return nil
	})
	if err != nil || len(got) != 20 {
		t.Fatalf("%d commits, %v", len(got), err)
	}
	if err := checkRun(l, got, 1); err != nil {
		t.Error(err)
	}
	mustAdd(t, l, 21, 60)
	for _, s := range l.Segments() {
		if old := s.Number <= got[19].data.Pos.Segment(); old != (s.Bytes == 4096) {
			t.Errorf("segment %d has %d octets", s.Number, s.Bytes)
		}
	}
	l.Close()
	l, got = open(t, fs, Mark{})
	defer l.Close()
	if err := checkRun(l, got, 1); err != nil || len(got) != 60 {
		t.Errorf("%d commits, %v", len(got), err)
	}
}
