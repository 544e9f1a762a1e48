package bitcoind

import (
	"io"
	"os"
	"sync/atomic"
)

// keptLogBytes is what is left of a log that is shortened at the start; one that is no more than a tenth longer
// stays as it is (Bitcoin Core logging.cpp, ShrinkDebugFile).
const keptLogBytes = 10_000_000

// logFile is the file of a log.
type logFile struct {
	path  string
	f     *os.File
	again atomic.Bool // it is to be opened again: the file of its name is another now
}

// openLogFile opens a log to be appended to, a few empty lines behind what is there.
func openLogFile(path string, shrink bool) (*logFile, error) {
	if shrink {
		if err := shrinkLog(path, keptLogBytes); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(f, "\n\n\n\n\n"); err != nil {
		f.Close()
		return nil, err
	}
	return &logFile{path: path, f: f}, nil
}

// write appends a line. The log's mutex is held.
func (l *logFile) write(text string) error {
	if l.again.CompareAndSwap(true, false) {
		if f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
			l.f.Close()
			l.f = f
		}
	}
	_, err := io.WriteString(l.f, text)
	return err
}

// shrinkLog cuts off the beginning of a log that is too long.
func shrinkLog(path string, kept int64) error {
	st, err := os.Stat(path)
	if err != nil || !st.Mode().IsRegular() || st.Size() <= kept/10*11 {
		return nil // there is none, or it may stay
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Seek(-kept, io.SeekEnd); err != nil {
		return err
	}
	last, err := io.ReadAll(io.LimitReader(f, kept))
	if err != nil {
		return err
	}
	return os.WriteFile(path, last, 0o600)
}
