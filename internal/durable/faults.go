package durable

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// Errors that Faults makes.
var (
	ErrPowerCut = errors.New("power cut")
	ErrSync     = errors.New("input/output error")
)

// Faults is a file system in memory for tests of what must survive: its power can be cut before any write
// or sync, its disk can be full, its syncs can fail.
type Faults struct {
	vfs.FS
	mem *vfs.MemFS

	mu       sync.Mutex
	ops      int        // guarded by mu; operations that change something
	cutAt    int        // guarded by mu; the operation before which the power goes; 0: none
	keep     int        // guarded by mu
	seed     uint64     // guarded by mu
	image    *vfs.MemFS // guarded by mu; what the disk held when the power went
	full     Fullness   // guarded by mu
	failSync string     // guarded by mu; part of the path of files whose syncs fail
}

// Fullness says what a full disk refuses.
type Fullness uint8

// The degrees of fullness.
const (
	Roomy       Fullness = iota
	NoNewBlocks          // files can not be made or grow; blocks that are allocated can be written
	NoWrites             // nothing can be written, as where each write takes new blocks
)

// NewFaults returns an empty file system without faults. A nil from begins empty; else it begins as a copy
// of what from holds.
func NewFaults(from *vfs.MemFS) *Faults {
	f := &Faults{mem: from}
	if from == nil {
		f.mem = vfs.NewCrashableMem()
	}
	f.FS = errorfs.Wrap(f.mem, errorfs.InjectorFunc(f.inject))
	return f
}

// CutPower has the power go before the nth operation from now that changes something, the first being 1.
// Of what was not synced keep percent of the blocks and names reach the disk; seed picks which.
func (f *Faults) CutPower(n, keep int, seed uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cutAt, f.keep, f.seed = f.ops+n, keep, seed
}

// Image is what the disk held when the power went; nil if it has not gone.
func (f *Faults) Image() *vfs.MemFS {
	f.mu.Lock()
	defer f.mu.Unlock()
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

// Clone returns what the disk would hold if the power went now, with keep percent of what was not synced.
func (f *Faults) Clone(keep int, seed uint64) *vfs.MemFS {
	return f.mem.CrashClone(vfs.CrashCloneCfg{
		UnsyncedDataPercent: keep, RNG: rand.New(rand.NewPCG(seed, 0)),
	})
}

func (f *Faults) inject(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsRead || op.Kind == errorfs.OpFileClose {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.image != nil {
		return ErrPowerCut
	}
	f.ops++
	if f.cutAt == f.ops {
		f.image = f.Clone(f.keep, f.seed)
		return ErrPowerCut
	}
	switch op.Kind {
	case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
		if f.failSync != "" && strings.Contains(op.Path, f.failSync) {
			return ErrSync
		}
	case errorfs.OpCreate, errorfs.OpFilePreallocate, errorfs.OpFileWrite:
		if f.full >= NoNewBlocks {
			return syscall.ENOSPC
		}
	case errorfs.OpFileWriteAt:
		if f.full >= NoWrites {
			return syscall.ENOSPC
		}
	}
	return nil
}

// GetDiskUsage tells of a disk that is nearly full or nearly empty, as SetFull has it.
func (f *Faults) GetDiskUsage(string) (vfs.DiskUsage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := vfs.DiskUsage{AvailBytes: 1 << 40, TotalBytes: 2 << 40, UsedBytes: 1 << 40}
	if f.full > Roomy {
		u.AvailBytes = 0
	}
	return u, nil
}
