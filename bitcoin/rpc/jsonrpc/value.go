package jsonrpc

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/tallypost/tallypost/bitcoin"
)

// Member is a name and value of an Object. It has no type of its own, so that objects can be written as
// lists of pairs in other packages too.
type Member = struct {
	Name  string
	Value any
}

// Object is a JSON object whose members keep their order, and of which a parsed one may have two of a name.
type Object []Member

// Set adds a member and returns the object.
func (o *Object) Set(name string, value any) *Object {
	*o = append(*o, Member{name, value})
	return o
}

// Get returns the first member of a name, nil where there is none.
func (o Object) Get(name string) any {
	for i := range o {
		if o[i].Name == name {
			return o[i].Value
		}
	}
	return nil
}

// Has reports whether there is a member of a name, be it null.
func (o Object) Has(name string) bool {
	for i := range o {
		if o[i].Name == name {
			return true
		}
	}
	return false
}

// Hex are octets that are written in hexadecimal.
type Hex []byte

// maxDepth is how deep values may lie in each other (Core's univalue, MAX_JSON_DEPTH).
const maxDepth = 512

var errSyntax = errors.New("Parse error")

// ParseValue reads one JSON value: nil, bool, json.Number, string, []any or Object.
func ParseValue(b []byte) (any, error) {
	if !json.Valid(b) || !utf8.Valid(b) {
		return nil, errSyntax
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	v, err := parseValue(dec, 0)
	if err != nil {
		return nil, errSyntax
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errSyntax
	}
	return v, nil
}

func parseValue(dec *json.Decoder, depth int) (any, error) {
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return tok, nil
	}
	if depth == maxDepth {
		return nil, errSyntax
	}
	if delim == '[' {
		list := []any{}
		for dec.More() {
			v, err := parseValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := dec.Token()
		return list, err
	}
	object := Object{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		v, err := parseValue(dec, depth+1)
		if err != nil {
			return nil, err
		}
		object = append(object, Member{name.(string), v})
	}
	_, err = dec.Token()
	return object, err
}

// AppendValue appends a value as JSON: those that ParseValue returns, numbers, bitcoin's Hash and Amount
// (as a number with eight decimals), Hex, slices of strings and of Objects; others as encoding/json does.
func AppendValue(dst []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...)
	case bool:
		return strconv.AppendBool(dst, v)
	case string:
		return appendString(dst, v)
	case json.Number:
		return append(dst, v...)
	case int:
		return strconv.AppendInt(dst, int64(v), 10)
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case uint32:
		return strconv.AppendUint(dst, uint64(v), 10)
	case uint64:
		return strconv.AppendUint(dst, v, 10)
	case float64:
		return appendFloat(dst, v)
	case bitcoin.Hash:
		return appendString(dst, v.String())
	case bitcoin.Height:
		return strconv.AppendInt(dst, int64(v), 10)
	case bitcoin.Amount:
		return append(dst, v.String()...)
	case Hex:
		dst = append(dst, '"')
		dst = hex.AppendEncode(dst, v)
		return append(dst, '"')
	case Object:
		return appendObject(dst, v)
	case *Object:
		return appendObject(dst, *v)
	case []any:
		return appendList(dst, v)
	case []string:
		return appendList(dst, v)
	case []bitcoin.Hash:
		return appendList(dst, v)
	case []Object:
		return appendList(dst, v)
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("jsonrpc: a result that is no JSON: %T: %v", v, err))
	}
	return append(dst, b...)
}

func appendObject(dst []byte, o Object) []byte {
	dst = append(dst, '{')
	for i, m := range o {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, m.Name)
		dst = append(dst, ':')
		dst = AppendValue(dst, m.Value)
	}
	return append(dst, '}')
}

func appendList[T any](dst []byte, list []T) []byte {
	dst = append(dst, '[')
	for i := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendValue(dst, list[i])
	}
	return append(dst, ']')
}

// appendFloat writes a number with the 16 digits that Core's univalue does.
func appendFloat(dst []byte, f float64) []byte {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return append(dst, "null"...)
	}
	return strconv.AppendFloat(dst, f, 'g', 16, 64)
}

const hexDigits = "0123456789abcdef"

// appendString writes a string as univalue does: what is not ASCII stays, control characters are escaped.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		default:
			if c < 0x20 || c == 0x7f {
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			} else {
				dst = append(dst, c)
			}
		}
	}
	return append(dst, '"')
}

// Indent writes a value for a person, as bitcoin-cli prints it.
func Indent(v any) []byte {
	var out bytes.Buffer
	if err := json.Indent(&out, AppendValue(nil, v), "", "  "); err != nil {
		return AppendValue(nil, v)
	}
	return out.Bytes()
}
