package relay

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/vectors"
	"github.com/tallypost/tallypost/mail"
)

func convert(t testing.TB, msg string) (string, error) {
	t.Helper()
	s := toSevenBit(strings.NewReader(msg), int64(len(msg)))
	defer s.close()
	if s.err != nil {
		return "", s.err
	}
	b, err := io.ReadAll(io.NewSectionReader(s.body, 0, s.size))
	if err != nil {
		t.Fatal(err)
	}
	return string(b), nil
}

// crlf makes a message of lines.
func crlf(lines ...string) string { return strings.Join(lines, "\r\n") + "\r\n" }

// TestSevenBit: RFC 6152, section 3, and RFC 2045, section 6.
func TestSevenBit(t *testing.T) {
	for _, tt := range []struct {
		name, in, want string
		err            error
	}{
		{name: "text", in: crlf("Subject: x", "MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8",
			"Content-Transfer-Encoding: 8bit", "", "grüße = alles ", "", "ende"),
			want: crlf("Subject: x", "MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8",
				"Content-Transfer-Encoding: quoted-printable", "", "gr=C3=BC=C3=9Fe =3D alles=20", "", "ende")},
		{name: "not MIME", in: crlf("Subject: x", "", "gr\xfc\xdfe"),
			want: crlf("Subject: x", "MIME-Version: 1.0", "Content-Type: text/plain; charset=unknown-8bit",
				"Content-Transfer-Encoding: quoted-printable", "", "gr=FC=DFe")},
		{name: "7-bit already", in: crlf("Subject: x", "", "nothing"), want: crlf("Subject: x", "", "nothing")},
		{name: "says more than is true", in: crlf("MIME-Version: 1.0", "Content-Transfer-Encoding: 8bit", "", "nothing"),
			want: crlf("MIME-Version: 1.0", "Content-Transfer-Encoding: 7bit", "", "nothing")},
		{name: "parts", in: crlf("MIME-Version: 1.0", `Content-Type: multipart/mixed; boundary="b"`, "Content-Transfer-Encoding: 8bit", "",
			"preamble", "--b", "", "plain", "", "--b", "Content-Type: text/html; charset=utf-8", "Content-Transfer-Encoding: 8bit", "",
			"<p>ü</p>", "--b  ", "Content-Type: image/png", "Content-Transfer-Encoding: 8bit", "", "\x89PNG", "--b",
			"Content-Transfer-Encoding: base64", "", "aGFsbG8=", "--b--", "epilogue"),
			want: crlf("MIME-Version: 1.0", `Content-Type: multipart/mixed; boundary="b"`, "Content-Transfer-Encoding: 7bit", "",
				"preamble", "--b", "", "plain", "", "--b", "Content-Type: text/html; charset=utf-8",
				"Content-Transfer-Encoding: quoted-printable", "", "<p>=C3=BC</p>", "--b  ", "Content-Type: image/png",
				"Content-Transfer-Encoding: base64", "", "iVBORw==", "--b", "Content-Transfer-Encoding: base64", "", "aGFsbG8=",
				"--b--", "epilogue")},
		{name: "nested", in: crlf("MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=a", "", "--a",
			"Content-Type: multipart/alternative; boundary=ab", "", "--ab", "Content-Type: text/plain; charset=utf-8", "", "ü", "--ab--", "--a",
			"Content-Type: message/rfc822", "Content-Transfer-Encoding: 8bit", "", "Subject: inner", "", "ö", "--a--"),
			want: crlf("MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=a", "", "--a",
				"Content-Type: multipart/alternative; boundary=ab", "", "--ab", "Content-Type: text/plain; charset=utf-8",
				"Content-Transfer-Encoding: quoted-printable", "", "=C3=BC", "--ab--", "--a", "Content-Type: message/rfc822",
				"Content-Transfer-Encoding: 7bit", "", "Subject: inner", "Content-Transfer-Encoding: quoted-printable", "", "=C3=B6", "--a--")},
		{name: "end is missing", in: crlf("MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=a", "", "--a", "", "ü"),
			want: crlf("MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=a", "", "--a",
				"Content-Transfer-Encoding: quoted-printable", "", "=C3=BC")},
		{name: "inner end is missing", in: crlf("MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=a", "", "--a",
			"Content-Type: multipart/mixed; boundary=b", "", "--b", "", "ü", "--a", "", "ö", "--a--"),
			want: crlf("MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=a", "", "--a",
				"Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Transfer-Encoding: quoted-printable", "", "=C3=BC", "--a",
				"Content-Transfer-Encoding: quoted-printable", "", "=C3=B6", "--a--")},
		{name: "binary", in: "MIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: binary\r\n\r\na\nb\rc\x00",
			want: "MIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\nYQpiDWMA"},
		{name: "digest", in: crlf("MIME-Version: 1.0", "Content-Type: multipart/digest; boundary=a", "", "--a", "", "Subject: i", "", "ü", "--a--"),
			want: crlf("MIME-Version: 1.0", "Content-Type: multipart/digest; boundary=a", "", "--a", "", "Subject: i",
				"Content-Transfer-Encoding: quoted-printable", "", "=C3=BC", "--a--")},
		{name: "header alone", in: "Subject: x\r\n", want: "Subject: x\r\n"},

		{name: "DKIM", in: crlf("DKIM-Signature: v=1", "", "ü"), err: errSigned},
		{name: "ARC", in: crlf("ARC-Message-Signature: i=1", "", "ü"), err: errSigned},
		{name: "signed part", in: crlf("Content-Type: multipart/signed; boundary=a", "", "--a", "", "ü", "--a--"), err: errSigned},
		{name: "8-bit header", in: crlf("Subject: ü", "", "x"), err: errHeader8},
		{name: "8-bit header of a part", in: crlf("Content-Type: multipart/mixed; boundary=a", "", "--a", "X: ü", "", "x", "--a--"), err: errHeader8},
		{name: "no boundary", in: crlf("Content-Type: multipart/mixed", "", "ü"), err: errStructure},
		{name: "bad parameters", in: crlf("Content-Type: multipart/mixed; boundary=a; boundary=b", "", "ü"), err: errStructure},
		{name: "8-bit preamble", in: crlf("Content-Type: multipart/mixed; boundary=a", "", "ü", "--a", "", "x", "--a--"), err: errStructure},
		{name: "delivery status", in: crlf("Content-Type: message/delivery-status", "", "ü"), err: errStructure},
		{name: "8-bit in base64", in: crlf("Content-Type: image/png", "Content-Transfer-Encoding: base64", "", "ü"), err: errStructure},
		{name: "line that is no field", in: crlf("what is this", "", "ü"), err: errStructure},
		{name: "deep", in: strings.Repeat("Content-Type: message/rfc822\r\n\r\n", 50) + "\r\nü", err: errStructure},
		{name: "large header", in: "X: " + strings.Repeat("x", maxPartHeader) + "\r\n\r\nü", err: errStructure},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := convert(t, tt.in)
			if !errors.Is(err, tt.err) || got != tt.want {
				t.Errorf("got %q, %v\nwant %q, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

// TestSevenBitLarge: a long message lies in a file that nobody sees, and long lines stay what they are.
func TestSevenBitLarge(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	line := strings.Repeat("ü", 100_000)
	in := "MIME-Version: 1.0\r\nContent-Type: application/x\r\n\r\n" + strings.Repeat(line+"\r\n", 20)
	s := toSevenBit(strings.NewReader(in), int64(len(in)))
	if s.err != nil || s.body.file == nil {
		t.Fatalf("%+v", s)
	}
	if files, _ := os.ReadDir(os.TempDir()); len(files) != 0 {
		t.Errorf("files %v", files)
	}
	b, err := io.ReadAll(io.NewSectionReader(s.body, 0, s.size))
	if err != nil {
		t.Fatal(err)
	}
	before, after := mail.Leaves([]byte(in)), mail.Leaves(b)
	x, _ := before[0].Decode(1 << 30)
	y, _ := after[0].Decode(1 << 30)
	if !bytes.Equal(x, y) {
		t.Errorf("%d octets before, %d after", len(x), len(y))
	}
	s.close()
}

// sameLeaves wants the parts of two messages to decode to the same.
func sameLeaves(t *testing.T, in, out string) {
	t.Helper()
	before, after := mail.Leaves([]byte(in)), mail.Leaves([]byte(out))
	if len(before) != len(after) {
		t.Fatalf("%d parts before, %d after:\n%q\n%q", len(before), len(after), in, out)
	}
	for i := range before {
		x, errX := before[i].Decode(1 << 26)
		y, errY := after[i].Decode(1 << 26)
		// A last line end may be missing before; a client adds it, and so does the encoding of text.
		if errX == nil && errY == nil && strings.TrimRight(string(x), "\r\n") != strings.TrimRight(string(y), "\r\n") {
			t.Errorf("part %d: %q became %q", i, x, y)
		}
	}
}

// TestSevenBitVectors converts messages made to torture parsers: what comes out is 7-bit, and says the same.
func TestSevenBitVectors(t *testing.T) {
	f, err := os.Open(vectors.Path(t, "mail/mime/apache-james-mime4j-testmsgs.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	messages, converted := 0, 0
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(h.Name, ".msg") {
			continue
		}
		messages++
		in := strings.ReplaceAll(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n", "\r\n")
		out, err := convert(t, in)
		if err != nil {
			continue
		}
		if has8Bit([]byte(out)) || strings.IndexByte(out, 0) >= 0 {
			t.Errorf("%s: not 7-bit", h.Name)
		}
		if in != out {
			converted++
		}
		if !strings.Contains(strings.ToLower(in), "message/rfc822") { // mail.Leaves does not look into these
			sameLeaves(t, in, out)
		}
	}
	if messages < 20 || converted < 3 {
		t.Errorf("%d messages, %d converted", messages, converted)
	}
	t.Logf("%d messages, %d converted", messages, converted)
}

// FuzzSevenBit: whatever the message, the result is 7-bit and stable, and no part says anything else.
func FuzzSevenBit(f *testing.F) {
	f.Add(crlf("Subject: x", "", "ü"))
	f.Add(crlf("Content-Type: multipart/mixed; boundary=a", "", "--a", "", "ü", "--a--", "e"))
	f.Add(crlf("Content-Type: message/rfc822", "", "Subject: y", "", "\xff\r\r\n"))
	f.Add(crlf("Content-Type: image/png", "Content-Transfer-Encoding: binary", "", "\x00\r\n--\n"))
	f.Fuzz(func(t *testing.T, in string) {
		out, err := convert(t, in)
		if err != nil {
			return
		}
		if has8Bit([]byte(out)) {
			t.Fatalf("not 7-bit: %q", out)
		}
		again, err := convert(t, out)
		if err != nil {
			t.Fatalf("not again: %v\n%q", err, out)
		}
		if third, _ := convert(t, again); third != again {
			t.Fatalf("not stable: %q, %q", again, third)
		}
	})
}

// TestConvertedOnTheWay: a server without 8BITMIME gets a message it can take, and where that cannot be had
// the sender hears why; another host may do better.
func TestConvertedOnTheWay(t *testing.T) {
	const text = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\ngrüße\r\n"
	bubble(t, nil, func(w *world) {
		first, second := w.pair(nil, func(r *remote) { r.bare = true })
		w.expect(w.send(message{text: text, body: mail.Body8BitMIME}, "u@d.example"), "delivered 2.0.0")
		if got := first.got(); len(got) != 1 || !strings.Contains(got[0], "gr=C3=BC=C3=9Fe") {
			t.Errorf("first has %q", got)
		}
		signed := "DKIM-Signature: v=1\r\n" + text
		w.expect(w.send(message{text: signed, body: mail.Body8BitMIME}, "u@d.example"), "delivered 2.0.0")
		if got := second.got(); len(got) != 1 || !strings.Contains(got[0], "grüße") {
			t.Errorf("second has %q", got)
		}
		second.mu.Lock()
		second.bare = true
		second.mu.Unlock()
		time.Sleep(time.Minute) // until nobody has a connection
		res := w.send(message{text: signed, body: mail.Body8BitMIME}, "u@d.example")
		w.expect(res, "failed 5.6.3 not supported there")
		for _, words := range []string{"mx2.example", "8BITMIME", "signature"} {
			if !strings.Contains(res[0].Reply, words) {
				t.Errorf("reply %q does not say %q", res[0].Reply, words)
			}
		}
	})
}

// TestIncapableIsNotTheEnd: a host that cannot take the message and one that is away do not add up to a bounce.
func TestIncapableIsNotTheEnd(t *testing.T) {
	const signed = "DKIM-Signature: v=1\r\n\r\ngrüße\r\n"
	bubble(t, nil, func(w *world) {
		w.mx("d.example", "10 mx1.example", "20 mx2.example")
		w.remote("mx1.example", "192.0.2.1", nil, func(r *remote) { r.bare = true })
		w.zone.Set("mx2.example", "A 192.0.2.2")
		w.expect(w.send(message{text: signed}, "u@d.example"), "deferred 4.4.1 unreachable")
		w.mx("d.example", "20 mx1.example", "10 mx2.example")
		w.expect(w.send(message{text: signed}, "u@d.example"), "deferred 4.4.1 unreachable")
	})
}
