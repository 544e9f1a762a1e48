package statusline

import (
	"bytes"
	"os"
	"testing"
)

// TestLine writes and sets, and looks at what the terminal is sent.
func TestLine(t *testing.T) {
	var out bytes.Buffer
	width := 20
	l := New(&out, func() int { return width })
	for _, c := range []struct {
		write, set string
		sets       bool
		want       string
	}{
		{write: "log 1\n", want: "log 1\n"},
		{set: "10 %", sets: true, want: "\r\x1b[K10 %"},
		{set: "10 %", sets: true, want: ""},
		{write: "log 2\n", want: "\r\x1b[Klog 2\n10 %"},
		{write: "half ", want: "\r\x1b[Khalf "},
		{set: "20 %", sets: true, want: ""},
		{write: "a line\n", want: "a line\n20 %"},
		{write: "log 3\n", want: "\r\x1b[Klog 3\n20 %"},
		{set: "a text that is longer than the line", sets: true, want: "\r\x1b[Ka text that is long"},
		{set: "\x1b[2Jé\n", sets: true, want: "\r\x1b[K[2Jé"},
		{set: "", sets: true, want: "\r\x1b[K"},
		{write: "log 4\n", want: "log 4\n"},
	} {
		out.Reset()
		if c.sets {
			l.Set(c.set)
		} else if n, err := l.Write([]byte(c.write)); n != len(c.write) || err != nil {
			t.Errorf("Write(%q) = %d, %v", c.write, n, err)
		}
		if out.String() != c.want {
			t.Errorf("after %q, %q: %q, want %q", c.write, c.set, out.String(), c.want)
		}
	}
}

// TestNoTerminal: a file has no line, and who sets it all the same does no harm.
func TestNoTerminal(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := On(f)
	if l != nil {
		t.Fatal("a file is taken for a terminal")
	}
	l.Set("10 %")
	if st, err := f.Stat(); err != nil || st.Size() != 0 {
		t.Errorf("%v octets, %v", st.Size(), err)
	}
}
