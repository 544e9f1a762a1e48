package mail

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"strings"
	"time"
)

// Carrier is a message that brings a file to a program: a report about mail, with a line for
// people.
type Carrier struct {
	From, To  Address
	Subject   string // folded where it is long
	MessageID string // with its brackets
	Date      time.Time
	// Fields are further header fields, "Name: value".
	Fields []string
	// ReportType makes the message a multipart/report of this type (RFC 6522); else it is
	// multipart/mixed.
	ReportType string
	Text       string // for people; ASCII, lines ending in LF
	Type       string // media type of the file
	Name       string // of the file
	File       []byte
}

// Bytes returns the message with CRLF line ends. Control characters in fields are made spaces.
func (c *Carrier) Bytes() []byte {
	boundary := "=_" + rand.Text() // "=_" is in no base64 and no line of ours
	var b bytes.Buffer
	field := func(name, value string) { writeField(&b, name, value) }
	field("From", "<"+c.From.Wire(false)+">")
	field("To", "<"+c.To.Wire(false)+">")
	field("Subject", c.Subject)
	field("Date", c.Date.Format(time.RFC1123Z))
	field("Message-ID", c.MessageID)
	field("Auto-Submitted", "auto-generated") // RFC 3834
	for _, f := range c.Fields {
		name, value, _ := strings.Cut(f, ":")
		field(name, strings.TrimSpace(value))
	}
	field("MIME-Version", "1.0")
	kind := "multipart/mixed;"
	if c.ReportType != "" {
		kind = "multipart/report; report-type=" + c.ReportType + ";"
	}
	field("Content-Type", kind+" boundary=\""+boundary+"\"")
	b.WriteString("\r\n--" + boundary + "\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n")
	b.WriteString(strings.ReplaceAll(strings.TrimRight(c.Text, "\n"), "\n", "\r\n"))
	b.WriteString("\r\n--" + boundary + "\r\n")
	field("Content-Type", c.Type)
	field("Content-Transfer-Encoding", "base64")
	field("Content-Disposition", "attachment; filename=\""+strings.ReplaceAll(c.Name, `"`, "")+"\"")
	b.WriteString("\r\n")
	writeBase64(&b, c.File)
	b.WriteString("--" + boundary + "--\r\n")
	return b.Bytes()
}

// writeField folds at spaces, so that lines stay below 78 characters where the words allow (RFC
// 5322, section 2.1.1).
func writeField(b *bytes.Buffer, name, value string) {
	b.WriteString(name)
	b.WriteByte(':')
	column := len(name) + 1
	for word := range strings.FieldsFuncSeq(value, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		if column > len(name)+1 && column+1+len(word) > 78 {
			b.WriteString("\r\n")
			column = 0
		}
		b.WriteByte(' ')
		b.WriteString(word)
		column += 1 + len(word)
	}
	b.WriteString("\r\n")
}

func writeBase64(b *bytes.Buffer, data []byte) {
	const line = 57 // octets that make 76 characters
	text := make([]byte, base64.StdEncoding.EncodedLen(line))
	for len(data) > 0 {
		n := min(line, len(data))
		k := base64.StdEncoding.EncodedLen(n)
		base64.StdEncoding.Encode(text, data[:n])
		b.Write(text[:k])
		b.WriteString("\r\n")
		data = data[n:]
	}
}
