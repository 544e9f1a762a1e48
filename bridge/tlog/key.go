package tlog

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

const (
	// MaxOrigin is the greatest length of an origin in octets. It stands in replies of SMTP, whose
	// lines have 512 (RFC 5321, section 4.5.3.1.5).
	MaxOrigin = 255

	// maxKey is longer than any key with a name of MaxOrigin.
	maxKey = 512

	algEd25519 = 1 // signature type of C2SP signed-note
)

// CheckOrigin says what is wrong with a name for a log of ours. An origin should be an address
// without scheme, "mail.example.org/tlog"; it must be printable ASCII without space, '+', which
// ends a name in a key, and '#', which stands between origin and index in a reply.
func CheckOrigin(origin string) error {
	if origin == "" || len(origin) > MaxOrigin {
		return fmt.Errorf("origin of %d characters, want 1 to %d", len(origin), MaxOrigin)
	}
	for i := 0; i < len(origin); i++ {
		if c := origin[i]; c <= ' ' || c >= 0x7f || c == '+' || c == '#' {
			return fmt.Errorf("origin %q has the character %q: want ASCII that prints, without + and #",
				origin, c)
		}
	}
	return nil
}

// Verifier is the public key of a log.
type Verifier struct {
	note.Verifier
	text string
}

// String returns the key as it is published: "<origin>+<key id>+<base 64 of type and key>".
func (v *Verifier) String() string { return v.text }

// ParseVerifier reads what String wrote, and nothing else.
func ParseVerifier(vkey string) (*Verifier, error) {
	if len(vkey) > maxKey {
		return nil, fmt.Errorf("verifier key of %d characters, the limit is %d", len(vkey), maxKey)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("verifier key %q: %w", vkey, err)
	}
	// The third part has '+' among its characters, the first two have not.
	key, err := base64.StdEncoding.DecodeString(strings.SplitN(vkey, "+", 3)[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize {
		return nil, fmt.Errorf("verifier key %q: not an Ed25519 key", vkey)
	}
	text, err := note.NewEd25519VerifierKey(v.Name(), key[1:])
	if err != nil {
		return nil, fmt.Errorf("verifier key %q: %w", vkey, err)
	}
	if text != vkey {
		return nil, fmt.Errorf("verifier key %q is not in canonical form, which is %q", vkey, text)
	}
	return &Verifier{Verifier: v, text: text}, nil
}

// Signer is the private key of a log.
type Signer struct {
	note.Signer
	verifier *Verifier
}

// Verifier returns the public half.
func (s *Signer) Verifier() *Verifier { return s.verifier }

// ParseSigner reads a private key, "PRIVATE+KEY+<origin>+<key id>+<base 64 of type and seed>". Its
// errors do not repeat the key.
func ParseSigner(skey string) (*Signer, error) {
	if len(skey) > maxKey {
		return nil, fmt.Errorf("signing key of %d characters, the limit is %d", len(skey), maxKey)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.SplitN(skey, "+", 5)[4])
	if err != nil || len(key) != 1+ed25519.SeedSize || key[0] != algEd25519 {
		return nil, errors.New("signing key: not an Ed25519 key")
	}
	public := ed25519.NewKeyFromSeed(key[1:]).Public().(ed25519.PublicKey)
	vkey, err := note.NewEd25519VerifierKey(s.Name(), public)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	v, err := ParseVerifier(vkey)
	if err != nil {
		return nil, err
	}
	return &Signer{Signer: s, verifier: v}, nil
}

// GenerateKey makes a private key for the log of this origin, in the form that ParseSigner reads.
func GenerateKey(origin string) (skey string, err error) {
	if err := CheckOrigin(origin); err != nil {
		return "", err
	}
	skey, _, err = note.GenerateKey(rand.Reader, origin)
	return skey, err
}
