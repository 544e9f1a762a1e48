package intake

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/dmarc"
	"github.com/tallypost/tallypost/mail/smtp"
)

// VerdictField is the field in front of every message from outside that says what was thought of it and
// why. Delivery puts the message into the folder Junk where it says so.
const VerdictField = "X-Tallypost-Verdict"

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

// reason is one observation and what it weighs: points above zero speak against the message.
type reason struct {
	name   string // short, stable: "dmarc", "helo"
	words  string // what was seen
	points float64
}

// verdict is the sum of all reasons.
type verdict struct {
	reasons []reason
	junk    bool // decided by a rule, whatever the points
}

func (v *verdict) add(name string, points float64, format string, args ...any) {
	v.reasons = append(v.reasons, reason{name, fmt.Sprintf(format, args...), points})
}

func (v *verdict) points() float64 {
	var sum float64
	for _, r := range v.reasons {
		sum += r.points
	}
	return sum
}

// String explains the verdict in one line, the weightiest reason first.
func (v *verdict) String() string {
	rs := slices.Clone(v.reasons)
	slices.SortStableFunc(rs, func(a, b reason) int {
		switch x, y := max(a.points, -a.points), max(b.points, -b.points); {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	var b strings.Builder
	fmt.Fprintf(&b, "score=%.1f", v.points())
	for _, r := range rs {
		fmt.Fprintf(&b, "; %s=%+.1f (%s)", r.name, r.points, r.words)
	}
	return b.String()
}

// field returns the field with its CRLF, folded between reasons.
func (v *verdict) field(t Thresholds) []byte {
	word := "accept"
	if v.isJunk(t) {
		word = "junk"
	}
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, v.String())
	return []byte(VerdictField + ": " + word + "; " + strings.ReplaceAll(text, "; ", ";\r\n\t") + "\r\n")
}

func (v *verdict) isJunk(t Thresholds) bool { return v.junk || v.points() >= t.Junk }

// judge weighs what was found out about the sender, and refuses what a rule refuses.
func (in *Intake) judge(id *identity, h mail.Header) (*verdict, error) {
	if err := in.checkForm(id, h); err != nil {
		return nil, err
	}
	v := new(verdict)
	switch id.dmarc.Result {
	case dmarc.Pass:
		v.add("dmarc", -1, "%s", id.dmarc.Explain)
	case dmarc.Fail:
		if err := in.dmarcFailed(v, id); err != nil {
			return nil, err
		}
	case dmarc.TempError:
		if in.cfg.DMARC == DMARCEnforce {
			return nil, refuse(451, "4.7.24", "DMARC of %s cannot be checked now, try again later: %s",
				id.author.Domain, id.dmarc.Explain)
		}
	}
	if id.dmarc.Result != dmarc.Pass {
		switch id.spf.result {
		case "fail":
			v.add("spf", 3, "%s does not allow this address", id.spf.domain)
		case "softfail":
			v.add("spf", 1, "%s rather does not allow this address", id.spf.domain)
		case "permerror":
			v.add("spf", 0.5, "the record of %s is broken", id.spf.domain)
		}
	}
	if id.iprev.result == "fail" {
		v.add("iprev", 1.5, "the address has no name that leads back to it")
	}
	if t := in.cfg.Thresholds; t.Reject > 0 && v.points() >= t.Reject {
		return nil, refuse(550, "5.7.1", "the message looks like spam: %s", v)
	}
	return v, nil
}

// dmarcFailed does what the owner of the author's domain asks for.
func (in *Intake) dmarcFailed(v *verdict, id *identity) error {
	v.add("dmarc", 2, "%s", id.dmarc.Explain)
	if in.cfg.DMARC != DMARCEnforce {
		return nil
	}
	switch id.dmarc.Wants() {
	case dmarc.PolicyReject:
		return refuse(550, "5.7.26", "%s asks to refuse mail that neither SPF nor DKIM proves to be its own: %s. "+
			"Send through its servers or have it signed", id.author.Domain, id.dmarc.Explain)
	case dmarc.PolicyQuarantine:
		v.junk = true
	}
	return nil
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
		return refuse(550, "5.7.1", "%v: %s: nobody can answer for them all",
			id.authorErr, strings.Join(id.author.Domains, ", "))
	}
	for _, name := range onlyOnce {
		if n := len(h.All(name)); n > 1 {
			return refuse(550, "5.6.0", "the message has %d %s fields (RFC 5322, section 3.6)", n, name)
		}
	}
	return nil
}

// onlyOnce are fields of which there may be one, and of which two are used to deceive. Others that are
// doubled by faulty programs are let pass.
var onlyOnce = []string{"Subject", "Sender", "Reply-To", "Content-Type"}

// DMARCMode says what is done with the wishes of DMARC.
type DMARCMode string

// The modes; empty is DMARCEnforce.
const (
	DMARCEnforce DMARCMode = "enforce" // refuse and quarantine as the owner wants
	DMARCMark    DMARCMode = "mark"    // only count points
)

var _ error = (*smtp.Reply)(nil)
