package dkim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/tallypost/tallypost/mail"
)

// GenerateRSA returns a new RSA-2048 key: what every verifier takes, with a record that DNS can
// serve over UDP.
func GenerateRSA() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }

// GenerateEd25519 returns a new Ed25519 key.
func GenerateEd25519() (crypto.Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	return private, err
}

// MarshalKey writes a private key as PEM (PKCS #8).
func MarshalKey(private crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("dkim: write key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseKey reads a private key from PEM: PKCS #8, or PKCS #1 as older tools write it.
func ParseKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("dkim: no PEM in the key file; it must begin with " +
			"-----BEGIN PRIVATE KEY-----")
	}
	if block.Type == "RSA PRIVATE KEY" {
		private, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("dkim: read key: %w", err)
		}
		return private, nil
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("dkim: read key of type %q: %w", block.Type, err)
	}
	switch k := private.(type) {
	case *rsa.PrivateKey:
		return k, nil
	case ed25519.PrivateKey:
		return k, nil
	}
	return nil, fmt.Errorf("dkim: a key of type %T; want RSA or Ed25519", private)
}

// RecordName returns the name of the TXT record for a key.
func RecordName(d mail.Domain, selector string) string {
	return selector + "._domainkey." + d.ASCII()
}

// Record returns the text of the TXT record with the public half of a key.
func Record(public crypto.PublicKey) (string, error) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		der, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			return "", fmt.Errorf("dkim: write record: %w", err)
		}
		return "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der), nil
	case ed25519.PublicKey:
		return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(k), nil
	}
	return "", fmt.Errorf("dkim: no record for a key of type %T", public)
}

// RecordStrings cuts a record into the strings of at most 255 octets that a TXT record is made of
// (RFC 1035, section 3.3.14); verifiers join them.
func RecordStrings(record string) []string {
	var parts []string
	for len(record) > 255 {
		parts = append(parts, record[:255])
		record = record[255:]
	}
	return append(parts, record)
}

// ZoneLine returns the record as a line of a zone file.
func ZoneLine(d mail.Domain, selector, record string) string {
	var b strings.Builder
	b.WriteString(RecordName(d, selector) + ". IN TXT (")
	for _, s := range RecordStrings(record) {
		b.WriteString(` "` + s + `"`)
	}
	return b.String() + " )"
}
