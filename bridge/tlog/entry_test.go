package tlog

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/mail"
)

const goodEntry = "tallypost/event/v1\nReceivedFromNonERDS\n" +
	"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"

const goodAfter = "after 481824 0000000000000000001c8018d9cb3b742ef25114f27563e3fc4a1902167f9893\n"

func TestEntryText(t *testing.T) {
	e, err := ParseEntry([]byte(goodEntry))
	if err != nil {
		t.Fatal(err)
	}
	if e.Kind != mail.ReceivedFromNonERDS || e.Commitment[31] != 31 || !e.After.IsZero() {
		t.Errorf("parsed %+v", e)
	}
	e, err = ParseEntry([]byte(goodEntry + goodAfter))
	if err != nil {
		t.Fatal(err)
	}
	if e.After.Height != 481824 || e.After.Hash[31] != 0x93 || e.After.Hash[0] != 0 {
		t.Errorf("parsed %+v", e)
	}
	if got := string(e.AppendTo(nil)); got != goodEntry+goodAfter {
		t.Errorf("wrote %q", got)
	}
}

func TestLongestEntryFits(t *testing.T) {
	e := Entry{Kind: mail.EventKind(strings.Repeat("Q", maxKind)),
		After: Block{Height: 1<<32 - 1, Hash: [32]byte{1}}}
	text := e.AppendTo(nil)
	if len(text) > MaxEntry {
		t.Fatalf("longest entry has %d octets, MaxEntry is %d", len(text), MaxEntry)
	}
	if _, err := ParseEntry(text); err != nil {
		t.Error(err)
	}
}

func TestParseEntryRefuses(t *testing.T) {
	for _, row := range []struct{ name, old, new, want string }{
		{"version", "event/v1", "event/v2", "does not begin"},
		{"no header", "tallypost/event/v1\n", "", "does not begin"},
		{"no kind", "ReceivedFromNonERDS", "", "kind of 0 characters"},
		{"long kind", "ReceivedFromNonERDS", strings.Repeat("x", 65), "kind of 65 characters"},
		{"digit in kind", "NonERDS", "Non3RDS", "letters only"},
		{"bracket in kind", "NonERDS", "Non[RDS", "letters only"},
		{"short commitment", "AAEC", "", "hash"},
		{"commitment not base 64", "AAEC", "A-EC", "not 32 octets"},
		{"loose bits in the commitment", "Hh8=", "Hh9=", "not 32 octets"},
		{"line end in the commitment", "AAEC", "AAE\n", "hash"},
		{"two lines", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n" + goodAfter, "",
			"fewer than three"},
		{"CRLF", "v1\n", "v1\r\n", "does not begin"},
		{"other fourth line", "after ", "before ", "fourth line"},
		{"no line end", "9893\n", "9893", "fourth line"},
		{"leading zero", " 481824", " 0481824", "canonical"},
		{"sign", " 481824", " +481824", "not a number"},
		{"height of 33 bits", " 481824", " 4294967296", "not a number"},
		{"upper case hash", "d9cb", "D9cb", "canonical"},
		{"short hash", "d9cb", "", "block hash of 60"},
		{"hash not hex", "d9cb", "d9xb", "not hexadecimal"},
		{"two spaces", "4 0000", "4  0000", "block hash of 65"},
		{"block without hash", "481824 " + goodAfter[13:77], "481824 " + strings.Repeat("0", 64),
			"all zeros"},
		{"fifth line", "9893\n", "9893\nmore\n", "block hash of 69"},
		{"too long", "9893\n", "9893\n" + strings.Repeat("x", 200), "the limit is 256"},
	} {
		t.Run(row.name, func(t *testing.T) {
			text := strings.Replace(goodEntry+goodAfter, row.old, row.new, 1)
			if text == goodEntry+goodAfter {
				t.Fatal("row changes nothing")
			}
			_, err := ParseEntry([]byte(text))
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want one with %q", err, row.want)
			}
		})
	}
}

func TestParseEntryRefusesEveryFlip(t *testing.T) {
	good, err := ParseEntry([]byte(goodEntry + goodAfter))
	if err != nil {
		t.Fatal(err)
	}
	text := []byte(goodEntry + goodAfter)
	for i := range text {
		for bit := range 8 {
			text[i] ^= 1 << bit
			// What still is an entry must be another one: no two spellings.
			if e, err := ParseEntry(text); err == nil && e == good {
				t.Errorf("octet %d, bit %d flipped: the same entry", i, bit)
			}
			text[i] ^= 1 << bit
		}
	}
}

func TestCommit(t *testing.T) {
	salt := [SaltSize]byte{1, 2, 3}
	event := []byte(`{"kind":"ReceivedFromNonERDS"}`)
	// RFC 2104 by hand: H(K xor opad, H(K xor ipad, text)).
	inner, outer := sha256.New(), sha256.New()
	var ipad, opad [64]byte
	copy(ipad[:], salt[:])
	copy(opad[:], salt[:])
	for i := range ipad {
		ipad[i] ^= 0x36
		opad[i] ^= 0x5c
	}
	inner.Write(ipad[:])
	inner.Write(event)
	outer.Write(opad[:])
	outer.Write(inner.Sum(nil))
	got := Commit(salt, event)
	if !hmac.Equal(got[:], outer.Sum(nil)) {
		t.Errorf("commitment %x, want %x", got, outer.Sum(nil))
	}
	e := Entry{Commitment: got}
	if !e.Commits(salt, event) {
		t.Error("entry does not commit to its own event")
	}
	salt[31] ^= 1
	if e.Commits(salt, event) {
		t.Error("entry commits with another salt")
	}
	salt[31] ^= 1
	event[0] ^= 1
	if e.Commits(salt, event) {
		t.Error("entry commits to another event")
	}
}

// TestCommitVector has what openssl makes of the same key and octets.
func TestCommitVector(t *testing.T) {
	var salt [SaltSize]byte
	for i := range salt {
		salt[i] = byte(i)
	}
	got := Commit(salt, []byte("Hi There"))
	// printf 'Hi There' | openssl dgst -sha256 -mac HMAC -macopt hexkey:000102...1f
	const want = "278639ec02309d3afded1b273f1349ba63b9089c12476d716bee3ecc94673e9e"
	if hex.EncodeToString(got[:]) != want {
		t.Errorf("commitment %x, want %s", got, want)
	}
}

func TestLeafHash(t *testing.T) {
	for _, n := range []int{0, 1, 62, MaxEntry, MaxEntry + 1, 5000} {
		entry := bytes.Repeat([]byte{'x'}, n)
		want := sha256.Sum256(append([]byte{0}, entry...))
		if got := LeafHash(entry); got != want {
			t.Errorf("leaf of %d octets: %v", n, got)
		}
	}
}

func FuzzEntry(f *testing.F) {
	f.Add([]byte(goodEntry))
	f.Add([]byte(goodEntry + goodAfter))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := ParseEntry(text)
		if err != nil {
			return
		}
		if again := e.AppendTo(nil); !bytes.Equal(again, text) {
			t.Errorf("read %q, wrote %q", text, again)
		}
	})
}

func BenchmarkEntry(b *testing.B) {
	b.ReportAllocs()
	e := Entry{Kind: mail.ReceivedFromNonERDS, Commitment: [32]byte{1, 2, 3}}
	buf := make([]byte, 0, MaxEntry)
	for b.Loop() {
		buf = e.AppendTo(buf[:0])
		LeafHash(buf)
	}
}
