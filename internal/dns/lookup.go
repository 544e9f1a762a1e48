package dns

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	miekg "github.com/miekg/dns"
)

// Limits on one answer.
const (
	// maxRecords is how many records of the type asked for are used; Postfix has the same cap.
	// What is beyond it is dropped, MX by preference.
	maxRecords = 100
	// maxAliases is the length of a chain of CNAMEs that is followed.
	maxAliases = 10
)

// asker answers one question: a canonical name and a type. Client and Zone are askers; everything
// that turns records into the types of this package is shared.
type asker interface {
	ask(ctx context.Context, name string, qtype uint16) (*answer, error)
}

// answer is what one question brought. It is shared by all who asked and by the cache: never
// changed.
type answer struct {
	records []miekg.RR // of the type asked for, owned by target
	target  string     // the name at the end of the chain of aliases, canonical
	auth    bool       // a trusted resolver authenticated every link of it
	missing bool       // target does not exist, not just the type
}

// err returns the error for an answer without records.
func (a *answer) err(name string, qtype uint16) error {
	switch {
	case len(a.records) > 0:
		return nil
	case a.missing:
		return fmt.Errorf("%s of %s: %w", miekg.TypeToString[qtype], hostname(name), ErrNXDomain)
	}
	return fmt.Errorf("%s of %s: %w", miekg.TypeToString[qtype], hostname(name), ErrNotFound)
}

// find asks for a name as a caller gave it, and returns an error where there is no record.
func find(ctx context.Context, a asker, name string, qtype uint16) (*answer, error) {
	n, err := canonical(name)
	if err != nil {
		return &answer{}, err
	}
	ans, err := a.ask(ctx, n, qtype)
	if err != nil {
		return &answer{}, err
	}
	return ans, ans.err(n, qtype)
}

func lookupMX(ctx context.Context, a asker, name string) ([]MX, bool, error) {
	ans, err := find(ctx, a, name, miekg.TypeMX)
	if err != nil {
		return nil, ans.auth, err
	}
	out := make([]MX, 0, len(ans.records))
	for _, rr := range ans.records {
		mx := rr.(*miekg.MX)
		out = append(out, MX{Preference: mx.Preference, Host: hostname(mx.Mx)})
	}
	slices.SortStableFunc(out, func(x, y MX) int { return cmp.Compare(x.Preference, y.Preference) })
	return out[:min(len(out), maxRecords)], ans.auth, nil
}

// lookupAddrs asks for AAAA and A at the same time. Where one of them fails the other still
// counts, but such an answer is not authenticated.
func lookupAddrs(ctx context.Context, a asker, name string) ([]netip.Addr, bool, error) {
	var v6 *answer
	var err6 error
	done := make(chan struct{})
	go func() {
		defer close(done)
		v6, err6 = find(ctx, a, name, miekg.TypeAAAA)
	}()
	v4, err4 := find(ctx, a, name, miekg.TypeA)
	<-done
	var out []netip.Addr
	for _, rr := range v6.records {
		if ip, ok := netip.AddrFromSlice(rr.(*miekg.AAAA).AAAA.To16()); ok {
			out = append(out, ip)
		}
	}
	for _, rr := range v4.records {
		if ip, ok := netip.AddrFromSlice(rr.(*miekg.A).A.To4()); ok {
			out = append(out, ip)
		}
	}
	auth := v4.auth && v6.auth
	switch {
	case len(out) > 0:
		return out[:min(len(out), maxRecords)], auth, nil
	case !errors.Is(err4, ErrNotFound):
		return nil, auth, err4
	}
	return nil, auth, err6
}

func lookupTXT(ctx context.Context, a asker, name string) ([]string, bool, error) {
	ans, err := find(ctx, a, name, miekg.TypeTXT)
	if err != nil {
		return nil, ans.auth, err
	}
	out := make([]string, 0, len(ans.records))
	for _, rr := range ans.records[:min(len(ans.records), maxRecords)] {
		var b strings.Builder
		for _, s := range rr.(*miekg.TXT).Txt {
			b.WriteString(unescape(s))
		}
		out = append(out, b.String())
	}
	return out, ans.auth, nil
}

func lookupTLSA(ctx context.Context, a asker, name string) ([]TLSA, bool, error) {
	ans, err := find(ctx, a, name, miekg.TypeTLSA)
	if err != nil {
		return nil, ans.auth, err
	}
	out := make([]TLSA, 0, len(ans.records))
	for _, rr := range ans.records[:min(len(ans.records), maxRecords)] {
		r := rr.(*miekg.TLSA)
		data, err := hex.DecodeString(r.Certificate)
		if err != nil {
			continue // only a zone text can have that; it is no association
		}
		out = append(out, TLSA{r.Usage, r.Selector, r.MatchingType, data})
	}
	return out, ans.auth, nil
}

// lookupPTR leaves out names with characters that no host name has.
func lookupPTR(ctx context.Context, a asker, ip netip.Addr) ([]string, bool, error) {
	arpa, err := miekg.ReverseAddr(ip.Unmap().WithZone("").String())
	if err != nil {
		return nil, false, fmt.Errorf("PTR of %v: %w", ip, err)
	}
	ans, err := find(ctx, a, arpa, miekg.TypePTR)
	if err != nil {
		return nil, ans.auth, err
	}
	var out []string
	for _, rr := range ans.records[:min(len(ans.records), maxRecords)] {
		if h := hostname(rr.(*miekg.PTR).Ptr); isHostname(h) {
			out = append(out, h)
		}
	}
	if len(out) == 0 {
		return nil, ans.auth, fmt.Errorf("PTR of %v: no name of a host: %w", ip, ErrNotFound)
	}
	return out, ans.auth, nil
}

// lookupCNAME reads the chain off the answer to a question for addresses, for that one is asked
// anyhow.
func lookupCNAME(ctx context.Context, a asker, name string) (string, bool, error) {
	ans, err := find(ctx, a, name, miekg.TypeA)
	if ans.missing || err != nil && !errors.Is(err, ErrNotFound) {
		return "", ans.auth, err
	}
	if ans.target == "" { // the name was refused before it was asked
		return "", false, err
	}
	return hostname(ans.target), ans.auth, nil
}

// unescape undoes the presentation form that the library keeps strings of TXT records in.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		if n, ok := decimal(s[i+1:]); ok {
			b.WriteByte(n)
			i += 3
			continue
		}
		i++
		b.WriteByte(s[i])
	}
	return b.String()
}

// decimal reads the three digits of an escaped octet.
func decimal(s string) (byte, bool) {
	if len(s) < 3 {
		return 0, false
	}
	n := 0
	for _, c := range []byte(s[:3]) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return byte(n), n < 256
}

// walk follows the aliases in a message from name, and returns where they end and what is there.
func walk(rrs []miekg.RR, name string, qtype uint16) (target string, found []miekg.RR, links int) {
	target = name
	for qtype != miekg.TypeCNAME && links <= maxAliases {
		next := ""
		for _, rr := range rrs {
			c, ok := rr.(*miekg.CNAME)
			if ok && miekg.CanonicalName(c.Hdr.Name) == target {
				next = miekg.CanonicalName(c.Target)
			}
		}
		if next == "" {
			break
		}
		target = next
		links++
	}
	for _, rr := range rrs {
		h := rr.Header()
		wanted := h.Rrtype == qtype && h.Class == miekg.ClassINET
		if wanted && miekg.CanonicalName(h.Name) == target {
			found = append(found, rr)
		}
	}
	return target, found, links
}
