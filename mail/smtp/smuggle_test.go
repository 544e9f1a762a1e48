package smtp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
)

// falseEnds are what somebody, somewhere, took for the end of a message (CVE-2023-51764, -51765,
// -51766, -52354, and what tools for finding more of them try).
var falseEnds = []string{
	"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\n.\r", "\r.\n",
	"\n\n.\r\n", "\n\n.\n", "\r\r.\r\r", "\r\r\n.\r\r\n", "\r\n.\r\r\n", "\r\n\r.\r\n", "\n.\r\r\n",
	"\x00\r\n\x00.\r\n", "\r\n.\x00\r\n", "\r\n\x00.\r\n", "\r\n.\r\x00\n", "\r\x00\n.\r\n", "\x00\n.\r\n",
	"\r\n\t.\r\n", "\r\n .\r\n", "\r\n..\r\n", "\r\n. \r\n", "\r\n.\t\r\n",
	"\u0085.\u0085", "\u2028.\u2028", "\v.\v", "\f.\f", "\x1a", "\x04",
}

// TestNothingElseEndsData sends what looks like an end to somebody, and commands behind it: they
// are part of the message, or of a message that is refused, and the dialogue goes on after the true
// end.
func TestNothingElseEndsData(t *testing.T) {
	const smuggled = "MAIL FROM:<evil@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\nx\r\n"
	for _, stray := range []Stray{RejectStray, MendStray} {
		rec := &recorder{}
		cfg := config(rec)
		cfg.Stray = stray
		addr := start(t, cfg)
		for _, end := range falseEnds {
			for _, chunked := range []bool{false, true} {
				text := "Subject: x\r\n\r\nlead" + end + smuggled
				reply, data := exchangeMessage(t, addr, rec, text, chunked)
				wire := text
				if !chunked {
					wire += ".\r\n"
				}
				want, refused := reference([]byte(wire), !chunked, stray)
				if !chunked && !strings.Contains(string(want), "MAIL FROM:<evil") && refused == 0 {
					t.Fatalf("%q ends a message in the reference", end)
				}
				switch {
				case refused != 0 && !strings.HasPrefix(reply, "550 5.6.0 "):
					t.Errorf("stray %d chunked %v %q: reply %q", stray, chunked, end, reply)
				case refused == 0 && (reply != "250 2.0.0 OK" || data != fmt.Sprintf("data %q", want)):
					t.Errorf("stray %d chunked %v %q: reply %q, %s, want %q",
						stray, chunked, end, reply, data, want)
				}
			}
		}
	}
}

// exchangeMessage sends text in a transaction, with or without DATA's last line, and returns the
// reply and what the session noted of it. It fails if the session saw another transaction.
func exchangeMessage(t *testing.T, addr string, rec *recorder,
	text string, chunked bool) (reply, data string) {
	t.Helper()
	rec.take()
	k := dial(t, addr, rec)
	k.follow(hello + `
		c> "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\n"
		s: 250 *
		s: 250 *
		= mail *
		= rcpt *`)
	if chunked {
		fmt.Fprintf(k.conn, "BDAT %d LAST\r\n%sNOOP\r\n", len(text), text)
	} else {
		k.follow("c: DATA\ns: 354 *")
		fmt.Fprintf(k.conn, "%s.\r\nNOOP\r\n", text)
	}
	reply, err := k.in.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	k.follow("s: 250 2.0.0 OK\nc: QUIT\ns: 221 *\ns: EOF")
	var events []string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		if events = append(events, rec.take()...); slices.Contains(events, "logout") {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if len(events) != 3 || events[1] != "reset" || events[2] != "logout" {
		t.Fatalf("%q: the session noted %q", text, events)
	}
	return strings.TrimSuffix(reply, "\r\n"), events[0]
}

// reference reads a message octet by octet, as the RFCs have it and without a thought for speed. It
// returns the content, mended if that is wanted, and the first octet for which the message is to be
// refused.
func reference(wire []byte, dots bool, stray Stray) (content []byte, refused byte) {
	bad := func(c byte) {
		if refused == 0 && (stray == RejectStray || c == '0') {
			refused = c
		}
	}
	at := func(i int) byte {
		if i < len(wire) {
			return wire[i]
		}
		return 'x'
	}
	bol := dots
	for i := 0; i < len(wire); i++ {
		switch c := wire[i]; {
		case bol && c == '.':
			if at(i+1) == '\r' && at(i+2) == '\n' {
				return content, refused
			}
			bol = false
			continue
		case c == '\r' && at(i+1) == '\n':
			content = append(content, "\r\n"...)
			i++
			bol = dots
			continue
		case c == '\n':
			bad('n')
			content = append(content, "\r\n"...)
		case c == '\r':
			bad('r')
			content = append(content, ' ')
		case c == 0:
			bad('0')
		default:
			content = append(content, c)
		}
		bol = false
	}
	return content, refused
}

// pieces is a connection on which the given octets arrive, in pieces of the given lengths over and
// over.
type pieces struct {
	played
	octets  []byte
	lengths []int
	turn    int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.octets) == 0 {
		return 0, io.EOF
	}
	n := len(p.octets)
	if len(p.lengths) > 0 {
		n = min(n, p.lengths[p.turn%len(p.lengths)])
		p.turn++
	}
	n = copy(b, p.octets[:n])
	p.octets = p.octets[n:]
	return n, nil
}

// readBody reads a message that arrives in pieces and returns its content, the refusal, if any, and
// what is left for the next command.
func readBody(octets []byte, lengths []int, dots bool, stray Stray,
	viaWriteTo bool) (content []byte, refused bool, rest []byte, err error) {
	x := &wire{}
	x.init(&pieces{octets: octets, lengths: lengths}, clock.Real{}, nil)
	x.patience = time.Minute
	defer func() {
		if x.bufs != nil {
			bufferPool.Put(x.bufs)
		}
	}()
	b := body{x: x, stray: stray, limit: 1 << 20, spare: 1 << 20, dots: dots, bol: dots}
	if !dots {
		b.left, b.last = int64(len(octets)), true
	}
	if viaWriteTo {
		var buf bytes.Buffer
		_, err = b.WriteTo(&buf)
		content = buf.Bytes()
	} else {
		content, err = io.ReadAll(&b)
	}
	refused = b.refusal != nil
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return content, refused, nil, err
	}
	var r *Reply
	if refused != errors.As(err, &r) {
		return content, refused, nil, fmt.Errorf("refusal %v, error %v", b.refusal, err)
	}
	if err := b.finish(false); err != nil {
		return content, refused, nil, err
	}
	rest, _ = io.ReadAll(x.sock)
	return content, refused, append(append([]byte(nil), x.buffered()...), rest...), nil
}

// checkBody compares the reader of messages with the reference.
func checkBody(wire []byte, lengths []int, dots bool, stray Stray) error {
	want, wantRefused := reference(wire, dots, stray)
	for _, viaWriteTo := range []bool{false, true} {
		content, refused, rest, err := readBody(bytes.Clone(wire), lengths, dots, stray, viaWriteTo)
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			if !dots || hasEnd(wire) {
				return errors.New("end not found")
			}
			continue
		case err != nil:
			return err
		case refused != (wantRefused != 0):
			return fmt.Errorf("refused %v, want %q", refused, wantRefused)
		case !refused && !bytes.Equal(content, want):
			return fmt.Errorf("content %q, want %q", content, want)
		case refused && !bytes.HasPrefix(want, content):
			return fmt.Errorf("content before the fault %q, want part of %q", content, want)
		case dots && !bytes.HasSuffix(wire[:len(wire)-len(rest)], []byte(".\r\n")):
			return fmt.Errorf("rest %q", rest)
		}
	}
	return nil
}

func hasEnd(wire []byte) bool {
	return bytes.HasPrefix(wire, []byte(".\r\n")) || bytes.Contains(wire, []byte("\r\n.\r\n"))
}

// TestBodyAgainstReference builds messages of the octets that matter and delivers them in pieces of
// all kinds.
func TestBodyAgainstReference(t *testing.T) {
	alphabet := []string{"\r", "\n", ".", "\r\n", "\r\n.", "x", "\r\n.\r\n", "line\r\n", "..", "\x00", "\r\r\n"}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 4000 {
		var wire []byte
		for range rnd.IntN(12) {
			c := alphabet[rnd.IntN(len(alphabet))]
			if c == "\x00" && rnd.IntN(4) > 0 {
				continue
			}
			wire = append(wire, c...)
		}
		lengths := []int{1 + rnd.IntN(4), 1 + rnd.IntN(3)}
		for _, dots := range []bool{true, false} {
			for _, stray := range []Stray{RejectStray, MendStray} {
				if err := checkBody(wire, lengths, dots, stray); err != nil {
					t.Fatalf("%q in pieces of %d, dots %v, stray %d: %v",
						wire, lengths, dots, stray, err)
				}
			}
		}
	}
}

// TestManyStrays mends a message that has nothing but wrong line ends.
func TestManyStrays(t *testing.T) {
	for _, octet := range []string{"\n", "\r", "\n\r", "x\n", "\r\r\n"} {
		wire := []byte(strings.Repeat(octet, 20<<10) + "\r\n.\r\n")
		if err := checkBody(wire, nil, true, MendStray); err != nil {
			t.Errorf("%q: %.100s", octet, err.Error())
		}
	}
}

// TestLongLines has lines that are longer than any buffer: RFC 5321, section 4.5.3.1.6, allows to
// refuse them, and much mail that people want has them.
func TestLongLines(t *testing.T) {
	rec := &recorder{}
	var got int64
	rec.noRead = true
	rec.onData = func(r io.Reader) { got, _ = io.Copy(io.Discard, r) }
	addr := start(t, config(rec))
	line := strings.Repeat("x", 1<<20)
	k := dial(t, addr, rec)
	k.follow(begin + "c: DATA\ns: 354 *")
	if _, err := io.WriteString(k.conn, line+"\r\n."+line+"\r\n.\r\n"); err != nil {
		t.Fatal(err)
	}
	k.follow("s: 250 *")
	if want := int64(2*len(line) + 4); got != want {
		t.Errorf("%d octets, want %d", got, want)
	}
}

// TestLineOfFault says where the fault is.
func TestLineOfFault(t *testing.T) {
	rec := &recorder{}
	k := dial(t, start(t, config(rec)), rec)
	k.follow(begin + `
		c: DATA
		s: 354 *
		c> "one\r\ntwo\r\nthr\nee\r\n.\r\n"
		s: 550 5.6.0 line 3 of the message has a bare LF in it; *`)
}

// TestResetInMessage loses the connection in the middle: the session hears of it and nothing is
// accepted.
func TestResetInMessage(t *testing.T) {
	rec := &recorder{}
	k := dial(t, start(t, config(rec)), rec)
	k.follow(begin + "c: DATA\ns: 354 *\nc: half of it\nwait")
	k.conn.(*net.TCPConn).SetLinger(0)
	k.conn.Close()
	k.follow("= data \"half of it\\r\\n\" then *\n= reset\n= logout")
}

// TestHalfClose is a client that closes its side in the middle of a message.
func TestHalfClose(t *testing.T) {
	rec := &recorder{}
	k := dial(t, start(t, config(rec)), rec)
	k.follow(begin + "c: DATA\ns: 354 *\nc> \"x\\r\\n.\\r\"")
	k.conn.(*net.TCPConn).CloseWrite()
	k.follow("s: EOF\n= data * then unexpected EOF\n= reset\n= logout")
}

// TestHalfCloseBetweenChunks is a client that closes its side before the last chunk.
func TestHalfCloseBetweenChunks(t *testing.T) {
	for _, rest := range []string{"", "BDAT 5 LA", "NOOP\\r\\n"} {
		rec := &recorder{}
		k := dial(t, start(t, config(rec)), rec)
		k.follow(begin + "c> \"BDAT 5\\r\\nfirst" + rest + "\"\ns: 250 2.0.0 5 octets so far")
		k.conn.(*net.TCPConn).CloseWrite()
		k.follow("= data \"first\" then *")
	}
}

// TestDrainIsBounded gives up on a client that goes on sending what has long been refused.
func TestDrainIsBounded(t *testing.T) {
	rec := &recorder{}
	cfg := config(rec)
	cfg.MaxSize = 1000
	k := dial(t, start(t, cfg), rec)
	k.follow(begin + "c: DATA\ns: 354 *")
	go func() {
		chunk := []byte(strings.Repeat(strings.Repeat("x", 98)+"\r\n", 1000))
		for {
			if _, err := k.conn.Write(chunk); err != nil {
				return
			}
		}
	}()
	k.follow("s: 421 4.7.0 *\ns: EOF")
}
