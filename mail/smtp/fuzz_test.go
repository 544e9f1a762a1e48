package smtp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/mail"
)

// strict is a session that checks in which order, and with what, it is called.
type strict struct {
	t             *testing.T
	open, ended   bool
	rcpts         int
	binary, inOne bool
}

func (s *strict) check(ok bool, what string) {
	if !ok || s.ended || s.inOne {
		s.t.Errorf("%s out of order: %+v", what, s)
	}
}

func (s *strict) Mail(_ context.Context, from mail.Address, p MailParams) error {
	s.check(!s.open, "Mail")
	if from.Local == "no" {
		return &Reply{Code: 550, Enhanced: "5.7.1", Text: "no"}
	}
	s.open, s.rcpts, s.binary = true, 0, p.Body == mail.BodyBinaryMIME
	for _, text := range []string{p.EnvID, p.Auth, from.String()} {
		if strings.ContainsAny(text, "\r\n\x00") {
			s.t.Errorf("parameter %q", text)
		}
	}
	return nil
}

func (s *strict) Rcpt(_ context.Context, to mail.Recipient) error {
	s.check(s.open, "Rcpt")
	if to.Address.Local == "no" {
		return errors.New("no")
	}
	if strings.ContainsAny(to.ORcpt+to.Address.String(), "\r\n\x00") || to.Address.IsNull() {
		s.t.Errorf("recipient %+v", to)
	}
	s.rcpts++
	return nil
}

func (s *strict) Data(_ context.Context, r io.Reader) (Reply, error) {
	s.check(s.open && s.rcpts > 0, "Data")
	s.inOne = true
	b, err := io.ReadAll(r)
	s.inOne = false
	if err != nil {
		return Reply{}, err
	}
	text := strings.ReplaceAll(string(b), "\r\n", "")
	if !s.binary && strings.ContainsAny(text, "\r\n\x00") {
		s.t.Errorf("message %q", b)
	}
	return Reply{}, nil
}

func (s *strict) Reset() {
	s.check(s.open, "Reset")
	s.open = false
}

func (s *strict) Logout() {
	s.check(!s.open, "Logout")
	s.ended = true
}

// written is pieces that keeps what is written.
type written struct {
	pieces
	out bytes.Buffer
}

func (w *written) Write(b []byte) (int, error) { return w.out.Write(b) }

// FuzzServer plays octets to a server, in pieces of a length.
func FuzzServer(f *testing.F) {
	for _, s := range []string{
		"EHLO x\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\n",
		"MAIL FROM:<a@b.c> SIZE=1 BODY=8BITMIME RET=FULL ENVID=x SMTPUTF8\r\nRCPT TO:<d@e.f> NOTIFY=NEVER ORCPT=rfc822;x\r\n",
		"RCPT TO:<d@e.f>\r\nBDAT 3\r\nabcBDAT 2 LAST\r\n\r\nRSET\r\n", "BDAT 3\r\na\r\nBDAT 1\r\n\rBDAT 1 LAST\r\n\n",
		"a\r\n.\r\nMAIL FROM:<>\r\n", "\n.\r\nx", "\r\n.\n", "STARTTLS\r\n", "AUTH PLAIN AGEAYg==\r\n", "XCLIENT ADDR=1.2.3.4\r\n",
		"HELO x\r\n", "NOOP\n", "NOOP\x00\r\n", "AUTH LOGIN\r\nYQ==\r\nYg==\r\n", "AUTH SCRAM-SHA-256 biwsbj1hLHI9eA==\r\n",
	} {
		f.Add([]byte(s), byte(0), byte(5))
	}
	f.Add([]byte("DATA\r\n"), byte(255), byte(1))
	f.Fuzz(func(t *testing.T, octets []byte, flags, length byte) {
		s := &strict{t: t}
		cfg := Config{Hostname: "mx.example.com", MaxSize: 1000,
			BinaryMIME: flags&1 != 0, LMTP: flags&2 != 0, PlaintextAuth: true, TLS: serverTLS, Stray: Stray(flags >> 2 & 1), MaxHold: time.Hour,
			Password: anybody,
			Scram: func(context.Context, *Conn, string) (ScramKeys, error) {
				key := make([]byte, 32)
				return ScramKeys{Iterations: 1, StoredKey: key, ServerKey: key}, nil
			},
			NewSession: func(context.Context, *Conn) (Session, error) { return s, nil }}
		server, err := NewServer(cfg)
		if err != nil {
			t.Fatal(err)
		}
		w := &written{pieces: pieces{octets: begun(octets, flags), lengths: lengthsOf(length)}}
		newConn(&serving{Server: server, ctx: context.Background()}, w).serve()
		if !s.ended {
			t.Error("no Logout")
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(w.out.String(), "\r\n"), "\r\n") {
			_, _, ok := splitReplyLine(line)
			alert := strings.HasPrefix(line, "\x15\x03") // of TLS
			if !ok && !alert && line != "" || len(line) > maxReplyLine-2 {
				t.Errorf("reply line %q", line)
			}
		}
	})
}

// anybody is a check of passwords that lets everybody in.
func anybody(context.Context, *Conn, string, string) (string, error) { return "x", nil }

// begun puts a proper beginning before octets, so that the fuzzer reaches further.
func begun(octets []byte, flags byte) []byte {
	const transaction = "MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\n"
	switch flags >> 4 & 3 {
	case 1:
		return append([]byte("EHLO x\r\n"+transaction), octets...)
	case 2:
		return append([]byte("EHLO x\r\n"+transaction+"DATA\r\n"), octets...)
	case 3:
		return append([]byte("LHLO x\r\n"+transaction), octets...)
	}
	return octets
}

// lengthsOf makes the first pieces lines, as from a client in step, and the others of one length.
func lengthsOf(length byte) []int { return []int{8, 19, 19, 6, max(int(length), 1)} }

// FuzzBody compares the reader of messages with the reference.
func FuzzBody(f *testing.F) {
	for _, end := range falseEnds {
		f.Add([]byte("a"+end+"b\r\n.\r\n"), byte(3), true, false)
	}
	f.Fuzz(func(t *testing.T, octets []byte, length byte, dots, mend bool) {
		stray := RejectStray
		if mend {
			stray = MendStray
		}
		if err := checkBody(octets, []int{max(int(length), 1)}, dots, stray); err != nil {
			t.Error(err)
		}
	})
}

// FuzzBDAT reads an argument and what it means.
func FuzzBDAT(f *testing.F) {
	for _, s := range []string{"0", "1 LAST", "12 last ", "+1", "-1", "1  LAST", "99999999999999999999", "", "1 LASTX"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		size, last, ok := parseBDAT([]byte(s))
		if !ok {
			return
		}
		number, word, _ := strings.Cut(s, " ")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n != size || n < 0 || last != strings.EqualFold(strings.TrimSpace(word), "LAST") {
			t.Errorf("%q: %d %v", s, size, last)
		}
	})
}

// FuzzPath wants a path that was accepted to be the same when it is written and read again.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"<>", "<a@b.c>", "<a@b.c> SIZE=1", "<@x,@y:a@b.c>", `<"a>b"@c.d>`, `<"\"">`, "<postmaster>",
		"<a@[127.0.0.1]>", "<a@[IPv6:::1]>", "<ä@ö.de>", "<", "a@b", "<a@b.c>x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, rest, err := parsePath(s)
		if err != nil {
			return
		}
		if !strings.HasSuffix(s, rest) || rest != "" && rest[0] != ' ' {
			t.Errorf("%q: rest %q", s, rest)
		}
		again, rest, err := parsePath("<" + a.String() + ">")
		if err != nil || again != a || rest != "" {
			t.Errorf("%q: %+v is written %q and read %+v, %v", s, a, a.String(), again, err)
		}
		if !a.IsNull() && checkSendable(a) != nil {
			t.Errorf("%q: %q cannot be sent", s, a.String())
		}
	})
}

// FuzzParams wants the parameters that were accepted to be the same when they are written and read
// again.
func FuzzParams(f *testing.F) {
	for _, s := range []string{" SIZE=1 BODY=7BIT", " RET=HDRS ENVID=a+20b", " AUTH=<>", " HOLDFOR=1", " NOTIFY=NEVER ORCPT=rfc822;x",
		" NOTIFY=SUCCESS,DELAY", ` ORCPT=utf-8;\x{E4}b`, " ORCPT=utf-8;ä"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o := offers{esmtp: true, binary: true, requireTLS: true, maxSize: 1 << 30,
			maxHold: time.Hour, now: time.Unix(1e9, 0)}
		if p, refusal := parseMailParams(s, o); refusal == nil && p.EnvID != "" {
			back, err := decodeXtext(string(appendXtext(nil, p.EnvID)))
			if err != nil || back != p.EnvID {
				t.Errorf("%q: ENVID %q comes back %q, %v", s, p.EnvID, back, err)
			}
		}
		var r mail.Recipient
		if parseRcptParams(s, true, &r) != nil {
			return
		}
		for _, smtputf8 := range []bool{false, true} {
			var again mail.Recipient
			line := string(appendNotify(nil, r.Notify))
			if r.Notify == 0 {
				line = ""
			}
			line += string(appendORcpt(nil, r.ORcpt, smtputf8))
			if len(line) < 500 {
				if refusal := parseRcptParams(line, true, &again); refusal != nil || again != r {
					t.Errorf("%q: %+v is written %q and read %+v, %v", s, r, line, again, refusal)
				}
			}
		}
	})
}

// FuzzReply reads replies from a server.
func FuzzReply(f *testing.F) {
	for _, s := range []string{"250 OK\r\n", "250-a\r\n250 b\r\n", "550-5.1.1 x\r\n550 5.1.1 y\r\n", "250\r\n", "25", "250-\r\n", "999 x\r\n", "\n", "250 x\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, octets []byte) {
		x := &wire{}
		x.init(&pieces{octets: octets, lengths: []int{7, 1}}, clock.Real{}, nil)
		x.patience = time.Minute
		r, err := readReply(x)
		if err != nil {
			return
		}
		if r.Code < 200 || r.Code > 599 || len(r.Raw) > maxReply ||
			r.Enhanced != "" && !validEnhanced(r.Code, r.Enhanced) {
			t.Errorf("%q: %+v", octets, r)
		}
		if strings.Count(r.Text, "\n") != strings.Count(r.Raw, "\n") {
			t.Errorf("%q: lines of %q and %q", octets, r.Text, r.Raw)
		}
		parseExtensions(r.Text)
	})
}

// FuzzReplyText wants any text of a session to come out as one reply that a client reads.
func FuzzReplyText(f *testing.F) {
	f.Add(550, "5.1.1", "a\r\n250 b\n\n", true)
	f.Add(250, "", strings.Repeat("ä", 600), true)
	f.Fuzz(func(t *testing.T, code int, enhanced, text string, utf8ok bool) {
		if code < 200 || code > 599 {
			return
		}
		out := appendReply(nil, code, enhanced, text, utf8ok)
		for line := range bytes.SplitSeq(bytes.TrimSuffix(out, crlf), crlf) {
			if len(line) > maxReplyLine-2 || bytes.ContainsAny(line, "\r\n\x00") {
				t.Errorf("line %q", line)
			}
		}
		if len(out) > inSize {
			return
		}
		x := &wire{}
		x.init(&pieces{octets: out}, clock.Real{}, nil)
		x.patience = time.Minute
		r, err := readReply(x)
		if err != nil || r.Code != code || len(x.buffered()) > 0 {
			t.Errorf("%q is read %+v, %v", out, r, err)
		}
	})
}

// FuzzProxy reads PROXY headers, which must be the same in one piece and in several.
func FuzzProxy(f *testing.F) {
	f.Add([]byte("PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\nEHLO x\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x09\x00\x0aEHLO"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x21\x00\x24" + strings.Repeat("x", 36)))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		src, dst, n, err := parseProxy(b)
		if n > len(b) || n < 0 || err != nil && n != 0 {
			t.Fatalf("length %d of %d, %v", n, len(b), err)
		}
		if err != nil || n == 0 {
			return
		}
		if src.IsValid() != dst.IsValid() {
			t.Errorf("%v %v", src, dst)
		}
		for i := range n {
			if _, _, m, err := parseProxy(b[:i]); m != 0 || err != nil {
				t.Errorf("%d of %d octets: length %d, %v", i, n, m, err)
			}
		}
	})
}

// FuzzSend sends a message that is fit to be sent, and reads it as the reference does.
func FuzzSend(f *testing.F) {
	f.Add([]byte(".\r\n..\r\n\r\n.a\r\nb"))
	f.Add([]byte("a\rb"))
	f.Add([]byte(strings.Repeat("x", inSize-1) + "\r\n.\r\n"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		facts, err := inspect(bytes.NewReader(msg), int64(len(msg)))
		if err != nil {
			t.Fatal(err)
		}
		want := firstStray(msg)
		if (want < len(msg)) != facts.bad || facts.bad && facts.badAt != int64(want) {
			t.Fatalf("%q: %+v", msg, facts)
		}
		if facts.bad {
			return
		}
		w := &written{}
		c := NewClient(w, ClientConfig{Hello: "x"})
		s := sending{c: c, body: bytes.NewReader(msg), facts: facts}
		if err := s.writeDots(); err != nil {
			t.Fatal(err)
		}
		sent := msg
		if len(msg) > 0 && !bytes.HasSuffix(msg, crlf) {
			sent = append(bytes.Clone(msg), crlf...)
		}
		content, _, rest, err := readBody(w.out.Bytes(), nil, true, RejectStray, true)
		if err != nil || !bytes.Equal(content, sent) || len(rest) > 0 {
			t.Errorf("%q is sent %q and read %q, %q, %v", msg, w.out.Bytes(), content, rest, err)
		}
	})
}

// FuzzScram reads the messages of SCRAM from either side.
func FuzzScram(f *testing.F) {
	f.Add("n,,n=user,r=nonce")
	f.Add("p=tls-exporter,a=x,n=us=2Cer,r=nonce,ext=1")
	f.Add("r=nonce,s=c2FsdA==,i=4096")
	f.Add("c=biws,r=nonce,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseClientFirst(s)
		if err == nil && (m.gs2+m.bare != s || m.user == "" || m.nonce == "") {
			t.Errorf("%q: %+v", s, m)
		}
		proof, without, err := parseClientFinal(s, "nonce", "n,,")
		if err == nil && (len(proof) != 32 || !strings.HasPrefix(s, without)) {
			t.Errorf("%q: %q %q", s, proof, without)
		}
		_, i, full, err := parseServerFirst(s, "nonce")
		if err == nil && (i < 1 || i > maxIterations || full == "nonce") {
			t.Errorf("%q: %d %q", s, i, full)
		}
		name, ok := unescapeName(escapeName(s))
		if strings.IndexByte(s, 0) < 0 && (!ok || name != s) {
			t.Errorf("%q comes back %q", s, name)
		}
	})
}

var _ net.Conn = (*written)(nil)
