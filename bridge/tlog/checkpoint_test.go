package tlog

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

const testOrigin = "mail.example.org/tlog"

func newSigner(t testing.TB, origin string) *Signer {
	t.Helper()
	skey, err := GenerateKey(origin)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCheckpointSignAndOpen(t *testing.T) {
	s := newSigner(t, testOrigin)
	for _, c := range []Checkpoint{
		{testOrigin, 0, EmptyRoot()},
		{testOrigin, 1, Hash{1}},
		{testOrigin, MaxSize, Hash{2}},
	} {
		signed, err := c.Sign(s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := OpenCheckpoint(signed, s.Verifier())
		if err != nil || got != c {
			t.Errorf("read %+v, %v, want %+v", got, err, c)
		}
	}
	if _, err := (Checkpoint{Origin: "other"}).Sign(s); err == nil {
		t.Error("signed a checkpoint of another origin")
	}
}

func TestOpenCheckpointIgnoresWitnesses(t *testing.T) {
	s, w := newSigner(t, testOrigin), newSigner(t, "witness.example")
	c := Checkpoint{testOrigin, 7, Hash{1}}
	signed, err := note.Sign(&note.Note{Text: c.Text()}, w, s)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenCheckpoint(signed, s.Verifier()); err != nil || got != c {
		t.Errorf("read %+v, %v", got, err)
	}
}

// TestOpenCheckpointRefusesText signs texts that are no checkpoint of ours.
func TestOpenCheckpointRefusesText(t *testing.T) {
	s := newSigner(t, testOrigin)
	good := Checkpoint{testOrigin, 12, Hash{1, 2, 3}}.Text()
	root := Hash{1, 2, 3}.String()
	for _, row := range []struct{ name, old, new, want string }{
		{"other origin", testOrigin, "mail.example.net/tlog", "signed with the key of"},
		{"no origin", testOrigin, "", "empty origin"},
		{"leading zero", "\n12\n", "\n012\n", "without leading zeros"},
		{"sign", "\n12\n", "\n+12\n", "without leading zeros"},
		{"no size", "\n12\n", "\n\n", "without leading zeros"},
		{"huge size", "\n12\n", "\n1152921504606846977\n", "limit"},
		{"overflow", "\n12\n", "\n18446744073709551616\n", "without leading zeros"},
		{"empty tree with a root", "\n12\n", "\n0\n", "empty tree"},
		{"short root", root, root[:40], "root"},
		{"loose bits", "AAA=", "AAB=", "root"},
		{"extension line", root, root + "\nmore", "4 lines"},
		{"two lines", root + "\n", "", "2 lines"},
	} {
		t.Run(row.name, func(t *testing.T) {
			text := strings.Replace(good, row.old, row.new, 1)
			if text == good {
				t.Fatal("row changes nothing")
			}
			signed, err := note.Sign(&note.Note{Text: text}, s)
			if err != nil {
				t.Fatal(err)
			}
			_, err = OpenCheckpoint(signed, s.Verifier())
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want one with %q", err, row.want)
			}
		})
	}
}

func TestOpenCheckpointRefusesNote(t *testing.T) {
	s := newSigner(t, testOrigin)
	signed, err := Checkpoint{testOrigin, 12, Hash{1}}.Sign(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCheckpoint(signed, newSigner(t, testOrigin).Verifier()); err == nil ||
		!strings.Contains(err.Error(), "no signature by") {
		t.Errorf("with another key of the same name: %v", err)
	}
	if _, err := OpenCheckpoint(signed, newSigner(t, "other").Verifier()); err == nil {
		t.Error("with a key of another name: no error")
	}
	huge := append([]byte(nil), signed...)
	for len(huge) <= MaxCheckpoint {
		huge = append(huge, "— x AAAAAAAA\n"...)
	}
	_, err = OpenCheckpoint(huge, s.Verifier())
	if err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("huge note: %v", err)
	}
	text, sig, _ := bytes.Cut(signed, []byte("\n\n"))
	for name, bad := range map[string][]byte{
		"empty": nil, "unsigned": text, "only signature": sig,
		"no line end": signed[:len(signed)-1],
		"CRLF":        bytes.ReplaceAll(signed, []byte("\n"), []byte("\r\n")),
	} {
		if _, err := OpenCheckpoint(bad, s.Verifier()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestOpenCheckpointRefusesEveryFlip(t *testing.T) {
	s := newSigner(t, testOrigin)
	signed, err := Checkpoint{testOrigin, 12, Hash{1}}.Sign(s)
	if err != nil {
		t.Fatal(err)
	}
	for i := range signed {
		for bit := range 8 {
			signed[i] ^= 1 << bit
			if _, err := OpenCheckpoint(signed, s.Verifier()); err == nil {
				t.Errorf("octet %d, bit %d flipped: accepted", i, bit)
			}
			signed[i] ^= 1 << bit
		}
	}
}

func TestKeys(t *testing.T) {
	skey, err := GenerateKey(testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	v, err := ParseVerifier(s.Verifier().String())
	if err != nil || v.String() != s.Verifier().String() || v.Name() != testOrigin {
		t.Errorf("verifier %v, %v", v, err)
	}
	for _, bad := range []string{"", "x", skey[:len(skey)-1], skey + "x", strings.Replace(skey,
		"mail", "male", 1),
		s.Verifier().String(), strings.Repeat("x", 1000)} {
		_, err := ParseSigner(bad)
		if err == nil {
			t.Errorf("signing key %q accepted", bad)
		} else if strings.Contains(err.Error(), skey[len(skey)-20:]) {
			t.Error("error repeats the key")
		}
	}
	vkey := v.String()
	for i := range vkey {
		for bit := range 7 {
			b := []byte(vkey)
			b[i] ^= 1 << bit
			if got, err := ParseVerifier(string(b)); err == nil {
				t.Errorf("octet %d, bit %d flipped: read as %s, was %s", i, bit, got, vkey)
			}
		}
	}
	for _, bad := range []string{"", "a b", "a+b", "a#b", "a\nb", "ä", strings.Repeat("a", 256)} {
		if _, err := GenerateKey(bad); err == nil {
			t.Errorf("origin %q accepted", bad)
		}
	}
}

func FuzzCheckpoint(f *testing.F) {
	s,
		err := ParseSigner("PRIVATE+KEY+mail.example.org/tlog+d5dc1387+" +
		"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range []Checkpoint{{testOrigin, 0, EmptyRoot()}, {testOrigin, 12, Hash{1}}} {
		signed, err := c.Sign(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(signed)
	}
	f.Fuzz(func(t *testing.T, signed []byte) {
		c, err := OpenCheckpoint(signed, s.Verifier())
		if err == nil && !bytes.HasPrefix(signed, []byte(c.Text()+"\n")) {
			t.Errorf("%q read as %+v", signed, c)
		}
		// The parser of the text gets past the signature here, as the fuzzer can not sign.
		if c, err := parseCheckpointText(string(signed)); err == nil && c.Text() != string(signed) {
			t.Errorf("%q read as %+v", signed, c)
		}
	})
}

func BenchmarkSignCheckpoint(b *testing.B) {
	s := newSigner(b, testOrigin)
	for b.Loop() {
		if _, err := (Checkpoint{testOrigin, 12, Hash{1}}).Sign(s); err != nil {
			b.Fatal(err)
		}
	}
}
