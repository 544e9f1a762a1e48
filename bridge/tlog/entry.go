package tlog

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/tallypost/tallypost/mail"
)

const (
	entryHeader = "tallypost/event/v1\n"
	afterPrefix = "after "
	maxKind     = 64

	// MaxEntry is the greatest length of an entry in octets: 19 of header, 65 of kind, 45 of
	// commitment and 82 of the block, rounded up.
	MaxEntry = 256

	// SaltSize is the length of the key of a commitment in octets.
	SaltSize = 32
)

// Entry is one leaf of the log: what everybody may see of an event.
type Entry struct {
	Kind       mail.EventKind
	Commitment [sha256.Size]byte
	After      Block // a block that existed when the entry was made; zero where none is named
}

// Block names a block of the Bitcoin chain.
type Block struct {
	Height uint32
	Hash   [32]byte // in the order in which it is shown, zeros first
}

// IsZero reports whether b names no block. No block has a hash of zeros.
func (b Block) IsZero() bool { return b.Hash == [32]byte{} }

// Commit returns what an entry says of an event: HMAC-SHA-256 with the salt as its key over the
// canonical octets of the event.
func Commit(salt [SaltSize]byte, canonical []byte) [sha256.Size]byte {
	m := hmac.New(sha256.New, salt[:])
	m.Write(canonical)
	var sum [sha256.Size]byte
	m.Sum(sum[:0])
	return sum
}

// Commits reports whether the entry is the one of this event and salt. The kind, which stands in
// the open, is for the caller to compare with the one the event names.
func (e Entry) Commits(salt [SaltSize]byte, canonical []byte) bool {
	return Commit(salt, canonical) == e.Commitment
}

// AppendTo appends the text of the entry to dst.
func (e Entry) AppendTo(dst []byte) []byte {
	dst = append(dst, entryHeader...)
	dst = append(dst, e.Kind...)
	dst = append(dst, '\n')
	dst = base64.StdEncoding.AppendEncode(dst, e.Commitment[:])
	dst = append(dst, '\n')
	if e.After.IsZero() {
		return dst
	}
	dst = append(dst, afterPrefix...)
	dst = strconv.AppendUint(dst, uint64(e.After.Height), 10)
	dst = append(dst, ' ')
	dst = hex.AppendEncode(dst, e.After.Hash[:])
	return append(dst, '\n')
}

// CheckKind says what is wrong with a kind of event as a line of an entry: it must be 1 to 64
// letters.
func CheckKind(k mail.EventKind) error {
	if k == "" || len(k) > maxKind {
		return fmt.Errorf("kind of %d characters, want 1 to %d", len(k), maxKind)
	}
	for i := 0; i < len(k); i++ {
		if c := k[i] | 0x20; c < 'a' || c > 'z' {
			return fmt.Errorf("kind %q has the character %q, want letters only", string(k), k[i])
		}
	}
	return nil
}

// ParseEntry reads the text of an entry. It accepts nothing but what AppendTo writes.
func ParseEntry(text []byte) (Entry, error) {
	var e Entry
	if len(text) > MaxEntry {
		return e, fmt.Errorf("entry of %d octets, the limit is %d", len(text), MaxEntry)
	}
	rest, ok := bytes.CutPrefix(text, []byte(entryHeader))
	if !ok {
		return e, fmt.Errorf("entry does not begin with the line %q",
			entryHeader[:len(entryHeader)-1])
	}
	kind, rest, ok1 := bytes.Cut(rest, []byte("\n"))
	commitment, rest, ok2 := bytes.Cut(rest, []byte("\n"))
	if !ok1 || !ok2 {
		return e, errors.New("entry has fewer than three lines")
	}
	e.Kind = mail.EventKind(kind)
	if err := CheckKind(e.Kind); err != nil {
		return Entry{}, fmt.Errorf("entry: %w", err)
	}
	h, err := parseHash(commitment)
	if err != nil {
		return Entry{}, fmt.Errorf("entry: commitment: %w", err)
	}
	e.Commitment = h
	if len(rest) > 0 {
		if e.After, err = parseAfter(rest); err != nil {
			return Entry{}, fmt.Errorf("entry: %w", err)
		}
	}
	if again := e.AppendTo(nil); !bytes.Equal(again, text) {
		return Entry{}, fmt.Errorf("entry %q is not in canonical form, which is %q", text, again)
	}
	return e, nil
}

// parseAfter reads "after <height> <hash>\n". Leading zeros, upper case and text behind the line
// are left to ParseEntry's comparison.
func parseAfter(line []byte) (Block, error) {
	var b Block
	line, ok := bytes.CutPrefix(line, []byte(afterPrefix))
	line, ok2 := bytes.CutSuffix(line, []byte("\n"))
	height, hash, ok3 := bytes.Cut(line, []byte(" "))
	if !ok || !ok2 || !ok3 {
		return b, errors.New(`fourth line is not "after <height> <block hash>"`)
	}
	n, err := strconv.ParseUint(string(height), 10, 32)
	if err != nil {
		return b, fmt.Errorf("block height %q is not a number below 2^32", height)
	}
	b.Height = uint32(n)
	if len(hash) != 2*len(b.Hash) {
		return b, fmt.Errorf("block hash of %d characters, want %d", len(hash), 2*len(b.Hash))
	}
	if _, err := hex.Decode(b.Hash[:], hash); err != nil {
		return b, fmt.Errorf("block hash %q is not hexadecimal", hash)
	}
	if b.IsZero() {
		return b, errors.New("block hash is all zeros")
	}
	return b, nil
}

// parseHash reads a hash in base 64 and takes only the spelling that an encoder writes: the decoder
// of the standard library skips line ends and ignores the last two bits.
func parseHash(text []byte) (Hash, error) {
	var h Hash
	if len(text) != base64.StdEncoding.EncodedLen(HashSize) {
		return h, fmt.Errorf("hash %.60q of %d characters, want %d of base 64",
			text, len(text), base64.StdEncoding.EncodedLen(HashSize))
	}
	b, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil || len(b) != HashSize {
		return h, fmt.Errorf("hash %q is not 32 octets in base 64", text)
	}
	copy(h[:], b)
	return h, nil
}
