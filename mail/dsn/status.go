package dsn

import (
	"bytes"
	netmail "net/mail"
	"strings"
	"time"
)

// parseStatus reads the fields of message/delivery-status (RFC 3464, section 2): one group about
// the message and one for each recipient, empty lines between. Servers also put empty lines inside
// a group or leave them out, so a group without an address belongs to the one before it, and a
// second Final-Recipient in a group begins another.
func (n *Notification) parseStatus(text []byte) {
	var cur *Outcome
	for group := range bytes.SplitSeq(text, []byte("\n\n")) {
		h, _ := splitHeader(bytes.TrimLeft(group, "\n"))
		if len(h.All("Final-Recipient"))+len(h.All("Original-Recipient")) > 0 && cur.complete() {
			cur = nil
		}
		for _, f := range h.Fields {
			name, value := strings.ToLower(f.Name()), limit(f.Value())
			if !recipientField[name] {
				n.messageField(name, value)
				continue
			}
			if cur == nil || name == "final-recipient" && cur.complete() {
				if len(n.Recipients) == maxRecipients {
					n.dropNameless()
					return
				}
				n.Recipients = append(n.Recipients, Outcome{})
				cur = &n.Recipients[len(n.Recipients)-1]
			}
			cur.set(name, value)
		}
	}
	n.dropNameless()
}

// complete reports whether the outcome has its recipient, so that another recipient is another's.
func (o *Outcome) complete() bool { return o != nil && o.Final != "" }

// parseLoose reads status fields that stand in a text part, where servers forget the parameters of
// multipart/report. at is where the first Final-Recipient stands.
func (n *Notification) parseLoose(at int) {
	start := strings.LastIndex(n.Text[:at], "\n\n") + 1
	if start == 0 {
		start = at
	}
	text, tail := n.Text[start:], ""
	if i := habits().originalLine.FindStringIndex(text); i != nil {
		text, tail = text[:i[0]], text[i[0]:]
	}
	n.parseStatus([]byte(text))
	if len(n.Recipients) > 0 {
		n.Kind = Status
		n.returned(tail)
	}
}

// dropNameless removes groups that had an action but nobody it was about.
func (n *Notification) dropNameless() {
	kept := n.Recipients[:0]
	for _, o := range n.Recipients {
		if o.Final == "" {
			o.Final = o.Original
		}
		if o.Final != "" {
			kept = append(kept, o)
		}
	}
	n.Recipients = kept
}

var recipientField = map[string]bool{
	"original-recipient": true, "final-recipient": true, "action": true, "status": true,
	"remote-mta": true, "diagnostic-code": true, "last-attempt-date": true,
	"will-retry-until": true, "x-actual-recipient": true,
}

func (n *Notification) messageField(name, value string) {
	switch name {
	case "original-envelope-id":
		n.EnvID = value
	case "reporting-mta":
		n.ReportingMTA = typed(value)
	case "arrival-date":
		n.Arrived = date(value)
	}
}

// set takes over one field about a recipient. The first of a name counts, as the later ones are
// added by gateways.
func (o *Outcome) set(name, value string) {
	switch name {
	case "original-recipient":
		o.Original = address(typed(value))
	case "final-recipient":
		o.Final = address(typed(value))
	case "x-actual-recipient":
		if o.Final == "" {
			o.Final = address(typed(value))
		}
	case "action":
		o.Action = parseAction(value)
	case "status":
		if s := statusIn(value); s != "" && o.Status == "" {
			o.Status = s
		}
	case "remote-mta":
		o.Remote = typed(value)
	case "diagnostic-code":
		if o.Diagnostic == "" {
			o.Diagnostic = typed(value)
		}
	case "last-attempt-date":
		o.LastAttempt = date(value)
	case "will-retry-until":
		o.RetryUntil = date(value)
	}
}

// parseAction takes the first word; comments follow it in the field.
func parseAction(value string) Action {
	word, _, _ := strings.Cut(strings.ToLower(value), " ")
	switch a := Action(strings.Trim(word, "();,")); a {
	case Failed, Delayed, Delivered, Relayed, Expanded:
		return a
	case "failure", "permanent-failure", "failed-permanent", "bounced":
		return Failed
	case "deliverable", "deliver", "success":
		return Delivered
	}
	return ""
}

// typed drops the type before the semicolon: "dns; mx.example.net", "rfc822; user@example.net".
func typed(value string) string {
	kind, rest, ok := strings.Cut(value, ";")
	if !ok || !isToken(strings.TrimSpace(kind)) && strings.TrimSpace(kind) != "" {
		return value
	}
	return strings.TrimSpace(rest)
}

// address tidies what stands for an address: brackets, quotes and comments around it go. What is no
// address at all (a fax number, an X.400 name) is kept as it is.
func address(s string) string {
	if i := strings.IndexByte(s, '<'); i >= 0 {
		if inner, _, ok := strings.Cut(s[i+1:], ">"); ok && inner != "" {
			s = inner
		}
	}
	s = strings.Trim(s, " \t'")
	if len(s) > 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	if i := strings.IndexAny(s, " \t("); i > 0 && strings.Contains(s[:i], "@") && s[0] != '"' {
		s = s[:i]
	}
	return unescape(s)
}

// zones are the names of RFC 5322, section 4.3, which the standard library takes for UTC.
var zones = map[string]string{"EDT": "-0400", "EST": "-0500", "CDT": "-0500", "CST": "-0600",
	"MDT": "-0600", "MST": "-0700", "PDT": "-0700", "PST": "-0800"}

// date reads a date of RFC 5322; the zero time where it is none.
func date(value string) time.Time {
	value, _, _ = strings.Cut(value, "(")
	value = strings.TrimSpace(value)
	if i := strings.LastIndexByte(value, ' '); i > 0 && zones[value[i+1:]] != "" {
		value = value[:i+1] + zones[value[i+1:]]
	}
	t, err := netmail.ParseDate(value)
	if err != nil {
		return time.Time{}
	}
	return t
}

func limit(s string) string { return cut(s, maxValue) }
