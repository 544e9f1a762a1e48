package descriptor

import (
	"regexp"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
)

// miniKeys writes keys for letters that stand alone: capital ones are whole keys, small ones their x alone.
func miniKeys(s string) string {
	keys := map[string]string{
		"A": "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
		"B": "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5",
		"C": "02f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9",
		"X": tpub,
	}
	for _, k := range []string{"A", "B", "C"} {
		keys[string(k[0]+'a'-'A')] = keys[k][2:]
	}
	return regexp.MustCompile(`\b[ABCXabc][,)/]`).ReplaceAllStringFunc(s, func(m string) string {
		return keys[m[:1]] + m[1:]
	})
}

// The addresses are those that Bitcoin Core 30.99 derives.
func TestMiniscriptAddresses(t *testing.T) {
	net := bitcoin.Regtest()
	for _, row := range []struct{ desc, want string }{
		{"wsh(and_v(v:pk(A),older(7)))", "bcrt1q574z30mvm2ux7jdudyrwrlrarwhc2kctg9rn4ghn0whg3gvpaywscgdqtx"},
		{"wsh(thresh(2,pk(A),s:pk(B),sln:after(10)))", "bcrt1qp9l3nmjnnpdswnqkka0s80yx78avnrf4wn7ykl3f6fqyqztw3l3q3p0erj"},
		{"tr(a,{pk(b),and_v(v:pk(c),older(10))})", "bcrt1puwkh6tlr5rs79dnek5p3xlyptw7nfllrka2kywr0028ampa56tasvyvst0"},
		{"tr(a,multi_a(2,b,c))", "bcrt1p4mqwt64r2a3gsrkrjzw65s4m65uu52hcmg23nek8y4husfhr4qkqkct9n2"},
		{"sh(wsh(or_d(pk(A),and_v(v:pkh(B),older(16)))))", "2NBcGCctivtqhLr93WP321EabPgrZS6SYN7"},
		{"wsh(t:or_c(pk(A),v:pkh(B)))", "bcrt1q96wpmd5s5zez2w4g672y9ws6zmh8nvktgh63qjzqk5s2jyy2x4dqcesatk"},
		{"tr(a,pkh(b))", "bcrt1pptw3pzy7xtj0fflss9rryyargekdy3cm4ya4vnnq5r9804c9erlsy77spm"},
		{"wsh(and_v(v:pk(X/0),after(10)))", "bcrt1q3wdtxg7jcjv4ge9wjh67g6dtnfpyjg2phup3cf3dx57jkcahvavq6mu5s6"},
	} {
		outs, err := parse(t, miniKeys(row.desc))[0].Expand(0)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := net.Address(outs[0].Script); got != row.want {
			t.Errorf("%s: %s, want %s", row.desc, got, row.want)
		}
	}
}

func TestMiniscriptErrors(t *testing.T) {
	for desc, want := range map[string]string{
		"wsh(and_v(v:pk(A),pk(A)))":                               "and_v(v:pk(A),pk(A)) is not sane: contains duplicate public keys",
		"wsh(or_i(older(1),pk(A)))":                               "or_i(older(1),pk(A)) is not sane: witnesses without signature exist",
		"wsh(and_v(v:pk(A),and_b(after(9),a:after(1000000000))))": "and_b(after(9),a:after(1000000000)) is not sane: contains mixes of timelocks expressed in blocks and seconds",
		"wsh(0)":                                "0 is not satisfiable",
		"wsh(and_v(pk(A),older(7)))":            "and_v(pk(A),older(7)) is invalid",
		"wsh(and_v(v:pk(zz),older(7)))":         "key 'zz' is not valid",
		"wsh(foo(A))":                           "A function is needed within P2WSH",
		"sh(and_v(v:pk(A),older(7)))":           "Miniscript expressions can only be used in wsh or tr.",
		"wsh(or_d(pk(X/<0;1>),pkh(X/<2;3;4>)))": "Miniscript: Multipath derivation paths have mismatched lengths",
	} {
		_, err := Parse(bitcoin.Regtest(), miniKeys(desc), false)
		if err == nil || err.Error() != miniKeys(want) {
			t.Errorf("%s: %v, want %s", desc, err, want)
		}
	}
}

// TestMiniscriptIsInferred: the script of wsh() is told where it is known and safe.
func TestMiniscriptIsInferred(t *testing.T) {
	net := bitcoin.Regtest()
	for _, inner := range []string{"pk(A)", "multi(1,A,B)", "and_v(v:pk(A),older(7))", "or_i(pk(A),and_v(v:pk(B),after(9)))"} {
		desc := miniKeys("wsh(" + inner + ")")
		d := parse(t, desc)[0]
		r, err := d.root.subs[0].resolve(0)
		if err != nil {
			t.Fatal(err)
		}
		outs, err := d.Expand(0)
		if err != nil {
			t.Fatal(err)
		}
		if got := Infer(net, outs[0].Script, []byte{1}, r.script); got != WithChecksum(desc) {
			t.Errorf("%s is inferred as %s", desc, got)
		}
		if got := Infer(net, outs[0].Script); got[:5] != "addr(" {
			t.Errorf("an unknown script is inferred as %s", got)
		}
	}
}
