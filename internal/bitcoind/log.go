package bitcoind

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// categories are those of Core's -debug (logging.cpp).
var categories = []string{"addrman", "bench", "blockstorage", "cmpctblock", "coindb", "estimatefee", "http",
	"i2p", "ipc", "kernel", "leveldb", "libevent", "mempool", "mempoolrej", "net", "prune", "proxy", "qt",
	"rand", "reindex", "rpc", "scan", "selectcoins", "tor", "txpackages", "txreconciliation", "validation",
	"walletdb", "zmq"}

// debugLog writes debug.log in Core's form: time, category, message; values of its attributes follow. It is
// a slog.Handler.
type debugLog struct {
	*logState
	attrs []slog.Attr
}

// logState is what all handlers of a log share.
type logState struct {
	mu     sync.Mutex // guards what follows
	out    []io.Writer
	micros bool
	stamps bool
	on     map[string]bool
	start  []string // what was logged before there was a file
}

func newDebugLog(micros, stamps bool) *debugLog {
	s := &logState{micros: micros, stamps: stamps, on: map[string]bool{}}
	for _, c := range categories {
		s.on[c] = false
	}
	return &debugLog{logState: s}
}

// addOutput adds a place to write to, and writes there what came before.
func (s *logState) addOutput(w io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.start {
		io.WriteString(w, line)
	}
	s.out = append(s.out, w)
}

// Categories returns which categories are on.
func (s *logState) Categories() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]bool{}
	for k, v := range s.on {
		out[k] = v
	}
	return out
}

// Enable switches a category, or all of them: "", "1" and "all" mean so.
func (s *logState) Enable(name string, on bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch name {
	case "", "1", "all":
		for k := range s.on {
			s.on[k] = on
		}
		return true
	case "0", "none":
		for k := range s.on {
			s.on[k] = false
		}
		return true
	}
	if _, ok := s.on[name]; !ok {
		return false
	}
	s.on[name] = on
	return true
}

// Enabled is as slog has it. Which category a debugging line has is not known here yet.
func (l *debugLog) Enabled(_ context.Context, level slog.Level) bool {
	if level > slog.LevelDebug {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, on := range l.on {
		if on {
			return true
		}
	}
	return false
}

// Handle writes a line.
func (l *debugLog) Handle(_ context.Context, r slog.Record) error {
	category := ""
	var values strings.Builder
	add := func(a slog.Attr) bool {
		if a.Key == "cat" {
			category = a.Value.String()
		} else if a.Key != "part" {
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
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Level <= slog.LevelDebug && !l.on[category] {
		return nil
	}
	line := oneLine(l.stamp(r.Time)+prefix(category, r.Level)+r.Message+values.String()) + "\n"
	if len(l.out) == 0 && len(l.start) < 1000 {
		l.start = append(l.start, line)
	}
	for _, w := range l.out {
		if _, err := io.WriteString(w, line); err != nil {
			return err
		}
	}
	return nil
}

func (s *logState) stamp(t time.Time) string {
	switch {
	case !s.stamps:
		return ""
	case s.micros:
		return t.UTC().Format("2006-01-02T15:04:05.000000Z ")
	}
	return t.UTC().Format("2006-01-02T15:04:05Z ")
}

func prefix(category string, level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "[error] "
	case level >= slog.LevelWarn:
		return "[warning] "
	case level <= slog.LevelDebug:
		return "[" + category + "] "
	}
	return ""
}

// oneLine keeps what others wrote from making lines of its own.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
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
