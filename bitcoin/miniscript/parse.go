package miniscript

import (
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
)

// maxDepth is how deep expressions may stand within each other. No script of 3,600 octets comes near it.
const maxDepth = 4000

// ErrSyntax: the text is no expression.
var ErrSyntax = errors.New("not a miniscript expression")

// Keys are what stands for keys in expressions.
type Keys struct {
	// Parse takes in a key and returns its number; an error ends the parsing.
	Parse func(text string) (int, error)
	// Name tells the keys of the expression apart: two with the same name are the same.
	Name func(int) string
}

// Parse reads an expression. It need not make sense: see IsSane. The error is ErrSyntax, or that of a key.
func Parse(s string, c Context, keys Keys) (*Node, error) {
	p := parser{s: s, context: c, keys: keys}
	n, err := p.expression(0)
	if err != nil {
		return nil, err
	}
	if p.s != "" {
		return nil, ErrSyntax
	}
	n.findDuplicates(keys.Name)
	return n, nil
}

type parser struct {
	s       string // what is left
	context Context
	keys    Keys
	size    int // octets of scripts so far, of those that will come at least
}

// take reads a text if it comes next.
func (p *parser) take(text string) bool {
	rest, ok := strings.CutPrefix(p.s, text)
	if ok {
		p.s = rest
	}
	return ok
}

// node makes an expression, unless the script is too long by now.
func (p *parser) node(n Node) (*Node, error) {
	out := n.make(p.context)
	p.size += out.size
	for _, s := range n.Subs {
		p.size -= s.size
	}
	if p.size > p.context.maxSize() {
		return nil, ErrSyntax
	}
	return out, nil
}

// expression reads wrappers and what stands behind them.
func (p *parser) expression(depth int) (*Node, error) {
	if depth > maxDepth {
		return nil, ErrSyntax
	}
	wrappers := ""
	if i := strings.IndexFunc(p.s, func(r rune) bool { return r < 'a' || r > 'z' }); i > 0 && p.s[i] == ':' {
		wrappers, p.s = p.s[:i], p.s[i+1:]
	}
	if strings.Contains(wrappers, "vv") || len(wrappers) > p.context.maxSize() {
		return nil, ErrSyntax
	}
	n, err := p.bare(depth)
	for i := len(wrappers) - 1; i >= 0 && err == nil; i-- {
		n, err = p.wrap(wrappers[i], n)
	}
	return n, err
}

// wrap puts a wrapper around an expression.
func (p *parser) wrap(letter byte, n *Node) (*Node, error) {
	if i := strings.IndexByte(wrapperLetters, letter); i >= 0 {
		return p.node(Node{Fragment: WrapA + Fragment(i), Subs: []*Node{n}})
	}
	leaf := Just0
	if letter == 't' {
		leaf = Just1
	}
	constant, err := p.node(Node{Fragment: leaf})
	if err != nil {
		return nil, err
	}
	switch letter {
	case 't':
		return p.node(Node{Fragment: AndV, Subs: []*Node{n, constant}})
	case 'u':
		return p.node(Node{Fragment: OrI, Subs: []*Node{n, constant}})
	case 'l':
		return p.node(Node{Fragment: OrI, Subs: []*Node{constant, n}})
	}
	return nil, ErrSyntax
}

// bare reads an expression without wrappers.
func (p *parser) bare(depth int) (*Node, error) {
	switch {
	case p.take("0"):
		return p.node(Node{Fragment: Just0})
	case p.take("1"):
		return p.node(Node{Fragment: Just1})
	case p.take("pk("):
		return p.checkedKey(PkK)
	case p.take("pkh("):
		return p.checkedKey(PkH)
	case p.take("and_n("):
		return p.combination(AndOr, 2, depth)
	case p.take("andor("):
		return p.combination(AndOr, 3, depth)
	case p.take("thresh("):
		return p.thresh(depth)
	}
	for f := PkK; f <= MultiA; f++ {
		if name := f.name(); name == "" || f == Thresh || f == AndOr || !p.take(name+"(") {
			continue
		}
		switch f {
		case PkK, PkH:
			return p.key(f)
		case Sha256, Hash256:
			return p.hash(f, 32)
		case Ripemd160, Hash160:
			return p.hash(f, 20)
		case Older, After:
			k, ok := p.number(")")
			if !ok || k >= 1<<31 {
				return nil, ErrSyntax
			}
			return p.node(Node{Fragment: f, K: k})
		case Multi, MultiA:
			return p.multi(f)
		}
		return p.combination(f, 2, depth)
	}
	return nil, ErrSyntax
}

// upTo reads what stands before one of some characters, and that one.
func (p *parser) upTo(ends string) (text string, end byte, ok bool) {
	i := strings.IndexAny(p.s, ends)
	if i < 1 {
		return "", 0, false
	}
	text, end, p.s = p.s[:i], p.s[i], p.s[i+1:]
	return text, end, true
}

// number reads a number that is not zero.
func (p *parser) number(end string) (uint32, bool) {
	text, _, ok := p.upTo(end)
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), ok && err == nil && n > 0 && text[0] != '+'
}

func (p *parser) key(f Fragment) (*Node, error) {
	text, _, ok := p.upTo(")")
	if !ok {
		return nil, ErrSyntax
	}
	k, err := p.keys.Parse(text)
	if err != nil {
		return nil, err
	}
	return p.node(Node{Fragment: f, Keys: []int{k}})
}

// checkedKey reads a key whose signature is checked at once.
func (p *parser) checkedKey(f Fragment) (*Node, error) {
	n, err := p.key(f)
	if err != nil {
		return nil, err
	}
	return p.node(Node{Fragment: WrapC, Subs: []*Node{n}})
}

func (p *parser) hash(f Fragment, size int) (*Node, error) {
	text, _, _ := p.upTo(")")
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != size {
		return nil, ErrSyntax
	}
	return p.node(Node{Fragment: f, Hash: b})
}

func (p *parser) multi(f Fragment) (*Node, error) {
	most, context := maxMulti, P2WSH
	if f == MultiA {
		most, context = maxMultiA, Tapscript
	}
	k, ok := p.number(",")
	if !ok || p.context != context {
		return nil, ErrSyntax
	}
	n := Node{Fragment: f, K: k}
	for end := byte(','); end == ','; {
		var text string
		if text, end, ok = p.upTo(",)"); !ok || len(n.Keys) == most {
			return nil, ErrSyntax
		}
		key, err := p.keys.Parse(text)
		if err != nil {
			return nil, err
		}
		n.Keys = append(n.Keys, key)
	}
	if int(k) > len(n.Keys) {
		return nil, ErrSyntax
	}
	return p.node(n)
}

// combination reads the parts of an expression; the last of three may be missing, and is 0 then.
func (p *parser) combination(f Fragment, parts, depth int) (*Node, error) {
	n := Node{Fragment: f}
	for i := range parts {
		s, err := p.expression(depth + 1)
		if err != nil {
			return nil, err
		}
		end := ","
		if i == parts-1 {
			end = ")"
		}
		if !p.take(end) {
			return nil, ErrSyntax
		}
		n.Subs = append(n.Subs, s)
	}
	if f == AndOr && parts == 2 {
		zero, err := p.node(Node{Fragment: Just0})
		if err != nil {
			return nil, err
		}
		n.Subs = append(n.Subs, zero)
	}
	return p.node(n)
}

func (p *parser) thresh(depth int) (*Node, error) {
	k, ok := p.number(",")
	if !ok {
		return nil, ErrSyntax
	}
	n := Node{Fragment: Thresh, K: k}
	for {
		s, err := p.expression(depth + 1)
		if err != nil {
			return nil, err
		}
		n.Subs = append(n.Subs, s)
		if p.take(")") {
			break
		}
		if !p.take(",") {
			return nil, ErrSyntax
		}
	}
	if int64(k) > int64(len(n.Subs)) {
		return nil, ErrSyntax
	}
	return p.node(n)
}
