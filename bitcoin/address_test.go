package bitcoin

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/internal/vectors"
)

func readJSON(t *testing.T, name string, v any) {
	t.Helper()
	if err := json.Unmarshal(vectors.Read(t, name), v); err != nil {
		t.Fatal(err)
	}
}

// networkOfVector returns the network that Core's key_io vectors name.
func networkOfVector(t *testing.T, chain string) *Network {
	t.Helper()
	n, err := NetworkByName(chain)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestKeyIOValid(t *testing.T) {
	var rows [][]json.RawMessage
	readJSON(t, "bitcoin/core/key_io_valid.json", &rows)
	for _, row := range rows {
		var text, payload string
		var about struct {
			Chain        string
			IsPrivkey    bool
			IsCompressed bool
			TryCaseFlip  bool
		}
		for i, v := range []any{&text, &payload, &about} {
			if err := json.Unmarshal(row[i], v); err != nil {
				t.Fatal(err)
			}
		}
		n := networkOfVector(t, about.Chain)
		script, addressErr := n.ParseAddress(text)
		key, compressed, isKey := n.ParseSecret(text)
		if about.IsPrivkey {
			if !isKey || hex.EncodeToString(key[:]) != payload || compressed != about.IsCompressed {
				t.Errorf("%s: key %x, compressed %v, ok %v", text, key, compressed, isKey)
			}
			if n.EncodeSecret(key, compressed) != text {
				t.Errorf("%s is written as %s", text, n.EncodeSecret(key, compressed))
			}
			if addressErr == nil {
				t.Errorf("%s: a key taken for an address", text)
			}
			continue
		}
		if addressErr != nil || hex.EncodeToString(script) != payload || isKey {
			t.Errorf("%s: script %x, %v, key %v; want %s", text, script, addressErr, isKey, payload)
		}
		if s, ok := n.Address(script); !ok || s != text {
			t.Errorf("%s is written as %s", text, s)
		}
		flipped, err := n.ParseAddress(flipCase(text))
		if about.TryCaseFlip != (err == nil) || err == nil && !bytes.Equal(flipped, script) {
			t.Errorf("%s in the other case: %x, %v", text, flipped, err)
		}
	}
}

func flipCase(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r - 'a' + 'A'
		}
		if r >= 'A' && r <= 'Z' {
			return r - 'A' + 'a'
		}
		return r
	}, s)
}

func TestKeyIOInvalid(t *testing.T) {
	var rows [][]string
	readJSON(t, "bitcoin/core/key_io_invalid.json", &rows)
	for _, row := range rows {
		for _, n := range []*Network{Mainnet(), Testnet3(), Testnet4(), Signet(), Regtest()} {
			if script, err := n.ParseAddress(row[0]); err == nil {
				t.Errorf("%s on %s: script %x", row[0], n.Name, script)
			}
			if _, _, ok := n.ParseSecret(row[0]); ok {
				t.Errorf("%s on %s: a key", row[0], n.Name)
			}
		}
	}
}

func TestBase58Vectors(t *testing.T) {
	var rows [][2]string
	readJSON(t, "bitcoin/core/base58_encode_decode.json", &rows)
	for _, row := range rows {
		raw := unhex(t, row[0])
		if s := EncodeBase58(raw); s != row[1] {
			t.Errorf("%s is written as %s, want %s", row[0], s, row[1])
		}
		if b, ok := DecodeBase58(row[1], len(raw)); !ok || !bytes.Equal(b, raw) {
			t.Errorf("%s reads as %x, %v", row[1], b, ok)
		}
		if _, ok := DecodeBase58(row[1], len(raw)-1); ok && len(raw) > 0 {
			t.Errorf("%s fits %d octets", row[1], len(raw)-1)
		}
		if b, ok := DecodeBase58Check(EncodeBase58Check(raw), 300); !ok || !bytes.Equal(b, raw) {
			t.Errorf("%s with a sum reads as %x, %v", row[0], b, ok)
		}
	}
	for s, want := range map[string]bool{
		" \t\n\v\f\r skip \r\f\v\n\t ":  true,
		" \t\n\v\f\r skip \r\f\v\n\t a": false,
		"invalid":                       false, "a\x00": false, "bad0IOl": false, "good": true,
	} {
		if _, ok := DecodeBase58(s, 100); ok != want {
			t.Errorf("%q: %v", s, ok)
		}
	}
}

// The texts are those that Core's rpc_invalid_address_message.py expects.
func TestAddressErrors(t *testing.T) {
	const bare = "Invalid or unsupported Segwit (Bech32) or Base58 encoding."
	var beyond90 []int
	for i := 90; i < 108; i++ {
		beyond90 = append(beyond90, i)
	}
	for _, row := range []struct {
		address, message string
		locations        []int
	}{
		{"bcrt1s0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v8n0nx0muaewav25430mtr",
			"Invalid Bech32 address program size (41 bytes)", nil},
		{"bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7k7grplx", bare, nil},
		{"bcrt1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqdmchcc",
			"Version 1+ witness address must use Bech32m checksum", nil},
		{"bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7k35mrzd",
			"Version 0 witness address must use Bech32 checksum", nil},
		{"bcrt130xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqynjegk",
			"Invalid Bech32 address witness version", nil},
		{"bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kqqq5k3my",
			"Invalid Bech32 v0 address program size (21 bytes), per BIP141", nil},
		{"bcrt1q049edschfnwystcqnsvyfpj23mpsg3jcedq9xv049edschfnwystcqnsvyfpj23mpsg3jcedq9xv" +
			"049edschfnwystcqnsvyfpj23m", "Bech32 string too long", beyond90},
		{"bcrt1q049edschfnwystcqnsvyfpj23mpsg3jcedq9xv", "Invalid Bech32 checksum", []int{9}},
		{"bcrt1qax9suht3qv95sw33xavx8crpxduefdrsvgsklu", "Invalid Bech32 checksum", []int{22, 43}},
		{"BCRT1QPLMTZKC2XHARPPZDLNPAQL78RSHJ68U32RAH7R", "Invalid Bech32 checksum", []int{38}},
		{"bcrtq049ldschfnwystcqnsvyfpj23mpsg3jcedq9xv", "Missing separator", nil},
		{"bcrt1q04oldschfnwystcqnsvyfpj23mpsg3jcedq9xv", "Invalid Base 32 character", []int{8}},
		{"bcrt1qdg3myrgvzw7ml8q0ejxhlkyxn7vl9r56yzkfgvzclrf4hkpx9yfqhpsuks",
			"Invalid Bech32 checksum", []int{19, 30}},
		{"bcrt1ptmp74ayg7p24uslctssvjm06q5phz4yrxucgnv", "Invalid Bech32 checksum", []int{5}},
		{"bcrt1qTmp74ayg7p24uslctssvjm06q5phz4yrxucgnv",
			"Invalid character or mixed case", []int{6}},
		{"bcrt1", "Invalid separator position", []int{4}},
		{"17VZNX1SN5NtKa8UQFxwQbFeFc3iqRYhem",
			"Invalid or unsupported Base58-encoded address.", nil},
		{"mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJJfn",
			"Invalid checksum or length of Base58 address (P2PKH or P2SH)", nil},
		{"2VKf7XKMrp4bVNVmuRbyCewkP8FhGLP2E54LHDPakr9Sq5mtU2",
			"Invalid checksum or length of Base58 address (P2PKH or P2SH)", nil},
		{EncodeBase58Check([]byte{111, 1, 2}),
			"Invalid length for Base58 address (P2PKH or P2SH)", nil},
		{"asfah14i8fajz0123f", bare, nil},
		{"1q049ldschfnwystcqnsvyfpj23mpsg3jcedq9xv", bare, nil},
		{"", "Invalid checksum or length of Base58 address (P2PKH or P2SH)", nil},
		{EncodeBech32(Bech32, "bcrt", nil), "Empty Bech32 data section", nil},
		{EncodeBech32(Bech32m, "bcrt", []byte{1, 0, 0, 0, 1}),
			"Invalid padding in Bech32 data section", nil},
		{EncodeBech32(Bech32m, "bcrt", []byte{1, 0, 0}),
			"Invalid Bech32 address program size (1 byte)", nil},
		{EncodeBech32(Bech32, "bcrtx", []byte{0, 0, 0}), "Invalid or unsupported prefix for Segwit " +
			"(Bech32) address (expected bcrt, got bcrtx).", nil},
	} {
		_, err := Regtest().ParseAddress(row.address)
		var e *AddressError
		if !errors.As(err, &e) {
			t.Errorf("%s: %v", row.address, err)
			continue
		}
		if e.Message != row.message || !slices.Equal(e.Locations, row.locations) {
			t.Errorf("%s:\n%q at %v\nwant %q at %v",
				row.address, e.Message, e.Locations, row.message, row.locations)
		}
	}
}

// Whatever one or two characters of an address are changed, exactly they are named.
func TestBech32LocatesErrors(t *testing.T) {
	const address = "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr"
	change := func(s string, i int, by byte) string {
		v := byte(strings.IndexByte(bech32Digits, s[i]))
		return s[:i] + string(bech32Digits[v^by]) + s[i+1:]
	}
	for i := 3; i < len(address); i++ {
		one := change(address, i, byte(1+i%31))
		checkLocations(t, one, i)
		for j := i + 1; j < len(address); j += 7 {
			checkLocations(t, change(one, j, byte(1+(i+j)%31)), i, j)
		}
	}
}

func checkLocations(t *testing.T, s string, want ...int) {
	t.Helper()
	_, _, _, err := DecodeBech32(s)
	var e *AddressError
	if !errors.As(err, &e) || !slices.Equal(e.Locations, want) ||
		e.Message != "Invalid Bech32m checksum" {
		t.Fatalf("%s: %v at %v, want %v", s, err, e.Locations, want)
	}
}

// BIP 173 and BIP 350, "Test vectors": strings that are valid as such, and that are not.
func TestBech32BIPVectors(t *testing.T) {
	for s, want := range map[string]Bech32Variant{
		"A12UEL5L": Bech32,
		"a12uel5l": Bech32,
		"an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio" +
			"1tt5tgs": Bech32,
		"abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw":                Bech32,
		"split1checkupstagehandshakeupstreamerranterredcaperred2y9e3w": Bech32,
		"?1ezyfcl": Bech32,
		"A1LQFN3A": Bech32m,
		"a1lqfn3a": Bech32m,
		"an83characterlonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber1" +
			"1sg7hg6": Bech32m,
		"abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx":                Bech32m,
		"split1checkupstagehandshakeupstreamerranterredcaperredlc445v": Bech32m,
		"?1v759aa":    Bech32m,
		"\x201nwldj5": 0, "\x7f1axkwrx": 0, "\x801eym55h": 0, "pzry9x0s0muk": 0, "1pzry9x0s0muk": 0,
		"x1b4n0q5v": 0, "li1dgmt3": 0, "de1lg7wt\xff": 0, "A1G7SGD8": 0, "10a06t8": 0, "1qzzfhee": 0,
		"\x201xj0phk": 0, "\x7f1g6xzxy": 0, "\x801vctc34": 0, "qyrz8wqd2c9m": 0, "1qyrz8wqd2c9m": 0,
		"y1b0jsk6g": 0, "lt1igcx5c0": 0, "in1muywd": 0, "mm1crxm3i": 0, "au1s5cgom": 0, "M1VUXWEZ": 0,
		"16plkw9": 0, "1p2gdwpf": 0,
	} {
		hrp, values, variant, err := DecodeBech32(s)
		if variant != want || (err == nil) != (want != 0) {
			t.Errorf("%q: variant %x, %v", s, variant, err)
		}
		if err == nil && EncodeBech32(variant, hrp, values) != strings.ToLower(s) {
			t.Errorf("%q is written differently", s)
		}
	}
}

func TestScriptsWithoutAddress(t *testing.T) {
	for name, script := range map[string]string{
		"empty":                     "",
		"bare key":                  "21 02 " + strings.Repeat("11", 32) + " ac",
		"OP_RETURN":                 "6a 04 deadbeef",
		"version 0 with 21 octets":  "00 15 111111111111111111111111111111111111111111",
		"program of 1 octet":        "51 01 11",
		"program of 41 octets":      "51 29 " + strings.Repeat("11", 41),
		"version 17":                "61 02 1111",
		"push longer than program":  "51 03 1111",
		"hash with an octet behind": "76a914 1111111111111111111111111111111111111111 88ac00",
	} {
		if s, ok := Mainnet().Address(unhex(t, script)); ok {
			t.Errorf("%s: address %s", name, s)
		}
	}
	anchor := unhex(t, "51 02 4e73")
	if s, ok := Mainnet().Address(anchor); !ok || s != "bc1pfeessrawgf" {
		t.Errorf("pay to anchor: %s", s)
	}
}

// A secret key lies between 1 and the order of the curve minus 1.
func TestSecretRange(t *testing.T) {
	n := Mainnet()
	one, order := [32]byte{31: 1}, [32]byte([]byte(curveOrder))
	last := order
	last[31]--
	for name, row := range map[string]struct {
		key [32]byte
		ok  bool
	}{"0": {}, "1": {one, true}, "the last": {last, true}, "the order": {order, false}} {
		if _, _, ok := n.ParseSecret(n.EncodeSecret(row.key, true)); ok != row.ok {
			t.Errorf("%s: %v", name, ok)
		}
	}
	if _, _, ok := Regtest().ParseSecret(n.EncodeSecret(one, true)); ok {
		t.Error("a key of another network")
	}
	long := EncodeBase58Check(append(append([]byte{n.SecretPrefix}, one[:]...), 2))
	if _, _, ok := n.ParseSecret(long); ok {
		t.Error("a key with a mark other than 1")
	}
}

func TestAmountStrings(t *testing.T) {
	for _, row := range []struct {
		amount        Amount
		string, money string
	}{
		{0, "0.00000000", "0.00"},
		{1, "0.00000001", "0.00000001"},
		{-1, "-0.00000001", "-0.00000001"},
		{Coin, "1.00000000", "1.00"},
		{-Coin, "-1.00000000", "-1.00"},
		{Coin / 10, "0.10000000", "0.10"},
		{Coin / 1000, "0.00100000", "0.001"},
		{Coin / 10000 * 123456789, "12345.67890000", "12345.6789"},
		{MaxMoney, "21000000.00000000", "21000000.00"},
		{math.MaxInt64, "92233720368.54775807", "92233720368.54775807"},
		{math.MinInt64, "-92233720368.54775808", "-92233720368.54775808"},
	} {
		if row.amount.String() != row.string || row.amount.Money() != row.money {
			t.Errorf("%d: %v and %v", int64(row.amount), row.amount, row.amount.Money())
		}
		if v, err := ParseAmount(row.string); row.amount.Valid() && (err != nil || v != row.amount) {
			t.Errorf("%s: %v, %v", row.string, v, err)
		}
	}
}

func TestParseMoney(t *testing.T) {
	for s, want := range map[string]Amount{
		"0.0": 0, ".": 0, "0.": 0, ".0": 0, ".6789": 67890000, "12345.": 12345 * Coin,
		"10000000.00": 10000000 * Coin, "   1": Coin, "1   ": Coin, "  1 ": Coin,
		"0.00000001": 1, " 0.00000001 ": 1, "21000000": MaxMoney, "0000000001": Coin,
		"100000000.00": -1, "0.000000001": -1, "21000000.00000001": -1, "": -1, " ": -1,
		"..": -1, "0..0": -1, "1 2": -1, " 1.2 3 ": -1, " 1 2.3 ": -1, " -1 .2  ": -1, "-1": -1,
		" +1 .2  ": -1, "92233720368.54775808": -1, "\x00-1": -1, "1\x00": -1, "1e2": -1,
		"00000000001": -1,
	} {
		v, ok := ParseMoney(s)
		if ok != (want >= 0) || ok && v != want {
			t.Errorf("%q: %d, %v; want %d", s, v, ok, want)
		}
	}
}

func TestParseFixedPoint(t *testing.T) {
	const none = math.MinInt64
	for s, want := range map[string]int64{
		"0": 0, "-0": 0, "1": 1e8, "0.0": 0, "-0.1": -1e7, "1.1": 110000000,
		"1.10000000000000000": 110000000, "1.1e1": 1100000000, "1.1e-1": 11000000,
		"1.1E+1": 1100000000, "1000": 1e11, "-1000": -1e11, "0.00000001": 1,
		"0.0000000100000000": 1, "-0.00000001": -1, "1000000000.00000001": 100000000000000001,
		"9999999999.99999999": 999999999999999999, "-9999999999.99999999": -999999999999999999,
		"1e-8": 1, "0.19e-6": 19, "10e-9": 1, "1e9": 1e17, "0e-8": 0, "0e8": 0,
		"1e00000000000000000000000001": 1e9, "0.000000000": 0, "0e-9": none, "0e10": none,
		"": none, "-": none, "a-1000": none, "-a1000": none, "-1000a": none, "-01000": none,
		"00.1": none, ".1": none, "--0.1": none, "0.000000001": none, "-0.000000001": none,
		"0.00000001000000001": none, "-10000000000.00000000": none, "10000000000.00000000": none,
		"10000000000.00000001": none, "-99999999999.99999999": none, "99999909999.09999999": none,
		"92233720368.54775807": none, "1.": none, "1e": none, "1e+": none, "1e11": none, "1e10": none,
		"1e-9": none, "1 ": none, "+1": none, "1e999999999999999999999": none,
		"1e-999999999999999999999": none,
	} {
		v, ok := ParseFixedPoint(s, 8)
		if ok != (want != none) || ok && v != want {
			t.Errorf("%q: %d, %v; want %d", s, v, ok, want)
		}
	}
	for s, want := range map[string]string{
		"x": "Invalid amount", "-1": "Amount out of range", "21000000.00000001": "Amount out of range",
	} {
		if _, err := ParseAmount(s); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", s, err, want)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add("bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr")
	f.Add("1FsSia9rv4NeEwvJ2GvXrX7LyxYspbN2mo")
	f.Add("KwDiBf89QgGbjEhKnhXJuH7LrciVrZi3qYjgd9M7rFU73sVHnoWn")
	f.Fuzz(func(t *testing.T, s string) {
		n := Mainnet()
		if script, err := n.ParseAddress(s); err == nil {
			again, ok := n.Address(script)
			if !ok || again != strings.ToLower(s) && again != strings.Trim(s, spaces) {
				t.Errorf("%q is written as %q", s, again)
			}
		}
		if key, compressed, ok := n.ParseSecret(s); ok &&
			n.EncodeSecret(key, compressed) != strings.Trim(s, spaces) {
			t.Errorf("%q is written differently", s)
		}
	})
}

func FuzzAmount(f *testing.F) {
	f.Add("1.1e-1", int64(1))
	f.Fuzz(func(t *testing.T, s string, v int64) {
		if a, err := ParseAmount(s); err == nil {
			if b, err := ParseAmount(a.String()); err != nil || a != b {
				t.Errorf("%q: %v, %v", s, a, err)
			}
		}
		if m, ok := ParseMoney(s); ok {
			if b, ok := ParseMoney(m.Money()); !ok || m != b {
				t.Errorf("%q: %v", s, m)
			}
		}
		if a := Amount(v); a.Valid() {
			if b, err := ParseAmount(a.String()); err != nil || a != b {
				t.Errorf("%d: %v, %v", v, b, err)
			}
		}
	})
}
