package blockstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/tallypost/tallypost/bitcoin"
)

// The sizes of files (Bitcoin Core node/blockstorage.h).
const (
	maxFileSize      = 0x8000000 // octets of a blk file
	maxSmallFileSize = 0x10000
	blockChunk       = 0x1000000 // octets that a blk file is given at once
	undoChunk        = 0x100000
	frameSize        = 8  // magic and size
	checksumSize     = 32 // after undo data

	// maxHandles is the number of files that are kept open for reading.
	maxHandles = 32
)

// FileInfo tells of a pair of blk and rev files.
type FileInfo struct {
	Blocks                uint32
	Size, UndoSize        uint32 // of the blk and rev file
	FirstHeight           bitcoin.Height
	LastHeight            bitcoin.Height
	FirstTime, LatestTime uint32
}

func (i *FileInfo) append(dst []byte) []byte {
	for _, n := range [...]uint32{i.Blocks, i.Size, i.UndoSize, uint32(i.FirstHeight),
		uint32(i.LastHeight), i.FirstTime, i.LatestTime} {
		dst = binary.LittleEndian.AppendUint32(dst, n)
	}
	return dst
}

func parseFileInfo(b []byte) (i FileInfo, err error) {
	if len(b) != 7*4 {
		return i, fmt.Errorf("%w: file record of %d octets in the block index", ErrCorrupt, len(b))
	}
	n := func(at int) uint32 { return binary.LittleEndian.Uint32(b[4*at:]) }
	return FileInfo{n(0), n(1), n(2), bitcoin.Height(n(3)), bitcoin.Height(n(4)), n(5), n(6)}, nil
}

// add counts a block.
func (i *FileInfo) add(height bitcoin.Height, time uint32) {
	if i.Blocks == 0 || i.FirstHeight > height {
		i.FirstHeight = height
	}
	if i.Blocks == 0 || i.FirstTime > time {
		i.FirstTime = time
	}
	i.Blocks++
	i.LastHeight = max(i.LastHeight, height)
	i.LatestTime = max(i.LatestTime, time)
}

// fileID names a blk or rev file.
type fileID struct {
	undo   bool
	number int32
}

func (id fileID) String() string {
	if id.undo {
		return fmt.Sprintf("rev%05d.dat", id.number)
	}
	return fmt.Sprintf("blk%05d.dat", id.number)
}

// files are the blk and rev files.
type files struct {
	store *Store
	fs    vfs.FS
	dir   string
	xor   xorKey
	max   uint32 // size of a blk file

	mu          sync.Mutex // guards all below
	infos       []FileInfo // by number
	dirty       map[int32]bool
	current     cursor             // of blocks below assumedFrom
	assumed     cursor             // of blocks from there on
	assumedFrom bitcoin.Height     // the block of a snapshot; 0: none
	writers     map[fileID]*handle // have been written to since the last flush, or soon will be
	readers     map[fileID]*handle
	clock       uint64 // of use, for choosing which reader to close
	newName     bool   // the directory has a name that may not be durable
	grown       bool   // some file was given more room since it was asked last
	buf         []byte
}

// handle is an open file. It is closed when nobody uses it any more.
type handle struct {
	vfs.File
	users int    // guarded by files.mu
	used  uint64 // guarded by files.mu
	gone  bool   // guarded by files.mu; to be closed by the last user
	dirty bool   // guarded by files.mu
}

func openFiles(s *Store, key xorKey) (*files, error) {
	f := &files{
		store:   s,
		fs:      s.fs,
		dir:     s.cfg.BlocksDir,
		xor:     key,
		max:     maxFileSize,
		dirty:   make(map[int32]bool),
		writers: make(map[fileID]*handle),
		readers: make(map[fileID]*handle),
	}
	if s.cfg.SmallFiles {
		f.max = maxSmallFileSize
	}
	err := s.scanIndex(keyFile, func(key, value []byte) error {
		info, err := parseFileInfo(value)
		number := int32(binary.BigEndian.Uint32(key[1:]))
		f.grow(number)
		f.infos[number] = info
		return err
	})
	if err != nil {
		return nil, err
	}
	f.grow(0)
	f.current, f.assumed = cursor(len(f.infos)-1), noFile
	reindexing, err := s.Reindexing()
	if err != nil {
		return nil, err
	}
	if !reindexing {
		s.cfg.Log.Info("Checking all blk files are present...")
		return f, f.checkFiles()
	}
	// Blocks are found in the files one after the other: what comes otherwise must not be written
	// over them.
	last, err := s.lastBlockFile()
	f.current = max(f.current, cursor(last+1))
	f.grow(int32(f.current))
	return f, err
}

// lastBlockFile returns the greatest number of a blk file in the directory, or -1.
func (s *Store) lastBlockFile() (int32, error) {
	numbers, err := s.blockFiles()
	if err != nil || len(numbers) == 0 {
		return -1, err
	}
	return numbers[len(numbers)-1], nil
}

// blockFiles returns the numbers of the blk files in the directory, in order.
func (s *Store) blockFiles() ([]int32, error) {
	names, err := s.list(s.cfg.BlocksDir)
	if err != nil {
		return nil, err
	}
	var numbers []int32
	for _, name := range names {
		var number int32
		if n, _ := fmt.Sscanf(name, "blk%d.dat", &number); n == 1 &&
			name == (fileID{false, number}).String() {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// removeAfterGap removes the blk files after the first missing one, and all rev files (Bitcoin Core
// node/blockstorage.cpp, CleanupBlockRevFiles).
func (s *Store) removeAfterGap() error {
	names, err := s.list(s.cfg.BlocksDir)
	if err != nil {
		return err
	}
	next := int32(0)
	for _, name := range names { // sorted
		switch {
		case name == (fileID{false, next}).String():
			next++
			continue
		case strings.HasPrefix(name, "blk"), strings.HasPrefix(name, "rev"):
			if err := s.fs.Remove(s.fs.PathJoin(s.cfg.BlocksDir, name)); err != nil {
				return fmt.Errorf("remove useless block file: %w", err)
			}
		}
	}
	return nil
}

func (f *files) grow(number int32) {
	for int32(len(f.infos)) <= number {
		f.infos = append(f.infos, FileInfo{})
	}
}

// checkFiles looks whether the files have what the index says, and removes those that were pruned
// but still there when the program ended.
func (f *files) checkFiles() error {
	f.store.cfg.Log.Info("Checking all blk files are present...")
	for number := range f.infos {
		info := &f.infos[number]
		blocks, undo := fileID{false, int32(number)}, fileID{true, int32(number)}
		if info.Size == 0 && !f.growing(int32(number)) {
			if err := f.remove(int32(number)); err != nil {
				return err
			}
			continue
		}
		if err := f.checkSize(blocks, info.Size); err != nil {
			return err
		}
		if err := f.checkSize(undo, info.UndoSize); err != nil {
			return err
		}
	}
	return nil
}

func (f *files) checkSize(id fileID, least uint32) error {
	if least == 0 {
		return nil
	}
	path := f.path(id)
	stat, err := f.fs.Stat(path)
	if err != nil {
		return fmt.Errorf("%w: block file %s: %w", ErrCorrupt, path, err)
	}
	if stat.Size() < int64(least) {
		return fmt.Errorf("%w: block file %s has %d octets, the index knows of %d",
			ErrCorrupt, path, stat.Size(), least)
	}
	return nil
}

func (f *files) path(id fileID) string { return f.fs.PathJoin(f.dir, id.String()) }

// remove deletes a pair of files, which may be missing.
func (f *files) remove(number int32) error {
	for _, id := range []fileID{{false, number}, {true, number}} {
		path := f.path(id)
		if _, err := f.fs.Stat(path); err != nil {
			continue
		}
		if err := f.fs.Remove(path); err != nil {
			return fmt.Errorf("remove pruned file: %w", err)
		}
	}
	return nil
}

// claim returns where the next block of a size goes, in a new file if this one is full. The caller
// holds mu.
func (f *files) claim(size uint32, height bitcoin.Height, time uint32) Pos {
	limit := f.max
	if f.store.cfg.SmallFiles && size >= limit {
		limit = size + 1
	}
	at := f.cursorFor(height)
	if *at == noFile || f.infos[*at].Size+size >= limit {
		*at = cursor(len(f.infos))
		f.grow(int32(*at))
	}
	info := &f.infos[*at]
	pos := Pos{int32(*at), info.Size}
	info.add(height, time)
	info.Size += size
	f.dirty[pos.File] = true
	return pos
}

// frame returns what precedes data of a size in a file, in memory that is used again and again. The
// caller holds mu and appends the data.
func (f *files) frame(size int) []byte {
	f.buf = slices.Grow(f.buf[:0], frameSize+size+checksumSize)
	f.buf = append(f.buf, f.store.cfg.Network.Magic[:]...)
	return binary.LittleEndian.AppendUint32(f.buf, uint32(size))
}

// write puts a frame into a file at an offset, and obfuscates it for that. The caller holds mu.
func (f *files) write(id fileID, offset uint32, frame []byte) error {
	f.xor.apply(frame, int64(offset))
	h, err := f.writer(id)
	if err != nil {
		return f.store.fault.set(err)
	}
	if err := f.allocate(h, id, offset, uint32(len(frame))); err != nil {
		return f.store.fault.set(err)
	}
	h.dirty = true
	if _, err := h.WriteAt(frame, int64(offset)); err != nil {
		return f.store.fault.set(fmt.Errorf("write %s: %w", f.path(id), err))
	}
	return nil
}

// allocate makes room for a write before the file needs it, so that it lies together on the disk.
func (f *files) allocate(h *handle, id fileID, offset, size uint32) error {
	chunk := uint32(blockChunk)
	switch {
	case id.undo:
		chunk = undoChunk
	case f.store.cfg.SmallFiles:
		chunk = 0x4000
	}
	had, need := (offset+chunk-1)/chunk, (offset+size+chunk-1)/chunk
	if need == had {
		return nil
	}
	if err := f.store.checkRoom(f.dir, int64(chunk)); err != nil {
		return err
	}
	f.grown = true
	if err := h.Preallocate(int64(had*chunk), int64((need-had)*chunk)); err != nil {
		return fmt.Errorf("grow %s: %w", f.path(id), err)
	}
	return nil
}

// writer returns a file opened for writing. The caller holds mu.
func (f *files) writer(id fileID) (*handle, error) {
	if h := f.writers[id]; h != nil {
		return h, nil
	}
	_, err := f.fs.Stat(f.path(id))
	fresh := err != nil
	f.newName = f.newName || fresh
	file, err := f.fs.OpenReadWrite(f.path(id), vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("open block file: %w", err)
	}
	h := &handle{File: file}
	f.writers[id] = h
	if fresh && !id.undo { // the two are a pair for whoever looks at the directory
		_, err = f.writer(fileID{true, id.number})
	}
	return h, err
}

// flush makes durable what was written.
func (f *files) flush() error {
	f.mu.Lock()
	newName := f.newName
	f.newName = false
	dirty := make(map[fileID]*handle)
	for id, h := range f.writers {
		if h.dirty {
			dirty[id] = h
			h.dirty = false
			h.users++
		}
	}
	f.mu.Unlock()
	var err error
	for id, h := range dirty {
		if e := h.SyncData(); e != nil {
			err = errors.Join(err, fmt.Errorf("sync %s: %w", f.path(id), e))
		}
	}
	if err == nil && newName {
		err = f.store.syncDir(f.dir)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range dirty {
		f.release(h)
	}
	f.closeOldWriters()
	return err
}

// closeOldWriters closes files that are full and durable. A rev file may still be written to after
// its blk file is full, then it is opened again. The caller holds mu.
func (f *files) closeOldWriters() {
	for id, h := range f.writers {
		if !f.growing(id.number) && !h.dirty {
			delete(f.writers, id)
			f.discard(h)
		}
	}
}

// takeDirty returns the records of files that the index does not have yet.
func (f *files) takeDirty() map[int32]FileInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	infos := make(map[int32]FileInfo, len(f.dirty))
	for number := range f.dirty {
		infos[number] = f.infos[number]
	}
	clear(f.dirty)
	return infos
}

// use returns a file for reading; release gives it back.
func (f *files) use(id fileID) (*handle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.writers[id]
	if h == nil {
		h = f.readers[id]
	}
	if h != nil {
		// What is read back from a file that somebody has deleted would be lost at the next start.
		if _, err := f.fs.Stat(f.path(id)); err != nil {
			return nil, fmt.Errorf("block file: %w", err)
		}
	}
	if h == nil {
		file, err := f.fs.Open(f.path(id), vfs.RandomReadsOption)
		if err != nil {
			return nil, fmt.Errorf("open block file: %w", err)
		}
		h = &handle{File: file}
		f.readers[id] = h
	}
	h.users++
	f.clock++
	h.used = f.clock
	for len(f.readers) > maxHandles {
		f.closeReader()
	}
	return h, nil
}

// closeReader closes the reader that was used longest ago. The caller holds mu.
func (f *files) closeReader() {
	var oldest fileID
	var found *handle
	for id, h := range f.readers {
		if found == nil || h.used < found.used {
			oldest, found = id, h
		}
	}
	delete(f.readers, oldest)
	f.discard(found)
}

func (f *files) done(h *handle) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.release(h)
}

// release ends one use. The caller holds mu.
func (f *files) release(h *handle) {
	h.users--
	if h.gone && h.users == 0 {
		h.Close()
	}
}

// discard closes a file that is in no table any more, now or after its last use. The caller holds
// mu.
func (f *files) discard(h *handle) {
	h.gone = true
	if h.users == 0 {
		h.Close()
	}
}

func (f *files) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, table := range []map[fileID]*handle{f.writers, f.readers} {
		for h := range maps.Values(table) {
			errs = append(errs, h.Close())
		}
		clear(table)
	}
	return errors.Join(errs...)
}
