package mailbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/mail"
)

var ada = mail.Address{Local: "ada", Domain: "example.org"}

func newTree(t testing.TB) *Maildirs {
	return New(Config{Root: t.TempDir(), Hostname: "mx.example.org"}, clock.NewMock(time.Unix(1e9, 0)))
}

func letter(box mail.Address, body string) Letter {
	return Letter{Box: box, ID: 7, Body: strings.NewReader(body), Size: int64(len(body))}
}

func TestDeliverWritesLineFeeds(t *testing.T) {
	for _, c := range []struct{ name, prefix, body, want string }{
		{"plain", "Return-Path: <>\r\n", "A: b\r\n\r\nline\r\n", "Return-Path: <>\nA: b\n\nline\n"},
		{"bare CR stays", "", "a\rb\r\n", "a\rb\n"},
		{"CR CR LF", "", "a\r\r\n", "a\r\n"},
		{"CR at the end", "", "a\r", "a\r"},
		{"empty", "", "", ""},
		{"prefix ends in CR", "x\r", "\ny", "x\ny"},
	} {
		m := newTree(t)
		l := letter(ada, c.body)
		l.Prefix = []byte(c.prefix)
		name, err := m.Deliver(context.Background(), l)
		if err != nil {
			t.Fatal(c.name, err)
		}
		got, err := os.ReadFile(filepath.Join(m.cfg.Root, name))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
		if !strings.Contains(name, fmt.Sprintf(",S=%d", len(c.want))) {
			t.Errorf("%s: the name %s does not tell the size %d", c.name, name, len(c.want))
		}
	}
}

// TestLineFeedsAtEveryCut splits a message at each place, for a CRLF may come in two reads.
func TestLineFeedsAtEveryCut(t *testing.T) {
	const msg = "a\r\n\r\r\nb\rc\r\n\r"
	want := strings.ReplaceAll(msg, "\r\n", "\n")
	for i := range len(msg) {
		for j := i; j < len(msg); j++ {
			var out bytes.Buffer
			w := &lfWriter{w: &out, buf: make([]byte, 0, 4)}
			for _, part := range []string{msg[:i], msg[i:j], msg[j:]} {
				if _, err := w.Write([]byte(part)); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.flush(); err != nil || out.String() != want || w.n != int64(len(want)) {
				t.Fatalf("cut at %d and %d: %q (%d octets), %v; want %q", i, j, out.String(), w.n, err, want)
			}
		}
	}
}

func TestDirStaysBelowRoot(t *testing.T) {
	m := newTree(t)
	seen := make(map[string]string)
	for _, local := range []string{"..", ".", "../../etc", "a/b", "a%2Fb", ".hidden", "a\x00b", "%", "a"} {
		dir := m.Dir(mail.Address{Local: local, Domain: "example.org"})
		rel, err := filepath.Rel(m.cfg.Root, dir)
		if err != nil || strings.HasPrefix(rel, "..") || strings.Count(rel, "/") != 2 {
			t.Errorf("%q leads to %s", local, rel)
		}
		if other, dup := seen[dir]; dup {
			t.Errorf("%q and %q share %s", local, other, rel)
		}
		seen[dir] = local
	}
}

func TestQuota(t *testing.T) {
	m := newTree(t)
	l := letter(ada, "0123456789")
	l.Quota = 25
	for range 2 {
		if _, err := m.Deliver(context.Background(), l); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Deliver(context.Background(), l); !errors.Is(err, ErrQuota) {
		t.Errorf("third letter of 10 octets into 25: %v", err)
	}
	files, err := m.Letters(ada)
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	m.clock.(*clock.Mock).Advance(2 * recount)
	if _, err := m.Deliver(context.Background(), l); err != nil {
		t.Errorf("after a reader made room: %v", err)
	}
}

// TestQuotaOfMany: of letters that come together only those that fit are written.
func TestQuotaOfMany(t *testing.T) {
	m := newTree(t)
	var wg sync.WaitGroup
	var full atomic.Int32
	for range 50 {
		wg.Go(func() {
			l := letter(ada, "0123456789")
			l.Quota = 35
			if _, err := m.Deliver(context.Background(), l); errors.Is(err, ErrQuota) {
				full.Add(1)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if files, err := m.Letters(ada); len(files) != 3 || full.Load() != 47 || err != nil {
		t.Errorf("%d letters of 10 octets in 35, %d refused, %v", len(files), full.Load(), err)
	}
	if m.Room(ada, 6, 35) || !m.Room(ada, 5, 35) || !m.Room(ada, 1000, 0) {
		t.Error("30 of 35 octets are used: there is room for 5")
	}
	failed := letter(ada, "x")
	failed.Quota, failed.Body, failed.Size = 35, failing{}, 5
	if _, err := m.Deliver(context.Background(), failed); !errors.Is(err, errRead) || !m.Room(ada, 5, 35) {
		t.Errorf("a letter that was not written takes room: %v", err)
	}
}

// TestAgain: what a process wrote that was killed before it said so is not written twice.
func TestAgain(t *testing.T) {
	m := newTree(t)
	first, err := m.Deliver(context.Background(), letter(ada, "text"))
	if err != nil {
		t.Fatal(err)
	}
	seen := strings.Replace(first, "/new/", "/cur/", 1) + ":2,S"
	for _, name := range []string{first, seen} {
		if name != first {
			if err := os.Rename(filepath.Join(m.cfg.Root, first), filepath.Join(m.cfg.Root, name)); err != nil {
				t.Fatal(err)
			}
		}
		l := letter(ada, "text")
		l.Again = true
		if got, err := m.Deliver(context.Background(), l); got != name || err != nil {
			t.Errorf("%s, %v; want %s", got, err, name)
		}
	}
	other := letter(ada, "text")
	other.ID, other.Again = 8, true
	if _, err := m.Deliver(context.Background(), other); err != nil {
		t.Error(err)
	}
	if files, err := m.Letters(ada); len(files) != 2 || err != nil {
		t.Errorf("letters %v, %v", files, err)
	}
}

func TestDeliverLeavesNothingInTmp(t *testing.T) {
	m := newTree(t)
	l := letter(ada, "short")
	l.Body, l.Size = failing{}, 10
	if _, err := m.Deliver(context.Background(), l); !errors.Is(err, errRead) {
		t.Fatalf("a body that cannot be read: %v", err)
	}
	left, _ := filepath.Glob(filepath.Join(m.Dir(ada), "*", "*"))
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

var errRead = errors.New("medium error")

type failing struct{}

func (failing) ReadAt([]byte, int64) (int, error) { return 0, errRead }

func TestManyAtOnce(t *testing.T) {
	m := newTree(t)
	var wg sync.WaitGroup
	const n = 100
	for i := range n {
		wg.Go(func() {
			box := mail.Address{Local: fmt.Sprint("user", i%3), Domain: "example.org"}
			if _, err := m.Deliver(context.Background(), letter(box, fmt.Sprint("message ", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	files, err := filepath.Glob(filepath.Join(m.cfg.Root, "*", "*", "Maildir", "new", "*"))
	if err != nil || len(files) != n {
		t.Fatalf("%d files, %v; want %d", len(files), err, n)
	}
}

func TestCleanRemovesOldTmp(t *testing.T) {
	m := newTree(t)
	if err := m.ensure(m.Dir(ada)); err != nil {
		t.Fatal(err)
	}
	old, young := filepath.Join(m.Dir(ada), "tmp", "old"), filepath.Join(m.Dir(ada), "tmp", "young")
	for name, age := range map[string]time.Duration{old: 37 * time.Hour, young: time.Hour} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		at := m.clock.Now().Add(-age)
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Clean(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Error("the old file is still there")
	}
	if _, err := os.Stat(young); err != nil {
		t.Error("the young file is gone")
	}
}

// BenchmarkDeliver delivers 10 KiB messages from 1, 4 and 20 writers.
func BenchmarkDeliver(b *testing.B) {
	body := strings.Repeat("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n", 160)
	for _, writers := range []int{1, 2, 4, 20} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			m := New(Config{Root: b.TempDir(), Hostname: "mx"}, clock.Real{})
			b.SetBytes(int64(len(body)))
			b.SetParallelism((writers + 1) / 2)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := m.Deliver(context.Background(), letter(ada, body)); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
