package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

// maxHosts is the most MX hosts of one preference that are looked up in one attempt.
const maxHosts = 10

// destination is where the mail of a route goes: hosts in tiers, the best first, equals in random
// order.
type destination struct {
	domain    mail.Domain // whose MX hosts these are; of a transport, none
	transport *transport  // nil: by MX
	tiers     [][]string
	secure    bool // the MX answer was authenticated
	port      uint16
	site      string    // name of the site: destinations with one name share connections
	provider  *provider // what is known of the site; nil for nothing
}

// destination finds the hosts of a route, or the result of there being none.
func (r *Relay) destination(ctx context.Context, route queue.Route) (*destination, *queue.Result) {
	if t := r.vias[route]; t != nil {
		return &destination{transport: t, tiers: [][]string{{t.host}}, port: t.port,
			site: string(route)}, nil
	}
	domain, err := domainOf(route)
	if err != nil {
		return nil, deferred(Configuration, "4.3.5",
			"%s leads nowhere: the configuration has no such server", route)
	}
	dest := &destination{domain: domain, port: uint16(r.cfg.Port)}
	name := domain.ASCII()
	if _, ok := domain.Literal(); ok {
		dest.tiers, dest.site = [][]string{{name}}, name
		return dest, nil
	}
	mx, secure, err := r.resolver.MX(ctx, name)
	dest.secure = secure
	switch {
	case errors.Is(err, dns.ErrNXDomain):
		return nil, failed(NoSuchDomain, "5.1.2", "the domain %s does not exist", domain)
	case errors.Is(err, dns.ErrNotFound):
		dest.tiers = [][]string{{name}} // the implicit MX (RFC 5321, section 5.1)
	case err != nil:
		return nil, deferred(Unreachable, "4.4.3",
			"the mail servers of %s cannot be looked up: %v", domain, err)
	case len(mx) == 1 && mx[0].Host == "": // RFC 7505
		return nil, failed(NoSuchDomain, "5.1.10", "the domain %s takes no mail (null MX)", domain)
	default:
		if dest.tiers, err = r.tiers(mx); err != nil {
			return nil, failed(Loop, "5.4.6",
				"%v of %s is this one, which does not take its mail", err, domain)
		}
	}
	if len(dest.tiers) == 0 {
		return nil, failed(NoSuchDomain, "5.4.4", "no MX record of %s names a host", domain)
	}
	dest.site, dest.provider = siteOf(dest.tiers)
	return dest, nil
}

var errSelf = errors.New("the best mail server")

// tiers sorts MX hosts. Where one is ourselves we are a backup: it, its equals and those behind are
// left out, or mail would go in circles (RFC 5321, section 5.1).
func (r *Relay) tiers(mx []dns.MX) ([][]string, error) {
	slices.SortStableFunc(mx, func(a, b dns.MX) int { return int(a.Preference) - int(b.Preference) })
	var out [][]string
	for len(mx) > 0 {
		n := 1
		for n < len(mx) && mx[n].Preference == mx[0].Preference {
			n++
		}
		tier := make([]string, 0, n)
		for _, x := range mx[:n] {
			if strings.EqualFold(x.Host, r.cfg.Hostname) {
				if len(out) == 0 {
					return nil, errSelf
				}
				return out, nil
			}
			if x.Host != "" && !slices.Contains(tier, strings.ToLower(x.Host)) {
				tier = append(tier, strings.ToLower(x.Host))
			}
		}
		if len(tier) > 0 {
			out = append(out, tier)
		}
		mx = mx[n:]
	}
	return out, nil
}

// siteOf names the site of a set of hosts: the provider's, where all hosts are those of one known
// to share its limits, else the hosts themselves, whatever their preference.
func siteOf(tiers [][]string) (string, *provider) {
	var hosts []string
	for _, t := range tiers {
		hosts = append(hosts, t...)
	}
	p := providerOf(hosts)
	if p != nil && p.merged {
		return p.name, p
	}
	slices.Sort(hosts)
	return strings.Join(slices.Compact(hosts), ","), p
}

// target is one address of one host to connect to.
type target struct {
	host string // as MX names it; empty for a socket of a transport
	addr netip.AddrPort
	path string // of a socket
}

func (t target) String() string {
	if t.path != "" {
		return t.path
	}
	return t.addr.String()
}

// title is a target in words for people.
func (t target) title() string {
	if t.path != "" {
		return t.path
	}
	return fmt.Sprintf("%s [%s]", t.host, t.addr.Addr())
}

// lookup is what the addresses of a tier come to.
type lookup struct {
	targets []target
	self    bool  // one of the hosts is ourselves
	err     error // of the last host that has no address
	passing bool  // one of those may have had some
}

// lookup finds the addresses of a tier: of each version of IP in the order of the hosts, one of
// each host before the second of any, and the versions alternating.
func (r *Relay) lookup(ctx context.Context, dest *destination, hosts []string) lookup {
	var l lookup
	if t := dest.transport; t != nil && t.network == "unix" {
		return lookup{targets: []target{{path: t.addr}}}
	}
	hosts = slices.Clone(hosts)
	rand.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	var v6, v4 [][]target
	for _, host := range hosts[:min(len(hosts), maxHosts)] {
		ips, err := r.addresses(ctx, host)
		if err != nil {
			l.err = err
			l.passing = l.passing || !errors.Is(err, dns.ErrNotFound)
			continue
		}
		var six, four []target
		for _, ip := range ips {
			at := target{host: host, addr: netip.AddrPortFrom(ip, dest.port)}
			switch {
			case dest.transport == nil && r.own.has(at.addr, r.clock.Now()):
				l.self = true
			case ip.IsUnspecified() || ip.IsMulticast():
				// Connecting to 0.0.0.0 is connecting to this machine, on many systems.
			case ip.Is4():
				four = append(four, at)
			case !r.cfg.NoIPv6:
				six = append(six, at)
			}
		}
		v6, v4 = append(v6, six), append(v4, four)
	}
	l.targets = interleave(deal(v6), deal(v4))
	return l
}

// addresses returns those of a host, which may be an address itself.
func (r *Relay) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, ok := mail.Domain(host).Literal(); ok {
		return []netip.Addr{ip.Unmap()}, nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	ips, _, err := r.resolver.Addrs(ctx, host)
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	return ips, err
}

// deal takes the first of each list, then the second of each, and so on.
func deal(lists [][]target) (out []target) {
	for i := 0; ; i++ {
		n := len(out)
		for _, l := range lists {
			if i < len(l) {
				out = append(out, l[i])
			}
		}
		if len(out) == n {
			return out
		}
	}
}

func interleave(a, b []target) []target {
	return deal([][]target{a, b})[:len(a)+len(b)]
}
