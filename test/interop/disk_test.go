package interop

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// smallDisk mounts a file system of so many MiB over the data folder of a site to be.
func smallDisk(t *testing.T, mib string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", data, "tmpfs", 0, "size="+mib+"m"); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(data, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill writes a file until the disk is full, leaving some octets, and returns what makes room again.
func fill(t *testing.T, dir string, leave int64) (empty func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		var st syscall.Statfs_t
		if err := syscall.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		free := int64(st.Bavail)*st.Bsize - leave
		if free <= 0 {
			break
		}
		_, err := io.CopyN(f, zeros{}, min(free, 1<<20))
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestLittleRoom leaves less room on the disk than the queue wants free: it refuses what is new, for a
// while, and goes on with what it has.
func TestLittleRoom(t *testing.T) {
	dir := smallDisk(t, "256")
	s := startSite(t, siteConfig{dir: dir, smtp: trustLoopback, relay: `smarthost = "127.0.0.1:9"`})
	l := letter{from: "ada@elsewhere.test", to: []string{user, "x@remote.test"}, text: "Subject: x\r\n\r\nx\r\n"}
	post(t, s.smtp, l)
	empty := fill(t, filepath.Join(dir, "data"), 4<<20)
	k := dial(t, s.smtp)
	k.say("EHLO client.test", "250")
	refused := func() bool {
		k.write("MAIL FROM:<ada@elsewhere.test>\r\n")
		got, err := k.reply()
		if err != nil {
			t.Fatal(err)
		}
		k.say("RSET", "250")
		return strings.HasPrefix(got, "452 4.3.1 ")
	}
	if !eventually(10*time.Second, refused) {
		t.Error("mail is still taken")
	}
	if out := s.run("queue", "list"); !strings.Contains(out, "x@remote.test") {
		t.Errorf("the queue cannot be seen: %s", out)
	}
	empty()
	if !eventually(10*time.Second, func() bool { return !refused() }) {
		t.Error("mail is still refused, though there is room again")
	}
	k.hand(l)
	s.awaitLetters(2)
}

// TestFullDisk fills the disk to the last octet, again and again, while mail comes in and is delivered to
// mailboxes on the same disk. The node may stop, with a reason; what it has promised it keeps.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, "512")
	s := startSite(t, siteConfig{dir: dir, relay: noLimits})
	load := s.startLoad(8, user)
	stopped := 0
	for round := range 3 {
		time.Sleep(time.Duration(500+200*round) * time.Millisecond)
		empty := fill(t, filepath.Join(dir, "data"), 0)
		time.Sleep(time.Second)
		empty()
		if !s.runs() {
			stopped++
			s.start()
		}
	}
	promises := load.stop()
	t.Logf("%d messages accepted; the node stopped %d times", len(promises), stopped)
	if len(promises) < 30 {
		t.Errorf("only %d messages were accepted", len(promises))
	}
	s.expectKept(promises)
	if !strings.Contains(s.log(), "no space left on device") {
		t.Error("the node never met a full disk: the test is too small")
	}
	if stopped > 0 && !strings.Contains(s.log(), "tallypost: ") {
		t.Error("it did not say why")
	}
}

// TestLargeQueue starts a node whose queue has 100,000 messages that wait for a server which is down. It is
// to listen, and to tell of its queue, within seconds.
func TestLargeQueue(t *testing.T) {
	if testing.Short() {
		t.Skip("accepts 100,000 messages")
	}
	const n = 100_000
	source := need(t, "smtp-source")
	s := startSite(t, siteConfig{smtp: trustLoopback, relay: "smarthost = \"127.0.0.1:9\""})
	out, err := exec.Command(source, "-d", "-s", "50", "-m", fmt.Sprint(n), "-l", "300", "-f", "ada@elsewhere.test",
		"-t", "x@remote.test", s.smtp).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.kill()
	began := time.Now()
	s.start()
	listening := time.Since(began)
	stats := s.run("queue", "stats")
	told := time.Since(began)
	t.Logf("%d messages: listening after %s, queue told after %s, %d MiB", n, listening, told, s.memory("VmRSS")>>20)
	if !strings.Contains(stats, fmt.Sprintf(`"messages": %d,`, n)) {
		t.Errorf("not all are there:\n%s", stats)
	}
	if told > 30*time.Second {
		t.Errorf("it took %s", told)
	}
	if most := s.memory("VmRSS"); most > 400<<20 {
		t.Errorf("the node takes %d MiB", most>>20)
	}
	post(t, s.smtp, letter{from: "a@b.test", to: []string{user}, text: "Subject: at once\r\n\r\n"})
	began = time.Now()
	s.awaitLetters(1)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a new message waited %s behind the others", took)
	}
}
