package milter

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/mail/milter/miltertest"
)

func open(t *testing.T, f *miltertest.Filter) *Session {
	t.Helper()
	miltertest.Start(t, f)
	s, err := Open(context.Background(), Config{Network: f.Network, Address: f.Addr,
		Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

var client = netip.MustParseAddrPort("192.0.2.1:25000")

// step is one call of a session.
type step func(*Session) (Answer, error)

func message() []step {
	return []step{
		func(s *Session) (Answer, error) {
			return s.Connect("mx.example.net", client, Macro{"j", "mx.local.test"}, Macro{"_", ""})
		},
		func(s *Session) (Answer, error) { return s.Helo("mx.example.net") },
		func(s *Session) (Answer, error) {
			return s.Mail("ann@example.net", []string{"BODY=8BITMIME"}, Macro{"{auth_authen}", "ann"})
		},
		func(s *Session) (Answer, error) { return s.Rcpt("bob@local.test", nil) },
		func(s *Session) (Answer, error) { return s.Data(Macro{"i", "ABC"}) },
		func(s *Session) (Answer, error) {
			return s.Header("Subject", []byte(" one\r\n two\r\n"))
		},
		func(s *Session) (Answer, error) { return s.EndHeader() },
		func(s *Session) (Answer, error) { return s.Body([]byte(strings.Repeat("x", 70000))) },
	}
}

// follow does the steps up to the first answer that is not to go on.
func follow(t *testing.T, s *Session, steps []step) Answer {
	t.Helper()
	for _, st := range steps {
		a, err := st(s)
		if err != nil {
			t.Fatal(err)
		}
		if a.Verdict != Continue {
			return a
		}
	}
	return Answer{}
}

func TestConversation(t *testing.T) {
	f := &miltertest.Filter{}
	s := open(t, f)
	if a := follow(t, s, message()); a != (Answer{}) {
		t.Errorf("answer %+v", a)
	}
	if a, changes, err := s.End(Macro{"i", "ABC"}); a != (Answer{}) || changes != nil || err != nil {
		t.Errorf("end: %+v, %v, %v", a, changes, err)
	}
	s.Close()
	want := []string{"O", "D Cj|mx.local.test", "C mx.example.net|4|192.0.2.1", "H mx.example.net",
		"D M{auth_authen}|ann", "M <ann@example.net>|BODY=8BITMIME", "R <bob@local.test>",
		"D Ti|ABC", "T", "L Subject|one\n two", "N", "B xxxxxxxxxxxxxxxxxxxx... 65535",
		"B xxxxxxxxxxxxxxxxxxxx... 4465", "D Ei|ABC", "E"}
	got := f.Seen()
	if !slices.Equal(got, want) && !slices.Equal(got, append(want, "Q")) {
		t.Errorf("the filter saw\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestNotInterested: what a filter does not want to see is not sent, and what it does not answer is not
// waited for.
func TestNotInterested(t *testing.T) {
	f := &miltertest.Filter{Protocol: noConnect | noHelo | noRcpt | noBody | noData | noReplyMail |
		noReplyHeader | noReplyEndHeader | leadingSpace,
		Answer: func(cmd byte, _ string) []miltertest.Packet {
			if cmd == 'E' {
				return []miltertest.Packet{{Code: 'a'}}
			}
			return nil // and it would hang
		}}
	s := open(t, f)
	follow(t, s, message())
	if a, _, err := s.End(); err != nil || a.Verdict != Accept {
		t.Errorf("end: %+v, %v", a, err)
	}
	seen := slices.DeleteFunc(f.Seen(), func(s string) bool { return s[0] == 'D' })
	want := []string{"O", "M <ann@example.net>|BODY=8BITMIME", "L Subject| one\n two", "N", "E"}
	if !slices.Equal(seen, want) {
		t.Errorf("the filter saw %q", seen)
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		packet miltertest.Packet
		want   Answer
	}{
		{miltertest.Packet{Code: 'a'}, Answer{Verdict: Accept}},
		{miltertest.Packet{Code: 'd'}, Answer{Verdict: Discard}},
		{miltertest.Packet{Code: 'r'}, Answer{Reject, 550, "5.7.1", "the message is not wanted here"}},
		{miltertest.Packet{Code: 't'}, Answer{TempFail, 451, "4.7.1",
			"the message cannot be checked now, try again later"}},
		{miltertest.Packet{Code: '4'}, Answer{TempFail, 421, "4.7.0", "the service is not available now"}},
		{miltertest.Packet{Code: 'y', Data: "554 5.7.1 virus found: Eicar\x00"},
			Answer{Reject, 554, "5.7.1", "virus found: Eicar"}},
		{miltertest.Packet{Code: 'y', Data: "451 100%% sure\x00"}, Answer{TempFail, 451, "", "100% sure"}},
		{miltertest.Packet{Code: 'y', Data: "550-5.7.1 one\r\n550 5.7.1 two\x00"},
			Answer{Reject, 550, "5.7.1", "one\ntwo"}},
		{miltertest.Packet{Code: 'y', Data: "550 4.7.1 class differs\x00"},
			Answer{Reject, 550, "", "4.7.1 class differs"}},
		{miltertest.Packet{Code: 'y', Data: "550\x00"}, Answer{Reject, 550, "", ""}},
	} {
		f := &miltertest.Filter{Answer: func(cmd byte, _ string) []miltertest.Packet {
			if cmd == 'R' {
				return []miltertest.Packet{{Code: 'p'}, c.packet} // a sign of life before
			}
			return miltertest.Continue
		}}
		if got := follow(t, open(t, f), message()); got != c.want {
			t.Errorf("%q %q: %+v, want %+v", c.packet.Code, c.packet.Data, got, c.want)
		}
	}
}

func TestChanges(t *testing.T) {
	f := &miltertest.Filter{Actions: 0x1ff, Answer: func(cmd byte, _ string) []miltertest.Packet {
		if cmd != 'E' {
			return miltertest.Continue
		}
		return []miltertest.Packet{
			miltertest.AddHeader("X-Spam", "Yes"),
			{Code: 'p'},
			miltertest.InsertHeader(1, "DKIM-Signature", "v=1;\n\tb=abc\r\n def"),
			miltertest.ChangeHeader(2, "Subject", ""),
			miltertest.AddHeader("X-Evil", "a\r\n\r\nBcc: x@y\nz\rq"),
			{Code: 'q', Data: "looks\nbad\x00"},
			{Code: '+', Data: "<eve@example.net>\x00"},
			{Code: 'c'},
		}
	}}
	s := open(t, f)
	if !s.ChangesHeader() {
		t.Error("it said that it changes the header")
	}
	follow(t, s, message())
	a, got, err := s.End()
	if err != nil || a.Verdict != Continue {
		t.Fatalf("%+v, %v", a, err)
	}
	want := []Change{
		{AddHeader, 0, "X-Spam", " Yes"},
		{InsertHeader, 1, "DKIM-Signature", " v=1;\r\n\tb=abc\r\n def"},
		{ChangeHeader, 2, "Subject", ""},
		{AddHeader, 0, "X-Evil", " a\r\n\tBcc: x@y\r\n\tz q"},
		{Kind: Quarantine, Value: "looks bad"},
		{Kind: Unasked, Name: "add a recipient"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("changes\n%+v\nwant\n%+v", got, want)
	}
}

// TestFaults: whatever a filter does wrong is an error and never waits for long.
func TestFaults(t *testing.T) {
	at := func(cmd byte, p ...miltertest.Packet) *miltertest.Filter {
		return &miltertest.Filter{Answer: func(c byte, _ string) []miltertest.Packet {
			if c == cmd {
				return p
			}
			return miltertest.Continue
		}}
	}
	flood := slices.Repeat([]miltertest.Packet{miltertest.AddHeader("X", "y")}, maxChanges+1)
	for name, f := range map[string]*miltertest.Filter{
		"unknown answer":        at('M', miltertest.Packet{Code: '!'}),
		"reply of success":      at('M', miltertest.Packet{Code: 'y', Data: "250 fine\x00"}),
		"reply without a code":  at('M', miltertest.Packet{Code: 'y', Data: "no\x00"}),
		"two codes":             at('M', miltertest.Packet{Code: 'y', Data: "550-a\r\n450 b\x00"}),
		"silence":               at('M'),
		"silence at the end":    at('E'),
		"body replaced":         at('E', miltertest.Packet{Code: 'b', Data: "other"}),
		"change without index":  at('E', miltertest.Packet{Code: 'm', Data: "\x00"}),
		"index beyond sense":    at('E', miltertest.ChangeHeader(1<<20, "Subject", "x")),
		"field without a name":  at('E', miltertest.AddHeader("", "x")),
		"name with a colon":     at('E', miltertest.AddHeader("A: b", "x")),
		"name with a line":      at('E', miltertest.AddHeader("A\r\nB", "x")),
		"value without its end": at('E', miltertest.Packet{Code: 'h', Data: "A\x00b"}),
		"too many changes":      at('E', flood...),
		"too much changed": at('E', slices.Repeat([]miltertest.Packet{
			miltertest.AddHeader("X", strings.Repeat("y", 500_000))}, 3)...),
		"packet too large": at('E', miltertest.Packet{Code: 'c', Data: strings.Repeat("x", maxPacket)}),
		"version 1":        {Version: 1},
		"version 7":        {Version: 7},
	} {
		miltertest.Start(t, f)
		s, err := Open(context.Background(), Config{Network: f.Network, Address: f.Addr,
			Timeout: 100 * time.Millisecond, EndTimeout: 100 * time.Millisecond})
		for _, st := range message() {
			if err == nil {
				_, err = st(s)
			}
		}
		if err == nil {
			_, _, err = s.End()
		}
		if err == nil || !strings.HasPrefix(err.Error(), "filter: ") {
			t.Errorf("%s: %v", name, err)
		}
		if strings.HasPrefix(name, "silence") && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		if s != nil {
			s.Close()
		}
	}
}

func TestSkip(t *testing.T) {
	f := &miltertest.Filter{Answer: func(cmd byte, _ string) []miltertest.Packet {
		if cmd == 'B' {
			return []miltertest.Packet{{Code: 's'}}
		}
		return miltertest.Continue
	}}
	s := open(t, f)
	follow(t, s, message())
	if _, err := s.Body([]byte("more")); err != nil {
		t.Fatal(err)
	}
	s.End()
	bodies := slices.DeleteFunc(f.Seen(), func(s string) bool { return s[0] != 'B' })
	if len(bodies) != 1 {
		t.Errorf("it was shown %d pieces and wanted one", len(bodies))
	}
	// The next message is another one.
	follow(t, s, message()[2:])
	bodies = slices.DeleteFunc(f.Seen(), func(s string) bool { return s[0] != 'B' })
	if len(bodies) != 2 {
		t.Errorf("it was shown %d pieces of two messages", len(bodies))
	}
}

func TestAbort(t *testing.T) {
	f := &miltertest.Filter{}
	s := open(t, f)
	if err := s.Abort(); err != nil { // nothing to give up
		t.Fatal(err)
	}
	follow(t, s, message()[:4])
	if err := s.Abort(); err != nil {
		t.Fatal(err)
	}
	follow(t, s, message()[2:4])
	if n := strings.Count(strings.Join(f.Seen(), ""), "A"); n != 1 {
		t.Errorf("given up %d times", n)
	}
}

// TestContext: the end of the context ends whatever waits.
func TestContext(t *testing.T) {
	f := &miltertest.Filter{Answer: func(byte, string) []miltertest.Packet { return nil }}
	miltertest.Start(t, f)
	ctx, cancel := context.WithCancel(context.Background())
	s, err := Open(ctx, Config{Network: f.Network, Address: f.Addr})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := s.Helo("x"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
	if _, err := s.Helo("x"); err == nil {
		t.Error("and it goes on")
	}
}

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]string{
		"unix:/run/x.sock": "unix /run/x.sock", "/run/x.sock": "unix /run/x.sock",
		"local:/run/x": "unix /run/x", "inet:127.0.0.1:8891": "tcp 127.0.0.1:8891",
		"127.0.0.1:8891": "tcp 127.0.0.1:8891", "inet:8891@127.0.0.1": "tcp 127.0.0.1:8891",
		"inet6:8891@[::1]": "tcp [::1]:8891", "localhost:11332": "tcp localhost:11332",
		"127.0.0.1": "", "host:smtp": "", "": "",
	} {
		network, addr, err := ParseAddress(in)
		if got := strings.TrimSpace(network + " " + addr); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	for _, p := range []miltertest.Packet{{Code: 'c'}, {Code: 'y', Data: "550 5.7.1 no\x00"},
		miltertest.AddHeader("X-Spam", "a\nb"), miltertest.ChangeHeader(1, "Subject", ""),
		{Code: 'q', Data: "why\x00"}} {
		f.Add(p.Bytes(), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, lead bool) {
		code, data, err := readPacket(strings.NewReader(string(b)))
		if err != nil {
			return
		}
		c, isChange, err := parseChange(code, data, lead)
		if isChange && err == nil {
			if strings.Contains(strings.ReplaceAll(c.Value, "\r\n", ""), "\n") ||
				strings.Contains(strings.ReplaceAll(c.Value, "\r\n", ""), "\r") {
				t.Fatalf("bare line end in %q", c.Value)
			}
			for line := range strings.SplitSeq(c.Value, "\r\n") {
				if line != c.Value && strings.Trim(line, " \t") == "" && !strings.HasPrefix(c.Value, line) {
					t.Fatalf("empty line in %q", c.Value)
				}
			}
			return
		}
		if a, err := parseAnswer(code, data); err == nil && a.Verdict >= Reject && a.Verdict != Discard &&
			(a.Code < 400 || a.Code > 599) {
			t.Fatalf("%+v", a)
		}
	})
}
