//go:build !purego

#include "textflag.h"

// Two double hashes at a time with the SHA extensions: while one waits for its rounds the other goes on.
//
//	X1, X2    state of the first message: words ABEF and CDGH
//	X3 - X6   its schedule, four words each
//	X7, X8    state of the second
//	X9 - X12  its schedule
//	X0        words plus round constants, which SHA256RNDS2 takes from there
//	X13       scratch
//	X14       the order of octets that turns words from big-endian
//	AX, BX    round constants; the same with the schedule of the padding added; CX the first state

// ROUNDS does four rounds of both messages.
#define ROUNDS(offset, a, b) \
	MOVOU offset(AX), X0; \
	PADDD a, X0; \
	SHA256RNDS2 X0, X1, X2; \
	PSHUFD $0x0e, X0, X0; \
	SHA256RNDS2 X0, X2, X1; \
	MOVOU offset(AX), X0; \
	PADDD b, X0; \
	SHA256RNDS2 X0, X7, X8; \
	PSHUFD $0x0e, X0, X0; \
	SHA256RNDS2 X0, X8, X7

// PADROUNDS does four rounds of both messages over a block that both have in common.
#define PADROUNDS(offset) \
	MOVOU offset(BX), X0; \
	SHA256RNDS2 X0, X1, X2; \
	SHA256RNDS2 X0, X7, X8; \
	PSHUFD $0x0e, X0, X0; \
	SHA256RNDS2 X0, X2, X1; \
	SHA256RNDS2 X0, X8, X7

// BEGIN starts the next four words of a schedule: m0 is to become words 16 on.
#define BEGIN(m0, m1) SHA256MSG1 m1, m0

// END finishes them, from the words 7 and 1 to 4 before.
#define END(m0, m2, m3) \
	MOVO m3, X13; \
	PALIGNR $4, m2, X13; \
	PADDD X13, m0; \
	SHA256MSG2 m3, m0

// NEXT is four rounds with the whole schedule of both messages.
#define NEXT(offset, a0, a2, a3, b0, b2, b3) \
	ROUNDS(offset, a3, b3); \
	END(a0, a2, a3); \
	BEGIN(a2, a3); \
	END(b0, b2, b3); \
	BEGIN(b2, b3)

// LAST is NEXT where the schedule needs no new beginning.
#define LAST(offset, a0, a2, a3, b0, b2, b3) \
	ROUNDS(offset, a3, b3); \
	END(a0, a2, a3); \
	END(b0, b2, b3)

// COMPRESS does the 64 rounds over the schedules.
#define COMPRESS \
	ROUNDS(0, X3, X9); \
	ROUNDS(16, X4, X10); \
	BEGIN(X3, X4); \
	BEGIN(X9, X10); \
	ROUNDS(32, X5, X11); \
	BEGIN(X4, X5); \
	BEGIN(X10, X11); \
	NEXT(48, X3, X5, X6, X9, X11, X12); \
	NEXT(64, X4, X6, X3, X10, X12, X9); \
	NEXT(80, X5, X3, X4, X11, X9, X10); \
	NEXT(96, X6, X4, X5, X12, X10, X11); \
	NEXT(112, X3, X5, X6, X9, X11, X12); \
	NEXT(128, X4, X6, X3, X10, X12, X9); \
	NEXT(144, X5, X3, X4, X11, X9, X10); \
	NEXT(160, X6, X4, X5, X12, X10, X11); \
	NEXT(176, X3, X5, X6, X9, X11, X12); \
	NEXT(192, X4, X6, X3, X10, X12, X9); \
	LAST(208, X5, X3, X4, X11, X9, X10); \
	LAST(224, X6, X4, X5, X12, X10, X11); \
	ROUNDS(240, X6, X12)

// FIRSTSTATE sets both states to that before any message.
#define FIRSTSTATE \
	MOVOU (CX), X1; \
	MOVOU 16(CX), X2; \
	MOVO X1, X7; \
	MOVO X2, X8

// ADDFIRST adds it to both states, as the first block of a message ends.
#define ADDFIRST \
	MOVOU (CX), X13; \
	PADDD X13, X1; \
	PADDD X13, X7; \
	MOVOU 16(CX), X13; \
	PADDD X13, X2; \
	PADDD X13, X8

// WORDS turns the state ABEF in s0 and CDGH in s1 into the words ABCD in s0 and EFGH in s1.
#define WORDS(s0, s1) \
	PSHUFD $0x1b, s0, X13; \
	PSHUFD $0xb1, s1, s1; \
	MOVO X13, s0; \
	PBLENDW $0xf0, s1, s0; \
	PALIGNR $8, X13, s1

// LOAD reads four words of a message.
#define LOAD(offset, m) \
	MOVOU offset(SI), m; \
	PSHUFB X14, m

// func hashTwoPairs(dst, src *byte, times int, tables *pairTables)
TEXT ·hashTwoPairs(SB), NOSPLIT, $0-32
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ times+16(FP), DX
	MOVQ tables+24(FP), AX
	LEAQ 256(AX), BX
	LEAQ 512(AX), CX
	MOVOU 32(CX), X14

loop:
	TESTQ DX, DX
	JZ done

	// The 64 octets of each message.
	LOAD(0, X3)
	LOAD(16, X4)
	LOAD(32, X5)
	LOAD(48, X6)
	LOAD(64, X9)
	LOAD(80, X10)
	LOAD(96, X11)
	LOAD(112, X12)
	FIRSTSTATE
	COMPRESS
	ADDFIRST

	// Their padding.
	MOVO X1, X3
	MOVO X2, X4
	MOVO X7, X9
	MOVO X8, X10
	PADROUNDS(0)
	PADROUNDS(16)
	PADROUNDS(32)
	PADROUNDS(48)
	PADROUNDS(64)
	PADROUNDS(80)
	PADROUNDS(96)
	PADROUNDS(112)
	PADROUNDS(128)
	PADROUNDS(144)
	PADROUNDS(160)
	PADROUNDS(176)
	PADROUNDS(192)
	PADROUNDS(208)
	PADROUNDS(224)
	PADROUNDS(240)
	PADDD X3, X1
	PADDD X4, X2
	PADDD X9, X7
	PADDD X10, X8

	// The hash of the hash: 32 octets and their padding.
	WORDS(X1, X2)
	WORDS(X7, X8)
	MOVO X1, X3
	MOVO X2, X4
	MOVOU 48(CX), X5
	MOVOU 64(CX), X6
	MOVO X7, X9
	MOVO X8, X10
	MOVO X5, X11
	MOVO X6, X12
	FIRSTSTATE
	COMPRESS
	ADDFIRST

	WORDS(X1, X2)
	WORDS(X7, X8)
	PSHUFB X14, X1
	PSHUFB X14, X2
	PSHUFB X14, X7
	PSHUFB X14, X8
	MOVOU X1, (DI)
	MOVOU X2, 16(DI)
	MOVOU X7, 32(DI)
	MOVOU X8, 48(DI)
	ADDQ $128, SI
	ADDQ $64, DI
	DECQ DX
	JMP loop

done:
	RET

// func cpuHasSHA() bool
TEXT ·cpuHasSHA(SB), NOSPLIT, $0-1
	MOVB $0, ret+0(FP)
	XORL AX, AX
	CPUID
	CMPL AX, $7
	JLT none
	MOVL $1, AX
	XORL CX, CX
	CPUID
	MOVL CX, DX
	ANDL $0x00080200, DX // SSSE3 and SSE4.1
	CMPL DX, $0x00080200
	JNE none
	MOVL $7, AX
	XORL CX, CX
	CPUID
	SHRL $29, BX
	ANDL $1, BX
	MOVB BX, ret+0(FP)
none:
	RET
