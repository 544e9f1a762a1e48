package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
)

// acked is a message that the node promised to keep.
type acked struct {
	token, id string
	index     uint64
}

// TestKillUnderLoad kills the node with SIGKILL again and again while clients send. Whatever was answered
// with 250 must be in the mailbox in the end, and at its place in a log that is whole.
func TestKillUnderLoad(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	s := newSite(t, new(dns.Zone), "", "")
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	var promises []acked
	var wg sync.WaitGroup
	for c := range 8 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				got := sendSome(ctx, s.smtp, fmt.Sprintf("c%d-%d", c, i))
				mu.Lock()
				promises = append(promises, got...)
				mu.Unlock()
			}
		})
	}
	for round := range rounds {
		time.Sleep(time.Duration(300+137*round) * time.Millisecond)
		s.kill()
		s.start()
	}
	cancel()
	wg.Wait()
	if len(promises) < 10*rounds {
		t.Fatalf("only %d messages were accepted", len(promises))
	}
	t.Logf("%d messages accepted over %d kills", len(promises), rounds)
	s.expectKept(promises)
}

// sendSome sends messages over one connection until it breaks, and returns those that were accepted.
func sendSome(ctx context.Context, addr, token string) (out []acked) {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		time.Sleep(20 * time.Millisecond)
		return nil
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(conn)
	say := func(line string) (string, error) {
		if _, err := conn.Write([]byte(line)); err != nil {
			return "", err
		}
		for {
			reply, err := r.ReadString('\n')
			if err != nil || len(reply) < 4 || reply[3] != '-' {
				return reply, err
			}
		}
	}
	if _, err := say(""); err != nil {
		return nil
	}
	if _, err := say("EHLO client.test\r\n"); err != nil {
		return nil
	}
	for n := 0; ctx.Err() == nil; n++ {
		tok := fmt.Sprintf("%s-%d", token, n)
		body := "Subject: " + tok + "\r\nX-Token: " + tok + "\r\n\r\n" + strings.Repeat("0123456789abcde\r\n", 60*(n%20)) + ".\r\n"
		for _, line := range []string{"MAIL FROM:<ada@elsewhere.test>\r\n", "RCPT TO:<" + user + ">\r\n", "DATA\r\n"} {
			if _, err := say(line); err != nil {
				return out
			}
		}
		reply, err := say(body)
		if err != nil {
			return out
		}
		m := promise.FindStringSubmatch(reply)
		if m == nil {
			return out // 421: the node is going down
		}
		index, err := strconv.ParseUint(m[2], 10, 64)
		if err != nil {
			return out
		}
		out = append(out, acked{tok, m[1], index})
	}
	return out
}

// expectKept waits for every promised message and holds the log against the promises.
func (s *site) expectKept(promises []acked) {
	s.t.Helper()
	var missing []string
	for range 600 {
		missing = missing[:0]
		have := s.tokens()
		for _, p := range promises {
			if !have[p.token] {
				missing = append(missing, p.id+" "+p.token)
			}
		}
		if len(missing) == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if len(missing) > 0 {
		s.t.Fatalf("%d of %d promised messages are lost, such as %s\n%s", len(missing), len(promises), missing[0],
			s.run("queue", "list"))
	}
	var audit struct {
		Size     uint64
		Problems []string
	}
	if err := json.Unmarshal([]byte(s.run("log", "audit", "--json")), &audit); err != nil || len(audit.Problems) > 0 {
		s.t.Fatalf("the log: %v, %v", err, audit.Problems)
	}
	for _, p := range promises {
		if p.index >= audit.Size {
			s.t.Errorf("%s was promised leaf %d of a log of %d", p.id, p.index, audit.Size)
		}
	}
	// The log's place for a sample of them: each costs a process.
	for i := 0; i < len(promises); i += max(1, len(promises)/10) {
		p := promises[i]
		for _, m := range s.trace(p.id) {
			if m.Index != p.index {
				s.t.Errorf("%s was promised leaf %d and has leaf %d", p.id, p.index, m.Index)
			}
		}
	}
}

// tokens returns the X-Token of every letter in the inbox.
func (s *site) tokens() map[string]bool {
	files, err := filepath.Glob(filepath.Join(s.dir, "data/mail/local.test/user/Maildir/new/*"))
	if err != nil {
		s.t.Fatal(err)
	}
	have := make(map[string]bool)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			s.t.Fatal(err)
		}
		_, rest, ok := strings.Cut(string(b), "X-Token: ")
		if token, _, found := strings.Cut(rest, "\n"); ok && found {
			have[token] = true
		}
	}
	return have
}
