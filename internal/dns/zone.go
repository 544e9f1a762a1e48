package dns

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	miekg "github.com/miekg/dns"
)

// Failure is how a name of a Zone fails.
type Failure uint8

// The failures. A Zone that is asked directly reports Timeout at once, so that no test waits; a
// Server keeps silent.
const (
	Works    Failure = iota // does not fail; takes an earlier failure back
	ServFail                // the server cannot answer
	Timeout                 // nobody answers
	NXDomain                // the name does not exist, whatever records it has
)

// Zone is a small domain name system in memory: all names there are. It behaves as a recursive
// server in front of real zones does: aliases are followed, wildcards stand for what is missing
// (RFC 4592), a name with something below it exists. It is a Resolver, a Server shows it to other
// programs, and it may be changed while it is asked. The zero value is empty.
type Zone struct {
	mu       sync.RWMutex // guards what follows
	nodes    map[string][]miekg.RR
	below    map[string]int // how many names with records a name has below it or is
	failures map[string]failure
	signed   map[string]bool // the authenticated bit of a name and all below
	asked    map[question]int
}

type failure struct {
	kind  Failure
	types []uint16 // empty: all
}

// NewZone returns a Zone of records as Zone.Set takes them.
func NewZone(records map[string][]string) (*Zone, error) {
	z := new(Zone)
	for name, rrs := range records {
		if err := z.Set(name, rrs...); err != nil {
			return nil, err
		}
	}
	return z, nil
}

// MustZone is NewZone for literals; it panics on an error.
func MustZone(records map[string][]string) *Zone {
	z, err := NewZone(records)
	if err != nil {
		panic(err)
	}
	return z
}

// MX is as Resolver has it.
func (z *Zone) MX(ctx context.Context, name string) ([]MX, bool, error) {
	return lookupMX(ctx, z, name)
}

// Addrs is as Resolver has it.
func (z *Zone) Addrs(ctx context.Context, name string) ([]netip.Addr, bool, error) {
	return lookupAddrs(ctx, z, name)
}

// TXT is as Resolver has it.
func (z *Zone) TXT(ctx context.Context, name string) ([]string, bool, error) {
	return lookupTXT(ctx, z, name)
}

// TLSA is as Resolver has it.
func (z *Zone) TLSA(ctx context.Context, name string) ([]TLSA, bool, error) {
	return lookupTLSA(ctx, z, name)
}

// PTR is as Resolver has it.
func (z *Zone) PTR(ctx context.Context, ip netip.Addr) ([]string, bool, error) {
	return lookupPTR(ctx, z, ip)
}

// CNAME is as Resolver has it.
func (z *Zone) CNAME(ctx context.Context, name string) (string, bool, error) {
	return lookupCNAME(ctx, z, name)
}

// Fail makes questions for a name fail; types ("MX", "TXT") restrict it to those. A later call
// for the same name replaces the earlier one.
func (z *Zone) Fail(name string, kind Failure, types ...string) {
	f := failure{kind: kind}
	for _, t := range types {
		f.types = append(f.types, miekg.StringToType[strings.ToUpper(t)])
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.failures == nil {
		z.failures = make(map[string]failure)
	}
	z.failures[miekg.CanonicalName(name)] = f
}

// Sign sets the authenticated bit of a name and everything below it, as a signed delegation does,
// or clears it; the longest name decides. Sign(".", true) is a world that is signed all over.
func (z *Zone) Sign(name string, yes bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.signed == nil {
		z.signed = make(map[string]bool)
	}
	z.signed[miekg.CanonicalName(name)] = yes
}

// Asked says how often a question was put to the Zone, directly or through a Server: a test of
// the cost. Without type it counts those of all types, without name those for all names.
func (z *Zone) Asked(name, qtype string) int {
	z.mu.RLock()
	defer z.mu.RUnlock()
	n := 0
	for q, times := range z.asked {
		if (name == "" || q.name == miekg.CanonicalName(name)) &&
			(qtype == "" || q.qtype == miekg.StringToType[strings.ToUpper(qtype)]) {
			n += times
		}
	}
	return n
}

// ask answers like a recursive server whose answer a client has read.
func (z *Zone) ask(ctx context.Context, name string, qtype uint16) (*answer, error) {
	if err := ctx.Err(); err != nil {
		return nil, temporary(err)
	}
	r := z.respond(name, qtype)
	if r.failure != Works {
		why := map[Failure]string{ServFail: "SERVFAIL", Timeout: "no answer"}[r.failure]
		return nil, fmt.Errorf("%s of %s: %w: %s", miekg.TypeToString[qtype], hostname(name),
			ErrTemporary, why)
	}
	return &answer{records: r.records, target: r.target, auth: r.auth, missing: r.missing}, nil
}

// response is what a Zone says to one question.
type response struct {
	aliases []miekg.RR
	records []miekg.RR
	soa     miekg.RR // of the zone that the last name is in, if it has one
	target  string
	auth    bool
	missing bool
	failure Failure
}

// respond follows aliases; the answer is authenticated if each link is, and fails if one does.
func (z *Zone) respond(name string, qtype uint16) response {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.asked == nil {
		z.asked = make(map[question]int)
	}
	z.asked[question{name, qtype}]++
	r := response{target: name, auth: true}
	for links := 0; ; links++ {
		if links > maxAliases {
			return response{failure: ServFail}
		}
		r.auth = r.auth && z.isSigned(r.target)
		f, here := z.failures[r.target]
		if here && (len(f.types) == 0 || slices.Contains(f.types, qtype)) {
			if f.kind == NXDomain {
				r.missing, r.soa = true, z.soa(r.target)
				return r
			}
			if f.kind != Works {
				return response{failure: f.kind}
			}
		}
		rrs, exists := z.node(r.target)
		var alias *miekg.CNAME
		for _, rr := range rrs {
			if c, ok := rr.(*miekg.CNAME); ok {
				alias = c
			}
			if rr.Header().Rrtype == qtype {
				r.records = append(r.records, rr)
			}
		}
		if len(r.records) > 0 || alias == nil {
			r.missing, r.soa = !exists, z.soa(r.target)
			return r
		}
		r.aliases = append(r.aliases, alias)
		r.target = miekg.CanonicalName(alias.Target)
	}
}

// node returns the records of a name, made from a wildcard where it does not exist (RFC 4592,
// section 3.3.1: the wildcard that counts is the one below the closest name that exists).
func (z *Zone) node(name string) (rrs []miekg.RR, exists bool) {
	if z.below[name] > 0 {
		return z.nodes[name], true
	}
	for encloser := parent(name); encloser != ""; encloser = parent(encloser) {
		if z.below[encloser] == 0 && encloser != "." {
			continue
		}
		star := "*." + strings.TrimPrefix(encloser, ".")
		wild := z.nodes[star]
		if len(wild) == 0 {
			return nil, z.below[star] > 0
		}
		for _, rr := range wild {
			rr = miekg.Copy(rr)
			rr.Header().Name = name
			rrs = append(rrs, rr)
		}
		return rrs, true
	}
	return nil, name == "."
}

func (z *Zone) isSigned(name string) bool {
	for ; name != ""; name = parent(name) {
		if yes, here := z.signed[name]; here {
			return yes
		}
	}
	return false
}

func (z *Zone) soa(name string) miekg.RR {
	for ; name != ""; name = parent(name) {
		for _, rr := range z.nodes[name] {
			if rr.Header().Rrtype == miekg.TypeSOA {
				return rr
			}
		}
	}
	return nil
}

// parent returns the name above a canonical one: "." above the last label, "" above that.
func parent(name string) string {
	if name == "." {
		return ""
	}
	i, end := miekg.NextLabel(name, 0)
	if end {
		return "."
	}
	return name[i:]
}
