package reputation

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"
)

// magic begins the file: name and version of its format.
const magic = "tally-reputation 1\n"

// snapshot is the content of the file, after magic and a CRC-32 of the rest.
type snapshot struct {
	Senders   map[string]savedRecord
	Tokens    map[Token]savedTally
	Ham, Spam float64
	Learned   map[string]savedLesson
}

type (
	savedRecord struct {
		Ham, Spam float64
		At        int64
	}
	savedTally  struct{ Ham, Spam float32 }
	savedLesson struct {
		Class Class
		At    int64
	}
)

// Load reads a file that Save wrote; one that does not exist is an empty memory.
func Load(path string) (*History, error) {
	h := New()
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return nil, err
	}
	rest, ok := bytes.CutPrefix(b, []byte(magic))
	if !ok || len(rest) < 4 || binary.BigEndian.Uint32(rest) != crc32.ChecksumIEEE(rest[4:]) {
		return nil, fmt.Errorf("%s is damaged or of another version; without it everybody is a stranger again: move it away to begin anew", path)
	}
	var s snapshot
	if err := gob.NewDecoder(bytes.NewReader(rest[4:])).Decode(&s); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for k, r := range s.Senders {
		h.senders[k] = record{r.Ham, r.Spam, time.Unix(r.At, 0)}
	}
	for k, t := range s.Tokens {
		h.words.counts[k] = tally{t.Ham, t.Spam}
	}
	h.words.ham, h.words.spam = s.Ham, s.Spam
	for k, l := range s.Learned {
		h.learned[k] = lesson{l.Class, time.Unix(l.At, 0)}
	}
	return h, nil
}

// Save writes the memory to a file if it has changed: beside it, synced, and renamed.
func (h *History) Save(path string) error {
	b, err := h.encode()
	if err != nil || b == nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func (h *History) encode() ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.changed {
		return nil, nil
	}
	s := snapshot{Senders: make(map[string]savedRecord), Tokens: make(map[Token]savedTally),
		Ham: h.words.ham, Spam: h.words.spam, Learned: make(map[string]savedLesson)}
	for k, r := range h.senders {
		s.Senders[k] = savedRecord{r.ham, r.spam, r.at.Unix()}
	}
	for k, t := range h.words.counts {
		s.Tokens[k] = savedTally{t.ham, t.spam}
	}
	for k, l := range h.learned {
		s.Learned[k] = savedLesson{l.class, l.at.Unix()}
	}
	var body bytes.Buffer
	if err := gob.NewEncoder(&body).Encode(s); err != nil {
		return nil, err
	}
	h.changed = false
	out := binary.BigEndian.AppendUint32([]byte(magic), crc32.ChecksumIEEE(body.Bytes()))
	return append(out, body.Bytes()...), nil
}
