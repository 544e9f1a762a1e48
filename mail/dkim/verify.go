package dkim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
)

// VerifyConfig says how to verify. The zero value is ready for use.
type VerifyConfig struct {
	// MaxSignatures is how many DKIM signatures of a message are looked at, from the top.
	// DefaultMaxSignatures if zero.
	MaxSignatures int
	// SkipARC leaves ARC chains alone: Verifier.ARC then says None.
	SkipARC bool
}

// Verifier verifies the signatures of one message as it streams by. Its methods are for one
// goroutine.
//
//	v := dkim.NewVerifier(ctx, resolver, header, now, dkim.VerifyConfig{})
//	defer v.Close()
//	io.Copy(v, body)
//	results := v.Finish()
type Verifier struct {
	source *headerSource
	bodies bodyHashes
	sigs   []*signature
	chain  *chain

	keys   keyring
	cancel context.CancelFunc
	arc    ARCResult
}

// NewVerifier reads the signatures of a header and starts to look up their keys. Close must be
// called, or Finish, which ends the lookups too. The header's octets must not change before.
func NewVerifier(ctx context.Context, r dns.Resolver, h mail.Header, now time.Time,
	cfg VerifyConfig) *Verifier {
	if cfg.MaxSignatures == 0 {
		cfg.MaxSignatures = DefaultMaxSignatures
	}
	v := &Verifier{cancel: func() {}, arc: ARCResult{State: None}}
	for _, f := range h.Fields {
		if len(v.sigs) < cfg.MaxSignatures && f.Is("DKIM-Signature") {
			v.sigs = append(v.sigs, parseSignature(f, dkimSignature, now))
		}
	}
	if !cfg.SkipARC {
		v.chain = parseChain(h, now)
	}
	if len(v.sigs) == 0 && v.chain == nil {
		return v
	}
	v.source = newHeaderSource(h)
	ctx, v.cancel = context.WithCancel(ctx)
	for _, s := range v.sigs {
		v.prepare(ctx, r, s)
	}
	if v.chain != nil {
		for _, s := range v.chain.needed() {
			v.prepare(ctx, r, s)
		}
	}
	return v
}

// prepare asks for the key and the body hash that a signature needs.
func (v *Verifier) prepare(ctx context.Context, r dns.Resolver, s *signature) {
	if s.problem != nil {
		return
	}
	if s.names != nil {
		v.bodies.want(s.body)
	}
	v.keys.ask(ctx, r, s.keyName)
}

// Write takes the next octets of the body.
func (v *Verifier) Write(p []byte) (int, error) { return v.bodies.Write(p) }

// Close gives the message up and waits until all lookups have ended. It does nothing after Finish.
func (v *Verifier) Close() error {
	v.cancel()
	v.keys.wg.Wait()
	v.bodies.release()
	return nil
}

// Finish returns a result for each signature, from the top of the header; none where there is none.
func (v *Verifier) Finish() []Result {
	defer v.Close()
	sums := v.bodies.sums()
	if len(v.sigs) == 0 && v.chain == nil {
		return nil
	}
	results := make([]Result, len(v.sigs))
	for i, s := range v.sigs {
		v.verify(s, sums)
		results[i] = s.res
	}
	if v.chain != nil {
		v.arc = v.chain.verify(v, sums)
	}
	return results
}

// verify brings a signature's result to its end.
func (v *Verifier) verify(s *signature, sums [canons][]byte) {
	p := s.problem
	if p == nil {
		p = v.check(s, sums)
	}
	if p != nil {
		s.res.State, s.res.Reason = p.state, p.words
		return
	}
	s.res.State = Pass
}

// check does what needs the key and the body (RFC 6376, section 6.1).
func (v *Verifier) check(s *signature, sums [canons][]byte) *problem {
	key, p := v.key(s)
	if p != nil {
		return p
	}
	if key.strict && s.res.Identity != "" && !identityIn(s.res.Identity, s.res.Domain) {
		return permError("i= is below the domain, which its key does not allow (t=s)")
	}
	if !bytes.Equal(sums[s.body], s.bh) {
		return &problem{Fail, "body hash did not verify"}
	}
	if !key.verify(v.headerHash(s), s.sig) {
		return &problem{Fail, "signature did not verify"}
	}
	if n := v.source.count("From"); n > 1 && s.kind == dkimSignature && s.leavesFrom(n) {
		// RFC 6376, section 8.15: a From above the signed one is what many readers show.
		return &problem{Policy, "a further From is not signed"}
	}
	return nil
}

// key waits for the key of a signature.
func (v *Verifier) key(s *signature) (*keyRecord, *problem) {
	key, l, p := v.keys.key(s.keyName, s.algorithm, maxRSABits)
	if p != nil {
		return nil, p
	}
	s.res.Record, s.res.Authenticated = key.text, l.authenticated
	s.res.KeyBits, s.res.Testing = key.bits, key.testing
	return key, nil
}

// leavesFrom reports whether h= has From less often than the header has.
func (s *signature) leavesFrom(fields int) bool {
	for _, name := range s.names {
		if len(name) == 4 && nameHash(name) == nameHash("from") {
			fields--
		}
	}
	return fields > 0
}

// identityIn reports whether an identity is of the domain itself, not of one below.
func identityIn(identity string, d mail.Domain) bool {
	at := bytes.LastIndexByte([]byte(identity), '@')
	host, err := domainName(identity[at+1:])
	return err == nil && host == d
}

// headerHash hashes the signed fields and the signature's own.
func (v *Verifier) headerHash(s *signature) []byte {
	h := sha256.New()
	v.source.write(h, s.names, s.header)
	v.source.scratch = s.appendSelf(v.source.scratch[:0])
	h.Write(v.source.scratch)
	return h.Sum(v.source.scratch[:0])
}

// ARC returns what became of the message's ARC chain. It is valid after Finish.
func (v *Verifier) ARC() ARCResult { return v.arc }
