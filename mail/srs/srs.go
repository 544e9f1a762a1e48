// Package srs rewrites the sender of forwarded mail, so that SPF passes at the next server, and
// finds the sender again when a bounce comes back.
//
// It keeps the Sender Rewriting Scheme as libsrs2 and postsrsd write it:
//
//	SRS0=HHHH=TT=domain=local@alias            first forwarder
//	SRS1=HHHH=forwarder==hhhh=tt=domain=local@alias   every later one
//
// HHHH is the start of a base-64 HMAC-SHA1 of what follows it, in lower case; TT is the day, modulo
// 1024, in base 32. Only the first forwarder checks the day. An address grows with the first two
// forwarders and never after. SHA-1 is the scheme's, and sound inside an HMAC.
//
// The package does not decide what is forwarded, and keeps no database: an address that grows
// beyond what RFC 5321 allows cannot be rewritten, and Forward says so.
package srs

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// Defaults of Config, those of postsrsd.
const (
	DefaultHashLen = 4
	DefaultMaxAge  = 21 * 24 * time.Hour
)

// Errors of Forward and Reverse.
var (
	// ErrNotSRS: the address is not one of the scheme's; it may be an ordinary mailbox.
	ErrNotSRS = errors.New("not a rewritten address")
	// ErrBadHash: the address is forged, damaged, or made with a key that was dropped.
	ErrBadHash = errors.New("rewritten address with a wrong hash")
	// ErrExpired: the address was made too long ago for a bounce to come back to it.
	ErrExpired = errors.New("rewritten address has expired")
	// ErrTooLong: rewritten, the local part would pass mail.MaxLocalPart. RFC 5321 promises only 64
	// octets; rewritten addresses are often longer, and servers take them.
	ErrTooLong = errors.New("rewritten address would be too long")
)

// Config says how to rewrite. Domain and one secret are needed.
type Config struct {
	// Domain is ours: rewritten addresses are in it, and its MX must lead back here.
	Domain mail.Domain
	// Secrets are the HMAC keys. The first makes addresses, all check them: to change keys, put a new
	// one first and drop the old after MaxAge.
	Secrets [][]byte
	// Ours reports whether SPF of a domain already allows us, so that its senders stay as they are.
	// nil: only Domain.
	Ours func(mail.Domain) bool
	// HashLen is the number of base-64 characters of the hash that are written, MinHash how many must
	// be there and right. Compared without case, 4 are 20 bits: enough that forging one address takes
	// a million tries at our own server. DefaultHashLen, and HashLen, if zero.
	HashLen, MinHash int
	// MaxAge is how long a rewritten address works, in whole days up to 1000. DefaultMaxAge if zero.
	MaxAge time.Duration
}

// Rewriter rewrites senders. It may be used from several goroutines.
type Rewriter struct {
	cfg     Config
	maxDays int
}

// New returns a Rewriter, or what is wrong with the configuration.
func New(cfg Config) (*Rewriter, error) {
	if cfg.HashLen == 0 {
		cfg.HashLen = DefaultHashLen
	}
	if cfg.MinHash == 0 {
		cfg.MinHash = cfg.HashLen
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = DefaultMaxAge
	}
	days := int(cfg.MaxAge / (24 * time.Hour))
	switch {
	case cfg.Domain == "":
		return nil, errors.New("srs: no domain")
	case len(cfg.Secrets) == 0:
		return nil, errors.New("srs: no secret")
	case cfg.HashLen < 4 || cfg.HashLen > 27 || cfg.MinHash < 4 || cfg.MinHash > cfg.HashLen:
		return nil, errors.New("srs: hash length and its minimum must be 4 to 27 characters")
	case days < 1 || days > 1000:
		return nil, errors.New("srs: the age must be 1 to 1000 days")
	}
	for _, s := range cfg.Secrets {
		if len(s) < 8 {
			return nil, errors.New("srs: a secret shorter than 8 octets")
		}
	}
	return &Rewriter{cfg: cfg, maxDays: days}, nil
}

// Forward returns the reverse path to forward with. The null path and senders of our own domains
// stay.
func (r *Rewriter) Forward(from mail.Address, now time.Time) (mail.Address, error) {
	if from.IsNull() || r.ours(from.Domain) {
		return from, nil
	}
	if from.Domain == "" {
		return from, fmt.Errorf("forward for %q: no domain", from.Local)
	}
	local, host := r.rewrite(from, now), r.cfg.Domain
	if len(local) > mail.MaxLocalPart {
		return from, ErrTooLong
	}
	return mail.Address{Local: local, Domain: host}, nil
}

func (r *Rewriter) ours(d mail.Domain) bool {
	return d == r.cfg.Domain || r.cfg.Ours != nil && r.cfg.Ours(d)
}

func (r *Rewriter) rewrite(from mail.Address, now time.Time) string {
	host := from.Domain.ASCII()
	if rest, ok := tagged(from.Local, "SRS0"); ok {
		return "SRS1=" + r.hash(host, rest) + "=" + host + "=" + rest
	}
	if rest, ok := tagged(from.Local, "SRS1"); ok {
		// Keep the first forwarder, replace the one before us: the address does not grow. Its hash is
		// not ours to check. Without a domain for the first it is only a strange mailbox.
		if _, first, rest, ok := cutGuarded(rest); ok && isDomain(first) {
			return "SRS1=" + r.hash(first, rest) + "=" + first + "=" + rest
		}
	}
	day := encodeDay(now)
	return "SRS0=" + r.hash(day, host, from.Local) + "=" + day + "=" + host + "=" + from.Local
}

// IsRewritten reports whether an address looks like one of the scheme's, so that an unknown
// recipient of this form can be told from a mailbox.
func IsRewritten(a mail.Address) bool {
	_, zero := tagged(a.Local, "SRS0")
	_, one := tagged(a.Local, "SRS1")
	return zero || one
}

// Reverse returns the address that Forward was given: the sender, or for SRS1 the SRS0 address at
// the first forwarder. It undoes one step only, so that nothing can make it run in circles.
func (r *Rewriter) Reverse(to mail.Address, now time.Time) (mail.Address, error) {
	if rest, ok := tagged(to.Local, "SRS0"); ok {
		return r.reverseFirst(rest, now)
	}
	if rest, ok := tagged(to.Local, "SRS1"); ok {
		return r.reverseLater(rest)
	}
	return mail.Address{}, ErrNotSRS
}

// reverseFirst reads "=HHHH=TT=domain=local".
func (r *Rewriter) reverseFirst(rest string, now time.Time) (mail.Address, error) {
	hash, rest, ok1 := strings.Cut(rest[1:], "=")
	day, rest, ok2 := strings.Cut(rest, "=")
	host, local, ok3 := strings.Cut(rest, "=")
	if !ok1 || !ok2 || !ok3 || local == "" {
		return mail.Address{}, ErrNotSRS
	}
	if !r.verify(hash, day, host, local) {
		return mail.Address{}, ErrBadHash
	}
	if !r.fresh(day, now) {
		return mail.Address{}, ErrExpired
	}
	return address(local, host)
}

// reverseLater reads "=HHHH=forwarder=rest", where rest begins with the separator that the first
// forwarder wrote after SRS0.
func (r *Rewriter) reverseLater(rest string) (mail.Address, error) {
	hash, host, rest, ok := cutGuarded(rest)
	if !ok {
		return mail.Address{}, ErrNotSRS
	}
	if !r.verify(hash, host, rest) {
		return mail.Address{}, ErrBadHash
	}
	return address("SRS0"+rest, host)
}

// cutGuarded splits what follows SRS1: separator, hash, host and the rest of the SRS0 address.
func cutGuarded(s string) (hash, host, rest string, ok bool) {
	hash, s, ok1 := strings.Cut(s[1:], "=")
	host, rest, ok2 := strings.Cut(s, "=")
	return hash, host, rest, ok1 && ok2 && host != "" && len(rest) > 1 && isSeparator(rest[0])
}

func isDomain(s string) bool {
	_, err := mail.ParseDomain(s)
	return err == nil
}

// address guards against a domain that only a holder of the key, or a bug of an older version of
// this package, can have put there.
func address(local, host string) (mail.Address, error) {
	d, err := mail.ParseDomain(host)
	if err != nil {
		return mail.Address{}, fmt.Errorf("%w: %w", ErrNotSRS, err)
	}
	return mail.Address{Local: local, Domain: d}, nil
}

// tagged returns what follows the tag, separator included. Case is not kept on every road, and
// others write '-' or '+' where we write '='.
func tagged(local, tag string) (string, bool) {
	n := len(tag)
	if len(local) < n+2 || !strings.EqualFold(local[:n], tag) || !isSeparator(local[n]) {
		return "", false
	}
	return local[n:], true
}

func isSeparator(c byte) bool { return c == '=' || c == '-' || c == '+' }

// hash returns the first characters of base64(HMAC-SHA1(secret, lower case of the parts)).
func (r *Rewriter) hash(parts ...string) string {
	return hashWith(r.cfg.Secrets[0], r.cfg.HashLen, parts)
}

func hashWith(secret []byte, n int, parts []string) string {
	m := hmac.New(sha1.New, secret)
	for _, p := range parts {
		m.Write([]byte(lower(p)))
	}
	return base64.StdEncoding.EncodeToString(m.Sum(nil))[:n]
}

// verify compares as many characters as were given, at least MinHash, without case, as some servers
// write local parts in lower case.
func (r *Rewriter) verify(hash string, parts ...string) bool {
	if len(hash) < r.cfg.MinHash || len(hash) > 27 {
		return false
	}
	match := 0
	for _, secret := range r.cfg.Secrets {
		want := hashWith(secret, len(hash), parts)
		match |= subtle.ConstantTimeCompare([]byte(lower(hash)), []byte(lower(want)))
	}
	return match == 1
}

// lower is of ASCII alone: libsrs2 has no other.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

const base32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

// encodeDay writes the day modulo 1024 in two characters.
func encodeDay(now time.Time) string {
	d := day(now)
	return string([]byte{base32[d>>5], base32[d&31]})
}

func day(now time.Time) int { return int(now.Unix()/(24*60*60)) & 1023 }

// fresh reports whether a day was at most maxDays ago. One day ahead is let pass: the clocks of two
// servers that share keys differ.
func (r *Rewriter) fresh(stamp string, now time.Time) bool {
	if len(stamp) != 2 {
		return false
	}
	hi := strings.IndexByte(base32, upper(stamp[0]))
	lo := strings.IndexByte(base32, upper(stamp[1]))
	if hi < 0 || lo < 0 {
		return false
	}
	age := (day(now) - (hi<<5 | lo)) & 1023
	return age <= r.maxDays || age == 1023
}

func upper(c byte) byte {
	if 'a' <= c && c <= 'z' {
		return c - ('a' - 'A')
	}
	return c
}
