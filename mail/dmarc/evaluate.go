package dmarc

import (
	"context"
	"fmt"
	"strings"

	"github.com/tallypost/tallypost/internal/dns"
)

// maxSigners is how many different signing domains are looked at for relaxed alignment, each of
// which may cost eight questions. Only those below the author's organizational domain cost any.
const maxSigners = 8

// Evaluate says whether a message passes DMARC for its author's domain, and if not what the owner
// wants. The domain is one that AuthorOf found. Most messages take one question: those with an
// identifier equal to the author's domain, or with none. At most it takes 8 for the author, 8 for
// each identifier that is another name of the same organization, and one for whether the author
// exists.
func Evaluate(ctx context.Context, r dns.Resolver, author string, spf SPF, dkim []DKIM) Verdict {
	name, err := asciiName(author)
	if err != nil {
		return Verdict{Result: PermError, Author: author, Policy: PolicyNone, Published: PolicyNone,
			Explain: fmt.Sprintf("the author's domain is not valid: %v", err)}
	}
	e := &evaluation{walker: newWalker(r), author: name}
	e.verdict = Verdict{Author: name, Policy: PolicyNone, Published: PolicyNone}
	e.run(ctx, spf, dkim)
	e.verdict.Questions = e.questions
	return e.verdict
}

type evaluation struct {
	*walker
	author  string
	verdict Verdict

	organized bool // Organization has been looked for
	orgErr    error
}

// run is sections 5.3.2 to 5.3.6 of RFC 9989.
func (e *evaluation) run(ctx context.Context, spf SPF, dkim []DKIM) {
	v := &e.verdict
	if err := e.discover(ctx); err != nil {
		v.Result = TempError
		v.Explain = fmt.Sprintf("no answer about the policy of %s: %v", e.author, err)
		return
	}
	if v.Record == nil {
		v.Result, v.Explain = None, e.whyNone()
		return
	}
	if !v.Record.Usable() {
		v.Result = PermError
		v.Explain = fmt.Sprintf("the record of %s is not valid: %s", v.Domain,
			strings.Join(v.Record.Faults, "; "))
		return
	}
	var identified []string
	if strings.EqualFold(spf.Result, pass) {
		identified = []string{spf.Domain}
	}
	v.SPF = e.align(ctx, identified, v.Record.StrictSPF)
	v.DKIM = e.align(ctx, passed(dkim), v.Record.StrictDKIM)
	e.policy(ctx)
	e.conclude()
}

func passed(dkim []DKIM) (domains []string) {
	for _, d := range dkim {
		if strings.EqualFold(d.Result, pass) {
			domains = append(domains, d.Domain)
		}
	}
	return domains
}

// discover finds the record that applies: the author's own, that of its organizational domain, or
// that of the public suffix it is under (RFC 9989, section 4.10.1).
func (e *evaluation) discover(ctx context.Context) error {
	own := e.record(ctx, e.author)
	if own.err != nil {
		return own.err
	}
	if own.record != nil {
		e.verdict.Record, e.verdict.Domain = own.record, e.author
		return nil
	}
	steps, err := e.walk(ctx, e.author)
	if err != nil {
		return err
	}
	if len(steps) == 0 {
		return nil
	}
	org := organization(e.author, steps)
	e.organized, e.verdict.Organization = true, org
	for _, s := range steps {
		if s.domain == org {
			e.verdict.Record, e.verdict.Domain = s.record, s.domain
			return nil
		}
	}
	// The organization lies directly below a public suffix and has no record of its own.
	last := steps[len(steps)-1]
	e.verdict.Record, e.verdict.Domain = last.record, last.domain
	return nil
}

func (e *evaluation) whyNone() string {
	for domain, f := range e.known {
		if len(f.faults) > 0 && within(e.author, domain) {
			return f.faults[0] + ": none counts"
		}
	}
	return fmt.Sprintf("neither %s nor a domain above it has a DMARC record", e.author)
}

// organize finds the organizational domain of the author.
func (e *evaluation) organize(ctx context.Context) (string, error) {
	if !e.organized {
		steps, err := e.walk(ctx, e.author)
		e.organized, e.orgErr = true, err
		if err == nil {
			e.verdict.Organization = organization(e.author, steps)
		}
	}
	return e.verdict.Organization, e.orgErr
}

// align looks for an authenticated domain that is the author's, or, unless the record is strict,
// one of the same organization. Who is not below the author's organizational domain cannot have the
// same one, so a stranger's signature costs no question.
func (e *evaluation) align(ctx context.Context, domains []string, strict bool) Alignment {
	a := Alignment{Strict: strict}
	var names []string
	for _, d := range domains {
		name, err := asciiName(d)
		if err != nil {
			continue
		}
		if name == e.author {
			a.Domain, a.Aligned = name, true
			return a
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return a
	}
	a.Domain = names[0]
	if strict {
		return a
	}
	walked := make(map[string]bool)
	for _, name := range names {
		if !sameTop(name, e.author) || walked[name] || len(walked) == maxSigners {
			continue
		}
		org, err := e.organize(ctx)
		if err != nil {
			a.Err = err
			return a
		}
		if !within(name, org) {
			continue
		}
		walked[name] = true
		same, err := e.belongs(ctx, name, org)
		if same {
			return Alignment{Aligned: true, Domain: name}
		}
		if err != nil {
			a.Err = err
		}
	}
	return a
}

// sameTop spares the walk for the author's organization where the two names do not even end alike.
func sameTop(a, b string) bool {
	return a[strings.LastIndexByte(a, '.')+1:] == b[strings.LastIndexByte(b, '.')+1:]
}

func (e *evaluation) belongs(ctx context.Context, name, org string) (bool, error) {
	steps, err := e.walk(ctx, name)
	if err != nil {
		return false, err
	}
	return organization(name, steps) == org, nil
}

// policy picks the tag that speaks of the author. Whether the author exists is only asked where the
// answer matters: the message is not aligned, and np differs.
func (e *evaluation) policy(ctx context.Context) {
	v := &e.verdict
	r := v.Record
	v.Tag, v.Published = "p", r.Policy
	if v.Domain != e.author {
		if r.Subdomains != "" {
			v.Tag, v.Published = "sp", r.Subdomains
		}
		if r.NonExistent != "" && !v.SPF.Aligned && !v.DKIM.Aligned {
			there, err := e.exists(ctx, e.author)
			if err != nil && v.Published != r.NonExistent {
				v.Result, v.Explain = TempError, fmt.Sprintf("does %s exist? %v", e.author, err)
			} else if err == nil && !there {
				v.Tag, v.Published = "np", r.NonExistent
			}
		}
	}
	v.Policy = v.Published
	if r.Testing {
		v.Policy = v.Published.Milder()
	}
}

func (e *evaluation) conclude() {
	v := &e.verdict
	switch {
	case v.DKIM.Aligned:
		v.Result, v.Explain = Pass, aligned("signed by", v.DKIM, v)
	case v.SPF.Aligned:
		v.Result, v.Explain = Pass, aligned("sent by", v.SPF, v)
	case v.Result == TempError:
	case v.DKIM.Err != nil || v.SPF.Err != nil:
		err := v.DKIM.Err
		if err == nil {
			err = v.SPF.Err
		}
		v.Result = TempError
		v.Explain = fmt.Sprintf("no answer about the alignment with %s: %v", e.author, err)
	default:
		v.Result = Fail
		v.Explain = fmt.Sprintf(
			"neither a signature (%s) nor the path (%s) is aligned with %s; %s asks %s=%s",
			v.DKIM.short(), v.SPF.short(), e.author, v.Domain, v.Tag, v.Published)
		if v.Record.Testing {
			v.Explain += ", test mode"
		}
	}
}

func aligned(how string, a Alignment, v *Verdict) string {
	if a.Domain == v.Author {
		return fmt.Sprintf("%s %s itself", how, a.Domain)
	}
	return fmt.Sprintf("%s %s, of the organization %s", how, a.Domain, v.Organization)
}

func (a Alignment) short() string {
	if a.Domain == "" {
		return "none passed"
	}
	if a.Strict {
		return a.Domain + ", strict"
	}
	return a.Domain
}
