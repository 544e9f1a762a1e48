package dkim

import (
	"crypto/sha256"
	"errors"
	"strings"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// signature is a DKIM-Signature (RFC 6376, section 3.5) or ARC-Message-Signature (RFC 8617, section
// 4.1.2) as parsed, with the field it stands in.
type signature struct {
	kind      fieldKind
	raw       []byte // the field
	tags      tagList
	algorithm algorithm
	header    canon
	body      canon
	names     []string // h=
	sig, bh   []byte
	res       Result
	problem   *problem // found before any key was looked up
	keyName   string   // where the key record is
}

// algorithm is a signing algorithm. All hash with SHA-256.
type algorithm uint8

const (
	noAlgorithm algorithm = iota
	rsaSHA256
	ed25519SHA256
)

// fieldKind tells what a field must and must not have.
type fieldKind uint8

const (
	dkimSignature fieldKind = iota
	arcMessage
	arcSeal
)

// parseSignature reads a signature field. What is wrong with it is in problem; Domain, Selector and
// the like are filled in as far as they can be read, for the report.
func parseSignature(f mail.Field, kind fieldKind, now time.Time) *signature {
	s := &signature{kind: kind, raw: f.Raw}
	s.problem = s.parse(string(f.RawValue()), now)
	if s.problem != nil {
		s.res.State, s.res.Reason = s.problem.state, s.problem.words
	}
	return s
}

func (s *signature) parse(value string, now time.Time) *problem {
	if len(value) > maxSignatureField {
		return permError("signature field too long")
	}
	var err error
	if s.tags, err = parseTags(value); err != nil {
		return permError(err.Error())
	}
	if b, ok := s.tags.get("b"); ok {
		b = dropFWS(b)
		s.res.B = b[:min(8, len(b))]
	}
	if p := s.parseWho(); p != nil {
		return p
	}
	if p := s.parseHow(); p != nil {
		return p
	}
	return s.parseWhen(now)
}

// parseWho reads d=, s= and i=.
func (s *signature) parseWho() *problem {
	d, _ := s.tags.get("d")
	domain, err := domainName(d)
	if err != nil {
		return permError("no valid domain in d=")
	}
	s.res.Domain = domain
	sel, _ := s.tags.get("s")
	selector, err := domainName(sel)
	if err != nil {
		return permError("no valid selector in s=")
	}
	s.res.Selector = sel
	s.keyName = selector.ASCII() + "._domainkey." + domain.ASCII()
	if len(s.keyName) > 253 {
		return permError("name of the key too long")
	}
	s.res.Identity = "@" + string(domain)
	if s.kind != dkimSignature {
		s.res.Identity = ""
		return nil
	}
	i, ok := s.tags.get("i")
	if !ok {
		return nil
	}
	s.res.Identity = unquote(dropFWS(i))
	at := strings.LastIndexByte(s.res.Identity, '@')
	if at < 0 {
		return permError("i= without a domain")
	}
	host, err := domainName(s.res.Identity[at+1:])
	if err != nil || host != domain && !strings.HasSuffix(string(host), "."+string(domain)) {
		// RFC 6376, section 3.5: i= must be of d= or below it.
		return permError("i= is not of the domain in d=")
	}
	return nil
}

// parseHow reads v=, a= and b=, and what a signature over a message has more.
func (s *signature) parseHow() *problem {
	if v, ok := s.tags.get("v"); s.kind == dkimSignature && v != "1" || s.kind != dkimSignature && ok {
		return permError("wrong version")
	}
	a, _ := s.tags.get("a")
	s.res.Algorithm = strings.ToLower(a)
	var p *problem
	if s.algorithm, p = parseAlgorithm(s.res.Algorithm); p != nil {
		return p
	}
	var err error
	if s.sig, err = s.tags.base64("b"); err != nil || len(s.sig) == 0 || len(s.sig) > maxRSABits/8 {
		return permError("no valid signature in b=")
	}
	if s.kind != arcSeal {
		return s.parseMessage()
	}
	// RFC 8617, section 4.1.3: "the h tag MUST NOT be present".
	if _, ok := s.tags.get("h"); ok {
		return permError("seal with h=")
	}
	s.header = relaxed
	return nil
}

// parseMessage reads c=, q=, bh=, h= and l=.
func (s *signature) parseMessage() *problem {
	if s.kind == arcMessage {
		// RFC 8617 leaves the default to DKIM, which has simple; those who write ARC signatures
		// without c= (dkimpy, ValiMail's suite) mean relaxed.
		s.header, s.body = relaxed, relaxed
	}
	if c, ok := s.tags.get("c"); ok {
		if s.header, s.body, ok = parseCanon(c); !ok {
			return permError("unknown canonicalization")
		}
	}
	if q, ok := s.tags.get("q"); ok && !hasItem(q, "dns/txt", false) {
		return permError("unknown query method")
	}
	var err error
	if s.bh, err = s.tags.base64("bh"); err != nil || len(s.bh) != sha256.Size {
		return permError("no valid body hash in bh=")
	}
	if p := s.parseNames(); p != nil {
		return p
	}
	if _, ok := s.tags.get("l"); ok {
		// What follows the signed part is anybody's, and Content-Type can make a reader see only
		// that (RFC 6376, section 8.2).
		return &problem{Policy, "body signed in part only (l=)"}
	}
	return nil
}

func parseAlgorithm(a string) (algorithm, *problem) {
	switch a {
	case "rsa-sha256":
		return rsaSHA256, nil
	case "ed25519-sha256":
		return ed25519SHA256, nil
	case "":
		return noAlgorithm, permError("no algorithm in a=")
	case "rsa-sha1":
		// RFC 8301, section 3.1: "MUST NOT be used for signing or verifying".
		return noAlgorithm, permError("rsa-sha1 is not secure")
	}
	return noAlgorithm, permError("unknown algorithm")
}

// parseNames reads h=. RFC 6376, section 5.4, has From in it; ARC forbids its own seals (RFC 8617,
// section 4.1.2).
func (s *signature) parseNames() *problem {
	h, _ := s.tags.get("h")
	if h == "" {
		return permError("no header fields in h=")
	}
	from := false
	s.names = make([]string, 0, strings.Count(h, ":")+1)
	for name := range strings.SplitSeq(h, ":") {
		if name = trimFWS(name); name == "" {
			continue // "from:to:", as some sign, names nothing
		}
		if len(s.names) == maxSignedFields {
			return permError("too many names in h=")
		}
		from = from || strings.EqualFold(name, "From")
		if s.kind == arcMessage && strings.EqualFold(name, "ARC-Seal") {
			return permError("seal in h=")
		}
		s.names = append(s.names, name)
	}
	s.res.Headers = s.names
	if !from {
		return permError("From is not signed")
	}
	return nil
}

// parseWhen reads t= and x=.
func (s *signature) parseWhen(now time.Time) *problem {
	t, okT, errT := s.tags.number("t")
	x, okX, errX := s.tags.number("x")
	if err := errors.Join(errT, errX); err != nil {
		return permError("no number in t= or x=")
	}
	if okT {
		s.res.Signed = time.Unix(t, 0)
	}
	if okX {
		s.res.Expires = time.Unix(x, 0)
	}
	switch {
	case okT && okX && x <= t:
		return permError("expires before it was made")
	case okX && now.After(s.res.Expires):
		return &problem{Fail, "signature has expired"}
	case okT && s.res.Signed.After(now.Add(clockSkew)):
		return &problem{Policy, "signature is from the future"}
	}
	return nil
}

// domainName parses a domain that is no address literal.
func domainName(s string) (mail.Domain, error) {
	if strings.HasPrefix(s, "[") {
		return "", errors.New("address literal")
	}
	return mail.ParseDomain(s)
}

// unquote undoes dkim-quoted-printable (RFC 6376, section 2.11).
func unquote(s string) string {
	if strings.IndexByte(s, '=') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '=' && i+2 < len(s) {
			if hi, lo := unhex(s[i+1]), unhex(s[i+2]); hi >= 0 && lo >= 0 {
				b = append(b, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

func unhex(c byte) int {
	switch {
	case isDigit(c):
		return int(c - '0')
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// appendSelf appends the canonical form of the signature's own field, its b= emptied, without the
// final CRLF (RFC 6376, section 3.7).
func (s *signature) appendSelf(dst []byte) []byte {
	start, end := s.tags.span("b")
	value := len(s.raw) - len(rawValue(s.raw))
	bare := make([]byte, 0, len(s.raw))
	bare = append(bare, s.raw[:value+start]...)
	bare = append(bare, s.raw[value+end:]...)
	dst = appendField(dst, bare, s.header)
	return dst[:len(dst)-2]
}

func rawValue(raw []byte) []byte {
	for i, c := range raw {
		if c == ':' {
			return raw[i+1:]
		}
	}
	return nil
}
