package account

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"

	"golang.org/x/text/secure/precis"
)

// Iterations of PBKDF2 for new passwords. RFC 7677 asks for at least 4096; each log-in with PLAIN costs
// the server this many, so it is a few milliseconds and not more.
const Iterations = 15000

// MaxPassword bounds what a stranger can make us hash, in octets.
const MaxPassword = 1024

// Credential is what SCRAM-SHA-256 keeps of a password (RFC 5802, section 3). The zero value matches none.
type Credential struct {
	Salt       []byte `json:"salt"`
	Iterations int    `json:"iterations"`
	StoredKey  []byte `json:"stored_key"`
	ServerKey  []byte `json:"server_key"`
}

// NewCredential derives the credential of a password.
func NewCredential(password string) (Credential, error) {
	salt := make([]byte, 16)
	rand.Read(salt)
	return derive(password, salt, Iterations)
}

func derive(password string, salt []byte, iterations int) (Credential, error) {
	if len(password) > MaxPassword {
		return Credential{}, fmt.Errorf("password longer than %d octets", MaxPassword)
	}
	// RFC 7677 asks for SASLprep; its successor, the OpaqueString profile of RFC 8265, maps the same way
	// whatever people use in passwords.
	prepared, err := precis.OpaqueString.String(password)
	if err != nil {
		return Credential{}, fmt.Errorf("password: %w", err)
	}
	if prepared == "" {
		return Credential{}, errors.New("empty password")
	}
	salted, err := pbkdf2.Key(sha256.New, prepared, salt, iterations, sha256.Size)
	if err != nil {
		return Credential{}, err
	}
	clientKey := mac(salted, "Client Key")
	stored := sha256.Sum256(clientKey)
	return Credential{Salt: salt, Iterations: iterations, StoredKey: stored[:],
		ServerKey: mac(salted, "Server Key")}, nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// Matches reports whether the password is the one, in time that does not depend on how much of it is.
func (c Credential) Matches(password string) bool {
	if c.Iterations == 0 {
		return false
	}
	got, err := derive(password, c.Salt, c.Iterations)
	return err == nil && subtle.ConstantTimeCompare(got.StoredKey, c.StoredKey) == 1
}
