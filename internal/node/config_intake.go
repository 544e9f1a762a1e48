package node

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/intake"
	"github.com/tallypost/tallypost/mail/milter"
)

// Intake is what is taken from whom, and what is thought of it.
type Intake struct {
	DMARC          string   `toml:"dmarc" comment:"enforce: refuse and quarantine as the author's domain asks; mark: only count points"`
	TrustedSealers []string `toml:"trusted_sealers" comment:"forwarders whose ARC seal may lift a failure of DMARC"`
	Junk           float64  `toml:"junk" comment:"points from which a message goes to the folder Junk"`
	Reject         float64  `toml:"reject" comment:"points from which it is refused; negative: never"`
	GreetDelay     Duration `toml:"greet_delay" comment:"wait before the greeting on port 25, for programs that speak first; 6s finds most"`

	Archive string `toml:"archive" comment:"address that gets a copy of every message that is accepted; empty: none"`

	Limits   IntakeLimits   `toml:"limits"`
	Greylist IntakeGreylist `toml:"greylist"`
	Lists    []IntakeList   `toml:"list,omitempty" comment:"lists of addresses in the DNS"`
	Filters  []IntakeFilter `toml:"filter,omitempty" comment:"programs that are asked by the milter protocol"`
	Rules    []IntakeRule   `toml:"rule,omitempty" comment:"what is refused or taken in any case; the first that holds counts"`
}

// IntakeLimits bound what clients can make the server do; smtp.relay_from is exempt from most.
type IntakeLimits struct {
	ConnectionsAddress int  `toml:"connections_address" comment:"open at a time from one address; 0 is no limit, here and below"`
	ConnectionsNetwork int  `toml:"connections_network" comment:"open at a time from one /24 or IPv6 /64"`
	ConnectRate        Rate `toml:"connect_rate" comment:"new connections from one address"`
	MessageRate        Rate `toml:"message_rate" comment:"messages from one address"`
	MessageRateNetwork Rate `toml:"message_rate_network" comment:"messages from one /24 or IPv6 /64"`
	ByteRate           Rate `toml:"byte_rate" comment:"octets from one address"`
	RefusedRate        Rate `toml:"refused_rate" comment:"recipients refused to one address before it is cut off"`
	AuthFailRate       Rate `toml:"auth_fail_rate" comment:"failed log-ins from one /24 or IPv6 /64"`
	AccountRecipients  Rate `toml:"account_recipients" comment:"recipients of one account"`
	AccountBytes       Rate `toml:"account_bytes" comment:"octets of one account"`
}

// IntakeGreylist makes unknown senders try twice.
type IntakeGreylist struct {
	Enabled bool     `toml:"enabled" comment:"let senders that nothing speaks for try twice"`
	Delay   Duration `toml:"delay" comment:"before the second try counts"`
}

// IntakeList is a list of addresses in the DNS.
type IntakeList struct {
	Zone    string   `toml:"zone"`
	Points  float64  `toml:"points" comment:"negative for a list of good addresses"`
	Answers []string `toml:"answers,omitempty" comment:"those that count, as 127.0.0.4-7; empty: 127.0.0.2-255"`
}

// IntakeFilter is a program that is asked about messages by the milter protocol.
type IntakeFilter struct {
	Name       string   `toml:"name" comment:"for replies, verdicts and the log"`
	Address    string   `toml:"address" comment:"unix:/path or host:port"`
	Timeout    Duration `toml:"timeout" comment:"for each answer; ten times that at the end of a message; 0s: 30s"`
	FailClosed bool     `toml:"fail_closed" comment:"defer mail while it does not answer, rather than do without"`
	Inbound    bool     `toml:"inbound" comment:"ask it about mail that comes in"`
	Submission bool     `toml:"submission" comment:"ask it about mail that accounts send"`
}

// IntakeRule is a decision about some mail from outside; all that it names must hold.
type IntakeRule struct {
	Clients    []string `toml:"clients,omitempty" comment:"networks"`
	Senders    []string `toml:"senders,omitempty" comment:"ann@example.org, example.org, .example.org for all below it, <> for reports"`
	Recipients []string `toml:"recipients,omitempty" comment:"likewise; not together with header"`
	Header     string   `toml:"header,omitempty" comment:"regular expression (RE2) that is looked for in each field, as (?i)^Subject: .*lottery"`
	Action     string   `toml:"action" comment:"refuse, defer, junk, or accept: whatever points, lists and greylist say"`
	Text       string   `toml:"text,omitempty" comment:"what the client is told"`
}

// rule reads what the configuration says.
func (r IntakeRule) rule() (intake.Rule, error) {
	out := intake.Rule{Action: intake.RuleAction(r.Action), Text: r.Text}
	for _, s := range r.Clients {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return out, fmt.Errorf("clients: %w", err)
		}
		out.Clients = append(out.Clients, p)
	}
	for list, into := range map[*[]string]*[]intake.Pattern{&r.Senders: &out.Senders, &r.Recipients: &out.Recipients} {
		for _, s := range *list {
			p, err := intake.ParsePattern(s)
			if err != nil {
				return out, err
			}
			*into = append(*into, p)
		}
	}
	if r.Header != "" {
		var err error
		if out.Header, err = regexp.Compile(r.Header); err != nil {
			return out, fmt.Errorf("header: %w", err)
		}
	}
	return out, out.Check()
}

// BackupMX is a domain that this server takes mail for while the domain's own servers cannot.
type BackupMX struct {
	Domain     string `toml:"domain"`
	Recipients string `toml:"recipients" comment:"file, in data_dir if not absolute, with an address in each line; no other is taken"`
}

// Rate is a number of things in a time, written as "6000/1h"; "" is no limit.
type Rate intake.Rate

// UnmarshalText reads "6000/1h".
func (r *Rate) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*r = Rate{}
		return nil
	}
	count, per, ok := strings.Cut(string(b), "/")
	n, err := strconv.ParseInt(strings.TrimSpace(count), 10, 64)
	if !ok || err != nil || n <= 0 {
		return fmt.Errorf(`rate %q: want a number and a time, as "6000/1h"`, b)
	}
	d, err := time.ParseDuration(strings.TrimSpace(per))
	if err != nil || d <= 0 {
		return fmt.Errorf(`rate %q: want a number and a time, as "6000/1h"`, b)
	}
	*r = Rate{Count: n, Per: d}
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (r Rate) MarshalText() ([]byte, error) {
	if r.Count == 0 {
		return nil, nil
	}
	per := r.Per.String() // "1h0m0s"
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(per, zero) {
			per = per[:len(per)-2]
		}
	}
	return fmt.Appendf(nil, "%d/%s", r.Count, per), nil
}

func defaultIntake() Intake {
	l := intake.DefaultLimits()
	return Intake{
		DMARC: string(intake.DMARCEnforce), Junk: 5, Reject: 12,
		Limits: IntakeLimits{
			ConnectionsAddress: l.ConnectionsAddress, ConnectionsNetwork: l.ConnectionsNetwork,
			ConnectRate: Rate(l.ConnectRate), MessageRate: Rate(l.MessageRate),
			MessageRateNetwork: Rate(l.MessageRateNet), ByteRate: Rate(l.ByteRate),
			RefusedRate: Rate(l.RefusedRate), AuthFailRate: Rate(l.AuthFailRate),
			AccountRecipients: Rate(l.AccountRecipientRate), AccountBytes: Rate(l.AccountByteRate),
		},
		Greylist: IntakeGreylist{Delay: Duration(5 * time.Minute)},
	}
}

// validateIntake reports what is wrong with the sections above.
func (c *Config) validateIntake(bad func(format string, args ...any)) {
	in := &c.Intake
	if m := intake.DMARCMode(in.DMARC); m != intake.DMARCEnforce && m != intake.DMARCMark {
		bad("intake.dmarc: %q is neither enforce nor mark", in.DMARC)
	}
	for _, d := range in.TrustedSealers {
		if _, err := mail.ParseDomain(d); err != nil {
			bad("intake.trusted_sealers: %w", err)
		}
	}
	if in.Junk <= 0 {
		bad("intake.junk: %g points: every message would be junk", in.Junk)
	}
	if in.Reject == 0 || in.Reject > 0 && in.Reject < in.Junk {
		bad("intake.reject: %g points are less than intake.junk; negative is never", in.Reject)
	}
	if in.GreetDelay < 0 || time.Duration(in.GreetDelay) > 30*time.Second {
		bad("intake.greet_delay: want 0s to 30s: other servers do not wait for ever")
	}
	for name, r := range map[string]Rate{"byte_rate": in.Limits.ByteRate,
		"account_bytes": in.Limits.AccountBytes} {
		if r.Count > 0 && r.Count < c.SMTP.MaxSize {
			bad("intake.limits.%s: a message of smtp.max_size would never pass", name)
		}
	}
	if in.Greylist.Enabled && in.Greylist.Delay <= 0 {
		bad("intake.greylist.delay: not positive")
	}
	names := make(map[string]bool)
	for _, f := range in.Filters {
		if _, _, err := milter.ParseAddress(f.Address); err != nil {
			bad("intake.filter: %w", err)
		}
		if f.Name == "" || names[f.Name] || strings.ContainsFunc(f.Name, notPlain) {
			bad("intake.filter: name %q: want a word of letters, digits, - and _, each a different one", f.Name)
		}
		if !f.Inbound && !f.Submission {
			bad("intake.filter: %s: set inbound or submission: else it is asked nothing", f.Name)
		}
		if f.Timeout < 0 {
			bad("intake.filter: %s: negative timeout", f.Name)
		}
		names[f.Name] = true
	}
	for i, r := range in.Rules {
		if _, err := r.rule(); err != nil {
			bad("intake.rule %d: %w", i+1, err)
		}
	}
	if in.Archive != "" {
		if _, err := mail.ParseAddress(in.Archive); err != nil {
			bad("intake.archive: %w", err)
		}
	}
	for _, b := range c.BackupMX {
		if _, err := mail.ParseDomain(b.Domain); err != nil {
			bad("backup_mx: %w", err)
		}
		if b.Recipients == "" {
			bad("backup_mx: %s: recipients: name the file with the addresses that exist; without it "+
				"this server would take mail that it could only return to forged senders", b.Domain)
		}
	}
}

// intakeConfig is the policy of the node; Validate has read the names before.
func (c *Config) intakeConfig() intake.Config {
	l := &c.Intake.Limits
	cfg := intake.Config{
		Hostname: c.Hostname, RelayFrom: prefixes(c.SMTP.RelayFrom),
		DMARC:      intake.DMARCMode(c.Intake.DMARC),
		Thresholds: intake.Thresholds{Junk: c.Intake.Junk, Reject: c.Intake.Reject},
		Limits: intake.Limits{
			Connections:        c.SMTP.MaxConnections,
			ConnectionsAddress: l.ConnectionsAddress, ConnectionsNetwork: l.ConnectionsNetwork,
			ConnectRate: intake.Rate(l.ConnectRate), MessageRate: intake.Rate(l.MessageRate),
			MessageRateNet: intake.Rate(l.MessageRateNetwork), ByteRate: intake.Rate(l.ByteRate),
			RefusedRate: intake.Rate(l.RefusedRate), AuthFailRate: intake.Rate(l.AuthFailRate),
			AccountRecipientRate: intake.Rate(l.AccountRecipients),
			AccountByteRate:      intake.Rate(l.AccountBytes),
		},
		Greylist: intake.Greylist{Enabled: c.Intake.Greylist.Enabled,
			Delay: time.Duration(c.Intake.Greylist.Delay),
			State: intake.File(filepath.Join(c.DataDir, "greylist"))},
	}
	for _, s := range c.Intake.TrustedSealers {
		cfg.TrustedSealers = append(cfg.TrustedSealers, mustDomain(s))
	}
	for _, z := range c.Intake.Lists {
		cfg.Lists = append(cfg.Lists, intake.List{Zone: z.Zone, Points: z.Points, Answers: z.Answers})
	}
	for _, f := range c.Intake.Filters {
		network, addr, _ := milter.ParseAddress(f.Address) // Validate has read it
		cfg.Filters = append(cfg.Filters, intake.Filter{Name: f.Name, FailClosed: f.FailClosed,
			Inbound: f.Inbound, Submission: f.Submission,
			At: milter.Config{Network: network, Address: addr, Timeout: time.Duration(f.Timeout),
				EndTimeout: 10 * time.Duration(f.Timeout)}})
	}
	for _, r := range c.Intake.Rules {
		rule, _ := r.rule() // likewise
		cfg.Rules = append(cfg.Rules, rule)
	}
	cfg.Archive, _ = mail.ParseAddress(c.Intake.Archive)
	for _, b := range c.BackupMX {
		file := b.Recipients
		if !filepath.IsAbs(file) {
			file = filepath.Join(c.DataDir, file)
		}
		cfg.Backups = append(cfg.Backups, intake.Backup{Domain: mustDomain(b.Domain),
			Recipients: file})
	}
	return cfg
}

func notPlain(r rune) bool {
	return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
}

// mustDomain is for what Validate has read before.
func mustDomain(s string) mail.Domain {
	d, err := mail.ParseDomain(s)
	if err != nil {
		panic(err)
	}
	return d
}

// prefixes are the networks of a list that Validate has read before.
func prefixes(list []string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range list {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}
