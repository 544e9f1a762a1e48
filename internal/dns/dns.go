// Package dns asks the domain name system, and says whether the answer was authenticated.
//
// Resolver is what the mail half and the node use; Client asks a recursive server over UDP and
// TCP; Zone is a fake that behaves: names, CNAMEs, failures and the authenticated bit as a real
// server has them. The package does no DNSSEC validation of its own: it believes the AD bit of a
// resolver that the operator trusts, and only that one.
package dns

import (
	"context"
	"errors"
	"net/netip"
)

// Errors of a Resolver, to be found with errors.Is. Any other error is of the network and may pass.
var (
	// ErrNotFound: the name does not exist (NXDOMAIN), or has no record of this type.
	ErrNotFound = errors.New("no such record")
	// ErrNXDomain: the name does not exist; it is also ErrNotFound.
	ErrNXDomain = &notFound{"no such domain"}
	// ErrTemporary: SERVFAIL, time-out, no server: ask again later.
	ErrTemporary = errors.New("temporary failure of name resolution")
)

type notFound struct{ s string }

func (e *notFound) Error() string        { return e.s }
func (e *notFound) Is(target error) bool { return target == ErrNotFound }

// Resolver answers questions. Each answer comes with a bit that says whether a resolver the
// operator trusts has authenticated it with DNSSEC; it is meaningful on ErrNotFound too. Names
// are absolute, with or without final dot; U-labels are the caller's to convert.
type Resolver interface {
	MX(ctx context.Context, name string) ([]MX, bool, error)
	// Addrs returns A and AAAA records, CNAMEs followed, IPv6 first.
	Addrs(ctx context.Context, name string) ([]netip.Addr, bool, error)
	// TXT returns each record with its strings joined.
	TXT(ctx context.Context, name string) ([]string, bool, error)
	TLSA(ctx context.Context, name string) ([]TLSA, bool, error)
	// PTR returns the names of an address, with final dots removed.
	PTR(ctx context.Context, ip netip.Addr) ([]string, bool, error)
	// CNAME returns the name at the end of the chain of aliases, or name itself.
	CNAME(ctx context.Context, name string) (string, bool, error)
}

// MX is a mail exchanger (RFC 5321, section 5). Host has no final dot; "" is the null MX of RFC
// 7505.
type MX struct {
	Preference uint16
	Host       string
}

// TLSA is a certificate association (RFC 6698).
type TLSA struct {
	Usage, Selector, MatchingType uint8
	Data                          []byte
}
