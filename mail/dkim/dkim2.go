package dkim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
)

// DKIM2 is a draft (draft-ietf-dkim-dkim2-spec) that binds a signature to the envelope of one hop: a
// replay to other recipients fails, and each server that changes a message says how to undo the change.
// What is here verifies; it follows the draft of mid-2026 as far as its interoperability cases show it,
// and will change with it. A Pass is worth what a DKIM Pass is, for the domain of each hop.

// Limits on DKIM2, and the age after which a signature no longer counts.
const (
	maxDKIM2Hops   = 50
	maxDKIM2Age    = 14 * 24 * time.Hour
	maxDKIM2Bits   = 8192 // the draft lets verifiers take longer keys than DKIM has
	maxDKIM2Nonce  = 64
	maxDKIM2Rcpts  = 1000
	maxDKIM2Hashes = 16
)

// DKIM2Result is what became of the DKIM2 signatures of a message.
type DKIM2Result struct {
	State  State // None where there is no signature
	Reason string
	Hops   []DKIM2Hop // the first to sign first; where State is not Pass they prove nothing
}

// DKIM2Hop is one signature.
type DKIM2Hop struct {
	Domain  mail.Domain
	Signed  time.Time
	From    mail.Address   // MAIL FROM with which this hop sent the message on
	To      []mail.Address // its RCPT TO
	Next    mail.Domain    // the domain it handed over to, where it signed no envelope
	Flags   []string       // "donotmodify", "donotexplode", "feedback", "feedhere", "exploded", ...
	Changed bool           // this hop, or an unsigned one before it, changed the message
}

// VerifyDKIM2 verifies the DKIM2 signatures of a whole message, received with this envelope.
func VerifyDKIM2(ctx context.Context, r dns.Resolver, msg []byte, from mail.Address,
	to []mail.Address, now time.Time) DKIM2Result {
	c := &dkim2Chain{from: from, to: to, now: now}
	return c.result(ctx, r, msg)
}

// dkim2Chain is the DKIM2 fields of a message while they are verified.
type dkim2Chain struct {
	from mail.Address
	to   []mail.Address
	now  time.Time
	// bare lets mf= and rt= stand without angle brackets, as earlier drafts had them.
	bare bool

	sigs      []*dkim2Signature // by i=
	instances []*dkim2Instance  // by m=
	keys      keyring
}

// dkim2Signature is a parsed DKIM2-Signature.
type dkim2Signature struct {
	raw  []byte
	tags tagList
	i, m int
	sets []dkim2Set
	hop  DKIM2Hop
}

// dkim2Set is one signature of several over the same octets: "selector:algorithm:signature".
type dkim2Set struct {
	keyName   string
	algorithm algorithm
	sig       []byte
}

// dkim2Instance is a parsed Message-Instance: what the message was like when a hop sent it on.
type dkim2Instance struct {
	raw          []byte
	m            int
	header, body []byte // SHA-256 hashes
	recipe       *recipe
}

func (c *dkim2Chain) result(ctx context.Context, r dns.Resolver, msg []byte) DKIM2Result {
	h, err := mail.ParseHeader(msg)
	if err != nil {
		return DKIM2Result{State: PermError, Reason: err.Error()}
	}
	p := c.collect(h)
	if p == nil && len(c.sigs) == 0 {
		return DKIM2Result{State: None}
	}
	for _, step := range []func() *problem{
		c.checkOrder,
		c.checkEnvelope,
		c.checkCustody,
		func() *problem { return c.checkSignatures(ctx, r) },
		func() *problem { return c.checkInstances(h, msg[h.Len:]) },
		c.checkFlags,
	} {
		if p == nil {
			p = step()
		}
	}
	res := DKIM2Result{State: Pass}
	if p != nil {
		res.State, res.Reason = p.state, p.words
	}
	for i, s := range c.sigs {
		s.hop.Changed = i > 0 && s.m != c.sigs[i-1].m
		res.Hops = append(res.Hops, s.hop)
	}
	return res
}

// collect parses the DKIM2 fields and sorts them by number.
func (c *dkim2Chain) collect(h mail.Header) *problem {
	for _, f := range h.Fields {
		switch {
		case f.Is("DKIM2-Signature"):
			s := &dkim2Signature{raw: f.Raw}
			if p := s.parse(string(f.RawValue()), c.bare); p != nil {
				return p
			}
			c.sigs = append(c.sigs, s)
		case f.Is("Message-Instance"):
			m := &dkim2Instance{raw: f.Raw}
			if p := m.parse(string(f.RawValue())); p != nil {
				return p
			}
			c.instances = append(c.instances, m)
		}
		if len(c.sigs) > maxDKIM2Hops || len(c.instances) > maxDKIM2Hops {
			return permError("too many DKIM2 fields")
		}
	}
	slices.SortStableFunc(c.sigs, func(a, b *dkim2Signature) int { return a.i - b.i })
	slices.SortStableFunc(c.instances, func(a, b *dkim2Instance) int { return a.m - b.m })
	return nil
}

// dkim2Tags parses a tag list of DKIM2, in which names may be in any case.
func dkim2Tags(value string) (tagList, *problem) {
	if len(value) > mail.MaxHeaderBytes/2 {
		return nil, permError("DKIM2 field too long")
	}
	tags, err := parseTags(value)
	if err != nil {
		return nil, permError(err.Error())
	}
	for i := range tags {
		tags[i].name = strings.ToLower(tags[i].name)
		for _, earlier := range tags[:i] {
			if earlier.name == tags[i].name {
				return nil, permError("tag " + earlier.name + " comes twice")
			}
		}
	}
	return tags, nil
}

// ordinal reads i= or m=, which count from 1.
func ordinal(tags tagList, name string) (int, *problem) {
	s, _ := tags.get(name)
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxDKIM2Hops {
		return 0, permError("no valid number in " + name + "=")
	}
	return n, nil
}

func (s *dkim2Signature) parse(value string, bare bool) *problem {
	var p *problem
	if s.tags, p = dkim2Tags(value); p != nil {
		return p
	}
	if s.i, p = ordinal(s.tags, "i"); p != nil {
		return p
	}
	if s.m, p = ordinal(s.tags, "m"); p != nil {
		return p
	}
	t, ok, err := s.tags.number("t")
	if !ok || err != nil {
		return permError("no valid time in t=")
	}
	s.hop.Signed = time.Unix(t, 0)
	d, _ := s.tags.get("d")
	if s.hop.Domain, err = domainName(d); err != nil {
		return permError("no valid domain in d=")
	}
	if n, _ := s.tags.get("n"); len(n) > maxDKIM2Nonce {
		return permError("nonce too long")
	}
	if f, _ := s.tags.get("f"); f != "" {
		for flag := range strings.SplitSeq(f, ",") {
			s.hop.Flags = append(s.hop.Flags, strings.ToLower(trimFWS(flag)))
		}
	}
	if p := s.parseRoute(bare); p != nil {
		return p
	}
	return s.parseSets()
}

// parseRoute reads mf= and rt=, or nd=.
func (s *dkim2Signature) parseRoute(bare bool) *problem {
	mf, hasFrom := s.tags.get("mf")
	rt, hasTo := s.tags.get("rt")
	if nd, ok := s.tags.get("nd"); ok {
		var err error
		if s.hop.Next, err = domainName(nd); err != nil || hasFrom || hasTo {
			return permError("no valid domain in nd=, or an envelope beside it")
		}
		return nil
	}
	if !hasFrom || !hasTo {
		return permError("no mf= or rt=")
	}
	var ok bool
	if s.hop.From, ok = signedPath(mf, bare); !ok {
		return permError("no valid path in mf=")
	}
	for part := range strings.SplitSeq(rt, ",") {
		a, ok := signedPath(part, bare)
		if !ok || a.IsNull() || len(s.hop.To) == maxDKIM2Rcpts {
			return permError("no valid path in rt=")
		}
		s.hop.To = append(s.hop.To, a)
	}
	return nil
}

// signedPath decodes a path of RFC 5321 in base 64, angle brackets included.
func signedPath(value string, bare bool) (mail.Address, bool) {
	b, err := base64.StdEncoding.DecodeString(dropFWS(value))
	if err != nil {
		return mail.Address{}, false
	}
	s := string(b)
	if strings.HasPrefix(s, "<") && strings.HasSuffix(s, ">") {
		s = s[1 : len(s)-1]
	} else if !bare {
		return mail.Address{}, false
	}
	if s == "" {
		return mail.Address{}, true
	}
	a, err := mail.ParseAddress(s)
	return a, err == nil
}

// parseSets reads s=. Algorithms that we do not know are passed over, as the future has them.
func (s *dkim2Signature) parseSets() *problem {
	value, _ := s.tags.get("s")
	if value == "" {
		return permError("no signature in s=")
	}
	for set := range strings.SplitSeq(value, ",") {
		parts := strings.SplitN(set, ":", 3)
		if len(parts) != 3 || len(s.sets) == maxDKIM2Hashes {
			return permError("no valid signature in s=")
		}
		a, p := parseAlgorithm(strings.ToLower(trimFWS(parts[1])))
		if p != nil {
			continue
		}
		selector, err := domainName(trimFWS(parts[0]))
		if err != nil {
			return permError("no valid selector in s=")
		}
		sig, err := base64.StdEncoding.DecodeString(dropFWS(parts[2]))
		if err != nil || len(sig) == 0 || len(sig) > maxDKIM2Bits/8 {
			return permError("no valid signature in s=")
		}
		name := selector.ASCII() + "._domainkey." + s.hop.Domain.ASCII()
		s.sets = append(s.sets, dkim2Set{keyName: name, algorithm: a, sig: sig})
	}
	return nil
}

func (m *dkim2Instance) parse(value string) *problem {
	tags, p := dkim2Tags(value)
	if p != nil {
		return p
	}
	if m.m, p = ordinal(tags, "m"); p != nil {
		return p
	}
	h, _ := tags.get("h")
	for set := range strings.SplitSeq(h, ",") {
		parts := strings.SplitN(set, ":", 3)
		if len(parts) != 3 || !strings.EqualFold(trimFWS(parts[0]), "sha256") {
			continue
		}
		var err1, err2 error
		m.header, err1 = base64.StdEncoding.DecodeString(dropFWS(parts[1]))
		m.body, err2 = base64.StdEncoding.DecodeString(dropFWS(parts[2]))
		if err1 != nil || err2 != nil {
			return permError("hash is no base64")
		}
		break
	}
	if len(m.header) != sha256.Size || len(m.body) != sha256.Size {
		return permError("no SHA-256 hashes in h=")
	}
	if _, ok := tags.get("r"); !ok {
		return nil
	}
	text, err := tags.base64("r")
	if err != nil {
		return permError(err.Error())
	}
	if m.recipe, err = parseRecipe(text); err != nil {
		return permError("recipe: " + err.Error())
	}
	return nil
}

// checkOrder wants the numbers without gap or double, and the times credible.
func (c *dkim2Chain) checkOrder() *problem {
	for k, s := range c.sigs {
		switch {
		case s.i != k+1:
			return permError("signatures are not numbered from 1 without a gap")
		case s.m > len(c.instances), k > 0 && s.m < c.sigs[k-1].m:
			return permError("signature " + strconv.Itoa(s.i) + " is over no Message-Instance")
		case c.now.Sub(s.hop.Signed) > maxDKIM2Age:
			return permError("signature " + strconv.Itoa(s.i) + " has expired")
		case s.hop.Signed.After(c.now.Add(clockSkew)):
			return permError("signature " + strconv.Itoa(s.i) + " is from the future")
		}
	}
	for k, m := range c.instances {
		if m.m != k+1 {
			return permError("Message-Instances are not numbered from 1 without a gap")
		}
	}
	if len(c.instances) != c.sigs[len(c.sigs)-1].m {
		return permError("a Message-Instance is not signed")
	}
	return nil
}

// checkEnvelope compares the newest signature with the envelope that we got the message with: this is
// what stops a replay.
func (c *dkim2Chain) checkEnvelope() *problem {
	last := &c.sigs[len(c.sigs)-1].hop
	if last.Next != "" {
		return permError("the last signature has no envelope")
	}
	if last.From != c.from {
		return permError("MAIL FROM is not the signed one")
	}
	for _, to := range c.to {
		if !slices.Contains(last.To, to) {
			return permError("RCPT TO is not among the signed ones")
		}
	}
	if !last.From.IsNull() && !within(last.From.Domain, last.Domain) {
		return permError("MAIL FROM is not of the signing domain")
	}
	return nil
}

// checkCustody wants each hop to be one that the hop before handed the message to.
func (c *dkim2Chain) checkCustody() *problem {
	for k := 1; k < len(c.sigs); k++ {
		before, hop := &c.sigs[k-1].hop, &c.sigs[k].hop
		ok := before.Next != "" && before.Next == hop.Domain
		for _, to := range before.To {
			ok = ok || !hop.From.IsNull() && within(hop.From.Domain, to.Domain)
		}
		if !ok {
			return permError("hop " + strconv.Itoa(k+1) + " was not handed the message")
		}
	}
	return nil
}

// within reports whether a domain is another or below it.
func within(d, top mail.Domain) bool {
	return d == top || strings.HasSuffix(string(d), "."+string(top))
}

// checkSignatures verifies every signature of every hop whose algorithm we know.
func (c *dkim2Chain) checkSignatures(ctx context.Context, r dns.Resolver) *problem {
	ctx, cancel := context.WithCancel(ctx)
	defer c.keys.wg.Wait()
	defer cancel()
	for _, s := range c.sigs {
		if len(s.sets) == 0 {
			return &problem{Fail, "hop " + strconv.Itoa(s.i) + " has no signature that we can verify"}
		}
		for _, set := range s.sets {
			c.keys.ask(ctx, r, set.keyName)
		}
	}
	for _, s := range c.sigs {
		digest := c.digest(s)
		for _, set := range s.sets {
			key, _, p := c.keys.key(set.keyName, set.algorithm, maxDKIM2Bits)
			switch {
			case p != nil && p.state == Policy:
				return permError(p.words)
			case p != nil:
				return p
			case !key.verify(digest, set.sig):
				return &problem{Fail, "signature " + strconv.Itoa(s.i) + " did not verify"}
			}
		}
	}
	return nil
}

// digest hashes what a signature covers: the instances up to its own, the signatures before it, and
// itself with the signatures in s= emptied; all without white space.
func (c *dkim2Chain) digest(s *dkim2Signature) []byte {
	h := sha256.New()
	var buf []byte
	for _, m := range c.instances {
		if m.m <= s.m {
			buf = appendBare(buf[:0], m.raw)
			h.Write(buf)
		}
	}
	for _, earlier := range c.sigs[:s.i-1] {
		buf = appendBare(buf[:0], earlier.raw)
		h.Write(buf)
	}
	start, end := s.tags.span("s")
	value := len(s.raw) - len(rawValue(s.raw))
	self := slices.Concat(s.raw[:value+start], emptied(s.raw[value+start:value+end]),
		s.raw[value+end:])
	h.Write(appendBare(buf[:0], self))
	return h.Sum(nil)
}

// emptied removes what follows the second colon of each set in s=.
func emptied(sets []byte) []byte {
	var out []byte
	for k, set := range bytes.Split(sets, []byte(",")) {
		if k > 0 {
			out = append(out, ',')
		}
		if parts := bytes.SplitN(set, []byte(":"), 3); len(parts) == 3 {
			set = set[:len(set)-len(parts[2])]
		}
		out = append(out, set...)
	}
	return out
}

// appendBare appends a field with its name in lower case and all white space removed.
func appendBare(dst, raw []byte) []byte {
	name := true
	for _, c := range raw {
		if name && 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		name = name && c != ':'
		if !isFWS(c) {
			dst = append(dst, c)
		}
	}
	return append(dst, '\r', '\n')
}

// checkInstances compares the message with the newest instance, undoes what its hop changed, compares
// with the one before, and so on down to what the author sent.
func (c *dkim2Chain) checkInstances(h mail.Header, body []byte) *problem {
	state := newVersion(h, body)
	for k := len(c.instances) - 1; k >= 0; k-- {
		m := c.instances[k]
		if !bytes.Equal(state.headerHash(), m.header) {
			return &problem{Fail, "header of instance " + strconv.Itoa(m.m) + " did not verify"}
		}
		if !bytes.Equal(state.bodyHash(), m.body) {
			return &problem{Fail, "body of instance " + strconv.Itoa(m.m) + " did not verify"}
		}
		if k > 0 && m.recipe != nil {
			if err := state.undo(m.recipe); err != nil {
				return &problem{Fail, "instance " + strconv.Itoa(m.m) + ": " + err.Error()}
			}
		}
	}
	return nil
}

// checkFlags holds later hops to what an earlier one asked.
func (c *dkim2Chain) checkFlags() *problem {
	for k, s := range c.sigs {
		for _, later := range c.sigs[k+1:] {
			a, b := c.instances[s.m-1], c.instances[later.m-1]
			same := bytes.Equal(a.header, b.header) && bytes.Equal(a.body, b.body)
			if slices.Contains(s.hop.Flags, "donotmodify") && !same {
				return &problem{Fail, "changed although a hop asked not to"}
			}
			if slices.Contains(s.hop.Flags, "donotexplode") &&
				slices.Contains(later.hop.Flags, "exploded") {
				return &problem{Fail, "sent to many although a hop asked not to"}
			}
		}
	}
	return nil
}
