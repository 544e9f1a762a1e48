package jsonrpc

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tallypost/tallypost/bitcoin"
)

// Kind is what a parameter must be.
type Kind byte

// The kinds, by the letter that stands for them in Method.Params.
const (
	KindString Kind = 's'
	KindInt    Kind = 'i' // a whole number that fits 64 bits
	KindInt32  Kind = 'I' // one that fits 32 bits
	KindUint32 Kind = 'U' // one that fits 32 bits and is not negative
	KindUint   Kind = 'u' // one that fits 63 bits and is not negative
	KindNumber Kind = 'n'
	KindBool   Kind = 'b'
	KindArray  Kind = 'a'
	KindObject Kind = 'o'
	KindHash   Kind = 'h' // 64 hexadecimal digits
	KindAmount Kind = 'm' // of bitcoins, as a number or a string
	KindAny    Kind = 'v' // checked by the method itself
)

// Param is a parameter of a method.
type Param struct {
	Names    []string // the first one is shown; the others are older
	Kind     Kind
	Optional bool
	List     bool // help shows it as a list
	// Of is the parameter, an object, that this one is a member of: it can also be given by name as if it
	// were a parameter itself.
	Of string
}

// Method is a procedure that can be called.
type Method struct {
	Category string // under which help lists it; hidden methods have "hidden"
	Name     string
	// Params describes the parameters, with spaces between: "name:kind", "?" behind what may be left out,
	// "[]" behind the name of what help is to show as a list,
	// "|" before another name, and "object.member:kind" for members of an object that may be given by name.
	Params string
	// Usage is the first line of help behind the name, where Params does not tell it.
	Usage string
	Doc   string // a sentence or more for help
	Run   func(ctx context.Context, c *Call) (any, error)

	params []Param
}

// parseParams reads Params. Methods are part of the program: a mistake there panics.
func parseParams(spec string) (params []Param) {
	for _, field := range strings.Fields(spec) {
		name, kind, ok := strings.Cut(field, ":")
		name, list := strings.CutSuffix(name, "[]")
		if !ok {
			panic("jsonrpc: parameter without a kind: " + field)
		}
		p := Param{Kind: Kind(kind[0]), Optional: strings.HasSuffix(kind, "?"), List: list}
		if of, member, ok := strings.Cut(name, "."); ok {
			p.Of, name = of, member
		}
		p.Names = strings.Split(name, "|")
		params = append(params, p)
	}
	return params
}

// Parameters returns the parameters that Params describes.
func (m *Method) Parameters() []Param { return parseParams(m.Params) }

// usage returns the first line of the method's help.
func (m *Method) usage() string {
	if m.Usage != "" {
		return strings.TrimSpace(m.Name + " " + m.Usage)
	}
	var b strings.Builder
	b.WriteString(m.Name)
	open := false
	for _, p := range m.params {
		if p.Of != "" {
			continue
		}
		if p.Optional && !open {
			b.WriteString(" (")
			open = true
		} else if !p.Optional && open {
			b.WriteString(" )")
			open = false
		}
		quote := ""
		if p.Kind == KindString || p.Kind == KindHash {
			quote = `"`
		}
		if p.List {
			b.WriteString(" [" + p.Names[0] + ",...]")
			continue
		}
		b.WriteString(" " + quote + p.Names[0] + quote)
	}
	if open {
		b.WriteString(" )")
	}
	return b.String()
}

// help returns all there is to say about the method.
func (m *Method) help() string {
	return m.usage() + "\n\n" + m.Doc + "\n" + m.arguments()
}

// arguments lists the parameters, each with its kind, members of objects below these.
func (m *Method) arguments() string {
	var lines [][2]string
	width, number := 0, 0
	for _, p := range m.params {
		name := "     " + p.Names[0]
		if p.Of == "" {
			number++
			name = fmt.Sprintf("%d. %s", number, p.Names[0])
		}
		need := "required"
		if p.Optional {
			need = "optional"
		}
		lines = append(lines, [2]string{name, "(" + p.Kind.helpName() + ", " + need + ")"})
		width = max(width, len(name))
	}
	if len(lines) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\nArguments:\n")
	for _, l := range lines {
		fmt.Fprintf(&b, "%-*s    %s\n", width, l[0], l[1])
	}
	return b.String()
}

// helpName is what help calls a kind.
func (k Kind) helpName() string {
	switch k {
	case KindInt, KindInt32, KindUint32, KindUint, KindNumber:
		return "numeric"
	case KindBool:
		return "boolean"
	case KindArray:
		return "json array"
	case KindObject:
		return "json object"
	case KindAmount:
		return "numeric or string"
	case KindAny:
		return "json"
	}
	return "string"
}

// Call is one call of a method, whose arguments are of the kinds that it asks for.
type Call struct {
	*Request
	args   []any
	method *Method
}

// Args returns a call with arguments, for who runs a method's function by himself.
func Args(args ...any) *Call { return &Call{Request: &Request{}, args: args} }

// Has reports whether argument i is there and not null.
func (c *Call) Has(i int) bool { return i < len(c.args) && c.args[i] != nil }

// Any returns argument i, nil where it is not there.
func (c *Call) Any(i int) any {
	if i < len(c.args) {
		return c.args[i]
	}
	return nil
}

// String returns argument i, a string, or a default.
func (c *Call) String(i int, def string) string {
	if s, ok := c.Any(i).(string); ok {
		return s
	}
	return def
}

// Int returns argument i, a whole number, or a default.
func (c *Call) Int(i int, def int64) int64 {
	if n, ok := number(c.Any(i)); ok {
		return n
	}
	return def
}

// Bool returns argument i, a truth, or a default.
func (c *Call) Bool(i int, def bool) bool {
	if b, ok := c.Any(i).(bool); ok {
		return b
	}
	return def
}

// Array returns argument i, an array.
func (c *Call) Array(i int) []any {
	a, _ := c.Any(i).([]any)
	return a
}

// Object returns argument i, an object.
func (c *Call) Object(i int) Object {
	o, _ := c.Any(i).(Object)
	return o
}

// Hash returns argument i, a hash.
func (c *Call) Hash(i int) bitcoin.Hash {
	h, _ := bitcoin.ParseHash(c.String(i, ""))
	return h
}

// Amount returns argument i, an amount, or a default.
func (c *Call) Amount(i int, def bitcoin.Amount) (bitcoin.Amount, error) {
	if !c.Has(i) {
		return def, nil
	}
	return ParseAmount(c.Any(i))
}

// ParseAmount reads an amount of bitcoins from a number or a string (Core's AmountFromValue).
func ParseAmount(v any) (bitcoin.Amount, error) {
	var text string
	switch v := v.(type) {
	case json.Number:
		text = string(v)
	case string:
		text = v
	default:
		return 0, Errorf(TypeError, "Amount is not a number or string")
	}
	a, err := bitcoin.ParseAmount(text)
	if err != nil {
		return 0, Errorf(TypeError, "%v", err)
	}
	return a, nil
}

// ParseHash reads a hash from a string, whose name stands in the error (Core's ParseHashV).
func ParseHash(v any, name string) (bitcoin.Hash, error) {
	s, ok := v.(string)
	if !ok {
		return bitcoin.Hash{}, Errorf(TypeError,
			"JSON value of type %s is not of expected type string", TypeName(v))
	}
	if len(s) != 64 {
		return bitcoin.Hash{}, Errorf(InvalidParameter,
			"%s must be of length 64 (not %d, for '%s')", name, len(s), s)
	}
	if _, err := hex.DecodeString(s); err != nil {
		return bitcoin.Hash{}, Errorf(InvalidParameter,
			"%s must be hexadecimal string (not '%s')", name, s)
	}
	return bitcoin.ParseHash(s)
}

// TypeName returns what Core calls the type of a JSON value.
func TypeName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "bool"
	case json.Number:
		return "number"
	case string:
		return "string"
	case []any:
		return "array"
	}
	return "object"
}

func (k Kind) typeName() string {
	switch k {
	case KindInt, KindInt32, KindUint32, KindUint, KindNumber:
		return "number"
	case KindBool:
		return "bool"
	case KindArray:
		return "array"
	case KindObject:
		return "object"
	}
	return "string"
}

func (k Kind) matches(v any) bool {
	return k == KindAny || k == KindAmount || TypeName(v) == k.typeName()
}

// check holds arguments by position against what the method asks for.
func (m *Method) check(args []any) error {
	most, i, wrong := 0, 0, Object{}
	for _, p := range m.params {
		if p.Of != "" {
			continue
		}
		most++
		switch {
		case i >= len(args) || args[i] == nil:
			if !p.Optional && i >= len(args) {
				return Errorf(MiscError, "%s", m.help())
			}
			if !p.Optional && p.Kind != KindAny {
				wrong.Set(fmt.Sprintf("Position %d (%s)", i+1, p.Names[0]), mismatch(nil, p.Kind))
			}
		case !p.Kind.matches(args[i]):
			wrong.Set(fmt.Sprintf("Position %d (%s)", i+1, p.Names[0]), mismatch(args[i], p.Kind))
		}
		i++
	}
	if len(args) > most {
		return Errorf(MiscError, "%s", m.help())
	}
	if len(wrong) > 0 {
		var text strings.Builder
		for j, w := range wrong {
			if j > 0 {
				text.WriteString(",\n")
			}
			fmt.Fprintf(&text, "    %q: %q", w.Name, w.Value)
		}
		return Errorf(TypeError, "Wrong type passed:\n{\n%s\n}", text.String())
	}
	return m.checkRanges(args)
}

func mismatch(v any, k Kind) string {
	return fmt.Sprintf("JSON value of type %s is not of expected type %s", TypeName(v), k.typeName())
}

// fits reports whether a number is in the range of a kind.
func (k Kind) fits(s string) bool {
	n, err := strconv.ParseInt(s, 10, 64)
	switch k {
	case KindInt32:
		return err == nil && n == int64(int32(n))
	case KindUint32:
		return err == nil && n == int64(uint32(n))
	case KindUint:
		return err == nil && n >= 0
	}
	return err == nil
}

func (m *Method) checkRanges(args []any) error {
	i := 0
	for _, p := range m.params {
		if p.Of != "" {
			continue
		}
		if i < len(args) && args[i] != nil {
			switch p.Kind {
			case KindInt, KindInt32, KindUint32, KindUint:
				if n, ok := args[i].(json.Number); ok && !p.Kind.fits(string(n)) {
					return Errorf(MiscError, "JSON integer out of range")
				}
			case KindHash:
				if _, err := ParseHash(args[i], p.Names[0]); err != nil {
					return err
				}
			}
		}
		i++
	}
	return nil
}

// positional turns arguments by name into arguments by position (Bitcoin Core rpc/server.cpp,
// transformNamedArguments). Those in "args" come first.
func (m *Method) positional(named Object) ([]any, error) {
	in := make(map[string]any, len(named))
	for _, a := range named {
		if _, twice := in[a.Name]; twice {
			return nil, Errorf(InvalidParameter, "Parameter %s specified multiple times", a.Name)
		}
		in[a.Name] = a.Value
	}
	take := func(p *Param) (v any, name string, ok bool) {
		for _, name := range p.Names {
			if v, ok := in[name]; ok {
				delete(in, name)
				return v, name, true
			}
		}
		return nil, "", false
	}
	members := map[string]Object{}
	for i := range m.params {
		if p := &m.params[i]; p.Of != "" {
			if v, name, ok := take(p); ok {
				o := members[p.Of]
				members[p.Of] = *o.Set(name, v)
			}
		}
	}
	var out []any
	hole, initialHole, first := 0, 0, ""
	for i := range m.params {
		p := &m.params[i]
		if p.Of != "" {
			continue
		}
		v, name, ok := take(p)
		if o := members[p.Names[0]]; len(o) > 0 {
			if ok {
				return nil, Errorf(InvalidParameter, "Parameter %s conflicts with parameter %s",
					name, o[0].Name)
			}
			v, ok = o, true
		}
		if !ok {
			hole++
			if len(out) == 0 {
				initialHole = hole
			}
			continue
		}
		out = append(out, make([]any, hole)...)
		hole = 0
		if first == "" {
			first = strings.Join(p.Names, "|")
		}
		out = append(out, v)
	}
	if args, ok := in["args"].([]any); ok {
		delete(in, "args")
		if initialHole < len(args) && first != "" {
			return nil, Errorf(InvalidParameter,
				"Parameter %s specified twice both as positional and named argument", first)
		}
		out = append(slices.Clone(args), out[min(len(args), len(out)):]...)
	}
	for name := range in {
		return nil, Errorf(InvalidParameter, "Unknown named parameter %s", name)
	}
	return out, nil
}

// Len returns the number of arguments.
func (c *Call) Len() int { return len(c.args) }

// Help returns all there is to say about the method.
func (c *Call) Help() string { return c.method.help() }

// Usage returns the error of a call whose arguments make no sense: the method's help.
func (c *Call) Usage() error { return Errorf(MiscError, "%s", c.method.help()) }
