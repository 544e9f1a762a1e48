package miniscript

import (
	"slices"

	"github.com/tallypost/tallypost/bitcoin/script"
)

// KnownKeys takes in keys that stand in scripts and returns their numbers.
type KnownKeys struct {
	Key  func(octets []byte) (int, bool)
	Hash func(hash []byte) (int, bool) // of a key with this hash
	Name func(int) string              // as in Keys
}

// FromScript recognises the expression whose script is given; it is one that can be a script.
func FromScript(s []byte, c Context, keys KnownKeys) (*Node, bool) {
	if len(s) > c.maxSize() {
		return nil, false
	}
	items, ok := decompose(s)
	if !ok {
		return nil, false
	}
	d := decoder{items: items, context: c, keys: keys}
	n := d.sequence(0)
	if n == nil || len(d.items) > 0 || !n.IsValidTopLevel() {
		return nil, false
	}
	n.findDuplicates(keys.Name)
	return n, true
}

// item is an operation of a script with what it pushes.
type item struct {
	op   script.Op
	data []byte
}

// decompose takes a script apart. An operation with a VERIFY form is two; the two themselves, where one would
// have done, are none of ours, nor is a push that could be shorter.
func decompose(s []byte) (items []item, ok bool) {
	for len(s) > 0 {
		op, data, rest, ok := script.Next(s)
		if !ok {
			return nil, false
		}
		switch {
		case op >= script.Op1 && op <= script.Op16:
			data = []byte{byte(op-script.Op1) + 1}
		case op == script.OpCheckSigVerify, op == script.OpCheckMultisigVerify, op == script.OpEqualVerify,
			op == script.OpNumEqualVerify:
			items = append(items, item{op: op - 1})
			op = script.OpVerify
		case op <= script.OpPushData4:
			if !isMinimal(s[:len(s)-len(rest)], data) {
				return nil, false
			}
		case (op == script.OpCheckSig || op == script.OpCheckMultisig || op == script.OpEqual ||
			op == script.OpNumEqual) && len(rest) > 0 && script.Op(rest[0]) == script.OpVerify:
			return nil, false
		}
		items, s = append(items, item{op, data}), rest
	}
	return items, true
}

// isMinimal reports whether an operation is the shortest that pushes the data.
func isMinimal(push, data []byte) bool {
	if len(data) == 1 && (data[0] >= 1 && data[0] <= 16 || data[0] == 0x81) {
		return false
	}
	return len(push) == len(script.AppendPush(nil, data))
}

// decoder reads a script from its end: there every operation tells what belongs before it.
type decoder struct {
	items   []item // what is left
	context Context
	keys    KnownKeys
}

// at returns the operation i places before the end.
func (d *decoder) at(i int) item {
	if i < len(d.items) {
		return d.items[len(d.items)-1-i]
	}
	return item{op: script.OpInvalid}
}

func (d *decoder) drop(n int) { d.items = d.items[:len(d.items)-n] }

// take reads operations if they come next, the last of the script first.
func (d *decoder) take(ops ...script.Op) bool {
	for i, op := range ops {
		if d.at(i).op != op {
			return false
		}
	}
	d.drop(len(ops))
	return true
}

// numberAt reads the number that is pushed i places before the end.
func (d *decoder) numberAt(i int) (int64, bool) {
	it := d.at(i)
	switch {
	case it.op == script.Op0 && i < len(d.items):
		return 0, true
	case len(it.data) == 0:
		return 0, false
	}
	n, err := script.DecodeNum(it.data, true, 4)
	return n, err == nil
}

// node makes an expression; nil where it makes no sense, or a part is missing.
func (d *decoder) node(n Node) *Node {
	if slices.Contains(n.Subs, nil) {
		return nil
	}
	if out := n.make(d.context); out.IsValid() {
		return out
	}
	return nil
}

// sequence reads one or more expressions that follow each other: all but the last are V.
func (d *decoder) sequence(depth int) *Node {
	var list []*Node // the last first
	for {
		n := d.single(depth + 1)
		if n == nil {
			return nil
		}
		list = append(list, n)
		switch d.at(0).op {
		case script.OpIf, script.OpElse, script.OpNotIf, script.OpToAltStack, script.OpSwap:
		default:
			if len(d.items) > 0 {
				continue
			}
		}
		break
	}
	n := list[len(list)-1]
	for i := len(list) - 2; i >= 0 && n != nil; i-- {
		n = d.node(Node{Fragment: AndV, Subs: []*Node{n, list[i]}})
	}
	return n
}

// aside reads an expression of type W.
func (d *decoder) aside(depth int) *Node {
	if d.take(script.OpFromAltStack) {
		n := d.sequence(depth)
		if !d.take(script.OpToAltStack) {
			return nil
		}
		return d.node(Node{Fragment: WrapA, Subs: []*Node{n}})
	}
	n := d.sequence(depth)
	if !d.take(script.OpSwap) {
		return nil
	}
	return d.node(Node{Fragment: WrapS, Subs: []*Node{n}})
}

// single reads an expression that is no sequence. Where a sequence and something around it have the same script
// as a sequence whose last part has it around, the latter is meant.
func (d *decoder) single(depth int) *Node {
	if depth > maxDepth {
		return nil
	}
	if n, ok := d.leaf(); ok {
		return n
	}
	wrap := func(f Fragment) *Node { return d.node(Node{Fragment: f, Subs: []*Node{d.single(depth + 1)}}) }
	two := func(f Fragment) *Node {
		y := d.aside(depth + 1)
		if y == nil {
			return nil
		}
		return d.node(Node{Fragment: f, Subs: []*Node{d.single(depth + 1), y}})
	}
	switch k, ok := d.numberAt(1); {
	case d.take(script.OpCheckSig):
		return wrap(WrapC)
	case d.take(script.OpVerify):
		return wrap(WrapV)
	case d.take(script.Op0NotEqual):
		return wrap(WrapN)
	case d.at(0).op == script.OpEqual && ok && k >= 1:
		d.drop(2)
		return d.thresh(k, depth)
	case d.take(script.OpEndIf):
		return d.conditional(depth)
	case d.take(script.OpBoolAnd):
		return two(AndB)
	case d.take(script.OpBoolOr):
		return two(OrB)
	}
	return nil
}

// thresh reads the parts of an expression that k of them satisfy.
func (d *decoder) thresh(k int64, depth int) *Node {
	var subs []*Node
	for d.take(script.OpAdd) {
		s := d.aside(depth + 1)
		if s == nil {
			return nil
		}
		subs = append(subs, s)
	}
	subs = append(subs, d.single(depth+1))
	if k > int64(len(subs)) {
		return nil
	}
	slices.Reverse(subs)
	return d.node(Node{Fragment: Thresh, K: uint32(k), Subs: subs})
}

// conditional reads what ends with OP_ENDIF.
func (d *decoder) conditional(depth int) *Node {
	y := d.sequence(depth + 1)
	if y == nil {
		return nil
	}
	switch {
	case d.take(script.OpElse):
		x := d.sequence(depth + 1)
		switch {
		case x == nil:
			return nil
		case d.take(script.OpIf):
			return d.node(Node{Fragment: OrI, Subs: []*Node{x, y}})
		case d.take(script.OpNotIf):
			return d.node(Node{Fragment: AndOr, Subs: []*Node{d.single(depth + 1), y, x}})
		}
	case d.take(script.OpIf, script.OpDup):
		return d.node(Node{Fragment: WrapD, Subs: []*Node{y}})
	case d.take(script.OpIf, script.Op0NotEqual, script.OpSize):
		return d.node(Node{Fragment: WrapJ, Subs: []*Node{y}})
	case d.take(script.OpNotIf, script.OpIfDup):
		return d.node(Node{Fragment: OrD, Subs: []*Node{d.single(depth + 1), y}})
	case d.take(script.OpNotIf):
		return d.node(Node{Fragment: OrC, Subs: []*Node{d.single(depth + 1), y}})
	}
	return nil
}

// leaf reads an expression without parts; ok says that it can be nothing else.
func (d *decoder) leaf() (n *Node, ok bool) {
	first := d.at(0)
	switch size := len(first.data); {
	case len(d.items) == 0:
		return nil, true
	case d.take(script.Op1):
		return d.node(Node{Fragment: Just1}), true
	case d.take(script.Op0):
		return d.node(Node{Fragment: Just0}), true
	case size == 33 || size == 32:
		key, ok := d.keys.Key(first.data)
		if !ok {
			return nil, true
		}
		d.drop(1)
		return d.node(Node{Fragment: PkK, Keys: []int{key}}), true
	case first.op == script.OpCheckMultisig:
		return d.multi(), true
	case first.op == script.OpNumEqual:
		return d.multiA(), true
	case first.op == script.OpVerify && d.at(1).op == script.OpEqual && len(d.at(2).data) == 20 &&
		d.at(3).op == script.OpHash160 && d.at(4).op == script.OpDup:
		key, ok := d.keys.Hash(d.at(2).data)
		if !ok {
			return nil, true
		}
		d.drop(5)
		return d.node(Node{Fragment: PkH, Keys: []int{key}}), true
	}
	if k, isNumber := d.numberAt(1); isNumber && (first.op == script.OpCheckSequenceVerify ||
		first.op == script.OpCheckLockTimeVerify) {
		d.drop(2)
		f := Older
		if first.op == script.OpCheckLockTimeVerify {
			f = After
		}
		if k < 1 || k >= 1<<31 {
			return nil, true
		}
		return d.node(Node{Fragment: f, K: uint32(k)}), true
	}
	return d.hash()
}

// hash reads SIZE 32 EQUALVERIFY <hash opcode> <hash> EQUAL.
func (d *decoder) hash() (n *Node, ok bool) {
	size, isNumber := d.numberAt(5)
	if d.at(0).op != script.OpEqual || d.at(3).op != script.OpVerify || d.at(4).op != script.OpEqual ||
		!isNumber || size != hashSize || d.at(6).op != script.OpSize {
		return nil, false
	}
	for _, h := range []struct {
		op   script.Op
		f    Fragment
		size int
	}{{script.OpSha256, Sha256, 32}, {script.OpHash256, Hash256, 32}, {script.OpRipemd160, Ripemd160, 20},
		{script.OpHash160, Hash160, 20}} {
		if data := d.at(1).data; d.at(2).op == h.op && len(data) == h.size {
			d.drop(7)
			return d.node(Node{Fragment: h.f, Hash: data}), true
		}
	}
	return nil, false
}

func (d *decoder) multi() *Node {
	count, ok := d.numberAt(1)
	if !ok || count < 1 || count > maxMulti || d.context == Tapscript {
		return nil
	}
	n := Node{Fragment: Multi}
	for i := range int(count) {
		data := d.at(2 + i).data
		if len(data) != 33 {
			return nil
		}
		key, ok := d.keys.Key(data)
		if !ok {
			return nil
		}
		n.Keys = append(n.Keys, key)
	}
	k, ok := d.numberAt(2 + int(count))
	if !ok || k < 1 || k > count {
		return nil
	}
	d.drop(3 + int(count))
	n.K = uint32(k)
	slices.Reverse(n.Keys)
	return d.node(n)
}

func (d *decoder) multiA() *Node {
	k, ok := d.numberAt(1)
	if !ok || k < 1 || k > maxMultiA || d.context != Tapscript {
		return nil
	}
	n := Node{Fragment: MultiA, K: uint32(k)}
	for pos, op := 2, script.OpCheckSigAdd; op != script.OpCheckSig; pos += 2 {
		op = d.at(pos).op
		data := d.at(pos + 1).data
		if op != script.OpCheckSig && op != script.OpCheckSigAdd || len(data) != 32 || len(n.Keys) == maxMultiA {
			return nil
		}
		key, ok := d.keys.Key(data)
		if !ok {
			return nil
		}
		n.Keys = append(n.Keys, key)
	}
	if int(k) > len(n.Keys) {
		return nil
	}
	d.drop(2 + 2*len(n.Keys))
	slices.Reverse(n.Keys)
	return d.node(n)
}
