package node

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/relay"
	"github.com/tallypost/tallypost/mail/reporting"
	"github.com/tallypost/tallypost/mail/tlspolicy"
)

// Relay is how mail leaves.
type Relay struct {
	Port           int    `toml:"port" comment:"port of other servers; 25 but for tests"`
	MaxConnections int    `toml:"max_connections" comment:"to the servers of one site, at a time, at most"`
	IPv6           bool   `toml:"ipv6" comment:"use it; where it leads nowhere that is noticed"`
	Smarthost      string `toml:"smarthost" comment:"host:port that takes all mail for other domains"`
	// User and Password log in at the smarthost.
	User     string `toml:"user" comment:"to log in at the smarthost"`
	Password string `toml:"password" comment:"so keep this file from others' eyes"`
	TLS      string `toml:"tls" comment:"to the smarthost: none, opportunistic, encrypt, verify, implicit"`

	Route []Route `toml:"route,omitempty" comment:"servers for the mail of some domains"`
}

// Route is a server for the mail of some domains, whatever their MX records say.
type Route struct {
	Domains  []string `toml:"domains" comment:"\"example.org\", or \".example.org\" for all below it"`
	To       string   `toml:"to" comment:"host:port; unix:/path for LMTP; mx: by MX records"`
	LMTP     bool     `toml:"lmtp"`
	User     string   `toml:"user"`
	Password string   `toml:"password"`
	TLS      string   `toml:"tls" comment:"as that of the smarthost"`
}

// byMX is how a Route says that it is none.
const byMX = "mx"

func (r Relay) smarthost() relay.Transport {
	return relay.Transport{Address: r.Smarthost, User: r.User, Password: r.Password,
		TLS: relay.TLSMode(r.TLS)}
}

func (r Route) transport() relay.Transport {
	if r.To == byMX {
		return relay.Transport{}
	}
	return relay.Transport{Address: r.To, LMTP: r.LMTP, User: r.User, Password: r.Password,
		TLS: relay.TLSMode(r.TLS)}
}

// lmtp is the server that has the mailboxes.
func (m Mailbox) lmtp() relay.Transport { return relay.Transport{Address: m.LMTP, LMTP: true} }

// routes are the ways of mail that do not lead to the MX hosts of a domain.
func (c *Config) routes() map[string]relay.Transport {
	routes := make(map[string]relay.Transport)
	if c.Relay.Smarthost != "" {
		routes["*"] = c.Relay.smarthost()
	}
	for _, r := range c.Relay.Route {
		for _, d := range r.Domains {
			routes[d] = r.transport()
		}
	}
	if c.Mailbox.LMTP != "" {
		for _, d := range c.Domains {
			routes[d] = c.Mailbox.lmtp()
		}
	}
	return routes
}

// validateRelay reports what is wrong with the sections above.
func (c *Config) validateRelay(bad func(format string, args ...any)) {
	if c.Relay.Smarthost != "" {
		if err := c.Relay.smarthost().Check(); err != nil {
			bad("relay.smarthost: %w", err)
		}
	}
	if c.Mailbox.LMTP != "" {
		if err := c.Mailbox.lmtp().Check(); err != nil {
			bad("mailbox.lmtp: %w", err)
		}
	}
	seen := make(map[string]bool)
	for i, r := range c.Relay.Route {
		if len(r.Domains) == 0 {
			bad("relay.route %d: domains: empty", i+1)
		}
		if r.To == "" {
			bad("relay.route %d: to: empty: name a server, or mx", i+1)
		} else if err := r.transport().Check(); err != nil && r.To != byMX {
			bad("relay.route %d: %w", i+1, err)
		}
		for _, name := range r.Domains {
			d, err := mail.ParseDomain(strings.TrimPrefix(name, "."))
			if err != nil {
				bad("relay.route %d: %q: %w", i+1, name, err)
				continue
			}
			key := string(d)
			if strings.HasPrefix(name, ".") {
				key = "." + key
			}
			if seen[key] {
				bad("relay.route %d: %s has a route already", i+1, key)
			}
			seen[key] = true
			if c.isDomain(key) {
				bad("relay.route %d: %s is a domain of this server: see mailbox.lmtp", i+1, key)
			}
		}
	}
}

func (c *Config) isDomain(name string) bool {
	for _, s := range c.Domains {
		if d, err := mail.ParseDomain(s); err == nil && string(d) == name {
			return true
		}
	}
	return false
}

// openRelay makes the relay. report hears of the TLS of its connections.
func openRelay(cfg Config, resolver dns.Resolver, report func(*tlspolicy.Session), clk clock.Clock,
	log *slog.Logger) (*relay.Relay, error) {
	store, err := openSTSStore(filepath.Join(cfg.DataDir, "mta-sts"))
	if err != nil {
		return nil, err
	}
	sts := tlspolicy.NewSTS(tlspolicy.STSConfig{Resolver: resolver, Store: store, Now: clk.Now,
		Client: reporting.PublicClient(resolver)})
	return relay.New(relay.Config{
		Hostname: cfg.Hostname, Port: cfg.Relay.Port, Routes: cfg.routes(), Self: cfg.self(),
		MaxConnections: cfg.Relay.MaxConnections, NoIPv6: !cfg.Relay.IPv6, Report: report,
		Policies: tlspolicy.New(tlspolicy.Config{Resolver: resolver, STS: sts, Now: clk.Now}),
	}, resolver, clk, log)
}

// self are the addresses that we take mail from other servers at.
func (c *Config) self() []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range c.SMTP.Listen {
		host, port, err := net.SplitHostPort(s)
		n, perr := strconv.ParseUint(port, 10, 16)
		if err != nil || perr != nil {
			continue // the listener will say so
		}
		ip := netip.IPv4Unspecified()
		if host != "" {
			if ip, err = netip.ParseAddr(host); err != nil {
				continue // a name: an MX record that has it is seen by its greeting
			}
		}
		out = append(out, netip.AddrPortFrom(ip, uint16(n)))
	}
	return out
}

// stsStore keeps the MTA-STS policies of other domains in files: what is kept cannot be taken away
// by whoever blocks the way to a new one while this server was down.
type stsStore struct {
	dir    string
	recent *tlspolicy.MemoryStore
}

func openSTSStore(dir string) (*stsStore, error) {
	return &stsStore{dir, tlspolicy.NewMemoryStore(1000)}, os.MkdirAll(dir, 0o700)
}

func (s *stsStore) path(domain string) string {
	return filepath.Join(s.dir, url.PathEscape(domain)+".json")
}

// LoadSTS is as tlspolicy.STSStore has it. A file that is damaged is none: the policy is fetched
// anew.
func (s *stsStore) LoadSTS(domain string) (*tlspolicy.CachedPolicy, error) {
	if p, err := s.recent.LoadSTS(domain); p != nil || err != nil {
		return p, err
	}
	b, err := os.ReadFile(s.path(domain))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p := new(tlspolicy.CachedPolicy)
	if json.Unmarshal(b, p) != nil {
		return nil, nil
	}
	return p, s.recent.SaveSTS(domain, p)
}

// SaveSTS is as tlspolicy.STSStore has it. It does not wait for the disk: a policy that is lost is
// fetched again.
func (s *stsStore) SaveSTS(domain string, p *tlspolicy.CachedPolicy) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(s.dir, "new*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), s.path(domain))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return s.recent.SaveSTS(domain, p)
}
