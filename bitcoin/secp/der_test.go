package secp

import (
	"bytes"
	"testing"
)

// TestParseDER lists what Core's lax parser forgives and what not.
func TestParseDER(t *testing.T) {
	one := [64]byte{31: 1, 63: 2}
	zero := [64]byte{}
	ff33 := "ff" + "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
	n := "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
	for _, c := range []struct {
		name, sig string
		want      [64]byte
		ok        bool
	}{
		{"strict", "3006020101020102", one, true},
		{"empty", "", zero, false},
		{"tag alone", "30", zero, false},
		{"wrong tag", "3106020101020102", zero, false},
		{"length of the sequence too small", "3000020101020102", one, true},
		{"length of the sequence too large", "307f020101020102", one, true},
		{"long length of the sequence", "308106020101020102", one, true},
		{"length of the sequence with 4 octets", "308400000006020101020102", one, true},
		{"length of the sequence beyond the end", "30ff020101020102", zero, false},
		{"indefinite length", "3080020101020102", one, true},
		{"octets after the end", "3006020101020102dead", one, true},
		{"padded r", "3009020400000001020102", one, true},
		{"long length of r", "300702810101020102", one, true},
		{"length of r with leading zeros", "300b0285000000000101020102", one, true},
		{"length of r of four digits", "300a02840100000101020102", zero, false},
		{"length of r cut off", "30020282", zero, false},
		{"long length of s", "300702010102810102", one, true},
		{"no s", "3003020101", zero, false},
		{"s without length", "300402010102", zero, false},
		{"s longer than the rest", "3006020101020202", zero, false},
		{"r is no integer", "3006030101020102", zero, false},
		{"s is no integer", "3006020101030102", zero, false},
		{"negative r is taken as positive", "3006020181020102", [64]byte{31: 0x81, 63: 2}, true},
		{"empty r", "30050200020102", [64]byte{63: 2}, true},
		{"empty s", "30050201010200", [64]byte{31: 1}, true},
		{"r of 33 octets", "3026" + "0221" + ff33 + "020102", zero, true},
		{"s of 33 octets", "3026" + "020101" + "0221" + ff33, zero, true},
		{"r is n: both are zero", "3025" + "0220" + n + "020102", zero, true},
		{"s is n: both are zero", "3025" + "020101" + "0220" + n, zero, true},
	} {
		got, ok := ParseDER(unhex(t, c.sig))
		if got != c.want || ok != c.ok {
			t.Errorf("%s: %x, %v; want %x, %v", c.name, got, ok, c.want, c.ok)
		}
	}
}

func TestAppendDER(t *testing.T) {
	for _, c := range []struct {
		rs   [64]byte
		want string
	}{
		{[64]byte{31: 1, 63: 2}, "3006020101020102"},
		{[64]byte{31: 0x80, 63: 0x7f}, "300702020080" + "02017f"},
		{[64]byte{}, "3006020100020100"},
		{[64]byte{30: 1, 62: 0xff}, "300902020100" + "020300ff00"},
	} {
		if got := AppendDER(nil, &c.rs); !bytes.Equal(got, unhex(t, c.want)) {
			t.Errorf("%x: %x, want %s", c.rs, got, c.want)
		}
	}
}

func TestLowS(t *testing.T) {
	var rs [64]byte
	copy(rs[32:], halfOrder[:])
	if !LowS(&rs) {
		t.Error("half the order is low")
	}
	rs[63]++
	if LowS(&rs) {
		t.Error("half the order and one is high")
	}
}

// FuzzParseDER: what is encoded again is read again, and no octets make it panic.
func FuzzParseDER(f *testing.F) {
	f.Add([]byte{0x30, 6, 2, 1, 1, 2, 1, 2})
	f.Add([]byte{0x30, 0x80, 2, 0x84, 1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, sig []byte) {
		rs, ok := ParseDER(sig)
		if !ok {
			return
		}
		again, ok := ParseDER(AppendDER(nil, &rs))
		if !ok || again != rs {
			t.Errorf("%x: %x, again %x", sig, rs, again)
		}
	})
}

// FuzzParsePublicKey: a key that parses has one compressed form, which parses to the same key.
func FuzzParsePublicKey(f *testing.F) {
	k := key(f, 1).PublicKey()
	compressed, full := k.Compressed(), k.Uncompressed()
	f.Add(compressed[:])
	f.Add(full[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParsePublicKey(b)
		if err != nil {
			return
		}
		c := k.Compressed()
		if again, err := ParsePublicKey(c[:]); err != nil || again != k {
			t.Errorf("%x: %v, %v", b, again, err)
		}
	})
}
