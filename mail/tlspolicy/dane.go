package tlspolicy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/tallypost/tallypost/internal/dns"
)

// The numbers of RFC 6698, section 2.1, that SMTP uses.
const (
	usageTA  = 2 // DANE-TA: an authority of the domain's own
	usageEE  = 3 // DANE-EE: the server's certificate itself
	wholeX   = 0 // selector: the certificate
	keyX     = 1 // selector: its public key
	fullX    = 0 // matching type: the octets themselves
	sha256X  = 1
	sha512X  = 2
	maxChain = 10 // certificates looked at
)

// daneState is what the DNS says of DANE for a server.
type daneState uint8

const (
	daneAbsent   daneState = iota // none, or not authenticated
	daneUnusable                  // authenticated records, none of which SMTP can use
	daneUsable
)

// dane looks for TLSA records (RFC 7672, section 2.2). Every link must be authenticated: the MX
// answer, the server's address with its aliases, and the records. A question that goes unanswered
// keeps the server from being used, for else whoever can drop an answer could take the protection
// away.
func (p *Policies) dane(ctx context.Context, d *Decision, q Query) daneState {
	if !q.Secure || d.Failure != nil {
		return daneAbsent
	}
	port := q.Port
	if port == 0 {
		port = 25
	}
	// The answer for A tells whether the zone is signed, for AAAA as well.
	expanded, secure, err := p.cfg.Resolver.CNAME(ctx, q.Host)
	if err != nil && !errors.Is(err, dns.ErrNotFound) {
		return d.unanswered(err)
	}
	if err != nil || !secure {
		return daneAbsent
	}
	bases := []string{q.Host}
	if expanded != q.Host {
		bases = []string{expanded, q.Host} // RFC 7672, section 2.2.3: the end of the chain first
	}
	for _, base := range bases {
		records, secure, err := p.cfg.Resolver.TLSA(ctx, fmt.Sprintf("_%d._tcp.%s", port, base))
		if err != nil && !errors.Is(err, dns.ErrNotFound) {
			return d.unanswered(err)
		}
		if err != nil || !secure || len(records) == 0 {
			continue
		}
		d.Applied = append(d.Applied, appliedTLSA(q.Host, base, records))
		d.records = usable(records)
		if len(d.records) == 0 {
			d.Troubles = append(d.Troubles, &Failure{Type: TLSAInvalid, Policy: PolicyTLSA,
				Err: fmt.Errorf("no usable TLSA record of %s among %d", base, len(records))})
			return daneUnusable
		}
		// RFC 7672, section 3.2.2: the base domain, the next hop's, and the server's as MX has it.
		d.names = []string{base, q.Host, expanded, q.Domain.ASCII()}
		return daneUsable
	}
	return daneAbsent
}

func (d *Decision) unanswered(err error) daneState {
	d.Failure = &Failure{Type: DNSSECInvalid, Policy: PolicyTLSA, Enforced: true,
		Err: fmt.Errorf("no answer whether %s has TLSA records: %w", d.host, err)}
	d.Explain = d.Failure.Error()
	return daneAbsent
}

// usable leaves what SMTP can use: no PKIX usages ("SHOULD NOT": RFC 7672, section 3.1.3), known
// selectors and digests of their right length, and for each usage and selector only the strongest
// digest (RFC 7671, section 9).
func usable(records []dns.TLSA) (out []dns.TLSA) {
	strong := make(map[[2]uint8]bool)
	for _, r := range records {
		if wellFormed(r) && r.MatchingType == sha512X {
			strong[[2]uint8{r.Usage, r.Selector}] = true
		}
	}
	for _, r := range records {
		weak := r.MatchingType == sha256X && strong[[2]uint8{r.Usage, r.Selector}]
		if wellFormed(r) && !weak {
			out = append(out, r)
		}
	}
	return out
}

func wellFormed(r dns.TLSA) bool {
	if r.Usage != usageTA && r.Usage != usageEE || r.Selector > keyX {
		return false
	}
	switch r.MatchingType {
	case sha256X:
		return len(r.Data) == sha256.Size
	case sha512X:
		return len(r.Data) == sha512.Size
	case fullX:
		var err error
		if r.Selector == wholeX {
			_, err = x509.ParseCertificate(r.Data)
		} else {
			_, err = x509.ParsePKIXPublicKey(r.Data)
		}
		return err == nil
	}
	return false
}

// vouches says whether a record is for a certificate.
func vouches(r dns.TLSA, c *x509.Certificate) bool {
	data := c.Raw
	if r.Selector == keyX {
		data = c.RawSubjectPublicKeyInfo
	}
	switch r.MatchingType {
	case sha256X:
		sum := sha256.Sum256(data)
		data = sum[:]
	case sha512X:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return bytes.Equal(data, r.Data)
}

// checkDANE judges a chain of certificates by the records, any of which may match.
func (d *Decision) checkDANE(chain []*x509.Certificate) *Failure {
	if len(chain) == 0 {
		return &Failure{Type: ValidationFailure, Err: errors.New("no certificate")}
	}
	chain = chain[:min(len(chain), maxChain)]
	var reason error
	for _, r := range d.records {
		if r.Usage == usageEE {
			// "the expiration date ... MUST NOT be" and names need not be looked at: RFC 7672,
			// section 3.1.1.
			if vouches(r, chain[0]) {
				return nil
			}
			continue
		}
		err := d.checkTA(r, chain)
		if err == nil {
			return nil
		}
		if !errors.Is(err, errNoMatch) {
			reason = err
		}
	}
	if reason != nil {
		return &Failure{Type: classify(reason),
			Err: fmt.Errorf("certificate of %s (DANE-TA): %w", d.host, reason)}
	}
	return &Failure{Type: ValidationFailure,
		Err: fmt.Errorf("certificate of %s: %w of %d TLSA records", d.host, errNoMatch,
			len(d.records))}
}

var errNoMatch = errors.New("matches none")

// checkTA finds the authority that the record is for among the certificates above the server's
// own, or in the record itself, and verifies the chain up to it, dates and names (RFC 7672,
// section 3.1.2).
func (d *Decision) checkTA(r dns.TLSA, chain []*x509.Certificate) error {
	roots := x509.NewCertPool()
	found := false
	for _, c := range chain[1:] {
		if vouches(r, c) {
			roots.AddCert(c)
			found = true
		}
	}
	if r.MatchingType == fullX && r.Selector == wholeX {
		if c, err := x509.ParseCertificate(r.Data); err == nil {
			roots.AddCert(c)
			found = true
		}
	}
	if !found {
		return errNoMatch
	}
	leaf := chain[0]
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: pool(chain[1:]),
		CurrentTime:   d.now(),
	})
	if err != nil {
		return err
	}
	for _, name := range d.names {
		if err = leaf.VerifyHostname(name); err == nil {
			return nil
		}
		// RFC 7672, section 3.2.3: a common name counts where there is no name of the right kind.
		if len(leaf.DNSNames) == 0 && leaf.Subject.CommonName == name {
			return nil
		}
	}
	return err
}
