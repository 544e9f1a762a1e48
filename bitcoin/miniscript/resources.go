package miniscript

// count is the most of something that any way takes; not ok where there is no way.
type count struct {
	n  int
	ok bool
}

func counted(n int) count { return count{n, true} }

// and is both, one after the other.
func (c count) and(d count) count {
	if !c.ok || !d.ok {
		return count{}
	}
	return counted(c.n + d.n)
}

// or is either of two.
func (c count) or(d count) count {
	switch {
	case !c.ok:
		return d
	case !d.ok:
		return c
	}
	return counted(max(c.n, d.n))
}

// ops are the opcodes that count against the limit: those of the script, and the keys that OP_CHECKMULTISIG
// looks at when the expression is satisfied, or dissatisfied.
type ops struct {
	count     int
	sat, dsat count
}

// countOps counts opcodes (Bitcoin Core script/miniscript.h, CalcOps).
func (n *Node) countOps() ops {
	var x, y, z ops
	switch len(n.Subs) {
	default:
		z = n.Subs[2].ops
		fallthrough
	case 2:
		y = n.Subs[1].ops
		fallthrough
	case 1:
		x = n.Subs[0].ops
	case 0:
	}
	none, never, sum := counted(0), count{}, x.count+y.count
	switch n.Fragment {
	case Just0:
		return ops{0, never, none}
	case Just1:
		return ops{0, none, never}
	case PkK:
		return ops{0, none, none}
	case PkH:
		return ops{3, none, none}
	case Older, After:
		return ops{1, none, never}
	case Sha256, Hash256, Ripemd160, Hash160:
		return ops{4, none, never}
	case Multi:
		return ops{1, counted(len(n.Keys)), counted(len(n.Keys))}
	case MultiA:
		return ops{len(n.Keys) + 1, none, none}
	case WrapS, WrapC, WrapN:
		return ops{1 + x.count, x.sat, x.dsat}
	case WrapA:
		return ops{2 + x.count, x.sat, x.dsat}
	case WrapD:
		return ops{3 + x.count, x.sat, none}
	case WrapJ:
		return ops{4 + x.count, x.sat, none}
	case WrapV:
		if n.Subs[0].typ.Has("x") {
			return ops{x.count + 1, x.sat, never}
		}
		return ops{x.count, x.sat, never}
	case AndV:
		return ops{sum, x.sat.and(y.sat), never}
	case AndB:
		return ops{sum + 1, x.sat.and(y.sat), x.dsat.and(y.dsat)}
	case OrB:
		return ops{sum + 1, x.sat.and(y.dsat).or(y.sat.and(x.dsat)), x.dsat.and(y.dsat)}
	case OrC:
		return ops{sum + 2, x.sat.or(y.sat.and(x.dsat)), never}
	case OrD:
		return ops{sum + 3, x.sat.or(y.sat.and(x.dsat)), x.dsat.and(y.dsat)}
	case OrI:
		return ops{sum + 3, x.sat.or(y.sat), x.dsat.or(y.dsat)}
	case AndOr:
		return ops{sum + z.count + 3, y.sat.and(x.sat).or(x.dsat.and(z.sat)), x.dsat.and(z.dsat)}
	}
	total := 0
	ways := []count{none} // ways[j] satisfies j of those so far
	for _, s := range n.Subs {
		total += s.ops.count + 1
		next := make([]count, len(ways)+1)
		for j := range next {
			if j < len(ways) {
				next[j] = ways[j].and(s.ops.dsat)
			}
			if j > 0 {
				next[j] = next[j].or(ways[j-1].and(s.ops.sat))
			}
		}
		ways = next
	}
	return ops{total, ways[n.K], ways[0]}
}

// use is what the ways of running a script do with the stack, compared with what is on it in the end.
type use struct {
	ok    bool
	taken int // how much more is on it at the start
	most  int // and at most, meanwhile
}

// then is one script behind another.
func (u use) then(list ...use) use {
	for _, v := range list {
		if !u.ok || !v.ok {
			return use{}
		}
		u = use{true, u.taken + v.taken, max(v.most, v.taken+u.most)}
	}
	return u
}

// or is one script or another.
func (u use) or(v use) use {
	switch {
	case !u.ok:
		return v
	case !v.ok:
		return u
	}
	return use{true, max(u.taken, v.taken), max(u.most, v.most)}
}

// stack is the use of the stack when an expression is satisfied, or dissatisfied.
type stack struct{ sat, dsat use }

// countStack is what an expression does with the stack (Bitcoin Core script/miniscript.h, CalcStackSize).
func (n *Node) countStack() stack {
	var x, y, z stack
	switch len(n.Subs) {
	default:
		z = n.Subs[2].stack
		fallthrough
	case 2:
		y = n.Subs[1].stack
		fallthrough
	case 1:
		x = n.Subs[0].stack
	case 0:
	}
	never := use{}
	pushes, leavesAll := use{true, -1, 0}, use{ok: true} // and so do hashes and locks, which change nothing else
	takesOne := use{true, 1, 1}                          // OP_IF, OP_VERIFY, and what makes one of two
	takesTwo := use{true, 2, 2}
	switch n.Fragment {
	case Just0:
		return stack{never, pushes}
	case Just1:
		return stack{pushes, never}
	case Older, After:
		return stack{pushes.then(leavesAll), never}
	case PkK:
		return stack{pushes, pushes}
	case PkH: // DUP HASH160 <hash> EQUALVERIFY
		u := pushes.then(leavesAll, pushes, takesTwo)
		return stack{u, u}
	case Sha256, Hash256, Ripemd160, Hash160: // SIZE <32> EQUALVERIFY HASH <hash> EQUAL
		return stack{pushes.then(pushes, takesTwo, leavesAll, pushes, takesOne), never}
	case Multi: // k+1 elements at the start, n+k+3 at most, one in the end
		u := use{true, int(n.K), int(n.K) + len(n.Keys) + 2}
		return stack{u, u}
	case MultiA: // n at the start, one more at most, one in the end
		u := use{true, len(n.Keys) - 1, len(n.Keys)}
		return stack{u, u}
	case WrapA, WrapN, WrapS:
		return x
	case WrapC:
		return stack{x.sat.then(takesOne), x.dsat.then(takesOne)}
	case WrapD:
		return stack{pushes.then(takesOne, x.sat), pushes.then(takesOne)}
	case WrapV:
		return stack{x.sat.then(takesOne), never}
	case WrapJ:
		return stack{pushes.then(leavesAll, takesOne, x.sat), pushes.then(leavesAll, takesOne)}
	case AndV:
		return stack{x.sat.then(y.sat), never}
	case AndB:
		return stack{x.sat.then(y.sat, takesOne), x.dsat.then(y.dsat, takesOne)}
	case OrB:
		return stack{x.sat.then(y.dsat).or(x.dsat.then(y.sat)).then(takesOne), x.dsat.then(y.dsat, takesOne)}
	case OrC:
		return stack{x.sat.then(takesOne).or(x.dsat.then(takesOne, y.sat)), never}
	case OrD: // IFDUP doubles what is not zero
		return stack{x.sat.then(pushes, takesOne).or(x.dsat.then(takesOne, y.sat)), x.dsat.then(takesOne, y.dsat)}
	case OrI:
		return stack{takesOne.then(x.sat.or(y.sat)), takesOne.then(x.dsat.or(y.dsat))}
	case AndOr:
		return stack{x.sat.then(takesOne, y.sat).or(x.dsat.then(takesOne, z.sat)), x.dsat.then(takesOne, z.dsat)}
	}
	ways := []use{leavesAll}
	for i, s := range n.Subs {
		add := leavesAll
		if i > 0 {
			add = takesOne
		}
		next := make([]use, len(ways)+1)
		for j := range next {
			if j < len(ways) {
				next[j] = ways[j].then(s.stack.dsat)
			}
			if j > 0 {
				next[j] = next[j].or(ways[j-1].then(s.stack.sat))
			}
			next[j] = next[j].then(add)
		}
		ways = next
	}
	return stack{ways[n.K].then(pushes, takesOne), ways[0].then(pushes, takesOne)}
}

// scriptSize is the length of the script.
func (n *Node) scriptSize() int {
	size := 0
	for _, s := range n.Subs {
		size += s.size
	}
	const push, keyPush, xOnlyPush, shortHash, longHash = 1, 34, 33, 21, 33
	switch n.Fragment {
	case Just0, Just1:
		return push
	case PkK:
		if n.context == Tapscript {
			return xOnlyPush
		}
		return keyPush
	case PkH:
		return 3 + shortHash
	case Older, After:
		return 1 + intSize(n.K)
	case Sha256, Hash256:
		return 4 + 2 + longHash
	case Ripemd160, Hash160:
		return 4 + 2 + shortHash
	case Multi:
		return 1 + intSize(uint32(len(n.Keys))) + intSize(n.K) + keyPush*len(n.Keys)
	case MultiA:
		return (xOnlyPush+1)*len(n.Keys) + intSize(n.K) + 1
	case WrapV:
		if n.Subs[0].typ.Has("x") {
			return size + 1
		}
		return size
	case AndV:
		return size
	case WrapS, WrapC, WrapN, AndB, OrB:
		return size + 1
	case WrapA, OrC:
		return size + 2
	case WrapD, OrD, OrI, AndOr:
		return size + 3
	case WrapJ:
		return size + 4
	}
	return size + len(n.Subs) + intSize(n.K) // thresh
}
