package dmarc

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/encoding/charmap"

	"github.com/tallypost/tallypost/mail"
)

// Limits on a report of somebody else's.
const (
	maxReport   = 25 << 20 // octets of XML, after unpacking
	maxReasons  = 20       // in one row
	maxAuth     = 100      // results in one row (RFC 9990, section 3.1.3)
	maxText     = 1000     // octets of a text for people
	maxWrappers = 3        // elements round the report
	maxNotes    = 20
)

// namespace is that of RFC 9990.
const namespace = "urn:ietf:params:xml:ns:dmarc-2.0"

// ErrNoReport is the error for what holds no aggregate report.
var ErrNoReport = errors.New("no DMARC aggregate report")

// Report is an aggregate report: what one receiver saw in some time of mail by the name of a
// domain.
type Report struct {
	Namespace string    `xml:"-"` // of the root element; reports of RFC 7489 have none
	Version   string    `xml:"version,omitempty"`
	Metadata  Metadata  `xml:"report_metadata"`
	Published Published `xml:"policy_published"`
	Rows      []Row     `xml:"record"`
	// Faults are what was not understood in a report of somebody else's, each in a sentence.
	Faults []string `xml:"-"`
}

// Metadata says who reports on when.
type Metadata struct {
	Org       string    `xml:"org_name"`
	Email     string    `xml:"email"`
	Contact   string    `xml:"extra_contact_info,omitempty"`
	ID        string    `xml:"report_id"`
	Range     DateRange `xml:"date_range"`
	Errors    []string  `xml:"error,omitempty"`
	Generator string    `xml:"generator,omitempty"`
}

// DateRange is in UTC and whole seconds.
type DateRange struct {
	Begin Seconds `xml:"begin"`
	End   Seconds `xml:"end"`
}

// Seconds is a time that XML has as seconds since 1970.
type Seconds struct{ time.Time }

// Published is the policy that the receiver found.
type Published struct {
	Domain    string `xml:"domain"`
	Discovery string `xml:"discovery_method,omitempty"` // "treewalk", "psl"
	Policy    Policy `xml:"p"`
	Sub       Policy `xml:"sp,omitempty"`
	NonExist  Policy `xml:"np,omitempty"`
	ADKIM     string `xml:"adkim,omitempty"`
	ASPF      string `xml:"aspf,omitempty"`
	FO        string `xml:"fo,omitempty"`
	Testing   string `xml:"testing,omitempty"`
}

// Row is a number of messages that came from one address and met the same fate for the same
// reasons.
type Row struct {
	Source    Source      `xml:"row>source_ip"`
	Count     Count       `xml:"row>count"`
	Evaluated Evaluated   `xml:"row>policy_evaluated"`
	IDs       Identifiers `xml:"identifiers"`
	Auth      AuthResults `xml:"auth_results"`
}

// Source is the address of the client; the zero value where the report has none that can be read.
type Source struct{ netip.Addr }

// Count is the number of messages in a row.
type Count uint64

// Evaluated is what the receiver did, and whether each mechanism was aligned.
type Evaluated struct {
	Disposition string   `xml:"disposition"` // "none", "pass", "quarantine", "reject"
	DKIM        string   `xml:"dkim"`        // "pass", "fail"
	SPF         string   `xml:"spf"`
	Reasons     []Reason `xml:"reason,omitempty"`
}

// Reason is why the receiver did not do what the domain asked for.
type Reason struct {
	Type    string `xml:"type"` // "local_policy", "mailing_list", "trusted_forwarder" and so on
	Comment string `xml:"comment,omitempty"`
}

// Identifiers are the domains in a message. EnvelopeFrom is empty for the null path.
type Identifiers struct {
	HeaderFrom   string `xml:"header_from"`
	EnvelopeFrom string `xml:"envelope_from"`
	EnvelopeTo   string `xml:"envelope_to,omitempty"`
}

// AuthResults are those of the mechanisms, aligned or not.
type AuthResults struct {
	DKIM []DKIMResult `xml:"dkim,omitempty"`
	SPF  []SPFResult  `xml:"spf,omitempty"`
}

// DKIMResult is the result of one signature.
type DKIMResult struct {
	Domain   string `xml:"domain"`
	Selector string `xml:"selector"`
	Result   string `xml:"result"`
	Human    string `xml:"human_result,omitempty"`
}

// SPFResult is the result of SPF.
type SPFResult struct {
	Domain string `xml:"domain"`
	Scope  string `xml:"scope,omitempty"` // "mfrom"; "helo" from older receivers
	Result string `xml:"result"`
	Human  string `xml:"human_result,omitempty"`
}

// ReadMail finds the report in a message, in whichever part and packing it is.
func ReadMail(msg []byte) (*Report, error) { return mail.FindLeaf(msg, maxReport, Read, ErrNoReport) }

// Read reads a report as a file: XML, or packed by gzip or zip.
func Read(b []byte) (*Report, error) {
	b, err := mail.Unpack(b, maxReport)
	if err != nil {
		return nil, fmt.Errorf("DMARC aggregate report: %w", err)
	}
	b = bytes.TrimLeft(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")), " \t\r\n\x00")
	if !bytes.HasPrefix(b, []byte("<")) || !bytes.Contains(b, []byte("feedback")) {
		return nil, fmt.Errorf("%w: not XML with the element feedback", ErrNoReport)
	}
	r, err := parseXML(b)
	if err != nil {
		return nil, fmt.Errorf("DMARC aggregate report: %w", err)
	}
	return r, nil
}

// parseXML decodes one record after the other. The library knows no entities but the five of XML,
// so none can grow.
func parseXML(b []byte) (*Report, error) {
	b, err := toUTF8(b)
	if err != nil {
		return nil, err
	}
	d := xml.NewDecoder(bytes.NewReader(b))
	d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
	root, err := findRoot(d)
	if err != nil {
		return nil, err
	}
	r := &Report{Namespace: root.Name.Space}
	for {
		t, err := d.Token()
		if err != nil {
			return nil, describeXML(d, err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			if err := r.element(d, t); err != nil {
				return nil, describeXML(d, err)
			}
		case xml.EndElement:
			return r, r.finish()
		}
	}
}

func describeXML(d *xml.Decoder, err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	line, _ := d.InputPos()
	return fmt.Errorf("line %d: %w", line, err)
}

// findRoot passes over what some put round the report, as the element of a schema.
func findRoot(d *xml.Decoder) (xml.StartElement, error) {
	for seen := 0; seen < maxWrappers; {
		t, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return xml.StartElement{}, describeXML(d, err)
		}
		if start, ok := t.(xml.StartElement); ok {
			if start.Name.Local == "feedback" {
				return start, nil
			}
			seen++
		}
	}
	return xml.StartElement{}, fmt.Errorf("%w: no element feedback", ErrNoReport)
}

func (r *Report) element(d *xml.Decoder, start xml.StartElement) error {
	switch start.Name.Local {
	case "version":
		return d.DecodeElement(&r.Version, &start)
	case "report_metadata":
		return d.DecodeElement(&r.Metadata, &start)
	case "policy_published":
		return d.DecodeElement(&r.Published, &start)
	case "record":
		var row Row
		if err := d.DecodeElement(&row, &start); err != nil {
			return err
		}
		r.tidy(&row)
		r.Rows = append(r.Rows, row)
		return nil
	}
	return d.Skip() // an extension
}

// tidy brings the values of a row to lower case and within their limits.
func (r *Report) tidy(row *Row) {
	n := len(r.Rows) + 1
	if !row.Source.IsValid() {
		r.fault("record %d: no address", n)
	}
	e := &row.Evaluated
	e.Reasons = slices.DeleteFunc(e.Reasons, func(r Reason) bool { return r == Reason{} })
	if e.Reasons = e.Reasons[:min(len(e.Reasons), maxReasons)]; len(e.Reasons) == 0 {
		e.Reasons = nil
	}
	for i := range e.Reasons {
		e.Reasons[i].Type = oneWord(e.Reasons[i].Type)
		e.Reasons[i].Comment = oneText(e.Reasons[i].Comment)
	}
	a := &row.Auth
	a.DKIM = a.DKIM[:min(len(a.DKIM), maxAuth)]
	a.SPF = a.SPF[:min(len(a.SPF), maxAuth)]
	words := []*string{&e.Disposition, &e.DKIM, &e.SPF, &row.IDs.HeaderFrom, &row.IDs.EnvelopeFrom,
		&row.IDs.EnvelopeTo}
	for i := range a.DKIM {
		k := &a.DKIM[i]
		words = append(words, &k.Domain, &k.Selector, &k.Result)
		k.Human = oneText(k.Human)
	}
	for i := range a.SPF {
		s := &a.SPF[i]
		words = append(words, &s.Domain, &s.Scope, &s.Result)
		s.Human = oneText(s.Human)
	}
	for _, w := range words {
		*w = oneWord(*w)
	}
	switch e.Disposition {
	case pass, string(PolicyNone), string(PolicyQuarantine), string(PolicyReject):
	default:
		r.fault("record %d: disposition %q", n, clip(e.Disposition))
	}
}

// finish checks what a report is useless without.
func (r *Report) finish() error {
	m, p := &r.Metadata, &r.Published
	for _, s := range []*string{&m.Org, &m.Email, &m.Contact, &m.ID, &m.Generator, &r.Version} {
		*s = oneText(*s)
	}
	m.Errors = m.Errors[:min(len(m.Errors), maxNotes)]
	for i := range m.Errors {
		m.Errors[i] = oneText(m.Errors[i])
	}
	for _, s := range []*string{&p.Domain, &p.Discovery, (*string)(&p.Policy), (*string)(&p.Sub),
		(*string)(&p.NonExist), &p.ADKIM, &p.ASPF, &p.FO, &p.Testing} {
		*s = oneWord(*s)
	}
	switch {
	case p.Domain == "":
		return errors.New("no domain in policy_published")
	case m.Range.Begin.IsZero() || m.Range.End.IsZero():
		return errors.New("no date_range that can be read")
	case m.ID == "":
		return errors.New("no report_id")
	case len(r.Rows) == 0:
		return errors.New("no record")
	}
	return nil
}

func (r *Report) fault(format string, args ...any) {
	if len(r.Faults) < maxNotes {
		r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
	}
}

// oneWord is a value in lower case; oneText one of a sentence.
func oneWord(s string) string { return strings.ToLower(oneText(s)) }

func oneText(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	return s
}

// UnmarshalText takes a fraction too, as some write it; what is no number is the zero time.
func (s *Seconds) UnmarshalText(b []byte) error {
	whole, _, _ := strings.Cut(strings.TrimSpace(string(b)), ".")
	if n, err := strconv.ParseInt(whole, 10, 64); err == nil && n > 0 && n < 1<<40 {
		s.Time = time.Unix(n, 0).UTC()
	}
	return nil
}

// MarshalText writes whole seconds.
func (s Seconds) MarshalText() ([]byte, error) { return strconv.AppendInt(nil, s.Unix(), 10), nil }

// UnmarshalText leaves the zero value for what is no address.
func (s *Source) UnmarshalText(b []byte) error {
	if ip, err := netip.ParseAddr(strings.TrimSpace(string(b))); err == nil {
		s.Addr = ip.Unmap()
	}
	return nil
}

// UnmarshalText leaves zero for what is no number.
func (c *Count) UnmarshalText(b []byte) error {
	n, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	*c = Count(n)
	return nil
}

// MarshalText writes the number.
func (c Count) MarshalText() ([]byte, error) { return strconv.AppendUint(nil, uint64(c), 10), nil }

// toUTF8 heeds the declared encoding where it is one of the Latin ones, and repairs UTF-8.
func toUTF8(b []byte) ([]byte, error) {
	head, _, _ := bytes.Cut(b[:min(len(b), 200)], []byte("?>"))
	switch name := strings.ToLower(encodingOf(string(head))); name {
	case "", "utf-8", "utf8":
		return bytes.ToValidUTF8(b, []byte("\ufffd")), nil
	case "us-ascii", "iso-8859-1", "latin1", "windows-1252":
		return charmap.Windows1252.NewDecoder().Bytes(b)
	default:
		return nil, fmt.Errorf("encoding %q is not known here", clip(name))
	}
}

func encodingOf(declaration string) string {
	_, after, found := strings.Cut(declaration, "encoding")
	after = strings.TrimLeft(after, " \t\r\n=\"'")
	end := strings.IndexAny(after, "\"' \t\r\n")
	if !found || end < 0 {
		return ""
	}
	return after[:end]
}
