package intake

import (
	"bytes"
	netsmtp "net/smtp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/dkim"
)

// BenchmarkSubmission measures messages of 10 KiB through the real server into a queue in memory,
// each goroutine on a connection of its own. The clients run on the same processors.
//
//	go test ./mail/intake -run '^$' -bench Submission
func BenchmarkSubmission(b *testing.B) {
	text := strings.ReplaceAll(whole+strings.Repeat("0123456789 abcdefghijklmnopqrstuvwxyz\n", 270), "\n", "\r\n")
	for name, start := range map[string]func(testing.TB, func(*Config)) *office{
		"unsigned": newOffice, "signed": newSigningOffice} {
		b.Run(name, func(b *testing.B) {
			o := start(b, nil)
			go func() {
				for range o.arrived { // nobody looks at what leaves
				}
			}()
			b.SetParallelism(10)
			b.SetBytes(int64(len(text)))
			var failed atomic.Value
			cpu := cpuTime(b)
			b.RunParallel(func(pb *testing.PB) {
				c, err := o.dial("ada@here.example")
				for err == nil && pb.Next() {
					err = sendOne(c, text)
				}
				if err != nil {
					failed.Store(err)
				}
			})
			if err := failed.Load(); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

// cpuTime is what this process has had of the processors so far: on a machine that does other
// things as well, only that says what a message costs.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func sendOne(c *netsmtp.Client, text string) error {
	if err := c.Mail("ada@here.example"); err != nil {
		return err
	}
	if err := c.Rcpt("carl@there.example"); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(text)); err != nil {
		return err
	}
	return w.Close()
}

// BenchmarkSigning is the cost of the signatures alone, of a message of 10 KiB.
func BenchmarkSigning(b *testing.B) {
	o := newOffice(b, nil)
	msg := []byte(strings.ReplaceAll(whole, "\n", "\r\n"))
	msg = append(msg, bytes.Repeat([]byte("0123456789 abcdefghijklmnopqrstuvwxyz\r\n"), 262)...)
	for name, key := range o.keys("here.example") {
		s, err := dkim.NewSigner(dkim.SignConfig{Keys: []dkim.Key{key}})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) { signMany(b, s, msg) })
	}
	s := o.signer("here.example")
	b.Run("both", func(b *testing.B) { signMany(b, s, msg) })
}

func signMany(b *testing.B, s *dkim.Signer, msg []byte) {
	b.ReportAllocs()
	cpu := cpuTime(b)
	for b.Loop() {
		h, err := mail.ParseHeader(msg)
		if err != nil {
			b.Fatal(err)
		}
		g, err := s.Begin(h, noon)
		if err != nil {
			b.Fatal(err)
		}
		g.Write(msg[h.Len:])
		if _, err := g.Finish(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
}
