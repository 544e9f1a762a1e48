package intake

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// received is what goes into a Received field (RFC 5321, section 4.4).
type received struct {
	helo, rdns string // rdns is a name that was confirmed by a look-up forth
	remote     netip.Addr
	by         string
	protocol   string // RFC 3848: "ESMTPS"
	tls        *tls.ConnectionState
	account    string
	id         mail.ID
	index      string        // where the log entry will be found
	rcpt       *mail.Address // only where there is one: others are not for each other's eyes
	from       mail.Address
	at         time.Time
}

// field returns the folded field with its CRLF. Whatever the peer called itself cannot end a line: all but
// visible ASCII and UTF-8 is replaced.
func (r received) field() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "Received: from %s", word(r.helo))
	if r.rdns != "" || r.remote.IsValid() {
		b.WriteString(" (")
		if r.rdns != "" {
			b.WriteString(word(r.rdns) + " ")
		}
		b.WriteString("[" + literal(r.remote) + "])")
	}
	if r.tls != nil {
		fmt.Fprintf(&b, "\r\n\t(using %s with cipher %s)",
			strings.ReplaceAll(tls.VersionName(r.tls.Version), " ", ""), tls.CipherSuiteName(r.tls.CipherSuite))
	}
	if r.account != "" {
		fmt.Fprintf(&b, "\r\n\t(authenticated as %s)", word(r.account))
	}
	fmt.Fprintf(&b, "\r\n\tby %s with %s id %s", word(r.by), r.protocol, r.id)
	if r.rcpt != nil {
		fmt.Fprintf(&b, "\r\n\tfor <%s>", word(r.rcpt.String()))
	}
	fmt.Fprintf(&b, ";\r\n\t%s\r\n", r.at.Format(mail.DateLayout))
	return []byte(b.String())
}

func literal(ip netip.Addr) string {
	if ip.Is4() || ip.Is4In6() {
		return ip.Unmap().String()
	}
	return "IPv6:" + ip.String()
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
