package interop

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
)

// kind is a message that must pass a pair of servers whole. It is preceded by a field X-Kind with its name;
// what follows that field is compared octet by octet.
type kind struct {
	name   string
	letter letter
	copies int // in the mailbox
}

// kinds returns the messages. Their recipients are sub-addresses of one mailbox.
func kinds(domain string) []kind {
	// The generator is seeded: whoever looks for a fault wants the same octets again.
	random := rand.New(rand.NewPCG(1, 2))
	wide := make([]byte, 200_000)
	for i := range wide {
		wide[i] = byte('!' + random.IntN(94))
	}
	var large strings.Builder
	for large.Len() < 20<<20 {
		from := random.IntN(len(wide) - 80)
		large.Write(wide[from : from+76])
		large.WriteString("\r\n")
	}
	var many []string
	for i := range 300 {
		many = append(many, fmt.Sprintf("user+%d@%s", i, domain))
	}
	const from = "ada@elsewhere.test"
	box := []string{"user@" + domain}
	return []kind{
		{"plain", letter{from: from, to: box, text: "Subject: plain\r\n\r\none\r\ntwo\r\n"}, 1},
		{"dots", letter{from: from, to: box,
			text: "Subject: dots\r\n\r\n.\r\n..\r\n.x\r\n. \r\n\r\n.\r\n"}, 1},
		{"no body", letter{from: from, to: box, text: "Subject: no body\r\n\r\n"}, 1},
		{"8BITMIME", letter{from: from, to: box, params: "BODY=8BITMIME", text: "Subject: 8 bits\r\n" +
			"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\n" +
			"Content-Transfer-Encoding: 8bit\r\n\r\nGr\xfc\xdfe\r\n"}, 1},
		{"SMTPUTF8", letter{from: "grüße@elsewhere.test", to: box, params: "BODY=8BITMIME SMTPUTF8",
			text: "Subject: Grüße\r\n\r\nGrüße, 你好\r\n"}, 1},
		{"null sender", letter{to: box, text: "Subject: null sender\r\n\r\nbody\r\n"}, 1},
		{"long lines", letter{from: from, to: box, text: "Subject: long lines\r\n\r\n" +
			string(wide[:998]) + "\r\n" + string(wide[:999]) + "\r\n" + string(wide) + "\r\nend\r\n"}, 1},
		{"20 MiB", letter{from: from, to: box, text: "Subject: 20 MiB\r\n\r\n" + large.String()}, 1},
		{"300 recipients", letter{from: from, to: many, text: "Subject: 300\r\n\r\nto all\r\n"}, 300},
		{"last", letter{from: from, to: box,
			text: "Subject: last\r\n\r\n" + strings.Repeat("line\r\n", 1000)}, 1},
	}
}

// postKinds hands all messages over on one connection.
func postKinds(t *testing.T, addr string, all []kind) {
	t.Helper()
	var letters []letter
	for i, k := range all {
		l := k.letter
		// With these there is nothing to add on the way but trace fields.
		l.text = fmt.Sprintf("Date: %s\r\nMessage-ID: <%d.kind@elsewhere.test>\r\nFrom: %s\r\nTo: %s\r\n"+
			"X-Kind: %s\r\n%s", time.Now().Format(time.RFC1123Z), i, l.from, l.to[0], k.name, l.text)
		if l.from == "" {
			l.text = strings.Replace(l.text, "From: ", "From: mailer@elsewhere.test", 1)
		}
		letters = append(letters, l)
	}
	post(t, addr, letters...)
}

// expectKinds waits until a mailbox has every copy of every message, and holds each against what was sent.
func expectKinds(t *testing.T, mailbox func() []string, all []kind) map[string]string {
	t.Helper()
	want := 0
	for _, k := range all {
		want += k.copies
	}
	eventually(45*time.Second, func() bool { return len(mailbox()) >= want })
	copies, heads := make(map[string]int), make(map[string]string)
	texts := make(map[string]string)
	for _, k := range all {
		texts[k.name] = strings.ReplaceAll(k.letter.text, "\r\n", "\n")
	}
	for _, l := range mailbox() {
		head, rest, _ := strings.Cut(l, "X-Kind: ")
		name, text, ok := strings.Cut(rest, "\n")
		if wanted, known := texts[name]; !ok || !known {
			t.Errorf("an unknown letter:\n%.500s", l)
		} else if text != wanted {
			t.Errorf("%s has changed on its way: %s", name, difference(text, wanted))
		}
		copies[name]++
		heads[name] = head
	}
	for _, k := range all {
		if copies[k.name] != k.copies {
			t.Errorf("%s: %d copies, want %d", k.name, copies[k.name], k.copies)
		}
	}
	return heads
}

// difference says where two texts part.
func difference(got, want string) string {
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	return fmt.Sprintf("%d octets, want %d; at %d %.60q, want %.60q", len(got), len(want), at,
		got[at:min(len(got), at+60)], want[at:min(len(want), at+60)])
}

// TestOthersAsReceiver has the node find another server by MX and hand everything over.
func TestOthersAsReceiver(t *testing.T) {
	forOthers(t, func(t *testing.T, start func(otherConfig) *other) {
		o := start(otherConfig{})
		s := startSite(t, siteConfig{zone: zoneOf(t, o), smtp: trustLoopback, relay: portOf(t, o)})
		all := kinds("remote.test")
		postKinds(t, s.smtp, all)
		heads := expectKinds(t, o.letters, all)
		for name, head := range heads {
			if !strings.Contains(head, "TLS") {
				t.Errorf("%s was not encrypted:\n%s", name, head)
			}
		}
		if head := strings.ToLower(heads["null sender"]); !strings.Contains(head, "return-path: <>\n") {
			t.Errorf("the null sender is lost:\n%s", head)
		}
		if head := heads["SMTPUTF8"]; !strings.Contains(head, "grüße@elsewhere.test") {
			t.Errorf("the sender in UTF-8 is lost:\n%s", head)
		}
		for _, m := range extensionsSeen[o.name] {
			// Postfix counts when the connection ends, which we keep open for a while.
			if !eventually(15*time.Second, func() bool { return m.MatchString(o.log()) }) {
				t.Errorf("%s did not log %s", o.name, m)
			}
		}
	})
}

// trustLoopback lets the tests send anything anywhere.
const trustLoopback = `relay_from = ["127.0.0.0/8"]`

// zoneOf returns a zone in which remote.test is another server, past one that is dead.
func zoneOf(t *testing.T, o *other) *dns.Zone {
	host, _ := hostPort(t, o.addr)
	return dns.MustZone(map[string][]string{
		"remote.test":      {"MX 10 dead.remote.test.", "MX 20 mx.remote.test."},
		"dead.remote.test": {"A 127.0.0.77"},
		"mx.remote.test":   {"A " + host},
	})
}

func portOf(t *testing.T, o *other) string {
	_, port := hostPort(t, o.addr)
	return "port = " + port
}

// TestOthersAsSender has another server relay everything to the node.
func TestOthersAsSender(t *testing.T) {
	forOthers(t, func(t *testing.T, start func(otherConfig) *other) {
		s := startSite(t, siteConfig{})
		o := start(otherConfig{smarthost: s.smtp})
		all := kinds("local.test")
		for i := range all {
			all[i].copies = min(all[i].copies, 1) // one mailbox gets one copy of what comes at once
		}
		postKinds(t, o.addr, all)
		heads := expectKinds(t, s.letters, all)
		for name, head := range heads {
			if !strings.Contains(head, "SMTPS id ") {
				t.Errorf("%s was not encrypted:\n%s", name, head)
			}
		}
	})
}

// TestOthersAsClient has another server log in to the node on the port where TLS begins with the first octet,
// as one behind a smarthost does.
func TestOthersAsClient(t *testing.T) {
	forOthers(t, func(t *testing.T, start func(otherConfig) *other) {
		s := startSite(t, siteConfig{})
		o := start(otherConfig{smarthost: s.tls, user: user, password: s.password})
		post(t, o.addr, letter{from: user, to: []string{user}, text: "From: " + user + "\r\nSubject: logged in\r\n\r\n"},
			letter{from: "other@local.test", to: []string{user}, text: "From: other@local.test\r\nSubject: forged\r\n\r\n"})
		if l := s.awaitLetters(1)[0]; !strings.Contains(l, "with ESMTPSA id") || !strings.Contains(l, "Subject: logged in") {
			t.Errorf("not submitted:\n%s", l)
		}
		refused := "553 5.7.1 <other@local.test> is not an address of the account"
		if !eventually(10*time.Second, func() bool { return strings.Contains(o.log(), refused) }) {
			t.Errorf("%s was not told %q", o.name, refused)
		}
	})
}

// TestRequireTLSWhereUnknown submits a message that must not leave without REQUIRETLS (RFC 8689) for a server
// that does not know it.
func TestRequireTLSWhereUnknown(t *testing.T) {
	forOthers(t, func(t *testing.T, start func(otherConfig) *other) {
		o := start(otherConfig{})
		s := startSite(t, siteConfig{zone: zoneOf(t, o), relay: portOf(t, o)})
		k := dial(t, s.submit)
		k.say("EHLO client.test", "250")
		k = k.startTLS()
		k.logIn(user, s.password)
		k.hand(letter{from: user, params: "REQUIRETLS", to: []string{"box@remote.test"},
			text: "From: " + user + "\r\nSubject: guarded\r\n\r\nsecret\r\n"})
		r := s.awaitReport()
		r.expectRecipient(t, map[string]string{"action": "failed", "status": "5.7."})
		if strings.Contains(r.Original, "secret") {
			t.Error("the report, which may go in the clear, has the body (RFC 8689, section 5)")
		}
		if len(o.letters()) > 0 {
			t.Errorf("%s got the message all the same", o.name)
		}
	})
}
