package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tallypost/tallypost/internal/durable"
	"github.com/tallypost/tallypost/mail"
)

// DiskConfig of a Disk. Dir is needed; the rest has defaults.
type DiskConfig struct {
	Dir string
	Log *slog.Logger // nil: none
	// MinFree is the free space below which no further message is taken. 0: 64 MiB; negative: none.
	MinFree int64
	// SegmentBytes is the size of the files that hold bodies. 0: 32 MiB.
	SegmentBytes int
	// CacheBytes is the cache for blocks of the index. 0: 8 MiB.
	CacheBytes int64
	FS         vfs.FS // nil: the machine's
}

// diskVersion is that of everything that Disk writes itself: keys, group records, extents.
const diskVersion = 1

var (
	keyDiskVersion = []byte{spaceDisk, 'v'}
	keyDiskMark    = []byte{spaceDisk, 'm'}
)

// Disk is a Store in a directory: a log of segments that holds bodies and is synced, and an index
// in Pebble that is not, but says how far of the log it contains. After a crash the rest is taken
// from the log.
//
// A body is written once, as it comes in; a group is one record of the log and one sync. See
// docs/decisions/0002-message-bodies.md.
type Disk struct {
	cfg   DiskConfig
	log   *durable.Log
	index *pebble.DB

	// committing is held while a group is committed, or a body moved.
	committing sync.Mutex
	scratch    []byte       // guarded by committing
	applied    durable.Mark // guarded by committing; of the last group in the index

	mu      sync.Mutex
	live    map[uint32]int64 // guarded by mu; octets of committed bodies by segment
	flushed durable.Mark     // guarded by mu; of the last group in the index on stable storage
	stuck   map[uint32]bool  // guarded by mu; segments with bodies that can not be moved
	tending bool             // guarded by mu; a goroutine tends
	closed  bool             // guarded by mu
	tenders sync.WaitGroup
	stop    chan struct{} // closed by Close
	roomAt  atomic.Int64  // when room was last measured, in nanoseconds since 1970
	roomy   atomic.Bool   // what it was
	fatal   atomic.Pointer[error]
	broken  chan struct{} // closed when fatal is set
	opened  atomic.Bool   // Pebble is open
	// dead is closed when Pebble gave up: it can be read, but neither written nor closed.
	dead  chan struct{}
	dying sync.Once
}

// OpenDisk opens the store in a directory, or begins one.
func OpenDisk(cfg DiskConfig) (*Disk, error) {
	if cfg.FS == nil {
		cfg.FS = vfs.Default
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MinFree == 0 {
		cfg.MinFree = 64 << 20
	}
	if cfg.CacheBytes == 0 {
		cfg.CacheBytes = 8 << 20
	}
	s := &Disk{
		cfg:  cfg,
		stop: make(chan struct{}), broken: make(chan struct{}), dead: make(chan struct{}),
		live:  make(map[uint32]int64),
		stuck: make(map[uint32]bool),
	}
	s.roomy.Store(true)
	if err := s.open(); err != nil {
		s.Close()
		return nil, fmt.Errorf("queue store in %s: %w", cfg.Dir, err)
	}
	return s, nil
}

func (s *Disk) open() error {
	if err := s.openIndex(); err != nil {
		return err
	}
	mark, err := s.readMark()
	if err != nil {
		return err
	}
	s.applied, s.flushed = mark, mark
	s.log, err = durable.Open(durable.Config{
		FS:           s.cfg.FS,
		Dir:          s.cfg.FS.PathJoin(s.cfg.Dir, "log"),
		SegmentBytes: s.cfg.SegmentBytes,
		Log:          s.cfg.Log,
	}, mark, s.replay)
	if err != nil {
		return err
	}
	return s.count()
}

// openIndex opens Pebble without its own log: ours is synced instead.
func (s *Disk) openIndex() (err error) {
	cache := pebble.NewCache(s.cfg.CacheBytes)
	defer cache.Unref()
	opts := &pebble.Options{
		// Where the disk is full the index waits for room: a group is in the log already, and can
		// not be taken back.
		FS:                          vfs.OnDiskFull(s.cfg.FS, s.waitForRoom),
		Cache:                       cache,
		DisableWAL:                  true,
		FormatMajorVersion:          pebble.FormatColumnarBlocks,
		MemTableSize:                16 << 20,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       8,
		L0StopWritesThreshold:       40,
		MaxOpenFiles:                500,
		Logger:                      pebbleLogger{s},
		EventListener:               &pebble.EventListener{BackgroundError: s.indexFailed},
	}
	opts.ApplyCompressionSettings(func() pebble.DBCompressionSettings {
		return pebble.DBCompressionFastest
	})
	if err := s.cfg.FS.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return err
	}
	s.index, err = openPebble(s.cfg.FS.PathJoin(s.cfg.Dir, "index"), opts)
	s.opened.Store(err == nil)
	return err
}

// indexFailed is told when Pebble could not flush or compact.
func (s *Disk) indexFailed(err error) {
	select {
	case <-s.stop: // it will not be done, so that whoever waits for it must not
	default:
		if durable.IsFull(err) || errors.Is(err, pebble.ErrCancelledCompaction) {
			return
		}
	}
	s.fail(fmt.Errorf("index: %w", err))
	time.Sleep(10 * time.Millisecond) // Pebble tries again at once, for ever
}

// flushIndex puts the index on stable storage. Where that fails Pebble tries for ever; we do not.
func (s *Disk) flushIndex() error {
	flushed, err := s.index.AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-flushed:
		return nil
	case <-s.broken:
		return s.failed()
	}
}

// openPebble makes an error of the panic by which Pebble, and our Fatalf, say that it can not be
// opened.
func openPebble(dir string, opts *pebble.Options) (db *pebble.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			db, err = nil, fmt.Errorf("open the index in %s: %v", dir, p)
		}
	}()
	return pebble.Open(dir, opts)
}

// readMark returns up to where the index contains the log, and checks who wrote it.
func (s *Disk) readMark() (m durable.Mark, err error) {
	v, err := s.get(keyDiskVersion)
	switch {
	case errors.Is(err, ErrNotFound):
		return m, nil // new, or nothing of it was flushed: all is in the log
	case err != nil:
		return m, err
	case len(v) != 1 || v[0] > diskVersion:
		return m, fmt.Errorf("written by a newer version of this program (format %d, this one "+
			"knows %d)", v, diskVersion)
	}
	v, err = s.get(keyDiskMark)
	if err != nil || len(v) != 16 {
		return m, fmt.Errorf("index has no mark (%x, %w)", v, err)
	}
	m.Pos = durable.Pos(binary.BigEndian.Uint64(v))
	m.Seq = binary.BigEndian.Uint64(v[8:])
	return m, nil
}

// replay takes a group of the log into the index.
func (s *Disk) replay(m durable.Mark, group []byte) error {
	batch := s.index.NewBatch()
	defer batch.Close()
	err := decodeWrites(group, func(key, value []byte) error { return put(batch, key, value) })
	if err != nil {
		return fmt.Errorf("group %d at %v: %w", m.Seq, m.Pos, err)
	}
	return s.apply(batch, m)
}

func put(batch *pebble.Batch, key, value []byte) error {
	if value == nil {
		return batch.Delete(key, nil)
	}
	return batch.Set(key, value, nil)
}

// apply makes a batch visible, together with the mark behind it. Only open, and who holds
// committing, call it.
func (s *Disk) apply(batch *pebble.Batch, m durable.Mark) error {
	var mark [16]byte
	binary.BigEndian.PutUint64(mark[:], uint64(m.Pos))
	binary.BigEndian.PutUint64(mark[8:], m.Seq)
	if err := batch.Set(keyDiskMark, mark[:], nil); err != nil {
		return err
	}
	if err := batch.Set(keyDiskVersion, []byte{diskVersion}, nil); err != nil {
		return err
	}
	if err := s.index.Apply(batch, pebble.NoSync); err != nil {
		return err
	}
	s.applied = m
	return nil
}

// count finds out what of each segment is live, and frees those where nothing is.
func (s *Disk) count() error {
	err := s.scan([]byte{spaceBody}, []byte{spaceBody + 1}, func(key, value []byte) bool {
		if b, err := decodeExtents(value); err == nil {
			s.account(b, +1)
		} else {
			s.cfg.Log.Error("body is lost: its record is damaged", "msg", keyID(key), "err", err)
		}
		return true
	})
	s.reclaim()
	return err
}

// account adds the octets of a body to what is live, or takes them off.
func (s *Disk) account(extents []durable.Extent, sign int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range extents {
		s.live[e.Pos.Segment()] += sign * int64(e.Len)
	}
}

// Commit is as Store has it.
func (s *Disk) Commit(g *Group) error {
	s.committing.Lock()
	defer s.committing.Unlock()
	if err := s.failed(); err != nil {
		return err
	}
	var dropped []durable.Extent
	batch := s.index.NewBatch()
	defer batch.Close()
	w := groupWriter{batch: batch, log: append(s.scratch[:0], groupVersion)}
	for _, x := range g.Writes {
		w.write(x.Key, x.Value)
	}
	for _, b := range g.Bodies {
		body, ok := b.(*diskBody)
		if !ok || body.store != s {
			return fmt.Errorf("body of type %T is not of this store", b)
		}
		w.write(idKey(spaceBody, body.id), appendExtents(nil, body.extents))
	}
	for _, id := range g.Drop {
		extents, err := s.extents(id)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return s.fail(err)
		}
		dropped = append(dropped, extents...)
		w.write(idKey(spaceBody, id), nil)
	}
	s.scratch = w.log
	if err := s.commit(&w); err != nil {
		return err
	}
	for _, b := range g.Bodies {
		b.(*diskBody).committed()
	}
	s.account(dropped, -1)
	s.tendSoon()
	return nil
}

// commit syncs a group to the log and takes it into the index. committing is held.
func (s *Disk) commit(w *groupWriter) error {
	if w.err != nil {
		return s.fail(w.err)
	}
	mark, err := s.log.Commit(w.log)
	if errors.Is(err, durable.ErrFull) && !errors.Is(err, durable.ErrBroken) {
		s.setRoom(false)
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	if err != nil {
		return s.fail(err)
	}
	if err := s.apply(w.batch, mark); err != nil {
		return s.fail(err)
	}
	return nil
}

// groupWriter collects the writes of a group, for the log and for the index.
type groupWriter struct {
	batch *pebble.Batch
	log   []byte
	err   error
}

func (w *groupWriter) write(key, value []byte) {
	w.log = appendWrite(w.log, key, value)
	if err := put(w.batch, key, value); w.err == nil {
		w.err = err
	}
}

// fail makes the first error final.
func (s *Disk) fail(err error) error {
	err = fmt.Errorf("queue store in %s: %w", s.cfg.Dir, err)
	if s.fatal.CompareAndSwap(nil, &err) {
		close(s.broken)
		s.cfg.Log.Error("queue store failed: nothing more is accepted; restart when the disk is "+
			"well", "dir", s.cfg.Dir, "err", err)
	}
	return s.failed()
}

func (s *Disk) failed() error {
	if err := s.fatal.Load(); err != nil {
		return fmt.Errorf("%w: %w", ErrBroken, *err)
	}
	return nil
}

// Get is as Store has it.
func (s *Disk) Get(key []byte) ([]byte, error) { return s.get(key) }

func (s *Disk) get(key []byte) ([]byte, error) {
	v, closer, err := s.index.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	v = append(make([]byte, 0, len(v)), v...)
	return v, closer.Close()
}

// Scan is as Store has it. It sees the store as it was when it began.
func (s *Disk) Scan(from, to []byte, fn func(key, value []byte) bool) error {
	return s.scan(from, to, fn)
}

func (s *Disk) scan(from, to []byte, fn func(key, value []byte) bool) error {
	it, err := s.index.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return errors.Join(err, it.Close())
		}
		if !fn(it.Key(), value) {
			break
		}
	}
	return errors.Join(it.Error(), it.Close())
}

// hasRoom reports whether the disk has room for further messages; it looks once a second.
func (s *Disk) hasRoom() bool {
	now := time.Now().UnixNano()
	last := s.roomAt.Load()
	if now-last > int64(time.Second) && s.roomAt.CompareAndSwap(last, now) {
		s.measureRoom()
	}
	return s.roomy.Load()
}

func (s *Disk) measureRoom() {
	usage, err := s.cfg.FS.GetDiskUsage(s.cfg.Dir)
	s.setRoom(err != nil || s.cfg.MinFree < 0 || usage.AvailBytes >= uint64(s.cfg.MinFree))
}

func (s *Disk) setRoom(roomy bool) {
	if s.roomy.Swap(roomy) != roomy {
		s.cfg.Log.Warn("room on the disk of the queue", "dir", s.cfg.Dir, "room", roomy,
			"min_free", s.cfg.MinFree)
	}
}

// waitForRoom returns when the disk has room again, or the store is closed.
func (s *Disk) waitForRoom() {
	s.setRoom(false)
	for {
		select {
		case <-s.stop:
			return
		case <-time.After(200 * time.Millisecond):
		}
		usage, err := s.cfg.FS.GetDiskUsage(s.cfg.Dir)
		if err != nil || usage.AvailBytes > 1<<20 {
			return
		}
	}
}

// Close is as Store has it.
func (s *Disk) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	close(s.stop)
	s.tenders.Wait()
	s.committing.Lock()
	defer s.committing.Unlock()
	var errs []error
	if s.index != nil {
		s.measureRoom()
		if s.log != nil && s.failed() == nil && s.roomy.Load() {
			errs = append(errs, s.flushIndex()) // so that the next start has nothing to replay
		}
		errs = append(errs, s.closeIndex())
	}
	if s.log != nil {
		errs = append(errs, s.log.Close())
	}
	closed := error(errClosed)
	s.fatal.CompareAndSwap(nil, &closed)
	return errors.Join(errs...)
}

// closeIndex closes the index, unless it gave up: then it would wait for what will never end.
func (s *Disk) closeIndex() error {
	closed := make(chan error, 1)
	go func() { closed <- s.index.Close() }()
	select {
	case err := <-closed:
		return err
	case <-s.dead:
		return s.failed()
	}
}

var errClosed = errors.New("store is closed")

// pebbleLogger takes Pebble's words into our log. Pebble logs what a reader of the operator's log
// has no use for at Info.
type pebbleLogger struct{ s *Disk }

func (l pebbleLogger) Infof(format string, args ...any) {
	l.s.cfg.Log.Debug("index", "pebble", fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.s.cfg.Log.Warn("index", "pebble", fmt.Sprintf(format, args...))
}

// Fatalf is where Pebble gives up, as when it can not write its manifest, and it must not return:
// what Pebble has in memory is no longer what it has on disk. The goroutine, one of Pebble's own,
// ends here; Open turns a panic into an error.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	err := fmt.Errorf("index: "+format, args...)
	if !l.s.opened.Load() {
		panic(err)
	}
	l.s.fail(err)
	l.s.dying.Do(func() { close(l.s.dead) })
	runtime.Goexit()
}

// extents returns where a committed body lies.
func (s *Disk) extents(id mail.ID) ([]durable.Extent, error) {
	v, err := s.get(idKey(spaceBody, id))
	if err != nil {
		return nil, fmt.Errorf("body of %v: %w", id, err)
	}
	return decodeExtents(v)
}
