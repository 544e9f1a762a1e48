package reporting

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/dmarc"
	"github.com/tallypost/tallypost/mail/tlspolicy"
)

// sendDue sends what is due and reports whether there was anything.
func (s *Sender) sendDue(ctx context.Context, now time.Time, out Outbox) (any bool) {
	for len(s.pending) > 0 && !s.pending[0].Due.After(now) && ctx.Err() == nil {
		any = true
		j := s.pending[0]
		done, err := s.send(ctx, j, now, out)
		j.Done = append(j.Done, done...)
		switch {
		case err == nil:
			s.pending = s.pending[1:]
		case now.After(j.Until):
			s.log.Warn("report given up", "kind", j.kind(), "domain", j.Domain, "err", err)
			s.pending = s.pending[1:]
		default:
			s.log.Info("report waits", "kind", j.kind(), "domain", j.Domain, "err", err)
			j.Due = now.Add(retryEvery)
			s.sort()
		}
	}
	return any
}

// place is somewhere a report goes.
type place struct {
	name  string // as the record has it, to know it again
	mail  mail.Address
	https string
	err   error // why nothing goes there; one that may pass is tried again
}

// sendTimeout bounds one attempt at one report.
const sendTimeout = 2 * time.Minute

// send makes one attempt at a report, and returns the places that are done with. An error means
// that there are others, and that it is worth another attempt.
func (s *Sender) send(ctx context.Context, j *job, now time.Time, out Outbox) (done []string,
	err error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	places, err := s.places(ctx, j)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, p := range places {
		if slices.Contains(j.Done, p.name) || slices.Contains(done, p.name) {
			continue
		}
		err := p.err
		switch {
		case err != nil:
		case p.https != "":
			err = j.TLS.Post(ctx, s.cfg.Client, p.https)
		default:
			err = s.mail(ctx, j, p.mail, now, out)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
			continue
		}
		s.log.Info("report sent", "kind", j.kind(), "domain", j.Domain, "to", p.name)
		done = append(done, p.name)
	}
	return done, errors.Join(errs...)
}

// places asks the DNS where a report goes now. A place that did not agree is left out: nobody is
// flooded with reports by somebody else's record (RFC 9990, section 4).
func (s *Sender) places(ctx context.Context, j *job) ([]place, error) {
	if j.TLS != nil {
		return s.tlsPlaces(ctx, j.Domain)
	}
	var out []place
	for _, d := range dmarc.Destinations(ctx, s.resolver, j.Domain, j.DMARC.To) {
		p := place{name: d.URI.Raw, mail: d.URI.Address}
		if d.Err != nil && !errors.Is(d.Err, dns.ErrTemporary) {
			s.log.Info("report not sent", "kind", j.kind(), "domain", j.Domain, "to", d.URI.Raw,
				"err", d.Err)
			continue
		}
		p.err = d.Err
		out = append(out, p)
	}
	return out, nil
}

func (s *Sender) tlsPlaces(ctx context.Context, domain string) ([]place, error) {
	places, err := tlspolicy.LookupRecord(ctx, s.resolver, domain)
	if errors.Is(err, tlspolicy.ErrNoRecord) {
		return nil, nil // most domains: nobody asks for a report
	}
	var out []place
	for _, p := range places {
		name := p.HTTPS
		if name == "" {
			name = "mailto:" + p.Mail.String()
		}
		out = append(out, place{name: name, mail: p.Mail, https: p.HTTPS})
	}
	return out, err
}

// errUnsigned makes reports wait.
var errUnsigned = errors.New("nobody signs for our domain yet: see `tallypost dkim list`")

// mail puts a report into the queue, signed.
func (s *Sender) mail(ctx context.Context, j *job, to mail.Address, now time.Time,
	out Outbox) error {
	signer := s.cfg.Sign(s.cfg.Domain)
	if signer == nil {
		return errUnsigned
	}
	var text []byte
	var err error
	if j.TLS != nil {
		text, err = j.TLS.Mail(s.from(), to, s.cfg.Domain.ASCII(), now)
	} else {
		text, err = j.DMARC.Report.Mail(s.from(), to, s.cfg.Domain.ASCII(), now)
	}
	if err != nil {
		return err
	}
	fields, err := signer.Sign(text, now)
	if err != nil {
		return err
	}
	header, err := mail.ParseHeader(text)
	if err != nil {
		return err
	}
	msg := out.NewMessage()
	defer msg.Abort()
	if _, err := msg.Write(text); err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	env := mail.Envelope{Recipients: []mail.Recipient{{Address: to, Notify: mail.NotifyNever}}}
	_, err = msg.Commit(ctx, fields, env, mail.Event{
		Kind: mail.SubmissionAcceptance, MessageID: header.Get("Message-ID"), Size: int64(len(text)),
		SHA256: hex.EncodeToString(sum[:]), Note: j.kind() + " about " + j.Domain,
	})
	return err
}
