package addrbook

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin/wire"
)

var now = time.Unix(1_700_000_000, 0)

func addr(t testing.TB, host string, port uint16) wire.KnownAddr {
	t.Helper()
	a, err := wire.ParseAddr(host)
	if err != nil {
		t.Fatal(err)
	}
	return wire.KnownAddr{Time: uint32(now.Unix()), Services: 9, AddrPort: wire.AddrPort{Addr: a, Port: port}}
}

func TestGoodMovesToTried(t *testing.T) {
	b := New(Config{Fixed: true})
	a, from := addr(t, "250.1.1.1", 8333), addr(t, "252.2.2.2", 8333)
	if !b.Add([]wire.KnownAddr{a}, from.Addr, 0, now) || b.Size() != 1 {
		t.Fatal("not added")
	}
	if b.Add([]wire.KnownAddr{a}, from.Addr, 0, now) {
		t.Error("added twice")
	}
	if !b.Good(a.AddrPort, now) {
		t.Fatal("not moved to tried")
	}
	if len(b.Table(true)) != 1 || len(b.Table(false)) != 0 {
		t.Errorf("tried %d, new %d", len(b.Table(true)), len(b.Table(false)))
	}
	if c := b.Counts()[wire.NetIPv4]; c != (Counts{0, 1}) {
		t.Errorf("counts %+v", c)
	}
}

func TestUnroutableIsNotKept(t *testing.T) {
	b := New(Config{Fixed: true})
	for _, host := range []string{"10.0.0.1", "127.0.0.1", "0.0.0.0", "fe80::1", "192.168.1.1"} {
		if b.Add([]wire.KnownAddr{addr(t, host, 8333)}, addr(t, "1.2.3.4", 1).Addr, 0, now) {
			t.Errorf("%s was kept", host)
		}
	}
}

// One source reaches at most 64 buckets of new, however many addresses it tells.
func TestOneSourceReachesFewBuckets(t *testing.T) {
	b := New(Config{Fixed: true})
	source := addr(t, "9.9.9.9", 8333).Addr
	for i := range 20_000 {
		a := addr(t, fmt.Sprintf("%d.%d.%d.1", 11+i%100, i/100%250, i/25000), 8333)
		b.Add([]wire.KnownAddr{a}, source, 0, now)
	}
	buckets := map[int]bool{}
	for _, p := range b.Table(false) {
		buckets[p.Bucket] = true
	}
	if len(buckets) > newBucketsPerSource {
		t.Errorf("one source fills %d buckets, want at most %d", len(buckets), newBucketsPerSource)
	}
}

// An attacker with one neighbourhood reaches at most 8 buckets of tried.
func TestOneGroupReachesFewTriedBuckets(t *testing.T) {
	b := New(Config{Fixed: true})
	for i := range 2000 {
		a := addr(t, fmt.Sprintf("77.7.%d.%d", i/200, i%200+1), 8333)
		b.Add([]wire.KnownAddr{a}, addr(t, fmt.Sprintf("%d.1.1.1", 11+i%150), 1).Addr, 0, now)
		b.Good(a.AddrPort, now)
	}
	buckets := map[int]bool{}
	for _, p := range b.Table(true) {
		buckets[p.Bucket] = true
	}
	if len(buckets) == 0 || len(buckets) > triedBucketsPerGroup {
		t.Errorf("one neighbourhood fills %d buckets", len(buckets))
	}
}

// The holder of a place in tried goes only after it was tested.
func TestTestBeforeEvict(t *testing.T) {
	b := New(Config{Fixed: true})
	var first, second wire.KnownAddr
	for i := 1; second.Port == 0; i++ {
		a := addr(t, fmt.Sprintf("77.7.%d.%d", i/200, i%200+1), 8333)
		b.Add([]wire.KnownAddr{a}, addr(t, fmt.Sprintf("%d.1.1.1", 11+i%150), 1).Addr, 0, now)
		if b.Good(a.AddrPort, now) {
			continue
		}
		if c, ok := b.TriedCollision(); ok {
			first, second = c.KnownAddr, a
		}
	}
	b.ResolveCollisions(now.Add(time.Hour))
	if holds(b, second) || !holds(b, first) {
		t.Fatal("an address that worked an hour ago was evicted")
	}
	b.Good(second.AddrPort, now)
	later := now.Add(5 * time.Hour)
	b.Attempt(first.AddrPort, true, later)
	b.ResolveCollisions(later.Add(30 * time.Second))
	if holds(b, second) {
		t.Fatal("the test had no minute to succeed")
	}
	b.ResolveCollisions(later.Add(2 * time.Minute))
	if !holds(b, second) || holds(b, first) {
		t.Fatal("an address that failed its test kept its place")
	}
}

func holds(b *Book, a wire.KnownAddr) bool {
	for _, p := range b.Table(true) {
		if p.Entry.AddrPort == a.AddrPort {
			return true
		}
	}
	return false
}

func TestTerrible(t *testing.T) {
	at := func(d time.Duration) uint32 { return uint32(now.Add(d).Unix()) }
	for name, e := range map[string]Entry{
		"from the future": {KnownAddr: wire.KnownAddr{Time: at(11 * time.Minute)}},
		"too old":         {KnownAddr: wire.KnownAddr{Time: at(-31 * 24 * time.Hour)}},
		"never worked":    {KnownAddr: wire.KnownAddr{Time: at(0)}, attempts: retries},
		"long dead": {KnownAddr: wire.KnownAddr{Time: at(0)}, attempts: maxFailures,
			LastSuccess: now.Add(-8 * 24 * time.Hour)},
	} {
		if !e.terrible(now) {
			t.Errorf("%s: kept", name)
		}
		e.LastTry = now
		if e.terrible(now) {
			t.Errorf("%s: dropped in the minute after a try", name)
		}
	}
}

func TestFileRoundTrip(t *testing.T) {
	b, magic := filled(t), [4]byte{1, 2, 3, 4}
	data := b.Marshal(magic)
	again, err := Unmarshal(data, magic, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if got := again.Marshal(magic); !bytes.Equal(got, data) {
		t.Error("what was read is not what was written")
	}
	for name, row := range map[string]struct {
		data  []byte
		magic [4]byte
		want  string
	}{
		"network":  {data, [4]byte{}, "Invalid network magic number"},
		"checksum": {append(bytes.Clone(data[:len(data)-1]), data[len(data)-1]^1), magic, "Checksum mismatch, data corrupted"},
		"short":    {data[:len(data)-40], magic, errEnd.Error()},
		"empty":    {nil, magic, errEnd.Error()},
	} {
		if _, err := Unmarshal(row.data, row.magic, Config{}); err == nil || err.Error() != row.want {
			t.Errorf("%s: %v, want %s", name, err, row.want)
		}
	}
}

func filled(t testing.TB) *Book {
	b := New(Config{Fixed: true})
	for i := range 300 {
		a := addr(t, fmt.Sprintf("%d.%d.3.4", 11+i%100, i%250), 8333)
		b.Add([]wire.KnownAddr{a}, addr(t, fmt.Sprintf("%d.2.3.4", 20+i%50), 1).Addr, 0, now)
		if i%3 == 0 {
			b.Good(a.AddrPort, now)
		}
	}
	onion := "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion"
	b.Add([]wire.KnownAddr{addr(t, onion, 8333), addr(t, "2a02:1234::5", 8333)},
		wire.InternalAddr("seed.example"), 0, now)
	return b
}

func TestSelect(t *testing.T) {
	b := filled(t)
	if e, ok := b.Select(false, now, wire.NetTorV3); !ok || e.Net != wire.NetTorV3 {
		t.Errorf("no onion address: %v", e)
	}
	if _, ok := b.Select(false, now, wire.NetI2P); ok {
		t.Error("an address of a network that has none")
	}
	for range 50 {
		if e, ok := b.Select(true, now); !ok || e.tried {
			t.Fatal("tried address where a new one was asked for")
		}
	}
	if got := len(b.Addrs(0, 23, wire.NetNone, false, now)); got != b.Size()*23/100 {
		t.Errorf("%d addresses of %d are not 23 of a hundred", got, b.Size())
	}
}

func FuzzPeersDat(f *testing.F) {
	magic := [4]byte{1, 2, 3, 4}
	f.Add(New(Config{Fixed: true}).Marshal(magic)[:200])
	f.Add(filled(f).Marshal(magic))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := Unmarshal(data, magic, Config{})
		if err != nil {
			return
		}
		if b.newCount+b.triedCount != len(b.random) || len(b.entries) != len(b.random) {
			t.Errorf("%d new, %d tried, %d entries, %d in order", b.newCount, b.triedCount,
				len(b.entries), len(b.random))
		}
	})
}
