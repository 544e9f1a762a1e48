// Package mailbox puts messages into Maildirs.
//
// A Maildir has three folders: a message is written to tmp, synced, and renamed into new; readers move it
// to cur. Lines end in LF in the file, as every reader of Maildirs expects. Deliver returns only when the
// message and its name are on stable storage; deliveries that arrive together share the syncs. The
// package reads no mail and serves no client: Dovecot, mutt and the like read the same folders.
package mailbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/mail"
)

// ErrQuota says that the message does not fit into the mailbox's quota.
var ErrQuota = errors.New("mailbox is full")

// Config says where the mailboxes are.
type Config struct {
	// Root is the folder that holds <domain>/<local part>/Maildir for each mailbox.
	Root string
	// Hostname is the last part of file names, so that servers may share a Root.
	Hostname string
}

// Maildirs is a tree of Maildirs. Its methods may be called from several goroutines.
type Maildirs struct {
	cfg    Config
	clock  clock.Clock
	serial atomic.Uint64
	group  group
	usage  usage

	mu   sync.Mutex
	made map[string]bool // guarded by mu; Maildirs known to exist and to be synced
}

// New returns the tree below cfg.Root; folders are made when the first message comes.
func New(cfg Config, clk clock.Clock) *Maildirs {
	m := &Maildirs{cfg: cfg, clock: clk, made: make(map[string]bool)}
	m.usage.sizes = make(map[string]*boxUsage)
	return m
}

// Dir returns the Maildir of an address. The local part is taken as it is but for "/", a leading "." and
// the "%" that escapes them, so that no address leads out of Root; distinct addresses have distinct folders.
func (m *Maildirs) Dir(box mail.Address) string {
	return filepath.Join(m.cfg.Root, escape(string(box.Domain)), escape(box.Local), "Maildir")
}

func escape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '/' || c == '%' || c < ' ' || c == 0x7f || c == '.' && i == 0 {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// Letter is one message for one mailbox.
type Letter struct {
	Box    mail.Address
	ID     mail.ID
	Folder string // below the Maildir, as Maildir++ has it ("Junk"); empty for the inbox
	// Prefix is written before Body: Return-Path and Delivered-To, with CRLF.
	Prefix []byte
	Body   io.ReaderAt
	Size   int64 // octets of Body
	// Quota is the most that the mailbox may hold, in octets; 0 is no limit.
	Quota int64
	// Again says that an earlier process may have written the message and was killed before it could say so:
	// it is looked for first, and not written twice.
	Again bool
}

// Deliver writes the letter and returns the path of its file, relative to Root, once it is on stable
// storage. The error is ErrQuota where the mailbox is full; any other is of the disk.
func (m *Maildirs) Deliver(ctx context.Context, l Letter) (string, error) {
	dir := m.Dir(l.Box)
	if l.Folder != "" {
		dir = filepath.Join(dir, "."+escape(l.Folder))
	}
	if err := m.ensure(dir); err != nil {
		return "", err
	}
	now := m.clock.Now()
	if l.Again {
		if path, err := m.find(dir, l.ID); path != "" || err != nil {
			return path, err
		}
	}
	var size int64 // once it is written
	if l.Quota > 0 {
		box := m.Dir(l.Box)
		if !m.usage.reserve(box, l.Size, l.Quota, now) {
			return "", ErrQuota
		}
		defer func() { m.usage.settle(box, l.Size, size) }()
	}
	base := fmt.Sprintf("%d.M%06dP%dQ%d_%s.%s", now.Unix(), now.Nanosecond()/1000, os.Getpid(),
		m.serial.Add(1), l.ID, strings.NewReplacer("/", "\\057", ":", "\\072").Replace(m.cfg.Hostname))
	tmp := filepath.Join(dir, "tmp", base)
	f, n, err := writeLetter(tmp, l)
	if err != nil {
		return "", err
	}
	// Dovecot reads the size from the name and need not stat the file.
	p := &pending{file: f, tmp: tmp, dir: filepath.Join(dir, "new"),
		final: filepath.Join(dir, "new", fmt.Sprintf("%s,S=%d", base, n))}
	if err := m.group.commit(p); err != nil {
		os.Remove(tmp)
		return "", err
	}
	size = n
	return m.relative(p.final), nil
}

// Room reports whether a mailbox has room for size octets more within its quota, 0 being none.
func (m *Maildirs) Room(box mail.Address, size, quota int64) bool {
	return quota == 0 || m.usage.fits(m.Dir(box), size, quota, m.clock.Now())
}

// find returns the file of a message in a Maildir, whether or not a reader has seen it; "" where there is none.
func (m *Maildirs) find(dir string, id mail.ID) (string, error) {
	for _, sub := range [...]string{"new", "cur"} {
		sub = filepath.Join(dir, sub)
		files, err := os.ReadDir(sub)
		if err != nil {
			return "", err
		}
		for _, f := range files {
			if strings.Contains(f.Name(), "_"+id.String()+".") {
				return m.relative(filepath.Join(sub, f.Name())), syncDir(sub)
			}
		}
	}
	return "", nil
}

// relative returns a path below Root as Deliver has it.
func (m *Maildirs) relative(path string) string {
	if rel, err := filepath.Rel(m.cfg.Root, path); err == nil {
		return rel
	}
	return path
}

// writeLetter writes the file in tmp with LF line ends and leaves it open, to be synced by the group.
func writeLetter(name string, l Letter) (f *os.File, size int64, err error) {
	f, err = os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(name)
		}
	}()
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	w := &lfWriter{w: f, buf: (*buf)[:0]}
	if _, err = w.Write(l.Prefix); err == nil {
		_, err = io.Copy(w, io.NewSectionReader(l.Body, 0, l.Size))
	}
	if err == nil {
		err = w.flush()
	}
	return f, w.n, err
}

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 64<<10); return &b }}

// lfWriter turns CRLF into LF and passes all else on. A CR that ends a write waits for the next.
type lfWriter struct {
	w   io.Writer
	buf []byte
	cr  bool  // the last octet was a CR that has not been written
	n   int64 // octets put out
}

// ReadFrom reads straight in chunks of half the buffer, so that io.Copy makes none of its own.
func (w *lfWriter) ReadFrom(r io.Reader) (int64, error) {
	chunk := make([]byte, 32<<10)
	var total int64
	for {
		n, err := r.Read(chunk)
		total += int64(n)
		if _, werr := w.Write(chunk[:n]); werr != nil {
			return total, werr
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

func (w *lfWriter) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		if w.cr {
			w.cr = false
			if p[0] != '\n' {
				if err := w.put([]byte{'\r'}); err != nil {
					return 0, err
				}
			}
		}
		i := bytes.IndexByte(p, '\r')
		if i < 0 {
			return total, w.put(p)
		}
		if err := w.put(p[:i]); err != nil {
			return 0, err
		}
		w.cr = true
		p = p[i+1:]
	}
	return total, nil
}

func (w *lfWriter) put(p []byte) error {
	w.n += int64(len(p))
	if len(w.buf)+len(p) > cap(w.buf) {
		if err := w.write(); err != nil {
			return err
		}
	}
	if len(p) > cap(w.buf) {
		_, err := w.w.Write(p)
		return err
	}
	w.buf = append(w.buf, p...)
	return nil
}

func (w *lfWriter) write() error {
	_, err := w.w.Write(w.buf)
	w.buf = w.buf[:0]
	return err
}

func (w *lfWriter) flush() error {
	if w.cr {
		w.cr = false
		if err := w.put([]byte{'\r'}); err != nil {
			return err
		}
	}
	return w.write()
}

// ensure makes the Maildir and its three folders where they are missing, and syncs each folder it adds an
// entry to, up to Root: a message whose folder was lost is a lost message.
func (m *Maildirs) ensure(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.made[dir] {
		return nil
	}
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	for d := dir; ; d = filepath.Dir(d) {
		if err := syncDir(d); err != nil {
			return err
		}
		if d == m.cfg.Root || len(d) <= len(m.cfg.Root) {
			break
		}
	}
	m.made[dir] = true
	return nil
}

// Letters returns the files of a mailbox's inbox, new and cur, oldest first.
func (m *Maildirs) Letters(box mail.Address) ([]string, error) {
	var out []string
	for _, sub := range []string{"new", "cur"} {
		entries, err := os.ReadDir(filepath.Join(m.Dir(box), sub))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			out = append(out, filepath.Join(m.Dir(box), sub, e.Name()))
		}
	}
	return out, nil
}

// Clean removes files that deliveries cut short have left in tmp, as the Maildir convention has it: those
// older than 36 hours.
func (m *Maildirs) Clean() error {
	old := m.clock.Now().Add(-36 * time.Hour)
	names, err := filepath.Glob(filepath.Join(m.cfg.Root, "*", "*", "Maildir", "tmp", "*"))
	for _, name := range names {
		if fi, serr := os.Lstat(name); serr == nil && fi.Mode().IsRegular() && fi.ModTime().Before(old) {
			err = errors.Join(err, os.Remove(name))
		}
	}
	return err
}
