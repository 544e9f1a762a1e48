// Package miniscript is the structured part of Bitcoin script (BIP 379): expressions whose conditions can be
// read off, whose scripts can be made and recognised, and of which it is known whether others can change
// their witnesses and whether these can become too large.
//
// Parse reads an expression, FromScript recognises one in a script, String and Script write them. Keys are
// numbers here: what stands for them is the caller's. The rules are those of Bitcoin Core
// (script/miniscript.h), so that both agree on what is sane.
//
// Not here: witnesses. An expression has all that is needed to make them.
package miniscript

import (
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/tallypost/tallypost/bitcoin/script"
)

// Context is where a script is executed.
type Context uint8

// The contexts.
const (
	P2WSH Context = iota
	Tapscript
)

// Fragment is what an expression does by itself.
type Fragment uint8

// The fragments, with their scripts.
const (
	Just0     Fragment = iota // 0
	Just1                     // 1
	PkK                       // <key>
	PkH                       // DUP HASH160 <hash of key> EQUALVERIFY
	Older                     // <k> CHECKSEQUENCEVERIFY
	After                     // <k> CHECKLOCKTIMEVERIFY
	Sha256                    // SIZE 32 EQUALVERIFY SHA256 <hash> EQUAL
	Hash256                   // likewise with HASH256
	Ripemd160                 // likewise with RIPEMD160
	Hash160                   // likewise with HASH160
	WrapA                     // TOALTSTACK [X] FROMALTSTACK
	WrapS                     // SWAP [X]
	WrapC                     // [X] CHECKSIG
	WrapD                     // DUP IF [X] ENDIF
	WrapV                     // [X] VERIFY, or the VERIFY form of its last opcode
	WrapJ                     // SIZE 0NOTEQUAL IF [X] ENDIF
	WrapN                     // [X] 0NOTEQUAL
	AndV                      // [X] [Y]
	AndB                      // [X] [Y] BOOLAND
	OrB                       // [X] [Z] BOOLOR
	OrC                       // [X] NOTIF [Z] ENDIF
	OrD                       // [X] IFDUP NOTIF [Z] ENDIF
	OrI                       // IF [X] ELSE [Z] ENDIF
	AndOr                     // [X] NOTIF [Z] ELSE [Y] ENDIF
	Thresh                    // [X1] ([Xn] ADD)* <k> EQUAL
	Multi                     // <k> <keys> <n> CHECKMULTISIG
	MultiA                    // <key> CHECKSIG (<key> CHECKSIGADD)* <k> NUMEQUAL
)

func (f Fragment) isWrapper() bool { return f >= WrapA && f <= WrapN }

// wrapperLetters are how wrappers are written, in the order of the fragments.
const wrapperLetters = "ascdvjn"

// Node is an expression. It is not changed once it is made.
type Node struct {
	Fragment Fragment
	K        uint32 // threshold, or lock
	Keys     []int
	Hash     []byte
	Subs     []*Node

	context   Context
	typ       Type
	size      int // of its script
	ops       ops
	stack     stack
	duplicate bool // some key stands in it twice
}

// make completes an expression.
func (n Node) make(c Context) *Node {
	n.context = c
	n.typ = n.typeOfNode()
	n.size = n.scriptSize()
	n.ops = n.countOps()
	n.stack = n.countStack()
	return &n
}

// Context returns where its script is executed.
func (n *Node) Context() Context { return n.context }

// Type returns its type; zero if it makes no sense.
func (n *Node) Type() Type { return n.typ }

// ScriptSize returns the octets of its script.
func (n *Node) ScriptSize() int { return n.size }

// Limits on scripts and witnesses, by rule or by what nodes relay.
const (
	maxP2WSHSize  = 3600
	maxP2WSHStack = 100
	maxStack      = 1000
	maxOps        = 201
	// maxTapscriptSize leaves room for the largest witness in a transaction of the largest weight that is
	// relayed, 400,000: 378 for the rest of it, 70,135 for the witness, 5 for the script's size.
	maxTapscriptSize = 400_000 - 378 - 70_135 - 5

	maxMulti  = 20
	maxMultiA = 999
)

func (c Context) maxSize() int {
	if c == Tapscript {
		return maxTapscriptSize
	}
	return maxP2WSHSize
}

// IsValid reports whether it can be part of a script.
func (n *Node) IsValid() bool { return n.typ != 0 && n.size <= n.context.maxSize() }

// IsValidTopLevel reports whether it can be a script.
func (n *Node) IsValidTopLevel() bool { return n.IsValid() && n.typ.Has("B") }

// IsNonMalleable reports whether it can always be satisfied so that nobody can change the witness.
func (n *Node) IsNonMalleable() bool { return n.typ.Has("m") }

// NeedsSignature reports whether nobody can satisfy it without a key.
func (n *Node) NeedsSignature() bool { return n.typ.Has("s") }

// KeepsLocksApart reports whether no way to satisfy it mixes locks by time and by height.
func (n *Node) KeepsLocksApart() bool { return n.typ.Has("k") }

// HasDuplicateKeys reports whether some key stands in it twice.
func (n *Node) HasDuplicateKeys() bool { return n.duplicate }

// IsSatisfiable reports whether there is any way to satisfy it.
func (n *Node) IsSatisfiable() bool { return n.stack.sat.ok }

// WithinLimits reports whether all its witnesses are such that they can be used.
func (n *Node) WithinLimits() bool {
	if !n.IsValid() || !n.stack.sat.ok {
		return n.IsValid()
	}
	left := 0 // what stays on the stack
	if n.typ.only("BKW") != 0 {
		left = 1
	}
	if n.context == Tapscript {
		return n.stack.sat.most+left <= maxStack
	}
	return (!n.ops.sat.ok || n.ops.count+n.ops.sat.n <= maxOps) && n.stack.sat.taken+left <= maxP2WSHStack
}

// isSanePart is IsSane for a part of an expression.
func (n *Node) isSanePart() bool {
	return n.WithinLimits() && n.IsNonMalleable() && n.KeepsLocksApart() && !n.duplicate
}

// IsSane reports whether it is safe to receive coins by its script.
func (n *Node) IsSane() bool { return n.IsValidTopLevel() && n.isSanePart() && n.NeedsSignature() }

// InsanePart returns the first of its parts, itself the last, that is no part of anything sane; or nil.
func (n *Node) InsanePart() *Node {
	for _, s := range n.Subs {
		if bad := s.InsanePart(); bad != nil {
			return bad
		}
	}
	if !n.isSanePart() {
		return n
	}
	return nil
}

// findDuplicates notes where keys stand twice; name tells keys apart.
func (n *Node) findDuplicates(name func(int) string) map[string]bool {
	mine := map[string]bool{}
	add := func(key string) {
		n.duplicate = n.duplicate || mine[key]
		mine[key] = true
	}
	for _, k := range n.Keys {
		add(name(k))
	}
	for _, s := range n.Subs {
		theirs := s.findDuplicates(name)
		if len(mine) < len(theirs) {
			mine, theirs = theirs, mine
		}
		for key := range theirs {
			add(key)
		}
		n.duplicate = n.duplicate || s.duplicate
	}
	return mine
}

// names are how fragments are written that are no wrappers.
func (f Fragment) name() string {
	switch f {
	case PkK:
		return "pk_k"
	case PkH:
		return "pk_h"
	case Older:
		return "older"
	case After:
		return "after"
	case Sha256:
		return "sha256"
	case Hash256:
		return "hash256"
	case Ripemd160:
		return "ripemd160"
	case Hash160:
		return "hash160"
	case AndV:
		return "and_v"
	case AndB:
		return "and_b"
	case OrB:
		return "or_b"
	case OrC:
		return "or_c"
	case OrD:
		return "or_d"
	case OrI:
		return "or_i"
	case AndOr:
		return "andor"
	case Thresh:
		return "thresh"
	case Multi:
		return "multi"
	case MultiA:
		return "multi_a"
	}
	return ""
}

// String writes the expression, in the shortest form, with each key as a function writes it.
func (n *Node) String(key func(int) string) string {
	var b strings.Builder
	n.write(&b, key, false)
	return b.String()
}

func (n *Node) is(f Fragment) bool { return n.Fragment == f }

// write writes the expression behind letters of wrappers, or not.
func (n *Node) write(b *strings.Builder, key func(int) string, wrapped bool) {
	letter, inner := n.wrapper()
	if letter != 0 {
		b.WriteByte(letter)
		inner.write(b, key, true)
		return
	}
	if wrapped {
		b.WriteByte(':')
	}
	switch {
	case n.is(Just0):
		b.WriteByte('0')
		return
	case n.is(Just1):
		b.WriteByte('1')
		return
	case n.is(WrapC): // of a key; see wrapper
		name := "pk("
		if n.Subs[0].is(PkH) {
			name = "pkh("
		}
		b.WriteString(name + key(n.Subs[0].Keys[0]) + ")")
		return
	}
	var parts []string
	if n.K != 0 {
		parts = append(parts, strconv.FormatUint(uint64(n.K), 10))
	}
	if n.Hash != nil {
		parts = append(parts, hex.EncodeToString(n.Hash))
	}
	for _, k := range n.Keys {
		parts = append(parts, key(k))
	}
	name, subs := n.Fragment.name(), n.Subs
	if n.is(AndOr) && subs[2].is(Just0) {
		name, subs = "and_n", subs[:2]
	}
	b.WriteString(name + "(" + strings.Join(parts, ","))
	for i, s := range subs {
		if i > 0 || len(parts) > 0 {
			b.WriteByte(',')
		}
		s.write(b, key, false)
	}
	b.WriteByte(')')
}

// wrapper returns the letter by which the expression is written before another, and that one; zero if it is
// written otherwise.
func (n *Node) wrapper() (byte, *Node) {
	switch {
	case n.is(WrapC) && (n.Subs[0].is(PkK) || n.Subs[0].is(PkH)):
		return 0, nil
	case n.Fragment.isWrapper():
		return wrapperLetters[n.Fragment-WrapA], n.Subs[0]
	case n.is(AndV) && n.Subs[1].is(Just1):
		return 't', n.Subs[0]
	case n.is(OrI) && n.Subs[0].is(Just0):
		return 'l', n.Subs[1]
	case n.is(OrI) && n.Subs[1].is(Just0):
		return 'u', n.Subs[0]
	}
	return 0, nil
}

// Script returns the script, with each key in the octets that a function returns: 33, or 32 in Tapscript.
func (n *Node) Script(key func(int) []byte) []byte { return n.append(make([]byte, 0, n.size), key) }

func (n *Node) append(dst []byte, key func(int) []byte) []byte {
	ops := func(list ...script.Op) {
		for _, op := range list {
			dst = append(dst, byte(op))
		}
	}
	sub := func(i int) { dst = n.Subs[i].append(dst, key) }
	hash := func(op script.Op) {
		ops(script.OpSize)
		dst = script.AppendInt(dst, hashSize)
		ops(script.OpEqualVerify, op)
		dst = script.AppendPush(dst, n.Hash)
		ops(script.OpEqual)
	}
	switch n.Fragment {
	case Just0:
		ops(script.Op0)
	case Just1:
		ops(script.Op1)
	case PkK:
		dst = script.AppendPush(dst, key(n.Keys[0]))
	case PkH:
		ops(script.OpDup, script.OpHash160)
		h := script.Hash160(key(n.Keys[0]))
		dst = script.AppendPush(dst, h[:])
		ops(script.OpEqualVerify)
	case Older:
		dst = script.AppendInt(dst, int64(n.K))
		ops(script.OpCheckSequenceVerify)
	case After:
		dst = script.AppendInt(dst, int64(n.K))
		ops(script.OpCheckLockTimeVerify)
	case Sha256:
		hash(script.OpSha256)
	case Hash256:
		hash(script.OpHash256)
	case Ripemd160:
		hash(script.OpRipemd160)
	case Hash160:
		hash(script.OpHash160)
	case Multi, MultiA:
		dst = n.appendMulti(dst, key)
	case Thresh:
		for i := range n.Subs {
			if sub(i); i > 0 {
				ops(script.OpAdd)
			}
		}
		dst = script.AppendInt(dst, int64(n.K))
		ops(script.OpEqual)
	case WrapV:
		if sub(0); n.Subs[0].typ.Has("x") {
			ops(script.OpVerify)
		} else {
			dst[len(dst)-1]++ // the VERIFY form of the four opcodes that have one is the next
		}
	default:
		return n.appendAround(dst, key)
	}
	return dst
}

// appendAround appends what is made of other expressions and opcodes around them.
func (n *Node) appendAround(dst []byte, key func(int) []byte) []byte {
	ops := func(list ...script.Op) {
		for _, op := range list {
			dst = append(dst, byte(op))
		}
	}
	sub := func(i int) { dst = n.Subs[i].append(dst, key) }
	switch n.Fragment {
	case WrapA:
		ops(script.OpToAltStack)
		sub(0)
		ops(script.OpFromAltStack)
	case WrapS:
		ops(script.OpSwap)
		sub(0)
	case WrapC:
		sub(0)
		ops(script.OpCheckSig)
	case WrapD:
		ops(script.OpDup, script.OpIf)
		sub(0)
		ops(script.OpEndIf)
	case WrapJ:
		ops(script.OpSize, script.Op0NotEqual, script.OpIf)
		sub(0)
		ops(script.OpEndIf)
	case WrapN:
		sub(0)
		ops(script.Op0NotEqual)
	case AndV:
		sub(0)
		sub(1)
	case AndB:
		sub(0)
		sub(1)
		ops(script.OpBoolAnd)
	case OrB:
		sub(0)
		sub(1)
		ops(script.OpBoolOr)
	case OrC:
		sub(0)
		ops(script.OpNotIf)
		sub(1)
		ops(script.OpEndIf)
	case OrD:
		sub(0)
		ops(script.OpIfDup, script.OpNotIf)
		sub(1)
		ops(script.OpEndIf)
	case OrI:
		ops(script.OpIf)
		sub(0)
		ops(script.OpElse)
		sub(1)
		ops(script.OpEndIf)
	case AndOr:
		sub(0)
		ops(script.OpNotIf)
		sub(2)
		ops(script.OpElse)
		sub(1)
		ops(script.OpEndIf)
	}
	return dst
}

func (n *Node) appendMulti(dst []byte, key func(int) []byte) []byte {
	if n.is(Multi) {
		dst = script.AppendInt(dst, int64(n.K))
		for _, k := range n.Keys {
			dst = script.AppendPush(dst, key(k))
		}
		return append(script.AppendInt(dst, int64(len(n.Keys))), byte(script.OpCheckMultisig))
	}
	for i, k := range n.Keys {
		op := script.OpCheckSigAdd
		if i == 0 {
			op = script.OpCheckSig
		}
		dst = append(script.AppendPush(dst, key(k)), byte(op))
	}
	return append(script.AppendInt(dst, int64(n.K)), byte(script.OpNumEqual))
}

// hashSize is the length of a preimage.
const hashSize = 32

// intSize is the octets of a number in a script.
func intSize(k uint32) int { return len(script.AppendInt(nil, int64(k))) }
