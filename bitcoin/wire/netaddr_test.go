package wire

import (
	"net/netip"
	"strings"
	"testing"
)

// The rows are those of Core's net_tests, "cnetaddr_unserialize_v2": network, length and address.
func TestAddrV2Forms(t *testing.T) {
	for _, row := range []struct {
		name, octets string
		want         string // the address, "::" for none
		net          Net
		err          string
	}{
		{"IPv4", "01 04 01020304", "1.2.3.4", NetIPv4, ""},
		{"IPv4 cut short", "01 04 0102", "", 0, "end of data"},
		{"IPv4 of 5", "01 05 01020304", "", 0, "BIP155 IPv4 address with length 5 (should be 4)"},
		{"IPv4 of 513", "01 fd0102 01020304", "", 0, "Address too long: 513 > 512"},
		{"IPv6", "02 10 0102030405060708090a0b0c0d0e0f10", "102:304:506:708:90a:b0c:d0e:f10",
			NetIPv6, ""},
		{"IPv6 with a name inside", "02 10 fd6b88c08724ca978112ca1bbdcafac2",
			"zklycewkdo64v6wc.internal", NetInternal, ""},
		{"IPv6 of 4", "02 04 00", "", 0, "BIP155 IPv6 address with length 4 (should be 16)"},
		{"IPv6 with IPv4 inside", "02 10 00000000000000000000ffff01020304", "::", NetNone, ""},
		{"IPv6 with Tor v2 inside", "02 10 fd87d87eeb430102030405060708090a", "::", NetNone, ""},
		{"IPv6 ::", "02 10 00000000000000000000000000000000", "::", NetNone, ""},
		{"Tor v2", "03 0a f1f2f3f4f5f6f7f8f9fa", "::", NetNone, ""},
		{"Tor v3", "04 20 79bcc625184b05194975c28b66b66b0469f7f6556fb1ac3189a79b40dda32f1f", torName,
			NetTorV3, ""},
		{"Tor v3 of 0", "04 00 00", "", 0, "BIP155 TORv3 address with length 0 (should be 32)"},
		{"I2P", "05 20 a2894dabaec08c0051a481a6dac88b64f98232ae42d4b6fd2fa81952dfe36a87", i2pName,
			NetI2P, ""},
		{"I2P of 3", "05 03 00", "", 0, "BIP155 I2P address with length 3 (should be 32)"},
		{"CJDNS", "06 10 fc000001000200030004000500060007", "fc00:1:2:3:4:5:6:7", NetCJDNS, ""},
		{"CJDNS of another prefix", "06 10 aa000001000200030004000500060007", "aa00:1:2:3:4:5:6:7",
			NetCJDNS, ""},
		{"CJDNS of 1", "06 01 00", "", 0, "BIP155 CJDNS address with length 1 (should be 16)"},
		{"network 170 of 33554432", "aa fe00000002 01020304050607", "", 0,
			"Address too long: 33554432 > 512"},
		{"network 170", "aa 04 01020304", "::", NetNone, ""},
		{"network 170 of 0", "aa 00", "::", NetNone, ""},
		{"network 255 of 10", "ff 0a 01020304050607080910", "::", NetNone, ""},
	} {
		d := &decoder{b: unhex(t, row.octets)}
		a := d.addrV2()
		err := d.end()
		if row.err != "" {
			if err == nil || err.Error() != row.err {
				t.Errorf("%s: %v, want %s", row.name, err, row.err)
			}
			continue
		}
		if err != nil || a.String() != row.want || a.Net != row.net {
			t.Errorf("%s: %v of %v, %v; want %s", row.name, a, a.Net, err, row.want)
		}
	}
}

// An address between two good ones that is of no known network does not stop them (Core's
// p2p_invalid_messages.py, "unrecognized network").
func TestAddrV2UnknownNetworkBetween(t *testing.T) {
	m, err := Parse("addrv2", unhex(t, "02"+
		"61bc6649 00 99 03 010203 0000"+
		"61bc6649 00 01 04 09090909 208d"))
	if err != nil {
		t.Fatal(err)
	}
	addrs := m.(*AddrV2Msg).Addrs
	if addrs[0].Net != NetNone || addrs[1].AddrPort.String() != "9.9.9.9:8333" {
		t.Errorf("%v", addrs)
	}
	long := unhex(t, "01 61bc6649 00 01 fd0102"+strings.Repeat("00", 513)+"208d")
	if _, err := Parse("addrv2", long); err == nil ||
		!strings.HasSuffix(err.Error(), "Address too long: 513 > 512") {
		t.Errorf("%v", err)
	}
}

func TestParseAddr(t *testing.T) {
	for s, want := range map[string]string{
		"1.2.3.4":        "1.2.3.4",
		"::ffff:1.2.3.4": "1.2.3.4",
		"2001:470::1":    "2001:470::1",
		torName:          torName,
		i2pName:          i2pName,
		"UDHDrtrcetjm5sxzskjyr5ztpeszydbh4dpl3pl4utgqqw2v4jna.b32.I2P": "" +
			"udhdrtrcetjm5sxzskjyr5ztpeszydbh4dpl3pl4utgqqw2v4jna.b32.i2p",
		"::":                     "::",
		"fd87:d87e:eb43::1":      "::",
		"6hzph5hv6337r6p2.onion": "error", // version 2
		"pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscsad.onion": "error", // checksum
		"pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscrye.onion": "error", // version
		"mfrggzak.onion": "error", "mf*g zak.onion": "error", ".onion": "error",
		"udhdrtrcetjm5sxzskjyr5ztpeszydbh4dpl3pl4utgqqw2v4jn=.b32.i2p":     "error",
		"udhdrtrcetjm5sxzskjyr5ztpeszydbh4dpl3pl4utgqqw2v4jna=.b32.i2p":    "error",
		"pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscsad.b32.i2p": "error",
		"tp*szydbh4dp.b32.i2p": "error", "": "error", "localhost": "error", "1.2.3": "error",
	} {
		a, err := ParseAddr(s)
		if (err != nil) != (want == "error") || err == nil && a.String() != want {
			t.Errorf("%q: %v, %v; want %s", s, a, err, want)
		}
	}
	if s := mustAddr(t, torName, 8333).String(); s != torName+":8333" {
		t.Error(s)
	}
	if s := ipPort("[2001:470::1]:8333").String(); s != "[2001:470::1]:8333" {
		t.Error(s)
	}
}

// What is reached from everywhere, by the RFC that reserves the rest.
func TestRoutable(t *testing.T) {
	for s, want := range map[string]bool{
		"8.8.8.8": true, "2001:4860:4860::8888": true, torName: true, i2pName: true,
		"172.15.255.255": true, "172.32.0.0": true, "100.128.0.1": true, "198.20.0.1": true,
		"0.0.0.0": false, "255.255.255.255": false, "0.1.2.3": false, "127.0.0.1": false,
		"10.0.0.1": false, "192.168.1.1": false, "172.16.0.1": false, "172.31.255.255": false, // RFC 1918
		"198.18.0.1": false, "198.19.255.255": false, // RFC 2544
		"169.254.1.1": false,                           // RFC 3927
		"100.64.0.1":  false, "100.127.255.255": false, // RFC 6598
		"192.0.2.1": false, "198.51.100.1": false, "203.0.113.1": false, // RFC 5737
		"::": false, "::1": false, "::2": true,
		"2001:db8::1": false,                   // RFC 3849
		"fe80::1":     false,                   // RFC 4862
		"fc00::1":     false, "fd00::1": false, // RFC 4193
		"2001:10::1": false, "2001:1f::1": false, // RFC 4843
		"2001:20::1": false, "2001:2f::1": false, // RFC 7343; btcd had it routable
		"2001:30::1": true, "2002:808:808::1": true, "2001::1": true,
		"::ffff:10.0.0.1": false, // IPv4 inside IPv6; btcd had it routable
	} {
		a, err := ParseAddr(s)
		if err != nil {
			t.Fatal(err)
		}
		if a.Routable() != want {
			t.Errorf("%s: routable %v", s, !want)
		}
	}
	cjdns, _ := NewAddr(NetCJDNS, unhex(t, "fc000001000200030004000500060007"))
	if !cjdns.Routable() {
		t.Error("CJDNS is not routable")
	}
	other, _ := NewAddr(NetCJDNS, unhex(t, "aa000001000200030004000500060007"))
	if other.Valid() || other.Routable() {
		t.Error("CJDNS with another prefix is valid")
	}
	if name := InternalAddr("seed.example"); name.Valid() || name.Routable() {
		t.Error("a name is routable")
	}
}

func TestLinkedIPv4(t *testing.T) {
	for s, want := range map[string]string{
		"1.2.3.4":                               "1.2.3.4",
		"64:ff9b::102:304":                      "1.2.3.4",
		"::ffff:0:102:304":                      "1.2.3.4",
		"2002:102:304:9999:9999:9999:9999:9999": "1.2.3.4",
		"2001:0:9999:9999:9999:9999:fefd:fcfb":  "1.2.3.4",
		"2001:470:abcd:9999::1":                 "",
		"10.0.0.1":                              "",
		torName:                                 "",
	} {
		a, err := ParseAddr(s)
		if err != nil {
			t.Fatal(err)
		}
		ip, ok := a.LinkedIPv4()
		if ok != (want != "") || ok && netip.AddrFrom4(ip).String() != want {
			t.Errorf("%s: %v, %v; want %s", s, ip, ok, want)
		}
	}
}

// The message addr cannot carry what is not an IP: zeros go in its place.
func TestAddrV1Incompatible(t *testing.T) {
	m := &AddrMsg{[]KnownAddr{{0, 0, mustAddr(t, torName, 1)}, {0, 0, mustAddr(t, i2pName, 2)},
		{0, 0, AddrPort{InternalAddr("x"), 3}}}}
	got, err := Parse("addr", m.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	addrs := got.(*AddrMsg).Addrs
	if addrs[0].Net != NetNone || addrs[1].Net != NetNone || addrs[2] != m.Addrs[2] {
		t.Errorf("%v", addrs)
	}
}

func FuzzParseAddr(f *testing.F) {
	for _, s := range []string{"1.2.3.4", "2001:470::1", torName, i2pName} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddr(s)
		if err != nil || a.Net == NetNone {
			return
		}
		if a.Net == NetInternal {
			return // has a name of its own, which is not parsed
		}
		if b, err := ParseAddr(a.String()); err != nil || a != b {
			t.Errorf("%q is %v, which is %v, %v", s, a, b, err)
		}
		a.Routable()
		a.LinkedIPv4()
	})
}
