package tlog

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
)

// sampleProof returns a proof of leaf 7 in a tree of 13, and the key.
func sampleProof(t testing.TB) (*Proof, Hash, *Verifier) {
	t.Helper()
	var g grown
	g.add(13)
	s := newSigner(t, testOrigin)
	signed, err := Checkpoint{testOrigin, 13, g.edge.Root()}.Sign(s)
	if err != nil {
		t.Fatal(err)
	}
	hashes, err := ProveInclusion(7, 13, g.read)
	if err != nil {
		t.Fatal(err)
	}
	return &Proof{Index: 7, Hashes: hashes, Checkpoint: signed}, g.leaves[7], s.Verifier()
}

func TestProofFile(t *testing.T) {
	p, leaf, v := sampleProof(t)
	for _, extra := range [][]byte{nil, {}, []byte("x"), bytes.Repeat([]byte("x"), maxExtra)} {
		p.Extra = extra
		text := p.Marshal()
		if len(text) > MaxProof {
			t.Errorf("proof with %d octets of extra data has %d", len(extra), len(text))
		}
		got, err := ParseProof(text)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Marshal(), text) || !bytes.Equal(got.Extra, extra) {
			t.Errorf("read and wrote %q", got.Marshal())
		}
		c, err := got.Verify(leaf, v)
		if err != nil || c.Size != 13 {
			t.Errorf("%+v, %v", c, err)
		}
	}
	leaf[0] ^= 1
	if _, err := p.Verify(leaf, v); err == nil {
		t.Error("proof holds for another leaf")
	}
}

func TestParseProofRefuses(t *testing.T) {
	p, _, _ := sampleProof(t)
	p.Extra = []byte("extra")
	good := string(p.Marshal())
	hash := p.Hashes[0].String()
	for _, row := range []struct{ name, old, new, want string }{
		{"version", "@v1", "@v2", "does not begin"},
		{"no header", proofHeader, "", "does not begin"},
		{"CRLF", "@v1\n", "@v1\r\n", "does not begin"},
		{"extra not base 64", "extra ", "extra !", "extra line"},
		{"loose bits in extra", "ZXh0cmE=", "ZXh0cmF=", "extra line"},
		{"huge extra", "ZXh0cmE=", strings.Repeat("AAAA", maxExtra), "limit"},
		{"long extra", "ZXh0cmE=", strings.Repeat("AAAA", 22_000), "more than 65536"},
		{"two extra lines", "extra ", "extra AAAA\nextra ", "where the index should be"},
		{"no index", "index 7\n", "", "where the index should be"},
		{"leading zero", "index 7", "index 07", "without leading zeros"},
		{"sign", "index 7", "index -7", "without leading zeros"},
		{"overflow", "index 7", "index 18446744073709551616", "without leading zeros"},
		{"short hash", hash, hash[1:], "line 1 of the hashes"},
		{"hash not base 64", hash, "!" + hash[1:], "line 1 of the hashes"},
		{"too many hashes", hash + "\n", strings.Repeat(hash+"\n", 64), "more than 63"},
		{"no checkpoint", "\n\n" + string(p.Checkpoint), "\n", "no empty line"},
	} {
		t.Run(row.name, func(t *testing.T) {
			text := strings.Replace(good, row.old, row.new, 1)
			if text == good {
				t.Fatal("row changes nothing")
			}
			_, err := ParseProof([]byte(text))
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want one with %q", err, row.want)
			}
		})
	}
}

func TestProofRefusesEveryFlip(t *testing.T) {
	p, leaf, v := sampleProof(t)
	text := p.Marshal()
	for i := range text {
		for bit := range 8 {
			text[i] ^= 1 << bit
			if p, err := ParseProof(text); err == nil {
				if _, err := p.Verify(leaf, v); err == nil {
					t.Errorf("octet %d, bit %d flipped: accepted", i, bit)
				}
			}
			text[i] ^= 1 << bit
		}
	}
}

func FuzzProof(f *testing.F) {
	p, leaf, v := sampleProof(f)
	f.Add(p.Marshal())
	f.Add([]byte(proofHeader + "extra " + base64.StdEncoding.EncodeToString([]byte("x")) +
		"\nindex 0\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParseProof(text)
		if err != nil {
			return
		}
		if again := p.Marshal(); !bytes.Equal(again, text) {
			t.Errorf("read %q, wrote %q", text, again)
		}
		p.Verify(leaf, v)
	})
}
