package reputation

import (
	"bytes"
	"mime"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tallypost/tallypost/mail"
)

// Limits on what of a message is looked at.
const (
	maxText      = 64 << 10 // octets of each text part, decoded
	maxTextParts = 4
	maxPerMail   = 3000 // different tokens
	maxWord      = 24   // letters; longer runs are encoded rubbish
)

// Tokens returns the traits of a message: words of the subject and the author's name, words of the text,
// hosts of its links, and the kinds of its parts. Each comes once. msg is the message, or as much of it as is
// at hand.
func Tokens(h mail.Header, msg []byte) []Token {
	c := &collector{seen: make(map[Token]struct{})}
	var decoder mime.WordDecoder
	for name, prefix := range map[string]string{"Subject": "s:", "From": "f:"} {
		value := h.Get(name)
		if text, err := decoder.DecodeHeader(value); err == nil {
			value = text
		}
		c.words(prefix, value)
	}
	texts := 0
	for _, part := range mail.Leaves(msg) {
		c.add("t:" + part.Type)
		if !strings.HasPrefix(part.Type, "text/") || texts == maxTextParts {
			continue
		}
		texts++
		b, err := part.Decode(maxText)
		if err != nil && len(b) == 0 {
			continue
		}
		if part.Type == "text/html" {
			b = c.html(b)
		}
		c.links(b)
		c.words("", string(b))
	}
	slices.Sort(c.out)
	return c.out
}

// collector gathers tokens, each once.
type collector struct {
	seen map[Token]struct{}
	out  []Token
}

func (c *collector) add(s string) {
	if len(c.out) >= maxPerMail {
		return
	}
	t := hash(s)
	if _, dup := c.seen[t]; !dup {
		c.seen[t] = struct{}{}
		c.out = append(c.out, t)
	}
}

// hash is FNV-1a: the file outlives the process, so the hash must too.
func hash(s string) Token {
	h := uint64(14695981039346656037)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return Token(h)
}

// words adds the words of a text. Scripts without spaces between words give pairs of characters instead.
func (c *collector) words(prefix, text string) {
	if !utf8.ValidString(text) {
		text = latin1(text)
	}
	var word []rune
	flush := func() {
		if len(word) > 2 && len(word) <= maxWord {
			c.add(prefix + string(word))
		}
		word = word[:0]
	}
	var before rune
	for _, r := range text {
		switch {
		case unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai):
			flush()
			if before != 0 {
				c.add(prefix + string([]rune{before, r}))
			}
			before = r
			continue
		case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '$' || r == '!' || r == '\'' || r == '-':
			word = append(word, unicode.ToLower(r))
		default:
			flush()
		}
		before = 0
	}
	flush()
}

// latin1 reads octets that are no UTF-8 as ISO 8859-1: what they mean matters less than that they are the
// same each time.
func latin1(s string) string {
	out := make([]rune, 0, len(s))
	for i := 0; i < len(s); i++ {
		out = append(out, rune(s[i]))
	}
	return string(out)
}

// links adds the hosts that a text points to.
func (c *collector) links(b []byte) {
	for _, scheme := range []string{"http://", "https://"} {
		for rest := b; ; {
			i := bytes.Index(rest, []byte(scheme))
			if i < 0 {
				break
			}
			rest = rest[i:]
			end := bytes.IndexAny(rest, " \t\r\n\"'<>")
			if end < 0 {
				end = len(rest)
			}
			if u, err := url.Parse(string(rest[:min(end, 500)])); err == nil {
				c.host(u.Hostname())
			}
			rest = rest[len(scheme):]
		}
	}
}

// host adds a name and the names above it, but for the last label.
func (c *collector) host(name string) {
	for range 4 {
		if !strings.Contains(name, ".") {
			return
		}
		c.add("u:" + strings.ToLower(name))
		_, name, _ = strings.Cut(name, ".")
	}
}

// html returns the text of a page without its tags, and adds where its links lead and which tags it has.
func (c *collector) html(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		i := bytes.IndexByte(b, '<')
		if i < 0 {
			return append(out, b...)
		}
		out = append(out, b[:i]...)
		b = b[i+1:]
		end := bytes.IndexByte(b, '>')
		if end < 0 {
			return out
		}
		tag := b[:end]
		b = b[end+1:]
		c.links(tag)
		name := strings.ToLower(string(bytes.Trim(firstWord(tag), "/!")))
		c.add("h:" + name)
		switch name {
		case "style", "script":
			if tag[0] != '/' { // not at the end of one
				b = skipTo(b, name)
			}
		case "br", "p", "div", "td", "tr", "li", "table":
			out = append(out, ' ')
		}
	}
	return out
}

// skipTo cuts off what comes before the end tag of an element; all, where there is none.
func skipTo(b []byte, name string) []byte {
	for {
		i := bytes.Index(b, []byte("</"))
		if i < 0 {
			return nil
		}
		b = b[i:]
		if len(b) >= 2+len(name) && strings.EqualFold(string(b[2:2+len(name)]), name) {
			return b
		}
		b = b[2:]
	}
}

func firstWord(b []byte) []byte {
	if i := bytes.IndexAny(b, " \t\r\n"); i >= 0 {
		b = b[:i]
	}
	return b[:min(len(b), 20)]
}
