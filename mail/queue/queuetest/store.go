// Package queuetest holds the conformance suites of the queue's interfaces: what every Store and
// every Journal must keep, whoever wrote it. It knows nothing of how they do it, and tests neither
// speed nor what happens when disks fail: that is for the tests of each.
package queuetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

// Place is where a Store keeps things.
type Place struct {
	// Open opens the store that is there. It is called again after Close, unless Forgets.
	Open func() (queue.Store, error)
	// Forgets says that the store is new each time.
	Forgets bool
}

// TestStore tests a Store. place returns a new, empty place each time.
func TestStore(t *testing.T, place func(t *testing.T) Place) {
	tests := []struct {
		name string
		test func(t *testing.T, s *store)
	}{
		{"Keys", testKeys},
		{"KeysAreCopies", testKeysAreCopies},
		{"Scan", testScan},
		{"ScanDuringCommits", testScanDuringCommits},
		{"Section", testSection},
		{"Bodies", testBodies},
		{"BodiesOnTheirWay", testBodiesOnTheirWay},
		{"ReadAt", testReadAt},
		{"DroppedBodyStaysReadable", testDropWhileReading},
		{"Reopen", testReopen},
		{"Churn", testChurn},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &store{T: t, place: place(t)}
			s.open()
			tt.test(t, s)
			s.close()
		})
	}
}

// store is a Store under test, with helpers that end the test.
type store struct {
	*testing.T
	place Place
	queue.Store
}

func (s *store) open() {
	s.Helper()
	opened, err := s.place.Open()
	if err != nil {
		s.Fatalf("open: %v", err)
	}
	s.Store = opened
}

func (s *store) close() {
	s.Helper()
	if err := s.Store.Close(); err != nil {
		s.Errorf("close: %v", err)
	}
}

func (s *store) commit(g queue.Group) {
	s.Helper()
	if err := s.Commit(&g); err != nil {
		s.Fatalf("commit: %v", err)
	}
}

// body writes and seals a body.
func (s *store) body(id mail.ID, prefix string, pieces ...[]byte) queue.Body {
	s.Helper()
	b, err := s.NewBody(id)
	if err != nil {
		s.Fatalf("new body: %v", err)
	}
	for _, p := range pieces {
		p := bytes.Clone(p)
		if n, err := b.Write(p); n != len(p) || err != nil {
			s.Fatalf("write of %d octets: %d, %v", len(p), n, err)
		}
		clear(p) // it is the caller's again
	}
	if err := b.Seal([]byte(prefix)); err != nil {
		s.Fatalf("seal: %v", err)
	}
	return b
}

func (s *store) wantBody(id mail.ID, want []byte) {
	s.Helper()
	r, err := s.OpenBody(id)
	if err != nil {
		s.Errorf("body of %v: %v", id, err)
		return
	}
	defer r.Close()
	if r.Size() != int64(len(want)) {
		s.Errorf("body of %v has %d octets, want %d", id, r.Size(), len(want))
		return
	}
	got, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
	if err != nil || !bytes.Equal(got, want) {
		s.Errorf("body of %v is not what was written (%v)", id, err)
	}
}

func (s *store) wantNoBody(id mail.ID) {
	s.Helper()
	if r, err := s.OpenBody(id); !errors.Is(err, queue.ErrNotFound) {
		s.Errorf("body of %v: %v, want ErrNotFound", id, err)
		if err == nil {
			r.Close()
		}
	}
}

// want compares a key with a value; nil for none.
func (s *store) want(key string, value []byte) {
	s.Helper()
	got, err := s.Get([]byte(key))
	switch {
	case value == nil && !errors.Is(err, queue.ErrNotFound):
		s.Errorf("key %q: %q, %v, want ErrNotFound", key, got, err)
	case value != nil && (err != nil || got == nil || !bytes.Equal(got, value)):
		s.Errorf("key %q: %q, %v, want %q", key, got, err, value)
	}
}

func set(key string, value []byte) queue.Write { return queue.Write{Key: []byte(key), Value: value} }

func testKeys(t *testing.T, s *store) {
	s.want("ma", nil)
	s.commit(queue.Group{})
	s.commit(queue.Group{Writes: []queue.Write{
		set("ma", []byte("1")), set("mb", []byte{}), set("mc", []byte("3")), set("mc", []byte("33")),
		set("md", []byte("4")), set("md", nil), set("me", nil), set("mf", nil), set("mf", []byte("6")),
	}})
	s.want("ma", []byte("1"))
	s.want("mb", []byte{}) // empty is not deleted
	s.want("mc", []byte("33"))
	s.want("md", nil)
	s.want("me", nil)
	s.want("mf", []byte("6"))
	s.commit(queue.Group{Writes: []queue.Write{set("ma", nil), set("mb", []byte("2"))}})
	s.want("ma", nil)
	s.want("mb", []byte("2"))
	big := bytes.Repeat([]byte("0123456789"), 100<<10/10)
	s.commit(queue.Group{Writes: []queue.Write{set("mg\x00\xff", big)}})
	s.want("mg\x00\xff", big)
}

func testKeysAreCopies(t *testing.T, s *store) {
	key, value := []byte("ma"), []byte("first")
	s.commit(queue.Group{Writes: []queue.Write{{Key: key, Value: value}}})
	key[1], value[0] = 'z', 'F'
	s.want("ma", []byte("first"))
	got, _ := s.Get([]byte("ma"))
	got[0] = 'X'
	s.want("ma", []byte("first"))
}

func (s *store) scan(from, to string, limit int) (keys []string) {
	s.Helper()
	var end []byte
	if to != "" {
		end = []byte(to)
	}
	err := s.Scan([]byte(from), end, func(key, value []byte) bool {
		if string(value) != "v"+string(key) {
			s.Errorf("key %q has value %q", key, value)
		}
		keys = append(keys, string(key))
		return len(keys) != limit
	})
	if err != nil {
		s.Errorf("scan from %q to %q: %v", from, to, err)
	}
	return keys
}

func testScan(t *testing.T, s *store) {
	var g queue.Group
	for _, key := range []string{"mc", "ma", "mb", "m\xff\xff", "mb\x00", "n", "l"} {
		g.Writes = append(g.Writes, set(key, []byte("v"+key)))
	}
	s.commit(g)
	for _, row := range []struct {
		from, to string
		limit    int
		want     []string
	}{
		{"m", "n", 0, []string{"ma", "mb", "mb\x00", "mc", "m\xff\xff"}},
		{"mb", "mc", 0, []string{"mb", "mb\x00"}},
		{"mb", "", 3, []string{"mb", "mb\x00", "mc"}},
		{"mbb", "mbc", 0, nil},
		{"m\xff", "m\xff\xff\x00", 0, []string{"m\xff\xff"}},
		{"mc", "ma", 0, nil},
	} {
		if got := s.scan(row.from, row.to, row.limit); !slices.Equal(got, row.want) {
			t.Errorf("scan from %q to %q: %q, want %q", row.from, row.to, got, row.want)
		}
	}
	s.commit(queue.Group{Writes: []queue.Write{set("mb", nil)}})
	if got := s.scan("m", "mb\x01", 0); !slices.Equal(got, []string{"ma", "mb\x00"}) {
		t.Errorf("after a deletion: %q", got)
	}
}

// A scan may or may not see what is committed meanwhile, but sees all else, in order and once.
func testScanDuringCommits(t *testing.T, s *store) {
	var g queue.Group
	for i := range 500 {
		g.Writes = append(g.Writes, set(fmt.Sprintf("m%04d", 2*i), []byte("old")))
	}
	s.commit(g)
	stop := make(chan bool)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				s.commit(queue.Group{Writes: []queue.Write{
					set(fmt.Sprintf("m%04d", 2*(i%500)+1), []byte("new")),
					set(fmt.Sprintf("m%04d", 2*((i+250)%500)+1), nil),
				}})
			}
		}
	})
	for range 10 {
		old, last := 0, ""
		err := s.Scan([]byte("m"), []byte("n"), func(key, value []byte) bool {
			if string(key) <= last {
				t.Errorf("key %q after %q", key, last)
			}
			last = string(key)
			if string(value) == "old" {
				old++
			}
			return true
		})
		if err != nil || old != 500 {
			t.Errorf("scan saw %d of 500 keys, %v", old, err)
		}
	}
	close(stop)
	wg.Wait()
}

func testSection(t *testing.T, s *store) {
	section := queue.JournalSection(s.Store)
	s.commit(queue.Group{Writes: []queue.Write{
		set("ja", []byte("1")), set("jab", []byte("2")), set("jb", []byte("3")), set("j\xff\xff", []byte("4")),
		set("k", []byte("not the section's")), set("i", []byte("nor this")),
	}})
	if v, err := section.Get([]byte("ab")); string(v) != "2" || err != nil {
		t.Errorf("get: %q, %v", v, err)
	}
	if _, err := section.Get([]byte("zz")); !errors.Is(err, queue.ErrNotFound) {
		t.Errorf("get of nothing: %v", err)
	}
	for _, row := range []struct {
		prefix, from []byte
		want         string
	}{
		{nil, nil, `["a" "ab" "b" "\xff\xff"]`},
		{[]byte("a"), nil, `["a" "ab"]`},
		{[]byte("a"), []byte("aa"), `["ab"]`},
		{[]byte("a"), []byte("b"), `[]`},
		{[]byte("b"), []byte("a"), `["b"]`},
		{[]byte("\xff"), nil, `["\xff\xff"]`},
		{nil, []byte("b"), `["b" "\xff\xff"]`},
	} {
		keys := []string{}
		err := section.Scan(row.prefix, row.from, func(key, _ []byte) bool {
			keys = append(keys, string(key))
			return true
		})
		if got := fmt.Sprintf("%q", keys); got != row.want || err != nil {
			t.Errorf("scan of %q from %q: %s, %v, want %s", row.prefix, row.from, got, err, row.want)
		}
	}
}

// octets returns n octets that seed decides.
func octets(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func testBodies(t *testing.T, s *store) {
	s.wantNoBody(1)
	a, b := octets(1000, 1), octets(200<<10, 2)
	s.commit(queue.Group{
		Writes: []queue.Write{set("ma", []byte("1"))},
		Bodies: []queue.Body{
			s.body(1, ""), s.body(2, "only a prefix"), s.body(3, "", a), s.body(4, "prefix", a, a[:1], a),
			s.body(5, "prefix", b, a),
		},
	})
	s.wantBody(1, nil)
	s.wantBody(2, []byte("only a prefix"))
	s.wantBody(3, a)
	s.wantBody(4, slices.Concat([]byte("prefix"), a, a[:1], a))
	s.wantBody(5, slices.Concat([]byte("prefix"), b, a))
	s.commit(queue.Group{Drop: []mail.ID{3, 99}})
	s.wantNoBody(3)
	s.wantBody(2, []byte("only a prefix"))
	s.commit(queue.Group{Bodies: []queue.Body{s.body(6, "", a)}, Drop: []mail.ID{1, 2, 4, 5}})
	for _, id := range []mail.ID{1, 2, 4, 5} {
		s.wantNoBody(id)
	}
	s.wantBody(6, a)
}

func testBodiesOnTheirWay(t *testing.T, s *store) {
	b := s.body(1, "", octets(500, 1))
	s.wantNoBody(1)
	s.commit(queue.Group{Bodies: []queue.Body{b}})
	b.Abort() // does nothing any more
	s.wantBody(1, octets(500, 1))

	aborted := s.body(2, "", octets(100<<10, 2))
	aborted.Abort()
	aborted.Abort()
	s.wantNoBody(2)

	// Bodies come in side by side, and are committed in another order than they began.
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range 8 {
		id := mail.ID(10 + i)
		wg.Go(func() {
			body := s.body(id, "p", octets(90<<10, uint64(id)), octets(i, 3))
			mu.Lock() // Commit is called by one goroutine at a time
			defer mu.Unlock()
			if err := s.Commit(&queue.Group{Bodies: []queue.Body{body}}); err != nil {
				t.Errorf("commit: %v", err)
			}
		})
	}
	wg.Wait()
	for i := range 8 {
		id := mail.ID(10 + i)
		s.wantBody(id, slices.Concat([]byte("p"), octets(90<<10, uint64(id)), octets(i, 3)))
	}
}

func testReadAt(t *testing.T, s *store) {
	want := slices.Concat([]byte("prefix"), octets(70<<10, 1), octets(70<<10, 2))
	s.commit(queue.Group{Bodies: []queue.Body{s.body(1, "prefix", octets(70<<10, 1), octets(70<<10, 2))}})
	r, err := s.OpenBody(1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	size := len(want)
	for _, row := range []struct{ off, n int }{
		{0, 1}, {0, size}, {3, 6}, {5, 70 << 10}, {70 << 10, 20}, {size - 1, 1}, {size - 5, 5}, {0, 0},
	} {
		p := make([]byte, row.n)
		n, err := r.ReadAt(p, int64(row.off))
		if n != row.n || err != nil && (err != io.EOF || row.off+row.n < size) ||
			!bytes.Equal(p, want[row.off:row.off+row.n]) {
			t.Errorf("read of %d octets at %d: %d, %v", row.n, row.off, n, err)
		}
	}
	for _, off := range []int{size - 3, size, size + 9} {
		n, err := r.ReadAt(make([]byte, 10), int64(off))
		if n != max(0, size-off) || err != io.EOF {
			t.Errorf("read behind the end, at %d of %d: %d, %v", off, size, n, err)
		}
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			got, err := io.ReadAll(io.NewSectionReader(r, int64(i), int64(size-i)))
			if err != nil || !bytes.Equal(got, want[i:]) {
				t.Errorf("reader %d beside others: %v", i, err)
			}
		})
	}
	wg.Wait()
}

func testDropWhileReading(t *testing.T, s *store) {
	s.commit(queue.Group{Bodies: []queue.Body{s.body(1, "", octets(100<<10, 1))}})
	r, err := s.OpenBody(1)
	if err != nil {
		t.Fatal(err)
	}
	s.commit(queue.Group{Drop: []mail.ID{1}})
	for i := range 30 { // whatever room it had is wanted by others
		id := mail.ID(100 + i)
		s.commit(queue.Group{Bodies: []queue.Body{s.body(id, "", octets(60<<10, uint64(id)))}})
		s.commit(queue.Group{Drop: []mail.ID{id}})
	}
	got, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
	if err != nil || !bytes.Equal(got, octets(100<<10, 1)) {
		t.Errorf("a dropped body that is being read: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	s.wantNoBody(1)
}

func testReopen(t *testing.T, s *store) {
	if s.place.Forgets {
		t.Skip("the store forgets")
	}
	for round := range 4 {
		id := mail.ID(round + 1)
		s.commit(queue.Group{
			Writes: []queue.Write{set(fmt.Sprintf("m%d", round), []byte("v"))},
			Bodies: []queue.Body{s.body(id, "p", octets(30<<10, uint64(id)))},
		})
		s.body(100, "", octets(1000, 1)) // never committed
		if round == 2 {
			s.commit(queue.Group{Writes: []queue.Write{set("m0", nil)}, Drop: []mail.ID{1}})
		}
		s.close()
		s.open()
		for n := range round + 1 {
			gone := n == 0 && round >= 2
			if gone {
				s.want("m0", nil)
				s.wantNoBody(1)
				continue
			}
			s.want(fmt.Sprintf("m%d", n), []byte("v"))
			s.wantBody(mail.ID(n+1), append([]byte("p"), octets(30<<10, uint64(n+1))...))
		}
		s.wantNoBody(100)
	}
}

// testChurn has bodies come and go, so that whatever a store does to use room again happens, while
// a few stay for the whole time.
func testChurn(t *testing.T, s *store) {
	const stay = 5
	alive := make(map[mail.ID]int)
	var oldest []mail.ID
	for i := range 400 {
		id := mail.ID(i + 1)
		n := 1 + int(octets(1, uint64(id))[0])*100
		g := queue.Group{Bodies: []queue.Body{s.body(id, "", octets(n, uint64(id)))}}
		alive[id] = n
		if i%97 >= stay {
			oldest = append(oldest, id)
		}
		for len(oldest) > 20 {
			g.Drop = append(g.Drop, oldest[0])
			delete(alive, oldest[0])
			oldest = oldest[1:]
		}
		s.commit(g)
		if i%100 == 99 && !s.place.Forgets {
			s.close()
			s.open()
		}
	}
	for i := range 400 {
		id := mail.ID(i + 1)
		if n, ok := alive[id]; ok {
			s.wantBody(id, octets(n, uint64(id)))
		} else {
			s.wantNoBody(id)
		}
	}
}
