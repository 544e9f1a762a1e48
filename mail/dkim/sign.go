package dkim

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
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

// Key is a signing key with the name of its public half.
type Key struct {
	Domain   mail.Domain
	Selector string
	Private  crypto.Signer // *rsa.PrivateKey or ed25519.PrivateKey
}

// SignConfig says how to sign. Keys is needed.
type SignConfig struct {
	// Keys each make a signature, in this order. RSA and Ed25519 together reach those who verify
	// only one (RFC 8463, section 3).
	Keys []Key
	// Expire is how long a signature is valid; zero is for ever. A replay of signed mail to
	// strangers ends with it, and so does the proof that a stored mail gives.
	Expire time.Duration
}

// Signer signs messages. It may be used from several goroutines.
type Signer struct {
	keys   []Key
	expire time.Duration
}

// sealed are the fields that every signature covers once more than they are there, so that nobody
// can add one or put one in front (RFC 6376, section 8.15).
var sealed = []string{"From", "Subject", "Date", "Message-ID", "Reply-To", "In-Reply-To",
	"References", "MIME-Version", "Content-Type", "Content-Transfer-Encoding", "To", "Cc"}

// sealedIfThere are covered in the same way, but only where the author wrote them: a mailing list
// adds them to what it passes on, and if it changes nothing else the signature is to survive.
var sealedIfThere = []string{"Sender", "Content-Disposition", "Content-ID", "Content-Language",
	"List-Id", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Post", "List-Help", "List-Owner",
	"List-Subscribe", "List-Archive", "Auto-Submitted", "Resent-From", "Resent-To", "Resent-Cc",
	"Resent-Date", "Resent-Message-ID", "Feedback-ID", "TLS-Required", "Autocrypt"}

// NewSigner returns a Signer, or what is wrong with its keys.
func NewSigner(cfg SignConfig) (*Signer, error) {
	if len(cfg.Keys) == 0 {
		return nil, errors.New("dkim: no key to sign with")
	}
	for _, k := range cfg.Keys {
		if err := k.check(); err != nil {
			return nil, fmt.Errorf("dkim: key %s of %s: %w", k.Selector, k.Domain, err)
		}
	}
	if cfg.Expire < 0 {
		return nil, errors.New("dkim: negative expiry")
	}
	return &Signer{keys: slices.Clone(cfg.Keys), expire: cfg.Expire}, nil
}

func (k Key) check() error {
	if _, err := domainName(string(k.Domain)); err != nil {
		return fmt.Errorf("domain: %w", err)
	}
	if _, err := domainName(k.Selector); err != nil {
		return fmt.Errorf("selector: %w", err)
	}
	if k.algorithm() == "" {
		return fmt.Errorf("a %T cannot sign", k.Private)
	}
	if private, ok := k.Private.(*rsa.PrivateKey); ok {
		if n := private.N.BitLen(); n < minRSABits || n > maxRSABits {
			return fmt.Errorf("RSA key of %d bits, want %d to %d", n, minRSABits, maxRSABits)
		}
	}
	return nil
}

func (k Key) algorithm() string {
	switch k.Private.(type) {
	case *rsa.PrivateKey:
		return "rsa-sha256"
	case ed25519.PrivateKey:
		return "ed25519-sha256"
	}
	return ""
}

// sign signs a SHA-256 digest.
func (k Key) sign(digest []byte) ([]byte, error) {
	opts := crypto.SignerOpts(crypto.SHA256)
	if _, ok := k.Private.(ed25519.PrivateKey); ok {
		opts = crypto.Hash(0) // RFC 8463, section 3: PureEdDSA over the digest
	}
	return k.Private.Sign(rand.Reader, digest, opts)
}

// Signing is one message on its way to be signed. It is for one goroutine.
type Signing struct {
	signer *Signer
	now    time.Time
	names  []string
	header hash.Hash // of the canonical fields, shared by all signatures
	body   *bodyHash
}

// Begin takes the header of a message. The body follows by Write, then Finish makes the signatures.
func (s *Signer) Begin(h mail.Header, now time.Time) (*Signing, error) {
	source := newHeaderSource(h)
	if n := source.count("From"); n != 1 {
		return nil, fmt.Errorf("dkim: %d From fields, a message has one", n)
	}
	g := &Signing{signer: s, now: now, header: sha256.New(), body: newBodyHash(relaxed)}
	g.names = signedNames(source)
	source.write(g.header, g.names, relaxed)
	return g, nil
}

// signedNames returns the names for h=.
func signedNames(source *headerSource) []string {
	names := make([]string, 0, 32)
	for _, n := range sealed {
		for range source.count(n) + 1 {
			names = append(names, n)
		}
	}
	for _, n := range sealedIfThere {
		if there := source.count(n); there > 0 {
			for range there + 1 {
				names = append(names, n)
			}
		}
	}
	return names[:min(len(names), maxSignedFields)]
}

// Write takes the next octets of the body.
func (g *Signing) Write(p []byte) (int, error) { return g.body.Write(p) }

// Finish returns the DKIM-Signature fields, one for each key, to be put in front of the message. It is
// called once.
func (g *Signing) Finish() ([]byte, error) {
	bh := base64.StdEncoding.EncodeToString(g.body.sum())
	g.body.release()
	g.body = nil
	var out []byte
	for _, k := range g.signer.keys {
		f := newFolder("DKIM-Signature")
		f.tag("v", "1")
		f.tag("a", k.algorithm())
		f.tag("c", "relaxed/relaxed")
		f.tag("d", k.Domain.ASCII())
		f.tag("s", k.Selector)
		f.tag("t", strconv.FormatInt(g.now.Unix(), 10))
		if g.signer.expire > 0 {
			f.tag("x", strconv.FormatInt(g.now.Add(g.signer.expire).Unix(), 10))
		}
		f.list("h", g.names)
		f.tag("bh", bh)
		f.tag("b", "")

		own, err := cloneHash(g.header)
		if err != nil {
			return nil, err
		}
		self := appendRelaxed(nil, f.field())
		own.Write(self[:len(self)-2])
		sig, err := k.sign(own.Sum(nil))
		if err != nil {
			return nil, fmt.Errorf("dkim: sign with key %s of %s: %w", k.Selector, k.Domain, err)
		}
		f.long(base64.StdEncoding.EncodeToString(sig))
		out = append(out, f.field()...)
	}
	return out, nil
}

// cloneHash copies the state of a hash.
func cloneHash(h hash.Hash) (hash.Hash, error) {
	c, ok := h.(hash.Cloner)
	if !ok {
		return nil, errors.New("dkim: this SHA-256 cannot be copied")
	}
	return c.Clone()
}

// Sign signs a whole message at once and returns the fields to be put in front of it.
func (s *Signer) Sign(msg []byte, now time.Time) ([]byte, error) {
	h, err := mail.ParseHeader(msg)
	if err != nil {
		return nil, fmt.Errorf("dkim: %w", err)
	}
	g, err := s.Begin(h, now)
	if err != nil {
		return nil, err
	}
	g.Write(msg[h.Len:])
	return g.Finish()
}

// folder writes a field of tags in lines of at most 76 octets where it can.
type folder struct {
	b   bytes.Buffer
	col int
}

const foldAt = 76

func newFolder(name string) *folder {
	f := new(folder)
	f.b.WriteString(name + ":")
	f.col = f.b.Len()
	return f
}

// tag writes " name=value;", on a new line if this one is full. The last tag has no semicolon.
func (f *folder) tag(name, value string) {
	if f.b.Bytes()[f.b.Len()-1] != ':' {
		f.b.WriteByte(';')
	}
	f.word(name + "=" + value)
}

func (f *folder) word(w string) {
	if f.col+len(w)+2 > foldAt {
		f.b.WriteString("\r\n\t")
		f.col = 8
	} else {
		f.b.WriteByte(' ')
		f.col++
	}
	f.b.WriteString(w)
	f.col += len(w)
}

// list writes a list with colons, folded after them.
func (f *folder) list(name string, items []string) {
	f.tag(name, items[0])
	for _, item := range items[1:] {
		f.b.WriteByte(':')
		if f.col+len(item)+2 > foldAt {
			f.b.WriteString("\r\n\t ")
			f.col = 9
		}
		f.b.WriteString(item)
		f.col += len(item) + 1
	}
}

// long writes base 64 behind the last tag, folded anywhere.
func (f *folder) long(s string) {
	for {
		n := min(len(s), max(foldAt-f.col-1, 1))
		f.b.WriteString(s[:n])
		if s = s[n:]; s == "" {
			return
		}
		f.b.WriteString("\r\n\t ")
		f.col = 9
	}
}

// field returns the field as it stands, with its final CRLF.
func (f *folder) field() []byte {
	return append(bytes.Clone(f.b.Bytes()), '\r', '\n')
}
