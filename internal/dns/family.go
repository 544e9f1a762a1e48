package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"

	miekg "github.com/miekg/dns"
)

// V4 returns the A records of a name, CNAMEs followed, by one question where r can ask for them alone: a
// list of addresses in the DNS (RFC 5782) answers with nothing else, and counts questions. There is no
// ErrNotFound: no record is no error.
func V4(ctx context.Context, r Resolver, name string) ([]netip.Addr, error) {
	return oneFamily(ctx, r, name, miekg.TypeA)
}

// V6 is V4 for AAAA records.
func V6(ctx context.Context, r Resolver, name string) ([]netip.Addr, error) {
	return oneFamily(ctx, r, name, miekg.TypeAAAA)
}

func oneFamily(ctx context.Context, r Resolver, name string, qtype uint16) ([]netip.Addr, error) {
	if a, ok := r.(asker); ok {
		ans, err := find(ctx, a, name, qtype)
		return addrRecords(ans), ignoreMissing(err)
	}
	addrs, _, err := r.Addrs(ctx, name)
	var out []netip.Addr
	for _, ip := range addrs {
		if ip = ip.Unmap(); ip.Is4() == (qtype == miekg.TypeA) {
			out = append(out, ip)
		}
	}
	return out, ignoreMissing(err)
}

func addrRecords(ans *answer) []netip.Addr {
	var out []netip.Addr
	for _, rr := range ans.records[:min(len(ans.records), maxRecords)] {
		var b net.IP
		switch rr := rr.(type) {
		case *miekg.A:
			b = rr.A.To4()
		case *miekg.AAAA:
			b = rr.AAAA.To16()
		}
		if ip, ok := netip.AddrFromSlice(b); ok {
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
