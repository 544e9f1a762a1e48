// Package addrbook remembers where other nodes can be reached, so that nobody who sends many addresses can
// make them ours: Bitcoin Core's address manager (addrman.cpp).
//
// Addresses that were only heard of are "new", those that a connection worked with "tried". Each table has
// buckets of 64 places. Which bucket and place an address takes follows from a secret key, the
// neighbourhood (/16 of IPv4, /32 of IPv6) of the address and of who told it: an attacker with few
// neighbourhoods reaches few buckets, and cannot know which. An address in tried is replaced only after it
// was tested and failed. The book is bounded by its tables and keeps Core's file, peers.dat.
//
// Whom to connect to is decided elsewhere; so is the time, which comes as an argument.
package addrbook

import (
	"crypto/rand"
	"encoding/binary"
	"math"
	mrand "math/rand/v2"
	"sync"
	"time"

	"github.com/tallypost/tallypost/bitcoin/wire"
)

// The numbers of Core's addrman.cpp.
const (
	newBuckets   = 1024
	triedBuckets = 256
	bucketSize   = 64

	triedBucketsPerGroup = 8
	newBucketsPerSource  = 64
	newBucketsPerAddr    = 8

	horizon        = 30 * 24 * time.Hour // how old an address may be
	retries        = 3                   // failures until one that never worked is given up
	maxFailures    = 10                  // failures in a row, in ...
	minFail        = 7 * 24 * time.Hour  // ... at least this time
	replacement    = 4 * time.Hour       // a success so recent protects an address in tried
	maxCollisions  = 10
	testWindow     = 40 * time.Minute
	updateInterval = 20 * time.Minute // of Connected
)

// Entry is what is known of an address.
type Entry struct {
	wire.KnownAddr
	Source      wire.Addr // who told first
	LastSuccess time.Time
	LastTry     time.Time

	lastCounted time.Time // last failure that counted
	attempts    int
	refs        int // places in new
	tried       bool
	pos         int // in Book.random
}

// Place is where an entry stands in a table.
type Place struct {
	Tried            bool
	Bucket, Position int
	Entry            Entry
}

// Config of a Book. The zero Config is good to use.
type Config struct {
	Map        *ASMap                           // neighbourhoods are systems; nil: nets of one size
	Fixed      bool                             // the places are known, as Core's -test=addrman has them
	CheckEvery int                              // the book is checked once in so many operations; 0: never
	Debugf     func(format string, args ...any) // nil: nothing is told
}

// Book is an address manager. It may be used by many goroutines.
type Book struct {
	cfg Config

	mu         sync.Mutex // guards what follows
	key        [32]byte
	rng        *mrand.Rand
	entries    map[int64]*Entry
	byAddr     map[wire.AddrPort]int64
	random     []int64 // all ids, in an order that GetAddr shuffles
	newTable   [newBuckets][bucketSize]int64
	tried      [triedBuckets][bucketSize]int64
	nextID     int64 // 64 bits: it never wraps (CVE-2024-52919)
	newCount   int
	triedCount int
	counts     map[wire.Net]*Counts
	collisions map[int64]bool
	lastGood   time.Time
}

// Counts are the addresses of one network.
type Counts struct{ New, Tried int }

// New returns an empty book.
func New(cfg Config) *Book {
	var key, seed [32]byte
	if cfg.Fixed {
		key[0] = 1
	} else {
		rand.Read(key[:])
		rand.Read(seed[:])
	}
	return newBook(cfg, key, seed)
}

func newBook(cfg Config, key, seed [32]byte) *Book {
	b := &Book{
		cfg:        cfg,
		key:        key,
		rng:        mrand.New(mrand.NewChaCha8(seed)),
		entries:    map[int64]*Entry{},
		byAddr:     map[wire.AddrPort]int64{},
		counts:     map[wire.Net]*Counts{},
		collisions: map[int64]bool{},
		// After the last failure that counts, so that failures count from the start.
		lastGood: time.Unix(1, 0),
	}
	for i := range b.newTable {
		for j := range b.newTable[i] {
			b.newTable[i][j] = -1
		}
	}
	for i := range b.tried {
		for j := range b.tried[i] {
			b.tried[i][j] = -1
		}
	}
	return b
}

// Size returns the number of addresses.
func (b *Book) Size() int {
	defer b.begin()()
	return len(b.random)
}

// Counts returns the number of addresses of each network.
func (b *Book) Counts() map[wire.Net]Counts {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[wire.Net]Counts, len(b.counts))
	for n, c := range b.counts {
		out[n] = *c
	}
	return out
}

func (b *Book) count(n wire.Net) *Counts {
	c := b.counts[n]
	if c == nil {
		c = new(Counts)
		b.counts[n] = c
	}
	return c
}

// Add takes addresses that source told, as if they had been seen that much earlier than it said. It
// reports whether one took a place.
func (b *Book) Add(addrs []wire.KnownAddr, source wire.Addr, penalty time.Duration, now time.Time) bool {
	defer b.begin()()
	added := 0
	for i := range addrs {
		if b.add(addrs[i], source, penalty, now) {
			added++
		}
	}
	if added > 0 {
		b.debugf("Added %d addresses (of %d) from %s: %d tried, %d new", added, len(addrs), source,
			b.triedCount, b.newCount)
	}
	return added > 0
}

func (b *Book) add(a wire.KnownAddr, source wire.Addr, penalty time.Duration, now time.Time) bool {
	if !a.Routable() {
		return false
	}
	if a.Addr == source {
		penalty = 0 // who announces itself
	}
	seen := time.Unix(int64(a.Time), 0)
	id, known := b.byAddr[a.AddrPort]
	e := b.entries[id]
	if known {
		if !b.refresh(e, &a, seen, penalty, now) {
			return false
		}
	} else {
		e = &Entry{KnownAddr: a, Source: source, pos: len(b.random)}
		e.Time = uint32(max(0, seen.Add(-penalty).Unix()))
		id = b.insert(e)
	}
	bucket := b.newBucket(e, source)
	pos := b.position(e, true, bucket)
	old := b.newTable[bucket][pos]
	if old == id {
		return false
	}
	if old != -1 {
		other := b.entries[old]
		if !other.terrible(now) && !(other.refs > 1 && e.refs == 0) {
			if e.refs == 0 {
				b.remove(id)
			}
			return false
		}
		b.clearNew(bucket, pos)
	}
	e.refs++
	b.newTable[bucket][pos] = id
	b.debugf("Added %s%s to new[%d][%d]", e.AddrPort, b.mapped(e.Addr), bucket, pos)
	return true
}

// refresh takes what is new about a known address and reports whether it may have one more place.
func (b *Book) refresh(e *Entry, a *wire.KnownAddr, seen time.Time, penalty time.Duration,
	now time.Time) bool {
	interval := 24 * time.Hour
	if now.Sub(seen) < 24*time.Hour {
		interval = time.Hour
	}
	if int64(e.Time) < seen.Add(-interval-penalty).Unix() {
		e.Time = uint32(max(0, seen.Add(-penalty).Unix()))
	}
	e.Services |= a.Services
	if a.Time <= e.Time || e.tried || e.refs == newBucketsPerAddr {
		return false
	}
	// Each place more is twice as hard to get.
	return e.refs == 0 || b.rng.IntN(1<<e.refs) == 0
}

func (b *Book) insert(e *Entry) int64 {
	id := b.nextID
	b.nextID++
	b.entries[id] = e
	b.byAddr[e.AddrPort] = id
	e.pos = len(b.random)
	b.random = append(b.random, id)
	b.newCount++
	b.count(e.Net).New++
	return id
}

// remove forgets an address that has no place.
func (b *Book) remove(id int64) {
	e := b.entries[id]
	last := len(b.random) - 1
	b.swap(e.pos, last)
	b.random = b.random[:last]
	delete(b.byAddr, e.AddrPort)
	delete(b.entries, id)
	b.newCount--
	b.count(e.Net).New--
}

func (b *Book) swap(i, j int) {
	b.random[i], b.random[j] = b.random[j], b.random[i]
	b.entries[b.random[i]].pos = i
	b.entries[b.random[j]].pos = j
}

func (b *Book) clearNew(bucket, pos int) {
	id := b.newTable[bucket][pos]
	if id == -1 {
		return
	}
	b.newTable[bucket][pos] = -1
	e := b.entries[id]
	e.refs--
	if e.refs == 0 {
		b.remove(id)
	}
}

// Good notes that a connection to the address worked, which moves it to tried unless another holds its
// place there: that one is to be tested first, see TriedCollision. It reports whether it moved.
func (b *Book) Good(addr wire.AddrPort, now time.Time) bool {
	defer b.begin()()
	return b.good(addr, true, now)
}

func (b *Book) good(addr wire.AddrPort, test bool, now time.Time) bool {
	b.lastGood = now
	id, known := b.byAddr[addr]
	if !known {
		return false
	}
	e := b.entries[id]
	e.LastSuccess, e.LastTry, e.attempts = now, now, 0
	if e.tried || e.refs == 0 {
		return false
	}
	bucket := b.triedBucket(e)
	pos := b.position(e, false, bucket)
	if test && b.tried[bucket][pos] != -1 {
		if len(b.collisions) < maxCollisions {
			b.collisions[id] = true
		}
		b.debugf("Collision with %s while attempting to move %s to tried table. Collisions=%d",
			b.entries[b.tried[bucket][pos]].AddrPort, e.AddrPort, len(b.collisions))
		return false
	}
	b.makeTried(id, e, bucket, pos)
	b.debugf("Moved %s%s to tried[%d][%d]", e.AddrPort, b.mapped(e.Addr), bucket, pos)
	return true
}

func (b *Book) makeTried(id int64, e *Entry, bucket, pos int) {
	start := b.newBucket(e, e.Source)
	for n := range newBuckets {
		i := (start + n) % newBuckets
		p := b.position(e, true, i)
		if b.newTable[i][p] == id {
			b.newTable[i][p] = -1
			if e.refs--; e.refs == 0 {
				break
			}
		}
	}
	b.newCount--
	b.count(e.Net).New--
	if old := b.tried[bucket][pos]; old != -1 {
		b.backToNew(old)
	}
	b.tried[bucket][pos] = id
	b.triedCount++
	e.tried = true
	b.count(e.Net).Tried++
}

// backToNew moves an address out of tried; whatever had its place in new goes.
func (b *Book) backToNew(id int64) {
	e := b.entries[id]
	e.tried = false
	b.triedCount--
	b.count(e.Net).Tried--
	bucket := b.newBucket(e, e.Source)
	pos := b.position(e, true, bucket)
	b.clearNew(bucket, pos)
	e.refs = 1
	b.newTable[bucket][pos] = id
	b.newCount++
	b.count(e.Net).New++
}

// Attempt notes a try to connect. It counts as a failure, until Good, where countFailure is set: when the
// node is likely to be connected to the network at all.
func (b *Book) Attempt(addr wire.AddrPort, countFailure bool, now time.Time) {
	defer b.begin()()
	id, known := b.byAddr[addr]
	if !known {
		return
	}
	e := b.entries[id]
	e.LastTry = now
	if countFailure && e.lastCounted.Before(b.lastGood) {
		e.lastCounted = now
		e.attempts++
	}
}

// Connected notes at the end of a connection that the address was in use.
func (b *Book) Connected(addr wire.AddrPort, now time.Time) {
	defer b.begin()()
	if id, known := b.byAddr[addr]; known {
		if e := b.entries[id]; now.Unix()-int64(e.Time) > int64(updateInterval.Seconds()) {
			e.Time = uint32(now.Unix())
		}
	}
}

// SetServices notes what a node offers, by its own word.
func (b *Book) SetServices(addr wire.AddrPort, services wire.Services) {
	defer b.begin()()
	if id, known := b.byAddr[addr]; known {
		b.entries[id].Services = services
	}
}

// Services returns what a node is known to offer.
func (b *Book) Services(addr wire.AddrPort) wire.Services {
	defer b.begin()()
	if id, known := b.byAddr[addr]; known {
		return b.entries[id].Services
	}
	return 0
}

// terrible reports whether an address is not worth keeping.
func (e *Entry) terrible(now time.Time) bool {
	switch seen := time.Unix(int64(e.Time), 0); {
	case now.Sub(e.LastTry) <= time.Minute:
		return false
	case seen.After(now.Add(10 * time.Minute)), now.Sub(seen) > horizon:
		return true
	case e.LastSuccess.Unix() <= 0 && e.attempts >= retries:
		return true
	}
	return now.Sub(e.LastSuccess) > minFail && e.attempts >= maxFailures
}

// chance is how likely the address should be taken once it is looked at.
func (e *Entry) chance(now time.Time) float64 {
	c := math.Pow(0.66, float64(min(e.attempts, 8)))
	if now.Sub(e.LastTry) < 10*time.Minute {
		c *= 0.01
	}
	return c
}

func (b *Book) triedBucket(e *Entry) int {
	h := b.hash(vector(addrKey(e.AddrPort)))
	h = b.hash(vector(b.Group(e.Addr)), le64(h%triedBucketsPerGroup))
	return int(h % triedBuckets)
}

func (b *Book) newBucket(e *Entry, source wire.Addr) int {
	from := vector(b.Group(source))
	h := b.hash(vector(b.Group(e.Addr)), from)
	h = b.hash(from, le64(h%newBucketsPerSource))
	return int(h % newBuckets)
}

func (b *Book) position(e *Entry, inNew bool, bucket int) int {
	kind := []byte{'K'}
	if inNew {
		kind[0] = 'N'
	}
	n := binary.LittleEndian.AppendUint32(nil, uint32(bucket))
	return int(b.hash(kind, n, vector(addrKey(e.AddrPort))) % bucketSize)
}
