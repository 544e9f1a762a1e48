package intake

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/smtp"
)

// Rule is what the operator decides about some mail from outside, whatever the points say. All that a rule
// names must hold; the first rule that holds is the one that counts. Mail to postmaster and abuse is not refused:
// who is refused by mistake must be able to say so (RFC 5321, section 4.5.1).
type Rule struct {
	// Clients are the addresses that it is about; none: all.
	Clients []netip.Prefix
	// Senders are the reverse paths that it is about; none: all.
	Senders []Pattern
	// Recipients are those that it is about, as the client names them; none: all. A rule with
	// Recipients decides about each of them, so its Action is RuleRefuse or RuleDefer.
	Recipients []Pattern
	// Header is looked for in each field of the header, unfolded: "Subject: hello"; nil: it is not looked at.
	Header *regexp.Regexp
	Action RuleAction
	// Text is what the client and the reader of a verdict are told; empty: that there is a rule.
	Text string
}

// RuleAction is what a Rule does.
type RuleAction string

// The actions.
const (
	RuleRefuse RuleAction = "refuse" // with 550
	RuleDefer  RuleAction = "defer"  // with 450
	RuleJunk   RuleAction = "junk"   // take it, into the folder Junk
	// RuleAccept takes the message whatever its points, lists of addresses and the greylist say. A failure
	// of DMARC it lifts only where it names Clients, for anybody can name a sender.
	RuleAccept RuleAction = "accept"
)

// Check reports what is wrong with a rule.
func (r *Rule) Check() error {
	switch r.Action {
	case RuleRefuse, RuleDefer, RuleJunk, RuleAccept:
	default:
		return fmt.Errorf("action %q is none of refuse, defer, junk and accept", r.Action)
	}
	switch {
	case len(r.Clients) == 0 && len(r.Senders) == 0 && len(r.Recipients) == 0 && r.Header == nil:
		return errors.New("names neither clients, senders, recipients nor header: it would be about all mail")
	case len(r.Recipients) > 0 && r.Header != nil:
		return errors.New("recipients and header exclude each other: a header concerns all recipients")
	case len(r.Recipients) > 0 && (r.Action == RuleJunk || r.Action == RuleAccept):
		return errors.New("recipients go with refuse and defer: " + string(r.Action) + " concerns the whole message")
	}
	return nil
}

// reply is the refusal of a rule; nil where it refuses nothing.
func (r *Rule) reply() *smtp.Reply {
	switch r.Action {
	case RuleRefuse:
		return refuse(550, "5.7.1", "%s", r.words())
	case RuleDefer:
		return refuse(450, "4.7.1", "%s", r.words())
	}
	return nil
}

func (r *Rule) words() string {
	if r.Text == "" {
		return "refused by a rule of this server"
	}
	return r.Text
}

// holds reports whether a rule is about a recipient of a message, or about the message once its header is
// there.
func (r *Rule) holds(ip netip.Addr, from mail.Address, to *mail.Address, h *mail.Header) bool {
	switch {
	case len(r.Clients) > 0 && !inside(r.Clients, ip),
		len(r.Senders) > 0 && !matches(r.Senders, from),
		len(r.Recipients) > 0 && (to == nil || !matches(r.Recipients, *to)):
		return false
	case r.Header == nil:
		return true
	case h == nil:
		return false
	}
	for _, f := range h.Fields {
		if r.Header.MatchString(f.Name() + ": " + f.Value()) {
			return true
		}
	}
	return false
}

// ruling returns the first rule that holds; nil for none. to is nil when it is about the whole message, and h
// before that has come.
func (in *Intake) ruling(ip netip.Addr, from mail.Address, to *mail.Address, h *mail.Header) *Rule {
	for i := range in.cfg.Rules {
		if r := &in.cfg.Rules[i]; r.holds(ip.Unmap(), from, to, h) {
			return r
		}
	}
	return nil
}

func inside(networks []netip.Prefix, ip netip.Addr) bool {
	for _, p := range networks {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

func matches(list []Pattern, a mail.Address) bool {
	for _, p := range list {
		if p.matches(a) {
			return true
		}
	}
	return false
}

// Pattern names addresses.
type Pattern struct {
	local  string // empty: every one of the domain
	domain mail.Domain
	below  bool // the domains below it
	null   bool // the null reverse path
}

// ParsePattern reads "ann@example.org", "example.org" for all of a domain, ".example.org" for all domains below
// it, and "<>" for the null reverse path.
func ParsePattern(s string) (p Pattern, err error) {
	switch {
	case s == "<>":
		return Pattern{null: true}, nil
	case strings.LastIndexByte(s, '@') > 0:
		a, err := mail.ParseAddress(s)
		return Pattern{local: a.Local, domain: a.Domain}, err
	case strings.HasPrefix(s, "."):
		p.below = true
	}
	p.domain, err = mail.ParseDomain(strings.TrimLeft(s, ".@"))
	return p, err
}

func (p Pattern) matches(a mail.Address) bool {
	switch {
	case p.null || a.IsNull():
		return p.null && a.IsNull()
	case p.below:
		return strings.HasSuffix(string(a.Domain), "."+string(p.domain))
	}
	return a.Domain == p.domain && (p.local == "" || strings.EqualFold(a.Local, p.local))
}
