package dns

import (
	"context"
	"errors"
	"net/netip"

	miekg "github.com/miekg/dns"
)

// V4 returns the A records of a name, CNAMEs followed, by one question where r can ask for them alone: a
// list of addresses in the DNS (RFC 5782) answers with nothing else, and counts questions. There is no
// ErrNotFound: no record is no error.
func V4(ctx context.Context, r Resolver, name string) ([]netip.Addr, error) {
	if a, ok := r.(asker); ok {
		ans, err := find(ctx, a, name, miekg.TypeA)
		return v4Records(ans), ignoreMissing(err)
	}
	addrs, _, err := r.Addrs(ctx, name)
	var out []netip.Addr
	for _, ip := range addrs {
		if ip = ip.Unmap(); ip.Is4() {
			out = append(out, ip)
		}
	}
	return out, ignoreMissing(err)
}

func v4Records(ans *answer) []netip.Addr {
	var out []netip.Addr
	for _, rr := range ans.records[:min(len(ans.records), maxRecords)] {
		if ip, ok := netip.AddrFromSlice(rr.(*miekg.A).A.To4()); ok {
			out = append(out, ip)
		}
	}
	return out
}

func ignoreMissing(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
