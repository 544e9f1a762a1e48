package records

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/dkim"
	"github.com/tallypost/tallypost/mail/dmarc"
	"github.com/tallypost/tallypost/mail/keyring"
	"github.com/tallypost/tallypost/mail/spf"
	"github.com/tallypost/tallypost/mail/tlspolicy"
)

func (s *Site) checkMX(ctx context.Context, c *Checker) (Status, string) {
	list, _, err := c.Resolver.MX(ctx, s.Domain.ASCII())
	if err != nil {
		return absent(err)
	}
	var names []string
	for _, mx := range list {
		names = append(names, mx.Host)
	}
	there := strings.Join(names, ", ")
	if !slices.ContainsFunc(names, s.isHost) {
		return Wrong, "mail goes to " + there
	}
	return Good, there
}

func (s *Site) isHost(name string) bool { return strings.EqualFold(name, s.Host.ASCII()) }

func (s *Site) checkAddress(ctx context.Context, c *Checker) (Status, string) {
	addrs, _, err := c.Resolver.Addrs(ctx, s.Host.ASCII())
	if err != nil {
		return absent(err)
	}
	return Good, join(addrs)
}

func join(addrs []netip.Addr) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}

func (s *Site) checkPTR(ctx context.Context, c *Checker) (Status, string) {
	addrs, _, err := c.Resolver.Addrs(ctx, s.Host.ASCII())
	if err != nil {
		return Unknown, "the server's name has no address yet"
	}
	for _, ip := range addrs {
		names, _, err := c.Resolver.PTR(ctx, ip)
		if err != nil {
			status, words := absent(err)
			return status, strings.TrimSuffix(ip.String()+" has no name: "+words, ": ")
		}
		if !slices.ContainsFunc(names, s.isHost) {
			return Wrong, ip.String() + " is called " + strings.Join(names, ", ")
		}
	}
	return Good, join(addrs)
}

func (s *Site) checkSPF(ctx context.Context, c *Checker) (Status, string) {
	return s.passesSPF(ctx, c, s.Domain)
}

func (s *Site) checkHostSPF(ctx context.Context, c *Checker) (Status, string) {
	return s.passesSPF(ctx, c, s.Host)
}

// passesSPF evaluates the record of a domain for each address that the server has.
func (s *Site) passesSPF(ctx context.Context, c *Checker, domain mail.Domain) (Status, string) {
	addrs, _, err := c.Resolver.Addrs(ctx, s.Host.ASCII())
	if err != nil {
		return Unknown, "the server's name has no address yet"
	}
	for _, ip := range addrs {
		got := spf.Check(ctx, c.Resolver, spf.Query{IP: ip, Domain: domain.ASCII(), Helo: s.Host.ASCII(),
			Now: c.Now})
		switch got.Result {
		case spf.Pass:
		case spf.None:
			return Missing, ""
		case spf.TempError:
			return Unknown, got.Reason
		default:
			return Wrong, fmt.Sprintf("%s for mail from %s: %s", got.Result, ip, got.Reason)
		}
	}
	return Good, "pass for " + join(addrs)
}

// checkKey verifies a signature by what the DNS has.
func (s *Site) checkKey(ctx context.Context, c *Checker, k keyring.Key) (Status, string) {
	state, problem := keyring.Probe(ctx, c.Resolver, k.Key, c.Now)
	switch state {
	case dkim.Pass:
		return Good, "a signature verifies"
	case dkim.TempError:
		return Unknown, problem
	}
	_, _, err := c.Resolver.TXT(ctx, dkim.RecordName(k.Domain, k.Selector))
	if err != nil {
		return absent(err)
	}
	return Wrong, problem
}

func (s *Site) checkDMARC(ctx context.Context, c *Checker) (Status, string) {
	texts, _, err := c.Resolver.TXT(ctx, "_dmarc."+s.Domain.ASCII())
	if err != nil {
		return absent(err)
	}
	var found []*dmarc.Record
	var text string
	for _, t := range texts {
		if r, err := dmarc.ParseRecord(t); err == nil {
			found, text = append(found, r), t
		}
	}
	switch {
	case len(found) == 0:
		return Missing, ""
	case len(found) > 1:
		return Wrong, "more than one record: receivers heed none"
	case !found[0].Usable():
		return Wrong, text
	case len(found[0].Faults) > 0:
		return Wrong, text + ": " + strings.Join(found[0].Faults, "; ")
	}
	return Good, text
}

// checkAgreement asks whether a place takes reports about the domain, as who sends them does.
func (s *Site) checkAgreement(place mail.Address) func(context.Context, *Checker) (Status, string) {
	return func(ctx context.Context, c *Checker) (Status, string) {
		uri := dmarc.URI{Raw: "mailto:" + mailtoAddress(place), Address: place}
		for _, d := range dmarc.Destinations(ctx, c.Resolver, s.Domain.ASCII(), []dmarc.URI{uri}) {
			switch {
			case errors.Is(d.Err, dmarc.ErrNotWanted):
				return Missing, ""
			case d.Err != nil:
				return Unknown, d.Err.Error()
			}
		}
		return Good, ""
	}
}

func (s *Site) checkTLSRPT(ctx context.Context, c *Checker) (Status, string) {
	places, err := tlspolicy.LookupRecord(ctx, c.Resolver, s.Domain.ASCII())
	if errors.Is(err, tlspolicy.ErrNoRecord) && !errors.Is(err, dns.ErrNotFound) {
		return Wrong, err.Error()
	}
	if err != nil {
		return absent(err)
	}
	var words []string
	for _, p := range places {
		words = append(words, p.HTTPS+p.Mail.String())
	}
	return Good, "to " + strings.Join(words, ", ")
}

func (s *Site) checkSTSHost(ctx context.Context, c *Checker) (Status, string) {
	addrs, _, err := c.Resolver.Addrs(ctx, "mta-sts."+s.Domain.ASCII())
	if err != nil {
		return absent(err)
	}
	return Good, join(addrs)
}

// checkSTS compares the record with the policy, and fetches the policy as a sender does.
func (s *Site) checkSTS(ctx context.Context, c *Checker) (Status, string) {
	texts, _, err := c.Resolver.TXT(ctx, "_mta-sts."+s.Domain.ASCII())
	if err != nil {
		return absent(err)
	}
	want, err := tlspolicy.ParseSTSRecord(s.STS.Record())
	if err != nil {
		return Unknown, err.Error()
	}
	status, words := Missing, ""
	for _, t := range texts {
		switch id, err := tlspolicy.ParseSTSRecord(t); {
		case err != nil:
		case id != want:
			status, words = Wrong, "id "+id+" is that of another policy: senders keep that one"
		default:
			status, words = Good, t
		}
	}
	if status != Good || c.STS == nil {
		return status, words
	}
	policy, failure := c.STS.Policy(ctx, s.Domain)
	switch {
	case failure != nil:
		return Wrong, failure.Error()
	case policy == nil || policy.Text() != s.STS.Text():
		return Wrong, "the web site serves another policy"
	}
	return Good, "the policy was fetched: mode " + string(policy.Mode)
}

// checkTLSA wants a record that fits one of the certificate's names for its key.
func (s *Site) checkTLSA(cert *x509.Certificate) func(context.Context, *Checker) (Status, string) {
	return func(ctx context.Context, c *Checker) (Status, string) {
		list, secure, err := c.Resolver.TLSA(ctx, "_25._tcp."+s.Host.ASCII())
		if err != nil {
			return absent(err)
		}
		if !slices.ContainsFunc(list, func(r dns.TLSA) bool { return fits(r, cert) }) {
			return Wrong, "no record fits the certificate that is shown: senders with DANE do not deliver"
		}
		if !secure {
			return Good, "but DNSSEC does not vouch for it, so nobody heeds it"
		}
		return Good, "vouched for by DNSSEC"
	}
}

// fits says whether a record is of the certificate itself (DANE-EE, RFC 6698, section 2.1).
func fits(r dns.TLSA, cert *x509.Certificate) bool {
	data := cert.Raw
	if r.Selector == 1 {
		data = cert.RawSubjectPublicKeyInfo
	}
	switch r.MatchingType {
	case 1:
		sum := sha256.Sum256(data)
		data = sum[:]
	case 2:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return r.Usage == 3 && string(r.Data) == string(data)
}
