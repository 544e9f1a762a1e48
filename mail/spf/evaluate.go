package spf

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/tallypost/tallypost/internal/dns"
)

// matches reports whether a directive matches the host (section 5).
func (c *check) matches(d directive, domain string) (bool, error) {
	switch d.kind {
	case all:
		return true, nil
	case ip4, ip6:
		return d.prefix.Contains(c.q.IP), nil
	}
	if err := c.count(); err != nil {
		return false, err
	}
	target := domain
	if d.spec != "" {
		var err error
		if target, err = c.expandDomain(d.spec, domain); err != nil {
			return false, err
		}
	}
	switch d.kind {
	case include:
		return c.include(target)
	case addr:
		addrs, err := c.lookUp(target)
		return c.near(addrs, d), err
	case mx:
		return c.mx(target, d)
	case ptr:
		return c.ptr(target), nil
	}
	return c.exists(target)
}

// include evaluates another record: only its pass matches (section 5.2).
func (c *check) include(target string) (bool, error) {
	switch result, _, err := c.host(target); result {
	case Pass:
		return true, nil
	case None:
		return false, permerror("include of %s, which has no record", target)
	case TempError, PermError:
		return false, err
	}
	return false, nil
}

// lookUp returns the addresses of a name, and counts where there are none.
func (c *check) lookUp(name string) ([]netip.Addr, error) {
	addrs, err := c.addrs(c.ctx, name)
	switch {
	case err != nil:
		return nil, temperror(err)
	case len(addrs) == 0:
		return nil, c.void()
	}
	return addrs, nil
}

// near reports whether the host has the same prefix as one of the addresses, which are of its family.
func (c *check) near(addrs []netip.Addr, d directive) bool {
	bits := d.bits6
	if c.q.IP.Is4() {
		bits = d.bits4
	}
	return slices.ContainsFunc(addrs, func(a netip.Addr) bool {
		return netip.PrefixFrom(a, bits).Contains(c.q.IP)
	})
}

// mx looks at the exchangers of a name (section 5.4).
func (c *check) mx(target string, d directive) (bool, error) {
	c.questions++
	hosts, _, err := c.dns.MX(c.ctx, target)
	switch {
	case errors.Is(err, dns.ErrNotFound):
		return false, c.void()
	case err != nil:
		return false, temperror(err)
	case len(hosts) > maxHosts:
		return false, permerror("%s has more than %d exchangers", target, maxHosts)
	}
	for _, h := range hosts {
		if h.Host == "" { // the null MX of RFC 7505
			continue
		}
		addrs, err := c.addrs(c.ctx, h.Host)
		if err != nil {
			return false, temperror(err)
		}
		if c.near(addrs, d) {
			return true, nil
		}
	}
	return false, nil
}

// ptr reports whether a confirmed name of the host is the target or below it (section 5.5).
func (c *check) ptr(target string) bool {
	return slices.ContainsFunc(c.validated(), func(name string) bool {
		return strings.EqualFold(name, target) || isBelow(name, target)
	})
}

// exists reports whether a name has an A record, whatever the host's family (section 5.7).
func (c *check) exists(target string) (bool, error) {
	c.questions++
	addrs, err := dns.V4(c.ctx, c.dns, target)
	switch {
	case err != nil:
		return false, temperror(err)
	case len(addrs) == 0:
		return false, c.void()
	}
	return true, nil
}
