package dkim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"testing"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
)

// FuzzTags: a list that is read has tags that can be found again where they stand.
func FuzzTags(f *testing.F) {
	f.Add("v=1; a=rsa-sha256;\r\n\tb=AAAA==; h=From : To")
	f.Add(";;=;")
	f.Fuzz(func(t *testing.T, s string) {
		list, err := parseTags(s)
		if err != nil {
			return
		}
		for _, tag := range list {
			v, ok := list.get(tag.name)
			if !ok || v != trimFWS(s[tag.start:tag.end]) {
				t.Errorf("tag %s of %q: %q", tag.name, s, v)
			}
			list.base64(tag.name)
			list.number(tag.name)
		}
	})
}

// FuzzKeyRecord: a record that is read has a key that can be asked.
func FuzzKeyRecord(f *testing.F) {
	f.Add("v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
	f.Add(record(f, rsa1024))
	digest := sha256.Sum256(nil)
	f.Fuzz(func(t *testing.T, s string) {
		k, p := parseKey(s)
		if p == nil && k.verify(digest[:], make([]byte, 64)) {
			t.Errorf("%q verifies zeros", s)
		}
	})
}

// FuzzCanon: canonical forms are canonical, and bodies hash alike however they are cut.
func FuzzCanon(f *testing.F) {
	f.Add("A : b\r\n\t c \r\n", "x \r\n\r\n y\r\r\n", uint8(1))
	f.Fuzz(func(t *testing.T, field, body string, step uint8) {
		h, _ := mail.ParseHeader([]byte(field))
		for _, fl := range h.Fields {
			for c := range canons {
				once := appendField(nil, fl.Raw, c)
				if twice := appendField(nil, once, c); !bytes.Equal(once, twice) {
					t.Errorf("%q, %v: %q, then %q", fl.Raw, c, once, twice)
				}
			}
		}
		for c := range canons {
			whole, cut := newBodyHash(c), newBodyHash(c)
			whole.Write([]byte(body))
			for rest := []byte(body); len(rest) > 0; {
				n := min(int(step)+1, len(rest))
				cut.Write(rest[:n])
				rest = rest[n:]
			}
			if !bytes.Equal(whole.sum(), cut.sum()) {
				t.Errorf("%q, %v: cut by %d it hashes otherwise", body, c, int(step)+1)
			}
		}
	})
}

// FuzzVerify: no message makes DKIM or ARC say pass without a key, or break.
func FuzzVerify(f *testing.F) {
	f.Add([]byte("DKIM-Signature: v=1; a=ed25519-sha256; d=a.b; s=c; h=From; bh=" +
		"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\nFrom: x\r\n\r\n"))
	f.Add([]byte("ARC-Seal: i=1; cv=none; a=rsa-sha256; d=a.b; s=c; b=AAAA\r\n" +
		"ARC-Message-Signature: i=1; a=rsa-sha256; d=a.b; s=c; h=From; bh=AAAA; b=AAAA\r\n" +
		"ARC-Authentication-Results: i=1; x\r\n\r\n"))
	zone := new(dns.Zone)
	f.Fuzz(func(t *testing.T, msg []byte) {
		h, err := mail.ParseHeader(msg)
		if err != nil {
			return
		}
		v := NewVerifier(context.Background(), zone, h, now, VerifyConfig{})
		v.Write(msg[h.Len:])
		for _, r := range v.Finish() {
			if r.State == Pass || r.State == "" || r.Reason == "" {
				t.Errorf("%+v", r)
			}
			mail.AuthResults{ServID: "x", Results: []mail.AuthResult{r.AuthResult()}}.Value()
		}
		if s := v.ARC().State; s != None && s != Fail {
			t.Errorf("ARC %+v", v.ARC())
		}
	})
}
