package eventlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tallypost/tallypost/bridge/tlog"
)

// maxKeyFile is longer than any signing key.
const maxKeyFile = 1024

// CreateKeyFile makes a signing key for the log of an origin and keeps it in a new file that only
// its owner can read: one line, a private key as golang.org/x/mod/sumdb/note writes it. The file is
// on stable storage when the function returns. A file that exists is left alone.
func CreateKeyFile(path, origin string) (*tlog.Signer, error) {
	skey, err := tlog.GenerateKey(origin)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create signing key: %w", err)
	}
	if err := writeAndSync(f, []byte(skey+"\n")); err != nil {
		os.Remove(path) // half a key would be taken for one that exists
		return nil, fmt.Errorf("create signing key: %w", err)
	}
	return tlog.ParseSigner(skey)
}

// ReadKeyFile reads a file that CreateKeyFile made. It refuses one that others than its owner may
// read.
func ReadKeyFile(path string) (*tlog.Signer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("signing key %s has mode %#o, others than its owner may use it:"+
			" chmod 600 %[1]s", path, mode)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	s, err := tlog.ParseSigner(strings.TrimSuffix(string(text), "\n"))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// SignedFile is a LastSigned in a file of its own, which should be beside the key and not in the
// backups of the store.
type SignedFile string

// Load is as LastSigned has it.
func (p SignedFile) Load() ([]byte, error) {
	f, err := os.Open(string(p))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, tlog.MaxCheckpoint+1))
}

// Save is as LastSigned has it: a crash leaves the old file or the new one.
func (p SignedFile) Save(checkpoint []byte) error {
	temp := string(p) + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if err := writeAndSync(f, checkpoint); err != nil {
		return err
	}
	if err := os.Rename(temp, string(p)); err != nil {
		return err
	}
	return syncDir(filepath.Dir(string(p)))
}

// writeAndSync writes a file that was just created and returns when it and its name are on stable
// storage.
func writeAndSync(f *os.File, data []byte) error {
	_, err := f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(f.Name()))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
