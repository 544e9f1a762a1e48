package dsn

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime/quotedprintable"
	"strings"

	"github.com/tallypost/tallypost/mail"
)

// found is what the tree of parts of a report holds. Each is nil or empty where there is none.
type found struct {
	text     string // the first text, whichever it is; several are joined
	status   []byte // message/delivery-status
	feedback []byte // message/feedback-report
	original []byte // the returned message or header
	parts    int    // visited, to bound the walk
}

// collect walks the parts of a message. Damaged structure yields what can be read of it.
func collect(h mail.Header, body []byte) *found {
	f := new(found)
	f.walk(h, body, 0)
	return f
}

func (f *found) walk(h mail.Header, body []byte, depth int) {
	if f.parts++; f.parts > maxParts || depth > maxDepth {
		return
	}
	value := h.Get("Content-Type")
	kind := strings.ToLower(value)
	if i := strings.IndexAny(kind, "; \t"); i >= 0 {
		kind = kind[:i]
	}
	if strings.HasPrefix(kind, "multipart/") {
		if b := parameter(value, "boundary"); b != "" && f.walkParts(body, b, depth) {
			return
		}
		kind = "text/plain" // the boundary was lost on the way
	}
	switch kind {
	case "message/delivery-status", "message/global-delivery-status":
		if f.status == nil {
			f.status = decode(h, body)
		}
	case "message/feedback-report":
		if f.feedback == nil {
			f.feedback = decode(h, body)
		}
	case "message/rfc822", "message/global", "message/global-headers", "text/rfc822-headers",
		"message/rfc822-headers", "message/partial":
		if f.original == nil && depth > 0 {
			f.original = bytes.TrimLeft(decode(h, body), "\n")
		}
	case "text/plain", "", "text", "text/html":
		f.addText(kind, decode(h, body))
	}
}

// addText joins text parts; HTML counts only where there is nothing else.
func (f *found) addText(kind string, text []byte) {
	if kind == "text/html" {
		if f.text != "" {
			return
		}
		text = stripTags(text)
	}
	if room := maxText - len(f.text); room > 0 {
		f.text += string(text[:min(len(text), room)]) + "\n"
	}
}

// walkParts cuts a multipart body at its boundary lines, and reports whether there is any. An
// absent last boundary is at the end.
func (f *found) walkParts(body []byte, boundary string, depth int) bool {
	delim := []byte("--" + boundary)
	start := -1
	for pos := 0; pos <= len(body); {
		end := len(body)
		if i := bytes.IndexByte(body[pos:], '\n'); i >= 0 {
			end = pos + i
		}
		if bytes.HasPrefix(body[pos:end], delim) {
			if start >= 0 {
				f.part(body[start:max(start, pos-1)], depth)
			}
			start = min(end+1, len(body))
			if bytes.HasPrefix(body[pos+len(delim):end], []byte("--")) {
				return true
			}
		}
		pos = end + 1
	}
	if start >= 0 && start < len(body) {
		f.part(body[start:], depth)
	}
	return start >= 0
}

func (f *found) part(raw []byte, depth int) {
	h, body := splitHeader(raw)
	f.walk(h, body, depth+1)
}

// decode undoes the transfer encoding as far as it can be.
func decode(h mail.Header, body []byte) []byte {
	var r io.Reader
	switch strings.ToLower(h.Get("Content-Transfer-Encoding")) {
	case "base64":
		r = base64.NewDecoder(base64.StdEncoding, bytes.NewReader(body))
	case "quoted-printable":
		r = quotedprintable.NewReader(bytes.NewReader(body))
	default:
		return body
	}
	out, _ := io.ReadAll(r) // what came before a fault is kept; never longer than body
	return bytes.ReplaceAll(out, []byte("\r\n"), []byte("\n"))
}

// parameter returns a parameter of Content-Type, with what broken software writes around it
// forgiven.
func parameter(value, name string) string {
	for rest := value; ; {
		i := strings.IndexByte(rest, ';')
		if i < 0 {
			return ""
		}
		rest = strings.TrimLeft(rest[i+1:], " \t")
		if len(rest) < len(name) || !strings.EqualFold(rest[:len(name)], name) {
			continue
		}
		v := strings.TrimLeft(rest[len(name):], " \t")
		if !strings.HasPrefix(v, "=") {
			continue
		}
		v = strings.TrimLeft(v[1:], " \t")
		if strings.HasPrefix(v, `"`) {
			v, _, _ = strings.Cut(v[1:], `"`)
			return v
		}
		if j := strings.IndexAny(v, "; \t"); j >= 0 {
			v = v[:j]
		}
		return v
	}
}

// stripTags turns HTML to text well enough to find an address and a code in it.
func stripTags(b []byte) []byte {
	out := make([]byte, 0, len(b))
	inTag := false
	for _, c := range b {
		switch {
		case c == '<':
			inTag = true
			out = append(out, '\n')
		case c == '>' && inTag:
			inTag = false
		case !inTag:
			out = append(out, c)
		}
	}
	for entity, char := range map[string]string{"&lt;": "<", "&gt;": ">", "&nbsp;": " ", "&quot;": `"`,
		"&#64;": "@", "&#46;": ".", "&amp;": "&"} {
		out = bytes.ReplaceAll(out, []byte(entity), []byte(char))
	}
	return out
}
