package interop

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
)

// falseEnds are what some server takes, or has taken, for the end of a message: if another passes them on as
// they are, what follows becomes a message of its own, from anybody (CVE-2023-51764 to -51766).
var falseEnds = []string{
	"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\r.\n", "\n.\r",
	"\r\n\x00.\r\n", "\r\n.\x00\r\n", "\r\n\x00.\x00\r\n", "\n\n.\r\n", "\r\r\n.\r\r\n", "\r\n.\r\r\n",
	"\r\n .\r\n", "\r\n.\t\r\n", "\x0b.\x0b", "\x0c.\x0c", "\xc2\x85.\xc2\x85", "\xe2\x80\xa8.\xe2\x80\xa8",
}

// smuggled returns a message that hides a second one, with commands, behind a false end. The first begins
// with a field that tells which it is.
func smuggled(i int, to string) string {
	inner := fmt.Sprintf("MAIL FROM:<evil@elsewhere.test>\r\nRCPT TO:<%s>\r\nDATA\r\nX-End: inner %d\r\n"+
		"Subject: smuggled\r\n\r\nsecond\r\n", to, i)
	return fmt.Sprintf("X-End: outer %d\r\nFrom: ada@elsewhere.test\r\nSubject: first\r\n\r\nfirst", i) +
		falseEnds[i] + inner
}

// accepted matches the promise for a message, of any server.
var accepted = regexp.MustCompile(`(?m)^250 .*(queued|OK id=)`)

// sendSmuggled sends every message with a hidden one to a server, with DATA or BDAT, and returns how many
// messages the server took of each.
func sendSmuggled(t *testing.T, addr, to string, bdat bool) []int {
	t.Helper()
	took := make([]int, len(falseEnds))
	var wg sync.WaitGroup
	for i := range falseEnds {
		wg.Go(func() {
			conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			k := &talk{t: t, conn: conn, r: bufio.NewReader(conn)}
			conn.SetDeadline(time.Now().Add(30 * time.Second))
			for _, line := range []string{"", "EHLO client.test\r\n", "MAIL FROM:<ada@elsewhere.test>\r\n",
				"RCPT TO:<" + to + ">\r\n"} {
				io.WriteString(conn, line)
				if got, err := k.reply(); err != nil || got[0] != '2' {
					t.Errorf("%q: %q, %v", line, got, err)
					return
				}
			}
			text := smuggled(i, to)
			if bdat {
				fmt.Fprintf(conn, "BDAT %d LAST\r\n%s", len(text), text)
			} else {
				io.WriteString(conn, "DATA\r\n")
				k.reply()
				io.WriteString(conn, text+".\r\n")
			}
			took[i] = len(accepted.FindAllString(k.rest(700*time.Millisecond), -1))
		})
	}
	wg.Wait()
	return took
}

// inner matches the field of a message that was hidden, where it is not in the body of the one that hid it.
var inner = regexp.MustCompile(`^(?:.+\n)*X-End: inner (\d+)\n`)

// expectOneEach waits until no more letters come, and wants no more of them than messages were taken before:
// none that was hidden, unless the server before took it for one itself, and no octet that begins a line for
// some and not for others.
func expectOneEach(t *testing.T, mailbox func() []string, runs ...[]int) {
	t.Helper()
	promised := 0
	split := make([]bool, len(falseEnds))
	for _, took := range runs {
		for i, n := range took {
			promised += n
			split[i] = split[i] || n > 1
		}
	}
	before, since := 0, time.Now()
	eventually(15*time.Second, func() bool {
		if n := len(mailbox()); n != before {
			before, since = n, time.Now()
		}
		return time.Since(since) > 2*time.Second
	})
	if before == 0 || before > promised {
		t.Errorf("%d letters, %d messages were taken", before, promised)
	}
	for _, l := range mailbox() {
		if m := inner.FindStringSubmatch(l); m != nil {
			if i, err := strconv.Atoi(m[1]); err != nil || !split[i] {
				t.Errorf("a smuggled letter:\n%.1000q", l)
			}
		}
		if strings.ContainsAny(l, "\r\x00") {
			t.Errorf("a bare CR or a NUL:\n%.1000q", l)
		}
	}
}

// TestSmuggleIn sends messages that hide others straight to the node.
func TestSmuggleIn(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{})
	data, bdat := sendSmuggled(t, s.smtp, user, false), sendSmuggled(t, s.smtp, user, true)
	for i := range falseEnds {
		if data[i] > 1 || bdat[i] > 1 {
			t.Errorf("%q: %d messages of one with DATA, %d with BDAT", falseEnds[i], data[i], bdat[i])
		}
	}
	expectOneEach(t, s.letters, data, bdat)
}

// TestSmuggleByOthers has another server, as gullible as it still can be made, relay such messages to the
// node: there must not be more letters here than it took itself.
func TestSmuggleByOthers(t *testing.T) {
	forOthers(t, func(t *testing.T, start func(otherConfig) *other) {
		s := startSite(t, siteConfig{})
		o := start(otherConfig{smarthost: s.smtp, gullible: true, noBDAT: true})
		took := sendSmuggled(t, o.addr, user, false)
		t.Logf("messages that %s took: %v", o.name, took)
		expectOneEach(t, s.letters, took)
	})
}

// TestSmuggleToOthers has the node relay such messages to another server that is as gullible as it still can
// be made.
func TestSmuggleToOthers(t *testing.T) {
	forOthers(t, func(t *testing.T, start func(otherConfig) *other) {
		o := start(otherConfig{gullible: true, noBDAT: true})
		s := startSite(t, siteConfig{zone: zoneOf(t, o), smtp: trustLoopback, relay: portOf(t, o)})
		const to = "box@remote.test"
		expectOneEach(t, o.letters, sendSmuggled(t, s.smtp, to, false), sendSmuggled(t, s.smtp, to, true))
	})
}

// TestNothingStrayLeaves records every octet that the node sends to the next server.
func TestNothingStrayLeaves(t *testing.T) {
	t.Parallel()
	for _, chunking := range []bool{false, true} {
		sink := newRecorder(t, chunking)
		host, port := hostPort(t, sink.addr)
		zone := dns.MustZone(map[string][]string{"remote.test": {"MX 1 mx.remote.test."}, "mx.remote.test": {"A " + host}})
		s := startSite(t, siteConfig{zone: zone, smtp: trustLoopback, relay: "port = " + port})
		took := 0
		for _, n := range append(sendSmuggled(t, s.smtp, "box@remote.test", false),
			sendSmuggled(t, s.smtp, "box@remote.test", true)...) {
			took += n
		}
		post(t, s.smtp, letter{from: "ada@elsewhere.test", to: []string{"box@remote.test"}, text: "Subject: last\r\n\r\nlast\r\n"})
		if !eventually(15*time.Second, func() bool { return sink.messages() >= took+1 }) {
			t.Fatalf("%d messages left, want %d; the queue:\n%s", sink.messages(), took+1, s.run("queue", "list"))
		}
		sink.mu.Lock()
		all := sink.octets.Bytes()
		for at := range all {
			switch {
			case all[at] == 0, all[at] == '\r' && (at+1 == len(all) || all[at+1] != '\n'),
				all[at] == '\n' && (at == 0 || all[at-1] != '\r'):
				t.Errorf("chunking %t: %q left the node: %.200q", chunking, all[at], all[max(0, at-80):])
			}
		}
		sink.mu.Unlock()
	}
}

// recorder is a server that takes everything and keeps every octet.
type recorder struct {
	addr string

	mu     sync.Mutex // guards what follows
	octets bytes.Buffer
	count  int
}

// newRecorder starts one. It ends with the test, as do its connections.
func newRecorder(t *testing.T, chunking bool) *recorder {
	t.Helper()
	ln, err := net.Listen("tcp", freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	rec := &recorder{addr: ln.Addr().String()}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go rec.serve(conn, chunking)
		}
	}()
	return rec
}

func (rec *recorder) messages() int {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return rec.count
}

// serve answers one connection.
func (rec *recorder) serve(conn net.Conn, chunking bool) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	r := bufio.NewReader(conn)
	extensions := "250-sink.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
	if chunking {
		extensions = strings.Replace(extensions, "250 8BITMIME", "250-CHUNKING\r\n250 8BITMIME", 1)
	}
	io.WriteString(conn, "220 sink.test\r\n")
	for {
		line, err := r.ReadString('\n')
		rec.keep([]byte(line), false)
		var chunk int
		verb := strings.ToUpper(line)
		switch {
		case err != nil:
			return
		case strings.HasPrefix(verb, "EHLO"):
			io.WriteString(conn, extensions)
		case strings.HasPrefix(verb, "DATA"):
			io.WriteString(conn, "354 go on\r\n")
			for line != ".\r\n" && err == nil {
				line, err = r.ReadString('\n')
				rec.keep([]byte(line), line == ".\r\n")
			}
			io.WriteString(conn, "250 taken\r\n")
		case strings.HasPrefix(verb, "BDAT"):
			fmt.Sscanf(verb, "BDAT %d", &chunk)
			b := make([]byte, chunk)
			if _, err := io.ReadFull(r, b); err != nil {
				return
			}
			rec.keep(b, strings.Contains(verb, "LAST"))
			io.WriteString(conn, "250 taken\r\n")
		default:
			io.WriteString(conn, "250 yes\r\n")
		}
	}
}

func (rec *recorder) keep(b []byte, end bool) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.octets.Write(b)
	if end {
		rec.count++
	}
}
