package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
)

// List is a list of addresses in the DNS (RFC 5782): of those that have sent spam, or of good ones.
type List struct {
	Zone string // "zen.example.net"
	// Points are added to the verdict on mail from an address that is listed; those of a list of good
	// ones are negative.
	Points float64
	// Answers are those that count: patterns as "127.0.0.2", "127.0.0.4-7" and "127.0.*.1-3". Empty:
	// all of 127.0.0.2 to 127.0.0.255. Two Lists may have one zone with different answers: it is asked
	// once.
	Answers []string
}

// maxLists bounds what one connection asks the DNS.
const maxLists = 20

// lists are all Lists, by zone.
type lists struct {
	zones    []*listZone
	resolver dns.Resolver
	log      *slog.Logger
}

// listZone is a zone and what its answers are worth.
type listZone struct {
	name   string
	counts []listCount
	// healthy is whether the zone may be believed: a list that is shut down often answers for every
	// address there is. It is not before the first check.
	healthy atomic.Bool
}

type listCount struct {
	answers []answerPattern
	points  float64
}

// listing is what a zone says of an address.
type listing struct {
	zone   *listZone
	answer netip.Addr
	points float64
}

func newLists(cfg []List, r dns.Resolver, log *slog.Logger) (*lists, error) {
	l := &lists{resolver: r, log: log}
	for _, c := range cfg {
		d, err := mail.ParseDomain(c.Zone)
		if err != nil {
			return nil, fmt.Errorf("list: %w", err)
		}
		count := listCount{points: c.Points}
		if len(c.Answers) == 0 {
			c.Answers = []string{"127.0.0.2-255"}
		}
		for _, a := range c.Answers {
			p, err := parseAnswer(a)
			if err != nil {
				return nil, fmt.Errorf("list %s: %w", d, err)
			}
			count.answers = append(count.answers, p)
		}
		z := l.zone(d.ASCII())
		z.counts = append(z.counts, count)
	}
	if len(l.zones) > maxLists {
		return nil, fmt.Errorf("%d lists: at most %d can be asked", len(l.zones), maxLists)
	}
	return l, nil
}

func (l *lists) zone(name string) *listZone {
	for _, z := range l.zones {
		if z.name == name {
			return z
		}
	}
	z := &listZone{name: name}
	l.zones = append(l.zones, z)
	return z
}

func (l *lists) any() bool { return len(l.zones) > 0 }

// ask asks all zones about an address, at the same time. One that does not answer has no opinion.
func (l *lists) ask(ctx context.Context, ip netip.Addr) []listing {
	var asked []*pending[[]listing]
	for _, z := range l.zones {
		if z.healthy.Load() {
			asked = append(asked, find(func() []listing { return l.askOne(ctx, z, ip) }))
		}
	}
	var out []listing
	for _, a := range asked {
		out = append(out, a.get()...)
	}
	return out
}

func (l *lists) askOne(ctx context.Context, z *listZone, ip netip.Addr) []listing {
	answers, err := dns.V4(ctx, l.resolver, listName(ip, z.name))
	if err != nil {
		l.log.Debug("list does not answer", "zone", z.name, "err", err)
		return nil
	}
	if blocked(answers) {
		if z.healthy.Load() { // one of many connections says so
			l.distrust(z, "it refuses to answer us: "+answers[0].String())
		}
		return nil
	}
	var out []listing
	for _, c := range z.counts {
		if a, ok := c.match(answers); ok {
			out = append(out, listing{zone: z, answer: a, points: c.points})
		}
	}
	return out
}

// match returns the first answer that counts.
func (c *listCount) match(answers []netip.Addr) (netip.Addr, bool) {
	for _, a := range answers {
		for _, p := range c.answers {
			if p.matches(a) {
				return a, true
			}
		}
	}
	return netip.Addr{}, false
}

// blocked reports whether answers are an error code in disguise: 127.255.255.0/24 is what lists say to
// who asks too much, or through a public resolver.
func blocked(answers []netip.Addr) bool {
	for _, a := range answers {
		if b := a.As4(); b[0] == 127 && b[1] == 255 && b[2] == 255 {
			return true
		}
	}
	return false
}

// listName is the name of an address in a zone (RFC 5782, sections 2.1 and 2.4).
func listName(ip netip.Addr, zone string) string {
	if ip = ip.Unmap(); ip.Is4() {
		b := ip.As4()
		return fmt.Sprintf("%d.%d.%d.%d.%s", b[3], b[2], b[1], b[0], zone)
	}
	const digits = "0123456789abcdef"
	b := ip.As16()
	name := make([]byte, 0, 64+len(zone))
	for i := len(b) - 1; i >= 0; i-- {
		name = append(name, digits[b[i]&15], '.', digits[b[i]>>4], '.')
	}
	return string(append(name, zone...))
}

// The addresses that every list answers for, and that none does (RFC 5782, section 5).
var (
	testListed   = netip.AddrFrom4([4]byte{127, 0, 0, 2})
	testUnlisted = netip.AddrFrom4([4]byte{127, 0, 0, 1})
)

// check finds out which zones can be believed. It reports whether all could be asked.
func (l *lists) check(ctx context.Context) bool {
	all := true
	for _, z := range l.zones {
		listed, err1 := dns.V4(ctx, l.resolver, listName(testListed, z.name))
		unlisted, err2 := dns.V4(ctx, l.resolver, listName(testUnlisted, z.name))
		switch err := errors.Join(err1, err2); {
		case err != nil: // nothing is known; what was believed before is
			all = false
			l.log.Warn("list cannot be checked", "zone", z.name, "err", err)
		case len(unlisted) > 0:
			l.distrust(z, "it answers for 127.0.0.1, as one that lists the whole world")
		case blocked(listed):
			l.distrust(z, "it refuses to answer us: "+listed[0].String())
		case len(listed) == 0:
			l.distrust(z, "it does not answer for 127.0.0.2, as one that has been shut down")
		default:
			if !z.healthy.Swap(true) {
				l.log.Info("list is used", "zone", z.name)
			}
		}
	}
	return all
}

// distrust leaves a zone out until the next check.
func (l *lists) distrust(z *listZone, why string) {
	z.healthy.Store(false)
	l.log.Warn("list is ignored", "zone", z.name, "why", why)
}

// words returns what a zone has to say about an address to its owner; empty where it is silent.
func (l *lists) words(ctx context.Context, z *listZone, ip netip.Addr) string {
	txts, _, err := l.resolver.TXT(ctx, listName(ip, z.name))
	if err != nil || len(txts) == 0 {
		return ""
	}
	return clip(ascii(txts[0]))
}

// refuseListed refuses a client that would be refused for what the lists say alone, whatever it
// sends.
func (in *Intake) refuseListed(ctx context.Context, h *host) error {
	limit := in.cfg.Thresholds.Reject
	var sum float64
	var worst listing
	for _, l := range h.listings() {
		sum += l.points
		if l.points > worst.points {
			worst = l
		}
	}
	if limit <= 0 || sum < limit || worst.zone == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, in.dnsTimeout)
	defer cancel()
	words := in.lists.words(ctx, worst.zone, h.ip)
	if words != "" {
		words = ": " + words
	}
	return refuse(554, "5.7.1", "%s is listed by %s (%s)%s", h.ip, worst.zone.name, worst.answer, words)
}

// answerPattern matches the four octets of an answer.
type answerPattern [4]struct{ from, to byte }

func (p answerPattern) matches(a netip.Addr) bool {
	for i, b := range a.As4() {
		if b < p[i].from || b > p[i].to {
			return false
		}
	}
	return true
}

// parseAnswer reads a pattern: four numbers, ranges or asterisks with dots between them.
func parseAnswer(s string) (p answerPattern, err error) {
	parts := strings.Split(s, ".")
	if len(parts) != len(p) {
		return p, fmt.Errorf("answer %q: want four numbers, as 127.0.0.2 or 127.0.0.4-7", s)
	}
	for i, part := range parts {
		if part == "*" {
			p[i].to = 255
			continue
		}
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		from, err1 := strconv.ParseUint(low, 10, 8)
		to, err2 := strconv.ParseUint(high, 10, 8)
		if err1 != nil || err2 != nil || to < from {
			return p, fmt.Errorf("answer %q: %q is no number or range from 0 to 255", s, part)
		}
		p[i].from, p[i].to = byte(from), byte(to)
	}
	return p, nil
}
