package miniscript

import "strings"

// Type says what an expression does and what can be said of its witnesses: one letter of B, V, K and W, and
// small letters for properties (BIP 379, "Type system"). The zero Type is that of an expression that makes no
// sense.
//
//	B  pushes something nonzero when satisfied, zero when dissatisfied    z  takes no element of the stack
//	V  pushes nothing, and cannot be dissatisfied                         o  takes exactly one
//	K  pushes a key whose signature is to be checked                      n  the top element is not zero
//	W  as B, but works one below the top                                  d  can be dissatisfied
//	u  pushes exactly 1 when satisfied                                    e  only in one way, without signature
//	f  cannot be dissatisfied without a signature                         s  cannot be satisfied without one
//	m  has a satisfaction that nobody can change                          x  its last opcode has no VERIFY form
//	g, h  has a relative lock by time, by height                          i, j  has an absolute one
//	k  no way to satisfy it mixes locks by time and by height
type Type uint32

// letters are all letters, each of which has the bit of its place.
const letters = "BVKWzonduefsmxghijk"

// typeOf returns the type that has these letters.
func typeOf(s string) (t Type) {
	for i := range len(s) {
		t |= 1 << strings.IndexByte(letters, s[i])
	}
	return t
}

// Has reports whether a type has all of some letters.
func (t Type) Has(s string) bool { return t&typeOf(s) == typeOf(s) }

// only keeps some letters.
func (t Type) only(s string) Type { return t & typeOf(s) }

// when is a type with some letters if a condition holds, else without any.
func when(cond bool, s string) Type {
	if cond {
		return typeOf(s)
	}
	return 0
}

// keep is what a type has of some letters if a condition holds.
func (t Type) keep(cond bool, s string) Type {
	if cond {
		return t.only(s)
	}
	return 0
}

// String returns the letters.
func (t Type) String() string {
	var b strings.Builder
	for i := range len(letters) {
		if t&(1<<i) != 0 {
			b.WriteByte(letters[i])
		}
	}
	return b.String()
}

// locks are the properties that tell of time locks.
const locks = "ghij"

// mixes reports whether satisfying both of two expressions would take locks by time and by height.
func mixes(x, y Type) bool {
	return x.Has("g") && y.Has("h") || x.Has("h") && y.Has("g") || x.Has("i") && y.Has("j") || x.Has("j") && y.Has("i")
}

// Locks in the numbers of transactions (BIPs 65 and 68).
const (
	locktimeThreshold = 500_000_000 // numbers from here on are times
	sequenceTimeFlag  = 1 << 22     // of a relative lock by time
)

// typeOfNode is the type of an expression by those of its parts.
func (n *Node) typeOfNode() Type {
	var x, y, z Type
	switch len(n.Subs) {
	default:
		z = n.Subs[2].typ
		fallthrough
	case 2:
		y = n.Subs[1].typ
		fallthrough
	case 1:
		x = n.Subs[0].typ
	case 0:
	}
	var t Type
	switch {
	case n.Fragment.isWrapper():
		t = n.typeOfWrapper(x)
	case n.Fragment == Thresh:
		t = n.typeOfThresh()
	case len(n.Subs) > 0:
		t = typeOfCombination(n.Fragment, x, y, z)
	default:
		t = n.typeOfLeaf()
	}
	if t.only("BVKW") == 0 {
		return 0
	}
	return t
}

func (n *Node) typeOfLeaf() Type {
	switch n.Fragment {
	case PkK:
		return typeOf("Konudemsxk")
	case PkH:
		return typeOf("Knudemsxk")
	case Older:
		timed := n.K&sequenceTimeFlag != 0
		return typeOf("Bzfmxk") | when(timed, "g") | when(!timed, "h")
	case After:
		timed := n.K >= locktimeThreshold
		return typeOf("Bzfmxk") | when(timed, "i") | when(!timed, "j")
	case Sha256, Ripemd160, Hash256, Hash160:
		return typeOf("Bonudmk")
	case Just1:
		return typeOf("Bzufmxk")
	case Just0:
		return typeOf("Bzudemsxk")
	case Multi:
		return typeOf("Bnudemsk")
	case MultiA:
		return typeOf("Budemsk")
	}
	return 0
}

func (n *Node) typeOfWrapper(x Type) Type {
	t := x.only(locks + "k")
	switch n.Fragment {
	case WrapA:
		return t | when(x.Has("B"), "W") | x.only("udfems") | typeOf("x")
	case WrapS:
		return t | when(x.Has("Bo"), "W") | x.only("udfemsx")
	case WrapC:
		return t | when(x.Has("K"), "B") | x.only("ondfem") | typeOf("us")
	case WrapD:
		// That the argument of OP_IF is 1 is a rule in Tapscript, but elsewhere only a custom of nodes.
		return t | when(x.Has("Vz"), "B") | when(x.Has("z"), "o") | when(x.Has("f"), "e") | x.only("ms") |
			when(n.context == Tapscript, "u") | typeOf("ndx")
	case WrapV:
		return t | when(x.Has("B"), "V") | x.only("zonms") | typeOf("fx")
	case WrapJ:
		return t | when(x.Has("Bn"), "B") | when(x.Has("f"), "e") | x.only("oums") | typeOf("ndx")
	case WrapN:
		return t | x.only("Bzondfems") | typeOf("ux")
	}
	return 0
}

// typeOfCombination is the type of an expression of two or three others.
func typeOfCombination(f Fragment, x, y, z Type) Type {
	any2, both := x|y, x&y
	t := any2.only(locks)
	unmixed := when(both.Has("k") && !mixes(x, y), "k")
	oneOf := any2.keep(any2.Has("z"), "o") // one takes an element, the other none
	switch f {
	case AndV:
		return t | unmixed | oneOf | y.keep(x.Has("V"), "KVB") | x.only("n") | y.keep(x.Has("z"), "n") |
			both.only("dmz") | any2.only("s") | when(y.Has("f") || x.Has("s"), "f") | y.only("ux")
	case AndB:
		return t | unmixed | oneOf | x.keep(y.Has("W"), "B") | x.only("n") | y.keep(x.Has("z"), "n") |
			both.keep(both.Has("s"), "e") | both.only("dzm") |
			when(both.Has("f") || x.Has("sf") || y.Has("sf"), "f") | any2.only("s") | typeOf("ux")
	case OrB:
		return t | oneOf | when(x.Has("Bd") && y.Has("Wd"), "B") | both.keep(any2.Has("s") && both.Has("e"), "m") |
			both.only("zsek") | typeOf("dux")
	case OrD:
		return t | y.keep(x.Has("Bdu"), "B") | x.keep(y.Has("z"), "o") | both.keep(x.Has("e") && any2.Has("s"), "m") |
			both.only("zsk") | y.only("ufde") | typeOf("x")
	case OrC:
		return t | y.keep(x.Has("Bdu"), "V") | x.keep(y.Has("z"), "o") | both.keep(x.Has("e") && any2.Has("s"), "m") |
			both.only("zsk") | typeOf("fx")
	case OrI:
		return t | both.only("VBKufsk") | when(both.Has("z"), "o") | any2.keep(any2.Has("f"), "e") |
			both.keep(any2.Has("s"), "m") | any2.only("d") | typeOf("x")
	}
	// andor(X,Y,Z)
	arms := y & z
	return (any2 | z).only(locks) | when((both&z).Has("k") && !mixes(x, y), "k") | arms.keep(x.Has("Bdu"), "BKV") |
		(x & arms).only("z") | (x|arms).keep((x|arms).Has("z"), "o") | arms.only("u") |
		z.keep(x.Has("s") || y.Has("f"), "fe") | z.only("d") |
		(x&arms).keep(x.Has("e") && (any2|z).Has("s"), "m") | (z & any2).only("s") | typeOf("x")
}

// typeOfThresh is the type of an expression that k of others satisfy.
func (n *Node) typeOfThresh() Type {
	allE, allM := true, true
	takes, signed, count, k := 0, 0, len(n.Subs), int(n.K)
	times := typeOf("k")
	for i, s := range n.Subs {
		want := "Wdu"
		if i == 0 {
			want = "Bdu"
		}
		if !s.typ.Has(want) {
			return 0
		}
		allE, allM = allE && s.typ.Has("e"), allM && s.typ.Has("m")
		if s.typ.Has("s") {
			signed++
		}
		switch {
		case s.typ.Has("z"):
		case s.typ.Has("o"):
			takes++
		default:
			takes += 2
		}
		good := times.Has("k") && s.typ.Has("k") && (k <= 1 || !mixes(times, s.typ))
		times = (times | s.typ).only(locks) | when(good, "k")
	}
	return typeOf("Bdu") | when(takes == 0, "z") | when(takes == 1, "o") | when(allE && signed == count, "e") |
		when(allE && allM && signed >= count-k, "m") | when(signed >= count-k+1, "s") | times
}
