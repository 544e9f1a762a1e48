// Package tlspolicy says how well a connection to somebody's mail server must be protected before
// a message goes over it: what the domain promises by MTA-STS (RFC 8461) or DANE (RFC 7672), and
// what the sender demands by REQUIRETLS or waives by "TLS-Required: No" (RFC 8689). It counts
// what came of it and makes the reports that domains ask for (RFC 8460), and reads those of
// others.
//
// Decide answers for one server of one domain. The package opens no SMTP connection and does not
// validate DNSSEC: it believes the authenticated bit of its resolver, and without one there is no
// DANE.
package tlspolicy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
)

// Level is the least protection a connection needs.
type Level uint8

// The levels, from the least.
const (
	Opportunistic Level = iota // TLS if offered, with any certificate; else none
	Encrypted                  // TLS with any certificate
	WebPKI                     // TLS with a certificate for the server, by a public authority
	DANE                       // TLS with a certificate that a TLSA record vouches for
)

// String names the level for people and logs.
func (l Level) String() string {
	return [...]string{"opportunistic", "encrypted", "webpki", "dane"}[min(l, DANE)]
}

// Config says where policies come from.
type Config struct {
	Resolver dns.Resolver
	// STS finds MTA-STS policies. Nil: there are none.
	STS *STS
	// Roots are the public authorities. Nil: those of the system.
	Roots *x509.CertPool
	// Now is the clock that certificates are checked by. Nil: time.Now.
	Now func() time.Time
}

// Policies decides. It may be used from many goroutines.
type Policies struct{ cfg Config }

// New returns Policies.
func New(cfg Config) *Policies {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Policies{cfg}
}

// Query asks about one server of a domain.
type Query struct {
	Domain mail.Domain // the recipient's, or that of the next hop
	Host   string      // the MX host, or Domain itself where it has no MX
	// Secure says that the MX answer, or the lack of one, was authenticated.
	Secure bool
	Port   uint16 // zero: 25
	// RequireTLS is that of the message (RFC 8689, section 4.2).
	RequireTLS bool
	// Waived is that the message has "TLS-Required: No" (RFC 8689, section 3); RequireTLS wins
	// over it.
	Waived bool
}

// Decision is what a server must show.
type Decision struct {
	Level   Level
	Explain string // one sentence for the operator
	// Failure, if there is one, says why the server must not be used at all.
	Failure *Failure
	// NeedsExtension: after TLS is up the server must offer REQUIRETLS (RFC 8689, section 4.2.1).
	NeedsExtension bool
	// Applied are the policies that were found, for reports; one of type NoPolicy where there is
	// none.
	Applied []Applied
	// Troubles are policies that could not be had, for reports; they do not keep the message.
	Troubles []*Failure

	domain  string // that the message is for, in ASCII
	host    string
	names   []string // that a DANE-TA certificate may have
	records []dns.TLSA
	testing bool // an MTA-STS policy in testing mode: check and report, but do not enforce
	roots   *x509.CertPool
	now     func() time.Time
}

// Decide says what protection a message to a domain needs on the way to one of its servers.
//
// The strictest of what was found counts. Where both DANE and MTA-STS speak, DANE judges the
// certificate ("MUST NOT allow MTA-STS Policy validation to override a failing DANE validation":
// RFC 8461, section 2) and the policy still says which servers are the domain's.
func (p *Policies) Decide(ctx context.Context, q Query) *Decision {
	q.Host = strings.ToLower(strings.TrimSuffix(q.Host, "."))
	d := &Decision{domain: q.Domain.ASCII(), host: q.Host, roots: p.cfg.Roots, now: p.cfg.Now}
	if q.Waived && !q.RequireTLS {
		d.Explain = "the sender waives protection (TLS-Required: No)"
		d.Applied = []Applied{{Type: NoPolicy, Domain: d.domain}}
		return d
	}
	sts := p.sts(ctx, d, q)
	found := p.dane(ctx, d, q)
	switch {
	case d.Failure != nil:
	case found == daneUsable:
		d.Level = DANE
		d.Explain = fmt.Sprintf("%s has %d authenticated TLSA records", q.Host, len(d.records))
	case sts != nil && sts.Mode == ModeEnforce:
		d.Level = WebPKI
		d.Explain = fmt.Sprintf("%s enforces MTA-STS, and %s is in its policy", q.Domain, q.Host)
	case found == daneUnusable:
		d.Level = Encrypted
		d.Explain = fmt.Sprintf("%s has no usable one among its TLSA records", q.Host)
	default:
		d.Explain = fmt.Sprintf("%s has neither DANE nor an enforced MTA-STS policy", q.Domain)
	}
	if len(d.Applied) == 0 {
		d.Applied = []Applied{{Type: NoPolicy, Domain: d.domain}}
	}
	if q.RequireTLS && d.Failure == nil {
		d.require(q, sts)
	}
	return d
}

// sts finds the policy of the domain and whether the server is in it.
func (p *Policies) sts(ctx context.Context, d *Decision, q Query) *STSPolicy {
	if p.cfg.STS == nil {
		return nil
	}
	policy, trouble := p.cfg.STS.Policy(ctx, q.Domain)
	if trouble != nil {
		d.Troubles = append(d.Troubles, trouble)
	}
	if policy == nil || policy.Mode == ModeNone {
		return nil
	}
	d.Applied = append(d.Applied, policy.applied(q.Domain))
	if !policy.Matches(q.Host) {
		f := &Failure{Type: ValidationFailure, Policy: PolicySTS,
			Err: fmt.Errorf("%s is not in the MTA-STS policy of %s", q.Host, q.Domain)}
		if f.Enforced = policy.Mode == ModeEnforce; f.Enforced {
			d.Failure, d.Explain = f, f.Error()
		} else {
			d.Troubles = append(d.Troubles, f)
		}
		return nil
	}
	d.testing = policy.Mode == ModeTesting
	return policy
}

// require adds what REQUIRETLS demands: the server's name must be authentic, by DNSSEC or by a
// policy that lists it, and so must its certificate (RFC 8689, section 4.2.1).
func (d *Decision) require(q Query, sts *STSPolicy) {
	d.NeedsExtension = true
	if !q.Secure && sts == nil {
		d.Failure = &Failure{Type: ValidationFailure, Enforced: true, Permanent: true,
			Err: fmt.Errorf("the sender requires TLS, and neither DNSSEC nor MTA-STS says that %s "+
				"is a server of %s", q.Host, q.Domain)}
		d.Explain = d.Failure.Error()
		return
	}
	d.Level = max(d.Level, WebPKI)
	d.testing = false
	d.Explain += "; the sender requires TLS"
}

// TLSConfig returns a configuration for the connection, made from base, which may be nil. Its
// handshake fails with a *Failure where the certificate does not meet the level.
func (d *Decision) TLSConfig(base *tls.Config) *tls.Config {
	cfg := new(tls.Config)
	if base != nil {
		cfg = base.Clone()
	}
	if cfg.MinVersion == 0 {
		cfg.MinVersion = tls.VersionTLS12 // RFC 8996
	}
	// RFC 7672, section 8.1: the TLSA base domain; RFC 8461, section 7.1: the MX host.
	cfg.ServerName = d.host
	if len(d.names) > 0 {
		cfg.ServerName = d.names[0]
	}
	cfg.InsecureSkipVerify = true // Check below does it, by the rules of the level
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if d.Failure != nil {
			return d.Failure // the caller should not have come here
		}
		if f := d.Check(cs); f != nil && f.Enforced {
			return f
		}
		return nil
	}
	return cfg
}

// Check judges the certificate of a connection. What it finds under a policy in testing mode is
// only to be reported; what is enforced TLSConfig has refused already.
func (d *Decision) Check(cs tls.ConnectionState) *Failure {
	var f *Failure
	switch {
	case d.Level == DANE:
		f = d.checkDANE(cs.PeerCertificates)
	case d.Level == WebPKI || d.testing:
		f = d.checkWebPKI(cs.PeerCertificates)
	}
	if f != nil {
		f.Policy, f.Enforced = d.violated(), d.Level >= WebPKI
	}
	return f
}

// violated is the policy that a failure is against: the one that made the level.
func (d *Decision) violated() PolicyType {
	want := PolicySTS
	if d.Level == DANE || d.Level == Encrypted {
		want = PolicyTLSA
	}
	for _, a := range d.Applied {
		if a.Type == want {
			return want
		}
	}
	return ""
}

func (d *Decision) checkWebPKI(chain []*x509.Certificate) *Failure {
	if len(chain) == 0 {
		return &Failure{Type: ValidationFailure, Err: errors.New("no certificate")}
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		DNSName:       d.host,
		Roots:         d.roots,
		Intermediates: pool(chain[1:]),
		CurrentTime:   d.now(),
	})
	if err != nil {
		return &Failure{Type: classify(err), Err: fmt.Errorf("certificate of %s: %w", d.host, err)}
	}
	return nil
}

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

// Plaintext is the failure of a server that does not offer STARTTLS. Where nothing but
// opportunity asks for TLS it is not enforced, and only a number in a report.
func (d *Decision) Plaintext() *Failure {
	if d.Failure != nil {
		return d.Failure
	}
	return &Failure{
		Type:      StartTLSNotSupported,
		Policy:    d.violated(),
		Enforced:  d.Level >= Encrypted,
		Permanent: d.NeedsExtension,
		Err:       fmt.Errorf("%s does not offer STARTTLS: %s", d.host, d.Explain)}
}

// WithoutExtension is the failure of a server that does not offer REQUIRETLS to a message that
// needs it.
func (d *Decision) WithoutExtension() *Failure {
	if !d.NeedsExtension {
		return nil
	}
	return &Failure{Type: ValidationFailure, Enforced: true, Permanent: true,
		Err: fmt.Errorf("%s does not offer REQUIRETLS, which the sender requires", d.host)}
}

// Waived says whether a message has the field "TLS-Required: No" (RFC 8689, section 3), and none
// with another value: no other is defined, and protection is not taken away on a doubt.
func Waived(h mail.Header) bool {
	fields := h.All("TLS-Required")
	for _, f := range fields {
		if !strings.EqualFold(f.Value(), "no") {
			return false
		}
	}
	return len(fields) > 0
}

// Failure is why a server or policy does not do.
type Failure struct {
	Type   ResultType
	Policy PolicyType // the policy that was violated; empty where it was none in particular
	// Enforced says that the server must not be used because of it. Else it is only to be reported.
	Enforced bool
	// Permanent says that it is no use to try again: the sender's demand cannot be met.
	Permanent bool
	Err       error
}

// Error returns the reason, in one line: a certificate may have anything for a name.
func (f *Failure) Error() string { return oneLine(f.Err.Error()) }

// Unwrap returns the reason.
func (f *Failure) Unwrap() error { return f.Err }

// classify finds the word of RFC 8460, section 4.3, for what is wrong with a certificate.
func classify(err error) ResultType {
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	var authority x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return CertificateExpired
	case errors.As(err, &host):
		return CertificateHostMismatch
	case errors.As(err, &authority):
		return CertificateNotTrusted
	}
	return ValidationFailure
}
