package smtp

import (
	"strconv"
	"strings"
	"time"
)

// Extensions is what a server offered in its reply to EHLO. The zero value is a server that knows
// none, or no EHLO.
type Extensions struct {
	Pipelining          bool // RFC 2920
	EightBitMIME        bool // RFC 6152
	SMTPUTF8            bool // RFC 6531
	EnhancedStatusCodes bool // RFC 2034
	StartTLS            bool // RFC 3207
	Chunking            bool // RFC 3030
	BinaryMIME          bool // RFC 3030
	DSN                 bool // RFC 3461
	RequireTLS          bool // RFC 8689

	Size    int64    // largest message in octets (RFC 1870); 0 where there is no declared limit
	HasSize bool     // SIZE may be given with MAIL
	Auth    []string // mechanisms (RFC 4954), in upper case

	// FutureRelease says that HOLDFOR and HOLDUNTIL are known (RFC 4865), HoldMax for how long.
	FutureRelease bool
	HoldMax       time.Duration

	// Limits of RFC 9422; 0 where the server named none.
	MailMax       int // transactions of a connection
	RcptMax       int // recipients of a transaction
	RcptDomainMax int // domains of the recipients of a transaction

	Lines []string // the reply as received, without codes, the greeting line excluded
}

// parseExtensions reads the text of a reply to EHLO, of which the first line is a greeting.
func parseExtensions(text string) Extensions {
	var e Extensions
	_, rest, _ := strings.Cut(text, "\n")
	for line := range strings.SplitSeq(rest, "\n") {
		if line == "" {
			continue
		}
		e.Lines = append(e.Lines, line)
		keyword, args, _ := strings.Cut(line, " ")
		e.add(strings.ToUpper(keyword), args)
	}
	return e
}

func (e *Extensions) add(keyword, args string) {
	switch keyword {
	case "PIPELINING":
		e.Pipelining = true
	case "8BITMIME":
		e.EightBitMIME = true
	case "SMTPUTF8":
		e.SMTPUTF8 = true
	case "ENHANCEDSTATUSCODES":
		e.EnhancedStatusCodes = true
	case "STARTTLS":
		e.StartTLS = true
	case "CHUNKING":
		e.Chunking = true
	case "BINARYMIME":
		e.BinaryMIME = true
	case "DSN":
		e.DSN = true
	case "REQUIRETLS":
		e.RequireTLS = true
	case "SIZE":
		e.HasSize = true
		if n, err := strconv.ParseInt(strings.TrimSpace(args), 10, 64); err == nil && n > 0 {
			e.Size = n
		}
	case "AUTH":
		e.Auth = strings.Fields(strings.ToUpper(args))
	case "FUTURERELEASE":
		e.FutureRelease = true
		seconds, _, _ := strings.Cut(args, " ")
		if n, err := strconv.ParseUint(seconds, 10, 31); err == nil {
			e.HoldMax = time.Duration(n) * time.Second
		}
	case "LIMITS":
		e.addLimits(args)
	}
}

// addLimits reads LIMITS (RFC 9422, section 3): unknown ones are ignored.
func (e *Extensions) addLimits(args string) {
	for word := range strings.FieldsSeq(args) {
		name, value, _ := strings.Cut(word, "=")
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil || n == 0 {
			continue
		}
		switch strings.ToUpper(name) {
		case "MAILMAX":
			e.MailMax = int(n)
		case "RCPTMAX":
			e.RcptMax = int(n)
		case "RCPTDOMAINMAX":
			e.RcptDomainMax = int(n)
		}
	}
}

// offersAuth reports whether a mechanism is offered.
func (e *Extensions) offersAuth(mech string) bool {
	for _, m := range e.Auth {
		if m == mech {
			return true
		}
	}
	return false
}
