package eventlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bridge/tlog"
	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

const origin = "mail.example.org/tlog"

// fakeStore is a Section in a map, whose committer may lose what was not committed.
type fakeStore map[string][]byte

func (s fakeStore) Get(key []byte) ([]byte, error) {
	v, ok := s[string(key)]
	if !ok {
		return nil, queue.ErrNotFound
	}
	return append([]byte{}, v...), nil
}

func (s fakeStore) Scan(prefix, from []byte, fn func(key, value []byte) bool) error {
	var keys []string
	for k := range s {
		if strings.HasPrefix(k, string(prefix)) && k >= string(from) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		if !fn([]byte(k), s[k]) {
			break
		}
	}
	return nil
}

func (s fakeStore) commit(writes []queue.Write) {
	for _, w := range writes {
		if w.Value == nil {
			delete(s, string(w.Key))
		} else {
			s[string(w.Key)] = w.Value // not copied: the log promises not to touch it again
		}
	}
}

// fakeSigned is a LastSigned in memory, which fails when told to.
type fakeSigned struct {
	text []byte
	fail error
}

func (f *fakeSigned) Load() ([]byte, error) { return f.text, nil }

func (f *fakeSigned) Save(text []byte) error {
	if f.fail == nil {
		f.text = text
	}
	return f.fail
}

// bench is a log on a workbench: with its store, its keeper of checkpoints and what was signed.
type bench struct {
	t      testing.TB
	cfg    Config
	clock  *clock.Mock
	store  fakeStore
	last   *fakeSigned
	log    *Log
	signed []tlog.Checkpoint
	events []mail.Event // that were committed
	rnd    *rand.Rand
}

func newBench(t testing.TB) *bench {
	t.Helper()
	skey, err := tlog.GenerateKey(origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := tlog.ParseSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, store: fakeStore{}, last: &fakeSigned{},
		clock: clock.NewMock(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)),
		rnd:   rand.New(rand.NewPCG(1, 1))}
	b.cfg = Config{Signer: signer, LastSigned: b.last, Clock: b.clock}
	b.Reopen()
	return b
}

// Reopen opens the log anew, as after a crash: what was not committed is lost.
func (b *bench) Reopen() {
	b.t.Helper()
	l, err := Open(b.cfg, b.store)
	if err != nil {
		b.t.Fatal(err)
	}
	b.log = l
}

// Add appends and commits a group.
func (b *bench) Add(events ...mail.Event) []uint64 {
	b.t.Helper()
	indexes, writes, err := b.log.Append(events)
	if err != nil {
		b.t.Fatal(err)
	}
	b.store.commit(writes)
	b.log.Committed()
	b.events = append(b.events, events...)
	return indexes
}

// Sign takes a checkpoint of all that is committed.
func (b *bench) Sign() tlog.Checkpoint {
	b.t.Helper()
	b.clock.Advance(time.Second)
	text, err := b.log.Checkpoint()
	if err != nil {
		b.t.Fatal(err)
	}
	c, err := tlog.OpenCheckpoint(text, b.log.Verifier())
	if err != nil {
		b.t.Fatal(err)
	}
	b.signed = append(b.signed, c)
	return c
}

func (b *bench) root(size int) tlog.Hash {
	var e tlog.Edge
	for i := range size {
		e.Append(tlog.LeafHash(b.store[string(entryKey(uint64(i)))]), func(tlog.Tile, []byte) {})
	}
	return e.Root()
}

// CheckLog verifies the whole log as it now is: events, entries, tiles as a client would read them,
// proofs, consistency with all that was signed, and the log's own audit.
func (b *bench) CheckLog() {
	b.t.Helper()
	c := b.Sign()
	if c.Size != uint64(len(b.events)) || b.log.Size() != c.Size || c.Origin != origin {
		b.t.Fatalf("checkpoint %+v of a log of %d events, size %d", c, len(b.events), b.log.Size())
	}
	if root := b.root(len(b.events)); c.Root != root {
		b.t.Fatalf("size %d: root %v, want %v", c.Size, c.Root, root)
	}
	client := func(t tlog.Tile) ([]byte, error) { return b.log.Tile(t) }
	if root, err := tlog.Root(c.Size, client); err != nil || root != c.Root {
		b.t.Fatalf("size %d: root of the served tiles is %v, %v", c.Size, root, err)
	}
	for _, old := range b.signed {
		proof, err := b.log.ProveConsistency(old.Size, c.Size)
		if err == nil {
			err = tlog.VerifyConsistency(old.Size, old.Root, c.Size, c.Root, proof)
		}
		if err != nil {
			b.t.Fatalf("signed size %d to %d: %v", old.Size, c.Size, err)
		}
	}
	for range min(len(b.events), 5) {
		b.checkEntry(b.rnd.Uint64N(c.Size), c)
	}
	b.Audit()
}

func (b *bench) checkEntry(index uint64, c tlog.Checkpoint) {
	b.t.Helper()
	want, err := b.events[index].Canonical()
	if err != nil {
		b.t.Fatal(err)
	}
	p, err := b.log.Event(index)
	if err != nil || !bytes.Equal(p.Canonical, want) {
		b.t.Fatalf("event %d is %s (%v), want %s", index, p.Canonical, err, want)
	}
	text, err := b.log.Entry(index)
	if err != nil {
		b.t.Fatal(err)
	}
	entry, err := tlog.ParseEntry(text)
	if err != nil || !entry.Commits(p.Salt, want) || entry.Kind != b.events[index].Kind {
		b.t.Fatalf("entry %d is %q (%v)", index, text, err)
	}
	proofs, err := b.log.Prove(index)
	if err != nil {
		b.t.Fatal(err)
	}
	got, err := proofs[0].Verify(tlog.LeafHash(text), b.log.Verifier())
	if err != nil || got != c {
		b.t.Fatalf("proof of %d: %+v, %v", index, got, err)
	}
	if id := b.events[index].ID; ofMessage(b.events[index].Kind, id) {
		found, err := b.log.Find(id)
		if err != nil || !slices.Contains(found, index) {
			b.t.Fatalf("message %v has entries %d (%v), want %d among them", id, found, err, index)
		}
	}
}

// Audit wants an audit without problems.
func (b *bench) Audit() *Audit {
	b.t.Helper()
	a, err := b.log.Audit(context.Background(), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if len(a.Problems) > 0 || a.Size != b.log.Size() || a.Private+a.Erased != a.Size {
		b.t.Fatalf("audit: %+v", a)
	}
	return a
}

// event makes the n-th event: every third message has its acceptance and one outcome.
func event(n int) mail.Event {
	ev := mail.Event{
		Kind: mail.ReceivedFromNonERDS,
		Time: time.Date(2026, 11, 22, 12, 0, n, 123456789, time.UTC),
		ID:   mail.ID(1000 + n - n%3/2), MessageID: fmt.Sprintf("<%d.abc@example.net>", n),
		From:   &mail.Address{Local: "alice", Domain: "example.net"},
		To:     []mail.Address{{Local: "bob", Domain: "example.org"}},
		Size:   10240,
		SHA256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
		Peer: &mail.Peer{Name: "mx.example.net", Addr: "192.0.2.1", TLSVersion: "TLS 1.3",
			Cipher: "TLS_AES_128_GCM_SHA256"},
	}
	if n%3 == 2 {
		ev.Kind, ev.Reply = mail.ContentConsignment, "250 2.0.0 in the mailbox"
	}
	return ev
}

func events(from, n int) []mail.Event {
	var evs []mail.Event
	for i := range n {
		evs = append(evs, event(from+i))
	}
	return evs
}

func TestRandomGrowth(t *testing.T) {
	for seed := range uint64(2) {
		b := newBench(t)
		b.rnd = rand.New(rand.NewPCG(seed, 2))
		b.CheckLog()
		for len(b.events) < 1100 {
			first := len(b.events)
			indexes := b.Add(events(first, 1+b.rnd.IntN(200))...)
			for i, index := range indexes {
				if index != uint64(first+i) {
					t.Fatalf("event %d has index %d", first+i, index)
				}
			}
			b.CheckLog()
			if b.rnd.IntN(3) == 0 {
				b.Reopen()
				b.CheckLog()
			}
		}
	}
}

// TestThirdLevel has a tree of more than 65,536 leaves, restarted on both sides of the border.
func TestThirdLevel(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	b := newBench(t)
	b.cfg.LastSigned = nil
	b.Reopen()
	digest := mail.Event{Kind: mail.Digest, Time: b.clock.Now(), Note: "nothing"}
	b.Add(slices.Repeat([]mail.Event{digest}, 65_530)...)
	for len(b.events) < 65_540 {
		b.Add(event(len(b.events)))
		want := b.Sign()
		b.Reopen()
		if got := b.Sign(); got != want {
			t.Fatalf("checkpoint %+v after a restart, %+v before", got, want)
		}
	}
	b.Audit()
}

func TestRestartAtEverySize(t *testing.T) {
	b := newBench(t)
	for size := range 601 {
		before := b.Sign()
		b.Reopen()
		if after := b.Sign(); after != before || after.Size != uint64(size) {
			t.Fatalf("size %d: checkpoint %+v before the restart, %+v after", size, before, after)
		}
		b.Add(event(size))
	}
	b.CheckLog()
}

// TestCrash loses groups at random, or keeps them and loses the word of it, signs at random, and
// wants all that was ever signed to be one history.
func TestCrash(t *testing.T) {
	for seed := range uint64(8) {
		b := newBench(t)
		b.rnd = rand.New(rand.NewPCG(seed, 3))
		for range 50 {
			evs := events(len(b.events), 1+b.rnd.IntN(60))
			_, writes, err := b.log.Append(evs)
			if err != nil {
				t.Fatal(err)
			}
			switch b.rnd.IntN(3) {
			case 0: // lost
				b.Sign()
				b.Reopen()
			case 1: // persisted, but nobody was told
				b.store.commit(writes)
				b.Sign()
				b.events = append(b.events, evs...)
				b.Reopen()
			case 2: // all is well
				b.store.commit(writes)
				b.log.Committed()
				b.events = append(b.events, evs...)
			}
			if b.rnd.IntN(2) == 0 {
				b.Sign()
			}
		}
		b.CheckLog()
	}
}

// TestUncommittedIsUnseen asks for everything about a group before it is committed.
func TestUncommittedIsUnseen(t *testing.T) {
	b := newBench(t)
	b.Add(events(0, 3)...)
	_, writes, err := b.log.Append(events(3, 2))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if c := b.Sign(); c.Size != 3 || c.Root != b.root(3) {
			t.Errorf("signed %+v", c)
		}
		_, err1 := b.log.Entry(3)
		_, err2 := b.log.Event(3)
		_, err3 := b.log.Prove(3)
		_, err4 := b.log.ProveConsistency(3, 4)
		_, err5 := b.log.Tile(tlog.Tile{Level: 0, N: 0, Width: 4})
		_, err6 := b.log.Tile(tlog.Tile{Level: tlog.EntryLevel, N: 0, Width: 4})
		_, err7 := b.log.Erase(3, OnRequest)
		for i, err := range []error{err1, err2, err3, err4, err5, err6, err7} {
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("question %d: %v", i+1, err)
			}
		}
		if found, err := b.log.Find(event(4).ID); err != nil || len(found) != 0 {
			t.Errorf("found %d, %v", found, err)
		}
		b.store.commit(writes) // durable, but not said so yet
	}
	b.log.Committed()
	b.events = append(b.events, events(3, 2)...)
	b.CheckLog()
}

func TestTwoGroupsUnderOneCommit(t *testing.T) {
	b := newBench(t)
	_, first, err := b.log.Append(events(0, 300))
	if err != nil {
		t.Fatal(err)
	}
	indexes, second, err := b.log.Append(events(300, 2))
	if err != nil || !slices.Equal(indexes, []uint64{300, 301}) {
		t.Fatalf("indexes %d, %v", indexes, err)
	}
	b.store.commit(first)
	b.store.commit(second)
	b.log.Committed()
	b.events = events(0, 302)
	b.CheckLog()
}

func TestAppendRefuses(t *testing.T) {
	b := newBench(t)
	b.Add(event(0))
	bad := event(1)
	bad.Kind = "No such\nkind"
	if _, _, err := b.log.Append([]mail.Event{event(1), bad}); err == nil {
		t.Error("kind of two lines accepted")
	}
	bad = event(1)
	bad.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	if _, _, err := b.log.Append([]mail.Event{event(1), bad}); err == nil {
		t.Error("year 10000 accepted, which JSON has no form for")
	}
	if indexes, writes, err := b.log.Append(nil); indexes != nil || writes != nil || err != nil {
		t.Error("empty group has writes")
	}
	b.Add(event(1))
	b.CheckLog()
}

func TestBeacon(t *testing.T) {
	b := newBench(t)
	block := tlog.Block{Height: 912095, Hash: [32]byte{31: 7}}
	ok := true
	b.cfg.Beacon = func() (tlog.Block, bool) { return block, ok }
	b.Reopen()
	b.Add(events(0, 2)...)
	ok = false
	b.Add(event(2))
	for index, want := range []tlog.Block{block, block, {}} {
		text, err := b.log.Entry(uint64(index))
		if err != nil {
			t.Fatal(err)
		}
		if e, err := tlog.ParseEntry(text); err != nil || e.After != want {
			t.Errorf("entry %d: %+v, %v", index, e, err)
		}
	}
	b.CheckLog()
}

func TestOpenRefuses(t *testing.T) {
	fill := func(t *testing.T) *bench {
		b := newBench(t)
		b.Add(events(0, 600)...)
		b.Sign()
		return b
	}
	other, err := tlog.GenerateKey("mail.example.net/tlog")
	if err != nil {
		t.Fatal(err)
	}
	otherSigner, err := tlog.ParseSigner(other)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name string
		do   func(b *bench)
		want string
	}{
		{"no key", func(b *bench) { b.cfg.Signer = nil }, "no signing key"},
		{"key of another log", func(b *bench) { b.cfg.Signer = otherSigner },
			"use the key of that log"},
		{"state of a newer version", func(b *bench) { b.store["s"][0] = 2 }, "newer version"},
		{"short state", func(b *bench) { b.store["s"] = []byte{1} }, "damaged"},
		{"state lost", func(b *bench) { delete(b.store, "s") }, "has an entry 0"},
		{"last entry lost", func(b *bench) { delete(b.store, string(entryKey(599))) },
			"entry 599: not found"},
		{"entry too many", func(b *bench) { b.store[string(entryKey(600))] = []byte("x") },
			"has an entry 600"},
		{"entry damaged", func(b *bench) { b.store[string(entryKey(550))][3] ^= 1 }, "entry 550"},
		{"tile lost", func(b *bench) { delete(b.store, string(tileKey(0, 1))) },
			"tile/0/001: not found"},
		{"tile cut", func(b *bench) { b.store[string(tileKey(0, 1))] = make([]byte, 32) },
			"has 32 octets"},
		{"tile damaged", func(b *bench) { b.store[string(tileKey(0, 1))][8000] ^= 1 },
			ErrRolledBack.Error()},
		{"checkpoint damaged", func(b *bench) { b.last.text[80] ^= 1 }, "last signed checkpoint"},
		{"checkpoint empty", func(b *bench) { b.last.text = []byte{} }, "last signed checkpoint"},
		{"store lost", func(b *bench) { b.store = fakeStore{} }, ErrRolledBack.Error()},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := fill(t)
			row.do(b)
			if _, err := Open(b.cfg, b.store); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want one with %q", err, row.want)
			}
		})
	}
}

// TestNeverSignsAnotherHistory puts an older copy of the store back.
func TestNeverSignsAnotherHistory(t *testing.T) {
	b := newBench(t)
	b.Add(events(0, 10)...)
	b.Sign()
	backup, size := maps.Clone(b.store), len(b.events)
	b.Add(events(10, 5)...)
	b.Reopen() // not signed since: the backup is as good
	if _, err := Open(b.cfg, backup); err != nil {
		t.Errorf("backup of what was signed: %v", err)
	}
	b.Sign()
	b.store, b.events = backup, b.events[:size]
	if _, err := Open(b.cfg, b.store); !errors.Is(err, ErrRolledBack) {
		t.Errorf("backup older than what was signed: %v", err)
	}
	// Grown past the signed size by another way, it is another history all the same.
	keep := b.cfg.LastSigned
	b.cfg.LastSigned = nil
	b.Reopen()
	b.Add(events(20, 40)...)
	b.cfg.LastSigned = keep
	if _, err := Open(b.cfg, b.store); !errors.Is(err, ErrRolledBack) {
		t.Errorf("other history: %v", err)
	}
}

func TestSigning(t *testing.T) {
	b := newBench(t)
	b.Add(event(0))
	first := b.Sign()
	b.Add(event(1))
	text, err := b.log.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	if c, err := tlog.OpenCheckpoint(text, b.log.Verifier()); err != nil || c != first {
		t.Errorf("within a second signed anew: %+v, %v", c, err)
	}
	// A proof can not wait for the second to pass.
	proofs, err := b.log.Prove(1, 0)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := tlog.OpenCheckpoint(proofs[1].Checkpoint, b.log.Verifier()); err != nil || c.Size != 2 {
		t.Errorf("proof under %+v, %v", c, err)
	}
	if !bytes.Equal(proofs[0].Checkpoint, proofs[1].Checkpoint) {
		t.Error("two proofs of one call under two checkpoints")
	}
	// What could not be remembered is not given away.
	b.Add(event(2))
	b.clock.Advance(time.Minute)
	b.last.fail = errors.New("disk is gone")
	if text, err := b.log.Checkpoint(); !errors.Is(err, b.last.fail) || text != nil {
		t.Errorf("checkpoint %q, %v", text, err)
	}
	if _, err := b.log.Prove(2); !errors.Is(err, b.last.fail) {
		t.Errorf("proof: %v", err)
	}
	b.last.fail = nil
	if c := b.Sign(); c.Size != 3 {
		t.Errorf("signed %+v", c)
	}
	// A clock that was set back does not stop signing.
	b.Add(event(3))
	b.clock.Advance(-time.Hour)
	if text, err = b.log.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if c, err := tlog.OpenCheckpoint(text, b.log.Verifier()); err != nil || c.Size != 4 {
		t.Errorf("signed %+v with a clock that was set back, %v", c, err)
	}
	if _, err := b.log.Prove(); err == nil {
		t.Error("proof of nothing")
	}
}

func TestServedTiles(t *testing.T) {
	b := newBench(t)
	b.Add(events(0, 700)...)
	for _, row := range []struct {
		path  string
		bytes int // of a tile; -1: a bundle
	}{
		{"tile/0/000", 8192}, {"tile/0/000.p/7", 7 * 32}, {"tile/0/001", 8192}, {"tile/0/002.p/188",
			188 * 32},
		{"tile/0/002.p/1", 32}, {"tile/1/000.p/2", 64}, {"tile/entries/000", -1},
		{"tile/entries/002.p/188", -1},
	} {
		tile, err := tlog.ParseTilePath(row.path)
		if err != nil {
			t.Fatal(err)
		}
		data, err := b.log.Tile(tile)
		if err != nil {
			t.Errorf("%s: %v", row.path, err)
			continue
		}
		if row.bytes >= 0 {
			if len(data) != row.bytes {
				t.Errorf("%s has %d octets", row.path, len(data))
			}
			data[0] ^= 1 // the log has its own copy
			continue
		}
		entries, err := tlog.ParseBundle(data)
		if err != nil || len(entries) != tile.Width {
			t.Errorf("%s has %d entries, %v", row.path, len(entries), err)
		}
		for i, text := range entries {
			if want := b.store[string(entryKey(tile.N*256+uint64(i)))]; !bytes.Equal(text, want) {
				t.Errorf("%s: entry %d is %q, want %q", row.path, i, text, want)
			}
		}
	}
	for _, path := range []string{"tile/0/002", "tile/0/002.p/189", "tile/0/003.p/1", "tile/1/000",
		"tile/1/000.p/3", "tile/2/000.p/1", "tile/63/000.p/1", "tile/entries/002",
		"tile/entries/002.p/189",
		"tile/entries/999"} {
		tile, err := tlog.ParseTilePath(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.log.Tile(tile); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := b.log.Tile(tlog.Tile{Level: -2, Width: 1}); !errors.Is(err, ErrNotFound) {
		t.Errorf("level -2: %v", err)
	}
	b.CheckLog()
}

// TestReadersBesideTheCommitter is for the race detector.
func TestReadersBesideTheCommitter(t *testing.T) {
	b := newBench(t)
	b.cfg.SignEvery = time.Nanosecond
	b.cfg.Clock = clock.Real{}
	shared := &lockedStore{store: b.store}
	l, err := Open(b.cfg, shared)
	if err != nil {
		t.Fatal(err)
	}
	b.Add(event(0))
	l, err = Open(b.cfg, shared)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	stop := make(chan struct{})
	for range 2 {
		go func() {
			for {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				if _, err := l.Prove(0, l.Size()-1); err != nil {
					done <- err
					return
				}
			}
		}()
	}
	for i := range 300 {
		_, writes, err := l.Append(events(i, 3))
		if err != nil {
			t.Fatal(err)
		}
		shared.commit(writes)
		l.Committed()
	}
	close(stop)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if a, err := l.Audit(context.Background(), nil); err != nil || len(a.Problems) > 0 {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestEventJSONIsNotChanged(t *testing.T) {
	b := newBench(t)
	ev := event(0)
	ev.Time = ev.Time.In(time.FixedZone("", 3600))
	ev.Reply = "550 5.7.1 <script>\x00\u2028 \xff refused"
	b.Add(ev)
	p, err := b.log.Event(0)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := ev.Canonical()
	if !bytes.Equal(p.Canonical, want) || !json.Valid(p.Canonical) {
		t.Errorf("event %s, want %s", p.Canonical, want)
	}
}
