package dkim

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/mail"
)

var keySets = map[string][]Key{"rsa": bothKeys[:1], "ed25519": bothKeys[1:], "both": bothKeys}

// sample is a message with a body of n KiB of text as people write it, and a header of usual
// length.
func sample(kib int) []byte {
	line := "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod te\r\n"
	body := strings.Repeat(line, kib<<10/len(line)+1)[:kib<<10-2] + "\r\n"
	return []byte("Received: from a.example by mx.example.org with ESMTPS id 1\r\n" +
		"\tfor <ben@example.net>; Sun, 22 Nov 2026 12:00:00 +0000\r\n" +
		"From: Ann <ann@example.org>\r\nTo: Ben <ben@example.net>\r\n" +
		"Subject: A message to measure with\r\n" +
		"Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1234.5678@example.org>\r\n" +
		"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + body)
}

func BenchmarkVerify(b *testing.B) {
	zone := keyZone(b, bothKeys...)
	for name, keys := range keySets {
		s := signer(b, SignConfig{Keys: keys})
		for _, kib := range []int{1, 10, 100} {
			msg := sample(kib)
			fields, err := s.Sign(msg, now)
			if err != nil {
				b.Fatal(err)
			}
			msg = append(fields, msg...)
			b.Run(fmt.Sprintf("%s/%dKiB", name, kib), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(msg)))
				for b.Loop() {
					h, err := mail.ParseHeader(msg)
					if err != nil {
						b.Fatal(err)
					}
					v := NewVerifier(context.Background(), zone, h, now, VerifyConfig{})
					v.Write(msg[h.Len:])
					if got := v.Finish(); got[0].State != Pass {
						b.Fatalf("%+v", got)
					}
				}
			})
		}
	}
}

func BenchmarkUnsigned(b *testing.B) {
	zone, msg := keyZone(b), sample(10)
	h, err := mail.ParseHeader(msg)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		v := NewVerifier(context.Background(), zone, h, now, VerifyConfig{})
		v.Write(msg[h.Len:])
		v.Finish()
	}
}

func BenchmarkSign(b *testing.B) {
	for name, keys := range keySets {
		s := signer(b, SignConfig{Keys: keys})
		for _, kib := range []int{1, 10, 100} {
			msg := sample(kib)
			b.Run(fmt.Sprintf("%s/%dKiB", name, kib), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(msg)))
				for b.Loop() {
					if _, err := s.Sign(msg, now); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkBody(b *testing.B) {
	body := sample(100)
	for c := range canons {
		b.Run(c.String(), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				h := newBodyHash(c)
				h.Write(body)
				h.sum()
			}
		})
	}
}
