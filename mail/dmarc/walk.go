package dmarc

import (
	"context"
	"errors"
	"strings"

	"github.com/tallypost/tallypost/internal/dns"
)

// walker finds records in the DNS, and asks for each name once however often it comes by.
type walker struct {
	resolver  dns.Resolver
	known     map[string]found
	questions int
}

// found is what is at one name: a record, nothing, or no answer.
type found struct {
	record *Record
	err    error
	faults []string // why what is there does not count
}

func newWalker(r dns.Resolver) *walker {
	return &walker{resolver: r, known: make(map[string]found)}
}

// record asks for the policy record of a domain. What does not begin with v=DMARC1 is not seen; of
// more than one record none counts (RFC 9989, section 4.10, step 2).
func (w *walker) record(ctx context.Context, domain string) found {
	if f, ok := w.known[domain]; ok {
		return f
	}
	f := w.ask(ctx, "_dmarc."+domain)
	w.known[domain] = f
	return f
}

func (w *walker) ask(ctx context.Context, name string) (f found) {
	w.questions++
	texts, _, err := w.resolver.TXT(ctx, name)
	if err != nil && !errors.Is(err, dns.ErrNotFound) {
		return found{err: err}
	}
	for _, s := range texts {
		r, err := ParseRecord(s)
		if err != nil {
			continue
		}
		if f.record != nil {
			return found{faults: []string{"more than one DMARC record at " + name}}
		}
		f.record = r
	}
	return f
}

// step is a record on the way up.
type step struct {
	domain string
	record *Record
}

// walk is that of RFC 9989, section 4.10: the domain itself, then its parents up to the top, of
// which a name of eight labels or more has its seven highest asked; a psd tag of y or n ends it.
func (w *walker) walk(ctx context.Context, domain string) ([]step, error) {
	var steps []step
	for name := domain; name != ""; name = next(name) {
		f := w.record(ctx, name)
		if f.err != nil {
			return steps, f.err
		}
		if f.record == nil {
			continue
		}
		steps = append(steps, step{name, f.record})
		if f.record.PSD != PSDUnknown {
			break
		}
	}
	return steps, nil
}

// next is the name to ask for after name, "" after the last.
func next(name string) string {
	if labels := strings.Count(name, ".") + 1; labels > 8 {
		for ; labels > 8; labels-- {
			_, name, _ = strings.Cut(name, ".")
		}
	}
	_, parent, _ := strings.Cut(name, ".")
	return parent
}

// organization picks the organizational domain from the records on the way up from a domain (RFC
// 9989, section 4.10.2).
func organization(domain string, steps []step) string {
	for _, s := range steps {
		if s.record.PSD == PSDNo {
			return s.domain
		}
		if s.record.PSD == PSDYes && s.domain != domain {
			return oneBelow(domain, s.domain)
		}
	}
	if len(steps) == 0 {
		return domain
	}
	return steps[len(steps)-1].domain
}

// oneBelow is the domain one label below parent on the way to domain.
func oneBelow(domain, parent string) string {
	above := domain[:len(domain)-len(parent)-1]
	return domain[strings.LastIndexByte(above, '.')+1:]
}

// within says whether a domain is another one or below it.
func within(domain, other string) bool {
	return domain == other || strings.HasSuffix(domain, "."+other)
}

// exists is the test of RFC 9989, section 3.2.13: a name that some question is not answered
// NXDOMAIN for exists, whatever records it has.
func (w *walker) exists(ctx context.Context, domain string) (bool, error) {
	w.questions++
	_, _, err := w.resolver.TXT(ctx, domain)
	if err != nil && !errors.Is(err, dns.ErrNotFound) {
		return false, err
	}
	return !errors.Is(err, dns.ErrNXDomain), nil
}
