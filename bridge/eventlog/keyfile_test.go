package eventlog

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tallypost/tallypost/bridge/tlog"
	"github.com/tallypost/tallypost/mail/queue"
)

// lockedStore is a fakeStore for several goroutines.
type lockedStore struct {
	mu    sync.RWMutex
	store fakeStore
}

func (s *lockedStore) Get(key []byte) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.store.Get(key)
}

func (s *lockedStore) Scan(prefix, from []byte, fn func(key, value []byte) bool) error {
	s.mu.RLock()
	copied := fakeStore{}
	copied.commit(nil)
	for k, v := range s.store {
		copied[k] = v
	}
	s.mu.RUnlock()
	return copied.Scan(prefix, from, fn)
}

func (s *lockedStore) commit(writes []queue.Write) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store.commit(writes)
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.key")
	made, err := CreateKeyFile(path, origin)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	read, err := ReadKeyFile(path)
	if err != nil || read.Verifier().String() != made.Verifier().String() || read.Name() != origin {
		t.Errorf("read another key: %v", err)
	}
	if _, err := CreateKeyFile(path, origin); err == nil {
		t.Error("key overwritten")
	}
	text, err := os.ReadFile(path)
	if err != nil || bytes.Count(text, []byte("\n")) != 1 {
		t.Errorf("key file of %d lines, %v", bytes.Count(text, []byte("\n")), err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKeyFile(path); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
		t.Errorf("key that a group may read: %v", err)
	}
	bad := filepath.Join(t.TempDir(), "bad.key")
	if err := os.WriteFile(bad, text[:len(text)-3], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKeyFile(bad); err == nil || strings.Contains(err.Error(), string(text[40:60])) {
		t.Errorf("damaged key: %v", err)
	}
	if _, err := CreateKeyFile(filepath.Join(t.TempDir(), "x"), "two words"); err == nil {
		t.Error("origin of two words accepted")
	}
	if _, err := CreateKeyFile(filepath.Join(t.TempDir(), "no", "dir"), origin); err == nil {
		t.Error("key in a folder that does not exist")
	}
}

func TestSignedFile(t *testing.T) {
	f := SignedFile(filepath.Join(t.TempDir(), "log.checkpoint"))
	if text, err := f.Load(); text != nil || err != nil {
		t.Errorf("%q, %v before the first save", text, err)
	}
	for _, text := range []string{"first", "2"} {
		if err := f.Save([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := f.Load(); string(got) != text || err != nil {
			t.Errorf("loaded %q, %v, want %q", got, err, text)
		}
	}
	// What a crash in the middle leaves behind does not count.
	if err := os.WriteFile(string(f)+".new", []byte("ha"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Load(); string(got) != "2" || err != nil {
		t.Errorf("loaded %q, %v", got, err)
	}
	if err := f.Save([]byte("third")); err != nil {
		t.Fatal(err)
	}
	if err := SignedFile(filepath.Join(t.TempDir(), "no", "dir")).Save(nil); err == nil {
		t.Error("saved in a folder that does not exist")
	}
}

// TestLogOnDiskFiles runs a log with the files it has in production.
func TestLogOnDiskFiles(t *testing.T) {
	dir := t.TempDir()
	b := newBench(t)
	signer, err := CreateKeyFile(filepath.Join(dir, "key"), origin)
	if err != nil {
		t.Fatal(err)
	}
	b.cfg.Signer, b.cfg.LastSigned = signer, SignedFile(filepath.Join(dir, "checkpoint"))
	b.store = fakeStore{}
	b.Reopen()
	b.Add(events(0, 20)...)
	b.CheckLog()
	b.Reopen()
	b.CheckLog()
	text, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	if c, err := tlog.OpenCheckpoint(text, signer.Verifier()); err != nil || c.Size != 20 {
		t.Errorf("%+v, %v", c, err)
	}
}
