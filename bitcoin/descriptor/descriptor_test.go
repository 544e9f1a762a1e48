package descriptor

import (
	"encoding/hex"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
)

const (
	tprv = "tprv8ZgxMBicQKsPd7Uf69XL1XwhmjHopUGep8GuEiJDZmbQz6o58LninorQAfcKZWARbtRtfnLcJ5MQ2AtHcQJCCRUcMRvmDUjyEmNUWwx8UbK"
	tpub = "tpubD6NzVbkrYhZ4WaWSyoBvQwbpLkojyoTZPRsgXELWz3Popb3qkjcJyJUGLnL4qHHoQvao8ESaAstxYSnhyswJ76uZPStJRJCTKvosUCJZL5B"
	keyA = "03a0434d9e47f3c86235477c7b1ae6ae5d3442d49b1943c2b752a68e2a47e247c7"
	keyB = "03774ae7f858a9411e5ef4246b70c65aac5649980be5c17891bbec17895da008cb"
	keyC = "03d01115d548e7561b15c38f004d734633687cf4419620095bc5b0f47070afe85a"
)

func parse(t *testing.T, s string) []*Descriptor {
	t.Helper()
	list, err := Parse(bitcoin.Regtest(), s, false)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return list
}

// The chains are those of BIP 32, test vectors 1 and 2.
func TestExtendedVectors(t *testing.T) {
	net := bitcoin.Mainnet()
	for _, row := range []struct {
		from, to string
		path     []uint32
	}{
		{"xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi",
			"xprvA41z7zogVVwxVSgdKUHDy1SKmdb533PjDz7J6N6mV6uS3ze1ai8FHa8kmHScGpWmj4WggLyQjgPie1rFSruoUihUZREPSL39UNdE3BBDu76",
			[]uint32{hardened, 1, 2 | hardened, 2, 1000000000}},
		{"xpub661MyMwAqRbcFW31YEwpkMuc5THy2PSt5bDMsktWQcFF8syAmRUapSCGu8ED9W6oDMSgv6Zz8idoc4a6mr8BDzTJY47LJhkJ8UB7WEGuduB",
			"xpub69H7F5d8KSRgmmdJg2KhpAK8SR3DjMwAdkxj3ZuxV27CprR9LgpeyGmXUbC6wb7ERfvrnKZjXoUmmDznezpbZb7ap6r1D3tgFxHmwMkQTPH",
			[]uint32{0}},
	} {
		k, err := ParseExtended(net, row.from)
		if err != nil {
			t.Fatal(err)
		}
		if k.String(net) != row.from {
			t.Errorf("%s is written as %s", row.from, k.String(net))
		}
		for _, n := range row.path {
			if k, err = k.Child(n); err != nil {
				t.Fatal(err)
			}
		}
		if k.String(net) != row.to {
			t.Errorf("got %s, want %s", k.String(net), row.to)
		}
	}
	pub, _ := ParseExtended(net, "xpub661MyMwAqRbcFW31YEwpkMuc5THy2PSt5bDMsktWQcFF8syAmRUapSCGu8ED9W6oDMSgv6Zz8idoc4a6mr8BDzTJY47LJhkJ8UB7WEGuduB")
	if _, err := pub.Child(hardened); err != ErrHardened {
		t.Errorf("hardened child of a public key: %v", err)
	}
}

// The addresses are those of Core's rpc_deriveaddresses.py and rpc_scantxoutset.py.
func TestAddresses(t *testing.T) {
	net := bitcoin.Regtest()
	for _, row := range []struct {
		desc string
		pos  uint32
		want string
	}{
		{"wpkh(" + tprv + "/1/1/0)", 0, "bcrt1qjqmxmkpmxt80xz4y3746zgt0q3u3ferr34acd5"},
		{"wpkh(" + tpub + "/1/1/0)", 0, "bcrt1qjqmxmkpmxt80xz4y3746zgt0q3u3ferr34acd5"},
		{"wpkh(" + tprv + "/1/1/*)", 2, "bcrt1qpgptk2gvshyl0s9lqshsmx932l9ccsv265tvaq"},
		{"wpkh(" + tprv + "/1/1/*)", 2147483647, "bcrt1qtzs23vgzpreks5gtygwxf8tv5rldxvvsyfpdkg"},
		{"pkh(" + tprv + "/0'/0h/*h)", 1500, "n37dAGe6Mq1HGM9t4b6rFEEsDGq7Fcgfqg"},
		{"combo(" + tprv + "/1/1/0)", 0, "mtfUoUax9L4tzXARpw1oTGxWyoogp52KhJ " +
			"bcrt1qjqmxmkpmxt80xz4y3746zgt0q3u3ferr34acd5 2NDvEwGfpEqJWfybzpKPHF2XH3jwoQV3D7x"},
		{"wpkh(" + tprv + "/1/<0;1>/*)", 1, "bcrt1q7c8mdmdktrzs8xgpjmqw90tjn65j5a3yj04m3n " +
			"bcrt1qhku5rq7jz8ulufe2y6fkcpnlvpsta7rq4442dy"},
	} {
		var got []string
		for _, d := range parse(t, row.desc) {
			outs, err := d.Expand(row.pos)
			if err != nil {
				t.Fatalf("%s: %v", row.desc, err)
			}
			for _, out := range outs {
				if a, ok := net.Address(out.Script); ok {
					got = append(got, a)
				}
			}
		}
		if s := strings.Join(got, " "); s != row.want {
			t.Errorf("%s at %d: %s, want %s", row.desc, row.pos, s, row.want)
		}
	}
}

var noOrigins = regexp.MustCompile(`\[[^]]*\]`)

// What a descriptor of one script stands for is itself a descriptor of that script.
func TestInferred(t *testing.T) {
	for _, row := range []struct{ desc, want string }{
		{"combo(" + tprv + "/1/1/0)", "pkh([0c5f9a1e/1/1/0]03e1c5b6e650966971d7e71ef2674f80222752740fc1dfd63bbbd220d2da9bd0fb)#cxmct4w8"},
		{"pkh([abcdef88/1/2'/3]" + tpub + "/1/1/1)", "pkh([abcdef88/1/2h/3/1/1/1]030d820fc9e8211c4169be8530efbc632775d8286167afd178caaf1089b77daba7)#"},
		{"wsh(sortedmulti(2," + keyA + "," + keyB + "," + keyC + "))", "wsh(multi(2," + keyB + "," + keyA + "," + keyC + "))"},
		{"sh(wsh(pkh(" + keyA + ")))", "sh(wsh(pkh(["},
		{"tr(" + keyA + ",{pk(" + keyB + "),{multi_a(1," + keyB + "," + keyC + "),pk(" + keyA[2:] + ")}})", "tr(["},
		{"raw(6a)", "raw(6a)#"},
	} {
		found := false
		for _, d := range parse(t, row.desc) {
			outs, err := d.Expand(0)
			if err != nil {
				t.Fatal(err)
			}
			for _, out := range outs {
				found = found || strings.HasPrefix(out.Desc, row.want) ||
					strings.HasPrefix(noOrigins.ReplaceAllString(out.Desc, ""), row.want)
				again, err := Parse(bitcoin.Regtest(), out.Desc, true)
				if err != nil {
					t.Fatalf("%s: %v", out.Desc, err)
				}
				same, err := again[0].Expand(0)
				if err != nil || string(same[0].Script) != string(out.Script) {
					t.Errorf("%s is inferred as %s, which is another script", row.desc, out.Desc)
				}
			}
		}
		if !found {
			t.Errorf("%s: nothing is inferred as %s", row.desc, row.want)
		}
	}
}

// The outputs are those of BIP 386's test vectors.
func TestTaprootVectors(t *testing.T) {
	for _, row := range []struct{ desc, want string }{
		{"tr(a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd)",
			"512077aab6e066f8a7419c5ab714c12c67d25007ed55a43cadcacb4d7a970a093f11"},
		{"tr(a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd,pk(669b8afcec803a0d323e9a17f3ea8e68e8abe5a278020a929adbec52421adbd0))",
			"512017cf18db381d836d8923b1bdb246cfcd818da1a9f0e6e7907f187f0b2f937754"},
		{"tr(a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd,{pk(669b8afcec803a0d323e9a17f3ea8e68e8abe5a278020a929adbec52421adbd0)," +
			"pk(a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd)})", ""},
	} {
		outs, err := parse(t, row.desc)[0].Expand(0)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(outs[0].Script); row.want != "" && got != row.want {
			t.Errorf("%s: %s, want %s", row.desc, got, row.want)
		}
		if kind, _ := script.Solve(outs[0].Script); kind != script.WitnessV1Taproot {
			t.Errorf("%s: %s", row.desc, kind)
		}
	}
}

func TestString(t *testing.T) {
	for _, row := range []struct{ desc, want string }{
		{"pkh([d34db33f/44h/0h/0h]" + tpub + "/1/*)", ""},
		{"pkh([d34db33f/44'/0'/0']" + tpub + "/1/*)", ""},
		{"wsh(multi(1," + tpub + "/1/0/*," + tpub + "/0/0/*))", ""},
		{"wpkh(" + tpub + "/<0;1>/*)", "wpkh(" + tpub + "/0/*)"},
		{"wpkh(" + tprv + "/1h/*h)", "wpkh(" + tpub + "/1h/*h)"},
		{"tr(" + keyA + ",{pk(" + keyB + "),{pk(" + keyC + "),pk(" + keyA[2:] + ")}})", ""},
		{"addr(bcrt1qjqmxmkpmxt80xz4y3746zgt0q3u3ferr34acd5)", ""},
	} {
		if row.want == "" {
			row.want = row.desc
		}
		if got := parse(t, row.desc)[0].String(); got != WithChecksum(row.want) {
			t.Errorf("%s: %s", row.desc, got)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, row := range []struct{ desc, want string }{
		{"", "'' is not a valid descriptor function"},
		{"addrx(1)", "'addrx(1)' is not a valid descriptor function"},
		{"pk( " + keyA + ")", "pk(): Key ' " + keyA + "' is invalid due to whitespace"},
		{"pk()", "pk(): No key provided"},
		{"wpkh(04" + keyA + ")", "is invalid"},
		{"wsh(wsh(pk(" + keyA + ")))", "Can only have wsh() at top level or inside sh()"},
		{"sh(sh(pk(" + keyA + ")))", "Can only have sh() at top level"},
		{"sh(x)", "A function is needed within P2SH"},
		{"wsh(x)", "A function is needed within P2WSH"},
		{"multi(0," + keyA + ")", "Multisig threshold cannot be 0, must be at least 1"},
		{"multi(2," + keyA + ")", "threshold is 2 but only 1 keys specified"},
		{"multi(x," + keyA + ")", "Multi threshold 'x' is not valid"},
		{"multi(1," + strings.Repeat(keyA+",", 3) + keyA + ")", "at most 3 pubkeys"},
		{"sh(multi(1" + strings.Repeat(","+keyA, 16) + "))", "P2SH script is too large, 547 bytes"},
		{"pkh([abcd/1]" + tpub + ")", "Fingerprint is not 4 bytes (4 characters instead of 8 characters)"},
		{"pkh(" + tpub + "/x)", "Key path value 'x' is not a valid uint32"},
		{"pkh(" + tpub + "/4294967295)", "Key path value 4294967295 is out of range"},
		{"pkh(" + tpub + "/<0;0>)", "Duplicated key path value 0 in multipath specifier"},
		{"pkh(" + tpub + "/<0;1>/<0;1>)", "Multiple multipath key path specifiers found"},
		{"raw(6a)#abc", "Expected 8 character checksum, not 3 characters"},
		{"raw(6a)##", "Multiple '#' symbols"},
		{"raw(é)", "Invalid characters in payload"},
		{"tr(" + keyA + ",pk(" + keyB + ")x", "is not a valid descriptor function"},
		{"tr(" + keyA + ",{pk(" + keyB + ")})", "tr(): expected ',' after script expression"},
	} {
		if _, err := Parse(bitcoin.Regtest(), row.desc, false); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %s", row.desc, err, row.want)
		}
	}
	if _, err := Parse(bitcoin.Regtest(), "raw(6a)", true); err == nil || err.Error() != "Missing checksum" {
		t.Errorf("no checksum: %v", err)
	}
	d := parse(t, "wpkh("+tpub+"/1h/0)")[0]
	if _, err := d.Expand(0); !errors.Is(err, ErrHardened) {
		t.Errorf("hardened path of a public key: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("wsh(sortedmulti(2,[d34db33f/44h]" + tpub + "/<0;1>/*h," + keyA + "))")
	f.Add("tr(" + keyA + ",{pk(" + keyB + "),{pk(" + keyC + "),multi_a(1," + keyA + ")}})")
	net := bitcoin.Regtest()
	f.Fuzz(func(t *testing.T, s string) {
		list, err := Parse(net, s, false)
		if err != nil {
			return
		}
		for _, d := range list {
			again, err := Parse(net, d.String(), true)
			if err != nil || again[0].String() != d.String() {
				t.Errorf("%q is written as %q: %v", s, d.String(), err)
			}
			d.Expand(1)
		}
	})
}
