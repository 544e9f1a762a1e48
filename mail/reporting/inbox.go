package reporting

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/durable"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/dmarc"
	"github.com/tallypost/tallypost/mail/tlspolicy"
)

// Limits on what is kept of reports received. Anyone may send reports, also in the name of
// others: those that nobody vouches for have a small place of their own, so that they drive none
// of the others out.
const (
	maxMessage = 16 << 20  // octets of a message that is read at all
	maxRaw     = 256 << 10 // octets kept of one that could not be read
	maxVouched = 2000
	maxOther   = 200
	maxSources = 100 // of one report
)

// Inbox is a folder of reports received: a file for each, and the message itself beside one that
// could not be read. Methods may be called from several goroutines, and by several processes.
type Inbox struct {
	dir   string
	name  string // of this server in Authentication-Results
	clock clock.Clock
	mu    sync.Mutex // one report is read at a time: they unpack to many times their size
}

// NewInbox returns the inbox in a folder. authServID is the name this server has in
// Authentication-Results.
func NewInbox(dir, authServID string, clk clock.Clock) *Inbox {
	return &Inbox{dir: dir, name: authServID, clock: clk}
}

// Received is a report as it is kept.
type Received struct {
	ID string    `json:"id"` // of the message that brought it
	At time.Time `json:"at"`
	To string    `json:"to"`
	// Vouched are the domains that our own checks found to answer for the message, by DKIM or
	// DMARC; where there are none anybody may have written the report.
	Vouched []string `json:"vouched,omitempty"`
	// Error is why the report could not be read; then the rest is empty.
	Error string `json:"error,omitempty"`

	Kind     string    `json:"kind,omitempty"` // "dmarc" or "tls"
	Org      string    `json:"org,omitempty"`
	ReportID string    `json:"report_id,omitempty"`
	Domain   string    `json:"domain,omitempty"` // of ours, that it is about
	Begin    time.Time `json:"begin,omitzero"`
	End      time.Time `json:"end,omitzero"`
	// Good and Bad are messages that passed DMARC and that did not, or sessions with TLS and
	// without.
	Good uint64 `json:"good"`
	Bad  uint64 `json:"bad"`
	// Details are where these came from, the most frequent first.
	Details []Detail `json:"details,omitempty"`
	// Notes are what the reporter had to say, and what of the report was not understood.
	Notes []string `json:"notes,omitempty"`
}

// Detail is one line of a report: messages of one kind from one address, or sessions that ended
// in one way.
type Detail struct {
	Count uint64 `json:"count"`
	Good  bool   `json:"good"`
	// Source is the address that sent, or the server that was sent to.
	Source string `json:"source,omitempty"`
	Words  string `json:"words"`
}

// ErrNoReport says that a message holds no report that this program knows.
var ErrNoReport = errors.New("neither a DMARC aggregate report (RFC 9990) nor a TLS " +
	"report (RFC 8460)")

// Add reads the report in a message and keeps it. What is wrong with the report is kept in its
// place and no error; that is for a folder that cannot be written.
func (b *Inbox) Add(id mail.ID, to mail.Address, message io.ReaderAt, size int64) (Received,
	error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := Received{ID: id.String(), At: b.clock.Now().UTC().Truncate(time.Second), To: to.String()}
	text := make([]byte, min(size, maxMessage))
	if _, err := message.ReadAt(text, 0); err != nil && err != io.EOF {
		return r, err
	}
	r.Vouched = b.vouched(text)
	err := r.read(text)
	if size > maxMessage {
		err = fmt.Errorf("the message has %d octets, more than %d: not read", size, maxMessage)
	}
	if err != nil {
		r.Error = err.Error()
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return r, err
	}
	if r.Error != "" {
		if err := durable.ReplaceFile(b.path(r)+".eml", text[:min(len(text), maxRaw)]); err != nil {
			return r, err
		}
	}
	text, err = json.MarshalIndent(r, "", " ")
	if err != nil {
		return r, err
	}
	if err := durable.ReplaceFile(b.path(r)+".json", append(text, '\n')); err != nil {
		return r, err
	}
	return r, b.prune()
}

// path returns the name of a report's files without their suffix. Names sort by time of arrival.
func (b *Inbox) path(r Received) string {
	kind := "other-"
	if len(r.Vouched) > 0 && r.Error == "" {
		kind = "vouched-"
	}
	return filepath.Join(b.dir, kind+r.ID)
}

// vouched returns the domains that the top Authentication-Results, which is this server's own,
// has passed.
func (b *Inbox) vouched(text []byte) (out []string) {
	header, _ := mail.ParseHeader(text)
	for _, f := range header.All("Authentication-Results") {
		results, err := mail.ParseAuthResults(f.Value())
		if err != nil || !strings.EqualFold(results.ServID, b.name) {
			continue
		}
		for _, r := range results.Results {
			for _, p := range r.Props {
				name := r.Method + " " + p.Type + "." + p.Name
				domain := strings.ToLower(p.Value)
				if r.Result == "pass" && (name == "dkim header.d" || name == "dmarc header.from") &&
					!slices.Contains(out, domain) {
					out = append(out, domain)
				}
			}
		}
		break
	}
	return out
}

// read fills in what the report says.
func (r *Received) read(text []byte) error {
	d, err := dmarc.ReadMail(text)
	if err == nil {
		r.ofDMARC(d)
		return nil
	}
	t, terr := tlspolicy.ReadMail(text)
	switch {
	case terr == nil:
		r.ofTLS(t)
		return nil
	case !errors.Is(err, dmarc.ErrNoReport):
		return err
	case !errors.Is(terr, tlspolicy.ErrNoReport):
		return terr
	}
	return ErrNoReport
}

func (r *Received) ofDMARC(d *dmarc.Report) {
	r.Kind, r.Org, r.ReportID, r.Domain = "dmarc", d.Metadata.Org, d.Metadata.ID, d.Published.Domain
	r.Begin, r.End = d.Metadata.Range.Begin.Time, d.Metadata.Range.End.Time
	r.Notes = slices.Concat(d.Metadata.Errors, d.Faults)
	for _, row := range d.Rows {
		n := uint64(row.Count)
		good := row.Evaluated.DKIM == "pass" || row.Evaluated.SPF == "pass"
		r.count(n, good)
		source := ""
		if row.Source.IsValid() {
			source = row.Source.String()
		}
		r.Details = append(r.Details, Detail{Count: n, Good: good, Source: source,
			Words: fmt.Sprintf("from %s: dkim=%s spf=%s disposition=%s", row.IDs.HeaderFrom,
				row.Evaluated.DKIM, row.Evaluated.SPF, row.Evaluated.Disposition)})
	}
	r.trim()
}

func (r *Received) ofTLS(t *tlspolicy.Report) {
	r.Kind, r.Org, r.ReportID, r.Domain = "tls", t.Organization, t.ID, t.Domain
	r.Begin, r.End = t.Range.Start, t.Range.End
	for _, p := range t.Policies {
		r.count(uint64(p.Summary.Successful), true)
		r.count(uint64(p.Summary.Failed), false)
		for _, f := range p.Details {
			words := string(f.Type) + " under " + string(p.Policy.Type) + " of " + p.Policy.Domain
			if more := cmp.Or(f.ReasonCode, f.Information); more != "" {
				words += ": " + more
			}
			r.Details = append(r.Details, Detail{Count: uint64(f.Sessions), Words: words,
				Source: cmp.Or(f.ReceivingMX, f.ReceivingIP)})
		}
	}
	r.trim()
}

func (r *Received) count(n uint64, good bool) {
	if good {
		r.Good += n
	} else {
		r.Bad += n
	}
}

// trim keeps the most frequent details, bad ones first.
func (r *Received) trim() {
	slices.SortStableFunc(r.Details, func(a, b Detail) int {
		if a.Good != b.Good {
			if a.Good {
				return 1
			}
			return -1
		}
		return cmp.Compare(b.Count, a.Count)
	})
	if more := len(r.Details) - maxSources; more > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d further lines were left out", more))
		r.Details = r.Details[:maxSources]
	}
}

// prune removes the oldest files beyond the limits.
func (b *Inbox) prune() error {
	for pattern, most := range map[string]int{"vouched-*.json": maxVouched, "other-*.json": maxOther} {
		names, err := filepath.Glob(filepath.Join(b.dir, pattern))
		if err != nil {
			return err
		}
		for len(names) > most { // Glob sorts
			name := strings.TrimSuffix(names[0], ".json")
			if err := os.Remove(name + ".eml"); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			if err := os.Remove(name + ".json"); err != nil {
				return err
			}
			names = names[1:]
		}
	}
	return nil
}

// List returns the reports that are kept, newest first.
func (b *Inbox) List() ([]Received, error) {
	names, err := filepath.Glob(filepath.Join(b.dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var out []Received
	for _, name := range names {
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // pruned since
		}
		if err != nil {
			return nil, err
		}
		var r Received
		if err := json.Unmarshal(text, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b Received) int { return strings.Compare(b.ID, a.ID) })
	return out, nil
}
