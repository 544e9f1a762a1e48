package blockstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	crand "crypto/rand"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// xorKey is what octets of blk and rev files are XORed with: octet i with that of i modulo 8.
type xorKey [8]byte

// apply XORs octets that stand at an offset of their file.
func (k xorKey) apply(b []byte, offset int64) {
	if k == (xorKey{}) {
		return
	}
	var turned xorKey
	for i := range turned {
		turned[i] = k[(offset+int64(i))%int64(len(k))]
	}
	word := binary.NativeEndian.Uint64(turned[:])
	for ; len(b) >= 8; b = b[8:] {
		binary.NativeEndian.PutUint64(b, binary.NativeEndian.Uint64(b)^word)
	}
	for i := range b {
		b[i] ^= turned[i]
	}
}

// openXOR returns the key of the directory. A new directory gets a random one, so that no virus
// scanner finds what somebody put into a transaction; one without a key has plain files (Bitcoin
// Core node/blockstorage.cpp, InitBlocksdirXorKey).
func (s *Store) openXOR() (key xorKey, err error) {
	path := s.fs.PathJoin(s.cfg.BlocksDir, "xor.dat")
	b, err := readFile(s.fs, path)
	switch {
	case err == nil && len(b) != len(key):
		return key, fmt.Errorf("%w: %s has %d octets, want %d", ErrCorrupt, path, len(b), len(key))
	case err == nil:
		key = xorKey(b)
	default:
		names, err := s.list(s.cfg.BlocksDir)
		if err != nil {
			return key, err
		}
		if !s.cfg.NoXOR && !hasBlockFiles(names) {
			if _, err := crand.Read(key[:]); err != nil {
				return key, err
			}
		}
		if err := s.writeFile(path, key[:]); err != nil {
			return key, err
		}
	}
	if s.cfg.NoXOR && key != (xorKey{}) {
		return key, fmt.Errorf("The blocksdir XOR-key can not be disabled when a random key was "+
			"already stored! Stored key: '%x', stored path: '%s'.", key[:], path)
	}
	return key, nil
}

func hasBlockFiles(names []string) bool {
	for _, name := range names {
		if strings.HasSuffix(name, ".dat") {
			return true
		}
	}
	return false
}

func readFile(fs vfs.FS, path string) ([]byte, error) {
	file, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	stat, err := file.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, min(stat.Size(), 1<<20))
	_, err = file.ReadAt(b, 0)
	return b, err
}

// writeFile makes a file that is there whole or not at all.
func (s *Store) writeFile(path string, b []byte) error {
	temporary := fmt.Sprintf("%s.%08x.new", path, rand.Uint32())
	file, err := s.fs.Create(temporary, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	_, err = file.Write(append([]byte(nil), b...))
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = s.fs.Rename(temporary, path)
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	return s.syncDir(s.fs.PathDir(path))
}
