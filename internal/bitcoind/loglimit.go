package bitcoind

import (
	"fmt"
	"slices"
	"time"
)

// The limit on what one place in the source may write to the file, so that no stranger can fill the disk with
// lines (Bitcoin Core logging.h, RATELIMIT_MAX_BYTES and RATELIMIT_WINDOW).
const (
	logLimitBytes  = 1 << 20
	logLimitWindow = time.Hour
)

// logLimit counts what each source of lines has written in the present window. It is guarded by the log's mutex.
type logLimit struct {
	bytes       int // a source may write in a window
	begun       time.Time
	sources     map[uintptr]*logShare
	suppressing bool // some source has written too much
}

// logShare is what a source may still write, and what was not written of it.
type logShare struct{ left, dropped int }

func newLogLimit(now time.Time) *logLimit {
	return &logLimit{bytes: logLimitBytes, begun: now, sources: map[uintptr]*logShare{}}
}

// take counts a line. The first one that is too much is still written, with a note before it; those after it
// are to be dropped.
func (l *logLimit) take(source uintptr, size int) (note string, drop bool) {
	s := l.sources[source]
	if s == nil {
		s = &logShare{left: l.bytes}
		l.sources[source] = s
	}
	if s.left >= size {
		s.left -= size
		return "", s.dropped > 0
	}
	s.left = 0
	first := s.dropped == 0
	s.dropped += size
	if !first {
		return "", true
	}
	l.suppressing = true
	file, line, function := sourceOf(source)
	return fmt.Sprintf("Excessive logging detected from %s:%d (%s): >%d bytes logged during the last time window "+
		"of %ds. Suppressing logging to disk from this source location until time window resets. Console "+
		"logging unaffected. Last log entry.", file, line, function, l.bytes, logLimitWindow/time.Second), false
}

// reset begins a new window once the last one is over, and returns what there is to say of that.
func (l *logLimit) reset(now time.Time) (lines []string) {
	if now.Sub(l.begun) < logLimitWindow {
		return nil
	}
	for source, s := range l.sources {
		if s.dropped > 0 {
			file, line, function := sourceOf(source)
			lines = append(lines, fmt.Sprintf("Restarting logging from %s:%d (%s): %d bytes were dropped during "+
				"the last %ds.\n", file, line, function, s.dropped, logLimitWindow/time.Second))
		}
	}
	slices.Sort(lines)
	l.begun, l.suppressing = now, false
	clear(l.sources)
	return lines
}
