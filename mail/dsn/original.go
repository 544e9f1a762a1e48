package dsn

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/tallypost/tallypost/mail"
)

// maxHeader is how much of a header section a report returns. Later fields are left out.
const maxHeader = 64 << 10

// original is what a report returns and tells of the message it is about.
type original struct {
	header    []byte // redacted, lines end in CRLF
	body      []byte // nil unless the message is returned whole
	messageID string // with brackets; empty unless it is well formed
	subject   string // as in the header
	date      string
}

// readOriginal reads what the report returns: the whole message only where the sender asked for it,
// the news is bad, the message is small, and MIME can carry it as it is (RFC 3461, section 6.2).
func (r *Report) readOriginal() (*original, error) {
	if r.Message == nil {
		return &original{}, nil
	}
	limit := r.MaxReturn
	if limit == 0 {
		limit = DefaultMaxReturn
	}
	// RFC 8689, section 5: for REQUIRETLS "the server MUST behave as if RET=HDRS was present".
	full := r.Envelope.Ret == mail.RetFull && r.anyFailed() && r.Size <= limit &&
		!r.Envelope.RequireTLS
	want := min(r.Size, maxHeader)
	if full {
		want = r.Size
	}
	msg := make([]byte, want)
	if n, err := r.Message.ReadAt(msg, 0); err != nil && !(errors.Is(err, io.EOF) && n == len(msg)) {
		return nil, fmt.Errorf("read the message to return: %w", err)
	}
	h, err := mail.ParseHeader(msg)
	cutShort := err == nil && int64(h.Len) == want && want < r.Size
	if cutShort && len(h.Fields) > 0 {
		h.Fields = h.Fields[:len(h.Fields)-1] // the last field may be half a field
	}
	o := &original{
		messageID: messageID(h.Get("Message-ID")),
		subject:   h.Get("Subject"),
		date:      h.Get("Date"),
	}
	o.header = r.redactHeader(h)
	if full && err == nil && returnable(msg[h.Len:]) && !longLine(o.header) &&
		(ascii(o.header) || r.Envelope.SMTPUTF8) {
		o.body = msg[h.Len:]
	}
	return o, nil
}

func (r *Report) anyFailed() bool {
	for _, rcpt := range r.Recipients {
		if rcpt.Action == Failed {
			return true
		}
	}
	return false
}

// returnable reports whether a body can travel as 7bit or 8bit MIME (RFC 2045, section 2.8): CRLF
// line ends only, no NUL, no line over 998 octets.
func returnable(body []byte) bool {
	for i, c := range body {
		switch {
		case c == 0, c == '\n' && (i == 0 || body[i-1] != '\r'),
			c == '\r' && (i+1 == len(body) || body[i+1] != '\n'):
			return false
		}
	}
	return !longLine(body)
}

// recipientFields are fields that servers write recipients of the envelope into. Who asks about one
// recipient, or reads the report of a list, is not told of others by them.
var recipientFields = []string{"Bcc", "Resent-Bcc", "Delivered-To", "X-Delivered-To",
	"X-Original-To", "Original-Recipient", "Envelope-To", "X-Envelope-To", "X-Rcpt-To",
	"X-Forwarded-To", "Apparently-To"}

// redactHeader copies the fields, with line ends made CRLF, except those that servers write
// recipients into; a "for" clause in Received stays only if it names a recipient of this report.
// What the author wrote into To and Cc stays: the author knows it.
func (r *Report) redactHeader(h mail.Header) []byte {
	var b bytes.Buffer
fields:
	for _, f := range h.Fields {
		for _, name := range recipientFields {
			if f.Is(name) {
				continue fields
			}
		}
		raw := string(f.Raw)
		if f.Is("Received") {
			raw = r.redactFor(raw)
		}
		writeLines(&b, raw)
	}
	return b.Bytes()
}

// writeLines writes a field's lines with CRLF, a bare CR and NUL as spaces.
func writeLines(b *bytes.Buffer, raw string) {
	raw = strings.TrimSuffix(strings.TrimSuffix(raw, "\n"), "\r")
	for line := range strings.SplitSeq(raw, "\n") {
		line = strings.TrimSuffix(line, "\r")
		line = strings.Map(func(c rune) rune {
			if c == '\r' || c == 0 {
				return ' '
			}
			return c
		}, strings.ToValidUTF8(line, "?"))
		b.WriteString(line)
		b.WriteString("\r\n")
	}
}

// redactFor hides the address of a "for" clause (RFC 5321, section 4.4) that is not of this report.
func (r *Report) redactFor(raw string) string {
	lower := strings.ToLower(raw)
	if len(lower) != len(raw) {
		return "Received: [hidden]\r\n" // lower case changed the length: no server of RFC 5321 wrote it
	}
	for from := 0; ; {
		i := strings.Index(lower[from:], "for")
		if i < 0 {
			return raw
		}
		i += from
		from = i + 3
		if i == 0 || !isSpace(raw[i-1]) || from == len(raw) || !isSpace(raw[from]) {
			continue
		}
		start := from + len(raw[from:]) - len(strings.TrimLeft(raw[from:], " \t\r\n"))
		end := len(raw)
		if j := strings.IndexAny(raw[start:], "; \t\r\n"); j >= 0 {
			end = start + j
		}
		if addr := strings.Trim(raw[start:end], "<>"); !r.names(addr) {
			raw = raw[:start] + "<hidden>" + raw[end:]
			lower = lower[:start] + "<hidden>" + lower[end:]
			from = start
		}
	}
}

// names reports whether the report is about this address anyway.
func (r *Report) names(addr string) bool {
	for _, rcpt := range r.Recipients {
		_, orcpt, _ := strings.Cut(rcpt.ORcpt, ";")
		if strings.EqualFold(addr, rcpt.Address.String()) || strings.EqualFold(addr, orcpt) {
			return true
		}
	}
	return false
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// messageID returns a Message-ID that can be quoted in References: brackets, one @, visible
// characters, no longer than a line. Else "".
func messageID(s string) string {
	if len(s) < 5 || len(s) > maxToken || s[0] != '<' || s[len(s)-1] != '>' {
		return ""
	}
	inner := s[1 : len(s)-1]
	if strings.Count(inner, "@") != 1 {
		return ""
	}
	for i := 0; i < len(inner); i++ {
		if c := inner[i]; c <= ' ' || c >= 0x7f || c == '<' || c == '>' {
			return ""
		}
	}
	return s
}

// write writes the third part (RFC 6522, section 3; RFC 6533, section 4 for global).
func (o *original) write(b *bytes.Buffer, global bool) {
	if o.body != nil {
		kind, encoding := "message/rfc822", "7bit"
		if global {
			kind = "message/global"
		}
		if !ascii(o.header) || !ascii(o.body) {
			encoding = "8bit"
		}
		b.WriteString("Content-Type: " + kind + "\r\nContent-Transfer-Encoding: " + encoding + "\r\n\r\n")
		b.Write(o.header)
		b.WriteString("\r\n")
		b.Write(o.body)
		return
	}
	kind := "text/rfc822-headers"
	if global {
		kind = "message/global-headers"
	}
	b.WriteString("Content-Type: " + kind + "\r\n")
	if ascii(o.header) && !longLine(o.header) {
		b.WriteString("\r\n")
		b.Write(o.header)
		return
	}
	b.WriteString("Content-Transfer-Encoding: quoted-printable\r\n\r\n")
	quotable(b, o.header)
}
