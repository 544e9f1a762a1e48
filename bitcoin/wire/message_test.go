package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"net/netip"
	"path"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/internal/vectors"
)

// unhex reads hexadecimal digits; blanks between them only help the reader.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readVector(t testing.TB, file string) []byte {
	return vectors.Read(t, path.Join("bitcoin/blocks", file))
}

func readBlock(t testing.TB, file string) *bitcoin.Block {
	t.Helper()
	block, err := bitcoin.ParseBlock(readVector(t, file))
	if err != nil {
		t.Fatal(err)
	}
	return block
}

// testTx returns a small transaction as a parser gives it, with a witness if wanted.
func testTx(t testing.TB, witness bool) *bitcoin.Tx {
	t.Helper()
	tx := &bitcoin.Tx{
		Version: 2,
		In:      []bitcoin.TxIn{{PrevOut: bitcoin.OutPoint{Index: 7}, Script: []byte{0x51}}},
		Out:     []bitcoin.TxOut{{Value: 1000, Script: []byte{0x6a}}},
	}
	if witness {
		tx.In[0].Witness = [][]byte{{1, 2}, {}}
	}
	parsed, err := bitcoin.ParseTx(tx.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func ipPort(s string) AddrPort { return AddrPortFrom(netip.MustParseAddrPort(s)) }

func mustAddr(t testing.TB, s string, port uint16) AddrPort {
	t.Helper()
	a, err := ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return AddrPort{a, port}
}

const (
	torName = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion"
	i2pName = "ukeu3k5oycgaauneqgtnvselmt4yemvoilkln7jpvamvfx7dnkdq.b32.i2p"
)

// everyMessage returns one message of each command, and more where there are forms.
func everyMessage(t testing.TB) []Message {
	hashes := []bitcoin.Hash{{1}, {2}, {3}}
	items := []Inventory{{InvWTx, hashes[0]}, {InvWitnessBlock, hashes[1]}, {InvCmpctBlock, hashes[2]}}
	locator := Locator{Version: 70016, Hashes: hashes, Stop: bitcoin.Hash{9}}
	filters := FilterRange{Type: BasicFilter, Start: 100, Stop: hashes[0]}
	tx, plain := testTx(t, true), testTx(t, false)
	genesis := bitcoin.Regtest().Genesis
	addrs := []KnownAddr{
		{1, ServiceNetwork, ipPort("1.2.3.4:8333")},
		{math.MaxUint32, math.MaxUint64, ipPort("[2001:470::1]:65535")},
	}
	cjdns, _ := NewAddr(NetCJDNS, unhex(t, "fc000001000200030004000500060007"))
	addrsV2 := append(addrs[:2:2],
		KnownAddr{2, 0, mustAddr(t, torName, 8333)},
		KnownAddr{3, 0xfd, mustAddr(t, i2pName, 0)},
		KnownAddr{4, 1 << 40, AddrPort{cjdns, 1}})
	return []Message{
		&Version{70016, ServiceNetwork | ServiceWitness, -5, ipPort("1.2.3.4:5"), ServiceNetwork,
			ipPort("[::2]:6"), 3, 4, "/Satoshi:31.0.0/", 900000, true},
		&VerAck{}, &WTxIDRelay{}, &SendAddrV2{}, &SendHeaders{}, &GetAddr{}, &MemPool{}, &FilterClear{},
		&SendCmpct{true, CmpctBlockVersion}, &SendCmpct{},
		&SendTxRcncl{1, math.MaxUint64}, &FeeFilter{1000}, &FeeFilter{-1},
		&Ping{Nonce: 5}, &Ping{Old: true}, &Pong{Nonce: math.MaxUint64}, &Pong{Short: true},
		&AddrMsg{}, &AddrMsg{addrs}, &AddrV2Msg{}, &AddrV2Msg{addrsV2},
		&Inv{items}, &Inv{}, &GetData{items}, &NotFound{items},
		&GetBlocks{locator}, &GetHeaders{locator}, &GetHeaders{},
		&Headers{[]bitcoin.Header{genesis.Header, genesis.Header}}, &Headers{},
		&Block{genesis}, &Tx{Tx: tx}, &Tx{Tx: plain},
		&CmpctBlock{genesis.Header, 5, []ShortID{1<<48 - 1, 0}, []Prefilled{{0, tx}, {65535, plain}}},
		&CmpctBlock{Header: genesis.Header},
		&GetBlockTxn{hashes[0], []uint16{0, 1, 300, 65535}}, &GetBlockTxn{},
		&BlockTxn{hashes[0], []bitcoin.Tx{*tx, *plain}}, &BlockTxn{Txs: []bitcoin.Tx{}},
		&FilterLoad{Bloom{[]byte{1, 2, 3}, 50, 6, BloomUpdateAll}},
		&FilterAdd{make([]byte, MaxFilterAdd)},
		&MerkleBlock{genesis.Header, PartialTree{3, hashes, []byte{0x1d}}},
		&GetCFilters{filters}, &CFilter{1, hashes[0], []byte{1, 2}},
		&GetCFHeaders{filters}, &CFHeaders{0, hashes[0], hashes[1], hashes},
		&GetCFCheckpt{0, hashes[0]}, &CFCheckpt{0, hashes[0], hashes},
		&Unknown{"alert", []byte{1, 2, 3}},
	}
}

func TestRoundTrip(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range everyMessage(t) {
		payload := m.Append(nil)
		got, err := Parse(m.Command(), payload)
		if err != nil {
			t.Errorf("%s: %v", m.Command(), err)
			continue
		}
		if !reflect.DeepEqual(got, m) {
			t.Errorf("%s comes back as\n%+v, want\n%+v", m.Command(), got, m)
		}
		if again := got.Append(nil); !bytes.Equal(again, payload) {
			t.Errorf("%s: %x, want %x", m.Command(), again, payload)
		}
		seen[m.Command()] = true
	}
	for command := range parsers {
		if !seen[command] {
			t.Errorf("%s is not tried", command)
		}
	}
}

// shorter are the messages that may be shorter than a full one: what old peers send.
var shorter = map[string]bool{"version": true, "ping": true, "pong": true}

// A payload is used up to its last octet: a shorter or longer one is an error.
func TestStrictConsumption(t *testing.T) {
	for _, m := range everyMessage(t) {
		if _, unknown := m.(*Unknown); unknown {
			continue
		}
		payload := m.Append(nil)
		for n := range payload {
			if _, err := Parse(m.Command(), payload[:n]); err == nil && !shorter[m.Command()] {
				t.Errorf("%s parses from %d of %d octets", m.Command(), n, len(payload))
			}
		}
		if len(payload) == 0 && shorter[m.Command()] {
			continue // a ping from before BIP 31
		}
		_, err := Parse(m.Command(), append(payload, 0))
		if m.Command() != "version" && !errors.Is(err, bitcoin.ErrTrailingData) {
			t.Errorf("%s with an octet more: %v", m.Command(), err)
		}
	}
}

// The encodings here were written down octet by octet from the BIPs and Core's documents.
func TestEncodings(t *testing.T) {
	hash := strings.Repeat("11", 32)
	var h bitcoin.Hash
	copy(h[:], unhex(t, hash))
	for _, row := range []struct {
		name string
		m    Message
		want string
	}{
		{"version", &Version{Protocol: 70016, Services: 9, Time: 1, You: ipPort("10.0.0.1:8333"),
			YouServices: 1, Nonce: 0x0807060504030201, UserAgent: "/x/", StartHeight: 2},
			"80110100 0900000000000000 0100000000000000" +
				"0100000000000000 00000000000000000000ffff0a000001 208d" +
				"0000000000000000 00000000000000000000000000000000 0000" +
				"0102030405060708 03 2f782f 02000000 00"},
		{"inv", &Inv{[]Inventory{{InvWitnessTx, h}}}, "01 01000040" + hash},
		{"getheaders", &GetHeaders{Locator{70016, []bitcoin.Hash{h}, h}}, "80110100 01" + hash + hash},
		{"sendcmpct", &SendCmpct{true, 2}, "01 0200000000000000"},
		{"feefilter", &FeeFilter{1000}, "e803000000000000"},
		{"getblocktxn", &GetBlockTxn{h, []uint16{1, 2, 5}}, hash + "03 01 00 02"},
		{"addr", &AddrMsg{[]KnownAddr{{0x4d1015e2, 1, ipPort("10.0.0.1:8333")}}},
			"01 e215104d 0100000000000000 00000000000000000000ffff0a000001 208d"},
		{"addrv2", &AddrV2Msg{[]KnownAddr{{0x4966bc61, 0x0409, ipPort("1.2.3.4:8333")}}},
			"01 61bc6649 fd0904 01 04 01020304 208d"},
		{"sendtxrcncl", &SendTxRcncl{1, 2}, "01000000 0200000000000000"},
		{"getcfilters", &GetCFilters{FilterRange{0, 1, h}}, "00 01000000" + hash},
	} {
		if got := row.m.Append(nil); !bytes.Equal(got, unhex(t, row.want)) {
			t.Errorf("%s: %x, want %s", row.name, got, row.want)
		}
		if row.m.Command() != row.name {
			t.Errorf("%s: command %s", row.name, row.m.Command())
		}
	}
}

// Each field of version from the sender's address on may be missing with those behind it, and more
// may follow than is known.
func TestVersionShortAndLong(t *testing.T) {
	full := &Version{70016, 9, 1, ipPort("1.2.3.4:5"), 1, ipPort("1.2.3.4:6"), 3, 4, "/x/", 5, false}
	payload := full.Append(nil)
	for _, row := range []struct {
		octets int
		ok     bool
		want   Version
	}{
		{45, false, Version{}},
		{46, true, Version{70016, 9, 1, full.You, 1, AddrPort{}, 0, 1, "", -1, true}},
		{47, false, Version{}},
		{80, true, Version{70016, 9, 1, full.You, 1, full.Me, 3, 4, "", -1, true}},
		{84, true, Version{70016, 9, 1, full.You, 1, full.Me, 3, 4, "/x/", -1, true}},
		{85, false, Version{}},
		{88, true, Version{70016, 9, 1, full.You, 1, full.Me, 3, 4, "/x/", 5, true}},
		{89, true, *full},
		{100, true, *full},
	} {
		b := append(payload[:89:89], make([]byte, 20)...)[:row.octets]
		m, err := Parse("version", b)
		if (err == nil) != row.ok {
			t.Errorf("%d octets: %v", row.octets, err)
		} else if row.ok && *m.(*Version) != row.want {
			t.Errorf("%d octets: %+v, want %+v", row.octets, m, row.want)
		}
	}
}

// Core's limits, each at and one above it.
func TestLimits(t *testing.T) {
	inv := func(n int) []Inventory { return make([]Inventory, n) }
	locator := func(n int) Locator { return Locator{Hashes: make([]bitcoin.Hash, n)} }
	for _, row := range []struct {
		text     string // of the *ExcessError; empty where the payload is just malformed
		ok, over Message
	}{
		{"inv message size = 50001", &Inv{inv(50000)}, &Inv{inv(50001)}},
		{"getdata message size = 50001", &GetData{inv(50000)}, &GetData{inv(50001)}},
		{"addr message size = 1001",
			&AddrMsg{make([]KnownAddr, 1000)}, &AddrMsg{make([]KnownAddr, 1001)}},
		{"addrv2 message size = 1001",
			&AddrV2Msg{make([]KnownAddr, 1000)}, &AddrV2Msg{make([]KnownAddr, 1001)}},
		{"headers message size = 2001",
			&Headers{make([]bitcoin.Header, 2000)}, &Headers{make([]bitcoin.Header, 2001)}},
		{"getheaders locator size 102 > 101", &GetHeaders{locator(101)}, &GetHeaders{locator(102)}},
		{"getblocks locator size 102 > 101", &GetBlocks{locator(101)}, &GetBlocks{locator(102)}},
		{"too-large bloom filter", &FilterLoad{Bloom{Bits: make([]byte, 36000)}},
			&FilterLoad{Bloom{Bits: make([]byte, 36001)}}},
		{"too-large bloom filter", &FilterLoad{Bloom{Hashes: 50}}, &FilterLoad{Bloom{Hashes: 51}}},
		{"bad filteradd message", &FilterAdd{make([]byte, 520)}, &FilterAdd{make([]byte, 521)}},
		{"cfheaders message size = 2001", &CFHeaders{Hashes: make([]bitcoin.Hash, 2000)},
			&CFHeaders{Hashes: make([]bitcoin.Hash, 2001)}},
		{"", &Version{UserAgent: strings.Repeat("x", 256)},
			&Version{UserAgent: strings.Repeat("x", 257)}},
		{"", &CmpctBlock{ShortIDs: make([]ShortID, 65535)},
			&CmpctBlock{ShortIDs: make([]ShortID, 65536)}},
	} {
		if _, err := Parse(row.ok.Command(), row.ok.Append(nil)); err != nil {
			t.Errorf("%s at its limit: %v", row.ok.Command(), err)
		}
		_, err := Parse(row.over.Command(), row.over.Append(nil))
		var excess *ExcessError
		if is := errors.As(err, &excess); err == nil || is != (row.text != "") ||
			is && excess.Text != row.text {
			t.Errorf("%s over its limit: %v, want %q", row.over.Command(), err, row.text)
		}
	}
}

func TestMalformed(t *testing.T) {
	hash := strings.Repeat("11", 32)
	for _, row := range []struct{ name, command, payload string }{
		{"count not canonical", "inv", "fd0000"},
		{"index of getblocktxn beyond 65535", "getblocktxn", hash + "01 fe00000100"},
		{"indexes of getblocktxn that add up beyond 65535", "getblocktxn", hash + "02 fdffff 00"},
		{"place of a prefilled transaction beyond 65535", "cmpctblock",
			strings.Repeat("00", 88) + "00 01 fe00000100 02000000 00 00 00000000"},
		{"33,554,432 hashes that are not there", "cfcheckpt", "00" + hash + "fe00000002"},
		{"2^63 hashes", "cfcheckpt", "00" + hash + "ff0000000000000080"},
		{"transaction with trailing octet", "tx", hex.EncodeToString(testTx(t, true).Append(nil)) + "00"},
	} {
		if m, err := Parse(row.command, unhex(t, row.payload)); err == nil {
			t.Errorf("%s: %+v", row.name, m)
		}
	}
}

// A count without its items costs nothing.
func TestNoAllocationForPromises(t *testing.T) {
	for command, payload := range map[string]string{
		"inv":         "fd50c3", // 50,000
		"headers":     "fdd007", // 2,000
		"cmpctblock":  strings.Repeat("00", 88) + "fdffff",
		"blocktxn":    strings.Repeat("00", 32) + "fe00000002",
		"merkleblock": strings.Repeat("00", 84) + "fe00000002",
		"notfound":    "fe00000002",
	} {
		b := unhex(t, payload)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		const runs = 100
		for range runs {
			if _, err := Parse(command, b); err == nil {
				t.Errorf("%s: no error", command)
			}
		}
		runtime.ReadMemStats(&after)
		if n := (after.TotalAlloc - before.TotalAlloc) / runs; n > 2000 {
			t.Errorf("%s: %d octets allocated", command, n)
		}
	}
}

func TestInventoryNames(t *testing.T) {
	zero := bitcoin.Hash{}.String()
	for _, row := range []struct {
		t         InvType
		name      string
		tx, block bool
	}{
		{InvTx, "tx " + zero, true, false},
		{InvWTx, "wtx " + zero, true, false},
		{InvWitnessTx, "witness-tx " + zero, true, false},
		{InvBlock, "block " + zero, false, true},
		{InvWitnessBlock, "witness-block " + zero, false, true},
		{InvFilteredBlock, "merkleblock " + zero, false, true},
		{InvCmpctBlock, "cmpctblock " + zero, false, true},
		{0, "0x00000000 " + zero, false, false},
		{6, "0x00000006 " + zero, false, false},
	} {
		i := Inventory{Type: row.t}
		if i.String() != row.name || i.IsTx() != row.tx || i.IsBlock() != row.block {
			t.Errorf("%d: %v, transaction %v, block %v", row.t, i, i.IsTx(), i.IsBlock())
		}
	}
}

func TestTxWithoutWitness(t *testing.T) {
	tx := testTx(t, true)
	b := (&Tx{Tx: tx, NoWitness: true}).Append(nil)
	m, err := Parse("tx", b)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.(*Tx); got.HasWitness() || got.TxID() != tx.TxID() {
		t.Error("witness sent, or another transaction")
	}
}

func TestMessagesOfRealBlocks(t *testing.T) {
	for _, file := range []string{"0413567.bin", "0866342.bin", "block426884.raw"} {
		raw := readVector(t, file)
		m, err := Parse("block", raw)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(m.Append(nil), raw) {
			t.Errorf("%s differs after the journey", file)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, m := range everyMessage(f) {
		if b := m.Append(nil); len(b) < 300 {
			f.Add(m.Command(), b)
		}
	}
	f.Fuzz(func(t *testing.T, command string, payload []byte) {
		before := bytes.Clone(payload)
		m, err := Parse(command, payload)
		if !bytes.Equal(payload, before) {
			t.Fatal("the payload was changed")
		}
		if err != nil {
			return
		}
		b := m.Append(nil)
		again, err := Parse(command, b)
		if err != nil {
			t.Fatalf("%s: what was parsed does not parse again: %v", command, err)
		}
		if c := again.Append(nil); !bytes.Equal(b, c) {
			t.Fatalf("%s: %x, then %x", command, b, c)
		}
	})
}

func BenchmarkParseInv(b *testing.B) {
	payload := (&Inv{make([]Inventory, 1000)}).Append(nil)
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("inv", payload); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseHeaders(b *testing.B) {
	payload := (&Headers{make([]bitcoin.Header, 2000)}).Append(nil)
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("headers", payload); err != nil {
			b.Fatal(err)
		}
	}
}
