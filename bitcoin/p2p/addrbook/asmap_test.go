package addrbook

import (
	"encoding/hex"
	"net/netip"
	"testing"

	"github.com/tallypost/tallypost/bitcoin/wire"
)

// smallMap is the map of Core's tests (src/test/data/asmap.raw).
const smallMap = "fb03ec0fb03fc0fe00fb03ec0fb03fc0fe00fb03ec0fb0fffffeffedb0ffd486e628290000400000" +
	"400040990100800180040000050006001cf039"

func mapOf(t testing.TB, text string) *ASMap {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseASMap(b)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestASMapKnowsSystems(t *testing.T) {
	m := mapOf(t, smallMap)
	if got := m.Version().String(); got != "fec61fa21a9f46f3b17bdcd660d7f4cd90b966aad3aec593c99b35f0aca15853" {
		t.Errorf("version %s", got)
	}
	for _, row := range []struct {
		addr string
		want uint32
	}{{"250.1.2.3", 1000}, {"101.1.0.1", 1}, {"101.8.255.1", 8}, {"2002:6505:101::1", 5},
		{"127.0.0.1", 0}} {
		a, err := wire.ParseAddr(row.addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.System(a); got != row.want {
			t.Errorf("%s is of system %d, want %d", row.addr, got, row.want)
		}
	}
	onion, _ := wire.NewAddr(wire.NetTorV3, make([]byte, 32))
	if m.System(onion) != 0 || (*ASMap)(nil).System(onion) != 0 {
		t.Error("an onion address has a system")
	}
}

// With a map, addresses of one system share a neighbourhood, and a book of another map is put in order anew.
func TestBookWithASMap(t *testing.T) {
	m := mapOf(t, smallMap)
	b := New(Config{Fixed: true, Map: m, CheckEvery: 1})
	x := wire.AddrFromIP(netip.MustParseAddr("250.1.1.1"))
	y := wire.AddrFromIP(netip.MustParseAddr("250.200.1.1"))
	if string(b.Group(x)) != string(b.Group(y)) || string(New(Config{}).Group(x)) == string(New(Config{}).Group(y)) {
		t.Error("the map makes no difference")
	}
	for i := range 5 {
		a := wire.KnownAddr{Time: uint32(now.Unix()), AddrPort: wire.AddrPort{Port: 8333,
			Addr: wire.AddrFromIP(netip.AddrFrom4([4]byte{101, byte(i), 0, 1}))}}
		b.Add([]wire.KnownAddr{a}, a.Addr, 0, now)
		if i < 2 {
			b.Good(a.AddrPort, now)
		}
	}
	magic := [4]byte{1, 2, 3, 4}
	for _, cfg := range []Config{{Map: m, CheckEvery: 1}, {CheckEvery: 1}} {
		again, err := Unmarshal(b.Marshal(magic), magic, cfg)
		if err != nil || again.Size() == 0 {
			t.Errorf("read again: %v", err)
		}
	}
}

func TestASMapRefusesWhatLeadsAstray(t *testing.T) {
	good, _ := hex.DecodeString(smallMap)
	for n := range good {
		if _, err := ParseASMap(good[:n]); err == nil {
			t.Errorf("a map cut to %d octets is taken", n)
		}
	}
	if _, err := ParseASMap(append(good, 0)); err == nil {
		t.Error("a map with an octet behind its end is taken")
	}
}

func FuzzASMap(f *testing.F) {
	seed, _ := hex.DecodeString(smallMap)
	f.Add(seed, []byte{101, 1, 0, 1})
	f.Fuzz(func(t *testing.T, file, ip []byte) {
		m, err := ParseASMap(file)
		addr, ok := netip.AddrFromSlice(ip)
		if err != nil || !ok {
			return
		}
		m.System(wire.AddrFromIP(addr)) // ends, and within the map
	})
}
