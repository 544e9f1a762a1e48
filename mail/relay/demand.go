package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/smtp"
	"github.com/tallypost/tallypost/mail/tlspolicy"
)

// demand is what a connection must show before a message of one kind goes over it. The zero value
// demands nothing and tries no TLS.
type demand struct {
	decision *tlspolicy.Decision // nil for a transport

	config    *tls.Config // nil: no TLS at all
	implicit  bool        // TLS from the first octet on
	must      bool        // nothing is sent in the clear
	extension bool        // the server must offer REQUIRETLS
	waived    bool        // the sender said TLS-Required: No
	explain   string      // why, for people
}

// demand finds out what a message of d to one host of the destination demands.
func (a *attempt) demand(ctx context.Context, host string) *demand {
	if t := a.dest.transport; t != nil {
		return t.demand(a.r, a.d.Envelope.RequireTLS)
	}
	for _, known := range a.demands {
		if known.host == host {
			return known.demand
		}
	}
	q := tlspolicy.Query{Domain: a.dest.domain, Host: host, Secure: a.dest.secure, Port: a.dest.port,
		RequireTLS: a.d.Envelope.RequireTLS}
	dec := a.r.policies.Decide(ctx, q)
	// They have offered TLS for years: without it somebody stands in between.
	known := a.dest.provider != nil && a.dest.provider.encrypted
	strict := known || dec.Failure != nil || dec.Level > tlspolicy.Opportunistic
	if strict && !q.RequireTLS && waived(a.d) {
		q.Waived = true
		dec = a.r.policies.Decide(ctx, q)
	}
	d := &demand{decision: dec, must: dec.Level > tlspolicy.Opportunistic,
		extension: dec.NeedsExtension, waived: q.Waived, explain: dec.Explain}
	if known && !d.must && !q.Waived {
		d.must, d.explain = true, a.dest.provider.name+" is known to offer TLS"
	}
	d.config = dec.TLSConfig(&tls.Config{ClientSessionCache: a.r.sessions, Time: a.r.clock.Now})
	a.demands = append(a.demands, hostDemand{host, d})
	return d
}

type hostDemand struct {
	host   string
	demand *demand
}

// maxFieldScan is how much of a header is searched for TLS-Required.
const maxFieldScan = 256 << 10

// waived reports whether the sender would rather have the message delivered than protected (RFC
// 8689, section 5).
func waived(d *queue.Delivery) bool {
	return tlspolicy.Waived(headerOf(d))
}

// headerOf reads the header section of a message, as far as it is there and well formed.
func headerOf(d *queue.Delivery) mail.Header {
	b := make([]byte, min(d.Size, maxFieldScan))
	n, err := d.Body.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return mail.Header{}
	}
	h, _ := mail.ParseHeader(b[:n])
	return h
}

// protectionError says that a connection does not show what is demanded of it.
type protectionError struct {
	status    string // "7.4": the detail of RFC 3463
	permanent bool
	err       error
}

func (e *protectionError) Error() string { return e.err.Error() }
func (e *protectionError) Unwrap() error { return e.err }

// unmet is the error for a failure of the policy. A permanent one is the sender's demand, for which
// RFC 8689 has a code of its own.
func unmet(f *tlspolicy.Failure, status string) error {
	if f.Permanent {
		status = "7.30"
	}
	return &protectionError{status: status, permanent: f.Permanent, err: f}
}

// barred is the error where the policy excludes a host before any connection.
func (d *demand) barred() error {
	if d.decision == nil || d.decision.Failure == nil {
		return nil
	}
	return unmet(d.decision.Failure, "7.5")
}

// metBy judges a connection that is up: what is to be reported of its TLS, and why it does not do.
func (d *demand) metBy(c *smtp.Client) (seen *tlspolicy.Failure, err error) {
	state := c.TLS()
	if d.decision != nil {
		if seen = d.decision.Plaintext(); state != nil {
			seen = d.decision.Check(*state)
		}
		if seen != nil && seen.Enforced && state == nil {
			return seen, unmet(seen, "7.4")
		}
		if seen != nil && seen.Enforced {
			return seen, unmet(seen, "7.5")
		}
	}
	switch {
	case d.must && state == nil:
		return seen, &protectionError{status: "7.4",
			err: fmt.Errorf("the server offers no TLS: %s", d.explain)}
	case d.extension && !c.Extensions().RequireTLS && d.decision != nil:
		f := d.decision.WithoutExtension()
		return f, unmet(f, "7.30")
	case d.extension && !c.Extensions().RequireTLS:
		return nil, &protectionError{status: "7.30", permanent: true, err: smtp.ErrNeedsTLS}
	}
	return seen, nil
}
