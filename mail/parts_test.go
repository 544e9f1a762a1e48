package mail

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestLeaves(t *testing.T) {
	crlf := func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
	nested := "Content-Type: multipart/mixed; boundary=\"a b\"\n\npreamble\n--a b\n" +
		"Content-Type: multipart/alternative; boundary=c\n\n--c\n\nplain\n--c\n" +
		"Content-Type: TEXT/HTML; name=\"x y.html\"\nContent-Transfer-Encoding: quoted-printable\n\n" +
		"=48TML=\n\n--c--\nepilogue\n--a b\nContent-Type: application/gzip; name=n\n" +
		"Content-Disposition: attachment; filename=f.gz\nContent-Transfer-Encoding: base64\n\n" +
		"aGVs!\n bG8=\n--a b--\nrest --a b\n"
	for _, row := range []struct{ name, msg, want string }{
		{"no MIME", "Subject: x\n\nbody\n", `text/plain "" "body\n"`},
		{"nested", nested, `text/plain "" "plain"; text/html "x y.html" "HTML"; application/gzip "f.gz" "hello"`},
		{"CRLF", crlf(nested),
			`text/plain "" "plain"; text/html "x y.html" "HTML"; application/gzip "f.gz" "hello"`},
		{"no last boundary", "Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\ntwo\n",
			`text/plain "" "one"; text/plain "" "two\n"`},
		{"boundary of another", "Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--bb\n--b--\n",
			`text/plain "" "one\n--bb"`},
		{"no boundary", "Content-Type: multipart/mixed\n\nx\n", `multipart/mixed "" "x\n"`},
		{"broken type", "Content-Type: application/zip; =\n\nx", `application/zip "" "x"`},
		{"empty", "", `text/plain "" ""`},
	} {
		var got []string
		for _, p := range Leaves([]byte(row.msg)) {
			b, err := p.Decode(100)
			if err != nil {
				t.Errorf("%s: %v", row.name, err)
			}
			got = append(got, fmt.Sprintf("%s %q %q", p.Type, p.Name, b))
		}
		if s := strings.Join(got, "; "); s != row.want {
			t.Errorf("%s:\n%s\nwant\n%s", row.name, s, row.want)
		}
	}
}

func TestLeavesAreBounded(t *testing.T) {
	var deep strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&deep, "Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i)
	}
	if n := len(Leaves([]byte(deep.String()))); n != 0 {
		t.Errorf("%d leaves of a tree that is too deep", n)
	}
	wide := "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\n\nx\n", 1000)
	if n := len(Leaves([]byte(wide))); n >= maxParts {
		t.Errorf("%d leaves", n)
	}
}

func TestUnpack(t *testing.T) {
	text := strings.Repeat("text ", 1000)
	for _, row := range []struct {
		name  string
		file  []byte
		limit int
		want  error
	}{
		{"plain", []byte(text), len(text), nil},
		{"gzip", gzipped(t, text), len(text), nil},
		{"gzip and more", append(gzipped(t, text), "\r\n--"...), len(text), nil},
		{"two gzip members", append(gzipped(t, text[:99]), gzipped(t, text[99:])...), len(text), nil},
		{"two gzip members, too large", append(gzipped(t, text), gzipped(t, "x")...), len(text), ErrTooLarge},
		{"many gzip members", bytes.Repeat(gzipped(t, ""), 65), len(text), ErrTooLarge},
		{"zip", zipped(t, "dir/", "", "a.xml", text), len(text), nil},
		{"plain, too large", []byte(text), len(text) - 1, ErrTooLarge},
		{"gzip, too large", gzipped(t, text), len(text) - 1, ErrTooLarge},
		{"zip, too large", zipped(t, "a.xml", text), len(text) - 1, ErrTooLarge},
		{"zip, too many files", zipped(t, strings.Split(strings.Repeat("x,,", 65), ",")[:130]...), 10,
			ErrTooLarge},
	} {
		got, err := Unpack(row.file, row.limit)
		if !errors.Is(err, row.want) || row.want == nil && (err != nil || string(got) != text) {
			t.Errorf("%s: %d octets, %v", row.name, len(got), err)
		}
	}
	for name, file := range map[string][]byte{
		"gzip cut short": gzipped(t, text)[:30],
		"zip cut short":  zipped(t, "a.xml", text)[:30],
		"empty zip file": zipped(t, "a.xml", ""),
	} {
		if _, err := Unpack(file, 1<<20); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func gzipped(t testing.TB, s string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(s))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// zipped makes an archive of names and contents in turn.
func zipped(t testing.TB, files ...string) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i+1 < len(files); i += 2 {
		w, err := z.Create(files[i])
		if err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(files[i+1]))
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestCarrier(t *testing.T) {
	c := Carrier{
		From: Address{"reports", "example.org"}, To: Address{"d", "bücher.example"},
		Subject:   "Report Domain: example.com\r\nBcc: evil@example.com " + strings.Repeat("long ", 40),
		MessageID: "<1@example.org>", Date: time.Unix(1_700_000_000, 0).UTC(),
		Fields:     []string{"TLS-Report-Domain: example.com"},
		ReportType: "tlsrpt",
		Text:       "A report.\nFor you.\n",
		Type:       "application/gzip", Name: "a\"b!c.gz", File: gzipped(t, strings.Repeat("x", 5000)),
	}
	msg := c.Bytes()
	for line := range bytes.SplitSeq(bytes.TrimSuffix(msg, []byte("\r\n")), []byte("\r\n")) {
		if len(line) > 78 || bytes.ContainsAny(line, "\r\n") {
			t.Errorf("line %q", line)
		}
	}
	h, err := ParseHeader(msg)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.All("Bcc")) > 0 || h.Get("To") != "<d@xn--bcher-kva.example>" ||
		h.Get("TLS-Report-Domain") != "example.com" || h.Get("Date") != "Tue, 14 Nov 2023 22:13:20 +0000" {
		t.Errorf("header:\n%s", msg[:h.Len])
	}
	if !strings.HasPrefix(h.Get("Content-Type"), "multipart/report; report-type=tlsrpt; boundary=") {
		t.Errorf("Content-Type %q", h.Get("Content-Type"))
	}
	parts := Leaves(msg)
	if len(parts) != 2 || parts[1].Type != "application/gzip" || parts[1].Name != "ab!c.gz" {
		t.Fatalf("parts %v", parts)
	}
	if text, err := parts[0].Decode(100); err != nil || string(text) != "A report.\r\nFor you." {
		t.Errorf("text %q, %v", text, err)
	}
	file, err := parts[1].Decode(1000)
	if err != nil || !bytes.Equal(file, c.File) {
		t.Errorf("file of %d octets, %v", len(file), err)
	}
}

func FuzzLeaves(f *testing.F) {
	f.Add([]byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" +
		"Content-Transfer-Encoding: base64\r\n\r\nH4sIAAAAAAAA\r\n--b--\r\n"))
	f.Add(append([]byte("\r\n"), zipped(f, "a", "b")...))
	f.Fuzz(func(t *testing.T, msg []byte) {
		for _, p := range Leaves(msg) {
			b, err := p.Decode(1 << 16)
			if err != nil {
				continue
			}
			if out, err := Unpack(b, 1000); err == nil && len(out) > 1000 {
				t.Errorf("%d octets", len(out))
			}
		}
	})
}
