package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tallypost/tallypost/bitcoin"
)

// maxFilterFile is the size after which a new file is begun (Core's MAX_FLTR_FILE_SIZE).
const maxFilterFile = 16 << 20

// position is where something stands in the files.
type position struct{ file, offset uint32 }

func (p position) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, p.file)
	return binary.BigEndian.AppendUint32(dst, p.offset)
}

func parsePosition(b []byte) position {
	return position{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])}
}

// filterFiles are the files of filters. One goroutine writes; any may read what the database points at.
type filterFiles struct {
	fs  vfs.FS
	dir string

	number uint32   // of the file that is written to
	out    vfs.File // nil: none is open
	dirty  bool

	mu     sync.Mutex // guards what follows
	in     vfs.File   // the file that was read last
	inFile uint32
}

func (f *filterFiles) path(n uint32) string {
	return f.fs.PathJoin(f.dir, fmt.Sprintf("fltr%05d.dat", n))
}

// write writes a filter where the next one goes, or to a new file, and returns where it is and where the next
// one after it goes. What a crash left behind there is overwritten.
func (f *filterFiles) write(at position, block bitcoin.Hash, filter []byte) (pos, next position, err error) {
	b := append(make([]byte, 0, len(filter)+64), block[:]...)
	b = bitcoin.AppendCompactSize(b, uint64(len(filter)))
	b = append(b, filter...)
	if int(at.offset)+len(b) > maxFilterFile && at.offset > 0 {
		at = position{file: at.file + 1}
	}
	if f.out == nil || f.number != at.file {
		if err := f.sync(); err != nil {
			return at, at, err
		}
		if err := f.openOut(at.file); err != nil {
			return at, at, err
		}
	}
	if _, err := f.out.WriteAt(b, int64(at.offset)); err != nil {
		return at, at, fmt.Errorf("write %s: %w", f.path(at.file), err)
	}
	f.dirty = true
	return at, position{at.file, at.offset + uint32(len(b))}, nil
}

func (f *filterFiles) openOut(n uint32) error {
	if f.out != nil {
		if err := f.out.Close(); err != nil {
			return err
		}
		f.out = nil
	}
	out, err := f.fs.OpenReadWrite(f.path(n), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	f.out, f.number = out, n
	dir, err := f.fs.OpenDir(f.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (f *filterFiles) sync() error {
	if !f.dirty {
		return nil
	}
	if err := f.out.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", f.path(f.number), err)
	}
	f.dirty = false
	return nil
}

// read returns the filter of a block at a position.
func (f *filterFiles) read(pos position, block bitcoin.Hash, size uint32) ([]byte, error) {
	if size > maxFilterFile {
		return nil, errors.New("size out of range")
	}
	head := len(block) + bitcoin.CompactSizeLen(uint64(size))
	b := make([]byte, head+int(size))
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.in == nil || f.inFile != pos.file {
		if f.in != nil {
			f.in.Close()
			f.in = nil
		}
		in, err := f.fs.Open(f.path(pos.file))
		if err != nil {
			return nil, err
		}
		f.in, f.inFile = in, pos.file
	}
	if _, err := f.in.ReadAt(b, int64(pos.offset)); err != nil {
		return nil, fmt.Errorf("read %s: %w", f.path(pos.file), err)
	}
	if bitcoin.Hash(b[:32]) != block {
		return nil, fmt.Errorf("%s has another block's at %d", f.path(pos.file), pos.offset)
	}
	return b[head:], nil
}

func (f *filterFiles) close() error {
	var errs []error
	for _, file := range []vfs.File{f.out, f.in} {
		if file != nil {
			errs = append(errs, file.Close())
		}
	}
	return errors.Join(errs...)
}
