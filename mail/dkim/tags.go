package dkim

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// tag is one tag=value of a tag list.
type tag struct {
	name  string
	value string // without the white space around it; folding inside is kept
	// start and end bound what stands between the equals sign and the semicolon.
	start, end int
}

// tagList is a list of RFC 6376, section 3.2.
type tagList []tag

// parseTags reads a tag list. As the RFC demands, a name that comes twice makes the whole list
// invalid.
func parseTags(s string) (tagList, error) {
	list := make(tagList, 0, 16)
	for pos := 0; pos < len(s); {
		end := len(s)
		if i := strings.IndexByte(s[pos:], ';'); i >= 0 {
			end = pos + i
		}
		name, _, ok := strings.Cut(s[pos:end], "=")
		if !ok {
			if end == len(s) && trimFWS(s[pos:]) == "" && len(list) > 0 {
				break // the last semicolon ended the list
			}
			return nil, fmt.Errorf("tag without a value at %.20q", s[pos:end])
		}
		start := pos + len(name) + 1
		t := tag{name: trimFWS(name), value: trimFWS(s[start:end]), start: start, end: end}
		if err := t.check(list); err != nil {
			return nil, err
		}
		list = append(list, t)
		pos = end + 1
	}
	if len(list) == 0 {
		return nil, errors.New("empty tag list")
	}
	return list, nil
}

// check holds a tag to the syntax and the list to its limits.
func (t tag) check(list tagList) error {
	for i := 0; i < len(t.name); i++ {
		c := t.name[i]
		if !isLetter(c) && (i == 0 || c != '_' && !isDigit(c)) {
			return fmt.Errorf("bad tag name %.20q", t.name)
		}
	}
	if t.name == "" || len(list) == maxTags {
		return errors.New("nameless tag, or too many tags")
	}
	for _, other := range list {
		if other.name == t.name {
			return fmt.Errorf("tag %s comes twice", t.name)
		}
	}
	for i := 0; i < len(t.value); i++ {
		if c := t.value[i]; c < ' ' && c != '\t' && c != '\r' && c != '\n' || c == 0x7f {
			return fmt.Errorf("control character in tag %s", t.name)
		}
	}
	return nil
}

// get returns the value of a tag; "" and false where there is none.
func (l tagList) get(name string) (string, bool) {
	for i := range l {
		if l[i].name == name {
			return l[i].value, true
		}
	}
	return "", false
}

// span returns where the value of a tag stands.
func (l tagList) span(name string) (start, end int) {
	for i := range l {
		if l[i].name == name {
			return l[i].start, l[i].end
		}
	}
	return 0, 0
}

// number returns the value of a tag that is an unsigned decimal number of up to 12 digits (RFC
// 6376, section 3.5, tags t= and x=).
func (l tagList) number(name string) (n int64, ok bool, err error) {
	s, ok := l.get(name)
	if !ok {
		return 0, false, nil
	}
	u, err := strconv.ParseUint(s, 10, 63)
	if err != nil || len(s) > 12 {
		return 0, true, fmt.Errorf("tag %s is no number", name)
	}
	return int64(u), true, nil
}

// base64 returns the octets of a tag, folding removed.
func (l tagList) base64(name string) ([]byte, error) {
	s, _ := l.get(name)
	b, err := base64.StdEncoding.DecodeString(dropFWS(s))
	if err != nil {
		return nil, fmt.Errorf("tag %s is no base64", name)
	}
	return b, nil
}

func isFWS(c byte) bool    { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func trimFWS(s string) string { return strings.Trim(s, " \t\r\n") }

// dropFWS removes all white space.
func dropFWS(s string) string {
	if !strings.ContainsAny(s, " \t\r\n") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if !isFWS(s[i]) {
			b = append(b, s[i])
		}
	}
	return string(b)
}

// hasItem reports whether a colon-separated list has an item, in any case; "*" in the list matches
// if wild is set.
func hasItem(list, item string, wild bool) bool {
	for s := range strings.SplitSeq(list, ":") {
		s = trimFWS(s)
		if strings.EqualFold(s, item) || wild && s == "*" {
			return true
		}
	}
	return false
}
