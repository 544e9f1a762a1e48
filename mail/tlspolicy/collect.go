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

// Add counts a connection under each policy that applied to it. What went wrong counts under the
// policy that it is about, under all where it is about none in particular, and under an entry of
// its own where the policy could not be had. A TLSA policy is counted for the domain and for the
// name that the records stand at.
func (c *Collector) Add(s *Session) {
	failures := s.Decision.Troubles
	if s.Failure != nil {
		failures = append(slices.Clip(failures), s.Failure)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, policy := range s.Decision.Applied {
		c.count(s.Decision.domain, policy, failures, s)
		if policy.Type == PolicyTLSA && policy.Domain != s.Decision.domain {
			c.count(policy.Domain, policy, failures, s)
		}
	}
	for _, f := range failures {
		has := func(a Applied) bool { return a.Type == f.Policy }
		if f.Policy != "" && !slices.ContainsFunc(s.Decision.Applied, has) {
			absent := Applied{Type: f.Policy, Domain: s.Decision.domain}
			c.count(s.Decision.domain, absent, []*Failure{f}, s)
		}
	}
}

// count is called with mu held. A connection that was given up because of another policy says
// nothing of this one.
func (c *Collector) count(domain string, policy Applied, failures []*Failure, s *Session) {
	pc := c.policy(domain, policy)
	if pc == nil {
		return
	}
	failed := false
	for _, f := range failures {
		if f.Policy == policy.Type || f.Policy == "" {
			c.detail(c.domains[domain], pc, f, s)
			failed = true
		}
	}
	switch {
	case failed:
		pc.Summary.Failed++
	case s.Failure == nil || !s.Failure.Enforced:
		pc.Summary.Successful++
	}
}

// policy finds or makes the entry of a policy; nil where there are too many. Called with mu held.
func (c *Collector) policy(domain string, a Applied) *policyCount {
	d := c.domains[domain]
	if d == nil {
		if len(c.domains) >= c.cfg.MaxDomains {
			return nil
		}
		d = &domainCount{Policies: make(map[string]*policyCount)}
		c.domains[domain] = d
	}
	key := fmt.Sprintf("%s %q %q %q", a.Type, a.Domain, a.Strings, a.MX)
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

// plain is one line of bounded length.
func plain(s string) string {
	s = oneLine(s)
	if len(s) > 255 {
		s = strings.ToValidUTF8(s[:255], "")
	}
	return s
}

// oneLine makes spaces of what is no printable text: strangers have a hand in much of it.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return ' '
		}
		return r
	}, s)
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
			Domain:       domain,
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
	slices.SortFunc(out, func(a, b *Report) int { return strings.Compare(a.Domain, b.Domain) })
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
	return fmt.Sprintf("%s!%s!%d!%d.json.gz", submitter, r.Domain, r.Range.Start.Unix(),
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
		Subject: fmt.Sprintf("Report Domain: %s Submitter: %s Report-ID: <%s>", r.Domain,
			submitter, r.ID),
		MessageID: "<" + r.ID + ">",
		Date:      now,
		Fields: []string{
			"TLS-Report-Domain: " + r.Domain,
			"TLS-Report-Submitter: " + submitter,
			"TLS-Required: No", // RFC 8689, section 3
		},
		ReportType: `"tlsrpt"`,
		Text: fmt.Sprintf("This is a report (RFC 8460) of %s about TLS connections to the mail\n"+
			"servers of %s, from %s to %s.\n", submitter, r.Domain,
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
