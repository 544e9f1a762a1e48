package dmarc

import (
	"context"
	"errors"
	"fmt"

	"github.com/tallypost/tallypost/internal/dns"
)

// ErrNotWanted is the error for a place that has not said that it takes reports about the domain.
var ErrNotWanted = errors.New("has not agreed to take reports")

// Destination is one place that a record names, verified.
type Destination struct {
	URI URI // where to send: what the record names, or what the place has put instead
	// Err says why nothing is to be sent: ErrNotWanted, a scheme that is not ours, or a question
	// without answer, which is dns.ErrTemporary and worth another try.
	Err error
}

// Destinations verifies where reports about a domain are to go (RFC 9990, section 4): within the
// domain's organization everywhere, elsewhere only where the place agrees, so that nobody is
// flooded with reports by somebody else's record. The domain is the one whose record names the
// places.
func Destinations(ctx context.Context, r dns.Resolver, domain string, places []URI) []Destination {
	name, err := asciiName(domain)
	w := newWalker(r)
	seen := make(map[string]bool)
	var out []Destination
	for _, place := range places[:min(len(places), maxURIs)] {
		d := Destination{URI: place, Err: err}
		switch {
		case err != nil:
		case place.Address.IsNull():
			d.Err = fmt.Errorf("%q: only mailto is supported", clip(place.Raw))
		default:
			d.URI, d.Err = w.verify(ctx, name, place)
		}
		if key := d.URI.Address.String(); d.Err != nil || !seen[key] {
			seen[key] = true
			out = append(out, d)
		}
	}
	return out
}

func (w *walker) verify(ctx context.Context, domain string, place URI) (URI, error) {
	host := place.Host()
	internal, err := w.sameOrganization(ctx, domain, host)
	if err != nil || internal {
		return place, err
	}
	name := domain + "._report._dmarc." + host
	texts, _, err := w.resolver.TXT(ctx, name) // a name that is too long does not exist
	if err != nil && !errors.Is(err, dns.ErrNotFound) {
		return place, err
	}
	agreed, override := false, []URI(nil)
	for _, s := range texts {
		if rec, err := ParseRecord(s); err == nil {
			agreed = true
			override = append(override, rec.Aggregate...)
		}
	}
	if !agreed {
		return place, fmt.Errorf("%q: %s %w about %s", clip(place.Raw), host, ErrNotWanted, domain)
	}
	if len(override) == 0 {
		return place, nil
	}
	// "the overriding URI MUST use the same destination host": else neither gets a report.
	for _, u := range override {
		if u.Host() != host || u.Address.IsNull() {
			return place, fmt.Errorf("%q: %s names %q instead, on another host: %w",
				clip(place.Raw), name, clip(u.Raw), ErrNotWanted)
		}
	}
	return override[0], nil
}

// sameOrganization spares the walks where one of the names cannot be of the other's organization.
func (w *walker) sameOrganization(ctx context.Context, domain, host string) (bool, error) {
	if domain == host {
		return true, nil
	}
	if !sameTop(domain, host) {
		return false, nil
	}
	steps, err := w.walk(ctx, domain)
	if err != nil {
		return false, err
	}
	org := organization(domain, steps)
	if !within(host, org) {
		return false, nil
	}
	if steps, err = w.walk(ctx, host); err != nil {
		return false, err
	}
	return organization(host, steps) == org, nil
}
