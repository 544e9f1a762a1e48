//go:build unix

package smtp

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// discard accepts all and keeps nothing: what is measured is the wire.
type discard struct{}

func (discard) Mail(context.Context, mail.Address, MailParams) error { return nil }
func (discard) Rcpt(context.Context, mail.Recipient) error           { return nil }
func (discard) Data(_ context.Context, r io.Reader) (Reply, error) {
	_, err := io.Copy(io.Discard, r)
	return Reply{}, err
}
func (discard) Reset()  {}
func (discard) Logout() {}

func discardConfig() Config {
	return Config{Hostname: "mx.example.com",
		NewSession: func(context.Context, *Conn) (Session, error) { return discard{}, nil }}
}

// sample is a message of about this many octets.
func sample(size int) []byte {
	b := []byte("From: a@example.org\r\nTo: b@example.com\r\nSubject: sample\r\n\r\n")
	line := strings.Repeat("0123456789", 7) + "\r\n"
	for len(b) < size {
		b = append(b, line...)
	}
	return b
}

var benchSizes = []int{1 << 10, 10 << 10, 100 << 10}

// BenchmarkEngine is the server's own work for a message, without kernel and client.
func BenchmarkEngine(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(strconv.Itoa(size>>10)+"KiB", func(b *testing.B) {
			s, err := NewServer(discardConfig())
			if err != nil {
				b.Fatal(err)
			}
			p := &played{left: b.N, steps: [][]byte{[]byte("EHLO c\r\n"),
				[]byte("MAIL FROM:<alice@example.org> SIZE=12345 BODY=8BITMIME\r\n" +
					"RCPT TO:<bob@example.com>\r\nDATA\r\n")}}
			for msg := sample(size); len(msg) > 0; {
				n := min(len(msg), 16<<10)
				p.steps = append(p.steps, msg[:n])
				msg = msg[n:]
			}
			p.steps = append(p.steps, []byte(".\r\n"))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			v := &serving{Server: s, ctx: context.Background()}
			newConn(v, p).serve()
		})
	}
}

// BenchmarkServer sends messages over loopback; the client, which is in the same process, does next
// to nothing but system calls. cpu-us/msg is both.
func BenchmarkServer(b *testing.B) {
	for _, layer := range []string{"plain", "tls"} {
		for _, size := range benchSizes {
			b.Run(fmt.Sprintf("%s/%dKiB", layer, size>>10), func(b *testing.B) {
				cfg := discardConfig()
				if layer == "tls" {
					cfg.TLS, cfg.ImplicitTLS = serverTLS, true
				}
				blast(b, start(b, cfg), sample(size), layer == "tls")
			})
		}
	}
}

// blast sends b.N messages, waiting for 354 and for the last reply of each.
func blast(b *testing.B, addr string, msg []byte, overTLS bool) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	if overTLS {
		conn = tls.Client(conn, clientTLS)
	}
	buf := make([]byte, 4<<10)
	await := func(want string) {
		var got []byte
		for !bytes.Contains(got, []byte(want)) {
			n, err := conn.Read(buf)
			if err != nil {
				b.Fatal(err)
			}
			got = append(got[:0], buf[:n]...)
		}
	}
	await("220 ")
	io.WriteString(conn, "EHLO c\r\n")
	await("250 ")
	head := []byte("MAIL FROM:<alice@example.org> SIZE=12345\r\n" +
		"RCPT TO:<bob@example.com>\r\nDATA\r\n")
	body := append(append([]byte(nil), msg...), ".\r\n"...)
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	before := cpuTime()
	for b.Loop() {
		conn.Write(head)
		await("354 ")
		conn.Write(body)
		await("250 2.0.0")
	}
	reportCPU(b, before)
}

func reportCPU(b *testing.B, before time.Duration) {
	used := float64((cpuTime() - before).Microseconds())
	b.ReportMetric(used/float64(b.N), "cpu-us/msg")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkClient sends with our client to our server.
func BenchmarkClient(b *testing.B) {
	for _, mode := range []string{"bdat", "data"} {
		for _, size := range benchSizes {
			b.Run(fmt.Sprintf("%s/%dKiB", mode, size>>10), func(b *testing.B) {
				c := connect(b, start(b, discardConfig()), ClientConfig{NoChunking: mode == "data"})
				env := envelope(b, "a@example.org", "b@example.com")
				msg := sample(size)
				body := bytes.NewReader(msg)
				ctx := context.Background()
				b.SetBytes(int64(len(msg)))
				b.ReportAllocs()
				before := cpuTime()
				for b.Loop() {
					if _, err := c.Send(ctx, env, body, int64(len(msg))); err != nil {
						b.Fatal(err)
					}
				}
				reportCPU(b, before)
			})
		}
	}
}

// BenchmarkIdle reports the resident memory of a connection that has said EHLO and waits. The
// clients are in the same process, but for the goroutine they are bare sockets without buffers.
func BenchmarkIdle(b *testing.B) {
	for _, layer := range []string{"plain", "tls"} {
		b.Run(layer, func(b *testing.B) {
			const conns = 1000
			cfg := discardConfig()
			if layer == "tls" {
				cfg.TLS, cfg.ImplicitTLS = serverTLS, true
			}
			addr := start(b, cfg)
			idle := make([]net.Conn, 0, conns)
			before := resident(b)
			for range conns {
				idle = append(idle, greet(b, addr, layer == "tls"))
			}
			for b.Loop() {
			}
			b.ReportMetric(float64(resident(b)-before)/conns/1024, "KiB/conn")
			for _, c := range idle {
				c.Close()
			}
		})
	}
}

// greet opens a connection and says EHLO. Of a TLS client nothing is kept but the socket.
func greet(b *testing.B, addr string, overTLS bool) net.Conn {
	sock, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	conn := sock
	if overTLS {
		conn = tls.Client(sock, clientTLS)
	}
	buf := make([]byte, 1<<10)
	for _, line := range []string{"", "EHLO c\r\n"} {
		io.WriteString(conn, line)
		if _, err := conn.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
	return sock
}

// resident is the memory of this process in RAM.
func resident(b *testing.B) int64 {
	runtime.GC()
	debug.FreeOSMemory()
	f, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Skip("no /proc here")
	}
	pages, err := strconv.ParseInt(strings.Fields(string(f))[1], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
