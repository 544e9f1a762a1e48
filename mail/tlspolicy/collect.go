package tlspolicy

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// CollectorConfig says who reports, and how much is kept of a day.
type CollectorConfig struct {
	Organization string
	Contact      string // address of a person, or a page
	Submitter    string // domain that reports
	// MaxDomains is how many domains are counted for. Zero: 10,000.
	MaxDomains int
	// MaxDetails is how many different failures a domain's report may have. Zero: 500.
	MaxDetails int
}

// maxVariants is how many different policies are counted for one domain: each MX host with TLSA
// records is one.
const maxVariants = 50

// Collector counts connections until they are reported. It keeps everything in memory; Save and
// Load carry it over a restart.
type Collector struct {
	cfg CollectorConfig

	mu      sync.Mutex // guards what follows
	domains map[string]*domainCount
}

// domainCount is what happened to one domain.
type domainCount struct {
	Policies map[string]*policyCount // by their JSON
	Details  int                     // in all of Policies
}

type policyCount struct {
	Policy  Applied
	Summary Summary
	Details map[string]*FailureDetail // by their content without count
}

// NewCollector returns an empty Collector.
func NewCollector(cfg CollectorConfig) *Collector {
	if cfg.MaxDomains <= 0 {
		cfg.MaxDomains = 10_000
	}
	if cfg.MaxDetails <= 0 {
		cfg.MaxDetails = 500
	}
	return &Collector{cfg: cfg, domains: make(map[string]*domainCount)}
}

// Add counts a connection under each policy that applied to it. A failure counts under the policy
// that was violated, and under all where it was none in particular. What went wrong with a policy
// itself is a failure of that policy, too.
func (c *Collector) Add(s *Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, policy := range s.Decision.Applied {
		pc := c.policy(policy)
		if pc == nil {
			continue
		}
		failed := false
		failures := s.Decision.Troubles
		if s.Failure != nil {
			failures = append(slices.Clip(failures), s.Failure)
		}
		for _, f := range failures {
			if f.Policy == policy.Type || f.Policy == "" {
				c.detail(c.domains[policy.Domain], pc, f, s)
				failed = true
			}
		}
		if failed {
			pc.Summary.Failed++
		} else {
			pc.Summary.Successful++
		}
	}
	c.fetchTroubles(s)
}

// fetchTroubles counts a policy that could not be had, under an entry of its own: there are no
// strings.
func (c *Collector) fetchTroubles(s *Session) {
	applied := s.Decision.Applied
	domain := applied[0].Domain
	for _, f := range s.Decision.Troubles {
		if slices.ContainsFunc(applied, func(a Applied) bool { return a.Type == f.Policy }) {
			continue
		}
		if pc := c.policy(Applied{Type: f.Policy, Domain: domain}); pc != nil {
			c.detail(c.domains[domain], pc, f, s)
			pc.Summary.Failed++
		}
	}
}

// policy finds or makes the entry of a policy; nil where there are too many. Called with mu held.
func (c *Collector) policy(a Applied) *policyCount {
	d := c.domains[a.Domain]
	if d == nil {
		if len(c.domains) >= c.cfg.MaxDomains {
			return nil
		}
		d = &domainCount{Policies: make(map[string]*policyCount)}
		c.domains[a.Domain] = d
	}
	key := fmt.Sprintf("%s %q %q", a.Type, a.Strings, a.MX)
	pc := d.Policies[key]
	if pc == nil && len(d.Policies) < maxVariants {
		pc = &policyCount{Policy: a, Details: make(map[string]*FailureDetail)}
		d.Policies[key] = pc
	}
	return pc
}

func (c *Collector) detail(d *domainCount, pc *policyCount, f *Failure, s *Session) {
	detail := FailureDetail{
		Type:         f.Type,
		SendingIP:    address(s.SendingIP),
		ReceivingMX:  plain(s.ReceivingHost),
		ReceivingEHL: plain(s.Helo),
		ReceivingIP:  address(s.ReceivingIP),
		ReasonCode:   plain(f.Error()),
	}
	key := fmt.Sprint(detail)
	known := pc.Details[key]
	if known == nil {
		if d.Details >= c.cfg.MaxDetails {
			return // the summary still counts it
		}
		d.Details++
		known = &detail
		pc.Details[key] = known
	}
	known.Sessions++
}

func address(ip netip.Addr) string {
	if !ip.IsValid() {
		return ""
	}
	return ip.Unmap().WithZone("").String()
}

// plain makes one line of printable text, of bounded length, of what a stranger may have had a
// hand in.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return ' '
		}
		return r
	}, s)
	if len(s) > 255 {
		s = strings.ToValidUTF8(s[:255], "")
	}
	return s
}

// Take returns the reports on everything since the last Take, sorted by domain, and forgets it.
// Who wants one is in the domain's TLSRPT record: see LookupRecord.
func (c *Collector) Take(start, end time.Time) []*Report {
	c.mu.Lock()
	domains := c.domains
	c.domains = make(map[string]*domainCount)
	c.mu.Unlock()
	var out []*Report
	for domain, d := range domains {
		r := &Report{
			Organization: c.cfg.Organization,
			Range:        DateRange{start.UTC(), end.UTC()},
			Contact:      c.cfg.Contact,
			ID: fmt.Sprintf("%s_%s@%s", start.UTC().Format(time.DateOnly), domain,
				c.cfg.Submitter),
		}
		for _, pc := range d.Policies {
			r.Policies = append(r.Policies, pc.result())
		}
		slices.SortFunc(r.Policies, func(a, b PolicyResult) int {
			return strings.Compare(fmt.Sprint(a.Policy), fmt.Sprint(b.Policy))
		})
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *Report) int { return strings.Compare(a.Domain(), b.Domain()) })
	return out
}

func (pc *policyCount) result() PolicyResult {
	p := PolicyResult{Policy: pc.Policy, Summary: pc.Summary}
	for _, d := range pc.Details {
		p.Details = append(p.Details, *d)
	}
	slices.SortFunc(p.Details, func(a, b FailureDetail) int {
		return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
	})
	return p
}

// Domain is the domain that the report is about.
func (r *Report) Domain() string {
	if len(r.Policies) == 0 {
		return ""
	}
	return r.Policies[0].Policy.Domain
}

// JSON returns the report as RFC 8460, section 4.4, has it, packed by gzip.
func (r *Report) JSON() ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	e := json.NewEncoder(z)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return nil, fmt.Errorf("write TLS report: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// FileName is the name of RFC 8460, section 5.1.
func (r *Report) FileName(submitter string) string {
	return fmt.Sprintf("%s!%s!%d!%d.json.gz", submitter, r.Domain(), r.Range.Start.Unix(),
		r.Range.End.Unix())
}

// Mail returns the message that brings the report, not yet signed: RFC 8460, section 3, wants a
// DKIM signature of the submitter's domain. It is to be delivered whatever the state of TLS that
// it is about.
func (r *Report) Mail(from, to mail.Address, submitter string, now time.Time) ([]byte, error) {
	file, err := r.JSON()
	if err != nil {
		return nil, err
	}
	c := mail.Carrier{
		From: from,
		To:   to,
		Subject: fmt.Sprintf("Report Domain: %s Submitter: %s Report-ID: <%s>", r.Domain(),
			submitter, r.ID),
		MessageID: "<" + r.ID + ">",
		Date:      now,
		Fields: []string{
			"TLS-Report-Domain: " + r.Domain(),
			"TLS-Report-Submitter: " + submitter,
			"TLS-Required: No", // RFC 8689, section 5
		},
		ReportType: `"tlsrpt"`,
		Text: fmt.Sprintf("This is a report (RFC 8460) of %s about TLS connections to the mail\n"+
			"servers of %s, from %s to %s.\n", submitter, r.Domain(),
			r.Range.Start.Format(time.RFC3339), r.Range.End.Format(time.RFC3339)),
		Type: "application/tlsrpt+gzip",
		Name: r.FileName(submitter),
		File: file,
	}
	return c.Bytes(), nil
}

// saved is the form of a Collector on disk.
type saved struct {
	Version int
	Domains map[string]*domainCount
}

// Save writes what was counted.
func (c *Collector) Save(w io.Writer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return json.NewEncoder(w).Encode(saved{1, c.domains})
}

// Load replaces what was counted by what Save wrote.
func (c *Collector) Load(r io.Reader) error {
	var s saved
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		return fmt.Errorf("collected TLS results: %w", err)
	}
	if s.Version != 1 {
		return fmt.Errorf("collected TLS results: version %d, this program knows 1", s.Version)
	}
	domains := make(map[string]*domainCount)
	for name, d := range s.Domains {
		if d == nil || d.Policies == nil || !d.whole() {
			return fmt.Errorf("collected TLS results: entry of %q is damaged", name)
		}
		domains[name] = d
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.domains = domains
	return nil
}

func (d *domainCount) whole() bool {
	for _, pc := range d.Policies {
		if pc == nil || pc.Details == nil {
			return false
		}
		for _, f := range pc.Details {
			if f == nil {
				return false
			}
		}
	}
	return true
}
