package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

// StdLookup gives a Resolver the methods of net.Resolver that the SPF library calls
// (blitiri.com.ar/go/spf, DNSResolver), with the errors it tells apart: *net.DNSError, not found or
// temporary.
type StdLookup struct{ Resolver Resolver }

// LookupTXT returns each record with its strings joined.
func (s StdLookup) LookupTXT(ctx context.Context, name string) ([]string, error) {
	txts, _, err := s.Resolver.TXT(ctx, name)
	return txts, stdError(name, err)
}

// LookupMX returns the exchangers in order of preference; the null MX has the host ".".
func (s StdLookup) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	mxs, _, err := s.Resolver.MX(ctx, name)
	var out []*net.MX
	for _, mx := range mxs {
		out = append(out, &net.MX{Host: mx.Host + ".", Pref: mx.Preference})
	}
	return out, stdError(name, err)
}

// LookupIPAddr returns the addresses of a name, IPv6 first.
func (s StdLookup) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	addrs, _, err := s.Resolver.Addrs(ctx, host)
	var out []net.IPAddr
	for _, a := range addrs {
		out = append(out, net.IPAddr{IP: a.AsSlice()})
	}
	return out, stdError(host, err)
}

// LookupAddr returns the names of an address, with final dots as net.Resolver has them.
func (s StdLookup) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return nil, &net.DNSError{Err: err.Error(), Name: addr}
	}
	names, _, err := s.Resolver.PTR(ctx, ip)
	for i := range names {
		names[i] += "."
	}
	return names, stdError(addr, err)
}

func stdError(name string, err error) error {
	if err == nil {
		return nil
	}
	missing := errors.Is(err, ErrNotFound)
	return &net.DNSError{
		UnwrapErr:   err,
		Err:         err.Error(),
		Name:        name,
		IsNotFound:  missing,
		IsTemporary: !missing,
		IsTimeout:   errors.Is(err, context.DeadlineExceeded),
	}
}
