package dmarc

import (
	"bytes"
	"compress/gzip"
	"encoding/xml"
	"errors"
	"fmt"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// XML returns the report in the form of RFC 9990.
func (r *Report) XML() ([]byte, error) {
	if len(r.Rows) == 0 || r.Published.Domain == "" || r.Metadata.ID == "" {
		return nil, errors.New("write DMARC report: without record, domain or report_id")
	}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	e := xml.NewEncoder(&b)
	e.Indent("", "  ")
	root := xml.StartElement{Name: xml.Name{Local: "feedback"},
		Attr: []xml.Attr{{Name: xml.Name{Local: "xmlns"}, Value: namespace}}}
	if err := e.EncodeElement(r, root); err != nil {
		return nil, fmt.Errorf("write DMARC report: %w", err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// FileName is the name that RFC 9990, section 3.5.2, prescribes; it is the same when the report is
// sent again. The receiver is the domain that reports.
func (r *Report) FileName(receiver string) string {
	return fmt.Sprintf("%s!%s!%d!%d.xml.gz", receiver, r.Published.Domain,
		r.Metadata.Range.Begin.Unix(), r.Metadata.Range.End.Unix())
}

// Mail returns the message that brings the report, not yet signed: it must pass DMARC itself (RFC
// 9990, section 3.5.2), so from must be of a domain that the caller signs for.
func (r *Report) Mail(from, to mail.Address, receiver string, now time.Time) ([]byte, error) {
	text, err := r.XML()
	if err != nil {
		return nil, err
	}
	var file bytes.Buffer
	z := gzip.NewWriter(&file)
	if _, err := z.Write(text); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	c := mail.Carrier{
		From: from,
		To:   to,
		Subject: fmt.Sprintf("Report Domain: %s Submitter: %s Report-ID: <%s>", r.Published.Domain,
			receiver, r.Metadata.ID),
		MessageID: "<" + r.Metadata.ID + ">",
		Date:      now,
		Text: fmt.Sprintf("This is a DMARC aggregate report (RFC 9990) of %s\n"+
			"about mail by the name of %s.\nIt covers %s to %s.\n", receiver, r.Published.Domain,
			clock(r.Metadata.Range.Begin), clock(r.Metadata.Range.End)),
		Type: "application/gzip",
		Name: r.FileName(receiver),
		File: file.Bytes(),
	}
	return c.Bytes(), nil
}

func clock(s Seconds) string { return s.UTC().Format(time.RFC3339) }
