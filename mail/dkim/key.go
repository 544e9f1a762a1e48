package dkim

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"strings"
	"sync"

	"github.com/tallypost/tallypost/internal/dns"
)

// keyRecord is a key as the DNS has it (RFC 6376, section 3.6.1).
type keyRecord struct {
	text      string
	algorithm algorithm
	public    crypto.PublicKey
	bits      int
	testing   bool // t=y
	strict    bool // t=s: i= must be of d= itself
}

// parseKey reads a key record.
func parseKey(text string) (*keyRecord, *problem) {
	tags, err := parseTags(text)
	if err != nil {
		return nil, permError("key record: " + err.Error())
	}
	if v, ok := tags.get("v"); ok && (v != "DKIM1" || tags[0].name != "v") {
		return nil, permError("key record of another version")
	}
	if h, ok := tags.get("h"); ok && !hasItem(h, "sha256", false) {
		return nil, permError("key is not for SHA-256")
	}
	if s, ok := tags.get("s"); ok && !hasItem(s, "email", true) {
		return nil, permError("key is not for mail")
	}
	k := &keyRecord{text: text}
	if t, ok := tags.get("t"); ok {
		k.testing, k.strict = hasItem(t, "y", false), hasItem(t, "s", false)
	}
	p, ok := tags.get("p")
	if !ok {
		return nil, permError("key record without a key")
	}
	p = dropFWS(p)
	if p == "" {
		return nil, permError("key was withdrawn")
	}
	der, err := base64.StdEncoding.DecodeString(p)
	if err != nil || len(der) > 2048 {
		return nil, permError("key is no base64")
	}
	kind, ok := tags.get("k")
	if !ok {
		kind = "rsa"
	}
	return k, k.parsePublic(strings.ToLower(kind), der)
}

func (k *keyRecord) parsePublic(kind string, der []byte) *problem {
	switch kind {
	case "rsa":
		public, err := parseRSA(der)
		if err != nil {
			return permError("key is no RSA key")
		}
		k.algorithm, k.public, k.bits = rsaSHA256, public, public.N.BitLen()
	case "ed25519":
		// RFC 8463, section 4: the 32 octets themselves.
		if len(der) != ed25519.PublicKeySize {
			return permError("key is no Ed25519 key")
		}
		k.algorithm, k.public, k.bits = ed25519SHA256, ed25519.PublicKey(der), 256
	default:
		return permError("key of an unknown type")
	}
	return nil
}

// parseRSA reads a SubjectPublicKeyInfo, or the bare RSAPublicKey that RFC 6376 named by mistake
// (erratum 3017) and some publish.
func parseRSA(der []byte) (*rsa.PublicKey, error) {
	if public, err := x509.ParsePKIXPublicKey(der); err == nil {
		if r, ok := public.(*rsa.PublicKey); ok {
			return r, nil
		}
		return nil, errors.New("not RSA")
	}
	return x509.ParsePKCS1PublicKey(der)
}

// checkLength refuses RSA keys below 1024 bits, which RFC 8301, section 3.2, forbids to take as
// valid, and long ones, with which the work would be the attacker's to choose.
func (k *keyRecord) checkLength(most int) *problem {
	if k.algorithm == rsaSHA256 && (k.bits < minRSABits || k.bits > most) {
		return &problem{Policy, "RSA key of a length that we do not take"}
	}
	return nil
}

// verify checks a signature over a SHA-256 digest.
func (k *keyRecord) verify(digest, sig []byte) bool {
	switch public := k.public.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest, sig) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(public, digest, sig)
	}
	return false
}

// lookup asks for one key name. It is filled by one goroutine and read after done was closed.
type lookup struct {
	name          string
	records       []string
	authenticated bool
	problem       *problem
	done          chan struct{}
}

func (l *lookup) run(ctx context.Context, r dns.Resolver) {
	defer close(l.done)
	var err error
	l.records, l.authenticated, err = r.TXT(ctx, l.name)
	switch {
	case errors.Is(err, dns.ErrNotFound) || err == nil && len(l.records) == 0:
		l.problem = permError("no key at " + l.name)
	case err != nil:
		l.problem = &problem{TempError, "key lookup: " + err.Error()}
	}
}

// key returns the record for an algorithm, with an RSA key of at most so many bits. Where a name has
// several records, which RFC 6376 leaves undefined, the first that fits is taken; else the first
// problem is told.
func (l *lookup) key(a algorithm, most int) (*keyRecord, *problem) {
	<-l.done
	if l.problem != nil {
		return nil, l.problem
	}
	var first *problem
	for _, text := range l.records[:min(len(l.records), maxKeyRecords)] {
		k, p := parseKey(text)
		if p == nil && k.algorithm != a {
			p = permError("key is for another algorithm")
		}
		if p == nil {
			p = k.checkLength(most)
		}
		if p == nil {
			return k, nil
		}
		if first == nil {
			first = p
		}
	}
	return nil, first
}

// keyring looks up the keys that the signatures of one message name: each once, a few at a time.
type keyring struct {
	list  []*lookup
	slots chan struct{}
	wg    sync.WaitGroup
}

// ask starts to look up a key, unless it was asked for before or there were too many.
func (k *keyring) ask(ctx context.Context, r dns.Resolver, name string) {
	if k.find(name) != nil || len(k.list) == maxLookups {
		return
	}
	if k.slots == nil {
		k.slots = make(chan struct{}, maxConcurrent)
	}
	l := &lookup{name: name, done: make(chan struct{})}
	k.list = append(k.list, l)
	k.wg.Go(func() {
		k.slots <- struct{}{}
		l.run(ctx, r)
		<-k.slots
	})
}

// find returns the lookup of a name that was asked for, or nil.
func (k *keyring) find(name string) *lookup {
	for _, l := range k.list {
		if l.name == name {
			return l
		}
	}
	return nil
}

// key waits for the key of a name. The lookup tells where it came from.
func (k *keyring) key(name string, a algorithm, most int) (*keyRecord, *lookup, *problem) {
	l := k.find(name)
	if l == nil {
		return nil, nil, permError("too many keys to look up")
	}
	key, p := l.key(a, most)
	return key, l, p
}
