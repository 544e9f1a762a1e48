package smtp

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// offers says which optional parameters a session may use.
type offers struct {
	esmtp      bool // EHLO was used
	binary     bool
	requireTLS bool
	maxSize    int64
	maxHold    time.Duration
	now        time.Time
}

func badParam(format string, args ...any) *Reply {
	return &Reply{Code: 501, Enhanced: "5.5.4", Text: fmt.Sprintf(format, args...)}
}

func unknownParam(key string) *Reply {
	return &Reply{Code: 555, Enhanced: "5.5.4", Text: "parameter " + key + " is not supported here"}
}

// nextParam splits the first parameter off s, which begins with a space or is empty.
func nextParam(s string) (key, value string, hasValue bool, rest string) {
	s = strings.TrimLeft(s, " ")
	word, rest := s, ""
	if i := strings.IndexByte(s, ' '); i >= 0 {
		word, rest = s[:i], s[i:]
	}
	key, value, hasValue = strings.Cut(word, "=")
	return key, value, hasValue, rest
}

// mailKey numbers the parameters of MAIL, so that one given twice is noticed.
type mailKey uint16

const (
	keySize mailKey = 1 << iota
	keyBody
	keySMTPUTF8
	keyRequireTLS
	keyRet
	keyEnvID
	keyAuth
	keyHold // HOLDFOR or HOLDUNTIL: only one of them may be given (RFC 4865, section 4)
)

// parseMailParams reads the parameters of MAIL.
func parseMailParams(s string, o offers) (MailParams, *Reply) {
	var p MailParams
	var seen mailKey
	for {
		key, value, hasValue, rest := nextParam(s)
		if key == "" && !hasValue {
			return p, nil
		}
		if !o.esmtp {
			return p, badParam("parameters may only be used after EHLO")
		}
		k, refusal := p.set(key, value, hasValue, o)
		if refusal != nil {
			return p, refusal
		}
		if seen&k != 0 {
			return p, badParam("parameter %s given twice", strings.ToUpper(key))
		}
		seen |= k
		s = rest
	}
}

// set stores one parameter.
func (p *MailParams) set(key, value string, hasValue bool, o offers) (mailKey, *Reply) {
	switch {
	case strings.EqualFold(key, "SIZE"):
		return keySize, p.setSize(value, o)
	case strings.EqualFold(key, "BODY"):
		return keyBody, p.setBody(value, o)
	case strings.EqualFold(key, "SMTPUTF8"):
		p.SMTPUTF8 = true
		return keySMTPUTF8, noValue(key, hasValue)
	case strings.EqualFold(key, "REQUIRETLS") && o.requireTLS:
		p.RequireTLS = true
		return keyRequireTLS, noValue(key, hasValue)
	case strings.EqualFold(key, "RET"):
		return keyRet, p.setRet(value)
	case strings.EqualFold(key, "ENVID"):
		id, err := decodeXtext(value)
		if err != nil || value == "" || len(value) > 100 {
			return 0, badParam("ENVID wants up to 100 characters of xtext")
		}
		p.EnvID = id
		return keyEnvID, nil
	case strings.EqualFold(key, "AUTH"):
		who, err := decodeXtext(value)
		if err != nil || value == "" || len(value) > 500 {
			return 0, badParam("AUTH wants <> or a mailbox as xtext")
		}
		p.Auth = who
		return keyAuth, nil
	case strings.EqualFold(key, "HOLDFOR") && o.maxHold > 0:
		return keyHold, p.setHoldFor(value, o)
	case strings.EqualFold(key, "HOLDUNTIL") && o.maxHold > 0:
		return keyHold, p.setHoldUntil(value, o)
	}
	return 0, unknownParam(key)
}

func noValue(key string, hasValue bool) *Reply {
	if hasValue {
		return badParam("%s takes no value", strings.ToUpper(key))
	}
	return nil
}

func (p *MailParams) setSize(value string, o offers) *Reply {
	// RFC 1870, section 5: up to 20 digits; more than fits an int64 is too much for anybody.
	n, err := strconv.ParseUint(value, 10, 64)
	if value == "" || len(value) > 20 || err != nil && n == 0 {
		return badParam("SIZE wants a number of octets")
	}
	if n > uint64(o.maxSize) {
		return tooBig(o.maxSize)
	}
	p.Size = int64(n)
	return nil
}

func tooBig(limit int64) *Reply {
	return &Reply{Code: 552, Enhanced: "5.3.4",
		Text: fmt.Sprintf("message too large: the limit is %d octets", limit)}
}

func (p *MailParams) setBody(value string, o offers) *Reply {
	for _, b := range [...]mail.BodyType{mail.Body7Bit, mail.Body8BitMIME, mail.BodyBinaryMIME} {
		if strings.EqualFold(value, string(b)) && (b != mail.BodyBinaryMIME || o.binary) {
			p.Body = b
			return nil
		}
	}
	return badParam("BODY=%s is not supported here", value)
}

func (p *MailParams) setRet(value string) *Reply {
	for _, r := range [...]mail.Ret{mail.RetFull, mail.RetHeaders} {
		if strings.EqualFold(value, string(r)) {
			p.Ret = r
			return nil
		}
	}
	return badParam("RET wants FULL or HDRS")
}

func (p *MailParams) setHoldFor(value string, o offers) *Reply {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || len(value) > 9 { // RFC 4865, section 3: at most 9 digits
		return badParam("HOLDFOR wants a number of seconds")
	}
	d := time.Duration(n) * time.Second
	if d > o.maxHold {
		return badParam("HOLDFOR is at most %d seconds here", o.maxHold/time.Second)
	}
	p.HoldUntil = o.now.Add(d)
	return nil
}

func (p *MailParams) setHoldUntil(value string, o offers) *Reply {
	t, err := time.Parse(time.RFC3339, strings.ToUpper(value))
	if err != nil {
		return badParam("HOLDUNTIL wants a date and time such as 2026-12-24T18:00:00Z")
	}
	if latest := o.now.Add(o.maxHold); t.After(latest) {
		return badParam("HOLDUNTIL is at most %s here", latest.UTC().Format(time.RFC3339))
	}
	p.HoldUntil = t
	return nil
}

// parseRcptParams reads the parameters of RCPT into r.
func parseRcptParams(s string, esmtp bool, r *mail.Recipient) *Reply {
	for {
		key, value, hasValue, rest := nextParam(s)
		if key == "" && !hasValue {
			return nil
		}
		if !esmtp {
			return badParam("parameters may only be used after EHLO")
		}
		switch {
		case strings.EqualFold(key, "NOTIFY"):
			n, ok := parseNotify(value)
			if !ok || r.Notify != 0 {
				return badParam("NOTIFY wants NEVER, or some of SUCCESS,FAILURE,DELAY, once")
			}
			r.Notify = n
		case strings.EqualFold(key, "ORCPT"):
			o, ok := parseORcpt(value)
			if !ok || r.ORcpt != "" {
				return badParam("ORCPT wants a type, a semicolon and an address as xtext, once")
			}
			r.ORcpt = o
		default:
			return unknownParam(key)
		}
		s = rest
	}
}

// parseNotify reads the value of NOTIFY (RFC 3461, section 4.1).
func parseNotify(value string) (mail.Notify, bool) {
	if strings.EqualFold(value, "NEVER") {
		return mail.NotifyNever, true
	}
	var n mail.Notify
	for word := range strings.SplitSeq(value, ",") {
		switch {
		case strings.EqualFold(word, "SUCCESS"):
			n |= mail.NotifySuccess
		case strings.EqualFold(word, "FAILURE"):
			n |= mail.NotifyFailure
		case strings.EqualFold(word, "DELAY"):
			n |= mail.NotifyDelay
		default:
			return 0, false
		}
	}
	return n, true
}

// parseORcpt reads the value of ORCPT (RFC 3461, section 4.2; RFC 6533, section 3, for type utf-8).
func parseORcpt(value string) (string, bool) {
	kind, addr, ok := strings.Cut(value, ";")
	if !ok || addr == "" || len(value) > 500 || !isAddrType(kind) {
		return "", false
	}
	decode := decodeXtext
	if strings.EqualFold(kind, "utf-8") {
		decode = decodeUTF8Addr
	}
	addr, err := decode(addr)
	return kind + ";" + addr, err == nil
}

// isAddrType reports whether s is an atom that can name a type of addresses.
func isAddrType(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`()<>@,;:\"/[]?=.`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// appendORcpt appends ORCPT for a peer; nothing if the value has no type.
func appendORcpt(dst []byte, orcpt string, smtputf8 bool) []byte {
	kind, addr, ok := strings.Cut(orcpt, ";")
	if !ok || !isAddrType(kind) {
		return dst
	}
	dst = append(append(append(dst, " ORCPT="...), kind...), ';')
	if strings.EqualFold(kind, "utf-8") {
		return appendUTF8Addr(dst, addr, smtputf8)
	}
	return appendXtext(dst, addr)
}

// appendNotify appends the value of NOTIFY.
func appendNotify(dst []byte, n mail.Notify) []byte {
	if n == mail.NotifyNever {
		return append(dst, " NOTIFY=NEVER"...)
	}
	sep := " NOTIFY="
	for i, name := range [...]string{"SUCCESS", "FAILURE", "DELAY"} {
		if n&(mail.NotifySuccess<<i) != 0 {
			dst = append(append(dst, sep...), name...)
			sep = ","
		}
	}
	return dst
}
