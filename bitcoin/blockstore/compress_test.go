package blockstore

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

// TestVarInt has the examples of Bitcoin Core's serialize.h.
func TestVarInt(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "00", 1: "01", 127: "7f", 128: "8000", 255: "807f", 256: "8100", 16383: "fe7f",
		16384: "ff00", 16511: "ff7f", 65535: "82fe7f", 1 << 32: "8efefeff00",
		1<<64 - 1: "80fefefefefefefefe7f",
	} {
		got := appendVarInt(nil, n)
		if hex.EncodeToString(got) != want {
			t.Errorf("%d is %x, want %s", n, got, want)
		}
		d := decoder{b: got}
		if back := d.varInt(); back != n || d.err != nil || len(d.b) != 0 {
			t.Errorf("%s reads as %d, %v", want, back, d.err)
		}
	}
}

// TestCompressAmount has the pairs of Bitcoin Core's test/compress_tests.cpp.
func TestCompressAmount(t *testing.T) {
	for _, pair := range [][2]uint64{
		{0, 0}, {1, 0x1}, {1_000_000, 0x7}, {100_000_000, 0x9},
		{50 * 100_000_000, 0x32}, {21_000_000 * 100_000_000, 0x1406f40},
	} {
		if got := compressAmount(pair[0]); got != pair[1] {
			t.Errorf("%d compresses to %#x, want %#x", pair[0], got, pair[1])
		}
	}
	for range 100_000 {
		n := rand.Uint64N(21_000_000*100_000_000 + 1)
		if rand.IntN(2) == 0 {
			n = n / 1_000_000 * 1_000_000
		}
		if back := decompressAmount(compressAmount(n)); back != n {
			t.Fatalf("%d comes back as %d", n, back)
		}
	}
}

// scripts returns one of each form, and some that only look like one.
func scripts(t *testing.T) map[string][]byte {
	key, err := secp.LiftX((*[32]byte)(bytes.Repeat([]byte{1}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	short, long := key.Compressed(), key.Uncompressed()
	wrong := long
	wrong[64] ^= 1
	unhex := func(s string) []byte { b, _ := hex.DecodeString(s); return b }
	return map[string][]byte{
		"empty":         {},
		"key hash":      unhex("76a914000102030405060708090a0b0c0d0e0f1011121388ac"),
		"script hash":   unhex("a914000102030405060708090a0b0c0d0e0f1011121387"),
		"key":           append(append([]byte{33}, short[:]...), 0xac),
		"long key":      append(append([]byte{65}, long[:]...), 0xac),
		"no key":        append(append([]byte{65}, wrong[:]...), 0xac),
		"witness":       unhex("0014000102030405060708090a0b0c0d0e0f10111213"),
		"almost":        unhex("76a914000102030405060708090a0b0c0d0e0f1011121388ad"),
		"of 4,000":      bytes.Repeat([]byte{0x61}, 4000),
		"of six octets": bytes.Repeat([]byte{0x61}, 6),
		"of one octet":  {0x51},
		"of 10,000":     bytes.Repeat([]byte{0x61}, 10_000),
	}
}

func TestScriptsComeBack(t *testing.T) {
	sizes := map[string]int{"key hash": 21, "script hash": 21, "key": 33, "long key": 33, "no key": 68}
	for name, s := range scripts(t) {
		b := appendScript(nil, s)
		if want, ok := sizes[name]; ok && len(b) != want {
			t.Errorf("%s takes %d octets, want %d", name, len(b), want)
		}
		d := decoder{b: b}
		if back := d.script(); !bytes.Equal(back, s) || d.err != nil || len(d.b) != 0 {
			t.Errorf("%s: %x comes back as %x, %v", name, s, back, d.err)
		}
	}
}

// TestCoinEncoding has a coin of Bitcoin Core's test/coins_tests.cpp, ccoins_serialization.
func TestCoinEncoding(t *testing.T) {
	for _, row := range []struct {
		hex    string
		origin consensus.Origin
		value  bitcoin.Amount
		script string
	}{
		{"97f23c835800816115944e077fe7c803cfa57f29b36bf87c1d35",
			consensus.Origin{Height: 203998}, 60000000000,
			"76a914816115944e077fe7c803cfa57f29b36bf87c1d3588ac"},
		{"8ddf77bbd123008c988f1a4a4de2161e0f50aac7f17e7f9555caa4",
			consensus.Origin{Height: 120891, Coinbase: true}, 110397,
			"76a9148c988f1a4a4de2161e0f50aac7f17e7f9555caa488ac"},
		{"000006", consensus.Origin{}, 0, ""},
	} {
		b, _ := hex.DecodeString(row.hex)
		d := decoder{b: b}
		c := d.coin()
		if d.err != nil || c.Origin != row.origin || c.Out.Value != row.value ||
			hex.EncodeToString(c.Out.Script) != row.script {
			t.Errorf("%s is %+v, %v", row.hex, c, d.err)
		}
		if back := appendCoin(nil, &c); hex.EncodeToString(back) != row.hex {
			t.Errorf("%s is written as %x", row.hex, back)
		}
	}
}

func FuzzUndo(f *testing.F) {
	f.Add([]byte{1, 1, 2, 0, 0, 6})
	f.Add([]byte{2, 0, 1, 0, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		undo, err := parseUndo(b)
		if err == nil && undo.Len() > len(b) {
			t.Errorf("%d coins in %d octets", undo.Len(), len(b))
		}
	})
}

func FuzzCoin(f *testing.F) {
	f.Add([]byte{0, 0, 6})
	f.Add([]byte{2, 0, 4, 1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		d := decoder{b: b}
		c := d.coin()
		if d.err != nil || len(c.Out.Script) > 10_000 {
			return
		}
		again := decoder{b: appendCoin(nil, &c)}
		if back := again.coin(); back.Origin != c.Origin || back.Out.Value != c.Out.Value ||
			!bytes.Equal(back.Out.Script, c.Out.Script) {
			t.Errorf("%x: %+v comes back as %+v", b, c, back)
		}
	})
}
