package script

// Op is an operation: the first octet of a step of a script. The values 1 to 75 push as many
// octets.
type Op byte

// The operations (Bitcoin Core script/script.h).
const (
	// push
	Op0         Op = 0x00
	OpPushData1 Op = 0x4c
	OpPushData2 Op = 0x4d
	OpPushData4 Op = 0x4e
	Op1Negate   Op = 0x4f
	OpReserved  Op = 0x50
	Op1         Op = 0x51
	Op2         Op = 0x52
	Op3         Op = 0x53
	Op4         Op = 0x54
	Op5         Op = 0x55
	Op6         Op = 0x56
	Op7         Op = 0x57
	Op8         Op = 0x58
	Op9         Op = 0x59
	Op10        Op = 0x5a
	Op11        Op = 0x5b
	Op12        Op = 0x5c
	Op13        Op = 0x5d
	Op14        Op = 0x5e
	Op15        Op = 0x5f
	Op16        Op = 0x60

	// control
	OpNop      Op = 0x61
	OpVer      Op = 0x62
	OpIf       Op = 0x63
	OpNotIf    Op = 0x64
	OpVerIf    Op = 0x65
	OpVerNotIf Op = 0x66
	OpElse     Op = 0x67
	OpEndIf    Op = 0x68
	OpVerify   Op = 0x69
	OpReturn   Op = 0x6a

	// stack
	OpToAltStack   Op = 0x6b
	OpFromAltStack Op = 0x6c
	Op2Drop        Op = 0x6d
	Op2Dup         Op = 0x6e
	Op3Dup         Op = 0x6f
	Op2Over        Op = 0x70
	Op2Rot         Op = 0x71
	Op2Swap        Op = 0x72
	OpIfDup        Op = 0x73
	OpDepth        Op = 0x74
	OpDrop         Op = 0x75
	OpDup          Op = 0x76
	OpNip          Op = 0x77
	OpOver         Op = 0x78
	OpPick         Op = 0x79
	OpRoll         Op = 0x7a
	OpRot          Op = 0x7b
	OpSwap         Op = 0x7c
	OpTuck         Op = 0x7d

	// splice, all but OP_SIZE disabled (CVE-2010-5137)
	OpCat    Op = 0x7e
	OpSubstr Op = 0x7f
	OpLeft   Op = 0x80
	OpRight  Op = 0x81
	OpSize   Op = 0x82

	// bits
	OpInvert      Op = 0x83
	OpAnd         Op = 0x84
	OpOr          Op = 0x85
	OpXor         Op = 0x86
	OpEqual       Op = 0x87
	OpEqualVerify Op = 0x88
	OpReserved1   Op = 0x89
	OpReserved2   Op = 0x8a

	// numbers
	Op1Add               Op = 0x8b
	Op1Sub               Op = 0x8c
	Op2Mul               Op = 0x8d
	Op2Div               Op = 0x8e
	OpNegate             Op = 0x8f
	OpAbs                Op = 0x90
	OpNot                Op = 0x91
	Op0NotEqual          Op = 0x92
	OpAdd                Op = 0x93
	OpSub                Op = 0x94
	OpMul                Op = 0x95
	OpDiv                Op = 0x96
	OpMod                Op = 0x97
	OpLShift             Op = 0x98
	OpRShift             Op = 0x99
	OpBoolAnd            Op = 0x9a
	OpBoolOr             Op = 0x9b
	OpNumEqual           Op = 0x9c
	OpNumEqualVerify     Op = 0x9d
	OpNumNotEqual        Op = 0x9e
	OpLessThan           Op = 0x9f
	OpGreaterThan        Op = 0xa0
	OpLessThanOrEqual    Op = 0xa1
	OpGreaterThanOrEqual Op = 0xa2
	OpMin                Op = 0xa3
	OpMax                Op = 0xa4
	OpWithin             Op = 0xa5

	// hashes and signatures
	OpRipemd160           Op = 0xa6
	OpSha1                Op = 0xa7
	OpSha256              Op = 0xa8
	OpHash160             Op = 0xa9
	OpHash256             Op = 0xaa
	OpCodeSeparator       Op = 0xab
	OpCheckSig            Op = 0xac
	OpCheckSigVerify      Op = 0xad
	OpCheckMultisig       Op = 0xae
	OpCheckMultisigVerify Op = 0xaf

	// reserved for soft forks, and what they made of it
	OpNop1                Op = 0xb0
	OpCheckLockTimeVerify Op = 0xb1
	OpCheckSequenceVerify Op = 0xb2
	OpNop4                Op = 0xb3
	OpNop5                Op = 0xb4
	OpNop6                Op = 0xb5
	OpNop7                Op = 0xb6
	OpNop8                Op = 0xb7
	OpNop9                Op = 0xb8
	OpNop10               Op = 0xb9
	OpCheckSigAdd         Op = 0xba
	OpInvalid             Op = 0xff
)

// opNames are the names that Core prints (script/script.cpp, GetOpName); where one is empty Core
// says OP_UNKNOWN.
var opNames = [256]string{
	Op0:                   "0",
	OpPushData1:           "OP_PUSHDATA1",
	OpPushData2:           "OP_PUSHDATA2",
	OpPushData4:           "OP_PUSHDATA4",
	Op1Negate:             "-1",
	OpReserved:            "OP_RESERVED",
	Op1:                   "1",
	Op2:                   "2",
	Op3:                   "3",
	Op4:                   "4",
	Op5:                   "5",
	Op6:                   "6",
	Op7:                   "7",
	Op8:                   "8",
	Op9:                   "9",
	Op10:                  "10",
	Op11:                  "11",
	Op12:                  "12",
	Op13:                  "13",
	Op14:                  "14",
	Op15:                  "15",
	Op16:                  "16",
	OpNop:                 "OP_NOP",
	OpVer:                 "OP_VER",
	OpIf:                  "OP_IF",
	OpNotIf:               "OP_NOTIF",
	OpVerIf:               "OP_VERIF",
	OpVerNotIf:            "OP_VERNOTIF",
	OpElse:                "OP_ELSE",
	OpEndIf:               "OP_ENDIF",
	OpVerify:              "OP_VERIFY",
	OpReturn:              "OP_RETURN",
	OpToAltStack:          "OP_TOALTSTACK",
	OpFromAltStack:        "OP_FROMALTSTACK",
	Op2Drop:               "OP_2DROP",
	Op2Dup:                "OP_2DUP",
	Op3Dup:                "OP_3DUP",
	Op2Over:               "OP_2OVER",
	Op2Rot:                "OP_2ROT",
	Op2Swap:               "OP_2SWAP",
	OpIfDup:               "OP_IFDUP",
	OpDepth:               "OP_DEPTH",
	OpDrop:                "OP_DROP",
	OpDup:                 "OP_DUP",
	OpNip:                 "OP_NIP",
	OpOver:                "OP_OVER",
	OpPick:                "OP_PICK",
	OpRoll:                "OP_ROLL",
	OpRot:                 "OP_ROT",
	OpSwap:                "OP_SWAP",
	OpTuck:                "OP_TUCK",
	OpCat:                 "OP_CAT",
	OpSubstr:              "OP_SUBSTR",
	OpLeft:                "OP_LEFT",
	OpRight:               "OP_RIGHT",
	OpSize:                "OP_SIZE",
	OpInvert:              "OP_INVERT",
	OpAnd:                 "OP_AND",
	OpOr:                  "OP_OR",
	OpXor:                 "OP_XOR",
	OpEqual:               "OP_EQUAL",
	OpEqualVerify:         "OP_EQUALVERIFY",
	OpReserved1:           "OP_RESERVED1",
	OpReserved2:           "OP_RESERVED2",
	Op1Add:                "OP_1ADD",
	Op1Sub:                "OP_1SUB",
	Op2Mul:                "OP_2MUL",
	Op2Div:                "OP_2DIV",
	OpNegate:              "OP_NEGATE",
	OpAbs:                 "OP_ABS",
	OpNot:                 "OP_NOT",
	Op0NotEqual:           "OP_0NOTEQUAL",
	OpAdd:                 "OP_ADD",
	OpSub:                 "OP_SUB",
	OpMul:                 "OP_MUL",
	OpDiv:                 "OP_DIV",
	OpMod:                 "OP_MOD",
	OpLShift:              "OP_LSHIFT",
	OpRShift:              "OP_RSHIFT",
	OpBoolAnd:             "OP_BOOLAND",
	OpBoolOr:              "OP_BOOLOR",
	OpNumEqual:            "OP_NUMEQUAL",
	OpNumEqualVerify:      "OP_NUMEQUALVERIFY",
	OpNumNotEqual:         "OP_NUMNOTEQUAL",
	OpLessThan:            "OP_LESSTHAN",
	OpGreaterThan:         "OP_GREATERTHAN",
	OpLessThanOrEqual:     "OP_LESSTHANOREQUAL",
	OpGreaterThanOrEqual:  "OP_GREATERTHANOREQUAL",
	OpMin:                 "OP_MIN",
	OpMax:                 "OP_MAX",
	OpWithin:              "OP_WITHIN",
	OpRipemd160:           "OP_RIPEMD160",
	OpSha1:                "OP_SHA1",
	OpSha256:              "OP_SHA256",
	OpHash160:             "OP_HASH160",
	OpHash256:             "OP_HASH256",
	OpCodeSeparator:       "OP_CODESEPARATOR",
	OpCheckSig:            "OP_CHECKSIG",
	OpCheckSigVerify:      "OP_CHECKSIGVERIFY",
	OpCheckMultisig:       "OP_CHECKMULTISIG",
	OpCheckMultisigVerify: "OP_CHECKMULTISIGVERIFY",
	OpNop1:                "OP_NOP1",
	OpCheckLockTimeVerify: "OP_CHECKLOCKTIMEVERIFY",
	OpCheckSequenceVerify: "OP_CHECKSEQUENCEVERIFY",
	OpNop4:                "OP_NOP4",
	OpNop5:                "OP_NOP5",
	OpNop6:                "OP_NOP6",
	OpNop7:                "OP_NOP7",
	OpNop8:                "OP_NOP8",
	OpNop9:                "OP_NOP9",
	OpNop10:               "OP_NOP10",
	OpCheckSigAdd:         "OP_CHECKSIGADD",
	OpInvalid:             "OP_INVALIDOPCODE",
}

// String returns Core's name: small numbers are numbers, all else starts with OP_.
func (op Op) String() string {
	if name := opNames[op]; name != "" {
		return name
	}
	return "OP_UNKNOWN"
}

// isSuccess reports whether the operation makes a tapscript succeed at once (BIP 342, "Execution").
func isSuccess(op Op) bool { return successes[op>>6]>>(op&63)&1 != 0 }

// successes has a bit for each OP_SUCCESSx: 80, 98, 126-129, 131-134, 137-138, 141-142, 149-153,
// 187-254.
var successes = [4]uint64{0, 0xc000000400010000, 0xf800000003e0667b, 0x7fffffffffffffff}

// isDisabled reports whether the operation fails every script before tapscript that contains it,
// run or not (CVE-2010-5137).
func isDisabled(op Op) bool {
	return op >= OpCat && op <= OpRShift && disabled>>(op-OpCat)&1 != 0
}

// disabled has a bit for each of them, counted from OP_CAT.
const disabled uint64 = 0xf8181ef
