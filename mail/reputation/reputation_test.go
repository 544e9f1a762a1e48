package reputation

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/mail"
)

var start = time.Unix(1.7e9, 0)

func points(rs []Reason, name string) float64 {
	for _, r := range rs {
		if r.Name == name {
			return r.Points
		}
	}
	return math.NaN()
}

func TestSenderHistory(t *testing.T) {
	h := New()
	good, bad := sender("good.test", "192.0.2.0/24"), sender("bad.test", "198.51.100.0/24")
	for range 20 {
		h.Learn(good, nil, Ham, start)
		h.Learn(bad, nil, Spam, start)
	}
	if got := h.Weigh(sender("new.test", "203.0.113.0/24"), nil, start); len(got) != 0 {
		t.Errorf("a stranger: %v", got)
	}
	g, b := points(h.Weigh(good, nil, start), "history"), points(h.Weigh(bad, nil, start), "history")
	if g > -3 || b < 3 {
		t.Errorf("good %.1f, bad %.1f", g, b)
	}
	later := points(h.Weigh(bad, nil, start.Add(6*halfLife)), "history")
	if later <= 0 || later > b/4 {
		t.Errorf("six half lives later %.2f, at first %.2f", later, b)
	}
	// A network alone says less than a domain.
	if n := points(h.Weigh(Sender{Network: bad.Network}, nil, start), "history"); n <= 0 || n >= b {
		t.Errorf("network alone %.1f, domain %.1f", n, b)
	}
}

func TestUnlearnTakesBack(t *testing.T) {
	h := New()
	s := sender("x.test", "192.0.2.0/24")
	tokens := []Token{1, 2, 3}
	h.Learn(s, tokens, Spam, start)
	h.Unlearn(s, tokens, Spam, start)
	if r := h.senders["d:x.test"]; r.spam != 0 || h.words.spam != 0 || len(h.words.counts) != 0 {
		t.Errorf("left: %+v, %v spam, %v", r, h.words.spam, h.words.counts)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	h := New()
	for i := range maxSenders + 1000 {
		h.Learn(Sender{Domains: []string{fmt.Sprint(i)}}, []Token{Token(3 * i), Token(3*i + 1), Token(3*i + 2), Token(3*i + 7)},
			Class(i%2), start)
	}
	if len(h.senders) > maxSenders || len(h.words.counts) > maxTokens {
		t.Errorf("%d senders, %d tokens", len(h.senders), len(h.words.counts))
	}
}

// TestChi2 checks values of a table: the probability of at least x with so many degrees of freedom.
func TestChi2(t *testing.T) {
	for _, c := range []struct {
		x       float64
		degrees int
		want    float64
	}{{5.991, 2, 0.05}, {9.488, 4, 0.05}, {18.307, 10, 0.05}, {23.209, 10, 0.01}, {0, 4, 1}} {
		if got := chi2(c.x, c.degrees); math.Abs(got-c.want) > 0.0005 {
			t.Errorf("chi2(%v, %d) = %.4f, want %.2f", c.x, c.degrees, got, c.want)
		}
	}
}

func TestWordsNeedTraining(t *testing.T) {
	w := newWords()
	for i := range 2 * minTrained {
		w.learn([]Token{Token(i % 2), 7}, Class(i%2), 1)
	}
	spam, _, ok := w.judge([]Token{1, 7})
	ham, _, _ := w.judge([]Token{0, 7})
	if !ok || spam < 0.8 || ham > 0.2 {
		t.Errorf("spam %.3f, ham %.3f, %v", spam, ham, ok)
	}
	if p, n, _ := w.judge([]Token{7, 99}); p != 0.5 || n != 0 {
		t.Errorf("words that say nothing: %.3f by %d", p, n)
	}
	w = newWords()
	w.learn([]Token{1}, Spam, minTrained)
	if _, _, ok := w.judge([]Token{1}); ok {
		t.Error("judged without knowing any wanted mail")
	}
}

func TestTokens(t *testing.T) {
	msg := "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= now\r\nFrom: Ada <ada@x.test>\r\n" +
		"Content-Type: text/html; charset=utf-8\r\n\r\n" +
		"<style>hidden words</style><p>Visible <a href=\"https://www.shop.example.com/x\">offer</a></p> 你好吗"
	h, err := mail.ParseHeader([]byte(msg))
	if err != nil {
		t.Fatal(err)
	}
	have := make(map[Token]bool)
	for _, tok := range Tokens(h, []byte(msg)) {
		have[tok] = true
	}
	for _, want := range []string{"s:grüße", "s:now", "f:ada", "visible", "offer", "u:www.shop.example.com",
		"u:example.com", "h:a", "t:text/html", "你好"} {
		if !have[hash(want)] {
			t.Errorf("no token %q", want)
		}
	}
	for _, not := range []string{"hidden", "u:com", "href"} {
		if have[hash(not)] {
			t.Errorf("token %q", not)
		}
	}
}

func FuzzTokens(f *testing.F) {
	f.Add([]byte("Subject: x\r\nContent-Type: text/html\r\n\r\n<style>a</style><a href=http://x.y>z"))
	f.Add([]byte("Content-Type: text/html\r\n\r\n<script>\xff\xfe</SCRIPT"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		h, _ := mail.ParseHeader(msg)
		if n := len(Tokens(h, msg)); n > maxPerMail {
			t.Errorf("%d tokens", n)
		}
	})
}

func TestSaveAndLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "reputation")
	h, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	s := sender("x.test", "192.0.2.0/24")
	h.lesson("ID1", s, []Token{1, 2}, Spam, start)
	if err := h.Save(file); err != nil {
		t.Fatal(err)
	}
	again, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	again.lesson("ID1", s, []Token{1, 2}, Spam, start) // known already
	if r := again.senders["d:x.test"]; r.spam != 1 || again.words.counts[1].spam != 1 {
		t.Errorf("%+v, %+v", r, again.words.counts)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, len(magic), len(b) / 2, len(b) - 1} {
		bad := append([]byte(nil), b...)
		bad[i] ^= 1
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("octet %d changed: %v", i, err)
		}
	}
}

func TestSenderOf(t *testing.T) {
	const msg = "Received: from x by mx.here.test id 7\r\n" +
		"Authentication-Results: mx.here.test; iprev=pass policy.iprev=192.0.2.9;\r\n" +
		"\tspf=pass smtp.mailfrom=bounce.x.test; dkim=pass header.d=x.test header.i=@x.test;\r\n" +
		"\tdkim=fail header.d=bad.test; dmarc=pass header.from=x.test\r\n" +
		"Authentication-Results: elsewhere.test; dkim=pass header.d=forged.test\r\n" +
		"From: Ada <Ada@x.test>\r\n\r\n"
	h, err := mail.ParseHeader([]byte(msg))
	if err != nil {
		t.Fatal(err)
	}
	s, id, ok := SenderOf(h, "mx.here.test")
	want := Sender{Domains: []string{"bounce.x.test", "x.test"}, Author: "Ada@x.test",
		Network: netip.MustParsePrefix("192.0.2.0/24")}
	if !ok || id == "" || fmt.Sprint(s) != fmt.Sprint(want) {
		t.Errorf("%v, %q, %v; want %v", s, id, ok, want)
	}
	if _, _, ok := SenderOf(h, "other.test"); ok {
		t.Error("results of somebody else were believed")
	}
}

// TestLearnerFollowsTheUser plays what users do, a step a row.
func TestLearnerFollowsTheUser(t *testing.T) {
	root := t.TempDir()
	clk := clock.NewMock(time.Now())
	l := &Learner{History: New(), Root: root, ServID: "mx.here.test", Clock: clk, Log: slog.New(slog.DiscardHandler)}
	box := filepath.Join(root, "x.test", "ada", "Maildir")
	put := func(name, verdict string) {
		t.Helper()
		path := filepath.Join(box, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		text := "X-Tallypost-Verdict: " + verdict + "; score=0\nReceived: by mx.here.test id 7\n" +
			"Authentication-Results: mx.here.test; spf=pass smtp.mailfrom=sender.test\nSubject: offer\n\nwords\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	move := func(from, to string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(box, to)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(box, from), filepath.Join(box, to)); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(step string, ham, spam float64) {
		t.Helper()
		for range 2 { // a second look changes nothing
			if err := l.Look(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		r := l.History.senders["d:sender.test"]
		if math.Abs(r.ham-ham) > 0.1 || math.Abs(r.spam-spam) > 0.1 {
			t.Errorf("%s: %.2f wanted, %.2f unwanted; want %v, %v", step, r.ham, r.spam, ham, spam)
		}
	}
	put("new/1", "accept")
	expect("unread", 0, 0)
	move("new/1", "cur/1:2,S")
	expect("read just now", 0, 0)
	clk.Advance(keptFor + time.Hour)
	expect("read and kept for a day", 1, 0)
	move("cur/1:2,S", ".Junk/cur/1:2,S")
	expect("moved to Junk after all", 0, 1)
	move(".Junk/cur/1:2,S", "cur/1:2,RS")
	expect("and back, and answered", 1, 0)
	move("cur/1:2,RS", ".Trash/cur/1:2,RS")
	expect("and thrown away", 1, 0)
}

func TestWhatWePutIntoJunkTeachesNothing(t *testing.T) {
	if _, ok, _ := judgeFate("Junk", "", true, time.Hour); ok {
		t.Error("learned from our own verdict")
	}
	if c, ok, _ := judgeFate("Junk", "S", true, time.Hour); !ok || c != Spam {
		t.Error("read and left in Junk")
	}
	if c, ok, _ := judgeFate("Maildir", "", true, time.Hour); !ok || c != Ham {
		t.Error("taken out of Junk")
	}
}
