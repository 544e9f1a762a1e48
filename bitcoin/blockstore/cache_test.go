package blockstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

func testOut(n uint64) bitcoin.OutPoint {
	var out bitcoin.OutPoint
	binary.LittleEndian.PutUint64(out.TxID[:], n/3*0x9e3779b97f4a7c15)
	out.Index = uint32(n % 3)
	return out
}

func testCoin(n uint64, height int) consensus.Coin {
	script := bytes.Repeat([]byte{byte(n)}, int(n*7919%60))
	if n%500 == 0 {
		script = bytes.Repeat([]byte{byte(n)}, 10_000-int(n%9000))
	}
	return consensus.Coin{
		Out:    bitcoin.TxOut{Value: bitcoin.Amount(n * 1000), Script: script},
		Origin: consensus.Origin{Height: bitcoin.Height(height), Coinbase: n%10 == 0},
	}
}

func equalCoins(a, b consensus.Coin) bool {
	return a.Origin == b.Origin && a.Out.Value == b.Out.Value && bytes.Equal(a.Out.Script, b.Out.Script)
}

// model is what coins are: what the database has, and what it would have after a flush.
type model struct {
	db, now map[uint64]consensus.Coin
}

// TestCacheAgainstModel creates and spends coins, flushes and forgets at random, and compares with
// maps what is read and what is written.
func TestCacheAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	c := newCache(1 << 20)
	m := model{make(map[uint64]consensus.Coin), make(map[uint64]consensus.Coin)}
	for step := range 400_000 {
		n := rng.Uint64N(3000)
		out := testOut(n)
		_, there := m.now[n]
		switch k := rng.IntN(100); {
		case k < 45 && !there:
			coin := testCoin(n, step/100+1)
			_, inDB := m.db[n]
			c.add(&out, &coin, inDB && c.lookup(&out) == nil)
			m.now[n] = coin
		case k < 90 && there:
			if rng.IntN(2) == 0 {
				m.fill(c, n)
			}
			c.spend(&out)
			delete(m.now, n)
		case k < 99:
			m.fill(c, n)
			m.check(t, c, n)
		case rng.IntN(200) == 0:
			m.flush(t, c)
			if rng.IntN(2) == 0 {
				c.sweep(int64(rng.IntN(100_000)))
			}
		}
	}
	m.flush(t, c)
	if c.dirty != 0 {
		t.Errorf("%d dirty coins after a flush", c.dirty)
	}
	c.sweep(0)
	if c.used != 0 || c.arena.bytes != 0 {
		t.Errorf("%d coins, %d octets after all was forgotten", c.used, c.arena.bytes)
	}
	c.free()
}

// fill does what a read through the cache does.
func (m *model) fill(c *cache, n uint64) {
	out := testOut(n)
	if coin, ok := m.db[n]; ok && c.lookup(&out) == nil {
		c.fill(&out, &coin)
	}
}

func (m *model) check(t *testing.T, c *cache, n uint64) {
	t.Helper()
	out := testOut(n)
	var got consensus.Coin
	if p := c.lookup(&out); p != nil {
		got = coinAt(p)
	}
	if !equalCoins(got, m.now[n]) {
		t.Fatalf("coin %d is of height %d, want %d", n, got.Height, m.now[n].Height)
	}
}

// flush writes what is dirty into the model's database, which must then be what it should be.
func (m *model) flush(t *testing.T, c *cache) {
	t.Helper()
	refs, begin := c.dirtyRefs()
	if len(refs) != c.dirty || begin[256] != len(refs) {
		t.Fatalf("%d dirty coins, counted %d", len(refs), c.dirty)
	}
	byKey := make(map[bitcoin.OutPoint]uint64)
	for n := range uint64(3000) {
		byKey[testOut(n)] = n
	}
	for _, r := range refs {
		p := c.arena.at(r)
		n := byKey[bitcoin.OutPoint{TxID: bitcoin.Hash(p),
			Index: binary.LittleEndian.Uint32(p[atIndex:])}]
		f := flags(p[atFlags])
		_, there := m.db[n]
		if f&fresh != 0 && there {
			t.Fatalf("coin %d is fresh, but the database has it", n)
		}
		if f&spent != 0 {
			delete(m.db, n)
			continue
		}
		coin := coinAt(p)
		coin.Out.Script = bytes.Clone(coin.Out.Script)
		m.db[n] = coin
	}
	c.settle(refs)
	if len(m.db) != len(m.now) {
		t.Fatalf("%d coins in the database, want %d", len(m.db), len(m.now))
	}
	for n, coin := range m.now {
		if !equalCoins(m.db[n], coin) {
			t.Fatalf("coin %d in the database is of height %d, want %d",
				n, m.db[n].Height, coin.Height)
		}
	}
}

// TestCreatedAndSpentNeverReachesDisk is for the coins that live shorter than the cache.
func TestCreatedAndSpentNeverReachesDisk(t *testing.T) {
	c := newCache(1 << 20)
	out, coin := testOut(1), testCoin(1, 5)
	c.add(&out, &coin, false)
	c.spend(&out)
	if refs, _ := c.dirtyRefs(); len(refs) != 0 || c.used != 0 {
		t.Errorf("%d coins are to be written, %d are left", len(refs), c.used)
	}
}

func TestSweepKeepsTheYoungest(t *testing.T) {
	c := newCache(1 << 20)
	for n := range uint64(2000) {
		out, coin := testOut(n), testCoin(1, int(n)*10+1)
		c.fill(&out, &coin)
	}
	c.sweep(c.bytes() / 2)
	for n := range uint64(2000) {
		out := testOut(n)
		if there, want := c.lookup(&out) != nil, n > 1020; there != want && (n < 980 || n > 1020) {
			t.Errorf("coin of height %d: kept %v", n*10+1, there)
		}
	}
}

func BenchmarkCache(b *testing.B) {
	for _, size := range []int{100_000, 5_000_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			c := newCache(int64(size) * 88)
			script := bytes.Repeat([]byte{1}, 22)
			coin := consensus.Coin{Out: bitcoin.TxOut{Value: 1, Script: script},
				Origin: consensus.Origin{Height: 1}}
			n := uint64(0)
			for ; n < uint64(size); n++ {
				out := testOut(n)
				c.add(&out, &coin, false)
			}
			each := float64(c.arena.bytes+int64(slotSize*c.len())) / float64(size)
			b.ResetTimer()
			for i := range b.N { // one is spent, one created, one looked up
				old, young := testOut(n-uint64(size)), testOut(n)
				c.spend(&old)
				c.add(&young, &coin, false)
				some := testOut(n - uint64(i)%1000)
				c.lookup(&some)
				n++
			}
			b.ReportMetric(each, "B/coin")
			c.free()
		})
	}
}
