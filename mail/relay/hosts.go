package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

// host is one address to try.
type host struct {
	name string
	addr netip.AddrPort
}

func failed(status, format string, args ...any) *queue.Result {
	return &queue.Result{Outcome: queue.Failed, Status: status,
		Reply: "550 " + status + " " + fmt.Sprintf(format, args...)}
}

func deferred(status, format string, args ...any) *queue.Result {
	return &queue.Result{Outcome: queue.Deferred, Status: status, Unreachable: true,
		Reply: "451 " + status + " " + fmt.Sprintf(format, args...)}
}

// hosts returns the addresses of a destination, best first, or the result of there being none.
func (r *Relay) hosts(ctx context.Context, destination string) ([]host, *queue.Result) {
	if r.cfg.Smarthost != "" {
		name, port, err := net.SplitHostPort(r.cfg.Smarthost)
		n, perr := strconv.ParseUint(port, 10, 16)
		if err != nil || perr != nil {
			return nil, deferred("4.3.5", "smarthost %q is not host:port", r.cfg.Smarthost)
		}
		return r.addresses(ctx, []string{name}, uint16(n))
	}
	port := uint16(r.cfg.Port)
	if ip, ok := mail.Domain(destination).Literal(); ok {
		return []host{{destination, netip.AddrPortFrom(ip, port)}}, nil
	}
	names, verdict := r.exchangers(ctx, destination)
	if verdict != nil {
		return nil, verdict
	}
	return r.addresses(ctx, names, port)
}

// exchangers returns the names of a domain's mail servers, best first, equals in random order (RFC 5321,
// section 5.1).
func (r *Relay) exchangers(ctx context.Context, domain string) ([]string, *queue.Result) {
	mx, _, err := r.resolver.MX(ctx, domain)
	switch {
	case errors.Is(err, dns.ErrNXDomain):
		return nil, failed("5.1.2", "the domain %s does not exist", domain)
	case errors.Is(err, dns.ErrNotFound):
		return []string{domain}, nil // the implicit MX
	case err != nil:
		return nil, deferred("4.4.3", "MX of %s: %v", domain, err)
	}
	if len(mx) == 1 && mx[0].Host == "" {
		return nil, failed("5.1.10", "the domain %s takes no mail (null MX)", domain) // RFC 7505
	}
	rand.Shuffle(len(mx), func(i, j int) { mx[i], mx[j] = mx[j], mx[i] })
	slices.SortStableFunc(mx, func(a, b dns.MX) int { return int(a.Preference) - int(b.Preference) })
	var names []string
	for i, x := range mx {
		if strings.EqualFold(x.Host, r.cfg.Hostname) {
			// We are a backup: only better hosts than we are may be tried, or mail would go in circles.
			names = names[:0]
			for _, better := range mx[:i] {
				if better.Preference < x.Preference {
					names = append(names, better.Host)
				}
			}
			if len(names) == 0 {
				return nil, failed("5.4.6", "the best mail server of %s is this one, which does not know the domain", domain)
			}
			break
		}
		if x.Host != "" {
			names = append(names, x.Host)
		}
	}
	return names, nil
}

// addresses looks up hosts until there are as many addresses as will be tried.
func (r *Relay) addresses(ctx context.Context, names []string, port uint16) ([]host, *queue.Result) {
	var out []host
	var last error
	temporary := false
	for _, name := range names {
		if len(out) >= r.cfg.MaxHosts {
			break
		}
		if ip, err := netip.ParseAddr(name); err == nil {
			out = append(out, host{name, netip.AddrPortFrom(ip, port)})
			continue
		}
		ips, _, err := r.resolver.Addrs(ctx, name)
		if err != nil {
			last = fmt.Errorf("address of %s: %w", name, err)
			temporary = temporary || !errors.Is(err, dns.ErrNotFound)
			continue
		}
		for _, ip := range ips {
			out = append(out, host{name, netip.AddrPortFrom(ip, port)})
		}
	}
	switch {
	case len(out) > 0:
		return out, nil
	case temporary:
		return nil, deferred("4.4.3", "%v", last)
	}
	return nil, failed("5.4.4", "no mail server has an address: %v", last)
}
