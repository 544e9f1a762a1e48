package blockstore

import (
	"fmt"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// dbFS is the file system of a database. Where writing fails Pebble, depending on the place, ends
// the process, panics with locks in disorder, or tries again for ever while writers wait. Here a
// failure breaks the store at once, and Pebble never hears of it: the goroutine that met it is
// parked for good, like the failed disk it stands for. Whoever waits for it goes on by guard, and
// what is on the disk is what a crash would have left.
type dbFS struct {
	vfs.FS
	s *Store
}

// broken breaks the store and does not return.
func (s *Store) broken(err error) {
	s.fault.set(err)
	s.cfg.Log.Error("database failed", "err", err)
	select {}
}

// must returns only if there is no error.
func (fs dbFS) must(what, name string, err error) {
	if err != nil {
		fs.s.broken(fmt.Errorf("%s %s: %w", what, name, err))
	}
}

func (fs dbFS) file(what, name string, file vfs.File, err error) (vfs.File, error) {
	fs.must(what, name, err)
	return dbFile{file, fs, name}, nil
}

// Create, and the methods below, are as vfs.FS has them. The name of a manifest is made durable at
// once: the marker that points to it is made with the same sync of the directory as Pebble would
// make that name with, and could come through a crash alone.
func (fs dbFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := fs.FS.Create(name, c)
	if err == nil && strings.HasPrefix(fs.PathBase(name), "MANIFEST") {
		err = fs.s.syncDir(fs.PathDir(name))
	}
	return fs.file("create", name, file, err)
}

// OpenReadWrite opens a file for both, and makes it if need be.
func (fs dbFS) OpenReadWrite(
	name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption,
) (vfs.File, error) {
	file, err := fs.FS.OpenReadWrite(name, c, o...)
	return fs.file("open", name, file, err)
}

// ReuseForWrite renames a file and opens it.
func (fs dbFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := fs.FS.ReuseForWrite(from, to, c)
	return fs.file("reuse", to, file, err)
}

// OpenDir opens a directory, to sync it.
func (fs dbFS) OpenDir(name string) (vfs.File, error) {
	file, err := fs.FS.OpenDir(name)
	return fs.file("open directory", name, file, err)
}

// Link makes a second name.
func (fs dbFS) Link(from, to string) error {
	fs.must("link", to, fs.FS.Link(from, to))
	return nil
}

// Rename renames a file.
func (fs dbFS) Rename(from, to string) error {
	fs.must("rename", to, fs.FS.Rename(from, to))
	return nil
}

// MkdirAll makes directories.
func (fs dbFS) MkdirAll(dir string, perm os.FileMode) error {
	fs.must("make directory", dir, fs.FS.MkdirAll(dir, perm))
	return nil
}

// dbFile is a file that was opened for writing, or a directory.
type dbFile struct {
	vfs.File
	fs   dbFS
	name string
}

// Write, and the methods below, are as vfs.File has them.
func (f dbFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	f.fs.must("write", f.name, err)
	return n, nil
}

// WriteAt writes at an offset.
func (f dbFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	f.fs.must("write", f.name, err)
	return n, nil
}

// Preallocate makes room.
func (f dbFile) Preallocate(off, n int64) error {
	f.fs.must("grow", f.name, f.File.Preallocate(off, n))
	return nil
}

// Sync makes everything durable.
func (f dbFile) Sync() error {
	f.fs.must("sync", f.name, f.File.Sync())
	return nil
}

// SyncData makes the data durable.
func (f dbFile) SyncData() error {
	f.fs.must("sync", f.name, f.File.SyncData())
	return nil
}

// SyncTo makes a part of the data durable.
func (f dbFile) SyncTo(n int64) (full bool, err error) {
	full, err = f.File.SyncTo(n)
	f.fs.must("sync", f.name, err)
	return full, nil
}
