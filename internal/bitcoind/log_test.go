package bitcoind

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func testLog(style logStyle) (*debugLog, *bytes.Buffer) {
	l, b := newDebugLog(style), new(bytes.Buffer)
	l.begin(b, nil, nil)
	return l, b
}

// TestLogLevels: which lines of a category are written depends on its being on, and on its level or else the
// one of all; from info on everything is written.
func TestLogLevels(t *testing.T) {
	all := []slog.Level{levelTrace, slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}
	for _, row := range []struct {
		on     string
		levels []string
		want   string // of category net
	}{
		{"", nil, "2 3 4"},
		{"", []string{"trace"}, "2 3 4"},
		{"net", nil, "1 2 3 4"},
		{"net", []string{"trace"}, "0 1 2 3 4"},
		{"net", []string{"info"}, "2 3 4"},
		{"net", []string{"info", "net:trace"}, "0 1 2 3 4"},
		{"1", []string{"trace", "net:debug"}, "1 2 3 4"},
		{"mempool", []string{"net:trace"}, "2 3 4"},
	} {
		l, b := testLog(logStyle{})
		cfg := Config{LogLevels: row.levels}
		if row.on != "" {
			cfg.Debug = []string{row.on}
		}
		cfg.setLogging(l)
		for i, level := range all {
			slog.New(l).Log(context.Background(), level, fmt.Sprint("line ", i), "cat", "net")
		}
		var got []string
		for line := range strings.Lines(b.String()) {
			got = append(got, strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]))
		}
		if s := strings.Join(got, " "); s != row.want {
			t.Errorf("-debug=%s -loglevel=%v: %s, want %s", row.on, row.levels, s, row.want)
		}
	}
}

// TestLogPrefix: level and category stand where they do not go without saying.
func TestLogPrefix(t *testing.T) {
	for _, row := range []struct {
		style    logStyle
		level    slog.Level
		category string
		want     string
	}{
		{logStyle{}, slog.LevelInfo, "", "x\n"},
		{logStyle{}, slog.LevelWarn, "", "[warning] x\n"},
		{logStyle{}, slog.LevelError, "", "[error] x\n"},
		{logStyle{}, slog.LevelDebug, "net", "[net] x\n"},
		{logStyle{}, levelTrace, "net", "[net:trace] x\n"},
		{logStyle{always: true}, slog.LevelInfo, "", "[all:info] x\n"},
		{logStyle{always: true}, slog.LevelWarn, "", "[all:warning] x\n"},
		{logStyle{always: true}, slog.LevelDebug, "net", "[net:debug] x\n"},
		{logStyle{threads: true}, slog.LevelInfo, "", "[unknown] x\n"},
	} {
		l, b := testLog(row.style)
		(&Config{Debug: []string{"1"}, LogLevels: []string{"trace"}}).setLogging(l)
		slog.New(l).Log(context.Background(), row.level, "x", "cat", row.category)
		if b.String() != row.want {
			t.Errorf("%+v: %q, want %q", row, b.String(), row.want)
		}
	}
	l, b := testLog(logStyle{sources: true})
	slog.New(l).Info("x")
	if s := b.String(); !strings.Contains(s, "log_test.go:") || !strings.HasSuffix(s, "TestLogPrefix] x\n") {
		t.Errorf("source: %q", s)
	}
	l, b = testLog(logStyle{stamps: true})
	l.mocked = func() (time.Time, bool) { return time.Unix(1e9, 0), true }
	slog.New(l).Info("a\nb\x1b[2J")
	if s := b.String(); !strings.HasSuffix(s, "Z (mocktime: 2001-09-09T01:46:40Z) a\\x0ab\\x1b[2J\n") {
		t.Errorf("%q", s)
	}
}

// TestLogLimit: one place in the source cannot fill the disk, though the console has everything; others go on,
// and so do debugging lines and those that are exempt.
func TestLogLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "debug.log")
	file, err := openLogFile(path, true)
	if err != nil {
		t.Fatal(err)
	}
	defer file.f.Close()
	l, console := newDebugLog(logStyle{}), new(bytes.Buffer)
	limit := newLogLimit(time.Now())
	limit.bytes = 100
	l.Enable("net", true)
	l.begin(console, file, limit)
	log := slog.New(l)
	for i := range 12 {
		log.Info(fmt.Sprintf("flood %02d ..", i)) // 12 octets: eight fit
		log.Info("exempt", "unlimited", true)
		log.Debug("debugging", "cat", "net")
	}
	log.Info("another place")
	count := func(s string) int {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(b), s)
	}
	for s, want := range map[string]int{"flood": 9, "exempt": 12, "debugging": 12, "another place": 1,
		"Excessive logging detected from ": 1, ">100 bytes logged during the last time window of 3600s": 1,
		"[*] flood 08": 1, "[*] flood 09": 0} {
		if got := count(s); got != want {
			t.Errorf("%q: %d times in the file, want %d", s, got, want)
		}
	}
	if got := strings.Count(console.String(), "flood"); got != 12 {
		t.Errorf("%d lines on the console, want 12", got)
	}
	limit.begun = limit.begun.Add(-2 * logLimitWindow)
	log.Info("flood again")
	if count("Restarting logging from ") != 1 || count("48 bytes were dropped during the last 3600s.") != 1 ||
		count("\nflood again") != 1 {
		b, _ := os.ReadFile(path)
		t.Errorf("after the window: %s", b)
	}
}

// TestShrinkLog keeps the end of a long log, and lets others be.
func TestShrinkLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "debug.log")
	for _, row := range []struct{ size, want int }{{110, 110}, {111, 100}, {5000, 100}} {
		text := strings.Repeat("x", row.size-1) + "!"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := shrinkLog(path, 100); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil || string(b) != text[row.size-row.want:] {
			t.Errorf("of %d octets %d are left: %v", row.size, len(b), err)
		}
	}
}
