package miniscript

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/bitcoin/script"
)

// ring has keys in octets, written in hexadecimal.
type ring struct {
	context Context
	keys    [][]byte
}

func (r *ring) parse(text string) (int, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 33 {
		return 0, errors.New("not a key")
	}
	return r.add(b), nil
}

func (r *ring) add(b []byte) int {
	r.keys = append(r.keys, b)
	return len(r.keys) - 1
}

// octets are those that stand in scripts.
func (r *ring) octets(i int) []byte {
	if r.context == Tapscript {
		return r.keys[i][1:]
	}
	return r.keys[i]
}

func (r *ring) name(i int) string { return hex.EncodeToString(r.keys[i]) }

func (r *ring) read(s string) (*Node, error) {
	return Parse(s, r.context, Keys{Parse: r.parse, Name: func(i int) string { return string(r.octets(i)) }})
}

// recognise is FromScript where all keys of the ring are known.
func (r *ring) recognise(s []byte) (*Node, *ring, bool) {
	out := &ring{context: r.context}
	n, ok := FromScript(s, r.context, KnownKeys{
		Key: func(b []byte) (int, bool) {
			if r.context == Tapscript && len(b) == 32 {
				return out.add(append([]byte{2}, b...)), true
			}
			return out.add(b), r.context == P2WSH && len(b) == 33
		},
		Hash: func(h []byte) (int, bool) {
			for i := range r.keys {
				if k := script.Hash160(r.octets(i)); bytes.Equal(k[:], h) {
					return out.add(r.keys[i]), true
				}
			}
			return 0, false
		},
		Name: func(i int) string { return string(out.octets(i)) },
	})
	return n, out, ok
}

// TestExpressions goes through a table of facts; see its first lines.
func TestExpressions(t *testing.T) {
	b, err := os.ReadFile("testdata/expressions.txt")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		rows++
		for _, c := range []Context{P2WSH, Tapscript} {
			checkRow(t, f, c)
		}
	}
	if rows < 90 {
		t.Errorf("only %d rows", rows)
	}
}

func checkRow(t *testing.T, f []string, c Context) {
	t.Helper()
	flags, expr, want := f[0], f[1], f[2]
	bad := strings.Contains(flags, "I")
	if c == Tapscript {
		bad = bad || strings.Contains(flags, "t")
		if f[3] != "=" {
			want = f[3]
		}
	} else {
		bad = bad || strings.Contains(flags, "w")
	}
	r := &ring{context: c}
	n, err := r.read(expr)
	if bad {
		if err == nil && n.IsValidTopLevel() {
			t.Errorf("%s in %d is valid", expr, c)
		}
		return
	}
	if err != nil || !n.IsValidTopLevel() {
		t.Errorf("%s in %d: %v", expr, c, err)
		return
	}
	s := n.Script(r.octets)
	if got := hex.EncodeToString(s); want != "?" && got != want {
		t.Errorf("%s in %d: script\n%s, want\n%s", expr, c, got, want)
	}
	if len(s) != n.ScriptSize() {
		t.Errorf("%s in %d: %d octets, not %d", expr, c, len(s), n.ScriptSize())
	}
	for _, row := range []struct {
		what      string
		got, want bool
	}{
		{"not malleable", n.IsNonMalleable(), strings.Contains(flags, "m")},
		{"needs a signature", n.NeedsSignature(), strings.Contains(flags, "s")},
		{"mixes locks", !n.KeepsLocksApart(), strings.Contains(flags, "x")},
	} {
		if row.got != row.want {
			t.Errorf("%s in %d: %s: %v (%s)", expr, c, row.what, row.got, n.Type())
		}
	}
	checkCount(t, expr, "opcodes", f[4], n.ops.count+n.ops.sat.n)
	checkCount(t, expr, "stack", f[5], n.stack.sat.taken+1)
	checkCount(t, expr, "most of the stack", f[6], n.stack.sat.most+1)
	again, keys, ok := r.recognise(s)
	if !ok {
		t.Errorf("%s in %d is not recognised in its script", expr, c)
		return
	}
	if !bytes.Equal(again.Script(keys.octets), s) {
		t.Errorf("%s in %d: recognised as %s", expr, c, again.String(keys.name))
	}
	if text := n.String(r.name); text != expr {
		r2 := &ring{context: c}
		if n2, err := r2.read(text); err != nil || !bytes.Equal(n2.Script(r2.octets), s) {
			t.Errorf("%s is written %s, which is another: %v", expr, text, err)
		}
	}
}

func checkCount(t *testing.T, expr, what, want string, got int) {
	t.Helper()
	if want != "-" && want != fmt.Sprint(got) {
		t.Errorf("%s: %s: %d, want %s", expr, what, got, want)
	}
}

// Keys for the tests below: the generator and its double, triple and quadruple.
const (
	keyA = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
	keyB = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5"
	keyC = "02f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9"
	keyD = "02e493dbf1c10d80f3581e4904930b1404cc6c13900ee0758474fa94abe8c4cd13"
)

func expand(s string) string {
	return strings.NewReplacer("A", keyA, "B", keyB, "C", keyC, "D", keyD).Replace(s)
}

// TestSanity breaks one thing a row.
func TestSanity(t *testing.T) {
	for _, row := range []struct {
		expr string
		c    Context
		want string // the first part that is not sane; empty: all is well
	}{
		{"and_v(v:pk(A),pk(B))", P2WSH, ""},
		{"thresh(2,pk(A),s:pk(B),sln:after(10))", P2WSH, ""},
		{"multi_a(2,A,B,C)", Tapscript, ""},
		{"andor(pk(A),older(10),and_v(v:pk(B),after(10)))", P2WSH, ""},
		{"and_v(v:pk(A),pk(A))", P2WSH, "and_v(v:pk(A),pk(A))"},                             // twice the same key
		{"older(10)", P2WSH, "older(10) unsigned"},                                          // anybody can
		{"or_i(pk(A),after(1))", P2WSH, "or_i(pk(A),after(1)) unsigned"},                    // likewise
		{"or_b(un:multi(2,A,B),al:older(16))", P2WSH, "or_b(un:multi(2,A,B),al:older(16))"}, // malleable
		{"or_i(and_v(v:pk(A),after(10)),and_v(v:pk(B),after(1000000000)))", P2WSH, ""},      // either, not both
		{"thresh(2,pk(A),sln:after(10),sln:after(1000000000))", P2WSH,
			"thresh(2,pk(A),sln:after(10),sln:after(1000000000))"},
		{"and_b(after(100),a:after(1000000000))", P2WSH, "and_b(after(100),a:after(1000000000))"}, // height and time
		{"and_v(v:pk(A),and_b(older(1),a:older(4194305)))", P2WSH, "and_b(older(1),a:older(4194305))"},
	} {
		r := &ring{context: row.c}
		n, err := r.read(expand(row.expr))
		if err != nil {
			t.Errorf("%s: %v", row.expr, err)
			continue
		}
		got := ""
		if bad := n.InsanePart(); bad != nil {
			got = bad.String(r.name)
		} else if !n.IsSane() {
			got = n.String(r.name) + " unsigned"
		}
		if got != expand(row.want) {
			t.Errorf("%s: not sane is %q, want %q", row.expr, got, row.want)
		}
	}
}

// TestLimits: what needs too many opcodes, a script too long or a stack too high is not sane in P2WSH.
func TestLimits(t *testing.T) {
	many := func(n int) string {
		var keys []string
		for i := range n {
			keys = append(keys, fmt.Sprintf("s:pk(02%064x)", i+1))
		}
		return fmt.Sprintf("thresh(%d,%s)", n, strings.TrimPrefix(strings.Join(keys, ","), "s:"))
	}
	for _, row := range []struct {
		keys        int
		wsh, script bool
	}{{67, true, true}, {68, false, true}} { // three opcodes for each key but the first, which needs one
		for _, c := range []Context{P2WSH, Tapscript} {
			r := &ring{context: c}
			n, err := r.read(many(row.keys))
			if err != nil {
				t.Fatal(err)
			}
			if want := c == Tapscript || row.wsh; n.WithinLimits() != want {
				t.Errorf("%d keys in %d: within the limits: %v (%d opcodes)", row.keys, c, !want, n.ops.count)
			}
		}
	}
	if _, err := (&ring{}).read(many(98)); !errors.Is(err, ErrSyntax) {
		t.Errorf("98 keys make a script of more than 3,600 octets: %v", err)
	}
	deep := strings.Repeat("or_i(0,", 4000) + "0" + strings.Repeat(")", 4000)
	if _, err := (&ring{context: Tapscript}).read("and_v(v:1," + deep + ")"); !errors.Is(err, ErrSyntax) {
		t.Errorf("too deep: %v", err)
	}
}

// TestNotMiniscript: scripts that do the same by other opcodes are none.
func TestNotMiniscript(t *testing.T) {
	r := &ring{}
	n, err := r.read(expand("and_v(v:pk(A),pk(B))"))
	if err != nil {
		t.Fatal(err)
	}
	good := n.Script(r.octets)
	split := bytes.Replace(good, []byte{byte(script.OpCheckSigVerify)},
		[]byte{byte(script.OpCheckSig), byte(script.OpVerify)}, 1)
	for name, s := range map[string][]byte{
		"CHECKSIG VERIFY":    split,
		"cut":                good[:len(good)-1],
		"more":               append(slices.Clone(good), byte(script.OpNop)),
		"long push":          append([]byte{byte(script.OpPushData1)}, good...),
		"empty":              nil,
		"pushed small":       {1, 1},
		"an open OP_IF":      {byte(script.OpIf), byte(script.Op1)},
		"an OP_ENDIF":        {byte(script.Op1), byte(script.OpEndIf)},
		"a lock of no block": {byte(script.Op0), byte(script.OpCheckSequenceVerify)},
	} {
		if n, keys, ok := r.recognise(s); ok {
			t.Errorf("%s: recognised as %s", name, n.String(keys.name))
		}
	}
}

// FuzzParse: what is read is written so that it is read again, and its script is recognised.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"and_v(v:pk(A),older(7))", "thresh(2,pk(A),s:pk(B),sln:after(10))", "tv:1", "jln:0",
		"andor(multi(1,A,B),pkh(C),hash160(" + strings.Repeat("00", 20) + "))"} {
		f.Add(expand(s))
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range []Context{P2WSH, Tapscript} {
			r := &ring{context: c}
			n, err := r.read(s)
			if err != nil {
				continue
			}
			sc := n.Script(r.octets)
			if len(sc) != n.ScriptSize() {
				t.Fatalf("%q: %d octets, not %d", s, len(sc), n.ScriptSize())
			}
			r2 := &ring{context: c}
			if n2, err := r2.read(n.String(r.name)); err != nil || !bytes.Equal(n2.Script(r2.octets), sc) {
				t.Fatalf("%q is written %q: %v", s, n.String(r.name), err)
			}
			if !n.IsValidTopLevel() {
				continue
			}
			if n3, keys, ok := r.recognise(sc); !ok || !bytes.Equal(n3.Script(keys.octets), sc) {
				t.Fatalf("%q is not recognised in %x", s, sc)
			}
		}
	})
}

// FuzzFromScript: what is recognised has the script.
func FuzzFromScript(f *testing.F) {
	r := &ring{}
	n, err := r.read(expand("or_d(pk(A),and_v(v:pkh(B),older(7)))"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(n.Script(r.octets))
	f.Fuzz(func(t *testing.T, s []byte) {
		for _, c := range []Context{P2WSH, Tapscript} {
			from := &ring{context: c}
			if n, keys, ok := from.recognise(s); ok && !bytes.Equal(n.Script(keys.octets), s) {
				t.Fatalf("%x is recognised as %s", s, n.String(keys.name))
			}
		}
	})
}
