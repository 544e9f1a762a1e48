package dsn

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// dateFormat is that of RFC 5322, section 3.3.
const dateFormat = "Mon, 2 Jan 2006 15:04:05 -0700"

// Build returns the notification and the envelope it travels in: the null reverse path, and the
// sender of the message as its one recipient. An error means that there is nobody to tell, that the
// report is about nothing, or that the message could not be read.
func (r *Report) Build() (mail.Envelope, []byte, error) {
	if r.Envelope.From.IsNull() {
		return mail.Envelope{}, nil, ErrNullPath
	}
	if r.Host == "" || len(r.Recipients) == 0 {
		return mail.Envelope{}, nil, errors.New("report without a host or recipients")
	}
	for _, rcpt := range r.Recipients {
		if parseAction(string(rcpt.Action)) != rcpt.Action || rcpt.Action == "" {
			return mail.Envelope{}, nil, fmt.Errorf("report with the action %q", rcpt.Action)
		}
	}
	orig, err := r.readOriginal()
	if err != nil {
		return mail.Envelope{}, nil, err
	}
	global := r.needsUTF8(orig)
	boundary := "=_" + token()

	var b bytes.Buffer
	r.writeHeader(&b, orig, boundary, global)
	b.WriteString("\r\n--" + boundary + "\r\n")
	r.writeHuman(&b, orig)
	b.WriteString("\r\n--" + boundary + "\r\n")
	r.writeStatus(&b, global)
	if r.Message != nil {
		b.WriteString("\r\n--" + boundary + "\r\n")
		orig.write(&b, global)
	}
	b.WriteString("\r\n--" + boundary + "--\r\n")

	env := mail.Envelope{
		Recipients: []mail.Recipient{{Address: r.Envelope.From, Notify: mail.NotifyNever}},
		SMTPUTF8:   global,
		RequireTLS: r.Envelope.RequireTLS, // RFC 8689, section 5
	}
	if !ascii(b.Bytes()) {
		env.Body = mail.Body8BitMIME
	}
	return env, b.Bytes(), nil
}

// needsUTF8 reports whether the notification is one of RFC 6533: where its own reader's address
// asks for it, or where the message was internationalised and so its sender's servers can take the
// like.
func (r *Report) needsUTF8(orig *original) bool {
	if !r.Envelope.From.IsASCII() {
		return true
	}
	if !r.Envelope.SMTPUTF8 {
		return false
	}
	for _, rcpt := range r.Recipients {
		if !rcpt.Address.IsASCII() || !ascii(rcpt.ORcpt) {
			return true
		}
	}
	return !ascii(orig.header)
}

func (r *Report) writeHeader(b *bytes.Buffer, orig *original, boundary string, global bool) {
	host := r.Host.ASCII()
	field(b, "From", "Mail Delivery System <MAILER-DAEMON@"+host+">", false)
	field(b, "To", "<"+wireAddress(r.Envelope.From, global)+">", global)
	field(b, "Subject", r.subject(), false)
	field(b, "Date", r.Now.Format(dateFormat), false)
	field(b, "Message-ID", "<"+token()+"@"+host+">", false)
	if orig.messageID != "" {
		field(b, "In-Reply-To", orig.messageID, global)
		field(b, "References", orig.messageID, global)
	}
	field(b, "Auto-Submitted", "auto-replied", false) // RFC 3834, section 3.1.7
	field(b, "MIME-Version", "1.0", false)
	field(b, "Content-Type", "multipart/report; report-type=delivery-status; boundary=\""+
		boundary+"\"", false)
}

// subject names the worst that is in the report.
func (r *Report) subject() string {
	for _, s := range []struct {
		a       Action
		subject string
	}{
		{Failed, "Your message could not be delivered"},
		{Delayed, "Your message is delayed and still being tried"},
		{Relayed, "Your message was passed on"},
	} {
		for _, rcpt := range r.Recipients {
			if rcpt.Action == s.a {
				return s.subject
			}
		}
	}
	return "Your message was delivered"
}

// writeStatus writes the part for programs (RFC 3464, section 2).
func (r *Report) writeStatus(b *bytes.Buffer, global bool) {
	if global {
		b.WriteString("Content-Type: message/global-delivery-status\r\n")
		b.WriteString("Content-Transfer-Encoding: 8bit\r\n\r\n")
	} else {
		b.WriteString("Content-Type: message/delivery-status\r\n\r\n")
	}
	if r.Envelope.EnvID != "" {
		field(b, "Original-Envelope-Id", r.Envelope.EnvID, global)
	}
	field(b, "Reporting-MTA", "dns; "+r.Host.ASCII(), false)
	if !r.Arrived.IsZero() {
		field(b, "Arrival-Date", r.Arrived.Format(dateFormat), false)
	}
	for i := range r.Recipients {
		b.WriteString("\r\n")
		r.Recipients[i].write(b, global)
	}
}

// write writes the fields about one recipient (RFC 3464, section 2.3).
func (rcpt *Recipient) write(b *bytes.Buffer, global bool) {
	if t, addr, ok := strings.Cut(rcpt.ORcpt, ";"); ok && isToken(t) {
		field(b, "Original-Recipient", t+"; "+strings.TrimSpace(addr), global)
	}
	kind := "rfc822"
	if !rcpt.Address.IsASCII() {
		kind = "utf-8"
	}
	field(b, "Final-Recipient", kind+"; "+wireAddress(rcpt.Address, global), global)
	field(b, "Action", string(rcpt.Action), false)
	field(b, "Status", rcpt.status(), false)
	if rcpt.Remote != "" {
		field(b, "Remote-MTA", "dns; "+rcpt.Remote, false)
	}
	if rcpt.Reply != "" {
		kind := "X-Tallypost" // our own sentence (RFC 3464, section 2.3.6: a type for what is not SMTP)
		if rcpt.spokeSMTP() {
			kind = "smtp"
		}
		field(b, "Diagnostic-Code", kind+"; "+cut(rcpt.Reply, maxReply), global)
	}
	writeTime(b, "Last-Attempt-Date", rcpt.LastAttempt)
	if rcpt.Action == Delayed {
		writeTime(b, "Will-Retry-Until", rcpt.RetryUntil)
	}
}

func writeTime(b *bytes.Buffer, name string, t time.Time) {
	if !t.IsZero() {
		field(b, name, t.Format(dateFormat), false)
	}
}

// wireAddress writes an address for a header field: the domain in A-labels where all is ASCII,
// U-labels kept where the report is international anyway.
func wireAddress(a mail.Address, global bool) string {
	if global || a.Domain == "" {
		return a.String()
	}
	return mail.QuoteLocal(a.Local) + "@" + a.Domain.ASCII()
}

// spokeSMTP reports whether Reply begins with a reply code that another server gave.
func (rcpt *Recipient) spokeSMTP() bool {
	s := rcpt.Reply
	return rcpt.Remote != "" && !rcpt.Ours && len(s) >= 3 && s[0] >= '2' && s[0] <= '5' &&
		isDigit(s[1]) && isDigit(s[2]) && (len(s) == 3 || s[3] == ' ' || s[3] == '-')
}

// status returns a code of RFC 3463 whose class fits the action (RFC 3464, section 2.3.4): a
// failure may keep the 4 of the delay it grew from.
func (rcpt *Recipient) status() string {
	fits, general := "2", "2.0.0"
	switch rcpt.Action {
	case Failed:
		fits, general = "45", "5.0.0"
	case Delayed:
		fits, general = "4", "4.0.0"
	}
	if !validStatus(rcpt.Status) || !strings.Contains(fits, rcpt.Status[:1]) {
		return general
	}
	return rcpt.Status
}

// validStatus checks the syntax of RFC 3463, section 2: class "." 1*3digit "." 1*3digit.
func validStatus(s string) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || parts[0] != "2" && parts[0] != "4" && parts[0] != "5" {
		return false
	}
	for _, p := range parts[1:] {
		if len(p) < 1 || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isToken reports whether s may stand as an address type: letters, digits and hyphens.
func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		if !isDigit(s[i]) && s[i] != '-' && (c < 'a' || c > 'z') {
			return false
		}
	}
	return s != ""
}

// cut shortens s to at most n octets, whole characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:cutRune(s, n)] + " [...]"
}

// token returns 120 random bits in base 32: a boundary that no message can have been written to
// contain.
func token() string {
	var raw [15]byte
	rand.Read(raw[:])
	return strings.ToLower(base32.HexEncoding.EncodeToString(raw[:]))
}
