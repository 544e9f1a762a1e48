package interop

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
)

// memory returns a figure of /proc/PID/status of the node, in octets: VmRSS is what it holds, VmHWM the most
// that it ever held.
func (s *site) memory(field string) int64 {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Skip(err)
	}
	_, rest, _ := strings.Cut(string(b), field+":")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return kib << 10
}

// TestBadClients lets clients do what clients must not. The node answers what is due, loses nothing, and
// remains small; after each a good client is served.
func TestBadClients(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{relay: noLimits})
	good := letter{from: "ada@elsewhere.test", to: []string{user}, text: "Subject: good\r\n\r\ngood\r\n"}
	wanted := 0 // letters in the inbox
	for _, c := range []struct {
		name  string
		takes int // letters that it hands over well
		play  func(t *testing.T, k *talk)
	}{
		{"reset within a message", 0, func(t *testing.T, k *talk) {
			k.begin(user)
			k.say("DATA", "354")
			k.write("Subject: half\r\n\r\nhalf")
			k.conn.(*net.TCPConn).SetLinger(0)
			k.conn.Close()
		}},
		{"half-closed within a message", 0, func(t *testing.T, k *talk) {
			k.begin(user)
			k.say("DATA", "354")
			k.write("Subject: half\r\n\r\nhalf\r\n")
			k.conn.(*net.TCPConn).CloseWrite()
			if got := k.rest(10 * time.Second); strings.HasPrefix(got, "250") {
				t.Errorf("half a message was taken: %q", got)
			}
		}},
		{"half-closed behind a message", 1, func(t *testing.T, k *talk) {
			k.begin(user)
			k.say("DATA", "354")
			k.write("Subject: whole\r\n\r\nwhole\r\n.\r\n")
			k.conn.(*net.TCPConn).CloseWrite()
			k.expect("250")
		}},
		{"gone before the reply to a message", 1, func(t *testing.T, k *talk) {
			k.begin(user)
			k.say("DATA", "354")
			k.write("Subject: whole\r\n\r\nwhole\r\n.\r\n")
			k.conn.Close()
		}},
		{"commands behind STARTTLS", 0, func(t *testing.T, k *talk) {
			k.say("EHLO client.test", "250")
			k.write("STARTTLS\r\nMAIL FROM:<evil@elsewhere.test>\r\nRCPT TO:<" + user + ">\r\n")
			if got := k.rest(2 * time.Second); strings.Contains(got, "250") {
				t.Errorf("commands from before TLS were done: %q", got)
			}
		}},
		{"speaks without being asked", 0, func(t *testing.T, k *talk) {
			k.say("EHLO client.test", "250")
			k.write("DATA\r\nSubject: early\r\n\r\n.\r\nMAIL FROM:<a@b.test>\r\n")
			if got := k.rest(2 * time.Second); strings.Contains(got, "\n250") {
				t.Errorf("a message without recipients was taken: %q", got)
			}
		}},
		{"5,000 recipients", 1, func(t *testing.T, k *talk) {
			k.say("EHLO client.test", "250")
			k.say("MAIL FROM:<ada@elsewhere.test>", "250")
			go func() {
				for i := range 5000 {
					fmt.Fprintf(k.conn, "RCPT TO:<user+%d@local.test>\r\n", i)
				}
			}()
			codes := make(map[string]int)
			for range 5000 {
				got, err := k.reply()
				if err != nil {
					t.Fatal(err)
				}
				codes[got[:9]]++
			}
			if codes["250 2.1.5"] != 1000 || codes["452 4.5.3"] != 4000 {
				t.Errorf("replies: %v, want 1,000 of 250 and 4,000 of 452 (RFC 5321, section 4.5.3.1.10)", codes)
			}
			k.say("DATA", "354")
			k.say("Subject: many\r\n\r\n.", "250")
		}},
		{"a header of 40 MiB", 0, func(t *testing.T, k *talk) {
			k.begin(user)
			k.say("DATA", "354")
			field := "X-Huge: " + strings.Repeat("x", 60_000) + "\r\n"
			for range 40 << 20 / len(field) {
				k.write(field)
			}
			k.say("\r\nbody\r\n.", "55")
		}},
		{"a field that never ends", 0, func(t *testing.T, k *talk) {
			k.begin(user)
			k.say("DATA", "354")
			k.write("Subject: ")
			for range 40 {
				k.write(strings.Repeat("y", 1<<20))
			}
			k.say("\r\n\r\nbody\r\n.", "55")
		}},
		{"a message larger than announced as the most", 0, func(t *testing.T, k *talk) {
			k.say("EHLO client.test", "250")
			k.say("MAIL FROM:<ada@elsewhere.test> SIZE=99999999", "552 5.3.4")
			k.say("MAIL FROM:<ada@elsewhere.test>", "250")
			k.say("RCPT TO:<"+user+">", "250")
			k.say("DATA", "354")
			k.write("Subject: large\r\n\r\n")
			line := strings.Repeat("z", 65_534) + "\r\n"
			for range 51 << 20 / len(line) {
				k.write(line)
			}
			k.say(".", "552 5.3.4")
		}},
		{"a command of 1 MiB", 0, func(t *testing.T, k *talk) {
			go io.WriteString(k.conn, "EHLO "+strings.Repeat("e", 1<<20)+"\r\n")
			k.expect("500")
		}},
		{"bad UTF-8", 0, func(t *testing.T, k *talk) {
			k.say("EHLO gr\xfc\xdfe.test", "")
			k.say("EHLO client.test", "250")
			k.say("MAIL FROM:<gr\xfc\xdfe@elsewhere.test> SMTPUTF8", "5")
			k.say("MAIL FROM:<ada@elsewhere.test> SMTPUTF8", "250")
			k.say("RCPT TO:<\xff\xfe\xfd@local.test>", "5")
			k.say("RCPT TO:<\xc0\xaf@local.test>", "5")
			k.say("NO\x80OP", "5")
		}},
		{"bad UTF-8 within", 1, func(t *testing.T, k *talk) {
			k.begin(user)
			k.say("DATA", "354")
			k.say("Subject: gr\xfc\xdfe \xed\xa0\x80\r\nFrom: \xff <a@b.test>\r\n\r\n\xfe\xff\xc0\r\n.", "250")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := dial(t, s.smtp)
			k.t = t
			c.play(t, k)
			post(t, s.smtp, good)
			wanted += 1 + c.takes
		})
	}
	s.awaitLetters(wanted)
	for _, bdat := range []string{"BDAT 22 FIRST", "BDAT -1 LAST", "BDAT 99999999999999999999 LAST", "BDAT 0x16 LAST",
		"BDAT 22 LAST LAST", "BDAT", "BDAT LAST", "BDAT +22 LAST", "BDAT 22.0 LAST"} {
		k := dial(t, s.smtp)
		k.begin(user)
		k.write(bdat + "\r\nQUIT\r\nRSET\r\nNOOP\r\n")
		got := k.rest(500 * time.Millisecond)
		if !strings.HasPrefix(got, "5") || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: %q, want one refusal: what follows may be a message", bdat, got)
		}
	}
	for _, bdat := range []string{"BDAT 22 LAST\r\nshort", "BDAT 5\r\nfirst", "BDAT 5\r\nfirstBDAT 9 LAST\r\nsecond"} {
		k := dial(t, s.smtp)
		k.begin(user)
		k.write(bdat)
		k.conn.(*net.TCPConn).CloseWrite()
		if got := k.rest(5 * time.Second); strings.Contains(got, "queued") {
			t.Errorf("%q: half a message was taken: %q", bdat, got)
		}
	}
	post(t, s.smtp, good)
	wanted++
	s.awaitLetters(wanted)
	time.Sleep(200 * time.Millisecond)
	if got := len(s.letters()); got != wanted {
		t.Errorf("%d letters, want %d", got, wanted)
		for _, l := range s.letters() {
			t.Logf("...%q", tail(l, 40))
		}
	}
	if most := s.memory("VmHWM"); most > 160<<20 {
		t.Errorf("the node took %d MiB at most", most>>20)
	}
}

// begin opens a transaction.
func (k *talk) begin(to string) {
	k.t.Helper()
	k.say("EHLO client.test", "250")
	k.say("MAIL FROM:<ada@elsewhere.test>", "250")
	k.say("RCPT TO:<"+to+">", "250")
}

// TestEarlyTalker speaks before the greeting, as programs do that send spam and listen to nothing.
func TestEarlyTalker(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{relay: "[intake]\ngreet_delay = \"1s\""})
	conn, err := net.Dial("tcp", s.smtp)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "EHLO early.test\r\nMAIL FROM:<evil@elsewhere.test>\r\n")
	k := &talk{t: t, conn: conn, r: bufio.NewReader(conn)}
	if got := k.rest(5 * time.Second); !strings.HasPrefix(got, "5") || strings.Count(got, "\n") != 1 {
		t.Errorf("reply %q, want one refusal", got)
	}
	post(t, s.smtp, letter{from: "a@b.test", to: []string{user}, text: "Subject: patient\r\n\r\n"})
}

// TestManyConnections holds as many connections open as the node allows, some of them within a message that
// does not go on, and then uses them all.
func TestManyConnections(t *testing.T) {
	n := 2000
	if testing.Short() {
		n = 200
	}
	s := startSite(t, siteConfig{relay: noLimits, smtp: fmt.Sprintf("max_connections = %d", n)})
	post(t, s.smtp, letter{from: "a@b.test", to: []string{user}, text: "Subject: first\r\n\r\n"})
	before := s.memory("VmRSS")
	all := make([]*talk, n)
	for i := range all {
		// The one before may still be being said good-bye to.
		eventually(5*time.Second, func() bool {
			conn, err := net.Dial("tcp", s.smtp)
			if err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(2 * time.Minute))
			all[i] = &talk{t: t, conn: conn, r: bufio.NewReaderSize(conn, 512)}
			greeting, err := all[i].reply()
			if err != nil || !strings.HasPrefix(greeting, "220") {
				conn.Close()
				return false
			}
			return true
		})
		defer all[i].conn.Close()
		all[i].say("EHLO client.test", "250")
	}
	conn, err := net.Dial("tcp", s.smtp)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := (&talk{t: t, conn: conn, r: bufio.NewReader(conn)}).rest(5 * time.Second); !strings.HasPrefix(got, "421 ") {
		t.Errorf("one connection too many is told %q", got)
	}
	idle := s.memory("VmRSS") - before
	for _, k := range all {
		k.say("MAIL FROM:<ada@elsewhere.test>", "250")
		k.say("RCPT TO:<"+user+">", "250")
		k.say("DATA", "354")
		k.write("Subject: slow\r\n\r\nslow\r\n")
	}
	slow := s.memory("VmRSS") - before
	t.Logf("a connection takes %d KiB idle, %d KiB within a message", idle/int64(n)>>10, slow/int64(n)>>10)
	if most := int64(64<<10*n + 64<<20); slow > most {
		t.Errorf("%d connections within a message take %d MiB, want at most %d", n, slow>>20, most>>20)
	}
	var wg sync.WaitGroup
	for _, k := range all {
		wg.Go(func() {
			k.conn.Write([]byte(".\r\n"))
			if got, err := k.reply(); err != nil || !strings.HasPrefix(got, "250") {
				t.Errorf("reply to a message: %q, %v", got, err)
			}
		})
	}
	wg.Wait()
	s.awaitLetters(n + 1)
}

// TestDeadResolver gives the node a resolver that never answers: mail comes in nevertheless, and what is to
// go out waits, saying why, until there is an answer.
func TestDeadResolver(t *testing.T) {
	t.Parallel()
	hole, err := net.ListenPacket("udp", "127.0.0.1:0") // takes questions and keeps silent
	if err != nil {
		t.Fatal(err)
	}
	defer hole.Close()
	s := startSite(t, siteConfig{dns: hole.LocalAddr().String(), smtp: trustLoopback})
	began := time.Now()
	post(t, s.smtp, letter{from: "ada@elsewhere.test", to: []string{user, "x@remote.test"}, text: "Subject: x\r\n\r\n"})
	s.awaitLetters(1)
	if took := time.Since(began); took > 45*time.Second {
		t.Errorf("it took %s", took)
	}
	var list string
	if !eventually(45*time.Second, func() bool {
		list = s.run("queue", "list")
		return strings.Contains(list, "4.4.3")
	}) {
		t.Errorf("the queue does not tell that the DNS is the trouble:\n%s", list)
	}
}

// TestDeadResolverForStrangers is TestDeadResolver for a client about whom there is much to ask.
func TestDeadResolverForStrangers(t *testing.T) {
	t.Parallel()
	zone := dns.MustZone(map[string][]string{"elsewhere.test": {"A 127.0.0.1"}})
	for _, name := range []string{"elsewhere.test", "1.0.0.127.in-addr.arpa", "_dmarc.elsewhere.test"} {
		zone.Fail(name, dns.ServFail)
	}
	s := startSite(t, siteConfig{zone: zone})
	k := dial(t, s.smtp)
	text := "From: ada@elsewhere.test\r\nSubject: x\r\n\r\n."
	k.begin(user)
	k.say("DATA", "354")
	// Whether the author's domain wants such mail refused is not known: the client is to come again.
	k.say(text, "451 4.4.3 DMARC")
	for _, name := range []string{"elsewhere.test", "1.0.0.127.in-addr.arpa", "_dmarc.elsewhere.test"} {
		zone.Fail(name, dns.Works)
	}
	k.begin(user)
	k.say("DATA", "354")
	k.say(text, "250")
}

// TestBadStart starts nodes that cannot run: each says why in one line, and ends with 1.
func TestBadStart(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{})
	cert, key := certificate(t, "mx.local.test")
	otherCert, _ := certificate(t, "mx.local.test")
	garbage := filepath.Join(s.dir, "garbage.pem")
	if err := os.WriteFile(garbage, []byte("-----BEGIN CERTIFICATE-----\nnothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, top, tls, want string }{
		{"the data folder of a running node", fmt.Sprintf("data_dir = %q", filepath.Join(s.dir, "data")), "", "running"},
		{"a port in use", "", fmt.Sprintf("[smtp]\nlisten = [%q]", s.smtp), s.smtp},
		{"no certificate", "", fmt.Sprintf("[tls]\ncert = %q\nkey = %q", "/nowhere/cert.pem", key), "/nowhere/cert.pem"},
		{"no key", "", fmt.Sprintf("[tls]\ncert = %q\nkey = %q", cert, "/nowhere/key.pem"), "/nowhere/key.pem"},
		{"a folder as key", "", fmt.Sprintf("[tls]\ncert = %q\nkey = %q", cert, s.dir), s.dir},
		{"a certificate of garbage", "", fmt.Sprintf("[tls]\ncert = %q\nkey = %q", garbage, key), "garbage.pem"},
		{"the key of another certificate", "", fmt.Sprintf("[tls]\ncert = %q\nkey = %q", otherCert, key), "key"},
		{"an unknown setting", "bogus = 1", "", "bogus"},
	} {
		dir := t.TempDir()
		config := filepath.Join(dir, "tallypost.toml")
		top := c.top
		if !strings.Contains(top, "data_dir") {
			top += "\ndata_dir = \"data\""
		}
		text := fmt.Sprintf("hostname = \"mx.local.test\"\ndomains = [\"local.test\"]\n%s\n[submission]\nlisten = []\n"+
			"listen_tls = []\n[dns]\nservers = [\"127.0.0.1:9\"]\n%s\n", top, c.tls)
		if !strings.Contains(text, "[smtp]") {
			text += fmt.Sprintf("[smtp]\nlisten = [%q]\n", freeAddr(t))
		}
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(binary, "serve", "-c", config)
		ended := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		out, _ := cmd.CombinedOutput()
		ended.Stop()
		lines := 0
		for line := range strings.Lines(string(out)) {
			if !strings.HasPrefix(line, "time=") {
				lines++
			}
		}
		if code := cmd.ProcessState.ExitCode(); code != 1 || lines != 1 || !strings.Contains(string(out), c.want) ||
			!strings.Contains(string(out), "tallypost: ") {
			t.Errorf("%s: exit %d, want 1 and one line with %q:\n%s", c.name, code, c.want, out)
		}
	}
	post(t, s.smtp, letter{from: "a@b.test", to: []string{user}, text: "Subject: unharmed\r\n\r\n"})
	s.awaitLetters(1)
}
