package node

import (
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/intake"
	"github.com/tallypost/tallypost/mail/keyring"
	"github.com/tallypost/tallypost/mail/records"
	"github.com/tallypost/tallypost/mail/reporting"
	"github.com/tallypost/tallypost/mail/tlspolicy"
)

// DKIM says how mail of our domains is signed.
type DKIM struct {
	Sign   string   `toml:"sign" comment:"published: with keys whose record is in the DNS; always; never"`
	Expire Duration `toml:"expire" comment:"after which a signature is void, against replay; 0s: never, so that it stays a proof"`
}

// Bulk is the rule for mail to many recipients at other servers.
type Bulk struct {
	Policy          string   `toml:"policy" comment:"mail to many without one-click unsubscription or a postal address: off, warn (its sender is told, once a day) or refuse"`
	Recipients      Rate     `toml:"recipients" comment:"more for one message, list or subject are many"`
	PostalAddresses []string `toml:"postal_addresses" comment:"texts of which such mail must have one; empty: not looked for"`
}

// Reports are those about mail by a domain's name (DMARC) and about encryption (TLSRPT).
type Reports struct {
	SendDMARC bool   `toml:"send_dmarc" comment:"tell other domains each night what came by their name, if they ask for it in the DNS"`
	SendTLS   bool   `toml:"send_tls" comment:"tell other domains each night how connections to their servers went, if they ask for it"`
	Org       string `toml:"org" comment:"name of the organization in reports; empty: the first domain"`
	// Receive are addresses of our own domains for the reports of others.
	Receive []string `toml:"receive" comment:"addresses whose mail is read as reports, see tallypost reports; tallypost dns puts them into the records"`
}

// MTASTS is the policy that others find for our domains (RFC 8461).
type MTASTS struct {
	Mode   string   `toml:"mode" comment:"testing, enforce, or none for some weeks before it ends; empty: no policy"`
	MaxAge Duration `toml:"max_age" comment:"for which others keep it"`
	MX     []string `toml:"mx" comment:"further servers of the domains beside this one"`
}

// Web is what is served by HTTP.
type Web struct {
	Listen    []string `toml:"listen" comment:"status page and /metrics for Prometheus, without log-in and TLS: addresses of loopback, as 127.0.0.1:8080, or of a network that you trust"`
	ListenTLS []string `toml:"listen_tls" comment:"port 443: the policy at https://mta-sts.DOMAIN/, and TLS-ALPN-01 for tls.acme"`
}

// Files is the name of a file, or a list of names.
type Files []string

// UnmarshalText takes a single name.
func (f *Files) UnmarshalText(b []byte) error {
	if *f = nil; len(b) > 0 {
		*f = Files{string(b)}
	}
	return nil
}

// defaultSubmission fills in what the sections above begin with.
func (c *Config) defaultSubmission() {
	c.Submission.MaxHold = Duration(7 * 24 * time.Hour)
	c.DKIM = DKIM{Sign: string(keyring.SignPublished)}
	c.Bulk = Bulk{Policy: string(intake.BulkWarn), Recipients: Rate{Count: 50, Per: time.Hour}}
	c.Reports = Reports{SendDMARC: true, SendTLS: true}
	c.MTASTS = MTASTS{MaxAge: Duration(7 * 24 * time.Hour)}
}

// validateSubmission reports what is wrong with the sections above.
func (c *Config) validateSubmission(bad func(format string, args ...any)) {
	if c.Submission.MaxHold < 0 {
		bad("submission.max_hold: negative")
	}
	switch keyring.Mode(c.DKIM.Sign) {
	case keyring.SignPublished, keyring.SignAlways, keyring.SignNever:
	default:
		bad("dkim.sign: %q is none of published, always and never", c.DKIM.Sign)
	}
	if e := time.Duration(c.DKIM.Expire); e != 0 && e < 6*24*time.Hour {
		bad("dkim.expire: %s: mail may wait for 5 days on its way; 0s is never", e)
	}
	switch intake.BulkPolicy(c.Bulk.Policy) {
	case intake.BulkOff, intake.BulkWarn, intake.BulkRefuse:
	default:
		bad("bulk.policy: %q is none of off, warn and refuse", c.Bulk.Policy)
	}
	for _, a := range c.Bulk.PostalAddresses {
		if strings.TrimSpace(a) == "" {
			bad("bulk.postal_addresses: an empty one, which every message has")
		}
	}
	for _, s := range c.Reports.Receive {
		a, err := mail.ParseAddress(s)
		if err == nil && !slices.Contains(c.domains(), a.Domain) {
			err = fmt.Errorf("%s is not one of domains", a.Domain)
		}
		if err != nil {
			bad("reports.receive: %q: %w", s, err)
		}
	}
	c.validateWeb(bad)
}

func (c *Config) validateWeb(bad func(format string, args ...any)) {
	switch tlspolicy.Mode(c.MTASTS.Mode) {
	case "", tlspolicy.ModeNone, tlspolicy.ModeTesting, tlspolicy.ModeEnforce:
	default:
		bad("mta_sts.mode: %q is none of testing, enforce and none", c.MTASTS.Mode)
	}
	if a := time.Duration(c.MTASTS.MaxAge); a < time.Hour || a > 365*24*time.Hour {
		bad("mta_sts.max_age: %s: want an hour to a year", a)
	}
	for _, mx := range c.MTASTS.MX {
		if _, err := mail.ParseDomain(strings.TrimPrefix(mx, "*.")); err != nil {
			bad("mta_sts.mx: %w", err)
		}
	}
	for _, addr := range c.Web.Listen {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			bad("web.listen: %w", err)
		}
	}
	for _, addr := range c.Web.ListenTLS {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			bad("web.listen_tls: %w", err)
		}
		if addr == c.TLS.ACME.TLSListen {
			bad("web.listen_tls: the same as tls.acme.tls_listen: leave that out, the challenge is answered here too")
		}
	}
}

// domains are the local ones; those that cannot be read are left out.
func (c *Config) domains() (out []mail.Domain) {
	for _, s := range c.Domains {
		if d, err := mail.ParseDomain(s); err == nil {
			out = append(out, d)
		}
	}
	return out
}

// reportAddresses are the places for the reports of others. Validate has read them before.
func (c *Config) reportAddresses() (out []mail.Address) {
	for _, s := range c.Reports.Receive {
		a, err := mail.ParseAddress(s)
		if err != nil {
			panic(err)
		}
		out = append(out, a)
	}
	return out
}

// takesReports reports whether an address is for the reports of others.
func (c *Config) takesReports(to mail.Address) bool {
	return slices.ContainsFunc(c.reportAddresses(), func(a mail.Address) bool {
		return a.Domain == to.Domain && strings.EqualFold(a.Local, to.Local)
	})
}

// stsPolicy is the MTA-STS policy of our domains, nil where there is none.
func (c *Config) stsPolicy() *tlspolicy.STSPolicy {
	if c.MTASTS.Mode == "" {
		return nil
	}
	p := &tlspolicy.STSPolicy{Mode: tlspolicy.Mode(c.MTASTS.Mode), MaxAge: time.Duration(c.MTASTS.MaxAge)}
	for _, mx := range append([]string{c.Hostname}, c.MTASTS.MX...) {
		star := ""
		if name, found := strings.CutPrefix(mx, "*."); found {
			star, mx = "*.", name
		}
		p.MX = append(p.MX, star+mustDomain(mx).ASCII())
	}
	return p
}

// OpenRing opens the DKIM keys of the node that cfg describes.
func OpenRing(cfg Config, resolver dns.Resolver, clk clock.Clock, log *slog.Logger) (*keyring.Ring, error) {
	return keyring.Open(keyring.Config{Dir: filepath.Join(cfg.DataDir, "dkim"), Domains: cfg.domains(),
		Sign: keyring.Mode(cfg.DKIM.Sign), Expire: time.Duration(cfg.DKIM.Expire)}, resolver, clk, log)
}

// OpenKeys opens the keys likewise, and makes those of domains that have none.
func OpenKeys(cfg Config, resolver dns.Resolver, clk clock.Clock, log *slog.Logger) (*keyring.Ring, error) {
	ring, err := OpenRing(cfg, resolver, clk, log)
	if err != nil || cfg.DKIM.Sign == string(keyring.SignNever) {
		return ring, err
	}
	for _, d := range cfg.domains() {
		made, err := ring.Ensure(d)
		if err != nil {
			return nil, fmt.Errorf("DKIM keys of %s: %w", d, err)
		}
		if made {
			log.Info("DKIM keys made; `tallypost dns` prints what to publish", "domain", d)
		}
	}
	return ring, nil
}

// OpenInbox returns the reports that the node has received.
func OpenInbox(cfg Config, clk clock.Clock) *reporting.Inbox {
	return reporting.NewInbox(filepath.Join(cfg.DataDir, "reports", "received"), cfg.Hostname, clk)
}

// openReports opens what is counted for the reports to others.
func openReports(cfg Config, resolver dns.Resolver, keys *keyring.Ring, clk clock.Clock,
	log *slog.Logger) (*reporting.Sender, error) {
	return reporting.NewSender(reporting.Config{Dir: filepath.Join(cfg.DataDir, "reports"),
		Domain: cfg.domains()[0], Org: cfg.Reports.Org, Software: "Tallypost", DMARC: cfg.Reports.SendDMARC,
		TLS: cfg.Reports.SendTLS, Sign: keys.Signer}, resolver, clk, log)
}

// submissionConfig adds what concerns our own users to the intake's policy.
func (n *Node) submissionConfig(in intake.Config) intake.Config {
	in.Signer = n.keys.Signer
	in.Bulk = intake.Bulk{Policy: intake.BulkPolicy(n.cfg.Bulk.Policy),
		Recipients: intake.Rate(n.cfg.Bulk.Recipients), PostalAddresses: n.cfg.Bulk.PostalAddresses}
	in.Takes = n.cfg.takesReports
	in.Reports = n.reports.Seen
	return in
}

// Site returns what the DNS records of a domain follow from.
func Site(cfg Config, domain mail.Domain, keys *keyring.Ring) (*records.Site, error) {
	if !slices.Contains(cfg.domains(), domain) {
		return nil, fmt.Errorf("%s is not among the domains of this server: %s", domain,
			strings.Join(cfg.Domains, ", "))
	}
	certs, err := shownCertificates(cfg)
	if err != nil {
		return nil, err
	}
	s := &records.Site{Domain: domain, Host: mustDomain(cfg.Hostname), Keys: keys.Keys(domain),
		STS: cfg.stsPolicy(), Certificates: certs, ImplicitTLS: port(cfg.Submission.ListenTLS),
		StartTLS: port(cfg.Submission.Listen)}
	// One place for all reports; an address of the domain itself needs nobody's consent.
	places := cfg.reportAddresses()
	own := slices.IndexFunc(places, func(a mail.Address) bool { return a.Domain == domain })
	if len(places) > 0 {
		s.Reports = places[max(own, 0):][:1]
	}
	return s, nil
}

// port is the port number of the first address, 0 without one.
func port(addrs []string) uint16 {
	for _, a := range addrs {
		if _, p, err := net.SplitHostPort(a); err == nil {
			if n, err := net.LookupPort("tcp", p); err == nil {
				return uint16(n)
			}
		}
	}
	return 0
}
