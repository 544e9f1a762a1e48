// Package descriptor reads output descriptors (BIPs 380 to 387 and 389): what tells which output scripts
// belong to a wallet, and how to spend them.
//
// It knows pk, pkh, wpkh, sh, wsh, combo, multi, sortedmulti, multi_a, sortedmulti_a, tr with a tree, rawtr,
// addr, raw and, within wsh and tr, miniscript; keys in octets, as secrets in wallet import format and as extended keys with paths, choices
// ("<0;1>"), ranges and origins. Its errors are Bitcoin Core's (script/descriptor.cpp).
//
// Not here yet: musig().
package descriptor

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

// Descriptor is a descriptor. It is used by one goroutine at a time.
type Descriptor struct {
	net  *bitcoin.Network
	root *node
}

// Output is what a descriptor stands for at a position.
type Output struct {
	Script []byte
	// Desc is the descriptor of this script alone, with the origins of its keys and its checksum.
	Desc string
}

// Parse reads a descriptor: several, where paths in it offer choices. needSum says that the checksum must not
// be missing.
func Parse(net *bitcoin.Network, s string, needSum bool) ([]*Descriptor, error) {
	body, err := CutChecksum(s, needSum)
	if err != nil {
		return nil, err
	}
	p := parser{net: net}
	nodes, rest, err := p.script(body, top)
	if err != nil {
		return nil, err
	}
	if rest != "" {
		return nil, fmt.Errorf("'%s' is not a valid descriptor function", body)
	}
	var out []*Descriptor
	for _, n := range nodes {
		out = append(out, &Descriptor{net, n})
	}
	return out, nil
}

// String returns the descriptor in its canonical form, without what is secret, with its checksum.
func (d *Descriptor) String() string {
	return WithChecksum(d.root.text(func(k *key) string { return k.text(d.net) }))
}

// IsRange reports whether it stands for other scripts at each position.
func (d *Descriptor) IsRange() bool {
	return d.root.any(func(n *node) bool { return slices.ContainsFunc(n.keys, func(k *key) bool { return k.ranged }) })
}

// IsSolvable reports whether it says all there is to know for spending, signatures apart.
func (d *Descriptor) IsSolvable() bool { return d.root.kind != "raw" && d.root.kind != "addr" }

// HasSecrets reports whether some key was given as a secret one.
func (d *Descriptor) HasSecrets() bool {
	return d.root.any(func(n *node) bool { return slices.ContainsFunc(n.keys, func(k *key) bool { return k.secret }) })
}

// Expand returns the scripts at a position, which counts for ranges only. The error is ErrHardened where a
// secret key is missing.
func (d *Descriptor) Expand(pos uint32) ([]Output, error) {
	n := d.root
	switch n.kind {
	case "combo":
		return n.combo(pos)
	case "raw", "addr":
		return []Output{{n.script, Infer(d.net, n.script)}}, nil
	}
	r, err := n.resolve(pos)
	if err != nil {
		return nil, err
	}
	return []Output{{r.script, WithChecksum(r.text)}}, nil
}

func (n *node) any(f func(*node) bool) bool {
	return f(n) || slices.ContainsFunc(n.subs, func(s *node) bool { return s.any(f) })
}

// text writes the expression, with each key as a function writes it.
func (n *node) text(write func(*key) string) string {
	switch n.kind {
	case "raw":
		return "raw(" + hex.EncodeToString(n.script) + ")"
	case "addr":
		return "addr(" + n.address + ")"
	case kindMiniscript:
		return n.mini.String(func(i int) string { return write(n.keys[i]) })
	}
	var parts []string
	if n.threshold > 0 {
		parts = append(parts, strconv.Itoa(n.threshold))
	}
	for _, k := range n.keys {
		parts = append(parts, write(k))
	}
	if n.kind == "tr" {
		if len(n.subs) > 0 {
			parts = append(parts, treeText(n.depths, func(i int) string { return n.subs[i].text(write) }))
		}
	} else {
		for _, s := range n.subs {
			parts = append(parts, s.text(write))
		}
	}
	return n.kind + "(" + strings.Join(parts, ",") + ")"
}

// treeText writes the leaves of a tree, of which the depths are known, with braces and commas.
func treeText(depths []int, leaf func(int) string) string {
	var b strings.Builder
	var path []bool
	for i, depth := range depths {
		if i > 0 {
			b.WriteByte(',')
		}
		for len(path) < depth {
			path = append(path, false)
			b.WriteByte('{')
		}
		b.WriteString(leaf(i))
		for len(path) > 0 && path[len(path)-1] {
			path = path[:len(path)-1]
			b.WriteByte('}')
		}
		if len(path) > 0 {
			path[len(path)-1] = true
		}
	}
	return b.String()
}

// resolved is an expression at a position: its script, and the descriptor of that.
type resolved struct {
	script []byte
	text   string
}

// derived is a key at a position.
type derived struct {
	pub  []byte
	text string
}

func (n *node) derive(pos uint32) (keys []derived, err error) {
	for _, k := range n.keys {
		pub, text, err := k.at(pos)
		if err != nil {
			return nil, err
		}
		keys = append(keys, derived{pub, text})
	}
	return keys, nil
}

func (n *node) resolve(pos uint32) (r resolved, err error) {
	keys, err := n.derive(pos)
	if err != nil {
		return r, err
	}
	switch n.kind {
	case "pk":
		pub := keys[0].pub
		if n.keys[0].xOnly {
			pub = pub[1:]
		}
		r.script = append(script.AppendPush(nil, pub), byte(script.OpCheckSig))
	case "pkh":
		r.script = script.PayToPubKeyHash(script.Hash160(keys[0].pub))
	case "wpkh":
		r.script = payToWitnessKey(keys[0].pub)
	case "rawtr":
		r.script = script.PayToWitness(1, keys[0].pub[1:])
	case "multi", "sortedmulti", "multi_a", "sortedmulti_a":
		return n.resolveMulti(keys), nil
	case "sh", "wsh":
		inner, err := n.subs[0].resolve(pos)
		if err != nil {
			return r, err
		}
		if n.kind == "sh" {
			r.script = script.PayToScriptHash(script.Hash160(inner.script))
		} else {
			h := sha256.Sum256(inner.script)
			r.script = script.PayToWitness(0, h[:])
		}
		r.text = n.kind + "(" + inner.text + ")"
		return r, nil
	case "tr":
		return n.resolveTaproot(keys[0], pos)
	case kindMiniscript:
		return n.resolveMiniscript(keys), nil
	}
	r.text = n.kind + "(" + keys[0].text + ")"
	return r, nil
}

func payToWitnessKey(pub []byte) []byte {
	h := script.Hash160(pub)
	return script.PayToWitness(0, h[:])
}

func (n *node) resolveMulti(keys []derived) (r resolved) {
	kind := strings.TrimPrefix(n.kind, "sorted")
	xOnly := kind == "multi_a"
	if kind != n.kind { // BIP 67: by the octets that stand in the script
		slices.SortFunc(keys, func(a, b derived) int {
			if xOnly {
				return bytes.Compare(a.pub[1:], b.pub[1:])
			}
			return bytes.Compare(a.pub, b.pub)
		})
	}
	text := kind + "(" + strconv.Itoa(n.threshold)
	var pubs [][]byte
	for _, k := range keys {
		pubs, text = append(pubs, k.pub), text+","+k.text
	}
	r.text = text + ")"
	if !xOnly {
		r.script = script.Multisig(n.threshold, pubs)
		return r
	}
	for i, pub := range pubs {
		op := script.OpCheckSigAdd
		if i == 0 {
			op = script.OpCheckSig
		}
		r.script = append(script.AppendPush(r.script, pub[1:]), byte(op))
	}
	r.script = append(script.AppendInt(r.script, int64(n.threshold)), byte(script.OpNumEqual))
	return r
}

func (n *node) resolveTaproot(internal derived, pos uint32) (r resolved, err error) {
	leaves := make([]resolved, len(n.subs))
	type branch struct {
		depth int
		hash  [32]byte
	}
	var stack []branch
	for i, s := range n.subs {
		if leaves[i], err = s.resolve(pos); err != nil {
			return r, err
		}
		stack = append(stack, branch{n.depths[i], script.TapLeafHash(0xc0, leaves[i].script)})
		for k := len(stack); k > 1 && stack[k-1].depth == stack[k-2].depth; k = len(stack) {
			h := script.TapBranchHash(&stack[k-2].hash, &stack[k-1].hash)
			stack = append(stack[:k-2], branch{stack[k-1].depth - 1, h})
		}
	}
	var root []byte
	if len(stack) > 0 {
		root = stack[0].hash[:]
	}
	x := [32]byte(internal.pub[1:])
	out, _, err := secp.TaprootOutput(&x, root)
	if err != nil {
		return r, err
	}
	r.script = script.PayToWitness(1, out[:])
	r.text = "tr(" + internal.text
	if len(leaves) > 0 {
		r.text += "," + treeText(n.depths, func(i int) string { return leaves[i].text })
	}
	r.text += ")"
	return r, nil
}

// combo is pk and pkh, and for compressed keys also wpkh and sh(wpkh).
func (n *node) combo(pos uint32) ([]Output, error) {
	keys, err := n.derive(pos)
	if err != nil {
		return nil, err
	}
	k := keys[0]
	out := []Output{
		{append(script.AppendPush(nil, k.pub), byte(script.OpCheckSig)), WithChecksum("pk(" + k.text + ")")},
		{script.PayToPubKeyHash(script.Hash160(k.pub)), WithChecksum("pkh(" + k.text + ")")},
	}
	if len(k.pub) == 33 {
		w := payToWitnessKey(k.pub)
		out = append(out, Output{w, WithChecksum("wpkh(" + k.text + ")")},
			Output{script.PayToScriptHash(script.Hash160(w)), WithChecksum("sh(wpkh(" + k.text + "))")})
	}
	return out, nil
}

// Infer returns the descriptor of a script, as far as the script alone tells, and known scripts whose hashes it
// may contain.
func Infer(net *bitcoin.Network, s []byte, known ...[]byte) string {
	kind, parts := script.Solve(s)
	switch kind {
	case script.WitnessV0ScriptHash:
		if text, ok := inferWitness(parts[0], known); ok {
			return WithChecksum(text)
		}
	case script.PubKey:
		if _, err := secp.ParsePublicKey(parts[0]); err == nil {
			return WithChecksum("pk(" + hex.EncodeToString(parts[0]) + ")")
		}
	case script.BareMultisig:
		valid := true
		text := strconv.Itoa(int(parts[0][0]))
		for _, key := range parts[1 : len(parts)-1] {
			_, err := secp.ParsePublicKey(key)
			valid = valid && err == nil
			text += "," + hex.EncodeToString(key)
		}
		if valid {
			return WithChecksum("multi(" + text + ")")
		}
	case script.WitnessV1Taproot:
		x := [32]byte(parts[0])
		if _, err := secp.LiftX(&x); err == nil {
			return WithChecksum("rawtr(" + hex.EncodeToString(parts[0]) + ")")
		}
	}
	if addr, ok := net.Address(s); ok && kind != script.PubKey {
		return WithChecksum("addr(" + addr + ")")
	}
	return WithChecksum("raw(" + hex.EncodeToString(s) + ")")
}
