package intake

import (
	"crypto/tls"
	"net/netip"
	"strings"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// received is what goes into a Received field (RFC 5321, section 4.4). It does not name the account of a
// submission, which "with ESMTPSA" says there was (RFC 3848): the log has it, and the recipient of a
// message sent from an alias need not.
type received struct {
	helo, rdns string // rdns is a name that was confirmed by a look-up forth
	remote     netip.Addr
	by         string
	protocol   string // RFC 3848: "ESMTPS"
	tls        *tls.ConnectionState
	id         mail.ID
	rcpt       *mail.Address // only where there is one: others are not for each other's eyes
	utf8       bool          // the message came with SMTPUTF8
	at         time.Time
}

// field returns the folded field with its CRLF. Whatever the peer called itself cannot end a line or
// pass for a further clause.
func (r received) field() []byte {
	b := make([]byte, 0, 384)
	b = append(b, "Received: from "...)
	b = append(b, word(r.helo)...)
	if r.rdns != "" || r.remote.IsValid() {
		b = append(b, " ("...)
		if r.rdns != "" {
			b = append(b, word(r.rdns)...)
			b = append(b, ' ')
		}
		b = append(b, '[')
		b = append(b, literal(r.remote)...)
		b = append(b, "])"...)
	}
	b = append(b, "\r\n\tby "...)
	b = append(b, word(r.by)...)
	b = append(b, " with "...)
	b = append(b, r.protocol...)
	b = append(b, " id "...)
	b = append(b, r.id.String()...)
	if r.rcpt != nil {
		b = append(b, "\r\n\tfor <"...)
		b = append(b, word(r.rcpt.Wire(r.utf8))...)
		b = append(b, '>')
	}
	if r.tls != nil { // RFC 8314, section 4.3
		b = append(b, "\r\n\ttls "...)
		b = append(b, tls.CipherSuiteName(r.tls.CipherSuite)...)
		b = append(b, " ("...)
		b = append(b, tls.VersionName(r.tls.Version)...)
		b = append(b, ')')
	}
	b = append(b, ";\r\n\t"...)
	b = r.at.AppendFormat(b, mail.DateLayout)
	return append(b, "\r\n"...)
}

func literal(ip netip.Addr) string {
	if ip.Is4() || ip.Is4In6() {
		return ip.Unmap().String()
	}
	return "IPv6:" + ip.WithZone("").String()
}

// word makes a string harmless inside a structured field: no white space, controls, comment or quoting
// characters.
func word(s string) string {
	if s == "" {
		return "unknown"
	}
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f || r == '(' || r == ')' || r == '\\' || r == ';' || r == '\uFFFD' {
			return '?'
		}
		return r
	}, s)
}
