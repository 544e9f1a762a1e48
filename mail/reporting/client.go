package reporting

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
)

// PublicClient returns an HTTP client for places that strangers name in the DNS. It connects to
// public addresses only: else a record could have us knock at what is behind our firewall.
func PublicClient(resolver dns.Resolver) *http.Client {
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		var addrs []netip.Addr
		if ip, err := netip.ParseAddr(host); err == nil {
			addrs = []netip.Addr{ip}
		} else if addrs, _, err = resolver.Addrs(ctx, host); err != nil {
			return nil, fmt.Errorf("%s: %w", host, err)
		}
		errs := []error{fmt.Errorf("%s has no address that answers", host)}
		for _, ip := range addrs[:min(len(addrs), 4)] {
			if !public(ip) {
				errs = append(errs, fmt.Errorf("%s is not a public address", ip))
				continue
			}
			c, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network,
				net.JoinHostPort(ip.String(), port))
			if err == nil {
				return c, nil
			}
			errs = append(errs, err)
		}
		return nil, errors.Join(errs...)
	}
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: dial,
		TLSHandshakeTimeout: 10 * time.Second, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10}}
}

// shared is address space behind a provider's NAT (RFC 6598).
var shared = netip.MustParsePrefix("100.64.0.0/10")

func public(ip netip.Addr) bool {
	ip = ip.Unmap()
	return ip.IsGlobalUnicast() && !ip.IsPrivate() && !shared.Contains(ip)
}
