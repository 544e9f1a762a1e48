package descriptor

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/miniscript"
)

const (
	maxMultisig  = 20  // keys of multi()
	maxMultiA    = 999 // keys of multi_a()
	maxTreeDepth = 128 // of the scripts of tr()
	maxRedeem    = 520 // octets of a script within sh()
)

// node is a script expression. Where paths offer choices, there is one for each of them.
type node struct {
	kind      string // the function's name
	keys      []*key
	threshold int
	subs      []*node
	depths    []int  // of subs within tr()
	script    []byte // of raw() and addr()
	address   string
	mini      *miniscript.Node // over keys
}

// cutExpr cuts an expression off, up to a comma or closing bracket that is not within it (Core's
// script::Expr).
func cutExpr(s string) (expr, rest string) {
	level := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '(' || c == '{':
			level++
		case level > 0 && (c == ')' || c == '}'):
			level--
		case level == 0 && (c == ')' || c == '}' || c == ','):
			return s[:i], s[i:]
		}
	}
	return s, ""
}

// fn returns what a function's brackets hold.
func fn(name, expr string) (string, bool) {
	rest, ok := strings.CutPrefix(expr, name+"(")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, ")")
}

// parser reads script expressions.
type parser struct {
	net   *bitcoin.Network
	depth int // of expressions within each other
}

// script reads the expression that s begins with and returns what follows it.
func (p *parser) script(s string, in where) (nodes []*node, rest string, err error) {
	if p.depth++; p.depth > maxTreeDepth+8 {
		return nil, "", fmt.Errorf("expressions within each other are too deep")
	}
	defer func() { p.depth-- }()
	expr, rest := cutExpr(s)
	for _, f := range []struct {
		name  string
		parse func(arg string, in where) ([]*node, error)
	}{
		{"pk", p.pk}, {"pkh", p.pkh}, {"combo", p.combo}, {"multi", p.multi}, {"sortedmulti", p.multi},
		{"multi_a", p.multi}, {"sortedmulti_a", p.multi}, {"wpkh", p.wpkh}, {"sh", p.sh}, {"wsh", p.wsh},
		{"addr", p.addr}, {"tr", p.tr}, {"rawtr", p.rawtr}, {"raw", p.raw},
	} {
		arg, ok := fn(f.name, expr)
		if !ok || f.name == "pkh" && in == inTaproot {
			continue
		}
		nodes, err = f.parse(arg, in)
		for _, n := range nodes {
			n.kind = f.name
		}
		if err == nil && strings.HasSuffix(f.name, "multi") && in == inTaproot {
			err = fmt.Errorf("Can only have multi/sortedmulti at top level, in sh(), or in wsh()")
		}
		if err == nil && strings.HasSuffix(f.name, "multi_a") && in != inTaproot {
			err = fmt.Errorf("Can only have multi_a/sortedmulti_a inside tr()")
		}
		return nodes, rest, err
	}
	if nodes, err = p.miniscript(expr, in); !errors.Is(err, miniscript.ErrSyntax) {
		return nodes, rest, err
	}
	switch {
	case in == inP2SH:
		return nil, "", fmt.Errorf("A function is needed within P2SH")
	case in == inP2WSH:
		return nil, "", fmt.Errorf("A function is needed within P2WSH")
	}
	return nil, "", fmt.Errorf("'%s' is not a valid descriptor function", expr)
}

// oneKey reads a function of one key.
func (p *parser) oneKey(name, arg string, in where) (nodes []*node, err error) {
	keys, err := parseKey(p.net, arg, in)
	if err != nil {
		return nil, fmt.Errorf("%s(): %w", name, err)
	}
	for _, k := range keys {
		nodes = append(nodes, &node{keys: []*key{k}})
	}
	return nodes, nil
}

func (p *parser) pk(arg string, in where) ([]*node, error)  { return p.oneKey("pk", arg, in) }
func (p *parser) pkh(arg string, in where) ([]*node, error) { return p.oneKey("pkh", arg, in) }

func (p *parser) combo(arg string, in where) ([]*node, error) {
	if in != top {
		return nil, fmt.Errorf("Can only have combo() at top level")
	}
	return p.oneKey("combo", arg, in)
}

func (p *parser) wpkh(arg string, in where) ([]*node, error) {
	if in != top && in != inP2SH {
		return nil, fmt.Errorf("Can only have wpkh() at top level or inside sh()")
	}
	return p.oneKey("wpkh", arg, inP2WPKH)
}

func (p *parser) rawtr(arg string, in where) ([]*node, error) {
	if in != top {
		return nil, fmt.Errorf("Can only have rawtr at top level")
	}
	if _, rest := cutExpr(arg); rest != "" {
		return nil, fmt.Errorf("rawtr(): only one key expected.")
	}
	return p.oneKey("rawtr", arg, inTaproot)
}

func (p *parser) raw(arg string, in where) ([]*node, error) {
	if in != top {
		return nil, fmt.Errorf("Can only have raw() at top level")
	}
	b, err := hex.DecodeString(arg)
	if err != nil || arg == "" {
		return nil, fmt.Errorf("Raw script is not hex")
	}
	return []*node{{script: b}}, nil
}

func (p *parser) addr(arg string, in where) ([]*node, error) {
	if in != top {
		return nil, fmt.Errorf("Can only have addr() at top level")
	}
	b, err := p.net.ParseAddress(arg)
	if err != nil {
		return nil, fmt.Errorf("Address is not valid")
	}
	address, _ := p.net.Address(b)
	return []*node{{script: b, address: address}}, nil
}

func (p *parser) sh(arg string, in where) ([]*node, error) {
	if in != top {
		return nil, fmt.Errorf("Can only have sh() at top level")
	}
	return p.wrap(arg, inP2SH)
}

func (p *parser) wsh(arg string, in where) ([]*node, error) {
	if in != top && in != inP2SH {
		return nil, fmt.Errorf("Can only have wsh() at top level or inside sh()")
	}
	return p.wrap(arg, inP2WSH)
}

func (p *parser) wrap(arg string, in where) (nodes []*node, err error) {
	inner, rest, err := p.script(arg, in)
	if err == nil && rest != "" {
		err = fmt.Errorf("'%s' is not a valid descriptor function", arg)
	}
	for _, n := range inner {
		nodes = append(nodes, &node{subs: []*node{n}})
	}
	return nodes, err
}

func (p *parser) multi(arg string, in where) ([]*node, error) {
	text, rest := cutExpr(arg)
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("Multi threshold '%s' is not valid", text)
	}
	var lists [][]*key
	size := 3
	for rest != "" {
		if rest[0] != ',' {
			return nil, fmt.Errorf("Multi: expected ',', got '%c'", rest[0])
		}
		var expr string
		expr, rest = cutExpr(rest[1:])
		keys, err := parseKey(p.net, expr, in)
		if err != nil {
			return nil, fmt.Errorf("Multi: %w", err)
		}
		size += keys[0].size() + 1
		if lists = append(lists, keys); len(lists) > maxMultiA {
			break
		}
	}
	if err := checkMulti(int(n), len(lists), size, in); err != nil {
		return nil, err
	}
	choices, err := evenChoices(lists, "multi(): Multipath derivation paths have mismatched lengths")
	if err != nil {
		return nil, err
	}
	var nodes []*node
	for i := range choices {
		one := &node{threshold: int(n)}
		for _, l := range lists {
			one.keys = append(one.keys, pick(l, i))
		}
		nodes = append(nodes, one)
	}
	return nodes, nil
}

func checkMulti(n, keys, size int, in where) error {
	limit, name := maxMultisig, "multisig"
	if in == inTaproot {
		limit, name = maxMultiA, "multi_a"
	}
	switch {
	case keys == 0 || keys > limit:
		return fmt.Errorf("Cannot have %d keys in %s; must have between 1 and %d keys, inclusive", keys, name,
			limit)
	case n < 1:
		return fmt.Errorf("Multisig threshold cannot be %d, must be at least 1", n)
	case n > keys:
		return fmt.Errorf("Multisig threshold cannot be larger than the number of keys; threshold is %d but "+
			"only %d keys specified", n, keys)
	case in == top && keys > 3:
		return fmt.Errorf("Cannot have %d pubkeys in bare multisig; only at most 3 pubkeys", keys)
	case in == inP2SH && size > maxRedeem:
		return fmt.Errorf("P2SH script is too large, %d bytes is larger than %d bytes", size, maxRedeem)
	}
	return nil
}

// pick returns choice i of a list; one that offers none serves for all.
func pick[T any](list []T, i int) T { return list[min(i, len(list)-1)] }

// evenChoices returns how many choices some lists offer, which must be equal where there are any.
func evenChoices[T any](lists [][]T, mismatch string) (int, error) {
	most := 1
	for _, l := range lists {
		most = max(most, len(l))
	}
	for _, l := range lists {
		if len(l) != 1 && len(l) != most {
			return 0, fmt.Errorf("%s", mismatch)
		}
	}
	return most, nil
}

func (p *parser) tr(arg string, in where) ([]*node, error) {
	if in != top {
		return nil, fmt.Errorf("Can only have tr at top level")
	}
	text, rest := cutExpr(arg)
	keys, err := parseKey(p.net, text, inTaproot)
	if err != nil {
		return nil, fmt.Errorf("tr(): %w", err)
	}
	var subs [][]*node
	var depths []int
	if rest != "" {
		if rest[0] != ',' {
			return nil, fmt.Errorf("tr: expected ',', got '%c'", rest[0])
		}
		if subs, depths, err = p.tree(rest[1:]); err != nil {
			return nil, err
		}
	}
	choices, err := evenChoices(subs, "tr(): Multipath subscripts have mismatched lengths")
	if err != nil {
		return nil, err
	}
	if len(keys) > 1 && len(subs) > 0 && choices > 1 && len(keys) != choices {
		return nil, fmt.Errorf("tr(): Multipath internal key mismatches multipath subscripts lengths")
	}
	var nodes []*node
	for i := range max(choices, len(keys)) {
		one := &node{keys: []*key{pick(keys, i)}, depths: depths}
		for _, s := range subs {
			one.subs = append(one.subs, pick(s, i))
		}
		nodes = append(nodes, one)
	}
	return nodes, nil
}

// tree reads the scripts of tr(): one, or two trees in braces.
func (p *parser) tree(s string) (subs [][]*node, depths []int, err error) {
	var right []bool // for each brace that is open whether we are behind its comma
	for {
		for strings.HasPrefix(s, "{") {
			if right = append(right, false); len(right) > maxTreeDepth {
				return nil, nil, fmt.Errorf("tr() supports at most %d nesting levels", maxTreeDepth)
			}
			s = s[1:]
		}
		expr, rest := cutExpr(s)
		nodes, _, err := p.script(expr, inTaproot)
		if err != nil {
			return nil, nil, err
		}
		subs, depths, s = append(subs, nodes), append(depths, len(right)), rest
		for len(right) > 0 && right[len(right)-1] {
			if !strings.HasPrefix(s, "}") {
				return nil, nil, fmt.Errorf("tr(): expected '}' after script expression")
			}
			right, s = right[:len(right)-1], s[1:]
		}
		if len(right) == 0 {
			break
		}
		if !strings.HasPrefix(s, ",") {
			return nil, nil, fmt.Errorf("tr(): expected ',' after script expression")
		}
		right[len(right)-1], s = true, s[1:]
	}
	if s != "" {
		return nil, nil, fmt.Errorf("tr(): expected ')' after script expression")
	}
	return subs, depths, nil
}
