package durable

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Errors that Faults makes.
var (
	ErrPowerCut = errors.New("power cut")
	ErrSync     = errors.New("input/output error")
)

// Faults is a file system in memory for tests of what must survive: its power can be cut before any
// operation that changes something, its disk can be full, its syncs can fail.
type Faults struct {
	vfs.FS // in memory

	// power is held for reading by every operation that changes something, for as long as it lasts,
	// and for writing while the power goes: no operation is half done in what the disk holds then.
	power sync.RWMutex
	image *vfs.MemFS // guarded by power; what the disk held when the power went

	mu       sync.Mutex
	ops      int      // guarded by mu; operations that change something
	cutAt    int      // guarded by mu; the operation before which the power goes; 0: none
	keep     int      // guarded by mu
	seed     uint64   // guarded by mu
	full     Fullness // guarded by mu
	failSync string   // guarded by mu; part of the path of files whose syncs fail
}

// Fullness says what a full disk refuses.
type Fullness uint8

// The degrees of fullness.
const (
	Roomy       Fullness = iota
	NoNewBlocks          // files can not be made or grow; blocks that are allocated can be written
	NoWrites             // nothing can be written, as where each write takes new blocks
)

// NewFaults returns a file system without faults that holds what from holds, or nothing if that is
// nil.
func NewFaults(from *vfs.MemFS) *Faults {
	if from == nil {
		from = vfs.NewCrashableMem()
	}
	return &Faults{FS: from}
}

// CutPower has the power go before the nth operation from now that changes something, the first
// being 1. Of what was not synced keep percent of the blocks and names reach the disk; seed picks
// which.
func (f *Faults) CutPower(n, keep int, seed uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cutAt, f.keep, f.seed = f.ops+n, keep, seed
}

// Image is what the disk held when the power went; nil if it has not gone.
func (f *Faults) Image() *vfs.MemFS {
	f.power.RLock()
	defer f.power.RUnlock()
	return f.image
}

// Ops is the number of operations so far that changed something.
func (f *Faults) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// SetFull fills the disk, or makes room.
func (f *Faults) SetFull(full Fullness) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.full = full
}

// FailSync makes the syncs of files fail whose path has that part; "" ends it.
func (f *Faults) FailSync(part string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failSync = part
}

// Clone returns what the disk would hold if the power went now, with keep percent of what was not
// synced.
func (f *Faults) Clone(keep int, seed uint64) *vfs.MemFS {
	return f.FS.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{
		UnsyncedDataPercent: keep, RNG: rand.New(rand.NewPCG(seed, 0)),
	})
}

// change is the kind of an operation that changes something.
type change uint8

const (
	changeName  change = iota // remove, rename, make a directory
	changeGrow                // takes new blocks
	changeWrite               // writes to blocks that may be allocated
	changeSync
)

// do counts an operation and carries it out, or has it fail.
func (f *Faults) do(kind change, path string, op func() error) error {
	if f.isLast() {
		f.power.Lock()
		if f.image == nil {
			f.image = f.Clone(f.keep, f.seed)
		}
		f.power.Unlock()
	}
	f.power.RLock()
	defer f.power.RUnlock()
	if f.image != nil {
		return ErrPowerCut
	}
	if err := f.fault(kind, path); err != nil {
		return err
	}
	return op()
}

func (f *Faults) isLast() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ops++
	return f.ops == f.cutAt
}

func (f *Faults) fault(kind change, path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch kind {
	case changeGrow:
		if f.full >= NoNewBlocks {
			return syscall.ENOSPC
		}
	case changeWrite:
		if f.full >= NoWrites {
			return syscall.ENOSPC
		}
	case changeSync:
		if f.failSync != "" && strings.Contains(path, f.failSync) {
			return ErrSync
		}
	}
	return nil
}

func (f *Faults) file(kind change, path string, open func() (vfs.File, error)) (vfs.File, error) {
	var file vfs.File
	err := f.do(kind, path, func() (err error) {
		file, err = open()
		return err
	})
	if err != nil {
		return nil, err
	}
	return &faultyFile{file, f, path}, nil
}

// Create, and the methods below, are as vfs.FS has them.
func (f *Faults) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.file(changeGrow, name, func() (vfs.File, error) { return f.FS.Create(name, c) })
}

// OpenReadWrite opens a file for both, and makes it if need be.
func (f *Faults) OpenReadWrite(name string, c vfs.DiskWriteCategory,
	o ...vfs.OpenOption) (vfs.File, error) {
	return f.file(changeName, name, func() (vfs.File, error) {
		return f.FS.OpenReadWrite(name, c, o...)
	})
}

// ReuseForWrite renames a file and opens it.
func (f *Faults) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.file(changeName, to, func() (vfs.File, error) {
		return f.FS.ReuseForWrite(from, to, c)
	})
}

// OpenDir opens a directory, to sync it.
func (f *Faults) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &faultyFile{file, f, name}, nil
}

// Link makes a second name.
func (f *Faults) Link(from, to string) error {
	return f.do(changeName, to, func() error { return f.FS.Link(from, to) })
}

// Remove removes a file.
func (f *Faults) Remove(name string) error {
	return f.do(changeName, name, func() error { return f.FS.Remove(name) })
}

// RemoveAll removes a tree.
func (f *Faults) RemoveAll(name string) error {
	return f.do(changeName, name, func() error { return f.FS.RemoveAll(name) })
}

// Rename renames a file, or a directory. A crash leaves a directory under one name or the other, as file
// systems with a journal do: the file system in memory would leave both names or none.
func (f *Faults) Rename(from, to string) error {
	return f.do(changeName, to, func() error {
		if err := f.FS.Rename(from, to); err != nil {
			return err
		}
		if stat, err := f.FS.Stat(to); err != nil || !stat.IsDir() {
			return err
		}
		above, err := f.FS.OpenDir(f.FS.PathDir(to))
		if err != nil {
			return err
		}
		defer above.Close()
		return above.Sync()
	})
}

// MkdirAll makes directories.
func (f *Faults) MkdirAll(dir string, perm os.FileMode) error {
	return f.do(changeName, dir, func() error { return f.FS.MkdirAll(dir, perm) })
}

// Lock locks a file.
func (f *Faults) Lock(name string) (c io.Closer, err error) {
	err = f.do(changeName, name, func() error {
		c, err = f.FS.Lock(name)
		return err
	})
	return c, err
}

// GetDiskUsage tells of a disk that is full, or nearly empty, as SetFull has it.
func (f *Faults) GetDiskUsage(string) (vfs.DiskUsage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := vfs.DiskUsage{AvailBytes: 1 << 40, TotalBytes: 2 << 40, UsedBytes: 1 << 40}
	if f.full > Roomy {
		u.AvailBytes = 0
	}
	return u, nil
}

// faultyFile is a file of Faults that was opened for writing, or a directory.
type faultyFile struct {
	vfs.File
	fs   *Faults
	path string
}

func (f *faultyFile) Write(p []byte) (n int, err error) {
	err = f.fs.do(changeGrow, f.path, func() error {
		n, err = f.File.Write(p)
		return err
	})
	return n, err
}

func (f *faultyFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.fs.do(changeWrite, f.path, func() error {
		n, err = f.File.WriteAt(p, off)
		return err
	})
	return n, err
}

func (f *faultyFile) Preallocate(off, n int64) error {
	return f.fs.do(changeGrow, f.path, func() error { return f.File.Preallocate(off, n) })
}

func (f *faultyFile) Sync() error { return f.fs.do(changeSync, f.path, f.File.Sync) }

func (f *faultyFile) SyncData() error { return f.fs.do(changeSync, f.path, f.File.SyncData) }

func (f *faultyFile) SyncTo(n int64) (full bool, err error) {
	err = f.fs.do(changeSync, f.path, func() error {
		full, err = f.File.SyncTo(n)
		return err
	})
	return full, err
}
