package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/tallypost/tallypost/mail"
)

// Config is the whole configuration of a node: the file tallypost.toml, defaults filled in. It does not
// change once the node runs.
type Config struct {
	// Hostname is the name this server greets with: it should resolve to its address, and that back.
	Hostname string `toml:"hostname" comment:"name this server greets with: it should lead to its address, and that back"`
	// Domains whose mail ends here.
	Domains []string `toml:"domains" comment:"whose mail ends here"`
	// DataDir holds queue, log, keys, accounts and mailboxes.
	DataDir string `toml:"data_dir" comment:"queue, log, keys, accounts and mailboxes; a relative path is beside this file"`

	SMTP       SMTP       `toml:"smtp"`
	Submission Submission `toml:"submission"`
	TLS        TLS        `toml:"tls"`
	DNS        DNS        `toml:"dns"`
	Relay      Relay      `toml:"relay"`
	Queue      Queue      `toml:"queue"`
	Mailbox    Mailbox    `toml:"mailbox"`
	Log        Log        `toml:"log"`
	Intake     Intake     `toml:"intake"`
	BackupMX   []BackupMX `toml:"backup_mx,omitempty"`
	DKIM       DKIM       `toml:"dkim"`
	Bulk       Bulk       `toml:"bulk"`
	Reports    Reports    `toml:"reports"`
	MTASTS     MTASTS     `toml:"mta_sts"`
	Web        Web        `toml:"web"`
	Bitcoin    Bitcoin    `toml:"bitcoin"`
}

// SMTP is the service other servers deliver to.
type SMTP struct {
	Listen []string `toml:"listen" comment:"addresses for mail from other servers; port 25 is what they try"`
	// MaxSize is the largest message taken, in octets.
	MaxSize int64 `toml:"max_size" comment:"largest message taken, octets"`
	// MaxRecipients of one message.
	MaxRecipients int `toml:"max_recipients" comment:"of one message"`
	// RelayFrom are the networks whose clients may send to any domain without logging in.
	RelayFrom []string `toml:"relay_from" comment:"networks that may send anywhere without logging in; open relays get black-listed"`
	// MaxConnections at a time, all clients together.
	MaxConnections int `toml:"max_connections" comment:"at a time, all clients together"`
	// Proxies and XClient speak for the clients behind them, on the ports of Submission too.
	Proxies []string `toml:"proxies" comment:"networks of proxies in front of this server, as HAProxy, that begin each connection with a PROXY header (version 1 or 2)"`
	XClient []string `toml:"xclient" comment:"networks of servers in front of this one, as Postfix or nginx, that say who the client is with XCLIENT"`
	// BinaryMIME offers BINARYMIME (RFC 3030, section 3).
	BinaryMIME bool `toml:"binarymime" comment:"take messages with binary parts as they are; only where all that read the mailboxes can, and nothing is forwarded"`
}

// Submission is the service that accounts send through.
type Submission struct {
	Listen    []string `toml:"listen" comment:"STARTTLS, port 587"`
	ListenTLS []string `toml:"listen_tls" comment:"TLS from the start, port 465"`
	// MaxHold is how long a sender may have a message held (FUTURERELEASE, RFC 4865).
	MaxHold Duration `toml:"max_hold" comment:"for which a sender may have a message wait before it is sent; 0s: not offered"`
}

// TLS says which certificates are shown.
type TLS struct {
	Cert Files `toml:"cert" comment:"PEM file, or a list of them, as one for ECDSA and one for RSA; empty: a certificate signed by itself is made"`
	Key  Files `toml:"key" comment:"likewise, in the same order"`
	ACME ACME  `toml:"acme"`
}

// ACME is how a certificate is obtained and renewed (RFC 8555), for the host name.
type ACME struct {
	// Enabled says that the terms of the authority are agreed to.
	Enabled   bool   `toml:"enabled" comment:"obtain a certificate; this agrees to the authority's terms"`
	Directory string `toml:"directory" comment:"URL of the authority; empty: Let's Encrypt"`
	Email     string `toml:"email" comment:"where the authority may write to"`
	// Where the authority's challenges are answered: HTTP-01 (RFC 8555, section 8.3) wants port 80,
	// TLS-ALPN-01 (RFC 8737) port 443. One is enough.
	HTTPListen string `toml:"http_listen" comment:"answers HTTP-01, which comes to port 80"`
	TLSListen  string `toml:"tls_listen" comment:"answers TLS-ALPN-01, which comes to port 443"`
	// RootCA is a PEM file of roots that the authority's own server is verified with.
	RootCA string `toml:"root_ca" comment:"PEM file; for an authority of one's own"`
}

// DNS says whom to ask.
type DNS struct {
	Servers []string `toml:"servers" comment:"host:port; empty: those of /etc/resolv.conf"`
	// TrustAD believes a server's word that it has validated DNSSEC. A resolver on loopback is believed
	// in any case.
	TrustAD bool `toml:"trust_ad" comment:"believe that a server not on loopback has validated DNSSEC; DANE needs it"`
}

// Queue says how long mail is tried.
type Queue struct {
	MinBackoff Duration `toml:"min_backoff" comment:"before the second attempt"`
	MaxBackoff Duration `toml:"max_backoff" comment:"between later attempts, at most"`
	Expire     Duration `toml:"expire" comment:"after which a message goes back to its sender"`
	// DelayWarning is the age at which a sender is told that a message is late.
	DelayWarning Duration `toml:"delay_warning" comment:"after which its sender is told that it is late"`
	Concurrency  int      `toml:"concurrency" comment:"connections to one destination at a time, at most"`
}

// Mailbox says where local mail goes.
type Mailbox struct {
	Root      string `toml:"root" comment:"folder of <domain>/<local part>/Maildir; empty: mail in data_dir"`
	Separator string `toml:"separator" comment:"starts a sub-address"`
	// LMTP is the server that has the mailboxes, such as Dovecot; nothing is written below Root then.
	LMTP string `toml:"lmtp" comment:"unix:/path or host:port of a server that takes mail by LMTP, such as Dovecot; empty: Maildirs below root"`
}

// Log is the tamper-evident log of mail events.
type Log struct {
	Origin string `toml:"origin" comment:"name of the log; empty: hostname/tlog"`
}

// Duration is a time.Duration that is written as "5m" or "120h".
type Duration time.Duration

// UnmarshalText reads "90s", "5m", "120h".
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf(`duration %q: want a number and a unit, as "90s", "5m" or "120h"`, b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Default returns a configuration that lacks only hostname, domains and data_dir.
func Default() Config {
	c := Config{
		SMTP:       SMTP{Listen: []string{":25"}, MaxSize: 50 << 20, MaxRecipients: 1000, MaxConnections: 2000},
		Submission: Submission{Listen: []string{":587"}, ListenTLS: []string{":465"}},
		Relay:      Relay{Port: 25, MaxConnections: 20, IPv6: true},
		Queue: Queue{MinBackoff: Duration(5 * time.Minute), MaxBackoff: Duration(time.Hour),
			DelayWarning: Duration(4 * time.Hour), Expire: Duration(5 * 24 * time.Hour), Concurrency: 20},
		Mailbox: Mailbox{Separator: "+"},
		Intake:  defaultIntake(),
		Bitcoin: defaultBitcoin(),
	}
	c.defaultSubmission()
	return c
}

// maxConfig bounds the configuration file, in octets.
const maxConfig = 1 << 20

// Load reads and checks a configuration file. An error names the line.
func Load(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, fmt.Errorf("%w: `tallypost config example` prints one to begin with", err)
	}
	if err != nil {
		return Config{}, err
	}
	if len(b) > maxConfig {
		return Config{}, fmt.Errorf("%s: larger than %d octets", path, maxConfig)
	}
	cfg := Default()
	dec := toml.NewDecoder(bytes.NewReader(b)).DisallowUnknownFields()
	if err := dec.Decode(&cfg); err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, explain(err))
	}
	beside := func(file *string) { // a relative path is beside the configuration
		if !filepath.IsAbs(*file) && *file != "" {
			*file = filepath.Join(filepath.Dir(path), *file)
		}
	}
	beside(&cfg.DataDir)
	beside(&cfg.TLS.ACME.RootCA)
	beside(&cfg.Bitcoin.DataDir)
	beside(&cfg.Bitcoin.Cookie)
	for _, files := range []Files{cfg.TLS.Cert, cfg.TLS.Key} {
		for i := range files {
			beside(&files[i])
		}
	}
	if err := cfg.Validate(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return cfg, nil
}

// explain turns the decoder's errors into one line each with the place in the file.
func explain(err error) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) {
		var all []error
		for _, e := range unknown.Errors {
			row, col := e.Position()
			all = append(all, fmt.Errorf("line %d, column %d: unknown key %q", row, col, joinKey(e.Key())))
		}
		return errors.Join(all...)
	}
	var bad *toml.DecodeError
	if errors.As(err, &bad) {
		row, col := bad.Position()
		return fmt.Errorf("line %d, column %d: %w", row, col, err)
	}
	return err
}

func joinKey(key toml.Key) string {
	var b bytes.Buffer
	for i, k := range key {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(k)
	}
	return b.String()
}

// Validate reports everything that is wrong, and fills in what follows from other settings.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, err := mail.ParseDomain(c.Hostname); err != nil {
		bad("hostname: %w: set it to the name of this server, such as mx.example.org", err)
	}
	if len(c.Domains) == 0 {
		bad("domains: empty: name the domains whose mail ends here")
	}
	for _, d := range c.Domains {
		if _, err := mail.ParseDomain(d); err != nil {
			bad("domains: %w", err)
		}
	}
	if c.DataDir == "" {
		bad("data_dir: empty: name the folder for queue, log and mailboxes")
	}
	for name, list := range map[string][]string{"smtp.listen": c.SMTP.Listen,
		"submission.listen": c.Submission.Listen, "submission.listen_tls": c.Submission.ListenTLS,
		"dns.servers": c.DNS.Servers} {
		for _, addr := range list {
			if _, _, err := net.SplitHostPort(addr); err != nil {
				bad("%s: %q: want host:port, or :port for all addresses of this machine", name, addr)
			}
		}
	}
	for name, list := range map[string][]string{"smtp.relay_from": c.SMTP.RelayFrom,
		"smtp.proxies": c.SMTP.Proxies, "smtp.xclient": c.SMTP.XClient} {
		for _, p := range list {
			if _, err := netip.ParsePrefix(p); err != nil {
				bad("%s: %q: want a network, as 192.0.2.0/24 or 2001:db8::/32", name, p)
			}
		}
	}
	if len(c.TLS.Cert) != len(c.TLS.Key) {
		bad("tls: cert and key go together: %d and %d files", len(c.TLS.Cert), len(c.TLS.Key))
	}
	if a := c.TLS.ACME; a.Enabled {
		if len(c.TLS.Cert) > 0 {
			bad("tls: either cert and key, or acme")
		}
		if a.HTTPListen == "" && a.TLSListen == "" && len(c.Web.ListenTLS) == 0 {
			bad("tls.acme: set http_listen (port 80) or tls_listen (port 443), where the authority comes to check, " +
				"or web.listen_tls")
		}
	}
	for name, n := range map[string]int64{"smtp.max_size": c.SMTP.MaxSize,
		"smtp.max_recipients": int64(c.SMTP.MaxRecipients), "smtp.max_connections": int64(c.SMTP.MaxConnections),
		"relay.port": int64(c.Relay.Port), "queue.min_backoff": int64(c.Queue.MinBackoff),
		"queue.expire": int64(c.Queue.Expire), "queue.delay_warning": int64(c.Queue.DelayWarning),
		"queue.concurrency": int64(c.Queue.Concurrency), "relay.max_connections": int64(c.Relay.MaxConnections)} {
		if n <= 0 {
			bad("%s: %s is not a positive number", name, strconv.FormatInt(n, 10))
		}
	}
	if c.Queue.MaxBackoff < c.Queue.MinBackoff {
		bad("queue.max_backoff: less than queue.min_backoff")
	}
	c.validateRelay(bad)
	c.validateIntake(bad)
	c.validateSubmission(bad)
	c.validateBitcoin(bad)
	if c.Mailbox.Root == "" {
		c.Mailbox.Root = filepath.Join(c.DataDir, "mail")
	}
	if c.Log.Origin == "" {
		c.Log.Origin = c.Hostname + "/tlog"
	}
	return errors.Join(errs...)
}

// Example returns a configuration file with every default and a comment where one is needed.
func Example() ([]byte, error) {
	cfg := Default()
	cfg.Hostname, cfg.Domains, cfg.DataDir = "mx.example.org", []string{"example.org"}, "/var/lib/tallypost"
	b, err := toml.Marshal(cfg)
	return append(b, lists...), err
}

// lists are the sections that may be there several times, for Example.
const lists = `
# Sections that may be there several times; none is by default.

# [[relay.route]]               # servers for the mail of some domains
# domains = ["example.net", ".example.net"]  # the second is all below it
# to = "gateway.example.net:25" # host:port; unix:/path for LMTP; mx: by MX records
# lmtp = false
# user = ""                     # to log in there
# password = ""
# tls = "encrypt"               # none, opportunistic, encrypt, verify, implicit

# [[intake.list]]               # a list of addresses in the DNS
# zone = "bl.example.net"
# points = 6.0                  # negative for a list of good addresses
# answers = ["127.0.0.2-11"]    # those that count; empty: 127.0.0.2-255

# [[intake.filter]]             # a program that speaks the milter protocol, such as rspamd's proxy
# name = "rspamd"               # for replies, verdicts and the log
# address = "127.0.0.1:11332"   # or unix:/path
# timeout = "10s"               # for each answer; ten times that at the end of a message
# fail_closed = false           # true: defer mail while it does not answer; false: do without
# inbound = true                # ask it about mail that comes in
# submission = false            # ask it about mail that accounts send

# [[backup_mx]]                 # a domain whose mail is kept while its own servers are away
# domain = "example.com"
# recipients = "example.com.txt" # an address in each line; no other is taken; in data_dir
`
