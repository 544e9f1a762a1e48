package node

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/intake"
	"github.com/tallypost/tallypost/mail/queue"
)

// letterTop is what delivery wants to know of a message's header.
type letterTop struct {
	junk        bool     // intake's verdict
	deliveredTo []string // mailboxes that have had it already
}

// Limits on the header that is looked at: a loop grows it slowly, and a stranger should not make
// each delivery read much.
const (
	firstTop       = 8 << 10
	maxTop         = 256 << 10
	maxDeliveredTo = 100
)

// readTop looks at the header of a message. Delivery goes on where it cannot be read: whoever
// writes the message will find out.
func readTop(m *queue.Delivery) letterTop {
	for n := min(int64(firstTop), m.Size); ; n = min(4*n, m.Size) {
		b := make([]byte, n)
		if k, err := m.Body.ReadAt(b, 0); int64(k) < n && err != nil && !errors.Is(err, io.EOF) {
			return letterTop{}
		}
		end := bytes.Index(b, []byte("\r\n\r\n"))
		if end >= 0 {
			b = b[:end+2]
		}
		if end >= 0 || n == m.Size || n >= maxTop {
			return parseTop(b)
		}
	}
}

// parseTop reads the fields that matter. The verdict counts only as the very first field: there we
// put it ourselves, anywhere else it is what a stranger wrote.
func parseTop(header []byte) letterTop {
	var t letterTop
	if word, ok := field(header, intake.VerdictField); ok {
		word, _, _ = strings.Cut(word, ";")
		t.junk = strings.EqualFold(strings.TrimSpace(word), "junk")
	}
	for len(header) > 0 && len(t.deliveredTo) < maxDeliveredTo {
		if box, ok := field(header, "Delivered-To"); ok {
			t.deliveredTo = append(t.deliveredTo, box)
		}
		i := bytes.IndexByte(header, '\n')
		if i < 0 {
			break
		}
		header = header[i+1:]
	}
	return t
}

// field returns the first line of the value of a field, if it stands at the start of b.
func field(b []byte, name string) (value string, ok bool) {
	if len(b) <= len(name) || b[len(name)] != ':' || !strings.EqualFold(string(b[:len(name)]), name) {
		return "", false
	}
	b = b[len(name)+1:]
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		b = b[:i]
	}
	return strings.TrimSpace(string(b)), true
}

// loops reports whether a mailbox has had the message already.
func (t letterTop) loops(box mail.Address) bool {
	for _, have := range t.deliveredTo {
		if strings.EqualFold(have, box.String()) {
			return true
		}
	}
	return false
}

// folder is the one of the mailbox that the message goes into; empty for the inbox.
func (t letterTop) folder() string {
	if t.junk {
		return "Junk"
	}
	return ""
}
