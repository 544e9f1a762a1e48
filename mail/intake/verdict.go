package intake

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/dmarc"
	"github.com/tallypost/tallypost/mail/spf"
)

// VerdictField is the field in front of every message from outside that says what was thought of it
// and why:
//
//	X-Tallypost-Verdict: accept; score=0.5;
//		iprev=+1.5 (the address has no name that leads back to it);
//		dmarc=-1.0 (...)
//
// Its first word is "accept" or "junk"; delivery puts the message into the folder Junk where it says
// so, see IsJunk.
const VerdictField = "X-Tallypost-Verdict"

// IsJunk reports whether a message with this header is to be put into the folder Junk. It believes the first
// field: whatever a stranger or an account sent under that name was left out.
func IsJunk(h mail.Header) bool {
	word, _, _ := strings.Cut(h.Get(VerdictField), ";")
	return strings.TrimSpace(word) == "junk"
}

// Thresholds on the sum of all points. Zero takes the default.
type Thresholds struct {
	Junk   float64 // from here on into the folder Junk; default 5
	Reject float64 // from here on refused; default 12; negative: never
}

func (t *Thresholds) fill() {
	if t.Junk == 0 {
		t.Junk = 5
	}
	if t.Reject == 0 {
		t.Reject = 12
	}
}

// Reason is one observation and what it weighs: points above zero speak against the message, and
// zero is for what only needs to be known.
type Reason struct {
	Name   string // short and stable: "dmarc", "helo"
	Words  string // what was seen, for people
	Points float64
}

// Letter is a message from outside when it is weighed.
type Letter struct {
	Client   netip.Addr
	Host     string // name of Client that was confirmed; empty without one
	Helo     string // a claim
	Envelope mail.Envelope
	Header   mail.Header
	Size     int64
	// Start is the beginning of the body, up to Config.SampleBytes.
	Start []byte

	Author  string        // domain of From; empty where there is not one
	DMARC   dmarc.Result  // for Author
	Domains []mail.Domain // that vouch for the message, by DKIM first, then by SPF
}

// Weigher has an opinion of messages from outside: reputation, a content filter. It may be asked
// by many goroutines at a time.
type Weigher interface {
	// Weigh returns what speaks for or against a message that no rule has refused. A reason with
	// points below zero spares the message greylisting.
	Weigh(ctx context.Context, l *Letter) []Reason
}

// verdict is the sum of all reasons.
type verdict struct {
	reasons []Reason
	junk    bool // decided by a rule, whatever the points
	good    bool // somebody speaks for the sender
	welcome bool // a rule of the operator takes the message whatever the points
	known   bool // and knows the client by its address
}

// add adds a reason. What a stranger chose of the words cannot pass for another reason.
func (v *verdict) add(name string, points float64, format string, args ...any) {
	words := strings.ReplaceAll(clip(ascii(fmt.Sprintf(format, args...))), ";", ",")
	v.reasons = append(v.reasons, Reason{Name: name, Words: words, Points: points})
	v.good = v.good || points < 0
}

// clip shortens words that are too long for a line.
func clip(s string) string {
	const most = 300
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

func (v *verdict) points() float64 {
	var sum float64
	for _, r := range v.reasons {
		sum += r.Points
	}
	return sum
}

// explain returns the score and the reasons with sep between them, the weightiest first.
func (v *verdict) explain(sep string) string {
	rs := slices.Clone(v.reasons)
	slices.SortStableFunc(rs, func(a, b Reason) int {
		switch x, y := max(a.Points, -a.Points), max(b.Points, -b.Points); {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	b := fmt.Appendf(nil, "score=%.1f", v.points())
	for _, r := range rs {
		b = fmt.Appendf(b, "%s%s=%+.1f (%s)", sep, r.Name, r.Points, r.Words)
	}
	return string(b)
}

// String explains the verdict in one line.
func (v *verdict) String() string { return v.explain("; ") }

// field returns the field with its CRLF, a line for each reason.
func (v *verdict) field(t Thresholds) []byte {
	return []byte(VerdictField + ": " + v.word(t) + "; " + v.explain(";\r\n\t") + "\r\n")
}

func (v *verdict) word(t Thresholds) string {
	if !v.welcome && (v.junk || v.points() >= t.Junk) {
		return "junk"
	}
	return "accept"
}

// doubt is what spares a message its points, or does not.
type doubt struct {
	postmaster bool  // it goes to postmasters only
	rule       *Rule // that holds for it; nil: none
}

// obey notes what a rule of the operator has decided. Those that refuse come here only for postmasters.
func (v *verdict) obey(r *Rule) {
	if r == nil || r.reply() != nil {
		return
	}
	words := r.Text
	if words == "" {
		words = "a rule of this server"
	}
	v.add("rule", 0, "%s: %s", r.Action, words)
	v.junk = r.Action == RuleJunk
	v.welcome = r.Action == RuleAccept
	v.good = v.good || v.welcome
	v.known = v.welcome && len(r.Clients) > 0
}

// judge weighs what was found out about the sender, and refuses what a rule refuses. A message that goes to
// postmasters only is not refused for its points: they must hear of who is refused by mistake (RFC 5321,
// section 4.5.1).
func (in *Intake) judge(ctx context.Context, id *identity, listed []listing,
	l *Letter, d doubt) (*verdict, error) {
	if err := in.checkForm(id, l.Header); err != nil {
		return nil, err
	}
	v := new(verdict)
	v.obey(d.rule)
	if err := in.weighDMARC(v, id, l); err != nil {
		return nil, err
	}
	weighSPF(v, id)
	in.weighHost(v, id, listed, l)
	if d, err := mail.ParseDomain(id.author.Domain); err == nil && in.accounts.IsLocal(d) &&
		id.dmarc.Result == dmarc.None {
		// Where there is a record, DMARC has said what is to be said.
		v.add("own", 3, "it claims to be of %s, which is ours, and has no DMARC record to prove it by", d)
	}
	if id.author.Domain == "" {
		v.add("from", 4, "nobody has written it: %v", id.authorErr)
	}
	if n := len(l.Envelope.Recipients); l.Envelope.From.IsNull() && n > 1 {
		v.add("report", 3, "a report has one recipient, this one %d", n)
	}
	for _, w := range in.cfg.Weighers {
		for _, r := range w.Weigh(ctx, l) {
			v.add(r.Name, r.Points, "%s", r.Words)
		}
	}
	if t := in.cfg.Thresholds; t.Reject > 0 && v.points() >= t.Reject && !d.postmaster && !v.welcome {
		return nil, refuse(550, "5.7.1", "the message looks like spam: %s", v)
	}
	return v, nil
}

// weighDMARC does what the owner of the author's domain asks for, and tells him.
func (in *Intake) weighDMARC(v *verdict, id *identity, l *Letter) (err error) {
	applied, override := dmarc.PolicyNone, (*dmarc.Reason)(nil)
	switch id.dmarc.Result {
	case dmarc.Pass:
		v.add("dmarc", -1, "%s", id.dmarc.Explain)
	case dmarc.Fail:
		applied, override, err = in.dmarcFailed(v, id)
	case dmarc.TempError:
		if in.cfg.DMARC == DMARCEnforce && !v.known {
			return refuse(451, "4.4.3",
				"DMARC of %s cannot be checked now, try again later: %s", id.author.Domain,
				id.dmarc.Explain)
		}
		v.add("dmarc", 0, "%s", id.dmarc.Explain)
	}
	if in.cfg.Reports != nil && !in.isReport(l.Envelope) {
		in.cfg.Reports(&dmarc.Seen{Verdict: id.dmarc, Source: l.Client,
			EnvelopeFrom: l.Envelope.From.Domain.ASCII(), SPF: id.spfFor(), DKIM: id.dkimFor(),
			Applied: applied, Override: override})
	}
	return err
}

// isReport reports whether a message brings others' reports and nothing else. These are not reported in turn:
// else two servers would tell each other for ever that they had told each other.
func (in *Intake) isReport(env mail.Envelope) bool {
	for _, to := range env.Recipients {
		if in.cfg.Takes == nil || !in.cfg.Takes(to.Address) {
			return false
		}
	}
	return true
}

// dmarcFailed returns what is done with a message that fails, why that is not what the owner wants, and the
// refusal where it is.
func (in *Intake) dmarcFailed(v *verdict, id *identity) (dmarc.Policy, *dmarc.Reason, error) {
	wants := id.dmarc.Wants()
	if in.cfg.DMARC != DMARCEnforce && wants != dmarc.PolicyNone {
		v.add("dmarc", 2, "%s", id.dmarc.Explain)
		return dmarc.PolicyNone, &dmarc.Reason{Type: "local_policy", Comment: "only marked"}, nil
	}
	if v.known {
		v.add("dmarc", 0, "%s", id.dmarc.Explain)
		return dmarc.PolicyNone, &dmarc.Reason{Type: "local_policy", Comment: "a client that is known"}, nil
	}
	if sealer, ok := in.vouched(id); ok {
		v.add("arc", 0, "%s, which is trusted, says that it passed before it was forwarded: %s", sealer,
			id.dmarc.Explain)
		return dmarc.PolicyNone, &dmarc.Reason{Type: "local_policy",
			Comment: "arc=pass of " + sealer.ASCII()}, nil
	}
	points := 2.0
	if wants == dmarc.PolicyNone { // the owner only looks
		points = 1
	}
	switch v.add("dmarc", points, "%s", id.dmarc.Explain); wants {
	case dmarc.PolicyReject:
		return wants, nil, refuse(550, "5.7.26",
			"%s asks to refuse mail that neither SPF nor DKIM proves to be its own: %s. "+
				"Send through its servers or have it signed", id.author.Domain, id.dmarc.Explain)
	case dmarc.PolicyQuarantine:
		v.junk = true
	}
	return wants, nil, nil
}

// weighSPF counts SPF where DMARC does not say more.
func weighSPF(v *verdict, id *identity) {
	if id.dmarc.Result == dmarc.Pass {
		return
	}
	switch id.spf.Result {
	case spf.Fail:
		v.add("spf", 3, "%s does not allow this address: %s", id.spf.domain, id.spf.words())
	case spf.SoftFail:
		v.add("spf", 1, "%s rather does not allow this address: %s", id.spf.domain, id.spf.words())
	case spf.PermError:
		v.add("spf", 0.5, "the record of %s is broken: %s", id.spf.domain, id.spf.words())
	case spf.TempError:
		v.add("spf", 0, "%s cannot be asked now: %s", id.spf.domain, id.spf.words())
	}
}

// words are the owner's own, if there are any.
func (r spfResult) words() string {
	if r.Explanation != "" {
		return "it says " + r.Explanation
	}
	return r.Reason
}

// weighHost counts what speaks for or against the client, whoever it sends for.
func (in *Intake) weighHost(v *verdict, id *identity, listed []listing, l *Letter) {
	switch id.iprev.result {
	case "fail":
		v.add("iprev", 1.5, "the address has no name that leads back to it")
	case "temperror":
		v.add("iprev", 0, "the names of the address cannot be looked up now")
	}
	if in.isOurName(l.Helo) {
		v.add("helo", 3, "the client calls itself %s, which is us", l.Helo)
	}
	for _, at := range listed {
		v.add("list", at.points, "%s is listed by %s (%s)", l.Client, at.zone.name, at.answer)
	}
}

// isOurName reports whether a client uses our own name, as many programs that send spam do.
func (in *Intake) isOurName(helo string) bool {
	if strings.EqualFold(helo, in.cfg.Hostname) {
		return true
	}
	d, err := mail.ParseDomain(helo)
	return err == nil && in.accounts.IsLocal(d)
}

// checkForm refuses messages whose header two programs could read in two ways: they are made to show a
// person another author than a filter sees.
func (in *Intake) checkForm(id *identity, h mail.Header) error {
	switch {
	case errors.Is(id.authorErr, dmarc.ErrManyFrom):
		return refuse(550, "5.6.0", "the message has more than one From field (RFC 5322, section 3.6)")
	case errors.Is(id.authorErr, dmarc.ErrBadFrom) && h.Get("From") != "":
		// An empty one, as test programs send it, deceives nobody.
		return refuse(550, "5.6.0", "%v (RFC 5322, section 3.6.2)", id.authorErr)
	case errors.Is(id.authorErr, dmarc.ErrManyAuthors):
		return refuse(550, "5.7.1", "%v: nobody can answer for them all", id.authorErr)
	}
	for _, name := range onlyOnce {
		if n := len(h.All(name)); n > 1 {
			return refuse(550, "5.6.0", "the message has %d %s fields (RFC 5322, section 3.6)", n, name)
		}
	}
	return nil
}

// onlyOnce are fields of which there may be one, and of which two are used to deceive. Others that
// are doubled by faulty programs are let pass.
var onlyOnce = []string{"Subject", "Sender", "Reply-To", "Content-Type"}

// DMARCMode says what is done with the wishes of DMARC.
type DMARCMode string

// The modes; empty is DMARCEnforce.
const (
	DMARCEnforce DMARCMode = "enforce" // refuse and quarantine as the owner wants
	DMARCMark    DMARCMode = "mark"    // only count points
)
