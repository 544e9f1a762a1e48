package bitcoind

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// categories are those of Core's -debug (logging.cpp).
var categories = []string{"addrman", "bench", "blockstorage", "cmpctblock", "coindb", "estimatefee", "http",
	"i2p", "ipc", "kernel", "leveldb", "libevent", "mempool", "mempoolrej", "net", "prune", "proxy", "qt",
	"rand", "reindex", "rpc", "scan", "selectcoins", "tor", "txpackages", "txreconciliation", "validation",
	"walletdb", "zmq"}

// levelTrace is below slog's levels: what would fill a log within minutes.
const levelTrace = slog.LevelDebug - 4

// logStyle says what stands before a message.
type logStyle struct {
	stamps  bool // the time
	micros  bool // with microseconds
	always  bool // category and level even where they go without saying (-loglevelalways)
	threads bool // which part of the program it was (-logthreadnames)
	sources bool // where in the source (-logsourcelocations)
}

// debugLog writes debug.log in Core's form: time, category, message; values of its attributes follow. It is
// a slog.Handler. Attributes with a meaning of their own: "cat" is the category of a line for debugging, "part"
// the part of the program, "unlimited" exempts a line from the limit on its source.
type debugLog struct {
	*logState
	attrs []slog.Attr
}

// logState is what all handlers of a log share.
type logState struct {
	style  logStyle
	mocked func() (time.Time, bool) // the time that is pretended; nil: never
	some   atomic.Bool              // some category is on

	mu      sync.Mutex // guards what follows
	begun   bool
	console io.Writer // nil: none
	file    *logFile  // nil: none
	limit   *logLimit // on what goes to the file; nil: none
	on      map[string]bool
	level   slog.Level            // of the categories that are on
	levels  map[string]slog.Level // of some of them, instead
	start   []logLine             // what was logged before there was a file
}

// logLine is a line, and how it is limited.
type logLine struct {
	text   string
	source uintptr // 0: it is not
}

// maxEarlyLines bounds what is kept before there is a file.
const maxEarlyLines = 1000

func newDebugLog(style logStyle) *debugLog {
	s := &logState{style: style, on: map[string]bool{}, level: slog.LevelDebug, levels: map[string]slog.Level{}}
	for _, c := range categories {
		s.on[c] = false
	}
	return &debugLog{logState: s}
}

// begin says where to write, and writes there what came before.
func (s *logState) begin(console io.Writer, file *logFile, limit *logLimit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun, s.console, s.file, s.limit = true, console, file, limit
	for _, line := range s.start {
		s.write(line, time.Now())
	}
	s.start = nil
}

// Categories returns which categories are on.
func (s *logState) Categories() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.on)
}

// Enable switches a category, or all of them: "", "1" and "all" mean so.
func (s *logState) Enable(name string, on bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.on[name]; !ok && name != "" && name != "1" && name != "all" {
		return false
	} else if ok {
		s.on[name] = on
	} else {
		for k := range s.on {
			s.on[k] = on
		}
	}
	some := false
	for _, v := range s.on {
		some = some || v
	}
	s.some.Store(some)
	return true
}

// setLevel sets from which level on lines of categories are written, or those of one category.
func (s *logState) setLevel(category string, level slog.Level) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if category == "" {
		s.level = level
	} else {
		s.levels[category] = level
	}
}

// Enabled is as slog has it. Which category a debugging line has is not known here yet.
func (s *logState) Enabled(_ context.Context, level slog.Level) bool {
	return level > slog.LevelDebug || s.some.Load()
}

// wants reports whether a line is to be written. The caller holds mu.
func (s *logState) wants(category string, level slog.Level) bool {
	if level > slog.LevelDebug {
		return true
	}
	least, ok := s.levels[category]
	if !ok {
		least = s.level
	}
	return s.on[category] && level >= least
}

// Handle writes a line.
func (l *debugLog) Handle(_ context.Context, r slog.Record) error {
	category, part, source := "", "unknown", r.PC
	var values strings.Builder
	add := func(a slog.Attr) bool {
		switch a.Key {
		case "cat":
			category = a.Value.String()
		case "part":
			part = a.Value.String()
		case "unlimited":
			source = 0
		default:
			values.WriteString(" " + a.Key + "=" + a.Value.String())
		}
		return true
	}
	for _, a := range l.attrs {
		add(a)
	}
	r.Attrs(add)
	if category == "" && r.Level <= slog.LevelDebug {
		category = "validation"
	}
	if r.Level <= slog.LevelDebug {
		source = 0 // whoever switches a category on wants all of it
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.wants(category, r.Level) {
		return nil
	}
	text := l.stamp(r.Time)
	if l.style.threads {
		text += "[" + part + "] "
	}
	if l.style.sources {
		text += sourceText(r.PC)
	}
	text = escape(text+l.prefix(category, r.Level)+r.Message+values.String()) + "\n"
	line := logLine{text, source}
	if !l.begun {
		if len(l.start) < maxEarlyLines {
			l.start = append(l.start, line)
		}
		return nil
	}
	return l.write(line, r.Time)
}

// write writes a line. The caller holds mu.
func (s *logState) write(line logLine, now time.Time) error {
	drop := false
	if s.limit != nil {
		for _, text := range s.limit.reset(now) {
			if err := s.emit(text, false); err != nil {
				return err
			}
		}
		if line.source != 0 {
			var note string
			if note, drop = s.limit.take(line.source, len(line.text)); note != "" {
				if err := s.emit(s.stamp(now)+s.prefix("", slog.LevelWarn)+note+"\n", false); err != nil {
					return err
				}
			}
		}
	}
	return s.emit(line.text, drop)
}

// emit writes a text to the console, and to the file unless that is to be spared. The caller holds mu.
func (s *logState) emit(text string, sparing bool) error {
	if s.limit != nil && s.limit.suppressing {
		text = "[*] " + text // somebody who reads this should know that lines are missing
	}
	if s.console != nil {
		if _, err := io.WriteString(s.console, text); err != nil {
			return err
		}
	}
	if s.file == nil || sparing {
		return nil
	}
	return s.file.write(text)
}

func (s *logState) stamp(t time.Time) string {
	if !s.style.stamps {
		return ""
	}
	form := "2006-01-02T15:04:05Z"
	if s.style.micros {
		form = "2006-01-02T15:04:05.000000Z"
	}
	text := t.UTC().Format(form)
	if s.mocked != nil {
		if m, ok := s.mocked(); ok {
			text += " (mocktime: " + m.UTC().Format("2006-01-02T15:04:05Z") + ")"
		}
	}
	return text + " "
}

// prefix is the category and the level, as far as they do not go without saying: those of a category are for
// debugging, and others say what everybody should know (Bitcoin Core logging.cpp, GetLogPrefix).
func (s *logState) prefix(category string, level slog.Level) string {
	name := "info"
	switch {
	case level >= slog.LevelError:
		name = "error"
	case level >= slog.LevelWarn:
		name = "warning"
	case level <= levelTrace:
		name = "trace"
	case level <= slog.LevelDebug:
		name = "debug"
	}
	if level > slog.LevelDebug {
		category = ""
		if s.style.always {
			category = "all"
		}
	}
	switch {
	case category == "" && name == "info":
		return ""
	case category == "":
		return "[" + name + "] "
	case s.style.always || name != "debug":
		return "[" + category + ":" + name + "] "
	}
	return "[" + category + "] "
}

// sourceText tells where in the source a line was logged.
func sourceText(pc uintptr) string {
	file, line, function := sourceOf(pc)
	return fmt.Sprintf("[%s:%d] [%s] ", file, line, function)
}

func sourceOf(pc uintptr) (file string, line int, function string) {
	f, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	if f.Function == "" {
		return "unknown", 0, "unknown"
	}
	return f.File, f.Line, f.Function
}

// escape keeps what others wrote from making lines of its own, or from talking to a terminal (Bitcoin Core
// logging.cpp, LogEscapeMessage, which lets line feeds pass).
func escape(s string) string {
	s = strings.TrimRight(s, "\n")
	if !strings.ContainsFunc(s, isControl) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if isControl(r) {
			fmt.Fprintf(&b, "\\x%02x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

// oneLine makes one line of several.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if isControl(r) {
			return ' '
		}
		return r
	}, strings.TrimRight(s, "\n"))
}

// WithAttrs is as slog has it.
func (l *debugLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &debugLog{l.logState, append(append([]slog.Attr(nil), l.attrs...), attrs...)}
}

// WithGroup is as slog has it; groups are not shown.
func (l *debugLog) WithGroup(string) slog.Handler { return l }
