package script

import "encoding/binary"

// AppendPush appends to a script the operation that pushes data, with the shortest length that
// fits, as Core's CScript does: numbers are pushed as data, not turned into OP_1 to OP_16.
func AppendPush(script, data []byte) []byte {
	return append(appendPushHeader(script, len(data)), data...)
}

func appendPushHeader(script []byte, n int) []byte {
	switch {
	case n < int(OpPushData1):
		return append(script, byte(n))
	case n <= 0xff:
		return append(script, byte(OpPushData1), byte(n))
	case n <= 0xffff:
		return binary.LittleEndian.AppendUint16(append(script, byte(OpPushData2)), uint16(n))
	}
	return binary.LittleEndian.AppendUint32(append(script, byte(OpPushData4)), uint32(n))
}

// AppendInt appends to a script the operation that pushes a number, in the shortest form. A block's
// height stands so in its coinbase (BIP 34).
func AppendInt(script []byte, n int64) []byte {
	switch {
	case n == 0:
		return append(script, byte(Op0))
	case n == -1:
		return append(script, byte(Op1Negate))
	case n >= 1 && n <= 16:
		return append(script, byte(Op1)+byte(n-1))
	}
	return AppendPush(script, AppendNum(make([]byte, 0, 9), n))
}

// Builder puts a script together: new(Builder).Op(OpDup,
// OpHash160).Push(hash).Op(OpEqualVerify).Script().
type Builder struct{ script []byte }

// Op appends operations.
func (b *Builder) Op(ops ...Op) *Builder {
	for _, op := range ops {
		b.script = append(b.script, byte(op))
	}
	return b
}

// Push appends the operation that pushes data; see AppendPush.
func (b *Builder) Push(data []byte) *Builder {
	b.script = AppendPush(b.script, data)
	return b
}

// Int appends the operation that pushes a number; see AppendInt.
func (b *Builder) Int(n int64) *Builder {
	b.script = AppendInt(b.script, n)
	return b
}

// Raw appends octets as they are.
func (b *Builder) Raw(octets []byte) *Builder {
	b.script = append(b.script, octets...)
	return b
}

// Script returns the script.
func (b *Builder) Script() []byte { return b.script }

// PayToPubKeyHash returns OP_DUP OP_HASH160 <hash> OP_EQUALVERIFY OP_CHECKSIG.
func PayToPubKeyHash(hash [20]byte) []byte {
	return new(Builder).Op(OpDup, OpHash160).Push(hash[:]).Op(OpEqualVerify, OpCheckSig).Script()
}

// PayToScriptHash returns OP_HASH160 <hash> OP_EQUAL (BIP 16).
func PayToScriptHash(hash [20]byte) []byte {
	return new(Builder).Op(OpHash160).Push(hash[:]).Op(OpEqual).Script()
}

// PayToWitness returns the witness program of a version from 0 to 16 (BIP 141).
func PayToWitness(version int, program []byte) []byte {
	return new(Builder).Int(int64(version)).Push(program).Script()
}

// Multisig returns the script that required of the keys must sign: OP_n <key>... OP_m
// OP_CHECKMULTISIG.
func Multisig(required int, keys [][]byte) []byte {
	b := new(Builder).Int(int64(required))
	for _, key := range keys {
		b.Push(key)
	}
	return b.Int(int64(len(keys))).Op(OpCheckMultisig).Script()
}
