package dkim

import (
	"crypto/sha256"
	"strconv"
	"strings"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// ARCResult is what became of a message's ARC chain (RFC 8617, section 5.2): who handled the
// message and what each claims to have found. Only who trusts a sealer can use its claims, and
// never to accept what would else be refused for other reasons than a broken SPF or DKIM.
type ARCResult struct {
	State  State // None, Pass, Fail, or TempError where a key could not be looked up now
	Reason string
	// Sets are the hops, the first to seal first. Where State is not Pass they prove nothing.
	Sets []ARCSet
}

// ARCSet is one hop.
type ARCSet struct {
	Sealer   mail.Domain
	Selector string
	Results  mail.AuthResults // what it claims to have found; empty if it could not be read
}

// AuthResult returns the result as Authentication-Results has it (RFC 8617, section 10.1).
func (r ARCResult) AuthResult() mail.AuthResult {
	a := mail.AuthResult{Method: "arc", Result: string(r.State), Comment: r.Reason}
	if r.State == TempError {
		a.Result = string(Fail) // the method has no other word
	}
	if n := len(r.Sets); n > 0 {
		a.Comment = strings.TrimPrefix(a.Comment+", i="+strconv.Itoa(n)+" of "+
			r.Sets[n-1].Sealer.ASCII(), ", ")
	}
	return a
}

// chain is the ARC sets of a message.
type chain struct {
	sets   []arcSet // instance 1 first
	broken string   // what is wrong with the structure; nothing is verified then
}

// arcSet is one ARC set: its three fields and the parsed signatures.
type arcSet struct {
	results, message, seal mail.Field
	ams, as                *signature
	claims                 string // the results field after its instance
}

func (s *arcSet) complete() bool {
	return s.results.Raw != nil && s.message.Raw != nil && s.seal.Raw != nil
}

// parseChain collects the ARC sets; nil where there is no ARC field at all.
func parseChain(h mail.Header, now time.Time) *chain {
	var c *chain
	for _, f := range h.Fields {
		kind, ok := arcKind(f)
		if !ok {
			continue
		}
		if c == nil {
			c = new(chain)
		}
		if c.broken == "" {
			c.add(f, kind, now)
		}
	}
	if c != nil && c.broken == "" {
		c.checkStructure()
	}
	return c
}

const arcResults fieldKind = 100

func arcKind(f mail.Field) (fieldKind, bool) {
	switch {
	case f.Is("ARC-Seal"):
		return arcSeal, true
	case f.Is("ARC-Message-Signature"):
		return arcMessage, true
	case f.Is("ARC-Authentication-Results"):
		return arcResults, true
	}
	return 0, false
}

// add puts a field into the set of its instance.
func (c *chain) add(f mail.Field, kind fieldKind, now time.Time) {
	var instance, claims string
	var sig *signature
	if kind == arcResults {
		i, rest, _ := strings.Cut(string(f.RawValue()), ";")
		name, value, _ := strings.Cut(i, "=")
		if trimFWS(name) == "i" {
			instance, claims = trimFWS(value), rest
		}
	} else {
		sig = parseSignature(f, kind, now)
		instance, _ = sig.tags.get("i")
	}
	n, err := strconv.Atoi(instance)
	if err != nil || n < 1 || n > maxARCSets || instance[0] == '+' {
		c.broken = "ARC field without a valid instance"
		return
	}
	for len(c.sets) < n {
		c.sets = append(c.sets, arcSet{})
	}
	set := &c.sets[n-1]
	slot := map[fieldKind]*mail.Field{arcResults: &set.results, arcMessage: &set.message,
		arcSeal: &set.seal}[kind]
	if slot.Raw != nil {
		c.broken = "two ARC fields of a kind in instance " + instance
		return
	}
	*slot = f
	switch kind {
	case arcMessage:
		set.ams = sig
	case arcSeal:
		set.as = sig
	default:
		set.claims = claims
	}
}

// checkStructure does steps 2 and 3 of RFC 8617, section 5.2.
func (c *chain) checkStructure() {
	for i := range c.sets {
		s := &c.sets[i]
		if !s.complete() {
			c.broken = "ARC set " + strconv.Itoa(i+1) + " is not complete"
			return
		}
		cv, _ := s.as.tags.get("cv")
		switch cv = strings.ToLower(cv); {
		case cv == "fail":
			c.broken = "a sealer found the chain broken"
		case i == 0 && cv != "none", i > 0 && cv != "pass":
			c.broken = "wrong cv= in ARC set " + strconv.Itoa(i+1)
		}
	}
}

// newest returns the last set.
func (c *chain) newest() *arcSet { return &c.sets[len(c.sets)-1] }

// needed returns the signatures that decide: the newest message signature and every seal.
func (c *chain) needed() []*signature {
	if c.broken != "" {
		return nil
	}
	list := []*signature{c.newest().ams}
	for i := range c.sets {
		list = append(list, c.sets[i].as)
	}
	return list
}

// verify does steps 4 to 6 of RFC 8617, section 5.2.
func (c *chain) verify(v *Verifier, sums [canons][]byte) ARCResult {
	r := ARCResult{State: Fail, Reason: c.broken}
	if c.broken != "" {
		return r
	}
	for i := range c.sets {
		s := &c.sets[i]
		set := ARCSet{Sealer: s.as.res.Domain, Selector: s.as.res.Selector}
		if a, err := mail.ParseAuthResults(s.claims); err == nil {
			set.Results = a
		}
		r.Sets = append(r.Sets, set)
	}
	if p := v.verifyMessage(c.newest().ams, sums); p != nil {
		return r.failed(p, "message signature", len(c.sets))
	}
	for i := len(c.sets); i > 0; i-- {
		if p := v.verifySeal(c, i); p != nil {
			return r.failed(p, "seal", i)
		}
	}
	r.State = Pass
	return r
}

func (r ARCResult) failed(p *problem, what string, instance int) ARCResult {
	r.Reason = what + " " + strconv.Itoa(instance) + ": " + p.words
	if p.state == TempError {
		r.State = TempError
	}
	return r
}

// verifyMessage verifies an ARC-Message-Signature, which is a DKIM-Signature but for i= and v=.
func (v *Verifier) verifyMessage(s *signature, sums [canons][]byte) *problem {
	if s.problem != nil {
		return s.problem
	}
	return v.check(s, sums)
}

// verifySeal verifies the ARC-Seal of one instance: it covers all sets up to its own (RFC 8617,
// section 5.1.1).
func (v *Verifier) verifySeal(c *chain, instance int) *problem {
	s := c.sets[instance-1].as
	if s.problem != nil {
		return s.problem
	}
	key, p := v.key(s)
	if p != nil {
		return p
	}
	if !key.verify(c.sealHash(instance, s), s.sig) {
		return &problem{Fail, "signature did not verify"}
	}
	return nil
}

// sealHash hashes the sets up to an instance, whose seal is s with its b= emptied.
func (c *chain) sealHash(instance int, s *signature) []byte {
	h := sha256.New()
	var buf []byte
	for i := range c.sets[:instance] {
		set := &c.sets[i]
		buf = appendRelaxed(buf[:0], set.results.Raw)
		buf = appendRelaxed(buf, set.message.Raw)
		if i+1 == instance {
			buf = s.appendSelf(buf)
		} else {
			buf = appendRelaxed(buf, set.seal.Raw)
		}
		h.Write(buf)
	}
	return h.Sum(nil)
}
