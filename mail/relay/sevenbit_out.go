package relay

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"strings"

	"github.com/tallypost/tallypost/mail"
)

func has8Bit(p []byte) bool {
	for _, b := range p {
		if b >= 0x80 {
			return true
		}
	}
	return false
}

// relabel returns a header section with another transfer encoding; an empty one leaves it, but for
// one that says more than is true. A message that is no MIME message becomes one, of an unknown
// charset (RFC 1428, section 3).
func relabel(h mail.Header, encoding string, root bool) []byte {
	var b []byte
	if encoding == "" {
		for _, f := range h.All("Content-Transfer-Encoding") {
			if v := strings.ToLower(f.Value()); v == "8bit" || v == "binary" {
				encoding, root = "7bit", false
			}
		}
	}
	for _, f := range h.Fields {
		if encoding == "" || !f.Is("Content-Transfer-Encoding") {
			b = append(b, f.Raw...)
		}
	}
	if root && encoding != "" && len(h.All("MIME-Version")) == 0 {
		b = append(b, "MIME-Version: 1.0\r\n"...)
		if len(h.All("Content-Type")) == 0 {
			b = append(b, "Content-Type: text/plain; charset=unknown-8bit\r\n"...)
		}
	}
	if encoding != "" {
		b = append(b, "Content-Transfer-Encoding: "+encoding+"\r\n"...)
	}
	return append(b, "\r\n"...)
}

// folder breaks base64 into lines (RFC 2045, section 6.8).
type folder struct {
	w io.Writer
	n int // characters in the line
}

// Write writes p in lines of 76 characters.
func (f *folder) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		if f.n == 76 {
			if _, err := f.w.Write([]byte("\r\n")); err != nil {
				return 0, err
			}
			f.n = 0
		}
		k := min(len(p), 76-f.n)
		if _, err := f.w.Write(p[:k]); err != nil {
			return 0, err
		}
		f.n, p = f.n+k, p[k:]
	}
	return total, nil
}

// spool keeps what is written to it: in memory, and from some size on in a file without a name.
type spool struct {
	size int64
	b    []byte
	file *os.File
	w    *bufio.Writer
}

// Write appends p.
func (s *spool) Write(p []byte) (int, error) {
	s.size += int64(len(p))
	if s.file == nil && s.size <= maxMemoryBytes {
		s.b = append(s.b, p...)
		return len(p), nil
	}
	if s.file == nil {
		f, err := os.CreateTemp("", "tallypost-7bit-*")
		if err != nil {
			return 0, err
		}
		s.file, s.w = f, bufio.NewWriterSize(f, 64<<10)
		if _, err := s.w.Write(s.b); err != nil {
			return 0, err
		}
		s.b = nil
		if err := os.Remove(f.Name()); err != nil {
			return 0, err
		}
	}
	return s.w.Write(p)
}

func (s *spool) end() error {
	if s.w == nil {
		return nil
	}
	return s.w.Flush()
}

// Close gives the file back.
func (s *spool) Close() error {
	s.b = nil
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// ReadAt reads what was written.
func (s *spool) ReadAt(p []byte, off int64) (int, error) {
	if s.file != nil {
		return s.file.ReadAt(p, off)
	}
	return bytes.NewReader(s.b).ReadAt(p, off)
}
