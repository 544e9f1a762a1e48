package dkim

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// Sealer adds ARC sets to messages that are passed on (RFC 8617, section 5.1). It may be used from
// several goroutines.
type Sealer struct {
	key Key
}

// NewSealer returns a Sealer, or what is wrong with its key. RFC 8617 knows rsa-sha256 only by way
// of RFC 6376; an Ed25519 key seals what few can verify.
func NewSealer(key Key) (*Sealer, error) {
	if err := key.check(); err != nil {
		return nil, fmt.Errorf("arc: key %s of %s: %w", key.Selector, key.Domain, err)
	}
	return &Sealer{key: key}, nil
}

// ErrNoSeal is returned where a chain cannot be continued: it is full, has ended as failed, or
// could not be verified for now.
var ErrNoSeal = errors.New("arc: the chain cannot be continued")

// Sealing is one message on its way to be sealed. It is for one goroutine.
type Sealing struct {
	sealer   *Sealer
	now      time.Time
	instance int
	valid    string // cv=
	chain    *chain
	results  []byte // the new ARC-Authentication-Results
	names    []string
	header   hash.Hash
	body     *bodyHash
}

// Begin takes the header as it will be sent, what Verifier found of its chain, and the results of
// this server. The body follows by Write, then Finish makes the fields.
func (s *Sealer) Begin(h mail.Header, found ARCResult, results mail.AuthResults,
	now time.Time) (*Sealing, error) {
	source := newHeaderSource(h)
	names := signedNames(source)
	for range source.count("DKIM-Signature") {
		names = append(names, "DKIM-Signature")
	}
	return s.begin(h, source, names, found, results, now)
}

func (s *Sealer) begin(h mail.Header, source *headerSource, names []string, found ARCResult,
	results mail.AuthResults, now time.Time) (*Sealing, error) {
	g := &Sealing{sealer: s, now: now, chain: parseChain(h, now), names: names,
		header: sha256.New(), body: newBodyHash(relaxed)}
	if g.chain == nil {
		g.chain = new(chain)
	}
	g.instance = len(g.chain.sets) + 1
	switch {
	case g.instance > maxARCSets || found.State == TempError || g.chain.ended():
		return nil, ErrNoSeal
	case g.instance == 1 && g.chain.broken == "":
		g.valid = "none"
	case found.State == Pass && g.chain.broken == "":
		g.valid = "pass"
	default:
		g.valid = "fail"
	}
	g.results = []byte("ARC-Authentication-Results: i=" + strconv.Itoa(g.instance) + "; " +
		results.Value() + "\r\n")
	source.write(g.header, names, relaxed)
	return g, nil
}

// ended reports whether a sealer before us has declared the chain broken. RFC 8617, section 5.1.2:
// such a chain is not continued.
func (c *chain) ended() bool {
	for i := range c.sets {
		if c.sets[i].as != nil {
			if cv, _ := c.sets[i].as.tags.get("cv"); cv == "fail" {
				return true
			}
		}
	}
	return false
}

// Write takes the next octets of the body.
func (g *Sealing) Write(p []byte) (int, error) { return g.body.Write(p) }

// Finish returns the new ARC set, to be put in front of the message. It is called once.
func (g *Sealing) Finish() ([]byte, error) {
	bh := base64.StdEncoding.EncodeToString(g.body.sum())
	g.body.release()
	g.body = nil
	message, err := g.sign(g.header, func(b string) []byte { return g.messageField(bh, b) })
	if err != nil {
		return nil, err
	}
	seal, err := g.sign(g.sealScope(message), g.sealField)
	if err != nil {
		return nil, err
	}
	return slices.Concat(seal, message, g.results), nil
}

// sign hashes a field with its b= empty after what is in h, and returns the field with the
// signature.
func (g *Sealing) sign(h hash.Hash, field func(b string) []byte) ([]byte, error) {
	self := appendRelaxed(nil, field(""))
	h.Write(self[:len(self)-2])
	sig, err := g.sealer.key.sign(h.Sum(nil))
	if err != nil {
		return nil, fmt.Errorf("arc: seal with key %s of %s: %w", g.sealer.key.Selector,
			g.sealer.key.Domain, err)
	}
	return field(base64.StdEncoding.EncodeToString(sig)), nil
}

// messageField writes the ARC-Message-Signature.
func (g *Sealing) messageField(bh, b string) []byte {
	f := newFolder("ARC-Message-Signature")
	f.tag("a", g.sealer.key.algorithm())
	f.sig(b)
	f.tag("bh", bh)
	f.tag("c", "relaxed/relaxed")
	f.tag("d", g.sealer.key.Domain.ASCII())
	f.list("h", g.names)
	f.who(g)
	return f.field()
}

func (g *Sealing) sealField(b string) []byte {
	f := newFolder("ARC-Seal")
	f.tag("a", g.sealer.key.algorithm())
	f.sig(b)
	f.tag("cv", g.valid)
	f.tag("d", g.sealer.key.Domain.ASCII())
	f.who(g)
	return f.field()
}

// who writes the tags at the end of both fields.
func (f *folder) who(g *Sealing) {
	f.tag("i", strconv.Itoa(g.instance))
	f.tag("s", g.sealer.key.Selector)
	f.tag("t", strconv.FormatInt(g.now.Unix(), 10))
}

// sig writes b= on a line of its own, so that the folding of what follows does not depend on it. It
// is not folded itself, up to 686 octets with a key of 4096 bits: the seal covers it with its
// folding, which others change on the way, and the seals of ValiMail's suite have none.
func (f *folder) sig(b string) {
	f.col = foldAt
	f.tag("b", b)
	f.col = foldAt
}

// sealScope hashes what a seal covers before itself: all sets so far and the new one; or the new
// one alone where the chain is broken (RFC 8617, section 5.1.2).
func (g *Sealing) sealScope(message []byte) hash.Hash {
	h := sha256.New()
	var buf []byte
	if g.valid == "pass" {
		for i := range g.chain.sets {
			set := &g.chain.sets[i]
			for _, f := range []mail.Field{set.results, set.message, set.seal} {
				buf = appendRelaxed(buf, f.Raw)
			}
		}
	}
	buf = appendRelaxed(buf, g.results)
	buf = appendRelaxed(buf, message)
	h.Write(buf)
	return h
}
