package secp

import (
	"encoding/binary"
	"fmt"
	"testing"
)

func forEachEngineBench(b *testing.B, run func(b *testing.B, e Engine)) {
	for _, name := range []string{"native", "decred", "plain"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			run(b, engines[name])
		})
	}
}

func BenchmarkVerifyECDSA(b *testing.B) {
	k := key(b, 9)
	pub := k.PublicKey().Compressed()
	digest := [32]byte{1}
	rs := k.SignECDSA(&digest, true)
	der := AppendDER(nil, &rs)
	forEachEngineBench(b, func(b *testing.B, e Engine) {
		for b.Loop() {
			if !VerifyECDSA(e, pub[:], &digest, der) {
				b.Fatal("does not verify")
			}
		}
	})
}

func schnorrSignatures(b testing.TB, n int) []SchnorrSignature {
	out := make([]SchnorrSignature, n)
	for i := range out {
		var secret [32]byte
		binary.BigEndian.PutUint32(secret[4:], uint32(i+1))
		k, err := ParsePrivateKey(&secret)
		if err != nil {
			b.Fatal(err)
		}
		out[i].Key = k.PublicKey().XOnly()
		binary.BigEndian.PutUint32(out[i].Message[:], uint32(i))
		if out[i].Signature, err = k.SignSchnorr(out[i].Message[:], new([32]byte)); err != nil {
			b.Fatal(err)
		}
	}
	return out
}

func BenchmarkVerifySchnorr(b *testing.B) {
	s := schnorrSignatures(b, 1)[0]
	forEachEngineBench(b, func(b *testing.B, e Engine) {
		for b.Loop() {
			if !e.VerifySchnorr(&s.Key, s.Message[:], &s.Signature) {
				b.Fatal("does not verify")
			}
		}
	})
}

func BenchmarkVerifySchnorrBatch(b *testing.B) {
	for _, n := range []int{2, 16, 32, 128, 512, 2048} {
		batch := schnorrSignatures(b, n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			var e Engine = Native{}
			for b.Loop() {
				if !e.VerifySchnorrBatch(batch, &[32]byte{1}) {
					b.Fatal("does not verify")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/signature")
		})
	}
}

func BenchmarkVerifyTweak(b *testing.B) {
	internal := key(b, 9).PublicKey().XOnly()
	tweak := TapTweak(&internal, nil)
	p, err := LiftX(&internal)
	if err != nil {
		b.Fatal(err)
	}
	q, err := p.AddTweak(&tweak)
	if err != nil {
		b.Fatal(err)
	}
	output := q.XOnly()
	forEachEngineBench(b, func(b *testing.B, e Engine) {
		for b.Loop() {
			if !e.VerifyTweak(&output, q.Odd(), &internal, &tweak) {
				b.Fatal("does not verify")
			}
		}
	})
}

func BenchmarkField(b *testing.B) {
	x := field{1, 2, 3, 4}
	x.cubePlus7(&x)
	y := x
	b.Run("mul", func(b *testing.B) {
		for b.Loop() {
			x.mul(&x, &y)
		}
	})
	b.Run("square", func(b *testing.B) {
		for b.Loop() {
			x.square(&x)
		}
	})
	b.Run("add", func(b *testing.B) {
		for b.Loop() {
			x.add(&x, &y)
		}
	})
	b.Run("half", func(b *testing.B) {
		for b.Loop() {
			x.half(&x)
		}
	})
	b.Run("invert", func(b *testing.B) {
		for b.Loop() {
			x.normalize()
			x = fieldModulus.invert(x)
		}
	})
	b.Run("sqrt", func(b *testing.B) {
		for b.Loop() {
			x.sqrt(&x)
		}
	})
	p := generator.jacobian()
	p.double(&p)
	b.Run("double", func(b *testing.B) {
		for b.Loop() {
			p.double(&p)
		}
	})
	b.Run("addAffine", func(b *testing.B) {
		for b.Loop() {
			p.addAffine(&p, &generator)
		}
	})
	q := p
	q.double(&q)
	b.Run("addJacobian", func(b *testing.B) {
		for b.Loop() {
			p.add(&p, &q)
		}
	})
}
