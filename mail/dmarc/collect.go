package dmarc

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// CollectorConfig says who reports, and how much is kept of a day.
type CollectorConfig struct {
	Org      string // name of the organization
	Email    string // contact
	Contact  string // more of it; may be empty
	Receiver string // domain that reports, part of file names and identifiers
	Software string // name and version of the program
	// MaxDomains is how many domains are reported to. Zero: 10,000.
	MaxDomains int
	// MaxRows is how many different rows a domain's report may have; what comes beyond is counted
	// and said in the report. Zero: 5,000, about 3 MiB in memory.
	MaxRows int
	// MaxTotal is how many rows all reports together may have, so that a sender with many domains
	// and addresses cannot fill the memory. Zero: 100,000, about 60 MiB.
	MaxTotal int
}

// maxSigned is how many signatures a row has. RFC 9990, section 3.1.3, allows 100; more than ten on
// one message are somebody's game.
const maxSigned = 10

// Seen is a message as it is reported.
type Seen struct {
	Verdict      Verdict
	Source       netip.Addr
	EnvelopeFrom string // domain of MAIL FROM; empty for the null path
	SPF          SPF
	DKIM         []DKIM
	// Applied is what was done: PolicyNone where the message was accepted as any other.
	Applied Policy
	// Override says why Applied is not what the domain wants. Where it is missing the report says
	// "local_policy".
	Override *Reason
}

// Collector counts what was seen until it is reported. It keeps everything in memory; Save and Load
// carry it over a restart.
type Collector struct {
	cfg CollectorConfig

	mu      sync.Mutex // guards what follows
	buckets map[string]*bucket
	rows    int // in all buckets
}

// bucket is what was seen for one policy domain.
type bucket struct {
	Record  *Record
	Rows    map[string]*Row // by their content without count
	Dropped uint64
}

// NewCollector returns an empty Collector.
func NewCollector(cfg CollectorConfig) *Collector {
	if cfg.MaxDomains <= 0 {
		cfg.MaxDomains = 10_000
	}
	if cfg.MaxRows <= 0 {
		cfg.MaxRows = 5_000
	}
	if cfg.MaxTotal <= 0 {
		cfg.MaxTotal = 100_000
	}
	return &Collector{cfg: cfg, buckets: make(map[string]*bucket)}
}

// Add counts a message, if the owner of its domain wants reports and the outcome is known.
func (c *Collector) Add(s *Seen) {
	v := &s.Verdict
	if v.Record == nil || len(v.Record.Aggregate) == 0 || v.Result != Pass && v.Result != Fail {
		return
	}
	row := s.row()
	key := row.key()
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.buckets[v.Domain]
	if b == nil {
		if len(c.buckets) == c.cfg.MaxDomains {
			return
		}
		b = &bucket{Rows: make(map[string]*Row)}
		c.buckets[v.Domain] = b
	}
	b.Record = v.Record // the last one counts (RFC 9990, section 3.1)
	switch known := b.Rows[key]; {
	case known != nil:
		known.Count++
	case len(b.Rows) >= c.cfg.MaxRows || c.rows >= c.cfg.MaxTotal:
		b.Dropped++
	default:
		row.Count = 1
		c.rows++
		b.Rows[key] = row
	}
}

func (s *Seen) row() *Row {
	v := &s.Verdict
	row := &Row{
		Source:    Source{s.Source.Unmap().WithZone("")},
		Evaluated: Evaluated{DKIM: passFail(v.DKIM.Aligned), SPF: passFail(v.SPF.Aligned)},
		IDs:       Identifiers{HeaderFrom: v.Author, EnvelopeFrom: plain(s.EnvelopeFrom)},
	}
	e := &row.Evaluated
	switch {
	case v.Result == Pass && v.Published != PolicyNone:
		e.Disposition = pass
	case v.Result == Pass:
		e.Disposition = string(PolicyNone)
	default:
		e.Disposition = string(s.Applied)
		e.Reasons = s.reasons()
	}
	if s.SPF.Domain != "" || s.SPF.Result != "" {
		row.Auth.SPF = []SPFResult{
			{Domain: plain(s.SPF.Domain), Scope: "mfrom", Result: plain(s.SPF.Result)}}
	}
	signatures := slices.Clone(s.DKIM)
	slices.SortStableFunc(signatures, func(a, b DKIM) int { return s.rank(a) - s.rank(b) })
	for _, d := range signatures[:min(len(signatures), maxSigned)] {
		row.Auth.DKIM = append(row.Auth.DKIM, DKIMResult{Domain: plain(d.Domain),
			Selector: plain(d.Selector), Result: plain(d.Result)})
	}
	return row
}

// reasons: "If alignment fails and the policy applied does not match the DMARC Policy Domain's
// configured policy, the reason element MUST be included" (RFC 9990, section 3.1.1.8).
func (s *Seen) reasons() []Reason {
	v := &s.Verdict
	switch {
	case s.Override != nil:
		return []Reason{*s.Override}
	case s.Applied == v.Published:
		return nil
	case v.Record.Testing && s.Applied == v.Policy:
		return []Reason{{Type: "policy_test_mode"}}
	}
	return []Reason{{Type: "local_policy"}}
}

// rank is the order of RFC 9990, section 3.1.3.
func (s *Seen) rank(d DKIM) int {
	switch {
	case !strings.EqualFold(d.Result, pass):
		return 3
	case strings.EqualFold(d.Domain, s.Verdict.Author):
		return 0
	case s.Verdict.DKIM.Aligned && strings.EqualFold(d.Domain, s.Verdict.DKIM.Domain):
		return 1
	}
	return 2
}

func passFail(yes bool) string {
	if yes {
		return pass
	}
	return "fail"
}

// plain bounds what a stranger wrote; XML quotes the rest.
func plain(s string) string {
	if len(s) > 255 {
		s = s[:255]
	}
	return strings.ToLower(strings.ToValidUTF8(s, ""))
}

func (r *Row) key() string {
	return fmt.Sprintf("%v\x00%q\x00%q\x00%q", r.Source, r.Evaluated, r.IDs, r.Auth)
}

// Due is a report, and whom the domain wants it sent to: see Destinations.
type Due struct {
	Report *Report
	To     []URI
}

// Take returns the reports on everything since the last Take, sorted by domain, and forgets it.
func (c *Collector) Take(begin, end time.Time) []Due {
	c.mu.Lock()
	buckets := c.buckets
	c.buckets, c.rows = make(map[string]*bucket), 0
	c.mu.Unlock()
	var out []Due
	for domain, b := range buckets {
		if len(b.Rows) == 0 {
			continue // there was no room for any: a report has at least one
		}
		out = append(out, Due{c.report(domain, b, begin, end), b.Record.Aggregate})
	}
	slices.SortFunc(out, func(a, b Due) int {
		return strings.Compare(a.Report.Published.Domain, b.Report.Published.Domain)
	})
	return out
}

func (c *Collector) report(domain string, b *bucket, begin, end time.Time) *Report {
	r := &Report{
		Version: "1.0",
		Metadata: Metadata{
			Org:     c.cfg.Org,
			Email:   c.cfg.Email,
			Contact: c.cfg.Contact,
			// Unique, and the same when it is made again: RFC 9990, section 3.5.1.
			ID:        fmt.Sprintf("%d-%s@%s", begin.Unix(), domain, c.cfg.Receiver),
			Range:     DateRange{Seconds{begin}, Seconds{end}},
			Generator: c.cfg.Software,
		},
		Published: published(domain, b.Record),
	}
	notes := slices.Clone(b.Record.Faults)
	if b.Dropped > 0 {
		notes = append(notes, fmt.Sprintf("%d messages are not in this report of %d records",
			b.Dropped, len(b.Rows)))
	}
	if len(notes) > 0 { // one element only (RFC 9990, section 3.1.1.3)
		r.Metadata.Errors = []string{strings.Join(notes, "; ")}
	}
	for _, row := range b.Rows {
		r.Rows = append(r.Rows, *row)
	}
	slices.SortFunc(r.Rows, func(a, b Row) int {
		if by := a.Source.Compare(b.Source.Addr); by != 0 {
			return by
		}
		return strings.Compare(a.key(), b.key())
	})
	return r
}

func published(domain string, rec *Record) Published {
	p := Published{
		Domain:    domain,
		Discovery: "treewalk",
		Policy:    rec.Policy,
		Sub:       rec.Subdomains,
		NonExist:  rec.NonExistent,
		ADKIM:     mode(rec.StrictDKIM),
		ASPF:      mode(rec.StrictSPF),
		FO:        rec.FailureOptions,
		Testing:   "n",
	}
	if rec.Testing {
		p.Testing = "y"
	}
	return p
}

func mode(strict bool) string {
	if strict {
		return "s"
	}
	return "r"
}

// saved is the form of a Collector on disk.
type saved struct {
	Version int
	Buckets map[string]*bucket
}

// Save writes what was collected.
func (c *Collector) Save(w io.Writer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return json.NewEncoder(w).Encode(saved{1, c.buckets})
}

// Load replaces what was collected by what Save wrote.
func (c *Collector) Load(r io.Reader) error {
	var s saved
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		return fmt.Errorf("collected DMARC results: %w", err)
	}
	if s.Version != 1 {
		return fmt.Errorf("collected DMARC results: version %d, this program knows 1", s.Version)
	}
	for domain, b := range s.Buckets {
		if b == nil || b.Record == nil || b.Rows == nil {
			delete(s.Buckets, domain)
		}
	}
	if s.Buckets == nil {
		s.Buckets = make(map[string]*bucket)
	}
	rows := 0
	for _, b := range s.Buckets {
		rows += len(b.Rows)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buckets, c.rows = s.Buckets, rows
	return nil
}
