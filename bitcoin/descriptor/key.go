package descriptor

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

// where a key or a script stands.
type where int

const (
	top where = iota
	inP2SH
	inP2WPKH
	inP2WSH
	inTaproot
)

// origin is from which master key a key comes, and how.
type origin struct {
	fingerprint [4]byte
	path        []uint32
}

// key is a key expression (BIP 380).
type key struct {
	origin     *origin
	apostrophe bool // hardened steps are written with ', not h

	fixed  []byte // a key of 33 or 65 octets; nil: ext leads to it
	xOnly  bool   // it is written and used without its first octet
	secret bool   // it was given as a secret key

	ext    *Extended
	path   []uint32
	ranged bool // the last step is the position
	hard   bool // and it is hardened

	parent *Extended // what the path leads to, once that is known
}

// step is one element of a path, with its choices where there are several.
type step []uint32

// parseKey reads a key expression; where its path offers choices, it returns a key for each of them.
func parseKey(net *bitcoin.Network, s string, in where) ([]*key, error) {
	if strings.HasPrefix(s, "musig(") {
		return nil, fmt.Errorf("musig() is not supported by this node yet")
	}
	parts := strings.Split(s, "]")
	if len(parts) > 2 {
		return nil, fmt.Errorf("Multiple ']' characters found for a single pubkey")
	}
	if len(parts) == 1 {
		return parsePlainKey(net, s, in)
	}
	if !strings.HasPrefix(s, "[") {
		return nil, fmt.Errorf("Key origin start '[ character expected but not found, got '%c' instead", s[0])
	}
	steps := strings.Split(parts[0][1:], "/")
	if len(steps[0]) != 8 {
		return nil, fmt.Errorf("Fingerprint is not 4 bytes (%d characters instead of 8 characters)",
			len(steps[0]))
	}
	b, err := hex.DecodeString(steps[0])
	if err != nil {
		return nil, fmt.Errorf("Fingerprint '%s' is not hex", steps[0])
	}
	apostrophe := false
	path, err := parsePath(steps[1:], false, &apostrophe)
	if err != nil {
		return nil, err
	}
	keys, err := parsePlainKey(net, parts[1], in)
	for _, k := range keys {
		k.origin = &origin{fingerprint: [4]byte(b), path: flatten(path, 0)}
		k.apostrophe = k.apostrophe || apostrophe
	}
	return keys, err
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func parsePlainKey(net *bitcoin.Network, s string, in where) ([]*key, error) {
	parts := strings.Split(s, "/")
	head := parts[0]
	switch {
	case head == "":
		return nil, fmt.Errorf("No key provided")
	case isSpace(head[0]) || isSpace(head[len(head)-1]):
		return nil, fmt.Errorf("Key '%s' is invalid due to whitespace", head)
	}
	if len(parts) == 1 {
		if b, err := hex.DecodeString(head); err == nil {
			k, err := fixedKey(b, head, in)
			return []*key{k}, err
		}
		if secret, compressed, ok := net.ParseSecret(head); ok {
			return secretKey(&secret, compressed, in)
		}
	}
	ext, err := ParseExtended(net, head)
	if err != nil {
		return nil, fmt.Errorf("key '%s' is not valid", head)
	}
	k := key{ext: ext, secret: ext.secret != nil, xOnly: in == inTaproot}
	parts = parts[1:]
	if n := len(parts); n > 0 {
		switch parts[n-1] {
		case "*":
			k.ranged, parts = true, parts[:n-1]
		case "*'", "*h":
			k.ranged, k.hard, k.apostrophe, parts = true, true, parts[n-1] == "*'", parts[:n-1]
		}
	}
	steps, err := parsePath(parts, true, &k.apostrophe)
	if err != nil {
		return nil, err
	}
	choices := 1
	for _, st := range steps {
		choices = max(choices, len(st))
	}
	var keys []*key
	for i := range choices {
		one := k
		one.path = flatten(steps, i)
		keys = append(keys, &one)
	}
	return keys, nil
}

// fixedKey is a public key in octets.
func fixedKey(b []byte, text string, in where) (*key, error) {
	if len(b) == 65 && (b[0] == 6 || b[0] == 7) {
		return nil, fmt.Errorf("Hybrid public keys are not allowed")
	}
	if _, err := secp.ParsePublicKey(b); err == nil {
		if len(b) != 33 && in != top && in != inP2SH {
			return nil, fmt.Errorf("Uncompressed keys are not allowed")
		}
		return &key{fixed: b}, nil
	}
	if len(b) == 32 && in == inTaproot {
		if _, err := secp.LiftX((*[32]byte)(b)); err == nil {
			return &key{fixed: append([]byte{2}, b...), xOnly: true}, nil
		}
	}
	return nil, fmt.Errorf("Pubkey '%s' is invalid", text)
}

func secretKey(secret *[32]byte, compressed bool, in where) ([]*key, error) {
	if !compressed && in != top && in != inP2SH {
		return nil, fmt.Errorf("Uncompressed keys are not allowed")
	}
	priv, err := secp.ParsePrivateKey(secret)
	if err != nil {
		return nil, err
	}
	pub := priv.PublicKey()
	k := &key{secret: true, xOnly: in == inTaproot}
	if c := pub.Compressed(); compressed {
		k.fixed = c[:]
	} else {
		u := pub.Uncompressed()
		k.fixed = u[:]
	}
	return []*key{k}, nil
}

// parsePath reads the elements of a path. Choices, "<0;1>", may stand in one of them, if they are allowed.
func parsePath(parts []string, choices bool, apostrophe *bool) (steps []step, err error) {
	found := false
	for _, p := range parts {
		inner, ok := strings.CutPrefix(p, "<")
		if !ok || !strings.HasSuffix(p, ">") {
			n, err := parseStep(p, apostrophe)
			if err != nil {
				return nil, err
			}
			steps = append(steps, step{n})
			continue
		}
		switch {
		case !choices:
			return nil, fmt.Errorf(
				"Key path value '%s' specifies multipath in a section where multipath is not allowed", p)
		case found:
			return nil, fmt.Errorf("Multiple multipath key path specifiers found")
		}
		found = true
		list := strings.Split(strings.TrimSuffix(inner, ">"), ";")
		if len(list) < 2 {
			return nil, fmt.Errorf("Multipath key path specifiers must have at least two items")
		}
		var st step
		for _, item := range list {
			n, err := parseStep(item, apostrophe)
			if err != nil {
				return nil, err
			}
			if slices.Contains(st, n) {
				return nil, fmt.Errorf("Duplicated key path value %d in multipath specifier", n)
			}
			st = append(st, n)
		}
		steps = append(steps, st)
	}
	return steps, nil
}

func parseStep(s string, apostrophe *bool) (uint32, error) {
	hard := uint32(0)
	digits := s
	if n := len(s); n > 0 && (s[n-1] == '\'' || s[n-1] == 'h') {
		hard, digits = hardened, s[:n-1]
		*apostrophe = s[n-1] == '\''
	}
	v, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || digits[0] == '+' {
		return 0, fmt.Errorf("Key path value '%s' is not a valid uint32", digits)
	}
	if v > hardened-1 {
		return 0, fmt.Errorf("Key path value %d is out of range", v)
	}
	return uint32(v) | hard, nil
}

func flatten(steps []step, choice int) []uint32 {
	path := make([]uint32, 0, len(steps))
	for _, st := range steps {
		path = append(path, st[min(choice, len(st)-1)])
	}
	return path
}

func pathText(path []uint32, apostrophe bool) string {
	var b strings.Builder
	mark := "h"
	if apostrophe {
		mark = "'"
	}
	for _, n := range path {
		b.WriteString("/" + strconv.FormatUint(uint64(n&^hardened), 10))
		if n >= hardened {
			b.WriteString(mark)
		}
	}
	return b.String()
}

// text writes the key without what is secret.
func (k *key) text(net *bitcoin.Network) string {
	out := ""
	if k.origin != nil {
		out = "[" + hex.EncodeToString(k.origin.fingerprint[:]) + pathText(k.origin.path, k.apostrophe) + "]"
	}
	if k.ext == nil {
		b := k.fixed
		if k.xOnly {
			b = b[1:]
		}
		return out + hex.EncodeToString(b)
	}
	out += k.ext.Public().String(net) + pathText(k.path, k.apostrophe)
	if k.ranged {
		out += "/*"
		if k.hard && k.apostrophe {
			out += "'"
		} else if k.hard {
			out += "h"
		}
	}
	return out
}

// size is the length of the key, without its being derived.
func (k *key) size() int {
	if k.fixed != nil {
		return len(k.fixed)
	}
	return 33
}

// at returns the key at a position, and how it is written with its origin and nothing to derive.
func (k *key) at(pos uint32) (pub []byte, text string, err error) {
	from := origin{}
	if k.fixed != nil {
		pub = k.fixed
		h := script.Hash160(pub)
		copy(from.fingerprint[:], h[:])
	} else {
		if k.parent == nil {
			k.parent = k.ext
			for _, n := range k.path {
				if k.parent, err = k.parent.Child(n); err != nil {
					k.parent = nil
					return nil, "", err
				}
			}
		}
		e := k.parent
		from = origin{fingerprint: k.ext.fingerprint(), path: slices.Clone(k.path)}
		if k.ranged {
			if k.hard {
				pos |= hardened
			}
			if e, err = e.Child(pos); err != nil {
				return nil, "", err
			}
			from.path = append(from.path, pos)
		}
		c := e.public.Compressed()
		pub = c[:]
	}
	if k.origin != nil {
		from = origin{k.origin.fingerprint, append(slices.Clone(k.origin.path), from.path...)}
	}
	written := pub
	if k.xOnly {
		written = pub[1:]
	}
	return pub, "[" + hex.EncodeToString(from.fingerprint[:]) + pathText(from.path, false) + "]" +
		hex.EncodeToString(written), nil
}
