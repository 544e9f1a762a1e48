package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
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
	s := startSite(t, siteConfig{relay: noLimits})
	load := s.startLoad(8, user)
	for round := range rounds {
		time.Sleep(time.Duration(300+137*round) * time.Millisecond)
		s.kill()
		s.start()
	}
	promises := load.stop()
	if len(promises) < 10*rounds {
		t.Fatalf("only %d messages were accepted", len(promises))
	}
	t.Logf("%d messages accepted over %d kills", len(promises), rounds)
	s.expectKept(promises)
}

// noLimits are sections for a node that hears more from one address than any sender has to say.
const noLimits = `[intake.limits]
connections_address = 0
connections_network = 0
connect_rate = ""
message_rate = ""
message_rate_network = ""
refused_rate = ""
`

// load is clients that send without pause.
type load struct {
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	mu       sync.Mutex
	promises []acked // guarded by mu
}

// startLoad starts a number of clients that send to one address.
func (s *site) startLoad(clients int, to string) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel}
	s.t.Cleanup(cancel)
	for c := range clients {
		l.wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				got := sendSome(ctx, s.smtp, to, fmt.Sprintf("c%d-%d", c, i))
				l.mu.Lock()
				l.promises = append(l.promises, got...)
				l.mu.Unlock()
			}
		})
	}
	return l
}

// stop ends the clients and returns what they were promised.
func (l *load) stop() []acked {
	l.cancel()
	l.wg.Wait()
	return l.promises
}

// sendSome sends messages over one connection until it breaks, and returns those that were accepted.
func sendSome(ctx context.Context, addr, to, token string) (out []acked) {
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
		for _, line := range []string{"MAIL FROM:<ada@elsewhere.test>\r\n", "RCPT TO:<" + to + ">\r\n", "DATA\r\n"} {
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
	s.expectArrived(promises, s.letters)
	s.expectLogged(promises)
}

// expectArrived waits until a mailbox has every promised message, and returns how many letters there are.
func (s *site) expectArrived(promises []acked, mailbox func() []string) int {
	s.t.Helper()
	var missing []acked
	count := 0
	eventually(time.Minute, func() bool {
		have := tokens(mailbox())
		missing, count = missing[:0], 0
		for _, n := range have {
			count += n
		}
		for _, p := range promises {
			if have[p.token] == 0 {
				missing = append(missing, p)
			}
		}
		return len(missing) == 0
	})
	if len(missing) > 0 {
		s.t.Fatalf("%d of %d promised messages are lost, such as %s %s\n%s", len(missing), len(promises),
			missing[0].id, missing[0].token, s.run("queue", "list"))
	}
	return count
}

// tokens counts the letters by their X-Token.
func tokens(letters []string) map[string]int {
	have := make(map[string]int)
	for _, l := range letters {
		_, rest, ok := strings.Cut(l, "X-Token: ")
		if token, _, found := strings.Cut(rest, "\n"); ok && found {
			have[token]++
		}
	}
	return have
}

// expectLogged holds the log against the promises.
func (s *site) expectLogged(promises []acked) {
	s.t.Helper()
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

// TestKillWhileRelaying kills the node again and again while it hands mail on to another server. Nothing is
// lost; what is handed on twice was under way when the node was killed, as the other's word for it came too
// late (RFC 5321, section 4.1.1.4).
func TestKillWhileRelaying(t *testing.T) {
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	forOthers(t, func(t *testing.T, start func(otherConfig) *other) {
		o := start(otherConfig{})
		s := startSite(t, siteConfig{zone: zoneOf(t, o), smtp: trustLoopback, relay: portOf(t, o) + "\n" + noLimits})
		load := s.startLoad(3, "box@remote.test")
		for round := range rounds {
			time.Sleep(time.Duration(700+137*round) * time.Millisecond)
			s.kill()
			s.start()
		}
		promises := load.stop()
		count := s.expectArrived(promises, o.letters)
		t.Logf("%d messages accepted over %d kills, %d letters at %s", len(promises), rounds, count, o.name)
		// The queue makes at most 20 attempts at a time for one route. A message that was accepted but not
		// promised, as the node was killed before its reply, is one letter more for each client.
		if most := len(promises) + rounds*(20+3); count > most {
			t.Errorf("%d letters, want at most %d", count, most)
		}
		if len(promises) < 10*rounds {
			t.Errorf("only %d messages were accepted", len(promises))
		}
		s.expectLogged(promises)
	})
}
