package mail

import (
	"errors"
	"strconv"
	"time"
	"unicode/utf8"
)

// AppendCanonical appends the octets of Canonical to dst: the JSON that encoding/json would write,
// without its reflection, for every accepted message is hashed in this form.
func (e *Event) AppendCanonical(dst []byte) ([]byte, error) {
	t := e.Time.UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		return dst,
			errors.New("event: the year is not within 0 to 9999, for which RFC 3339 has a form")
	}
	dst = append(dst, `{"kind":`...)
	dst = appendJSON(dst, string(e.Kind))
	dst = append(dst, `,"time":"`...)
	dst = t.AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, '"')
	if e.ID != 0 {
		dst = append(dst, `,"id":"`...)
		dst = e.ID.append(dst)
		dst = append(dst, '"')
	}
	dst = appendMember(dst, `,"message_id":`, e.MessageID)
	if e.From != nil {
		dst = append(dst, `,"from":`...)
		dst = e.From.appendJSON(dst)
	}
	for i := range e.To {
		if i == 0 {
			dst = append(dst, `,"to":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = e.To[i].appendJSON(dst)
	}
	if len(e.To) > 0 {
		dst = append(dst, ']')
	}
	if e.Size != 0 {
		dst = append(dst, `,"size":`...)
		dst = strconv.AppendInt(dst, e.Size, 10)
	}
	dst = appendMember(dst, `,"sha256":`, e.SHA256)
	if e.Peer != nil {
		dst = append(dst, `,"peer":`...)
		dst = e.Peer.appendJSON(dst)
	}
	dst = appendMember(dst, `,"reply":`, e.Reply)
	dst = appendMember(dst, `,"note":`, e.Note)
	return append(dst, '}'), nil
}

func (p *Peer) appendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	start := len(dst)
	dst = appendMember(dst, `,"name":`, p.Name)
	dst = appendMember(dst, `,"addr":`, p.Addr)
	dst = appendMember(dst, `,"account":`, p.Account)
	dst = appendMember(dst, `,"tls_version":`, p.TLSVersion)
	dst = appendMember(dst, `,"cipher":`, p.Cipher)
	dst = appendMember(dst, `,"cert_sha256":`, p.CertSHA256)
	if len(dst) > start {
		dst = append(dst[:start], dst[start+1:]...) // the first comma
	}
	return append(dst, '}')
}

func (a Address) appendJSON(dst []byte) []byte {
	dst = append(dst, '"')
	if !a.IsNull() {
		dst = appendEscaped(dst, QuoteLocal(a.Local))
		if a.Domain != "" {
			dst = append(dst, '@')
			dst = appendEscaped(dst, string(a.Domain))
		}
	}
	return append(dst, '"')
}

// appendMember appends a member of an object, its name with comma, quotes and colon, unless it is
// empty.
func appendMember(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	return appendJSON(append(dst, name...), value)
}

func appendJSON(dst []byte, s string) []byte {
	dst = append(dst, '"')
	dst = appendEscaped(dst, s)
	return append(dst, '"')
}

// appendEscaped escapes as encoding/json does: beside what JSON demands also <, >, &, U+2028 and
// U+2029, which mean something to browsers; octets that are not UTF-8 become U+FFFD.
func appendEscaped(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			switch {
			case r == utf8.RuneError && n == 1:
				dst = append(append(dst, s[from:i]...), `\ufffd`...)
			case r == '\u2028' || r == '\u2029':
				dst = append(append(dst, s[from:i]...), `\u202`...)
				dst = append(dst, hex[r&0xf])
			default:
				i += n
				continue
			}
			i += n
			from = i
			continue
		}
		i++
		if c >= ' ' && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&' {
			continue
		}
		dst = append(dst, s[from:i-1]...)
		from = i
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, `\b`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
	}
	return append(dst, s[from:]...)
}

func (id ID) append(dst []byte) []byte {
	for shift := 60; shift >= 0; shift -= 5 {
		dst = append(dst, crockford[id>>shift&31])
	}
	return dst
}
