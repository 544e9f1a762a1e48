package script

// Items on the stacks are slices: of the scripts and the witness, which nobody changes; of the
// constants below; or of the arena. An operation makes new items and never changes one, so items
// may be shared.

// constants holds the numbers -1 and 0 to 16 as single octets.
var constants = [...]byte{0x81, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

// constant returns a number from -1 to 16 as a stack item, except zero, which is empty.
func constant(n int) []byte { return constants[n+1 : n+2 : n+2] }

func (v *Verifier) pushItem(b []byte) { v.stack = append(v.stack, b) }

func (v *Verifier) pushBool(b bool) {
	if b {
		v.pushItem(constant(1))
	} else {
		v.pushItem(nil)
	}
}

func (v *Verifier) pushNum(n int64) {
	switch {
	case n == 0:
		v.pushItem(nil)
	case n >= -1 && n <= 16:
		v.pushItem(constant(int(n)))
	default:
		b := AppendNum(v.alloc(9)[:0], n)
		v.pushItem(b[:len(b):len(b)])
	}
}

// pop takes the top item off. The stack must have one.
func (v *Verifier) pop() []byte {
	n := len(v.stack) - 1
	b := v.stack[n]
	v.stack = v.stack[:n]
	return b
}

func (v *Verifier) drop(n int) { v.stack = v.stack[:len(v.stack)-n] }

// top returns the i'th item from the top, the top being 1.
func (v *Verifier) top(i int) []byte { return v.stack[len(v.stack)-i] }

// num reads the i'th item from the top as a number of at most size octets.
func (v *Verifier) num(i, size int) (n int64, ok bool) {
	b := v.top(i)
	if len(b) > size || v.flags&VerifyMinimalData != 0 && !isMinimalNum(b) {
		return 0, false
	}
	return decodeNum(b), true
}

// arenaSize is room for all items that MaxStackSize and one operation allow, and half as much
// again. Computed items have at most arenaItem octets.
const (
	arenaSize = 48 << 10
	arenaItem = 32
	// arenaFirst is what a Verifier begins with: most run a few scripts that compute a few hashes.
	arenaFirst = 1 << 10
)

// arena is the memory of computed items. A tapscript may compute millions of them, while few can be
// on the stacks at a time: where a half is full, the living ones move to the other.
type arena struct {
	half, spare []byte
	used        int
}

func (a *arena) reset() { a.used = 0 }

// alloc returns n octets, n being at most arenaItem. What an earlier call returned stays good until
// the second call from now that has to move items.
func (v *Verifier) alloc(n int) []byte {
	a := &v.values
	if a.used+n > len(a.half) {
		v.moveItems()
	}
	b := a.half[a.used : a.used+n : a.used+n]
	a.used += n
	return b
}

// moveItems copies all short items to the spare half: those of the arena, and others that need not
// move but are not worth the telling apart.
func (v *Verifier) moveItems() {
	a := &v.values
	switch {
	case a.half == nil:
		a.half = make([]byte, arenaFirst)
		return
	case len(a.half) < arenaSize: // what is there stays good, for nobody writes to it again
		a.half = make([]byte, arenaSize)
	default:
		if a.spare == nil {
			a.spare = make([]byte, arenaSize)
		}
		a.half, a.spare = a.spare, a.half
	}
	a.used = 0
	for _, items := range [2][][]byte{v.stack, v.alt} {
		for i, b := range items {
			if n := len(b); n > 0 && n <= arenaItem {
				to := a.half[a.used : a.used+n : a.used+n]
				copy(to, b)
				items[i] = to
				a.used += n
			}
		}
	}
}

// stackOp runs an operation that only moves items.
func (v *Verifier) stackOp(op Op) Code {
	if len(v.stack) < int(stackNeeds[op]) {
		return ErrInvalidStackOperation
	}
	n := len(v.stack)
	s := v.stack
	switch op {
	case OpToAltStack:
		v.alt = append(v.alt, v.pop())
	case OpFromAltStack:
		if len(v.alt) == 0 {
			return ErrInvalidAltStackOperation
		}
		v.pushItem(v.alt[len(v.alt)-1])
		v.alt = v.alt[:len(v.alt)-1]
	case Op2Drop: // x1 x2 --
		v.drop(2)
	case Op2Dup: // x1 x2 -- x1 x2 x1 x2
		v.stack = append(s, s[n-2], s[n-1])
	case Op3Dup: // x1 x2 x3 -- x1 x2 x3 x1 x2 x3
		v.stack = append(s, s[n-3], s[n-2], s[n-1])
	case Op2Over: // x1 x2 x3 x4 -- x1 x2 x3 x4 x1 x2
		v.stack = append(s, s[n-4], s[n-3])
	case Op2Rot: // x1 x2 x3 x4 x5 x6 -- x3 x4 x5 x6 x1 x2
		x1, x2 := s[n-6], s[n-5]
		copy(s[n-6:], s[n-4:])
		s[n-2], s[n-1] = x1, x2
	case Op2Swap: // x1 x2 x3 x4 -- x3 x4 x1 x2
		s[n-4], s[n-3], s[n-2], s[n-1] = s[n-2], s[n-1], s[n-4], s[n-3]
	case OpIfDup: // x -- x x, or 0 -- 0
		if isTrue(s[n-1]) {
			v.pushItem(s[n-1])
		}
	case OpDepth: // -- number of items
		v.pushNum(int64(n))
	case OpDrop: // x --
		v.drop(1)
	case OpDup: // x -- x x
		v.pushItem(s[n-1])
	case OpNip: // x1 x2 -- x2
		s[n-2] = s[n-1]
		v.drop(1)
	case OpOver: // x1 x2 -- x1 x2 x1
		v.pushItem(s[n-2])
	case OpPick, OpRoll: // xn ... x1 x0 n -- xn ... x1 x0 xn; OpRoll takes xn away below
		return v.pick(op == OpRoll)
	case OpRot: // x1 x2 x3 -- x2 x3 x1
		s[n-3], s[n-2], s[n-1] = s[n-2], s[n-1], s[n-3]
	case OpSwap: // x1 x2 -- x2 x1
		s[n-2], s[n-1] = s[n-1], s[n-2]
	case OpTuck: // x1 x2 -- x2 x1 x2
		v.stack = append(s, s[n-1])
		v.stack[n-2], v.stack[n-1] = s[n-1], s[n-2]
	case OpSize: // x -- x size
		v.pushNum(int64(len(s[n-1])))
	}
	return OK
}

// stackNeeds is the number of items that must be on the stack.
var stackNeeds = [256]uint8{
	OpToAltStack: 1,
	Op2Drop:      2,
	Op2Dup:       2,
	Op3Dup:       3,
	Op2Over:      4,
	Op2Rot:       6,
	Op2Swap:      4,
	OpIfDup:      1,
	OpDrop:       1,
	OpDup:        1,
	OpNip:        2,
	OpOver:       2,
	OpPick:       2,
	OpRoll:       2,
	OpRot:        3,
	OpSwap:       2,
	OpTuck:       2,
	OpSize:       1,
}

func (v *Verifier) pick(remove bool) Code {
	n, ok := v.num(1, numSize)
	if !ok {
		return ErrUnknownError
	}
	v.drop(1)
	if n < 0 || n >= int64(len(v.stack)) {
		return ErrInvalidStackOperation
	}
	i := len(v.stack) - 1 - int(n)
	item := v.stack[i]
	if remove {
		v.stack = append(v.stack[:i], v.stack[i+1:]...)
	}
	v.pushItem(item)
	return OK
}
