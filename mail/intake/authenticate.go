package intake

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/dkim"
	"github.com/tallypost/tallypost/mail/dmarc"
	"github.com/tallypost/tallypost/mail/spf"
)

// dnsTimeout bounds each of the steps that ask the DNS about a message: what concerns the address, SPF,
// the keys of DKIM, DMARC. It is for a step and not for the message, which may take many minutes to
// come in.
const dnsTimeout = 20 * time.Second

// authentication finds out who sent a message, while the message comes in: SPF, DKIM and ARC, and
// DMARC at the end. It belongs to one transaction and is a witness of its message.
type authentication struct {
	in     *Intake
	host   *host
	helo   string
	from   mail.Address
	ctx    context.Context // of the transaction
	cancel context.CancelFunc

	spf    *pending[spfResult]
	header mail.Header
	dkim   *dkim.Verifier
}

type spfResult struct {
	spf.Outcome
	domain   string // that was checked
	identity string // "mailfrom" or "helo"
}

// authenticate begins what depends on the connection and the envelope alone.
func (in *Intake) authenticate(ctx context.Context, h *host, helo string,
	from mail.Address) *authentication {
	a := &authentication{in: in, host: h, helo: helo, from: from}
	a.ctx, a.cancel = context.WithCancel(ctx)
	a.spf = find(a.checkSPF)
	return a
}

// checkSPF evaluates the reverse path's domain, or the HELO name where the path is null (RFC 7208,
// section 2.4).
func (a *authentication) checkSPF() spfResult {
	r := spfResult{domain: a.from.Domain.ASCII(), identity: "mailfrom"}
	if a.from.IsNull() {
		r.domain, r.identity = strings.ToLower(a.helo), "helo"
	}
	if _, literal := mail.Domain(r.domain).Literal(); literal {
		r.Result = spf.None
		return r
	}
	ctx, cancel := context.WithTimeout(a.ctx, a.in.dnsTimeout)
	defer cancel()
	r.Outcome = spf.Check(ctx, a.in.resolver, spf.Query{IP: a.host.ip, Domain: r.domain,
		Local: a.from.Local, Helo: a.helo, Receiver: a.in.cfg.Hostname, Now: a.in.clock.Now()})
	return r
}

// begin takes the header; the body follows through Write.
func (a *authentication) begin(h mail.Header) error {
	ctx, cancel := context.WithTimeout(a.ctx, a.in.dnsTimeout)
	stop := a.cancel
	a.cancel = func() { cancel(); stop() }
	a.header = h
	a.dkim = dkim.NewVerifier(ctx, a.in.resolver, h, a.in.clock.Now(), dkim.VerifyConfig{})
	return nil
}

// Write takes the body.
func (a *authentication) Write(p []byte) (int, error) { return a.dkim.Write(p) }

// close ends whatever still runs.
func (a *authentication) close() {
	a.cancel()
	if a.dkim != nil {
		a.dkim.Close()
	}
	a.spf.get()
}

// identity is what was found out about who sent a message.
type identity struct {
	spf    spfResult
	iprev  iprevResult
	dkim   []dkim.Result
	arc    dkim.ARCResult
	author dmarc.Author
	// authorErr is why there is no one author; it is one of dmarc's errors.
	authorErr error
	dmarc     dmarc.Verdict
}

// finish waits for everything and lets DMARC judge.
func (a *authentication) finish() *identity {
	id := &identity{dkim: a.dkim.Finish(), arc: a.dkim.ARC()}
	id.spf, id.iprev = a.spf.get(), a.host.iprev.get()
	id.author, id.authorErr = dmarc.AuthorOf(a.header)
	if id.authorErr != nil {
		id.dmarc = dmarc.Verdict{Result: dmarc.PermError, Policy: dmarc.PolicyNone,
			Explain: id.authorErr.Error()}
		return id
	}
	ctx, cancel := context.WithTimeout(a.ctx, a.in.dnsTimeout)
	defer cancel()
	id.dmarc = dmarc.Evaluate(ctx, a.in.resolver, id.author.Domain, id.spfFor(), id.dkimFor())
	return id
}

// spfFor and dkimFor are the results as DMARC takes them.
func (id *identity) spfFor() dmarc.SPF {
	return dmarc.SPF{Result: string(id.spf.Result), Domain: id.spf.domain}
}

func (id *identity) dkimFor() []dmarc.DKIM {
	var out []dmarc.DKIM
	for _, r := range id.dkim {
		out = append(out, dmarc.DKIM{Result: string(r.State), Domain: r.Domain.ASCII(),
			Selector: r.Selector})
	}
	return out
}

// results returns what goes into Authentication-Results.
func (id *identity) results(servID string, ip netip.Addr) mail.AuthResults {
	out := mail.AuthResults{ServID: servID}
	add := func(r mail.AuthResult) { out.Results = append(out.Results, r) }
	add(mail.AuthResult{Method: "iprev", Result: id.iprev.result, Comment: id.iprev.name,
		Props: []mail.AuthProp{{Type: "policy", Name: "iprev", Value: ip.String()}}})
	add(mail.AuthResult{Method: "spf", Result: string(id.spf.Result), Comment: ascii(id.spf.Reason),
		Props: []mail.AuthProp{{Type: "smtp", Name: id.spf.identity, Value: id.spf.domain}}})
	for _, r := range id.dkim {
		add(r.AuthResult())
	}
	if len(id.dkim) == 0 {
		add(mail.AuthResult{Method: "dkim", Result: "none"})
	}
	if id.arc.State != dkim.None {
		add(id.arc.AuthResult())
	}
	d := mail.AuthResult{Method: "dmarc", Result: string(id.dmarc.Result),
		Comment: ascii(id.dmarc.Explain)}
	if id.author.Domain != "" {
		d.Props = []mail.AuthProp{{Type: "header", Name: "from", Value: id.author.Domain}}
	}
	add(d)
	return out
}

// domains returns the domains that vouch for the message, each once: of DKIM signatures that verified,
// then of SPF.
func (id *identity) domains() []mail.Domain {
	var out []mail.Domain
	add := func(d mail.Domain) {
		for _, o := range out {
			if o == d {
				return
			}
		}
		out = append(out, d)
	}
	for _, r := range id.dkim {
		if r.State == dkim.Pass && !r.Testing {
			add(r.Domain)
		}
	}
	if id.spf.Result == spf.Pass && id.spf.identity == "mailfrom" {
		if d, err := mail.ParseDomain(id.spf.domain); err == nil {
			add(d)
		}
	}
	return out
}

// ascii keeps what may stand in a field of a message that was sent without SMTPUTF8; the rest becomes
// '?'.
func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}, s)
}
