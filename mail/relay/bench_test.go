//go:build unix

package relay

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/smtp"
)

// sinkVariable makes the test binary a server that takes all mail and keeps none: in a process of its own, so
// that the CPU time of the relay is its own. Its value is "plain" or "tls".
const sinkVariable = "TALLYPOST_RELAY_SINK"

func TestMain(m *testing.M) {
	if layer := os.Getenv(sinkVariable); layer != "" {
		if err := sink(layer); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// discard keeps nothing.
type discard struct{}

func (discard) Mail(context.Context, mail.Address, smtp.MailParams) error { return nil }
func (discard) Rcpt(context.Context, mail.Recipient) error                { return nil }
func (discard) Data(_ context.Context, r io.Reader) (smtp.Reply, error) {
	_, err := io.Copy(io.Discard, r)
	return smtp.Reply{}, err
}
func (discard) Reset()  {}
func (discard) Logout() {}

// sink serves until its standard input ends.
func sink(layer string) error {
	cfg := smtp.Config{Hostname: "sink.example",
		NewSession: func(context.Context, *smtp.Conn) (smtp.Session, error) { return discard{}, nil }}
	if layer == "tls" {
		var t testing.T
		cfg.TLS = newAuthority(&t).server(&t, "sink.example")
	}
	srv, err := smtp.NewServer(cfg)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return srv.Serve(ctx, ln)
}

func startSink(b *testing.B, layer string) netip.AddrPort {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), sinkVariable+"="+layer)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return netip.MustParseAddrPort(strings.TrimSpace(line))
}

// BenchmarkRelay hands messages to a server in another process over loopback, from 20 workers: DNS answers
// come from a caching client, MTA-STS and DANE are looked for. cpu-us/msg is the relay's process alone.
func BenchmarkRelay(b *testing.B) {
	for _, layer := range []string{"plain", "tls"} {
		for _, size := range []int{1 << 10, 10 << 10, 100 << 10} {
			b.Run(layer+"/"+strconv.Itoa(size>>10)+"KiB", func(b *testing.B) { benchmark(b, layer, size, 1) })
		}
	}
	b.Run("plain/10KiB/100domains", func(b *testing.B) { benchmark(b, "plain", 10<<10, 100) })
}

func benchmark(b *testing.B, layer string, size, domains int) {
	at := startSink(b, layer)
	zone := dns.MustZone(map[string][]string{"sink.example": {"A " + at.Addr().String()}})
	for i := range domains {
		zone.Set(fmt.Sprintf("d%d.example", i), "MX 10 sink.example")
	}
	srv, err := dns.Listen("127.0.0.1:0", zone)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go srv.Run(ctx)
	resolver, err := dns.NewClient(dns.Config{Servers: []string{srv.Addr().String()}})
	if err != nil {
		b.Fatal(err)
	}
	defer resolver.Close()
	r, err := New(Config{Hostname: "us.example", Port: int(at.Port()), MaxMessages: 1000, SiteWait: time.Minute}, resolver, clock.Real{},
		slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	text := sample(size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	begun := cpuTime()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for {
				n := left.Add(-1)
				if n < 0 {
					return
				}
				to := mail.Address{Local: "u", Domain: mail.Domain("d" + strconv.Itoa(int(n)%domains) + ".example")}
				d := &queue.Delivery{Route: r.Route(to), Size: int64(size), Body: bytes.NewReader(text),
					Envelope: mail.Envelope{From: mail.Address{Local: "a", Domain: "us.example"}, Recipients: []mail.Recipient{{Address: to}}}}
				if res := r.Deliver(ctx, d)[0]; res.Outcome != queue.Delivered {
					b.Errorf("%+v", res)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-begun)/float64(time.Microsecond)/float64(b.N), "cpu-us/msg")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// sample is a message of about this many octets.
func sample(size int) []byte {
	b := []byte("From: a@us.example\r\nTo: u@d.example\r\nSubject: sample\r\n\r\n")
	line := strings.Repeat("0123456789", 7) + "\r\n"
	for len(b) < size {
		b = append(b, line...)
	}
	return b[:size]
}
