package dsn

import (
	"bytes"
	"errors"
	"strings"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// MaxMessage is how much of a message Parse looks at, in octets.
const MaxMessage = 1 << 20

// Limits on what one report may make us keep.
const (
	maxRecipients = 1000
	maxParts      = 64
	maxDepth      = 6
	maxText       = 64 << 10 // text that is searched where nothing is marked
	maxValue      = 4 << 10  // one value kept
)

// ErrNotReport is returned for a message that is no report.
var ErrNotReport = errors.New("not a delivery report")

// Kind is what sort of report a message is.
type Kind string

// The kinds.
const (
	Status Kind = "status" // a delivery status notification of RFC 3464
	Bounce Kind = "bounce" // words about a failed delivery that follow no rule
	Abuse  Kind = "abuse"  // a feedback report of RFC 5965 or RFC 6591
	Reply  Kind = "reply"  // an automatic answer of a person's mailbox (RFC 3834): nothing failed
)

// Notification is what a report by another server says. Everything in it is a stranger's claim:
// nothing proves that the sender of a report ever had the message.
type Notification struct {
	Kind         Kind
	EnvID        string // Original-Envelope-Id
	ReportingMTA string
	Arrived      time.Time // when the message reached the reporter; zero: not said
	Recipients   []Outcome
	Feedback     *Feedback // for Abuse only
	// Original is the header section of the message the report is about, as far as it was returned.
	Original mail.Header
	// Text is the part for a person, decoded from its transfer encoding, with LF line ends.
	Text string
}

// MessageID returns the Message-ID of the message that the report is about; "" if unknown.
func (n *Notification) MessageID() string { return n.Original.Get("Message-ID") }

// Outcome is what a report says of one recipient.
type Outcome struct {
	Original string // address of Original-Recipient, without its type
	Final    string // address of Final-Recipient, or the one found in the text
	Action   Action
	Status   string // code of RFC 3463; a general one ("5.0.0") where the report has none
	// Guessed says that Action or Status was taken from words, not from the field for it.
	Guessed     bool
	Remote      string // Remote-MTA
	Diagnostic  string // the remote's words, unfolded
	LastAttempt time.Time
	RetryUntil  time.Time
}

// Parse reads a report: RFC 3464 or RFC 5965 where the message has their parts, else by the habits
// of servers that follow neither. It returns ErrNotReport for other mail. Lines may end in CRLF, LF
// or CR.
func Parse(msg []byte) (*Notification, error) {
	text := normalise(msg)
	h, body := splitHeader(text)
	found := collect(h, body)
	n := &Notification{Text: found.text}
	if found.original != nil {
		n.Original, _ = splitHeader(found.original)
	}
	switch {
	case found.feedback != nil:
		n.Kind = Abuse
		n.Feedback = parseFeedback(found.feedback)
		n.EnvID, n.ReportingMTA, n.Arrived =
			n.Feedback.EnvID, n.Feedback.ReportingMTA, n.Feedback.Arrived
		return n, nil
	case found.status != nil:
		n.Kind = Status
		n.parseStatus(found.status)
	default:
		if i := habits().finalRecipient.FindStringIndex(n.Text); i != nil {
			n.parseLoose(i[0])
		}
	}
	if len(n.Recipients) > 0 {
		n.complete()
		return n, nil
	}
	return n, n.guess(h)
}

// normalise returns the first MaxMessage octets with LF line ends, without the "From " line of an
// mbox.
func normalise(msg []byte) []byte {
	msg = msg[:min(len(msg), MaxMessage)]
	switch {
	case bytes.IndexByte(msg, '\n') < 0:
		msg = bytes.ReplaceAll(msg, []byte("\r"), []byte("\n"))
	case bytes.IndexByte(msg, '\r') >= 0:
		msg = bytes.ReplaceAll(msg, []byte("\r\n"), []byte("\n"))
	}
	if bytes.HasPrefix(msg, []byte("From ")) {
		_, msg, _ = bytes.Cut(msg, []byte("\n"))
	}
	return msg
}

// splitHeader parses the header section and passes over lines that are no fields: reports come
// through software that writes them.
func splitHeader(text []byte) (mail.Header, []byte) {
	var all mail.Header
	for {
		h, err := mail.ParseHeader(text[all.Len:])
		all.Fields = append(all.Fields, h.Fields...)
		all.Len += h.Len
		if err == nil || !errors.Is(err, mail.ErrHeaderLine) || len(all.Fields) > mail.MaxHeaderFields {
			return all, text[all.Len:]
		}
		i := bytes.IndexByte(text[all.Len:], '\n')
		if i < 0 {
			all.Len = len(text)
			return all, nil
		}
		all.Len += i + 1
	}
}

// complete fills Action and Status where the report left them out, or gave a code that says nothing
// while the diagnostic has a better one.
func (n *Notification) complete() {
	for i := range n.Recipients {
		o := &n.Recipients[i]
		if o.Diagnostic == "" && len(n.Recipients) == 1 {
			o.Diagnostic = limit(strings.TrimSpace(n.Text))
		}
		if o.Status == "" || strings.HasSuffix(o.Status, ".0.0") {
			if s := statusIn(o.Diagnostic); s != "" && (o.Status == "" || s[0] == o.Status[0]) {
				o.Status, o.Guessed = s, true
			}
		}
		if o.Action == "" {
			o.Action, o.Guessed = actionOf(o.Status, n.Text), true
		}
		if o.Status == "" {
			o.Status, o.Guessed = general(o.Action), true
		}
	}
}

// general returns the code that says no more than the action.
func general(a Action) string {
	switch a {
	case Failed:
		return "5.0.0"
	case Delayed:
		return "4.0.0"
	}
	return "2.0.0"
}

// actionOf tells the action from a status code, and a passing failure from a final one by the
// words.
func actionOf(status, text string) Action {
	switch {
	case strings.HasPrefix(status, "2"):
		return Delivered
	case strings.HasPrefix(status, "4") && habits().delayWords.MatchString(text):
		return Delayed
	}
	return Failed
}
