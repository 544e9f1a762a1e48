package mail

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestParseHeader(t *testing.T) {
	const msg = "Subject: a\r\n folded\r\n\tline\r\nFROM : ada@example.org\r\nX:\r\nsubject: two\r\n\r\nbody: no\r\n"
	h, err := ParseHeader([]byte(msg))
	if err != nil {
		t.Fatal(err)
	}
	if got := msg[h.Len:]; got != "body: no\r\n" {
		t.Errorf("body %q", got)
	}
	var names []string
	var raw bytes.Buffer
	for _, f := range h.Fields {
		names = append(names, f.Name())
		raw.Write(f.Raw)
	}
	if got := strings.Join(names, " "); got != "Subject FROM X subject" {
		t.Errorf("fields %s", got)
	}
	if raw.String()+"\r\n" != msg[:h.Len] {
		t.Errorf("the fields are %q", raw.String())
	}
	if got := h.Get("subject"); got != "a folded\tline" {
		t.Errorf("value %q", got)
	}
	if got := h.Get("From"); got != "ada@example.org" {
		t.Errorf("value before a colon with space: %q", got)
	}
	if n := len(h.All("SUBJECT")); n != 2 {
		t.Errorf("%d subjects", n)
	}
}

func TestParseHeaderEdges(t *testing.T) {
	for _, c := range []struct {
		name, msg string
		fields    int
		len       int
		err       error
	}{
		{"empty", "", 0, 0, nil},
		{"no header", "\r\nbody", 0, 2, nil},
		{"no body", "A: b\r\n", 1, 6, nil},
		{"no final line end", "A: b", 1, 4, nil},
		{"bare LF", "A: b\n\nbody", 1, 6, nil},
		{"line without colon", "A: b\r\nnonsense\r\n\r\n", 1, 6, ErrHeaderLine},
		{"begins with a fold", " A: b\r\n\r\n", 0, 0, ErrHeaderLine},
		{"name with space inside", "A b: c\r\n\r\n", 0, 0, ErrHeaderLine},
		{"empty name", ": c\r\n\r\n", 0, 0, ErrHeaderLine},
		{"too many", strings.Repeat("A: b\r\n", MaxHeaderFields+1), MaxHeaderFields, 6 * MaxHeaderFields, ErrHeaderTooLarge},
		{"too large", "A: " + strings.Repeat("x", MaxHeaderBytes), 0, 0, ErrHeaderTooLarge},
	} {
		h, err := ParseHeader([]byte(c.msg))
		if len(h.Fields) != c.fields || h.Len != c.len || !errors.Is(err, c.err) {
			t.Errorf("%s: %d fields, header of %d octets, %v; want %d, %d, %v",
				c.name, len(h.Fields), h.Len, err, c.fields, c.len, c.err)
		}
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add([]byte("A: b\r\n c\r\n\r\nbody"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		h, err := ParseHeader(msg)
		n := 0
		for _, f := range h.Fields {
			n += len(f.Raw)
			if f.Name() == "" || strings.ContainsAny(f.Value(), "\n") {
				t.Errorf("field %q: %q", f.Name(), f.Value())
			}
		}
		if n > h.Len || h.Len > len(msg) || err == nil && h.Len-n > 2 {
			t.Errorf("fields of %d octets in a header of %d in %d", n, h.Len, len(msg))
		}
	})
}

func TestIDs(t *testing.T) {
	var ids IDs
	now := time.Unix(1.7e9, 0)
	last := ID(0)
	for i := range 10000 {
		id := ids.Next(now.Add(-time.Duration(i))) // the clock goes back
		if id <= last {
			t.Fatalf("%v after %v", id, last)
		}
		if again, err := ParseID(id.String()); err != nil || again != id {
			t.Fatalf("%v read as %v, %v", id, again, err)
		}
		last = id
	}
	for _, s := range []string{"", "0", "G000000000000", "000000000000U", "00000000000000"} {
		if id, err := ParseID(s); err == nil {
			t.Errorf("%q is %v", s, id)
		}
	}
	if a, b := fmt.Sprint(ids.Next(now)), fmt.Sprint(ids.Next(now.Add(time.Hour))); a >= b {
		t.Errorf("%s does not sort before %s", a, b)
	}
}

// TestEventCanonical: the octets are committed to for ever, so their form is frozen here.
func TestEventCanonical(t *testing.T) {
	from := Address{Local: "ada", Domain: "example.org"}
	e := Event{Kind: ReceivedFromNonERDS, Time: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.FixedZone("", 3600)),
		ID: 32, From: &from, To: []Address{{Local: "bob", Domain: "example.net"}}, Size: 3, SHA256: "ab",
		Peer: &Peer{Name: "mx", Addr: "192.0.2.1"}}
	got, err := e.Canonical()
	const want = `{"kind":"ReceivedFromNonERDS","time":"2026-01-02T02:04:05.000006Z","id":"0000000000010",` +
		`"from":"ada@example.org","to":["bob@example.net"],"size":3,"sha256":"ab",` +
		`"peer":{"name":"mx","addr":"192.0.2.1"}}`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
	var null Address
	e = Event{Kind: Digest, From: &null, Note: "x"}
	if got, err := e.Canonical(); err != nil || !strings.Contains(string(got), `"from":""`) {
		t.Errorf("null reverse path: %s, %v", got, err)
	}
}
