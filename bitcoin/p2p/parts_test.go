package p2p

import (
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

var noon = time.Unix(1_700_000_000, 0)

// candidates returns inbound peers of neighbourhoods of their own, of which none has a merit.
func candidates(n int) []Candidate {
	var cs []Candidate
	for i := range n {
		cs = append(cs, Candidate{ID: PeerID(i), Connected: noon.Add(time.Duration(i) * time.Second),
			MinPing: time.Second, Group: uint64(i), Network: wire.NetIPv4})
	}
	return cs
}

func TestSelectEvict(t *testing.T) {
	if _, ok := SelectEvict(candidates(10)); ok {
		t.Error("ten peers are all protected by neighbourhood, ping and uptime")
	}
	id, ok := SelectEvict(candidates(100))
	if !ok || id < 50 {
		t.Errorf("evicted %d, %v: the older half is protected", id, ok)
	}
	for name, protect := range map[string]func(*Candidate){
		"noban":    func(c *Candidate) { c.NoBan = true },
		"outbound": func(c *Candidate) { c.Outbound = true },
		"near":     func(c *Candidate) { c.MinPing = time.Millisecond },
		"tx":       func(c *Candidate) { c.LastTx = noon },
		"block":    func(c *Candidate) { c.LastBlock = noon },
	} {
		cs := candidates(100)
		for range 20 {
			id, ok := SelectEvict(cs)
			if !ok {
				break
			}
			i := slices.IndexFunc(cs, func(c Candidate) bool { return c.ID == id })
			fresh := slices.Clone(cs)
			protect(&fresh[i])
			if again, ok := SelectEvict(fresh); ok && again == id {
				t.Errorf("%s does not protect", name)
			}
			cs = slices.Delete(cs, i, i+1)
		}
	}
}

func TestEvictFromLargestGroup(t *testing.T) {
	cs := candidates(100)
	for i := 60; i < 90; i++ {
		cs[i].Group = 1000
	}
	if id, ok := SelectEvict(cs); !ok || cs[id].Group != 1000 {
		t.Errorf("evicted peer %d, which is not of the largest neighbourhood", id)
	}
}

func TestParsePermissions(t *testing.T) {
	for _, row := range []struct {
		in   string
		perm Permissions
		err  string
	}{
		{"noban@127.0.0.1", PermNoBan, ""},
		{"bloom,relay@10.0.0.0/8", PermBloom | PermRelay, ""},
		{"all@::1", PermAll, ""},
		{"127.0.0.1", permImplicit, ""},
		{"oops@127.0.0.1", 0, "Invalid P2P permission: 'oops'"},
		{"in,out@1.2.3.4", 0, "Only direction was set, no permissions: 'in,out@1.2.3.4'"},
		{"noban@127.0.0.1:230", 0, "Invalid netmask specified in -whitelist: '127.0.0.1:230'"},
	} {
		w, err := ParseWhitelist(row.in)
		if err != nil && err.Error() != row.err || err == nil && (row.err != "" || w.Permissions != row.perm) {
			t.Errorf("%s: %v, %v", row.in, w, err)
		}
	}
	if _, _, err := ParseWhitebind("out@1.2.3.4:5"); err == nil {
		t.Error("whitebind for outbound connections")
	}
	if _, _, err := ParseWhitebind("noban@127.0.0.1"); err == nil ||
		err.Error() != "Need to specify a port with -whitebind: '127.0.0.1'" {
		t.Errorf("whitebind without a port: %v", err)
	}
}

func TestParseSubnet(t *testing.T) {
	for in, want := range map[string]string{
		"1.2.3.4": "1.2.3.4/32", "1.2.3.4/24": "1.2.3.0/24", "1.2.3.4/255.255.0.0": "1.2.0.0/16",
		"::1": "::1/128", "fe80::1/10": "fe80::/10", "1.2.3.4/255.0.255.0": "", "x": "", "1.2.3.4/33": "",
	} {
		p, err := ParseSubnet(in)
		if (err != nil) != (want == "") || err == nil && p.String() != want {
			t.Errorf("%s: %v, %v", in, p, err)
		}
	}
}

func TestBansSurviveRestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "banlist.json")
	b, err := LoadBans(file, noon)
	if err != nil {
		t.Fatal(err)
	}
	for subnet, d := range map[string]time.Duration{"1.2.3.0/24": time.Hour, "9.9.9.9": time.Minute,
		"2001:db8::/32": time.Hour} {
		if ok, err := b.Add(subnet, noon.Add(d), noon); !ok || err != nil {
			t.Fatalf("%s: %v, %v", subnet, ok, err)
		}
	}
	if b, err = LoadBans(file, noon.Add(2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	later := noon.Add(2 * time.Minute)
	for host, want := range map[string]bool{"1.2.3.77": true, "1.2.4.1": false, "9.9.9.9": false,
		"2001:db8:1::5": true} {
		a, _ := wire.ParseAddr(host)
		if b.Banned(a, later) != want {
			t.Errorf("%s banned: %v", host, !want)
		}
	}
	if found, _ := b.Remove("1.2.3.0/25", later); found {
		t.Error("a ban was taken back that there is not")
	}
	if found, err := b.Remove("1.2.3.0/24", later); !found || err != nil {
		t.Error(found, err)
	}
	if list := b.List(later); len(list) != 1 || list[0].Subnet != "2001:db8::/32" {
		t.Errorf("bans %v", list)
	}
}

func TestDiscouragedAreBounded(t *testing.T) {
	b, _ := LoadBans("", noon)
	for i := range 3 * maxDiscouraged {
		b.Discourage(wire.AddrFromIP(netip.AddrFrom4([4]byte{byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)})))
	}
	if n := len(b.discouraged) + len(b.previous); n > maxDiscouraged {
		t.Errorf("%d discouraged addresses", n)
	}
}

// headersOf makes a chain of regtest headers.
func headersOf(n int, version int32) []bitcoin.Header {
	g := bitcoin.Regtest().Genesis.Header
	prev, list := g.Hash(), make([]bitcoin.Header, n)
	for i := range list {
		h := bitcoin.Header{Version: version, PrevBlock: prev, Time: g.Time + uint32(i) + 1, Bits: g.Bits}
		for !bitcoin.MeetsTarget(h.Hash(), h.Bits, bitcoin.Regtest().PowLimit) {
			h.Nonce++
		}
		list[i], prev = h, h.Hash()
	}
	return list
}

// feed gives headers to a presync in messages of a size.
func feed(p *presync, list []bitcoin.Header, size int) (out []bitcoin.Header, more bool, err error) {
	more = true
	for len(list) > 0 && more && err == nil {
		k := min(size, len(list))
		var release []bitcoin.Header
		release, more, err = p.add(list[:k], k == size)
		out = append(out, release...)
		list = list[k:]
		if p.again && len(out) == 0 && len(release) == 0 && more {
			return out, more, err
		}
	}
	return out, more, err
}

func presyncFor(minWork int) *presync {
	net := bitcoin.Regtest()
	g := net.Genesis.Header
	start := chainStart{hash: g.Hash(), work: bitcoin.Work(g.Bits), bits: g.Bits, median: g.Time}
	work := bitcoin.Work(g.Bits).MulUint32(uint32(minWork))
	return newPresync(net, start, work, time.Unix(int64(g.Time), 0).Add(1000*time.Hour))
}

func TestPresyncReleasesEnoughWork(t *testing.T) {
	list := headersOf(5000, 4)
	p := presyncFor(4000)
	if out, more, err := feed(p, list, 1000); err != nil || !more || len(out) != 0 || !p.again {
		t.Fatalf("first pass: %d headers, more %v, %v", len(out), more, err)
	}
	out, more, err := p.add(list[:1000], true)
	for at := 1000; err == nil && more; at += 1000 {
		var release []bitcoin.Header
		release, more, err = p.add(list[at:at+1000], true)
		out = append(out, release...)
	}
	if err != nil || len(out) < 3999 || !slices.Equal(out, list[:len(out)]) {
		t.Fatalf("second pass: %d headers, %v", len(out), err)
	}
}

func TestPresyncKeepsNothingOfLowWork(t *testing.T) {
	p := presyncFor(10_000)
	out, more, err := feed(p, headersOf(3500, 4), 1000)
	if len(out) != 0 || more || err != nil {
		t.Errorf("%d headers kept, more %v, %v", len(out), more, err)
	}
	if len(p.buffer) != 0 || p.bits.len() > 3500/p.net.HeadersSync.CommitmentPeriod+1 {
		t.Errorf("memory for %d headers and %d bits", len(p.buffer), p.bits.len())
	}
}

// Whoever shows one chain first and another one then is found out with every bit that he has to guess.
func TestPresyncCatchesAnotherChain(t *testing.T) {
	caught := 0
	first, second := headersOf(20_000, 4), headersOf(20_000, 5)
	for range 5 {
		p := presyncFor(19_000)
		if _, _, err := feed(p, first, 2000); err != nil || !p.again {
			t.Fatal("first pass failed")
		}
		var err error
		for at, more := 0, true; more && err == nil && at < 18_000; at += 2000 {
			_, more, err = p.add(second[at:at+2000], true)
		}
		if err == errPresyncOther {
			caught++
		}
	}
	if caught < 4 { // 32 bits or so each time
		t.Errorf("caught %d of 5", caught)
	}
}

func TestPresyncWantsConnectedHeaders(t *testing.T) {
	list := headersOf(30, 4)
	p := presyncFor(10_000)
	if _, _, err := p.add(list[1:], true); err != errPresyncBroken {
		t.Errorf("headers that do not follow the start: %v", err)
	}
}

func TestBitQueue(t *testing.T) {
	var q bitQueue
	for i := range 1000 {
		q.push(i%3 == 0)
	}
	for i := range 1000 {
		if bit, ok := q.pop(); !ok || bit != (i%3 == 0) {
			t.Fatalf("bit %d", i)
		}
	}
	if _, ok := q.pop(); ok {
		t.Error("a bit more than was put in")
	}
}

func TestRoundFee(t *testing.T) {
	if f := roundFee(maxFilter); f < 9_000_000 || f > maxFilter {
		t.Errorf("filter of who wants nothing is %d", int64(f))
	}
	for range 100 {
		if f := float64(roundFee(1000)); math.Abs(f-1000) > 110 {
			t.Errorf("1000 became %v", f)
		}
	}
}

func TestNumericAddr(t *testing.T) {
	for _, row := range []struct{ in, want string }{
		{"127.1", "127.0.0.1"}, {"127.0.1", "127.0.0.1"}, {"2130706433", "127.0.0.1"}, {"0x7f.1", "127.0.0.1"},
		{"1.2.3.4", "1.2.3.4"}, {"1.2.65535", "1.2.255.255"}, {"::1", "::1"},
		{"1.2.65536", ""}, {"256.1", ""}, {"1.2.3.4.5", ""}, {"host", ""}, {"", ""}, {"1_0.1", ""},
	} {
		a, ok := numericAddr(row.in)
		if ok != (row.want != "") || ok && a.String() != row.want {
			t.Errorf("%q is %v, %v; want %q", row.in, a, ok, row.want)
		}
	}
}
