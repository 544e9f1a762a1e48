package blockstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// Source is a file that blocks are read from: a blk file, of this store or of somebody else's, or a
// bootstrap file of the same form.
type Source struct {
	Name   string
	Number int32 // of a blk file of this store; else -1
	Size   int64
	file   vfs.File
	key    xorKey
	magic  [4]byte

	window []byte // what was read last in search of blocks
	from   int64  // where it begins
}

const (
	// windowBytes is read at once in search of blocks: many where they are small, and little more
	// than the header where they are large.
	windowBytes = 16 << 10
	// searchBytes is how much of it is searched at a time.
	searchBytes = 4 << 10
)

// Close closes the file.
func (s *Source) Close() error { return s.file.Close() }

// maxBlockSize is the most that a block can take in a file.
const maxBlockSize = consensus.MaxBlockWeight

// Sources opens the files to be read at a path, in order: one file, or all blk files of a
// directory such as Bitcoin Core's blocks, whose XOR key is found beside them.
func (s *Store) Sources(name string) ([]*Source, error) {
	stat, err := s.fs.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("import blocks: %w", err)
	}
	if !stat.IsDir() {
		one, err := s.source(name, -1)
		return []*Source{one}, err
	}
	var sources []*Source
	for number := int32(0); ; number++ {
		file := s.fs.PathJoin(name, fileID{false, number}.String())
		if _, err := s.fs.Stat(file); err != nil {
			break
		}
		one, err := s.source(file, -1)
		if err != nil {
			return sources, err
		}
		sources = append(sources, one)
	}
	if len(sources) == 0 {
		return nil, fmt.Errorf("import blocks: directory %s has no blk00000.dat", name)
	}
	return sources, nil
}

// OwnSources opens the block files of this store, as they are on disk.
func (s *Store) OwnSources() ([]*Source, error) {
	numbers, err := s.blockFiles()
	if err != nil {
		return nil, err
	}
	var sources []*Source
	for _, number := range numbers {
		one, err := s.source(s.files.path(fileID{false, number}), number)
		if err != nil {
			return sources, err
		}
		sources = append(sources, one)
	}
	return sources, nil
}

func (s *Store) source(name string, number int32) (*Source, error) {
	file, err := s.fs.Open(name, vfs.SequentialReadsOption)
	if err != nil {
		return nil, fmt.Errorf("import blocks: %w", err)
	}
	stat, err := file.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("import blocks: %w", err), file.Close())
	}
	one := &Source{Name: path.Base(name), Number: number, Size: stat.Size(), file: file,
		magic: s.cfg.Network.Magic}
	if number >= 0 {
		one.key = s.files.xor
		return one, nil
	}
	one.findKey(s.fs, s.fs.PathJoin(s.fs.PathDir(name), "xor.dat"))
	return one, nil
}

// findKey takes the key beside the file, if there is one and the file does not begin like a plain
// one.
func (s *Source) findKey(fs vfs.FS, beside string) {
	var first [4]byte
	if _, err := s.file.ReadAt(first[:], 0); err != nil || first == s.magic {
		return
	}
	if b, err := readFile(fs, beside); err == nil && len(b) == len(s.key) {
		s.key = xorKey(b)
	}
}

// Next finds the first block at an offset or after it. It returns where its octets begin and their
// number; ok is false where there is no more. What looks like a block need not be one. Next, Header
// and After are for one goroutine.
func (s *Source) Next(offset int64) (at int64, size int, ok bool, err error) {
	for {
		window, err := s.view(offset, searchBytes)
		if err != nil {
			return 0, 0, false, err
		}
		for i := 0; i+frameSize <= len(window); i++ {
			if [4]byte(window[i:]) != s.magic {
				continue
			}
			size := binary.LittleEndian.Uint32(window[i+4:])
			at := offset + int64(i) + frameSize
			if size >= bitcoin.HeaderSize && size <= maxBlockSize && at+int64(size) <= s.Size {
				return at, int(size), true, nil
			}
		}
		if len(window) < searchBytes {
			return 0, 0, false, nil
		}
		offset += searchBytes - frameSize + 1
	}
}

// After returns where to look for the block after one that Next found: behind it, if a block or
// nothing follows there, else one octet further than where this one seemed to begin.
func (s *Source) After(at int64, size int) (int64, error) {
	var next [4]byte
	window, err := s.view(at+int64(size), len(next))
	if err != nil {
		return 0, err
	}
	copy(next[:], window)
	plain := next
	s.key.apply(plain[:], at+int64(size)) // allocated ahead and never written
	if next == s.magic || next == [4]byte{} || plain == [4]byte{} {
		return at + int64(size), nil
	}
	return s.Again(at), nil
}

// Again returns where to look for a block if there is none where Next found one.
func (s *Source) Again(at int64) int64 { return at - frameSize + 1 }

// Header returns the header of a block that Next found; the octets are good until the next call.
func (s *Source) Header(at int64) ([]byte, error) {
	b, err := s.view(at, bitcoin.HeaderSize)
	if err == nil && len(b) < bitcoin.HeaderSize {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

// view returns octets at an offset, fewer at the end of the file.
func (s *Source) view(offset int64, size int) ([]byte, error) {
	if offset < s.from || offset+int64(size) > s.from+int64(len(s.window)) {
		if s.window == nil {
			s.window = make([]byte, windowBytes)
		}
		n, err := s.readAt(s.window[:windowBytes], offset)
		s.window, s.from = s.window[:n], offset
		if err != nil {
			return nil, err
		}
	}
	b := s.window[offset-s.from:]
	return b[:min(size, len(b))], nil
}

// Read returns the octets at an offset; they are the caller's.
func (s *Source) Read(offset int64, size int) ([]byte, error) {
	b := make([]byte, size)
	n, err := s.readAt(b, offset)
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

// readAt reads as much as there is.
func (s *Source) readAt(b []byte, offset int64) (int, error) {
	n, err := s.file.ReadAt(b, offset)
	s.key.apply(b[:n], offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, fmt.Errorf("read %s at octet %d: %w", s.Name, offset, err)
	}
	return n, nil
}
