package script

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"math"
)

// rules is the kind of script that runs (Core's SigVersion, without the spend by key, which runs
// none).
type rules uint8

const (
	base      rules = iota // bare scripts and redeem scripts of BIP 16
	witnessV0              // BIP 141
	tapscript              // BIP 342
)

// frame is what belongs to one run of one script.
type frame struct {
	script    []byte
	rules     rules
	codeStart int // after the last OP_CODESEPARATOR: what signatures commit to begins here
	ops       int // counted against MaxOps
	depth     int // of nested OP_IFs
	firstDead int // the depth at which a branch that does not run began, or live
}

const live = math.MaxInt

// run runs a script on the stack (Bitcoin Core script/interpreter.cpp, EvalScript).
func (v *Verifier) run(script []byte, r rules) Code {
	if r != tapscript && len(script) > MaxScriptSize {
		return ErrScriptSize
	}
	f := frame{script: script, rules: r, firstDead: live}
	v.alt = v.alt[:0]
	v.leaf.CodeSeparator = NoCodeSeparator
	minimal := v.flags&VerifyMinimalData != 0
	for pc, position := 0, uint32(0); pc < len(script); position++ {
		op := Op(script[pc])
		start, next, ok := step(script, pc)
		if !ok {
			return ErrBadOpcode
		}
		pc = next
		if next-start > MaxElementSize {
			return ErrPushSize
		}
		if op > Op16 {
			if code := v.admit(op, &f); code != OK {
				return code
			}
		}
		running := f.firstDead == live
		switch {
		case op <= OpPushData4:
			if !running {
				continue
			}
			data := script[start:next:next]
			if minimal && !isMinimalPush(op, data) {
				return ErrMinimalData
			}
			v.pushItem(data)
		case op == OpCodeSeparator && running:
			f.codeStart = next
			v.leaf.CodeSeparator = position
		case running || op >= OpIf && op <= OpEndIf:
			if code := v.execute(op, &f); code != OK {
				return code
			}
		}
		if len(v.stack)+len(v.alt) > MaxStackSize {
			return ErrStackSize
		}
	}
	if f.depth != 0 {
		return ErrUnbalancedConditional
	}
	return OK
}

// admit checks what holds for an operation whether it runs or not.
func (v *Verifier) admit(op Op, f *frame) Code {
	if f.rules != tapscript {
		if f.ops++; f.ops > MaxOps {
			return ErrOpCount
		}
	}
	if isDisabled(op) {
		return ErrDisabledOpcode
	}
	if op == OpCodeSeparator && f.rules == base && v.flags&VerifyConstScriptCode != 0 {
		return ErrOpCodeSeparator
	}
	return OK
}

// isMinimalPush reports whether no shorter operation pushes the same data.
func isMinimalPush(op Op, data []byte) bool {
	switch n := len(data); {
	case n == 0:
		return op == Op0
	case n == 1 && (data[0] >= 1 && data[0] <= 16 || data[0] == 0x81):
		return false // OP_1 to OP_16 and OP_1NEGATE do
	case n < int(OpPushData1):
		return int(op) == n
	case n <= 0xff:
		return op == OpPushData1
	case n <= 0xffff:
		return op == OpPushData2
	}
	return true
}

// execute runs an operation that does more than push data.
func (v *Verifier) execute(op Op, f *frame) Code {
	switch {
	case op >= OpToAltStack && op <= OpTuck || op == OpSize:
		return v.stackOp(op)
	case op >= Op1 && op <= Op16:
		v.pushItem(constant(int(op-Op1) + 1))
		return OK
	case op >= Op1Add && op <= OpWithin:
		return v.arithmetic(op)
	case op >= OpRipemd160 && op <= OpHash256:
		return v.hashOp(op)
	}
	switch op {
	case OpEqual, OpEqualVerify:
		return v.equal(op)
	case OpCheckSig, OpCheckSigVerify:
		return v.checkSig(op, f)
	case OpCheckSigAdd:
		return v.checkSigAdd(f)
	case OpCheckMultisig, OpCheckMultisigVerify:
		return v.checkMultisig(op, f)
	case OpIf, OpNotIf, OpElse, OpEndIf:
		return v.conditional(op, f)
	case OpVerify:
		if len(v.stack) < 1 {
			return ErrInvalidStackOperation
		}
		return v.verifyTop(ErrVerify)
	case OpReturn:
		return ErrOpReturn
	case Op1Negate:
		v.pushItem(constant(-1))
		return OK
	case OpNop:
		return OK
	case OpCheckLockTimeVerify:
		return v.checkLockTime()
	case OpCheckSequenceVerify:
		return v.checkSequence()
	case OpNop1, OpNop4, OpNop5, OpNop6, OpNop7, OpNop8, OpNop9, OpNop10:
		if v.flags&VerifyDiscourageUpgradableNops != 0 {
			return ErrDiscourageUpgradableNops
		}
		return OK
	}
	return ErrBadOpcode
}

// verifyTop takes a true item off the stack, or leaves a false one and fails.
func (v *Verifier) verifyTop(failure Code) Code {
	if !isTrue(v.top(1)) {
		return failure
	}
	v.drop(1)
	return OK
}

func (v *Verifier) equal(op Op) Code {
	if len(v.stack) < 2 {
		return ErrInvalidStackOperation
	}
	same := bytes.Equal(v.top(1), v.top(2))
	v.drop(2)
	v.pushBool(same)
	if op == OpEqualVerify {
		return v.verifyTop(ErrEqualVerify)
	}
	return OK
}

func (v *Verifier) conditional(op Op, f *frame) Code {
	switch op {
	case OpIf, OpNotIf:
		if f.firstDead != live { // nested in a branch that does not run
			f.depth++
			return OK
		}
		taken, code := v.condition(op, f)
		if code != OK {
			return code
		}
		if !taken {
			f.firstDead = f.depth
		}
		f.depth++
	case OpElse:
		if f.depth == 0 {
			return ErrUnbalancedConditional
		}
		switch f.firstDead {
		case live:
			f.firstDead = f.depth - 1
		case f.depth - 1:
			f.firstDead = live
		}
	case OpEndIf:
		if f.depth == 0 {
			return ErrUnbalancedConditional
		}
		f.depth--
		if f.firstDead == f.depth {
			f.firstDead = live
		}
	}
	return OK
}

// condition takes the argument of OP_IF or OP_NOTIF off the stack.
func (v *Verifier) condition(op Op, f *frame) (taken bool, code Code) {
	if len(v.stack) < 1 {
		return false, ErrUnbalancedConditional
	}
	b := v.top(1)
	if minimal := len(b) == 0 || len(b) == 1 && b[0] == 1; !minimal {
		if f.rules == tapscript {
			return false, ErrTapscriptMinimalIf
		}
		if f.rules == witnessV0 && v.flags&VerifyMinimalIf != 0 {
			return false, ErrMinimalIf
		}
	}
	v.drop(1)
	return isTrue(b) == (op == OpIf), OK
}

// arithmetic runs an operation on one, two or three numbers.
func (v *Verifier) arithmetic(op Op) Code {
	switch {
	case op >= Op1Add && op <= Op0NotEqual:
		return v.unary(op)
	case op == OpWithin:
		return v.within()
	}
	if len(v.stack) < 2 {
		return ErrInvalidStackOperation
	}
	a, ok := v.num(2, numSize)
	b, ok2 := v.num(1, numSize)
	if !ok || !ok2 {
		return ErrUnknownError
	}
	v.drop(2)
	switch op {
	case OpAdd:
		v.pushNum(a + b)
	case OpSub:
		v.pushNum(a - b)
	case OpBoolAnd:
		v.pushBool(a != 0 && b != 0)
	case OpBoolOr:
		v.pushBool(a != 0 || b != 0)
	case OpNumEqual, OpNumEqualVerify:
		v.pushBool(a == b)
	case OpNumNotEqual:
		v.pushBool(a != b)
	case OpLessThan:
		v.pushBool(a < b)
	case OpGreaterThan:
		v.pushBool(a > b)
	case OpLessThanOrEqual:
		v.pushBool(a <= b)
	case OpGreaterThanOrEqual:
		v.pushBool(a >= b)
	case OpMin:
		v.pushNum(min(a, b))
	case OpMax:
		v.pushNum(max(a, b))
	}
	if op == OpNumEqualVerify {
		return v.verifyTop(ErrNumEqualVerify)
	}
	return OK
}

func (v *Verifier) unary(op Op) Code {
	if len(v.stack) < 1 {
		return ErrInvalidStackOperation
	}
	n, ok := v.num(1, numSize)
	if !ok {
		return ErrUnknownError
	}
	v.drop(1)
	switch op {
	case Op1Add:
		v.pushNum(n + 1)
	case Op1Sub:
		v.pushNum(n - 1)
	case OpNegate:
		v.pushNum(-n)
	case OpAbs:
		v.pushNum(max(n, -n))
	case OpNot:
		v.pushBool(n == 0)
	case Op0NotEqual:
		v.pushBool(n != 0)
	}
	return OK
}

// within tells whether min <= x < max: x min max -- bool.
func (v *Verifier) within() Code {
	if len(v.stack) < 3 {
		return ErrInvalidStackOperation
	}
	x, ok := v.num(3, numSize)
	low, ok2 := v.num(2, numSize)
	high, ok3 := v.num(1, numSize)
	if !ok || !ok2 || !ok3 {
		return ErrUnknownError
	}
	v.drop(3)
	v.pushBool(low <= x && x < high)
	return OK
}

func (v *Verifier) hashOp(op Op) Code {
	if len(v.stack) < 1 {
		return ErrInvalidStackOperation
	}
	b := v.pop()
	switch op {
	case OpRipemd160:
		v.pushHash20(ripemd160(b))
	case OpSha1:
		v.pushHash20(sha1.Sum(b))
	case OpHash160:
		v.pushHash20(Hash160(b))
	case OpSha256:
		v.pushHash32(sha256.Sum256(b))
	case OpHash256:
		first := sha256.Sum256(b)
		v.pushHash32(sha256.Sum256(first[:]))
	}
	return OK
}

func (v *Verifier) pushHash20(sum [20]byte) {
	b := v.alloc(len(sum))
	copy(b, sum[:])
	v.pushItem(b)
}

func (v *Verifier) pushHash32(sum [32]byte) {
	b := v.alloc(len(sum))
	copy(b, sum[:])
	v.pushItem(b)
}
