// Package statusline keeps one line at the bottom of a terminal that renews itself, below what else is
// written there, such as a log. What goes through Write scrolls by above it.
//
// A file that is no terminal has no such line: On returns nil, and a nil Line can be told what it likes.
package statusline

import (
	"io"
	"os"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/term"
)

// erase goes to the begin of the line and erases it (ECMA-48, EL).
const erase = "\r\x1b[K"

// Line is a line at the bottom of a terminal.
type Line struct {
	mu    sync.Mutex // guards what follows
	out   io.Writer
	width func() int // of the terminal, in columns
	text  string     // that is shown
	open  bool       // what was written above ended within a line
}

// On returns the line of a file, nil if that is no terminal or one that cannot erase a line.
func On(f *os.File) *Line {
	if !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return nil
	}
	return New(f, func() int {
		width, _, err := term.GetSize(int(f.Fd()))
		if err != nil {
			return 0
		}
		return width
	})
}

// New returns a line at the bottom of what out shows, which is so many columns wide; 0: 80.
func New(out io.Writer, width func() int) *Line { return &Line{out: out, width: width} }

// Write writes whole lines above the line.
func (l *Line) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	shown := string(p)
	if l.text != "" && !l.open {
		shown = erase + shown
	}
	if l.open = p[len(p)-1] != '\n'; l.text != "" && !l.open {
		shown += l.fit()
	}
	if _, err := io.WriteString(l.out, shown); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Set shows a text, instead of the one before; an empty one shows nothing. What would not fit is cut off, and
// control characters are left out.
func (l *Line) Set(text string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, text)
	if text == l.text {
		return
	}
	l.text = text
	if !l.open {
		io.WriteString(l.out, erase+l.fit()) // a terminal that is gone is no loss
	}
}

// fit returns the text as far as it fits into a line; with mu held. The last column stays free: some
// terminals go to the next line once it is written to.
func (l *Line) fit() string {
	width := l.width()
	if width <= 0 {
		width = 80
	}
	if utf8.RuneCountInString(l.text) < width {
		return l.text
	}
	return string([]rune(l.text)[:width-1])
}
