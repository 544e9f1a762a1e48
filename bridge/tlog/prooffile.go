package tlog

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
)

const (
	proofHeader = "c2sp.org/tlog-proof@v1\n"
	maxExtra    = 64 << 10 // octets, decoded

	// MaxProof is the greatest length of a .tlog-proof file in octets.
	MaxProof = MaxCheckpoint + maxExtra*4/3 + 4096
)

// Proof is a .tlog-proof file: that the tree of a checkpoint has a certain leaf at an index.
type Proof struct {
	// Extra is for whoever knows what the log is of. Nothing vouches for it. We write none.
	Extra      []byte
	Index      uint64
	Hashes     []Hash // from the leaf's sibling up
	Checkpoint []byte // signed
}

// Marshal returns the text of the file.
func (p *Proof) Marshal() []byte {
	b := make([]byte, 0, len(proofHeader)+len(p.Extra)*4/3+64+45*len(p.Hashes)+len(p.Checkpoint))
	b = append(b, proofHeader...)
	if p.Extra != nil {
		b = append(b, "extra "...)
		b = base64.StdEncoding.AppendEncode(b, p.Extra)
		b = append(b, '\n')
	}
	b = append(b, "index "...)
	b = strconv.AppendUint(b, p.Index, 10)
	b = append(b, '\n')
	for _, h := range p.Hashes {
		b = base64.StdEncoding.AppendEncode(b, h[:])
		b = append(b, '\n')
	}
	b = append(b, '\n')
	return append(b, p.Checkpoint...)
}

// ParseProof reads what Marshal wrote, and nothing else. It does not look into the checkpoint:
// Verify does.
func ParseProof(text []byte) (*Proof, error) {
	if len(text) > MaxProof {
		return nil, fmt.Errorf("tlog-proof of %d octets, the limit is %d", len(text), MaxProof)
	}
	rest, ok := bytes.CutPrefix(text, []byte(proofHeader))
	if !ok {
		return nil, fmt.Errorf("tlog-proof does not begin with the line %q",
			proofHeader[:len(proofHeader)-1])
	}
	p := new(Proof)
	line, rest, _ := bytes.Cut(rest, []byte("\n"))
	if extra, ok := bytes.CutPrefix(line, []byte("extra ")); ok {
		var err error
		if len(extra) > base64.StdEncoding.EncodedLen(maxExtra) {
			return nil, fmt.Errorf("tlog-proof: extra data of more than %d octets", maxExtra)
		}
		p.Extra, err = base64.StdEncoding.Strict().DecodeString(string(extra))
		if err != nil {
			return nil, fmt.Errorf("tlog-proof: extra line is not base 64: %w", err)
		}
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
	}
	number, ok := bytes.CutPrefix(line, []byte("index "))
	if !ok {
		return nil, fmt.Errorf("tlog-proof: line %.40q where the index should be", line)
	}
	var err error
	if p.Index, err = parseNumber(string(number)); err != nil {
		return nil, fmt.Errorf("tlog-proof: index: %w", err)
	}
	if p.Hashes, p.Checkpoint, err = parseHashes(rest); err != nil {
		return nil, fmt.Errorf("tlog-proof: %w", err)
	}
	return p, nil
}

// parseHashes reads lines of hashes until an empty line, and returns what is behind it.
func parseHashes(text []byte) (hashes []Hash, rest []byte, err error) {
	for {
		line, rest, ok := bytes.Cut(text, []byte("\n"))
		if !ok {
			return nil, nil, errors.New("no empty line behind the hashes")
		}
		if len(line) == 0 {
			return hashes, rest, nil
		}
		if len(hashes) == maxHashes {
			return nil, nil, fmt.Errorf("more than %d hashes", maxHashes)
		}
		h, err := parseHash(line)
		if err != nil {
			return nil, nil, fmt.Errorf("line %d of the hashes: %w", len(hashes)+1, err)
		}
		hashes = append(hashes, h)
		text = rest
	}
}

// Verify checks the signature of the checkpoint and that its tree has the leaf at the index of the
// proof.
func (p *Proof) Verify(leaf Hash, v *Verifier) (Checkpoint, error) {
	c, err := OpenCheckpoint(p.Checkpoint, v)
	if err != nil {
		return Checkpoint{}, err
	}
	if err := VerifyInclusion(leaf, p.Index, p.Hashes, c.Size, c.Root); err != nil {
		return Checkpoint{}, err
	}
	return c, nil
}
