package dsn

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Feedback is the machine part of an abuse report (RFC 5965, section 3), with the fields of RFC
// 6591 where the report is about a failed authentication. Values are a stranger's claim.
type Feedback struct {
	Type      string // "abuse", "fraud", "virus", "not-spam", "auth-failure", "other"; in lower case
	UserAgent string
	Version   string

	EnvID        string // Original-Envelope-Id
	MailFrom     string // Original-Mail-From, brackets removed
	RcptTo       []string
	Arrived      time.Time // Arrival-Date or Received-Date
	ReportingMTA string
	SourceIP     netip.Addr
	SourcePort   uint16
	Incidents    int // 1 if not said
	AuthResults  []string
	Domains      []string // Reported-Domain
	URIs         []string // Reported-URI

	AuthFailure     string // "adsp", "bodyhash", "revoked", "signature", "spf", "dmarc"; in lower case
	DeliveryResult  string
	Alignment       string // Identity-Alignment (RFC 9991)
	DKIMDomain      string
	DKIMIdentity    string
	DKIMSelector    string
	DKIMSelectorDNS string
	SPFDNS          string
}

// maxList bounds each of the fields that may come more than once.
const maxList = 100

func parseFeedback(text []byte) *Feedback {
	fb := &Feedback{Incidents: 1}
	// Empty lines inside the part do not end it: some reporters put one after the required fields.
	for len(text) > 0 {
		h, rest := splitHeader(text)
		if len(rest) == len(text) {
			break
		}
		for _, f := range h.Fields {
			fb.set(strings.ToLower(f.Name()), limit(f.Value()))
		}
		text = rest
	}
	return fb
}

func (fb *Feedback) set(name, value string) {
	switch name {
	case "feedback-type":
		fb.Type = strings.ToLower(value)
	case "user-agent":
		fb.UserAgent = value
	case "version":
		fb.Version = value
	case "original-envelope-id":
		fb.EnvID = value
	case "original-mail-from":
		fb.MailFrom = address(value)
	case "original-rcpt-to":
		add(&fb.RcptTo, address(value))
	case "arrival-date", "received-date":
		fb.Arrived = date(value)
	case "reporting-mta":
		fb.ReportingMTA = typed(value)
	case "source-ip":
		value, _, _ = strings.Cut(value, " ") // a host name follows from some
		fb.SourceIP, _ = netip.ParseAddr(strings.Trim(value, "[]"))
	case "source-port":
		port, _ := strconv.ParseUint(value, 10, 16)
		fb.SourcePort = uint16(port)
	case "incidents":
		if n, err := strconv.Atoi(value); err == nil && n > 0 {
			fb.Incidents = n
		}
	case "authentication-results":
		add(&fb.AuthResults, value)
	case "reported-domain":
		add(&fb.Domains, value)
	case "reported-uri":
		add(&fb.URIs, value)
	default:
		fb.setAuth(name, value)
	}
}

// setAuth reads the fields of RFC 6591, section 3.
func (fb *Feedback) setAuth(name, value string) {
	switch name {
	case "auth-failure":
		fb.AuthFailure = strings.ToLower(value)
	case "delivery-result":
		fb.DeliveryResult = strings.ToLower(value)
	case "identity-alignment":
		fb.Alignment = strings.ToLower(value)
	case "dkim-domain":
		fb.DKIMDomain = value
	case "dkim-identity":
		fb.DKIMIdentity = value
	case "dkim-selector":
		fb.DKIMSelector = value
	case "dkim-selector-dns":
		fb.DKIMSelectorDNS = value
	case "spf-dns":
		fb.SPFDNS = value
	}
}

func add(list *[]string, value string) {
	if len(*list) < maxList && value != "" {
		*list = append(*list, value)
	}
}
