package oracle

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/wire/v2"

	"github.com/tallypost/tallypost/bitcoin"
	ours "github.com/tallypost/tallypost/bitcoin/wire"
	"github.com/tallypost/tallypost/internal/vectors"
)

// sharedMessages returns a message of each command that both sides know.
func sharedMessages() []ours.Message {
	hashes := []bitcoin.Hash{{1}, {2}, {3}}
	items := []ours.Inventory{{Type: ours.InvTx, Hash: hashes[0]},
		{Type: ours.InvWitnessBlock, Hash: hashes[1]}}
	locator := ours.Locator{Version: 70016, Hashes: hashes, Stop: bitcoin.Hash{9}}
	filters := ours.FilterRange{Start: 100, Stop: hashes[0]}
	genesis := bitcoin.Mainnet().Genesis
	ip := func(s string) ours.AddrPort { return ours.AddrPortFrom(netip.MustParseAddrPort(s)) }
	addrs := []ours.KnownAddr{
		{Time: 1, Services: ours.ServiceNetwork, AddrPort: ip("1.2.3.4:8333")},
		{Time: 2, Services: ours.ServiceWitness, AddrPort: ip("[2001:470::1]:65535")},
	}
	tx := &bitcoin.Tx{
		Version: 2,
		In: []bitcoin.TxIn{{PrevOut: bitcoin.OutPoint{Index: 7}, Script: []byte{0x51},
			Witness: [][]byte{{1, 2}, {}}}, {Sequence: 5}},
		Out: []bitcoin.TxOut{{Value: 1000, Script: []byte{0x6a}}, {}},
	}
	plain := tx.Clone()
	plain.In[0].Witness = nil
	block := &bitcoin.Block{Header: genesis.Header, Txs: []bitcoin.Tx{*plain, *tx, *plain}}
	return []ours.Message{
		&ours.Version{Protocol: 70016, Services: 9, Time: 5, You: addrs[0].AddrPort,
			Me: addrs[1].AddrPort, Nonce: 3, UserAgent: "/x/", StartHeight: 4, Relay: true},
		&ours.VerAck{}, &ours.SendAddrV2{}, &ours.SendHeaders{}, &ours.GetAddr{}, &ours.MemPool{},
		&ours.FilterClear{}, &ours.FeeFilter{Rate: 1000}, &ours.Ping{Nonce: 5}, &ours.Pong{Nonce: 6},
		&ours.AddrMsg{Addrs: addrs}, &ours.AddrV2Msg{Addrs: addrs},
		&ours.Inv{Items: items}, &ours.GetData{Items: items}, &ours.NotFound{Items: items},
		&ours.GetBlocks{Locator: locator}, &ours.GetHeaders{Locator: locator},
		&ours.Headers{Headers: []bitcoin.Header{genesis.Header, genesis.Header}},
		&ours.Block{Block: block}, &ours.Tx{Tx: tx}, &ours.Tx{Tx: plain},
		&ours.FilterLoad{Bloom: ours.Bloom{Bits: []byte{1, 2}, Hashes: 5, Flags: 1}},
		&ours.FilterAdd{Element: []byte{1, 2, 3}},
		&ours.MerkleBlock{Header: genesis.Header,
			PartialTree: ours.PartialTree{Leaves: 3, Hashes: hashes, Flags: []byte{0x1d}}},
		&ours.GetCFilters{FilterRange: filters},
		&ours.CFilter{Block: hashes[0], Filter: []byte{1, 2}},
		&ours.GetCFHeaders{FilterRange: filters},
		&ours.CFHeaders{Stop: hashes[0], PrevHeader: hashes[1], Hashes: hashes},
		&ours.GetCFCheckpt{Stop: hashes[0]}, &ours.CFCheckpt{Stop: hashes[0], Headers: hashes},
	}
}

// viaTallypost reads a payload with our parser and returns it encoded again.
func viaTallypost(command string, payload []byte) ([]byte, error) {
	m, err := ours.Parse(command, payload)
	if err != nil {
		return nil, err
	}
	return m.Append(nil), nil
}

// viaBtcd reads a payload, in a frame, with btcd and returns it encoded again.
func viaBtcd(t testing.TB, command string, payload []byte) ([]byte, error) {
	t.Helper()
	raw := &ours.Raw{Name: command, Payload: payload}
	frame, err := ours.AppendV1(nil, bitcoin.Mainnet().Magic, raw)
	if err != nil {
		t.Fatal(err)
	}
	_, m, _, err := wire.ReadMessageWithEncodingN(bytes.NewReader(frame), wire.ProtocolVersion,
		wire.MainNet, wire.WitnessEncoding)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := m.BtcEncode(&out, wire.ProtocolVersion, wire.WitnessEncoding); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// wireDifference is a way in which we read a payload as Bitcoin Core does and btcd does not.
type wireDifference struct {
	name    string
	command string
	example string // payload, hexadecimal
	is      func(payload []byte, ourErr, theirErr error) bool
}

func theySay(text string) func([]byte, error, error) bool {
	return func(_ []byte, ourErr, theirErr error) bool {
		return ourErr == nil && theirErr != nil && strings.Contains(theirErr.Error(), text)
	}
}

const hash11 = "1111111111111111111111111111111111111111111111111111111111111111"

// wireDifferences is the list of all that are known. Each has an example, so that one that no
// longer exists is noticed.
var wireDifferences = []wireDifference{
	{"btcd refuses a version that goes on behind what it knows", "version",
		"80110100" + strings.Repeat("00", 8+8+26+26+8) + "00" + "00000000" + "01" + "aabbcc",
		theySay("extra bytes after decode")},
	{"btcd refuses a version without all of the sender's address and nonce", "version",
		"80110100" + strings.Repeat("00", 8+8+26+26),
		func(_ []byte, ourErr, theirErr error) bool { return ourErr != nil && theirErr == nil }},
	{"btcd takes a height that is missing in version for 0, Core for -1", "version",
		"80110100" + strings.Repeat("00", 8+8+26+26+8) + "00",
		func(b []byte, ourErr, theirErr error) bool {
			m, err := ours.Parse("version", b)
			return err == nil && theirErr == nil && m.(*ours.Version).StartHeight == -1
		}},
	{"btcd wants a nonce in each ping", "ping", "",
		func(b []byte, ourErr, _ error) bool { return ourErr == nil && len(b) == 0 }},
	{"btcd wants a nonce in each pong", "pong", "0102",
		func(b []byte, ourErr, _ error) bool { return ourErr == nil && len(b) < 8 }},
	{"btcd wants the number of transactions behind a header to be 0", "headers",
		"01" + strings.Repeat("00", 80) + "05", theySay("may not contain transactions")},
	{"btcd knows Tor v2 and wants its length right", "addrv2", "01 00000000 00 03 02 0102 208d",
		theySay("invalid address size")},
	{"btcd forgets addresses of unknown networks, of I2P and CJDNS", "addrv2",
		"01 00000000 00 99 02 0102 208d",
		func(_ []byte, ourErr, theirErr error) bool { return ourErr == nil && theirErr == nil }},
	{"btcd refuses a transaction without inputs and outputs", "tx", "02000000 00 00 00000000",
		theySay("flag byte")},
	{"btcd takes a locator of 500 hashes, Core one of 101", "getheaders",
		"80110100 66" + strings.Repeat(hash11, 102+1),
		func(_ []byte, ourErr, theirErr error) bool { return ourErr != nil && theirErr == nil }},
	{"btcd refuses a filter above 256 KiB", "cfilter",
		"00" + hash11 + "fe01000400" + strings.Repeat("00", 262145), theySay("exceeds max")},
}

// compareWire reads a payload with both sides and fails where they differ in a way that is not
// known. It returns the name of a known one.
func compareWire(t testing.TB, command string, payload []byte) (known string) {
	t.Helper()
	a, errA := viaTallypost(command, payload)
	b, errB := viaBtcd(t, command, payload)
	if (errA == nil) == (errB == nil) && bytes.Equal(a, b) {
		return ""
	}
	for _, d := range wireDifferences {
		if d.command == command && d.is(payload, errA, errB) {
			return d.name
		}
	}
	t.Errorf("%s %.2000x:\ntallypost %.2000x, %v\nbtcd      %.2000x, %v",
		command, payload, a, errA, b, errB)
	return ""
}

func TestWireDifferencesExist(t *testing.T) {
	for _, d := range wireDifferences {
		payload, err := hex.DecodeString(strings.ReplaceAll(d.example, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if got := compareWire(t, d.command, payload); got != d.name {
			t.Errorf("%s: the example shows %q", d.name, got)
		}
	}
}

// TestWireMutations reads thousands of damaged payloads with both sides, real transactions among
// them.
func TestWireMutations(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, m := range sharedMessages() {
		payload := m.Append(nil)
		if known := compareWire(t, m.Command(), payload); known != "" {
			t.Errorf("%s: whole, and yet: %s", m.Command(), known)
		}
		for range 400 {
			compareWire(t, m.Command(), mutate(r, payload))
		}
	}
	for _, file := range []string{"bitcoin/blocks/0866342.bin", "bitcoin/blocks/0413567.bin"} {
		block, err := bitcoin.ParseBlock(vectors.Read(t, file))
		if err != nil {
			t.Fatal(err)
		}
		for range 4000 {
			raw := block.Txs[r.IntN(len(block.Txs))].Append(nil)
			if len(raw) < 2000 {
				compareWire(t, "tx", mutate(r, raw))
			}
		}
	}
}

// mutate returns a copy with one to three things changed, of the kind that confuses parsers of
// lengths.
func mutate(r *rand.Rand, b []byte) []byte {
	b = slices.Clone(b)
	for range 1 + r.IntN(3) {
		if len(b) == 0 {
			return append(b, byte(r.Uint32()))
		}
		i := r.IntN(len(b))
		switch r.IntN(6) {
		case 0:
			b[i] ^= 1 << r.IntN(8)
		case 1:
			b[i] = []byte{0, 1, 2, 0xfc, 0xfd, 0xfe, 0xff}[r.IntN(7)]
		case 2:
			b = slices.Insert(b, i, byte(r.Uint32()))
		case 3:
			b = slices.Delete(b, i, min(len(b), i+1+r.IntN(4)))
		case 4:
			b = append(b, b[i:]...)
		default:
			b = b[:i]
		}
	}
	return b
}

// TestWireRealBlocks holds hashes of every transaction of the real blocks against btcd's.
func TestWireRealBlocks(t *testing.T) {
	for _, file := range []string{"0413567.bin", "0866342.bin", "block300025.raw",
		"block426884.raw", "block482683.raw", "block898352.raw"} {
		raw := vectors.Read(t, "bitcoin/blocks/"+file)
		block, err := bitcoin.ParseBlock(raw)
		if err != nil {
			t.Fatal(err)
		}
		var theirs wire.MsgBlock
		if err := theirs.Deserialize(bytes.NewReader(raw)); err != nil {
			t.Fatal(err)
		}
		if hash := theirs.BlockHash(); block.Hash() != bitcoin.Hash(hash) {
			t.Errorf("%s: block %v, btcd says %v", file, block.Hash(), hash)
		}
		for i, tx := range theirs.Transactions {
			a := &block.Txs[i]
			if a.TxID() != bitcoin.Hash(tx.TxHash()) || a.WTxID() != bitcoin.Hash(tx.WitnessHash()) ||
				a.Size() != tx.SerializeSize() || a.BaseSize() != tx.SerializeSizeStripped() {
				t.Errorf("%s: transaction %d differs from btcd's", file, i)
			}
		}
	}
}

// FuzzWire looks for differences that are not in the list.
func FuzzWire(f *testing.F) {
	for _, m := range sharedMessages() {
		f.Add(m.Command(), m.Append(nil))
	}
	for _, d := range wireDifferences {
		if payload, err := hex.DecodeString(d.example); err == nil && len(payload) < 1000 {
			f.Add(d.command, payload)
		}
	}
	f.Fuzz(func(t *testing.T, command string, payload []byte) {
		if known := slices.ContainsFunc(sharedMessages(), func(m ours.Message) bool {
			return m.Command() == command
		}); known && len(payload) <= ours.MaxPayload {
			compareWire(t, command, payload)
		}
	})
}
