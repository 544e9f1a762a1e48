package intake

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/mail"
)

// Backup is a domain whose mail we take while its own servers cannot, and hand over to them later: one
// that names us as an MX of less preference. Without the list of its recipients we would accept what they
// refuse, and send reports of that to senders who were forged.
type Backup struct {
	Domain mail.Domain
	// Recipients is a file with an address of the domain, or the local part of one, in each line. A line
	// that begins with "#" is a comment. It is read anew when it has changed.
	Recipients string
}

const (
	maxRecipientFile = 64 << 20
	recipientsCheck  = 5 * time.Second // between looks at the file
)

// recipients is the list of a Backup.
type recipients struct {
	Backup
	clock clock.Clock
	log   *slog.Logger

	mu      sync.Mutex
	locals  map[string]bool // guarded by mu; in lower case
	stamp   fileStamp       // guarded by mu
	checked time.Time       // guarded by mu
}

// fileStamp tells a changed file from the one that was read.
type fileStamp struct {
	modified time.Time
	size     int64
}

func openRecipients(b Backup, clk clock.Clock, log *slog.Logger) (*recipients, error) {
	r := &recipients{Backup: b, clock: clk, log: log}
	if err := r.load(); err != nil {
		return nil, fmt.Errorf("recipients of %s: %w", b.Domain, err)
	}
	return r, nil
}

// has reports whether the list has a local part. Case is no difference, as it is to most servers.
func (r *recipients) has(local string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.clock.Now(); now.Sub(r.checked) >= recipientsCheck {
		r.checked = now
		if err := r.load(); err != nil {
			// The old list is better than none, which would refuse everybody for good.
			r.log.Error("list of recipients cannot be read, the last one is used",
				"domain", r.Domain, "err", err)
		}
	}
	return r.locals[strings.ToLower(local)]
}

// load reads the file if it has changed.
func (r *recipients) load() error {
	f, err := os.Open(r.Recipients)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	stamp := fileStamp{info.ModTime(), info.Size()}
	if r.locals != nil && stamp == r.stamp {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(f, maxRecipientFile+1))
	if err != nil {
		return err
	}
	locals, err := parseRecipients(b, r.Domain)
	if err != nil {
		return fmt.Errorf("%s: %w", r.Recipients, err)
	}
	r.locals, r.stamp = locals, stamp
	return nil
}

// parseRecipients reads a list; an error names the line.
func parseRecipients(b []byte, domain mail.Domain) (map[string]bool, error) {
	if len(b) > maxRecipientFile {
		return nil, fmt.Errorf("larger than %d octets", maxRecipientFile)
	}
	locals := make(map[string]bool)
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		if !strings.Contains(text, "@") {
			text += "@" + string(domain)
		}
		a, err := mail.ParseAddress(text)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if a.Domain != domain {
			return nil, fmt.Errorf("line %d: %s is not an address of %s", n, a, domain)
		}
		locals[strings.ToLower(a.Local)] = true
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return locals, nil
}
