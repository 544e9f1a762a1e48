package relay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

// pair makes a domain with two hosts, the first with answers of its own.
func (w *world) pair(say answers, change ...func(*remote)) (first, second *remote) {
	w.t.Helper()
	w.mx("d.example", "10 mx1.example", "20 mx2.example")
	return w.remote("mx1.example", "192.0.2.1", say, change...), w.remote("mx2.example", "192.0.2.2", nil)
}

// TestRefusals: which refusal sends the message to the next host, which puts it off, which ends it. Words are
// passed on as they were said.
func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		name string
		say  answers // of the best host; the second takes everything
		want string
		next bool   // the second host gets the message
		says string // the reply, where it is not one of say
	}{
		{"trouble at MAIL", answers{"MAIL": "451 4.3.0 later"}, "delivered 2.0.0", true, ""},
		{"trouble at RCPT", answers{"RCPT": "451 4.3.0 later"}, "delivered 2.0.0", true, ""},
		{"trouble at DATA", answers{"DATA": "451 4.3.0 later"}, "delivered 2.0.0", true, ""},
		{"trouble after the message", answers{".": "451 4.3.0 later"}, "delivered 2.0.0", true, ""},
		{"no room on their disk", answers{"MAIL": "452 4.3.1 insufficient system storage"}, "delivered 2.0.0", true, ""},
		{"4yz without more", answers{"MAIL": "450 ugh"}, "delivered 2.0.0", true, ""},
		{"421 at MAIL", answers{"MAIL": "421 4.3.2 going down"}, "delivered 2.0.0", true, ""},
		{"421 at RCPT", answers{"RCPT": "421 4.3.2 going down"}, "delivered 2.0.0", true, ""},
		{"421 after the message", answers{".": "421 4.3.2 going down"}, "delivered 2.0.0", true, ""},
		{"421 as greeting", answers{"greeting": "421 too busy"}, "delivered 2.0.0", true, ""},
		{"554 as greeting", answers{"greeting": "554 no SMTP service here"}, "delivered 2.0.0", true, ""},
		{"521 as greeting", answers{"greeting": "521 does not accept mail"}, "delivered 2.0.0", true, ""},
		{"EHLO refused", answers{"EHLO": "550 go away", "HELO": "550 go away"}, "delivered 2.0.0", true, ""},
		{"HELO alone", answers{"EHLO": "502 what"}, "delivered 2.0.0", false, "250 2.0.0 taken"},
		{"no greeting", answers{"greeting": "HANG"}, "delivered 2.0.0", true, ""},
		{"closed before the greeting", answers{"greeting": "CLOSE"}, "delivered 2.0.0", true, ""},
		{"reset in EHLO", answers{"EHLO": "RESET"}, "delivered 2.0.0", true, ""},
		{"half closed as greeting", answers{"greeting": "HALF"}, "delivered 2.0.0", true, ""},
		{"half closed in EHLO", answers{"EHLO": "HALF"}, "delivered 2.0.0", true, ""},
		{"nonsense as greeting", answers{"greeting": "HTTP/1.1 400 Bad Request"}, "delivered 2.0.0", true, ""},
		{"slow", answers{"greeting": "SLOW 220 hi", "MAIL": "SLOW 250 ok", ".": "SLOW SLOW 250 ok"}, "delivered 2.0.0", false, "250 ok"},

		{"greylisted", answers{"RCPT": "450 4.2.0 Greylisted, try again in 300 seconds"}, "deferred 4.2.0 greylisted", false, ""},
		{"mailbox full for now", answers{"RCPT": "452 4.2.2 over quota"}, "deferred 4.2.2 mailbox full", false, ""},
		{"rate limit", answers{"MAIL": "451 4.7.1 rate limit exceeded"}, "deferred 4.7.1 rate limited", false, ""},
		{"421 for the rate", answers{"MAIL": "421 4.7.0 too many connections"}, "deferred 4.7.0 rate limited", false, ""},
		{"rate limit in the greeting", answers{"greeting": "421 4.7.0 too many connections from you"}, "deferred 4.7.0 rate limited", false, ""},
		{"blocked in the greeting", answers{"greeting": "554 blocked using zen.spamhaus.org"}, "delivered 2.0.0", true, ""},

		{"no such user", answers{"RCPT": "550 5.1.1 who?"}, "failed 5.1.1 no such user", false, ""},
		{"no such user, without a code", answers{"RCPT": "550 No such user here"}, "failed 5.1.1 no such user", false, ""},
		{"over quota as 5yz", answers{"RCPT": "552 5.2.2 over quota"}, "failed 5.2.2 mailbox full", false, ""},
		{"refused as spam", answers{".": "554 5.7.1 this looks like spam"}, "failed 5.7.1 content refused", false, ""},
		{"several lines", answers{".": "550-5.7.26 Unauthenticated\n550 5.7.26 see here"}, "failed 5.7.26 sender not proven", false, ""},
		{"a 5yz that passes", answers{"MAIL": "550 Ip frequency limited"}, "deferred 4.7.0 rate limited", false, ""},

		// The server cannot have the message.
		{"half closed in MAIL", answers{"MAIL": "HALF"}, "delivered 2.0.0", true, ""},
		{"reset in RCPT", answers{"RCPT": "RESET"}, "delivered 2.0.0", true, ""},
		{"closed instead of 354", answers{"DATA": "CLOSE"}, "delivered 2.0.0", true, ""},
		{"nonsense in MAIL", answers{"MAIL": "hello there"}, "delivered 2.0.0", true, ""},

		// The server may have the message: another attempt comes, but not at once and at another host.
		{"lost after the message", answers{".": "CLOSE"}, "deferred 4.4.2 connection lost", false,
			"451 4.4.2 the connection to mx1.example [192.0.2.1] was lost before it answered, so it may have the message: EOF"},
		{"no final reply", answers{".": "HANG"}, "deferred 4.4.2 connection lost", false,
			"451 4.4.2 the connection to mx1.example [192.0.2.1] was lost before it answered, so it may have the message: " +
				"read tcp 192.0.2.250:49152->192.0.2.1:25: i/o timeout"},
		{"taken and lost", answers{".": "TAKE CLOSE"}, "deferred 4.4.2 connection lost", false,
			"451 4.4.2 the connection to mx1.example [192.0.2.1] was lost before it answered, so it may have the message: EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, nil, func(w *world) {
				first, second := w.pair(tt.say)
				got := w.deliver("u@d.example")
				w.expect(got, tt.want)
				if n := len(second.got()); (n == 1) != tt.next {
					t.Errorf("the second host got %d messages", n)
				}
				want := []string{tt.says}
				switch {
				case tt.next:
					want = []string{"250 2.0.0 taken"}
				case tt.says == "":
					want = nil
					for _, s := range tt.say {
						want = append(want, s)
					}
				}
				if !slices.Contains(want, got[0].Reply) {
					t.Errorf("reply %q, want one of %q", got[0].Reply, want)
				}
				if strings.HasPrefix(tt.want, "delivered") && len(first.got()) == 0 && !tt.next {
					t.Error("nobody has the message")
				}
			})
		})
	}
}

// TestOurs: a server's words are told from ours about it.
func TestOurs(t *testing.T) {
	for _, tt := range []struct {
		name string
		say  answers
		caps []string
		ours bool
	}{
		{"refused", answers{"RCPT": "550 5.1.1 who?"}, nil, false},
		{"refused with its own name", answers{"RCPT": "550 5.1.1 mx1.example: who?"}, nil, false},
		{"turned away", answers{"greeting": "554 5.7.1 not you"}, nil, false},
		{"taken", nil, nil, false},
		{"nonsense as greeting", answers{"greeting": "hello"}, nil, true},
		{"hung up in MAIL", answers{"MAIL": "CLOSE"}, nil, true},
		{"hung up at the end", answers{".": "CLOSE"}, nil, true},
		{"too large", nil, []string{"SIZE 10"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, nil, func(w *world) {
				r := w.remote("mx1.example", "192.0.2.1", tt.say)
				r.caps = tt.caps
				w.mx("d.example", "10 mx1.example")
				if got := w.deliver("u@d.example"); got[0].Peer == nil || Ours(&got[0]) != tt.ours {
					t.Errorf("%+v", got[0])
				}
			})
		})
	}
	bubble(t, nil, func(w *world) {
		w.zone.Set("mx1.example", "A 192.0.2.1")
		w.mx("d.example", "10 mx1.example")
		if got := w.deliver("u@d.example"); !Ours(&got[0]) {
			t.Errorf("nobody is there: %+v", got[0])
		}
	})
}

// TestNobodyTakesIt: what the sender is told where all hosts turn us away.
func TestNobodyTakesIt(t *testing.T) {
	for _, tt := range []struct{ name, both, want, says string }{
		{"no service", "554 No SMTP service", "deferred 4.3.0 server trouble", "554 No SMTP service"},
		{"never any mail", "521 mx.example does not accept mail", "failed 5.1.2 no such domain",
			"521 mx.example does not accept mail"}, // RFC 7504
		{"blocked", "554 blocked using zen.spamhaus.org", "deferred 4.7.1 sender blocked", "554 blocked using zen.spamhaus.org"},
		{"busy", "421 4.3.2 busy", "deferred 4.3.2 server trouble", "421 4.3.2 busy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, nil, func(w *world) {
				_, second := w.pair(answers{"greeting": tt.both})
				second.set("greeting", tt.both)
				got := w.deliver("u@d.example")
				w.expect(got, tt.want)
				if got[0].Reply != tt.says || got[0].Outcome == queue.Deferred && !got[0].Unreachable {
					t.Errorf("result %+v", got[0])
				}
			})
		})
	}
}

// TestWordsBeforeSilence: what a server said is worth more than that another was away.
func TestWordsBeforeSilence(t *testing.T) {
	bubble(t, nil, func(w *world) {
		w.remote("mx1.example", "192.0.2.1", answers{"RCPT": "451 4.3.0 not now"})
		w.zone.Set("mx2.example", "A 192.0.2.2")
		w.mx("d.example", "10 mx1.example", "20 mx2.example")
		got := w.deliver("u@d.example")
		w.expect(got, "deferred 4.3.0 server trouble")
		if got[0].Reply != "451 4.3.0 not now" || got[0].Unreachable {
			t.Errorf("result %+v", got[0])
		}
	})
}

// TestRecipientsApart: each recipient has its own fate, and only those left over go to the next host.
func TestRecipientsApart(t *testing.T) {
	bubble(t, nil, func(w *world) {
		first, second := w.pair(answers{"RCPT full": "452 4.2.2 full", "RCPT nobody": "550 5.1.1 no", "RCPT sick": "451 4.3.0 sick"})
		second.set("RCPT worse", "451 4.3.5 worse")
		first.set("RCPT worse", "451 4.3.0 bad")
		got := w.deliver("full@d.example", "ok@d.example", "nobody@d.example", "sick@d.example", "worse@d.example")
		w.expect(got, "deferred 4.2.2 mailbox full", "delivered 2.0.0", "failed 5.1.1 no such user",
			"delivered 2.0.0", "deferred 4.3.5 server trouble")
		if m := first.got(); len(m) != 1 || !strings.HasPrefix(m[0], "a@us.example>ok@d.example: ") {
			t.Errorf("first got %q", m)
		}
		if m := second.got(); len(m) != 1 || !strings.HasPrefix(m[0], "a@us.example>sick@d.example: ") {
			t.Errorf("second got %q", m)
		}
		if got[1].Peer.Name != "mx1.example" || got[3].Peer.Name != "mx2.example" {
			t.Errorf("peers %v, %v", got[1].Peer, got[3].Peer)
		}
	})
}

// TestLostIsNotStuck: a host that breaks off each message is not tried first for ever.
func TestLostIsNotStuck(t *testing.T) {
	bubble(t, nil, func(w *world) {
		first, second := w.pair(answers{".": "TAKE RESET"})
		w.expect(w.deliver("u@d.example"), "deferred 4.4.2 connection lost")
		w.expect(w.deliver("u@d.example"), "delivered 2.0.0")
		if a, b := len(first.got()), len(second.got()); a != 1 || b != 1 {
			t.Errorf("first took %d, second %d", a, b)
		}
	})
}

// TestReuse: messages follow each other on one connection; RSET comes in between only after a while.
func TestReuse(t *testing.T) {
	bubble(t, nil, func(w *world) {
		first, _ := w.pair(nil)
		for range 5 {
			w.expect(w.deliver("u@d.example"), "delivered 2.0.0")
		}
		if n, _ := first.connections(); n != 1 || first.count("RSET") != 0 {
			t.Errorf("%d connections, %d RSET", n, first.count("RSET"))
		}
		time.Sleep(2 * time.Second)
		w.expect(w.deliver("u@d.example"), "delivered 2.0.0")
		if n, _ := first.connections(); n != 1 || first.count("RSET") != 1 {
			t.Errorf("%d connections, %d RSET after a rest", n, first.count("RSET"))
		}
		time.Sleep(20 * time.Second)
		if n := first.count("QUIT"); n != 1 {
			t.Errorf("%d QUIT after the idle time", n)
		}
		if s := w.relay.Sites(); len(s) != 1 || s[0].Idle != 0 {
			t.Errorf("sites %+v", s)
		}
	})
}

// TestReuseAcrossDomains: domains with the same servers share connections.
func TestReuseAcrossDomains(t *testing.T) {
	bubble(t, nil, func(w *world) {
		first, _ := w.pair(nil)
		for i := range 50 {
			domain := fmt.Sprintf("d%d.example", i)
			w.mx(domain, "10 mx1.example", "20 mx2.example")
			w.expect(w.deliver("u@"+domain), "delivered 2.0.0")
		}
		if n, _ := first.connections(); n != 1 {
			t.Errorf("%d connections", n)
		}
		if s := w.relay.Sites(); len(s) != 1 || s[0].Name != "mx1.example,mx2.example" {
			t.Errorf("sites %+v", s)
		}
	})
}

// TestStale: a connection that the server has ended while it waited is noticed, and the message goes over a
// new one in the same attempt.
func TestStale(t *testing.T) {
	for _, tt := range []struct {
		name string
		wait time.Duration
		end  func(w *world, r *remote)
	}{
		{"closed at once", 0, func(w *world, r *remote) { w.net.Kill(netip.MustParseAddr("192.0.2.1")) }},
		{"421 to MAIL", 0, func(w *world, r *remote) { r.set("MAIL", "421 4.4.2 idle for too long") }},
		{"421 to RSET", 3 * time.Second, func(w *world, r *remote) { r.set("RSET", "421 4.4.2 idle for too long") }},
		{"closed while it rests", 3 * time.Second, func(w *world, r *remote) { r.set("RSET", "CLOSE") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, nil, func(w *world) {
				first, second := w.pair(nil)
				w.expect(w.deliver("u@d.example"), "delivered 2.0.0")
				tt.end(w, first)
				time.Sleep(tt.wait)
				got := w.deliver("u@d.example")
				w.expect(got, "delivered 2.0.0")
				if tt.name == "421 to MAIL" && len(second.got()) != 1 {
					t.Error("the second host did not get it, though the first says 421 to new connections as well")
				}
			})
		})
	}
}

// TestMessagesPerConnection: our own limit, and the server's (RFC 9422, MAILMAX and RCPTMAX).
func TestMessagesPerConnection(t *testing.T) {
	for _, tt := range []struct {
		name  string
		max   int
		caps  string
		conns int // for ten messages of three recipients
	}{
		{"ours", 4, "", 3},
		{"theirs", 0, "LIMITS MAILMAX=5", 2},
		{"recipients", 0, "LIMITS MAILMAX=3 RCPTMAX=1", 10},
		{"recipients, over several connections", 0, "LIMITS MAILMAX=2 RCPTMAX=1", 15},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(c *Config) { c.MaxMessages = tt.max }, func(w *world) {
				r, _ := w.pair(nil, func(r *remote) {
					if tt.caps != "" {
						r.caps = []string{tt.caps}
					}
				})
				for range 10 {
					w.expect(w.deliver("a@d.example", "b@d.example", "c@d.example"),
						"delivered 2.0.0", "delivered 2.0.0", "delivered 2.0.0")
				}
				if n, _ := r.connections(); n != tt.conns {
					t.Errorf("%d connections, want %d", n, tt.conns)
				}
			})
		})
	}
}

// TestReconnect: a server that has had enough messages on one connection takes the next on another.
func TestReconnect(t *testing.T) {
	bubble(t, nil, func(w *world) {
		w.mx("d.example", "10 mta7.am0.yahoodns.net")
		r := w.remote("mta7.am0.yahoodns.net", "192.0.2.1", nil)
		w.expect(w.deliver("u@d.example"), "delivered 2.0.0")
		r.set("MAIL", "451 Max message per connection reached, closing transmission channel")
		go func() {
			time.Sleep(time.Millisecond)
			r.set("MAIL", "250 ok")
		}()
		r.set("EHLO", "SLOW 250 remote")
		got := w.deliver("u@d.example")
		w.expect(got, "delivered 2.0.0")
		if n, _ := r.connections(); n != 2 {
			t.Errorf("%d connections", n)
		}
		if s := w.relay.Sites()[0]; s.Limit < 3 || !s.Paused.IsZero() {
			t.Errorf("the site is slowed down: %+v", s)
		}
	})
}

// TestOurIPv6IsNotLiked: a refusal for the reverse name of our IPv6 address is not the last word where there
// is IPv4, and the next message takes that way first.
func TestOurIPv6IsNotLiked(t *testing.T) {
	const words = "550-5.7.1 [2001:db8::250] Our system has detected that this message does not meet IPv6\n" +
		"550-5.7.1 sending guidelines regarding PTR records and authentication. Please review\n550 5.7.1 it - gsmtp"
	for _, at := range []string{".", "MAIL", "greeting"} {
		t.Run(at, func(t *testing.T) {
			bubble(t, nil, func(w *world) {
				w.mx("d.example", "5 gmail-smtp-in.l.google.com")
				ca := w.authority()
				crypt := func(r *remote) { r.tls = ca.server(t, "gmail-smtp-in.l.google.com") }
				six := w.remote("gmail-smtp-in.l.google.com", "2001:db8::1", answers{at: words}, crypt)
				four := w.remote("gmail-smtp-in.l.google.com", "192.0.2.1", nil, crypt)
				w.expect(w.deliver("u@d.example"), "delivered 2.0.0")
				w.expect(w.deliver("u@d.example"), "delivered 2.0.0")
				if n, _ := six.connections(); n != 1 || len(four.got()) != 2 {
					t.Errorf("%d connections over IPv6", n)
				}
				if !strings.Contains(w.logged(), "refuse mail from here") {
					t.Error("the operator was not told")
				}
				// Without IPv4 it is the last word.
				w.zone.Set("gmail-smtp-in.l.google.com", "AAAA 2001:db8::1")
				time.Sleep(time.Minute)
				got := w.deliver("u@d.example")
				if at == "greeting" {
					w.expect(got, "deferred 4.7.1 sender not proven")
				} else {
					w.expect(got, "failed 5.7.1 sender not proven")
				}
				if got[0].Reply != words {
					t.Errorf("reply %q", got[0].Reply)
				}
			})
		})
	}
}

// TestDSN: the parameters go on, and whoever takes them has the duty to report (RFC 3461, section 5.2).
func TestDSN(t *testing.T) {
	for _, bare := range []bool{false, true} {
		bubble(t, nil, func(w *world) {
			w.pair(nil, func(r *remote) { r.bare = bare })
			got := w.send(message{notify: mail.NotifySuccess}, "u@d.example")
			w.expect(got, "delivered 2.0.0")
			if got[0].Relayed == bare {
				t.Errorf("relayed %v where DSN is not offered: %v", got[0].Relayed, bare)
			}
		})
	}
}

// TestStopped: an attempt that is broken off says so, and blames nobody.
func TestStopped(t *testing.T) {
	bubble(t, nil, func(w *world) {
		w.pair(answers{"MAIL": "HANG"})
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			time.Sleep(time.Second)
			cancel()
		}()
		got := w.send(message{ctx: ctx}, "u@d.example")
		w.expect(got, "deferred 4.4.1 unreachable")
		if got[0].Unreachable || !strings.Contains(got[0].Reply, "broken off") {
			t.Errorf("result %+v", got[0])
		}
		if s := w.relay.Sites()[0]; s.Limit != 3 {
			t.Errorf("the site pays for it: %+v", s)
		}
	})
}

// TestEndless: a server that trickles its replies is given up at last.
func TestEndless(t *testing.T) {
	bubble(t, nil, func(w *world) {
		long := strings.Repeat("SLOW ", 4) + "250 ok"
		w.pair(answers{"greeting": strings.Repeat("SLOW ", 4) + "220 ok", "EHLO": long, "MAIL": long, "RCPT": long})
		var to []string
		for i := range 20 {
			to = append(to, fmt.Sprintf("u%d@d.example", i))
		}
		begun := time.Now()
		got := w.deliver(to...)
		if took := time.Since(begun); took > 31*time.Minute || got[0].Outcome != queue.Deferred || !got[0].Unreachable {
			t.Errorf("%v, %+v", took, got[0])
		}
	})
}

// badBody is a message that cannot be read.
type badBody struct{}

var errDisk = errors.New("input/output error")

func (badBody) ReadAt([]byte, int64) (int, error) { return 0, errDisk }

// TestUnreadable: a message that we cannot read is our fault and not the server's.
func TestUnreadable(t *testing.T) {
	bubble(t, nil, func(w *world) {
		first, _ := w.pair(nil)
		env := mail.Envelope{From: parse("a@us.example"), Recipients: []mail.Recipient{{Address: parse("u@d.example")}}}
		got := w.relay.Deliver(context.Background(), &queue.Delivery{Envelope: env, Route: "smtp:d.example", Size: 10, Body: badBody{}})
		w.expect(got, "deferred 4.3.0 our configuration")
		w.expect(w.deliver("u@d.example"), "delivered 2.0.0")
		if n := len(first.got()); n != 1 {
			t.Errorf("the host is shunned: it got %d", n)
		}
	})
}
