package intake

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"blitiri.com.ar/go/spf"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/dkim"
	"github.com/tallypost/tallypost/mail/dmarc"
)

// authTimeout bounds all that is asked of the DNS for one message.
const authTimeout = 20 * time.Second

// authentication finds out who sent a message, while the message comes in: SPF, the host's name, DKIM and
// ARC, DMARC at the end. It belongs to one transaction.
type authentication struct {
	in     *Intake
	ip     netip.Addr
	helo   string
	from   mail.Address
	cancel context.CancelFunc
	ctx    context.Context
	wg     sync.WaitGroup

	spf   spfResult
	iprev iprevResult

	header mail.Header
	dkim   *dkim.Verifier
}

type spfResult struct {
	result   spf.Result
	domain   string // that was checked
	identity string // "mailfrom" or "helo"
	err      error
}

type iprevResult struct {
	result string // RFC 8601, section 2.7.3
	name   string // confirmed; empty otherwise
}

// authenticate begins what depends on the connection and the envelope alone.
func (in *Intake) authenticate(ctx context.Context, ip netip.Addr, helo string, from mail.Address) *authentication {
	a := &authentication{in: in, ip: ip, helo: helo, from: from}
	a.ctx, a.cancel = context.WithTimeout(ctx, authTimeout)
	a.wg.Go(func() { a.spf = a.checkSPF() })
	a.wg.Go(func() { a.iprev = a.checkIPRev() })
	return a
}

// checkSPF evaluates the reverse path's domain, or the HELO name where the path is null (RFC 7208, section
// 2.4).
func (a *authentication) checkSPF() spfResult {
	r := spfResult{domain: a.from.Domain.ASCII(), identity: "mailfrom"}
	sender := a.from.Wire(false)
	if a.from.IsNull() {
		r.domain, r.identity = strings.ToLower(a.helo), "helo"
		sender = "postmaster@" + r.domain
	}
	if _, literal := mail.Domain(r.domain).Literal(); literal || r.domain == "" || !a.ip.IsValid() {
		r.result = spf.None
		return r
	}
	r.result, r.err = spf.CheckHostWithSender(net.IP(a.ip.AsSlice()), a.helo, sender,
		spf.WithContext(a.ctx), spf.WithResolver(dns.StdLookup{Resolver: a.in.resolver}))
	return r
}

// checkIPRev looks the address up back and forth (RFC 8601, section 3).
func (a *authentication) checkIPRev() iprevResult {
	if !a.ip.IsValid() {
		return iprevResult{result: "permerror"}
	}
	names, _, err := a.in.resolver.PTR(a.ctx, a.ip)
	if errors.Is(err, dns.ErrNotFound) {
		return iprevResult{result: "fail"}
	}
	if err != nil {
		return iprevResult{result: "temperror"}
	}
	for _, name := range names[:min(len(names), 10)] { // as many as RFC 7208 allows for "ptr"
		addrs, _, err := a.in.resolver.Addrs(a.ctx, name)
		if err != nil {
			continue
		}
		for _, addr := range addrs {
			if addr.Unmap() == a.ip {
				return iprevResult{result: "pass", name: name}
			}
		}
	}
	return iprevResult{result: "fail"}
}

// begin takes the header; the body follows through Write.
func (a *authentication) begin(h mail.Header) {
	a.header = h
	a.dkim = dkim.NewVerifier(a.ctx, a.in.resolver, h, a.in.clock.Now(), dkim.VerifyConfig{})
}

// Write takes the body.
func (a *authentication) Write(p []byte) (int, error) { return a.dkim.Write(p) }

// close ends whatever still runs.
func (a *authentication) close() {
	a.cancel()
	if a.dkim != nil {
		a.dkim.Close()
	}
	a.wg.Wait()
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
	a.wg.Wait()
	id := &identity{spf: a.spf, iprev: a.iprev, dkim: a.dkim.Finish(), arc: a.dkim.ARC()}
	id.author, id.authorErr = dmarc.AuthorOf(a.header)
	if id.authorErr != nil {
		id.dmarc = dmarc.Verdict{Result: dmarc.PermError, Policy: dmarc.PolicyNone, Explain: id.authorErr.Error()}
		return id
	}
	var sigs []dmarc.DKIM
	for _, r := range id.dkim {
		sigs = append(sigs, dmarc.DKIM{Result: string(r.State), Domain: r.Domain.ASCII(), Selector: r.Selector})
	}
	id.dmarc = dmarc.Evaluate(a.ctx, a.in.resolver, id.author.Domain,
		dmarc.SPF{Result: string(a.spf.result), Domain: a.spf.domain}, sigs)
	return id
}

// results returns what goes into Authentication-Results.
func (id *identity) results(servID string, ip netip.Addr) mail.AuthResults {
	out := mail.AuthResults{ServID: servID}
	add := func(r mail.AuthResult) { out.Results = append(out.Results, r) }
	add(mail.AuthResult{Method: "iprev", Result: id.iprev.result, Comment: id.iprev.name,
		Props: []mail.AuthProp{{Type: "policy", Name: "iprev", Value: ip.String()}}})
	comment := ""
	if id.spf.err != nil {
		comment = id.spf.err.Error()
	}
	add(mail.AuthResult{Method: "spf", Result: string(id.spf.result), Comment: comment,
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
	d := mail.AuthResult{Method: "dmarc", Result: string(id.dmarc.Result), Comment: id.dmarc.Explain}
	if id.author.Domain != "" {
		d.Props = []mail.AuthProp{{Type: "header", Name: "from", Value: id.author.Domain}}
	}
	add(d)
	return out
}

// domains returns the domains that vouch for the message: of DKIM signatures that verified, then of SPF.
func (id *identity) domains() []string {
	var out []string
	for _, r := range id.dkim {
		if r.State == dkim.Pass {
			out = append(out, r.Domain.ASCII())
		}
	}
	if id.spf.result == spf.Pass && id.spf.identity == "mailfrom" {
		out = append(out, id.spf.domain)
	}
	return out
}

func (r spfResult) String() string {
	return fmt.Sprintf("spf=%s (%s)", r.result, r.domain)
}
