package tlog

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// MaxCheckpoint is the greatest length of a signed checkpoint in octets: room for the 16 signatures
// of nearly 5 kB that C2SP signed-note wants every reader to take.
const MaxCheckpoint = 128 << 10

// Checkpoint is the state of a log that its signature is for.
type Checkpoint struct {
	Origin string
	Size   uint64
	Root   Hash
}

// Text returns what is signed: origin, size and root, a line each.
func (c Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, c.Root)
}

// Sign returns the checkpoint with the signature of the log, whose key must have the origin as its
// name.
func (c Checkpoint) Sign(s *Signer) ([]byte, error) {
	if s.Name() != c.Origin {
		return nil, fmt.Errorf("checkpoint of %q cannot be signed with the key of %q", c.Origin,
			s.Name())
	}
	return note.Sign(&note.Note{Text: c.Text()}, s)
}

// OpenCheckpoint reads a signed checkpoint and checks the log's signature. Signatures by other
// keys, as witnesses add them, are not looked at (C2SP signed-note: "Verifiers MUST ignore
// signatures from unknown keys").
func OpenCheckpoint(signed []byte, v *Verifier) (Checkpoint, error) {
	if len(signed) > MaxCheckpoint {
		return Checkpoint{}, fmt.Errorf("checkpoint of %d octets, the limit is %d", len(signed),
			MaxCheckpoint)
	}
	n, err := note.Open(signed, note.VerifierList(v))
	var unsigned *note.UnverifiedNoteError
	if errors.As(err, &unsigned) {
		return Checkpoint{}, fmt.Errorf("checkpoint has no signature by %s", v)
	}
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	c, err := parseCheckpointText(n.Text)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	if c.Origin != v.Name() {
		return Checkpoint{}, fmt.Errorf("checkpoint of %q is signed with the key of %q", c.Origin,
			v.Name())
	}
	if _, err := base64.StdEncoding.Strict().DecodeString(n.Sigs[0].Base64); err != nil {
		return Checkpoint{}, errors.New("checkpoint: signature is not in canonical base 64")
	}
	return c, nil
}

func parseCheckpointText(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return Checkpoint{}, fmt.Errorf("%d lines, want origin, size and root", len(lines)-1)
	}
	c := Checkpoint{Origin: lines[0]}
	if c.Origin == "" {
		return Checkpoint{}, errors.New("empty origin")
	}
	var err error
	if c.Size, err = parseNumber(lines[1]); err != nil {
		return Checkpoint{}, fmt.Errorf("tree size: %w", err)
	}
	if err := checkSize(c.Size); err != nil {
		return Checkpoint{}, err
	}
	if c.Root, err = parseHash([]byte(lines[2])); err != nil {
		return Checkpoint{}, fmt.Errorf("root: %w", err)
	}
	if c.Size == 0 && c.Root != EmptyRoot() {
		return Checkpoint{}, fmt.Errorf("root %s of an empty tree, want %s", c.Root, EmptyRoot())
	}
	return c, nil
}

// parseNumber reads decimal digits without leading zeros.
func parseNumber(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("%.24q is not a decimal number without leading zeros", s)
	}
	return n, nil
}
