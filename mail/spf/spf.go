// Package spf says whether a host may send mail by the name of a domain, as the domain's owner has
// published it in the DNS (RFC 7208).
//
// A record is read whole before any of it counts, so that a fault anywhere in it makes it no record
// and not a pass. What a record can make us ask is bounded by the limits of section 4.6.4. The
// package does not decide what becomes of a message, and keeps nothing: the resolver has a cache.
package spf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
)

// Result is the outcome, in the words of RFC 7208, section 2.6.
type Result string

// The results.
const (
	None      Result = "none"      // nothing is published
	Neutral   Result = "neutral"   // the owner does not say
	Pass      Result = "pass"      // the host may
	Fail      Result = "fail"      // it may not
	SoftFail  Result = "softfail"  // it rather may not
	TempError Result = "temperror" // the DNS did not answer
	PermError Result = "permerror" // what is published makes no sense
)

// Query is what is asked.
type Query struct {
	IP     netip.Addr // of the host that sends
	Domain string     // of the reverse path, or the HELO name where that is null; with A-labels
	Local  string     // local part of the reverse path; empty: "postmaster"
	Helo   string     // what the host calls itself
	// Receiver and Now are for explanations: our host name and the time.
	Receiver string
	Now      time.Time
}

// Outcome is what was found.
type Outcome struct {
	Result Result
	// Reason says in a few words what decided: the directive that matched, or the fault. It quotes what
	// strangers have published.
	Reason string
	// Explanation is what the domain's owner wants the sender of a message to be told where the result
	// is Fail: printable ASCII; empty where he has not said anything.
	Explanation string
	Questions   int // put to the DNS
}

// Limits of RFC 7208, section 4.6.4.
const (
	maxLookups = 10 // terms that ask the DNS
	maxVoids   = 2  // questions of such terms that find nothing
	maxHosts   = 10 // names of one "mx" or "ptr"
	// maxExplanation is ours, for a line of a reply.
	maxExplanation = 400
)

// Check evaluates the record of a domain for a host: the function check_host of RFC 7208, section 4.
func Check(ctx context.Context, r dns.Resolver, q Query) Outcome {
	q.IP = q.IP.Unmap().WithZone("")
	if q.Local == "" {
		q.Local = "postmaster" // section 4.3
	}
	q.Domain = strings.TrimSuffix(q.Domain, ".")
	c := &check{ctx: ctx, dns: r, q: q}
	if !q.IP.IsValid() {
		return Outcome{Result: None, Reason: "the client has no IP address"}
	}
	result, explain, err := c.host(q.Domain)
	out := Outcome{Result: result, Reason: c.reason}
	if err != nil {
		out.Reason = err.Error()
	}
	if result == Fail {
		out.Explanation = c.explanation(explain)
	}
	out.Questions = c.questions
	return out
}

// check is one evaluation.
type check struct {
	ctx context.Context
	dns dns.Resolver
	q   Query

	lookups, voids, questions int
	reason                    string
	names                     []string // of the host, confirmed; see validated
	named                     bool
}

// explain is where an explanation is: a domain-spec, and the domain whose record has it.
type explain struct{ spec, domain string }

// fault is an error that is a result.
type fault struct {
	result Result
	words  string
}

func (f *fault) Error() string { return f.words }

func permerror(format string, args ...any) error {
	return &fault{PermError, fmt.Sprintf(format, args...)}
}

func temperror(err error) error { return &fault{TempError, err.Error()} }

// host evaluates the record of a domain, here or in an "include" or "redirect".
func (c *check) host(domain string) (Result, explain, error) {
	rec, err := c.record(domain)
	var f *fault
	switch {
	case errors.As(err, &f):
		return f.result, explain{}, err
	case rec == nil:
		return None, explain{}, err
	}
	for _, d := range rec.directives {
		match, err := c.matches(d, domain)
		if errors.As(err, &f) {
			return f.result, explain{}, err
		}
		if match {
			c.reason = fmt.Sprintf("%q of %s", d.text, domain)
			return d.result, explain{rec.exp, domain}, nil
		}
	}
	if rec.redirect == "" {
		c.reason = "nothing in the record of " + domain + " matches"
		return Neutral, explain{}, nil
	}
	return c.redirect(rec, domain)
}

// redirect goes on with the record of another domain, explanation included (section 6.1).
func (c *check) redirect(rec *record, domain string) (Result, explain, error) {
	err := c.count()
	target := ""
	if err == nil {
		target, err = c.expandDomain(rec.redirect, domain)
	}
	var f *fault
	if errors.As(err, &f) {
		return f.result, explain{}, err
	}
	result, ex, err := c.host(target)
	if result == None {
		return PermError, explain{}, permerror("redirect to %s, which has no record", target)
	}
	return result, ex, err
}

// record finds the record of a domain (sections 4.3 to 4.5). nil is that there is none.
func (c *check) record(domain string) (*record, error) {
	if !isMultiLabel(domain) {
		return nil, nil
	}
	c.questions++
	txts, _, err := c.dns.TXT(c.ctx, domain)
	switch {
	case errors.Is(err, dns.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, temperror(err)
	}
	var found []string
	for _, t := range txts {
		if isRecord(t) {
			found = append(found, t)
		}
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		rec, err := parseRecord(found[0])
		if err != nil {
			return nil, permerror("record of %s: %v", domain, err)
		}
		return rec, nil
	}
	return nil, permerror("%s has %d records", domain, len(found))
}

// isMultiLabel reports whether a domain can have a record: names of one label and malformed ones have
// none (section 4.3). It is told apart here what the DNS could not be asked for.
func isMultiLabel(domain string) bool {
	labels := strings.Split(domain, ".")
	if len(labels) < 2 || len(domain) > maxName {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 {
			return false
		}
	}
	return true
}

// count counts a term that asks the DNS.
func (c *check) count() error {
	if c.lookups++; c.lookups > maxLookups {
		return permerror("more than %d terms that ask the DNS", maxLookups)
	}
	return nil
}

// void counts a question that found nothing.
func (c *check) void() error {
	if c.voids++; c.voids > maxVoids {
		return permerror("more than %d questions that find nothing", maxVoids)
	}
	return nil
}
