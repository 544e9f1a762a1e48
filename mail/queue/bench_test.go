package queue_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

// inline is the other way to keep bodies: as values in Pebble, with the state, under one synced
// batch.
type inline struct{ db *pebble.DB }

type inlineBody struct {
	id   mail.ID
	text []byte
}

func (b *inlineBody) Write(p []byte) (int, error) {
	b.text = append(b.text, p...)
	return len(p), nil
}

func (b *inlineBody) Seal(prefix []byte) error {
	if len(prefix) > 0 {
		b.text = append(append([]byte(nil), prefix...), b.text...)
	}
	return nil
}

func (b *inlineBody) Abort() {}

func openInline(dir string) (*inline, error) {
	cache := pebble.NewCache(8 << 20)
	defer cache.Unref()
	db, err := pebble.Open(dir, &pebble.Options{
		Cache:                       cache,
		MemTableSize:                64 << 20,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       8,
		L0StopWritesThreshold:       40,
		FormatMajorVersion:          pebble.FormatColumnarBlocks,
		Logger:                      noLog{},
	})
	return &inline{db}, err
}

type noLog struct{}

func (noLog) Infof(string, ...any)  {}
func (noLog) Errorf(string, ...any) {}
func (noLog) Fatalf(f string, a ...any) {
	panic(fmt.Sprintf(f, a...))
}

func inlineKey(id mail.ID) []byte { return binary.BigEndian.AppendUint64([]byte("b"), uint64(id)) }

func (s *inline) NewBody(id mail.ID) (queue.Body, error) { return &inlineBody{id: id}, nil }

func (s *inline) Commit(g *queue.Group) error {
	b := s.db.NewBatch()
	defer b.Close()
	for _, w := range g.Writes {
		if w.Value == nil {
			b.Delete(w.Key, nil)
		} else {
			b.Set(w.Key, w.Value, nil)
		}
	}
	for _, x := range g.Bodies {
		b.Set(inlineKey(x.(*inlineBody).id), x.(*inlineBody).text, nil)
	}
	for _, id := range g.Drop {
		b.Delete(inlineKey(id), nil)
	}
	return s.db.Apply(b, pebble.Sync)
}

func (s *inline) OpenBody(id mail.ID) (queue.BodyReader, error) {
	v, err := s.Get(inlineKey(id))
	if err != nil {
		return nil, err
	}
	m := queue.NewMemory()
	body, _ := m.NewBody(id)
	body.Write(v)
	m.Commit(&queue.Group{Bodies: []queue.Body{body}})
	return m.OpenBody(id)
}

func (s *inline) Get(key []byte) ([]byte, error) {
	v, c, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, queue.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return append([]byte{}, v...), c.Close()
}

func (s *inline) Scan(from, to []byte, fn func(key, value []byte) bool) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return err
	}
	for ok := it.First(); ok && fn(it.Key(), it.Value()); ok = it.Next() {
	}
	return it.Close()
}

func (s *inline) Close() error { return s.db.Close() }

// leaves is a Journal that costs what a log costs in the store, and no more: a leaf of 200 octets
// for each event, and one edge for each group.
type leaves struct{ next uint64 }

func (l *leaves) Append(events []mail.Event) (indexes []uint64, writes []queue.Write, err error) {
	for range events {
		key := binary.BigEndian.AppendUint64([]byte("l"), l.next)
		indexes = append(indexes, l.next)
		value := make([]byte, 200)
		binary.BigEndian.PutUint64(value, l.next*0x9e3779b97f4a7c15)
		writes = append(writes, queue.Write{Key: key, Value: value})
		l.next++
	}
	return indexes, append(writes, queue.Write{Key: []byte("edge"), Value: make([]byte, 64)}), nil
}

func (l *leaves) Committed()     {}
func (l *leaves) Origin() string { return "bench.example/log" }

// diskDir is a folder on a disk: TMPDIR may be memory, and a sync of that is no figure.
func diskDir(b *testing.B) string {
	dir, err := os.MkdirTemp(os.Getenv("BENCH_DIR"), "queue")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func benchStores(b *testing.B, f func(b *testing.B, open func(b *testing.B) queue.Store)) {
	b.Run("segments", func(b *testing.B) {
		f(b, func(b *testing.B) queue.Store {
			s, err := queue.OpenDisk(queue.DiskConfig{Dir: diskDir(b)})
			if err != nil {
				b.Fatal(err)
			}
			return s
		})
	})
	b.Run("inline", func(b *testing.B) {
		f(b, func(b *testing.B) queue.Store {
			s, err := openInline(diskDir(b))
			if err != nil {
				b.Fatal(err)
			}
			return s
		})
	})
}

// BenchmarkAccept is durable acceptance with the leaf, the next hop held. It reports messages a
// second and the processor time of the whole process for one.
func BenchmarkAccept(b *testing.B) {
	benchStores(b, func(b *testing.B, open func(b *testing.B) queue.Store) {
		for _, size := range []int{1 << 10, 10 << 10, 100 << 10} {
			for _, writers := range []int{1, 20, 100} {
				b.Run(fmt.Sprintf("%dKiB/%d", size>>10, writers), func(b *testing.B) {
					benchAccept(b, open(b), size, writers, true)
				})
			}
		}
	})
}

// BenchmarkThrough is acceptance, one attempt that succeeds, and the end of the message.
func BenchmarkThrough(b *testing.B) {
	benchStores(b, func(b *testing.B, open func(b *testing.B) queue.Store) {
		for _, writers := range []int{1, 20} {
			b.Run(fmt.Sprintf("10KiB/%d", writers), func(b *testing.B) {
				benchAccept(b, open(b), 10<<10, writers, false)
			})
		}
	})
}

func benchAccept(b *testing.B, store queue.Store, size, writers int, hold bool) {
	defer store.Close()
	var delivered atomic.Int64
	post := &postman{deliver: func(_ context.Context, d *queue.Delivery) []queue.Result {
		delivered.Add(1)
		return same(d, queue.Result{Outcome: queue.Delivered, Reply: "250 2.0.0 ok"})
	}}
	q, err := queue.Open(queue.Config{}, store, new(leaves), post, nil, clock.Real{}, quiet())
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- q.Run(ctx) }()
	body := make([]byte, size)
	for i := range body {
		body[i] = byte(i * i >> 3)
	}
	cpu := cpuTime()
	b.SetBytes(int64(size))
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := benchOne(q, body, w, hold); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for !hold && delivered.Load() < int64(b.N) {
		time.Sleep(time.Millisecond)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/msg")
	b.ReportMetric(0, "ns/op")
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
}

var benchPrefix = make([]byte, 600)

func benchOne(q *queue.Queue, body []byte, w int, hold bool) error {
	m := q.NewMessage()
	for p := body; len(p) > 0; p = p[min(len(p), 4096):] {
		if _, err := m.Write(p[:min(len(p), 4096)]); err != nil {
			return err
		}
	}
	env := envelope("sender@example.org", fmt.Sprintf("user%d@example.com", w))
	if hold {
		env.HoldUntil = time.Now().Add(time.Hour)
	}
	ev := mail.Event{
		Kind:      mail.ReceivedFromNonERDS,
		MessageID: "<" + m.ID().String() + "@example.org>",
		SHA256:    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		Peer:      &mail.Peer{Name: "mx.example.org", Addr: "192.0.2.7", TLSVersion: "TLS 1.3"},
		Reply:     "250 2.0.0 queued",
	}
	_, err := m.Commit(context.Background(), benchPrefix, env, ev)
	return err
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkQueueGrowth is BenchmarkThrough with 1 KiB from 20 writers while ever more deferred
// messages, to a thousand destinations, wait in the queue.
func BenchmarkQueueGrowth(b *testing.B) {
	for _, n := range []int{1e3, 1e4, 1e5} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			store, err := queue.OpenDisk(queue.DiskConfig{Dir: diskDir(b)})
			if err != nil {
				b.Fatal(err)
			}
			fillQueue(b, store, n)
			benchAccept(b, store, 1<<10, 20, false)
		})
	}
}

// BenchmarkStart is the start with 100,000 deferred messages in the queue: after a clean end, and
// after a crash.
func BenchmarkStart(b *testing.B) {
	for _, clean := range []bool{true, false} {
		b.Run(map[bool]string{true: "clean", false: "crash"}[clean], func(b *testing.B) {
			dir := diskDir(b)
			store, err := queue.OpenDisk(queue.DiskConfig{Dir: dir})
			if err != nil {
				b.Fatal(err)
			}
			fillQueue(b, store, 1e5)
			if clean {
				store.Close()
			} else {
				crashed := diskDir(b) // as the files are now, without what Close would put in order
				if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
					b.Fatal(err)
				}
				store.Close()
				dir = crashed
			}
			for b.Loop() {
				store, err := queue.OpenDisk(queue.DiskConfig{Dir: dir})
				if err != nil {
					b.Fatal(err)
				}
				q, err := queue.Open(queue.Config{}, store, new(leaves), &postman{}, nil, clock.Real{}, quiet())
				if err != nil {
					b.Fatal(err)
				}
				if n := q.Stats().Messages; n != 1e5 {
					b.Fatalf("%d messages", n)
				}
				b.StopTimer()
				store.Close()
				b.StartTimer()
			}
		})
	}
}

// fillQueue puts messages of 1 KiB into a store that wait for an hour.
func fillQueue(b *testing.B, store queue.Store, n int) {
	b.Helper()
	q, err := queue.Open(queue.Config{}, store, new(leaves), &postman{}, nil, clock.Real{}, quiet())
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- q.Run(ctx) }()
	var left atomic.Int64
	left.Store(int64(n))
	body := make([]byte, 1<<10)
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			for i := left.Add(-1); i >= 0; i = left.Add(-1) {
				env := envelope("sender@example.org", fmt.Sprintf("user@d%d.example", i%1000))
				env.HoldUntil = time.Now().Add(time.Hour)
				m := q.NewMessage()
				m.Write(body)
				if _, err := m.Commit(context.Background(), benchPrefix, env, mail.Event{}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
}
