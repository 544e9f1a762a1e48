package tlspolicy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
)

// maxPlaces is how many places of a record get a report.
const maxPlaces = 10

// ErrNoRecord is the error for text that is no TLSRPT record, or for a domain that has none.
var ErrNoRecord = errors.New("no TLSRPT record")

// Place is where a domain wants reports: one of the two is set.
type Place struct {
	Mail  mail.Address
	HTTPS string
}

// ParseRecord reads a TXT record of _smtp._tls.DOMAIN (RFC 8460, section 3). A place that is
// neither mailto nor https is passed over.
func ParseRecord(s string) ([]Place, error) {
	if len(s) > maxRecord {
		return nil, fmt.Errorf("%w: longer than %d octets", ErrNoRecord, maxRecord)
	}
	fields := strings.Split(s, ";")
	if strings.TrimRight(fields[0], " \t") != "v=TLSRPTv1" {
		return nil, fmt.Errorf("%w: does not begin with v=TLSRPTv1", ErrNoRecord)
	}
	var places []Place
	found := false
	for i, f := range fields[1:] {
		f = strings.Trim(f, " \t")
		if f == "" && i == len(fields)-2 {
			continue // the delimiter at the end
		}
		name, value, ok := strings.Cut(f, "=")
		name = strings.TrimRight(name, " \t")
		if !ok || !isFieldName(name) {
			return nil, fmt.Errorf("%w: %.60q is no field", ErrNoRecord, f)
		}
		if name != "rua" {
			continue // an extension
		}
		if found {
			return nil, fmt.Errorf("%w: two rua", ErrNoRecord)
		}
		found = true
		for uri := range strings.SplitSeq(value, ",") {
			if p, ok := parsePlace(strings.Trim(uri, " \t")); ok && len(places) < maxPlaces {
				places = append(places, p)
			}
		}
	}
	if len(places) == 0 {
		return nil, fmt.Errorf("%w: no place for reports", ErrNoRecord)
	}
	return places, nil
}

func parsePlace(s string) (Place, bool) {
	u, err := url.Parse(s)
	if err != nil {
		return Place{}, false
	}
	switch u.Scheme {
	case "https":
		return Place{HTTPS: s}, u.Host != "" && u.User == nil
	case "mailto":
		text, err := url.PathUnescape(u.Opaque)
		if err != nil {
			return Place{}, false
		}
		a, err := mail.ParseAddress(text)
		if _, literal := a.Domain.Literal(); err != nil || a.Domain == "" || literal {
			return Place{}, false
		}
		return Place{Mail: a}, true
	}
	return Place{}, false
}

// LookupRecord returns where a domain wants reports. The error is ErrNoRecord where it has no
// record, or more than one, and dns.ErrTemporary where it cannot be known now.
func LookupRecord(ctx context.Context, r dns.Resolver, domain string) ([]Place, error) {
	texts, _, err := r.TXT(ctx, "_smtp._tls."+domain)
	if err != nil {
		if errors.Is(err, dns.ErrNotFound) {
			return nil, fmt.Errorf("%w: %w", ErrNoRecord, err)
		}
		return nil, err
	}
	var places []Place
	err = ErrNoRecord
	n := 0
	for _, t := range texts {
		if strings.HasPrefix(t, "v=TLSRPTv1") {
			places, err = ParseRecord(t)
			n++
		}
	}
	if n > 1 {
		return nil, fmt.Errorf("%w: %d of them", ErrNoRecord, n)
	}
	return places, err
}

// Post sends the report to a place that wants it by HTTPS (RFC 8460, section 5.4). The client
// verifies certificates or not: "the report's sender MAY ignore" a failure there.
func (r *Report) Post(ctx context.Context, client *http.Client, place string) error {
	file, err := r.JSON()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, place, bytes.NewReader(file))
	if err != nil {
		return fmt.Errorf("TLS report about %s: %w", r.Domain, err)
	}
	req.Header.Set("Content-Type", "application/tlsrpt+gzip")
	once := *client
	once.CheckRedirect = noRedirect // who wants it elsewhere can say so in the record
	resp, err := once.Do(req)
	if err != nil {
		return fmt.Errorf("TLS report about %s: %w", r.Domain, err)
	}
	defer resp.Body.Close()
	// Read a little, so that the connection can be used again.
	_, _ = io.CopyN(io.Discard, resp.Body, 4096)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("TLS report about %s: %s answers %q", r.Domain, place, resp.Status)
	}
	return nil
}
