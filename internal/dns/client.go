package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	miekg "github.com/miekg/dns"
)

// Config says whom a Client asks. The zero value asks the servers of /etc/resolv.conf.
type Config struct {
	// Servers are recursive servers as "host:port" or as an address alone, port 53 then; asked in
	// this order, at most three. Empty: those of /etc/resolv.conf.
	Servers []string
	// TrustAD says that these servers validate DNSSEC and that the path to them is safe, so that
	// their AD bit is believed. Servers on a loopback address are believed without it.
	TrustAD bool
	// Timeout is for one exchange with one server. Zero: 3 s.
	Timeout time.Duration
	// Attempts is how often each server is asked. Zero: 2.
	Attempts int
	// CacheBytes bounds the memory of the cache. Zero: 8 MiB. Negative: no cache.
	CacheBytes int
	// MaxTTL and MaxNegativeTTL cap how long an answer, and the lack of one, is believed. Zero: 1
	// h and 5 min: an operator who has mended a record does not wait for a day.
	MaxTTL, MaxNegativeTTL time.Duration
	// Now is the clock that TTLs run by. Nil: time.Now.
	Now func() time.Time
}

// resolvConf is where the servers stand where the configuration names none.
const resolvConf = "/etc/resolv.conf"

const (
	maxServers  = 3    // as resolv.conf(5)
	udpSize     = 1232 // octets offered by EDNS0: what passes without fragments (DNS flag day 2020)
	maxUDP      = 4096 // octets read of a datagram, for servers that heed no limit
	portDefault = "53"
)

var errClosed = fmt.Errorf("resolver is closed: %w", ErrTemporary)

func (c *Config) fill() {
	if c.Timeout <= 0 {
		c.Timeout = 3 * time.Second
	}
	if c.Attempts <= 0 {
		c.Attempts = 2
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = 8 << 20
	}
	if c.MaxTTL <= 0 {
		c.MaxTTL = time.Hour
	}
	if c.MaxNegativeTTL <= 0 {
		c.MaxNegativeTTL = 5 * time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
}

// Client is a Resolver that asks recursive servers. It may be used from many goroutines;
// questions that are asked at the same time share one exchange.
type Client struct {
	cfg     Config
	servers []server
	cache   *cache
	flights flights
	// first is the index of the server that answered last: a dead one is not asked first each time.
	first atomic.Uint32
}

type server struct {
	addr    string
	trusted bool
}

// NewClient returns a Client, or an error if there is no server to ask.
func NewClient(cfg Config) (*Client, error) {
	cfg.fill()
	names := cfg.Servers
	if len(names) == 0 {
		conf, err := miekg.ClientConfigFromFile(resolvConf)
		if err != nil {
			return nil, fmt.Errorf("no DNS server configured, and none found: %w", err)
		}
		names = conf.Servers
	}
	c := &Client{cfg: cfg, cache: newCache(cfg.CacheBytes, cfg.Now)}
	for _, name := range names[:min(len(names), maxServers)] {
		s, err := parseServer(name, cfg.TrustAD)
		if err != nil {
			return nil, err
		}
		c.servers = append(c.servers, s)
	}
	if len(c.servers) == 0 {
		return nil, fmt.Errorf("no DNS server: name one in the configuration, or in %s", resolvConf)
	}
	return c, nil
}

func parseServer(name string, trust bool) (server, error) {
	host, port, err := net.SplitHostPort(name)
	if err != nil {
		host, port = name, portDefault
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return server{}, fmt.Errorf("DNS server %q: want an IP address, with or without port", name)
	}
	return server{net.JoinHostPort(ip.String(), port), trust || ip.Unmap().IsLoopback()}, nil
}

// Close cancels the questions under way and waits for them. Later ones fail with ErrTemporary.
func (c *Client) Close() error {
	c.flights.close()
	return nil
}

// Validates says whether some server is trusted to authenticate answers; without, there is no DANE.
func (c *Client) Validates() bool {
	return slices.ContainsFunc(c.servers, func(s server) bool { return s.trusted })
}

// MX is as Resolver has it, in order of preference.
func (c *Client) MX(ctx context.Context, name string) ([]MX, bool, error) {
	return lookupMX(ctx, c, name)
}

// Addrs is as Resolver has it.
func (c *Client) Addrs(ctx context.Context, name string) ([]netip.Addr, bool, error) {
	return lookupAddrs(ctx, c, name)
}

// TXT is as Resolver has it.
func (c *Client) TXT(ctx context.Context, name string) ([]string, bool, error) {
	return lookupTXT(ctx, c, name)
}

// TLSA is as Resolver has it.
func (c *Client) TLSA(ctx context.Context, name string) ([]TLSA, bool, error) {
	return lookupTLSA(ctx, c, name)
}

// PTR is as Resolver has it.
func (c *Client) PTR(ctx context.Context, ip netip.Addr) ([]string, bool, error) {
	return lookupPTR(ctx, c, ip)
}

// CNAME is as Resolver has it.
func (c *Client) CNAME(ctx context.Context, name string) (string, bool, error) {
	return lookupCNAME(ctx, c, name)
}

// ask answers from the cache, from an exchange under way, or from a new one.
func (c *Client) ask(ctx context.Context, name string, qtype uint16) (*answer, error) {
	q := question{name, qtype}
	if ans := c.cache.get(q); ans != nil {
		return ans, nil
	}
	return c.flights.do(ctx, q, func(ctx context.Context) (*answer, error) {
		ans, ttl, err := c.resolve(ctx, name, qtype)
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", miekg.TypeToString[qtype], hostname(name), err)
		}
		c.cache.put(q, ans, ttl)
		return ans, nil
	})
}

// resolve asks, and asks again at the end of a chain of aliases that the server did not follow
// itself.
func (c *Client) resolve(ctx context.Context, name string, qtype uint16) (
	*answer, time.Duration, error) {
	ans := &answer{target: name, auth: true}
	ttl := c.cfg.MaxTTL
	for links := 0; ; {
		msg, trusted, err := c.query(ctx, ans.target, qtype)
		if err != nil {
			return nil, 0, err
		}
		target, found, n := walk(msg.Answer, ans.target, qtype)
		links += n
		if links > maxAliases {
			return nil, 0, temporary(fmt.Errorf("chain of more than %d aliases", maxAliases))
		}
		ans.auth = ans.auth && trusted
		ans.target, ans.records = target, found
		ans.missing = msg.Rcode == miekg.RcodeNameError
		for _, rr := range msg.Answer {
			ttl = min(ttl, seconds(rr.Header().Ttl))
		}
		if len(found) > 0 {
			return ans, ttl, nil
		}
		negative, authority := c.negativeTTL(msg)
		if n == 0 || ans.missing || authority {
			return ans, min(ttl, negative), nil
		}
	}
}

// negativeTTL is that of RFC 2308, section 5: without SOA the lack of an answer must not be kept.
func (c *Client) negativeTTL(msg *miekg.Msg) (ttl time.Duration, authority bool) {
	for _, rr := range msg.Ns {
		if soa, ok := rr.(*miekg.SOA); ok {
			return min(seconds(min(soa.Hdr.Ttl, soa.Minttl)), c.cfg.MaxNegativeTTL), true
		}
	}
	return 0, false
}

func seconds(n uint32) time.Duration { return time.Duration(n) * time.Second }

// query puts one question to the servers until one of them answers it, for good or bad.
func (c *Client) query(ctx context.Context, name string, qtype uint16) (*miekg.Msg, bool, error) {
	var last error
	first := int(c.first.Load())
	for i := range c.cfg.Attempts * len(c.servers) {
		at := (first + i) % len(c.servers)
		s := c.servers[at]
		msg, err := s.exchange(ctx, name, qtype, c.cfg.Timeout)
		if err == nil {
			c.first.Store(uint32(at))
			return msg, s.trusted && msg.AuthenticatedData, nil
		}
		if ctx.Err() != nil {
			return nil, false, temporary(ctx.Err())
		}
		last = fmt.Errorf("server %s: %w", s.addr, err)
	}
	return nil, false, temporary(last)
}

// temporary makes an error one that may pass.
func temporary(err error) error {
	if errors.Is(err, ErrTemporary) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrTemporary, err)
}
