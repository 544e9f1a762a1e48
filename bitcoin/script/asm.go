package script

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// sigHashNames are Core's names of the hash types that exist before taproot.
var sigHashNames = map[SigHash]string{
	SigHashAll:                          "ALL",
	SigHashAll | SigHashAnyoneCanPay:    "ALL|ANYONECANPAY",
	SigHashNone:                         "NONE",
	SigHashNone | SigHashAnyoneCanPay:   "NONE|ANYONECANPAY",
	SigHashSingle:                       "SINGLE",
	SigHashSingle | SigHashAnyoneCanPay: "SINGLE|ANYONECANPAY",
}

// String returns Core's name of a hash type, or nothing where it has none (Bitcoin Core core_io,
// SighashToStr).
func (t SigHash) String() string { return sigHashNames[t] }

// Asm writes a script as Core's RPC does: names of operations; data in hexadecimal, but in decimal
// where it has at most four octets; [error] where the script ends within a push. Where sigHashes is
// set, data that looks like a signature shows its hash type in brackets: for scripts of inputs
// (Bitcoin Core core_io, ScriptToAsmStr).
func Asm(script []byte, sigHashes bool) string {
	var s strings.Builder
	sigHashes = sigHashes && !IsUnspendable(script)
	for rest := script; len(rest) > 0; {
		if s.Len() > 0 {
			s.WriteByte(' ')
		}
		op, data, after, ok := Next(rest)
		if !ok {
			s.WriteString("[error]")
			break
		}
		rest = after
		switch {
		case op > OpPushData4:
			s.WriteString(op.String())
		case len(data) <= numSize:
			s.WriteString(strconv.FormatInt(decodeNum(data), 10))
		default:
			name := ""
			if sigHashes && checkSignatureEncoding(data, VerifyStrictEnc) == OK {
				name = "[" + SigHash(data[len(data)-1]).String() + "]"
				data = data[:len(data)-1]
			}
			s.WriteString(hex.EncodeToString(data))
			s.WriteString(name)
		}
	}
	return s.String()
}

// Format writes a script so that Parse reads the same script (Bitcoin Core core_io, FormatScript).
func Format(script []byte) string {
	var words []string
	for rest := script; len(rest) > 0; {
		op, data, after, ok := Next(rest)
		if !ok {
			words = append(words, "0x"+hex.EncodeToString(rest))
			break
		}
		raw := rest[:len(rest)-len(after)]
		rest = after
		name, named := strings.CutPrefix(op.String(), "OP_")
		switch {
		case op == Op0, op == Op1Negate, op >= Op1 && op <= Op16:
			words = append(words, op.String())
		case op >= OpNop && op <= OpNop10 && named:
			words = append(words, name)
		case len(data) > 0:
			header := raw[:len(raw)-len(data)]
			words = append(words, "0x"+hex.EncodeToString(header), "0x"+hex.EncodeToString(data))
		default:
			words = append(words, "0x"+hex.EncodeToString(raw))
		}
	}
	return strings.Join(words, " ")
}

// maxParseNum bounds the decimal numbers that Parse takes.
const maxParseNum = 0xffffffff

// Parse reads a script in the notation of Core's tests and of bitcoin-tx: names of operations with
// or without OP_; decimal numbers, pushed; 0x and hexadecimal digits, copied as they are; text in
// single quotes, pushed (Bitcoin Core core_io, ParseScript).
func Parse(text string) ([]byte, error) {
	var b Builder
	for word := range strings.FieldsSeq(text) {
		if n, err := strconv.ParseInt(word, 10, 64); err == nil && word[0] != '+' {
			if n > maxParseNum || n < -maxParseNum {
				return nil, fmt.Errorf("script: number %s is beyond %d", word, int64(maxParseNum))
			}
			b.Int(n)
		} else if digits, ok := strings.CutPrefix(word, "0x"); ok && digits != "" {
			raw, err := hex.DecodeString(digits)
			if err != nil {
				return nil, fmt.Errorf("script: %q: %w", word, err)
			}
			b.Raw(raw)
		} else if len(word) >= 2 && word[0] == '\'' && word[len(word)-1] == '\'' {
			b.Push([]byte(word[1 : len(word)-1]))
		} else if op, ok := opsByName()[strings.TrimPrefix(word, "OP_")]; ok {
			b.Op(op)
		} else {
			return nil, fmt.Errorf("script: unknown operation %q", word)
		}
	}
	return b.Script(), nil
}

// opsByName maps Core's names, without OP_, to the operations that Parse knows: no small numbers,
// and nothing beyond OP_NOP10.
var opsByName = sync.OnceValue(func() map[string]Op {
	ops := make(map[string]Op)
	for op := OpReserved; op <= OpNop10; op++ {
		if name, ok := strings.CutPrefix(op.String(), "OP_"); ok && name != "UNKNOWN" {
			ops[name] = op
		}
	}
	return ops
})
