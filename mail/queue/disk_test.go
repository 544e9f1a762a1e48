package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tallypost/tallypost/internal/durable"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

const smallSegment = 64 << 10

func openDisk(t testing.TB, fs vfs.FS) *queue.Disk {
	t.Helper()
	s, err := queue.OpenDisk(queue.DiskConfig{Dir: "/queue", FS: fs, SegmentBytes: smallSegment})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func putBody(t testing.TB, s queue.Store, id mail.ID, text []byte) {
	t.Helper()
	b, err := s.NewBody(id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := b.Seal(nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(&queue.Group{Bodies: []queue.Body{b}}); err != nil {
		t.Fatal(err)
	}
}

func getBody(s queue.Store, id mail.ID) ([]byte, error) {
	r, err := s.OpenBody(id)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
}

// churn has bodies come and go until the segments have been used several times over.
func churn(t testing.TB, s queue.Store, segments int) {
	t.Helper()
	text := bytes.Repeat([]byte("churn"), 2000)
	for i := range segments * smallSegment / len(text) {
		id := mail.ID(1<<40 + i)
		putBody(t, s, id, text)
		if err := s.Commit(&queue.Group{Drop: []mail.ID{id}}); err != nil {
			t.Fatal(err)
		}
	}
}

func segmentFiles(t testing.TB, fs vfs.FS) (n int) {
	t.Helper()
	names, err := fs.List("/queue/log")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".seg") {
			n++
		}
	}
	return n
}

// A message that takes hours to come in does not lose the beginning, however much mail passes by.
func TestSlowUpload(t *testing.T) {
	s := openDisk(t, durable.NewFaults(nil))
	slow, err := s.NewBody(1)
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	for i := range 5 {
		piece := bytes.Repeat([]byte{byte(i)}, 9000)
		if _, err := slow.Write(piece); err != nil {
			t.Fatal(err)
		}
		want = append(want, piece...)
		churn(t, s, 12)
	}
	if err := slow.Seal([]byte("prefix")); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(&queue.Group{Bodies: []queue.Body{slow}}); err != nil {
		t.Fatal(err)
	}
	churn(t, s, 12)
	got, err := getBody(s, 1)
	if err != nil || !bytes.Equal(got, append([]byte("prefix"), want...)) {
		t.Errorf("body of %d octets, want %d: %v", len(got), len(want)+6, err)
	}
}

// Room on disk follows what is in the queue, also where one message in each segment stays.
func TestStragglersAreMoved(t *testing.T) {
	fs := durable.NewFaults(nil)
	s := openDisk(t, fs)
	const stragglers, size = 30, 4000
	for i := range stragglers {
		putBody(t, s, mail.ID(i+1), bytes.Repeat([]byte{byte(i)}, size))
		churn(t, s, 3)
	}
	eventually(t, "stragglers are together", func() bool {
		churn(t, s, 1)
		return segmentFiles(t, fs) <= 2*stragglers*size/smallSegment+12
	})
	for round := range 2 {
		for i := range stragglers {
			got, err := getBody(s, mail.ID(i+1))
			if err != nil || !bytes.Equal(got, bytes.Repeat([]byte{byte(i)}, size)) {
				t.Errorf("straggler %d, round %d: %d octets, %v", i, round, len(got), err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openDisk(t, fs)
	}
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	fs := durable.NewFaults(nil)
	release := make(chan bool)
	post := &postman{deliver: func(_ context.Context, d *queue.Delivery) []queue.Result {
		<-release
		return same(d, queue.Result{Outcome: queue.Delivered, Reply: "250 ok"})
	}}
	r := newRig(t, queue.Config{}, openDisk(t, fs), post)
	r.run()
	const before = 10
	for range before {
		r.submit(envelope("a@example.org", "b@example.com"), text)
	}
	fs.SetFull(durable.NoNewBlocks)
	eventually(t, "the disk is full", func() bool {
		_, err := submit(r.q, envelope("a@example.org", "b@example.com"), strings.Repeat("x", 20<<10))
		return errors.Is(err, queue.ErrFull)
	})
	if err := r.q.Accepting(); !errors.Is(err, queue.ErrFull) {
		t.Errorf("accepting with a full disk: %v", err)
	}
	close(release)
	eventually(t, "outcomes are kept with a full disk", r.empty)
	fs.SetFull(durable.Roomy)
	eventually(t, "accepting again", func() bool { return r.q.Accepting() == nil })
	r.submit(envelope("a@example.org", "b@example.com"), text)
	eventually(t, "delivered again", r.empty)
	r.stop()
	if r.err != nil {
		t.Errorf("run: %v", r.err)
	}
	if err := check(r.store); err != nil {
		t.Error(err)
	}
}

// Where nothing at all can be written senders wait, and are answered when it can.
func TestNoWrites(t *testing.T) {
	fs := durable.NewFaults(nil)
	r := newRig(t, queue.Config{}, openDisk(t, fs), &postman{})
	r.run()
	r.submit(envelope("a@example.org", "b@example.com"), text)
	eventually(t, "delivery", r.empty)
	fs.SetFull(durable.NoWrites)
	done := make(chan error)
	go func() {
		_, err := submit(r.q, envelope("a@example.org", "b@example.com"), text)
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, queue.ErrFull) {
			t.Errorf("submit with a full disk: %v", err)
		}
		fs.SetFull(durable.Roomy)
	case <-time.After(10 * time.Millisecond):
		fs.SetFull(durable.Roomy)
		if err := <-done; err != nil {
			t.Errorf("submit that waited for room: %v", err)
		}
	}
	eventually(t, "delivery", r.empty)
}

// A sync that fails is final: whoever waits gets an error, nobody is acknowledged later, and the
// next start has all that was.
func TestFailedSync(t *testing.T) {
	for _, part := range []string{"/log/", "/index/"} {
		t.Run(part, func(t *testing.T) {
			fs := durable.NewFaults(nil)
			r := newRig(t, queue.Config{}, openDisk(t, fs), &postman{})
			r.run()
			env := envelope("a@example.org", "b@example.com")
			env.HoldUntil = start.Add(time.Hour)
			acked := []mail.ID{r.submit(env, text).ID}
			fs.FailSync(part)
			var err error
			// The index is synced beside the commits, so more than one may come through until it fails.
			for end := time.Now().Add(10 * time.Second); err == nil && time.Now().Before(end); {
				var receipt queue.Receipt
				if receipt, err = submit(r.q, env, strings.Repeat("x", 10<<10)); err == nil {
					acked = append(acked, receipt.ID)
				}
			}
			if !errors.Is(err, queue.ErrBroken) {
				t.Fatalf("submit after a sync failed: %v", err)
			}
			fs.FailSync("")
			if _, err := submit(r.q, env, text); !errors.Is(err, queue.ErrBroken) {
				t.Errorf("submit when syncs work again: %v", err)
			}
			r.stop()
			if !errors.Is(r.err, queue.ErrBroken) {
				t.Errorf("run: %v", r.err)
			}
			r.store.Close()

			again := openDisk(t, durable.NewFaults(fs.Clone(0, 1)))
			if err := check(again); err != nil {
				t.Error(err)
			}
			for _, id := range acked {
				if _, err := getBody(again, id); err != nil {
					t.Errorf("acknowledged message: %v", err)
				}
			}
		})
	}
}

// damage flips an octet at the first place of a segment file that holds what.
func damage(t *testing.T, fs vfs.FS, what string) {
	t.Helper()
	names, _ := fs.List("/queue/log")
	for _, name := range names {
		f, err := fs.OpenReadWrite("/queue/log/"+name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, smallSegment)
		f.ReadAt(b, 0)
		if i := bytes.Index(b, []byte(what)); i >= 0 {
			if _, err := f.WriteAt([]byte{b[i] ^ 1}, int64(i)); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("%q is in no segment", what)
}

// A message that can not be read any more says so, and the others go on.
func TestDamagedBody(t *testing.T) {
	fs := durable.NewFaults(nil)
	post := newRecorder()
	r := newRig(t, queue.Config{CacheBytes: -1}, openDisk(t, fs), &post.postman)
	r.run()
	env := envelope("a@example.org", "b@example.com")
	env.HoldUntil = start.Add(time.Hour)
	bad := r.submit(env, "the damaged message").ID
	good := r.submit(env, "the other message").ID
	damage(t, fs, "the damaged")
	r.advance("the other is delivered", func() bool { return len(post.all()) == 1 })
	if got := post.all()[0]; got.id != good {
		t.Errorf("delivered %v", got)
	}
	eventually(t, "the damaged message is put off", func() bool {
		x, err := r.q.Show(context.Background(), bad)
		return err == nil && len(x.Attempts) == 1 && strings.Contains(x.Attempts[0].Reply, "corrupt")
	})
}

// Damage to what had been stored is no torn end: the start says what is wrong, instead of losing
// mail.
func TestDamagedLog(t *testing.T) {
	fs := durable.NewFaults(nil)
	s := openDisk(t, fs)
	for i := range 4 {
		putBody(t, s, mail.ID(i+1), []byte(fmt.Sprintf("body %d", i)))
	}
	crashed := durable.NewFaults(fs.Clone(0, 1))
	damage(t, crashed, "body 1")
	_, err := queue.OpenDisk(queue.DiskConfig{Dir: "/queue", FS: crashed, SegmentBytes: smallSegment})
	if !errors.Is(err, durable.ErrCorrupt) || !strings.Contains(err.Error(), "/queue/log/") {
		t.Errorf("open: %v", err)
	}
}

func TestNewerDisk(t *testing.T) {
	fs := durable.NewFaults(nil)
	s := openDisk(t, fs)
	if err := s.Commit(&queue.Group{Writes: []queue.Write{{Key: []byte("mx"), Value: []byte("1")}}}); err != nil {
		t.Fatal(err)
	}
	s.SetVersion(99)
	s.Close()
	_, err := queue.OpenDisk(queue.DiskConfig{Dir: "/queue", FS: fs, SegmentBytes: smallSegment})
	if err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("open: %v", err)
	}
}

// What is not of the store, or comes after its end, is refused and breaks nothing.
func TestDiskMisuse(t *testing.T) {
	s := openDisk(t, durable.NewFaults(nil))
	other, _ := queue.NewMemory().NewBody(1)
	if err := s.Commit(&queue.Group{Bodies: []queue.Body{other}}); err == nil {
		t.Error("commit of another store's body")
	}
	putBody(t, s, 2, []byte("fine"))
	body, err := s.NewBody(3)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Commit(&queue.Group{}); !errors.Is(err, queue.ErrBroken) {
		t.Errorf("commit after close: %v", err)
	}
	if _, err := s.NewBody(4); !errors.Is(err, queue.ErrBroken) {
		t.Errorf("new body after close: %v", err)
	}
	if _, err := body.Write([]byte("x")); err == nil {
		t.Error("write after close")
	}
	body.Abort()
}

// A store whose disk is full can be closed, also while its index waits for room.
func TestCloseWhileFull(t *testing.T) {
	for _, full := range []durable.Fullness{durable.NoNewBlocks, durable.NoWrites} {
		fs := durable.NewFaults(nil)
		s := openDisk(t, fs)
		putBody(t, s, 1, []byte("stays"))
		for i := range 3 {
			putBody(t, s, mail.ID(2+i), make([]byte, 50<<10))
		}
		fs.SetFull(full)
		text := make([]byte, 9000)
		for i := range 100 { // until the index is to be flushed, and can not
			b, err := s.NewBody(mail.ID(100 + i))
			if err != nil {
				break
			}
			if _, err := b.Write(text); err != nil {
				b.Abort()
				break
			}
		}
		closed := make(chan bool)
		go func() {
			s.Close()
			close(closed)
		}()
		select {
		case <-closed:
		case <-time.After(30 * time.Second):
			t.Fatalf("close of a full store (%d) does not return", full)
		}
		fs.SetFull(durable.Roomy)
		if got, err := getBody(openDisk(t, fs), 1); string(got) != "stays" {
			t.Errorf("after a full disk: %q, %v", got, err)
		}
	}
}
