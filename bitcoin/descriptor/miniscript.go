package descriptor

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"

	"github.com/tallypost/tallypost/bitcoin/miniscript"
	"github.com/tallypost/tallypost/bitcoin/script"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

// miniscript reads an expression that is no function of ours (Bitcoin Core script/descriptor.cpp, the end of
// ParseScript). The error is miniscript.ErrSyntax where it is none of miniscript either.
func (p *parser) miniscript(expr string, in where) ([]*node, error) {
	context, keysIn := miniscript.Tapscript, inTaproot
	if in == inP2WSH {
		context, keysIn = miniscript.P2WSH, inP2WSH
	}
	var lists [][]*key
	m, err := miniscript.Parse(expr, context, miniscript.Keys{
		Parse: func(text string) (int, error) {
			keys, err := parseKey(p.net, text, keysIn)
			if err != nil {
				return 0, err
			}
			lists = append(lists, keys)
			return len(lists) - 1, nil
		},
		Name: func(i int) string { return p.keyName(lists[i][0]) },
	})
	switch {
	case err != nil:
		return nil, err
	case in != inP2WSH && in != inTaproot:
		return nil, errors.New("Miniscript expressions can only be used in wsh or tr.")
	}
	text := func(i int) string { return lists[i][0].text(p.net) }
	if err := checkSanity(m, text); err != nil {
		return nil, err
	}
	choices, err := evenChoices(lists, "Miniscript: Multipath derivation paths have mismatched lengths")
	if err != nil {
		return nil, err
	}
	var nodes []*node
	for i := range choices {
		one := &node{kind: kindMiniscript, mini: m}
		for _, l := range lists {
			one.keys = append(one.keys, pick(l, i))
		}
		nodes = append(nodes, one)
	}
	return nodes, nil
}

// kindMiniscript is the kind of a node that is an expression of miniscript.
const kindMiniscript = "miniscript"

// keyName is by what two keys are the same: what they are at the first position, or how they are written where
// it takes secrets to know that.
func (p *parser) keyName(k *key) string {
	pub, _, err := k.at(0)
	if err != nil {
		return k.text(p.net)
	}
	if k.xOnly {
		return string(pub[1:])
	}
	return string(pub)
}

// checkSanity refuses an expression by whose script it is not safe to receive coins, and says why.
func checkSanity(m *miniscript.Node, key func(int) string) error {
	if m.IsSane() && m.IsSatisfiable() {
		return nil
	}
	part := m.InsanePart()
	if part == nil {
		part = m
	}
	text := part.String(key)
	switch {
	case !part.IsValid():
		return errors.New(text + " is invalid")
	case m.IsSane():
		return errors.New(text + " is not satisfiable")
	case !part.IsNonMalleable():
		text += " is not sane: malleable witnesses exist"
	case part == m && !part.NeedsSignature():
		text += " is not sane: witnesses without signature exist"
	case !part.KeepsLocksApart():
		text += " is not sane: contains mixes of timelocks expressed in blocks and seconds"
	case part.HasDuplicateKeys():
		text += " is not sane: contains duplicate public keys"
	case !part.WithinLimits():
		text += " is not sane: needs witnesses that may exceed resource limits"
	default:
		text += " is not sane"
	}
	return errors.New(text)
}

// resolveMiniscript is resolve for an expression of miniscript.
func (n *node) resolveMiniscript(keys []derived) resolved {
	return resolved{
		script: n.mini.Script(func(i int) []byte {
			if n.keys[i].xOnly || len(keys[i].pub) == 33 && n.mini.Context() == miniscript.Tapscript {
				return keys[i].pub[1:]
			}
			return keys[i].pub
		}),
		text: n.mini.String(func(i int) string { return keys[i].text }),
	}
}

// inferInner returns the expression of a script within wsh(), if there is one that is safe.
func inferInner(s []byte) (string, bool) {
	kind, parts := script.Solve(s)
	switch kind {
	case script.PubKey:
		if text, ok := inferKey(parts[0]); ok {
			return "pk(" + text + ")", true
		}
	case script.BareMultisig:
		if text, ok := inferMulti(parts); ok {
			return text, true
		}
	}
	var keys []string
	m, ok := miniscript.FromScript(s, miniscript.P2WSH, miniscript.KnownKeys{
		Key: func(b []byte) (int, bool) {
			text, ok := inferKey(b)
			keys = append(keys, text)
			return len(keys) - 1, ok
		},
		Hash: func([]byte) (int, bool) { return 0, false }, // no keys are known but those that stand there
		Name: func(i int) string { return keys[i] },
	})
	if !ok || !m.IsSane() {
		return "", false
	}
	return m.String(func(i int) string { return keys[i] }), true
}

// inferKey writes a key that may stand in a witness script.
func inferKey(b []byte) (string, bool) {
	if len(b) != 33 {
		return "", false
	}
	_, err := secp.ParsePublicKey(b)
	return hex.EncodeToString(b), err == nil
}

func inferMulti(parts [][]byte) (string, bool) {
	text := "multi(" + strconv.Itoa(int(parts[0][0]))
	for _, key := range parts[1 : len(parts)-1] {
		one, ok := inferKey(key)
		if !ok {
			return "", false
		}
		text += "," + one
	}
	return text + ")", true
}

// inferWitness returns the descriptor of a script that pays to the hash of one of some scripts.
func inferWitness(program []byte, known [][]byte) (string, bool) {
	for _, s := range known {
		if h := sha256.Sum256(s); bytes.Equal(h[:], program) {
			inner, ok := inferInner(s)
			return "wsh(" + inner + ")", ok
		}
	}
	return "", false
}
